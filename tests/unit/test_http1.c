/* net/http1, httpbody, urlpath: what two servers could read differently is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/urlpath.h"
#include "net/http1.h"
#include "net/httpbody.h"
#include "net/plainhello.h"

/* Feeds it in pieces; the status of the refusal, or 0. */
static int request_in(const char *text, size_t len, size_t piece, struct http1_head *h)
{
    struct http1_reader r;
    struct http1_error e = {0};
    enum http1_result got = HTTP1_MORE;
    size_t at = 0;
    http1_reader_init(&r);
    http1_head_init(h);
    while (got == HTTP1_MORE && at < len) {
        size_t used, n = len - at < piece ? len - at : piece;
        got = http1_read(&r, (const uint8_t *)text + at, n, &used, &e);
        at += used;
        if (used < n)
            break;
    }
    if (got == HTTP1_DONE && http1_parse_request(h, &r, &e))
        return 0;
    http1_reader_finish(&r);
    return got == HTTP1_MORE ? -1 : e.status;
}

static int request(const char *text, struct http1_head *h)
{
    struct http1_head other;
    int whole = request_in(text, strlen(text), strlen(text), h);
    for (size_t piece = 1; piece < 9; piece++) {
        assert_int_equal(request_in(text, strlen(text), piece, &other), whole);
        http1_head_finish(&other);
    }
    return whole;
}

static void check_refused(const char *const *texts, size_t n)
{
    struct http1_head h;
    for (size_t i = 0; i < n; i++) {
        if (request(texts[i], &h) <= 0)
            fail_msg("this was accepted: %s", texts[i]);
        http1_head_finish(&h);
    }
}

#define REFUSED(...) \
    do { \
        static const char *const texts[] = {__VA_ARGS__}; \
        check_refused(texts, sizeof texts / sizeof *texts); \
    } while (0)
#define H "Host: a.example\r\n"

static void ordinary_requests_pass(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "GET / HTTP/1.1\r\n" H "\r\n",
        "GET /a/b?c=d&e=%20 HTTP/1.1\r\nhost: A.Example:443\r\nAccept: */*\r\nUser-Agent: curl/7.88.1\r\n\r\n",
        "POST /v1/messages HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Type: application/json\r\n\r\n",
        "POST /x HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n",
        "POST /git-upload-pack HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n",
        "GET http://a.example/x HTTP/1.1\r\n" H "\r\n",
        "OPTIONS * HTTP/1.1\r\n" H "\r\n",
        "GET /chat HTTP/1.1\r\n" H "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n",
        "GET / HTTP/1.1\r\n" H "Empty:\r\nTab:\tx\ty\r\nUtf: \xc3\xa9\r\n\r\n",
    };
    struct http1_head h;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        int rc = request(texts[i], &h);
        if (rc != 0)
            fail_msg("refused with %d: %s", rc, texts[i]);
        assert_string_equal(h.host, "a.example");
        size_t len;
        char *written = http1_write_request(&h, 443, true, &len);
        /* What is written anew reads the same. */
        struct http1_head again;
        assert_int_equal(request_in(written, len, len, &again), 0);
        assert_string_equal(again.method, h.method);
        assert_string_equal(again.target, h.target);
        assert_int_equal(again.framing, h.framing);
        http1_head_finish(&again);
        free(written);
        http1_head_finish(&h);
    }
}

static void threat_24_both_lengths(void **state)
{
    (void)state;
    REFUSED("POST / HTTP/1.1\r\n" H "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
            "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n");
}

