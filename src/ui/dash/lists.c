/* Rules, secrets and settings: what `sbx policy|secret|config ls --json` gives, and forms that run the same commands. */
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/config.h"
#include "core/paths.h"
#include "core/record.h"
#include "core/publishers.h"
#include "core/rule.h"
#include "core/service.h"
#include "ui/cli/sandbox.h"
#include "ui/dash/app_int.h"
#include "ui/dash/form.h"
#include "ui/dash/paint.h"
#include "ui/dash/table.h"
#include "ui/dash/task.h"
#include "ui/dash/text.h"

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static char rules_box[RECORD_NAME_MAX + 1]; /* whose rules are listed */
static char rules_posture[24];              /* in force for them */

/* ---- rules ---- */

/* How `sbx policy ls --json` names the scope of rules for all sandboxes. */
static bool is_all(const char *scope)
{
    return strcmp(scope, "all") == 0;
}

static json_t *rules_list(const json_t *printed)
{
    return json_object_get(printed, "rules");
}

static bool rules_row(struct table_pane *t, const char *key, json_t *o, struct table_row *out)
{
    const char *scope = text(o, "scope");
    json_int_t expires = json_integer_value(json_object_get(o, "expires"));
    (void)key;
    if (strcmp(scope, "preset") == 0 && !table_flag(t))
        return false;
    bool deny = strcmp(text(o, "action"), "deny") == 0, off = json_is_true(json_object_get(o, "disabled")), waits = json_is_true(json_object_get(o, "waits"));
    snprintf(out->cell[0], TABLE_CELL, "%s %s", deny ? app_glyph("✗", "x") : app_glyph("✓", "+"), off ? "off" : waits ? "waits" : text(o, "action"));
    snprintf(out->cell[1], TABLE_CELL, "%s", text(o, "rule"));
    snprintf(out->cell[2], TABLE_CELL, "%s", is_all(scope) ? "all sandboxes" : strcmp(scope, "preset") == 0 ? "preset" : scope);
    if (expires) {
        char span[32];
        paint_span(expires - time(NULL), span, sizeof span);
        snprintf(out->cell[3], TABLE_CELL, "%s", span);
    }
    snprintf(out->cell[4], TABLE_CELL, "%s", text(o, "comment"));
    out->style = off || waits ? ST_DIM : deny ? ST_DENY : ST_ALLOW;
    return true;
}

static void rules_head(struct table_pane *t, const json_t *printed, char *out, size_t cap)
{
    const char *error = text(printed, "error");
    snprintf(rules_posture, sizeof rules_posture, "%s", text(printed, "posture"));
    if (error[0])
        snprintf(out, cap, "%s The policy cannot be read, everything is denied: %s", app_glyph("▲", "!"), error);
    else
        snprintf(out, cap, "%s%s   Posture: %s   g %s the preset's rules", rules_box[0] ? "Rules of " : "Rules of all sandboxes", rules_box,
                 text(printed, "posture"), table_flag(t) ? "hides" : "shows");
}

static bool check_rule(const char *value, char *why, size_t cap)
{
    struct rule r = {0};
    struct err e = {0};
    if (rule_parse(&r, value, &e) == 0)
        return true;
    snprintf(why, cap, "%s", e.text);
    return false;
}

/* What `sbx policy check` takes: what a program dials, no pattern. */
static bool check_host(const char *value, char *why, size_t cap)
{
    struct rule r = {0};
    struct err e = {0};
    if (!value[0])
        return true; /* asked for when it is sent */
    if (rule_parse(&r, value, &e) < 0) {
        snprintf(why, cap, "%s", e.text);
        return false;
    }
    if (r.kind == RULE_HOST ? !rule_is_conditional(&r) : r.kind == RULE_RANGE && r.prefix == (r.family == 4 ? 32 : 128))
        return true;
    snprintf(why, cap, "one host or address, not a pattern");
    return false;
}

static void preview_rule(const char *const *v, char *out, size_t cap, void *arg)
{
    struct rule r = {0};
    char canonical[RULE_TEXT_MAX];
    (void)arg;
    if (!v[1][0] || rule_parse(&r, v[1], NULL) < 0)
        return;
    rule_format(canonical, &r);
    const char *warning = strcmp(v[0], "allow") == 0 ? publishers_warning(&r) : NULL;
    snprintf(out, cap, "It will stand as: %s %s%s%s", v[0], canonical, warning ? ". Mind: " : "", warning ? warning : "");
}

