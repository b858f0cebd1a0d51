#include "vm/screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vterm.h>

#include "core/termline.h"
#include "core/width.h"

struct text {
    char *p;
    size_t len, cap;
    bool failed;
};

/* All screens of the process together: many sessions must not hold more than the process may have. */
#define SCROLLBACK_TOTAL (256u * 1024u * 1024u)
#define LINE_COST 32u /* what the allocator takes for a line beside its bytes */

/* Modes that a repaint sets again: DEC numbers, and whether they are on at first. */
enum { MODE_ORIGIN = 2, MODE_WRAP = 3, MODE_CURSOR = 4 };
static const struct {
    int number;
    bool on;
} mode_table[] = {{1, false},    {5, false},    {6, false},    {7, true},     {25, true},  {1000, false},
                  {1002, false}, {1003, false}, {1004, false}, {1006, false}, {2004, false}};
#define MODES (sizeof mode_table / sizeof *mode_table)

struct place {
    int row, col;
};

struct screen {
    VTerm *vt;
    VTermScreen *vts;
    struct vtfilter *model, *stream;
    const struct screen_ops *ops;
    void *arg;
    int rows, cols;
    bool alt, keypad, insert, newline, modes[MODES];
    bool wrap_pending; /* the next character goes to the next line, though the cursor still stands on the last cell */
    int shape, top, bottom;
    struct term_saved saved[2]; /* DECSC, of the normal and of the alternate screen */
    char title[256];
    /* The normal screen while the alternate one is shown: libvterm lets nobody look at it then. */
    VTermScreenCell *under;
    int under_rows, under_cols;
    struct place under_cursor;
    char *held; /* what the filter put out, and libvterm has not seen yet */
    size_t nheld, nheld_now;
    long last; /* see vtfilter_last_print, for all of it */
    bool tabs;
    int skip;  /* rows that scroll out, and are in the scrollback already */
    struct term_line **lines; /* ring of scrollback */
    unsigned cap, start, count;
    size_t bytes;
};

static size_t total_bytes;

/* ---- growing text ---- */

static void add(struct text *t, const char *s, size_t n)
{
    if (t->len + n + 1 > t->cap) {
        size_t cap = (t->cap ? t->cap * 2 : 4096) + n;
        char *more = realloc(t->p, cap);
        if (!more) {
            t->failed = true;
            return;
        }
        t->p = more;
        t->cap = cap;
    }
    memcpy(t->p + t->len, s, n);
    t->len += n;
    t->p[t->len] = '\0';
}

static void adds(struct text *t, const char *s)
{
    add(t, s, strlen(s));
}

/* ---- cells to bytes ---- */

static void add_char(struct text *t, uint32_t c)
{
    char b[4];
    if (c < 0x80) {
        b[0] = (char)c;
        add(t, b, 1);
    } else if (c < 0x800) {
        b[0] = (char)(0xc0 | c >> 6);
        b[1] = (char)(0x80 | (c & 63));
        add(t, b, 2);
    } else if (c < 0x10000) {
        b[0] = (char)(0xe0 | c >> 12);
        b[1] = (char)(0x80 | (c >> 6 & 63));
        b[2] = (char)(0x80 | (c & 63));
        add(t, b, 3);
    } else {
        b[0] = (char)(0xf0 | c >> 18);
        b[1] = (char)(0x80 | (c >> 12 & 63));
        b[2] = (char)(0x80 | (c >> 6 & 63));
        b[3] = (char)(0x80 | (c & 63));
        add(t, b, 4);
    }
}

static void add_colour(struct text *t, const VTermColor *c, bool background)
{
    char s[40];
    if (background ? VTERM_COLOR_IS_DEFAULT_BG(c) : VTERM_COLOR_IS_DEFAULT_FG(c))
        return;
    if (VTERM_COLOR_IS_INDEXED(c)) {
        unsigned i = c->indexed.idx;
        if (i < 8)
            snprintf(s, sizeof s, ";%u", (background ? 40 : 30) + i);
        else if (i < 16)
            snprintf(s, sizeof s, ";%u", (background ? 100 : 90) + i - 8);
        else
            snprintf(s, sizeof s, ";%d;5;%u", background ? 48 : 38, i);
    } else {
        snprintf(s, sizeof s, ";%d;2;%u;%u;%u", background ? 48 : 38, c->rgb.red, c->rgb.green, c->rgb.blue);
    }
    adds(t, s);
}

