#include "vm/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/log.h"
#include "vm/ctl.h"

#define CONNECT_MS 10000

struct listener {
    struct ports *owner;
    char address[48];
    uint16_t host, guest;
    int fd;
    struct event *ev;
    bool kept; /* while the list is applied */
};

struct joined {
    struct joined *next;
    struct ports *owner;
    int fd;
    uint16_t chan;
    struct event *read_ev, *write_ev;
    struct evbuffer *out; /* from the machine, for the socket; at most one window */
    bool stands, read_eof, guest_eof, shut;
};

struct ports {
    struct event_base *base;
    struct link *guest;
    struct ctl *requests;
    struct listener v[PORTS_MAX];
    unsigned n, count;
    struct joined *list;
};

static void resume_accepting(struct ports *p);

static void joined_free(struct joined *j, bool tell)
{
    struct ports *p = j->owner;
    for (struct joined **at = &p->list; *at; at = &(*at)->next)
        if (*at == j) {
            *at = j->next;
            break;
        }
    p->count--;
    if (p->requests)
        ctl_forget(p->requests, j);
    if (p->guest && link_is_open(p->guest, j->chan)) {
        if (tell)
            link_send_ctrl(p->guest, json_pack("{s:s, s:i}", "op", "close", "chan", (int)j->chan));
        link_close(p->guest, j->chan);
    }
    if (j->read_ev)
        event_free(j->read_ev);
    if (j->write_ev)
        event_free(j->write_ev);
    if (j->out)
        evbuffer_free(j->out);
    close(j->fd);
    free(j);
    resume_accepting(p);
}

static void check(struct joined *j)
{
    if (j->guest_eof && evbuffer_get_length(j->out) == 0) {
        if (!j->shut)
            shutdown(j->fd, SHUT_WR);
        j->shut = true;
        /* The machine forgets the connection with the end of its output. */
        joined_free(j, true);
    }
}

static void flush(struct joined *j)
{
    while (evbuffer_get_length(j->out)) {
        int n = evbuffer_write(j->out, j->fd);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            event_add(j->write_ev, NULL);
            return;
        }
        if (n <= 0) {
            joined_free(j, true);
            return;
        }
        link_consumed(j->owner->guest, j->chan, 0, (size_t)n);
    }
    check(j);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    flush(arg);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct joined *j = arg;
    struct ports *p = j->owner;
    uint8_t buf[65536];
    (void)what;
    size_t room = link_credit(p->guest, j->chan, 0);
    if (room == 0) {
        /* `writable` comes when something was offered and not taken. */
        event_del(j->read_ev);
        uint8_t one;
        ssize_t n = recv((int)fd, &one, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n == 1)
            link_send_data(p->guest, j->chan, 0, &one, 1);
        return;
    }
    ssize_t n = recv((int)fd, buf, room < sizeof buf ? room : sizeof buf, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        joined_free(j, true);
        return;
    }
    if (n == 0) {
        j->read_eof = true;
        event_del(j->read_ev);
        link_send_eof(p->guest, j->chan, 0);
        return;
    }
    link_send_data(p->guest, j->chan, 0, buf, (size_t)n);
}

static void connected(void *arg, const json_t *reply, const char *error)
{
    struct joined *j = arg;
    (void)reply;
    if (error) {
        struct linger hard = {1, 0}; /* refused inside: refused here */
        setsockopt(j->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        joined_free(j, false);
        return;
    }
    j->stands = true;
    event_add(j->read_ev, NULL);
}

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    struct listener *l = arg;
    struct ports *p = l->owner;
    (void)what;
    if (p->count >= PORTS_CONNECTIONS_MAX) {
        event_del(l->ev);
        return;
    }
    int s = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (s < 0)
        return;
    struct joined *j = p->guest ? calloc(1, sizeof *j) : NULL;
    uint16_t chan = j ? link_pick(p->guest) : 0;
    if (!chan || link_open(p->guest, chan, 0) < 0) {
        free(j);
        close(s);
        return;
    }
    int one = 1;
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *j = (struct joined){.next = p->list, .owner = p, .fd = s, .chan = chan, .out = evbuffer_new()};
    p->list = j;
    p->count++;
    j->read_ev = event_new(p->base, s, EV_READ | EV_PERSIST, on_readable, j);
    j->write_ev = event_new(p->base, s, EV_WRITE, on_writable, j);
    if (!j->out || !j->read_ev || !j->write_ev ||
        ctl_send(p->requests, p->guest, json_pack("{s:s, s:i, s:s, s:i}", "op", "connect", "chan", (int)chan, "host", "127.0.0.1", "port",
                                                  (int)l->guest), CONNECT_MS, connected, j) < 0)
        joined_free(j, true);
}

static void resume_accepting(struct ports *p)
{
    for (unsigned i = 0; i < p->n && p->guest && p->count < PORTS_CONNECTIONS_MAX; i++)
        if (p->v[i].ev)
            event_add(p->v[i].ev, NULL);
}

struct ports *ports_new(struct event_base *base)
{
    struct ports *p = calloc(1, sizeof *p);
    if (p)
        p->base = base;
    return p;
}

static void listener_close(struct listener *l)
{
    if (l->ev)
        event_free(l->ev);
    if (l->fd >= 0)
        close(l->fd);
    l->ev = NULL;
    l->fd = -1;
}

