#include "vm/supervisor_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "core/paths.h"

static int open_part(const char *image, const char *file, struct err *e)
{
    char *path = path_in(PATH_DATA, e, "images/%s/%s", image, file);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (path && fd < 0)
        err_errno(e, errno, "cannot open %s", path);
    free(path);
    return fd;
}

int image_open(const struct record *r, struct qemu *q, struct err *e)
{
    q->base = open_part(r->image, "base.erofs", e);
    q->kernel = open_part(r->image, "vmlinux", e);
    q->initrd = open_part(r->image, "initrd", e);
    return q->base < 0 || q->kernel < 0 || q->initrd < 0 ? -1 : 0;
}

json_t *image_seed_files(json_t *env)
{
    (void)env;
    return json_array();
}
