/* The TCP that ends the guest's connections: passive open towards any destination.
 *
 * Theory of operation.  The cable is a local stream: in order, without loss, so there is no congestion to
 * control, and what arrives out of order is a hostile or confused guest, answered with a duplicate ACK.
 * A retransmission timer stands by for the one real loss, a guest kernel that drops what it has no memory
 * for.  Each connection has two bounded rings: `tx` keeps what the guest has not acknowledged, `rx` what the
 * guest sent and the owner did not take yet; the window we offer is the free room of rx, so a slow server
 * stops its own connection and nothing else.  Ring memory comes from one budget for the machine; what a window
 * offers counts, also before rx has the memory for it.
 * A pure engine: packets in, callbacks and packets out, time as a number.
 * Sources: RFC 9293 (TCP), RFC 7323 (window scale), RFC 5961 (resets in the window). */
#ifndef SBX_NET_TCP_H
#define SBX_NET_TCP_H

#include <sys/uio.h>

#include "net/packet.h"

#define TCP_CONNS_MAX 512u
#define TCP_PENDING_MAX 64u                      /* connections whose fate is not decided yet */
#define TCP_RING_MIN (32u * 1024u)
#define TCP_RING_MAX (1024u * 1024u)
#define TCP_WINDOW_MAX (512u * 1024u)            /* of rx: eight of the largest segments */
#define TCP_BUDGET (48u * 1024u * 1024u)         /* all rings beyond their minimum */
#define TCP_WINDOWS_BUDGET (24u * 1024u * 1024u) /* beyond so much of it no window widens: the rest is for downloads */

struct tcp;
struct tcp_conn;

struct tcp_stats {
    uint64_t accepted, refused, resets, out_of_order, retransmits, dropped;
};

/* Inside a callback every tcp_* call is allowed; a connection is freed only after `closed` returned. */
struct tcp_ops {
    /* A new connection: answer with tcp_accept, tcp_refuse or tcp_drop, now or later. */
    void (*syn)(struct tcp_conn *c, void *arg);
    /* Bytes of the guest in order; returns how many were taken.  For the rest: tcp_resume. */
    size_t (*data)(struct tcp_conn *c, const uint8_t *buf, size_t len, void *arg);
    /* The guest sends no more; all that it sent was taken. */
    void (*fin)(struct tcp_conn *c, void *arg);
    /* tx has room again after tcp_room said none, or too little. */
    void (*room)(struct tcp_conn *c, void *arg);
    /* Both directions are done, or the connection was reset or timed out.  The last callback. */
    void (*closed)(struct tcp_conn *c, bool reset, void *arg);
    /* Sends one frame.  False if the cable is full: the packet may be dropped, tcp will try again. */
    bool (*emit)(const struct iovec *iov, int n, size_t len, void *arg);
    /* No new connection now: what asks for one is dropped, and comes again.  NULL: never. */
    bool (*crowded)(void *arg);
};

struct tcp *tcp_new(const struct tcp_ops *ops, void *arg, uint32_t secret);
void tcp_free(struct tcp *t);
/* What `emit` gets as arg, if that is not what the other callbacks get. */
void tcp_set_emit_arg(struct tcp *t, void *arg);

/* Takes one packet of protocol TCP. */
void tcp_input(struct tcp *t, const struct packet *p, int64_t now_ms);
/* Call at least every 100 ms while tcp_idle is false. */
void tcp_tick(struct tcp *t, int64_t now_ms);
bool tcp_idle(const struct tcp *t);
/* Acknowledges what the last inputs brought; call once after a batch of them. */
void tcp_flush(struct tcp *t);
/* Where questions are answered at once, their acknowledgements ride on the answers.  While tcp_owes, call tcp_settle every
 * TCP_SETTLE_MS: what waits since the call before is acknowledged by itself (RFC 9293 3.8.6.3 allows 500 ms). */
#define TCP_SETTLE_MS 4
bool tcp_owes(const struct tcp *t);
void tcp_settle(struct tcp *t);
/* The cable has room again: sends what was held back. */
void tcp_pump(struct tcp *t);

void tcp_accept(struct tcp_conn *c);
void tcp_refuse(struct tcp_conn *c); /* RST */
/* Frees a pending connection with an ICMP answer instead (host unreachable and the like are the owner's). */
void tcp_abort(struct tcp_conn *c);  /* RST to the guest; `closed` follows */

/* The next free piece of tx, to read into directly; 0 if there is none.  Then tcp_commit. */
size_t tcp_room(struct tcp_conn *c, uint8_t **buf);
void tcp_commit(struct tcp_conn *c, size_t len);
/* Copies as much as fits. */
size_t tcp_write(struct tcp_conn *c, const void *buf, size_t len);
/* Between the two, written pieces make full segments: what is left goes out with the second. */
void tcp_gather(struct tcp_conn *c);
void tcp_release(struct tcp_conn *c);
void tcp_shutdown(struct tcp_conn *c); /* FIN after what is in tx */

/* Offers what rx holds to `data` again. */
void tcp_resume(struct tcp_conn *c);

void tcp_set_owner(struct tcp_conn *c, void *owner);
/* Bytes that were written and that the guest has not acknowledged. */
size_t tcp_unread(const struct tcp_conn *c);
void *tcp_owner(const struct tcp_conn *c);
void tcp_target(const struct tcp_conn *c, struct ip_addr *addr, uint16_t *port);
const struct tcp_stats *tcp_stats(const struct tcp *t);
unsigned tcp_count(const struct tcp *t);

#endif
