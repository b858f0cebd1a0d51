/* The policy: who wins, what a posture adds, and that whatever cannot be read denies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/expiry.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/publishers.h"

#define NOW 1000000

static char home[] = "/tmp/sbx-policy-XXXXXX";

static int fresh_home(void **state)
{
    (void)state;
    char dir[64];
    strcpy(home + strlen(home) - 6, "XXXXXX");
    if (!mkdtemp(home))
        return -1;
    snprintf(dir, sizeof dir, "%s/config", home);
    setenv("XDG_CONFIG_HOME", dir, 1);
    snprintf(dir, sizeof dir, "%s/data", home);
    setenv("XDG_DATA_HOME", dir, 1);
    char *sandbox = path_sandbox("box", NULL, NULL);
    path_mkdirs(sandbox, 0700, NULL);
    free(sandbox);
    return 0;
}

static int remove_home(void **state)
{
    (void)state;
    return path_remove_tree(home, NULL);
}

static void put(const char *sandbox, const char *text)
{
    char *path = policy_path(sandbox, NULL);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

static struct policy *from(const char *posture, const char *const *rules)
{
    json_t *list = json_array();
    for (; rules && *rules; rules++)
        json_array_append_new(list, json_pack("{s:s, s:s}", "action", **rules == '-' ? "deny" : "allow", "target", *rules + 1));
    json_t *o = json_pack("{s:i, s:s, s:o}", "version", 1, "posture", posture, "rules", list);
    struct policy *p = policy_from_json(o);
    json_decref(o);
    if (policy_error(p))
        fail_msg("%s", policy_error(p));
    return p;
}

static bool allows(const struct policy *p, const char *name, uint16_t port)
{
    struct decision d;
    policy_decide_name(p, name, port, NOW, &d);
    return d.allow;
}

static bool allows_addr(const struct policy *p, const char *text, uint16_t port)
{
    uint8_t a[16];
    struct decision d;
    uint8_t family = rule_parse_addr(text, a);
    policy_decide_addr(p, family, a, port, NOW, &d);
    return d.allow;
}

static void deny_wins(void **state)
{
    static const char *const rules[] = {"+**.example.com", "+ads.example.com", "-ads.example.com", "-**.bad.example.com",
                                        "+x.bad.example.com", "+other.org:443", NULL};
    (void)state;
    struct policy *p = from("locked-down", rules);
    assert_true(allows(p, "www.example.com", 443));
    assert_false(allows(p, "ads.example.com", 443));
    assert_false(allows(p, "x.bad.example.com", 443));
    assert_false(allows(p, "example.com", 443));
    assert_true(allows(p, "other.org", 443));
    assert_false(allows(p, "other.org", 444));
    struct decision d;
    policy_decide_name(p, "ads.example.com", 443, NOW, &d);
    assert_string_equal(d.text, "deny ads.example.com (sandbox)");
    policy_free(p);
}

static void postures(void **state)
{
    (void)state;
    struct policy *open = from("open", NULL), *balanced = from("balanced", NULL), *locked = from("locked-down", NULL);
    assert_true(allows(open, "anything.example.org", 80));
    assert_true(allows(balanced, "api.anthropic.com", 443));
    assert_true(allows(balanced, "registry.npmjs.org", 443));
    assert_false(allows(balanced, "anything.example.org", 443));
    assert_false(allows(locked, "api.anthropic.com", 443));
    policy_free(open);
    policy_free(balanced);
    policy_free(locked);
    open = from("allow-all", NULL);
    assert_int_equal(policy_posture(open), POSTURE_OPEN);
    policy_free(open);
    assert_int_equal(posture_parse("deny-all"), POSTURE_LOCKED);
    assert_int_equal(posture_parse("Open"), POSTURE_UNSET);
}

/* What a preset opens is the web; another port needs a rule of the user's own. */
static void threat_33_60_62_ports_of_presets(void **state)
{
    static const char *const resolvers[] = {"dns.google", "cloudflare-dns.com", "one.one.one.one", "dns.quad9.net", "doh.opendns.com", "dns.adguard.com"};
    static const uint16_t others[] = {22, 25, 53, 465, 853, 3128, 8443, 9418};
    struct decision d;
    (void)state;
    struct policy *p = from("balanced", NULL);
    policy_decide_name(p, "github.com", 443, 1, &d);
    assert_true(d.allow);
    policy_decide_name(p, "registry.npmjs.org", 80, 1, &d);
    assert_true(d.allow);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        policy_decide_name(p, "github.com", others[i], 1, &d);
        assert_false(d.allow);
    }
    for (size_t i = 0; i < sizeof resolvers / sizeof *resolvers; i++) {
        policy_decide_name(p, resolvers[i], 443, 1, &d);
        assert_false(d.allow);
        policy_decide_name(p, resolvers[i], 853, 1, &d);
        assert_false(d.allow);
    }
    policy_free(p);
    p = from("open", NULL);
    policy_decide_name(p, "any.example.com", 22, 1, &d);
    assert_true(d.allow);
    policy_decide_name(p, "any.example.com", 25, 1, &d);
    assert_false(d.allow);
    policy_decide_name(p, "dns.google", 853, 1, &d);
    assert_false(d.allow);
    policy_free(p);
    p = from("open", (const char *const[]){"+mail.example.com:25", NULL});
    policy_decide_name(p, "mail.example.com", 25, 1, &d);
    assert_true(d.allow);
    policy_free(p);
}

