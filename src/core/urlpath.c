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

/* Letters that a server which folds compatible forms reads as '.', '/', '\\', ';', '%', or as nothing at all.  The bytes are
 * well-formed UTF-8. */
static bool folds(const uint8_t *p, size_t n)
{
    static const uint16_t letters[] = {0x00a0, 0x00ad, 0x2024, 0x2025, 0x2026, 0x2044, 0x2215, 0x2216, 0x3000, 0x3002,
                                       0xfe52, 0xfe54, 0xfe68, 0xfe6a, 0xfeff, 0xff05, 0xff0e, 0xff0f, 0xff1b, 0xff3c, 0xff61};
    for (size_t i = 0; i < n; i++) {
        unsigned c = p[i];
        if ((c & 0xc0) == 0x80)
            continue; /* within a letter */
        if (c >= 0xc2 && c < 0xe0)
            c = (c & 0x1f) << 6 | (p[i + 1] & 0x3f);
        else if ((c & 0xf0) == 0xe0)
            c = (c & 0x0f) << 12 | (p[i + 1] & 0x3fu) << 6 | (p[i + 2] & 0x3f);
        if ((c >= 0x80 && c < 0xa0) || (c >= 0x200b && c <= 0x200f) || (c >= 0x2060 && c <= 0x2064))
            return true;
        for (size_t k = 0; k < sizeof letters / sizeof *letters; k++)
            if (c == letters[k])
                return true;
    }
    return false;
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
    if (!utf8(raw, nraw) || folds(raw, nraw))
        return false;
    /* "." and ".." as whole segments: a client normalises them itself, so what is left is a trick; and so it is with spaces
     * or more dots, which some servers cut off. */
    for (size_t i = 0, j; i < nraw; i = j) {
        bool dots = false, other = false;
        for (j = i + 1; j < nraw && raw[j] != '/'; j++) {
            dots |= raw[j] == '.';
            other |= raw[j] != '.' && raw[j] != ' ';
        }
        if (dots && !other)
            return false;
    }
    return true;
}

void urlpath_show(const char *target, char *out, size_t cap)
{
    size_t n = strcspn(target, "?");
    snprintf(out, cap, "%.*s", n < cap ? (int)n : (int)cap - 1, target);
}
