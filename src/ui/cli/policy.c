/* sbx policy ... */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/decisions.h"
#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/policy.h"
#include "ui/cli/sandbox.h"

#define RULES_MAX 256

/* "90s", "15m", "1h", "7d" to seconds. */
static int duration(const char *text, long long *out, struct err *e)
{
    char *end;
    long long n = strtoll(text, &end, 10);
    long long unit = *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 0;
    if (end == text || n <= 0 || !unit || end[1])
        return err_set(e, STATUS_USAGE, "\"%s\" is no time; write 30s, 15m, 1h or 7d", text);
    *out = n * unit;
    return 0;
}

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
    return rc < 0 && why.status == STATUS_NOT_FOUND ? err_set(e, STATUS_NOT_FOUND, "%s", why.text) : 0;
}

/* Whose policy: -g, or the first word if it is a sandbox.  *next: where the other words begin. */
static int scope(const struct args *a, int first, const char **sandbox, int *next, struct err *e)
{
    *sandbox = NULL;
    *next = first;
    if (args_has(a, "global"))
        return 0;
    if (a->nwords <= first)
        return err_set(e, STATUS_USAGE, "for which sandbox? Give its name, or -g for all");
    if (need_sandbox(a->words[first], NULL) < 0)
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
        if (rule_warning(&rules[i]))
            out_notice("%s: %s", text, rule_warning(&rules[i]));
        for (size_t k = 0; k < n && !base; k++)
            base = rules[k].kind == RULE_HOST && strcmp(rules[k].host, rules[i].host) == 0;
        if (!base)
            out_notice("%s does not cover %s itself", text, rules[i].host);
    }
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
    if (scope(a, 1, &sandbox, &next, e) < 0 || (life && duration(life, &seconds, e) < 0))
        goto out;
    if (next >= a->nwords) {
        err_set(e, STATUS_USAGE, "which hosts? For example: sbx policy %s network -g api.example.com", deny ? "deny" : "allow");
        goto out;
    }
    for (int i = next; i < a->nwords; i++) {
        char *copy = strdup(a->words[i]), *save = NULL;
        for (char *t = copy ? strtok_r(copy, ",", &save) : NULL; t; t = strtok_r(NULL, ",", &save)) {
            t += strspn(t, " \t\n");
            if (!*t)
                continue;
            if (n == RULES_MAX) {
                err_set(e, STATUS_USAGE, "at most %d rules at once", RULES_MAX);
                free(copy);
                goto out;
            }
            if (rule_parse(&rules[n], t, e) < 0) {
                free(copy);
                goto out;
            }
            if (rule_is_conditional(&rules[n]) && rules[n].kind == RULE_RANGE) {
                err_set(e, STATUS_USAGE,
                        "\"%s\": methods and paths are judged by the name of a host, not by an address; name the host", t);
                free(copy);
                goto out;
            }
            rules[n].deny = deny;
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
    rc = policy_add(sandbox, rules, n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        char text[RULE_TEXT_MAX];
        rule_format(text, &rules[i]);
        printf("%s %s (%s)\n", deny ? "denied" : "allowed", text, sandbox ? sandbox : "all sandboxes");
    }
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

struct listing {
    struct table *table;
    json_t *rules;
    size_t hidden;
};

static void list_rule(struct listing *l, const struct rule *r, const char *scope_text)
{
    char text[RULE_TEXT_MAX], expires[40] = "never";
    rule_format(text, r);
    long long left = r->expires - (long long)time(NULL);
    if (r->expires)
        snprintf(expires, sizeof expires, left <= 0 ? "expired" : left < 3600 ? "in %lldm" : "in %lldh",
                 left < 3600 ? left / 60 + 1 : left / 3600);
    if (l->rules) {
        json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", r->id, "action", r->deny ? "deny" : "allow", "rule", text,
                              "scope", scope_text, "comment", r->comment);
        if (r->expires)
            json_object_set_new(o, "expires", json_integer(r->expires));
        json_array_append_new(l->rules, o);
        return;
    }
    const char *cells[] = {r->deny ? "deny" : "allow", text, scope_text, expires, r->id, r->comment};
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
            list_rule(l, &rules[i], scope_text);
    }
}

