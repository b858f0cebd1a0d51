/* sbx policy log */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/decisions.h"
#include "core/paths.h"
#include "core/sanitize.h"
#include "core/state.h"
#include "ui/cli/policy.h"
#include "ui/cli/sandbox.h"

#define RAW_LIMIT 1000 /* rows shown of each sandbox when nothing else was asked for */

/* "10m" ago, or a local date and time. */
static int since_ms(const char *text, int64_t *out, struct err *e)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M",
                                        "%Y-%m-%d"};
    long long ago;
    if (policy_cli_duration(text, &ago, NULL) == 0) {
        *out = ((int64_t)time(NULL) - ago) * 1000;
        return 0;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm tm = {.tm_isdst = -1};
        const char *end = strptime(text, forms[i], &tm);
        if (end && *end == '\0') {
            *out = (int64_t)mktime(&tm) * 1000;
            return 0;
        }
    }
    return err_set(e, STATUS_USAGE, "\"%s\" is no time; write 10m, 1h, 7d or 2026-01-31T12:00", text);
}

/* Rows of several sandboxes, to be shown in one order of time. */
struct kept {
    const char *sandbox;
    struct decision_row row;
    int64_t order_ms; /* no earlier than the row before it of the same log: the clock may have been set back */
    char *texts[9];
};

struct shelf {
    struct kept *rows;
    size_t n, cap;
    const char *sandbox;
    bool grouped;
    int64_t latest_ms; /* of this sandbox's row before */
};

static bool keep_row(const struct decision_row *r, void *arg)
{
    struct shelf *s = arg;
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 256;
        struct kept *more = realloc(s->rows, cap * sizeof *more);
        if (!more)
            return false;
        s->rows = more;
        s->cap = cap;
    }
    struct kept *k = &s->rows[s->n];
    memset(k, 0, sizeof *k);
    k->sandbox = s->sandbox;
    k->row = *r;
    /* Groups come the newest first, rows the oldest first. */
    if (s->grouped ? s->latest_ms && r->time_ms > s->latest_ms : r->time_ms < s->latest_ms)
        k->order_ms = s->latest_ms;
    else
        k->order_ms = r->time_ms;
    s->latest_ms = k->order_ms;
    const char **texts[] = {&k->row.kind, &k->row.proto, &k->row.host, &k->row.addr, &k->row.method, &k->row.path, &k->row.verdict,
                            &k->row.rule, &k->row.reason};
    s->n++;
    for (size_t i = 0; i < 9; i++) {
        k->texts[i] = strdup(*texts[i]);
        *texts[i] = k->texts[i] ? k->texts[i] : "";
    }
    return true;
}

static int by_time(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;
    if (x->order_ms != y->order_ms)
        return x->order_ms < y->order_ms ? -1 : 1;
    int c = strcmp(x->sandbox, y->sandbox);
    return c ? c : (x->row.seq > y->row.seq) - (x->row.seq < y->row.seq);
}

struct show {
    const char *sandbox;
    struct table *table;
    json_t *list;
    bool raw;
    bool follow; /* lines as they come, in columns of fixed widths */
};

/* A text from the guest, fit to be shown and padded or cut to a width. */
static void column(const char *text, int width)
{
    char safe[4096];
    size_t n = sanitize_line(safe, sizeof safe, text, strlen(text));
    (void)n;
    printf("%-*s ", width, safe);
}

