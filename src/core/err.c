#include "core/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void put(struct err *e, int status, const char *fmt, va_list ap)
{
    e->status = status;
    vsnprintf(e->text, sizeof e->text, fmt, ap);
}

int err_set(struct err *e, int status, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        put(e, status, fmt, ap);
        va_end(ap);
    }
    return -1;
}

int err_errno(struct err *e, int errnum, const char *fmt, ...)
{
    if (e) {
        va_list ap;
        va_start(ap, fmt);
        put(e, STATUS_FAILED, fmt, ap);
        va_end(ap);
        size_t n = strlen(e->text);
        snprintf(e->text + n, sizeof e->text - n, ": %s", strerror(errnum));
    }
    return -1;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    if (e) {
        char old[sizeof e->text];
        memcpy(old, e->text, sizeof old);
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
        size_t n = strlen(e->text);
        snprintf(e->text + n, sizeof e->text - n, ": %s", old);
    }
    return -1;
}