/* Each sandbox's own rules; the first error of their files, if any. */
static void list_sandboxes(struct listing *l, char *error, size_t cap)
{
    char **names;
    int n = record_list(&names, NULL);
    for (int i = 0; i < n; i++) {
        struct policy *own = policy_load(names[i]);
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
    static const char *const headers[] = {"ACTION", "RULE", "SCOPE", "EXPIRES", "ID", "COMMENT"};
    const char *sandbox = a->nwords ? a->words[0] : NULL;
    char error[700] = "";
    if (sandbox && need_sandbox(sandbox, e) < 0)
        return -1;
    struct policy *p = policy_load(sandbox);
    if (!p)
        return err_set(e, STATUS_FAILED, "out of memory");
    bool json = args_has(a, "json");
    struct listing l = {json ? NULL : table_new(6, headers), json ? json_array() : NULL, 0};
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
        if (error[0])
            json_object_set_new(o, "error", json_string(error));
        out_json(o);
        json_decref(o);
    } else {
        printf("posture: %s%s\n", posture_name(posture), policy_posture(p) ? "" : " (not chosen yet)");
        table_print(l.table);
        if (l.hidden)
            printf("and %zu rules of the preset (--all shows them)\n", l.hidden);
    }
    json_decref(l.rules);
    policy_free(p);
    return error[0] ? err_set(e, STATUS_FAILED, "%s", error) : 0;
}

int cmd_policy_rm(const struct args *a, struct err *e)
{
    const char *sandbox;
    int next, missing = 0;
    if (scope(a, 0, &sandbox, &next, e) < 0)
        return -1;
    if (next < a->nwords && strcmp(a->words[next], "network") == 0)
        next++;
    if (next >= a->nwords)
        return err_set(e, STATUS_USAGE, "which rule? Give its text or its id; sbx policy ls shows them");
    for (int i = next; i < a->nwords; i++) {
        char *copy = strdup(a->words[i]), *save = NULL;
        for (char *t = copy ? strtok_r(copy, ",", &save) : NULL; t; t = strtok_r(NULL, ",", &save)) {
            int n = policy_remove(sandbox, t, e);
            if (n < 0) {
                free(copy);
                return -1;
            }
            if (n == 0) {
                char text[200];
                snprintf(text, sizeof text, "there is no rule \"%.100s\" for %s", t, sandbox ? sandbox : "all sandboxes");
                out_error(text);
                missing = STATUS_NOT_FOUND;
            }
        }
        free(copy);
    }
    return missing;
}

int cmd_policy_reset(const struct args *a, struct err *e)
{
    const char *sandbox = a->nwords ? a->words[0] : NULL;
    if (sandbox && need_sandbox(sandbox, e) < 0)
        return -1;
    if (isatty(0) && isatty(2) && !args_has(a, "force") && !ask_yes("Remove every rule and go back to the default posture?"))
        return err_set(e, STATUS_FAILED, "nothing was changed");
    return policy_reset(sandbox, e);
}

int cmd_policy_default(const struct args *a, struct err *e)
{
    enum posture p = posture_parse(a->words[0]);
    if (p == POSTURE_UNSET)
        return err_set(e, STATUS_USAGE, "\"%s\" is no posture; there are open, balanced and locked-down", a->words[0]);
    const char *sandbox = a->nwords > 1 ? a->words[1] : NULL;
    if ((sandbox && need_sandbox(sandbox, e) < 0) || policy_set_posture(sandbox, p, e) < 0)
        return -1;
    printf("posture: %s (%s)\n", posture_name(p), sandbox ? sandbox : "all sandboxes");
    return 0;
}

/* ---- the log ---- */

#define RAW_LIMIT 1000 /* rows shown of each sandbox when nothing else was asked for */

/* "10m" ago, or a local date and time. */
static int since_ms(const char *text, int64_t *out, struct err *e)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M",
                                        "%Y-%m-%d"};
    long long ago;
    if (duration(text, &ago, NULL) == 0) {
        *out = ((int64_t)time(NULL) - ago) * 1000;
        return 0;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm tm = {.tm_isdst = -1};
        const char *end = strptime(text, forms[i], &tm);
        if (end && *end == '\0') {
            *out = (int64_t)mktime(&tm) * 1000;
            return 0;
        }
    }
    return err_set(e, STATUS_USAGE, "\"%s\" is no time; write 10m, 1h, 7d or 2026-01-31T12:00", text);
}

struct show {
    const char *sandbox;
    struct table *table;
    json_t *list;
    bool raw;
    int64_t last;
};

