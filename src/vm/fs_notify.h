/* What the guest is told of the host's changes, so that it may keep all else for long. */
#ifndef SBX_VM_FS_NOTIFY_H
#define SBX_VM_FS_NOTIFY_H

#include "vm/fs_watch.h"

void notify_init(struct fuse_session *session);

/* For watch_init. */
watch_changed_fn notify_changed;

#endif
