#include "ui/dash/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ui/dash/edit.h"
#include "ui/dash/paint.h"

struct text {
    struct pane pane;
    char title[100];
    char **lines;
    unsigned nlines;
    struct row { /* of the screen: a line, or a part of one that is too wide */
        const char *line, *from;
        size_t len;
    } *rows;
    unsigned n, first;
    int widest, notes, key_width, laid, laid_rows; /* laid: for this width, in columns of so many rows (0: there is one) */
    bool at_end, typing, on_bar;
    char filter[64];
};

/* Behind the mark that says how it looks. */
static const char *words_of(const char *line)
{
    return line[0] > 0 && line[0] <= 5 ? line + 1 : line;
}

/* What a field says stands behind its label, on all of its lines. */
#define LABEL 12
static const char *value_of(const char *line)
{
    const char *tab = line[0] == 5 ? strchr(line, '\t') : NULL;
    return tab ? tab + 1 : NULL;
}

/* The continuation of a message stands behind its time, that of other lines a little in. */
static int indent(const struct row *r)
{
    const char *p = words_of(r->line);
    if (value_of(r->line))
        return LABEL;
    if (r->from == p)
        return 0;
    return strspn(p, "0123456789:") == 8 && p[8] == ' ' ? 10 : 2;
}

static void add_row(struct text *t, unsigned *room, struct row r)
{
    if (t->n == *room) {
        void *grown = realloc(t->rows, (*room * 2 + 64) * sizeof *t->rows);
        if (!grown)
            return;
        *room = *room * 2 + 64;
        t->rows = grown;
    }
    t->rows[t->n++] = r;
}

/* rows: of a column, where there are several; no heading ends one, and none begins with a blank line. */
static void lay(struct text *t, int cols, int rows)
{
    unsigned room = 0;
    if ((cols == t->laid && rows == t->laid_rows) || cols < 4)
        return;
    t->laid = cols;
    t->laid_rows = rows;
    t->n = 0;
    free(t->rows);
    t->rows = NULL;
    for (unsigned i = 0; i < t->nlines; i++) {
        const char *line = t->lines[i], *p = words_of(line);
        if (t->filter[0] && (line[0] == 1 || !*p || !strcasestr(p, t->filter)))
            continue;
        if (rows && !*p && t->n % (unsigned)rows == 0)
            continue;
        while (rows > 4 && line[0] == 1 && t->n % (unsigned)rows > (unsigned)rows - 3)
            add_row(t, &room, (struct row){"", "", 0});
        if (value_of(line))
            p = value_of(line);
        do {
            struct row r = {line, p, strlen(p)};
            int left = cols - indent(&r);
            if (line[0] != 2 && left >= 4)
                r.len = paint_line(p, left);
            if (!r.len) /* not even one character fits */
                r.len = strlen(p);
            p += r.len;
            p += *p == ' ';
            add_row(t, &room, r);
        } while (*p);
    }
}

static void text_free(struct pane *p)
{
    struct text *t = (struct text *)p;
    for (unsigned i = 0; i < t->nlines; i++)
        free(t->lines[i]);
    free(t->lines);
    free(t->rows);
    free(t);
}

/* Keys stand in columns where there is room for several. */
static int columns_of(const struct text *t, int rows, int cols)
{
    int columns = 1;
    if (t->key_width)
        while (columns < 4 && columns * rows < (int)t->nlines && (columns + 1) * (t->widest + 3) <= cols)
            columns++;
    return columns;
}

static int body_rows(const struct text *t)
{
    return t->pane.rows - (t->typing || t->filter[0]);
}

