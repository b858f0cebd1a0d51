/* The name service on the cable: answers every query itself, asks the broker what may exist at all. */
#ifndef SBX_NET_NAMES_H
#define SBX_NET_NAMES_H

#include <event2/event.h>

#include "net/asker.h"
#include "net/dns.h"
#include "net/fakeip.h"

#define NAMES_PENDING_MAX 64u
#define NAMES_RATE 50u   /* queries a second that reach the broker, in the long run */
#define NAMES_BURST 500u

struct names;

/* Where an answer goes: copied by names_query. */
struct names_return {
    void (*send)(const uint8_t *msg, size_t len, void *arg); /* arg: this struct */
    void *owner;
    uint32_t flow_id;           /* DNS over TCP */
    struct ip_addr from, to;    /* UDP: who asked, and whom */
    uint16_t from_port, to_port;
};

struct names_stats {
    uint64_t queries, malformed, nxdomain, limited;
};

struct names *names_new(struct event_base *base, struct asker *asker, struct fakeip *fake);
void names_free(struct names *n);
void names_query(struct names *n, const uint8_t *msg, size_t len, const struct names_return *back);
void names_answer(struct names *n, const struct answer *a); /* ANSWER_NAME */
const struct names_stats *names_stats(const struct names *n);

/* What a connection to an address asks for: the name behind it, or the address itself. */
void names_target(const struct fakeip *fake, const struct ip_addr *addr, uint16_t port, struct ask_target *out);

#endif
