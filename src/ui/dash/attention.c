#include "ui/dash/attention.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/kit.h"
#include "core/sanitize.h"

#define PROMPTS_MAX 8
#define LAST_LINES 14 /* of the screen, where a question stands */

struct rule {
    struct rule *next;
    char agent[64], name[64]; /* name: what the program calls itself */
    bool bell, has_title;
    regex_t title, prompts[PROMPTS_MAX];
    unsigned nprompts;
    int64_t quiet_ms;
};

static struct rule *rules; /* one for each agent that was seen; kits do not change under us */

static const struct rule *rule_of(const char *agent)
{
    for (struct rule *r = rules; r; r = r->next)
        if (strcmp(r->agent, agent) == 0)
            return r;
    struct rule *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    snprintf(r->agent, sizeof r->agent, "%s", agent);
    r->bell = true;
    r->quiet_ms = 2500;
    r->next = rules;
    rules = r;
    json_t *kit = kit_load(agent, NULL), *at = json_object_get(kit, "attention"), *p;
    size_t i;
    const char *name = json_string_value(json_object_get(kit, "title"));
    snprintf(r->name, sizeof r->name, "%s", name ? name : "");
    if (json_is_false(json_object_get(at, "bell")))
        r->bell = false;
    if (json_is_integer(json_object_get(at, "quiet_ms")))
        r->quiet_ms = json_integer_value(json_object_get(at, "quiet_ms"));
    const char *title = json_string_value(json_object_get(at, "title"));
    r->has_title = title && regcomp(&r->title, title, REG_EXTENDED | REG_NOSUB) == 0;
    json_array_foreach(json_object_get(at, "prompt"), i, p)
        if (r->nprompts < PROMPTS_MAX && json_is_string(p) && regcomp(&r->prompts[r->nprompts], json_string_value(p), REG_EXTENDED) == 0)
            r->nprompts++;
    json_decref(kit);
    return r;
}

void attention_judge(const char *agent, const json_t *sessions, struct attention *out)
{
    const struct rule *r = rule_of(agent);
    size_t i;
    json_t *s;
    memset(out, 0, sizeof *out);
    if (!r)
        return;
    json_array_foreach((json_t *)sessions, i, s) {
        bool is_agent = json_is_true(json_object_get(s, "agent"));
        const char *title = json_string_value(json_object_get(s, "title"));
        json_t *status = json_object_get(s, "status"), *sig = json_object_get(s, "signal");
        if (!json_is_true(json_object_get(s, "tty")))
            continue;
        if (status || sig) {
            if (is_agent) {
                out->ended = true;
                out->session = json_integer_value(json_object_get(s, "session"));
                snprintf(out->why, sizeof out->why, sig ? "its agent was ended by signal %lld" : "its agent ended with status %lld",
                         (long long)json_integer_value(sig ? sig : status));
            }
            continue;
        }
        if (r->bell && json_is_true(json_object_get(s, "bell"))) {
            out->waits = out->rang = true;
            out->ended = false;
            out->session = json_integer_value(json_object_get(s, "session"));
            const char *notice = json_string_value(json_object_get(s, "notice"));
            snprintf(out->why, sizeof out->why, "%s", "it rang the bell");
            if (notice && notice[0]) {
                out->rang = false;
                sanitize_line(out->why, sizeof out->why, notice, strnlen(notice, 80));
            }
            return;
        }
        if (r->has_title && title && regexec(&r->title, title, 0, NULL, 0) == 0) {
            out->waits = true;
            out->ended = false;
            out->session = json_integer_value(json_object_get(s, "session"));
            /* A title that is the program's name alone says nothing; else it is what the work is about. */
            const char *named = r->name[0] ? strstr(title, r->name) : NULL;
            if (named && !named[strlen(r->name)])
                snprintf(out->why, sizeof out->why, "it is done, or asks: see its screen");
            else
                sanitize_line(out->why, sizeof out->why, title, strnlen(title, 80));
            return;
        }
        json_t *quiet = json_object_get(s, "quiet_ms");
        if (is_agent && r->nprompts && json_is_integer(quiet) && json_integer_value(quiet) >= r->quiet_ms) {
            out->look_at_screen = true;
            out->quiet_ms = json_integer_value(quiet);
            out->session = json_integer_value(json_object_get(s, "session"));
        }
    }
}

bool attention_prompt(const char *agent, const char *text, char *why, size_t cap)
{
    const struct rule *r = rule_of(agent);
    if (!r || !text)
        return false;
    /* The last lines that hold anything. */
    const char *lines[LAST_LINES];
    size_t n = 0;
    for (const char *p = text; *p;) {
        size_t len = strcspn(p, "\n");
        if (strspn(p, " \t\r") < len) {
            if (n == LAST_LINES) {
                memmove(lines, lines + 1, (LAST_LINES - 1) * sizeof *lines);
                n--;
            }
            lines[n++] = p;
        }
        p += len + (p[len] == '\n');
    }
    for (size_t i = n; i-- > 0;) {
        char line[512];
        size_t len = strcspn(lines[i], "\n");
        snprintf(line, sizeof line, "%.*s", (int)(len < sizeof line ? len : sizeof line - 1), lines[i]);
        regmatch_t m;
        for (unsigned j = 0; j < r->nprompts; j++)
            if (regexec(&r->prompts[j], line, 1, &m, 0) == 0) {
                /* "[y/N]" alone says nothing: then the question before it, too. */
                if (m.rm_eo - m.rm_so < 12)
                    return attention_last_line(line, why, cap);
                sanitize_line(why, cap, line + m.rm_so, (size_t)(m.rm_eo - m.rm_so));
                return true;
            }
    }
    return false;
}

bool attention_last_line(const char *text, char *why, size_t cap)
{
    const char *last = NULL;
    for (const char *p = text; p && *p;) {
        size_t len = strcspn(p, "\n");
        if (strspn(p, " \t\r") < len)
            last = p;
        p += len + (p[len] == '\n');
    }
    if (!last)
        return false;
    last += strspn(last, " \t\r");
    size_t n = strcspn(last, "\n");
    while (n && strchr(" \t\r", last[n - 1]))
        n--;
    sanitize_line(why, cap, last, n);
    return why[0] != '\0';
}
