#include "ui/dash/form_int.h"

#include <dirent.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ui/dash/edit.h"
#include "ui/dash/keymap.h"
#include "ui/dash/paint.h"

#define LABEL_MAX 18
#define OFFERS_MAX 1000u
#define OFFER_GAP 2
#define WHY_ROWS 6

static void form_free(struct pane *p)
{
    struct form *f = (struct form *)p;
    if (f->work) /* whose command goes on */
        form_work_left(f->work);
    else if (f->drop)
        f->drop(f->arg);
    free(f->offers);
    sodium_memzero(f, sizeof *f);
    free(f);
}

static void values(const struct form *f, const char *out[FORM_FIELDS_MAX])
{
    for (unsigned i = 0; i < f->n; i++)
        out[i] = f->f[i].value;
}

static void revise(struct form *f)
{
    const char *v[FORM_FIELDS_MAX];
    for (unsigned i = 0; i < f->n; i++) {
        struct field *x = &f->f[i];
        x->why[0] = '\0';
        if (x->spec.check && x->value[0])
            x->spec.check(x->value, x->why, sizeof x->why);
    }
    f->says[0] = '\0';
    if (f->preview) {
        values(f, v);
        f->preview(v, f->says, sizeof f->says, f->arg);
    }
    pane_dirty(&f->pane);
}

static bool focusable(const struct form *f, unsigned i)
{
    return i >= f->n || f->f[i].spec.kind != FORM_NOTE;
}

static void look_at(struct form *f, unsigned at)
{
    if (at != f->at)
        f->typed = false;
    f->at = at;
    f->noffers = 0;
    f->why[0] = '\0';
    pane_dirty(&f->pane);
}

/* Of the fields; a text behind it is none. */
static bool is_last(const struct form *f, unsigned at)
{
    while (++at < f->n && !focusable(f, at))
        ;
    return at >= f->n;
}

static void go(struct form *f, int step)
{
    unsigned all = f->n + 2, at = f->at;
    do
        at = (at + all + (unsigned)step) % all;
    while (!focusable(f, at));
    look_at(f, at);
}

void form_close(struct form *f)
{
    if (f->closed)
        return;
    f->closed = true;
    app_pop(f->pane.app, &f->pane);
}

static void set_why(struct form *f, const char *why)
{
    snprintf(f->why, sizeof f->why, "%s", why);
    int rows = paint_wrap(NULL, 0, 0, f->pane.cols - 4, WHY_ROWS, ST_FAILED, f->why);
    if (rows > f->why_rows) {
        f->why_rows = rows;
        app_redraw(f->pane.app, false);
    }
    pane_dirty(&f->pane);
}

void form_fails(struct form *f, const char *why)
{
    int at = form_fault(f, why);
    if (at >= 0) {
        look_at(f, (unsigned)at);
        f->f[at].at = strlen(f->f[at].value);
    }
    set_why(f, why);
}

static void submit(struct form *f)
{
    const char *v[FORM_FIELDS_MAX];
    char why[sizeof f->why] = "";
    if (f->closed || f->work)
        return;
    revise(f);
    for (unsigned i = 0; i < f->n; i++)
        if (f->f[i].why[0]) {
            look_at(f, i);
            set_why(f, f->f[i].why);
            return;
        }
    values(f, v);
    f->why[0] = '\0';
    enum form_next next = f->submit(&f->pane, v, why, sizeof why, f->arg);
    if (next == FORM_CLOSES)
        form_close(f);
    else if (next == FORM_STAYS)
        form_fails(f, why);
    else
        app_bars_dirty(f->pane.app); /* its keys are others now */
    pane_dirty(&f->pane);
}

/* ---- choices ---- */

static int choice_count(const char *choices)
{
    int n = 1;
    for (const char *p = choices; *p; p++)
        n += *p == '|';
    return n;
}

static void choice(const char *choices, int i, char *out, size_t cap)
{
    while (i-- > 0 && strchr(choices, '|'))
        choices = strchr(choices, '|') + 1;
    snprintf(out, cap, "%.*s", (int)strcspn(choices, "|"), choices);
}

