#include "ui/dash/term_emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vterm.h>

#include "core/sanitize.h"
#include "core/width.h"

#define RIGHT_HALF ((uint32_t)-1) /* libvterm's mark behind a wide character */

static const struct {
    int number;
    bool on;
} mode_table[] = {{1, false},    {5, false},    {6, false},    {7, true},     {25, true},   {1000, false}, {1002, false},
                  {1003, false}, {1004, false}, {1006, false}, {1049, false}, {2004, false}, {2026, false}};
#define MODES (sizeof mode_table / sizeof *mode_table)

/* A line of scrollback: runs of one look, then the text; HALF stands for the right half of a wide character. */
enum { HALF = 1 };
struct run {
    uint16_t cells, attrs;
    uint32_t fg, bg;
};
struct packed {
    uint16_t cells, runs;
    uint32_t len;
    struct run run[];
};

struct term_emu {
    VTerm *vt;
    VTermScreen *vts;
    struct vtfilter *filter;
    term_event_fn *fn;
    void *arg;
    int rows, cols;
    bool modes[MODES], keypad;
    int shape;
    struct term_place saved; /* DECSC */
    char title[256];
    struct packed **lines; /* ring */
    unsigned cap, start, count;
    uint64_t first; /* number of the oldest line in it */
    size_t bytes;
};

/* ---- libvterm's cells to ours ---- */

static uint32_t colour_of(const VTermColor *c, uint8_t is_default)
{
    if (c->type & is_default)
        return TERM_DEFAULT;
    if (VTERM_COLOR_IS_INDEXED(c))
        return TERM_INDEXED | c->indexed.idx;
    return TERM_RGB | (uint32_t)c->rgb.red << 16 | (uint32_t)c->rgb.green << 8 | c->rgb.blue;
}

static uint16_t attrs_of(const VTermScreenCell *c)
{
    unsigned a = 0;
    if (c->attrs.bold)
        a |= TERM_BOLD;
    if (c->attrs.italic)
        a |= TERM_ITALIC;
    if (c->attrs.underline)
        a |= TERM_UNDERLINE;
    if (c->attrs.underline == VTERM_UNDERLINE_DOUBLE)
        a |= TERM_DOUBLE;
    if (c->attrs.underline == VTERM_UNDERLINE_CURLY)
        a |= TERM_CURLY;
    if (c->attrs.blink)
        a |= TERM_BLINK;
    if (c->attrs.reverse)
        a |= TERM_REVERSE;
    if (c->attrs.strike)
        a |= TERM_STRIKE;
    if (c->attrs.font & 1) /* what the filter carries in the font's number */
        a |= TERM_DIM;
    if (c->attrs.font & 2)
        a |= TERM_CONCEAL;
    if (c->attrs.font & 4)
        a |= TERM_OVERLINE;
    return (uint16_t)a;
}

static void convert(const VTermScreenCell *c, struct term_cell *out)
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

/* libvterm leaves one half of a wide character when the other was written over. */
static void mend_halves(struct term_cell *cells, int n)
{
    for (int i = 0; i < n; i++) {
        struct term_cell *c = &cells[i];
        if (c->width == 0 && (i == 0 || c[-1].width != 1 || c[-1].ch[0] < 0x1100 || width_of(c[-1].ch[0]) != 2)) {
            c->width = 1;
            c->ch[0] = 0;
        } else if (c->width == 0) {
            c[-1].width = 2;
        }
    }
    for (int i = 0; i < n; i++) /* a wide one that lost its right half */
        if (cells[i].width == 1 && cells[i].ch[0] >= 0x1100 && width_of(cells[i].ch[0]) == 2)
            memset(cells[i].ch, 0, sizeof cells[i].ch);
}

static void blank_cells(struct term_cell *cells, int n)
{
    for (int i = 0; i < n; i++)
        cells[i] = (struct term_cell){.width = 1};
}

/* ---- scrollback ---- */

static size_t put_utf8(unsigned char *out, uint32_t c)
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

static void drop_line(struct term_emu *t)
{
    struct packed *p = t->lines[t->start];
    t->bytes -= sizeof *p + p->runs * sizeof(struct run) + p->len;
    free(p);
    t->start = (t->start + 1) % t->cap;
    t->count--;
    t->first++;
}

