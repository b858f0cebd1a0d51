/* The dashboard's terminal, off-screen: a table of xterm's control sequences and the screens that they make, then what
 * a user does with it (scrolling, searching, selecting, pasting, clicking) and what a hostile program tries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ui/dash/term_copy.h"
#include "ui/dash/term_emu.h"
#include "ui/dash/term_keys.h"

static void feed(struct term_emu *t, const char *s)
{
    term_emu_feed(t, s, strlen(s));
}

/* The rows of the screen joined by '|', blanks at their ends cut, empty rows at the end left out; then "@row,col". */
static void screen_of(const struct term_emu *t, char *out, size_t cap)
{
    static struct term_cell cells[TERM_COLS_MAX];
    size_t n = 0;
    int row, col;
    for (uint64_t line = term_emu_top(t); line < term_emu_end(t); line++) {
        size_t len;
        char *text = term_emu_text(t, (struct term_place){line, 0}, (struct term_place){line, TERM_COLS_MAX - 1}, false, &len);
        assert_non_null(text);
        n += (size_t)snprintf(out + n, cap - n, "%s%s", line == term_emu_top(t) ? "" : "|", text);
        free(text);
        term_emu_line(t, line, cells, term_emu_cols(t));
    }
    while (n && out[n - 1] == '|')
        n--;
    term_emu_cursor(t, &row, &col);
    snprintf(out + n, cap - n, "@%d,%d", row + 1, col + 1);
}

