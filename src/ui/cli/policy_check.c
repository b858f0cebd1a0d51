/* sbx policy check: what would happen, and by which rule. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/addrclass.h"
#include "core/config.h"
#include "core/expiry.h"
#include "core/metadata.h"
#include "core/policy.h"
#include "core/shellword.h"
#include "core/urlpath.h"
#include "net/http1.h"
#include "ui/cli/policy.h"
#include "ui/cli/sandbox.h"

struct verdict {
    struct decision d;
    bool allow;
    char note[300], fix[900]; /* fix: the command that would change it */
};

static void take_back(struct verdict *v, const struct rule *r, const char *scope)
{
    char which[RULE_TEXT_MAX + 2];
    policy_handle(which, sizeof which, r);
    if (r->origin != RULE_PRESET && which[0])
        snprintf(v->fix, sizeof v->fix, "sbx policy rm %s %s", r->origin == RULE_GLOBAL ? "-g" : scope, which);
}

/* As narrow as a rule can be: the request may hold what none can name. */
static void allow(struct verdict *v, const char *scope, const char *text, const char *method, const char *path)
{
    char rule[RULE_TEXT_MAX * 2], item[sizeof rule], word[sizeof rule];
    struct rule r = {0};
    snprintf(rule, sizeof rule, "%s%s%s%s", method ? method : "", method ? " " : "", text, method ? path : "");
    if (rule_parse(&r, rule, NULL) < 0)
        snprintf(rule, sizeof rule, "%s", text);
    rule_list_item(item, sizeof item, rule);
    if (shell_word(word, sizeof word, item))
        snprintf(v->fix, sizeof v->fix, "sbx policy allow network %s %.800s", scope, word);
}

static void explain(struct verdict *v, const struct policy *p, const char *sandbox, const char *text, const char *method,
                    const char *path, const char *inner)
{
    const struct rule *r = v->d.rule;
    const char *scope = sandbox ? sandbox : "-g";
    uint8_t addr[16];
    char host[RULE_TEXT_MAX];
    snprintf(host, sizeof host, "%.*s", (int)strcspn(text, ":"), text);
    bool is_literal = text[0] == '[' || rule_parse_addr(host, addr);
    if (policy_error(p)) {
        snprintf(v->note, sizeof v->note, "%.290s", policy_error(p));
    } else if (v->d.http && !method) {
        snprintf(v->note, sizeof v->note, "each request is judged: add --method and --path to ask about one");
    } else if (inner[0]) {
        snprintf(v->note, sizeof v->note, "%s", inner);
    } else if (v->allow && !v->d.exact && !is_literal) {
        snprintf(v->note, sizeof v->note, "as long as it resolves to addresses outside of this host and its private networks");
    } else if (!v->allow && !r && policy_asks(p)) {
        snprintf(v->note, sizeof v->note, "while somebody is there to be asked (the dashboard, or sbx policy ask ls --follow) it is held, and asked about");
    }
    if (policy_error(p))
        return;
    if (!v->allow && r && r->deny)
        take_back(v, r, scope);
    else if (!v->allow)
        allow(v, scope, text, method, path);
}

/* What the broker asks of an address that no rule names (design.md section 6): it has to be outside. */
static bool is_inside(const struct rule *r, const struct decision *d, uint16_t port, char *note, size_t cap)
{
    enum addr_class c = addr_classify(r->family, r->addr);
    if (d->exact)
        return false;
    if (c != ADDR_LOOPBACK && addr_is_own(r->family, r->addr))
        c = ADDR_OWN;
    if (c == ADDR_GLOBAL)
        return false;
    json_t *config = config_load(NULL), *item;
    bool outside = false;
    size_t i;
    json_array_foreach(config_value(config, "net.outside"), i, item) {
        struct rule range = {0};
        if (rule_parse(&range, json_string_value(item), NULL) == 0 && range.kind == RULE_RANGE)
            outside = outside || (c != ADDR_OWN && rule_matches_addr(&range, r->family, r->addr, port));
    }
    json_decref(config);
    snprintf(note, cap, "it is %s, which only a rule for it opens", addr_class_name(c));
    return !outside;
}

