#include "ui/dash/app.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/paths.h"
#include "core/sanitize.h"
#include "core/spawn.h"
#include "ui/clip.h"
#include "ui/dash/app_int.h"
#include "ui/dash/model.h"
#include "ui/dash/paint.h"
#include "ui/dash/screen.h"
#include "ui/dash/task.h"
#include "ui/dash/theme.h"

#define FRAME_MS 16
#define TYPED_FRAME_MS 4
#define TYPED_MS 150
#define ESC_MS 25
#define SAY_MS 6000
#define MIN_ROWS 16
#define MIN_COLS 60
#define NARROW_COLS 80 /* below, one pane at a time */

int64_t app_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *app_glyph(const char *utf8, const char *plain)
{
    return screen_utf8() ? utf8 : plain;
}

struct event_base *app_base(struct app *a)
{
    return a->base;
}

struct model *app_model(struct app *a)
{
    return a->model;
}

const struct keymap *app_keys(struct app *a)
{
    return a->keys;
}

/* ---- frames ---- */

/* The first change after a quiet time is shown at once; a stream of them 60 times a second, but while the user types as
 * often as a key's echo can come. */
static void want_frame(struct app *a)
{
    int64_t now = app_now_ms(), frame = now - a->typed_ms < TYPED_MS ? TYPED_FRAME_MS : FRAME_MS, wait = a->drawn_ms + frame - now;
    if (a->frame_ev && (!evtimer_pending(a->frame_ev, NULL) || now + wait < a->frame_due_ms)) {
        wait = wait < 1 ? 1 : wait;
        struct timeval tv = {0, (suseconds_t)wait * 1000};
        a->frame_due_ms = now + wait;
        evtimer_add(a->frame_ev, &tv);
    }
}

void pane_dirty(struct pane *p)
{
    p->dirty = true;
    if (p->app)
        want_frame(p->app);
}

static void bars_dirty(struct app *a)
{
    a->bars_dirty = true;
    want_frame(a);
}

static struct slot *slot_of(struct app *a, const struct pane *p)
{
    for (int i = 0; i < AREAS; i++)
        if (a->slot[i].pane == p)
            return &a->slot[i];
    for (unsigned i = 0; i < a->noverlays; i++)
        if (a->overlay[i].pane == p)
            return &a->overlay[i];
    return NULL;
}

struct pane *app_focused(struct app *a)
{
    if (a->noverlays)
        return a->overlay[a->noverlays - 1].pane;
    return a->slot[a->focus].pane;
}

static void drop_windows(struct slot *s)
{
    if (s->inner)
        delwin(s->inner);
    if (s->outer)
        delwin(s->outer);
    s->inner = s->outer = NULL;
}

static void place(struct app *a, struct slot *s, int y, int x, int rows, int cols)
{
    struct pane *p = s->pane;
    drop_windows(s);
    if (!p)
        return;
    p->visible = rows >= 3 && cols >= 4;
    s->y = y;
    s->x = x;
    if (!p->visible)
        return;
    s->outer = newwin(rows, cols, y, x);
    s->inner = s->outer ? derwin(s->outer, rows - 2, cols - 2, 1, 1) : NULL;
    if (!s->inner) {
        p->visible = false;
        return;
    }
    bool changed = p->rows != rows - 2 || p->cols != cols - 2;
    p->rows = rows - 2;
    p->cols = cols - 2;
    if (changed && p->class->resize)
        p->class->resize(p, p->rows, p->cols);
    p->dirty = true;
    (void)a;
}

static void hide(struct slot *s)
{
    drop_windows(s);
    if (s->pane)
        s->pane->visible = false;
}

static int clamp(int v, int low, int high)
{
    return v < low ? low : v > high ? high : v;
}

static void place_overlay(struct app *a, struct slot *s)
{
    struct pane *p = s->pane;
    int rows = LINES - 6, cols = COLS - 8;
    if (p->class->want)
        p->class->want(p, LINES - 4, COLS - 4, &rows, &cols);
    rows = clamp(rows, 1, LINES - 4) + 2;
    cols = clamp(cols, 10, COLS - 4) + 2;
    place(a, s, (LINES - rows) / 2, (COLS - cols) / 2, rows, cols);
}

static void layout(struct app *a)
{
    int top = 1, rows = LINES - 2, cols = COLS;
    a->too_small = LINES < MIN_ROWS || COLS < MIN_COLS;
    a->narrow = COLS < NARROW_COLS;
    for (int i = 0; i < AREAS; i++)
        hide(&a->slot[i]);
    if (a->title)
        delwin(a->title);
    if (a->status)
        delwin(a->status);
    a->title = newwin(1, COLS, 0, 0);
    a->status = newwin(1, COLS, LINES - 1, 0);
    if (a->too_small || !a->title || !a->status) {
        for (unsigned i = 0; i < a->noverlays; i++)
            hide(&a->overlay[i]);
    } else if (a->zoomed || a->narrow) {
        place(a, &a->slot[a->focus], top, 0, rows, cols);
    } else {
        int left = clamp(cols * 28 / 100, 28, 48), log = clamp(rows * 28 / 100, 6, 16);
        place(a, &a->slot[AREA_BOXES], top, 0, rows, left);
        place(a, &a->slot[AREA_TERMINAL], top, left, rows - log, cols - left);
        place(a, &a->slot[AREA_LOG], top + rows - log, left, log, cols - left);
    }
    for (unsigned i = 0; i < a->noverlays && !a->too_small; i++)
        place_overlay(a, &a->overlay[i]);
    a->bars_dirty = a->all_dirty = true;
    want_frame(a);
}

