#include "net/cable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/packet.h"

#define IN_CAP (1024u * 1024u)
#define READS_PER_WAKE 4
#define PARTS_MAX 8

struct cable {
    int fd;
    const struct cable_ops *ops;
    void *arg;
    struct event *read_ev, *write_ev;
    uint8_t *in;
    size_t in_len;
    uint8_t out[4 + PACKET_FRAME_MAX]; /* the rest of a frame that was cut by a full socket */
    size_t out_pos, out_len;
    bool refused;
};

static void on_write(evutil_socket_t fd, short what, void *arg)
{
    struct cable *c = arg;
    (void)fd;
    (void)what;
    while (c->out_pos < c->out_len) {
        ssize_t n = write(c->fd, c->out + c->out_pos, c->out_len - c->out_pos);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            if (errno == EAGAIN)
                event_add(c->write_ev, NULL);
            return; /* a broken cable shows on the reading side */
        }
        c->out_pos += (size_t)n;
    }
    c->out_pos = c->out_len = 0;
    if (c->refused) {
        c->refused = false;
        c->ops->writable(c->arg);
    }
}

bool cable_send(struct cable *c, const struct iovec *iov, int n, size_t len)
{
    if (c->out_len) {
        c->refused = true;
        return false;
    }
    uint8_t head[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    struct iovec v[PARTS_MAX] = {{head, 4}};
    for (int i = 0; i < n; i++)
        v[i + 1] = iov[i];
    ssize_t sent;
    do {
        sent = writev(c->fd, v, n + 1);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        c->refused = true;
        event_add(c->write_ev, NULL);
        return false;
    }
    size_t done = (size_t)sent;
    for (int i = 0; i <= n; i++) {
        size_t skip = done < v[i].iov_len ? done : v[i].iov_len;
        done -= skip;
        memcpy(c->out + c->out_len, (uint8_t *)v[i].iov_base + skip, v[i].iov_len - skip);
        c->out_len += v[i].iov_len - skip;
    }
    if (c->out_len)
        event_add(c->write_ev, NULL);
    return true;
}

static void deliver(struct cable *c)
{
    size_t at = 0;
    while (c->in_len - at >= 4) {
        const uint8_t *p = c->in + at;
        size_t len = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (len > PACKET_FRAME_MAX) {
            c->ops->closed("a frame longer than any", c->arg);
            return;
        }
        if (c->in_len - at < 4 + len)
            break;
        c->ops->frame(p + 4, len, c->arg);
        at += 4 + len;
    }
    if (at) {
        memmove(c->in, c->in + at, c->in_len - at);
        c->in_len -= at;
    }
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
    struct cable *c = arg;
    (void)what;
    for (int i = 0; i < READS_PER_WAKE; i++) {
        ssize_t n = read((int)fd, c->in + c->in_len, IN_CAP - c->in_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            c->ops->closed(n < 0 ? strerror(errno) : NULL, c->arg);
            return;
        }
        c->in_len += (size_t)n;
        deliver(c);
        if ((size_t)n < 65536)
            break;
    }
    c->ops->batch_end(c->arg);
}

struct cable *cable_new(struct event_base *base, int fd, const struct cable_ops *ops, void *arg)
{
    struct cable *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->fd = fd;
    c->ops = ops;
    c->arg = arg;
    c->in = malloc(IN_CAP);
    evutil_make_socket_nonblocking(fd);
    int size = 1024 * 1024;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    c->read_ev = event_new(base, fd, EV_READ | EV_PERSIST, on_read, c);
    c->write_ev = event_new(base, fd, EV_WRITE, on_write, c);
    if (!c->in || !c->read_ev || !c->write_ev || event_add(c->read_ev, NULL) < 0) {
        cable_free(c);
        return NULL;
    }
    return c;
}

void cable_free(struct cable *c)
{
    if (!c)
        return;
    if (c->read_ev)
        event_free(c->read_ev);
    if (c->write_ev)
        event_free(c->write_ev);
    free(c->in);
    close(c->fd);
    free(c);
}
