#include "ui/dash/term_pane.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/paths.h"
#include "core/sanitize.h"
#include "ui/dash/app.h"
#include "ui/dash/edit.h"
#include "ui/dash/model.h"
#include "ui/dash/paint.h"
#include "ui/dash/pane.h"
#include "ui/dash/term_draw.h"
#include "ui/dash/term_keys.h"
#include "ui/dash/term_view.h"
#include "ui/session.h"

#define PREVIEW_MS 120 /* the cursor rests on a sandbox for that long before its session is shown */
#define HOLD_MS 150    /* a program may hold its frame (mode 2026) for that long */
#define CLICK_MS 350
#define WHEEL_LINES 3
#define CLOSE_MS 5000
#define ENDED_MS 700 /* what was still typed for a session that ended is nothing that was meant for us */
#define SPLIT_COLS 100 /* below, the halves lie one above the other */

struct half {
    struct term_view *view;
    int y, x, rows, cols;
};

/* A tab on the frame: columns of the title's text. */
#define EDGES_MAX 16
struct edge {
    int session, from, end;
};

struct term_pane {
    struct pane pane;
    char box[RECORD_NAME_MAX + 1];
    struct half half[2];
    bool split;
    int on; /* the half with the keys */
    bool focus;
    struct event *preview, *hold, *creep;
    struct input outside; /* where the pointer is while it selects beyond the edge */
    bool typing; /* a search */
    char text[128];
    size_t at; /* of the cursor in it */
    struct edit_cut cut;
    int typed_x; /* where that stands */
    bool selecting;
    int64_t clicked_ms, close_ms;
    int clicks, close_session;
    struct term_place clicked;
    struct edge edges[EDGES_MAX];
    int nedges;
    bool gone;  /* its sandbox is */
    bool again; /* it was away since a session ended: sessions of the same number are others */
    uint64_t paused_at; /* where a drag stopped it, UINT64_MAX: it did not */
    int64_t ended_ms;
    bool clip_said; /* that this sandbox may not copy */
};

static struct term_pane *self(struct pane *p)
{
    return (struct term_pane *)p;
}

static struct half *current(struct term_pane *t)
{
    return &t->half[t->on];
}

static int halves(const struct term_pane *t)
{
    return t->split ? 2 : 1;
}

/* ---- sessions ---- */

static int number_of(const json_t *s)
{
    return (int)json_integer_value(json_object_get(s, "session"));
}

/* The sandbox's sessions with a terminal, by number; returns how many. */
#define TABS_MAX 64
static int tabs(const struct box *b, const json_t *out[TABS_MAX])
{
    int n = 0;
    size_t i;
    json_t *s;
    if (!b)
        return 0;
    json_array_foreach(json_object_get(b->status, "sessions"), i, s) {
        if (!session_is_live(s) || n == TABS_MAX)
            continue;
        int at = n++;
        while (at > 0 && number_of(out[at - 1]) > number_of(s)) {
            out[at] = out[at - 1];
            at--;
        }
        out[at] = s;
    }
    return n;
}

static bool is_shown(const struct term_pane *t, int session, int but)
{
    for (int i = 0; i < halves(t); i++)
        if (i != but && t->half[i].view && term_view_session(t->half[i].view) == session)
            return true;
    return false;
}

/* The one to show where nothing was chosen: the agent's, else the latest; not one that ended here or is shown. */
static int choose(const struct term_pane *t, const struct box *b, int half)
{
    const json_t *list[TABS_MAX];
    int n = tabs(b, list), best = 0, ended = 0;
    if (!t->again && term_view_state(t->half[half].view) == VIEW_ENDED)
        ended = term_view_session(t->half[half].view);
    for (int i = 0; i < n; i++) {
        int s = number_of(list[i]);
        if (s == ended || is_shown(t, s, half))
            continue;
        best = s;
        if (json_is_true(json_object_get(list[i], "agent")))
            break;
    }
    return best;
}

static struct box *its_box(struct term_pane *t)
{
    return t->box[0] && t->pane.app ? model_find(app_model(t->pane.app), t->box) : NULL;
}

static void attach(struct term_pane *t, int half, struct box *b, int session)
{
    struct term_view *v = t->half[half].view;
    bool take = t->focus && half == t->on;
    if (!b || !b->conn)
        return;
    t->typing = t->typing && half != t->on;
    if ((term_view_state(v) == VIEW_LIVE || term_view_state(v) == VIEW_WAITING) && session && term_view_session(v) == session) {
        term_view_size(v, t->half[half].rows, t->half[half].cols, take);
        return;
    }
    term_view_attach(v, b->conn, session, take);
    pane_dirty(&t->pane);
}

static void go(struct term_pane *t, int half);
static void split(struct term_pane *t);