void app_redraw(struct app *a, bool clear)
{
    if (clear)
        clearok(curscr, TRUE);
    layout(a);
}

static void hot_clear(struct app *a, int y)
{
    unsigned n = 0;
    for (unsigned i = 0; i < a->nhot; i++)
        if (a->hot[i].y != y)
            a->hot[n++] = a->hot[i];
    a->nhot = n;
}

static void hot_add(struct app *a, int y, int x, int end, const char *action, uint32_t key)
{
    if (a->nhot < HOT_MAX)
        a->hot[a->nhot++] = (struct hot){.y = y, .x = x, .end = end, .action = action, .key = key};
}

static void draw_title(struct app *a)
{
    WINDOW *w = a->title;
    struct model_sums s;
    char clock_text[16], text[64];
    time_t now = time(NULL);
    model_sum(a->model, &s);
    hot_clear(a, 0);
    theme_set(w, ST_TITLE);
    werase(w);
    mvwhline(w, 0, 0, ' ', COLS);
    paint_row(w, 0, 0, COLS, ST_TITLE);
    int x = 1;
    x += paint_text(w, 0, x, 20, ST_TITLE, app_glyph("▣ sbx", "sbx")) + 2;
    unsigned n = model_count(a->model);
    x += paint_f(w, 0, x, 30, ST_TITLE, "%u sandbox%s", n, n == 1 ? "" : "es") + 2;
    if (s.running)
        x += paint_f(w, 0, x, 24, ST_TITLE, "%s %u running", app_glyph("●", "*"), s.running) + 2;
    if (s.waiting) {
        snprintf(text, sizeof text, " %s %u need%s you ", app_glyph("◆", "!"), s.waiting, s.waiting == 1 ? "s" : "");
        int from = x;
        x += paint_text(w, 0, x, 30, ST_BADGE, text) + 2;
        hot_add(a, 0, from, x - 2, "app.waiting", K_NONE);
    }
    if (s.failed)
        x += paint_f(w, 0, x, 24, ST_TITLE, "%s %u failed", app_glyph("✗", "x"), s.failed) + 2;
    if (s.blocked)
        x += paint_f(w, 0, x, 30, ST_TITLE, "%s %lld blocked", app_glyph("⊘", "#"), (long long)s.blocked) + 2;
    strftime(clock_text, sizeof clock_text, "%H:%M", localtime(&now));
    int end = paint_right(w, 0, COLS - 1, 8, ST_TITLE, clock_text) - 2;
    if (a->unread && end - x > 16) {
        snprintf(text, sizeof text, " %s %u unread ", app_glyph("▲", "!"), a->unread);
        int from = paint_right(w, 0, end, 24, ST_BADGE, text);
        hot_add(a, 0, from, end, "app.messages", K_NONE);
    }
    wnoutrefresh(w);
}

/* The hints: of the focused pane, then the global ones, as far as there is room. */
static int draw_hints(struct app *a, WINDOW *w, int x, const char *context, const char *above)
{
    const struct binding *b;
    for (unsigned i = 0; (b = keymap_at(a->keys, context, i)); i++) {
        char key[24];
        if (!b->hint || (above && keymap_action(a->keys, above, b->key, b->mods)))
            continue;
        input_key_name(b->key, b->mods, key, sizeof key);
        int need = paint_width(key) + 1 + paint_width(b->note) + 2;
        if (x + need > COLS - 1)
            break;
        hot_add(a, LINES - 1, x, x + need - 2, b->action, K_NONE);
        x += paint_text(w, 0, x, COLS - x, ST_KEY, key) + 1;
        x += paint_text(w, 0, x, COLS - x, ST_STATUS, b->note) + 2;
    }
    return x;
}

