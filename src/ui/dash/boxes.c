/* The sandbox pane: a card for each, those that need the user first. */
#include "ui/dash/boxes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "core/sanitize.h"
#include "ui/cli/branch.h"
#include "ui/dash/about.h"
#include "ui/dash/app_int.h"
#include "ui/dash/conn.h"
#include "ui/dash/edit.h"
#include "ui/dash/form.h"
#include "ui/dash/model.h"
#include "ui/dash/paint.h"
#include "ui/dash/screen.h"
#include "ui/dash/task.h"
#include "ui/dash/text.h"
#include "ui/session.h"

enum order { BY_NEED, BY_NAME, BY_CPU, BY_MEMORY, BY_AGE, ORDERS };
static const char *const order_names[] = {"need", "name", "cpu", "memory", "age"};

struct boxes {
    struct pane pane;
    char filter[64];
    bool typing, on_bar;
    enum order order;
    unsigned first, at; /* at: where the selected one was when it was seen last */
    char (*shown)[RECORD_NAME_MAX + 1]; /* in order */
    unsigned n;
};

static int rank(const struct box *b)
{
    if (b->wants == WANTS_INPUT)
        return 0;
    if (b->life == LIFE_FAILED || b->wants == WANTS_LOOK || b->trouble[0])
        return 1;
    if (b->task || b->installs || b->life == LIFE_STARTING || b->life == LIFE_STOPPING || b->life == LIFE_CREATING)
        return 2;
    return b->life == LIFE_RUNNING ? 3 : 4;
}

static const struct app *sorting; /* qsort has no argument */
static enum order sorting_by;

static int compare(const void *pa, const void *pb)
{
    const struct box *a = model_find(sorting->model, pa), *b = model_find(sorting->model, pb);
    double d = 0;
    if (sorting_by == BY_NEED)
        d = rank(a) - rank(b);
    else if (sorting_by == BY_CPU)
        d = b->cpu - a->cpu;
    else if (sorting_by == BY_MEMORY)
        d = (double)(b->mem_kib - a->mem_kib);
    else if (sorting_by == BY_AGE)
        d = (double)(b->created - a->created);
    return d < 0 ? -1 : d > 0 ? 1 : strcmp(a->name, b->name);
}

static bool passes(const struct boxes *p, const struct box *b)
{
    return !p->filter[0] || strcasestr(b->name, p->filter) || strcasestr(b->agent, p->filter) || strcasestr(box_state_word(b), p->filter) ||
           (b->folder && strcasestr(b->folder, p->filter)) || strcasestr(b->branch, p->filter);
}

static int at_of(const struct boxes *p, const char *name)
{
    for (unsigned i = 0; i < p->n; i++)
        if (strcmp(p->shown[i], name) == 0)
            return (int)i;
    return -1;
}

static void gather(struct boxes *p)
{
    struct app *a = p->pane.app;
    unsigned all = model_count(a->model);
    void *grown = realloc(p->shown, (all + 1) * sizeof *p->shown);
    if (!grown)
        return;
    p->shown = grown;
    p->n = 0;
    for (unsigned i = 0; i < all; i++) {
        const struct box *b = model_at(a->model, i);
        if (passes(p, b))
            memcpy(p->shown[p->n++], b->name, sizeof b->name);
    }
    sorting = a;
    sorting_by = p->order;
    qsort(p->shown, p->n, sizeof *p->shown, compare);
    int at = at_of(p, a->box);
    const struct box *b = app_box(a);
    if (at >= 0) {
        if (!b || !b->task) /* what is busy stands elsewhere meanwhile */
            p->at = (unsigned)at;
    } else if (p->n && (a->box[0] || a->focus != AREA_TERMINAL)) {
        /* Where one was removed, its neighbour, but not below the hands of who types in it; where the filter hides it, the
         * first that it shows. */
        unsigned next = a->box[0] ? 0 : p->at < p->n ? p->at : p->n - 1;
        app_select_box(a, p->shown[next]);
        p->at = next;
    }
}

static enum style state_style(const struct box *b)
{
    if (b->wants == WANTS_INPUT)
        return ST_WAITING;
    if (b->task)
        return ST_BUSY;
    if (b->paused && b->life == LIFE_RUNNING)
        return ST_FAILED;
    switch (b->life) {
    case LIFE_RUNNING:
        return b->installs ? ST_BUSY : ST_RUNNING;
    case LIFE_FAILED:
        return ST_FAILED;
    case LIFE_STOPPED:
        return ST_STOPPED;
    default:
        return ST_BUSY;
    }
}

static const char *glyph(const struct box *b)
{
    if (b->wants == WANTS_INPUT)
        return app_glyph("◆", "!");
    if (b->task || (b->installs && b->life == LIFE_RUNNING))
        return paint_spinner();
    if (b->paused && b->life == LIFE_RUNNING)
        return app_glyph("‖", "=");
    switch (b->life) {
    case LIFE_RUNNING:
        return app_glyph("●", "*");
    case LIFE_FAILED:
        return app_glyph("✗", "x");
    case LIFE_STOPPED:
        return app_glyph("○", "o");
    default:
        return paint_spinner();
    }
}

