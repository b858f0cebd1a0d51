/* The command that runs for a form which was submitted.
 *
 * Theory of operation.  What only the command can find (a name that was taken meanwhile, a folder that vanished, a locked
 * store) belongs into the form, beside what was typed: so the form waits for the command's end, takes nothing meanwhile but
 * that it is left, and goes when it was good.  Nobody is held up by a command that may take long (`lasts`): its form goes as
 * soon as there is progress, since then the input was taken, or after PATIENCE_MS.  If it fails nevertheless the form is
 * brought back with all that was typed; but not under the fingers of somebody who does something else by now: then it is
 * kept until it is asked for again.  A form with a secret never is: its value goes with the form. */
#include <ctype.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ui/dash/form_int.h"
#include "ui/dash/keymap.h"
#include "ui/dash/paint.h"
#include "ui/dash/task.h"

#define PATIENCE_MS 1500
#define QUIET_MS 150 /* before it is shown that something is under way: most are done by then */
#define STEP_MS 120
#define RELEASE_MS 300 /* the button that pressed "Start" is let go */
#define KEPT_MAX 4u

struct form_work {
    struct app *app;
    struct form *form; /* NULL: it was left */
    struct form_run run; /* its argv, input and box are the caller's, and gone */
    struct task *task;
    struct event *timer;
    char box[RECORD_NAME_MAX + 1], doing[200];
    int64_t began_ms, aside_ms;
    unsigned overlays; /* that there were when it was put aside */
    bool aside;
    void *arg; /* of a form that was left */
    void (*drop)(void *arg);
};

static struct form *kept[KEPT_MAX];

static void throw_away(struct form *f)
{
    f->pane.class->free(&f->pane);
}

void form_keep(struct pane *p, const char *action, const char *of)
{
    if (p)
        snprintf(((struct form *)p)->key, FORM_KEY_MAX, "%s %s", action, of);
}

struct pane *form_kept(const char *action, const char *of)
{
    char key[FORM_KEY_MAX];
    snprintf(key, sizeof key, "%s %s", action, of);
    for (size_t i = 0; i < KEPT_MAX; i++)
        if (kept[i] && strcmp(kept[i]->key, key) == 0) {
            struct form *f = kept[i];
            kept[i] = NULL;
            return &f->pane;
        }
    return NULL;
}

static void keep(struct form *f)
{
    struct pane *old;
    size_t i = 0;
    char action[FORM_KEY_MAX];
    snprintf(action, sizeof action, "%.*s", (int)strcspn(f->key, " "), f->key);
    if ((old = form_kept(action, f->key + strlen(action) + 1)))
        throw_away((struct form *)old);
    while (i < KEPT_MAX - 1 && kept[i])
        i++;
    if (kept[i])
        throw_away(kept[i]);
    kept[i] = f;
}

/* ---- which field is at fault ---- */

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '/';
}

/* Does a sentence name it, and not merely a longer word? */
static bool names(const char *sentence, const char *value)
{
    size_t n = strlen(value);
    for (const char *p = sentence; n > 1 && (p = strstr(p, value)); p++) {
        const char *end = p + n + (p[n] == '/');
        if ((p == sentence || !is_word(p[-1])) && !is_word(*end) && !(*end == '.' && is_word(end[1])))
            return true;
    }
    return false;
}

int form_fault(const struct form *f, const char *sentence)
{
    size_t longest = 0;
    int at = -1;
    for (unsigned i = 0; i < f->n; i++) {
        const struct field *x = &f->f[i];
        const char *rest = x->value;
        char one[FORM_VALUE_MAX], full[FORM_VALUE_MAX + 256];
        if (x->spec.kind == FORM_SECRET || x->spec.kind > FORM_PATHS)
            continue;
        bool paths = x->spec.kind == FORM_PATHS;
        snprintf(one, sizeof one, "%s", x->value);
        while (paths ? form_next_path(&rest, one, sizeof one) : rest != NULL) {
            size_t n = strlen(one);
            if (n > 1 && one[n - 1] == '/')
                one[--n] = '\0';
            form_expand(one, full, sizeof full);
            if (n > longest && (names(sentence, one) || names(sentence, full))) {
                longest = n;
                at = (int)i;
            }
            rest = paths ? rest : NULL;
        }
    }
    return at;
}

/* ---- the command ---- */

static void stop_timer(struct form_work *w)
{
    if (w->timer)
        event_free(w->timer);
    w->timer = NULL;
}

static void put_aside(struct form_work *w)
{
    stop_timer(w);
    w->aside = true;
    w->aside_ms = app_now_ms();
    app_take(w->app, &w->form->pane);
    w->overlays = app_overlays(w->app);
}

