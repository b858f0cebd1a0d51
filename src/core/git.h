/* The git program on the host, run so that nothing in a repository that a guest may have written is executed: no hooks, no
 * file-system monitor, no external diff, no system or global surprises but the user's identity; and never a command that runs
 * filters (threat 92: measured, only clean/smudge filters survive these settings, so nothing here touches a work tree). */
#ifndef SBX_CORE_GIT_H
#define SBX_CORE_GIT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

/* Runs `git -C dir ARGV...`; its output without the last line end goes to out (may be NULL).  -1 with git's own last words. */
int git_run(const char *dir, const char *const *argv, char *out, size_t cap, struct err *e);

/* The top folder of the repository that holds dir; STATUS_USAGE if there is none. */
int git_top(const char *dir, char *out, size_t cap, struct err *e);
/* A name that git takes for a branch. */
int git_check_branch(const char *name, struct err *e);

#endif
