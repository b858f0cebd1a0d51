/* What the supervisor takes from images and seeds. */
#ifndef SBX_VM_SUPERVISOR_IMAGE_H
#define SBX_VM_SUPERVISOR_IMAGE_H

#include "core/record.h"
#include "vm/qemu.h"

/* Opens kernel, initramfs and base image of the sandbox's image. */
int image_open(const struct record *r, struct qemu *q, struct err *e);

/* Before the helpers start: what image_seed_files gives is made if it does not hold any more, so that the broker takes up the
 * authority that the guest is told of. */
void image_settle_seed(void);
/* The host's mirrors and authorities as files for the guest: a new array; variables are added to env. */
json_t *image_seed_files(json_t *env);

#endif
