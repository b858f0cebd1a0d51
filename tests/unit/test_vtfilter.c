/* The terminal filter: what a hostile program prints, and what is left of it.  Whatever the pieces in which the input
 * arrives, output, answers and events are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/vtfilter.h"
#include "core/width.h"

struct seen {
    char out[1 << 17], reply[4096], events[8192];
    size_t nout, nreply, nevents;
};

static struct seen whole, piece;

static void append(char *to, size_t *n, size_t cap, const char *p, size_t len)
{
    assert_true(*n + len < cap);
    memcpy(to + *n, p, len);
    *n += len;
    to[*n] = '\0';
}

static void on_out(const char *p, size_t len, void *arg)
{
    struct seen *s = arg;
    append(s->out, &s->nout, sizeof s->out, p, len);
}

static void on_reply(const char *p, size_t len, void *arg)
{
    struct seen *s = arg;
    append(s->reply, &s->nreply, sizeof s->reply, p, len);
}

static void on_event(enum vt_event ev, int number, bool set, const char *text, void *arg)
{
    struct seen *s = arg;
    char line[1300];
    int n = snprintf(line, sizeof line, "%d:%d:%d:%s@%zu\n", (int)ev, number, (int)set, text ? text : "", s->nout);
    append(s->events, &s->nevents, sizeof s->events, line, (size_t)n);
}

static void on_cursor(int *row, int *col, void *arg)
{
    (void)arg;
    *row = 7;
    *col = 9;
}

static void on_size(int *rows, int *cols, void *arg)
{
    (void)arg;
    *rows = 24;
    *cols = 80;
}

static const struct vt_ops ops = {on_out, on_reply, on_event, on_cursor, on_size};

static void run(struct seen *s, enum vt_profile profile, const char *in, size_t len, size_t step)
{
    struct vtfilter *f = vtfilter_new(profile, &ops, s);
    assert_non_null(f);
    memset(s, 0, sizeof *s);
    for (size_t i = 0; i < len; i += step)
        vtfilter_feed(f, in + i, len - i < step ? len - i : step);
    vtfilter_end(f);
    vtfilter_free(f);
}

static void same_in_pieces(enum vt_profile profile, const char *in, size_t len)
{
    static const size_t steps[] = {1, 2, 3, 7, 64};
    run(&whole, profile, in, len, len ? len : 1);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        run(&piece, profile, in, len, steps[i]);
        assert_int_equal(whole.nout, piece.nout);
        assert_memory_equal(whole.out, piece.out, whole.nout);
        assert_string_equal(whole.reply, piece.reply);
        assert_string_equal(whole.events, piece.events);
    }
}

#define GIVES(profile, in, expected) gives(profile, in, sizeof(in) - 1, expected, __LINE__)

static void gives(enum vt_profile profile, const char *in, size_t len, const char *expected, int line)
{
    same_in_pieces(profile, in, len);
    if (strcmp(whole.out, expected) != 0)
        fail_msg("line %d: got %s instead of %s", line, whole.out, expected);
}

#define ANSWERS(in, expected) answers(in, sizeof(in) - 1, expected, __LINE__)

static void answers(const char *in, size_t len, const char *expected, int line)
{
    same_in_pieces(VT_LIBVTERM, in, len);
    if (strcmp(whole.reply, expected) != 0)
        fail_msg("line %d: answered %s instead of %s", line, whole.reply, expected);
    assert_string_equal(whole.out, "");
    run(&whole, VT_PLAIN, in, len, len);
    assert_string_equal(whole.reply, "");
    assert_string_equal(whole.out, "");
    run(&whole, VT_TERMINAL, in, len, len);
    assert_string_equal(whole.out, ""); /* no question reaches the user's terminal, or it would answer */
}

static bool told(enum vt_event ev, const char *text)
{
    char want[300];
    snprintf(want, sizeof want, "%d:0:1:%s@", (int)ev, text);
    return strstr(whole.events, want) != NULL;
}

