/* net/scrub: what a secret's host sends back never shows the secret. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "net/scrub.h"

static const char value[] = "sk-ant-api03-Qx7+R/2_bC-zz90aabbaabb";
static const char sentinel[] = "sk-ant-api03-Lm4+K/8_pD-qq13ccddccdd";

static struct scrub_set *one(void)
{
    struct scrub_set *set = scrub_set_new();
    assert_true(scrub_set_add(set, value, sentinel));
    assert_true(scrub_set_ready(set));
    return set;
}

/* Feeds it in pieces of the given size (0: at random). */
static size_t run(struct scrub_set *set, const uint8_t *in, size_t n, size_t piece, uint8_t *out)
{
    struct scrub *s = scrub_new(set);
    size_t done = 0, at = 0;
    while (at < n) {
        size_t k = piece ? piece : (size_t)rand() % 40;
        k = k > n - at ? n - at : k;
        uint8_t room[70000];
        size_t got = scrub_feed(s, in + at, k, room);
        memcpy(out + done, room, got);
        done += got;
        at += k;
        assert_true(scrub_held(s) < scrub_set_hold(set));
    }
    done += scrub_end(s, out + done);
    scrub_free(s);
    return done;
}

static void check_gone(const char *in, size_t n, const char *hidden)
{
    struct scrub_set *set = one();
    uint8_t whole[8192], cut[8192];
    assert_int_equal(run(set, (const uint8_t *)in, n, n, whole), n);
    if (memmem(whole, n, hidden, strlen(hidden)))
        fail_msg("\"%s\" is still in \"%.*s\"", hidden, (int)n, (char *)whole);
    for (size_t piece = 1; piece <= n; piece++) {
        assert_int_equal(run(set, (const uint8_t *)in, n, piece, cut), n);
        assert_memory_equal(whole, cut, n);
    }
    scrub_set_unref(set);
}

static void threat_65_every_spelling_and_split(void **state)
{
    (void)state;
    char text[4096], coded[512];
    snprintf(text, sizeof text, "{\"authorization\": \"Bearer %s\", \"again\":\"%s%s\"} s sk- sk-ant-", value, value, value);
    check_gone(text, strlen(text), value);
    for (int pad = 0; pad < 6; pad++)
        for (int url = 0; url < 2; url++) {
            unsigned char plain[128];
            int len = snprintf((char *)plain, sizeof plain, "%.*s%s and more", pad, "user:x", value);
            sodium_bin2base64(coded, sizeof coded, plain, (size_t)len, url ? sodium_base64_VARIANT_URLSAFE : sodium_base64_VARIANT_ORIGINAL);
            snprintf(text, sizeof text, "Basic %s.", coded);
            /* The characters of its middle, which no alignment shares with another. */
            char middle[17];
            snprintf(middle, sizeof middle, "%.16s", coded + 16);
            check_gone(text, strlen(text), middle);
        }
    static const char *const spelt[] = {
        "sk-ant-api03-Qx7%2BR%2F2_bC-zz90aabbaabb", "sk-ant-api03-Qx7%2bR%2f2_bC-zz90aabbaabb", "sk-ant-api03-Qx7+R\\/2_bC-zz90aabbaabb",
        "sk-ant-api03-Qx7\\u002BR/2_bC-zz90aabbaabb"};
    for (size_t i = 0; i < sizeof spelt / sizeof *spelt; i++) {
        snprintf(text, sizeof text, "a=%s&b=%s", spelt[i], spelt[i]);
        check_gone(text, strlen(text), spelt[i]);
    }
    for (int how = 0; how < 4; how++) {
        size_t n = 0;
        for (const char *c = value; *c; c++) {
            unsigned char u = (unsigned char)*c;
            char *at = coded + n;
            size_t room = sizeof coded - n;
            n += (size_t)(how == 0   ? snprintf(at, room, "%%%02X", u)
                          : how == 1 ? snprintf(at, room, "%%%02x", u)
                          : how == 2 ? snprintf(at, room, "\\u%04X", u)
                                     : snprintf(at, room, "\\u%04x", u));
        }
        snprintf(text, sizeof text, "x%sy", coded);
        check_gone(text, strlen(text), coded);
    }
}

/* What encoders write that expect their JSON within HTML. */
static void threat_65_wary_json(void **state)
{
    static const char *const spelt[] = {"pw-a\\u003cb\\u0026c\\u003e0+123'45", "pw-a\\u003Cb\\u0026c\\u003E0\\u002B123\\u002745"};
    struct scrub_set *set = scrub_set_new();
    (void)state;
    assert_true(scrub_set_add(set, "pw-a<b&c>0+123'45", "pw-x<y&z>9+876'54"));
    assert_true(scrub_set_ready(set));
    for (size_t i = 0; i < 2; i++) {
        char text[100];
        size_t n = (size_t)snprintf(text, sizeof text, "{\"key\":\"%s\"}", spelt[i]);
        assert_true(scrub_text(set, text, n));
        assert_null(strstr(text, spelt[i]));
        assert_non_null(strstr(text, "pw-x\\u003"));
        assert_int_equal(strlen(text), n);
    }
    scrub_set_unref(set);
}