static bool same_colour(const VTermColor *a, const VTermColor *b, uint8_t is_default)
{
    if ((a->type | b->type) & is_default)
        return (a->type & b->type & is_default) != 0;
    if (VTERM_COLOR_IS_INDEXED(a) != VTERM_COLOR_IS_INDEXED(b))
        return false;
    if (VTERM_COLOR_IS_INDEXED(a))
        return a->indexed.idx == b->indexed.idx;
    return a->rgb.red == b->rgb.red && a->rgb.green == b->rgb.green && a->rgb.blue == b->rgb.blue;
}

static bool same_look(const VTermScreenCell *a, const VTermScreenCell *b)
{
    return a->attrs.bold == b->attrs.bold && a->attrs.underline == b->attrs.underline &&
           a->attrs.italic == b->attrs.italic && a->attrs.blink == b->attrs.blink &&
           a->attrs.reverse == b->attrs.reverse && a->attrs.strike == b->attrs.strike && a->attrs.font == b->attrs.font &&
           same_colour(&a->fg, &b->fg, VTERM_COLOR_DEFAULT_FG) &&
           same_colour(&a->bg, &b->bg, VTERM_COLOR_DEFAULT_BG);
}

/* The whole look as one SGR that begins with a reset.  The font number carries what libvterm has no attribute for
 * (core/vtfilter.c). */
static void add_look(struct text *t, const VTermScreenCell *c)
{
    adds(t, "\033[0");
    if (c->attrs.bold)
        adds(t, ";1");
    if (c->attrs.font & 1)
        adds(t, ";2");
    if (c->attrs.italic)
        adds(t, ";3");
    if (c->attrs.underline == VTERM_UNDERLINE_DOUBLE)
        adds(t, ";21");
    else if (c->attrs.underline == VTERM_UNDERLINE_CURLY)
        adds(t, ";4:3");
    else if (c->attrs.underline)
        adds(t, ";4");
    if (c->attrs.blink)
        adds(t, ";5");
    if (c->attrs.reverse)
        adds(t, ";7");
    if (c->attrs.font & 2)
        adds(t, ";8");
    if (c->attrs.strike)
        adds(t, ";9");
    if (c->attrs.font & 4)
        adds(t, ";53");
    add_colour(t, &c->fg, false);
    add_colour(t, &c->bg, true);
    adds(t, "m");
}

static bool blank(const VTermScreenCell *c)
{
    return (c->chars[0] == 0 || (c->chars[0] == ' ' && c->chars[1] == 0)) && VTERM_COLOR_IS_DEFAULT_BG(&c->bg) && !c->attrs.underline &&
           !c->attrs.reverse && !c->attrs.strike && !(c->attrs.font & 4);
}

#define RIGHT_HALF ((uint32_t)-1) /* libvterm's mark behind a wide character */

/* What libvterm takes a character's width to be: its table is older than ours, and only it can say. */
static int vterm_width_of(uint32_t code)
{
    static VTerm *probe;
    struct text t = {0};
    VTermPos pos = {0};
    if (code >= 0x1f000 && width_of(code) == 2) /* carried by a wide one, see vtfilter_char */
        return 2;
    if (!probe && (probe = vterm_new(2, 8))) {
        vterm_set_utf8(probe, 1);
        vterm_state_reset(vterm_obtain_state(probe), 1);
    }
    add(&t, "\r", 1);
    add_char(&t, code);
    if (probe && !t.failed) {
        vterm_input_write(probe, t.p, t.len);
        vterm_state_get_cursorpos(vterm_obtain_state(probe), &pos);
    }
    free(t.p);
    return pos.col;
}

/* What terminals show of a row as libvterm keeps it: it gives an erased cell the whole pen, where terminals give it
 * the background alone; and it leaves one half of a wide character when the other was written over. */
static void settle(VTermScreenCell *cells, int cols)
{
    for (int i = 0; i < cols; i++)
        if (cells[i].chars[0] != RIGHT_HALF)
            cells[i].chars[0] = vtfilter_char(cells[i].chars[0]);
    for (int i = 0; i < cols; i++) {
        VTermScreenCell *c = &cells[i];
        if (c->chars[0] && c->chars[0] < 0x1100) /* the usual: nothing below is wide */
            continue;
        if (c->chars[0] == RIGHT_HALF && (i == 0 || width_of(c[-1].chars[0]) != 2)) {
            c->chars[0] = 0;
            c->width = 1;
            if (i)
                c[-1].width = 1;
        }
        if (i + 1 < cols && c[1].chars[0] != RIGHT_HALF && width_of(c->chars[0]) == 2 && vterm_width_of(c->chars[0]) == 2)
            c->chars[0] = 0;
        if (c->chars[0] == 0) {
            memset(&c->attrs, 0, sizeof c->attrs);
            memset(&c->fg, 0, sizeof c->fg);
            c->fg.type = VTERM_COLOR_DEFAULT_FG;
        }
    }
}