/* Every entry has a reason, and none lets an agent publish anywhere. */
static void preset_is_narrow(void **state)
{
    size_t n, found = 0;
    (void)state;
    struct policy *p = from("balanced", NULL);
    const struct rule *r = policy_rules(p, &n);
    assert_true(n > 100);
    for (size_t i = 0; i < n; i++) {
        char text[RULE_TEXT_MAX];
        rule_format(text, &r[i]);
        if (!r[i].comment[0] || r[i].deny || publishers_warning(&r[i]))
            print_error("preset entry %s is too wide or bears no reason\n", text), found++;
    }
    assert_int_equal(found, 0);
    policy_free(p);
}

static void threat_17_localhost_needs_its_own_rule(void **state)
{
    static const char *const rules[] = {"+localhost:1234", "+0.0.0.0/0", NULL};
    (void)state;
    struct policy *p = from("open", rules);
    assert_true(allows(p, "localhost", 1234));
    assert_true(allows(p, "host.docker.internal", 1234));
    assert_true(allows(p, "host.sbx.internal", 1234));
    assert_false(allows(p, "localhost", 1235));
    assert_false(allows(p, "host.docker.internal", 80));
    struct decision d;
    uint8_t a[16] = {10, 0, 0, 1};
    policy_decide_addr(p, 4, a, 80, NOW, &d);
    assert_true(d.allow);
    assert_false(d.exact); /* so wide a range does not open private addresses */
    policy_free(p);
}

static void addresses(void **state)
{
    static const char *const rules[] = {"+10.0.0.0/8", "-10.1.0.0/16", "+10.1.2.3:22", "+2001:db8::/32", "-[2001:db8::1]:25",
                                        "+8.8.8.8", NULL};
    (void)state;
    struct policy *p = from("locked-down", rules);
    assert_true(allows_addr(p, "10.2.0.1", 80));
    assert_false(allows_addr(p, "10.1.2.3", 22));
    assert_true(allows_addr(p, "2001:db8::1", 24));
    assert_false(allows_addr(p, "2001:db8::1", 25));
    assert_false(allows_addr(p, "2001:db9::1", 24));
    assert_true(allows_addr(p, "8.8.8.8", 53));
    assert_false(allows_addr(p, "8.8.4.4", 53));
    policy_free(p);
}

static void expiry(void **state)
{
    (void)state;
    json_t *o = json_pack("{s:i, s:s, s:[{s:s, s:s, s:i}]}", "version", 1, "posture", "locked-down", "rules", "action",
                          "allow", "target", "example.com", "expires", NOW + 10);
    struct policy *p = policy_from_json(o);
    struct decision d;
    policy_decide_name(p, "example.com", 443, NOW + 9, &d);
    assert_true(d.allow);
    policy_decide_name(p, "example.com", 443, NOW + 10, &d);
    assert_false(d.allow);
    policy_free(p);
    json_decref(o);
}

