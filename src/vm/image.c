#include "vm/image.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/record.h"

void image_finish(struct image *i)
{
    free(i->dir);
    free(i->base);
    free(i->kernel);
    free(i->modules);
    memset(i, 0, sizeof *i);
}

static char *join(const char *dir, const char *file)
{
    char *s;
    return asprintf(&s, "%s/%s", dir, file) < 0 ? NULL : s;
}

static int fill(struct image *i, const char *id, struct err *e)
{
    memset(i, 0, sizeof *i);
    snprintf(i->id, sizeof i->id, "%s", id);
    i->dir = path_in(PATH_DATA, e, "images/%s", id);
    if (!i->dir)
        return -1;
    i->base = join(i->dir, "base.erofs");
    i->kernel = join(i->dir, "vmlinux");
    i->modules = join(i->dir, "modules");
    if (!i->base || !i->kernel || !i->modules)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (access(i->base, R_OK) < 0 || access(i->kernel, R_OK) < 0)
        return err_set(e, STATUS_NOT_FOUND, "there is no base image %s; sbx image ls lists them", id);
    return 0;
}

/* Ids begin with the time of their making: the greatest is the newest. */
static int is_image(const struct dirent *d)
{
    return d->d_name[0] != '.' && strncmp(d->d_name, IMAGE_SUITE "-", sizeof IMAGE_SUITE) == 0;
}

int image_find(struct image *i, const char *id, struct err *e)
{
    memset(i, 0, sizeof *i);
    if (id) {
        if (strchr(id, '/') || id[0] == '.')
            return err_set(e, STATUS_USAGE, "\"%s\" is no image id", id);
        return fill(i, id, e);
    }
    char *dir = path_in(PATH_DATA, e, "images");
    struct dirent **list;
    int n = dir ? scandir(dir, &list, is_image, alphasort) : -1;
    free(dir);
    int rc = n > 0 ? fill(i, list[n - 1]->d_name, e)
                   : err_set(e, STATUS_NOT_FOUND, "there is no base image yet; make it with: sbx image build");
    for (int k = 0; k < n; k++)
        free(list[k]);
    if (n >= 0)
        free(list);
    return rc;
}

static long long size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (long long)st.st_size : 0;
}

json_t *image_list(struct err *e)
{
    char *dir = path_in(PATH_DATA, e, "images");
    struct dirent **list;
    int n = dir ? scandir(dir, &list, is_image, alphasort) : -1;
    json_t *out = json_array();
    for (int k = 0; k < n; k++) {
        struct image i;
        if (fill(&i, list[k]->d_name, NULL) == 0) {
            char *manifest = join(i.dir, "manifest.json");
            json_t *m = manifest ? jsonfile_read(manifest, NULL) : NULL;
            json_array_append_new(out, json_pack("{s:s, s:O?, s:O?, s:I}", "id", i.id, "created",
                                                 json_object_get(m, "created"), "kernel", json_object_get(m, "kernel"), "bytes",
                                                 (json_int_t)(size_of(i.base) + size_of(i.kernel))));
            json_decref(m);
            free(manifest);
        }
        image_finish(&i);
        free(list[k]);
    }
    if (n >= 0)
        free(list);
    free(dir);
    return out;
}

int image_remove(const char *id, struct err *e)
{
    struct image i;
    char **names;
    if (image_find(&i, id, e) < 0) {
        image_finish(&i);
        return -1;
    }
    int rc = 0, n = record_list(&names, e);
    for (int k = 0; k < n && rc == 0; k++) {
        struct record r;
        if (record_load(&r, names[k], NULL) == 0 && r.image && strcmp(r.image, id) == 0)
            rc = err_set(e, STATUS_FAILED, "image %s is used by sandbox %s; remove that first: sbx rm %s", id, names[k],
                         names[k]);
        record_finish(&r);
    }
    if (n >= 0)
        record_list_free(names, n);
    if (rc == 0)
        rc = path_remove_tree(i.dir, e);
    image_finish(&i);
    return rc;
}

/* Over everything that goes in, and how: a new sbx-guest or kernel is a new initramfs. */
static int content_hash(const struct image *i, const char *guest, char out[33], struct err *e)
{
    crypto_generichash_state h;
    unsigned char hash[16];
    unsigned char buf[65536];
    ssize_t n = -1;
    int fd = open(guest, O_RDONLY | O_CLOEXEC);
    crypto_generichash_init(&h, NULL, 0, sizeof hash);
    crypto_generichash_update(&h, (const unsigned char *)"2", 1);
    crypto_generichash_update(&h, (unsigned char *)i->id, strlen(i->id));
    while (fd >= 0 && (n = read(fd, buf, sizeof buf)) > 0)
        crypto_generichash_update(&h, buf, (size_t)n);
    if (n < 0)
        err_errno(e, errno, "cannot read %s", guest);
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return -1;
    crypto_generichash_final(&h, hash, sizeof hash);
    sodium_bin2hex(out, 33, hash, sizeof hash);
    return 0;
}

char *image_initrd_path(const struct image *i, struct err *e)
{
    char hash[33], *guest = path_guest_binary(e), *path = NULL;
    if (guest && content_hash(i, guest, hash, e) == 0)
        path = path_in(PATH_CACHE, e, "initrd/%s.cpio", hash);
    free(guest);
    return path;
}
