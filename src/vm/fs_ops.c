#include "vm/fs_ops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define LONG_S 3600.0 /* watched: the host tells when it changes */
#define SHORT_S 1.0
#define HANDLES_MAX 65536u

/* What `fh` means: an index here, never a number of the guest's choice. */
struct handle {
    struct node *node;
    int fd;
    DIR *dir;
    off_t at; /* where the directory stream stands */
};

static const struct fs_config *config;
static struct handle **handles;
static uint32_t *free_handles, nhandles, cap_handles, nfree;

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- handles ---- */

static int handle_new(struct node *n, int fd, DIR *dir, uint64_t *fh)
{
    if (nfree == 0) {
        if (nhandles == cap_handles) {
            uint32_t cap = cap_handles ? cap_handles * 2 : 64;
            struct handle **h = cap > HANDLES_MAX ? NULL : realloc(handles, cap * sizeof *h);
            if (h)
                handles = h;
            uint32_t *f = h ? realloc(free_handles, cap * sizeof *f) : NULL;
            if (!f)
                return ENFILE;
            free_handles = f;
            cap_handles = cap;
        }
        handles[nhandles] = NULL;
        free_handles[nfree++] = nhandles++;
    }
    struct handle *h = calloc(1, sizeof *h);
    if (!h)
        return ENOMEM;
    uint32_t i = free_handles[--nfree];
    *h = (struct handle){.node = n, .fd = fd, .dir = dir};
    handles[i] = h;
    node_pin(n);
    *fh = i;
    return 0;
}

static struct handle *handle_get(uint64_t fh, bool dir)
{
    struct handle *h = fh < nhandles ? handles[fh] : NULL;
    return h && (h->dir != NULL) == dir ? h : NULL;
}

static void handle_free(uint64_t fh)
{
    struct handle *h = handles[fh];
    if (h->dir)
        closedir(h->dir);
    else
        close(h->fd);
    handles[fh] = NULL;
    free_handles[nfree++] = (uint32_t)fh;
    node_unpin(h->node);
    free(h);
}

void fs_ops_finish(void)
{
    for (uint32_t i = 0; i < nhandles; i++)
        if (handles[i])
            handle_free(i);
    free(handles);
    free(free_handles);
    handles = NULL;
    free_handles = NULL;
    nhandles = cap_handles = nfree = 0;
}

/* ---- helpers ---- */

/* One component: what the guest's kernel would never send is what an attacker does. */
static bool name_ok(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n <= NAME_MAX && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !memchr(name, '/', n);
}

static bool read_only(const struct node *n)
{
    return node_folder(n)->read_only;
}

static void touched(struct node *n)
{
    n->changed_ms = now_ms();
}

static void squash(struct stat *st, fuse_ino_t ino)
{
    st->st_uid = config->uid;
    st->st_gid = config->gid;
    st->st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
    st->st_ino = ino;
    st->st_dev = 0;
}

/* The directory that FUSE's root is: one entry for each folder, by its number. */
static void root_stat(struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_ino = FUSE_ROOT_ID;
    st->st_mode = S_IFDIR | 0755;
    st->st_nlink = 2;
}

static bool root_entry(const char *name, struct fuse_entry_param *e)
{
    char *end;
    unsigned long i = strtoul(name, &end, 10);
    struct node *n = *end == '\0' && name[0] >= '0' && name[0] <= '9' && i < FS_FOLDERS_MAX ? node_top((unsigned)i) : NULL;
    memset(e, 0, sizeof *e);
    if (!n || node_stat(n, NULL, &e->attr, NULL) != 0)
        return false;
    e->ino = node_number(n);
    squash(&e->attr, e->ino);
    e->attr_timeout = config->watch(n) ? LONG_S : SHORT_S;
    e->entry_timeout = LONG_S;
    return true;
}

static int entry(struct node *parent, const char *name, struct fuse_entry_param *e)
{
    memset(e, 0, sizeof *e);
    bool watched = config->watch(parent);
    e->attr_timeout = e->entry_timeout = watched ? LONG_S : SHORT_S;
    struct node *n = node_lookup(parent, name, &e->attr);
    if (!n)
        return errno;
    e->ino = node_number(n);
    squash(&e->attr, e->ino);
    return 0;
}

