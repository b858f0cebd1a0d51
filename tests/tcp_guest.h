/* The other end of the cable for tests of net/tcp.h: builds the guest's segments as a kernel (or an attacker) does, and
 * keeps what came back. */
#ifndef SBX_TESTS_TCP_GUEST_H
#define SBX_TESTS_TCP_GUEST_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "core/netplan.h"
#include "net/packet.h"
#include "net/tcp.h"

enum { G_FIN = 1, G_SYN = 2, G_RST = 4, G_PSH = 8, G_ACK = 16 };

struct tcp_guest {
    struct tcp *tcp;
    int64_t now;
    bool six;
    uint16_t port, to_port;
    /* of the last frame that came */
    unsigned frames, flags;
    uint32_t seq, ack;
    unsigned window;
    size_t len; /* of its payload */
    bool full;  /* the cable takes nothing */
    uint8_t got[1 << 20]; /* payload in order, from what was new */
    size_t ngot;
    uint32_t next; /* the next sequence number that is new */
    bool started;
};

static inline void put16be(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void put32be(uint8_t *p, uint32_t v)
{
    put16be(p, v >> 16);
    put16be(p + 2, v & 0xffff);
}

static inline uint32_t get32be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* A whole frame; opts: a multiple of four bytes. */
static inline size_t guest_frame(const struct tcp_guest *g, uint8_t *out, unsigned flags, uint32_t seq, uint32_t ack,
                                 unsigned window, const uint8_t *opts, size_t nopts, const void *data, size_t len)
{
    static const uint8_t to[6] = {2, 0x53, 0x42, 0x58, 0, 1}, from[6] = {2, 0x53, 0x42, 0x58, 0, 2};
    size_t tlen = 20 + nopts + len, head = g->six ? 40 : 20;
    uint8_t *ip = out + PACKET_ETH, *t = ip + head, pseudo[4] = {0, IPPROTO_TCP, (uint8_t)(tlen >> 8), (uint8_t)tlen};
    memcpy(out, to, 6);
    memcpy(out + 6, from, 6);
    put16be(out + 12, g->six ? 0x86dd : 0x0800);
    memset(ip, 0, head);
    uint64_t sum;
    if (g->six) {
        ip[0] = 0x60;
        put16be(ip + 4, (unsigned)tlen);
        ip[6] = IPPROTO_TCP;
        ip[7] = 64;
        inet_pton(AF_INET6, NETPLAN_GUEST6, ip + 8);
        inet_pton(AF_INET6, "2001:db8::1", ip + 24);
        sum = packet_sum(pseudo, 4, packet_sum(ip + 8, 32, 0));
    } else {
        ip[0] = 0x45;
        put16be(ip + 2, (unsigned)(20 + tlen));
        ip[8] = 64;
        ip[9] = IPPROTO_TCP;
        inet_pton(AF_INET, NETPLAN_GUEST4, ip + 12);
        inet_pton(AF_INET, "192.0.2.1", ip + 16);
        sum = packet_sum(pseudo, 4, packet_sum(ip + 12, 8, 0));
    }
    put16be(t, g->port);
    put16be(t + 2, g->to_port);
    put32be(t + 4, seq);
    put32be(t + 8, ack);
    t[12] = (uint8_t)((20 + nopts) / 4 << 4);
    t[13] = (uint8_t)flags;
    put16be(t + 14, window);
    memset(t + 16, 0, 4);
    if (nopts)
        memcpy(t + 20, opts, nopts);
    if (len)
        memcpy(t + 20 + nopts, data, len);
    uint16_t c = packet_fold(packet_sum(t, tlen, sum));
    memcpy(t + 16, &c, 2);
    return PACKET_ETH + head + tlen;
}

static inline void guest_input(struct tcp_guest *g, const uint8_t *frame, size_t len)
{
    struct packet p;
    packet_parse(&p, frame, len);
    if (p.kind == PACKET_IP && p.proto == IPPROTO_TCP)
        tcp_input(g->tcp, &p, g->now);
}

static inline void guest_send(struct tcp_guest *g, unsigned flags, uint32_t seq, uint32_t ack, unsigned window,
                              const void *data, size_t len)
{
    static const uint8_t scale[4] = {3, 3, 7, 0};
    uint8_t *f = malloc(PACKET_FRAME_MAX + 200);
    size_t n = guest_frame(g, f, flags, seq, ack, window, scale, flags & G_SYN ? 4 : 0, data, len);
    guest_input(g, f, n);
    free(f);
    tcp_flush(g->tcp);
}

/* For struct tcp_ops; arg: the guest. */
static inline bool guest_emit(const struct iovec *iov, int n, size_t len, void *arg)
{
    static uint8_t f[PACKET_FRAME_MAX + 64];
    struct tcp_guest *g = arg;
    size_t at = 0;
    if (g->full)
        return false;
    if (len > sizeof f)
        abort();
    for (int i = 0; i < n; i++) {
        memcpy(f + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    if (at != len)
        abort();
    const uint8_t *ip = f + PACKET_ETH;
    bool six = f[12] == 0x86;
    size_t head = six ? 40 : 20;
    if ((six ? ip[6] : ip[9]) != IPPROTO_TCP || len < PACKET_ETH + head + 20)
        return true;
    const uint8_t *t = ip + head;
    size_t tlen = len - PACKET_ETH - head, off = (size_t)(t[12] >> 4) * 4;
    uint8_t pseudo[4] = {0, IPPROTO_TCP, (uint8_t)(tlen >> 8), (uint8_t)tlen};
    uint64_t sum = packet_sum(pseudo, 4, six ? packet_sum(ip + 8, 32, 0) : packet_sum(ip + 12, 8, 0));
    if (off > tlen || packet_fold(packet_sum(t, tlen, sum)) != 0)
        abort(); /* whatever happens, what we send is well-formed */
    g->frames++;
    g->flags = t[13];
    g->seq = get32be(t + 4);
    g->ack = get32be(t + 8);
    g->window = (unsigned)t[14] << 8 | t[15];
    g->len = tlen - off;
    if (g->flags & G_SYN) {
        g->next = g->seq + 1;
        g->started = true;
    } else if (g->started && g->len && g->seq == g->next && g->ngot + g->len <= sizeof g->got) {
        memcpy(g->got + g->ngot, t + off, g->len);
        g->ngot += g->len;
        g->next += (uint32_t)g->len;
    }
    return true;
}

#endif
