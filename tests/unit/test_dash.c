#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ui/backdrop.h"
#include "ui/dash/attention.h"
#include "ui/dash/edit.h"
#include "ui/dash/input.h"
#include "ui/dash/keymap.h"
#include "ui/dash/theme.h"

/* ---- input ---- */

static char seen[8192];

static void note(const struct input *in, void *arg)
{
    char name[32];
    size_t n = strlen(seen);
    (void)arg;
    switch (in->type) {
    case INPUT_KEY:
        input_key_name(in->key, in->mods, name, sizeof name);
        snprintf(seen + n, sizeof seen - n, "%s ", in->key == K_UNKNOWN ? "unknown" : name);
        break;
    case INPUT_MOUSE:
        snprintf(seen + n, sizeof seen - n, "mouse:%d,%d,%d,%d ", (int)in->mouse, in->button, in->x, in->y);
        break;
    case INPUT_PASTE:
        snprintf(seen + n, sizeof seen - n, "paste%s%s:%.*s ", in->paste_begin ? "(" : "", in->paste_end ? ")" : "", (int)in->raw_len, in->raw);
        break;
    case INPUT_FOCUS:
        snprintf(seen + n, sizeof seen - n, "focus:%d ", (int)in->focus_in);
        break;
    case INPUT_REPLY:
        snprintf(seen + n, sizeof seen - n, "reply ");
        break;
    }
}

/* What comes of bytes, however they are cut into reads. */
static const char *events(const char *bytes)
{
    static char whole[8192];
    size_t len = strlen(bytes);
    for (int cut = 0; cut < 2; cut++) {
        struct input_decoder *d = input_new(note, NULL);
        seen[0] = '\0';
        for (size_t i = 0; i < len; i += cut ? 1 : len)
            input_feed(d, bytes + i, cut ? 1 : len);
        input_flush(d);
        input_free(d);
        if (cut == 0)
            memcpy(whole, seen, sizeof whole);
    }
    /* A paste may come in pieces; everything else is the same. */
    if (!strstr(bytes, "\033[200~"))
        assert_string_equal(whole, seen);
    return whole;
}

static const struct input *pressed(uint32_t key, unsigned mods)
{
    static struct input in;
    in = (struct input){.type = INPUT_KEY, .key = key, .mods = mods};
    return &in;
}

static void test_what_leaves(void **state)
{
    (void)state;
    assert_true(input_leaves(pressed(K_ESC, 0)));
    assert_true(input_leaves(pressed('c', MOD_CTRL)));
    assert_true(input_leaves(pressed('g', MOD_CTRL)));
    assert_false(input_leaves(pressed('c', 0)));
    assert_false(input_leaves(pressed('d', MOD_CTRL)));
    assert_false(input_leaves(&(struct input){.type = INPUT_PASTE, .key = K_ESC}));
    /* As they come, whatever can be left is left by them as by Escape. */
    struct err e = {0};
    struct keymap *k = keymap_load(&e);
    assert_non_null(k);
    static const char *const contexts[] = {"form", "rule", "ask", "confirm", "welcome", "details", "overlay", "rules", "secrets", "settings"};
    for (size_t i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        const char *leave = keymap_action(k, contexts[i], K_ESC, 0);
        assert_non_null(leave);
        for (const char *key = "cg"; *key; key++) {
            const char *same = keymap_action(k, contexts[i], (uint32_t)*key, MOD_CTRL);
            if (!same || strcmp(same, leave) != 0)
                fail_msg("Ctrl-%c in [%s] is %s, not %s", *key, contexts[i], same ? same : "nothing", leave);
        }
    }
    keymap_free(k);
}

