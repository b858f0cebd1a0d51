/* `sbx fs NAME`: serves the shared folders to the guest, raw FUSE messages on descriptor 3, and sees nothing else
 * of the host.  One loop: requests, the host's own changes (inotify), the supervisor. */
#include "vm/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/confine.h"
#include "core/fsport.h"
#include "core/linkev.h"
#include "core/log.h"
#include "vm/fs_check.h"
#include "vm/fs_nested.h"
#include "vm/fs_notify.h"
#include "vm/fs_ops.h"
#include "vm/fs_rules.h"
#include "vm/fs_watch.h"
#include "vm/fs_work.h"

enum { FD_PORT = 3, FD_SUPERVISOR = 4 };

#define IN_CAP (FS_MESSAGE_MAX * 2)
#define MESSAGES_PER_WAKE 64

struct fs {
    struct event_base *base;
    struct linkev *supervisor;
    struct event *port_ev, *watch_ev, *more_ev;
    struct fuse_session *session;
    struct fs_folder folders[FS_FOLDERS_MAX];
    unsigned nfolders;
    uint8_t *in;
    size_t in_pos, in_len;
    uint64_t requests, bad, bytes;
};

static struct fs fs;
static struct fs_config config;

static void stop(const char *why)
{
    if (why)
        log_line("%s", why);
    event_base_loopbreak(fs.base);
}

static void on_inotify(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    watch_drain();
}

/* ---- messages ---- */

