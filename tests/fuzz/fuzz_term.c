// needs: src/core/vtfilter.c src/core/vtfilter_csi.c src/core/vtfilter_string.c src/core/width.c src/core/sanitize.c src/core/termline.c src/ui/dash/term_emu.c src/ui/dash/term_copy.c src/ui/dash/term_keys.c src/ui/dash/input.c
/* The terminal pane without its window: what a hostile program prints, resizes of the session and of the pane in
 * between, and a user who scrolls, searches, selects, pastes and clicks meanwhile.  0xff and two bytes are a resize,
 * 0xfe and one byte is something that the user does. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/width.h"
#include "ui/dash/term_copy.h"
#include "ui/dash/term_keys.h"

static void swallow(const char *bytes, size_t len, void *arg)
{
    (void)arg;
    if (len && !bytes)
        abort();
}

/* All that can be seen: no cell holds a control, widths add up, and nothing lies beyond the row. */
static void look(struct term_copy *c, const struct term_emu *t)
{
    static struct term_cell cells[TERM_COLS_MAX];
    uint64_t top = term_copy_top(c, t);
    int row, col;
    term_emu_cursor(t, &row, &col);
    if (row < 0 || col < 0 || row >= term_emu_rows(t) || col >= term_emu_cols(t))
        abort();
    if (top < term_emu_first(t) || top > term_emu_end(t))
        abort();
    for (int r = 0; r < c->rows; r++) {
        int have = term_emu_line(t, top + (uint64_t)r, cells, c->cols);
        for (int i = 0; i < (have < 0 ? 0 : c->cols); i++) {
            if (cells[i].width == 0 && (i == 0 || cells[i - 1].width != 2))
                abort();
            if (cells[i].width == 2 && (i + 1 >= c->cols || cells[i + 1].width != 0))
                abort();
            for (int k = 0; k < TERM_CHARS && cells[i].ch[k]; k++)
                if (cells[i].ch[k] < 32 || (cells[i].ch[k] >= 127 && cells[i].ch[k] < 160) || cells[i].ch[k] > 0x10ffff)
                    abort();
            term_copy_selected(c, top + (uint64_t)r, i);
        }
    }
}

static void user(struct term_copy *c, const struct term_emu *t, unsigned what)
{
    static const char *const actions[] = {"up", "down", "left", "right", "pgup", "pgdn", "bol", "eol", "top", "bottom", "select",
                                          "select-lines", "select-block", "word", "back-word", "half-up", "half-down"};
    struct input in = {.type = INPUT_MOUSE, .mouse = (enum mouse_kind)(what % 5), .button = (int)(what % 4), .raw = ""};
    size_t len;
    char *text;
    switch (what % 8) {
    case 0:
        term_copy_enter(c, t);
        break;
    case 1:
        term_copy_leave(c);
        break;
    case 2:
        term_copy_scroll(c, t, (long)what - 128);
        break;
    case 3:
        strcpy(c->search, what & 8 ? "a" : what & 16 ? "A\xc3\xa9" : "\xe4\xb8\xad");
        term_copy_find(c, t, what & 32);
        break;
    case 4:
        text = term_copy_text(c, t, &len);
        if (text && strlen(text) != len)
            abort();
        free(text);
        break;
    case 5:
        term_keys_mouse(t, &in, (int)(what / 8) - 2, (int)(what / 4) - 2, swallow, NULL);
        term_copy_word(c, t, (struct term_place){term_copy_top(c, t) + what % 7, (int)what % 30});
        break;
    case 6:
        in = (struct input){.type = INPUT_PASTE, .paste_begin = true, .paste_end = true, .raw = "a\033[201~\xc2\x9b\n", .raw_len = 11};
        term_keys_input(t, &in, swallow, NULL);
        term_keys_focus(t, true, swallow, NULL);
        break;
    default:
        if (c->look == TERM_COPY)
            term_copy_action(c, t, actions[what / 8 % (sizeof actions / sizeof *actions)]);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct term_emu *t = term_emu_new(24, 80, 40, NULL, NULL);
    struct term_copy c = {.rows = 20, .cols = 70};
    if (!t)
        abort();
    for (size_t i = 0; i < size;) {
        if (data[i] == 0xff && i + 2 < size) {
            if (data[i + 1] & 0x80) {
                c.rows = 1 + data[i + 1] % 60;
                c.cols = 1 + data[i + 2] % 200;
            } else {
                term_emu_resize(t, data[i + 1] % 40, data[i + 2] % 120);
            }
            i += 3;
        } else if (data[i] == 0xfe && i + 1 < size) {
            user(&c, t, data[i + 1]);
            look(&c, t);
            i += 2;
        } else {
            size_t n = 1;
            while (i + n < size && n < 512 && data[i + n] < 0xfe)
                n++;
            term_emu_feed(t, data + i, n);
            i += n;
        }
    }
    look(&c, t);
    term_emu_free(t);
    return 0;
}
