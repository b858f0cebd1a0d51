#include "ui/dash/netlog_pane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/paths.h"
#include "core/policy.h"
#include "ui/dash/app.h"
#include "ui/dash/ask_watch.h"
#include "ui/dash/edit.h"
#include "ui/dash/model.h"
#include "ui/dash/netlog_feed.h"
#include "ui/dash/paint.h"
#include "ui/dash/task.h"

#define HISTORY_ROWS 500000 /* of each log */

enum typing { TYPING_NOTHING, TYPING_FILTER, TYPING_SEARCH, TYPING_TIME };

struct log_pane {
    struct pane pane;
    struct netlog *log;
    struct netlog_view *view;
    struct netlog_feed *feed;
    struct ask_watch *questions;
    struct task *task;
    char error[256];
    bool history_done;
    bool asks;                 /* the selected one is in ask mode */
    bool all;                  /* every sandbox, not the selected one alone */
    char box[80];              /* the selected one */
    char filter[200];          /* in force */
    unsigned verdict;          /* 0 all, 1 denied, 2 allowed, 3 failed */
    enum typing typing;
    char text[200], before[200];
    size_t at; /* of the cursor in it */
    struct edit_cut cut;
    int typed_x; /* where that stands */
    char search[128];
    size_t top;
    unsigned ticks;
    int64_t clicked_ms;
    bool on_bar; /* the scroll bar is dragged */
    size_t clicked;
    int wide_host, wide_rule; /* the widest that were shown: columns do not jump */
    bool any_request, any_count, any_bytes, any_old; /* were shown: what is nowhere needs no column */
};

static const char *const verdicts[] = {"", "deny", "allow", "fail"};

static struct log_pane *self(struct pane *p)
{
    return (struct log_pane *)p;
}

/* ---- what is shown ---- */

static void apply(struct log_pane *l)
{
    char text[256];
    snprintf(text, sizeof text, "%s%s %s", l->verdict ? "verdict:" : "", verdicts[l->verdict],
             l->typing == TYPING_FILTER ? l->text : l->filter);
    netlog_view_filter(l->view, text, l->all || !l->box[0] ? NULL : l->box);
    pane_dirty(&l->pane);
}

static void on_row(const char *box, const struct decision_row *row, void *arg)
{
    netlog_add(((struct log_pane *)arg)->log, box, row);
}

static void on_batch(bool history_done, void *arg)
{
    struct log_pane *l = arg;
    l->history_done |= history_done;
    pane_dirty(&l->pane);
}

static enum style verdict_style(const struct netlog_row *r)
{
    return strcmp(r->verdict, "allow") == 0 ? ST_ALLOW : strcmp(r->verdict, "deny") == 0 ? ST_DENY : ST_WARN;
}

static const char *verdict_glyph(const struct netlog_row *r)
{
    return strcmp(r->verdict, "allow") == 0  ? app_glyph("\xe2\x9c\x93", "+")
           : strcmp(r->verdict, "deny") == 0 ? app_glyph("\xe2\x9c\x97", "x")
                                             : app_glyph("\xe2\x80\xa2", "!");
}

static void amount(int64_t n, char *out, size_t cap)
{
    static const char units[] = "BKMGT";
    double v = (double)n;
    unsigned u = 0;
    while (v >= 1000 && units[u + 1]) {
        v /= 1024;
        u++;
    }
    snprintf(out, cap, u && v < 10 ? "%.1f%c" : "%.0f%c", v, units[u]);
}

static void bytes_text(const struct netlog_row *r, char *out, size_t cap)
{
    char up[16], down[16];
    if (r->open && !r->bytes_up && !r->bytes_down) {
        snprintf(out, cap, "%s", app_glyph("\xe2\x80\xa6", "..."));
        return;
    }
    if (!r->bytes_up && !r->bytes_down) {
        out[0] = '\0';
        return;
    }
    amount(r->bytes_up, up, sizeof up);
    amount(r->bytes_down, down, sizeof down);
    snprintf(out, cap, "%s/%s", up, down);
}

/* Of less than a day the time says when, also across midnight. */
static bool is_old(int64_t ms)
{
    return (int64_t)time(NULL) - ms / 1000 >= 20 * 3600;
}

static void when_text(int64_t ms, bool wide, char *out, size_t cap)
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    localtime_r(&t, &tm);
    strftime(out, cap, !is_old(ms) ? "%H:%M:%S" : wide ? "%d %b %H:%M" : "%d %b", &tm);
}

