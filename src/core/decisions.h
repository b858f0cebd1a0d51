/* The decision log: one SQLite file per sandbox, written by its broker alone, read by anyone of the user's.
 *
 * Rows are immutable and chained: each carries SHA-256 over its own fields and the hash of the row before, and the
 * head (count and hash) stands in a second table, so a changed, removed or cut-off row shows in decisions_verify.  The
 * chain bears no key: it shows what was touched, not what somebody with all of the user's rights forged anew.
 * Where it ended is kept apart from it as well, so that one that is cut off with its head, or removed, is told by the next
 * look at it.  A connection gives an `open` row before it is dialled and a `close` row with its bytes when it ends. */
#ifndef SBX_CORE_DECISIONS_H
#define SBX_CORE_DECISIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

#define DECISIONS_ROWS_MAX 500000 /* beyond, the oldest hundredth is dropped; the chain's start moves with it */
#define DECISIONS_BYTES_MAX (256ll << 20) /* what rows may take, however few: the oldest go */

struct decision_row {
    int64_t seq;         /* set by the store */
    int64_t time_ms;     /* since the epoch */
    const char *kind;    /* "open", "close", "deny", "fail", "refused", "policy", "dropped", "cut", "mismatch" (what came is not what the connection is for, or
                            no request at all, or failed: as its verdict says), "log" (begins a new
                            log where one was touched) */
    int64_t flow;        /* joins open and close; 0: none */
    const char *proto;   /* "tcp", "udp", "icmp", "dns", "other" */
    const char *host;    /* name or address asked for */
    int port;
    const char *addr;    /* what was dialled, "" if nothing */
    const char *method, *path;
    const char *verdict; /* "allow", "deny", "fail" */
    const char *rule, *reason;
    int64_t bytes_up, bytes_down, duration_ms, count;
};

struct decisions;

/* Opens or creates for writing.  written: there was a log here, says somebody else, so it is a loss if there is none.  What was
 * removed, replaced or cut off while nobody wrote it (core/chainmark.h) is said by a row, before anything else is written. */
struct decisions *decisions_open(const char *path, bool written, struct err *e);
/* Would decisions_open find that something is missing?  0: no.  For a log that may be written meanwhile. */
int decisions_look(const char *path, bool written, struct err *e);
/* For reading; STATUS_NOT_FOUND if there is no log yet. */
struct decisions *decisions_read(const char *path, struct err *e);
void decisions_close(struct decisions *d);
/* Brings into the log what its writer had kept ahead of it when it was killed.  Nothing where one writes, nothing is left, or
 * the log was touched.  For whoever is about to read it. */
void decisions_gather(const char *path);

/* Where somebody removed, replaced or cut short the files of an open log, a new one is begun before anything else is
 * written: its first row says so, and so does fn, which hears at once of what decisions_open found.  It is looked for before each transaction, and by this; -1: there is no
 * log now, and none can be begun. */
typedef void decisions_lost_fn(const char *what, void *arg);
void decisions_on_loss(struct decisions *d, decisions_lost_fn *fn, void *arg);
int decisions_check(struct decisions *d, struct err *e);

int decisions_add(struct decisions *d, const struct decision_row *row, struct err *e);
/* Another limit than DECISIONS_ROWS_MAX. */
void decisions_set_limit(struct decisions *d, int64_t rows);
void decisions_set_bytes(struct decisions *d, int64_t bytes);
/* Forgets rows that are older, and rows beyond the limit; a bounded number at a time: true if there are more. */
bool decisions_expire(struct decisions *d, int64_t before_ms);
/* Several adds as one transaction; if one fails, none of them was written. */
int decisions_begin(struct decisions *d, struct err *e);
int decisions_commit(struct decisions *d, struct err *e);

/* Rows that somebody waits for: noted, then kept together, which takes one call where a transaction takes ten.  From then
 * on they are safe, also from the end of this process, and decisions_settle, or whatever is written next, brings them into
 * the log.  While the log cannot be written, decisions_keep writes them there at once, or fails.  -1: what was noted since
 * the last decisions_keep is forgotten. */
int decisions_note(struct decisions *d, const struct decision_row *row, struct err *e);
int decisions_keep(struct decisions *d, struct err *e);
void decisions_forget(struct decisions *d);
int decisions_settle(struct decisions *d, struct err *e);
/* Are there some that are kept, and not in the log? */
bool decisions_unsettled(const struct decisions *d);

struct decisions_filter {
    int64_t since_ms; /* from the first row that is no older */
    int64_t after_seq;
    const char *host;    /* substring; NULL: any */
    const char *verdict; /* NULL: any */
    int limit;           /* newest so many; 0: all */
};

/* Rows in order of time; fn returns false to stop. */
typedef bool decisions_fn(const struct decision_row *row, void *arg);
int decisions_each(struct decisions *d, const struct decisions_filter *f, decisions_fn *fn, void *arg, struct err *e);

/* Grouped by verdict, host, port, proto, rule: time is the last, count the sum, bytes the sums. */
int decisions_grouped(struct decisions *d, const struct decisions_filter *f, decisions_fn *fn, void *arg, struct err *e);

/* Steps through rows in order of their numbers, after one of them; newest: only so many of the last (0: all).  NULL: it
 * cannot be read.  No transaction stays open behind the last row, nor behind decisions_stop. */
struct decisions_walk;
struct decisions_walk *decisions_walk(struct decisions *d, int64_t after_seq, int64_t newest);
/* The next row, whose texts live until the next call; NULL at the end. */
const struct decision_row *decisions_next(struct decisions_walk *w);
void decisions_stop(struct decisions_walk *w);
/* The number of the last row, 0 if there is none. */
int64_t decisions_last(struct decisions *d);

/* Recomputes the chain: 0 and *rows, or -1 with the first row that does not fit. */
int decisions_verify(struct decisions *d, int64_t *rows, struct err *e);

#endif
