/* The disks of sandboxes: a sandbox's own is a sparse qcow2 file that is a copy-on-write child of a frozen one,
 * which is an empty ext4 file system or the disk of a template.  Frozen disks are never written again.
 *
 *   templates/blank-<MiB>.raw          made once for each size
 *   templates/NAME/{template.json,disk}  a frozen disk, with what it is a child of
 *   sandboxes/NAME/disk                the sandbox's own
 *
 * A qcow2 file names its parent, but QEMU is given the chain as descriptors and the name is not followed. */
#ifndef SBX_VM_DISK_H
#define SBX_VM_DISK_H

#include <jansson.h>

#include "core/err.h"
#include "vm/qemu.h"

/* Makes sandboxes/NAME/disk if it is missing: a child of template (NULL: the blank one of that size). */
int disk_ensure(const char *name, const char *template, unsigned size_mib, struct err *e);

/* Opens the sandbox's disk and its chain for QEMU.  Count, or -1 with nothing left open. */
int disk_open(const char *name, const char *template, unsigned size_mib,
              struct qemu_disk out[QEMU_DISKS_MAX], struct err *e);
/* An empty file of that size: what a machine has that is frozen before it looks at its disk. */
int disk_open_blank(unsigned size_mib, struct qemu_disk out[QEMU_DISKS_MAX], struct err *e);
void disk_close(struct qemu_disk *disks, int n);
/* Whether the sandbox has a disk already. */
bool disk_exists(const char *name);

/* Layers: what a machine wrote to a fresh disk before it was frozen (it mounted it, wrote the files that all such
 * sandboxes have).  A clone of that machine goes on with a copy of the layer as its own disk.
 *
 *   $XDG_CACHE_HOME/sbx/disks/KEY      the layer of the frozen machine KEY
 */
/* Opens the chain that a fresh sandbox's disk would have: out[0] is left open-less (-1), the parents follow.  Count. */
int disk_open_parents(const char *template, unsigned size_mib, struct qemu_disk out[QEMU_DISKS_MAX], struct err *e);
/* A new layer over that chain, opened for writing; *path (malloc'ed) is its temporary name. */
int disk_layer_new(const char *template, unsigned size_mib, struct qemu_disk *out, char **path, struct err *e);
/* Gives a layer its final name; the machine that wrote it has ended. */
int disk_layer_keep(const char *path, const char *key, struct err *e);
bool disk_layer_exists(const char *key);
/* Makes the sandbox's disk of a layer. */
int disk_from_layer(const char *name, const char *key, struct err *e);
/* Opens the sandbox's disk as out[0], beside parents that are open. */
int disk_open_own(const char *name, struct qemu_disk *out, struct err *e);
/* Removes layers whose frozen machine is gone. */
void disk_layers_clean(void);

/* A copy that shares its blocks where the file system can, and leaves holes out where not. */
int disk_copy(const char *from, const char *to, bool durable, struct err *e);

/* Template names: as sandboxes', and with one ":" for a version ("my-template:v1"). */
int template_check_name(const char *name, struct err *e);

/* Copies the disk of a stopped sandbox (the caller holds state_hold) as template `to`.  note (an object, borrowed,
 * may be NULL) is kept in template.json: the kit, its version, ... */
int template_save(const char *sandbox, const char *to, const json_t *note, struct err *e);
/* The same without a copy: the sandbox's disk moves, and the sandbox has none any more. */
int template_freeze(const char *sandbox, const char *to, const json_t *note, struct err *e);

/* The template's record, or NULL with STATUS_NOT_FOUND. */
json_t *template_load(const char *name, struct err *e);
/* An array of the records, each with "name", "size_kib" and "used_by": [sandboxes and templates]. */
json_t *template_list(struct err *e);
/* Refuses (STATUS_USAGE) while a sandbox or another template is a child of it. */
int template_remove(const char *name, struct err *e);

/* Takes away what a save or a removal that was killed left behind. */
void template_sweep(void);

#endif