struct columns {
    int when, box, verdict, host, request, rule, bytes, count; /* widths; 0: not shown */
};

static int between(int n, int least, int most)
{
    return n > most ? most : n < least ? least : n;
}

static void lay_out(const struct log_pane *l, int cols, struct columns *c)
{
    memset(c, 0, sizeof *c);
    c->when = l->any_old && cols >= 70 ? 13 : 9;
    c->verdict = cols >= 60 ? 8 : 2;
    c->box = l->all ? (cols >= 120 ? 16 : cols >= 70 ? 11 : 0) : 0;
    c->bytes = cols >= 76 && l->any_bytes ? 13 : 0;
    c->count = netlog_view_grouped(l->view) ? 7 : cols >= 50 && l->any_count ? 6 : 0;
    int rest = cols - c->when - c->verdict - c->box - c->bytes - c->count;
    if (rest < 30) {
        c->host = rest;
        return;
    }
    /* Host and rule get what they need, the request what is left; where that is nothing, host and rule share it. */
    int host = between(l->wide_host + 2, 16, rest - 17);
    int rule = between(l->wide_rule + 1, 12, rest - host > rest / 2 ? rest - host : rest / 2);
    if (host + rule > rest) /* most rules say their host once more */
        rule = between(rest - host, 17, rule);
    if (l->any_request && rest >= 68) {
        host = between(host, 16, rest / 2);
        if (rest - host - rule < 16 && rule > 24)
            rule = between(rest - host - 16, 24, rule);
    }
    if (l->any_request && rest >= 68 && rest - host - rule >= 16) {
        c->host = host;
        c->rule = rule;
        c->request = rest - host - rule;
    } else {
        /* What is over stands behind the rule, which is read together with its host; where there is little, it is the host's. */
        c->host = rest >= 68 ? between(host, 30, rest - rule) : between(host, rest - rule, rest - 17);
        c->rule = rest - c->host;
    }
}

/* As the row is shown. */
static void host_text(const struct netlog_row *r, char *out, size_t cap)
{
    if (!r->host[0])
        snprintf(out, cap, "(%s)", r->kind);
    else if (strcmp(r->proto, "tcp") != 0 && strncmp(r->proto, "http", 4) != 0)
        snprintf(out, cap, "%s %s", r->host, r->proto);
    else
        snprintf(out, cap, strchr(r->host, ':') ? "[%s]:%d" : "%s:%d", r->host, r->port);
}

/* What decides of a connection only whether it may carry requests is no reason for an "allow": they are judged one by one. */
static bool is_carrier(const struct netlog_row *r)
{
    bool connection = strcmp(r->kind, "open") == 0 || strcmp(r->kind, "close") == 0;
    return connection && strcmp(r->verdict, "allow") == 0 && strncmp(r->rule, "deny ", 5) == 0;
}

/* The verdict stands beside it: a rule that says the same word begins with its host. */
static const char *rule_text(const struct netlog_row *r)
{
    size_t n = strlen(r->verdict);
    if (is_carrier(r))
        return "by request";
    return n && strncmp(r->rule, r->verdict, n) == 0 && r->rule[n] == ' ' ? r->rule + n + 1 : r->rule;
}

static void measure(struct log_pane *l, size_t from, int rows)
{
    struct netlog_row r;
    char host[300];
    for (int i = 0; i < rows && netlog_view_get(l->view, from + (size_t)i, &r); i++) {
        host_text(&r, host, sizeof host);
        int h = paint_width(host), n = paint_width(rule_text(&r));
        l->wide_host = h > l->wide_host ? h : l->wide_host;
        l->wide_rule = n > l->wide_rule ? n : l->wide_rule;
        l->any_request |= r.request[0] != '\0';
        l->any_count |= r.count > 1 && !netlog_view_grouped(l->view);
        l->any_old |= is_old(r.time_ms);
        l->any_bytes |= r.bytes_up || r.bytes_down || r.open;
    }
}

/* A host that does not fit loses its begin: what it ends with says whose it is. */
static int host_cell(WINDOW *w, int y, int x, int width, const char *text)
{
    int room = width - 1, columns = paint_width(text);
    if (columns > room && room > 4) {
        int dots = paint_text(w, y, x, room, ST_DIM, app_glyph("\xe2\x80\xa6", "~"));
        while (*text && paint_width(text) > room - dots)
            text++;
        paint_text(w, y, x + dots, room - dots, ST_STRONG, text);
    } else {
        paint_text(w, y, x, room, ST_STRONG, text);
    }
    return x + width;
}

