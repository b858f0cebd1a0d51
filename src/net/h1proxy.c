#include "net/h1proxy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/wipe.h"
#include "net/http1.h"
#include "net/httpbody.h"
#include "net/mint.h"
#include "net/refusal.h"
#include "net/sigv4.h"
#include "net/wsframes.h"

#define IN_MAX (32u * 1024u)

/* Bytes that came in and were not looked at yet; allocated while there are some. */
struct in {
    uint8_t *p;
    size_t pos, len;
    size_t most; /* so much of it was ever written */
};

/* Bytes that wait to be written. */
struct out {
    uint8_t *p;
    size_t pos, len, cap;
};

enum request_state {
    RQ_HEAD,
    RQ_ASKED,
    RQ_SPOOL, /* its content is gathered, because its credential depends on it */
    RQ_BODY,
    RQ_CAUGHT, /* something stands in it that must not leave: the owner is asked how to refuse it */
    RQ_SENT,  /* whole; its answer is awaited */
    RQ_CLOSE, /* the last answer is on its way, nothing more is read */
};

enum response_state { RS_NONE, RS_HEAD, RS_BODY };

struct h1proxy {
    struct end *guest, *up;
    struct proxy_owner *owner;
    enum request_state rq;
    enum response_state rs;
    struct http1_reader rq_reader, rs_reader;
    struct http1_head rq_head, rs_head;
    struct httpbody rq_body, rs_body;
    struct in from_guest, from_up;
    struct out to_guest, to_up;
    uint32_t request;
    bool guest_eof, up_eof, tunnel;
    bool up_shut; /* the server takes no more */
    bool close_after; /* the answer under way is the last */
    bool late; /* its answer is whole, and the rest of the request still goes to the server, which may want it */
    bool continued; /* the server asked for the content */
    bool rest_up;   /* before the end, what waits for the server goes to it */
    bool served;   /* an exchange was completed before */
    bool answered; /* something came of the one under way */
    struct credentials *secrets; /* of the exchange under way */
    struct scrub_set *scrub_set; /* borrowed from it */
    struct scrub *scrub;         /* of its body */
    struct wsframes *frames;     /* of the tunnel */
    struct scrub_set *watch_set; /* what the request must not say */
    struct scrub_watch *watch;   /* of its body */
    struct wsframes *watched;    /* of the tunnel, from the guest */
    bool mint;      /* the answer awaited gives out tokens */
    bool minting;   /* it is being gathered in `held` */
    struct out held;
    struct out spool;
    size_t spool_room;
    bool broken, done;
};

struct h1proxy *h1proxy_new(struct end *guest, struct end *up, struct proxy_owner *owner)
{
    struct h1proxy *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->guest = guest;
    p->up = up;
    p->owner = owner;
    http1_reader_init(&p->rq_reader);
    http1_reader_init(&p->rs_reader);
    http1_head_init(&p->rq_head);
    http1_head_init(&p->rs_head);
    return p;
}

static void forget(uint8_t **p, size_t n)
{
    if (*p)
        explicit_bzero(*p, n);
    free(*p);
    *p = NULL;
}

static void forget_in(struct in *in)
{
    forget(&in->p, in->most);
    *in = (struct in){0};
}

/* The exchange is over, and with it the right to know its secrets. */
static void forget_secrets(struct h1proxy *p)
{
    proxy_spool(&p->spool_room, 0);
    forget(&p->spool.p, p->spool.len);
    p->spool = (struct out){0};
    scrub_free(p->scrub);
    wsframes_free(p->frames);
    scrub_watch_free(p->watch);
    wsframes_free(p->watched);
    scrub_set_unref(p->watch_set);
    p->watch = NULL;
    p->watched = NULL;
    p->watch_set = NULL;
    credentials_free(p->secrets);
    p->mint = p->minting = false;
    forget(&p->held.p, p->held.len);
    p->held = (struct out){0};
    p->scrub = NULL;
    p->frames = NULL;
    p->scrub_set = NULL;
    p->secrets = NULL;
}