/* Rules for requests never open a connection on their own. */
static void conditional_rules(void **state)
{
    static const char *const rules[] = {"+GET api.example.com/repos", "+example.org", "-DELETE example.org", NULL};
    struct decision d;
    (void)state;
    struct policy *p = from("locked-down", rules);
    policy_decide_name(p, "api.example.com", 443, NOW, &d);
    assert_true(d.allow && d.http);
    policy_decide_request(p, "api.example.com", 443, "GET", "/repos/x", NOW, &d);
    assert_true(d.allow && !d.http);
    policy_decide_request(p, "api.example.com", 443, "POST", "/repos/x", NOW, &d);
    assert_false(d.allow);
    policy_decide_request(p, "api.example.com", 443, "GET", "/user", NOW, &d);
    assert_false(d.allow);
    policy_decide_name(p, "example.org", 443, NOW, &d);
    assert_true(d.allow && d.http);
    policy_decide_request(p, "example.org", 443, "DELETE", "/", NOW, &d);
    assert_false(d.allow);
    policy_decide_request(p, "example.org", 443, "GET", "/", NOW, &d);
    assert_true(d.allow && !d.http);
    policy_free(p);
}

static void names_denied_everywhere(void **state)
{
    static const char *const rules[] = {"-ads.example.com", "-half.example.com:80", "-**.evil.io", "-GET c.example.com", NULL};
    (void)state;
    struct policy *p = from("balanced", rules);
    assert_true(policy_denies_all(p, "ads.example.com", NOW));
    assert_true(policy_denies_all(p, "a.b.evil.io", NOW));
    assert_false(policy_denies_all(p, "half.example.com", NOW));
    assert_false(policy_denies_all(p, "c.example.com", NOW));
    assert_false(policy_denies_all(p, "unlisted.example.com", NOW)); /* it resolves, and is then refused with a reason */
    policy_free(p);
}

static void threat_100_unreadable_denies(void **state)
{
    static const char *const bad[] = {
        "", "{", "[]", "null", "{}", "{\"version\": 2}", "{\"version\": 1, \"posture\": \"opne\"}",
        "{\"version\": 1, \"posture\": 7}", "{\"version\": 1, \"rules\": {}}", "{\"version\": 1, \"rules\": [7]}",
        "{\"version\": 1, \"ruels\": []}", "{\"version\": 1, \"default\": \"allow\"}",
        "{\"version\": 1, \"posture\": \"open\", \"posture\": \"open\"}",
        "{\"version\": 1, \"rules\": [{\"action\": \"allow\"}]}",
        "{\"version\": 1, \"rules\": [{\"action\": \"alow\", \"target\": \"a.com\"}]}",
        "{\"version\": 1, \"rules\": [{\"action\": \"allow\", \"target\": \"*.com\"}]}",
        "{\"version\": 1, \"rules\": [{\"action\": \"allow\", \"target\": \"a.com\", \"expires\": \"soon\"}]}",
        "{\"version\": 1, \"rules\": [{\"action\": \"allow\", \"target\": \"a.com\", \"act\": \"x\"}]}",
        "{\"version\": 1, \"rules\": [{\"action\": \"allow\", \"target\": \"a.com\", \"id\": 7}]}",
        "{\"version\": 1, \"posture\": \"open\", \"rules\": []",
    };
    (void)state;
    for (int which = 0; which < 2; which++) {
        put(NULL, "{\"version\": 1, \"posture\": \"open\"}");
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            put(which ? "box" : NULL, bad[i]);
            struct policy *p = policy_load("box");
            if (!policy_error(p) || allows(p, "api.anthropic.com", 443) || allows_addr(p, "8.8.8.8", 53))
                fail_msg("not denied: %s", bad[i]);
            policy_free(p);
        }
        put(which ? "box" : NULL, "{\"version\": 1, \"posture\": \"open\"}");
        struct policy *p = policy_load("box");
        assert_null(policy_error(p));
        assert_true(allows(p, "api.anthropic.com", 443));
        policy_free(p);
    }
    /* A folder where the file should be; and one that may not be read (root may read all). */
    char *path = policy_path(NULL, NULL);
    unlink(path);
    mkdir(path, 0700);
    struct policy *p = policy_load(NULL);
    assert_non_null(policy_error(p));
    assert_false(allows(p, "api.anthropic.com", 443));
    policy_free(p);
    rmdir(path);
    /* A link to a volume that is not there is no file that nobody wrote. */
    assert_int_equal(symlink("/nonexistent/policy.json", path), 0);
    p = policy_load(NULL);
    assert_non_null(policy_error(p));
    assert_false(allows(p, "api.anthropic.com", 443));
    policy_free(p);
    unlink(path);
    free(path);
}

