#include "net/inject.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/sentinel.h"
#include "net/sigv4.h"

struct credential {
    bool placeholder, sigv4;
    char header[64], strip[256], strip_query[64];
    char *written, *value, *sentinel;
};

struct credentials {
    uint32_t request;
    unsigned n;
    struct credential v[SECRETS_PER_REQUEST];
    struct scrub_set *scrub;
};

static void wipe(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

static void copy_text(char *out, size_t cap, const char *in)
{
    size_t n = strnlen(in, cap - 1);
    memcpy(out, in, n);
    out[n] = '\0';
}

bool credentials_add(struct credentials **at, const struct answer_secret *a)
{
    struct credentials *c = *at;
    if (!c && !(c = *at = calloc(1, sizeof *c)))
        return false;
    if (c->n == SECRETS_PER_REQUEST)
        return false;
    c->request = a->request;
    struct credential *k = &c->v[c->n];
    k->placeholder = a->placeholder;
    k->sigv4 = a->sigv4;
    copy_text(k->header, sizeof k->header, a->header);
    copy_text(k->strip, sizeof k->strip, a->strip);
    copy_text(k->strip_query, sizeof k->strip_query, a->strip_query);
    k->written = strndup(a->written, sizeof a->written);
    k->value = strndup(a->value, sizeof a->value);
    k->sentinel = strndup(a->sentinel, sizeof a->sentinel);
    c->n++; /* what there is of it is freed with the rest */
    return k->written && k->value && k->sentinel;
}

void credentials_free(struct credentials *c)
{
    if (!c)
        return;
    for (unsigned i = 0; i < c->n; i++) {
        wipe(c->v[i].written);
        wipe(c->v[i].value);
        free(c->v[i].sentinel);
    }
    scrub_set_unref(c->scrub);
    explicit_bzero(c, sizeof *c);
    free(c);
}

uint32_t credentials_request(const struct credentials *c)
{
    return c->request;
}

/* A sentinel that is older than the value may have another length; what replaces the value has its. */
static bool add_stretched(struct scrub_set *set, const char *value, const char *sentinel)
{
    size_t n = strlen(value), m = strlen(sentinel);
    char *with = m ? malloc(n + 1) : NULL;
    if (!with)
        return false;
    for (size_t i = 0; i < n; i++)
        with[i] = sentinel[i < m ? i : m - 1 - i % (m < 8 ? m : 8)];
    with[n] = '\0';
    bool good = scrub_set_add(set, value, with);
    free(with);
    return good;
}

/* What in a value is secret: all of it, but of "ID:KEY:TOKEN" each part. */
static bool add_needles(struct scrub_set *set, const struct credential *k)
{
    if (!k->written[0] && !k->sigv4)
        return true;
    if (!k->sigv4) {
        /* Of Basic's "USER:PASSWORD" the password alone, too. */
        const char *v = strncmp(k->written, "Basic ", 6) == 0 ? strchr(k->value, ':') : NULL, *s = v ? strchr(k->sentinel, ':') : NULL;
        if (s && strlen(v + 1) >= 8 && s[1] && !add_stretched(set, v + 1, s + 1))
            return false;
        return add_stretched(set, k->value, k->sentinel);
    }
    const char *v = strchr(k->value, ':'), *s = strchr(k->sentinel, ':');
    bool any = false;
    while (v && s) {
        v++;
        s++;
        size_t n = strcspn(v, ":");
        char *one = strndup(v, n), *other = strndup(s, n);
        any |= one && other && add_stretched(set, one, other);
        wipe(one);
        free(other);
        v = strchr(v, ':');
        s = strchr(s, ':');
    }
    return any;
}

struct scrub_set *credentials_scrub(struct credentials *c)
{
    if (c->scrub)
        return c->scrub;
    struct scrub_set *set = scrub_set_new();
    bool good = set != NULL;
    bool any = false;
    for (unsigned i = 0; good && i < c->n; i++) {
        good = add_needles(set, &c->v[i]);
        any |= c->v[i].value[0] != '\0';
    }
    if (good && !any) { /* nothing was written, so nothing can come back: a needle that nobody knows */
        char one[33], other[33];
        for (size_t i = 0; i < sizeof one - 1; i++) {
            one[i] = (char)('a' + randombytes_uniform(26));
            other[i] = (char)('a' + randombytes_uniform(26));
        }
        one[32] = other[32] = '\0';
        good = scrub_set_add(set, one, other);
    }
    if (!good || !scrub_set_ready(set)) {
        scrub_set_unref(set);
        return NULL;
    }
    return c->scrub = set;
}

bool credentials_owns(const struct credentials *c, const struct header *h)
{
    for (unsigned i = 0; c && i < c->n; i++)
        if (header_is(h, c->v[i].header) || (c->v[i].sigv4 && header_is(h, "x-amz-security-token")))
            return true;
    return false;
}

/* ---- writing ---- */

static void strip_fields(struct headers *h, const char *names)
{
    while (*names) {
        size_t n = strcspn(names, ",");
        char one[64];
        if (n && n < sizeof one) {
            memcpy(one, names, n);
            one[n] = '\0';
            headers_remove(h, one);
        }
        names += n + (names[n] == ',');
    }
}

/* A parameter's name as a server may read it: percent-decoded. */
static bool is_parameter(const char *p, size_t n, const char *names)
{
    char name[64];
    size_t len = 0;
    for (size_t i = 0; i < n && len < sizeof name - 1; i++) {
        unsigned value;
        if (p[i] == '%' && i + 2 < n && sscanf(p + i + 1, "%2x", &value) == 1) {
            name[len++] = (char)value;
            i += 2;
        } else
            name[len++] = p[i];
    }
    name[len] = '\0';
    while (*names) {
        size_t k = strcspn(names, ",");
        if (k == len && strncasecmp(names, name, k) == 0)
            return true;
        names += k + (names[k] == ',');
    }
    return false;
}

static void strip_query(char *target, const char *names)
{
    char *q = strchr(target, '?');
    if (!q || !names[0])
        return;
    char *out = q + 1;
    for (char *p = q + 1; *p;) {
        size_t n = strcspn(p, "&;"), name = strcspn(p, "=&;");
        char *next = p + n + (p[n] != '\0');
        if (!is_parameter(p, name < n ? name : n, names)) {
            if (out > q + 1)
                *out++ = '&';
            memmove(out, p, n);
            out += n;
        }
        p = next;
    }
    if (out == q + 1)
        out = q;
    *out = '\0';
}

/* text[0..n) with every `from` as `to`; malloc'ed, NUL-terminated.  NULL: it is not in there (or no memory). */
static char *substitute(const char *text, size_t n, const char *from, const char *to, size_t *out_len)
{
    size_t fl = strlen(from), tl = strlen(to), count = 0, len = 0;
    for (const char *p = text; (p = memmem(p, n - (size_t)(p - text), from, fl)); p += fl)
        count++;
    char *out = count && n + count * tl <= 4 * SECRET_VALUE_MAX ? calloc(1, n + count * tl + 1) : NULL;
    if (!out)
        return NULL;
    for (size_t at = 0; at < n;) {
        if (n - at >= fl && memcmp(text + at, from, fl) == 0) {
            memcpy(out + len, to, tl);
            len += tl;
            at += fl;
        } else
            out[len++] = text[at++];
    }
    *out_len = len;
    return out;
}

/* The sentinel in one field becomes the value: plain, or inside of Basic's Base64. */
static void replace_in(struct headers *h, size_t i, const struct credential *k)
{
    struct header *f = &h->v[i];
    size_t n = 0, len = 0;
    char *fresh = substitute(f->value, f->value_len, k->sentinel, k->value, &len);
    if (!fresh && strncasecmp(f->value, "basic ", 6) == 0 && f->value_len <= SECRET_VALUE_MAX) {
        char *plain = calloc(1, f->value_len + 1), *inner = NULL;
        if (plain && sodium_base642bin((unsigned char *)plain, f->value_len, f->value + 6, f->value_len - 6, NULL, &n, NULL,
                                       sodium_base64_VARIANT_ORIGINAL) == 0)
            inner = substitute(plain, n, k->sentinel, k->value, &len);
        size_t cap = inner ? 6 + sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL) : 0;
        if (inner && (fresh = malloc(cap))) {
            memcpy(fresh, "Basic ", 6);
            sodium_bin2base64(fresh + 6, cap - 6, (unsigned char *)inner, len, sodium_base64_VARIANT_ORIGINAL);
            len = strlen(fresh);
        }
        wipe(inner);
        free(plain);
    }
    if (fresh)
        headers_replace(h, i, fresh, len);
    wipe(fresh);
}

