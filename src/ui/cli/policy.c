/* sbx policy ... */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/addrclass.h"
#include "core/expiry.h"
#include "core/jsonfile.h"
#include "core/metadata.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/publishers.h"
#include "core/sanitize.h"
#include "ui/cli/policy.h"
#include "ui/cli/sandbox.h"
#include "ui/client.h"

#define RULES_MAX 256
#define DURATION_MAX (3660LL * 86400)

int policy_cli_duration(const char *text, long long *out, struct err *e)
{
    char *end;
    long long n = strtoll(text, &end, 10);
    long long unit = *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 0;
    if (end == text || n <= 0 || !unit || end[1])
        return err_set(e, STATUS_USAGE, "\"%s\" is no time; write 30s, 15m, 1h or 7d", text);
    if (n > DURATION_MAX / unit)
        return err_set(e, STATUS_USAGE, "\"%s\" is longer than ten years", text);
    *out = n * unit;
    return 0;
}

int policy_cli_need(const char *name, struct err *e)
{
    struct err why = {0};
    struct record r;
    if (record_check_name(name, e) < 0)
        return -1;
    record_init(&r);
    int rc = record_load(&r, name, &why);
    record_finish(&r);
    return rc < 0 && why.status == STATUS_NOT_FOUND ? err_set(e, STATUS_NOT_FOUND, "%s", why.text) : 0;
}

int policy_cli_scope(const struct args *a, int first, const char **sandbox, int *next, struct err *e)
{
    *sandbox = NULL;
    *next = first;
    if (args_has(a, "global"))
        return 0;
    if (a->nwords <= first)
        return err_set(e, STATUS_USAGE, "for which sandbox? Give its name, or -g for all");
    if (policy_cli_need(a->words[first], NULL) < 0)
        return err_set(e, STATUS_NOT_FOUND, "there is no sandbox named %s; for all sandboxes add -g", a->words[first]);
    *sandbox = a->words[first];
    *next = first + 1;
    return 0;
}

/* What users of such tools trip over. */
static void remark(const struct rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[RULE_TEXT_MAX];
        bool base = rules[i].deny || (rules[i].kind != RULE_LABEL && rules[i].kind != RULE_DEPTH);
        rule_format(text, &rules[i]);
        if (publishers_warning(&rules[i]))
            out_notice("%s: %s", text, publishers_warning(&rules[i]));
        if (!rules[i].deny && rules[i].kind == RULE_RANGE && addr_classify(rules[i].family, rules[i].addr) == ADDR_LOOPBACK)
            out_notice("%s opens services of this host's own loopback; localhost:PORT opens one of them", text);
        for (size_t k = 0; k < n && !base; k++)
            base = rules[k].kind == RULE_HOST && strcmp(rules[k].host, rules[i].host) == 0;
        if (!base)
            out_notice("%s does not cover %s itself", text, rules[i].host);
    }
}

/* The next connection of a running sandbox, and no more: its broker is told, no file says it. */
static int grant(const char *sandbox, const struct rule *rules, size_t n, struct err *e)
{
    struct client c;
    if (!sandbox)
        return err_set(e, STATUS_USAGE, "what is allowed once is allowed to one sandbox: name it instead of -g");
    if (client_open(&c, sandbox, e) < 0)
        return -1;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        char text[RULE_TEXT_MAX];
        rule_format(text, &rules[i]);
        json_t *reply = client_request(&c, "grant", json_pack("{s:s}", "rule", text), 10000, e);
        rc = reply ? 0 : -1;
        json_decref(reply);
    }
    client_close(&c);
    return rc;
}

static int check_comment(const char *comment, struct err *e)
{
    json_t *words = comment ? json_string(comment) : NULL;
    bool usable = !comment || (words && strlen(comment) < sizeof ((struct rule *)0)->comment);
    json_decref(words);
    return usable ? 0 : err_set(e, STATUS_USAGE, "a comment is text in UTF-8, of at most %zu bytes", sizeof ((struct rule *)0)->comment - 1);
}

/* What can be written, and would say nothing. */
static int check_rule(const struct rule *r, struct err *e)
{
    char text[RULE_TEXT_MAX];
    rule_format(text, r);
    if (rule_is_conditional(r) && r->kind == RULE_RANGE)
        return err_set(e, STATUS_USAGE, "\"%s\": methods and paths are judged by the name of a host, not by an address; name the host", text);
    if (!r->deny && (r->kind == RULE_RANGE ? metadata_is_addr(r->family, r->addr) && r->prefix == (r->family == 4 ? 32 : 128)
                                           : r->kind == RULE_HOST && metadata_is_name(r->host)))
        return err_set(e, STATUS_USAGE, "\"%s\": a cloud's instance metadata, which holds credentials, is never reachable; no rule opens it", text);
    return 0;
}

