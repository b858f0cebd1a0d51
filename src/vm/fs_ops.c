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

#include "vm/fs_nested.h"
#include "vm/fs_ops_int.h"
#include "vm/fs_rules.h"

static const struct fs_config *config;

/* ---- what all operations share ---- */

bool fs_name_ok(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n <= NAME_MAX && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !memchr(name, '/', n);
}

/* A path that leads to an O_PATH descriptor's file: the kernel's own, so nothing in between can be swapped. */
void fs_proc_path(char out[64], int fd)
{
    snprintf(out, 64, "/proc/self/fd/%d", fd);
}

/* The inode number stays the host's: git compares it with what its index has.  Where a folder spans file systems, or
 * several folders do, equal numbers of different ones must not look like one file. */
void fs_squash(struct stat *st)
{
    static dev_t first;
    if (!first)
        first = st->st_dev;
    if (st->st_dev != first)
        st->st_ino ^= ((uint64_t)st->st_dev * 0x9e3779b97f4a7c15ull) & 0xffff000000000000ull;
    st->st_uid = config->uid;
    st->st_gid = config->gid;
    st->st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
    st->st_dev = 0;
}

static bool rules_down(const struct fs_rules *r, const struct node *n, unsigned depth, struct fs_rules_at *at)
{
    if (!n->parent) {
        fs_rules_top(r, at);
        return true;
    }
    if (depth == FS_DEPTH_MAX || !rules_down(r, n->parent, depth + 1, at))
        return false;
    fs_rules_step(r, at, n->name);
    return true;
}

/* False: it lies so deep that it would take all the stack to find out. */
static bool rules_at(const struct fs_rules *r, const struct node *n, struct fs_rules_at *at)
{
    return rules_down(r, n, 0, at);
}

bool fs_hidden(struct node *parent, const char *name)
{
    const struct fs_rules *r = node_folder(parent)->rules;
    struct fs_rules_at at;
    if (fs_rules_empty(r))
        return false;
    if (!rules_at(r, parent, &at))
        return true;
    if (name)
        fs_rules_step(r, &at, name);
    return fs_rules_hidden(r, &at);
}

static int may_change(struct node *n, const char *name, mode_t makes)
{
    const struct fs_folder *f = node_folder(n);
    if (name && !fs_name_ok(name))
        return strlen(name) > NAME_MAX ? ENAMETOOLONG : EINVAL;
    if (f->read_only)
        return EROFS;
    if (fs_rules_empty(f->rules))
        return 0;
    struct fs_rules_at at;
    if (!rules_at(f->rules, n, &at))
        return ENAMETOOLONG;
    if (name)
        fs_rules_step(f->rules, &at, name);
    if (fs_rules_readonly(f->rules, &at) && !(S_ISDIR(makes) && fs_rules_opens(f->rules, &at)))
        return EROFS;
    if (fs_rules_hidden(f->rules, &at))
        return makes ? EPERM : ENOENT;
    return makes && !S_ISDIR(makes) && fs_rules_leads(f->rules, &at) ? EPERM : 0;
}

int fs_may_change(struct node *n, const char *name, mode_t makes)
{
    int why = may_change(n, name, makes);
    if (!why && name && makes)
        nested_changed(n, name);
    else if (!why && !name && n->parent)
        nested_changed(n->parent, n->name);
    return why;
}

#define ROOM_BYTES (16u << 20) /* so much, or so long, may go by before the disk is asked again */
#define ROOM_MS 200
#define ROOM_NAMES 8192u /* so many names before the last one each is asked for */
#define ROOM_OF_NAME 4096u /* what a name may take: an inode, or a block of its directory */

/* Files that no sandbox can use up, as limit.keep_free says of bytes; a file system without a table of them says 0. */
static uint64_t kept_files(const struct statvfs *st)
{
    uint64_t share = st->f_files / 64;
    return share < FS_KEEP_FILES_MAX ? share : FS_KEEP_FILES_MAX;
}