static int cell(WINDOW *w, int y, int x, int width, enum style s, const char *text)
{
    if (width > 0)
        paint_text(w, y, x, width - 1, s, text);
    return x + width;
}

/* Figures stand below each other by their ends. */
static int figure(WINDOW *w, int y, int x, int width, enum style s, const char *text)
{
    if (width > 1)
        paint_right(w, y, x + width - 1, width - 1, s, text);
    return x + width;
}

static void draw_head(const struct log_pane *l, WINDOW *w, const struct columns *c)
{
    int x = 0;
    x = cell(w, 0, x, c->when, ST_DIM, netlog_view_grouped(l->view) ? "LAST" : "TIME");
    x = cell(w, 0, x, c->box, ST_DIM, "SANDBOX");
    x = cell(w, 0, x, c->verdict, ST_DIM, c->verdict > 2 ? "VERDICT" : "");
    x = cell(w, 0, x, c->host, ST_DIM, "HOST");
    x = cell(w, 0, x, c->request, ST_DIM, "REQUEST");
    x = cell(w, 0, x, c->rule, ST_DIM, "RULE");
    x = figure(w, 0, x, c->count, ST_DIM, "COUNT");
    figure(w, 0, x, c->bytes, ST_DIM, "UP/DOWN");
}

static void draw_row(const struct log_pane *l, WINDOW *w, int y, const struct columns *c, const struct netlog_row *r)
{
    char when[32], host[300], count[24] = "", bytes[40], verdict[24];
    int x = 0;
    when_text(r->time_ms, c->when > 9, when, sizeof when);
    host_text(r, host, sizeof host);
    if (r->count > 1 || netlog_view_grouped(l->view))
        snprintf(count, sizeof count, "%s%lld", app_glyph("\xc3\x97", "x"), (long long)r->count);
    bytes_text(r, bytes, sizeof bytes);
    snprintf(verdict, sizeof verdict, "%s%s%.12s", verdict_glyph(r), c->verdict > 2 ? " " : "", c->verdict > 2 ? r->verdict : "");
    x = cell(w, y, x, c->when, ST_DIM, when);
    x = cell(w, y, x, c->box, ST_TEXT, r->box);
    x = cell(w, y, x, c->verdict, verdict_style(r), verdict);
    int beside = c->host - 2 - paint_width(host);
    if (!c->request && r->request[0] && beside >= 8) /* no column of its own: where the host leaves room */
        paint_text(w, y, x + c->host - 1 - beside, beside, ST_TEXT, r->request);
    x = host_cell(w, y, x, c->host, host);
    bool carrier = !r->request[0] && is_carrier(r); /* what it carried stands in lines of its own */
    x = cell(w, y, x, c->request, carrier ? ST_DIM : ST_TEXT, !carrier ? r->request : netlog_view_grouped(l->view) ? "connections" : "connection");
    x = cell(w, y, x, c->rule, ST_DIM, rule_text(r));
    x = figure(w, y, x, c->count, ST_TEXT, count);
    figure(w, y, x, c->bytes, ST_DIM, bytes);
}

static int body_rows(const struct log_pane *l)
{
    int rows = l->pane.rows;
    rows -= rows >= 6;                                          /* the column heads */
    rows -= l->typing != TYPING_NOTHING || (l->filter[0] && rows >= 4); /* the line that is typed */
    return rows > 0 ? rows : 0;
}

static void draw_line(struct log_pane *l, WINDOW *w, int y)
{
    static const char *const labels[] = {"filter ", "filter ", "search ", "from "};
    if (l->typing == TYPING_NOTHING && !l->filter[0])
        return;
    int x = paint_text(w, y, 0, 8, ST_KEY, labels[l->typing]);
    if (l->typing)
        l->typed_x = x + paint_typed(w, y, x, l->pane.cols - x, ST_FIELD_ON, l->text, l->at);
    else
        x += paint_text(w, y, x, l->pane.cols - x, ST_FIELD, l->filter);
    if (l->typing == TYPING_FILTER && !l->text[0])
        paint_text(w, y, x + 1, l->pane.cols - x - 1, ST_DIM, "words, host:x, rule:x, path:x, port:n, box:x, -not");
    else if (l->typing == TYPING_TIME && !l->text[0])
        paint_text(w, y, x + 1, l->pane.cols - x - 1, ST_DIM, "14:30, or 10m ago as 10m, 2h, 3d");
}

