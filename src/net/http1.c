#include "net/http1.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/wipe.h"

#include "core/rule.h"

void http1_reader_init(struct http1_reader *r)
{
    *r = (struct http1_reader){0};
}

void http1_reader_finish(struct http1_reader *r)
{
    if (r->buf)
        explicit_bzero(r->buf, r->len);
    wipe_free(r->buf);
    http1_reader_init(r);
}

static bool bad(struct http1_error *e, int status, const char *why)
{
    *e = (struct http1_error){status, why};
    return false;
}

static enum http1_result bad_result(struct http1_error *e, int status, const char *why)
{
    bad(e, status, why);
    return HTTP1_BAD;
}

static bool append(struct http1_reader *r, const uint8_t *p, size_t n)
{
    if (r->len + n > r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 2048;
        while (cap < r->len + n)
            cap *= 2;
        char *more = wipe_realloc(r->buf, cap);
        if (!more)
            return false;
        r->buf = more;
        r->cap = cap;
    }
    memcpy(r->buf + r->len, p, n);
    r->len += n;
    return true;
}

enum http1_result http1_read(struct http1_reader *r, const uint8_t *p, size_t n, size_t *used, struct http1_error *e)
{
    *used = 0;
    while (*used < n) {
        const uint8_t *at = p + *used, *lf = memchr(at, '\n', n - *used);
        size_t take = lf ? (size_t)(lf - at) + 1 : n - *used;
        /* A bound is a bound also for a line that is not whole yet. */
        if (r->len - r->line + take > HTTP1_LINE_MAX)
            return bad_result(e, r->line == 0 ? 414 : 431, "a line is longer than 16 KiB");
        if (r->len + take > HTTP1_HEAD_MAX)
            return bad_result(e, 431, "the head is longer than 64 KiB");
        if (!append(r, at, take))
            return bad_result(e, 503, "there is no memory for it");
        *used += take;
        /* CR stands before LF and nowhere else.  The last byte may be a CR whose LF is to come. */
        size_t from = r->len - take > r->line ? r->len - take - 1 : r->line;
        const char *cr = memchr(r->buf + from, '\r', r->len - from);
        if (!lf) {
            if (cr && cr != r->buf + r->len - 1)
                return bad_result(e, 400, "a carriage return stands alone");
            continue;
        }
        size_t len = r->len - r->line;
        if (len < 2 || r->buf[r->len - 2] != '\r')
            return bad_result(e, 400, "a line does not end with CR LF");
        if (cr && cr != r->buf + r->len - 2)
            return bad_result(e, 400, "a carriage return stands alone");
        if (len == 2) {
            if (r->line == 0)
                return bad_result(e, 400, "there is an empty line before the first");
            return HTTP1_DONE;
        }
        r->line = r->len;
    }
    return HTTP1_MORE;
}

void http1_head_init(struct http1_head *h)
{
    memset(h, 0, offsetof(struct http1_head, fields));
    headers_init(&h->fields);
    h->framing = HTTP1_NO_BODY;
    h->length = 0;
    h->close = h->websocket = false;
}

void http1_head_finish(struct http1_head *h)
{
    wipe_free(h->target);
    headers_finish(&h->fields);
    http1_head_init(h);
}

/* RFC 9110 5.6.2 */
bool http1_token_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(const char *p, size_t n)
{
    if (n == 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!http1_token_char((unsigned char)p[i]))
            return false;
    return true;
}

static bool read_port(const char *p, size_t n, uint16_t *port)
{
    unsigned long v = 0;
    if (n == 0 || n > 5 || p[0] == '0')
        return false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        v = v * 10 + (unsigned long)(p[i] - '0');
    }
    *port = (uint16_t)v;
    return v <= 65535;
}

