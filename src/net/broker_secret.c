#include "net/broker_secret.h"

#include <jansson.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/secretstore.h"
#include "core/sentinel.h"
#include "core/service.h"

struct held {
    char service[64], form[32];
    json_t *description;
    char *value, *sentinel; /* guarded */
};

/* A token that a secret bought: a registry's for one repository, Copilot's for half an hour. */
struct lent {
    struct held h;
    uint64_t tag;   /* of its sentinel */
    uint64_t buyer; /* tag of the secret's value */
    int64_t until;  /* seconds of CLOCK_BOOTTIME */
};

#define SIGNERS_MAX 32u
#define LENT_MAX 24u
#define LENT_FOR 3600 /* seconds, where the answer did not say */
#define LENT_AT_MOST 86400

struct broker_secrets {
    const char *sandbox;
    struct held v[SENTINELS_MAX];
    unsigned n;
    int64_t renew;
    json_t *signers[SIGNERS_MAX]; /* services that can be signed in to from inside */
    unsigned nsigners;
    struct held pending;          /* taken, and not seen in the store yet */
    struct lent lent[LENT_MAX];   /* oldest first; their sentinels are counted after those of v */
    unsigned nlent;
    unsigned changes;
};

struct broker_secrets *broker_secrets_new(const char *sandbox)
{
    struct broker_secrets *s = calloc(1, sizeof *s);
    if (s) {
        s->sandbox = sandbox;
        s->changes = 1;
    }
    return s;
}

static void forget_one(struct held *h)
{
    json_decref(h->description);
    sodium_free(h->value);
    sodium_free(h->sentinel);
    memset(h, 0, sizeof *h);
}

static void forget(struct broker_secrets *s)
{
    for (unsigned i = 0; i < s->n; i++)
        forget_one(&s->v[i]);
    for (unsigned i = 0; i < s->nsigners; i++)
        json_decref(s->signers[i]);
    s->nsigners = 0;
    memset(s->v, 0, sizeof s->v);
    s->n = 0;
    s->renew = 0;
}

static int64_t now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec;
}

static const struct held *held_of(const struct broker_secrets *s, const char *service)
{
    for (unsigned i = 0; i < s->n; i++)
        if (strcmp(s->v[i].service, service) == 0)
            return &s->v[i];
    return NULL;
}

static void changed(struct broker_secrets *s)
{
    s->changes += s->changes == UINT_MAX ? 2 : 1;
}

static void drop_lent(struct broker_secrets *s, unsigned i)
{
    changed(s);
    forget_one(&s->lent[i].h);
    memmove(&s->lent[i], &s->lent[i + 1], (--s->nlent - i) * sizeof *s->lent);
    memset(&s->lent[s->nlent], 0, sizeof *s->lent);
}

/* What is over, or whose secret went or changed. */
static void drop_stale(struct broker_secrets *s)
{
    for (unsigned i = s->nlent; i-- > 0;) {
        const struct lent *l = &s->lent[i];
        const struct held *h = held_of(s, l->h.service);
        if (l->until <= now_s() || !h || sentinel_tag(h->value, strlen(h->value)) != l->buyer)
            drop_lent(s, i);
    }
}

void broker_secrets_free(struct broker_secrets *s)
{
    if (s) {
        while (s->nlent)
            drop_lent(s, s->nlent - 1);
        forget(s);
        forget_one(&s->pending);
    }
    free(s);
}

static char *guarded(const char *text)
{
    char *copy = sodium_malloc(strlen(text) + 1);
    if (copy)
        strcpy(copy, text);
    return copy;
}

static void load_signers(struct broker_secrets *s)
{
    json_t *names = service_list(), *name;
    size_t i;
    json_array_foreach(names, i, name) {
        json_t *service = s->nsigners < SIGNERS_MAX ? service_load(json_string_value(name), NULL) : NULL;
        if (json_object_get(json_object_get(service, "oauth"), "token"))
            s->signers[s->nsigners++] = service;
        else
            json_decref(service);
    }
    json_decref(names);
}

