#include "vm/session.h"

#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"
#include "vm/session_int.h"

#define OPEN_TIMEOUT_MS 30000
#define RESIZE_DELAY_MS 60
/* The screen process answers the end of its input with the end of its output; should it not, nobody waits. */
#define DRAIN_MS 500
#define SIDE_MAX 1000u

struct session *session_find(const struct sessions *ss, uint16_t chan)
{
    for (struct session *s = ss->list; s; s = s->next)
        if (s->chan == chan)
            return s;
    return NULL;
}

struct viewer *viewer_find(const struct sessions *ss, const struct link *l, uint16_t chan, struct session **out)
{
    for (struct session *s = ss->list; s; s = s->next)
        for (struct viewer *v = s->viewers; v; v = v->next)
            if (v->link == l && v->chan == chan) {
                *out = s;
                return v;
            }
    return NULL;
}

void session_changed(struct sessions *ss)
{
    if (ss->ops->changed)
        ss->ops->changed(ss->arg);
}

struct sessions *sessions_new(struct event_base *base, unsigned scrollback, const struct sessions_ops *ops,
                              void *arg)
{
    struct sessions *ss = calloc(1, sizeof *ss);
    if (!ss)
        return NULL;
    ss->base = base;
    ss->scrollback = scrollback;
    ss->ops = ops;
    ss->arg = arg;
    return ss;
}

static void free_viewer(struct viewer *v)
{
    if (v->out)
        evbuffer_free(v->out);
    if (v->newer)
        evbuffer_free(v->newer);
    if (v->in)
        evbuffer_free(v->in);
    free(v);
}

struct viewer *viewer_add(struct session *s, struct link *l, uint16_t chan)
{
    struct viewer *v = calloc(1, sizeof *v);
    if (!v || s->nviewers >= SESSION_VIEWERS_MAX || link_open(l, chan, 1u) < 0) {
        free(v);
        return NULL;
    }
    v->link = l;
    v->chan = chan;
    v->state = VIEWER_LIVE;
    v->out = evbuffer_new();
    v->newer = evbuffer_new();
    v->in = evbuffer_new();
    if (!v->out || !v->newer || !v->in) {
        link_close(l, chan);
        free_viewer(v);
        return NULL;
    }
    struct viewer **tail = &s->viewers;
    while (*tail)
        tail = &(*tail)->next;
    *tail = v;
    s->nviewers++;
    return v;
}

void viewer_remove(struct session *s, struct viewer *v)
{
    for (struct viewer **p = &s->viewers; *p; p = &(*p)->next)
        if (*p == v) {
            *p = v->next;
            break;
        }
    s->nviewers--;
    if (s->sizer == v)
        s->sizer = NULL;
    link_close(v->link, v->chan);
    free_viewer(v);
}

static void free_session(struct session *s)
{
    struct sessions *ss = s->owner;
    for (struct session **p = &ss->list; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            ss->count--;
            break;
        }
    if (ss->guest_ctl)
        ctl_forget(ss->guest_ctl, s);
    while (s->viewers)
        viewer_remove(s, s->viewers);
    flow_no_paintings(s);
    if (ss->guest)
        link_close(ss->guest, s->chan);
    if (s->tty && ss->screen && link_is_open(ss->screen, s->chan)) {
        link_send_ctrl(ss->screen, json_pack("{s:s, s:i}", "op", "close", "chan", (int)s->chan));
        link_close(ss->screen, s->chan);
    }
    for (int i = 0; i < 2; i++)
        if (s->pending[i])
            evbuffer_free(s->pending[i]);
    if (s->replies)
        evbuffer_free(s->replies);
    if (s->resize_timer)
        event_free(s->resize_timer);
    if (s->drain_timer)
        event_free(s->drain_timer);
    json_decref(s->command);
    json_decref(s->about);
    free(s->title);
    free(s->notice);
    free(s);
}

void sessions_free(struct sessions *ss)
{
    if (!ss)
        return;
    while (ss->list)
        free_session(ss->list);
    json_decref(ss->env);
    free(ss);
}

static json_t *exit_note(const struct session *s, uint16_t chan)
{
    return s->signal ? json_pack("{s:s, s:i, s:i}", "op", "exit", "chan", (int)chan, "signal", s->signal)
                     : json_pack("{s:s, s:i, s:i}", "op", "exit", "chan", (int)chan, "status", s->status);
}

