/* Connections of the guest as a whole: asked for, relayed, ended.
 *
 * A flow joins a struct tcp_conn with what serves it.  `relay` joins it to the descriptor that the broker
 * dialled, after a look at the first bytes where a name was asked for; `intercept` (net/intercept.h) judges request by
 * request, or answers a denied one with a 403 that says why; DNS over TCP is served by names. */
#ifndef SBX_NET_FLOW_H
#define SBX_NET_FLOW_H

#include <event2/event.h>

#include "net/asker.h"
#include "net/fakeip.h"
#include "net/tcp.h"

struct flows;
struct names;

struct flow_stats {
    uint64_t allowed, denied, failed, cut, bytes_up, bytes_down;
};

struct flows *flows_new(struct event_base *base, struct asker *asker, struct fakeip *fake, struct names *names);
/* The engine whose connections these are; before the first of them. */
void flows_set_tcp(struct flows *f, struct tcp *tcp);
void flows_free(struct flows *f);

/* For struct tcp_ops; arg is the struct flows. */
void flows_syn(struct tcp_conn *c, void *arg);
size_t flows_data(struct tcp_conn *c, const uint8_t *buf, size_t len, void *arg);
void flows_fin(struct tcp_conn *c, void *arg);
void flows_room(struct tcp_conn *c, void *arg);
void flows_closed(struct tcp_conn *c, bool reset, void *arg);

bool flows_crowded(void *arg);

/* Every answer but ANSWER_NAME and ANSWER_LEAF; takes fd. */
void flows_answer(struct flows *f, const struct answer *a, int fd);
void flows_leaf(struct flows *f, const struct answer_leaf *a);
void flows_secret(struct flows *f, const struct answer_secret *a);
void flows_sentinel(struct flows *f, const struct answer_sentinel *a);
/* Time limits; call about once a second. */
void flows_tick(struct flows *f, int64_t now_ms);

const struct flow_stats *flows_stats(const struct flows *f);
/* More can be asked again (net/asker.h). */
void flows_asked(struct flows *f);
/* A server's answer is due any moment: look for it, do not sleep (net/look.h). */
bool flows_look(struct flows *all);

#endif