static void reply_entry(fuse_req_t req, struct node *parent, const char *name)
{
    struct fuse_entry_param e;
    int why = entry(parent, name, &e);
    if (why)
        fuse_reply_err(req, why);
    else if (fuse_reply_entry(req, &e) < 0)
        node_forget(node_get(e.ino), 1);
}

/* A path that leads to an O_PATH descriptor's file: the kernel's own, so nothing in between can be swapped. */
static void proc_path(char out[64], int fd)
{
    snprintf(out, 64, "/proc/self/fd/%d", fd);
}

/* ---- operations ---- */

static void op_init(void *arg, struct fuse_conn_info *c)
{
    (void)arg;
    c->want |= c->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_READDIRPLUS |
                             FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_WRITEBACK_CACHE |
                             FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_ASYNC_DIO | FUSE_CAP_CACHE_SYMLINKS |
                             FUSE_CAP_EXPORT_SUPPORT);
    c->want &= ~(unsigned)(FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_AUTO_INVAL_DATA |
                           FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                           FUSE_CAP_SPLICE_MOVE);
    c->max_write = 1024 * 1024;
    c->max_readahead = 256 * 1024;
    c->max_background = 64;
    c->congestion_threshold = 48;
    c->time_gran = 1;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e;
    if (parent == FUSE_ROOT_ID) {
        if (root_entry(name, &e))
            fuse_reply_entry(req, &e);
        else
            fuse_reply_err(req, ENOENT);
        return;
    }
    struct node *p = node_get(parent);
    if (!p || !name_ok(name)) {
        fuse_reply_err(req, p ? EINVAL : ESTALE);
        return;
    }
    int why = entry(p, name, &e);
    if (why == ENOENT) { /* that it is not there is worth remembering, too */
        struct fuse_entry_param none = {.entry_timeout = e.entry_timeout};
        fuse_reply_entry(req, &none);
    } else if (why) {
        fuse_reply_err(req, why);
    } else if (fuse_reply_entry(req, &e) < 0) {
        node_forget(node_get(e.ino), 1);
    }
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    struct node *node = node_get(ino);
    if (node)
        node_forget(node, n);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *f)
{
    for (size_t i = 0; i < count; i++) {
        struct node *node = node_get(f[i].ino);
        if (node)
            node_forget(node, f[i].nlookup);
    }
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;
    (void)fi;
    if (ino == FUSE_ROOT_ID) {
        root_stat(&st);
        fuse_reply_attr(req, &st, LONG_S);
        return;
    }
    struct node *n = node_get(ino);
    int why = n ? node_stat(n, NULL, &st, NULL) : ESTALE;
    if (why) {
        fuse_reply_err(req, why);
        return;
    }
    squash(&st, ino);
    struct node *dir = n->parent ? n->parent : n;
    fuse_reply_attr(req, &st, config->watch(dir) ? LONG_S : SHORT_S);
}