static void text_passes(void **state)
{
    (void)state;
    for (enum vt_profile p = VT_LIBVTERM; p <= VT_PLAIN; p++) {
        GIVES(p, "plain\r\n\ttext\b", "plain\r\n\ttext\b");
        GIVES(p, "\xc3\xa9 \xe4\xb8\xad", "\xc3\xa9 \xe4\xb8\xad");
        /* libvterm takes newer emoji for narrow ones: it sees wide characters that nobody uses in their place. */
        GIVES(p, "\xf0\x9f\x9b\x95", p == VT_LIBVTERM ? "\xf0\xbf\x9b\x95" : "\xf0\x9f\x9b\x95");
        GIVES(p, "\xf0\xbf\x9b\x95", "\xef\xbf\xbd");
        GIVES(p, "a\0b\x05\x7f" "c", "abc");
    }
}

static void carried_characters_come_back(void **state)
{
    (void)state;
    assert_int_equal(vtfilter_char(0x3f6d5), 0x1f6d5);
    assert_int_equal(vtfilter_char(0x1f6d5), 0x1f6d5);
    assert_int_equal(vtfilter_char('a'), 'a');
}

/* Whatever reaches libvterm's decoder is whole and well-formed (its split of bad UTF-8 writes past a buffer). */
static void bad_utf8_is_replaced(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd");
    GIVES(VT_LIBVTERM, "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    GIVES(VT_LIBVTERM, "\xf5x", "\xef\xbf\xbdx");
    GIVES(VT_LIBVTERM, "\xe4\xb8x", "\xef\xbf\xbdx");
    GIVES(VT_LIBVTERM, "\xe4\xb8", "\xef\xbf\xbd");
    GIVES(VT_LIBVTERM, "\xe4\xb8\x18\xad", "\xef\xbf\xbd\xef\xbf\xbd");
    GIVES(VT_LIBVTERM, "\xe4\x1b[1mx", "\xef\xbf\xbd\033[1mx");
    GIVES(VT_TERMINAL, "a\xc2\x9b" "31mb", "a31mb"); /* C1 as UTF-8: terminals take it for a CSI */
    GIVES(VT_TERMINAL, "a\x9b" "31mb", "a\xef\xbf\xbd" "31mb");
}

/* terminal.md C.2: 1 (many parameters), 2 (repeat before any character), 8 (intermediate before [ or ]). */
static void libvterm_defects_are_not_reached(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "\033[38:2:59:66:97;48:2:36:40:59;58:2:224:175:104;4:3m", "\033[38;2;59;66;97;48;2;36;40;59;4:3m");
    GIVES(VT_LIBVTERM, "\033[1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;20H", "\033[1;2H");
    GIVES(VT_LIBVTERM, "\033[b", "");
    GIVES(VT_LIBVTERM, "x\033[3b", "xxxx");
    GIVES(VT_LIBVTERM, "\xe4\xb8\xad\033[1b", "\xe4\xb8\xad\xe4\xb8\xad");
    GIVES(VT_LIBVTERM, "\033 [31m", "31m");
    GIVES(VT_LIBVTERM, "\033 ]2;title\a", "2;title");
    GIVES(VT_LIBVTERM, "\033[99999999999999999999A", "\033[32767A");
    GIVES(VT_LIBVTERM, "\033[5;2r", ""); /* margins upside down */
    GIVES(VT_LIBVTERM, "\033[2;999r", "\033[2;24r");
    GIVES(VT_LIBVTERM, "\033[1;24r", "\033[r");
    same_in_pieces(VT_LIBVTERM, "x\033[60000b", 10);
    assert_int_equal(whole.nout, 1 + VT_REPEAT_MAX);
}