static void sparkline(const struct box *b, int n, char *out, size_t cap)
{
    static const char *const fancy[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}, *const plain[] = {"_", ".", ".", "-", "-", "=", "=", "#"};
    const char *const *bars = screen_utf8() ? fancy : plain;
    size_t used = 0;
    out[0] = '\0';
    for (int i = 32 - n; i < 32 && used + 4 < cap; i++) {
        int v = b->cpu_hist[i];
        if (v < 0)
            continue;
        int k = v * 8 / 100;
        used += (size_t)snprintf(out + used, cap - used, "%s", bars[k > 7 ? 7 : k]);
    }
}

/* What is to be told of it rather than where it works; NULL: nothing. */
static const char *what_it_says(const struct box *b, enum style *s)
{
    if (b->wants == WANTS_INPUT && b->why[0]) {
        *s = ST_WARN;
        return b->why;
    }
    if (b->life == LIFE_RUNNING && b->trouble[0]) {
        *s = ST_WARN;
        return b->trouble;
    }
    *s = ST_FAILED;
    if (b->life == LIFE_FAILED && b->reason[0]) /* all of it: why has less room */
        return b->reason;
    return b->wants != WANTS_NOTHING && b->why[0] ? b->why : NULL;
}

/* "43% 760 MiB"; short where the pane is narrow. */
static void takes_text(const struct boxes *p, const struct box *b, char *out, size_t cap)
{
    char mem[24];
    out[0] = '\0';
    if (b->life != LIFE_RUNNING || !b->mem_kib)
        return;
    if (p->pane.cols < 34)
        snprintf(mem, sizeof mem, b->mem_kib < 1024 * 1000 ? "%.0fM" : "%.1fG", (double)b->mem_kib / (b->mem_kib < 1024 * 1000 ? 1024 : 1024 * 1024));
    else
        paint_kib(b->mem_kib, mem, sizeof mem);
    snprintf(out, cap, "%.0f%% %s", b->cpu < 0 ? 0 : b->cpu, mem);
}

/* How long it runs, or how long ago it did. */
static void uptime_text(const struct box *b, char *out, size_t cap)
{
    long long ago = (long long)time(NULL) - b->since;
    out[0] = '\0';
    if (b->life == LIFE_RUNNING)
        paint_span((b->uptime_ms + app_now_ms() - b->uptime_at_ms) / 1000, out, cap);
    else if (b->life == LIFE_STOPPED && !b->since)
        snprintf(out, cap, "never ran");
    else if (b->life == LIFE_STOPPED && ago >= 60)
        snprintf(out, cap, ago < 3600 ? "%lldm ago" : ago < 86400 ? "%lldh ago" : "%lldd ago", ago < 3600 ? ago / 60 : ago < 86400 ? ago / 3600 : ago / 86400);
}

/* Its processor's history and what it takes; at the end what was blocked, and before that its ports, if there is room. */
static void draw_takes(struct boxes *p, WINDOW *w, int y, const struct box *b)
{
    int x = 3, end = p->pane.cols - 1;
    char text[160], figure[64];
    takes_text(p, b, figure, sizeof figure);
    if (b->life == LIFE_RUNNING && screen_spark(p)) {
        int n = p->pane.cols >= 34 ? 12 : 6;
        sparkline(b, n, text, sizeof text);
        x += paint_text(w, y, x, n, ST_BAR, text) + 1;
        x += paint_text(w, y, x, end - x, ST_DIM, figure) + 2;
    }
    if (b->blocked) {
        snprintf(text, sizeof text, "%s %lld blocked", app_glyph("⊘", "#"), (long long)b->blocked);
        if (paint_width(text) > end - x)
            snprintf(text, sizeof text, "%s %lld", app_glyph("⊘", "#"), (long long)b->blocked);
        end = paint_right(w, y, end, end - x > 0 ? end - x : 0, ST_DENY, text) - 2;
    }
    snprintf(text, sizeof text, "%s %s", app_glyph("⇄", "ports"), b->ports);
    if (b->ports[0] && end - x >= 6)
        paint_right(w, y, end, end - x, ST_DIM, text);
}