static void test_keys(void **state)
{
    (void)state;
    assert_string_equal(events("a"), "a ");
    assert_string_equal(events("\r\t\177"), "Enter Tab Bksp ");
    assert_string_equal(events("\023\003"), "Ctrl-S Ctrl-C ");
    assert_string_equal(events("\035"), "Ctrl-] ");
    assert_string_equal(events("\303\244\360\237\230\200"), "\303\244 \360\237\230\200 ");
    assert_string_equal(events("\033[A\033OB\033[1;5C"), "\xe2\x86\x91 \xe2\x86\x93 Ctrl-\xe2\x86\x92 ");
    assert_string_equal(events("\033[Z\033[3~\033[15~\033OP"), "Shift-Tab Del F5 F1 ");
    assert_string_equal(events("\033[[A\033[[E\033[[Zx"), "F1 F5 unknown x "); /* the Linux console's */
    assert_string_equal(events("\033x"), "Alt-x ");
    assert_string_equal(events("\033"), "Esc ");
    assert_string_equal(events("\033\033"), "Esc Esc ");
    assert_string_equal(events("\033[27;2;13~"), "Shift-Enter ");
    assert_string_equal(events("\033[13;2u"), "Shift-Enter ");
    assert_string_equal(events("\033[99~"), "unknown ");
    assert_string_equal(events("\033[97u\033[97;5u\033[57441u\033[1114112u\033[55296u"), "a Ctrl-A unknown unknown unknown ");
}

static void test_mouse_beyond_column_223(void **state)
{
    (void)state;
    assert_string_equal(events("\033[<0;300;120M"), "mouse:0,1,299,119 ");
    assert_string_equal(events("\033[<0;1;1m"), "mouse:1,1,0,0 ");
    assert_string_equal(events("\033[<64;5;6M\033[<65;5;6M"), "mouse:4,-1,4,5 mouse:4,1,4,5 ");
    assert_string_equal(events("\033[<0;0;0M"), "");
}

/* The terminal's own answers are no keys: they must never reach an agent as typed text. */
static void test_replies_are_not_keys(void **state)
{
    (void)state;
    assert_string_equal(events("\033[?62;4c\033[>41;354;0c\033[12;40R\033[?2026;2$y"), "reply reply reply reply ");
    assert_string_equal(events("\033]11;rgb:1e1e/2e2e/3e3e\033\\\033P>|iTerm2 3.6\033\\"), "reply reply ");
    assert_string_equal(events("\033[I\033[O"), "focus:1 focus:0 ");
}

static void test_pastes(void **state)
{
    (void)state;
    assert_string_equal(events("\033[200~two\nlines\033[201~x"), "paste():two\nlines x ");
    assert_string_equal(events("\033[200~a\033[201~\033[201~b"), "paste():a b ");
    /* What a paste holds is text, a key never. */
    assert_string_equal(events("\033[200~\033[A\003q\033[201~"), "paste():\033[A\003q ");
    struct input_decoder *d = input_new(note, NULL);
    seen[0] = '\0';
    /* A character that is cut between two reads stays whole, so that whoever looks for controls finds it. */
    input_feed(d, "\033[200~z\xc2", 8);
    assert_string_equal(seen, "paste(:z ");
    input_feed(d, "\x9b", 1);
    input_feed(d, "\033[201~", 6);
    assert_string_equal(seen, "paste(:z paste:\xc2\x9b paste): ");
    seen[0] = '\0';
    input_feed(d, "\033[200~a", 7);
    input_flush(d); /* no timer ends a paste */
    input_feed(d, "b\033[20", 5);
    input_feed(d, "1~", 2);
    assert_string_equal(seen, "paste(:a paste:b paste): ");
    input_free(d);
}

static void test_nonsense_is_bounded(void **state)
{
    (void)state;
    struct input_decoder *d = input_new(note, NULL);
    seen[0] = '\0';
    input_feed(d, "\033]", 2);
    for (int i = 0; i < 100000; i++)
        input_feed(d, "x", 1);
    input_feed(d, "\033", 1);
    input_feed(d, "\\", 1);
    assert_string_equal(seen, ""); /* an answer that is too long is dropped whole, not typed */
    for (int i = 0; i < 5000; i++)
        input_feed(d, i ? "x" : "\033P", i ? 1 : 2);
    assert_true(input_pending(d));
    input_flush(d); /* a pause ends one that has no end */
    input_feed(d, "k", 1);
    assert_string_equal(seen, "k ");
    static const char bad[] = "\033[999999999999999999;99999999999999999999M\377\300z";
    input_feed(d, bad, sizeof bad - 1);
    input_flush(d);
    assert_non_null(strstr(seen, "z "));
    input_free(d);
}