static void draw_status(struct app *a)
{
    WINDOW *w = a->status;
    hot_clear(a, LINES - 1);
    theme_set(w, ST_STATUS);
    werase(w);
    mvwhline(w, 0, 0, ' ', COLS);
    paint_row(w, 0, 0, COLS, ST_STATUS);
    if (a->line.on) {
        paint_text(w, 0, 1, 2, ST_KEY, ":");
        /* What is typed stays in sight, the end of it where both do not fit. */
        const char *from = a->line.text;
        char before[sizeof a->line.text];
        for (;; from++) {
            if (((unsigned char)*from & 0xc0) == 0x80)
                continue;
            snprintf(before, sizeof before, "%.*s", (int)(a->line.text + a->line.at - from), from);
            if (paint_width(before) < COLS - 4)
                break;
        }
        int used = paint_text(w, 0, 2, COLS - 3, ST_STATUS, from);
        if (a->line.hint[0]) {
            int n = paint_text(w, 0, 4 + used, COLS - 5 - used, ST_DIM, a->line.hint);
            paint_under(w, 0, 4 + used, n, ST_DIM, ST_STATUS);
        }
        a->line.x = 2 + paint_width(before);
        wnoutrefresh(w);
        return;
    }
    if (a->progress.text[0] && !a->unread_error) {
        int bar = COLS >= 100 && a->progress.fraction >= 0 ? 30 : 0;
        int x = 1 + paint_text(w, 0, 1, 2, ST_KEY, paint_spinner()) + 1;
        x += paint_text(w, 0, x, COLS - x - bar - 8, ST_STATUS, a->progress.text) + 2;
        if (bar) {
            paint_bar(w, 0, x, bar, a->progress.fraction);
            x += bar + 1;
        }
        if (a->progress.fraction >= 0)
            paint_f(w, 0, x, 6, ST_STATUS, "%d %%", (int)(a->progress.fraction * 100));
        wnoutrefresh(w);
        return;
    }
    bool fresh = a->said_ms && app_now_ms() - a->said_ms < SAY_MS;
    if (a->nsaid && (fresh || a->unread_error)) {
        const struct said *s = &a->said[(a->nsaid - 1) % SAID_MAX];
        static const enum style styles[] = {ST_STATUS, ST_GOOD, ST_WARN, ST_FAILED};
        static const char *const glyphs[] = {"·", "✓", "▲", "✗"}, *const plain[] = {"-", "+", "!", "x"};
        int x = 1 + paint_text(w, 0, 1, 2, styles[s->kind], app_glyph(glyphs[s->kind], plain[s->kind])) + 1;
        x += paint_text(w, 0, x, COLS - x - 2, styles[s->kind], s->text);
        if (s->kind != SAY_INFO)
            paint_under(w, 0, 1, x - 1, styles[s->kind], ST_STATUS);
        hot_add(a, LINES - 1, 0, COLS, "app.messages", K_NONE);
        wnoutrefresh(w);
        return;
    }
    struct pane *p = app_focused(a);
    int x = 1;
    if (p && p->class->grabs && p->class->grabs(p) && (a->noverlays || a->focus != AREA_TERMINAL)) {
        static const char *const typing[][2] = {{"Enter", "keeps the filter"}, {"Esc", "clears it"}};
        for (int i = 0; i < 2; i++) {
            x += paint_text(w, 0, x, COLS - x, ST_KEY, typing[i][0]) + 1;
            x += paint_text(w, 0, x, COLS - x, ST_STATUS, typing[i][1]) + 2;
        }
    } else if (p && p->class->grabs && p->class->grabs(p)) {
        if (a->prefixed) {
            draw_hints(a, w, x, "prefix", NULL);
        } else {
            char key[24];
            input_key_name(a->prefix_key, a->prefix_mods, key, sizeof key);
            x += paint_text(w, 0, x, 20, ST_KEY, key) + 1;
            x += paint_text(w, 0, x, COLS - x, ST_STATUS, "then:") + 1;
            draw_hints(a, w, x, "prefix", NULL);
        }
    } else if (p) {
        static const struct {
            const char *name;
            struct {
                const char *key, *note;
                uint32_t code;
            } hint[5];
        } own[] = {{"ask", {{"o s g", "allow", K_NONE}, {"d D", "deny", K_NONE}, {"Tab", "the next question", K_TAB}, {"Esc", "later: denied when the time is over", K_ESC}}},
                   {"confirm", {{"Tab", "the other button", K_TAB}, {"Enter", "takes it", K_ENTER}, {"y", "yes", 'y'}, {"Esc", "cancels", K_ESC}}},
                   {"welcome", {{"Enter", "starts it here", K_ENTER}, {"1-9", "choose", K_NONE}, {"c", "more choices", 'c'}, {"Esc", "later", K_ESC}}}};
        x = draw_hints(a, w, x, p->class->name, NULL);
        for (size_t i = 0; i < sizeof own / sizeof *own; i++)
            for (int k = 0; strcmp(own[i].name, p->class->name) == 0 && k < 5 && own[i].hint[k].key; k++) {
                int from = x;
                x += paint_text(w, 0, x, COLS - x, ST_KEY, own[i].hint[k].key) + 1;
                x += paint_text(w, 0, x, COLS - x, ST_STATUS, own[i].hint[k].note) + 2;
                if (own[i].hint[k].code != K_NONE)
                    hot_add(a, LINES - 1, from, x - 2, NULL, own[i].hint[k].code);
            }
        if (!a->noverlays || !p->class->modal)
            draw_hints(a, w, x, "global", p->class->name);
    }
    wnoutrefresh(w);
}

static void draw_pane(struct app *a, struct slot *s, bool focus)
{
    struct pane *p = s->pane;
    char left[200] = "", right[120] = "";
    if (p->class->title)
        p->class->title(p, left, sizeof left, right, sizeof right);
    theme_set(s->outer, ST_TEXT);
    struct look l = theme_look(ST_TEXT);
    cchar_t blank;
    int pair = l.pair;
    setcchar(&blank, L" ", l.attrs, (short)(pair > 32767 ? 0 : pair), &pair);
    wbkgrndset(s->outer, &blank);
    wbkgrndset(s->inner, &blank);
    werase(s->inner);
    paint_frame(s->outer, focus ? ST_FRAME_ON : ST_FRAME, focus ? ST_HEADING : ST_DIM, left, right);
    if (p->class->draw)
        p->class->draw(p, s->inner, focus);
    p->dirty = false;
    touchwin(s->outer);
    wnoutrefresh(s->outer);
    (void)a;
}

