#include "ui/clip.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"

bool clip_allowed(const char *sandbox)
{
    json_t *config = config_load(NULL);
    json_t *list = config ? config_value(config, "attach.clipboard") : NULL, *v;
    bool yes = false;
    size_t i;
    json_array_foreach(list, i, v) {
        const char *name = json_string_value(v);
        yes |= name && (strcmp(name, "*") == 0 || strcmp(name, sandbox) == 0);
    }
    json_decref(config);
    return yes;
}

char *clip_sequence(const char *base64, size_t *bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = base64 ? strlen(base64) : 0, text = base64 ? strspn(base64, digits) : 0;
    if (n == 0 || n > CLIP_MAX || n - text > 2 || strspn(base64 + text, "=") != n - text)
        return NULL;
    *bytes = text * 3 / 4;
    char *out = malloc(n + 16);
    if (out)
        snprintf(out, n + 16, "\033]52;c;%s\a", base64);
    return out;
}
