/* net/inject and net/sigv4: what a request bears when it leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "net/inject.h"
#include "net/sigv4.h"

#define VALUE "sk-real-0123456789abcdef"
#define SENTINEL "sk-real-9876543210fedcba"

static struct credentials *credential(const char *header, const char *written, const char *strip, const char *strip_query, bool placeholder)
{
    static struct answer_secret a;
    struct credentials *c = NULL;
    memset(&a, 0, sizeof a);
    a.kind = ANSWER_SECRET;
    a.placeholder = placeholder;
    strcpy(a.header, header);
    strcpy(a.written, written);
    strcpy(a.strip, strip);
    strcpy(a.strip_query, strip_query);
    strcpy(a.value, VALUE);
    strcpy(a.sentinel, SENTINEL);
    assert_true(credentials_add(&c, &a));
    return c;
}

static void add(struct headers *h, const char *name, const char *value)
{
    assert_true(headers_add_text(h, name, value));
}

static const char *only(const struct headers *h, const char *name)
{
    assert_int_equal(headers_count(h, name), 1);
    return headers_get(h, name)->value;
}

static void threat_73_every_copy_of_a_credential_goes(void **state)
{
    (void)state;
    struct credentials *c = credential("authorization", "Bearer " VALUE, "x-api-key,cookie", "key,access_token", false);
    struct headers h;
    char *target = strdup("/v1/x?a=1&key=AIzaAttacker&b=2&ACCESS_TOKEN=evil&%6bey=again");
    const char *why = "";
    headers_init(&h);
    add(&h, "Authorization", "Bearer attacker");
    add(&h, "AUTHORIZATION", "Bearer attacker");
    add(&h, "authorization", "Basic YTpi");
    add(&h, "X-Api-Key", "attacker");
    add(&h, "x_api_key", "attacker");
    add(&h, "Cookie", "session=attacker");
    add(&h, "Range", "bytes=5-");
    add(&h, "Accept-Encoding", "gzip, br");
    add(&h, "x-other", "stays");
    assert_true(inject_write(c, true, "POST", "api.example.com", &target, &h, NULL, &why));
    assert_string_equal(only(&h, "authorization"), "Bearer " VALUE);
    assert_string_equal(only(&h, "accept-encoding"), "identity");
    assert_string_equal(only(&h, "x-other"), "stays");
    for (size_t i = 0; i < h.n; i++)
        assert_null(strstr(h.v[i].value, "attacker"));
    assert_int_equal(headers_count(&h, "range"), 0);
    assert_string_equal(target, "/v1/x?a=1&b=2");
    headers_finish(&h);
    free(target);
    credentials_free(c);
}

static void threat_73_no_key_among_subprotocols(void **state)
{
    static const struct {
        const char *offered, *sent;
    } cases[] = {{"realtime, openai-insecure-api-key.sk-attacker-0123456789, openai-beta.realtime-v1", "realtime,openai-beta.realtime-v1"},
                 {"graphql-transport-ws", "graphql-transport-ws"},
                 {"base64url.bearer.authorization.k8s.io.YXR0YWNrZXI", NULL},
                 {" ,, ", NULL}};
    (void)state;
    for (int placeholder = 0; placeholder < 2; placeholder++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct credentials *c = credential("authorization", "Bearer " VALUE, "", "", placeholder);
            struct headers h;
            char *target = strdup("/v1/realtime");
            const char *why = "", *sent = placeholder ? cases[i].offered : cases[i].sent;
            headers_init(&h);
            add(&h, "Sec-WebSocket-Protocol", cases[i].offered);
            assert_true(inject_write(c, true, "GET", "api.example.com", &target, &h, NULL, &why));
            if (sent)
                assert_string_equal(only(&h, "sec-websocket-protocol"), sent);
            else
                assert_int_equal(headers_count(&h, "sec-websocket-protocol"), 0);
            headers_finish(&h);
            free(target);
            credentials_free(c);
        }
}

static void threat_73_trailers_bear_no_credential(void **state)
{
    (void)state;
    struct credentials *c = credential("authorization", "Bearer " VALUE, "x-api-key,cookie", "", false);
    struct headers h;
    headers_init(&h);
    add(&h, "Authorization", "Bearer attacker");
    add(&h, "x-api-key", "attacker");
    add(&h, "grpc-status", "0");
    inject_trailers(c, &h);
    assert_int_equal(h.n, 1);
    inject_trailers(NULL, &h);
    assert_string_equal(only(&h, "grpc-status"), "0");
    headers_finish(&h);
    credentials_free(c);
}

static void threat_72_nothing_without_tls(void **state)
{
    (void)state;
    struct credentials *c = credential("authorization", "Bearer " VALUE, "", "", false);
    struct headers h;
    char *target = strdup("/x");
    const char *why = "";
    headers_init(&h);
    add(&h, "authorization", "Bearer mine");
    assert_true(inject_write(c, false, "GET", "api.example.com", &target, &h, NULL, &why));
    assert_string_equal(only(&h, "authorization"), "Bearer mine");
    headers_finish(&h);
    free(target);
    credentials_free(c);
}

static void placeholders_are_replaced_where_they_stand(void **state)
{
    (void)state;
    struct credentials *c = credential("authorization", VALUE, "", "", true);
    struct headers h;
    char *target = strdup("/x"), basic[200], want[200], plain[100];
    const char *why = "";
    strcpy(basic, "Basic ");
    strcpy(want, "Basic ");
    snprintf(plain, sizeof plain, "user:%s", SENTINEL);
    sodium_bin2base64(basic + 6, sizeof basic - 6, (unsigned char *)plain, strlen(plain), sodium_base64_VARIANT_ORIGINAL);
    snprintf(plain, sizeof plain, "user:%s", VALUE);
    sodium_bin2base64(want + 6, sizeof want - 6, (unsigned char *)plain, strlen(plain), sodium_base64_VARIANT_ORIGINAL);
    headers_init(&h);
    add(&h, "Authorization", "token " SENTINEL);
    add(&h, "authorization", basic);
    add(&h, "authorization", "Bearer another");
    add(&h, "x-debug", SENTINEL);
    assert_true(inject_write(c, true, "GET", "api.example.com", &target, &h, NULL, &why));
    assert_string_equal(h.v[0].value, "token " VALUE);
    assert_string_equal(h.v[1].value, want);
    assert_string_equal(h.v[2].value, "Bearer another");
    assert_string_equal(only(&h, "x-debug"), SENTINEL); /* another field than the service's */
    headers_finish(&h);
    free(target);
    credentials_free(c);
}

