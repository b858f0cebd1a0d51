/* `sbx screen NAME`: keeps every terminal session's screen, and turns what sessions print into a stream that a
 * user's terminal may see.  Opens nothing; if it dies, sessions live on. */
#include "vm/screen_main.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/confine.h"
#include "core/linkev.h"
#include "core/log.h"
#include "vm/screen.h"

enum { FD_SUPERVISOR = 3 };
enum { STREAM_OUT, STREAM_REPLY, STREAM_PAINT };

#define SESSIONS_MAX 200
/* Input is taken in slices, and no more while this much waits. */
#define SLICE 16384u
#define OUT_HIGH (256u * 1024u)
#define NOTES_PER_SECOND 20

struct buffer {
    char *p;
    size_t pos, len, cap;
};

struct session {
    struct session *next;
    uint16_t chan;
    struct screen *screen;
    struct buffer in, out, paint;
    uint64_t produced; /* bytes ever put into out */
    bool ended;        /* the program will print no more */
    int64_t second;
    int notes;
};

static struct event_base *base;
static struct linkev *supervisor;
static struct session *sessions;
static unsigned count;

static bool buffer_put(struct buffer *b, const void *p, size_t n)
{
    if (b->pos == b->len)
        b->pos = b->len = 0;
    if (b->pos && b->len + n > b->cap) {
        memmove(b->p, b->p + b->pos, b->len - b->pos);
        b->len -= b->pos;
        b->pos = 0;
    }
    if (b->len + n > b->cap) {
        size_t cap = b->len + n < 4096 ? 4096 : (b->len + n) * 2;
        char *more = realloc(b->p, cap);
        if (!more)
            return false;
        b->p = more;
        b->cap = cap;
    }
    memcpy(b->p + b->len, p, n);
    b->len += n;
    return true;
}

static size_t buffer_size(const struct buffer *b)
{
    return b->len - b->pos;
}

static void drain(struct session *s, struct buffer *b, unsigned stream)
{
    if (buffer_size(b)) {
        b->pos += link_send_data(linkev_link(supervisor), s->chan, stream, b->p + b->pos, buffer_size(b));
        if (b->pos == b->len && b->cap > OUT_HIGH) { /* a large paint: give the memory back */
            free(b->p);
            *b = (struct buffer){0};
        }
    }
}

/* A few bytes can ask for many (REP): a slice ends behind the first of them. */
static size_t slice(const char *p, size_t len)
{
    size_t n = len < SLICE ? len : SLICE;
    for (const char *e = p; (e = memchr(e, 0x1b, n - (size_t)(e - p)));) {
        const char *end = p + n;
        e++;
        if (e < end && *e == '[')
            e++;
        while (e < end && ((*e >= '0' && *e <= '9') || *e == ';' || *e == ':'))
            e++;
        if (e < end && *e == 'b')
            return (size_t)(e + 1 - p);
    }
    return n;
}

static void pump(struct session *s)
{
    drain(s, &s->paint, STREAM_PAINT);
    drain(s, &s->out, STREAM_OUT);
    while (buffer_size(&s->in) && buffer_size(&s->out) < OUT_HIGH) {
        size_t n = slice(s->in.p + s->in.pos, buffer_size(&s->in));
        screen_feed(s->screen, s->in.p + s->in.pos, n);
        s->in.pos += n;
        link_consumed(linkev_link(supervisor), s->chan, 0, n);
        if (buffer_size(&s->out) >= 32768)
            drain(s, &s->out, STREAM_OUT);
    }
    drain(s, &s->out, STREAM_OUT);
    if (s->ended && buffer_size(&s->in) == 0 && buffer_size(&s->out) == 0) {
        s->ended = false;
        link_send_eof(linkev_link(supervisor), s->chan, STREAM_OUT); /* all was passed on: the session can end */
    }
}

/* ---- what the screen says ---- */

static void on_out(const char *bytes, size_t len, void *arg)
{
    struct session *s = arg;
    if (buffer_put(&s->out, bytes, len))
        s->produced += len;
}

static void on_reply(const char *bytes, size_t len, void *arg)
{
    struct session *s = arg;
    /* Beyond the window the program asks faster than it reads: answers are dropped. */
    link_send_data(linkev_link(supervisor), s->chan, STREAM_REPLY, bytes, len);
}

static void on_event(enum vt_event ev, const char *text, void *arg)
{
    static const struct {
        const char *op, *key;
    } ops[] = {[VT_TITLE] = {"title", "text"},          [VT_BELL] = {"bell", NULL}, [VT_NOTIFY] = {"notify", "text"},
               [VT_CLIPBOARD] = {"clipboard", "base64"}, [VT_CWD] = {"cwd", "path"}, [VT_PROMPT] = {"prompt", "mark"}};
    struct session *s = arg;
    time_t now = time(NULL);
    if ((size_t)ev >= sizeof ops / sizeof *ops || !ops[ev].op)
        return;
    if (now != s->second) {
        s->second = now;
        s->notes = 0;
    }
    if (++s->notes > NOTES_PER_SECOND || (ev == VT_CLIPBOARD && strlen(text) > 48 * 1024))
        return;
    json_t *m = json_pack("{s:s, s:i}", "op", ops[ev].op, "chan", (int)s->chan);
    if (ops[ev].key && text)
        json_object_set_new(m, ops[ev].key, json_string(text));
    link_send_ctrl(linkev_link(supervisor), m);
}

static const struct screen_ops screen_ops = {on_out, on_reply, on_event};

/* ---- what the supervisor asks ---- */

static struct session *find(uint16_t chan)
{
    struct session *s = sessions;
    while (s && s->chan != chan)
        s = s->next;
    return s;
}

static int number(const json_t *msg, const char *key)
{
    return (int)json_integer_value(json_object_get(msg, key));
}

