#include "vm/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/record.h"
#include "core/spawn.h"

/* Runs a tool of the host to its end; its words go nowhere, its status counts. */
static int run(char *const argv[], struct err *e)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    struct spawn_fd fds[] = {{null, 0}, {null, 1}, {2, 2}};
    struct spawn s = {.path = argv[0], .argv = argv, .fds = fds, .nfds = 3, .die_with_parent = true};
    char path[4096];
    /* mkfs lies where an ordinary user's PATH does not look. */
    const char *old = getenv("PATH");
    snprintf(path, sizeof path, "%s:/usr/sbin:/sbin", old ? old : "/usr/bin:/bin");
    setenv("PATH", path, 1);
    pid_t pid = spawn_run(&s, e);
    if (null >= 0)
        close(null);
    if (pid < 0)
        return -1;
    int status = spawn_wait(pid);
    return status == 0 ? 0 : err_set(e, STATUS_FAILED, "%s failed with status %d", argv[0], status);
}

static char *blank_path(unsigned size_mib, struct err *e)
{
    return path_in(PATH_DATA, e, "templates/blank-%u.raw", size_mib);
}

/* An empty file system of that size.  It is sparse and holds zeros where mkfs would write zeros, so it takes
 * some 5 MiB and a hundredth of a second, and the guest has no inode tables to clear. */
static int ensure_blank(unsigned size_mib, struct err *e)
{
    char *path = blank_path(size_mib, e), *dir = path_in(PATH_DATA, e, "templates"), *tmp = NULL;
    struct stat st;
    int rc = -1, fd = -1, lock = -1;
    if (!path || !dir || path_mkdirs(dir, 0700, e) < 0)
        goto out;
    if (stat(path, &st) == 0) {
        rc = 0;
        goto out;
    }
    if ((lock = jsonfile_lock(path, e)) < 0)
        goto out;
    if (stat(path, &st) == 0) {
        rc = 0;
        goto out;
    }
    if (asprintf(&tmp, "%s.new", path) < 0) {
        tmp = NULL;
        err_set(e, STATUS_FAILED, "out of memory");
        goto out;
    }
    unlink(tmp);
    fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size_mib << 20) < 0) {
        err_errno(e, errno, "cannot make %s", tmp);
        goto out;
    }
    char *argv[] = {(char *)"mkfs.ext4", (char *)"-q", (char *)"-F", (char *)"-m", (char *)"0", (char *)"-L",
                    (char *)"sbx", (char *)"-O", (char *)"^metadata_csum_seed", (char *)"-E",
                    (char *)"assume_storage_prezeroed=1,lazy_itable_init=0,lazy_journal_init=0,nodiscard",
                    tmp, NULL};
    if (run(argv, e) < 0 || fchmod(fd, 0400) < 0 || rename(tmp, path) < 0) {
        unlink(tmp);
        err_wrap(e, "cannot make an empty disk");
        goto out;
    }
    rc = 0;
out:
    if (fd >= 0)
        close(fd);
    if (lock >= 0)
        close(lock);
    free(tmp);
    free(dir);
    free(path);
    return rc;
}

static char *template_disk(const char *name, struct err *e)
{
    return path_in(PATH_DATA, e, "templates/%s/disk", name);
}

/* A new copy-on-write child at path, of the template or the blank disk. */
static int make_child(const char *path, const char *template, unsigned size_mib, struct err *e)
{
    char *parent = template ? template_disk(template, e) : blank_path(size_mib, e), size[32];
    int rc = -1;
    if (!parent)
        return -1;
    if (access(parent, R_OK) != 0) {
        err_set(e, STATUS_NOT_FOUND, "there is no template named %s; sbx template ls lists them", template);
        goto out;
    }
    unlink(path);
    snprintf(size, sizeof size, "%uM", size_mib);
    char *argv[] = {(char *)"qemu-img", (char *)"create", (char *)"-q", (char *)"-f", (char *)"qcow2",
                    (char *)"-u", (char *)"-b", parent, (char *)"-F",
                    (char *)(template ? "qcow2" : "raw"), (char *)path, size, NULL};
    if (run(argv, e) < 0 || chmod(path, 0600) < 0) {
        unlink(path);
        err_wrap(e, "cannot make a disk");
        goto out;
    }
    rc = 0;
out:
    free(parent);
    return rc;
}