static void long_attributes_are_split(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "\033[1;3;4;5;7;9;1;3;4;5;7;9;1;3;4;5;7m", "\033[1;3;4;5;7;9;1;3;4;5;7;9;1;3;4m\033[5;7m");
    GIVES(VT_TERMINAL, "\033[1;38;2;1;2;3;48;2;4;5;6;58:2::7:8:9m", "\033[1;38;2;1;2;3;48;2;4;5;6m\033[58;2;7;8;9m");
    /* libvterm counts what follows a colon, and has places for sixteen. */
    GIVES(VT_LIBVTERM, "\033[4:3;;;4:3;;;;;;4:3;;;4:3m", "\033[4:3;0;0;4:3;0;0;0;0;0;4:3;0;0m\033[4:3m");
    char in[2000] = "\033[";
    for (int i = 0; i < 400; i++)
        strcat(in, "1;");
    strcat(in, "1m");
    same_in_pieces(VT_LIBVTERM, in, strlen(in));
    for (char *p = whole.out; (p = strstr(p, "\033[")); p++)
        assert_true(strcspn(p, "m") < 2 + 15 * 4);
}

static void colours_have_one_spelling(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "\033[38:2::1:2:3m", "\033[38;2;1;2;3m");
    GIVES(VT_LIBVTERM, "\033[38:2:1:2:3m", "\033[38;2;1;2;3m");
    GIVES(VT_LIBVTERM, "\033[38;2;1;2;3m", "\033[38;2;1;2;3m");
    GIVES(VT_LIBVTERM, "\033[48:5:200m", "\033[48;5;200m");
    GIVES(VT_LIBVTERM, "\033[38;2;1m", "");
    GIVES(VT_LIBVTERM, "\033[58;2;1;2;3;31m", "\033[31m");
    GIVES(VT_TERMINAL, "\033[2;53;4:3;58:5:9;59m", "\033[2;53;4:3;58;5;9;59m");
    GIVES(VT_PLAIN, "\033[4:3;58:5:9;31mx\033[m", "\033[4;31mx\033[m");
}

/* Dim, conceal and overline ride on the font number, together and apart, through save and restore. */
static void dim_rides_on_the_font(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "\033[2m\033[53m\033[22m\033[55m", "\033[11m\033[15m\033[22;14m\033[10m");
    GIVES(VT_LIBVTERM, "\033[2;8m\033[0m\033[8m", "\033[11;13m\033[0m\033[12m");
    GIVES(VT_LIBVTERM, "\033[2m\0337\033[0m\0338\033[8m", "\033[11m\0337\033[0m\0338\033[13m");
    GIVES(VT_LIBVTERM, "\033[12m", ""); /* no font of the program's own */
}

static void strings_are_consumed(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "a\033]0;title\ab", "ab");
    assert_true(told(VT_TITLE, "title"));
    GIVES(VT_LIBVTERM, "a\033_Gf=24;payload\033\\b\033^pm\033\\c\033Xsos\033\\d\033ktmux\033\\e", "abcde");
    GIVES(VT_LIBVTERM, "a\033Pqsixel\033\\b", "ab");
    GIVES(VT_TERMINAL, "a\033]1337;File=:AAAA\ab\033]50;font\ac\033]4;1;red\ad", "abcd");
    GIVES(VT_LIBVTERM, "a\033]0;half\033[31mb", "a\033[31mb"); /* a new sequence ends it unheard */
    assert_null(strstr(whole.events, "half"));
    GIVES(VT_LIBVTERM, "a\033]0;half\x18" "b", "ab");
    GIVES(VT_LIBVTERM, "a\033]777;notify;Title;text\a\033]9;ready\a\033]99;i=1;kitty\a\033]9;4;1;50\ab", "ab");
    assert_true(told(VT_NOTIFY, "Title: text") && told(VT_NOTIFY, "ready") && told(VT_NOTIFY, "kitty"));
    /* What looks like one and calls nobody. */
    GIVES(VT_LIBVTERM, "\033]99;i=1:p=?;\a\033]99;i=1:p=close;\a\033]99;i=1:p=icon:e=1;AAAA\a\033]9;9;/tmp\a\033]9;1;500\a\033]777;preexec\ab", "b");
    assert_null(strstr(whole.events, "/tmp"));
    assert_false(told(VT_NOTIFY, ""));
    GIVES(VT_LIBVTERM, "\033]99;i=1:p=title;Two words\a\033]9;5 files; done\a\033]777;notify;only\ab", "b");
    assert_true(told(VT_NOTIFY, "Two words") && told(VT_NOTIFY, "5 files; done") && told(VT_NOTIFY, "only"));
    GIVES(VT_LIBVTERM, "\033]7;file://host/tmp\a\033]133;A\a", "");
    assert_true(told(VT_CWD, "file://host/tmp") && told(VT_PROMPT, "A"));
}

