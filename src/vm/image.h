/* Base images: a Debian tree as EROFS, its kernel, and the modules for the initramfs.
 * They lie in $XDG_DATA_HOME/sbx/images/ID; a folder there is whole or, with a leading dot, being made. */
#ifndef SBX_VM_IMAGE_H
#define SBX_VM_IMAGE_H

#include <jansson.h>

#include "core/err.h"

#define IMAGE_SUITE "trixie"

struct image {
    char id[64];
    char *dir;
    char *base, *kernel, *modules;
};

void image_finish(struct image *i);

/* The image of that id, or the newest if id is NULL.  STATUS_NOT_FOUND if there is none. */
int image_find(struct image *i, const char *id, struct err *e);

/* Called with 0..1 and what is being done. */
typedef void image_progress_fn(double fraction, const char *text, void *arg);

/* Builds a new one, under a lock (a second builder waits and then takes the first one's).  Interrupted, it leaves
 * only what the next build clears away. */
int image_build(image_progress_fn *progress, void *arg, struct err *e);

/* [{id, created, kernel, bytes}] */
json_t *image_list(struct err *e);
/* Refuses what a sandbox still uses. */
int image_remove(const char *id, struct err *e);

/* Where the initramfs of this image and this sbx-guest lies in the cache, by content, once image_pack made it.
 * malloc'ed path. */
char *image_initrd_path(const struct image *i, struct err *e);

/* Makes it, if it is not there. */
int image_pack(const char *id, struct err *e);

#endif
