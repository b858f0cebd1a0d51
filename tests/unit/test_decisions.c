/* The log: what was written is found again, and what was touched shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/ahead.h"
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
    struct decisions *d = decisions_open(path, false, &e);
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

/* Long rows are bounded by what they take. */
static void threat_84_94_long_rows(void **state)
{
    struct err e = {0};
    struct stat st;
    char long_path[2048];
    (void)state;
    memset(long_path, 'x', sizeof long_path);
    long_path[sizeof long_path - 1] = '\0';
    struct decisions *d = decisions_open(path, false, &e);
    struct decision_row r = {.kind = "request", .host = "a", .path = long_path, .verdict = "allow", .count = 1};
    decisions_set_bytes(d, 4 << 20);
    assert_int_equal(decisions_begin(d, &e), 0);
    for (int i = 0; i < 10000; i++) /* 20 MB */
        assert_int_equal(decisions_add(d, &r, &e), 0);
    assert_int_equal(decisions_commit(d, &e), 0);
    decisions_close(d);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 8 << 20);
    assert_true(verify(NULL, 0) > 500); /* and the chain holds */
}

static void batch(void **state)
{
    struct err e = {0};
    (void)state;
    struct decisions *d = decisions_open(path, false, &e);
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
    assert_null(decisions_open(path, false, &e));
    assert_true(e.text[0] != '\0');
}

/* Rows grow old; the chain goes on from where it begins then. */
static void old_rows_go(void **state)
{
    (void)state;
    write_rows(7000, 0); /* times 1000 to 7999 */
    struct decisions *d = decisions_open(path, false, NULL);
    int rounds = 0;
    while (decisions_expire(d, 7500))
        rounds++;
    assert_true(rounds > 0); /* never all at once */
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 500);
    write_rows(3, 0);
    assert_int_equal(verify(NULL, 0), 503);
    d = decisions_open(path, false, NULL);
    while (decisions_expire(d, INT64_MAX)) /* all of them */
        rounds++;
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 0);
    write_rows(2, 0);
    assert_int_equal(verify(NULL, 0), 2);
    d = decisions_open(path, false, NULL);
    assert_false(decisions_expire(d, 0)); /* any age */
    decisions_set_limit(d, 1);
    decisions_expire(d, 0);
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 1);
}

static void beside(char out[96], const char *suffix)
{
    snprintf(out, 96, "%s%s", path, suffix);
}

/* As programs do it. */
static bool cut(const char *name, off_t len)
{
    int fd = open(name, O_WRONLY);
    bool done = fd >= 0 && ftruncate(fd, len) == 0;
    close(fd);
    return done;
}

/* What may happen to a log while it is written; false: it is no harm. */
static bool touch(int how)
{
    char wal[96], shm[96], other[96];
    beside(wal, "-wal");
    beside(shm, "-shm");
    beside(other, ".away");
    FILE *f;
    switch (how) {
    case 0:
        return unlink(path) == 0;
    case 1:
        return unlink(path) == 0 && unlink(wal) == 0 && unlink(shm) == 0;
    case 2:
        return unlink(wal) == 0;
    case 3:
        return unlink(shm) == 0;
    case 4:
        return rename(path, other) == 0;
    case 5:
        return cut(path, 0);
    case 6:
        return cut(wal, 0);
    case 7:
        return cut(wal, 4096);
    case 8:
        f = fopen(other, "w");
        fputs("this is no database", f);
        return fclose(f) == 0 && rename(other, path) == 0;
    case 9: /* without opening it: nobody tells, but it is looked for every second */
        return truncate(wal, 0) == 0 && usleep(1100000) == 0;
    default: /* another program puts all that was written into the file: nothing is missing */
        tamper("PRAGMA wal_checkpoint(TRUNCATE)");
        return false;
    }
}

static void note_loss(const char *what, void *arg)
{
    assert_non_null(strstr(what, "while the sandbox ran"));
    ++*(int *)arg;
}

