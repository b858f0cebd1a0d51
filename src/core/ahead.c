#include "core/ahead.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TEXTS 9
#define MAGIC 0x52585342u

struct record {
    uint32_t magic, len; /* of the whole, texts included */
    uint64_t sum;        /* of what follows: a row that was half written is none */
    int64_t seq, time_ms, flow, port, bytes_up, bytes_down, duration_ms, count;
    uint32_t text_len[TEXTS]; /* each without the zero byte behind it */
    uint32_t reserved;
};

struct ahead {
    int fd; /* -1: there is none, and nothing is kept */
    char *path;
    unsigned char *rows;
    size_t used, kept;
    unsigned count, fresh;
};

static uint64_t sum(const unsigned char *record, size_t len)
{
    static const unsigned char key[crypto_shorthash_KEYBYTES]; /* against accidents alone */
    uint64_t out;
    size_t from = offsetof(struct record, seq);
    crypto_shorthash((unsigned char *)&out, record + from, len - from, key);
    return out;
}

/* Its lock belongs to the one who writes the log.  Who only brings left rows in needs it for a moment. */
static bool lock(int fd, unsigned patience_ms)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const struct timespec moment = {0, 2000000};
    for (unsigned waited = 0; fcntl(fd, F_OFD_SETLK, &whole) < 0; waited += 2) {
        if ((errno != EAGAIN && errno != EACCES) || waited >= patience_ms)
            return false;
        nanosleep(&moment, NULL);
    }
    return true;
}

static bool open_file(struct ahead *a, unsigned patience_ms)
{
    a->fd = open(a->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->fd >= 0 && lock(a->fd, patience_ms) && posix_fallocate(a->fd, 0, AHEAD_MAX) == 0)
        return true;
    if (a->fd >= 0)
        close(a->fd);
    a->fd = -1;
    return false;
}

static struct ahead *allocate(const char *path)
{
    struct ahead *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->fd = -1;
    a->rows = malloc(AHEAD_MAX);
    a->path = strdup(path);
    if (a->rows && a->path)
        return a;
    ahead_close(a);
    return NULL;
}

struct ahead *ahead_open(const char *path, unsigned patience_ms)
{
    struct ahead *a = allocate(path);
    if (a && open_file(a, patience_ms))
        return a;
    ahead_close(a);
    return NULL;
}

void ahead_close(struct ahead *a)
{
    if (!a)
        return;
    if (a->fd >= 0)
        close(a->fd);
    free(a->path);
    free(a->rows);
    free(a);
}

bool ahead_put(struct ahead *a, const struct decision_row *row, int64_t seq)
{
    const char *const texts[TEXTS] = {row->kind, row->proto, row->host, row->addr, row->method, row->path, row->verdict, row->rule, row->reason};
    struct record r = {.magic = MAGIC, .seq = seq, .time_ms = row->time_ms, .flow = row->flow, .port = row->port, .bytes_up = row->bytes_up,
                       .bytes_down = row->bytes_down, .duration_ms = row->duration_ms, .count = row->count};
    size_t len = sizeof r;
    for (size_t i = 0; i < TEXTS; i++) {
        size_t n = texts[i] ? strlen(texts[i]) : 0;
        if (n >= AHEAD_MAX)
            return false;
        r.text_len[i] = (uint32_t)n;
        len += n + 1;
    }
    len = (len + 7) & ~(size_t)7;
    if (len > AHEAD_MAX - a->used)
        return false;
    unsigned char *to = a->rows + a->used, *p = to + sizeof r;
    r.len = (uint32_t)len;
    memset(to + len - 8, 0, 8);
    for (size_t i = 0; i < TEXTS; i++) {
        if (r.text_len[i])
            memcpy(p, texts[i], r.text_len[i]);
        p += r.text_len[i];
        *p++ = '\0';
    }
    memcpy(to, &r, sizeof r);
    r.sum = sum(to, len);
    memcpy(to + offsetof(struct record, sum), &r.sum, sizeof r.sum);
    a->used += len;
    a->count++;
    a->fresh++;
    return true;
}

static bool put_down(struct ahead *a, size_t from, size_t to)
{
    while (from < to) {
        ssize_t n = pwrite(a->fd, a->rows + from, to - from, (off_t)from);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        from += (size_t)n;
    }
    return true;
}

void ahead_check(struct ahead *a)
{
    struct stat st;
    if (a->fd >= 0 && fstat(a->fd, &st) == 0 && st.st_nlink > 0)
        return;
    if (a->fd >= 0)
        close(a->fd);
    if (open_file(a, 0) && !put_down(a, 0, a->kept)) {
        close(a->fd);
        a->fd = -1;
    }
}

