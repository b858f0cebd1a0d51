#include "vm/supervisor_image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log.h"
#include "core/paths.h"
#include "core/spawn.h"
#include "vm/image.h"
#include "vm/seed.h"

static int open_part(const char *path, struct err *e)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (path && fd < 0)
        err_errno(e, errno, "cannot open %s", path);
    return fd;
}

/* The supervisor's programs make what they need by the command, in a process that ends: no library for archives or
 * certificates stays in one that lives for days. */
static int by_command(const char *word, const char *id, struct err *e)
{
    char *self = path_command(e);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char *const argv[] = {(char *)"sbx", (char *)"image", (char *)word, (char *)id, NULL};
    const struct spawn_fd fds[] = {{null, 0}, {null, 1}};
    const struct spawn spawn = {.path = self, .argv = argv, .fds = fds, .nfds = 2, .die_with_parent = true};
    pid_t pid = self && null >= 0 ? spawn_run(&spawn, e) : -1;
    int rc = pid < 0                 ? -1
             : spawn_wait(pid) == 0 ? 0
                                    : err_set(e, STATUS_FAILED, "sbx image %s failed; its log says why", word);
    if (null >= 0)
        close(null);
    free(self);
    return rc;
}

static char *initrd_of(const struct image *i, struct err *e)
{
    char *path = image_initrd_path(i, e);
    if (path && access(path, R_OK) < 0 && by_command("pack", i->id, e) < 0) {
        free(path);
        path = NULL;
    }
    return path;
}

int image_open(const struct record *r, struct qemu *q, struct err *e)
{
    struct image i = {0};
    if (image_find(&i, r->image && r->image[0] ? r->image : NULL, e) < 0)
        return -1;
    char *initrd = initrd_of(&i, e);
    q->base = open_part(i.base, e);
    q->kernel = open_part(i.kernel, e);
    q->initrd = open_part(initrd, e);
    free(initrd);
    image_finish(&i);
    return q->base < 0 || q->kernel < 0 || q->initrd < 0 ? -1 : 0;
}

/* Files of assets/guest that every machine gets. */
static void add_own(json_t *files)
{
    static const struct {
        const char *asset, *path, *mode;
    } own[] = {{"guest/runc", "/usr/local/sbin/runc", "0755"}};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        char *path = path_asset(own[i].asset, NULL), text[16384];
        FILE *f = path ? fopen(path, "re") : NULL;
        size_t n = f ? fread(text, 1, sizeof text, f) : 0;
        if (n)
            json_array_append_new(files, json_pack("{s:s, s:s, s:s, s:s%}", "path", own[i].path, "mode", own[i].mode, "owner", "root",
                                                   "content", text, n));
        if (f)
            fclose(f);
        free(path);
    }
}

static json_t *seed(struct err *e)
{
    json_t *s = seed_kept();
    return !s && by_command("seed", NULL, e) == 0 ? seed_kept() : s;
}

void image_settle_seed(void)
{
    json_decref(seed(NULL));
}

json_t *image_seed_files(json_t *env)
{
    struct err e = {0};
    json_t *s = seed(&e);
    if (!s)
        log_line("the host's mirrors and authorities are not passed on: %s", e.text);
    json_t *files = json_copy(json_object_get(s, "files")), *vars = json_object_get(s, "env");
    if (json_is_array(files))
        add_own(files);
    if (vars)
        json_object_update(env, vars);
    json_decref(s);
    return json_is_array(files) ? files : json_array();
}
