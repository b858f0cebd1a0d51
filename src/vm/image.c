#include "vm/image.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/mirrors.h"
#include "core/paths.h"
#include "core/record.h"
#include "core/spawn.h"

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

/* ---- building ---- */

struct build {
    image_progress_fn *progress;
    void *arg;
    char line[512];
    size_t len;
};

static void take_progress(struct build *b, const char *buf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (buf[i] != '\n') {
            if (b->len < sizeof b->line - 1)
                b->line[b->len++] = buf[i];
            continue;
        }
        b->line[b->len] = '\0';
        b->len = 0;
        double fraction;
        int at = 0;
        if (sscanf(b->line, "progress %lf %n", &fraction, &at) == 1 && at && b->progress)
            b->progress(fraction, b->line + at, b->arg);
    }
}

static int write_text(const char *dir, const char *name, const char *text, struct err *e)
{
    char *path = join(dir, name);
    int rc = path ? file_replace(path, text, strlen(text), 0644, e) : -1;
    free(path);
    return rc;
}

/* Runs assets/image/build; its complaints end up in e. */
static int run_recipe(const char *dir, struct build *b, struct err *e)
{
    char *script = path_asset("image/build", e), *sources = mirrors_apt_sources(IMAGE_SUITE, e), *options = mirrors_apt_options();
    char *sources_file = join(dir, "sources.list"), *options_file = join(dir, "apt.conf");
    int rc = -1, status[2] = {-1, -1}, errors[2] = {-1, -1};
    char complaint[600] = "";
    size_t used = 0;
    if (!script || !sources || !options || !sources_file || !options_file || write_text(dir, "sources.list", sources, e) < 0 ||
        write_text(dir, "apt.conf", options, e) < 0)
        goto out;
    if (pipe2(status, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) {
        err_errno(e, errno, "cannot build the image");
        goto out;
    }
    char *argv[] = {script, (char *)dir, (char *)IMAGE_SUITE, sources_file, options_file, NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct spawn_fd fds[] = {{null, 0}, {errors[1], 1}, {errors[1], 2}, {status[1], 3}};
    struct spawn s = {.path = script, .argv = argv, .fds = fds, .nfds = 4, .die_with_parent = true};
    pid_t pid = spawn_run(&s, e);
    close(null);
    close(status[1]);
    close(errors[1]);
    status[1] = errors[1] = -1;
    if (pid < 0)
        goto out;
    struct pollfd p[2] = {{.fd = status[0], .events = POLLIN}, {.fd = errors[0], .events = POLLIN}};
    while (p[0].fd >= 0 || p[1].fd >= 0) {
        char buf[4096];
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            break;
        for (int i = 0; i < 2; i++) {
            if (!(p[i].revents & (POLLIN | POLLHUP)))
                continue;
            ssize_t n = read(p[i].fd, buf, sizeof buf);
            if (n <= 0) {
                p[i].fd = -1;
            } else if (i == 0) {
                take_progress(b, buf, (size_t)n);
            } else { /* the last words are what matters */
                size_t keep = (size_t)n < sizeof complaint - 1 ? (size_t)n : sizeof complaint - 1;
                if (used + keep > sizeof complaint - 1) {
                    size_t drop = used + keep - (sizeof complaint - 1);
                    memmove(complaint, complaint + drop, used - drop);
                    used -= drop;
                }
                memcpy(complaint + used, buf + (size_t)n - keep, keep);
                used += keep;
                complaint[used] = '\0';
            }
        }
    }
    int code = spawn_wait(pid);
    if (code == 0) {
        rc = 0;
    } else {
        for (char *c = complaint; *c; c++)
            if (*c == '\n')
                *c = ' ';
        err_set(e, STATUS_FAILED, "the base image could not be built: %s%s", used ? complaint : "mmdebstrap failed",
                geteuid() ? " (an ordinary user needs subordinate ids: sudo usermod --add-subuids 100000-165535 "
                            "--add-subgids 100000-165535 $USER)"
                          : "");
    }
out:
    for (int i = 0; i < 2; i++) {
        if (status[i] >= 0)
            close(status[i]);
        if (errors[i] >= 0)
            close(errors[i]);
    }
    free(script);
    free(sources);
    free(options);
    free(sources_file);
    free(options_file);
    return rc;
}

static void clear_unfinished(const char *images)
{
    DIR *d = opendir(images);
    struct dirent *ent;
    while (d && (ent = readdir(d)))
        if (strncmp(ent->d_name, ".making-", 8) == 0) {
            char *path = join(images, ent->d_name);
            if (path)
                path_remove_tree(path, NULL);
            free(path);
        }
    if (d)
        closedir(d);
}

static int write_manifest(const char *dir, struct err *e)
{
    char *version_file = join(dir, "version"), *path = join(dir, "manifest.json"), version[128] = "";
    FILE *f = version_file ? fopen(version_file, "re") : NULL;
    if (f) {
        if (!fgets(version, sizeof version, f))
            version[0] = '\0';
        fclose(f);
    }
    version[strcspn(version, "\n")] = '\0';
    json_t *o = json_pack("{s:i, s:s, s:s, s:I}", "version", 1, "suite", IMAGE_SUITE, "kernel", version, "created",
                          (json_int_t)time(NULL));
    int rc = path && o ? jsonfile_write(path, o, 0644, e) : -1;
    json_decref(o);
    free(version_file);
    free(path);
    return rc;
}

int image_build(image_progress_fn *progress, void *arg, struct err *e)
{
    struct build b = {.progress = progress, .arg = arg};
    char *images = path_in(PATH_DATA, e, "images"), *lock_path = images ? join(images, "build") : NULL;
    char *tmp = NULL, *final = NULL;
    int lock = -1, rc = -1;
    struct timespec before, after;
    if (!lock_path || path_mkdirs(images, 0755, e) < 0)
        goto out;
    clock_gettime(CLOCK_MONOTONIC, &before);
    lock = jsonfile_lock(lock_path, e);
    if (lock < 0)
        goto out;
    clock_gettime(CLOCK_MONOTONIC, &after);
    if (after.tv_sec - before.tv_sec >= 5) { /* somebody else built while we waited */
        struct image i;
        rc = image_find(&i, NULL, NULL);
        image_finish(&i);
        if (rc == 0)
            goto out;
        rc = -1;
    }
    clear_unfinished(images);
    char stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
    if (asprintf(&tmp, "%s/.making-%s", images, stamp) < 0 || asprintf(&final, "%s/" IMAGE_SUITE "-%s", images, stamp) < 0) {
        err_set(e, STATUS_FAILED, "out of memory");
        goto out;
    }
    if (path_mkdirs(tmp, 0755, e) < 0 || run_recipe(tmp, &b, e) < 0 || write_manifest(tmp, e) < 0)
        goto out;
    if (rename(tmp, final) < 0) {
        err_errno(e, errno, "cannot put the image into place");
        goto out;
    }
    rc = 0;
out:
    if (rc < 0 && tmp)
        path_remove_tree(tmp, NULL);
    if (lock >= 0)
        close(lock);
    free(tmp);
    free(final);
    free(lock_path);
    free(images);
    return rc;
}

/* ---- listing and removing ---- */

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

/* ---- the initramfs ---- */

static char *slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "re");
    struct stat st;
    char *p = NULL;
    if (f && fstat(fileno(f), &st) == 0 && (p = malloc((size_t)st.st_size + 1))) {
        *len = fread(p, 1, (size_t)st.st_size, f);
        if (*len != (size_t)st.st_size) {
            free(p);
            p = NULL;
        }
    }
    if (f)
        fclose(f);
    return p;
}

