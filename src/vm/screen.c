#include "vm/screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vterm.h>

#include "core/sanitize.h"

struct text {
    char *p;
    size_t len, cap;
    bool failed;
};

/* Modes that a repaint sets again: DEC numbers, and whether they are on at first. */
static const struct {
    int number;
    bool on;
} mode_table[] = {{1, false},    {6, false},    {7, true},     {25, true},   {1000, false},
                  {1002, false}, {1003, false}, {1004, false}, {1006, false}, {2004, false}};
#define MODES (sizeof mode_table / sizeof *mode_table)

struct screen {
    VTerm *vt;
    VTermScreen *vts;
    struct vtfilter *model, *stream;
    const struct screen_ops *ops;
    void *arg;
    int rows, cols;
    bool alt, keypad, modes[MODES];
    int shape, top, bottom;
    char title[256];
    char **lines; /* ring of scrollback lines, each as it would be painted */
    unsigned cap, start, count;
    size_t bytes;
};

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

static bool same_colour(const VTermColor *a, const VTermColor *b)
{
    if (a->type != b->type)
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
           same_colour(&a->fg, &b->fg) && same_colour(&a->bg, &b->bg);
}

/* The whole look as one SGR that begins with a reset.  The font number carries what libvterm has no attribute for
 * (core/vtfilter.c). */
static void add_look(struct text *t, const VTermScreenCell *c)
{
    adds(t, "\033[0");
    if (c->attrs.bold)
        adds(t, ";1");
    if (c->attrs.font == 1)
        adds(t, ";2");
    if (c->attrs.italic)
        adds(t, ";3");
    if (c->attrs.underline == 2)
        adds(t, ";21");
    else if (c->attrs.underline)
        adds(t, ";4");
    if (c->attrs.blink)
        adds(t, ";5");
    if (c->attrs.reverse)
        adds(t, ";7");
    if (c->attrs.font == 2)
        adds(t, ";8");
    if (c->attrs.strike)
        adds(t, ";9");
    if (c->attrs.font == 4)
        adds(t, ";53");
    add_colour(t, &c->fg, false);
    add_colour(t, &c->bg, true);
    adds(t, "m");
}

static bool blank(const VTermScreenCell *c)
{
    return (c->chars[0] == 0 || c->chars[0] == ' ') && VTERM_COLOR_IS_DEFAULT_BG(&c->bg) && !c->attrs.underline &&
           !c->attrs.reverse && !c->attrs.strike && c->attrs.font != 4;
}

/* One row; blanks at its end are left out, so the line must be clear before. */
static void add_row(struct text *t, const VTermScreenCell *cells, int cols, bool look)
{
    VTermScreenCell now;
    bool plain = true;
    int end = cols;
    while (end > 0 && blank(&cells[end - 1]))
        end--;
    memset(&now, 0, sizeof now);
    for (int i = 0; i < end; i++) {
        const VTermScreenCell *c = &cells[i];
        if (c->chars[0] == (uint32_t)-1)
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
        if (c->chars[0] == 0)
            add(t, " ", 1);
        for (int k = 0; k < VTERM_MAX_CHARS_PER_CELL && c->chars[k] && c->chars[k] != (uint32_t)-1; k++)
            add_char(t, c->chars[k]);
    }
    if (look && !plain)
        adds(t, "\033[m");
}

/* ---- scrollback ---- */

static int push_line(int cols, const VTermScreenCell *cells, void *arg)
{
    struct screen *s = arg;
    struct text t = {0};
    if (s->cap == 0)
        return 0;
    add_row(&t, cells, cols, true);
    char *line = t.failed ? NULL : t.p ? realloc(t.p, t.len + 1) : strdup("");
    if (!line) {
        free(t.p);
        return 0;
    }
    while (s->count && (s->count == s->cap || s->bytes + t.len > SCREEN_SCROLLBACK_BYTES)) {
        s->bytes -= strlen(s->lines[s->start]) + 1;
        free(s->lines[s->start]);
        s->start = (s->start + 1) % s->cap;
        s->count--;
    }
    s->lines[(s->start + s->count++) % s->cap] = line;
    s->bytes += t.len + 1;
    return 1;
}

