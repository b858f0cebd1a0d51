/* How our processes give up what they do not need (design.md, I3).
 *
 * Theory of operation.  A helper opens what it needs, then calls confine_self() once, before it reads the
 * first hostile byte.  From then on:
 *   - PR_SET_NO_NEW_PRIVS: no set-user-id program gives anything back;
 *   - not dumpable, no core: memory does not reach a disk or a debugger of the same user;
 *   - Landlock (where the kernel has it): no file, but beneath the paths listed, no TCP bind or connect
 *     unless asked for, no signals or abstract sockets out of the domain;
 *   - its own empty network namespace where the host allows it, if it needs no network;
 *   - seccomp: the system calls of the groups asked for, and no others.  A call that is not listed
 *     fails with ENOSYS, which libraries handle, except those that only an attacker makes (execve,
 *     ptrace, mount, ...), which kill the process.
 * What the kernel does not offer is skipped, and reported in `report` for `sbx doctor`. */
#ifndef SBX_CORE_CONFINE_H
#define SBX_CORE_CONFINE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

enum {
    CONFINE_IO = 1u << 0,      /* read, write, send, receive, poll on descriptors it has; memory; time */
    CONFINE_FILES = 1u << 1,   /* open and change files (bounded by Landlock to `paths`) */
    CONFINE_SOCKETS = 1u << 2, /* socket, connect, bind, listen: the broker, the supervisor */
    CONFINE_THREADS = 1u << 3,
    CONFINE_PROCESSES = 1u << 4, /* fork, exec, wait, kill: the supervisor alone */
};

enum { CONFINE_READ = 1, CONFINE_WRITE = 2, CONFINE_EXEC = 4 };

struct confine_path {
    const char *path; /* a missing one is skipped; or NULL: then fd, an O_PATH descriptor, names the place */
    int fd;
    unsigned access; /* CONFINE_READ | ... for everything beneath */
};

struct confine {
    unsigned groups;                  /* CONFINE_IO | ... */
    const struct confine_path *paths; /* what CONFINE_FILES may reach */
    size_t npaths;
    size_t memory_max;                /* RLIMIT_AS, bytes; 0: unchanged */
    unsigned files_max;               /* RLIMIT_NOFILE; 0: unchanged */
    bool own_network;                 /* leave the host's network namespace */
};

/* Confines the calling process for good; call it before a second thread exists.  -1 if a step that this
 * kernel offers failed: the process must then end. */
int confine_self(const struct confine *c, struct err *e);

/* The Landlock part alone, for a child that is about to exec a program with a filter of its own (QEMU); it must
 * have set no_new_privs.  Allocates nothing. */
int confine_files(const struct confine *c, struct err *e);

/* Which of the means this kernel offers, for `sbx doctor`: Landlock's ABI (0: none), seccomp. */
int confine_landlock_abi(void);
bool confine_has_seccomp(void);

#endif