bool http1_authority(const char *text, size_t len, char host[NAME_MAX_LEN + 48], uint16_t *port)
{
    char addr_text[INET6_ADDRSTRLEN];
    uint8_t addr[16];
    *port = 0;
    if (len == 0 || memchr(text, '\0', len))
        return false;
    if (text[0] == '[') {
        const char *end = memchr(text, ']', len);
        size_t n = end ? (size_t)(end - text) - 1 : 0;
        if (!end || n >= sizeof addr_text)
            return false;
        memcpy(addr_text, text + 1, n);
        addr_text[n] = '\0';
        if (!strchr(addr_text, ':'))
            return false;
        uint8_t family = rule_parse_addr(addr_text, addr);
        if (!family)
            return false;
        inet_ntop(family == 4 ? AF_INET : AF_INET6, addr, host, INET6_ADDRSTRLEN);
        size_t rest = len - n - 2;
        return rest == 0 || (end[1] == ':' && read_port(end + 2, rest - 1, port));
    }
    const char *colon = memchr(text, ':', len);
    size_t n = colon ? (size_t)(colon - text) : len;
    if (colon && !read_port(colon + 1, len - n - 1, port))
        return false;
    if (n < sizeof addr_text) {
        memcpy(addr_text, text, n);
        addr_text[n] = '\0';
        if (rule_parse_addr(addr_text, addr) == 4) {
            snprintf(host, INET6_ADDRSTRLEN, "%s", addr_text);
            return true;
        }
    }
    return name_canonical(text, n, host);
}

/* Fields that matter to the proxy itself, or that Connection may not nominate. */
enum known {
    F_NONE, F_HOST, F_LENGTH, F_CODING, F_CONNECTION, F_UPGRADE, F_EXPECT, F_OVERRIDE,
    F_HOP,  /* belongs to one hop (RFC 9110 7.6.1), or speaks of other ways to the server */
    F_KEEP, /* removing it would change what the message says (threat 39) */
};