static struct rule rule(const char *text, bool deny)
{
    struct rule r = {.deny = deny};
    assert_int_equal(rule_parse(&r, text, NULL), 0);
    return r;
}

/* What is said for an hour is over after it, and what was said for good before is in force again. */
static void for_an_hour(void **state)
{
    struct err e = {0};
    size_t n;
    (void)state;
    struct rule good[] = {rule("news.example.com", false), rule("ads.example.com", true), rule("GET api.example.com/a", false)};
    struct rule hour[] = {rule("news.example.com", true), rule("ads.example.com", false), rule("GET api.example.com/a", true)};
    struct decision d;
    assert_int_equal(policy_reset("box", &e) | policy_reset(NULL, &e), 0);
    assert_int_equal(policy_set_posture("box", POSTURE_LOCKED, &e), 0);
    assert_int_equal(policy_add("box", good, 3, &e), 0);
    for (int i = 0; i < 3; i++)
        hour[i].expires = NOW + 1800;
    assert_int_equal(policy_add("box", hour, 3, &e), 0);
    for (int i = 0; i < 3; i++)
        hour[i].expires = NOW + 3600;
    assert_int_equal(policy_add("box", hour, 3, &e), 0); /* the newer word, of these */
    struct policy *p = policy_load("box");
    const struct rule *r = policy_rules(p, &n);
    int ours = 0, waiting = 0;
    for (size_t i = 0; i < n; i++) {
        ours += r[i].origin == RULE_SANDBOX;
        waiting += policy_waits(p, &r[i], NOW);
        assert_false(policy_waits(p, &r[i], NOW + 3600));
    }
    assert_int_equal(ours, 6);
    assert_int_equal(waiting, 3);
    for (int after = 0; after < 2; after++) {
        int64_t now = NOW + (after ? 3600 : 3599);
        policy_decide_name(p, "news.example.com", 443, now, &d);
        assert_int_equal(d.allow, after);
        policy_decide_name(p, "ads.example.com", 443, now, &d);
        assert_int_equal(d.allow, !after);
        policy_decide_request(p, "api.example.com", 443, "GET", "/a/b", now, &d);
        assert_int_equal(d.allow, after);
    }
    for (size_t i = 0; i < n; i++)
        if (r[i].expires)
            policy_set_expiry(p, i, true, false); /* by another clock */
    policy_decide_name(p, "ads.example.com", 443, NOW, &d);
    assert_false(d.allow);
    policy_free(p);
    /* One file's hour does not open what another denies; and a word for good ends both. */
    assert_int_equal(policy_add(NULL, &good[1], 1, &e), 0);
    p = policy_load("box");
    policy_decide_name(p, "ads.example.com", 443, NOW, &d);
    assert_false(d.allow);
    policy_free(p);
    assert_int_equal(policy_remove(NULL, "ads.example.com", &e), 1);
    assert_int_equal(policy_add("box", &good[0], 1, &e), 0);
    p = policy_load("box");
    policy_decide_name(p, "news.example.com", 443, NOW, &d);
    assert_true(d.allow);
    policy_free(p);
    assert_int_equal(policy_reset("box", &e) | policy_reset(NULL, &e), 0);
}