static void on_preview(evutil_socket_t fd, short what, void *arg)
{
    struct term_pane *t = arg;
    struct box *b = its_box(t);
    (void)fd;
    (void)what;
    for (int i = 0; i < halves(t); i++) {
        enum view_state s = term_view_state(t->half[i].view);
        int session = b && b->conn && b->life != LIFE_STOPPING && (s == VIEW_EMPTY || s == VIEW_ENDED) ? choose(t, b, i) : 0;
        if (session) {
            if (s == VIEW_ENDED && i == t->on)
                t->ended_ms = app_now_ms(); /* what is being typed is for the one that is seen */
            attach(t, i, b, session);
        } else if (s == VIEW_ENDED && t->split && term_view_state(t->half[1 - i].view) == VIEW_LIVE) {
            go(t, 1 - i); /* nothing is left to be shown beside the other */
            split(t);
            return;
        }
    }
}

static void look_soon(struct term_pane *t, int ms)
{
    struct timeval tv = {0, ms * 1000};
    if (!evtimer_pending(t->preview, NULL))
        evtimer_add(t->preview, &tv);
}

static void detach_all(struct term_pane *t)
{
    for (int i = 0; i < 2; i++)
        term_view_detach(t->half[i].view);
    t->typing = t->selecting = false;
}

static void box_changed(struct pane *p, struct box *b)
{
    struct term_pane *t = self(p);
    const char *name = b ? b->name : "";
    /* What is typed there goes nowhere then: neither to another's session, nor to the dashboard as its keys. */
    if (!b && t->box[0] && app_keeps_focus(p->app, p) && term_view_state(current(t)->view) != VIEW_EMPTY) {
        t->gone = true;
        t->ended_ms = app_now_ms();
        pane_dirty(p);
        return;
    }
    if (strcmp(name, t->box) != 0) {
        detach_all(t);
        t->split = t->clip_said = t->gone = false;
        t->on = 0;
        snprintf(t->box, sizeof t->box, "%s", name);
        if (p->class->resize)
            p->class->resize(p, p->rows, p->cols);
        evtimer_del(t->preview);
    }
    if (b && b->conn)
        look_soon(t, PREVIEW_MS);
    else
        t->again = true;
    if (p->visible)
        pane_dirty(p);
}

/* ---- what views say ---- */

static void on_hold(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    pane_dirty(arg);
}

static void on_changed(struct term_view *v, void *arg)
{
    struct term_pane *t = arg;
    struct term_emu *emu = term_view_emu(v);
    if (!t->pane.visible) {
        term_view_seen(v, false);
        return;
    }
    if (emu && term_emu_mode(emu, 2026)) {
        struct timeval tv = {0, HOLD_MS * 1000};
        if (!evtimer_pending(t->hold, NULL))
            evtimer_add(t->hold, &tv);
        return;
    }
    evtimer_del(t->hold);
    pane_dirty(&t->pane);
}

static void on_ended(struct term_view *v, const char *why, void *arg)
{
    struct term_pane *t = arg;
    if (t->pane.app && term_view_session(v))
        app_say(t->pane.app, SAY_INFO, "%s, session %d: %s", t->box, term_view_session(v), why);
    term_copy_leave(term_view_copy(v));
    if (v == current(t)->view) {
        t->typing = false;
        t->ended_ms = app_now_ms();
    }
    t->again = false;
    look_soon(t, 50);
}

static void on_begun(struct term_view *v, void *arg)
{
    struct term_pane *t = arg;
    struct box *b = its_box(t);
    if (b && t->focus)
        model_seen(app_model(t->pane.app), b);
    (void)v;
}

/* Of a session that nobody works in, nothing gets there. */
static void on_clipboard(struct term_view *v, const char *base64, void *arg)
{
    struct term_pane *t = arg;
    if (t->focus && v == current(t)->view)
        app_copy_from(t->pane.app, t->box, base64, &t->clip_said);
}

static const struct term_view_ops view_ops = {.changed = on_changed, .ended = on_ended, .begun = on_begun, .clipboard = on_clipboard};

/* ---- layout ---- */

static void resize(struct pane *p, int rows, int cols)
{
    struct term_pane *t = self(p);
    struct half *a = &t->half[0], *b = &t->half[1];
    *a = (struct half){a->view, 0, 0, rows, cols};
    *b = (struct half){b->view, 0, 0, rows, cols};
    if (t->split && cols >= SPLIT_COLS) {
        a->cols = (cols - 1) / 2;
        b->x = a->cols + 1;
        b->cols = cols - b->x;
    } else if (t->split) {
        a->rows = (rows - 1) / 2;
        b->y = a->rows + 1;
        b->rows = rows - b->y;
    }
    /* A session that is only looked at keeps the size that somebody else gives it. */
    for (int i = 0; i < 2; i++)
        term_view_size(t->half[i].view, t->half[i].rows, t->half[i].cols, t->focus && i < halves(t));
    p->dirty = true;
}

/* ---- drawing ---- */