int fs_room(const struct node *n, size_t more)
{
    static struct {
        int64_t at_ms;
        uint64_t written;
        bool full, crowded, few;
    } seen[FS_FOLDERS_MAX];
    struct timespec now;
    struct statvfs st;
    if (!config->keep_free)
        return 0;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    uint64_t *written = &seen[n->folder].written;
    *written += more ? more : ROOM_OF_NAME;
    if (!seen[n->folder].at_ms || ms - seen[n->folder].at_ms >= ROOM_MS || *written >= ROOM_BYTES ||
        (more == 0 && seen[n->folder].few)) {
        bool known = fstatvfs(node_folder(n)->fd, &st) == 0;
        uint64_t room = known ? (uint64_t)st.f_bavail * st.f_frsize : UINT64_MAX;
        seen[n->folder].crowded = known && st.f_favail < kept_files(&st);
        seen[n->folder].few = known && st.f_files && st.f_favail < kept_files(&st) + ROOM_NAMES;
        seen[n->folder].full = room < config->keep_free || room - config->keep_free < more;
        seen[n->folder].at_ms = ms;
        *written = 0;
    }
    return seen[n->folder].full || (more == 0 && seen[n->folder].crowded) ? ENOSPC : 0;
}

/* A directory takes with it what rules say of the places beneath: they must say the same of them at the new place. */
static int may_move_dir(struct node *p, const char *name, struct node *q, const char *newname)
{
    const struct fs_rules *r = node_folder(p)->rules;
    struct fs_rules_at from, to;
    if (fs_rules_empty(r))
        return 0;
    if (!rules_at(r, p, &from) || !rules_at(r, q, &to))
        return ENAMETOOLONG;
    fs_rules_step(r, &from, name);
    fs_rules_step(r, &to, newname);
    return fs_rules_keep(r, &from, &to) && fs_rules_keep(r, &to, &from) ? 0 : EPERM;
}

void fs_own_change(struct node *n)
{
    /* If the guest knows the file as two inodes the other one has to be told. */
    if (!n->twin)
        watch_own_node(n);
}

/* How long attributes hold: changes of what a directory holds, and those through a further name that is not
 * watched, are told by nobody. */
static double attr_timeout(const struct node *n, const struct stat *st, bool watched)
{
    bool told = S_ISDIR(st->st_mode) ? n->wd >= 0 && (watched || !n->parent) : watched && st->st_nlink == 1;
    return told ? FS_LONG_S : FS_SHORT_S;
}

/* The directory that FUSE's root is: one entry for each folder, by its number. */
static void root_stat(struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_ino = FUSE_ROOT_ID;
    st->st_mode = S_IFDIR | 0755;
    st->st_nlink = 2;
}

bool fs_root_entry(unsigned folder, struct fuse_entry_param *e)
{
    struct node *n = node_top(folder);
    memset(e, 0, sizeof *e);
    if (!n || (watch_dir(n), node_stat(n, NULL, &e->attr, NULL)) != 0)
        return false;
    e->ino = node_number(n);
    e->attr_timeout = attr_timeout(n, &e->attr, true);
    e->entry_timeout = FS_LONG_S;
    fs_squash(&e->attr);
    return true;
}

int fs_entry(struct node *parent, const char *name, struct fuse_entry_param *e)
{
    memset(e, 0, sizeof *e);
    bool watched = watch_dir(parent); /* before it is looked at: what changes after is told */
    e->entry_timeout = watched ? FS_LONG_S : FS_SHORT_S;
    struct node *n = node_lookup(parent, name, &e->attr);
    if (!n)
        return errno;
    e->ino = node_number(n);
    e->attr_timeout = attr_timeout(n, &e->attr, watched);
    fs_squash(&e->attr);
    return 0;
}

static void reply_entry(fuse_req_t req, struct node *parent, const char *name)
{
    struct fuse_entry_param e;
    int why = fs_entry(parent, name, &e);
    if (why)
        fuse_reply_err(req, why);
    else if (fuse_reply_entry(req, &e) < 0)
        node_forget(node_get(e.ino), 1);
}