static const struct known_field {
    const char *name;
    uint8_t len, kind;
} known_fields[] = {
#define FIELD(name, kind) {name, sizeof name - 1, kind}
    FIELD("host", F_HOST), FIELD("content-length", F_LENGTH), FIELD("transfer-encoding", F_CODING),
    FIELD("connection", F_CONNECTION), FIELD("upgrade", F_UPGRADE), FIELD("expect", F_EXPECT),
    FIELD("x-http-method-override", F_OVERRIDE), FIELD("x-http-method", F_OVERRIDE), FIELD("x-method-override", F_OVERRIDE),
    FIELD("x-original-url", F_OVERRIDE), FIELD("x-rewrite-url", F_OVERRIDE), FIELD("x-override-url", F_OVERRIDE),
    /* The same for servers behind another proxy, which believe what that would have written; and where WebDAV moves things to. */
    FIELD("x-original-uri", F_OVERRIDE), FIELD("x-forwarded-uri", F_OVERRIDE), FIELD("x-forwarded-path", F_OVERRIDE),
    FIELD("x-original-method", F_OVERRIDE), FIELD("x-forwarded-method", F_OVERRIDE), FIELD("x-envoy-original-path", F_OVERRIDE),
    FIELD("x-forwarded-host", F_OVERRIDE), FIELD("x-original-host", F_OVERRIDE), FIELD("x-host", F_OVERRIDE), FIELD("forwarded", F_OVERRIDE),
    FIELD("destination", F_OVERRIDE),
    FIELD("keep-alive", F_HOP), FIELD("proxy-connection", F_HOP), FIELD("te", F_HOP), FIELD("http2-settings", F_HOP),
    FIELD("proxy-authorization", F_HOP), FIELD("proxy-authenticate", F_HOP), FIELD("trailer", F_HOP),
    FIELD("alt-svc", F_HOP),
    FIELD("content-type", F_KEEP), FIELD("content-encoding", F_KEEP), FIELD("content-range", F_KEEP),
    FIELD("authorization", F_KEEP), FIELD("cookie", F_KEEP), FIELD("set-cookie", F_KEEP), FIELD("x-api-key", F_KEEP),
    FIELD("x-goog-api-key", F_KEEP), FIELD("api-key", F_KEEP), FIELD("private-token", F_KEEP), FIELD("location", F_KEEP),
    FIELD("cache-control", F_KEEP), FIELD("range", F_KEEP), FIELD("www-authenticate", F_KEEP),
#undef FIELD
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* *folded: it is that field only for a server that reads "_" as "-", as CGI's variables do. */
static enum known known_field(const char *p, size_t n, bool *folded)
{
    *folded = false;
    for (size_t i = 0; i < sizeof known_fields / sizeof *known_fields; i++) {
        const struct known_field *f = &known_fields[i];
        if (f->len != n || (lower(p[0]) != f->name[0]))
            continue;
        bool fold = false;
        size_t k = 1;
        for (; k < n; k++) {
            char c = lower(p[k]);
            if (c == '_' && f->name[k] == '-')
                fold = true;
            else if (c != f->name[k])
                break;
        }
        if (k == n) {
            *folded = fold;
            return f->kind;
        }
    }
    return F_NONE;
}

enum http1_field http1_field_kind(const char *name, size_t n)
{
    bool folded;
    enum known kind = n ? known_field(name, n, &folded) : F_NONE;
    if (kind == F_OVERRIDE)
        return HTTP1_FIELD_OVERRIDE;
    return (kind == F_LENGTH || kind == F_CODING) && folded ? HTTP1_FIELD_FRAMING : HTTP1_FIELD_OTHER;
}

struct seen {
    bool response;
    unsigned host, length, coding, connection_upgrade, upgrade_ws, upgrades, expect;
    bool conn_close;
    char nominated[16][64];
    unsigned nnominated;
    char host_text[NAME_MAX_LEN + 48];
    uint16_t host_port;
};

static bool read_length(const char *p, size_t n, uint64_t *out)
{
    uint64_t v = 0;
    if (n == 0 || n > 18)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    *out = v;
    return true;
}

static bool read_connection(struct seen *s, const char *p, size_t n, struct http1_error *e)
{
    for (size_t i = 0; i < n;) {
        while (i < n && (p[i] == ' ' || p[i] == '\t' || p[i] == ','))
            i++;
        size_t from = i;
        while (i < n && p[i] != ',')
            i++;
        size_t len = i - from;
        while (len && (p[from + len - 1] == ' ' || p[from + len - 1] == '\t'))
            len--;
        if (len == 0)
            continue;
        const char *w = p + from;
        if (!is_token(w, len))
            return bad(e, 400, "its Connection field is malformed");
        bool folded;
        switch (known_field(w, len, &folded)) {
        case F_NONE:
        case F_HOP:
        case F_OVERRIDE:
        case F_UPGRADE:
        case F_CONNECTION:
            break;
        default:
            return bad(e, 400, "its Connection field names a field that must be kept");
        }
        if (len == 5 && strncasecmp(w, "close", 5) == 0)
            s->conn_close = true;
        else if (len == 10 && strncasecmp(w, "keep-alive", 10) == 0)
            ; /* as HTTP/1.1 has it anyway */
        else if (len == 7 && strncasecmp(w, "upgrade", 7) == 0)
            s->connection_upgrade++;
        else if (s->nnominated < sizeof s->nominated / sizeof *s->nominated && len < sizeof s->nominated[0])
            snprintf(s->nominated[s->nnominated++], sizeof s->nominated[0], "%.*s", (int)len, w);
        else
            return bad(e, 400, "its Connection field names too many fields");
    }
    return true;
}

static bool take_field(struct http1_head *h, struct seen *s, const char *name, size_t nlen, const char *value,
                       size_t vlen, struct http1_error *e)
{
    bool folded;
    enum known kind = known_field(name, nlen, &folded);
    if (!s->response && http1_field_kind(name, nlen) == HTTP1_FIELD_FRAMING)
        return bad(e, 400, "the name of a field has an underscore where a hyphen belongs");
    if (folded && kind != F_OVERRIDE && kind != F_HOP)
        kind = F_NONE; /* who sets such a field removes the other first: headers_set */
    switch (kind) {
    case F_HOST:
        if (s->response)
            return true;
        if (s->host++ || !http1_authority(value, vlen, s->host_text, &s->host_port))
            return bad(e, 400, "its Host field is not one host");
        return true;
    case F_LENGTH:
        if (s->length++ || !read_length(value, vlen, &h->length))
            return bad(e, 400, "its Content-Length is not one number");
        return true;
    case F_CODING:
        if (s->coding++ || vlen != 7 || strncasecmp(value, "chunked", 7) != 0)
            return bad(e, 501, "its transfer coding is not just \"chunked\"");
        return true;
    case F_CONNECTION:
        return read_connection(s, value, vlen, e);
    case F_UPGRADE:
        s->upgrades++;
        s->upgrade_ws += vlen == 9 && strncasecmp(value, "websocket", 9) == 0;
        return true;
    case F_EXPECT:
        if (s->response)
            return true;
        if (s->expect++ || vlen != 12 || strncasecmp(value, "100-continue", 12) != 0)
            return bad(e, 417, "it expects something else than 100-continue");
        return true;
    case F_HOP:
        return true;
    case F_OVERRIDE:
        h->override = true;
        break;
    case F_NONE:
    case F_KEEP:
        break;
    }
    if (!headers_add(&h->fields, name, nlen, value, vlen))
        return bad(e, 431, "it has too many fields");
    return true;
}

static bool read_fields(struct http1_head *h, struct seen *s, const char *p, const char *end, struct http1_error *e)
{
    unsigned count = 0;
    while (p < end) {
        const char *eol = memchr(p, '\r', (size_t)(end - p));
        if (!eol)
            return bad(e, 400, "a line is cut");
        if (eol == p)
            break; /* the empty line */
        if (++count > HEADERS_MAX)
            return bad(e, 431, "it has more than 128 fields");
        const char *colon = memchr(p, ':', (size_t)(eol - p));
        if (*p == ' ' || *p == '\t')
            return bad(e, 400, "a field is folded over two lines");
        if (!colon || !is_token(p, (size_t)(colon - p)))
            return bad(e, 400, "the name of a field is malformed");
        const char *v = colon + 1, *ve = eol;
        while (v < ve && (*v == ' ' || *v == '\t'))
            v++;
        while (ve > v && (ve[-1] == ' ' || ve[-1] == '\t'))
            ve--;
        for (const char *c = v; c < ve; c++)
            if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
                return bad(e, 400, "the value of a field holds a control character");
        if (!take_field(h, s, p, (size_t)(colon - p), v, (size_t)(ve - v), e))
            return false;
        p = eol + 2;
    }
    for (unsigned i = 0; i < s->nnominated; i++)
        headers_remove(&h->fields, s->nominated[i]);
    return true;
}

/* ---- requests ---- */

bool http1_target_is_plain(const char *t, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)t[i] <= 0x20 || (unsigned char)t[i] >= 0x7f || t[i] == '#')
            return false;
    return true;
}