static void threat_64_sentinels_are_seen_in_every_spelling(void **state)
{
    static const char *const spellings[] = {SENTINEL, "x" SENTINEL "y", "sk%2Dreal%2D9876543210fedcba", "%73k-real-9876543210fedcba"};
    struct sentinels *s = sentinels_new();
    static struct answer_sentinel a;
    struct headers h;
    (void)state;
    a.kind = ANSWER_SENTINEL;
    strcpy(a.sentinel, SENTINEL);
    sentinels_set(s, &a);
    headers_init(&h);
    strcpy(a.sentinel, "ghp_0000000000000000000000");
    a.more = 1;
    sentinels_set(s, &a);
    assert_int_equal(sentinels_find(s, "/?q=" SENTINEL, &h), 1); /* a list counts when it is whole: no request slips through between */
    a.id = 1;
    a.more = 0;
    strcpy(a.sentinel, SENTINEL);
    sentinels_set(s, &a);
    headers_finish(&h);
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        headers_init(&h);
        add(&h, "x-any", spellings[i]);
        assert_int_equal(sentinels_find(s, "/", &h), 2);
        headers_finish(&h);
    }
    headers_init(&h);
    assert_int_equal(sentinels_find(s, "/?q=" SENTINEL, &h), 2);
    assert_int_equal(sentinels_find(s, "/?q=ghp_0000000000000000000000&r=" SENTINEL, &h), 3);
    assert_int_equal(sentinels_find(s, "/?q=" VALUE, &h), 0);
    for (int pad = 0; pad < 3; pad++) { /* Base64 in each alignment */
        char plain[100], text[200];
        snprintf(plain, sizeof plain, "%.*s" SENTINEL ":", pad, "ab");
        sodium_bin2base64(text, sizeof text, (unsigned char *)plain, strlen(plain), sodium_base64_VARIANT_ORIGINAL);
        add(&h, "x-basic", text);
        assert_int_equal(sentinels_find(s, "/", &h), 2);
        headers_remove(&h, "x-basic");
    }
    assert_string_equal(sentinels_at(s, 1), SENTINEL);
    assert_null(sentinels_at(s, 2));
    assert_null(sentinels_at(s, -1));
    headers_finish(&h);
    sentinels_free(s);
}