static void add_cell(struct text *t, const VTermScreenCell *c)
{
    if (c->chars[0] == 0 || width_of(c->chars[0]) == 0) /* a mark alone would join the cell before */
        add(t, " ", 1);
    for (int k = 0; k < VTERM_MAX_CHARS_PER_CELL && c->chars[k] && c->chars[k] != RIGHT_HALF; k++)
        add_char(t, c->chars[k]);
}

/* One row; blanks at its end are left out, so the line must be clear before.  `place`: it is for a screen, not for
 * history, and behind a character on whose width terminals disagree the column is said. */
static void add_row(struct text *t, VTermScreenCell *cells, int cols, bool look, bool place)
{
    VTermScreenCell now;
    bool plain = true;
    int end = cols;
    settle(cells, cols);
    while (end > 0 && blank(&cells[end - 1]))
        end--;
    memset(&now, 0, sizeof now);
    for (int i = 0; i < end; i++) {
        const VTermScreenCell *c = &cells[i];
        if (c->chars[0] == RIGHT_HALF)
            continue; /* the right half of a wide character */
        if (look && (i == 0 || !same_look(c, &now))) {
            bool is_plain = !c->attrs.bold && !c->attrs.underline && !c->attrs.italic && !c->attrs.blink &&
                            !c->attrs.reverse && !c->attrs.strike && !c->attrs.font && VTERM_COLOR_IS_DEFAULT_FG(&c->fg) &&
                            VTERM_COLOR_IS_DEFAULT_BG(&c->bg);
            if (!(is_plain && plain))
                add_look(t, c);
            plain = is_plain;
            now = *c;
        }
        if (c->chars[0] < 0x300 && (!c->chars[0] || !c->chars[1])) {
            char b[2] = {(char)c->chars[0], 0};
            if (c->chars[0] < 0x80)
                add(t, b[0] ? b : " ", 1);
            else
                add_char(t, c->chars[0]);
            continue;
        }
        int width = width_of(c->chars[0]);
        if (place && width == 2 && i + 2 > cols) { /* cut by a narrower screen: it would wrap */
            add(t, " ", 1);
            continue;
        }
        add_cell(t, c);
        if (place && i + c->width < end && (width != c->width || c->chars[0] > 0xffff || (c->chars[0] && c->chars[1]))) {
            char text[16];
            snprintf(text, sizeof text, "\033[%dG", i + c->width + 1);
            adds(t, text);
        }
    }
    if (look && !plain)
        adds(t, "\033[m");
}

/* ---- scrollback ---- */

static void add_term_look(struct text *t, struct term_look l)
{
    char s[48];
    const struct {
        uint32_t c;
        unsigned base;
    } colours[] = {{l.fg, 30}, {l.bg, 40}};
    adds(t, "\033[0");
    if (l.attrs & TERM_BOLD)
        adds(t, ";1");
    if (l.attrs & TERM_DIM)
        adds(t, ";2");
    if (l.attrs & TERM_ITALIC)
        adds(t, ";3");
    if (l.attrs & TERM_UNDERLINE)
        adds(t, l.attrs & TERM_CURLY ? ";4:3" : l.attrs & TERM_DOUBLE ? ";21" : ";4");
    if (l.attrs & TERM_BLINK)
        adds(t, ";5");
    if (l.attrs & TERM_REVERSE)
        adds(t, ";7");
    if (l.attrs & TERM_CONCEAL)
        adds(t, ";8");
    if (l.attrs & TERM_STRIKE)
        adds(t, ";9");
    if (l.attrs & TERM_OVERLINE)
        adds(t, ";53");
    for (int i = 0; i < 2; i++) {
        uint32_t c = colours[i].c;
        unsigned base = colours[i].base, n = c & 255u;
        if (c & TERM_RGB)
            snprintf(s, sizeof s, ";%u;2;%u;%u;%u", base + 8, c >> 16 & 255u, c >> 8 & 255u, c & 255u);
        else if (c & TERM_INDEXED && n < 16)
            snprintf(s, sizeof s, ";%u", n < 8 ? base + n : base + 60 + n - 8);
        else if (c & TERM_INDEXED)
            snprintf(s, sizeof s, ";%u;5;%u", base + 8, n);
        else
            continue;
        adds(t, s);
    }
    adds(t, "m");
}