/* Screens of 5 rows of 10 columns. */
static const struct {
    const char *name, *in, *out;
} table[] = {
    {"text", "abc", "abc@1,4"},
    {"CR LF", "ab\r\ncd", "ab|cd@2,3"},
    {"LF alone keeps the column", "ab\ncd", "ab|  cd@2,5"},
    {"BS", "abc\b\bX", "aXc@1,3"},
    {"BS stops at the margin", "a\b\b\bX", "X@1,2"},
    {"HT", "a\tb", "a       b@1,10"},
    {"HT stops at the last column", "\t\t\tX", "         X@1,10"},
    {"VT and FF are LF", "a\vb\fc", "a| b|  c@3,4"},
    {"autowrap", "0123456789ab", "0123456789|ab@2,3"},
    {"the wrap waits for the next character", "0123456789", "0123456789@1,10"},
    {"CR ends the wait", "0123456789\rX", "X123456789@1,2"},
    {"DECAWM off", "\033[?7l0123456789ab", "012345678b@1,10"},
    {"DECAWM on again", "\033[?7l\033[?7h0123456789a", "0123456789|a@2,2"},
    {"scrolling at the bottom", "1\r\n2\r\n3\r\n4\r\n5\r\n6", "2|3|4|5|6@5,2"},
    {"CUP", "\033[3;4HX", "||   X@3,5"},
    {"CUP without numbers", "ab\033[HX", "Xb@1,2"},
    {"CUP beyond is clamped", "\033[99;99HX", "||||         X@5,10"},
    {"CUP of 0 is 1", "\033[0;0HX", "X@1,2"},
    {"HVP", "\033[2;2fX", "| X@2,3"},
    {"CUU CUD CUF CUB", "\033[3;3H\033[A1\033[B2\033[2C3\033[3D4", "|  1|   24 3@3,6"},
    {"CUU stops at the top", "\033[9AX", "X@1,2"},
    {"CNL CPL", "ab\033[2Ec\033[Fd", "ab|d|c@2,2"},
    {"CHA", "abcd\033[2GX", "aXcd@1,3"},
    {"HPA HPR", "\033[5`X\033[2aY", "    X  Y@1,9"},
    {"VPA VPR", "\033[3dX\033[eY", "||X| Y@4,3"},
    {"CHT CBT", "\033[2IX\033[ZY", "        YX@1,10"},
    {"ED 0", "abc\r\ndef\033[1;2H\033[J", "a@1,2"},
    {"ED 1", "abc\r\ndef\033[2;2H\033[1J", "|  f@2,2"},
    {"ED 2 leaves the cursor", "abc\r\ndef\033[2J", "@2,4"},
    {"EL 0", "abcdef\033[1;3H\033[K", "ab@1,3"},
    {"EL 1", "abcdef\033[1;3H\033[1K", "   def@1,3"},
    {"EL 2", "abcdef\033[2K", "@1,7"},
    {"ECH", "abcdef\033[1;2H\033[3X", "a   ef@1,2"},
    {"ICH", "abcdef\033[1;2H\033[2@", "a  bcdef@1,2"},
    {"DCH", "abcdef\033[1;2H\033[2P", "adef@1,2"},
    {"IL", "1\r\n2\r\n3\033[2;1H\033[L", "1||2|3@2,1"},
    {"DL", "1\r\n2\r\n3\033[2;1H\033[M", "1|3@2,1"},
    {"SU", "1\r\n2\r\n3\033[S", "2|3@3,2"},
    {"SD", "1\r\n2\r\n3\033[T", "|1|2|3@3,2"},
    {"IND", "a\033Db", "a| b@2,3"},
    {"NEL", "a\033Eb", "a|b@2,2"},
    {"RI", "1\r\n2\033Mx", "1x|2@1,3"},
    {"RI at the top scrolls down", "1\r\n2\033[H\033Mx", "x|1|2@1,2"},
    {"DECSTBM homes", "ab\033[2;4rX", "Xb@1,2"},
    {"DECSTBM scrolls its region alone", "1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[4;1H\nX", "1|3|4|X|5@4,2"},
    {"DECSTBM RI at its top", "1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[2;1H\033MX", "1|X|2|3|5@2,2"},
    {"DECSTBM upside down is ignored", "a\033[4;2rb", "ab@1,3"},
    {"DECOM", "\033[2;4r\033[?6h\033[1;1HX", "|X@2,2"},
    {"DECSC DECRC", "ab\0337\033[4;4Hx\0338Y", "abY|||   x@1,4"},
    {"SCOSC SCORC", "ab\033[s\033[3;3H\033[uY", "abY@1,4"},
    {"IRM", "abc\r\033[4hX\033[4lY", "XYbc@1,3"},
    {"LNM", "\033[20hab\ncd", "ab|cd@2,3"},
    {"REP", "a\033[3b", "aaaa@1,5"},
    {"REP before any character is nothing", "\033[9bx", "x@1,2"},
    {"tab stops set and cleared", "\033[3g\033[4G\033H\r\tX", "   X@1,5"},
    {"DECALN", "\033#8", "EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE@1,1"},
    {"RIS", "abc\033[2;4r\033[31m\033cX", "X@1,2"},
    {"DECSTR", "\033[?6h\033[4h\033[2;3r\033[!pab\rX", "|Xb@2,2"},
    {"DEC line drawing", "\033(0lqk\033(Bq", "\u250c\u2500\u2510q@1,5"},
    {"SO and SI", "\033)0q\016q\017q", "q\u2500q@1,4"},
    {"alternate screen 1049", "ab\033[?1049hXY\033[?1049lc", "abc@1,4"},
    {"alternate screen is empty", "ab\033[?1049h", "@1,3"},
    {"alternate screen 47", "ab\033[?47hX\033[?47l", "ab@1,4"},
    {"OSC titles are no text", "a\033]0;title\ab", "ab@1,3"},
    {"OSC ended by ST", "a\033]2;title\033\\b", "ab@1,3"},
    {"OSC 8 links are no text", "\033]8;;http://a.b/\033\\x\033]8;;\033\\y", "xy@1,3"},
    {"DCS is no text", "a\033Pq#0;2;0;0;0#0~~\033\\b", "ab@1,3"},
    {"APC, PM, SOS are no text", "a\033_x\033\\b\033^y\033\\c\033Xz\033\\d", "abcd@1,5"},
    {"a title as tmux and screen do it", "a\033kname\033\\b", "ab@1,3"},
    {"CAN ends a sequence", "a\033[31\030b", "ab@1,3"},
    {"ESC within a sequence begins anew", "a\033[3\033[2Cb", "a  b@1,5"},
    {"an unknown CSI is nothing", "a\033[5#yb\033[>1ub", "abb@1,4"},
    {"C1 in UTF-8 is nothing", "a\xc2\x9b" "31mb", "a31mb@1,6"},
    {"wide characters", "\xe6\xbc\xa2\xe5\xad\x97x", "\xe6\xbc\xa2\xe5\xad\x97x@1,6"},
    {"a wide character at the edge wraps", "012345678\xe6\xbc\xa2", "012345678|\xe6\xbc\xa2@2,3"},
    {"half of a wide character overwritten", "\xe6\xbc\xa2\033[1;2HX", " X@1,3"},
    {"the left half overwritten", "\xe6\xbc\xa2z\033[1;1HX", "X z@1,2"},
    {"emoji that libvterm does not know are wide", "\xf0\x9f\x9b\x95x\xf0\x9f\x9b\xb7y", "\xf0\x9f\x9b\x95x\xf0\x9f\x9b\xb7y@1,7"},
    {"combining characters", "e\xcc\x81x", "e\xcc\x81x@1,3"},
    {"a mark alone", "\xcc\x81", " \xcc\x81@1,1"},
    {"bad UTF-8", "a\xff\xc3" "b", "a\xef\xbf\xbd\xef\xbf\xbd" "b@1,5"},
    {"NUL and DEL are nothing", "a\177b", "ab@1,3"},
    {"BEL is no text", "a\ab", "ab@1,3"},
    {"ED 3 leaves the screen", "ab\033[3J", "ab@1,3"},
    {"negative of nothing: many parameters", "\033[1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;20;21mx", "x@1,2"},
    {"a huge number", "\033[999999999999Cx", "         x@1,10"},
};

