#include "ui/dash/term_keys.h"

#include <stdio.h>
#include <string.h>

#include "ui/dash/term_emu.h"

static void cursor_key(const struct term_emu *emu, char letter, term_out_fn *out, void *arg)
{
    char s[3] = {'\033', term_emu_mode(emu, 1) ? 'O' : '[', letter};
    out(s, 3, arg);
}

static bool key(const struct term_emu *emu, const struct input *in, term_out_fn *out, void *arg)
{
    static const struct {
        uint32_t key;
        char letter;
    } letters[] = {{K_UP, 'A'}, {K_DOWN, 'B'}, {K_RIGHT, 'C'}, {K_LEFT, 'D'}, {K_HOME, 'H'}, {K_END, 'F'}};
    if (in->mods == 0)
        for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
            if (letters[i].key == in->key) {
                cursor_key(emu, letters[i].letter, out, arg);
                return true;
            }
    /* The user's terminal may have forms of its own for these; in the sandbox stands xterm's. */
    static const struct {
        uint32_t key;
        const char *form;
    } forms[] = {{K_INSERT, "\033[2~"}, {K_DELETE, "\033[3~"}, {K_PGUP, "\033[5~"}, {K_PGDN, "\033[6~"}, {K_F1, "\033OP"}, {K_F1 + 1, "\033OQ"},
                 {K_F1 + 2, "\033OR"}, {K_F1 + 3, "\033OS"}, {K_F1 + 4, "\033[15~"}};
    if (in->mods == 0)
        for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
            if (forms[i].key == in->key) {
                out(forms[i].form, strlen(forms[i].form), arg);
                return true;
            }
    /* A line break without sending: what every agent understands, where the terminal has a form of its own for it. */
    if (in->key == K_ENTER && in->mods == MOD_SHIFT) {
        out("\033\r", 2, arg);
        return true;
    }
    return false;
}

/* A paste is text: no control of it may reach the program as a key, and nothing in it can end it. */
static void paste(const struct term_emu *emu, const struct input *in, term_out_fn *out, void *arg)
{
    bool bracketed = term_emu_mode(emu, 2004);
    if (in->paste_begin && bracketed)
        out("\033[200~", 6, arg);
    char buf[512];
    size_t n = 0;
    for (size_t i = 0; i < in->raw_len; i++) {
        unsigned char c = (unsigned char)in->raw[i];
        if (c == 0xc2 && i + 1 < in->raw_len && (unsigned char)in->raw[i + 1] >= 0x80 && (unsigned char)in->raw[i + 1] < 0xa0) {
            i++; /* C1 */
            continue;
        }
        if (c == '\n')
            c = '\r';
        if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f)
            continue;
        buf[n++] = (char)c;
        if (n == sizeof buf) {
            out(buf, n, arg);
            n = 0;
        }
    }
    if (n)
        out(buf, n, arg);
    if (in->paste_end && bracketed)
        out("\033[201~", 6, arg);
}

void term_keys_input(const struct term_emu *emu, const struct input *in, term_out_fn *out, void *arg)
{
    switch (in->type) {
    case INPUT_KEY:
        if (!key(emu, in, out, arg) && in->raw_len)
            out(in->raw, in->raw_len, arg);
        break;
    case INPUT_PASTE:
        paste(emu, in, out, arg);
        break;
    case INPUT_FOCUS:
        term_keys_focus(emu, in->focus_in, out, arg);
        break;
    case INPUT_MOUSE:
    case INPUT_REPLY:
        break;
    }
}

void term_keys_focus(const struct term_emu *emu, bool on, term_out_fn *out, void *arg)
{
    if (term_emu_mode(emu, 1004))
        out(on ? "\033[I" : "\033[O", 3, arg);
}

bool term_keys_mouse(const struct term_emu *emu, const struct input *in, int row, int col, term_out_fn *out, void *arg)
{
    bool any = term_emu_mode(emu, 1003), drag = any || term_emu_mode(emu, 1002), on = drag || term_emu_mode(emu, 1000);
    if (!on)
        return false;
    int rows = term_emu_rows(emu), cols = term_emu_cols(emu);
    if (row < 0 || col < 0 || row >= rows || col >= cols) {
        if (in->mouse != MOUSE_RELEASE && in->mouse != MOUSE_DRAG)
            return true;
        row = row < 0 ? 0 : row >= rows ? rows - 1 : row;
        col = col < 0 ? 0 : col >= cols ? cols - 1 : col;
    }
    if ((in->mouse == MOUSE_DRAG && !drag) || (in->mouse == MOUSE_MOVE && !any))
        return true;
    int code = in->button > 0 ? in->button - 1 : 3;
    if (in->mouse == MOUSE_WHEEL)
        code = 64 + (in->button == -1 ? 0 : in->button == 1 ? 1 : in->button == -2 ? 2 : 3);
    if (in->mouse == MOUSE_DRAG || in->mouse == MOUSE_MOVE)
        code += 32;
    code += (in->mods & MOD_SHIFT ? 4 : 0) + (in->mods & MOD_ALT ? 8 : 0) + (in->mods & MOD_CTRL ? 16 : 0);
    char s[48];
    if (term_emu_mode(emu, 1006)) {
        int n = snprintf(s, sizeof s, "\033[<%d;%d;%d%c", code, col + 1, row + 1, in->mouse == MOUSE_RELEASE ? 'm' : 'M');
        out(s, (size_t)n, arg);
        return true;
    }
    if (row >= 223 || col >= 223) /* the old form has no more room */
        return true;
    if (in->mouse == MOUSE_RELEASE)
        code |= 3;
    memcpy(s, "\033[M", 3);
    s[3] = (char)(32 + code);
    s[4] = (char)(33 + col);
    s[5] = (char)(33 + row);
    out(s, 6, arg);
    return true;
}