/* The directory in which a name is to be made or removed, its descriptor in *at.  0 or an errno. */
static int change_in(fuse_ino_t ino, const char *name, mode_t makes, struct node **p, int *at)
{
    *p = ino == FUSE_ROOT_ID ? NULL : node_get(ino);
    if (!*p)
        return ino == FUSE_ROOT_ID ? EPERM : ESTALE;
    int why = fs_may_change(*p, name, makes);
    if (!why && makes)
        why = fs_room(*p, 0);
    if (why)
        return why;
    watch_own(*p, name);
    *at = node_fd(*p);
    return *at < 0 ? -*at : 0;
}

/* ---- operations ---- */

static void op_init(void *arg, struct fuse_conn_info *c)
{
    (void)arg;
    /* Not READDIRPLUS_AUTO: who reads a directory whole before it looks at its files (find, ls) would pay a look-up
     * for nearly each. */
    c->want &= ~(unsigned)FUSE_CAP_READDIRPLUS_AUTO;
    c->want |= c->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_READDIRPLUS | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_WRITEBACK_CACHE |
                             FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_ASYNC_DIO | FUSE_CAP_CACHE_SYMLINKS |
                             FUSE_CAP_EXPORT_SUPPORT);
    c->want &= ~(unsigned)(FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_AUTO_INVAL_DATA |
                           FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
                           FUSE_CAP_SPLICE_MOVE);
    c->max_write = 1024 * 1024;
    c->max_readahead = 512 * 1024;
    c->max_background = 64;
    c->congestion_threshold = 48;
    c->time_gran = 1;
}

