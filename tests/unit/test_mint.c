/* net/mint and the tables around it: tokens that a provider gives out in an answer never reach the guest (threat 68). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>

#include "core/service.h"
#include "net/mint.h"

static enum mint_result read_text(const char *text, char *out, struct ask_mint *m)
{
    size_t n = strlen(text);
    memcpy(out, text, n + 1);
    enum mint_result r = mint_read((uint8_t *)out, n, m);
    assert_int_equal(out[n], 0);
    return r;
}

static void threat_68_tokens_become_sentinels_in_place(void **state)
{
    struct ask_mint m;
    char out[4096];
    (void)state;
    static const char body[] = "{\"token_type\":\"Bearer\",\"access_token\":\"sk-ant-oat01-AAAABBBBCCCCDDDD/eeee\","
                               "\"refresh_token\":\"sk-ant-ort01-FFFFGGGGHHHH\",\"expires_in\":28800,\"scope\":\"all\"}";
    assert_int_equal(read_text(body, out, &m), MINT_TAKEN);
    assert_int_equal(strlen(out), strlen(body));
    assert_string_equal(m.access, "sk-ant-oat01-AAAABBBBCCCCDDDD/eeee");
    assert_string_equal(m.refresh, "sk-ant-ort01-FFFFGGGGHHHH");
    assert_int_equal(m.expires_in, 28800);
    assert_null(strstr(out, "AAAABBBBCCCC"));
    assert_null(strstr(out, "FFFFGGGGHHHH"));
    json_t *o = json_loads(out, 0, NULL);
    assert_non_null(o);
    assert_string_equal(json_string_value(json_object_get(o, "access_token")), m.sentinel);
    assert_string_equal(json_string_value(json_object_get(o, "token_type")), "Bearer");
    assert_int_equal(json_integer_value(json_object_get(o, "expires_in")), 28800);
    assert_int_equal(strncmp(m.sentinel, "sk-ant-oat01-", 13), 0);
    json_decref(o);
}

static void spellings_of_json(void **state)
{
    static const char *const bodies[] = {
        "{\"access_token\":\"at\\/0123456789abcdefghij\"}", "{\"access_token\":\"at/0123456789abcdefghij\"}",
        "{\"nested\":{\"list\":[{\"accessToken\":\"at/0123456789abcdefghij\"}]}}", "{\"raw_key\":\"at/0123456789abcdefghij\"}",
        "{\"client_secret\":\"at/0123456789abcdefghij\",\"again\":\"at/0123456789abcdefghij\"}"};
    struct ask_mint m;
    char out[4096];
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        assert_int_equal(read_text(bodies[i], out, &m), MINT_TAKEN);
        json_t *o = json_loads(out, 0, NULL);
        char *flat = json_dumps(o, 0);
        assert_non_null(flat);
        assert_null(strstr(flat, "0123456789abcdefghij"));
        assert_int_equal(strlen(out), strlen(bodies[i]));
        free(flat);
        json_decref(o);
    }
}

/* What cannot be replaced must not pass: an odd escape, a body of another kind, a token with control characters. */
static void what_cannot_be_told_is_refused(void **state)
{
    static const char *const bad[] = {"access_token=abcdefghijklmnop&token_type=bearer", "{\"access_token\":\"abcdefghijklmnop",
                                      "{\"access_token\":\"abcdefgh ijklmnopqrst\"}", "{\"access_token\":\"abcdefghijklmnop\\u0000qrst\"}",
                                      "{\"access_token\":\"one\",\"access_token\":\"abcdefghijklmnopqrst\"}", "<html>", ""};
    static const char *const plain[] = {"{\"error\":\"invalid_grant\"}", "{\"access_token\":null}", "[]", "{\"token_type\":\"Bearer\"}"};
    struct ask_mint m;
    char out[4096];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(read_text(bad[i], out, &m), MINT_BAD);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        assert_int_equal(read_text(plain[i], out, &m), MINT_PLAIN);
        assert_string_equal(out, plain[i]);
    }
    /* Any escape in a token: gone from the answer, or the answer is refused. */
    for (int mask = 1; mask < 256; mask++) {
        char text[512] = "{\"access_token\":\"";
        for (int k = 0; k < 24; k++) {
            size_t n = strlen(text);
            if (mask >> (k % 8) & 1)
                snprintf(text + n, sizeof text - n, "\\u%04x", 'a' + k);
            else
                snprintf(text + n, sizeof text - n, "%c", 'a' + k);
        }
        strcat(text, "\"}");
        if (read_text(text, out, &m) == MINT_BAD)
            continue;
        json_t *o = json_loads(out, 0, NULL);
        assert_non_null(o);
        assert_string_not_equal(json_string_value(json_object_get(o, "access_token")), "abcdefghijklmnopqrstuvwx");
        json_decref(o);
    }
}