static int choice_of(const struct field *x)
{
    char one[256];
    int n = choice_count(x->spec.choices);
    for (int i = 0; i < n; i++) {
        choice(x->spec.choices, i, one, sizeof one);
        if (strcmp(one, x->value) == 0)
            return i;
    }
    return 0;
}

static void turn(struct field *x, int step)
{
    int n = choice_count(x->spec.choices);
    choice(x->spec.choices, (choice_of(x) + n + step) % n, x->value, sizeof x->value);
}

/* ---- drawing ---- */

/* Columns of a part of the value, as it is shown. */
static int columns(const struct field *x, size_t from, size_t to)
{
    char part[FORM_VALUE_MAX];
    if (x->spec.kind == FORM_SECRET)
        return (int)(to - from);
    snprintf(part, sizeof part, "%.*s", (int)(to - from), x->value + from);
    return paint_width(part);
}

static size_t before(const struct field *x, size_t at)
{
    return edit_before(x->value, at);
}

static size_t after(const struct field *x, size_t at)
{
    return edit_after(x->value, at);
}

/* The cursor stays in sight, with something of what is around it. */
static void keep_in_sight(struct field *x, int room)
{
    size_t end = strlen(x->value);
    int here = columns(x, x->at, after(x, x->at));
    if (x->from >= x->at)
        for (x->from = x->at; x->from && columns(x, x->from, x->at) < room / 3;)
            x->from = before(x, x->from);
    while ((x->from > 0) + columns(x, x->from, x->at) + (here > 1 ? here : 1) > room - 1)
        x->from = after(x, x->from);
    /* No room is left empty while something is hidden. */
    while (x->from && (before(x, x->from) > 0) + columns(x, before(x, x->from), end) < room)
        x->from = before(x, x->from);
}

static void draw_text(WINDOW *w, struct field *x, int y, int left, int room, bool on)
{
    char stars[FORM_VALUE_MAX];
    enum style s = on ? ST_FIELD_ON : ST_FIELD;
    keep_in_sight(x, room);
    const char *shown = x->value + x->from;
    if (x->spec.kind == FORM_SECRET) {
        size_t n = strlen(shown);
        memset(stars, '*', n);
        stars[n] = '\0';
        shown = stars;
    }
    for (int i = 0; i < room; i++)
        paint_text(w, y, left + i, 1, s, " ");
    int lead = x->from ? paint_text(w, y, left, 1, s, app_glyph("\xe2\x80\xa6", "~")) : 0;
    paint_text(w, y, left + lead, room - lead, s, shown);
}

static void draw_buttons(struct form *f, WINDOW *w, int y)
{
    int all = 10 + 2 + paint_width(f->button) + 4, x = (f->pane.cols - all) / 2;
    paint_text(w, y, x, 10, f->at == f->n && !f->work ? ST_BUTTON_ON : ST_BUTTON, "  Cancel  ");
    paint_f(w, y, x + 12, 44, f->work ? ST_DIM : f->at == f->n + 1 ? ST_BUTTON_ON : ST_BUTTON, "  %s  ", f->button);
}

static int label_width(const struct form *f)
{
    int n = 6;
    for (unsigned i = 0; i < f->n; i++)
        if (f->f[i].spec.kind != FORM_NOTE) {
            int k = paint_width(f->f[i].spec.label);
            n = k > n ? k : n;
        }
    return n > LABEL_MAX ? LABEL_MAX : n;
}

/* Rows of all fields, with what stands below each. */
static int fields_rows(const struct form *f, int cols)
{
    int rows = 0;
    for (unsigned i = 0; i < f->n; i++)
        rows += f->f[i].spec.kind == FORM_NOTE ? paint_wrap(NULL, 0, 0, cols - 4, 4, ST_DIM, f->f[i].spec.label) + 1 : 2;
    return rows;
}

/* ---- what continues a path, in one line ---- */

static void offer_text(const struct offer *o, char *out, size_t cap)
{
    snprintf(out, cap, "%s%s", o->name, o->folder ? "/" : "");
}

