/* `sbx fs NAME`: serves the shared folders to the guest, raw FUSE messages on descriptor 3, and sees nothing else
 * of the host.  One loop: requests, the host's own changes (inotify), the supervisor. */
#include "vm/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "core/confine.h"
#include "core/linkev.h"
#include "core/log.h"
#include "vm/fs_check.h"
#include "vm/fs_ops.h"

enum { FD_PORT = 3, FD_SUPERVISOR = 4 };

#define IN_CAP (FS_MESSAGE_MAX * 2)
#define MESSAGES_PER_WAKE 64
#define OWN_MS 1500 /* an event for what the guest itself changed so recently says nothing new to it */
#define WATCHES_MAX 200000

struct fs {
    struct event_base *base;
    struct linkev *supervisor;
    struct event *port_ev, *watch_ev, *more_ev;
    struct fuse_session *session;
    struct fs_folder folders[FS_FOLDERS_MAX];
    unsigned nfolders;
    uint8_t *in;
    size_t in_pos, in_len;
    int inotify;
    struct node **by_wd;
    int wd_cap;
    unsigned watches;
    bool watch_full;
    uint64_t requests, bad, bytes;
};

static struct fs fs;
static struct fs_config config;

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void stop(const char *why)
{
    if (why)
        log_line("%s", why);
    event_base_loopbreak(fs.base);
}

/* ---- what the host changes ---- */

static bool watch(struct node *dir)
{
    if (dir->wd >= 0)
        return true;
    if (fs.watch_full || fs.inotify < 0)
        return false;
    int fd = node_fd(dir);
    if (fd < 0)
        return false;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int wd = fs.watches < WATCHES_MAX
                 ? inotify_add_watch(fs.inotify, path,
                                     IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                                         IN_ONLYDIR | IN_EXCL_UNLINK)
                 : (errno = ENOSPC, -1);
    if (wd < 0) {
        if (errno == ENOSPC || errno == ENOMEM) {
            fs.watch_full = true;
            log_line("the host allows no more inotify watches (fs.inotify.max_user_watches): changes that it makes in "
                     "further folders are seen after a second");
        }
        return false;
    }
    if (wd >= fs.wd_cap) {
        int cap = wd * 2 + 64;
        struct node **more = realloc(fs.by_wd, (size_t)cap * sizeof *more);
        if (!more)
            return false;
        memset(more + fs.wd_cap, 0, (size_t)(cap - fs.wd_cap) * sizeof *more);
        fs.by_wd = more;
        fs.wd_cap = cap;
    }
    if (!fs.by_wd[wd])
        fs.watches++;
    fs.by_wd[wd] = dir;
    dir->wd = wd;
    return true;
}

/* Nodes come and go; a watch points to its directory's number, checked when an event comes. */
static struct node *watched(int wd)
{
    struct node *n = wd >= 0 && wd < fs.wd_cap ? fs.by_wd[wd] : NULL;
    return n && n->wd == wd ? n : NULL;
}

static void invalidate(struct node *dir, const struct inotify_event *ev)
{
    if (ev->len == 0)
        return;
    struct node *child = node_known_child(dir, ev->name);
    int64_t now = now_ms();
    if (ev->mask & (IN_MODIFY | IN_ATTRIB)) {
        if (child && now - child->changed_ms > OWN_MS)
            fuse_lowlevel_notify_inval_inode(fs.session, node_number(child), 0, 0);
        return;
    }
    if (now - dir->changed_ms <= OWN_MS) {
        /* The guest was at work in this directory: most likely that is what we hear.  If it was the host after all,
         * then soon enough: the name alone is dropped, which costs the guest one look-up. */
        if (!child || now - child->changed_ms <= OWN_MS)
            if (ev->mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM))
                return;
    }
    fuse_lowlevel_notify_inval_entry(fs.session, node_number(dir), ev->name, strlen(ev->name));
    fuse_lowlevel_notify_inval_inode(fs.session, node_number(dir), 0, 0);
    if (child)
        fuse_lowlevel_notify_inval_inode(fs.session, node_number(child), 0, 0);
}

static void invalidate_all(struct node *n, void *arg)
{
    (void)arg;
    fuse_lowlevel_notify_inval_inode(fs.session, node_number(n), 0, 0);
    if (n->parent)
        fuse_lowlevel_notify_inval_entry(fs.session, node_number(n->parent), n->name, strlen(n->name));
}

