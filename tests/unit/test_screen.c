/* The screen: what it paints draws it again, on a terminal that knows nothing of it, whatever came before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/screen.h"

struct seen {
    char out[1 << 16], reply[1024], title[256];
    size_t nout, nreply;
};

static void on_out(const char *p, size_t len, void *arg)
{
    struct seen *s = arg;
    if (s->nout + len < sizeof s->out) {
        memcpy(s->out + s->nout, p, len);
        s->nout += len;
    }
}

static void on_reply(const char *p, size_t len, void *arg)
{
    struct seen *s = arg;
    assert_true(s->nreply + len < sizeof s->reply);
    memcpy(s->reply + s->nreply, p, len);
    s->nreply += len;
    s->reply[s->nreply] = '\0';
}

static void on_event(enum vt_event ev, const char *text, void *arg)
{
    struct seen *s = arg;
    if (ev == VT_TITLE)
        snprintf(s->title, sizeof s->title, "%s", text);
}

static const struct screen_ops ops = {on_out, on_reply, on_event};
static struct seen seen, copied;

static struct screen *make(int rows, int cols)
{
    memset(&seen, 0, sizeof seen);
    struct screen *s = screen_new(rows, cols, 1000, &ops, &seen);
    assert_non_null(s);
    return s;
}

static void feed(struct screen *s, const char *text)
{
    screen_feed(s, text, strlen(text));
}

static char *text_of(struct screen *s, unsigned scrollback)
{
    size_t len;
    char *p = screen_text(s, scrollback, &len);
    assert_non_null(p);
    assert_int_equal(strlen(p), len);
    return p;
}

static void shows(struct screen *s, unsigned scrollback, const char *expected)
{
    char *p = text_of(s, scrollback);
    assert_string_equal(p, expected);
    free(p);
}

/* Paints s on a second screen that was left in any mess: text, history and every attribute are the same, and so is
 * what a program does next. */
static void paints_itself(struct screen *s, const char *next)
{
    size_t n1, n2;
    int rows, cols;
    screen_size(s, &rows, &cols);
    memset(&copied, 0, sizeof copied);
    struct screen *t = screen_new(rows, cols, 1000, &ops, &copied);
    assert_non_null(t);
    feed(t, "mess\033(0\016\033[2;3r\033[?6h\033[?7l\033[4h\033[31;44m\033[?1003h\033[?25l\033[5 q");
    feed(t, "\033[3J");
    for (int round = 0; round < 2; round++) {
        char *paint = screen_paint(s, 1000, &n1);
        assert_non_null(paint);
        screen_feed(t, paint, n1);
        char *a = text_of(s, 1000), *b = text_of(t, 1000);
        assert_string_equal(a, b);
        free(a);
        free(b);
        char *again = screen_paint(t, 1000, &n2);
        assert_non_null(again);
        if (strcmp(again, paint) != 0) {
            size_t at = 0;
            while (again[at] == paint[at])
                at++;
            fail_msg("the paintings differ at %zu: %.300s\n-- and --\n%.300s", at, paint + (at < 60 ? 0 : at - 60),
                     again + (at < 60 ? 0 : at - 60));
        }
        assert_int_equal(n1, n2);
        free(again);
        free(paint);
        assert_string_equal(screen_title(s), screen_title(t));
        if (!next)
            break;
        feed(s, next);
        feed(t, next);
        feed(t, "\033[?1049l\033[3J"); /* history, which the second painting brings again, only the normal screen keeps */
    }
    screen_free(t);
}

static void text_and_history(void **state)
{
    struct screen *s = make(3, 20);
    (void)state;
    feed(s, "one\r\ntwo\r\nthree\r\nfour  \r\nfive");
    shows(s, 0, "three\nfour\nfive\n");
    shows(s, 1, "two\nthree\nfour\nfive\n");
    shows(s, 99, "one\ntwo\nthree\nfour\nfive\n");
    paints_itself(s, "x\r\ny");
    feed(s, "\033[3J");
    char *p = text_of(s, 99);
    assert_null(strstr(p, "one"));
    free(p);
    screen_free(s);
}