bool disk_exists(const char *name)
{
    char *path = path_sandbox(name, "disk", NULL);
    bool there = path && access(path, F_OK) == 0;
    free(path);
    return there;
}

/* What a former disk held is not on the new one. */
static void forget_seed(const char *name)
{
    char *seeded = path_sandbox(name, "seeded.json", NULL);
    if (seeded)
        unlink(seeded);
    free(seeded);
}

int disk_ensure(const char *name, const char *template, unsigned size_mib, struct err *e)
{
    char *path = path_sandbox(name, "disk", e), *tmp = NULL;
    int rc = -1;
    if (!path || ensure_blank(size_mib, e) < 0)
        goto out;
    if (access(path, F_OK) == 0) {
        rc = 0;
        goto out;
    }
    if (asprintf(&tmp, "%s.new", path) < 0) {
        tmp = NULL;
        err_set(e, STATUS_FAILED, "out of memory");
        goto out;
    }
    forget_seed(name);
    if (make_child(tmp, template, size_mib, e) < 0)
        goto out;
    if (rename(tmp, path) < 0) {
        err_errno(e, errno, "cannot make the disk of %s", name);
        unlink(tmp);
        goto out;
    }
    rc = 0;
out:
    free(tmp);
    free(path);
    return rc;
}

void disk_close(struct qemu_disk *disks, int n)
{
    for (int i = 0; i < n; i++)
        if (disks[i].fd >= 0)
            close(disks[i].fd);
}

static int open_one(struct qemu_disk *out, char *path, int flags, bool qcow2, struct err *e)
{
    if (!path)
        return -1;
    out->fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW);
    out->qcow2 = qcow2;
    int rc = out->fd < 0 ? err_errno(e, errno, "cannot open the disk %s", path) : 0;
    free(path);
    return rc;
}

/* Appends the chain from `template` down to the blank disk. */
static int open_chain(int n, const char *template, unsigned size_mib, struct qemu_disk out[QEMU_DISKS_MAX],
                      struct err *e)
{
    char *at = template ? strdup(template) : NULL;
    while (at && n < QEMU_DISKS_MAX - 1) {
        json_t *t = template_load(at, e);
        const char *parent = json_string_value(json_object_get(t, "parent"));
        size_mib = (unsigned)json_integer_value(json_object_get(t, "disk_mib"));
        char *next = parent ? strdup(parent) : NULL;
        if (!t || open_one(&out[n], template_disk(at, e), O_RDONLY, true, e) < 0) {
            json_decref(t);
            free(next);
            free(at);
            disk_close(out, n);
            return -1;
        }
        n++;
        json_decref(t);
        free(at);
        at = next;
    }
    if (at) {
        free(at);
        disk_close(out, n);
        return err_set(e, STATUS_FAILED, "too many templates are built on each other");
    }
    if (ensure_blank(size_mib, e) < 0 || open_one(&out[n], blank_path(size_mib, e), O_RDONLY, false, e) < 0) {
        disk_close(out, n);
        return -1;
    }
    return n + 1;
}

int disk_open(const char *name, const char *template, unsigned size_mib, struct qemu_disk out[QEMU_DISKS_MAX],
              struct err *e)
{
    if (open_one(&out[0], path_sandbox(name, "disk", e), O_RDWR, true, e) < 0)
        return -1;
    return open_chain(1, template, size_mib, out, e);
}

int disk_open_own(const char *name, struct qemu_disk *out, struct err *e)
{
    return open_one(out, path_sandbox(name, "disk", e), O_RDWR, true, e);
}

