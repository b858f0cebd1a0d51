#include "core/vtfilter_parts.h"

#include <stdio.h>
#include <string.h>

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

void vt_reset_modes(struct vtfilter *f, bool soft)
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
        vt_put_still(o->f, o->buf, o->len);
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
        vt_put_still(f, "\033[m", 3);
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

static void rewrite(struct vtfilter *f, char final, unsigned max);

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
        vt_print(f, f->last, f->last_len);
}

static int mode_index(unsigned number)
{
    for (size_t i = 0; i < MODES; i++)
        if (mode_table[i].number == number)
            return (int)i;
    return -1;
}

void vt_save_cursor(struct vtfilter *f, const char *how)
{
    f->saved[f->alt] = f->pen;
    f->saved[f->alt].origin = f->modes >> mode_index(6) & 1u;
    vt_event(f, VT_SAVE_CURSOR, 0, true, NULL);
    vt_put(f, how, strlen(how));
}

/* With what libvterm does not restore: origin mode, which moves the cursor and comes first, and protection. */
void vt_restore_cursor(struct vtfilter *f, const char *how)
{
    const struct pen *p = &f->saved[f->alt];
    uint32_t bit = 1u << mode_index(6);
    if (f->profile == VT_LIBVTERM && p->origin != ((f->modes & bit) != 0)) {
        vt_event(f, VT_MODE, 6, p->origin, NULL);
        vt_put(f, p->origin ? "\033[?6h" : "\033[?6l", 5);
    }
    if (f->profile == VT_LIBVTERM && p->protect != f->pen.protect)
        vt_put(f, p->protect ? "\033[1\"q" : "\033[0\"q", 5);
    f->modes = p->origin ? f->modes | bit : f->modes & ~bit;
    f->pen = *p;
    vt_put(f, how, strlen(how));
}

/* DECCOLM where mode 40 allows it: the number of columns stays, for it is the pane's, but the screen is as empty as
 * after the change, and the margins are gone. */
static void columns(struct vtfilter *f)
{
    if (!(f->modes >> mode_index(40) & 1u))
        return;
    vt_event(f, VT_MARGINS, 0, true, NULL);
    f->top = f->bottom = 0;
    vt_put(f, "\033[r\033[H\033[2J", 10);
}

/* The alternate screen and the saved cursor.  1049 is both, and told to libvterm as both, one after the other: between
 * them whoever follows the events can give it the saved cursor of the screen that comes. */
static void screens(struct vtfilter *f, unsigned m, bool set)
{
    char text[24];
    bool both = m == 1049 && f->profile == VT_LIBVTERM;
    snprintf(text, sizeof text, "\033[?%u%c", both ? 1047 : m, set ? 'h' : 'l');
    if (m == 1049 && set)
        vt_save_cursor(f, both ? "\0337" : "");
    if (m != 1048) {
        vt_event(f, VT_MODE, (int)m, set, NULL);
        f->alt = set;
    }
    if (m == 1048 && set)
        vt_save_cursor(f, text);
    else if (m == 1048 || (m == 1049 && !set && !both))
        vt_restore_cursor(f, text);
    else
        vt_put(f, text, strlen(text));
    if (both && !set)
        vt_restore_cursor(f, "\0338");
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
        vt_event(f, VT_MODE, (int)m, set, NULL);
        if (m == 40) /* ours alone: nothing makes the user's terminal wider */
            continue;
        /* Not for libvterm: it would turn the cells round, or has no use for them. */
        if (f->profile == VT_LIBVTERM && (m == 2026 || m == 12 || m == 5))
            continue;
        int n = snprintf(text, sizeof text, "\033[?%u%c", m, set ? 'h' : 'l');
        if (m == 6)
            vt_put(f, text, (size_t)n);
        else
            vt_put_still(f, text, (size_t)n);
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
    vt_reply(f, text);
}

static void report_cursor(struct vtfilter *f, const char *prefix)
{
    char text[48];
    int row = 1, col = 1;
    vt_flush(f);
    if (f->ops->cursor)
        f->ops->cursor(&row, &col, f->arg);
    if (f->top && f->modes >> mode_index(6) & 1u) /* counted from the margin */
        row = row > (int)f->top ? row - (int)f->top + 1 : 1;
    snprintf(text, sizeof text, "\033[%s%d;%dR", prefix, row, col);
    vt_reply(f, text);
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
    vt_reply(f, text);
}

/* A reset, as a list of what it is: libvterm's own forgets to leave the alternate screen, and a user's terminal would
 * lose its title, its history and what it was set to before we came. */
