#include "ui/dash/edit.h"

#include <string.h>

#include "core/sanitize.h"
#include "core/width.h"

bool edit_tail(char *text, size_t cap, const struct input *in)
{
    size_t n = strlen(text);
    bool ctrl = in->mods & MOD_CTRL;
    bool word = ctrl ? in->key == 'w' : in->key == K_BACKSPACE && (in->mods & MOD_ALT);
    if (in->type == INPUT_KEY && in->key == K_BACKSPACE && !word) {
        while (n && ((unsigned char)text[n - 1] & 0xc0) == 0x80)
            n--;
        n -= n > 0;
    } else if (in->type == INPUT_KEY && (word || (ctrl && in->key == 'u'))) {
        while (n && text[n - 1] == ' ')
            n--;
        while (n && (!word || text[n - 1] != ' '))
            n--;
    } else if (in->type == INPUT_PASTE || (in->type == INPUT_KEY && in->key < 0x110000 && !(in->mods & (MOD_CTRL | MOD_ALT)))) {
        if (in->type == INPUT_KEY && in->raw_len && in->raw[0] == '\033') { /* the keypad's */
            if (n + 1 < cap && in->key < 127)
                text[n++] = (char)in->key;
            text[n] = '\0';
            return true;
        }
        for (size_t i = 0; i < in->raw_len && n + 1 < cap; i++)
            if ((unsigned char)in->raw[i] >= 32 && in->raw[i] != 127)
                text[n++] = in->raw[i];
        while (n && n + 1 == cap && ((unsigned char)text[n - 1] & 0x80)) /* no half of a character at the brim */
            n--;
    } else {
        return false;
    }
    text[n] = '\0';
    return true;
}

/* ---- with a cursor ---- */

static size_t back(const char *text, size_t at)
{
    while (at && ((unsigned char)text[--at] & 0xc0) == 0x80)
        ;
    return at;
}

static bool joins(const char *text, size_t at)
{
    unsigned code = 0;
    size_t n = sanitize_utf8((const unsigned char *)text + at, strnlen(text + at, 4), &code);
    return n > 1 && code >= 160 && width_of(code) == 0;
}

size_t edit_before(const char *text, size_t at)
{
    do
        at = back(text, at);
    while (at && joins(text, at));
    return at;
}

size_t edit_after(const char *text, size_t at)
{
    if (!text[at])
        return at;
    do
        for (at++; ((unsigned char)text[at] & 0xc0) == 0x80; at++)
            ;
    while (text[at] && joins(text, at));
    return at;
}

/* A control character, or a format character: what was typed would not be what is seen. */
static bool unseen(const char *text, size_t n, unsigned code)
{
    char line[16];
    if (code < 32 || (code >= 127 && code < 160))
        return true;
    sanitize_line(line, sizeof line, text, n);
    return code != '\\' && line[0] == '\\';
}

void edit_insert(struct edit *e, const char *text, size_t n)
{
    size_t len = strlen(e->text);
    for (size_t i = 0, k; i < n; i += k) {
        unsigned code = 0;
        k = sanitize_utf8((const unsigned char *)text + i, n - i, &code);
        if (k == 0 || unseen(text + i, k, code)) {
            k = k ? k : 1;
            continue;
        }
        if (len + k >= e->cap)
            return;
        memmove(e->text + e->at + k, e->text + e->at, len - e->at + 1);
        memcpy(e->text + e->at, text + i, k);
        e->at += k;
        len += k;
    }
}

static bool ends_line(char c)
{
    return c == '\n' || c == '\r' || c == '\t';
}

void edit_paste(struct edit *e, const struct input *in, bool blank)
{
    if (e->cut)
        e->cut->goes_on = false;
    for (size_t i = 0, n; i < in->raw_len; i += n) {
        bool end = ends_line(in->raw[i]);
        for (n = 1; i + n < in->raw_len && ends_line(in->raw[i + n]) == end; n++)
            ;
        bool last = i + n == in->raw_len && in->paste_end;
        if (!end)
            edit_insert(e, in->raw + i, n);
        else if (blank && !last && e->at && e->text[e->at - 1] != ' ')
            edit_insert(e, " ", 1);
    }
}

