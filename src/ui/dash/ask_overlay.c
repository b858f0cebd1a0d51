#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ui/dash/app.h"
#include "ui/dash/ask_watch.h"
#include "ui/dash/keymap.h"
#include "ui/dash/paint.h"
#include "ui/dash/pane.h"
#include "ui/dash/task.h"

#define QUIET_MS 900 /* without a key, before one is an answer */
#define OTHER_MS 600 /* after another question took the place of one */

struct overlay {
    struct pane pane;
    struct ask_watch *watch;
    unsigned at, first; /* first: of the list, where it does not fit */
    int64_t ready_ms, shown_id;
    char shown_box[80]; /* numbers are the sandboxes' own: two of them ask by the same one */
    int list_y, list_rows, buttons_y;
};

static const struct {
    const char *action; /* of the keymap */
    const char *label;
    const char *word, *option; /* of sbx policy ask; NULL: none */
    enum style style;
} answers[] = {
    {"ask.once", "once", "allow", NULL, ST_ALLOW},
    {"ask.keep", "this sandbox", "allow", "--keep", ST_ALLOW},
    {"ask.all", "all sandboxes", "allow", "--global", ST_ALLOW},
    {"ask.deny", "deny", "deny", NULL, ST_DENY},
    {"ask.never", "deny for good", "deny", "--keep", ST_DENY},
};
#define NANSWERS (sizeof answers / sizeof *answers)

static struct overlay *self(struct pane *p)
{
    return (struct overlay *)p;
}

static bool ready(const struct overlay *o)
{
    return app_now_ms() >= o->ready_ms;
}

static struct ask_question *current(struct overlay *o)
{
    unsigned n = ask_watch_count(o->watch);
    if (o->at >= n)
        o->at = n ? n - 1 : 0;
    struct ask_question *q = ask_watch_at(o->watch, o->at);
    if (q && (q->id != o->shown_id || strcmp(q->box, o->shown_box) != 0)) {
        /* A key that was meant for the one before is no answer to this one. */
        if (o->shown_id && o->ready_ms < app_now_ms() + OTHER_MS)
            o->ready_ms = app_now_ms() + OTHER_MS;
        o->shown_id = q->id;
        snprintf(o->shown_box, sizeof o->shown_box, "%s", q->box);
    }
    return q;
}

static void target(const struct ask_question *q, char *out, size_t cap)
{
    snprintf(out, cap, strchr(q->host, ':') ? "[%s]:%d" : "%s:%d", q->host, q->port);
}

/* " o once "; returns the columns of the key. */
static int button_text(struct app *a, size_t i, char *out, size_t cap)
{
    char name[24];
    keymap_key_of(app_keys(a), "ask", answers[i].action, name, sizeof name);
    snprintf(out, cap, name[0] ? " %s %s " : " %s%s ", name, answers[i].label);
    return paint_width(name);
}

/* Where an answer's button stands; how many rows all of them take.  What denies stands together. */
static int button_place(struct app *a, int cols, size_t which, int *row, int *x, int *width)
{
    int at = 2, y = 0, all = 2;
    char text[64];
    for (size_t i = 0; i < NANSWERS; i++) {
        button_text(a, i, text, sizeof text);
        all += paint_width(text) + 1;
    }
    bool tight = all - 1 > cols - 1;
    for (size_t i = 0; i < NANSWERS; i++) {
        button_text(a, i, text, sizeof text);
        int n = paint_width(text);
        if (at + n > cols - 1 || (tight && answers[i].word[0] == 'd' && answers[i - 1].word[0] == 'a')) {
            at = 2;
            y++;
        }
        if (i == which) {
            *row = y;
            *x = at;
            *width = n;
        }
        at += n + 1;
    }
    return y + 1;
}

/* What is asked, down to the time that is left. Without a window the rows are only counted. */
static int draw_question(WINDOW *w, const struct ask_question *q, int cols)
{
    char text[500], where[300];
    int y = 1;
    int64_t left = q->deadline_ms - app_now_ms();
    target(q, where, sizeof where);
    snprintf(text, sizeof text, "%s wants to reach", q->box);
    y += paint_wrap(w, y, 2, cols - 4, 2, ST_TEXT, text);
    y += paint_wrap(w, y, 4, cols - 6, 5, ST_STRONG, where) + 1; /* all of it: what it ends with says whose it is */
    if (q->where[0]) {
        snprintf(text, sizeof text, "It is not outside: %s", q->where);
        y += paint_wrap(w, y, 2, cols - 4, 2, ST_WARN, text);
    }
    snprintf(text, sizeof text, "No rule speaks of it.%s", q->is_name ? "" : " It is an address, not a name.");
    y += paint_wrap(w, y, 2, cols - 4, 2, ST_DIM, text);
    if (q->count > 1)
        snprintf(text, sizeof text, "%lld attempts wait; denied in %lld s without an answer", (long long)q->count, (long long)(left > 0 ? left / 1000 : 0));
    else
        snprintf(text, sizeof text, "It waits; denied in %lld s without an answer", (long long)(left > 0 ? left / 1000 : 0));
    if (w) {
        paint_text(w, y, 2, cols - 4, left < 10000 ? ST_WARN : ST_DIM, text);
        paint_bar(w, y + 1, 2, cols - 4, q->limit_ms > 0 ? (double)left / (double)q->limit_ms : 0);
    }
    return y + 3;
}

