/* The form behind `a` and `d` on a row of the network log: a rule of what the row tells. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/publishers.h"
#include "core/rule.h"
#include "ui/dash/app.h"
#include "ui/dash/netlog_pane.h"
#include "ui/dash/paint.h"
#include "ui/dash/task.h"

enum field { F_ACTION, F_TARGET, F_SCOPE, F_LIFE, F_APPLY, F_CANCEL, FIELDS };
enum { LIFE_ONCE, LIFE_HOUR, LIFE_DAY, LIFE_GOOD, LIVES };

struct form {
    struct pane pane;
    struct netlog_target targets[NETLOG_TARGETS_MAX];
    unsigned ntargets, target, life;
    bool deny, global;
    enum field at;
    char box[80], by[600]; /* by: a rule that denies, and wins */
    int row_of[FIELDS];    /* where it was drawn */
    int button_x[2];
};

static struct form *self(struct pane *p)
{
    return (struct form *)p;
}

/* "Once" is the next connection of one sandbox: no rule that lasts. */
static bool once_fits(const struct form *f)
{
    return !f->deny && !f->global;
}

static const char *life_text(unsigned life)
{
    static const char *const texts[] = {"once", "for an hour", "for a day", "for good"};
    return texts[life];
}

static void sentence(const struct form *f, char *out, size_t cap)
{
    snprintf(out, cap, "%s %s  %s, %s", f->deny ? "deny" : "allow", f->targets[f->target].text,
             f->global ? "in all sandboxes" : f->box, life_text(f->life));
}

static unsigned build(const struct form *f, const char *argv[10])
{
    unsigned n = 0;
    argv[n++] = "policy";
    argv[n++] = f->deny ? "deny" : "allow";
    argv[n++] = "network";
    argv[n++] = f->global ? "-g" : f->box;
    argv[n++] = f->targets[f->target].text;
    if (f->life == LIFE_ONCE) {
        argv[n++] = "--once";
    } else if (f->life != LIFE_GOOD) {
        argv[n++] = "--for";
        argv[n++] = f->life == LIFE_HOUR ? "1h" : "1d";
    }
    argv[n] = NULL;
    return n;
}

static void command_text(const struct form *f, char *out, size_t cap)
{
    const char *argv[10];
    unsigned n = build(f, argv);
    size_t used = (size_t)snprintf(out, cap, "sbx");
    for (unsigned i = 0; i < n && used < cap; i++) {
        bool quote = strpbrk(argv[i], " *|[") != NULL;
        used += (size_t)snprintf(out + used, cap - used, quote ? " '%s'" : " %s", argv[i]);
    }
}

/* ---- drawing ---- */

static void choice(WINDOW *w, int y, int cols, const char *label, const char *value, bool on, bool more)
{
    char text[700];
    paint_text(w, y, 2, 10, on ? ST_STRONG : ST_DIM, label);
    snprintf(text, sizeof text, "%s%s%s", more ? app_glyph("\xe2\x80\xb9 ", "< ") : "  ", value, more ? app_glyph(" \xe2\x80\xba", " >") : "");
    paint_text(w, y, 13, cols - 15, on ? ST_FIELD_ON : ST_FIELD, text);
}

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct form *f = self(p);
    char text[1400];
    int y = 1, cols = p->cols;
    (void)focus;
    f->row_of[F_ACTION] = y;
    choice(w, y++, cols, "What", f->deny ? "deny" : "allow", f->at == F_ACTION, true);
    f->row_of[F_TARGET] = y;
    snprintf(text, sizeof text, "%s  (%s)", f->targets[f->target].text, f->targets[f->target].what);
    choice(w, y++, cols, "Where to", text, f->at == F_TARGET, f->ntargets > 1);
    f->row_of[F_SCOPE] = y;
    snprintf(text, sizeof text, "this sandbox (%s)", f->box);
    choice(w, y++, cols, "For whom", f->global ? "all sandboxes" : text, f->at == F_SCOPE, true);
    f->row_of[F_LIFE] = y;
    choice(w, y++, cols, "How long", life_text(f->life), f->at == F_LIFE, true);
    y++;
    sentence(f, text, sizeof text);
    paint_text(w, y, 2, 10, ST_DIM, "The rule");
    y += paint_wrap(w, y, 13, cols - 15, 2, f->deny ? ST_DENY : ST_ALLOW, text);
    command_text(f, text, sizeof text);
    paint_text(w, y, 2, 10, ST_DIM, "As command");
    y += paint_wrap(w, y, 13, cols - 15, 2, ST_DIM, text);
    const char *warning = NULL;
    struct rule r = {0};
    char first[600];
    snprintf(first, sizeof first, "%.*s", (int)strcspn(f->targets[f->target].text, ","), f->targets[f->target].text);
    if (!f->deny && rule_parse(&r, first, NULL) == 0)
        warning = publishers_warning(&r);
    if (warning)
        y += paint_wrap(w, y, 2, cols - 4, 2, ST_WARN, warning);
    if (!f->deny && f->by[0]) {
        snprintf(text, sizeof text, "A deny wins over any allow: \"%s\" must be taken back as well (sbx policy ls shows it).", f->by);
        y += paint_wrap(w, y, 2, cols - 4, 3, ST_WARN, text);
    }
    if (y > p->rows - 2)
        y = p->rows - 2;
    y = p->rows - 2;
    f->row_of[F_APPLY] = f->row_of[F_CANCEL] = y;
    f->button_x[0] = 2;
    int x = 2 + paint_text(w, y, 2, cols - 4, f->at == F_APPLY ? ST_BUTTON_ON : ST_BUTTON, "  Put in force  ") + 2;
    f->button_x[1] = x;
    paint_text(w, y, x, cols - x, f->at == F_CANCEL ? ST_BUTTON_ON : ST_BUTTON, "  Leave  ");
}

