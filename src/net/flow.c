#include "net/flow.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/rule.h"
#include "net/clienthello.h"
#include "net/intercept.h"
#include "net/names.h"
#include "net/plainhello.h"

/* One turn of one flow: large enough for the throughput, small enough for the neighbours. */
#define TURN (256u * 1024u)

enum kind { ASKED, SNIFF /* a relay whose first bytes are not judged yet */, RELAY, INTERCEPT, DNS, ENDED };

struct flow {
    struct flow *next, **link;
    struct flows *all;
    struct tcp_conn *conn;
    uint32_t id;
    enum kind kind;
    int fd;
    struct event *read_ev, *write_ev;
    bool up_eof;   /* the server sends no more */
    bool up_shut;  /* nor does it take more: it reset the connection, and may have said why before */
    bool down_eof; /* the guest sends no more */
    bool answered; /* by the broker */
    bool raw;      /* what is no TLS may pass as well */
    bool dialled;  /* the broker keeps it until it is told that it ended */
    uint16_t port;
    char name[256]; /* "": a literal address */
    uint8_t *held;  /* of the guest, before they may go on: the ClientHello */
    size_t held_len, held_pos;
    int64_t held_ms; /* since when */
    struct intercept *intercept;
    uint64_t bytes_up, bytes_down;
    int64_t since_ms;
    uint8_t query[2 + DNS_QUERY_MAX]; /* DNS over TCP: a message that is not whole yet */
    size_t query_len;
};

struct flows {
    struct event_base *base;
    struct asker *asker;
    struct fakeip *fake;
    struct names *names;
    struct intercepts *intercepts;
    struct tcp *tcp;
    struct flow *list;
    uint32_t last_id;
    struct flow_stats stats;
};

struct flows *flows_new(struct event_base *base, struct asker *asker, struct fakeip *fake, struct names *names)
{
    struct flows *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    *f = (struct flows){.base = base, .asker = asker, .fake = fake, .names = names};
    f->intercepts = intercepts_new(base, asker);
    if (!f->intercepts) {
        free(f);
        f = NULL;
    }
    return f;
}

void flows_set_tcp(struct flows *f, struct tcp *tcp)
{
    f->tcp = tcp;
    intercepts_set_tcp(f->intercepts, tcp);
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
    if (f->intercept)
        intercept_bytes(f->intercept, &f->bytes_up, &f->bytes_down);
    struct ask ask = {.id = f->id, .kind = ASK_DONE, .bytes_up = f->bytes_up, .bytes_down = f->bytes_down,
                      .duration_ms = (uint32_t)(clock_ms() - f->since_ms)};
    f->all->stats.bytes_up += f->bytes_up;
    f->all->stats.bytes_down += f->bytes_down;
    asker_send(f->all->asker, &ask);
}

