#include "net/h2proxy.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/wipe.h"
#include "net/http1.h"
#include "net/mint.h"
#include "net/refusal.h"
#include "net/sigv4.h"

#define IN_MAX (32u * 1024u)
/* What a hostile peer may make us queue before it reads (settings, pings, resets: threat 46). */
#define OUT_FRAMES_MAX 1000u
/* Open ones, and those that were reset while the broker was asked. */
#define STREAMS_KEPT (4 * H2_STREAMS_MAX)
/* Header sections, of a stream: both heads and trailers, and what its server says before; of all of a connection. */
#define STREAM_HEADS_MAX (6 * H2_HEADER_LIST_MAX)
#define HEADS_MAX (6u * 1024u * 1024u)

enum side { GUEST, UP };

/* Data of one direction of a stream that waits to be passed on. */
struct queue {
    uint8_t *p;
    size_t pos, len, cap;
    bool end;                /* no more comes */
    struct headers trailers;
    bool has_trailers, deferred;
};

struct stream {
    struct stream *next;
    struct h2proxy *proxy;
    int32_t id[2];           /* on each side; upstream 0: not opened */
    uint32_t request;
    struct headers fields;   /* of the section that is being received, or of the request that is judged */
    char method[HTTP1_METHOD_MAX + 1], scheme[8];
    char *path, *authority;
    char status[4];
    bool spooling;           /* judged; q[GUEST] is gathered whole, because the credential depends on it */
    bool mint, minting;      /* the answer gives out tokens; it is being gathered in q[UP] */
    bool json;               /* its client would rather read that */
    bool bad, override, asked, opened, answered, closed[2], judged;
    struct queue q[2];       /* q[GUEST]: from the guest; q[UP]: from the server */
    size_t heads;            /* counted of its header sections, and of itself */
    size_t informed;         /* of that, what its server said before its answer and the guest was not sent yet */
    size_t spool_room;       /* what proxy_spool() gave for q[GUEST] */
    size_t credited;         /* of its bytes: the guest may send as many more, before they were passed on */
    struct refusal *refusal;
    size_t refusal_pos;
    struct credentials *secrets;
    struct scrub_set *scrub_set; /* borrowed from them */
    struct scrub *scrub;         /* of the answer's body */
    struct scrub_set *watch_set; /* what the request must not say */
    struct scrub_watch *watch;   /* of its body */
    bool caught;                 /* it did: no more of it goes out, and the owner is asked how to refuse it */
    bool left;                   /* its head went out to the server */
    bool said[2];                /* the end of what goes to that side went out */
    bool follows;                /* its server is done with it: the guest's side ends so, after what came of the answer */
    uint32_t follows_code;
};

struct h2proxy {
    nghttp2_session *session[2];
    struct end *end[2];
    struct proxy_owner *owner;
    struct stream *streams;
    unsigned nstreams;
    uint32_t last_request;
    uint8_t *out[2];
    size_t out_pos[2], out_len[2];
    bool eof[2], gone[2], broken;
    bool mute[2]; /* takes nothing any more */
    bool up_over; /* its streams were told */
    bool served;  /* an answer came whole */
    bool leaving; /* the guest is to be told that its server leaves */
    bool malformed; /* what the guest said */
    bool wide;      /* its connections have the larger windows */
    bool informed;  /* a stream has some */
    size_t heads;   /* counted of all its streams */
};

static enum side side_of(const struct h2proxy *p, const nghttp2_session *s)
{
    return s == p->session[GUEST] ? GUEST : UP;
}

static enum side other(enum side s)
{
    return s == GUEST ? UP : GUEST;
}

/* ---- streams ---- */

static void queue_finish(struct queue *q)
{
    if (q->p)
        explicit_bzero(q->p, q->len);
    free(q->p);
    headers_finish(&q->trailers);
    memset(q, 0, sizeof *q);
}

static bool hold(struct stream *s, size_t n)
{
    struct h2proxy *p = s->proxy;
    if (s->heads + n > STREAM_HEADS_MAX || p->heads + n > HEADS_MAX || !proxy_heads(&s->heads, s->heads + n))
        return false;
    p->heads += n;
    return true;
}

static void let_go(struct stream *s, size_t n)
{
    proxy_heads(&s->heads, s->heads - n);
    s->proxy->heads -= n;
}

static void stream_free(struct stream *s)
{
    let_go(s, s->heads);
    struct stream **at = &s->proxy->streams;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->proxy->nstreams--;
    proxy_spool(&s->spool_room, 0);
    queue_finish(&s->q[GUEST]);
    queue_finish(&s->q[UP]);
    headers_finish(&s->fields);
    wipe_free(s->path);
    wipe_free(s->authority);
    free(s->refusal);
    scrub_free(s->scrub);
    scrub_watch_free(s->watch);
    scrub_set_unref(s->watch_set);
    credentials_free(s->secrets);
    free(s);
}

static struct stream *find(struct h2proxy *p, enum side side, int32_t id)
{
    struct stream *s = p->streams;
    while (s && s->id[side] != id)
        s = s->next;
    return s;
}

static void reset(struct stream *s, enum side side, uint32_t code)
{
    if (s->id[side] && !s->closed[side])
        nghttp2_submit_rst_stream(s->proxy->session[side], NGHTTP2_FLAG_NONE, s->id[side], code);
}

/* A server may be done with a request that still comes (RFC 9113 8.1): whoever sends it is told so, when it has what came of
 * the answer. */
