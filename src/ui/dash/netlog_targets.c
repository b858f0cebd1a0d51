#include <libpsl.h>
#include <stdio.h>
#include <string.h>

#include "core/metadata.h"
#include "core/rule.h"
#include "ui/dash/netlog_pane.h"

const char *netlog_no_rule(const struct netlog_row *row)
{
    uint8_t addr[16], family = rule_parse_addr(row->host, addr);
    if (strcmp(row->kind, "refused") == 0)
        return "UDP, ICMP and the like go nowhere, whatever rules say: only TCP leaves, by name";
    if (family ? metadata_is_addr(family, addr) : metadata_is_name(row->host))
        return "a cloud's instance metadata, which holds credentials, is never reachable; no rule opens it";
    return row->host[0] ? NULL : "this row names no host that a rule could speak of";
}

/* Takes up only what sbx will accept; a list is taken if all of it is. */
static void offer_list(struct netlog_target *out, unsigned *n, const char *text, const char *what)
{
    char copy[600], *rest = copy;
    if (*n == NETLOG_TARGETS_MAX || !text[0] || strlen(text) >= sizeof copy)
        return;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *t; (t = rule_list_next(&rest));) {
        struct rule r = {0};
        if (rule_parse(&r, t, NULL) < 0)
            return;
    }
    for (unsigned i = 0; i < *n; i++)
        if (strcmp(out[i].text, text) == 0)
            return;
    snprintf(out[*n].text, sizeof out[*n].text, "%s", text);
    snprintf(out[*n].what, sizeof out[*n].what, "%s", what);
    (*n)++;
}

/* One rule, whatever the guest wrote into its path. */
static void offer(struct netlog_target *out, unsigned *n, const char *text, const char *what)
{
    char item[600];
    rule_list_item(item, sizeof item, text);
    offer_list(out, n, item, what);
}

unsigned netlog_targets(const struct netlog_row *row, struct netlog_target out[NETLOG_TARGETS_MAX])
{
    char text[600];
    uint8_t addr[16];
    unsigned n = 0;
    const char *host = rule_alias(row->host);
    uint8_t family = rule_parse_addr(host, addr);
    size_t len = strlen(host);
    if (!len || len > NAME_MAX_LEN)
        return 0;
    if (family) {
        snprintf(text, sizeof text, family == 6 ? "[%s]:%d" : "%s:%d", host, row->port);
        offer(out, &n, host, "this address");
        if (row->port)
            offer(out, &n, text, "this address and port");
        return n;
    }
    offer(out, &n, host, "this host");
    snprintf(text, sizeof text, "%s:%d", host, row->port);
    if (row->port && strcmp(row->proto, "dns") != 0)
        offer(out, &n, text, "this host and port");
    if (strcmp(host, "localhost") == 0)
        return n;
    const char *slash = strchr(row->request, '/');
    if (slash) {
        size_t verb = strcspn(row->request, " ");
        /* The folder that the request is in: what agents ask for next lies beside it. */
        const char *last = strrchr(slash, '/');
        size_t folder = last > slash ? (size_t)(last - slash) : strlen(slash);
        if (row->request + verb < slash && len + verb + strlen(slash) < sizeof text - 8) {
            snprintf(text, sizeof text, "%.*s %s%s", (int)verb, row->request, host, slash);
            offer(out, &n, text, "this request");
            snprintf(text, sizeof text, "%s%.*s", host, (int)folder, slash);
            offer(out, &n, text, "this host below that path");
        }
    }
    const psl_ctx_t *psl = psl_builtin();
    const char *domain = psl ? psl_registrable_domain(psl, host) : NULL;
    if (domain) {
        snprintf(text, sizeof text, "%.253s,**.%.253s", domain, domain);
        offer_list(out, &n, text, "the whole domain");
    }
    return n;
}
