// needs: src/vm/fs_check.c src/vm/fs_ops.c src/vm/fs_dir.c src/vm/fs_stream.c src/vm/fs_io.c src/vm/fs_node.c src/vm/fs_handle.c src/vm/fs_watch.c src/vm/fs_notify.c src/vm/fs_rules.c src/vm/fs_nested.c src/vm/fs_work.c src/core/err.c src/core/log.c src/core/sanitize.c
/* A hostile guest on the fs port: FUSE messages of any kind, with names and numbers of its choice, against a temporary
 * folder.  Beside the sanitizers: what lies beside the folder is as it was, always.
 *
 * The input is a run of requests: opcode, a node and a handle out of those that were answered, or made up, and the
 * bytes of the body.  So the fuzzer gets beyond made-up numbers. */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fuse_log.h>

#include "vm/fs_check.h"
#include "vm/fs_handle.h"
#include "vm/fs_notify.h"
#include "vm/fs_ops.h"
#include "vm/fs_rules.h"
#include "vm/fs_stream.h"
#include "vm/fs_watch.h"

#define SEEN 16

static uint64_t nodes[SEEN], handles[SEEN];
static unsigned nnodes, nhandles;
static uint32_t opcode;
static char base[64];
static uint8_t reply[256];
static size_t reply_len;

static ssize_t on_reply(int fd, struct iovec *iov, int count, void *arg)
{
    ssize_t total = 0;
    (void)fd;
    (void)arg;
    for (int i = 0; i < count; i++)
        total += (ssize_t)iov[i].iov_len;
    reply_len = 0;
    for (int i = 0; i < count && reply_len + iov[i].iov_len <= sizeof reply; reply_len += iov[i++].iov_len)
        memcpy(reply + reply_len, iov[i].iov_base, iov[i].iov_len);
    struct fuse_out_header h;
    memcpy(&h, iov[0].iov_base, sizeof h);
    if (count > 1 && h.error == 0 && h.unique && iov[1].iov_len >= 8) {
        uint64_t v;
        memcpy(&v, iov[1].iov_base, 8);
        switch (opcode) {
        case FUSE_LOOKUP:
        case FUSE_MKDIR:
        case FUSE_MKNOD:
        case FUSE_SYMLINK:
        case FUSE_LINK:
            nodes[nnodes++ % SEEN] = v;
            break;
        case FUSE_CREATE:
            nodes[nnodes++ % SEEN] = v;
            if (iov[1].iov_len >= sizeof(struct fuse_entry_out) + 8) {
                memcpy(&v, (char *)iov[1].iov_base + sizeof(struct fuse_entry_out), 8);
                handles[nhandles++ % SEEN] = v;
            }
            break;
        case FUSE_OPEN:
        case FUSE_OPENDIR:
            handles[nhandles++ % SEEN] = v;
        }
    }
    return total;
}

static ssize_t on_read(int fd, void *buf, size_t len, void *arg)
{
    (void)fd;
    (void)buf;
    (void)len;
    (void)arg;
    return -1;
}

static void send(struct fuse_session *se, uint32_t op, uint64_t node, const void *body, size_t n)
{
    static uint64_t unique;
    struct fuse_in_header h = {.len = (uint32_t)(sizeof h + n), .opcode = op, .unique = ++unique, .nodeid = node};
    uint8_t *copy = malloc(sizeof h + n); /* exact, so that a read beyond shows */
    memcpy(copy, &h, sizeof h);
    if (n)
        memcpy(copy + sizeof h, body, n);
    opcode = op;
    if (fs_check(copy, sizeof h + n)) {
        struct fuse_buf b = {.size = sizeof h + n, .mem = copy};
        struct fsport_know k;
        watch_drain();
        reply_len = 0;
        fuse_session_process_buf(se, &b);
        watch_drain();
        fs_know(&h, copy, reply, reply_len, &k);
    }
    free(copy);
}

/* What libfuse says of hostile requests. */
static void quiet(enum fuse_log_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)fmt;
    (void)ap;
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        abort();
    close(fd);
}