static void want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    (void)p;
    *rows = max_rows < 15 ? max_rows : 15;
    *cols = max_cols < 76 ? max_cols : 76;
}

static void title(struct pane *p, char *left, size_t left_cap, char *right, size_t right_cap)
{
    snprintf(left, left_cap, "%s", self(p)->deny ? "Deny" : "Allow");
    snprintf(right, right_cap, "Enter: in force   Esc: leave");
}

/* ---- doing ---- */

struct applied {
    struct app *app;
    char text[1200];
};

static void on_done(const struct task_end *end, void *arg)
{
    struct applied *d = arg;
    if (end->status == 0)
        app_say(d->app, SAY_GOOD, "in force: %s", d->text);
    else
        app_say(d->app, SAY_ERROR, "%s: %s", d->text, end->error[0] ? end->error : "it failed");
    free(d);
}

static const struct task_ops ops = {.done = on_done};

static void put_in_force(struct form *f)
{
    struct err e = {0};
    const char *argv[10];
    struct applied *d = calloc(1, sizeof *d);
    struct app *a = f->pane.app;
    if (!d)
        return;
    d->app = a;
    sentence(f, d->text, sizeof d->text);
    build(f, argv);
    if (!task_run(a, argv, NULL, 0, &ops, d, &e)) {
        app_say(a, SAY_ERROR, "%s", e.text);
        free(d);
    }
    app_pop(a, &f->pane); /* f is gone */
}

static void turn(struct form *f, int by)
{
    switch (f->at) {
    case F_ACTION:
        f->deny = !f->deny;
        break;
    case F_TARGET:
        f->target = (f->target + f->ntargets + (unsigned)by) % f->ntargets;
        break;
    case F_SCOPE:
        f->global = !f->global;
        break;
    case F_LIFE:
        f->life = (f->life + LIVES + (unsigned)by) % LIVES;
        break;
    default:
        f->at = f->at == F_APPLY ? F_CANCEL : F_APPLY;
        break;
    }
    if (f->life == LIFE_ONCE && !once_fits(f))
        f->life = f->at == F_LIFE && by < 0 ? LIFE_GOOD : LIFE_HOUR;
}

static bool action(struct pane *p, const char *what)
{
    struct form *f = self(p);
    const char *name = strchr(what, '.') ? strchr(what, '.') + 1 : what;
    if (strcmp(name, "next") == 0 || strcmp(name, "down") == 0)
        f->at = (f->at + 1) % FIELDS;
    else if (strcmp(name, "previous") == 0 || strcmp(name, "up") == 0)
        f->at = (f->at + FIELDS - 1) % FIELDS;
    else if (strcmp(name, "left") == 0)
        turn(f, -1);
    else if (strcmp(name, "right") == 0)
        turn(f, 1);
    else if (strcmp(name, "cancel") == 0 || strcmp(name, "close") == 0) {
        app_pop(p->app, p);
        return true;
    } else if (strcmp(name, "accept") == 0 || strcmp(name, "submit") == 0) {
        if (f->at == F_CANCEL)
            app_pop(p->app, p);
        else
            put_in_force(f);
        return true;
    } else
        return false;
    pane_dirty(p);
    return true;
}

static bool key(struct pane *p, const struct input *in)
{
    static const struct {
        uint32_t key;
        const char *action;
    } keys[] = {
        {K_DOWN, "form.next"}, {K_UP, "form.previous"}, {'j', "form.next"},  {'k', "form.previous"}, {K_LEFT, "form.left"},
        {K_RIGHT, "form.right"}, {'h', "form.left"},    {'l', "form.right"}, {' ', "form.right"},    {K_ENTER, "form.accept"},
        {K_ESC, "form.cancel"},  {'q', "form.cancel"},
    };
    if (in->type != INPUT_KEY)
        return true;
    if (in->key == K_TAB)
        return action(p, in->mods & MOD_SHIFT ? "form.previous" : "form.next");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].key == in->key)
            return action(p, keys[i].action);
    return true;
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct form *f = self(p);
    if (in->mouse != MOUSE_PRESS || in->button != 1)
        return in->mouse == MOUSE_WHEEL;
    for (enum field i = F_ACTION; i <= F_LIFE; i++)
        if (in->y == f->row_of[i]) {
            f->at = i;
            if (in->x >= 13)
                turn(f, 1);
            pane_dirty(p);
            return true;
        }
    if (in->y == f->row_of[F_APPLY]) {
        if (in->x >= f->button_x[1])
            app_pop(p->app, p);
        else if (in->x >= f->button_x[0])
            put_in_force(f);
        return true;
    }
    return true;
}

static void form_free(struct pane *p)
{
    free(p);
}

static const struct pane_class class = {.name = "form", .modal = true, .draw = draw, .key = key, .action = action, .mouse = mouse,
                                        .title = title, .want = want, .free = form_free};

struct pane *netlog_form_new(struct app *a, const struct netlog_row *row, bool deny)
{
    struct form *f = calloc(1, sizeof *f);
    (void)a;
    if (!f)
        return NULL;
    f->pane.class = &class;
    f->deny = deny;
    f->life = LIFE_GOOD;
    f->at = F_TARGET;
    f->ntargets = netlog_targets(row, f->targets);
    snprintf(f->box, sizeof f->box, "%s", row->box);
    if (strncmp(row->rule, "deny ", 5) == 0)
        snprintf(f->by, sizeof f->by, "%.590s", row->rule);
    if (!f->ntargets) {
        free(f);
        return NULL;
    }
    return &f->pane;
}
