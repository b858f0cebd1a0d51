/* The installation's own certificate authority, under which intercepted TLS is answered.  Only guests trust it.
 *
 * $XDG_DATA_HOME/sbx/ca/{key.pem,cert.pem}: P-256, path length 0, ten years; made when first needed, in one step
 * (a folder that is renamed), so that key and certificate always fit.  The key is read by brokers alone. */
#ifndef SBX_CORE_CA_H
#define SBX_CORE_CA_H

#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define CA_LEAF_DAYS 98        /* and a day before now: a guest's clock may be behind (threat 96) */
#define CA_LEAF_MAX 1400       /* bytes of DER */
#define CA_POINT_LEN 65        /* an uncompressed P-256 point, SEC 1 2.3.3 */

struct ca;

/* Makes the authority if there is none, or if it runs out within a month. */
int ca_ensure(struct err *e);
/* Where its certificate lies; malloc'ed. */
char *ca_cert_path(struct err *e);

/* Before a process is confined: memory that is locked, and in no core, for the key that ca_load reads. */
void ca_lock_memory(void);
/* Loads key and certificate (ca_ensure first). */
struct ca *ca_load(struct err *e);
void ca_free(struct ca *c);

/* A server certificate for a canonical name and the owner of that public key: DER into out, its length, or 0. */
size_t ca_issue(const struct ca *c, const char *name, const uint8_t point[CA_POINT_LEN], uint8_t out[CA_LEAF_MAX]);

#endif
