#include "ui/dash/term_emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"
#include "core/width.h"

static const struct {
    int number;
    bool on;
} mode_table[] = {{1, false},    {5, false},    {6, false},    {7, true},     {25, true},   {1000, false}, {1002, false},
                  {1003, false}, {1004, false}, {1006, false}, {1049, false}, {2004, false}, {2026, false}};
#define MODES (sizeof mode_table / sizeof *mode_table)

struct term_emu {
    VTerm *vt;
    VTermScreen *vts;
    struct vtfilter *filter;
    term_event_fn *fn;
    void *arg;
    int rows, cols;
    bool modes[MODES], keypad, insert, newline, margins, tabs;
    int top; /* the upper margin, from 0 */
    char *held; /* what the filter put out, and libvterm has not seen yet */
    size_t nheld;
    int skip; /* rows that scroll out, and are in the scrollback already */
    int shape;
    struct term_saved saved[2]; /* DECSC, of the normal and of the alternate screen */
    char title[256];
    struct term_line **lines; /* ring */
    unsigned cap, start, count;
    uint64_t first; /* number of the oldest line in it */
    size_t bytes;
};

static void blank_cells(struct term_cell *cells, int n)
{
    for (int i = 0; i < n; i++)
        cells[i] = (struct term_cell){.width = 1};
}

/* ---- scrollback ---- */

static void drop_line(struct term_emu *t)
{
    struct term_line *p = t->lines[t->start];
    t->bytes -= term_line_size(p);
    free(p);
    t->start = (t->start + 1) % t->cap;
    t->count--;
    t->first++;
}

