/* `sbx net NAME`: the cable's end.  Parses what a hostile guest and hostile servers send, and holds nothing:
 * descriptors 3 (cable), 4 (broker), 5 (supervisor), and those of connections that the broker dialled. */
#include "net/net_main.h"

#include <jansson.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/confine.h"
#include "core/linkev.h"
#include "core/log.h"
#include "core/wipe.h"
#include "net/cable.h"
#include "net/flow.h"
#include "net/names.h"

enum { FD_CABLE = 3, FD_BROKER = 4, FD_SUPERVISOR = 5 };

#define TICK_MS 50
/* A crowd of so many connections leaves memory behind that is given back when the last has gone. */
#define TRIM_AFTER 64u
#define REFUSED_SLOTS 32u
#define REFUSED_FLUSH_MS 250
#define REFUSED_PER_FLUSH 5u /* 20 a second, as net/ask.h promises */
#define ICMP_PER_SECOND 1000u /* refusals that are answered; a flood beyond is only counted */

/* Answers to queries and the like that found the cable full; beyond them they are lost, as on any network. */
#define KEPT_MAX 64u
#define KEPT_FRAME 1600u

struct kept {
    size_t len;
    uint8_t frame[KEPT_FRAME];
};

struct refused {
    struct ask ask;
    bool used;
};

struct net {
    struct event_base *base;
    struct cable *cable;
    struct asker *asker;
    struct fakeip *fake;
    struct names *names;
    struct flows *flows;
    struct tcp *tcp;
    struct linkev *supervisor;
    struct event *tick, *refused_tick, *settle;
    struct refused refused[REFUSED_SLOTS];
    struct kept kept[KEPT_MAX]; /* a ring */
    unsigned kept_first, kept_n;
    unsigned icmp_left;
    int64_t icmp_second, flows_ticked;
    uint64_t frames_in, frames_out, bad, dropped_out, refused_count;
    unsigned open_most;
    bool ticking;
};

static bool emit(const struct iovec *iov, int n, size_t len, void *arg)
{
    struct net *net = arg;
    if (!cable_send(net->cable, iov, n, len)) {
        net->dropped_out++;
        return false;
    }
    net->frames_out++;
    return true;
}

static void emit_frame(struct net *net, const uint8_t *frame, size_t len)
{
    struct iovec iov = {(void *)frame, len};
    if (len == 0)
        return;
    if (net->kept_n == 0 && cable_send(net->cable, &iov, 1, len)) {
        net->frames_out++;
    } else if (net->kept_n < KEPT_MAX && len <= KEPT_FRAME) {
        struct kept *k = &net->kept[(net->kept_first + net->kept_n++) % KEPT_MAX];
        memcpy(k->frame, frame, len);
        k->len = len;
    } else {
        net->dropped_out++;
    }
}

static void emit_kept(struct net *net)
{
    while (net->kept_n) {
        struct kept *k = &net->kept[net->kept_first];
        struct iovec iov = {k->frame, k->len};
        if (!cable_send(net->cable, &iov, 1, k->len))
            return; /* it says when there is room */
        net->frames_out++;
        net->kept_first = (net->kept_first + 1) % KEPT_MAX;
        net->kept_n--;
    }
}

/* ---- refusals: answered at once, reported in sums ---- */

/* So many of them; true: there are more. */
static bool send_refused(struct net *net, unsigned most)
{
    unsigned sent = 0;
    for (unsigned i = 0; i < REFUSED_SLOTS; i++) {
        struct refused *r = &net->refused[i];
        if (!r->used)
            continue;
        if (sent == most)
            return true;
        asker_send(net->asker, &r->ask);
        r->used = false;
        sent++;
    }
    return false;
}

static void refused_flush(evutil_socket_t fd, short what, void *arg)
{
    struct net *net = arg;
    (void)fd;
    (void)what;
    if (send_refused(net, REFUSED_PER_FLUSH)) {
        struct timeval tv = {0, REFUSED_FLUSH_MS * 1000};
        evtimer_add(net->refused_tick, &tv);
    }
}

