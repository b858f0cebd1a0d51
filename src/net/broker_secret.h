/* The secrets of one sandbox, in the broker: which service a host belongs to, and what is written into its requests.
 * Values lie in guarded memory (sodium_malloc); the store they come from is opened, copied from, and closed again. */
#ifndef SBX_NET_BROKER_SECRET_H
#define SBX_NET_BROKER_SECRET_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "net/ask.h"

struct broker_secrets;

struct broker_secrets *broker_secrets_new(const char *sandbox);
void broker_secrets_free(struct broker_secrets *s);
/* Reads the store and the services anew.  -1 with the reason: then there are no secrets, and requests go out without. */
int broker_secrets_load(struct broker_secrets *s, struct err *e);

/* Whether some secret's service writes for that host and port: then its HTTP must be looked at. */
bool broker_secrets_wants(const struct broker_secrets *s, const char *host, uint16_t port);

/* What one request gets, for the i-th of its secrets; false after the last.  bearer: as in struct ask_request; a token
 * that was lent, whose sentinel it is, goes before its service's secret.  The caller wipes *out. */
bool broker_secrets_for(const struct broker_secrets *s, const char *host, uint16_t port, const char *path, uint64_t bearer,
                        unsigned i, struct answer_secret *out, const char **service);

/* The service whose secret buys a short-lived token with such a request (threat 68), or NULL. */
const char *broker_secrets_lends(const struct broker_secrets *s, const char *host, uint16_t port, const char *path, bool ambiguous);
/* Whether that service may be asked for one so. */
bool broker_secrets_lends_by(const struct broker_secrets *s, const char *service, const char *host, uint16_t port, const char *method);
/* Keeps such a token for as long as it is good, and no longer than its secret; false: it cannot be one. */
bool broker_secrets_lend(struct broker_secrets *s, const char *service, const struct ask_mint *m);

/* A sentinel that stands in a request to a host where it does not belong: the service's name, or NULL. */
const char *broker_secrets_misplaced(const struct broker_secrets *s, uint64_t sentinels, const char *host, uint16_t port,
                                     bool tls);

/* Which sentinels do not belong to that host, as bits by index: what a request says behind its head is searched for them.
 * Hosts where its service gives out tokens, or takes them, are a service's own. */
uint64_t broker_secrets_elsewhere(const struct broker_secrets *s, const char *host, uint16_t port, bool tls);
/* Another number whenever that may have changed; not 0. */
unsigned broker_secrets_changes(const struct broker_secrets *s);
/* What the sentinel with that sentinel_tag() is of: the service, or NULL if there is no such sentinel now, and the variables
 * that hold it in the guest: "A, B", or "". */
const char *broker_secrets_tagged(const struct broker_secrets *s, uint64_t tag, char *variables, size_t cap);

/* The variables that hold sentinels in the guest.  New reference. */
json_t *broker_secrets_env(const struct broker_secrets *s);
/* What a request to a provider's token endpoint (a sign-in from inside the sandbox, threat 68) means here. */
enum broker_sign_in {
    SIGN_IN_NONE, /* it is no such request */
    SIGN_IN_TAKE, /* there is no secret of that service: the tokens are taken for this sandbox */
    SIGN_IN_HELD, /* the host has the tokens: *index is their sentinel's */
    SIGN_IN_OTHER, /* there is another credential of that service, which the sandbox cannot trade for its own */
};
/* path: normalised; NULL: it cannot be told, which on such a host counts as SIGN_IN_OTHER. */
enum broker_sign_in broker_secrets_sign_in(const struct broker_secrets *s, const char *host, uint16_t port, const char *path,
                                           const char **service, unsigned *index);
/* Holds what such a request yielded, until the store has it.  line (guarded, freed with sodium_free) is what `sbx secret
 * take` reads.  NULL: it cannot be a secret. */
char *broker_secrets_take(struct broker_secrets *s, const char *service, const struct ask_mint *m);

/* When the first of them is to be renewed (seconds since 1970); 0: none is. */
int64_t broker_secrets_renew(const struct broker_secrets *s);

/* The value of a service's secret that no host is ever given (the proxy's login); it lives until the next load, or NULL. */
const char *broker_secrets_value(const struct broker_secrets *s, const char *service);

/* How many sentinels there are, at most SENTINELS_MAX. */
unsigned broker_secrets_sentinels(const struct broker_secrets *s);
/* The i-th sentinel; false after the last. */
bool broker_secrets_sentinel(const struct broker_secrets *s, unsigned i, struct answer_sentinel *out);

#endif