static void files_are_changed(void **state)
{
    struct err e = {0};
    size_t n;
    (void)state;
    struct rule two[] = {rule("Example.com", false), rule("localhost:1234", false)};
    strcpy(two[0].comment, "for the docs");
    assert_int_equal(policy_add(NULL, two, 2, &e), 0);
    struct rule again = rule("example.com", true);
    assert_int_equal(policy_add(NULL, &again, 1, &e), 0); /* the newer word for the same target counts */
    struct rule own = rule("own.example.com", false);
    assert_int_equal(policy_add("box", &own, 1, &e), 0);
    assert_int_equal(policy_set_posture(NULL, POSTURE_LOCKED, &e), 0);
    struct policy *p = policy_load("box");
    policy_rules(p, &n);
    assert_int_equal(n, 3);
    assert_false(allows(p, "example.com", 443));
    assert_true(allows(p, "own.example.com", 443));
    assert_true(allows(p, "localhost", 1234));
    policy_free(p);
    p = policy_load("other");
    assert_false(allows(p, "own.example.com", 443));
    policy_free(p);
    assert_int_equal(policy_set_posture("box", POSTURE_OPEN, &e), 0); /* its own goes before the global one */
    p = policy_load("box");
    assert_int_equal(policy_posture(p), POSTURE_OPEN);
    policy_free(p);
    assert_int_equal(policy_remove(NULL, "EXAMPLE.com.", &e), 1);
    assert_int_equal(policy_remove(NULL, "example.com", &e), 0);
    p = policy_load("box");
    const struct rule *r = policy_rules(p, &n);
    char id[16];
    snprintf(id, sizeof id, "%s", r[0].id);
    policy_free(p);
    assert_int_equal(policy_remove("box", id, &e), 1);
    /* An unusable file is never overwritten by a change, only by reset. */
    put(NULL, "{broken");
    assert_int_equal(policy_add(NULL, two, 1, &e), -1);
    assert_non_null(strstr(e.text, "sbx policy reset"));
    assert_int_equal(policy_reset(NULL, &e), 0);
    p = policy_load(NULL);
    assert_null(policy_error(p));
    policy_free(p);
    char *path = policy_path(NULL, NULL);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    free(path);
}

static void export_and_import(void **state)
{
    struct err e = {0};
    (void)state;
    struct rule r = rule("GET **.example.com:443/a", false);
    assert_int_equal(policy_add(NULL, &r, 1, &e), 0);
    json_t *o = policy_export(NULL, &e);
    assert_non_null(o);
    assert_int_equal(policy_import("box", o, &e), 0);
    struct policy *p = policy_load("box");
    size_t n;
    policy_rules(p, &n);
    assert_true(n >= 2);
    policy_free(p);
    /* There and back nothing changes. */
    json_t *back = policy_export("box", &e);
    assert_true(json_equal(o, back));
    json_decref(back);
    json_object_set_new(o, "more", json_true());
    assert_int_equal(policy_import("box", o, &e), -1);
    json_decref(o);
}

/* Files from elsewhere, or written by hand: each rule can be named, by its id or by its text in any spelling. */
static void rules_without_ids(void **state)
{
    struct err e = {0};
    size_t n;
    char word[RULE_TEXT_MAX + 2];
    (void)state;
    const char *text = "{\"version\": 1, \"rules\": [{\"action\": \"deny\", \"target\": \"Evil.Example.COM.\"},"
                       "{\"action\": \"deny\", \"target\": \"GET *.example.com/a\", \"id\": \"far too long for an id\"},"
                       "{\"action\": \"allow\", \"target\": \"b.example.com\", \"id\": \"same\"},"
                       "{\"action\": \"allow\", \"target\": \"c.example.com\", \"id\": \"same\"}]}";
    put(NULL, text);
    struct policy *p = policy_load(NULL);
    const struct rule *r = policy_rules(p, &n);
    policy_handle(word, sizeof word, &r[0]);
    assert_string_equal(word, "evil.example.com");
    policy_handle(word, sizeof word, &r[1]);
    assert_string_equal(word, "'GET *.example.com/a'");
    policy_free(p);
    struct rule other = rule("evil.example.com", false);
    assert_int_equal(policy_add(NULL, &other, 1, &e), 0);
    p = policy_load(NULL);
    assert_true(allows(p, "evil.example.com", 443)); /* the newer word counts, however the older was spelt */
    policy_free(p);
    put(NULL, text);
    assert_int_equal(policy_remove(NULL, "evil.example.com", &e), 1);
    json_t *o = json_loads(text, 0, NULL);
    assert_int_equal(policy_import("box", o, &e), 0);
    json_decref(o);
    p = policy_load("box");
    r = policy_rules(p, &n);
    for (size_t i = 0; i < 4; i++) {
        snprintf(word, sizeof word, "%s", r[i].id);
        assert_true(word[0] != '\0');
        assert_int_equal(policy_remove("box", word, &e), 1);
    }
    policy_free(p);
}