static void drop_line(struct screen *s)
{
    size_t n = term_line_size(s->lines[s->start]) + LINE_COST;
    s->bytes -= n;
    total_bytes -= n;
    free(s->lines[s->start]);
    s->start = (s->start + 1) % s->cap;
    s->count--;
}

static void keep_line(struct term_line *line, void *arg)
{
    struct screen *s = arg;
    size_t n = line ? term_line_size(line) + LINE_COST : 0;
    while (s->count && (s->count == s->cap || s->bytes + n > SCREEN_SCROLLBACK_BYTES || total_bytes + n > SCROLLBACK_TOTAL))
        drop_line(s);
    if (!line || !s->cap || total_bytes + n > SCROLLBACK_TOTAL) {
        free(line);
        return;
    }
    s->lines[(s->start + s->count++) % s->cap] = line;
    s->bytes += n;
    total_bytes += n;
}

static struct term_line *pack_row(const VTermScreenCell *cells, int cols)
{
    static struct term_cell line[TERM_COLS_MAX];
    while (cols > 0 && cells[cols - 1].chars[0] == 0 && VTERM_COLOR_IS_DEFAULT_BG(&cells[cols - 1].bg))
        cols--;
    for (int i = 0; i < cols; i++)
        term_cell_convert(&cells[i], &line[i]);
    term_cells_mend(line, cols);
    return term_line_pack(line, cols);
}

static int push_line(int cols, const VTermScreenCell *cells, void *arg)
{
    struct screen *s = arg;
    if (s->skip)
        s->skip--;
    else if (s->cap)
        keep_line(pack_row(cells, cols), s);
    return 1;
}

/* A line of scrollback as a user's terminal takes it. */
static void add_old(struct text *t, const struct term_line *l, bool look)
{
    static struct term_cell cells[TERM_COLS_MAX];
    int n = term_line_unpack(l, cells, TERM_COLS_MAX);
    struct term_look now = {0};
    unsigned char b[8];
    for (int i = 0; i < n; i++) {
        const struct term_cell *c = &cells[i];
        if (c->width == 0)
            continue;
        if (look && (c->attrs != now.attrs || c->fg != now.fg || c->bg != now.bg)) {
            now = (struct term_look){c->fg, c->bg, c->attrs};
            add_term_look(t, now);
        }
        if (c->ch[0] == 0)
            add(t, " ", 1);
        for (int k = 0; k < TERM_CHARS && c->ch[k]; k++)
            add(t, (char *)b, term_utf8(b, c->ch[k]));
    }
    if (look && (now.attrs || now.fg || now.bg))
        adds(t, "\033[m");
}

/* ---- the filter's events ---- */

static struct place cursor(const struct screen *s)
{
    VTermPos pos;
    vterm_state_get_cursorpos(vterm_obtain_state(s->vt), &pos);
    return (struct place){pos.row, pos.col};
}

static void read_row(struct screen *s, int row, VTermScreenCell *cells)
{
    for (int col = 0; col < s->cols; col++)
        vterm_screen_get_cell(s->vts, (VTermPos){.row = row, .col = col}, &cells[col]);
}

static void write_held(struct screen *s, size_t from)
{
    size_t len = s->nheld_now;
    long last = s->last;
    s->last = VT_PRINT_SAME;
    if (last >= (long)from) {
        /* libvterm does not tell whether a wrap is pending: it is if the last character left the cursor where it was,
         * at the right edge. */
        vterm_input_write(s->vt, s->held + from, (size_t)last - from);
        struct place before = cursor(s);
        vterm_input_write(s->vt, s->held + last, len - (size_t)last);
        struct place after = cursor(s);
        s->wrap_pending = s->modes[MODE_WRAP] && before.row == after.row && before.col == after.col && after.col >= s->cols - 2;
    } else {
        vterm_input_write(s->vt, s->held + from, len - from);
        if (last != VT_PRINT_SAME)
            s->wrap_pending = false;
    }
    /* Defence behind the filter: a cursor outside of the screen would be written to. */
    struct place p = cursor(s);
    if (p.row < 0 || p.col < 0 || p.row >= s->rows || p.col >= s->cols)
        vterm_input_write(s->vt, "\033[H", 3);
}

struct flood {
    struct screen *s;
    bool begun;
};

