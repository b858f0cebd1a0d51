#include "net/packet.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "core/netplan.h"

static uint8_t guest_mac[6], gateway_mac[6];
static struct ip_addr guest4, guest6, gateway4, gateway6;

static void mac(const char *text, uint8_t out[6])
{
    sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &out[0], &out[1], &out[2], &out[3], &out[4], &out[5]);
}

static void plan(void)
{
    if (guest4.family)
        return;
    mac(NETPLAN_GUEST_MAC, guest_mac);
    mac(NETPLAN_GATEWAY_MAC, gateway_mac);
    inet_pton(AF_INET, NETPLAN_GUEST4, guest4.a);
    inet_pton(AF_INET, NETPLAN_GATEWAY4, gateway4.a);
    inet_pton(AF_INET6, NETPLAN_GUEST6, guest6.a);
    inet_pton(AF_INET6, NETPLAN_GATEWAY6, gateway6.a);
    guest4.family = gateway4.family = 4;
    guest6.family = gateway6.family = 6;
}

bool ip_equal(const struct ip_addr *a, const struct ip_addr *b)
{
    return a->family == b->family && memcmp(a->a, b->a, a->family == 4 ? 4 : 16) == 0;
}

bool ip_is_gateway(const struct ip_addr *a)
{
    plan();
    return ip_equal(a, a->family == 4 ? &gateway4 : &gateway6);
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

uint64_t packet_sum(const void *data, size_t len, uint64_t sum)
{
    const uint8_t *p = data;
    uint64_t a = 0, b = 0;
    /* 32-bit words into 64-bit sums: no carry is lost below 2^32 words, and the compiler vectorises it. */
    while (len >= 32) {
        uint32_t w[8];
        memcpy(w, p, 32);
        a += (uint64_t)w[0] + w[1] + w[2] + w[3];
        b += (uint64_t)w[4] + w[5] + w[6] + w[7];
        p += 32;
        len -= 32;
    }
    while (len >= 4) {
        uint32_t w;
        memcpy(&w, p, 4);
        a += w;
        p += 4;
        len -= 4;
    }
    if (len) {
        uint8_t tail[4] = {0};
        memcpy(tail, p, len);
        uint32_t w;
        memcpy(&w, tail, 4);
        b += w;
    }
    return sum + (a & 0xffffffffu) + (a >> 32) + (b & 0xffffffffu) + (b >> 32);
}

/* The sum is over words in memory order, so the result is stored as it is (RFC 1071, section 2B). */
uint16_t packet_fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void parse4(struct packet *p, const uint8_t *ip, size_t len)
{
    p->kind = PACKET_BAD;
    if (len < 20 || (ip[0] >> 4) != 4)
        return;
    size_t head = (size_t)(ip[0] & 15) * 4, total = get16(ip + 2);
    if (head < 20 || total < head || total > len)
        return;
    if (get16(ip + 6) & 0x3fff) /* more fragments, or an offset */
        return;
    p->ip = ip;
    p->ip_len = total;
    p->src.family = p->dst.family = 4;
    memcpy(p->src.a, ip + 12, 4);
    memcpy(p->dst.a, ip + 16, 4);
    p->proto = ip[9];
    p->payload = ip + head;
    p->payload_len = total - head;
    if ((ip[16] & 0xf0) == 0xe0 || memcmp(ip + 16, "\xff\xff\xff\xff", 4) == 0) {
        p->kind = PACKET_OTHER; /* multicast and broadcast are never answered */
        return;
    }
    if (ip_equal(&p->src, &guest4))
        p->kind = PACKET_IP;
}

static void parse6(struct packet *p, const uint8_t *ip, size_t len)
{
    p->kind = PACKET_BAD;
    if (len < 40 || (ip[0] >> 4) != 6)
        return;
    size_t body = get16(ip + 4);
    if (body > len - 40)
        return;
    p->ip = ip;
    p->ip_len = 40 + body;
    p->src.family = p->dst.family = 6;
    memcpy(p->src.a, ip + 8, 16);
    memcpy(p->dst.a, ip + 24, 16);
    p->proto = ip[6];
    p->payload = ip + 40;
    p->payload_len = body;
    bool link_local = ip[8] == 0xfe && (ip[9] & 0xc0) == 0x80;
    bool solicitation = p->proto == IPPROTO_ICMPV6 && body >= 24 && ip[40] == 135;
    if (solicitation && (link_local || ip_equal(&p->src, &guest6))) {
        p->kind = PACKET_IP;
        return;
    }
    if (ip[24] == 0xff || link_local || memcmp(ip + 8, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16) == 0) {
        p->kind = PACKET_OTHER;
        return;
    }
    /* No extension header has a use on this cable; a fragment or a routing header least of all. */
    switch (p->proto) {
    case 0:
    case 43:
    case 44:
    case 50:
    case 51:
    case 60:
    case 135:
        return;
    }
    if (ip_equal(&p->src, &guest6))
        p->kind = PACKET_IP;
}

void packet_parse(struct packet *p, const uint8_t *frame, size_t len)
{
    plan();
    memset(p, 0, sizeof *p);
    p->frame = frame;
    p->frame_len = len;
    p->kind = PACKET_BAD;
    if (len < PACKET_ETH || memcmp(frame + 6, guest_mac, 6) != 0)
        return;
    const uint8_t *ip = frame + PACKET_ETH;
    switch (get16(frame + 12)) {
    case 0x0800:
        parse4(p, ip, len - PACKET_ETH);
        break;
    case 0x86dd:
        parse6(p, ip, len - PACKET_ETH);
        break;
    case 0x0806:
        p->kind = PACKET_OTHER;
        if (len >= PACKET_ETH + 28 && memcmp(ip, "\0\1\x08\0\6\4\0\1", 8) == 0 &&
            memcmp(ip + 24, gateway4.a, 4) == 0)
            p->kind = PACKET_ARP;
        break;
    default:
        break;
    }
}

size_t packet_headers(uint8_t *out, const struct ip_addr *src, const struct ip_addr *dst, uint8_t proto,
                      size_t len, uint64_t *sum)
{
    plan();
    memcpy(out, guest_mac, 6);
    memcpy(out + 6, gateway_mac, 6);
    uint8_t *ip = out + PACKET_ETH;
    uint8_t pseudo[4] = {0, proto, (uint8_t)(len >> 8), (uint8_t)len};
    if (src->family == 4) {
        put16(out + 12, 0x0800);
        ip[0] = 0x45;
        ip[1] = 0;
        put16(ip + 2, (unsigned)(20 + len));
        put16(ip + 4, 0);
        put16(ip + 6, 0x4000);
        ip[8] = 64;
        ip[9] = proto;
        put16(ip + 10, 0);
        memcpy(ip + 12, src->a, 4);
        memcpy(ip + 16, dst->a, 4);
        uint16_t c = packet_fold(packet_sum(ip, 20, 0));
        memcpy(ip + 10, &c, 2);
        if (sum)
            *sum = packet_sum(pseudo, 4, packet_sum(ip + 12, 8, 0));
        return PACKET_ETH + 20;
    }
    put16(out + 12, 0x86dd);
    memset(ip, 0, 8);
    ip[0] = 0x60;
    put16(ip + 4, (unsigned)len);
    ip[6] = proto;
    ip[7] = 64;
    memcpy(ip + 8, src->a, 16);
    memcpy(ip + 24, dst->a, 16);
    if (sum)
        *sum = packet_sum(pseudo, 4, packet_sum(ip + 8, 32, 0));
    return PACKET_ETH + 40;
}

/* Appends an ICMP message whose checksum field lies at 2; v6 sums the pseudo-header as well. */
static size_t icmp(uint8_t *out, const struct ip_addr *src, const struct ip_addr *dst, const uint8_t *head8,
                   const uint8_t *body, size_t len)
{
    uint64_t sum;
    uint8_t proto = src->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
    size_t n = packet_headers(out, src, dst, proto, 8 + len, &sum);
    memcpy(out + n, head8, 8);
    memmove(out + n + 8, body, len);
    put16(out + n + 2, 0);
    uint16_t c = packet_fold(packet_sum(out + n, 8 + len, src->family == 4 ? 0 : sum));
    memcpy(out + n + 2, &c, 2);
    return n + 8 + len;
}

size_t packet_prohibited(uint8_t *out, const struct packet *p)
{
    /* Never about an ICMP error, else two ends could keep each other busy. */
    if (p->proto == IPPROTO_ICMP && (p->payload_len < 1 || (p->payload[0] != 8 && p->payload[0] != 13)))
        return 0;
    if (p->proto == IPPROTO_ICMPV6 && (p->payload_len < 1 || p->payload[0] < 128 || (p->payload[0] >= 133 && p->payload[0] <= 137)))
        return 0;
    static const uint8_t v4[8] = {3, 13}, v6[8] = {1, 1};
    size_t most = p->src.family == 4 ? 548 : 1232 - 8, n = p->ip_len < most ? p->ip_len : most;
    return icmp(out, &p->dst, &p->src, p->src.family == 4 ? v4 : v6, p->ip, n);
}

size_t packet_arp_reply(uint8_t *out, const struct packet *p)
{
    const uint8_t *q = p->frame + PACKET_ETH;
    memcpy(out, guest_mac, 6);
    memcpy(out + 6, gateway_mac, 6);
    put16(out + 12, 0x0806);
    uint8_t *a = out + PACKET_ETH;
    memcpy(a, q, 8);
    a[7] = 2;
    memcpy(a + 8, gateway_mac, 6);
    memcpy(a + 14, gateway4.a, 4);
    memcpy(a + 18, q + 8, 10);
    return PACKET_ETH + 28;
}

size_t packet_icmp_reply(uint8_t *out, const struct packet *p)
{
    const uint8_t *m = p->payload;
    if (p->proto == IPPROTO_ICMPV6 && p->payload_len >= 24 && m[0] == 135) {
        struct ip_addr target = {.family = 6};
        memcpy(target.a, m + 8, 16);
        if (!ip_is_gateway(&target))
            return 0;
        uint8_t head[8] = {136, 0, 0, 0, 0xe0}, body[24];
        memcpy(body, target.a, 16);
        body[16] = 2;
        body[17] = 1;
        memcpy(body + 18, gateway_mac, 6);
        size_t n = icmp(out, &target, &p->src, head, body, sizeof body);
        out[PACKET_ETH + 7] = 255; /* or it is ignored (RFC 4861, 7.1.2) */
        return n;
    }
    bool echo = p->payload_len >= 8 && m[1] == 0 &&
                ((p->proto == IPPROTO_ICMP && m[0] == 8) || (p->proto == IPPROTO_ICMPV6 && m[0] == 128));
    if (!echo || !ip_is_gateway(&p->dst) || p->payload_len > 1400)
        return 0;
    uint8_t head[8];
    memcpy(head, m, 8);
    head[0] = p->proto == IPPROTO_ICMP ? 0 : 129;
    return icmp(out, &p->dst, &p->src, head, m + 8, p->payload_len - 8);
}
