// needs: src/net/h1proxy.c src/net/h2proxy.c src/net/proxy.c src/net/headers.c src/net/http1.c src/net/httpbody.c src/net/inject.c src/net/mint.c src/net/refusal.c src/net/scrub.c src/net/sigv4.c src/net/wsframes.c src/net/tls.c src/core/name.c src/core/wipe.c src/core/err.c src/core/rule.c src/core/sanitize.c src/core/sentinel.c src/core/urlpath.c src/core/service.c src/core/jsonfile.c src/core/paths.c src/core/record.c src/core/shipped.c 
/* An intercepted connection of which both ends, and the times at which they speak, stop, end and break, are any: no end
 * of it is read or written when it is over, it comes to rest, and nothing of a request goes to the server unless it was
 * allowed.  Its requests bear a credential: the guest sees nothing of that, whatever its server says, and what it holds
 * instead of another service's goes to no server. */
#include <nghttp2/nghttp2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/h1proxy.h"
#include "net/h2proxy.h"
#include "net/http1.h"
#include "net/httpbody.h"

#define STEPS_MAX 200
#define SPOKEN_MAX (1u << 16)
#define BODIES_MAX 64u

/* What 0xe0 and on mean in what an end says.  The guest says no secret: it knows none. */
static const char *const words[] = {
    "sk-real-Zq8vN3xWt5yKd7Lh2Pb9",             /* the secret that its requests bear: the server's alone */
    "c2stcmVhbC1acTh2TjN4V3Q1eUtkN0xoMlBiOQ==", /* in Base64 */
    "sk-held-aaaabbbbccccddddeeee",             /* its sentinel */
    "sk-else-ffffgggghhhhiiiijjjj",             /* the sentinel of another service */
    "c2stZWxzZS1mZmZmZ2dnZ2hoaGhpaWlpampqag==", /* in Base64 */
    "AWS4-HMAC-SHA256 Credential=AKIAHELDHELDHELDHELD/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature="
    "0000000000000000000000000000000000000000000000000000000000000000",
};
enum { SECRET, SECRET_64, SENTINEL, FOREIGN, FOREIGN_64, SIGNED, WORDS };
#define FOREIGN_BIT 2u
#define AWS_SECRET "AKIAREALREALREALREAL:sk-real-Zq8vN3xWt5yKd7Lh2Pb9"
#define AWS_SENTINEL "AKIAHELDHELDHELDHELD:sk-held-aaaabbbbccccddddeeee"

enum op { GUEST_SAYS, SERVER_SAYS, GUEST_ENDS, SERVER_ENDS, SERVER_BREAKS, GUEST_TAKES, SERVER_TAKES, VERDICT, OPS };

/* What came out of the proxy at one end, as the other program reads it. */
struct heard {
    uint8_t raw[SPOKEN_MAX]; /* HTTP/1.1: all that came; HTTP/2: what is no whole frame yet */
    size_t n;
    bool blind;              /* it cannot be read any further */
    /* HTTP/2 */
    bool greeted;
    nghttp2_hd_inflater *inflater;
    uint32_t last;           /* the newest stream */
    uint8_t block[SPOKEN_MAX];
    size_t block_n;
    /* of a stream, or of the request under way: its content so far */
    struct body {
        uint32_t stream;
        uint8_t *p;
        size_t n;
    } body[BODIES_MAX];
    /* HTTP/1.1, at the server */
    struct http1_reader reader;
    struct httpbody framed;
    bool in_body;
    /* a WebSocket */
    bool tunnel;
    uint8_t ws_head[14];
    size_t ws_have;
    uint64_t ws_left, ws_at;
    uint32_t ws_stream;
};

struct side {
    const uint8_t *in;
    size_t left, takes, took;
    bool eof, broken;
    uint8_t said[256 * 160]; /* the words in it are written out */
};

