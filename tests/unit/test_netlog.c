#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "ui/dash/netlog_feed.h"
#include "ui/dash/netlog_index.h"
#include "ui/dash/netlog_pane.h"

static struct decision_row row(int64_t time, const char *kind, const char *host, const char *verdict)
{
    static int64_t seq;
    return (struct decision_row){.seq = ++seq, .time_ms = time, .kind = kind, .proto = "tcp", .host = host, .port = 443, .addr = "",
                                 .method = "", .path = "", .verdict = verdict, .rule = "posture locked-down", .reason = "", .count = 1};
}

static void add(struct netlog *n, const char *box, int64_t time, const char *host, const char *verdict)
{
    struct decision_row r = row(time, verdict[0] == 'd' ? "deny" : "open", host, verdict);
    netlog_add(n, box, &r);
}

static size_t count(struct netlog_view *v, const char *filter, const char *box)
{
    netlog_view_filter(v, filter, box);
    netlog_view_sync(v);
    return netlog_view_count(v);
}

static void test_filter(void **state)
{
    (void)state;
    struct netlog *n = netlog_new(0);
    struct netlog_view *v = netlog_view_new(n);
    struct decision_row r = row(5, "request", "api.Example.com", "allow");
    r.method = "POST";
    r.path = "/Repos/one";
    add(n, "a", 1, "registry.npmjs.org", "allow");
    add(n, "b", 2, "evil.example.com", "deny");
    add(n, "b", 3, "registry.npmjs.org", "deny");
    netlog_add(n, "a", &r);
    assert_int_equal(count(v, "", NULL), 4);
    assert_int_equal(count(v, "", "b"), 2);
    assert_int_equal(count(v, "npm", NULL), 2);
    assert_int_equal(count(v, "NPM deny", NULL), 1);
    assert_int_equal(count(v, "verdict:deny", NULL), 2);
    assert_int_equal(count(v, "-npm", NULL), 2);
    assert_int_equal(count(v, "host:example", NULL), 2);
    assert_int_equal(count(v, "repos", NULL), 1);
    assert_int_equal(count(v, "path:post", NULL), 1);
    assert_int_equal(count(v, "port:443", NULL), 4);
    assert_int_equal(count(v, "port:80", NULL), 0);
    assert_int_equal(count(v, "box:a", NULL), 2);
    assert_int_equal(count(v, "org:443", NULL), 2);
    assert_int_equal(count(v, "host:", NULL), 4); /* not typed to its end */
    /* What is added later is judged by the filter in force. */
    assert_int_equal(count(v, "evil", NULL), 1);
    add(n, "c", 9, "more.evil.test", "deny");
    add(n, "c", 9, "good.test", "deny");
    netlog_view_sync(v);
    assert_int_equal(netlog_view_count(v), 2);
    netlog_view_free(v);
    netlog_free(n);
}

