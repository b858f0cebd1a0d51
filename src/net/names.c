#include "net/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/clock.h"

#define CACHE 256u
#define CACHE_MS 1000 /* rules are live within a second */

struct waiting {
    bool used;
    uint32_t id;
    struct dns_query q;
    struct names_return back;
};

struct cached {
    char name[NAME_MAX_LEN + 1];
    int64_t until_ms;
    bool allowed;
};

struct names {
    struct asker *asker;
    struct fakeip *fake;
    struct waiting wait[NAMES_PENDING_MAX];
    struct cached cache[CACHE];
    uint32_t last_id;
    double tokens;
    int64_t filled_ms;
    struct names_stats stats;
};

struct names *names_new(struct event_base *base, struct asker *asker, struct fakeip *fake)
{
    struct names *n = calloc(1, sizeof *n);
    (void)base;
    if (n) {
        n->asker = asker;
        n->fake = fake;
        n->tokens = NAMES_BURST;
        n->filled_ms = clock_ms();
        n->last_id = 0x80000000u; /* connections count from below */
    }
    return n;
}

void names_free(struct names *n)
{
    free(n);
}

const struct names_stats *names_stats(const struct names *n)
{
    return &n->stats;
}

void names_target(const struct fakeip *fake, const struct ip_addr *addr, uint16_t port, struct ask_target *out)
{
    memset(out, 0, sizeof *out);
    const char *name = fakeip_name(fake, addr);
    out->port = port;
    if (name) {
        out->kind = TARGET_NAME;
        out->name_len = (uint8_t)strlen(name);
        memcpy(out->name, name, out->name_len);
    } else {
        out->kind = addr->family == 4 ? TARGET_IP4 : TARGET_IP6;
        memcpy(out->addr, addr->a, addr->family == 4 ? 4 : 16);
    }
}

static void reply(const struct dns_query *q, int rcode, const struct ip_addr *addr, const char *name,
                  const struct names_return *back)
{
    uint8_t out[DNS_ANSWER_MAX];
    size_t len = dns_write(out, q, rcode, addr, name);
    back->send(out, len, (void *)back);
}

static void reply_verdict(struct names *n, const struct dns_query *q, bool allowed, const struct names_return *back)
{
    struct ip_addr addr;
    if (!allowed) {
        n->stats.nxdomain++;
        reply(q, DNS_NXDOMAIN, NULL, NULL, back);
    } else if (!fakeip_of(n->fake, q->name, q->type == DNS_A ? 4 : 6, &addr)) {
        reply(q, DNS_SERVFAIL, NULL, NULL, back);
    } else {
        reply(q, DNS_NOERROR, &addr, NULL, back);
    }
}

static struct cached *slot(struct names *n, const char *name)
{
    uint32_t h = 2166136261u;
    for (const char *p = name; *p; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    return &n->cache[(h ^ h >> 16) % CACHE];
}

static bool take_token(struct names *n)
{
    int64_t now = clock_ms();
    n->tokens += (double)(now - n->filled_ms) * NAMES_RATE / 1000.0;
    n->filled_ms = now;
    if (n->tokens > NAMES_BURST)
        n->tokens = NAMES_BURST;
    if (n->tokens < 1)
        return false;
    n->tokens -= 1;
    return true;
}

void names_query(struct names *n, const uint8_t *msg, size_t len, const struct names_return *back)
{
    struct dns_query q;
    int rc = dns_read(&q, msg, len);
    n->stats.queries++;
    if (rc != DNS_NOERROR) {
        n->stats.malformed++;
        if (rc > 0)
            reply(&q, rc, NULL, NULL, back);
        return;
    }
    if (!q.valid) {
        reply(&q, DNS_NXDOMAIN, NULL, NULL, back);
        return;
    }
    if (q.is_reverse) {
        const char *name = fakeip_name(n->fake, &q.addr);
        reply(&q, name ? DNS_NOERROR : DNS_NXDOMAIN, NULL, name, back);
        return;
    }
    if (q.type != DNS_A && q.type != DNS_AAAA) {
        reply(&q, DNS_NOERROR, NULL, NULL, back);
        return;
    }
    struct cached *c = slot(n, q.name);
    if (c->until_ms > clock_ms() && strcmp(c->name, q.name) == 0) {
        reply_verdict(n, &q, c->allowed, back);
        return;
    }
    struct waiting *w = NULL;
    for (unsigned i = 0; i < NAMES_PENDING_MAX && !w; i++)
        if (!n->wait[i].used)
            w = &n->wait[i];
    if (!w || !take_token(n)) {
        n->stats.limited++;
        reply(&q, DNS_SERVFAIL, NULL, NULL, back);
        return;
    }
    if (++n->last_id < 0x80000000u)
        n->last_id = 0x80000000u;
    *w = (struct waiting){.used = true, .id = n->last_id, .q = q, .back = *back};
    struct ask ask = {.id = w->id, .kind = ASK_NAME, .proto = PROTO_DNS};
    ask.target.kind = TARGET_NAME;
    ask.target.name_len = (uint8_t)strlen(q.name);
    memcpy(ask.target.name, q.name, ask.target.name_len);
    asker_send(n->asker, &ask);
}

void names_answer(struct names *n, const struct answer *a)
{
    for (unsigned i = 0; i < NAMES_PENDING_MAX; i++) {
        struct waiting *w = &n->wait[i];
        if (!w->used || w->id != a->id)
            continue;
        bool allowed = a->verdict == VERDICT_ALLOW;
        struct cached *c = slot(n, w->q.name);
        memcpy(c->name, w->q.name, sizeof c->name);
        c->allowed = allowed;
        c->until_ms = clock_ms() + CACHE_MS;
        w->used = false;
        reply_verdict(n, &w->q, allowed, &w->back);
        return;
    }
}
