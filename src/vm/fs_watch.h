/* What changes in the directories that the guest knows, told apart: the host's doing or the guest's own, through us.
 *
 * Theory of operation.  Each directory whose content the guest learns is watched (inotify), before it is read.  A
 * request that changes something is bracketed: what was queued before it is the host's; while it runs, the operation
 * names the places that it is about to change (watch_own); what is queued after it at those places is its own echo,
 * all else the host's again.  The kernel queues an event before the system call that caused it returns, so no
 * clock is needed to tell the two apart. */
#ifndef SBX_VM_FS_WATCH_H
#define SBX_VM_FS_WATCH_H

#include "vm/fs_node.h"

/* And no more than a part of what the user may have (fs.inotify.max_user_watches): his editors watch as well, and a sandbox
 * that makes folders without end would leave them none. */
#define FS_WATCHES_MAX 200000u
#define FS_WATCHES_PART 4u

/* The host changed `name` in dir (NULL: dir's own attributes; dir NULL as well: too much to tell, everything may
 * have changed).  `content`: what the name leads to was changed, otherwise the name itself came or went. */
typedef void watch_changed_fn(struct node *dir, const char *name, bool content);

/* The inotify descriptor, to be read with watch_drain; -1 with errno: nothing can be watched. */
int watch_init(watch_changed_fn *changed);
void watch_finish(void);

/* From now on its changes are told.  False: they are not, for good. */
bool watch_dir(struct node *dir);
void watch_drop(struct node *n);

/* Tells what is queued; what watch_own named since the last call is left out, once, and forgotten. */
void watch_drain(void);
void watch_own(struct node *dir, const char *name);
void watch_own_node(struct node *n); /* its data or attributes */

unsigned watch_count(void);

#endif