static void scroll_to(struct text *t, long first)
{
    int rows = body_rows(t), columns = columns_of(t, rows, t->pane.cols);
    long last = (long)t->n - (long)rows * columns;
    if (columns > 1 && rows > 0) { /* a column at a time */
        last = (last + rows - 1) / rows * rows;
        first = first <= (long)t->first ? first / rows * rows : (first + rows - 1) / rows * rows;
    }
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
    int rows = body_rows(t);
    (void)focus;
    int columns = columns_of(t, rows, p->cols), each = columns > 1 ? p->cols / columns : p->cols;
    lay(t, p->cols - 2, columns > 1 ? rows : 0);
    scroll_to(t, t->at_end ? t->n : t->first);
    t->at_end = false;
    if (t->typing || t->filter[0]) {
        int x = paint_text(w, p->rows - 1, 1, 2, ST_ACCENT, "/") + 1;
        paint_text(w, p->rows - 1, x, p->cols - x - 1, ST_FIELD_ON, t->filter[0] ? t->filter : " ");
    }
    if (!t->n)
        paint_text(w, 0, 1, p->cols - 2, ST_DIM, "nothing matches");
    for (int i = 0; i < rows * columns && t->first + (unsigned)i < t->n; i++) {
        const struct row *r = &t->rows[t->first + (unsigned)i];
        const char *line = r->line;
        int y = i % rows, x = 1 + i / rows * each, room = each - 2;
        static const enum style styles[] = {ST_TEXT, ST_ACCENT, ST_TEXT, ST_WARN, ST_FAILED, ST_TEXT};
        const char *tab = line[0] == 2 ? strchr(line, '\t') : NULL;
        if (tab) {
            paint_f(w, y, x, t->key_width + 1, ST_STRONG, "%*.*s", 0, (int)(tab - line - 1), line + 1);
            paint_text(w, y, x + 2 + t->key_width, room - 2 - t->key_width, ST_TEXT, tab + 1);
        } else {
            char part[1024];
            int in = indent(r);
            if (r->from == value_of(line))
                paint_f(w, y, x, LABEL - 1, ST_DIM, "%.*s", (int)(r->from - line - 2), line + 1);
            snprintf(part, sizeof part, "%.*s", (int)(r->len < sizeof part ? r->len : sizeof part - 1), r->from);
            paint_text(w, y, x + in, room - in + 1, styles[line[0] > 0 && line[0] <= 5 ? line[0] : 0], part);
        }
    }
    paint_scroll(w, 0, rows, (long)t->first, (long)rows * columns, (long)t->n, ST_FRAME_ON);
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
    else if (strcmp(what, "list.filter") == 0)
        t->typing = true;
    else if (strcmp(what, "overlay.close") == 0 && t->filter[0]) { /* the filter goes first */
        t->filter[0] = '\0';
        t->laid = 0;
    } else
        return false;
    pane_dirty(p);
    return true;
}

static bool key(struct pane *p, const struct input *in)
{
    struct text *t = (struct text *)p;
    if (!t->typing)
        return false;
    if (input_leaves(in))
        t->filter[0] = '\0';
    if (input_leaves(in) || (in->type == INPUT_KEY && (in->key == K_ENTER || in->key == K_TAB)))
        t->typing = false;
    else if (in->type == INPUT_KEY && (in->key == K_UP || in->key == K_DOWN))
        scroll_to(t, (long)t->first + (in->key == K_UP ? -1 : 1));
    else
        edit_tail(t->filter, sizeof t->filter, in);
    t->laid = 0;
    pane_dirty(p);
    return true;
}

static bool grabs(struct pane *p)
{
    return ((struct text *)p)->typing;
}

static bool cursor(struct pane *p, int *y, int *x)
{
    struct text *t = (struct text *)p;
    *y = p->rows - 1;
    *x = 2 + paint_width(t->filter);
    return t->typing;
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct text *t = (struct text *)p;
    int rows = body_rows(t);
    if (in->mouse == MOUSE_WHEEL)
        scroll_to(t, (long)t->first + 3 * in->button);
    else if (in->mouse == MOUSE_PRESS && in->button == 1)
        t->on_bar = in->x >= p->cols - 1;
    if (t->on_bar && (in->mouse == MOUSE_PRESS || in->mouse == MOUSE_DRAG))
        scroll_to(t, paint_scroll_to(in->y, rows, (long)rows * columns_of(t, rows, p->cols), (long)t->n));
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
    *cols = columns > 1 ? columns * (t->widest + 3) : t->widest + 4;
    *cols = *cols < 40 ? 40 : *cols > max_cols ? max_cols : *cols;
    if (columns > 1) { /* as few rows as hold it */
        *rows = ((int)t->nlines + columns - 1) / columns;
        for (lay(t, *cols - 2, *rows); *rows < max_rows && (int)t->n > *rows * columns; lay(t, *cols - 2, *rows))
            ++*rows;
        return;
    }
    lay(t, *cols - 2, 0);
    *rows = (int)t->n < 3 ? 3 : (int)t->n;
}