static void report_refused(struct net *net, enum ask_proto proto, const struct ip_addr *dst, uint16_t port)
{
    struct ask ask = {.kind = ASK_REFUSED, .proto = (uint8_t)proto, .count = 1};
    names_target(net->fake, dst, port, &ask.target);
    struct refused *room = NULL;
    net->refused_count++;
    for (unsigned i = 0; i < REFUSED_SLOTS; i++) {
        struct refused *r = &net->refused[i];
        if (r->used && r->ask.proto == ask.proto && memcmp(&r->ask.target, &ask.target, sizeof ask.target) == 0) {
            r->ask.count++;
            return;
        }
        if (!r->used && !room)
            room = r;
    }
    if (!room) { /* too many different ones: counted together, under what cannot be told apart */
        room = &net->refused[REFUSED_SLOTS - 1];
        unsigned count = room->ask.count + 1;
        room->ask = (struct ask){.kind = ASK_REFUSED, .proto = PROTO_OTHER, .count = count};
        room->ask.target.kind = TARGET_IP4;
        return;
    }
    room->ask = ask;
    room->used = true;
    if (!evtimer_pending(net->refused_tick, NULL)) {
        struct timeval tv = {0, 20000};
        evtimer_add(net->refused_tick, &tv);
    }
}

static void prohibit(struct net *net, const struct packet *p, enum ask_proto proto, uint16_t port)
{
    uint8_t out[1600];
    report_refused(net, proto, &p->dst, port);
    int64_t second = clock_ms() / 1000;
    if (second != net->icmp_second) {
        net->icmp_second = second;
        net->icmp_left = ICMP_PER_SECOND;
    }
    if (net->icmp_left == 0)
        return;
    net->icmp_left--;
    emit_frame(net, out, packet_prohibited(out, p));
}

/* ---- UDP ---- */

static void dns_over_udp(const uint8_t *msg, size_t len, void *arg)
{
    const struct names_return *back = arg;
    struct net *net = back->owner;
    uint8_t out[PACKET_ETH + 40 + 8 + DNS_ANSWER_MAX];
    uint64_t sum;
    size_t n = packet_headers(out, &back->to, &back->from, IPPROTO_UDP, 8 + len, &sum);
    uint8_t *u = out + n;
    u[0] = (uint8_t)(back->to_port >> 8);
    u[1] = (uint8_t)back->to_port;
    u[2] = (uint8_t)(back->from_port >> 8);
    u[3] = (uint8_t)back->from_port;
    u[4] = (uint8_t)((8 + len) >> 8);
    u[5] = (uint8_t)(8 + len);
    u[6] = u[7] = 0;
    memcpy(u + 8, msg, len);
    uint16_t c = packet_fold(packet_sum(u, 8 + len, sum));
    if (c == 0)
        c = 0xffff;
    memcpy(u + 6, &c, 2);
    emit_frame(net, out, n + 8 + len);
}

static void udp(struct net *net, const struct packet *p)
{
    const uint8_t *u = p->payload;
    if (p->payload_len < 8) {
        net->bad++;
        return;
    }
    uint16_t from = (uint16_t)(u[0] << 8 | u[1]), to = (uint16_t)(u[2] << 8 | u[3]);
    size_t len = (size_t)u[4] << 8 | u[5];
    if (len < 8 || len > p->payload_len) {
        net->bad++;
        return;
    }
    if (to != 53) {
        prohibit(net, p, PROTO_UDP, to);
        return;
    }
    struct names_return back = {.send = dns_over_udp, .owner = net, .from = p->src, .to = p->dst, .from_port = from,
                                .to_port = to};
    names_query(net->names, u + 8, len - 8, &back);
}

/* ---- frames ---- */

static void start_ticking(struct net *net)
{
    if (net->ticking)
        return;
    struct timeval tv = {0, TICK_MS * 1000};
    net->ticking = true;
    evtimer_add(net->tick, &tv);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct net *net = arg;
    (void)fd;
    (void)what;
    net->ticking = false;
    int64_t now = clock_ms();
    tcp_tick(net->tcp, now);
    if (now - net->flows_ticked >= 1000) {
        net->flows_ticked = now;
        flows_tick(net->flows, now);
    }
    unsigned open = tcp_count(net->tcp);
    if (open > net->open_most)
        net->open_most = open;
    if (open == 0 && net->open_most >= TRIM_AFTER) {
        net->open_most = 0;
        malloc_trim(0);
    }
    if (!tcp_idle(net->tcp))
        start_ticking(net);
}

