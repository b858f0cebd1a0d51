#include "core/rule.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <libpsl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t rule_parse_addr(const char *text, uint8_t addr[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    memset(addr, 0, 16);
    if (inet_pton(AF_INET, text, addr) == 1)
        return 4;
    if (inet_pton(AF_INET6, text, addr) != 1)
        return 0;
    if (memcmp(addr, mapped, 12) == 0) {
        memmove(addr, addr + 12, 4);
        memset(addr + 4, 0, 12);
        return 4;
    }
    return 6;
}

const char *rule_alias(const char *name)
{
    if (strcmp(name, "host.docker.internal") == 0 || strcmp(name, "host.sbx.internal") == 0)
        return "localhost";
    return name;
}

static bool parse_port(const char *s, size_t len, uint16_t *out)
{
    unsigned v = 0;
    if (len == 0 || len > 5 || s[0] == '0')
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        v = v * 10 + (unsigned)(s[i] - '0');
    }
    if (v > 65535)
        return false;
    *out = (uint16_t)v;
    return true;
}

static bool parse_ports(struct rule *r, const char *s)
{
    const char *dash = strchr(s, '-');
    if (!dash) {
        if (!parse_port(s, strlen(s), &r->port_low))
            return false;
        r->port_high = r->port_low;
        return true;
    }
    return parse_port(s, (size_t)(dash - s), &r->port_low) && parse_port(dash + 1, strlen(dash + 1), &r->port_high) &&
           r->port_low <= r->port_high;
}

static void mask(struct rule *r)
{
    unsigned bits = r->family == 4 ? 32 : 128;
    for (unsigned i = r->prefix; i < bits; i++)
        r->addr[i / 8] &= (uint8_t)~(0x80u >> i % 8);
}

static int parse_host(struct rule *r, char *host, const char *whole, struct err *e)
{
    if (strncmp(host, "**.", 3) == 0) {
        r->kind = RULE_DEPTH;
        host += 3;
    } else if (strncmp(host, "*.", 2) == 0) {
        r->kind = RULE_LABEL;
        host += 2;
    } else {
        r->kind = RULE_HOST;
    }
    if (strchr(host, '*') || host[0] == '\0')
        return err_set(e, STATUS_USAGE,
                       "\"%s\": a wildcard stands only as the whole first label: *.example.com (one label) or "
                       "**.example.com (any depth)", whole);
    char *ascii = NULL;
    bool plain = true;
    for (const char *p = host; *p; p++)
        plain &= (unsigned char)*p < 0x80;
    if (!plain && idn2_to_ascii_8z(host, &ascii, IDN2_NONTRANSITIONAL) != IDN2_OK)
        return err_set(e, STATUS_USAGE, "\"%s\" is not a valid international host name", whole);
    bool ok = name_canonical(ascii ? ascii : host, strlen(ascii ? ascii : host), r->host);
    idn2_free(ascii);
    if (!ok)
        return err_set(e, STATUS_USAGE, "\"%s\" is not a host name, an address or a range", whole);
    const char *alias = rule_alias(r->host);
    if (alias != r->host)
        strcpy(r->host, alias);
    if (strcmp(r->host, "localhost") == 0 && (r->kind != RULE_HOST || r->port_low != r->port_high))
        return err_set(e, STATUS_USAGE,
                       "\"%s\": a rule for this host's own services names exactly one port, as in localhost:1234",
                       whole);
    if (r->kind != RULE_HOST) {
        const psl_ctx_t *psl = psl_builtin();
        /* Under some names every name is a suffix (*.kawasaki.jp): what stands above those covers them as well. */
        char below[NAME_MAX_LEN + 8];
        snprintf(below, sizeof below, "sbx-x.%s", r->host);
        if (!strchr(r->host, '.') || (psl && (psl_is_public_suffix2(psl, r->host, PSL_TYPE_ICANN) ||
                                              psl_is_public_suffix2(psl, below, PSL_TYPE_ICANN))))
            return err_set(e, STATUS_USAGE,
                           "\"%s\" would cover everything under the public suffix \"%s\"; name the domains that are meant",
                           whole, r->host);
    }
    return 0;
}