/* What says that there are more, and how to see them. */
static void offers_more(const struct form *f, unsigned until, char *out, size_t cap)
{
    out[0] = '\0';
    if (until < f->noffers)
        snprintf(out, cap, "Tab: %u more", f->noffers - until);
    else if (f->offered)
        snprintf(out, cap, "Tab: the first");
}

/* Those from `offered` on for which there is room.  Returns the first that is not shown; *hit: which one is at that column
 * of the line, or noffers where there is none.  w and hit may be NULL. */
static unsigned offers_line(const struct form *f, WINDOW *w, int column, unsigned *hit)
{
    int y = f->offers_y, left = f->offers_x, room = f->offers_room;
    char text[300], more[40];
    unsigned i = f->offered;
    int x = 0;
    offers_more(f, f->offered, more, sizeof more);
    int end = room - paint_width(more) - OFFER_GAP;
    bool all = f->offered == 0;
    for (unsigned k = 0, sum = 0; k < f->noffers && all; k++) { /* those of one line need no more room */
        offer_text(&f->offers[k], text, sizeof text);
        sum += (unsigned)paint_width(text) + (k ? OFFER_GAP : 0);
        all = sum <= (unsigned)room;
    }
    end = all ? room : end;
    if (hit)
        *hit = f->noffers;
    for (; i < f->noffers; i++) {
        offer_text(&f->offers[i], text, sizeof text);
        int n = paint_width(text);
        if (x + n > end && i > f->offered)
            break;
        if (w)
            paint_text(w, y, left + x, end - x, ST_DIM, text);
        if (hit && column >= x && column < x + n)
            *hit = i;
        x += n + OFFER_GAP;
    }
    if (w && !all) {
        offers_more(f, i, more, sizeof more);
        paint_right(w, y, left + room, room, ST_KEY, more);
    }
    return i;
}