static void on_frame(const uint8_t *frame, size_t len, void *arg)
{
    struct net *net = arg;
    struct packet p;
    uint8_t out[1600];
    net->frames_in++;
    packet_parse(&p, frame, len);
    if (p.kind == PACKET_ARP) {
        emit_frame(net, out, packet_arp_reply(out, &p));
    } else if (p.kind == PACKET_IP) {
        size_t n;
        switch (p.proto) {
        case IPPROTO_TCP:
            tcp_input(net->tcp, &p, clock_ms());
            start_ticking(net);
            break;
        case IPPROTO_UDP:
            udp(net, &p);
            break;
        case IPPROTO_ICMP:
        case IPPROTO_ICMPV6:
            n = packet_icmp_reply(out, &p);
            if (n)
                emit_frame(net, out, n);
            else if (p.payload_len && (p.payload[0] == 8 || p.payload[0] == 128))
                prohibit(net, &p, PROTO_ICMP, 0);
            break;
        default:
            prohibit(net, &p, PROTO_OTHER, 0);
        }
    } else if (p.kind == PACKET_BAD) {
        net->bad++;
    }
}

static void start_settling(struct net *net)
{
    struct timeval tv = {0, TCP_SETTLE_MS * 1000};
    if (!evtimer_pending(net->settle, NULL))
        evtimer_add(net->settle, &tv);
}

static void on_settle(evutil_socket_t fd, short what, void *arg)
{
    struct net *net = arg;
    (void)fd;
    (void)what;
    tcp_settle(net->tcp);
    if (tcp_owes(net->tcp))
        start_settling(net);
}

static void on_batch_end(void *arg)
{
    struct net *net = arg;
    tcp_flush(net->tcp);
    if (tcp_owes(net->tcp))
        start_settling(net);
}

static void on_writable(void *arg)
{
    emit_kept(arg);
    tcp_pump(((struct net *)arg)->tcp);
}

static void stop(struct net *net, const char *what, const char *why)
{
    if (why)
        log_line("%s: %s", what, why);
    event_base_loopbreak(net->base);
}

static void on_cable_closed(const char *why, void *arg)
{
    stop(arg, "cable", why);
}

static void on_asker_closed(const char *why, void *arg)
{
    stop(arg, "broker", why);
}

static void on_leaf(const struct answer_leaf *a, void *arg)
{
    struct net *net = arg;
    flows_leaf(net->flows, a);
    tcp_flush(net->tcp);
}

static void on_answer(const struct answer *a, int fd, void *arg)
{
    struct net *net = arg;
    if (a->kind == ANSWER_NAME) {
        if (fd >= 0)
            close(fd);
        names_answer(net->names, a);
    } else {
        flows_answer(net->flows, a, fd);
    }
    tcp_flush(net->tcp);
}

/* ---- the supervisor ---- */

static json_t *counters(const struct net *net)
{
    const struct tcp_stats *t = tcp_stats(net->tcp);
    const struct flow_stats *f = flows_stats(net->flows);
    const struct names_stats *n = names_stats(net->names);
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "frames_in",
        (json_int_t)net->frames_in, "frames_out", (json_int_t)net->frames_out, "bad", (json_int_t)net->bad,
        "refused", (json_int_t)net->refused_count, "connections", (int)tcp_count(net->tcp), "allowed",
        (json_int_t)f->allowed, "denied", (json_int_t)f->denied, "failed", (json_int_t)f->failed, "bytes_up",
        (json_int_t)f->bytes_up, "bytes_down", (json_int_t)f->bytes_down, "retransmits",
        (json_int_t)t->retransmits, "out_of_order", (json_int_t)t->out_of_order, "queries",
        (json_int_t)n->queries, "malformed", (json_int_t)n->malformed, "limited", (json_int_t)n->limited,
        "nxdomain", (json_int_t)n->nxdomain);
}

static void on_ctrl(struct linkev *c, json_t *msg, void *arg)
{
    const char *op = json_string_value(json_object_get(msg, "op"));
    if (!op || strcmp(op, "stats") != 0)
        return;
    json_t *reply = counters(arg);
    json_object_set_new(reply, "op", json_string("reply"));
    json_object_set(reply, "id", json_object_get(msg, "id"));
    json_object_set_new(reply, "ok", json_true());
    link_send_ctrl(linkev_link(c), reply);
}