static struct side guest_side, server_side;
static struct heard at_guest, at_server;
static struct {
    uint32_t id;
    bool deny;
} asked[64];
static unsigned nasked, allowed, started;
static bool two;
static uint8_t how;
static struct h1proxy *h1;
static struct h2proxy *h2;
static struct sentinels *held;
static struct proxy_owner owner;

static bool has(const void *p, size_t n, int word)
{
    return n && memmem(p, n, words[word], strlen(words[word]));
}

/* Which text must not be there, at that end.  A server that was sent no secret knows none. */
static void look(const struct heard *h, const void *p, size_t n)
{
    if (h == &at_guest && owner.tls && (how & 0x30) != 0x30 && (has(p, n, SECRET) || has(p, n, SECRET_64)))
        abort();
    if (h == &at_server && (has(p, n, FOREIGN) || has(p, n, FOREIGN_64)))
        abort();
    if (h == &at_server && !owner.tls && (has(p, n, SECRET) || has(p, n, SENTINEL)))
        abort();
}

static void one_more_request(void)
{
    if (++started > allowed)
        abort();
}

static void content(struct heard *h, uint32_t stream, const uint8_t *p, size_t n)
{
    struct body *b = &h->body[stream / 2 % BODIES_MAX];
    if (b->stream != stream) {
        b->stream = stream;
        b->n = 0;
    }
    uint8_t *more = realloc(b->p, b->n + n + 1);
    if (!more)
        abort();
    b->p = more;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    look(h, b->p, b->n);
}

static void fields_are(struct heard *h)
{
    const uint8_t *at = h->block, *end = h->block + h->block_n;
    while (!h->blind) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t n = nghttp2_hd_inflate_hd2(h->inflater, &nv, &flags, at, (size_t)(end - at), 1);
        if (n < 0) {
            h->blind = true;
            break;
        }
        at += n;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            look(h, nv.name, nv.namelen);
            look(h, nv.value, nv.valuelen);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) {
            nghttp2_hd_inflate_end_headers(h->inflater);
            break;
        }
    }
    h->block_n = 0;
}

static void frame(struct heard *h, const uint8_t *f, size_t len)
{
    uint32_t stream = ((uint32_t)f[5] << 24 | (uint32_t)f[6] << 16 | (uint32_t)f[7] << 8 | f[8]) & 0x7fffffff;
    uint8_t type = f[3], flags = f[4];
    const uint8_t *p = f + 9;
    if (type == NGHTTP2_DATA)
        content(h, stream, p, len);
    if (type != NGHTTP2_HEADERS && type != NGHTTP2_CONTINUATION)
        return;
    if (type == NGHTTP2_HEADERS && h == &at_server && stream > h->last) {
        h->last = stream;
        one_more_request();
    }
    if ((flags & (NGHTTP2_FLAG_PADDED | NGHTTP2_FLAG_PRIORITY)) || h->block_n + len > sizeof h->block) {
        h->blind = true;
        return;
    }
    memcpy(h->block + h->block_n, p, len);
    h->block_n += len;
    if (flags & NGHTTP2_FLAG_END_HEADERS)
        fields_are(h);
}

static void frames(struct heard *h)
{
    size_t at = 0;
    if (h == &at_server && !h->greeted) {
        if (h->n < NGHTTP2_CLIENT_MAGIC_LEN)
            return;
        at = NGHTTP2_CLIENT_MAGIC_LEN;
        h->greeted = true;
    }
    while (h->n - at >= 9) {
        size_t len = (size_t)h->raw[at] << 16 | (size_t)h->raw[at + 1] << 8 | h->raw[at + 2];
        if (h->n - at < 9 + len)
            break;
        frame(h, h->raw + at, len);
        at += 9 + len;
    }
    memmove(h->raw, h->raw + at, h->n - at);
    h->n -= at;
}

