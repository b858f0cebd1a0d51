#include "core/vtfilter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"
#include "core/width.h"

enum state { GROUND, ESC, ESC_INTER, CSI, CSI_IGNORE, STRING, STRING_ESC };
enum string_kind { OSC, DCS, OTHER };

#define OUT_CAP 4096u
#define MARKS_MAX 5u /* joined to one character: libvterm's cell has room for them, and more is an attack on somebody */

/* What the font number of a libvterm cell carries (SGR 10 + bits). */
enum { FONT_DIM = 1, FONT_CONCEAL = 2, FONT_OVERLINE = 4 };

/* DEC private modes that are followed and passed on, and whether they are on at first. */
static const struct {
    uint16_t number;
    bool on;
} mode_table[] = {{1, false},    {5, false},    {6, false},    {7, true},     {12, false},   {25, true},
                  {40, false},   {1000, false}, {1002, false}, {1003, false}, {1004, false}, {1006, false}, {1047, false},
                  {1048, false}, {1049, false}, {2004, false}, {2026, false}};
#define MODES (sizeof mode_table / sizeof *mode_table)

enum charset { ASCII, LINES, BRITISH };

struct param {
    uint16_t value;
    bool given;
    bool sub; /* follows the one before after a colon */
};

struct vtfilter {
    enum vt_profile profile;
    const struct vt_ops *ops;
    void *arg;
    enum state state;
    char inter[4];
    unsigned ninter;
    char prefix; /* < = > ? of a CSI, or 0 */
    struct param params[VT_PARAMS_MAX];
    unsigned nparams;
    bool overflow;
    enum string_kind kind;
    char *string;
    size_t string_len, string_cap;
    bool string_dropped;
    unsigned char utf8[4]; /* a character that is not whole yet */
    unsigned utf8_len;
    char last[4]; /* the last character, for REP */
    unsigned last_len;
    bool repeatable; /* nothing came since */
    unsigned marks;                   /* joined to it so far */
    struct pen {
        unsigned font;       /* FONT_* */
        enum charset set[2]; /* G0 and G1 */
        bool shifted;        /* G1 is in use */
        bool protect;        /* DECSCA */
        bool origin;         /* DECOM; in a saved one alone */
    } pen, saved[2];         /* now, and at the last DECSC of the normal and of the alternate screen */
    bool alt, insert, newline;
    uint32_t modes;                   /* bits of mode_table */
    unsigned top, bottom;             /* the margins; 0: the whole screen */
    bool rang, coloured;              /* a BEL was the last that was passed on; an SGR other than reset was */
    char out[OUT_CAP];
    size_t out_len;
    long last_print;
};

static void reset_modes(struct vtfilter *f, bool soft)
{
    for (size_t i = 0; i < MODES; i++) {
        uint32_t bit = 1u << i;
        unsigned m = mode_table[i].number;
        if (soft && m != 1 && m != 6 && m != 7 && m != 25)
            continue;
        f->modes = mode_table[i].on ? f->modes | bit : f->modes & ~bit;
    }
    f->pen = f->saved[f->alt] = (struct pen){0};
    f->insert = f->newline = false;
    f->top = f->bottom = 0;
    if (!soft) {
        f->saved[0] = f->saved[1] = (struct pen){0};
        f->alt = false;
    }
}

struct vtfilter *vtfilter_new(enum vt_profile profile, const struct vt_ops *ops, void *arg)
{
    struct vtfilter *f = calloc(1, sizeof *f);
    if (f) {
        f->profile = profile;
        f->ops = ops;
        f->arg = arg;
        f->last_print = VT_PRINT_SAME;
        reset_modes(f, false);
    }
    return f;
}

void vtfilter_free(struct vtfilter *f)
{
    if (!f)
        return;
    free(f->string);
    free(f);
}

/* ---- output ---- */

static void flush(struct vtfilter *f)
{
    if (f->out_len)
        f->ops->out(f->out, f->out_len, f->arg);
    f->out_len = 0;
    f->last_print = VT_PRINT_SAME;
}

long vtfilter_last_print(const struct vtfilter *f)
{
    return f->last_print;
}

/* What leaves the cursor where it is. */
static void put_still(struct vtfilter *f, const char *s, size_t n)
{
    if (f->out_len + n > OUT_CAP)
        flush(f);
    memcpy(f->out + f->out_len, s, n);
    f->out_len += n;
    f->rang = false;
}

static void put(struct vtfilter *f, const char *s, size_t n)
{
    put_still(f, s, n);
    f->last_print = VT_PRINT_NONE;
}

static void reply(struct vtfilter *f, const char *s)
{
    if (f->ops->reply && f->profile != VT_PLAIN) {
        flush(f); /* what was printed before the question is on the screen before the answer */
        f->ops->reply(s, strlen(s), f->arg);
    }
}

static void event(struct vtfilter *f, enum vt_event ev, int number, bool set, const char *text)
{
    flush(f); /* in order with the output */
    if (f->ops->event)
        f->ops->event(ev, number, set, text, f->arg);
}

/* ---- SGR ---- */

struct sgr_out {
    struct vtfilter *f;
    char buf[128];
    size_t len;
    unsigned n;
};

static void sgr_flush(struct sgr_out *o)
{
    if (o->n) {
        o->buf[o->len++] = 'm';
        put_still(o->f, o->buf, o->len);
        o->f->coloured = !(o->len == 4 && o->buf[2] == '0');
    }
    o->len = 0;
    o->n = 0;
}

/* One attribute, which is never torn apart; `weight` is the number of parameters it is. */
static void sgr_add(struct sgr_out *o, const char *text, unsigned weight)
{
    size_t n = strlen(text);
    if (o->n + weight > 15 || o->len + n + 4 > sizeof o->buf)
        sgr_flush(o);
    if (o->n == 0) {
        memcpy(o->buf, "\033[", 2);
        o->len = 2;
    } else {
        o->buf[o->len++] = ';';
    }
    memcpy(o->buf + o->len, text, n);
    o->len += n;
    o->n += weight;
}