static void sequences_make_the_expected_screens(void **state)
{
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (int split = 0; split < 2; split++) {
            char got[1024];
            struct term_emu *t = term_emu_new(5, 10, 20, NULL, NULL);
            assert_non_null(t);
            size_t n = strlen(table[i].in);
            for (size_t k = 0; split && k < n; k++) /* byte by byte */
                term_emu_feed(t, table[i].in + k, 1);
            if (!split)
                term_emu_feed(t, table[i].in, n);
            screen_of(t, got, sizeof got);
            if (strcmp(got, table[i].out) != 0) {
                print_error("%s%s: got %s instead of %s\n", table[i].name, split ? " (byte by byte)" : "", got, table[i].out);
                bad++;
            }
            term_emu_free(t);
        }
    assert_int_equal(bad, 0);
}

static struct term_cell cell_after(const char *in)
{
    static struct term_cell cells[10];
    struct term_emu *t = term_emu_new(5, 10, 20, NULL, NULL);
    feed(t, in);
    term_emu_line(t, term_emu_top(t), cells, 10);
    term_emu_free(t);
    return cells[0];
}

static void looks_are_kept(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        unsigned attrs;
        uint32_t fg, bg;
    } looks[] = {
        {"\033[1mx", TERM_BOLD, 0, 0},
        {"\033[2mx", TERM_DIM, 0, 0},
        {"\033[1;2mx", TERM_BOLD | TERM_DIM, 0, 0},
        {"\033[1;2m\033[22mx", 0, 0, 0},
        {"\033[3mx", TERM_ITALIC, 0, 0},
        {"\033[4mx", TERM_UNDERLINE, 0, 0},
        {"\033[21mx", TERM_UNDERLINE | TERM_DOUBLE, 0, 0},
        {"\033[4:3mx", TERM_UNDERLINE | TERM_CURLY, 0, 0},
        {"\033[4m\033[24mx", 0, 0, 0},
        {"\033[5mx", TERM_BLINK, 0, 0},
        {"\033[7mx", TERM_REVERSE, 0, 0},
        {"\033[8mx", TERM_CONCEAL, 0, 0},
        {"\033[9mx", TERM_STRIKE, 0, 0},
        {"\033[53mx", TERM_OVERLINE, 0, 0},
        {"\033[2;8;53mx", TERM_DIM | TERM_CONCEAL | TERM_OVERLINE, 0, 0},
        {"\033[2;8;53;0mx", 0, 0, 0},
        {"\033[31;42mx", 0, TERM_INDEXED | 1, TERM_INDEXED | 2},
        {"\033[97;104mx", 0, TERM_INDEXED | 15, TERM_INDEXED | 12},
        {"\033[38;5;200;48;5;17mx", 0, TERM_INDEXED | 200, TERM_INDEXED | 17},
        {"\033[38;2;1;2;3;48;2;4;5;6mx", 0, TERM_RGB | 0x010203, TERM_RGB | 0x040506},
        {"\033[38:2:1:2:3mx", 0, TERM_RGB | 0x010203, 0},
        {"\033[38:2::1:2:3mx", 0, TERM_RGB | 0x010203, 0},
        {"\033[38:5:99mx", 0, TERM_INDEXED | 99, 0},
        {"\033[31m\033[39mx", 0, 0, 0},
        {"\033[58;2;9;9;9mx", 0, 0, 0},          /* the underline's colour; libvterm strikes the text through */
        {"\033[58:2::9:9:9;4:3mx", TERM_UNDERLINE | TERM_CURLY, 0, 0},
        {"\033[38:2:59:66:97;48:2:36:40:59;58:2:224:175:104;4:3mx", TERM_UNDERLINE | TERM_CURLY, TERM_RGB | 0x3b4261, TERM_RGB | 0x24283b},
        {"\033[44m\033[K", 0, 0, TERM_INDEXED | 4}, /* an erased cell has the background */
        {"\033[4;7;9m\033[K", 0, 0, 0},             /* and nothing else of the pen */
    };
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        struct term_cell c = cell_after(looks[i].in);
        if (c.attrs != looks[i].attrs || c.fg != looks[i].fg || c.bg != looks[i].bg)
            fail_msg("%s: attributes %x, colours %x %x", looks[i].in + 1, c.attrs, c.fg, c.bg);
    }
}