static void threat_99_what_happens_to_a_log_under_way_is_told(void **state)
{
    char why[300];
    for (int how = 0; how < 11; how++) {
        struct err e = {0};
        int lost = 0;
        struct decisions *d = decisions_open(path, false, &e);
        struct decision_row r = {.kind = "open", .host = "a", .verdict = "allow", .count = 1};
        decisions_on_loss(d, note_loss, &lost);
        for (int i = 0; i < 10; i++)
            assert_int_equal(decisions_add(d, &r, &e), 0);
        bool harm = touch(how);
        assert_int_equal(decisions_begin(d, &e), 0);
        assert_int_equal(decisions_add(d, &r, &e), 0);
        assert_int_equal(decisions_commit(d, &e), 0);
        assert_int_equal(decisions_add(d, &r, &e), 0);
        if (lost != harm)
            fail_msg("attack %d: told %d times", how, lost);
        /* Who followed the rows goes on with the next number. */
        int64_t n[3] = {0};
        struct decisions *reader = decisions_read(path, &e);
        struct decisions_filter after = {.after_seq = 10};
        assert_int_equal(decisions_each(reader, &after, count, n, &e), 0);
        assert_int_equal(n[0], harm ? 3 : 2);
        assert_int_equal(n[2], harm ? 13 : 12);
        decisions_close(reader);
        if (harm) {
            assert_int_equal(verify(why, sizeof why), -1);
            assert_non_null(strstr(why, "row 11: "));
        } else {
            assert_int_equal(verify(NULL, 0), 12);
        }
        decisions_close(d);
        write_rows(3, 0);
        assert_int_equal(verify(why, sizeof why), harm ? -1 : 15); /* it stays told */
        gone(state);
        fresh(state);
    }
}

/* A copy of one file to another: a backup, or its return. */
static void copy(const char *from, const char *to)
{
    static char buf[1 << 20];
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    assert_non_null(in);
    assert_non_null(out);
    size_t n = fread(buf, 1, sizeof buf, in);
    assert_true(n < sizeof buf && fwrite(buf, 1, n, out) == n);
    fclose(in);
    fclose(out);
}

static int look(bool written, char *why, size_t cap)
{
    struct err e = {0};
    int rc = decisions_look(path, written, &e);
    snprintf(why, cap, "%.*s", (int)cap - 1, e.text);
    return rc;
}

static void keep_told(const char *what, void *arg)
{
    snprintf(arg, 300, "%s", what);
}

