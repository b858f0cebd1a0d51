#include "net/broker_ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/rule.h"

#define MUTED_MAX 64u

struct question {
    json_int_t id; /* 0: free */
    struct ask_for what;
    int64_t began_ms, wall_ms, count;
    unsigned held;
};

struct muted {
    struct ask_for what;
    int64_t until_ms;
};

struct grant {
    struct rule rule;
    int64_t until_ms; /* 0: free */
};

struct asks {
    const struct asks_ops *ops;
    void *arg;
    struct event *timer;
    int64_t limit_ms;
    unsigned watchers;
    json_int_t last;
    struct question questions[ASK_QUESTIONS_MAX];
    struct {
        void *flow; /* NULL: free */
        json_int_t question;
    } held[ASK_HELD_MAX];
    struct muted muted[MUTED_MAX];
    unsigned next_muted;
    struct grant grants[ASK_GRANTS_MAX];
};

static int64_t clock_ms(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool same(const struct ask_for *a, const struct ask_for *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

static struct question *find(struct asks *a, json_int_t id)
{
    for (unsigned i = 0; id && i < ASK_QUESTIONS_MAX; i++)
        if (a->questions[i].id == id)
            return &a->questions[i];
    return NULL;
}

static void tell(struct asks *a, const struct question *q)
{
    int64_t left = q->began_ms + a->limit_ms - clock_ms(CLOCK_BOOTTIME);
    a->ops->note(json_pack("{s:s, s:I, s:s, s:s, s:i, s:b, s:I, s:I, s:I, s:i}", "op", "ask", "ask", q->id, "host", q->what.host, "where",
                           q->what.where ? q->what.where : "", "port", (int)q->what.port, "name", (int)q->what.is_name, "time_ms", (json_int_t)q->wall_ms, "left_ms",
                           (json_int_t)(left > 0 ? left : 0), "count", (json_int_t)q->count, "held", (int)q->held),
                 a->arg);
}

static void arm(struct asks *a)
{
    struct timeval tv = {0, 250000};
    if (!evtimer_pending(a->timer, NULL))
        evtimer_add(a->timer, &tv);
}

/* The question is over; what it held is told so. */
static void end(struct asks *a, struct question *q, enum ask_end how, bool ruled)
{
    static const char *const words[] = {"allowed", "denied", "unanswered"};
    json_int_t id = q->id;
    q->id = 0; /* first: the callbacks may come back here */
    a->ops->note(json_pack("{s:s, s:I, s:s}", "op", "asked", "ask", id, "how", ruled ? "ruled" : words[how]), a->arg);
    for (unsigned i = 0; i < ASK_HELD_MAX; i++)
        if (a->held[i].flow && a->held[i].question == id) {
            void *flow = a->held[i].flow;
            a->held[i].flow = NULL;
            a->ops->released(flow, how, a->arg);
        }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct asks *a = arg;
    int64_t now = clock_ms(CLOCK_BOOTTIME);
    bool live = false;
    (void)fd;
    (void)what;
    for (unsigned i = 0; i < ASK_QUESTIONS_MAX; i++) {
        struct question *q = &a->questions[i];
        if (q->id && now - q->began_ms >= a->limit_ms)
            end(a, q, ASK_UNANSWERED, false);
        live |= q->id != 0;
    }
    if (live)
        arm(a);
}

struct asks *asks_new(struct event_base *base, const struct asks_ops *ops, void *arg)
{
    struct asks *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->ops = ops;
    a->arg = arg;
    a->limit_ms = 60000;
    a->timer = evtimer_new(base, on_timer, a);
    if (!a->timer) {
        free(a);
        return NULL;
    }
    return a;
}

void asks_free(struct asks *a)
{
    if (!a)
        return;
    event_free(a->timer);
    free(a);
}

void asks_set_limit(struct asks *a, int seconds)
{
    a->limit_ms = (int64_t)(seconds < 1 ? 1 : seconds > ASK_SECONDS_MAX ? ASK_SECONDS_MAX : seconds) * 1000;
}

void asks_set_watchers(struct asks *a, unsigned n)
{
    a->watchers = n;
    for (unsigned i = 0; n == 0 && i < ASK_QUESTIONS_MAX; i++)
        if (a->questions[i].id)
            end(a, &a->questions[i], ASK_UNANSWERED, false);
    for (unsigned i = 0; n && i < ASK_QUESTIONS_MAX; i++)
        if (a->questions[i].id)
            tell(a, &a->questions[i]);
}

bool asks_hold(struct asks *a, void *flow, const struct ask_for *f, const char **why)
{
    struct question *q = NULL, *room = NULL;
    unsigned place = ASK_HELD_MAX;
    int64_t now = clock_ms(CLOCK_BOOTTIME);
    if (!a->watchers) {
        *why = "nobody was there to be asked";
        return false;
    }
    for (unsigned i = 0; i < MUTED_MAX; i++)
        if (a->muted[i].until_ms > now && same(&a->muted[i].what, f)) {
            *why = "denied when asked a moment ago";
            return false;
        }
    for (unsigned i = 0; i < ASK_QUESTIONS_MAX && !q; i++) {
        if (a->questions[i].id && same(&a->questions[i].what, f))
            q = &a->questions[i];
        else if (!a->questions[i].id && !room)
            room = &a->questions[i];
    }
    for (unsigned i = 0; i < ASK_HELD_MAX && place == ASK_HELD_MAX; i++)
        if (!a->held[i].flow)
            place = i;
    if (place == ASK_HELD_MAX || (!q && !room)) {
        *why = "too many questions are open";
        return false;
    }
    if (!q) {
        q = room;
        *q = (struct question){.id = ++a->last, .what = *f, .began_ms = now, .wall_ms = clock_ms(CLOCK_REALTIME)};
    }
    q->held++;
    q->count++;
    a->held[place].flow = flow;
    a->held[place].question = q->id;
    /* A flood of attempts is one question: it is told again by powers of two. */
    if ((q->count & (q->count - 1)) == 0)
        tell(a, q);
    arm(a);
    return true;
}

void asks_forget(struct asks *a, void *flow)
{
    for (unsigned i = 0; i < ASK_HELD_MAX; i++)
        if (a->held[i].flow == flow) {
            struct question *q = find(a, a->held[i].question);
            a->held[i].flow = NULL;
            if (q && q->held)
                q->held--;
            return;
        }
}

void asks_review(struct asks *a, bool (*still)(const struct ask_for *f, void *arg), void *arg)
{
    for (unsigned i = 0; i < ASK_QUESTIONS_MAX; i++) {
        struct question *q = &a->questions[i];
        if (q->id && !q->held && !still(&q->what, arg))
            end(a, q, ASK_UNANSWERED, true);
    }
}

static void put_grant(struct asks *a, const struct rule *r)
{
    int64_t now = clock_ms(CLOCK_BOOTTIME);
    struct grant *g = &a->grants[0];
    for (unsigned i = 0; i < ASK_GRANTS_MAX; i++) /* the one that ends first makes room */
        if (a->grants[i].until_ms < g->until_ms)
            g = &a->grants[i];
    g->rule = *r;
    g->until_ms = now + ASK_GRANT_S * 1000;
}

int asks_answer(struct asks *a, json_int_t id, bool allow, struct err *e)
{
    struct question *q = find(a, id);
    if (!q)
        return err_set(e, STATUS_NOT_FOUND, "question %lld is not open any more", (long long)id);
    struct ask_for what = q->what;
    unsigned held = q->held;
    end(a, q, allow ? ASK_ALLOWED : ASK_DENIED, false);
    if (allow && !held) {
        char text[300];
        struct rule r = {0};
        snprintf(text, sizeof text, !what.is_name && what.family == 6 ? "[%s]:%u" : "%s:%u", rule_alias(what.host), what.port);
        if (rule_parse(&r, text, e) < 0)
            return -1;
        put_grant(a, &r);
    } else if (!allow) {
        a->muted[a->next_muted++ % MUTED_MAX] = (struct muted){what, clock_ms(CLOCK_BOOTTIME) + ASK_MUTED_S * 1000};
    }
    return 0;
}

int asks_grant(struct asks *a, const char *text, struct err *e)
{
    struct rule r = {0};
    if (rule_parse(&r, text, e) < 0)
        return -1;
    if (rule_is_conditional(&r))
        return err_set(e, STATUS_USAGE, "\"%s\": what is allowed once is a connection, not a request", text);
    put_grant(a, &r);
    for (unsigned i = 0; i < MUTED_MAX; i++) /* the newer word counts */
        if (a->muted[i].what.is_name ? rule_matches_name(&r, rule_alias(a->muted[i].what.host), a->muted[i].what.port)
                                     : rule_matches_addr(&r, a->muted[i].what.family, a->muted[i].what.addr, a->muted[i].what.port))
            a->muted[i].until_ms = 0;
    return 0;
}

bool asks_take_grant(struct asks *a, const struct ask_for *f, bool *exact)
{
    int64_t now = clock_ms(CLOCK_BOOTTIME);
    for (unsigned i = 0; i < ASK_GRANTS_MAX; i++) {
        struct grant *g = &a->grants[i];
        if (g->until_ms <= now)
            continue;
        if (f->is_name ? rule_matches_name(&g->rule, rule_alias(f->host), f->port)
                       : rule_matches_addr(&g->rule, f->family, f->addr, f->port)) {
            *exact = rule_is_exact(&g->rule);
            g->until_ms = 0;
            return true;
        }
    }
    return false;
}
