/* Files of a workspace that programs of the host run or obey when a person next opens the folder there: tasks of editors,
 * environment files of shells, servers of agents, hooks, scripts of package managers and build files (threat 93, I7).
 * What an agent changed among them is told when the sandbox stops or a run ends, and by `inspect`, before somebody's
 * editor finds it.
 *
 * Theory of operation.  sandboxes/NAME/obeyed.json holds what each of these files was (a hash) when the sandbox started
 * or when the user was last told, and what was found changed since and not told yet.  Nothing is ever followed, run or
 * parsed but the "scripts" of package.json, whose other parts change all day. */
#ifndef SBX_CORE_OBEYED_H
#define SBX_CORE_OBEYED_H

#include "core/record.h"

/* The state of one folder: {relative path: hash}.  Pure but for reading.  NULL: no memory. */
json_t *obeyed_scan(const char *folder);
/* What differs between two scans: a sorted array of texts, prefix before each. */
json_t *obeyed_diff(const json_t *before, const json_t *after, const char *prefix);

/* The supervisor's: before the guest can write, and when it no longer can. */
void obeyed_begin(const struct record *r);
void obeyed_end(const struct record *r);
/* One that no list can name, as the workspace's server tells it (vm/fs_nested.h): beneath the folder of that number. */
void obeyed_add(const struct record *r, unsigned folder, const char *path);

/* What was changed and not told: an array of absolute paths.  New reference, never NULL but for lack of memory. */
json_t *obeyed_changed(const struct record *r);
/* The user has seen `shown`. */
void obeyed_told(const struct record *r);

#endif