/* ---- scrollback ---- */

static struct term_emu *numbered(int lines)
{
    struct term_emu *t = term_emu_new(5, 20, 100, NULL, NULL);
    char text[64];
    for (int i = 1; i <= lines; i++) {
        snprintf(text, sizeof text, "%sline \033[3%dm%d\033[0m", i > 1 ? "\r\n" : "", i % 8, i);
        feed(t, text);
    }
    return t;
}

static void line_is(const struct term_emu *t, uint64_t line, const char *expected)
{
    size_t len;
    char *text = term_emu_text(t, (struct term_place){line, 0}, (struct term_place){line, TERM_COLS_MAX - 1}, false, &len);
    assert_string_equal(text, expected);
    free(text);
}

static void scrollback_keeps_text_and_looks(void **state)
{
    (void)state;
    struct term_emu *t = numbered(50);
    static struct term_cell cells[20];
    assert_int_equal(term_emu_first(t), 0);
    assert_int_equal(term_emu_top(t), 45);
    line_is(t, 0, "line 1");
    line_is(t, 49, "line 50");
    assert_int_equal(term_emu_line(t, 2, cells, 20), 6);
    assert_int_equal(cells[5].fg, TERM_INDEXED | 3);
    assert_int_equal(cells[4].fg, TERM_DEFAULT);
    feed(t, "\r\n\xe6\xbc\xa2" "e\xcc\x81\xf0\x9f\x9b\x95|\r\n\r\n\r\n\r\n\r\n");
    assert_true(term_emu_line(t, 50, cells, 20) >= 6);
    line_is(t, 50, "\xe6\xbc\xa2" "e\xcc\x81\xf0\x9f\x9b\x95|");
    assert_int_equal(cells[0].width, 2);
    assert_int_equal(cells[1].width, 0);
    assert_int_equal(cells[2].ch[1], 0x301);
    assert_int_equal(cells[3].ch[0], 0x1f6d5);
    assert_int_equal(cells[5].ch[0], '|');
    /* Only so many are kept, and numbers stay what they were. */
    for (int i = 0; i < 200; i++)
        feed(t, "x\r\n");
    assert_int_equal(term_emu_top(t) - term_emu_first(t), 100);
    assert_int_equal(term_emu_line(t, 0, cells, 20), -1);
    feed(t, "\033[3J");
    assert_int_equal(term_emu_top(t), term_emu_first(t));
    term_emu_free(t);
}

static void the_alternate_screen_has_no_scrollback(void **state)
{
    (void)state;
    struct term_emu *t = numbered(10);
    uint64_t top = term_emu_top(t);
    feed(t, "\033[?1049h");
    for (int i = 0; i < 30; i++)
        feed(t, "full screen program\r\n");
    assert_int_equal(term_emu_top(t), top);
    feed(t, "\033[?1049l");
    line_is(t, top + 4, "line 10");
    term_emu_free(t);
}