#define AS_IT_IS "as it is"
#define AT_REST "at rest: it says nothing"

struct rule_job {
    struct table_pane *t;
    json_int_t expires;   /* of the old one; 0: never */
    bool edits, rests;
    char old[RULE_TEXT_MAX], old_scope[RECORD_NAME_MAX + 1]; /* "": all sandboxes */
};

static void rule_ended(struct app *a, const struct task_end *end, bool good, void *arg)
{
    struct rule_job *job = arg;
    table_ran(job->t, a, end, good, job->rests ? "the rule is changed, and rests" : "the rule is in force");
}

static const char *life_of(const char *shown)
{
    static const char *const lives[][2] = {{"an hour", "1h"}, {"a day", "24h"}, {"a week", "7d"}};
    for (size_t i = 0; i < 3; i++)
        if (strcmp(shown, lives[i][0]) == 0)
            return lives[i][1];
    return NULL;
}

static enum form_next submit_rule(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    struct rule_job *job = arg;
    const char *argv[24], *life = life_of(v[3]), *scope = strcmp(v[2], "all sandboxes") == 0 ? "" : v[2];
    char item[RULE_TEXT_MAX * 2];
    size_t n = 0;
    rule_list_item(item, sizeof item, v[1]);
    if (!item[0]) {
        snprintf(why, cap, "which host? For example api.example.com, *.example.com, 10.1.2.3:22, GET api.example.com/v1");
        return FORM_STAYS;
    }
    job->rests = job->edits && strcmp(v[5], AT_REST) == 0;
    argv[n++] = "policy";
    if (!job->edits) {
        argv[n++] = v[0];
        argv[n++] = "network";
    } else { /* all at once: nothing of it is in force without the rest */
        argv[n++] = "edit";
        argv[n++] = job->old_scope[0] ? job->old_scope : "-g";
        argv[n++] = job->old;
        for (const char *const *w = (const char *const[]){"--action", v[0], "--rule", v[1], job->rests ? "--off" : "--on", "--comment", v[4], NULL}; *w; w++)
            argv[n++] = *w;
        if (strcmp(v[3], "for good") == 0 && job->expires)
            argv[n++] = "--for-good";
        if (strcmp(scope, job->old_scope) != 0) {
            argv[n++] = scope[0] ? "--to" : "--to-all";
            if (scope[0])
                argv[n++] = scope;
        }
    }
    if (life) {
        argv[n++] = "--for";
        argv[n++] = life;
    }
    if (!job->edits) {
        if (v[4][0]) {
            argv[n++] = "--comment";
            argv[n++] = v[4];
        }
        argv[n++] = scope[0] ? scope : "-g";
        argv[n++] = item;
    }
    argv[n] = NULL;
    return form_run(form, &(struct form_run){.argv = argv, .ended = rule_ended}, why, cap);
}

/* A rule as commands take it: by its text, which stays true when an edit gives it another id meanwhile. */
static const char *word_for(const struct table_row *r)
{
    const char *rule = text(r->data, "rule");
    return text(r->data, "id")[0] && (strchr(rule, ',') || strlen(rule) >= RULE_TEXT_MAX) ? text(r->data, "id") : rule;
}

/* For an edit: by its text, which people know it by, but where another one has the same. */
static const char *name_of(struct table_pane *t, const struct table_row *r)
{
    json_t *v;
    size_t i, same = 0;
    json_array_foreach(rules_list(table_printed(t)), i, v)
        same += strcmp(text(v, "rule"), text(r->data, "rule")) == 0 && strcmp(text(v, "scope"), text(r->data, "scope")) == 0;
    return same > 1 && text(r->data, "id")[0] ? text(r->data, "id") : text(r->data, "rule");
}

static char scopes[200], lives_of_old[120];

