#include "ui/dash/term_copy.h"

#include <stdlib.h>
#include <string.h>

static uint64_t highest_top(const struct term_copy *c, const struct term_emu *emu)
{
    uint64_t end = term_emu_end(emu), first = term_emu_first(emu), rows = (uint64_t)(c->rows > 0 ? c->rows : 1);
    return end > first + rows ? end - rows : first;
}

uint64_t term_copy_top(struct term_copy *c, const struct term_emu *emu)
{
    uint64_t first = term_emu_first(emu), top = term_emu_top(emu);
    if (c->look == TERM_FOLLOW) {
        int row, col;
        term_emu_cursor(emu, &row, &col);
        c->top = top;
        if (c->rows < term_emu_rows(emu) && row >= c->rows)
            c->top = top + (uint64_t)(row - c->rows + 1);
        return c->top;
    }
    if (c->top < first) /* what it showed is gone */
        c->top = first;
    if (c->top >= term_emu_end(emu))
        c->top = highest_top(c, emu);
    return c->top;
}

void term_copy_scroll(struct term_copy *c, const struct term_emu *emu, long lines)
{
    uint64_t top = term_copy_top(c, emu), first = term_emu_first(emu), last = term_emu_top(emu);
    if (last < highest_top(c, emu))
        last = highest_top(c, emu);
    if (lines < 0)
        top = top - first < (uint64_t)-lines ? first : top - (uint64_t)-lines;
    else
        top = last - top < (uint64_t)lines || top > last ? last : top + (uint64_t)lines;
    c->top = top;
    if (c->look == TERM_COPY)
        return;
    c->look = top >= term_emu_top(emu) ? TERM_FOLLOW : TERM_PAUSED;
}

/* The cursor stays on lines that exist, and the pane shows it. */
static void keep(struct term_copy *c, const struct term_emu *emu)
{
    uint64_t first = term_emu_first(emu), end = term_emu_end(emu);
    if (c->cursor.line < first)
        c->cursor.line = first;
    if (c->cursor.line >= end)
        c->cursor.line = end - 1;
    if (c->cursor.col < 0)
        c->cursor.col = 0;
    if (c->cursor.col >= term_emu_cols(emu))
        c->cursor.col = term_emu_cols(emu) - 1;
    uint64_t rows = (uint64_t)(c->rows > 0 ? c->rows : 1);
    if (c->cursor.line < c->top)
        c->top = c->cursor.line;
    else if (c->cursor.line >= c->top + rows)
        c->top = c->cursor.line - rows + 1;
    if (c->select != SELECT_NONE)
        c->point = c->cursor;
}

void term_copy_enter(struct term_copy *c, const struct term_emu *emu)
{
    int row, col;
    if (c->look == TERM_COPY)
        return;
    uint64_t top = term_copy_top(c, emu);
    term_emu_cursor(emu, &row, &col);
    bool follow = c->look == TERM_FOLLOW;
    c->look = TERM_COPY;
    c->top = top;
    c->select = SELECT_NONE;
    c->match_cells = 0;
    c->cursor = (struct term_place){follow ? term_emu_top(emu) + (uint64_t)row : top + (uint64_t)(c->rows > 1 ? c->rows - 1 : 0), follow ? col : 0};
    keep(c, emu);
}

void term_copy_leave(struct term_copy *c)
{
    c->look = TERM_FOLLOW;
    c->select = SELECT_NONE;
    c->match_cells = 0;
}

static int last_col(const struct term_emu *emu, uint64_t line)
{
    static struct term_cell cells[TERM_COLS_MAX];
    int n = term_emu_line(emu, line, cells, TERM_COLS_MAX);
    while (n > 0 && cells[n - 1].width == 1 && (cells[n - 1].ch[0] == 0 || cells[n - 1].ch[0] == ' '))
        n--;
    return n > 0 ? n - 1 : 0;
}