/* Old endings that nobody asked for make room. */
static void trim_ended(struct sessions *ss)
{
    unsigned n = 0;
    for (struct session *s = ss->list, *next; s; s = next) {
        next = s->next;
        if (s->over && !s->viewers && ++n > SESSION_ENDED_MAX)
            free_session(s);
    }
}

static void on_drained(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct session *s = arg;
    s->screen_eof = true;
    session_check_over(s);
}

/* A session is over when its exit note came and all that it printed was passed on. */
void session_check_over(struct session *s)
{
    struct sessions *ss = s->owner;
    if (!s->exited || !s->eof_in[0] || !s->eof_in[1] || evbuffer_get_length(s->pending[0]) ||
        evbuffer_get_length(s->pending[1]))
        return;
    if (s->tty && !s->screen_eof && ss->screen) {
        if (!s->drain_timer && (s->drain_timer = evtimer_new(ss->base, on_drained, s))) {
            struct timeval tv = {DRAIN_MS / 1000, DRAIN_MS % 1000 * 1000};
            evtimer_add(s->drain_timer, &tv);
        }
        return;
    }
    bool first = !s->over, told = false;
    s->over = true;
    if (first && ss->guest && link_is_open(ss->guest, s->chan)) {
        /* The guest keeps its side until we have everything. */
        link_send_ctrl(ss->guest, json_pack("{s:s, s:i}", "op", "close", "chan", (int)s->chan));
        link_close(ss->guest, s->chan);
    }
    for (struct viewer *v = s->viewers, *next; v; v = next) {
        next = v->next;
        if (v->state != VIEWER_LIVE && ss->screen && !(v->state == VIEWER_WAITING && !link_is_open(ss->screen, s->chan)))
            continue; /* its painting is on the way, and is what it wanted to see */
        if (evbuffer_get_length(v->out))
            continue;
        for (unsigned i = 0; i < 2; i++)
            if (!v->eof_sent[i]) {
                v->eof_sent[i] = true;
                link_send_eof(v->link, v->chan, i);
            }
        /* The note must not overtake the last bytes: control frames go first. */
        if (link_queued(v->link, v->chan, 0) || link_queued(v->link, v->chan, 1)) {
            if (!s->drain_timer)
                s->drain_timer = evtimer_new(ss->base, on_drained, s);
            struct timeval tv = {0, 2000};
            if (s->drain_timer)
                evtimer_add(s->drain_timer, &tv);
            continue;
        }
        link_send_ctrl(v->link, exit_note(s, v->chan));
        told = true;
        viewer_remove(s, v);
    }
    if (first)
        session_changed(ss);
    if (!s->viewers && (told || !s->detached)) {
        if (told || !s->tty) {
            free_session(s);
            session_changed(ss);
            return;
        }
    }
    trim_ended(ss);
}

void sessions_set_guest(struct sessions *ss, struct link *guest, struct ctl *requests)
{
    ss->guest = guest;
    ss->guest_ctl = requests;
    if (guest)
        return;
    for (struct session *s = ss->list, *next; s; s = next) {
        next = s->next;
        if (s->opener) {
            struct err e;
            err_set(&e, STATUS_FAILED, "the machine is gone");
            ctl_reply(s->opener, s->opener_id, &e, NULL);
            s->opener = NULL;
        }
        s->exited = s->eof_in[0] = s->eof_in[1] = s->screen_eof = true;
        s->signal = s->signal ? s->signal : s->status ? 0 : 9;
        for (int i = 0; i < 2; i++)
            evbuffer_drain(s->pending[i], evbuffer_get_length(s->pending[i]));
        session_check_over(s);
    }
}

static int open_screen(struct session *s)
{
    struct sessions *ss = s->owner;
    if (!ss->screen)
        return 0;
    if (link_open(ss->screen, s->chan, 0) < 0)
        return -1;
    return link_send_ctrl(ss->screen,
                          json_pack("{s:s, s:i, s:i, s:i, s:i, s:b}", "op", "open", "chan", (int)s->chan, "rows",
                                    (int)s->rows, "cols", (int)s->cols, "scrollback", (int)ss->scrollback, "light", (int)s->light));
}

