/* sbx policy ask: whether somebody is asked about unknown hosts, which questions are open, and answers. */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/policy.h"
#include "core/sanitize.h"
#include "ui/cli/policy.h"
#include "ui/cli/sandbox.h"
#include "ui/client.h"

#define WATCHED_MAX 128

struct watched {
    struct client link;
    const char *name;
    bool open, json;
};

static void print_json(const char *sandbox, const json_t *q)
{
    json_t *o = json_copy((json_t *)q);
    json_object_set_new(o, "sandbox", json_string(sandbox));
    out_json_line(o);
    json_decref(o);
}

static void target_of(const json_t *q, char *out, size_t cap)
{
    char host[300];
    const char *raw = json_string_value(json_object_get(q, "host"));
    sanitize_line(host, sizeof host, raw ? raw : "", raw ? strlen(raw) : 0);
    snprintf(out, cap, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, (int)json_integer_value(json_object_get(q, "port")));
}

static void on_note(struct client *c, const json_t *msg, void *arg)
{
    struct watched *w = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    char target[320];
    (void)c;
    if (!op || (strcmp(op, "ask") != 0 && strcmp(op, "asked") != 0))
        return;
    if (w->json) {
        print_json(w->name, msg);
    } else if (strcmp(op, "ask") == 0) {
        target_of(msg, target, sizeof target);
        printf("%s asks for %s (question %lld, %lld s left): sbx policy ask allow %s %lld\n", w->name, target,
               (long long)json_integer_value(json_object_get(msg, "ask")),
               (long long)json_integer_value(json_object_get(msg, "left_ms")) / 1000, w->name,
               (long long)json_integer_value(json_object_get(msg, "ask")));
    } else {
        const char *how = json_string_value(json_object_get(msg, "how"));
        printf("%s: question %lld was %s\n", w->name, (long long)json_integer_value(json_object_get(msg, "ask")), how ? how : "ended");
    }
    fflush(stdout);
}

/* Prints questions as they come, and is who is asked while it runs. */
static int follow(struct watched *all, int n, struct err *e)
{
    struct pollfd p[WATCHED_MAX];
    for (;;) {
        int live = 0;
        for (int i = 0; i < n; i++) {
            p[i] = (struct pollfd){.fd = all[i].open ? all[i].link.fd : -1, .events = all[i].open ? client_events(&all[i].link) : 0};
            live += all[i].open;
        }
        if (!live)
            return err_set(e, STATUS_FAILED, "no sandbox runs any more");
        if (poll(p, (nfds_t)n, -1) < 0)
            continue;
        for (int i = 0; i < n; i++)
            if (all[i].open && p[i].revents && !client_ready(&all[i].link, p[i].revents)) {
                client_close(&all[i].link);
                all[i].open = false;
            }
    }
}

static int list(const struct args *a, struct err *e)
{
    static const char *const headers[] = {"SANDBOX", "QUESTION", "FOR", "ATTEMPTS", "SECONDS LEFT"};
    struct watched *all = calloc(WATCHED_MAX, sizeof *all);
    char **names = NULL;
    bool json = args_has(a, "json"), goes_on = args_has(a, "follow"), own = a->nwords > 1;
    int n = own ? a->nwords - 1 : record_list(&names, e), used = 0, rc = 0;
    struct table *t = json ? NULL : table_new(5, headers);
    json_t *out = json_array();
    if (n < 0 || !all)
        rc = -1;
    for (int i = 0; rc == 0 && i < n && used < WATCHED_MAX; i++) {
        const char *name = own ? a->words[i + 1] : names[i];
        struct watched *w = &all[used];
        struct err why = {0};
        if (own && policy_cli_need(name, e) < 0) {
            rc = -1;
            break;
        }
        if (client_open(&w->link, name, &why) < 0) {
            if (own)
                rc = err_set(e, why.status, "%s", why.text);
            continue;
        }
        w->name = name;
        w->open = true;
        w->json = json;
        w->link.note = on_note;
        w->link.arg = w;
        used++;
        json_t *reply = client_request(&w->link, "asks", json_pack("{s:b}", "watch", (int)goes_on), 10000, e);
        size_t k;
        json_t *q;
        json_array_foreach(json_object_get(reply, "asks"), k, q) {
            char target[320], number[24], count[24], left[24];
            target_of(q, target, sizeof target);
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(json_object_get(q, "ask")));
            snprintf(count, sizeof count, "%lld", (long long)json_integer_value(json_object_get(q, "count")));
            snprintf(left, sizeof left, "%lld", (long long)json_integer_value(json_object_get(q, "left_ms")) / 1000);
            const char *cells[] = {name, number, target, count, left};
            if (goes_on)
                continue; /* they are told again to who watches */
            if (t)
                table_row(t, cells);
            json_t *o = json_copy(q);
            json_object_set_new(o, "sandbox", json_string(name));
            json_array_append_new(out, o);
        }
        json_decref(reply);
    }
    if (rc == 0 && goes_on) {
        if (used == 0)
            rc = err_set(e, STATUS_FAILED, "no sandbox runs");
        else
            rc = follow(all, used, e);
    } else if (rc == 0 && json) {
        out_json(out);
    } else if (rc == 0) {
        table_print(t, used ? "No question is open. With `sbx policy ask on -g` unknown hosts are held and asked about."
                            : "No sandbox runs, so no question is open.");
    }
    for (int i = 0; i < used; i++)
        if (all[i].open)
            client_close(&all[i].link);
    if (!own && n >= 0)
        record_list_free(names, n);
    json_decref(out);
    free(all);
    return rc;
}

