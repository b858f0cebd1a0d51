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
    /* Cursor movement, more of it. */
    {"CUU default is 1", "\033[3;3H\033[AX", "|  X@2,4"},
    {"CUU 0 is 1", "\033[3;3H\033[0AX", "|  X@2,4"},
    {"CUU 2", "\033[4;3H\033[2AX", "|  X@2,4"},
    {"CUU stops at the top margin", "\033[2;4r\033[4;3H\033[9AX", "|  X@2,4"},
    {"CUU from above the margin goes to the top", "\033[3;4r\033[2;3H\033[9AX", "  X@1,4"},
    {"CUU keeps the column at the edge", "\033[2;10H\033[AX", "         X@1,10"},
    {"CUD default is 1", "\033[BX", "|X@2,2"},
    {"CUD stops at the bottom", "\033[99BX", "||||X@5,2"},
    {"CUD stops at the bottom margin", "\033[2;4r\033[9BX", "|||X@4,2"},
    {"CUD from below the margin goes to the bottom", "\033[1;3r\033[4;1H\033[9BX", "||||X@5,2"},
    {"CUD does not scroll", "1\033[5;1H5\033[BX", "1||||5X@5,3"},
    {"CUF default is 1", "\033[CX", " X@1,3"},
    {"CUF stops at the edge", "\033[99CX", "         X@1,10"},
    {"CUF does not wrap", "0123456789\033[CX", "012345678X@1,10"},
    {"CUB default is 1", "ab\033[DX", "aX@1,3"},
    {"CUB stops at the edge", "ab\033[99DX", "Xb@1,2"},
    {"CUB does not wrap back", "0123456789a\033[5DX", "0123456789|X@2,2"},
    {"CUB after a full line", "0123456789\033[DX", "01234567X9@1,10"},
    {"CNL default is 1", "ab\033[EX", "ab|X@2,2"},
    {"CNL stops at the bottom", "ab\033[99EX", "ab||||X@5,2"},
    {"CNL does not scroll", "ab\033[5;3H\033[EX", "ab||||X@5,2"},
    {"CPL default is 1", "\033[3;5H\033[FX", "|X@2,2"},
    {"CPL stops at the top", "\033[3;5H\033[99FX", "X@1,2"},
    {"CHA default is 1", "abc\033[GX", "Xbc@1,2"},
    {"CHA 0 is 1", "abc\033[0GX", "Xbc@1,2"},
    {"CHA stops at the edge", "\033[99GX", "         X@1,10"},
    {"HPA default is 1", "abc\033[`X", "Xbc@1,2"},
    {"HPA stops at the edge", "\033[99`X", "         X@1,10"},
    {"HPR stops at the edge", "a\033[99aX", "a        X@1,10"},
    {"VPA default is 1", "\033[3;3H\033[dX", "  X@1,4"},
    {"VPA stops at the bottom", "\033[99dX", "||||X@5,2"},
    {"VPR default is 1", "\033[eX", "|X@2,2"},
    {"VPR stops at the bottom", "\033[99eX", "||||X@5,2"},
    {"CUP with a row alone", "abc\033[3HX", "abc||X@3,2"},
    {"CUP with a column alone", "abc\033[;3HX", "abX@1,4"},
    {"CUP takes more numbers for none", "\033[2;3;4;5HX", "|  X@2,4"},
    {"HVP without numbers", "abc\033[fX", "Xbc@1,2"},
    {"HVP beyond is clamped", "\033[99;99fX", "||||         X@5,10"},
    {"CHT default is 1", "\033[IX", "        X@1,10"},
    {"CHT stops at the edge", "\033[9IX", "         X@1,10"},
    {"CBT default is 1", "\033[10G\033[ZX", "        X@1,10"},
    {"CBT stops at the margin", "ab\033[9ZX", "Xb@1,2"},
    {"CBT to the tab before", "\033[9G\033[ZX", "X@1,2"},
    {"BS after a full line", "0123456789\bX", "01234567X9@1,10"},
    {"HT keeps what it passes", "abcdefghij\r\tX", "abcdefghXj@1,10"},
    {"CR at the margin", "\r\rX", "X@1,2"},
    {"LF at the bottom scrolls", "1\033[5;1H5\nX", "|||5| X@5,3"},
    {"LF below the margin does not scroll", "1\r\n2\r\n3\033[1;3r\033[5;1H\nX", "1|2|3||X@5,2"},
    {"VT at the bottom scrolls", "1\033[5;1H5\vX", "|||5| X@5,3"},
    /* Erasing. */
    {"ED default is 0", "abc\r\ndef\r\nghi\033[2;2H\033[J", "abc|d@2,2"},
    {"ED 0 at home is all", "abc\r\ndef\033[H\033[0J", "@1,1"},
    {"ED 1 with the cursor's cell", "abc\r\ndef\033[1;2H\033[1J", "  c|def@1,2"},
    {"ED 1 at the end is all", "abc\r\ndef\033[5;10H\033[1J", "@5,10"},
    {"ED 2 ignores margins", "a\r\nb\r\nc\033[1;2r\033[2J", "@1,1"},
    {"ED of another number is nothing", "abc\033[7J", "abc@1,4"},
    {"DECSED erases what is not protected", "abc\033[?2J", "@1,4"},
    {"EL default is 0", "abcdef\033[4G\033[K", "abc@1,4"},
    {"EL 0 at a full line's end", "0123456789\033[K", "012345678@1,10"},
    {"EL 1 at the end is all", "0123456789\033[1K", "@1,10"},
    {"EL 2 keeps other lines", "abc\r\ndef\033[2K", "abc@2,4"},
    {"EL of another number is nothing", "abc\r\033[7K", "abc@1,1"},
    {"DECSEL", "abc\r\033[?K", "@1,1"},
    {"ECH default is 1", "abc\r\033[X", " bc@1,1"},
    {"ECH 0 is 1", "abc\r\033[0X", " bc@1,1"},
    {"ECH stops at the line's end", "abc\r\ndef\033[1;2H\033[99X", "a|def@1,2"},
    {"ECH of half a wide character", "\xe6\xbc\xa2x\r\033[X", "  x@1,1"},
    {"EL from within a wide character", "a\xe6\xbc\xa2x\033[3G\033[K", "a@1,3"},
    /* Inserting and deleting. */
    {"ICH default is 1", "abc\r\033[@", " abc@1,1"},
    {"ICH 0 is 1", "abc\r\033[0@", " abc@1,1"},
    {"ICH pushes beyond the edge", "0123456789\033[3G\033[3@", "01   23456@1,3"},
    {"ICH of more than the line", "0123456789\033[3G\033[99@", "01@1,3"},
    {"ICH keeps other lines", "abc\r\ndef\033[1;1H\033[2@", "  abc|def@1,1"},
    {"DCH default is 1", "abc\r\033[P", "bc@1,1"},
    {"DCH 0 is 1", "abc\r\033[0P", "bc@1,1"},
    {"DCH of more than the line", "0123456789\033[3G\033[99P", "01@1,3"},
    {"DCH brings blanks in", "0123456789\r\033[2PX", "X3456789@1,2"},
    {"IL default is 1", "1\r\n2\r\n3\033[1;1H\033[L", "|1|2|3@1,1"},
    {"IL 2", "1\r\n2\r\n3\033[2;1H\033[2L", "1|||2|3@2,1"},
    {"IL of more than the screen", "1\r\n2\r\n3\033[2;1H\033[99L", "1@2,1"},
    {"IL stays within the margins", "1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[2;1H\033[L", "1||2|3|5@2,1"},
    {"IL outside the margins is nothing", "1\r\n2\r\n3\033[2;3r\033[1;1H\033[L", "1|2|3@1,1"},
    {"DL default is 1", "1\r\n2\r\n3\033[1;1H\033[M", "2|3@1,1"},
    {"DL 2", "1\r\n2\r\n3\r\n4\033[2;1H\033[2M", "1|4@2,1"},
    {"DL of more than the screen", "1\r\n2\r\n3\033[2;1H\033[99M", "1@2,1"},
    {"DL stays within the margins", "1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[2;1H\033[M", "1|3|4||5@2,1"},
    {"DL outside the margins is nothing", "1\r\n2\r\n3\033[2;3r\033[1;1H\033[M", "1|2|3@1,1"},
    {"IRM pushes beyond the edge", "0123456789\r\033[4hX\033[4l", "X012345678@1,2"},
    /* Scrolling. */
    {"SU default is 1", "1\r\n2\033[S", "2@2,2"},
    {"SU 2", "1\r\n2\r\n3\033[2S", "3@3,2"},
    {"SU of more than the screen", "1\r\n2\r\n3\033[99S", "@3,2"},
    {"SU stays within the margins", "1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[S", "1|3|4||5@1,1"},
    {"SD default is 1", "1\r\n2\033[T", "|1|2@2,2"},
    {"SD 2", "1\r\n2\033[2T", "||1|2@2,2"},
    {"SD of more than the screen", "1\r\n2\033[99T", "@2,2"},
    {"SD stays within the margins", "1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[T", "1||2|3|5@1,1"},
    {"IND at the bottom scrolls", "1\033[5;1H5\033DX", "|||5| X@5,3"},
    {"IND within the margins", "1\r\n2\r\n3\r\n4\r\n5\033[2;4r\033[4;2H\033DX", "1|3|4| X|5@4,3"},
    {"IND outside the margins does not scroll", "1\033[2;3r\033[5;1H\033DX", "1||||X@5,2"},
    {"NEL at the bottom scrolls", "1\033[5;4H5\033EX", "|||   5|X@5,2"},
    {"NEL within the margins", "1\r\n2\r\n3\033[1;3r\033[3;2H\033EX", "2|3|X@3,2"},
    {"RI in the middle", "1\r\n2\r\n3\033MX", "1|2X|3@2,3"},
    {"RI above the margins does not scroll", "1\r\n2\033[2;3r\033[1;1H\033MX", "X|2@1,2"},
    {"DECSTBM without numbers is the screen", "\033[2;3r\033[r\033[5;1H\nX", "||||X@5,2"},
    {"DECSTBM with a top alone", "1\r\n2\r\n3\r\n4\r\n5\033[4r\033[5;1H\nX", "1|2|3|5|X@5,2"},
    {"DECSTBM with a bottom alone", "1\r\n2\r\n3\033[;2r\033[2;1H\nX", "2|X|3@2,2"},
    {"DECSTBM 0;0 is the screen", "\033[2;3r\033[0;0r\033[5;1H5\nX", "|||5| X@5,3"},
    {"DECSTBM of one line is ignored", "1\r\n2\033[2;2r\033[HX", "X|2@1,2"},
    {"DECSTBM beyond is clamped", "1\r\n2\033[2;99r\033[5;1H\nX", "1||||X@5,2"},
    {"DECSTBM wraps within", "\033[1;2r0123456789012345678901", "0123456789|01@2,3"},
    {"DECOM homes", "abc\033[2;4r\033[?6hX", "abc|X@2,2"},
    {"DECOM clamps to the margins", "\033[2;3r\033[?6h\033[99;1HX", "||X@3,2"},
    {"DECOM VPA counts from the margin", "\033[2;4r\033[?6h\033[2dX", "||X@3,2"},
    {"DECOM off homes to the screen", "\033[2;3r\033[?6h\033[?6lX", "X@1,2"},
    /* Wrapping. */
    {"the wait for a wrap survives SGR", "0123456789\033[1mX", "0123456789|X@2,2"},
    {"LF ends the wait", "0123456789\nX", "0123456789|         X@2,10"},
    {"CUP ends the wait", "0123456789\033[1;10HX", "012345678X@1,10"},
    /* Not as xterm has it, and not mended: libvterm wraps a wide character, and inserts one column for it. */
    {"DECAWM off with a wide character", "\033[?7l012345678\xe6\xbc\xa2", "012345678|\xe6\xbc\xa2@2,3"},
    {"IRM with a wide character", "ab\r\033[4h\xe6\xbc\xa2\033[4l", "\xe6\xbc\xa2" "b@1,3"},
    {"wrapping at the bottom scrolls", "1\033[5;1H0123456789X", "|||0123456789|X@5,2"},
    {"wrapping twice", "01234567890123456789X", "0123456789|0123456789|X@3,2"},
    {"REP wraps", "a\033[11b", "aaaaaaaaaa|aa@2,3"},
    {"REP default is 1", "a\033[b", "aa@1,3"},
    {"REP of a wide character", "\xe6\xbc\xa2\033[2b", "\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2@1,7"},
    {"REP of line drawing", "\033(0q\033[3b\033(B", "\u2500\u2500\u2500\u2500@1,5"},
    {"REP behind another sequence is nothing", "a\033[2;1H\033[2b", "a@2,1"},
    {"REP behind an attribute is nothing", "a\033[1m\033[2b", "a@1,2"},
    {"REP behind a control is nothing", "a\r\033[2b", "a@1,1"},
    {"REP behind REP is nothing", "a\033[2b\033[b", "aaa@1,4"},
    /* Tab stops. */
    {"HTS", "\033[3G\033H\r\tX", "  X@1,4"},
    {"TBC 0 clears the one here", "\033[9G\033[g\r\tX", "         X@1,10"},
    {"TBC 0 elsewhere is nothing", "\033[4G\033[0g\r\tX", "        X@1,10"},
    {"TBC 3 clears all", "\033[3g\r\tX", "         X@1,10"},
    {"tab stops survive the alternate screen", "\033[3G\033H\033[?1049h\033[?1049l\r\tX", "  X@1,4"},
    {"RIS sets the tab stops again", "\033[3g\033c\tX", "        X@1,10"},
    /* Saving and restoring. */
    {"DECRC without a save homes", "abc\0338X", "Xbc@1,2"},
    {"DECSC keeps the line drawing", "\033(0\0337\033(B\0338q", "\u2500@1,2"},
    {"DECSC twice: the later one", "a\0337b\0337c\r\0338X", "abX@1,4"},
    {"DECRC twice", "ab\0337\033[3;3H\0338X\033[4;4H\0338Y", "abY@1,4"},
    {"mode 1048", "ab\033[?1048h\033[4;4H\033[?1048lX", "abX@1,4"},
    {"SCORC without a save homes", "abc\033[uX", "Xbc@1,2"},
    /* Screens. */
    {"mode 1047 is empty", "ab\033[?1047hX", "  X@1,4"},
    {"mode 1047 comes back", "ab\033[?1047hX\033[?1047l", "ab@1,4"},
    {"mode 1049 restores the cursor", "ab\033[?1049h\033[5;5HX\033[?1049lc", "abc@1,4"},
    {"mode 1049 twice saves the cursor of each screen", "ab\033[?1049hX\033[?1049hY\033[?1049lc", "abc@1,4"},
    {"what is saved on the alternate screen is not where leaving it goes", "ab\033[?1049h\033[3;3H\0337\033[?1049lc", "abc@1,4"},
    {"the same with 1047", "ab\0337\033[?1047h\033[3;3H\0337\033[5;5H\033[?1047l\0338c", "abc@1,4"},
    {"the alternate screen keeps what it saved", "ab\0337\033[?1047h\033[3;3H\0337\033[?1047l\033[?1047h\033[H\0338X", "||  X@3,4"},
    {"a saved cursor within margins", "\033[2;4r\033[?6h\033[2;2H\033[?1047h\033[?1047lX", "|| X@3,3"},
    {"DECRC ends the origin mode of later", "\0337\033[2;4r\033[?6h\0338X", "X@1,2"},
    {"DECRC brings the origin mode back", "\033[2;4r\033[?6h\0337\033[?6l\0338\033[HX", "|X@2,2"},
    {"DECRC brings protection back", "\033[1\"q\0337\033[0\"q\0338a\033[?2J", "a@1,2"},
    {"DECALN takes the margins off and homes", "\033[2;3r\033[3;3H\033#8X\033[5;1H\n", "EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE@5,1"},
    {"ICH outside the margins", "\033[2;3rabc\r\033[@", " abc@1,1"},
    {"DCH outside the margins", "\033[2;3rabc\r\033[PX\033[3;1H\nY", "Xc||Y@3,2"},
    {"mode 1049 off without on", "ab\033[?1049lX", "Xb@1,2"},
    {"the alternate screen has no memory", "\033[?1049hXY\033[?1049l\033[?1049h\033[2;1HZ", "|Z@2,2"},
    {"RIS leaves the alternate screen", "ab\033[?1049hX\033cY", "Y@1,2"},
    /* Resets. */
    {"RIS clears modes", "\033[?7l\033[4h\033[20h\033cab\nc", "ab|  c@2,4"},
    {"RIS clears the line drawing", "\033(0\033cq", "q@1,2"},
    {"DECSTR keeps the text", "abc\033[!p", "abc@1,4"},
    {"DECSTR ends the line drawing", "\033(0\033[!pq", "q@1,2"},
    {"DECSTR forgets the saved cursor", "ab\0337\033[3;3H\033[!p\0338X", "Xb@1,2"},
    {"CNL and CPL stop at the margins", "\033[2;3r\033[2;5H\033[9EX\033[9FY", "|Y|X@2,2"},
    {"CUU at the top margin is nothing", "\033[2;4r\033[2;3H\033[AX", "|  X@2,4"},
    {"DECSTR clears margins", "\033[2;3r\033[!p\033[5;1H5\nX", "|||5| X@5,3"},
    {"DECSTR ends origin mode", "\033[2;3r\033[?6h\033[!p\033[HX", "X@1,2"},
    {"DECALN then text", "\033#8\033[1;1HX", "XEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE|EEEEEEEEEE@1,2"},
    /* Character sets. */
    {"line drawing, all corners", "\033(0lkmjn\033(B", "\u250c\u2510\u2514\u2518\u253c@1,6"},
    {"line drawing, tees", "\033(0tuvwx\033(B", "\u251c\u2524\u2534\u252c\u2502@1,6"},
    {"line drawing, scans", "\033(0opqrs\033(B", "\u23ba\u23bb\u2500\u23bc\u23bd@1,6"},
    {"line drawing, signs", "\033(0`afgyz{|}~\033(B", "\u25c6\u2592\u00b0\u00b1\u2264\u2265\u03c0\u2260\u00a3\u00b7@1,10"},
    {"line drawing leaves capitals", "\033(0ABC123\033(B", "ABC123@1,7"},
    {"line drawing leaves UTF-8", "\033(0\xe6\xbc\xa2\033(B", "\xe6\xbc\xa2@1,3"},
    {"G1 without SO is not used", "\033)0q", "q@1,2"},
    {"SO without a set in G1", "\016q\017", "q@1,2"},
    {"the British set has a pound sign", "\033(A#$\033(B#", "\u00a3$#@1,4"},
    {"other national sets are ASCII", "\033(K#[\033(4{\033(B#", "#[{#@1,5"},
    {"UTF-8 chosen and left is nothing", "\033%Ga\033%@b", "ab@1,3"},
    /* UTF-8. */
    {"two bytes", "\xc3\xa9x", "\xc3\xa9x@1,3"},
    {"three bytes", "\xe2\x82\xacx", "\xe2\x82\xacx@1,3"},
    {"overlong forms", "\xc0\x80x", "\xef\xbf\xbd\xef\xbf\xbdx@1,4"},
    {"a surrogate", "\xed\xa0\x80x", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx@1,5"},
    {"beyond Unicode", "\xf5\x80x", "\xef\xbf\xbd\xef\xbf\xbdx@1,4"},
    {"a cut character and an escape", "\xe6\xbc\033[31mx", "\xef\xbf\xbdx@1,3"},
    {"a continuation alone", "\x80x", "\xef\xbf\xbdx@1,3"},
    {"a no-break space", "a\xc2\xa0" "b", "a\xc2\xa0" "b@1,4"},
    {"a wide emoji", "\xf0\x9f\x9a\x80x", "\xf0\x9f\x9a\x80x@1,4"},
    {"Hangul", "\xed\x95\x9cx", "\xed\x95\x9cx@1,4"},
    {"full width Latin", "\xef\xbc\xa1x", "\xef\xbc\xa1x@1,4"},
    {"two marks", "a\xcc\x88\xcc\x81x", "a\xcc\x88\xcc\x81x@1,3"},
    {"a wide character deleted from the left", "\xe6\xbc\xa2x\r\033[P", " x@1,1"},
    {"a wide character pushed beyond the edge", "01234567\xe6\xbc\xa2\r\033[@", " 01234567@1,1"},
    /* Strings, and what is no sequence. */
    {"OSC 1", "a\033]1;icon\ab", "ab@1,3"},
    {"OSC 4 sets no colour and is no text", "a\033]4;1;rgb:00/00/00\ab", "ab@1,3"},
    {"OSC 52 is no text", "a\033]52;c;ZXZpbA==\ab", "ab@1,3"},
    {"OSC 104 is no text", "a\033]104\ab", "ab@1,3"},
    {"OSC 133 is no text", "a\033]133;A\033\\b", "ab@1,3"},
    {"OSC 777 is no text", "a\033]777;notify;t;b\ab", "ab@1,3"},
    {"OSC 1337 is no text", "a\033]1337;File=inline=1:AAAA\ab", "ab@1,3"},
    {"OSC without a number", "a\033]x;y\ab", "ab@1,3"},
    {"OSC with UTF-8", "a\033]2;\xe6\xbc\xa2\033\\b", "ab@1,3"},
    {"OSC ended by CAN", "a\033]2;title\030b", "ab@1,3"},
    {"OSC ended by SUB", "a\033]2;title\032b", "ab@1,3"},
    {"OSC ended by another sequence", "a\033]2;title\033[1Cb", "a b@1,4"},
    {"DCS with a question is no text", "a\033P+q544e\033\\b", "ab@1,3"},
    {"DCS: BEL does not end it", "a\033Pq\ax\033\\b", "ab@1,3"},
    {"APC of kitty's graphics", "a\033_Ga=T,f=100;AAAA\033\\b", "ab@1,3"},
    {"SUB ends a sequence", "a\033[31\032b", "ab@1,3"},
    {"controls within a sequence act", "ab\033[\b2Cx", "ab x@1,5"},
    {"CR within a sequence acts", "ab\033[\r2Cx", "abx@1,4"},
    {"ESC twice", "a\033\033[2Cb", "a  b@1,5"},
    {"a private marker too late voids it", "a\033[2?Cb", "ab@1,3"},
    {"a number after an intermediate voids it", "a\033[ 2Cb", "ab@1,3"},
    {"unknown private modes are nothing", "a\033[?9999h\033[?3hb", "ab@1,3"},
    {"unknown modes are nothing", "a\033[2h\033[12hb", "ab@1,3"},
    {"window operations are nothing", "a\033[8;50;50t\033[3;1;1t\033[2t\033[22;0tb", "ab@1,3"},
    {"media copy is nothing", "a\033[i\033[4i\033[?5ib", "ab@1,3"},
    {"left and right margins are not offered", "\033[?69h\033[3;5sabcdefgh", "abcdefgh@1,9"},
    {"rectangles are not offered", "abc\033[1;1;1;3$z\033[65;1;1;1;3$xd", "abcd@1,5"},
    {"DECSCA keeps from DECSED", "a\033[1\"qb\033[0\"qc\033[?2J", " b@1,4"},
    {"DECSCA keeps from DECSEL", "a\033[1\"qb\033[2\"qc\033[?2K", " b@1,4"},
    {"DECSCA keeps not from ED", "a\033[1\"qb\033[0\"q\033[2J", "@1,3"},
    {"DECSCA keeps not from EL", "a\033[1\"qb\033[0\"q\033[2K", "@1,3"},
    {"DECSCA of another number is nothing", "\033[1\"qa\033[7\"qb\033[?2J", "ab@1,3"},
    {"DECSTR ends protection", "\033[1\"qa\033[!pb\033[?2J", "a@1,3"},
    {"RIS ends protection", "\033[1\"qa\033cb\033[?2J", "@1,2"},
    {"DECCOLM, where mode 40 allows it, empties the screen", "ab\033[2;3r\033[?40h\033[?3hc\033[5;1H5\nX", "|||5| X@5,3"},
    {"DECCOLM without mode 40 is nothing", "ab\033[?3hc\033[?3ld", "abcd@1,5"},
    {"DECCOLM keeps the columns", "\033[?40h\033[?3h\033[99GX", "         X@1,10"},
    {"double lines are not offered", "a\033#3b\033#6c", "abc@1,4"},
    {"columns are not inserted or deleted", "abc\r\033[2'}\033[2'~", "abc@1,1"},
    {"kitty's keys are nothing", "a\033[>1u\033[=5;1u\033[<ub", "ab@1,3"},
    {"modifyOtherKeys is nothing", "a\033[>4;2mb\033[>4mc", "abc@1,4"},
    {"cursor shapes are no text", "a\033[5 qb\033[0 qc", "abc@1,4"},
    {"keypad modes are no text", "a\033=b\033>c", "abc@1,4"},
    {"a locking shift is nothing", "a\033nb\033oc", "abc@1,4"},
    {"ENQ is nothing", "a\005b", "ab@1,3"},
    {"DC1 and DC3 are nothing", "a\021\023b", "ab@1,3"},
    {"synchronised output shows at its end", "\033[?2026hab\033[?2026l", "ab@1,3"},
    {"bracketed paste mode is no text", "\033[?2004hab\033[?2004l", "ab@1,3"},
    {"mouse modes are no text", "\033[?1000h\033[?1002h\033[?1003h\033[?1006ha\033[?1000l", "a@1,2"},
    {"leading zeros", "\033[0003;0000004HX", "||   X@3,5"},
    {"colours of every spelling are no text", "\033[38;5;1;48:5:2;58:2::1:2:3;4:3mx\033[m", "x@1,2"},
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

static void a_search_goes_on_where_a_line_runs_on(void **state)
{
    (void)state;
    struct term_emu *t = term_emu_new(4, 10, 100, NULL, NULL);
    struct term_place at, from = {0, 0};
    int cells;
    feed(t, "see http://a.example/long/path/to.html here\r\n0123456789\r\n12\r\n\346\227\245\346\234\254\350\252\236x yz\346\227\245 end\r\n");
    assert_true(term_emu_search(t, "example/long/path/to", from, false, &at, &cells));
    assert_true(at.line == 1 && at.col == 3);
    assert_int_equal(cells, 20);
    assert_true(term_emu_search(t, "912", from, false, &at, &cells)); /* the same cells as a line that runs on */
    assert_false(term_emu_search(t, "path here", from, false, &at, &cells));
    assert_false(term_emu_search(t, "to.html\n", from, false, &at, &cells));
    assert_true(term_emu_search(t, "\346\227\245 end", (struct term_place){term_emu_end(t) - 1, 0}, true, &at, &cells));
    assert_int_equal(cells, 6);
    /* Through the whole screen's end, and a word that is longer than all there is. */
    feed(t, "\033[2J\033[Haaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_true(term_emu_search(t, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", from, false, &at, &cells));
    assert_int_equal(cells, 40);
    assert_false(term_emu_search(t, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", from, false, &at, &cells));
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
    /* Whatever the user's terminal sends for them (rxvt, the Linux console), the session's is an xterm. */
    sends(t, (struct input){.type = INPUT_KEY, .key = K_F1, .raw = "\033[11~"}, "\033OP");
    sends(t, (struct input){.type = INPUT_KEY, .key = K_F1 + 4, .raw = "\033[[E"}, "\033[15~");
    sends(t, (struct input){.type = INPUT_KEY, .key = K_HOME, .raw = "\033[7~"}, "\033OH");
    sends(t, (struct input){.type = INPUT_KEY, .key = K_F1, .mods = MOD_SHIFT, .raw = "\033[1;2P"}, "\033[1;2P");
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
        cmocka_unit_test(a_search_goes_on_where_a_line_runs_on),
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
