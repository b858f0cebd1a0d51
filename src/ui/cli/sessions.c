/* sbx session: what the dashboard does with the sessions of sandboxes beside attaching to them. */
#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"
#include "core/state.h"
#include "ui/cli/sandbox.h"
#include "ui/client.h"
#include "ui/dash/attention.h"

#define SCROLLBACK_MAX 1000000

static int number(const char *text, json_int_t *out, struct err *e)
{
    char *end;
    *out = strtoll(text, &end, 10);
    if (*end || *out <= 0 || *out > 65535)
        return err_set(e, STATUS_USAGE, "\"%s\": a session is a number; sbx session ls lists them", text);
    return 0;
}

/* Does the agent wait for its user, and for what: as the dashboard sees it (ui/dash/attention.h). */
static void judge(struct client *c, const char *agent, const json_t *sessions, struct attention *at)
{
    attention_judge(agent, sessions, at);
    if (!at->rang && !at->look_at_screen)
        return;
    json_t *reply = client_request(c, "text", json_pack("{s:I, s:i}", "session", at->session, "scrollback", 0), 5000, NULL);
    const char *text = json_string_value(json_object_get(reply, "text"));
    char why[sizeof at->why] = "";
    bool prompt = text && attention_prompt(agent, text, why, sizeof why);
    if (at->rang && !prompt && (!text || !attention_last_line(text, why, sizeof why)))
        snprintf(why, sizeof why, "it rang the bell");
    at->waits |= prompt;
    if (at->waits)
        snprintf(at->why, sizeof at->why, "%s", why);
    json_decref(reply);
}

static void add(struct table *t, json_t *out, const char *name, json_t *s, const struct attention *at)
{
    bool asks = at->waits && json_integer_value(json_object_get(s, "session")) == at->session;
    const json_t *status = json_object_get(s, "status"), *sig = json_object_get(s, "signal"), *command = json_object_get(s, "command"), *word;
    char line[300] = "", state[200];
    if (out) {
        json_t *o = json_copy(s);
        json_object_set_new(o, "sandbox", json_string(name));
        json_object_set_new(o, "waits", json_boolean(asks));
        if (asks)
            json_object_set_new(o, "why", json_string(at->why));
        json_array_append_new(out, o);
        return;
    }
    size_t i;
    json_array_foreach(command, i, word)
        if (strlen(line) < 200)
            snprintf(line + strlen(line), sizeof line - strlen(line), "%s%.80s", i ? " " : "", json_string_value(word) ? json_string_value(word) : "");
    if (json_is_string(command))
        snprintf(line, sizeof line, "%.200s", json_string_value(command));
    if (status || sig)
        snprintf(state, sizeof state, "ended (%s %lld)", sig ? "signal" : "status", (long long)json_integer_value(sig ? sig : status));
    else
        snprintf(state, sizeof state, asks ? "waits: %s" : "%s", asks ? at->why : "runs");
    char id[24], clients[24];
    snprintf(id, sizeof id, "%lld", (long long)json_integer_value(json_object_get(s, "session")));
    snprintf(clients, sizeof clients, "%lld", (long long)json_integer_value(json_object_get(s, "clients")));
    const char *title = json_string_value(json_object_get(s, "title"));
    const char *cells[] = {name, id, line, state, clients, title ? title : ""};
    table_row(t, cells);
}

int cmd_session_ls(const struct args *a, struct err *e)
{
    static const char *const headers[] = {"SANDBOX", "SESSION", "COMMAND", "STATE", "CLIENTS", "TITLE"};
    char **names = NULL;
    int n = a->nwords ? a->nwords : record_list(&names, e), rc = n < 0 ? -1 : 0;
    json_t *out = args_has(a, "json") ? json_array() : NULL;
    struct table *t = out ? NULL : table_new(6, headers);
    for (int i = 0; rc == 0 && i < n; i++) {
        const char *name = a->nwords ? a->words[i] : names[i];
        struct sandbox_status st;
        struct record r;
        struct client c;
        struct err why = {0};
        if (a->nwords && (record_check_name(name, e) < 0 || sandbox_state(name, &st, e) < 0)) {
            rc = -1;
            break;
        }
        if (client_open(&c, name, &why) < 0) {
            if (a->nwords)
                rc = err_set(e, why.status, "%s", why.text);
            continue;
        }
        json_t *status = client_request(&c, "status", NULL, 10000, &why), *sessions = json_object_get(status, "sessions"), *s;
        struct attention at = {0};
        size_t k;
        record_init(&r);
        if (record_load(&r, name, NULL) == 0)
            judge(&c, r.agent, sessions, &at);
        record_finish(&r);
        json_array_foreach(sessions, k, s)
            add(t, out, name, s, &at);
        json_decref(status);
        client_close(&c);
    }
    if (rc == 0 && out)
        out_json(out);
    else if (rc == 0)
        table_print(t, "No session runs. sbx run starts an agent, sbx exec -it SANDBOX bash a shell.");
    if (!a->nwords && n >= 0)
        record_list_free(names, n);
    json_decref(out);
    return rc;
}

static json_t *one(const struct args *a, const char *op, json_t *request, struct err *e)
{
    struct client c;
    struct sandbox_status st;
    json_t *reply = NULL;
    if (record_check_name(a->words[0], e) == 0 && sandbox_state(a->words[0], &st, e) == 0 && client_open(&c, a->words[0], e) == 0) {
        reply = client_request(&c, op, json_incref(request), 10000, e);
        client_close(&c);
    }
    json_decref(request);
    return reply;
}

int cmd_session_text(const struct args *a, struct err *e)
{
    json_int_t session = 0;
    long lines;
    if (args_number(a, "scrollback", 0, SCROLLBACK_MAX, 0, &lines, e) < 0 || (a->nwords > 1 && number(a->words[1], &session, e) < 0))
        return -1;
    json_t *request = json_pack("{s:i}", "scrollback", (int)lines);
    if (session)
        json_object_set_new(request, "session", json_integer(session));
    json_t *reply = one(a, "text", request, e);
    const char *text = json_string_value(json_object_get(reply, "text"));
    size_t end = text ? strlen(text) : 0;
    while (end && strchr(" \n", text[end - 1]))
        end--;
    for (const char *p = text; p && p < text + end;) { /* a screen's text has no control characters, but this goes to a terminal */
        size_t n = strcspn(p, "\n");
        char *line = malloc(8 * n + 1);
        if (line && sanitize_line(line, 8 * n + 1, p, n) > 0)
            fputs(line, stdout);
        putchar('\n');
        free(line);
        p += n + (p[n] == '\n');
    }
    json_decref(reply);
    return text ? 0 : -1;
}

int cmd_session_end(const struct args *a, struct err *e)
{
    json_int_t session;
    if (number(a->words[1], &session, e) < 0)
        return -1;
    json_t *reply = one(a, "kill", json_pack("{s:I}", "session", session), e);
    json_decref(reply);
    return reply ? 0 : -1;
}