static void on_inotify(evutil_socket_t fd, short what, void *arg)
{
    char buf[64 * 1024] __attribute__((aligned(8)));
    (void)what;
    (void)arg;
    ssize_t n = read((int)fd, buf, sizeof buf);
    for (char *p = buf; n > 0 && p < buf + n;) {
        struct inotify_event *ev = (struct inotify_event *)p;
        p += sizeof *ev + ev->len;
        if (ev->mask & IN_Q_OVERFLOW) {
            log_line("the host changes files faster than can be followed: everything is read afresh");
            nodes_each_dir(invalidate_all, NULL);
            continue;
        }
        if (ev->mask & IN_IGNORED) {
            if (ev->wd >= 0 && ev->wd < fs.wd_cap && fs.by_wd[ev->wd]) {
                struct node *dir = watched(ev->wd);
                if (dir)
                    dir->wd = -1;
                fs.by_wd[ev->wd] = NULL;
                fs.watches--;
            }
            continue;
        }
        struct node *dir = watched(ev->wd);
        if (dir && fs.session)
            invalidate(dir, ev);
    }
}

/* A node that is freed must not be found through its watch. */
static void unwatch(struct node *n)
{
    if (n->wd < 0)
        return;
    if (n->wd < fs.wd_cap && fs.by_wd[n->wd] == n) {
        fs.by_wd[n->wd] = NULL;
        fs.watches--;
    }
    inotify_rm_watch(fs.inotify, n->wd);
    n->wd = -1;
}

/* ---- messages ---- */

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *arg)
{
    ssize_t total = 0;
    (void)arg;
    for (int i = 0; i < count; i++)
        total += (ssize_t)iov[i].iov_len;
    ssize_t done = 0;
    while (done < total) {
        ssize_t n = writev(fd, iov, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            /* The guest does not read: it waits for itself. */
            struct pollfd p[2] = {{.fd = fd, .events = POLLOUT}, {.fd = FD_SUPERVISOR, .events = POLLHUP}};
            poll(p, 2, -1);
            if (p[1].revents & (POLLHUP | POLLERR))
                return -1;
            continue;
        }
        if (n < 0)
            return -1;
        done += n;
        while (count && (size_t)n >= iov->iov_len) {
            n -= (ssize_t)iov->iov_len;
            iov++;
            count--;
        }
        if (count) {
            iov->iov_base = (char *)iov->iov_base + n;
            iov->iov_len -= (size_t)n;
        }
    }
    fs.bytes += (uint64_t)total;
    return total;
}

static ssize_t io_read(int fd, void *buf, size_t len, void *arg)
{
    (void)fd;
    (void)buf;
    (void)len;
    (void)arg;
    return -1; /* messages are handed over by process() below */
}

static void process(void)
{
    unsigned n = 0;
    while (fs.in_len - fs.in_pos >= 4) {
        uint32_t len;
        memcpy(&len, fs.in + fs.in_pos, 4);
        if (len < 40 || len > FS_MESSAGE_MAX) {
            stop("a message of impossible length on the fs port");
            return;
        }
        if (fs.in_len - fs.in_pos < len)
            break;
        if (++n > MESSAGES_PER_WAKE) { /* inotify and the supervisor get their turn */
            event_active(fs.more_ev, 0, 0);
            return;
        }
        fs.requests++;
        if (fs_check(fs.in + fs.in_pos, len)) {
            struct fuse_buf b = {.size = len, .mem = fs.in + fs.in_pos};
            fuse_session_process_buf(fs.session, &b);
        } else {
            /* Unknown requests are answered; broken ones as well, so that whoever sent them is not left waiting. */
            struct {
                uint32_t len;
                int32_t error;
                uint64_t unique;
            } reply = {16, -ENOSYS, 0};
            memcpy(&reply.unique, fs.in + fs.in_pos + 8, 8);
            struct iovec iov = {&reply, sizeof reply};
            fs.bad++;
            io_writev(FD_PORT, &iov, 1, NULL);
        }
        fs.in_pos += len;
    }
    if (fs.in_pos == fs.in_len) {
        fs.in_pos = fs.in_len = 0;
    } else if (fs.in_pos > IN_CAP - FS_MESSAGE_MAX) {
        memmove(fs.in, fs.in + fs.in_pos, fs.in_len - fs.in_pos);
        fs.in_len -= fs.in_pos;
        fs.in_pos = 0;
    }
}

static void on_port(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    (void)arg;
    ssize_t n = read((int)fd, fs.in + fs.in_len, IN_CAP - fs.in_len);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        stop(n < 0 ? strerror(errno) : NULL);
        return;
    }
    fs.in_len += (size_t)n;
    process();
}

static void on_more(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    process();
}

/* ---- the supervisor ---- */

static unsigned raise_fds(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return 1024;
    r.rlim_cur = r.rlim_max > 200000 ? 200000 : r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    return (unsigned)r.rlim_cur;
}