/* What is searched alone is found in each spelling, in the piece that holds its last byte, wherever it is cut. */
static void threat_64_a_search_of_every_spelling_and_split(void **state)
{
    struct scrub_set *set = scrub_set_new();
    (void)state;
    assert_true(scrub_set_add_marked(set, sentinel, sentinel, 7));
    assert_true(scrub_set_add_marked(set, "another-0123456789", "another-0123456789", 8));
    assert_true(scrub_set_ready(set));
    char spelt[12][512] = {{0}};
    unsigned n = 0;
    snprintf(spelt[n++], 512, "%s", sentinel);
    for (int pad = 0; pad < 6; pad++) {
        char plain[128];
        int len = snprintf(plain, sizeof plain, "%.*s%s", pad % 3, "ab", sentinel);
        sodium_bin2base64(spelt[n++], 512, (unsigned char *)plain, (size_t)len, pad < 3 ? sodium_base64_VARIANT_ORIGINAL : sodium_base64_VARIANT_URLSAFE);
    }
    for (const char *c = sentinel; *c; c++) {
        snprintf(spelt[n] + strlen(spelt[n]), 8, "%%%02x", (unsigned char)*c);
        snprintf(spelt[n + 1] + strlen(spelt[n + 1]), 8, "\\u%04X", (unsigned char)*c);
    }
    n += 2;
    snprintf(spelt[n++], 512, "sk-ant-api03-Lm4%%2BK%%2F8_pD-qq13ccddccdd");
    for (unsigned i = 0; i < n; i++) {
        char text[1200];
        size_t before = (size_t)snprintf(text, sizeof text, "{\"env\": \"PATH=/bin sk-ant-api03-Lm4+K/8_pD-qq13ccddccd "), len = before + strlen(spelt[i]);
        snprintf(text + before, sizeof text - before, "%s and the rest of what is said", spelt[i]);
        size_t whole = strlen(text);
        for (size_t piece = 1; piece <= whole; piece++) {
            struct scrub_watch *w = scrub_watch_new(set);
            size_t at = 0;
            uint64_t found = 0;
            while (at < whole && !found) {
                size_t k = piece < whole - at ? piece : whole - at;
                found = scrub_watch(w, (const uint8_t *)text + at, k);
                if (!found)
                    at += k;
            }
            assert_int_equal(found, 7);
            assert_in_range(at, 0, len - 1); /* what went by is less */
            assert_true(at + piece >= len - 3); /* Base64 ends in padding, and in what others share */
            scrub_watch_free(w);
        }
    }
    struct scrub_watch *w = scrub_watch_new(set);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(scrub_watch(w, (const uint8_t *)"another-0123456788 another-012345678", 36), 0);
    assert_int_equal(scrub_watch(w, (const uint8_t *)"9", 1), 8);
    scrub_watch_free(w);
    scrub_set_unref(set);
}

static void a_telling_beginning_at_the_end_is_hidden(void **state)
{
    (void)state;
    struct scrub_set *set = one();
    uint8_t out[256];
    size_t n = run(set, (const uint8_t *)value, 30, 7, out);
    assert_int_equal(n, 30);
    assert_memory_equal(out, sentinel, 30);
    /* What every such key begins with is no secret, and stays. */
    assert_int_equal(run(set, (const uint8_t *)"ends in sk-", 11, 3, out), 11);
    assert_memory_equal(out, "ends in sk-", 11);
    scrub_set_unref(set);
}

/* Whoever makes a server end with a text of his own learns nothing by it: a right guess is answered as a wrong one is,
 * until it has more characters than can be guessed at once. */
static void threat_67_guesses_at_an_end_are_not_confirmed(void **state)
{
    (void)state;
    struct scrub_set *set = one();
    size_t shared = 0, changed = 0;
    while (value[shared] == sentinel[shared])
        shared++;
    for (size_t n = 1; n < strlen(value); n++) {
        uint8_t out[256];
        char text[256];
        assert_int_equal(run(set, (const uint8_t *)value, n, 3, out), n);
        memcpy(text, value, n);
        scrub_text(set, text, n);
        assert_memory_equal(out, text, n);
        if (memcmp(out, value, n) != 0 && !changed)
            changed = n;
    }
    assert_true(changed >= shared + SCRUB_TELLING);
    scrub_set_unref(set);
}

static void ordinary_bytes_are_unchanged_and_not_held(void **state)
{
    (void)state;
    struct scrub_set *set = one();
    struct scrub *s = scrub_new(set);
    uint8_t out[70000];
    static const char event[] = "event: message\ndata: {\"text\":\"hello\"}\n\n";
    assert_int_equal(scrub_feed(s, (const uint8_t *)event, sizeof event - 1, out), sizeof event - 1);
    assert_memory_equal(out, event, sizeof event - 1);
    assert_int_equal(scrub_held(s), 0);
    scrub_free(s);
    uint8_t *big = malloc(60000), *got = malloc(60000);
    for (int i = 0; i < 60000; i++)
        big[i] = (uint8_t)rand();
    assert_int_equal(run(set, big, 60000, 0, got), 60000);
    assert_memory_equal(big, got, 60000);
    free(big);
    free(got);
    scrub_set_unref(set);
}