/* What a preset or a wildcard allows may not lie on this host or in its private networks. */
static void threat_16_presets_and_wildcards_open_nothing_inner(void **state)
{
    static const char *const own[] = {"+*.example.com:443", "+wide.example.net", "+one.example.net:443", NULL};
    struct decision d;
    size_t n, hosts = 0;
    (void)state;
    struct policy *p = from("balanced", own);
    const struct rule *rules = policy_rules(p, &n);
    for (size_t i = 0; i < n; i++) {
        if (rules[i].origin != RULE_PRESET || rules[i].deny)
            continue;
        char name[NAME_MAX_LEN + 4];
        snprintf(name, sizeof name, "%s%.*s", rules[i].kind == RULE_HOST ? "" : "x.", NAME_MAX_LEN, rules[i].host);
        assert_true(rules[i].kind == RULE_HOST || rules[i].kind == RULE_LABEL || rules[i].kind == RULE_DEPTH);
        policy_decide_name(p, name, 443, NOW, &d);
        assert_true(d.allow);
        assert_false(d.exact);
        hosts++;
    }
    assert_true(hosts > 100);
    policy_decide_name(p, "a.example.com", 443, NOW, &d);
    assert_true(d.allow && !d.exact);
    policy_decide_name(p, "wide.example.net", 443, NOW, &d);
    assert_true(d.allow && !d.exact);
    policy_decide_name(p, "one.example.net", 443, NOW, &d);
    assert_true(d.allow && d.exact);
    policy_free(p);
}

/* One look at the rules of a sandbox, as its broker takes it. */
static void looks_at(const char *what, struct expiry *x, int64_t wall, int64_t boot, bool allowed, bool denied)
{
    struct decision d;
    struct policy *p = policy_load("box");
    assert_null(policy_error(p));
    expiry_settle(x, p, wall, boot);
    policy_decide_name(p, "for.example.com", 443, wall, &d);
    if (d.allow != allowed)
        fail_msg("%s: allowed: %d", what, d.allow);
    policy_decide_name(p, "not.example.org", 443, wall, &d);
    if (d.allow == denied)
        fail_msg("%s: denied: %d", what, !d.allow);
    assert_int_equal(expiry_save(x, NULL), 0);
    policy_free(p);
}

static struct expiry *again(struct expiry *x, const char *boot)
{
    expiry_free(x);
    char *path = path_sandbox("box", "expiry.json", NULL);
    if (boot) { /* what is there is of another boot of this host */
        json_t *o = json_load_file(path, 0, NULL);
        json_object_set_new(o, "boot", json_string(boot));
        assert_int_equal(json_dump_file(o, path, 0), 0);
        json_decref(o);
    }
    free(path);
    x = expiry_open("box");
    assert_non_null(x);
    return x;
}

static void rules_of_an_hour(int64_t created)
{
    char text[600];
    snprintf(text, sizeof text,
             "{\"version\": 1, \"posture\": \"locked-down\", \"rules\": [{\"id\": \"a\", \"action\": \"allow\", \"target\": \"for.example.com\", \"created\": %lld, "
             "\"expires\": %lld}, {\"id\": \"b\", \"action\": \"deny\", \"target\": \"not.example.org\", \"created\": %lld, \"expires\": %lld}, "
             "{\"id\": \"c\", \"action\": \"allow\", \"target\": \"not.example.org\"}]}",
             (long long)created, (long long)created + 3600, (long long)created, (long long)created + 3600);
    put("box", text);
}