/* The messages of a WebSocket: content of stream 2, anew with each; that of its control frames is that of stream 4. */
static void messages(struct heard *h, const uint8_t *p, size_t n)
{
    while (n) {
        uint8_t *head = h->ws_head;
        size_t length = (head[1] & 127) == 126 ? 2 : (head[1] & 127) == 127 ? 8 : 0, whole = 2 + length + (head[1] & 128 ? 4 : 0);
        if (h->ws_have < 2 || h->ws_have < whole) {
            head[h->ws_have++] = *p++;
            n--;
            if (h->ws_have < 2)
                continue;
            length = (head[1] & 127) == 126 ? 2 : (head[1] & 127) == 127 ? 8 : 0;
            whole = 2 + length + (head[1] & 128 ? 4 : 0);
            if (h->ws_have < whole)
                continue;
            h->ws_left = length ? 0 : head[1] & 127;
            for (size_t i = 0; i < length; i++)
                h->ws_left = h->ws_left << 8 | head[2 + i];
            h->ws_at = 0;
            h->ws_stream = head[0] & 8 ? 4 : 2;
            if (head[0] & 15)
                h->body[h->ws_stream / 2].n = 0;
        }
        size_t take = n < h->ws_left ? n : (size_t)h->ws_left;
        for (size_t i = 0; i < take; i++) {
            uint8_t plain = (uint8_t)(p[i] ^ (head[1] & 128 ? head[whole - 4 + (h->ws_at + i) % 4] : 0));
            content(h, h->ws_stream, &plain, 1);
        }
        p += take;
        n -= take;
        h->ws_at += take;
        h->ws_left -= take;
        if (h->ws_left == 0)
            h->ws_have = 0;
    }
}

/* What goes to a server is what a strict reader takes: whole requests, one after the other. */
static void requests(struct heard *h, const uint8_t *p, size_t n)
{
    while (n && !h->blind) {
        if (h->tunnel) {
            messages(h, p, n);
            return;
        }
        struct http1_error e;
        const uint8_t *some;
        size_t used = 0, got;
        if (h->in_body) {
            if (!httpbody_take(&h->framed, p, n, &used, &some, &got))
                abort();
            content(h, h->last, some, got);
            h->in_body = !h->framed.done;
        } else {
            if (h->reader.len == 0)
                one_more_request();
            enum http1_result r = http1_read(&h->reader, p, n, &used, &e);
            if (r == HTTP1_BAD)
                abort();
            if (r == HTTP1_DONE) {
                struct http1_head head;
                http1_head_init(&head);
                look(h, h->reader.buf, h->reader.len);
                if (!http1_parse_request(&head, &h->reader, &e))
                    abort();
                h->last += 2;
                httpbody_init(&h->framed, head.framing, head.length);
                h->in_body = !h->framed.done;
                h->tunnel = head.websocket && !h->in_body; /* frames follow, or another request: then they are none */
                h->blind = head.websocket && h->in_body;
                http1_head_finish(&head);
            }
        }
        p += used;
        n -= used;
    }
}

static void hear(struct heard *h, const uint8_t *p, size_t n)
{
    if (!two && h == &at_server) {
        requests(h, p, n);
        return;
    }
    if (!h->blind && h->tunnel) {
        messages(h, p, n);
        return;
    }
    if (h->n + n > sizeof h->raw)
        h->blind = true;
    if (h->blind)
        return;
    memcpy(h->raw + h->n, p, n);
    h->n += n;
    if (two) {
        frames(h);
        return;
    }
    uint8_t *switched = memmem(h->raw, h->n, "HTTP/1.1 101 ", 13), *end = switched ? memmem(switched, h->n - (size_t)(switched - h->raw), "\r\n\r\n", 4) : NULL;
    look(h, h->raw, end ? (size_t)(end - h->raw) : h->n);
    if (end) { /* of a frame's head a byte may be a letter */
        h->tunnel = true;
        messages(h, end + 4, h->n - (size_t)(end + 4 - h->raw));
    }
}