/* ---- the filter's events ---- */

static void on_event(enum vt_event ev, int number, bool set, const char *text, void *arg)
{
    struct screen *s = arg;
    switch (ev) {
    case VT_MODE:
        if (number == 47 || number == 1047 || number == 1049)
            s->alt = set;
        for (size_t i = 0; i < MODES; i++)
            if (mode_table[i].number == number)
                s->modes[i] = set;
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
    case VT_RESET:
        for (size_t i = 0; i < MODES; i++)
            s->modes[i] = mode_table[i].on;
        s->top = s->bottom = s->shape = 0;
        s->keypad = false;
        if (number == 0)
            s->alt = false;
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
    struct screen *s = arg;
    VTermPos pos;
    vterm_state_get_cursorpos(vterm_obtain_state(s->vt), &pos);
    *row = pos.row + 1;
    *col = pos.col + 1;
}

static void on_model(const char *bytes, size_t len, void *arg)
{
    struct screen *s = arg;
    vterm_input_write(s->vt, bytes, len);
    /* Defence behind the filter: a cursor outside of the screen would be written to. */
    VTermPos pos;
    vterm_state_get_cursorpos(vterm_obtain_state(s->vt), &pos);
    if (pos.row < 0 || pos.col < 0 || pos.row >= s->rows || pos.col > s->cols)
        vterm_input_write(s->vt, "\033[H", 3);
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

static const struct vt_ops model_ops = {on_model, on_reply, on_event, on_cursor};
static const struct vt_ops stream_ops = {on_stream, NULL, NULL, NULL};

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
    s->vt = vterm_new(s->rows, s->cols);
    s->model = vtfilter_new(VT_LIBVTERM, &model_ops, s);
    s->stream = vtfilter_new(VT_TERMINAL, &stream_ops, s);
    if (!s->vt || !s->model || !s->stream || (scrollback && !s->lines)) {
        screen_free(s);
        return NULL;
    }
    vterm_set_utf8(s->vt, 1);
    s->vts = vterm_obtain_screen(s->vt);
    vterm_screen_set_callbacks(s->vts, &callbacks, s);
    vterm_screen_enable_altscreen(s->vts, 1);
    vterm_screen_reset(s->vts, 1);
    for (size_t i = 0; i < MODES; i++)
        s->modes[i] = mode_table[i].on;
    return s;
}

void screen_free(struct screen *s)
{
    if (!s)
        return;
    vtfilter_free(s->model);
    vtfilter_free(s->stream);
    if (s->vt)
        vterm_free(s->vt);
    for (unsigned i = 0; i < s->count; i++)
        free(s->lines[(s->start + i) % s->cap]);
    free(s->lines);
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
    VTermPos pos;
    vterm_state_get_cursorpos(vterm_obtain_state(s->vt), &pos);
    int old = s->rows;
    s->rows = rows;
    s->cols = cols;
    vterm_set_size(s->vt, rows, cols);
    /* 0.1.4 leaves the cursor, the margins and the saved position where they may lie outside: all three are set
     * again, to the place on the text that the cursor had. */
    int row = pos.row;
    if (rows < old && pos.row >= rows)
        row = rows - 1;
    char text[64];
    s->top = s->bottom = 0;
    snprintf(text, sizeof text, "\033[r\033[%d;%dH\033[s", clamp(row, 0, rows - 1) + 1, clamp(pos.col, 0, cols - 1) + 1);
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

static const char *old_line(const struct screen *s, unsigned back)
{
    return s->lines[(s->start + s->count - back) % s->cap];
}

static void read_row(struct screen *s, int row, VTermScreenCell *cells)
{
    for (int col = 0; col < s->cols; col++)
        vterm_screen_get_cell(s->vts, (VTermPos){.row = row, .col = col}, &cells[col]);
    /* The right half of a wide character has no mark of its own here: the cell's width tells. */
    for (int col = 0; col + 1 < s->cols; col++)
        if (cells[col].width == 2)
            cells[col + 1].chars[0] = (uint32_t)-1;
}

char *screen_paint(struct screen *s, unsigned scrollback, size_t *len)
{
    struct text t = {0};
    char buf[64];
    VTermScreenCell *cells = calloc((size_t)s->cols, sizeof *cells);
    if (!cells)
        return NULL;
    adds(&t, "\033[!p\033[?25l\033[m\033[r\033[H\033[2J");
    if (!s->alt) {
        unsigned n = scrollback < s->count ? scrollback : s->count;
        for (unsigned i = n; i > 0; i--) {
            adds(&t, old_line(s, i));
            adds(&t, "\033[K\r\n");
        }
        if (n) { /* the last of them scroll out above the screen */
            snprintf(buf, sizeof buf, "\033[%d;1H", s->rows);
            adds(&t, buf);
            for (int i = 0; i < s->rows - 1; i++)
                adds(&t, "\r\n");
        }
    } else {
        adds(&t, "\033[?1049h");
    }
    adds(&t, "\033[H\033[2J");
    for (int row = 0; row < s->rows; row++) {
        size_t before = t.len;
        snprintf(buf, sizeof buf, "\033[%d;1H", row + 1);
        adds(&t, buf);
        size_t head = t.len;
        read_row(s, row, cells);
        add_row(&t, cells, s->cols, true);
        if (t.len == head) { /* nothing on this row */
            t.len = before;
        }
    }
    if (s->top || s->bottom) {
        snprintf(buf, sizeof buf, "\033[%d;%dr", s->top ? s->top : 1, s->bottom ? s->bottom : s->rows);
        adds(&t, buf);
    }
    VTermPos pos;
    vterm_state_get_cursorpos(vterm_obtain_state(s->vt), &pos);
    snprintf(buf, sizeof buf, "\033[%d;%dH", pos.row + 1, pos.col + 1);
    adds(&t, buf);
    for (size_t i = 0; i < MODES; i++) {
        if (mode_table[i].number == 25)
            continue;
        if (s->modes[i] != mode_table[i].on) {
            snprintf(buf, sizeof buf, "\033[?%d%c", mode_table[i].number, s->modes[i] ? 'h' : 'l');
            adds(&t, buf);
        }
    }
    if (s->modes[1]) /* origin mode moves the cursor home: put it back, relative to the margins */
        snprintf(buf, sizeof buf, "\033[%d;%dH", pos.row + 1 - (s->top ? s->top - 1 : 0), pos.col + 1);
    else
        buf[0] = '\0';
    adds(&t, buf);
    if (s->keypad)
        adds(&t, "\033=");
    if (s->shape) {
        snprintf(buf, sizeof buf, "\033[%d q", s->shape);
        adds(&t, buf);
    }
    /* The pen: what the program prints next looks as it would have. */
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
    add_look(&t, &pen);
    if (s->modes[3])
        adds(&t, "\033[?25h");
    free(cells);
    if (t.failed) {
        free(t.p);
        return NULL;
    }
    *len = t.len;
    return t.p;
}

/* A painted line without its looks. */
static void add_stripped(struct text *t, const char *line)
{
    while (*line) {
        if (*line == '\033') {
            while (*line && *line != 'm')
                line++;
            if (*line)
                line++;
            continue;
        }
        size_t n = strcspn(line, "\033");
        add(t, line, n);
        line += n;
    }
}

char *screen_text(struct screen *s, unsigned scrollback, size_t *len)
{
    struct text t = {0};
    VTermScreenCell *cells = calloc((size_t)s->cols, sizeof *cells);
    if (!cells)
        return NULL;
    unsigned n = scrollback < s->count ? scrollback : s->count;
    for (unsigned i = n; i > 0 && !s->alt; i--) {
        add_stripped(&t, old_line(s, i));
        adds(&t, "\n");
    }
    for (int row = 0; row < s->rows; row++) {
        read_row(s, row, cells);
        add_row(&t, cells, s->cols, false);
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
