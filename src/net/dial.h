/* Resolving and dialling for the broker: a name is resolved once, on a worker thread with the host's own
 * resolver (getaddrinfo: nsswitch, VPNs, mDNS), every address is vetted, and only a vetted one is dialled.
 * If one address of a name is refused, the name is: a set of mixed kinds is an attack or a mistake (threat 2).
 * Addresses are tried in the resolver's order, the next a little later (RFC 8305, simplified).  Literal addresses and
 * "localhost" (127.0.0.1, then ::1, whatever the host's files say) need no thread: slow names cannot hold them up. */
#ifndef SBX_NET_DIAL_H
#define SBX_NET_DIAL_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#define DIAL_ADDRS_MAX 4     /* are tried; all are vetted */
#define DIAL_TIMEOUT_MS 10000 /* for the resolver, and for connecting */
#define DIAL_PENDING_MAX 64

#define DIAL_REPLY_MAX 8192   /* head of a proxy's answer */

struct dialer;
struct dial;

/* A company's proxy: what goes through it is resolved and vetted here as ever, and it is asked (CONNECT) for the first
 * address that was vetted, so that what it dials is what was checked (threat 95). */
struct dial_proxy {
    char host[256];
    uint16_t port;
    char *authorization; /* value of Proxy-Authorization, or NULL; wiped when it is replaced */
    bool names;          /* it is asked for the name; what does not resolve here is not vetted here */
};

struct dial_ops {
    /* May this address be dialled?  Called once for each before the first connect. */
    bool (*vet)(void *arg, uint8_t family, const uint8_t *addr, uint16_t port);
    /* About to connect to these (text, for the log): the decision is written here.  False ends it. */
    bool (*connecting)(void *arg, const char *addr);
    /* Is this address dialled without the proxy?  May be NULL. */
    bool (*direct)(void *arg, uint8_t family, const uint8_t *addr, uint16_t port);
    /* Before `connecting`, where it goes through the proxy: to this vetted address; family 0: to the name.  May be NULL. */
    void (*tunnels)(void *arg, uint8_t family, const uint8_t *addr);
    /* The last callback.  fd: connected, the callee's; or -1 with an errno: ENOENT no such name, EACCES an
     * address was refused, EIO `connecting` was false, EAGAIN too many at once, EKEYREJECTED the proxy wants another
     * login, EPERM it denies, EPROTO it answers otherwise, ENXIO its own name does not resolve, else why connecting failed. */
    void (*done)(void *arg, int fd, int error);
};

/* The threads start when they are first needed. */
struct dialer *dialer_new(struct event_base *base);
void dialer_free(struct dialer *d);

/* Takes over `authorization`.  NULL: no proxy.  Dials under way keep theirs. */
void dialer_set_proxy(struct dialer *d, const struct dial_proxy *proxy);

/* name: a host name or the text of an address.  proxied: through the proxy, if there is one.  NULL if too many are under way (done is not called then). */
struct dial *dial_start(struct dialer *d, const char *name, uint16_t port, bool proxied, const struct dial_ops *ops,
                        void *arg);
/* Gives up; no callback follows. */
void dial_cancel(struct dial *d);

#endif