/* One message whole; replies of the workers come from other threads. */
static ssize_t write_message(int fd, struct iovec *iov, int count)
{
    ssize_t total = 0, done = 0;
    for (int i = 0; i < count; i++)
        total += (ssize_t)iov[i].iov_len;
    while (done < total) {
        ssize_t n = writev(fd, iov, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            /* The guest does not read: it waits for itself. */
            struct pollfd p[2] = {{.fd = fd, .events = POLLOUT}, {.fd = FD_SUPERVISOR, .events = 0}};
            if (poll(p, 2, -1) > 0 && (p[1].revents & (POLLHUP | POLLERR)))
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
    return total;
}

/* The reply to a request that changes something is kept until its echo was read: as soon as the guest has it, someone
 * may have the host change the same place again. */
static struct {
    bool on;
    size_t len;
    uint8_t bytes[1024];
} kept;

static _Thread_local bool on_loop;
static bool quiet; /* the request that is served wants no reply (core/fsport.h) */

static bool is_reply(const struct iovec *iov)
{
    uint64_t unique;
    memcpy(&unique, (const uint8_t *)iov[0].iov_base + 8, sizeof unique);
    return unique != 0;
}

static bool keep(const struct iovec *iov, int count)
{
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += iov[i].iov_len;
    if (!kept.on || !is_reply(iov) || total > sizeof kept.bytes)
        return false;
    kept.len = 0;
    for (int i = 0; i < count; i++) {
        memcpy(kept.bytes + kept.len, iov[i].iov_base, iov[i].iov_len);
        kept.len += iov[i].iov_len;
    }
    kept.on = false;
    return true;
}

static ssize_t io_writev(int fd, struct iovec *iov, int count, void *arg)
{
    static pthread_mutex_t port = PTHREAD_MUTEX_INITIALIZER;
    (void)arg;
    if (on_loop && quiet && is_reply(iov))
        return (ssize_t)iov[0].iov_len; /* libfuse looks for errors alone */
    if (on_loop && keep(iov, count))
        return (ssize_t)kept.len;
    pthread_mutex_lock(&port);
    ssize_t n = write_message(fd, iov, count);
    pthread_mutex_unlock(&port);
    return n;
}

static ssize_t io_read(int fd, void *buf, size_t len, void *arg)
{
    (void)fd;
    (void)buf;
    (void)len;
    (void)arg;
    return -1; /* messages are handed over by process() below */
}

/* Answers what libfuse must not see, so that whoever sent it is not left waiting. */
static void refuse(const uint8_t *msg)
{
    struct {
        uint32_t len;
        int32_t error;
        uint64_t unique;
    } reply = {16, -ENOSYS, 0};
    memcpy(&reply.unique, msg + 8, 8);
    struct iovec iov = {&reply, sizeof reply};
    fs.bad++;
    io_writev(FD_PORT, &iov, 1, NULL);
}

/* May it change something on the host? (vm/fs_watch.h) */
static bool changes(uint32_t opcode)
{
    switch (opcode) {
    case FUSE_LOOKUP:
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_GETATTR:
    case FUSE_READLINK:
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
    case FUSE_OPENDIR:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_STATFS:
    case FUSE_LSEEK:
    case FUSE_FLUSH:
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
        return false;
    default:
        return true;
    }
}

/* With the reply to what changed something goes what the guest's kernel asks next, said to the relay there. */
static void reply_kept(const struct fuse_in_header *h, const uint8_t *msg)
{
    struct {
        struct fuse_out_header head;
        struct fsport_know know;
    } note = {.head = {.len = sizeof note, .error = FSPORT_KNOW}};
    struct iovec iov[2] = {{&note, sizeof note}, {kept.bytes, kept.len}};
    bool told = fs_know(h, msg, kept.bytes, kept.len, &note.know);
    if (told || kept.len)
        io_writev(FD_PORT, told ? iov : iov + 1, (told ? 1 : 0) + (kept.len ? 1 : 0), NULL);
}

static void serve(uint8_t *msg, uint32_t len)
{
    struct fuse_in_header h;
    fs.requests++;
    if (!fs_check(msg, len)) {
        refuse(msg);
        return;
    }
    memcpy(&h, msg, sizeof h);
    quiet = msg[FSPORT_QUIET_AT] == 1 && !changes(h.opcode);
    struct fuse_buf b = {.size = len, .mem = msg};
    if (changes(h.opcode))
        watch_drain();
    kept.len = 0;
    kept.on = changes(h.opcode);
    fuse_session_process_buf(fs.session, &b);
    kept.on = quiet = false;
    if (!changes(h.opcode))
        return;
    watch_drain();
    reply_kept(&h, msg);
}

static void process(void)
{
    unsigned n = 0;
    while (fs.in_len - fs.in_pos >= 4) {
        uint32_t len;
        if (fs.in_pos % 8) { /* a name was before it; libfuse reads the message where it lies, in words */
            memmove(fs.in, fs.in + fs.in_pos, fs.in_len - fs.in_pos);
            fs.in_len -= fs.in_pos;
            fs.in_pos = 0;
        }
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
        serve(fs.in + fs.in_pos, len);
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
    const struct confine c = {.groups = CONFINE_IO | CONFINE_FILES | CONFINE_THREADS,
                              .paths = paths, .npaths = n, .own_network = true};
    return confine_self(&c, e);
}

static struct fs_rules *parse_rules(const json_t *list, struct err *e)
{
    struct fs_rules *r = fs_rules_new();
    size_t i;
    json_t *item;
    if (!r) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    json_array_foreach(list, i, item) {
        const char *kind = json_string_value(json_object_get(item, "kind"));
        const char *path = json_string_value(json_object_get(item, "path"));
        static const char *const kinds[] = {[FS_RULE_HIDE] = "hide", [FS_RULE_READONLY] = "readonly", [FS_RULE_GUARD] = "guard",
                                            [FS_RULE_EXCEPT] = "except"};
        unsigned k = 0, n = sizeof kinds / sizeof *kinds;
        while (k < n && (!kind || strcmp(kind, kinds[k]) != 0))
            k++;
        if (!path || k == n)
            err_set(e, STATUS_FAILED, "rule %zu of a folder is none of hide, readonly, guard, except of a path", i);
        else if (fs_rules_add(r, (enum fs_rule_kind)k, path, e) == 0)
            continue;
        fs_rules_free(r);
        return NULL;
    }
    return r;
}

/* Its names with their letters in the other case: is one of them there, as the same directory or only file, they are one; is
 * one not there, though the name itself is there before and after, they are two.  All else tells nothing: inodes may be made up
 * for each name.  Where no name tells, they are taken for one: .GIT in an empty folder is nobody's honest wish. */
static bool ignores_case(int folder)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *ent;
    bool one = false, two = false;
    while (d && !one && !two && (ent = readdir(d))) {
        char other[NAME_MAX + 1];
        bool letters = false;
        struct stat a, b, again;
        if (strlen(ent->d_name) >= sizeof other)
            continue;
        strcpy(other, ent->d_name);
        for (char *p = other; *p; p++)
            if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')) {
                *p ^= 'a' ^ 'A';
                letters = true;
            }
        if (!letters || fstatat(folder, ent->d_name, &a, AT_SYMLINK_NOFOLLOW) < 0)
            continue;
        if (fstatat(folder, other, &b, AT_SYMLINK_NOFOLLOW) == 0)
            one = a.st_dev == b.st_dev && a.st_ino == b.st_ino && (S_ISDIR(a.st_mode) || a.st_nlink == 1);
        else
            two = errno == ENOENT && fstatat(folder, ent->d_name, &again, AT_SYMLINK_NOFOLLOW) == 0 && again.st_ino == a.st_ino;
    }
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    return !two;
}

/* A rule that cannot be parsed is an error, never left out (design.md, I6). */
static int take_folder(const json_t *f, struct err *e)
{
    json_int_t fd = json_integer_value(json_object_get(f, "fd"));
    struct stat st;
    if (fs.nfolders == FS_FOLDERS_MAX)
        return err_set(e, STATUS_FAILED, "more than %u folders", FS_FOLDERS_MAX);
    if (json_integer_value(json_object_get(f, "index")) != fs.nfolders)
        return err_set(e, STATUS_FAILED, "folders are not in the order of their numbers");
    if (fd < 5 || fstat((int)fd, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, STATUS_FAILED, "folder %u has no descriptor", fs.nfolders);
    struct fs_rules *rules = parse_rules(json_object_get(f, "rules"), e);
    if (!rules)
        return -1;
    if (ignores_case((int)fd))
        fs_rules_ignore_case(rules);
    fs.folders[fs.nfolders++] =
        (struct fs_folder){.fd = (int)fd, .read_only = json_is_true(json_object_get(f, "ro")), .rules = rules};
    return 0;
}

static int start_session(struct err *e)
{
    static const struct fuse_custom_io io = {.writev = io_writev, .read = io_read};
    char *argv[] = {(char *)"sbx-fs", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    const struct fuse_lowlevel_ops *ops = fs_ops(&config);
    fs.session = fuse_session_new(&args, ops, sizeof *ops, NULL);
    fuse_opt_free_args(&args);
    if (!fs.session || fuse_session_custom_io(fs.session, &io, FD_PORT) != 0)
        return err_set(e, STATUS_FAILED, "cannot start the FUSE session");
    notify_init(fs.session);
    return 0;
}

static void on_nested(unsigned folder, const char *path)
{
    link_send_ctrl(linkev_link(fs.supervisor), json_pack("{s:s, s:i, s:s}", "op", "nested", "folder", (int)folder, "path", path));
}

static int start_serving(const json_t *msg, struct err *e)
{
    size_t i;
    json_t *f;
    json_array_foreach(json_object_get(msg, "folders"), i, f)
        if (take_folder(f, e) < 0)
            return -1;
    config = (struct fs_config){.uid = (unsigned)json_integer_value(json_object_get(msg, "uid")),
                                .gid = (unsigned)json_integer_value(json_object_get(msg, "gid")),
                                .keep_free = (uint64_t)json_integer_value(json_object_get(msg, "keep_free"))};
    umask(0); /* the guest's kernel applied its own */
    if (nodes_init(fs.folders, fs.nfolders, raise_fds() / 2) < 0)
        return err_errno(e, errno, "cannot open the folders");
    node_set_freed(watch_drop);
    nested_init(on_nested);
    int inotify = watch_init(notify_changed);
    fs.in = malloc(IN_CAP + 8);
    fs.port_ev = event_new(fs.base, FD_PORT, EV_READ | EV_PERSIST, on_port, NULL);
    fs.more_ev = event_new(fs.base, -1, 0, on_more, NULL);
    fs.watch_ev = inotify < 0 ? NULL : event_new(fs.base, inotify, EV_READ | EV_PERSIST, on_inotify, NULL);
    if (!fs.in || !fs.port_ev || !fs.more_ev)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (fs.watch_ev)
        event_add(fs.watch_ev, NULL);
    else
        log_line("the host gives no inotify: its changes are seen after a second");
    if (start_session(e) < 0 || confine_to_folders(e) < 0)
        return -1;
    if (work_init(fs.base) < 0)
        log_line("no threads: what waits for the disk delays what is behind it");
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
        json_object_set_new(reply, "watches", json_integer(watch_count()));
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
    on_loop = true;
    signal(SIGPIPE, SIG_IGN);
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
