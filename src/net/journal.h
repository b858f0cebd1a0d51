/* The broker's pen: writes decisions into the log, coalescing what repeats.
 *
 * What was allowed is written before it is dialled or sent, always.  A refusal is written when it first comes; the same
 * again within a second is counted, and the count becomes a row.  Beyond JOURNAL_RATE different refusals a second
 * rows are dropped, and how many is a row as well: nothing is lost silently.  Refusals that could not be written wait,
 * counted, until they can be.  Time that passes is measured by a clock that nobody sets. */
#ifndef SBX_NET_JOURNAL_H
#define SBX_NET_JOURNAL_H

#include <event2/event.h>

#include "core/decisions.h"

#define JOURNAL_RATE 200
/* How long rows that are kept may wait for the log: while more come, and behind the last.  The second is long, because a
 * timer that ends before the kernel's own next tick is set in hardware each time that the process sleeps. */
#define JOURNAL_BUSY_MS 5
#define JOURNAL_SETTLE_MS 50

struct journal;

/* written: as of decisions_open */
struct journal *journal_new(struct event_base *base, const char *path, bool written, struct err *e);
void journal_free(struct journal *j);

/* fn is told what became of the log, for the user, and at once what it found when it began: that it was lost and a new one begun; that it cannot be written (and
 * so nothing is allowed); NULL: that it can be written again. */
typedef void journal_told_fn(const char *what, bool lost, void *arg);
void journal_on_trouble(struct journal *j, journal_told_fn *fn, void *arg);
/* Are the files still those that it writes? */
void journal_check(struct journal *j);

/* rows: kept at most; days: kept at most, 0: any age. */
void journal_set_limits(struct journal *j, int64_t rows, int days);

/* Writes now.  -1: the row could not be written, so what it speaks of must not happen. */
int journal_write(struct journal *j, struct decision_row *row);
/* Rows that somebody waits for: noted, and kept together, before what they speak of happens.  Kept is safe from the end of
 * this process, and in the log JOURNAL_SETTLE_MS later.  -1: none of those noted since the last one is. */
void journal_note(struct journal *j, struct decision_row *row);
int journal_keep(struct journal *j);
/* To be called when nobody waits any more. */
void journal_kept(struct journal *j);
/* A refusal; may be coalesced. */
void journal_refusal(struct journal *j, struct decision_row *row);

#endif