void h1proxy_free(struct h1proxy *p)
{
    if (!p)
        return;
    forget_secrets(p);
    http1_reader_finish(&p->rq_reader);
    http1_reader_finish(&p->rs_reader);
    http1_head_finish(&p->rq_head);
    http1_head_finish(&p->rs_head);
    forget_in(&p->from_guest);
    forget_in(&p->from_up);
    forget(&p->to_guest.p, p->to_guest.len);
    forget(&p->to_up.p, p->to_up.len);
    free(p);
}

bool h1proxy_idle(const struct h1proxy *p)
{
    return p->rq == RQ_HEAD && p->rs == RS_NONE && p->rq_reader.len == 0;
}

size_t h1proxy_in_head(const struct h1proxy *p)
{
    return p->rq == RQ_HEAD && p->rs == RS_NONE ? p->rq_reader.len : 0;
}

/* ---- buffers ---- */

/* 1: there is something; 0: nothing now; -1: the end (eof is set) or an error (broken is). */
static int fill(struct h1proxy *p, struct in *in, struct end *from, bool *eof)
{
    if (in->pos < in->len)
        return 1;
    if (*eof)
        return -1;
    if (end_quiet(from)) {
        forget_in(in);
        return 0;
    }
    if (!in->p && !(in->p = malloc(IN_MAX))) {
        p->broken = true;
        return -1;
    }
    in->pos = in->len = 0;
    ssize_t n = end_read(from, in->p, IN_MAX);
    if (n > 0) {
        in->len = (size_t)n;
        in->most = in->len > in->most ? in->len : in->most;
        return 1;
    }
    forget_in(in);
    if (n == END_AGAIN)
        return 0;
    *eof = true;
    if (n == END_ERROR)
        p->broken = true;
    return -1;
}

/* A server that takes no more may have answered already, and closed: what it said is still read. */
static void write_failed(struct h1proxy *p, struct out *out, const struct end *to)
{
    if (to != p->up || p->tunnel) {
        p->broken = true;
        return;
    }
    p->up_shut = true;
    forget(&out->p, out->len);
    *out = (struct out){0};
}

/* 1: all is written; 0: later. */
static int flush(struct h1proxy *p, struct out *out, struct end *to)
{
    while (out->pos < out->len) {
        ssize_t n = end_write(to, out->p + out->pos, out->len - out->pos);
        if (n == END_AGAIN)
            return 0;
        if (n < 0) {
            write_failed(p, out, to);
            return 0;
        }
        out->pos += (size_t)n;
    }
    if (out->cap) {
        forget(&out->p, out->len);
        *out = (struct out){0};
    }
    return 1;
}

static void queue(struct h1proxy *p, struct out *out, const void *bytes, size_t n)
{
    if (out == &p->to_up && p->up_shut)
        return;
    if (out->len + n > out->cap) {
        size_t cap = out->len + n < 4096 ? 4096 : out->len + n;
        uint8_t *more = wipe_realloc(out->p, cap);
        if (!more) {
            p->broken = true;
            return;
        }
        out->p = more;
        out->cap = cap;
    }
    memcpy(out->p + out->len, bytes, n);
    out->len += n;
}

/* Whether more of a body can be taken: what it goes to does not stand still.  What waits for the first time goes out with
 * what is there already, as one record and one segment. */
static bool ready(struct h1proxy *p, const struct in *in, struct out *out, struct end *to)
{
    return (in->pos < in->len && out->pos == 0 && out->len < IN_MAX) || flush(p, out, to);
}

/* Content of a body: straight to the end where nothing waits, framed where the message is chunked. */
static void pass(struct h1proxy *p, struct out *out, struct end *to, enum http1_framing framing, const uint8_t *content,
                 size_t n)
{
    char head[HTTPBODY_FRAME_HEAD];
    if (n == 0)
        return;
    if (framing == HTTP1_CHUNKED) {
        queue(p, out, head, httpbody_frame(head, n));
        queue(p, out, content, n);
        queue(p, out, "\r\n", 2);
        return;
    }
    while (out->len == out->pos && n) {
        ssize_t w = end_write(to, content, n);
        if (w == END_AGAIN)
            break;
        if (w < 0) {
            write_failed(p, out, to);
            return;
        }
        content += w;
        n -= (size_t)w;
    }
    if (n)
        queue(p, out, content, n);
}