static void rule_form(struct table_pane *t, const char *verb, const struct table_row *old)
{
    struct rule_job *job = calloc(1, sizeof *job);
    bool global = !old || is_all(text(old->data, "scope"));
    if (!job)
        return;
    job->t = t;
    if (old) {
        job->edits = true;
        snprintf(job->old, sizeof job->old, "%s", name_of(t, old));
        job->expires = json_integer_value(json_object_get(old->data, "expires"));
        if (!global)
            snprintf(job->old_scope, sizeof job->old_scope, "%.48s", text(old->data, "scope"));
    }
    const char *box = !global && old ? text(old->data, "scope") : rules_box;
    if (box[0])
        snprintf(scopes, sizeof scopes, "%s|%s", global ? "all sandboxes" : box, global ? box : "all sandboxes");
    else
        snprintf(scopes, sizeof scopes, "all sandboxes");
    const char *how_long = "for good|an hour|a day|a week";
    bool off = old && json_is_true(json_object_get(old->data, "disabled"));
    if (job->expires) {
        char span[32];
        paint_span(job->expires - time(NULL), span, sizeof span);
        snprintf(lives_of_old, sizeof lives_of_old, AS_IT_IS " (%s)|%s", span, how_long);
        how_long = lives_of_old;
    }
    const struct form_spec spec[] = {
        {.label = "What", .kind = FORM_CHOICE, .choices = "allow|deny", .initial = verb},
        {.label = "Rule", .kind = FORM_TEXT, .initial = old ? text(old->data, "rule") : NULL, .check = check_rule,
         .hint = "HOST[:PORT], *.HOST, an address or range, METHOD HOST/PATH"},
        {.label = "For", .kind = FORM_CHOICE, .choices = scopes},
        {.label = "How long", .kind = FORM_CHOICE, .choices = how_long},
        {.label = "Why", .kind = FORM_TEXT, .initial = old ? text(old->data, "comment") : NULL, .hint = "a word for whoever reads it later"},
        {.label = "State", .kind = FORM_CHOICE, .choices = off ? AT_REST "|in force" : "in force|" AT_REST},
    };
    struct pane *p = form_new(old ? "Edit a rule" : "New rule", spec, old ? 6 : 5, "Save", submit_rule, job, free);
    form_preview(p, preview_rule);
    app_push(table_app(t), p);
}

/* What is denied is an answer as well. */
static bool was_answered(const struct task_end *end)
{
    return end->out && end->out[0];
}

static void tested(struct app *a, const struct task_end *end, bool good, void *arg)
{
    (void)arg;
    if (good)
        app_push(a, text_new("What would happen", end->out, false));
}

/* "GET /v1", in two words. */
static bool check_request(const char *value, char *why, size_t cap)
{
    size_t n = strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-");
    if (n && (!value[n] || (value[n] == ' ' && value[n + 1] == '/' && !strpbrk(value + n + 1, " ?#"))))
        return true;
    snprintf(why, cap, "a method, and perhaps a path without its query: GET /v1/models");
    return false;
}

static enum form_next submit_test(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    const char *argv[12];
    char method[64];
    size_t n = 0, verb = strcspn(v[1], " ");
    (void)arg;
    if (!v[0][0]) {
        snprintf(why, cap, "which host?");
        return FORM_STAYS;
    }
    argv[n++] = "policy";
    argv[n++] = "check";
    argv[n++] = v[0];
    snprintf(method, sizeof method, "%.*s", (int)verb, v[1]);
    if (v[1][0]) {
        argv[n++] = "--method";
        argv[n++] = method;
    }
    if (v[1][0] && v[1][verb]) {
        argv[n++] = "--path";
        argv[n++] = v[1] + verb + 1;
    }
    if (rules_box[0]) {
        argv[n++] = "--sandbox";
        argv[n++] = rules_box;
    }
    argv[n] = NULL;
    return form_run(form, &(struct form_run){.argv = argv, .asks = true, .good = was_answered, .ended = tested}, why, cap);
}

static void posture_ended(struct app *a, const struct task_end *end, bool good, void *arg)
{
    table_ran(arg, a, end, good, "the posture is in force");
}

static enum form_next submit_posture(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    const char *argv[] = {"policy", "set-default", v[0], NULL};
    (void)arg;
    return form_run(form, &(struct form_run){.argv = argv, .ended = posture_ended}, why, cap);
}

struct remove_job {
    struct table_pane *t;
    char a[RECORD_NAME_MAX + 1], b[RULE_TEXT_MAX];
};

