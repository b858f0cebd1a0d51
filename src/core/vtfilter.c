#include "core/vtfilter_parts.h"

#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"
#include "core/width.h"

#define MARKS_MAX 5u /* joined to one character: libvterm's cell has room for them, and more is an attack on somebody */

void vtfilter_light(struct vtfilter *f, bool light)
{
    f->light = light;
}

struct vtfilter *vtfilter_new(enum vt_profile profile, const struct vt_ops *ops, void *arg)
{
    struct vtfilter *f = calloc(1, sizeof *f);
    if (f) {
        f->profile = profile;
        f->ops = ops;
        f->arg = arg;
        f->last_print = VT_PRINT_SAME;
        vt_reset_modes(f, false);
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

void vt_flush(struct vtfilter *f)
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
void vt_put_still(struct vtfilter *f, const char *s, size_t n)
{
    if (f->out_len + n > OUT_CAP)
        vt_flush(f);
    memcpy(f->out + f->out_len, s, n);
    f->out_len += n;
    f->rang = false;
}

void vt_put(struct vtfilter *f, const char *s, size_t n)
{
    vt_put_still(f, s, n);
    f->last_print = VT_PRINT_NONE;
}

void vt_reply(struct vtfilter *f, const char *s)
{
    if (f->ops->reply && f->profile != VT_PLAIN) {
        vt_flush(f); /* what was printed before the question is on the screen before the answer */
        f->ops->reply(s, strlen(s), f->arg);
    }
}

void vt_event(struct vtfilter *f, enum vt_event ev, int number, bool set, const char *text)
{
    vt_flush(f); /* in order with the output */
    if (f->ops->event)
        f->ops->event(ev, number, set, text, f->arg);
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
            vt_save_cursor(f, "\0337");
            break;
        case '8':
            vt_restore_cursor(f, "\0338");
            break;
        case 'Z': /* DECID */
            vt_reply(f, VT_ATTRIBUTES);
            break;
        case 'D': case 'E': case 'H': case 'M':
            if (final == 'H')
                vt_event(f, VT_TABS, 0, true, NULL);
            text[1] = final;
            vt_put(f, text, 2);
            break;
        case '=':
        case '>':
            vt_event(f, VT_KEYPAD, 0, final == '=', NULL);
            text[1] = final;
            vt_put_still(f, text, 2);
            break;
        case 'c':
            vt_reset(f);
            break;
        }
        return;
    }
    /* Line drawing is translated here: libvterm reads no UTF-8 in the same breath as a set that was designated. */
    if (f->ninter == 1 && (f->inter[0] == '(' || f->inter[0] == ')')) {
        f->pen.set[f->inter[0] == ')'] = final == '0' ? LINES : final == 'A' ? BRITISH : ASCII;
    } else if (f->ninter == 1 && f->inter[0] == '#' && final == '8') {
        vt_event(f, VT_MARGINS, 0, true, NULL); /* it fills the whole screen, and libvterm leaves margins and cursor */
        f->top = f->bottom = 0;
        vt_put(f, "\033[r\033#8\033[H", 9);
    }
}

/* ---- the machine ---- */

static void control(struct vtfilter *f, unsigned char c)
{
    char ch = (char)c;
    switch (c) {
    case 7:
        vt_event(f, VT_BELL, 0, true, NULL);
        if (f->profile == VT_TERMINAL && !f->rang) { /* a thousand in a row ring once */
            vt_put_still(f, "\a", 1);
            f->rang = true;
        }
        break;
    case '\b': case '\t': case '\n': case '\r':
        vt_put(f, &ch, 1);
        break;
    case '\v': case '\f':
        if (f->profile != VT_PLAIN)
            vt_put(f, &ch, 1);
        break;
    case 14: case 15: /* SO, SI */
        f->pen.shifted = c == 14 && f->profile != VT_PLAIN;
        break;
    }
}

void vt_print(struct vtfilter *f, const char *s, unsigned n)
{
    vt_put_still(f, s, n);
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
        vt_put_still(f, s, n);
}

