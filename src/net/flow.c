#include "net/flow.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/names.h"

/* One turn of one flow: large enough for the throughput, small enough for the neighbours. */
#define TURN (256u * 1024u)

enum kind { ASKED, RELAY, REFUSAL, DNS, ENDED };

struct flow {
    struct flow *next, **link;
    struct flows *all;
    struct tcp_conn *conn;
    uint32_t id;
    enum kind kind;
    int fd;
    struct event *read_ev, *write_ev;
    bool up_eof;   /* the server sends no more */
    bool down_eof; /* the guest sends no more */
    bool answered; /* by the broker */
    bool refused;  /* the 403 is on its way */
    uint16_t port;
    uint64_t bytes_up, bytes_down;
    int64_t since_ms;
    char refusal[640];
    uint8_t query[2 + DNS_QUERY_MAX]; /* DNS over TCP: a message that is not whole yet */
    size_t query_len;
};

struct flows {
    struct event_base *base;
    struct asker *asker;
    struct fakeip *fake;
    struct names *names;
    struct flow *list;
    uint32_t last_id;
    struct flow_stats stats;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

struct flows *flows_new(struct event_base *base, struct asker *asker, struct fakeip *fake, struct names *names)
{
    struct flows *f = calloc(1, sizeof *f);
    if (f)
        *f = (struct flows){.base = base, .asker = asker, .fake = fake, .names = names};
    return f;
}

static struct flow *find(struct flows *all, uint32_t id)
{
    struct flow *f = all->list;
    while (f && f->id != id)
        f = f->next;
    return f;
}

static void close_upstream(struct flow *f)
{
    if (f->read_ev)
        event_free(f->read_ev);
    if (f->write_ev)
        event_free(f->write_ev);
    f->read_ev = f->write_ev = NULL;
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static void report_done(struct flow *f)
{
    struct ask ask = {.id = f->id, .kind = ASK_DONE, .bytes_up = f->bytes_up, .bytes_down = f->bytes_down,
                      .duration_ms = (uint32_t)(now_ms() - f->since_ms)};
    f->all->stats.bytes_up += f->bytes_up;
    f->all->stats.bytes_down += f->bytes_down;
    asker_send(f->all->asker, &ask);
}

static void destroy(struct flow *f)
{
    if (f->kind == RELAY)
        report_done(f);
    close_upstream(f);
    if (f->next)
        f->next->link = f->link;
    *f->link = f->next;
    free(f);
}

void flows_free(struct flows *all)
{
    if (!all)
        return;
    while (all->list)
        destroy(all->list);
    free(all);
}

const struct flow_stats *flows_stats(const struct flows *f)
{
    return &f->stats;
}

/* ---- asking ---- */

void flows_syn(struct tcp_conn *c, void *arg)
{
    struct flows *all = arg;
    struct flow *f = calloc(1, sizeof *f);
    if (!f) {
        tcp_refuse(c);
        return;
    }
    struct ip_addr addr;
    tcp_target(c, &addr, &f->port);
    f->all = all;
    f->conn = c;
    f->fd = -1;
    f->since_ms = now_ms();
    do {
        f->id = ++all->last_id;
    } while (f->id == 0 || find(all, f->id));
    f->next = all->list;
    f->link = &all->list;
    if (f->next)
        f->next->link = &f->next;
    all->list = f;
    tcp_set_owner(c, f);
    if (f->port == 53) { /* whoever is asked: we answer */
        f->kind = DNS;
        tcp_accept(c);
        return;
    }
    struct ask ask = {.id = f->id, .kind = ASK_CONNECT, .proto = PROTO_TCP};
    names_target(all->fake, &addr, f->port, &ask.target);
    asker_send(all->asker, &ask);
}

/* ---- relaying ---- */

static void fail(struct flow *f)
{
    f->up_eof = true;
    tcp_abort(f->conn);
}

static void on_upstream_readable(evutil_socket_t fd, short what, void *arg)
{
    struct flow *f = arg;
    (void)what;
    size_t turn = 0;
    while (turn < TURN) {
        uint8_t *room;
        size_t n = tcp_room(f->conn, &room);
        if (n == 0) {
            event_del(f->read_ev);
            return;
        }
        ssize_t got = recv((int)fd, room, n, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got < 0) {
            fail(f);
            return;
        }
        if (got == 0) {
            f->up_eof = true;
            event_del(f->read_ev);
            tcp_shutdown(f->conn);
            return;
        }
        f->bytes_down += (uint64_t)got;
        turn += (size_t)got;
        tcp_commit(f->conn, (size_t)got);
        if ((size_t)got < n)
            return; /* most likely empty: save the call that would say so */
    }
}

static void on_upstream_writable(evutil_socket_t fd, short what, void *arg)
{
    struct flow *f = arg;
    (void)fd;
    (void)what;
    tcp_resume(f->conn);
}

static bool relay_start(struct flow *f, int fd)
{
    f->read_ev = event_new(f->all->base, fd, EV_READ | EV_PERSIST, on_upstream_readable, f);
    f->write_ev = event_new(f->all->base, fd, EV_WRITE, on_upstream_writable, f);
    if (!f->read_ev || !f->write_ev)
        return false;
    evutil_make_socket_nonblocking(fd);
    f->fd = fd;
    f->kind = RELAY;
    f->since_ms = now_ms();
    return true;
}

static size_t relay_data(struct flow *f, const uint8_t *buf, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = send(f->fd, buf + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            event_add(f->write_ev, NULL);
            break;
        }
        if (n < 0) {
            fail(f);
            return done;
        }
        done += (size_t)n;
    }
    f->bytes_up += done;
    return done;
}

/* ---- the refusal that a person can read ---- */

static void refusal_text(struct flow *f, const struct answer *a)
{
    char body[448];
    int n = snprintf(body, sizeof body, "sbx: this connection was denied by %s.\n%s%s%s",
                     a->rule[0] ? a->rule : "the policy", a->hint[0] ? "To allow it, on the host: " : "", a->hint,
                     a->hint[0] ? "\n" : "");
    if (n < 0 || (size_t)n >= sizeof body)
        n = (int)strlen(body);
    snprintf(f->refusal, sizeof f->refusal,
             "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
             "X-Sbx: denied\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n%s", n, body);
}

/* ---- DNS over TCP (RFC 7766): two bytes of length before each message ---- */

static void dns_reply(const uint8_t *msg, size_t len, void *arg)
{
    struct flows *all = ((struct names_return *)arg)->owner;
    struct flow *f = find(all, ((struct names_return *)arg)->flow_id);
    if (!f || f->kind != DNS)
        return;
    uint8_t head[2] = {(uint8_t)(len >> 8), (uint8_t)len};
    tcp_write(f->conn, head, 2);
    tcp_write(f->conn, msg, len);
}

static size_t dns_data(struct flow *f, const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len && f->kind == DNS; i++) {
        f->query[f->query_len++] = buf[i];
        if (f->query_len < 2)
            continue;
        size_t want = (size_t)f->query[0] << 8 | f->query[1];
        if (want > DNS_QUERY_MAX) {
            tcp_abort(f->conn);
            return len;
        }
        if (f->query_len == 2 + want) {
            struct names_return back = {.send = dns_reply, .owner = f->all, .flow_id = f->id};
            f->query_len = 0;
            names_query(f->all->names, f->query + 2, want, &back);
        }
    }
    return len;
}

