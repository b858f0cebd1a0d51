#include "net/tcp.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

#define BUCKETS 1024u
#define OUR_WSCALE 6 /* 1 MiB fits into 16 bits with room to spare */
#define HEADERS_MAX 128u
#define RTO_MIN 200
#define RTO_MAX 5000
#define RETRIES_MAX 12          /* about 40 s without any answer of the guest */
#define TALKS 2                 /* quick answers after which an acknowledgement waits for the next one */
#define TALKS_MS 2
#define LATER_MAX (16u * 1024u) /* bytes that may wait for it */
#define FIN_WAIT_MS 60000       /* we closed, the guest does not: it had its time */
#define PENDING_MS 170000       /* the broker's own limits (a dial, or somebody who is asked) end it before */

enum state { PENDING, SYN_RCVD, OPEN, GONE };

struct ring {
    uint8_t *buf;
    uint32_t cap, start, used;
};

struct tcp_conn {
    struct tcp *t;
    struct tcp_conn *bucket_next, *prev, *next; /* all connections */
    struct tcp_conn *touched_next;
    struct ip_addr guest, remote;
    uint16_t gport, rport;
    enum state state;
    uint32_t iss, irs;
    uint32_t snd_una, snd_nxt, snd_wnd, rcv_nxt, rcv_edge; /* rcv_edge: right end of the offered window */
    unsigned mss;
    uint8_t snd_scale;
    bool scaling;
    bool fin_in;      /* the guest's FIN was received */
    bool fin_told;    /* and the owner knows */
    bool fin_out;     /* the owner wants to close */
    bool fin_sent, fin_acked;
    bool probing; /* the last byte sent was a zero window probe, and the guest may have dropped it */
    bool ack_now, touched, starved, in_callback;
    bool gathering; /* more is written at once: what fills no segment waits for it */
    /* Acknowledgements that ride on answers. */
    bool ack_later;
    uint8_t talks;      /* answers in a row that came at once */
    unsigned later_turn; /* of tcp_settle, since which ack_later waits */
    uint32_t rcv_acked;
    bool heard;         /* since the last answer */
    int64_t heard_ms;
    struct ring tx, rx;
    uint32_t rx_most; /* what the window offers; rx grows to it when bytes have to wait */
    uint32_t rx_came; /* since rx_most was looked at */
    int64_t timer_ms; /* when something that is outstanding is sent again; 0: nothing is */
    int64_t since_ms; /* pending since, or closing since */
    unsigned rto, tries;
    void *owner;
};

struct tcp {
    const struct tcp_ops *ops;
    void *arg, *emit_arg;
    uint32_t secret; /* of the table's hash: a guest must not be able to aim at one bucket */
    uint32_t isn;
    struct tcp_conn *bucket[BUCKETS];
    struct tcp_conn *all, *touched, *dead;
    unsigned count, pending, later, turn;
    size_t budget_used;
    int64_t now;
    bool blocked;
    struct tcp_stats stats;
};

