/* A QEMU process: its command line, its confinement, and the ends of ours that it holds.
 *
 * Theory of operation.  QEMU gets everything by descriptors of fixed numbers: it opens nothing of the
 * sandbox by path, and the command line is the same for every sandbox of one kind, which is what lets a
 * frozen machine be cloned (machine.md, section 3: same devices, same order, same sizes).  Between fork and
 * exec it enters user, network, IPC and UTS namespaces of its own where the host allows that, and a Landlock
 * domain in which only the program's own libraries can be read; its own seccomp filter comes on top. */
#ifndef SBX_VM_QEMU_H
#define SBX_VM_QEMU_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "core/err.h"

/* Numbers in QEMU of what it inherits. */
enum qemu_fd {
    QEMU_FD_QMP = 3,
    QEMU_FD_CTL,
    QEMU_FD_FS,
    QEMU_FD_NET,
    QEMU_FD_CONSOLE,
    QEMU_FD_KERNEL,
    QEMU_FD_INITRD,
    QEMU_FD_RAM,   /* only with ram != QEMU_RAM_OWN */
    QEMU_FD_STATE, /* only with QEMU_RAM_CLONE */
    QEMU_FD_BASE,
    QEMU_FD_DISK, /* and its backing files, the nearest first, after it */
};

#define QEMU_DISKS_MAX 8 /* length of a chain of copy-on-write children */

enum qemu_ram {
    QEMU_RAM_OWN,    /* plain memory: the machine can give freed pages back to the host */
    QEMU_RAM_SHARED, /* writes to the descriptor: a machine that is to be frozen */
    QEMU_RAM_CLONE,  /* a private view of a frozen machine's memory */
};

struct qemu_disk {
    int fd;
    bool qcow2; /* else raw */
};

struct qemu {
    const char *name;
    bool kvm, tsc_deadline, amd;
    unsigned tsc_khz;
    unsigned cpus, memory_mib, disk_mib;
    enum qemu_ram ram;
    struct qemu_disk disks[QEMU_DISKS_MAX]; /* [0] is written to, the others are its backing chain */
    unsigned ndisks;
    int base, kernel, initrd, ram_fd, state_fd;
    int net, fs; /* QEMU's ends of the cable and of the fs port; -1: nobody is at the other end yet */
    int log; /* QEMU's standard output and error */
};

/* The ends that stay here after a start; net and fs only where none were given. */
struct qemu_ends {
    pid_t pid;
    int qmp, ctl, fs, net, console;
};

/* The command line, NULL-terminated, each element malloc'ed.  NULL: no memory.  Pure. */
char **qemu_argv(const struct qemu *q);
void qemu_argv_free(char **argv);

/* What decides whether a frozen machine fits, but the files: the words of the command line that do not differ
 * between clones, as one malloc'ed line. */
char *qemu_kind(const struct qemu *q);

/* Starts it.  0, or -1 with nothing left behind.  The descriptors in q stay the caller's. */
int qemu_start(const struct qemu *q, struct qemu_ends *out, struct err *e);

/* The program, found in PATH; malloc'ed. */
char *qemu_program(struct err *e);

#endif