static void on_flood(struct term_line *l, void *arg)
{
    struct flood *f = arg;
    VTermScreenCell cells[SCREEN_COLS_MAX];
    for (int row = 0; row < f->s->rows - 1 && !f->begun; row++) { /* first of all what is on the screen scrolls out */
        read_row(f->s, row, cells);
        if (f->s->cap)
            keep_line(pack_row(cells, f->s->cols), f->s);
    }
    f->begun = true;
    keep_line(l, f->s);
}

/* Everything that was held goes where it belongs: what scrolls by to the scrollback, the rest to libvterm. */
static void sync_screen(struct screen *s)
{
    size_t len = s->nheld, at = 0;
    if (!len)
        return;
    s->nheld_now = len;
    s->nheld = 0;
    char *line = len > 1024 ? memmem(s->held, len, "\r\n", 2) : NULL;
    if (line && s->modes[MODE_WRAP] && !s->modes[MODE_ORIGIN] && !s->top && !s->bottom && !s->insert && !s->newline && !s->alt && !s->tabs) {
        VTermScreenCell cells[SCREEN_COLS_MAX];
        static struct term_cell mine[SCREEN_COLS_MAX];
        at = (size_t)(line + 2 - s->held);
        vterm_input_write(s->vt, s->held, at);
        struct place p = cursor(s);
        struct term_look look = term_pen(s->vt);
        bool ready = p.row == s->rows - 1 && p.col == 0 && look.bg == TERM_DEFAULT;
        if (ready) {
            read_row(s, p.row, cells);
            for (int i = 0; i < s->cols; i++)
                term_cell_convert(&cells[i], &mine[i]);
            ready = term_cells_blank(mine, s->cols);
        }
        if (ready) {
            struct flood f = {s, false};
            at += term_flood_lines(s->held + at, len - at, s->rows, s->cols, &look, on_flood, &f);
            if (f.begun) {
                char text[TERM_LOOK_MAX];
                vterm_input_write(s->vt, text, term_look_sgr(look, text));
                s->skip = s->rows - 1;
            }
        }
    }
    write_held(s, at);
    s->skip = 0;
}

/* Comes before libvterm is told, so the normal screen can still be copied. */
static void set_alt(struct screen *s, bool on)
{
    if (on == s->alt)
        return;
    term_saved_set(s->vt, s->saved[on], s->rows, s->cols, !s->modes[MODE_ORIGIN] ? -1 : s->top ? s->top - 1 : 0);
    s->alt = on;
    free(s->under);
    s->under = on ? calloc((size_t)s->rows * (size_t)s->cols, sizeof *s->under) : NULL;
    if (!s->under)
        return;
    s->under_rows = s->rows;
    s->under_cols = s->cols;
    s->under_cursor = cursor(s);
    for (int row = 0; row < s->rows; row++)
        read_row(s, row, s->under + (size_t)row * (size_t)s->cols);
}

static void reset_modes(struct screen *s, bool soft)
{
    for (size_t i = 0; i < MODES; i++)
        if (!soft || i == MODE_ORIGIN || i == MODE_WRAP || i == MODE_CURSOR || mode_table[i].number == 1)
            s->modes[i] = mode_table[i].on;
    s->top = s->bottom = 0;
    s->keypad = s->insert = s->newline = false;
    if (!soft)
        s->shape = 0;
}

static void on_event(enum vt_event ev, int number, bool set, const char *text, void *arg)
{
    struct screen *s = arg;
    if (ev != VT_BELL && ev != VT_TITLE && ev != VT_NOTIFY && ev != VT_CLIPBOARD)
        sync_screen(s); /* what came before it came under the modes before it */
    switch (ev) {
    case VT_TABS:
        s->tabs = true;
        return;
    case VT_MODE:
        if (number == 1047 || number == 1049)
            set_alt(s, set);
        if (number == 7 && !set)
            s->wrap_pending = false;
        for (size_t i = 0; i < MODES; i++)
            if (mode_table[i].number == number)
                s->modes[i] = set;
        return;
    case VT_ANSI_MODE:
        *(number == 4 ? &s->insert : &s->newline) = set;
        return;
    case VT_CURSOR_SHAPE:
        s->shape = number;
        return;
    case VT_KEYPAD:
        s->keypad = set;
        return;
    case VT_MARGINS:
        s->top = number >> 16;
        s->bottom = number & 0xffff;
        return;
    case VT_SAVE_CURSOR:
        s->saved[s->alt] = term_saved_now(s->vt);
        return;
    case VT_CLEAR_HISTORY:
        while (s->count)
            drop_line(s);
        return;
    case VT_RESET:
        if (number == 0) {
            set_alt(s, false);
            s->tabs = false;
            s->saved[0] = s->saved[1] = (struct term_saved){0};
        }
        reset_modes(s, number != 0);
        return;
    case VT_TITLE:
        snprintf(s->title, sizeof s->title, "%s", text);
        break;
    default:
        break;
    }
    if (s->ops->event)
        s->ops->event(ev, text, s->arg);
}

