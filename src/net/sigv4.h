/* AWS Signature Version 4 (AWS General Reference, "Signing AWS API requests"): a request that the guest signed with
 * sentinels is signed anew with the real key. */
#ifndef SBX_NET_SIGV4_H
#define SBX_NET_SIGV4_H

#include <stdbool.h>

#include "net/headers.h"

/* secret: "ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]".  The headers that the guest signed are signed, with its date,
 * region and service out of its own Authorization.  payload: the hash of the content, in lower-case hex; NULL: the one
 * that x-amz-content-sha256 names, which the server checks.  False with a clause in *why: it is not signed, or cannot be
 * signed anew. */
bool sigv4_sign(const char *method, const char *host, const char *target, struct headers *h, const char *secret,
                const char *payload, const char **why);

#define SIGV4_HASH_LEN 65 /* with the NUL */
void sigv4_hash(const void *content, size_t n, char out[SIGV4_HASH_LEN]);

#endif