static bool show_row(const struct decision_row *r, void *arg)
{
    struct show *s = arg;
    char when[40], port[16], count[24], bytes[40] = "";
    time_t t = (time_t)(r->time_ms / 1000);
    struct tm tm;
    if (r->seq > s->last)
        s->last = r->seq;
    if (s->list) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "sandbox", s->sandbox,
                              "seq", (json_int_t)r->seq, "time_ms", (json_int_t)r->time_ms, "kind", r->kind, "proto", r->proto, "host",
                              r->host, "port", r->port, "address", r->addr, "verdict", r->verdict, "rule", r->rule, "reason",
                              r->reason, "bytes_up", (json_int_t)r->bytes_up, "bytes_down", (json_int_t)r->bytes_down, "duration_ms",
                              (json_int_t)r->duration_ms, "count", (json_int_t)r->count);
        if (o)
            json_array_append_new(s->list, o);
        return true;
    }
    strftime(when, sizeof when, s->raw ? "%m-%d %H:%M:%S" : "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
    snprintf(port, sizeof port, "%d", r->port);
    snprintf(count, sizeof count, "%lld", (long long)r->count);
    if (r->bytes_up || r->bytes_down)
        snprintf(bytes, sizeof bytes, "%s/%s", human_bytes(r->bytes_up), human_bytes(r->bytes_down));
    if (s->raw) {
        const char *cells[] = {when, s->sandbox, r->kind, r->verdict, r->proto, r->host, port, r->rule, r->reason, count, bytes};
        table_row(s->table, cells);
    } else {
        const char *cells[] = {s->sandbox, r->verdict, r->proto, r->host, port, r->rule[0] ? r->rule : r->reason, when, count, bytes};
        table_row(s->table, cells);
    }
    return true;
}

static struct table *log_table(bool raw)
{
    static const char *const grouped[] = {"SANDBOX", "VERDICT", "PROTO", "HOST", "PORT", "RULE", "LAST SEEN", "COUNT", "UP/DOWN"};
    static const char *const each[] = {"TIME", "SANDBOX", "KIND", "VERDICT", "PROTO", "HOST", "PORT", "RULE", "REASON", "COUNT", "UP/DOWN"};
    return raw ? table_new(11, each) : table_new(9, grouped);
}

static int show_log(struct show *s, const struct decisions_filter *f, struct err *e)
{
    struct err why = {0};
    char *path = path_sandbox(s->sandbox, "log.db", e);
    struct decisions *d = path ? decisions_read(path, &why) : NULL;
    int rc = 0;
    free(path);
    if (!d) {
        if (why.status == STATUS_NOT_FOUND)
            return 0; /* nothing was tried yet */
        if (e)
            *e = why;
        return -1;
    }
    rc = s->raw ? decisions_each(d, f, show_row, s, e) : decisions_grouped(d, f, show_row, s, e);
    decisions_close(d);
    return rc;
}

static int verify(char **names, int n, struct err *e)
{
    int bad = 0;
    for (int i = 0; i < n; i++) {
        struct err why = {0};
        int64_t rows = 0;
        char *path = path_sandbox(names[i], "log.db", e);
        struct decisions *d = path ? decisions_read(path, &why) : NULL;
        free(path);
        if (!d) {
            printf("%s: %s\n", names[i], why.text);
            bad |= why.status != STATUS_NOT_FOUND;
        } else if (decisions_verify(d, &rows, &why) == 0) {
            printf("%s: %lld rows, unbroken\n", names[i], (long long)rows);
        } else {
            printf("%s: BROKEN: %s\n", names[i], why.text);
            bad = 1;
        }
        decisions_close(d);
    }
    return bad ? STATUS_FAILED : 0;
}