void ports_set_guest(struct ports *p, struct link *guest, struct ctl *requests)
{
    if (!p)
        return;
    if (!guest)
        while (p->list)
            joined_free(p->list, false);
    p->guest = guest;
    p->requests = requests;
    for (unsigned i = 0; i < p->n; i++)
        if (p->v[i].ev && !guest)
            event_del(p->v[i].ev);
    resume_accepting(p);
}

void ports_free(struct ports *p)
{
    if (!p)
        return;
    ports_set_guest(p, NULL, NULL);
    for (unsigned i = 0; i < p->n; i++)
        listener_close(&p->v[i]);
    free(p);
}

static int open_listener(struct ports *p, struct listener *l, struct err *e)
{
    struct sockaddr_storage at = {0};
    struct sockaddr_in *four = (struct sockaddr_in *)&at;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&at;
    socklen_t len = sizeof *four;
    if (inet_pton(AF_INET, l->address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(l->host);
    } else if (inet_pton(AF_INET6, l->address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(l->host);
        len = sizeof *six;
    } else
        return err_set(e, STATUS_USAGE, "\"%s\" is no address of this host", l->address);
    int one = 1;
    l->fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return err_errno(e, errno, "cannot open port %u", l->host);
    setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(l->fd, (struct sockaddr *)&at, len) < 0 || listen(l->fd, 128) < 0) {
        int why = errno;
        close(l->fd);
        l->fd = -1;
        if (why == EADDRINUSE)
            return err_set(e, STATUS_FAILED, "port %u of %s is in use by another program; publish the port of the sandbox under another one",
                           l->host, l->address);
        return err_errno(e, why, "cannot listen on %s, port %u", l->address, l->host);
    }
    len = sizeof at;
    getsockname(l->fd, (struct sockaddr *)&at, &len);
    l->host = ntohs(at.ss_family == AF_INET ? four->sin_port : six->sin6_port);
    l->owner = p;
    l->ev = event_new(p->base, l->fd, EV_READ | EV_PERSIST, on_accept, l);
    return 0;
}

int ports_apply(struct ports *p, json_t *list, struct err *e)
{
    size_t i;
    json_t *o;
    int rc = 0;
    for (unsigned k = 0; k < p->n; k++)
        p->v[k].kept = false;
    /* What stays keeps its listener. */
    json_array_foreach(list, i, o) {
        const char *address = json_string_value(json_object_get(o, "address"));
        for (unsigned k = 0; k < p->n; k++)
            if (p->v[k].fd >= 0 && p->v[k].host == json_integer_value(json_object_get(o, "host")) &&
                p->v[k].guest == json_integer_value(json_object_get(o, "guest")) &&
                strcmp(p->v[k].address, address ? address : "127.0.0.1") == 0)
                p->v[k].kept = true;
    }
    unsigned kept = 0;
    for (unsigned k = 0; k < p->n; k++) {
        if (!p->v[k].kept) {
            listener_close(&p->v[k]);
            continue;
        }
        if (kept != k) { /* the event knows where its listener lies */
            listener_close(&p->v[kept]);
            p->v[kept] = p->v[k];
            event_free(p->v[kept].ev);
            p->v[kept].ev = event_new(p->base, p->v[kept].fd, EV_READ | EV_PERSIST, on_accept, &p->v[kept]);
            p->v[k].fd = -1;
            p->v[k].ev = NULL;
        }
        kept++;
    }
    p->n = kept;
    json_array_foreach(list, i, o) {
        const char *address = json_string_value(json_object_get(o, "address"));
        json_int_t host = json_integer_value(json_object_get(o, "host")), guest = json_integer_value(json_object_get(o, "guest"));
        bool there = false;
        for (unsigned k = 0; k < kept; k++)
            there |= p->v[k].host == host && p->v[k].guest == guest && strcmp(p->v[k].address, address ? address : "127.0.0.1") == 0;
        if (there || p->n == PORTS_MAX || guest < 1 || guest > 65535 || host < 0 || host > 65535)
            continue;
        struct listener *l = &p->v[p->n];
        *l = (struct listener){.fd = -1, .host = (uint16_t)host, .guest = (uint16_t)guest};
        snprintf(l->address, sizeof l->address, "%.47s", address ? address : "127.0.0.1");
        if (open_listener(p, l, rc == 0 ? e : NULL) < 0) {
            rc = -1;
            continue;
        }
        json_object_set_new(o, "host", json_integer(l->host));
        p->n++;
    }
    resume_accepting(p);
    return rc;
}

static struct joined *find(struct ports *p, uint16_t chan)
{
    struct joined *j = p->list;
    while (j && j->chan != chan)
        j = j->next;
    return j;
}

bool ports_data(struct ports *p, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len)
{
    struct joined *j = find(p, chan);
    if (!j)
        return false;
    if (stream != 0) {
        link_consumed(p->guest, chan, stream, len);
        return true;
    }
    evbuffer_add(j->out, buf, len);
    flush(j);
    return true;
}

bool ports_eof(struct ports *p, uint16_t chan, unsigned stream)
{
    struct joined *j = find(p, chan);
    if (!j)
        return false;
    if (stream == 0) {
        j->guest_eof = true;
        check(j);
    }
    return true;
}

bool ports_writable(struct ports *p, uint16_t chan, unsigned stream)
{
    struct joined *j = find(p, chan);
    if (!j)
        return false;
    (void)stream;
    if (j->stands && !j->read_eof)
        event_add(j->read_ev, NULL);
    return true;
}
