#include "core/unixsock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The folder is opened, and the socket named through the descriptor: short, however long the path is. */
static int address(const char *path, struct sockaddr_un *a)
{
    char *copy = strdup(path);
    char *slash = copy ? strrchr(copy, '/') : NULL;
    int dir = -1;
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    if (slash) {
        *slash = '\0';
        dir = open(copy[0] ? copy : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        int n = snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/%s", dir, slash + 1);
        if (dir >= 0 && (n < 0 || (size_t)n >= sizeof a->sun_path)) {
            close(dir);
            dir = -1;
            errno = ENAMETOOLONG;
        }
    }
    free(copy);
    return dir;
}

int unixsock_listen(const char *path, struct err *e)
{
    struct sockaddr_un a;
    int dir = address(path, &a);
    int fd = dir < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        unlink(a.sun_path);
        mode_t old = umask(0177);
        if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0) {
            int why = errno;
            close(fd);
            fd = -1;
            errno = why;
        }
        umask(old);
    }
    if (fd < 0)
        err_errno(e, errno, "cannot listen on %s", path);
    if (dir >= 0)
        close(dir);
    return fd;
}

int unixsock_connect(const char *path, int wait_ms, struct err *e)
{
    struct sockaddr_un a;
    struct timeval limit = {wait_ms / 1000, wait_ms % 1000 * 1000};
    int dir = address(path, &a);
    int fd = dir < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (wait_ms ? 0 : SOCK_NONBLOCK), 0);
    /* Who listens and takes nobody in, because he hangs, lets others wait in connect(). */
    if (fd >= 0 && wait_ms)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        int why = errno;
        close(fd);
        fd = -1;
        errno = why;
    }
    if (fd < 0) {
        int why = errno;
        err_errno(e, why, "cannot connect to %s", path);
        if (e && (why == ENOENT || why == ECONNREFUSED))
            e->status = STATUS_NOT_FOUND;
        if (e && why == EAGAIN)
            e->status = STATUS_TIMEOUT;
    }
    if (dir >= 0)
        close(dir);
    return fd;
}

int unixsock_peer_ok(int fd)
{
    struct ucred c;
    socklen_t len = sizeof c;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &len) == 0 && (c.uid == geteuid() || c.uid == 0);
}

int unixsock_send_fd(int sock, int fd)
{
    char byte = 0;
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr h;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    return sendmsg(sock, &m, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

int unixsock_recv_fd(int sock)
{
    char byte;
    struct iovec iov = {&byte, 1};
    union {
        struct cmsghdr h;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC) != 1)
        return -1;
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    int fd = -1;
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(h), sizeof fd);
    return fd;
}