/* Whatever comes, what is looked at stays; at the end it follows. */
/* What a letter more or less leaves of the bits must be what all the letters at once give. */
static void test_typed_letter_by_letter(void **state)
{
    static const char *const words[] = {"h1", "host:h", "-h2", "443", "port:80", "a:4", "deny", "verdict:al", "path:/x", "box:a", "get", "zz", "-host:h3", ":"};
    static const char *const hosts[] = {"h1.a", "h2.a", "h21.b", "h3", "get.x"}, *const boxes[] = {"a", "ab"};
    struct netlog *n = netlog_new(600);
    struct netlog_view *v = netlog_view_new(n);
    char text[200] = "";
    unsigned seed = 7;
    (void)state;
    for (int step = 0; step < 6000; step++) {
        unsigned r = seed = seed * 1103515245u + 12345u;
        r >>= 8;
        size_t len = strlen(text);
        if (r % 4 == 0) {
            struct decision_row row = {.seq = step, .time_ms = step, .kind = r & 64 ? "request" : "open", .proto = "tcp",
                                       .host = hosts[r / 7 % 5], .port = r & 32 ? 443 : 80, .verdict = r & 128 ? "allow" : "deny",
                                       .rule = "rule", .method = r & 64 ? "GET" : "", .path = r & 64 ? "/x/y" : "", .count = 1};
            netlog_add(n, boxes[r / 3 % 2], &row);
        } else if (r % 4 == 1 && len) {
            text[len - 1] = '\0';
        } else if (r % 4 == 2 && len > 60) {
            text[0] = '\0';
        } else if (r % 4 == 2 && r & 512) { /* pasted */
            snprintf(text, sizeof text, "%s %s", words[r / 11 % 14], words[r / 13 % 14]);
        } else if (len < 150) {
            const char *w = words[r / 11 % (sizeof words / sizeof *words)];
            if (r & 256)
                snprintf(text + len, sizeof text - len, "%s%s", len ? " " : "", w);
            else
                snprintf(text + len, sizeof text - len, "%c", w[strlen(w) - 1]);
        }
        const char *box = r / 5 % 16 == 0 ? "a" : NULL;
        netlog_view_filter(v, text, box);
        netlog_view_sync(v);
        struct netlog_view *fresh = netlog_view_new(n);
        netlog_view_filter(fresh, text, box);
        netlog_view_sync(fresh);
        if (netlog_view_count(v) != netlog_view_count(fresh))
            fail_msg("step %d: \"%s\": %zu lines, not %zu", step, text, netlog_view_count(v), netlog_view_count(fresh));
        netlog_view_free(fresh);
    }
    netlog_view_free(v);
    netlog_free(n);
}

static void test_follow_and_pause(void **state)
{
    (void)state;
    struct netlog *n = netlog_new(0);
    struct netlog_view *v = netlog_view_new(n);
    struct netlog_row r;
    char host[32];
    for (int i = 0; i < 10; i++) {
        snprintf(host, sizeof host, "h%d.test", i);
        add(n, "a", i, host, "deny");
    }
    netlog_view_sync(v);
    assert_int_equal(netlog_view_mode(v), NETLOG_FOLLOW);
    assert_int_equal(netlog_view_cursor(v), 9);
    netlog_view_move(v, -3);
    assert_int_equal(netlog_view_mode(v), NETLOG_PAUSED);
    assert_int_equal(netlog_view_cursor(v), 6);
    add(n, "a", 20, "new.test", "deny");
    add(n, "b", 3, "late.test", "deny"); /* takes its place among the older ones */
    netlog_view_sync(v);
    assert_int_equal(netlog_view_count(v), 12);
    assert_true(netlog_view_fresh(v) > 0);
    netlog_view_filter(v, "h6", NULL);
    netlog_view_sync(v);
    assert_int_equal(netlog_view_count(v), 1);
    netlog_view_filter(v, "", NULL);
    netlog_view_sync(v);
    netlog_view_go(v, 11);
    assert_true(netlog_view_get(v, netlog_view_cursor(v), &r));
    assert_string_equal(r.host, "new.test");
    assert_int_equal(netlog_view_mode(v), NETLOG_PAUSED);
    netlog_view_move(v, 1);
    assert_int_equal(netlog_view_mode(v), NETLOG_FOLLOW);
    add(n, "a", 21, "newer.test", "deny");
    netlog_view_sync(v);
    assert_true(netlog_view_get(v, netlog_view_cursor(v), &r));
    assert_string_equal(r.host, "newer.test");
    assert_true(netlog_view_search(v, "LATE", true));
    assert_true(netlog_view_get(v, netlog_view_cursor(v), &r));
    assert_string_equal(r.host, "late.test");
    assert_false(netlog_view_search(v, "nowhere", false));
    netlog_view_jump(v, 5);
    assert_true(netlog_view_get(v, netlog_view_cursor(v), &r));
    assert_string_equal(r.host, "h5.test");
    netlog_view_free(v);
    netlog_free(n);
}

