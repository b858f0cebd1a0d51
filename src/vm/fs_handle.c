#include "vm/fs_handle.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static struct handle **handles;
static uint32_t *free_handles, nhandles, cap_handles, nfree;

int handle_new(struct node *n, int fd, uint64_t *fh)
{
    if (nfree == 0) {
        if (nhandles == cap_handles) {
            uint32_t cap = cap_handles ? cap_handles * 2 : 64;
            struct handle **h = cap > FS_HANDLES_MAX ? NULL : realloc(handles, cap * sizeof *h);
            if (h)
                handles = h;
            uint32_t *f = h ? realloc(free_handles, cap * sizeof *f) : NULL;
            if (!f)
                return ENFILE;
            free_handles = f;
            cap_handles = cap;
        }
        handles[nhandles] = NULL;
        free_handles[nfree++] = nhandles++;
    }
    struct handle *h = calloc(1, sizeof *h);
    if (!h)
        return ENOMEM;
    uint32_t i = free_handles[--nfree];
    *h = (struct handle){.node = n, .fd = fd};
    handles[i] = h;
    node_pin(n);
    *fh = i;
    return 0;
}

struct handle *handle_get(uint64_t fh)
{
    return fh < nhandles ? handles[fh] : NULL;
}

static void finish(struct handle *h)
{
    close(h->fd);
    node_unpin(h->node);
    free(h);
}

void handle_release(uint64_t fh)
{
    struct handle *h = handles[fh];
    handles[fh] = NULL;
    free_handles[nfree++] = (uint32_t)fh;
    h->released = true;
    if (h->jobs == 0)
        finish(h);
}

void handle_hold(struct handle *h)
{
    h->jobs++;
}

void handle_drop(struct handle *h)
{
    if (--h->jobs == 0 && h->released)
        finish(h);
}

void handles_finish(void)
{
    for (uint32_t i = 0; i < nhandles; i++)
        if (handles[i])
            handle_release(i);
    free(handles);
    free(free_handles);
    handles = NULL;
    free_handles = NULL;
    nhandles = cap_handles = nfree = 0;
}
