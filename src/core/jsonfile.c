#include "core/jsonfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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

/* The text of a file; length to *n. */
static char *dump(const json_t *value, size_t *n, struct err *e)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    *n = text ? strlen(text) : 0;
    char *line = text ? realloc(text, *n + 2) : NULL;
    if (!line) {
        free(text);
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    line[(*n)++] = '\n';
    return line;
}

int jsonfile_write(const char *path, const json_t *value, mode_t mode, struct err *e)
{
    size_t n;
    char *text = dump(value, &n, e);
    int r = text ? file_replace(path, text, n, mode, e) : -1;
    free(text);
    return r;
}

bool path_holds_home(const char *dir)
{
    char home[PATH_MAX];
    const char *said = getenv("HOME");
    size_t n = strlen(dir);
    return !said || !realpath(said, home) || (strncmp(home, dir, n) == 0 && (home[n] == '\0' || home[n] == '/' || (n == 1 && dir[0] == '/')));
}

/* What a link leads to, which need not be there yet; path itself if it is none. */
static int follow(const char *path, char out[PATH_MAX])
{
    char to[PATH_MAX];
    struct stat st;
    if ((size_t)snprintf(out, PATH_MAX, "%s", path) >= PATH_MAX)
        return -1;
    for (int hops = 0; lstat(out, &st) == 0 && S_ISLNK(st.st_mode); hops++) {
        ssize_t n = readlink(out, to, sizeof to - 1);
        size_t dir = strrchr(out, '/') ? (size_t)(strrchr(out, '/') - out) + 1 : 0;
        if (n <= 0 || hops == 40 || dir + (size_t)n >= PATH_MAX)
            return -1;
        to[n] = '\0';
        strcpy(to[0] == '/' ? out : out + dir, to);
    }
    return 0;
}

/* In place, for who may read this file and not its folder.  One write, as long as what was there: no kill leaves half of it. */
static int overwrite(const char *path, char **text, size_t n, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), r = -1;
    size_t most = n;
    if (fd < 0)
        return err_errno(e, errno, "cannot write %s", path);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= (off_t)JSONFILE_MAX) {
        most = (size_t)st.st_size > n ? (size_t)st.st_size : n;
        char *more = realloc(*text, most);
        if (more) {
            *text = more;
            memset(more + n, '\n', most - n);
            r = pwrite(fd, more, most, 0) == (ssize_t)most && ftruncate(fd, (off_t)n) == 0 && fsync(fd) == 0 ? 0 : -1;
        }
    }
    if (r < 0)
        err_errno(e, errno, "cannot write %s", path);
    close(fd);
    return r;
}

int jsonfile_update(const char *path, const json_t *value, mode_t mode, struct err *e)
{
    char to[PATH_MAX], dir[PATH_MAX];
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
        return jsonfile_write(path, value, mode, e);
    if (follow(path, to) < 0)
        return err_set(e, STATUS_FAILED, "%s is a link that leads nowhere", path);
    char *slash = strrchr(to, '/');
    bool there = stat(to, &st) == 0;
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - to) : 1, slash ? to : ".");
    char *real = realpath(dir[0] ? dir : "/", NULL);
    size_t n;
    char *text = dump(value, &n, e);
    int r = -1;
    if (text && there && real && path_holds_home(real))
        r = overwrite(to, &text, n, e);
    else if (text)
        r = file_replace(to, text, n, there ? st.st_mode & 0777 : mode, e);
    free(real);
    free(text);
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
