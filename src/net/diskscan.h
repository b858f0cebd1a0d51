/* Whether a secret of the host lies on a machine's disk, before others start from a copy of it (threat 75).  The guest is
 * never given one, but whoever works in it may type or copy one in. */
#ifndef SBX_NET_DISKSCAN_H
#define SBX_NET_DISKSCAN_H

#include <stddef.h>

#include "core/err.h"
#include "core/secretstore.h"

/* Looks through what is written of a file, for all values of the store in the spellings that the scrubber knows.  1: one is
 * there, and its service's name in service; 0: none; -1: it cannot be read. */
int diskscan(const char *path, const struct secretstore *store, char *service, size_t cap, struct err *e);

#endif
