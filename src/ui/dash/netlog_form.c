/* The form behind `a` and `d` on a row of the network log: a rule of what the row tells. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/expiry.h"
#include "core/policy.h"
#include "core/publishers.h"
#include "core/rule.h"
#include "core/shellword.h"
#include "ui/dash/app.h"
#include "ui/dash/model.h"
#include "ui/dash/keymap.h"
#include "ui/dash/netlog_pane.h"
#include "ui/dash/paint.h"
#include "ui/dash/task.h"

#define QUIET_MS 150 /* before it is shown that something is under way */

enum field { F_ACTION, F_TARGET, F_SCOPE, F_LIFE, F_BACK, F_CANCEL, F_APPLY, FIELDS };
enum { LIFE_ONCE, LIFE_HOUR, LIFE_DAY, LIFE_GOOD, LIVES };

/* What is asked for, and what is said to it now. */
struct wanted {
    char box[80], host[264], method[32], path[1024];
    uint16_t port;
};

struct now {
    bool allow, exact, denied, depends; /* depends: each request is judged; denied: by a rule, which wins over whatever allows */
    enum rule_origin origin;
    bool whole;                /* that rule speaks of this very host and nothing else */
    char text[RULE_TEXT_MAX + 32], rule[RULE_TEXT_MAX], id[16];
};

struct applied;

struct form {
    struct pane pane;
    struct applied *job; /* is put in force, NULL: nothing is */
    int64_t began_ms;
    char why[400];       /* that could not be done */
    struct netlog_target targets[NETLOG_TARGETS_MAX];
    unsigned ntargets, target, life;
    bool deny, global, gone, runs;
    bool back;  /* the rule that denies is taken back */
    bool inner, spoken; /* inner: the host is allowed, but was refused for its address, or for what is spoken there */
    enum field at;
    struct wanted wanted;
    struct now now;
    int row_of[FIELDS]; /* where it was drawn */
    int button_x[2];
};

static struct form *self(struct pane *p)
{
    return (struct form *)p;
}

static void decide(const struct wanted *w, struct now *out)
{
    struct policy *p = expiry_policy(w->box[0] ? w->box : NULL);
    struct decision d = {0};
    uint8_t addr[16], family = rule_parse_addr(w->host, addr);
    memset(out, 0, sizeof *out);
    if (!p)
        return;
    if (family)
        policy_decide_addr(p, family, addr, w->port, time(NULL), &d);
    else if (w->method[0])
        policy_decide_request(p, w->host, w->port, w->method, w->path, time(NULL), &d);
    else
        policy_decide_name(p, w->host, w->port, time(NULL), &d);
    out->allow = d.allow;
    out->depends = d.allow && d.http;
    out->exact = d.exact;
    snprintf(out->text, sizeof out->text, "%s", d.text);
    if (d.rule && d.rule->deny && !d.allow) {
        out->denied = true;
        out->origin = d.rule->origin;
        out->whole = !rule_is_conditional(d.rule) && (d.rule->kind == RULE_HOST || (d.rule->kind == RULE_RANGE && d.rule->prefix >= (family == 4 ? 32 : 128)));
        rule_format(out->rule, d.rule);
        snprintf(out->id, sizeof out->id, "%s", d.rule->id);
    }
    policy_free(p);
}

/* ---- the rule ---- */

static const char *target_of(const struct form *f)
{
    return f->targets[f->target].text;
}

static bool is_list(const struct form *f)
{
    char copy[sizeof f->targets[0].text], *rest = copy;
    snprintf(copy, sizeof copy, "%s", target_of(f));
    return rule_list_next(&rest) && rule_list_next(&rest);
}

/* "Once" is the next connection of one running sandbox: no rule that lasts, and none about requests. */
static bool once_fits(const struct form *f)
{
    struct rule r = {0};
    char copy[sizeof f->targets[0].text], *rest = copy, *first;
    snprintf(copy, sizeof copy, "%s", target_of(f));
    first = rule_list_next(&rest);
    return !f->deny && !f->global && f->runs && first && rule_parse(&r, first, NULL) == 0 && !rule_is_conditional(&r);
}

