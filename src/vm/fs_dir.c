/* Directories read: READDIRPLUS gives the guest every entry's attributes with its name, and saves it a look-up each. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vm/fs_ops_int.h"
#include "vm/fs_stream.h"

/* Directories have no handles.  "Not implemented", said once, and the guest's kernel opens and closes them without a
 * message, and keeps what it read until it is told of a change, or its attributes say so (FUSE_NO_OPENDIR_SUPPORT in
 * linux/fuse.h). */
void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, ENOSYS);
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

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, bool plus)
{
    static char buf[128 * 1024];
    if (ino == FUSE_ROOT_ID) {
        root_readdir(req, size, off, plus);
        return;
    }
    struct node *n = node_get(ino);
    if (!n || n->type != S_IFDIR || off < 0) {
        fuse_reply_err(req, !n ? ESTALE : off < 0 ? EINVAL : ENOTDIR);
        return;
    }
    watch_dir(n); /* before it is read: what changes after is told */
    struct dir_stream *s = stream_at(n, off);
    if (!s) {
        fuse_reply_err(req, errno);
        return;
    }
    if (size > sizeof buf)
        size = sizeof buf;
    size_t used = 0;
    for (;;) {
        errno = 0;
        struct dirent *d = readdir(s->dir);
        if (!d) {
            if (errno && used == 0) {
                fuse_reply_err(req, errno);
                stream_close(s);
                return;
            }
            break;
        }
        off_t next = d->d_off;
        bool dots = strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
        struct fuse_entry_param e;
        size_t len;
        if (!dots && !plus && fs_hidden(n, d->d_name)) {
            s->at = next;
            continue;
        }
        if (!plus || dots) {
            memset(&e, 0, sizeof e);
            e.attr.st_ino = d->d_ino;
            e.attr.st_mode = (mode_t)d->d_type << 12;
            len = plus ? fuse_add_direntry_plus(req, buf + used, size - used, d->d_name, &e, next)
                       : fuse_add_direntry(req, buf + used, size - used, d->d_name, &e.attr, next);
        } else {
            if (used + fuse_add_direntry_plus(req, NULL, 0, d->d_name, NULL, 0) > size) {
                seekdir(s->dir, s->at);
                break;
            }
            if (fs_hidden(n, d->d_name) || fs_entry(n, d->d_name, &e) != 0) { /* or gone meanwhile */
                s->at = next;
                continue;
            }
            len = fuse_add_direntry_plus(req, buf + used, size - used, d->d_name, &e, next);
        }
        if (len > size - used) {
            seekdir(s->dir, s->at);
            break;
        }
        used += len;
        s->at = next;
    }
    fuse_reply_buf(req, buf, used);
    if (used == 0)
        stream_close(s);
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    read_dir(req, ino, size, off, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)fi;
    read_dir(req, ino, size, off, true);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct node *n = ino == FUSE_ROOT_ID ? NULL : node_get(ino);
    (void)datasync;
    (void)fi;
    int at = n ? node_fd(n) : -EBADF;
    int fd = at < 0 ? (errno = -at, -1) : openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fuse_reply_err(req, fd < 0 || fsync(fd) < 0 ? errno : 0);
    if (fd >= 0)
        close(fd);
}
