#include "ui/cli/policy.h"

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/policy.h"
#include "core/record.h"
#include "ui/cli/policy_log.h"
#include "ui/cli/table.h"

/* ---- what the sub-commands share ---- */

struct call {
    const char *verb;
    bool global, json, all;
    const char *period, *comment, *sandbox;
    char **args; /* what is left after the options */
    int nargs;
};

static int usage(const char *verb, struct err *e);

static int read_options(struct call *c, int argc, char **argv, const char *letters, const struct option *longs,
                        struct err *e)
{
    int o;
    optind = 0; /* GNU: start anew */
    opterr = 0;
    while ((o = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        switch (o) {
        case 'g':
            c->global = true;
            break;
        case 'j':
            c->json = true;
            break;
        case 'a':
            c->all = true;
            break;
        case 'f':
            c->period = optarg;
            break;
        case 'c':
            c->comment = optarg;
            break;
        case 's':
            c->sandbox = optarg;
            break;
        default:
            if (optopt && optopt < 128 && strchr("fcs", optopt))
                return err_set(e, STATUS_USAGE, "%s needs a value; see sbx policy help", argv[optind - 1]);
            return err_set(e, STATUS_USAGE, "sbx policy %s has no option %s; see sbx policy help", c->verb, argv[optind - 1]);
        }
    }
    c->args = argv + optind;
    c->nargs = argc - optind;
    return 0;
}

static const struct option global_only[] = {{"global", no_argument, NULL, 'g'}, {0}};

/* That it exists; a record that is damaged keeps nobody from shutting its network. */
static int need_sandbox(const char *name, struct err *e)
{
    struct err why = {0};
    struct record r;
    if (record_check_name(name, e) < 0)
        return -1;
    record_init(&r);
    int rc = record_load(&r, name, &why);
    record_finish(&r);
    if (rc < 0 && why.status == STATUS_NOT_FOUND)
        return err_set(e, STATUS_USAGE, "%s", why.text);
    return 0;
}

/* Takes the scope: -g, or the first argument as a sandbox.  *scope is NULL for the global one. */
static int take_scope(struct call *c, const char **scope, int least, struct err *e)
{
    *scope = NULL;
    if (!c->global) {
        if (c->nargs <= least)
            return usage(c->verb, e); /* neither -g nor a sandbox */
        *scope = c->args[0];
        c->args++;
        c->nargs--;
        if (need_sandbox(*scope, e) < 0)
            return -1;
    }
    return c->nargs < least ? usage(c->verb, e) : 0;
}

static const char *where(const char *scope)
{
    return scope ? scope : "all sandboxes";
}

long long policy_duration(const char *text)
{
    static const struct {
        char unit;
        long long seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
    char *end;
    if (text[0] < '0' || text[0] > '9')
        return 0;
    long long n = strtoll(text, &end, 10);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (*end == units[i].unit && end[1] == '\0' && n > 0 && n < 1000000)
            return n * units[i].seconds;
    return 0;
}

/* ---- allow, deny ---- */

#define RULES_MAX 512

struct rules {
    struct rule *list;
    size_t n;
};

static int read_rules(struct rules *out, const struct call *c, bool deny, struct err *e)
{
    long long seconds = c->period ? policy_duration(c->period) : 0;
    if (c->period && !seconds)
        return err_set(e, STATUS_USAGE, "--for takes a time like 30m, 1h or 7d, not \"%s\"", c->period);
    for (int i = 0; i < c->nargs; i++) {
        char *save = NULL;
        for (char *t = strtok_r(c->args[i], ",", &save); t; t = strtok_r(NULL, ",", &save)) {
            t += strspn(t, " \t\n");
            if (!*t)
                continue;
            if (out->n == RULES_MAX)
                return err_set(e, STATUS_USAGE, "no more than %d rules at once", RULES_MAX);
            struct rule *r = &out->list[out->n];
            if (rule_parse(r, t, e) < 0)
                return -1;
            if (rule_is_conditional(r))
                return err_set(e, STATUS_USAGE,
                               "\"%s\": rules for methods and paths need interception of HTTP, which this version does not "
                               "have; name the host alone", t);
            r->deny = deny;
            r->expires = seconds ? time(NULL) + seconds : 0;
            snprintf(r->comment, sizeof r->comment, "%s", c->comment ? c->comment : "");
            out->n++;
        }
    }
    return out->n ? 0 : usage(c->verb, e);
}

/* What users of such a tool trip over. */
static void remark(const struct rules *rules)
{
    for (size_t i = 0; i < rules->n; i++) {
        const struct rule *r = &rules->list[i];
        char text[RULE_TEXT_MAX];
        rule_format(text, r);
        if (rule_warning(r))
            fprintf(stderr, "warning: %s: %s\n", text, rule_warning(r));
        bool base = r->kind != RULE_LABEL && r->kind != RULE_DEPTH;
        for (size_t k = 0; k < rules->n && !base; k++)
            base = rules->list[k].kind == RULE_HOST && strcmp(rules->list[k].host, r->host) == 0;
        if (!base)
            fprintf(stderr, "note: %s does not cover %s itself\n", text, r->host);
    }
}

static int change_rules(int argc, char **argv, bool deny, struct err *e)
{
    static const struct option longs[] = {{"global", no_argument, NULL, 'g'}, {"for", required_argument, NULL, 'f'},
                                          {"comment", required_argument, NULL, 'c'}, {0}};
    struct call c = {.verb = argv[0]};
    struct rules rules = {calloc(RULES_MAX, sizeof *rules.list), 0};
    const char *scope;
    int rc = -1;
    if (!rules.list)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (read_options(&c, argc, argv, "g", longs, e) < 0)
        goto out;
    if (c.nargs < 1 || strcmp(c.args[0], "network") != 0) {
        usage(c.verb, e);
        goto out;
    }
    c.args++;
    c.nargs--;
    if (take_scope(&c, &scope, 1, e) < 0 || read_rules(&rules, &c, deny, e) < 0 ||
        policy_add(scope, rules.list, rules.n, e) < 0)
        goto out;
    rc = 0;
    remark(&rules);
    for (size_t i = 0; i < rules.n; i++) {
        char text[RULE_TEXT_MAX];
        rule_format(text, &rules.list[i]);
        printf("%s for %s: %s%s%s\n", deny ? "denied" : "allowed", where(scope), text, c.period ? ", for " : "",
               c.period ? c.period : "");
    }
out:
    free(rules.list);
    return rc;
}

static int do_allow(int argc, char **argv, struct err *e)
{
    return change_rules(argc, argv, false, e);
}

static int do_deny(int argc, char **argv, struct err *e)
{
    return change_rules(argc, argv, true, e);
}

/* ---- ls ---- */

struct listing {
    struct table *table;
    json_t *json;
    size_t shown, hidden;
};

static void list_rule(struct listing *l, const struct rule *r, const char *scope)
{
    char text[RULE_TEXT_MAX], until[32] = "";
    rule_format(text, r);
    if (r->expires) {
        struct tm tm;
        time_t t = (time_t)r->expires;
        localtime_r(&t, &tm);
        if (t <= time(NULL))
            snprintf(until, sizeof until, "expired");
        else
            strftime(until, sizeof until, "%Y-%m-%d %H:%M", &tm);
    }
    l->shown++;
    if (l->json) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "scope", scope, "id", r->id, "action", r->deny ? "deny" : "allow",
                              "target", text);
        if (r->expires)
            json_object_set_new(o, "expires", json_integer(r->expires));
        if (r->comment[0])
            json_object_set_new(o, "comment", json_string(r->comment));
        json_array_append_new(json_object_get(l->json, "rules"), o);
        return;
    }
    const char *cells[] = {r->id, scope, r->deny ? "deny" : "allow", text, until, r->comment};
    table_add(l->table, cells);
}