/* A colour in either spelling: 38;5;N  38;2;R;G;B  38:5:N  38:2:R:G:B  38:2:[space]:R:G:B.  Returns how many
 * parameters it is, 0 if malformed; text gets its one canonical spelling. */
static unsigned colour(const struct param *p, unsigned n, char *text, size_t cap)
{
    unsigned code = p[0].value;
    bool colons = n > 1 && p[1].sub;
    if (colons) {
        unsigned k = 1;
        while (k < n && p[k].sub)
            k++;
        if (k == 3 && p[1].value == 5)
            snprintf(text, cap, "%u;5;%u", code, p[2].value & 255u);
        else if (k == 5 && p[1].value == 2)
            snprintf(text, cap, "%u;2;%u;%u;%u", code, p[2].value & 255u, p[3].value & 255u, p[4].value & 255u);
        else if (k >= 6 && p[1].value == 2)
            snprintf(text, cap, "%u;2;%u;%u;%u", code, p[3].value & 255u, p[4].value & 255u, p[5].value & 255u);
        else
            text[0] = '\0';
        return k;
    }
    if (n >= 3 && p[1].value == 5) {
        snprintf(text, cap, "%u;5;%u", code, p[2].value & 255u);
        return 3;
    }
    if (n >= 5 && p[1].value == 2) {
        snprintf(text, cap, "%u;2;%u;%u;%u", code, p[2].value & 255u, p[3].value & 255u, p[4].value & 255u);
        return 5;
    }
    text[0] = '\0';
    return n;
}

/* libvterm 0.1.4 has no dim, conceal or overline, but keeps a font number per cell (SGR 10 to 19), which no program
 * uses: its bits carry them.  True if v is one of these. */
static bool font_attr(struct vtfilter *f, unsigned v)
{
    switch (v) {
    case 2:
        f->pen.font |= FONT_DIM;
        return true;
    case 22: /* not bold either */
        f->pen.font &= ~(unsigned)FONT_DIM;
        return true;
    case 8:
        f->pen.font |= FONT_CONCEAL;
        return true;
    case 28:
        f->pen.font &= ~(unsigned)FONT_CONCEAL;
        return true;
    case 53:
        f->pen.font |= FONT_OVERLINE;
        return true;
    case 55:
        f->pen.font &= ~(unsigned)FONT_OVERLINE;
        return true;
    default:
        return false;
    }
}

static void sgr(struct vtfilter *f)
{
    struct sgr_out o = {.f = f};
    const struct param *p = f->params;
    unsigned n = f->nparams;
    char text[40];
    if (n == 0) {
        f->pen.font = 0;
        f->coloured = false;
        put_still(f, "\033[m", 3);
        return;
    }
    for (unsigned i = 0; i < n;) {
        unsigned v = p[i].value, used = 1;
        if (v == 38 || v == 48 || v == 58) {
            used = colour(p + i, n - i, text, sizeof text);
            if (text[0] && (v != 58 || f->profile == VT_TERMINAL))
                sgr_add(&o, text, 5);
            i += used ? used : 1;
            continue;
        }
        while (i + used < n && p[i + used].sub)
            used++;
        if (v == 4 && used >= 2) { /* 4:0 none, 4:1 single ... 4:5 */
            unsigned style = p[i + 1].value > 5 ? 1 : p[i + 1].value;
            if (style == 0)
                sgr_add(&o, "24", 1);
            else if (f->profile == VT_PLAIN || (f->profile == VT_LIBVTERM && style > 3))
                sgr_add(&o, "4", 1); /* libvterm knows single, double and curly */
            else {
                snprintf(text, sizeof text, "4:%u", style);
                sgr_add(&o, text, 2); /* what follows a colon takes a place of its own among libvterm's sixteen */
            }
        } else if (f->profile == VT_LIBVTERM && font_attr(f, v)) {
            if (v == 22)
                sgr_add(&o, "22", 1);
            snprintf(text, sizeof text, "%u", 10 + f->pen.font);
            sgr_add(&o, text, 1);
        } else if (f->profile == VT_LIBVTERM && v == 6) {
            sgr_add(&o, "5", 1);
        } else if (v <= 9 || (v >= 21 && v <= 29) || (v >= 30 && v <= 49) || v == 53 || v == 55 || v == 59 ||
                   (v >= 90 && v <= 107)) {
            if (v == 0)
                f->pen.font = 0;
            if (!(v == 59 && f->profile != VT_TERMINAL)) {
                snprintf(text, sizeof text, "%u", v);
                sgr_add(&o, text, 1);
            }
        }
        i += used;
    }
    sgr_flush(&o);
}

/* ---- CSI ---- */

static const char attributes[] = "\033[?62;22c"; /* DA 1: a VT220 with colours */

static void rewrite(struct vtfilter *f, char final, unsigned max);
static void print(struct vtfilter *f, const char *s, unsigned n);

static unsigned arg(const struct vtfilter *f, unsigned i, unsigned fallback)
{
    return i < f->nparams && f->params[i].given && f->params[i].value ? f->params[i].value : fallback;
}

static void repeat(struct vtfilter *f)
{
    unsigned n = arg(f, 0, 1);
    if (n > VT_REPEAT_MAX)
        n = VT_REPEAT_MAX;
    while (f->repeatable && f->last_len && n--)
        print(f, f->last, f->last_len);
}

static int mode_index(unsigned number)
{
    for (size_t i = 0; i < MODES; i++)
        if (mode_table[i].number == number)
            return (int)i;
    return -1;
}