static void draw_too_small(void)
{
    char size[80];
    erase();
    snprintf(size, sizeof size, "This terminal has %d columns and %d rows.", COLS, LINES);
    paint_centre(stdscr, LINES / 2 - 1, COLS, ST_STRONG, "sbx needs a little more room");
    paint_centre(stdscr, LINES / 2, COLS, ST_TEXT, size);
    char need[80];
    snprintf(need, sizeof need, "It needs %d x %d; sandboxes go on meanwhile.", MIN_COLS, MIN_ROWS);
    paint_centre(stdscr, LINES / 2 + 1, COLS, ST_DIM, need);
    wnoutrefresh(stdscr);
}

static void set_cursor(struct app *a)
{
    struct pane *p = app_focused(a);
    struct slot *s = p ? slot_of(a, p) : NULL;
    int y = 0, x = 0;
    if (a->line.on) {
        wmove(a->status, 0, clamp(a->line.x, 0, COLS - 1));
        wnoutrefresh(a->status);
        curs_set(1);
    } else if (s && s->inner && p->class->cursor && p->class->cursor(p, &y, &x) && y >= 0 && x >= 0 && y < p->rows && x < p->cols) {
        wmove(s->inner, y, x);
        wcursyncup(s->inner);
        wnoutrefresh(s->inner);
        curs_set(1);
    } else {
        curs_set(0);
    }
}

static void draw(struct app *a)
{
    bool below = a->all_dirty;
    a->drawn_ms = app_now_ms();
    if (a->too_small) {
        curs_set(0);
        draw_too_small();
        doupdate();
        return;
    }
    if (a->all_dirty) {
        /* What no pane covers belongs to nobody: it is blank. */
        erase();
        wnoutrefresh(stdscr);
    }
    if (a->bars_dirty || a->all_dirty) {
        draw_title(a);
        draw_status(a);
    }
    for (int i = 0; i < AREAS; i++) {
        struct slot *s = &a->slot[i];
        if (!s->pane || !s->pane->visible || !(s->pane->dirty || a->all_dirty))
            continue;
        draw_pane(a, s, !a->noverlays && a->focus == (enum area)i);
        below = true;
    }
    for (unsigned i = 0; i < a->noverlays; i++) {
        struct slot *s = &a->overlay[i];
        if (s->pane->visible && (s->pane->dirty || below || a->all_dirty)) {
            draw_pane(a, s, i + 1 == a->noverlays);
            below = true;
        }
    }
    a->all_dirty = a->bars_dirty = false;
    struct model_sums sums;
    model_sum(a->model, &sums);
    if ((sums.busy || a->progress.text[0]) && a->spin_ev && a->slot[AREA_BOXES].pane && a->slot[AREA_BOXES].pane->visible && !evtimer_pending(a->spin_ev, NULL)) {
        static const struct timeval step = {0, 120000};
        evtimer_add(a->spin_ev, &step);
    }
    set_cursor(a);
    doupdate();
    if (a->shape != a->shape_shown) {
        char seq[16];
        int n = snprintf(seq, sizeof seq, "\033[%d q", a->shape);
        screen_write(seq, (size_t)n);
        a->shape_shown = a->shape;
    }
}

static void on_spin(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    (void)fd;
    (void)what;
    pane_dirty(a->slot[AREA_BOXES].pane);
    if (a->progress.text[0])
        bars_dirty(a);
}

static void on_frame(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    draw(arg);
}

void app_cursor_shape(struct app *a, int shape)
{
    a->shape = shape >= 0 && shape <= 6 ? shape : 0;
    want_frame(a);
}

void app_progress(struct app *a, double fraction, const char *text)
{
    a->progress.fraction = fraction;
    snprintf(a->progress.text, sizeof a->progress.text, "%.199s", text ? text : "");
    bars_dirty(a);
}

static void toggle_mouse(struct app *a)
{
    a->mouse = !a->mouse;
    screen_mouse(a->mouse);
    app_say(a, SAY_INFO, a->mouse ? "the mouse is the dashboard's" : "the mouse is your terminal's: select as you like; M takes it again");
}

/* ---- panes and focus ---- */

void app_add_pane(struct app *a, enum area area, struct pane *p)
{
    if (!p)
        return;
    p->app = a;
    a->slot[area].pane = p;
}

struct pane *app_pane(struct app *a, enum area area)
{
    return a->slot[area].pane;
}

static void tell_focus(struct app *a, struct pane *p, bool on)
{
    if (p && p->class->focus)
        p->class->focus(p, on);
    if (p)
        pane_dirty(p);
    bars_dirty(a);
}

void app_push(struct app *a, struct pane *p)
{
    if (!p)
        return;
    if (a->noverlays == OVERLAYS_MAX) {
        p->class->free(p);
        return;
    }
    tell_focus(a, app_focused(a), false);
    p->app = a;
    a->overlay[a->noverlays++] = (struct slot){.pane = p};
    tell_focus(a, p, true);
    layout(a);
}

void app_pop(struct app *a, struct pane *p)
{
    for (unsigned i = 0; i < a->noverlays; i++) {
        if (a->overlay[i].pane != p)
            continue;
        drop_windows(&a->overlay[i]);
        memmove(&a->overlay[i], &a->overlay[i + 1], (a->noverlays - i - 1) * sizeof a->overlay[0]);
        a->noverlays--;
        /* It may be running: it is freed when the loop comes round. */
        if (a->ndead < OVERLAYS_MAX * 2)
            a->dead[a->ndead++] = p;
        p->visible = false;
        tell_focus(a, app_focused(a), true);
        layout(a);
        event_active(a->bury_ev, EV_TIMEOUT, 0);
        return;
    }
}