static int gone(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static const char *in(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/in%s", base, name);
    return path;
}

static void make(void)
{
    nftw(in(""), gone, 8, FTW_DEPTH | FTW_PHYS);
    if (mkdir(in(""), 0755) < 0 || mkdir(in("/d"), 0755) < 0 || mkdir(in("/d/e"), 0755) < 0 ||
        symlink("../out", in("/link")) < 0 || symlink("/etc", in("/d/etc")) < 0)
        abort();
    put(in("/f"), "file");
    put(in("/d/keep"), "keep");
    put(in("/.env"), "hidden");
}

/* What no guest may change. */
static void check(void)
{
    static const struct {
        const char *name, *text;
    } t[] = {{"out/secret", "outside"}, {"in/d/keep", "keep"}, {"in/.env", "hidden"}};
    char path[128], buf[32];
    struct stat st;
    for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
        snprintf(path, sizeof path, "%s/%s", base, t[i].name);
        int fd = open(path, O_RDONLY | O_NOFOLLOW);
        ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf);
        if (n != (ssize_t)strlen(t[i].text) || memcmp(buf, t[i].text, (size_t)n) != 0 || fstat(fd, &st) < 0 ||
            st.st_nlink != 1 || (st.st_mode & 07777) != 0644)
            abort();
        close(fd);
    }
    int entries = 0;
    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s", base, i ? "/out" : "");
        DIR *d = opendir(path);
        while (d && readdir(d))
            entries++;
        closedir(d);
    }
    if (entries != 2 + 2 + 2 + 1)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuse_custom_io io = {.writev = on_reply, .read = on_read};
    static const struct fs_config config = {1000, 1000};
    static struct fs_rules *rules[2]; /* of a folder that tells case apart, and of one that does not */
    if (!rules[0]) {
        char path[128];
        snprintf(base, sizeof base, "/tmp/sbx-fuzz-fs.XXXXXX");
        if (!mkdtemp(base))
            abort();
        snprintf(path, sizeof path, "%s/out", base);
        mkdir(path, 0755);
        snprintf(path, sizeof path, "%s/out/secret", base);
        put(path, "outside");
        for (unsigned i = 0; i < 2; i++) {
            rules[i] = fs_rules_new();
            fs_rules_add(rules[i], FS_RULE_READONLY, "d/keep", NULL);
            fs_rules_add(rules[i], FS_RULE_HIDE, ".env", NULL);
        }
        fs_rules_ignore_case(rules[1]);
        umask(0);
        watch_init(notify_changed);
        fuse_set_log_func(quiet);
        make();
    }
    char path[128], *argv[] = {(char *)"fuzz", NULL};
    snprintf(path, sizeof path, "%s/in", base);
    struct fs_folder f = {.fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), .rules = rules[size & 1]};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    const struct fuse_lowlevel_ops *ops = fs_ops(&config);
    nodes_init(&f, 1, 4);
    node_set_freed(watch_drop);
    struct fuse_session *se = fuse_session_new(&args, ops, sizeof *ops, NULL);
    fuse_opt_free_args(&args);
    if (!se || fuse_session_custom_io(se, &io, 0) != 0)
        abort();
    notify_init(se);
    memset(nodes, 0, sizeof nodes);
    memset(handles, 0, sizeof handles);
    nnodes = nhandles = 0;
    nodes[nnodes++] = FUSE_ROOT_ID;
    struct fuse_init_in init = {.major = 7, .minor = 38, .flags = ~0u & ~(uint32_t)FUSE_INIT_EXT};
    send(se, FUSE_INIT, 0, &init, sizeof init);
    send(se, FUSE_LOOKUP, FUSE_ROOT_ID, "0", 2);
    for (unsigned n = 0; size >= 4 && n < 40; n++) {
        uint8_t body[4096];
        uint32_t op = data[0];
        unsigned node = data[1] % (SEEN + 1), handle = data[2] % (SEEN + 1);
        size_t len = data[3] * 2u;
        data += 4;
        size -= 4;
        if (len > size)
            len = size;
        memcpy(body, data, len);
        data += len;
        size -= len;
        /* Where the request has a handle or a second node, it may be one that exists. */
        if (handle < SEEN && len >= 8)
            memcpy(body, op == FUSE_RENAME || op == FUSE_RENAME2 || op == FUSE_LINK ? &nodes[handle] : &handles[handle], 8);
        send(se, op, node < SEEN ? nodes[node] : node, body, len);
    }
    streams_finish();
    handles_finish();
    fuse_session_destroy(se);
    nodes_finish();
    notify_init(NULL);
    close(f.fd);
    check();
    make();
    return 0;
}
