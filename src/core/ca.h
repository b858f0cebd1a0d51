/* The installation's own certificate authority, under which intercepted TLS is answered.  Only guests trust it.
 *
 * P-256, path length 0.  Its key is a record of the secret store (core/secretstore.h), together with its
 * certificate, so that the two always fit; the certificate is public, and stands in $XDG_DATA_HOME/sbx/ca/cert.pem for all who
 * pass it on.  That file says what guests trust: an authority of the store that is another one is not used.  The key is held
 * by brokers alone, and by who makes it.  An sbx of before kept it in ca/key.pem. */
#ifndef SBX_CORE_CA_H
#define SBX_CORE_CA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"
#include "core/secretstore.h"

#define CA_YEARS 10
#define CA_RENEW_S (30 * 86400L) /* before its end it is replaced */
#define CA_LEAF_DAYS 98        /* and a day before now: a guest's clock may be behind (threat 96) */
#define CA_LEAF_MAX 1400       /* bytes of DER */
#define CA_POINT_LEN 65        /* an uncompressed P-256 point, SEC 1 2.3.3 */

struct ca;

/* Makes the authority if no certificate of one is there, and takes in the key that an sbx of before kept.  anew: also if it
 * runs out within a month, or if its key is not in the store (any more); what runs goes on with the one of before, so this is
 * for who passes the new certificate on.  ask: as for secretstore_open.  1: another one was made. */
int ca_ensure(bool anew, secretstore_ask_fn *ask, void *arg, struct err *e);
/* Whether the next start of a sandbox will find one, make one or take one in: 0, or -1 with what hinders it. */
int ca_check(struct err *e);
/* Its certificate, as it stands in ca/cert.pem; malloc'ed.  "": there is none. */
char *ca_certificate(struct err *e);

/* Before a process is confined: memory that is locked, and in no core, for the key that ca_issue makes ready. */
void ca_lock_memory(void);
/* The authority of the store, if it has the certificate that guests trust; the store is read, and no one is asked. */
struct ca *ca_load(const char *trusted, struct err *e);
void ca_free(struct ca *c);

/* A server certificate for a canonical name and the owner of that public key: DER into out, its length, or 0. */
size_t ca_issue(struct ca *c, const char *name, const uint8_t point[CA_POINT_LEN], uint8_t out[CA_LEAF_MAX]);

#endif
