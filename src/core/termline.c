#include "core/termline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"
#include "core/vtfilter.h"
#include "core/width.h"

#define RIGHT_HALF ((uint32_t)-1) /* libvterm's mark behind a wide character */

/* ---- libvterm's cells to ours ---- */

static uint32_t colour_of(const VTermColor *c, uint8_t is_default)
{
    if (c->type & is_default)
        return TERM_DEFAULT;
    if (VTERM_COLOR_IS_INDEXED(c))
        return TERM_INDEXED | c->indexed.idx;
    return TERM_RGB | (uint32_t)c->rgb.red << 16 | (uint32_t)c->rgb.green << 8 | c->rgb.blue;
}

/* libvterm has no dim, conceal and overline: the filter carries them in the font's number. */
static uint16_t font_attrs(unsigned font)
{
    return (uint16_t)((font & 1 ? TERM_DIM : 0) | (font & 2 ? TERM_CONCEAL : 0) | (font & 4 ? TERM_OVERLINE : 0));
}

static uint16_t underline_attrs(unsigned u)
{
    return (uint16_t)((u ? TERM_UNDERLINE : 0) | (u == VTERM_UNDERLINE_DOUBLE ? TERM_DOUBLE : 0) | (u == VTERM_UNDERLINE_CURLY ? TERM_CURLY : 0));
}

static uint16_t attrs_of(const VTermScreenCell *c)
{
    unsigned a = (c->attrs.bold ? TERM_BOLD : 0u) | (c->attrs.italic ? TERM_ITALIC : 0u) | (c->attrs.blink ? TERM_BLINK : 0u) |
                 (c->attrs.reverse ? TERM_REVERSE : 0u) | (c->attrs.strike ? TERM_STRIKE : 0u);
    return (uint16_t)(a | font_attrs(c->attrs.font) | underline_attrs(c->attrs.underline));
}

void term_cell_convert(const VTermScreenCell *c, struct term_cell *out)
{
    memset(out->ch, 0, sizeof out->ch);
    out->fg = colour_of(&c->fg, VTERM_COLOR_DEFAULT_FG);
    out->bg = colour_of(&c->bg, VTERM_COLOR_DEFAULT_BG);
    out->attrs = attrs_of(c);
    out->width = 1;
    if (c->chars[0] == RIGHT_HALF) {
        out->width = 0;
    } else if (c->chars[0] == 0) { /* an erased cell has the background alone; libvterm gives it the whole pen */
        out->attrs = 0;
        out->fg = TERM_DEFAULT;
    } else {
        int n = 0;
        if (c->chars[0] >= 0x300 && width_of(vtfilter_char(c->chars[0])) == 0) /* a mark without a character to join */
            out->ch[n++] = ' ';
        for (int k = 0; k < VTERM_MAX_CHARS_PER_CELL && c->chars[k] && c->chars[k] != RIGHT_HALF && n < TERM_CHARS; k++)
            out->ch[n++] = vtfilter_char(c->chars[k]);
    }
}

void term_cells_mend(struct term_cell *cells, int n)
{
    for (int i = 0; i < n; i++) {
        struct term_cell *c = &cells[i];
        if (c->width == 0 && (i == 0 || c[-1].width != 1 || c[-1].ch[0] < 0x1100 || width_of(c[-1].ch[0]) != 2)) {
            c->width = 1;
            c->ch[0] = 0;
        } else if (c->width == 0) {
            c[-1].width = 2;
            c->attrs = c[-1].attrs; /* libvterm leaves those of what stood there before */
            c->fg = c[-1].fg;
            c->bg = c[-1].bg;
        }
    }
    for (int i = 0; i < n; i++) /* a wide one that lost its right half */
        if (cells[i].width == 1 && cells[i].ch[0] >= 0x1100 && width_of(cells[i].ch[0]) == 2)
            memset(cells[i].ch, 0, sizeof cells[i].ch);
}

int term_libvterm_width(uint32_t code)
{
    static uint8_t known[0x110000]; /* 1 + width */
    static VTerm *probe;
    if (code >= 0x110000)
        return 1;
    if (!known[code]) {
        unsigned char b[8] = {'\r'};
        size_t n = 1 + term_utf8(b + 1, code);
        VTermPos pos = {0};
        if (!probe && (probe = vterm_new(2, 8))) {
            vterm_set_utf8(probe, 1);
            vterm_state_reset(vterm_obtain_state(probe), 1);
        }
        if (probe) {
            vterm_input_write(probe, (char *)b, n);
            vterm_state_get_cursorpos(vterm_obtain_state(probe), &pos);
        }
        known[code] = (uint8_t)(1 + pos.col);
    }
    return known[code] - 1;
}

