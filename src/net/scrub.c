#include "net/scrub.h"

#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEEDLES_PER_SECRET 20u
#define WINDOW_MAX 32u
#define BLOCKS 8192u

struct needle {
    uint8_t *p, *with;
    size_t len;
    size_t common; /* bytes at the beginning that are the same in both */
    uint64_t mark;
};

struct scrub_set {
    unsigned refs, n, cap, secrets;
    struct needle *v;
    uint64_t mark; /* of what is being added */
    size_t longest, window;
    bool first[256];      /* a needle begins so */
    uint8_t shift[BLOCKS]; /* by a block of two bytes at the window's end */
};

struct scrub {
    struct scrub_set *set;
    size_t held;
    size_t told; /* so many of them were passed on already: they stay as they are, whatever comes */
    unsigned count;
    uint8_t hold[]; /* set->longest */
};

struct scrub_set *scrub_set_new(void)
{
    struct scrub_set *set = calloc(1, sizeof *set);
    if (set)
        set->refs = 1;
    return set;
}

struct scrub_set *scrub_set_ref(struct scrub_set *set)
{
    if (set)
        set->refs++;
    return set;
}

void scrub_set_unref(struct scrub_set *set)
{
    if (!set || --set->refs)
        return;
    for (unsigned i = 0; i < set->n; i++) {
        explicit_bzero(set->v[i].p, set->v[i].len);
        free(set->v[i].p);
        free(set->v[i].with);
    }
    free(set->v);
    explicit_bzero(set, sizeof *set);
    free(set);
}

size_t scrub_set_hold(const struct scrub_set *set)
{
    return set->longest;
}

/* ---- needles ---- */

static bool add(struct scrub_set *set, const void *p, size_t len, const void *with, size_t with_len)
{
    for (unsigned i = 0; i < set->n; i++)
        if (set->v[i].len == len && memcmp(set->v[i].p, p, len) == 0)
            return true;
    if (len < 2)
        return false;
    if (set->n == set->cap) {
        struct needle *more = realloc(set->v, (set->cap + NEEDLES_PER_SECRET) * sizeof *more);
        if (!more)
            return false;
        set->v = more;
        set->cap += NEEDLES_PER_SECRET;
    }
    struct needle *n = &set->v[set->n];
    n->p = malloc(len);
    n->with = malloc(len);
    if (!n->p || !n->with) {
        free(n->p);
        free(n->with);
        return false;
    }
    memcpy(n->p, p, len);
    /* Another length cannot be: a sentinel has the shape of its secret.  If it has not, nothing of either is shown. */
    memset(n->with, '*', len);
    if (with_len == len)
        memcpy(n->with, with, len);
    n->len = len;
    n->mark = set->mark;
    for (n->common = 0; n->common < len && n->p[n->common] == n->with[n->common];)
        n->common++;
    set->n++;
    if (len > set->longest)
        set->longest = len;
    return true;
}

/* Base64 of a text that stands at an offset of 0, 1 or 2 in what is encoded: the characters that depend on it alone. */
static size_t base64_inner(const char *text, size_t len, unsigned offset, int variant, char *out, size_t cap)
{
    unsigned char *shifted = calloc(1, len + 3);
    size_t need = sodium_base64_encoded_len(len + offset, variant);
    if (!shifted || need > cap) {
        free(shifted);
        return 0;
    }
    memcpy(shifted + offset, text, len);
    sodium_bin2base64(out, cap, shifted, len + offset, variant);
    explicit_bzero(shifted, len + 3);
    free(shifted);
    size_t begin = (offset * 8 + 5) / 6, end = (offset + len) * 8 / 6;
    memmove(out, out + begin, end - begin);
    return end - begin;
}

enum spelling { PERCENT_NEEDED, PERCENT_NEEDED_LOWER, PERCENT_ALL, PERCENT_ALL_LOWER, JSON_ALL, JSON_ALL_LOWER, JSON_SLASH, JSON_HTML, JSON_WARY, SPELLINGS };

