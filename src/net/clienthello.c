#include "net/clienthello.h"

#include <string.h>

enum { RECORD_HANDSHAKE = CLIENTHELLO_RECORD, CLIENT_HELLO = 1 };
enum { EXT_SERVER_NAME = 0, EXT_ALPN = 16, EXT_EARLY_DATA = 42, EXT_VERSIONS = 43, EXT_ECH = 0xfe0d };
#define EXTENSIONS_MAX 96u

struct span {
    const uint8_t *p;
    size_t n;
};

static bool take(struct span *s, size_t n, struct span *out)
{
    if (s->n < n)
        return false;
    *out = (struct span){s->p, n};
    s->p += n;
    s->n -= n;
    return true;
}

static bool number(struct span *s, unsigned bytes, size_t *out)
{
    struct span v;
    if (!take(s, bytes, &v))
        return false;
    *out = 0;
    for (unsigned i = 0; i < bytes; i++)
        *out = *out << 8 | v.p[i];
    return true;
}

/* A vector with its length before it. */
static bool vector(struct span *s, unsigned bytes, struct span *out)
{
    size_t n;
    return number(s, bytes, &n) && take(s, n, out);
}

static bool server_name(struct clienthello *h, struct span ext)
{
    struct span list, name;
    size_t type;
    if (!vector(&ext, 2, &list) || ext.n || !number(&list, 1, &type) || type != 0 || !vector(&list, 2, &name) || list.n)
        return false;
    /* RFC 6066: no address, no trailing dot; canonical is what everything is compared with. */
    h->has_name = name_canonical((const char *)name.p, name.n, h->name);
    return h->has_name;
}

static bool alpn(struct clienthello *h, struct span ext)
{
    struct span list, name;
    if (!vector(&ext, 2, &list) || ext.n || list.n == 0)
        return false;
    h->offers_alpn = true;
    while (list.n) {
        if (!vector(&list, 1, &name) || name.n == 0)
            return false;
        bool h2 = name.n == 2 && memcmp(name.p, "h2", 2) == 0 && !h->offers_h2;
        bool h1 = name.n == 8 && memcmp(name.p, "http/1.1", 8) == 0 && !h->offers_http1;
        if ((h2 || h1) && h->alpn_len + 1 + name.n <= sizeof h->alpn) {
            h->alpn[h->alpn_len] = (uint8_t)name.n;
            memcpy(h->alpn + h->alpn_len + 1, name.p, name.n);
            h->alpn_len += 1 + name.n;
        }
        h->offers_h2 |= h2;
        h->offers_http1 |= h1;
    }
    return true;
}

static bool versions(struct clienthello *h, struct span ext)
{
    struct span list;
    size_t v = 0;
    if (!vector(&ext, 1, &list) || ext.n || list.n == 0 || list.n % 2)
        return false;
    h->max_version = 0;
    while (list.n) {
        number(&list, 2, &v);
        if (v >= 0x0301 && v <= 0x0304 && v > h->max_version) /* else GREASE, or a draft */
            h->max_version = (uint16_t)v;
    }
    return true;
}

static bool hello(struct clienthello *h, struct span s)
{
    struct span v, exts, body;
    size_t version, type;
    uint16_t seen[EXTENSIONS_MAX];
    unsigned nseen = 0;
    if (!number(&s, 2, &version) || version < 0x0301 || version > 0x0304 || !take(&s, 32, &v) || !vector(&s, 1, &v) ||
        v.n > 32 || !vector(&s, 2, &v) || v.n < 2 || v.n % 2 || !vector(&s, 1, &v) || v.n == 0)
        return false;
    h->max_version = version > 0x0303 ? 0x0303 : (uint16_t)version;
    if (s.n == 0)
        return true; /* no extensions: as old as TLS 1.0 */
    if (!vector(&s, 2, &exts) || s.n)
        return false;
    while (exts.n) {
        if (!number(&exts, 2, &type) || !vector(&exts, 2, &body))
            return false;
        /* RFC 8446 4.2: each at most once.  Two of one kind could be read differently. */
        for (unsigned i = 0; i < nseen; i++)
            if (seen[i] == type)
                return false;
        if (nseen == EXTENSIONS_MAX)
            return false;
        seen[nseen++] = (uint16_t)type;
        if (type == EXT_SERVER_NAME && !server_name(h, body))
            return false;
        if (type == EXT_ALPN && !alpn(h, body))
            return false;
        if (type == EXT_VERSIONS && !versions(h, body))
            return false;
        if (type == EXT_ECH && (body.n == 0 || body.p[0] != 0)) /* an inner one is never on the wire */
            return false;
        h->early_data |= type == EXT_EARLY_DATA;
        h->ech |= type == EXT_ECH;
    }
    return true;
}

enum clienthello_result clienthello_read(struct clienthello *h, const uint8_t *p, size_t n)
{
    uint8_t message[CLIENTHELLO_MAX];
    size_t have = 0, at = 0;
    memset(h, 0, sizeof *h);
    if (n >= 1 && p[0] != RECORD_HANDSHAKE)
        return CLIENTHELLO_NOT_TLS;
    if ((n >= 2 && p[1] != 3) || (n >= 3 && p[2] > 4))
        return CLIENTHELLO_NOT_TLS;
    if (n > CLIENTHELLO_MAX)
        n = CLIENTHELLO_MAX;
    /* The message, out of its records. */
    while (n - at >= 5) {
        size_t len = (size_t)p[at + 3] << 8 | p[at + 4];
        if (p[at] != RECORD_HANDSHAKE || p[at + 1] != 3 || len == 0 || len > 16384)
            return CLIENTHELLO_BAD;
        size_t here = n - at - 5 < len ? n - at - 5 : len;
        if (have + here > sizeof message)
            return CLIENTHELLO_BAD;
        memcpy(message + have, p + at + 5, here);
        have += here;
        at += 5 + here;
        if (have >= 4 && message[0] != CLIENT_HELLO)
            return CLIENTHELLO_BAD;
        size_t want = have >= 4 ? 4 + ((size_t)message[1] << 16 | (size_t)message[2] << 8 | message[3]) : 0;
        if (want > CLIENTHELLO_MAX)
            return CLIENTHELLO_BAD;
        if (want && have >= want) {
            /* Nothing may follow it in its record. */
            if (have > want || here < len)
                return CLIENTHELLO_BAD;
            return hello(h, (struct span){message + 4, want - 4}) ? CLIENTHELLO_DONE : CLIENTHELLO_BAD;
        }
        if (here < len)
            break;
    }
    return n >= CLIENTHELLO_MAX ? CLIENTHELLO_BAD : CLIENTHELLO_MORE;
}
