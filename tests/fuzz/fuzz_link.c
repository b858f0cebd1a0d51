// needs: src/core/link.c src/core/err.c
/* A hostile peer on the ctl port: any bytes, in any split, with channels open on our side. */
#include <stdint.h>
#include <stdlib.h>

#include "core/link.h"

static void on_data(struct link *l, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    (void)arg;
    link_consumed(l, chan, stream, len);
    link_send_data(l, chan, stream, buf, len);
}

static void on_eof(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    (void)stream;
    (void)arg;
    link_close(l, chan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct link_ops ops = {.data = on_data, .eof = on_eof};
    static uint8_t out[LINK_OUTPUT_MIN];
    struct link *l = link_new(&ops, NULL);
    link_large(l, true, size && data[0] >= 128);
    for (uint16_t c = 1; c < 4; c++)
        link_open(l, c, c & 1);
    size_t step = size ? data[0] + 1u : 1;
    for (size_t i = size ? 1 : 0; i < size; i += step) {
        size_t n = size - i < step ? size - i : step;
        if (link_feed(l, data + i, n, NULL) < 0)
            break;
        if (data[i] & 1)
            while (link_output(l, out, sizeof out))
                ;
    }
    link_free(l);
    return 0;
}
