#include "core/jsonfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

json_t *jsonfile_read(const char *path, struct err *e)
{
    json_t *value = NULL;
    char *text = NULL;
    size_t used = 0;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        /* A link that leads nowhere (a volume that is not mounted) is no file that was never written. */
        int why = errno, missing = why == ENOENT && (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode));
        err_errno(e, why, "cannot read %s", path);
        if (missing && e)
            e->status = STATUS_NOT_FOUND;
        return NULL;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        err_set(e, STATUS_FAILED, "%s is not a regular file", path);
        goto out;
    }
    if (st.st_size > (off_t)JSONFILE_MAX) {
        err_set(e, STATUS_FAILED, "%s is larger than %u bytes", path, JSONFILE_MAX);
        goto out;
    }
    text = malloc(JSONFILE_MAX + 1);
    if (!text) {
        err_set(e, STATUS_FAILED, "out of memory");
        goto out;
    }
    for (;;) {
        ssize_t n = read(fd, text + used, JSONFILE_MAX + 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_errno(e, errno, "cannot read %s", path);
            goto out;
        }
        if (n == 0)
            break;
        used += (size_t)n;
        if (used > JSONFILE_MAX) {
            err_set(e, STATUS_FAILED, "%s is larger than %u bytes", path, JSONFILE_MAX);
            goto out;
        }
    }
    json_error_t je;
    value = json_loadb(text, used, JSON_REJECT_DUPLICATES, &je);
    if (!value) {
        err_set(e, STATUS_FAILED, "%s: line %d, column %d: %s", path, je.line, je.column, je.text);
    } else if (!json_is_object(value)) {
        err_set(e, STATUS_FAILED, "%s: not a JSON object", path);
        json_decref(value);
        value = NULL;
    }
out:
    free(text);
    close(fd);
    return value;
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -1;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

int file_replace(const char *path, const void *data, size_t len, mode_t mode, struct err *e)
{
    char *tmp;
    if (asprintf(&tmp, "%s.XXXXXX", path) < 0)
        return err_set(e, STATUS_FAILED, "out of memory");
    int fd = mkostemp(tmp, O_CLOEXEC);
    int r = -1;
    if (fd < 0) {
        err_errno(e, errno, "cannot write %s", path);
        free(tmp);
        return -1;
    }
    if (fchmod(fd, mode) < 0 || write_all(fd, data, len) < 0 || fsync(fd) < 0)
        err_errno(e, errno, "cannot write %s", path);
    else if (rename(tmp, path) < 0)
        err_errno(e, errno, "cannot replace %s", path);
    else
        r = 0;
    close(fd);
    if (r < 0)
        unlink(tmp);
    free(tmp);
    return r;
}

int jsonfile_write(const char *path, const json_t *value, mode_t mode, struct err *e)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    size_t n = text ? strlen(text) : 0;
    char *line = text ? realloc(text, n + 2) : NULL;
    if (!line) {
        free(text);
        return err_set(e, STATUS_FAILED, "out of memory");
    }
    line[n] = '\n';
    int r = file_replace(path, line, n + 1, mode, e);
    free(line);
    return r;
}

int jsonfile_lock(const char *path, struct err *e)
{
    char *name;
    if (asprintf(&name, "%s.lock", path) < 0)
        return err_set(e, STATUS_FAILED, "out of memory");
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        err_errno(e, errno, "cannot open %s", name);
    while (fd >= 0 && flock(fd, LOCK_EX) < 0) {
        if (errno == EINTR)
            continue;
        err_errno(e, errno, "cannot lock %s", name);
        close(fd);
        fd = -1;
    }
    free(name);
    return fd;
}
