/* One connection whose content is looked at: the TLS of the guest ends here under our certificate, that of the server
 * begins here anew, and between them a proxy judges each request.  Plain HTTP is served the same without the TLS; a denied
 * connection gets its refusal in a form that the client can show.
 *
 * Theory of operation.  Everything is one function, step(), which is called whenever something may have changed: bytes
 * or room on the cable, readiness of the server's socket, an answer of the broker.  It moves through the states below and
 * never blocks.  Bytes of the guest are taken straight out of the TCP ring (tcp_resume offers them); bytes to the guest
 * go straight into it. */
#ifndef SBX_NET_INTERCEPT_H
#define SBX_NET_INTERCEPT_H

#include <event2/event.h>

#include "net/asker.h"
#include "net/tcp.h"
#include "net/tls.h"

#define INTERCEPT_HELLO_MS 5000   /* from the first byte to a whole ClientHello (threat 78) */
#define INTERCEPT_HANDSHAKE_MS 15000
#define INTERCEPT_HEAD_MS 10000   /* for the head of a request */
#define INTERCEPT_REST_MS 2000    /* without a byte: buffers are given back */
#define INTERCEPT_IDLE_MS 300000  /* without any request */
#define INTERCEPT_SILENT_MS 3600000 /* within an exchange: event streams and WebSockets may be quiet for long */

struct intercept;

/* What all connections of a sandbox share. */
struct intercepts;
struct intercepts *intercepts_new(struct event_base *base, struct asker *asker);
void intercepts_set_tcp(struct intercepts *all, struct tcp *tcp);
void intercepts_free(struct intercepts *all);
/* ANSWER_LEAF and ANSWER_TRUST. */
void intercepts_leaf(struct intercepts *all, const struct answer_leaf *a);
void intercepts_trust(struct intercepts *all, int fd);
/* ANSWER_SECRET and ANSWER_SENTINEL. */
void intercepts_secret(struct intercepts *all, const struct answer_secret *a);
void intercepts_sentinel(struct intercepts *all, const struct answer_sentinel *a);

struct intercept_target {
    uint32_t id;      /* of the connection */
    const char *name; /* canonical */
    uint16_t port;
    bool plain;       /* HTTP without TLS is expected too */
    bool refuse;      /* nothing was dialled: answer with these */
    const char *rule, *hint;
};

/* fd: the server's socket, taken always; -1 with refuse.  NULL: no memory. */
struct intercept *intercept_new(struct intercepts *all, struct tcp_conn *conn, int fd, const struct intercept_target *t);
void intercept_free(struct intercept *i, bool reset);

/* The first bytes of the guest, which flow has read already; malloc'ed, taken.  Before the first intercept_data. */
void intercept_begin(struct intercept *i, uint8_t *bytes, size_t n);
/* What flow hands on. */
size_t intercept_data(struct intercept *i, const uint8_t *buf, size_t len);
void intercept_fin(struct intercept *i);
void intercept_room(struct intercept *i);
void intercept_answer(struct intercept *i, const struct answer *a);
/* The rules have changed. */
void intercept_review(struct intercept *i);
/* Call about once a second. */
void intercept_tick(struct intercept *i, int64_t now_ms);
void intercept_bytes(const struct intercept *i, uint64_t *up, uint64_t *down);
/* More can be asked again (net/asker.h). */
void intercepts_room(struct intercepts *all);
/* A server's answer is due any moment: look for it, do not sleep (net/look.h). */
bool intercepts_look(struct intercepts *all);

#endif
