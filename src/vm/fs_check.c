#include "vm/fs_check.h"

#include <linux/fuse.h>
#include <string.h>

/* FUSE_INTERRUPT is not among them: each that finds no request would be kept by libfuse, without a bound.  ENOSYS tells
 * the kernel to send no more, and no request of ours takes longer than the disk does.
 *
 * Fixed part of the body and number of NUL-terminated strings behind it. */
static bool shape(uint32_t opcode, size_t *fixed, unsigned *strings)
{
    *strings = 0;
    switch (opcode) {
    case FUSE_LOOKUP:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
        *fixed = 0;
        *strings = 1;
        return true;
    case FUSE_SYMLINK:
        *fixed = 0;
        *strings = 2;
        return true;
    case FUSE_FORGET:
        *fixed = sizeof(struct fuse_forget_in);
        return true;
    case FUSE_GETATTR:
        *fixed = sizeof(struct fuse_getattr_in);
        return true;
    case FUSE_SETATTR:
        *fixed = sizeof(struct fuse_setattr_in);
        return true;
    case FUSE_READLINK:
    case FUSE_STATFS:
    case FUSE_DESTROY:
        *fixed = 0;
        return true;
    case FUSE_MKNOD:
        *fixed = sizeof(struct fuse_mknod_in);
        *strings = 1;
        return true;
    case FUSE_MKDIR:
        *fixed = sizeof(struct fuse_mkdir_in);
        *strings = 1;
        return true;
    case FUSE_RENAME:
        *fixed = sizeof(struct fuse_rename_in);
        *strings = 2;
        return true;
    case FUSE_RENAME2:
        *fixed = sizeof(struct fuse_rename2_in);
        *strings = 2;
        return true;
    case FUSE_LINK:
        *fixed = sizeof(struct fuse_link_in);
        *strings = 1;
        return true;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        *fixed = sizeof(struct fuse_open_in);
        return true;
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
        *fixed = sizeof(struct fuse_read_in);
        return true;
    case FUSE_WRITE:
        *fixed = sizeof(struct fuse_write_in);
        return true;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
        *fixed = sizeof(struct fuse_release_in);
        return true;
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
        *fixed = sizeof(struct fuse_fsync_in);
        return true;
    case FUSE_FLUSH:
        *fixed = sizeof(struct fuse_flush_in);
        return true;
    case FUSE_INIT:
        *fixed = 16; /* major, minor, readahead, flags: older kernels send no more */
        return true;
    case FUSE_CREATE:
        *fixed = sizeof(struct fuse_create_in);
        *strings = 1;
        return true;
    case FUSE_BATCH_FORGET:
        *fixed = sizeof(struct fuse_batch_forget_in);
        return true;
    case FUSE_FALLOCATE:
        *fixed = sizeof(struct fuse_fallocate_in);
        return true;
    case FUSE_LSEEK:
        *fixed = sizeof(struct fuse_lseek_in);
        return true;
    case FUSE_COPY_FILE_RANGE:
        *fixed = sizeof(struct fuse_copy_file_range_in);
        return true;
    case FUSE_GETXATTR: /* answered ENOSYS by libfuse; the shape still has to hold */
        *fixed = sizeof(struct fuse_getxattr_in);
        *strings = 1;
        return true;
    case FUSE_LISTXATTR:
        *fixed = sizeof(struct fuse_getxattr_in);
        return true;
    case FUSE_REMOVEXATTR:
        *fixed = 0;
        *strings = 1;
        return true;
    case FUSE_ACCESS:
        *fixed = sizeof(struct fuse_access_in);
        return true;
    default:
        return false;
    }
}

bool fs_check(const uint8_t *msg, size_t len)
{
    struct fuse_in_header h;
    size_t fixed;
    unsigned strings;
    if (len < sizeof h || len > FS_MESSAGE_MAX)
        return false;
    memcpy(&h, msg, sizeof h);
    if (h.len != len || !shape(h.opcode, &fixed, &strings))
        return false;
    const uint8_t *body = msg + sizeof h;
    size_t n = len - sizeof h;
    if (n < fixed)
        return false;
    if (h.opcode == FUSE_INIT && n < sizeof(struct fuse_init_in)) {
        struct fuse_init_in init = {0};
        memcpy(&init, body, n);
        return !(init.flags & FUSE_INIT_EXT); /* more flags than there are bytes */
    }
    if (h.opcode == FUSE_WRITE) {
        struct fuse_write_in w;
        memcpy(&w, body, sizeof w);
        return w.size <= n - fixed;
    }
    if (h.opcode == FUSE_BATCH_FORGET) {
        struct fuse_batch_forget_in f;
        memcpy(&f, body, sizeof f);
        return f.count <= (n - fixed) / sizeof(struct fuse_forget_one);
    }
    const uint8_t *p = body + fixed, *end = body + n;
    while (strings--) {
        const uint8_t *nul = memchr(p, 0, (size_t)(end - p));
        if (!nul)
            return false;
        p = nul + 1;
    }
    return true;
}
