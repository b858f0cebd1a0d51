#include "core/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *variable, *fallback;
} xdg[] = {
    [PATH_CONFIG] = {"XDG_CONFIG_HOME", ".config"},
    [PATH_DATA] = {"XDG_DATA_HOME", ".local/share"},
    [PATH_CACHE] = {"XDG_CACHE_HOME", ".cache"},
    [PATH_RUNTIME] = {"XDG_RUNTIME_DIR", NULL},
};

static char *format(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static char *format(struct err *e, const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    return s;
}

int path_mkdirs(const char *dir, mode_t mode, struct err *e)
{
    char buf[PATH_MAX];
    size_t n = strlen(dir);
    if (n >= sizeof buf)
        return err_set(e, STATUS_FAILED, "path too long: %s", dir);
    memcpy(buf, dir, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (buf[i] != '/' && buf[i] != '\0')
            continue;
        buf[i] = '\0';
        if (mkdir(buf, mode) < 0 && errno != EEXIST)
            return err_errno(e, errno, "cannot make folder %s", buf);
        buf[i] = i < n ? '/' : '\0';
    }
    struct stat st;
    if (stat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, STATUS_FAILED, "%s is not a folder", dir);
    return 0;
}

static bool is_own_dir(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

/* The last resort lies in /tmp, where others may have been first: it must be a real folder of
 * ours that nobody else can enter. */
static char *runtime_in_tmp(struct err *e)
{
    char *dir = format(e, "/tmp/sbx-%u", (unsigned)geteuid());
    if (!dir)
        return NULL;
    struct stat st;
    if ((mkdir(dir, 0700) < 0 && errno != EEXIST) || lstat(dir, &st) < 0) {
        err_errno(e, errno, "cannot make folder %s", dir);
    } else if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077)) {
        err_set(e, STATUS_FAILED, "%s is not a private folder of yours; remove it, or set XDG_RUNTIME_DIR",
                dir);
    } else {
        return dir;
    }
    free(dir);
    return NULL;
}

static char *root_dir(enum path_root root, struct err *e)
{
    const char *v = getenv(xdg[root].variable);
    if (v && v[0] == '/' && (root != PATH_RUNTIME || is_own_dir(v)))
        return format(e, "%s/sbx", v);
    if (root == PATH_RUNTIME) {
        char dir[64];
        snprintf(dir, sizeof dir, "/run/user/%u", (unsigned)geteuid());
        return is_own_dir(dir) ? format(e, "%s/sbx", dir) : runtime_in_tmp(e);
    }
    const char *home = getenv("HOME");
    if (!home || home[0] != '/') {
        err_set(e, STATUS_FAILED, "HOME is not set to an absolute path; set it, or %s",
                xdg[root].variable);
        return NULL;
    }
    return format(e, "%s/%s/sbx", home, xdg[root].fallback);
}

char *path_in(enum path_root root, struct err *e, const char *fmt, ...)
{
    char *dir = root_dir(root, e);
    if (!dir)
        return NULL;
    char *path = NULL, *sub;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&sub, fmt, ap);
    va_end(ap);
    if (n < 0) {
        err_set(e, STATUS_FAILED, "out of memory");
    } else {
        if (path_mkdirs(dir, 0700, e) == 0)
            path = sub[0] ? format(e, "%s/%s", dir, sub) : format(e, "%s", dir);
        free(sub);
    }
    free(dir);
    return path;
}

char *path_sandbox(const char *name, const char *file, struct err *e)
{
    return file ? path_in(PATH_DATA, e, "sandboxes/%s/%s", name, file)
                : path_in(PATH_DATA, e, "sandboxes/%s", name);
}

char *path_socket_here(const char *name, struct err *e)
{
    return path_in(PATH_RUNTIME, e, "%s.sock", name);
}