static void on_bury(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    (void)fd;
    (void)what;
    while (a->ndead) {
        struct pane *p = a->dead[--a->ndead];
        p->class->free(p);
    }
}

bool app_has_focus(struct app *a, const struct pane *p)
{
    return app_focused(a) == p;
}

void app_focus(struct app *a, enum area area)
{
    if (a->focus == area || !a->slot[area].pane)
        return;
    tell_focus(a, a->slot[a->focus].pane, false);
    a->focus = area;
    a->prefixed = false;
    app_cursor_shape(a, 0);
    tell_focus(a, a->slot[area].pane, true);
    if (a->zoomed || a->narrow)
        layout(a);
}

void app_zoom(struct app *a, bool on)
{
    if (a->zoomed == on)
        return;
    a->zoomed = on;
    layout(a);
}

bool app_zoomed(struct app *a)
{
    return a->zoomed;
}

/* Forwards goes past the terminal, which would swallow the next Tab: from the sandboxes to the network and back.  Enter,
 * the mouse and going backwards lead into it. */
static void focus_by(struct app *a, int step)
{
    int next = (int)a->focus;
    do
        next = (next + step + AREAS) % AREAS;
    while (next != (int)a->focus && (!a->slot[next].pane || (step > 0 && next == AREA_TERMINAL)));
    app_focus(a, (enum area)next);
}

struct box *app_box(struct app *a)
{
    return model_find(a->model, a->box);
}

static void tell_box(struct app *a)
{
    struct box *b = app_box(a);
    for (int i = 0; i < AREAS; i++)
        if (a->slot[i].pane && a->slot[i].pane->class->box)
            a->slot[i].pane->class->box(a->slot[i].pane, b);
}

void app_select_box(struct app *a, const char *name)
{
    if (strcmp(a->box, name ? name : "") == 0)
        return;
    snprintf(a->box, sizeof a->box, "%s", name ? name : "");
    tell_box(a);
    bars_dirty(a);
}

void app_boxes_changed(struct app *a)
{
    if (!a->model)
        return;
    if (a->box[0] && !app_box(a))
        a->box[0] = '\0';
    /* Who comes first in its order is the sandbox pane's to say, when it is drawn next. */
    tell_box(a);
    for (unsigned i = 0; i < a->noverlays; i++)
        if (a->overlay[i].pane->class->box)
            a->overlay[i].pane->class->box(a->overlay[i].pane, app_box(a));
    bars_dirty(a);
}

void app_open_session(struct app *a, struct box *b, int session)
{
    struct pane *p = a->slot[AREA_TERMINAL].pane;
    if (!b)
        return;
    if (p && p->class->open && p->class->open(p, b, session)) {
        app_focus(a, AREA_TERMINAL);
        return;
    }
    /* In the whole terminal, then. */
    struct err e = {0};
    char number[16], *self = path_command(&e);
    snprintf(number, sizeof number, "%d", session);
    char *argv[] = {self, (char *)"attach", b->name, session ? number : NULL, NULL};
    if (!self || app_foreground(a, argv, &e) < 0)
        app_say(a, SAY_ERROR, "%s", e.text);
    free(self);
}

/* ---- messages ---- */

void app_say(struct app *a, enum say kind, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct said *s = &a->said[a->nsaid++ % SAID_MAX];
    s->kind = kind;
    s->when = time(NULL);
    sanitize_line(s->text, sizeof s->text, text, strlen(text));
    a->said_ms = app_now_ms();
    a->unread_error = kind == SAY_ERROR;
    a->unread += kind == SAY_ERROR || kind == SAY_WARN;
    bars_dirty(a);
}

void app_notify(struct app *a, const char *title, const char *text)
{
    char safe[256], out[600];
    const char *how = a->notify;
    if (strcmp(how, "off") == 0)
        return;
    if (strcmp(how, "bell") == 0) {
        screen_write("\a", 1);
        return;
    }
    sanitize_line(safe, sizeof safe, text, strlen(text));
    for (char *c = safe; *c; c++)
        if (*c == ';')
            *c = ',';
    int n = strcmp(how, "osc9") == 0 ? snprintf(out, sizeof out, "\033]9;%s\a", safe)
                                     : snprintf(out, sizeof out, "\033]777;notify;%s;%s\a\a", title, safe);
    screen_write(out, (size_t)n);
}

void app_copy(struct app *a, const char *text, size_t len)
{
    size_t need = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL);
    char *out = len <= 256u * 1024u ? malloc(need + 16) : NULL;
    if (!out) {
        app_say(a, SAY_ERROR, "that is too much for the clipboard (%zu bytes); save it to a file instead", len);
        return;
    }
    memcpy(out, "\033]52;c;", 7);
    sodium_bin2base64(out + 7, need, (const unsigned char *)text, len, sodium_base64_VARIANT_ORIGINAL);
    size_t n = strlen(out);
    out[n++] = '\a';
    screen_write(out, n);
    free(out);
    app_say(a, SAY_GOOD, "copied %zu byte%s", len, len == 1 ? "" : "s");
}

void app_copy_from(struct app *a, const char *sandbox, const char *base64, bool *said)
{
    size_t len = 0;
    char *out = clip_sequence(base64, &len);
    if (!out)
        return;
    if (clip_allowed(sandbox)) {
        screen_write(out, strlen(out));
        app_say(a, SAY_INFO, "%s copied %zu byte%s to your clipboard", sandbox, len, len == 1 ? "" : "s");
    } else if (!*said) {
        *said = true;
        app_say(a, SAY_INFO, "%s wanted to copy %zu byte%s to your clipboard (sbx config set attach.clipboard %s allows it)", sandbox, len,
                len == 1 ? "" : "s", sandbox);
    }
    free(out);
}