void edit_remove(struct edit *e, size_t from, size_t to)
{
    memmove(e->text + from, e->text + to, strlen(e->text + to) + 1);
    e->at = from;
}

/* Removed for Ctrl-Y; what is cut in one go comes back in one. */
static void cut(struct edit *e, size_t from, size_t to, bool goes_on)
{
    struct edit_cut *c = e->cut;
    size_t n = to - from, had = c && goes_on ? strlen(c->text) : 0;
    if (c && n && n + had < sizeof c->text) {
        bool before = to == e->at;
        memmove(c->text + (before ? n : 0), c->text, had);
        memcpy(c->text + (before ? 0 : had), e->text + from, n);
        c->text[n + had] = '\0';
    }
    if (c)
        c->goes_on = true;
    edit_remove(e, from, to);
}

static bool in_word(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c >= 0x80;
}

static size_t word_back(const char *t, size_t at)
{
    while (at && !in_word((unsigned char)t[at - 1]))
        at--;
    while (at && in_word((unsigned char)t[at - 1]))
        at--;
    return at;
}

static size_t word_on(const char *t, size_t at)
{
    while (t[at] && !in_word((unsigned char)t[at]))
        at++;
    while (t[at] && in_word((unsigned char)t[at]))
        at++;
    return at;
}

static size_t part_back(const struct edit *e)
{
    size_t at = e->at;
    while (at && strchr(e->parts, e->text[at - 1]))
        at--;
    while (at && !strchr(e->parts, e->text[at - 1]))
        at--;
    return at;
}

/* Ctrl and Alt with letters, as shells have them. */
static bool edit_chord(struct edit *e, uint32_t key, bool alt, bool goes_on)
{
    char *t = e->text;
    size_t end = strlen(t);
    if (alt && key == 'b')
        e->at = word_back(t, e->at);
    else if (alt && key == 'f')
        e->at = word_on(t, e->at);
    else if (alt && key == 'd')
        cut(e, e->at, word_on(t, e->at), goes_on);
    else if (alt)
        return false;
    else if (key == 'a')
        e->at = 0;
    else if (key == 'e')
        e->at = end;
    else if (key == 'b')
        e->at = edit_before(t, e->at);
    else if (key == 'f')
        e->at = edit_after(t, e->at);
    else if (key == 'd')
        edit_remove(e, e->at, edit_after(t, e->at));
    else if (key == 'k')
        cut(e, e->at, end, goes_on);
    else if (key == 'u')
        cut(e, 0, e->at, goes_on);
    else if (key == 'w')
        cut(e, part_back(e), e->at, goes_on);
    else if (key == 'y' && e->cut)
        edit_insert(e, e->cut->text, strlen(e->cut->text));
    else
        return false;
    return true;
}

bool edit_key(struct edit *e, const struct input *in)
{
    bool word = (in->mods & (MOD_CTRL | MOD_ALT)) != 0, goes_on = e->cut && e->cut->goes_on;
    if (in->type != INPUT_KEY)
        return false;
    if (e->cut)
        e->cut->goes_on = false;
    switch (in->key) {
    case K_BACKSPACE:
        if (word)
            cut(e, word_back(e->text, e->at), e->at, goes_on);
        else
            edit_remove(e, edit_before(e->text, e->at), e->at);
        return true;
    case K_DELETE:
        if (word)
            cut(e, e->at, word_on(e->text, e->at), goes_on);
        else
            edit_remove(e, e->at, edit_after(e->text, e->at));
        return true;
    case K_LEFT:
        e->at = word ? word_back(e->text, e->at) : edit_before(e->text, e->at);
        return true;
    case K_RIGHT:
        e->at = word ? word_on(e->text, e->at) : edit_after(e->text, e->at);
        return true;
    case K_HOME:
        e->at = 0;
        return true;
    case K_END:
        e->at = strlen(e->text);
        return true;
    default:
        if (in->key >= 0x110000)
            return false;
        if (word)
            return edit_chord(e, in->key, (in->mods & MOD_ALT) != 0, goes_on);
        if (in->raw_len && in->raw[0] == '\033') { /* the keypad's */
            char c = (char)in->key;
            edit_insert(e, &c, in->key < 127);
        } else {
            edit_insert(e, in->raw, in->raw_len);
        }
        return true;
    }
}
