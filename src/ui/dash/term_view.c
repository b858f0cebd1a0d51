#include "ui/dash/term_view.h"

#include <event2/buffer.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/link.h"
#include "core/sanitize.h"
#include "ui/backdrop.h"
#include "ui/dash/term_keys.h"

/* A paste waits here until the session takes it; beyond, it is cut. */
#define INPUT_MAX (8u * 1024u * 1024u)
/* After output was dropped (we were too slow for a flood) the history is fetched again when it is quiet. */
#define QUIET_MS 700
/* A screen that does not come by then has nothing to say of modes. */
#define PAINT_MS 400

struct term_view {
    struct event_base *base;
    const struct term_view_ops *ops;
    void *arg;
    struct conn *conn;
    uint16_t chan;
    int session;
    enum view_state state;
    struct term_emu *emu;
    struct term_copy copy;
    unsigned scrollback;
    struct evbuffer *input, *early; /* early: typed before the screen came, each a struct input and its bytes */
    bool painted;
    struct event *paint;
    bool seen;
    size_t held; /* taken, not yet granted again */
    int rows, cols;           /* of the room */
    int told_rows, told_cols; /* what the session was told, 0: nothing */
    bool take, told_take;     /* by one who works in it */
    bool gap;
    struct event *quiet;
    char word[200];
};

static void changed(struct term_view *v)
{
    v->ops->changed(v, v->arg);
}

static void say(struct term_view *v, const char *text)
{
    sanitize_line(v->word, sizeof v->word, text, strlen(text));
}

static void on_quiet(evutil_socket_t fd, short what, void *arg)
{
    struct term_view *v = arg;
    (void)fd;
    (void)what;
    if (!v->gap || !v->conn || v->state != VIEW_LIVE || v->copy.look != TERM_FOLLOW)
        return;
    v->gap = false;
    conn_request(v->conn, "repaint", json_pack("{s:i, s:i}", "chan", (int)v->chan, "scrollback", (int)v->scrollback), NULL, NULL);
}

static void painted(struct term_view *v)
{
    struct input in;
    v->painted = true;
    evtimer_del(v->paint);
    while (evbuffer_remove(v->early, &in, sizeof in) == (int)sizeof in) {
        in.raw = in.raw_len ? (const char *)evbuffer_pullup(v->early, (ev_ssize_t)in.raw_len) : "";
        if (in.raw)
            term_keys_input(v->emu, &in, term_view_send, v);
        evbuffer_drain(v->early, in.raw_len);
    }
}

static void on_paint(evutil_socket_t fd, short what, void *arg)
{
    struct term_view *v = arg;
    (void)fd;
    (void)what;
    if (v->state == VIEW_LIVE)
        painted(v);
}

struct term_view *term_view_new(struct event_base *base, unsigned scrollback, const struct term_view_ops *ops, void *arg)
{
    struct term_view *v = calloc(1, sizeof *v);
    if (!v)
        return NULL;
    v->base = base;
    v->scrollback = scrollback;
    v->ops = ops;
    v->arg = arg;
    v->seen = true;
    v->input = evbuffer_new();
    v->early = evbuffer_new();
    v->quiet = evtimer_new(base, on_quiet, v);
    v->paint = evtimer_new(base, on_paint, v);
    if (!v->input || !v->early || !v->quiet || !v->paint) {
        term_view_free(v);
        return NULL;
    }
    return v;
}

/* Without a channel nobody says when the link ends: it is not kept. */
static void let_go(struct term_view *v)
{
    if (v->conn) {
        conn_forget(v->conn, v);
        if (v->chan)
            conn_chan_close(v->conn, v->chan);
    }
    v->conn = NULL;
    v->chan = 0;
}

void term_view_detach(struct term_view *v)
{
    if (v->conn && v->chan)
        conn_request(v->conn, "detach", json_pack("{s:i}", "chan", (int)v->chan), NULL, NULL);
    let_go(v);
    v->session = 0;
    v->held = 0;
    v->gap = false;
    v->told_rows = v->told_cols = 0;
    v->told_take = false;
    v->state = VIEW_EMPTY;
    v->word[0] = '\0';
    v->painted = false;
    evtimer_del(v->quiet);
    evtimer_del(v->paint);
    evbuffer_drain(v->input, evbuffer_get_length(v->input));
    evbuffer_drain(v->early, evbuffer_get_length(v->early));
    term_emu_free(v->emu);
    v->emu = NULL;
    term_copy_leave(&v->copy);
}

