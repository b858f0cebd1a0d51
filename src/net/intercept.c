#include "net/intercept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/sanitize.h"
#include "core/urlpath.h"
#include "net/h1proxy.h"
#include "net/h2proxy.h"
#include "net/look.h"
#include "net/mint.h"
#include "net/refusal.h"

enum state {
    HELLO,     /* the first bytes are looked at */
    SECURING,  /* certificate and server handshake are under way */
    ACCEPTING, /* the guest's handshake */
    SERVING,   /* a proxy runs */
    DRAINING,  /* our last answer is out: what still comes is thrown away */
    OVER,
};

struct intercepts {
    struct event_base *base;
    struct asker *asker;
    struct tcp *tcp;
    struct tls *tls;
    struct intercept *list;
    bool trust_asked;
    struct sentinels *sentinels;
    struct look look; /* for the first word of a server */
};

struct intercept {
    struct intercept *next, **link;
    struct intercepts *all;
    struct tcp_conn *conn;
    enum state state;
    struct proxy_owner owner;
    uint32_t id;
    char name[NAME_MAX_LEN + 1], rule[160], hint[192];
    bool plain_too;
    /* the guest's end */
    struct end guest;
    const uint8_t *in; /* what the TCP ring offers at this moment */
    size_t in_len, in_pos;
    bool fin, offered;
    uint8_t *hello;
    size_t hello_len, hello_pos, hello_cap;
    struct clienthello wants;
    /* the server's end */
    struct end up;
    int fd;
    struct event *read_ev, *write_ev;
    bool want_read, want_write, up_ready, up_failed, leaf_asked, leaf_refused;
    struct h1proxy *h1;
    struct h2proxy *h2;
    struct credentials *secrets; /* of the request whose answer comes next */
    int64_t since_ms, moved_ms, head_ms; /* head_ms: since when the head of a request grows, 0: none does */
    size_t head_len; /* of HTTP/1: its bytes so far; of HTTP/2: its stream */
    uint64_t moved; /* bytes of the transports, to see progress */
    bool stepping, again, read_armed, write_armed, resting;
    size_t unread; /* of our last answer */
    bool held_up; /* its requests wait until more can be asked */
    bool to_review; /* the rules have changed since it was asked for what is under way */
    bool waits; /* something went to the server, and nothing came since */
    bool dry; /* the server's socket was found empty, and did not become readable since */
    bool *freed; /* set when we are freed below a call that goes on */
};

struct intercepts *intercepts_new(struct event_base *base, struct asker *asker)
{
    struct intercepts *all = calloc(1, sizeof *all);
    if (all)
        *all = (struct intercepts){.base = base, .asker = asker};
    return all;
}

void intercepts_set_tcp(struct intercepts *all, struct tcp *tcp)
{
    all->tcp = tcp;
}

void intercepts_free(struct intercepts *all)
{
    if (!all)
        return;
    tls_free(all->tls);
    sentinels_free(all->sentinels);
    free(all);
}

/* ---- looking for a server's answer (net/look.h): those on this host speak at once, of the others that is soon known ---- */

static void spoke_to(struct intercept *i)
{
    look_begin(&i->all->look, i->id, !i->waits, clock_us());
    i->waits = true;
}

static void spoke(struct intercept *i)
{
    if (i->waits && i->all->look.who == i->id)
        look_found(&i->all->look, clock_us());
    i->waits = false;
}

bool intercepts_look(struct intercepts *all)
{
    return all->look.on && look_on(&all->look, clock_us());
}

/* ---- transports ---- */

static ssize_t guest_read(void *arg, void *buf, size_t n)
{
    struct intercept *i = arg;
    if (i->hello_pos < i->hello_len) {
        size_t take = i->hello_len - i->hello_pos < n ? i->hello_len - i->hello_pos : n;
        memcpy(buf, i->hello + i->hello_pos, take);
        i->hello_pos += take;
        if (i->hello_pos == i->hello_len) {
            free(i->hello);
            i->hello = NULL;
            i->hello_len = i->hello_pos = i->hello_cap = 0;
        }
        return (ssize_t)take;
    }
    size_t take = i->in_len - i->in_pos < n ? i->in_len - i->in_pos : n;
    if (take == 0)
        return i->fin && i->in_pos == i->in_len ? 0 : END_AGAIN;
    memcpy(buf, i->in + i->in_pos, take);
    i->in_pos += take;
    i->moved += take;
    return (ssize_t)take;
}