static void draw_offers(struct form *f, WINDOW *w, int y, int left, int room)
{
    f->offers_y = y;
    f->offers_x = left;
    f->offers_room = room;
    offers_line(f, w, 0, NULL);
}

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct form *f = (struct form *)p;
    int y = 1, left = label_width(f) + 4, room = p->cols - left - 2, tight = p->rows < fields_rows(f, p->cols) + (f->preview ? 7 : 5);
    char work[300];
    int foot = tight && f->why[0] ? paint_wrap(NULL, 0, 0, p->cols - 4, WHY_ROWS, ST_FAILED, f->why) : 1, high = p->rows - 4 - foot;
    bool works = form_work_says(f, work, sizeof work);
    (void)focus;
    f->offers_y = -1;
    unsigned first = 0;
    if (tight && (int)f->n > high) { /* no room for all: those about the one with the focus */
        unsigned fit = high > 1 ? (unsigned)high : 1, at = f->at < f->n ? f->at : f->n - 1;
        first = at >= fit ? at - fit + 1 : 0;
        paint_scroll(w, 1, (int)fit, (long)first, (long)fit, (long)f->n, ST_FRAME_ON);
    }
    for (unsigned i = 0; i < f->n; i++) {
        struct field *x = &f->f[i];
        bool on = f->at == i && !f->work;
        x->y = -1;
        if (i < first || (tight && y > high))
            continue;
        x->y = y;
        if (x->spec.kind == FORM_NOTE) {
            y += paint_wrap(w, y, 2, p->cols - 4, 4, ST_DIM, x->spec.label) + !tight;
            continue;
        }
        paint_text(w, y, 2, left - 3, on ? ST_STRONG : ST_TEXT, x->spec.label);
        if (x->spec.kind == FORM_CHOICE) {
            char text[300];
            snprintf(text, sizeof text, "%s %s %s", app_glyph("‹", "<"), x->value, app_glyph("›", ">"));
            paint_text(w, y, left, room, on ? ST_FIELD_ON : ST_FIELD, text);
        } else if (x->spec.kind == FORM_CHECK) {
            paint_f(w, y, left, room, on ? ST_FIELD_ON : ST_FIELD, "[%s]", x->value[0] ? "x" : " ");
        } else {
            draw_text(w, x, y, left, room, on);
        }
        if (on && f->noffers && !tight)
            draw_offers(f, w, y + 1, left, room);
        else if (x->why[0] && !tight)
            paint_text(w, y + 1, left, room, ST_FAILED, x->why);
        else if (x->spec.hint && !tight)
            paint_text(w, y + 1, left, room, ST_DIM, x->spec.hint);
        y += tight ? 1 : 2;
    }
    const struct field *here = f->at < f->n ? &f->f[f->at] : NULL;
    if (works) {
        paint_text(w, p->rows - (tight ? 3 : 4), 2, p->cols - 4, ST_BUSY, work);
    } else if (tight && foot > 1) {
        paint_wrap(w, p->rows - 2 - foot - (p->rows - 2 - foot > y), 2, p->cols - 4, foot, ST_FAILED, f->why);
    } else if (tight && f->noffers) { /* one line for all: what may follow, what is wrong, what would happen, or what the field is for */
        draw_offers(f, w, p->rows - 3, 2, p->cols - 4);
    } else if (tight) {
        const char *bad = f->why[0] ? f->why : here ? here->why : "", *hint = here && here->spec.hint ? here->spec.hint : "";
        enum style s = bad[0] ? ST_FAILED : f->says[0] ? ST_GOOD : ST_DIM;
        const char *say = bad[0] ? bad : f->says[0] ? f->says : hint;
        int need = paint_wrap(NULL, 0, 0, p->cols - 4, 3, s, say), free_rows = p->rows - 2 - y;
        if (need > 1 && free_rows >= need && s != ST_DIM)
            paint_wrap(w, p->rows - 2 - need, 2, p->cols - 4, need, s, say);
        else
            paint_text(w, p->rows - 3, 2, p->cols - 4, s, say);
    } else if (f->why[0])
        paint_wrap(w, p->rows - 3 - paint_wrap(NULL, 0, 0, p->cols - 4, WHY_ROWS, ST_FAILED, f->why), 2, p->cols - 4, WHY_ROWS, ST_FAILED, f->why);
    else if (f->says[0])
        paint_wrap(w, p->rows - 6, 2, p->cols - 4, 3, ST_GOOD, f->says);
    draw_buttons(f, w, p->rows - 2);
}

static bool cursor(struct pane *p, int *y, int *x)
{
    struct form *f = (struct form *)p;
    if (f->at >= f->n || f->f[f->at].spec.kind > FORM_PATHS || f->work)
        return false;
    int left = label_width(f) + 4;
    *y = f->f[f->at].y;
    const struct field *here = &f->f[f->at];
    *x = left + (here->from > 0) + columns(here, here->from, here->at);
    return true;
}

/* ---- typing ---- */

bool form_next_path(const char **rest, char *out, size_t cap)
{
    const char *p = *rest + strspn(*rest, " ");
    size_t n = 0;
    bool any = *p != '\0';
    for (; *p && *p != ' '; p++) {
        p += *p == '\\' && p[1];
        if (n + 1 < cap)
            out[n++] = *p;
    }
    if (cap)
        out[n] = '\0';
    *rest = p;
    return any;
}

void form_expand(const char *path, char *out, size_t cap)
{
    const char *home = getenv("HOME");
    bool tilde = path[0] == '~' && (path[1] == '/' || !path[1]) && home;
    snprintf(out, cap, "%s%s", tilde ? home : "", path + (tilde ? 1 : 0));
}

/* The path that the cursor stands behind. */
static void last_path(const struct field *x, char *out, size_t cap)
{
    const char *rest = x->value;
    if (x->spec.kind != FORM_PATHS) {
        snprintf(out, cap, "%s", x->value);
        return;
    }
    char one[FORM_VALUE_MAX];
    out[0] = '\0';
    while (form_next_path(&rest, one, sizeof one)) /* behind a blank the next one begins */
        snprintf(out, cap, "%s", *rest && !rest[strspn(rest, " ")] ? "" : one);
}