/* What a program that asks for the colours of its terminal is told. */
static void take_light(struct session *s, const json_t *msg)
{
    json_t *light = json_object_get(msg, "light");
    if (!json_is_boolean(light) || json_is_true(light) == s->light)
        return;
    s->light = json_is_true(light);
    if (s->tty && s->running && s->owner->screen)
        link_send_ctrl(s->owner->screen, json_pack("{s:s, s:i, s:b}", "op", "backdrop", "chan", (int)s->chan, "light", (int)s->light));
}

void sessions_set_screen(struct sessions *ss, struct link *screen, struct ctl *requests)
{
    ss->screen = screen;
    ss->screen_ctl = requests;
    for (struct session *s = ss->list; s; s = s->next) {
        if (!s->tty || s->over)
            continue;
        if (screen) {
            s->screen_pos = 0;
            flow_no_paintings(s);
            s->screen_eof_sent = s->screen_eof = false;
            open_screen(s);
        }
        for (struct viewer *v = s->viewers; v; v = v->next) {
            evbuffer_drain(v->newer, evbuffer_get_length(v->newer));
            v->paint_at = 0;
            v->state = VIEWER_LIVE;
            if (screen)
                flow_paint(s, v, 0);
        }
        flow_output(s, 0);
    }
}

/* ---- requests ---- */

static json_t *copy_or_null(const json_t *msg, const char *key)
{
    json_t *v = json_object_get(msg, key);
    return v ? json_incref(v) : NULL;
}

static unsigned side(const json_t *msg, const char *key, unsigned fallback)
{
    json_int_t n = json_integer_value(json_object_get(msg, key));
    return n >= 1 && n <= SIDE_MAX ? (unsigned)n : fallback;
}

static void on_opened(void *arg, const json_t *reply, const char *error)
{
    struct session *s = arg;
    struct sessions *ss = s->owner;
    struct link *opener = s->opener;
    s->opener = NULL;
    if (error) {
        struct err e;
        int status = (int)json_integer_value(json_object_get(reply, "status"));
        err_set(&e, status ? status : STATUS_FAILED, "%s", error);
        if (opener)
            ctl_reply(opener, s->opener_id, &e, NULL);
        free_session(s);
        session_changed(ss);
        return;
    }
    s->running = true;
    if (opener)
        ctl_reply(opener, s->opener_id, NULL, json_pack("{s:i}", "session", (int)s->chan));
    flow_input(s);
    session_changed(ss);
    /* The client left while the program started. */
    if (!s->viewers && !s->detached && !s->tty) {
        s->stdin_closed = true;
        link_send_eof(ss->guest, s->chan, 0);
        ctl_send(ss->guest_ctl, ss->guest,
                 json_pack("{s:s, s:i, s:s}", "op", "signal", "chan", (int)s->chan, "signal", "HUP"), 0, NULL, NULL);
    }
}

/* What the guest is asked to open: the client's words, checked only for form (the guest decides). */
static json_t *open_request(const struct sessions *ss, const struct session *s, const json_t *msg)
{
    json_t *o = json_pack("{s:s, s:i, s:O, s:b}", "op", "open", "chan", (int)s->chan, "argv", s->command, "tty",
                          (int)s->tty);
    static const char *const passed[] = {"env", "cwd", "user", "term", "login"};
    for (size_t i = 0; o && i < sizeof passed / sizeof *passed; i++) {
        json_t *v = copy_or_null(msg, passed[i]);
        if (v)
            json_object_set_new(o, passed[i], v);
    }
    if (o && ss->cwd && !json_object_get(o, "cwd"))
        json_object_set_new(o, "cwd", json_string(ss->cwd));
    if (o && json_object_size(ss->env)) {
        json_t *env = json_copy(ss->env);
        json_object_update(env, json_object_get(msg, "env"));
        json_object_set_new(o, "env", env);
    }
    if (o && s->tty) {
        json_object_set_new(o, "rows", json_integer(s->rows));
        json_object_set_new(o, "cols", json_integer(s->cols));
    }
    return o;
}

void sessions_set_env(struct sessions *ss, json_t *env)
{
    json_decref(ss->env);
    ss->env = json_incref(env);
}

void sessions_set_cwd(struct sessions *ss, const char *cwd)
{
    ss->cwd = cwd;
}