static void draw_card(struct boxes *p, WINDOW *w, int y, int rows, const struct box *b, bool on, bool focus)
{
    int cols = p->pane.cols, x = 1;
    char state[160], text[256], figure[64];
    bool up = b->life == LIFE_RUNNING;
    if (b->emulated && up)
        snprintf(state, sizeof state, "%s %s", box_state_word(b), app_glyph("⚠", "emu"));
    else
        snprintf(state, sizeof state, "%s", b->task && b->doing[0] ? b->doing : box_state_word(b));
    if (b->marked)
        paint_text(w, y, 0, 1, ST_MARKED, app_glyph("✓", "+"));
    int sx = paint_right(w, y, cols - 1, cols / 2, state_style(b), state);
    x += paint_text(w, y, x, 2, state_style(b), glyph(b)) + 1;
    int named = paint_text(w, y, x, sx - x - 1, b->marked ? ST_MARKED : up || on ? ST_STRONG : ST_TEXT, b->name);
    if (rows < 2 && sx - x - named > paint_width(b->agent) + 3) /* no other line has room for it */
        paint_right(w, y, sx - 2, 24, ST_DIM, b->agent);
    if (on)
        paint_row(w, y, 0, cols, focus ? ST_SELECTED : ST_SELECTED_OFF);
    for (int i = 1; on && i < rows; i++)
        paint_text(w, y + i, 0, 1, focus ? ST_ACCENT : ST_DIM, app_glyph("▎", "|"));
    if (rows < 2)
        return;
    enum style said = ST_FAILED;
    const char *says = b->task && b->fraction >= 0 ? NULL : what_it_says(b, &said);
    bool more = says && rows >= 4 && paint_width(says) > cols - 5; /* than a line of it: the rest stands where its history would */
    /* agent, branch; since when it runs, or what it takes if there is no other line for that */
    if (rows < 4 || more)
        takes_text(p, b, figure, sizeof figure);
    else
        uptime_text(b, figure, sizeof figure);
    snprintf(text, sizeof text, "%s%s%s", b->emulated && up && cols >= 40 ? "emulated" : "", b->emulated && up && cols >= 40 && figure[0] ? "  " : "", figure);
    int fx = paint_right(w, y + 1, cols - 1, cols / 2, ST_DIM, text);
    snprintf(text, sizeof text, "%s%s%s", b->agent, b->branch[0] ? app_glyph(" ⎇ ", " @") : "", b->branch);
    paint_text(w, y + 1, 3, fx - 4, up ? ST_ACCENT : ST_DIM, text);
    if (rows < 3)
        return;
    if (b->task && b->fraction >= 0) {
        paint_bar(w, y + 2, 3, cols - 5, b->fraction);
    } else if (more) {
        figure[0] = '\0';
        if (b->blocked) {
            snprintf(figure, sizeof figure, "%s %lld", app_glyph("⊘", "#"), (long long)b->blocked);
            paint_right(w, y + 3, cols - 1, 12, ST_DENY, figure);
        }
        const char *rest = says + paint_line(says, cols - 5);
        paint_f(w, y + 2, 3, cols - 5, said, "%.*s", (int)(rest - says), says);
        rest += strspn(rest, " ");
        paint_text(w, y + 3, 3, cols - 5 - (b->blocked ? paint_width(figure) + 1 : 0), said, rest);
        return;
    } else if (says) {
        paint_text(w, y + 2, 3, cols - 5, said, says);
    } else {
        figure[0] = '\0';
        if (rows < 4)
            uptime_text(b, figure, sizeof figure);
        fx = figure[0] ? paint_right(w, y + 2, cols - 1, 16, ST_DIM, figure) : cols;
        if (b->installs)
            snprintf(text, sizeof text, "once, for all its sandboxes");
        else
            paint_path(b->folder ? b->folder : "no folder", text, sizeof text, fx - 5);
        paint_text(w, y + 2, 3, fx - 4, ST_DIM, text);
    }
    if (rows >= 4)
        draw_takes(p, w, y + 3, b);
}

static int card_rows(const struct boxes *p)
{
    int room = p->pane.rows - (p->typing || p->filter[0] ? 1 : 0);
    if (p->n == 0)
        return 1;
    int each = room / (int)p->n;
    return each >= 5 ? 5 : each >= 4 ? 4 : each >= 3 ? 3 : p->n * 3 > 3u * (unsigned)room ? 1 : each >= 2 ? 2 : 1;
}

static void draw(struct pane *pane, WINDOW *w, bool focus)
{
    struct boxes *p = (struct boxes *)pane;
    struct app *a = pane->app;
    gather(p);
    int top = 0, rows = card_rows(p), gap = rows == 5 ? 1 : 0;
    if (p->typing || p->filter[0]) {
        int x = paint_text(w, 0, 1, 2, ST_ACCENT, "/") + 1;
        paint_text(w, 0, x, pane->cols - x - 1, ST_FIELD_ON, p->filter[0] ? p->filter : " ");
        top = 1;
    }
    if (p->n == 0) {
        bool any = model_count(a->model) > 0;
        paint_centre(w, pane->rows / 2 - 1, pane->cols, ST_STRONG, any ? "no sandbox matches" : "no sandboxes yet");
        paint_centre(w, pane->rows / 2, pane->cols, ST_DIM, any ? "Esc clears the filter" : "c creates one");
        return;
    }
    int fit = (pane->rows - top) / rows, at = at_of(p, a->box);
    if (fit < 1)
        fit = 1;
    if (at >= 0 && (unsigned)at < p->first)
        p->first = (unsigned)at;
    if (at >= (int)p->first + fit)
        p->first = (unsigned)(at - fit + 1);
    if (p->first + (unsigned)fit > p->n)
        p->first = p->n > (unsigned)fit ? p->n - (unsigned)fit : 0;
    for (int i = 0; i < fit && p->first + (unsigned)i < p->n; i++) {
        const struct box *b = model_find(a->model, p->shown[p->first + (unsigned)i]);
        if (b)
            draw_card(p, w, top + i * rows, rows - gap, b, (int)p->first + i == at, focus);
    }
    paint_scroll(w, top, pane->rows - top, (long)p->first, fit, (long)p->n, focus ? ST_FRAME_ON : ST_FRAME);
}

