#include "ui/dash/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ui/dash/paint.h"

struct text {
    struct pane pane;
    char title[100];
    char **lines;
    unsigned n, first;
    int widest, key_width;
};

static void text_free(struct pane *p)
{
    struct text *t = (struct text *)p;
    for (unsigned i = 0; i < t->n; i++)
        free(t->lines[i]);
    free(t->lines);
    free(t);
}

/* Keys stand in columns where there is room for several. */
static int columns_of(const struct text *t, int rows, int cols)
{
    int columns = 1;
    if (t->key_width)
        while (columns < 4 && columns * rows < (int)t->n && (columns + 1) * (t->widest + 3) <= cols)
            columns++;
    return columns;
}

static void scroll_to(struct text *t, long first)
{
    long last = (long)t->n - (long)t->pane.rows * columns_of(t, t->pane.rows, t->pane.cols);
    if (first > last)
        first = last;
    first = first < 0 ? 0 : first;
    if ((unsigned)first != t->first)
        pane_dirty(&t->pane);
    t->first = (unsigned)first;
}

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct text *t = (struct text *)p;
    (void)focus;
    scroll_to(t, t->first);
    int columns = columns_of(t, p->rows, p->cols), each = columns > 1 ? p->cols / columns : p->cols;
    for (int i = 0; i < p->rows * columns && t->first + (unsigned)i < t->n; i++) {
        const char *line = t->lines[t->first + (unsigned)i];
        int y = i % p->rows, x = 1 + i / p->rows * each, room = each - 2;
        if (line[0] == 1)
            paint_text(w, y, x, room, ST_ACCENT, line + 1);
        else if (line[0] == 2) {
            const char *tab = strchr(line, '\t');
            paint_f(w, y, x, t->key_width + 1, ST_STRONG, "%*.*s", 0, (int)(tab - line - 1), line + 1);
            paint_text(w, y, x + 2 + t->key_width, room - 2 - t->key_width, ST_TEXT, tab + 1);
        } else if (line[0] == 3 || line[0] == 4)
            paint_text(w, y, x, room, line[0] == 3 ? ST_WARN : ST_FAILED, line + 1);
        else
            paint_text(w, y, x, room, ST_TEXT, line);
    }
    paint_scroll(w, 0, p->rows, (long)t->first, (long)p->rows * columns, (long)t->n, ST_FRAME_ON);
}

static bool action(struct pane *p, const char *what)
{
    struct text *t = (struct text *)p;
    if (strcmp(what, "list.up") == 0)
        scroll_to(t, (long)t->first - 1);
    else if (strcmp(what, "list.down") == 0)
        scroll_to(t, (long)t->first + 1);
    else if (strcmp(what, "list.pgup") == 0)
        scroll_to(t, (long)t->first - p->rows + 1);
    else if (strcmp(what, "list.pgdn") == 0)
        scroll_to(t, (long)t->first + p->rows - 1);
    else if (strcmp(what, "list.top") == 0)
        scroll_to(t, 0);
    else if (strcmp(what, "list.bottom") == 0)
        scroll_to(t, (long)t->n);
    else
        return false;
    return true;
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct text *t = (struct text *)p;
    if (in->mouse == MOUSE_WHEEL)
        scroll_to(t, (long)t->first + 3 * in->button);
    return true;
}

static void title(struct pane *p, char *left, size_t lc, char *right, size_t rc)
{
    struct text *t = (struct text *)p;
    snprintf(left, lc, "%s", t->title);
    unsigned seen = (unsigned)(p->rows * columns_of(t, p->rows, p->cols));
    if (t->n > seen)
        snprintf(right, rc, "%u/%u", t->first + seen, t->n);
}

static void want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    struct text *t = (struct text *)p;
    int columns = columns_of(t, max_rows, max_cols);
    *rows = (int)t->n < 3 ? 3 : columns > 1 ? ((int)t->n + columns - 1) / columns : (int)t->n;
    *cols = columns > 1 ? columns * (t->widest + 3) : t->widest + 4;
    *cols = *cols < 40 ? 40 : *cols > max_cols ? max_cols : *cols;
}

static const struct pane_class text_class = {.name = "overlay", .list = true, .modal = true, .draw = draw, .action = action, .mouse = mouse,
                                             .title = title, .want = want, .free = text_free};

