/* AWS Signature Version 4 (AWS General Reference, "Signing AWS API requests"): a request that the guest signed with
 * sentinels is signed anew with the real key. */
#ifndef SBX_NET_SIGV4_H
#define SBX_NET_SIGV4_H

#include <stdbool.h>

#include "net/headers.h"

/* secret: "ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]".  The headers that the guest signed are signed, with its date,
 * region and service out of its own Authorization; the hash of the payload is the one that it names in
 * x-amz-content-sha256, which the server checks.  False with a clause in *why: not signed, the date is far from ours, or
 * the hash of the payload is not in the head. */
bool sigv4_sign(const char *method, const char *host, const char *target, struct headers *h, const char *secret,
                const char **why);

#endif
