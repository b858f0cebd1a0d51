#include "core/urlpath.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/hex.h"

/* What stands as itself in the normal form, so also in a rule; everything else is an escape.  RFC 3986 would keep
 * "%3A" and ":" apart, servers do not: a rule on "/a:b" has to speak of both. */
static bool plain(int c)
{
    return c > ' ' && c < 0x7f && !strchr("%\"<>?#", c);
}

/* Bytes that escapes stood for: well-formed UTF-8 (RFC 3629), or a server could see "/" in an overlong form. */
static bool utf8(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned c = p[i++], more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : 3;
        if (c >= 0x80 && (c < 0xc2 || c > 0xf4 || n - i < more))
            return false;
        if (more > 1 && ((c == 0xe0 && p[i] < 0xa0) || (c == 0xed && p[i] > 0x9f) || (c == 0xf0 && p[i] < 0x90) ||
                         (c == 0xf4 && p[i] > 0x8f)))
            return false;
        for (; more; more--)
            if ((p[i++] & 0xc0) != 0x80)
                return false;
    }
    return true;
}

bool urlpath_normalise(const char *target, char out[URLPATH_MAX + 1])
{
    uint8_t raw[URLPATH_MAX];
    size_t n = 0, nraw = 0;
    if (strcmp(target, "*") == 0) {
        memcpy(out, "*", 2);
        return true;
    }
    if (target[0] != '/')
        return false;
    for (const char *p = target; *p && *p != '?'; p++) {
        int c = (unsigned char)*p;
        if (c == '%') {
            int hi = hex_digit(p[1]), lo = hi < 0 ? -1 : hex_digit(p[2]);
            if (lo < 0)
                return false;
            c = hi * 16 + lo;
            /* An encoded '.' may make a dot segment for one server and not for another. */
            if (c == '/' || c == '.' || c == '%')
                return false;
            p += 2;
        } else if (c <= ' ' || c >= 0x7f || (c == '/' && n && out[n - 1] == '/')) {
            return false; /* "//" too */
        }
        if (c == '\\' || c == ';' || c < ' ' || c == 0x7f || nraw == sizeof raw)
            return false;
        raw[nraw++] = (uint8_t)c;
        if (n + 3 > URLPATH_MAX)
            return false;
        if (plain(c)) {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = "0123456789ABCDEF"[c >> 4];
            out[n++] = "0123456789ABCDEF"[c & 15];
        }
    }
    out[n] = '\0';
    if (!utf8(raw, nraw))
        return false;
    /* "." and ".." as whole segments: a client normalises them itself, so what is left is a trick. */
    for (const char *s = out; s; s = strchr(s + 1, '/')) {
        size_t len = strcspn(s + 1, "/");
        if ((len == 1 && s[1] == '.') || (len == 2 && s[1] == '.' && s[2] == '.'))
            return false;
    }
    return true;
}

void urlpath_show(const char *target, char *out, size_t cap)
{
    size_t n = strcspn(target, "?");
    snprintf(out, cap, "%.*s", n < cap ? (int)n : (int)cap - 1, target);
}