static void hear_anew(struct heard *h)
{
    for (size_t i = 0; i < BODIES_MAX; i++) {
        free(h->body[i].p);
        h->body[i] = (struct body){0};
    }
    if (h->inflater)
        nghttp2_hd_inflate_del(h->inflater);
    http1_reader_finish(&h->reader);
    http1_reader_init(&h->reader);
    h->inflater = NULL;
    h->n = h->block_n = 0;
    h->last = 0;
    h->blind = h->greeted = h->in_body = h->tunnel = false;
    h->ws_have = 0;
    if (two && (nghttp2_hd_inflate_new(&h->inflater) != 0 || nghttp2_hd_inflate_change_table_size(h->inflater, 1u << 20) != 0))
        abort();
}

static ssize_t side_read(void *arg, void *buf, size_t n)
{
    struct side *s = arg;
    if (s->left == 0)
        return s->broken ? END_ERROR : s->eof ? 0 : END_AGAIN;
    n = n < s->left ? n : s->left;
    memcpy(buf, s->in, n);
    s->in += n;
    s->left -= n;
    return (ssize_t)n;
}

static ssize_t side_write(void *arg, const void *buf, size_t n)
{
    struct side *s = arg;
    if (s->broken)
        return END_ERROR;
    n = n < s->takes ? n : s->takes;
    if (n == 0)
        return END_AGAIN;
    s->takes -= n;
    s->took += n;
    hear(s == &server_side ? &at_server : &at_guest, buf, n);
    return (ssize_t)n;
}

static void side_shutdown(void *arg)
{
    (void)arg;
}

static bool side_empty(void *arg)
{
    const struct side *s = arg;
    return s->left == 0 && !s->eof && !s->broken;
}

static const struct end_ops ops = {side_read, side_write, side_shutdown, side_empty};

/* As the broker judges: what names another's sentinel is denied, whatever else. */
static void on_request(void *arg, const struct proxy_request *r)
{
    (void)arg;
    if (r->again || nasked == sizeof asked / sizeof *asked)
        return;
    asked[nasked].id = r->id;
    asked[nasked++].deny = r->content || (sentinels_find(held, r->target, r->fields) & (owner.tls ? FOREIGN_BIT : UINT64_MAX));
}

static void on_mismatch(void *arg, const char *seen, bool one)
{
    (void)arg;
    (void)seen;
    (void)one;
}

static void on_failed(void *arg, int status, const char *why)
{
    (void)arg;
    (void)status;
    (void)why;
}

static bool on_minted(void *arg, uint8_t *body, size_t n)
{
    (void)arg;
    (void)body;
    return n % 3 != 0;
}

/* Until nothing moves any more. */
static enum proxy_state go(void)
{
    enum proxy_state s;
    size_t before;
    int n = 0;
    do {
        if (++n > STEPS_MAX)
            abort();
        before = guest_side.left + server_side.left + guest_side.took + server_side.took;
        s = two ? h2proxy_step(h2) : h1proxy_step(h1);
    } while (s == PROXY_GOING && before != guest_side.left + server_side.left + guest_side.took + server_side.took);
    return s;
}

static struct credentials *credential(uint32_t request)
{
    static struct answer_secret a;
    struct credentials *c = NULL;
    bool aws = (how & 0x30) == 0x20;
    a = (struct answer_secret){.request = request, .placeholder = (how & 0x30) == 0x10, .sigv4 = aws};
    strcpy(a.header, "authorization");
    strcpy(a.strip, "x-api-key");
    strcpy(a.strip_query, "key");
    strcpy(a.written, (how & 0x30) == 0x30 ? "" : "Bearer sk-real-Zq8vN3xWt5yKd7Lh2Pb9");
    strcpy(a.value, aws ? AWS_SECRET : a.written[0] ? words[SECRET] : "");
    strcpy(a.sentinel, aws ? AWS_SENTINEL : words[SENTINEL]);
    if (!credentials_add(&c, &a))
        abort();
    return c;
}

