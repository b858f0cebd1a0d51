#include "vm/template_share.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/log.h"
#include "core/paths.h"
#include "vm/template.h"

/* The protocol: a SOCK_SEQPACKET connection, one packet with the key, one packet back: "1" with the two descriptors,
 * or "0". */
#define SUFFIX ".tmpl"
/* A sibling that is busy is not waited for: the cache is there, too. */
#define PATIENCE_US 100000

struct frozen_server {
    int fd;
    struct event *ev;
    const struct frozen *frozen;
    struct sockaddr_un addr;
};

static int address(struct sockaddr_un *a, const char *dir, const char *file)
{
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    int n = snprintf(a->sun_path, sizeof a->sun_path, "%s/%s", dir, file);
    return n > 0 && (size_t)n < sizeof a->sun_path ? 0 : -1;
}

static bool same_user(int fd)
{
    struct ucred c;
    socklen_t n = sizeof c;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &n) == 0 && c.uid == geteuid();
}

static int ask_one(const struct sockaddr_un *a, const char *key, int got[2])
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), rc = -1;
    struct timeval tv = {0, PATIENCE_US};
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    if (connect(fd, (const struct sockaddr *)a, sizeof *a) == 0 && same_user(fd) &&
        send(fd, key, strlen(key), MSG_NOSIGNAL) == (ssize_t)strlen(key)) {
        char answer = '0';
        struct iovec iov = {&answer, 1};
        union {
            char space[CMSG_SPACE(2 * sizeof(int))];
            struct cmsghdr align;
        } control;
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
        struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
        if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(2 * sizeof(int))) {
            memcpy(got, CMSG_DATA(c), 2 * sizeof(int));
            rc = 0;
        }
    }
    close(fd);
    return rc;
}

int template_share_ask(const char *key, int *ram, int *state)
{
    char *dir = path_in(PATH_RUNTIME, NULL, "%s", "");
    DIR *d = dir ? opendir(dir) : NULL;
    struct dirent *ent;
    int rc = -1;
    while (d && rc < 0 && (ent = readdir(d))) {
        size_t n = strlen(ent->d_name);
        struct sockaddr_un a;
        int got[2];
        if (n <= strlen(SUFFIX) || strcmp(ent->d_name + n - strlen(SUFFIX), SUFFIX) != 0 ||
            address(&a, dir, ent->d_name) < 0 || ask_one(&a, key, got) < 0)
            continue;
        *ram = got[0];
        *state = got[1];
        rc = 0;
    }
    if (d)
        closedir(d);
    free(dir);
    return rc;
}

/* One packet each way: short enough to be done at once. */
static void on_connect(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct frozen_server *s = arg;
    int peer = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC);
    if (peer < 0)
        return;
    char key[TEMPLATE_KEY_LEN + 2] = "";
    struct timeval tv = {0, 20000};
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    ssize_t n = same_user(peer) ? recv(peer, key, sizeof key - 1, 0) : -1;
    char answer = '0';
    struct iovec iov = {&answer, 1};
    union {
        char space[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    int fds[2] = {s->frozen->ram, -1};
    if (n > 0 && strcmp(key, s->frozen->key) == 0 && (fds[1] = frozen_state_fd(s->frozen, NULL)) >= 0) {
        answer = '1';
        memset(&control, 0, sizeof control);
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(c), fds, sizeof fds);
    }
    if (sendmsg(peer, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_line("cannot answer a sibling: %s", strerror(errno));
    if (fds[1] >= 0)
        close(fds[1]);
    close(peer);
}

struct frozen_server *frozen_serve(struct event_base *base, const char *name, const struct frozen *f)
{
    char *dir = path_in(PATH_RUNTIME, NULL, "%s", ""), file[80];
    struct frozen_server *s = calloc(1, sizeof *s);
    snprintf(file, sizeof file, "%s" SUFFIX, name);
    if (!s || !dir || address(&s->addr, dir, file) < 0)
        goto fail;
    s->frozen = f;
    s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    unlink(s->addr.sun_path);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&s->addr, sizeof s->addr) < 0 || listen(s->fd, 16) < 0 ||
        !(s->ev = event_new(base, s->fd, EV_READ | EV_PERSIST, on_connect, s)) || event_add(s->ev, NULL) < 0) {
        log_line("cannot share the frozen machine: %s", strerror(errno));
        if (s->fd >= 0)
            close(s->fd);
        goto fail;
    }
    free(dir);
    return s;
fail:
    free(dir);
    free(s);
    return NULL;
}

void frozen_server_free(struct frozen_server *s)
{
    if (!s)
        return;
    unlink(s->addr.sun_path);
    event_free(s->ev);
    close(s->fd);
    free(s);
}