static bool read_target(struct http1_head *h, struct seen *s, const char *t, size_t n, struct http1_error *e)
{
    if (!http1_target_is_plain(t, n))
        return bad(e, 400, "its target holds a byte that it may not");
    if (n == 1 && t[0] == '*') {
        if (strcmp(h->method, "OPTIONS") != 0)
            return bad(e, 400, "its target is an asterisk");
    } else if (n && t[0] == '/') {
        ;
    } else if ((n > 7 && strncasecmp(t, "http://", 7) == 0) || (n > 8 && strncasecmp(t, "https://", 8) == 0)) {
        char host[NAME_MAX_LEN + 48];
        uint16_t port;
        h->absolute = true;
        h->absolute_tls = t[4] == 's' || t[4] == 'S';
        size_t skip = h->absolute_tls ? 8 : 7, a = skip;
        while (a < n && t[a] != '/' && t[a] != '?')
            a++;
        if (!http1_authority(t + skip, a - skip, host, &port))
            return bad(e, 400, "its target names no proper host");
        uint16_t usual = h->absolute_tls ? 443 : 80;
        if (s->host != 1 || strcmp(host, s->host_text) != 0 ||
            (port ? port : usual) != (s->host_port ? s->host_port : usual))
            return bad(e, 400, "its target and its Host field differ");
        bool slash = a < n && t[a] == '/';
        if (asprintf(&h->target, "%s%.*s", slash ? "" : "/", (int)(n - a), t + a) < 0)
            h->target = NULL;
        return h->target ? true : bad(e, 503, "there is no memory for it");
    } else {
        return bad(e, 400, "its target is no path");
    }
    h->target = strndup(t, n);
    return h->target ? true : bad(e, 503, "there is no memory for it");
}

