// needs: src/core/vtfilter.c src/core/vtfilter_csi.c src/core/vtfilter_string.c src/core/width.c src/core/sanitize.c src/core/termline.c src/vm/screen.c
/* A hostile program on a terminal: any bytes, in any pieces, and resizes in between, through the filter, libvterm and
 * the painting; what is painted goes through a second screen.  0xff and two bytes are a resize, 0xfe is a painting. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vm/screen.h"

static void ignore(const char *bytes, size_t len, void *arg)
{
    (void)bytes;
    (void)len;
    (void)arg;
}

static void on_event(enum vt_event ev, const char *text, void *arg)
{
    (void)ev;
    (void)arg;
    if (text && strlen(text) > VT_CLIPBOARD_MAX)
        abort();
}

static void paint(struct screen *s)
{
    static const struct screen_ops ops = {ignore, ignore, on_event};
    int rows, cols;
    size_t len;
    screen_size(s, &rows, &cols);
    char *p = screen_paint(s, 20, &len);
    struct screen *t = screen_new(rows, cols, 20, &ops, NULL);
    if (!p || !t)
        abort();
    screen_feed(t, p, len);
    free(p);
    free(screen_text(t, 20, &len));
    screen_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct screen_ops ops = {ignore, ignore, on_event};
    struct screen *s = screen_new(24, 80, 50, &ops, NULL);
    if (!s)
        abort();
    for (size_t i = 0; i < size;) {
        if (data[i] == 0xff && i + 2 < size) {
            screen_resize(s, data[i + 1] % 40, data[i + 2] % 120);
            i += 3;
        } else if (data[i] == 0xfe) {
            paint(s);
            i++;
        } else {
            size_t n = 1;
            while (i + n < size && n < 512 && data[i + n] < 0xfe)
                n++;
            screen_feed(s, data + i, n);
            i += n;
        }
    }
    paint(s);
    screen_free(s);
    return 0;
}