static unsigned folder_number(const char *name)
{
    char *end;
    unsigned long i = strtoul(name, &end, 10);
    return *end == '\0' && name[0] >= '0' && name[0] <= '9' && i < FS_FOLDERS_MAX ? (unsigned)i : FS_FOLDERS_MAX;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e;
    if (parent == FUSE_ROOT_ID) {
        if (fs_root_entry(folder_number(name), &e))
            fuse_reply_entry(req, &e);
        else
            fuse_reply_err(req, ENOENT);
        return;
    }
    struct node *p = node_get(parent);
    if (!p || !fs_name_ok(name)) {
        fuse_reply_err(req, !p ? ESTALE : strlen(name) > NAME_MAX ? ENAMETOOLONG : EINVAL);
        return;
    }
    memset(&e, 0, sizeof e);
    int why = fs_hidden(p, name) ? ENOENT : fs_entry(p, name, &e);
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

static void reply_attr(fuse_req_t req, struct node *n)
{
    struct stat st;
    bool watched = watch_dir(n->parent ? n->parent : n);
    int why = node_stat(n, NULL, &st, NULL);
    if (why) {
        fuse_reply_err(req, why);
        return;
    }
    double timeout = attr_timeout(n, &st, watched);
    fs_squash(&st);
    fuse_reply_attr(req, &st, timeout);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct node *n = node_get(ino);
    (void)fi;
    if (ino == FUSE_ROOT_ID) {
        struct stat st;
        root_stat(&st);
        fuse_reply_attr(req, &st, FS_LONG_S);
    } else if (n) {
        reply_attr(req, n);
    } else {
        fuse_reply_err(req, ESTALE);
    }
}

static int set_times(int fd, const struct stat *attr, int what)
{
    struct timespec tv[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    if (what & FUSE_SET_ATTR_ATIME_NOW)
        tv[0].tv_nsec = UTIME_NOW;
    else if (what & FUSE_SET_ATTR_ATIME)
        tv[0] = attr->st_atim;
    if (what & FUSE_SET_ATTR_MTIME_NOW)
        tv[1].tv_nsec = UTIME_NOW;
    else if (what & FUSE_SET_ATTR_MTIME)
        tv[1] = attr->st_mtim;
    return utimensat(fd, "", tv, AT_EMPTY_PATH) < 0 ? errno : 0;
}

static int set_attr(struct node *n, const struct stat *attr, int what, const struct handle *h)
{
    char path[64];
    int why = fs_may_change(n, NULL, 0);
    if (why)
        return why;
    fs_own_change(n);
    int fd = node_fd(n);
    if (fd < 0)
        return -fd;
    fs_proc_path(path, fd);
    /* Owners are squashed: to change one changes nothing, and says so by success.  `tar` and `cp -a` as root, npm and
     * `sudo make install` need no more; a refusal would end them. */
    if ((what & FUSE_SET_ATTR_MODE) && n->type != S_IFLNK && chmod(path, attr->st_mode & 01777) < 0)
        return errno;
    if (what & FUSE_SET_ATTR_SIZE) {
        if (n->type != S_IFREG)
            return EINVAL;
        if ((h && h->node == n ? ftruncate(h->fd, attr->st_size) : truncate(path, attr->st_size)) < 0)
            return errno;
    }
    const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW;
    return what & times ? set_times(fd, attr, what) : 0;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int what, struct fuse_file_info *fi)
{
    struct node *n = ino == FUSE_ROOT_ID ? NULL : node_get(ino);
    int why = n ? set_attr(n, attr, what, fi ? handle_get(fi->fh) : NULL)
                : ino == FUSE_ROOT_ID ? EPERM : ESTALE;
    if (why)
        fuse_reply_err(req, why);
    else
        reply_attr(req, n);
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

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct node *p;
    int at, why = change_in(parent, name, mode & S_IFMT, &p, &at);
    (void)rdev;
    /* Files, FIFOs and sockets' names; a device node has no business on the host. */
    if (!why && !S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
        why = EPERM;
    if (!why && mknodat(at, name, (mode & S_IFMT) | (mode & 0777), 0) < 0)
        why = errno;
    if (why)
        fuse_reply_err(req, why);
    else
        reply_entry(req, p, name);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct node *p;
    int at, why = change_in(parent, name, S_IFDIR, &p, &at);
    if (!why && mkdirat(at, name, mode & 01777) < 0)
        why = errno;
    if (why)
        fuse_reply_err(req, why);
    else
        reply_entry(req, p, name);
}

/* A link is text: where it leads is found out in the guest, among the guest's files. */
static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct node *p;
    int at, why = change_in(parent, name, S_IFLNK, &p, &at);
    if (!why && symlinkat(target, at, name) < 0)
        why = errno;
    if (why)
        fuse_reply_err(req, why);
    else
        reply_entry(req, p, name);
}

static bool is_last_name(const struct stat *st)
{
    return S_ISDIR(st->st_mode) || st->st_nlink <= 1;
}

static fuse_ino_t gone; /* what the request that is served removed for good (FSPORT_KNOW_GONE), or 0 */

static void name_left(struct node *n, struct node *parent, const char *name, bool left, bool last)
{
    /* Only the pin of node_leaving is on it: no handle, nor is there another node of it that could have one. */
    if (n && left && last && n->type != S_IFDIR && n->pins == 1 && !n->twin)
        gone = node_number(n);
    node_left(n, parent, name, left, last);
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, int flags)
{
    struct node *p;
    struct stat st;
    int at, why = change_in(parent, name, 0, &p, &at);
    if (!why)
        why = node_stat(p, name, &st, NULL);
    if (!why) {
        node_pin(p);
        struct node *n = node_leaving(p, name);
        at = node_fd(p);
        if (at < 0 || unlinkat(at, name, flags) < 0)
            why = at < 0 ? -at : errno;
        name_left(n, p, name, !why, is_last_name(&st));
        node_unpin(p);
    }
    fuse_reply_err(req, why);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, 0);
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    remove_name(req, parent, name, AT_REMOVEDIR);
}

/* Both directories' descriptors at once; opening the second may have closed the first. */
static int both_fds(struct node *p, struct node *q, int *from, int *to)
{
    *from = node_fd(p);
    *to = node_fd(q);
    if (*to >= 0)
        *from = node_fd(p);
    return *from < 0 ? -*from : *to < 0 ? -*to : 0;
}

static int rename_pinned(struct node *p, const char *name, struct node *q, const char *newname, unsigned flags)
{
    struct stat st, old;
    int from, to, why = node_stat(p, name, &st, NULL);
    if (why)
        return why;
    mode_t type = st.st_mode & S_IFMT;
    if ((why = fs_may_change(q, newname, type)) != 0)
        return why;
    bool replaced = node_stat(q, newname, &old, NULL) == 0;
    bool exchange = flags & RENAME_EXCHANGE, moves_dir = S_ISDIR(type);
    if (exchange && replaced) {
        if ((why = fs_may_change(p, name, old.st_mode & S_IFMT)) != 0)
            return why;
        moves_dir |= S_ISDIR(old.st_mode);
    }
    if (moves_dir && (why = may_move_dir(p, name, q, newname)) != 0)
        return why;
    struct node *moving = node_known_child(p, name);
    struct node *other = exchange ? node_known_child(q, newname) : NULL;
    struct node *leaving = replaced && !flags ? node_leaving(q, newname) : NULL;
    bool same = leaving && leaving == moving; /* two names of one file: nothing happens */
    why = both_fds(p, q, &from, &to);
    if (!why && renameat2(from, name, to, newname, flags) < 0)
        why = errno;
    name_left(leaving, q, newname, !why && !same, replaced && is_last_name(&old));
    if (why)
        return why;
    if (moves_dir) {
        nested_moved(p, name, q, newname);
        if (exchange)
            nested_moved(q, newname, p, name);
    }
    if (moving && node_known_child(q, newname) == moving)
        node_moved(moving, q, newname);
    if (other && node_known_child(p, name) == other)
        node_moved(other, p, name);
    return 0;
}

static int rename_name(fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
    struct node *p, *q;
    int from, to, why = change_in(parent, name, 0, &p, &from);
    if (why || (why = change_in(newparent, newname, S_IFDIR, &q, &to)) != 0)
        return why;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return EINVAL;
    if (p->folder != q->folder)
        return EXDEV;
    /* The guest may have forgotten them: then only their children keep them, which are about to move. */
    node_pin(p);
    node_pin(q);
    why = rename_pinned(p, name, q, newname, flags);
    node_unpin(q);
    node_unpin(p);
    return why;
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname,
                      unsigned flags)
{
    fuse_reply_err(req, rename_name(parent, name, newparent, newname, flags));
}

static int link_name(struct node *n, struct node *p, const char *name)
{
    int from, to, why;
    char path[64];
    if (p->folder != n->folder)
        return EXDEV;
    if (n->type == S_IFDIR)
        return EPERM;
    /* A second name would lead around a rule on the first. */
    if ((why = fs_may_change(n, NULL, 0)) != 0)
        return why == EROFS ? EPERM : why;
    if (n->type == S_IFLNK) { /* /proc's link would be resolved to the file behind */
        if ((why = both_fds(n->parent, p, &from, &to)) != 0)
            return why;
        return linkat(from, n->name, to, name, 0) < 0 ? errno : 0;
    }
    if ((why = both_fds(n, p, &from, &to)) != 0)
        return why;
    fs_proc_path(path, from);
    return linkat(AT_FDCWD, path, to, name, AT_SYMLINK_FOLLOW) < 0 ? errno : 0;
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    struct node *n = ino == FUSE_ROOT_ID ? NULL : node_get(ino), *p;
    int at, why = !n ? ESTALE : change_in(parent, name, n->type, &p, &at);
    if (!why)
        why = link_name(n, p, name);
    if (why)
        fuse_reply_err(req, why);
    else
        reply_entry(req, p, name);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct node *n = ino == FUSE_ROOT_ID ? node_top(0) : node_get(ino);
    int fd = n ? node_fd(n) : -ESTALE;
    struct statvfs st;
    if (fd < 0 || fstatvfs(fd, &st) < 0)
        fuse_reply_err(req, fd < 0 ? -fd : errno);
    else {
        /* What it cannot fill it does not have. */
        uint64_t kept = st.f_frsize ? config->keep_free / st.f_frsize : 0;
        st.f_bavail = st.f_bavail > kept ? st.f_bavail - kept : 0;
        st.f_bfree = st.f_bfree > kept ? st.f_bfree - kept : 0;
        uint64_t files = config->keep_free ? kept_files(&st) : 0;
        st.f_favail = st.f_favail > files ? st.f_favail - files : 0;
        st.f_ffree = st.f_ffree > files ? st.f_ffree - files : 0;
        fuse_reply_statfs(req, &st);
    }
}

/* ---- what is said beforehand (core/fsport.h) ---- */

static void to_attr(const struct stat *st, struct fuse_attr *a)
{
    *a = (struct fuse_attr){
        .ino = st->st_ino, .size = (uint64_t)st->st_size, .blocks = (uint64_t)st->st_blocks,
        .atime = (uint64_t)st->st_atim.tv_sec, .mtime = (uint64_t)st->st_mtim.tv_sec, .ctime = (uint64_t)st->st_ctim.tv_sec,
        .atimensec = (uint32_t)st->st_atim.tv_nsec, .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)st->st_ctim.tv_nsec, .mode = st->st_mode, .nlink = (uint32_t)st->st_nlink, .uid = st->st_uid,
        .gid = st->st_gid, .rdev = (uint32_t)st->st_rdev, .blksize = (uint32_t)st->st_blksize};
}

