/* What the app shows around its panes, where they lie, and when all of it is drawn. */
#include "ui/dash/app_int.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ui/dash/form.h"
#include "ui/dash/model.h"
#include "ui/dash/paint.h"
#include "ui/dash/screen.h"
#include "ui/dash/theme.h"

#define FRAME_MS 16
#define TYPED_FRAME_MS 4
#define TYPED_MS 150
#define MIN_ROWS 16
#define MIN_COLS 60
#define NARROW_COLS 80 /* below, one pane at a time */

/* The first change after a quiet time is shown at once; a stream of them 60 times a second, but while the user types as
 * often as a key's echo can come. */
void app_want_frame(struct app *a)
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
        app_want_frame(p->app);
}

void app_bars_dirty(struct app *a)
{
    a->bars_dirty = true;
    app_want_frame(a);
}

void app_drop_windows(struct slot *s)
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
    app_drop_windows(s);
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
    app_drop_windows(s);
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

void app_layout(struct app *a)
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
        int left = clamp(a->left ? a->left : clamp(cols * 30 / 100, 28, 48), 24, cols - 40);
        int log = clamp(a->log_rows ? a->log_rows : clamp(rows * 28 / 100, 6, 16), 4, rows - 6);
        place(a, &a->slot[AREA_BOXES], top, 0, rows, left);
        place(a, &a->slot[AREA_TERMINAL], top, left, rows - log, cols - left);
        place(a, &a->slot[AREA_LOG], top + rows - log, left, log, cols - left);
    }
    for (unsigned i = 0; i < a->noverlays && !a->too_small; i++)
        place_overlay(a, &a->overlay[i]);
    a->bars_dirty = a->all_dirty = true;
    app_want_frame(a);
}

void app_resize_panes(struct app *a, int columns, int rows)
{
    const struct slot *boxes = &a->slot[AREA_BOXES], *log = &a->slot[AREA_LOG];
    if (a->zoomed || a->narrow || a->too_small || !boxes->pane || !log->pane)
        return;
    int left = clamp(boxes->pane->cols + 2 + columns, 24, COLS - 40), high = clamp(log->pane->rows + 2 + rows, 4, LINES - 8);
    if (left == boxes->pane->cols + 2 && high == log->pane->rows + 2)
        return;
    if (columns)
        a->left = left;
    if (rows)
        a->log_rows = high;
    app_layout(a);
}