static void a_paused_view_stays_where_it_is(void **state)
{
    (void)state;
    struct term_emu *t = numbered(30);
    struct term_copy c = {.rows = 5, .cols = 20};
    assert_int_equal(term_copy_top(&c, t), 25);
    term_copy_scroll(&c, t, -10);
    assert_int_equal(c.look, TERM_PAUSED);
    assert_int_equal(term_copy_top(&c, t), 15);
    feed(t, "\r\nmore\r\nand more\r\n");
    assert_int_equal(term_copy_top(&c, t), 15); /* k9s#155, #444: it stays off */
    term_copy_scroll(&c, t, 1000);
    assert_int_equal(c.look, TERM_FOLLOW);
    feed(t, "\r\n");
    assert_int_equal(term_copy_top(&c, t), term_emu_top(t));
    /* What it shows is dropped in the end: it shows the oldest that there is. */
    term_copy_scroll(&c, t, -1000);
    assert_int_equal(term_copy_top(&c, t), 0);
    for (int i = 0; i < 300; i++)
        feed(t, "y\r\n");
    assert_int_equal(term_copy_top(&c, t), term_emu_first(t));
    term_emu_free(t);
}

static void a_search_finds_both_ways_and_goes_round(void **state)
{
    (void)state;
    struct term_emu *t = numbered(60);
    struct term_copy c = {.rows = 5, .cols = 20};
    strcpy(c.search, "LINE 1"); /* capitals: exact */
    assert_false(term_copy_find(&c, t, true));
    strcpy(c.search, "line 1");
    assert_true(term_copy_find(&c, t, true));
    assert_int_equal(c.cursor.line, 18); /* line 19 */
    assert_int_equal(c.match_cells, 6);
    assert_true(c.cursor.line >= c.top && c.cursor.line < c.top + 5);
    for (int i = 0; i < 10; i++)
        assert_true(term_copy_find(&c, t, true));
    assert_int_equal(c.cursor.line, 0);
    assert_true(term_copy_find(&c, t, true)); /* round */
    assert_int_equal(c.cursor.line, 18);
    assert_true(term_copy_find(&c, t, false));
    assert_int_equal(c.cursor.line, 0);
    term_emu_free(t);
}

static void selections_become_text(void **state)
{
    (void)state;
    struct term_emu *t = term_emu_new(5, 10, 20, NULL, NULL);
    struct term_copy c = {.rows = 5, .cols = 10};
    size_t len;
    feed(t, "hello  \r\n0123456789abc\r\n\xe6\xbc\xa2\xe5\xad\x97 end");
    term_copy_enter(&c, t);
    assert_true(term_copy_action(&c, t, "top"));
    assert_true(term_copy_action(&c, t, "select"));
    assert_true(term_copy_action(&c, t, "bottom"));
    char *text = term_copy_text(&c, t, &len);
    /* A line that runs on is one line; blanks at the end are nobody's. */
    assert_string_equal(text, "hello\n0123456789abc\n\xe6\xbc\xa2\xe5\xad\x97 end\n");
    free(text);
    c.select = SELECT_BLOCK;
    c.anchor = (struct term_place){1, 3};
    c.point = (struct term_place){2, 1};
    text = term_copy_text(&c, t, &len);
    assert_string_equal(text, "123\nbc");
    free(text);
    term_copy_word(&c, t, (struct term_place){3, 6});
    text = term_copy_text(&c, t, &len);
    assert_string_equal(text, "end");
    free(text);
    term_copy_line(&c, (struct term_place){0, 2});
    text = term_copy_text(&c, t, &len);
    assert_string_equal(text, "hello");
    free(text);
    assert_true(term_copy_selected(&c, 0, 9));
    assert_false(term_copy_selected(&c, 1, 0));
    term_emu_free(t);
}

