#include "core/sanitize.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

size_t sanitize_utf8(const unsigned char *p, size_t len, unsigned *code)
{
    if (len == 0)
        return 0;
    unsigned c = p[0], min;
    size_t n;
    if (c < 0x80) {
        *code = c;
        return 1;
    }
    if (c >= 0xc2 && c <= 0xdf) {
        n = 2;
        c &= 0x1f;
        min = 0x80;
    } else if (c >= 0xe0 && c <= 0xef) {
        n = 3;
        c &= 0x0f;
        min = 0x800;
    } else if (c >= 0xf0 && c <= 0xf4) {
        n = 4;
        c &= 0x07;
        min = 0x10000;
    } else {
        return 0;
    }
    if (len < n)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *code = c;
    return n;
}

/* What changes how its neighbours are shown, or shows as nothing: Unicode's Cc, Zl, Zp, and those of Cf
 * that reorder or hide text. */
static bool is_unsafe(unsigned c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x061c || c == 0x180e ||
           (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
           c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe007f);
}

size_t sanitize_line(char *out, size_t cap, const char *in, size_t len)
{
    size_t used = 0;
    if (cap == 0)
        return 0;
    for (size_t i = 0; i < len;) {
        unsigned code = 0;
        char piece[16];
        size_t n = sanitize_utf8((const unsigned char *)in + i, len - i, &code);
        size_t put;
        if (n == 0) {
            put = (size_t)snprintf(piece, sizeof piece, "\\x%02x", (unsigned char)in[i]);
            n = 1;
        } else if (is_unsafe(code)) {
            put = (size_t)snprintf(piece, sizeof piece, code < 0x80 ? "\\x%02x" : "\\u{%x}", code);
        } else {
            memcpy(piece, in + i, n);
            put = n;
        }
        if (used + put >= cap)
            break;
        memcpy(out + used, piece, put);
        used += put;
        i += n;
    }
    out[used] = '\0';
    return used;
}
