#include "core/proxyurl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/hex.h"

/* Printable ASCII alone: what stands in a header must not end it. */
static int decode(const char *p, size_t n, char *out, size_t cap)
{
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        int c = (unsigned char)p[i];
        if (c == '%' && i + 2 < n && hex_digit(p[i + 1]) >= 0 && hex_digit(p[i + 2]) >= 0) {
            c = hex_digit(p[i + 1]) * 16 + hex_digit(p[i + 2]);
            i += 2;
        } else if (c == '%') {
            return -1;
        }
        if (c < ' ' || c > '~' || k + 1 >= cap)
            return -1;
        out[k++] = (char)c;
    }
    out[k] = '\0';
    return 0;
}

int proxy_url_parse(const char *text, struct proxy_url *out, struct err *e)
{
    static const char form[] = "net.proxy is http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT; to the proxy itself no other "
                               "protocol is spoken";
    memset(out, 0, sizeof *out);
    out->port = 3128;
    if (strncasecmp(text, "http://", 7) != 0)
        return err_set(e, STATUS_USAGE, "%s", form);
    const char *p = text + 7, *at = strrchr(p, '@');
    if (at && decode(p, (size_t)(at - p), out->login, sizeof out->login) < 0)
        return err_set(e, STATUS_USAGE, "%s", form);
    if (at)
        p = at + 1;
    size_t n = strlen(p);
    if (n && p[n - 1] == '/')
        n--;
    const char *host = p, *rest = memchr(p, ':', n);
    size_t len = rest ? (size_t)(rest - p) : n;
    if (n && p[0] == '[') {
        const char *close = memchr(p, ']', n);
        if (!close)
            return err_set(e, STATUS_USAGE, "%s", form);
        host = p + 1;
        len = (size_t)(close - host);
        rest = close + 1;
    }
    if (len == 0 || len >= sizeof out->host)
        return err_set(e, STATUS_USAGE, "%s", form);
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)host[i]) && !strchr("-_.:", host[i]))
            return err_set(e, STATUS_USAGE, "%s", form);
    memcpy(out->host, host, len);
    if (rest && rest < p + n) {
        char *end = NULL;
        long port = rest[0] == ':' && isdigit((unsigned char)rest[1]) ? strtol(rest + 1, &end, 10) : 0;
        if (port < 1 || port > 65535 || end != p + n)
            return err_set(e, STATUS_USAGE, "%s", form);
        out->port = (uint16_t)port;
    }
    return 0;
}