static void save_cursor(struct vtfilter *f, const char *how)
{
    f->saved[f->alt] = f->pen;
    f->saved[f->alt].origin = f->modes >> mode_index(6) & 1u;
    event(f, VT_SAVE_CURSOR, 0, true, NULL);
    put(f, how, strlen(how));
}

/* With what libvterm does not restore: origin mode, which moves the cursor and comes first, and protection. */
static void restore_cursor(struct vtfilter *f, const char *how)
{
    const struct pen *p = &f->saved[f->alt];
    uint32_t bit = 1u << mode_index(6);
    if (f->profile == VT_LIBVTERM && p->origin != ((f->modes & bit) != 0)) {
        event(f, VT_MODE, 6, p->origin, NULL);
        put(f, p->origin ? "\033[?6h" : "\033[?6l", 5);
    }
    if (f->profile == VT_LIBVTERM && p->protect != f->pen.protect)
        put(f, p->protect ? "\033[1\"q" : "\033[0\"q", 5);
    f->modes = p->origin ? f->modes | bit : f->modes & ~bit;
    f->pen = *p;
    put(f, how, strlen(how));
}

/* DECCOLM where mode 40 allows it: the number of columns stays, for it is the pane's, but the screen is as empty as
 * after the change, and the margins are gone. */
static void columns(struct vtfilter *f)
{
    if (!(f->modes >> mode_index(40) & 1u))
        return;
    event(f, VT_MARGINS, 0, true, NULL);
    f->top = f->bottom = 0;
    put(f, "\033[r\033[H\033[2J", 10);
}

/* The alternate screen and the saved cursor.  1049 is both, and told to libvterm as both, one after the other: between
 * them whoever follows the events can give it the saved cursor of the screen that comes. */
static void screens(struct vtfilter *f, unsigned m, bool set)
{
    char text[24];
    bool both = m == 1049 && f->profile == VT_LIBVTERM;
    snprintf(text, sizeof text, "\033[?%u%c", both ? 1047 : m, set ? 'h' : 'l');
    if (m == 1049 && set)
        save_cursor(f, both ? "\0337" : "");
    if (m != 1048) {
        event(f, VT_MODE, (int)m, set, NULL);
        f->alt = set;
    }
    if (m == 1048 && set)
        save_cursor(f, text);
    else if (m == 1048 || (m == 1049 && !set && !both))
        restore_cursor(f, text);
    else
        put(f, text, strlen(text));
    if (both && !set)
        restore_cursor(f, "\0338");
}

static void modes(struct vtfilter *f, bool set)
{
    for (unsigned i = 0; i < f->nparams; i++) {
        unsigned m = f->params[i].value;
        char text[24];
        if (m == 47) /* the same screen; libvterm 0.1.4 knows it by this number alone */
            m = 1047;
        if (m == 3) {
            columns(f);
            continue;
        }
        int k = mode_index(m);
        if (k < 0)
            continue;
        if (set)
            f->modes |= 1u << k;
        else
            f->modes &= ~(1u << k);
        if (m == 1047 || m == 1048 || m == 1049) {
            screens(f, m, set);
            continue;
        }
        event(f, VT_MODE, (int)m, set, NULL);
        if (m == 40) /* ours alone: nothing makes the user's terminal wider */
            continue;
        /* Not for libvterm: it would turn the cells round, or has no use for them. */
        if (f->profile == VT_LIBVTERM && (m == 2026 || m == 12 || m == 5))
            continue;
        int n = snprintf(text, sizeof text, "\033[?%u%c", m, set ? 'h' : 'l');
        if (m == 6)
            put(f, text, (size_t)n);
        else
            put_still(f, text, (size_t)n);
    }
}

static void report_mode(struct vtfilter *f)
{
    char text[32];
    unsigned m = arg(f, 0, 0);
    int k = mode_index(m == 47 ? 1047 : m);
    if (f->prefix == '?')
        snprintf(text, sizeof text, "\033[?%u;%u$y", m, k < 0 ? 0u : f->modes >> k & 1u ? 1u : 2u);
    else if (!f->prefix)
        snprintf(text, sizeof text, "\033[%u;%u$y", m, m == 4 ? (f->insert ? 1u : 2u) : m == 20 ? (f->newline ? 1u : 2u) : 0u);
    else
        return;
    reply(f, text);
}

static void report_cursor(struct vtfilter *f, const char *prefix)
{
    char text[48];
    int row = 1, col = 1;
    flush(f);
    if (f->ops->cursor)
        f->ops->cursor(&row, &col, f->arg);
    if (f->top && f->modes >> mode_index(6) & 1u) /* counted from the margin */
        row = row > (int)f->top ? row - (int)f->top + 1 : 1;
    snprintf(text, sizeof text, "\033[%s%d;%dR", prefix, row, col);
    reply(f, text);
}

/* The size in characters, and in pixels of a cell that is always 10 wide and 20 high: numbers, nothing of the host. */
static void report_size(struct vtfilter *f)
{
    char text[48];
    int rows, cols;
    if (!f->ops->size)
        return;
    f->ops->size(&rows, &cols, f->arg);
    switch (arg(f, 0, 0)) {
    case 14:
        snprintf(text, sizeof text, "\033[4;%d;%dt", rows * 20, cols * 10);
        break;
    case 16:
        snprintf(text, sizeof text, "\033[6;20;10t");
        break;
    case 18:
        snprintf(text, sizeof text, "\033[8;%d;%dt", rows, cols);
        break;
    default: /* the title's report above all is never answered */
        return;
    }
    reply(f, text);
}

/* A reset, as a list of what it is: libvterm's own forgets to leave the alternate screen, and a user's terminal would
 * lose its title, its history and what it was set to before we came. */