static int set_times(int fd, const struct stat *attr, int what)
{
    struct timespec tv[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    char path[64];
    if (what & FUSE_SET_ATTR_ATIME_NOW)
        tv[0].tv_nsec = UTIME_NOW;
    else if (what & FUSE_SET_ATTR_ATIME)
        tv[0] = attr->st_atim;
    if (what & FUSE_SET_ATTR_MTIME_NOW)
        tv[1].tv_nsec = UTIME_NOW;
    else if (what & FUSE_SET_ATTR_MTIME)
        tv[1] = attr->st_mtim;
    proc_path(path, fd);
    return utimensat(AT_FDCWD, path, tv, 0) < 0 ? errno : 0;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int what, struct fuse_file_info *fi)
{
    struct node *n = node_get(ino);
    struct handle *h = fi ? handle_get(fi->fh, false) : NULL;
    char path[64];
    int why = 0, fd;
    if (!n || (fd = node_fd(n)) < 0) {
        fuse_reply_err(req, n ? -fd : ESTALE);
        return;
    }
    if (read_only(n)) {
        fuse_reply_err(req, EROFS);
        return;
    }
    touched(n);
    proc_path(path, fd);
    bool link = n->type == S_IFLNK;
    /* Owners are squashed: to change them changes nothing, and says so by success, as tar and cp -a expect. */
    if (!why && (what & FUSE_SET_ATTR_MODE) && !link && chmod(path, attr->st_mode & 01777 & ~(mode_t)(S_ISUID | S_ISGID)) < 0)
        why = errno;
    if (!why && (what & FUSE_SET_ATTR_SIZE)) {
        if (h && h->node == n)
            why = ftruncate(h->fd, attr->st_size) < 0 ? errno : 0;
        else if (n->type != S_IFREG)
            why = EINVAL;
        else
            why = truncate(path, attr->st_size) < 0 ? errno : 0;
    }
    if (!why && (what & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))) {
        if (link) { /* a magic link would be followed once too far */
            struct node *p = n->parent;
            struct timespec tv[2] = {attr->st_atim, attr->st_mtim};
            int at = node_fd(p);
            why = at < 0 ? -at : utimensat(at, n->name, tv, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
        } else {
            why = set_times(fd, attr, what);
        }
    }
    struct stat st;
    if (!why)
        why = node_stat(n, NULL, &st, NULL);
    if (why) {
        fuse_reply_err(req, why);
        return;
    }
    squash(&st, ino);
    fuse_reply_attr(req, &st, LONG_S);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct node *n = node_get(ino);
    char buf[PATH_MAX + 1];
    int fd = n ? node_fd(n) : -ESTALE;
    ssize_t len = fd < 0 ? -1 : readlinkat(fd, "", buf, sizeof buf - 1);
    if (len < 0) {
        fuse_reply_err(req, fd < 0 ? -fd : errno);
        return;
    }
    buf[len] = '\0';
    fuse_reply_readlink(req, buf);
}

/* The parent's descriptor for an operation that changes what is in it, or a negative errno. */
static int writable_parent(fuse_ino_t ino, const char *name, struct node **p)
{
    if (ino == FUSE_ROOT_ID)
        return -EPERM;
    *p = node_get(ino);
    if (!*p)
        return -ESTALE;
    if (!name_ok(name))
        return -EINVAL;
    if (read_only(*p))
        return -EROFS;
    touched(*p);
    return node_fd(*p);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct node *p = NULL;
    int at = writable_parent(parent, name, &p);
    (void)rdev;
    /* Files, FIFOs and sockets' names; a device node has no business on the host. */
    if (at >= 0 && !S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
        at = -EPERM;
    if (at >= 0 && mknodat(at, name, (mode & S_IFMT) | (mode & 0777), 0) < 0)
        at = -errno;
    if (at < 0)
        fuse_reply_err(req, -at);
    else
        reply_entry(req, p, name);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct node *p = NULL;
    int at = writable_parent(parent, name, &p);
    if (at >= 0 && mkdirat(at, name, mode & 01777) < 0)
        at = -errno;
    if (at < 0)
        fuse_reply_err(req, -at);
    else
        reply_entry(req, p, name);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct node *p = NULL;
    int at = writable_parent(parent, name, &p);
    if (at >= 0 && symlinkat(target, at, name) < 0)
        at = -errno;
    if (at < 0)
        fuse_reply_err(req, -at);
    else
        reply_entry(req, p, name);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, int flags)
{
    struct node *p = NULL;
    int at = writable_parent(parent, name, &p);
    struct stat st;
    if (at >= 0) {
        int why = node_stat(p, name, &st, NULL);
        if (why) {
            at = -why;
        } else {
            node_unlinked(p, name, S_ISDIR(st.st_mode) || st.st_nlink <= 1);
            at = node_fd(p);
            if (at >= 0 && unlinkat(at, name, flags) < 0) {
                at = -errno;
                struct node *n = node_known_child(p, name);
                if (n) /* it stays, under its name */
                    node_moved(n, p, name);
            }
        }
    }
    fuse_reply_err(req, at < 0 ? -at : 0);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, 0);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, AT_REMOVEDIR);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
                      unsigned flags)
{
    struct node *p = NULL, *q = NULL;
    int from = writable_parent(parent, name, &p);
    int to = from < 0 ? from : writable_parent(newparent, newname, &q);
    if (to >= 0 && (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)))
        to = -EINVAL;
    if (to >= 0 && p->folder != q->folder)
        to = -EXDEV;
    if (to >= 0)
        from = node_fd(p); /* opening the second may have closed the first */
    if (to >= 0 && from >= 0) {
        struct node *moving = node_known_child(p, name);
        struct node *other = flags & RENAME_EXCHANGE ? node_known_child(q, newname) : NULL;
        struct stat st;
        if (!(flags & (RENAME_EXCHANGE | RENAME_NOREPLACE)) && node_stat(q, newname, &st, NULL) == 0)
            node_unlinked(q, newname, S_ISDIR(st.st_mode) || st.st_nlink <= 1);
        from = node_fd(p);
        to = node_fd(q);
        if (from < 0 || to < 0 || renameat2(from, name, to, newname, flags) < 0) {
            to = from < 0 ? from : to < 0 ? to : -errno;
            struct node *n = node_known_child(q, newname);
            if (n && n->unlinked)
                node_moved(n, q, newname);
        } else {
            if (moving)
                node_moved(moving, q, newname);
            if (other)
                node_moved(other, p, name);
        }
    } else if (from < 0) {
        to = from;
    }
    fuse_reply_err(req, to < 0 ? -to : 0);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    struct node *n = node_get(ino), *p = NULL;
    int at = n ? writable_parent(parent, name, &p) : -ESTALE;
    int fd = at < 0 ? at : node_fd(n);
    char path[64];
    if (at >= 0 && fd >= 0 && p->folder != n->folder)
        fd = -EXDEV;
    if (at >= 0 && fd >= 0) {
        at = node_fd(p);
        touched(n);
        proc_path(path, fd);
        if (n->type == S_IFLNK) { /* /proc's link would be resolved to the file behind */
            int from = node_fd(n->parent);
            if (from < 0 || linkat(from, n->name, at, name, 0) < 0)
                fd = from < 0 ? from : -errno;
        } else if (linkat(AT_FDCWD, path, at, name, AT_SYMLINK_FOLLOW) < 0) {
            fd = -errno;
        }
    }
    if (at < 0 || fd < 0)
        fuse_reply_err(req, at < 0 ? -at : -fd);
    else
        reply_entry(req, p, name);
}

