#include "ui/dash/input.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"

/* Longest sequence that is waited for; a longer one is no key and is dropped. */
#define HELD_MAX 4096

struct input_decoder {
    input_fn *fn;
    void *arg;
    char held[HELD_MAX];
    size_t len;
    bool paste, paste_begun;
    bool discard; /* the rest of a string that is longer than anything of ours: to its end, or a pause */
};

struct input_decoder *input_new(input_fn *fn, void *arg)
{
    struct input_decoder *d = calloc(1, sizeof *d);
    if (d) {
        d->fn = fn;
        d->arg = arg;
    }
    return d;
}

void input_free(struct input_decoder *d)
{
    free(d);
}

static void emit_key(struct input_decoder *d, uint32_t key, unsigned mods, const char *raw, size_t len)
{
    struct input in = {.type = INPUT_KEY, .key = key, .mods = mods, .raw = raw, .raw_len = len};
    d->fn(&in, d->arg);
}

/* One byte below 0x20, or 0x7f, as a key. */
static uint32_t control_key(unsigned char c, unsigned *mods)
{
    switch (c) {
    case '\r':
    case '\n':
        return K_ENTER;
    case '\t':
        return K_TAB;
    case 0x1b:
        return K_ESC;
    case 0x7f:
    case 0x08:
        return K_BACKSPACE;
    case 0:
        *mods |= MOD_CTRL;
        return ' ';
    default:
        *mods |= MOD_CTRL;
        return c < 27 ? (uint32_t)(c + 'a' - 1) : (uint32_t)(c + '@');
    }
}

/* The parameters of a CSI: up to 4 numbers; sub-parameters (after a colon) are passed over. */
static unsigned numbers(const char *p, const char *end, long out[4])
{
    unsigned n = 0;
    bool sub = false;
    memset(out, 0, 4 * sizeof *out);
    for (; p < end; p++) {
        if (*p == ';') {
            n++;
            sub = false;
        } else if (*p == ':') {
            sub = true;
        } else if (*p >= '0' && *p <= '9' && !sub && n < 4 && out[n] < 0x110000) {
            out[n] = out[n] * 10 + (*p - '0');
        }
    }
    return n + 1;
}

static unsigned mods_of(long param)
{
    return param > 1 ? (unsigned)(param - 1) & 7u : 0;
}

static uint32_t tilde_key(long n)
{
    static const struct {
        int n;
        uint32_t key;
    } keys[] = {{1, K_HOME},       {2, K_INSERT},     {3, K_DELETE},     {4, K_END},        {5, K_PGUP},
                {6, K_PGDN},       {7, K_HOME},       {8, K_END},        {11, K_F1},        {12, K_F1 + 1},
                {13, K_F1 + 2},    {14, K_F1 + 3},    {15, K_F1 + 4},    {17, K_F1 + 5},    {18, K_F1 + 6},
                {19, K_F1 + 7},    {20, K_F1 + 8},    {21, K_F1 + 9},    {23, K_F1 + 10},   {24, K_F1 + 11}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].n == n)
            return keys[i].key;
    return K_UNKNOWN;
}

static uint32_t letter_key(char c)
{
    switch (c) {
    case 'A':
        return K_UP;
    case 'B':
        return K_DOWN;
    case 'C':
        return K_RIGHT;
    case 'D':
        return K_LEFT;
    case 'H':
        return K_HOME;
    case 'F':
        return K_END;
    case 'P':
    case 'Q':
    case 'R':
    case 'S':
        return K_F1 + (uint32_t)(c - 'P');
    case 'M':
        return K_ENTER;
    default:
        return K_UNKNOWN;
    }
}

static void emit_mouse(struct input_decoder *d, const char *raw, size_t len)
{
    long p[4];
    char final = raw[len - 1];
    numbers(raw + 3, raw + len - 1, p);
    struct input in = {.type = INPUT_MOUSE, .raw = raw, .raw_len = len, .x = (int)p[1] - 1, .y = (int)p[2] - 1};
    long b = p[0];
    if (in.x < 0 || in.y < 0)
        return;
    in.mods = (b & 4 ? MOD_SHIFT : 0u) | (b & 8 ? MOD_ALT : 0u) | (b & 16 ? MOD_CTRL : 0u);
    if (b & 64) {
        static const int wheel[] = {-1, 1, -2, 2};
        in.mouse = MOUSE_WHEEL;
        in.button = wheel[b & 3];
    } else {
        in.button = (b & 3) == 3 ? 0 : (int)(b & 3) + 1;
        in.mouse = b & 32 ? (in.button ? MOUSE_DRAG : MOUSE_MOVE) : final == 'M' ? MOUSE_PRESS : MOUSE_RELEASE;
    }
    d->fn(&in, d->arg);
}