static void strings_are_bounded(void **state)
{
    (void)state;
    size_t n = 3u << 20;
    char *in = malloc(n + 16);
    assert_non_null(in);
    memset(in, 'A', n + 16);
    memcpy(in, "\033]2;", 4);
    memcpy(in + n, "\abehind", 7);
    run(&whole, VT_LIBVTERM, in, n + 7, 4096);
    assert_string_equal(whole.out, "behind");
    assert_string_equal(whole.events, "");
    free(in);
}

static void clipboard_writes_only(void **state)
{
    (void)state;
    GIVES(VT_TERMINAL, "\033]52;c;aGk=\a", "");
    assert_true(told(VT_CLIPBOARD, "aGk="));
    GIVES(VT_TERMINAL, "\033]52;c;?\a\033]52;c;not base64\a", "");
    assert_string_equal(whole.events, "");
    assert_string_equal(whole.reply, "");
}

static void links_go_to_the_web_alone(void **state)
{
    (void)state;
    GIVES(VT_TERMINAL, "\033]8;id=1;https://example.com/\atext\033]8;;\a",
          "\033]8;;https://example.com/\033\\text\033]8;;\033\\");
    GIVES(VT_TERMINAL, "\033]8;;file:///etc/passwd\ax", "x");
    GIVES(VT_TERMINAL, "\033]8;;javascript:alert(1)\ax", "x");
    GIVES(VT_TERMINAL, "\033]8;;http://\xc3\xa9/\ax", "x");
    GIVES(VT_LIBVTERM, "\033]8;;https://example.com/\ax", "x");
}

static void titles_are_made_harmless(void **state)
{
    (void)state;
    GIVES(VT_TERMINAL, "\033]2;evil\x01\xe2\x80\xae\xc2\x9b\a", "\033]2;evil\\u{202e}\\u{9b}\033\\");
    GIVES(VT_TERMINAL, "\a\a\ax\a", "\ax\a");
    GIVES(VT_TERMINAL, "\033]9;done\a\033]9;9;C:\\\a", "\033]9;done\033\\");
}

static void questions_get_constants(void **state)
{
    (void)state;
    ANSWERS("\033[c", "\033[?62;22c");
    ANSWERS("\033[>c", "\033[>1;100;0c");
    ANSWERS("\033[5n", "\033[0n");
    ANSWERS("\033[6n", "\033[7;9R");
    ANSWERS("\033[?6n", "\033[?7;9R");
    ANSWERS("\033[18t", "\033[8;24;80t");
    ANSWERS("\033[14t", "\033[4;480;800t");
    ANSWERS("\033[?2026$p", "\033[?2026;2$y");
    ANSWERS("\033[?9999$p", "\033[?9999;0$y");
    ANSWERS("\033P$qm\033\\", "\033P0$r\033\\");
    ANSWERS("\033P+q544e\033\\", "\033P0+r\033\\");
    ANSWERS("\033]11;?\a", "\033]11;rgb:0d0d/1111/1717\033\\");
    ANSWERS("\033]4;196;?\a", "\033]4;196;rgb:ffff/0000/0000\033\\");
    ANSWERS("\033]4;1;red\a", "");
    ANSWERS("\033[21t\033[20t\033[>q\033[?u\033[>1u\033[>4;2m\033[?15n\033[0x\033[1;1;1;1;1;1*y\x05", "");
    ANSWERS("\033Z", "\033[?62;22c");
    ANSWERS("\033[4$p", "\033[4;2$y");
    ANSWERS("\033[12$p\033[>4$p", "\033[12;0$y");
    same_in_pieces(VT_LIBVTERM, "\033[?2004h\033[?2004$p", 18);
    assert_string_equal(whole.reply, "\033[?2004;1$y");
    same_in_pieces(VT_LIBVTERM, "\033[20h\033[20$p", 11);
    assert_string_equal(whole.reply, "\033[20;1$y");
    same_in_pieces(VT_LIBVTERM, "\033[3;20r\033[?6h\033[6n", 16); /* counted from the margin */
    assert_string_equal(whole.reply, "\033[5;9R");
}