void vt_reset(struct vtfilter *f)
{
    vt_event(f, VT_RESET, 0, true, NULL);
    if (f->profile == VT_LIBVTERM)
        vt_put(f, "\033[?1047l\033c\0337", 12);
    else
        vt_put(f,
            "\033[?1049l\033[!p\033[?5l\033[?7h\033[?1000l\033[?1002l\033[?1003l\033[?1004l\033[?1006l\033[?2004l"
            "\033[?2026l\033[r\033[m\033[0 q\033[H\033[2J",
            sizeof "\033[?1049l\033[!p\033[?5l\033[?7h\033[?1000l\033[?1002l\033[?1003l\033[?1004l\033[?1006l\033[?2004l"
                   "\033[?2026l\033[r\033[m\033[0 q\033[H\033[2J" -
                1);
    vt_reset_modes(f, false);
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
    vt_event(f, VT_MARGINS, whole ? 0 : (int)(top << 16 | bottom), true, NULL);
    f->top = whole ? 0 : top;
    f->bottom = whole ? 0 : bottom;
    if (whole)
        snprintf(text, sizeof text, "\033[r");
    else if (bottom)
        snprintf(text, sizeof text, "\033[%u;%ur", top, bottom);
    else
        snprintf(text, sizeof text, "\033[%ur", top);
    vt_put(f, text, strlen(text));
}

static void erase_display(struct vtfilter *f)
{
    unsigned what = arg(f, 0, 0);
    if (what == 3) { /* ours is cleared; the user's own history is not the guest's */
        vt_event(f, VT_CLEAR_HISTORY, 0, true, NULL);
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
    vt_put(f, text, n);
}

/* DECSTR, which libvterm 0.1.4 does not know: all that it resets, with the cursor left where it is. */
static void soft_reset(struct vtfilter *f)
{
    static const char what[] = "\033[4l\033[?6l\033[r\033[?7h\033[?25h\033[?1l\033>\033[m\033[0\"q\033[H";
    char text[32];
    int row = 1, col = 1;
    vt_flush(f);
    if (f->ops->cursor)
        f->ops->cursor(&row, &col, f->arg);
    vt_event(f, VT_MARGINS, 0, true, NULL);
    vt_event(f, VT_RESET, 1, true, NULL);
    if (f->profile == VT_LIBVTERM) {
        int n = snprintf(text, sizeof text, "\0337\033[%d;%dH", row, col);
        vt_put(f, what, sizeof what - 1);
        vt_event(f, VT_SAVE_CURSOR, 0, true, NULL);
        vt_put(f, text, (size_t)n);
    } else {
        vt_put(f, "\033[!p", 4);
    }
    vt_reset_modes(f, true);
}

/* CUU and CUD end at the margins for a cursor that is within; libvterm knows the screen's edges alone. */
static void vertical(struct vtfilter *f, char final)
{
    int row = 1, col = 1;
    bool up = final == 'A' || final == 'F';
    if (f->profile == VT_LIBVTERM && f->top && f->bottom && f->ops->cursor) {
        vt_flush(f);
        f->ops->cursor(&row, &col, f->arg);
        unsigned at = (unsigned)row, room = up ? at - f->top : f->bottom - at;
        if ((up ? at >= f->top : at <= f->bottom) && arg(f, 0, 1) > room) {
            if (f->nparams == 0)
                f->nparams = 1;
            f->params[0] = (struct param){.value = (uint16_t)room, .given = true};
            if (room == 0) { /* nowhere to go; to the first column all the same */
                if (final == 'E' || final == 'F')
                    vt_put(f, "\r", 1);
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
        vt_flush(f);
        f->ops->cursor(&row, &col, f->arg);
        if ((unsigned)row < f->top || (unsigned)row > f->bottom) {
            int n = snprintf(text, sizeof text, "\033[r\033[%d;%dH\033[%u%c\033[%u;%ur\033[%d;%dH", row, col, arg(f, 0, 1), final, f->top, f->bottom, row, col);
            vt_put(f, text, (size_t)n);
            return;
        }
    }
    rewrite(f, final, 1);
}

void vt_csi(struct vtfilter *f, char final)
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
        vt_event(f, VT_CURSOR_SHAPE, (int)shape, true, NULL);
        int n = snprintf(text, sizeof text, "\033[%u q", shape);
        vt_put_still(f, text, (size_t)n);
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
        vt_put_still(f, f->pen.protect ? "\033[1\"q" : "\033[0\"q", 5);
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
            vt_reply(f, "\033[>1;100;0c");
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
            vt_reply(f, VT_ATTRIBUTES);
        break;
    case 'n':
        if (arg(f, 0, 0) == 5) {
            vt_reply(f, "\033[0n");
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
            vt_event(f, VT_ANSI_MODE, (int)arg(f, 0, 0), final == 'h', NULL);
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
        vt_event(f, VT_TABS, 0, true, NULL);
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
            vt_save_cursor(f, f->profile == VT_LIBVTERM ? "\0337" : "\033[s"); /* libvterm: margins */
        break;
    case 'u':
        if (f->nparams == 0)
            vt_restore_cursor(f, f->profile == VT_LIBVTERM ? "\0338" : "\033[u");
        break;
    }
}