static void push_packed(struct term_line *p, void *arg)
{
    struct term_emu *t = arg;
    size_t n = term_line_size(p);
    if (!t->cap) {
        t->first++; /* numbers go on */
        free(p);
        return;
    }
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
    if (t->skip) {
        t->skip--;
        return 1;
    }
    while (n > 0 && cells[n - 1].chars[0] == 0 && VTERM_COLOR_IS_DEFAULT_BG(&cells[n - 1].bg))
        n--;
    for (int i = 0; i < n; i++)
        term_cell_convert(&cells[i], &line[i]);
    term_cells_mend(line, n);
    struct term_line *p = term_line_pack(line, n);
    if (p)
        push_packed(p, t);
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

struct flood {
    struct term_emu *t;
    struct term_line **rows; /* of the screen before */
    bool begun;
};

static void on_flood(struct term_line *l, void *arg)
{
    struct flood *f = arg;
    for (int r = 0; r < f->t->rows - 1 && !f->begun; r++)
        if (f->rows[r])
            push_packed(f->rows[r], f->t);
    f->begun = true;
    push_packed(l, f->t);
}

/* Everything that was held goes where it belongs: what scrolls by to the scrollback, the rest to libvterm. */
static void sync_screen(struct term_emu *t)
{
    size_t len = t->nheld, at = 0;
    VTermPos pos;
    if (!len)
        return;
    t->nheld = 0;
    cursor(t, &pos);
    char *line = len > 1024 ? memmem(t->held, len, "\r\n", 2) : NULL;
    if (line && term_emu_mode(t, 7) && !t->margins && !t->insert && !t->newline && !t->tabs && !term_emu_mode(t, 6) && !term_emu_mode(t, 1049)) {
        at = (size_t)(line + 2 - t->held);
        vterm_input_write(t->vt, t->held, at);
        cursor(t, &pos);
        struct term_look look = term_pen(t->vt);
        uint64_t top = term_emu_top(t);
        static struct term_cell cells[TERM_COLS_MAX];
        if (pos.row == t->rows - 1 && pos.col == 0 && look.bg == TERM_DEFAULT && term_emu_line(t, top + (uint64_t)pos.row, cells, t->cols) >= 0 &&
            term_cells_blank(cells, t->cols)) {
            struct term_line *rows[TERM_ROWS_MAX];
            /* First of all the rows that are on the screen scroll out. */
            for (int r = 0; r < t->rows - 1; r++) {
                int n = term_emu_line(t, top + (uint64_t)r, cells, t->cols);
                rows[r] = term_line_pack(cells, n);
            }
            struct flood f = {t, rows, false};
            size_t n = term_flood_lines(t->held + at, len - at, t->rows, t->cols, &look, on_flood, &f);
            if (f.begun) {
                char text[TERM_LOOK_MAX];
                vterm_input_write(t->vt, text, term_look_sgr(look, text));
                t->skip = t->rows - 1;
            } else {
                for (int r = 0; r < t->rows - 1; r++)
                    free(rows[r]);
            }
            at += n;
        }
    }
    vterm_input_write(t->vt, t->held + at, len - at);
    t->skip = 0;
    /* Defence behind the filter: a cursor outside of the screen would be written to. */
    cursor(t, &pos);
    if (pos.row < 0 || pos.col < 0 || pos.row >= t->rows || pos.col >= t->cols)
        vterm_input_write(t->vt, "\033[H", 3);
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
    if (ev != VT_BELL && ev != VT_TITLE && ev != VT_NOTIFY)
        sync_screen(t); /* what came before it came under the modes before it */
    switch (ev) {
    case VT_MODE:
        if ((number == 1047 || number == 1049) && set != term_emu_mode(t, 1049))
            term_saved_set(t->vt, t->saved[set], t->rows, t->cols, term_emu_mode(t, 6) ? t->top : -1);
        set_mode(t, number, set);
        break;
    case VT_ANSI_MODE:
        *(number == 4 ? &t->insert : &t->newline) = set;
        break;
    case VT_MARGINS:
        t->margins = number != 0;
        t->top = number ? (number >> 16) - 1 : 0;
        break;
    case VT_TABS:
        t->tabs = true;
        break;
    case VT_CURSOR_SHAPE:
        t->shape = number;
        break;
    case VT_KEYPAD:
        t->keypad = set;
        break;
    case VT_SAVE_CURSOR:
        t->saved[term_emu_mode(t, 1049)] = term_saved_now(t->vt);
        break;
    case VT_CLEAR_HISTORY:
        clear_history(t);
        break;
    case VT_RESET:
        for (size_t i = 0; i < MODES; i++)
            if (number == 0 || mode_table[i].number <= 25)
                t->modes[i] = mode_table[i].on;
        t->keypad = t->insert = t->newline = t->margins = false;
        t->top = 0;
        if (number == 0) {
            t->shape = 0;
            t->tabs = false;
            t->saved[0] = t->saved[1] = (struct term_saved){0};
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
    if (t->nheld + len > TERM_HELD_MAX)
        sync_screen(t);
    memcpy(t->held + t->nheld, bytes, len);
    t->nheld += len;
}

static void on_cursor(int *row, int *col, void *arg)
{
    VTermPos pos;
    sync_screen(arg);
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
    t->held = malloc(TERM_HELD_MAX);
    t->vt = vterm_new(t->rows, t->cols);
    t->filter = vtfilter_new(VT_LIBVTERM, &filter_ops, t);
    if (!t->vt || !t->filter || !t->held || (scrollback && !t->lines)) {
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
    free(t->held);
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
    sync_screen(t);
    t->margins = false;
    t->top = 0;
    t->rows = rows;
    t->cols = cols;
    vtfilter_resized(t->filter);
    vterm_set_size(t->vt, rows, cols);
    /* 0.1.4 may leave the cursor, the margins and the saved place outside (vm/screen.c says the same). */
    VTermPos pos;
    char text[64];
    cursor(t, &pos);
    vterm_input_write(t->vt, "\033[r", 3);
    struct term_saved *saved = &t->saved[term_emu_mode(t, 1049)];
    if (saved->row >= rows || saved->col >= cols) {
        saved->row = clamp(saved->row, 0, rows - 1);
        saved->col = clamp(saved->col, 0, cols - 1);
        snprintf(text, sizeof text, "\033[%d;%dH\0337", saved->row + 1, saved->col + 1);
        vterm_input_write(t->vt, text, strlen(text));
    }
    snprintf(text, sizeof text, "\033[%d;%dH", clamp(pos.row, 0, rows - 1) + 1, clamp(pos.col, 0, cols - 1) + 1);
    vterm_input_write(t->vt, text, strlen(text));
}

/* ---- looking at it ---- */

/* Whoever looks sees all; that it was not done before shows nowhere. */
static void see(const struct term_emu *t)
{
    sync_screen((struct term_emu *)t);
}

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
    see(t);
    return t->first;
}

uint64_t term_emu_top(const struct term_emu *t)
{
    see(t);
    return t->first + t->count;
}

uint64_t term_emu_end(const struct term_emu *t)
{
    return term_emu_top(t) + (uint64_t)t->rows;
}

int term_emu_line(const struct term_emu *t, uint64_t line, struct term_cell *out, int cap)
{
    int n = 0;
    if (line >= term_emu_end(t) || line < t->first)
        return -1;
    if (line < term_emu_top(t)) {
        n = term_line_unpack(t->lines[(t->start + (unsigned)(line - t->first)) % t->cap], out, cap);
    } else {
        VTermScreenCell c;
        int row = (int)(line - term_emu_top(t));
        n = cap < t->cols ? cap : t->cols;
        for (int col = 0; col < n; col++) {
            vterm_screen_get_cell(t->vts, (VTermPos){.row = row, .col = col}, &c);
            term_cell_convert(&c, &out[col]);
        }
        term_cells_mend(out, n);
    }
    blank_cells(out + n, cap - n);
    if (n == cap && n && out[n - 1].ch[0] >= 0x1100 && width_of(out[n - 1].ch[0]) == 2) /* cut in the middle */
        out[n - 1] = (struct term_cell){.width = 1, .bg = out[n - 1].bg, .attrs = out[n - 1].attrs};
    return n;
}

bool term_emu_cursor(const struct term_emu *t, int *row, int *col)
{
    VTermPos pos;
    see(t);
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
    if (from.line < term_emu_first(t)) {
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
                n += term_utf8((unsigned char *)out + n, cells[i].ch[k]);
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
    static int column[TERM_COLS_MAX + 1];
    int have = term_emu_line(t, line, cells, TERM_COLS_MAX), n = 0, own, base = 0, end = nwhat - 1;
    bool found = false, full = have >= t->cols && !is_blank(&cells[have - 1]);
    for (int i = 0; i < have; i++) {
        if (cells[i].width == 0)
            continue;
        column[n] = i;
        text[n++] = folded(cells[i].ch[0] ? cells[i].ch[0] : ' ', exact);
    }
    own = n;
    /* What a line has no room for stands in the next one. */
    for (uint64_t more = line + 1; full && end > 0 && more < term_emu_end(t); more++) {
        base += have;
        have = term_emu_line(t, more, cells, TERM_COLS_MAX);
        full = have >= t->cols && !is_blank(&cells[have - 1]);
        for (int i = 0; i < have && end > 0 && n < TERM_COLS_MAX; i++) {
            if (cells[i].width == 0)
                continue;
            column[n] = base + i;
            text[n++] = folded(cells[i].ch[0] ? cells[i].ch[0] : ' ', exact);
            end--;
        }
        full = full && n < TERM_COLS_MAX;
    }
    for (int i = 0; i < own && i + nwhat <= n; i++) {
        if (column[i] <= after || column[i] >= before || memcmp(text + i, what, (size_t)nwhat * sizeof *what) != 0)
            continue;
        *col = column[i];
        *cells_out = column[i + nwhat - 1] + (width_of(text[i + nwhat - 1]) == 2 ? 2 : 1) - column[i];
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
    uint64_t first = term_emu_first(t), total = term_emu_end(t) - first;
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
