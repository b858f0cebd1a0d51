// needs: src/core/policy.c src/core/rule.c src/core/shellword.c src/core/publishers.c src/core/name.c src/core/jsonfile.c src/core/paths.c src/core/err.c src/core/log.c src/core/sanitize.c src/core/mirrorhosts.c src/core/mirrors.c
/* A policy file of any content: it is refused whole, or every rule in it has one canonical form, which reads back as
 * itself; and a decision never allows what a matching denial forbids. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/policy.h"
#include "core/publishers.h"

static void check_rule(const struct rule *r)
{
    char text[RULE_TEXT_MAX], again[RULE_TEXT_MAX];
    struct rule copy = {0};
    rule_format(text, r);
    if (rule_parse(&copy, text, NULL) < 0)
        abort();
    rule_format(again, &copy);
    if (strcmp(text, again) != 0)
        abort();
    (void)publishers_warning(r);
}

static void check_policy(const json_t *o)
{
    struct policy *p = policy_from_json(o);
    struct decision d;
    size_t n;
    if (!p)
        return;
    const struct rule *r = policy_rules(p, &n);
    for (size_t i = 0; i < n; i++) {
        if (r[i].origin == RULE_PRESET)
            break;
        if (!policy_error(p))
            check_rule(&r[i]);
        bool always = r[i].deny && !rule_is_conditional(&r[i]) && !r[i].expires;
        if (r[i].kind == RULE_RANGE)
            policy_decide_addr(p, r[i].family, r[i].addr, r[i].port_low, 1, &d);
        else
            policy_decide_name(p, r[i].host, r[i].port_low, 1, &d);
        if (d.allow && (policy_error(p) || (always && (r[i].kind == RULE_RANGE || r[i].kind == RULE_HOST))))
            abort();
        policy_decide_request(p, r[i].host, r[i].port_low, "GET", "/a/b", 1, &d);
    }
    policy_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rule r = {0};
    char text[700];
    size_t n = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data, n);
    text[n] = '\0';
    if (rule_parse(&r, text, NULL) == 0)
        check_rule(&r);
    json_t *o = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (o)
        check_policy(o);
    json_decref(o);
    return 0;
}