static void remove_rule(struct app *a, void *arg)
{
    struct remove_job *j = arg;
    (void)a;
    const char *argv[] = {"policy", "rm", j->a[0] ? j->a : "-g", j->b, NULL};
    table_run(j->t, argv, "the rule is gone");
}

static bool rules_action(struct table_pane *t, const char *what)
{
    const struct table_row *r = table_current(t);
    struct app *a = table_app(t);
    if (strcmp(what, "rules.allow") == 0)
        rule_form(t, "allow", NULL);
    else if (strcmp(what, "rules.deny") == 0)
        rule_form(t, "deny", NULL);
    else if (strcmp(what, "rules.preset") == 0)
        table_toggle(t);
    else if (strcmp(what, "rules.test") == 0) {
        const struct form_spec spec[] = {{.label = "Host", .kind = FORM_TEXT, .check = check_host, .hint = "HOST or HOST:PORT"},
                                         {.label = "Request", .kind = FORM_TEXT, .check = check_request, .hint = "empty: the connection; or like GET /v1/models"}};
        app_push(a, form_new("What would happen?", spec, 2, "Test", submit_test, t, NULL));
    } else if (strcmp(what, "rules.posture") == 0) {
        const struct form_spec spec[] = {
            {.label = "Posture", .kind = FORM_CHOICE, .choices = "balanced|locked-down|open", .initial = rules_posture[0] ? rules_posture : NULL},
            {.label = "balanced: AI services, package registries, code hosts; all else is denied. locked-down: nothing until it is allowed. "
                      "open: everything but what is denied; for throw-away tests.", .kind = FORM_NOTE}};
        app_push(a, form_new("Posture for all sandboxes", spec, 2, "Set", submit_posture, t, NULL));
    } else if (strcmp(what, "rules.edit") == 0 || strcmp(what, "rules.remove") == 0 || strcmp(what, "rules.toggle") == 0) {
        if (!r)
            return true;
        if (strcmp(text(r->data, "scope"), "preset") == 0) {
            app_say(a, SAY_WARN, "a rule of the preset cannot be changed; a rule of your own that denies wins over it");
            return true;
        }
        if (strcmp(what, "rules.toggle") == 0) {
            const char *scope = text(r->data, "scope");
            bool off = json_is_true(json_object_get(r->data, "disabled"));
            const char *argv[] = {"policy", off ? "enable" : "disable", is_all(scope) ? "-g" : scope, word_for(r), NULL};
            table_run(t, argv, off ? "the rule is in force again" : "the rule rests; space wakes it");
            return true;
        }
        if (strcmp(what, "rules.edit") == 0) {
            rule_form(t, text(r->data, "action"), r);
            return true;
        }
        struct remove_job *j = calloc(1, sizeof *j);
        char question[500];
        if (!j)
            return true;
        j->t = t;
        if (!is_all(text(r->data, "scope")))
            snprintf(j->a, sizeof j->a, "%.48s", text(r->data, "scope"));
        snprintf(j->b, sizeof j->b, "%s", word_for(r));
        snprintf(question, sizeof question, "Take back \"%s %.300s\"? Open connections that nothing else allows are cut.", text(r->data, "action"),
                 text(r->data, "rule"));
        app_push(a, confirm_new("Remove a rule", question, "Remove", remove_rule, j, free));
    } else
        return false;
    return true;
}

void app_show_rules(struct app *a)
{
    static const char *argv[6];
    static const struct table_class class = {.context = "rules", .title = "Network rules", .empty = "No rules of your own yet: a allows a host, d denies one.",
                                             .heads = {"", "RULE", "FOR", "EXPIRES", "WHY"}, .widths = {8, -24, 16, 8, 24}, .argv = argv,
                                             .list = rules_list, .row = rules_row, .action = rules_action, .head = rules_head};
    struct box *b = app_box(a);
    snprintf(rules_box, sizeof rules_box, "%s", b ? a->box : "");
    size_t n = 0;
    argv[n++] = "policy";
    argv[n++] = "ls";
    argv[n++] = "--json";
    argv[n++] = "--all";
    if (b)
        argv[n++] = rules_box;
    argv[n] = NULL;
    app_push(a, table_pane_new(a, &class));
}

