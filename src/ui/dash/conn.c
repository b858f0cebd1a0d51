#include "ui/dash/conn.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/linkev.h"
#include "core/paths.h"
#include "core/unixsock.h"

struct waiting {
    struct waiting *next;
    json_int_t id;
    conn_reply_fn *fn;
    void *arg;
};

struct chan {
    struct chan *next;
    uint16_t id;
    const struct conn_chan_ops *ops;
    void *arg;
};

struct conn {
    struct linkev *ev;
    const struct conn_ops *ops;
    void *arg;
    struct waiting *waiting;
    struct chan *chans;
    json_int_t next_id;
};

static struct chan *chan_find(const struct conn *c, uint16_t id)
{
    struct chan *ch = c->chans;
    while (ch && ch->id != id)
        ch = ch->next;
    return ch;
}

static void on_reply(struct conn *c, const json_t *msg)
{
    json_int_t id = json_integer_value(json_object_get(msg, "id"));
    for (struct waiting **w = &c->waiting; *w; w = &(*w)->next)
        if ((*w)->id == id) {
            struct waiting *one = *w;
            *w = one->next;
            bool ok = json_is_true(json_object_get(msg, "ok"));
            const char *error = json_string_value(json_object_get(msg, "error"));
            if (one->fn)
                one->fn(ok, msg, ok ? NULL : error ? error : "the sandbox refused", one->arg);
            free(one);
            return;
        }
}

static void on_ctrl(struct linkev *ev, json_t *msg, void *arg)
{
    struct conn *c = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    json_t *on = json_object_get(msg, "chan");
    (void)ev;
    if (!op)
        return;
    if (strcmp(op, "reply") == 0) {
        on_reply(c, msg);
        return;
    }
    struct chan *ch = json_is_integer(on) ? chan_find(c, (uint16_t)json_integer_value(on)) : NULL;
    if (ch && ch->ops->note)
        ch->ops->note(c, ch->id, op, msg, ch->arg);
    else if (c->ops->note)
        c->ops->note(c, op, msg, c->arg);
}

static void on_data(struct linkev *ev, uint16_t id, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    struct conn *c = arg;
    struct chan *ch = chan_find(c, id);
    if (ch && ch->ops->data)
        ch->ops->data(c, id, stream, buf, len, ch->arg);
    else
        link_consumed(linkev_link(ev), id, stream, len);
}

static void on_eof(struct linkev *ev, uint16_t id, unsigned stream, void *arg)
{
    struct chan *ch = chan_find(arg, id);
    (void)ev;
    if (ch && ch->ops->eof)
        ch->ops->eof(arg, id, stream, ch->arg);
}

static void on_writable(struct linkev *ev, uint16_t id, unsigned stream, void *arg)
{
    struct chan *ch = chan_find(arg, id);
    (void)ev;
    if (ch && ch->ops->writable)
        ch->ops->writable(arg, id, stream, ch->arg);
}

static void fail_all(struct conn *c)
{
    while (c->waiting) {
        struct waiting *w = c->waiting;
        c->waiting = w->next;
        if (w->fn)
            w->fn(false, NULL, "the sandbox ended", w->arg);
        free(w);
    }
    while (c->chans) {
        struct chan *ch = c->chans;
        c->chans = ch->next;
        if (ch->ops->closed)
            ch->ops->closed(c, ch->id, ch->arg);
        free(ch);
    }
}

static void on_closed(struct linkev *ev, const char *why, void *arg)
{
    struct conn *c = arg;
    (void)ev;
    (void)why;
    fail_all(c);
    if (c->ops->closed)
        c->ops->closed(c, c->arg);
}

static const struct linkev_ops link_ops = {.ctrl = on_ctrl, .data = on_data, .eof = on_eof, .writable = on_writable, .closed = on_closed};

struct conn *conn_open(struct event_base *base, const char *sandbox, const struct conn_ops *ops, void *arg, struct err *e)
{
    char *path = path_socket(sandbox, e);
    int fd = path ? unixsock_connect(path, 0, e) : -1;
    free(path);
    if (fd < 0)
        return NULL;
    struct conn *c = calloc(1, sizeof *c);
    if (c) {
        c->ops = ops;
        c->arg = arg;
        c->ev = linkev_new(base, fd, &link_ops, c);
    }
    if (!c || !c->ev) {
        free(c);
        close(fd);
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    link_large(linkev_link(c->ev), true, true);
    return c;
}

void conn_free(struct conn *c)
{
    if (!c)
        return;
    static const struct conn_ops silent;
    c->ops = &silent;
    fail_all(c);
    linkev_free(c->ev);
    free(c);
}

void conn_request(struct conn *c, const char *op, json_t *args, conn_reply_fn *fn, void *arg)
{
    json_t *o = args ? args : json_object();
    json_object_set_new(o, "op", json_string(op));
    json_object_set_new(o, "id", json_integer(++c->next_id));
    if (fn) {
        struct waiting *w = calloc(1, sizeof *w);
        if (w) {
            *w = (struct waiting){c->waiting, c->next_id, fn, arg};
            c->waiting = w;
        }
    }
    link_send_ctrl(linkev_link(c->ev), o);
}

void conn_forget(struct conn *c, void *arg)
{
    for (struct waiting *w = c ? c->waiting : NULL; w; w = w->next)
        if (w->arg == arg)
            w->fn = NULL;
}

uint16_t conn_chan_open(struct conn *c, const struct conn_chan_ops *ops, void *arg)
{
    struct link *l = linkev_link(c->ev);
    uint16_t id = link_pick(l);
    struct chan *ch = id ? calloc(1, sizeof *ch) : NULL;
    if (!ch || link_open(l, id, 1u) < 0) {
        free(ch);
        return 0;
    }
    *ch = (struct chan){c->chans, id, ops, arg};
    c->chans = ch;
    return id;
}

void conn_chan_close(struct conn *c, uint16_t id)
{
    for (struct chan **p = &c->chans; *p; p = &(*p)->next)
        if ((*p)->id == id) {
            struct chan *ch = *p;
            *p = ch->next;
            free(ch);
            link_close(linkev_link(c->ev), id);
            return;
        }
}

size_t conn_chan_send(struct conn *c, uint16_t chan, const void *buf, size_t len)
{
    return link_send_data(linkev_link(c->ev), chan, 0, buf, len);
}

void conn_consumed(struct conn *c, uint16_t chan, unsigned stream, size_t len)
{
    link_consumed(linkev_link(c->ev), chan, stream, len);
}