void term_view_free(struct term_view *v)
{
    if (!v)
        return;
    if (v->quiet && v->paint && v->input && v->early)
        term_view_detach(v);
    if (v->quiet)
        event_free(v->quiet);
    if (v->paint)
        event_free(v->paint);
    if (v->input)
        evbuffer_free(v->input);
    if (v->early)
        evbuffer_free(v->early);
    free(v);
}

/* ---- output ---- */

static void on_data(struct conn *c, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    struct term_view *v = arg;
    if (stream == 0 && v->emu) {
        /* The supervisor cuts what it drops with CAN; the filter lets none through otherwise. */
        if (memchr(buf, 0x18, len))
            v->gap = true;
        term_emu_feed(v->emu, buf, len);
        if (!v->painted && v->state == VIEW_LIVE)
            painted(v);
        if (v->gap) {
            struct timeval tv = {0, QUIET_MS * 1000};
            evtimer_add(v->quiet, &tv);
        }
        changed(v);
    }
    if (v->seen)
        conn_consumed(c, chan, stream, len);
    else
        v->held += len;
}

static void push(struct term_view *v)
{
    while (v->conn && v->chan && evbuffer_get_length(v->input)) {
        struct evbuffer_iovec io;
        if (evbuffer_peek(v->input, -1, NULL, &io, 1) < 1)
            break;
        size_t n = conn_chan_send(v->conn, v->chan, io.iov_base, io.iov_len);
        evbuffer_drain(v->input, n);
        if (n < io.iov_len)
            break;
    }
}

static void on_writable(struct conn *c, uint16_t chan, unsigned stream, void *arg)
{
    (void)c;
    (void)chan;
    (void)stream;
    push(arg);
}

static void end(struct term_view *v, const char *why)
{
    if (v->state == VIEW_ENDED)
        return;
    v->state = VIEW_ENDED;
    say(v, why);
    v->ops->ended(v, v->word, v->arg);
    changed(v);
}

static void on_note(struct conn *c, uint16_t chan, const char *op, const json_t *msg, void *arg)
{
    struct term_view *v = arg;
    char why[96];
    (void)c;
    (void)chan;
    if (strcmp(op, "size") == 0 && v->emu) {
        term_emu_resize(v->emu, (int)json_integer_value(json_object_get(msg, "rows")), (int)json_integer_value(json_object_get(msg, "cols")));
        changed(v);
    } else if (strcmp(op, "clipboard") == 0) {
        v->ops->clipboard(v, json_string_value(json_object_get(msg, "base64")), v->arg);
    } else if (strcmp(op, "exit") == 0) {
        json_t *sig = json_object_get(msg, "signal");
        int n = (int)json_integer_value(sig ? sig : json_object_get(msg, "status"));
        if (sig)
            snprintf(why, sizeof why, n == SIGHUP ? "the session was ended" : "the session ended by signal %d (%s)", n, strsignal(n));
        else if (n)
            snprintf(why, sizeof why, "the session ended with status %d", n);
        else
            snprintf(why, sizeof why, "the session ended");
        let_go(v);
        end(v, why);
    }
}

static void on_closed(struct conn *c, uint16_t chan, void *arg)
{
    struct term_view *v = arg;
    (void)c;
    (void)chan;
    v->conn = NULL;
    v->chan = 0;
    end(v, "the sandbox ended");
}

static const struct conn_chan_ops chan_ops = {.data = on_data, .writable = on_writable, .note = on_note, .closed = on_closed};

/* One who works in a session gives it a size; one who only looks, where nobody else did. */
static void tell_size(struct term_view *v)
{
    if (v->state != VIEW_LIVE || !v->conn || !v->chan || v->rows < 2 || v->cols < 2)
        return; /* told when it is */
    if (v->told_rows == v->rows && v->told_cols == v->cols && (v->told_take || !v->take))
        return;
    v->told_rows = v->rows;
    v->told_cols = v->cols;
    v->told_take = v->take;
    conn_request(v->conn, "resize",
                 json_pack("{s:i, s:i, s:i, s:b}", "chan", (int)v->chan, "rows", v->rows, "cols", v->cols, "looks", !v->take), NULL, NULL);
}

/* ---- begin ---- */

static void on_reply(bool ok, const json_t *reply, const char *error, void *arg)
{
    struct term_view *v = arg;
    if (!ok) {
        let_go(v);
        end(v, error);
        return;
    }
    struct timeval soon = {0, PAINT_MS * 1000};
    v->session = (int)json_integer_value(json_object_get(reply, "session"));
    json_t *rows = json_object_get(reply, "rows"), *cols = json_object_get(reply, "cols");
    if (!v->emu)
        v->emu = term_emu_new(rows ? (int)json_integer_value(rows) : v->rows, cols ? (int)json_integer_value(cols) : v->cols, v->scrollback, NULL, NULL);
    v->state = VIEW_LIVE;
    v->word[0] = '\0';
    v->ops->begun(v, v->arg);
    tell_size(v);
    changed(v);
    push(v);
    evtimer_add(v->paint, &soon);
}

