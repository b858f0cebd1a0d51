#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/sanitize.h"

static const char *log_role = "sbx";

void log_init(const char *role)
{
    log_role = role;
}

static void emit(const char *text)
{
    char safe[2048], line[2304];
    sanitize_line(safe, sizeof safe, text, strlen(text));
    struct timespec t;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    int n = snprintf(line, sizeof line, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ %s[%d]: %s\n", tm.tm_year + 1900,
                     tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, t.tv_nsec / 1000000,
                     log_role, (int)getpid(), safe);
    if (n < 0)
        return;
    if ((size_t)n >= sizeof line) {
        n = (int)sizeof line - 1;
        line[n - 1] = '\n';
    }
    /* One write, so that lines of several processes do not mix; a full disk must not stop us. */
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
    (void)ignored;
}

void log_line(const char *fmt, ...)
{
    char text[1536];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    emit(text);
}

void log_rated(struct log_rate *r, unsigned burst, const char *fmt, ...)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    if (r->used == 0 || now - r->since_ms > 10000) {
        unsigned held = r->held;
        r->since_ms = now;
        r->used = r->held = 0;
        if (held)
            log_line("(%u lines like the next were held back)", held);
    }
    if (r->used >= burst) {
        r->held++;
        return;
    }
    r->used++;
    char text[1536];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    emit(text);
}