bool screen_spark(const struct boxes *p)
{
    return p->pane.cols >= 24;
}

/* ---- actions ---- */

static void shift_to(struct boxes *p, int by)
{
    struct app *a = p->pane.app;
    gather(p);
    if (!p->n)
        return;
    int at = at_of(p, a->box) + by;
    at = at < 0 ? 0 : at >= (int)p->n ? (int)p->n - 1 : at;
    app_select_box(a, p->shown[at]);
    pane_dirty(&p->pane);
}

/* The marked ones that can be seen, or the one under the cursor. */
static unsigned targets(struct boxes *p, struct box **out, unsigned cap)
{
    struct app *a = p->pane.app;
    unsigned n = 0;
    for (unsigned i = 0; i < model_count(a->model) && n < cap; i++)
        if (model_at(a->model, i)->marked && passes(p, model_at(a->model, i)))
            out[n++] = model_at(a->model, i);
    if (n == 0 && app_box(a))
        out[n++] = app_box(a);
    return n;
}

static void opened(struct app *a, const char *box, const char *out)
{
    struct box *b = model_find(app_model(a), box);
    (void)out;
    app_select_box(a, box);
    if (b)
        app_open_session(a, b, 0);
}

static void shell_opened(struct app *a, const char *box, const char *out)
{
    struct box *b = model_find(app_model(a), box);
    if (b && out)
        app_open_session(a, b, atoi(out));
}

static bool has_agent(const struct box *b)
{
    size_t i;
    json_t *s;
    json_array_foreach(json_object_get(b->status, "sessions"), i, s)
        if (session_is_live(s) && json_is_true(json_object_get(s, "agent")))
            return true;
    return false;
}

static void attach(struct app *a, struct box *b)
{
    model_seen(app_model(a), b);
    if (model_running(b) && has_agent(b)) {
        app_open_session(a, b, 0);
        return;
    }
    const char *argv[] = {"run", "--detach", "--name", b->name, NULL};
    task_box(a, b->name, "start", argv, opened);
}

struct names {
    unsigned n;
    char v[256][RECORD_NAME_MAX + 1];
};

static struct names *names_of(struct box **all, unsigned n)
{
    struct names *names = n ? calloc(1, sizeof *names) : NULL;
    for (unsigned i = 0; names && i < n; i++)
        memcpy(names->v[names->n++], all[i]->name, sizeof names->v[0]);
    return names;
}

/* What runs in a sandbox's sessions, for people: "claude, 2 x bash"; how many sessions there are. */
static unsigned at_work(const struct box *b, char *out, size_t cap)
{
    struct {
        char name[32];
        unsigned n;
    } kinds[4];
    unsigned n = 0, nkinds = 0, others = 0;
    size_t i, used = 0;
    json_t *s;
    out[0] = '\0';
    json_array_foreach(json_object_get(b->status, "sessions"), i, s) {
        json_t *command = json_object_get(s, "command");
        const char *word = json_is_array(command) ? json_string_value(json_array_get(command, 0)) : json_string_value(command);
        char name[32];
        if (!session_is_live(s))
            continue;
        const char *slash = word ? strrchr(word, '/') : NULL;
        word = slash ? slash + 1 : word ? word : "?";
        sanitize_line(name, sizeof name, word, strcspn(word, " "));
        n++;
        unsigned k = 0;
        while (k < nkinds && strcmp(kinds[k].name, name) != 0)
            k++;
        if (k < nkinds) {
            kinds[k].n++;
        } else if (nkinds < 4) {
            memcpy(kinds[nkinds].name, name, sizeof name);
            kinds[nkinds++].n = 1;
        } else {
            others++;
        }
    }
    for (unsigned k = 0; k < nkinds && used < cap; k++)
        used += (size_t)(kinds[k].n > 1 ? snprintf(out + used, cap - used, "%s%u x %.24s", k ? ", " : "", kinds[k].n, kinds[k].name)
                                        : snprintf(out + used, cap - used, "%s%.24s", k ? ", " : "", kinds[k].name));
    if (others && used < cap)
        snprintf(out + used, cap - used, " and %u more", others);
    return n;
}

static void stop_them(struct app *a, void *arg)
{
    struct names *names = arg;
    for (unsigned i = 0; i < names->n; i++) {
        const char *argv[] = {"stop", names->v[i], NULL};
        task_box(a, names->v[i], "stop", argv, NULL);
    }
}