static void colours_and_attributes(void **state)
{
    struct screen *s = make(6, 40);
    (void)state;
    feed(s, "\033[1;31mbold red\033[0m \033[2mdim\033[22m \033[2;53mdim over\033[0m \033[8mhid\033[0m\r\n"
            "\033[38;5;200;48;2;1;2;3mcolours\033[m \033[4munder\033[4:3mcurly\033[21mdouble\033[24m\r\n"
            "\033[7mreverse\033[27m\033[9mstrike\033[29m\033[3mitalic\033[23m\033[5mblink\033[m\r\n"
            "\033[97;104mbright\033[m\033[44m to the end \033[K\033[m\r\n\033[35m");
    paints_itself(s, "more in the pen's colour");
    size_t len;
    char *p = screen_paint(s, 0, &len);
    assert_non_null(strstr(p, "\033[0;2;53mdim over"));
    assert_non_null(strstr(p, "\033[0;38;5;200;48;2;1;2;3mcolours"));
    assert_non_null(strstr(p, "\033[0;4:3mcurly"));
    free(p);
    screen_free(s);
}

static void wide_and_combining(void **state)
{
    struct screen *s = make(4, 10);
    (void)state;
    feed(s, "\xe4\xb8\xad\xe6\x96\x87 e\xcc\x81" "a\xcc\x88\xcc\x84z\r\n123456789\xe4\xb8\xad\r\n\033[4;3H\xcc\x81");
    paints_itself(s, "\xe4\xb8\xad");
    screen_free(s);
}

/* A full line leaves the wrap pending: the next character must go to the next line on the painted screen, too. */
static void pending_wrap(void **state)
{
    static const char *const before[] = {"1234567890", "1234567890\033[m", "12345678\xe4\xb8\xad", "1234567890\033[31m",
                                         "123456789", "1234567890\r", "123456789e\xcc\x81",
                                         "\033[4;1H1234567890", "123456789\033[7mx"};
    (void)state;
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        struct screen *s = make(4, 10);
        feed(s, before[i]);
        paints_itself(s, "X");
        screen_free(s);
    }
}

static void alternate_screen(void **state)
{
    struct screen *s = make(4, 20);
    (void)state;
    feed(s, "\033]2;shell\ashell$ \033[32mvim\033[m\r\nunder\033[?1049h\033[2J\033[Hvim's text\033[1;4r\033[2;3H");
    shows(s, 0, "vim's text\n\n\n\n");
    paints_itself(s, "\033[?1049lback"); /* what lay beneath comes back on the painted terminal as well */
    shows(s, 0, "shell$ vim\nunderback\n\n\n");
    paints_itself(s, NULL);
    feed(s, "\033[?47hother\033c");
    shows(s, 0, "\n\n\n\n");
    paints_itself(s, NULL);
    screen_free(s);
}

static void modes_and_margins(void **state)
{
    struct screen *s = make(8, 20);
    (void)state;
    feed(s, "1\r\n2\r\n3\r\n4\r\n5\r\n6\033[?1h\033=\033[?1002;1006;2004;1004h\033[?25l\033[4 q\033[3;6r\033[4;2H\0337\033[5;5H");
    paints_itself(s, "a\n\n\n\nb");
    feed(s, "\033[?6h\033[2;2H");
    paints_itself(s, "c\033[1;1Hd\0338e");
    feed(s, "\033[?6l\033[r\033[4h\033[Hins");
    paints_itself(s, "ert");
    feed(s, "\033[4l\033(0lqk");
    paints_itself(s, "x");
    feed(s, "\033(B\033)0\016qqq");
    paints_itself(s, "x\017x");
    feed(s, "\033[!p\033[?25h");
    paints_itself(s, "x");
    screen_free(s);
}

