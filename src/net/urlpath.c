#include "net/urlpath.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool unreserved(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '~';
}

bool urlpath_normalise(const char *target, char out[URLPATH_MAX + 1])
{
    size_t n = 0;
    if (strcmp(target, "*") == 0) {
        strcpy(out, "*");
        return true;
    }
    if (target[0] != '/')
        return false;
    for (const char *p = target; *p && *p != '?'; p++) {
        char add[4] = {*p, 0};
        if (*p == '%') {
            int hi = hex(p[1]), lo = hi < 0 ? -1 : hex(p[2]), c = hi * 16 + lo;
            if (lo < 0)
                return false;
            /* An encoded '.' may make a dot segment for one server and not for another. */
            if (c == '/' || c == '\\' || c == '.' || c == '%' || c == ';' || c < 0x20 || c == 0x7f)
                return false;
            if (unreserved(c))
                add[0] = (char)c;
            else
                memcpy(add, (char[]){'%', "0123456789ABCDEF"[hi], "0123456789ABCDEF"[lo], '\0'}, 4);
            p += 2;
        } else if (*p == '\\' || *p == ';') {
            return false;
        } else if (*p == '/' && n && out[n - 1] == '/') {
            return false; /* "//" */
        }
        size_t len = strlen(add);
        if (n + len > URLPATH_MAX)
            return false;
        memcpy(out + n, add, len);
        n += len;
        out[n] = '\0';
    }
    out[n] = '\0';
    /* "." and ".." as whole segments: a client normalises them itself, so what is left is a trick. */
    for (const char *s = out; s; s = strchr(s + 1, '/')) {
        size_t len = strcspn(s + 1, "/");
        if ((len == 1 && s[1] == '.') || (len == 2 && s[1] == '.' && s[2] == '.'))
            return false;
    }
    return true;
}

void urlpath_show(const char *target, char *out, size_t cap)
{
    size_t n = strcspn(target, "?");
    snprintf(out, cap, "%.*s", n < cap ? (int)n : (int)cap - 1, target);
}
