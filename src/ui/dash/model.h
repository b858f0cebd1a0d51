/* What the dashboard knows of the sandboxes: their records and states (inotify on the state folder), and for those that
 * run a link to the supervisor with its live status. */
#ifndef SBX_UI_DASH_MODEL_H
#define SBX_UI_DASH_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/record.h"
#include "core/state.h"

struct app;
struct conn;
struct task;

/* Why a sandbox wants the user, in the order of urgency. */
enum wants { WANTS_NOTHING, WANTS_LOOK /* it ended or failed unseen */, WANTS_INPUT /* the agent waits */ };

struct box {
    char name[RECORD_NAME_MAX + 1];
    char agent[RECORD_NAME_MAX + 1];
    char *folder;      /* the workspace, or NULL; with a branch or a clone of its own, the repository */
    char branch[128];  /* its own, or as .git/HEAD says; "" if unknown; printable */
    bool own_branch;   /* recorded: nothing is read */
    unsigned nfolders, cpus, memory_mib;
    int64_t created, since; /* since: of its state, seconds since the epoch; 0: it never ran */
    enum life life;
    char reason[256];
    char trouble[256]; /* of one that runs; printable */
    bool paused;       /* it runs, but stands still: for want of room on the disk */
    json_t *status;    /* the supervisor's last word (docs/protocols.md, `status`), NULL while it does not run */
    struct conn *conn; /* NULL while it does not run; belongs to the model */
    double cpu;        /* percent of one processor, -1: unknown */
    int64_t mem_kib, uptime_ms, uptime_at_ms;
    int64_t blocked;
    char ports[96];    /* "8080, 3000" */
    bool emulated;
    enum wants wants;
    char why[96];      /* what it wants, for people; printable */
    bool seen;         /* what it wanted was looked at */
    bool marked;       /* for an action on several */
    bool installs;     /* an agent is installed in it, for all others; it goes when that is done */
    struct task *task; /* what is done to it now, or NULL */
    char doing[128];   /* the task's last word */
    double fraction;   /* of the task, -1: unknown */
    int cpu_hist[32];  /* percents, the latest last; -1: none */
    int64_t cpu_us, cpu_at_ms; /* for the difference */
    int64_t quiet_asked; /* the moment of last output that was judged already */
    int64_t told_ms;   /* when the user was last told that it waits */
    bool by_prompt;    /* what it wants was read from a quiet screen */
    bool asked_text;   /* its screen was asked for, because of a bell */
    bool stale;        /* used while reading the folder */
};

struct model;

struct model *model_new(struct app *a, struct err *e);
void model_free(struct model *m);

unsigned model_count(const struct model *m);
/* By position, sorted by name; NULL beyond. A box lives until it is removed: model_find it again after any return to the
 * event loop. */
struct box *model_at(const struct model *m, unsigned i);
struct box *model_find(const struct model *m, const char *name);

/* Reads the folder and the states again. */
void model_refresh(struct model *m);
/* A link request to a running box; fn gets the reply as conn_request says. False: it does not run. */
bool model_running(const struct box *b);
/* The user looked at it. */
void model_seen(struct model *m, struct box *b);
/* About once a second. */
void model_tick(struct model *m);

/* How many run, want the user, and how much was blocked in all. */
struct model_sums {
    unsigned running, waiting, busy, failed;
    int64_t blocked;
};
void model_sum(const struct model *m, struct model_sums *s);

/* Words and glyphs of a state. */
const char *box_state_word(const struct box *b);

#endif
