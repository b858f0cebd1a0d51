/* Rows of the decision log that are safe but not in it yet: a small file beside it, that was given its place on the disk
 * beforehand.  Writing a row there is one call, and what is there outlives the process; the database, which takes many,
 * gets the rows a little later, several at once.  What a process that was killed left there is read by the next.
 * For core/decisions.c alone. */
#ifndef SBX_CORE_AHEAD_H
#define SBX_CORE_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

#include "core/decisions.h"

#define AHEAD_MAX (320u * 1024u) /* bytes of rows */

struct ahead;

/* Opens or creates, and keeps others out; NULL: somebody else has it and goes on having it for patience_ms, or there is no
 * room for it, or no memory. */
struct ahead *ahead_open(const char *path, unsigned patience_ms);
/* The file stays. */
void ahead_close(struct ahead *a);
/* Puts the file back where somebody removed it. */
void ahead_check(struct ahead *a);

/* Takes a copy, which will have the number seq in the log.  False: no room. */
bool ahead_put(struct ahead *a, const struct decision_row *row, int64_t seq);
/* Writes what was put since the last of these; false: it may not be there. */
bool ahead_keep(struct ahead *a);
/* Forgets what was put and not kept. */
void ahead_drop(struct ahead *a);
/* All is in the log. */
void ahead_done(struct ahead *a);

/* Rows that wait, kept or not; of these, those not kept; and what all of them take. */
unsigned ahead_count(const struct ahead *a);
unsigned ahead_fresh(const struct ahead *a);
size_t ahead_used(const struct ahead *a);
/* The row at *at (0: the first), whose texts live until the next change; moves *at on.  False: there is none. */
bool ahead_next(const struct ahead *a, size_t *at, struct decision_row *row);
/* The numbers of what waits now begin with seq: what is kept is written anew. */
bool ahead_renumber(struct ahead *a, int64_t seq);
/* Takes from the file what follows the log's last row. */
void ahead_load(struct ahead *a, int64_t last);
/* Is it there, and does no process have it?  Costs two calls: a log that is written is none to look into. */
bool ahead_idle(const char *path);
/* Is there something for ahead_load?  Changes nothing. */
bool ahead_left(const char *path, int64_t last);

#endif