/* What double clicks and word movements take as one. */
static bool word_cell(const struct term_cell *c)
{
    uint32_t ch = c->ch[0];
    return c->width == 0 || ch > 0x7f || (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
           (ch && ch < 0x80 && strchr("_-./~+:@%?&=#", (int)ch));
}

static void by_word(struct term_copy *c, const struct term_emu *emu, int step)
{
    static struct term_cell cells[TERM_COLS_MAX];
    bool left_word = step > 0 ? false : true, begun = false;
    uint64_t line = c->cursor.line;
    int col = c->cursor.col, have = term_emu_line(emu, line, cells, TERM_COLS_MAX);
    if (step > 0) {
        while (col < have && word_cell(&cells[col]))
            col++;
        left_word = true;
    } else {
        col--;
    }
    for (int lines = 0; lines < 1000 && left_word; lines++) {
        while (col >= 0 && col < have) {
            bool w = word_cell(&cells[col]);
            if (step > 0 && w)
                goto found;
            if (step < 0 && begun && !w) {
                col++;
                goto found;
            }
            begun = begun || (step < 0 && w);
            col += step;
        }
        if (step < 0 && begun) {
            col = 0;
            goto found;
        }
        if ((step > 0 && line + 1 >= term_emu_end(emu)) || (step < 0 && line <= term_emu_first(emu)))
            return;
        line = step > 0 ? line + 1 : line - 1;
        have = term_emu_line(emu, line, cells, TERM_COLS_MAX);
        col = step > 0 ? 0 : have - 1;
    }
    return;
found:
    c->cursor = (struct term_place){line, col};
}

static void toggle(struct term_copy *c, enum term_select how)
{
    if (c->select == how) {
        c->select = SELECT_NONE;
        return;
    }
    if (c->select == SELECT_NONE)
        c->anchor = c->cursor;
    c->select = how;
    c->point = c->cursor;
}

bool term_copy_find(struct term_copy *c, const struct term_emu *emu, bool back)
{
    struct term_place at;
    int cells;
    if (!c->search[0])
        return false;
    term_copy_enter(c, emu);
    if (!term_emu_search(emu, c->search, c->cursor, back, &at, &cells)) {
        c->match_cells = 0;
        return false;
    }
    c->cursor = at;
    c->match_cells = cells;
    uint64_t rows = (uint64_t)(c->rows > 0 ? c->rows : 1), first = term_emu_first(emu);
    if (at.line < c->top || at.line >= c->top + rows) /* with some lines before it */
        c->top = at.line - first < rows / 3 ? first : at.line - rows / 3;
    keep(c, emu);
    return true;
}

bool term_copy_action(struct term_copy *c, const struct term_emu *emu, const char *action)
{
    long page = c->rows > 2 ? c->rows - 1 : 1;
    c->match_cells = 0;
    if (strcmp(action, "up") == 0) {
        if (c->cursor.line > term_emu_first(emu))
            c->cursor.line--;
    } else if (strcmp(action, "down") == 0) {
        c->cursor.line++;
    } else if (strcmp(action, "left") == 0) {
        c->cursor.col--;
    } else if (strcmp(action, "right") == 0) {
        c->cursor.col++;
    } else if (strcmp(action, "pgup") == 0 || strcmp(action, "half-up") == 0) {
        uint64_t n = (uint64_t)(action[0] == 'h' ? (page + 1) / 2 : page);
        term_copy_scroll(c, emu, -(long)n);
        c->cursor.line = c->cursor.line - term_emu_first(emu) < n ? term_emu_first(emu) : c->cursor.line - n;
    } else if (strcmp(action, "pgdn") == 0 || strcmp(action, "half-down") == 0) {
        long n = action[0] == 'h' ? (page + 1) / 2 : page;
        term_copy_scroll(c, emu, n);
        c->cursor.line += (uint64_t)n;
    } else if (strcmp(action, "bol") == 0) {
        c->cursor.col = 0;
    } else if (strcmp(action, "eol") == 0) {
        c->cursor.col = last_col(emu, c->cursor.line);
    } else if (strcmp(action, "top") == 0) {
        c->cursor = (struct term_place){term_emu_first(emu), 0};
    } else if (strcmp(action, "bottom") == 0) {
        c->cursor = (struct term_place){term_emu_end(emu) - 1, 0};
    } else if (strcmp(action, "select") == 0) {
        toggle(c, SELECT_CELLS);
    } else if (strcmp(action, "select-lines") == 0) {
        toggle(c, SELECT_LINES);
    } else if (strcmp(action, "select-block") == 0) {
        toggle(c, SELECT_BLOCK);
    } else if (strcmp(action, "word") == 0) {
        by_word(c, emu, 1);
    } else if (strcmp(action, "back-word") == 0) {
        by_word(c, emu, -1);
    } else if (strcmp(action, "next") == 0) {
        term_copy_find(c, emu, false);
    } else if (strcmp(action, "previous") == 0) {
        term_copy_find(c, emu, true);
    } else {
        return false;
    }
    keep(c, emu);
    return true;
}

static bool before(struct term_place a, struct term_place b)
{
    return a.line < b.line || (a.line == b.line && a.col < b.col);
}

bool term_copy_selected(const struct term_copy *c, uint64_t line, int col)
{
    if (c->select == SELECT_NONE)
        return false;
    struct term_place a = c->anchor, b = c->point, at = {line, col};
    if (before(b, a)) {
        struct term_place x = a;
        a = b;
        b = x;
    }
    if (line < a.line || line > b.line)
        return false;
    if (c->select == SELECT_LINES)
        return true;
    if (c->select == SELECT_BLOCK) {
        int l = c->anchor.col < c->point.col ? c->anchor.col : c->point.col, r = c->anchor.col < c->point.col ? c->point.col : c->anchor.col;
        return col >= l && col <= r;
    }
    return !before(at, a) && !before(b, at);
}

char *term_copy_text(const struct term_copy *c, const struct term_emu *emu, size_t *len)
{
    if (c->select == SELECT_NONE)
        return NULL;
    struct term_place a = c->anchor, b = c->point;
    if (c->select == SELECT_LINES) {
        if (b.line < a.line) {
            struct term_place x = a;
            a = b;
            b = x;
        }
        a.col = 0;
        b.col = TERM_COLS_MAX - 1;
    } else if (c->select == SELECT_BLOCK && b.line < a.line) {
        struct term_place x = a;
        a = b;
        b = x;
    }
    return term_emu_text(emu, a, b, c->select == SELECT_BLOCK, len);
}

void term_copy_word(struct term_copy *c, const struct term_emu *emu, struct term_place at)
{
    static struct term_cell cells[TERM_COLS_MAX];
    int have = term_emu_line(emu, at.line, cells, TERM_COLS_MAX), a = at.col, b = at.col;
    if (at.col >= have || at.col < 0)
        return;
    bool w = word_cell(&cells[at.col]);
    while (w && a > 0 && word_cell(&cells[a - 1]))
        a--;
    while (w && b + 1 < have && word_cell(&cells[b + 1]))
        b++;
    c->select = SELECT_CELLS;
    c->anchor = (struct term_place){at.line, a};
    c->point = (struct term_place){at.line, b};
}

void term_copy_line(struct term_copy *c, struct term_place at)
{
    c->select = SELECT_LINES;
    c->anchor = c->point = at;
}