/* The write-back cache reads what it writes to in part, and knows the end of file itself. */
static int open_flags(int flags)
{
    int f = flags & (O_ACCMODE | O_TRUNC | O_EXCL | O_DSYNC | O_SYNC);
    if ((f & O_ACCMODE) == O_WRONLY)
        f = (f & ~O_ACCMODE) | O_RDWR;
    return f | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct node *n = node_get(ino);
    int fd = n ? node_fd(n) : -ESTALE, file;
    char path[64];
    if (fd >= 0 && n->type != S_IFREG)
        fd = -ENXIO;
    if (fd >= 0 && read_only(n) && ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC)))
        fd = -EROFS;
    if (fd < 0) {
        fuse_reply_err(req, -fd);
        return;
    }
    proc_path(path, fd);
    file = open(path, open_flags(fi->flags) & ~O_EXCL);
    if (file < 0 && errno == EACCES && (fi->flags & O_ACCMODE) == O_WRONLY)
        file = open(path, (open_flags(fi->flags) & ~(O_EXCL | O_ACCMODE)) | O_WRONLY);
    int why = file < 0 ? errno : handle_new(n, file, NULL, &fi->fh);
    if (why) {
        if (file >= 0)
            close(file);
        fuse_reply_err(req, why);
        return;
    }
    if ((fi->flags & O_ACCMODE) != O_RDONLY)
        touched(n);
    fi->keep_cache = 1; /* what changes on the host is invalidated */
    if (fuse_reply_open(req, fi) < 0)
        handle_free(fi->fh);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct node *p = NULL;
    struct fuse_entry_param e;
    int at = writable_parent(parent, name, &p);
    if (at < 0) {
        fuse_reply_err(req, -at);
        return;
    }
    int file = openat(at, name, open_flags(fi->flags) | O_CREAT | O_NOFOLLOW, mode & 0777);
    int why = file < 0 ? errno : 0;
    struct stat st;
    if (!why && (fstat(file, &st) < 0 || !S_ISREG(st.st_mode)))
        why = ENXIO;
    if (!why)
        why = entry(p, name, &e);
    if (!why && (why = handle_new(node_get(e.ino), file, NULL, &fi->fh)) != 0)
        node_forget(node_get(e.ino), 1);
    if (why) {
        if (file >= 0)
            close(file);
        fuse_reply_err(req, why);
        return;
    }
    touched(node_get(e.ino));
    fi->keep_cache = 1;
    if (fuse_reply_create(req, &e, fi) < 0) {
        struct node *n = node_get(e.ino);
        handle_free(fi->fh);
        node_forget(n, 1);
    }
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    static char buf[1024 * 1024];
    struct handle *h = handle_get(fi->fh, false);
    (void)ino;
    if (!h || off < 0) {
        fuse_reply_err(req, EBADF);
        return;
    }
    ssize_t n = pread(h->fd, buf, size < sizeof buf ? size : sizeof buf, off);
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_buf(req, buf, (size_t)n);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, false);
    (void)ino;
    if (!h || off < 0) {
        fuse_reply_err(req, EBADF);
        return;
    }
    touched(h->node);
    size_t done = 0;
    while (done < size) {
        ssize_t n = pwrite(h->fd, buf + done, size - done, off + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && done == 0) {
            fuse_reply_err(req, errno);
            return;
        }
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    fuse_reply_write(req, done);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, ENOSYS); /* once: the kernel then asks no more at each close */
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, false);
    (void)ino;
    if (h)
        handle_free(fi->fh);
    fuse_reply_err(req, h ? 0 : EBADF);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, false);
    (void)ino;
    int rc = h ? (datasync ? fdatasync(h->fd) : fsync(h->fd)) : -1;
    fuse_reply_err(req, !h ? EBADF : rc < 0 ? errno : 0);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (ino == FUSE_ROOT_ID) {
        fi->fh = UINT64_MAX;
        fuse_reply_open(req, fi);
        return;
    }
    struct node *n = node_get(ino);
    int fd = n ? node_fd(n) : -ESTALE;
    if (fd < 0) {
        fuse_reply_err(req, -fd);
        return;
    }
    int dirfd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = dirfd < 0 ? NULL : fdopendir(dirfd);
    int why = d ? handle_new(n, -1, d, &fi->fh) : errno;
    if (why) {
        if (d)
            closedir(d);
        else if (dirfd >= 0)
            close(dirfd);
        fuse_reply_err(req, why);
        return;
    }
    fi->cache_readdir = config->watch(n);
    fi->keep_cache = fi->cache_readdir;
    if (fuse_reply_open(req, fi) < 0)
        handle_free(fi->fh);
}