/* The same for an answer that may carry a secret back. */
static void pass_scrubbed(struct h1proxy *p, enum http1_framing framing, const uint8_t *content, size_t n, bool end)
{
    if (p->minting) {
        if (p->held.len + n > MINT_BODY_MAX)
            p->broken = true;
        else
            queue(p, &p->held, content, n);
        return;
    }
    if (!p->scrub) {
        pass(p, &p->to_guest, p->guest, framing, content, n);
        return;
    }
    uint8_t *clean = malloc(n + 2 * scrub_set_hold(p->scrub_set));
    if (!clean) {
        p->broken = true;
        return;
    }
    size_t len = scrub_feed(p->scrub, content, n, clean);
    if (end)
        len += scrub_end(p->scrub, clean + len);
    pass(p, &p->to_guest, p->guest, framing, clean, len);
    wipe_free(clean);
}

/* ---- answers of our own ---- */

static void answer(struct h1proxy *p, const struct refusal *r, bool last)
{
    forget_secrets(p);
    char text[REFUSAL_MAX + 512];
    size_t n = refusal_http1(r, !last, strcmp(p->rq_head.method, "HEAD") == 0, text, sizeof text);
    queue(p, &p->to_guest, text, n);
    http1_head_finish(&p->rq_head);
    p->rq = last ? RQ_CLOSE : RQ_HEAD;
    p->rs = RS_NONE;
}

static void answer_failed(struct h1proxy *p, int status, const char *why)
{
    struct refusal r;
    refusal_failed(&r, proxy_wants_json(&p->rq_head.fields), status, why);
    p->owner->failed(p->owner->arg, status, why);
    answer(p, &r, true);
}

static void answer_denied(struct h1proxy *p, const char *rule, const char *hint)
{
    struct refusal r;
    char what[700];
    proxy_describe(p->owner, p->rq_head.method, p->rq_head.target ? p->rq_head.target : "", what, sizeof what);
    refusal_denied(&r, proxy_wants_json(&p->rq_head.fields), what, rule, hint);
    /* A body that nobody reads cannot be told from the next request. */
    answer(p, &r, p->owner->refuse || p->rq_head.framing != HTTP1_NO_BODY || p->rq_head.close || p->rq_head.minor == 0);
}

/* ---- requests ---- */

static void request_whole(struct h1proxy *p)
{
    struct http1_error e = {0};
    struct http1_head *h = &p->rq_head;
    http1_head_init(h);
    if (!http1_parse_request(h, &p->rq_reader, &e)) {
        answer_failed(p, e.status, e.why);
        return;
    }
    if (!proxy_is_ours(p->owner, h->host, h->port) || (h->absolute && h->absolute_tls != p->owner->tls)) {
        if (!p->owner->refuse)
            p->owner->mismatch(p->owner->arg, h->host, false);
        answer_failed(p, 421, "its Host is not the host that this connection was opened to");
        return;
    }
    if (p->owner->refuse) {
        answer_denied(p, p->owner->rule, p->owner->hint);
        return;
    }
    struct proxy_request r = {.id = ++p->request, .version = 1, .method = h->method, .target = h->target,
                              .fields = &h->fields, .override = h->override};
    p->rq = RQ_ASKED;
    p->owner->request(p->owner->arg, &r);
}

static bool read_head(struct h1proxy *p)
{
    struct http1_error e = {0};
    size_t used;
    int got = fill(p, &p->from_guest, p->guest, &p->guest_eof);
    if (got < 0) {
        if (p->rq_reader.len) {
            p->owner->failed(p->owner->arg, 400, "half of its head came, and no more");
            p->broken = true;
        } else
            p->done = true;
        return false;
    }
    if (got == 0)
        return false;
    struct in *in = &p->from_guest;
    switch (http1_read(&p->rq_reader, in->p + in->pos, in->len - in->pos, &used, &e)) {
    case HTTP1_BAD:
        http1_reader_finish(&p->rq_reader);
        answer_failed(p, e.status, e.why);
        break;
    case HTTP1_DONE:
        in->pos += used;
        request_whole(p);
        break;
    case HTTP1_MORE:
        in->pos += used;
        break;
    }
    return true;
}

