#include "core/mirrorhosts.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/mirrors.h"

size_t mirrorhosts_scan(const char *text, char hosts[][272], size_t n, size_t max)
{
    for (const char *p = text; n < max && (p = strstr(p, "://")) != NULL;) {
        p += 3;
        size_t len = strcspn(p, "/ \t\r\n\"';?#]");
        const char *at = memchr(p, '@', len);
        if (at) {
            len -= (size_t)(at + 1 - p);
            p = at + 1;
        }
        if (len == 0 || len >= 272)
            continue;
        memcpy(hosts[n], p, len);
        hosts[n][len] = '\0';
        size_t k = 0;
        while (strcmp(hosts[k], hosts[n]) != 0)
            k++;
        n += k == n;
    }
    return n;
}

size_t mirrorhosts(const char *const **out)
{
    static char hosts[MIRRORHOSTS_MAX][272];
    static const char *list[MIRRORHOSTS_MAX];
    static size_t n;
    static int known;
    if (!known) {
        const char *key;
        json_t *v, *env = mirrors_env();
        char *sources = mirrors_apt_sources("stable", NULL);
        known = 1;
        if (sources)
            n = mirrorhosts_scan(sources, hosts, n, MIRRORHOSTS_MAX);
        json_object_foreach(env, key, v)
            if (json_is_string(v))
                n = mirrorhosts_scan(json_string_value(v), hosts, n, MIRRORHOSTS_MAX);
        for (size_t i = 0; i < n; i++)
            list[i] = hosts[i];
        json_decref(env);
        free(sources);
    }
    *out = list;
    return n;
}