void app_redraw(struct app *a, bool clear)
{
    if (clear)
        clearok(curscr, TRUE);
    app_layout(a);
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

/* A figure of the title with its glyph, without its word where there is little room; returns where the next one begins. */
static int draw_sum(WINDOW *w, int x, int end, enum style s, const char *glyph, long long n, const char *word)
{
    char text[64];
    snprintf(text, sizeof text, "%s %lld %s", glyph, n, word);
    if (x + paint_width(text) > end)
        snprintf(text, sizeof text, "%s %lld", glyph, n);
    return x + paint_width(text) > end ? x : x + paint_text(w, 0, x, end - x, s, text) + 2;
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
    strftime(clock_text, sizeof clock_text, "%H:%M", localtime(&now));
    int end = paint_right(w, 0, COLS - 1, 8, ST_TITLE, clock_text) - 2, last = a->unread ? end - 7 : end;
    if (s.running)
        x = draw_sum(w, x, last, ST_TITLE, app_glyph("●", "*"), s.running, "running");
    if (s.waiting) {
        snprintf(text, sizeof text, " %s %u need%s you ", app_glyph("◆", "!"), s.waiting, s.waiting == 1 ? "s" : "");
        int from = x;
        x += paint_text(w, 0, x, 30, ST_BADGE, text) + 2;
        hot_add(a, 0, from, x - 2, "app.waiting", K_NONE);
    }
    if (s.failed)
        x = draw_sum(w, x, last, ST_TITLE, app_glyph("✗", "x"), s.failed, "failed");
    if (s.blocked)
        x = draw_sum(w, x, last, ST_TITLE, app_glyph("⊘", "#"), s.blocked, "blocked");
    if (a->unread && end - x > 4) {
        snprintf(text, sizeof text, end - x > 13 ? " %s %u unread " : " %s %u ", app_glyph("▲", "!"), a->unread);
        int from = paint_right(w, 0, end, 24, ST_BADGE, text);
        hot_add(a, 0, from, end, "app.messages", K_NONE);
    }
    wnoutrefresh(w);
}

/* The hints: of the focused pane, then the global ones, as far as there is room. */
static int draw_hints(struct app *a, WINDOW *w, int x, const char *context, const char *above)
{
    const struct binding *b;
    struct pane *p = app_focused(a);
    for (unsigned i = 0; (b = keymap_at(a->keys, context, i)); i++) {
        char key[24], note[60];
        if (!b->hint || (p && p->class->idle && p->class->idle(p, b->action)) || (above && keymap_action(a->keys, above, b->key, b->mods)))
            continue;
        input_key_name(b->key, b->mods, key, sizeof key);
        snprintf(note, sizeof note, "%.59s", b->note);
        if (strcmp(b->action, "form.submit") == 0 && p)
            form_verb(p, note, sizeof note);
        else if (strcmp(b->action, "form.cancel") == 0 && p && p->class->idle && p->class->idle(p, "")) /* what was sent goes on */
            snprintf(note, sizeof note, "leave");
        int need = paint_width(key) + 1 + paint_width(note) + 2;
        if (x + need > a->hints_end)
            break;
        hot_add(a, LINES - 1, x, x + need - 2, b->action, K_NONE);
        x += paint_text(w, 0, x, COLS - x, ST_KEY, key) + 1;
        x += paint_text(w, 0, x, COLS - x, ST_STATUS, note) + 2;
    }
    return x;
}

/* Keys that are no binding, since they are what is typed; and lists that are too short to be filtered: those are whole. */
static int draw_typed_hint(struct app *a, WINDOW *w, int x, const char *class, bool first, bool *whole)
{
    static const struct {
        const char *name, *key, *note;
        uint32_t code;
        bool first; /* before those of the keymap */
    } own[] = {{"form", "Tab", "next field", K_TAB, true}, {"welcome", "1-9", "choose", K_NONE, false}, {"details", NULL, NULL, K_NONE, false},
               {"ask", NULL, NULL, K_NONE, false}};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (strcmp(own[i].name, class) != 0)
            continue;
        *whole = true;
        int from = x;
        const struct pane *p = app_focused(a);
        if (p && p->class->idle && p->class->idle(app_focused(a), "")) /* what is typed goes nowhere now */
            continue;
        if (own[i].first != first || !own[i].key || x + paint_width(own[i].key) + paint_width(own[i].note) + 2 > a->hints_end)
            continue;
        x += paint_text(w, 0, x, COLS - x, ST_KEY, own[i].key) + 1;
        x += paint_text(w, 0, x, COLS - x, ST_STATUS, own[i].note) + 2;
        if (own[i].code != K_NONE)
            hot_add(a, LINES - 1, from, x - 2, NULL, own[i].code);
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
        a->line.hint_x = 4 + used;
        wnoutrefresh(w);
        return;
    }
    bool fresh = a->said_ms && app_now_ms() - a->said_ms < SAY_MS, work = a->progress.text[0] != '\0';
    a->hints_end = COLS - 1;
    if (work && !fresh && !a->unread_error && !a->noverlays) { /* one goes on meanwhile, and sees the keys where there is room */
        int bar = a->progress.fraction < 0 ? 0 : COLS >= 100 ? 20 : 15, room = paint_width(a->progress.text) + (bar ? bar + 9 : 0) + 3;
        int x = COLS >= 100 ? COLS - (room > COLS * 3 / 5 ? COLS * 3 / 5 : room) : 1;
        a->hints_end = x;
        x += paint_text(w, 0, x, 2, ST_KEY, paint_spinner()) + 1;
        if (bar) { /* before the text, whose length changes */
            paint_bar(w, 0, x, bar, a->progress.fraction);
            x += bar + 1;
            x += paint_f(w, 0, x, 6, ST_STATUS, "%3d %%", (int)(a->progress.fraction * 100)) + 2;
        }
        paint_text(w, 0, x, COLS - x - 1, ST_STATUS, a->progress.text);
        if (a->hints_end <= 1) {
            wnoutrefresh(w);
            return;
        }
    }
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
    const char *context = !p ? "" : p->class->context ? p->class->context(p) : p->class->name;
    bool grabs = p && p->class->grabs && p->class->grabs(p);
    int x = 1;
    const char *words[2] = {"keeps the filter", "clears it"};
    bool typed = grabs && !a->prefixed && p->class->typed && p->class->typed(p, words);
    if (typed || (grabs && (a->noverlays || a->focus != AREA_TERMINAL))) {
        for (int i = 0; i < 2; i++) {
            int from = x;
            x += paint_text(w, 0, x, COLS - x, ST_KEY, i ? "Esc" : "Enter") + 1;
            x += paint_text(w, 0, x, COLS - x, ST_STATUS, words[i]) + 2;
            hot_add(a, LINES - 1, from, x - 2, NULL, i ? K_ESC : K_ENTER);
        }
    } else if (grabs) {
        if (!a->prefixed && strcmp(context, "prefix") == 0) {
            char key[24];
            input_key_name(a->prefix_key, a->prefix_mods, key, sizeof key);
            x += paint_text(w, 0, x, 20, ST_KEY, key) + 1;
            x += paint_text(w, 0, x, COLS - x, ST_STATUS, "then:") + 1;
        }
        draw_hints(a, w, x, a->prefixed ? "prefix" : context, NULL);
    } else if (p) {
        bool whole = !p->class->list;
        const char *own_keys = p == a->slot[AREA_TERMINAL].pane ? "sandboxes" : p->class->name;
        x = draw_typed_hint(a, w, x, p->class->name, true, &whole);
        x = draw_hints(a, w, x, own_keys, NULL);
        x = draw_typed_hint(a, w, x, p->class->name, false, &whole);
        if (!whole)
            x = draw_hints(a, w, x, "list", p->class->name);
        if (!a->noverlays || !p->class->modal)
            draw_hints(a, w, x, "global", own_keys);
    }
    wnoutrefresh(w);
}

