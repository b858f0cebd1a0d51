/* Where a decision log ended, kept apart from it: the number and the hash of its last row, in a file beside it.  A log that
 * is removed, replaced or cut short while nobody writes it is told by that (decisions.h).
 *
 * The mark is written behind each transaction, so after a crash the log may be one ahead of it, and never behind.  Only
 * where the host itself went down may rows be missing that the mark knows: both are in the page cache, and either may reach
 * the disk first.  The mark says in which boot it was written, and whether the log was closed in order, so that one can be
 * told from the other.  It bears no key: who may write it and the log can forge both. */
#ifndef SBX_CORE_CHAINMARK_H
#define SBX_CORE_CHAINMARK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

#define CHAINMARK_HASH 32
#define CHAINMARK_FILE "chain.head"

struct sqlite3;

struct chainmark {
    int64_t seq; /* of the last row; 0: none was written yet */
    unsigned char hash[CHAINMARK_HASH];
    bool closed; /* in order, so all of it is on the disk */
    char boot[40];
};

enum chainmark_is { CHAINMARK_NONE, CHAINMARK_GOOD, CHAINMARK_DAMAGED };
enum chainmark_is chainmark_read(const char *path, struct chainmark *out);

/* The open file of the mark at `path`: fd if it is that, else (fd is closed) one made anew of m.  -1: none can be made. */
int chainmark_file(const char *path, int fd, const struct chainmark *m);
/* In place.  A kill leaves the old one or the new one. */
bool chainmark_write(int fd, const struct chainmark *m);
/* The boot of this host, for marks that are written in it. */
void chainmark_boot(char out[40]);

/* What became of a log, by its mark. */
enum chainmark_fits {
    CHAINMARK_FITS,
    CHAINMARK_SHORT,      /* its last rows are gone; why says so */
    CHAINMARK_OTHER,      /* it is another one */
    CHAINMARK_UNREADABLE, /* it cannot be read now; may be for another reason */
};
/* m: NULL if there is none, then only what the log says of itself counts. */
enum chainmark_fits chainmark_compare(struct sqlite3 *db, const struct chainmark *m, struct err *why);

#endif
