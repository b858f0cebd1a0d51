#include "core/chainmark.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT 36
#define CHECK 16 /* digits */
/* "sbx-chain 1 0000000000000000042 <64 digits> open <boot> <check>\n" */
#define LEN 156
#define HEAD (LEN - CHECK - 1)

static void check_of(const char *text, char out[CHECK + 1])
{
    unsigned char h[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(h, (const unsigned char *)text, HEAD);
    sodium_bin2hex(out, CHECK + 1, h, CHECK / 2);
}

static void format(const struct chainmark *m, char out[LEN + 1])
{
    char hash[2 * CHAINMARK_HASH + 1], check[CHECK + 1];
    sodium_bin2hex(hash, sizeof hash, m->hash, CHAINMARK_HASH);
    int n = snprintf(out, LEN + 1, "sbx-chain 1 %019lld %s %s %-*.*s ", (long long)m->seq, hash, m->closed ? "shut" : "open", BOOT, BOOT, m->boot);
    if (n != HEAD) /* no mark is written with such a number */
        memset(out, ' ', HEAD);
    check_of(out, check);
    snprintf(out + HEAD, LEN + 1 - HEAD, "%s\n", check);
}

static bool parse(const char *text, struct chainmark *m)
{
    char check[CHECK + 1], hash[2 * CHAINMARK_HASH + 1], word[5];
    size_t n = 0;
    long long seq;
    check_of(text, check);
    if (memcmp(text + HEAD, check, CHECK) != 0 || text[LEN - 1] != '\n')
        return false;
    memset(m, 0, sizeof *m);
    if (sscanf(text, "sbx-chain 1 %19lld %64s %4s %36s", &seq, hash, word, m->boot) < 3 || seq < 0 ||
        sodium_hex2bin(m->hash, sizeof m->hash, hash, strlen(hash), NULL, &n, NULL) != 0 || n != sizeof m->hash)
        return false;
    m->seq = seq;
    m->closed = strcmp(word, "shut") == 0;
    return true;
}

enum chainmark_is chainmark_read(const char *path, struct chainmark *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? CHAINMARK_NONE : CHAINMARK_DAMAGED;
    enum chainmark_is is = CHAINMARK_DAMAGED;
    for (int tries = 0; tries < 3 && is == CHAINMARK_DAMAGED; tries++) { /* it may be written at this moment */
        char text[LEN + 1] = "";
        if (pread(fd, text, LEN, 0) == LEN && parse(text, out))
            is = CHAINMARK_GOOD;
    }
    close(fd);
    return is;
}

static bool is_at(const char *path, int fd)
{
    struct stat own, there;
    return fd >= 0 && fstat(fd, &own) == 0 && lstat(path, &there) == 0 && own.st_ino == there.st_ino && own.st_dev == there.st_dev &&
           own.st_size == there.st_size && own.st_size == LEN;
}

int chainmark_file(const char *path, int fd, const struct chainmark *m)
{
    char text[LEN + 1];
    if (is_at(path, fd))
        return fd;
    if (fd >= 0)
        close(fd);
    format(m, text);
    char beside[4096];
    if ((size_t)snprintf(beside, sizeof beside, "%s.new", path) >= sizeof beside)
        return -1;
    fd = open(beside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && write(fd, text, LEN) == LEN && rename(beside, path) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

bool chainmark_write(int fd, const struct chainmark *m)
{
    char text[LEN + 1];
    if (fd < 0)
        return false;
    format(m, text);
    return pwrite(fd, text, LEN, 0) == LEN;
}

void chainmark_boot(char out[40])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, out, BOOT) : 0;
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = '\0';
}

/* ---- what became of the log ---- */

/* The hash of one row, or of what stands in `column` of the head. */
static bool has_hash(sqlite3 *db, const char *sql, int64_t seq, const unsigned char *hash)
{
    sqlite3_stmt *s = NULL;
    bool same = sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_bind_int64(s, 1, seq) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW &&
                sqlite3_column_bytes(s, 0) == CHAINMARK_HASH && memcmp(sqlite3_column_blob(s, 0), hash, CHAINMARK_HASH) == 0;
    sqlite3_finalize(s);
    return same;
}

static enum chainmark_fits compare(sqlite3 *db, const struct chainmark *m, struct err *why)
{
    sqlite3_stmt *s = NULL;
    int64_t last = 0, first = 0, top = 0;
    unsigned char head[CHAINMARK_HASH];
    int rc = sqlite3_prepare_v2(db, "SELECT seq, hash, first, coalesce((SELECT max(seq) FROM rows), first - 1) FROM head", -1, &s, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    bool good = rc == SQLITE_ROW && sqlite3_column_bytes(s, 1) == CHAINMARK_HASH;
    if (good) {
        last = sqlite3_column_int64(s, 0);
        memcpy(head, sqlite3_column_blob(s, 1), sizeof head);
        first = sqlite3_column_int64(s, 2);
        top = sqlite3_column_int64(s, 3);
    }
    sqlite3_finalize(s);
    if (!good && (rc == SQLITE_BUSY || rc == SQLITE_LOCKED || rc == SQLITE_IOERR || rc == SQLITE_CANTOPEN || rc == SQLITE_NOMEM)) {
        err_set(why, STATUS_FAILED, "the log cannot be read: %s", sqlite3_errmsg(db));
        return CHAINMARK_UNREADABLE;
    }
    if (!good) {
        err_set(why, STATUS_FAILED, "the log is damaged, or no log at all");
        return CHAINMARK_OTHER;
    }
    static const char row[] = "SELECT hash FROM rows WHERE seq=?1", start[] = "SELECT first_hash FROM head WHERE first=?1+1";
    if (top != last || !has_hash(db, last >= first ? row : start, last, head)) {
        err_set(why, STATUS_FAILED, "the last rows of the log, of %lld, were removed or changed", (long long)last);
        return CHAINMARK_SHORT;
    }
    if (!m || m->seq < first - 1) /* it forgot that row, as old as it was */
        return CHAINMARK_FITS;
    if (m->seq <= last && !has_hash(db, m->seq >= first ? row : start, m->seq, m->hash)) {
        err_set(why, STATUS_FAILED, "the log was replaced by another: its row %lld is not the one that was written", (long long)m->seq);
        return CHAINMARK_OTHER;
    }
    if (m->seq <= last)
        return CHAINMARK_FITS;
    char boot[40];
    chainmark_boot(boot);
    bool crash = !m->closed && strcmp(boot, m->boot) != 0;
    err_set(why, STATUS_FAILED, "rows %lld to %lld of the log are missing: %s", (long long)last + 1, (long long)m->seq,
            crash ? "this host went down before they were on its disk, or somebody removed them" : "somebody removed them while nobody wrote it");
    return CHAINMARK_SHORT;
}

enum chainmark_fits chainmark_compare(struct sqlite3 *db, const struct chainmark *m, struct err *why)
{
    /* One state of the log: it may be written meanwhile. */
    bool own = sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK;
    enum chainmark_fits fits = compare(db, m, why);
    if (own)
        sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    return fits;
}
