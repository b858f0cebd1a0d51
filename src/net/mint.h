/* Answers in which a provider gives out tokens (a sign-in from inside the sandbox, threat 68): the tokens stay on the
 * host, the guest gets sentinels.  Pure: bytes in, bytes out. */
#ifndef SBX_NET_MINT_H
#define SBX_NET_MINT_H

#include <stddef.h>
#include <stdint.h>

#include "net/ask.h"

#define MINT_BODY_MAX (200u * 1024u) /* within HTTP/2's window of a stream */
#define MINT_TOKENS_MAX 16u

enum mint_result {
    MINT_PLAIN,  /* there is no token in it: it can be passed on as it is */
    MINT_TAKEN,  /* tokens were replaced in place by sentinels of their length; *out is what the broker must know */
    MINT_BAD,    /* what it holds cannot be told: it must not reach the guest */
};

/* A body in JSON: every string whose name says that it is a token or a key, at any depth, becomes a sentinel.  *out gets
 * the access token ("access_token", else "token"), its sentinel, the refresh token and the lifetime; out->access[0] == 0: tokens, but none to keep.
 * The caller wipes *out. */
enum mint_result mint_read(uint8_t *body, size_t n, struct ask_mint *out);

#endif