/* What may happen to a log that nobody writes; the first row after it tells, and so does every look before. */
static void threat_99_what_happens_to_a_log_meanwhile_is_told(void **state)
{
    static const struct {
        const char *what, *says;
        int64_t row;
        bool written; /* the sandbox ran before, its own state says */
    } attacks[] = {
        {"removed", "the log was removed", 31, false},
        {"removed with its mark", "with the record of where it ended", 1, true},
        {"emptied", "damaged", 31, false},
        {"no log", "damaged", 31, false},
        {"an older copy", "rows 11 to 30 of the log are missing", 11, false},
        {"another log", "replaced by another", 31, false},
        {"a longer one", "replaced by another", 31, false},
        {"the last rows and the head", "rows 21 to 30 of the log are missing", 21, false},
        {"the last rows", "were removed or changed", 31, false},
        {"the last row", "were removed or changed", 31, false},
        {"the mark", "the record of where the log ended was removed", 31, false},
        {"a damaged mark", "the record of where the log ended was damaged", 31, false},
    };
    char why[300], other[96], mark[96], aside[96], told[300];
    snprintf(mark, sizeof mark, "%s/chain.head", dir);
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        struct err e = {0};
        beside(other, ".copy");
        snprintf(mark, sizeof mark, "%s/chain.head", dir);
        beside(aside, ".lost");
        switch (i) {
        case 4: /* what had been written by then */
            write_rows(10, 0);
            copy(path, other);
            write_rows(20, 0);
            break;
        case 5:
        case 6: /* a log of another sandbox */
            write_rows(i == 5 ? 30 : 60, 0);
            tamper("UPDATE rows SET hash=zeroblob(32) WHERE seq=30; UPDATE head SET hash=zeroblob(32) WHERE seq=30");
            copy(path, other);
            unlink(path);
            unlink(mark);
            write_rows(30, 0);
            break;
        default:
            write_rows(30, 0);
        }
        assert_int_equal(look(true, why, sizeof why), 0);
        switch (i) {
        case 0:
            unlink(path);
            break;
        case 1:
            unlink(path);
            unlink(mark);
            break;
        case 2:
            assert_true(cut(path, 0));
            break;
        case 3:
            unlink(path);
            FILE *f = fopen(path, "w");
            for (int k = 0; k < 1000; k++)
                fputs("this is no database", f);
            fclose(f);
            break;
        case 4:
        case 5:
        case 6:
            copy(other, path);
            break;
        case 7: /* as who knows the tables does it */
            tamper("UPDATE head SET seq=20, hash=(SELECT hash FROM rows WHERE seq=20); DELETE FROM rows WHERE seq>20");
            assert_int_equal(verify(NULL, 0), 20); /* the chain alone does not show it */
            break;
        case 8:
            tamper("DELETE FROM rows WHERE seq>20");
            break;
        case 9:
            tamper("UPDATE rows SET hash=zeroblob(32) WHERE seq=30");
            break;
        case 10:
            unlink(mark);
            break;
        case 11:
            assert_true(cut(mark, 10));
            break;
        }
        if (look(attacks[i].written, why, sizeof why) == 0 || !strstr(why, attacks[i].says))
            fail_msg("%s: a look says: %s", attacks[i].what, why);
        if (i == 1) /* nothing else tells it from a sandbox that never ran */
            assert_int_equal(look(false, why, sizeof why), 0);
        struct decisions *d = decisions_open(path, attacks[i].written, &e);
        if (!d)
            fail_msg("%s: %s", attacks[i].what, e.text);
        told[0] = '\0';
        decisions_on_loss(d, keep_told, told);
        if (!strstr(told, attacks[i].says))
            fail_msg("%s: told: %s", attacks[i].what, told);
        struct decision_row r = {.kind = "open", .host = "a", .verdict = "allow", .count = 1};
        assert_int_equal(decisions_add(d, &r, &e), 0);
        decisions_close(d);
        int64_t n[3] = {0};
        d = decisions_read(path, &e);
        struct decisions_filter after = {.after_seq = attacks[i].row - 1};
        assert_int_equal(decisions_each(d, &after, count, n, &e), 0);
        if (n[0] != 2 || n[2] != attacks[i].row + 1)
            fail_msg("%s: %lld rows, the last %lld", attacks[i].what, (long long)n[0], (long long)n[2]);
        decisions_close(d);
        assert_int_equal(verify(why, sizeof why), -1); /* it stays told, in the log itself */
        assert_int_equal(look(true, why, sizeof why), 0);
        assert_int_equal(access(aside, F_OK) == 0, i >= 2 && i <= 6 && i != 4); /* what is no log of ours is kept */
        gone(state);
        fresh(state);
    }
}

/* A kill at any moment leaves a log that is ahead of its mark, never one that seems to be touched. */
static void threat_99_a_kill_is_no_loss(void **state)
{
    char mark[96], before[96], why[300], wal[96], shm[96], copies[3][96];
    struct err e = {0};
    (void)state;
    snprintf(mark, sizeof mark, "%s/chain.head", dir);
    beside(before, ".mark");
    beside(wal, "-wal");
    beside(shm, "-shm");
    const char *files[] = {path, wal, shm};
    struct decisions *d = decisions_open(path, false, &e);
    struct decision_row r = {.kind = "open", .host = "a", .verdict = "allow", .count = 1};
    for (int i = 0; i < 10; i++)
        assert_int_equal(decisions_add(d, &r, &e), 0);
    copy(mark, before);
    assert_int_equal(decisions_add(d, &r, &e), 0);
    assert_int_equal(look(true, why, sizeof why), 0); /* while it is written */
    /* As it lies there when the process is killed between the two writes. */
    for (int i = 0; i < 3; i++) {
        snprintf(copies[i], sizeof copies[i], "%s/copy%d", dir, i);
        copy(files[i], copies[i]);
    }
    decisions_close(d);
    for (int i = 0; i < 3; i++)
        copy(copies[i], files[i]);
    copy(before, mark);
    assert_int_equal(look(true, why, sizeof why), 0);
    write_rows(1, 0);
    assert_int_equal(verify(NULL, 0), 12);
    /* Where all of it grew old, and where it is as full as it may be. */
    d = decisions_open(path, true, &e);
    decisions_expire(d, INT64_MAX);
    decisions_close(d);
    assert_int_equal(look(true, why, sizeof why), 0);
    write_rows(300, 100);
    assert_int_equal(look(true, why, sizeof why), 0);
    write_rows(1, 0);
    assert_true(verify(NULL, 0) > 90);
}

