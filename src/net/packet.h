/* Ethernet, IPv4, IPv6, and the checksums: reading what the guest sent, writing what it gets.
 * All reads are bounds-checked here; the rest of src/net sees only a struct packet.
 * Sources: RFC 791, RFC 8200, RFC 792, RFC 4443, RFC 1071. */
#ifndef SBX_NET_PACKET_H
#define SBX_NET_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_ETH 14u
#define PACKET_FRAME_MAX (PACKET_ETH + 65535u)

/* One address of either family; IPv4 lies in the first four bytes. */
struct ip_addr {
    uint8_t family; /* 4 or 6 */
    uint8_t a[16];
};

enum packet_kind {
    PACKET_BAD,   /* malformed, a fragment, a spoofed source: drop and count */
    PACKET_OTHER, /* none of our business (multicast chatter): drop silently */
    PACKET_ARP,   /* a request for the gateway */
    PACKET_IP,
};

struct packet {
    enum packet_kind kind;
    const uint8_t *frame; /* the whole frame, as received */
    size_t frame_len;
    const uint8_t *ip; /* IP header; length up to the end of the datagram */
    size_t ip_len;
    struct ip_addr src, dst;
    uint8_t proto; /* IPPROTO_* of the payload */
    const uint8_t *payload;
    size_t payload_len;
};

/* Reads one frame.  Only the guest's own addresses are accepted as source. */
void packet_parse(struct packet *p, const uint8_t *frame, size_t len);

/* The plain sum of bytes, to be folded; `sum` chains. */
uint64_t packet_sum(const void *data, size_t len, uint64_t sum);
uint16_t packet_fold(uint64_t sum);

/* Writes Ethernet and IP headers for a payload of `len` bytes of `proto` from src to the guest, and returns
 * their length (34 or 54).  The pseudo-header's sum, to be continued over the payload, goes to *sum. */
size_t packet_headers(uint8_t *out, const struct ip_addr *src, const struct ip_addr *dst, uint8_t proto,
                      size_t len, uint64_t *sum);

/* An ICMP(v6) "destination unreachable, administratively prohibited" for p, from the address it was for.
 * out has room for 1500 bytes.  Returns the frame's length; 0 where none may be sent (RFC 1122 3.2.2). */
size_t packet_prohibited(uint8_t *out, const struct packet *p);

/* Answers: ARP request and neighbour solicitation for the gateway, echo request to it.  0: no answer. */
size_t packet_arp_reply(uint8_t *out, const struct packet *p);
size_t packet_icmp_reply(uint8_t *out, const struct packet *p);

bool ip_equal(const struct ip_addr *a, const struct ip_addr *b);
bool ip_is_gateway(const struct ip_addr *a);

#endif
