/* Rules: what a user may write, the one form it takes, and what it matches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>

#include "core/publishers.h"
#include "core/rule.h"
#include "core/shellword.h"

static struct rule parsed(const char *text)
{
    struct rule r = {0};
    struct err e = {0};
    if (rule_parse(&r, text, &e) < 0)
        fail_msg("\"%s\": %s", text, e.text);
    return r;
}

static void refused(const char *text)
{
    struct rule r = {0};
    struct err e = {0};
    if (rule_parse(&r, text, &e) == 0)
        fail_msg("\"%s\" was accepted", text);
    assert_int_equal(e.status, STATUS_USAGE);
    assert_true(e.text[0] != '\0');
}

static void canonical_form(void **state)
{
    static const char *const cases[][2] = {
        {"Example.COM.", "example.com"},
        {"API.example.com:443", "api.example.com:443"},
        {"*.NPMJS.org", "*.npmjs.org"},
        {"**.example.com:8000-8010", "**.example.com:8000-8010"},
        {"192.0.2.7", "192.0.2.7"},
        {"10.1.2.3/8", "10.0.0.0/8"},
        {"10.1.2.3:22", "10.1.2.3:22"},
        {"10.0.0.0/8:443", "10.0.0.0/8:443"},
        {"0.0.0.0/0", "0.0.0.0/0"},
        {"2001:DB8:0:0::1", "2001:db8::1"},
        {"[2001:db8::1]:22", "[2001:db8::1]:22"},
        {"[2001:db8::/32]:22", "[2001:db8::/32]:22"},
        {"2001:db8::5/32", "2001:db8::/32"},
        {"::ffff:192.0.2.7", "192.0.2.7"},
        {"localhost:1234", "localhost:1234"},
        {"127.0.0.1:1234", "localhost:1234"},
        {"[::1]:1234", "localhost:1234"},
        {"host.docker.internal:1234", "localhost:1234"},
        {"host.sbx.internal:1234", "localhost:1234"},
        {"b\xc3\xbc""cher.example", "xn--bcher-kva.example"},
        {"_dmarc.example.com", "_dmarc.example.com"},
        {"example.com/api", "example.com/api"},
        {"example.com/", "example.com"},
        {"POST|GET example.com:443/a/b", "GET|POST example.com:443/a/b"},
        {"GET **.example.com", "GET **.example.com"},
        {"192.0.2.7:80/24", "192.0.2.7/32:80/24"},
        {"192.0.2.7/api", "192.0.2.7/32/api"},
        {"[2001:db8::1]/api", "[2001:db8::1/128]/api"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[RULE_TEXT_MAX], again[RULE_TEXT_MAX];
        struct rule r = parsed(cases[i][0]);
        rule_format(text, &r);
        assert_string_equal(text, cases[i][1]);
        r = parsed(text);
        rule_format(again, &r);
        assert_string_equal(again, text);
    }
}

static void nonsense_is_refused(void **state)
{
    static const char *const bad[] = {
        "", " ", "example..com", ".example.com", "-a.com", "a-.com", "exa mple.com", "http://example.com",
        "user@example.com", "example.com?x", "example.com#x", "exam\\ple.com", "[example.com]:80", "[::1", "[::1]80",
        "[::1]", "127.0.0.1", "localhost", "localhost:1-2", "*.localhost:1", "FETCH example.com", "get example.com",
        "example.com/%2e%2e", "example.com/a//b", "example.com/a/../b", "example.com/..", "example.com/a;b",
        "example.com/*", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/", "2001:db8::/129", "fe80::1%eth0", "a b c",
        "\xff\xfe.com", "a\x01.com",
    };
    char longlabel[70], longname[300];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(bad[i]);
    memset(longlabel, 'a', 64);
    strcpy(longlabel + 64, ".com");
    refused(longlabel);
    memset(longname, 'a', sizeof longname);
    for (size_t i = 50; i < sizeof longname; i += 50)
        longname[i] = '.';
    longname[260] = '\0';
    refused(longname);
}

/* An address in any spelling but the strict one is no rule, and no name either. */
static void threat_04_spellings_of_addresses(void **state)
{
    static const char *const bad[] = {
        "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "127.0.1", "1.2.3.04", "01.2.3.4", "1.2.3",
        "1", "0", "0x0", "00.0.0.0", "1.2.3.4.", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "0x7f.1", "0X7F000001",
        "127.0.0.0x1", "1.1.1.1e1", "4294967295", "4294967296", "037777777777", "127.0.0.1.0", "0x7F.0x0.0x0.0x1",
        "3232235521", "192.168.257", "192.168.0x101", "0300.0250.0.1", "0xc0a80001", "10.0x1", "10.1",
        "0xa.0.0.1", "012.0.0.1", "169.254.43518", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376",
        "a.0x10", "a.1", "example.123",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (strcmp(bad[i], "1.1.1.1e1") != 0) /* a label like any other */
            refused(bad[i]);
}

static void threat_08_bytes_that_no_name_has(void **state)
{
    char text[] = "abc.example.com";
    static const size_t at[] = {0, 5, 10};
    (void)state;
    for (size_t k = 0; k < 3; k++)
        for (int c = 1; c < 256; c++) {
            struct rule r = {0};
            char copy[sizeof text];
            memcpy(copy, text, sizeof text);
            copy[at[k]] = (char)c;
            bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
            if (word || strchr(".:/* |", c) || c >= 0x80)
                continue; /* those mean something, or are international */
            if (rule_parse(&r, copy, NULL) == 0)
                fail_msg("byte %02x at %zu was accepted", c, at[k]);
        }
}

static void threat_09_international_names(void **state)
{
    (void)state;
    struct rule r = parsed("\xef\xbd\x87ithub.com"); /* fullwidth g */
    assert_string_equal(r.host, "github.com");
    r = parsed("github\xe3\x80\x82""com"); /* ideographic full stop */
    assert_string_equal(r.host, "github.com");
    r = parsed("g\xd1\x96thub.com"); /* Cyrillic i: another name, shown as what it is */
    assert_int_equal(strncmp(r.host, "xn--", 4), 0);
    refused("a\xe2\x80\xae.com");
}

static void threat_11_ports(void **state)
{
    static const char *const bad[] = {":0443", ":443:80", ":+443", ":65536", ":", ":0", ":-1", ":1-", ":-", ":5-4",
                                      ":99999999999", ":0x50", ":80 ", ": 80", ":8 0"};
    char text[64];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "example.com%s", bad[i]);
        refused(text);
        snprintf(text, sizeof text, "[2001:db8::1]%s", bad[i]);
        refused(text);
    }
    struct rule r = parsed("example.com:65535");
    assert_int_equal(r.port_low, 65535);
}