/* What was taken is held on until the store has it, or something else of that service. */
static void hold_pending(struct broker_secrets *s)
{
    struct held *p = &s->pending;
    bool there = s->n == SENTINELS_MAX;
    if (!p->value)
        return;
    for (unsigned i = 0; i < s->n; i++)
        there |= strcmp(s->v[i].service, p->service) == 0;
    if (there) {
        forget_one(p);
        return;
    }
    struct held *h = &s->v[s->n];
    *h = *p;
    json_incref(h->description);
    h->value = guarded(p->value);
    h->sentinel = guarded(p->sentinel);
    if (h->value && h->sentinel)
        s->n++;
    else
        forget_one(h);
}

int broker_secrets_load(struct broker_secrets *s, struct err *e)
{
    int rc = 0;
    struct secretstore *store = secretstore_open(NULL, NULL, e);
    if (!store && s->nsigners == 0)
        load_signers(s);
    if (!store) /* What was held stays: without it the guest's own credentials would pass where ours belong. */
        return -1;
    changed(s);
    forget(s);
    load_signers(s);
    for (size_t i = 0; i < secretstore_count(store) && s->n < SENTINELS_MAX; i++) {
        const struct secret *r = secretstore_at(store, i);
        /* A sandbox's own wins over the global one. */
        if (secretstore_find(store, r->service, s->sandbox) != r)
            continue;
        json_t *description = service_load(r->service, e);
        if (!description) {
            rc = -1;
            continue;
        }
        struct held *h = &s->v[s->n];
        snprintf(h->service, sizeof h->service, "%.63s", r->service);
        snprintf(h->form, sizeof h->form, "%.31s", r->form);
        int64_t renew = secret_renew_at(r);
        if (renew && (!s->renew || renew < s->renew))
            s->renew = renew;
        h->description = description;
        h->value = guarded(r->value);
        h->sentinel = guarded(r->sentinel);
        s->n++;
        if (!h->value || !h->sentinel)
            rc = err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
    }
    secretstore_free(store);
    if (rc < 0 && s->n && !s->v[s->n - 1].sentinel)
        forget(s);
    hold_pending(s);
    drop_stale(s);
    return rc;
}

const char *broker_secrets_value(const struct broker_secrets *s, const char *service)
{
    for (unsigned i = 0; i < s->n; i++)
        if (strcmp(s->v[i].service, service) == 0)
            return s->v[i].value;
    return NULL;
}

enum broker_sign_in broker_secrets_sign_in(const struct broker_secrets *s, const char *host, uint16_t port, const char *path,
                                           const char **service, unsigned *index)
{
    for (unsigned k = 0; k < s->nsigners; k++) {
        const json_t *d = s->signers[k];
        if (path ? !service_gives_tokens(d, host, port, path) : !service_signs_in_at(d, host, port))
            continue;
        *service = json_string_value(json_object_get(d, "name"));
        if (!path)
            return SIGN_IN_OTHER;
        for (unsigned i = 0; i < s->n; i++)
            if (strcmp(s->v[i].service, *service) == 0) {
                *index = i;
                return strcmp(s->v[i].form, service_sign_in_form(d)) == 0 ? SIGN_IN_HELD : SIGN_IN_OTHER;
            }
        return SIGN_IN_TAKE;
    }
    return SIGN_IN_NONE;
}