static void draw(struct pane *p, WINDOW *w, bool focus)
{
    struct log_pane *l = self(p);
    struct columns c;
    netlog_view_sync(l->view);
    size_t count = netlog_view_count(l->view), cursor = netlog_view_cursor(l->view);
    int rows = body_rows(l), y = p->rows >= 6;
    if (netlog_view_mode(l->view) == NETLOG_FOLLOW)
        l->top = count > (size_t)rows ? count - (size_t)rows : 0;
    if (cursor < l->top)
        l->top = cursor;
    if (rows > 0 && cursor >= l->top + (size_t)rows)
        l->top = cursor - (size_t)rows + 1;
    if (count <= (size_t)rows)
        l->top = 0;
    measure(l, l->top, rows);
    lay_out(l, p->cols, &c);
    if (y)
        draw_head(l, w, &c);
    for (int i = 0; i < rows; i++) {
        struct netlog_row r;
        if (!netlog_view_get(l->view, l->top + (size_t)i, &r))
            break;
        draw_row(l, w, y + i, &c, &r);
        if (l->top + (size_t)i == cursor && (focus || netlog_view_mode(l->view) == NETLOG_PAUSED))
            paint_row(w, y + i, 0, p->cols, focus ? ST_SELECTED : ST_SELECTED_OFF);
    }
    if (count == 0 && rows > 0) {
        const char *text = l->error[0]                                     ? l->error
                           : !l->history_done                              ? "reading the logs ..."
                           : l->filter[0] || l->verdict || (l->typing == TYPING_FILTER && l->text[0]) ? "nothing fits the filter"
                           : l->all || !l->box[0]                          ? "no sandbox has tried to reach anything yet"
                                                                           : "it has not tried to reach anything yet";
        paint_centre(w, y + rows / 2, p->cols, ST_DIM, text);
    }
    paint_scroll(w, y, rows, (long)l->top, rows, (long)count, focus ? ST_FRAME_ON : ST_FRAME);
    draw_line(l, w, p->rows - 1);
    p->dirty = false;
}

static void title(struct pane *p, char *left, size_t left_cap, char *right, size_t right_cap)
{
    struct log_pane *l = self(p);
    char verdict[24] = "", mode[64];
    netlog_view_sync(l->view);
    size_t fresh = netlog_view_fresh(l->view);
    snprintf(left, left_cap, "Network: %s%s", l->all || !l->box[0] ? "all sandboxes" : l->box,
             l->asks && !l->all ? " (asks about unknown hosts)" : "");
    if (l->verdict)
        snprintf(verdict, sizeof verdict, "%s only  ", verdicts[l->verdict]);
    if (netlog_view_grouped(l->view))
        snprintf(mode, sizeof mode, "grouped");
    else if (netlog_view_mode(l->view) == NETLOG_FOLLOW)
        snprintf(mode, sizeof mode, "%s follow", app_glyph("\xe2\x96\xbc", "v"));
    else if (fresh)
        snprintf(mode, sizeof mode, "PAUSED, %zu new", fresh);
    else
        snprintf(mode, sizeof mode, "PAUSED");
    snprintf(right, right_cap, "%s%s%zu  %s", l->history_done ? "" : "reading ", verdict, netlog_view_count(l->view), mode);
}

static bool cursor(struct pane *p, int *y, int *x)
{
    struct log_pane *l = self(p);
    if (l->typing == TYPING_NOTHING)
        return false;
    *y = p->rows - 1;
    *x = l->typed_x;
    return true;
}

static bool grabs(struct pane *p)
{
    return self(p)->typing != TYPING_NOTHING;
}

static bool typed(struct pane *p, const char *words[2])
{
    const struct log_pane *l = self(p);
    words[0] = l->typing == TYPING_FILTER ? "keeps the filter" : l->typing == TYPING_SEARCH ? "finds it, upwards" : "goes there";
    words[1] = l->typing != TYPING_FILTER ? "leaves" : l->before[0] ? "leaves it as it was" : "clears it";
    return l->typing != TYPING_NOTHING;
}

/* ---- what is done ---- */