static void on_step(evutil_socket_t fd, short what, void *arg)
{
    struct form_work *w = arg;
    (void)fd;
    (void)what;
    if (w->run.lasts && !w->form->closed && app_now_ms() - w->began_ms >= PATIENCE_MS)
        put_aside(w);
    else
        pane_dirty(&w->form->pane);
}

static void on_progress(double fraction, const char *text, void *arg)
{
    struct form_work *w = arg;
    snprintf(w->doing, sizeof w->doing, "%s", text);
    if (w->box[0])
        task_box_progress(w->app, w->box, fraction, text);
    if (w->run.progress)
        w->run.progress(w->app, fraction, text);
    if (w->form && !w->form->closed && !w->aside && w->run.lasts)
        put_aside(w);
}

static void come_back(struct form_work *w, struct form *f, const char *error)
{
    char key[24] = "", action[FORM_KEY_MAX];
    snprintf(action, sizeof action, "%.*s", (int)strcspn(f->key, " "), f->key);
    if (!f->key[0] || (w->run.worth && !w->run.worth(w->app, f->arg))) {
        app_say(w->app, SAY_ERROR, "%s", error);
        throw_away(f);
    } else if (app_typed_ms(w->app) <= w->aside_ms + RELEASE_MS && app_overlays(w->app) == w->overlays) {
        app_push(w->app, &f->pane);
        form_fails(f, error);
    } else {
        keymap_key_of(app_keys(w->app), "sandboxes", action, key, sizeof key);
        app_say(w->app, SAY_ERROR, key[0] ? "%s (%s shows the form again)" : "%s", error, key);
        form_fails(f, error);
        keep(f);
    }
}

static void on_done(const struct task_end *end, void *arg)
{
    struct form_work *w = arg;
    struct form *f = w->form;
    bool good = w->run.good ? w->run.good(end) : end->status == 0;
    const char *error = end->error[0] ? end->error : "it failed";
    void *job = f ? f->arg : w->arg;
    stop_timer(w);
    if (w->box[0])
        task_box_end(w->app, w->box);
    if (f)
        f->work = NULL;
    if (f && good && !w->aside)
        form_close(f); /* freed when the loop comes round */
    if (w->run.ended)
        w->run.ended(w->app, end, good, job);
    if (f && good && w->aside)
        throw_away(f);
    else if (f && !good && w->aside)
        come_back(w, f, error);
    else if (!good && f && !f->closed)
        form_fails(f, error);
    else if (!good) /* it was left */
        app_say(w->app, SAY_ERROR, "%s", error);
    if (w->drop)
        w->drop(w->arg);
    app_bars_dirty(w->app);
    free(w);
}

static const struct task_ops ops = {.progress = on_progress, .done = on_done};

void form_work_left(struct form_work *w)
{
    stop_timer(w);
    w->arg = w->form->arg;
    w->drop = w->form->drop;
    w->form = NULL;
    if (!w->run.asks)
        return;
    task_cancel(w->task);
    task_forget(w->task);
    if (w->drop)
        w->drop(w->arg);
    free(w);
}

bool form_work_says(const struct form *f, char *out, size_t cap)
{
    const struct form_work *w = f->work;
    char leave[24];
    if (!w || app_now_ms() - w->began_ms < QUIET_MS)
        return false;
    keymap_key_of(app_keys(w->app), "form", "form.cancel", leave, sizeof leave);
    snprintf(out, cap, "%s %s; %s leaves%s", paint_spinner(), w->doing[0] ? w->doing : "at work", leave, w->run.asks ? "" : ", and it goes on");
    return true;
}

enum form_next form_run(struct pane *p, const struct form_run *run, char *why, size_t cap)
{
    static const struct timeval step = {0, STEP_MS * 1000};
    struct form *f = (struct form *)p;
    struct err e = {0};
    if (run->box && !task_box_free(p->app, run->box, why, cap))
        return FORM_STAYS;
    struct form_work *w = calloc(1, sizeof *w);
    if (w)
        w->task = task_run(p->app, run->argv, run->input, run->input ? strlen(run->input) : 0, &ops, w, &e);
    if (!w || !w->task) {
        snprintf(why, cap, "%s", w ? e.text : "out of memory");
        free(w);
        return FORM_STAYS;
    }
    w->app = p->app;
    w->form = f;
    w->run = *run;
    w->run.argv = NULL;
    w->run.input = w->run.box = w->run.doing = NULL;
    w->began_ms = app_now_ms();
    snprintf(w->box, sizeof w->box, "%s", run->box ? run->box : "");
    if (run->box)
        task_box_begin(p->app, run->box, w->task, run->doing);
    w->timer = event_new(app_base(p->app), -1, EV_PERSIST, on_step, w);
    event_add(w->timer, &step);
    f->work = w;
    return FORM_WORKS;
}
