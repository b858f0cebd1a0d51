/* The log: what was written is found again, and what was touched shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/decisions.h"
#include "core/paths.h"

static char dir[] = "/tmp/sbx-decisions-XXXXXX";
static char path[64];

static int fresh(void **state)
{
    (void)state;
    strcpy(dir + strlen(dir) - 6, "XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/log.db", dir);
    return 0;
}

static int gone(void **state)
{
    (void)state;
    return path_remove_tree(dir, NULL);
}

static void write_rows(int n, int64_t limit)
{
    struct err e = {0};
    struct decisions *d = decisions_open(path, &e);
    if (!d)
        fail_msg("%s", e.text);
    if (limit)
        decisions_set_limit(d, limit);
    for (int i = 0; i < n; i++) {
        char host[32];
        snprintf(host, sizeof host, "h%d.example.com", i % 3);
        struct decision_row r = {.time_ms = 1000 + i, .kind = i % 2 ? "deny" : "open", .proto = "tcp", .host = host,
                                 .port = 443, .verdict = i % 2 ? "deny" : "allow", .rule = "posture balanced", .count = 1};
        if (decisions_add(d, &r, &e) < 0)
            fail_msg("%s", e.text);
    }
    decisions_close(d);
}

static int64_t verify(char *why, size_t cap)
{
    struct err e = {0};
    int64_t rows = 0;
    struct decisions *d = decisions_read(path, &e);
    assert_non_null(d);
    int rc = decisions_verify(d, &rows, &e);
    decisions_close(d);
    if (why)
        snprintf(why, cap, "%.*s", (int)cap - 1, e.text);
    return rc < 0 ? -1 : rows;
}

static void tamper(const char *sql)
{
    sqlite3 *db;
    char *why = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s", why);
    sqlite3_close(db);
}

static bool count(const struct decision_row *row, void *arg)
{
    int64_t *n = arg;
    n[0]++;
    n[1] += row->count;
    n[2] = row->seq;
    return true;
}

static void rows_are_found(void **state)
{
    struct err e = {0};
    (void)state;
    assert_null(decisions_read(path, &e));
    assert_int_equal(e.status, STATUS_NOT_FOUND);
    write_rows(30, 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
    struct decisions *d = decisions_read(path, &e);
    int64_t n[3] = {0};
    struct decisions_filter f = {0};
    assert_int_equal(decisions_each(d, &f, count, n, &e), 0);
    assert_int_equal(n[0], 30);
    memset(n, 0, sizeof n);
    f = (struct decisions_filter){.host = "h1.", .verdict = "deny"};
    decisions_each(d, &f, count, n, &e);
    assert_int_equal(n[0], 5);
    memset(n, 0, sizeof n);
    f = (struct decisions_filter){.limit = 4};
    decisions_each(d, &f, count, n, &e);
    assert_int_equal(n[0], 4);
    assert_int_equal(n[2], 30); /* the newest, in order */
    memset(n, 0, sizeof n);
    f = (struct decisions_filter){.since_ms = 1020, .after_seq = 25};
    decisions_each(d, &f, count, n, &e);
    assert_int_equal(n[0], 5);
    memset(n, 0, sizeof n);
    f = (struct decisions_filter){0};
    decisions_grouped(d, &f, count, n, &e);
    assert_int_equal(n[0], 6); /* three hosts, two verdicts */
    assert_int_equal(n[1], 30);
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 30);
}

static void threat_99_what_was_touched_shows(void **state)
{
    static const char *const attacks[] = {
        "UPDATE rows SET verdict='deny' WHERE seq=7", "UPDATE rows SET up=0, down=1 WHERE seq=7",
        "UPDATE rows SET rule='x' WHERE seq=1", "DELETE FROM rows WHERE seq=1", "DELETE FROM rows WHERE seq=7",
        "DELETE FROM rows WHERE seq>25", "DELETE FROM rows", "UPDATE rows SET hash=zeroblob(32) WHERE seq=30",
        "UPDATE head SET seq=29", "UPDATE head SET first=3", "DELETE FROM head",
        "UPDATE rows SET host='h'||host WHERE seq=30", "UPDATE rows SET seq=31 WHERE seq=30",
        "UPDATE rows SET host=host||'x', method='' WHERE seq=4",
    };
    char why[200];
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        write_rows(30, 0);
        assert_int_equal(verify(NULL, 0), 30);
        tamper(attacks[i]);
        if (verify(why, sizeof why) >= 0)
            fail_msg("unseen: %s", attacks[i]);
        assert_true(why[0] != '\0');
        gone(state);
        fresh(state);
    }
}

static void chain_goes_on(void **state)
{
    (void)state;
    write_rows(10, 0);
    write_rows(10, 0);
    assert_int_equal(verify(NULL, 0), 20);
}

/* A full log forgets its oldest rows, and what is left can still be verified. */
static void ring(void **state)
{
    (void)state;
    write_rows(1000, 200);
    int64_t rows = verify(NULL, 0);
    assert_true(rows >= 190 && rows <= 200);
    tamper("DELETE FROM rows WHERE seq=(SELECT min(seq) FROM rows)");
    assert_int_equal(verify(NULL, 0), -1);
}

static void batch(void **state)
{
    struct err e = {0};
    (void)state;
    struct decisions *d = decisions_open(path, &e);
    struct decision_row r = {.kind = "deny", .host = "a", .count = 1};
    assert_int_equal(decisions_begin(d, &e), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(decisions_add(d, &r, &e), 0);
    assert_int_equal(decisions_commit(d, &e), 0);
    assert_int_equal(decisions_add(d, &r, &e), 0);
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 6);
}

static void not_a_log(void **state)
{
    struct err e = {0};
    (void)state;
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 1000; i++)
        fputs("this is no database", f);
    fclose(f);
    assert_null(decisions_open(path, &e));
    assert_true(e.text[0] != '\0');
}

/* Rows grow old; the chain goes on from where it begins then. */
static void old_rows_go(void **state)
{
    (void)state;
    write_rows(7000, 0); /* times 1000 to 7999 */
    struct decisions *d = decisions_open(path, NULL);
    int rounds = 0;
    while (decisions_expire(d, 7500))
        rounds++;
    assert_true(rounds > 0); /* never all at once */
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 500);
    write_rows(3, 0);
    assert_int_equal(verify(NULL, 0), 503);
    d = decisions_open(path, NULL);
    while (decisions_expire(d, INT64_MAX)) /* all of them */
        rounds++;
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 0);
    write_rows(2, 0);
    assert_int_equal(verify(NULL, 0), 2);
    d = decisions_open(path, NULL);
    assert_false(decisions_expire(d, 0)); /* any age */
    decisions_set_limit(d, 1);
    decisions_expire(d, 0);
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fresh, gone)
    const struct CMUnitTest tests[] = {
        T(rows_are_found), T(threat_99_what_was_touched_shows), T(chain_goes_on), T(ring), T(batch), T(not_a_log), T(old_rows_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
