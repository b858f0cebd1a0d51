/* Sandboxes on a branch of their own (--branch), or on a clone of their own (--clone). */
#ifndef SBX_UI_CLI_BRANCH_H
#define SBX_UI_CLI_BRANCH_H

#include "core/record.h"
#include "ui/cli/cli.h"

/* r has its name and its folders; the first is replaced: by a worktree `.sbx/<sandbox>-worktrees/<branch>` of its repository,
 * and the repository's .git behind rules that keep the guest from its hooks, its configuration and its other branches. */
int branch_prepare(struct record *r, const char *branch, struct err *e);
/* The first folder becomes a read-only source, from which the guest clones at its first start. */
int clone_prepare(struct record *r, struct err *e);
/* What is left to do inside at the first start: the files of the branch, or the clone. */
int branch_finish(const char *name, struct err *e);
/* Does its work lie on its own disk alone, so that it goes with the sandbox? */
bool branch_is_clone(const char *name);
/* What `rm` must say: work that stays. */
void branch_farewell(const struct record *r);

#endif
