#include "ui/backdrop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "15;0", or "15;default;0": the last number is the background; 7 and 9 to 15 are light. */
int backdrop_light(void)
{
    const char *v = getenv("COLORFGBG"), *semi = v ? strrchr(v, ';') : NULL;
    if (!semi || semi[1] < '0' || semi[1] > '9')
        return -1;
    int bg = atoi(semi + 1);
    return bg == 7 || (bg > 8 && bg < 16);
}

/* Written anew, not passed on: only what was understood reaches the guest. */
const char *backdrop_colours(void)
{
    int light = backdrop_light();
    return light < 0 ? NULL : light ? "0;15" : "15;0";
}

int backdrop_answer(const char *bytes, size_t len)
{
    static const char sign[] = "\033]11;rgb";
    const char *p = memmem(bytes, len, sign, sizeof sign - 1);
    char text[32], *at = text;
    double c[3];
    if (!p)
        return -1;
    p += sizeof sign - 1;
    size_t n = len - (size_t)(p - bytes);
    snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text - 1 ? n : sizeof text - 1), p);
    at += *at == 'a'; /* rgba:, without a look at the last */
    for (int i = 0; i < 3; i++) {
        if (*at != (i ? '/' : ':'))
            return -1;
        size_t digits = strspn(++at, "0123456789abcdefABCDEF");
        if (digits < 1 || digits > 4)
            return -1;
        c[i] = (double)strtoul(at, &at, 16) / (double)((1u << 4 * digits) - 1);
    }
    return 3 * c[0] + 6 * c[1] + c[2] > 5;
}