void inject_trailers(const struct credentials *c, struct headers *h)
{
    for (unsigned i = 0; c && i < c->n; i++) {
        headers_remove(h, c->v[i].header);
        strip_fields(h, c->v[i].strip);
    }
}

uint64_t inject_bearer(const struct headers *h)
{
    const struct header *f = headers_count(h, "authorization") == 1 ? headers_get(h, "authorization") : NULL;
    const char *word = f ? memrchr(f->value, ' ', f->value_len) : NULL;
    return word ? sentinel_tag(word + 1, f->value_len - (size_t)(word + 1 - f->value)) : 0;
}

bool inject_wants_content(const struct credentials *c, const struct headers *h)
{
    for (unsigned i = 0; c && i < c->n; i++)
        if (c->v[i].sigv4 && !headers_count(h, "x-amz-content-sha256"))
            return true;
    return false;
}

#define PROTOCOL_MAX 32 /* bytes of a subprotocol's name; longer ones carry keys: "openai-insecure-api-key.sk-..." */

/* Clients that can set no header put their credential among the subprotocols that they offer. */
static bool strip_protocols(struct headers *h)
{
    bool good = true, none = false;
    for (size_t i = 0; i < h->n && good; i++) {
        struct header *f = &h->v[i];
        if (!header_is(f, "sec-websocket-protocol"))
            continue;
        char *out = malloc(f->value_len + 1);
        size_t n = 0;
        for (const char *p = f->value; out && *p;) {
            p += strspn(p, " \t,");
            size_t len = strcspn(p, " \t,");
            if (len && len <= PROTOCOL_MAX) {
                if (n)
                    out[n++] = ',';
                memcpy(out + n, p, len);
                n += len;
            }
            p += len;
        }
        none |= n == 0;
        good = out && headers_replace(h, i, out, n);
        free(out);
    }
    if (none)
        headers_remove(h, "sec-websocket-protocol");
    return good;
}

