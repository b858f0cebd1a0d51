// needs: src/net/wsframes.c src/net/scrub.c
/* Frames of any bytes: bounded output, and the same for every split. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/wsframes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct scrub_set *set = scrub_set_new();
    scrub_set_add(set, "abababab", "xyxyxyxy");
    scrub_set_ready(set);
    struct wsframes *w = wsframes_new(set), *v = wsframes_new(set);
    uint8_t *out = malloc(size + wsframes_room(w)), *two = malloc(size + 2 * wsframes_room(w));
    size_t n = 0, m = 0, k;
    bool good = wsframes_feed(w, data, size, out, &n), same = true;
    for (size_t i = 0; i < size && same; i++) {
        uint8_t *room = malloc(1 + wsframes_room(v));
        same = wsframes_feed(v, data + i, 1, room, &k);
        if (same) {
            memcpy(two + m, room, k);
            m += k;
        }
        free(room);
    }
    if (n > size || good != same || (good && (n != m || memcmp(out, two, n) != 0)))
        abort();
    wsframes_free(w);
    wsframes_free(v);
    scrub_set_unref(set);
    free(out);
    free(two);
    return 0;
}
