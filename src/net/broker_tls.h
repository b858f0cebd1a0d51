/* What the broker knows of TLS: the key of the installation's authority, and whom upstream servers must be vouched for by.
 * net gets certificates for its own key, and never the authority's.  Without a key nothing is intercepted. */
#ifndef SBX_NET_BROKER_TLS_H
#define SBX_NET_BROKER_TLS_H

#include <jansson.h>

#include "core/ca.h"

#define BROKER_LEAVES_MAX 256    /* kept */
#define BROKER_LEAVES_RATE 20    /* a second, in the long run; twice that at once (threat 55) */

struct broker_tls;

/* Makes the authority if there is none, and takes its key from the store, while that can be opened.  extra: array of files
 * (net.ca). */
struct broker_tls *broker_tls_new(const json_t *extra, struct err *e);
void broker_tls_free(struct broker_tls *t);
/* The store changed: takes the key if none is held yet.  -1 with the reason: there is none to be had. */
int broker_tls_load(struct broker_tls *t, struct err *e);
/* That reason; "": a key is held. */
const char *broker_tls_trouble(const struct broker_tls *t);

/* The certificate for a canonical name and that key: its length, or 0 if there is none to be had now. */
size_t broker_tls_leaf(struct broker_tls *t, const char *name, const uint8_t point[CA_POINT_LEN],
                       uint8_t out[CA_LEAF_MAX]);
/* A descriptor to read the authorities (PEM) from, the caller's; -1 if there are none. */
int broker_tls_trust(const struct broker_tls *t);

#endif