int cmd_policy_log(const struct args *a, struct err *e)
{
    char **names = NULL;
    int n, rc = 0;
    long limit;
    int64_t since = 0;
    const char *verdict = args_value(a, "verdict");
    bool shown_raw = args_has(a, "raw") || args_has(a, "follow");
    if (args_number(a, "limit", 1, 1000000, shown_raw ? RAW_LIMIT : 0, &limit, e) < 0 ||
        (args_has(a, "since") && since_ms(args_value(a, "since"), &since, e) < 0))
        return -1;
    if (verdict && strcmp(verdict, "allow") && strcmp(verdict, "deny") && strcmp(verdict, "fail"))
        return err_set(e, STATUS_USAGE, "a verdict is allow, deny or fail, not \"%s\"", verdict);
    bool follow = args_has(a, "follow"), json = args_has(a, "json"), own = a->nwords > 0;
    if (own) {
        n = a->nwords;
        names = (char **)a->words;
        for (int i = 0; i < n; i++) {
            if (need_sandbox(names[i], e) < 0)
                return -1;
        }
    } else if ((n = record_list(&names, e)) < 0) {
        return -1;
    }
    if (args_has(a, "verify")) {
        rc = verify(names, n, e);
    } else {
        struct decisions_filter f = {.host = args_value(a, "host"), .verdict = args_value(a, "verdict"), .limit = (int)limit,
                                     .since_ms = since};
        int64_t *last = calloc((size_t)n + 1, sizeof *last);
        json_t *list = json ? json_array() : NULL;
        bool raw = args_has(a, "raw") || follow;
        do {
            struct table *t = json ? NULL : log_table(raw);
            bool any = false;
            for (int i = 0; i < n && rc == 0; i++) {
                struct show s = {.sandbox = names[i], .table = t, .list = list, .raw = raw, .last = last[i]};
                f.after_seq = last[i];
                rc = show_log(&s, &f, e);
                any |= s.last != last[i];
                if (follow)
                    last[i] = s.last;
            }
            if (json) {
                if (!follow) {
                    out_json(list);
                } else {
                    size_t i;
                    json_t *o;
                    json_array_foreach(list, i, o) { /* one a line, as they come */
                        json_dumpf(o, stdout, JSON_COMPACT);
                        putchar('\n');
                    }
                    json_array_clear(list);
                }
            } else if (any || !follow) {
                table_print(t);
            } else {
                table_print(NULL);
            }
            if (follow && (fflush(stdout) != 0 || rc < 0))
                break;
            if (follow)
                usleep(300000);
        } while (follow && rc == 0);
        json_decref(list);
        free(last);
    }
    if (!own)
        record_list_free(names, n);
    return rc;
}

int cmd_policy_check(const struct args *a, struct err *e)
{
    const char *sandbox = args_value(a, "sandbox");
    struct rule r = {0};
    struct decision d;
    char text[RULE_TEXT_MAX];
    if (rule_parse(&r, a->words[0], e) < 0)
        return -1;
    if (sandbox && need_sandbox(sandbox, e) < 0)
        return -1;
    if (r.kind == RULE_LABEL || r.kind == RULE_DEPTH || rule_is_conditional(&r) || (r.kind == RULE_RANGE && r.prefix != (r.family == 4 ? 32 : 128)))
        return err_set(e, STATUS_USAGE, "check takes one host or address, not a pattern");
    uint16_t port = r.port_low == r.port_high ? r.port_low : 443;
    struct policy *p = policy_load(sandbox);
    if (!p)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (r.kind == RULE_RANGE)
        policy_decide_addr(p, r.family, r.addr, port, time(NULL), &d);
    else
        policy_decide_name(p, r.host, port, time(NULL), &d);
    r.port_low = r.port_high = port;
    rule_format(text, &r);
    bool allow = d.allow && !d.http;
    if (args_has(a, "json")) {
        json_t *o = json_pack("{s:s, s:s, s:s}", "target", text, "verdict", allow ? "allow" : "deny", "by", d.text);
        if (policy_error(p))
            json_object_set_new(o, "error", json_string(policy_error(p)));
        out_json(o);
        json_decref(o);
    } else {
        printf("%s: %s, by %s\n", text, allow ? "allowed" : "denied", d.text);
        if (policy_error(p))
            out_error(policy_error(p));
        else if (allow && !d.exact)
            printf("  as long as it resolves to addresses outside of this host and its private networks\n");
        else if (d.http)
            printf("  that rule speaks of methods or paths, which only intercepted HTTP can be held to\n");
        else if (!allow && d.rule)
            printf("  to take that rule back: sbx policy rm %s %s\n",
                   d.rule->origin == RULE_GLOBAL || !sandbox ? "-g" : sandbox, d.rule->id);
        else if (!allow)
            printf("  to allow it: sbx policy allow network %s %s\n", sandbox ? sandbox : "-g", text);
    }
    policy_free(p);
    return allow ? 0 : STATUS_DENIED;
}

int cmd_policy_export(const struct args *a, struct err *e)
{
    if (a->nwords && need_sandbox(a->words[0], e) < 0)
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
    if (a->nwords > 1 && need_sandbox(a->words[1], e) < 0)
        return -1;
    json_t *o = strcmp(a->words[0], "-") == 0 ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &je) : jsonfile_read(a->words[0], e);
    if (!o)
        return strcmp(a->words[0], "-") == 0 ? err_set(e, STATUS_USAGE, "standard input, line %d: %s", je.line, je.text) : -1;
    int rc = policy_import(a->nwords > 1 ? a->words[1] : NULL, o, e);
    json_decref(o);
    return rc;
}