static void follow_row(const char *sandbox, const struct decision_row *r, const char *when, const char *count, const char *bytes)
{
    char target[300], request[2200];
    bool colour = out_colour(1);
    snprintf(target, sizeof target, strchr(r->host, ':') ? "[%s]:%d" : "%s:%d", r->host, r->port);
    snprintf(request, sizeof request, "%s%s%s", r->method, r->method[0] ? " " : "", r->path);
    column(when, 14);
    column(sandbox, 12);
    if (colour)
        fputs(strcmp(r->verdict, "allow") == 0 ? "\033[32m" : strcmp(r->verdict, "deny") == 0 ? "\033[31m" : "\033[33m", stdout);
    column(r->verdict, 5);
    if (colour)
        fputs("\033[m", stdout);
    column(r->kind, 8);
    column(r->proto, 5);
    column(r->host[0] ? target : "-", 36);
    if (request[0])
        column(request, 24);
    column(r->rule, 30);
    if (r->count > 1)
        printf("x%s ", count);
    if (bytes[0])
        printf("%s ", bytes);
    column(r->reason, 0);
    putchar('\n');
}

#define HOST_WIDTH 60

/* On a terminal a name of 253 letters must not push all else aside; what it ends with says whose it is. */
static const char *host_text(const char *host, char *room, size_t cap)
{
    size_t n = strlen(host);
    if (n <= HOST_WIDTH || !isatty(1))
        return host;
    snprintf(room, cap, "...%s", host + n - (HOST_WIDTH - 3));
    return room;
}

static bool show_row(const struct decision_row *r, void *arg);

static bool show_escaped(const struct decision_row *r, struct show *s)
{
    struct decision_row safe = *r;
    const char **texts[] = {&safe.kind, &safe.proto, &safe.host, &safe.addr, &safe.method, &safe.path, &safe.verdict, &safe.rule, &safe.reason};
    char room[sizeof texts / sizeof *texts][1024];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        sanitize_line(room[i], sizeof room[i], *texts[i], strlen(*texts[i]));
        *texts[i] = room[i];
    }
    return show_row(&safe, s);
}

static bool show_row(const struct decision_row *r, void *arg)
{
    struct show *s = arg;
    char host[HOST_WIDTH + 1];
    char when[40], port[16], count[24], bytes[40] = "";
    time_t t = (time_t)(r->time_ms / 1000);
    struct tm tm;
    if (s->list) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "sandbox", s->sandbox,
                              "seq", (json_int_t)r->seq, "time_ms", (json_int_t)r->time_ms, "kind", r->kind, "proto", r->proto, "host",
                              r->host, "port", r->port, "address", r->addr, "method", r->method, "path", r->path, "flow", (json_int_t)r->flow, "verdict", r->verdict, "rule", r->rule, "reason",
                              r->reason, "bytes_up", (json_int_t)r->bytes_up, "bytes_down", (json_int_t)r->bytes_down, "duration_ms",
                              (json_int_t)r->duration_ms, "count", (json_int_t)r->count);
        if (!o) /* bytes that are no text: escaped, but not left out */
            return show_escaped(r, s);
        json_array_append_new(s->list, o);
        return true;
    }
    strftime(when, sizeof when, s->raw ? "%m-%d %H:%M:%S" : "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
    snprintf(port, sizeof port, "%d", r->port);
    snprintf(count, sizeof count, "%lld", (long long)r->count);
    if (r->bytes_up || r->bytes_down)
        snprintf(bytes, sizeof bytes, "%s/%s", human_bytes(r->bytes_up), human_bytes(r->bytes_down));
    if (s->follow) {
        follow_row(s->sandbox, r, when, count, bytes);
    } else if (s->raw) {
        char request[2200];
        snprintf(request, sizeof request, "%s%s%s", r->method, r->method[0] ? " " : "", r->path);
        const char *cells[] = {when, s->sandbox, r->kind, r->verdict, r->proto, host_text(r->host, host, sizeof host), port, request, r->rule, r->reason, count, bytes};
        table_row(s->table, cells);
    } else {
        const char *cells[] = {s->sandbox, r->verdict, r->proto, host_text(r->host, host, sizeof host), port, r->rule[0] ? r->rule : r->reason, when, count, bytes};
        table_row(s->table, cells);
    }
    return true;
}

