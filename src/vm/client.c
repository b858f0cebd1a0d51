#include "vm/ports.h"
#include "vm/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log.h"
#include "core/paths.h"
#include "core/unixsock.h"
#include "vm/supervisor_int.h"

#define TELL_DELAY_MS 100

struct client {
    struct client *next;
    struct clients *owner;
    struct linkev *ev;
    bool watches, asks; /* asks: it is told of questions (net/broker_ask.h), and can answer them */
    unsigned serial;
};

/* A request that the broker answers. */
struct forwarded {
    struct clients *owner;
    unsigned serial;
    json_int_t id;
};

struct clients {
    struct supervisor *s;
    int fd;
    char *path;
    bool complained;
    struct event *accept_ev, *tell_timer;
    struct client *list;
    unsigned count, serial;
    json_t *questions; /* by number, as the broker told them */
};

static struct link *link_of(struct client *c)
{
    return linkev_link(c->ev);
}

static json_int_t id_of(const json_t *msg)
{
    return json_integer_value(json_object_get(msg, "id"));
}

static uint16_t chan_of(const json_t *msg)
{
    return (uint16_t)json_integer_value(json_object_get(msg, "chan"));
}

static void op_status(struct client *c, const json_t *msg)
{
    ctl_reply(link_of(c), id_of(msg), NULL, supervisor_status(c->owner->s));
}

static void op_watch(struct client *c, const json_t *msg)
{
    c->watches = true;
    op_status(c, msg);
}

static void op_stop(struct client *c, const json_t *msg)
{
    json_t *t = json_object_get(msg, "timeout_s");
    ctl_reply(link_of(c), id_of(msg), NULL, NULL);
    supervisor_stop(c->owner->s, json_is_integer(t) ? (int)json_integer_value(t) : 10);
}

static void op_exec(struct client *c, const json_t *msg)
{
    if (c->owner->s->life == LIFE_RUNNING) {
        sessions_exec(c->owner->s->sessions, link_of(c), msg);
        return;
    }
    struct err e;
    err_set(&e, STATUS_FAILED, "%s is not running", c->owner->s->name);
    ctl_reply(link_of(c), id_of(msg), &e, NULL);
}

static void op_attach(struct client *c, const json_t *msg)
{
    sessions_attach(c->owner->s->sessions, link_of(c), msg);
}

static void op_resize(struct client *c, const json_t *msg)
{
    sessions_resize(c->owner->s->sessions, link_of(c), msg);
}

static void op_repaint(struct client *c, const json_t *msg)
{
    sessions_repaint(c->owner->s->sessions, link_of(c), msg);
}

static void op_detach(struct client *c, const json_t *msg)
{
    sessions_detach(c->owner->s->sessions, link_of(c), chan_of(msg));
    ctl_reply(link_of(c), id_of(msg), NULL, NULL);
}

static void op_signal(struct client *c, const json_t *msg)
{
    sessions_signal(c->owner->s->sessions, link_of(c), msg);
}

static void op_text(struct client *c, const json_t *msg)
{
    sessions_text(c->owner->s->sessions, link_of(c), msg);
}

/* ---- questions of the broker ---- */

static void to_broker(struct supervisor *s, json_t *msg)
{
    struct helper *h = &s->helpers[ROLE_BROKER];
    if (h->link && h->ctl)
        link_send_ctrl(linkev_link(h->link), msg);
    else
        json_decref(msg);
}

static void tell_askers(struct clients *cs)
{
    int n = 0;
    for (struct client *c = cs->list; c; c = c->next)
        n += c->asks;
    to_broker(cs->s, json_pack("{s:s, s:i}", "op", "askers", "count", n));
}