/* ---- keys as data ---- */

static void test_keymap(void **state)
{
    struct keymap *k = keymap_new();
    struct err e = {0};
    (void)state;
    assert_int_equal(keymap_parse(k, "# words\n[list]\nj list.down down\nk list.up up\n\\# list.hash number\n[sandboxes]\nr sandbox.remove !remove\nctrl-S form.submit save\n", "ours", &e), 0);
    assert_string_equal(keymap_action(k, "list", 'j', 0), "list.down");
    assert_string_equal(keymap_action(k, "list", '#', 0), "list.hash");
    assert_null(keymap_action(k, "sandboxes", 'j', 0));
    assert_string_equal(keymap_action(k, "sandboxes", 's', MOD_CTRL), "form.submit");
    assert_true(keymap_at(k, "sandboxes", 0)->hint);
    /* The user's file: another key with the note that the action has, a key taken away, a key replaced. */
    assert_int_equal(keymap_parse(k, "[sandboxes]\ndel sandbox.remove\nr none\n[list]\nj list.up back\n", "theirs", &e), 0);
    assert_null(keymap_action(k, "sandboxes", 'r', 0));
    assert_string_equal(keymap_action(k, "sandboxes", K_DELETE, 0), "sandbox.remove");
    assert_string_equal(keymap_action(k, "list", 'j', 0), "list.up");
    keymap_free(k);
    k = keymap_new();
    assert_int_equal(keymap_parse(k, "[list]\nno-such-key list.down\nj list.down\n", "bad", &e), -1);
    keymap_free(k);
    k = keymap_new();
    assert_int_equal(keymap_parse(k, "[sandboxes]\nr sandbox.remove\n[list]\nk list.up\nj list.down\n", "ours", &e), 0);
    static const struct {
        const char *text, *says;
    } bad[] = {{"[nowhere]\n", "f, line 1: there is no context [nowhere]"}, {"[list\n", "line 1: there is no context [list"}, {"\n[list]\nx list.fly\n", "line 3: there is no action \"list.fly\""},
               {"[list]\nf7\n", "line 2: what shall the key f7 do?"}, {"[list]\nx list.up\nx list.down\n", "line 3: the key x has an action in [list] already"},
               {"[list]\nf7\nf8\nf9\n", "(and 2 more of its lines)"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err told = {0};
        assert_int_equal(keymap_parse(k, bad[i].text, "f", &told), -1);
        if (!strstr(told.text, bad[i].says))
            fail_msg("%s: %s", bad[i].text, told.text);
    }
    struct err fine = {0};
    assert_int_equal(keymap_parse(k, "[list]\r\nx list.down\r\n[sandboxes]\nx sandbox.remove\nr none\n", "f", &fine), 0); /* another context; another system's lines */
    assert_non_null(strstr(e.text, "bad, line 2"));
    assert_string_equal(keymap_action(k, "list", 'j', 0), "list.down");
    keymap_free(k);
}

static void test_names_of_keys_come_back(void **state)
{
    static const char *const names[] = {"c", "C", "?", "ctrl-s", "alt-enter", "shift-tab", "pgup", "f12", "space", "esc", "\303\244"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint32_t key, again;
        unsigned mods, more;
        char shown[24];
        assert_true(input_parse_key(names[i], &key, &mods));
        input_key_name(key, mods, shown, sizeof shown);
        assert_true(input_parse_key(shown, &again, &more));
        assert_int_equal(key, again);
        assert_int_equal(mods, more);
    }
    uint32_t key;
    unsigned mods;
    assert_false(input_parse_key("f13", &key, &mods));
    assert_false(input_parse_key("ctrl-", &key, &mods) && key > 127);
    assert_false(input_parse_key("two", &key, &mods));
    assert_false(input_parse_key("", &key, &mods));
}

/* ---- colours ---- */

static void test_colours(void **state)
{
    (void)state;
    assert_int_equal(theme_to_256(0x000000), 16);
    assert_int_equal(theme_to_256(0xffffff), 231);
    assert_int_equal(theme_to_256(0xff0000), 196);
    assert_int_equal(theme_to_256(0x808080), 244);
    assert_int_equal(theme_to_16(0xff0000), 9);
    assert_int_equal(theme_to_16(0x000000), 0);
    assert_int_equal(theme_to_8(0x8792a3), 7); /* faint, and yet it is seen */
    assert_int_equal(theme_to_8(0x0d1117), 0);
    assert_int_equal(theme_to_8(0xff6b6b), 1);
    assert_int_equal(theme_to_8(0x5ac8fa), 6);
    assert_int_equal(theme_to_8(0xffb454), 3);
    assert_int_equal(theme_to_8(0x2a4d6e), 4);
    assert_int_equal(theme_to_8(0x0a6ebd), 4);
}

static double luminance(unsigned rgb)
{
    double sum = 0;
    static const double weight[] = {0.2126, 0.7152, 0.0722};
    for (int i = 0; i < 3; i++) {
        double v = (rgb >> (16 - 8 * i) & 255u) / 255.0;
        sum += weight[i] * (v <= 0.03928 ? v / 12.92 : pow((v + 0.055) / 1.055, 2.4));
    }
    return sum;
}

/* What WCAG asks for: 4.5 of whatever is read, 7 in the theme for high contrast, 3 of lines. */
static void test_contrast(void **state)
{
    static const char *const names[] = {"dark", "light", "contrast"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char path[64], line[200], style[32], fg[16], bg[16];
        unsigned f, b, text_bg = 0, n = 0;
        snprintf(path, sizeof path, "assets/themes/%s.theme", names[i]);
        FILE *file = fopen(path, "re");
        assert_non_null(file);
        while (fgets(line, sizeof line, file)) {
            if (line[0] == '#' || sscanf(line, "%31s = %15s %15s", style, fg, bg) != 3)
                continue;
            assert_int_equal(sscanf(fg, "#%6x", &f), 1);
            if (strcmp(bg, "-") == 0)
                b = text_bg;
            else
                assert_int_equal(sscanf(bg, "#%6x", &b), 1);
            text_bg = strcmp(style, "text") == 0 ? b : text_bg;
            double l = luminance(f), k = luminance(b), ratio = l > k ? (l + 0.05) / (k + 0.05) : (k + 0.05) / (l + 0.05);
            double least = strcmp(style, "bar.empty") == 0 ? 1.5 : strncmp(style, "frame", 5) == 0 ? 3 : i == 2 ? 7 : 4.5;
            if (ratio < least)
                fail_msg("%s: %s has a contrast of %.1f, not %.1f", names[i], style, ratio, least);
            n++;
        }
        assert_int_equal(n, ST_COUNT);
        fclose(file);
    }
}

static void test_backdrop(void **state)
{
    static const struct {
        const char *bytes;
        int light;
    } cases[] = {{"\033]11;rgb:0d0d/1111/1717\033\\", 0}, {"\033]11;rgb:fafa/fafa/f8f8\a", 1}, {"\033]11;rgb:f/f/f\a", 1}, {"\033]11;rgba:ff/ff/ff/ff\a", 1},
                 {"\033[?62c", -1}, {"\033]11;rgb:12345/0/0\a", -1}, {"\033]11;rgb:ff/ff", -1}, {"\033]11;red\a", -1}, {"", -1}, {"x\033]11;rgb:00/00/80\a", 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(backdrop_answer(cases[i].bytes, strlen(cases[i].bytes)), cases[i].light);
    static const struct {
        const char *value;
        int light;
    } vars[] = {{"15;0", 0}, {"0;15", 1}, {"0;default;15", 1}, {"7;8", 0}, {"0;7", 1}, {"x", -1}, {"15;", -1}, {"0;x", -1}};
    for (size_t i = 0; i < sizeof vars / sizeof *vars; i++) {
        setenv("COLORFGBG", vars[i].value, 1);
        assert_int_equal(backdrop_light(), vars[i].light);
    }
    assert_null(backdrop_colours());
    unsetenv("COLORFGBG");
    assert_int_equal(backdrop_light(), -1);
}

/* ---- who waits ---- */

static struct attention judge(const char *agent, const char *sessions)
{
    struct attention at;
    json_t *o = json_loads(sessions, 0, NULL);
    assert_non_null(o);
    attention_judge(agent, o, &at);
    json_decref(o);
    return at;
}

static void test_attention(void **state)
{
    (void)state;
    struct attention at = judge("shell", "[{\"session\": 3, \"tty\": true, \"agent\": true, \"bell\": true, \"title\": \"\", \"quiet_ms\": 10}]");
    assert_true(at.waits && at.rang);
    assert_int_equal(at.session, 3);
    at = judge("shell", "[{\"session\": 3, \"tty\": true, \"agent\": true, \"bell\": false, \"title\": \"vim\", \"quiet_ms\": 10}]");
    assert_false(at.waits || at.ended);
    at = judge("shell", "[{\"session\": 3, \"tty\": true, \"agent\": true, \"status\": 7}]");
    assert_true(at.ended);
    assert_non_null(strstr(at.why, "status 7"));
    /* What a notification says is better than that there was one. */
    at = judge("shell", "[{\"session\": 3, \"tty\": true, \"bell\": true, \"notice\": \"Permission\\u001b[31m needed\"}]");
    assert_true(at.waits && !at.rang);
    assert_non_null(strstr(at.why, "needed"));
    assert_null(strchr(at.why, '\033'));
    at = judge("claude", "[{\"session\": 3, \"tty\": true, \"agent\": true, \"bell\": false, \"title\": \"\u2733 Fix the parser\", \"quiet_ms\": 10}]");
    assert_true(at.waits);
    assert_non_null(strstr(at.why, "Fix the parser"));
    at = judge("claude", "[{\"session\": 3, \"tty\": true, \"agent\": true, \"bell\": false, \"title\": \"\u2802 Fix the parser\", \"quiet_ms\": 3000}]");
    assert_true(!at.waits && at.look_at_screen && at.quiet_ms == 3000);
    char asks[96];
    assert_true(attention_prompt("claude", "Bash command\n\nDo you want to proceed?\n \u276f 1. Yes\n   2. No\n", asks, sizeof asks));
    assert_true(attention_prompt("shell", "$ rm -i x\nremove it (y/n)?  \n\n", asks, sizeof asks));
    assert_string_equal(asks, "remove it (y/n)?");
    assert_false(attention_prompt("shell", "remove it [y/N] y\n$ \n", asks, sizeof asks));
    at = judge("shell", "[{\"session\": 3, \"tty\": false, \"agent\": false, \"bell\": true}]");
    assert_false(at.waits);
    /* Nonsense of a supervisor's that was taken over. */
    at = judge("shell", "[{\"session\": \"x\", \"tty\": 1, \"title\": 4}, 5, null, [], {\"tty\": true, \"bell\": true, \"title\": {}}]");
    assert_true(at.waits);
    at = judge("../../etc/passwd", "[{\"tty\": true, \"title\": \"x\"}]");
    assert_false(at.waits);
}

static void test_what_a_screen_asks(void **state)
{
    char why[40];
    (void)state;
    assert_true(attention_last_line("$ make\nDeploy now? [y/N] \n\n   \n", why, sizeof why));
    assert_string_equal(why, "Deploy now? [y/N]");
    assert_false(attention_last_line(" \n\n", why, sizeof why));
    assert_false(attention_last_line("", why, sizeof why));
    assert_true(attention_last_line("\033]0;evil\007\033[31mred", why, sizeof why));
    assert_null(strchr(why, '\033'));
    assert_null(strchr(why, '\007'));
    char big[5000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    assert_true(attention_last_line(big, why, sizeof why));
    assert_true(strlen(why) < sizeof why);
}

/* ---- texts that are typed ---- */

static char typed[64];
static struct edit_cut cut;
static struct edit edited;

static void edit_event(const struct input *in, void *arg)
{
    (void)arg;
    if (in->type == INPUT_PASTE)
        edit_paste(&edited, in, edited.cut != NULL);
    else
        edit_key(&edited, in);
}

/* What stands there after bytes as a terminal sends them, with the cursor as "|". */
static const char *edits(const char *bytes)
{
    static char shown[80];
    struct input_decoder *d = input_new(edit_event, NULL);
    input_feed(d, bytes, strlen(bytes));
    input_flush(d);
    input_free(d);
    snprintf(shown, sizeof shown, "%.*s|%s", (int)edited.at, typed, typed + edited.at);
    return shown;
}

static const char *fresh(const char *bytes)
{
    memset(&cut, 0, sizeof cut);
    typed[0] = '\0';
    edited = (struct edit){.text = typed, .cap = sizeof typed, .cut = &cut, .parts = " /"};
    return edits(bytes);
}

static void test_texts_are_edited_as_in_a_shell(void **state)
{
    (void)state;
    assert_string_equal(fresh("one two/three"), "one two/three|");
    assert_string_equal(edits("\001"), "|one two/three");
    assert_string_equal(edits("\006\006\002"), "o|ne two/three");
    assert_string_equal(edits("\033f"), "one| two/three");
    assert_string_equal(edits("\033[1;5C"), "one two|/three");
    assert_string_equal(edits("\033[1;3D"), "one |two/three");
    assert_string_equal(edits("\033d"), "one |/three");
    assert_string_equal(edits("\004\033[3~"), "one |hree");
    assert_string_equal(edits("\013"), "one |");
    assert_string_equal(edits("\031\031"), "one hreehree|");
    assert_string_equal(edits("\033[H\033[F\033b"), "one |hreehree");
    assert_string_equal(edits("\033\177"), "|hreehree");
    assert_string_equal(edits("\033[3;5~"), "|");
    assert_string_equal(edits("\031"), "one hreehree|"); /* what was cut in one go is one */
    assert_string_equal(fresh("/a/bc/d e\027\027"), "/a/bc/|");
    assert_string_equal(edits("\025\031x\031"), "/a/bc/d ex/a/bc/d e|");
    assert_string_equal(fresh("\177\033[3~\033[D\033[C\013\031\027\033b\033f\033d"), "|");
    assert_string_equal(edits("\033Oq\033Ok\033z\007\033[15~"), "1+|"); /* the keypad; keys of nobody */
    edited.cut = NULL;
    assert_string_equal(edits("\025\031"), "|"); /* of a secret nothing is kept */
    assert_string_equal(cut.text, "");
}

static void test_characters_stay_whole_and_are_seen(void **state)
{
    (void)state;
    assert_string_equal(fresh("e\xcc\x81\xe6\x97\xa5\xf0\x9f\x98\x80"), "e\xcc\x81\xe6\x97\xa5\xf0\x9f\x98\x80|");
    assert_string_equal(edits("\033[D\033[D"), "e\xcc\x81|\xe6\x97\xa5\xf0\x9f\x98\x80");
    assert_string_equal(edits("\033[3~\177"), "|\xf0\x9f\x98\x80"); /* the mark goes with its letter */
    assert_string_equal(fresh("\033[200~a\nb\r\n\tc\033[31m\x07\xe2\x80\xae\xc2\x9b" "d\xff\n\033[201~"), "a b c[31md|");
    edited.cut = NULL;
    assert_string_equal(edits("\025\033[200~sk-\n1234\r\n\033[201~"), "sk-1234|");
    fresh("");
    for (int i = 0; i < 40; i++)
        edits("\xe6\x97\xa5");
    assert_int_equal(strlen(typed), sizeof typed - 1 - (sizeof typed - 1) % 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_leaves), cmocka_unit_test(test_keys), cmocka_unit_test(test_mouse_beyond_column_223), cmocka_unit_test(test_replies_are_not_keys),
        cmocka_unit_test(test_pastes), cmocka_unit_test(test_texts_are_edited_as_in_a_shell), cmocka_unit_test(test_characters_stay_whole_and_are_seen), cmocka_unit_test(test_nonsense_is_bounded), cmocka_unit_test(test_keymap),
        cmocka_unit_test(test_names_of_keys_come_back), cmocka_unit_test(test_colours), cmocka_unit_test(test_contrast), cmocka_unit_test(test_backdrop), cmocka_unit_test(test_attention),
        cmocka_unit_test(test_what_a_screen_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