static void follow(struct stream *s)
{
    const struct queue *q = &s->q[UP];
    if (!s->follows || s->closed[GUEST] || !(s->minting || (q->end ? s->said[GUEST] : q->pos == q->len)))
        return;
    s->follows = false;
    /* Where both have said all it ends by itself. */
    if (!q->end || nghttp2_session_get_stream_remote_close(s->proxy->session[GUEST], s->id[GUEST]) == 0)
        reset(s, GUEST, s->follows_code);
}

static void server_done(struct stream *s, uint32_t code)
{
    s->follows = true;
    s->follows_code = code;
    follow(s);
}

static void send_goaway(struct h2proxy *p)
{
    p->leaving = false;
    nghttp2_submit_goaway(p->session[GUEST], NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(p->session[GUEST]),
                          NGHTTP2_NO_ERROR, NULL, 0);
}

/* That the server leaves comes after the answers that were whole by then: some clients read none behind it. */
static bool tell_leaving(struct h2proxy *p)
{
    if (!p->leaving)
        return false;
    for (const struct stream *s = p->streams; s; s = s->next)
        if (!s->closed[GUEST] && !s->said[GUEST] && (s->q[UP].end || s->refusal))
            return false;
    send_goaway(p);
    return true;
}

/* ---- data from one side to the other ---- */

/* What waits; never NULL. */
static uint8_t *waiting(const struct queue *q)
{
    static uint8_t nothing;
    return q->p ? q->p + q->pos : &nothing;
}

static bool queue_add(struct queue *q, const uint8_t *data, size_t n)
{
    if (q->pos == q->len)
        q->pos = q->len = 0;
    if (q->len + n > q->cap && q->pos) {
        memmove(q->p, q->p + q->pos, q->len - q->pos);
        q->len -= q->pos;
        q->pos = 0;
    }
    if (q->len + n > q->cap) {
        size_t cap = q->cap ? q->cap * 2 : 16384;
        while (cap < q->len + n)
            cap *= 2;
        uint8_t *more = wipe_realloc(q->p, cap);
        if (!more)
            return false;
        q->p = more;
        q->cap = cap;
    }
    memcpy(q->p + q->len, data, n);
    q->len += n;
    return true;
}

static void submit_trailers(struct stream *s, enum side to, struct headers *h)
{
    nghttp2_nv nv[HEADERS_MAX];
    for (size_t i = 0; i < h->n; i++)
        nv[i] = (nghttp2_nv){(uint8_t *)h->v[i].name, (uint8_t *)h->v[i].value, h->v[i].name_len, h->v[i].value_len, 0};
    nghttp2_submit_trailer(s->proxy->session[to], s->id[to], nv, h->n);
}

/* n bytes of a queue are over: the peer may send as many more, unless it was told so when they were spooled. */
static void consumed(struct stream *s, enum side from, size_t n)
{
    size_t early = from == GUEST ? (n < s->credited ? n : s->credited) : 0;
    if (from == GUEST)
        s->credited -= early;
    if (n > early && s->id[from] && s->proxy->session[from])
        nghttp2_session_consume(s->proxy->session[from], s->id[from], n - early);
}

