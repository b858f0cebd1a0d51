// needs: src/net/packet.c src/net/tcp.c -Itests
/* What a hostile guest puts on the cable: raw frames, and segments of a connection that is alive, with an owner that
 * takes little, answers, shuts and aborts when it likes. */
#include "tcp_guest.h"

static const uint8_t *in;
static size_t left;
static struct tcp_guest *g;

static unsigned byte(void)
{
    if (!left)
        return 0;
    left--;
    return *in++;
}

static void act(struct tcp_conn *c)
{
    static const char text[5000];
    uint8_t *room;
    size_t n;
    switch (byte() % 8) {
    case 0:
        tcp_abort(c);
        break;
    case 1:
        tcp_shutdown(c);
        break;
    case 2:
        n = tcp_write(c, text, byte() * 19u);
        if (n > sizeof text)
            abort();
        break;
    case 3:
        n = tcp_room(c, &room);
        if (n > 100)
            n = 100;
        if (n) {
            memset(room, 'r', n);
            tcp_commit(c, n);
        }
        break;
    case 4:
        tcp_resume(c);
        break;
    default:
        break;
    }
}

static void on_syn(struct tcp_conn *c, void *arg)
{
    (void)arg;
    tcp_set_owner(c, c);
    unsigned what = byte() % 8;
    if (what == 0)
        tcp_refuse(c);
    else if (what > 2)
        tcp_accept(c);
}

static size_t on_data(struct tcp_conn *c, const uint8_t *buf, size_t len, void *arg)
{
    (void)arg;
    unsigned sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += buf[i];
    size_t took = byte() % 4 ? len : (len + sum % 2) / 2;
    act(c);
    return took > len ? len : took;
}

static void on_conn(struct tcp_conn *c, void *arg)
{
    (void)arg;
    act(c);
}

static void on_closed(struct tcp_conn *c, bool reset, void *arg)
{
    (void)reset;
    (void)arg;
    if (tcp_owner(c) != c)
        abort();
    tcp_set_owner(c, NULL); /* twice would show */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tcp_ops ops = {on_syn, on_data, on_conn, on_conn, on_closed, guest_emit, NULL};
    static uint8_t frame[PACKET_FRAME_MAX + 300], out[1600], payload[4096];
    uint32_t mine = 1000;
    g = calloc(1, sizeof *g);
    if (!g)
        return 0;
    in = data;
    left = size;
    g->port = 40000;
    g->to_port = 80;
    g->tcp = tcp_new(&ops, NULL, 7);
    tcp_set_emit_arg(g->tcp, g);
    while (left) {
        unsigned what = byte();
        if (what % 16 == 0) { /* anything */
            size_t n = byte() * 2;
            struct packet p;
            n = n < left ? n : left;
            packet_parse(&p, in, n);
            if (p.kind == PACKET_ARP)
                packet_arp_reply(out, &p);
            if (p.kind == PACKET_IP) {
                if (packet_prohibited(out, &p) > sizeof out || packet_icmp_reply(out, &p) > sizeof out)
                    abort();
                if (p.proto == IPPROTO_TCP)
                    tcp_input(g->tcp, &p, g->now);
            }
            in += n;
            left -= n;
        } else if (what % 16 == 1) {
            g->now += byte() * 50;
            tcp_tick(g->tcp, g->now);
        } else if (what % 16 == 2) {
            g->full = byte() & 1;
            tcp_pump(g->tcp);
        } else if (what % 16 == 3) {
            if (what & 16)
                tcp_settle(g->tcp);
            tcp_flush(g->tcp);
        } else {
            unsigned flags = what % 16 < 10 ? G_ACK : byte();
            uint32_t seq = mine + (uint32_t)(int8_t)(what & 128 ? byte() : 0), ack = g->next + (uint32_t)(int8_t)(what & 64 ? byte() : 0);
            size_t len = what & 32 ? byte() * 16 : 0;
            uint8_t opts[8];
            size_t nopts = flags & G_SYN ? 4 * (byte() % 3) : 0;
            for (size_t i = 0; i < nopts; i++)
                opts[i] = (uint8_t)byte();
            g->six = what & 16;
            g->port = (uint16_t)(40000 + (flags & G_SYN ? byte() % 4 : 0));
            size_t n = guest_frame(g, frame, flags, seq, ack, byte() * 257, opts, nopts, payload, len);
            guest_input(g, frame, n);
            mine = seq + (uint32_t)len + (flags & (G_SYN | G_FIN) ? 1 : 0);
        }
    }
    tcp_free(g->tcp);
    free(g);
    return 0;
}
