/* What the guest has open: `fh` in its requests is an index here, never a number of its choice. */
#ifndef SBX_VM_FS_HANDLE_H
#define SBX_VM_FS_HANDLE_H

#include <dirent.h>

#include "vm/fs_node.h"

#define FS_HANDLES_MAX 65536u

struct handle {
    struct node *node; /* pinned */
    int fd;            /* of a file, else -1 */
    DIR *dir;          /* of a directory, else NULL */
    off_t at;          /* where the directory stream stands */
    unsigned jobs;     /* on other threads that use fd; it is closed after the last */
    bool released;
};

/* Takes fd or dir.  0 or an errno (then they stay the caller's). */
int handle_new(struct node *n, int fd, DIR *dir, uint64_t *fh);
struct handle *handle_get(uint64_t fh, bool dir);
void handle_release(uint64_t fh);
void handle_hold(struct handle *h);
void handle_drop(struct handle *h);
void handles_finish(void);

#endif
