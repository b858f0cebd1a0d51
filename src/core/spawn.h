/* One way to start a child. */
#ifndef SBX_CORE_SPAWN_H
#define SBX_CORE_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "core/err.h"

struct spawn_fd {
    int from; /* ours; stays open here */
    int to;   /* its number in the child */
};

struct spawn {
    const char *path;  /* absolute; or a name that is looked up in PATH */
    char *const *argv; /* NULL-terminated */
    char *const *env;  /* NULL: ours without what describes the host's terminal, proxy or session */
    bool bare;         /* of ours only what says who and where we are: a shell's variables hold keys */
    const char *cwd;   /* NULL: unchanged */
    const struct spawn_fd *fds; /* every descriptor not named here, but 0 to 2, is closed */
    size_t nfds;
    bool die_with_parent; /* SIGKILL when the calling thread's process ends */
    bool new_session;     /* setsid */
    /* Runs in the child last before exec, in a forked copy of a possibly threaded process: only
     * async-signal-safe calls.  Non-zero is an errno that fails the start.  May be NULL. */
    int (*prepare)(void *arg);
    void *arg;
};

/* Starts the program; signal mask and dispositions are reset in the child.  Returns the pid once exec has
 * succeeded, or -1 with the reason (a missing program is STATUS_NOT_FOUND); nothing is left behind then. */
pid_t spawn_run(const struct spawn *s, struct err *e);

/* Waits for pid (EINTR-proof).  Exit status, or 128 + signal. */
int spawn_wait(pid_t pid);

#endif