static int32_t diff(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static uint32_t hash(const struct tcp *t, const struct ip_addr *remote, uint16_t rport, uint16_t gport)
{
    uint32_t h = t->secret ^ remote->family;
    for (size_t i = 0; i < 16; i++)
        h = (h ^ remote->a[i]) * 16777619u;
    h = (h ^ rport) * 16777619u;
    h = (h ^ gport) * 16777619u;
    return h ^ h >> 15;
}

struct tcp *tcp_new(const struct tcp_ops *ops, void *arg, uint32_t secret)
{
    struct tcp *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->ops = ops;
    t->arg = t->emit_arg = arg;
    t->secret = secret;
    t->isn = secret ^ 0x5bd1e995u;
    return t;
}

void tcp_set_emit_arg(struct tcp *t, void *arg)
{
    t->emit_arg = arg;
}

/* ---- rings ---- */

static void ring_free(struct ring *r)
{
    free(r->buf);
    memset(r, 0, sizeof *r);
}

/* Of all rings together: what is more than the least counts. */
static size_t counted(uint32_t size)
{
    return size > TCP_RING_MIN ? size - TCP_RING_MIN : 0;
}

/* The size after this one, if so much of the machine's budget is still there; else 0. */
static uint32_t next_size(const struct tcp *t, uint32_t size, size_t budget)
{
    if (size == 0)
        return TCP_RING_MIN;
    return size >= TCP_RING_MAX || t->budget_used + counted(size * 2) - counted(size) > budget ? 0 : size * 2;
}

static void recount(struct tcp *t, uint32_t before, uint32_t after)
{
    t->budget_used = t->budget_used - counted(before) + counted(after);
}

static bool ring_resize(struct ring *r, uint32_t cap)
{
    uint8_t *buf = malloc(cap);
    if (!buf)
        return false;
    if (r->used) { /* unrolled: the data begins at 0 of the new one */
        uint32_t first = r->cap - r->start < r->used ? r->cap - r->start : r->used;
        memcpy(buf, r->buf + r->start, first);
        memcpy(buf + first, r->buf, r->used - first);
    }
    free(r->buf);
    r->buf = buf;
    r->cap = cap;
    r->start = 0;
    return true;
}

static uint32_t ring_put(struct ring *r, const uint8_t *p, uint32_t len)
{
    if (len > r->cap - r->used)
        len = r->cap - r->used;
    uint32_t at = (r->start + r->used) & (r->cap ? r->cap - 1 : 0);
    uint32_t first = len < r->cap - at ? len : r->cap - at;
    if (len) {
        memcpy(r->buf + at, p, first);
        memcpy(r->buf, p + first, len - first);
    }
    r->used += len;
    return len;
}

/* Doubles a ring that is too small for its flow, as long as the machine's budget allows. */
static bool tx_grow(struct tcp_conn *c)
{
    uint32_t before = c->tx.cap, cap = next_size(c->t, before, TCP_BUDGET);
    if (!cap || !ring_resize(&c->tx, cap))
        return false;
    recount(c->t, before, cap);
    return true;
}

/* Bytes that the owner does not take wait in rx. */
static uint32_t rx_put(struct tcp_conn *c, const uint8_t *p, uint32_t len)
{
    while (c->rx.cap - c->rx.used < len && c->rx.cap < c->rx_most && ring_resize(&c->rx, c->rx.cap * 2))
        ;
    return ring_put(&c->rx, p, len);
}

/* Where the owner keeps up with the guest, a window's worth after the other, the next window is twice as wide: a kernel makes
 * no segment larger than half of the widest window that it saw, and each segment costs an emulated machine the same. */
static void widen(struct tcp_conn *c, uint32_t took)
{
    c->rx_came += took;
    if (c->rx_came < c->rx_most || c->rx.used)
        return;
    c->rx_came = 0;
    uint32_t next = c->rx_most < TCP_WINDOW_MAX ? next_size(c->t, c->rx_most, TCP_WINDOWS_BUDGET) : 0;
    if (next) {
        recount(c->t, c->rx_most, next);
        c->rx_most = next;
    }
}

static void ring_drop(struct ring *r, uint32_t len)
{
    r->used -= len;
    r->start = r->used ? (r->start + len) & (r->cap - 1) : 0;
}

/* ---- sending ---- */

static uint32_t window(const struct tcp_conn *c)
{
    uint32_t room = (c->rx_most ? c->rx_most : TCP_RING_MIN) - c->rx.used;
    uint32_t most = c->scaling ? 65535u << OUR_WSCALE : 65535u;
    return room < most ? room : most;
}

static void not_later(struct tcp_conn *c)
{
    c->t->later -= c->ack_later;
    c->ack_later = false;
}

/* One segment; data comes from tx at `offset` from snd_una. */
static bool send_segment(struct tcp_conn *c, unsigned flags, uint32_t seq, uint32_t offset, uint32_t len)
{
    uint8_t head[HEADERS_MAX], opts[8];
    size_t optlen = 0;
    if (flags & SYN) {
        unsigned mss = c->mss;
        opts[0] = 2;
        opts[1] = 4;
        opts[2] = (uint8_t)(mss >> 8);
        opts[3] = (uint8_t)mss;
        optlen = 4;
        if (c->scaling) {
            memcpy(opts + 4, "\3\3", 2);
            opts[6] = OUR_WSCALE;
            opts[7] = 0;
            optlen = 8;
        }
    }
    uint64_t sum;
    size_t tcplen = 20 + optlen;
    size_t n = packet_headers(head, &c->remote, &c->guest, IPPROTO_TCP, tcplen + len, &sum);
    uint8_t *h = head + n;
    uint32_t wnd = window(c);
    h[0] = (uint8_t)(c->rport >> 8);
    h[1] = (uint8_t)c->rport;
    h[2] = (uint8_t)(c->gport >> 8);
    h[3] = (uint8_t)c->gport;
    put32(h + 4, seq);
    put32(h + 8, flags & ACK ? c->rcv_nxt : 0);
    h[12] = (uint8_t)(tcplen / 4 << 4);
    h[13] = (uint8_t)flags;
    uint32_t shown = flags & SYN ? (wnd < 65535 ? wnd : 65535) : c->scaling ? wnd >> OUR_WSCALE : wnd;
    h[14] = (uint8_t)(shown >> 8);
    h[15] = (uint8_t)shown;
    memset(h + 16, 0, 4);
    memcpy(h + 20, opts, optlen);

    struct iovec iov[3] = {{head, n + tcplen}};
    int parts = 1;
    sum = packet_sum(h, tcplen, sum);
    if (len) {
        struct ring *r = &c->tx;
        uint32_t at = (r->start + offset) & (r->cap - 1);
        uint32_t first = len < r->cap - at ? len : r->cap - at;
        iov[parts++] = (struct iovec){r->buf + at, first};
        sum = packet_sum(r->buf + at, first, sum);
        if (first < len) {
            uint64_t rest = packet_sum(r->buf, len - first, 0);
            if (first & 1) { /* the second piece begins at an odd place: its bytes change columns */
                uint32_t f = (uint16_t)~packet_fold(rest);
                rest = (f >> 8 | f << 8) & 0xffff;
            }
            sum += rest;
            iov[parts++] = (struct iovec){r->buf, len - first};
        }
    }
    uint16_t check = packet_fold(sum);
    memcpy(h + 16, &check, 2);
    if (!c->t->ops->emit(iov, parts, n + tcplen + len, c->t->emit_arg)) {
        c->t->blocked = true;
        return false;
    }
    if (len && c->heard) {
        c->heard = false;
        c->talks = c->t->now - c->heard_ms > TALKS_MS ? 0 : c->talks < TALKS ? c->talks + 1 : TALKS;
    }
    if (flags & ACK) {
        c->ack_now = false;
        not_later(c);
        c->rcv_acked = c->rcv_nxt;
        c->rcv_edge = c->rcv_nxt + (c->scaling ? shown << OUR_WSCALE : shown);
    }
    return true;
}

static void arm(struct tcp_conn *c)
{
    bool outstanding = c->state == SYN_RCVD || (c->state == OPEN && c->snd_una != c->snd_nxt) ||
                       (c->state == OPEN && c->snd_wnd == 0 && c->tx.used) ||
                       (c->state == OPEN && c->fin_out && !c->fin_acked);
    if (!outstanding)
        c->timer_ms = 0;
    else if (!c->timer_ms)
        c->timer_ms = c->t->now + c->rto;
}

/* Sends what the guest's window allows. */
static void output(struct tcp_conn *c)
{
    if (c->state != OPEN)
        return;
    while (!c->t->blocked) {
        uint32_t flight = c->snd_nxt - c->snd_una; /* without the FIN, which is counted below */
        if (c->fin_sent)
            break;
        uint32_t unsent = c->tx.used - flight;
        uint32_t room = c->snd_wnd > flight ? c->snd_wnd - flight : 0;
        uint32_t len = unsent < room ? unsent : room;
        if (len > c->mss)
            len = c->mss;
        if (len == 0)
            break;
        if (c->gathering && len < c->mss)
            break;
        /* A small piece of a large window waits for the rest of it (silly windows, RFC 9293 3.8.6.2.1). */
        if (len < unsent && len < c->mss && flight && len < c->snd_wnd / 2)
            break;
        if (!send_segment(c, ACK | (len == unsent ? PSH : 0), c->snd_nxt, flight, len))
            break;
        c->snd_nxt += len;
    }
    if (c->fin_out && !c->fin_sent && c->snd_nxt - c->snd_una == c->tx.used && !c->t->blocked &&
        send_segment(c, FIN | ACK, c->snd_nxt, 0, 0)) {
        c->snd_nxt++;
        c->fin_sent = true;
    }
    arm(c);
}

static void touch(struct tcp_conn *c)
{
    if (c->touched)
        return;
    c->touched = true;
    c->touched_next = c->t->touched;
    c->t->touched = c;
}

/* An answer to what belongs to no connection (RFC 9293 3.5.2). */
static void send_reset(struct tcp *t, const struct packet *p, uint32_t seq, uint32_t ack, unsigned flags)
{
    struct tcp_conn c = {.t = t, .guest = p->src, .remote = p->dst, .rcv_nxt = ack,
                         .gport = (uint16_t)(p->payload[0] << 8 | p->payload[1]),
                         .rport = (uint16_t)(p->payload[2] << 8 | p->payload[3])};
    bool blocked = t->blocked;
    send_segment(&c, flags, seq, 0, 0);
    t->blocked = blocked;
    t->stats.resets++;
}

/* ---- life ---- */

static void unlink_conn(struct tcp_conn *c)
{
    struct tcp *t = c->t;
    if (c->state == GONE)
        return;
    if (c->state == PENDING)
        t->pending--;
    c->state = GONE;
    struct tcp_conn **p = &t->bucket[hash(t, &c->remote, c->rport, c->gport) % BUCKETS];
    while (*p != c)
        p = &(*p)->bucket_next;
    *p = c->bucket_next;
    if (c->prev)
        c->prev->next = c->next;
    else
        t->all = c->next;
    if (c->next)
        c->next->prev = c->prev;
    t->count--;
    not_later(c);
    recount(t, c->tx.cap, 0);
    recount(t, c->rx_most, 0);
    ring_free(&c->tx);
    ring_free(&c->rx);
    c->next = t->dead; /* freed when no callback can be on the stack any more */
    t->dead = c;
}

static void gone(struct tcp_conn *c, bool reset)
{
    if (c->state == GONE)
        return;
    unlink_conn(c);
    c->t->ops->closed(c, reset, c->t->arg);
}

static void bury(struct tcp *t)
{
    struct tcp_conn **p = &t->touched;
    while (*p)
        if ((*p)->state == GONE)
            *p = (*p)->touched_next;
        else
            p = &(*p)->touched_next;
    while (t->dead) {
        struct tcp_conn *c = t->dead;
        t->dead = c->next;
        free(c);
    }
}

static void maybe_done(struct tcp_conn *c)
{
    if (c->state == OPEN && c->fin_told && c->fin_acked)
        gone(c, false);
}

void tcp_free(struct tcp *t)
{
    if (!t)
        return;
    while (t->all)
        unlink_conn(t->all);
    t->touched = NULL;
    bury(t);
    free(t);
}

static struct tcp_conn *find(struct tcp *t, const struct packet *p, uint16_t gport, uint16_t rport)
{
    struct tcp_conn *c = t->bucket[hash(t, &p->dst, rport, gport) % BUCKETS];
    while (c && !(c->gport == gport && c->rport == rport && ip_equal(&c->remote, &p->dst)))
        c = c->bucket_next;
    return c;
}

static void read_options(struct tcp_conn *c, const uint8_t *o, size_t len)
{
    while (len) {
        if (o[0] == 0)
            return;
        if (o[0] == 1) {
            o++;
            len--;
            continue;
        }
        if (len < 2 || o[1] < 2 || o[1] > len)
            return;
        if (o[0] == 2 && o[1] == 4) {
            unsigned mss = (unsigned)o[2] << 8 | o[3];
            c->mss = mss < 64 ? 64 : mss < c->mss ? mss : c->mss;
        } else if (o[0] == 3 && o[1] == 3) {
            c->scaling = true;
            c->snd_scale = o[2] > 14 ? 14 : o[2];
        }
        len -= o[1];
        o += o[1];
    }
}

static void new_connection(struct tcp *t, const struct packet *p, uint16_t gport, uint16_t rport, uint32_t seq,
                           unsigned wnd, const uint8_t *opts, size_t optlen)
{
    if (t->count >= TCP_CONNS_MAX || t->pending >= TCP_PENDING_MAX || (t->ops->crowded && t->ops->crowded(t->arg))) {
        t->stats.refused++;
        /* Silence: the guest's kernel asks again, when there may be room (its SYN queue is our queue). */
        if (t->count >= TCP_CONNS_MAX)
            send_reset(t, p, 0, seq + 1, RST | ACK);
        return;
    }
    struct tcp_conn *c = calloc(1, sizeof *c);
    if (!c)
        return;
    c->t = t;
    c->guest = p->src;
    c->remote = p->dst;
    c->gport = gport;
    c->rport = rport;
    c->state = PENDING;
    c->irs = seq;
    c->rcv_nxt = c->rcv_edge = seq + 1;
    t->isn = t->isn * 1664525u + 1013904223u;
    c->iss = (hash(t, &p->dst, rport, gport) ^ t->isn) + (uint32_t)t->now * 250u;
    c->snd_una = c->snd_nxt = c->iss;
    c->snd_wnd = wnd;
    c->mss = p->src.family == 4 ? 65520 - 40 : 65520 - 60;
    c->rto = RTO_MIN;
    c->since_ms = t->now;
    read_options(c, opts, optlen);
    struct tcp_conn **b = &t->bucket[hash(t, &c->remote, rport, gport) % BUCKETS];
    c->bucket_next = *b;
    *b = c;
    c->next = t->all;
    if (t->all)
        t->all->prev = c;
    t->all = c;
    t->count++;
    t->pending++;
    t->ops->syn(c, t->arg);
}

void tcp_accept(struct tcp_conn *c)
{
    if (c->state != PENDING)
        return;
    c->t->pending--;
    c->t->stats.accepted++;
    c->state = SYN_RCVD;
    c->rx_most = TCP_RING_MIN;
    if (!ring_resize(&c->rx, c->rx_most) || !tx_grow(c)) {
        tcp_abort(c);
        return;
    }
    send_segment(c, SYN | ACK, c->iss, 0, 0);
    c->snd_nxt = c->iss + 1;
    arm(c);
}

void tcp_refuse(struct tcp_conn *c)
{
    if (c->state != PENDING)
        return;
    c->t->stats.refused++;
    send_segment(c, RST | ACK, 0, 0, 0);
    gone(c, true);
}

void tcp_abort(struct tcp_conn *c)
{
    if (c->state == GONE)
        return;
    if (c->state == PENDING) {
        tcp_refuse(c);
        return;
    }
    c->t->stats.resets++;
    send_segment(c, RST | ACK, c->snd_nxt, 0, 0);
    gone(c, true);
}

/* ---- the owner's side ---- */

size_t tcp_room(struct tcp_conn *c, uint8_t **buf)
{
    struct ring *r = &c->tx;
    if (c->state != OPEN || c->fin_out)
        return 0;
    if (r->used == r->cap && !tx_grow(c)) {
        c->starved = true;
        return 0;
    }
    uint32_t at = (r->start + r->used) & (r->cap - 1);
    uint32_t room = r->cap - r->used;
    *buf = r->buf + at;
    return room < r->cap - at ? room : r->cap - at;
}

void tcp_commit(struct tcp_conn *c, size_t len)
{
    c->tx.used += (uint32_t)len;
    output(c);
}

size_t tcp_write(struct tcp_conn *c, const void *buf, size_t len)
{
    size_t done = 0;
    uint8_t *room;
    size_t n;
    while (done < len && (n = tcp_room(c, &room)) > 0) {
        if (n > len - done)
            n = len - done;
        memcpy(room, (const uint8_t *)buf + done, n);
        c->tx.used += (uint32_t)n;
        done += n;
    }
    output(c);
    return done;
}

void tcp_gather(struct tcp_conn *c)
{
    c->gathering = true;
}

void tcp_release(struct tcp_conn *c)
{
    c->gathering = false;
    output(c);
}

void tcp_shutdown(struct tcp_conn *c)
{
    if (c->state == GONE || c->fin_out)
        return;
    c->fin_out = true;
    c->since_ms = c->t->now;
    output(c);
}

/* What the owner did not take waits in rx; here it is offered again, and then the end. */
void tcp_resume(struct tcp_conn *c)
{
    struct tcp *t = c->t;
    if (c->in_callback)
        return;
    c->in_callback = true;
    while (c->state == OPEN && c->rx.used) {
        uint32_t n = c->rx.cap - c->rx.start < c->rx.used ? c->rx.cap - c->rx.start : c->rx.used;
        size_t took = t->ops->data(c, c->rx.buf + c->rx.start, n, t->arg);
        if (c->state != OPEN)
            break;
        if (took) {
            ring_drop(&c->rx, (uint32_t)took);
            touch(c);
        }
        if (took < n)
            break;
    }
    if (c->state == OPEN && c->rx.used == 0 && c->fin_in && !c->fin_told) {
        c->fin_told = true;
        t->ops->fin(c, t->arg);
    }
    c->in_callback = false;
    maybe_done(c);
}

void tcp_set_owner(struct tcp_conn *c, void *owner)
{
    c->owner = owner;
}

size_t tcp_unread(const struct tcp_conn *c)
{
    return c->tx.used;
}

void *tcp_owner(const struct tcp_conn *c)
{
    return c->owner;
}

void tcp_target(const struct tcp_conn *c, struct ip_addr *addr, uint16_t *port)
{
    *addr = c->remote;
    *port = c->rport;
}

const struct tcp_stats *tcp_stats(const struct tcp *t)
{
    return &t->stats;
}

unsigned tcp_count(const struct tcp *t)
{
    return t->count;
}

bool tcp_idle(const struct tcp *t)
{
    return !t->all;
}

/* ---- input ---- */

static void take_data(struct tcp_conn *c, const uint8_t *p, uint32_t len)
{
    struct tcp *t = c->t;
    uint32_t took = 0;
    if (c->rx.used == 0 && !c->in_callback) { /* the common case: straight from the packet to the owner */
        c->in_callback = true;
        took = (uint32_t)t->ops->data(c, p, len, t->arg);
        c->in_callback = false;
        if (c->state != OPEN)
            return;
    }
    if (took < len)
        took += rx_put(c, p + took, len - took);
    c->rcv_nxt += took;
    if (took && c->fin_out)
        c->since_ms = t->now; /* it still has something to say */
    widen(c, took);
    c->heard = true;
    c->heard_ms = t->now;
    /* Where each question is answered at once, the answer says that it came: one packet less for the guest.  Not where
     * a second one came meanwhile, or where the window shuts. */
    if (c->talks == TALKS && took == len && !c->ack_now && !c->ack_later && c->rx.used == 0 && c->rcv_nxt - c->rcv_acked < LATER_MAX) {
        c->ack_later = true;
        c->later_turn = t->turn;
        t->later++;
        return;
    }
    c->ack_now = true;
    touch(c);
}

static void take_ack(struct tcp_conn *c, uint32_t ack)
{
    uint32_t acked = ack - c->snd_una;
    if (c->fin_sent && ack == c->snd_nxt) {
        c->fin_acked = true;
        acked--;
    }
    if (acked > c->tx.used)
        acked = c->tx.used;
    ring_drop(&c->tx, acked);
    c->snd_una = ack;
    c->tries = 0;
    c->rto = RTO_MIN;
    c->timer_ms = 0;
    if (c->starved && acked) {
        c->starved = false;
        c->t->ops->room(c, c->t->arg);
    }
}

static void established(struct tcp_conn *c)
{
    c->state = OPEN;
    c->snd_una = c->iss + 1;
    c->timer_ms = 0;
    c->tries = 0;
    c->t->ops->room(c, c->t->arg);
}

static void segment(struct tcp_conn *c, unsigned flags, uint32_t seq, uint32_t ack, unsigned wnd,
                    const uint8_t *data, uint32_t len)
{
    struct tcp *t = c->t;
    if (flags & RST) {
        if (c->state == PENDING || seq == c->rcv_nxt)
            gone(c, true);
        else if (diff(seq, c->rcv_nxt) > 0 && diff(seq, c->rcv_edge) < 0)
            send_segment(c, ACK, c->snd_nxt, 0, 0); /* challenge (RFC 5961 3.2) */
        return;
    }
    if (c->state == PENDING) {
        /* A repeated SYN: the answer is on its way.  Another SYN, or anything else: the guest gave up. */
        if (!(flags & SYN) || seq != c->irs)
            gone(c, true);
        return;
    }
    if (flags & SYN) {
        if (c->state == SYN_RCVD && seq == c->irs)
            send_segment(c, SYN | ACK, c->iss, 0, 0);
        else
            send_segment(c, ACK, c->snd_nxt, 0, 0);
        return;
    }
    if (!(flags & ACK))
        return;
    if (c->state == SYN_RCVD) {
        if (ack != c->snd_nxt) {
            t->stats.dropped++;
            return;
        }
        c->snd_wnd = (uint32_t)wnd << c->snd_scale;
        established(c);
        if (c->state != OPEN)
            return;
    }
    if (diff(ack, c->snd_nxt) > 0) {
        send_segment(c, ACK, c->snd_nxt, 0, 0);
        return;
    }
    bool advance = diff(ack, c->snd_una) > 0;
    if (advance || ack == c->snd_una) {
        c->snd_wnd = (uint32_t)wnd << c->snd_scale;
        if (c->probing) {
            c->tries = 0; /* shut, but alive */
            if (!advance && c->snd_wnd)
                c->snd_nxt = c->snd_una;
            if (advance || c->snd_wnd)
                c->probing = false;
        }
    }
    if (advance)
        take_ack(c, ack);
    if (c->state != OPEN)
        return;

    bool fin = flags & FIN;
    if (len || fin) {
        uint32_t skip = 0;
        if (diff(seq, c->rcv_nxt) < 0) { /* sent again: only what is new counts */
            skip = (uint32_t)-diff(seq, c->rcv_nxt);
            if (skip > len) {
                c->ack_now = true;
                touch(c);
                len = 0;
                fin = false;
                skip = 0;
            }
        } else if (seq != c->rcv_nxt) {
            t->stats.out_of_order++;
            c->ack_now = true;
            touch(c);
            len = 0;
            fin = false;
        }
        len -= skip;
        if (c->fin_in) {
            c->ack_now = true;
            touch(c);
            len = 0;
            fin = false;
        }
        if (len) {
            uint32_t before = c->rcv_nxt;
            take_data(c, data + skip, len);
            if (c->state != OPEN)
                return;
            if (c->rcv_nxt - before < len)
                fin = false; /* beyond the window: it will come again */
        }
        if (fin) {
            c->fin_in = true;
            c->rcv_nxt++;
            c->ack_now = true;
            touch(c);
            tcp_resume(c);
            if (c->state != OPEN)
                return;
        }
    }
    output(c);
    maybe_done(c);
}

void tcp_input(struct tcp *t, const struct packet *p, int64_t now_ms)
{
    t->now = now_ms;
    const uint8_t *h = p->payload;
    size_t head = p->payload_len >= 20 ? (size_t)(h[12] >> 4) * 4 : 0;
    if (head < 20 || head > p->payload_len) {
        t->stats.dropped++;
        return;
    }
    uint16_t gport = (uint16_t)(h[0] << 8 | h[1]), rport = (uint16_t)(h[2] << 8 | h[3]);
    uint32_t seq = get32(h + 4), ack = get32(h + 8);
    unsigned flags = h[13] & 0x1f, wnd = (unsigned)h[14] << 8 | h[15];
    const uint8_t *data = h + head;
    uint32_t len = (uint32_t)(p->payload_len - head);
    /* The link cannot corrupt: a wrong checksum would harm the guest's own data alone, so none is verified. */
    if (gport == 0 || rport == 0) {
        t->stats.dropped++;
        return;
    }
    struct tcp_conn *c = find(t, p, gport, rport);
    if (c)
        segment(c, flags, seq, ack, wnd, data, len);
    else if (flags & RST)
        ;
    else if ((flags & (SYN | ACK | FIN)) == SYN)
        new_connection(t, p, gport, rport, seq, wnd, h + 20, head - 20);
    else if (flags & ACK)
        send_reset(t, p, ack, 0, RST);
    else
        send_reset(t, p, 0, seq + len + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0), RST | ACK);
    if (t->dead)
        bury(t);
}