static void test_connection_is_one_row(void **state)
{
    (void)state;
    struct netlog *n = netlog_new(0);
    struct netlog_row r;
    struct decision_row o = row(1, "open", "x.test", "allow"), c = row(50, "close", "x.test", "allow");
    o.flow = c.flow = 77;
    c.bytes_up = 10;
    c.bytes_down = 2000;
    c.duration_ms = 49;
    c.count = 0;
    netlog_add(n, "a", &o);
    assert_true(netlog_get(n, 0, &r));
    assert_true(r.open);
    add(n, "b", 0, "earlier.test", "deny"); /* moves it */
    struct decision_row other = c;
    netlog_add(n, "b", &other); /* the same number in another sandbox is another connection */
    netlog_add(n, "a", &c);
    assert_int_equal(netlog_end(n), 3);
    assert_true(netlog_get(n, 1, &r));
    assert_string_equal(r.host, "x.test");
    assert_false(r.open);
    assert_int_equal(r.bytes_down, 2000);
    assert_int_equal(r.duration_ms, 49);
    netlog_free(n);
}

static void test_groups(void **state)
{
    (void)state;
    struct netlog *n = netlog_new(0);
    struct netlog_view *v = netlog_view_new(n);
    struct netlog_row r;
    for (int i = 0; i < 30; i++)
        add(n, "a", i, i % 3 ? "often.test" : "seldom.test", "deny");
    for (int i = 0; i < 90; i++)
        add(n, "a", 100 + i, "fine.test", "allow");
    netlog_view_group(v, true);
    netlog_view_sync(v);
    assert_int_equal(netlog_view_count(v), 3);
    assert_true(netlog_view_get(v, 0, &r));
    assert_string_equal(r.host, "often.test");
    assert_int_equal(r.count, 20);
    assert_true(netlog_view_get(v, 2, &r));
    assert_string_equal(r.host, "fine.test"); /* what was denied goes first */
    netlog_view_go(v, 2);
    add(n, "a", 500, "other.test", "deny");
    netlog_view_sync(v);
    assert_true(netlog_view_get(v, netlog_view_cursor(v), &r));
    assert_string_equal(r.host, "fine.test");
    netlog_view_free(v);
    netlog_free(n);
}

/* A host's connections and the requests on them are one line, where one rule decided both. */
static void test_requests_in_groups(void **state)
{
    (void)state;
    struct netlog *n = netlog_new(0);
    struct netlog_view *v = netlog_view_new(n);
    struct netlog_row r;
    struct decision_row one = row(2, "request", "api.test", "allow");
    one.proto = "http2";
    one.method = "GET";
    one.path = "/v1/a";
    add(n, "a", 1, "api.test", "allow");
    netlog_add(n, "a", &one);
    netlog_view_group(v, true);
    netlog_view_sync(v);
    assert_int_equal(netlog_view_count(v), 1);
    assert_true(netlog_view_get(v, 0, &r));
    assert_int_equal(r.count, 1);
    assert_string_equal(r.request, "GET /v1/a");
    one.path = "/v1/b";
    one.time_ms = 3;
    netlog_add(n, "a", &one);
    one.verdict = "deny";
    netlog_add(n, "a", &one);
    one.verdict = "allow";
    one.proto = "dns"; /* another thing, though the host is the same */
    one.kind = "open";
    one.method = one.path = "";
    netlog_add(n, "a", &one);
    netlog_view_sync(v);
    assert_int_equal(netlog_view_count(v), 3);
    assert_true(netlog_view_get(v, 0, &r));
    assert_string_equal(r.verdict, "deny");
    assert_string_equal(r.request, "GET /v1/b");
    assert_true(netlog_view_get(v, 1, &r));
    assert_string_equal(r.request, "2 requests");
    assert_int_equal(r.count, 1);
    netlog_view_free(v);
    netlog_free(n);
}