/* ---- secrets ---- */

static bool secrets_row(struct table_pane *t, const char *key, json_t *o, struct table_row *out)
{
    json_int_t updated = json_integer_value(json_object_get(o, "updated")), expires = json_integer_value(json_object_get(o, "expires"));
    char span[32];
    (void)t;
    (void)key;
    snprintf(out->cell[0], TABLE_CELL, "%s", app_glyph("●", "*"));
    snprintf(out->cell[1], TABLE_CELL, "%s", text(o, "service"));
    snprintf(out->cell[2], TABLE_CELL, "%s", text(o, "sandbox")[0] ? text(o, "sandbox") : "all sandboxes");
    snprintf(out->cell[3], TABLE_CELL, "%s", text(o, "form"));
    paint_span(time(NULL) - updated, span, sizeof span);
    snprintf(out->cell[4], TABLE_CELL, "%s", span);
    snprintf(out->cell[5], TABLE_CELL, "%s", text(o, "hosts"));
    out->style = expires && expires < time(NULL) ? ST_FAILED : ST_GOOD;
    return true;
}

static bool check_value(const char *value, char *why, size_t cap)
{
    struct err e = {0};
    if (service_check_value(value, &e) == 0)
        return true;
    snprintf(why, cap, "%s", e.text);
    return false;
}

static bool secret_exists; /* the form gives a new value to one that is there */

static void secret_ended(struct app *a, const struct task_end *end, bool good, void *arg)
{
    table_ran(arg, a, end, good, secret_exists ? "the secret has its new value; it is in force within a second" : "the secret is set; it is in force within a second");
}

static enum form_next submit_secret(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    const char *argv[8];
    size_t n = 0;
    (void)arg;
    if (!v[2][0]) {
        snprintf(why, cap, "the value is missing");
        return FORM_STAYS;
    }
    argv[n++] = "secret";
    argv[n++] = secret_exists ? "rotate" : "set";
    if (strcmp(v[1], "all sandboxes") == 0)
        argv[n++] = "-g";
    else
        argv[n++] = v[1];
    argv[n++] = v[0];
    argv[n++] = "--password-stdin";
    argv[n] = NULL;
    return form_run(form, &(struct form_run){.argv = argv, .input = v[2], .ended = secret_ended}, why, cap);
}

static char services[900];

static void secret_form(struct table_pane *t, const struct table_row *old)
{
    json_t *names = service_list(), *v;
    size_t i;
    struct app *a = table_app(t);
    const char *first = old ? text(old->data, "service") : "anthropic", *scope = old ? text(old->data, "sandbox") : "";
    snprintf(services, sizeof services, "%s", first);
    secret_exists = old != NULL;
    json_array_foreach(old ? NULL : names, i, v)
        if (strcmp(json_string_value(v), first) != 0)
            snprintf(services + strlen(services), sizeof services - strlen(services), "|%s", json_string_value(v));
    json_decref(names);
    const char *box = scope[0] ? scope : a->box;
    if (old)
        snprintf(scopes, sizeof scopes, "%s", scope[0] ? scope : "all sandboxes");
    else if (box[0])
        snprintf(scopes, sizeof scopes, "%s|%s", scope[0] ? box : "all sandboxes", scope[0] ? "all sandboxes" : box);
    else
        snprintf(scopes, sizeof scopes, "all sandboxes");
    const struct form_spec spec[] = {
        {.label = "Service", .kind = FORM_CHOICE, .choices = services, .hint = old ? "" : "left and right choose"},
        {.label = "For", .kind = FORM_CHOICE, .choices = scopes},
        {.label = "Value", .kind = FORM_SECRET, .check = check_value, .hint = "never shown, never in the sandbox"},
        {.label = "The sandbox holds a sentinel in its place; the value is written into requests on their way out, to the service's hosts alone.",
         .kind = FORM_NOTE},
    };
    app_push(a, form_new(old ? "A new value for a secret" : "Set a secret", spec, 4, "Set", submit_secret, t, NULL));
}