/* Starts all, or where some run stops those.  Something can be lost only where something is at work. */
static void toggle(struct boxes *p)
{
    struct app *a = p->pane.app;
    struct box *all[256], *run[256];
    unsigned n = targets(p, all, 256), running = 0, sessions = 0;
    char work[160] = "", one[160], text[600];
    for (unsigned i = 0; i < n; i++) {
        if (all[i]->life != LIFE_RUNNING)
            continue;
        unsigned k = at_work(all[i], one, sizeof one);
        if (k && !sessions)
            snprintf(work, sizeof work, "%s", one);
        sessions += k;
        run[running++] = all[i];
    }
    for (unsigned i = 0; i < n && !running; i++) {
        const char *argv[] = {"start", all[i]->name, NULL};
        task_box(a, all[i]->name, "start", argv, NULL);
    }
    struct names *names = names_of(run, running);
    if (!names)
        return;
    if (!sessions) {
        stop_them(a, names);
        free(names);
        return;
    }
    if (running == 1)
        snprintf(text, sizeof text, "Stop %s? What runs in it ends (%s), and what that has not written down is lost. "
                 "Its disk and your files stay; s starts it again.", run[0]->name, work);
    else
        snprintf(text, sizeof text, "Stop %u sandboxes (%s, %s%s)? What runs in them ends (%u session%s), and what that has not written "
                 "down is lost. Their disks and your files stay; s starts them again.", running, run[0]->name, run[1]->name,
                 running > 2 ? ", …" : "", sessions, sessions == 1 ? "" : "s");
    app_push(a, confirm_new("Stop", text, "Stop", stop_them, names, free));
}

static void remove_them(struct app *a, void *arg)
{
    struct names *names = arg;
    for (unsigned i = 0; i < names->n; i++) {
        const char *argv[] = {"rm", "--force", names->v[i], NULL};
        task_box(a, names->v[i], "remove", argv, NULL);
    }
}

static void ask_remove(struct boxes *p)
{
    struct box *all[256];
    unsigned n = targets(p, all, 256), clones = 0;
    struct names *names = names_of(all, n);
    char text[900], work[160] = "", more[300] = "";
    const char *clone = NULL;
    if (!names)
        return;
    for (unsigned i = 0; i < n; i++)
        if (branch_is_clone(all[i]->name)) {
            clone = clones++ ? clone : all[i]->name;
        }
    if (clone && n == 1)
        snprintf(more, sizeof more, " It works on a clone of its own: commits that you have not fetched (git fetch sbx-%s) are LOST.", clone);
    else if (clone)
        snprintf(more, sizeof more, " %u of them work%s on a clone: commits that you have not fetched (git fetch sbx-%s%s) are LOST.", clones,
                 clones == 1 ? "s" : "", clone, clones > 1 ? ", …" : "");
    if (n == 1 && all[0]->installs)
        snprintf(text, sizeof text, "Stop the installation of %s? What it has so far is thrown away, and the sandbox that waits for it is not made.",
                 all[0]->agent);
    else if (n == 1 && all[0]->life == LIFE_RUNNING && at_work(all[0], work, sizeof work))
        snprintf(text, sizeof text, "Remove %s? What runs in it ends (%s). Its machine goes, with the packages, images and files that live "
                 "in it alone.%s ", all[0]->name, work, more);
    else if (n == 1)
        snprintf(text, sizeof text, "Remove %s? Its machine goes%s, with the packages, images and files that live in it alone.%s ", all[0]->name,
                 all[0]->life == LIFE_RUNNING ? " (it runs and is stopped first)" : "", more);
    else
        snprintf(text, sizeof text, "Remove %u sandboxes (%s, %s%s)? Their machines go, with the packages, images and files that live in "
                 "them alone.%s Your folders stay as they are.", n, all[0]->name, all[1]->name, n > 2 ? ", …" : "", more);
    if (n == 1 && all[0]->folder)
        snprintf(text + strlen(text), sizeof text - strlen(text), "What is in %.300s stays as it is.", all[0]->folder);
    bool install = n == 1 && all[0]->installs;
    app_push(p->pane.app, confirm_new(install ? "Stop an installation" : "Remove", text, install ? "Stop it" : "Remove", remove_them, names, free));
}

struct asked {
    struct app *app;
    char box[RECORD_NAME_MAX + 1];
    bool about; /* else its console */
};

static void show_answer(const struct task_end *end, void *arg)
{
    struct asked *q = arg;
    char heading[100], *text = NULL;
    size_t len = 0;
    if (end->status != 0) {
        app_say(q->app, SAY_ERROR, "%s", end->error[0] ? end->error : "it failed");
    } else if (q->about) {
        json_t *o = json_loads(end->out, 0, NULL);
        FILE *f = o ? open_memstream(&text, &len) : NULL;
        if (f) {
            about_write(f, o);
            fclose(f);
        }
        snprintf(heading, sizeof heading, "About %s", q->box);
        app_push(q->app, text_new(heading, text ? text : end->out, false));
        free(text);
        json_decref(o);
    } else {
        snprintf(heading, sizeof heading, "Console of %s", q->box);
        app_push(q->app, text_new(heading, end->out[0] ? end->out : "The machine has printed nothing.", true));
    }
    free(q);
}

static void ask(struct app *a, const struct box *b, bool about)
{
    static const struct task_ops ops = {.done = show_answer};
    const char *argv[] = {about ? "inspect" : "logs", b->name, NULL};
    struct err e = {0};
    struct asked *q = calloc(1, sizeof *q);
    if (!q)
        return;
    q->app = a;
    q->about = about;
    snprintf(q->box, sizeof q->box, "%s", b->name);
    if (!task_run(a, argv, NULL, 0, &ops, q, &e)) {
        app_say(a, SAY_ERROR, "%s", e.text);
        free(q);
    }
}

