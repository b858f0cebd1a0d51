/* start.c: processes that become the program of a session. */
#ifndef SBX_GUEST_START_H
#define SBX_GUEST_START_H

#include <stdbool.h>
#include <sys/types.h>

#include "guest/guest.h"

#define START_GROUPS "/sys/fs/cgroup/sessions"

/* What the child could not do; it stays empty when it became the program. */
struct failure {
    int error;
    bool cwd;
};

struct start {
    const char *group; /* below START_GROUPS; it is there.  NULL: PID 1's own */
    const struct user *u;
    char **argv, **envp;
    const char *cwd, *program;
    bool cwd_given, tty;
    int fd[3]; /* what becomes 0, 1, 2 */
    struct failure failed; /* the child writes it, in the memory that is ours as well */
};

void start_group(const char *group);
void start_group_gone(const char *group); /* nothing while somebody is in it */

/* The PID when it became the program or failed (st->failed); -1 with errno. */
pid_t start_child(struct start *st);

/* The same in two steps.  Of st the first takes u, group and fd: one process, in its group and with the user's rights, waits
 * in our memory.  The second, once, lets it become the program (cwd, program, argv, envp), or fail. */
pid_t start_waiting(const struct start *st);
void start_go(struct start *st);

/* Where programs are looked for. */
#define START_PATH_MAX 700
void start_path(const struct user *u, char buf[START_PATH_MAX]);

/* Runs a shell of the user's as a session would be, and forgets it: what that reads stays in memory. */
void start_rehearse(const struct user *u);

/* A program that nobody asked for and that does nothing, run while PID 1 goes on: emulation translates what every program
 * needs while the machine has nothing else to do.  The first begins it, the second lets it run, once. */
void start_spare(const struct user *u);
void start_spare_go(void);

#endif