static uint16_t pick_chan(struct sessions *ss)
{
    for (unsigned i = 0; i < SESSIONS_MAX + SESSION_ENDED_MAX; i++) {
        uint16_t chan = link_pick(ss->guest);
        if (!chan || !session_find(ss, chan))
            return chan;
    }
    return 0;
}

void sessions_exec(struct sessions *ss, struct link *client, const json_t *msg)
{
    json_int_t id = json_integer_value(json_object_get(msg, "id"));
    json_t *argv = json_object_get(msg, "argv");
    uint16_t chan = (uint16_t)json_integer_value(json_object_get(msg, "chan"));
    struct err e = {0};
    struct session *s = NULL;
    if (!ss->guest) {
        err_set(&e, STATUS_FAILED, "the machine is not running");
        goto fail;
    }
    if (json_array_size(argv) == 0 || !json_is_string(json_array_get(argv, 0))) {
        err_set(&e, STATUS_USAGE, "there is no command to run");
        goto fail;
    }
    if (sessions_count(ss) >= SESSIONS_MAX) {
        err_set(&e, STATUS_FAILED, "there are %u sessions already", SESSIONS_MAX);
        goto fail;
    }
    s = calloc(1, sizeof *s);
    uint16_t number = s ? pick_chan(ss) : 0;
    if (!number) {
        free(s);
        s = NULL;
        err_set(&e, STATUS_FAILED, "no memory for a session");
        goto fail;
    }
    s->owner = ss;
    s->chan = number;
    s->tty = json_is_true(json_object_get(msg, "tty"));
    s->agent = json_is_true(json_object_get(msg, "agent"));
    s->detached = json_is_true(json_object_get(msg, "detach"));
    s->rows = side(msg, "rows", 24);
    s->cols = side(msg, "cols", 80);
    take_light(s, msg);
    s->command = json_incref(argv);
    s->started = time(NULL);
    s->heard_ms = session_now_ms();
    s->about = json_object();
    json_t *user = json_object_get(msg, "user"), *cwd = json_object_get(msg, "cwd");
    json_object_set_new(s->about, "user", json_is_string(user) ? json_incref(user) : json_string("agent"));
    if (json_is_string(cwd))
        json_object_set(s->about, "cwd", cwd);
    for (int i = 0; i < 2; i++)
        s->pending[i] = evbuffer_new();
    s->replies = evbuffer_new();
    s->next = ss->list;
    ss->list = s;
    ss->count++;
    if (!s->pending[0] || !s->pending[1] || !s->replies ||
        link_open(ss->guest, s->chan, s->tty ? 1u : 0u) < 0 || (s->tty && open_screen(s) < 0)) {
        err_set(&e, STATUS_FAILED, "no room for another session");
        goto fail;
    }
    if (!s->detached) {
        struct viewer *v = viewer_add(s, client, chan);
        if (!v) {
            err_set(&e, STATUS_USAGE, "channel %u cannot be used", chan);
            goto fail;
        }
        v->rows = s->rows;
        v->cols = s->cols;
        s->sizer = v;
    }
    s->opener = client;
    s->opener_id = id;
    if (ctl_send(ss->guest_ctl, ss->guest, open_request(ss, s, msg), OPEN_TIMEOUT_MS, on_opened, s) < 0) {
        err_set(&e, STATUS_FAILED, "the machine takes no more requests");
        goto fail;
    }
    return;
fail:
    if (s)
        free_session(s);
    ctl_reply(client, id, &e, NULL);
}

static struct session *wanted(const struct sessions *ss, const json_t *msg)
{
    json_int_t n = json_integer_value(json_object_get(msg, "session"));
    if (n)
        return session_find(ss, (uint16_t)n);
    struct session *latest = NULL;
    for (struct session *s = ss->list; s; s = s->next) {
        if (!s->tty || s->over)
            continue;
        if (s->agent)
            return s;
        if (!latest)
            latest = s;
    }
    return latest;
}