/* ---- small forms ---- */

static void saved(struct app *a, const struct task_end *end, bool good, void *arg)
{
    (void)end;
    if (good)
        app_say(a, SAY_GOOD, "the disk of %s is kept as a template", (char *)arg);
}

static void run_ended(struct app *a, const struct task_end *end, bool good, void *arg)
{
    const struct names *names = arg;
    if (good)
        shell_opened(a, names->v[0], end->out);
}

static enum form_next submit_exec(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    struct names *names = arg;
    if (!v[0][0]) {
        snprintf(why, cap, "which command?");
        return FORM_STAYS;
    }
    if (names->n == 1) {
        const char *argv[] = {"exec", "-d", "-t", names->v[0], "bash", "-lc", v[0], NULL};
        return form_run(form, &(struct form_run){.argv = argv, .box = names->v[0], .doing = "run", .lasts = true, .ended = run_ended}, why, cap);
    }
    for (unsigned i = 0; i < names->n; i++) {
        const char *argv[] = {"exec", "-d", "-t", names->v[i], "bash", "-lc", v[0], NULL};
        task_box(form->app, names->v[i], "run", argv, NULL);
    }
    app_say(form->app, SAY_INFO, "it runs in %u sandboxes, in a session of each", names->n);
    return FORM_CLOSES;
}

static void copied(struct app *a, const struct task_end *end, bool good, void *arg)
{
    (void)end;
    if (good)
        app_say(a, SAY_GOOD, "the files of %s are copied", (char *)arg);
}

static enum form_next submit_copy(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    static char here[FORM_VALUE_MAX + 256];
    char inside[FORM_VALUE_MAX + 80];
    if (!v[1][0] || !v[2][0]) {
        snprintf(why, cap, "both paths are needed");
        return FORM_STAYS;
    }
    snprintf(inside, sizeof inside, "%s:%s", (char *)arg, v[2]);
    form_expand(v[1], here, sizeof here);
    bool in = strcmp(v[0], "into the sandbox") == 0;
    struct stat st;
    if (in && stat(here, &st) < 0) {
        snprintf(why, cap, "%s: %s", v[1], strerror(errno));
        return FORM_STAYS;
    }
    const char *argv[] = {"cp", in ? here : inside, in ? inside : here, NULL};
    return form_run(form, &(struct form_run){.argv = argv, .box = arg, .doing = "copy", .lasts = true, .ended = copied}, why, cap);
}

/* One name at a time is given: a second form cannot be filled before the first is done. */
static char new_name[RECORD_NAME_MAX + 1];

static void renamed(struct app *a, const struct task_end *end, bool good, void *arg)
{
    (void)end;
    (void)arg;
    if (good && model_find(app_model(a), new_name))
        app_select_box(a, new_name); /* the cursor stays on it */
}

static enum form_next submit_rename(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    struct err e = {0};
    if (record_check_name(v[0], &e) < 0) {
        snprintf(why, cap, "%s", e.text);
        return FORM_STAYS;
    }
    const char *argv[] = {"rename", arg, v[0], NULL};
    snprintf(new_name, sizeof new_name, "%s", v[0]);
    return form_run(form, &(struct form_run){.argv = argv, .box = arg, .doing = "rename", .ended = renamed}, why, cap);
}

static void exec_form(struct boxes *p)
{
    const struct form_spec spec[] = {{.label = "Command", .kind = FORM_TEXT, .hint = "run by bash in a new terminal, which shows what it says"}};
    struct box *all[256];
    struct names *names = names_of(all, targets(p, all, 256));
    char heading[64];
    if (!names)
        return;
    if (names->n > 1)
        snprintf(heading, sizeof heading, "Run a command in %u sandboxes", names->n);
    else
        snprintf(heading, sizeof heading, "Run a command in %.40s", names->v[0]);
    struct pane *form = names->n == 1 ? form_kept("sandbox.exec", names->v[0]) : NULL;
    if (form) {
        free(names);
    } else {
        form = form_new(heading, spec, 1, "Run", submit_exec, names, free);
        form_keep(form, "sandbox.exec", names->v[0]);
    }
    app_push(p->pane.app, form);
}

static bool check_absolute(const char *value, char *why, size_t cap)
{
    if (value[0] == '/')
        return true;
    snprintf(why, cap, "a path in the sandbox begins with /");
    return false;
}

static void copy_form(struct app *a, struct box *b)
{
    const struct form_spec spec[] = {{.label = "Direction", .kind = FORM_CHOICE, .choices = "into the sandbox|out of the sandbox",
                                      .hint = "left and right choose"},
                                     {.label = "Path here", .kind = FORM_PATH, .hint = "a file or a folder on this host; Tab completes"},
                                     {.label = "Path there", .kind = FORM_TEXT, .initial = "/home/agent/", .hint = "in the sandbox", .check = check_absolute}};
    struct pane *form = form_kept("sandbox.copy", b->name);
    if (!form) {
        form = form_new("Copy files", spec, 3, "Copy", submit_copy, strdup(b->name), free);
        form_keep(form, "sandbox.copy", b->name);
    }
    app_push(a, form);
}