/* Methods are case-sensitive for us and for the RFC, not for every server: "post" could pass a rule on POST. */
int http1_method_refused(const char *p, size_t n)
{
    static const char *const kept[] = {"CONNECT", "TRACE", "TRACK", "PRI"};
    for (size_t i = 0; i < n; i++)
        if (!(p[i] >= 'A' && p[i] <= 'Z') && !(i && ((p[i] >= '0' && p[i] <= '9') || p[i] == '-' || p[i] == '_')))
            return 501;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (n == strlen(kept[i]) && memcmp(p, kept[i], n) == 0)
            return 405;
    return n == 0 || n > HTTP1_METHOD_MAX ? 501 : 0;
}

static bool version(const char *p, size_t n, unsigned *minor)
{
    if (n != 8 || memcmp(p, "HTTP/1.", 7) != 0 || (p[7] != '0' && p[7] != '1'))
        return false;
    *minor = (unsigned)(p[7] - '0');
    return true;
}

static bool seldom_has_body(const char *method)
{
    return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "DELETE") == 0 ||
           strcmp(method, "OPTIONS") == 0;
}

static bool parse_request(struct http1_head *h, const char *p, size_t len, struct http1_error *e)
{
    struct seen s = {0};
    const char *eol = memchr(p, '\r', len), *end = p + len;
    const char *sp1 = eol ? memchr(p, ' ', (size_t)(eol - p)) : NULL;
    const char *sp2 = sp1 ? memchr(sp1 + 1, ' ', (size_t)(eol - sp1 - 1)) : NULL;
    if (!sp2 || !is_token(p, (size_t)(sp1 - p)))
        return bad(e, 400, "its first line is malformed");
    int refused = http1_method_refused(p, (size_t)(sp1 - p));
    if (refused == 501)
        return bad(e, 501, "its method is unknown");
    memcpy(h->method, p, (size_t)(sp1 - p));
    h->method[sp1 - p] = '\0';
    if (!version(sp2 + 1, (size_t)(eol - sp2 - 1), &h->minor))
        return bad(e, eol - sp2 - 1 == 8 && memcmp(sp2 + 1, "HTTP/", 5) == 0 ? 505 : 400,
                   "it is not HTTP/1.1");
    if (refused)
        return bad(e, refused, "this method is not passed on");
    if (!read_fields(h, &s, eol + 2, end, e) || !read_target(h, &s, sp1 + 1, (size_t)(sp2 - sp1 - 1), e))
        return false;
    if (s.host != 1)
        return bad(e, 400, "it has no Host field");
    memcpy(h->host, s.host_text, sizeof h->host);
    h->port = s.host_port;
    if (s.coding && (s.length || h->minor == 0))
        return bad(e, 400, s.length ? "it has both a length and a transfer coding" : "HTTP/1.0 knows no transfer coding");
    h->framing = s.coding ? HTTP1_CHUNKED : s.length ? HTTP1_LENGTH : HTTP1_NO_BODY;
    h->close = s.conn_close || h->minor == 0;
    /* A server that takes no notice of a body here would read it as the next request, which nobody judged: tell it
     * that there is none (threat 28). */
    if (h->framing != HTTP1_NO_BODY && (h->framing == HTTP1_CHUNKED || h->length) && seldom_has_body(h->method))
        h->close = true;
    h->expect_continue = s.expect && h->minor == 1;
    h->websocket = s.connection_upgrade && s.upgrade_ws == 1 && s.upgrades == 1 && strcmp(h->method, "GET") == 0 && h->minor == 1 &&
                   h->framing == HTTP1_NO_BODY;
    return true;
}