static void token_endpoints_are_known_however_they_are_written(void **state)
{
    (void)state;
    json_t *s = json_pack("{s:{s:s}}", "oauth", "token", "https://auth.example.com/oauth/token");
    assert_true(service_gives_tokens(s, "auth.example.com", 443, "/oauth/token"));
    assert_true(service_gives_tokens(s, "auth.example.com", 443, "/OAuth/Token/"));
    assert_false(service_gives_tokens(s, "auth.example.com", 443, "/oauth/tokens"));
    assert_false(service_gives_tokens(s, "auth.example.com", 8443, "/oauth/token"));
    assert_false(service_gives_tokens(s, "evil.example.com", 443, "/oauth/token"));
    assert_true(service_signs_in_at(s, "auth.example.com", 443));
    assert_false(service_signs_in_at(s, "xauth.example.com", 443));
    json_decref(s);
}

/* A registry's answer names its token twice; Copilot's knows no other name, and clients read what stands in it. */
static void threat_68_tokens_of_registries_and_exchanges(void **state)
{
    static const char registry[] = "{\"token\":\"eyJhbGciOiJSUzI1NiJ9.eyJhY2Nlc3MiOltdfQ.c2lnbmF0dXJlLW9mLWRvY2tlcg\",\"access_token\":"
                                   "\"eyJhbGciOiJSUzI1NiJ9.eyJhY2Nlc3MiOltdfQ.c2lnbmF0dXJlLW9mLWRvY2tlcg\",\"expires_in\":300}";
    static const char copilot[] = "{\"expires_at\":1790000000,\"refresh_in\":1500,\"token\":\"tid=0123456789abcdef;exp=1790000000;"
                                  "sku=x;proxy-ep=proxy.individual.githubcopilot.com:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"}";
    struct ask_mint m;
    char out[4096];
    (void)state;
    assert_int_equal(read_text(registry, out, &m), MINT_TAKEN);
    assert_null(strstr(out, "c2lnbmF0dXJl"));
    assert_non_null(strstr(out, "eyJhbGciOiJSUzI1NiJ9.eyJhY2Nlc3MiOltdfQ."));
    assert_int_equal(m.expires_in, 300);
    assert_int_equal(read_text(copilot, out, &m), MINT_TAKEN);
    assert_null(strstr(out, "9f86d081884c7d65"));
    assert_non_null(strstr(out, ";exp=1790000000;sku=x;proxy-ep=proxy.individual.githubcopilot.com:"));
    assert_int_equal(strncmp(m.access, "tid=0123456789abcdef;", 21), 0);
    assert_int_equal(strlen(m.access), strlen(m.sentinel));
}

static void minting_paths_are_known_however_they_are_written(void **state)
{
    struct service_write w;
    (void)state;
    json_t *s = json_pack("{s:[{s:s,s:s,s:[{s:s}]}]}", "mints", "host", "api.example.com", "path", "/exchange/", "use", "host", "use.example.com");
    assert_true(service_lends(s, "api.example.com", 443, "/exchange/v2/token", false));
    assert_true(service_lends(s, "api.example.com", 443, "/EXCHANGE/token", false));
    assert_false(service_lends(s, "api.example.com", 443, "/repos/x", false));
    assert_false(service_lends(s, "api.example.com", 80, "/exchange/v2/token", false));
    assert_false(service_lends(s, "evil.example.com", 443, "/exchange/v2/token", false));
    static const char *const odd[] = {"//exchange/token", "/x/..%2fexchange%2ftoken", "/%65xchange%2ftoken", "/%2565xchange;a/token"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_true(service_lends(s, "api.example.com", 443, odd[i], true));
    assert_false(service_lends(s, "api.example.com", 443, "/repos/a%2fb", true));
    assert_true(service_spends(s, "use.example.com", 443, &w));
    assert_string_equal(w.format, "Bearer {}");
    assert_false(service_spends(s, "api.example.com", 443, &w));
    json_decref(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threat_68_tokens_become_sentinels_in_place),
        cmocka_unit_test(spellings_of_json),
        cmocka_unit_test(what_cannot_be_told_is_refused),
        cmocka_unit_test(threat_68_tokens_of_registries_and_exchanges),
        cmocka_unit_test(minting_paths_are_known_however_they_are_written),
        cmocka_unit_test(token_endpoints_are_known_however_they_are_written),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