static void on_supervisor_closed(struct linkev *c, const char *why, void *arg)
{
    (void)c;
    stop(arg, "supervisor", why);
}

static void on_secret(const struct answer_secret *a, void *arg)
{
    flows_secret(((struct net *)arg)->flows, a);
}

static void on_sentinel(const struct answer_sentinel *a, void *arg)
{
    flows_sentinel(((struct net *)arg)->flows, a);
}

static void on_asked(void *arg)
{
    struct net *net = arg;
    flows_asked(net->flows);
    tcp_flush(net->tcp);
}

static const struct asker_ops asker_ops = {on_answer, on_leaf, on_secret, on_sentinel, on_asker_closed, on_asked};

/* Sleeps where nothing is to do, but for the moment that the broker or a server takes for the answer to a single request. */
static void run(struct net *net)
{
    bool look;
    do {
        look = asker_looks(net->asker) || flows_look(net->flows);
        if (look)
            sched_yield(); /* the broker, or what comes before us, may wait for this very processor */
    } while (event_base_loop(net->base, look ? EVLOOP_NONBLOCK : EVLOOP_ONCE) == 0 && !event_base_got_break(net->base));
}

int net_main(int argc, char **argv)
{
    static const struct cable_ops cable_ops = {on_frame, on_batch_end, on_writable, on_cable_closed};
    static const struct tcp_ops tcp_ops = {flows_syn, flows_data, flows_fin, flows_room, flows_closed, emit, flows_crowded};
    static const struct linkev_ops link_ops = {.ctrl = on_ctrl, .closed = on_supervisor_closed};
    static struct net net;
    struct err e = {0};
    uint32_t secret = 0;

    (void)argc;
    (void)argv;
    log_init("net");
    json_set_alloc_funcs(malloc, wipe_free); /* it reads answers with tokens in them, and keeps copies of each text */
    signal(SIGPIPE, SIG_IGN);
    if (getrandom(&secret, sizeof secret, 0) != sizeof secret)
        return STATUS_FAILED;
    net.base = event_base_new();
    net.fake = fakeip_new();
    net.asker = net.base ? asker_new(net.base, FD_BROKER, &asker_ops, &net) : NULL;
    net.names = net.asker ? names_new(net.base, net.asker, net.fake) : NULL;
    net.flows = net.names ? flows_new(net.base, net.asker, net.fake, net.names) : NULL;
    net.cable = net.flows ? cable_new(net.base, FD_CABLE, &cable_ops, &net) : NULL;
    net.supervisor = net.cable ? linkev_new(net.base, FD_SUPERVISOR, &link_ops, &net) : NULL;
    if (!net.supervisor || !net.fake) {
        log_line("cannot start: out of memory");
        return STATUS_FAILED;
    }
    /* emit's argument is the net; the flows find theirs through it. */
    net.tcp = tcp_new(&tcp_ops, net.flows, secret);
    net.tick = evtimer_new(net.base, on_tick, &net);
    net.refused_tick = evtimer_new(net.base, refused_flush, &net);
    net.settle = evtimer_new(net.base, on_settle, &net);
    tcp_set_emit_arg(net.tcp, &net);
    flows_set_tcp(net.flows, net.tcp);
    const struct confine c = {.groups = CONFINE_IO, .own_network = true, .memory_max = 512u * 1024 * 1024,
                              .files_max = TCP_CONNS_MAX + 128};
    if (confine_self(&c, &e) < 0) {
        log_line("%s", e.text);
        return STATUS_FAILED;
    }
    link_send_ctrl(linkev_link(net.supervisor), json_pack("{s:s, s:s, s:i}", "op", "hello", "role", "net", "version", 1));
    run(&net);

    send_refused(&net, REFUSED_SLOTS); /* what was counted last is logged as well */
    tcp_free(net.tcp);
    flows_free(net.flows);
    names_free(net.names);
    cable_free(net.cable);
    linkev_free(net.supervisor);
    asker_free(net.asker);
    fakeip_free(net.fake);
    event_free(net.tick);
    event_free(net.refused_tick);
    event_free(net.settle);
    event_base_free(net.base);
    return STATUS_OK;
}
