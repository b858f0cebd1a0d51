/* The FUSE operations of the workspace, over vm/fs_node.h. */
#ifndef SBX_VM_FS_OPS_H
#define SBX_VM_FS_OPS_H

#include "vm/fs_node.h"

struct fs_config {
    unsigned uid, gid; /* what the guest sees as owner of everything */
    uint64_t keep_free; /* bytes of the host's disk that the guest cannot fill: beyond, it gets ENOSPC */
};

const struct fuse_lowlevel_ops *fs_ops(const struct fs_config *config);

#endif
