#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include "core/sanitize.h"
#include "ui/cli/cli.h"

bool out_colour(int fd)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fd) && !(no && no[0]) && term && strcmp(term, "dumb") != 0;
}

/* On a terminal what reorders or hides text must not pass. */
static void dump(const json_t *value, size_t form)
{
    json_dumpf(value, stdout, form | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY | (isatty(1) ? JSON_ENSURE_ASCII : 0));
    putchar('\n');
}

void out_json(const json_t *value)
{
    dump(value, JSON_INDENT(2));
}

void out_json_line(const json_t *value)
{
    dump(value, JSON_COMPACT);
}

int out_status(int status, const struct err *e)
{
    if (status < 0) {
        fflush(stdout); /* what was done before it failed, first */
        out_error(e->text[0] ? e->text : "it failed");
        return e->status ? e->status : STATUS_FAILED;
    }
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    int why = errno;
    struct pollfd p = {.fd = STDOUT_FILENO};
    if (why == EPIPE || (poll(&p, 1, 0) > 0 && (p.revents & POLLERR)))
        return 128 + SIGPIPE; /* who read it has seen enough, as after | head */
    char text[120];
    snprintf(text, sizeof text, "cannot write to standard output: %s", why ? strerror(why) : "it is not whole");
    out_error(text);
    return STATUS_FAILED;
}

void out_error(const char *text)
{
    char safe[4096];
    sanitize_line(safe, sizeof safe, text, strlen(text));
    progress_done();
    fprintf(stderr, "%ssbx:%s %s\n", out_colour(2) ? "\033[1;31m" : "", out_colour(2) ? "\033[m" : "", safe);
}

