/* HTTP/2 between two ends that are buffers: the bounds on what a hostile peer can make us hold, each by itself.  (On the
 * cable one stands before the other, so taking one out would not show: threat 46.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>

#include "net/h2proxy.h"

#define ROOM (1u << 20)

/* The guest's side of the connection. */
static struct wire {
    uint8_t in[ROOM], out[ROOM]; /* towards the proxy, and from it */
    size_t in_len, in_pos, out_len;
    size_t piece; /* a read gives no more */
    size_t takes; /* of what the proxy says; then it reads no more */
    unsigned reads;
    unsigned asked, failed;
    bool shut, eof, crowded;
} w;

static ssize_t wire_read(void *arg, void *buf, size_t n)
{
    size_t take = w.in_len - w.in_pos;
    (void)arg;
    take = take < n ? take : n;
    take = take < w.piece ? take : w.piece;
    if (take == 0)
        return w.eof ? 0 : END_AGAIN;
    memcpy(buf, w.in + w.in_pos, take);
    w.in_pos += take;
    w.reads++;
    return (ssize_t)take;
}

static ssize_t wire_write(void *arg, const void *buf, size_t n)
{
    size_t room = w.takes - w.out_len;
    (void)arg;
    n = n < room ? n : room;
    if (n == 0)
        return END_AGAIN;
    memcpy(w.out + w.out_len, buf, n);
    w.out_len += n;
    return (ssize_t)n;
}

static void wire_shutdown(void *arg)
{
    (void)arg;
    w.shut = true;
}

static void on_request(void *arg, const struct proxy_request *r)
{
    (void)arg;
    (void)r;
    w.asked++; /* and it is not answered yet */
}

static void on_mismatch(void *arg, const char *seen, bool one)
{
    (void)arg;
    (void)seen;
    (void)one;
}

static void on_failed(void *arg, int status, const char *why)
{
    (void)arg;
    (void)status;
    (void)why;
    w.failed++;
}

