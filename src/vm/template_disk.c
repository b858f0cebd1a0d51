#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/record.h"
#include "vm/disk.h"

#define NAME_MAX_LEN 100

int template_check_name(const char *name, struct err *e)
{
    size_t n = strlen(name);
    unsigned colons = 0;
    bool good = n > 0 && n <= NAME_MAX_LEN && isalnum((unsigned char)name[0]) && strncmp(name, "blank-", 6) != 0;
    for (size_t i = 0; good && i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        colons += c == ':';
        good = c < 128 && (isalnum(c) || strchr("-_.:", c)) && colons <= 1;
    }
    return good && name[n - 1] != ':'
               ? 0
               : err_set(e, STATUS_USAGE, "a template is named with letters, digits, '-', '_' and '.', and may have "
                                          "one ':' before a version, not \"%.100s\"", name);
}

json_t *template_load(const char *name, struct err *e)
{
    if (template_check_name(name, e) < 0)
        return NULL;
    char *path = path_in(PATH_DATA, e, "templates/%s/template.json", name);
    struct err why = {0};
    json_t *o = path ? jsonfile_read(path, &why) : NULL;
    free(path);
    if (!o && why.status == STATUS_NOT_FOUND)
        err_set(e, STATUS_NOT_FOUND, "there is no template named %s; sbx template ls lists them", name);
    else if (!o && why.status && e)
        *e = why;
    return o;
}

/* Copies [*src, *src + len) of one file to the same place of another; the kernel does it itself where it can (not from
 * one file system to another before Linux 5.19, nor on every one since). */
static ssize_t copy_some(int in, int out, off_t *at, size_t len)
{
    static char buf[256 * 1024];
    off_t dst = *at;
    ssize_t n = copy_file_range(in, at, out, &dst, len, 0);
    if (n >= 0 || (errno != EXDEV && errno != ENOSYS && errno != EINVAL && errno != EOPNOTSUPP))
        return n;
    n = pread(in, buf, len < sizeof buf ? len : sizeof buf, *at);
    if (n > 0 && (n = pwrite(out, buf, (size_t)n, *at)) > 0)
        *at += n;
    return n;
}

int disk_copy(const char *from, const char *to, bool durable, struct err *e)
{
    int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), out = -1, rc = -1;
    struct stat st;
    if (in < 0 || fstat(in, &st) < 0 || (out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0) {
        err_errno(e, errno, "cannot copy %s", from);
        goto out;
    }
    if (ioctl(out, FICLONE, in) == 0) {
        rc = 0;
        goto out;
    }
    if (ftruncate(out, st.st_size) < 0)
        goto failed;
    for (off_t at = 0; at < st.st_size;) {
        off_t data = lseek(in, at, SEEK_DATA), end = data < 0 ? -1 : lseek(in, data, SEEK_HOLE);
        if (data < 0 && errno == ENXIO)
            break;
        if (end < 0)
            goto failed;
        for (off_t src = data; src < end;)
            if (copy_some(in, out, &src, (size_t)(end - src)) <= 0)
                goto failed;
        at = end;
    }
    rc = durable ? fsync(out) : 0;
failed:
    if (rc < 0)
        err_errno(e, errno, "cannot copy %s", from);
out:
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return rc;
}

/* What is being made, or removed, is named NAME.new-PID: left over if that process is gone. */
void template_sweep(void)
{
    char *dir = path_in(PATH_DATA, NULL, "templates");
    DIR *d = dir ? opendir(dir) : NULL;
    struct dirent *ent;
    while (d && (ent = readdir(d))) {
        const char *mark = strstr(ent->d_name, ".new-");
        char path[4096];
        long pid = mark ? atol(mark + 5) : 0;
        if (pid > 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH &&
            (size_t)snprintf(path, sizeof path, "%s/%s", dir, ent->d_name) < sizeof path)
            path_remove_tree(path, NULL);
    }
    if (d)
        closedir(d);
    free(dir);
}