static void on_cursor(int *row, int *col, void *arg)
{
    sync_screen(arg);
    struct place p = cursor(arg);
    *row = p.row + 1;
    *col = p.col + 1;
}

static void on_size(int *rows, int *cols, void *arg)
{
    const struct screen *s = arg;
    *rows = s->rows;
    *cols = s->cols;
}

static void on_model(const char *bytes, size_t len, void *arg)
{
    struct screen *s = arg;
    long last = vtfilter_last_print(s->model);
    if (s->nheld + len > TERM_HELD_MAX)
        sync_screen(s);
    if (last >= 0)
        s->last = (long)s->nheld + last;
    else if (last == VT_PRINT_NONE)
        s->last = VT_PRINT_NONE;
    memcpy(s->held + s->nheld, bytes, len);
    s->nheld += len;
}

static void on_reply(const char *bytes, size_t len, void *arg)
{
    struct screen *s = arg;
    if (s->ops->reply)
        s->ops->reply(bytes, len, s->arg);
}

static void on_stream(const char *bytes, size_t len, void *arg)
{
    struct screen *s = arg;
    if (s->ops->out)
        s->ops->out(bytes, len, s->arg);
}

static const struct vt_ops model_ops = {on_model, on_reply, on_event, on_cursor, on_size};
static const struct vt_ops stream_ops = {on_stream, NULL, NULL, NULL, on_size};

/* ---- life ---- */

static int clamp(int v, int min, int max)
{
    return v < min ? min : v > max ? max : v;
}

struct screen *screen_new(int rows, int cols, unsigned scrollback, const struct screen_ops *ops, void *arg)
{
    static const VTermScreenCallbacks callbacks = {.sb_pushline = push_line};
    struct screen *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->ops = ops;
    s->arg = arg;
    s->rows = clamp(rows, 2, SCREEN_ROWS_MAX);
    s->cols = clamp(cols, 2, SCREEN_COLS_MAX);
    s->cap = scrollback;
    s->lines = scrollback ? calloc(scrollback, sizeof *s->lines) : NULL;
    s->held = malloc(TERM_HELD_MAX);
    s->last = VT_PRINT_SAME;
    s->vt = vterm_new(s->rows, s->cols);
    s->model = vtfilter_new(VT_LIBVTERM, &model_ops, s);
    s->stream = vtfilter_new(VT_TERMINAL, &stream_ops, s);
    if (!s->vt || !s->held || !s->model || !s->stream || (scrollback && !s->lines)) {
        screen_free(s);
        return NULL;
    }
    vterm_set_utf8(s->vt, 1);
    s->vts = vterm_obtain_screen(s->vt);
    vterm_screen_set_callbacks(s->vts, &callbacks, s);
    vterm_screen_enable_altscreen(s->vts, 1);
    vterm_screen_reset(s->vts, 1);
    vterm_input_write(s->vt, "\0337", 2); /* else a restore without a save would make the pen black on black */
    for (size_t i = 0; i < MODES; i++)
        s->modes[i] = mode_table[i].on;
    return s;
}

void screen_light(struct screen *s, bool light)
{
    vtfilter_light(s->model, light);
}

void screen_free(struct screen *s)
{
    if (!s)
        return;
    vtfilter_free(s->model);
    vtfilter_free(s->stream);
    if (s->vt)
        vterm_free(s->vt);
    while (s->count)
        drop_line(s);
    free(s->held);
    free(s->lines);
    free(s->under);
    free(s);
}

void screen_feed(struct screen *s, const void *buf, size_t len)
{
    vtfilter_feed(s->model, buf, len);
    vtfilter_feed(s->stream, buf, len);
}