static const char *life_text(unsigned life)
{
    static const char *const texts[] = {"once", "for an hour", "for a day", "for good"};
    return texts[life];
}

/* The rule that denies, where it can be taken back, and the new one does not take its place by itself. */
static bool can_go_back(const struct form *f)
{
    bool same = strcmp(f->now.rule, target_of(f)) == 0 && f->now.origin == (f->global ? RULE_GLOBAL : RULE_SANDBOX) && f->life != LIFE_ONCE;
    return !f->deny && f->now.denied && f->now.origin != RULE_PRESET && f->now.id[0] && !same;
}

static void sentence(const struct form *f, char *out, size_t cap)
{
    snprintf(out, cap, "%s %s  for %s, %s%s", f->deny ? "deny" : "allow", target_of(f), f->global ? "all sandboxes" : f->wanted.box,
             f->life == LIFE_ONCE ? "the next connection" : life_text(f->life), f->life == LIFE_ONCE && is_list(f) ? " to each" : "");
}

/* The rule that is taken back stands where the new one will: then it becomes that one, all at once. */
static bool edits(const struct form *f)
{
    return f->back && can_go_back(f) && f->life != LIFE_ONCE && f->global == (f->now.origin == RULE_GLOBAL) && !is_list(f) && !strchr(target_of(f), '\\');
}

#define ARGV_MAX 16

static unsigned build(const struct form *f, const char *argv[ARGV_MAX])
{
    unsigned n = 0;
    argv[n++] = "policy";
    if (edits(f)) {
        argv[n++] = "edit";
        argv[n++] = f->global ? "-g" : f->wanted.box;
        for (const char *const *w = (const char *const[]){f->now.id, "--action", "allow", "--rule", target_of(f), "--comment", "", NULL}; *w; w++)
            argv[n++] = *w;
        argv[n++] = f->life == LIFE_GOOD ? "--for-good" : "--for";
        if (f->life != LIFE_GOOD)
            argv[n++] = f->life == LIFE_HOUR ? "1h" : "1d";
        argv[n] = NULL;
        return n;
    }
    argv[n++] = f->deny ? "deny" : "allow";
    argv[n++] = "network";
    argv[n++] = f->global ? "-g" : f->wanted.box;
    argv[n++] = target_of(f);
    if (f->life == LIFE_ONCE) {
        argv[n++] = "--once";
    } else if (f->life != LIFE_GOOD) {
        argv[n++] = "--for";
        argv[n++] = f->life == LIFE_HOUR ? "1h" : "1d";
    }
    argv[n] = NULL;
    return n;
}

/* As it can be copied into a shell: a guest chose some of the words. */
static void command_text(const struct form *f, char *out, size_t cap)
{
    const char *argv[ARGV_MAX];
    char word[SHELL_WORD_MAX(sizeof f->targets[0].text)];
    unsigned n = build(f, argv);
    size_t used = (size_t)snprintf(out, cap, "sbx");
    for (unsigned i = 0; i < n && used < cap; i++)
        if (shell_word(word, sizeof word, argv[i]))
            used += (size_t)snprintf(out + used, cap - used, " %s", word);
    if (f->back && can_go_back(f) && !edits(f) && used < cap)
        snprintf(out + used, cap - used, " && sbx policy rm %s %s", f->now.origin == RULE_GLOBAL ? "-g" : f->wanted.box, f->now.id);
}

