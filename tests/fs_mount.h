/* Mounts a folder through `sbx fs` on this host, for tests and benchmarks: the server in a child, the guest's relay
 * between /dev/fuse and the port in another, as they are in a sandbox. */
#ifndef SBX_TESTS_FS_MOUNT_H
#define SBX_TESTS_FS_MOUNT_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/link.h"
#include "guest/fsknown.c" /* as the relay in the guest has it */
#include "vm/fs.h"

#define FS_MOUNT_MESSAGE (1024 * 1024 + 65536)

struct fs_mount {
    char at[64]; /* the mount point: at/0 is the first folder */
    pid_t server, relay;
    int supervisor;
    struct link *link;
    json_t *reply;
};

struct fs_mount_folder {
    const char *path;
    bool read_only;
    const char *rules; /* JSON array, or NULL */
};

#define FS_MOUNT_OPCODES 64u
static unsigned *fs_mount_sent; /* messages to the server, by opcode, of the last mount: its relay counts them */
static long long fs_mount_keep_free; /* bytes, for the next mount */
static int fs_mount_dev = -1, fs_mount_port = -1;

static pthread_mutex_t fs_mount_known = PTHREAD_MUTEX_INITIALIZER;

static void *fs_mount_up(void *arg)
{
    char *buf = malloc(FS_MOUNT_MESSAGE);
    for (;;) {
        uint8_t answer[FSKNOWN_ANSWER_MAX];
        uint32_t len;
        ssize_t n = read(fs_mount_dev, buf, FS_MOUNT_MESSAGE);
        if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
            continue;
        if (n <= 0)
            _exit(0);
        pthread_mutex_lock(&fs_mount_known);
        unsigned way = fsknown_asked((uint8_t *)buf, (size_t)n, answer);
        memcpy(&len, answer, sizeof len);
        if ((way & FSKNOWN_ANSWER) && write(fs_mount_dev, answer, len) < 0)
            len = 0; /* nobody waits for it any more */
        pthread_mutex_unlock(&fs_mount_known);
        if (!(way & FSKNOWN_SEND))
            continue;
        struct fuse_in_header h;
        memcpy(&h, buf, sizeof h);
        if (h.opcode < FS_MOUNT_OPCODES)
            fs_mount_sent[h.opcode]++;
        for (ssize_t at = 0; at < n;) {
            ssize_t w = write(fs_mount_port, buf + at, (size_t)(n - at));
            if (w <= 0)
                _exit(0);
            at += w;
        }
    }
    return arg;
}

/* Notifications may wait for a lock that an operation holds until its reply came: a thread and a queue of their own, so
 * that no reply ever stands behind one. */
struct fs_mount_note {
    struct fs_mount_note *next;
    uint32_t len;
    char bytes[];
};
static struct fs_mount_note *fs_mount_first, **fs_mount_last = &fs_mount_first;
static pthread_mutex_t fs_mount_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t fs_mount_some = PTHREAD_COND_INITIALIZER;

static void fs_mount_note(const char *msg, uint32_t len)
{
    struct fs_mount_note *n = malloc(sizeof *n + len);
    n->next = NULL;
    n->len = len;
    memcpy(n->bytes, msg, len);
    pthread_mutex_lock(&fs_mount_lock);
    *fs_mount_last = n;
    fs_mount_last = &n->next;
    pthread_cond_signal(&fs_mount_some);
    pthread_mutex_unlock(&fs_mount_lock);
}

static void *fs_mount_notify(void *arg)
{
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&fs_mount_lock);
        while (!fs_mount_first)
            pthread_cond_wait(&fs_mount_some, &fs_mount_lock);
        struct fs_mount_note *n = fs_mount_first;
        fs_mount_first = n->next;
        if (!fs_mount_first)
            fs_mount_last = &fs_mount_first;
        pthread_mutex_unlock(&fs_mount_lock);
        ssize_t w = write(fs_mount_dev, n->bytes, n->len);
        (void)w; /* ENOENT: the guest does not know it any more */
        free(n);
    }
    return NULL;
}

static void fs_mount_relay(void)
{
    pthread_t t;
    size_t have = 0;
    char *buf = malloc(FS_MOUNT_MESSAGE);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pthread_create(&t, NULL, fs_mount_up, NULL);
    pthread_create(&t, NULL, fs_mount_notify, NULL);
    for (;;) {
        ssize_t n = read(fs_mount_port, buf + have, FS_MOUNT_MESSAGE - have);
        if (n <= 0)
            _exit(0);
        have += (size_t)n;
        size_t at = 0;
        for (uint32_t len; have - at >= 16; at += len) {
            uint64_t unique;
            memcpy(&len, buf + at, 4);
            memcpy(&unique, buf + at + 8, 8);
            if (have - at < len)
                break;
            bool ours = false;
            if (unique == 0) {
                pthread_mutex_lock(&fs_mount_known);
                ours = fsknown_told((uint8_t *)buf + at, len);
                pthread_mutex_unlock(&fs_mount_known);
            }
            if (ours)
                continue;
            if (unique == 0)
                fs_mount_note(buf + at, len);
            else if (write(fs_mount_dev, buf + at, len) < 0)
                continue; /* ENOENT: nobody waits for it any more */
        }
        memmove(buf, buf + at, have - at);
        have -= at;
    }
}

