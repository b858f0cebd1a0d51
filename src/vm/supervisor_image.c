#include "vm/supervisor_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mirrors.h"
#include "vm/image.h"

static int open_part(const char *path, struct err *e)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (path && fd < 0)
        err_errno(e, errno, "cannot open %s", path);
    return fd;
}

int image_open(const struct record *r, struct qemu *q, struct err *e)
{
    struct image i = {0};
    if (image_find(&i, r->image && r->image[0] ? r->image : NULL, e) < 0)
        return -1;
    char *initrd = image_initrd(&i, e);
    q->base = open_part(i.base, e);
    q->kernel = open_part(i.kernel, e);
    q->initrd = open_part(initrd, e);
    free(initrd);
    image_finish(&i);
    return q->base < 0 || q->kernel < 0 || q->initrd < 0 ? -1 : 0;
}

json_t *image_seed_files(json_t *env)
{
    struct err e = {0};
    json_t *files = mirrors_files(IMAGE_SUITE, &e), *vars = mirrors_env();
    if (!files)
        log_line("the host's mirrors and authorities are not passed on: %s", e.text);
    if (vars)
        json_object_update(env, vars);
    json_decref(vars);
    return files ? files : json_array();
}