/* The provider's own sign-in is a conversation: it gets the whole terminal until it ends. */
static enum form_next submit_sign_in(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    struct app *a = form->app;
    struct err e = {0};
    char *self = path_command(&e), service[80], scope[RECORD_NAME_MAX + 1];
    snprintf(service, sizeof service, "%s", v[0]);
    snprintf(scope, sizeof scope, "%.*s", RECORD_NAME_MAX, strcmp(v[1], "all sandboxes") == 0 ? "-g" : v[1]);
    char words[3][8] = {"secret", "set", "--oauth"}, *argv[] = {self, words[0], words[1], scope, service, words[2], NULL};
    int status = self ? app_foreground(a, argv, false, &e) : -1;
    free(self);
    table_reload(arg);
    if (status < 0)
        snprintf(why, cap, "%s", e.text);
    else if (status > 0)
        snprintf(why, cap, "no sign-in; in a shell this says why: sbx secret set %s %s --oauth", scope, service);
    else
        app_say(a, SAY_GOOD, "signed in to %s; it is in force within a second", service);
    return status == 0 ? FORM_CLOSES : FORM_STAYS;
}

static void sign_in_form(struct table_pane *t, const struct table_row *r)
{
    json_t *names = service_list(), *v;
    const char *first = r ? text(r->data, "service") : "";
    size_t i;
    services[0] = '\0';
    for (int pass = 0; pass < 2; pass++) /* the selected one first */
        json_array_foreach(names, i, v) {
            const char *name = json_string_value(v);
            json_t *s = (strcmp(name, first) == 0) == !pass ? service_load(name, NULL) : NULL;
            if (json_object_get(s, "oauth"))
                snprintf(services + strlen(services), sizeof services - strlen(services), "%s%s", services[0] ? "|" : "", name);
            json_decref(s);
        }
    json_decref(names);
    const char *box = table_app(t)->box;
    snprintf(scopes, sizeof scopes, "all sandboxes%s%s", box[0] ? "|" : "", box);
    const struct form_spec spec[] = {
        {.label = "Service", .kind = FORM_CHOICE, .choices = services, .hint = "those that have a sign-in"},
        {.label = "For", .kind = FORM_CHOICE, .choices = scopes},
        {.label = "It takes this terminal until it ends (Ctrl-C ends it); sandboxes go on meanwhile.", .kind = FORM_NOTE},
    };
    app_push(table_app(t), form_new("Sign in", spec, 3, "Sign in", submit_sign_in, t, NULL));
}

static void remove_secret(struct app *a, void *arg)
{
    struct remove_job *j = arg;
    (void)a;
    const char *argv[] = {"secret", "rm", j->a[0] ? j->a : "-g", j->b, NULL};
    table_run(j->t, argv, "the secret is gone");
}

static bool secrets_action(struct table_pane *t, const char *what)
{
    const struct table_row *r = table_current(t);
    struct app *a = table_app(t);
    if (strcmp(what, "secrets.set") == 0 || strcmp(what, "secrets.rotate") == 0) {
        secret_form(t, what[8] == 'r' ? r : NULL);
        return true;
    }
    if (strncmp(what, "secrets.", 8) != 0)
        return false;
    if (!r && strcmp(what, "secrets.sign-in") != 0)
        return true;
    if (strcmp(what, "secrets.test") == 0) {
        const char *scope = text(r->data, "sandbox");
        const char *argv[] = {"secret", "test", scope[0] ? scope : text(r->data, "service"), scope[0] ? text(r->data, "service") : NULL, NULL};
        app_say(a, SAY_INFO, "asking the provider…");
        table_run(t, argv, NULL);
    } else if (strcmp(what, "secrets.remove") == 0) {
        struct remove_job *j = calloc(1, sizeof *j);
        char question[300];
        if (!j)
            return true;
        j->t = t;
        snprintf(j->a, sizeof j->a, "%.48s", text(r->data, "sandbox"));
        snprintf(j->b, sizeof j->b, "%.63s", text(r->data, "service"));
        snprintf(question, sizeof question, "Forget the %.60s secret for %s? It is kept nowhere else by sbx.", j->b, j->a[0] ? j->a : "all sandboxes");
        app_push(a, confirm_new("Remove a secret", question, "Remove", remove_secret, j, free));
    } else if (strcmp(what, "secrets.sign-in") == 0) {
        sign_in_form(t, r);
    } else
        return false;
    return true;
}