static void reset(struct vtfilter *f)
{
    event(f, VT_RESET, 0, true, NULL);
    if (f->profile == VT_LIBVTERM)
        put(f, "\033[?1047l\033c\0337", 12);
    else
        put(f,
            "\033[?1049l\033[!p\033[?5l\033[?7h\033[?1000l\033[?1002l\033[?1003l\033[?1004l\033[?1006l\033[?2004l"
            "\033[?2026l\033[r\033[m\033[0 q\033[H\033[2J",
            sizeof "\033[?1049l\033[!p\033[?5l\033[?7h\033[?1000l\033[?1002l\033[?1003l\033[?1004l\033[?1006l\033[?2004l"
                   "\033[?2026l\033[r\033[m\033[0 q\033[H\033[2J" -
                1);
    reset_modes(f, false);
}

/* Margins that the screen has, or nothing: libvterm takes others for a reset, terminals for none. */
static void margins(struct vtfilter *f)
{
    unsigned top = arg(f, 0, 1), bottom = arg(f, 1, 0);
    char text[32];
    int rows = 0, cols = 0;
    if (f->ops->size)
        f->ops->size(&rows, &cols, f->arg);
    if (rows && (bottom == 0 || bottom > (unsigned)rows))
        bottom = (unsigned)rows;
    if (bottom && top >= bottom)
        return;
    bool whole = top == 1 && (bottom == 0 || bottom == (unsigned)rows);
    event(f, VT_MARGINS, whole ? 0 : (int)(top << 16 | bottom), true, NULL);
    f->top = whole ? 0 : top;
    f->bottom = whole ? 0 : bottom;
    if (whole)
        snprintf(text, sizeof text, "\033[r");
    else if (bottom)
        snprintf(text, sizeof text, "\033[%u;%ur", top, bottom);
    else
        snprintf(text, sizeof text, "\033[%ur", top);
    put(f, text, strlen(text));
}

static void erase_display(struct vtfilter *f)
{
    unsigned what = arg(f, 0, 0);
    if (what == 3) { /* ours is cleared; the user's own history is not the guest's */
        event(f, VT_CLEAR_HISTORY, 0, true, NULL);
        return;
    }
    if (what < 3)
        rewrite(f, 'J', 1);
}

/* Writes the sequence again from what was understood. */
static void rewrite(struct vtfilter *f, char final, unsigned max)
{
    char text[128];
    size_t n = 0;
    text[n++] = '\033';
    text[n++] = '[';
    if (f->prefix)
        text[n++] = f->prefix;
    for (unsigned i = 0; i < f->nparams && i < max; i++) {
        if (i)
            text[n++] = ';';
        if (f->params[i].given)
            n += (size_t)snprintf(text + n, sizeof text - n, "%u", f->params[i].value);
    }
    for (unsigned i = 0; i < f->ninter; i++)
        text[n++] = f->inter[i];
    text[n++] = final;
    put(f, text, n);
}

/* DECSTR, which libvterm 0.1.4 does not know: all that it resets, with the cursor left where it is. */
static void soft_reset(struct vtfilter *f)
{
    static const char what[] = "\033[4l\033[?6l\033[r\033[?7h\033[?25h\033[?1l\033>\033[m\033[0\"q\033[H";
    char text[32];
    int row = 1, col = 1;
    flush(f);
    if (f->ops->cursor)
        f->ops->cursor(&row, &col, f->arg);
    event(f, VT_MARGINS, 0, true, NULL);
    event(f, VT_RESET, 1, true, NULL);
    if (f->profile == VT_LIBVTERM) {
        int n = snprintf(text, sizeof text, "\0337\033[%d;%dH", row, col);
        put(f, what, sizeof what - 1);
        event(f, VT_SAVE_CURSOR, 0, true, NULL);
        put(f, text, (size_t)n);
    } else {
        put(f, "\033[!p", 4);
    }
    reset_modes(f, true);
}

/* CUU and CUD end at the margins for a cursor that is within; libvterm knows the screen's edges alone. */
static void vertical(struct vtfilter *f, char final)
{
    int row = 1, col = 1;
    bool up = final == 'A' || final == 'F';
    if (f->profile == VT_LIBVTERM && f->top && f->bottom && f->ops->cursor) {
        flush(f);
        f->ops->cursor(&row, &col, f->arg);
        unsigned at = (unsigned)row, room = up ? at - f->top : f->bottom - at;
        if ((up ? at >= f->top : at <= f->bottom) && arg(f, 0, 1) > room) {
            if (f->nparams == 0)
                f->nparams = 1;
            f->params[0] = (struct param){.value = (uint16_t)room, .given = true};
            if (room == 0) { /* nowhere to go; to the first column all the same */
                if (final == 'E' || final == 'F')
                    put(f, "\r", 1);
                return;
            }
        }
    }
    rewrite(f, final, 1);
}

/* ICH and DCH act on any line; libvterm lets them outside the margins alone. */
static void within_line(struct vtfilter *f, char final)
{
    int row = 1, col = 1;
    char text[64];
    if (f->profile == VT_LIBVTERM && f->top && f->bottom && f->ops->cursor) {
        flush(f);
        f->ops->cursor(&row, &col, f->arg);
        if ((unsigned)row < f->top || (unsigned)row > f->bottom) {
            int n = snprintf(text, sizeof text, "\033[r\033[%d;%dH\033[%u%c\033[%u;%ur\033[%d;%dH", row, col, arg(f, 0, 1), final, f->top, f->bottom, row, col);
            put(f, text, (size_t)n);
            return;
        }
    }
    rewrite(f, final, 1);
}