static void emit_reply(struct input_decoder *d, const char *raw, size_t len)
{
    struct input in = {.type = INPUT_REPLY, .raw = raw, .raw_len = len};
    d->fn(&in, d->arg);
}

static size_t put_utf8(char *out, uint32_t c);

/* A key by its code point, as some terminals send it; a plain character comes as its text. */
static void emit_code(struct input_decoder *d, long code, unsigned mods, const char *raw, size_t len)
{
    char text[4];
    unsigned ctl = 0;
    if (code < 0 || (code >= 0xd800 && code < 0xf900) || code >= 0x110000) /* the private area stands for keys without one */
        emit_key(d, K_UNKNOWN, mods, raw, len);
    else if (code < 32 || code == 127)
        emit_key(d, control_key((unsigned char)code, &ctl), mods, raw, len);
    else if (mods & (MOD_CTRL | MOD_ALT))
        emit_key(d, (uint32_t)code, mods, raw, len);
    else
        emit_key(d, (uint32_t)code, mods, text, put_utf8(text, (uint32_t)code));
}

/* A whole CSI: raw[0..len), final byte last. */
static void emit_csi(struct input_decoder *d, const char *raw, size_t len)
{
    long p[4];
    char final = raw[len - 1];
    const char *body = raw + 2;
    if (*body == '[') {
        emit_key(d, final >= 'A' && final <= 'E' ? K_F1 + (uint32_t)(final - 'A') : K_UNKNOWN, 0, raw, len);
        return;
    }
    if (*body == '<' && (final == 'M' || final == 'm')) {
        emit_mouse(d, raw, len);
        return;
    }
    /* Device attributes, versions, mode reports, cursor reports: the terminal speaks, not the user. */
    if (*body == '?' || *body == '>' || *body == '=' || final == 'c' || final == 'n' || final == 't' || final == 'y') {
        emit_reply(d, raw, len);
        return;
    }
    unsigned n = numbers(body, raw + len - 1, p);
    if ((final == 'I' || final == 'O') && len == 3) {
        struct input in = {.type = INPUT_FOCUS, .focus_in = final == 'I', .raw = raw, .raw_len = len};
        d->fn(&in, d->arg);
        return;
    }
    if (final == 'R' && n == 2 && p[0] > 1) { /* a cursor report; F3 with modifiers is CSI 1;..R */
        emit_reply(d, raw, len);
        return;
    }
    if (final == '~' && p[0] == 200) {
        d->paste = true;
        d->paste_begun = false;
        return;
    }
    if (final == '~' && p[0] == 201) /* the end of no paste: no key */
        return;
    if (final == '~' && p[0] == 27 && n >= 3) { /* xterm's modifyOtherKeys */
        emit_code(d, p[2], mods_of(p[1]), raw, len);
        return;
    }
    if (final == '~') {
        emit_key(d, tilde_key(p[0]), mods_of(n > 1 ? p[1] : 0), raw, len);
        return;
    }
    if (final == 'u') {
        emit_code(d, p[0], mods_of(n > 1 ? p[1] : 0), raw, len);
        return;
    }
    if (final == 'Z') {
        emit_key(d, K_TAB, MOD_SHIFT, raw, len);
        return;
    }
    emit_key(d, letter_key(final), mods_of(n > 1 ? p[1] : 0), raw, len);
}

/* The length of the sequence that begins with ESC at p, 0 if it is not complete. */
static size_t sequence(const unsigned char *p, size_t len)
{
    if (len < 2)
        return 0;
    if (p[1] == '[' && len > 2 && p[2] == '[') /* F1 to F5 of the Linux console */
        return len < 4 ? 0 : 4;
    if (p[1] == '[') {
        for (size_t i = 2; i < len; i++) {
            if (p[i] >= 0x40 && p[i] <= 0x7e)
                return i + 1;
            if (p[i] < 0x20 || p[i] > 0x7e)
                return i; /* broken off: what came so far is dropped */
        }
        return 0;
    }
    if (p[1] == 'O')
        return len < 3 ? 0 : 3;
    if (p[1] == ']' || p[1] == 'P' || p[1] == '_' || p[1] == '^') {
        for (size_t i = 2; i < len; i++) {
            if (p[i] == 0x07)
                return i + 1;
            if (p[i] == 0x1b && i + 1 < len)
                return p[i + 1] == '\\' ? i + 2 : i;
        }
        return 0;
    }
    return 2;
}