void sessions_attach(struct sessions *ss, struct link *client, const json_t *msg)
{
    json_int_t id = json_integer_value(json_object_get(msg, "id"));
    uint16_t chan = (uint16_t)json_integer_value(json_object_get(msg, "chan"));
    struct session *s = wanted(ss, msg);
    struct err e;
    if (!s) {
        err_set(&e, STATUS_NOT_FOUND, "there is no such session");
        ctl_reply(client, id, &e, NULL);
        return;
    }
    if (!s->tty && !s->over && s->viewers) {
        err_set(&e, STATUS_USAGE, "session %u has no terminal, and is somebody else's", s->chan);
        ctl_reply(client, id, &e, NULL);
        return;
    }
    struct viewer *v = viewer_add(s, client, chan);
    if (!v) {
        err_set(&e, STATUS_USAGE, "channel %u cannot be used", chan);
        ctl_reply(client, id, &e, NULL);
        return;
    }
    v->read_only = json_is_true(json_object_get(msg, "readonly"));
    v->rows = side(msg, "rows", 0);
    v->cols = side(msg, "cols", 0);
    ctl_reply(client, id, NULL,
              json_pack("{s:i, s:i, s:i}", "session", (int)s->chan, "rows", (int)s->rows, "cols", (int)s->cols));
    if (s->tty && !s->over) {
        if (!v->read_only)
            take_light(s, msg);
        if (!v->read_only && v->rows && v->cols)
            sessions_resize(ss, client, msg);
        json_int_t lines = json_integer_value(json_object_get(msg, "scrollback"));
        flow_paint(s, v, lines > 0 ? (unsigned)lines : 0);
    }
    if (s->over)
        session_check_over(s);
    else if (!s->tty)
        flow_output(s, 0);
    session_changed(ss);
}

void sessions_signal(struct sessions *ss, struct link *client, const json_t *msg)
{
    struct session *s = session_find(ss, (uint16_t)json_integer_value(json_object_get(msg, "session")));
    json_int_t id = json_integer_value(json_object_get(msg, "id"));
    const char *op = json_string_value(json_object_get(msg, "op"));
    const char *sig = json_string_value(json_object_get(msg, "signal"));
    bool kill = op && strcmp(op, "kill") == 0;
    struct err e;
    if (!s || !ss->guest || s->exited)
        err_set(&e, STATUS_NOT_FOUND, "there is no such session");
    else if (ctl_send(ss->guest_ctl, ss->guest,
                      kill ? json_pack("{s:s, s:i}", "op", "kill", "chan", (int)s->chan)
                           : json_pack("{s:s, s:i, s:s}", "op", "signal", "chan", (int)s->chan, "signal",
                                       sig ? sig : "TERM"),
                      0, NULL, NULL) == 0) {
        ctl_reply(client, id, NULL, NULL);
        return;
    } else
        err_set(&e, STATUS_FAILED, "the machine takes no more requests");
    ctl_reply(client, id, &e, NULL);
}

struct text_request {
    struct text_request *next;
    struct sessions *ss;
    struct link *client; /* NULL once it left */
    json_int_t id;
};

static void on_text(void *arg, const json_t *reply, const char *error)
{
    struct text_request *t = arg;
    struct err e;
    json_t *text = json_object_get(reply, "text");
    for (struct text_request **p = &t->ss->texts; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    if (error)
        err_set(&e, STATUS_FAILED, "%s", error);
    if (t->client)
        ctl_reply(t->client, t->id, error ? &e : NULL, text ? json_pack("{s:O}", "text", text) : NULL);
    free(t);
}

void sessions_text(struct sessions *ss, struct link *client, const json_t *msg)
{
    struct session *s = wanted(ss, msg);
    json_int_t id = json_integer_value(json_object_get(msg, "id"));
    struct text_request *t = s && s->tty && ss->screen ? calloc(1, sizeof *t) : NULL;
    if (t) {
        *t = (struct text_request){ss->texts, ss, client, id};
        if (ctl_send(ss->screen_ctl, ss->screen,
                     json_pack("{s:s, s:i, s:I}", "op", "text", "chan", (int)s->chan, "scrollback",
                               json_integer_value(json_object_get(msg, "scrollback"))),
                     2000, on_text, t) == 0) {
            ss->texts = t;
            return;
        }
        free(t);
    }
    struct err e;
    err_set(&e, STATUS_NOT_FOUND, "there is no such session with a screen");
    ctl_reply(client, id, &e, NULL);
}

/* Keystrokes must not overtake a resize that came before them. */
static void tell_size(struct session *s, struct viewer *v)
{
    link_send_ctrl(v->link, json_pack("{s:s, s:i, s:i, s:i}", "op", "size", "chan", (int)v->chan, "rows", (int)s->rows, "cols", (int)s->cols));
}

void session_apply_resize(struct session *s)
{
    struct sessions *ss = s->owner;
    if (s->resize_timer)
        evtimer_del(s->resize_timer);
    struct link *to[] = {ss->screen, ss->guest};
    for (int i = 0; i < 2; i++)
        if (to[i] && link_is_open(to[i], s->chan))
            link_send_ctrl(to[i], json_pack("{s:s, s:i, s:i, s:i}", "op", "resize", "chan", (int)s->chan, "rows",
                                            (int)s->rows, "cols", (int)s->cols));
    /* Where in the stream the size changed is known to the screen alone: all see it drawn anew. */
    for (struct viewer *v = s->viewers; v && s->tty; v = v->next) {
        tell_size(s, v);
        if (ss->screen && !s->over && !s->exited)
            flow_paint(s, v, 0);
    }
    session_changed(ss);
}

static void on_resize_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    session_apply_resize(arg);
}

