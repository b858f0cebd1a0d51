/* Rules on paths within a shared folder: what the guest does not see, and what it cannot change.  Pure.
 *
 * A pattern is a path from the folder's top: components are literal but for `*` (any run of bytes within one
 * component), and a component `**` is any number of components, none as well.  A rule holds for what it names and
 * for all beneath.  `guard` is read-only but for what `except` names: a list of what may be written, where `readonly`
 * within an exception holds all the same.
 *
 * Theory of operation.  Patterns are run side by side, one component of the path at a time; where they stand after
 * it is a set of positions for each.  That set answers more than "does it match": what lies beneath a directory is
 * protected as the set says, so a directory may be renamed only to where the set still holds all it held; and a
 * place that a pattern has begun to spell (`.git` of `.git/hooks`) must stay a directory of the real tree, or the
 * protected name would be reached around it. */
#ifndef SBX_VM_FS_RULES_H
#define SBX_VM_FS_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

#define FS_RULES_MAX 64u
#define FS_RULE_COMPONENTS_MAX 31u

enum fs_rule_kind { FS_RULE_HIDE, FS_RULE_READONLY, FS_RULE_GUARD, FS_RULE_EXCEPT };

struct fs_rules; /* of one folder */

struct fs_rules *fs_rules_new(void);
void fs_rules_free(struct fs_rules *r);
/* -1 if the pattern is empty, absolute, has "." or "..", or is too long; or there are too many. */
int fs_rules_add(struct fs_rules *r, enum fs_rule_kind kind, const char *pattern, struct err *e);
bool fs_rules_empty(const struct fs_rules *r); /* NULL is empty */
/* The folder takes names that differ in case for one (FAT, NTFS, SMB, what Windows shows to WSL): so do the patterns, with the
 * short names (GIT~1) that some of these give to others. */
void fs_rules_ignore_case(struct fs_rules *r);

/* Where the patterns stand after a path. */
struct fs_rules_at {
    uint32_t set[FS_RULES_MAX];
};
void fs_rules_top(const struct fs_rules *r, struct fs_rules_at *at);
void fs_rules_step(const struct fs_rules *r, struct fs_rules_at *at, const char *name);

bool fs_rules_hidden(const struct fs_rules *r, const struct fs_rules_at *at);
bool fs_rules_readonly(const struct fs_rules *r, const struct fs_rules_at *at);
/* Guarded itself, but on the way to an exception: a directory may be made here. */
bool fs_rules_opens(const struct fs_rules *r, const struct fs_rules_at *at);
/* A protected name lies beneath by its spelling: only a directory may stand here. */
bool fs_rules_leads(const struct fs_rules *r, const struct fs_rules_at *at);
/* All that was protected beneath `from` is protected beneath `to` as well, and exceptions are the same. */
bool fs_rules_keep(const struct fs_rules *r, const struct fs_rules_at *from, const struct fs_rules_at *to);

#endif
