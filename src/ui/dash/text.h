/* An overlay that shows text: help, messages, what a command printed. */
#ifndef SBX_UI_DASH_TEXT_H
#define SBX_UI_DASH_TEXT_H

#include "ui/dash/app.h"

/* A line that begins with "\001" is a heading; "\002KEY\tNOTE" a key and what it does; "\003" and "\004" begin lines of
 * warnings and errors; "\005LABEL\tVALUE" is a field.  The text is copied.  at_end: its end is shown first. */
struct pane *text_new(const char *title, const char *text, bool at_end);
/* A question about something that can be lost: Cancel is chosen until the user moves. */
struct pane *confirm_new(const char *title, const char *text, const char *button, void (*yes)(struct app *a, void *arg), void *arg,
                         void (*drop)(void *arg));

#endif
