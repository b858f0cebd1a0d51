#include "vm/qmp.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"

struct waiting {
    struct waiting *next;
    unsigned id;
    qmp_done done;
    void *arg;
};

struct qmp {
    int fd;
    const struct qmp_ops *ops;
    void *arg;
    struct event *read_ev;
    struct qmp_lines lines;
    struct waiting *waiting;
    unsigned next_id;
    bool closed, busy, dead;
};

int qmp_lines_feed(struct qmp_lines *l, const char *bytes, size_t n, void (*line)(void *arg, json_t *msg),
                   void *arg)
{
    while (n) {
        const char *nl = memchr(bytes, '\n', n);
        size_t take = nl ? (size_t)(nl - bytes) + 1 : n;
        if (l->len + take > QMP_LINE_MAX)
            return -1;
        if (l->len + take > l->cap) {
            size_t cap = l->len + take + 4096;
            char *p = realloc(l->buf, cap);
            if (!p)
                return -1;
            l->buf = p;
            l->cap = cap;
        }
        memcpy(l->buf + l->len, bytes, take);
        l->len += take;
        bytes += take;
        n -= take;
        if (!nl)
            break;
        size_t len = l->len;
        l->len = 0;
        while (len && (l->buf[len - 1] == '\n' || l->buf[len - 1] == '\r'))
            len--;
        if (!len)
            continue;
        json_t *msg = json_loadb(l->buf, len, 0, NULL);
        if (!json_is_object(msg)) {
            json_decref(msg);
            return -1;
        }
        line(arg, msg);
        json_decref(msg);
    }
    return 0;
}

void qmp_lines_finish(struct qmp_lines *l)
{
    free(l->buf);
    memset(l, 0, sizeof *l);
}

static void destroy(struct qmp *q)
{
    while (q->waiting) {
        struct waiting *w = q->waiting;
        q->waiting = w->next;
        free(w);
    }
    if (q->read_ev)
        event_free(q->read_ev);
    qmp_lines_finish(&q->lines);
    close(q->fd);
    free(q);
}

void qmp_free(struct qmp *q)
{
    if (!q)
        return;
    if (q->busy)
        q->dead = true;
    else
        destroy(q);
}

static void on_line(void *arg, json_t *msg)
{
    struct qmp *q = arg;
    if (q->dead)
        return;
    const char *event = json_string_value(json_object_get(msg, "event"));
    if (event) {
        q->ops->event(q, event, json_object_get(msg, "data"), q->arg);
        return;
    }
    json_t *id = json_object_get(msg, "id");
    if (!json_is_integer(id))
        return; /* the greeting */
    for (struct waiting **p = &q->waiting; *p; p = &(*p)->next) {
        struct waiting *w = *p;
        if ((json_int_t)w->id != json_integer_value(id))
            continue;
        *p = w->next;
        json_t *error = json_object_get(msg, "error");
        const char *text = json_string_value(json_object_get(error, "desc"));
        if (w->done)
            w->done(w->arg, error ? NULL : json_object_get(msg, "return"), error ? (text ? text : "?") : NULL);
        else if (error)
            log_line("QEMU refused a command: %s", text ? text : "?");
        free(w);
        return;
    }
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct qmp *q = arg;
    char buf[16384];
    ssize_t n = read((int)fd, buf, sizeof buf);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    q->busy = true;
    if (n <= 0 || qmp_lines_feed(&q->lines, buf, (size_t)n, on_line, q) < 0) {
        event_del(q->read_ev);
        q->closed = true;
        if (!q->dead)
            q->ops->closed(q, q->arg);
    }
    q->busy = false;
    if (q->dead)
        destroy(q);
}

struct qmp *qmp_new(struct event_base *base, int fd, const struct qmp_ops *ops, void *arg)
{
    struct qmp *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->fd = fd;
    q->ops = ops;
    q->arg = arg;
    evutil_make_socket_nonblocking(fd);
    q->read_ev = event_new(base, fd, EV_READ | EV_PERSIST, on_read, q);
    if (!q->read_ev || event_add(q->read_ev, NULL) < 0 ||
        qmp_command(q, "qmp_capabilities", NULL, -1, NULL, NULL) < 0) {
        if (q->read_ev)
            event_free(q->read_ev);
        while (q->waiting) {
            struct waiting *w = q->waiting;
            q->waiting = w->next;
            free(w);
        }
        free(q);
        return NULL;
    }
    return q;
}

/* Commands are few and small and fit the socket's buffer; one that does not is an error, not a wait. */
static int send_line(int fd, const char *line, size_t len, int pass)
{
    struct iovec iov = {(char *)line, len};
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (pass >= 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &pass, sizeof pass);
    }
    ssize_t n;
    while ((n = sendmsg(fd, &m, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    return n == (ssize_t)len ? 0 : -1;
}

int qmp_command(struct qmp *q, const char *name, json_t *args, int pass, qmp_done done, void *arg)
{
    json_t *msg = json_pack("{s:s, s:i}", "execute", name, "id", (int)(q->next_id + 1));
    struct waiting *w = calloc(1, sizeof *w);
    if (msg && args)
        json_object_set(msg, "arguments", args);
    json_decref(args);
    char *text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
    json_decref(msg);
    size_t len = text ? strlen(text) : 0;
    int rc = -1;
    if (w && text && !q->closed) {
        text[len] = '\n'; /* in the place of the NUL */
        rc = send_line(q->fd, text, len + 1, pass);
    }
    free(text);
    if (rc < 0) {
        free(w);
        return -1;
    }
    w->id = ++q->next_id;
    w->done = done;
    w->arg = arg;
    struct waiting **tail = &q->waiting;
    while (*tail)
        tail = &(*tail)->next;
    *tail = w;
    return 0;
}
