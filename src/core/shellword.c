#include "core/shellword.h"

#include <string.h>

bool shell_word(char *out, size_t cap, const char *text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-+/:=@%,";
    size_t n = 0;
    if (*text && text[strspn(text, plain)] == '\0') {
        n = strlen(text);
        if (n >= cap)
            goto full;
        memcpy(out, text, n + 1);
        return true;
    }
    if (cap < 3)
        goto full;
    out[n++] = '\'';
    for (const char *p = text; *p; p++) {
        const char *put = *p == '\'' ? "'\\''" : (char[]){*p, '\0'};
        size_t k = strlen(put);
        if (n + k + 2 > cap)
            goto full;
        memcpy(out + n, put, k);
        n += k;
    }
    out[n++] = '\'';
    out[n] = '\0';
    return true;
full:
    if (cap)
        out[0] = '\0';
    return false;
}
