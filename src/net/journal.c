#include "net/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log.h"
#include "core/rule.h"

#define SLOTS 64
#define WINDOW_MS 1000

struct slot {
    bool used;
    int64_t since_ms;
    int64_t more; /* repeats that no row speaks of yet */
    char kind[12], proto[8], host[264], verdict[8], rule[RULE_TEXT_MAX + 32], reason[344];
    int port;
};

struct journal {
    struct decisions *store;
    struct event *timer, *sweep, *settle;
    int days;
    struct slot slots[SLOTS];
    int64_t second, rows, dropped;
    bool failed; /* a row since the last journal_keep */
    bool broken; /* the last row, or the last transaction, could not be written */
    int64_t kept_ms; /* since when some wait, while `settle` is pending */
    int64_t began_wall_ms, began_ms;
    struct log_rate complaint;
    journal_told_fn *told;
    void *told_arg;
    char found[300]; /* lost before anybody was to be told */
};

static int64_t clock_ms(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One word to the user when it breaks, and one when it is well again. */
static void outcome(struct journal *j, bool good, const struct err *e)
{
    if (!good)
        log_rated(&j->complaint, 5, "%s", e->text);
    if (good == !j->broken)
        return;
    j->broken = !good;
    if (j->told)
        j->told(good ? NULL : e->text, false, j->told_arg);
}

static void on_loss(const char *what, void *arg)
{
    struct journal *j = arg;
    log_line("%s", what);
    if (j->told)
        j->told(what, true, j->told_arg);
    else
        snprintf(j->found, sizeof j->found, "%s", what);
}

void journal_on_trouble(struct journal *j, journal_told_fn *fn, void *arg)
{
    j->told = fn;
    j->told_arg = arg;
    if (j->found[0])
        fn(j->found, true, arg);
    j->found[0] = '\0';
}

void journal_check(struct journal *j)
{
    struct err e = {0};
    if (decisions_check(j->store, &e) < 0)
        outcome(j, false, &e);
}

int journal_write(struct journal *j, struct decision_row *row)
{
    struct err e = {0};
    row->time_ms = clock_ms(CLOCK_REALTIME);
    bool good = decisions_add(j->store, row, &e) == 0;
    outcome(j, good, &e);
    return good ? 0 : -1;
}

void journal_note(struct journal *j, struct decision_row *row)
{
    struct err e = {0};
    row->time_ms = clock_ms(CLOCK_REALTIME);
    if (decisions_note(j->store, row, &e) == 0)
        return;
    outcome(j, false, &e);
    j->failed = true;
}

int journal_keep(struct journal *j)
{
    struct err e = {0};
    bool good = !j->failed && decisions_keep(j->store, &e) == 0;
    if (j->failed)
        decisions_forget(j->store);
    else
        outcome(j, good, &e);
    j->failed = false;
    return good ? 0 : -1;
}

static void settle(struct journal *j)
{
    struct timeval again = {1, 0};
    struct err e = {0};
    if (!decisions_unsettled(j->store)) {
        evtimer_del(j->settle);
        return;
    }
    bool good = decisions_settle(j->store, &e) == 0;
    outcome(j, good, &e);
    if (good)
        evtimer_del(j->settle);
    else
        evtimer_add(j->settle, &again);
}

void journal_kept(struct journal *j)
{
    struct timeval soon = {0, JOURNAL_SETTLE_MS * 1000};
    int64_t now = clock_ms(CLOCK_MONOTONIC);
    if (!decisions_unsettled(j->store))
        return;
    if (!evtimer_pending(j->settle, NULL)) {
        j->kept_ms = now;
        evtimer_add(j->settle, &soon);
    } else if (now - j->kept_ms >= JOURNAL_BUSY_MS)
        settle(j);
}

static void on_settle(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    settle(arg);
}

static bool write_slot(struct journal *j, const struct slot *s)
{
    struct decision_row row = {.kind = s->kind, .proto = s->proto, .host = s->host, .port = s->port,
                               .verdict = s->verdict, .rule = s->rule, .reason = s->reason, .count = s->more};
    return journal_write(j, &row) == 0;
}

static bool write_dropped(struct journal *j)
{
    struct decision_row row = {.kind = "dropped", .proto = "other", .host = "", .rule = "", .verdict = "deny", .count = j->dropped,
                               .reason = "too many different refusals in a second"};
    return journal_write(j, &row) == 0;
}

/* All counts that wait, as rows of one transaction: what fails waits on, as a whole. */
static void write_waiting(struct journal *j)
{
    bool good = true, one = false;
    for (int i = 0; i < SLOTS; i++)
        one = one || j->slots[i].more;
    if (!one && !j->dropped)
        return;
    struct err e = {0};
    if (decisions_begin(j->store, &e) < 0) {
        outcome(j, false, &e);
        return;
    }
    for (int i = 0; i < SLOTS && good; i++)
        good = !j->slots[i].more || write_slot(j, &j->slots[i]);
    good = good && (!j->dropped || write_dropped(j));
    if (!good) /* which undid the rows before */
        return;
    if (decisions_commit(j->store, &e) < 0) {
        outcome(j, false, &e);
        return;
    }
    for (int i = 0; i < SLOTS; i++)
        j->slots[i].more = 0;
    j->dropped = 0;
}

#define SWEEP_S 600
#define CLOCK_SLACK_MS 3600000

/* Old rows go a few at a time, with pauses: decisions wait for the file. */
static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct journal *j = arg;
    struct timeval later = {SWEEP_S, 0}, soon = {0, 100000};
    (void)fd;
    (void)what;
    /* A clock that is set far ahead makes no row old: time that passed is what both clocks say. */
    int64_t now = clock_ms(CLOCK_REALTIME), most = j->began_wall_ms + clock_ms(CLOCK_BOOTTIME) - j->began_ms + CLOCK_SLACK_MS;
    int64_t before = j->days ? (now < most ? now : most) - (int64_t)j->days * 86400000 : 0;
    evtimer_add(j->sweep, decisions_expire(j->store, before) ? &soon : &later);
}