static void destroy(struct flow *f, bool reset)
{
    if (f->dialled)
        report_done(f);
    intercept_free(f->intercept, reset);
    close_upstream(f);
    free(f->held);
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
        destroy(all->list, true);
    intercepts_free(all->intercepts);
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
    f->since_ms = clock_ms();
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
    if (ask.target.kind == TARGET_NAME)
        memcpy(f->name, ask.target.name, sizeof f->name);
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
        if (got == 0 && f->up_shut) {
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

static bool send_held(struct flow *f);

static void on_upstream_writable(evutil_socket_t fd, short what, void *arg)
{
    struct flow *f = arg;
    (void)fd;
    (void)what;
    struct tcp *tcp = f->all->tcp;
    if (f->kind == RELAY && !send_held(f))
        return;
    if (f->down_eof && !f->held)
        shutdown(f->fd, SHUT_WR);
    else if (!f->held)
        tcp_resume(f->conn);
    tcp_flush(tcp); /* what was taken makes room */
}

static bool relay_start(struct flow *f, int fd, enum kind kind)
{
    f->read_ev = event_new(f->all->base, fd, EV_READ | EV_PERSIST, on_upstream_readable, f);
    f->write_ev = event_new(f->all->base, fd, EV_WRITE, on_upstream_writable, f);
    if (!f->read_ev || !f->write_ev)
        return false;
    evutil_make_socket_nonblocking(fd);
    f->fd = fd;
    f->kind = kind;
    f->since_ms = clock_ms();
    return true;
}

/* Sends what it can; false: the flow is gone. */
static bool send_up(struct flow *f, const uint8_t *buf, size_t len, size_t *done)
{
    size_t sent = 0;
    while (sent < len && !f->up_shut) {
        ssize_t n = send(f->fd, buf + sent, len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            event_add(f->write_ev, NULL);
            break;
        }
        if (n < 0 && f->up_eof) {
            fail(f);
            return false;
        }
        if (n < 0) /* what it said before that is read, and passed on first, as without us */
            f->up_shut = true;
        else
            sent += (size_t)n;
    }
    f->bytes_up += sent;
    *done = f->up_shut ? len : sent;
    return true;
}

static bool send_held(struct flow *f)
{
    size_t done;
    if (!f->held)
        return true;
    if (!send_up(f, f->held + f->held_pos, f->held_len - f->held_pos, &done))
        return false;
    f->held_pos += done;
    if (f->held_pos == f->held_len) {
        free(f->held);
        f->held = NULL;
    }
    return true;
}

static size_t relay_data(struct flow *f, const uint8_t *buf, size_t len)
{
    size_t done;
    if (!send_held(f))
        return len;
    if (f->held)
        return 0;
    return send_up(f, buf, len, &done) ? done : len;
}

/* The first bytes of a relayed connection: where it is TLS, it has to be for the name that was asked for (threats 21,
 * 35, 49, 51); where it is HTTP, each of its requests has to, as on port 80.  On 443 nothing but TLS passes.  What is no
 * TLS is anybody's affair where a rule names this very host and port. */
static void sniff_refuse(struct flow *f, const char *seen, unsigned flags)
{
    struct ask ask = {.id = f->id, .kind = ASK_MISMATCH, .flags = (uint16_t)flags};
    snprintf(ask.seen, sizeof ask.seen, "%s", seen);
    asker_send(f->all->asker, &ask);
    tcp_abort(f->conn);
}

/* What is held will not become whole any more: it came to nothing, and a reviewer sees why. */
static void sniff_give_up(struct flow *f)
{
    if (f->held[0] == CLIENTHELLO_RECORD)
        sniff_refuse(f, "it sent half a TLS greeting, and no more", MISMATCH_TEXT);
    else
        sniff_refuse(f, "it began a line that could have become HTTP, and did not end it", MISMATCH_TEXT | MISMATCH_RAW);
}

static bool intercept_start(struct flow *f, const struct answer *a, int fd);

/* It is HTTP in plain text: from here on it is judged request by request. */
static size_t sniff_http(struct flow *f, const uint8_t *buf, size_t len)
{
    static const struct answer none;
    int fd = f->fd;
    f->fd = -1;
    close_upstream(f);
    if (!intercept_start(f, &none, fd)) {
        tcp_abort(f->conn);
        return len;
    }
    if (f->held)
        intercept_begin(f->intercept, f->held, f->held_len);
    f->held = NULL;
    return intercept_data(f->intercept, buf, len);
}

static size_t sniff_data(struct flow *f, const uint8_t *buf, size_t len)
{
    struct clienthello hello;
    const uint8_t *all = buf;
    size_t n = len, kept = 0; /* of buf, in f->held */
    if (f->held) {
        size_t room = CLIENTHELLO_MAX - f->held_len;
        kept = len < room ? len : room;
        memcpy(f->held + f->held_len, buf, kept);
        f->held_len += kept;
        all = f->held;
        n = f->held_len;
    }
    enum clienthello_result first = clienthello_read(&hello, all, n);
    if (first == CLIENTHELLO_NOT_TLS && f->port != 443 && !f->raw) {
        enum plainhello plain = plainhello_read(all, n, false);
        if (plain == PLAINHELLO_HTTP)
            return kept + sniff_http(f, buf + kept, len - kept);
        if (plain == PLAINHELLO_MORE)
            first = CLIENTHELLO_MORE;
    }
    switch (first) {
    case CLIENTHELLO_MORE:
        if (!f->held) {
            if (!(f->held = malloc(CLIENTHELLO_MAX))) {
                tcp_abort(f->conn);
                return len;
            }
            memcpy(f->held, buf, n);
            f->held_len = n;
            f->held_ms = clock_ms();
        }
        return len;
    case CLIENTHELLO_BAD:
        sniff_refuse(f, "it sent a malformed TLS greeting", MISMATCH_TEXT);
        return len;
    case CLIENTHELLO_NOT_TLS:
        if (f->port == 443 && !f->raw) {
            sniff_refuse(f, "it speaks no TLS", MISMATCH_TEXT | MISMATCH_RAW);
            return len;
        }
        break;
    case CLIENTHELLO_DONE:
        if (!hello.has_name || strcmp(hello.name, f->name) != 0) {
            if (hello.has_name)
                sniff_refuse(f, hello.name, 0);
            else
                sniff_refuse(f, "its TLS greeting names no server", MISMATCH_TEXT);
            return len;
        }
    }
    f->kind = RELAY;
    return kept + relay_data(f, buf + kept, len - kept); /* which sends what is held first */
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
    case SNIFF:
        return sniff_data(f, buf, len);
    case INTERCEPT:
        return intercept_data(f->intercept, buf, len);
    default:
        return len;
    }
}

void flows_fin(struct tcp_conn *c, void *arg)
{
    struct flow *f = tcp_owner(c);
    (void)arg;
    f->down_eof = true;
    if (f->kind == SNIFF && f->held && f->held[0] != CLIENTHELLO_RECORD && plainhello_read(f->held, f->held_len, true) == PLAINHELLO_OTHER) {
        f->kind = RELAY; /* a line without an end, and no TLS */
        if (!send_held(f))
            return;
    }
    if (f->kind == INTERCEPT)
        intercept_fin(f->intercept);
    else if ((f->kind == RELAY || f->kind == SNIFF) && !f->held)
        shutdown(f->fd, SHUT_WR);
    else if (f->kind == SNIFF)
        sniff_give_up(f);
    else if (f->kind != RELAY)
        tcp_shutdown(c);
}

void flows_room(struct tcp_conn *c, void *arg)
{
    struct flow *f = tcp_owner(c);
    (void)arg;
    if (f->kind == INTERCEPT)
        intercept_room(f->intercept);
    else if ((f->kind == RELAY || f->kind == SNIFF) && !f->up_eof && f->read_ev)
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
    } else if (reset && f->fd >= 0) {
        /* What the guest did not end in order must not look so to the server. */
        struct linger hard = {1, 0};
        setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    destroy(f, reset);
}

/* ---- what the broker tells ---- */

static bool intercept_start(struct flow *f, const struct answer *a, int fd)
{
    bool refuse = fd < 0;
    char literal[INET6_ADDRSTRLEN];
    struct intercept_target t = {.id = f->id, .name = f->name, .port = f->port, .plain = f->port != 443, .refuse = refuse,
                                 .rule = a->rule, .hint = a->hint};
    if (!f->name[0]) {
        struct ip_addr addr;
        tcp_target(f->conn, &addr, &t.port);
        inet_ntop(addr.family == 4 ? AF_INET : AF_INET6, addr.a, literal, sizeof literal);
        t.name = literal;
    }
    f->intercept = intercept_new(f->all->intercepts, f->conn, fd, &t);
    if (!f->intercept)
        return false;
    f->kind = INTERCEPT;
    f->since_ms = clock_ms();
    return true;
}

/* The host's own services: they have no virtual hosts, and what they speak is their affair. */
static bool is_host_service(const char *name)
{
    return strcmp(rule_alias(name), "localhost") == 0;
}

static void allowed(struct flow *f, const struct answer *a, int fd)
{
    bool judged = (a->flags & ANSWER_INTERCEPT) || (f->name[0] && f->port == 80 && !is_host_service(f->name));
    f->raw = a->flags & ANSWER_RAW;
    f->dialled = true;
    bool good = judged ? intercept_start(f, a, fd) : relay_start(f, fd, f->name[0] && !is_host_service(f->name) ? SNIFF : RELAY);
    if (!good) {
        if (!judged)
            close(fd);
        tcp_refuse(f->conn);
        return;
    }
    f->all->stats.allowed++;
    tcp_accept(f->conn);
}

void flows_answer(struct flows *all, const struct answer *a, int fd)
{
    struct flow *f = find(all, a->id);
    if (a->kind == ANSWER_CUT) {
        if (f && f->dialled) {
            all->stats.cut++;
            tcp_abort(f->conn);
        }
        return;
    }
    if (a->kind == ANSWER_REQUEST) {
        if (f && f->kind == INTERCEPT)
            intercept_answer(f->intercept, a);
        return;
    }
    if (a->kind == ANSWER_REVIEW) {
        if (f && f->kind == INTERCEPT)
            intercept_review(f->intercept);
        return;
    }
    if (a->kind == ANSWER_TRUST) {
        intercepts_trust(all->intercepts, fd);
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
        allowed(f, a, fd);
        return;
    }
    if (fd >= 0)
        close(fd);
    if (a->verdict != VERDICT_DENY) {
        all->stats.failed++;
        tcp_refuse(f->conn);
        return;
    }
    all->stats.denied++;
    /* On the ports of the web a person gets to read why. */
    if ((f->port == 80 || (f->port == 443 && (a->flags & ANSWER_INTERCEPT) && f->name[0])) && intercept_start(f, a, -1))
        tcp_accept(f->conn);
    else
        tcp_refuse(f->conn);
}

void flows_leaf(struct flows *all, const struct answer_leaf *a)
{
    intercepts_leaf(all->intercepts, a);
}

void flows_secret(struct flows *all, const struct answer_secret *a)
{
    intercepts_secret(all->intercepts, a);
}

void flows_sentinel(struct flows *all, const struct answer_sentinel *a)
{
    intercepts_sentinel(all->intercepts, a);
}

void flows_tick(struct flows *all, int64_t now)
{
    struct flow *next;
    for (struct flow *f = all->list; f; f = next) {
        next = f->next;
        if (f->kind == INTERCEPT)
            intercept_tick(f->intercept, now);
        else if (f->kind == SNIFF && f->held && now - f->held_ms > INTERCEPT_HELLO_MS)
            sniff_give_up(f);
    }
}

bool flows_crowded(void *arg)
{
    return asker_crowded(((struct flows *)arg)->asker);
}

void flows_asked(struct flows *all)
{
    intercepts_room(all->intercepts);
}

bool flows_look(struct flows *all)
{
    return intercepts_look(all->intercepts);
}
