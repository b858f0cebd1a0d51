#include "vm/ctl.h"

#include <stdlib.h>
#include <string.h>

struct pending {
    struct pending *next;
    struct ctl *owner;
    unsigned id;
    ctl_done done;
    void *arg;
    struct event *timer;
};

struct ctl {
    struct event_base *base;
    struct pending *list;
    unsigned count, next_id;
};

static void release(struct pending *p)
{
    if (p->timer)
        event_free(p->timer);
    free(p);
}

/* Takes it off the list before its callback runs: that may send again, or free the table. */
static void finish(struct pending **at, const json_t *reply, const char *error)
{
    struct pending *p = *at;
    *at = p->next;
    p->owner->count--;
    ctl_done done = p->done;
    void *arg = p->arg;
    release(p);
    done(arg, reply, error);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pending *p = arg;
    for (struct pending **at = &p->owner->list; *at; at = &(*at)->next)
        if (*at == p) {
            finish(at, NULL, "no answer in time");
            return;
        }
}

struct ctl *ctl_new(struct event_base *base)
{
    struct ctl *c = calloc(1, sizeof *c);
    if (c)
        c->base = base;
    return c;
}

void ctl_free(struct ctl *c)
{
    if (!c)
        return;
    while (c->list)
        finish(&c->list, NULL, "the other side is gone");
    free(c);
}

int ctl_send(struct ctl *c, struct link *l, json_t *msg, int timeout_ms, ctl_done done, void *arg)
{
    if (!msg)
        return -1;
    if (!done)
        return link_send_ctrl(l, msg);
    struct pending *p = c->count < CTL_PENDING_MAX ? calloc(1, sizeof *p) : NULL;
    if (!p) {
        json_decref(msg);
        return -1;
    }
    p->owner = c;
    p->id = ++c->next_id;
    p->done = done;
    p->arg = arg;
    json_object_set_new(msg, "id", json_integer(p->id));
    if (link_send_ctrl(l, msg) < 0) {
        release(p);
        return -1;
    }
    if (timeout_ms > 0 && (p->timer = evtimer_new(c->base, on_timeout, p))) {
        struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
        evtimer_add(p->timer, &tv);
    }
    p->next = c->list;
    c->list = p;
    c->count++;
    return 0;
}

bool ctl_take(struct ctl *c, const json_t *msg)
{
    const char *op = json_string_value(json_object_get(msg, "op"));
    if (!op || strcmp(op, "reply") != 0)
        return false;
    json_int_t id = json_integer_value(json_object_get(msg, "id"));
    for (struct pending **at = &c->list; *at; at = &(*at)->next)
        if ((json_int_t)(*at)->id == id) {
            bool ok = json_is_true(json_object_get(msg, "ok"));
            const char *error = json_string_value(json_object_get(msg, "error"));
            finish(at, msg, ok ? NULL : error ? error : "refused without a reason");
            break;
        }
    return true;
}

void ctl_forget(struct ctl *c, void *arg)
{
    if (!c)
        return;
    for (struct pending **at = &c->list; *at;) {
        struct pending *p = *at;
        if (p->arg != arg) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        c->count--;
        release(p);
    }
}

void ctl_reply(struct link *l, json_int_t id, const struct err *why, json_t *more)
{
    json_t *r = more ? more : json_object();
    if (!r || id == 0) {
        json_decref(r);
        return;
    }
    json_object_set_new(r, "op", json_string("reply"));
    json_object_set_new(r, "id", json_integer(id));
    json_object_set_new(r, "ok", json_boolean(!why));
    if (why) {
        json_t *text = json_string(why->text);
        json_object_set_new(r, "error", text ? text : json_string("failed"));
        json_object_set_new(r, "status", json_integer(why->status));
    }
    link_send_ctrl(l, r);
}
