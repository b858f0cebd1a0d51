/* Names, addresses and rules as a hostile guest, or a careless user, writes them (the list of attacks, 4 to 14, 85, 88). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/name.h"
#include "core/policy.h"
#include "core/rule.h"
#include "core/sanitize.h"
#include "net/http1.h"

static bool authority(const char *text)
{
    char host[NAME_MAX_LEN + 48];
    uint16_t port;
    return http1_authority(text, strlen(text), host, &port);
}

static bool is_rule(const char *text)
{
    struct rule r = {0};
    return rule_parse(&r, text, NULL) == 0;
}

/* What inet_aton reads as an address and we do not write as one is neither a name nor an address. */
static void threat_04_spellings(void **state)
{
    static const char *const spellings[] = {
        "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "127.0.0.01", "127.0.0.1.", "0x7f.1",
        "0", "0.0", "0x0", "00", "1", "1.1", "1.1.1", "4294967295", "0xffffffff", "037777777777", "169.254.43518", "169.16689662",
        "2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "0251.254.169.254", "169.254.0xa9fe", "10.1", "10.0.1",
        "0xa.1", "012.1", "192.168.1", "192.168.257", "0xc0a80001", "3232235521", "0300.0250.1", "127.0.0.1.1", "256.0.0.1", "127.0.0.256",
        "127.0.0.-1", "127..1", ".127.0.0.1", "127.0.0.1..", "0X7F000001", "0x", "0x7g.1", "08.1", "127.0.0.1%00",
    };
    (void)state;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        char name[NAME_MAX_LEN + 1], with_port[80];
        uint8_t addr[16];
        bool literal = rule_parse_addr(spellings[i], addr) != 0;
        snprintf(with_port, sizeof with_port, "%s:80", spellings[i]);
        if (literal || name_canonical(spellings[i], strlen(spellings[i]), name) || authority(spellings[i]) || authority(with_port) ||
            is_rule(spellings[i]))
            fail_msg("%s is read as something", spellings[i]);
    }
}

static void threat_05_forms_of_ipv6(void **state)
{
    static const char *const bad[] = {"[::1%eth0]", "[fe80::1%25eth0]:80", "[example.com]", "[example.com]:443", "[127.0.0.1]", "[::1", "::1]",
                                      "[::1]x", "[::1]:", "[1:2:3:4:5:6:7:8:9]", "[::1::]", "[:::1]", "[12345::]", "[v1.x]", "[]", "[]:80"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (authority(bad[i]))
            fail_msg("%s is read as an authority", bad[i]);
    /* Unwrapped, so that rules for IPv4 hold for it. */
    uint8_t addr[16];
    assert_int_equal(rule_parse_addr("::ffff:169.254.169.254", addr), 4);
    assert_int_equal(addr[0], 169);
    assert_int_equal(rule_parse_addr("::ffff:a9fe:a9fe", addr), 4);
}

/* One canonical form, whatever is judged by it afterwards. */
static void threat_06_case_and_the_last_dot(void **state)
{
    char host[NAME_MAX_LEN + 48];
    uint16_t port = 0;
    (void)state;
    assert_true(http1_authority("API.Anthropic.COM.:443", 22, host, &port));
    assert_string_equal(host, "api.anthropic.com");
    struct rule r = {0};
    assert_int_equal(rule_parse(&r, "API.Anthropic.COM.", NULL), 0);
    assert_true(rule_matches_name(&r, host, port));
}

static void threat_07_labels_and_lengths(void **state)
{
    char label64[80], long_name[300] = "";
    (void)state;
    memset(label64, 'a', 64);
    strcpy(label64 + 64, ".com");
    for (int i = 0; i < 64; i++)
        strcat(long_name, "abc.");
    strcat(long_name, "com"); /* 259 */
    const char *const bad[] = {"a..com", ".a.com", "a.com..", "..", ".", "", "-a.com", "a-.com", "a.-b.com", label64, long_name};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (authority(bad[i]) || is_rule(bad[i]))
            fail_msg("\"%s\" passes", bad[i]);
}

static void threat_08_every_byte(void **state)
{
    char name[NAME_MAX_LEN + 1];
    (void)state;
    for (unsigned c = 0; c < 256; c++)
        for (int at = 0; at < 3; at++) {
            char text[] = "exbmple.com", host[NAME_MAX_LEN + 48];
            uint16_t port;
            text[at == 0 ? 0 : at == 1 ? 2 : 10] = (char)c;
            bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (c == '-' && at == 1) ||
                        (c == '.' && at != 0);
            if (name_canonical(text, 11, name) && !fine)
                fail_msg("byte %u at %d is part of a name", c, at);
            if (c != ':' && http1_authority(text, 11, host, &port) && !fine)
                fail_msg("byte %u at %d is part of an authority", c, at);
        }
}

static void threat_09_only_a_labels_come_from_the_guest(void **state)
{
    static const char *const bad[] = {"\xef\xbd\x87ithub.com", "github\xe3\x80\x82" "com", "g\xc3\xadthub.com", "github.com\xe2\x80\x8b"};
    char name[NAME_MAX_LEN + 1];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(name_canonical(bad[i], strlen(bad[i]), name));
        assert_false(authority(bad[i]));
    }
    /* A user's rule becomes the A-label, and is shown as that. */
    struct rule r = {0};
    char text[RULE_TEXT_MAX];
    assert_int_equal(rule_parse(&r, "b\xc3\xbc" "cher.example", NULL), 0);
    rule_format(text, &r);
    assert_string_equal(text, "xn--bcher-kva.example");
    assert_false(is_rule("\xff\xfe.com"));
}

