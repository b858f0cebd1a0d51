#include "net/headers.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/wipe.h"

void headers_init(struct headers *h)
{
    h->n = h->bytes = 0;
}

static void drop(struct header *f)
{
    /* A value may have been a credential. */
    wipe_free(f->name);
    wipe_free(f->value);
}

void headers_finish(struct headers *h)
{
    for (size_t i = 0; i < h->n; i++)
        drop(&h->v[i]);
    headers_init(h);
}

static char *copy(const char *p, size_t n)
{
    char *s = malloc(n + 1);
    if (s) {
        memcpy(s, p, n);
        s[n] = '\0';
    }
    return s;
}

bool headers_add(struct headers *h, const char *name, size_t name_len, const char *value, size_t value_len)
{
    if (h->n == HEADERS_MAX || name_len > HEADERS_BYTES_MAX || value_len > HEADERS_BYTES_MAX ||
        h->bytes + name_len + value_len > HEADERS_BYTES_MAX)
        return false;
    struct header f = {copy(name, name_len), copy(value, value_len), name_len, value_len};
    if (!f.name || !f.value) {
        free(f.name);
        free(f.value);
        return false;
    }
    h->v[h->n++] = f;
    h->bytes += name_len + value_len;
    return true;
}

bool headers_add_text(struct headers *h, const char *name, const char *value)
{
    return headers_add(h, name, strlen(name), value, strlen(value));
}

bool header_is(const struct header *h, const char *name)
{
    return strcasecmp(h->name, name) == 0;
}

void headers_remove_at(struct headers *h, size_t i)
{
    h->bytes -= h->v[i].name_len + h->v[i].value_len;
    drop(&h->v[i]);
    memmove(&h->v[i], &h->v[i + 1], (h->n - i - 1) * sizeof h->v[0]);
    h->n--;
}

/* Without regard to case, and "_" for "-": some servers fold them (CGI's HTTP_X_API_KEY). */
static bool could_be(const struct header *h, const char *name)
{
    if (strlen(name) != h->name_len)
        return false;
    for (size_t i = 0; i < h->name_len; i++) {
        int a = tolower((unsigned char)h->name[i]), b = tolower((unsigned char)name[i]);
        if ((a == '_' ? '-' : a) != (b == '_' ? '-' : b))
            return false;
    }
    return true;
}

bool headers_could_have(const struct headers *h, const char *name)
{
    for (size_t i = 0; i < h->n; i++)
        if (could_be(&h->v[i], name))
            return true;
    return false;
}

size_t headers_remove(struct headers *h, const char *name)
{
    size_t removed = 0;
    for (size_t i = 0; i < h->n;)
        if (could_be(&h->v[i], name)) {
            headers_remove_at(h, i);
            removed++;
        } else {
            i++;
        }
    return removed;
}

bool headers_set(struct headers *h, const char *name, const char *value)
{
    headers_remove(h, name);
    return headers_add_text(h, name, value);
}

bool headers_replace(struct headers *h, size_t i, const char *value, size_t value_len)
{
    struct header *f = &h->v[i];
    if (h->bytes - f->value_len + value_len > HEADERS_BYTES_MAX)
        return false;
    char *fresh = copy(value, value_len);
    if (!fresh)
        return false;
    explicit_bzero(f->value, f->value_len);
    wipe_free(f->value);
    h->bytes += value_len - f->value_len;
    f->value = fresh;
    f->value_len = value_len;
    return true;
}

const struct header *headers_get(const struct headers *h, const char *name)
{
    for (size_t i = 0; i < h->n; i++)
        if (header_is(&h->v[i], name))
            return &h->v[i];
    return NULL;
}

size_t headers_count(const struct headers *h, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < h->n; i++)
        n += header_is(&h->v[i], name);
    return n;
}

bool headers_has_token(const struct headers *h, const char *name, const char *token)
{
    size_t want = strlen(token);
    for (size_t i = 0; i < h->n; i++) {
        if (!header_is(&h->v[i], name))
            continue;
        for (const char *p = h->v[i].value; *p;) {
            p += strspn(p, " \t,");
            size_t len = strcspn(p, ",");
            size_t word = len;
            while (word && (p[word - 1] == ' ' || p[word - 1] == '\t'))
                word--;
            if (word == want && strncasecmp(p, token, want) == 0)
                return true;
            p += len;
        }
    }
    return false;
}

void headers_clear_secret(struct headers *h)
{
    /* What the answer's handling looks at stays. */
    for (size_t i = 0; i < h->n; i++)
        if (!header_is(&h->v[i], "sec-websocket-key") && !header_is(&h->v[i], "accept") && !header_is(&h->v[i], "content-type"))
            explicit_bzero(h->v[i].value, h->v[i].value_len);
}
