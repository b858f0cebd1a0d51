/* When rules that run out are over, whatever the clock is set to.
 *
 * A rule says when it runs out by the wall clock, which can be set back, by hand or by a machine whose battery is empty.
 * So the broker remembers of each such rule, from the moment that it first sees it, how long it still had to run by the
 * clock of this boot, which nobody sets, and which rules were over once; both in the sandbox's folder, for its next start.
 * What allows is over by whichever clock is first, and stays so; what denies, by whichever is last. */
#ifndef SBX_CORE_EXPIRY_H
#define SBX_CORE_EXPIRY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/policy.h"

struct expiry;

/* What is remembered of a sandbox; nothing where it cannot be read.  NULL: no memory. */
struct expiry *expiry_open(const char *sandbox);
void expiry_free(struct expiry *x);

/* Tells the rules of p what they are (policy_set_expiry).  wall: seconds since the epoch; boot: seconds of CLOCK_BOOTTIME. */
void expiry_settle(struct expiry *x, struct policy *p, int64_t wall, int64_t boot);
/* Writes what has changed, if anything has. */
int expiry_save(struct expiry *x, struct err *e);
/* Seconds until one of them is over by some clock, at least 1; 0: none will be. */
int64_t expiry_next(const struct expiry *x, const struct policy *p, int64_t wall, int64_t boot);

int64_t expiry_boot_now(void);

/* The policy as a sandbox's broker has it: loaded, and its rules settled by what is remembered.  NULL for the sandbox: the
 * global one, of which nothing is remembered.  The caller frees it; NULL: no memory. */
struct policy *expiry_policy(const char *sandbox);

#endif
