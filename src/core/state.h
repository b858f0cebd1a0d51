/* What a sandbox is doing, derived from what is true and not from what a file once said.
 *
 * Theory of operation.  The supervisor of a sandbox holds an exclusive lock on sandboxes/NAME/lock for as
 * long as it lives; the kernel releases it however the process ends.  Beside it last.json says how far the
 * supervisor came ("running") or how the last run ended ("stopped", or "failed" with the reason).  So: lock
 * held and "running" is running; lock free and "running" means that the supervisor was killed. */
#ifndef SBX_CORE_STATE_H
#define SBX_CORE_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"

/* The bounds of an orderly end, in seconds, after the time that the guest was given. */
#define STOP_QUIT_S 2   /* for QEMU to quit */
#define STOP_WRITE_S 10 /* for net, and then for broker, to write down what they counted: a disk is slow, a host stalls */
/* Who takes longer hangs: all of these, and as much again for what has no bound of its own, a frozen machine being written. */
#define STOP_MOST_S (2 * (STOP_QUIT_S + 2 * STOP_WRITE_S))

enum life { LIFE_CREATING, LIFE_STARTING, LIFE_RUNNING, LIFE_STOPPING, LIFE_STOPPED, LIFE_FAILED };

/* "creating", "starting", ... */
const char *life_name(enum life life);

struct sandbox_status {
    enum life life;
    char reason[768]; /* why it failed or stopped; "" if there is nothing to say */
    pid_t pid;        /* of the supervisor while there is one, else 0 */
    int64_t when;     /* seconds since the epoch of the last change; 0: never started */
};

/* The state of one sandbox.  STATUS_NOT_FOUND if there is none of that name. */
int sandbox_state(const char *name, struct sandbox_status *out, struct err *e);

/* For the supervisor alone.  Takes the lock: a descriptor that holds it until closed; -1 with STATUS_USAGE if
 * the sandbox has a supervisor already. */
int state_lock(const char *name, struct err *e);

/* The same for whoever changes the disk or the folder of a stopped sandbox (remove, save as a template):
 * while it is held the sandbox cannot start. */
#define state_hold state_lock

/* Did it ever have a decision log?  If it has none now, somebody removed it. */
bool state_logged(const char *name);

/* Replaces last.json. */
int state_store(const char *name, enum life life, const char *reason, struct err *e);

#endif
