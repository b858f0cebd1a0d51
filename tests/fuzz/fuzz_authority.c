// needs: src/net/http1.c src/net/headers.c src/core/urlpath.c src/core/name.c src/core/wipe.c src/core/err.c src/core/rule.c
/* Authorities and paths of any bytes: refused, or canonical, which reads back as itself. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/http1.h"
#include "core/urlpath.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char host[NAME_MAX_LEN + 48], again[NAME_MAX_LEN + 48], path[URLPATH_MAX + 1], path2[URLPATH_MAX + 1], shown[100];
    uint16_t port, port2;
    char *text = malloc(size + 1);
    memcpy(text, data, size);
    text[size] = '\0';
    if (http1_authority(text, size, host, &port)) {
        bool six = strchr(host, ':');
        char spelt[NAME_MAX_LEN + 60];
        snprintf(spelt, sizeof spelt, six ? "[%s]" : "%s", host);
        if (!http1_authority(spelt, strlen(spelt), again, &port2) || strcmp(host, again) != 0 || port2 != 0)
            abort();
    }
    if (urlpath_normalise(text, path) && (!urlpath_normalise(path, path2) || strcmp(path, path2) != 0))
        abort();
    urlpath_show(text, shown, sizeof shown);
    if (strlen(shown) >= sizeof shown)
        abort();
    free(text);
    return 0;
}
