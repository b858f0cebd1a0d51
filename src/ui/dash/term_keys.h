/* What the user does, as bytes for a session: keys pass as they came, but for those whose form the program chose
 * (application cursor keys); paste, mouse and focus are said anew, in the modes that the program set.  Pure. */
#ifndef SBX_UI_DASH_TERM_KEYS_H
#define SBX_UI_DASH_TERM_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "ui/dash/input.h"

struct term_emu;
typedef void term_out_fn(const char *bytes, size_t len, void *arg);

/* A key, a piece of a paste, or a change of focus.  emu says the modes. */
void term_keys_input(const struct term_emu *emu, const struct input *in, term_out_fn *out, void *arg);
/* The pane got or lost the focus; nothing unless the program asked for it. */
void term_keys_focus(const struct term_emu *emu, bool on, term_out_fn *out, void *arg);
/* A mouse event at a place of the session's screen.  False: the program did not ask for it, so it is ours. */
bool term_keys_mouse(const struct term_emu *emu, const struct input *in, int row, int col, term_out_fn *out, void *arg);

#endif