static struct packed *pack(const struct term_cell *cells, int n)
{
    static struct run runs[TERM_COLS_MAX];
    static unsigned char text[TERM_COLS_MAX * TERM_CHARS * 4];
    unsigned nruns = 0;
    size_t len = 0;
    while (n > 0 && (cells[n - 1].ch[0] == 0 || (cells[n - 1].ch[0] == ' ' && cells[n - 1].ch[1] == 0)) &&
           cells[n - 1].width == 1 && cells[n - 1].bg == TERM_DEFAULT &&
           !(cells[n - 1].attrs & (TERM_REVERSE | TERM_UNDERLINE | TERM_STRIKE | TERM_OVERLINE)))
        n--;
    for (int i = 0; i < n; i++) {
        const struct term_cell *c = &cells[i];
        struct run *r = nruns ? &runs[nruns - 1] : NULL;
        if (!r || r->attrs != c->attrs || r->fg != c->fg || r->bg != c->bg) {
            r = &runs[nruns++];
            *r = (struct run){0, c->attrs, c->fg, c->bg};
        }
        r->cells++;
        if (c->width == 0)
            text[len++] = HALF;
        else if (c->ch[0] == 0)
            text[len++] = ' ';
        else
            for (int k = 0; k < TERM_CHARS && c->ch[k]; k++)
                len += put_utf8(text + len, c->ch[k]);
    }
    struct packed *p = malloc(sizeof *p + nruns * sizeof *runs + len);
    if (p) {
        p->cells = (uint16_t)n;
        p->runs = (uint16_t)nruns;
        p->len = (uint32_t)len;
        memcpy(p->run, runs, nruns * sizeof *runs);
        memcpy(p->run + nruns, text, len);
    }
    return p;
}