int disk_open_parents(const char *template, unsigned size_mib, struct qemu_disk out[QEMU_DISKS_MAX], struct err *e)
{
    out[0] = (struct qemu_disk){.fd = -1, .qcow2 = true};
    return open_chain(1, template, size_mib, out, e);
}

static char *layer_path(const char *key, struct err *e)
{
    return path_in(PATH_CACHE, e, "disks/%s", key);
}

int disk_layer_new(const char *template, unsigned size_mib, struct qemu_disk *out, char **path, struct err *e)
{
    char *dir = path_in(PATH_CACHE, e, "disks"), *tmp = NULL;
    int rc = -1;
    if (!dir || path_mkdirs(dir, 0700, e) < 0 || ensure_blank(size_mib, e) < 0)
        goto out;
    if (asprintf(&tmp, "%s/%ld.new", dir, (long)getpid()) < 0) {
        tmp = NULL;
        err_set(e, STATUS_FAILED, "out of memory");
        goto out;
    }
    char *name = make_child(tmp, template, size_mib, e) == 0 ? strdup(tmp) : NULL;
    if (!name || open_one(out, name, O_RDWR, true, e) < 0)
        goto out;
    *path = tmp;
    tmp = NULL;
    rc = 0;
out:
    if (rc < 0 && tmp)
        unlink(tmp);
    free(tmp);
    free(dir);
    return rc;
}

int disk_layer_keep(const char *path, const char *key, struct err *e)
{
    char *to = layer_path(key, e);
    int rc = to ? 0 : -1;
    if (to && (chmod(path, 0400) < 0 || rename(path, to) < 0))
        rc = err_errno(e, errno, "cannot keep %s", to);
    free(to);
    return rc;
}

bool disk_layer_exists(const char *key)
{
    char *path = layer_path(key, NULL);
    bool there = path && access(path, R_OK) == 0;
    free(path);
    return there;
}

int disk_from_layer(const char *name, const char *key, struct err *e)
{
    char *from = layer_path(key, e), *to = path_sandbox(name, "disk", e), *tmp = NULL;
    int rc = -1;
    if (!from || !to || asprintf(&tmp, "%s.new", to) < 0)
        goto out;
    unlink(tmp);
    forget_seed(name);
    if (disk_copy(from, tmp, false, e) < 0)
        goto out;
    if (rename(tmp, to) < 0) {
        err_errno(e, errno, "cannot make the disk of %s", name);
        goto out;
    }
    rc = 0;
out:
    if (rc < 0 && tmp)
        unlink(tmp);
    free(tmp);
    free(to);
    free(from);
    return rc;
}

void disk_layers_clean(void)
{
    char *dir = path_in(PATH_CACHE, NULL, "disks");
    DIR *d = dir ? opendir(dir) : NULL;
    struct dirent *ent;
    while (d && (ent = readdir(d))) {
        struct stat st;
        char *machine = ent->d_name[0] == '.' ? NULL : path_in(PATH_CACHE, NULL, "machines/%s", ent->d_name);
        /* One that was just made has its machine written beside it at this moment. */
        if (machine && access(machine, F_OK) != 0 && fstatat(dirfd(d), ent->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_ctime < time(NULL) - 600)
            unlinkat(dirfd(d), ent->d_name, 0);
        free(machine);
    }
    if (d)
        closedir(d);
    free(dir);
}

int disk_open_blank(unsigned size_mib, struct qemu_disk out[QEMU_DISKS_MAX], struct err *e)
{
    if (ensure_blank(size_mib, e) < 0)
        return -1;
    /* The machine that is frozen does not touch its disk before `configure`; a sparse file of the same size, gone
     * when it is closed, is all that it needs. */
    char *dir = path_in(PATH_CACHE, e, "%s", "");
    if (!dir)
        return -1;
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size_mib << 20) < 0) {
        err_errno(e, errno, "cannot make a temporary file in %s", dir);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    free(dir);
    out[0] = (struct qemu_disk){fd, false};
    return fd < 0 ? -1 : 1;
}