static void test_bounded(void **state)
{
    (void)state;
    struct netlog *n = netlog_new(800);
    struct netlog_view *v = netlog_view_new(n);
    struct netlog_row r;
    char host[32];
    netlog_view_filter(v, "host:even", NULL);
    for (int i = 0; i < 5000; i++) {
        snprintf(host, sizeof host, "%s%d.test", i % 2 ? "odd" : "even", i);
        add(n, "a", i, host, "deny");
        netlog_view_sync(v);
        if (i == 300)
            netlog_view_go(v, 0);
    }
    assert_true(netlog_end(n) - netlog_first(n) <= 800);
    assert_int_equal(netlog_end(n), 5000);
    assert_true(netlog_view_count(v) > 300 && netlog_view_count(v) <= 400);
    for (size_t i = 0; i < netlog_view_count(v); i++) {
        assert_true(netlog_view_get(v, i, &r));
        assert_memory_equal(r.host, "even", 4);
    }
    assert_true(netlog_view_get(v, netlog_view_cursor(v), &r)); /* its row is gone: the oldest that is left */
    netlog_view_free(v);
    netlog_free(n);
}

/* ---- rules of rows ---- */

static void offers(const char *host, int port, const char *request, const char *const *want)
{
    struct netlog_target t[NETLOG_TARGETS_MAX];
    const struct netlog_row r = {.host = host, .port = port, .request = request, .proto = "tcp", .rule = ""};
    unsigned n = netlog_targets(&r, t), i = 0;
    for (; want[i]; i++) {
        if (i >= n)
            fail_msg("%s: no offer of %s", host, want[i]);
        assert_string_equal(t[i].text, want[i]);
    }
    assert_int_equal(i, n);
}

/* What is offered is what sbx accepts, and no wider than it says. */
static void test_targets(void **state)
{
    (void)state;
    offers("registry.npmjs.org", 443, "", (const char *const[]){"registry.npmjs.org", "registry.npmjs.org:443", "npmjs.org,**.npmjs.org", NULL});
    offers("bbc.co.uk", 80, "", (const char *const[]){"bbc.co.uk", "bbc.co.uk:80", "bbc.co.uk,**.bbc.co.uk", NULL});
    offers("host.docker.internal", 1234, "", (const char *const[]){"localhost:1234", NULL});
    offers("10.1.2.3", 22, "", (const char *const[]){"10.1.2.3", "10.1.2.3:22", NULL});
    offers("2001:db8::7", 22, "", (const char *const[]){"2001:db8::7", "[2001:db8::7]:22", NULL});
    offers("api.example.com", 443, "POST /v1/a/b",
           (const char *const[]){"api.example.com", "api.example.com:443", "POST api.example.com/v1/a/b", "api.example.com/v1/a",
                                 "example.com,**.example.com", NULL});
    /* A path that two servers read differently, a method that no rule names, a host that is a public suffix. */
    offers("api.example.com", 443, "GET /a%2fb", (const char *const[]){"api.example.com", "api.example.com:443", "example.com,**.example.com", NULL});
    offers("co.uk", 443, "", (const char *const[]){"co.uk", "co.uk:443", NULL});
    /* What the guest wrote is one rule, or it would let hosts of its choice through. */
    offers("api.example.com", 443, "GET /a/x,**.evil.test", /* no rule has an asterisk in its path */
           (const char *const[]){"api.example.com", "api.example.com:443", "api.example.com/a", "example.com,**.example.com", NULL});
    offers("api.example.com", 443, "GET /x,evil.test",
           (const char *const[]){"api.example.com", "api.example.com:443", "GET api.example.com/x\\,evil.test", "api.example.com/x\\,evil.test",
                                 "example.com,**.example.com", NULL});
    offers("", 0, "", (const char *const[]){NULL});
    offers("a b", 443, "", (const char *const[]){NULL});
}

/* ---- the feed ---- */

struct seen {
    struct event_base *base;
    struct netlog *log;
    bool history;
    size_t want;
};

static void on_row(const char *box, const struct decision_row *r, void *arg)
{
    netlog_add(((struct seen *)arg)->log, box, r);
}

static void on_batch(bool history_done, void *arg)
{
    struct seen *s = arg;
    s->history |= history_done;
    if (s->history && netlog_end(s->log) >= s->want)
        event_base_loopbreak(s->base);
}

