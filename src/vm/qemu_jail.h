/* What QEMU loses between fork and exec (see qemu.h). */
#ifndef SBX_VM_QEMU_JAIL_H
#define SBX_VM_QEMU_JAIL_H

#include <stdbool.h>
#include <sys/types.h>

struct qemu_jail {
    pid_t parent;
    bool kvm, kernel;
    bool drop; /* root becomes uid and gid */
    uid_t uid;
    gid_t gid;
    char uid_map[64], gid_map[64];
};

/* In the parent: what cannot be computed safely after fork.  kernel: its descriptor is a file, not memory. */
void qemu_jail_prepare(struct qemu_jail *j, bool kvm, bool kernel);

/* In the child (spawn.h's prepare): 0 or an errno. */
int qemu_jail_enter(void *jail);

#endif