static void fs_mount_ctrl(struct link *l, json_t *msg, void *arg)
{
    struct fs_mount *m = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    (void)l;
    if (op && strcmp(op, "reply") == 0) {
        json_decref(m->reply);
        m->reply = json_incref(msg);
    }
}

/* Sends a request to the server; its reply, borrowed until the next. */
static json_t *fs_mount_ask(struct fs_mount *m, json_t *msg)
{
    static char buf[LINK_OUTPUT_MIN];
    json_decref(m->reply);
    m->reply = NULL;
    json_object_set_new(msg, "id", json_integer(1));
    link_send_ctrl(m->link, msg);
    for (size_t n; (n = link_output(m->link, buf, sizeof buf)) > 0;)
        if (write(m->supervisor, buf, n) != (ssize_t)n)
            return NULL;
    while (!m->reply) {
        ssize_t n = read(m->supervisor, buf, sizeof buf);
        if (n <= 0 || link_feed(m->link, buf, (size_t)n, NULL) < 0)
            return NULL;
    }
    return m->reply;
}

/* 0, or -1 with what is wrong on standard error.  Wants to be root, or in a user and mount namespace. */
static int fs_mount(struct fs_mount *m, const struct fs_mount_folder *folders, unsigned n)
{
    static const struct link_ops ops = {.ctrl = fs_mount_ctrl};
    int port[2], super[2];
    memset(m, 0, sizeof *m);
    json_t *list = json_array();
    int fds[16];
    for (unsigned i = 0; i < n; i++) {
        int fd = open(folders[i].path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
        close(fd);
        json_t *f = json_pack("{s:i, s:i, s:b}", "index", (int)i, "fd", fds[i], "ro", folders[i].read_only);
        if (folders[i].rules)
            json_object_set_new(f, "rules", json_loads(folders[i].rules, 0, NULL));
        json_array_append_new(list, f);
    }
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, port);
    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, super);
    fflush(NULL);
    m->server = fork();
    if (m->server == 0) {
        char *argv[] = {(char *)"fs", (char *)"test", NULL};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int a = fcntl(port[1], F_DUPFD, 50), b = fcntl(super[1], F_DUPFD, 50);
        dup2(a, 3);
        dup2(b, 4);
        for (int fd = 5; fd < 100; fd++)
            close(fd);
        _exit(fs_main(2, argv));
    }
    close(port[1]);
    close(super[1]);
    m->supervisor = super[0];
    m->link = link_new(&ops, m);
    json_t *ok = fs_mount_ask(m, json_pack("{s:s, s:o, s:i, s:i, s:I}", "op", "start", "folders", list, "uid", 1000, "gid",
                                           1000, "keep_free", (json_int_t)fs_mount_keep_free));
    for (unsigned i = 0; i < n; i++)
        close(fds[i]);
    int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (!ok || !json_is_true(json_object_get(ok, "ok")) || dev < 0) {
        fprintf(stderr, "cannot start: %s\n", ok ? json_string_value(json_object_get(ok, "error")) : strerror(errno));
        return -1;
    }
    snprintf(m->at, sizeof m->at, "/tmp/sbx-fs.XXXXXX");
    if (!mkdtemp(m->at))
        return -1;
    char options[160];
    snprintf(options, sizeof options,
             "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576", dev);
    if (mount("workspace", m->at, "fuse.sbx", MS_NOSUID | MS_NODEV | MS_NOATIME, options) < 0) {
        fprintf(stderr, "cannot mount: %s\n", strerror(errno));
        return -1;
    }
    fs_mount_sent = mmap(NULL, FS_MOUNT_OPCODES * sizeof *fs_mount_sent, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (fs_mount_sent == MAP_FAILED)
        return -1;
    m->relay = fork();
    if (m->relay == 0) {
        fs_mount_dev = dev;
        fs_mount_port = port[0];
        close(m->supervisor);
        fs_mount_relay();
    }
    close(dev);
    close(port[0]);
    return 0;
}

/* The server's exit status: what a sanitizer has to say shows here. */
static int fs_unmount(struct fs_mount *m)
{
    int status = 0;
    umount2(m->at, MNT_DETACH);
    rmdir(m->at);
    close(m->supervisor);
    link_free(m->link);
    json_decref(m->reply);
    waitpid(m->server, &status, 0);
    kill(m->relay, SIGKILL);
    waitpid(m->relay, NULL, 0);
    return status;
}

#endif
