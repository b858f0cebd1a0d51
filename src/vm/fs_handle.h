/* The files that the guest has open: `fh` in its requests is an index here, never a number of its choice. */
#ifndef SBX_VM_FS_HANDLE_H
#define SBX_VM_FS_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "vm/fs_node.h"

#define FS_HANDLES_MAX 65536u

struct handle {
    struct node *node; /* pinned */
    int fd;
    unsigned jobs;     /* on other threads that use fd; it is closed after the last */
    bool released;
};

/* Takes fd.  0 or an errno (then it stays the caller's). */
int handle_new(struct node *n, int fd, uint64_t *fh);
struct handle *handle_get(uint64_t fh); /* NULL: made up, or closed */
void handle_release(uint64_t fh);
void handle_hold(struct handle *h);
void handle_drop(struct handle *h);
void handles_finish(void);

#endif