char *path_socket(const char *name, struct err *e)
{
    char *link = path_sandbox(name, "socket", NULL), *to = calloc(1, PATH_MAX);
    ssize_t n = link && to ? readlink(link, to, PATH_MAX - 1) : -1;
    free(link);
    if (n > 0 && to[0] == '/')
        return to;
    free(to);
    return path_socket_here(name, e);
}

int path_socket_moved(const char *name, const char *path, struct err *e)
{
    char *link = path_sandbox(name, "socket", e), *fresh = path_sandbox(name, "socket.new", e), *now = path_socket(name, NULL);
    int rc = now && link && access(link, F_OK) == 0 && strcmp(now, path) == 0 ? 0 : -1;
    if (rc < 0 && link && fresh) {
        unlink(fresh);
        rc = symlink(path, fresh) < 0 || rename(fresh, link) < 0 ? err_errno(e, errno, "cannot write %s", link) : 0;
        if (rc < 0)
            unlink(link); /* rather none than one that leads elsewhere */
    }
    free(now);
    free(link);
    free(fresh);
    return rc;
}

/* The executable that runs. */
static char *self_path(struct err *e)
{
    char buf[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", buf, sizeof buf - 1);
    if (n < 0) {
        err_errno(e, errno, "cannot read /proc/self/exe");
        return NULL;
    }
    buf[n] = '\0';
    /* A program that was replaced while it runs: the new one of that name is meant. */
    char *gone = strstr(buf, " (deleted)");
    if (gone && gone[10] == '\0')
        *gone = '\0';
    return format(e, "%s", buf);
}

/* The folder of the executable, if it lies in a build tree (../assets beside it). */
static char *build_tree(struct err *e)
{
    char *self = self_path(e);
    if (!self)
        return NULL;
    /* build/sbx; what lies in build/lib and the tests one folder below it. */
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(self, '/');
        if (!slash || slash == self)
            break;
        *slash = '\0';
        char probe[PATH_MAX];
        int n = snprintf(probe, sizeof probe, "%s/../assets/policies", self);
        if (n > 0 && (size_t)n < sizeof probe && access(probe, R_OK) == 0)
            return self;
    }
    free(self);
    return NULL;
}

/* Cuts dir off the end of path.  False: it is not there. */
static bool cut_end(char *path, const char *dir)
{
    size_t n = strlen(path), m = strlen(dir);
    if (n < m || strcmp(path + n - m, dir) != 0)
        return false;
    path[n - m] = '\0';
    return true;
}

/* PREFIX is where this program was put: /usr/bin/sbx and /usr/lib/sbx/sbx-net -> /usr. */
static char *installed(const char *sub, const char *rel, struct err *e)
{
    char *self = self_path(e);
    if (!self)
        return NULL;
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    bool found = cut_end(self, "/bin") || cut_end(self, "/lib/sbx");
    char *path = format(e, "%s/%s/%s", found ? self : SBX_PREFIX, sub, rel);
    free(self);
    return path;
}

char *path_asset(const char *rel, struct err *e)
{
    char *tree = build_tree(e);
    char *path = tree ? format(e, "%s/../assets/%s", tree, rel) : installed("share/sbx", rel, e);
    free(tree);
    return path;
}

static char *program(const char *in_tree, const char *sub, const char *rel, struct err *e)
{
    char *tree = build_tree(e);
    char *path = tree ? format(e, "%s/%s%s", tree, in_tree, rel) : installed(sub, rel, e);
    free(tree);
    return path;
}

char *path_command(struct err *e)
{
    return program("", "bin", "sbx", e);
}

char *path_role(const char *role, struct err *e)
{
    char name[32];
    snprintf(name, sizeof name, "sbx-%s", role);
    return program("lib/", "lib/sbx", name, e);
}

char *path_guest_binary(struct err *e)
{
    return program("", "lib/sbx", "sbx-guest", e);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

int path_remove_tree(const char *dir, struct err *e)
{
    if (nftw(dir, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0 && errno != ENOENT)
        return err_errno(e, errno, "cannot remove %s", dir);
    return 0;
}