struct pane *text_new(const char *heading, const char *text, bool at_end)
{
    struct text *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->pane.class = &text_class;
    snprintf(t->title, sizeof t->title, "%s", heading);
    unsigned count = 1;
    for (const char *p = text; *p; p++)
        count += *p == '\n';
    t->lines = calloc(count, sizeof *t->lines);
    for (const char *p = text; t->lines && *p;) {
        size_t n = strcspn(p, "\n");
        char *line = strndup(p, n);
        if (line) {
            const char *tab = line[0] == 2 ? strchr(line, '\t') : NULL;
            char key[64];
            if (tab) {
                snprintf(key, sizeof key, "%.*s", (int)(tab - line - 1), line + 1);
                int k = paint_width(key);
                t->key_width = k > t->key_width ? k : t->key_width;
            }
            int width = tab ? 13 + paint_width(tab + 1) : paint_width(line);
            t->widest = width > t->widest ? width : t->widest;
            t->lines[t->n++] = line;
        }
        p += n + (p[n] == '\n');
    }
    t->first = at_end ? t->n : 0;
    return &t->pane;
}

/* ---- questions ---- */

#define QUIET_MS 400

struct confirm {
    struct pane pane;
    char title[100], text[900], button[40];
    bool on_yes, done;
    int64_t ready_ms; /* before, no key says yes: it was typed for something else */
    void (*yes)(struct app *a, void *arg);
    void *arg;
    void (*drop)(void *arg);
};

static void confirm_free(struct pane *p)
{
    struct confirm *c = (struct confirm *)p;
    if (c->drop)
        c->drop(c->arg);
    free(c);
}

static int button_x(const struct confirm *c, bool yes)
{
    int all = 12 + 2 + paint_width(c->button) + 4;
    int x = (c->pane.cols - all) / 2;
    return yes ? x + 14 : x;
}

static void confirm_draw(struct pane *p, WINDOW *w, bool focus)
{
    struct confirm *c = (struct confirm *)p;
    (void)focus;
    paint_wrap(w, 1, 2, p->cols - 4, p->rows - 3, ST_TEXT, c->text);
    int y = p->rows - 2;
    paint_text(w, y, button_x(c, false), 12, c->on_yes ? ST_BUTTON : ST_BUTTON_ON, "   Cancel   ");
    paint_f(w, y, button_x(c, true), 40, c->on_yes ? ST_BUTTON_ON : ST_BUTTON, "  %s  ", c->button);
}

static void finish(struct confirm *c, bool yes)
{
    struct app *a = c->pane.app;
    if (c->done)
        return;
    c->done = true;
    app_pop(a, &c->pane);
    if (yes)
        c->yes(a, c->arg);
}

static bool confirm_key(struct pane *p, const struct input *in)
{
    struct confirm *c = (struct confirm *)p;
    if (in->type != INPUT_KEY)
        return true;
    bool ready = app_now_ms() >= c->ready_ms;
    if (in->key == K_TAB || in->key == K_LEFT || in->key == K_RIGHT || in->key == 'h' || in->key == 'l') {
        c->on_yes = !c->on_yes;
        pane_dirty(p);
    } else if (in->key == K_ENTER && (ready || !c->on_yes)) {
        finish(c, c->on_yes);
    } else if ((in->key == 'y' || in->key == 'Y') && ready) {
        finish(c, true);
    } else if (in->key == K_ESC || in->key == 'n' || in->key == 'N' || in->key == 'q') {
        finish(c, false);
    } else if (!ready) {
        c->ready_ms = app_now_ms() + QUIET_MS;
    }
    return true;
}

static bool confirm_mouse(struct pane *p, const struct input *in)
{
    struct confirm *c = (struct confirm *)p;
    if (in->mouse != MOUSE_PRESS || in->y != p->rows - 2)
        return true;
    int no = button_x(c, false), yes = button_x(c, true);
    if (in->x >= no && in->x < no + 12)
        finish(c, false);
    else if (in->x >= yes && in->x < yes + paint_width(c->button) + 4)
        finish(c, true);
    return true;
}

static void confirm_title(struct pane *p, char *left, size_t lc, char *right, size_t rc)
{
    (void)right;
    (void)rc;
    snprintf(left, lc, "%s", ((struct confirm *)p)->title);
}

static void confirm_want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    struct confirm *c = (struct confirm *)p;
    *cols = max_cols < 64 ? max_cols : 64;
    *rows = paint_wrap(NULL, 0, 0, *cols - 4, max_rows, ST_TEXT, c->text) + 4;
}

static const struct pane_class confirm_class = {.name = "confirm", .modal = true, .draw = confirm_draw, .key = confirm_key,
                                                .mouse = confirm_mouse, .title = confirm_title, .want = confirm_want, .free = confirm_free};

struct pane *confirm_new(const char *heading, const char *text, const char *button, void (*yes)(struct app *a, void *arg), void *arg,
                         void (*drop)(void *arg))
{
    struct confirm *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->pane.class = &confirm_class;
    c->ready_ms = app_now_ms() + QUIET_MS;
    snprintf(c->title, sizeof c->title, "%s", heading);
    snprintf(c->text, sizeof c->text, "%s", text);
    snprintf(c->button, sizeof c->button, "%s", button);
    c->yes = yes;
    c->arg = arg;
    c->drop = drop;
    return &c->pane;
}