/* Encoders that expect JSON within HTML escape more than JSON asks for: in lower case these (Go's, PHP's options), in upper
 * case all that HTML or a form could take for its own (.NET's). */
static bool is_wary(enum spelling how, unsigned char c)
{
    return (how == JSON_HTML && strchr("<>&", c)) || (how == JSON_WARY && strchr("<>&'\"+`", c));
}

static size_t spell(enum spelling how, const char *text, size_t len, char *out)
{
    const char *digits = how == PERCENT_NEEDED_LOWER || how == PERCENT_ALL_LOWER || how == JSON_ALL_LOWER || how == JSON_HTML
                             ? "0123456789abcdef" : "0123456789ABCDEF";
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool unreserved = isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
        bool needed = how == PERCENT_NEEDED || how == PERCENT_NEEDED_LOWER, json = how == JSON_SLASH || how == JSON_HTML || how == JSON_WARY;
        if (json && !is_wary(how, c)) {
            if ((c == '/' && how == JSON_SLASH) || c == '"' || c == '\\')
                out[n++] = '\\';
            out[n++] = (char)c;
        } else if (needed && unreserved) {
            out[n++] = (char)c;
        } else {
            const char *lead = json || how == JSON_ALL || how == JSON_ALL_LOWER ? "\\u00" : "%";
            memcpy(out + n, lead, strlen(lead));
            n += strlen(lead);
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
    }
    return n;
}

bool scrub_set_add(struct scrub_set *set, const char *value, const char *sentinel)
{
    return scrub_set_add_marked(set, value, sentinel, 1);
}

bool scrub_set_add_marked(struct scrub_set *set, const char *value, const char *sentinel, uint64_t mark)
{
    static const int variants[] = {sodium_base64_VARIANT_ORIGINAL, sodium_base64_VARIANT_URLSAFE};
    size_t len = strlen(value), cap = len * 6 + 16;
    if (len < 8 || strlen(sentinel) != len || set->secrets == SCRUB_SECRETS_MAX)
        return false;
    set->mark = mark;
    char *a = malloc(cap), *b = malloc(cap);
    bool good = a && b && add(set, value, len, sentinel, len);
    for (unsigned v = 0; good && v < 2; v++)
        for (unsigned offset = 0; good && offset < 3; offset++) {
            size_t n = base64_inner(value, len, offset, variants[v], a, cap);
            size_t m = base64_inner(sentinel, len, offset, variants[v], b, cap);
            good = n && add(set, a, n, b, m);
        }
    /* Standing alone, its last character depends on nothing else either. */
    for (unsigned v = 0; good && v < 2; v++) {
        if (sodium_base64_encoded_len(len, variants[v]) > cap)
            break;
        sodium_bin2base64(a, cap, (const unsigned char *)value, len, variants[v]);
        sodium_bin2base64(b, cap, (const unsigned char *)sentinel, len, variants[v]);
        good = add(set, a, strlen(a), b, strlen(b));
    }
    for (unsigned how = 0; good && how < SPELLINGS; how++) {
        size_t n = spell(how, value, len, a), m = spell(how, sentinel, len, b);
        good = add(set, a, n, b, m);
    }
    set->secrets += good;
    if (a)
        explicit_bzero(a, cap);
    free(a);
    free(b);
    return good;
}

static unsigned block(const uint8_t *p)
{
    return ((unsigned)p[0] << 5 ^ p[1]) % BLOCKS;
}

bool scrub_set_ready(struct scrub_set *set)
{
    set->window = WINDOW_MAX;
    for (unsigned i = 0; i < set->n; i++)
        if (set->v[i].len < set->window)
            set->window = set->v[i].len;
    memset(set->shift, (int)(set->window - 1), sizeof set->shift);
    for (unsigned i = 0; i < set->n; i++) {
        set->first[set->v[i].p[0]] = true;
        for (size_t at = 1; at < set->window; at++) {
            uint8_t *s = &set->shift[block(set->v[i].p + at - 1)], d = (uint8_t)(set->window - 1 - at);
            if (d < *s)
                *s = d;
        }
    }
    return set->n > 0;
}

/* ---- streams ---- */