bool inject_write(const struct credentials *c, bool tls, const char *method, const char *host, char **target,
                  struct headers *h, const char *payload, const char **why)
{
    if (!c || !tls)
        return true;
    for (unsigned i = 0; i < c->n; i++) {
        const struct credential *k = &c->v[i];
        if (k->placeholder) {
            for (size_t f = 0; f < h->n; f++)
                if (header_is(&h->v[f], k->header))
                    replace_in(h, f, k);
            continue;
        }
        strip_fields(h, k->strip);
        strip_query(*target, k->strip_query);
        if (k->sigv4) {
            if (!sigv4_sign(method, host, *target, h, k->value, payload, why))
                return false;
        } else if (!k->written[0]) {
            headers_remove(h, k->header); /* nothing of the guest's own goes there */
        } else if (!headers_set(h, k->header, k->written)) {
            *why = "its header section has no room for the credential";
            return false;
        }
    }
    for (size_t i = 0; i < c->n; i++)
        if (!c->v[i].placeholder && !strip_protocols(h)) {
            *why = "there is no memory for its credential";
            return false;
        }
    headers_remove(h, "range");
    headers_remove(h, "if-range");
    headers_remove(h, "sec-websocket-extensions");
    if (!headers_set(h, "accept-encoding", "identity")) {
        *why = "its header section is too large";
        return false;
    }
    return true;
}

/* ---- sentinels ---- */

#define SETS_KEPT 8u
#define PART_MIN 16u /* bytes behind a colon that cannot be anything else */

struct sentinels {
    unsigned n, nnext, last;
    char *v[SENTINELS_MAX], *next[SENTINELS_MAX]; /* next: a list that is not whole yet */
    struct scrub_set *any, *one[SENTINELS_MAX]; /* made when they are first needed */
    struct {
        uint64_t which;
        struct scrub_set *set;
    } kept[SETS_KEPT]; /* ring; hosts of a service want the same */
};

struct sentinels *sentinels_new(void)
{
    return calloc(1, sizeof(struct sentinels));
}

static void forget_next(struct sentinels *s)
{
    while (s->nnext)
        free(s->next[--s->nnext]);
}

static void forget(struct sentinels *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        free(s->v[i]);
        scrub_set_unref(s->one[i]);
        s->one[i] = NULL;
    }
    s->n = 0;
    scrub_set_unref(s->any);
    s->any = NULL;
    for (unsigned i = 0; i < SETS_KEPT; i++)
        scrub_set_unref(s->kept[i].set);
    memset(s->kept, 0, sizeof s->kept);
}

void sentinels_free(struct sentinels *s)
{
    if (s) {
        forget(s);
        forget_next(s);
    }
    free(s);
}

void sentinels_set(struct sentinels *s, const struct answer_sentinel *a)
{
    if (a->id == 0)
        forget_next(s);
    if (!a->none && a->id == s->nnext && s->nnext < SENTINELS_MAX && (s->next[s->nnext] = strndup(a->sentinel, sizeof a->sentinel - 1)))
        s->nnext++;
    if (a->more)
        return;
    forget(s);
    memcpy(s->v, s->next, s->nnext * sizeof *s->v);
    s->n = s->nnext;
    s->nnext = 0;
}