static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"};
#define NMETHODS (sizeof methods / sizeof *methods)

uint16_t rule_method(const char *name)
{
    for (unsigned i = 0; i < NMETHODS; i++)
        if (strcmp(methods[i], name) == 0)
            return (uint16_t)(1u << i);
    return 0;
}

/* "GET|HEAD": cuts the text up. */
static int parse_methods(struct rule *r, char *text, struct err *e)
{
    char *save = NULL;
    for (char *m = strtok_r(text, "|", &save); m; m = strtok_r(NULL, "|", &save)) {
        uint16_t bit = rule_method(m);
        if (!bit)
            return err_set(e, STATUS_USAGE, "\"%s\" is no method a rule can name (GET, HEAD, POST, PUT, DELETE, PATCH, "
                                            "OPTIONS, joined by |)", m);
        r->methods |= bit;
    }
    return r->methods ? 0 : err_set(e, STATUS_USAGE, "a rule must not begin with a space");
}

/* Only what two servers read the same: anything that could be decoded or normalised is refused (threat 41). */
static int parse_path(struct rule *r, const char *path, const char *whole, struct err *e)
{
    size_t n = strlen(path);
    bool ok = n <= RULE_PATH_MAX && !strstr(path, "//") && !strstr(path, "/./") && !strstr(path, "/../") &&
              !(n >= 2 && strcmp(path + n - 2, "/.") == 0) && !(n >= 3 && strcmp(path + n - 3, "/..") == 0);
    for (size_t i = 0; i < n && ok; i++)
        ok = path[i] > ' ' && path[i] < 0x7f && !strchr("%\\;?#*\"<>", path[i]);
    if (!ok)
        return err_set(e, STATUS_USAGE,
                       "\"%s\": a path is plain text in its normal form (no %%, ;, ?, #, *, //, /./ or /../), at most %d "
                       "characters", whole, RULE_PATH_MAX);
    if (strcmp(path, "/") != 0) /* which is everything */
        memcpy(r->path, path, n + 1);
    return 0;
}

/* The parts of a rule's text, cut in place. */
struct parts {
    char *host, *prefix, *ports, *path;
    char path_room[320];
};

static void cut_path(struct parts *p, char *from)
{
    char *slash = strchr(from, '/');
    if (!slash)
        return;
    snprintf(p->path_room, sizeof p->path_room, "%s", slash);
    p->path = p->path_room;
    *slash = '\0';
}

static int cut(struct parts *p, char *s, const char *text, struct err *e)
{
    uint8_t addr[16];
    char *rest = NULL, *slash;
    if (s[0] == '[') {
        char *end = strchr(s, ']');
        if (!end || (end[1] != '\0' && end[1] != ':' && end[1] != '/'))
            return err_set(e, STATUS_USAGE, "\"%s\": an IPv6 address with a port is written [ADDRESS]:PORT", text);
        p->host = s + 1;
        rest = end + 1;
        *end = '\0';
        slash = strchr(p->host, '/');
        if (slash) {
            *slash = '\0';
            p->prefix = slash + 1;
        }
        if (!strchr(p->host, ':'))
            return err_set(e, STATUS_USAGE, "\"%s\": brackets are for IPv6 addresses", text);
        if (!p->prefix && rest[0] == '/' && rest[1] && rest[1 + strspn(rest + 1, "0123456789")] == '\0')
            return err_set(e, STATUS_USAGE, "\"%s\": the prefix length belongs into the brackets: [2001:db8::/32]:PORT", text);
    } else {
        p->host = s;
        slash = strchr(s, '/');
        if (slash) {
            *slash = '\0';
            size_t digits = strspn(slash + 1, "0123456789");
            char after = slash[1 + digits];
            bool range = digits ? after == '\0' || after == ':' || after == '/' : after == '\0';
            if (range && rule_parse_addr(s, addr)) {
                p->prefix = slash + 1;
                rest = slash + 1 + digits;
            } else {
                *slash = '/';
                cut_path(p, s);
            }
        }
        if (!rest) {
            char *colon = strrchr(s, ':');
            if (colon && strchr(s, ':') == colon) { /* exactly one: a port, not IPv6 */
                *colon = '\0';
                p->ports = colon + 1;
            }
            return 0;
        }
    }
    /* [ADDRESS] or ADDRESS/PREFIX, and then perhaps :PORTS, perhaps /PATH */
    cut_path(p, rest);
    if (*rest == ':') {
        *rest = '\0';
        p->ports = rest + 1;
    }
    return 0;
}