void app_show_secrets(struct app *a)
{
    static const char *const argv[] = {"secret", "ls", "--json", NULL};
    static const struct table_class class = {.context = "secrets", .title = "Secrets", .empty = "No secrets yet: a sets one.",
                                             .heads = {"", "SERVICE", "FOR", "FORM", "AGE", "WRITTEN TO"}, .widths = {1, 14, 16, 7, 7, -20},
                                             .argv = argv, .row = secrets_row, .action = secrets_action};
    app_push(a, table_pane_new(a, &class));
}

/* ---- settings ---- */

/* Could it stand in a list with commas? */
static bool plain_item(const char *key, const json_t *item)
{
    const char *v = json_string_value(item);
    return v && v[0] && !strchr(v, ',') && (!key || (key[0] && !strpbrk(key, ",=")));
}

/* As `sbx config set` takes it; false: not all of it fits. */
static bool setting_text(json_t *v, char *out, size_t cap)
{
    size_t used = 0, i;
    const char *key;
    json_t *item;
    bool plain = true;
    json_array_foreach(v, i, item)
        plain = plain && plain_item(NULL, item);
    if (json_is_object(v))
        json_object_foreach(v, key, item)
            plain = plain && plain_item(key, item);
    out[0] = '\0';
    if (plain && json_is_array(v)) {
        json_array_foreach(v, i, item)
            if (used < cap)
                used += (size_t)snprintf(out + used, cap - used, "%s%s", i ? "," : "", json_string_value(item));
    } else if (plain && json_is_object(v)) {
        json_object_foreach(v, key, item)
            if (used < cap)
                used += (size_t)snprintf(out + used, cap - used, "%s%s=%s", used ? "," : "", key, json_string_value(item));
    } else if (json_is_string(v)) {
        used = (size_t)snprintf(out, cap, "%s", json_string_value(v));
    } else {
        char *dumped = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
        used = (size_t)snprintf(out, cap, "%s", dumped ? dumped : "");
        free(dumped);
    }
    return used < cap;
}

/* A figure as people read it: the help says its unit. */
static void with_unit(const struct config_key *k, char *cell)
{
    static const char *const units[][2] = {{"MiB a second", " MiB/s"}, {", MiB", " MiB"}, {"per cent", " %"}, {"how long", " s"}, {"days ", " days"}};
    if (strcmp(cell, "0") == 0 && strstr(k->help, "0: no limit")) {
        snprintf(cell, TABLE_CELL, "no limit");
        return;
    }
    size_t n = strlen(cell);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strstr(k->help, units[i][0])) {
            snprintf(cell + n, TABLE_CELL - n, "%s", units[i][1]);
            return;
        }
}

static bool settings_row(struct table_pane *t, const char *key, json_t *v, struct table_row *out)
{
    const struct config_key *k = config_find(key);
    (void)t;
    if (!k)
        return false;
    json_t *usual = json_loads(k->fallback, JSON_DECODE_ANY, NULL);
    bool changed = !json_equal(usual, v);
    json_decref(usual);
    snprintf(out->cell[0], TABLE_CELL, "%s", key);
    if (setting_text(v, out->cell[1], TABLE_CELL) && k->type == CONFIG_INT)
        with_unit(k, out->cell[1]);
    snprintf(out->cell[2], TABLE_CELL, "%s", k->help);
    out->style = changed ? ST_ACCENT : ST_TEXT; /* what is the user's stands out */
    return true;
}

/* The keys in the order of the table of settings, not of the file. */
static json_t *settings_list(const json_t *printed)
{
    static json_t *sorted;
    json_decref(sorted);
    sorted = json_object();
    for (const struct config_key *k = config_keys(); k->name; k++)
        if (json_object_get(printed, k->name))
            json_object_set(sorted, k->name, json_object_get(printed, k->name));
    return sorted;
}

static const char *setting_name; /* of the form that is open */

static bool check_setting(const char *value, char *why, size_t cap)
{
    struct err e = {0};
    if (config_cli_check(setting_name, value, &e) == 0)
        return true;
    snprintf(why, cap, "%s", e.text);
    return false;
}

struct setting_job {
    struct table_pane *t;
    char name[64];
};

