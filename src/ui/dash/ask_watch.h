/* Ask mode in the dashboard (net/broker_ask.h): while it runs, brokers hold connections to unknown hosts and ask; the
 * questions come up as an overlay, which answers them by `sbx policy ask`.
 *
 * Nobody must allow something with a key that was meant for a terminal: the overlay takes an answer only when no key was
 * pressed for a moment after it came up. */
#ifndef SBX_UI_DASH_ASK_WATCH_H
#define SBX_UI_DASH_ASK_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct app;
struct ask_watch;
struct pane;

struct ask_question {
    char box[80], host[264], where[80];
    int64_t id, count, deadline_ms; /* of app_now_ms */
    int64_t limit_ms;
    int port;
    bool is_name, answered;
};

struct ask_watch *ask_watch_new(struct app *a);
void ask_watch_free(struct ask_watch *w);
/* About once a second: listens to the sandboxes that run. */
void ask_watch_tick(struct ask_watch *w);
/* Brings the questions up again, if there are any. */
bool ask_watch_show(struct ask_watch *w);

/* ---- for the overlay (ask_overlay.c) ---- */

unsigned ask_watch_count(const struct ask_watch *w);
struct ask_question *ask_watch_at(struct ask_watch *w, unsigned i);
/* That overlay is gone. */
void ask_watch_hidden(struct ask_watch *w, const struct pane *p);
struct pane *ask_overlay_new(struct app *a, struct ask_watch *w);
/* An answer came to nothing: the question stands. */
void ask_watch_failed(struct ask_watch *w, const char *box, int64_t id);
/* There are more questions, or fewer. */
void ask_overlay_news(struct pane *p);
/* That one is about to go; called before its place is another's. */
void ask_overlay_dropped(struct pane *p, unsigned i);

#endif
