/* Ask mode: connections to what no rule speaks of are held for a while, and somebody is asked.
 *
 * One question stands for all connections to the same host and port that wait.  It ends with an answer, with a rule that
 * decides, or with its time; then, and when nobody is there to be asked, the connection is denied.  Both are bounded: a
 * guest gains no more than ASK_QUESTIONS_MAX lines on somebody's screen.
 *
 * Beside it: grants, which let the next connection to something through once (`sbx policy allow network NAME HOST --once`). */
#ifndef SBX_NET_BROKER_ASK_H
#define SBX_NET_BROKER_ASK_H

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

#define ASK_QUESTIONS_MAX 16u
#define ASK_HELD_MAX 64u     /* connections that wait, in all */
#define ASK_MUTED_S 300      /* so long after a "deny" the same is denied without a question */
#define ASK_GRANTS_MAX 32u
#define ASK_GRANT_S 600      /* unused grants end */
#define ASK_SECONDS_MAX 120  /* a guest's SYN gives up not much later */

struct asks;

/* What a connection asks for. */
struct ask_for {
    bool is_name;
    char host[264];
    uint8_t family, addr[16];
    uint16_t port;
    const char *where; /* for who is asked: what kind of place it is, "" for the outside; a literal */
};

enum ask_end { ASK_ALLOWED, ASK_DENIED, ASK_UNANSWERED };

struct asks_ops {
    /* To whoever watches; takes the message. */
    void (*note)(json_t *msg, void *arg);
    /* A connection is not held any more. */
    void (*released)(void *flow, enum ask_end how, void *arg);
};

struct asks *asks_new(struct event_base *base, const struct asks_ops *ops, void *arg);
void asks_free(struct asks *a);

/* seconds: how long a connection is held. */
void asks_set_limit(struct asks *a, int seconds);
/* How many could answer; without any, what is held is denied now. */
void asks_set_watchers(struct asks *a, unsigned n);

/* Holds a connection.  False with a reason for the log: it must be denied now. */
bool asks_hold(struct asks *a, void *flow, const struct ask_for *f, const char **why);
/* It is not held any more: given up, or decided otherwise. */
void asks_forget(struct asks *a, void *flow);
/* Rules changed: a question that nothing waits for and that `still` denies ends. */
void asks_review(struct asks *a, bool (*still)(const struct ask_for *f, void *arg), void *arg);

/* STATUS_NOT_FOUND: there is no such question (any more).  If nothing waits any more, "allow" lets the next one through. */
int asks_answer(struct asks *a, json_int_t id, bool allow, struct err *e);
/* The next connection that the rule speaks of. */
int asks_grant(struct asks *a, const char *rule, struct err *e);
/* Is it granted?  Then that was it.  exact: the grant names this very host and port, or the address. */
bool asks_take_grant(struct asks *a, const struct ask_for *f, bool *exact);

#endif