/* ---- AWS ---- */

#define AWS_KEY "AKIDEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

static void aws_request(struct headers *h, const char *signed_headers)
{
    char auth[300];
    headers_init(h);
    snprintf(auth, sizeof auth, "AWS4-HMAC-SHA256 Credential=AKIAGUEST/20150830/us-east-1/service/aws4_request, SignedHeaders=%s, Signature=%064d",
             signed_headers, 0);
    add(h, "authorization", auth);
    add(h, "x-amz-date", "20150830T123600Z");
}

/* The published vectors of AWS: get-vanilla, post-vanilla, get-vanilla-query-order-key-case. */
static void aws_signatures_are_the_published_ones(void **state)
{
    static const struct {
        const char *method, *target, *signature;
    } vectors[] = {{"GET", "/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
                   {"POST", "/", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
                   {"GET", "/?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"}};
    char hash[SIGV4_HASH_LEN], want[400];
    (void)state;
    sigv4_hash("", 0, hash);
    assert_string_equal(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        struct headers h;
        const char *why = "";
        aws_request(&h, "host;x-amz-date");
        if (!sigv4_sign(vectors[i].method, "example.amazonaws.com", vectors[i].target, &h, AWS_KEY, hash, &why))
            fail_msg("%s", why);
        snprintf(want, sizeof want, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=%s",
                 vectors[i].signature);
        assert_string_equal(only(&h, "authorization"), want);
        headers_finish(&h);
    }
}

static void aws_requests_that_cannot_be_signed_are_refused(void **state)
{
    struct headers h;
    const char *why = "";
    (void)state;
    aws_request(&h, "host;x-amz-date");
    assert_false(sigv4_sign("GET", "example.amazonaws.com", "/", &h, AWS_KEY, NULL, &why)); /* the hash of its content is not known */
    assert_non_null(strstr(why, "x-amz-content-sha256"));
    add(&h, "x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    assert_false(sigv4_sign("PUT", "example.amazonaws.com", "/", &h, AWS_KEY, NULL, &why));
    headers_finish(&h);
    headers_init(&h);
    add(&h, "authorization", "Bearer attacker");
    assert_false(sigv4_sign("GET", "example.amazonaws.com", "/", &h, AWS_KEY, "00", &why));
    headers_finish(&h);
    headers_init(&h);
    add(&h, "authorization", "AWS4-HMAC-SHA256 Credential=A/20150830/us-east-1/../aws4_request, SignedHeaders=host\x01, Signature=0");
    add(&h, "x-amz-date", "20150830T123600Z");
    assert_false(sigv4_sign("GET", "example.amazonaws.com", "/", &h, AWS_KEY, "00", &why));
    headers_finish(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threat_73_every_copy_of_a_credential_goes),
        cmocka_unit_test(threat_73_no_key_among_subprotocols),
        cmocka_unit_test(threat_73_trailers_bear_no_credential),
        cmocka_unit_test(threat_72_nothing_without_tls),
        cmocka_unit_test(placeholders_are_replaced_where_they_stand),
        cmocka_unit_test(threat_64_sentinels_are_seen_in_every_spelling),
        cmocka_unit_test(aws_signatures_are_the_published_ones),
        cmocka_unit_test(aws_requests_that_cannot_be_signed_are_refused),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