void journal_set_limits(struct journal *j, int64_t rows, int days)
{
    struct timeval soon = {1, 0};
    if (rows > 0)
        decisions_set_limit(j->store, rows);
    j->days = days;
    evtimer_add(j->sweep, &soon);
}

static void arm(struct journal *j)
{
    struct timeval tv = {1, 0};
    if (!evtimer_pending(j->timer, NULL))
        evtimer_add(j->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct journal *j = arg;
    int64_t now = clock_ms(CLOCK_BOOTTIME);
    bool live = false;
    (void)fd;
    (void)what;
    for (int i = 0; i < SLOTS; i++) {
        struct slot *s = &j->slots[i];
        if (s->more)
            s->since_ms = now;
        else if (now - s->since_ms >= WINDOW_MS)
            s->used = false;
        live = live || s->used;
    }
    write_waiting(j);
    if (live || j->dropped)
        arm(j);
}

void journal_refusal(struct journal *j, struct decision_row *row)
{
    int64_t now = clock_ms(CLOCK_BOOTTIME);
    struct slot *room = NULL;
    for (int i = 0; i < SLOTS; i++) {
        struct slot *s = &j->slots[i];
        if (s->used && s->port == row->port && strcmp(s->host, row->host) == 0 && strcmp(s->proto, row->proto) == 0 &&
            strcmp(s->kind, row->kind) == 0 && strcmp(s->reason, row->reason) == 0 && strcmp(s->rule, row->rule) == 0) {
            s->more += row->count;
            arm(j);
            return;
        }
        if (!s->used && !room)
            room = s;
    }
    if (now / 1000 != j->second) {
        j->second = now / 1000;
        j->rows = 0;
    }
    arm(j);
    if (++j->rows > JOURNAL_RATE) {
        j->dropped += row->count;
        return;
    }
    bool written = journal_write(j, row) == 0;
    if (!room) {
        j->dropped += written ? 0 : row->count;
        return;
    }
    *room = (struct slot){.used = true, .since_ms = now, .port = row->port, .more = written ? 0 : row->count};
    snprintf(room->kind, sizeof room->kind, "%s", row->kind);
    snprintf(room->proto, sizeof room->proto, "%s", row->proto);
    snprintf(room->host, sizeof room->host, "%s", row->host);
    snprintf(room->verdict, sizeof room->verdict, "%s", row->verdict);
    snprintf(room->rule, sizeof room->rule, "%s", row->rule);
    snprintf(room->reason, sizeof room->reason, "%s", row->reason);
}

struct journal *journal_new(struct event_base *base, const char *path, bool written, struct err *e)
{
    struct journal *j = calloc(1, sizeof *j);
    if (!j) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    j->began_wall_ms = clock_ms(CLOCK_REALTIME);
    j->began_ms = clock_ms(CLOCK_BOOTTIME);
    j->store = decisions_open(path, written, e);
    if (j->store)
        decisions_on_loss(j->store, on_loss, j);
    j->timer = evtimer_new(base, on_timer, j);
    j->sweep = evtimer_new(base, on_sweep, j);
    j->settle = evtimer_new(base, on_settle, j);
    if (!j->store || !j->timer || !j->sweep || !j->settle) {
        journal_free(j);
        return NULL;
    }
    return j;
}

void journal_free(struct journal *j)
{
    if (!j)
        return;
    j->told = NULL;
    if (j->store)
        write_waiting(j);
    if (j->timer)
        event_free(j->timer);
    if (j->sweep)
        event_free(j->sweep);
    if (j->settle)
        event_free(j->settle);
    decisions_close(j->store);
    free(j);
}