static bool begin(struct term_view *v, struct conn *c)
{
    term_view_detach(v);
    v->conn = c;
    v->chan = conn_chan_open(c, &chan_ops, v);
    if (!v->chan) {
        v->conn = NULL;
        end(v, "too many sessions are shown");
        return false;
    }
    v->state = VIEW_WAITING;
    return true;
}

void term_view_attach(struct term_view *v, struct conn *c, int session, bool take)
{
    if (!begin(v, c))
        return;
    json_t *o = json_pack("{s:i, s:i}", "chan", (int)v->chan, "scrollback", (int)v->scrollback);
    if (session)
        json_object_set_new(o, "session", json_integer(session));
    if (backdrop_light() >= 0)
        json_object_set_new(o, "light", json_boolean(backdrop_light()));
    if (take && v->rows >= 2 && v->cols >= 2) {
        json_object_set_new(o, "rows", json_integer(v->rows));
        json_object_set_new(o, "cols", json_integer(v->cols));
        v->told_rows = v->rows;
        v->told_cols = v->cols;
        v->told_take = true;
    }
    v->session = session;
    conn_request(c, "attach", o, on_reply, v);
    changed(v);
}

void term_view_shell(struct term_view *v, struct conn *c)
{
    if (!begin(v, c))
        return;
    int rows = v->rows >= 2 ? v->rows : 24, cols = v->cols >= 2 ? v->cols : 80;
    v->emu = term_emu_new(rows, cols, v->scrollback, NULL, NULL);
    v->told_rows = rows;
    v->told_cols = cols;
    v->told_take = true;
    json_t *o = json_pack("{s:i, s:[s, s], s:b, s:i, s:i, s:s}", "chan", (int)v->chan, "argv", "bash", "-l", "tty", 1, "rows", rows, "cols", cols,
                          "term", "xterm-256color");
    if (backdrop_light() >= 0) {
        json_object_set_new(o, "light", json_boolean(backdrop_light()));
        json_object_set_new(o, "env", json_pack("{s:s}", "COLORFGBG", backdrop_colours()));
    }
    conn_request(c, "exec", o, on_reply, v);
    changed(v);
}

void term_view_size(struct term_view *v, int rows, int cols, bool take)
{
    v->rows = rows;
    v->cols = cols;
    v->take = take;
    if (!take)
        v->told_take = false; /* who comes back says so: the session hears that it is looked at */
    v->copy.rows = rows;
    v->copy.cols = cols;
    tell_size(v);
}

void term_view_seen(struct term_view *v, bool seen)
{
    v->seen = seen;
    if (seen && v->held && v->conn && v->chan)
        conn_consumed(v->conn, v->chan, 0, v->held);
    if (seen)
        v->held = 0;
}

enum view_state term_view_state(const struct term_view *v)
{
    return v->state;
}

int term_view_session(const struct term_view *v)
{
    return v->session;
}

const char *term_view_word(const struct term_view *v)
{
    return v->word;
}

struct term_emu *term_view_emu(struct term_view *v)
{
    return v->emu;
}

struct term_copy *term_view_copy(struct term_view *v)
{
    return &v->copy;
}

void term_view_input(struct term_view *v, const struct input *in)
{
    if (v->state == VIEW_LIVE && v->painted)
        term_keys_input(v->emu, in, term_view_send, v);
    else if ((v->state == VIEW_LIVE || v->state == VIEW_WAITING) && evbuffer_get_length(v->early) + sizeof *in + in->raw_len <= INPUT_MAX) {
        evbuffer_add(v->early, in, sizeof *in);
        evbuffer_add(v->early, in->raw, in->raw_len);
    }
}

void term_view_send(const char *bytes, size_t len, void *view)
{
    struct term_view *v = view;
    if (v->state != VIEW_LIVE && v->state != VIEW_WAITING)
        return;
    /* What is cut of a paste is its text, not the mark that ends it. */
    if (evbuffer_get_length(v->input) + len > INPUT_MAX + (len <= 16 ? 4096 : 0))
        return;
    evbuffer_add(v->input, bytes, len);
    if (v->state == VIEW_LIVE)
        push(v);
}