static enum form_next submit_template(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    if (!v[0][0]) {
        snprintf(why, cap, "which name shall it get?");
        return FORM_STAYS;
    }
    const char *argv[] = {"template", "save", arg, v[0], NULL};
    return form_run(form, &(struct form_run){.argv = argv, .box = arg, .doing = "save", .lasts = true, .ended = saved}, why, cap);
}

static void template_form(struct app *a, struct box *b)
{
    const struct form_spec spec[] = {{.label = "Template", .kind = FORM_TEXT, .hint = "NAME or NAME:VERSION; a new sandbox can start from it"}};
    struct pane *form;
    if (b->life == LIFE_RUNNING)
        app_say(a, SAY_WARN, "%s runs; stop it to save its disk", b->name);
    else if ((form = form_kept("sandbox.template", b->name)))
        app_push(a, form);
    else {
        form = form_new("Save as a template", spec, 1, "Save", submit_template, strdup(b->name), free);
        form_keep(form, "sandbox.template", b->name);
        app_push(a, form);
    }
}

static void rename_form(struct app *a, struct box *b)
{
    const struct form_spec spec[] = {{.label = "Name", .kind = FORM_TEXT, .initial = b->name, .check = app_check_new_name}};
    if (b->life == LIFE_RUNNING)
        app_say(a, SAY_WARN, "%s runs; stop it to rename it", b->name);
    else
        app_push(a, form_new("Rename", spec, 1, "Rename", submit_rename, strdup(b->name), free));
}

static bool not_while_installing(const char *what)
{
    static const char *const those[] = {"attach", "toggle", "shell", "exec", "rename", "copy", "duplicate", "template"};
    for (size_t i = 0; i < sizeof those / sizeof *those; i++)
        if (strcmp(what + 8, those[i]) == 0)
            return true;
    return false;
}

static bool action(struct pane *pane, const char *what)
{
    struct boxes *p = (struct boxes *)pane;
    struct app *a = pane->app;
    struct box *b = app_box(a);
    int rows = card_rows(p), fit = pane->rows / (rows ? rows : 1);
    if (strcmp(what, "list.up") == 0)
        shift_to(p, -1);
    else if (strcmp(what, "list.down") == 0)
        shift_to(p, 1);
    else if (strcmp(what, "list.pgup") == 0)
        shift_to(p, -fit);
    else if (strcmp(what, "list.pgdn") == 0)
        shift_to(p, fit);
    else if (strcmp(what, "list.top") == 0)
        shift_to(p, -100000);
    else if (strcmp(what, "list.bottom") == 0)
        shift_to(p, 100000);
    else if (strcmp(what, "list.filter") == 0)
        p->typing = true;
    else if (strcmp(what, "sandbox.show") == 0) { /* no filter hides the selected one */
        if (b && !passes(p, b))
            p->filter[0] = '\0';
    } else if (strcmp(what, "sandbox.sort") == 0) {
        p->order = (p->order + 1) % ORDERS;
        app_say(a, SAY_INFO, "sorted by %s", order_names[p->order]);
    } else if (strcmp(what, "sandbox.clear") == 0) {
        p->filter[0] = '\0';
        for (unsigned i = 0; i < model_count(a->model); i++)
            model_at(a->model, i)->marked = false;
    } else if (strcmp(what, "sandbox.mark-all") == 0) {
        bool any = false;
        for (unsigned i = 0; i < p->n; i++)
            any |= model_find(a->model, p->shown[i])->marked;
        for (unsigned i = 0; i < p->n; i++)
            model_find(a->model, p->shown[i])->marked = !any;
    } else if (strncmp(what, "sandbox.", 8) != 0 || strcmp(what, "sandbox.create") == 0)
        return false;
    else if (!b)
        app_say(a, SAY_WARN, "there is no sandbox; c creates one");
    else if (!p->n) /* the selected one is out of sight: no key may reach it */
        app_say(a, SAY_WARN, "the filter hides every sandbox; Esc clears it");
    else if (b->installs && not_while_installing(what)) /* what is written into it, all sandboxes of that agent would have */
        app_say(a, SAY_INFO, "%s is installed in it, and then it goes; r stops that", b->agent);
    else if (strcmp(what, "sandbox.mark") == 0) {
        b->marked = !b->marked;
        shift_to(p, 1);
    } else if (strcmp(what, "sandbox.attach") == 0)
        attach(a, b);
    else if (strcmp(what, "sandbox.toggle") == 0)
        toggle(p);
    else if (strcmp(what, "sandbox.shell") == 0) {
        const char *argv[] = {"exec", "-d", "-t", b->name, "bash", "-l", NULL};
        task_box(a, b->name, "start a shell", argv, shell_opened);
    } else if (strcmp(what, "sandbox.remove") == 0)
        ask_remove(p);
    else if (strcmp(what, "sandbox.exec") == 0)
        exec_form(p);
    else if (strcmp(what, "sandbox.copy") == 0)
        copy_form(a, b);
    else if (strcmp(what, "sandbox.duplicate") == 0)
        app_show_copy(a, b);
    else if (strcmp(what, "sandbox.template") == 0)
        template_form(a, b);
    else if (strcmp(what, "sandbox.rename") == 0)
        rename_form(a, b);
    else if (strcmp(what, "sandbox.inspect") == 0 || strcmp(what, "sandbox.logs") == 0)
        ask(a, b, strcmp(what, "sandbox.inspect") == 0);
    else
        return false;
    pane_dirty(pane);
    return true;
}