struct scrub *scrub_new(struct scrub_set *set)
{
    struct scrub *s = calloc(1, sizeof *s + set->longest);
    if (s)
        s->set = scrub_set_ref(set);
    return s;
}

void scrub_free(struct scrub *s)
{
    if (!s)
        return;
    explicit_bzero(s->hold, s->held);
    scrub_set_unref(s->set);
    free(s);
}

/* At p with n bytes before the end: the longest needle that stands there, or NULL; *open if a longer one may be. */
static const struct needle *match(const struct scrub_set *set, const uint8_t *p, size_t n, bool *open)
{
    const struct needle *best = NULL;
    size_t longest_open = 0;
    *open = false;
    for (unsigned i = 0; i < set->n; i++) {
        const struct needle *k = &set->v[i];
        size_t have = k->len < n ? k->len : n;
        if (k->p[0] != p[0] || memcmp(k->p, p, have) != 0)
            continue;
        if (k->len <= n) {
            if (!best || k->len > best->len)
                best = k;
        } else if (k->len > longest_open)
            longest_open = k->len;
    }
    *open = longest_open > (best ? best->len : 0);
    return best;
}

/* Replaces what stands whole in p[0..n); returns from where on more must be seen. */
static size_t scan(const struct scrub_set *set, uint8_t *p, size_t n, unsigned *count)
{
    size_t at = 0;
    while (at < n) {
        /* Whole windows are skipped over; the last bytes, where a window no longer fits, are looked at one by one. */
        if (n - at >= set->window) {
            uint8_t s = set->shift[block(p + at + set->window - 2)];
            if (s) {
                at += s;
                continue;
            }
        }
        if (set->first[p[at]]) {
            bool open;
            const struct needle *k = match(set, p + at, n - at, &open);
            if (open)
                return at;
            if (k) {
                memcpy(p + at, k->with, k->len);
                at += k->len;
                (*count)++;
                continue;
            }
        }
        at++;
    }
    return n;
}

/* How many of the first bytes that are held stay as they are, whichever needle they become: a sentinel begins as its secret
 * does.  Were they kept back as well, whoever waits for the last letter of a message before he answers would wait for ever. */
static size_t settled(const struct scrub_set *set, const uint8_t *p, size_t n)
{
    size_t most = n;
    for (size_t at = 0; at < most; at++)
        for (unsigned i = 0; set->first[p[at]] && i < set->n; i++) {
            const struct needle *k = &set->v[i];
            size_t have = k->len < n - at ? k->len : n - at;
            if (at + k->common < most && memcmp(k->p, p + at, have) == 0)
                most = at + k->common;
        }
    return most;
}

size_t scrub_feed(struct scrub *s, const uint8_t *in, size_t n, uint8_t *out)
{
    const size_t was = s->held, told = s->told;
    memcpy(out, s->hold, was);
    if (n)
        memcpy(out + was, in, n);
    n += was;
    size_t safe = scan(s->set, out, n, &s->count);
    s->held = n - safe;
    memcpy(s->hold, out + safe, s->held);
    if (s->held < was) /* what was held turned out to be a secret, perhaps */
        explicit_bzero(s->hold + s->held, was - s->held);
    s->told = settled(s->set, s->hold, s->held);
    if (s->held)
        explicit_bzero(out + safe + s->told, s->held - s->told);
    safe += s->told;
    if (told) /* a few bytes, in a stream that is no bulk */
        memmove(out, out + told, safe - told);
    return safe - told;
}

/* Whether n bytes of a needle tell something of the secret: more than its sentinel does, and enough that they cannot be
 * guessed.  Were fewer replaced, whoever can make a server end with a text of his own would learn which guesses are right,
 * one character after another (threat 67). */
static bool telling(const struct needle *k, size_t n)
{
    return n >= k->common + SCRUB_TELLING;
}