/* The same rows missing mean another thing where this host went down. */
static void threat_99_a_host_that_went_down(void **state)
{
    char mark[96], why[300];
    unsigned char line[156], h[32];
    for (int closed = 0; closed < 2; closed++) {
        write_rows(30, 0);
        snprintf(mark, sizeof mark, "%s/chain.head", dir);
        FILE *f = fopen(mark, "r+");
        assert_int_equal(fread(line, 1, sizeof line, f), sizeof line);
        memcpy(line + 97, closed ? "shut" : "open", 4);
        memcpy(line + 102, "00000000-0000-0000-0000-000000000000", 36); /* another boot */
        crypto_hash_sha256(h, line, 139);
        for (int i = 0; i < 8; i++)
            snprintf((char *)line + 139 + 2 * i, 3, "%02x", h[i]);
        line[155] = '\n';
        rewind(f);
        fwrite(line, 1, sizeof line, f);
        fclose(f);
        assert_int_equal(look(true, why, sizeof why), 0);
        tamper("UPDATE head SET seq=20, hash=(SELECT hash FROM rows WHERE seq=20); DELETE FROM rows WHERE seq>20");
        assert_int_equal(look(true, why, sizeof why), -1);
        assert_non_null(strstr(why, "rows 21 to 30"));
        assert_int_equal(strstr(why, "this host went down") != NULL, !closed);
        assert_int_equal(verify(NULL, 0), 20);
        gone(state);
        fresh(state);
    }
}

/* A mark that is removed under a running sandbox is there again, and nothing is lost. */
static void a_mark_is_kept(void **state)
{
    char mark[96], why[300];
    struct err e = {0};
    int lost = 0;
    (void)state;
    snprintf(mark, sizeof mark, "%s/chain.head", dir);
    struct decisions *d = decisions_open(path, false, &e);
    struct decision_row r = {.kind = "open", .host = "a", .verdict = "allow", .count = 1};
    decisions_on_loss(d, note_loss, &lost);
    assert_int_equal(decisions_add(d, &r, &e), 0);
    assert_int_equal(unlink(mark), 0);
    assert_int_equal(decisions_add(d, &r, &e), 0);
    assert_int_equal(access(mark, F_OK), 0);
    assert_int_equal(decisions_add(d, &r, &e), 0);
    assert_int_equal(look(true, why, sizeof why), 0);
    tamper("UPDATE head SET seq=2, hash=(SELECT hash FROM rows WHERE seq=2); DELETE FROM rows WHERE seq>2");
    assert_int_equal(look(true, why, sizeof why), -1); /* it is of the last row */
    decisions_close(d);
    assert_int_equal(lost, 0);
}

/* A log of a version that made no marks gets one, and nobody is alarmed. */
static void a_log_without_a_mark_gets_one(void **state)
{
    char mark[96], why[300];
    (void)state;
    snprintf(mark, sizeof mark, "%s/chain.head", dir);
    write_rows(10, 0);
    tamper("PRAGMA user_version=0");
    unlink(mark);
    assert_int_equal(look(true, why, sizeof why), 0);
    write_rows(10, 0);
    assert_int_equal(access(mark, F_OK), 0);
    assert_int_equal(verify(NULL, 0), 20);
    unlink(mark);
    assert_int_equal(look(true, why, sizeof why), -1);
}

