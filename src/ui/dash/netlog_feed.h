/* Reads the decision logs of all sandboxes, and goes on reading as they grow: in a thread, so that a large log or a slow
 * disk never holds up the screen.  It sleeps (inotify) while nothing is written. */
#ifndef SBX_UI_DASH_NETLOG_FEED_H
#define SBX_UI_DASH_NETLOG_FEED_H

#include <event2/event.h>
#include <stdbool.h>

#include "core/decisions.h"
#include "core/err.h"

struct netlog_feed;

struct netlog_feed_ops {
    /* On the event loop, in order of time as far as the logs are (what comes at the same moment from several sandboxes
     * may come a little late). */
    void (*row)(const char *box, const struct decision_row *row, void *arg);
    /* A batch of rows is over; history: what was written before the feed began is all there now. */
    void (*batch)(bool history_done, void *arg);
};

/* dir: the folder of the sandboxes' folders.  newest: rows of each log that are read at most. */
struct netlog_feed *netlog_feed_new(struct event_base *base, const char *dir, long newest, const struct netlog_feed_ops *ops,
                                    void *arg, struct err *e);
void netlog_feed_free(struct netlog_feed *f);

#endif