/* What to know before it is put in force. */
static bool remark(const struct form *f, char *out, size_t cap)
{
    struct rule r = {0};
    char copy[sizeof f->targets[0].text], *rest = copy, *first;
    snprintf(copy, sizeof copy, "%s", target_of(f));
    first = rule_list_next(&rest);
    if (f->deny || !first || rule_parse(&r, first, NULL) < 0)
        return false;
    if (f->now.denied && f->now.origin == RULE_PRESET)
        snprintf(out, cap, "It stays denied: a deny of the preset wins over any allow.");
    else if (can_go_back(f) && !f->back)
        snprintf(out, cap, "It stays denied: \"deny %s\" wins over any allow.", f->now.rule);
    else if (f->inner && !rule_is_exact(&r))
        snprintf(out, cap, "This changes nothing: the host is allowed already, and was refused for %s. That opens by a rule for host and port alone.",
                 f->spoken ? "what is spoken there" : "its address, which is not outside");
    else if (publishers_warning(&r))
        snprintf(out, cap, "%s", publishers_warning(&r));
    else
        return false;
    return true;
}

/* ---- drawing ---- */

static void choice(WINDOW *w, int y, int cols, const char *label, const char *value, bool on, bool more)
{
    char text[700];
    if (!w)
        return;
    paint_text(w, y, 2, 10, on ? ST_STRONG : ST_DIM, label);
    snprintf(text, sizeof text, "%s%s%s", more ? app_glyph("\xe2\x80\xb9 ", "< ") : "  ", value, more ? app_glyph(" \xe2\x80\xba", " >") : "");
    paint_text(w, y, 13, cols - 15, on ? ST_FIELD_ON : ST_FIELD, text);
}

/* Without a window the rows are only counted. */
static int lay_out(struct form *f, WINDOW *w, int cols)
{
    char text[SHELL_WORD_MAX(600) + 200];
    int y = 1;
    f->row_of[F_ACTION] = y;
    choice(w, y++, cols, "What", f->deny ? "deny" : "allow", f->at == F_ACTION, true);
    f->row_of[F_TARGET] = y;
    snprintf(text, sizeof text, "%s  (%s)", target_of(f), f->targets[f->target].what);
    choice(w, y++, cols, "Where to", text, f->at == F_TARGET, f->ntargets > 1);
    f->row_of[F_SCOPE] = y;
    if (f->gone)
        snprintf(text, sizeof text, "all sandboxes (%s is removed)", f->wanted.box);
    else
        snprintf(text, sizeof text, "this sandbox (%s)", f->wanted.box);
    choice(w, y++, cols, "For whom", f->global && !f->gone ? "all sandboxes" : text, f->at == F_SCOPE, !f->gone);
    f->row_of[F_LIFE] = y;
    choice(w, y++, cols, "How long", life_text(f->life), f->at == F_LIFE, true);
    f->row_of[F_BACK] = -1;
    if (can_go_back(f)) {
        f->row_of[F_BACK] = y;
        snprintf(text, sizeof text, "[%s] take back%s: deny %s", f->back ? "x" : " ", f->now.origin == RULE_GLOBAL ? ", for all sandboxes" : "", f->now.rule);
        choice(w, y++, cols, "And", text, f->at == F_BACK, false);
    }
    y++;
    if (w)
        paint_text(w, y, 2, 10, ST_DIM, "Now");
    if (f->now.depends)
        snprintf(text, sizeof text, "each request is judged, because of %s", f->now.text);
    else
        snprintf(text, sizeof text, "%s, by %s", f->now.allow ? "allowed" : "denied", f->now.text);
    y += paint_wrap(w, y, 13, cols - 15, 6, ST_DIM, text);
    if (w)
        paint_text(w, y, 2, 10, ST_DIM, "The rule");
    sentence(f, text, sizeof text); /* all of it: nobody agrees to what cannot be read */
    y += paint_wrap(w, y, 13, cols - 15, 12, f->deny ? ST_DENY : ST_ALLOW, text);
    if (w)
        paint_text(w, y, 2, 10, ST_DIM, "As command");
    command_text(f, text, sizeof text);
    y += paint_wrap(w, y, 13, cols - 15, 12, ST_DIM, text);
    if (f->why[0])
        y += paint_wrap(w, y, 2, cols - 4, 6, ST_FAILED, f->why);
    else if (remark(f, text, sizeof text))
        y += paint_wrap(w, y, 2, cols - 4, 4, ST_WARN, text);
    return y;
}

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct form *f = self(p);
    int cols = p->cols;
    (void)focus;
    lay_out(f, w, cols);
    int y = p->rows - 2;
    for (int i = y - 1; i < p->rows; i++) /* where there is little room the buttons stand before the text */
        for (int x = 0; x < cols; x++)
            paint_text(w, i, x, 1, ST_TEXT, " ");
    f->row_of[F_APPLY] = f->row_of[F_CANCEL] = y;
    int x = (cols - 28) / 2; /* as in every form */
    f->button_x[0] = x;
    x += paint_text(w, y, x, cols - x, f->at == F_CANCEL && !f->job ? ST_BUTTON_ON : ST_BUTTON, "  Cancel  ") + 2;
    f->button_x[1] = x;
    paint_text(w, y, x, cols - x, f->job ? ST_DIM : f->at == F_APPLY ? ST_BUTTON_ON : ST_BUTTON, "  Put in force  ");
    if (f->job && app_now_ms() - f->began_ms >= QUIET_MS)
        paint_f(w, y - 1, 2, cols - 4, ST_BUSY, "%s at work", paint_spinner());
}