static void csi(struct vtfilter *f, char final)
{
    if (f->overflow && final != 'm')
        return;
    if (f->profile == VT_PLAIN) {
        if (final == 'm' && !f->prefix && f->ninter == 0)
            sgr(f);
        return;
    }
    if (f->ninter == 1 && f->inter[0] == ' ' && final == 'q' && !f->prefix) { /* DECSCUSR */
        unsigned shape = arg(f, 0, 0);
        if (shape > 6)
            return;
        char text[16];
        event(f, VT_CURSOR_SHAPE, (int)shape, true, NULL);
        int n = snprintf(text, sizeof text, "\033[%u q", shape);
        put_still(f, text, (size_t)n);
        return;
    }
    if (f->ninter == 1 && f->inter[0] == '$' && final == 'p') { /* DECRQM */
        report_mode(f);
        return;
    }
    if (f->ninter == 1 && f->inter[0] == '"' && final == 'q' && !f->prefix) { /* DECSCA */
        if (arg(f, 0, 0) > 2)
            return;
        f->pen.protect = arg(f, 0, 0) == 1;
        put_still(f, f->pen.protect ? "\033[1\"q" : "\033[0\"q", 5);
        return;
    }
    if (f->ninter == 1 && f->inter[0] == '!' && final == 'p' && !f->prefix) {
        soft_reset(f);
        return;
    }
    if (f->ninter)
        return;
    if (f->prefix == '?') {
        switch (final) {
        case 'h':
        case 'l':
            modes(f, final == 'h');
            break;
        case 'J':
        case 'K':
            rewrite(f, final, 1);
            break;
        case 'n':
            if (arg(f, 0, 0) == 6)
                report_cursor(f, "?");
            break;
        }
        return;
    }
    if (f->prefix == '>') {
        if (final == 'c')
            reply(f, "\033[>1;100;0c");
        return;
    }
    if (f->prefix)
        return;
    switch (final) {
    case 'm':
        sgr(f);
        break;
    case 'b':
        repeat(f);
        break;
    case 'c':
        if (arg(f, 0, 0) == 0)
            reply(f, attributes);
        break;
    case 'n':
        if (arg(f, 0, 0) == 5) {
            reply(f, "\033[0n");
        } else if (arg(f, 0, 0) == 6) {
            report_cursor(f, "");
        }
        break;
    case 't':
        report_size(f);
        break;
    case 'h':
    case 'l':
        if (arg(f, 0, 0) == 4 || arg(f, 0, 0) == 20) {
            *(arg(f, 0, 0) == 4 ? &f->insert : &f->newline) = final == 'h';
            event(f, VT_ANSI_MODE, (int)arg(f, 0, 0), final == 'h', NULL);
            rewrite(f, final, 1);
        }
        break;
    case 'J':
        erase_display(f);
        break;
    case 'A': case 'B': case 'E': case 'F':
        vertical(f, final);
        break;
    case '@': case 'P':
        within_line(f, final);
        break;
    case 'C': case 'D': case 'G': case 'I': case 'K':
    case 'L': case 'M': case 'S': case 'T': case 'X': case 'Z': case '`': case 'a': case 'd': case 'e':
        rewrite(f, final, 1);
        break;
    case 'g':
        event(f, VT_TABS, 0, true, NULL);
        rewrite(f, final, 1);
        break;
    case 'r':
        margins(f);
        break;
    case 'H':
    case 'f':
        rewrite(f, final, 2);
        break;
    case 's':
        if (f->nparams == 0)
            save_cursor(f, f->profile == VT_LIBVTERM ? "\0337" : "\033[s"); /* libvterm: margins */
        break;
    case 'u':
        if (f->nparams == 0)
            restore_cursor(f, f->profile == VT_LIBVTERM ? "\0338" : "\033[u");
        break;
    }
}

/* ---- strings ---- */

/* Guest text for titles and notices: printable, one line, short. */
static void tell(struct vtfilter *f, enum vt_event ev, const char *text, size_t max)
{
    char safe[1024];
    size_t n = strlen(text);
    sanitize_line(safe, max < sizeof safe ? max : sizeof safe, text, n);
    event(f, ev, 0, true, safe);
    if (f->profile != VT_TERMINAL)
        return;
    /* A number first would be another program's command to the terminal (ConEmu's 9;N). */
    char out[sizeof safe + 16];
    int len = 0;
    if (ev == VT_TITLE)
        len = snprintf(out, sizeof out, "\033]2;%s\033\\", safe);
    else if (ev == VT_NOTIFY && safe[0] && !(safe[0] >= '0' && safe[0] <= '9'))
        len = snprintf(out, sizeof out, "\033]9;%s\033\\", safe);
    put_still(f, out, (size_t)len);
}

#define LINK_MAX 2000u

static bool link_ok(const char *uri)
{
    static const char *const schemes[] = {"http://", "https://", "mailto:"};
    size_t n = strlen(uri);
    if (n > LINK_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)uri[i] <= 0x20 || (unsigned char)uri[i] >= 0x7f)
            return false;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncmp(uri, schemes[i], strlen(schemes[i])) == 0)
            return true;
    return false;
}

static void hyperlink(struct vtfilter *f, const char *rest)
{
    const char *uri = strchr(rest, ';');
    if (f->profile != VT_TERMINAL || !uri)
        return;
    uri++;
    if (*uri == '\0') {
        put_still(f, "\033]8;;\033\\", 7);
    } else if (link_ok(uri)) {
        char text[LINK_MAX + 16];
        int n = snprintf(text, sizeof text, "\033]8;;%s\033\\", uri);
        put_still(f, text, (size_t)n);
    }
}

static void clipboard(struct vtfilter *f, const char *rest)
{
    const char *data = strchr(rest, ';');
    if (!data)
        return;
    data++;
    for (const char *p = data; *p; p++) /* base64 alone: a '?' would be a question */
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", *p))
            return;
    event(f, VT_CLIPBOARD, 0, true, data);
}

