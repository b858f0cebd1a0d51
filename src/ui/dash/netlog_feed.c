#include "ui/dash/netlog_feed.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#define BATCH_ROWS 2000
#define QUEUE_MAX 4        /* batches that wait for the event loop */
#define SETTLE_MS 60       /* writes of a moment are read together */
#define SOURCES_MAX 1024
#define NAME_ROOM 72

/* Rows with their texts, as the thread hands them over. */
struct batch {
    struct batch *next;
    struct decision_row rows[BATCH_ROWS];
    char box[BATCH_ROWS][NAME_ROOM];
    size_t n;
    char *text;
    size_t len, cap;
    bool history_done;
};

struct source {
    char name[NAME_ROOM];
    struct decisions *log;
    struct decisions_walk *walk;
    const struct decision_row *row; /* the next one of the walk */
    int64_t last;
    int dir_watch, wal_watch;
    bool seen;
};

struct netlog_feed {
    char *dir;
    long newest;
    const struct netlog_feed_ops *ops;
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t room;
    struct batch *head, **tail;
    unsigned queued;
    int wake, stop_fd, notify; /* to the loop; to the thread; inotify */
    struct event *ev;
    atomic_bool stop;
    /* the thread's own */
    struct source *sources[SOURCES_MAX];
    unsigned nsources;
    bool history_done;
};

/* ---- the thread: sources ---- */

static void source_close(struct source *s)
{
    decisions_stop(s->walk);
    decisions_close(s->log);
    s->walk = NULL;
    s->log = NULL;
}

/* A log that was removed and made anew (another sandbox of that name) is read from its begin. */
static void source_open(struct netlog_feed *f, struct source *s)
{
    char path[4096];
    snprintf(path, sizeof path, "%.3900s/%s/log.db", f->dir, s->name);
    source_close(s);
    decisions_gather(path);
    s->log = decisions_read(path, NULL);
    if (s->log && decisions_last(s->log) < s->last)
        s->last = 0;
    /* The file is watched, not its folder: there lies the disk as well, which is written all the time. */
    snprintf(path, sizeof path, "%.3900s/%s/log.db-wal", f->dir, s->name);
    s->wal_watch = inotify_add_watch(f->notify, path, IN_MODIFY | IN_DELETE_SELF);
}

static struct source *source_of(struct netlog_feed *f, const char *name)
{
    for (unsigned i = 0; i < f->nsources; i++)
        if (strcmp(f->sources[i]->name, name) == 0)
            return f->sources[i];
    struct source *s = f->nsources < SOURCES_MAX ? calloc(1, sizeof *s) : NULL;
    if (!s)
        return NULL;
    snprintf(s->name, sizeof s->name, "%.71s", name);
    f->sources[f->nsources++] = s;
    return s;
}

/* Which sandboxes there are. */
static void scan(struct netlog_feed *f)
{
    DIR *d = opendir(f->dir);
    for (unsigned i = 0; i < f->nsources; i++)
        f->sources[i]->seen = false;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[4096];
        if (e->d_name[0] == '.' || strlen(e->d_name) >= NAME_ROOM)
            continue;
        struct source *s = source_of(f, e->d_name);
        if (!s)
            continue;
        s->seen = true;
        snprintf(path, sizeof path, "%.3900s/%.71s", f->dir, e->d_name);
        s->dir_watch = inotify_add_watch(f->notify, path, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR);
        source_open(f, s);
    }
    if (d)
        closedir(d);
    for (unsigned i = f->nsources; i-- > 0;)
        if (!f->sources[i]->seen) {
            source_close(f->sources[i]);
            free(f->sources[i]);
            f->sources[i] = f->sources[--f->nsources];
        }
}

/* ---- the thread: rows ---- */

static const char *keep(struct batch *b, const char *s)
{
    size_t n = strlen(s) + 1;
    if (n > 4096)
        n = 4096;
    if (b->len + n > b->cap)
        return NULL;
    char *at = b->text + b->len;
    memcpy(at, s, n - 1);
    at[n - 1] = '\0';
    b->len += n;
    return at;
}

static struct batch *batch_new(void)
{
    struct batch *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->cap = BATCH_ROWS * 512u;
    b->text = malloc(b->cap);
    if (!b->text) {
        free(b);
        return NULL;
    }
    return b;
}

static void batch_free(struct batch *b)
{
    if (b)
        free(b->text);
    free(b);
}

static bool batch_add(struct batch *b, const char *box, const struct decision_row *row)
{
    struct decision_row r = *row;
    size_t before = b->len;
    const char **texts[] = {&r.kind, &r.proto, &r.host, &r.addr, &r.method, &r.path, &r.verdict, &r.rule, &r.reason};
    if (b->n == BATCH_ROWS)
        return false;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!(*texts[i] = keep(b, *texts[i]))) {
            b->len = before;
            return false;
        }
    snprintf(b->box[b->n], sizeof b->box[0], "%s", box);
    b->rows[b->n++] = r;
    return true;
}

/* Waits while the loop has not caught up; false: it is over. */
static bool hand_over(struct netlog_feed *f, struct batch *b)
{
    uint64_t one = 1;
    pthread_mutex_lock(&f->lock);
    while (f->queued >= QUEUE_MAX && !f->stop)
        pthread_cond_wait(&f->room, &f->lock);
    if (f->stop) {
        pthread_mutex_unlock(&f->lock);
        batch_free(b);
        return false;
    }
    b->next = NULL;
    *f->tail = b;
    f->tail = &b->next;
    f->queued++;
    pthread_mutex_unlock(&f->lock);
    return write(f->wake, &one, sizeof one) == sizeof one || errno == EAGAIN;
}