static void root_readdir(fuse_req_t req, size_t size, off_t off, bool plus)
{
    static char buf[8192];
    size_t used = 0;
    if (size > sizeof buf)
        size = sizeof buf;
    for (unsigned i = (unsigned)off; i < FS_FOLDERS_MAX && node_top(i); i++) {
        struct fuse_entry_param e;
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        if (!root_entry(name, &e))
            continue;
        size_t n = plus ? fuse_add_direntry_plus(req, buf + used, size - used, name, &e, (off_t)i + 1)
                        : fuse_add_direntry(req, buf + used, size - used, name, &e.attr, (off_t)i + 1);
        if (n > size - used)
            break;
        used += n;
    }
    fuse_reply_buf(req, buf, used);
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
    static char buf[128 * 1024];
    if (ino == FUSE_ROOT_ID) {
        root_readdir(req, size, off, plus);
        return;
    }
    struct handle *h = handle_get(fi->fh, true);
    if (!h || off < 0) {
        fuse_reply_err(req, EBADF);
        return;
    }
    if (size > sizeof buf)
        size = sizeof buf;
    if (off != h->at) {
        if (off == 0)
            rewinddir(h->dir);
        else
            seekdir(h->dir, off);
        h->at = off;
    }
    size_t used = 0;
    for (;;) {
        errno = 0;
        struct dirent *d = readdir(h->dir);
        if (!d) {
            if (errno && used == 0) {
                fuse_reply_err(req, errno);
                return;
            }
            break;
        }
        off_t next = d->d_off;
        bool dots = strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
        struct fuse_entry_param e;
        size_t n;
        if (!plus || dots) {
            memset(&e, 0, sizeof e);
            e.attr.st_ino = d->d_ino;
            e.attr.st_mode = (mode_t)d->d_type << 12;
            n = plus ? fuse_add_direntry_plus(req, buf + used, size - used, d->d_name, &e, next)
                     : fuse_add_direntry(req, buf + used, size - used, d->d_name, &e.attr, next);
        } else {
            if (used + fuse_add_direntry_plus(req, NULL, 0, d->d_name, NULL, 0) > size) {
                seekdir(h->dir, h->at);
                break;
            }
            if (entry(h->node, d->d_name, &e) != 0) { /* gone meanwhile */
                h->at = next;
                continue;
            }
            n = fuse_add_direntry_plus(req, buf + used, size - used, d->d_name, &e, next);
        }
        if (n > size - used) {
            seekdir(h->dir, h->at);
            break;
        }
        used += n;
        h->at = next;
    }
    fuse_reply_buf(req, buf, used);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    read_dir(req, ino, size, off, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    read_dir(req, ino, size, off, fi, true);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, true);
    if (h)
        handle_free(fi->fh);
    fuse_reply_err(req, h || ino == FUSE_ROOT_ID ? 0 : EBADF);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, true);
    (void)ino;
    (void)datasync;
    fuse_reply_err(req, !h ? EBADF : fsync(dirfd(h->dir)) < 0 ? errno : 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct node *n = ino == FUSE_ROOT_ID ? node_top(0) : node_get(ino);
    int fd = n ? node_fd(n) : -ESTALE;
    struct statvfs st;
    if (fd < 0 || fstatvfs(fd, &st) < 0)
        fuse_reply_err(req, fd < 0 ? -fd : errno);
    else
        fuse_reply_statfs(req, &st);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, false);
    (void)ino;
    if (h)
        touched(h->node);
    fuse_reply_err(req, !h ? EBADF : fallocate(h->fd, mode, off, len) < 0 ? errno : 0);
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, false);
    (void)ino;
    off_t at = h ? lseek(h->fd, off, whence) : -1;
    if (at < 0)
        fuse_reply_err(req, h ? errno : EBADF);
    else
        fuse_reply_lseek(req, at);
}