static void want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    *cols = max_cols < 76 ? max_cols : 76;
    int need = lay_out(self(p), NULL, *cols) + 4;
    need = need < 16 ? 16 : need;
    *rows = need < max_rows ? need : max_rows;
}

static void title(struct pane *p, char *left, size_t left_cap, char *right, size_t right_cap)
{
    snprintf(left, left_cap, "%s", self(p)->deny ? "Deny" : "Allow");
    char accept[24], leave[24];
    keymap_key_of(app_keys(p->app), "rule", "rule.accept", accept, sizeof accept);
    keymap_key_of(app_keys(p->app), "rule", "rule.cancel", leave, sizeof leave);
    snprintf(right, right_cap, "%s put in force   %s leave", accept, leave);
}

/* ---- doing ---- */

struct applied {
    struct app *app;
    struct form *form; /* NULL: it was left */
    struct wanted wanted;
    bool deny;
    char text[1200], back_scope[80], back_id[16];
};

/* What was put in force is looked at as the broker looks at it. */
static void tell(const struct applied *d)
{
    struct now now;
    decide(&d->wanted, &now);
    if (!d->deny && now.denied)
        app_say(d->app, SAY_WARN, "in force: %s; but %s:%u is still denied, by %s", d->text, d->wanted.host, d->wanted.port, now.text);
    else
        app_say(d->app, SAY_GOOD, "in force: %s", d->text);
}

/* The form goes when all of it was done; else it stays, and says why not. */
static void end_job(struct applied *d, const char *error)
{
    struct form *f = d->form;
    if (f)
        f->job = NULL;
    if (f && error) {
        snprintf(f->why, sizeof f->why, "%s", error);
        decide(&f->wanted, &f->now); /* it may have been done in part */
        app_redraw(d->app, false);
    } else if (error) {
        app_say(d->app, SAY_ERROR, "%s: %s", d->text, error);
    } else {
        if (f)
            app_pop(d->app, &f->pane);
        tell(d);
    }
    free(d);
}

static void on_back(const struct task_end *end, void *arg)
{
    end_job(arg, end->status == 0 ? NULL : end->error[0] ? end->error : "the rule that denies could not be taken back");
}

static void on_done(const struct task_end *end, void *arg)
{
    static const struct task_ops back_ops = {.done = on_back};
    struct applied *d = arg;
    struct err e = {0};
    const char *argv[] = {"policy", "rm", d->back_scope, d->back_id, NULL};
    if (end->status != 0)
        end_job(d, end->error[0] ? end->error : "it failed");
    else if (!d->back_id[0])
        end_job(d, NULL);
    else if (!task_run(d->app, argv, NULL, 0, &back_ops, d, &e))
        end_job(d, e.text);
}