int cmd_policy_check(const struct args *a, struct err *e)
{
    const char *sandbox = args_value(a, "sandbox"), *method = args_value(a, "method"), *path = args_value(a, "path");
    struct rule r = {0};
    struct verdict v = {0};
    char text[RULE_TEXT_MAX];
    if (rule_parse(&r, a->words[0], e) < 0 || (sandbox && policy_cli_need(sandbox, e) < 0))
        return -1;
    if (r.kind == RULE_LABEL || r.kind == RULE_DEPTH || rule_is_conditional(&r) ||
        (r.kind == RULE_RANGE && r.prefix != (r.family == 4 ? 32 : 128)))
        return err_set(e, STATUS_USAGE, "check takes one host or address, not a pattern; --method and --path speak of a request");
    if (rule_has_port(&r) && r.port_low != r.port_high)
        return err_set(e, STATUS_USAGE, "check takes one port, not a range");
    if (path && path[0] != '/')
        return err_set(e, STATUS_USAGE, "\"%s\": a path begins with a slash", path);
    if (path && path[strcspn(path, "?# ")])
        return err_set(e, STATUS_USAGE, "\"%s\": rules speak of the path alone, without a query", path);
    if (method && (!method[0] || method[strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-")]))
        return err_set(e, STATUS_USAGE, "\"%s\": a method is a word in upper case, like POST", method);
    if ((method || path) && r.kind == RULE_RANGE)
        return err_set(e, STATUS_USAGE, "requests are judged by the name of a host, not by an address");
    if (path && !method)
        method = "GET";
    if (method && !path)
        path = "/";
    uint16_t port = r.port_low == r.port_high ? r.port_low : 443;
    struct policy *p = expiry_policy(sandbox);
    if (!p)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (r.kind == RULE_RANGE)
        policy_decide_addr(p, r.family, r.addr, port, time(NULL), &v.d);
    else
        policy_decide_name(p, r.host, port, time(NULL), &v.d);
    bool metadata = r.kind == RULE_RANGE ? metadata_is_addr(r.family, r.addr) : metadata_is_name(r.host);
    if (metadata && !policy_error(p))
        v.d = (struct decision){.text = "what no rule can open"};
    bool judged = v.d.http, literal = r.kind == RULE_RANGE;
    char inner[120] = "", normal[URLPATH_MAX + 1] = "";
    if (literal && judged) /* an address has no requests that could be told from others */
        v.d.allow = false;
    else if (literal && v.d.allow && is_inside(&r, &v.d, port, inner, sizeof inner))
        v.d = (struct decision){.text = "the check of addresses"};
    else
        inner[0] = '\0';
    bool plain = !method || urlpath_normalise(path, normal);
    if (v.d.allow && method)
        policy_decide_request(p, r.host, port, method, plain ? normal : path, time(NULL), &v.d);
    bool ambiguous = v.d.allow && judged && !plain;
    bool refused = v.d.allow && judged && method && http1_method_refused(method, strlen(method));
    if (ambiguous || refused)
        v.d.allow = false;
    r.port_low = r.port_high = port;
    rule_format(text, &r);
    v.allow = v.d.allow;
    if (metadata)
        snprintf(v.note, sizeof v.note, "a cloud's instance metadata is never reachable");
    else if (literal && judged)
        snprintf(v.note, sizeof v.note, "the rule speaks of methods or paths, which requests to an address cannot be held to: it has to name the host");
    else if (refused)
        snprintf(v.note, sizeof v.note, "where requests are judged none of that method goes on: it asks for more than an answer, or is not read alike by all servers");
    else if (ambiguous)
        snprintf(v.note, sizeof v.note, "servers may read its path in more than one way, which a rule on methods or paths never allows");
    else
        explain(&v, p, sandbox, text, method, plain ? normal : path, inner);
    const char *word = v.allow && v.d.http && !method ? "depends" : v.allow ? "allow" : "deny";
    if (args_has(a, "json")) {
        json_t *o = json_pack("{s:s, s:s, s:s}", "target", text, "verdict", word, "by", v.d.text);
        if (policy_error(p))
            json_object_set_new(o, "error", json_string(policy_error(p)));
        if (v.note[0])
            json_object_set_new(o, "note", json_string(v.note));
        if (v.fix[0])
            json_object_set_new(o, "fix", json_string(v.fix));
        out_json(o);
        json_decref(o);
    } else {
        printf("%s%s%s%s: %s, by %s\n", method ? method : "", method ? " " : "", text, method ? path : "",
               word[0] == 'a' ? "allowed" : word[1] == 'e' && word[2] == 'p' ? "depends on the request" : "denied", v.d.text);
        if (v.note[0])
            printf("  %s\n", v.note);
        if (v.fix[0])
            printf("  to %s: %s\n", v.d.rule && v.d.rule->deny ? "take that rule back" : "allow it", v.fix);
    }
    policy_free(p);
    return v.allow ? 0 : STATUS_DENIED;
}
