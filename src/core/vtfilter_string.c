#include "core/vtfilter_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/sanitize.h"

/* Guest text for titles and notices: printable, one line, short. */
static void tell(struct vtfilter *f, enum vt_event ev, const char *text, size_t max)
{
    char safe[1024];
    size_t n = strlen(text);
    sanitize_line(safe, max < sizeof safe ? max : sizeof safe, text, n);
    vt_event(f, ev, 0, true, safe);
    if (f->profile != VT_TERMINAL)
        return;
    /* A number first would be another program's command to the terminal (ConEmu's 9;N). */
    char out[sizeof safe + 16];
    int len = 0;
    if (ev == VT_TITLE)
        len = snprintf(out, sizeof out, "\033]2;%s\033\\", safe);
    else if (ev == VT_NOTIFY && safe[0] && !(safe[0] >= '0' && safe[0] <= '9'))
        len = snprintf(out, sizeof out, "\033]9;%s\033\\", safe);
    vt_put_still(f, out, (size_t)len);
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
        vt_put_still(f, "\033]8;;\033\\", 7);
    } else if (link_ok(uri)) {
        char text[LINK_MAX + 16];
        int n = snprintf(text, sizeof text, "\033]8;;%s\033\\", uri);
        vt_put_still(f, text, (size_t)n);
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
    vt_event(f, VT_CLIPBOARD, 0, true, data);
}

static void colour_query(struct vtfilter *f, unsigned code, const char *rest)
{
    char text[64];
    if (strcmp(rest, "?") != 0)
        return;
    bool ink = code == 10 || code == 12;
    const char *rgb = f->light ? (ink ? "2b2b/3434/4040" : "fafa/fafa/f8f8") : ink ? "c8c8/d0d0/dcdc" : "0d0d/1111/1717";
    snprintf(text, sizeof text, "\033]%u;rgb:%s\033\\", code, rgb);
    vt_reply(f, text);
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
    vt_reply(f, text);
}

/* "title;text" */
static void notice_of_two(struct vtfilter *f, const char *rest)
{
    char text[512];
    const char *body = strchr(rest, ';');
    size_t n = body ? (size_t)(body - rest) : 0;
    snprintf(text, sizeof text, "%.*s%s%s", (int)n, rest, n && body[1] ? ": " : "", body ? body + 1 : rest);
    tell(f, VT_NOTIFY, text, sizeof text);
}

/* kitty's: "key=value:...;payload".  Only titles and texts call somebody; a question for what is supported, a button, an
 * icon or the end of one do not.  What is in base64 calls without words. */
static void kitty_notice(struct vtfilter *f, const char *rest)
{
    const char *body = strchr(rest, ';');
    size_t n = body ? (size_t)(body - rest) : 0;
    bool coded = false;
    for (size_t i = 0; i < n; i += strcspn(rest + i, ":;") + 1) {
        const char *v = rest + i;
        if (strncmp(v, "p=", 2) == 0 && strncmp(v, "p=title", 7) != 0 && strncmp(v, "p=body", 6) != 0)
            return;
        coded = coded || strncmp(v, "e=1", 3) == 0;
    }
    tell(f, VT_NOTIFY, coded ? "" : body ? body + 1 : rest, 512);
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
        /* A number first is one of ConEmu's commands: progress, a folder, ... */
        if (rest[strspn(rest, "0123456789")] != ';' || rest[0] == ';')
            tell(f, VT_NOTIFY, rest, 512);
        break;
    case 777:
        if (strncmp(rest, "notify;", 7) == 0)
            notice_of_two(f, rest + 7);
        break;
    case 99:
        kitty_notice(f, rest);
        break;
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
        vt_reply(f, "\033P0$r\033\\");
    else if (strncmp(f->string, "+q", 2) == 0)
        vt_reply(f, "\033P0+r\033\\");
}

void vt_string_void(struct vtfilter *f)
{
    if (f->string_cap > 4096) { /* a large one is rare: give the memory back */
        free(f->string);
        f->string = NULL;
        f->string_cap = 0;
    }
    f->string_len = 0;
}

void vt_string_end(struct vtfilter *f)
{
    f->state = GROUND;
    if (f->profile != VT_PLAIN && !f->string_dropped && f->string) {
        f->string[f->string_len] = '\0';
        if (f->kind == OSC)
            osc(f);
        else if (f->kind == DCS)
            dcs(f);
    }
    vt_string_void(f);
}

void vt_string_begin(struct vtfilter *f, enum string_kind kind)
{
    f->state = STRING;
    f->kind = kind;
    f->string_len = 0;
    f->string_dropped = kind == OTHER;
}

void vt_string_put(struct vtfilter *f, unsigned char c)
{
    if (f->string_dropped || c == 0)
        return;
    size_t max = f->string_len >= 3 && f->kind == OSC && strncmp(f->string, "52;", 3) == 0 ? VT_CLIPBOARD_MAX : VT_STRING_MAX;
    if (f->string_len + 2 > f->string_cap) {
        size_t cap = f->string_cap ? f->string_cap * 2 : 256;
        char *more = f->string_len + 2 > max ? NULL : realloc(f->string, cap);
        if (!more) {
            f->string_dropped = true; /* it is read to its end, and means nothing */
            vt_string_void(f);
            return;
        }
        f->string = more;
        f->string_cap = cap;
    }
    f->string[f->string_len++] = (char)c;
}
