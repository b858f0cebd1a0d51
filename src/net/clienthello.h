/* Reads a TLS ClientHello off the wire without touching it (RFC 8446 4.1.2, RFC 6066 3): whom it asks for. Pure.
 *
 * It may come in any number of segments, records and pieces; beyond CLIENTHELLO_MAX bytes it is none. */
#ifndef SBX_NET_CLIENTHELLO_H
#define SBX_NET_CLIENTHELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/name.h"

#define CLIENTHELLO_MAX (16u * 1024u)
#define CLIENTHELLO_ALPN_MAX 64u
#define CLIENTHELLO_RECORD 22 /* the first byte of what may be one (RFC 8446, section 5.1) */

enum clienthello_result {
    CLIENTHELLO_MORE,
    CLIENTHELLO_DONE,
    CLIENTHELLO_NOT_TLS, /* told by the first bytes */
    CLIENTHELLO_BAD,     /* malformed, or two names, or one that is no name */
};

struct clienthello {
    bool has_name;
    char name[NAME_MAX_LEN + 1]; /* canonical */
    uint8_t alpn[CLIENTHELLO_ALPN_MAX]; /* those of "h2" and "http/1.1" that are offered, in wire form */
    size_t alpn_len;
    bool offers_alpn, offers_h2, offers_http1;
    uint16_t max_version; /* the highest that it offers and we know: 0x0303 is TLS 1.2, 0x0304 is 1.3; 0: none */
    bool ech;        /* has the extension of Encrypted Client Hello, real or GREASE: the outer name counts */
    bool early_data; /* wants to send before the handshake; a server that ignores it is within its rights */
};

/* Looks at all bytes that came so far, from the first. */
enum clienthello_result clienthello_read(struct clienthello *h, const uint8_t *p, size_t n);

#endif
