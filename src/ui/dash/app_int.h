/* The app's own parts: app.c (loop, focus, actions), app_draw.c (layout, frames), app_input.c (keys, mouse), line.c (the `:` line), and the overlays that its actions open. */
#ifndef SBX_UI_DASH_APP_INT_H
#define SBX_UI_DASH_APP_INT_H

#include <event2/event.h>
#include <ncurses.h>
#include <time.h>

#include "core/record.h"
#include "ui/dash/app.h"
#include "ui/dash/edit.h"

#define OVERLAYS_MAX 8u
#define SAID_MAX 200u
#define SIGNALS 7u
#define SAY_MS 6000 /* a message stands so long in the status line */

struct slot {
    struct pane *pane;
    WINDOW *outer, *inner;
    int y, x;
};

/* A part of the two bars that a click does something on: an action, or a key where there is none. */
struct hot {
    int y, x, end;
    const char *action;
    uint32_t key;
};
#define HOT_MAX 40u

struct said {
    enum say kind;
    time_t when;
    char text[400];
};

struct app {
    struct event_base *base;
    struct event *frame_ev, *spin_ev, *esc_ev, *bury_ev, *tick_ev, *tty_ev, *signals[SIGNALS];
    struct input_decoder *input;
    struct model *model;
    struct keymap *keys;
    struct slot slot[AREAS], overlay[OVERLAYS_MAX];
    unsigned noverlays, ndead;
    struct pane *dead[OVERLAYS_MAX * 2], *drag;
    enum area focus;
    bool zoomed, narrow, too_small, all_dirty, bars_dirty, prefixed, mouse, away;
    uint32_t prefix_key;
    unsigned prefix_mods;
    char box[RECORD_NAME_MAX + 1], theme[32], notify[16];
    WINDOW *title, *status;
    struct said said[SAID_MAX]; /* ring */
    unsigned nsaid, unread;     /* unread: warnings and errors since the messages were shown */
    struct hot hot[HOT_MAX];
    unsigned nhot;
    int64_t said_ms, drawn_ms;
    int64_t typed_ms, frame_due_ms;
    struct {
        double fraction; /* below 0: unknown */
        char text[200];  /* "": nothing is under way that no card shows */
    } progress;
    bool unread_error;
    int left, log_rows; /* what the user gave to the list and to the log, by a border or by keys; 0: a share of the screen */
    enum { BORDER_NONE, BORDER_LEFT, BORDER_LOG } border; /* is dragged */
    char *copied;       /* the latest copy, for the middle button */
    int hints_end; /* of the room that the status line has for keys */
    struct {
        bool read, mouse;
        char theme[32];
        ino_t ino; /* of the file that they were read from */
        struct timespec when;
    } set; /* what the settings say, whatever was tried since */
    struct outer outer; /* as the terminal was told */
    int status_code;
    pid_t copier; /* tmux, which takes a copy, 0: none */
    time_t minute;
    struct {
        bool on;
        char text[512], hint[400];
        size_t at; /* the cursor, in bytes */
        int x, hint_x;
        bool listing; /* the hint is what may follow, each a word */
        unsigned back; /* of the history, 0: the line itself */
        struct edit_cut cut;
        char history[50][512];
        unsigned nhistory;
    } line;
};

struct pane *app_focused(struct app *a);
/* An action's name; false: there is none of that name for the app. */
bool app_action(struct app *a, const char *action);
/* The same for whoever knows it. */
bool app_act_anywhere(struct app *a, const char *action);

/* What is under way for a sandbox that has no card yet; NULL: no longer. */
void app_progress(struct app *a, double fraction, const char *text);

struct slot *app_slot(struct app *a, const struct pane *p);

/* app_draw.c */
/* Places all windows for the size that the terminal has now. */
void app_layout(struct app *a);
/* The columns of the list and the rows of the log, given so much more. */
void app_resize_panes(struct app *a, int columns, int rows);
void app_drop_windows(struct slot *s);
void app_draw(struct app *a);
/* A frame is drawn soon, and the two bars in it. */
void app_want_frame(struct app *a);
void app_bars_dirty(struct app *a);
void app_on_frame(evutil_socket_t fd, short what, void *arg);
void app_on_spin(evutil_socket_t fd, short what, void *arg);

/* app_input.c */
void app_on_input(const struct input *event, void *arg);
void app_on_tty(evutil_socket_t fd, short what, void *arg);
/* A theme by its name; says how it went. */
void app_theme(struct app *a, const char *name);
/* A reply of the user's terminal. */
void app_terminal_says(struct app *a, const char *bytes, size_t len);
void app_on_esc(evutil_socket_t fd, short what, void *arg);

/* line.c */
void app_line_open(struct app *a);
void app_line_input(struct app *a, const struct input *in);
/* A click while it is open: on what may follow it takes that, elsewhere the line is left. */
void app_line_click(struct app *a, const struct input *in);

/* overlays */
void app_show_help(struct app *a);
void app_show_messages(struct app *a);
void app_show_rules(struct app *a);
void app_show_secrets(struct app *a);
void app_show_settings(struct app *a);
void app_show_create(struct app *a);
/* A copy of a sandbox that does not run. */
void app_show_copy(struct app *a, struct box *b);
/* A field's check: a name that a sandbox can get. */
bool app_check_new_name(const char *value, char *why, size_t cap);
/* `sbx run --detach ...` for a sandbox that may not exist yet; then gets its name. */
void app_start_agent(struct app *a, const char *const *argv, void (*then)(struct app *a, const char *box, const char *out));
void app_show_welcome(struct app *a);

#endif