static json_int_t boot_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (json_int_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void op_asks(struct client *c, const json_t *msg)
{
    struct clients *cs = c->owner;
    json_t *list = json_array(), *q;
    const char *key;
    json_object_foreach(cs->questions, key, q) {
        /* The broker said it when it told of the question; since then time went by. */
        json_t *now = json_copy(q);
        json_int_t left = json_integer_value(json_object_get(q, "left_ms")) - (boot_ms() - json_integer_value(json_object_get(q, "told_ms")));
        json_object_set_new(now, "left_ms", json_integer(left > 0 ? left : 0));
        json_object_del(now, "told_ms");
        json_array_append_new(list, now);
    }
    ctl_reply(link_of(c), id_of(msg), NULL, json_pack("{s:o}", "asks", list));
    if (json_is_true(json_object_get(msg, "watch")) && !c->asks) {
        c->asks = true;
        tell_askers(cs);
    }
}

static void on_broker_reply(void *arg, const json_t *reply, const char *error)
{
    struct forwarded *f = arg;
    struct err e = {0};
    struct client *c = f->owner->list;
    while (c && c->serial != f->serial)
        c = c->next;
    if (error)
        err_set(&e, reply ? (int)json_integer_value(json_object_get(reply, "status")) : STATUS_FAILED, "%s", error);
    if (c)
        ctl_reply(link_of(c), f->id, error ? &e : NULL, NULL);
    free(f);
}

/* Answers, grants and what the store of secrets holds are the broker's matter. */
static void op_forward(struct client *c, const json_t *msg)
{
    struct supervisor *s = c->owner->s;
    struct helper *h = &s->helpers[ROLE_BROKER];
    struct forwarded *f = calloc(1, sizeof *f);
    struct err e;
    json_t *copy = json_copy((json_t *)msg);
    if (f)
        *f = (struct forwarded){c->owner, c->serial, id_of(msg)};
    if (!f || !h->link || !h->ctl) {
        json_decref(copy);
        free(f);
    } else if (ctl_send(h->ctl, linkev_link(h->link), copy, 5000, on_broker_reply, f) == 0) {
        return;
    } else {
        free(f);
    }
    err_set(&e, STATUS_FAILED, "the broker of %s does not answer", s->name);
    ctl_reply(link_of(c), id_of(msg), &e, NULL);
}

void clients_question(struct clients *cs, json_t *msg)
{
    char key[32];
    const char *op = json_string_value(json_object_get(msg, "op"));
    if (!cs)
        return;
    snprintf(key, sizeof key, "%lld", (long long)json_integer_value(json_object_get(msg, "ask")));
    if (strcmp(op, "ask") == 0) {
        json_t *kept = json_copy(msg);
        json_object_set_new(kept, "told_ms", json_integer(boot_ms()));
        json_object_set_new(cs->questions, key, kept);
    } else {
        json_object_del(cs->questions, key);
    }
    for (struct client *c = cs->list; c; c = c->next)
        if (c->asks)
            link_send_ctrl(link_of(c), json_incref(msg));
    clients_changed(cs);
}

unsigned clients_questions(const struct clients *cs)
{
    return cs ? (unsigned)json_object_size(cs->questions) : 0;
}

/* The published ports from now on; all or none. The caller keeps the record. */
static void op_ports(struct client *c, const json_t *msg)
{
    struct supervisor *s = c->owner->s;
    struct err e = {0};
    json_t *list = json_deep_copy(json_object_get(msg, "publish"));
    if (!json_is_array(list)) {
        json_decref(list);
        err_set(&e, STATUS_USAGE, "the list of ports is missing");
        ctl_reply(link_of(c), id_of(msg), &e, NULL);
        return;
    }
    if (ports_apply(s->ports, list, &e) < 0) {
        ports_apply(s->ports, s->record.publish, NULL);
        json_decref(list);
        ctl_reply(link_of(c), id_of(msg), &e, NULL);
        return;
    }
    json_decref(s->record.publish);
    s->record.publish = list;
    ctl_reply(link_of(c), id_of(msg), NULL, json_pack("{s:O}", "publish", list));
    clients_changed(c->owner);
}

static const struct {
    const char *op;
    void (*run)(struct client *c, const json_t *msg);
} ops_table[] = {
    {"status", op_status}, {"watch", op_watch},   {"stop", op_stop},     {"exec", op_exec}, {"attach", op_attach},
    {"resize", op_resize}, {"repaint", op_repaint}, {"detach", op_detach}, {"signal", op_signal}, {"kill", op_signal},
    {"text", op_text},     {"ports", op_ports},
    {"asks", op_asks},     {"answer", op_forward}, {"grant", op_forward}, {"secrets", op_forward},
};

static void on_ctrl(struct linkev *ev, json_t *msg, void *arg)
{
    (void)ev;
    struct client *c = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    for (size_t i = 0; op && i < sizeof ops_table / sizeof *ops_table; i++)
        if (strcmp(op, ops_table[i].op) == 0) {
            ops_table[i].run(c, msg);
            return;
        }
    struct err e;
    err_set(&e, STATUS_USAGE, "unknown request \"%s\"", op ? op : "");
    ctl_reply(link_of(c), id_of(msg), &e, NULL);
}

static void on_data(struct linkev *ev, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    struct client *c = arg;
    sessions_client_data(c->owner->s->sessions, linkev_link(ev), chan, stream, buf, len);
}

static void on_eof(struct linkev *ev, uint16_t chan, unsigned stream, void *arg)
{
    struct client *c = arg;
    sessions_client_eof(c->owner->s->sessions, linkev_link(ev), chan, stream);
}

static void on_writable(struct linkev *ev, uint16_t chan, unsigned stream, void *arg)
{
    struct client *c = arg;
    sessions_client_writable(c->owner->s->sessions, linkev_link(ev), chan, stream);
}

static void drop(struct client *c)
{
    struct clients *cs = c->owner;
    for (struct client **p = &cs->list; *p; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            cs->count--;
            break;
        }
    sessions_client_gone(cs->s->sessions, link_of(c));
    linkev_free(c->ev);
    if (c->asks)
        tell_askers(cs);
    free(c);
}

static void on_closed(struct linkev *ev, const char *why, void *arg)
{
    (void)ev;
    if (why)
        log_line("a client was dropped: %s", why);
    drop(arg);
}

static const struct linkev_ops link_ops = {
    .ctrl = on_ctrl, .data = on_data, .eof = on_eof, .writable = on_writable, .closed = on_closed};

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct clients *cs = arg;
    int peer = accept4((int)fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer < 0)
        return;
    struct client *c = unixsock_peer_ok(peer) && cs->count < CLIENTS_MAX ? calloc(1, sizeof *c) : NULL;
    if (c) {
        c->owner = cs;
        c->ev = linkev_new(cs->s->base, peer, &link_ops, c);
    }
    if (!c || !c->ev) {
        free(c);
        close(peer);
        return;
    }
    link_large(link_of(c), true, true); /* the user's own */
    c->serial = ++cs->serial;
    c->next = cs->list;
    cs->list = c;
    cs->count++;
}