static void resizing(void **state)
{
    static const int sizes[][2] = {{2, 2}, {5, 10}, {24, 80}, {3, 80}, {24, 5}, {0, 0}, {-7, 99999}, {10, 20}};
    struct screen *s = make(24, 80);
    (void)state;
    for (int i = 0; i < 30; i++)
        feed(s, "\033[3mline of text \xe4\xb8\xad that is long\033[m\r\n");
    feed(s, "\0337\033[2;2H"); /* cursor near the top, text below: rows shrink under it */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int rows, cols;
        screen_resize(s, sizes[i][0], sizes[i][1]);
        screen_size(s, &rows, &cols);
        assert_true(rows >= 2 && cols >= 2 && rows <= SCREEN_ROWS_MAX && cols <= SCREEN_COLS_MAX);
        feed(s, "x\0338y\xe4\xb8\xad\r\n");
        feed(s, "\033[?1049h\033[99;99Hz\0337");
        screen_resize(s, rows > 2 ? rows - 1 : rows + 1, cols);
        feed(s, "\0338\033[?1049lw");
    }
    screen_resize(s, 10, 80); /* no narrower than the lines of its history, which would be folded */
    feed(s, "\033[H\033[2Jend");
    paints_itself(s, "\xe4\xb8\xad");
    screen_free(s);
}

/* The text that the cursor stands on stays with it when rows are taken away. */
static void cursor_moves_with_the_text(void **state)
{
    struct screen *s = make(6, 10);
    (void)state;
    feed(s, "1\r\n2\r\n3\r\n4\r\n5\r\n6\033[4;2H");
    screen_resize(s, 4, 10);
    feed(s, "x");
    char *p = text_of(s, 99);
    assert_non_null(strstr(p, "4x\n"));
    free(p);
    screen_free(s);
}

/* libvterm's saved pen is black on black at first: text after a stray restore would be invisible. */
static void a_restore_without_a_save_is_harmless(void **state)
{
    static const char *const strays[] = {"\0338", "\033[u", "\033[?1049l", "\033c\0338", "\033[31;44m\0337\033c\033[?1048l"};
    (void)state;
    for (size_t i = 0; i < sizeof strays / sizeof *strays; i++) {
        struct screen *s = make(3, 20);
        size_t len;
        feed(s, strays[i]);
        feed(s, "visible");
        char *p = screen_paint(s, 0, &len);
        assert_non_null(strstr(p, "\033[1;1Hvisible"));
        free(p);
        screen_free(s);
    }
}

/* vim saves the shell's cursor on its way in: a resize meanwhile must not lose it. */
static void saved_cursor_survives_a_resize(void **state)
{
    struct screen *s = make(10, 20);
    (void)state;
    feed(s, "one\r\ntwo\033[?1049h\033[8;8Hvim");
    screen_resize(s, 9, 20);
    feed(s, "\033[?1049l!");
    shows(s, 0, "one\ntwo!\n\n\n\n\n\n\n\n");
    screen_free(s);
}

static void answers_with_its_own_state(void **state)
{
    struct screen *s = make(5, 10);
    (void)state;
    feed(s, "\033[3;4H\033[6n\033[18t");
    assert_string_equal(seen.reply, "\033[3;4R\033[8;5;10t");
    assert_null(memchr(seen.out, 'n', seen.nout));
    feed(s, "\033]2;name\a");
    assert_string_equal(seen.title, "name");
    screen_free(s);
}

static void history_is_bounded(void **state)
{
    struct screen *s = screen_new(2, 100, 50, &ops, &seen);
    (void)state;
    assert_non_null(s);
    for (int i = 0; i < 1000; i++) {
        char line[32];
        snprintf(line, sizeof line, "%d\r\n", i);
        feed(s, line);
    }
    char *p = text_of(s, 1000);
    assert_memory_equal(p, "949\n950\n", 8);
    free(p);
    screen_free(s);
}