static bool is_loopback_itself(const struct rule *r)
{
    static const uint8_t four[4] = {127, 0, 0, 1}, six[16] = {[15] = 1};
    return r->family == 4 ? r->prefix == 32 && memcmp(r->addr, four, 4) == 0
                          : r->prefix == 128 && memcmp(r->addr, six, 16) == 0;
}

int rule_parse(struct rule *r, const char *text, struct err *e)
{
    char buf[640], *target = buf;
    size_t len = strlen(text);
    struct parts p = {0};
    r->port_low = 1;
    r->port_high = 65535;
    if (len == 0)
        return err_set(e, STATUS_USAGE, "a rule must not be empty");
    if (len >= sizeof buf)
        return err_set(e, STATUS_USAGE, "a rule of %zu characters is too long", len);
    memcpy(buf, text, len + 1);
    char *space = strchr(buf, ' ');
    if (space) {
        *space = '\0';
        target = space + 1;
        if (parse_methods(r, buf, e) < 0)
            return -1;
    }
    if (strstr(target, "://") || strpbrk(target, " @?#\\"))
        return err_set(e, STATUS_USAGE,
                       "\"%s\": a rule is a host, an address or a range with an optional port, not a URL", text);
    if (cut(&p, target, text, e) < 0)
        return -1;
    if (p.ports && !parse_ports(r, p.ports))
        return err_set(e, STATUS_USAGE, "\"%s\": a port is a number from 1 to 65535, or a range like 8000-8010", text);
    if (p.path && parse_path(r, p.path, text, e) < 0)
        return -1;
    r->family = rule_parse_addr(p.host, r->addr);
    if (!r->family)
        return p.prefix ? err_set(e, STATUS_USAGE, "\"%s\" is not an address range", text)
                        : parse_host(r, p.host, text, e);
    unsigned bits = r->family == 4 ? 32 : 128;
    r->kind = RULE_RANGE;
    r->prefix = (uint8_t)bits;
    if (p.prefix) {
        uint16_t n = 0;
        size_t digits = strspn(p.prefix, "0123456789");
        if ((p.prefix[digits] != '\0') || (strcmp(p.prefix, "0") != 0 && !parse_port(p.prefix, digits, &n)) || n > bits)
            return err_set(e, STATUS_USAGE, "\"%s\": the prefix length of a range is a number from 0 to %u", text, bits);
        r->prefix = (uint8_t)n;
    }
    mask(r);
    if (is_loopback_itself(r)) { /* the guest has a loopback of its own: what is meant is the host's */
        memset(r->addr, 0, sizeof r->addr);
        r->family = r->prefix = 0;
        char name[] = "localhost";
        return parse_host(r, name, text, e);
    }
    return 0;
}

char *rule_list_next(char **rest)
{
    while (*rest && **rest) {
        char *from = *rest + strspn(*rest, " \t\n"), *to = from, *p = from;
        for (; *p && *p != ','; p++) {
            p += *p == '\\' && p[1] == ',';
            *to++ = *p;
        }
        *rest = *p ? p + 1 : p;
        *to = '\0';
        if (*from)
            return from;
    }
    return NULL;
}

void rule_list_item(char *out, size_t cap, const char *text)
{
    size_t n = 0;
    for (; *text && n + 3 <= cap; text++) {
        if (*text == ',')
            out[n++] = '\\';
        out[n++] = *text;
    }
    out[*text || !cap ? 0 : n] = '\0';
}