void screen_resize(struct screen *s, int rows, int cols)
{
    rows = clamp(rows, 2, SCREEN_ROWS_MAX);
    cols = clamp(cols, 2, SCREEN_COLS_MAX);
    if (rows == s->rows && cols == s->cols)
        return;
    sync_screen(s);
    s->rows = rows;
    s->cols = cols;
    s->top = s->bottom = 0;
    s->wrap_pending = false;
    vtfilter_resized(s->model);
    vtfilter_resized(s->stream);
    vterm_set_size(s->vt, rows, cols);
    /* 0.1.4 leaves the cursor, the margins and the saved position where they may lie outside: they are set again.  It
     * has moved the cursor with the text, so what it says now is the place, clamped. */
    struct place p = cursor(s);
    p.row = clamp(p.row, 0, rows - 1);
    p.col = clamp(p.col, 0, cols - 1);
    char text[64];
    vterm_input_write(s->vt, "\033[r", 3);
    struct term_saved *saved = &s->saved[s->alt];
    if (saved->row >= rows || saved->col >= cols) {
        saved->row = clamp(saved->row, 0, rows - 1);
        saved->col = clamp(saved->col, 0, cols - 1);
        snprintf(text, sizeof text, "\033[%d;%dH\0337", saved->row + 1, saved->col + 1);
        vterm_input_write(s->vt, text, strlen(text));
    }
    /* Origin mode makes no difference: without margins it counts from the corner, too. */
    snprintf(text, sizeof text, "\033[%d;%dH", p.row + 1, p.col + 1);
    vterm_input_write(s->vt, text, strlen(text));
}

void screen_size(const struct screen *s, int *rows, int *cols)
{
    *rows = s->rows;
    *cols = s->cols;
}

const char *screen_title(const struct screen *s)
{
    return s->title;
}

/* ---- drawing anew ---- */

static const struct term_line *old_line(const struct screen *s, unsigned back)
{
    return s->lines[(s->start + s->count - back) % s->cap];
}

static void add_place(struct text *t, int row, int col)
{
    char text[32];
    snprintf(text, sizeof text, "\033[%d;%dH", row + 1, col + 1);
    adds(t, text);
}

static void add_rows(struct text *t, struct screen *s, VTermScreenCell *cells, int stride, int skip, int rows, int cols)
{
    VTermScreenCell *row = cells ? NULL : calloc((size_t)s->cols, sizeof *row);
    if (!cells && !row) {
        t->failed = true;
        return;
    }
    for (int i = 0; i < rows; i++) {
        size_t before = t->len;
        add_place(t, i, 0);
        size_t head = t->len;
        if (!cells)
            read_row(s, i, row);
        add_row(t, cells ? cells + (size_t)(i + skip) * (size_t)stride : row, cols, true, true);
        if (t->len == head) /* nothing on this row */
            t->len = before;
    }
    free(row);
}

/* The normal screen beneath the alternate one, as far as it fits since. */
static void add_under(struct text *t, struct screen *s)
{
    if (!s->under)
        return;
    int cols = s->under_cols < s->cols ? s->under_cols : s->cols;
    int rows = s->under_rows < s->rows ? s->under_rows : s->rows;
    int skip = s->under_cursor.row >= rows ? s->under_cursor.row - rows + 1 : 0;
    add_rows(t, s, s->under, s->under_cols, skip, rows, cols);
    add_place(t, clamp(s->saved[0].row - skip, 0, rows - 1), clamp(s->saved[0].col, 0, s->cols - 1)); /* where leaving goes back to */
}

/* What the program prints next looks as it would have. */
static VTermScreenCell read_pen(struct screen *s)
{
    VTermState *state = vterm_obtain_state(s->vt);
    VTermScreenCell pen;
    VTermValue v;
    memset(&pen, 0, sizeof pen);
    if (vterm_state_get_penattr(state, VTERM_ATTR_BOLD, &v))
        pen.attrs.bold = v.boolean != 0;
    if (vterm_state_get_penattr(state, VTERM_ATTR_UNDERLINE, &v))
        pen.attrs.underline = (unsigned)v.number & 3u;
    if (vterm_state_get_penattr(state, VTERM_ATTR_ITALIC, &v))
        pen.attrs.italic = v.boolean != 0;
    if (vterm_state_get_penattr(state, VTERM_ATTR_BLINK, &v))
        pen.attrs.blink = v.boolean != 0;
    if (vterm_state_get_penattr(state, VTERM_ATTR_REVERSE, &v))
        pen.attrs.reverse = v.boolean != 0;
    if (vterm_state_get_penattr(state, VTERM_ATTR_STRIKE, &v))
        pen.attrs.strike = v.boolean != 0;
    if (vterm_state_get_penattr(state, VTERM_ATTR_FONT, &v))
        pen.attrs.font = (unsigned)v.number & 15u;
    if (vterm_state_get_penattr(state, VTERM_ATTR_FOREGROUND, &v))
        pen.fg = v.color;
    if (vterm_state_get_penattr(state, VTERM_ATTR_BACKGROUND, &v))
        pen.bg = v.color;
    return pen;
}