static const char replacement[] = "\xef\xbf\xbd";

/* A character that something else interrupts. */
static void cut_character(struct vtfilter *f)
{
    if (f->utf8_len) {
        f->utf8_len = 0;
        vt_print(f, replacement, 3);
    }
}

/* U+1F000 and beyond, where they are wide, go to libvterm as U+3F000 and beyond. */
enum { CARRIED = 0x1f000, CARRIED_LAST = 0x1fffd, CARRIER = 0x3f000, CARRIER_LAST = 0x3fffd };

static void carry(struct vtfilter *f, unsigned code)
{
    unsigned c = code - CARRIED + CARRIER;
    char s[4] = {(char)(0xf0 | c >> 18), (char)(0x80 | (c >> 12 & 63)), (char)(0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63))};
    vt_print(f, s, 4);
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
    vt_print(f, g, (unsigned)strlen(g));
}

/* Bytes of one character; malformed ones become U+FFFD, one for each maximal part (Unicode 3.9, table 3-8). */
static void ground(struct vtfilter *f, unsigned char c)
{
    if (f->utf8_len == 0 && c < 0x80) {
        char ch = (char)c;
        if (c >= 0x5f && c < 0x7f && charset(f) == LINES)
            draw(f, c);
        else if (c == '#' && charset(f) == BRITISH)
            vt_print(f, "\u00a3", 2);
        else if (c != 0x7f)
            vt_print(f, &ch, 1);
        return;
    }
    if (f->utf8_len && (c & 0xc0) != 0x80) { /* cut short by what begins anew */
        f->utf8_len = 0;
        vt_print(f, replacement, 3);
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
        vt_print(f, replacement, 3);
        if (n == 2)
            vt_print(f, replacement, 3);
        return;
    }
    if (f->utf8_len < want)
        return;
    f->utf8_len = 0;
    if (sanitize_utf8(f->utf8, want, &code) != want || (code >= CARRIER && code <= CARRIER_LAST))
        vt_print(f, replacement, 3);
    else if (f->profile == VT_LIBVTERM && code >= CARRIED && code <= CARRIED_LAST && width_of(code) == 2)
        carry(f, code);
    else if (code >= 0xa0 && width_of(code) == 0)
        join(f, (char *)f->utf8, want);
    else if (code >= 0xa0) /* C1 in UTF-8 is a control as well, and dropped */
        vt_print(f, (char *)f->utf8, want);
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
        vt_string_void(f);
        return;
    }
    if (f->state == STRING || f->state == STRING_ESC) {
        if (f->state == STRING_ESC) {
            if (c == '\\') {
                vt_string_end(f);
                return;
            }
            /* Not a terminator: the string is void, and this is an escape sequence. */
            vt_string_void(f);
            f->state = ESC;
            f->ninter = 0;
            step(f, c);
            return;
        }
        if (c == 0x1b)
            f->state = STRING_ESC;
        else if (c == 7 && f->kind == OSC)
            vt_string_end(f);
        else if (c >= 0x20)
            vt_string_put(f, c);
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
            vt_string_begin(f, OSC);
        else if (c == 'P')
            vt_string_begin(f, DCS);
        else if (c == 'X' || c == '^' || c == '_' || c == 'k')
            vt_string_begin(f, OTHER);
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
            vt_csi(f, (char)c);
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
                vt_put_still(f, (const char *)p, (size_t)(q - p));
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
    vt_flush(f);
}

void vtfilter_resized(struct vtfilter *f)
{
    f->top = f->bottom = 0;
}

void vtfilter_end(struct vtfilter *f)
{
    cut_character(f);
    f->state = GROUND;
    vt_string_void(f);
    if (f->profile == VT_PLAIN && f->coloured) { /* what comes next on that terminal is not the guest's */
        vt_put_still(f, "\033[m", 3);
        f->coloured = false;
    }
    vt_flush(f);
}