static void draw_list(struct overlay *o, WINDOW *w, int y, int rows, int cols)
{
    char text[500], where[300];
    unsigned n = ask_watch_count(o->watch);
    o->list_y = y;
    o->list_rows = n > 1 && rows > 0 ? (int)n < rows ? (int)n : rows : 0;
    if (o->at < o->first)
        o->first = o->at;
    if (o->list_rows && o->at >= o->first + (unsigned)o->list_rows)
        o->first = o->at - (unsigned)o->list_rows + 1;
    if (o->first + (unsigned)o->list_rows > n)
        o->first = n - (unsigned)o->list_rows;
    for (int i = 0; i < o->list_rows; i++) {
        const struct ask_question *other = ask_watch_at(o->watch, o->first + (unsigned)i);
        target(other, where, sizeof where);
        snprintf(text, sizeof text, "%s  %s", other->box, where);
        bool on = o->first + (unsigned)i == o->at;
        paint_text(w, y + i, 2, cols - 4, on ? ST_SELECTED : ST_TEXT, text);
        if (on)
            paint_row(w, y + i, 2, cols - 4, ST_SELECTED);
    }
    paint_scroll(w, y, o->list_rows, (long)o->first, o->list_rows, (long)n, ST_FRAME_ON);
}

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct overlay *o = self(p);
    struct ask_question *q = current(o);
    char text[64];
    int cols = p->cols;
    (void)focus;
    if (!q)
        return;
    int row, x, width, lines = button_place(p->app, cols, 0, &row, &x, &width);
    o->buttons_y = p->rows - 1 - lines;
    int y = draw_question(w, q, cols);
    draw_list(o, w, y, o->buttons_y - 1 - y, cols);
    for (size_t i = 0; i < NANSWERS; i++) {
        bool live = ready(o) && !q->answered;
        button_place(p->app, cols, i, &row, &x, &width);
        int key = button_text(p->app, i, text, sizeof text);
        paint_text(w, o->buttons_y + row, x, width, live ? ST_BUTTON : ST_DIM, text);
        if (live) {
            paint_under(w, o->buttons_y + row, x + 1, key, ST_KEY, ST_BUTTON);
            paint_under(w, o->buttons_y + row, x + 1 + key + (key > 0), width - 2 - key - (key > 0), answers[i].style, ST_BUTTON);
        }
    }
}

static void want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    const struct ask_question *q = current(self(p));
    int count = (int)ask_watch_count(self(p)->watch), row, x, width;
    *cols = max_cols < 76 ? max_cols : 76;
    int need = (q ? draw_question(NULL, q, *cols) : 9) + (count > 1 ? (count < 8 ? count : 8) + 1 : 0) + button_place(p->app, *cols, 0, &row, &x, &width) + 1;
    *rows = max_rows < need ? max_rows : need;
}

static void title(struct pane *p, char *left, size_t left_cap, char *right, size_t right_cap)
{
    unsigned n = ask_watch_count(self(p)->watch);
    snprintf(left, left_cap, "May it?");
    if (n > 1)
        snprintf(right, right_cap, "%u questions", n);
}

struct sent {
    struct ask_watch *watch;
    struct app *app;
    char text[600], box[80];
    int64_t id;
};

static void on_done(const struct task_end *end, void *arg)
{
    struct sent *s = arg;
    if (end->status != 0) {
        app_say(s->app, SAY_ERROR, "%s: %s", s->text, end->error[0] ? end->error : "it failed");
        ask_watch_failed(s->watch, s->box, s->id); /* if it stands, it can be answered again */
    } else {
        app_say(s->app, SAY_GOOD, "%s", s->text);
    }
    free(s);
}

static const struct task_ops ops = {.done = on_done};

static void answer(struct overlay *o, size_t i)
{
    struct ask_question *q = current(o);
    struct err e = {0};
    char number[24], where[300];
    if (!q || q->answered)
        return;
    struct sent *s = calloc(1, sizeof *s);
    if (!s)
        return;
    target(q, where, sizeof where);
    s->app = o->pane.app;
    s->watch = o->watch;
    s->id = q->id;
    snprintf(s->box, sizeof s->box, "%s", q->box);
    if (answers[i].option)
        snprintf(s->text, sizeof s->text, "%s %s for %s, for good", answers[i].word, where, strcmp(answers[i].option, "--global") == 0 ? "all sandboxes" : q->box);
    else
        snprintf(s->text, sizeof s->text, "%s %s for %s, %s", answers[i].word, where, q->box, answers[i].word[0] == 'a' ? "this time" : "without asking again for five minutes");
    snprintf(number, sizeof number, "%lld", (long long)q->id);
    const char *argv[] = {"policy", "ask", answers[i].word, q->box, number, answers[i].option, NULL};
    if (task_run(o->pane.app, argv, NULL, 0, &ops, s, &e)) {
        q->answered = true; /* the note "asked" takes it away */
    } else {
        app_say(o->pane.app, SAY_ERROR, "%s", e.text);
        free(s);
    }
    pane_dirty(&o->pane);
}