static struct table *log_table(bool raw)
{
    static const char *const grouped[] = {"SANDBOX", "VERDICT", "PROTO", "HOST", "PORT", "RULE", "LAST SEEN", "COUNT", "UP/DOWN"};
    static const char *const each[] = {"TIME", "SANDBOX", "KIND", "VERDICT", "PROTO", "HOST", "PORT", "REQUEST", "RULE", "REASON", "COUNT", "UP/DOWN"};
    return raw ? table_new(12, each) : table_new(9, grouped);
}

/* top: the number of the last row that there was. */
static int show_log(struct show *s, struct shelf *shelf, struct decisions_filter *f, int64_t *top, struct err *e)
{
    struct err why = {0};
    char *path = path_sandbox(s->sandbox, "log.db", e);
    if (path)
        decisions_gather(path);
    struct decisions *d = path ? decisions_read(path, &why) : NULL;
    int rc = 0;
    free(path);
    if (!d) {
        if (why.status == STATUS_NOT_FOUND)
            return 0; /* nothing was tried yet */
        if (e)
            *e = why;
        return -1;
    }
    shelf->sandbox = s->sandbox;
    shelf->grouped = !s->raw;
    shelf->latest_ms = 0;
    *top = decisions_last(d);
    if (*top < f->after_seq) /* another sandbox of that name */
        f->after_seq = 0;
    rc = s->raw ? decisions_each(d, f, keep_row, shelf, e) : decisions_grouped(d, f, keep_row, shelf, e);
    decisions_close(d);
    return rc;
}

static int verify(char **names, int n, struct err *e)
{
    int bad = 0;
    if (n == 0)
        out_notice("there are no sandboxes");
    for (int i = 0; i < n; i++) {
        struct err why = {0};
        char safe[2 * sizeof why.text];
        int64_t rows = 0;
        char *path = path_sandbox(names[i], "log.db", e);
        if (path)
            decisions_gather(path);
        struct decisions *d = path ? decisions_read(path, &why) : NULL;
        int rc = d ? decisions_verify(d, &rows, &why) : why.status == STATUS_NOT_FOUND ? 0 : -1;
        if (rc == 0 && path) /* whole as far as it goes: is that all of it? */
            rc = decisions_look(path, state_logged(names[i]), &why);
        free(path);
        bad |= rc < 0;
        sanitize_line(safe, sizeof safe, why.text, strlen(why.text)); /* it may say what a row says */
        if (rc == 0 && d)
            printf("%s: %lld rows, unbroken\n", names[i], (long long)rows);
        else
            printf("%s: %s%s\n", names[i], rc < 0 ? "BROKEN: " : "", safe);
        decisions_close(d);
    }
    return bad ? STATUS_FAILED : 0;
}

/* Sandboxes that came and went while they are followed; `last` goes with the names. */
static int again(char ***names, int *n, int64_t **last)
{
    char **now;
    int count = record_list(&now, NULL);
    int64_t *seqs = count < 0 ? NULL : calloc((size_t)count + 1, sizeof *seqs);
    if (!seqs) {
        if (count >= 0)
            record_list_free(now, count);
        return -1;
    }
    for (int i = 0; i < count; i++)
        for (int k = 0; k < *n; k++)
            if (strcmp(now[i], (*names)[k]) == 0)
                seqs[i] = (*last)[k];
    record_list_free(*names, *n);
    free(*last);
    *names = now;
    *n = count;
    *last = seqs;
    return 0;
}

