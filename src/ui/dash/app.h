/* The dashboard itself: event loop, layout, focus, overlays, messages.
 *
 * Theory of operation.  One libevent loop.  What comes (keys, link frames, children, timers) changes state and marks
 * panes dirty; a frame timer (16 ms after the first mark) draws the dirty and visible ones into their windows and calls
 * doupdate once.  Nothing else touches the screen.  While nothing changes there is no timer but those of the panes. */
#ifndef SBX_UI_DASH_APP_H
#define SBX_UI_DASH_APP_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "ui/dash/keymap.h"
#include "ui/dash/pane.h"

enum area { AREA_BOXES, AREA_TERMINAL, AREA_LOG, AREAS };
enum say { SAY_INFO, SAY_GOOD, SAY_WARN, SAY_ERROR };

struct app;
struct model;

struct app *app_new(struct err *e);
void app_free(struct app *a);
/* Runs until the user leaves; the exit status. */
int app_run(struct app *a);
void app_quit(struct app *a);

struct event_base *app_base(struct app *a);
struct model *app_model(struct app *a);
const struct keymap *app_keys(struct app *a);

/* Gives the app a pane for an area; it owns it then. */
void app_add_pane(struct app *a, enum area area, struct pane *p);
struct pane *app_pane(struct app *a, enum area area);
/* Puts an overlay on top, which gets all keys; the app owns it and frees it when it is popped. */
void app_push(struct app *a, struct pane *p);
void app_pop(struct app *a, struct pane *p);
/* Takes it off the screen; it is the caller's then, who may push it again. */
void app_take(struct app *a, struct pane *p);
/* How many overlays there are; when the user did something last (app_now_ms). */
unsigned app_overlays(const struct app *a);
int64_t app_typed_ms(const struct app *a);

void app_focus(struct app *a, enum area area);
bool app_has_focus(struct app *a, const struct pane *p);
/* The same, or it will when the overlays are closed. */
bool app_keeps_focus(struct app *a, const struct pane *p);
/* The pane with the focus fills the screen, or no longer. */
void app_zoom(struct app *a, bool on);
bool app_zoomed(struct app *a);
/* Everything is drawn anew; clear: also from scratch, against foreign output on the terminal. */
void app_redraw(struct app *a, bool clear);

/* The sandbox under the cursor, or NULL. */
struct box *app_box(struct app *a);
void app_select_box(struct app *a, const char *name);
/* For the model: something about boxes changed. */
void app_boxes_changed(struct app *a);

/* A message: shown in the status line for some seconds (errors until a key), and kept in the log of messages. */
void app_say(struct app *a, enum say kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* What was copied here last, NULL: nothing. */
const char *app_copied(struct app *a);

/* A command as on the `:` line: an action's name, a dashboard command or one of sbx's own, run as a child. */
void app_command(struct app *a, const char *line);

/* Shows a session in the terminal pane; without one that can, in the whole terminal until it is left. */
void app_open_session(struct app *a, struct box *b, int session);

/* Leaves the screen to a program of ours in the foreground until it ends, then draws everything again.  read_it: what it
 * printed stays until Enter. */
int app_foreground(struct app *a, char *const *argv, bool read_it, struct err *e);

/* The user looks at this sandbox's session now, as far as one can know. */
bool app_attends(struct app *a, const char *box);

/* To the user's own terminal: its bell or a notification (as the setting ui.notify says), and its clipboard. */
void app_notify(struct app *a, const char *title, const char *text);
void app_copy(struct app *a, const char *text, size_t len);
/* What a program in a sandbox wants there, as base64: only if the user allowed that (ui/clip.h), and it is said;
 * that it is not allowed is said once (*said). */
void app_copy_from(struct app *a, const char *sandbox, const char *base64, bool *said);

/* Milliseconds of the monotonic clock. */
int64_t app_now_ms(void);
/* A glyph, or its plain form where the locale is not UTF-8. */
const char *app_glyph(const char *utf8, const char *plain);

#endif