static void draw_empty(struct term_pane *t, WINDOW *win, const struct half *h)
{
    struct box *b = its_box(t);
    const char *word = term_view_word(h->view);
    const json_t *list[TABS_MAX];
    int y = h->y + h->rows / 2;
    char text[256];
    bool ended = term_view_state(h->view) == VIEW_ENDED && t->focus;
    if (t->gone)
        snprintf(text, sizeof text, "%s was removed or renamed.", t->box);
    else if (!b)
        snprintf(text, sizeof text, "No sandbox is selected.");
    else if (word[0])
        snprintf(text, sizeof text, "%s", word);
    else if (term_view_state(h->view) == VIEW_WAITING || tabs(b, list)) /* it is about to be shown */
        snprintf(text, sizeof text, "%s", app_glyph("…", "..."));
    else if (b->conn)
        snprintf(text, sizeof text, "No session of %s has a terminal.", b->name);
    else
        snprintf(text, sizeof text, "%s is %s.", b->name, box_state_word(b));
    if (b && !b->conn && !word[0] && paint_width(text) > h->cols) /* the frame names it; the state is what matters */
        snprintf(text, sizeof text, "It is %s.", box_state_word(b));
    int x = h->x + (h->cols - paint_width(text)) / 2;
    paint_text(win, y, x < h->x ? h->x : x, h->cols, ST_DIM, text);
    const char *hint = NULL;
    if (t->gone)
        hint = "Esc leaves";
    else if (b && ended)
        hint = "Enter starts the agent again, Esc leaves";
    else if (b && b->conn && !word[0] && term_view_state(h->view) != VIEW_WAITING && !tabs(b, list))
        hint = "Enter starts its agent, x opens a shell";
    else if (b && !b->conn && b->life != LIFE_STARTING)
        hint = "s starts it, Enter starts it and its agent";
    if (hint) {
        x = h->x + (h->cols - paint_width(hint)) / 2;
        paint_text(win, y + 1, x < h->x ? h->x : x, h->cols, ST_DIM, hint);
    }
}

static void draw_half(struct term_pane *t, WINDOW *win, struct half *h, bool keys)
{
    struct term_emu *emu = term_view_emu(h->view);
    struct term_copy *c = term_view_copy(h->view);
    char text[200];
    if (!emu) {
        draw_empty(t, win, h);
        return;
    }
    term_draw(win, h->y, h->x, c, emu);
    if (keys && t->typing) {
        int y = h->y + h->rows - 1;
        theme_set(win, ST_FIELD_ON);
        mvwhline(win, y, h->x, ' ', h->cols);
        int label = paint_text(win, y, h->x, h->cols, ST_FIELD_ON, " Search: ");
        t->typed_x = h->x + label + paint_typed(win, y, h->x + label, h->cols - label, ST_FIELD_ON, t->text, t->at);
    } else if (term_view_state(h->view) == VIEW_ENDED) {
        snprintf(text, sizeof text, " %s%s ", t->gone ? "the sandbox was removed or renamed" : term_view_word(h->view),
                 !keys || !t->focus ? "" : t->gone ? "; Esc leaves" : "; Enter starts the agent again, Esc leaves");
        paint_text(win, h->y + h->rows - 1, h->x, h->cols, ST_BADGE, text);
    }
}

static void draw(struct pane *p, WINDOW *win, bool focus)
{
    struct term_pane *t = self(p);
    for (int i = 0; i < halves(t); i++) {
        term_view_seen(t->half[i].view, true);
        draw_half(t, win, &t->half[i], i == t->on);
    }
    if (t->split) {
        bool beside = t->half[1].x > 0;
        theme_set(win, ST_FRAME);
        for (int i = 0; i < (beside ? p->rows : p->cols); i++)
            mvwaddstr(win, beside ? i : t->half[1].y - 1, beside ? t->half[1].x - 1 : i, beside ? app_glyph("│", "|") : app_glyph("─", "-"));
    }
    (void)focus;
}

static void outer(struct pane *p, struct outer *want)
{
    struct term_pane *t = self(p);
    struct term_view *v = current(t)->view;
    struct term_emu *emu = term_view_emu(v);
    if (!emu || term_view_state(v) != VIEW_LIVE || t->typing || term_view_copy(v)->look == TERM_COPY)
        return;
    want->shape = term_view_copy(v)->look == TERM_FOLLOW ? term_emu_shape(emu) : 0;
    want->keypad = term_emu_keypad(emu);
    want->motion = term_emu_mode(emu, 1003);
}

/* The program's name as a tab shows it. */
static void tab_name(const json_t *s, char *out, size_t cap)
{
    json_t *command = json_object_get(s, "command");
    const char *word = json_is_array(command) ? json_string_value(json_array_get(command, 0)) : json_string_value(command);
    char safe[64];
    word = word ? word : "?";
    const char *slash = strrchr(word, '/');
    word = slash ? slash + 1 : word;
    sanitize_line(safe, sizeof safe, word, strcspn(word, " "));
    snprintf(out, cap, "%.20s", safe);
}