int cmd_policy_log(const struct args *a, struct err *e)
{
    char **names = NULL;
    int n, rc = 0;
    long limit;
    int64_t since = 0;
    const char *verdict = args_value(a, "verdict");
    bool shown_raw = args_has(a, "raw") || args_has(a, "follow");
    if (args_number(a, "limit", 1, 1000000, shown_raw ? RAW_LIMIT : 0, &limit, e) < 0 ||
        (args_has(a, "since") && since_ms(args_value(a, "since"), &since, e) < 0))
        return -1;
    if (verdict && strcmp(verdict, "allow") && strcmp(verdict, "deny") && strcmp(verdict, "fail"))
        return err_set(e, STATUS_USAGE, "a verdict is allow, deny or fail, not \"%s\"", verdict);
    bool follow = args_has(a, "follow"), json = args_has(a, "json"), own = a->nwords > 0;
    if (own) {
        n = a->nwords;
        names = (char **)a->words;
        for (int i = 0; i < n; i++) {
            if (policy_cli_need(names[i], e) < 0)
                return -1;
        }
    } else if ((n = record_list(&names, e)) < 0) {
        return -1;
    }
    if (args_has(a, "verify")) {
        rc = verify(names, n, e);
    } else {
        struct decisions_filter f = {.host = args_value(a, "host"), .verdict = args_value(a, "verdict"), .limit = (int)limit,
                                     .since_ms = since};
        int64_t *last = calloc((size_t)n + 1, sizeof *last);
        json_t *list = json ? json_array() : NULL;
        bool raw = args_has(a, "raw") || follow;
        bool first = true, told = false;
        do {
            if (!first && !own && again(&names, &n, &last) < 0)
                break;
            /* The limit is of what there was; what comes then is shown whole. */
            f.limit = first ? (int)limit : 0;
            struct table *t = json || follow ? NULL : log_table(raw);
            struct shelf shelf = {0};
            for (int i = 0; i < n && rc == 0; i++) {
                struct show s = {.sandbox = names[i], .raw = raw};
                struct err why = {0};
                int64_t top = last[i];
                f.after_seq = last[i];
                if (show_log(&s, &shelf, &f, &top, &why) == 0) {
                    last[i] = top;
                } else if (!follow) {
                    if (e)
                        *e = why;
                    rc = -1;
                } else if (!told) { /* it may be begun anew in a moment */
                    out_notice("%s: %s", names[i], why.text);
                    told = true;
                }
            }
            if (shelf.n)
                qsort(shelf.rows, shelf.n, sizeof *shelf.rows, by_time);
            /* The newest so many of all together; groups begin with what was seen last. */
            size_t skip = f.limit && shelf.n > (size_t)limit ? shelf.n - (size_t)limit : 0;
            first = false;
            f.since_ms = 0; /* what comes from now on is wanted, whatever the clock says */
            for (size_t i = 0; i < shelf.n; i++) {
                struct kept *k = &shelf.rows[raw ? i : shelf.n - 1 - i];
                struct show s = {.sandbox = k->sandbox, .table = t, .list = list, .raw = raw, .follow = follow};
                if (raw ? i >= skip : i < shelf.n - skip)
                    show_row(&k->row, &s);
                for (int b = 0; follow && b < n; b++) /* written since `top` was asked for */
                    if (strcmp(names[b], k->sandbox) == 0 && k->row.seq > last[b])
                        last[b] = k->row.seq;
            }
            for (size_t i = 0; i < shelf.n; i++)
                for (size_t c = 0; c < 9; c++)
                    free(shelf.rows[i].texts[c]);
            free(shelf.rows);
            if (json) {
                if (!follow) {
                    out_json(list);
                } else {
                    size_t i;
                    json_t *o;
                    json_array_foreach(list, i, o) { /* one a line, as they come */
                        out_json_line(o);
                    }
                    json_array_clear(list);
                }
            } else {
                table_print(t, n == 0 ? "No sandboxes yet. Start one in this folder with: sbx run claude"
                               : f.host || f.verdict || since ? "Nothing of that kind was logged. Without --host, --verdict and --since all of it is shown."
                                                              : "Nothing was logged yet. What a sandbox tries to reach stands here.");
            }
            if (follow && (fflush(stdout) != 0 || rc < 0))
                break;
            if (follow)
                usleep(150000);
        } while (follow && rc == 0);
        json_decref(list);
        free(last);
    }
    if (!own)
        record_list_free(names, n);
    return rc;
}