void out_notice(const char *fmt, ...)
{
    char text[2048], safe[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sanitize_line(safe, sizeof safe, text, strlen(text));
    progress_done();
    fprintf(stderr, "%ssbx:%s %s\n", out_colour(2) ? "\033[33m" : "", out_colour(2) ? "\033[m" : "", safe);
}

bool ask_yes(const char *question)
{
    char line[64];
    if (!isatty(0) || !isatty(2))
        return false;
    fprintf(stderr, "%s [y/N] ", question);
    return fgets(line, sizeof line, stdin) && (line[0] == 'y' || line[0] == 'Y');
}

static char *ring(void)
{
    static char buf[16][40];
    static unsigned next;
    return buf[next++ % 16];
}

const char *human_bytes(long long n)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    int u = 0;
    char *out = ring();
    while (v >= 1024 && u < 4) {
        v /= 1024;
        u++;
    }
    snprintf(out, 40, u && v < 10 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

const char *human_ago(long long when)
{
    long long s = (long long)time(NULL) - when;
    char *out = ring();
    if (when == 0)
        snprintf(out, 40, "never");
    else if (s < 60)
        snprintf(out, 40, "%llds ago", s < 0 ? 0 : s);
    else if (s < 3600)
        snprintf(out, 40, "%lldm ago", s / 60);
    else if (s < 86400)
        snprintf(out, 40, "%lldh ago", s / 3600);
    else
        snprintf(out, 40, "%lldd ago", s / 86400);
    return out;
}

/* ---- tables ---- */

struct table {
    int columns, rows, cap;
    char **cells;
};

static int width_of(const char *s)
{
    int w = 0;
    mbstate_t st = {0};
    while (*s) {
        wchar_t c;
        size_t n = mbrtowc(&c, s, 8, &st);
        if (n == 0 || n > 8) {
            w++;
            s++;
            memset(&st, 0, sizeof st);
            continue;
        }
        int cw = wcwidth(c);
        w += cw > 0 ? cw : 0;
        s += n;
    }
    return w;
}

struct table *table_new(int columns, const char *const *headers)
{
    struct table *t = calloc(1, sizeof *t);
    if (t) {
        t->columns = columns;
        table_row(t, headers);
    }
    return t;
}

void table_row(struct table *t, const char *const *cells)
{
    if (!t)
        return;
    if (t->rows == t->cap) {
        int cap = t->cap ? t->cap * 2 : 32;
        char **more = realloc(t->cells, (size_t)cap * (size_t)t->columns * sizeof *more);
        if (!more)
            return;
        t->cells = more;
        t->cap = cap;
    }
    for (int i = 0; i < t->columns; i++) {
        const char *c = cells[i] ? cells[i] : "";
        size_t n = strlen(c) * 8 + 1;
        char *safe = malloc(n);
        if (safe)
            sanitize_line(safe, n, c, strlen(c));
        t->cells[t->rows * t->columns + i] = safe;
    }
    t->rows++;
}

void table_print(struct table *t, const char *none)
{
    bool colour = out_colour(1);
    int *widest = t ? calloc((size_t)t->columns, sizeof *widest) : NULL;
    if (!t)
        return;
    bool empty = t->rows < 2; /* the headers are one */
    if (empty)
        fprintf(stderr, "%s\n", none);
    for (int i = 0; widest && i < t->rows * t->columns; i++) {
        int w = t->cells[i] ? width_of(t->cells[i]) : 0;
        if (w > widest[i % t->columns])
            widest[i % t->columns] = w;
    }
    for (int r = 0; !empty && r < t->rows; r++) {
        if (r == 0 && colour)
            fputs("\033[1m", stdout);
        for (int c = 0; c < t->columns; c++) {
            const char *text = t->cells[r * t->columns + c];
            fputs(text ? text : "", stdout);
            if (c + 1 < t->columns)
                printf("%*s", (widest ? widest[c] : 0) - width_of(text ? text : "") + 2, "");
        }
        if (r == 0 && colour)
            fputs("\033[m", stdout);
        putchar('\n');
    }
    for (int i = 0; i < t->rows * t->columns; i++)
        free(t->cells[i]);
    free(widest);
    free(t->cells);
    free(t);
}

/* ---- progress ---- */

static bool shown;
static char last_text[256];
static struct timespec began;

bool progress_wanted(void)
{
    return isatty(2) || getenv("SBX_PROGRESS");
}

void progress_show(double fraction, const char *text)
{
    char safe[256];
    sanitize_line(safe, sizeof safe, text, strlen(text));
    if (!isatty(2) && getenv("SBX_PROGRESS")) { /* the dashboard's, which draws a bar of it (ui/dash/task.c) */
        fprintf(stderr, "\036%.3f %s\n", fraction, safe);
        return;
    }
    if (!isatty(2)) {
        /* Lines for a log: one for each phase, not for each package. */
        size_t n = strcspn(safe, " ");
        if (strncmp(safe, last_text, n + 1) != 0 || fraction < 0) {
            if (strcmp(safe, last_text) != 0)
                fprintf(stderr, "sbx: %s\n", safe);
        }
        snprintf(last_text, sizeof last_text, "%s", safe);
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!shown || fraction <= 0)
        began = now;
    shown = true;
    struct winsize ws = {.ws_col = 80};
    ioctl(2, TIOCGWINSZ, &ws);
    int bar = ws.ws_col > 70 ? 30 : 10, room = ws.ws_col - bar - 22;
    if (fraction < 0) {
        fprintf(stderr, "\r\033[K%s%.*s", out_colour(2) ? "" : "", ws.ws_col - 1, safe);
        return;
    }
    int full = (int)(fraction * bar);
    double spent = (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9;
    char left[24] = "";
    if (fraction > 0.03 && spent > 2)
        snprintf(left, sizeof left, "%ds left", (int)(spent / fraction * (1 - fraction)) + 1);
    fprintf(stderr, "\r\033[K");
    if (out_colour(2))
        fputs("\033[36m", stderr);
    for (int i = 0; i < bar; i++)
        fputs(i < full ? "█" : "░", stderr);
    if (out_colour(2))
        fputs("\033[m", stderr);
    fprintf(stderr, " %3d%% %-9s %.*s", (int)(fraction * 100), left, room > 0 ? room : 0, safe);
    fflush(stderr);
}

void progress_done(void)
{
    if (shown)
        fputs("\r\033[K", stderr);
    shown = false;
    fflush(stderr);
}
