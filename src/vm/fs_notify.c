#include "vm/fs_notify.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "vm/fs_ops_int.h"

static struct fuse_session *session;

void notify_init(struct fuse_session *s)
{
    session = s;
}

/* The name is looked up again at its next use.  Expired, not invalidated, where the guest's kernel can: it keeps what
 * turns out to be the same, so that neither a working directory nor a mount upon it is torn from its place. */
static void expire_name(struct node *dir, const char *name)
{
    if (fuse_lowlevel_notify_expire_entry(session, node_number(dir), name, strlen(name), FUSE_LL_EXPIRE_ONLY) ==
        -ENOSYS)
        fuse_lowlevel_notify_inval_entry(session, node_number(dir), name, strlen(name));
}

static void forget_content(struct node *n)
{
    fuse_lowlevel_notify_inval_inode(session, node_number(n), 0, 0);
}

/* Who has a file open that grows (`tail -f`) sees it grow: the last byte, stored, moves the end. */
static void grow(struct node *n, off_t size)
{
    char path[64], last;
    int fd = size > 0 ? node_fd(n) : -1;
    if (fd < 0)
        return;
    fs_proc_path(path, fd);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && pread(fd, &last, 1, size - 1) == 1) {
        struct fuse_bufvec v = FUSE_BUFVEC_INIT(1);
        v.buf[0].mem = &last;
        fuse_lowlevel_notify_store(session, node_number(n), size - 1, &v, 0);
    }
    if (fd >= 0)
        close(fd);
}

struct place {
    struct node *dir;
    const char *name;
};

static void content_changed(struct node *n, const struct stat *st, void *arg)
{
    const struct place *at = arg;
    forget_content(n);
    if (n->type != S_IFREG)
        return;
    node_retire(n);
    if (n->parent && (n->parent != at->dir || strcmp(n->name, at->name) != 0))
        expire_name(n->parent, n->name);
    if (n->pins)
        grow(n, st->st_size);
}

static void forget_all(struct node *n, void *arg)
{
    (void)arg;
    if (n->type == S_IFDIR)
        forget_content(n);
    else
        node_retire(n);
    if (n->parent)
        expire_name(n->parent, n->name);
}

void notify_changed(struct node *dir, const char *name, bool content)
{
    if (!session)
        return;
    if (!dir) {
        nodes_each(forget_all, NULL);
        return;
    }
    if (!name) {
        forget_content(dir);
        return;
    }
    struct place at = {dir, name};
    node_each_known(dir, name, content_changed, &at);
    expire_name(dir, name);
    if (!content)
        forget_content(dir);
}
