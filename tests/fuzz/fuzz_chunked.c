// needs: src/net/httpbody.c src/net/http1.c src/net/headers.c src/core/name.c src/core/wipe.c src/core/err.c src/core/rule.c
/* A chunked body of any bytes: the same content for every split, and never more of it than came in. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/httpbody.h"

static bool run(const uint8_t *p, size_t n, size_t piece, uint8_t *out, size_t *len, bool *done)
{
    struct httpbody b;
    size_t at = 0;
    httpbody_init(&b, HTTP1_CHUNKED, 0);
    *len = 0;
    while (!b.done && at < n) {
        size_t used, got, k = n - at < piece ? n - at : piece;
        const uint8_t *content;
        if (!httpbody_take(&b, p + at, k, &used, &content, &got))
            return false;
        if (used > k || got > used)
            abort();
        memcpy(out + *len, content, got);
        *len += got;
        at += used;
        if (!used && !b.done)
            abort();
    }
    *done = b.done;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *one = malloc(size + 1), *two = malloc(size + 1);
    size_t a, b;
    bool da = false, db = false;
    bool good = run(data, size, size ? size : 1, one, &a, &da), same = run(data, size, 1, two, &b, &db);
    if (good != same || (good && (da != db || a != b || memcmp(one, two, a) != 0)))
        abort();
    free(one);
    free(two);
    return 0;
}