/* What the frame says on the right: where one looks, or what the program calls itself, which gives way to the tabs. */
static bool look_text(struct term_pane *t, char *out, size_t cap)
{
    struct term_view *v = current(t)->view;
    struct term_emu *emu = term_view_emu(v);
    struct term_copy *c = term_view_copy(v);
    if (!emu)
        return false;
    if (c->look == TERM_COPY)
        snprintf(out, cap, "COPY  %llu/%llu", (unsigned long long)(c->cursor.line - term_emu_first(emu) + 1),
                 (unsigned long long)(term_emu_end(emu) - term_emu_first(emu)));
    else if (c->look == TERM_PAUSED && term_emu_top(emu) > c->top)
        snprintf(out, cap, "PAUSED  %llu lines below", (unsigned long long)(term_emu_top(emu) - c->top));
    else if (term_emu_rows(emu) != current(t)->rows || term_emu_cols(emu) != current(t)->cols)
        snprintf(out, cap, "%dx%d", term_emu_cols(emu), term_emu_rows(emu));
    else
        return false;
    return true;
}

static void title(struct pane *p, char *left, size_t left_cap, char *right, size_t right_cap)
{
    struct term_pane *t = self(p);
    const json_t *list[TABS_MAX];
    char tab[TABS_MAX][40];
    struct term_view *v = current(t)->view;
    struct term_emu *emu = term_view_emu(v);
    int n = tabs(its_box(t), list), shown = term_view_session(v), first = 0, on = 0;
    bool looks = look_text(t, right, right_cap);
    int room = p->cols - 4 - (looks ? paint_width(right) + 4 : 0), used = paint_width(t->box);
    for (int i = 0; i < n; i++) {
        char name[24];
        int s = number_of(list[i]);
        bool bell = json_is_true(json_object_get(list[i], "bell")), other = s != shown && is_shown(t, s, t->on);
        tab_name(list[i], name, sizeof name);
        snprintf(tab[i], sizeof tab[i], s == shown ? "[%d %s%s]" : other ? "(%d %s%s)" : "%d %s%s", s, name, bell && s != shown ? " !" : "");
        if (s == shown)
            on = i;
    }
    for (int i = 0; i <= on && n; i++)
        used += 2 + paint_width(tab[i]);
    while (first < on && used + (first ? 3 : 0) > room) /* the one that is shown is seen */
        used -= 2 + paint_width(tab[first++]);
    size_t at = (size_t)snprintf(left, left_cap, "%s%s", t->box[0] ? t->box : "Terminal", first ? app_glyph("  \xe2\x80\xa6", "  ~") : "");
    t->nedges = 0;
    for (int i = first; i < n && at + 44 < left_cap; i++) {
        int from = paint_width(left);
        at += (size_t)snprintf(left + at, left_cap - at, "  %s", tab[i]);
        if (t->nedges < EDGES_MAX)
            t->edges[t->nedges++] = (struct edge){number_of(list[i]), from, paint_width(left)};
    }
    room = p->cols - 8 - paint_width(left);
    const char *said = emu && !looks ? term_emu_title(emu) : "";
    if (said[0] && room >= 12) {
        size_t len = strlen(said);
        while (len) {
            snprintf(right, right_cap, "%.*s%s", (int)len, said, said[len] ? app_glyph("\xe2\x80\xa6", "~") : "");
            if (paint_width(right) <= room)
                break;
            for (len--; len && ((unsigned char)said[len] & 0xc0) == 0x80; len--)
                ;
        }
    }
}

/* A click on a tab shows its session; where the other half shows it, the keys go there. */
static void edge(struct pane *p, int col)
{
    struct term_pane *t = self(p);
    struct box *b = its_box(t);
    for (int i = 0; i < t->nedges && b && b->conn; i++) {
        if (col < t->edges[i].from || col >= t->edges[i].end)
            continue;
        if (is_shown(t, t->edges[i].session, t->on))
            go(t, 1 - t->on);
        else if (t->edges[i].session != term_view_session(current(t)->view))
            attach(t, t->on, b, t->edges[i].session);
        pane_dirty(p);
        return;
    }
}

static bool cursor(struct pane *p, int *y, int *x)
{
    struct term_pane *t = self(p);
    struct half *h = current(t);
    struct term_emu *emu = term_view_emu(h->view);
    struct term_copy *c = term_view_copy(h->view);
    int row, col;
    if (!emu || !t->focus)
        return false;
    if (t->typing) {
        *y = h->y + h->rows - 1;
        *x = t->typed_x;
        return true;
    }
    uint64_t top = term_copy_top(c, emu);
    if (c->look == TERM_COPY) {
        *y = h->y + (int)(c->cursor.line - top);
        *x = h->x + c->cursor.col;
        return true;
    }
    bool visible = term_emu_cursor(emu, &row, &col);
    uint64_t line = term_emu_top(emu) + (uint64_t)row;
    if (!visible || term_view_state(h->view) != VIEW_LIVE || line < top || line >= top + (uint64_t)h->rows || col >= h->cols)
        return false;
    *y = h->y + (int)(line - top);
    *x = h->x + col;
    return true;
}

/* ---- copying ---- */