/* What a program prints, made up of everything that moves, erases, colours and wraps. */
static void random_streams_paint_themselves(void **state)
{
    static const char *const parts[] = {
        "text",       "wide \xe4\xb8\xad\xe6\x96\x87", "e\xcc\x81", "\r\n",       "\n",          "\r",        "\t",
        "\033[31m",   "\033[1;2m",   "\033[7m",   "\033[m",     "\033[48;5;99m", "\033[K",     "\033[1K",   "\033[J",
        "\033[H",     "\033[5;9H",   "\033[3A",   "\033[2B",    "\033[7C",       "\033[4D",    "\033[2L",   "\033[2M",
        "\033[3P",    "\033[2@",     "\033[5X",   "\033[2;7r",  "\033[r",        "\033[2S",    "\033[T",    "\033M",
        "\0337",      "\0338",       "\033[?25l", "\033[?25h",  "\033[?2004h",   "\033[?1049h", "\033[?1049l", "\033[9b",
        "1234567890123456789012345678901234567890"};
    unsigned seed = 7;
    (void)state;
    for (int round = 0; round < 400; round++) {
        struct screen *s = make(10, 40);
        for (int i = 0; i < 60; i++) {
            seed = seed * 1103515245u + 12345u;
            feed(s, parts[(seed >> 16) % (sizeof parts / sizeof *parts)]);
        }
        paints_itself(s, "next\xe4\xb8\xad");
        screen_free(s);
    }
}

/* Floods take a way of their own to the scrollback: text and painting are the same as of small pieces. */
static void a_flood_is_the_same_as_small_pieces(void **state)
{
    (void)state;
    static const char *const pieces[] = {"plain text ", "\033[31mred ", "\033[1;4mbold", "\033[0m", "\t", "\xe6\xbc\xa2\xe5\xad\x97", "\xf0\x9f\x9b\x95 ", "\xc3\xa9",
                                         "\033[38;2;1;2;3mrgb\033[39m", "a rather long piece of text ", "\033[48;5;20mbg\033[49m", "  ", "\r\n", "\r\n"};
    unsigned seed = 3;
    for (int round = 0; round < 30; round++) {
        struct screen *fast = make(7, 20 + round), *slow = make(7, 20 + round);
        static char text[120000];
        size_t n = 0, len[2];
        while (n < 100000) {
            seed = seed * 1103515245u + 12345u;
            const char *p = pieces[(seed >> 16) % (sizeof pieces / sizeof *pieces)];
            memcpy(text + n, p, strlen(p));
            n += strlen(p);
        }
        screen_feed(fast, text, n);
        for (size_t i = 0; i < n; i += 900) {
            screen_feed(slow, text + i, n - i < 900 ? n - i : 900);
            free(screen_text(slow, 0, &len[1]));
        }
        char *a = screen_paint(fast, 1000, &len[0]), *b = screen_paint(slow, 1000, &len[1]);
        assert_int_equal(len[0], len[1]);
        assert_memory_equal(a, b, len[0]);
        free(a);
        free(b);
        screen_free(fast);
        screen_free(slow);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_is_the_same_as_small_pieces),
        cmocka_unit_test(text_and_history),
        cmocka_unit_test(colours_and_attributes),
        cmocka_unit_test(wide_and_combining),
        cmocka_unit_test(pending_wrap),
        cmocka_unit_test(alternate_screen),
        cmocka_unit_test(modes_and_margins),
        cmocka_unit_test(resizing),
        cmocka_unit_test(cursor_moves_with_the_text),
        cmocka_unit_test(a_restore_without_a_save_is_harmless),
        cmocka_unit_test(saved_cursor_survives_a_resize),
        cmocka_unit_test(answers_with_its_own_state),
        cmocka_unit_test(history_is_bounded),
        cmocka_unit_test(random_streams_paint_themselves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
