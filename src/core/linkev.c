#include "core/linkev.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"

#define OUT_CAP (LINK_OUTPUT_MIN + 64u * 1024u)
#define IN_CAP (128u * 1024u)
/* Reads per wake, so that one busy peer does not starve the rest of the loop. */
#define READS_PER_WAKE 4

struct linkev {
    struct link *link;
    const struct linkev_ops *ops;
    void *arg;
    int fd;
    struct event *read_ev, *write_ev;
    uint8_t *out;
    size_t out_pos, out_len;
    bool closed, busy, dead;
};

static void destroy(struct linkev *c)
{
    if (c->read_ev)
        event_free(c->read_ev);
    if (c->write_ev)
        event_free(c->write_ev);
    link_free(c->link);
    close(c->fd);
    free(c->out);
    free(c);
}

void linkev_free(struct linkev *c)
{
    if (!c)
        return;
    if (c->busy)
        c->dead = true;
    else
        destroy(c);
}

static void shut(struct linkev *c, const char *why)
{
    if (c->closed)
        return;
    c->closed = true;
    event_del(c->read_ev);
    event_del(c->write_ev);
    if (c->ops->closed && !c->dead)
        c->ops->closed(c, why, c->arg);
}

/* True when everything was written, false when the socket is full or failed (errno). */
static bool flush(struct linkev *c)
{
    for (;;) {
        if (c->out_pos == c->out_len) {
            c->out_pos = 0;
            c->out_len = link_output(c->link, c->out, OUT_CAP);
            if (c->out_len == 0)
                return true;
        }
        ssize_t n = send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK)
            n = write(c->fd, c->out + c->out_pos, c->out_len - c->out_pos);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return false;
        }
        c->out_pos += (size_t)n;
    }
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct linkev *c = arg;
    if (c->closed)
        return;
    if (flush(c))
        return;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        event_add(c->write_ev, NULL);
        return;
    }
    c->busy = true;
    shut(c, errno == EPIPE || errno == ECONNRESET ? NULL : strerror(errno));
    c->busy = false;
    if (c->dead)
        destroy(c);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct linkev *c = arg;
    static uint8_t in[IN_CAP]; /* one loop, one thread */
    c->busy = true;
    for (int i = 0; i < READS_PER_WAKE && !c->closed && !c->dead; i++) {
        ssize_t n = read((int)fd, in, sizeof in);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                shut(c, errno == ECONNRESET ? NULL : strerror(errno));
            break;
        }
        if (n == 0) {
            shut(c, NULL);
            break;
        }
        struct err e = {0};
        if (link_feed(c->link, in, (size_t)n, &e) < 0) {
            shut(c, e.text);
            break;
        }
        if ((size_t)n < sizeof in)
            break;
    }
    c->busy = false;
    if (c->dead)
        destroy(c);
}

static void op_ctrl(struct link *l, json_t *msg, void *arg)
{
    (void)l;
    struct linkev *c = arg;
    if (c->ops->ctrl && !c->dead)
        c->ops->ctrl(c, msg, c->arg);
}

static void op_data(struct link *l, uint16_t chan, unsigned stream, const uint8_t *buf,
                    size_t len, void *arg)
{
    struct linkev *c = arg;
    if (c->dead)
        return;
    if (c->ops->data)
        c->ops->data(c, chan, stream, buf, len, c->arg);
    else
        link_consumed(l, chan, stream, len);
}

static void op_eof(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    (void)l;
    struct linkev *c = arg;
    if (c->ops->eof && !c->dead)
        c->ops->eof(c, chan, stream, c->arg);
}

static void op_writable(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    (void)l;
    struct linkev *c = arg;
    if (c->ops->writable && !c->dead)
        c->ops->writable(c, chan, stream, c->arg);
}

/* Written by the loop, not here: a callback may queue many frames, and one write takes them all. */
static void op_kick(struct link *l, void *arg)
{
    (void)l;
    struct linkev *c = arg;
    if (!c->closed && !event_pending(c->write_ev, EV_WRITE, NULL))
        event_add(c->write_ev, NULL);
}

static const struct link_ops link_ops = {
    .ctrl = op_ctrl, .data = op_data, .eof = op_eof, .writable = op_writable, .kick = op_kick};

struct linkev *linkev_new(struct event_base *base, int fd, const struct linkev_ops *ops, void *arg)
{
    struct linkev *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->ops = ops;
    c->arg = arg;
    c->fd = fd;
    c->out = malloc(OUT_CAP);
    c->link = link_new(&link_ops, c);
    evutil_make_socket_nonblocking(fd);
    c->read_ev = event_new(base, fd, EV_READ | EV_PERSIST, on_read, c);
    c->write_ev = event_new(base, fd, EV_WRITE, on_write, c);
    if (!c->out || !c->link || !c->read_ev || !c->write_ev || event_add(c->read_ev, NULL) < 0) {
        c->fd = -1; /* stays the caller's */
        if (c->read_ev)
            event_free(c->read_ev);
        if (c->write_ev)
            event_free(c->write_ev);
        link_free(c->link);
        free(c->out);
        free(c);
        return NULL;
    }
    return c;
}

struct link *linkev_link(struct linkev *c)
{
    return c->link;
}

int linkev_fd(const struct linkev *c)
{
    return c->fd;
}

void linkev_flush(struct linkev *c, int timeout_ms)
{
    int64_t end = clock_ms() + timeout_ms;
    while (!c->closed && !flush(c) && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        int64_t left = end - clock_ms();
        struct pollfd p = {.fd = c->fd, .events = POLLOUT};
        if (left <= 0 || poll(&p, 1, (int)left) <= 0)
            return;
    }
}
