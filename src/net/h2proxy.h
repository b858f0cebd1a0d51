/* HTTP/2 between two ends: a server towards the guest, a client towards the upstream, stream by stream.
 *
 * Theory of operation.  A request stream of the guest is judged when its header section is whole, and opened upstream
 * then.  Data waits in two queues per stream, no more than the flow-control windows that we gave: a window is opened
 * again only as far as data was passed on, so a slow reader holds up its own stream and its sender, and nobody's memory.
 * Trailers, informational answers and resets are passed on; pushes are refused; pings and settings end here.
 * (RFC 9113; limits after threats.md 44 to 48.) */
#ifndef SBX_NET_H2PROXY_H
#define SBX_NET_H2PROXY_H

#include "net/proxy.h"

#define H2_STREAMS_MAX 100u
#define H2_WINDOW (256u * 1024u)             /* of a stream */
#define H2_CONNECTION_WINDOW (1024u * 1024u) /* of so many; the others keep the 64 KiB that the protocol begins with: */
#define H2_WIDE_MAX 32u
#define H2_HEADER_LIST_MAX (64u * 1024u)

struct h2proxy;

struct h2proxy *h2proxy_new(struct end *guest, struct end *up, struct proxy_owner *owner);
void h2proxy_free(struct h2proxy *p);
enum proxy_state h2proxy_step(struct h2proxy *p);
void h2proxy_answer(struct h2proxy *p, uint32_t request, const struct proxy_verdict *v);
/* Has the owner judge again what is under way. */
void h2proxy_review(struct h2proxy *p);
bool h2proxy_idle(const struct h2proxy *p);
/* The stream whose head the guest has begun, and not ended; 0: none. */
int32_t h2proxy_in_head(const struct h2proxy *p);

#endif