static void colour_query(struct vtfilter *f, unsigned code, const char *rest)
{
    char text[64];
    if (strcmp(rest, "?") != 0)
        return;
    const char *rgb = code == 10 || code == 12 ? "d0d0/d0d0/d0d0" : "1010/1010/1010";
    snprintf(text, sizeof text, "\033]%u;rgb:%s\033\\", code, rgb);
    reply(f, text);
}

/* OSC 4 ; N ? : xterm's palette, whatever the user's is. */
static void palette_query(struct vtfilter *f, const char *rest)
{
    static const uint32_t base[16] = {0x000000, 0xcd0000, 0x00cd00, 0xcdcd00, 0x0000ee, 0xcd00cd, 0x00cdcd, 0xe5e5e5,
                                      0x7f7f7f, 0xff0000, 0x00ff00, 0xffff00, 0x5c5cff, 0xff00ff, 0x00ffff, 0xffffff};
    static const uint8_t steps[6] = {0, 95, 135, 175, 215, 255};
    char *end, text[64];
    unsigned long n = strtoul(rest, &end, 10);
    unsigned r, g, b;
    if (end == rest || n > 255 || strcmp(end, ";?") != 0)
        return;
    if (n < 16) {
        r = base[n] >> 16;
        g = base[n] >> 8 & 255u;
        b = base[n] & 255u;
    } else if (n < 232) {
        r = steps[(n - 16) / 36];
        g = steps[(n - 16) / 6 % 6];
        b = steps[(n - 16) % 6];
    } else {
        r = g = b = (unsigned)(8 + 10 * (n - 232));
    }
    snprintf(text, sizeof text, "\033]4;%lu;rgb:%02x%02x/%02x%02x/%02x%02x\033\\", n, r, r, g, g, b, b);
    reply(f, text);
}

static void osc(struct vtfilter *f)
{
    char *s = f->string;
    char *rest = s;
    unsigned long code = strtoul(s, &rest, 10);
    if (*s < '0' || *s > '9' || (*rest != ';' && *rest != '\0') || code > 9999)
        return;
    if (*rest == ';')
        rest++;
    switch (code) {
    case 0:
    case 2:
        tell(f, VT_TITLE, rest, 256);
        break;
    case 4:
        palette_query(f, rest);
        break;
    case 7:
        tell(f, VT_CWD, rest, 1024);
        break;
    case 8:
        hyperlink(f, rest);
        break;
    case 9:
        if (strncmp(rest, "4;", 2) != 0) /* ConEmu's progress, no notice */
            tell(f, VT_NOTIFY, rest, 512);
        break;
    case 777:
        if (strncmp(rest, "notify;", 7) == 0)
            tell(f, VT_NOTIFY, rest + 7, 512);
        break;
    case 99: {
        const char *body = strchr(rest, ';');
        tell(f, VT_NOTIFY, body ? body + 1 : rest, 512);
        break;
    }
    case 52:
        clipboard(f, rest);
        break;
    case 133:
        tell(f, VT_PROMPT, rest, 32);
        break;
    case 10:
    case 11:
    case 12:
        colour_query(f, (unsigned)code, rest);
        break;
    }
}

static void dcs(struct vtfilter *f)
{
    /* DECRQSS and XTGETTCAP: "not recognised" is a valid answer to both, and tells nothing. */
    if (strncmp(f->string, "$q", 2) == 0)
        reply(f, "\033P0$r\033\\");
    else if (strncmp(f->string, "+q", 2) == 0)
        reply(f, "\033P0+r\033\\");
}

static void string_void(struct vtfilter *f)
{
    if (f->string_cap > 4096) { /* a large one is rare: give the memory back */
        free(f->string);
        f->string = NULL;
        f->string_cap = 0;
    }
    f->string_len = 0;
}

static void string_end(struct vtfilter *f)
{
    f->state = GROUND;
    if (f->profile != VT_PLAIN && !f->string_dropped && f->string) {
        f->string[f->string_len] = '\0';
        if (f->kind == OSC)
            osc(f);
        else if (f->kind == DCS)
            dcs(f);
    }
    string_void(f);
}

static void string_begin(struct vtfilter *f, enum string_kind kind)
{
    f->state = STRING;
    f->kind = kind;
    f->string_len = 0;
    f->string_dropped = kind == OTHER;
}

static void string_put(struct vtfilter *f, unsigned char c)
{
    if (f->string_dropped || c == 0)
        return;
    size_t max = f->string_len >= 3 && f->kind == OSC && strncmp(f->string, "52;", 3) == 0 ? VT_CLIPBOARD_MAX : VT_STRING_MAX;
    if (f->string_len + 2 > f->string_cap) {
        size_t cap = f->string_cap ? f->string_cap * 2 : 256;
        char *more = f->string_len + 2 > max ? NULL : realloc(f->string, cap);
        if (!more) {
            f->string_dropped = true; /* it is read to its end, and means nothing */
            string_void(f);
            return;
        }
        f->string = more;
        f->string_cap = cap;
    }
    f->string[f->string_len++] = (char)c;
}

/* ---- escape sequences without parameters ---- */