/* ---- what tcp tells ---- */

size_t flows_data(struct tcp_conn *c, const uint8_t *buf, size_t len, void *arg)
{
    struct flow *f = tcp_owner(c);
    (void)arg;
    switch (f->kind) {
    case RELAY:
        return relay_data(f, buf, len);
    case DNS:
        return dns_data(f, buf, len);
    case REFUSAL:
        if (!f->refused) {
            f->refused = true;
            tcp_write(c, f->refusal, strlen(f->refusal));
            tcp_shutdown(c);
        }
        return len;
    default:
        return len;
    }
}

void flows_fin(struct tcp_conn *c, void *arg)
{
    struct flow *f = tcp_owner(c);
    (void)arg;
    f->down_eof = true;
    if (f->kind == RELAY)
        shutdown(f->fd, SHUT_WR);
    else
        tcp_shutdown(c);
}

void flows_room(struct tcp_conn *c, void *arg)
{
    struct flow *f = tcp_owner(c);
    (void)arg;
    if (f->kind == RELAY && !f->up_eof && f->read_ev)
        event_add(f->read_ev, NULL);
}

void flows_closed(struct tcp_conn *c, bool reset, void *arg)
{
    struct flow *f = tcp_owner(c);
    (void)arg;
    if (f->kind == ASKED) {
        struct ask ask = {.id = f->id, .kind = ASK_CANCEL};
        if (!f->answered)
            asker_send(f->all->asker, &ask);
    } else if (f->kind == RELAY && reset && f->fd >= 0) {
        /* What the guest did not end in order must not look so to the server. */
        struct linger hard = {1, 0};
        setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    destroy(f);
}

/* ---- what the broker tells ---- */

void flows_answer(struct flows *all, const struct answer *a, int fd)
{
    struct flow *f = find(all, a->id);
    if (a->kind == ANSWER_CUT) {
        if (f && f->kind == RELAY) {
            all->stats.cut++;
            tcp_abort(f->conn);
        }
        return;
    }
    if (!f || f->kind != ASKED) {
        if (fd >= 0) { /* given up meanwhile: the connection was made, and ends unused */
            struct ask done = {.id = a->id, .kind = ASK_DONE};
            close(fd);
            asker_send(all->asker, &done);
        }
        return;
    }
    f->answered = true;
    if (a->verdict == VERDICT_ALLOW && fd >= 0) {
        if (!relay_start(f, fd)) {
            close(fd);
            tcp_refuse(f->conn);
            return;
        }
        all->stats.allowed++;
        tcp_accept(f->conn);
        return;
    }
    if (fd >= 0)
        close(fd);
    if (a->verdict == VERDICT_DENY && f->port == 80) {
        all->stats.denied++;
        refusal_text(f, a);
        f->kind = REFUSAL;
        tcp_accept(f->conn);
        return;
    }
    if (a->verdict == VERDICT_DENY)
        all->stats.denied++;
    else
        all->stats.failed++;
    tcp_refuse(f->conn);
}
