/* The policy: a posture and rules, from the files of the user and of one sandbox, and the decision.
 * Deny by default (design.md I6): a file that cannot be read or a rule that cannot be parsed makes the whole
 * policy `broken`, which denies everything and says why. */
#ifndef SBX_CORE_POLICY_H
#define SBX_CORE_POLICY_H

#include <jansson.h>
#include <stddef.h>

#include "core/rule.h"

enum posture { POSTURE_UNSET, POSTURE_OPEN, POSTURE_BALANCED, POSTURE_LOCKED };

struct policy;

struct decision {
    bool allow;
    bool exact;              /* allowed by a rule that names this very host and port, or this address */
    bool http;               /* allowed only if each request is judged (policy_decide_request): a rule speaks of
                                methods or paths.  Who cannot judge requests must refuse. */
    const struct rule *rule; /* NULL: the posture decided */
    char text[RULE_TEXT_MAX + 32]; /* "rule deny ads.example.com (global)", "posture locked-down", ... */
};

/* "open", "balanced", "locked-down" and their other names "allow-all", "deny-all". POSTURE_UNSET if unknown. */
enum posture posture_parse(const char *text);
const char *posture_name(enum posture p);

/* Paths of the two files. malloc'ed. */
char *policy_path(const char *sandbox /* NULL: the global one */, struct err *e);

/* Reads a policy from an object, as a file holds it; for tests and for what is not a file.  The rules count as
 * those of a sandbox.  Never NULL but for no memory; see policy_error. */
struct policy *policy_from_json(const json_t *o);
/* What applies to a sandbox (NULL: to none in particular): its own rules, the global ones, the posture's preset.
 * Never NULL but for no memory; see policy_error. */
struct policy *policy_load(const char *sandbox);
void policy_free(struct policy *p);
/* Why everything is denied, or NULL. */
const char *policy_error(const struct policy *p);
enum posture policy_posture(const struct policy *p);
/* Is somebody to be asked about what no rule speaks of (net/broker_ask.h)? */
bool policy_asks(const struct policy *p);
const struct rule *policy_rules(const struct policy *p, size_t *n);

/* Decides on a canonical name; or on an address. now: seconds since the epoch, for rules that expire. */
void policy_decide_name(const struct policy *p, const char *name, uint16_t port, int64_t now, struct decision *d);
void policy_decide_addr(const struct policy *p, uint8_t family, const uint8_t *addr, uint16_t port, int64_t now,
                        struct decision *d);
/* Decides on one HTTP request to a name; path without the query. */
void policy_decide_request(const struct policy *p, const char *name, uint16_t port, const char *method,
                           const char *path, int64_t now, struct decision *d);
/* Is the name denied on every port by a rule? Then it need not even resolve. */
bool policy_denies_all(const struct policy *p, const char *name, int64_t now);
/* Does it wait for one that runs out (struct rule, front)? */
bool policy_waits(const struct policy *p, const struct rule *r, int64_t now);
/* What another clock says of rule i, of those that policy_rules() gives (core/expiry.h). */
void policy_set_expiry(struct policy *p, size_t i, bool over, bool lasting);

/* What `sbx policy rm` finds a rule by, as one word of a shell: its id, or its text where it has none;
 * empty if it does not fit. */
void policy_handle(char *out, size_t cap, const struct rule *r);

/* ---- changing a file, under its lock ---- */

/* Adds rules.  All or nothing.  One takes the place of an earlier one with its target; but what runs out stands before what
 * does not, which is in force again afterwards. */
int policy_add(const char *sandbox, const struct rule *rules, size_t n, struct err *e);
/* Removes by id or by text; counts. */
int policy_remove(const char *sandbox, const char *id_or_text, struct err *e);
/* The same for whether it says anything. */
int policy_enable(const char *sandbox, const char *id_or_text, bool on, struct err *e);

/* What becomes of one rule; what is not named stays as it is. */
struct rule_change {
    const struct rule *target; /* of whose hosts, ports and requests it speaks now */
    const bool *deny, *disabled;
    const int64_t *expires; /* 0: never */
    const char *comment;
    const char *const *to;                                /* the sandbox whose rule it becomes, NULL: of all */
    int (*check)(const struct rule *as_it_will_stand, struct err *e); /* -1: no; may be NULL */
};

/* Changes the one rule that the id or the text finds, in its place; all of it or nothing, in one write of the file.  One
 * that moves is written to its new file first.  What has its target already gives way as in policy_add.  *out is how it
 * stands.  -1 with STATUS_NOT_FOUND: there is none. */
int policy_edit(const char *sandbox, const char *id_or_text, const struct rule_change *c, struct rule *out, struct err *e);
/* Back to the default: no rules, (global) posture unset. */
int policy_reset(const char *sandbox, struct err *e);
int policy_set_posture(const char *sandbox, enum posture p, struct err *e);
int policy_set_ask(const char *sandbox, bool on, struct err *e);
/* The posture that one file sets, POSTURE_UNSET if none. */
enum posture policy_file_posture(const char *sandbox);
/* The file's content, checked; for export. */
json_t *policy_export(const char *sandbox, struct err *e);
int policy_import(const char *sandbox, const json_t *o, struct err *e);

#endif
