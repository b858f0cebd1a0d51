/* HTTP/1.1 between two ends: each request is parsed strictly, judged, written anew; bodies are streamed with their
 * framing checked.  One request at a time: the next is read when the answer to the one before is complete.  Memory per
 * connection: some 100 KiB while it moves, next to nothing while it is idle. */
#ifndef SBX_NET_H1PROXY_H
#define SBX_NET_H1PROXY_H

#include "net/proxy.h"

struct h1proxy;

/* up: NULL where the owner refuses everything.  The ends and the owner stay the caller's. */
struct h1proxy *h1proxy_new(struct end *guest, struct end *up, struct proxy_owner *owner);
void h1proxy_free(struct h1proxy *p);
enum proxy_state h1proxy_step(struct h1proxy *p);
/* The verdict on a request. */
void h1proxy_answer(struct h1proxy *p, uint32_t request, const struct proxy_verdict *v);
/* Has the owner judge again what is under way. */
void h1proxy_review(struct h1proxy *p);
/* Nothing was asked and nothing is under way. */
bool h1proxy_idle(const struct h1proxy *p);
/* A head has begun and is not whole yet: how much of it is there. */
size_t h1proxy_in_head(const struct h1proxy *p);

#endif