static void op_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t out,
                               off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
    struct handle *a = handle_get(fi_in->fh, false), *b = handle_get(fi_out->fh, false);
    (void)in;
    (void)out;
    (void)flags;
    if (!a || !b) {
        fuse_reply_err(req, EBADF);
        return;
    }
    touched(b->node);
    if (len > 64u * 1024 * 1024)
        len = 64u * 1024 * 1024; /* a turn, so that others get theirs */
    ssize_t n = copy_file_range(a->fd, &off_in, b->fd, &off_out, len, 0);
    if (n < 0)
        fuse_reply_err(req, errno == EXDEV || errno == EINVAL ? EOPNOTSUPP : errno);
    else
        fuse_reply_write(req, (size_t)n);
}

const struct fuse_lowlevel_ops *fs_ops(const struct fs_config *c)
{
    static const struct fuse_lowlevel_ops ops = {
        .init = op_init, .lookup = op_lookup, .forget = op_forget, .forget_multi = op_forget_multi,
        .getattr = op_getattr, .setattr = op_setattr, .readlink = op_readlink, .mknod = op_mknod, .mkdir = op_mkdir,
        .symlink = op_symlink, .unlink = op_unlink, .rmdir = op_rmdir, .rename = op_rename, .link = op_link,
        .open = op_open, .create = op_create, .read = op_read, .write = op_write, .flush = op_flush,
        .release = op_release, .fsync = op_fsync, .opendir = op_opendir, .readdir = op_readdir,
        .readdirplus = op_readdirplus, .releasedir = op_releasedir, .fsyncdir = op_fsyncdir, .statfs = op_statfs,
        .fallocate = op_fallocate, .lseek = op_lseek, .copy_file_range = op_copy_file_range,
    };
    config = c;
    return &ops;
}