/* A message may end in what a key begins with, and be waited for whole before anything more is said. */
static void what_every_key_begins_with_is_not_held(void **state)
{
    static const char *const parts[] = {"it ends in s", "k-an", "t-api03-", "Q", "x7+R/2_bC-zz90aabbaabb", "."};
    static const size_t held[] = {0, 0, 0, 1, 0, 0};
    struct scrub_set *set = one();
    struct scrub *s = scrub_new(set);
    uint8_t out[400];
    size_t n = 0;
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        n += scrub_feed(s, (const uint8_t *)parts[i], strlen(parts[i]), out + n);
        assert_int_equal(scrub_held(s), held[i]);
    }
    n += scrub_end(s, out + n);
    char want[100];
    size_t len = (size_t)snprintf(want, sizeof want, "it ends in %s.", sentinel);
    assert_int_equal(n, len);
    assert_memory_equal(out, want, n);
    scrub_free(s);
    scrub_set_unref(set);
}

/* Random streams of pieces of needles, cut at random: always what the whole gives. */
static void any_split_gives_the_same(void **state)
{
    static const char *const values[] = {"abababab", "abXbabababc+/", "sk-ab0123456789", "sk-ab01ZZ"}, *const sentinels[] = {"abababxy", "abXxyxyxyz+/q", "sk-xy9876543210", "sk-ab01YY"};
    struct scrub_set *set = scrub_set_new();
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_true(scrub_set_add(set, values[i], sentinels[i]));
    assert_true(scrub_set_ready(set));
    for (int round = 0; round < 20000; round++) {
        uint8_t in[200], whole[1024], cut[1024];
        size_t n = 0;
        while (n < 60) {
            const char *v = values[rand() % 4];
            size_t from = (size_t)rand() % 3, k = (size_t)rand() % (strlen(v) - from) + 1;
            memcpy(in + n, v + from, k);
            n += k;
        }
        size_t a = run(set, in, n, n, whole), b = run(set, in, n, 1 + (size_t)round % 9, cut);
        assert_int_equal(a, n);
        assert_int_equal(b, n);
        assert_memory_equal(whole, cut, n);
        for (int i = 0; i < 4; i++)
            assert_null(memmem(whole, n, values[i], strlen(values[i])));
    }
    scrub_set_unref(set);
}

static void several_secrets_with_common_beginnings(void **state)
{
    (void)state;
    struct scrub_set *set = scrub_set_new();
    /* One is the beginning of the other: the longer wins, wherever the stream is cut. */
    assert_true(scrub_set_add(set, "aaaaaaaaab", "bbbbbbbbbc"));
    assert_true(scrub_set_add(set, "aaaaaaaaabXYZ", "ddddddddddddd"));
    assert_true(scrub_set_ready(set));
    static const char in[] = "aaaaaaaaaaaaabXYZ-aaaaaaaaabXY-aaaaaaaaab";
    uint8_t whole[64], cut[64];
    size_t n = run(set, (const uint8_t *)in, sizeof in - 1, sizeof in - 1, whole);
    assert_memory_equal(whole, "aaaaddddddddddddd-bbbbbbbbbcXY-bbbbbbbbbc", n);
    for (size_t piece = 1; piece < sizeof in; piece++) {
        assert_int_equal(run(set, (const uint8_t *)in, sizeof in - 1, piece, cut), n);
        assert_memory_equal(whole, cut, n);
    }
    scrub_set_unref(set);
}

static void texts_are_scrubbed_in_place(void **state)
{
    (void)state;
    struct scrub_set *set = one();
    char text[200];
    snprintf(text, sizeof text, "Bearer %s", value);
    assert_true(scrub_text(set, text, strlen(text)));
    assert_string_equal(text + 7, sentinel);
    char plain[] = "Bearer sk-ant-other s";
    assert_false(scrub_text(set, plain, strlen(plain)));
    assert_string_equal(plain, "Bearer sk-ant-other s");
    assert_false(scrub_set_add(set, "short", "trohs"));
    assert_false(scrub_set_add(set, "of another length", "than this"));
    scrub_set_unref(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threat_65_every_spelling_and_split),
        cmocka_unit_test(threat_65_wary_json),
        cmocka_unit_test(what_every_key_begins_with_is_not_held),
        cmocka_unit_test(any_split_gives_the_same),
        cmocka_unit_test(threat_64_a_search_of_every_spelling_and_split),
        cmocka_unit_test(a_telling_beginning_at_the_end_is_hidden),
        cmocka_unit_test(threat_67_guesses_at_an_end_are_not_confirmed),
        cmocka_unit_test(ordinary_bytes_are_unchanged_and_not_held),
        cmocka_unit_test(several_secrets_with_common_beginnings),
        cmocka_unit_test(texts_are_scrubbed_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