/* Never more than `cap` cells; returns how many the line has of them. */
static int unpack(const struct packed *p, struct term_cell *out, int cap)
{
    const unsigned char *u = (const unsigned char *)(p->run + p->runs), *end = u + p->len;
    int n = 0;
    unsigned run = 0, left = p->runs ? p->run[0].cells : 0;
    while (u < end && n < cap) {
        struct term_cell *c = &out[n];
        *c = (struct term_cell){.width = 1};
        while (left == 0 && run + 1 < p->runs)
            left = p->run[++run].cells;
        if (p->runs) {
            c->attrs = p->run[run].attrs;
            c->fg = p->run[run].fg;
            c->bg = p->run[run].bg;
            if (left)
                left--;
        }
        if (*u == HALF) {
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

static void push_packed(struct term_emu *t, struct packed *p)
{
    size_t n = sizeof *p + p->runs * sizeof(struct run) + p->len;
    while (t->count && (t->count == t->cap || t->bytes + n > TERM_SCROLLBACK_BYTES))
        drop_line(t);
    t->lines[(t->start + t->count++) % t->cap] = p;
    t->bytes += n;
}

static int push_line(int cols, const VTermScreenCell *cells, void *arg)
{
    static struct term_cell line[TERM_COLS_MAX];
    struct term_emu *t = arg;
    int n = cols < TERM_COLS_MAX ? cols : TERM_COLS_MAX;
    while (n > 0 && cells[n - 1].chars[0] == 0 && VTERM_COLOR_IS_DEFAULT_BG(&cells[n - 1].bg))
        n--;
    struct packed *p = NULL;
    if (t->cap) {
        for (int i = 0; i < n; i++)
            convert(&cells[i], &line[i]);
        mend_halves(line, n);
        p = pack(line, n);
    }
    if (!p) {
        t->first++; /* numbers go on */
        return 0;
    }
    push_packed(t, p);
    return 1;
}

static void clear_history(struct term_emu *t)
{
    while (t->count)
        drop_line(t);
}

/* ---- the filter's events ---- */

static void cursor(const struct term_emu *t, VTermPos *pos)
{
    vterm_state_get_cursorpos(vterm_obtain_state(t->vt), pos);
}

static void set_mode(struct term_emu *t, int number, bool on)
{
    if (number == 1047)
        number = 1049;
    for (size_t i = 0; i < MODES; i++)
        if (mode_table[i].number == number)
            t->modes[i] = on;
}

static void on_event(enum vt_event ev, int number, bool set, const char *text, void *arg)
{
    struct term_emu *t = arg;
    VTermPos pos;
    switch (ev) {
    case VT_MODE:
        set_mode(t, number, set);
        break;
    case VT_CURSOR_SHAPE:
        t->shape = number;
        break;
    case VT_KEYPAD:
        t->keypad = set;
        break;
    case VT_SAVE_CURSOR:
        cursor(t, &pos);
        t->saved = (struct term_place){(uint64_t)pos.row, pos.col};
        break;
    case VT_CLEAR_HISTORY:
        clear_history(t);
        break;
    case VT_RESET:
        for (size_t i = 0; i < MODES; i++)
            if (number == 0 || mode_table[i].number <= 25)
                t->modes[i] = mode_table[i].on;
        t->keypad = false;
        if (number == 0) {
            t->shape = 0;
            t->saved = (struct term_place){0};
        }
        break;
    case VT_TITLE:
        snprintf(t->title, sizeof t->title, "%s", text);
        break;
    default:
        break;
    }
    if (t->fn)
        t->fn(ev, number, set, text, t->arg);
}

static void on_out(const char *bytes, size_t len, void *arg)
{
    struct term_emu *t = arg;
    VTermPos pos;
    vterm_input_write(t->vt, bytes, len);
    /* Defence behind the filter: a cursor outside of the screen would be written to. */
    cursor(t, &pos);
    if (pos.row < 0 || pos.col < 0 || pos.row >= t->rows || pos.col >= t->cols)
        vterm_input_write(t->vt, "\033[H", 3);
}

static void on_cursor(int *row, int *col, void *arg)
{
    VTermPos pos;
    cursor(arg, &pos);
    *row = pos.row + 1;
    *col = pos.col + 1;
}

static void on_size(int *rows, int *cols, void *arg)
{
    const struct term_emu *t = arg;
    *rows = t->rows;
    *cols = t->cols;
}

/* No replies: the session's own screen process answers, once, however many look on. */
static const struct vt_ops filter_ops = {on_out, NULL, on_event, on_cursor, on_size};

/* ---- life ---- */

static int clamp(int v, int min, int max)
{
    return v < min ? min : v > max ? max : v;
}

struct term_emu *term_emu_new(int rows, int cols, unsigned scrollback, term_event_fn *fn, void *arg)
{
    static const VTermScreenCallbacks callbacks = {.sb_pushline = push_line};
    struct term_emu *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->fn = fn;
    t->arg = arg;
    t->rows = clamp(rows, 2, TERM_ROWS_MAX);
    t->cols = clamp(cols, 2, TERM_COLS_MAX);
    t->cap = scrollback;
    t->lines = scrollback ? calloc(scrollback, sizeof *t->lines) : NULL;
    t->vt = vterm_new(t->rows, t->cols);
    t->filter = vtfilter_new(VT_LIBVTERM, &filter_ops, t);
    if (!t->vt || !t->filter || (scrollback && !t->lines)) {
        term_emu_free(t);
        return NULL;
    }
    vterm_set_utf8(t->vt, 1);
    t->vts = vterm_obtain_screen(t->vt);
    vterm_screen_set_callbacks(t->vts, &callbacks, t);
    vterm_screen_set_damage_merge(t->vts, VTERM_DAMAGE_SCROLL);
    vterm_screen_enable_altscreen(t->vts, 1);
    vterm_screen_reset(t->vts, 1);
    vterm_input_write(t->vt, "\0337", 2); /* else a restore without a save would make the pen black on black */
    for (size_t i = 0; i < MODES; i++)
        t->modes[i] = mode_table[i].on;
    return t;
}

void term_emu_free(struct term_emu *t)
{
    if (!t)
        return;
    vtfilter_free(t->filter);
    if (t->vt)
        vterm_free(t->vt);
    clear_history(t);
    free(t->lines);
    free(t);
}

void term_emu_feed(struct term_emu *t, const void *buf, size_t len)
{
    vtfilter_feed(t->filter, buf, len);
}

void term_emu_resize(struct term_emu *t, int rows, int cols)
{
    rows = clamp(rows, 2, TERM_ROWS_MAX);
    cols = clamp(cols, 2, TERM_COLS_MAX);
    if (rows == t->rows && cols == t->cols)
        return;
    t->rows = rows;
    t->cols = cols;
    vterm_set_size(t->vt, rows, cols);
    /* 0.1.4 may leave the cursor, the margins and the saved place outside (vm/screen.c says the same). */
    VTermPos pos;
    char text[64];
    cursor(t, &pos);
    vterm_input_write(t->vt, "\033[r", 3);
    if (t->saved.line >= (uint64_t)rows || t->saved.col >= cols) {
        t->saved.line = t->saved.line >= (uint64_t)rows ? (uint64_t)rows - 1 : t->saved.line;
        t->saved.col = clamp(t->saved.col, 0, cols - 1);
        snprintf(text, sizeof text, "\033[%d;%dH\0337", (int)t->saved.line + 1, t->saved.col + 1);
        vterm_input_write(t->vt, text, strlen(text));
    }
    snprintf(text, sizeof text, "\033[%d;%dH", clamp(pos.row, 0, rows - 1) + 1, clamp(pos.col, 0, cols - 1) + 1);
    vterm_input_write(t->vt, text, strlen(text));
}

/* ---- looking at it ---- */

int term_emu_rows(const struct term_emu *t)
{
    return t->rows;
}

int term_emu_cols(const struct term_emu *t)
{
    return t->cols;
}

uint64_t term_emu_first(const struct term_emu *t)
{
    return t->first;
}

uint64_t term_emu_top(const struct term_emu *t)
{
    return t->first + t->count;
}

uint64_t term_emu_end(const struct term_emu *t)
{
    return term_emu_top(t) + (uint64_t)t->rows;
}

int term_emu_line(const struct term_emu *t, uint64_t line, struct term_cell *out, int cap)
{
    int n = 0;
    if (line < t->first || line >= term_emu_end(t))
        return -1;
    if (line < term_emu_top(t)) {
        n = unpack(t->lines[(t->start + (unsigned)(line - t->first)) % t->cap], out, cap);
    } else {
        VTermScreenCell c;
        int row = (int)(line - term_emu_top(t));
        n = cap < t->cols ? cap : t->cols;
        for (int col = 0; col < n; col++) {
            vterm_screen_get_cell(t->vts, (VTermPos){.row = row, .col = col}, &c);
            convert(&c, &out[col]);
        }
        mend_halves(out, n);
    }
    blank_cells(out + n, cap - n);
    if (n == cap && n && out[n - 1].ch[0] >= 0x1100 && width_of(out[n - 1].ch[0]) == 2) /* cut in the middle */
        out[n - 1] = (struct term_cell){.width = 1, .bg = out[n - 1].bg, .attrs = out[n - 1].attrs};
    return n;
}

bool term_emu_cursor(const struct term_emu *t, int *row, int *col)
{
    VTermPos pos;
    cursor(t, &pos);
    *row = pos.row;
    *col = pos.col;
    return term_emu_mode(t, 25);
}

int term_emu_shape(const struct term_emu *t)
{
    return t->shape;
}

bool term_emu_mode(const struct term_emu *t, int number)
{
    for (size_t i = 0; i < MODES; i++)
        if (mode_table[i].number == number)
            return t->modes[i];
    return false;
}

bool term_emu_keypad(const struct term_emu *t)
{
    return t->keypad;
}

const char *term_emu_title(const struct term_emu *t)
{
    return t->title;
}

/* ---- text ---- */

static bool is_blank(const struct term_cell *c)
{
    return c->width == 1 && (c->ch[0] == 0 || (c->ch[0] == ' ' && c->ch[1] == 0));
}

char *term_emu_text(const struct term_emu *t, struct term_place from, struct term_place to, bool block, size_t *len)
{
    static struct term_cell cells[TERM_COLS_MAX];
    char *out = NULL;
    size_t n = 0, cap = 0;
    if (to.line < from.line || (to.line == from.line && to.col < from.col && !block)) {
        struct term_place x = from;
        from = to;
        to = x;
    }
    int left = block ? (from.col < to.col ? from.col : to.col) : 0, right = block ? (from.col > to.col ? from.col : to.col) : TERM_COLS_MAX - 1;
    if (from.line < t->first) {
        from.line = t->first;
        from.col = 0;
    }
    for (uint64_t line = from.line; line <= to.line && line < term_emu_end(t); line++) {
        int have = term_emu_line(t, line, cells, TERM_COLS_MAX);
        int a = line == from.line && !block ? from.col : left, b = line == to.line && !block ? to.col : right;
        if (a > 0 && a < have && cells[a].width == 0)
            a--;
        if (b >= have)
            b = have - 1;
        bool full = have >= t->cols && have > 0 && !is_blank(&cells[have - 1]) && b == have - 1;
        while (b >= a && is_blank(&cells[b]))
            b--;
        size_t need = n + (size_t)(b >= a ? b - a + 1 : 0) * TERM_CHARS * 4 + 2;
        if (need > cap) {
            cap = need * 2;
            char *more = realloc(out, cap);
            if (!more) {
                free(out);
                return NULL;
            }
            out = more;
        }
        for (int i = a; i <= b; i++) {
            if (cells[i].width == 0)
                continue;
            if (cells[i].ch[0] == 0)
                out[n++] = ' ';
            for (int k = 0; k < TERM_CHARS && cells[i].ch[k]; k++)
                n += put_utf8((unsigned char *)out + n, cells[i].ch[k]);
        }
        if (line != to.line && (block || !full))
            out[n++] = '\n';
        out[n] = '\0';
    }
    if (!out)
        out = calloc(1, 1);
    *len = n;
    return out;
}

static uint32_t folded(uint32_t c, bool exact)
{
    if (exact)
        return c;
    if (c >= 'A' && c <= 'Z')
        return c + 32;
    if ((c >= 0xc0 && c <= 0xde && c != 0xd7) || (c >= 0x391 && c <= 0x3a9) || (c >= 0x410 && c <= 0x42f))
        return c + 32;
    return c;
}

/* A match in a line that begins in column > after (forwards) or < before (back); the first or the last such. */
static bool match_line(const struct term_emu *t, uint64_t line, const uint32_t *what, int nwhat, bool exact, int after, int before,
                       bool back, int *col, int *cells_out)
{
    static struct term_cell cells[TERM_COLS_MAX];
    static uint32_t text[TERM_COLS_MAX];
    static int column[TERM_COLS_MAX];
    int have = term_emu_line(t, line, cells, TERM_COLS_MAX), n = 0;
    bool found = false;
    for (int i = 0; i < have; i++) {
        if (cells[i].width == 0)
            continue;
        column[n] = i;
        text[n++] = folded(cells[i].ch[0] ? cells[i].ch[0] : ' ', exact);
    }
    for (int i = 0; i + nwhat <= n; i++) {
        if (column[i] <= after || column[i] >= before || memcmp(text + i, what, (size_t)nwhat * sizeof *what) != 0)
            continue;
        *col = column[i];
        *cells_out = column[i + nwhat - 1] + (cells[column[i + nwhat - 1]].width == 2 ? 2 : 1) - column[i];
        found = true;
        if (!back)
            break;
    }
    return found;
}

bool term_emu_search(const struct term_emu *t, const char *what, struct term_place from, bool back, struct term_place *at, int *cells)
{
    uint32_t codes[256];
    int n = 0;
    bool exact = false;
    const unsigned char *u = (const unsigned char *)what, *end = u + strlen(what);
    while (u < end && n < 256) {
        unsigned code;
        size_t used = sanitize_utf8(u, (size_t)(end - u), &code);
        if (used == 0)
            return false;
        u += used;
        if (width_of(code) == 0 && code >= 0x300)
            continue;
        exact = exact || folded(code, false) != code;
        codes[n++] = code;
    }
    uint64_t first = t->first, total = term_emu_end(t) - first;
    if (n == 0 || total == 0)
        return false;
    for (int i = 0; i < n; i++)
        codes[i] = folded(codes[i], exact);
    uint64_t line = from.line < first ? first : from.line >= first + total ? first + total - 1 : from.line;
    /* The line itself, the others round the end, and the line itself again for the part on the other side. */
    for (uint64_t i = 0; i <= total; i++) {
        int after = -1, before = TERM_COLS_MAX;
        if (i == 0 && back)
            before = from.col;
        else if (i == 0)
            after = from.col;
        if (match_line(t, line, codes, n, exact, after, before, back, &at->col, cells)) {
            at->line = line;
            return true;
        }
        if (back)
            line = line == first ? first + total - 1 : line - 1;
        else
            line = line + 1 == first + total ? first : line + 1;
    }
    return false;
}
