/* In which state a sandbox is, from what is true: is its lock held, does its supervisor answer, and what did it
 * say last (sandboxes/NAME/last.json). */
#ifndef SBX_CORE_STATE_H
#define SBX_CORE_STATE_H

#include <jansson.h>
#include <stdbool.h>

#include "core/err.h"

struct state {
    char name[16];     /* creating, starting, running, stopping, stopped, failed */
    char reason[256];  /* of failed; printable */
    bool alive;        /* a supervisor holds the lock */
};

/* Who writes: the supervisor. `running` is written at the start, so that a killed one is told from one that ended. */
int state_write(const char *sandbox, const char *state, const char *reason, struct err *e);

/* Takes the lock of a sandbox for its supervisor: a descriptor to keep, or -1 (STATUS_FAILED: it runs already). */
int state_lock(const char *sandbox, struct err *e);
bool state_is_locked(const char *sandbox);

/* What the files say.  For one that is alive the supervisor itself knows more (its socket, op "status"). */
void state_read(const char *sandbox, struct state *s);

#endif
