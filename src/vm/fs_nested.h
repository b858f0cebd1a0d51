/* Repositories within a shared folder (threat 93).  Git asks each that the index of the one around it names how it stands,
 * and runs what its configuration says: a `git status` at the top is enough.  To forbid them would forbid `git clone` in a
 * workspace, so the user is told of each that the guest made, or whose configuration or hooks it wrote, with the other
 * files that programs of the host obey (core/obeyed.h).  The folder's own repository is kept by rules. */
#ifndef SBX_VM_FS_NESTED_H
#define SBX_VM_FS_NESTED_H

#include "vm/fs_node.h"

/* path: from the folder's top, escaped (core/sanitize.h). */
typedef void nested_tell_fn(unsigned folder, const char *path);
void nested_init(nested_tell_fn *tell);

/* The guest is about to make a name in a directory, or to write what has it. */
void nested_changed(const struct node *dir, const char *name);
/* A directory has another name now: so have those within it. */
void nested_moved(const struct node *from, const char *name, const struct node *to, const char *newname);

#endif
