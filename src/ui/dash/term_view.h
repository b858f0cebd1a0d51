/* One session in a part of the terminal pane: attached through the sandbox's link, its bytes in an emulator, what is
 * typed on its way to it. */
#ifndef SBX_UI_DASH_TERM_VIEW_H
#define SBX_UI_DASH_TERM_VIEW_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#include "ui/dash/conn.h"
#include "ui/dash/input.h"
#include "ui/dash/term_copy.h"

enum view_state { VIEW_EMPTY, VIEW_WAITING /* for the reply */, VIEW_LIVE, VIEW_ENDED };

struct term_view;

struct term_view_ops {
    void (*changed)(struct term_view *v, void *arg); /* something else is to be drawn */
    void (*ended)(struct term_view *v, const char *why, void *arg);
    void (*begun)(struct term_view *v, void *arg); /* the session's number is known */
    void (*clipboard)(struct term_view *v, const char *base64, void *arg); /* a program wants to copy; not checked */
};

/* Scrollback lines to keep and to ask for. */
struct term_view *term_view_new(struct event_base *base, unsigned scrollback, const struct term_view_ops *ops, void *arg);
void term_view_free(struct term_view *v);

/* Attaches to a session (0: the agent's, else the latest); take: the session gets our size at once. */
void term_view_attach(struct term_view *v, struct conn *c, int session, bool take);
/* Starts a login shell in the sandbox. */
void term_view_shell(struct term_view *v, struct conn *c);
/* Lets go of the session, which runs on. */
void term_view_detach(struct term_view *v);

/* The room on the screen; with `take` the session is told. */
void term_view_size(struct term_view *v, int rows, int cols, bool take);
/* Nobody sees it: it takes no more output until it is seen again. */
void term_view_seen(struct term_view *v, bool seen);

enum view_state term_view_state(const struct term_view *v);
int term_view_session(const struct term_view *v);
/* Why it is empty, or how the session ended; "" if there is nothing to say. */
const char *term_view_word(const struct term_view *v);
/* NULL before the session's screen came. */
struct term_emu *term_view_emu(struct term_view *v);
struct term_copy *term_view_copy(struct term_view *v);

/* What is typed for the program: in the form that it asked for, once its screen says which that is. */
void term_view_input(struct term_view *v, const struct input *in);
/* Bytes for the program; a term_out_fn. */
void term_view_send(const char *bytes, size_t len, void *view);

#endif