static void threat_99_without_a_place_nothing_is_written(void **state)
{
    struct err e = {0};
    struct decisions *d = decisions_open(path, false, &e);
    struct decision_row r = {.kind = "open", .host = "a", .verdict = "allow", .count = 1};
    (void)state;
    assert_int_equal(decisions_add(d, &r, &e), 0);
    assert_int_equal(path_remove_tree(dir, NULL), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(decisions_add(d, &r, &e), -1);
        assert_int_equal(decisions_begin(d, &e), -1);
        assert_false(decisions_expire(d, 5));
    }
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(decisions_add(d, &r, &e), 0);
    decisions_close(d);
    char why[300];
    assert_int_equal(verify(why, sizeof why), -1);
    assert_non_null(strstr(why, "row 2: "));
}

/* What is written does not pile up beside the file until the writer itself has to move it, which decisions would wait for. */
static void rows_move_into_the_file_meanwhile(void **state)
{
    struct err e = {0};
    struct stat st = {0};
    (void)state;
    struct decisions *d = decisions_open(path, false, &e);
    struct decision_row r = {.kind = "open", .host = "a.example.com", .verdict = "allow", .count = 1};
    for (int i = 0; i < 3000; i++)
        assert_int_equal(decisions_add(d, &r, &e), 0);
    for (int i = 0; i < 6000 && st.st_size < 100000; i++) {
        usleep(10000);
        assert_int_equal(stat(path, &st), 0);
    }
    assert_true(st.st_size >= 100000);
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 3000);
}

/* "Since" goes by the order of the rows: a clock that is set back hides nothing. */
static void since_goes_by_order(void **state)
{
    static const int64_t times[] = {5000, 6000, 7000, 2000, 3000};
    struct err e = {0};
    int64_t n[3] = {0};
    (void)state;
    struct decisions *d = decisions_open(path, false, &e);
    for (size_t i = 0; i < 5; i++) {
        struct decision_row r = {.kind = "deny", .host = "a", .time_ms = times[i], .count = 1};
        assert_int_equal(decisions_add(d, &r, &e), 0);
    }
    struct decisions_filter f = {.since_ms = 6000};
    decisions_each(d, &f, count, n, &e);
    assert_int_equal(n[0], 4);
    f.since_ms = 8000;
    memset(n, 0, sizeof n);
    decisions_each(d, &f, count, n, &e);
    assert_int_equal(n[0], 0);
    decisions_close(d);
}

static int64_t rows_with(const char *verdict, int64_t *last)
{
    struct err e = {0};
    int64_t n[3] = {0};
    struct decisions *d = decisions_read(path, &e);
    struct decisions_filter f = {.verdict = verdict};
    assert_int_equal(decisions_each(d, &f, count, n, &e), 0);
    decisions_close(d);
    if (last)
        *last = n[2];
    return n[0];
}

/* Ends at once, with `kept` rows kept in two goes and another noted that nobody was told of. */
static void die_with(int kept)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct err e = {0};
        struct decisions *d = decisions_open(path, false, &e);
        struct decision_row r = {.time_ms = 77, .kind = "request", .proto = "http", .flow = 5, .host = "a", .port = 443, .addr = "192.0.2.1", .method = "GET",
                                 .path = "/x", .verdict = "allow", .rule = "a rule", .count = 1};
        bool good = d != NULL;
        for (int i = 0; good && i < kept; i++)
            good = decisions_note(d, &r, &e) == 0 && (i != 1 || decisions_keep(d, &e) == 0);
        good = good && decisions_keep(d, &e) == 0 && decisions_note(d, &r, &e) == 0;
        _exit(good ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

static void threat_99_what_was_kept_is_there_after_a_kill(void **state)
{
    (void)state;
    for (int i = 1; i <= 4; i++) {
        die_with(i);
        write_rows(1, 0); /* the next one brings it into the log, and goes on */
    }
    int64_t last;
    assert_int_equal(verify(NULL, 0), 1 + 2 + 3 + 4 + 4);
    assert_int_equal(rows_with(NULL, &last), 14);
    assert_int_equal(last, 14);
    struct err e = {0};
    struct decisions *d = decisions_read(path, &e);
    struct decisions_walk *w = decisions_walk(d, 0, 0);
    const struct decision_row *r = decisions_next(w);
    assert_int_equal(r->time_ms, 77);
    assert_int_equal(r->flow, 5);
    assert_int_equal(r->port, 443);
    assert_string_equal(r->path, "/x");
    assert_string_equal(r->rule, "a rule");
    assert_string_equal(r->reason, "");
    decisions_stop(w);
    decisions_close(d);
}

/* Who reads a log sees them without another start; who reads one that is being written changes nothing. */
static void threat_99_what_was_kept_is_there_for_a_reader(void **state)
{
    struct err e = {0};
    struct decision_row r = {.kind = "request", .host = "b", .verdict = "allow", .count = 1};
    (void)state;
    decisions_gather(path);
    assert_int_equal(access(path, F_OK), -1); /* no log yet, and none now */
    write_rows(2, 0);
    die_with(3);
    assert_int_equal(verify(NULL, 0), 2);
    decisions_gather(path);
    assert_int_equal(verify(NULL, 0), 5);
    decisions_gather(path);
    assert_int_equal(verify(NULL, 0), 5);
    struct decisions *d = decisions_open(path, false, &e);
    assert_int_equal(decisions_note(d, &r, &e), 0);
    assert_int_equal(decisions_keep(d, &e), 0);
    decisions_gather(path);
    assert_int_equal(verify(NULL, 0), 5);
    assert_true(decisions_unsettled(d));
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 6);
    /* Of one that was touched the next start tells. */
    die_with(2);
    tamper("DELETE FROM rows WHERE seq = 6");
    decisions_gather(path);
    assert_int_equal(verify(NULL, 0), -1);
    assert_int_equal(rows_with(NULL, NULL), 5);
}