static void say_rule(const struct rule *r, const char *sandbox, const char *more)
{
    char text[RULE_TEXT_MAX];
    rule_format(text, r);
    printf("%s %s (%s%s)\n", r->deny ? "denied" : "allowed", text, sandbox ? sandbox : "all sandboxes", more);
}

static int add(const struct args *a, bool deny, struct err *e)
{
    struct rule *rules = calloc(RULES_MAX, sizeof *rules);
    const char *sandbox, *life = args_value(a, "for"), *comment = args_value(a, "comment");
    long long seconds = 0;
    size_t n = 0;
    int next, rc = -1;
    if (!rules)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (strcmp(a->words[0], "network") != 0) {
        err_set(e, STATUS_USAGE, "rules are for the network: sbx policy %s network ...", deny ? "deny" : "allow");
        goto out;
    }
    if (check_comment(comment, e) < 0)
        goto out;
    if (policy_cli_scope(a, 1, &sandbox, &next, e) < 0 || (life && policy_cli_duration(life, &seconds, e) < 0))
        goto out;
    if (next >= a->nwords) {
        err_set(e, STATUS_USAGE, "which hosts? For example: sbx policy %s network -g api.example.com", deny ? "deny" : "allow");
        goto out;
    }
    for (int i = next; i < a->nwords; i++) {
        char *copy = strdup(a->words[i]), *rest = copy;
        for (char *t; (t = rule_list_next(&rest));) {
            if (n == RULES_MAX) {
                err_set(e, STATUS_USAGE, "at most %d rules at once", RULES_MAX);
                free(copy);
                goto out;
            }
            if (rule_parse(&rules[n], t, e) < 0) {
                free(copy);
                goto out;
            }
            rules[n].deny = deny;
            if (check_rule(&rules[n], e) < 0) {
                free(copy);
                goto out;
            }
            rules[n].disabled = args_has(a, "off");
            rules[n].expires = seconds ? time(NULL) + seconds : 0;
            snprintf(rules[n].comment, sizeof rules[n].comment, "%s", comment ? comment : "");
            n++;
        }
        free(copy);
    }
    if (n == 0) {
        err_set(e, STATUS_USAGE, "the list of rules is empty");
        goto out;
    }
    bool once = args_has(a, "once");
    if (once && args_has(a, "off"))
        rc = err_set(e, STATUS_USAGE, "what is allowed once cannot rest; give --once or --off, not both");
    else if (once && (deny || life))
        rc = err_set(e, STATUS_USAGE, deny ? "--once is for what is allowed; what is denied is denied each time" : "give --once or --for, not both");
    else
        rc = once ? grant(sandbox, rules, n, e) : policy_add(sandbox, rules, n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        say_rule(&rules[i], sandbox, once ? ", once" : rules[i].disabled ? ", at rest" : "");
    if (rc == 0)
        remark(rules, n);
out:
    free(rules);
    return rc;
}

int cmd_policy_allow(const struct args *a, struct err *e)
{
    return add(a, false, e);
}

int cmd_policy_deny(const struct args *a, struct err *e)
{
    return add(a, true, e);
}

enum posture policy_cli_choose(void)
{
    static const struct {
        const char *key, *text;
        enum posture posture;
    } choices[] = {{"1", "AI services, package registries, code hosts; all else is denied (recommended)", POSTURE_BALANCED},
                   {"2", "nothing until you allow it, the model's provider included", POSTURE_LOCKED},
                   {"3", "everything outside of this host; for throw-away tests", POSTURE_OPEN}};
    char line[64];
    if (!isatty(0) || !isatty(2))
        return POSTURE_UNSET;
    fprintf(stderr, "\nWhat may sandboxes reach?\n");
    for (size_t i = 0; i < 3; i++)
        fprintf(stderr, "  %s  %-12s %s\n", choices[i].key, posture_name(choices[i].posture), choices[i].text);
    for (int tries = 0; tries < 3; tries++) {
        fprintf(stderr, "Choice [1]: ");
        if (!fgets(line, sizeof line, stdin))
            break;
        line[strcspn(line, "\n")] = '\0';
        for (size_t i = 0; i < 3; i++)
            if (strcmp(line, choices[i].key) == 0 || strcmp(line, posture_name(choices[i].posture)) == 0 || (i == 0 && !line[0]))
                return choices[i].posture;
        fprintf(stderr, "\"%s\" is none of the three; ", line);
    }
    fprintf(stderr, "\n");
    return POSTURE_UNSET;
}

struct listing {
    struct table *table; /* from its first row on */
    json_t *rules;
    size_t hidden;
};

static void list_rule(struct listing *l, const struct policy *p, const struct rule *r, const char *scope_text)
{
    static const char *const headers[] = {"ACTION", "RULE", "SCOPE", "EXPIRES", "ID", "COMMENT"};
    char text[RULE_TEXT_MAX], expires[40] = "never";
    rule_format(text, r);
    long long left = r->expires - (long long)time(NULL);
    bool waits = policy_waits(p, r, time(NULL));
    if (r->expires)
        snprintf(expires, sizeof expires, left <= 0 || r->over ? "expired" : left < 3600 ? "in %lldm" : "in %lldh",
                 left < 3600 ? left / 60 + 1 : left / 3600);
    if (l->rules) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", r->id, "action", r->deny ? "deny" : "allow", "rule", text,
                              "scope", scope_text, "comment", r->comment);
        if (r->expires)
            json_object_set_new(o, "expires", json_integer(r->expires));
        if (r->disabled)
            json_object_set_new(o, "disabled", json_true());
        if (waits)
            json_object_set_new(o, "waits", json_true());
        json_array_append_new(l->rules, o);
        return;
    }
    char action[24];
    snprintf(action, sizeof action, "%s%s", r->deny ? "deny" : "allow", r->disabled ? " (off)" : waits ? " (waits)" : "");
    const char *cells[] = {action, text, scope_text, expires, r->id, r->comment};
    if (!l->table)
        l->table = table_new(6, headers);
    table_row(l->table, cells);
}

