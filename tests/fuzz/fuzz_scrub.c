// needs: src/net/scrub.c
/* Any split of any stream gives the same output, of the same length, and no needle in it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/scrub.h"

static size_t run(struct scrub_set *set, const uint8_t *p, size_t n, const uint8_t *cuts, size_t ncuts, uint8_t *out)
{
    struct scrub *s = scrub_new(set);
    size_t at = 0, len = 0, i = 0;
    while (at < n) {
        size_t k = ncuts ? cuts[i++ % ncuts] % 17 + 1u : n;
        k = k > n - at ? n - at : k;
        len += scrub_feed(s, p + at, k, out + len);
        at += k;
    }
    len += scrub_end(s, out + len);
    scrub_free(s);
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const values[] = {"abababab", "ababababc+/", "sk-ab0123456789"}, *const sentinels[] = {"xyxyxyxy", "xyxyxyxyz+/", "sk-xy9876543210"};
    if (size < 8)
        return 0;
    struct scrub_set *set = scrub_set_new();
    for (int i = 0; i < 3; i++)
        if (!scrub_set_add(set, values[i], sentinels[i]))
            abort();
    scrub_set_ready(set);
    size_t room = size + 4 * scrub_set_hold(set);
    uint8_t *one = malloc(room), *two = malloc(room);
    size_t a = run(set, data + 8, size - 8, NULL, 0, one), b = run(set, data + 8, size - 8, data, 8, two);
    if (a != size - 8 || a != b || memcmp(one, two, a) != 0)
        abort();
    for (int i = 0; i < 3; i++)
        if (memmem(one, a, values[i], strlen(values[i])))
            abort();
    scrub_set_unref(set);
    free(one);
    free(two);
    return 0;
}