static bool on_crowded(void *arg)
{
    (void)arg;
    return w.crowded;
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static const struct end_ops ops = {wire_read, wire_write, wire_shutdown, never};
static struct end guest, up;
static struct proxy_owner owner = {.name = "two.test", .port = 80, .request = on_request, .mismatch = on_mismatch, .failed = on_failed,
                                    .crowded = on_crowded};

/* What the server says. */
static uint8_t said[16384];
static size_t said_len, said_pos;
/* And what it was sent. */
static uint8_t told[ROOM];
static size_t told_len;

static ssize_t up_read(void *arg, void *buf, size_t n)
{
    size_t take = said_len - said_pos < n ? said_len - said_pos : n;
    (void)arg;
    if (take == 0)
        return END_AGAIN;
    memcpy(buf, said + said_pos, take);
    said_pos += take;
    return (ssize_t)take;
}

static ssize_t up_write(void *arg, const void *buf, size_t n)
{
    (void)arg;
    assert_true(told_len + n <= ROOM);
    memcpy(told + told_len, buf, n);
    told_len += n;
    return (ssize_t)n;
}

static const struct end_ops up_ops = {up_read, up_write, wire_shutdown, never};

static struct h2proxy *fresh(void)
{
    memset(&w, 0, sizeof w);
    said_len = said_pos = told_len = 0;
    w.piece = w.takes = ROOM;
    end_init(&guest, &ops, NULL);
    end_init(&up, &up_ops, NULL);
    struct h2proxy *p = h2proxy_new(&guest, &up, &owner);
    assert_non_null(p);
    return p;
}

static void put(const void *bytes, size_t n)
{
    assert_true(w.in_len + n <= ROOM);
    memcpy(w.in + w.in_len, bytes, n);
    w.in_len += n;
}

static void put_frame(uint8_t type, uint8_t flags, uint32_t stream, const void *body, size_t n)
{
    const uint8_t head[] = {(uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n, type, flags,
                            (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    put(head, sizeof head);
    put(body, n);
}

static void greet(void)
{
    put(NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
    put_frame(NGHTTP2_SETTINGS, 0, 0, "", 0);
}

/* Frames of a type that came back; the flags have to be these. */
static unsigned frames(uint8_t type, uint8_t flags)
{
    unsigned n = 0;
    for (size_t at = 0; at + 9 <= w.out_len;) {
        size_t len = (size_t)w.out[at] << 16 | (size_t)w.out[at + 1] << 8 | w.out[at + 2];
        n += w.out[at + 3] == type && w.out[at + 4] == flags;
        at += 9 + len;
    }
    return n;
}

/* Who does not read what we say is not read either. */
static void threat_46_no_reading_while_nothing_is_taken(void **state)
{
    struct h2proxy *p = fresh();
    (void)state;
    greet();
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    w.takes = w.out_len; /* from here on */
    w.piece = 1700;
    for (int i = 0; i < 900; i++)
        put_frame(NGHTTP2_PING, 0, 0, "12345678", 8);
    unsigned before = w.reads;
    for (int i = 0; i < 20; i++)
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
    assert_int_equal(w.reads - before, 1); /* whose answers wait */
    w.takes = ROOM;
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    assert_int_equal(frames(NGHTTP2_PING, 1), 900); /* and nothing was lost */
    h2proxy_free(p);
}

/* What one read can make us say is bounded, too. */
static void threat_46_answers_that_pile_up(void **state)
{
    for (int many = 0; many < 2; many++) {
        struct h2proxy *p = fresh();
        (void)state;
        greet();
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        unsigned n = many ? 1800 : 900; /* within one buffer */
        for (unsigned i = 0; i < n; i++)
            put_frame(NGHTTP2_PING, 0, 0, "12345678", 8);
        enum proxy_state s = h2proxy_step(p);
        assert_int_equal(s, many ? PROXY_DONE : PROXY_GOING);
        assert_int_equal(w.failed, many);
        if (!many)
            assert_int_equal(frames(NGHTTP2_PING, 1), n);
        else
            assert_true(frames(NGHTTP2_PING, 1) <= 1000);
        h2proxy_free(p);
    }
}

static size_t block_of(uint8_t *block, size_t cap)
{
    nghttp2_hd_deflater *deflater;
#define NV(n, v) {(uint8_t *)(n), (uint8_t *)(v), sizeof(n) - 1, sizeof(v) - 1, NGHTTP2_NV_FLAG_NO_INDEX}
    const nghttp2_nv nv[] = {NV(":method", "GET"), NV(":scheme", "http"), NV(":authority", "two.test"), NV(":path", "/ok")};
    assert_int_equal(nghttp2_hd_deflate_new(&deflater, 0), 0);
    ssize_t n = nghttp2_hd_deflate_hd(deflater, block, cap, nv, 4);
    assert_true(n > 0);
    nghttp2_hd_deflate_del(deflater);
    return (size_t)n;
}

/* A server that breaks the protocol ends its connection, and with it what waits for it, at once. */
static void threat_45_46_a_server_that_breaks_the_protocol(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } frames_[] = {
#define F(text) {text, sizeof text - 1}
        F("\0\0\x04\x05\x04\0\0\0\1\0\0\0\2"),                                  /* pushes although it was told not to */
        F("\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff"), /* opens a window too far */
        F("\0\0\5\0\0\0\0\0\7hello"),                                             /* data of no stream */
        F("\0\0\1\x01\4\0\0\0\1\xff"),                                             /* a head that does not unpack */
    };
    uint8_t block[400];
    size_t n = block_of(block, sizeof block);
    (void)state;
    for (size_t i = 0; i < sizeof frames_ / sizeof *frames_; i++) {
        struct h2proxy *p = fresh();
        const struct proxy_verdict v = {.allow = true};
        greet();
        put_frame(NGHTTP2_HEADERS, 5, 1, block, n);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        h2proxy_answer(p, 1, &v);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        memcpy(said, "\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0", 18); /* its settings, and that it took ours */
        memcpy(said + 18, frames_[i].bytes, frames_[i].n);
        said_len = 18 + frames_[i].n;
        for (int k = 0; k < 3; k++)
            h2proxy_step(p);
        if (frames(NGHTTP2_HEADERS, 4) + frames(NGHTTP2_HEADERS, 5) + frames(NGHTTP2_RST_STREAM, 0) != 1 || frames(NGHTTP2_GOAWAY, 0) != 1)
            fail_msg("frame %zu: its request waits on: %u %u %u %u", i, frames(1, 4), frames(1, 5), frames(3, 0), frames(7, 0));
        h2proxy_free(p);
    }
}

/* What a server says of other ways to it, and of other names that it speaks for, ends here (RFC 7838, RFC 8336). */
static void threat_45_57_no_word_of_other_ways(void **state)
{
    static const char words[] = "\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0\0\0\x10\x0c\0\0\0\0\0\0\x0ehttps://b.test\0\0\x08\x0a\0\0\0\0\1\0\0h3=\"\"x"
                                "\0\0\1\1\5\0\0\0\1\x88"; /* :status 200 */
    uint8_t block[400];
    const struct proxy_verdict v = {.allow = true};
    struct h2proxy *p = fresh();
    (void)state;
    greet();
    put_frame(NGHTTP2_HEADERS, 5, 1, block, block_of(block, sizeof block));
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    h2proxy_answer(p, 1, &v);
    memcpy(said, words, sizeof words - 1);
    said_len = sizeof words - 1;
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    assert_int_equal(frames(NGHTTP2_HEADERS, 5), 1);
    assert_int_equal(frames(NGHTTP2_ORIGIN, 0) + frames(NGHTTP2_ALTSVC, 0), 0);
    h2proxy_free(p);
}

/* Requests that are reset while they are judged stay until they are: no more of them than so many. */
static void threat_46_requests_that_are_reset_while_they_are_judged(void **state)
{
    struct h2proxy *p = fresh();
    static const uint8_t cancel[] = {0, 0, 0, 8};
    uint8_t block[400];
    size_t n = block_of(block, sizeof block);
    (void)state;
    greet();
    for (uint32_t i = 0; i < 600; i++) { /* fewer than nghttp2 itself takes for an attack */
        put_frame(NGHTTP2_HEADERS, 5, 2 * i + 1, block, n);
        put_frame(NGHTTP2_RST_STREAM, 0, 2 * i + 1, cancel, sizeof cancel);
    }
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    assert_int_equal(w.in_pos, w.in_len);
    assert_int_equal(w.asked, 4 * H2_STREAMS_MAX);
    assert_false(h2proxy_idle(p));
    /* Answered, they go, and there is room again. */
    const struct proxy_verdict v = {.allow = true};
    for (uint32_t i = 1; i <= w.asked; i++)
        h2proxy_answer(p, i, &v);
    assert_true(h2proxy_idle(p));
    put_frame(NGHTTP2_HEADERS, 5, 2001, block, n);
    h2proxy_step(p);
    assert_int_equal(w.asked, 4 * H2_STREAMS_MAX + 1);
    h2proxy_free(p);
}

/* The types of the frames in there, and D, H where they end a stream; data, heads, resets and farewells alone. */
static const char *story(const uint8_t *bytes, size_t n, char out[64])
{
    size_t k = 0;
    for (size_t at = 0; at + 9 <= n && k < 63;) {
        bool end = bytes[at + 4] & NGHTTP2_FLAG_END_STREAM;
        switch (bytes[at + 3]) {
        case NGHTTP2_DATA:
            if (!k || end || out[k - 1] != 'd')
                out[k++] = end ? 'D' : 'd';
            break;
        case NGHTTP2_HEADERS:
            out[k++] = end ? 'H' : 'h';
            break;
        case NGHTTP2_RST_STREAM:
            out[k++] = 'r';
            out[k++] = (char)('0' + bytes[at + 12]);
            break;
        case NGHTTP2_GOAWAY:
            out[k++] = 'g';
        }
        at += 9 + ((size_t)bytes[at] << 16 | (size_t)bytes[at + 1] << 8 | bytes[at + 2]);
    }
    out[k] = '\0';
    return out;
}

/* A head of 60 KB in some sixty bytes: the first makes a table that the others name. */
static size_t swollen(uint8_t *block, size_t cap, bool first)
{
    static nghttp2_hd_deflater *deflater;
    static char large[3000];
    nghttp2_nv nv[24] = {NV(":method", "GET"), NV(":scheme", "http"), NV(":authority", "two.test"), NV(":path", "/ok")};
    if (first && deflater)
        nghttp2_hd_deflate_del(deflater);
    if (first)
        assert_int_equal(nghttp2_hd_deflate_new(&deflater, 4096), 0);
    memset(large, 'x', sizeof large);
    for (int i = 4; i < 24; i++)
        nv[i] = (nghttp2_nv){(uint8_t *)"x", (uint8_t *)large, 1, sizeof large, NGHTTP2_NV_FLAG_NONE};
    ssize_t n = nghttp2_hd_deflate_hd(deflater, block, cap, nv, 24);
    assert_true(n > 0);
    return (size_t)n;
}

/* Heads that unpack to a thousand times their length, and wait while they are judged: so much of a connection, so much of all. */
static void threat_46_heads_that_unpack(void **state)
{
    enum { MANY = 15 };
    static struct h2proxy *p[MANY];
    uint8_t block[8192];
    unsigned asked = 0;
    (void)state;
    for (int i = 0; i < MANY; i++) {
        p[i] = fresh();
        greet();
        for (uint32_t k = 0; k < H2_STREAMS_MAX; k++)
            put_frame(NGHTTP2_HEADERS, 5, 2 * k + 1, block, swollen(block, sizeof block, k == 0));
        assert_int_equal(h2proxy_step(p[i]), PROXY_GOING);
        assert_int_equal(w.in_pos, w.in_len);
        assert_in_range(w.asked, i < 8 ? 50 : 0, 90);
        assert_int_equal(w.asked + frames(NGHTTP2_RST_STREAM, 0), H2_STREAMS_MAX);
        asked += w.asked;
    }
    assert_in_range(asked, 500, 1000);
    assert_in_range(proxy_heads_held(), 1, PROXY_HEADS_ALL);
    for (int i = 0; i < MANY; i++)
        h2proxy_free(p[i]);
    assert_int_equal(proxy_heads_held(), 0);
}

/* One request is allowed, and its server has greeted. */
static void under_way(struct h2proxy *p)
{
    uint8_t block[400];
    const struct proxy_verdict v = {.allow = true};
    greet();
    put_frame(NGHTTP2_HEADERS, 5, 1, block, block_of(block, sizeof block));
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    h2proxy_answer(p, 1, &v);
    memcpy(said, "\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0", 18);
    said_len = 18;
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
}

/* What a server says before its answer waits for a guest that reads nothing: not without end. */
static void threat_46_a_server_that_only_informs(void **state)
{
    static uint8_t told_frame[4096];
    char seen[64] = "";
    nghttp2_hd_deflater *deflater;
    struct h2proxy *p = fresh();
    char large[2000];
    (void)state;
    memset(large, 'x', sizeof large);
    assert_int_equal(nghttp2_hd_deflate_new(&deflater, 0), 0);
    const nghttp2_nv nv[] = {NV(":status", "103"), {(uint8_t *)"link", (uint8_t *)large, 4, sizeof large, NGHTTP2_NV_FLAG_NO_INDEX}};
    ssize_t n = nghttp2_hd_deflate_hd(deflater, told_frame + 9, sizeof told_frame - 9, nv, 2);
    memcpy(told_frame, "\0\0\0\1\4\0\0\0\1", 9);
    told_frame[1] = (uint8_t)(n >> 8);
    told_frame[2] = (uint8_t)n;
    under_way(p);
    for (int slow = 0; slow < 2; slow++) {
        w.takes = slow ? w.out_len : ROOM;
        for (int i = 0; i < 400; i++) { /* of these it reads all; then none */
            said_pos = 0;
            said_len = 9 + (size_t)n;
            memcpy(said, told_frame, said_len);
            w.out_len = slow ? w.out_len : 0;
            assert_int_equal(h2proxy_step(p), PROXY_GOING);
        }
        assert_string_equal(story(told + NGHTTP2_CLIENT_MAGIC_LEN, told_len - NGHTTP2_CLIENT_MAGIC_LEN, seen), slow ? "Hr2" : "H");
    }
    assert_in_range(proxy_heads_held(), 1, 512 * 1024);
    nghttp2_hd_deflate_del(deflater);
    h2proxy_free(p);
}

/* Nor does it say without end that it leaves. */
static void threat_46_a_server_that_leaves_and_leaves(void **state)
{
    struct h2proxy *p = fresh();
    (void)state;
    under_way(p);
    for (int i = 0; i < 100; i++) {
        memcpy(said, "\0\0\x08\7\0\0\0\0\0\0\0\0\1\0\0\0\0", 17);
        said_pos = 0;
        said_len = 17;
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
    }
    assert_int_equal(frames(NGHTTP2_GOAWAY, 0), 1);
    h2proxy_free(p);
}

/* What peers may send before it is passed on is a megabyte of a connection: not of five hundred. */
static void threat_81_windows_of_many_connections(void **state)
{
    enum { MANY = 40 };
    struct h2proxy *p[MANY];
    unsigned wide = 0;
    (void)state;
    for (int i = 0; i < MANY; i++) {
        p[i] = fresh();
        greet();
        assert_int_equal(h2proxy_step(p[i]), PROXY_GOING);
        wide += frames(NGHTTP2_WINDOW_UPDATE, 0);
    }
    assert_int_equal(wide, H2_WIDE_MAX);
    h2proxy_free(p[0]);
    p[0] = fresh();
    assert_int_equal(h2proxy_step(p[0]), PROXY_GOING);
    assert_int_equal(frames(NGHTTP2_WINDOW_UPDATE, 0), 1);
    for (int i = 0; i < MANY; i++)
        h2proxy_free(p[i]);
}

/* Where no more can be asked, requests wait at the guest. */
static void threat_46_requests_that_cannot_be_judged_yet(void **state)
{
    struct h2proxy *p = fresh();
    uint8_t block[400];
    size_t n = block_of(block, sizeof block);
    (void)state;
    greet();
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    w.crowded = true;
    for (uint32_t i = 0; i < 50; i++)
        put_frame(NGHTTP2_HEADERS, 5, 2 * i + 1, block, n);
    size_t at = w.in_pos;
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    assert_int_equal(w.in_pos, at);
    assert_int_equal(w.asked, 0);
    w.crowded = false;
    assert_int_equal(h2proxy_step(p), PROXY_GOING);
    assert_int_equal(w.asked, 50);
    h2proxy_free(p);
}

static void say(const char *bytes, size_t n)
{
    assert_true(said_len + n <= sizeof said);
    memcpy(said + said_len, bytes, n);
    said_len += n;
}

/* What is held back, as it could become a secret, counts as read when its client goes: the connection's window stays. */
static void what_is_held_back_of_an_answer_that_is_given_up(void **state)
{
    static struct answer_secret a = {.header = "authorization"};
    static uint8_t frame[9 + 7990] = {0, 7990 >> 8, 7990 & 255, 0, 0};
    static const uint8_t cancel[] = {0, 0, 0, 8};
    uint8_t block[400];
    unsigned opened = 0;
    (void)state;
    owner.tls = true;
    owner.port = 443;
    struct h2proxy *p = fresh();
    greet();
    for (int i = 0; i < 8000; i++)
        a.value[i] = (char)('a' + i * 7 % 26);
    memset(a.sentinel, 'S', 8000);
    strcpy(a.written, a.value);
    memcpy(frame + 9, a.value, 7990);
    for (uint32_t k = 0; k < 70; k++) {
        struct proxy_verdict v = {.allow = true};
        nghttp2_hd_deflater *deflater;
        const nghttp2_nv nv[] = {NV(":method", "GET"), NV(":scheme", "https"), NV(":authority", "two.test"), NV(":path", "/ok")};
        assert_int_equal(nghttp2_hd_deflate_new(&deflater, 0), 0);
        ssize_t n = nghttp2_hd_deflate_hd(deflater, block, sizeof block, nv, 4);
        nghttp2_hd_deflate_del(deflater);
        put_frame(NGHTTP2_HEADERS, 5, 2 * k + 1, block, (size_t)n);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        a.request = k + 1;
        assert_true(credentials_add(&v.secrets, &a));
        h2proxy_answer(p, k + 1, &v);
        said_len = said_pos = 0;
        if (k == 0)
            say("\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0", 18);
        const char head[] = {0, 0, 1, 1, 4, 0, 0, 0, (char)(2 * k + 1), (char)0x88};
        say(head, sizeof head);
        frame[8] = (uint8_t)(2 * k + 1);
        say((char *)frame, sizeof frame);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        put_frame(NGHTTP2_RST_STREAM, 0, 2 * k + 1, cancel, sizeof cancel);
        w.out_len = 0;
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
    }
    for (size_t at = NGHTTP2_CLIENT_MAGIC_LEN; at + 9 <= told_len;) {
        opened += told[at + 3] == NGHTTP2_WINDOW_UPDATE && !told[at + 8];
        at += 9 + ((size_t)told[at] << 16 | (size_t)told[at + 1] << 8 | told[at + 2]);
    }
    assert_int_equal(opened, 2); /* at first, and when half of it was read */
    h2proxy_free(p);
    owner.tls = false;
    owner.port = 80;
}

#define SETTINGS "\0\0\0\4\0\0\0\0\0\0\0\0\4\1\0\0\0\0"
#define HEAD_200 "\0\0\1\1\4\0\0\0\1\x88"
#define LAST_DATA "\0\0\5\0\1\0\0\0\1hello"
#define SOME_DATA "\0\0\5\0\0\0\0\0\1hello"
#define DONE_WITH(code) "\0\0\4\3\0\0\0\0\1\0\0\0" code
#define LEAVES "\0\0\x08\7\0\0\0\0\0\0\0\0\1\0\0\0\0"

/* A server that is done before the request is whole (RFC 9113 8.1): the answer arrives, then that it is done. */
static void a_server_that_is_done_first(void **state)
{
    static const struct {
        const char *bytes, *want;
        size_t n;
    } cases[] = {
#define C(text, want) {text, want, sizeof text - 1}
        C(HEAD_200 LAST_DATA DONE_WITH("\0"), "hDr0"),
        C(HEAD_200 LAST_DATA DONE_WITH("\x08"), "hDr8"),
        C(HEAD_200 SOME_DATA DONE_WITH("\0"), "hdr0"), /* cut short: it must not wait for more for ever */
        C(HEAD_200 SOME_DATA DONE_WITH("\2"), "hdr2"),
        C(HEAD_200 LAST_DATA LEAVES, "hDg"), /* some clients read no answer behind it */
    };
    uint8_t block[400];
    size_t n = block_of(block, sizeof block);
    char seen[64];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct h2proxy *p = fresh();
        const struct proxy_verdict v = {.allow = true};
        greet();
        put_frame(NGHTTP2_HEADERS, 4, 1, block, n);
        put_frame(NGHTTP2_DATA, 0, 1, "some", 4);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        h2proxy_answer(p, 1, &v);
        say(SETTINGS, 18);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        say(cases[i].bytes, cases[i].n);
        h2proxy_step(p);
        assert_string_equal(story(w.out, w.out_len, seen), cases[i].want);
        h2proxy_free(p);
    }
}

/* Both have said all, and a part of the request still waits for the server: it goes there, also when its client has gone. */
static void the_rest_of_a_request_that_is_answered(void **state)
{
    static uint8_t content[16384];
    uint8_t block[400];
    size_t n = block_of(block, sizeof block);
    char seen[64];
    (void)state;
    for (int gone = 0; gone < 2; gone++) {
        struct h2proxy *p = fresh();
        const struct proxy_verdict v = {.allow = true};
        greet();
        put_frame(NGHTTP2_HEADERS, 4, 1, block, n);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        h2proxy_answer(p, 1, &v);
        say(SETTINGS HEAD_200 LAST_DATA, 18 + 10 + 14);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        for (int i = 0; i < 6; i++) /* more than the server takes at first */
            put_frame(NGHTTP2_DATA, i == 5, 1, content, sizeof content);
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        assert_string_equal(story(w.out, w.out_len, seen), "hD");
        w.eof = gone;
        assert_int_equal(h2proxy_step(p), PROXY_GOING);
        say("\0\0\4\x08\0\0\0\0\0\0\1\0\0\0\0\4\x08\0\0\0\0\1\0\1\0\0", 26); /* its windows */
        assert_int_equal(h2proxy_step(p), gone ? PROXY_DONE : PROXY_GOING);
        size_t magic = NGHTTP2_CLIENT_MAGIC_LEN;
        assert_string_equal(story(told + magic, told_len - magic, seen), "hdD");
        assert_true(h2proxy_idle(p));
        h2proxy_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threat_46_no_reading_while_nothing_is_taken),
        cmocka_unit_test(threat_46_answers_that_pile_up),
        cmocka_unit_test(threat_45_46_a_server_that_breaks_the_protocol),
        cmocka_unit_test(threat_45_57_no_word_of_other_ways),
        cmocka_unit_test(threat_46_requests_that_are_reset_while_they_are_judged),
        cmocka_unit_test(what_is_held_back_of_an_answer_that_is_given_up),
        cmocka_unit_test(threat_46_heads_that_unpack),
        cmocka_unit_test(threat_46_a_server_that_only_informs),
        cmocka_unit_test(threat_46_a_server_that_leaves_and_leaves),
        cmocka_unit_test(threat_81_windows_of_many_connections),
        cmocka_unit_test(threat_46_requests_that_cannot_be_judged_yet),
        cmocka_unit_test(a_server_that_is_done_first),
        cmocka_unit_test(the_rest_of_a_request_that_is_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