/* The rules of one policy that come from one place. */
static void list_rules(struct listing *l, const struct policy *p, enum rule_origin origin, const char *scope_text, bool hide)
{
    size_t n;
    const struct rule *rules = policy_rules(p, &n);
    for (size_t i = 0; i < n; i++) {
        if (rules[i].origin != origin)
            continue;
        if (hide)
            l->hidden++;
        else
            list_rule(l, p, &rules[i], scope_text);
    }
}

/* Each sandbox's own rules; the first error of their files, if any. */
static void list_sandboxes(struct listing *l, char *error, size_t cap)
{
    char **names;
    int n = record_list(&names, NULL);
    for (int i = 0; i < n; i++) {
        struct policy *own = expiry_policy(names[i]);
        if (!own)
            continue;
        list_rules(l, own, RULE_SANDBOX, names[i], false);
        if (policy_error(own) && !error[0])
            snprintf(error, cap, "%s: everything is denied: %s", names[i], policy_error(own));
        policy_free(own);
    }
    if (n >= 0)
        record_list_free(names, n);
}

int cmd_policy_ls(const struct args *a, struct err *e)
{
    const char *sandbox = a->nwords ? a->words[0] : NULL;
    char error[700] = "";
    if (sandbox && policy_cli_need(sandbox, e) < 0)
        return -1;
    struct policy *p = expiry_policy(sandbox);
    if (!p)
        return err_set(e, STATUS_FAILED, "out of memory");
    bool json = args_has(a, "json");
    struct listing l = {.rules = json ? json_array() : NULL};
    enum posture posture = policy_posture(p) ? policy_posture(p) : POSTURE_BALANCED;
    if (policy_error(p))
        snprintf(error, sizeof error, "everything is denied: %s", policy_error(p));
    list_rules(&l, p, RULE_SANDBOX, sandbox ? sandbox : "", false);
    if (!sandbox)
        list_sandboxes(&l, error, sizeof error);
    list_rules(&l, p, RULE_GLOBAL, "all", false);
    list_rules(&l, p, RULE_PRESET, "preset", !json && !args_has(a, "all"));
    if (json) {
        json_t *o = json_pack("{s:s, s:b, s:O}", "posture", posture_name(posture), "chosen", policy_posture(p) != POSTURE_UNSET,
                              "rules", l.rules);
        json_object_set_new(o, "ask", json_boolean(policy_asks(p)));
        if (error[0])
            json_object_set_new(o, "error", json_string(error));
        out_json(o);
        json_decref(o);
    } else {
        printf("posture: %s%s%s\n", posture_name(posture), policy_posture(p) ? "" : " (not chosen yet)",
               policy_asks(p) ? "; somebody is asked about what no rule speaks of" : "");
        bool none = !l.table;
        if (l.table)
            table_print(l.table, "");
        if (l.hidden)
            printf(none ? "no rules but the %zu of the preset (--all shows them)\n" : "and %zu rules of the preset (--all shows them)\n", l.hidden);
        else if (none)
            printf("no rules\n");
    }
    json_decref(l.rules);
    policy_free(p);
    return error[0] ? err_set(e, STATUS_FAILED, "%s", error) : 0;
}

