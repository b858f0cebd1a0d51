#include "core/decisions.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/ahead.h"
#include "core/chainmark.h"

#define HASH crypto_hash_sha256_BYTES

/* Moves what the write-ahead log holds into the file, on a thread of its own: it waits for the disk, and a decision must
 * not wait with it.  Beyond WAL_MOST the writer does it itself, so that the log stays bounded whatever the disk does. */
#define WAL_PAGES 1000
#define WAL_MOST 16000
#define LOSS_TEXT 300
#define UNSETTLED_MOST (64u * 1024u) /* bytes of rows that wait for it; what is noted at once may be three times as much */
#define BYTES_LOOK 256 /* rows from one look at the file's size to the next */

struct checkpointer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool started, wanted, end;
    int next; /* pages at which it is woken again */
    char *path;
};

/* The files of a log, as they were seen last: they belong to no other inode and never grow shorter while they are open. */
static const char *const suffixes[] = {"", "-wal", "-shm"};
#define FILES (sizeof suffixes / sizeof *suffixes)

struct seen {
    dev_t dev;
    ino_t ino;
    off_t size;
};

struct decisions {
    sqlite3 *db;
    sqlite3_stmt *insert, *head, *begin, *commit, *used;
    unsigned char last[HASH];
    int64_t seq, first;
    int64_t rows_max, bytes_max;
    bool in_transaction;
    bool well;           /* what was tried last to write was written */
    struct ahead *ahead; /* NULL: rows are written into the log at once */
    struct checkpointer checkpointer;
    char *path;
    struct seen seen[FILES];
    int watch;        /* of the folder: says when a look is worth while; -1: always */
    int64_t looked_s; /* ... and it is every second, for what nobody tells of */
    decisions_lost_fn *lost;
    void *lost_arg;
    char found[LOSS_TEXT]; /* what was missing when it was opened */
    struct chainmark mark; /* of what was committed, where this one writes */
    char *mark_path;
    int mark_fd;
};

static int fail(struct decisions *d, struct err *e, const char *what)
{
    return err_set(e, STATUS_FAILED, "decision log: %s: %s", what, d->db ? sqlite3_errmsg(d->db) : "it is not open");
}

