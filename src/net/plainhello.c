#include "net/plainhello.h"

#include <string.h>
#include <strings.h>

#include "net/http1.h"

static enum plainhello told(const uint8_t *line, size_t n)
{
    for (size_t i = 0; i + 5 <= n; i++)
        if (strncasecmp((const char *)line + i, "HTTP/", 5) == 0)
            return PLAINHELLO_HTTP;
    return PLAINHELLO_OTHER;
}

/* RFC 9112, section 3: what a lenient parser may take for a space. */
static bool is_blank(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r' && c != '\n');
}

enum plainhello plainhello_read(const uint8_t *p, size_t n, bool end)
{
    size_t from = 0, i;
    while (from < n && (is_blank(p[from]) || p[from] == '\n'))
        from++;
    for (i = from; i < n && http1_token_char(p[i]); i++)
        ;
    if (i < n && (i == from || (!is_blank(p[i]) && p[i] != '\n')))
        return PLAINHELLO_OTHER;
    const uint8_t *eol = memchr(p + i, '\n', n - i);
    size_t len = eol ? (size_t)(eol - p) : n;
    if (memchr(p + i, '\0', len - i))
        return PLAINHELLO_OTHER;
    if (eol || end)
        return told(p + from, len - from);
    return n >= HTTP1_LINE_MAX ? PLAINHELLO_HTTP : PLAINHELLO_MORE;
}
