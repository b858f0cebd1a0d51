#include "ui/dash/form.h"

#include <dirent.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/sanitize.h"
#include "ui/dash/keymap.h"
#include "ui/dash/paint.h"

#define LABEL_MAX 18

struct field {
    struct form_spec spec;
    char value[FORM_VALUE_MAX];
    size_t at; /* of the cursor, in bytes */
    char why[200];
    int y; /* where it was drawn */
};

struct form {
    struct pane pane;
    char title[80], button[40], why[400], offers[400], says[400];
    struct field f[FORM_FIELDS_MAX];
    unsigned n, at; /* at == n: Cancel; n + 1: the button */
    bool (*submit)(struct app *a, const char *const *values, char *why, size_t cap, void *arg);
    void (*preview)(const char *const *values, char *out, size_t cap, void *arg);
    void *arg;
    void (*drop)(void *arg);
    bool closed;
};

static void form_free(struct pane *p)
{
    struct form *f = (struct form *)p;
    if (f->drop)
        f->drop(f->arg);
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

static void go(struct form *f, int step)
{
    unsigned all = f->n + 2;
    do
        f->at = (f->at + all + (unsigned)step) % all;
    while (!focusable(f, f->at));
    f->offers[0] = '\0';
    pane_dirty(&f->pane);
}

static void cancel(struct form *f)
{
    if (f->closed)
        return;
    f->closed = true;
    app_pop(f->pane.app, &f->pane);
}

static void submit(struct form *f)
{
    const char *v[FORM_FIELDS_MAX];
    if (f->closed)
        return;
    revise(f);
    for (unsigned i = 0; i < f->n; i++)
        if (f->f[i].why[0]) {
            f->at = i;
            snprintf(f->why, sizeof f->why, "%s", f->f[i].why);
            return;
        }
    values(f, v);
    f->why[0] = '\0';
    if (f->submit(f->pane.app, v, f->why, sizeof f->why, f->arg))
        cancel(f);
    else
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

static void draw_text(WINDOW *w, const struct field *x, int y, int left, int room, bool on)
{
    char shown[FORM_VALUE_MAX];
    size_t from = 0;
    if (x->spec.kind == FORM_SECRET) {
        size_t n = 0;
        for (const char *p = x->value; *p && n < sizeof shown - 1; p++)
            shown[n++] = '*';
        shown[n] = '\0';
    } else
        memcpy(shown, x->value, sizeof shown);
    shown[sizeof shown - 1] = '\0';
    /* The cursor stays in sight. */
    char before[FORM_VALUE_MAX];
    for (;;) {
        snprintf(before, sizeof before, "%.*s", (int)(x->at - from), shown + from);
        if (paint_width(before) < room - 1)
            break;
        from++;
        while (from < x->at && ((unsigned char)shown[from] & 0xc0) == 0x80)
            from++;
    }
    for (int i = 0; i < room; i++)
        paint_text(w, y, left + i, 1, on ? ST_FIELD_ON : ST_FIELD, " ");
    paint_text(w, y, left, room, on ? ST_FIELD_ON : ST_FIELD, shown + from);
}

static int cursor_x(const struct field *x, int room)
{
    char before[FORM_VALUE_MAX];
    snprintf(before, sizeof before, "%.*s", (int)x->at, x->value);
    int n = x->spec.kind == FORM_SECRET ? (int)x->at : paint_width(before);
    return n < room - 1 ? n : room - 1;
}

static void draw_buttons(struct form *f, WINDOW *w, int y)
{
    int all = 10 + 2 + paint_width(f->button) + 4, x = (f->pane.cols - all) / 2;
    paint_text(w, y, x, 10, f->at == f->n ? ST_BUTTON_ON : ST_BUTTON, "  Cancel  ");
    paint_f(w, y, x + 12, 44, f->at == f->n + 1 ? ST_BUTTON_ON : ST_BUTTON, "  %s  ", f->button);
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

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct form *f = (struct form *)p;
    int y = 1, left = label_width(f) + 4, room = p->cols - left - 2, tight = p->rows < (int)f->n * 2 + 5;
    (void)focus;
    unsigned first = 0;
    if (tight && (int)f->n > p->rows - 5) { /* no room for all: those about the one with the focus */
        unsigned fit = p->rows > 6 ? (unsigned)p->rows - 5 : 1, at = f->at < f->n ? f->at : f->n - 1;
        first = at >= fit ? at - fit + 1 : 0;
        paint_scroll(w, 1, (int)fit, (long)first, (long)fit, (long)f->n, ST_FRAME_ON);
    }
    for (unsigned i = 0; i < f->n; i++) {
        struct field *x = &f->f[i];
        bool on = f->at == i;
        x->y = -1;
        if (i < first || (tight && y > p->rows - 5))
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
        if (x->why[0] && !tight)
            paint_text(w, y + 1, left, room, ST_FAILED, x->why);
        else if (on && f->offers[0] && !tight)
            paint_text(w, y + 1, left, room, ST_DIM, f->offers);
        else if (x->spec.hint && !tight)
            paint_text(w, y + 1, left, room, ST_DIM, x->spec.hint);
        y += tight ? 1 : 2;
    }
    const struct field *here = f->at < f->n ? &f->f[f->at] : NULL;
    if (tight) { /* one line for all: what is wrong, what would happen, or what the field is for */
        const char *bad = f->why[0] ? f->why : here ? here->why : "";
        paint_text(w, p->rows - 3, 2, p->cols - 4, bad[0] ? ST_FAILED : f->says[0] ? ST_GOOD : ST_DIM,
                   bad[0] ? bad : f->offers[0] ? f->offers : f->says[0] ? f->says : here && here->spec.hint ? here->spec.hint : "");
    } else if (f->why[0])
        paint_wrap(w, p->rows - 4, 2, p->cols - 4, 2, ST_FAILED, f->why);
    else if (f->says[0])
        paint_wrap(w, p->rows - 6, 2, p->cols - 4, 3, ST_GOOD, f->says);
    draw_buttons(f, w, p->rows - 2);
}

static bool cursor(struct pane *p, int *y, int *x)
{
    struct form *f = (struct form *)p;
    if (f->at >= f->n || f->f[f->at].spec.kind > FORM_PATHS)
        return false;
    int left = label_width(f) + 4;
    *y = f->f[f->at].y;
    *x = left + cursor_x(&f->f[f->at], p->cols - left - 2);
    return true;
}

/* ---- typing ---- */

/* Whole characters, as many as there is room for; none that would not be seen. */
static void insert(struct field *x, const char *text, size_t n)
{
    size_t len = strlen(x->value);
    for (size_t i = 0, k; i < n; i += k) {
        unsigned code = 0;
        k = sanitize_utf8((const unsigned char *)text + i, n - i, &code);
        if (k == 0 || code < 32 || (code >= 127 && code < 160)) {
            k = k ? k : 1;
            continue;
        }
        if (len + k >= sizeof x->value)
            return;
        memmove(x->value + x->at + k, x->value + x->at, len - x->at + 1);
        memcpy(x->value + x->at, text + i, k);
        x->at += k;
        len += k;
    }
}

static size_t before(const struct field *x, size_t at)
{
    while (at && ((unsigned char)x->value[--at] & 0xc0) == 0x80)
        ;
    return at;
}

static size_t after(const struct field *x, size_t at)
{
    if (!x->value[at])
        return at;
    do
        at++;
    while (((unsigned char)x->value[at] & 0xc0) == 0x80);
    return at;
}

static void erase_to(struct field *x, size_t from, size_t to)
{
    memmove(x->value + from, x->value + to, strlen(x->value + to) + 1);
    x->at = from;
}

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

static void insert_path(struct field *x, const char *text)
{
    for (; *text; text++) {
        if (x->spec.kind == FORM_PATHS && (*text == ' ' || *text == '\\'))
            insert(x, "\\", 1);
        size_t k = 1;
        while (((unsigned char)text[k] & 0xc0) == 0x80)
            k++;
        insert(x, text, k);
        text += k - 1;
    }
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
    size_t used = 0, n = strlen(part);
    unsigned count = 0;
    f->offers[0] = '\0';
    struct dirent *ent;
    bool is_dir = false;
    while (d && (ent = readdir(d))) {
        if (strncmp(ent->d_name, part, n) != 0 || (ent->d_name[0] == '.' && part[0] != '.') || !strcmp(ent->d_name, ".") ||
            !strcmp(ent->d_name, ".."))
            continue;
        struct stat st;
        bool folder = fstatat(dirfd(d), ent->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
        if (x->spec.folders && !folder)
            continue;
        is_dir = folder;
        if (count++ == 0)
            snprintf(common, sizeof common, "%s", ent->d_name);
        else {
            size_t i = 0;
            while (common[i] && common[i] == ent->d_name[i])
                i++;
            while (i && ((unsigned char)common[i] & 0xc0) == 0x80)
                i--; /* no part of a character */
            common[i] = '\0';
        }
        if (used < sizeof f->offers - 80)
            used += (size_t)snprintf(f->offers + used, sizeof f->offers - used, "%s%.60s%s", used ? "  " : "", ent->d_name, is_dir ? "/" : "");
    }
    if (d)
        closedir(d);
    size_t more = strlen(common);
    if (count && more > n) {
        x->at = strlen(x->value);
        insert_path(x, common + n);
    }
    if (count == 1) {
        if (is_dir)
            insert(x, "/", 1);
        f->offers[0] = '\0';
    }
}

static bool type(struct form *f, struct field *x, const struct input *in)
{
    if (in->key == K_BACKSPACE && x->at)
        erase_to(x, before(x, x->at), x->at);
    else if (in->key == K_DELETE) {
        size_t at = x->at;
        erase_to(x, at, after(x, at));
    } else if (in->key == K_LEFT)
        x->at = before(x, x->at);
    else if (in->key == K_RIGHT)
        x->at = after(x, x->at);
    else if (in->key == K_HOME || ((in->mods & MOD_CTRL) && in->key == 'a'))
        x->at = 0;
    else if (in->key == K_END || ((in->mods & MOD_CTRL) && in->key == 'e'))
        x->at = strlen(x->value);
    else if ((in->mods & MOD_CTRL) && in->key == 'u')
        erase_to(x, 0, x->at);
    else if ((in->mods & MOD_CTRL) && in->key == 'w') {
        size_t to = x->at, from = to;
        while (from && strchr(" /", x->value[from - 1]))
            from--;
        while (from && !strchr(" /", x->value[from - 1]))
            from--;
        erase_to(x, from, to);
    } else if (in->key < 0x110000 && !(in->mods & (MOD_CTRL | MOD_ALT)))
        insert(x, in->raw, in->raw_len);
    else
        return false;
    f->offers[0] = '\0';
    return true;
}

static bool key(struct pane *p, const struct input *in)
{
    struct form *f = (struct form *)p;
    struct field *x = f->at < f->n ? &f->f[f->at] : NULL;
    if (in->type == INPUT_PASTE && x && x->spec.kind <= FORM_PATHS) {
        insert(x, in->raw, in->raw_len);
        revise(f);
        return true;
    }
    if (in->type != INPUT_KEY)
        return true;
    bool text = x && x->spec.kind <= FORM_PATHS;
    if (in->key == K_TAB && !(in->mods & MOD_SHIFT) && x && (x->spec.kind == FORM_PATH || x->spec.kind == FORM_PATHS) && x->value[0] && x->at == strlen(x->value)) {
        char was[FORM_VALUE_MAX];
        memcpy(was, x->value, sizeof was);
        complete_path(f, x);
        /* Nothing to complete: Tab is for the next field. */
        if (strcmp(was, x->value) == 0 && !strstr(f->offers, "  "))
            go(f, 1);
    } else if (in->key == K_TAB || in->key == K_DOWN)
        go(f, in->mods & MOD_SHIFT ? -1 : 1);
    else if (in->key == K_UP)
        go(f, -1);
    else if (in->key == K_ENTER && f->at == f->n)
        cancel(f);
    else if (in->key == K_ENTER && f->at + 1 >= f->n)
        submit(f);
    else if (in->key == K_ENTER)
        go(f, 1);
    else if (x && x->spec.kind == FORM_CHOICE && (in->key == K_LEFT || in->key == K_RIGHT || in->key == ' '))
        turn(x, in->key == K_LEFT ? -1 : 1);
    else if (x && x->spec.kind == FORM_CHECK && (in->key == ' ' || in->key == K_LEFT || in->key == K_RIGHT))
        snprintf(x->value, sizeof x->value, "%s", x->value[0] ? "" : "yes");
    else if (!x && (in->key == K_LEFT || in->key == K_RIGHT))
        f->at = f->at == f->n ? f->n + 1 : f->n;
    else if (!text || !type(f, x, in))
        return true;
    if (!f->closed) {
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
        cancel(f);
    else
        return false;
    return true;
}

/* The cursor to where the click was; columns from the field's begin.  What is scrolled stays. */
static void place(struct field *x, int column, int room)
{
    char until[FORM_VALUE_MAX];
    size_t at = 0, next;
    if (paint_width(x->value) >= room - 1)
        return;
    for (; x->value[at]; at = next) {
        next = after(x, at);
        snprintf(until, sizeof until, "%.*s", (int)next, x->value);
        if ((x->spec.kind == FORM_SECRET ? (int)next : paint_width(until)) > column)
            break;
    }
    x->at = at;
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct form *f = (struct form *)p;
    if (in->mouse == MOUSE_WHEEL && (in->button == -1 || in->button == 1))
        go(f, in->button);
    if (in->mouse != MOUSE_PRESS || in->button != 1)
        return true;
    if (in->y == p->rows - 2) {
        int all = 10 + 2 + paint_width(f->button) + 4, x = (p->cols - all) / 2;
        if (in->x >= x && in->x < x + 10)
            cancel(f);
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
            if (f->at == i && f->f[i].spec.kind <= FORM_PATHS && in->x >= left)
                place(&f->f[i], in->x - left, p->cols - left - 2);
            if (f->f[i].spec.kind == FORM_CHECK)
                snprintf(f->f[i].value, FORM_VALUE_MAX, "%s", f->f[i].value[0] ? "" : "yes");
            f->at = i;
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
    snprintf(right, rc, "%s %s   %s leave", save, button, leave);
}

static void want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    struct form *f = (struct form *)p;
    *cols = max_cols < 76 ? max_cols : 76;
    int need = f->preview ? 8 : 6; /* what a preview says may be long */
    for (unsigned i = 0; i < f->n; i++)
        need += f->f[i].spec.kind == FORM_NOTE ? paint_wrap(NULL, 0, 0, *cols - 4, 4, ST_DIM, f->f[i].spec.label) + 1 : 2;
    *rows = need < max_rows ? need : max_rows;
}

static const struct pane_class form_class = {.name = "form", .modal = true, .draw = draw, .key = key, .action = action, .mouse = mouse,
                                             .title = title, .cursor = cursor, .want = want, .free = form_free};

struct pane *form_new(const char *heading, const struct form_spec *spec, unsigned n, const char *button,
                      bool (*on_submit)(struct app *a, const char *const *values, char *why, size_t cap, void *arg), void *arg,
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