static const struct task_ops ops = {.done = on_done};

static void put_in_force(struct form *f)
{
    struct err e = {0};
    const char *argv[ARGV_MAX];
    struct applied *d = f->job ? NULL : calloc(1, sizeof *d);
    struct app *a = f->pane.app;
    if (!d)
        return;
    d->app = a;
    d->form = f;
    d->wanted = f->wanted;
    d->deny = f->deny;
    sentence(f, d->text, sizeof d->text);
    if (f->back && can_go_back(f) && !edits(f)) {
        snprintf(d->back_scope, sizeof d->back_scope, "%s", f->now.origin == RULE_GLOBAL ? "-g" : f->wanted.box);
        snprintf(d->back_id, sizeof d->back_id, "%s", f->now.id);
    }
    f->why[0] = '\0';
    f->job = d;
    f->began_ms = app_now_ms();
    build(f, argv);
    if (!task_run(a, argv, NULL, 0, &ops, d, &e))
        end_job(d, e.text);
    else
        app_redraw(a, false);
}

static bool shown(const struct form *f, enum field i)
{
    return i != F_BACK || can_go_back(f);
}

static void go(struct form *f, int step)
{
    do
        f->at = (enum field)(((int)f->at + FIELDS + step) % FIELDS);
    while (!shown(f, f->at));
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
        f->global = !f->global || f->gone;
        break;
    case F_LIFE:
        f->life = (f->life + LIVES + (unsigned)by) % LIVES;
        break;
    case F_BACK:
        f->back = !f->back;
        break;
    default:
        f->at = f->at == F_APPLY ? F_CANCEL : F_APPLY;
        break;
    }
    f->why[0] = '\0';
    if (f->life == LIFE_ONCE && !once_fits(f))
        f->life = f->at == F_LIFE && by < 0 ? LIFE_GOOD : LIFE_HOUR;
    app_redraw(f->pane.app, false); /* it may need more rows */
}

static bool action(struct pane *p, const char *what)
{
    struct form *f = self(p);
    const char *name = strchr(what, '.') ? strchr(what, '.') + 1 : what;
    bool leaves = strcmp(name, "cancel") == 0 || strcmp(name, "close") == 0;
    if (f->job && !leaves)
        return strncmp(what, "rule.", 5) == 0;
    if (strcmp(name, "next") == 0 || strcmp(name, "down") == 0)
        go(f, 1);
    else if (strcmp(name, "previous") == 0 || strcmp(name, "up") == 0)
        go(f, -1);
    else if (strcmp(name, "left") == 0)
        turn(f, -1);
    else if (strcmp(name, "right") == 0)
        turn(f, 1);
    else if (leaves) {
        app_pop(p->app, p);
        return true;
    } else if (strcmp(name, "submit") == 0 || (strcmp(name, "accept") == 0 && f->at != F_CANCEL)) {
        put_in_force(f);
        return true;
    } else if (strcmp(name, "accept") == 0) {
        app_pop(p->app, p);
        return true;
    } else
        return false;
    pane_dirty(p);
    return true;
}

/* Its keys are data, in the context "rule"; no other does anything. */
static bool key(struct pane *p, const struct input *in)
{
    (void)p;
    (void)in;
    return true;
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct form *f = self(p);
    if (f->job && in->y != f->row_of[F_APPLY])
        return true;
    if (in->mouse == MOUSE_WHEEL && (in->button == -1 || in->button == 1)) { /* as in every form */
        go(f, in->button);
        pane_dirty(p);
    }
    if (in->mouse != MOUSE_PRESS || in->button != 1)
        return true;
    for (enum field i = F_ACTION; i <= F_BACK; i++)
        if (shown(f, i) && in->y == f->row_of[i]) {
            f->at = i;
            if (in->x >= 13)
                turn(f, in->x == 13 ? -1 : 1);
            pane_dirty(p);
            return true;
        }
    if (in->y == f->row_of[F_APPLY]) {
        if (in->x >= f->button_x[0] && in->x < f->button_x[1] - 2)
            app_pop(p->app, p);
        else if (in->x >= f->button_x[1] && in->x < f->button_x[1] + 16)
            put_in_force(f);
        return true;
    }
    return true;
}

