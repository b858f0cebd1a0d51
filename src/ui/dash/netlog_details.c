/* All that is known of one row of the network log, and what would happen now: why, or why not. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/paths.h"
#include "ui/dash/app.h"
#include "ui/dash/netlog_pane.h"
#include "ui/dash/paint.h"
#include "ui/dash/task.h"

#define NOW_ROWS 3 /* room for the answer that is still to come */

struct details {
    struct pane pane;
    struct netlog_row row; /* its texts are ours */
    char *texts[7];
    struct netlog_more more;
    char now[900];
    struct task *task;
    long scroll, lines;
};

static struct details *self(struct pane *p)
{
    return (struct details *)p;
}

void netlog_look_up(const struct netlog_row *row, struct netlog_more *out)
{
    char *path = path_sandbox(row->box, "log.db", NULL);
    struct decisions *log = path ? decisions_read(path, NULL) : NULL;
    struct decisions_walk *w = log ? decisions_walk(log, row->seq - 1, 0) : NULL;
    const struct decision_row *r = w ? decisions_next(w) : NULL;
    memset(out, 0, sizeof *out);
    if (r && r->seq == row->seq) {
        snprintf(out->addr, sizeof out->addr, "%.63s", r->addr);
        snprintf(out->reason, sizeof out->reason, "%.699s", r->reason);
    }
    decisions_stop(w);
    decisions_close(log);
    free(path);
}

static void on_done(const struct task_end *end, void *arg)
{
    struct details *d = arg;
    json_t *o = json_loads(end->out, 0, NULL);
    const char *verdict = json_string_value(json_object_get(o, "verdict")), *by = json_string_value(json_object_get(o, "by"));
    const char *fix = json_string_value(json_object_get(o, "fix")), *note = json_string_value(json_object_get(o, "note"));
    d->task = NULL;
    if (verdict && by)
        snprintf(d->now, sizeof d->now, "%s, by %s%s%s%s%s%s", strcmp(verdict, "allow") == 0 ? "it would be allowed" : strcmp(verdict, "deny") == 0 ? "it would be denied" : "it depends on the request", by,
                 strcmp(d->row.kind, "mismatch") == 0 ? "; what it speaks to has to be that very name" : "",
                 note ? "\n" : "", note ? note : "", fix ? "\nto change that: " : "", fix ? fix : "");
    else
        snprintf(d->now, sizeof d->now, "%.500s", end->error);
    json_decref(o);
    pane_dirty(&d->pane);
}

static const struct task_ops ops = {.done = on_done};

static void ask_now(struct details *d)
{
    char target[300];
    const char *never = netlog_no_rule(&d->row);
    if (never) {
        snprintf(d->now, sizeof d->now, "it would be denied: %s", never);
        return;
    }
    int port = d->row.port && strcmp(d->row.proto, "dns") != 0 ? d->row.port : 443;
    snprintf(target, sizeof target, strchr(d->row.host, ':') ? "[%.250s]:%d" : "%.250s:%d", d->row.host, port);
    char method[32] = "", *path = strchr(d->row.request, ' ') ? strchr(d->row.request, ' ') + 1 : NULL;
    snprintf(method, sizeof method, "%.*s", (int)strcspn(d->row.request, " "), d->row.request);
    const char *argv[12] = {"policy", "check", "--json", "--sandbox", d->row.box, target};
    if (path && method[0]) {
        argv[6] = "--method";
        argv[7] = method;
        argv[8] = "--path";
        argv[9] = path;
    }
    d->task = task_run(d->pane.app, argv, NULL, 0, &ops, d, NULL);
}

/* Where it is drawn; without a window only the rows are counted. */
struct place {
    struct details *d;
    WINDOW *w;
    int cols;
};

static int field(const struct place *at, int y, const char *label, enum style s, const char *value)
{
    struct details *d = at->d;
    WINDOW *w = at->w;
    int shown = y - (int)d->scroll, cols = at->cols;
    if (!value || !value[0])
        return y;
    int rows = paint_wrap(NULL, 0, 14, cols - 16, 40, s, value);
    if (rows < 1)
        rows = 1;
    if (w && shown >= 0 && shown < d->pane.rows) {
        paint_text(w, shown, 2, 11, ST_DIM, label);
        paint_wrap(w, shown, 14, cols - 16, d->pane.rows - shown, s, value);
    }
    return y + rows;
}

