/* A pane: one part of the dashboard's screen with a frame around it, or a window on top of all (an overlay: help,
 * forms, questions).  Panes do not know each other; they talk to the app (app.h) and to the model (model.h).
 *
 * To add one: embed `struct pane` as the first member, fill a pane_class, and add it in dash.c with app_add_pane.
 * Everything runs on the one thread of the event loop: no call may block; what takes time is a link request (conn.h) or
 * a child (task.h).  Callbacks of events only record and call pane_dirty; drawing happens in draw(), at most once a
 * frame, and only while the pane can be seen. */
#ifndef SBX_UI_DASH_PANE_H
#define SBX_UI_DASH_PANE_H

#include <ncurses.h>
#include <stdbool.h>
#include <stddef.h>

#include "ui/dash/input.h"

struct app;
struct box;
struct pane;

/* What the user's own terminal is set to while a program that has the keys asks for it; all zero else. */
struct outer {
    int shape;   /* of the cursor, DECSCUSR 0 to 6 */
    bool keypad; /* the keypad sends its application keys */
    bool motion; /* the mouse is told of without a button */
};

struct pane_class {
    const char *name; /* the keymap's context: "sandboxes", "terminal", "log", "form", ... */
    bool list;        /* the bindings of the context "list" hold here, too; they come to action() as "list.down" ... */
    bool modal;       /* overlay: the keys of "global" do not hold */

    /* Draws the whole inside of the frame; win has the pane's size and is erased before. */
    void (*draw)(struct pane *p, WINDOW *win, bool focus);
    /* A key that no binding takes, a paste, or a change of the terminal's focus.  False: not wanted. */
    bool (*key)(struct pane *p, const struct input *in);
    /* A bound key, or a command of the `:` line that bears an action's name.  False: not mine; the app tries itself. */
    bool (*action)(struct pane *p, const char *action);
    /* in->y, in->x are relative to the inside; during a drag they may lie outside of it. */
    bool (*mouse)(struct pane *p, const struct input *in);
    /* A press on the upper edge, at a column of the left text of title(). */
    void (*edge)(struct pane *p, int col);
    /* The inside has a new size, or became visible for the first time. */
    void (*resize)(struct pane *p, int rows, int cols);
    /* About once a second while something runs; no promise on the exact time. */
    void (*tick)(struct pane *p);
    /* Another sandbox is under the cursor (NULL: none), or what is known of it changed. */
    void (*box)(struct pane *p, struct box *b);
    /* Text for the frame's upper edge; right may stay "". */
    void (*title)(struct pane *p, char *left, size_t left_cap, char *right, size_t right_cap);
    /* Where the cursor stands and that it is to be seen; false hides it. */
    bool (*cursor)(struct pane *p, int *y, int *x);
    /* Which context of the keymap holds now, for help and hints; NULL: always `name`. */
    const char *(*context)(struct pane *p);
    /* An action that would do nothing now: it is no hint. */
    bool (*idle)(struct pane *p, const char *action);
    /* True: every key goes to key() with its bytes, but the prefix key, whose follower is looked up in "prefix". */
    bool (*grabs)(struct pane *p);
    /* While it grabs keys for a text that is typed: what Enter and Escape do to it. NULL, or false: a filter's. */
    bool (*typed)(struct pane *p, const char *words[2]);
    /* Overlays: how large the inside wants to be; the app limits it to the screen. */
    void (*want)(struct pane *p, int max_rows, int max_cols, int *rows, int *cols);
    /* Terminal pane: show this session of that sandbox (0: the agent's, else the latest) and take the focus. */
    bool (*open)(struct pane *p, struct box *b, int session);
    /* Focus came or went (of the dashboard; the outer terminal's own comes as INPUT_FOCUS). */
    void (*focus)(struct pane *p, bool on);
    /* While it has the focus: what the user's terminal is to be set to. */
    void (*outer)(struct pane *p, struct outer *want);
    void (*free)(struct pane *p);
};

struct pane {
    const struct pane_class *class;
    struct app *app; /* set by app_add_pane, app_push */
    int rows, cols;  /* of the inside; set by the app */
    bool visible;
    bool dirty;
};

/* The pane shows something else now: it is drawn with the next frame. */
void pane_dirty(struct pane *p);

#endif