char *broker_secrets_take(struct broker_secrets *s, const char *service, const struct ask_mint *m)
{
    const size_t cap = 3 * SECRET_VALUE_MAX + 256;
    const json_t *d = NULL;
    for (unsigned k = 0; k < s->nsigners; k++)
        if (strcmp(json_string_value(json_object_get(s->signers[k], "name")), service) == 0)
            d = s->signers[k];
    if (!d || m->access[SECRET_VALUE_MAX] || m->sentinel[SECRET_VALUE_MAX] || m->refresh[SECRET_VALUE_MAX] ||
        service_check_value(m->access, NULL) < 0 || service_check_value(m->sentinel, NULL) < 0 ||
        (m->refresh[0] && service_check_value(m->refresh, NULL) < 0) || strlen(m->access) != strlen(m->sentinel) ||
        strcmp(m->access, m->sentinel) == 0 || s->n == SENTINELS_MAX)
        return NULL;
    for (unsigned i = 0; i < s->n; i++) /* net makes sentinels here: none may stand for, or hold, another secret */
        if (strcmp(s->v[i].service, service) == 0 || strstr(m->sentinel, s->v[i].sentinel) || strstr(s->v[i].sentinel, m->sentinel) ||
            strstr(m->sentinel, s->v[i].value))
            return NULL;
    struct held *p = &s->pending;
    forget_one(p);
    snprintf(p->service, sizeof p->service, "%.63s", service);
    snprintf(p->form, sizeof p->form, "%.31s", service_sign_in_form(d));
    p->description = json_incref((json_t *)d);
    p->value = guarded(m->access);
    p->sentinel = guarded(m->sentinel);
    char *line = sodium_malloc(cap);
    if (!p->value || !p->sentinel || !line) {
        sodium_free(line);
        forget_one(p);
        return NULL;
    }
    changed(s);
    snprintf(line, cap, "%s %s %s %s %s %u\n", p->service, p->form, m->access, m->sentinel, m->refresh[0] ? m->refresh : "-", m->expires_in);
    hold_pending(s);
    return line;
}

const char *broker_secrets_lends(const struct broker_secrets *s, const char *host, uint16_t port, const char *path, bool ambiguous)
{
    struct service_write w;
    for (unsigned i = 0; i < s->n; i++)
        if (service_lends(s->v[i].description, host, port, path, ambiguous) &&
            service_writes(s->v[i].description, s->v[i].form, host, port, NULL, &w))
            return s->v[i].service;
    return NULL;
}

bool broker_secrets_lends_by(const struct broker_secrets *s, const char *service, const char *host, uint16_t port, const char *method)
{
    const struct held *h = held_of(s, service);
    return !h || service_lends_by(h->description, host, port, method);
}

bool broker_secrets_lend(struct broker_secrets *s, const char *service, const struct ask_mint *m)
{
    const struct held *buyer = held_of(s, service);
    if (!buyer || m->access[SECRET_VALUE_MAX] || m->sentinel[SECRET_VALUE_MAX] || service_check_value(m->access, NULL) < 0 ||
        service_check_value(m->sentinel, NULL) < 0 || strlen(m->access) != strlen(m->sentinel) || strcmp(m->access, m->sentinel) == 0)
        return false;
    drop_stale(s);
    for (unsigned i = 0; i < s->n; i++) /* as in broker_secrets_take */
        if (strstr(m->sentinel, s->v[i].sentinel) || strstr(s->v[i].sentinel, m->sentinel) || strstr(m->sentinel, s->v[i].value))
            return false;
    for (unsigned i = 0; i < s->nlent; i++)
        if (strstr(m->sentinel, s->lent[i].h.sentinel) || strstr(s->lent[i].h.sentinel, m->sentinel))
            return false;
    if (s->nlent == LENT_MAX)
        drop_lent(s, 0);
    struct lent *l = &s->lent[s->nlent];
    snprintf(l->h.service, sizeof l->h.service, "%.63s", buyer->service);
    l->h.description = json_incref(buyer->description);
    l->h.value = guarded(m->access);
    l->h.sentinel = guarded(m->sentinel);
    l->tag = sentinel_tag(m->sentinel, strlen(m->sentinel));
    l->buyer = sentinel_tag(buyer->value, strlen(buyer->value));
    l->until = now_s() + (m->expires_in == 0 ? LENT_FOR : m->expires_in < LENT_AT_MOST ? m->expires_in : LENT_AT_MOST);
    if (!l->h.value || !l->h.sentinel) {
        forget_one(&l->h);
        return false;
    }
    s->nlent++;
    changed(s);
    return true;
}