struct term_look term_pen(VTerm *vt)
{
    VTermState *state = vterm_obtain_state(vt);
    struct term_look l = {0};
    VTermValue v;
    static const struct {
        VTermAttr attr;
        uint16_t bit;
    } flags[] = {{VTERM_ATTR_BOLD, TERM_BOLD},   {VTERM_ATTR_ITALIC, TERM_ITALIC}, {VTERM_ATTR_BLINK, TERM_BLINK},
                 {VTERM_ATTR_REVERSE, TERM_REVERSE}, {VTERM_ATTR_STRIKE, TERM_STRIKE}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (vterm_state_get_penattr(state, flags[i].attr, &v) && v.boolean)
            l.attrs |= flags[i].bit;
    if (vterm_state_get_penattr(state, VTERM_ATTR_UNDERLINE, &v))
        l.attrs |= underline_attrs((unsigned)v.number & 3u);
    if (vterm_state_get_penattr(state, VTERM_ATTR_FONT, &v))
        l.attrs |= font_attrs((unsigned)v.number);
    if (vterm_state_get_penattr(state, VTERM_ATTR_FOREGROUND, &v))
        l.fg = colour_of(&v.color, VTERM_COLOR_DEFAULT_FG);
    if (vterm_state_get_penattr(state, VTERM_ATTR_BACKGROUND, &v))
        l.bg = colour_of(&v.color, VTERM_COLOR_DEFAULT_BG);
    return l;
}

static size_t colour_sgr(char *out, size_t cap, uint32_t c, unsigned base)
{
    if (c & TERM_RGB)
        return (size_t)snprintf(out, cap, "\033[%u;2;%u;%u;%um", base + 8, c >> 16 & 255u, c >> 8 & 255u, c & 255u);
    if (c & TERM_INDEXED)
        return (size_t)snprintf(out, cap, "\033[%u;5;%um", base + 8, c & 255u);
    return 0;
}

size_t term_look_sgr(struct term_look l, char out[TERM_LOOK_MAX])
{
    unsigned font = (l.attrs & TERM_DIM ? 1u : 0u) | (l.attrs & TERM_CONCEAL ? 2u : 0u) | (l.attrs & TERM_OVERLINE ? 4u : 0u);
    size_t n = (size_t)snprintf(out, TERM_LOOK_MAX, "\033[0%s%s%s%s%s%s;%um", l.attrs & TERM_BOLD ? ";1" : "", l.attrs & TERM_ITALIC ? ";3" : "",
                                l.attrs & TERM_CURLY ? ";4:3" : l.attrs & TERM_DOUBLE ? ";21" : l.attrs & TERM_UNDERLINE ? ";4" : "",
                                l.attrs & TERM_BLINK ? ";5" : "", l.attrs & TERM_REVERSE ? ";7" : "", l.attrs & TERM_STRIKE ? ";9" : "", 10 + font);
    n += colour_sgr(out + n, TERM_LOOK_MAX - n, l.fg, 30);
    n += colour_sgr(out + n, TERM_LOOK_MAX - n, l.bg, 40);
    return n;
}

struct term_saved term_saved_now(VTerm *vt)
{
    VTermPos pos;
    vterm_state_get_cursorpos(vterm_obtain_state(vt), &pos);
    return (struct term_saved){pos.row, pos.col, term_pen(vt)};
}

static void go(VTerm *vt, struct term_saved s)
{
    char text[TERM_LOOK_MAX + 32];
    size_t n = (size_t)snprintf(text, sizeof text, "\033[%d;%dH", s.row + 1, s.col + 1);
    n += term_look_sgr(s.look, text + n);
    vterm_input_write(vt, text, n);
}

void term_saved_set(VTerm *vt, struct term_saved s, int rows, int cols, int top)
{
    struct term_saved now = term_saved_now(vt);
    s.row = s.row < rows ? s.row : rows - 1;
    s.col = s.col < cols ? s.col : cols - 1;
    if (top >= 0)
        vterm_input_write(vt, "\033[?6l", 5);
    go(vt, s);
    vterm_input_write(vt, "\0337", 2);
    if (top >= 0) {
        vterm_input_write(vt, "\033[?6h", 5);
        now.row = now.row > top ? now.row - top : 0;
    }
    go(vt, now);
}

/* ---- packed lines ---- */

size_t term_utf8(unsigned char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (unsigned char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (unsigned char)(0xc0 | c >> 6);
        out[1] = (unsigned char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (unsigned char)(0xe0 | c >> 12);
        out[1] = (unsigned char)(0x80 | (c >> 6 & 63));
        out[2] = (unsigned char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (unsigned char)(0xf0 | (c >> 18 & 7));
    out[1] = (unsigned char)(0x80 | (c >> 12 & 63));
    out[2] = (unsigned char)(0x80 | (c >> 6 & 63));
    out[3] = (unsigned char)(0x80 | (c & 63));
    return 4;
}

size_t term_line_size(const struct term_line *l)
{
    return sizeof *l + l->runs * sizeof(struct term_run) + l->len;
}

#define SHOWS_ON_BLANKS (TERM_REVERSE | TERM_UNDERLINE | TERM_STRIKE | TERM_OVERLINE)

/* Where a line is put together. */
struct builder {
    struct term_run run[TERM_COLS_MAX];
    unsigned char text[TERM_COLS_MAX * TERM_CHARS * 4];
    unsigned runs, cells;
    size_t len;
};

static struct term_run *run_for(struct builder *b, uint16_t attrs, uint32_t fg, uint32_t bg)
{
    struct term_run *r = b->runs ? &b->run[b->runs - 1] : NULL;
    if (!r || r->attrs != attrs || r->fg != fg || r->bg != bg) {
        r = &b->run[b->runs++];
        *r = (struct term_run){0, attrs, fg, bg};
    }
    return r;
}

static struct term_line *finish(struct builder *b)
{
    while (b->len && b->text[b->len - 1] == ' ' && b->runs && b->run[b->runs - 1].bg == TERM_DEFAULT &&
           !(b->run[b->runs - 1].attrs & SHOWS_ON_BLANKS)) {
        b->len--;
        b->cells--;
        if (--b->run[b->runs - 1].cells == 0)
            b->runs--;
    }
    if (b->runs == 1 && b->run[0].attrs == 0 && b->run[0].fg == 0 && b->run[0].bg == 0)
        b->runs = 0; /* the usual line: text alone */
    struct term_line *l = malloc(sizeof *l + b->runs * sizeof *b->run + b->len);
    if (l) {
        l->cells = (uint16_t)b->cells;
        l->runs = (uint16_t)b->runs;
        l->len = (uint32_t)b->len;
        memcpy(l->run, b->run, b->runs * sizeof *b->run);
        memcpy(l->run + b->runs, b->text, b->len);
    }
    return l;
}

struct term_line *term_line_pack(const struct term_cell *cells, int n)
{
    static struct builder b;
    b.runs = b.cells = 0;
    b.len = 0;
    for (int i = 0; i < n && i < TERM_COLS_MAX; i++) {
        const struct term_cell *c = &cells[i];
        run_for(&b, c->attrs, c->fg, c->bg)->cells++;
        b.cells++;
        if (c->width == 0)
            b.text[b.len++] = TERM_HALF;
        else if (c->ch[0] == 0)
            b.text[b.len++] = ' ';
        else
            for (int k = 0; k < TERM_CHARS && c->ch[k]; k++)
                b.len += term_utf8(b.text + b.len, c->ch[k]);
    }
    return finish(&b);
}

int term_line_unpack(const struct term_line *l, struct term_cell *out, int cap)
{
    const unsigned char *u = (const unsigned char *)(l->run + l->runs), *end = u + l->len;
    int n = 0;
    unsigned run = 0, left = l->runs ? l->run[0].cells : 0;
    while (u < end && n < cap) {
        struct term_cell *c = &out[n];
        *c = (struct term_cell){.width = 1};
        while (left == 0 && run + 1 < l->runs)
            left = l->run[++run].cells;
        if (l->runs) {
            c->attrs = l->run[run].attrs;
            c->fg = l->run[run].fg;
            c->bg = l->run[run].bg;
            if (left)
                left--;
        }
        if (*u == TERM_HALF) {
            c->width = 0;
            if (n)
                c[-1].width = 2;
            u++;
        } else {
            unsigned code;
            int k = 0;
            do {
                size_t used = *u < 0x80 ? 1 : sanitize_utf8(u, (size_t)(end - u), &code);
                if (*u < 0x80)
                    code = *u;
                if (used == 0)
                    return n;
                if (k && (code < 0x300 || width_of(code) != 0))
                    break;
                c->ch[k++] = code;
                u += used;
            } while (u < end && k < TERM_CHARS);
        }
        n++;
    }
    return n;
}

/* ---- floods ---- */

bool term_cells_blank(const struct term_cell *cells, int n)
{
    for (int i = 0; i < n; i++)
        if ((cells[i].ch[0] && cells[i].ch[0] != ' ') || cells[i].width != 1 || cells[i].bg != TERM_DEFAULT || (cells[i].attrs & SHOWS_ON_BLANKS))
            return false;
    return true;
}

/* The parameters of one SGR that the filter wrote; false: it is none that is known here. */
static bool sgr(const char *p, const char *end, struct term_look *l)
{
    static const uint16_t on[10] = {0, TERM_BOLD, 0, TERM_ITALIC, TERM_UNDERLINE, TERM_BLINK, 0, TERM_REVERSE, 0, TERM_STRIKE};
    while (p <= end) {
        unsigned v[5] = {0}, n = 0;
        bool sub = false;
        /* One number, or the five or three of a colour. */
        for (;;) {
            while (p < end && *p >= '0' && *p <= '9')
                v[n] = v[n] * 10 + (unsigned)(*p++ - '0');
            n++;
            bool more = n == 1 ? v[0] == 38 || v[0] == 48 : n == 2 || (v[1] == 2 && n < 5);
            if (v[0] != 38 && v[0] != 48)
                more = false;
            if (n == 3 && v[1] == 5)
                more = false;
            if (more && p < end && *p == ';') {
                p++;
                continue;
            }
            if (more)
                return false;
            break;
        }
        if (p < end && *p == ':') { /* the underline's form */
            p++;
            sub = true;
            v[1] = 0;
            while (p < end && *p >= '0' && *p <= '9')
                v[1] = v[1] * 10 + (unsigned)(*p++ - '0');
            if (v[0] != 4)
                return false;
        }
        if (p < end && *p != ';')
            return false;
        p++;
        uint32_t colour = v[1] == 5 ? TERM_INDEXED | v[2] : TERM_RGB | v[2] << 16 | v[3] << 8 | v[4];
        unsigned c = v[0];
        const uint16_t lines = TERM_UNDERLINE | TERM_DOUBLE | TERM_CURLY;
        if (c == 0)
            *l = (struct term_look){0};
        else if (c == 4)
            l->attrs = (uint16_t)((l->attrs & ~lines) | TERM_UNDERLINE | (sub && v[1] == 2 ? TERM_DOUBLE : 0) | (sub && v[1] == 3 ? TERM_CURLY : 0));
        else if (c < 10 && on[c])
            l->attrs |= on[c];
        else if (c >= 10 && c <= 17)
            l->attrs = (uint16_t)((l->attrs & ~(TERM_DIM | TERM_CONCEAL | TERM_OVERLINE)) | font_attrs(c - 10));
        else if (c == 21)
            l->attrs = (uint16_t)((l->attrs & ~lines) | TERM_UNDERLINE | TERM_DOUBLE);
        else if (c == 22)
            l->attrs &= (uint16_t)~TERM_BOLD;
        else if (c == 23)
            l->attrs &= (uint16_t)~TERM_ITALIC;
        else if (c == 24)
            l->attrs &= (uint16_t)~lines;
        else if (c == 25)
            l->attrs &= (uint16_t)~TERM_BLINK;
        else if (c == 27)
            l->attrs &= (uint16_t)~TERM_REVERSE;
        else if (c == 29)
            l->attrs &= (uint16_t)~TERM_STRIKE;
        else if (c >= 30 && c <= 37)
            l->fg = TERM_INDEXED | (c - 30);
        else if (c == 38)
            l->fg = colour;
        else if (c == 39)
            l->fg = TERM_DEFAULT;
        else if (c >= 40 && c <= 47)
            l->bg = TERM_INDEXED | (c - 40);
        else if (c == 48)
            l->bg = colour;
        else if (c == 49)
            l->bg = TERM_DEFAULT;
        else if (c >= 90 && c <= 97)
            l->fg = TERM_INDEXED | (c - 90 + 8);
        else if (c >= 100 && c <= 107)
            l->bg = TERM_INDEXED | (c - 100 + 8);
        else
            return false;
    }
    return true;
}

struct lines {
    void (*line)(struct term_line *l, void *arg);
    void *arg;
    struct builder b;
};

static void next_row(struct lines *out)
{
    struct term_line *l = finish(&out->b);
    if (l)
        out->line(l, out->arg);
    out->b.runs = out->b.cells = 0;
    out->b.len = 0;
}

/* One line up to its CR LF; the end of it, or NULL: it is not whole, or more than text and looks.  out NULL: only looked at. */
static const char *one_line(const char *p, const char *end, int cols, struct term_look *look, struct lines *out)
{
    int col = 0;
    while (p < end) {
        unsigned char c = (unsigned char)*p;
        if (c >= 0x20 && c < 0x7f) {
            if (col == cols) { /* the wrap that was waiting; the new row would have the background */
                if (look->bg != TERM_DEFAULT)
                    return NULL;
                if (out)
                    next_row(out);
                col = 0;
            }
            const char *q = p, *limit = end - p < cols - col ? end : p + (cols - col);
            while (q < limit && (unsigned char)*q >= 0x20 && (unsigned char)*q < 0x7f)
                q++;
            size_t n = (size_t)(q - p);
            if (out) {
                struct term_run *r = run_for(&out->b, look->attrs, look->fg, look->bg);
                r->cells = (uint16_t)(r->cells + n);
                out->b.cells += (unsigned)n;
                memcpy(out->b.text + out->b.len, p, n);
                out->b.len += n;
            }
            col += (int)n;
            p = q;
        } else if (c >= 0x80) {
            unsigned code = 0;
            size_t used = sanitize_utf8((const unsigned char *)p, (size_t)(end - p), &code);
            int width = used ? term_libvterm_width(code) : 0;
            if (width < 1 || width > 2 || width != width_of(vtfilter_char(code)))
                return NULL;
            if (col + width > cols) {
                if (look->bg != TERM_DEFAULT)
                    return NULL;
                if (out)
                    next_row(out);
                col = 0;
            }
            if (out) {
                struct term_run *r = run_for(&out->b, look->attrs, look->fg, look->bg);
                r->cells = (uint16_t)(r->cells + width);
                out->b.cells += (unsigned)width;
                out->b.len += term_utf8(out->b.text + out->b.len, vtfilter_char(code));
                if (width == 2)
                    out->b.text[out->b.len++] = TERM_HALF;
            }
            col += width;
            p += used;
        } else if (c == '\r') {
            if (p + 1 >= end || p[1] != '\n' || look->bg != TERM_DEFAULT) /* the new row would have a background */
                return NULL;
            if (out)
                next_row(out);
            return p + 2;
        } else if (c == '\t') {
            int to = (col / 8 + 1) * 8;
            if (col >= cols - 1)
                return NULL;
            to = to > cols - 1 ? cols - 1 : to;
            if (out) {
                struct term_run *r = run_for(&out->b, 0, TERM_DEFAULT, TERM_DEFAULT); /* nothing is written there */
                r->cells = (uint16_t)(r->cells + (to - col));
                out->b.cells += (unsigned)(to - col);
                memset(out->b.text + out->b.len, ' ', (size_t)(to - col));
                out->b.len += (size_t)(to - col);
            }
            col = to;
            p++;
        } else if (c == 0x1b) {
            if (end - p < 3 || p[1] != '[')
                return NULL;
            const char *q = p + 2;
            while (q < end && ((*q >= '0' && *q <= '9') || *q == ';' || *q == ':'))
                q++;
            if (q == end || *q != 'm' || !sgr(p + 2, q, look))
                return NULL;
            p = q + 1;
        } else {
            return NULL;
        }
    }
    return NULL;
}

size_t term_flood_lines(const char *p, size_t len, int rows, int cols, struct term_look *look,
                        void (*line)(struct term_line *l, void *arg), void *arg)
{
    static struct lines out;
    static struct {
        const char *at;
        struct term_look look;
    } ring[TERM_ROWS_MAX + 1];
    const char *end = p + len, *next = p, *done = p;
    struct term_look now = *look;
    unsigned n = 0, keep = (unsigned)(rows < TERM_ROWS_MAX ? rows : TERM_ROWS_MAX);
    out.line = line;
    out.arg = arg;
    out.b.runs = out.b.cells = 0;
    out.b.len = 0;
    while (next) {
        ring[n % (keep + 1)].at = next;
        ring[n % (keep + 1)].look = now;
        const char *after = one_line(next, end, cols, &now, NULL);
        if (!after)
            break;
        next = after;
        n++;
        if (n > keep) { /* `keep` lines follow this one */
            unsigned first = (n - keep - 1) % (keep + 1);
            struct term_look l = ring[first].look;
            done = one_line(ring[first].at, end, cols, &l, &out);
            *look = l;
        }
    }
    return (size_t)(done - p);
}