/* Windows are dragged: the program in the session hears of the size where that comes to rest. */
void sessions_resize(struct sessions *ss, struct link *client, const json_t *msg)
{
    struct session *s;
    struct viewer *v = viewer_find(ss, client, (uint16_t)json_integer_value(json_object_get(msg, "chan")), &s);
    if (!v || !s->tty || v->read_only)
        return;
    /* Who only looks gives it a size where nobody else did. */
    bool looks = json_is_true(json_object_get(msg, "looks"));
    if (looks && s->sizer && s->sizer != v)
        return;
    v->rows = side(msg, "rows", s->rows);
    v->cols = side(msg, "cols", s->cols);
    s->sizer = v;
    if (!looks)
        session_attended(s);
    if (v->rows == s->rows && v->cols == s->cols)
        return;
    s->rows = v->rows;
    s->cols = v->cols;
    if (!s->resize_timer)
        s->resize_timer = evtimer_new(ss->base, on_resize_due, s);
    struct timeval tv = {0, RESIZE_DELAY_MS * 1000};
    if (s->resize_timer)
        evtimer_add(s->resize_timer, &tv);
}

void sessions_repaint(struct sessions *ss, struct link *client, const json_t *msg)
{
    struct session *s;
    struct viewer *v = viewer_find(ss, client, (uint16_t)json_integer_value(json_object_get(msg, "chan")), &s);
    json_int_t lines = json_integer_value(json_object_get(msg, "scrollback"));
    if (!v || !s->tty || s->over || s->exited || v->state != VIEWER_LIVE)
        return; /* what it waits for shows as much */
    v->clear = true;
    flow_paint(s, v, lines > 0 ? (unsigned)lines : 0);
}

void sessions_detach(struct sessions *ss, struct link *client, uint16_t chan)
{
    struct session *s;
    struct viewer *v = viewer_find(ss, client, chan, &s);
    if (!v)
        return;
    viewer_remove(s, v);
    if (!s->tty && s->running && !s->exited && ss->guest) {
        s->detached = true;
        flow_output(s, 0);
        flow_output(s, 1);
    }
    session_changed(ss);
}

void sessions_client_gone(struct sessions *ss, struct link *client)
{
    for (struct text_request *t = ss->texts; t; t = t->next)
        if (t->client == client)
            t->client = NULL;
    for (struct session *s = ss->list, *next; s; s = next) {
        next = s->next;
        if (s->opener == client)
            s->opener = NULL;
        bool was_there = false;
        for (struct viewer *v = s->viewers, *n; v; v = n) {
            n = v->next;
            if (v->link == client) {
                viewer_remove(s, v);
                was_there = true;
            }
        }
        if (!was_there)
            continue;
        if (s->over) {
            if (!s->viewers)
                free_session(s);
        } else if (!s->tty && s->running && ss->guest) {
            if (!s->stdin_closed)
                link_send_eof(ss->guest, s->chan, 0);
            s->stdin_closed = true;
            link_send_ctrl(ss->guest, json_pack("{s:s, s:i, s:s}", "op", "signal", "chan", (int)s->chan,
                                                "signal", "HUP"));
            flow_output(s, 0);
            flow_output(s, 1);
        }
    }
    session_changed(ss);
}