bool broker_secrets_wants(const struct broker_secrets *s, const char *host, uint16_t port)
{
    struct service_write w;
    for (unsigned i = 0; i < s->n; i++)
        if (service_writes(s->v[i].description, s->v[i].form, host, port, NULL, &w) ||
            service_lends_at(s->v[i].description, host, port) || service_spends(s->v[i].description, host, port, &w))
            return true;
    for (unsigned k = 0; k < s->nsigners; k++)
        if (service_signs_in_at(s->signers[k], host, port))
            return true;
    return false;
}

static bool fill(const struct held *h, const struct service_write *w, struct answer_secret *out)
{
    size_t n = strlen(h->value), m = strlen(h->sentinel);
    memset(out, 0, sizeof *out);
    if (n > SECRET_VALUE_MAX || m > SECRET_VALUE_MAX)
        return false;
    out->kind = ANSWER_SECRET;
    out->placeholder = w->placeholder;
    out->sigv4 = w->kind == SERVICE_SIGV4;
    snprintf(out->service, sizeof out->service, "%s", h->service);
    snprintf(out->header, sizeof out->header, "%s", w->header);
    snprintf(out->strip, sizeof out->strip, "%s", w->strip);
    snprintf(out->strip_query, sizeof out->strip_query, "%s", w->strip_query);
    memcpy(out->value, h->value, n);
    memcpy(out->sentinel, h->sentinel, m);
    return out->sigv4 || service_render(w, h->value, out->written, sizeof out->written) == 0;
}

static const struct lent *find_lent(const struct broker_secrets *s, const char *host, uint16_t port, uint64_t bearer,
                                    struct service_write *w)
{
    for (unsigned i = 0; bearer && i < s->nlent; i++)
        if (s->lent[i].tag == bearer && s->lent[i].until > now_s() && service_spends(s->lent[i].h.description, host, port, w))
            return &s->lent[i];
    return NULL;
}

bool broker_secrets_for(const struct broker_secrets *s, const char *host, uint16_t port, const char *path, uint64_t bearer,
                        unsigned want, struct answer_secret *out, const char **service)
{
    struct service_write w;
    unsigned nth = 0;
    const struct lent *l = find_lent(s, host, port, bearer, &w);
    if (l && nth++ == want) {
        *service = l->h.service;
        return fill(&l->h, &w, out);
    }
    for (unsigned i = 0; i < s->n && nth < SECRETS_PER_REQUEST; i++) {
        const struct held *h = &s->v[i];
        bool ours = service_writes(h->description, h->form, host, port, path, &w);
        /* Where only what was lent belongs, nothing of the guest's own goes in its place. */
        bool bare = !ours && !l && service_spends(h->description, host, port, &w) &&
                    !service_writes(h->description, h->form, host, port, NULL, &(struct service_write){0});
        if ((!ours && !bare) || (l && strcmp(w.header, "authorization") == 0) || nth++ != want)
            continue;
        if (bare) {
            static char empty[1];
            static const struct held none = {.value = empty, .sentinel = empty};
            *service = h->service;
            snprintf(w.format, sizeof w.format, "%s", "{}");
            return fill(&none, &w, out);
        }
        *service = h->service;
        return fill(h, &w, out);
    }
    return false;
}

static void add_variables(json_t *env, const struct held *h, const json_t *names, bool parts)
{
    size_t i;
    json_t *name;
    const char *at = h->sentinel;
    json_array_foreach(names, i, name) {
        /* "ID:KEY:TOKEN": a part for each variable. */
        size_t n = parts ? strcspn(at, ":") : strlen(at);
        if (n)
            json_object_set_new(env, json_string_value(name), json_stringn(at, n));
        if (parts)
            at += n + (at[n] == ':');
    }
}