static int run(struct decisions *d, const char *sql, struct err *e)
{
    return sqlite3_exec(d->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(d, e, "cannot write");
}

/* A statement without results, prepared once: parsing it would cost more than doing it. */
static int step(struct decisions *d, sqlite3_stmt *s, struct err *e)
{
    int rc = sqlite3_step(s);
    int failed = rc == SQLITE_DONE ? 0 : fail(d, e, "cannot write");
    sqlite3_reset(s);
    return failed;
}

static void *checkpoint(void *arg)
{
    struct checkpointer *c = arg;
    sqlite3 *db = NULL;
    bool usable = sqlite3_open_v2(c->path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK;
    if (usable) /* the files may be others by then */
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    /* A connection that has not read yet knows of no write-ahead log, and would move nothing. */
    usable = usable && sqlite3_exec(db, "SELECT seq FROM head", NULL, NULL, NULL) == SQLITE_OK;
    pthread_mutex_lock(&c->lock);
    while (!c->end) {
        if (!c->wanted) {
            pthread_cond_wait(&c->wake, &c->lock);
            continue;
        }
        pthread_mutex_unlock(&c->lock);
        if (usable)
            sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        pthread_mutex_lock(&c->lock);
        c->wanted = false;
    }
    pthread_mutex_unlock(&c->lock);
    sqlite3_close(db);
    return NULL;
}

static void start_checkpointer(struct checkpointer *c)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    c->started = pthread_create(&c->thread, NULL, checkpoint, c) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* After each commit, with the length of the write-ahead log (sqlite3_wal_hook). */
static int on_commit(void *arg, sqlite3 *db, const char *name, int pages)
{
    struct checkpointer *c = arg;
    if (pages < WAL_PAGES)
        c->next = WAL_PAGES; /* it began anew: all was moved */
    if (pages < c->next)
        return SQLITE_OK;
    c->next = pages + WAL_PAGES;
    if (!c->started)
        start_checkpointer(c);
    if (!c->started || pages >= WAL_MOST) {
        sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        return SQLITE_OK;
    }
    pthread_mutex_lock(&c->lock);
    c->wanted = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    return SQLITE_OK;
}

static void end_checkpointer(struct checkpointer *c)
{
    if (c->started) {
        pthread_mutex_lock(&c->lock);
        c->end = true;
        pthread_cond_signal(&c->wake);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
    }
    free(c->path);
    *c = (struct checkpointer){0};
}

static const char schema[] =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=0;"
    "CREATE TABLE IF NOT EXISTS rows(seq INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, kind TEXT NOT NULL,"
    " flow INTEGER NOT NULL, proto TEXT NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL, addr TEXT NOT NULL,"
    " method TEXT NOT NULL, path TEXT NOT NULL, verdict TEXT NOT NULL, rule TEXT NOT NULL, reason TEXT NOT NULL,"
    " up INTEGER NOT NULL, down INTEGER NOT NULL, ms INTEGER NOT NULL, count INTEGER NOT NULL, hash BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS head(one INTEGER PRIMARY KEY CHECK(one=1), seq INTEGER NOT NULL, hash BLOB NOT NULL,"
    " first INTEGER NOT NULL, first_hash BLOB NOT NULL);"
    "INSERT OR IGNORE INTO head VALUES(1, 0, zeroblob(32), 1, zeroblob(32));";

#define COLUMNS                                                                                                  \
    "seq,time_ms,kind,flow,proto,host,port,addr,method,path,verdict,rule,reason,up,down,ms,count"

static int load_head(struct decisions *d, struct err *e)
{
    sqlite3_stmt *s = NULL;
    int rc = -1;
    if (sqlite3_prepare_v2(d->db, "SELECT seq, hash, first FROM head", -1, &s, NULL) == SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW && sqlite3_column_bytes(s, 1) == HASH) {
        d->seq = sqlite3_column_int64(s, 0);
        memcpy(d->last, sqlite3_column_blob(s, 1), HASH);
        d->first = sqlite3_column_int64(s, 2);
        rc = 0;
    } else {
        fail(d, e, "its head is damaged");
    }
    sqlite3_finalize(s);
    return rc;
}

static bool look(const struct decisions *d, size_t i, struct stat *st)
{
    char path[4096];
    return (size_t)snprintf(path, sizeof path, "%s%s", d->path, suffixes[i]) < sizeof path && stat(path, st) == 0;
}

static void look_around(struct decisions *d)
{
    for (size_t i = 0; i < FILES; i++) {
        struct stat st;
        d->seen[i] = look(d, i, &st) ? (struct seen){st.st_dev, st.st_ino, st.st_size} : (struct seen){0};
    }
}

/* Opens the database.  next: the chain of this one goes on in it, where it is empty. */
static int open_db(struct decisions *d, bool next, struct err *e)
{
    mode_t old = umask(077);
    unsigned char last[HASH];
    int64_t seq = d->seq;
    char sql[400], hex[2 * HASH + 1];
    memcpy(last, d->last, HASH);
    if (sqlite3_open_v2(d->path, &d->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK) {
        fail(d, e, "cannot open");
        umask(old);
        return -1;
    }
    sqlite3_busy_timeout(d->db, 5000);
    int rc = run(d, schema, e);
    umask(old);
    if (rc == 0 && next) {
        sodium_bin2hex(hex, sizeof hex, last, HASH);
        snprintf(sql, sizeof sql, "UPDATE head SET seq=%lld, hash=x'%s', first=%lld, first_hash=x'%s' WHERE seq=0", (long long)seq, hex,
                 (long long)seq + 1, hex);
        rc = run(d, sql, e);
    }
    if (rc < 0 || load_head(d, e) < 0)
        return -1;
    if (sqlite3_prepare_v2(d->db, "INSERT INTO rows(" COLUMNS ",hash) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", -1,
                           &d->insert, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(d->db, "UPDATE head SET seq=?, hash=?", -1, &d->head, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(d->db, "BEGIN IMMEDIATE", -1, &d->begin, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(d->db, "COMMIT", -1, &d->commit, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(d->db, "SELECT (p.page_count - f.freelist_count) * s.page_size FROM pragma_page_count p, pragma_freelist_count f, "
                                  "pragma_page_size s", -1, &d->used, NULL) != SQLITE_OK || !(d->checkpointer.path = strdup(d->path)))
        return fail(d, e, "cannot prepare");
    pthread_mutex_init(&d->checkpointer.lock, NULL);
    pthread_cond_init(&d->checkpointer.wake, NULL);
    sqlite3_wal_hook(d->db, on_commit, &d->checkpointer);
    look_around(d);
    return 0;
}

/* The head that the files hold, read as anybody would. */
static bool same_head(struct decisions *d)
{
    struct decisions *there = decisions_read(d->path, NULL);
    bool same = there && load_head(there, NULL) == 0 && there->seq == d->seq && memcmp(there->last, d->last, HASH) == 0;
    decisions_close(there);
    return same;
}

static void begin_watch(struct decisions *d)
{
    char dir[4096];
    const char *slash = strrchr(d->path, '/');
    size_t n = slash ? (size_t)(slash - d->path) : 0;
    d->watch = -1;
    if (n == 0 || n >= sizeof dir || (d->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) < 0)
        return;
    memcpy(dir, d->path, n);
    dir[n] = '\0';
    if (inotify_add_watch(d->watch, dir, IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_CREATE | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF) < 0) {
        close(d->watch);
        d->watch = -1;
    }
}

/* Did anything happen to the folder's files but writing?  The kernel tells before the call that did it returns. */
static bool stirred(struct decisions *d)
{
    char buf[4096] __attribute__((aligned(8)));
    struct timespec t;
    bool any = d->watch < 0;
    ssize_t n;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    while (d->watch >= 0 && (n = read(d->watch, buf, sizeof buf)) > 0)
        for (char *p = buf; p < buf + n;) {
            const struct inotify_event *ev = (const struct inotify_event *)(void *)p;
            any = true;
            p += sizeof *ev + ev->len;
            if (ev->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) { /* the path leads elsewhere now */
                close(d->watch);
                d->watch = -1;
                break;
            }
        }
    any = any || t.tv_sec != d->looked_s;
    d->looked_s = t.tv_sec;
    return any;
}

/* Is what others find there not what this was writing?  Says what happened. */
static bool changed(struct decisions *d, struct err *e)
{
    bool shorter = false;
    for (size_t i = 0; i < FILES; i++) {
        struct stat st;
        struct seen *was = &d->seen[i];
        bool there = look(d, i, &st);
        if (!was->ino && !there)
            continue;
        if (!there) {
            err_set(e, STATUS_FAILED, "%s was removed", i ? "a part of the log" : "the log");
            return true;
        }
        if (was->ino && (was->ino != st.st_ino || was->dev != st.st_dev)) {
            err_set(e, STATUS_FAILED, "%s was replaced", i ? "a part of the log" : "the log");
            return true;
        }
        shorter = shorter || (i < 2 && st.st_size < was->size);
        *was = (struct seen){st.st_dev, st.st_ino, st.st_size};
    }
    /* Another program may have moved the write-ahead log into the file, which is no harm. */
    if (!shorter || same_head(d))
        return false;
    err_set(e, STATUS_FAILED, "the log was cut short");
    return true;
}

static void close_db(struct decisions *d)
{
    end_checkpointer(&d->checkpointer);
    sqlite3_finalize(d->insert);
    sqlite3_finalize(d->head);
    sqlite3_finalize(d->begin);
    sqlite3_finalize(d->commit);
    sqlite3_finalize(d->used);
    d->insert = d->head = d->begin = d->commit = d->used = NULL;
    sqlite3_close(d->db);
    d->db = NULL;
}

struct decisions *decisions_read(const char *path, struct err *e)
{
    struct decisions *d = calloc(1, sizeof *d);
    if (!d) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    d->mark_fd = -1;
    if (access(path, F_OK) < 0) {
        err_set(e, STATUS_NOT_FOUND, "nothing was logged yet");
        free(d);
        return NULL;
    }
    if (sqlite3_open_v2(path, &d->db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK) {
        fail(d, e, "cannot open");
        decisions_close(d);
        return NULL;
    }
    sqlite3_busy_timeout(d->db, 5000);
    return d;
}

void decisions_close(struct decisions *d)
{
    if (!d)
        return;
    if (d->db)
        decisions_settle(d, NULL);
    ahead_close(d->ahead);
    /* What this was written from is not what lies there now: leave that alone. */
    struct err ignored = {0};
    int in_log = 0, moved = -1;
    if (d->db && d->path && changed(d, &ignored))
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    else if (d->db && d->path && d->mark_fd >= 0)
        d->mark.closed = sqlite3_wal_checkpoint_v2(d->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_log, &moved) == SQLITE_OK && in_log == moved;
    close_db(d);
    if (d->mark.closed && d->mark_fd >= 0)
        chainmark_write(d->mark_fd, &d->mark);
    if (d->path && d->watch >= 0)
        close(d->watch);
    if (d->mark_fd >= 0)
        close(d->mark_fd);
    free(d->mark_path);
    free(d->path);
    free(d);
}

static void hash_text(crypto_hash_sha256_state *h, const char *s)
{
    /* With its length, so that no two rows flow into the same bytes. */
    uint64_t n = strlen(s);
    crypto_hash_sha256_update(h, (unsigned char *)&n, sizeof n);
    crypto_hash_sha256_update(h, (const unsigned char *)s, n);
}

static void hash_row(unsigned char out[HASH], const unsigned char prev[HASH], const struct decision_row *r)
{
    crypto_hash_sha256_state h;
    const int64_t numbers[] = {r->seq, r->time_ms, r->flow, r->port, r->bytes_up, r->bytes_down, r->duration_ms, r->count};
    const char *const texts[] = {r->kind, r->proto, r->host, r->addr, r->method, r->path, r->verdict, r->rule, r->reason};
    crypto_hash_sha256_init(&h);
    crypto_hash_sha256_update(&h, prev, HASH);
    crypto_hash_sha256_update(&h, (const unsigned char *)numbers, sizeof numbers);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        hash_text(&h, texts[i]);
    crypto_hash_sha256_final(&h, out);
}

static const char *or_empty(const char *s)
{
    return s ? s : "";
}

/* A log that is full forgets its oldest rows, a few at a time (a decision waits for it); where the chain begins now
 * is remembered. */
static int trim_to(struct decisions *d, int64_t first, struct err *e)
{
    char sql[512];
    snprintf(sql, sizeof sql,
             "UPDATE head SET first=%lld, first_hash=(SELECT hash FROM rows WHERE seq=%lld);"
             "DELETE FROM rows WHERE seq<%lld;",
             (long long)first, (long long)first - 1, (long long)first);
    if (run(d, sql, e) < 0)
        return -1;
    d->first = first;
    return 0;
}

static int trim(struct decisions *d, struct err *e)
{
    return trim_to(d, d->first + (d->rows_max + 99) / 100, e);
}

static int64_t used(struct decisions *d)
{
    int64_t bytes = sqlite3_step(d->used) == SQLITE_ROW ? sqlite3_column_int64(d->used, 0) : 0;
    sqlite3_reset(d->used);
    return bytes;
}

/* The guest chooses how long rows are.  More go at a time than came since the last look. */
static int trim_bytes(struct decisions *d, struct err *e)
{
    int64_t n = d->seq + 1 - d->first;
    if (d->seq % BYTES_LOOK != 0 || n < 2 * BYTES_LOOK || used(d) <= d->bytes_max)
        return 0;
    return trim_to(d, d->first + 2 * BYTES_LOOK, e);
}

static void roll_back(struct decisions *d);
static int add(struct decisions *d, const struct decision_row *row, bool own, struct err *e);

#define EXPIRE_AT_ONCE 5000

bool decisions_expire(struct decisions *d, int64_t before_ms)
{
    sqlite3_stmt *s = NULL;
    if (decisions_check(d, NULL) < 0)
        return false;
    int64_t over = d->seq + 1 - d->first - d->rows_max, first = d->first + (over > 0 ? over : 0);
    /* The clock may have been set back and forth: rows go in the order of their numbers, up to the first that is young. */
    if (sqlite3_prepare_v2(d->db, "SELECT seq FROM rows WHERE seq>=?1 AND seq<?2 AND time_ms>=?3 ORDER BY seq LIMIT 1", -1, &s, NULL) != SQLITE_OK)
        return false;
    int64_t end = d->first + EXPIRE_AT_ONCE < d->seq + 1 ? d->first + EXPIRE_AT_ONCE : d->seq + 1;
    sqlite3_bind_int64(s, 1, d->first);
    sqlite3_bind_int64(s, 2, end);
    sqlite3_bind_int64(s, 3, before_ms);
    int rc = sqlite3_step(s);
    int64_t young = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : rc == SQLITE_DONE ? end : d->first;
    sqlite3_finalize(s);
    if (first < young)
        first = young;
    if (first > d->first + EXPIRE_AT_ONCE)
        first = d->first + EXPIRE_AT_ONCE;
    if (first == d->first || step(d, d->begin, NULL) < 0)
        return false;
    int64_t was = d->first;
    if (trim_to(d, first, NULL) < 0 || step(d, d->commit, NULL) < 0) {
        d->first = was;
        roll_back(d);
        return false;
    }
    return first == was + EXPIRE_AT_ONCE;
}

void decisions_set_bytes(struct decisions *d, int64_t bytes)
{
    d->bytes_max = bytes;
}

void decisions_set_limit(struct decisions *d, int64_t rows)
{
    d->rows_max = rows;
}

/* What lies there is kept aside, for who wants to see what happened; one of them. */
static void put_aside(struct decisions *d)
{
    for (size_t i = 0; i < FILES; i++) {
        char from[4096], to[4096];
        if ((size_t)snprintf(from, sizeof from, "%s%s", d->path, suffixes[i]) >= sizeof from ||
            (size_t)snprintf(to, sizeof to, "%s.lost%s", d->path, suffixes[i]) >= sizeof to)
            continue;
        unlink(to);
        rename(from, to);
    }
}

/* Was there a mark of this log? */
static bool is_marked(struct decisions *d)
{
    sqlite3_stmt *s = NULL;
    bool marked = sqlite3_prepare_v2(d->db, "PRAGMA user_version", -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW &&
                  sqlite3_column_int(s, 0) > 0;
    sqlite3_finalize(s);
    return marked;
}

/* From then on one that has no mark has lost it. */
static int note_marked(struct decisions *d, struct err *e)
{
    return d->mark_fd < 0 || is_marked(d) ? 0 : run(d, "PRAGMA user_version=1", e);
}

/* The row that says that others are missing, and whoever wants to hear of it. */
static int tell_loss(struct decisions *d, const char *reason, struct err *e)
{
    struct timespec t;
    struct decision_row row = {.kind = "log", .proto = "other", .verdict = "fail", .rule = "log", .reason = reason, .count = 1};
    clock_gettime(CLOCK_REALTIME, &t);
    row.time_ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    if (add(d, &row, true, e) < 0)
        return -1;
    if (d->ahead && ahead_count(d->ahead)) /* they come behind it */
        ahead_renumber(d->ahead, d->seq + 1);
    if (d->lost)
        d->lost(reason, d->lost_arg);
    else
        snprintf(d->found, sizeof d->found, "%s", reason);
    return 0;
}

/* A new log in the place of one that was touched.  Its rows go on with the numbers and the chain of the old one, so
 * readers go on as well and an old copy still fits before it; the first row says what happened. */
static int start_anew(struct decisions *d, const char *why, const char *when, struct err *e)
{
    char reason[LOSS_TEXT];
    if (d->db) {
        sqlite3_db_config(d->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        close_db(d);
    }
    put_aside(d);
    if (d->seq)
        snprintf(reason, sizeof reason, "%.130s while the sandbox %s: its rows up to %lld are gone, and a new one begins here", why, when, (long long)d->seq);
    else
        snprintf(reason, sizeof reason, "%.130s while the sandbox %s, and a new one begins here", why, when);
    d->in_transaction = false;
    if (open_db(d, true, e) == 0 && note_marked(d, e) == 0 && tell_loss(d, reason, e) == 0)
        return 0;
    close_db(d);
    return -1;
}

void decisions_on_loss(struct decisions *d, decisions_lost_fn *fn, void *arg)
{
    d->lost = fn;
    d->lost_arg = arg;
    if (d->found[0])
        fn(d->found, arg);
    d->found[0] = '\0';
}

static void set_mark(struct decisions *d)
{
    d->mark.seq = d->seq;
    memcpy(d->mark.hash, d->last, HASH);
    d->mark.closed = false;
}

/* Behind what it speaks of: a crash between the two leaves a log that is ahead of its mark. */
static void write_mark(struct decisions *d)
{
    set_mark(d);
    chainmark_write(d->mark_fd, &d->mark);
}

/* One that is removed under a running sandbox is made anew: what it says is known here. */
static void keep_mark(struct decisions *d)
{
    if (d->mark_path)
        d->mark_fd = chainmark_file(d->mark_path, d->mark_fd, &d->mark);
}

int decisions_check(struct decisions *d, struct err *e)
{
    struct err why = {0};
    if (d->db && !stirred(d))
        return 0;
    keep_mark(d);
    if (d->ahead)
        ahead_check(d->ahead);
    if (d->db && !changed(d, &why))
        return 0;
    d->well = start_anew(d, d->db ? why.text : "the log was lost", "ran", e) == 0;
    return d->well ? 0 : -1;
}

/* What was not committed is gone: the chain goes on from what is. */
static void roll_back(struct decisions *d)
{
    if (!d->db)
        return;
    run(d, "ROLLBACK", NULL);
    load_head(d, NULL);
}

int decisions_begin(struct decisions *d, struct err *e)
{
    d->well = decisions_settle(d, e) == 0 && decisions_check(d, e) == 0 && step(d, d->begin, e) == 0;
    d->in_transaction = d->well;
    return d->well ? 0 : -1;
}

/* The head moves once for all the rows of a transaction. */
static int commit(struct decisions *d, struct err *e)
{
    sqlite3_bind_int64(d->head, 1, d->seq);
    sqlite3_bind_blob(d->head, 2, d->last, HASH, SQLITE_STATIC);
    if (step(d, d->head, e) < 0 || step(d, d->commit, e) < 0)
        return -1;
    write_mark(d);
    return 0;
}

int decisions_commit(struct decisions *d, struct err *e)
{
    if (!d->in_transaction)
        return 0;
    d->in_transaction = false;
    d->well = commit(d, e) == 0;
    if (d->well)
        return 0;
    roll_back(d);
    return -1;
}

/* own: as a transaction of its own. */
static int add(struct decisions *d, const struct decision_row *row, bool own, struct err *e)
{
    struct decision_row r = *row;
    unsigned char hash[HASH];
    r.kind = or_empty(r.kind);
    r.proto = or_empty(r.proto);
    r.host = or_empty(r.host);
    r.addr = or_empty(r.addr);
    r.method = or_empty(r.method);
    r.path = or_empty(r.path);
    r.verdict = or_empty(r.verdict);
    r.rule = or_empty(r.rule);
    r.reason = or_empty(r.reason);
    r.seq = d->seq + 1;
    hash_row(hash, d->last, &r);
    if (own && step(d, d->begin, e) < 0)
        return -1;
    sqlite3_stmt *s = d->insert;
    const int64_t before[] = {r.seq, r.time_ms};
    for (int i = 0; i < 2; i++)
        sqlite3_bind_int64(s, i + 1, before[i]);
    sqlite3_bind_text(s, 3, r.kind, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 4, r.flow);
    sqlite3_bind_text(s, 5, r.proto, -1, SQLITE_STATIC);
    sqlite3_bind_text(s, 6, r.host, -1, SQLITE_STATIC);
    sqlite3_bind_int64(s, 7, r.port);
    const char *const texts[] = {r.addr, r.method, r.path, r.verdict, r.rule, r.reason};
    for (int i = 0; i < 6; i++)
        sqlite3_bind_text(s, 8 + i, texts[i], -1, SQLITE_STATIC);
    const int64_t after[] = {r.bytes_up, r.bytes_down, r.duration_ms, r.count};
    for (int i = 0; i < 4; i++)
        sqlite3_bind_int64(s, 14 + i, after[i]);
    sqlite3_bind_blob(s, 18, hash, HASH, SQLITE_STATIC);
    int rc = step(d, s, e);
    sqlite3_clear_bindings(s);
    if (rc == 0) {
        memcpy(d->last, hash, HASH);
        d->seq = r.seq;
    }
    if (rc == 0 && r.seq - d->first >= d->rows_max)
        rc = trim(d, e);
    if (rc == 0)
        rc = trim_bytes(d, e);
    if (rc == 0 && own)
        rc = commit(d, e);
    if (rc < 0) {
        d->in_transaction = false; /* a batch fails as a whole */
        roll_back(d);
    }
    return rc;
}

int decisions_add(struct decisions *d, const struct decision_row *row, struct err *e)
{
    bool own = !d->in_transaction;
    d->well = (!own || (decisions_settle(d, e) == 0 && decisions_check(d, e) == 0)) && add(d, row, own, e) == 0;
    return d->well ? 0 : -1;
}

/* ---- rows that come into the log later ---- */

int decisions_settle(struct decisions *d, struct err *e)
{
    struct decision_row row;
    size_t at = 0;
    if (!d->ahead || d->in_transaction || ahead_count(d->ahead) == 0)
        return 0;
    d->well = false;
    if (decisions_check(d, e) < 0 || step(d, d->begin, e) < 0)
        return -1;
    d->in_transaction = true;
    while (ahead_next(d->ahead, &at, &row))
        if (add(d, &row, false, e) < 0)
            return -1;
    if (decisions_commit(d, e) < 0)
        return -1;
    ahead_done(d->ahead);
    return 0;
}

bool decisions_unsettled(const struct decisions *d)
{
    return d->ahead && ahead_count(d->ahead) > 0;
}

int decisions_note(struct decisions *d, const struct decision_row *row, struct err *e)
{
    if (!d->ahead)
        return (d->in_transaction || decisions_begin(d, e) == 0) && decisions_add(d, row, e) == 0 ? 0 : -1;
    if (ahead_fresh(d->ahead) == 0 && ahead_used(d->ahead) > UNSETTLED_MOST && decisions_settle(d, e) < 0)
        return -1;
    return ahead_put(d->ahead, row, d->seq + 1 + ahead_count(d->ahead)) ? 0 : err_set(e, STATUS_FAILED, "decision log: too much at once");
}

void decisions_forget(struct decisions *d)
{
    if (d->ahead)
        ahead_drop(d->ahead);
}

int decisions_keep(struct decisions *d, struct err *e)
{
    if (!d->ahead)
        return decisions_commit(d, e);
    if ((d->well && ahead_keep(d->ahead)) || decisions_settle(d, e) == 0)
        return 0;
    ahead_drop(d->ahead);
    return -1;
}

/* ---- opening, and what became of it since it was closed ---- */

static char *mark_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *mark = NULL;
    return asprintf(&mark, "%.*s%s", slash ? (int)(slash - path) + 1 : 0, path, CHAINMARK_FILE) < 0 ? NULL : mark;
}

#define NO_MARK "the record of where the log ended was %s: whether rows are missing at its end cannot be told"

/* SHORT: rows are missing, and the rest goes on; OTHER: there is none, or another, and a new one goes on from the mark. */
static enum chainmark_fits inspect(const char *path, bool written, struct chainmark *m, struct err *why)
{
    char *mark_path = mark_of(path);
    enum chainmark_is is = mark_path ? chainmark_read(mark_path, m) : CHAINMARK_NONE;
    struct err none = {0};
    struct decisions *there = decisions_read(path, &none);
    enum chainmark_fits fits = CHAINMARK_UNREADABLE;
    free(mark_path);
    if (is != CHAINMARK_GOOD)
        memset(m, 0, sizeof *m);
    if (there) {
        fits = chainmark_compare(there->db, is == CHAINMARK_GOOD ? m : NULL, why);
        if (fits == CHAINMARK_FITS && is != CHAINMARK_GOOD && is_marked(there)) {
            fits = CHAINMARK_SHORT;
            err_set(why, STATUS_FAILED, NO_MARK, is == CHAINMARK_NONE ? "removed" : "damaged");
        } else if (fits == CHAINMARK_OTHER && is == CHAINMARK_NONE && !written) {
            fits = CHAINMARK_UNREADABLE; /* nothing says that there was a log */
        }
    } else if (none.status == STATUS_NOT_FOUND) {
        bool was = is == CHAINMARK_GOOD ? m->seq > 0 : is == CHAINMARK_DAMAGED || written;
        fits = was ? CHAINMARK_OTHER : CHAINMARK_FITS;
        if (was)
            err_set(why, STATUS_FAILED, is == CHAINMARK_GOOD ? "the log was removed" : "the log was removed, with the record of where it ended,");
    } else {
        err_set(why, STATUS_FAILED, "%s", none.text);
    }
    decisions_close(there);
    return fits;
}

int decisions_look(const char *path, bool written, struct err *e)
{
    struct chainmark m;
    struct err why = {0};
    enum chainmark_fits fits = inspect(path, written, &m, &why);
    if (fits == CHAINMARK_FITS)
        return 0;
    if (fits == CHAINMARK_OTHER && m.seq)
        return err_set(e, STATUS_FAILED, "%s: its rows up to %lld are gone", why.text, (long long)m.seq);
    return err_set(e, STATUS_FAILED, "%s", why.text);
}

static char *ahead_of(const char *path)
{
    char *ahead = NULL;
    return asprintf(&ahead, "%s-ahead", path) < 0 ? NULL : ahead;
}

#define PATIENCE_MS 2000 /* with decisions_gather, that has it for some milliseconds */

/* Before it looks at anything it has the rows ahead of the log for itself, or none of them. */
static struct decisions *open_log(const char *path, bool written, unsigned patience_ms, struct err *e)
{
    struct decisions *d = calloc(1, sizeof *d);
    struct err why = {0};
    if (!d || !(d->path = strdup(path)) || !(d->mark_path = mark_of(path))) {
        err_set(e, STATUS_FAILED, "out of memory");
        if (d)
            free(d->path);
        free(d);
        return NULL;
    }
    d->rows_max = DECISIONS_ROWS_MAX;
    d->bytes_max = DECISIONS_BYTES_MAX;
    d->mark_fd = d->watch = -1;
    char *ahead = ahead_of(path);
    d->ahead = ahead ? ahead_open(ahead, patience_ms) : NULL;
    free(ahead);
    if (!d->ahead && patience_ms == 0) {
        decisions_close(d);
        err_set(e, STATUS_FAILED, "somebody else writes the log");
        return NULL;
    }
    begin_watch(d);
    enum chainmark_fits fits = inspect(path, written, &d->mark, &why);
    d->seq = d->mark.seq;
    memcpy(d->last, d->mark.hash, HASH);
    int64_t last = d->seq;
    int rc = fits == CHAINMARK_OTHER ? 0 : open_db(d, false, e);
    if (rc == 0 && d->ahead)
        ahead_load(d->ahead, d->seq > last ? d->seq : last); /* what a process left that was killed */
    chainmark_boot(d->mark.boot);
    if (rc == 0) {
        set_mark(d);
        d->mark_fd = chainmark_file(d->mark_path, open(d->mark_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW), &d->mark);
    }
    if (rc == 0 && d->db)
        rc = note_marked(d, e);
    if (rc == 0 && fits == CHAINMARK_OTHER)
        rc = start_anew(d, why.text, "was stopped", e);
    else if (rc == 0 && fits == CHAINMARK_SHORT)
        rc = tell_loss(d, why.text, e);
    if (rc < 0) {
        decisions_close(d);
        return NULL;
    }
    d->well = true;
    if (d->ahead && ahead_count(d->ahead)) {
        ahead_renumber(d->ahead, d->seq + 1);
        decisions_settle(d, NULL);
    }
    return d;
}

struct decisions *decisions_open(const char *path, bool written, struct err *e)
{
    return open_log(path, written, PATIENCE_MS, e);
}

void decisions_gather(const char *path)
{
    char *ahead = ahead_of(path);
    if (ahead && ahead_idle(ahead)) {
        struct decisions *there = decisions_read(path, NULL);
        bool known = there && load_head(there, NULL) == 0;
        int64_t last = known ? there->seq : 0;
        decisions_close(there);
        /* Of a log that was touched the next start tells. */
        if (known && ahead_left(ahead, last) && decisions_look(path, false, NULL) == 0)
            decisions_close(open_log(path, false, 0, NULL));
    }
    free(ahead);
}

static const char *text(sqlite3_stmt *s, int i)
{
    const char *t = (const char *)sqlite3_column_text(s, i);
    return t ? t : "";
}

static void take(struct decision_row *r, sqlite3_stmt *s)
{
    *r = (struct decision_row){
        .seq = sqlite3_column_int64(s, 0), .time_ms = sqlite3_column_int64(s, 1), .kind = text(s, 2),
        .flow = sqlite3_column_int64(s, 3), .proto = text(s, 4), .host = text(s, 5), .port = sqlite3_column_int(s, 6),
        .addr = text(s, 7), .method = text(s, 8), .path = text(s, 9), .verdict = text(s, 10), .rule = text(s, 11),
        .reason = text(s, 12), .bytes_up = sqlite3_column_int64(s, 13), .bytes_down = sqlite3_column_int64(s, 14),
        .duration_ms = sqlite3_column_int64(s, 15), .count = sqlite3_column_int64(s, 16)};
}

static int each(struct decisions *d, const char *sql, const struct decisions_filter *f, decisions_fn *fn, void *arg,
                struct err *e)
{
    sqlite3_stmt *s = NULL;
    if (sqlite3_prepare_v2(d->db, sql, -1, &s, NULL) != SQLITE_OK)
        return fail(d, e, "cannot read");
    sqlite3_bind_int64(s, 1, f->since_ms);
    sqlite3_bind_int64(s, 2, f->after_seq);
    if (f->host)
        sqlite3_bind_text(s, 3, f->host, -1, SQLITE_TRANSIENT);
    if (f->verdict)
        sqlite3_bind_text(s, 4, f->verdict, -1, SQLITE_TRANSIENT);
    sqlite3_bind_int64(s, 5, f->limit > 0 ? f->limit : -1);
    int rc;
    struct decision_row r;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        take(&r, s);
        if (!fn(&r, arg))
            break;
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        fail(d, e, "cannot read");
        sqlite3_finalize(s);
        return -1;
    }
    sqlite3_finalize(s);
    return 0;
}

/* Since: from the first row of that time on, in the order of their numbers, whatever the clock was set to later. */
#define WHERE " WHERE seq>=(SELECT min(seq) FROM rows WHERE time_ms>=?1) AND seq>?2 AND (?3 IS NULL OR instr(host,?3)>0) AND (?4 IS NULL OR verdict=?4) "

int decisions_each(struct decisions *d, const struct decisions_filter *f, decisions_fn *fn, void *arg, struct err *e)
{
    return each(d, "SELECT * FROM (SELECT " COLUMNS " FROM rows" WHERE "ORDER BY seq DESC LIMIT ?5) ORDER BY seq", f, fn,
                arg, e);
}

int decisions_grouped(struct decisions *d, const struct decisions_filter *f, decisions_fn *fn, void *arg, struct err *e)
{
    return each(d,
                "SELECT max(seq),time_ms,kind,0,proto,host,port,addr,'','',verdict,rule,reason,sum(up),sum(down),"
                "sum(ms),sum(count) AS n FROM rows" WHERE
                "GROUP BY verdict,host,port,proto,rule ORDER BY max(seq) DESC LIMIT ?5",
                f, fn, arg, e);
}

struct decisions_walk {
    sqlite3_stmt *s;
    struct decision_row row;
};

struct decisions_walk *decisions_walk(struct decisions *d, int64_t after_seq, int64_t newest)
{
    struct decisions_walk *w = calloc(1, sizeof *w);
    if (w && sqlite3_prepare_v2(d->db, "SELECT " COLUMNS " FROM rows WHERE seq>max(?1, (SELECT max(seq) FROM rows)-?2) ORDER BY seq",
                                -1, &w->s, NULL) != SQLITE_OK) {
        free(w);
        return NULL;
    }
    if (w) {
        sqlite3_bind_int64(w->s, 1, after_seq);
        sqlite3_bind_int64(w->s, 2, newest > 0 ? newest : INT64_MAX / 2);
    }
    return w;
}

const struct decision_row *decisions_next(struct decisions_walk *w)
{
    if (!w->s)
        return NULL;
    if (sqlite3_step(w->s) != SQLITE_ROW) {
        sqlite3_finalize(w->s);
        w->s = NULL;
        return NULL;
    }
    take(&w->row, w->s);
    return &w->row;
}

int64_t decisions_last(struct decisions *d)
{
    sqlite3_stmt *s = NULL;
    int64_t last = 0;
    if (sqlite3_prepare_v2(d->db, "SELECT max(seq) FROM rows", -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
        last = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return last;
}

void decisions_stop(struct decisions_walk *w)
{
    if (w)
        sqlite3_finalize(w->s);
    free(w);
}

int decisions_verify(struct decisions *d, int64_t *rows, struct err *e)
{
    unsigned char prev[HASH], head[HASH], hash[HASH];
    sqlite3_stmt *s = NULL;
    int64_t last, next, lost = 0;
    char why[300] = "";
    /* One read transaction: the broker may be writing. */
    if (run(d, "BEGIN", e) < 0)
        return -1;
    if (sqlite3_prepare_v2(d->db, "SELECT seq, hash, first, first_hash FROM head", -1, &s, NULL) != SQLITE_OK ||
        sqlite3_step(s) != SQLITE_ROW || sqlite3_column_bytes(s, 1) != HASH || sqlite3_column_bytes(s, 3) != HASH) {
        sqlite3_finalize(s);
        run(d, "COMMIT", NULL);
        return err_set(e, STATUS_FAILED, "the log's head is damaged or missing");
    }
    last = sqlite3_column_int64(s, 0);
    memcpy(head, sqlite3_column_blob(s, 1), HASH);
    next = sqlite3_column_int64(s, 2);
    memcpy(prev, sqlite3_column_blob(s, 3), HASH);
    sqlite3_finalize(s);
    int rc = 0;
    *rows = 0;
    if (sqlite3_prepare_v2(d->db, "SELECT " COLUMNS ",hash FROM rows ORDER BY seq", -1, &s, NULL) != SQLITE_OK)
        rc = fail(d, e, "cannot read");
    while (rc == 0 && sqlite3_step(s) == SQLITE_ROW) {
        struct decision_row r;
        take(&r, s);
        if (r.seq != next) {
            rc = err_set(e, STATUS_FAILED, "row %lld is missing", (long long)next);
            break;
        }
        hash_row(hash, prev, &r);
        if (sqlite3_column_bytes(s, 17) != HASH || memcmp(hash, sqlite3_column_blob(s, 17), HASH) != 0) {
            rc = err_set(e, STATUS_FAILED, "row %lld was changed", (long long)r.seq);
            break;
        }
        memcpy(prev, hash, HASH);
        if (strcmp(r.kind, "log") == 0) {
            lost = r.seq;
            snprintf(why, sizeof why, "%s", r.reason);
        }
        next++;
        (*rows)++;
    }
    sqlite3_finalize(s);
    run(d, "COMMIT", NULL);
    if (rc == 0 && (next != last + 1 || memcmp(prev, head, HASH) != 0))
        rc = err_set(e, STATUS_FAILED, "rows after %lld are missing", (long long)next - 1);
    if (rc == 0 && lost)
        rc = err_set(e, STATUS_FAILED, "row %lld: %s", (long long)lost, why);
    return rc;
}
