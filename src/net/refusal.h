/* What sbx answers in a server's stead: a sentence that says why, and the command that would change it. */
#ifndef SBX_NET_REFUSAL_H
#define SBX_NET_REFUSAL_H

#include <stdbool.h>
#include <stddef.h>

#define REFUSAL_MAX 12288 /* a token of a sign-in may have 8 KiB */

struct refusal {
    int status;
    const char *reason;        /* of the status */
    const char *type;          /* media type */
    char body[REFUSAL_MAX];
    size_t len;
};

/* Denied by a rule.  what: "GET https://host/path", or "" if nothing is known of the request; json: as an object, in the
 * form that providers of models use for errors. */
void refusal_denied(struct refusal *r, bool json, const char *what, const char *rule, const char *hint);
/* Cannot be passed on, for a reason that no rule has. */
void refusal_failed(struct refusal *r, bool json, int status, const char *why);
/* The answer of a provider's token endpoint to who is signed in already: the sentinel (visible ASCII), for some hours. */
void refusal_signed_in(struct refusal *r, const char *sentinel);
/* What the field x-sbx says of it. */
const char *refusal_mark(const struct refusal *r);
/* The whole answer in HTTP/1.1; returns its length.  It ends the connection unless keep_alive; without_body: to HEAD. */
size_t refusal_http1(const struct refusal *r, bool keep_alive, bool without_body, char *out, size_t cap);

#endif