/* What lies in the file and is no whole row, or is not what follows, is none. */
static void kept_rows_that_are_damaged(void **state)
{
    (void)state;
    struct decision_row r = {.kind = "request", .host = "a.example.com", .verdict = "allow", .count = 1}, got;
    struct ahead *a = ahead_open(path, 0);
    for (int i = 0; i < 3; i++)
        assert_true(ahead_put(a, &r, 8 + i));
    size_t all = ahead_used(a);
    assert_true(ahead_keep(a));
    ahead_close(a);
    for (int64_t last = 0; last < 12; last++) {
        a = ahead_open(path, 0);
        ahead_load(a, last);
        assert_int_equal(ahead_count(a), last == 7 ? 3 : 0);
        ahead_close(a);
    }
    int fd = open(path, O_RDWR);
    for (size_t at = 0; at < all; at++) {
        uint8_t c, bad;
        size_t from = 0;
        assert_int_equal(pread(fd, &c, 1, (off_t)at), 1);
        bad = c ^ (uint8_t)(1 << at % 8);
        assert_int_equal(pwrite(fd, &bad, 1, (off_t)at), 1);
        a = ahead_open(path, 0);
        ahead_load(a, 7);
        assert_int_equal(ahead_count(a), at / (all / 3));
        while (ahead_next(a, &from, &got))
            assert_string_equal(got.host, r.host);
        ahead_close(a);
        assert_int_equal(pwrite(fd, &c, 1, (off_t)at), 1);
    }
    close(fd);
}

static void kept_rows_keep_their_place(void **state)
{
    struct err e = {0};
    (void)state;
    struct decisions *d = decisions_open(path, false, &e);
    struct decision_row later = {.kind = "request", .host = "a", .verdict = "allow", .count = 1}, now = {.kind = "open", .host = "b", .verdict = "allow", .count = 1};
    assert_int_equal(decisions_note(d, &later, &e), 0);
    assert_int_equal(decisions_keep(d, &e), 0);
    assert_true(decisions_unsettled(d));
    assert_int_equal(decisions_add(d, &now, &e), 0);
    assert_false(decisions_unsettled(d));
    for (int i = 0; i < 20000; i++) { /* more than may wait */
        assert_int_equal(decisions_note(d, &later, &e), 0);
        if (i % 7 == 0)
            assert_int_equal(decisions_keep(d, &e), 0);
    }
    assert_int_equal(decisions_keep(d, &e), 0);
    assert_int_equal(decisions_begin(d, &e), 0);
    assert_int_equal(decisions_add(d, &now, &e), 0);
    assert_int_equal(decisions_commit(d, &e), 0);
    struct decisions *reader = decisions_read(path, &e);
    struct decisions_walk *w = decisions_walk(reader, 0, 0);
    for (int64_t i = 1; i <= 20003; i++) {
        const struct decision_row *r = decisions_next(w);
        assert_non_null(r);
        assert_string_equal(r->kind, i == 2 || i == 20003 ? "open" : "request");
    }
    decisions_stop(w);
    decisions_close(reader);
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 20003);
}