static void setting_ended(struct app *a, const struct task_end *end, bool good, void *arg)
{
    table_ran(((struct setting_job *)arg)->t, a, end, good, "the setting is in force");
}

static enum form_next submit_setting(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    struct setting_job *j = arg;
    if (!check_setting(v[1], why, cap)) /* an empty one is a value, too */
        return FORM_STAYS;
    const char *argv[] = {"config", "set", j->name, v[1], NULL};
    return form_run(form, &(struct form_run){.argv = argv, .ended = setting_ended}, why, cap);
}

static void unset(struct app *a, void *arg)
{
    struct setting_job *j = arg;
    const char *argv[] = {"config", "unset", j->name, NULL};
    (void)a;
    table_run(j->t, argv, "the default is in force");
}

/* A value of the user's own would be lost: it says which. */
static void ask_unset(struct table_pane *t, const struct table_row *r, const struct config_key *k)
{
    char was[200], becomes[80], question[500];
    json_t *usual = k ? json_loads(k->fallback, JSON_DECODE_ANY, NULL) : NULL;
    bool same = usual && json_equal(usual, r->data);
    if (usual)
        setting_text(usual, becomes, sizeof becomes);
    json_decref(usual);
    if (!k || same) {
        app_say(table_app(t), SAY_INFO, "%s is at its default", r->cell[0]);
        return;
    }
    struct setting_job *j = calloc(1, sizeof *j);
    if (!j)
        return;
    j->t = t;
    snprintf(j->name, sizeof j->name, "%.63s", k->name);
    bool all = setting_text(r->data, was, sizeof was);
    snprintf(question, sizeof question, "%s is %s%s. Go back to the default, %s?", k->name, was[0] ? was : "empty", all ? "" : "…",
             becomes[0] ? becomes : "which is empty");
    app_push(table_app(t), confirm_new("Back to the default", question, "Go back", unset, j, free));
}

static bool settings_action(struct table_pane *t, const char *what)
{
    const struct table_row *r = table_current(t);
    if (strncmp(what, "settings.", 9) != 0)
        return false;
    if (!r)
        return true;
    static char hint[600], value[FORM_VALUE_MAX];
    const struct config_key *k = config_find(r->cell[0]);
    if (strcmp(what, "settings.unset") == 0) {
        ask_unset(t, r, k);
        return true;
    }
    if (!setting_text(r->data, value, sizeof value)) { /* what the field cannot hold it would cut */
        app_say(table_app(t), SAY_WARN, "%s is too long for a form; sbx config get and set change it", r->cell[0]);
        return true;
    }
    struct setting_job *j = calloc(1, sizeof *j);
    if (!j)
        return true;
    j->t = t;
    snprintf(j->name, sizeof j->name, "%.63s", r->cell[0]);
    bool choice = k && (k->type == CONFIG_BOOL || k->type == CONFIG_CHOICE);
    static const char *const forms[] = {[CONFIG_LIST] = "Several are separated by commas.", [CONFIG_MAP] = "KEY=VALUE; several are separated by commas."};
    snprintf(hint, sizeof hint, "%s. %s%s%s", r->cell[2], k && k->type >= CONFIG_LIST ? forms[k->type] : "",
             k && k->type == CONFIG_INT && k->choices ? "A number, " : "", k && k->type == CONFIG_INT && k->choices ? k->choices : "");
    const struct form_spec spec[] = {
        {.label = hint, .kind = FORM_NOTE},
        {.label = "Value", .kind = choice ? FORM_CHOICE : FORM_TEXT, .initial = value,
         .choices = !choice ? NULL : k->type == CONFIG_BOOL ? "true|false" : k->choices, .check = check_setting},
    };
    setting_name = k ? k->name : "";
    app_push(table_app(t), form_new(j->name, spec, 2, "Save", submit_setting, j, free));
    return true;
}

void app_show_settings(struct app *a)
{
    static const char *const argv[] = {"config", "ls", "--json", NULL};
    static const struct table_class class = {.context = "settings", .title = "Settings", .empty = "", .heads = {"SETTING", "VALUE", "WHAT IT IS"},
                                             .widths = {22, 24, -30}, .argv = argv, .list = settings_list, .row = settings_row, .action = settings_action};
    app_push(a, table_pane_new(a, &class));
}
