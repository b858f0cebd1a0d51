/* TLS on both sides of an interception: contexts, our leaf key, certificates by name, the authorities of upstreams,
 * and ends of connections that are plain or TLS alike.
 *
 * Theory of operation.  An `end` reads and writes plain bytes; below it lie either the raw transport (functions that
 * read, write and shut down without blocking) or an OpenSSL connection over that transport.  Nothing is buffered
 * but what OpenSSL holds of one record. */
#ifndef SBX_NET_TLS_H
#define SBX_NET_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/ask.h"
#include "net/clienthello.h"

#define TLS_LEAVES_MAX 128
#define TLS_SESSIONS_MAX 64

#define END_AGAIN (-1) /* later: the transport says when */
#define END_ERROR (-2)

struct tls;

/* Makes the key and the contexts; reads no file, so that it may come after confinement.  NULL: no memory. */
struct tls *tls_new(void);
void tls_free(struct tls *t);
const uint8_t *tls_point(const struct tls *t); /* our public key, ASK_POINT_LEN bytes */

/* The authorities, read from a descriptor (PEM); takes fd. */
void tls_trust(struct tls *t, int fd);
bool tls_has_trust(const struct tls *t);

/* Certificates by name. */
bool tls_has_leaf(struct tls *t, const char *name);
bool tls_add_leaf(struct tls *t, const char *name, const uint8_t *der, size_t len);

/* The transport below an end.  read: bytes, 0 at the end, END_AGAIN, END_ERROR.  write: bytes (> 0), END_AGAIN, END_ERROR.
 * empty: it is known that read would give END_AGAIN; it was asked for all the same. */
struct end_ops {
    ssize_t (*read)(void *arg, void *buf, size_t n);
    ssize_t (*write)(void *arg, const void *buf, size_t n);
    void (*shutdown)(void *arg); /* no more will be written */
    bool (*empty)(void *arg);
};

struct end {
    const struct end_ops *ops;
    void *arg;
    SSL *ssl; /* NULL: plain */
    bool eof, failed, shut;
    bool deaf; /* it takes no more; what it said before is still read */
};

void end_init(struct end *e, const struct end_ops *ops, void *arg);
void end_finish(struct end *e);

/* Makes it a TLS server for that name (its leaf must be there), which selects `alpn` (NULL: none)... */
bool end_serve(struct end *e, struct tls *t, const char *name, const char *alpn);
/* ... or a TLS client that offers what the guest offered.  The server is verified for `name`. */
bool end_connect(struct end *e, struct tls *t, const char *name, const struct clienthello *hello);
/* 1: done; 0: later; -1: failed. */
int end_handshake(struct end *e);
/* The protocol that was agreed on: "h2", "http/1.1" or NULL. */
const char *end_alpn(const struct end *e);
/* After a failed end_handshake: a clause for people. */
const char *end_why(const struct end *e);
/* Right after one: what the peer says was wrong, if it said so; else NULL. */
const char *end_alert(void);

ssize_t end_read(struct end *e, void *buf, size_t n);
/* True if end_read would give END_AGAIN, at a small part of what it takes to find that out inside of TLS. */
bool end_quiet(const struct end *e);
ssize_t end_write(struct end *e, const void *buf, size_t n);
/* True if bytes are decrypted already, which no event of the transport will tell. */
bool end_pending(const struct end *e);

/* Gives the buffers back (some 34 KiB) while nothing moves; they come again by themselves.  Not after each record: they
 * are wiped, which costs a seventh of a small request. */
void end_rest(struct end *e);
void end_shutdown(struct end *e);

#endif