static bool current(struct log_pane *l, struct netlog_row *r)
{
    netlog_view_sync(l->view);
    if (!netlog_view_get(l->view, netlog_view_cursor(l->view), r))
        return false;
    /* A line for many is about the host, unless all of it is one request. */
    if (netlog_view_grouped(l->view) && (strcmp(r->kind, "request") != 0 || !strchr(r->request, '/')))
        r->request = "";
    return true;
}

static void open_form(struct log_pane *l, bool deny)
{
    struct netlog_row r;
    if (!current(l, &r))
        return;
    netlog_view_pause(l->view);
    struct pane *form = netlog_form_new(l->pane.app, &r, deny);
    if (form)
        app_push(l->pane.app, form);
}

static void open_details(struct log_pane *l)
{
    struct netlog_row r;
    if (!current(l, &r))
        return;
    netlog_view_pause(l->view);
    struct pane *details = netlog_details_new(l->pane.app, &r);
    if (details)
        app_push(l->pane.app, details);
}

static void begin_typing(struct log_pane *l, enum typing what)
{
    snprintf(l->before, sizeof l->before, "%s", l->filter);
    snprintf(l->text, sizeof l->text, "%s", what == TYPING_FILTER ? l->filter : "");
    l->at = strlen(l->text);
    l->typing = what;
    pane_dirty(&l->pane);
}

/* "14:30", "14:30:05" today (or yesterday, if that is to come yet), or "10m" ago. */
static int64_t parse_time(const char *text)
{
    char *end;
    time_t now = time(NULL);
    long n = strtol(text, &end, 10);
    long unit = *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 0;
    if (end != text && unit && !end[1] && n > 0)
        return ((int64_t)now - n * unit) * 1000;
    struct tm tm;
    int h, m, s = 0;
    if (sscanf(text, "%d:%d:%d", &h, &m, &s) < 2 || h < 0 || h > 23 || m < 0 || m > 59 || s < 0 || s > 60)
        return -1;
    localtime_r(&now, &tm);
    tm.tm_hour = h;
    tm.tm_min = m;
    tm.tm_sec = s;
    tm.tm_isdst = -1;
    time_t t = mktime(&tm);
    return (int64_t)(t > now ? t - 86400 : t) * 1000;
}

static void search(struct log_pane *l, bool back)
{
    if (l->search[0] && !netlog_view_search(l->view, l->search, back))
        app_say(l->pane.app, SAY_INFO, "\"%s\" is in no row shown", l->search);
    pane_dirty(&l->pane);
}

static void end_typing(struct log_pane *l, bool keep)
{
    enum typing what = l->typing;
    l->typing = TYPING_NOTHING;
    if (what == TYPING_FILTER) {
        snprintf(l->filter, sizeof l->filter, "%s", keep ? l->text : l->before);
        apply(l);
    } else if (what == TYPING_SEARCH && keep && l->text[0]) {
        snprintf(l->search, sizeof l->search, "%.127s", l->text);
        search(l, true);
    } else if (what == TYPING_TIME && keep && l->text[0]) {
        int64_t t = parse_time(l->text);
        if (t < 0)
            app_say(l->pane.app, SAY_WARN, "\"%s\" is no time; write 14:30, 10m, 2h or 3d", l->text);
        else
            netlog_view_jump(l->view, t);
    }
    l->text[0] = '\0';
    pane_dirty(&l->pane);
}

static bool type_key(struct log_pane *l, const struct input *in)
{
    struct edit e = {.text = l->text, .cap = sizeof l->text, .at = l->at, .cut = &l->cut, .parts = " "};
    if (in->type == INPUT_PASTE)
        edit_paste(&e, in, true);
    else if (in->type != INPUT_KEY)
        return false;
    else if (in->key == K_ENTER || in->key == K_TAB || input_leaves(in)) {
        end_typing(l, !input_leaves(in));
        return true;
    } else if (in->key == K_UP || in->key == K_DOWN) {
        netlog_view_move(l->view, in->key == K_UP ? -1 : 1); /* one can look around while typing */
        pane_dirty(&l->pane);
        return true;
    } else if (!edit_key(&e, in))
        return true;
    l->at = e.at;
    if (l->typing == TYPING_FILTER)
        apply(l); /* as one types */
    pane_dirty(&l->pane);
    return true;
}

static void turn_mode(struct log_pane *l);