/* Names of files stay as they are, whatever is in them. */
static void append(struct field *x, const char *text)
{
    size_t n = strlen(x->value);
    for (; *text; text++) {
        bool mark = x->spec.kind == FORM_PATHS && (*text == ' ' || *text == '\\');
        if (n + 2 + mark > sizeof x->value)
            break;
        if (mark)
            x->value[n++] = '\\';
        x->value[n++] = *text;
    }
    x->value[n] = '\0';
    x->at = n;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct offer *)a)->name, ((const struct offer *)b)->name);
}

static void begin_in_common(char *common, const char *name)
{
    size_t i = 0;
    while (common[i] && common[i] == name[i])
        i++;
    while (i && ((unsigned char)common[i] & 0xc0) == 0x80)
        i--; /* no part of a character */
    common[i] = '\0';
}

/* Folders and files that continue what stands there; several are listed. */
static void complete_path(struct form *f, struct field *x)
{
    char typed[FORM_VALUE_MAX], full[FORM_VALUE_MAX + 256], dir[FORM_VALUE_MAX + 256], common[256] = "";
    last_path(x, typed, sizeof typed);
    form_expand(typed, full, sizeof full);
    char *slash = strrchr(full, '/');
    const char *part = slash ? slash + 1 : full;
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - full) + 1 : 1, slash ? full : ".");
    DIR *d = opendir(dir);
    size_t n = strlen(part), count = 0;
    struct dirent *ent;
    struct stat st;
    f->noffers = f->offered = 0;
    if (!f->offers)
        f->offers = calloc(OFFERS_MAX, sizeof *f->offers);
    while (d && f->offers && (ent = readdir(d))) {
        if (strncmp(ent->d_name, part, n) != 0 || (ent->d_name[0] == '.' && part[0] != '.') || !strcmp(ent->d_name, ".") ||
            !strcmp(ent->d_name, ".."))
            continue;
        bool folder = fstatat(dirfd(d), ent->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
        if (x->spec.folders && !folder)
            continue;
        if (count++ == 0)
            snprintf(common, sizeof common, "%s", ent->d_name);
        else
            begin_in_common(common, ent->d_name);
        if (f->noffers == OFFERS_MAX)
            continue;
        struct offer *o = &f->offers[f->noffers++];
        snprintf(o->name, sizeof o->name, "%s", ent->d_name);
        o->folder = folder;
    }
    if (d)
        closedir(d);
    f->common = strlen(common);
    if (f->noffers && f->common > n)
        append(x, common + n);
    if (f->noffers == 1) {
        if (f->offers[0].folder)
            append(x, "/");
        f->noffers = 0;
    } else if (f->noffers) {
        qsort(f->offers, f->noffers, sizeof *f->offers, by_name);
    }
}

static void take_offer(struct form *f, unsigned i)
{
    struct field *x = &f->f[f->at];
    append(x, f->offers[i].name + f->common);
    if (f->offers[i].folder)
        append(x, "/");
    f->noffers = 0;
}

/* Tab: what stands there is completed; then what may follow is leafed through; where that is at its end it is for the next
 * field, if what stands there is whole.  A field into which nothing was typed is passed. */
static bool complete(struct form *f, struct field *x)
{
    char was[FORM_VALUE_MAX];
    if (!f->typed || !x->value[0] || x->at != strlen(x->value))
        return false;
    if (f->noffers) {
        unsigned next = offers_line(f, NULL, 0, NULL);
        bool last = next >= f->noffers, whole = f->common == 0;
        f->offered = last ? 0 : next;
        return !last || !whole;
    }
    memcpy(was, x->value, sizeof was);
    complete_path(f, x);
    return f->noffers || strcmp(was, x->value) != 0;
}

static bool type(struct form *f, struct field *x, const struct input *in)
{
    bool secret = x->spec.kind == FORM_SECRET;
    struct edit e = {.text = x->value, .cap = sizeof x->value, .at = x->at, .cut = secret ? NULL : &f->cut, .parts = " /"};
    if (in->type == INPUT_PASTE)
        edit_paste(&e, in, !secret);
    else if (!edit_key(&e, in))
        return false;
    x->at = e.at;
    f->typed = true;
    f->noffers = 0;
    return true;
}

