/* sbx policy log: the decision logs of one, several or all sandboxes, grouped or row by row. */
#include "ui/cli/policy_log.h"

#include <getopt.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/decisions.h"
#include "core/paths.h"
#include "core/record.h"
#include "core/sanitize.h"
#include "ui/cli/policy.h"
#include "ui/cli/table.h"

#define RAW_LIMIT 500
#define FOLLOW_MS 250
#define SANDBOXES_MAX 256

struct source {
    const char *name;
    struct decisions *log;
    int64_t last; /* the last row shown */
};

struct view {
    bool raw, follow, json, verify;
    struct decisions_filter filter;
    struct source *sources;
    int nsources;
    json_t *rows; /* what is shown, as objects */
    struct source *now;
};

static int64_t parse_since(const char *text)
{
    long long ago = policy_duration(text);
    if (ago)
        return ((int64_t)time(NULL) - ago) * 1000;
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M",
                                        "%Y-%m-%d"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct tm tm = {.tm_isdst = -1};
        const char *end = strptime(text, forms[i], &tm);
        if (end && *end == '\0')
            return (int64_t)mktime(&tm) * 1000;
    }
    return -1;
}

static int read_options(struct view *v, int argc, char **argv, struct err *e)
{
    static const struct option longs[] = {
        {"raw", no_argument, NULL, 'r'},          {"follow", no_argument, NULL, 'f'},
        {"since", required_argument, NULL, 's'},  {"host", required_argument, NULL, 'h'},
        {"verdict", required_argument, NULL, 'v'}, {"limit", required_argument, NULL, 'n'},
        {"json", no_argument, NULL, 'j'},         {"verify", no_argument, NULL, 'y'}, {0}};
    int o;
    char *end;
    optind = 0;
    opterr = 0;
    while ((o = getopt_long(argc, argv, "fn:", longs, NULL)) != -1) {
        switch (o) {
        case 'r':
            v->raw = true;
            break;
        case 'f':
            v->raw = v->follow = true;
            break;
        case 's':
            v->filter.since_ms = parse_since(optarg);
            if (v->filter.since_ms < 0)
                return err_set(e, STATUS_USAGE, "--since takes a time like 10m or 2026-01-31T12:00, not \"%s\"", optarg);
            break;
        case 'h':
            v->filter.host = optarg;
            break;
        case 'v':
            if (strcmp(optarg, "allow") && strcmp(optarg, "deny") && strcmp(optarg, "fail"))
                return err_set(e, STATUS_USAGE, "a verdict is allow, deny or fail, not \"%s\"", optarg);
            v->filter.verdict = optarg;
            break;
        case 'n':
            v->filter.limit = (int)strtol(optarg, &end, 10);
            if (v->filter.limit < 1 || *end)
                return err_set(e, STATUS_USAGE, "--limit takes a number of rows, not \"%s\"", optarg);
            break;
        case 'j':
            v->json = true;
            break;
        case 'y':
            v->verify = true;
            break;
        default:
            return err_set(e, STATUS_USAGE, "sbx policy log does not understand %s; see sbx policy help", argv[optind - 1]);
        }
    }
    return 0;
}

static bool collect(const struct decision_row *r, void *arg)
{
    struct view *v = arg;
    if (r->seq > v->now->last)
        v->now->last = r->seq;
    json_t *o = json_pack("{s:s, s:I, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "sandbox", v->now->name,
                          "time_ms", (json_int_t)r->time_ms, "kind", r->kind, "verdict", r->verdict, "host", r->host, "port",
                          r->port, "proto", r->proto, "addr", r->addr, "rule", r->rule, "reason", r->reason, "count",
                          (json_int_t)r->count, "bytes_up", (json_int_t)r->bytes_up, "bytes_down", (json_int_t)r->bytes_down);
    if (!o)
        return true; /* not UTF-8: nothing of ours wrote that */
    if (v->raw) {
        json_object_set_new(o, "seq", json_integer(r->seq));
        json_object_set_new(o, "flow", json_integer(r->flow));
        json_object_set_new(o, "duration_ms", json_integer(r->duration_ms));
        json_object_set_new(o, "method", json_string(r->method));
        json_object_set_new(o, "path", json_string(r->path));
    }
    json_array_append_new(v->rows, o);
    return true;
}

