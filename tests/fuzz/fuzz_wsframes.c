// needs: src/net/wsframes.c src/net/scrub.c
/* Frames of any bytes: bounded output, and the same for every split; and so is what is found in those of the guest. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/wsframes.h"

static void search(struct scrub_set *set, const uint8_t *data, size_t size)
{
    struct wsframes *w = wsframes_new_from_guest(set), *v = wsframes_new_from_guest(set);
    uint64_t whole = 0, found = 0;
    bool good = wsframes_search(w, data, size, &whole), same = true;
    for (size_t i = 0; i < size && same && !found; i++)
        same = wsframes_search(v, data + i, 1, &found);
    if (good != same || whole != found)
        abort();
    wsframes_free(w);
    wsframes_free(v);
}

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
    search(set, data, size);
    scrub_set_unref(set);
    free(out);
    free(two);
    return 0;
}
