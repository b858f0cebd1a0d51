#include "core/expiry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/chainmark.h"
#include "core/jsonfile.h"
#include "core/paths.h"

#define VERSION 1
#define SLACK_S 60 /* a rule may be from a clock that is this far ahead */

/* {"version":1,"boot":ID,"rules":{KEY:{"until":SECONDS,"over":true}}}; `until` is of that boot. */
struct expiry {
    char *path;
    char boot[40];
    json_t *rules;
    bool changed;
};

int64_t expiry_boot_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec;
}

struct expiry *expiry_open(const char *sandbox)
{
    struct expiry *x = calloc(1, sizeof *x);
    const char *key;
    json_t *r;
    if (!x)
        return NULL;
    x->path = path_sandbox(sandbox, "expiry.json", NULL);
    chainmark_boot(x->boot);
    json_t *o = x->path ? jsonfile_read(x->path, NULL) : NULL, *rules = json_object_get(o, "rules");
    const char *boot = json_string_value(json_object_get(o, "boot"));
    x->rules = json_is_object(rules) ? json_deep_copy(rules) : json_object();
    if (!boot || !x->boot[0] || strcmp(boot, x->boot) != 0) /* that clock began anew */
        json_object_foreach(x->rules, key, r)
            json_object_del(r, "until");
    json_decref(o);
    if (!x->rules) {
        expiry_free(x);
        return NULL;
    }
    return x;
}

void expiry_free(struct expiry *x)
{
    if (!x)
        return;
    json_decref(x->rules);
    free(x->path);
    free(x);
}

/* A rule that is given anew has another id, or another end. */
static void key_of(const struct rule *r, char key[RULE_TEXT_MAX + 48])
{
    char text[RULE_TEXT_MAX];
    rule_format(text, r);
    snprintf(key, RULE_TEXT_MAX + 48, "%s %d %lld %s", r->id, r->origin, (long long)r->expires, text);
}

void expiry_settle(struct expiry *x, struct policy *p, int64_t wall, int64_t boot)
{
    size_t n;
    const struct rule *rules = policy_rules(p, &n);
    char key[RULE_TEXT_MAX + 48];
    json_t *now = json_object();
    for (size_t i = 0; i < n; i++) {
        const struct rule *r = &rules[i];
        if (!r->expires)
            continue;
        key_of(r, key);
        json_t *known = json_object_get(x->rules, key), *mine = json_is_object(known) ? json_copy(known) : json_object();
        json_t *until = json_object_get(mine, "until");
        bool was_over = json_is_true(json_object_get(mine, "over"));
        int64_t end = json_integer_value(until);
        /* Made after now?  Then the clock was set back, and until it is right nobody knows what time it is. */
        if (!json_is_integer(until) && !was_over && r->created > wall + SLACK_S) {
            policy_set_expiry(p, i, !r->deny, r->deny);
            json_object_set_new(now, key, mine);
            continue;
        }
        if (!json_is_integer(until)) {
            end = boot + (r->expires > wall ? r->expires - wall : 0) + !r->deny; /* both are whole seconds: never too early */
            json_object_set_new(mine, "until", json_integer(end));
        }
        bool ended = end <= boot, over = was_over || (r->deny ? ended && r->expires <= wall : ended || r->expires <= wall);
        if (over)
            json_object_set_new(mine, "over", json_true());
        policy_set_expiry(p, i, over, r->deny && !over);
        x->changed = x->changed || !json_equal(known, mine);
        json_object_set_new(now, key, mine);
    }
    x->changed = x->changed || json_object_size(x->rules) != json_object_size(now);
    json_decref(x->rules);
    x->rules = now;
}

int expiry_save(struct expiry *x, struct err *e)
{
    if (!x->changed || !x->path)
        return 0;
    json_t *o = json_pack("{s:i, s:s, s:O}", "version", VERSION, "boot", x->boot, "rules", x->rules);
    int rc = o ? jsonfile_write(x->path, o, 0600, e) : err_set(e, STATUS_FAILED, "out of memory");
    json_decref(o);
    x->changed = rc < 0;
    return rc;
}

int64_t expiry_next(const struct expiry *x, const struct policy *p, int64_t wall, int64_t boot)
{
    size_t n;
    const struct rule *rules = policy_rules(p, &n);
    char key[RULE_TEXT_MAX + 48];
    int64_t next = 0;
    for (size_t i = 0; i < n; i++) {
        if (!rules[i].expires)
            continue;
        key_of(&rules[i], key);
        const json_t *mine = json_object_get(x->rules, key);
        if (json_is_true(json_object_get(mine, "over")))
            continue;
        int64_t left[] = {json_integer_value(json_object_get(mine, "until")) - boot, rules[i].expires - wall};
        for (int k = 0; k < 2; k++)
            if (left[k] > 0 && (!next || left[k] < next))
                next = left[k];
        if (!next)
            next = 1;
    }
    return next;
}

struct policy *expiry_policy(const char *sandbox)
{
    struct policy *p = policy_load(sandbox);
    struct expiry *known = p && sandbox ? expiry_open(sandbox) : NULL;
    if (known)
        expiry_settle(known, p, time(NULL), expiry_boot_now());
    expiry_free(known);
    return p;
}