/* nghttp2 asks for data that goes out on one side: it is what came in on the other. */
static ssize_t give(nghttp2_session *session, int32_t id, uint8_t *buf, size_t cap, uint32_t *flags,
                    nghttp2_data_source *source, void *arg)
{
    struct h2proxy *p = arg;
    enum side to = side_of(p, session), from = other(to);
    struct stream *s = find(p, to, id);
    (void)source;
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    struct queue *q = &s->q[from];
    size_t n = q->len - q->pos < cap ? q->len - q->pos : cap;
    if (n == 0 && !q->end) {
        q->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (n)
        memcpy(buf, q->p + q->pos, n);
    q->pos += n;
    consumed(s, from, n);
    if (from == GUEST)
        p->owner->bytes_up += n;
    else
        p->owner->bytes_down += n;
    if (q->pos == q->len) {
        if (q->end) {
            *flags |= NGHTTP2_DATA_FLAG_EOF;
            if (q->has_trailers) {
                *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
                if (from == GUEST)
                    inject_trailers(s->secrets, &q->trailers);
                submit_trailers(s, to, &q->trailers);
            }
        }
        wipe_free(q->p);
        q->p = NULL;
        q->pos = q->len = q->cap = 0;
        if (from == GUEST)
            proxy_spool(&s->spool_room, 0);
    }
    return (ssize_t)n;
}

static void wake(struct stream *s, enum side from)
{
    enum side to = other(from);
    if (s->q[from].deferred && s->id[to]) {
        s->q[from].deferred = false;
        nghttp2_session_resume_data(s->proxy->session[to], s->id[to]);
    }
}

/* ---- answers of our own ---- */

static ssize_t give_refusal(nghttp2_session *session, int32_t id, uint8_t *buf, size_t cap, uint32_t *flags,
                            nghttp2_data_source *source, void *arg)
{
    struct stream *s = find(arg, GUEST, id);
    (void)session;
    (void)source;
    if (!s || !s->refusal)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t n = s->refusal->len - s->refusal_pos < cap ? s->refusal->len - s->refusal_pos : cap;
    memcpy(buf, s->refusal->body + s->refusal_pos, n);
    s->refusal_pos += n;
    if (s->refusal_pos == s->refusal->len)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

#define NV(n, v) {(uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE}

static void answer(struct stream *s, const struct refusal *r)
{
    char status[8], length[24];
    if (s->answered || s->closed[GUEST])
        return;
    s->answered = true;
    s->refusal = malloc(sizeof *s->refusal);
    if (!s->refusal) {
        reset(s, GUEST, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    *s->refusal = *r;
    snprintf(status, sizeof status, "%d", r->status);
    snprintf(length, sizeof length, "%zu", r->len);
    const nghttp2_nv nv[] = {NV(":status", status), NV("content-type", r->type), NV("content-length", length),
                             NV("x-sbx", refusal_mark(r)), NV("cache-control", "no-store")};
    nghttp2_data_provider data = {.read_callback = give_refusal};
    bool head = strcmp(s->method, "HEAD") == 0;
    nghttp2_submit_response(s->proxy->session[GUEST], s->id[GUEST], nv, sizeof nv / sizeof *nv, head ? NULL : &data);
}

static void answer_failed(struct stream *s, int status, const char *why)
{
    struct refusal r;
    refusal_failed(&r, proxy_wants_json(&s->fields), status, why);
    if (!s->answered && !s->closed[GUEST])
        s->proxy->owner->failed(s->proxy->owner->arg, status, why);
    answer(s, &r);
}

static void answer_denied(struct stream *s, const char *rule, const char *hint)
{
    struct refusal r;
    char what[700];
    proxy_describe(s->proxy->owner, s->method, s->path ? s->path : "", what, sizeof what);
    refusal_denied(&r, s->json || proxy_wants_json(&s->fields), what, rule, hint);
    answer(s, &r);
}

/* The server took no notice of it: its client may try again, on a new connection (RFC 9113 8.7). */
static void untouched(struct stream *s)
{
    reset(s, GUEST, NGHTTP2_REFUSED_STREAM);
}

static bool is_safe(const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "OPTIONS") == 0;
}

/* ---- requests ---- */

/* What came for a request that is gathered whole; the guest may send on at once, as far as there is room. */
static bool spool(struct stream *s, const uint8_t *data, size_t n)
{
    struct queue *q = &s->q[GUEST];
    size_t held = q->len - q->pos, room = 16384;
    while (room < held + n && room < PROXY_SPOOL_ALL)
        room *= 2;
    if (proxy_spool(&s->spool_room, room)) {
        if (n && !queue_add(q, data, n))
            return false;
        size_t fresh = held + n - s->credited;
        if (fresh && s->proxy->session[GUEST])
            nghttp2_session_consume(s->proxy->session[GUEST], s->id[GUEST], fresh);
        s->credited += fresh;
        return true;
    }
    s->spooling = false;
    consumed(s, GUEST, held);
    if (n)
        nghttp2_session_consume(s->proxy->session[GUEST], s->id[GUEST], n);
    wipe_free(q->p);
    q->p = NULL;
    q->pos = q->len = q->cap = 0;
    proxy_spool(&s->spool_room, 0);
    answer_failed(s, 413, "its content, which its AWS signature covers, is longer than 64 MiB, or there is no room for it now; send it in parts");
    return true;
}

/* The stream goes no further than to before this.  What came of its answer meanwhile is passed on. */
static bool caught(struct stream *s, uint64_t what)
{
    static const struct headers none;
    if (!what)
        return false;
    struct proxy_request r = {.id = s->request, .version = 2, .method = s->method, .target = s->path, .fields = &none,
                              .override = s->override, .content = what};
    s->caught = true;
    s->proxy->owner->request(s->proxy->owner->arg, &r);
    return true;
}

/* What came before it was judged is searched first.  False: it must not be opened now. */
static bool watch(struct stream *s)
{
    struct queue *q = &s->q[GUEST];
    if (!s->watch_set || (q->end && q->len == q->pos && !q->trailers.n))
        return true;
    if (!(s->watch = scrub_watch_new(s->watch_set))) {
        answer_failed(s, 503, "there is no memory to search what it says");
        return false;
    }
    return !caught(s, q->len > q->pos ? scrub_watch(s->watch, q->p + q->pos, q->len - q->pos) : 0) &&
           !caught(s, sentinels_in_fields(s->watch_set, &q->trailers));
}

/* The owner's word on what was caught. */
static void refuse_caught(struct stream *s, const struct proxy_verdict *v)
{
    struct queue *q = &s->q[GUEST];
    s->spooling = false;
    consumed(s, GUEST, q->len - q->pos);
    wipe_free(q->p);
    q->p = NULL;
    q->pos = q->len = q->cap = 0;
    proxy_spool(&s->spool_room, 0);
    if (s->answered) /* by the server: a part of that is said already */
        reset(s, GUEST, NGHTTP2_CANCEL);
    else
        answer_denied(s, v->rule, v->hint);
    reset(s, UP, NGHTTP2_CANCEL);
}

static void open_upstream(struct stream *s)
{
    struct h2proxy *p = s->proxy;
    nghttp2_nv nv[HEADERS_MAX + 4];
    size_t n = 0;
    if (s->secrets) {
        const char *why = "there is no memory for its credential";
        char hash[SIGV4_HASH_LEN];
        bool content = inject_wants_content(s->secrets, &s->fields);
        if (content)
            sigv4_hash(waiting(&s->q[GUEST]), s->q[GUEST].len - s->q[GUEST].pos, hash);
        s->scrub_set = credentials_scrub(s->secrets);
        if (!s->scrub_set || !inject_write(s->secrets, p->owner->tls, s->method, p->owner->name, &s->path, &s->fields, content ? hash : NULL, &why)) {
            answer_failed(s, s->scrub_set ? 403 : 503, why);
            return;
        }
    }
    if (s->mint) {
        headers_remove(&s->fields, "range");
        if (!headers_set(&s->fields, "accept-encoding", "identity")) {
            answer_failed(s, 431, "its header section is too large");
            return;
        }
    }
    nv[n++] = (nghttp2_nv)NV(":method", s->method);
    nv[n++] = (nghttp2_nv)NV(":scheme", s->scheme);
    nv[n++] = (nghttp2_nv)NV(":authority", s->authority);
    nv[n++] = (nghttp2_nv)NV(":path", s->path);
    for (size_t i = 0; i < s->fields.n; i++)
        /* A secret enters no compression table: it would stay there (and threat 67). */
        nv[n++] = (nghttp2_nv){(uint8_t *)s->fields.v[i].name, (uint8_t *)s->fields.v[i].value, s->fields.v[i].name_len,
                               s->fields.v[i].value_len,
                               credentials_owns(s->secrets, &s->fields.v[i]) ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE};
    nghttp2_data_provider data = {.read_callback = give};
    struct queue *q = &s->q[GUEST];
    bool empty = q->end && q->len == q->pos && !q->has_trailers;
    int32_t id = nghttp2_submit_request(p->session[UP], NULL, nv, n, empty ? NULL : &data, NULL);
    if (id < 0) {
        answer_failed(s, 503, "the server takes no more requests on this connection");
        return;
    }
    s->id[UP] = id;
    s->opened = true;
    if (s->secrets)
        headers_clear_secret(&s->fields);
    headers_finish(&s->fields);
}

void h2proxy_answer(struct h2proxy *p, uint32_t request, const struct proxy_verdict *v)
{
    struct stream *s = p->streams;
    while (s && s->request != request)
        s = s->next;
    if (!s || !s->asked || s->judged) {
        credentials_free(v->secrets);
        scrub_set_unref(v->watch);
        if (s && s->caught && !s->closed[GUEST])
            refuse_caught(s, v);
        return;
    }
    s->judged = true;
    s->secrets = v->secrets;
    s->watch_set = v->watch;
    s->mint = v->mint;
    if (s->closed[GUEST]) {
        stream_free(s);
        return;
    }
    if (v->allow && v->signed_in) {
        struct refusal r;
        refusal_signed_in(&r, v->signed_in);
        answer(s, &r);
    } else if (v->allow && !watch(s)) {
        return;
    } else if (v->allow && !p->gone[UP] && !s->q[GUEST].end && p->owner->tls && inject_wants_content(s->secrets, &s->fields)) {
        s->spooling = true;
        if (!spool(s, NULL, 0))
            reset(s, GUEST, NGHTTP2_INTERNAL_ERROR);
    } else if (v->allow && !p->gone[UP])
        open_upstream(s);
    else if (v->allow) {
        untouched(s);
        if (p->leaving) /* or it would be tried again here */
            send_goaway(p);
    } else
        answer_denied(s, v->rule, v->hint);
}

/* It came whole, and is not whole at its server yet: whoever sent it may be done. */
static bool owed(const struct stream *s)
{
    return s->opened && s->q[GUEST].end && !s->caught && !s->said[UP] && !s->closed[UP];
}

static bool owes(const struct h2proxy *p)
{
    const struct stream *s = p->streams;
    while (s && !owed(s))
        s = s->next;
    return s && !p->malformed;
}

void h2proxy_review(struct h2proxy *p)
{
    static const struct headers none;
    for (const struct stream *s = p->streams; s; s = s->next) {
        struct proxy_request r = {.id = s->request, .version = 2, .method = s->method, .target = s->path, .fields = &none,
                                  .override = s->override, .again = true};
        if ((s->opened || s->spooling) && (!s->closed[GUEST] || owed(s)))
            p->owner->request(p->owner->arg, &r);
    }
}

static void judge(struct stream *s)
{
    struct h2proxy *p = s->proxy;
    char host[NAME_MAX_LEN + 48];
    uint16_t port;
    if (s->bad || !s->method[0] || !s->path || !s->authority || !s->scheme[0]) {
        answer_failed(s, 400, "its header section is malformed");
        return;
    }
    int refused = http1_method_refused(s->method, strlen(s->method));
    if (refused) {
        answer_failed(s, refused, refused == 405 ? "this method is not passed on" : "its method is unknown");
        return;
    }
    if (!http1_target_is_plain(s->path, strlen(s->path))) {
        answer_failed(s, 400, "its path holds a byte that it may not");
        return;
    }
    if (strcmp(s->scheme, p->owner->tls ? "https" : "http") != 0 || (s->path[0] != '/' && strcmp(s->path, "*") != 0)) {
        answer_failed(s, 400, "its scheme or its path does not fit");
        return;
    }
    if (!http1_authority(s->authority, strlen(s->authority), host, &port) || !proxy_is_ours(p->owner, host, port)) {
        if (!p->owner->refuse)
            p->owner->mismatch(p->owner->arg, s->authority, true);
        answer_failed(s, 421, "its authority is not the host that this connection was opened to");
        return;
    }
    if (p->owner->refuse) {
        answer_denied(s, p->owner->rule, p->owner->hint);
        return;
    }
    struct proxy_request r = {.id = s->request = ++p->last_request, .version = 2, .method = s->method,
                              .target = s->path, .fields = &s->fields, .override = s->override};
    s->asked = true;
    s->json = proxy_wants_json(&s->fields); /* they go when it is passed on */
    p->owner->request(p->owner->arg, &r);
}

/* ---- what nghttp2 tells ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2proxy *p = arg;
    if (session == p->session[GUEST] && frame->hd.type == NGHTTP2_HEADERS &&
        frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        if (p->nstreams >= STREAMS_KEPT)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* reset */
        struct stream *s = calloc(1, sizeof *s);
        if (!s)
            return NGHTTP2_ERR_NOMEM;
        p->nstreams++;
        s->proxy = p;
        s->id[GUEST] = frame->hd.stream_id;
        headers_init(&s->fields);
        headers_init(&s->q[GUEST].trailers);
        headers_init(&s->q[UP].trailers);
        s->next = p->streams;
        p->streams = s;
        if (!hold(s, sizeof *s)) {
            stream_free(s);
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return 0;
}

static bool is(const uint8_t *name, size_t len, const char *want)
{
    return strlen(want) == len && memcmp(name, want, len) == 0;
}

static bool copy_small(char *out, size_t cap, const uint8_t *value, size_t len)
{
    if (out[0] || len == 0 || len >= cap)
        return false;
    memcpy(out, value, len);
    out[len] = '\0';
    return true;
}

/* Fields that say nothing beyond this connection (RFC 9113 8.2.2; nghttp2 refuses most of them itself). */
static bool is_dropped(const uint8_t *name, size_t len)
{
    return is(name, len, "alt-svc") || is(name, len, "te") || is(name, len, "connection") || is(name, len, "upgrade") ||
           is(name, len, "keep-alive") || is(name, len, "proxy-connection") || is(name, len, "proxy-authorization") ||
           is(name, len, "transfer-encoding") || is(name, len, "http2-settings") || is(name, len, "host");
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t nlen,
                     const uint8_t *value, size_t vlen, uint8_t flags, void *arg)
{
    struct h2proxy *p = arg;
    enum side side = side_of(p, session);
    struct stream *s = find(p, side, frame->hd.stream_id);
    (void)flags;
    if (!s || frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    if (!hold(s, nlen + vlen)) { /* the stream is reset, and what else it says of this is passed over */
        if (side == GUEST)
            p->owner->failed(p->owner->arg, 431, "more header fields than can be held");
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (frame->headers.cat == NGHTTP2_HCAT_HEADERS && (side == GUEST || s->answered)) { /* trailers */
        if (nlen && name[0] != ':' && !is_dropped(name, nlen))
            headers_add(&s->q[side].trailers, (const char *)name, nlen, (const char *)value, vlen);
        return 0;
    }
    if (nlen && name[0] == ':') {
        bool good = true;
        if (is(name, nlen, ":method"))
            good = copy_small(s->method, sizeof s->method, value, vlen);
        else if (is(name, nlen, ":scheme"))
            good = copy_small(s->scheme, sizeof s->scheme, value, vlen);
        else if (is(name, nlen, ":status"))
            good = copy_small(s->status, sizeof s->status, value, vlen);
        else if (is(name, nlen, ":path") && !s->path)
            s->path = strndup((const char *)value, vlen);
        else if (is(name, nlen, ":authority") && !s->authority)
            s->authority = strndup((const char *)value, vlen);
        else
            good = false; /* :protocol and what may come (RFC 8441) */
        s->bad |= !good;
        return 0;
    }
    if (side == GUEST && is(name, nlen, "host")) {
        /* Beside :authority it must say the same; without it, it stands for it. */
        if (!s->authority)
            s->authority = strndup((const char *)value, vlen);
        else
            s->bad |= strlen(s->authority) != vlen || strncasecmp(s->authority, (const char *)value, vlen) != 0;
        return 0;
    }
    /* "te: trailers" is the one value that may travel, and gRPC needs it. */
    bool te = is(name, nlen, "te") && is(value, vlen, "trailers");
    enum http1_field kind = side == GUEST ? http1_field_kind((const char *)name, nlen) : HTTP1_FIELD_OTHER;
    s->override |= kind == HTTP1_FIELD_OVERRIDE;
    s->bad |= kind == HTTP1_FIELD_FRAMING;
    if (!te && is_dropped(name, nlen))
        return 0;
    if (!headers_add(&s->fields, (const char *)name, nlen, (const char *)value, vlen))
        s->bad = true;
    return 0;
}

static void pass_response(struct stream *s, bool end);

/* The answer with the tokens is whole: it goes on with sentinels in it, of the same length. */
static void pass_minted(struct stream *s)
{
    struct queue *q = &s->q[UP];
    bool good = s->proxy->owner->minted(s->proxy->owner->arg, waiting(q), q->len - q->pos);
    s->minting = s->mint = false;
    s->answered = false;
    if (good && s->scrub_set)
        scrub_text(s->scrub_set, (char *)waiting(q), q->len - q->pos);
    if (good)
        pass_response(s, false);
    else {
        explicit_bzero(waiting(q), q->len - q->pos); /* its length stays: the window counts it */
        answer_failed(s, 502, "the server gave out a token in a form that sbx cannot keep from the sandbox");
    }
}

static void pass_response(struct stream *s, bool end)
{
    struct h2proxy *p = s->proxy;
    nghttp2_nv nv[HEADERS_MAX + 1];
    size_t n = 0;
    if (s->bad || !s->status[0]) {
        reset(s, UP, NGHTTP2_PROTOCOL_ERROR);
        answer_failed(s, 502, "the server's answer is malformed");
        return;
    }
    if (s->scrub_set) {
        if (s->status[0] != '1' && !end && !inject_readable(&s->fields)) {
            reset(s, UP, NGHTTP2_CANCEL);
            answer_failed(s, 502, "the server's answer is compressed although it was asked not to be, and cannot be searched for the secret");
            return;
        }
        inject_clean(s->scrub_set, &s->fields);
    }
    if (s->mint && s->status[0] == '2' && !end) {
        if (!inject_readable(&s->fields)) {
            reset(s, UP, NGHTTP2_CANCEL);
            answer_failed(s, 502, "the server's answer is compressed although it was asked not to be, and cannot be searched for tokens");
            return;
        }
        s->minting = s->answered = true;
        return;
    }
    nv[n++] = (nghttp2_nv)NV(":status", s->status);
    for (size_t i = 0; i < s->fields.n; i++)
        nv[n++] = (nghttp2_nv){(uint8_t *)s->fields.v[i].name, (uint8_t *)s->fields.v[i].value, s->fields.v[i].name_len,
                               s->fields.v[i].value_len, NGHTTP2_NV_FLAG_NONE};
    if (s->status[0] == '1') {
        p->informed = true;
        s->informed += s->fields.bytes;
        nghttp2_submit_headers(p->session[GUEST], NGHTTP2_FLAG_NONE, s->id[GUEST], NULL, nv, n, NULL);
    } else {
        nghttp2_data_provider data = {.read_callback = give};
        s->answered = true;
        s->q[UP].end = end;
        nghttp2_submit_response(p->session[GUEST], s->id[GUEST], nv, n, end ? NULL : &data);
    }
    headers_finish(&s->fields);
    s->status[0] = '\0';
}

/* What the server says goes through the scrubber, if the request bore a secret. */
static bool take(struct stream *s, enum side side, const uint8_t *data, size_t len, bool end)
{
    if (side == UP && s->minting)
        return s->q[UP].len - s->q[UP].pos + len <= MINT_BODY_MAX && (len == 0 || queue_add(&s->q[UP], data, len));
    if (side == GUEST || !s->scrub_set)
        return side == GUEST && s->spooling ? spool(s, data, len) : len == 0 || queue_add(&s->q[side], data, len);
    if (!s->scrub && !(s->scrub = scrub_new(s->scrub_set)))
        return false;
    uint8_t *clean = malloc(len + 2 * scrub_set_hold(s->scrub_set));
    if (!clean)
        return false;
    size_t n = len ? scrub_feed(s->scrub, data, len, clean) : 0;
    if (end)
        n += scrub_end(s->scrub, clean + n);
    bool good = n == 0 || queue_add(&s->q[side], clean, n);
    wipe_free(clean);
    return good;
}

static void ended(struct stream *s, enum side side)
{
    if (side == GUEST && s->caught)
        return; /* the server must not take it for whole */
    if (!s->q[side].end && !take(s, side, NULL, 0, true)) {
        reset(s, other(side), NGHTTP2_INTERNAL_ERROR);
        return;
    }
    if (side == UP && s->minting)
        pass_minted(s);
    if (side == UP)
        inject_clean(s->scrub_set, &s->q[UP].trailers);
    s->q[side].end = true;
    if (side == GUEST && s->spooling) {
        s->spooling = false;
        if (s->proxy->gone[UP])
            untouched(s);
        else
            open_upstream(s);
        return;
    }
    wake(s, side);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2proxy *p = arg;
    enum side side = side_of(p, session);
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        p->leaving |= side == UP && !p->gone[UP]; /* what is under way ends; a new request needs a new connection */
        p->gone[side] = true;
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct stream *s = find(p, side, frame->hd.stream_id);
    if (!s)
        return 0;
    bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    p->served |= end && side == UP;
    if (frame->hd.type == NGHTTP2_DATA) {
        if (end)
            ended(s, side);
    } else if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        s->q[GUEST].end = end;
        judge(s);
    } else if (side == UP && !s->answered) {
        pass_response(s, end);
    } else if (end) {
        s->q[side].has_trailers = s->q[side].trailers.n > 0;
        if (side == UP || !s->watch || !caught(s, s->caught ? 0 : sentinels_in_fields(s->watch_set, &s->q[side].trailers)))
            ended(s, side);
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
    struct h2proxy *p = arg;
    enum side side = side_of(p, session);
    struct stream *s = find(p, side, id);
    (void)flags;
    /* Refused, or reset on the other side: the data is nobody's. */
    if (!s || (side == GUEST && ((s->answered && !s->opened) || s->caught)) || s->closed[other(side)]) {
        nghttp2_session_consume(session, id, len);
        return 0;
    }
    if (side == GUEST && s->watch && caught(s, scrub_watch(s->watch, data, len))) {
        nghttp2_session_consume(session, id, len);
        return 0;
    }
    if (!take(s, side, data, len, false)) {
        reset(s, side, NGHTTP2_INTERNAL_ERROR);
        return 0;
    }
    wake(s, side);
    return 0;
}

static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2proxy *p = arg;
    enum side side = side_of(p, session);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct stream *s = find(p, side, frame->hd.stream_id);
    if (!s)
        return 0;
    s->left |= side == UP;
    s->said[side] |= frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (side == GUEST)
        follow(s);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct h2proxy *p = arg;
    enum side side = side_of(p, session), to = other(side);
    struct stream *s = find(p, side, id);
    if (!s)
        return 0;
    s->closed[side] = true;
    /* What was not passed on any more counts as read, or the connection's window would shrink for good. */
    size_t rest = s->q[to].len - s->q[to].pos;
    if (to == UP && s->scrub) {
        rest += scrub_held(s->scrub);
        scrub_free(s->scrub);
        s->scrub = NULL;
    }
    consumed(s, to, rest);
    s->q[to].pos = s->q[to].len;
    if (side == UP && !s->answered && !s->closed[GUEST]) {
        if (code == NGHTTP2_REFUSED_STREAM || (!s->left && p->gone[UP]))
            untouched(s);
        else
            answer_failed(s, 502, "the server gave up the request");
        return 0;
    }
    if (side == UP && (s->refusal || (s->caught && s->answered)) && !s->closed[GUEST])
        return 0; /* refused: the guest reads why */
    if (s->id[to] && !s->closed[to]) {
        if (side == UP)
            server_done(s, code);
        else if (code != NGHTTP2_NO_ERROR || !s->q[UP].end || !owed(s)) /* else both have said all, and the rest of it goes on */
            reset(s, UP, code == NGHTTP2_NO_ERROR ? NGHTTP2_CANCEL : code);
        return 0;
    }
    if (s->closed[GUEST] && (!s->asked || s->judged))
        stream_free(s);
    return 0;
}

/* nghttp2 resets the stream, or ends the connection: nothing is repaired. */
static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code, void *arg)
{
    struct h2proxy *p = arg;
    (void)frame;
    p->owner->failed(p->owner->arg, side_of(p, session) == GUEST ? 400 : 502, nghttp2_strerror(code));
    return 0;
}

static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t nlen,
                             const uint8_t *value, size_t vlen, uint8_t flags, void *arg)
{
    (void)name;
    (void)nlen;
    (void)value;
    (void)vlen;
    (void)flags;
    on_invalid_frame(session, frame, NGHTTP2_ERR_HTTP_HEADER, arg);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* the stream is reset */
}

/* nghttp2 keeps copies of header fields: what it gives back is wiped. */
static void *mem_malloc(size_t n, void *arg)
{
    (void)arg;
    return malloc(n);
}

static void mem_free(void *p, void *arg)
{
    (void)arg;
    wipe_free(p);
}

static void *mem_calloc(size_t n, size_t size, void *arg)
{
    (void)arg;
    return calloc(n, size);
}

static void *mem_realloc(void *p, size_t n, void *arg)
{
    (void)arg;
    return wipe_realloc(p, n);
}

static nghttp2_mem wiping = {NULL, mem_malloc, mem_free, mem_calloc, mem_realloc};

static unsigned nwide; /* of this process, which serves one sandbox */

struct h2proxy *h2proxy_new(struct end *guest, struct end *up, struct proxy_owner *owner)
{
    struct h2proxy *p = calloc(1, sizeof *p);
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *opt = NULL;
    if (!p || nghttp2_session_callbacks_new(&cb) != 0 || nghttp2_option_new(&opt) != 0)
        goto fail;
    p->end[GUEST] = guest;
    p->end[UP] = up;
    p->owner = owner;
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    nghttp2_option_set_max_outbound_ack(opt, OUT_FRAMES_MAX);
    nghttp2_option_set_max_settings(opt, 32);
    nghttp2_option_set_max_send_header_block_length(opt, 2 * H2_HEADER_LIST_MAX);
    const nghttp2_settings_entry server[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_STREAMS_MAX},
                                             {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_WINDOW},
                                             {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADER_LIST_MAX},
                                             {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, 4096}};
    const nghttp2_settings_entry client[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                             {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_WINDOW},
                                             {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, H2_HEADER_LIST_MAX}};
    p->wide = nwide < H2_WIDE_MAX;
    nwide += p->wide;
    int32_t window = p->wide ? (int32_t)H2_CONNECTION_WINDOW : NGHTTP2_INITIAL_CONNECTION_WINDOW_SIZE;
    if (nghttp2_session_server_new2(&p->session[GUEST], cb, p, opt) != 0 ||
        nghttp2_submit_settings(p->session[GUEST], 0, server, sizeof server / sizeof *server) != 0 ||
        nghttp2_session_set_local_window_size(p->session[GUEST], 0, 0, window) != 0)
        goto fail;
    if (up && (nghttp2_session_client_new3(&p->session[UP], cb, p, opt, &wiping) != 0 ||
               nghttp2_submit_settings(p->session[UP], 0, client, sizeof client / sizeof *client) != 0 ||
               nghttp2_session_set_local_window_size(p->session[UP], 0, 0, window) != 0))
        goto fail;
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(opt);
    return p;
fail:
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(opt);
    h2proxy_free(p);
    return NULL;
}

void h2proxy_free(struct h2proxy *p)
{
    if (!p)
        return;
    nwide -= p->wide;
    nghttp2_session_del(p->session[GUEST]);
    nghttp2_session_del(p->session[UP]);
    while (p->streams)
        stream_free(p->streams);
    for (int i = 0; i < 2; i++)
        wipe_free(p->out[i]);
    free(p);
}

bool h2proxy_idle(const struct h2proxy *p)
{
    return !p->streams;
}

int32_t h2proxy_in_head(const struct h2proxy *p)
{
    const struct stream *s = p->streams;
    while (s && (s->asked || s->answered || s->closed[GUEST])) /* whole, it is judged or refused at once */
        s = s->next;
    return s ? s->id[GUEST] : 0;
}

/* ---- bytes ---- */

/* What servers said before their answers is sent. */
static void all_informed(struct h2proxy *p)
{
    p->informed = false;
    for (struct stream *s = p->streams; s; s = s->next) {
        let_go(s, s->informed);
        s->informed = 0;
    }
}

/* Writes what the session has to say; true if something moved. */
static bool write_out(struct h2proxy *p, enum side side)
{
    bool moved = false;
    while (!p->mute[side]) {
        while (p->out_pos[side] < p->out_len[side]) {
            ssize_t n = end_write(p->end[side], p->out[side] + p->out_pos[side], p->out_len[side] - p->out_pos[side]);
            if (n == END_AGAIN)
                return moved;
            if (n < 0 && side == UP) { /* what it said before is still read, and its end */
                p->mute[UP] = true;
                p->out_pos[UP] = p->out_len[UP] = 0;
                return moved;
            }
            if (n < 0) {
                p->broken = true;
                return false;
            }
            p->out_pos[side] += (size_t)n;
            moved = true;
        }
        /* Gathered, so that small frames share a record. */
        p->out_pos[side] = p->out_len[side] = 0;
        while (p->out_len[side] < IN_MAX) {
            const uint8_t *bytes;
            ssize_t n = nghttp2_session_mem_send(p->session[side], &bytes);
            if (n < 0) {
                p->broken = true;
                return false;
            }
            if (n == 0)
                break;
            if (!p->out[side] && !(p->out[side] = malloc(3 * IN_MAX))) {
                p->broken = true;
                return false;
            }
            if ((size_t)n > 3 * IN_MAX - p->out_len[side]) { /* no frame is that long: we allow 16 KiB */
                p->broken = true;
                return false;
            }
            memcpy(p->out[side] + p->out_len[side], bytes, (size_t)n);
            p->out_len[side] += (size_t)n;
        }
        if (p->out_len[side] == 0) {
            if (side == GUEST && p->informed)
                all_informed(p);
            wipe_free(p->out[side]);
            p->out[side] = NULL;
            return moved;
        }
    }
    return moved;
}

static bool read_in(struct h2proxy *p, enum side side)
{
    static uint8_t buf[IN_MAX];
    if (p->eof[side] || end_quiet(p->end[side]))
        return false;
    ssize_t n = end_read(p->end[side], buf, sizeof buf);
    if (n == END_AGAIN)
        return false;
    if (n <= 0) {
        p->eof[side] = true;
        return true;
    }
    ssize_t took = nghttp2_session_mem_recv(p->session[side], buf, (size_t)n);
    explicit_bzero(buf, (size_t)n);
    if (took != n) {
        /* Malformed: the session has queued the frame that says so. */
        if (took < 0)
            p->owner->failed(p->owner->arg, side == GUEST ? 400 : 502, nghttp2_strerror((int)took));
        p->eof[side] = true;
        p->malformed |= side == GUEST;
        nghttp2_session_terminate_session(p->session[side], NGHTTP2_PROTOCOL_ERROR);
    }
    return true;
}

enum proxy_state h2proxy_step(struct h2proxy *p)
{
    bool has_up = p->session[UP] != NULL;
    for (bool moved = true; moved && !p->broken;) {
        moved = false;
        /* A side that does not take what we say is not read either: it cannot make us say more. */
        if (!p->eof[GUEST] || !owes(p)) /* to one that is gone it would end all */
            moved |= write_out(p, GUEST);
        moved |= tell_leaving(p);
        if (has_up && !p->broken)
            moved |= write_out(p, UP);
        if (!p->broken && p->out_len[GUEST] == p->out_pos[GUEST] && !(p->owner->crowded && p->owner->crowded(p->owner->arg)))
            moved |= read_in(p, GUEST);
        if (has_up && !p->broken && p->out_len[UP] == p->out_pos[UP])
            moved |= read_in(p, UP);
        if (p->eof[GUEST] && !owes(p))
            break;
        /* After an error of its own making the session only has its last word to say: nothing more comes from there. */
        if (has_up && !p->broken && !nghttp2_session_want_read(p->session[UP]) && !nghttp2_session_want_write(p->session[UP]))
            p->eof[UP] = true;
        if (has_up && p->eof[UP] && !p->up_over) {
            /* Streams without an answer get one, the others are cut. */
            p->up_over = p->gone[UP] = true;
            for (struct stream *s = p->streams, *next; s; s = next) {
                next = s->next;
                s->closed[UP] = true;
                if (s->closed[GUEST] && (!s->asked || s->judged))
                    stream_free(s);
                else if (s->opened && !s->answered && (!s->left || (p->served && is_safe(s->method))))
                    untouched(s); /* as it is to repeat: the connection was an old one */
                else if (s->opened && !s->answered)
                    answer_failed(s, 502, "the server closed the connection without an answer");
                else if (s->opened && !s->refusal)
                    server_done(s, s->q[UP].end ? NGHTTP2_NO_ERROR : NGHTTP2_INTERNAL_ERROR);
            }
            p->leaving = moved = true;
        }
    }
    if (p->broken)
        return PROXY_BROKEN;
    bool ends = p->eof[GUEST] || (!nghttp2_session_want_read(p->session[GUEST]) && !nghttp2_session_want_write(p->session[GUEST]));
    bool over = (ends && !owes(p)) || (p->gone[UP] && !p->streams);
    return over && p->out_len[GUEST] == p->out_pos[GUEST] ? PROXY_DONE : PROXY_GOING;
}
