#include "ui/dash/ask_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"
#include "ui/dash/app.h"
#include "ui/dash/conn.h"
#include "ui/dash/model.h"

#define QUESTIONS_MAX 64u

struct listener {
    struct listener *next;
    struct ask_watch *owner;
    struct conn *conn;
    char box[80];
};

struct ask_watch {
    struct app *app;
    struct listener *listeners;
    struct ask_question questions[QUESTIONS_MAX];
    unsigned n;
    struct pane *overlay;
};

unsigned ask_watch_count(const struct ask_watch *w)
{
    return w->n;
}

struct ask_question *ask_watch_at(struct ask_watch *w, unsigned i)
{
    return i < w->n ? &w->questions[i] : NULL;
}

void ask_watch_hidden(struct ask_watch *w, const struct pane *p)
{
    if (w->overlay == p)
        w->overlay = NULL;
}

static void drop(struct ask_watch *w, unsigned i)
{
    if (w->overlay)
        ask_overlay_dropped(w->overlay, i);
    memmove(&w->questions[i], &w->questions[i + 1], (w->n - i - 1) * sizeof w->questions[0]);
    w->n--;
    if (!w->overlay)
        return;
    if (w->n > 0) {
        ask_overlay_news(w->overlay);
        return;
    }
    struct pane *p = w->overlay;
    w->overlay = NULL;
    app_pop(w->app, p);
}

void ask_watch_failed(struct ask_watch *w, const char *box, int64_t id)
{
    for (unsigned i = 0; i < w->n; i++)
        if (w->questions[i].id == id && strcmp(w->questions[i].box, box) == 0)
            w->questions[i].answered = false;
    if (w->overlay)
        pane_dirty(w->overlay);
}

static int find(const struct ask_watch *w, const char *box, int64_t id)
{
    for (unsigned i = 0; i < w->n; i++)
        if (w->questions[i].id == id && strcmp(w->questions[i].box, box) == 0)
            return (int)i;
    return -1;
}

bool ask_watch_show(struct ask_watch *w)
{
    if (w->n == 0)
        return false;
    if (!w->overlay && (w->overlay = ask_overlay_new(w->app, w)))
        app_push(w->app, w->overlay);
    return true;
}

static void take(struct ask_watch *w, const char *box, const json_t *q)
{
    int64_t id = json_integer_value(json_object_get(q, "ask"));
    const char *host = json_string_value(json_object_get(q, "host"));
    int at = find(w, box, id);
    bool fresh = at < 0;
    if (!host || (fresh && w->n == QUESTIONS_MAX))
        return;
    struct ask_question *x = fresh ? &w->questions[w->n++] : &w->questions[at];
    if (fresh) {
        memset(x, 0, sizeof *x);
        snprintf(x->box, sizeof x->box, "%s", box);
        sanitize_line(x->host, sizeof x->host, host, strlen(host));
        const char *where = json_string_value(json_object_get(q, "where"));
        sanitize_line(x->where, sizeof x->where, where ? where : "", where ? strlen(where) : 0);
        x->id = id;
        x->port = (int)json_integer_value(json_object_get(q, "port"));
        x->is_name = json_is_true(json_object_get(q, "name"));
        x->limit_ms = json_integer_value(json_object_get(q, "left_ms"));
    }
    x->count = json_integer_value(json_object_get(q, "count"));
    x->deadline_ms = app_now_ms() + json_integer_value(json_object_get(q, "left_ms"));
    if (!fresh) {
        if (w->overlay)
            pane_dirty(w->overlay);
        return;
    }
    char text[400];
    snprintf(text, sizeof text, "%s asks for %s:%d", box, x->host, x->port);
    app_notify(w->app, "sbx", text);
    if (w->overlay)
        ask_overlay_news(w->overlay);
    else
        ask_watch_show(w);
}

static void on_asks(bool ok, const json_t *reply, const char *error, void *arg)
{
    struct listener *l = arg;
    size_t i;
    json_t *q;
    (void)error;
    json_array_foreach(ok ? json_object_get(reply, "asks") : NULL, i, q)
        take(l->owner, l->box, q);
}

static void on_note(struct conn *c, const char *op, const json_t *msg, void *arg)
{
    struct listener *l = arg;
    (void)c;
    if (strcmp(op, "ask") == 0) {
        take(l->owner, l->box, msg);
    } else if (strcmp(op, "asked") == 0) {
        int i = find(l->owner, l->box, json_integer_value(json_object_get(msg, "ask")));
        const char *how = json_string_value(json_object_get(msg, "how"));
        if (i < 0)
            return;
        const struct ask_question *q = &l->owner->questions[i];
        if (how && strcmp(how, "unanswered") == 0)
            app_say(l->owner->app, SAY_WARN, "nobody answered in time: %s:%d was denied to %s", q->host, q->port, l->box);
        else if (how && !q->answered)
            app_say(l->owner->app, SAY_INFO, "%s asked for %s:%d: %s", l->box, q->host, q->port,
                    strcmp(how, "ruled") == 0 ? "a rule decides about it now" : strcmp(how, "allowed") == 0 ? "allowed elsewhere" : "denied elsewhere");
        drop(l->owner, (unsigned)i);
    }
}

static void gone(struct listener *l)
{
    struct ask_watch *w = l->owner;
    for (struct listener **p = &w->listeners; *p; p = &(*p)->next)
        if (*p == l) {
            *p = l->next;
            break;
        }
    for (unsigned i = w->n; i-- > 0;)
        if (strcmp(w->questions[i].box, l->box) == 0)
            drop(w, i);
    conn_forget(l->conn, l);
    conn_free(l->conn);
    free(l);
}

static void on_closed(struct conn *c, void *arg)
{
    (void)c;
    gone(arg);
}

static const struct conn_ops ops = {.note = on_note, .closed = on_closed};

void ask_watch_tick(struct ask_watch *w)
{
    struct model *m = app_model(w->app);
    for (unsigned i = 0; i < model_count(m); i++) {
        struct box *b = model_at(m, i);
        struct listener *l = w->listeners;
        if (!model_running(b))
            continue;
        while (l && strcmp(l->box, b->name) != 0)
            l = l->next;
        if (l || !(l = calloc(1, sizeof *l)))
            continue;
        l->owner = w;
        snprintf(l->box, sizeof l->box, "%s", b->name);
        l->conn = conn_open(app_base(w->app), b->name, &ops, l, NULL);
        if (!l->conn) {
            free(l);
            continue;
        }
        l->next = w->listeners;
        w->listeners = l;
        conn_request(l->conn, "asks", json_pack("{s:b}", "watch", 1), on_asks, l);
    }
    if (w->overlay)
        pane_dirty(w->overlay); /* the time that is left */
}

struct ask_watch *ask_watch_new(struct app *a)
{
    struct ask_watch *w = calloc(1, sizeof *w);
    if (w)
        w->app = a;
    return w;
}

void ask_watch_free(struct ask_watch *w)
{
    if (!w)
        return;
    w->overlay = NULL;
    while (w->listeners)
        gone(w->listeners);
    free(w);
}