/* Made beside and renamed: a template is there whole or not at all. */
static int keep(const char *sandbox, const char *to, const json_t *note, bool move, struct err *e)
{
    struct record r;
    char *dir = NULL, *tmp = NULL, *disk = NULL, *copy = NULL, *file = NULL;
    json_t *o = NULL;
    int rc = -1;
    if (template_check_name(to, e) < 0)
        return -1;
    record_init(&r);
    if (record_load(&r, sandbox, e) < 0)
        goto out;
    dir = path_in(PATH_DATA, e, "templates/%s", to);
    disk = path_sandbox(sandbox, "disk", e);
    if (!dir || !disk)
        goto out;
    template_sweep();
    if (access(dir, F_OK) == 0) {
        err_set(e, STATUS_USAGE, "there is a template named %s already; sbx template rm %s removes it", to, to);
        goto out;
    }
    if (access(disk, F_OK) != 0) {
        err_set(e, STATUS_USAGE, "%s was never started: there is nothing to save", sandbox);
        goto out;
    }
    if (asprintf(&tmp, "%s.new-%ld", dir, (long)getpid()) < 0 || asprintf(&copy, "%s/disk", tmp) < 0 ||
        asprintf(&file, "%s/template.json", tmp) < 0 || path_mkdirs(tmp, 0700, e) < 0)
        goto out;
    o = json_pack("{s:i, s:s, s:s, s:s, s:i, s:I}", "version", 1, "name", to, "agent", r.agent ? r.agent : "", "image",
                  r.image ? r.image : "", "disk_mib", (int)r.disk_mib, "created", (json_int_t)time(NULL));
    if (o && r.template)
        json_object_set_new(o, "parent", json_string(r.template));
    if (o && note)
        json_object_set_new(o, "note", json_deep_copy(note));
    if (!o || jsonfile_write(file, o, 0600, e) < 0)
        goto out;
    if (move ? rename(disk, copy) < 0 && err_errno(e, errno, "cannot move %s", disk) < 0 : disk_copy(disk, copy, true, e) < 0)
        goto out;
    /* Children depend on it from now on. */
    if (chmod(copy, 0400) < 0 || rename(tmp, dir) < 0) {
        err_errno(e, errno, "cannot keep the template %s", to);
        if (move)
            (void)!rename(copy, disk);
        goto out;
    }
    rc = 0;
out:
    if (rc < 0 && tmp)
        path_remove_tree(tmp, NULL);
    json_decref(o);
    free(file);
    free(copy);
    free(tmp);
    free(disk);
    free(dir);
    record_finish(&r);
    return rc;
}

int template_save(const char *sandbox, const char *to, const json_t *note, struct err *e)
{
    return keep(sandbox, to, note, false, e);
}

int template_freeze(const char *sandbox, const char *to, const json_t *note, struct err *e)
{
    return keep(sandbox, to, note, true, e);
}

/* Names of templates; NULL-terminated, to be freed one by one. */
static char **names(void)
{
    char *dir = path_in(PATH_DATA, NULL, "templates");
    struct dirent **list = NULL;
    int n = dir ? scandir(dir, &list, NULL, alphasort) : -1, k = 0;
    char **out = calloc((size_t)(n > 0 ? n : 0) + 1, sizeof *out);
    for (int i = 0; i < n; i++) {
        if (out && template_check_name(list[i]->d_name, NULL) == 0 && !strstr(list[i]->d_name, ".new-"))
            out[k++] = strdup(list[i]->d_name);
        free(list[i]);
    }
    free(list);
    free(dir);
    return out;
}

static void add_users(json_t *used, const char *name, char *const *templates)
{
    char **sandboxes = NULL;
    int n = record_list(&sandboxes, NULL);
    for (int i = 0; i < n; i++) {
        struct record r;
        record_init(&r);
        if (record_load(&r, sandboxes[i], NULL) == 0 && r.template && strcmp(r.template, name) == 0)
            json_array_append_new(used, json_string(sandboxes[i]));
        record_finish(&r);
    }
    if (n >= 0)
        record_list_free(sandboxes, n);
    for (; *templates; templates++) {
        json_t *t = template_load(*templates, NULL);
        const char *parent = json_string_value(json_object_get(t, "parent"));
        if (parent && strcmp(parent, name) == 0)
            json_array_append_new(used, json_sprintf("template %s", *templates));
        json_decref(t);
    }
}

json_t *template_list(struct err *e)
{
    char **all = names();
    json_t *a = all ? json_array() : NULL;
    if (!a)
        err_set(e, STATUS_FAILED, "out of memory");
    for (char **p = all; a && *p; p++) {
        json_t *t = template_load(*p, NULL);
        char *disk = path_in(PATH_DATA, NULL, "templates/%s/disk", *p);
        struct stat st;
        if (t && disk && stat(disk, &st) == 0) {
            json_t *used = json_array();
            add_users(used, *p, all);
            json_object_set_new(t, "name", json_string(*p));
            json_object_set_new(t, "size_kib", json_integer((json_int_t)st.st_blocks / 2));
            json_object_set_new(t, "used_by", used);
            json_array_append(a, t);
        }
        json_decref(t);
        free(disk);
    }
    for (char **p = all; p && *p; p++)
        free(*p);
    free(all);
    return a;
}

int template_remove(const char *name, struct err *e)
{
    json_t *t = template_load(name, e);
    char **all = t ? names() : NULL;
    char *dir = path_in(PATH_DATA, e, "templates/%s", name);
    json_t *used = json_array();
    int rc = -1;
    if (all && dir && used) {
        char *gone = NULL;
        add_users(used, name, all);
        const char *who = json_string_value(json_array_get(used, 0));
        rc = who ? err_set(e, STATUS_USAGE, "%s is in use by %s%s; remove that first", name, who,
                           json_array_size(used) > 1 ? " and others" : "")
             : asprintf(&gone, "%s.new-%ld", dir, (long)getpid()) < 0 ? err_set(e, STATUS_FAILED, "out of memory")
             : rename(dir, gone) < 0 ? err_errno(e, errno, "cannot remove %s", dir)
                                     : path_remove_tree(gone, e);
        free(gone);
    }
    for (char **p = all; p && *p; p++)
        free(*p);
    free(all);
    json_decref(used);
    json_decref(t);
    free(dir);
    return rc;
}