/* Where it belongs; one that is there is of a supervisor that was killed: we hold the lock. */
static int start_listening(struct clients *cs, struct err *e)
{
    char *path = path_socket_here(cs->s->name, e);
    int fd = path ? unixsock_listen(path, e) : -1;
    struct event *ev = fd < 0 ? NULL : event_new(cs->s->base, fd, EV_READ | EV_PERSIST, on_accept, cs);
    struct err why = {0};
    if (!ev || event_add(ev, NULL) < 0) {
        if (ev)
            event_free(ev);
        if (fd >= 0) {
            close(fd);
            unlink(path);
        }
        free(path);
        return -1;
    }
    if (path_socket_moved(cs->s->name, path, &why) < 0)
        log_line("others find the client socket only with the same XDG_RUNTIME_DIR: %s", why.text);
    if (cs->accept_ev)
        event_free(cs->accept_ev);
    if (cs->fd >= 0)
        close(cs->fd);
    free(cs->path);
    cs->path = path;
    cs->fd = fd;
    cs->accept_ev = ev;
    return 0;
}

void clients_tend(struct clients *cs)
{
    struct stat st;
    struct err why = {0};
    if (!cs || lstat(cs->path, &st) == 0 || errno != ENOENT)
        return;
    if (start_listening(cs, &why) == 0)
        log_line("the client socket was removed; it is %s now", cs->path);
    else if (!cs->complained)
        log_line("the client socket was removed: %s", why.text);
    cs->complained = why.status != 0;
}

struct clients *clients_new(struct supervisor *s, struct err *e)
{
    struct clients *cs = calloc(1, sizeof *cs);
    if (!cs)
        return NULL;
    cs->s = s;
    cs->questions = json_object();
    cs->fd = -1;
    if (start_listening(cs, e) == 0)
        return cs;
    if (e && !e->status)
        err_set(e, STATUS_FAILED, "out of memory");
    clients_free(cs);
    return NULL;
}

void clients_free(struct clients *cs)
{
    if (!cs)
        return;
    if (cs->accept_ev) {
        unlink(cs->path);
        event_free(cs->accept_ev);
    }
    if (cs->tell_timer)
        event_free(cs->tell_timer);
    while (cs->list) {
        linkev_flush(cs->list->ev, 1000);
        drop(cs->list);
    }
    if (cs->fd >= 0)
        close(cs->fd);
    json_decref(cs->questions);
    free(cs->path);
    free(cs);
}

static void on_tell(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct clients *cs = arg;
    json_t *note = NULL;
    for (struct client *c = cs->list; c; c = c->next) {
        if (!c->watches)
            continue;
        if (!note) {
            note = supervisor_status(cs->s);
            json_object_set_new(note, "op", json_string("status"));
        }
        link_send_ctrl(link_of(c), json_incref(note));
    }
    json_decref(note);
}

void clients_changed(struct clients *cs)
{
    if (!cs)
        return;
    if (!cs->tell_timer)
        cs->tell_timer = evtimer_new(cs->s->base, on_tell, cs);
    struct timeval tv = {0, TELL_DELAY_MS * 1000};
    if (cs->tell_timer && !evtimer_pending(cs->tell_timer, NULL))
        evtimer_add(cs->tell_timer, &tv);
}