json_t *broker_secrets_env(const struct broker_secrets *s)
{
    json_t *env = json_object();
    for (unsigned i = 0; i < s->n; i++) {
        const json_t *form = service_form(s->v[i].description, s->v[i].form);
        const char *kind = json_string_value(json_object_get(json_array_get(json_object_get(form, "write"), 0), "kind"));
        add_variables(env, &s->v[i], json_object_get(form, "env"), kind && strcmp(kind, "sigv4") == 0);
    }
    return env;
}

int64_t broker_secrets_renew(const struct broker_secrets *s)
{
    return s->renew;
}

const char *broker_secrets_misplaced(const struct broker_secrets *s, uint64_t sentinels, const char *host, uint16_t port, bool tls)
{
    struct service_write w;
    for (unsigned i = 0; i < s->n; i++)
        if (sentinels >> i & 1 && (!tls || !service_writes(s->v[i].description, s->v[i].form, host, port, NULL, &w)))
            return s->v[i].service;
    for (unsigned i = 0; i < s->nlent && s->n + i < SENTINELS_MAX; i++) {
        const struct held *h = &s->lent[i].h;
        const struct held *buyer = held_of(s, h->service);
        if (sentinels >> (s->n + i) & 1 && (!tls || !(service_spends(h->description, host, port, &w) ||
                                                     (buyer && service_writes(h->description, buyer->form, host, port, NULL, &w)))))
            return h->service;
    }
    return NULL;
}

unsigned broker_secrets_changes(const struct broker_secrets *s)
{
    return s->changes;
}

uint64_t broker_secrets_elsewhere(const struct broker_secrets *s, const char *host, uint16_t port, bool tls)
{
    struct service_write w;
    uint64_t bits = 0;
    for (unsigned i = 0; i < broker_secrets_sentinels(s); i++) {
        const struct held *h = i < s->n ? &s->v[i] : &s->lent[i - s->n].h;
        const struct held *of = i < s->n ? h : held_of(s, h->service);
        bool ours = tls && (service_lends_at(h->description, host, port) || service_spends(h->description, host, port, &w) ||
                            service_signs_in_at(h->description, host, port) ||
                            (of && service_writes(h->description, of->form, host, port, NULL, &w)));
        bits |= (uint64_t)!ours << i;
    }
    return bits;
}

const char *broker_secrets_tagged(const struct broker_secrets *s, uint64_t tag, char *variables, size_t cap)
{
    variables[0] = '\0';
    for (unsigned i = 0; i < s->n + s->nlent; i++) {
        const struct held *h = i < s->n ? &s->v[i] : &s->lent[i - s->n].h;
        if (sentinel_tag(h->sentinel, strlen(h->sentinel)) != tag)
            continue;
        const json_t *names = i < s->n ? json_object_get(service_form(h->description, h->form), "env") : NULL, *name;
        size_t k;
        json_array_foreach(names, k, name) {
            size_t n = strlen(variables), more = json_string_length(name) + (n ? 2 : 0);
            if (n + more < cap)
                snprintf(variables + n, cap - n, "%s%s", n ? ", " : "", json_string_value(name));
        }
        return h->service;
    }
    return NULL;
}

unsigned broker_secrets_sentinels(const struct broker_secrets *s)
{
    return s->n + s->nlent < SENTINELS_MAX ? s->n + s->nlent : SENTINELS_MAX;
}

bool broker_secrets_sentinel(const struct broker_secrets *s, unsigned i, struct answer_sentinel *out)
{
    memset(out, 0, sizeof *out);
    out->kind = ANSWER_SENTINEL;
    out->id = i;
    if (i >= broker_secrets_sentinels(s)) {
        out->none = 1;
        return false;
    }
    snprintf(out->sentinel, sizeof out->sentinel, "%s", i < s->n ? s->v[i].sentinel : s->lent[i - s->n].h.sentinel);
    return true;
}
