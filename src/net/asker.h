/* net's end of the channel to the broker (net/ask.h): sends asks in order, takes answers with their
 * descriptors.  What one wake of the process asks leaves together at its end, or when the asker is freed.  Never blocks; a broker that does not read for long ends the process. */
#ifndef SBX_NET_ASKER_H
#define SBX_NET_ASKER_H

#include <event2/event.h>
#include <stdbool.h>

#include "net/ask.h"

struct asker;

/* fd: the connected descriptor of an allowed connection, the callee's from then on; else -1. */
typedef void asker_answer_fn(const struct answer *a, int fd, void *arg);
typedef void asker_leaf_fn(const struct answer_leaf *a, void *arg);
typedef void asker_secret_fn(const struct answer_secret *a, void *arg);
typedef void asker_sentinel_fn(const struct answer_sentinel *a, void *arg);
typedef void asker_closed_fn(const char *why, void *arg);
/* asker_crowded() said true, and there is room again. */
typedef void asker_room_fn(void *arg);

struct asker_ops {
    asker_answer_fn *answer;
    asker_leaf_fn *leaf;
    asker_secret_fn *secret;
    asker_sentinel_fn *sentinel;
    asker_closed_fn *closed;
    asker_room_fn *room;
};

struct asker *asker_new(struct event_base *base, int fd, const struct asker_ops *ops, void *arg);
void asker_free(struct asker *a);
void asker_send(struct asker *a, const struct ask *ask);
void asker_send_request(struct asker *a, const struct ask_request *ask);
void asker_send_leaf(struct asker *a, const struct ask_leaf *ask);
/* So much waits for the broker that what a guest can make many of is to wait: its requests, its connections. */
bool asker_crowded(struct asker *a);
/* Not queued: false if it cannot be sent at once. */
bool asker_send_mint(struct asker *a, const struct ask_mint *ask);
/* An answer is due any moment: look for it, do not sleep (net/look.h). */
bool asker_looks(struct asker *a);

#endif