static void threat_24_lengths_that_differ_or_are_no_numbers(void **state)
{
    (void)state;
    REFUSED("POST / HTTP/1.1\r\n" H "Content-Length: 4\r\nContent-Length: 5\r\n\r\n", "POST / HTTP/1.1\r\n" H "Content-Length: 4\r\nContent-Length: 4\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Content-Length: 4, 4\r\n\r\n", "POST / HTTP/1.1\r\n" H "Content-Length: +4\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", "POST / HTTP/1.1\r\n" H "Content-Length: 0x4\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Content-Length: 4 \t5\r\n\r\n", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999999\r\n\r\n", "POST / HTTP/1.1\r\n" H "Content_Length: 4\r\n\r\n");
}

static void threat_24_transfer_codings_but_chunked(void **state)
{
    (void)state;
    REFUSED("POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", "POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, identity\r\n\r\n", "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\x0b" "chunked\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Transfer-Encoding: \"chunked\"\r\n\r\n", "POST / HTTP/1.1\r\n" H " Transfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "X: y\nTransfer-Encoding: chunked\r\n\r\n", "POST / HTTP/1.1\r\n" H "Transfer_Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n chunked\r\n\r\n", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;x=y\r\n\r\n");
}

static void threat_25_line_ends_folds_and_control_bytes(void **state)
{
    (void)state;
    REFUSED("GET / HTTP/1.1\n" H "\n", "GET / HTTP/1.1\r\n" H "A: b\rC: d\r\n\r\n",
            "GET / HTTP/1.1\r\n" H "A: b\rXC: d\r\n\r\n", "GET / HTTP/1.1\r\n" H "A: b\r\rC: d\r\n\r\n", "GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\n" H "A: \x01\r\n\r\n", "GET / HTTP/1.1\r\n" H "A : b\r\n\r\n", "GET / HTTP/1.1\r\n" H ": b\r\n\r\n",
            "GET / HTTP/1.1\r\n" H "A\r\n\r\n", "GET / HTTP/1.1\r\n" H "A(b): c\r\n\r\n", "GET  / HTTP/1.1\r\n" H "\r\n", "GET /\t HTTP/1.1\r\n" H "\r\n",
            " GET / HTTP/1.1\r\n" H "\r\n", "GET / HTTP/1.1 \r\n" H "\r\n", "GET / HTTP/2.0\r\n" H "\r\n", "GET / http/1.1\r\n" H "\r\n",
            "GET / HTTP/1.1\r\n" H "\xef\xbb\xbf" "A: b\r\n\r\n", "get / HTTP/1.1\r\n" H "\r\n");
    struct http1_head h;
    static const char nul[] = "GET / HTTP/1.1\r\nHost: a.example\r\nA: b\0c\r\n\r\n";
    assert_true(request_in(nul, sizeof nul - 1, sizeof nul, &h) > 0);
    http1_head_finish(&h);
}

static void threat_23_host_exactly_once_and_canonical(void **state)
{
    (void)state;
    REFUSED("GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n" H H "\r\n", "GET / HTTP/1.1\r\n" H "Host: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n", "GET / HTTP/1.1\r\nHost: user@a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example:\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example:0\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example:065\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example:65536\r\n\r\n", "GET / HTTP/1.1\r\nHost: a.example/x\r\n\r\n", "GET / HTTP/1.1\r\nHost: 127.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 0x7f.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: [::1%25eth0]\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET //a.example/ HTTP/1.0\r\n\r\n", "GET a.example HTTP/1.1\r\n" H "\r\n");
}

static void threat_22_absolute_form_must_name_the_same_host(void **state)
{
    (void)state;
    REFUSED("GET http://b.example/ HTTP/1.1\r\n" H "\r\n", "GET http://u@a.example/ HTTP/1.1\r\n" H "\r\n", "GET ftp://a.example/ HTTP/1.1\r\n" H "\r\n",
            "GET http://a.example:8080/ HTTP/1.1\r\n" H "\r\n", "GET http:/// HTTP/1.1\r\n" H "\r\n");
}

static void threat_39_connection_names_what_must_stay(void **state)
{
    (void)state;
    REFUSED("GET / HTTP/1.1\r\n" H "Connection: authorization\r\nAuthorization: x\r\n\r\n", "GET / HTTP/1.1\r\n" H "Connection: close, Host\r\n\r\n",
            "GET / HTTP/1.1\r\n" H "Connection: X_Api_Key\r\n\r\n", "POST / HTTP/1.1\r\n" H "Connection: content-length\r\nContent-Length: 3\r\n\r\n",
            "GET / HTTP/1.1\r\n" H "Connection: a b\r\n\r\n");
    struct http1_head h;
    assert_int_equal(request("GET / HTTP/1.1\r\n" H "Connection: keep-alive, X-Hop\r\nX-Hop: gone\r\nProxy-Authorization: gone\r\nKeep-Alive: gone\r\n"
                             "TE: gone\r\nX-Stay: here\r\n\r\n", &h), 0);
    assert_null(headers_get(&h.fields, "x-hop"));
    assert_null(headers_get(&h.fields, "proxy-authorization"));
    assert_null(headers_get(&h.fields, "keep-alive"));
    assert_non_null(headers_get(&h.fields, "x-stay"));
    http1_head_finish(&h);
}

static void threat_36_methods_that_are_not_passed_on(void **state)
{
    (void)state;
    REFUSED("CONNECT a.example:443 HTTP/1.1\r\n" H "\r\n", "CONNECT / HTTP/1.1\r\n" H "\r\n", "TRACK / HTTP/1.1\r\n" H "\r\n",
            "PRI / HTTP/1.1\r\n" H "\r\n", "TRACE / HTTP/1.1\r\n" H "\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "G(T / HTTP/1.1\r\n" H "\r\n", "\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n");
}

static void threat_40_a_field_that_asks_for_another_method_is_told(void **state)
{
    (void)state;
    struct http1_head h;
    static const char *const fields[] = {"X-HTTP-Method-Override: DELETE", "X-Method-Override: PUT", "x-http-method: PATCH", "X_HTTP_Method_Override: DELETE",
                                         "X-Original-URL: /x", "x-rewrite-url: /x", "X_Override_URL: /x"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char text[200];
        snprintf(text, sizeof text, "POST / HTTP/1.1\r\n" H "%s\r\n\r\n", fields[i]);
        assert_int_equal(request(text, &h), 0);
        assert_true(h.override);
        http1_head_finish(&h);
    }
}

static void threat_42_sizes_have_bounds(void **state)
{
    (void)state;
    char *big = malloc(300000);
    struct http1_head h;
    size_t n = (size_t)sprintf(big, "GET / HTTP/1.1\r\n" H "A: ");
    memset(big + n, 'x', 100000);
    strcpy(big + n + 100000, "\r\n\r\n");
    assert_true(request_in(big, strlen(big), 4096, &h) > 0);
    http1_head_finish(&h);
    n = (size_t)sprintf(big, "GET / HTTP/1.1\r\n" H);
    for (int i = 0; i < 2000; i++)
        n += (size_t)sprintf(big + n, "A%d: b\r\n", i);
    strcpy(big + n, "\r\n");
    assert_true(request_in(big, strlen(big), 4096, &h) > 0);
    http1_head_finish(&h);
    n = (size_t)sprintf(big, "GET /");
    memset(big + n, 'x', 100000);
    strcpy(big + n + 100000, " HTTP/1.1\r\n" H "\r\n");
    assert_true(request_in(big, strlen(big), 4096, &h) > 0);
    http1_head_finish(&h);
    free(big);
}

/* ---- bodies ---- */

/* The content, or false; the same for every split. */
static bool body(const char *coded, size_t piece, char *out)
{
    struct httpbody b;
    size_t at = 0, len = strlen(coded), n = 0;
    httpbody_init(&b, HTTP1_CHUNKED, 0);
    while (!b.done && at < len) {
        size_t used, got, take = len - at < piece ? len - at : piece;
        const uint8_t *content;
        if (!httpbody_take(&b, (const uint8_t *)coded + at, take, &used, &content, &got))
            return false;
        memcpy(out + n, content, got);
        n += got;
        at += used;
        if (!used)
            return false;
    }
    out[n] = '\0';
    return b.done;
}

static void threat_26_chunks(void **state)
{
    (void)state;
    static char long_extension[5000];
    static const struct {
        const char *coded, *content;
    } cases[] = {
        {"5\r\nhello\r\n0\r\n\r\n", "hello"}, {"5;a=b\r\nhello\r\n0\r\n\r\n", "hello"}, {"5\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n", "hello world"},
        {"0\r\n\r\n", ""}, {"005\r\nhello\r\n0\r\n\r\n", "hello"}, {"A\r\n0123456789\r\n0\r\n\r\n", "0123456789"},
        {"5\nhello\n0\n\n", NULL}, {"5 \r\nhello\r\n0\r\n\r\n", NULL}, {"0x5\r\nhello\r\n0\r\n\r\n", NULL}, {"-5\r\nhello\r\n0\r\n\r\n", NULL},
        {"5\r\nhelloX\r\n0\r\n\r\n", NULL}, {"5\r\nhello\n0\r\n\r\n", NULL}, {"\r\n5\r\nhello\r\n0\r\n\r\n", NULL}, {"g\r\n\r\n", NULL},
        {"fffffffffffffffff\r\nx", NULL}, {"5;\x01\r\nhello\r\n0\r\n\r\n", NULL}, {"0\r\nX\r\n\r\n", NULL}, {"0\r\n X: y\r\n\r\n", NULL},
        {"5\r\nhello\r\n0\r\n: y\r\n\r\n", NULL}, {"5;a\nb\r\nhello\r\n0\r\n\r\n", NULL},
        {"10000000000000005\r\nhello\r\n0\r\n\r\n", NULL}, {"0000000000000005\r\nhello\r\n0\r\n\r\n", NULL}, {"5\r\nhelloX\n0\r\n\r\n", NULL},
        {long_extension, NULL},
    };
    char out[256];
    memset(long_extension, 'x', sizeof long_extension);
    memcpy(long_extension, "5;", 2);
    strcpy(long_extension + sizeof long_extension - 20, "\r\nhello\r\n0\r\n\r\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t piece = 1; piece < 40; piece++) {
            bool good = body(cases[i].coded, piece, out);
            if (good != (cases[i].content != NULL))
                fail_msg("%s in pieces of %zu: %s", cases[i].coded, piece, good ? "accepted" : "refused");
            if (good)
                assert_string_equal(out, cases[i].content);
        }
}

/* ---- what is said first ---- */

static void threat_21_36_http_is_known_on_any_port(void **state)
{
    (void)state;
    static const struct {
        const char *said;
        enum plainhello what, at_end;
    } cases[] = {
        {"", PLAINHELLO_MORE, PLAINHELLO_OTHER}, {"GET", PLAINHELLO_MORE, PLAINHELLO_OTHER}, {"GET / HT", PLAINHELLO_MORE, PLAINHELLO_OTHER},
        {"GET / HTTP/1.1", PLAINHELLO_MORE, PLAINHELLO_HTTP}, {"GET / HTTP/1.1\r", PLAINHELLO_MORE, PLAINHELLO_HTTP},
        {"GET / HTTP/1.1\r\n", PLAINHELLO_HTTP, PLAINHELLO_HTTP}, {"\r\n\nfoo\t/ http/1.0\n", PLAINHELLO_HTTP, PLAINHELLO_HTTP},
        {"PRI * HTTP/2.0\r\n", PLAINHELLO_HTTP, PLAINHELLO_HTTP}, {"GET  /x  HTTP/9\n", PLAINHELLO_HTTP, PLAINHELLO_HTTP},
        {"GET /\xc3\xa4 HTTP/1.1\n", PLAINHELLO_HTTP, PLAINHELLO_HTTP},
        {"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", PLAINHELLO_OTHER, PLAINHELLO_OTHER}, {"EHLO x\r\n", PLAINHELLO_OTHER, PLAINHELLO_OTHER},
        {"PING\r\n", PLAINHELLO_OTHER, PLAINHELLO_OTHER}, {"*1\r\n$4\r\n", PLAINHELLO_OTHER, PLAINHELLO_OTHER},
        {"\1\2", PLAINHELLO_OTHER, PLAINHELLO_OTHER},
        {"\xff\xfd\x18", PLAINHELLO_OTHER, PLAINHELLO_OTHER}, {" GET / HTTP/1.1\n", PLAINHELLO_HTTP, PLAINHELLO_HTTP},
        {"GET\v/\1\fHTTP/1.1\n", PLAINHELLO_HTTP, PLAINHELLO_HTTP}, {"GET\r/ HTTP/1.1\n", PLAINHELLO_HTTP, PLAINHELLO_HTTP},
    };
    static uint8_t endless[HTTP1_LINE_MAX] = "GET /";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint8_t *p = (const uint8_t *)cases[i].said;
        size_t n = strlen(cases[i].said);
        assert_int_equal(plainhello_read(p, n, false), cases[i].what);
        assert_int_equal(plainhello_read(p, n, true), cases[i].at_end);
        for (size_t k = 0; k < n; k++) /* what was said of a beginning is not taken back */
            assert_true(plainhello_read(p, k, false) == PLAINHELLO_MORE || plainhello_read(p, k, false) == cases[i].what);
    }
    assert_int_equal(plainhello_read((const uint8_t *)"0032git-upload-pack /x\0host=HTTP/\0", 35, false), PLAINHELLO_OTHER);
    memset(endless + 5, 'x', sizeof endless - 5);
    assert_int_equal(plainhello_read(endless, sizeof endless - 1, false), PLAINHELLO_MORE);
    assert_int_equal(plainhello_read(endless, sizeof endless, false), PLAINHELLO_HTTP);
}

/* A head of `lines` field lines of `len` bytes each (with CR LF), the last of them `last` bytes. */
static int padded(size_t lines, size_t len, size_t last)
{
    static char text[4 * HTTP1_HEAD_MAX];
    struct http1_head h;
    char *p = text + sprintf(text, "GET / HTTP/1.1\r\n" H);
    for (size_t i = 0; i < lines; i++) {
        size_t n = i + 1 == lines ? last : len;
        memset(p, 'x', n);
        p[1] = ':';
        p[n - 2] = '\r';
        p[n - 1] = '\n';
        p += n;
    }
    memcpy(p, "\r\n", 3);
    int got = request_in(text, (size_t)(p - text) + 2, 4096, &h);
    http1_head_finish(&h);
    return got;
}

/* Each bound, to the byte: what is just within it passes, and one more does not. */
static void threat_42_bounds(void **state)
{
    static char line[HTTP1_LINE_MAX + 64];
    struct http1_head h;
    (void)state;
    assert_int_equal(padded(1, 0, HTTP1_LINE_MAX), 0);
    assert_int_equal(padded(1, 0, HTTP1_LINE_MAX + 1), 431);
    for (size_t extra = 0; extra < 2; extra++) { /* the first line */
        size_t n = HTTP1_LINE_MAX + extra;
        memset(line, 'x', sizeof line);
        memcpy(line, "GET /", 5);
        memcpy(line + n - 11, " HTTP/1.1\r\n", 11);
        memcpy(line + n, H "\r\n", sizeof H "\r\n");
        assert_int_equal(request_in(line, n + strlen(H "\r\n"), 4096, &h), extra ? 414 : 0);
        http1_head_finish(&h);
    }
    size_t head = strlen("GET / HTTP/1.1\r\n" H "\r\n"), rest = HTTP1_HEAD_MAX - head - 4 * 13000;
    assert_int_equal(padded(5, 13000, rest), 0);
    assert_int_equal(padded(5, 13000, rest + 1), 431);
    assert_int_equal(padded(HEADERS_MAX - 1, 8, 8), 0); /* and Host */
    assert_int_equal(padded(HEADERS_MAX, 8, 8), 431);
}

/* The same of a list of fields, however it came: HTTP/2 has no lines. */
static void threat_42_46_bounds_of_a_list(void **state)
{
    static char big[HEADERS_BYTES_MAX + 1];
    struct headers h;
    (void)state;
    memset(big, 'x', sizeof big);
    headers_init(&h);
    for (unsigned i = 0; i < HEADERS_MAX; i++)
        assert_true(headers_add(&h, "a", 1, "b", 1));
    assert_false(headers_add(&h, "a", 1, "b", 1));
    headers_finish(&h);
    headers_init(&h);
    assert_true(headers_add(&h, "a", 1, big, HEADERS_BYTES_MAX - 3));
    assert_false(headers_add(&h, "a", 1, "bc", 2));
    assert_true(headers_add(&h, "a", 1, "b", 1));
    assert_false(headers_add(&h, "", 0, "b", 1));
    headers_finish(&h);
    headers_init(&h);
    assert_false(headers_add(&h, "a", 1, big, HEADERS_BYTES_MAX));
    headers_finish(&h);
}

/* ---- paths ---- */

static void threat_41_paths_that_servers_read_differently(void **state)
{
    (void)state;
    static const char *const bad[] = {"/a/../b", "/a/./b", "/a//b", "/a/%2e%2e/b", "/a%2fb", "/a%5cb", "/a\\b", "/a;b", "/a%3bb", "/%", "/%g0", "/%00",
                                      "/a%252fb", "/a/..", "/.", "/%c0%af", "/%ff", "/a%0d%0ab", "//x", "/a/%2E/b", "x", "",
                                      "/...", "/a/..%20/b", "/a/%20../b", "/a/.%20./b", "/a/.%20", "/a/%ef%bc%8e%ef%bc%8e/b", "/a/%e2%80%a5/b", "/a/..%e2%80%8b/b",
                                      "/a%ef%bc%8fb", "/a%ef%bc%bcb", "/a/%c2%a0../b", "/a%c2%85b", "/a%e2%88%95..%e2%88%95b", "/a%ef%bc%85", "/%e3%80%82/"};
    static const char *const good[][2] = {{"/", "/"}, {"/a/b?c=../d", "/a/b"}, {"/%61", "/a"}, {"/a%20b", "/a%20b"}, {"/a:b", "/a:b"}, {"/a%3Ab", "/a:b"},
                                          {"/%e2%82%ac", "/%E2%82%AC"}, {"/a.b", "/a.b"}, {"/a.../..b", "/a.../..b"}, {"/%20/a%20", "/%20/a%20"}, {"/%c3%bc%c3%a0%c3%ad", "/%C3%BC%C3%A0%C3%AD"}, {"/%f0%9f%98%80", "/%F0%9F%98%80"}, {"*", "*"}, {"/~x/-_.!$&'()*+,=@", "/~x/-_.!$&'()*+,=@"}};
    char out[URLPATH_MAX + 1];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (urlpath_normalise(bad[i], out))
            fail_msg("\"%s\" was taken for \"%s\"", bad[i], out);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(urlpath_normalise(good[i][0], out));
        assert_string_equal(out, good[i][1]);
        char again[URLPATH_MAX + 1];
        assert_true(urlpath_normalise(out, again));
        assert_string_equal(again, out);
    }
}

/* ---- responses ---- */

static int response(const char *text, const char *method, struct http1_head *h)
{
    struct http1_reader r;
    struct http1_error e = {0};
    size_t used;
    http1_reader_init(&r);
    http1_head_init(h);
    if (http1_read(&r, (const uint8_t *)text, strlen(text), &used, &e) == HTTP1_DONE && http1_parse_response(h, &r, method, &e))
        return 0;
    http1_reader_finish(&r);
    return e.status ? e.status : -1;
}

static void threat_28_answers_with_two_lengths(void **state)
{
    (void)state;
    struct http1_head h;
    static const char *const bad[] = {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
                                      "HTTP/1.1 2OO OK\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\n", "HTTP/1.1 99 X\r\n\r\n", "ICY 200 OK\r\n\r\n",
                                      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 100 C\r\nTransfer-Encoding: chunked\r\n\r\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (response(bad[i], "GET", &h) == 0)
            fail_msg("accepted: %s", bad[i]);
        http1_head_finish(&h);
    }
    static const struct {
        const char *text, *method;
        enum http1_framing framing;
    } good[] = {{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "GET", HTTP1_LENGTH}, {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD", HTTP1_NO_BODY},
                {"HTTP/1.1 204 No\r\n\r\n", "GET", HTTP1_NO_BODY}, {"HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n", "GET", HTTP1_NO_BODY},
                {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", HTTP1_CHUNKED}, {"HTTP/1.0 200 OK\r\n\r\n", "GET", HTTP1_UNTIL_CLOSE}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(response(good[i].text, good[i].method, &h), 0);
        assert_int_equal(h.framing, good[i].framing);
        http1_head_finish(&h);
    }
}

static void websocket_keys(void **state)
{
    (void)state;
    char out[29];
    assert_true(http1_websocket_accept("dGhlIHNhbXBsZSBub25jZQ==", out)); /* RFC 6455 1.3 */
    assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_false(http1_websocket_accept("short", out));
    assert_false(http1_websocket_accept("dGhlIHNhbXBsZSBub25jZQ=x", out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_requests_pass),
        cmocka_unit_test(threat_22_absolute_form_must_name_the_same_host),
        cmocka_unit_test(threat_23_host_exactly_once_and_canonical),
        cmocka_unit_test(threat_24_both_lengths),
        cmocka_unit_test(threat_24_lengths_that_differ_or_are_no_numbers),
        cmocka_unit_test(threat_24_transfer_codings_but_chunked),
        cmocka_unit_test(threat_25_line_ends_folds_and_control_bytes),
        cmocka_unit_test(threat_26_chunks),
        cmocka_unit_test(threat_28_answers_with_two_lengths),
        cmocka_unit_test(threat_36_methods_that_are_not_passed_on),
        cmocka_unit_test(threat_39_connection_names_what_must_stay),
        cmocka_unit_test(threat_40_a_field_that_asks_for_another_method_is_told),
        cmocka_unit_test(threat_21_36_http_is_known_on_any_port),
        cmocka_unit_test(threat_41_paths_that_servers_read_differently),
        cmocka_unit_test(threat_42_sizes_have_bounds),
        cmocka_unit_test(threat_42_bounds),
        cmocka_unit_test(threat_42_46_bounds_of_a_list),
        cmocka_unit_test(websocket_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