static void open_session(const json_t *msg)
{
    uint16_t chan = (uint16_t)number(msg, "chan");
    struct session *s = count < SESSIONS_MAX && !find(chan) ? calloc(1, sizeof *s) : NULL;
    int scrollback = number(msg, "scrollback");
    if (!s)
        return;
    s->chan = chan;
    s->screen = screen_new(number(msg, "rows"), number(msg, "cols"), scrollback > 0 ? (unsigned)scrollback : 0, &screen_ops, s);
    if (!s->screen || link_open(linkev_link(supervisor), chan, 0) < 0) {
        screen_free(s->screen);
        free(s);
        return;
    }
    screen_light(s->screen, json_is_true(json_object_get(msg, "light")));
    s->next = sessions;
    sessions = s;
    count++;
}

static void close_session(uint16_t chan)
{
    struct session **p = &sessions;
    while (*p && (*p)->chan != chan)
        p = &(*p)->next;
    struct session *s = *p;
    if (!s)
        return;
    *p = s->next;
    count--;
    link_close(linkev_link(supervisor), chan);
    screen_free(s->screen);
    free(s->in.p);
    free(s->out.p);
    free(s->paint.p);
    free(s);
}

static void paint(struct session *s, const json_t *msg)
{
    size_t len;
    int scrollback = number(msg, "scrollback");
    char *p = screen_paint(s->screen, scrollback > 0 ? (unsigned)scrollback : 0, &len);
    bool clear = json_is_true(json_object_get(msg, "clear"));
    if (!p || (clear && !buffer_put(&s->paint, "\033[3J", 4)) || !buffer_put(&s->paint, p, len))
        len = 0;
    else if (clear)
        len += 4;
    free(p);
    link_send_ctrl(linkev_link(supervisor),
                   json_pack("{s:s, s:i, s:O?, s:I, s:I}", "op", "painting", "chan", (int)s->chan, "token",
                             json_object_get(msg, "token"), "bytes", (json_int_t)len, "at", (json_int_t)s->produced));
    pump(s);
}

static void text(struct session *s, const json_t *msg)
{
    size_t len;
    char *p = s ? screen_text(s->screen, (unsigned)number(msg, "scrollback"), &len) : NULL;
    size_t skip = p && len > 48 * 1024 ? len - 48 * 1024 : 0;
    while (p && skip && skip < len && ((unsigned char)p[skip] & 0xc0) == 0x80)
        skip++; /* not within a character */
    json_t *body = p ? json_stringn(p + skip, len - skip) : NULL;
    json_t *m = json_pack("{s:s, s:O?, s:b}", "op", "reply", "id", json_object_get(msg, "id"), "ok", body != NULL);
    if (body)
        json_object_set_new(m, "text", body);
    else
        json_object_set_new(m, "error", json_string("there is no such screen"));
    free(p);
    link_send_ctrl(linkev_link(supervisor), m);
}

static void on_ctrl(struct linkev *c, json_t *msg, void *arg)
{
    const char *op = json_string_value(json_object_get(msg, "op"));
    struct session *s = find((uint16_t)number(msg, "chan"));
    (void)c;
    (void)arg;
    if (!op)
        return;
    if (strcmp(op, "open") == 0)
        open_session(msg);
    else if (strcmp(op, "close") == 0)
        close_session((uint16_t)number(msg, "chan"));
    else if (strcmp(op, "text") == 0)
        text(s, msg);
    else if (strcmp(op, "resize") == 0 && s)
        screen_resize(s->screen, number(msg, "rows"), number(msg, "cols"));
    else if (strcmp(op, "backdrop") == 0 && s)
        screen_light(s->screen, json_is_true(json_object_get(msg, "light")));
    else if (strcmp(op, "paint") == 0 && s)
        paint(s, msg);
}

static void on_data(struct linkev *c, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    struct session *s = find(chan);
    (void)c;
    (void)arg;
    if (!s || stream != 0 || !buffer_put(&s->in, buf, len)) {
        link_consumed(linkev_link(supervisor), chan, stream, len);
        return;
    }
    pump(s);
}

static void on_eof(struct linkev *c, uint16_t chan, unsigned stream, void *arg)
{
    struct session *s = find(chan);
    (void)c;
    (void)arg;
    if (s && stream == 0) {
        s->ended = true;
        pump(s);
    }
}

static void on_writable(struct linkev *c, uint16_t chan, unsigned stream, void *arg)
{
    struct session *s = find(chan);
    (void)c;
    (void)stream;
    (void)arg;
    if (s)
        pump(s);
}

static void on_closed(struct linkev *c, const char *why, void *arg)
{
    (void)c;
    (void)arg;
    if (why)
        log_line("supervisor: %s", why);
    event_base_loopbreak(base);
}

int screen_main(int argc, char **argv)
{
    static const struct linkev_ops ops = {.ctrl = on_ctrl, .data = on_data, .eof = on_eof, .writable = on_writable, .closed = on_closed};
    struct err e = {0};
    (void)argc;
    (void)argv;
    log_init("screen");
    signal(SIGPIPE, SIG_IGN);
    base = event_base_new();
    supervisor = base ? linkev_new(base, FD_SUPERVISOR, &ops, NULL) : NULL;
    const struct confine c = {.groups = CONFINE_IO, .own_network = true, .memory_max = 2048u * 1024 * 1024, .files_max = 64};
    if (!supervisor || confine_self(&c, &e) < 0) {
        log_line("%s", supervisor ? e.text : "out of memory");
        return STATUS_FAILED;
    }
    link_send_ctrl(linkev_link(supervisor), json_pack("{s:s, s:s, s:i}", "op", "hello", "role", "screen", "version", 1));
    event_base_dispatch(base);
    return STATUS_OK;
}