/* Returns the number of rows. */
static int fields(const struct place *at)
{
    struct details *d = at->d;
    const struct netlog_row *r = &d->row;
    char text[700], from[40];
    int y = 0;
    time_t t = (time_t)(r->time_ms / 1000);
    struct tm tm;
    strftime(text, sizeof text, "%A, %d %B %Y, %H:%M:%S", localtime_r(&t, &tm));
    if (r->first_ms != r->time_ms) {
        time_t f = (time_t)(r->first_ms / 1000);
        strftime(from, sizeof from, "%d %b %H:%M:%S", localtime_r(&f, &tm));
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, " (since %s)", from);
    }
    y = field(at, y, "When", ST_TEXT, text);
    y = field(at, y, "Sandbox", ST_TEXT, r->box);
    y = field(at, y, "Verdict", strcmp(r->verdict, "allow") == 0 ? ST_ALLOW : strcmp(r->verdict, "deny") == 0 ? ST_DENY : ST_WARN, r->verdict);
    snprintf(text, sizeof text, strchr(r->host, ':') ? "[%s]:%d (%s)" : "%s:%d (%s)", r->host, r->port, r->proto);
    y = field(at, y, "Asked for", ST_STRONG, r->host[0] ? text : r->kind);
    y = field(at, y, "Request", ST_TEXT, r->request);
    y = field(at, y, "Dialled", ST_TEXT, d->more.addr);
    bool judged = strcmp(r->kind, "open") == 0 && strcmp(r->verdict, "allow") == 0 && strncmp(r->rule, "deny ", 5) == 0;
    snprintf(text, sizeof text, judged ? "its requests, each by itself: there is a rule about them, %s" : "%s", r->rule);
    y = field(at, y, "Decided by", ST_TEXT, text);
    y = field(at, y, "Because", ST_TEXT, d->more.reason);
    if (r->bytes_up || r->bytes_down || r->duration_ms >= 0) {
        char up[32], down[32];
        paint_kib((r->bytes_up + 1023) / 1024, up, sizeof up);
        paint_kib((r->bytes_down + 1023) / 1024, down, sizeof down);
        if (r->duration_ms >= 0)
            snprintf(text, sizeof text, "%s up, %s down, in %.1f s", up, down, (double)r->duration_ms / 1000);
        else
            snprintf(text, sizeof text, "%s up, %s down", up, down);
        y = field(at, y, "Carried", ST_TEXT, text);
    } else if (r->open) {
        y = field(at, y, "Carried", ST_DIM, "the connection is open");
    }
    if (r->count > 1) {
        snprintf(text, sizeof text, "%lld times", (long long)r->count);
        y = field(at, y, "Seen", ST_TEXT, text);
    }
    snprintf(text, sizeof text, "%s, row %lld of its log", r->kind, (long long)r->seq);
    y = field(at, y, "Kind", ST_DIM, text);
    return field(at, y + 1, "Now", ST_TEXT, d->now[0] ? d->now : d->task ? "asking ..." : "");
}

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct details *d = self(p);
    (void)focus;
    d->lines = fields(&(struct place){d, w, p->cols});
}

static void want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    struct details *d = self(p);
    *cols = max_cols < 84 ? max_cols : 84;
    int need = fields(&(struct place){d, NULL, *cols}) + 1 + (d->now[0] ? 0 : NOW_ROWS);
    *rows = need < max_rows ? need : max_rows;
}

static void title(struct pane *p, char *left, size_t left_cap, char *right, size_t right_cap)
{
    struct details *d = self(p);
    snprintf(left, left_cap, "What happened");
    if (d->lines > p->rows)
        snprintf(right, right_cap, "%ld/%ld", d->scroll + p->rows < d->lines ? d->scroll + p->rows : d->lines, d->lines);
}

static void scroll_to(struct details *d, long to)
{
    long last = d->lines - d->pane.rows;
    to = to > last ? last : to;
    d->scroll = to < 0 ? 0 : to;
    pane_dirty(&d->pane);
}

static bool action(struct pane *p, const char *what)
{
    struct details *d = self(p);
    if (strcmp(what, "details.allow") == 0 || strcmp(what, "details.deny") == 0) {
        struct app *a = p->app;
        struct pane *form = netlog_form_new(a, &d->row, strcmp(what, "details.deny") == 0);
        if (form) {
            app_pop(a, p);
            app_push(a, form);
        }
    } else if (strcmp(what, "list.up") == 0)
        scroll_to(d, d->scroll - 1);
    else if (strcmp(what, "list.down") == 0)
        scroll_to(d, d->scroll + 1);
    else if (strcmp(what, "list.pgup") == 0)
        scroll_to(d, d->scroll - p->rows + 1);
    else if (strcmp(what, "list.pgdn") == 0)
        scroll_to(d, d->scroll + p->rows - 1);
    else if (strcmp(what, "list.top") == 0)
        scroll_to(d, 0);
    else if (strcmp(what, "list.bottom") == 0)
        scroll_to(d, d->lines);
    else
        return false;
    return true;
}

static bool mouse(struct pane *p, const struct input *in)
{
    if (in->mouse == MOUSE_WHEEL && (in->button == 1 || in->button == -1))
        scroll_to(self(p), self(p)->scroll + 3 * in->button);
    return true;
}

static void details_free(struct pane *p)
{
    struct details *d = self(p);
    task_forget(d->task);
    for (size_t i = 0; i < sizeof d->texts / sizeof *d->texts; i++)
        free(d->texts[i]);
    free(d);
}

static const struct pane_class class = {.name = "details", .list = true, .modal = true, .draw = draw, .action = action, .mouse = mouse, .title = title,
                                        .want = want, .free = details_free};

struct pane *netlog_details_new(struct app *a, const struct netlog_row *row)
{
    struct details *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->pane.class = &class;
    d->pane.app = a;
    d->row = *row;
    const char **own[] = {&d->row.box, &d->row.host, &d->row.kind, &d->row.proto, &d->row.verdict, &d->row.rule, &d->row.request};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        d->texts[i] = strdup(*own[i]);
        if (!d->texts[i]) {
            details_free(&d->pane);
            return NULL;
        }
        *own[i] = d->texts[i];
    }
    netlog_look_up(&d->row, &d->more);
    ask_now(d);
    return &d->pane;
}