/* All that is new in all logs, the oldest first. */
static bool read_news(struct netlog_feed *f)
{
    struct batch *b = NULL;
    for (unsigned i = 0; i < f->nsources; i++) {
        struct source *s = f->sources[i];
        s->walk = s->log ? decisions_walk(s->log, s->last, s->last ? 0 : f->newest) : NULL;
        s->row = s->walk ? decisions_next(s->walk) : NULL;
    }
    bool more = true;
    while (more && !f->stop) {
        struct source *next = NULL;
        for (unsigned i = 0; i < f->nsources; i++) {
            struct source *s = f->sources[i];
            if (s->row && (!next || s->row->time_ms < next->row->time_ms))
                next = s;
        }
        if (next && !b && !(b = batch_new()))
            break;
        if (next && batch_add(b, next->name, next->row)) {
            next->last = next->row->seq;
            next->row = decisions_next(next->walk);
            continue;
        }
        more = next != NULL;
        if (next && b->n == 0) { /* larger than a batch: it is passed over */
            next->last = next->row->seq;
            next->row = decisions_next(next->walk);
            continue;
        }
        if (b && b->n) {
            more = hand_over(f, b) && more;
            b = NULL;
        }
    }
    batch_free(b);
    for (unsigned i = 0; i < f->nsources; i++) {
        decisions_stop(f->sources[i]->walk);
        f->sources[i]->walk = NULL;
        f->sources[i]->row = NULL;
    }
    return !f->stop;
}

/* Sleeps until something was written; false: it is over. */
static bool wait_for_news(struct netlog_feed *f)
{
    char buf[8192] __attribute__((aligned(8)));
    struct pollfd p[2] = {{.fd = f->notify, .events = POLLIN}, {.fd = f->stop_fd, .events = POLLIN}};
    bool rescan = false;
    while (poll(p, 2, -1) < 0)
        if (errno != EINTR)
            return false;
    if (p[1].revents)
        return false;
    if (poll(&p[1], 1, SETTLE_MS) > 0)
        return false;
    for (ssize_t n; (n = read(f->notify, buf, sizeof buf)) > 0;)
        for (char *at = buf; at < buf + n;) {
            const struct inotify_event *ev = (const struct inotify_event *)(void *)at;
            at += sizeof *ev + ev->len;
            rescan = rescan || !(ev->mask & IN_MODIFY);
        }
    if (rescan)
        scan(f);
    return true;
}

static void *reader(void *arg)
{
    struct netlog_feed *f = arg;
    inotify_add_watch(f->notify, f->dir, IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_ONLYDIR);
    scan(f);
    while (read_news(f)) {
        if (!f->history_done) {
            struct batch *b = batch_new();
            f->history_done = true;
            if (b) {
                b->history_done = true;
                if (!hand_over(f, b))
                    break;
            }
        }
        if (!wait_for_news(f))
            break;
    }
    for (unsigned i = 0; i < f->nsources; i++) {
        source_close(f->sources[i]);
        free(f->sources[i]);
    }
    return NULL;
}

/* ---- the event loop ---- */

/* One batch a turn, so that keys are served in between. */
static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct netlog_feed *f = arg;
    uint64_t count, one = 1;
    (void)what;
    ssize_t got = read(fd, &count, sizeof count);
    pthread_mutex_lock(&f->lock);
    struct batch *b = f->head;
    if (b) {
        f->head = b->next;
        if (!f->head)
            f->tail = &f->head;
        f->queued--;
        pthread_cond_signal(&f->room);
    }
    bool more = f->head != NULL;
    pthread_mutex_unlock(&f->lock);
    if (more)
        got = write(fd, &one, sizeof one);
    (void)got;
    if (!b)
        return;
    for (size_t i = 0; i < b->n; i++)
        f->ops->row(b->box[i], &b->rows[i], f->arg);
    if (f->ops->batch)
        f->ops->batch(b->history_done, f->arg);
    batch_free(b);
}

struct netlog_feed *netlog_feed_new(struct event_base *base, const char *dir, long newest, const struct netlog_feed_ops *ops,
                                    void *arg, struct err *e)
{
    struct netlog_feed *f = calloc(1, sizeof *f);
    sigset_t all, old;
    if (!f) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    f->dir = strdup(dir);
    f->newest = newest;
    f->ops = ops;
    f->arg = arg;
    f->tail = &f->head;
    f->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    f->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->room, NULL);
    f->ev = f->wake >= 0 ? event_new(base, f->wake, EV_READ | EV_PERSIST, on_wake, f) : NULL;
    /* Signals are for the event loop's thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = f->dir && f->ev && f->stop_fd >= 0 && f->notify >= 0 ? pthread_create(&f->thread, NULL, reader, f) : ENOMEM;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        err_errno(e, rc, "cannot read the network logs");
        f->stop = true;
        f->thread = pthread_self();
        netlog_feed_free(f);
        return NULL;
    }
    event_add(f->ev, NULL);
    return f;
}

void netlog_feed_free(struct netlog_feed *f)
{
    uint64_t one = 1;
    if (!f)
        return;
    if (!pthread_equal(f->thread, pthread_self())) {
        pthread_mutex_lock(&f->lock);
        f->stop = true;
        pthread_cond_broadcast(&f->room);
        pthread_mutex_unlock(&f->lock);
        if (write(f->stop_fd, &one, sizeof one) == sizeof one)
            pthread_join(f->thread, NULL);
    }
    while (f->head) {
        struct batch *b = f->head;
        f->head = b->next;
        batch_free(b);
    }
    if (f->ev)
        event_free(f->ev);
    if (f->wake >= 0)
        close(f->wake);
    if (f->stop_fd >= 0)
        close(f->stop_fd);
    if (f->notify >= 0)
        close(f->notify);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->room);
    free(f->dir);
    free(f);
}
