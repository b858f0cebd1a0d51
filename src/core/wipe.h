/* Heap memory that may have held a secret: what is given back is wiped first. */
#ifndef SBX_CORE_WIPE_H
#define SBX_CORE_WIPE_H

#include <stddef.h>

void wipe_free(void *p);
/* As realloc, but the old place is wiped when it moves.  NULL: the old one is untouched. */
void *wipe_realloc(void *p, size_t n);

#endif