static void emit_sequence(struct input_decoder *d, const char *raw, size_t len)
{
    unsigned mods = MOD_ALT;
    unsigned char c = (unsigned char)raw[1];
    if (c == '[') {
        if (len > 2 && raw[len - 1] >= 0x40)
            emit_csi(d, raw, len);
        else if (len == 2)
            emit_key(d, '[', MOD_ALT, raw, len);
    } else if (c == 'O' && len == 3) {
        uint32_t key = letter_key(raw[2]);
        if (key == K_UNKNOWN && raw[2] >= 'j' && raw[2] <= 'y')
            key = (uint32_t)(raw[2] - 'j' + '*'); /* the application keypad */
        emit_key(d, key, 0, raw, len);
    } else if ((c == ']' || c == 'P' || c == '_' || c == '^') && len > 2) {
        emit_reply(d, raw, len);
    } else if (c < 32 || c == 127) {
        uint32_t key = control_key(c, &mods);
        emit_key(d, key, mods, raw, len);
    } else {
        emit_key(d, c, mods, raw, len);
    }
}

/* How much of buf is paste text for sure; *end: the closing bracket follows it. */
static size_t paste_part(const char *buf, size_t len, bool *end)
{
    static const char mark[] = "\033[201~";
    const size_t m = sizeof mark - 1;
    *end = false;
    for (size_t i = 0; i < len; i++) {
        size_t left = len - i;
        if (buf[i] == 0x1b && memcmp(buf + i, mark, left < m ? left : m) == 0) {
            *end = left >= m;
            return i;
        }
    }
    return len;
}

/* Takes one event from the front; 0: more bytes are needed. */
static size_t step(struct input_decoder *d, const char *buf, size_t len, bool flush)
{
    const unsigned char *u = (const unsigned char *)buf;
    if (d->paste) {
        bool end;
        size_t n = paste_part(buf, len, &end);
        if (n && n == len && u[n - 1] == 0xc2) /* perhaps a control of two bytes: it is judged as one */
            n--;
        if (n || end) {
            struct input in = {.type = INPUT_PASTE, .paste_begin = !d->paste_begun, .paste_end = end, .raw = buf, .raw_len = n};
            d->paste_begun = true;
            d->paste = !end;
            d->fn(&in, d->arg);
        }
        return n + (end ? 6 : 0);
    }
    if (d->discard) {
        for (size_t i = 0; i < len; i++) {
            if (u[i] == 0x07 || (u[i] == 0x1b && i + 1 < len && u[i + 1] == '\\')) {
                d->discard = false;
                return i + (u[i] == 0x07 ? 1 : 2);
            }
            if (u[i] == 0x1b && i + 1 == len)
                return i; /* perhaps its end */
        }
        return len;
    }
    if (u[0] == 0x1b) {
        size_t n = sequence(u, len);
        if (n == 0 && !flush)
            return 0;
        if (n == 0 && len > 2)
            return len; /* a cut sequence is no key */
        if (n == 0 && len == 2) {
            emit_key(d, u[1], MOD_ALT, buf, 2);
            return 2;
        }
        if (n <= 1) {
            emit_key(d, K_ESC, 0, buf, 1);
            return 1;
        }
        if (n == 2 && u[1] == 0x1b && !flush && len == 2)
            return 0; /* Alt with a key that is a sequence itself, or Escape twice */
        if (n == 2 && u[1] == 0x1b) {
            emit_key(d, K_ESC, 0, buf, 1);
            return 1;
        }
        emit_sequence(d, buf, n);
        return n;
    }
    if (u[0] < 32 || u[0] == 127) {
        unsigned mods = 0;
        uint32_t key = control_key(u[0], &mods);
        emit_key(d, key, mods, buf, 1);
        return 1;
    }
    unsigned code = 0;
    size_t n = sanitize_utf8(u, len, &code);
    if (n == 0) {
        size_t want = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : u[0] >= 0xc2 ? 2 : 1;
        if (want > len && !flush)
            return 0;
        return 1; /* not UTF-8: no key */
    }
    emit_key(d, code, 0, buf, n);
    return n;
}

