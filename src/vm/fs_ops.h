/* The FUSE operations of the workspace, over vm/fs_node.h. */
#ifndef SBX_VM_FS_OPS_H
#define SBX_VM_FS_OPS_H

#include "vm/fs_node.h"

struct fs_config {
    unsigned uid, gid; /* what the guest sees as owner of everything */
    /* A directory's content became known to the guest: it is watched from now on.  False: it cannot be, and what
     * the guest learns of it is good for a moment only. */
    bool (*watch)(struct node *dir);
};

const struct fuse_lowlevel_ops *fs_ops(const struct fs_config *config);

/* Frees what is open. */
void fs_ops_finish(void);

#endif
