/* Directories read: READDIRPLUS gives the guest every entry's attributes with its name, and saves it a look-up each. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vm/fs_ops_int.h"

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
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
    fi->cache_readdir = watch_dir(n);
    fi->keep_cache = fi->cache_readdir;
    if (fuse_reply_open(req, fi) < 0)
        handle_release(fi->fh);
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
        if (!fs_root_entry(i, &e))
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
        if (!dots && !plus && fs_hidden(h->node, d->d_name)) {
            h->at = next;
            continue;
        }
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
            if (fs_hidden(h->node, d->d_name) || fs_entry(h->node, d->d_name, &e) != 0) { /* or gone meanwhile */
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

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    read_dir(req, ino, size, off, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    read_dir(req, ino, size, off, fi, true);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, true);
    if (h)
        handle_release(fi->fh);
    fuse_reply_err(req, h || ino == FUSE_ROOT_ID ? 0 : EBADF);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh, true);
    (void)ino;
    (void)datasync;
    fuse_reply_err(req, !h ? EBADF : fsync(dirfd(h->dir)) < 0 ? errno : 0);
}