static const struct pane_class text_class = {.name = "overlay", .list = true, .modal = true, .draw = draw, .action = action, .mouse = mouse,
                                             .key = key, .grabs = grabs, .cursor = cursor, .title = title, .want = want, .free = text_free};

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
            int width = tab ? paint_width(tab + 1) : value_of(line) ? LABEL + paint_width(value_of(line)) : paint_width(line);
            t->widest = width > t->widest && !tab ? width : t->widest;
            t->notes = width > t->notes && tab ? width : t->notes;
            t->lines[t->nlines++] = line;
        }
        p += n + (p[n] == '\n');
    }
    if (t->key_width && t->key_width + 2 + t->notes > t->widest)
        t->widest = t->key_width + 2 + t->notes;
    t->at_end = at_end;
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
    int all = 10 + 2 + paint_width(c->button) + 4;
    int x = (c->pane.cols - all) / 2;
    return yes ? x + 12 : x;
}

static void confirm_draw(struct pane *p, WINDOW *w, bool focus)
{
    struct confirm *c = (struct confirm *)p;
    (void)focus;
    paint_wrap(w, 1, 2, p->cols - 4, p->rows - 3, ST_TEXT, c->text);
    int y = p->rows - 2;
    paint_text(w, y, button_x(c, false), 10, c->on_yes ? ST_BUTTON : ST_BUTTON_ON, "  Cancel  ");
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

/* No key of it: somebody types something else, and what comes right after is no answer. */
static bool confirm_key(struct pane *p, const struct input *in)
{
    struct confirm *c = (struct confirm *)p;
    if (in->type == INPUT_KEY && app_now_ms() < c->ready_ms)
        c->ready_ms = app_now_ms() + QUIET_MS;
    return true;
}

static bool confirm_action(struct pane *p, const char *what)
{
    struct confirm *c = (struct confirm *)p;
    bool ready = app_now_ms() >= c->ready_ms;
    if (strcmp(what, "confirm.other") == 0) {
        c->on_yes = !c->on_yes;
        pane_dirty(p);
    } else if (strcmp(what, "confirm.take") == 0) {
        if (ready || !c->on_yes)
            finish(c, c->on_yes);
    } else if (strcmp(what, "confirm.yes") == 0) {
        if (ready)
            finish(c, true);
    } else if (strcmp(what, "confirm.no") == 0 || strcmp(what, "overlay.close") == 0) {
        finish(c, false);
    } else {
        return false;
    }
    return true;
}

static bool confirm_mouse(struct pane *p, const struct input *in)
{
    struct confirm *c = (struct confirm *)p;
    if (in->mouse != MOUSE_PRESS || in->button != 1 || in->y != p->rows - 2)
        return true;
    int no = button_x(c, false), yes = button_x(c, true);
    if (in->x >= no && in->x < no + 10)
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
    *cols = max_cols < 68 ? max_cols : 68;
    int lines = paint_wrap(NULL, 0, 0, *cols - 4, max_rows, ST_TEXT, c->text);
    while (*cols > 48 && paint_wrap(NULL, 0, 0, *cols - 5, max_rows, ST_TEXT, c->text) == lines)
        (*cols)--; /* lines of about the same length, and no word alone in the last one */
    *rows = lines + 4;
}

static const struct pane_class confirm_class = {.name = "confirm", .modal = true, .draw = confirm_draw, .key = confirm_key, .action = confirm_action,
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