static bool action(struct pane *p, const char *what)
{
    struct log_pane *l = self(p);
    long page = body_rows(l) > 2 ? body_rows(l) - 1 : 1;
    const char *name = strncmp(what, "log.", 4) == 0 ? what + 4 : strncmp(what, "list.", 5) == 0 ? what + 5 : NULL;
    if (!name)
        return false;
    netlog_view_sync(l->view);
    if (strcmp(name, "up") == 0)
        netlog_view_move(l->view, -1);
    else if (strcmp(name, "down") == 0)
        netlog_view_move(l->view, 1);
    else if (strcmp(name, "pgup") == 0 || strcmp(name, "page-up") == 0)
        netlog_view_move(l->view, -page);
    else if (strcmp(name, "pgdn") == 0 || strcmp(name, "page-down") == 0)
        netlog_view_move(l->view, page);
    else if (strcmp(name, "top") == 0 || strcmp(name, "home") == 0 || strcmp(name, "first") == 0)
        netlog_view_go(l->view, 0);
    else if (strcmp(name, "bottom") == 0 || strcmp(name, "end") == 0 || strcmp(name, "last") == 0) {
        netlog_view_follow(l->view);
        if (netlog_view_grouped(l->view))
            netlog_view_go(l->view, SIZE_MAX);
    } else if (strcmp(name, "follow") == 0) {
        if (netlog_view_mode(l->view) == NETLOG_FOLLOW)
            netlog_view_pause(l->view);
        else
            netlog_view_follow(l->view);
    } else if (strcmp(name, "allow") == 0)
        open_form(l, false);
    else if (strcmp(name, "deny") == 0)
        open_form(l, true);
    else if (strcmp(name, "details") == 0 || strcmp(name, "open") == 0 || strcmp(name, "enter") == 0)
        open_details(l);
    else if (strcmp(name, "filter") == 0)
        begin_typing(l, TYPING_FILTER);
    else if (strcmp(name, "ask") == 0) {
        if (!l->questions || !ask_watch_show(l->questions))
            app_say(l->pane.app, SAY_INFO, "no question is open");
    } else if (strcmp(name, "ask-mode") == 0)
        turn_mode(l);
    else if (strcmp(name, "search") == 0)
        begin_typing(l, TYPING_SEARCH);
    else if (strcmp(name, "next") == 0)
        search(l, true); /* as it began: upwards from the latest */
    else if (strcmp(name, "previous") == 0)
        search(l, false);
    else if (strcmp(name, "jump") == 0)
        begin_typing(l, TYPING_TIME);
    else if (strcmp(name, "verdict") == 0) {
        l->verdict = (l->verdict + 1) % 4;
        apply(l);
    } else if (strcmp(name, "group") == 0)
        netlog_view_group(l->view, !netlog_view_grouped(l->view));
    else if (strcmp(name, "all") == 0) {
        l->all = !l->all;
        apply(l);
    } else if (strcmp(name, "clear") == 0 && (l->filter[0] || l->verdict)) {
        l->filter[0] = '\0';
        l->verdict = 0;
        apply(l);
    } else if (strcmp(name, "host") == 0) { /* only what this row is about */
        struct netlog_row r;
        if (current(l, &r)) {
            snprintf(l->filter, sizeof l->filter, "host:%.190s", r.host);
            apply(l);
        }
    } else
        return false;
    pane_dirty(p);
    return true;
}

static bool key(struct pane *p, const struct input *in)
{
    struct log_pane *l = self(p);
    return l->typing != TYPING_NOTHING && type_key(l, in);
}

static bool mouse(struct pane *p, const struct input *in)
{
    struct log_pane *l = self(p);
    int y = in->y - (p->rows >= 6);
    netlog_view_sync(l->view);
    size_t count = netlog_view_count(l->view);
    if (in->mouse == MOUSE_PRESS)
        l->on_bar = in->button == 1 && in->x >= p->cols - 1 && y >= 0 && count > (size_t)body_rows(l);
    if (l->on_bar && (in->mouse == MOUSE_PRESS || in->mouse == MOUSE_DRAG)) {
        netlog_view_go(l->view, (size_t)paint_scroll_to(y, body_rows(l), 1, (long)count));
    } else if (in->mouse == MOUSE_WHEEL && (in->button == -1 || in->button == 1)) {
        netlog_view_move(l->view, in->button * 3);
    } else if (in->mouse == MOUSE_PRESS && in->button == 1 && y >= 0 && y < body_rows(l)) {
        size_t line = l->top + (size_t)y;
        if (line >= netlog_view_count(l->view))
            return true;
        bool twice = line == l->clicked && app_now_ms() - l->clicked_ms < 400;
        l->clicked = line;
        l->clicked_ms = app_now_ms();
        netlog_view_go(l->view, line);
        if (twice)
            open_details(l);
    } else {
        return false;
    }
    pane_dirty(p);
    return true;
}