static bool guest_empty(void *arg)
{
    const struct intercept *i = arg;
    return i->hello_pos == i->hello_len && i->in_pos == i->in_len && !i->fin;
}

static ssize_t guest_write(void *arg, const void *buf, size_t n)
{
    struct intercept *i = arg;
    size_t put = tcp_write(i->conn, buf, n);
    i->moved += put;
    return put ? (ssize_t)put : END_AGAIN;
}

static void guest_shutdown(void *arg)
{
    tcp_shutdown(((struct intercept *)arg)->conn);
}

static ssize_t up_read(void *arg, void *buf, size_t n)
{
    struct intercept *i = arg;
    ssize_t got = -1;
    errno = EAGAIN;
    if (!i->dry)
        do {
            got = recv(i->fd, buf, n, MSG_DONTWAIT);
        } while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN) {
        i->want_read = true;
        i->dry = true;
        return END_AGAIN;
    }
    i->dry = got > 0 && (size_t)got < n;
    if (got > 0) {
        i->moved += (size_t)got;
        spoke(i);
    }
    return got < 0 ? END_ERROR : got;
}

static bool up_empty(void *arg)
{
    struct intercept *i = arg;
    i->want_read |= i->dry;
    return i->dry;
}

static ssize_t up_write(void *arg, const void *buf, size_t n)
{
    struct intercept *i = arg;
    ssize_t put;
    do {
        put = send(i->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (put < 0 && errno == EINTR);
    if (put < 0 && errno == EAGAIN) {
        i->want_write = true;
        return END_AGAIN;
    }
    if (put > 0) {
        i->moved += (size_t)put;
        spoke_to(i);
    }
    return put > 0 ? put : END_ERROR;
}

static void up_shutdown(void *arg)
{
    shutdown(((struct intercept *)arg)->fd, SHUT_WR);
}

static const struct end_ops guest_ops = {guest_read, guest_write, guest_shutdown, guest_empty};
static const struct end_ops up_ops = {up_read, up_write, up_shutdown, up_empty};

/* ---- judging ---- */

static void judge(void *arg, const struct proxy_request *r)
{
    struct intercept *i = arg;
    struct ask_request ask = {.id = i->id, .kind = ASK_REQUEST, .version = (uint8_t)r->version, .request = r->id,
                              .override = r->override, .again = r->again, .tls = i->owner.tls,
                              .sentinels = sentinels_find(i->all->sentinels, r->target, r->fields), .content = r->content,
                              .bearer = inject_bearer(r->fields)};
    strncpy(ask.method, r->method, ASK_METHOD_MAX);
    if (!urlpath_normalise(r->target, ask.path)) {
        char shown[ASK_PATH_MAX + 1];
        ask.ambiguous = 1;
        urlpath_show(r->target, shown, sizeof shown);
        sanitize_line(ask.path, sizeof ask.path, shown, strlen(shown));
    }
    ask.path_len = (uint16_t)strlen(ask.path);
    asker_send_request(i->all->asker, &ask);
}

static bool crowded(void *arg)
{
    struct intercept *i = arg;
    return i->held_up = asker_crowded(i->all->asker);
}

static bool minted(void *arg, uint8_t *body, size_t n)
{
    static struct ask_mint ask; /* large, and this is one thread */
    struct intercept *i = arg;
    enum mint_result result = n ? mint_read(body, n, &ask) : MINT_PLAIN;
    bool good = result != MINT_BAD;
    ask.id = i->id;
    ask.kind = ASK_MINT;
    if (result == MINT_TAKEN && ask.access[0])
        good = asker_send_mint(i->all->asker, &ask);
    explicit_bzero(&ask, sizeof ask);
    return good;
}

static void tell_mismatch(struct intercept *i, const char *seen, unsigned flags)
{
    struct ask ask = {.id = i->id, .kind = ASK_MISMATCH, .flags = (uint16_t)flags};
    sanitize_line(ask.seen, sizeof ask.seen, seen, strlen(seen));
    asker_send(i->all->asker, &ask);
}

static void mismatch(void *arg, const char *seen, bool one)
{
    tell_mismatch(arg, seen, one ? MISMATCH_ONE : 0);
}

/* A reviewer sees what the guest gets as an answer of ours, also to what was allowed and could not go out; what is denied, or
 * names another host (421), has its own row. */
static void request_failed(void *arg, int status, const char *why)
{
    struct intercept *i = arg;
    char text[256];
    if (status == 421 || i->owner.refuse)
        return;
    bool theirs = status >= 502;
    bool sound = status == 403 || status == 413; /* its credential cannot be written */
    snprintf(text, sizeof text, "%s: %.200s", theirs ? "a request failed" : sound ? "a request was not passed on" : "a request was refused as malformed", why);
    tell_mismatch(i, text, MISMATCH_ONE | MISMATCH_TEXT | (theirs ? MISMATCH_FAIL : 0));
}

static void half_greeting(struct intercept *i)
{
    bool tls = i->hello[0] == CLIENTHELLO_RECORD;
    tell_mismatch(i, tls ? "it sent half a TLS greeting, and no more" : "it speaks no TLS", MISMATCH_TEXT);
}

/* ---- the states ---- */

static void over(struct intercept *i)
{
    i->state = OVER; /* step() resets the connection when nobody looks at us any more */
}

/* An event that is not waited for is left alone until it fires in vain: most of them are wanted again soon. */
static void arm(struct intercept *i)
{
    if (i->fd < 0)
        return;
    if (i->want_read && !i->read_armed)
        i->read_armed = event_add(i->read_ev, NULL) == 0;
    if (i->want_write && !i->write_armed)
        i->write_armed = event_add(i->write_ev, NULL) == 0;
}

static void close_up(struct intercept *i)
{
    if (i->fd < 0)
        return;
    event_del(i->read_ev);
    event_del(i->write_ev);
    i->read_armed = i->write_armed = false;
    shutdown(i->fd, SHUT_RDWR); /* the broker has it, too, until the guest's side is over */
    close(i->fd);
    i->fd = -1;
}

static void drain(struct intercept *i)
{
    i->state = DRAINING;
    i->since_ms = clock_ms();
    end_shutdown(&i->guest);
    close_up(i);
}

static bool keep_hello(struct intercept *i)
{
    size_t n = i->in_len - i->in_pos;
    if (i->hello_len + n > CLIENTHELLO_MAX)
        n = CLIENTHELLO_MAX - i->hello_len;
    if (n == 0)
        return true;
    if (i->hello_len + n > i->hello_cap) {
        uint8_t *more = realloc(i->hello, i->hello_len + n);
        if (!more)
            return false;
        i->hello = more;
        i->hello_cap = i->hello_len + n;
    }
    if (i->hello_len == 0)
        i->since_ms = clock_ms(); /* some connect long before they speak */
    memcpy(i->hello + i->hello_len, i->in + i->in_pos, n);
    i->hello_len += n;
    i->in_pos += n;
    i->moved += n;
    return true;
}

static void serve(struct intercept *i, const char *alpn)
{
    bool two = alpn && strcmp(alpn, "h2") == 0;
    struct end *up = i->owner.refuse ? NULL : &i->up;
    if (two)
        i->h2 = h2proxy_new(&i->guest, up, &i->owner);
    else
        i->h1 = h1proxy_new(&i->guest, up, &i->owner);
    i->state = SERVING;
    if (!i->h1 && !i->h2)
        over(i);
}

static bool step_hello(struct intercept *i)
{
    if (!keep_hello(i)) {
        over(i);
        return false;
    }
    if (i->hello_len == 0) {
        if (i->fin)
            over(i);
        return false;
    }
    switch (clienthello_read(&i->wants, i->hello, i->hello_len)) {
    case CLIENTHELLO_MORE:
        if (i->fin) {
            half_greeting(i);
            over(i);
        }
        return false;
    case CLIENTHELLO_NOT_TLS:
        if (i->plain_too) {
            serve(i, NULL);
            return true;
        }
        tell_mismatch(i, "it speaks no TLS", MISMATCH_TEXT);
        over(i);
        return false;
    case CLIENTHELLO_BAD:
        tell_mismatch(i, "it sent a malformed TLS greeting", MISMATCH_TEXT);
        over(i);
        return false;
    case CLIENTHELLO_DONE:
        break;
    }
    if (!i->wants.has_name || strcmp(i->wants.name, i->name) != 0) {
        if (i->wants.has_name)
            tell_mismatch(i, i->wants.name, 0);
        else
            tell_mismatch(i, "its TLS greeting names no server", MISMATCH_TEXT);
        over(i);
        return false;
    }
    if (!i->all->tls && !(i->all->tls = tls_new())) {
        over(i);
        return false;
    }
    i->owner.tls = true;
    i->state = SECURING;
    return true;
}

/* The certificate, and the server's side of it, at the same time. */
static bool step_securing(struct intercept *i)
{
    struct intercepts *all = i->all;
    if (!tls_has_leaf(all->tls, i->name) && !i->leaf_asked) {
        struct ask_leaf ask = {.id = i->id, .kind = ASK_LEAF};
        memcpy(ask.point, tls_point(all->tls), ASK_POINT_LEN);
        asker_send_leaf(all->asker, &ask);
        i->leaf_asked = true;
    }
    if (!i->owner.refuse && !tls_has_trust(all->tls)) {
        if (!all->trust_asked) {
            struct ask ask = {.kind = ASK_TRUST};
            asker_send(all->asker, &ask);
            all->trust_asked = true;
        }
        return false;
    }
    if (!i->owner.refuse && !i->up_ready && !i->up_failed) {
        if (!i->up.ssl && !end_connect(&i->up, all->tls, i->name, &i->wants)) {
            over(i);
            return false;
        }
        int rc = end_handshake(&i->up);
        if (rc == 0)
            return false;
        i->up_ready = rc > 0;
        i->up_failed = rc < 0;
    }
    if (i->leaf_refused) {
        over(i);
        return false;
    }
    if (!tls_has_leaf(all->tls, i->name))
        return false;
    /* The guest speaks what its server speaks; where there is none, what it likes best. */
    const char *alpn = i->up_ready ? end_alpn(&i->up) : i->wants.offers_http1 ? "http/1.1" : i->wants.offers_h2 ? "h2" : NULL;
    if (!end_serve(&i->guest, all->tls, i->name, alpn)) {
        over(i);
        return false;
    }
    i->state = ACCEPTING;
    return true;
}

static bool step_accepting(struct intercept *i)
{
    int rc = end_handshake(&i->guest);
    if (rc < 0) { /* it does not trust us (threat 56), or is gone */
        const char *alert = end_alert();
        char text[256];
        snprintf(text, sizeof text, "the program ended its TLS with \"%s\": it may trust other certificates than this installation's; a rule for the whole "
                 "host, without methods and paths, passes it untouched", alert ? alert : "");
        if (alert && !i->owner.refuse)
            tell_mismatch(i, text, MISMATCH_TEXT | MISMATCH_FAIL);
        over(i);
    }
    if (rc <= 0)
        return false;
    if (i->up_failed) {
        /* Not the server's fault alone: a wrong certificate is told as what it is. */
        struct refusal r;
        char why[300], text[REFUSAL_MAX + 512];
        snprintf(why, sizeof why, "the certificate or the TLS of %.120s is not accepted: %.100s", i->name, end_why(&i->up));
        refusal_failed(&r, false, 502, why);
        request_failed(i, 502, why);
        size_t n = refusal_http1(&r, false, false, text, sizeof text);
        const char *alpn = end_alpn(&i->guest);
        if (alpn && strcmp(alpn, "h2") == 0)
            over(i);
        else {
            end_write(&i->guest, text, n);
            drain(i);
        }
        return false;
    }
    serve(i, end_alpn(&i->guest));
    return true;
}

static bool step_serving(struct intercept *i)
{
    enum proxy_state s = i->h1 ? h1proxy_step(i->h1) : h2proxy_step(i->h2);
    if (s == PROXY_DONE)
        drain(i);
    else if (s == PROXY_BROKEN)
        over(i);
    return false;
}

static void run(struct intercept *i)
{
    bool more = true;
    i->want_read = i->want_write = false;
    while (more) {
        switch (i->state) {
        case HELLO:
            more = step_hello(i);
            break;
        case SECURING:
            more = step_securing(i);
            break;
        case ACCEPTING:
            more = step_accepting(i);
            break;
        case SERVING:
            more = step_serving(i);
            break;
        default:
            if (i->in_pos < i->in_len)
                i->since_ms = clock_ms();
            i->in_pos = i->in_len; /* thrown away */
            more = false;
        }
    }
}

/* A callback of ours may lead back here (tcp_write may find room): one step at a time.  False: we are freed. */
static bool step(struct intercept *i)
{
    if (i->stepping) {
        i->again = true;
        return true;
    }
    if (i->state == OVER)
        return true;
    uint64_t before = i->moved;
    i->stepping = true;
    tcp_gather(i->conn); /* records are smaller than what the cable takes at once */
    do {
        i->again = false;
        run(i);
    } while (i->again && i->state != OVER);
    tcp_release(i->conn);
    i->stepping = false;
    if (i->moved != before) {
        i->moved_ms = clock_ms();
        i->resting = false;
    }
    if (i->state == OVER) {
        tcp_abort(i->conn); /* `closed` comes at once, which frees us */
        return false;
    }
    arm(i);
    return true;
}

/* Everything but news from the cable: the ring offers its bytes, or there are none. */
static bool step_with_offer(struct intercept *i)
{
    bool freed = false, *outer = i->freed;
    i->freed = &freed;
    i->offered = false;
    tcp_resume(i->conn);
    if (!freed) {
        i->freed = outer;
        if (i->offered || step(i))
            return true;
    }
    if (outer)
        *outer = true;
    return false;
}

void intercept_begin(struct intercept *i, uint8_t *bytes, size_t n)
{
    i->hello = bytes;
    i->hello_len = i->hello_cap = n;
}

size_t intercept_data(struct intercept *i, const uint8_t *buf, size_t len)
{
    if (i->stepping)
        return 0; /* it is being looked at already */
    i->offered = true;
    i->in = buf;
    i->in_len = len;
    i->in_pos = 0;
    if (!step(i))
        return len;
    size_t took = i->in_pos;
    i->in = NULL;
    i->in_len = i->in_pos = 0;
    return took;
}

void intercept_fin(struct intercept *i)
{
    i->fin = true;
    if (i->state == DRAINING)
        return;
    step(i);
}

void intercept_room(struct intercept *i)
{
    step_with_offer(i);
}

static void on_up_readable(evutil_socket_t fd, short what, void *arg)
{
    struct intercept *i = arg;
    (void)fd;
    (void)what;
    struct tcp *tcp = i->all->tcp;
    i->dry = false;
    if (step_with_offer(i) && !i->want_read && i->read_armed) {
        i->read_armed = false;
        event_del(i->read_ev);
    }
    tcp_flush(tcp); /* what was taken makes room */
}

static void on_up_writable(evutil_socket_t fd, short what, void *arg)
{
    struct intercept *i = arg;
    (void)fd;
    (void)what;
    struct tcp *tcp = i->all->tcp;
    if (step_with_offer(i) && !i->want_write && i->write_armed) {
        i->write_armed = false;
        event_del(i->write_ev);
    }
    tcp_flush(tcp);
}

void intercept_answer(struct intercept *i, const struct answer *a)
{
    bool allow = a->verdict == VERDICT_ALLOW;
    struct credentials *secrets = i->secrets;
    i->secrets = NULL;
    if (i->state != SERVING || (secrets && credentials_request(secrets) != a->request)) {
        credentials_free(secrets);
        return;
    }
    struct proxy_verdict v = {.allow = allow, .rule = a->rule, .hint = a->hint, .secrets = secrets, .mint = a->flags & ANSWER_MINT};
    if (a->flags & ANSWER_SIGNED_IN) {
        v.signed_in = sentinels_at(i->all->sentinels, a->error);
        v.allow &= v.signed_in != NULL;
    }
    if (v.allow && !sentinels_watch(i->all->sentinels, a->elsewhere, &v.watch)) {
        v.allow = false;
        v.rule = "sbx, which has no memory to search it";
    }
    if (i->h1)
        h1proxy_answer(i->h1, a->request, &v);
    else
        h2proxy_answer(i->h2, a->request, &v);
    step_with_offer(i);
}

/* Each may have a hundred requests under way. */
static void review(struct intercepts *all)
{
    for (struct intercept *i = all->list; i; i = i->next) {
        if (!i->to_review)
            continue;
        if (asker_crowded(all->asker))
            return;
        i->to_review = false;
        if (i->h1)
            h1proxy_review(i->h1);
        else if (i->h2)
            h2proxy_review(i->h2);
    }
}

void intercept_review(struct intercept *i)
{
    i->to_review = true;
    review(i->all);
}

void intercepts_room(struct intercepts *all)
{
    review(all);
    for (struct intercept *i = all->list, *next; i && !asker_crowded(all->asker); i = next) {
        next = i->next;
        if (i->held_up)
            step_with_offer(i);
    }
}

void intercepts_leaf(struct intercepts *all, const struct answer_leaf *a)
{
    struct intercept *i = all->list, *next;
    while (i && i->id != a->id)
        i = i->next;
    if (!i || !all->tls)
        return;
    char name[NAME_MAX_LEN + 1];
    memcpy(name, i->name, sizeof name);
    bool good = a->verdict == VERDICT_ALLOW && tls_add_leaf(all->tls, name, a->der, a->len);
    i->leaf_refused = !good;
    /* A step frees no one but the connection that it moves. */
    for (i = all->list; i; i = next) {
        next = i->next;
        if (i->state == SECURING && (good ? strcmp(i->name, name) == 0 : i->id == a->id))
            step_with_offer(i);
    }
}

void intercepts_secret(struct intercepts *all, const struct answer_secret *a)
{
    struct intercept *i = all->list;
    while (i && i->id != a->id)
        i = i->next;
    if (!i || i->state != SERVING)
        return;
    if (i->secrets && credentials_request(i->secrets) != a->request) {
        credentials_free(i->secrets);
        i->secrets = NULL;
    }
    if (!credentials_add(&i->secrets, a))
        tcp_abort(i->conn); /* a request without its credential would be another one */
}

void intercepts_sentinel(struct intercepts *all, const struct answer_sentinel *a)
{
    if (!all->sentinels)
        all->sentinels = sentinels_new();
    if (all->sentinels)
        sentinels_set(all->sentinels, a);
}

void intercepts_trust(struct intercepts *all, int fd)
{
    struct intercept *next;
    if (!all->tls || fd < 0) {
        if (fd >= 0)
            close(fd);
        return;
    }
    tls_trust(all->tls, fd);
    for (struct intercept *i = all->list; i; i = next) {
        next = i->next;
        if (i->state == SECURING)
            step_with_offer(i);
    }
}

struct intercept *intercept_new(struct intercepts *all, struct tcp_conn *conn, int fd, const struct intercept_target *t)
{
    struct intercept *i = calloc(1, sizeof *i);
    if (!i) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    i->all = all;
    i->conn = conn;
    i->fd = fd;
    i->id = t->id;
    i->plain_too = t->plain;
    strncpy(i->name, t->name, NAME_MAX_LEN);
    strncpy(i->rule, t->rule ? t->rule : "", sizeof i->rule - 1);
    strncpy(i->hint, t->hint ? t->hint : "", sizeof i->hint - 1);
    i->owner = (struct proxy_owner){.name = i->name, .port = t->port, .refuse = t->refuse, .rule = i->rule, .hint = i->hint,
                                    .request = judge, .mismatch = mismatch, .failed = request_failed, .crowded = crowded, .minted = minted,
                                    .arg = i};
    end_init(&i->guest, &guest_ops, i);
    end_init(&i->up, &up_ops, i);
    i->since_ms = i->moved_ms = clock_ms();
    if (fd >= 0) {
        evutil_make_socket_nonblocking(fd);
        i->read_ev = event_new(all->base, fd, EV_READ | EV_PERSIST, on_up_readable, i);
        i->write_ev = event_new(all->base, fd, EV_WRITE | EV_PERSIST, on_up_writable, i);
    }
    i->next = all->list;
    i->link = &all->list;
    if (i->next)
        i->next->link = &i->next;
    all->list = i;
    if (fd >= 0 && (!i->read_ev || !i->write_ev)) {
        intercept_free(i, true);
        return NULL;
    }
    return i;
}

void intercept_free(struct intercept *i, bool reset)
{
    if (!i)
        return;
    if (i->freed)
        *i->freed = true;
    if (i->waits && i->all->look.who == i->id)
        look_away(&i->all->look);
    if (i->next)
        i->next->link = i->link;
    *i->link = i->next;
    h1proxy_free(i->h1);
    h2proxy_free(i->h2);
    credentials_free(i->secrets);
    end_finish(&i->guest);
    end_finish(&i->up);
    if (i->fd >= 0 && reset) {
        /* What the guest did not end in order must not look so to the server. */
        struct linger hard = {1, 0};
        setsockopt(i->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    if (i->read_ev)
        event_free(i->read_ev);
    if (i->write_ev)
        event_free(i->write_ev);
    if (i->fd >= 0)
        close(i->fd);
    free(i->hello);
    free(i);
}

void intercept_tick(struct intercept *i, int64_t now)
{
    int64_t waited = now - i->since_ms, quiet = now - i->moved_ms;
    bool late = false;
    size_t head;
    switch (i->state) {
    case HELLO:
        late = i->hello_len ? waited > INTERCEPT_HELLO_MS : waited > INTERCEPT_IDLE_MS;
        if (late && i->hello_len)
            half_greeting(i);
        break;
    case SECURING:
    case ACCEPTING:
        late = waited > INTERCEPT_HANDSHAKE_MS;
        break;
    case SERVING:
        if (quiet > INTERCEPT_REST_MS && !i->resting) {
            end_rest(&i->guest);
            end_rest(&i->up);
            i->resting = true;
        }
        head = i->h1 ? h1proxy_in_head(i->h1) : i->held_up ? 0 : (size_t)h2proxy_in_head(i->h2);
        if (!head || (i->h1 ? head < i->head_len : head != i->head_len))
            i->head_ms = 0; /* none, or another one */
        i->head_len = head;
        if (head && !i->head_ms)
            i->head_ms = now;
        if (head) /* the whole of it, however it drips */
            late = now - i->head_ms > INTERCEPT_HEAD_MS;
        if (head && late)
            tell_mismatch(i, "it sent half the head of a request, and no more", MISMATCH_TEXT);
        if (!head)
            late = quiet > ((i->h1 ? h1proxy_idle(i->h1) : h2proxy_idle(i->h2)) ? INTERCEPT_IDLE_MS : INTERCEPT_SILENT_MS);
        break;
    case DRAINING: /* while it reads the answer, or still sends what nobody wants, it is not cut off */
        if (tcp_unread(i->conn) != i->unread)
            i->since_ms = now;
        i->unread = tcp_unread(i->conn);
        late = now - i->since_ms > (i->unread ? INTERCEPT_SILENT_MS : INTERCEPT_HELLO_MS);
        break;
    case OVER:
        return;
    }
    if (late)
        tcp_abort(i->conn);
}

void intercept_bytes(const struct intercept *i, uint64_t *up, uint64_t *down)
{
    *up = i->owner.bytes_up;
    *down = i->owner.bytes_down;
}