/* The rules of one policy that come from `origin`. */
static void list_rules(struct listing *l, const struct policy *p, enum rule_origin origin, const char *scope, bool show)
{
    size_t n;
    const struct rule *r = policy_rules(p, &n);
    for (size_t i = 0; i < n; i++) {
        if (r[i].origin != origin)
            continue;
        if (show)
            list_rule(l, &r[i], scope);
        else
            l->hidden++;
    }
}

static int note_error(const struct policy *p, struct listing *l, struct err *e)
{
    if (!policy_error(p))
        return 0;
    if (l->json)
        json_object_set_new(l->json, "error", json_string(policy_error(p)));
    return err_set(e, STATUS_FAILED, "the policy cannot be read, so everything is denied: %s", policy_error(p));
}

static int do_ls(int argc, char **argv, struct err *e)
{
    static const struct option longs[] = {{"json", no_argument, NULL, 'j'}, {"all", no_argument, NULL, 'a'},
                                          {"global", no_argument, NULL, 'g'}, {0}};
    static const char *const heads[] = {"ID", "WHERE", "ACTION", "TARGET", "EXPIRES", "COMMENT", NULL};
    struct call c = {.verb = "ls"};
    struct listing l = {0};
    char **names = NULL;
    int nnames = 0, rc;
    if (read_options(&c, argc, argv, "ga", longs, e) < 0 || (c.nargs > 1 && usage("ls", e) < 0))
        return -1;
    const char *only = c.nargs ? c.args[0] : NULL;
    if (only && need_sandbox(only, e) < 0)
        return -1;
    struct policy *p = policy_load(only);
    if (!p)
        return err_set(e, STATUS_FAILED, "out of memory");
    enum posture chosen = policy_posture(p), posture = chosen ? chosen : POSTURE_BALANCED;
    if (c.json)
        l.json = json_pack("{s:s, s:b, s:[]}", "posture", posture_name(posture), "chosen", chosen != POSTURE_UNSET, "rules");
    else
        l.table = table_new(heads);
    rc = note_error(p, &l, e);
    list_rules(&l, p, RULE_SANDBOX, only ? only : "", true);
    list_rules(&l, p, RULE_GLOBAL, "global", true);
    if (!only && !c.global) {
        nnames = record_list(&names, NULL);
        for (int i = 0; i < nnames; i++) {
            struct policy *own = policy_load(names[i]);
            if (own && !policy_error(p) && note_error(own, &l, e) < 0)
                rc = -1;
            if (own)
                list_rules(&l, own, RULE_SANDBOX, names[i], true);
            policy_free(own);
        }
        if (nnames > 0)
            record_list_free(names, nnames);
    }
    list_rules(&l, p, RULE_PRESET, posture_name(posture), c.all);
    if (l.json) {
        json_dumpf(l.json, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        printf("posture: %s%s\n", posture_name(posture),
               chosen ? "" : " (not chosen yet; to choose: sbx policy set-default open|balanced|locked-down)");
        table_print(l.table, stdout);
        if (l.hidden)
            printf("%s %zu entries of the posture (sbx policy ls --all shows them)\n", l.shown ? "and" : "no rules, but",
                   l.hidden);
        else if (!l.shown)
            printf("no rules\n");
    }
    json_decref(l.json);
    table_free(l.table);
    policy_free(p);
    return rc;
}

/* ---- rm, reset, set-default ---- */

static int do_rm(int argc, char **argv, struct err *e)
{
    struct call c = {.verb = "rm"};
    const char *scope;
    if (read_options(&c, argc, argv, "g", global_only, e) < 0 || take_scope(&c, &scope, 1, e) < 0)
        return -1;
    for (int i = 0; i < c.nargs; i++) {
        char *save = NULL;
        for (char *t = strtok_r(c.args[i], ",", &save); t; t = strtok_r(NULL, ",", &save)) {
            int n = policy_remove(scope, t, e);
            if (n < 0)
                return -1;
            if (n == 0)
                return err_set(e, STATUS_FAILED, "no rule \"%s\" for %s; sbx policy ls lists them", t, where(scope));
            printf("removed for %s: %s\n", where(scope), t);
        }
    }
    return 0;
}

static int do_reset(int argc, char **argv, struct err *e)
{
    struct call c = {.verb = "reset"};
    if (read_options(&c, argc, argv, "g", global_only, e) < 0)
        return -1;
    if (c.nargs > 1 || (c.nargs && c.global))
        return usage("reset", e);
    const char *scope = c.nargs ? c.args[0] : NULL;
    if ((scope && need_sandbox(scope, e) < 0) || policy_reset(scope, e) < 0)
        return -1;
    printf("no rules for %s any more%s\n", where(scope),
           scope ? "" : "; the posture is balanced until another is chosen");
    return 0;
}

static int do_set_default(int argc, char **argv, struct err *e)
{
    static const char *const means[] = {
        [POSTURE_OPEN] = "everything outside is allowed; this host and private networks are not",
        [POSTURE_BALANCED] = "denied, but for what development needs (sbx policy ls --all)",
        [POSTURE_LOCKED] = "nothing is allowed until a rule says so, the model's provider included",
    };
    struct call c = {.verb = "set-default"};
    if (read_options(&c, argc, argv, "g", global_only, e) < 0)
        return -1;
    if (c.nargs < 1 || c.nargs > 2 || (c.nargs == 2 && c.global))
        return usage("set-default", e);
    enum posture p = posture_parse(c.args[0]);
    const char *scope = c.nargs == 2 ? c.args[1] : NULL;
    if (p == POSTURE_UNSET)
        return err_set(e, STATUS_USAGE, "there is no posture \"%s\": open (allow-all), balanced or locked-down (deny-all)",
                       c.args[0]);
    if ((scope && need_sandbox(scope, e) < 0) || policy_set_posture(scope, p, e) < 0)
        return -1;
    printf("%s for %s: %s\n", posture_name(p), where(scope), means[p]);
    return 0;
}

/* ---- check ---- */

static int do_check(int argc, char **argv, struct err *e)
{
    static const struct option longs[] = {{"json", no_argument, NULL, 'j'}, {"sandbox", required_argument, NULL, 's'}, {0}};
    struct call c = {.verb = "check"};
    struct rule r = {0};
    struct decision d;
    if (read_options(&c, argc, argv, "s:", longs, e) < 0 || (c.nargs != 1 && usage("check", e) < 0))
        return -1;
    if (c.sandbox && need_sandbox(c.sandbox, e) < 0)
        return -1;
    /* The question has the form of a rule for one host or address. */
    if (rule_parse(&r, c.args[0], e) < 0)
        return -1;
    if (r.kind == RULE_LABEL || r.kind == RULE_DEPTH || rule_is_conditional(&r) ||
        (r.kind == RULE_RANGE && r.prefix != (r.family == 4 ? 32 : 128)))
        return err_set(e, STATUS_USAGE, "\"%s\": one host or address is checked, with an optional port", c.args[0]);
    uint16_t port = rule_has_port(&r) ? r.port_low : 443;
    struct policy *p = policy_load(c.sandbox);
    if (!p)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (r.kind == RULE_RANGE)
        policy_decide_addr(p, r.family, r.addr, port, time(NULL), &d);
    else
        policy_decide_name(p, r.host, port, time(NULL), &d);
    bool allow = d.allow && !d.http;
    char text[RULE_TEXT_MAX];
    r.port_low = r.port_high = port;
    rule_format(text, &r);
    if (c.json) {
        json_t *o = json_pack("{s:s, s:b, s:s}", "target", text, "allow", allow, "by", d.text);
        if (policy_error(p))
            json_object_set_new(o, "error", json_string(policy_error(p)));
        json_dumpf(o, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(o);
    } else {
        printf("%s: %s by %s\n", text, allow ? "allowed" : "denied", d.text);
        if (allow && !d.exact)
            printf("  as long as it resolves to addresses outside of this host and its private networks\n");
        if (d.http)
            printf("  the rule speaks of methods or paths, which only intercepted HTTP can be held to\n");
        else if (!allow && policy_error(p))
            printf("  %s\n", policy_error(p));
        else if (!allow && d.rule)
            printf("  to remove that rule: sbx policy rm %s %s\n",
                   d.rule->origin == RULE_GLOBAL ? "-g" : c.sandbox, d.rule->id);
        else if (!allow)
            printf("  to allow it: sbx policy allow network %s %s\n", c.sandbox ? c.sandbox : "-g", text);
    }
    policy_free(p);
    if (!allow && e)
        e->status = STATUS_DENIED; /* status 1, and nothing more to say */
    return allow ? 0 : -1;
}

/* ---- export, import ---- */

static int do_export(int argc, char **argv, struct err *e)
{
    struct call c = {.verb = "export"};
    if (read_options(&c, argc, argv, "g", global_only, e) < 0 || (c.nargs > 1 && usage("export", e) < 0))
        return -1;
    if (c.nargs && need_sandbox(c.args[0], e) < 0)
        return -1;
    json_t *o = policy_export(c.nargs ? c.args[0] : NULL, e);
    if (!o)
        return -1;
    json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    putchar('\n');
    json_decref(o);
    return 0;
}

static int do_import(int argc, char **argv, struct err *e)
{
    struct call c = {.verb = "import"};
    json_error_t why;
    if (read_options(&c, argc, argv, "g", global_only, e) < 0)
        return -1;
    if (c.nargs < 1 || c.nargs > 2 || (c.nargs == 2 && c.global))
        return usage("import", e);
    const char *scope = c.nargs == 2 ? c.args[0] : NULL, *file = c.args[c.nargs - 1];
    if (scope && need_sandbox(scope, e) < 0)
        return -1;
    json_t *o = strcmp(file, "-") == 0 ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &why)
                                       : json_load_file(file, JSON_REJECT_DUPLICATES, &why);
    if (!o)
        return err_set(e, STATUS_USAGE, "%s: line %d: %s", file, why.line, why.text);
    int rc = json_is_object(o) ? policy_import(scope, o, e) : err_set(e, STATUS_USAGE, "a policy is a JSON object");
    if (rc < 0)
        err_wrap(e, "nothing was changed: %s", file);
    else
        printf("imported for %s: %zu rules\n", where(scope), json_array_size(json_object_get(o, "rules")));
    json_decref(o);
    return rc < 0 ? -1 : 0;
}

/* ---- the table ---- */

static int do_help(int argc, char **argv, struct err *e);

static const struct policy_verb verbs[] = {
    {"allow", "network [-g | SANDBOX] RULE[,RULE...] [--for TIME] [--comment TEXT]", "allow hosts, wildcards, addresses, ranges"},
    {"deny", "network [-g | SANDBOX] RULE[,RULE...] [--for TIME] [--comment TEXT]", "deny them; a denial wins over any allowance"},
    {"ls", "[SANDBOX] [--all] [--json]", "the posture and the rules in force"},
    {"rm", "[-g | SANDBOX] ID|RULE...", "remove rules"},
    {"reset", "[SANDBOX]", "remove all rules; without SANDBOX the global ones and the choice of posture"},
    {"set-default", "open|balanced|locked-down [SANDBOX]", "choose the posture (also allow-all, deny-all)"},
    {"log", "[SANDBOX...] [--raw] [--follow] [--since TIME] [--host TEXT] [--verdict allow|deny|fail] [--limit N] [--json] [--verify]",
     "what was tried"},
    {"check", "HOST[:PORT] [--sandbox NAME] [--json]", "what would happen, and by which rule"},
    {"export", "[SANDBOX]", "the rules as JSON"},
    {"import", "[SANDBOX] FILE|-", "replace the rules by those of a file"},
    {"help", "", "this list"},
    {NULL, NULL, NULL},
};

/* In the order of verbs. */
static int (*const runs[])(int, char **, struct err *) = {
    do_allow, do_deny, do_ls, do_rm, do_reset, do_set_default, policy_log_command, do_check, do_export, do_import, do_help,
};

const struct policy_verb *policy_verbs(void)
{
    return verbs;
}

static int usage(const char *verb, struct err *e)
{
    for (const struct policy_verb *v = verbs; v->name; v++)
        if (strcmp(v->name, verb) == 0)
            return err_set(e, STATUS_USAGE, "usage: sbx policy %s %s", v->name, v->synopsis);
    return -1;
}

static int do_help(int argc, char **argv, struct err *e)
{
    (void)argc;
    (void)argv;
    (void)e;
    for (const struct policy_verb *v = verbs; v->name; v++)
        printf("sbx policy %s %s\n    %s\n", v->name, v->synopsis, v->help);
    printf("\nRULE: example.com  *.example.com (one label)  **.example.com (any depth)  192.0.2.7  10.0.0.0/8\n"
           "      localhost:1234 (a service of this host; host.docker.internal:1234 in the sandbox)\n"
           "      each with an optional :PORT or :LOW-HIGH; TIME: 30m, 1h, 7d\n");
    return 0;
}

int policy_command(int argc, char **argv)
{
    struct err e = {0};
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    for (size_t i = 0; verbs[i].name; i++) {
        if (strcmp(verbs[i].name, name) != 0)
            continue;
        if (argc > 2 && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0)) {
            printf("usage: sbx policy %s %s\n%s\n", verbs[i].name, verbs[i].synopsis, verbs[i].help);
            return STATUS_OK;
        }
        int rc = runs[i](argc > 1 ? argc - 1 : argc, argc > 1 ? argv + 1 : argv, &e);
        if (rc < 0 && e.text[0])
            fprintf(stderr, "sbx: %s\n", e.text);
        if (rc < 0)
            return e.status == STATUS_USAGE ? STATUS_USAGE : STATUS_FAILED;
        return fflush(stdout) == 0 ? STATUS_OK : STATUS_FAILED;
    }
    fprintf(stderr, "sbx: there is no command \"sbx policy %s\"; see sbx policy help\n", name);
    return STATUS_USAGE;
}