/* ---- actions ---- */

void app_quit(struct app *a)
{
    event_base_loopbreak(a->base);
}

static void next_theme(struct app *a)
{
    char names[300], *save = NULL, first[32] = "", next[32] = "";
    bool found = false;
    struct err e = {0};
    theme_names(names, sizeof names);
    for (char *n = strtok_r(names, " ", &save); n; n = strtok_r(NULL, " ", &save)) {
        if (!first[0])
            snprintf(first, sizeof first, "%.31s", n);
        if (found && !next[0])
            snprintf(next, sizeof next, "%.31s", n);
        found |= strcmp(n, theme_current()) == 0;
    }
    if (theme_load(next[0] ? next : first, &e) < 0)
        app_say(a, SAY_ERROR, "%s", e.text);
    else
        app_say(a, SAY_INFO, "theme: %s (kept by: sbx config set ui.theme %s)", theme_current(), theme_current());
    app_redraw(a, true);
}

static void suspend(struct app *a)
{
    screen_suspend();
    raise(SIGSTOP);
    screen_resume();
    screen_fit();
    app_redraw(a, true);
}

static void leave_terminal(struct app *a)
{
    if (a->zoomed)
        app_zoom(a, false);
    app_focus(a, AREA_BOXES);
}

/* To the next sandbox whose agent waits, round and round. */
static void next_waiting(struct app *a)
{
    unsigned n = model_count(a->model), at = 0;
    for (unsigned i = 0; i < n; i++)
        if (strcmp(model_at(a->model, i)->name, a->box) == 0)
            at = i + 1;
    for (unsigned i = 0; i < n; i++) {
        const struct box *b = model_at(a->model, (at + i) % n);
        if (b->wants == WANTS_INPUT) {
            app_select_box(a, b->name);
            pane_dirty(a->slot[AREA_BOXES].pane);
            return;
        }
    }
    app_say(a, SAY_INFO, "nobody waits for you");
}

bool app_action(struct app *a, const char *action)
{
    static const struct {
        const char *name;
        void (*fn)(struct app *a);
    } table[] = {
        {"app.quit", app_quit},         {"app.help", app_show_help},       {"app.messages", app_show_messages},
        {"app.command", app_line_open}, {"app.theme", next_theme},         {"app.suspend", suspend},         {"app.mouse", toggle_mouse},
        {"app.waiting", next_waiting},  {"app.leave", leave_terminal},  {"app.rules", app_show_rules},     {"app.secrets", app_show_secrets},
        {"app.settings", app_show_settings}, {"sandbox.create", app_show_create},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, action) == 0) {
            table[i].fn(a);
            return true;
        }
    if (strcmp(action, "app.focus-next") == 0)
        focus_by(a, 1);
    else if (strcmp(action, "app.focus-prev") == 0)
        focus_by(a, -1);
    else if (strcmp(action, "app.zoom") == 0)
        app_zoom(a, !a->zoomed);
    else if (strcmp(action, "app.redraw") == 0)
        app_redraw(a, true);
    else if (strcmp(action, "overlay.close") == 0 && a->noverlays)
        app_pop(a, a->overlay[a->noverlays - 1].pane);
    else
        return false;
    return true;
}

/* To the pane first, then to the app. */
static bool act(struct app *a, struct pane *p, const char *action)
{
    return (p && p->class->action && p->class->action(p, action)) || app_action(a, action);
}

bool app_act_anywhere(struct app *a, const char *action)
{
    if (act(a, app_focused(a), action))
        return true;
    for (int i = 0; i < AREAS; i++) {
        struct pane *p = a->slot[i].pane;
        if (p && p != app_focused(a) && p->class->action && p->class->action(p, action))
            return true;
    }
    return false;
}

static bool bound(struct app *a, struct pane *p, const char *context, const struct input *in)
{
    const char *action = keymap_action(a->keys, context, in->key, in->mods);
    return action && act(a, p, action);
}

static void key_to_pane(struct app *a, struct pane *p, const struct input *in, bool overlay)
{
    if (bound(a, p, p->class->name, in))
        return;
    if (p->class->list && bound(a, p, "list", in))
        return;
    if (p->class->modal || overlay) {
        if (p->class->key && p->class->key(p, in))
            return;
        bound(a, p, "overlay", in);
        return;
    }
    if (bound(a, p, "global", in))
        return;
    if (p->class->key)
        p->class->key(p, in);
}

static void key_to_terminal(struct app *a, struct pane *p, const struct input *in)
{
    bool prefix = in->key == a->prefix_key && in->mods == a->prefix_mods;
    if (a->prefixed) {
        a->prefixed = false;
        bars_dirty(a);
        if (!prefix) {
            const char *action = keymap_action(a->keys, "prefix", in->key, in->mods);
            if (!action || !act(a, p, action))
                app_say(a, SAY_WARN, "no command of the dashboard is on that key; the prefix and ? shows them");
            return;
        }
    } else if (prefix) {
        a->prefixed = true;
        bars_dirty(a);
        return;
    }
    if (p->class->key)
        p->class->key(p, in);
}

static void on_input(const struct input *event, void *arg);