/* ---- notes ---- */

bool sessions_guest_ctrl(struct sessions *ss, const json_t *msg)
{
    const char *op = json_string_value(json_object_get(msg, "op"));
    if (!op || strcmp(op, "exit") != 0)
        return false;
    struct session *s = session_find(ss, (uint16_t)json_integer_value(json_object_get(msg, "chan")));
    if (s && !s->exited) {
        s->exited = true;
        s->status = (int)json_integer_value(json_object_get(msg, "status")) & 0xff;
        s->signal = (int)json_integer_value(json_object_get(msg, "signal")) & 0x7f;
        session_check_over(s);
    }
    return true;
}

static void set_text(char **to, const char *text)
{
    char clean[1024];
    size_t n = text ? strlen(text) : 0;
    sanitize_line(clean, sizeof clean, text ? text : "", n < 240 ? n : 240);
    free(*to);
    *to = strdup(clean);
}

void session_attended(struct session *s)
{
    if (!s->bell)
        return;
    s->bell = false;
    free(s->notice);
    s->notice = NULL;
    session_changed(s->owner);
}

int64_t session_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void on_painting(struct session *s, const json_t *msg)
{
    json_int_t bytes = json_integer_value(json_object_get(msg, "bytes"));
    flow_painting(s, (unsigned)json_integer_value(json_object_get(msg, "token")),
                  bytes > 0 ? (size_t)bytes : 0,
                  (uint64_t)json_integer_value(json_object_get(msg, "at")));
}

bool sessions_screen_ctrl(struct sessions *ss, const json_t *msg)
{
    const char *op = json_string_value(json_object_get(msg, "op"));
    struct session *s = session_find(ss, (uint16_t)json_integer_value(json_object_get(msg, "chan")));
    static const char *const passed[] = {"notify", "clipboard", "cwd", "prompt", "bell", "title"};
    if (!op || !s)
        return false;
    if (strcmp(op, "painting") == 0) {
        on_painting(s, msg);
        return true;
    }
    if (strcmp(op, "title") == 0)
        set_text(&s->title, json_string_value(json_object_get(msg, "text")));
    else if (strcmp(op, "bell") == 0 || strcmp(op, "notify") == 0)
        s->bell = true;
    if (strcmp(op, "notify") == 0)
        set_text(&s->notice, json_string_value(json_object_get(msg, "text")));
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++)
        if (strcmp(op, passed[i]) == 0) {
            for (struct viewer *v = s->viewers; v; v = v->next) {
                json_t *copy = json_copy((json_t *)msg);
                json_object_set_new(copy, "chan", json_integer(v->chan));
                link_send_ctrl(v->link, copy);
            }
            session_changed(ss);
            return true;
        }
    return false;
}

unsigned sessions_count(const struct sessions *ss)
{
    unsigned n = 0;
    for (struct session *s = ss->list; s; s = s->next)
        n += !s->over;
    return n;
}

json_t *sessions_json(const struct sessions *ss)
{
    json_t *a = json_array();
    for (struct session *s = ss->list; s; s = s->next) {
        json_t *o = json_pack("{s:i, s:O, s:b, s:b, s:i, s:i, s:i, s:I, s:s, s:b, s:O}", "session", (int)s->chan,
                              "command", s->command, "tty", (int)s->tty, "agent", (int)s->agent, "rows",
                              (int)s->rows, "cols", (int)s->cols, "clients", (int)s->nviewers, "started",
                              (json_int_t)s->started, "title", s->title ? s->title : "", "bell", (int)s->bell,
                              "user", json_object_get(s->about, "user"));
        if (o && json_object_get(s->about, "cwd"))
            json_object_set(o, "cwd", json_object_get(s->about, "cwd"));
        if (o && s->bell && s->notice && s->notice[0])
            json_object_set_new(o, "notice", json_string(s->notice));
        if (o && s->tty && !s->over)
            json_object_set_new(o, "quiet_ms", json_integer(session_now_ms() - s->heard_ms));
        if (o && s->over)
            json_object_set_new(o, s->signal ? "signal" : "status", json_integer(s->signal ? s->signal : s->status));
        json_array_insert_new(a, 0, o);
    }
    return a;
}
