/* What the HTTP/1.1 and HTTP/2 proxies of an intercepted connection have in common: two ends, and an owner that judges.
 *
 * A proxy is stepped whenever either end may have become ready.  It asks its owner about each request and goes on when
 * the owner answers; nothing of a request reaches the server before. */
#ifndef SBX_NET_PROXY_H
#define SBX_NET_PROXY_H

#include "net/headers.h"
#include "net/inject.h"
#include "net/tls.h"

enum proxy_state {
    PROXY_GOING,
    PROXY_DONE,   /* ended in order: what was written stays, both directions are shut */
    PROXY_BROKEN, /* reset both sides */
};

struct proxy_request {
    uint32_t id;
    unsigned version;      /* 1 or 2 */
    const char *method;
    const char *target;    /* path and query */
    const struct headers *fields;
    bool override;
    bool again; /* it was allowed, and is under way: the rules have changed, and a denial ends the connection */
    uint64_t content; /* it was allowed, and goes no further: what this names (net/scrub.h) stands in its content.  A verdict
                         comes once more, which says how to refuse it.  Its fields are not told again */
};

/* What became of a request. */
struct proxy_verdict {
    bool allow;
    const char *rule, *hint;       /* that denied it */
    struct credentials *secrets;   /* taken over; may be NULL */
    bool mint;                     /* the answer gives out tokens: it goes through `minted` first */
    struct scrub_set *watch;       /* what must not stand in the rest of it; taken over; may be NULL */
    const char *signed_in;         /* not NULL: the answer, in the provider's stead, with this sentinel */
};

struct proxy_owner {
    const char *name;   /* the canonical name that was asked for */
    uint16_t port;
    bool tls;
    /* Everything is refused with these: there is no upstream. */
    bool refuse;
    const char *rule, *hint;
    void (*request)(void *arg, const struct proxy_request *r);
    /* The request names another host than the connection was asked for; `one`: others share the connection, which lives on. */
    void (*mismatch)(void *arg, const char *seen, bool one);
    /* A request got an answer of ours in the place of the server's: malformed (400 and on), or what the server did (502 and on). */
    void (*failed)(void *arg, int status, const char *why);
    /* No more can be asked now: what the guest says is to wait, until the proxy is stepped again.  NULL: never. */
    bool (*crowded)(void *arg);
    /* A whole answer that gives out tokens: false if it must not reach the guest; else they are replaced in place. */
    bool (*minted)(void *arg, uint8_t *body, size_t n);
    /* Counts of content. */
    uint64_t bytes_up, bytes_down;
    void *arg;
};

/* "GET https://host/path" for people; bounded and printable. */
void proxy_describe(const struct proxy_owner *o, const char *method, const char *target, char *out, size_t cap);
/* Whether a host and port that a request names are the connection's. */
bool proxy_is_ours(const struct proxy_owner *o, const char *host, uint16_t port);
/* Whether the client would rather have JSON. */
bool proxy_wants_json(const struct headers *h);


/* Room for content that is gathered whole before its request goes out (threat 83): PROXY_SPOOL_EACH for one request,
 * PROXY_SPOOL_ALL for all of the sandbox.  *held grows to want bytes, or shrinks to them; false: there is no room. */
#define PROXY_SPOOL_EACH (64u * 1024u * 1024u)
#define PROXY_SPOOL_ALL (128u * 1024u * 1024u)
bool proxy_spool(size_t *held, size_t want);
/* What is held now, of all requests. */
size_t proxy_spooled(void);

/* The same for streams of HTTP/2 and the header sections of both their ends: one byte of a section can be four thousand of it
 * (threat 46). */
#define PROXY_HEADS_ALL (64u * 1024u * 1024u)
bool proxy_heads(size_t *held, size_t want);
size_t proxy_heads_held(void);

#endif
