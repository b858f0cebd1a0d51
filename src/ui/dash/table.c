#include "ui/dash/theme.h"
#include "ui/dash/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ui/dash/app_int.h"
#include "ui/dash/edit.h"
#include "ui/dash/keymap.h"
#include "ui/dash/paint.h"
#include "ui/dash/task.h"

#define WHOLE_ROWS 2 /* below the list, if there is room: what does not fit into its columns */

struct table_pane {
    struct pane pane;
    const struct table_class *class;
    json_t *printed;
    struct table_row *rows;
    unsigned n, at, first, most;
    char head[300], filter[64], error[300], good[200]; /* good: what is said once the list shows it */
    bool typing, flag, loading, on_bar;
    struct task *task;
    int64_t clicked_ms;
};

/* Tables that are open: what a command says later is for them only if they still are. */
static struct table_pane *open_tables[OVERLAYS_MAX];

static bool is_open(const struct table_pane *t)
{
    for (size_t i = 0; i < OVERLAYS_MAX; i++)
        if (open_tables[i] == t)
            return true;
    return false;
}

static void table_free(struct pane *p)
{
    struct table_pane *t = (struct table_pane *)p;
    for (size_t i = 0; i < OVERLAYS_MAX; i++)
        if (open_tables[i] == t)
            open_tables[i] = NULL;
    task_forget(t->task);
    if (t->good[0]) /* nobody waits for the list to show it */
        app_say(t->pane.app, SAY_GOOD, "%s", t->good);
    json_decref(t->printed);
    free(t->rows);
    free(t);
}

struct app *table_app(struct table_pane *t)
{
    return t->pane.app;
}

const struct table_row *table_current(struct table_pane *t)
{
    return t->at < t->n ? &t->rows[t->at] : NULL;
}

const json_t *table_printed(const struct table_pane *t)
{
    return t->printed;
}

bool table_flag(const struct table_pane *t)
{
    return t->flag;
}

static void build(struct table_pane *t)
{
    json_t *list = t->class->list ? t->class->list(t->printed) : t->printed, *v;
    const char *key;
    size_t i, all = json_is_array(list) ? json_array_size(list) : json_object_size(list);
    struct table_row *rows = calloc(all + 1, sizeof *rows);
    t->n = 0;
    if (!rows)
        return;
    free(t->rows);
    t->rows = rows;
    struct table_row one;
#define TAKE(k) \
    memset(&one, 0, sizeof one); \
    one.data = v; \
    if (t->class->row(t, k, v, &one)) { \
        bool fits = !t->filter[0]; \
        for (int c = 0; c < TABLE_COLUMNS; c++) \
            fits |= strcasestr(one.cell[c], t->filter) != NULL; \
        if (fits) \
            t->rows[t->n++] = one; \
    }
    if (json_is_array(list)) {
        json_array_foreach(list, i, v) { TAKE(NULL) }
    } else {
        json_object_foreach(list, key, v) { TAKE(key) }
    }
    t->head[0] = '\0';
    if (t->class->head)
        t->class->head(t, t->printed, t->head, sizeof t->head);
    if (t->at >= t->n)
        t->at = t->n ? t->n - 1 : 0;
    if (t->n > t->most) { /* it grows with its list, and does not shrink under a filter */
        t->most = t->n;
        app_redraw(t->pane.app, false);
    }
    pane_dirty(&t->pane);
}

void table_toggle(struct table_pane *t)
{
    t->flag = !t->flag;
    build(t);
}

static void listed(const struct task_end *end, void *arg)
{
    struct table_pane *t = arg;
    json_error_t je;
    t->task = NULL;
    t->loading = false;
    if (t->good[0])
        app_say(t->pane.app, SAY_GOOD, "%s", t->good);
    t->good[0] = '\0';
    json_t *o = end->status == 0 && end->out ? json_loads(end->out, 0, &je) : NULL;
    if (!o) {
        snprintf(t->error, sizeof t->error, "%s", end->error[0] ? end->error : "it cannot be read");
        pane_dirty(&t->pane);
        return;
    }
    t->error[0] = '\0';
    json_decref(t->printed);
    t->printed = o;
    build(t);
}

static const struct task_ops list_ops = {.done = listed};

void table_reload(struct table_pane *t)
{
    struct err e = {0};
    task_forget(t->task);
    t->loading = true;
    t->task = task_run(t->pane.app, t->class->argv, NULL, 0, &list_ops, t, &e);
    if (!t->task)
        snprintf(t->error, sizeof t->error, "%.290s", e.text);
}

void table_ran(struct table_pane *t, struct app *a, const struct task_end *end, bool worked, const char *good)
{
    if (!worked)
        ;
    else if (is_open(t) && good && good[0])
        snprintf(t->good, sizeof t->good, "%s", good);
    else if (end->out && end->out[0] && !(good && good[0]))
        app_say(a, SAY_GOOD, "%s", end->out);
    else
        app_say(a, SAY_GOOD, "%s", good && good[0] ? good : "done");
    if (is_open(t))
        table_reload(t);
}