static void run(struct input_decoder *d, bool flush)
{
    size_t at = 0;
    while (at < d->len) {
        size_t n = step(d, d->held + at, d->len - at, flush);
        if (n == 0)
            break;
        at += n;
    }
    memmove(d->held, d->held + at, d->len - at);
    d->len -= at;
    if (d->len == sizeof d->held) {
        d->discard = d->held[0] == 0x1b;
        d->len = 0;
    }
}

void input_feed(struct input_decoder *d, const void *buf, size_t len)
{
    const char *p = buf;
    while (len) {
        size_t n = sizeof d->held - d->len;
        if (n > len)
            n = len;
        memcpy(d->held + d->len, p, n);
        d->len += n;
        p += n;
        len -= n;
        run(d, false);
    }
}

bool input_pending(const struct input_decoder *d)
{
    return (d->len > 0 || d->discard) && !d->paste;
}

void input_flush(struct input_decoder *d)
{
    if (d->paste)
        return;
    d->discard = false;
    run(d, true);
}

/* ---- names ---- */

static const struct {
    const char *name, *shown;
    uint32_t key;
} names[] = {
    {"enter", "Enter", K_ENTER}, {"tab", "Tab", K_TAB},         {"esc", "Esc", K_ESC},
    {"backspace", "Bksp", K_BACKSPACE}, {"up", "\xe2\x86\x91", K_UP}, {"down", "\xe2\x86\x93", K_DOWN},
    {"left", "\xe2\x86\x90", K_LEFT}, {"right", "\xe2\x86\x92", K_RIGHT}, {"home", "Home", K_HOME},
    {"end", "End", K_END},       {"pgup", "PgUp", K_PGUP},      {"pgdn", "PgDn", K_PGDN},
    {"ins", "Ins", K_INSERT},    {"del", "Del", K_DELETE},      {"space", "Space", ' '},
};

bool input_parse_key(const char *name, uint32_t *key, unsigned *mods)
{
    *mods = 0;
    for (;;) {
        if (strncasecmp(name, "ctrl-", 5) == 0 && name[5])
            *mods |= MOD_CTRL, name += 5;
        else if (strncasecmp(name, "alt-", 4) == 0 && name[4])
            *mods |= MOD_ALT, name += 4;
        else if (strncasecmp(name, "shift-", 6) == 0 && name[6])
            *mods |= MOD_SHIFT, name += 6;
        else
            break;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(names[i].name, name) == 0) {
            *key = names[i].key;
            return true;
        }
    int f;
    char rest;
    if ((name[0] == 'f' || name[0] == 'F') && name[1] && sscanf(name + 1, "%d%c", &f, &rest) == 1 && f >= 1 && f <= 12) {
        *key = K_F1 + (uint32_t)f - 1;
        return true;
    }
    unsigned code;
    size_t len = strlen(name), n = sanitize_utf8((const unsigned char *)name, len, &code);
    if (n == 0 || n != len)
        return false;
    *key = (*mods & MOD_CTRL) && code < 128 ? (uint32_t)tolower((int)code) : code;
    return true;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

void input_key_name(uint32_t key, unsigned mods, char *out, size_t cap)
{
    char base[16] = "?";
    const char *shown = base;
    bool found = false;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
        if (names[i].key == key) {
            shown = names[i].shown;
            found = true;
        }
    if (!found && key >= K_F1 && key <= K_F12) {
        snprintf(base, sizeof base, "F%u", (unsigned)(key - K_F1 + 1));
    } else if (!found && key < 0x110000) {
        uint32_t c = (mods & MOD_CTRL) && key < 128 ? (uint32_t)toupper((int)key) : key;
        base[put_utf8(base, c)] = '\0';
    }
    snprintf(out, cap, "%s%s%s%s", mods & MOD_CTRL ? "Ctrl-" : "", mods & MOD_ALT ? "Alt-" : "", mods & MOD_SHIFT ? "Shift-" : "", shown);
}

bool input_leaves(const struct input *in)
{
    return in->type == INPUT_KEY && (in->key == K_ESC || ((in->mods & MOD_CTRL) && (in->key == 'c' || in->key == 'g')));
}