/* A clock that is set prolongs nothing that is allowed, and shortens nothing that is denied. */
static void threat_99_100_an_hour_is_an_hour(void **state)
{
    (void)state;
    rules_of_an_hour(NOW);
    struct expiry *x = again(NULL, NULL);
    looks_at("at first", x, NOW + 10, 1000, true, true);
    looks_at("in time", x, NOW + 3599, 4589, true, true);
    looks_at("over", x, NOW + 3700, 4690, false, false);
    looks_at("set back when it was over", x, NOW + 100, 4700, false, false);
    x = again(x, NULL);
    looks_at("and in the next run", x, NOW + 100, 4800, false, false);
    x = again(x, "another");
    looks_at("and in the next boot", x, NOW + 100, 10, false, false);
    rules_of_an_hour(NOW + 50); /* given anew, they hold */
    looks_at("anew", x, NOW + 100, 20, true, true);

    rules_of_an_hour(NOW + 10000);
    looks_at("another hour", x, NOW + 10000, 5000, true, true);
    looks_at("set back while it runs", x, NOW + 8000, 5600, true, true);
    looks_at("after an hour of it", x, NOW + 11000, 8700, false, true); /* what denies stays until both say so */
    looks_at("and by the clock", x, NOW + 13700, 11500, false, false);

    rules_of_an_hour(NOW + 20000);
    looks_at("a third hour", x, NOW + 20000, 20000, true, true);
    x = again(x, NULL);
    looks_at("set back between two runs", x, NOW + 20000, 23700, false, true);

    rules_of_an_hour(NOW + 30000);
    looks_at("a fourth", x, NOW + 30000, 30000, true, true);
    looks_at("set ahead", x, NOW + 90000, 30010, false, true);
    looks_at("and right again", x, NOW + 30020, 30020, false, true);

    rules_of_an_hour(NOW + 40000);
    x = again(x, "another");
    looks_at("an empty battery", x, 0, 10, false, true);
    looks_at("until the time is there", x, NOW + 41000, 20, true, true);
    looks_at("and an hour is over", x, NOW + 43601, 2630, false, false);
    struct policy *p = policy_load("box");
    assert_int_equal(expiry_next(x, p, NOW + 43601, 2630), 0);
    rules_of_an_hour(NOW + 50000);
    policy_free(p);
    p = policy_load("box");
    expiry_settle(x, p, NOW + 50000, 3000);
    assert_int_equal(expiry_next(x, p, NOW + 50000, 3000), 3600);
    assert_int_equal(expiry_next(x, p, NOW + 49000, 6595), 5);
    policy_free(p);
    put("box", "{\"version\": 1}");
    looks_at("nothing is kept of what is gone", x, NOW, 1, false, true);
    expiry_free(x);
    char *path = path_sandbox("box", "expiry.json", NULL);
    json_t *o = json_load_file(path, 0, NULL);
    assert_int_equal(json_object_size(json_object_get(o, "rules")), 0);
    json_decref(o);
    FILE *f = fopen(path, "w"); /* one that cannot be read is none */
    fputs("{", f);
    fclose(f);
    free(path);
    rules_of_an_hour(NOW);
    x = again(NULL, NULL);
    looks_at("what was remembered is damaged", x, NOW, 1, true, true);
    expiry_free(x);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fresh_home, remove_home)
    const struct CMUnitTest tests[] = {
        T(deny_wins), T(threat_99_100_an_hour_is_an_hour), T(postures), T(threat_33_60_62_ports_of_presets), T(preset_is_narrow), T(threat_17_localhost_needs_its_own_rule), T(addresses), T(expiry),
        T(conditional_rules), T(names_denied_everywhere), T(threat_100_unreadable_denies), T(for_an_hour), T(files_are_changed),
        T(export_and_import), T(rules_without_ids), T(threat_16_presets_and_wildcards_open_nothing_inner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
