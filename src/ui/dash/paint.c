#include "ui/dash/paint.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "core/sanitize.h"
#include "core/width.h"
#include "ui/dash/app.h"
#include "ui/dash/screen.h"

/* The next character that may be shown; '?' for what may not. */
static size_t next(const char *p, unsigned *code, int *width)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t n = sanitize_utf8(u, strnlen(p, 4), code);
    if (n == 0 || *code < 32 || (*code >= 127 && *code < 160)) {
        *code = '?';
        *width = 1;
        return n ? n : 1;
    }
    *width = *code < 127 ? 1 : width_of(*code);
    return n;
}

int paint_width(const char *text)
{
    int total = 0, w;
    unsigned c;
    while (*text) {
        text += next(text, &c, &w);
        total += w;
    }
    return total;
}

/* What is nearest to a character of ours where there are none but those of ASCII. */
static wchar_t plain(unsigned code)
{
    static const struct {
        wchar_t code, plain;
    } table[] = {{0x2191, L'^'}, {0x2193, L'v'}, {0x2190, L'<'}, {0x2192, L'>'}, {0x2026, L'~'}, {0xd7, L'x'}, {0xb7, L'-'}, {0x2013, L'-'}, {0x2022, L'*'}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if ((unsigned)table[i].code == code)
            return table[i].plain;
    return L'?';
}

static void put_glyph(WINDOW *w, unsigned code, int width, const struct look *l)
{
    wchar_t wc[2] = {(wchar_t)code, 0};
    cchar_t cell;
    int pair = l->pair;
    if (code > 126 && !screen_utf8())
        wc[0] = plain(code);
    else if (code > 126 && wcwidth((wchar_t)code) != width) /* ncurses would move what follows */
        wc[0] = 0xfffd;
    setcchar(&cell, wc, l->attrs, (short)(pair > 32767 ? 0 : pair), &pair);
    wadd_wch(w, &cell);
    if (width == 2 && (wc[0] == 0xfffd || wc[0] == L'?')) /* what stands for it has one column */
        wadd_wch(w, &cell);
}

static void put_char(WINDOW *w, unsigned code, const struct look *l)
{
    put_glyph(w, code, 1, l);
}

int paint_text(WINDOW *w, int y, int x, int room, enum style s, const char *text)
{
    struct look l = theme_look(s);
    int used = 0, width, left = getmaxx(w) - x;
    if (room > left)
        room = left;
    if (room <= 0 || x < 0 || y < 0 || y >= getmaxy(w))
        return 0;
    bool cut = paint_width(text) > room;
    int limit = cut ? room - 1 : room;
    wmove(w, y, x);
    for (unsigned c; *text;) {
        text += next(text, &c, &width);
        if (used + width > limit)
            break;
        if (width == 0)
            continue; /* a mark that joins: names of files and hosts do without */
        put_glyph(w, c, width, &l);
        used += width;
    }
    if (cut) {
        put_char(w, screen_utf8() ? 0x2026 : '~', &l);
        used++;
    }
    return used;
}

int paint_f(WINDOW *w, int y, int x, int room, enum style s, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return paint_text(w, y, x, room, s, text);
}

int paint_right(WINDOW *w, int y, int end, int room, enum style s, const char *text)
{
    int n = paint_width(text);
    if (n > room)
        n = room;
    paint_text(w, y, end - n, n, s, text);
    return end - n;
}

int paint_centre(WINDOW *w, int y, int cols, enum style s, const char *text)
{
    int n = paint_width(text), x = n < cols ? (cols - n) / 2 : 0;
    return x + paint_text(w, y, x, cols - x, s, text);
}

int paint_typed(WINDOW *w, int y, int x, int room, enum style s, const char *text, size_t at)
{
    char before[512];
    for (const char *from = text;; from++) {
        if (((unsigned char)*from & 0xc0) == 0x80)
            continue;
        snprintf(before, sizeof before, "%.*s", (int)(text + at - from), from);
        if (paint_width(before) < room || !before[0]) {
            paint_text(w, y, x, room, s, from);
            return paint_width(before);
        }
    }
}

size_t paint_line(const char *text, int cols)
{
    const char *p = text, *word = NULL;
    int used = 0, width;
    unsigned c;
    while (*p && *p != '\n') {
        size_t n = next(p, &c, &width);
        if (*p == ' ')
            word = p;
        if (used + width > cols)
            break;
        used += width;
        p += n;
    }
    return (size_t)((*p && *p != '\n' && word && word > text ? word : p) - text);
}

int paint_wrap(WINDOW *w, int y, int x, int cols, int max, enum style s, const char *text)
{
    int rows = 0;
    if (cols < 4)
        return 0;
    while (*text && rows < max) {
        const char *end = text + paint_line(text, cols);
        char line[1024];
        size_t n = (size_t)(end - text) < sizeof line ? (size_t)(end - text) : sizeof line - 1;
        memcpy(line, text, n);
        line[n] = '\0';
        if (w)
            paint_text(w, y + rows, x, cols, s, line);
        rows++;
        if (end == text && *end != '\n')
            break;
        text = end;
        if (*text == '\n' || *text == ' ')
            text++;
    }
    return rows;
}

void paint_row(WINDOW *w, int y, int x, int n, enum style s)
{
    struct look l = theme_look(s);
    int pair = l.pair;
    if (y >= 0 && y < getmaxy(w) && n > 0)
        mvwchgat(w, y, x, n, l.attrs, (short)(pair > 32767 ? 0 : pair), &pair);
}

void paint_under(WINDOW *w, int y, int x, int n, enum style own, enum style background)
{
    struct look l = theme_look(own), under = theme_look(background);
    int fg = -1, bg = -1, none;
    if (l.pair && under.pair && extended_pair_content(l.pair, &fg, &none) == OK && extended_pair_content(under.pair, &none, &bg) == OK)
        l.pair = theme_pair(fg, bg);
    else
        l.attrs |= under.attrs & A_REVERSE;
    if (y >= 0 && y < getmaxy(w) && n > 0)
        mvwchgat(w, y, x, n, l.attrs, (short)(l.pair > 32767 ? 0 : l.pair), &l.pair);
}

void paint_bar(WINDOW *w, int y, int x, int n, double fraction)
{
    static const unsigned eighths[] = {0, 0x258f, 0x258e, 0x258d, 0x258c, 0x258b, 0x258a, 0x2589};
    if (fraction < 0)
        fraction = 0;
    if (fraction > 1)
        fraction = 1;
    struct look full = theme_look(ST_BAR), empty = theme_look(ST_BAR_EMPTY);
    int units = (int)(fraction * n * 8 + 0.5);
    if (x + n > getmaxx(w))
        n = getmaxx(w) - x;
    wmove(w, y, x);
    for (int i = 0; i < n; i++, units -= 8) {
        if (!screen_utf8())
            put_char(w, units >= 8 ? '#' : '.', units >= 8 ? &full : &empty);
        else if (units >= 8)
            put_char(w, 0x2588, &full);
        else if (units > 0)
            put_char(w, eighths[units], &full);
        else
            put_char(w, 0x2591, &empty);
    }
}

void paint_frame(WINDOW *w, enum style frame, enum style heading, const char *left, const char *right)
{
    int rows = getmaxy(w), cols = getmaxx(w), room = cols - 4;
    struct look l = theme_look(frame);
    static const unsigned fancy[] = {0x256d, 0x256e, 0x2570, 0x256f, 0x2500, 0x2502};
    static const unsigned plain[] = {'+', '+', '+', '+', '-', '|'};
    const unsigned *g = screen_utf8() ? fancy : plain;
    wmove(w, 0, 0);
    put_char(w, g[0], &l);
    for (int i = 1; i < cols - 1; i++)
        put_char(w, g[4], &l);
    put_char(w, g[1], &l);
    for (int y = 1; y < rows - 1; y++) {
        wmove(w, y, 0);
        put_char(w, g[5], &l);
        wmove(w, y, cols - 1);
        put_char(w, g[5], &l);
    }
    wmove(w, rows - 1, 0);
    put_char(w, g[2], &l);
    for (int i = 1; i < cols - 1; i++)
        put_char(w, g[4], &l);
    put_char(w, g[3], &l);
    if (left && *left && room > 2) {
        int n = paint_width(left), taken = right && *right ? paint_width(right) + 6 : 2;
        if (n > room - taken) /* a long name gives way to what the right says, as long as some of it can be read */
            n = room - taken >= 12 ? room - taken : n > room - 2 ? room - 2 : n;
        paint_text(w, 0, 2, 1, heading, " ");
        n = paint_text(w, 0, 3, n, heading, left);
        paint_text(w, 0, 3 + n, 1, heading, " ");
        room -= n + 4;
    }
    if (right && *right && room > 4) {
        int n = paint_width(right);
        if (n > room - 2)
            return;
        enum style said = frame == ST_FRAME ? ST_DIM : frame; /* lines may fade, words ("PAUSED") are read */
        paint_text(w, 0, cols - 3 - n, 1, said, " ");
        paint_text(w, 0, cols - 2 - n, n, said, right);
        paint_text(w, 0, cols - 2, 1, said, " ");
    }
}

void paint_scroll(WINDOW *w, int top, int rows, long first, long n, long total, enum style s)
{
    struct look l = theme_look(s);
    if (total <= n || rows < 3)
        return;
    int size = (int)((long)rows * n / total), at;
    if (size < 1)
        size = 1;
    at = total > n ? (int)((rows - size) * first / (total - n)) : 0;
    for (int i = 0; i < size; i++) {
        wmove(w, top + at + i, getmaxx(w) - 1);
        put_char(w, screen_utf8() ? 0x2503 : '#', &l);
    }
}

long paint_scroll_to(int y, int rows, long n, long total)
{
    if (total <= n || rows < 2)
        return 0;
    y = y < 0 ? 0 : y >= rows ? rows - 1 : y;
    return ((total - n) * y + (rows - 1) / 2) / (rows - 1);
}

const char *paint_spinner(void)
{
    static const char *const fancy[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
    static const char *const plain[] = {"|", "/", "-", "\\"};
    unsigned t = (unsigned)(app_now_ms() / 100);
    return screen_utf8() ? fancy[t % 10] : plain[t % 4];
}

void paint_kib(long long kib, char *out, size_t cap)
{
    if (kib < 1024)
        snprintf(out, cap, "%lld KiB", kib);
    else if (kib < 1024 * 1024)
        snprintf(out, cap, "%lld MiB", kib / 1024);
    else
        snprintf(out, cap, "%.1f GiB", (double)kib / (1024.0 * 1024.0));
}

void paint_span(long long s, char *out, size_t cap)
{
    if (s < 60)
        snprintf(out, cap, "%llds", s < 0 ? 0 : s);
    else if (s < 3600)
        snprintf(out, cap, "%lldm", s / 60);
    else if (s < 86400)
        snprintf(out, cap, "%lldh%02lldm", s / 3600, s / 60 % 60);
    else
        snprintf(out, cap, "%lldd%lldh", s / 86400, s / 3600 % 24);
}

void paint_path(const char *path, char *out, size_t cap, int room)
{
    const char *home = getenv("HOME");
    size_t n = home ? strlen(home) : 0;
    char full[512];
    if (n > 1 && strncmp(path, home, n) == 0 && (path[n] == '/' || !path[n]))
        snprintf(full, sizeof full, "~%s", path + n);
    else
        snprintf(full, sizeof full, "%s", path);
    int w = paint_width(full);
    const char *from = full;
    if (w > room) {
        from = full + strlen(full);
        while (from > full && (int)strlen(from) < room - 1)
            from--;
        while (((unsigned char)*from & 0xc0) == 0x80)
            from++;
    }
    snprintf(out, cap, "%s%s", from == full ? "" : app_glyph("…", "~"), from);
}