/* Floods take a way of their own to the scrollback: nothing may look otherwise there, or on the screen. */
static void a_flood_shows_the_same_as_the_same_text_in_small_pieces(void **state)
{
    (void)state;
    static const char *const pieces[] = {"plain text ", "\033[31mred ", "\033[1;4mbold", "\033[0m", "\t", "\xe6\xbc\xa2\xe5\xad\x97", "\xf0\x9f\x9b\x95 emoji ",
                                         "\xc3\xa9", "\033[38;2;1;2;3mrgb\033[39m", "\033[2mdim\033[22m ", "a rather long piece of text that is made to wrap ",
                                         "\033[48;5;20mbg\033[49m", "\033[4:3mcurly\033[24m", "e\xcc\x81", "\033[7m \033[27m", "  "};
    static const char *const rare[] = {"\r", "\033[5;5Hjump\r\n", "\033[2;4r\033[r", "\033[44m\r\n\033[49m", "\033[?1049hx\033[?1049l", "\b\b", "\033H", "\n",
                                       "\033[4hx\033[4l", "\033c", "\033[A", "\033[?7l\033[?7h", "\033[3J", "\0337\0338"};
    static struct term_cell a[80], b[80];
    unsigned seed = 7;
    for (int round = 0; round < 60; round++) {
        int cols = 10 + round % 60;
        struct term_emu *fast = term_emu_new(8, cols, 5000, NULL, NULL), *slow = term_emu_new(8, cols, 5000, NULL, NULL);
        char *text = malloc(200000);
        size_t n = 0;
        while (n < 150000) {
            seed = seed * 1103515245u + 12345u;
            unsigned r = seed >> 16;
            const char *p = r % 97 == 0 && round % 3 ? rare[r / 97 % (sizeof rare / sizeof *rare)] : r % 4 == 0 ? "\r\n" : pieces[r / 4 % (sizeof pieces / sizeof *pieces)];
            memcpy(text + n, p, strlen(p));
            n += strlen(p);
        }
        term_emu_feed(fast, text, n);
        for (size_t i = 0; i < n; i += 1000) {
            term_emu_feed(slow, text + i, n - i < 1000 ? n - i : 1000);
            term_emu_top(slow);
        }
        assert_int_equal(term_emu_top(fast), term_emu_top(slow));
        assert_int_equal(term_emu_first(fast), term_emu_first(slow));
        for (uint64_t l = term_emu_first(fast); l < term_emu_end(fast); l++) {
            term_emu_line(fast, l, a, cols);
            term_emu_line(slow, l, b, cols);
            for (int i = 0; i < cols; i++)
                if (memcmp(a[i].ch, b[i].ch, sizeof a[i].ch) != 0 && !(a[i].ch[0] + b[i].ch[0] == ' '))
                    fail_msg("round %d, line %d of %d, column %d: %x instead of %x", round, (int)l, (int)term_emu_end(fast), i, a[i].ch[0], b[i].ch[0]);
                else if (a[i].attrs != b[i].attrs || a[i].fg != b[i].fg || a[i].bg != b[i].bg || a[i].width != b[i].width)
                    fail_msg("round %d, line %d of %d, column %d: look %x %x %x, not %x %x %x", round, (int)l, (int)term_emu_end(fast), i, a[i].attrs, a[i].fg,
                             a[i].bg, b[i].attrs, b[i].fg, b[i].bg);
        }
        int row[2], col[2];
        assert_int_equal(term_emu_cursor(fast, &row[0], &col[0]), term_emu_cursor(slow, &row[1], &col[1]));
        assert_int_equal(row[0], row[1]);
        assert_int_equal(col[0], col[1]);
        free(text);
        term_emu_free(fast);
        term_emu_free(slow);
    }
}

/* ---- input ---- */

static char sent[4096];
static size_t nsent;

static void on_send(const char *bytes, size_t len, void *arg)
{
    (void)arg;
    assert_true(nsent + len < sizeof sent);
    memcpy(sent + nsent, bytes, len);
    nsent += len;
    sent[nsent] = '\0';
}

static void sends(struct term_emu *t, struct input in, const char *expected)
{
    nsent = 0;
    sent[0] = '\0';
    if (in.raw && !in.raw_len)
        in.raw_len = strlen(in.raw);
    term_keys_input(t, &in, on_send, NULL);
    assert_string_equal(sent, expected);
}