enum doing { DO_REMOVE, DO_ENABLE, DO_DISABLE };

static int at_rules(const struct args *a, enum doing what, struct err *e)
{
    static const char *const done[] = {[DO_REMOVE] = "removed", [DO_ENABLE] = "enabled", [DO_DISABLE] = "disabled"};
    const char *sandbox;
    int next, missing = 0;
    if (policy_cli_scope(a, 0, &sandbox, &next, e) < 0)
        return -1;
    if (next < a->nwords && strcmp(a->words[next], "network") == 0)
        next++;
    if (next >= a->nwords)
        return err_set(e, STATUS_USAGE, "which rule? Give its text or its id; sbx policy ls shows them");
    for (int i = next; i < a->nwords; i++) {
        char *copy = strdup(a->words[i]), *rest = copy;
        for (char *t; (t = rule_list_next(&rest));) {
            int n = what == DO_REMOVE ? policy_remove(sandbox, t, e) : policy_enable(sandbox, t, what == DO_ENABLE, e);
            if (n < 0) {
                free(copy);
                return -1;
            }
            if (n == 0) {
                char text[200];
                snprintf(text, sizeof text, "there is no rule \"%.100s\" for %s", t, sandbox ? sandbox : "all sandboxes");
                out_error(text);
                missing = STATUS_NOT_FOUND;
                continue;
            }
            char safe[RULE_TEXT_MAX];
            sanitize_line(safe, sizeof safe, t, strlen(t));
            printf("%s %s (%s)\n", done[what], safe, sandbox ? sandbox : "all sandboxes");
        }
        free(copy);
    }
    return missing;
}

int cmd_policy_rm(const struct args *a, struct err *e)
{
    return at_rules(a, DO_REMOVE, e);
}

int cmd_policy_enable(const struct args *a, struct err *e)
{
    return at_rules(a, DO_ENABLE, e);
}

int cmd_policy_disable(const struct args *a, struct err *e)
{
    return at_rules(a, DO_DISABLE, e);
}

/* Is the rule that is meant over, by some clock?  Then only a new end lets it hold again. */
static bool is_over(const char *sandbox, const char *what)
{
    struct policy *p = expiry_policy(sandbox);
    size_t n = 0;
    const struct rule *rules = p ? policy_rules(p, &n) : NULL;
    struct rule meant = {0};
    bool parsed = rule_parse(&meant, what, NULL) == 0, over = false;
    for (size_t i = 0; i < n; i++)
        if (rules[i].origin == (sandbox ? RULE_SANDBOX : RULE_GLOBAL) && (strcmp(rules[i].id, what) == 0 || (parsed && rule_same_target(&rules[i], &meant))))
            over |= rules[i].over || (rules[i].expires && rules[i].expires <= time(NULL) && !rules[i].lasting);
    policy_free(p);
    return over;
}

