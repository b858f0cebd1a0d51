#include "ui/dash/term_draw.h"

#include <wchar.h>

#include "core/width.h"
#include "ui/dash/screen.h"
#include "ui/dash/theme.h"

static uint32_t palette(unsigned n)
{
    static const uint32_t base[16] = {0x000000, 0xcd0000, 0x00cd00, 0xcdcd00, 0x0000ee, 0xcd00cd, 0x00cdcd, 0xe5e5e5,
                                      0x7f7f7f, 0xff0000, 0x00ff00, 0xffff00, 0x5c5cff, 0xff00ff, 0x00ffff, 0xffffff};
    static const uint8_t step[6] = {0, 95, 135, 175, 215, 255};
    if (n < 16)
        return base[n];
    if (n < 232)
        return (uint32_t)step[(n - 16) / 36] << 16 | (uint32_t)step[(n - 16) / 6 % 6] << 8 | step[(n - 16) % 6];
    uint32_t g = 8 + 10 * (n - 232);
    return g << 16 | g << 8 | g;
}

int term_draw_colour(uint32_t c)
{
    if (c == TERM_DEFAULT)
        return -1;
    if (c & TERM_RGB)
        return theme_rgb(c & 0xffffff);
    unsigned n = c & 255u;
    if (COLORS > 0xffff) /* direct colours: only the first numbers are the palette's */
        return n < 8 ? (int)n : theme_rgb(palette(n));
    if (COLORS >= 256 || (int)n < COLORS)
        return (int)n;
    return n < 16 ? (int)(n == 8 ? 7 : n & 7) : theme_rgb(palette(n));
}

static attr_t attributes(uint16_t a)
{
    static const struct {
        uint16_t mine;
        attr_t theirs;
    } table[] = {{TERM_BOLD, A_BOLD},       {TERM_DIM, A_DIM},         {TERM_ITALIC, A_ITALIC},
                 {TERM_UNDERLINE, A_UNDERLINE}, {TERM_BLINK, A_BLINK}, {TERM_REVERSE, A_REVERSE},
                 {TERM_CONCEAL, A_INVIS},   {TERM_STRIKE, A_HORIZONTAL}, {TERM_OVERLINE, A_TOP}};
    attr_t out = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (a & table[i].mine)
            out |= table[i].theirs;
    return out;
}

/* Terminals without UTF-8 get what is nearest. */
static wchar_t plain(uint32_t c)
{
    if (c < 0x7f)
        return (wchar_t)c;
    if (c == 0x2500 || c == 0x2501 || c == 0x2550)
        return L'-';
    if (c == 0x2502 || c == 0x2503 || c == 0x2551)
        return L'|';
    if (c >= 0x2500 && c < 0x2580)
        return L'+';
    if (c == 0x2022 || c == 0x25cf)
        return L'*';
    return L'?';
}

struct pen {
    uint32_t fg, bg;
    int pair;
    bool known;
};

static int pair_of(struct pen *p, uint32_t fg, uint32_t bg)
{
    if (!p->known || p->fg != fg || p->bg != bg) {
        int ink, ground;
        theme_default(&ink, &ground);
        *p = (struct pen){fg, bg, theme_pair(fg == TERM_DEFAULT ? ink : term_draw_colour(fg), bg == TERM_DEFAULT ? ground : term_draw_colour(bg)), true};
    }
    return p->pair;
}

/* The characters of a cell as ncurses takes them; false: ncurses would give it another width, and it is replaced. */
static bool characters(const struct term_cell *c, wchar_t out[CCHARW_MAX + 1])
{
    int n = 0;
    out[0] = L' ';
    out[1] = 0;
    if (c->ch[0] == 0)
        return true;
    if (!screen_utf8()) {
        out[0] = plain(c->ch[0]);
        return c->width == 1;
    }
    int w = c->ch[0] < 0x7f ? 1 : wcwidth((wchar_t)c->ch[0]);
    if (w != c->width) {
        out[0] = 0xfffd;
        return false;
    }
    for (int k = 0; k < TERM_CHARS && c->ch[k] && n < CCHARW_MAX; k++)
        if (k == 0 || wcwidth((wchar_t)c->ch[k]) == 0)
            out[n++] = (wchar_t)c->ch[k];
    out[n] = 0;
    return true;
}

void term_draw(WINDOW *win, int y, int x, struct term_copy *copy, const struct term_emu *emu)
{
    static struct term_cell cells[TERM_COLS_MAX];
    static cchar_t row[TERM_COLS_MAX + 1];
    uint64_t top = term_copy_top(copy, emu);
    int cols = copy->cols < TERM_COLS_MAX ? copy->cols : TERM_COLS_MAX;
    bool inverse = term_emu_mode(emu, 5);
    struct look match = theme_look(ST_MATCH);
    struct pen pen = {.known = false};
    for (int r = 0; r < copy->rows; r++) {
        uint64_t line = top + (uint64_t)r;
        int n = 0;
        if (term_emu_line(emu, line, cells, cols) < 0)
            break;
        for (int i = 0; i < cols; i++) {
            const struct term_cell *c = &cells[i];
            wchar_t text[CCHARW_MAX + 1];
            if (c->width == 0)
                continue;
            attr_t attrs = attributes(c->attrs);
            int pair = pair_of(&pen, c->fg, c->bg);
            if (inverse)
                attrs ^= A_REVERSE;
            if (term_copy_selected(copy, line, i))
                attrs ^= A_REVERSE;
            /* A match may run on into the lines below. */
            long at = line < copy->cursor.line || line - copy->cursor.line > 255 ? -1 : (long)(line - copy->cursor.line) * term_emu_cols(emu) + i;
            if (copy->look == TERM_COPY && copy->match_cells && at >= copy->cursor.col && at < copy->cursor.col + copy->match_cells) {
                attrs = match.attrs;
                pair = match.pair;
                if (!attrs && !pair)
                    attrs = A_REVERSE;
            }
            bool whole = characters(c, text);
            setcchar(&row[n++], text, attrs, (short)(pair > 32767 ? 0 : pair), &pair);
            if (!whole && c->width == 2)
                setcchar(&row[n++], L" ", attrs, (short)(pair > 32767 ? 0 : pair), &pair);
        }
        mvwadd_wchnstr(win, y + r, x, row, n);
    }
}