static int confine_to_folders(struct err *e)
{
    struct confine_path paths[FS_FOLDERS_MAX + 1];
    size_t n = 0;
    for (unsigned i = 0; i < fs.nfolders; i++)
        paths[n++] = (struct confine_path){
            .fd = fs.folders[i].fd,
            .access = CONFINE_READ | (fs.folders[i].read_only ? 0 : CONFINE_WRITE)};
    const struct confine c = {.groups = CONFINE_IO | CONFINE_FILES, .paths = paths, .npaths = n, .own_network = false};
    return confine_self(&c, e);
}

static int start_serving(const json_t *msg, struct err *e)
{
    static const struct fuse_custom_io io = {.writev = io_writev, .read = io_read};
    size_t i;
    json_t *f;
    json_array_foreach(json_object_get(msg, "folders"), i, f) {
        json_int_t fd = json_integer_value(json_object_get(f, "fd"));
        if (i >= FS_FOLDERS_MAX || fd < 5 || fcntl((int)fd, F_GETFD) < 0)
            return err_set(e, STATUS_FAILED, "folder %zu has no descriptor", i);
        fs.folders[fs.nfolders++] =
            (struct fs_folder){.fd = (int)fd, .read_only = json_is_true(json_object_get(f, "ro"))};
    }
    config = (struct fs_config){.uid = (unsigned)json_integer_value(json_object_get(msg, "uid")),
                                .gid = (unsigned)json_integer_value(json_object_get(msg, "gid")), .watch = watch};
    unsigned fds = raise_fds();
    umask(0); /* the guest's kernel applied its own */
    if (nodes_init(fs.folders, fs.nfolders, fds / 2) < 0)
        return err_errno(e, errno, "cannot open the folders");
    node_set_freed(unwatch);
    fs.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    char *argv[] = {(char *)"sbx-fs", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    const struct fuse_lowlevel_ops *ops = fs_ops(&config);
    fs.session = fuse_session_new(&args, ops, sizeof *ops, NULL);
    fuse_opt_free_args(&args);
    if (!fs.session || fuse_session_custom_io(fs.session, &io, FD_PORT) != 0)
        return err_set(e, STATUS_FAILED, "cannot start the FUSE session");
    fs.in = malloc(IN_CAP + 8);
    fs.port_ev = event_new(fs.base, FD_PORT, EV_READ | EV_PERSIST, on_port, NULL);
    fs.more_ev = event_new(fs.base, -1, 0, on_more, NULL);
    if (!fs.in || !fs.port_ev || !fs.more_ev)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (fs.inotify >= 0) {
        fs.watch_ev = event_new(fs.base, fs.inotify, EV_READ | EV_PERSIST, on_inotify, NULL);
        if (fs.watch_ev)
            event_add(fs.watch_ev, NULL);
    }
    if (confine_to_folders(e) < 0)
        return -1;
    event_add(fs.port_ev, NULL);
    return 0;
}

static void on_ctrl(struct linkev *c, json_t *msg, void *arg)
{
    const char *op = json_string_value(json_object_get(msg, "op"));
    json_t *reply = json_pack("{s:s, s:O}", "op", "reply", "id", json_object_get(msg, "id"));
    struct err e = {0};
    (void)arg;
    if (op && strcmp(op, "start") == 0 && !fs.session) {
        int rc = start_serving(msg, &e);
        json_object_set_new(reply, "ok", json_boolean(rc == 0));
        if (rc < 0)
            json_object_set_new(reply, "error", json_string(e.text));
    } else if (op && strcmp(op, "stats") == 0) {
        json_object_set_new(reply, "ok", json_true());
        json_object_set_new(reply, "requests", json_integer((json_int_t)fs.requests));
        json_object_set_new(reply, "bad", json_integer((json_int_t)fs.bad));
        json_object_set_new(reply, "nodes", json_integer(nodes_count()));
        json_object_set_new(reply, "watches", json_integer(fs.watches));
    } else {
        json_decref(reply);
        return;
    }
    link_send_ctrl(linkev_link(c), reply);
}

static void on_closed(struct linkev *c, const char *why, void *arg)
{
    (void)c;
    (void)arg;
    stop(why);
}

int fs_main(int argc, char **argv)
{
    static const struct linkev_ops ops = {.ctrl = on_ctrl, .closed = on_closed};
    (void)argc;
    (void)argv;
    log_init("fs");
    signal(SIGPIPE, SIG_IGN);
    fs.inotify = -1;
    fs.base = event_base_new();
    fs.supervisor = fs.base ? linkev_new(fs.base, FD_SUPERVISOR, &ops, NULL) : NULL;
    if (!fs.supervisor) {
        log_line("cannot start: out of memory");
        return STATUS_FAILED;
    }
    evutil_make_socket_nonblocking(FD_PORT);
    link_send_ctrl(linkev_link(fs.supervisor), json_pack("{s:s, s:s, s:i}", "op", "hello", "role", "fs", "version", 1));
    event_base_dispatch(fs.base);
    return STATUS_OK; /* what is open is closed by the end of the process */
}
