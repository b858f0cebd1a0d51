#include "core/wipe.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

void wipe_free(void *p)
{
    if (p)
        explicit_bzero(p, malloc_usable_size(p));
    free(p);
}

void *wipe_realloc(void *p, size_t n)
{
    void *more = malloc(n ? n : 1);
    if (more && p) {
        size_t had = malloc_usable_size(p);
        memcpy(more, p, had < n ? had : n);
        wipe_free(p);
    }
    return more;
}