bool ahead_keep(struct ahead *a)
{
    if (a->fd < 0 || !put_down(a, a->kept, a->used))
        return false;
    a->kept = a->used;
    a->fresh = 0;
    return true;
}

void ahead_drop(struct ahead *a)
{
    static const unsigned char none[8];
    /* A part of it may have been written. */
    ssize_t n = a->fd >= 0 && a->used > a->kept ? pwrite(a->fd, none, sizeof none, (off_t)a->kept) : 0;
    (void)n; /* where nothing can be written, nothing was */
    a->used = a->kept;
    a->count -= a->fresh;
    a->fresh = 0;
}

void ahead_done(struct ahead *a)
{
    a->used = a->kept = 0; /* the numbers in the file say that the log has them */
    a->count = a->fresh = 0;
}

unsigned ahead_count(const struct ahead *a)
{
    return a->count;
}

unsigned ahead_fresh(const struct ahead *a)
{
    return a->fresh;
}

size_t ahead_used(const struct ahead *a)
{
    return a->used;
}

/* The length of the record at `at`, 0: there is none. */
static size_t read_record(const unsigned char *rows, size_t at, size_t end, struct record *r)
{
    if (end - at < sizeof *r)
        return 0;
    memcpy(r, rows + at, sizeof *r);
    if (r->magic != MAGIC || r->len < sizeof *r || r->len > end - at || r->sum != sum(rows + at, r->len))
        return 0;
    size_t left = r->len - sizeof *r;
    const unsigned char *p = rows + at + sizeof *r;
    for (size_t i = 0; i < TEXTS; i++) {
        if (left == 0 || r->text_len[i] > left - 1 || memchr(p, '\0', r->text_len[i] + 1) != p + r->text_len[i])
            return 0;
        p += r->text_len[i] + 1;
        left -= r->text_len[i] + 1;
    }
    return r->len;
}

bool ahead_next(const struct ahead *a, size_t *at, struct decision_row *row)
{
    struct record r;
    if (*at >= a->used)
        return false;
    memcpy(&r, a->rows + *at, sizeof r);
    const char *texts[TEXTS], *p = (const char *)a->rows + *at + sizeof r;
    for (size_t i = 0; i < TEXTS; i++) {
        texts[i] = p;
        p += r.text_len[i] + 1;
    }
    *row = (struct decision_row){.seq = r.seq, .time_ms = r.time_ms, .kind = texts[0], .flow = r.flow, .proto = texts[1], .host = texts[2],
                                 .port = (int)r.port, .addr = texts[3], .method = texts[4], .path = texts[5], .verdict = texts[6],
                                 .rule = texts[7], .reason = texts[8], .bytes_up = r.bytes_up, .bytes_down = r.bytes_down,
                                 .duration_ms = r.duration_ms, .count = r.count};
    *at += r.len;
    return true;
}

bool ahead_renumber(struct ahead *a, int64_t seq)
{
    struct record r;
    for (size_t at = 0; at < a->used; at += r.len) {
        unsigned char *p = a->rows + at;
        memcpy(&r, p, sizeof r);
        memcpy(p + offsetof(struct record, seq), &seq, sizeof seq);
        r.sum = sum(p, r.len);
        memcpy(p + offsetof(struct record, sum), &r.sum, sizeof r.sum);
        seq++;
    }
    return a->fd >= 0 && put_down(a, 0, a->kept);
}

void ahead_load(struct ahead *a, int64_t last)
{
    size_t end = 0, at = 0, len;
    struct record r;
    ssize_t n;
    while (end < AHEAD_MAX && (n = pread(a->fd, a->rows + end, AHEAD_MAX - end, (off_t)end)) != 0)
        if (n > 0)
            end += (size_t)n;
        else if (errno != EINTR)
            break;
    /* What the log has already, and behind what was written last what was written before it, bears other numbers. */
    for (; (len = read_record(a->rows, at, end, &r)) > 0 && r.seq == last + 1 + a->count; at += len)
        a->count++;
    a->used = at;
    a->kept = a->used;
}

bool ahead_idle(const char *path)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool idle = fd >= 0 && fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type == F_UNLCK;
    if (fd >= 0)
        close(fd);
    return idle;
}

bool ahead_left(const char *path, int64_t last)
{
    struct ahead *a = allocate(path);
    bool left = false;
    if (a && (a->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)) >= 0) {
        ahead_load(a, last);
        left = a->count > 0;
    }
    ahead_close(a);
    return left;
}