bool rule_same_target(const struct rule *a, const struct rule *b)
{
    return a->kind == b->kind && strcmp(a->host, b->host) == 0 && a->family == b->family && a->prefix == b->prefix &&
           memcmp(a->addr, b->addr, sizeof a->addr) == 0 && a->port_low == b->port_low && a->port_high == b->port_high &&
           a->methods == b->methods && strcmp(a->path, b->path) == 0;
}

bool rule_has_port(const struct rule *r)
{
    return !(r->port_low == 1 && r->port_high == 65535);
}

bool rule_is_conditional(const struct rule *r)
{
    return r->methods || r->path[0];
}

bool rule_is_exact(const struct rule *r)
{
    if (r->kind == RULE_RANGE)
        return r->prefix >= (r->family == 4 ? 8 : 7);
    return r->kind == RULE_HOST && r->port_low == r->port_high;
}

void rule_format(char out[RULE_TEXT_MAX], const struct rule *r)
{
    char target[280] = "", port[16] = "", verbs[64] = "";
    for (unsigned i = 0; i < NMETHODS; i++)
        if (r->methods & 1u << i) {
            size_t n = strlen(verbs);
            snprintf(verbs + n, sizeof verbs - n, "%s%s", n ? "|" : "", methods[i]);
        }
    if (r->kind == RULE_RANGE) {
        unsigned bits = r->family == 4 ? 32 : 128;
        char a[INET6_ADDRSTRLEN];
        inet_ntop(r->family == 4 ? AF_INET : AF_INET6, r->addr, a, sizeof a);
        bool brackets = r->family == 6 && (rule_has_port(r) || r->path[0]);
        char prefix[8] = "";
        /* Before a path the prefix is always written, or "192.0.2.7/8" would read as a range. */
        if (r->prefix != bits || r->path[0])
            snprintf(prefix, sizeof prefix, "/%u", r->prefix);
        snprintf(target, sizeof target, "%s%s%s%s", brackets ? "[" : "", a, prefix, brackets ? "]" : "");
    } else {
        snprintf(target, sizeof target, "%s%s",
                 r->kind == RULE_LABEL ? "*." : r->kind == RULE_DEPTH ? "**." : "", r->host);
    }
    if (rule_has_port(r) && r->port_low == r->port_high)
        snprintf(port, sizeof port, ":%u", r->port_low);
    else if (rule_has_port(r))
        snprintf(port, sizeof port, ":%u-%u", r->port_low, r->port_high);
    snprintf(out, RULE_TEXT_MAX, "%s%s%s%s%s", verbs, verbs[0] ? " " : "", target, port, r->path);
}

static bool port_in(const struct rule *r, uint16_t port)
{
    return port >= r->port_low && port <= r->port_high;
}

bool rule_matches_name(const struct rule *r, const char *name, uint16_t port)
{
    if (r->kind == RULE_RANGE || !port_in(r, port))
        return false;
    if (r->kind == RULE_HOST)
        return strcmp(r->host, name) == 0;
    size_t n = strlen(name), h = strlen(r->host);
    if (n <= h + 1 || strcmp(name + n - h, r->host) != 0 || name[n - h - 1] != '.')
        return false;
    return r->kind == RULE_DEPTH || !memchr(name, '.', n - h - 1);
}

bool rule_matches_addr(const struct rule *r, uint8_t family, const uint8_t *addr, uint16_t port)
{
    if (r->kind != RULE_RANGE || r->family != family || !port_in(r, port))
        return false;
    unsigned whole = r->prefix / 8, rest = r->prefix % 8;
    if (memcmp(r->addr, addr, whole) != 0)
        return false;
    return rest == 0 || ((r->addr[whole] ^ addr[whole]) & (uint8_t)(0xff00u >> rest)) == 0;
}

bool rule_matches_request(const struct rule *r, const char *method, const char *path)
{
    if (r->methods && !(r->methods & rule_method(method)))
        return false;
    size_t n = strlen(r->path);
    if (n == 0)
        return true;
    /* Whole segments: /repos is not /reposx. */
    return strncmp(r->path, path, n) == 0 && (r->path[n - 1] == '/' || path[n] == '\0' || path[n] == '/');
}
