/* Files opened, read and written. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vm/fs_ops_int.h"
#include "vm/fs_work.h"

#define READ_MAX (1024u * 1024u)
#define COPY_MAX (16u * 1024u * 1024u) /* one turn of copy_file_range, so that others get theirs */

/* The write-back cache reads what it writes to in part, and knows the end of file itself. */
static int open_flags(int flags)
{
    int f = flags & (O_ACCMODE | O_TRUNC | O_EXCL | O_DSYNC | O_SYNC);
    if ((f & O_ACCMODE) == O_WRONLY)
        f = (f & ~O_ACCMODE) | O_RDWR;
    return f | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
}

static bool writes(const struct fuse_file_info *fi)
{
    return (fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC);
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct node *n = node_get(ino);
    char path[64];
    int why = n ? 0 : ESTALE, fd = -1, file = -1;
    if (!why && n->type != S_IFREG)
        why = ENXIO; /* a FIFO's other end is in the guest; a device is none of its business */
    if (!why && writes(fi) && (why = fs_may_change(n, NULL, 0)) == 0 && (fi->flags & O_TRUNC))
        fs_own_change(n);
    if (!why && (fd = node_fd(n)) < 0)
        why = -fd;
    if (!why) {
        fs_proc_path(path, fd);
        file = open(path, open_flags(fi->flags) & ~O_EXCL);
        if (file < 0 && errno == EACCES && (fi->flags & O_ACCMODE) == O_WRONLY)
            file = open(path, (open_flags(fi->flags) & ~(O_EXCL | O_ACCMODE)) | O_WRONLY);
        why = file < 0 ? errno : handle_new(n, file, &fi->fh);
    }
    if (why) {
        if (file >= 0)
            close(file);
        fuse_reply_err(req, why);
        return;
    }
    fi->keep_cache = 1; /* what the host changes is told */
    if (fuse_reply_open(req, fi) < 0)
        handle_release(fi->fh);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct node *p = node_get(parent);
    struct fuse_entry_param e;
    int why = p ? fs_may_change(p, name, S_IFREG) : parent == FUSE_ROOT_ID ? EPERM : ESTALE, file = -1, at;
    if (!why)
        why = fs_room(p, 0);
    if (!why && (at = node_fd(p)) < 0)
        why = -at;
    if (!why) {
        watch_own(p, name);
        file = openat(at, name, open_flags(fi->flags) | O_CREAT | O_NOFOLLOW, mode & 0777);
        why = file < 0 ? errno : 0;
    }
    struct stat st;
    if (!why && (fstat(file, &st) < 0 || !S_ISREG(st.st_mode)))
        why = ENXIO;
    if (!why)
        why = fs_entry(p, name, &e);
    if (!why) {
        /* The host may have put another file there since. */
        struct node *n = node_get(e.ino);
        why = n->ino != st.st_ino || n->dev != st.st_dev ? ESTALE : handle_new(n, file, &fi->fh);
        if (why)
            node_forget(n, 1);
    }
    if (why) {
        if (file >= 0)
            close(file);
        fuse_reply_err(req, why);
        return;
    }
    fi->keep_cache = 1;
    if (fuse_reply_create(req, &e, fi) < 0) {
        handle_release(fi->fh);
        node_forget(node_get(e.ino), 1);
    }
}

/* What waits for the disk. */
struct job {
    fuse_req_t req;
    struct handle *h;
    int kind; /* 'r', 's' or 'd': read, sync, data sync */
    size_t size;
    off_t off;
    char buf[];
};

static void run_job(void *arg)
{
    struct job *j = arg;
    if (j->kind == 'r') {
        ssize_t n = pread(j->h->fd, j->buf, j->size, j->off);
        if (n < 0)
            fuse_reply_err(j->req, errno);
        else
            fuse_reply_buf(j->req, j->buf, (size_t)n);
        return;
    }
    int rc = j->kind == 'd' ? fdatasync(j->h->fd) : fsync(j->h->fd);
    fuse_reply_err(j->req, rc < 0 ? errno : 0);
}

static void job_done(void *arg)
{
    struct job *j = arg;
    handle_drop(j->h);
    free(j);
}

static void later(fuse_req_t req, struct handle *h, int kind, size_t size, off_t off)
{
    struct job *j = malloc(sizeof *j + size);
    if (!j) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    j->req = req;
    j->h = h;
    j->kind = kind;
    j->size = size;
    j->off = off;
    handle_hold(h);
    if (!work_add(run_job, job_done, j)) {
        run_job(j);
        job_done(j);
    }
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    static char buf[READ_MAX];
    struct handle *h = handle_get(fi->fh);
    (void)ino;
    if (!h || off < 0) {
        fuse_reply_err(req, EBADF);
        return;
    }
    if (size > sizeof buf)
        size = sizeof buf;
    /* From the page cache at once.  Less than was asked for is the end of the file, or the disk's turn. */
    struct iovec iov = {buf, size};
    ssize_t n = preadv2(h->fd, &iov, 1, off, RWF_NOWAIT);
    if (n == (ssize_t)size)
        fuse_reply_buf(req, buf, size);
    else
        later(req, h, 'r', size, off);
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh);
    (void)ino;
    if (!h || off < 0) {
        fuse_reply_err(req, EBADF);
        return;
    }
    int full = fs_room(h->node, size);
    if (full) {
        fuse_reply_err(req, full);
        return;
    }
    fs_own_change(h->node);
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

void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    fuse_reply_err(req, ENOSYS); /* once: the kernel then asks no more at each close */
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    bool known = handle_get(fi->fh) != NULL;
    if (known)
        handle_release(fi->fh);
    fuse_reply_err(req, known ? 0 : EBADF);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh);
    (void)ino;
    if (h)
        later(req, h, datasync ? 'd' : 's', 0, 0);
    else
        fuse_reply_err(req, EBADF);
}

void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh);
    (void)ino;
    int full = h && !(mode & FALLOC_FL_PUNCH_HOLE) ? fs_room(h->node, len > 0 ? (size_t)len : 0) : 0;
    if (h && !full)
        fs_own_change(h->node);
    fuse_reply_err(req, !h ? EBADF : full ? full : fallocate(h->fd, mode, off, len) < 0 ? errno : 0);
}

void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    struct handle *h = handle_get(fi->fh);
    (void)ino;
    off_t at = h ? lseek(h->fd, off, whence) : -1;
    if (at < 0)
        fuse_reply_err(req, h ? errno : EBADF);
    else
        fuse_reply_lseek(req, at);
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t out,
                        off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags)
{
    struct handle *a = handle_get(fi_in->fh), *b = handle_get(fi_out->fh);
    (void)in;
    (void)out;
    (void)flags;
    if (!a || !b) {
        fuse_reply_err(req, EBADF);
        return;
    }
    int full = fs_room(b->node, len < COPY_MAX ? len : COPY_MAX);
    if (full) {
        fuse_reply_err(req, full);
        return;
    }
    fs_own_change(b->node);
    ssize_t n = copy_file_range(a->fd, &off_in, b->fd, &off_out, len < COPY_MAX ? len : COPY_MAX, 0);
    if (n < 0)
        fuse_reply_err(req, errno == EXDEV || errno == EINVAL ? EOPNOTSUPP : errno);
    else
        fuse_reply_write(req, (size_t)n);
}