struct doing {
    struct table_pane *t; /* it may be closed meanwhile */
    struct app *app;
    char good[200];
};

static void did(const struct task_end *end, void *arg)
{
    struct doing *d = arg;
    if (end->status != 0)
        app_say(d->app, SAY_ERROR, "%s", end->error[0] ? end->error : "it failed");
    table_ran(d->t, d->app, end, end->status == 0, d->good);
    free(d);
}

void table_run(struct table_pane *t, const char *const *argv, const char *good)
{
    static const struct task_ops do_ops = {.done = did};
    struct doing *d = calloc(1, sizeof *d);
    struct err e = {0};
    if (!d)
        return;
    d->t = t;
    d->app = t->pane.app;
    snprintf(d->good, sizeof d->good, "%s", good ? good : "");
    if (!task_run(d->app, argv, NULL, 0, &do_ops, d, &e)) {
        app_say(d->app, SAY_ERROR, "%s", e.text);
        free(d);
    }
}

static void widths(const struct table_pane *t, int out[TABLE_COLUMNS])
{
    int left = t->pane.cols - 3, grow = -1, n = 0; /* the last column is the scroll bar's */
    for (; n < TABLE_COLUMNS && t->class->widths[n]; n++) {
        int w = t->class->widths[n];
        if (w < 0) {
            grow = n;
            w = -w;
        }
        out[n] = w;
        left -= w + 1;
    }
    if (grow >= 0 && left > 0)
        out[grow] += left;
    for (; n < TABLE_COLUMNS; n++)
        out[n] = 0;
}

/* Of the row under the cursor, what its columns had to cut. */
static void draw_whole(const struct table_pane *t, WINDOW *w, int y, const int col[TABLE_COLUMNS])
{
    const struct table_row *r = t->at < t->n ? &t->rows[t->at] : NULL;
    char text[TABLE_CELL * 2 + 80] = "";
    size_t used = 0;
    for (int c = 0; r && c < TABLE_COLUMNS && col[c]; c++)
        if (paint_width(r->cell[c]) > col[c] && used < sizeof text)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", used ? "\n" : "", r->cell[c]);
    paint_wrap(w, y, 1, t->pane.cols - 2, WHOLE_ROWS, ST_ACCENT, text);
}

static int list_top(const struct table_pane *t)
{
    return (t->head[0] ? 2 : 0) + (t->typing || t->filter[0] ? 1 : 0) + 1;
}

static int list_rows(const struct table_pane *t)
{
    int rows = t->pane.rows - list_top(t);
    return rows > 6 ? rows - WHOLE_ROWS : rows;
}

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct table_pane *t = (struct table_pane *)p;
    int y = 0, col[TABLE_COLUMNS], rows;
    widths(t, col);
    if (t->head[0]) {
        paint_text(w, y, 1, p->cols - 2, ST_TEXT, t->head);
        y += 2;
    }
    if (t->typing || t->filter[0]) {
        int x = paint_text(w, y, 1, 2, ST_ACCENT, "/") + 1;
        paint_text(w, y++, x, p->cols - x - 1, ST_FIELD_ON, t->filter[0] ? t->filter : " ");
    }
    for (int c = 0, x = 1; c < TABLE_COLUMNS && col[c] && t->class->heads[c]; x += col[c++] + 1)
        paint_text(w, y, x, col[c], ST_DIM, t->class->heads[c]);
    y++;
    rows = list_rows(t);
    if (t->error[0]) {
        paint_wrap(w, y + 1, 2, p->cols - 4, rows - 1, ST_FAILED, t->error);
        return;
    }
    if (t->n == 0) {
        paint_text(w, y + 1, 2, p->cols - 4, ST_DIM, t->loading && !t->printed ? app_glyph("…", "...") : t->filter[0] ? "nothing matches" : t->class->empty);
        return;
    }
    if (t->at < t->first)
        t->first = t->at;
    if (t->at >= t->first + (unsigned)rows)
        t->first = t->at - (unsigned)rows + 1;
    for (int i = 0; i < rows && t->first + (unsigned)i < t->n; i++) {
        const struct table_row *r = &t->rows[t->first + (unsigned)i];
        for (int c = 0, x = 1; c < TABLE_COLUMNS && col[c]; x += col[c++] + 1)
            paint_text(w, y + i, x, col[c], c == 0 ? r->style : c == 1 ? ST_STRONG : ST_TEXT, r->cell[c]);
        if (t->first + (unsigned)i == t->at)
            paint_row(w, y + i, 0, p->cols, focus ? ST_SELECTED : ST_SELECTED_OFF);
    }
    paint_scroll(w, y, rows, (long)t->first, rows, (long)t->n, ST_FRAME_ON);
    if (rows < p->rows - y)
        draw_whole(t, w, y + rows, col);
}