void tcp_flush(struct tcp *t)
{
    while (t->touched) {
        struct tcp_conn *c = t->touched;
        t->touched = c->touched_next;
        c->touched = false;
        if (c->state != OPEN)
            continue;
        /* Also when the window, nearly shut, has opened well again. */
        uint32_t offered = c->rcv_edge - c->rcv_nxt, now = window(c);
        bool opened = now > offered && now - offered >= (c->rx_most / 2 < 2 * c->mss ? c->rx_most / 2 : 2 * c->mss);
        if ((c->ack_now || opened) && !send_segment(c, ACK, c->snd_nxt, 0, 0))
            c->ack_now = true;
    }
    if (t->dead)
        bury(t);
}

bool tcp_owes(const struct tcp *t)
{
    return t->later > 0;
}

void tcp_settle(struct tcp *t)
{
    for (struct tcp_conn *c = t->all; c && t->later; c = c->next)
        if (c->ack_later && c->later_turn != t->turn) {
            c->talks = 0; /* whoever waits for it waits once */
            not_later(c);
            c->ack_now = true;
            touch(c);
        }
    t->turn++;
    tcp_flush(t);
}

void tcp_pump(struct tcp *t)
{
    t->blocked = false;
    for (struct tcp_conn *c = t->all, *next; c && !t->blocked; c = next) {
        next = c->next;
        if (c->state != OPEN)
            continue;
        output(c);
        if (c->ack_now && !t->blocked)
            send_segment(c, ACK, c->snd_nxt, 0, 0);
    }
}