size_t scrub_end(struct scrub *s, uint8_t *out)
{
    const size_t n = s->held, told = s->told;
    uint8_t *p = s->hold;
    for (size_t at = 0; at < n;) {
        bool open;
        size_t len = 0;
        const struct needle *k = match(s->set, p + at, n - at, &open);
        if (!k && open && n - at >= SCRUB_TELLING) {
            for (unsigned i = 0; !len && i < s->set->n; i++)
                if (s->set->v[i].len > n - at && telling(&s->set->v[i], n - at) && memcmp(s->set->v[i].p, p + at, n - at) == 0) {
                    k = &s->set->v[i];
                    len = n - at;
                }
        } else if (k)
            len = k->len;
        if (len) {
            memcpy(p + at, k->with, len);
            s->count++;
        }
        at += len ? len : 1;
    }
    memcpy(out, p + told, n - told);
    explicit_bzero(p, n);
    s->held = s->told = 0;
    return n - told;
}

size_t scrub_held(const struct scrub *s)
{
    return s->held - s->told;
}

unsigned scrub_count(const struct scrub *s)
{
    return s->count;
}

bool scrub_text(struct scrub_set *set, char *text, size_t len)
{
    unsigned count = 0;
    /* Nothing comes after it: what is open at the end is looked at as an end. */
    for (size_t at = 0; at < len;) {
        size_t safe = at + scan(set, (uint8_t *)text + at, len - at, &count);
        if (safe >= len)
            break;
        bool open;
        const struct needle *k = match(set, (uint8_t *)text + safe, len - safe, &open);
        size_t n = k ? k->len : 1;
        if (k) {
            memcpy(text + safe, k->with, n);
            count++;
        } else if (len - safe >= SCRUB_TELLING) {
            for (unsigned i = 0; n == 1 && i < set->n; i++)
                if (set->v[i].len > len - safe && telling(&set->v[i], len - safe) && memcmp(set->v[i].p, text + safe, len - safe) == 0) {
                    n = len - safe;
                    memcpy(text + safe, set->v[i].with, n);
                    count++;
                }
        }
        at = safe + n;
    }
    return count > 0;
}

static uint64_t find(const struct scrub_set *set, const uint8_t *p, size_t len)
{
    for (size_t at = set->window - 1; at < len;) {
        unsigned d = set->shift[block(p + at - 1)];
        const uint8_t *begin = p + at - (set->window - 1);
        if (d == 0 && set->first[*begin])
            for (unsigned i = 0; i < set->n; i++)
                if (set->v[i].p[0] == *begin && set->v[i].len <= len - (size_t)(begin - p) && memcmp(set->v[i].p, begin, set->v[i].len) == 0)
                    return set->v[i].mark;
        at += d ? d : 1;
    }
    return 0;
}

uint64_t scrub_find(const struct scrub_set *set, const char *text, size_t len)
{
    return find(set, (const uint8_t *)text, len);
}

/* ---- streams that are searched alone ---- */

struct scrub_watch {
    struct scrub_set *set;
    size_t kept;
    uint8_t last[]; /* of the stream: as much as can be the beginning of a needle, and room for its end */
};

struct scrub_watch *scrub_watch_new(struct scrub_set *set)
{
    struct scrub_watch *w = calloc(1, sizeof *w + 2 * set->longest);
    if (w)
        w->set = scrub_set_ref(set);
    return w;
}

void scrub_watch_free(struct scrub_watch *w)
{
    if (!w)
        return;
    explicit_bzero(w->last, 2 * w->set->longest);
    scrub_set_unref(w->set);
    free(w);
}

uint64_t scrub_watch(struct scrub_watch *w, const uint8_t *in, size_t n)
{
    const size_t most = w->set->longest - 1, begun = w->kept, k = n < most ? n : most;
    /* What began before ends within the first bytes that are new; the others are searched where they are. */
    memcpy(w->last + begun, in, k);
    uint64_t found = begun ? find(w->set, w->last, begun + k) : 0;
    if (!found && (n > k || !begun))
        found = find(w->set, in, n);
    w->kept = begun + n < most ? begun + n : most;
    if (n >= most)
        memcpy(w->last, in + n - most, most);
    else
        memmove(w->last, w->last + begun + n - w->kept, w->kept);
    return found;
}
