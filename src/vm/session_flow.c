#include <stdlib.h>
#include <string.h>

#include "vm/session_int.h"

/* What a terminal may still have to answer before the guest takes it: constants of the filter, a few bytes each. */
#define REPLIES_MAX 16384u

/* Gives `dst` what it takes of a buffer; returns how much that was. */
static size_t push(struct evbuffer *from, struct link *dst, uint16_t chan, unsigned stream)
{
    size_t total = 0;
    while (evbuffer_get_length(from)) {
        struct evbuffer_iovec v;
        if (evbuffer_peek(from, -1, NULL, &v, 1) < 1)
            break;
        size_t n = link_send_data(dst, chan, stream, v.iov_base, v.iov_len);
        evbuffer_drain(from, n);
        total += n;
        if (n < v.iov_len)
            break;
    }
    return total;
}

void flow_output(struct session *s, unsigned stream)
{
    struct sessions *ss = s->owner;
    struct evbuffer *b = s->pending[stream];
    size_t n;
    if (s->tty) {
        /* Without a screen process the session goes on unseen. */
        n = ss->screen && link_is_open(ss->screen, s->chan) ? push(b, ss->screen, s->chan, 0)
                                                            : evbuffer_get_length(b);
        if (!ss->screen)
            evbuffer_drain(b, n);
        if (s->eof_in[0] && evbuffer_get_length(b) == 0 && !s->screen_eof_sent && ss->screen) {
            s->screen_eof_sent = true;
            link_send_eof(ss->screen, s->chan, 0);
        }
    } else if (s->viewers) {
        n = push(b, s->viewers->link, s->viewers->chan, stream);
        if (s->eof_in[stream] && evbuffer_get_length(b) == 0 && !s->viewers->eof_sent[stream]) {
            s->viewers->eof_sent[stream] = true;
            link_send_eof(s->viewers->link, s->viewers->chan, stream);
        }
    } else {
        n = evbuffer_get_length(b);
        evbuffer_drain(b, n);
    }
    if (n && ss->guest)
        link_consumed(ss->guest, s->chan, stream, n);
    if (evbuffer_get_length(b) == 0 && s->eof_in[stream])
        session_check_over(s);
}

void flow_input(struct session *s)
{
    struct sessions *ss = s->owner;
    if (!ss->guest || !s->running)
        return;
    push(s->replies, ss->guest, s->chan, 0);
    bool waiting = evbuffer_get_length(s->replies) > 0, ended = s->viewers != NULL;
    for (struct viewer *v = s->viewers; v; v = v->next) {
        size_t n = waiting ? 0 : push(v->in, ss->guest, s->chan, 0);
        if (n)
            link_consumed(v->link, v->chan, 0, n);
        ended = ended && v->stdin_eof && evbuffer_get_length(v->in) == 0;
    }
    if (!s->tty && ended && !s->stdin_closed) {
        s->stdin_closed = true;
        link_send_eof(ss->guest, s->chan, 0);
    }
}

void flow_paint(struct session *s, struct viewer *v, unsigned scrollback)
{
    struct sessions *ss = s->owner;
    if (v->state == VIEWER_PAINTING && ss->screen) {
        v->again = true;
        return;
    }
    if (v->state == VIEWER_WAITING && scrollback < v->lines)
        scrollback = v->lines; /* what it asked for first is not lost */
    v->behind = v->again = false;
    v->lines = scrollback;
    if (!ss->screen) {
        v->state = VIEWER_LIVE;
        return;
    }
    v->state = VIEWER_WAITING;
    v->token = ++ss->next_token;
    link_send_ctrl(ss->screen, json_pack("{s:s, s:i, s:i, s:i, s:b}", "op", "paint", "chan", (int)s->chan, "token",
                                         (int)v->token, "scrollback", (int)scrollback, "clear", (int)v->clear));
}

/* A sequence may have been cut where bytes were dropped: CAN ends it in every terminal. */
static void cancel(struct viewer *v)
{
    evbuffer_add(v->out, "\030", 1);
}

void flow_viewer(struct session *s, struct viewer *v)
{
    push(v->out, v->link, v->chan, 0);
    if (evbuffer_get_length(v->out) == 0 && v->behind && v->state == VIEWER_LIVE && !s->exited) {
        cancel(v);
        flow_paint(s, v, 0);
    }
    if (s->over && evbuffer_get_length(v->out) == 0)
        session_check_over(s);
}

/* One chunk of the filtered stream, for every viewer that can use it. */
void flow_live(struct session *s, const uint8_t *buf, size_t len)
{
    uint64_t from = s->screen_pos;
    s->screen_pos += len;
    for (struct viewer *v = s->viewers, *next; v; v = next) {
        next = v->next;
        if (v->state == VIEWER_WAITING)
            continue;
        const uint8_t *p = buf;
        size_t n = len;
        if (from < v->paint_at) {
            size_t old = (size_t)(v->paint_at - from < n ? v->paint_at - from : n);
            p += old;
            n -= old;
        }
        struct evbuffer *to = v->state == VIEWER_PAINTING ? v->newer : v->out;
        if (n == 0 || v->behind)
            continue;
        if (evbuffer_get_length(to) + n > SESSION_LIVE_MAX) {
            v->behind = true;
            continue;
        }
        evbuffer_add(to, p, n);
        if (v->state == VIEWER_LIVE)
            flow_viewer(s, v);
    }
}

/* ---- from the guest ---- */