/* A click on what the bars show does what the key would. */
static bool on_bars(struct app *a, const struct input *in)
{
    if (in->mouse != MOUSE_PRESS || a->drag || a->too_small || a->line.on || (in->y != 0 && in->y != LINES - 1))
        return false;
    for (unsigned i = 0; i < a->nhot; i++) {
        const struct hot h = a->hot[i];
        if (h.y != in->y || in->x < h.x || in->x >= h.end || (in->y == 0 && a->noverlays))
            continue;
        char byte = h.key < 128 ? (char)h.key : '\033';
        a->prefixed = false;
        if (h.action)
            act(a, app_focused(a), h.action);
        else
            on_input(&(struct input){.type = INPUT_KEY, .key = h.key, .raw = &byte, .raw_len = 1}, a);
        bars_dirty(a);
        return true;
    }
    return true;
}

static void on_mouse(struct app *a, struct input *in)
{
    struct slot *hit = NULL;
    int area = -1;
    if (on_bars(a, in))
        return;
    if (a->drag) {
        hit = slot_of(a, a->drag);
        if (in->mouse == MOUSE_RELEASE)
            a->drag = NULL;
    }
    if (!hit && a->noverlays) {
        hit = &a->overlay[a->noverlays - 1];
    } else if (!hit) {
        for (int i = 0; i < AREAS; i++) {
            struct slot *s = &a->slot[i];
            if (s->pane && s->pane->visible && in->y >= s->y && in->y < s->y + s->pane->rows + 2 && in->x >= s->x && in->x < s->x + s->pane->cols + 2) {
                hit = s;
                area = i;
            }
        }
    }
    if (!hit || !hit->pane || !hit->pane->visible)
        return;
    if (in->mouse == MOUSE_PRESS) {
        a->drag = hit->pane;
        if (area >= 0)
            app_focus(a, (enum area)area);
    }
    in->y -= hit->y + 1;
    in->x -= hit->x + 1;
    if (in->mouse == MOUSE_PRESS && in->y == -1 && hit->pane->class->edge) {
        a->drag = NULL;
        if (in->button == 1)
            hit->pane->class->edge(hit->pane, in->x - 2);
        return;
    }
    bool inside = in->y >= 0 && in->x >= 0 && in->y < hit->pane->rows && in->x < hit->pane->cols;
    if (hit->pane->class->mouse && (inside || in->mouse == MOUSE_DRAG || in->mouse == MOUSE_RELEASE))
        hit->pane->class->mouse(hit->pane, in);
}

static void on_input(const struct input *event, void *arg)
{
    struct app *a = arg;
    struct input in = *event;
    struct pane *p = app_focused(a);
    if (in.type == INPUT_REPLY)
        return;
    if (in.type == INPUT_MOUSE) {
        on_mouse(a, &in);
        return;
    }
    if (in.type == INPUT_KEY && a->unread_error) {
        a->unread_error = false;
        a->said_ms = 0;
        bars_dirty(a);
    }
    if (a->line.on && in.type != INPUT_FOCUS) {
        app_line_input(a, &in);
        return;
    }
    if (!p || a->too_small) {
        if (in.type == INPUT_KEY && (in.key == 'q' || ((in.mods & MOD_CTRL) && in.key == 'c')))
            app_quit(a);
        return;
    }
    if (in.type != INPUT_KEY) {
        if (p->class->key)
            p->class->key(p, &in);
        return;
    }
    if (p->class->grabs && p->class->grabs(p)) {
        if (!a->noverlays && a->focus == AREA_TERMINAL)
            key_to_terminal(a, p, &in);
        else if (p->class->key) /* a text that is being typed in a pane or an overlay */
            p->class->key(p, &in);
        return;
    }
    key_to_pane(a, p, &in, a->noverlays > 0);
}

/* ---- events of the process ---- */

static void on_tty(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    char buf[8192];
    (void)what;
    ssize_t n = read((int)fd, buf, sizeof buf);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        app_quit(a); /* the terminal is gone */
        return;
    }
    if (n < 0)
        return;
    a->typed_ms = app_now_ms();
    if (evtimer_pending(a->frame_ev, NULL))
        want_frame(a); /* the one that waits comes sooner */
    input_feed(a->input, buf, (size_t)n);
    if (input_pending(a->input)) {
        struct timeval tv = {0, ESC_MS * 1000};
        evtimer_add(a->esc_ev, &tv);
    }
}

static void on_esc(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    input_flush(((struct app *)arg)->input);
}

static const int signal_numbers[SIGNALS] = {SIGWINCH, SIGTSTP, SIGCONT, SIGHUP, SIGTERM, SIGINT};

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct app *a = arg;
    (void)what;
    if (sig == SIGWINCH) {
        if (screen_fit())
            app_redraw(a, true);
    } else if (sig == SIGTSTP) {
        suspend(a);
    } else if (sig == SIGCONT) {
        screen_resume();
        screen_fit();
        app_redraw(a, true);
    } else {
        a->status_code = 128 + (int)sig;
        app_quit(a);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    (void)fd;
    (void)what;
    model_tick(a->model);
    for (int i = 0; i < AREAS; i++)
        if (a->slot[i].pane && a->slot[i].pane->class->tick)
            a->slot[i].pane->class->tick(a->slot[i].pane);
    for (unsigned i = 0; i < a->noverlays; i++)
        if (a->overlay[i].pane->class->tick)
            a->overlay[i].pane->class->tick(a->overlay[i].pane);
    time_t minute = time(NULL) / 60;
    bool faded = a->said_ms && app_now_ms() - a->said_ms >= SAY_MS;
    if (faded)
        a->said_ms = 0;
    if (minute != a->minute || faded)
        bars_dirty(a);
    a->minute = minute;
}