/* What was judged goes out.  payload: the hash of its content, where that was gathered; else NULL. */
static void send_request(struct h1proxy *p, const char *payload)
{
    struct http1_head *h = &p->rq_head;
    size_t len;
    if (p->secrets && p->owner->tls) {
        const char *why = "there is no memory for its credential";
        p->scrub_set = credentials_scrub(p->secrets);
        if (!p->scrub_set || !inject_write(p->secrets, true, h->method, h->host, &h->target, &h->fields, payload, &why)) {
            answer_failed(p, p->scrub_set ? 403 : 503, why);
            return;
        }
    }
    if (p->mint) {
        headers_remove(&h->fields, "range");
        if (!headers_set(&h->fields, "accept-encoding", "identity")) {
            answer_failed(p, 431, "its header section is too large");
            return;
        }
    }
    /* Frames that are compressed could not be searched. */
    if (p->watch_set && h->websocket)
        headers_remove(&h->fields, "sec-websocket-extensions");
    /* What answers under one name is answered by one server: the connection stays open towards it while the guest's does. */
    char *text = http1_write_request(h, p->owner->tls ? 443 : 80, !h->close, &len);
    if (!text) {
        p->broken = true;
        return;
    }
    queue(p, &p->to_up, text, len);
    explicit_bzero(text, len);
    free(text);
    httpbody_init(&p->rq_body, h->framing, h->length);
    p->rq = p->rq_body.done ? RQ_SENT : RQ_BODY;
    p->rs = RS_HEAD;
    p->answered = p->continued = p->rest_up = false;
    p->close_after = h->close || h->minor == 0;
    if (p->secrets) /* written: the head that we keep for the answer shall not hold them */
        headers_clear_secret(&h->fields);
}

/* It goes no further than to before this.  What came of its answer meanwhile is passed on. */
static bool caught(struct h1proxy *p, uint64_t what)
{
    static const struct headers none;
    const struct http1_head *h = &p->rq_head;
    if (!what)
        return false;
    struct proxy_request r = {.id = p->request, .version = 1, .method = h->method, .target = h->target, .fields = &none,
                              .override = h->override, .content = what};
    p->rq = RQ_CAUGHT;
    p->owner->request(p->owner->arg, &r);
    return true;
}

static bool spool_add(struct h1proxy *p, const uint8_t *content, size_t n)
{
    struct out *o = &p->spool;
    if (o->len + n > o->cap) {
        size_t cap = o->cap ? 2 * o->cap : IN_MAX;
        if (!proxy_spool(&p->spool_room, cap))
            return false;
        uint8_t *more = wipe_realloc(o->p, cap);
        if (!more)
            return false;
        o->p = more;
        o->cap = cap;
    }
    if (n)
        memcpy(o->p + o->len, content, n);
    o->len += n;
    return true;
}

static bool read_spool(struct h1proxy *p)
{
    const uint8_t *content;
    size_t used, n;
    int got = fill(p, &p->from_guest, p->guest, &p->guest_eof);
    if (got <= 0) {
        p->broken |= got < 0;
        return false;
    }
    struct in *in = &p->from_guest;
    if (!httpbody_take(&p->rq_body, in->p + in->pos, in->len - in->pos, &used, &content, &n)) {
        p->broken = true;
        return false;
    }
    if (p->watch && caught(p, scrub_watch(p->watch, content, n)))
        return false;
    in->pos += used;
    if (!spool_add(p, content, n)) {
        answer_failed(p, 413, "its content, which its AWS signature covers, is longer than 64 MiB, or there is no room for it now; send it in parts, or with x-amz-content-sha256");
        return true;
    }
    if (!p->rq_body.done)
        return used > 0;
    char hash[SIGV4_HASH_LEN];
    sigv4_hash(p->spool.p, p->spool.len, hash);
    p->rq_head.framing = HTTP1_LENGTH;
    p->rq_head.length = p->spool.len;
    send_request(p, hash);
    if (p->rs == RS_HEAD && !p->broken) {
        queue(p, &p->to_up, p->spool.p, p->spool.len);
        p->owner->bytes_up += p->spool.len;
        p->rq = RQ_SENT;
        proxy_spool(&p->spool_room, 0);
        forget(&p->spool.p, p->spool.len);
        p->spool = (struct out){0};
    }
    return true;
}