static void yank(struct term_pane *t, struct term_view *v)
{
    size_t len = 0;
    char *text = term_copy_text(term_view_copy(v), term_view_emu(v), &len);
    if (text && len)
        app_copy(t->pane.app, text, len);
    free(text);
}

/* The whole text of a session, to a file of its own that only the user reads. */
static void save(struct term_pane *t, struct term_view *v)
{
    struct term_emu *emu = term_view_emu(v);
    struct err e = {0};
    char when[32];
    time_t now = time(NULL);
    size_t len = 0, done = 0;
    strftime(when, sizeof when, "%Y%m%d-%H%M%S", localtime(&now));
    char *dir = path_in(PATH_DATA, &e, "saved"), *path = path_in(PATH_DATA, &e, "saved/%s-%d-%s.txt", t->box, term_view_session(v), when);
    char *text = term_emu_text(emu, (struct term_place){term_emu_first(emu), 0}, (struct term_place){term_emu_end(emu) - 1, TERM_COLS_MAX - 1}, false, &len);
    int fd = -1;
    if (dir && path && text) {
        mkdir(dir, 0700);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    while (fd >= 0 && done < len) {
        ssize_t n = write(fd, text + done, len - done);
        if (n < 0 && errno != EINTR)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0 && done == len)
        app_say(t->pane.app, SAY_GOOD, "saved to %s", path);
    else
        app_say(t->pane.app, SAY_ERROR, "cannot save to %s: %s", path ? path : "a file", strerror(errno));
    if (fd >= 0)
        close(fd);
    free(dir);
    free(path);
    free(text);
}

/* ---- keys ---- */

static void search_begin(struct term_pane *t)
{
    t->typing = true;
    t->text[0] = '\0';
    t->at = 0;
}

static void search_key(struct term_pane *t, const struct input *in)
{
    struct term_view *v = current(t)->view;
    struct term_copy *c = term_view_copy(v);
    struct edit e = {.text = t->text, .cap = sizeof t->text, .at = t->at, .cut = &t->cut, .parts = " "};
    if (in->type == INPUT_PASTE) {
        edit_paste(&e, in, true);
    } else if (in->key == K_ENTER) {
        t->typing = false;
        if (t->text[0])
            snprintf(c->search, sizeof c->search, "%s", t->text);
        if (c->search[0] && !term_copy_find(c, term_view_emu(v), true))
            app_say(t->pane.app, SAY_WARN, "\"%s\" is nowhere in the scrollback", c->search);
    } else if (input_leaves(in)) {
        t->typing = false;
    } else if (in->key == K_UP && c->search[0]) { /* what was looked for before */
        edit_remove(&e, 0, strlen(t->text));
        edit_insert(&e, c->search, strlen(c->search));
    } else {
        edit_key(&e, in);
    }
    t->at = e.at;
}

static bool typed(struct pane *p, const char *words[2])
{
    words[0] = "finds it, upwards";
    words[1] = "leaves";
    return self(p)->typing;
}

static bool copy_action(struct term_pane *t, const char *action)
{
    struct term_view *v = current(t)->view;
    struct term_copy *c = term_view_copy(v);
    struct term_emu *emu = term_view_emu(v);
    if (!emu)
        return false;
    if (strcmp(action, "leave") == 0) {
        if (c->select != SELECT_NONE)
            c->select = SELECT_NONE;
        else
            term_copy_leave(c);
    } else if (strcmp(action, "yank") == 0) {
        if (c->select == SELECT_NONE)
            term_copy_action(c, emu, "select-lines");
        yank(t, v);
        term_copy_leave(c);
    } else if (strcmp(action, "save") == 0) {
        save(t, v);
    } else if (strcmp(action, "search") == 0) {
        search_begin(t);
    } else if (strcmp(action, "next") == 0 || strcmp(action, "previous") == 0) {
        /* As one looks upwards from the end, "next" is the one above. */
        if (c->search[0] && !term_copy_find(c, emu, action[0] == 'n'))
            app_say(t->pane.app, SAY_WARN, "\"%s\" is nowhere in the scrollback", c->search);
    } else if (!term_copy_action(c, emu, action)) {
        return false;
    }
    pane_dirty(&t->pane);
    return true;
}

static bool just_ended(const struct term_pane *t)
{
    return app_now_ms() - t->ended_ms < ENDED_MS;
}

/* Words meant for a session that just ended must not become commands of the dashboard's. */
static bool ended_key(struct term_pane *t, const struct input *in)
{
    struct term_copy *c = term_view_copy(current(t)->view);
    if (c->look != TERM_FOLLOW || c->select != SELECT_NONE) {
        term_copy_leave(c);
        pane_dirty(&t->pane);
    }
    if (in->type != INPUT_KEY || just_ended(t))
        return true;
    if (t->gone) {
        if (in->key == K_ESC || in->key == K_ENTER)
            app_command(t->pane.app, "app.leave");
    } else if (in->key == K_ENTER && !in->mods)
        app_command(t->pane.app, "sandbox.attach");
    else if (in->key == K_ESC)
        app_command(t->pane.app, "app.leave");
    else
        app_say(t->pane.app, SAY_INFO, "this session ended; Enter starts the agent again, Esc leaves");
    return true;
}

static bool key(struct pane *p, const struct input *in)
{
    struct term_pane *t = self(p);
    struct term_view *v = current(t)->view;
    struct term_emu *emu = term_view_emu(v);
    struct term_copy *c = term_view_copy(v);
    if (term_view_state(v) == VIEW_WAITING && in->type != INPUT_FOCUS) {
        if (!just_ended(t))
            term_view_input(v, in);
        return true;
    }
    if (!emu && term_view_state(v) == VIEW_ENDED)
        return ended_key(t, in);
    if (!emu)
        return false;
    if (in->type == INPUT_FOCUS) {
        term_keys_input(emu, in, term_view_send, v);
        return true;
    }
    if (t->typing) {
        search_key(t, in);
        pane_dirty(p);
        return true;
    }
    if (c->look == TERM_COPY) {
        const char *action = in->type == INPUT_KEY ? keymap_action(app_keys(p->app), "copy", in->key, in->mods) : NULL;
        if (action && strncmp(action, "copy.", 5) == 0)
            copy_action(t, action + 5);
        return true;
    }
    if (term_view_state(v) == VIEW_ENDED)
        return ended_key(t, in);
    if (just_ended(t)) /* nor are they meant for the session that took its place */
        return true;
    if (term_view_state(v) != VIEW_LIVE)
        return false;
    if (c->look == TERM_PAUSED || c->select != SELECT_NONE) { /* typing goes to the screen, so the screen is shown */
        term_copy_leave(c);
        pane_dirty(p);
    }
    term_view_input(v, in);
    return true;
}

static bool grabs(struct pane *p)
{
    struct term_pane *t = self(p);
    enum view_state s = term_view_state(current(t)->view);
    return s == VIEW_LIVE || s == VIEW_WAITING || s == VIEW_ENDED || t->typing || term_view_copy(current(t)->view)->look == TERM_COPY;
}

static const char *context(struct pane *p)
{
    return term_view_copy(current(self(p))->view)->look == TERM_COPY ? "copy" : "prefix";
}

/* ---- actions ---- */

static void go(struct term_pane *t, int half)
{
    struct term_view *old = current(t)->view;
    if (half == t->on)
        return;
    if (t->focus && term_view_emu(old))
        term_keys_focus(term_view_emu(old), false, term_view_send, old);
    t->on = half;
    t->typing = false;
    struct term_view *v = current(t)->view;
    if (t->focus && term_view_emu(v))
        term_keys_focus(term_view_emu(v), true, term_view_send, v);
    if (t->focus)
        term_view_size(v, current(t)->rows, current(t)->cols, true);
    pane_dirty(&t->pane);
}

static void step(struct term_pane *t, int by)
{
    const json_t *list[TABS_MAX];
    struct box *b = its_box(t);
    int n = tabs(b, list), at = -1;
    for (int i = 0; i < n; i++)
        if (number_of(list[i]) == term_view_session(current(t)->view))
            at = i;
    for (int i = 0; i < n; i++) {
        at = at < 0 ? (by > 0 ? 0 : n - 1) : (at + by + n) % n;
        if (!is_shown(t, number_of(list[at]), t->on)) {
            attach(t, t->on, b, number_of(list[at]));
            return;
        }
    }
}

static void split(struct term_pane *t)
{
    struct box *b = its_box(t);
    if (t->split) { /* the half with the keys stays */
        if (t->on == 1) {
            struct term_view *v = t->half[0].view;
            t->half[0].view = t->half[1].view;
            t->half[1].view = v;
        }
        t->on = 0;
        t->split = false;
        term_view_detach(t->half[1].view);
    } else if (t->pane.rows >= 8 && b && b->conn) {
        t->split = true;
    } else {
        app_say(t->pane.app, SAY_WARN, b && b->conn ? "there is no room to split it" : "a sandbox that does not run has nothing to split");
        return;
    }
    resize(&t->pane, t->pane.rows, t->pane.cols);
    if (t->split) {
        int session = choose(t, b, 1);
        t->on = 1;
        if (session)
            attach(t, 1, b, session);
        else
            term_view_shell(t->half[1].view, b->conn);
    }
    pane_dirty(&t->pane);
}

static void close_session(struct term_pane *t)
{
    struct box *b = its_box(t);
    int s = term_view_session(current(t)->view);
    if (!b || !b->conn || !s)
        return;
    if (t->close_session != s || app_now_ms() - t->close_ms > CLOSE_MS) {
        t->close_session = s;
        t->close_ms = app_now_ms();
        app_say(t->pane.app, SAY_WARN, "the same once more ends session %d and what runs in it", s);
        return;
    }
    t->close_session = 0;
    conn_request(b->conn, "kill", json_pack("{s:i}", "session", s), NULL, NULL);
}

static bool action(struct pane *p, const char *name)
{
    struct term_pane *t = self(p);
    struct half *h = current(t);
    struct box *b = its_box(t);
    struct term_emu *emu = term_view_emu(h->view);
    if (strncmp(name, "copy.", 5) == 0)
        return copy_action(t, name + 5);
    if (strncmp(name, "term.", 5) != 0)
        return false;
    name += 5;
    t->ended_ms = 0; /* what is shown now was chosen */
    if (strcmp(name, "next") == 0) {
        step(t, 1);
    } else if (strcmp(name, "previous") == 0) {
        step(t, -1);
    } else if (name[0] >= '1' && name[0] <= '9' && !name[1]) {
        const json_t *list[TABS_MAX];
        int n = tabs(b, list), at = name[0] - '1';
        for (int i = 0; i < n; i++) /* the number that its tab shows, else its place */
            if (number_of(list[i]) == name[0] - '0')
                at = i;
        if (at >= n)
            app_say(p->app, SAY_WARN, "there is no session %s", name);
        else if (is_shown(t, number_of(list[at]), t->on))
            go(t, 1 - t->on);
        else if (number_of(list[at]) != term_view_session(h->view) || term_view_state(h->view) != VIEW_LIVE)
            attach(t, t->on, b, number_of(list[at]));
    } else if (strcmp(name, "new") == 0) {
        if (b && b->conn) {
            t->typing = false;
            term_view_shell(h->view, b->conn);
        }
    } else if (strcmp(name, "split") == 0) {
        split(t);
    } else if (strcmp(name, "other") == 0) {
        if (t->split)
            go(t, 1 - t->on);
    } else if (strcmp(name, "copy") == 0 || strcmp(name, "search") == 0 || strcmp(name, "page-up") == 0) {
        if (emu)
            term_copy_enter(term_view_copy(h->view), emu);
        if (emu && name[0] == 'p')
            term_copy_action(term_view_copy(h->view), emu, "pgup");
        if (emu && name[0] == 's')
            search_begin(t);
    } else if (strcmp(name, "close") == 0) {
        close_session(t);
    } else {
        return false;
    }
    pane_dirty(p);
    return true;
}

/* ---- mouse ---- */

static void press(struct term_pane *t, struct term_view *v, struct term_place at)
{
    struct term_copy *c = term_view_copy(v);
    int64_t now = app_now_ms();
    bool again = now - t->clicked_ms < CLICK_MS && t->clicked.line == at.line && abs(t->clicked.col - at.col) <= 1;
    t->clicks = again ? t->clicks % 3 + 1 : 1;
    t->clicked_ms = now;
    t->clicked = at;
    t->selecting = true;
    c->select = SELECT_NONE;
    if (t->clicks == 2)
        term_copy_word(c, term_view_emu(v), at);
    else if (t->clicks == 3)
        term_copy_line(c, at);
    if (c->look == TERM_COPY)
        c->cursor = at;
}

#define CREEP_MS 60

static bool mouse(struct pane *p, const struct input *in);

/* The pointer stands beyond the edge: what it selects grows, as long as it stays there. */
static void on_creep(evutil_socket_t fd, short what, void *arg)
{
    struct term_pane *t = arg;
    struct input in = t->outside;
    (void)fd;
    (void)what;
    if (t->selecting)
        mouse(&t->pane, &in);
}

/* As in X11: what was selected last, here. */
static void paste_copied(struct term_pane *t, struct term_view *v)
{
    const char *text = app_copied(t->pane.app);
    if (!text) {
        app_say(t->pane.app, SAY_INFO, "nothing was copied here yet; with Shift held, the middle button is your terminal's");
        return;
    }
    struct input in = {.type = INPUT_PASTE, .paste_begin = true, .paste_end = true, .raw = text, .raw_len = strlen(text)};
    term_copy_leave(term_view_copy(v));
    term_keys_input(term_view_emu(v), &in, term_view_send, v);
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct term_pane *t = self(p);
    for (int i = 0; i < halves(t) && in->mouse == MOUSE_PRESS; i++) {
        struct half *h = &t->half[i];
        if (in->y >= h->y && in->y < h->y + h->rows && in->x >= h->x && in->x < h->x + h->cols)
            go(t, i);
    }
    struct half *h = current(t);
    if (in->mouse == MOUSE_WHEEL) /* scrolls what is under the pointer, without taking the keys */
        for (int i = 0; i < halves(t); i++)
            if (in->y >= t->half[i].y && in->y < t->half[i].y + t->half[i].rows && in->x >= t->half[i].x && in->x < t->half[i].x + t->half[i].cols)
                h = &t->half[i];
    struct term_view *v = h->view;
    struct term_emu *emu = term_view_emu(v);
    struct term_copy *c = term_view_copy(v);
    if (!emu)
        return false;
    uint64_t top = term_copy_top(c, emu);
    int y = in->y - h->y, x = in->x - h->x;
    if (c->look == TERM_FOLLOW && !(in->mods & MOD_SHIFT) && !t->selecting && term_view_state(v) == VIEW_LIVE &&
        (t->focus || in->mouse == MOUSE_WHEEL) &&
        term_keys_mouse(emu, in, y + (int)(int64_t)(top - term_emu_top(emu)), x, term_view_send, v))
        return true;
    if (in->mouse == MOUSE_MOVE)
        return true;
    if (in->mouse == MOUSE_WHEEL) {
        if (in->button == -1 || in->button == 1)
            term_copy_scroll(c, emu, in->button * WHEEL_LINES);
        pane_dirty(p);
        return true;
    }
    if (in->mouse == MOUSE_PRESS && in->button == 2 && term_view_state(v) == VIEW_LIVE) {
        paste_copied(t, v);
        return true;
    }
    evtimer_del(t->creep);
    if ((y < 0 || y >= h->rows) && in->mouse == MOUSE_DRAG && t->selecting) {
        struct timeval tv = {0, CREEP_MS * 1000};
        term_copy_scroll(c, emu, y < 0 ? -1 : 1);
        t->outside = *in;
        evtimer_add(t->creep, &tv);
    }
    top = term_copy_top(c, emu);
    y = y < 0 ? 0 : y >= h->rows ? h->rows - 1 : y;
    x = x < 0 ? 0 : x >= h->cols ? h->cols - 1 : x;
    struct term_place at = {top + (uint64_t)y, x};
    if (in->mouse == MOUSE_PRESS && in->button == 1) {
        press(t, v, at);
    } else if (in->mouse == MOUSE_DRAG && t->selecting) {
        if (c->select == SELECT_NONE && (at.line != t->clicked.line || at.col != t->clicked.col)) {
            c->select = in->mods & MOD_ALT ? SELECT_BLOCK : SELECT_CELLS;
            c->anchor = t->clicked;
            t->paused_at = c->look == TERM_FOLLOW ? c->top : UINT64_MAX;
            if (c->look == TERM_FOLLOW) /* it does not run away under the pointer */
                c->look = TERM_PAUSED;
        }
        c->point = at;
    } else if (in->mouse == MOUSE_RELEASE && t->selecting) {
        t->selecting = false;
        if (c->select != SELECT_NONE)
            yank(t, v);
        if (c->look == TERM_PAUSED && c->top == t->paused_at)
            c->look = TERM_FOLLOW;
        t->paused_at = UINT64_MAX;
    }
    pane_dirty(p);
    return true;
}

/* ---- life ---- */

static bool open_session(struct pane *p, struct box *b, int session)
{
    struct term_pane *t = self(p);
    if (!b || !b->conn)
        return false;
    if (strcmp(t->box, b->name) != 0)
        box_changed(p, b);
    evtimer_del(t->preview);
    t->ended_ms = 0;
    if (session == 0) {
        enum view_state s = term_view_state(current(t)->view);
        if (s == VIEW_LIVE || s == VIEW_WAITING)
            return true;
        session = choose(t, b, t->on);
    }
    attach(t, t->on, b, session);
    return true;
}

static void focus(struct pane *p, bool on)
{
    struct term_pane *t = self(p);
    if (t->focus == on)
        return;
    t->focus = on;
    t->selecting = false;
    for (int i = 0; i < halves(t); i++)
        term_view_size(t->half[i].view, t->half[i].rows, t->half[i].cols, on);
    struct term_view *v = current(t)->view;
    if (term_view_emu(v))
        term_keys_focus(term_view_emu(v), on, term_view_send, v);
    if (on && its_box(t))
        model_seen(app_model(p->app), its_box(t));
}

static void free_pane(struct pane *p)
{
    struct term_pane *t = self(p);
    for (int i = 0; i < 2; i++)
        term_view_free(t->half[i].view);
    if (t->preview)
        event_free(t->preview);
    if (t->hold)
        event_free(t->hold);
    if (t->creep)
        event_free(t->creep);
    free(t);
}

struct pane *term_pane_new(struct app *a)
{
    static const struct pane_class class = {
        .name = "terminal", .draw = draw,     .key = key,   .action = action,      .mouse = mouse, .edge = edge,       .resize = resize,  .box = box_changed,
        .title = title,     .cursor = cursor, .grabs = grabs, .typed = typed, .context = context, .open = open_session, .focus = focus,
        .outer = outer,   .free = free_pane,
    };
    struct term_pane *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    int lines = (int)config_int("attach.scrollback", NULL);
    t->pane.class = &class;
    t->paused_at = UINT64_MAX;
    t->preview = evtimer_new(app_base(a), on_preview, t);
    t->hold = evtimer_new(app_base(a), on_hold, t);
    t->creep = evtimer_new(app_base(a), on_creep, t);
    for (int i = 0; i < 2; i++)
        t->half[i].view = term_view_new(app_base(a), lines > 0 ? (unsigned)lines : 0, &view_ops, t);
    if (!t->preview || !t->hold || !t->creep || !t->half[0].view || !t->half[1].view) {
        free_pane(&t->pane);
        return NULL;
    }
    return &t->pane;
}