int app_foreground(struct app *a, char *const *argv, struct err *e)
{
    screen_suspend();
    extern char **environ;
    const struct spawn_fd fds[] = {{0, 0}, {1, 1}, {2, 2}};
    const struct spawn s = {.path = argv[0], .argv = argv, .env = environ, .fds = fds, .nfds = 3};
    /* Ctrl-C there is meant for the child. */
    for (size_t i = 0; i < SIGNALS; i++)
        if (signal_numbers[i] == SIGINT || signal_numbers[i] == SIGTSTP || signal_numbers[i] == SIGCONT)
            event_del(a->signals[i]);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    pid_t pid = spawn_run(&s, e);
    int status = pid < 0 ? -1 : spawn_wait(pid);
    signal(SIGQUIT, SIG_DFL);
    for (size_t i = 0; i < SIGNALS; i++)
        if (a->signals[i])
            event_add(a->signals[i], NULL);
    screen_resume();
    screen_fit();
    app_redraw(a, true);
    return status;
}

/* ---- begin and end ---- */

static void settings(struct app *a)
{
    struct err e = {0};
    json_t *config = config_load(&e);
    const char *theme = json_string_value(config_value(config, "ui.theme")), *notify = json_string_value(config_value(config, "ui.notify")),
               *prefix = json_string_value(config_value(config, "attach.prefix"));
    json_t *mouse = config_value(config, "ui.mouse");
    snprintf(a->theme, sizeof a->theme, "%.31s", theme ? theme : "auto");
    snprintf(a->notify, sizeof a->notify, "%.15s", notify ? notify : "bell");
    if (!prefix || !input_parse_key(prefix, &a->prefix_key, &a->prefix_mods)) {
        a->prefix_key = ']';
        a->prefix_mods = MOD_CTRL;
    }
    a->mouse = !json_is_false(mouse);
    json_decref(config);
    if (e.text[0])
        app_say(a, SAY_ERROR, "%s", e.text);
}

struct app *app_new(struct err *e)
{
    struct app *a = calloc(1, sizeof *a);
    if (!a) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    a->base = event_base_new();
    if (!a->base)
        goto fail;
    a->frame_ev = evtimer_new(a->base, on_frame, a);
    a->spin_ev = evtimer_new(a->base, on_spin, a);
    a->esc_ev = evtimer_new(a->base, on_esc, a);
    a->bury_ev = evtimer_new(a->base, on_bury, a);
    a->tick_ev = event_new(a->base, -1, EV_PERSIST, on_tick, a);
    a->tty_ev = event_new(a->base, STDIN_FILENO, EV_READ | EV_PERSIST, on_tty, a);
    a->input = input_new(on_input, a);
    a->model = model_new(a, e);
    struct err bad = {0};
    a->keys = keymap_load(&bad);
    if (!a->frame_ev || !a->esc_ev || !a->bury_ev || !a->tick_ev || !a->tty_ev || !a->input || !a->model || !a->keys)
        goto fail;
    settings(a);
    if (bad.text[0])
        app_say(a, SAY_ERROR, "%s", bad.text);
    return a;
fail:
    if (e && !e->text[0])
        err_set(e, STATUS_FAILED, "out of memory");
    app_free(a);
    return NULL;
}

void app_free(struct app *a)
{
    if (!a)
        return;
    while (a->noverlays) {
        struct pane *p = a->overlay[--a->noverlays].pane;
        p->class->free(p);
    }
    on_bury(-1, 0, a);
    for (int i = 0; i < AREAS; i++)
        if (a->slot[i].pane)
            a->slot[i].pane->class->free(a->slot[i].pane);
    model_free(a->model);
    keymap_free(a->keys);
    input_free(a->input);
    struct event *events[] = {a->frame_ev, a->spin_ev, a->esc_ev, a->bury_ev, a->tick_ev, a->tty_ev};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    for (size_t i = 0; i < SIGNALS; i++)
        if (a->signals[i])
            event_free(a->signals[i]);
    if (a->base)
        event_base_free(a->base);
    free(a);
}

int app_run(struct app *a)
{
    struct err e = {0};
    if (screen_enter(a->mouse, &e) < 0) {
        fprintf(stderr, "sbx: %s\n", e.text);
        return STATUS_FAILED;
    }
    if (theme_load(a->theme, &e) < 0)
        app_say(a, SAY_ERROR, "%s", e.text);
    for (size_t i = 0; i < SIGNALS; i++) {
        a->signals[i] = evsignal_new(a->base, signal_numbers[i], on_signal, a);
        event_add(a->signals[i], NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    model_refresh(a->model);
    if (a->slot[AREA_BOXES].pane)
        tell_focus(a, a->slot[AREA_BOXES].pane, true);
    layout(a);
    if (model_count(a->model) == 0)
        app_show_welcome(a);
    draw(a);
    event_add(a->tty_ev, NULL);
    struct timeval second = {1, 0};
    event_add(a->tick_ev, &second);
    event_base_dispatch(a->base);
    screen_leave();
    return a->status_code;
}