static void keys_pass_and_cursor_keys_follow_the_mode(void **state)
{
    (void)state;
    struct term_emu *t = term_emu_new(5, 10, 0, NULL, NULL);
    sends(t, (struct input){.type = INPUT_KEY, .key = 'a', .raw = "a"}, "a");
    sends(t, (struct input){.type = INPUT_KEY, .key = 'c', .mods = MOD_CTRL, .raw = "\003"}, "\003");
    sends(t, (struct input){.type = INPUT_KEY, .key = K_UNKNOWN, .raw = "\033[57414;5u"}, "\033[57414;5u"); /* kitty's */
    sends(t, (struct input){.type = INPUT_KEY, .key = K_UP, .raw = "\033OA"}, "\033[A");
    feed(t, "\033[?1h");
    sends(t, (struct input){.type = INPUT_KEY, .key = K_UP, .raw = "\033[A"}, "\033OA");
    sends(t, (struct input){.type = INPUT_KEY, .key = K_UP, .mods = MOD_CTRL, .raw = "\033[1;5A"}, "\033[1;5A");
    sends(t, (struct input){.type = INPUT_KEY, .key = K_ENTER, .mods = MOD_SHIFT, .raw = "\033[27;2;13~"}, "\033\r");
    sends(t, (struct input){.type = INPUT_REPLY, .raw = "\033[?62;22c"}, ""); /* agent-deck#597: never to a session */
    term_emu_free(t);
}

static void a_paste_cannot_end_itself(void **state)
{
    (void)state;
    struct term_emu *t = term_emu_new(5, 10, 0, NULL, NULL);
    struct input in = {.type = INPUT_PASTE, .paste_begin = true, .paste_end = true, .raw = "rm\033[201~ -r\n\tx\003\xc2\x9b" "y\x7f"};
    sends(t, in, "rm[201~ -r\r\txy");
    feed(t, "\033[?2004h");
    sends(t, in, "\033[200~rm[201~ -r\r\txy\033[201~");
    sends(t, (struct input){.type = INPUT_PASTE, .paste_begin = true, .raw = "part"}, "\033[200~part");
    sends(t, (struct input){.type = INPUT_PASTE, .paste_end = true, .raw = "two"}, "two\033[201~");
    term_emu_free(t);
}

static bool click(struct term_emu *t, struct input in, int row, int col)
{
    in.type = INPUT_MOUSE;
    nsent = 0;
    sent[0] = '\0';
    return term_keys_mouse(t, &in, row, col, on_send, NULL);
}

static void the_mouse_is_the_programs_only_if_it_asked(void **state)
{
    (void)state;
    struct term_emu *t = term_emu_new(5, 10, 0, NULL, NULL);
    struct input press = {.mouse = MOUSE_PRESS, .button = 1}, wheel = {.mouse = MOUSE_WHEEL, .button = -1}, drag = {.mouse = MOUSE_DRAG, .button = 1},
                 release = {.mouse = MOUSE_RELEASE, .button = 1};
    assert_false(click(t, press, 1, 2));
    assert_false(click(t, wheel, 1, 2)); /* claude-code#12953: it never becomes arrow keys */
    assert_string_equal(sent, "");
    feed(t, "\033[?1000h");
    assert_true(click(t, press, 1, 2));
    assert_string_equal(sent, "\033[M \x23\x22");
    assert_true(click(t, drag, 1, 3));
    assert_string_equal(sent, "");
    feed(t, "\033[?1006h\033[?1002h");
    assert_true(click(t, drag, 1, 3));
    assert_string_equal(sent, "\033[<32;4;2M");
    assert_true(click(t, release, 9, 99)); /* let go outside of the pane */
    assert_string_equal(sent, "\033[<0;10;5m");
    assert_true(click(t, wheel, 0, 0));
    assert_string_equal(sent, "\033[<64;1;1M");
    feed(t, "\033[?1000l\033[?1002l"); /* libvterm goes on talking here */
    assert_false(click(t, press, 1, 2));
    assert_string_equal(sent, "");
    nsent = 0;
    term_keys_focus(t, true, on_send, NULL);
    assert_int_equal(nsent, 0);
    feed(t, "\033[?1004h");
    term_keys_focus(t, true, on_send, NULL);
    assert_string_equal(sent, "\033[I");
    term_emu_free(t);
}

/* ---- attacks, and what crashes libvterm ---- */