/* The question that a number, or a host that it is about, means. */
static json_t *find(struct client *c, const char *what, struct err *e)
{
    json_t *reply = client_request(c, "asks", NULL, 10000, e), *q, *found = NULL;
    size_t i;
    char *end;
    long long number = what ? strtoll(what, &end, 10) : 0;
    bool by_number = what && *what && *end == '\0';
    if (!reply)
        return NULL;
    const json_t *asks = json_object_get(reply, "asks");
    json_array_foreach(asks, i, q) {
        const char *host = json_string_value(json_object_get(q, "host"));
        if (what ? by_number ? json_integer_value(json_object_get(q, "ask")) == number : host && strcmp(host, what) == 0
                 : json_array_size(asks) == 1)
            found = json_incref(q);
        if (found)
            break;
    }
    if (!found && what)
        err_set(e, STATUS_NOT_FOUND, "there is no open question \"%s\"; sbx policy ask ls shows them", what);
    else if (!found)
        err_set(e, STATUS_NOT_FOUND, json_array_size(asks) ? "several questions are open; name one by its number" : "no question is open");
    json_decref(reply);
    return found;
}

/* "For good" is a rule like any other; it goes first, so that nothing is between the two. */
static int keep(const json_t *q, const char *sandbox, bool deny, struct err *e)
{
    struct rule r = {0};
    char text[320];
    int port = (int)json_integer_value(json_object_get(q, "port"));
    const char *host = json_string_value(json_object_get(q, "host"));
    if (json_is_true(json_object_get(q, "name")) && (port == 443 || port == 80) && strcmp(rule_alias(host), "localhost") != 0)
        snprintf(text, sizeof text, "%s", host);
    else
        snprintf(text, sizeof text, strchr(host, ':') ? "[%s]:%d" : "%s:%d", rule_alias(host), port);
    if (rule_parse(&r, text, e) < 0)
        return -1;
    r.deny = deny;
    snprintf(r.comment, sizeof r.comment, "answer to a question");
    if (policy_add(sandbox, &r, 1, e) < 0)
        return -1;
    printf("%s %s (%s)\n", deny ? "denied" : "allowed", text, sandbox ? sandbox : "all sandboxes");
    return 0;
}

static int answer(const struct args *a, bool allow, struct err *e)
{
    struct client c;
    if (a->nwords < 2)
        return err_set(e, STATUS_USAGE, "whose question? sbx policy ask %s SANDBOX [QUESTION]", a->words[0]);
    const char *sandbox = a->words[1];
    if (policy_cli_need(sandbox, e) < 0 || client_open(&c, sandbox, e) < 0)
        return -1;
    json_t *q = find(&c, a->nwords > 2 ? a->words[2] : NULL, e), *reply = NULL;
    int rc = q ? 0 : -1;
    bool global = args_has(a, "global");
    if (q && (global || args_has(a, "keep")))
        rc = keep(q, global ? NULL : sandbox, !allow, e);
    if (rc == 0) {
        json_int_t number = json_integer_value(json_object_get(q, "ask"));
        struct err why = {0};
        reply = client_request(&c, "answer", json_pack("{s:I, s:b}", "ask", number, "allow", (int)allow), 10000, &why);
        /* The rule may have answered it already. */
        if (!reply && !(why.status == STATUS_NOT_FOUND && (global || args_has(a, "keep"))))
            rc = err_set(e, why.status, "%s", why.text);
        else if (!global && !args_has(a, "keep"))
            printf("%s, once\n", allow ? "allowed" : "denied");
    }
    json_decref(reply);
    json_decref(q);
    client_close(&c);
    return rc;
}

static int turn(const struct args *a, bool on, struct err *e)
{
    const char *sandbox;
    int next;
    if (policy_cli_scope(a, 1, &sandbox, &next, e) < 0 || policy_set_ask(sandbox, on, e) < 0)
        return -1;
    printf("%s: %s\n", sandbox ? sandbox : "all sandboxes",
           on ? "what no rule speaks of is held, and asked about" : "what no rule speaks of is decided by the posture");
    return 0;
}

int cmd_policy_ask(const struct args *a, struct err *e)
{
    const char *word = a->words[0];
    if (strcmp(word, "ls") == 0)
        return list(a, e);
    if (strcmp(word, "allow") == 0 || strcmp(word, "deny") == 0)
        return answer(a, word[0] == 'a', e);
    if (strcmp(word, "on") == 0 || strcmp(word, "off") == 0)
        return turn(a, word[1] == 'n', e);
    return err_set(e, STATUS_USAGE, "\"%s\": there are on, off, ls, allow and deny", word);
}
