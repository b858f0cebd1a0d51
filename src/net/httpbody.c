#include "net/httpbody.h"

#include <stdio.h>
#include <string.h>

#include "core/hex.h"

enum { SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LF };

void httpbody_init(struct httpbody *b, enum http1_framing framing, uint64_t length)
{
    *b = (struct httpbody){.framing = framing, .left = framing == HTTP1_LENGTH ? length : 0, .state = SIZE};
    b->done = framing == HTTP1_NO_BODY || (framing == HTTP1_LENGTH && length == 0);
}

static bool fail(struct httpbody *b)
{
    b->bad = true;
    return false;
}

/* One byte of the grammar between the data of chunks. */
static bool step(struct httpbody *b, uint8_t c)
{
    int v;
    switch (b->state) {
    case SIZE:
        v = hex_digit(c);
        if (v >= 0) {
            if (++b->digits > 15)
                return fail(b);
            b->left = b->left << 4 | (unsigned)v;
            return true;
        }
        if (b->digits == 0)
            return fail(b);
        if (c == ';') {
            b->state = EXTENSION;
            b->extension = 0;
        } else if (c == '\r') {
            b->state = SIZE_LF;
        } else {
            return fail(b);
        }
        return true;
    case EXTENSION:
        if (c == '\r')
            b->state = SIZE_LF;
        else if ((c < 0x20 && c != '\t') || c == 0x7f || ++b->extension > HTTPBODY_EXTENSION_MAX)
            return fail(b);
        return true;
    case SIZE_LF:
        if (c != '\n')
            return fail(b);
        b->digits = 0;
        b->line = 0;
        b->state = b->left ? DATA : TRAILER;
        return true;
    case DATA_CR:
        b->state = DATA_LF;
        return c == '\r' || fail(b);
    case DATA_LF:
        b->state = SIZE;
        return c == '\n' || fail(b);
    case TRAILER:
        if (++b->trailer > HTTPBODY_TRAILER_MAX)
            return fail(b);
        if (c == '\r')
            b->state = TRAILER_LF;
        else if (!b->colon && c != ':' && !http1_token_char(c)) /* also refuses folded lines */
            return fail(b);
        else if ((c < 0x20 && c != '\t') || c == 0x7f || (c == ':' && b->line == 0))
            return fail(b);
        else
            b->line++;
        b->colon |= c == ':';
        return true;
    case TRAILER_LF:
        if (c != '\n' || (b->line && !b->colon))
            return fail(b);
        b->done = b->line == 0;
        b->line = 0;
        b->colon = false;
        b->state = TRAILER;
        return true;
    default:
        return fail(b);
    }
}

bool httpbody_take(struct httpbody *b, const uint8_t *p, size_t n, size_t *used, const uint8_t **content,
                   size_t *content_len)
{
    *used = *content_len = 0;
    *content = p;
    if (b->bad)
        return false;
    if (b->done)
        return true;
    if (b->framing == HTTP1_UNTIL_CLOSE) {
        *used = *content_len = n;
        return true;
    }
    if (b->framing == HTTP1_LENGTH) {
        *used = *content_len = n < b->left ? n : (size_t)b->left;
        b->left -= *used;
        b->done = b->left == 0;
        return true;
    }
    while (*used < n && !b->done && b->state != DATA)
        if (!step(b, p[(*used)++]))
            return false;
    if (*used < n && !b->done) {
        size_t take = n - *used < b->left ? n - *used : (size_t)b->left;
        *content = p + *used;
        *content_len = take;
        *used += take;
        b->left -= take;
        if (b->left == 0)
            b->state = DATA_CR;
    }
    return true;
}

bool httpbody_eof(struct httpbody *b)
{
    if (b->framing == HTTP1_UNTIL_CLOSE)
        b->done = true;
    return b->done && !b->bad;
}

size_t httpbody_frame(char out[HTTPBODY_FRAME_HEAD], size_t n)
{
    char text[HTTPBODY_FRAME_HEAD + 1];
    int len = snprintf(text, sizeof text, "%zx\r\n", n);
    memcpy(out, text, (size_t)len);
    return (size_t)len;
}