static void shift_to(struct table_pane *t, long to)
{
    to = to >= (long)t->n ? (long)t->n - 1 : to;
    t->at = to < 0 ? 0 : (unsigned)to;
    pane_dirty(&t->pane);
}

static bool action(struct pane *p, const char *what)
{
    struct table_pane *t = (struct table_pane *)p;
    int page = list_rows(t) - 1;
    if (strcmp(what, "list.up") == 0)
        shift_to(t, (long)t->at - 1);
    else if (strcmp(what, "list.down") == 0)
        shift_to(t, (long)t->at + 1);
    else if (strcmp(what, "list.pgup") == 0)
        shift_to(t, (long)t->at - page);
    else if (strcmp(what, "list.pgdn") == 0)
        shift_to(t, (long)t->at + page);
    else if (strcmp(what, "list.top") == 0)
        shift_to(t, 0);
    else if (strcmp(what, "list.bottom") == 0)
        shift_to(t, (long)t->n);
    else if (strcmp(what, "list.filter") == 0) {
        t->typing = true;
        pane_dirty(p);
    } else if (strcmp(what, "overlay.close") == 0 && t->filter[0]) { /* the filter goes first */
        t->filter[0] = '\0';
        build(t);
    } else
        return t->class->action(t, what);
    return true;
}

static bool key(struct pane *p, const struct input *in)
{
    struct table_pane *t = (struct table_pane *)p;
    if (!t->typing || (in->type != INPUT_KEY && in->type != INPUT_PASTE))
        return in->type != INPUT_KEY;
    if (in->type == INPUT_KEY && (in->key == K_ENTER || in->key == K_TAB))
        t->typing = false;
    else if (input_leaves(in)) {
        t->typing = false;
        t->filter[0] = '\0';
    } else if (in->type == INPUT_KEY && (in->key == K_UP || in->key == K_DOWN))
        shift_to(t, (long)t->at + (in->key == K_UP ? -1 : 1));
    else
        edit_tail(t->filter, sizeof t->filter, in);
    build(t);
    pane_dirty(p);
    return true;
}

/* While one types into the filter, the keys of the list are letters. */
static bool grabs(struct pane *p)
{
    return ((struct table_pane *)p)->typing;
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct table_pane *t = (struct table_pane *)p;
    if (in->mouse == MOUSE_PRESS)
        t->on_bar = in->button == 1 && in->x >= p->cols - 1 && in->y >= list_top(t) && t->n > (unsigned)list_rows(t);
    if (in->mouse == MOUSE_WHEEL)
        shift_to(t, (long)t->at + in->button);
    else if (t->on_bar && (in->mouse == MOUSE_PRESS || in->mouse == MOUSE_DRAG))
        shift_to(t, paint_scroll_to(in->y - list_top(t), list_rows(t), 1, (long)t->n));
    else if (in->mouse == MOUSE_PRESS && in->y >= list_top(t)) {
        unsigned to = t->first + (unsigned)(in->y - list_top(t));
        bool twice = to < t->n && to == t->at && app_now_ms() - t->clicked_ms < 400;
        t->clicked_ms = app_now_ms();
        const char *enter = twice ? keymap_action(app_keys(p->app), t->class->context, K_ENTER, 0) : NULL;
        if (enter)
            t->class->action(t, enter);
        else if (to < t->n)
            shift_to(t, (long)to);
    }
    return true;
}

static void title(struct pane *p, char *left, size_t lc, char *right, size_t rc)
{
    struct table_pane *t = (struct table_pane *)p;
    snprintf(left, lc, "%s", t->class->title);
    if (t->n)
        snprintf(right, rc, "%u/%u", t->at + 1, t->n);
}

static void want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    const struct table_pane *t = (struct table_pane *)p;
    int need = (int)t->most + 5 + WHOLE_ROWS;
    *rows = need < 12 ? 12 : need;
    *rows = *rows > max_rows ? max_rows : *rows;
    *cols = max_cols < 132 ? max_cols : 132;
}

struct pane *table_pane_new(struct app *a, const struct table_class *class)
{
    /* One pane_class for each context, since the keymap goes by its name. */
    static struct pane_class classes[4];
    struct pane_class *c = classes;
    while (c < classes + 3 && c->name && strcmp(c->name, class->context) != 0)
        c++;
    *c = (struct pane_class){.name = class->context, .list = true, .modal = true, .draw = draw, .key = key, .action = action,
                             .mouse = mouse, .title = title, .grabs = grabs, .want = want, .free = table_free};
    struct table_pane *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->pane.class = c;
    t->pane.app = a;
    t->class = class;
    for (size_t i = 0; i < OVERLAYS_MAX; i++)
        if (!open_tables[i]) {
            open_tables[i] = t;
            break;
        }
    table_reload(t);
    return &t->pane;
}