bool http1_parse_request(struct http1_head *h, struct http1_reader *r, struct http1_error *e)
{
    bool good = r->len ? parse_request(h, r->buf, r->len, e) : bad(e, 400, "there is nothing");
    http1_reader_finish(r);
    return good;
}

/* ---- responses ---- */

static bool parse_response(struct http1_head *h, const char *p, size_t len, const char *method, struct http1_error *e)
{
    struct seen s = {.response = true};
    const char *eol = memchr(p, '\r', len), *end = p + len;
    size_t n = eol ? (size_t)(eol - p) : 0;
    if (n < 12 || !version(p, 8, &h->minor) || p[8] != ' ' || (n > 12 && p[12] != ' '))
        return bad(e, 502, "the server's first line is malformed");
    for (int i = 9; i < 12; i++)
        if (p[i] < '0' || p[i] > '9')
            return bad(e, 502, "the server's status is no number");
    h->status = (p[9] - '0') * 100 + (p[10] - '0') * 10 + (p[11] - '0');
    if (h->status < 100 || h->status > 599)
        return bad(e, 502, "the server's status is unknown");
    for (size_t i = 13; i < n; i++)
        if (((unsigned char)p[i] < 0x20 && p[i] != '\t') || p[i] == 0x7f)
            return bad(e, 502, "the server's first line holds a control character");
    snprintf(h->reason, sizeof h->reason, "%.*s", n > 13 ? (int)(n - 13) : 0, n > 13 ? p + 13 : "");
    if (!read_fields(h, &s, eol + 2, end, e)) {
        e->status = 502;
        return false;
    }
    bool none = strcmp(method, "HEAD") == 0 || h->status / 100 == 1 || h->status == 204 || h->status == 304;
    if (s.coding && (s.length || h->minor == 0))
        return bad(e, 502, "the server's answer has two lengths");
    if (h->status / 100 == 1 && (s.coding || (s.length && h->length)))
        return bad(e, 502, "the server's answer has a body where none may be");
    h->framing = none       ? HTTP1_NO_BODY
                 : s.coding ? HTTP1_CHUNKED
                 : s.length ? HTTP1_LENGTH
                            : HTTP1_UNTIL_CLOSE;
    /* What the length of a body would have been is news all the same (RFC 9110 8.6). */
    if (none && s.length && h->status != 204 && h->status / 100 != 1) {
        char text[24];
        snprintf(text, sizeof text, "%llu", (unsigned long long)h->length);
        if (!headers_add_text(&h->fields, "Content-Length", text))
            return bad(e, 502, "the server's answer has too many fields");
    }
    if (none)
        h->length = 0;
    h->close = s.conn_close || h->minor == 0 || h->framing == HTTP1_UNTIL_CLOSE;
    /* What follows may be a body after all, for a server that knows no better: take nothing more from it. */
    if (h->status == 204 && (s.coding || (s.length && h->length)))
        h->close = true;
    h->websocket = h->status == 101 && s.connection_upgrade && s.upgrade_ws == 1 && s.upgrades == 1;
    return true;
}