static bool key(struct pane *p, const struct input *in)
{
    struct form *f = (struct form *)p;
    struct field *x = f->at < f->n ? &f->f[f->at] : NULL;
    bool text = x && x->spec.kind <= FORM_PATHS, path = x && (x->spec.kind == FORM_PATH || x->spec.kind == FORM_PATHS);
    if (f->work) /* what was sent is what stands there */
        return true;
    if (in->type == INPUT_PASTE && text) {
        type(f, x, in);
        f->why[0] = '\0';
        revise(f);
        return true;
    }
    if (in->type != INPUT_KEY)
        return true;
    if (in->key == K_TAB && !(in->mods & MOD_SHIFT) && path && complete(f, x))
        ;
    else if (in->key == K_TAB || in->key == K_DOWN)
        go(f, in->mods & MOD_SHIFT ? -1 : 1);
    else if (in->key == K_UP)
        go(f, -1);
    else if (in->key == K_ENTER && f->at == f->n)
        form_close(f);
    else if (in->key == K_ENTER && (!x || is_last(f, f->at)))
        submit(f);
    else if (in->key == K_ENTER)
        go(f, 1);
    else if (x && x->spec.kind == FORM_CHOICE && (in->key == K_LEFT || in->key == K_RIGHT || in->key == ' '))
        turn(x, in->key == K_LEFT ? -1 : 1);
    else if (x && x->spec.kind == FORM_CHECK && (in->key == ' ' || in->key == K_LEFT || in->key == K_RIGHT))
        snprintf(x->value, sizeof x->value, "%s", x->value[0] ? "" : "yes");
    else if (!x && (in->key == K_LEFT || in->key == K_RIGHT))
        look_at(f, f->at == f->n ? f->n + 1 : f->n);
    else if (!x && in->key == ' ' && f->at == f->n)
        form_close(f);
    else if (!x && in->key == ' ')
        submit(f);
    else if (!text || !type(f, x, in))
        return true;
    if (!f->closed && in->key != K_ENTER && !(in->key == ' ' && !x)) {
        f->why[0] = '\0';
        revise(f);
    }
    return true;
}

static bool action(struct pane *p, const char *what)
{
    struct form *f = (struct form *)p;
    if (strcmp(what, "form.submit") == 0)
        submit(f);
    else if (strcmp(what, "form.cancel") == 0)
        form_close(f);
    else
        return false;
    return true;
}

static bool idle(struct pane *p, const char *what)
{
    return ((struct form *)p)->work && strcmp(what, "form.cancel") != 0 && strcmp(what, "app.help") != 0;
}

/* The cursor to where the click was; columns from the field's begin. */
static void place(struct field *x, int column)
{
    size_t at = x->from, next;
    if (x->from && column-- == 0)
        at = before(x, x->from);
    else
        for (; x->value[at] && columns(x, x->from, next = after(x, at)) <= column; at = next)
            ;
    x->at = at;
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct form *f = (struct form *)p;
    unsigned hit = f->noffers, next = f->noffers ? offers_line(f, NULL, in->x - f->offers_x, &hit) : 0;
    bool on_offers = f->noffers && in->y == f->offers_y;
    if (f->work && (in->mouse == MOUSE_WHEEL || in->y != p->rows - 2))
        return true;
    if (in->mouse == MOUSE_WHEEL && on_offers) {
        f->offered = in->button < 0 ? 0 : next < f->noffers ? next : f->offered;
        pane_dirty(p);
    } else if (in->mouse == MOUSE_WHEEL && (in->button == -1 || in->button == 1))
        go(f, in->button);
    if (in->mouse != MOUSE_PRESS || in->button != 1)
        return true;
    if (on_offers) {
        if (hit < f->noffers)
            take_offer(f, hit);
        else if (in->x >= f->offers_x + f->offers_room - 16)
            f->offered = next < f->noffers ? next : 0;
        revise(f);
        return true;
    }
    if (in->y == p->rows - 2) {
        int all = 10 + 2 + paint_width(f->button) + 4, x = (p->cols - all) / 2;
        if (in->x >= x && in->x < x + 10)
            form_close(f);
        else if (in->x >= x + 12 && in->x < x + all)
            submit(f);
        return true;
    }
    for (unsigned i = 0; i < f->n; i++)
        if (f->f[i].y == in->y && focusable(f, i)) {
            int left = label_width(f) + 4;
            int last = left + paint_width(f->f[i].value) + 3; /* the arrow behind it */
            if (f->f[i].spec.kind == FORM_CHOICE && (f->at == i || in->x == left || in->x == last))
                turn(&f->f[i], in->x == left ? -1 : 1);
            if (f->f[i].spec.kind <= FORM_PATHS && in->x >= left)
                place(&f->f[i], in->x - left);
            if (f->f[i].spec.kind == FORM_CHECK)
                snprintf(f->f[i].value, FORM_VALUE_MAX, "%s", f->f[i].value[0] ? "" : "yes");
            look_at(f, i);
            revise(f);
        }
    return true;
}