/* A click on what the frame says on the right: it follows, or it does not. */
static void edge(struct pane *p, int col)
{
    char left[200] = "", right[120] = "";
    title(p, left, sizeof left, right, sizeof right);
    if (col >= p->cols - 3 - paint_width(right))
        action(p, netlog_view_grouped(self(p)->view) ? "log.group" : "log.follow");
}

static void learn_mode(struct log_pane *l)
{
    struct policy *p = l->box[0] ? policy_load(l->box) : NULL;
    l->asks = p && policy_asks(p);
    policy_free(p);
}

static void mode_set(const struct task_end *end, void *arg)
{
    struct log_pane *l = arg;
    l->task = NULL;
    learn_mode(l);
    if (end->status != 0)
        app_say(l->pane.app, SAY_ERROR, "%s", end->error);
    else
        app_say(l->pane.app, SAY_GOOD, l->asks ? "%s: unknown hosts are held, and you are asked" : "%s: unknown hosts are decided by the posture", l->box);
    pane_dirty(&l->pane);
}

static const struct task_ops mode_ops = {.done = mode_set};

static void turn_mode(struct log_pane *l)
{
    struct err e = {0};
    learn_mode(l);
    const char *argv[] = {"policy", "ask", l->asks ? "off" : "on", l->box, NULL};
    if (!l->box[0])
        app_say(l->pane.app, SAY_WARN, "no sandbox is selected");
    else if (!l->task && !(l->task = task_run(l->pane.app, argv, NULL, 0, &mode_ops, l, &e)))
        app_say(l->pane.app, SAY_ERROR, "%s", e.text);
}

static void box_chosen(struct pane *p, struct box *b)
{
    struct log_pane *l = self(p);
    const char *name = b ? b->name : "";
    if (strcmp(l->box, name) == 0)
        return;
    snprintf(l->box, sizeof l->box, "%s", name);
    l->wide_host = l->wide_rule = 0;
    l->any_request = l->any_count = l->any_bytes = l->any_old = false;
    learn_mode(l);
    if (!l->all)
        apply(l);
    pane_dirty(p);
}

static void tick(struct pane *p)
{
    struct log_pane *l = self(p);
    bool asked = l->asks;
    if (++l->ticks % 4 == 0 && p->visible) {
        learn_mode(l); /* somebody else may have turned it */
        if (asked != l->asks)
            pane_dirty(p);
    }
    if (l->questions)
        ask_watch_tick(l->questions);
}

static void pane_free(struct pane *p)
{
    struct log_pane *l = self(p);
    task_forget(l->task);
    ask_watch_free(l->questions);
    netlog_feed_free(l->feed);
    netlog_view_free(l->view);
    netlog_free(l->log);
    free(l);
}

static const struct pane_class class = {.name = "log", .list = true, .draw = draw, .key = key, .action = action, .mouse = mouse, .edge = edge,
                                        .box = box_chosen, .tick = tick, .title = title, .cursor = cursor, .grabs = grabs, .typed = typed, .free = pane_free};
static const struct netlog_feed_ops feed_ops = {on_row, on_batch};

struct pane *netlog_pane_new(struct app *a)
{
    struct err e = {0};
    struct log_pane *l = calloc(1, sizeof *l);
    char *dir = path_in(PATH_DATA, &e, "sandboxes");
    if (!l)
        return NULL;
    l->pane.class = &class;
    l->log = netlog_new(0);
    l->view = l->log ? netlog_view_new(l->log) : NULL;
    l->feed = l->view && dir ? netlog_feed_new(app_base(a), dir, HISTORY_ROWS, &feed_ops, l, &e) : NULL;
    free(dir);
    if (!l->view) {
        pane_free(&l->pane);
        return NULL;
    }
    l->questions = ask_watch_new(a);
    if (!l->feed)
        snprintf(l->error, sizeof l->error, "%.250s", e.text);
    return &l->pane;
}