bool http1_parse_response(struct http1_head *h, struct http1_reader *r, const char *method, struct http1_error *e)
{
    bool good = r->len ? parse_response(h, r->buf, r->len, method, e) : bad(e, 502, "there is nothing");
    http1_reader_finish(r);
    return good;
}

/* ---- writing ---- */

struct out {
    char *p;
    size_t len, cap;
    bool failed;
};

static void put(struct out *o, const char *s, size_t n)
{
    if (!o->failed && o->len + n + 1 > o->cap) {
        size_t cap = o->cap ? o->cap * 2 : 1024;
        while (cap < o->len + n + 1)
            cap *= 2;
        char *more = wipe_realloc(o->p, cap);
        o->failed = !more;
        if (more) {
            o->p = more;
            o->cap = cap;
        }
    }
    if (o->failed)
        return;
    memcpy(o->p + o->len, s, n);
    o->len += n;
    o->p[o->len] = '\0';
}

static void puts_(struct out *o, const char *s)
{
    put(o, s, strlen(s));
}

static void put_fields(struct out *o, const struct http1_head *h)
{
    char text[64];
    for (size_t i = 0; i < h->fields.n; i++) {
        put(o, h->fields.v[i].name, h->fields.v[i].name_len);
        put(o, ": ", 2);
        put(o, h->fields.v[i].value, h->fields.v[i].value_len);
        put(o, "\r\n", 2);
    }
    if (h->framing == HTTP1_LENGTH) {
        snprintf(text, sizeof text, "Content-Length: %llu\r\n", (unsigned long long)h->length);
        puts_(o, text);
    } else if (h->framing == HTTP1_CHUNKED) {
        puts_(o, "Transfer-Encoding: chunked\r\n");
    }
}

static char *whole(struct out *o, size_t *len)
{
    puts_(o, "\r\n");
    if (o->failed) {
        wipe_free(o->p);
        return NULL;
    }
    *len = o->len;
    return o->p;
}

char *http1_write_request(const struct http1_head *h, uint16_t default_port, bool keep_alive, size_t *len)
{
    struct out o = {0};
    char text[64];
    bool six = strchr(h->host, ':') != NULL;
    puts_(&o, h->method);
    puts_(&o, " ");
    puts_(&o, h->target);
    puts_(&o, " HTTP/1.1\r\nHost: ");
    puts_(&o, six ? "[" : "");
    puts_(&o, h->host);
    puts_(&o, six ? "]" : "");
    if (h->port && h->port != default_port) {
        snprintf(text, sizeof text, ":%u", h->port);
        puts_(&o, text);
    }
    puts_(&o, "\r\n");
    put_fields(&o, h);
    if (h->expect_continue)
        puts_(&o, "Expect: 100-continue\r\n");
    if (h->websocket)
        puts_(&o, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    else if (!keep_alive)
        puts_(&o, "Connection: close\r\n");
    return whole(&o, len);
}

char *http1_write_response(const struct http1_head *h, bool keep_alive, size_t *len)
{
    struct out o = {0};
    char text[192];
    snprintf(text, sizeof text, "HTTP/1.1 %d %s\r\n", h->status, h->reason);
    puts_(&o, text);
    put_fields(&o, h);
    if (h->websocket)
        puts_(&o, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
    else if (!keep_alive && h->status / 100 != 1)
        puts_(&o, "Connection: close\r\n");
    return whole(&o, len);
}

bool http1_websocket_accept(const char *key, char out[29])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[24 + sizeof guid];
    unsigned char digest[SHA_DIGEST_LENGTH];
    static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    /* 16 bytes: 21 digits, one whose last four bits are unused, and the padding. */
    if (strlen(key) != 24 || strspn(key, base64) != 22 || !strchr("AQgw", key[21]) || strcmp(key + 22, "==") != 0)
        return false;
    snprintf(text, sizeof text, "%s%s", key, guid);
    SHA1((unsigned char *)text, strlen(text), digest);
    return EVP_EncodeBlock((unsigned char *)out, digest, sizeof digest) == 28;
}