static void add_modes(struct text *t, const struct screen *s)
{
    char text[24];
    adds(t, s->keypad ? "\033=" : "\033>");
    if (s->insert)
        adds(t, "\033[4h");
    if (s->newline)
        adds(t, "\033[20h");
    /* What is off first: on some terminals any mouse mode that goes takes the others along. */
    for (int on = 0; on < 2; on++)
        for (size_t i = 0; i < MODES; i++) {
            if (i == MODE_CURSOR || i == MODE_ORIGIN || (int)s->modes[i] != on)
                continue;
            snprintf(text, sizeof text, "\033[?%d%c", mode_table[i].number, on ? 'h' : 'l');
            adds(t, text);
        }
    snprintf(text, sizeof text, "\033[%d q", s->shape);
    adds(t, text);
}

/* The cursor, and a wrap that waits behind it: the character that it waits for is written once more. */
static void add_cursor(struct text *t, struct screen *s)
{
    struct place p = cursor(s);
    char text[48];
    if (s->top || s->bottom) {
        snprintf(text, sizeof text, "\033[%d;%dr", s->top ? s->top : 1, s->bottom ? s->bottom : s->rows);
        adds(t, text);
    }
    int row = p.row;
    if (s->modes[MODE_ORIGIN]) { /* it moves the cursor home, and rows count from the margin */
        adds(t, "\033[?6h");
        row -= s->top ? s->top - 1 : 0;
    }
    add_place(t, row < 0 ? 0 : row, p.col);
    VTermScreenCell cell;
    if (s->wrap_pending && vterm_screen_get_cell(s->vts, (VTermPos){.row = p.row, .col = p.col}, &cell)) {
        add_look(t, &cell);
        cell.chars[0] = vtfilter_char(cell.chars[0]);
        add_cell(t, &cell);
    }
}

char *screen_paint(struct screen *s, unsigned scrollback, size_t *len)
{
    struct text t = {0};
    sync_screen(s);
    /* No assumption on what the terminal was left in: links closed, margins and modes as at first. */
    adds(&t, "\033]8;;\033\\\033[!p\033[?25l\033[?6l\033[?7h\033[?5l\033[4l\033[20l\033[m\033[r\033[H\033[2J");
    unsigned n = scrollback < s->count ? scrollback : s->count;
    for (unsigned i = n; i > 0; i--) {
        add_old(&t, old_line(s, i), true);
        adds(&t, "\r\n");
    }
    for (int i = 0; n && i < s->rows - 1; i++) /* they scroll out above the screen, and no blank line with them */
        adds(&t, "\r\n");
    if (n)
        adds(&t, "\033[H\033[2J");
    if (s->alt) {
        add_under(&t, s);
        adds(&t, "\033[?1049h\033[H\033[2J");
    }
    add_rows(&t, s, NULL, 0, 0, s->rows, s->cols);
    add_place(&t, s->saved[s->alt].row, s->saved[s->alt].col);
    adds(&t, "\0337");
    if (s->title[0]) {
        adds(&t, "\033]2;");
        adds(&t, s->title);
        adds(&t, "\033\\");
    }
    add_modes(&t, s);
    add_cursor(&t, s);
    VTermScreenCell pen = read_pen(s);
    add_look(&t, &pen);
    if (s->modes[MODE_CURSOR])
        adds(&t, "\033[?25h");
    if (t.failed) {
        free(t.p);
        return NULL;
    }
    *len = t.len;
    return t.p;
}

char *screen_text(struct screen *s, unsigned scrollback, size_t *len)
{
    struct text t = {0};
    VTermScreenCell *cells = calloc((size_t)s->cols, sizeof *cells);
    if (!cells)
        return NULL;
    sync_screen(s);
    unsigned n = scrollback < s->count ? scrollback : s->count;
    for (unsigned i = n; i > 0; i--) {
        add_old(&t, old_line(s, i), false);
        adds(&t, "\n");
    }
    for (int row = 0; row < s->rows; row++) {
        read_row(s, row, cells);
        add_row(&t, cells, s->cols, false, false);
        adds(&t, "\n");
    }
    free(cells);
    if (t.failed) {
        free(t.p);
        return NULL;
    }
    *len = t.len;
    return t.p;
}
