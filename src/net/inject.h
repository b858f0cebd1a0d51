/* Credentials in requests: found, taken out, written.  Pure: header lists in, header lists out.
 *
 * Service mode takes out whatever credential the guest sent to that host and writes ours, so that another account's key
 * carries nothing out (threat 73); placeholder mode writes the value where its sentinel stands.  A request that bears a
 * credential asks for an answer that can be looked through: no content coding, no ranges, no WebSocket extensions
 * (threat 65). */
#ifndef SBX_NET_INJECT_H
#define SBX_NET_INJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/ask.h"
#include "net/headers.h"
#include "net/scrub.h"

/* What may be written into one request.  Owned by the exchange, wiped with it. */
struct credentials;

/* Adds what the broker sent; *c is made when it is NULL.  False: no memory, or too many. */
bool credentials_add(struct credentials **c, const struct answer_secret *a);
void credentials_free(struct credentials *c);
uint32_t credentials_request(const struct credentials *c);
/* For the response; NULL only without memory. */
struct scrub_set *credentials_scrub(struct credentials *c);
/* Whether the field's value holds a secret (then it must not enter a compression table). */
bool credentials_owns(const struct credentials *c, const struct header *h);

/* *target is malloc'ed and may be replaced.  tls: false writes nothing, ever (threat 72).  False with a clause in *why:
 * the request must be refused. */
bool inject_write(const struct credentials *c, bool tls, const char *method, const char *host, char **target,
                  struct headers *h, const char *payload, const char **why);
/* Takes out of a request's trailers what a server might take for a credential of the guest's own. */
void inject_trailers(const struct credentials *c, struct headers *h);
/* By what name the broker may know what its Authorization bears (core/sentinel.h); 0 without one. */
uint64_t inject_bearer(const struct headers *h);
/* Whether its content must be known first: then payload is its hash (net/sigv4.h), else NULL. */
bool inject_wants_content(const struct credentials *c, const struct headers *h);

/* Sentinels that the guest holds: which of them stand in what a request says, raw, percent-encoded, in Base64 or JSON
 * (threats 63, 64); of "USER:PASSWORD", and of "ID:KEY:TOKEN", also what follows a colon alone. */
struct sentinels;
struct sentinels *sentinels_new(void);
void sentinels_free(struct sentinels *s);
void sentinels_set(struct sentinels *s, const struct answer_sentinel *a);
/* The one of that index, or NULL. */
const char *sentinels_at(const struct sentinels *s, int i);
/* In a request's head, as bits by index. */
uint64_t sentinels_find(struct sentinels *s, const char *target, const struct headers *h);
/* What to search the rest of a request for, of those that `which` names (bits by index); the marks are sentinel_tag()s.
 * *set: a reference for the caller, or NULL if there is nothing to search for.  False: no memory. */
bool sentinels_watch(struct sentinels *s, uint64_t which, struct scrub_set **set);
/* The mark of one that stands in fields; 0: none does. */
uint64_t sentinels_in_fields(const struct scrub_set *set, const struct headers *h);

/* Whether a response's content coding lets it be looked through. */
bool inject_readable(const struct headers *response);
/* Takes the secrets out of a header list. */
void inject_clean(struct scrub_set *set, struct headers *h);

#endif