static void threat_12_labels_not_suffixes(void **state)
{
    (void)state;
    struct rule r = parsed("github.com"), one = parsed("*.github.com"), any = parsed("**.github.com");
    assert_true(rule_matches_name(&r, "github.com", 443));
    assert_false(rule_matches_name(&r, "evilgithub.com", 443));
    assert_false(rule_matches_name(&r, "github.com.evil.io", 443));
    assert_false(rule_matches_name(&one, "github.com", 443));
    assert_true(rule_matches_name(&one, "api.github.com", 443));
    assert_false(rule_matches_name(&one, "a.api.github.com", 443));
    assert_false(rule_matches_name(&one, "evilgithub.com", 443));
    assert_false(rule_matches_name(&any, "github.com", 443));
    assert_true(rule_matches_name(&any, "a.b.c.github.com", 443));
    assert_false(rule_matches_name(&any, "evilgithub.com", 443));
    assert_false(rule_matches_name(&any, "a.evilgithub.com", 443));
}

static void threat_13_too_wide(void **state)
{
    static const char *const bad[] = {"*.com", "**.com", "*", "**", "*.co.uk", "**.co.uk", "example.*", "a.*.com",
                                      "ex*mple.com", "*example.com", "***.example.com", "*.*.example.com", "*.", "**.",
                                      "*.uk", "**.internal",
                                      /* all that is below these is a suffix; and suffixes in other spellings */
                                      "**.kawasaki.jp", "*.kobe.jp", "**.a.ck", "*.CO.UK.", "*.\xe5\x85\xac\xe5\x8f\xb8.cn", "*.xn--55qx5d.cn",
                                      "*.co\xe3\x80\x82uk"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(bad[i]);
    parsed("*.example.co.uk");
}

static void threat_14_wildcards_and_literals(void **state)
{
    (void)state;
    refused("*.1");
    refused("*.0.0.1");
    refused("**.127.0.0.1");
    struct rule r = parsed("*.example.com");
    uint8_t a[16] = {192, 0, 2, 1};
    assert_false(rule_matches_addr(&r, 4, a, 80));
}

static void addresses_and_ranges(void **state)
{
    uint8_t in[16] = {10, 255, 0, 1}, out[16] = {11, 0, 0, 1}, six[16] = {0x20, 0x01, 0x0d, 0xb8, 0xff};
    (void)state;
    struct rule r = parsed("10.0.0.0/8:22"), v6 = parsed("2001:db8::/33"), odd = parsed("10.252.0.0/14");
    assert_true(rule_matches_addr(&r, 4, in, 22));
    assert_false(rule_matches_addr(&r, 4, in, 23));
    assert_false(rule_matches_addr(&r, 4, out, 22));
    assert_false(rule_matches_addr(&r, 6, in, 22));
    assert_false(rule_matches_addr(&v6, 6, six, 22)); /* the 33rd bit is set */
    assert_true(rule_matches_addr(&odd, 4, in, 1));
    assert_true(rule_is_exact(&r));
    struct rule wide = parsed("0.0.0.0/0");
    assert_false(rule_is_exact(&wide));
    assert_non_null(publishers_warning(&wide));
}

static void threat_41_paths(void **state)
{
    (void)state;
    struct rule r = parsed("GET|HEAD api.example.com/repos");
    assert_true(rule_is_conditional(&r));
    assert_true(rule_matches_request(&r, "GET", "/repos"));
    assert_true(rule_matches_request(&r, "HEAD", "/repos/a"));
    assert_false(rule_matches_request(&r, "GET", "/reposx"));
    assert_false(rule_matches_request(&r, "GET", "/"));
    assert_false(rule_matches_request(&r, "POST", "/repos"));
    assert_false(rule_matches_request(&r, "get", "/repos"));
    r = parsed("api.example.com/repos/");
    assert_false(rule_matches_request(&r, "GET", "/repos"));
    assert_true(rule_matches_request(&r, "BREW", "/repos/x"));
}

static void publishers_are_warned_of(void **state)
{
    static const char *const warn[] = {"*.github.io", "me.github.io", "storage.googleapis.com", "x.s3.eu-west-1.amazonaws.com",
                                       "s3.amazonaws.com", "s3-us-west-2.amazonaws.com", "*.amazonaws.com",
                                       "**.windows.net", "webhook.site", "drive.google.com"};
    static const char *const quiet[] = {"api.github.com", "sts.amazonaws.com", "example.com", "*.example.com",
                                        "evilgithub.io"};
    (void)state;
    for (size_t i = 0; i < sizeof warn / sizeof *warn; i++) {
        struct rule r = parsed(warn[i]);
        if (!publishers_warning(&r))
            fail_msg("no warning for %s", warn[i]);
        r.deny = true;
        assert_null(publishers_warning(&r));
    }
    for (size_t i = 0; i < sizeof quiet / sizeof *quiet; i++) {
        struct rule r = parsed(quiet[i]);
        assert_null(publishers_warning(&r));
    }
}

static void lists_have_commas_between_rules_alone(void **state)
{
    char list[] = " a.test,, *.b.test:8080 ,\n'c,d.test/x\\,evil.test,GET e.test/\\,", *rest = list;
    static const char *const want[] = {"a.test", "*.b.test:8080 ", "'c", "d.test/x,evil.test", "GET e.test/,"};
    char item[64], small[6];
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_string_equal(rule_list_next(&rest), want[i]);
    assert_null(rule_list_next(&rest));
    rule_list_item(item, sizeof item, "d.test/x,evil.test");
    assert_string_equal(item, "d.test/x\\,evil.test");
    rule_list_item(small, sizeof small, "a,b,c");
    assert_string_equal(small, ""); /* half of it would be another rule */
}

/* What a guest chose stands in commands that people copy: a shell reads it as one word. */
static void words_of_a_shell(void **state)
{
    static const char *const texts[] = {"a.test", "*.a.test", "GET a.test/it's", "x';touch /tmp/sbx-owned;'", "$(touch /tmp/sbx-owned)", "`x`", "a b", "", "'''",
                                        "\\", "!x", "~", "[::1]:80", "a\\,b", "-n"};
    char word[128], command[300], got[128];
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_true(shell_word(word, sizeof word, texts[i]));
        snprintf(command, sizeof command, "printf '%%s|' %s", word);
        FILE *p = popen(command, "r");
        assert_non_null(p);
        size_t n = fread(got, 1, sizeof got - 1, p);
        got[n ? n - 1 : 0] = '\0'; /* the bar */
        pclose(p);
        assert_string_equal(got, texts[i]);
    }
    assert_string_equal((shell_word(word, sizeof word, "a.test:443"), word), "a.test:443");
    assert_false(shell_word(word, 6, "a b c d"));
    assert_string_equal(word, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_form),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(threat_04_spellings_of_addresses),
        cmocka_unit_test(threat_08_bytes_that_no_name_has),
        cmocka_unit_test(threat_09_international_names),
        cmocka_unit_test(threat_11_ports),
        cmocka_unit_test(threat_12_labels_not_suffixes),
        cmocka_unit_test(threat_13_too_wide),
        cmocka_unit_test(threat_14_wildcards_and_literals),
        cmocka_unit_test(addresses_and_ranges),
        cmocka_unit_test(threat_41_paths),
        cmocka_unit_test(publishers_are_warned_of),
        cmocka_unit_test(lists_have_commas_between_rules_alone),
        cmocka_unit_test(words_of_a_shell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