static void esc(struct vtfilter *f, char final)
{
    char text[4] = {'\033', 0, 0, 0};
    if (f->profile == VT_PLAIN)
        return;
    if (f->ninter == 0) {
        switch (final) {
        case '7':
            save_cursor(f, "\0337");
            break;
        case '8':
            restore_cursor(f, "\0338");
            break;
        case 'Z': /* DECID */
            reply(f, attributes);
            break;
        case 'D': case 'E': case 'H': case 'M':
            if (final == 'H')
                event(f, VT_TABS, 0, true, NULL);
            text[1] = final;
            put(f, text, 2);
            break;
        case '=':
        case '>':
            event(f, VT_KEYPAD, 0, final == '=', NULL);
            text[1] = final;
            put_still(f, text, 2);
            break;
        case 'c':
            reset(f);
            break;
        }
        return;
    }
    /* Line drawing is translated here: libvterm reads no UTF-8 in the same breath as a set that was designated. */
    if (f->ninter == 1 && (f->inter[0] == '(' || f->inter[0] == ')')) {
        f->pen.set[f->inter[0] == ')'] = final == '0' ? LINES : final == 'A' ? BRITISH : ASCII;
    } else if (f->ninter == 1 && f->inter[0] == '#' && final == '8') {
        event(f, VT_MARGINS, 0, true, NULL); /* it fills the whole screen, and libvterm leaves margins and cursor */
        f->top = f->bottom = 0;
        put(f, "\033[r\033#8\033[H", 9);
    }
}

/* ---- the machine ---- */

static void control(struct vtfilter *f, unsigned char c)
{
    char ch = (char)c;
    switch (c) {
    case 7:
        event(f, VT_BELL, 0, true, NULL);
        if (f->profile == VT_TERMINAL && !f->rang) { /* a thousand in a row ring once */
            put_still(f, "\a", 1);
            f->rang = true;
        }
        break;
    case '\b': case '\t': case '\n': case '\r':
        put(f, &ch, 1);
        break;
    case '\v': case '\f':
        if (f->profile != VT_PLAIN)
            put(f, &ch, 1);
        break;
    case 14: case 15: /* SO, SI */
        f->pen.shifted = c == 14 && f->profile != VT_PLAIN;
        break;
    }
}

static void print(struct vtfilter *f, const char *s, unsigned n)
{
    put_still(f, s, n);
    f->last_print = (long)(f->out_len - n);
    f->marks = 0;
    memcpy(f->last, s, n);
    f->last_len = n;
    f->repeatable = true;
}

/* What joins the character before it goes with that one, and there is a limit to how many do. */
static void join(struct vtfilter *f, const char *s, unsigned n)
{
    if (f->marks++ < MARKS_MAX)
        put_still(f, s, n);
}

static const char replacement[] = "\xef\xbf\xbd";

/* A character that something else interrupts. */
static void cut_character(struct vtfilter *f)
{
    if (f->utf8_len) {
        f->utf8_len = 0;
        print(f, replacement, 3);
    }
}

/* U+1F000 and beyond, where they are wide, go to libvterm as U+3F000 and beyond. */
enum { CARRIED = 0x1f000, CARRIED_LAST = 0x1fffd, CARRIER = 0x3f000, CARRIER_LAST = 0x3fffd };

static void carry(struct vtfilter *f, unsigned code)
{
    unsigned c = code - CARRIED + CARRIER;
    char s[4] = {(char)(0xf0 | c >> 18), (char)(0x80 | (c >> 12 & 63)), (char)(0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63))};
    print(f, s, 4);
}

uint32_t vtfilter_char(uint32_t code)
{
    return code >= CARRIER && code <= CARRIER_LAST ? code - CARRIER + CARRIED : code;
}

static enum charset charset(const struct vtfilter *f)
{
    return f->pen.set[f->pen.shifted];
}

/* DEC Special Graphics, 0x5f to 0x7e. */
static void draw(struct vtfilter *f, unsigned char c)
{
    static const char *const glyphs[32] = {" ", "\u25c6", "\u2592", "\u2409", "\u240c", "\u240d", "\u240a", "\u00b0",
                                           "\u00b1", "\u2424", "\u240b", "\u2518", "\u2510", "\u250c", "\u2514", "\u253c",
                                           "\u23ba", "\u23bb", "\u2500", "\u23bc", "\u23bd", "\u251c", "\u2524", "\u2534",
                                           "\u252c", "\u2502", "\u2264", "\u2265", "\u03c0", "\u2260", "\u00a3", "\u00b7"};
    const char *g = glyphs[c - 0x5f];
    print(f, g, (unsigned)strlen(g));
}

/* Bytes of one character; malformed ones become U+FFFD, one for each maximal part (Unicode 3.9, table 3-8). */
static void ground(struct vtfilter *f, unsigned char c)
{
    if (f->utf8_len == 0 && c < 0x80) {
        char ch = (char)c;
        if (c >= 0x5f && c < 0x7f && charset(f) == LINES)
            draw(f, c);
        else if (c == '#' && charset(f) == BRITISH)
            print(f, "\u00a3", 2);
        else if (c != 0x7f)
            print(f, &ch, 1);
        return;
    }
    if (f->utf8_len && (c & 0xc0) != 0x80) { /* cut short by what begins anew */
        f->utf8_len = 0;
        print(f, replacement, 3);
        ground(f, c);
        return;
    }
    f->utf8[f->utf8_len++] = c;
    unsigned code, first = f->utf8[0];
    unsigned want = first >= 0xf0 && first <= 0xf4 ? 4 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xc2 && first < 0xe0 ? 2 : 1;
    /* The second byte already shows overlong forms, surrogates and what lies beyond Unicode. */
    bool bad = want == 1 || (f->utf8_len == 2 && ((first == 0xe0 && c < 0xa0) || (first == 0xed && c > 0x9f) ||
                                                  (first == 0xf0 && c < 0x90) || (first == 0xf4 && c > 0x8f)));
    if (bad) {
        unsigned n = f->utf8_len;
        f->utf8_len = 0;
        print(f, replacement, 3);
        if (n == 2)
            print(f, replacement, 3);
        return;
    }
    if (f->utf8_len < want)
        return;
    f->utf8_len = 0;
    if (sanitize_utf8(f->utf8, want, &code) != want || (code >= CARRIER && code <= CARRIER_LAST))
        print(f, replacement, 3);
    else if (f->profile == VT_LIBVTERM && code >= CARRIED && code <= CARRIED_LAST && width_of(code) == 2)
        carry(f, code);
    else if (code >= 0xa0 && width_of(code) == 0)
        join(f, (char *)f->utf8, want);
    else if (code >= 0xa0) /* C1 in UTF-8 is a control as well, and dropped */
        print(f, (char *)f->utf8, want);
}