static void threat_10_userinfo(void **state)
{
    static const char *const bad[] = {"allowed.com@evil.com", "allowed.com@evil.com:443", "user:pass@evil.com", "@evil.com", "evil.com@",
                                      "http://allowed.com@evil.com/", "allowed.com#@evil.com", "allowed.com\\@evil.com", "allowed.com%40evil.com"};
    char name[NAME_MAX_LEN + 1];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (authority(bad[i]) || is_rule(bad[i]) || name_canonical(bad[i], strlen(bad[i]), name))
            fail_msg("%s is read as something", bad[i]);
}

static void threat_11_ports_of_authorities(void **state)
{
    static const char *const bad[] = {"a.com:0443", "a.com:443:80", "a.com:+443", "a.com:-1", "a.com:65536", "a.com:99999", "a.com:", "a.com:0",
                                      "a.com: 443", "a.com:443 ", "a.com:4294967739", "a.com:18446744073709552059", "a.com:0x1bb", "a.com:4e2", ":443"};
    char host[NAME_MAX_LEN + 48];
    uint16_t port = 0;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (authority(bad[i]))
            fail_msg("%s is read as an authority", bad[i]);
    assert_true(http1_authority("a.com:65535", 11, host, &port));
    assert_int_equal(port, 65535);
}

static void threat_12_13_14_wildcards(void **state)
{
    static const char *const wide[] = {"*.com", "**.com", "*", "**", "*.co.uk", "**.co.uk", "*.", "example.*", "a.*.com", "*example.com", "*.1",
                                       "*.0.0.1", "**.254", "*.*.com", "***.example.com", "*.local*"};
    struct rule one = {0}, any = {0};
    (void)state;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (is_rule(wide[i]))
            fail_msg("%s is too wide", wide[i]);
    rule_parse(&one, "*.github.com", NULL);
    rule_parse(&any, "**.github.com", NULL);
    static const char *const no[] = {"evilgithub.com", "github.com.evil.io", "github.com", "xgithub.com", "a.github.com.evil.io"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        assert_false(rule_matches_name(&one, no[i], 443));
        assert_false(rule_matches_name(&any, no[i], 443));
    }
    assert_true(rule_matches_name(&one, "api.github.com", 443));
    assert_false(rule_matches_name(&one, "a.api.github.com", 443));
    assert_true(rule_matches_name(&any, "a.api.github.com", 443));
    uint8_t addr[4] = {1, 1, 1, 1};
    assert_false(rule_matches_addr(&any, 4, addr, 443));
}

