// needs: src/ui/dash/input.c src/core/sanitize.c src/core/width.c src/core/err.c
/* What a terminal sends: every event is well-formed whatever the bytes and however they are cut, a paste is a paste until
 * its end, and no more is held back than the decoder has room for. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ui/dash/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    size_t bytes;
    bool paste;
};

static void take(const struct input *in, void *arg)
{
    struct seen *s = arg;
    volatile char sum = 0;
    for (size_t i = 0; i < in->raw_len; i++)
        sum ^= in->raw[i];
    s->bytes += in->raw_len;
    if (in->type == INPUT_PASTE) {
        if (in->paste_begin == s->paste)
            abort(); /* begun twice, or never */
        s->paste = !in->paste_end;
    } else if (s->paste) {
        abort(); /* a key out of a paste */
    } else if (in->type == INPUT_KEY) {
        char name[32];
        input_key_name(in->key, in->mods, name, sizeof name);
        if (in->key > K_UNKNOWN || (in->key >= 0xd800 && in->key < 0xe000) || !name[0])
            abort();
    } else if (in->type == INPUT_MOUSE && (in->x < 0 || in->y < 0 || in->button < -2 || in->button > 3)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen s = {0};
    struct input_decoder *d = input_new(take, &s);
    size_t at = 0;
    while (d && at < size) {
        size_t n = data[at++] % 64u;
        if (n > size - at)
            n = size - at;
        input_feed(d, data + at, n);
        at += n;
        if (n == 0)
            input_flush(d);
    }
    if (s.bytes > size)
        abort();
    input_free(d);
    return 0;
}
