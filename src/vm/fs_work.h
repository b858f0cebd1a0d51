/* What waits for the host's disk (a cold read, fsync) is done on a few threads, so that it does not stand before the
 * requests behind it. */
#ifndef SBX_VM_FS_WORK_H
#define SBX_VM_FS_WORK_H

#include <event2/event.h>
#include <stdbool.h>

#define FS_WORKERS 3u
#define FS_JOBS_MAX 64u /* at a time; each holds a read's buffer at most */

/* After confine_self (which wants no second thread).  -1: there are none, work_add refuses. */
int work_init(struct event_base *base);

/* run(arg) on some thread, then done(arg) on the loop's.  False: do it yourself. */
bool work_add(void (*run)(void *arg), void (*done)(void *arg), void *arg);

#endif