/* Once it is known that the log cannot be written nothing is kept, and what was refused for it never appears. */
static void threat_99_nothing_is_kept_for_a_log_that_fails(void **state)
{
    struct err e = {0};
    (void)state;
    struct decisions *d = decisions_open(path, false, &e);
    struct decision_row r = {.kind = "request", .host = "a", .verdict = "allow", .count = 1};
    assert_int_equal(decisions_add(d, &r, &e), 0);
    tamper("CREATE TRIGGER full BEFORE INSERT ON rows BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END");
    assert_int_equal(decisions_note(d, &r, &e), 0);
    assert_int_equal(decisions_keep(d, &e), 0); /* safe, and waits */
    assert_int_equal(decisions_settle(d, &e), -1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(decisions_note(d, &r, &e), 0);
        assert_int_equal(decisions_keep(d, &e), -1);
        assert_int_equal(decisions_add(d, &r, &e), -1);
    }
    assert_int_equal(rows_with(NULL, NULL), 1);
    tamper("DROP TRIGGER full");
    assert_int_equal(decisions_note(d, &r, &e), 0);
    assert_int_equal(decisions_keep(d, &e), 0);
    assert_int_equal(rows_with(NULL, NULL), 3);
    decisions_close(d);
    assert_int_equal(verify(NULL, 0), 3);
}

static void threat_99_kept_rows_of_a_log_that_is_removed(void **state)
{
    struct err e = {0};
    char file[80], why[300];
    (void)state;
    for (int how = 0; how < 2; how++) {
        struct decisions *d = decisions_open(path, false, &e);
        struct decision_row r = {.kind = "request", .host = "a", .verdict = "allow", .count = 1};
        for (int i = 0; i < 5; i++)
            assert_int_equal(decisions_add(d, &r, &e), 0);
        assert_int_equal(decisions_note(d, &r, &e), 0);
        assert_int_equal(decisions_keep(d, &e), 0);
        snprintf(file, sizeof file, "%s%s", path, how ? "-ahead" : "");
        assert_int_equal(unlink(file), 0);
        assert_int_equal(decisions_check(d, &e), 0);
        assert_int_equal(access(file, F_OK), 0); /* there again */
        assert_int_equal(decisions_note(d, &r, &e), 0);
        assert_int_equal(decisions_keep(d, &e), 0);
        assert_int_equal(decisions_settle(d, &e), 0);
        decisions_close(d);
        int64_t last;
        assert_int_equal(rows_with("allow", &last), how ? 7 : 2);
        assert_int_equal(last, how ? 7 : 8);
        assert_int_equal(verify(why, sizeof why), how ? 7 : -1);
        gone(state);
        fresh(state);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fresh, gone)
    const struct CMUnitTest tests[] = {
        T(rows_are_found), T(threat_99_what_was_touched_shows), T(chain_goes_on), T(ring), T(threat_84_94_long_rows), T(batch), T(not_a_log), T(old_rows_go),
        T(threat_99_what_happens_to_a_log_under_way_is_told), T(threat_99_without_a_place_nothing_is_written),
        T(threat_99_what_happens_to_a_log_meanwhile_is_told), T(threat_99_a_kill_is_no_loss), T(threat_99_a_host_that_went_down), T(a_mark_is_kept),
        T(a_log_without_a_mark_gets_one), T(since_goes_by_order), T(rows_move_into_the_file_meanwhile),
        T(threat_99_what_was_kept_is_there_after_a_kill), T(threat_99_what_was_kept_is_there_for_a_reader), T(kept_rows_that_are_damaged), T(kept_rows_keep_their_place),
        T(threat_99_nothing_is_kept_for_a_log_that_fails), T(threat_99_kept_rows_of_a_log_that_is_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