static void put(const char *dir, const char *box, int64_t time, int n)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, box);
    mkdir(path, 0700);
    strcat(path, "/log.db");
    struct decisions *d = decisions_open(path, false, NULL);
    assert_non_null(d);
    decisions_begin(d, NULL);
    for (int i = 0; i < n; i++) {
        struct decision_row r = row(time + i, "deny", "x.test", "deny");
        assert_int_equal(decisions_add(d, &r, NULL), 0);
    }
    decisions_commit(d, NULL);
    decisions_close(d);
}

static void wait_for(struct seen *s, size_t want)
{
    struct timeval limit = {20, 0};
    s->want = want;
    if (!s->history || netlog_end(s->log) < want) {
        event_base_loopexit(s->base, &limit);
        event_base_dispatch(s->base);
    }
    assert_true(netlog_end(s->log) >= want);
}

static void test_feed(void **state)
{
    (void)state;
    static const struct netlog_feed_ops ops = {on_row, on_batch};
    char dir[] = "/tmp/netlog-XXXXXX", cmd[64];
    assert_non_null(mkdtemp(dir));
    put(dir, "a", 1000, 5000);
    put(dir, "b", 3000, 100);
    struct seen s = {.base = event_base_new(), .log = netlog_new(0)};
    struct netlog_feed *f = netlog_feed_new(s.base, dir, 2000, &ops, &s, NULL);
    assert_non_null(f);
    wait_for(&s, 2100);
    assert_int_equal(netlog_end(s.log), 2100); /* the newest of each */
    struct netlog_row r;
    int64_t before = 0;
    for (uint64_t i = 0; i < netlog_end(s.log); i++) {
        assert_true(netlog_get(s.log, i, &r));
        assert_true(r.time_ms >= before);
        before = r.time_ms;
    }
    put(dir, "a", 9000, 3);   /* it grows */
    put(dir, "new", 9100, 4); /* and there are new ones */
    wait_for(&s, 2107);
    /* A sandbox goes, and another of its name comes. */
    snprintf(cmd, sizeof cmd, "rm -r %s/new", dir);
    assert_int_equal(system(cmd), 0);
    put(dir, "new", 9200, 2);
    wait_for(&s, 2109);
    put(dir, "new", 9300, 1);
    wait_for(&s, 2110);
    netlog_feed_free(f);
    netlog_free(s.log);
    event_base_free(s.base);
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    assert_int_equal(system(cmd), 0);
}

static void test_rows_that_no_rule_changes(void **state)
{
    static const struct {
        const char *kind, *proto, *host;
        bool can;
    } rows[] = {{"deny", "tcp", "api.example.com", true}, {"deny", "dns", "api.example.com", true}, {"deny", "tcp", "10.1.2.3", true},
                {"open", "tcp", "api.example.com", true}, {"refused", "udp", "8.8.8.8", false}, {"refused", "icmp", "8.8.8.8", false},
                {"deny", "tcp", "169.254.169.254", false}, {"deny", "dns", "metadata.google.internal", false}, {"deny", "tcp", "fd00:ec2::254", false},
                {"dropped", "other", "", false}, {"policy", "other", "", false}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct netlog_row r = {.kind = rows[i].kind, .proto = rows[i].proto, .host = rows[i].host, .rule = "", .request = "", .verdict = "deny"};
        if ((netlog_no_rule(&r) == NULL) != rows[i].can)
            fail_msg("%s of %s: %s", rows[i].proto, rows[i].host, rows[i].can ? netlog_no_rule(&r) : "a rule is offered");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_that_no_rule_changes),
        cmocka_unit_test(test_filter), cmocka_unit_test(test_typed_letter_by_letter), cmocka_unit_test(test_follow_and_pause), cmocka_unit_test(test_connection_is_one_row),
        cmocka_unit_test(test_groups), cmocka_unit_test(test_requests_in_groups), cmocka_unit_test(test_bounded),          cmocka_unit_test(test_targets), cmocka_unit_test(test_feed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
