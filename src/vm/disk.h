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
/* The same for an empty disk of that size, copied so that it may be written to: what a machine has that is booted to be frozen. */
int disk_open_blank(unsigned size_mib, struct qemu_disk out[QEMU_DISKS_MAX], struct err *e);
void disk_close(struct qemu_disk *disks, int n);

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

#endif