static int64_t number(const json_t *o, const char *key)
{
    return json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static int by_time(const void *a, const void *b)
{
    int64_t x = number(*(json_t *const *)a, "time_ms"), y = number(*(json_t *const *)b, "time_ms");
    return (x > y) - (x < y);
}

static int by_time_newest_first(const void *a, const void *b)
{
    return by_time(b, a);
}

/* Several logs as one, in order of time; of the raw ones the newest `limit`. */
static void sort(struct view *v)
{
    size_t n = json_array_size(v->rows), from = 0;
    json_t **list = n ? malloc(n * sizeof(json_t *)) : NULL, *sorted = json_array();
    if (!list || !sorted) {
        free(list);
        json_decref(sorted);
        return;
    }
    for (size_t i = 0; i < n; i++)
        list[i] = json_array_get(v->rows, i);
    qsort(list, n, sizeof *list, v->raw ? by_time : by_time_newest_first);
    size_t limit = v->filter.limit > 0 ? (size_t)v->filter.limit : n;
    if (n > limit && v->raw)
        from = n - limit;
    for (size_t i = from; i < n && i < from + limit; i++)
        json_array_append(sorted, list[i]);
    free(list);
    json_decref(v->rows);
    v->rows = sorted;
}

static int gather(struct view *v, struct err *e)
{
    json_decref(v->rows);
    v->rows = json_array();
    for (int i = 0; i < v->nsources; i++) {
        struct source *s = v->now = &v->sources[i];
        if (!s->log)
            continue;
        struct decisions_filter f = v->filter;
        f.after_seq = s->last;
        if ((v->raw ? decisions_each(s->log, &f, collect, v, e) : decisions_grouped(s->log, &f, collect, v, e)) < 0)
            return err_wrap(e, "%s", s->name);
    }
    sort(v);
    return 0;
}

static void when(char out[32], int64_t ms)
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    localtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%d %H:%M:%S", &tm);
}

static void show_grouped(const struct view *v)
{
    static const char *const heads[] = {"SANDBOX", "VERDICT", "HOST", "PORT", "RULE", "LAST SEEN", "COUNT", NULL};
    struct table *t = table_new(heads);
    size_t i;
    json_t *o;
    json_array_foreach(v->rows, i, o) {
        char port[32], time_text[32], count[32], why[700];
        bool tcp = strcmp(text(o, "proto"), "tcp") == 0;
        snprintf(port, sizeof port, tcp ? "%d" : "%d/%s", (int)number(o, "port"), text(o, "proto"));
        snprintf(count, sizeof count, "%lld", (long long)number(o, "count"));
        bool reason = *text(o, "reason") && strcmp(text(o, "verdict"), "allow") != 0;
        snprintf(why, sizeof why, "%s%s%s", text(o, "rule"), reason ? "; " : "", reason ? text(o, "reason") : "");
        when(time_text, number(o, "time_ms"));
        const char *cells[] = {text(o, "sandbox"), text(o, "verdict"), text(o, "host"), port, why, time_text, count};
        table_add(t, cells);
    }
    table_print(t, stdout);
    table_free(t);
    if (json_array_size(v->rows) == 0)
        printf("nothing was logged\n");
}

/* One line for each row, so that it can be followed. */
static void show_raw(const struct view *v)
{
    size_t i;
    json_t *o;
    json_array_foreach(v->rows, i, o) {
        char time_text[32], line[2048], clean[8192];
        when(time_text, number(o, "time_ms"));
        int n = snprintf(line, sizeof line, "%s %s %-8s %s %s:%d/%s%s%s", time_text, text(o, "sandbox"), text(o, "kind"),
                         text(o, "verdict"), text(o, "host"), (int)number(o, "port"), text(o, "proto"),
                         *text(o, "addr") ? " at " : "", text(o, "addr"));
        if (n > 0 && strcmp(text(o, "kind"), "close") == 0 && (size_t)n < sizeof line)
            n += snprintf(line + n, sizeof line - (size_t)n, " up %lld down %lld %lld ms", (long long)number(o, "bytes_up"),
                          (long long)number(o, "bytes_down"), (long long)number(o, "duration_ms"));
        if (n > 0 && number(o, "count") > 1 && (size_t)n < sizeof line)
            n += snprintf(line + n, sizeof line - (size_t)n, " x%lld", (long long)number(o, "count"));
        if (n > 0 && (size_t)n < sizeof line)
            snprintf(line + n, sizeof line - (size_t)n, " [%s]%s%s", text(o, "rule"), *text(o, "reason") ? " " : "",
                     text(o, "reason"));
        sanitize_line(clean, sizeof clean, line, strlen(line));
        puts(clean);
    }
}