static void a_light_terminal_is_told_as_one(void **state)
{
    static const char ask[] = "\033]11;?\a\033c\033]10;?\a"; /* a reset leaves it light */
    (void)state;
    memset(&whole, 0, sizeof whole);
    struct vtfilter *f = vtfilter_new(VT_LIBVTERM, &ops, &whole);
    vtfilter_light(f, true);
    vtfilter_feed(f, ask, sizeof ask - 1);
    vtfilter_light(f, false);
    vtfilter_feed(f, ask, 8);
    vtfilter_free(f);
    assert_string_equal(whole.reply, "\033]11;rgb:fafa/fafa/f8f8\033\\\033]10;rgb:2b2b/3434/4040\033\\\033]11;rgb:0d0d/1111/1717\033\\");
}

static void modes_are_a_list(void **state)
{
    (void)state;
    GIVES(VT_TERMINAL, "\033[?1049h\033[?25l\033[?1000;1006h\033[?2004h",
          "\033[?1049h\033[?25l\033[?1000h\033[?1006h\033[?2004h");
    GIVES(VT_TERMINAL, "\033[?3h\033[?40h\033[?66h\033[?69h\033[?1001h\033[?2048h\033[?1070h", "");
    GIVES(VT_LIBVTERM, "\033[?47h\033[?2026h\033[?5h", "\033[?1047h");
    GIVES(VT_TERMINAL, "\033[4i\033[5;1;1z\033[2;1$~\033[1;1;5;5;1;1$t\033[!y", "");
    GIVES(VT_TERMINAL, "\033[3J\033[2J", "\033[2J"); /* the user's history is not the guest's */
}

static void a_reset_is_a_list_too(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "\033c", "\033[?1047l\033c\0337");
    same_in_pieces(VT_TERMINAL, "\033c", 2);
    assert_null(strstr(whole.out, "\033c"));
    assert_non_null(strstr(whole.out, "\033[2J"));
}

/* Line drawing, as ncurses and dialog use it, both ways. */
static void line_drawing_becomes_unicode(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "\033(0lqk\033(Bq", "\u250c\u2500\u2510q");
    GIVES(VT_TERMINAL, "\033)0x\016xAx\017x", "x\u2502A\u2502x");
    GIVES(VT_LIBVTERM, "\033(0\0337\033(B\0338q\033[2b", "\0337\0338\u2500\u2500\u2500");
    GIVES(VT_LIBVTERM, "\033(0\033[!pq", "\033[4l\033[?6l\033[r\033[?7h\033[?25h\033[?1l\033>\033[m\033[0\"q\033[H\0337\033[7;9Hq");
}

/* Marks without end would grow libvterm's buffers, and are quadratic. */
static void marks_are_bounded(void **state)
{
    (void)state;
    GIVES(VT_LIBVTERM, "e\xcc\x81x", "e\xcc\x81x");
    char in[2001] = "e";
    for (size_t i = 0; i < 900; i++)
        memcpy(in + 1 + 2 * i, "\xcc\x81", 2);
    same_in_pieces(VT_LIBVTERM, in, 1801);
    assert_int_equal(whole.nout, 1 + 5 * 2);
}