static int put_file(struct archive *a, const char *name, const char *from, mode_t mode, struct err *e)
{
    size_t len = 0;
    char *data = slurp(from, &len);
    if (!data)
        return err_errno(e, errno, "cannot read %s", from);
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, mode);
    archive_entry_set_size(entry, (la_int64_t)len);
    int rc = archive_write_header(a, entry) == ARCHIVE_OK && archive_write_data(a, data, len) == (la_ssize_t)len
                 ? 0
                 : err_set(e, STATUS_FAILED, "cannot make the initramfs: %s", archive_error_string(a));
    archive_entry_free(entry);
    free(data);
    return rc;
}

static int put_special(struct archive *a, const char *name, unsigned type, unsigned major, unsigned minor, mode_t mode)
{
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, mode);
    archive_entry_set_size(entry, 0); /* the newc writer insists */
    if (type == AE_IFCHR) {
        archive_entry_set_rdevmajor(entry, major);
        archive_entry_set_rdevminor(entry, minor);
    }
    int rc = archive_write_header(a, entry);
    archive_entry_free(entry);
    return rc == ARCHIVE_OK ? 0 : -1;
}

static int not_dot(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

/* Over everything that goes in: a new sbx-guest or kernel is a new initramfs. */
static int content_hash(const struct image *i, const char *guest, char out[33], struct err *e)
{
    crypto_generichash_state h;
    unsigned char hash[16];
    size_t len = 0;
    char *data = slurp(guest, &len);
    if (!data)
        return err_errno(e, errno, "cannot read %s", guest);
    crypto_generichash_init(&h, NULL, 0, sizeof hash);
    crypto_generichash_update(&h, (unsigned char *)i->id, strlen(i->id));
    crypto_generichash_update(&h, (unsigned char *)data, len);
    crypto_generichash_final(&h, hash, sizeof hash);
    free(data);
    sodium_bin2hex(out, 33, hash, sizeof hash);
    return 0;
}

static int write_initrd(const struct image *i, const char *guest, const char *path, struct err *e)
{
    struct dirent **list = NULL;
    struct archive *a = archive_write_new();
    int rc = -1, n = scandir(i->modules, &list, not_dot, alphasort);
    archive_write_set_format_cpio_newc(a);
    if (n < 0) {
        err_errno(e, errno, "cannot read %s", i->modules);
        goto out;
    }
    if (archive_write_open_filename(a, path) != ARCHIVE_OK) {
        err_set(e, STATUS_FAILED, "cannot write %s: %s", path, archive_error_string(a));
        goto out;
    }
    if (put_special(a, "dev", AE_IFDIR, 0, 0, 0755) < 0 || put_special(a, "dev/console", AE_IFCHR, 5, 1, 0600) < 0 ||
        put_special(a, "modules", AE_IFDIR, 0, 0, 0755) < 0 || put_file(a, "init", guest, 0755, e) < 0)
        goto out;
    for (int k = 0; k < n; k++) {
        char name[300], *from = join(i->modules, list[k]->d_name);
        snprintf(name, sizeof name, "modules/%s", list[k]->d_name);
        int r = from ? put_file(a, name, from, 0644, e) : -1;
        free(from);
        if (r < 0)
            goto out;
    }
    rc = archive_write_close(a) == ARCHIVE_OK ? 0 : err_set(e, STATUS_FAILED, "cannot write %s: %s", path, archive_error_string(a));
out:
    archive_write_free(a);
    for (int k = 0; k < n; k++)
        free(list[k]);
    free(list);
    return rc;
}

char *image_initrd(const struct image *i, struct err *e)
{
    char hash[33], *guest = path_guest_binary(e), *path = NULL, *tmp = NULL, *dir = NULL;
    if (!guest || content_hash(i, guest, hash, e) < 0)
        goto fail;
    path = path_in(PATH_CACHE, e, "initrd/%s.cpio", hash);
    dir = path_in(PATH_CACHE, e, "initrd");
    if (!path || !dir)
        goto fail;
    if (access(path, R_OK) == 0)
        goto out;
    if (path_mkdirs(dir, 0700, e) < 0 || asprintf(&tmp, "%s.%d", path, (int)getpid()) < 0)
        goto fail;
    if (write_initrd(i, guest, tmp, e) < 0 || rename(tmp, path) < 0) {
        unlink(tmp);
        goto fail;
    }
    goto out;
fail:
    free(path);
    path = NULL;
out:
    free(tmp);
    free(dir);
    free(guest);
    return path;
}