/* By the user's own will: nothing took another's place. */
static void look_at(struct overlay *o, unsigned i)
{
    const struct ask_question *q = ask_watch_at(o->watch, i);
    if (!q)
        return;
    o->at = i;
    o->shown_id = q->id;
    snprintf(o->shown_box, sizeof o->shown_box, "%s", q->box);
}

/* Is it the time for an answer?  Else somebody types something else, and that goes on. */
static bool may_answer(struct overlay *o)
{
    current(o); /* it may have changed since it was drawn */
    if (ready(o))
        return true;
    if (o->ready_ms < app_now_ms() + QUIET_MS / 2)
        o->ready_ms = app_now_ms() + QUIET_MS / 2;
    return false;
}

static bool key(struct pane *p, const struct input *in)
{
    if (in->type == INPUT_KEY)
        may_answer(self(p));
    return true;
}

static bool action(struct pane *p, const char *what)
{
    struct overlay *o = self(p);
    unsigned n = ask_watch_count(o->watch);
    if (strncmp(what, "ask.", 4) != 0 && strncmp(what, "list.", 5) != 0 && strcmp(what, "overlay.close") != 0)
        return false;
    if (!may_answer(o))
        return true;
    if (strcmp(what, "ask.later") == 0 || strcmp(what, "overlay.close") == 0) {
        app_say(p->app, SAY_WARN, n == 1 ? "%u open question: it is denied when its time is over" : "%u open questions: they are denied when their time is over", n);
        ask_watch_hidden(o->watch, p);
        app_pop(p->app, p);
        return true;
    }
    unsigned page = o->list_rows > 1 ? (unsigned)o->list_rows - 1 : 1;
    if (strcmp(what, "list.up") == 0)
        look_at(o, o->at - (o->at > 0));
    else if (strcmp(what, "list.pgup") == 0)
        look_at(o, o->at - (o->at < page ? o->at : page));
    else if (strcmp(what, "list.pgdn") == 0)
        look_at(o, o->at + page < n ? o->at + page : n - 1);
    else if (strcmp(what, "list.top") == 0)
        look_at(o, 0);
    else if (strcmp(what, "list.bottom") == 0)
        look_at(o, n - 1);
    else if (strcmp(what, "ask.previous") == 0)
        look_at(o, o->at ? o->at - 1 : n - 1);
    else if (strcmp(what, "ask.next") == 0)
        look_at(o, (o->at + 1) % (n ? n : 1));
    else if (strcmp(what, "list.down") == 0)
        look_at(o, o->at + 1 < n ? o->at + 1 : o->at);
    for (size_t i = 0; i < NANSWERS; i++)
        if (strcmp(what, answers[i].action) == 0) {
            answer(o, i);
            break;
        }
    pane_dirty(p);
    return true;
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct overlay *o = self(p);
    current(o);
    if (in->mouse == MOUSE_WHEEL && (in->button == -1 || in->button == 1) && ready(o))
        look_at(o, in->button > 0 ? o->at + 1 : o->at - (o->at > 0));
    pane_dirty(p);
    if (in->mouse != MOUSE_PRESS || in->button != 1 || !ready(o))
        return true;
    if (in->y >= o->list_y && in->y < o->list_y + o->list_rows)
        look_at(o, o->first + (unsigned)(in->y - o->list_y));
    for (size_t i = 0; i < NANSWERS; i++) {
        int row, x, width;
        button_place(p->app, p->cols, i, &row, &x, &width);
        if (in->y == o->buttons_y + row && in->x >= x && in->x < x + width) {
            answer(o, i);
            break;
        }
    }
    pane_dirty(p);
    return true;
}

static void overlay_free(struct pane *p)
{
    ask_watch_hidden(self(p)->watch, p);
    free(p);
}

static void tick(struct pane *p)
{
    pane_dirty(p);
}

static bool idle(struct pane *p, const char *action)
{
    bool others = strcmp(action, "ask.next") == 0 || strcmp(action, "ask.previous") == 0;
    return others && ask_watch_count(self(p)->watch) < 2;
}

static const struct pane_class class = {.name = "ask", .idle = idle, .list = true, .modal = true, .draw = draw, .key = key, .action = action, .mouse = mouse,
                                        .title = title, .want = want, .tick = tick, .free = overlay_free};

void ask_overlay_news(struct pane *p)
{
    pane_dirty(p);
    app_redraw(p->app, false); /* it grows with them */
}

/* The one that is looked at stays, whatever goes beside it. */
void ask_overlay_dropped(struct pane *p, unsigned i)
{
    struct overlay *o = self(p);
    o->at -= i < o->at;
}

struct pane *ask_overlay_new(struct app *a, struct ask_watch *w)
{
    struct overlay *o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    o->pane.class = &class;
    o->pane.app = a;
    o->watch = w;
    o->ready_ms = app_now_ms() + QUIET_MS;
    return &o->pane;
}