void h1proxy_answer(struct h1proxy *p, uint32_t request, const struct proxy_verdict *v)
{
    struct credentials *secrets = v->secrets;
    struct http1_head *h = &p->rq_head;
    if ((p->rq != RQ_ASKED && p->rq != RQ_CAUGHT) || request != p->request) {
        credentials_free(secrets);
        scrub_set_unref(v->watch);
        return;
    }
    if (p->rq == RQ_CAUGHT) {
        credentials_free(secrets);
        scrub_set_unref(v->watch);
        /* The server's answer may have begun, or it is no request any more: then the end says enough. */
        if (p->tunnel || p->rs == RS_BODY || p->late)
            p->broken = true;
        else
            answer_denied(p, v->rule, v->hint);
        return;
    }
    p->secrets = secrets;
    p->watch_set = v->watch;
    if (!v->allow) {
        answer_denied(p, v->rule, v->hint);
        return;
    }
    if (v->signed_in) {
        struct refusal r;
        refusal_signed_in(&r, v->signed_in);
        answer(p, &r, h->framing != HTTP1_NO_BODY || h->close || h->minor == 0);
        return;
    }
    p->mint = v->mint;
    if (p->watch_set && ((h->framing != HTTP1_NO_BODY && !(p->watch = scrub_watch_new(p->watch_set))) ||
                         (h->websocket && !(p->watched = wsframes_new_from_guest(p->watch_set))))) {
        answer_failed(p, 503, "there is no memory to search what it says");
        return;
    }
    if (!p->owner->tls || !inject_wants_content(secrets, &h->fields)) {
        send_request(p, NULL);
        return;
    }
    httpbody_init(&p->rq_body, h->framing, h->length);
    if (p->rq_body.done) {
        char hash[SIGV4_HASH_LEN];
        sigv4_hash("", 0, hash);
        send_request(p, hash);
        return;
    }
    p->rq = RQ_SPOOL;
    if (h->expect_continue) /* by the time that the server could say so its content is there */
        queue(p, &p->to_guest, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    h->expect_continue = false;
}

void h1proxy_review(struct h1proxy *p)
{
    static const struct headers none;
    const struct http1_head *h = &p->rq_head;
    if ((p->rs == RS_NONE && p->rq != RQ_SPOOL && p->rq != RQ_CAUGHT && !p->tunnel && !p->late) || !h->target)
        return;
    struct proxy_request r = {.id = p->request, .version = 1, .method = h->method, .target = h->target, .fields = &none,
                              .override = h->override, .again = true};
    p->owner->request(p->owner->arg, &r);
}

/* Of the exchange nothing more comes.  whole: and all of its request went out. */
static void exchange_over(struct h1proxy *p, bool whole)
{
    forget_secrets(p);
    http1_head_finish(&p->rq_head);
    p->late = false;
    p->rest_up = whole;
    p->rq = p->close_after || !whole || p->up_shut ? RQ_CLOSE : RQ_HEAD;
}

static bool read_body(struct h1proxy *p)
{
    const uint8_t *content;
    size_t used, n;
    if (!ready(p, &p->from_guest, &p->to_up, p->up) || p->up_shut)
        return false;
    int got = fill(p, &p->from_guest, p->guest, &p->guest_eof);
    if (got < 0 && p->late) { /* it has its answer, and what of it still waits */
        p->broken = false;
        exchange_over(p, false);
        return true;
    }
    if (got <= 0) {
        p->broken |= got < 0; /* the rest will not come */
        return false;
    }
    struct in *in = &p->from_guest;
    if (!httpbody_take(&p->rq_body, in->p + in->pos, in->len - in->pos, &used, &content, &n)) {
        p->broken = true; /* too late to answer: the server has the beginning of it */
        return false;
    }
    if (p->watch && caught(p, scrub_watch(p->watch, content, n)))
        return false;
    pass(p, &p->to_up, p->up, p->rq_head.framing, content, n);
    p->owner->bytes_up += n;
    in->pos += used;
    if (p->rq_body.done) {
        if (p->rq_head.framing == HTTP1_CHUNKED)
            queue(p, &p->to_up, "0\r\n\r\n", 5);
        p->rq = RQ_SENT;
        if (p->late)
            exchange_over(p, true);
    }
    return used > 0;
}

/* ---- responses ---- */

static bool websocket_agreed(const struct h1proxy *p)
{
    const struct header *key = headers_get(&p->rq_head.fields, "sec-websocket-key");
    const struct header *accept = headers_get(&p->rs_head.fields, "sec-websocket-accept");
    char want[29];
    return p->rq_head.websocket && p->rs_head.websocket && key && accept &&
           headers_count(&p->rq_head.fields, "sec-websocket-key") == 1 &&
           headers_count(&p->rs_head.fields, "sec-websocket-accept") == 1 && http1_websocket_accept(key->value, want) &&
           strcmp(want, accept->value) == 0;
}

static void send_response_head(struct h1proxy *p)
{
    struct http1_head *h = &p->rs_head;
    size_t len;
    /* A client of HTTP/1.0 knows no chunks: it reads until the end. */
    if (h->framing == HTTP1_CHUNKED && p->rq_head.minor == 0) {
        h->framing = HTTP1_UNTIL_CLOSE;
        p->close_after = true;
    }
    char *text = http1_write_response(h, !p->close_after, &len);
    if (!text) {
        p->broken = true;
        return;
    }
    queue(p, &p->to_guest, text, len);
    explicit_bzero(text, len);
    free(text);
}

static void response_over(struct h1proxy *p)
{
    http1_head_finish(&p->rs_head);
    p->rs = RS_NONE;
    p->served = true;
    /* The server answered before it had the whole request, and may read on: many answer first, and some said that this
     * connection lives on.  Not where it was asked whether it wants the content, and did not say so: what came then could be
     * content for us, and a request that nobody judged for it. */
    p->late = p->rq == RQ_BODY && !p->up_shut && !p->up_eof && (!p->rq_head.expect_continue || p->continued);
    if (!p->late)
        exchange_over(p, p->rq == RQ_SENT);
}

static void response_whole(struct h1proxy *p)
{
    struct http1_error e = {0};
    struct http1_head *h = &p->rs_head;
    http1_head_init(h);
    if (!http1_parse_response(h, &p->rs_reader, p->rq_head.method, &e)) {
        answer_failed(p, e.status, e.why);
        return;
    }
    if (p->scrub_set) {
        if (h->status != 101 && h->framing != HTTP1_NO_BODY && !inject_readable(&h->fields)) {
            answer_failed(p, 502, "the server's answer is compressed although it was asked not to be, and cannot be searched for the secret");
            return;
        }
        inject_clean(p->scrub_set, &h->fields);
        scrub_text(p->scrub_set, h->reason, strlen(h->reason));
    }
    if (h->status == 101) {
        if (!websocket_agreed(p)) {
            answer_failed(p, 502, "the server changes to a protocol that was not asked for");
            return;
        }
        if ((p->scrub_set || p->watched) && headers_count(&h->fields, "sec-websocket-extensions")) {
            answer_failed(p, 502, "the server uses an extension of WebSocket that was not asked for");
            return;
        }
        if (p->scrub_set && !(p->frames = wsframes_new(p->scrub_set))) {
            answer_failed(p, 503, "there is no memory to search what the server says");
            return;
        }
        send_response_head(p);
        p->tunnel = true;
        return;
    }
    if (h->status / 100 == 1) {
        p->continued |= h->status == 100;
        if (p->rq_head.minor == 1)
            send_response_head(p);
        http1_head_finish(h);
        return; /* the real one follows */
    }
    httpbody_init(&p->rs_body, h->framing, h->length);
    if (p->scrub_set && !(p->scrub = scrub_new(p->scrub_set))) {
        p->broken = true;
        return;
    }
    p->close_after |= h->close;
    /* A refusal of the provider gives out nothing. */
    p->minting = p->mint && h->status / 100 == 2 && !p->rs_body.done;
    if (p->minting && !inject_readable(&h->fields)) {
        answer_failed(p, 502, "the server's answer is compressed although it was asked not to be, and cannot be searched for tokens");
        return;
    }
    if (!p->minting)
        send_response_head(p);
    p->rs = RS_BODY;
    if (p->rs_body.done)
        response_over(p);
}

/* A connection that served before, and that its server closed while the next request was on its way: whoever sent that knows
 * what this means, and whether it may be repeated (RFC 9112 9.3.1).  An answer of ours would look like the server's. */
static void hang_up(struct h1proxy *p)
{
    forget_secrets(p);
    http1_head_finish(&p->rq_head);
    p->rq = RQ_CLOSE;
    p->rs = RS_NONE;
}

static bool read_response_head(struct h1proxy *p)
{
    struct http1_error e = {0};
    size_t used;
    int got = fill(p, &p->from_up, p->up, &p->up_eof);
    if (got == 0)
        return false;
    if (got < 0) {
        p->broken = false;
        if (p->served && !p->answered)
            hang_up(p);
        else
            answer_failed(p, 502, "the server closed the connection without an answer");
        return true;
    }
    p->answered = true;
    struct in *in = &p->from_up;
    switch (http1_read(&p->rs_reader, in->p + in->pos, in->len - in->pos, &used, &e)) {
    case HTTP1_BAD:
        http1_reader_finish(&p->rs_reader);
        answer_failed(p, 502, "the server's answer is malformed");
        return true;
    case HTTP1_DONE:
        in->pos += used;
        response_whole(p);
        return true;
    default:
        in->pos += used;
        return true;
    }
}

/* The answer with the tokens is whole: it goes on with sentinels in it, of the same length. */
static void pass_minted(struct h1proxy *p)
{
    struct out held = p->held;
    p->held = (struct out){0};
    p->minting = false;
    if (!p->owner->minted(p->owner->arg, held.p, held.len))
        answer_failed(p, 502, "the server gave out a token in a form that sbx cannot keep from the sandbox");
    else {
        if (p->scrub_set)
            scrub_text(p->scrub_set, (char *)held.p, held.len);
        p->rs_head.framing = HTTP1_LENGTH;
        p->rs_head.length = held.len;
        send_response_head(p);
        queue(p, &p->to_guest, held.p, held.len);
        response_over(p);
    }
    forget(&held.p, held.len);
}

static bool read_response_body(struct h1proxy *p)
{
    const uint8_t *content;
    size_t used, n;
    if (!ready(p, &p->from_up, &p->to_guest, p->guest))
        return false;
    int got = fill(p, &p->from_up, p->up, &p->up_eof);
    if (got == 0)
        return false;
    enum http1_framing framing = p->rs_head.framing;
    if (got < 0) {
        if (p->broken || !httpbody_eof(&p->rs_body)) {
            p->broken = true; /* cut short: the guest must see that */
            return false;
        }
        if (p->minting) {
            pass_minted(p);
            return true;
        }
        pass_scrubbed(p, framing, NULL, 0, true);
        response_over(p);
        return true;
    }
    struct in *in = &p->from_up;
    if (!httpbody_take(&p->rs_body, in->p + in->pos, in->len - in->pos, &used, &content, &n)) {
        p->broken = true;
        return false;
    }
    pass_scrubbed(p, framing, content, n, p->rs_body.done);
    p->owner->bytes_down += n;
    in->pos += used;
    if (p->rs_body.done && p->minting && !p->broken) {
        pass_minted(p);
    } else if (p->rs_body.done) {
        if (framing == HTTP1_CHUNKED)
            queue(p, &p->to_guest, "0\r\n\r\n", 5);
        response_over(p);
    }
    return true;
}

/* ---- a tunnel: what a WebSocket says ---- */

static bool pour(struct h1proxy *p, struct in *in, struct end *from, bool *eof, struct out *out, struct end *to,
                 uint64_t *count)
{
    if (!flush(p, out, to))
        return false;
    int got = fill(p, in, from, eof);
    if (got < 0 && !p->broken)
        end_shutdown(to);
    if (got <= 0)
        return false;
    size_t n = in->len - in->pos;
    uint64_t what = 0;
    if (out == &p->to_up && p->watched && !wsframes_search(p->watched, in->p + in->pos, n, &what)) {
        p->broken = true;
        return false;
    }
    if (caught(p, what))
        return false;
    if (out == &p->to_guest && p->frames) {
        size_t len = 0;
        uint8_t *clean = malloc(n + wsframes_room(p->frames));
        if (!clean || !wsframes_feed(p->frames, in->p + in->pos, n, clean, &len))
            p->broken = true;
        else
            pass(p, out, to, HTTP1_UNTIL_CLOSE, clean, len);
        wipe_free(clean);
    } else
        pass(p, out, to, HTTP1_UNTIL_CLOSE, in->p + in->pos, n);
    *count += n;
    in->pos = in->len;
    return true;
}

static bool tunnel(struct h1proxy *p)
{
    bool moved = p->rq != RQ_CAUGHT && pour(p, &p->from_guest, p->guest, &p->guest_eof, &p->to_up, p->up, &p->owner->bytes_up);
    moved |= pour(p, &p->from_up, p->up, &p->up_eof, &p->to_guest, p->guest, &p->owner->bytes_down);
    if (p->guest_eof && p->up_eof && flush(p, &p->to_guest, p->guest) && flush(p, &p->to_up, p->up))
        p->done = true;
    return moved;
}

/* A server that has nothing to say hangs up, or speaks without being asked. */
static bool watch_idle_server(struct h1proxy *p)
{
    if (!p->up || p->rs != RS_NONE || (p->rq != RQ_HEAD && !p->late))
        return false;
    int got = fill(p, &p->from_up, p->up, &p->up_eof);
    if (got != 0) {
        p->broken = false;
        exchange_over(p, false);
        return true;
    }
    return false;
}

enum proxy_state h1proxy_step(struct h1proxy *p)
{
    for (bool moved = true; moved && !p->broken && !p->done;) {
        moved = false;
        bool clear = flush(p, &p->to_guest, p->guest);
        if (p->up)
            flush(p, &p->to_up, p->up);
        if (p->tunnel) {
            moved = tunnel(p);
            continue;
        }
        if (p->rs == RS_HEAD && clear) /* informational answers may come without an end */
            moved |= read_response_head(p);
        if (p->rs == RS_BODY && !p->broken)
            moved |= read_response_body(p);
        if (p->rq == RQ_SPOOL && !p->broken)
            moved |= read_spool(p);
        if (p->late && p->rq == RQ_BODY && !p->broken)
            moved |= watch_idle_server(p);
        if (p->rq == RQ_BODY && !p->broken)
            moved |= read_body(p);
        if (p->rq == RQ_HEAD && clear && !p->broken) {
            moved |= watch_idle_server(p);
            if (p->rq == RQ_HEAD)
                moved |= read_head(p);
        }
        if (p->rq == RQ_CLOSE && !p->broken && flush(p, &p->to_guest, p->guest) &&
            (!p->rest_up || p->up_shut || p->up_eof || flush(p, &p->to_up, p->up) || p->up_shut))
            p->done = true;
    }
    return p->broken ? PROXY_BROKEN : p->done ? PROXY_DONE : PROXY_GOING;
}
