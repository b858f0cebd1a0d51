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
    strcpy(r->host, rule_alias(r->host));
    if (strcmp(r->host, "localhost") == 0 && (r->kind != RULE_HOST || r->port_low != r->port_high))
        return err_set(e, STATUS_USAGE,
                       "\"%s\": a rule for this host's own services names exactly one port, as in localhost:1234",
                       whole);
    if (r->kind != RULE_HOST) {
        const psl_ctx_t *psl = psl_builtin();
        if (!strchr(r->host, '.') || (psl && psl_is_public_suffix2(psl, r->host, PSL_TYPE_ICANN)))
            return err_set(e, STATUS_USAGE,
                           "\"%s\" would cover everything under the public suffix \"%s\"; name the domains that are meant",
                           whole, r->host);
    }
    return 0;
}

int rule_parse(struct rule *r, const char *text, struct err *e)
{
    char buf[320];
    size_t len = strlen(text);
    r->port_low = 1;
    r->port_high = 65535;
    if (len == 0)
        return err_set(e, STATUS_USAGE, "a rule must not be empty");
    if (len >= sizeof buf)
        return err_set(e, STATUS_USAGE, "a rule of %zu characters is too long", len);
    memcpy(buf, text, len + 1);
    if (strstr(buf, "://") || strpbrk(buf, " @?#\\"))
        return err_set(e, STATUS_USAGE, "\"%s\": a rule is a host, an address or a range with an optional port, not a URL",
                       text);
    char *host = buf, *ports = NULL, *slash;
    if (buf[0] == '[') {
        char *end = strchr(buf, ']');
        if (!end || (end[1] != '\0' && end[1] != ':' && end[1] != '/'))
            return err_set(e, STATUS_USAGE, "\"%s\": an IPv6 address with a port is written [ADDRESS]:PORT", text);
        host = buf + 1;
        if (end[1] == ':')
            ports = end + 2;
        else if (end[1] == '/')
            return err_set(e, STATUS_USAGE, "\"%s\": the prefix length belongs into the brackets: [2001:db8::/32]:PORT", text);
        *end = '\0';
    } else {
        char *colon = strrchr(buf, ':');
        if (colon && strchr(buf, ':') == colon) { /* exactly one: a port, not IPv6 */
            *colon = '\0';
            ports = colon + 1;
        }
    }
    if (ports && !parse_ports(r, ports))
        return err_set(e, STATUS_USAGE, "\"%s\": a port is a number from 1 to 65535, or a range like 8000-8010", text);
    slash = strchr(host, '/');
    if (slash)
        *slash = '\0';
    r->family = rule_parse_addr(host, r->addr);
    if (!r->family && slash)
        return err_set(e, STATUS_USAGE, strchr(host, '.') && slash[1] && (slash[1] < '0' || slash[1] > '9')
                           ? "\"%s\": rules for paths need interception, which this version does not have yet; name the host alone"
                           : "\"%s\" is not an address range",
                       text);
    if (!r->family)
        return parse_host(r, host, text, e);
    unsigned bits = r->family == 4 ? 32 : 128;
    r->kind = RULE_RANGE;
    r->prefix = (uint8_t)bits;
    if (slash) {
        uint16_t n;
        if (strcmp(slash + 1, "0") == 0)
            n = 0;
        else if (!parse_port(slash + 1, strlen(slash + 1), &n) || n > bits)
            return err_set(e, STATUS_USAGE, "\"%s\": the prefix length of a range is a number from 0 to %u", text, bits);
        r->prefix = (uint8_t)n;
    }
    mask(r);
    return 0;
}

bool rule_has_port(const struct rule *r)
{
    return !(r->port_low == 1 && r->port_high == 65535);
}

void rule_format(char out[RULE_TEXT_MAX], const struct rule *r)
{
    char target[280] = "", port[16] = "";
    if (r->kind == RULE_RANGE) {
        unsigned bits = r->family == 4 ? 32 : 128;
        char a[INET6_ADDRSTRLEN];
        inet_ntop(r->family == 4 ? AF_INET : AF_INET6, r->addr, a, sizeof a);
        bool brackets = r->family == 6 && rule_has_port(r);
        char prefix[8] = "";
        if (r->prefix != bits)
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
    snprintf(out, RULE_TEXT_MAX, "%s%s", target, port);
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

const char *rule_warning(const struct rule *r)
{
    /* Where whoever has an account can publish: an agent that may reach it can carry data out. */
    static const char *const broad[] = {
        "github.io", "githubusercontent.com", "gist.github.com", "gitlab.io", "amazonaws.com", "s3.amazonaws.com",
        "cloudfront.net", "blob.core.windows.net", "azurewebsites.net", "storage.googleapis.com",
        "googleusercontent.com", "appspot.com", "web.app", "firebaseapp.com", "herokuapp.com", "vercel.app",
        "netlify.app", "pages.dev", "workers.dev", "ngrok.io", "ngrok.app", "ngrok-free.app", "trycloudflare.com",
        "pastebin.com", "transfer.sh", "webhook.site", "requestbin.com", "glitch.me", "surge.sh", "repl.co",
        "dropbox.com", "dropboxusercontent.com", "discord.com", "discordapp.com", "slack.com", "telegram.org",
    };
    if (r->deny || r->kind == RULE_RANGE)
        return NULL;
    for (size_t i = 0; i < sizeof broad / sizeof *broad; i++) {
        size_t n = strlen(r->host), b = strlen(broad[i]);
        if (n >= b && strcmp(r->host + n - b, broad[i]) == 0 && (n == b || r->host[n - b - 1] == '.'))
            return "anybody can publish there, so an agent that may reach it can carry data out";
    }
    return NULL;
}
