/* The network log in memory: rows of all sandboxes in order of time, and views on it that follow a filter as one types.
 * Pure: rows in, rows out.
 *
 * Theory of operation.  Rows that agree in sandbox, host, port, protocol, kind, verdict and rule share a group, which
 * holds those texts once.  A filter is tried on the groups and on the distinct requests ("GET /path"), each of which
 * lies in one piece of memory; a row then costs an OR and two comparisons of masks.  So a filter over a million rows
 * is a matter of milliseconds, whatever was typed.
 *
 * A connection is one row: what its end tells (bytes, duration) is written into the row of its begin. */
#ifndef SBX_UI_DASH_NETLOG_INDEX_H
#define SBX_UI_DASH_NETLOG_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/decisions.h"

#define NETLOG_ROWS_MAX 1000000u /* beyond, the oldest eighth is forgotten (the files keep it) */
#define NETLOG_TERMS_MAX 16

struct netlog;
struct netlog_view;

struct netlog_row {
    int64_t time_ms, seq;
    const char *box, *host, *kind, *proto, *verdict, *rule;
    const char *request; /* "GET /path", or "" */
    int port;
    int64_t bytes_up, bytes_down, count;
    int64_t duration_ms; /* -1: not over, or not known */
    bool open;           /* a connection that is not over yet */
    int64_t first_ms;    /* of a group: its first row */
};

/* max: rows kept, at most NETLOG_ROWS_MAX; 0: that many. */
struct netlog *netlog_new(size_t max);
void netlog_free(struct netlog *n);
/* Texts are copied.  Rows should come about in order of time; one that comes late finds its place. */
void netlog_add(struct netlog *n, const char *box, const struct decision_row *row);
/* Rows are numbered for good, oldest first: from netlog_first to netlog_end. */
uint64_t netlog_first(const struct netlog *n);
uint64_t netlog_end(const struct netlog *n);
/* False if there is no such row.  The texts live until the next netlog_add. */
bool netlog_get(const struct netlog *n, uint64_t number, struct netlog_row *out);
/* Changes with everything that a view could show differently. */
uint64_t netlog_version(const struct netlog *n);

/* ---- views ---- */

/* FOLLOW shows the newest, PAUSED stands on one row whatever comes; there is no third. */
enum netlog_mode { NETLOG_FOLLOW, NETLOG_PAUSED };

/* Shows what passes the filter; the view must be freed before its log. */
struct netlog_view *netlog_view_new(struct netlog *n);
void netlog_view_free(struct netlog_view *v);

/* Words separated by blanks, all of which must fit: a word is sought in sandbox, host:port, protocol, verdict, rule and
 * request; host:X, box:X, rule:X, path:X, port:N, verdict:X (allow, deny, fail) in one of them; -X and -host:X: not so.
 * box: one sandbox exactly, or NULL for all. */
void netlog_view_filter(struct netlog_view *v, const char *text, const char *box);
/* One line for each group of like rows instead, those denied and those with the highest counts first.  A host's
 * connections and the requests on them are one line where verdict and rule are the same: its count is of the connections,
 * its request the only one, or how many there were. */
void netlog_view_group(struct netlog_view *v, bool on);
bool netlog_view_grouped(const struct netlog_view *v);
/* Takes up what was added since; false if nothing changed. */
bool netlog_view_sync(struct netlog_view *v);

/* How many lines, and one of them, whose texts live until the next is asked for. */
size_t netlog_view_count(const struct netlog_view *v);
bool netlog_view_get(struct netlog_view *v, size_t line, struct netlog_row *out);

enum netlog_mode netlog_view_mode(const struct netlog_view *v);
/* The line of the cursor (0 if there is none): in FOLLOW the last. */
size_t netlog_view_cursor(const struct netlog_view *v);
/* Puts the cursor on a line and pauses; on the last one of a view that is moved downwards, it follows again. */
void netlog_view_move(struct netlog_view *v, long by);
void netlog_view_go(struct netlog_view *v, size_t line);
void netlog_view_follow(struct netlog_view *v);
void netlog_view_pause(struct netlog_view *v);
/* How many lines came since it was paused. */
size_t netlog_view_fresh(const struct netlog_view *v);
/* Moves to the next line (or the one before) that holds the text in anything shown; false: none does. */
bool netlog_view_search(struct netlog_view *v, const char *text, bool back);
/* Moves to the first line at or after that time. */
void netlog_view_jump(struct netlog_view *v, int64_t time_ms);

#endif
