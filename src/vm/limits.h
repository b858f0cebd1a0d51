/* What the whole of a sandbox (QEMU, the helpers, the supervisor) may take of this host: cgroup v2, where it is delegated.
 *
 * Theory of operation.  The supervisor enters a group of its own before it starts anything, so that every process of the
 * sandbox is born in it.  Where systemd runs the group is a transient scope of the user's manager (the system's for root),
 * which also takes it away once it is empty, however its processes ended.  Elsewhere it is a folder sbx/NAME beneath
 * the nearest group above us that we may write to; empty ones that a killed supervisor left go at the next start.
 * Where neither works nothing changes: the sandbox runs without limits, a notice says so, and `sbx doctor` says why. */
#ifndef SBX_VM_LIMITS_H
#define SBX_VM_LIMITS_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "core/err.h"

struct limits {
    unsigned cpu;    /* per cent of one processor; 0: no limit, as for the others */
    unsigned memory; /* MiB */
    unsigned pids;   /* processes and threads on the host */
    unsigned io;     /* MiB a second read, and as much written, on the disk that holds the sandbox */
};

/* The settings limit.*; own (the record's object "limits", or NULL) wins for each that it names. */
int limits_load(const json_t *own, struct limits *out, struct err *e);
bool limits_any(const struct limits *l);

/* The calling process enters a group with these limits.  state: a folder on the disk that `io` speaks of.  0: it did, though
 * `missing` (printable, "" if none) may name limits that this host does not enforce.  -1: it did not. */
struct limits_group;
struct limits_group *limits_enter(const char *name, const struct limits *l, const char *state, char *missing, size_t cap,
                                  struct err *e);
/* Goes back to where we were and removes the group; frees. */
void limits_leave(struct limits_group *g);
/* How often the kernel ended a process of the group because of its memory limit. */
unsigned limits_oom_kills(const struct limits_group *g);

/* For `sbx doctor`: which limits would hold here ("cpu, memory, pids"; false: none), or why none. */
bool limits_available(char *text, size_t cap);

/* ---- for tests: the same in any tree ---- */

/* Makes ROOT/…/sbx/NAME as near to ROOT/OWN as it may, writes the limits and moves pid there.  device: "8:0" or "". */
struct limits_group *limits_make(const char *root, const char *own, const char *name, const struct limits *l,
                                 const char *device, pid_t pid, struct err *e);
/* Names in `missing` what of l the group at `dir` does not hold to. */
void limits_verify(const char *dir, const struct limits *l, char *missing, size_t cap);
/* The words of the call that asks systemd for a scope; NULL-terminated, all malloc'ed. */
char **limits_scope_argv(bool user, const char *unit, const struct limits *l, const char *state, pid_t pid);

#endif