static void what_breaks_libvterm_does_not_reach_it(void **state)
{
    (void)state;
    struct term_emu *t = term_emu_new(24, 80, 10, NULL, NULL);
    char big[4096];
    feed(t, "\033[38:2:59:66:97;48:2:36:40:59;58:2:224:175:104;4:3m");                       /* 1: parameters */
    memset(big, ';', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    feed(t, "\033[");
    feed(t, big);
    feed(t, "m");
    feed(t, "\033[4:3;4:3;4:3;4:3;4:3;4:3;4:3;4:3;4:3;4:3;4:3;4:3;4:3;4:3;4:3mx");              /* 1: with colons */
    struct term_emu *fresh = term_emu_new(24, 80, 10, NULL, NULL);
    feed(fresh, "\033[b");                                                                       /* 2: REP of nothing */
    term_emu_free(fresh);
    for (int i = 0; i < 300; i++)                                                                /* 3: UTF-8 split */
        term_emu_feed(t, "\xf0\x9f\xe4\xc3" + i % 4, 1);
    feed(t, "\033[1;1Htop\r\n");
    for (int i = 0; i < 20; i++)
        feed(t, "text below\r\n");
    feed(t, "\033[2;1H");
    term_emu_resize(t, 4, 80);                                                                   /* 4: the cursor's row */
    term_emu_resize(t, 2, 80);
    feed(t, "x\r\ny");
    term_emu_resize(t, 40, 120);
    feed(t, "\033[40;120H\0337");
    term_emu_resize(t, 3, 5);
    feed(t, "\0338x\033[?1048lx\033[?1049h\033[?1049lx");                                        /* 5: the saved place */
    term_emu_resize(t, 1, 1);                                                                    /* 7: clamped */
    feed(t, "\xe6\xbc\xa2\xe6\xbc\xa2");
    term_emu_resize(t, 0, 0);
    feed(t, "\xe6\xbc\xa2x");
    feed(t, "\033P$qzz\033\\\033 [31m\033 ]0;x\a");                                              /* 8: DECRQSS, bypass */
    int row, col;
    term_emu_cursor(t, &row, &col);
    assert_in_range(row, 0, term_emu_rows(t) - 1);
    assert_in_range(col, 0, term_emu_cols(t) - 1);
    term_emu_free(t);
}

static void many_marks_end(void **state)
{
    (void)state; /* tmux PR#5434 */
    struct term_emu *t = term_emu_new(5, 10, 0, NULL, NULL);
    feed(t, "e");
    for (int i = 0; i < 1000; i++)
        feed(t, "\xcc\x81");
    feed(t, "x");
    char got[256];
    screen_of(t, got, sizeof got);
    assert_true(strlen(got) < 40);
    assert_non_null(strstr(got, "x@1,3"));
    term_emu_free(t);
}

static void titles_are_one_safe_line(void **state)
{
    (void)state;
    struct term_emu *t = term_emu_new(5, 10, 0, NULL, NULL);
    feed(t, "\033]2;evil\033]2;again\a");
    feed(t, "\033]2;a\xc2\x9b" "b\r\nc\a");
    assert_null(strpbrk(term_emu_title(t), "\033\r\n\x9b"));
    term_emu_free(t);
}

static void a_lower_pane_shows_the_cursor(void **state)
{
    (void)state; /* two dashboards on one session, one of them smaller */
    struct term_emu *t = term_emu_new(40, 80, 10, NULL, NULL);
    struct term_copy c = {.rows = 10, .cols = 80};
    feed(t, "\033[35;1Hprompt");
    uint64_t top = term_copy_top(&c, t);
    assert_true(top <= term_emu_top(t) + 34 && top + 10 > term_emu_top(t) + 34);
    term_copy_scroll(&c, t, -5);
    term_copy_scroll(&c, t, 100);
    assert_int_equal(c.look, TERM_FOLLOW);
    term_emu_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_make_the_expected_screens),
        cmocka_unit_test(looks_are_kept),
        cmocka_unit_test(scrollback_keeps_text_and_looks),
        cmocka_unit_test(the_alternate_screen_has_no_scrollback),
        cmocka_unit_test(a_paused_view_stays_where_it_is),
        cmocka_unit_test(a_search_finds_both_ways_and_goes_round),
        cmocka_unit_test(selections_become_text),
        cmocka_unit_test(a_flood_shows_the_same_as_the_same_text_in_small_pieces),
        cmocka_unit_test(keys_pass_and_cursor_keys_follow_the_mode),
        cmocka_unit_test(a_paste_cannot_end_itself),
        cmocka_unit_test(the_mouse_is_the_programs_only_if_it_asked),
        cmocka_unit_test(what_breaks_libvterm_does_not_reach_it),
        cmocka_unit_test(many_marks_end),
        cmocka_unit_test(titles_are_one_safe_line),
        cmocka_unit_test(a_lower_pane_shows_the_cursor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
