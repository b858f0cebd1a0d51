#include "guest/text.h"

#include <stdarg.h>

char *text_add(char *at, char *end, const char *text)
{
    while (*text && at < end)
        *at++ = *text++;
    return at;
}

char *text_number(char *at, char *end, int64_t v)
{
    char digits[24], *p = digits + sizeof digits;
    uint64_t rest = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    *--p = '\0';
    do
        *--p = (char)('0' + rest % 10);
    while (rest /= 10);
    if (v < 0)
        *--p = '-';
    return text_add(at, end, p);
}

void text_join(char *buf, size_t cap, const char *first, ...)
{
    char *at = buf, *end = buf + cap - 1;
    va_list ap;
    va_start(ap, first);
    for (const char *text = first; text; text = va_arg(ap, const char *))
        at = text_add(at, end, text);
    va_end(ap);
    *at = '\0';
}