static void csi_begin(struct vtfilter *f)
{
    f->state = CSI;
    f->ninter = 0;
    f->prefix = 0;
    f->nparams = 0;
    f->overflow = false;
}

static void csi_digit(struct vtfilter *f, unsigned char c)
{
    if (f->nparams == 0) {
        f->params[0] = (struct param){0};
        f->nparams = 1;
    }
    struct param *p = &f->params[f->nparams - 1];
    unsigned v = p->value * 10u + (unsigned)(c - '0');
    p->value = (uint16_t)(v > 32767 ? 32767 : v);
    p->given = true;
}

static void csi_next(struct vtfilter *f, bool sub)
{
    if (f->nparams == 0) {
        f->params[0] = (struct param){0};
        f->nparams = 1;
    }
    if (f->nparams == VT_PARAMS_MAX) {
        f->overflow = true;
        return;
    }
    f->params[f->nparams++] = (struct param){.sub = sub};
}

static void step(struct vtfilter *f, unsigned char c)
{
    /* CAN, SUB and ESC end whatever is under way, everywhere. */
    if (c == 0x18 || c == 0x1a) {
        cut_character(f);
        f->state = GROUND;
        string_void(f);
        return;
    }
    if (f->state == STRING || f->state == STRING_ESC) {
        if (f->state == STRING_ESC) {
            if (c == '\\') {
                string_end(f);
                return;
            }
            /* Not a terminator: the string is void, and this is an escape sequence. */
            string_void(f);
            f->state = ESC;
            f->ninter = 0;
            step(f, c);
            return;
        }
        if (c == 0x1b)
            f->state = STRING_ESC;
        else if (c == 7 && f->kind == OSC)
            string_end(f);
        else if (c >= 0x20)
            string_put(f, c);
        return;
    }
    if (c == 0x1b) {
        cut_character(f);
        f->state = ESC;
        f->ninter = 0;
        return;
    }
    if (c < 0x20) {
        cut_character(f);
        f->repeatable = false;
        control(f, c);
        return;
    }
    switch (f->state) {
    case GROUND:
        ground(f, c);
        break;
    case ESC:
        if (c == '[')
            csi_begin(f);
        else if (c == ']')
            string_begin(f, OSC);
        else if (c == 'P')
            string_begin(f, DCS);
        else if (c == 'X' || c == '^' || c == '_' || c == 'k')
            string_begin(f, OTHER);
        else if (c < 0x30) {
            f->inter[f->ninter++] = (char)c;
            f->state = ESC_INTER;
        } else {
            f->state = GROUND;
            f->repeatable = false;
            if (c < 0x7f)
                esc(f, (char)c);
        }
        break;
    case ESC_INTER:
        if (c < 0x30) {
            if (f->ninter < sizeof f->inter)
                f->inter[f->ninter++] = (char)c;
        } else {
            f->state = GROUND;
            f->repeatable = false;
            /* libvterm would take ESC SP [ for a CSI: no string or sequence begins behind an intermediate. */
            if (c < 0x7f && !strchr("[]PX^_", c))
                esc(f, (char)c);
        }
        break;
    case CSI:
        if (c >= '0' && c <= '9' && f->ninter == 0)
            csi_digit(f, c);
        else if ((c == ';' || c == ':') && f->ninter == 0)
            csi_next(f, c == ':');
        else if (c >= '<' && c <= '?' && f->nparams == 0 && f->ninter == 0 && !f->prefix)
            f->prefix = (char)c;
        else if (c >= 0x20 && c < 0x30) {
            if (f->ninter < sizeof f->inter)
                f->inter[f->ninter++] = (char)c;
            else
                f->state = CSI_IGNORE;
        } else if (c >= 0x40 && c < 0x7f) {
            f->state = GROUND;
            csi(f, (char)c);
            f->repeatable = false;
        } else if (c != 0x7f) {
            f->state = CSI_IGNORE;
        }
        break;
    case CSI_IGNORE:
        if (c >= 0x40 && c < 0x7f)
            f->state = GROUND;
        break;
    case STRING:
    case STRING_ESC:
        break;
    }
}

void vtfilter_feed(struct vtfilter *f, const void *buf, size_t len)
{
    const unsigned char *p = buf, *end = p + len;
    while (p < end) {
        /* Most output is plain text: runs of it go in one piece. */
        if (f->state == GROUND && f->utf8_len == 0 && charset(f) == ASCII) {
            const unsigned char *q = p;
            while (q < end && *q >= 0x20 && *q < 0x7f && (size_t)(q - p) < OUT_CAP)
                q++;
            if (q > p) {
                put_still(f, (const char *)p, (size_t)(q - p));
                f->last_print = (long)f->out_len - 1;
                f->marks = 0;
                f->last[0] = (char)q[-1];
                f->last_len = 1;
                f->repeatable = true;
                p = q;
                continue;
            }
        }
        step(f, *p++);
    }
    flush(f);
}

void vtfilter_resized(struct vtfilter *f)
{
    f->top = f->bottom = 0;
}

void vtfilter_end(struct vtfilter *f)
{
    cut_character(f);
    f->state = GROUND;
    string_void(f);
    if (f->profile == VT_PLAIN && f->coloured) { /* what comes next on that terminal is not the guest's */
        put_still(f, "\033[m", 3);
        f->coloured = false;
    }
    flush(f);
}