static void verdict(uint8_t n)
{
    struct proxy_verdict v = {.allow = (n & 3) != 0, .rule = "a rule", .hint = "a command", .mint = (n & 12) == 12};
    if ((n & 48) == 48)
        v.signed_in = "a sentinel";
    if (nasked == 0) {
        if (two)
            h2proxy_review(h2);
        else
            h1proxy_review(h1);
        return;
    }
    uint32_t id = asked[--nasked].id;
    v.allow &= !asked[nasked].deny;
    allowed += v.allow;
    if (v.allow && owner.tls && !v.signed_in)
        v.secrets = credential(id);
    if (v.allow && !sentinels_watch(held, owner.tls ? FOREIGN_BIT : 3, &v.watch))
        abort();
    if (two)
        h2proxy_answer(h2, id, &v);
    else
        h1proxy_answer(h1, id, &v);
}

/* Takes n bytes of what an end is to say; false: no guest would. */
static bool says(struct side *s, const uint8_t *p, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned word = p[i] - 0xe0u;
        if (word >= WORDS || (s == &guest_side && word <= SECRET_64)) {
            s->said[len++] = p[i];
            continue;
        }
        memcpy(s->said + len, words[word], strlen(words[word]));
        len += strlen(words[word]);
    }
    s->in = s->said;
    s->left = len;
    return s != &guest_side || (!memmem(s->said, len, words[SECRET], 8) && !memmem(s->said, len, words[SECRET_64], 10));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct end guest, up;
    if (size < 2)
        return 0;
    if (!held) {
        static struct answer_sentinel a = {.kind = ANSWER_SENTINEL, .more = 1};
        held = sentinels_new();
        strcpy(a.sentinel, words[SENTINEL]);
        sentinels_set(held, &a);
        a.id = 1;
        a.more = 0;
        strcpy(a.sentinel, words[FOREIGN]);
        sentinels_set(held, &a);
    }
    how = data[0];
    two = how & 1;
    owner = (struct proxy_owner){.name = "a.test", .port = how & 8 ? 443 : 80, .tls = how & 8, .request = on_request, .mismatch = on_mismatch,
                                 .failed = on_failed, .minted = on_minted};
    guest_side = (struct side){.takes = how & 2 ? SIZE_MAX / 4 : 0};
    server_side = (struct side){.takes = how & 4 ? SIZE_MAX / 4 : 0};
    nasked = allowed = started = 0;
    hear_anew(&at_guest);
    hear_anew(&at_server);
    end_init(&guest, &ops, &guest_side);
    end_init(&up, &ops, &server_side);
    h1 = two ? NULL : h1proxy_new(&guest, &up, &owner);
    h2 = two ? h2proxy_new(&guest, &up, &owner) : NULL;
    enum proxy_state s = PROXY_GOING;
    for (size_t at = 1; at + 1 < size && s == PROXY_GOING;) {
        uint8_t op = data[at++] % OPS, n = data[at++];
        size_t more = (size_t)n < size - at ? n : size - at;
        switch (op) {
        case GUEST_SAYS:
        case SERVER_SAYS: {
            struct side *side = op == GUEST_SAYS ? &guest_side : &server_side;
            if (side->eof || side->broken || side->left)
                break; /* it is not read at present */
            if (!says(side, data + at, more))
                s = PROXY_DONE;
            at += more;
            break;
        }
        case GUEST_ENDS:
            guest_side.eof = true;
            break;
        case SERVER_ENDS:
            server_side.eof = true;
            break;
        case SERVER_BREAKS:
            server_side.broken = true;
            break;
        case GUEST_TAKES:
            guest_side.takes = n == 255 ? SIZE_MAX / 4 : n;
            break;
        case SERVER_TAKES:
            server_side.takes = n == 255 ? SIZE_MAX / 4 : n;
            break;
        default:
            verdict(n);
        }
        if (s == PROXY_GOING)
            s = go();
    }
    h1proxy_free(h1);
    h2proxy_free(h2);
    end_finish(&guest);
    end_finish(&up);
    if (proxy_spooled() || proxy_heads_held())
        abort();
    return 0;
}