static void timeout(struct tcp_conn *c)
{
    struct tcp *t = c->t;
    if (++c->tries > RETRIES_MAX) {
        send_segment(c, RST | ACK, c->snd_nxt, 0, 0);
        gone(c, true);
        return;
    }
    t->stats.retransmits++;
    c->rto = c->rto * 2 > RTO_MAX ? RTO_MAX : c->rto * 2;
    c->timer_ms = t->now + c->rto;
    if (c->state == SYN_RCVD) {
        send_segment(c, SYN | ACK, c->iss, 0, 0);
        return;
    }
    if (c->probing)
        c->snd_nxt = c->snd_una;
    uint32_t flight = c->snd_nxt - c->snd_una - (c->fin_sent && !c->fin_acked ? 1 : 0);
    if (flight) {
        uint32_t len = flight < c->mss ? flight : c->mss;
        send_segment(c, ACK | PSH, c->snd_una, 0, len);
    } else if (c->fin_sent && !c->fin_acked) {
        send_segment(c, FIN | ACK, c->snd_nxt - 1, 0, 0);
    } else if (c->tx.used && c->snd_wnd == 0) {
        /* Zero window probe: one byte beyond it.  A guest that stays shut is alive as long as it answers. */
        if (send_segment(c, ACK, c->snd_nxt, 0, 1)) {
            c->snd_nxt++;
            c->probing = true;
        }
    }
}

void tcp_tick(struct tcp *t, int64_t now_ms)
{
    t->now = now_ms;
    for (struct tcp_conn *c = t->all, *next; c; c = next) {
        next = c->next;
        if (c->state == PENDING) {
            if (now_ms - c->since_ms > PENDING_MS)
                tcp_refuse(c);
            continue;
        }
        if (c->timer_ms && now_ms >= c->timer_ms)
            timeout(c);
        if (c->state == OPEN && c->fin_acked && !c->fin_in && now_ms - c->since_ms > FIN_WAIT_MS)
            tcp_abort(c);
    }
    if (t->dead)
        bury(t);
}
