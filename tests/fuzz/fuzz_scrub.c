// needs: src/net/scrub.c
/* Any split of any stream gives the same output, of the same length, and no needle in it; and a search alone finds a needle
 * whichever way the stream is cut, in the piece that holds its last byte. */
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

/* How many bytes went by, of those that were found or of all. */
static size_t search(struct scrub_set *set, const uint8_t *p, size_t n, const uint8_t *cuts, uint64_t *mark)
{
    struct scrub_watch *w = scrub_watch_new(set);
    size_t at = 0, i = 0;
    *mark = 0;
    while (at < n) {
        size_t k = cuts ? cuts[i++ % 8] % 17 + 1u : 1;
        k = k > n - at ? n - at : k;
        if ((*mark = scrub_watch(w, p + at, k)))
            break;
        at += k;
    }
    scrub_watch_free(w);
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const values[] = {"abababab", "ababababc+/", "sk-ab0123456789"}, *const sentinels[] = {"xyxyxyxy", "xyxyxyxyz+/", "sk-xy9876543210"};
    if (size < 8)
        return 0;
    struct scrub_set *set = scrub_set_new();
    for (int i = 0; i < 3; i++)
        if (!scrub_set_add_marked(set, values[i], sentinels[i], (uint64_t)i + 1))
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
    uint64_t mark, whole = scrub_find(set, (const char *)data + 8, size - 8), pieces;
    size_t bytes = search(set, data + 8, size - 8, NULL, &mark), before = search(set, data + 8, size - 8, data, &pieces);
    if (!mark != !whole || !mark != !pieces || mark > 3 || pieces > 3)
        abort();
    /* Up to there it is not whole, and a byte further it is. */
    if (mark && (scrub_find(set, (const char *)data + 8, bytes) || !scrub_find(set, (const char *)data + 8, bytes + 1) || before > bytes || bytes - before > 16))
        abort();
    scrub_set_unref(set);
    free(one);
    free(two);
    return 0;
}