/* What is erased is as the theme's ground. */
static void ground(WINDOW *w)
{
    struct look l = theme_look(ST_TEXT);
    cchar_t blank;
    int pair = l.pair;
    setcchar(&blank, L" ", l.attrs, (short)(pair > 32767 ? 0 : pair), &pair);
    wbkgrndset(w, &blank);
}

static void draw_pane(struct app *a, struct slot *s, bool focus)
{
    struct pane *p = s->pane;
    char left[200] = "", right[120] = "";
    if (p->class->title)
        p->class->title(p, left, sizeof left, right, sizeof right);
    theme_set(s->outer, ST_TEXT);
    ground(s->outer);
    ground(s->inner);
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
    ground(stdscr);
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
    struct slot *s = p ? app_slot(a, p) : NULL;
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

/* The program with the keys has its cursor, its keypad and its mouse; nobody else is left with them. */
static void set_outer(struct app *a)
{
    struct pane *p = app_focused(a);
    struct outer want = {0}, *now = &a->outer;
    if (p && p->class->outer && p->visible && !a->line.on && !a->too_small)
        p->class->outer(p, &want);
    want.motion = want.motion && a->mouse;
    if (want.shape != now->shape) {
        char seq[16];
        int n = snprintf(seq, sizeof seq, "\033[%d q", want.shape >= 0 && want.shape <= 6 ? want.shape : 0);
        screen_write(seq, (size_t)n);
    }
    if (want.keypad != now->keypad)
        screen_write(want.keypad ? "\033=" : "\033>", 2);
    if (want.motion != now->motion)
        screen_motion(want.motion);
    *now = want;
}

void app_draw(struct app *a)
{
    bool below = a->all_dirty;
    a->drawn_ms = app_now_ms();
    if (a->too_small) {
        if (COLS < 4 || LINES < 2) { /* nothing could be read, and ncurses reads beyond a line of one column */
            set_outer(a);
            return;
        }
        curs_set(0);
        draw_too_small();
        doupdate();
        set_outer(a);
        return;
    }
    if (a->all_dirty) {
        /* What no pane covers belongs to nobody: it is blank. */
        ground(stdscr);
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
    set_outer(a);
}

void app_on_spin(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    (void)fd;
    (void)what;
    pane_dirty(a->slot[AREA_BOXES].pane);
    if (a->progress.text[0])
        app_bars_dirty(a);
}

void app_on_frame(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    app_draw(arg);
}

void app_progress(struct app *a, double fraction, const char *text)
{
    a->progress.fraction = fraction;
    snprintf(a->progress.text, sizeof a->progress.text, "%.199s", text ? text : "");
    app_bars_dirty(a);
}