void form_verb(const struct pane *p, char *out, size_t cap)
{
    snprintf(out, cap, "%s", ((const struct form *)p)->button);
    if (out[0] >= 'A' && out[0] <= 'Z')
        out[0] += 32;
}

static void title(struct pane *p, char *left, size_t lc, char *right, size_t rc)
{
    snprintf(left, lc, "%s", ((struct form *)p)->title);
    char button[40], save[24], leave[24];
    form_verb(p, button, sizeof button);
    keymap_key_of(app_keys(p->app), "form", "form.submit", save, sizeof save);
    keymap_key_of(app_keys(p->app), "form", "form.cancel", leave, sizeof leave);
    if (((struct form *)p)->work)
        snprintf(right, rc, "%s leave", leave);
    else
        snprintf(right, rc, "%s %s   %s leave", save, button, leave);
}

static void want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    struct form *f = (struct form *)p;
    *cols = max_cols < 76 ? max_cols : 76;
    int foot = f->preview ? 8 : 6; /* what a preview says may be long */
    int need = fields_rows(f, *cols) + (f->why_rows + 5 > foot ? f->why_rows + 5 : foot);
    *rows = need < max_rows ? need : max_rows;
}

static const struct pane_class form_class = {.name = "form", .modal = true, .draw = draw, .key = key, .action = action, .mouse = mouse, .idle = idle,
                                             .title = title, .cursor = cursor, .want = want, .free = form_free};

struct pane *form_new(const char *heading, const struct form_spec *spec, unsigned n, const char *button,
                      enum form_next (*on_submit)(struct pane *form, const char *const *values, char *why, size_t cap, void *arg), void *arg,
                      void (*drop)(void *arg))
{
    struct form *f = calloc(1, sizeof *f);
    if (!f || n > FORM_FIELDS_MAX) {
        free(f);
        if (drop)
            drop(arg);
        return NULL;
    }
    f->pane.class = &form_class;
    f->n = n;
    f->submit = on_submit;
    f->arg = arg;
    f->drop = drop;
    snprintf(f->title, sizeof f->title, "%s", heading);
    snprintf(f->button, sizeof f->button, "%s", button);
    for (unsigned i = 0; i < n; i++) {
        f->f[i].spec = spec[i];
        if (spec[i].initial)
            snprintf(f->f[i].value, FORM_VALUE_MAX, "%s", spec[i].initial);
        else if (spec[i].kind == FORM_CHOICE)
            choice(spec[i].choices, 0, f->f[i].value, FORM_VALUE_MAX);
        f->f[i].at = strlen(f->f[i].value);
    }
    while (!focusable(f, f->at))
        f->at++;
    return &f->pane;
}

void form_preview(struct pane *p, void (*preview)(const char *const *v, char *out, size_t cap, void *arg))
{
    struct form *f = (struct form *)p;
    if (!f)
        return;
    f->preview = preview;
    revise(f);
}
