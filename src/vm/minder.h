/* Runs a program of which nothing stays when it, or we, end.
 *
 * Theory of operation.  Between us and the program stands a process of ours.  Whatever the program starts, in whatever
 * session or namespace, becomes its child when its own parent ends (PR_SET_CHILD_SUBREAPER), and it notices our end, by
 * whatever signal, by a pipe that only we hold.  Then it interrupts all of them, as a terminal's Ctrl-C does, kills those
 * that are there ten seconds later, and removes the folders that they worked in. */
#ifndef SBX_VM_MINDER_H
#define SBX_VM_MINDER_H

#include "core/spawn.h"

struct minder {
    pid_t pid;
    int lifeline; /* closed by our end, or by minder_wait */
};

/* Starts s->path.  folders, NULL for none: [0] is removed unless the program ends with status 0 while we live, [1] in any
 * case.  Our descriptors (locks) stay open as long as anything is left. */
int minder_start(struct minder *m, const struct spawn *s, const char *const folders[2], struct err *e);

/* Waits for the program and all that it started: its status, as spawn_wait tells it. */
int minder_wait(struct minder *m);

/* Removes a folder, and what a user namespace of ours made in it. */
void minder_remove(const char *folder);

#endif
