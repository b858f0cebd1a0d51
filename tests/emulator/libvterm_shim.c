/* For libvterm's own test harness: what a test pushes goes through our filter before libvterm sees it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vterm.h>

#include "core/vtfilter.h"

size_t shim_input(VTerm *vt, const char *bytes, size_t len);
void shim_reset(void);

static VTerm *term;
static struct vtfilter *filter;

static void on_out(const char *bytes, size_t len, void *arg)
{
    (void)arg;
    vterm_input_write(term, bytes, len);
}

static void on_reply(const char *bytes, size_t len, void *arg)
{
    (void)arg;
    printf("output ");
    for (size_t i = 0; i < len; i++)
        printf("%x%s", (unsigned char)bytes[i], i + 1 < len ? "," : "\n");
}

static void on_cursor(int *row, int *col, void *arg)
{
    VTermPos pos;
    (void)arg;
    vterm_state_get_cursorpos(vterm_obtain_state(term), &pos);
    *row = pos.row + 1;
    *col = pos.col + 1;
}

static void on_size(int *rows, int *cols, void *arg)
{
    (void)arg;
    vterm_get_size(term, rows, cols);
}

size_t shim_input(VTerm *vt, const char *bytes, size_t len)
{
    static const struct vt_ops ops = {on_out, on_reply, NULL, on_cursor, on_size};
    if (!filter || vt != term) {
        vtfilter_free(filter);
        filter = vtfilter_new(VT_LIBVTERM, &ops, NULL);
        term = vt;
    }
    vtfilter_feed(filter, bytes, len);
    return len;
}

/* A reset of libvterm from outside, which the filter would not hear of. */
void shim_reset(void)
{
    vtfilter_free(filter);
    filter = NULL;
}
