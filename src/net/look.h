/* Whether to look for an answer for some microseconds instead of sleeping until it comes.
 *
 * Theory of operation.  An answer that is due in a few microseconds costs more to sleep for than to wait for: the processor
 * goes idle, and whoever answers has to wake it, which takes tens of microseconds in a virtual machine.  So whoever asked
 * looks for a while, and lets everybody else who wants that processor have it meanwhile.  Whether that helps is told by what
 * came of it: after an answer that was late the next ones are slept for, the more of them the more often that happened in a
 * row, so that a busy machine, where nothing comes in time, is hardly looked at.  And where several connections are at
 * work nobody looks: there is enough to do that wakes us.
 * Pure: time is a number. */
#ifndef SBX_NET_LOOK_H
#define SBX_NET_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#define LOOK_US 60         /* the longest look */
#define LOOK_ALONE_US 1000 /* so long nobody else has asked */
#define LOOK_SKIP_MAX 1023 /* answers that are slept for after looks in vain */

/* All zero: nothing was asked yet. */
struct look {
    int64_t since_us;
    uint32_t who;
    unsigned fails, skip;
    bool on;
};

/* Connection `who` awaits an answer from now on; alone: no other one, as far as the caller knows. */
void look_begin(struct look *l, uint32_t who, bool alone, int64_t now_us);
/* True while it is to be looked for. */
bool look_on(struct look *l, int64_t now_us);
/* That of the last `who` came. */
void look_found(struct look *l, int64_t now_us);
/* It will not come. */
void look_away(struct look *l);

#endif
