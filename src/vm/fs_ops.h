/* The FUSE operations of the workspace, over vm/fs_node.h. */
#ifndef SBX_VM_FS_OPS_H
#define SBX_VM_FS_OPS_H

#include "core/fsport.h"
#include "vm/fs_node.h"

struct fs_config {
    unsigned uid, gid; /* what the guest sees as owner of everything */
    uint64_t keep_free; /* bytes of the host's disk that the guest cannot fill: beyond, it gets ENOSPC */
};

const struct fuse_lowlevel_ops *fs_ops(const struct fs_config *config);

/* What the guest's kernel asks next, after a request that may have changed something and its reply.  False: nothing
 * worth saying. */
bool fs_know(const struct fuse_in_header *h, const uint8_t *msg, const uint8_t *reply, size_t len, struct fsport_know *k);

#endif