static void show(const struct view *v)
{
    if (v->json && v->follow) {
        size_t i;
        json_t *o;
        json_array_foreach(v->rows, i, o) {
            json_dumpf(o, stdout, JSON_COMPACT);
            putchar('\n');
        }
    } else if (v->json) {
        json_dumpf(v->rows, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (v->raw) {
        show_raw(v);
    } else {
        show_grouped(v);
    }
}

static int verify(const struct view *v, struct err *e)
{
    int bad = 0;
    for (int i = 0; i < v->nsources; i++) {
        const struct source *s = &v->sources[i];
        struct err why = {0};
        int64_t rows = 0;
        if (!s->log)
            continue;
        if (decisions_verify(s->log, &rows, &why) == 0) {
            printf("%s: %lld rows, the chain holds\n", s->name, (long long)rows);
            continue;
        }
        printf("%s: %s\n", s->name, why.text);
        bad++;
    }
    return bad ? err_set(e, STATUS_FAILED, "%d of the logs %s touched", bad, bad == 1 ? "was" : "were") : 0;
}

static int open_log(struct source *s, struct err *e)
{
    struct err why = {0};
    char *path = path_sandbox(s->name, "log.db", e);
    if (!path)
        return -1;
    s->log = decisions_read(path, &why);
    free(path);
    if (s->log || why.status == STATUS_NOT_FOUND)
        return 0;
    if (e)
        *e = why;
    return err_wrap(e, "%s", s->name);
}

static int follow(struct view *v, struct err *e)
{
    const struct timespec pause = {0, FOLLOW_MS * 1000000L};
    v->filter.limit = 0;
    while (!ferror(stdout)) {
        fflush(stdout);
        nanosleep(&pause, NULL);
        for (int i = 0; i < v->nsources; i++) /* one that begins later */
            if (!v->sources[i].log && open_log(&v->sources[i], e) < 0)
                return -1;
        if (gather(v, e) < 0)
            return -1;
        show(v);
    }
    return 0;
}

int policy_log_command(int argc, char **argv, struct err *e)
{
    struct view v = {0};
    struct source sources[SANDBOXES_MAX] = {{0}};
    char **names = NULL;
    int n = 0, rc = -1;
    if (read_options(&v, argc, argv, e) < 0)
        return -1;
    char **wanted = argv + optind;
    int nwanted = argc - optind;
    if (nwanted == 0) {
        nwanted = n = record_list(&names, e);
        wanted = names;
    }
    if (n < 0)
        return -1;
    if (nwanted > SANDBOXES_MAX)
        nwanted = SANDBOXES_MAX;
    v.sources = sources;
    for (; v.nsources < nwanted; v.nsources++) {
        struct record r;
        record_init(&r);
        struct source *s = &sources[v.nsources];
        s->name = wanted[v.nsources];
        int known = n > 0 || (record_check_name(s->name, e) == 0 && record_load(&r, s->name, e) == 0);
        record_finish(&r);
        if (!known || open_log(s, e) < 0)
            goto out;
    }
    if (v.verify) {
        rc = verify(&v, e);
        goto out;
    }
    if (v.raw && v.filter.limit == 0)
        v.filter.limit = RAW_LIMIT;
    rc = gather(&v, e);
    if (rc == 0)
        show(&v);
    if (rc == 0 && v.follow)
        rc = follow(&v, e);
out:
    for (int i = 0; i < nwanted && i < SANDBOXES_MAX; i++)
        decisions_close(sources[i].log);
    json_decref(v.rows);
    if (n > 0)
        record_list_free(names, n);
    return rc;
}