void sessions_guest_data(struct sessions *ss, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len)
{
    struct session *s = session_find(ss, chan);
    if (!s || s->over || stream > 1 || (s->tty && stream)) {
        if (ss->guest)
            link_consumed(ss->guest, chan, stream, len);
        return;
    }
    s->heard_ms = session_now_ms();
    evbuffer_add(s->pending[stream], buf, len);
    flow_output(s, stream);
}

void sessions_guest_eof(struct sessions *ss, uint16_t chan, unsigned stream)
{
    struct session *s = session_find(ss, chan);
    if (!s || stream > 1)
        return;
    s->eof_in[stream] = true;
    if (s->tty)
        s->eof_in[1] = true;
    flow_output(s, stream);
}

void sessions_guest_writable(struct sessions *ss, uint16_t chan, unsigned stream)
{
    struct session *s = stream == 0 ? session_find(ss, chan) : NULL;
    if (s)
        flow_input(s);
}

/* ---- from the screen ---- */

static struct viewer *painted_viewer(const struct session *s, unsigned token)
{
    struct viewer *v = s->viewers;
    while (v && !(v->state == VIEWER_PAINTING && v->token == token))
        v = v->next;
    return v;
}

static void painting_done(struct session *s, struct viewer *v)
{
    evbuffer_add_buffer(v->out, v->newer);
    v->state = VIEWER_LIVE;
    v->lines = 0;
    v->clear = false;
    if (v->again && !s->over && !s->exited)
        flow_paint(s, v, 0);
}

void flow_painting(struct session *s, unsigned token, size_t bytes, uint64_t at)
{
    struct painting *p = calloc(1, sizeof *p), **tail = &s->paintings;
    struct viewer *v = s->viewers;
    while (v && !(v->state == VIEWER_WAITING && v->token == token))
        v = v->next;
    if (v) {
        v->state = VIEWER_PAINTING;
        v->paint_at = at;
        if (bytes == 0 || bytes > SESSION_PAINT_MAX || !p)
            painting_done(s, v);
    }
    if (!p || bytes == 0) {
        free(p);
        return;
    }
    *p = (struct painting){NULL, token, bytes};
    while (*tail)
        tail = &(*tail)->next;
    *tail = p;
}

void flow_no_paintings(struct session *s)
{
    while (s->paintings) {
        struct painting *p = s->paintings;
        s->paintings = p->next;
        free(p);
    }
}

static void painted(struct session *s, const uint8_t *buf, size_t len)
{
    struct painting *p;
    while (len && (p = s->paintings)) {
        struct viewer *v = painted_viewer(s, p->token);
        size_t n = len < p->left ? len : p->left;
        p->left -= n;
        if (v)
            evbuffer_add(v->out, buf, n);
        buf += n;
        len -= n;
        if (p->left == 0) {
            s->paintings = p->next;
            free(p);
            if (v)
                painting_done(s, v);
        }
    }
    for (struct viewer *v = s->viewers; v; v = v->next) {
        if (s->over)
            push(v->out, v->link, v->chan, 0);
        else
            flow_viewer(s, v);
    }
    if (s->over)
        session_check_over(s); /* may free it */
}

void sessions_screen_data(struct sessions *ss, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len)
{
    struct session *s = session_find(ss, chan);
    if (s && stream == 0) {
        flow_live(s, buf, len);
    } else if (s && stream == 1) {
        if (evbuffer_get_length(s->replies) + len <= REPLIES_MAX)
            evbuffer_add(s->replies, buf, len);
        flow_input(s);
    } else if (s && stream == 2) {
        painted(s, buf, len);
    }
    if (ss->screen)
        link_consumed(ss->screen, chan, stream, len);
}

void sessions_screen_eof(struct sessions *ss, uint16_t chan, unsigned stream)
{
    struct session *s = session_find(ss, chan);
    if (!s || stream != 0)
        return;
    s->screen_eof = true;
    session_check_over(s);
}

void sessions_screen_writable(struct sessions *ss, uint16_t chan, unsigned stream)
{
    struct session *s = stream == 0 ? session_find(ss, chan) : NULL;
    if (s)
        flow_output(s, 0);
}

/* ---- from clients ---- */

void sessions_client_data(struct sessions *ss, struct link *client, uint16_t chan, unsigned stream,
                          const uint8_t *buf, size_t len)
{
    struct session *s;
    struct viewer *v = viewer_find(ss, client, chan, &s);
    if (!v || stream != 0 || v->read_only || v->stdin_eof || s->exited) {
        link_consumed(client, chan, stream, len);
        return;
    }
    /* Who types has the say about the size. */
    if (s->tty && s->sizer != v && v->rows) {
        json_t *m = json_pack("{s:i, s:i, s:i}", "chan", (int)chan, "rows", (int)v->rows, "cols", (int)v->cols);
        sessions_resize(ss, client, m);
        json_decref(m);
    }
    if (s->resize_timer && evtimer_pending(s->resize_timer, NULL))
        session_apply_resize(s);
    session_attended(s);
    evbuffer_add(v->in, buf, len);
    flow_input(s);
}

void sessions_client_eof(struct sessions *ss, struct link *client, uint16_t chan, unsigned stream)
{
    struct session *s;
    struct viewer *v = stream == 0 ? viewer_find(ss, client, chan, &s) : NULL;
    if (!v)
        return;
    v->stdin_eof = true;
    flow_input(s);
}

void sessions_client_writable(struct sessions *ss, struct link *client, uint16_t chan, unsigned stream)
{
    struct session *s;
    struct viewer *v = viewer_find(ss, client, chan, &s);
    if (!v || stream > 1)
        return;
    if (s->tty)
        flow_viewer(s, v);
    else
        flow_output(s, stream);
}