int cmd_policy_edit(const struct args *a, struct err *e)
{
    const char *sandbox, *to = args_value(a, "to"), *action = args_value(a, "action"), *life = args_value(a, "for"), *text = args_value(a, "rule");
    struct rule target = {0}, r;
    struct rule_change c = {.check = check_rule, .comment = args_value(a, "comment")};
    bool deny, off = args_has(a, "off"), good = args_has(a, "for-good");
    int64_t expires = 0;
    long long seconds;
    int next;
    if (policy_cli_scope(a, 0, &sandbox, &next, e) < 0 || check_comment(c.comment, e) < 0)
        return -1;
    if (next < a->nwords && strcmp(a->words[next], "network") == 0)
        next++;
    if (a->nwords != next + 1)
        return err_set(e, STATUS_USAGE, "which rule? Give the text or the id of one; sbx policy ls shows them");
    if ((life && good) || (off && args_has(a, "on")) || (to && args_has(a, "to-all")))
        return err_set(e, STATUS_USAGE, "give --%s, not both", life && good ? "for or --for-good" : to ? "to or --to-all" : "off or --on");
    if (action) {
        deny = strcmp(action, "deny") == 0;
        if (!deny && strcmp(action, "allow") != 0)
            return err_set(e, STATUS_USAGE, "\"%s\" is no action; there are allow and deny", action);
        c.deny = &deny;
    }
    if (text && rule_parse(&target, text, e) < 0)
        return -1;
    c.target = text ? &target : NULL;
    if (life && policy_cli_duration(life, &seconds, e) < 0)
        return -1;
    if (life)
        expires = time(NULL) + seconds;
    c.expires = life || good ? &expires : NULL;
    c.disabled = off || args_has(a, "on") ? &off : NULL;
    if (to && policy_cli_need(to, e) < 0)
        return -1;
    c.to = to || args_has(a, "to-all") ? &to : NULL;
    if (!c.deny && !c.target && !c.expires && !c.disabled && !c.comment && !c.to)
        return err_set(e, STATUS_USAGE, "what shall change? sbx help policy edit shows what can");
    const char *what = a->words[next];
    if (!c.expires && is_over(sandbox, what))
        return err_set(e, STATUS_FAILED, "the rule has run out; give it a new end with --for or --for-good");
    if (policy_edit(sandbox, what, &c, &r, e) < 0)
        return -1;
    say_rule(&r, c.to ? to : sandbox, r.disabled ? ", at rest" : "");
    remark(&r, 1);
    return 0;
}

int cmd_policy_reset(const struct args *a, struct err *e)
{
    const char *sandbox = a->nwords ? a->words[0] : NULL;
    if (sandbox && policy_cli_need(sandbox, e) < 0)
        return -1;
    if (isatty(0) && isatty(2) && !args_has(a, "force") && !ask_yes("Remove every rule and go back to the default posture?"))
        return err_set(e, STATUS_FAILED, "nothing was changed");
    if (policy_reset(sandbox, e) < 0)
        return -1;
    struct policy *p = policy_load(sandbox);
    enum posture posture = p && policy_posture(p) ? policy_posture(p) : POSTURE_BALANCED;
    printf("no rules (%s); posture: %s%s\n", sandbox ? sandbox : "all sandboxes", posture_name(posture), p && policy_posture(p) ? "" : " (not chosen yet)");
    policy_free(p);
    return 0;
}

int cmd_policy_default(const struct args *a, struct err *e)
{
    enum posture p = posture_parse(a->words[0]);
    if (p == POSTURE_UNSET)
        return err_set(e, STATUS_USAGE, "\"%s\" is no posture; there are open, balanced and locked-down", a->words[0]);
    const char *sandbox = a->nwords > 1 ? a->words[1] : NULL;
    if ((sandbox && policy_cli_need(sandbox, e) < 0) || policy_set_posture(sandbox, p, e) < 0)
        return -1;
    printf("posture: %s (%s)\n", posture_name(p), sandbox ? sandbox : "all sandboxes");
    return 0;
}

int cmd_policy_export(const struct args *a, struct err *e)
{
    if (a->nwords && policy_cli_need(a->words[0], e) < 0)
        return -1;
    json_t *o = policy_export(a->nwords ? a->words[0] : NULL, e);
    if (!o)
        return -1;
    out_json(o);
    json_decref(o);
    return 0;
}

int cmd_policy_import(const struct args *a, struct err *e)
{
    json_error_t je;
    if (a->nwords > 1 && policy_cli_need(a->words[1], e) < 0)
        return -1;
    json_t *o = strcmp(a->words[0], "-") == 0 ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &je) : jsonfile_read(a->words[0], e);
    if (!o && e && e->status == STATUS_FAILED)
        e->status = STATUS_USAGE; /* a file of the user's, not one of ours */
    if (!o)
        return strcmp(a->words[0], "-") == 0 ? err_set(e, STATUS_USAGE, "standard input, line %d: %s", je.line, je.text) : -1;
    const char *sandbox = a->nwords > 1 ? a->words[1] : NULL;
    int rc = policy_import(sandbox, o, e);
    if (rc < 0)
        err_wrap(e, "%s", strcmp(a->words[0], "-") == 0 ? "standard input" : a->words[0]);
    else
        printf("imported %zu rules (%s)\n", json_array_size(json_object_get(o, "rules")), sandbox ? sandbox : "all sandboxes");
    json_decref(o);
    return rc;
}
