/* Bodies of HTTP/1.1 messages (RFC 9112 6 and 7), as a stream: bytes in, content out.  Pure, bounded. */
#ifndef SBX_NET_HTTPBODY_H
#define SBX_NET_HTTPBODY_H

#include "net/http1.h"

#define HTTPBODY_EXTENSION_MAX 256u
#define HTTPBODY_TRAILER_MAX (16u * 1024u)
/* Room that httpbody_frame needs beside the content. */
#define HTTPBODY_FRAME_HEAD 18u
#define HTTPBODY_FRAME_TAIL 2u

struct httpbody {
    enum http1_framing framing;
    uint64_t left;      /* of the body, or of the chunk */
    unsigned state;     /* of the chunk grammar */
    unsigned digits, extension, trailer, line;
    bool colon;         /* of a trailer line was seen */
    bool done, bad;
};

void httpbody_init(struct httpbody *b, enum http1_framing framing, uint64_t length);

/* Takes bytes of the wire: *used of them are gone, and *content (of *content_len, may be 0) points into p at content to
 * pass on.  Call until all is used or done.  False: malformed; the connection has to end.  Extensions and trailers are
 * dropped. */
bool httpbody_take(struct httpbody *b, const uint8_t *p, size_t n, size_t *used, const uint8_t **content,
                   size_t *content_len);
/* The sender closed: true if the body is whole. */
bool httpbody_eof(struct httpbody *b);

/* The head of a chunk of n bytes (n > 0), without a NUL; returns its length. */
size_t httpbody_frame(char out[HTTPBODY_FRAME_HEAD], size_t n);

#endif
