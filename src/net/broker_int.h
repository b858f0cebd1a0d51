/* What the parts of the broker share, for these alone: broker.c (the process: what it is told, and what it watches),
 * broker_flow.c (connections: deciding, asking, vetting, dialling, their rows), broker_request.c (requests of connections
 * that are intercepted, and what net needs for them). */
#ifndef SBX_NET_BROKER_INT_H
#define SBX_NET_BROKER_INT_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/expiry.h"
#include "core/linkev.h"
#include "core/log.h"
#include "core/policy.h"
#include "net/ask.h"
#include "net/broker_ask.h"
#include "net/broker_secret.h"
#include "net/broker_tls.h"
#include "net/dial.h"
#include "net/journal.h"

#define FLOWS_MAX (512 + DIAL_PENDING_MAX) /* open and pending (threat 79) */
#define ASKS_PER_WAKE 64
#define OUTSIDE_MAX 32
#define LED_MAX 3
#define REFUSED_KEPT 64 /* names of refused connections that net may answer readably */

struct flow {
    struct flow *next;
    struct broker *broker;
    uint32_t id;
    int64_t number;    /* joins its rows in the log */
    struct dial *dial; /* while it is being dialled */
    int fd;            /* while it is open: a copy of what net got, so that a cut does not depend on net */
    bool logged;       /* it has an "open" row, so it must get a "close" or "fail" row */
    bool cut;
    bool is_name;
    char host[264];    /* as the log shows it */
    uint8_t family, addr[16];
    uint16_t port;
    bool exact, mapped;
    bool tunnelled;    /* through the proxy; peer is then what it was asked for, of family 0 for a name */
    bool intercept;    /* each of its requests is judged */
    uint16_t dial_port;
    uint8_t peer_family, peer[16]; /* once it is open */
    char rule[RULE_TEXT_MAX + 32], dialled[48];
    const char *refused; /* why the address was refused, of the last one vetted */
    bool shut;           /* ... and no rule for the host would open it */
    uint64_t elsewhere;  /* sentinels that do not belong to it, when the secrets had changed so often: */
    unsigned searched_at;
    bool searched_tls;
    char mint[64];       /* the service whose tokens an answer on it gives out */
    char lends[64];      /* the service whose secret buys short-lived tokens on it */
    bool held;           /* somebody is asked */
    bool granted, granted_exact; /* let through by an answer, or once: only a rule that denies ends it */
};

/* A request of an intercepted connection between its decision and its answer. */
struct judged {
    struct ask_request ask;
    struct answer answer;
    bool allow;
    enum broker_sign_in sign_in;
    unsigned index;
    const char *signs;
};

struct broker {
    struct judged *judged; /* ASKS_PER_WAKE of them */
    unsigned njudged;
    const struct answer *ready[ASKS_PER_WAKE]; /* answers to these, that leave together */
    unsigned nready;
    const char *sandbox;
    struct event_base *base;
    struct linkev *supervisor;
    struct dialer *dialer;
    struct journal *journal;
    struct policy *policy;
    struct expiry *expiry;
    json_t *map;
    struct rule outside[OUTSIDE_MAX];
    unsigned noutside;
    struct rule direct[OUTSIDE_MAX]; /* not through the proxy */
    unsigned ndirect;
    char proxy_text[280];            /* its host and port, as the log names it; "": none */
    struct flow *flows;
    unsigned nflows, nopen;
    int watch_fd;
    struct event *net_ev, *watch_ev, *note_ev, *reload_ev, *expiry_ev;
    int64_t allowed, denied, failed, refused, bytes_up, bytes_down, noted;
    int64_t last_flow; /* begins with the time, so that numbers are unique over restarts */
    struct log_rate bad_ask, bad_expiry;
    struct broker_tls *tls;
    struct broker_secrets *secrets;
    struct asks *asks;
    struct event *secrets_ev;
    /* Where settings and rules lie that are links, as to files that a user keeps together elsewhere. */
    struct {
        char dir[4096], file[4096];
        const char *name, *reach; /* what stays readable: the folder, for a file that is replaced; if that is not the home */
    } led[LED_MAX];
    unsigned nled;
    int mint_fd; /* to `sbx secret take`, or -1 */
    struct {
        uint32_t id;
        char name[256];
    } refusals[REFUSED_KEPT]; /* ring */
    unsigned last_refusal;
};

/* ---- broker.c ---- */

/* To net, in order; fd: a descriptor that goes with it, still the caller's; -1: none. */
void broker_send(struct broker *b, const void *packet, size_t len, int fd);
void broker_send_answer(struct broker *b, const struct answer *a, int fd);
/* The answers that are listed in `ready`. */
void broker_send_ready(struct broker *b);
/* Counts what was denied, and tells the supervisor in a moment. */
void broker_count_denied(struct broker *b, int64_t *counter, int64_t by);
/* To the supervisor: what a session's variables are, and when secrets are to be renewed; "" is no error. */
void broker_tell_secrets(struct broker *b, const char *error);
/* To net: what the guest holds instead of secrets. */
void broker_tell_sentinels(struct broker *b);

/* ---- broker_flow.c ---- */

extern const struct asks_ops broker_asks_ops;

/* net's requests, of ask.h's kinds. */
void broker_connect(struct broker *b, const struct ask *ask);
void broker_name(struct broker *b, const struct ask *ask);
void broker_done(struct broker *b, const struct ask *ask);
void broker_cancelled(struct broker *b, const struct ask *ask);
void broker_end(struct broker *b);
void broker_mismatch(struct broker *b, const struct ask *ask);
void broker_refused(struct broker *b, const struct ask *ask);
/* What the rules say of a connection. */
void broker_decide(struct broker *b, const struct flow *f, struct decision *d);
/* The connection with net's number; NULL: there is none (any more). */
struct flow *broker_find(struct broker *b, uint32_t id);
/* Ends a connection that the rules deny now; the request that they deny, or NULL. */
void broker_cut(struct broker *b, struct flow *f, const char *rule, const char *method, const char *path);
/* After a change: ends what is denied now, and lets asked questions go that are answered by it. */
void broker_recheck(struct broker *b);
/* Wakes when the next rule expires. */
void broker_arm_expiry(struct broker *b);
/* The command that takes back a rule that denies, into `out`, and the rule's handle into `which`.  Its length as of
 * snprintf; 0: a preset's rule is not taken back. */
int broker_take_back(const struct broker *b, const struct rule *r, char *which, size_t room, char *out, size_t cap);

/* ---- broker_request.c ---- */

/* One request of an intercepted connection: judged now, answered with those that came with it. */
void broker_lock_requests(void);
void broker_judge(struct broker *b, const struct ask_request *ask);
/* Writes what was judged with one stroke, then answers. */
void broker_answer_requests(struct broker *b);
/* Tokens that an answer gave out; `m` is still the caller's, to wipe. */
void broker_mint(struct broker *b, struct ask_mint *m);
/* A certificate for the name of a connection. */
void broker_leaf(struct broker *b, const struct ask_leaf *ask);

#endif