static bool is_empty(struct node *n)
{
    int at = node_fd(n), fd = at < 0 ? -1 : openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    bool empty = d != NULL;
    const struct dirent *e;
    while (empty && (e = readdir(d)))
        empty = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    return empty;
}

bool fs_know(const struct fuse_in_header *h, const uint8_t *msg, const uint8_t *reply, size_t len, struct fsport_know *k)
{
    struct fuse_open_in open;
    struct fuse_create_in create;
    struct fuse_out_header o;
    struct fuse_entry_out entry;
    struct stat st;
    struct node *n = h->nodeid == FUSE_ROOT_ID ? NULL : node_get(h->nodeid), *made = NULL;
    memset(k, 0, sizeof *k);
    k->node = h->nodeid;
    k->gone = gone;
    gone = 0;
    switch (h->opcode) {
    case FUSE_OPEN:
        memcpy(&open, msg + sizeof *h, sizeof open);
        if (!(open.flags & O_TRUNC))
            return false;
        break;
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
    case FUSE_COPY_FILE_RANGE: /* of the file that is read */
        k->flags = FSPORT_KNOW_OTHERS;
        break;
    case FUSE_MKDIR:
        if (len < sizeof o + sizeof entry)
            break;
        memcpy(&entry, reply + sizeof o, sizeof entry);
        made = node_get(entry.nodeid);
        break;
    case FUSE_CREATE:
        memcpy(&create, msg + sizeof *h, sizeof create);
        if (create.flags & O_TRUNC) /* it may have been there */
            k->flags = FSPORT_KNOW_OTHERS;
        break;
    case FUSE_MKNOD:
    case FUSE_SYMLINK:
    case FUSE_SETATTR:
    case FUSE_WRITE:
    case FUSE_FALLOCATE:
        break;
    default:
        return false;
    }
    bool watched = n && watch_dir(n->parent ? n->parent : n);
    double holds = n && node_stat(n, NULL, &st, NULL) == 0 ? attr_timeout(n, &st, watched) : 0;
    if (holds >= FS_LONG_S) {
        fs_squash(&st);
        to_attr(&st, &k->attr.attr);
        k->attr.attr_valid = (uint64_t)holds;
        k->flags |= FSPORT_KNOW_ATTR;
    }
    if (k->gone)
        k->flags |= FSPORT_KNOW_GONE;
    if (made && watch_dir(made) && is_empty(made)) { /* watched before it is looked at */
        k->made = node_number(made);
        k->flags |= FSPORT_KNOW_EMPTY;
    }
    return true;
}

const struct fuse_lowlevel_ops *fs_ops(const struct fs_config *c)
{
    static const struct fuse_lowlevel_ops ops = {
        .init = op_init, .lookup = op_lookup, .forget = op_forget, .forget_multi = op_forget_multi,
        .getattr = op_getattr, .setattr = op_setattr, .readlink = op_readlink, .mknod = op_mknod, .mkdir = op_mkdir,
        .symlink = op_symlink, .unlink = op_unlink, .rmdir = op_rmdir, .rename = op_rename, .link = op_link,
        .open = op_open, .create = op_create, .read = op_read, .write = op_write, .flush = op_flush,
        .release = op_release, .fsync = op_fsync, .opendir = op_opendir, .readdir = op_readdir,
        .readdirplus = op_readdirplus, .fsyncdir = op_fsyncdir, .statfs = op_statfs,
        .fallocate = op_fallocate, .lseek = op_lseek, .copy_file_range = op_copy_file_range,
    };
    config = c;
    return &ops;
}