const char *sentinels_at(const struct sentinels *s, int i)
{
    return s && i >= 0 && (unsigned)i < s->n ? s->v[i] : NULL;
}

static void add_sentinel(struct scrub_set *set, const char *sentinel)
{
    uint64_t mark = sentinel_tag(sentinel, strlen(sentinel));
    scrub_set_add_marked(set, sentinel, sentinel, mark);
    const char *part = strchr(sentinel, ':');
    for (int i = 0; i < 2 && part; i++, part = strchr(part, ':')) {
        size_t n = strcspn(++part, ":");
        char *alone = n >= PART_MIN ? strndup(part, n) : NULL;
        if (alone)
            scrub_set_add_marked(set, alone, alone, mark);
        free(alone);
    }
}

static struct scrub_set *one_set(char *const *v, unsigned n, uint64_t which)
{
    struct scrub_set *set = scrub_set_new();
    for (unsigned i = 0; set && i < n; i++)
        if (which >> i & 1)
            add_sentinel(set, v[i]);
    if (set && !scrub_set_ready(set)) {
        scrub_set_unref(set);
        set = NULL;
    }
    return set;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* As it stands, and with its escapes decoded: any of its bytes may be written as one. */
static uint64_t holds(const struct scrub_set *set, const char *text, size_t n)
{
    uint64_t found = scrub_find(set, text, n);
    if (found)
        return found;
    char *plain = memchr(text, '%', n) ? malloc(n) : NULL;
    size_t len = 0;
    for (size_t i = 0; plain && i < n; i++) {
        bool escape = text[i] == '%' && i + 2 < n && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0;
        plain[len++] = escape ? (char)(digit(text[i + 1]) << 4 | digit(text[i + 2])) : text[i];
        i += escape ? 2 : 0;
    }
    found = plain ? scrub_find(set, plain, len) : 0;
    free(plain);
    return found;
}

uint64_t sentinels_in_fields(const struct scrub_set *set, const struct headers *h)
{
    uint64_t found = 0;
    for (size_t i = 0; i < h->n && !found; i++)
        if (!(found = holds(set, h->v[i].value, h->v[i].value_len)))
            found = scrub_find(set, h->v[i].name, h->v[i].name_len);
    return found;
}

static bool stands_in(const struct scrub_set *set, const char *target, const struct headers *h)
{
    return holds(set, target, strlen(target)) || sentinels_in_fields(set, h);
}

uint64_t sentinels_find(struct sentinels *s, const char *target, const struct headers *h)
{
    uint64_t found = 0;
    if (!s || !s->n)
        return 0;
    if (!s->any)
        s->any = one_set(s->v, s->n, UINT64_MAX);
    if (s->any && !stands_in(s->any, target, h))
        return 0;
    for (unsigned i = 0; i < s->n; i++) {
        if (!s->one[i])
            s->one[i] = one_set(&s->v[i], 1, 1);
        /* Without memory to look, it is taken to be there. */
        if (!s->one[i] || stands_in(s->one[i], target, h))
            found |= (uint64_t)1 << i;
    }
    return found;
}

bool sentinels_watch(struct sentinels *s, uint64_t which, struct scrub_set **set)
{
    *set = NULL;
    if (!s || s->n == 0)
        return true;
    if (s->n < SENTINELS_MAX)
        which &= ((uint64_t)1 << s->n) - 1;
    if (!which)
        return true;
    for (unsigned i = 0; i < SETS_KEPT; i++)
        if (s->kept[i].set && s->kept[i].which == which) {
            *set = scrub_set_ref(s->kept[i].set);
            return true;
        }
    struct scrub_set *fresh = one_set(s->v, s->n, which);
    if (!fresh)
        return false;
    s->last = (s->last + 1) % SETS_KEPT;
    scrub_set_unref(s->kept[s->last].set);
    s->kept[s->last].which = which;
    s->kept[s->last].set = fresh;
    *set = scrub_set_ref(fresh);
    return true;
}

/* ---- responses ---- */

bool inject_readable(const struct headers *response)
{
    for (size_t i = 0; i < response->n; i++)
        if (header_is(&response->v[i], "content-encoding") && strcasecmp(response->v[i].value, "identity") != 0 &&
            response->v[i].value_len)
            return false;
    return true;
}

void inject_clean(struct scrub_set *set, struct headers *h)
{
    for (size_t i = 0; set && i < h->n; i++) {
        scrub_text(set, h->v[i].value, h->v[i].value_len);
        scrub_text(set, h->v[i].name, h->v[i].name_len);
    }
}