static bool idle(struct pane *p, const char *what)
{
    return self(p)->job && strcmp(what, "rule.cancel") != 0;
}

static void tick(struct pane *p)
{
    if (self(p)->job)
        pane_dirty(p);
}

static void form_free(struct pane *p)
{
    if (self(p)->job) /* it goes on */
        self(p)->job->form = NULL;
    free(p);
}

static const struct pane_class class = {.name = "rule", .modal = true, .draw = draw, .key = key, .action = action, .mouse = mouse,
                                        .title = title, .want = want, .idle = idle, .tick = tick, .free = form_free};

/* Where a rule for the host alone would change nothing: it is allowed, and was refused for its address, or for what is
 * spoken there.  A rule for host and port opens both. */
static bool needs_port(const struct form *f, const struct netlog_row *row)
{
    return !f->deny && strcmp(row->verdict, "deny") == 0 && f->now.allow && !f->now.exact && (strcmp(row->kind, "deny") == 0 || f->spoken);
}

/* It spoke to another name than it asked for, or spoke what cannot be judged: the broker said whether a rule helps. */
static const char *never(const struct netlog_row *row, bool deny)
{
    const char *why = netlog_no_rule(row);
    struct netlog_more more;
    if (why || deny || strcmp(row->kind, "mismatch") != 0)
        return why;
    netlog_look_up(row, &more);
    return strstr(more.reason, "to let it through as it is") ? NULL
                                                             : "its host is allowed, but not what it spoke there: no rule lets that through (Enter shows the reason)";
}

struct pane *netlog_form_new(struct app *a, const struct netlog_row *row, bool deny)
{
    struct netlog_target targets[NETLOG_TARGETS_MAX];
    const char *why = never(row, deny), *blank = strchr(row->request, ' ');
    unsigned n = why ? 0 : netlog_targets(row, targets);
    struct form *f = n ? calloc(1, sizeof *f) : NULL;
    if (!f) {
        app_say(a, SAY_WARN, "%s", why ? why : "this row names no host that a rule could speak of");
        return NULL;
    }
    const struct box *b = model_find(app_model(a), row->box);
    f->pane.class = &class;
    f->pane.app = a;
    f->deny = deny;
    f->life = LIFE_GOOD;
    f->at = F_TARGET;
    memcpy(f->targets, targets, sizeof targets);
    f->ntargets = n;
    f->gone = f->global = b == NULL;
    f->runs = b && model_running(b);
    snprintf(f->wanted.box, sizeof f->wanted.box, "%s", row->box);
    snprintf(f->wanted.host, sizeof f->wanted.host, "%.263s", row->host);
    f->wanted.port = (uint16_t)(row->port && strcmp(row->proto, "dns") != 0 ? row->port : 443);
    if (blank && blank[1] == '/' && strlen(blank + 1) < sizeof f->wanted.path) {
        snprintf(f->wanted.method, sizeof f->wanted.method, "%.*s", (int)(blank - row->request), row->request);
        snprintf(f->wanted.path, sizeof f->wanted.path, "%s", blank + 1);
    }
    decide(&f->wanted, &f->now);
    /* A rule for all is not taken back for one by a mere Enter. */
    f->back = f->now.whole && f->now.origin == (f->global ? RULE_GLOBAL : RULE_SANDBOX);
    f->spoken = strcmp(row->kind, "mismatch") == 0;
    f->inner = needs_port(f, row);
    for (unsigned i = 0; i < n && f->inner; i++)
        if (strcmp(targets[i].what, "this host and port") == 0)
            f->target = i;
    return &f->pane;
}