static void plain_keeps_colours_alone(void **state)
{
    (void)state;
    GIVES(VT_PLAIN, "\033[31mred\033[0m\033[2J\033[5;5H\033[?1049h\033]0;t\ax\ay\033cz", "\033[31mred\033[0mxyz");
    GIVES(VT_PLAIN, "\033[31mred", "\033[31mred\033[m"); /* never leaves the user's terminal coloured */
    GIVES(VT_PLAIN, "\033(0q\x0e\x0b", "q");
    assert_string_equal(whole.events, "");
}

/* Random bytes that look like sequences: pieces make no difference, and nothing but known forms comes out. */
static void any_split_gives_the_same(void **state)
{
    static const char *const parts[] = {
        "\033",   "[",    "]",     "P",         "\\",   "\a",       "?1049", "h",      "l",          "m",      "38:2::1:2:3",
        ";",      ":",    "31",    "x",         "text", "\xe4\xb8", "\xad",  "\xcc\x81", "\xf0\x9f\x9a\x80", "\x18", "\x9b",
        "\033[",  "\033]", "\r\n", "52;c;aGk=", "0;t",  "b",        "4095",  "\033P$q", "\033\\",     "\0337",  "\0338",
        "\033[2", "J",    "H",     "r",         "6n",   "\0",       "\x0e",  " q",     "$p",         "\033(0", "c"};
    unsigned seed = 1;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        char in[256];
        size_t n = 0;
        for (int i = 0; i < 20; i++) {
            seed = seed * 1103515245u + 12345u;
            const char *p = parts[(seed >> 16) % (sizeof parts / sizeof *parts)];
            size_t len = *p ? strlen(p) : 1;
            memcpy(in + n, p, len);
            n += len;
        }
        for (enum vt_profile p = VT_LIBVTERM; p <= VT_PLAIN; p++) {
            same_in_pieces(p, in, n);
            for (const unsigned char *c = (const unsigned char *)whole.out; *c; c++)
                assert_false(*c == 0x18 || *c == 0x1a || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0));
            if (p != VT_TERMINAL)
                assert_true(!strstr(whole.out, "\033]") && !strstr(whole.out, "\033P") && !strchr(whole.out, '\a'));
        }
    }
}

static void widths(void **state)
{
    (void)state;
    assert_int_equal(width_of('a'), 1);
    assert_int_equal(width_of(0x301), 0);
    assert_int_equal(width_of(0x200d), 0);
    assert_int_equal(width_of(0xfe0f), 0);
    assert_int_equal(width_of(0x4e2d), 2);
    assert_int_equal(width_of(0x2705), 2);
    assert_int_equal(width_of(0x1f680), 2);
    assert_int_equal(width_of(0x10ffff), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_passes),
        cmocka_unit_test(carried_characters_come_back),
        cmocka_unit_test(bad_utf8_is_replaced),
        cmocka_unit_test(libvterm_defects_are_not_reached),
        cmocka_unit_test(long_attributes_are_split),
        cmocka_unit_test(colours_have_one_spelling),
        cmocka_unit_test(dim_rides_on_the_font),
        cmocka_unit_test(strings_are_consumed),
        cmocka_unit_test(strings_are_bounded),
        cmocka_unit_test(clipboard_writes_only),
        cmocka_unit_test(links_go_to_the_web_alone),
        cmocka_unit_test(titles_are_made_harmless),
        cmocka_unit_test(questions_get_constants), cmocka_unit_test(a_light_terminal_is_told_as_one),
        cmocka_unit_test(modes_are_a_list),
        cmocka_unit_test(a_reset_is_a_list_too),
        cmocka_unit_test(line_drawing_becomes_unicode),
        cmocka_unit_test(marks_are_bounded),
        cmocka_unit_test(plain_keeps_colours_alone),
        cmocka_unit_test(any_split_gives_the_same),
        cmocka_unit_test(widths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
