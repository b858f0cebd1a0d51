/* Heads of HTTP/1.1 messages (RFC 9112), read strictly: what two parsers could read differently is refused, so that
 * what is judged here is what the server sees.  The message is never passed on as it came; http1_write_* writes it
 * anew from the model.  Pure.
 *
 * Refused beside what the RFC calls malformed: any line end but CRLF, folded lines, control bytes, more than one Host, a
 * Host that is no canonical authority, both Content-Length and Transfer-Encoding, either of them twice, a transfer coding
 * other than "chunked", an absolute target that differs from Host, userinfo, CONNECT and TRACE, methods that are not in
 * upper case, a Connection field that nominates one that matters, Content_Length and the like (CGI reads "_" as "-").  (threats.md 22 to 30, 36, 39, 40, 42.)
 * What it says of methods, targets and names of fields holds for HTTP/2 as well (net/h2proxy.c asks here). */
#ifndef SBX_NET_HTTP1_H
#define SBX_NET_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/name.h"
#include "net/headers.h"

#define HTTP1_LINE_MAX (16u * 1024u)
#define HTTP1_HEAD_MAX (64u * 1024u)
#define HTTP1_METHOD_MAX 31u

enum http1_framing {
    HTTP1_NO_BODY,
    HTTP1_LENGTH,      /* `length` bytes */
    HTTP1_CHUNKED,
    HTTP1_UNTIL_CLOSE, /* responses alone */
};

enum http1_result { HTTP1_MORE, HTTP1_DONE, HTTP1_BAD };

/* The bytes of a head as they come in. */
struct http1_reader {
    char *buf;
    size_t len, cap, line; /* line: where the current line begins */
};

struct http1_head {
    /* requests */
    char method[HTTP1_METHOD_MAX + 1];
    char *target;                  /* origin form ("/path?query") or "*"; malloc'ed */
    char host[NAME_MAX_LEN + 48];  /* canonical name, or an address ("[::1]" without brackets) */
    uint16_t port;                 /* 0: none was written */
    bool absolute, absolute_tls;   /* the target was http://… or https://… */
    bool expect_continue;
    bool override;                 /* a field asks the server to take another method or path for it (threat 40) */
    /* responses */
    int status;
    char reason[128];
    /* both */
    unsigned minor;                /* HTTP/1.minor.  Who asked with 0 must not be sent chunks: strip the framing, close. */
    struct headers fields;         /* without those that belong to one hop */
    enum http1_framing framing;
    uint64_t length;
    bool close;                    /* the connection ends with this message, on this side and towards the server */
    bool websocket;                /* Connection: upgrade and Upgrade: websocket.  A 101 without it, or to who did not
                                      ask for it, is an error of the server. */
};

/* Why a head is bad: the status that answers it, and a clause for people. */
struct http1_error {
    int status;
    const char *why;
};

void http1_reader_init(struct http1_reader *r);
void http1_reader_finish(struct http1_reader *r);
/* Takes bytes up to the end of the head; *used says how many.  DONE: the head is whole in r. */
enum http1_result http1_read(struct http1_reader *r, const uint8_t *p, size_t n, size_t *used, struct http1_error *e);

void http1_head_init(struct http1_head *h);
void http1_head_finish(struct http1_head *h);
/* Parse what a reader holds, and empty the reader.  True, or false with *e. */
bool http1_parse_request(struct http1_head *h, struct http1_reader *r, struct http1_error *e);
/* method: of the request that it answers (RFC 9112 6.3: HEAD has no body). */
bool http1_parse_response(struct http1_head *h, struct http1_reader *r, const char *method, struct http1_error *e);

/* The head as it is sent on, malloc'ed; *len without the NUL.  NULL: no memory.
 * Host is rebuilt from h->host and the port (unless it is `default_port`); the framing fields from h->framing. */
char *http1_write_request(const struct http1_head *h, uint16_t default_port, bool keep_alive, size_t *len);
char *http1_write_response(const struct http1_head *h, bool keep_alive, size_t *len);

/* The Sec-WebSocket-Accept that answers a key (RFC 6455 4.2.2); out has room for 29 bytes.  False if the key is none. */
bool http1_websocket_accept(const char *key, char out[29]);

/* Whether a request with that method may go on: 0, or the status that refuses it (501: none that all read the same; 405). */
int http1_method_refused(const char *method, size_t n);
/* Whether a target holds nothing but bytes that it may: printable ASCII without "#". */
bool http1_target_is_plain(const char *target, size_t n);
/* What the name of a request's field means for its framing and for its method and path. */
enum http1_field { HTTP1_FIELD_OTHER, HTTP1_FIELD_OVERRIDE /* see `override` */, HTTP1_FIELD_FRAMING /* Content_Length, ... */ };
enum http1_field http1_field_kind(const char *name, size_t n);

/* RFC 9110 5.6.2: what names of fields and methods consist of. */
bool http1_token_char(unsigned char c);

/* Reads an authority: canonical name or strict address, ":" and port (1 to 65535, no leading zero) if there is one.
 * False for userinfo, empty ports, other spellings of addresses, zone identifiers (threats 4 to 11). */
bool http1_authority(const char *text, size_t len, char host[NAME_MAX_LEN + 48], uint16_t *port);

#endif