static bool key(struct pane *pane, const struct input *in)
{
    struct boxes *p = (struct boxes *)pane;
    if (!p->typing || (in->type != INPUT_KEY && in->type != INPUT_PASTE))
        return false;
    if (in->type == INPUT_KEY && (in->key == K_ENTER || in->key == K_TAB))
        p->typing = false;
    else if (input_leaves(in)) {
        p->typing = false;
        p->filter[0] = '\0';
    } else if (in->type == INPUT_KEY && (in->key == K_UP || in->key == K_DOWN))
        shift_to(p, in->key == K_UP ? -1 : 1);
    else
        edit_tail(p->filter, sizeof p->filter, in);
    gather(p);
    pane_dirty(pane);
    return true;
}

static bool mouse(struct pane *pane, const struct input *in)
{
    struct boxes *p = (struct boxes *)pane;
    struct app *a = pane->app;
    int rows = card_rows(p), top = p->typing || p->filter[0] ? 1 : 0;
    if (in->mouse == MOUSE_WHEEL) {
        if (in->button == 1 || in->button == -1)
            shift_to(p, in->button);
        return true;
    }
    int fit = (pane->rows - top) / rows;
    if (in->mouse == MOUSE_PRESS)
        p->on_bar = in->button == 1 && in->x >= pane->cols - 1 && in->y >= top && p->n > (unsigned)fit;
    if (p->on_bar && p->n && (in->mouse == MOUSE_PRESS || in->mouse == MOUSE_DRAG)) {
        app_select_box(a, p->shown[paint_scroll_to(in->y - top, pane->rows - top, 1, (long)p->n)]);
        pane_dirty(pane);
        return true;
    }
    if (in->mouse != MOUSE_PRESS || in->y < top)
        return true;
    unsigned at = p->first + (unsigned)((in->y - top) / rows);
    if (at >= p->n)
        return true;
    static int64_t last_ms;
    bool twice = strcmp(a->box, p->shown[at]) == 0 && app_now_ms() - last_ms < 400;
    last_ms = app_now_ms();
    app_select_box(a, p->shown[at]);
    if (in->button == 3 || in->mods & MOD_CTRL)
        action(pane, "sandbox.mark");
    else if (twice)
        action(pane, "sandbox.attach");
    pane_dirty(pane);
    return true;
}

static void title(struct pane *pane, char *left, size_t lc, char *right, size_t rc)
{
    struct boxes *p = (struct boxes *)pane;
    unsigned marked = 0, hidden = 0;
    for (unsigned i = 0; i < model_count(pane->app->model); i++) {
        const struct box *b = model_at(pane->app->model, i);
        marked += b->marked;
        hidden += b->marked && !passes(p, b);
    }
    snprintf(left, lc, "Sandboxes");
    if (hidden && pane->cols >= 34)
        snprintf(right, rc, "%u marked, %u hidden", marked, hidden);
    else if (marked)
        snprintf(right, rc, "%u marked", marked);
    else if (p->filter[0])
        snprintf(right, rc, "%u of %u", p->n, model_count(pane->app->model));
    else if (model_count(pane->app->model) > 1)
        snprintf(right, rc, "by %s", order_names[p->order]);
}

/* A click on how it is sorted sorts otherwise; on the marks, or on how many the filter shows, it clears them. */
static void edge(struct pane *pane, int col)
{
    char left[200] = "", right[120] = "";
    title(pane, left, sizeof left, right, sizeof right);
    if (right[0] && col >= pane->cols - 3 - paint_width(right))
        action(pane, strstr(right, "marked") || ((struct boxes *)pane)->filter[0] ? "sandbox.clear" : "sandbox.sort");
}

static void tick(struct pane *pane)
{
    pane_dirty(pane);
}

static void box_changed(struct pane *pane, struct box *b)
{
    (void)b;
    pane_dirty(pane);
}

static bool grabs(struct pane *pane)
{
    return ((struct boxes *)pane)->typing;
}

static bool cursor(struct pane *pane, int *y, int *x)
{
    struct boxes *p = (struct boxes *)pane;
    *y = 0;
    *x = 2 + paint_width(p->filter);
    return p->typing;
}

static void boxes_free(struct pane *pane)
{
    struct boxes *p = (struct boxes *)pane;
    free(p->shown);
    free(p);
}

static const struct pane_class boxes_class = {.name = "sandboxes", .list = true, .draw = draw, .key = key, .action = action, .mouse = mouse, .edge = edge,
                                              .tick = tick, .box = box_changed, .title = title, .cursor = cursor, .grabs = grabs,
                                              .free = boxes_free};

struct pane *boxes_new(void)
{
    struct boxes *p = calloc(1, sizeof *p);
    if (p)
        p->pane.class = &boxes_class;
    return p ? &p->pane : NULL;
}