/* Ten thousand rules give the answers that a walk over all of them gives (how fast: tests/bench/bench_rules). */
static void threat_85_ten_thousand_rules(void **state)
{
    json_t *rules = json_array();
    char text[80];
    (void)state;
    srandom(85);
    for (int i = 0; i < 10000; i++) {
        const char *wild = i % 5 == 3 ? "*." : i % 5 == 4 ? "**." : "";
        int n = (int)(random() % 20000);
        if (i % 7 == 6)
            snprintf(text, sizeof text, "10.%d.%d.0/%d", n % 200, n / 200, 16 + i % 16);
        else
            snprintf(text, sizeof text, "%sh%d.d%d.example.com", wild, n, n % 10);
        json_array_append_new(rules, json_pack("{s:s, s:s}", "action", i % 11 == 0 ? "deny" : "allow", "target", text));
    }
    json_t *o = json_pack("{s:i, s:s, s:o}", "version", 1, "posture", "locked-down", "rules", rules);
    struct policy *p = policy_from_json(o);
    assert_null(policy_error(p));
    size_t n;
    const struct rule *all = policy_rules(p, &n);
    for (int i = 0; i < 3000; i++) {
        struct decision d;
        bool allow = false, deny = false;
        int k = (int)(random() % 20000);
        uint8_t addr[16] = {10, (uint8_t)(k % 200), (uint8_t)(k / 200), 1};
        snprintf(text, sizeof text, "%sh%d.d%d.example.com", i % 3 == 1 ? "a." : i % 3 == 2 ? "b.a." : "", k, k % 10);
        bool literal = i % 4 == 0;
        for (size_t r = 0; r < n; r++)
            if (literal ? rule_matches_addr(&all[r], 4, addr, 443) : rule_matches_name(&all[r], text, 443))
                *(all[r].deny ? &deny : &allow) = true;
        if (literal)
            policy_decide_addr(p, 4, addr, 443, 1, &d);
        else
            policy_decide_name(p, text, 443, 1, &d);
        assert_int_equal(d.allow, allow && !deny);
    }
    policy_free(p);
    json_decref(o);
}

/* What a guest wrote is shown: nothing that a terminal obeys, no line of its own, no text that runs backwards. */
static void threat_88_what_is_shown(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 0x3000; c++) {
        char in[8], out[64];
        size_t n = 0;
        if (c < 0x80)
            in[n++] = (char)c;
        else if (c < 0x800) {
            in[n++] = (char)(0xc0 | c >> 6);
            in[n++] = (char)(0x80 | (c & 63));
        } else {
            in[n++] = (char)(0xe0 | c >> 12);
            in[n++] = (char)(0x80 | (c >> 6 & 63));
            in[n++] = (char)(0x80 | (c & 63));
        }
        bool hostile = c < 32 || (c >= 127 && c < 160) || (c >= 0x200e && c <= 0x200f) || (c >= 0x202a && c <= 0x202e) ||
                       (c >= 0x2066 && c <= 0x2069) || c == 0x2028 || c == 0x2029;
        sanitize_line(out, sizeof out, in, n);
        if (hostile && memmem(out, strlen(out), in, n))
            fail_msg("U+%04X is shown as it is", c);
    }
    char raw[256], out[2048];
    for (int i = 0; i < 256; i++)
        raw[i] = (char)(255 - i); /* malformed as well */
    sanitize_line(out, sizeof out, raw, sizeof raw);
    for (const char *p = out; *p; p++)
        assert_true((unsigned char)*p >= 32 && *p != 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threat_04_spellings),
        cmocka_unit_test(threat_05_forms_of_ipv6),
        cmocka_unit_test(threat_06_case_and_the_last_dot),
        cmocka_unit_test(threat_07_labels_and_lengths),
        cmocka_unit_test(threat_08_every_byte),
        cmocka_unit_test(threat_09_only_a_labels_come_from_the_guest),
        cmocka_unit_test(threat_10_userinfo),
        cmocka_unit_test(threat_11_ports_of_authorities),
        cmocka_unit_test(threat_12_13_14_wildcards),
        cmocka_unit_test(threat_85_ten_thousand_rules),
        cmocka_unit_test(threat_88_what_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
