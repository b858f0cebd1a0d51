#include "vm/qmp.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES (1024u * 1024u)

struct qmp {
    int fd;
    qmp_event_fn *event;
    qmp_closed_fn *closed;
    void *arg;
    struct event *ev;
    char *buf;
    size_t len, cap;
    json_t *answer;
    bool greeted, gone;
    json_int_t id;
};

struct qmp *qmp_new(int fd, qmp_event_fn *event, qmp_closed_fn *closed, void *arg)
{
    struct qmp *q = calloc(1, sizeof *q);
    if (q)
        *q = (struct qmp){.fd = fd, .event = event, .closed = closed, .arg = arg};
    return q;
}

void qmp_free(struct qmp *q)
{
    if (!q)
        return;
    if (q->ev)
        event_free(q->ev);
    close(q->fd);
    json_decref(q->answer);
    free(q->buf);
    free(q);
}

static void take_line(struct qmp *q, const char *line, size_t len)
{
    json_t *o = json_loadb(line, len, 0, NULL);
    const char *event = json_string_value(json_object_get(o, "event"));
    if (json_object_get(o, "QMP"))
        q->greeted = true;
    else if (event)
        q->event(event, json_object_get(o, "data"), q->arg);
    else if (o && json_integer_value(json_object_get(o, "id")) == q->id) {
        json_decref(q->answer);
        q->answer = json_incref(o);
    }
    json_decref(o);
}

/* Reads what is there; false when QEMU is gone. */
static bool pull(struct qmp *q)
{
    if (q->cap - q->len < 4096) {
        size_t cap = q->cap ? q->cap * 2 : 16384;
        char *more = cap > LINE_MAX_BYTES ? NULL : realloc(q->buf, cap);
        if (!more)
            return false;
        q->buf = more;
        q->cap = cap;
    }
    ssize_t n = recv(q->fd, q->buf + q->len, q->cap - q->len, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    q->len += (size_t)n;
    char *nl;
    while ((nl = memchr(q->buf, '\n', q->len))) {
        size_t line = (size_t)(nl - q->buf);
        take_line(q, q->buf, line);
        q->len -= line + 1;
        memmove(q->buf, nl + 1, q->len);
    }
    return true;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int wait_until(struct qmp *q, bool answer, int timeout_ms, struct err *e)
{
    int64_t end = now_ms() + timeout_ms;
    while (answer ? !q->answer : !q->greeted) {
        int64_t left = end - now_ms();
        struct pollfd p = {.fd = q->fd, .events = POLLIN};
        if (left <= 0)
            return err_set(e, STATUS_TIMEOUT, "QEMU does not answer");
        if (poll(&p, 1, (int)left) > 0 && !pull(q)) {
            q->gone = true;
            return err_set(e, STATUS_FAILED, "QEMU ended");
        }
    }
    return 0;
}

int qmp_start(struct qmp *q, int timeout_ms, struct err *e)
{
    if (wait_until(q, false, timeout_ms, e) < 0)
        return -1;
    return qmp_call(q, "qmp_capabilities", NULL, -1, NULL, timeout_ms, e);
}

static int send_line(struct qmp *q, const char *text, int fd)
{
    size_t len = strlen(text), done = 0;
    union {
        struct cmsghdr h;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    while (done < len) {
        struct iovec iov = {(void *)(text + done), len - done};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
        if (fd >= 0 && done == 0) {
            memset(&control, 0, sizeof control);
            m.msg_control = &control;
            m.msg_controllen = sizeof control;
            struct cmsghdr *h = CMSG_FIRSTHDR(&m);
            h->cmsg_level = SOL_SOCKET;
            h->cmsg_type = SCM_RIGHTS;
            h->cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(h), &fd, sizeof fd);
        }
        ssize_t n = sendmsg(q->fd, &m, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

int qmp_call(struct qmp *q, const char *command, json_t *args, int fd, json_t **ret, int timeout_ms, struct err *e)
{
    json_t *o = json_pack("{s:s, s:I}", "execute", command, "id", ++q->id);
    if (args)
        json_object_set_new(o, "arguments", args);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    json_decref(q->answer);
    q->answer = NULL;
    int rc = text ? send_line(q, text, fd) : -1;
    free(text);
    if (rc < 0)
        return err_set(e, STATUS_FAILED, "QEMU ended");
    if (wait_until(q, true, timeout_ms, e) < 0)
        return err_wrap(e, "%s", command);
    json_t *error = json_object_get(q->answer, "error");
    if (error) {
        const char *desc = json_string_value(json_object_get(error, "desc"));
        return err_set(e, STATUS_FAILED, "QEMU refused %s: %s", command, desc ? desc : "no reason given");
    }
    if (ret)
        *ret = json_incref(json_object_get(q->answer, "return"));
    return 0;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct qmp *q = arg;
    (void)fd;
    (void)what;
    if (!pull(q)) {
        event_del(q->ev);
        q->gone = true;
        q->closed(q->arg);
    }
}

int qmp_watch(struct qmp *q, struct event_base *base)
{
    q->ev = event_new(base, q->fd, EV_READ | EV_PERSIST, on_readable, q);
    return q->ev ? event_add(q->ev, NULL) : -1;
}
