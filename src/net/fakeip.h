/* One address of each family for each name that the guest asked for, never given to another name while the
 * machine runs: a connection to such an address is a request for that name. */
#ifndef SBX_NET_FAKEIP_H
#define SBX_NET_FAKEIP_H

#include "core/name.h"
#include "net/packet.h"

#define FAKEIP_MAX 65536u /* names in a machine's life; a /15 would hold twice that */

struct fakeip;

struct fakeip *fakeip_new(void);
void fakeip_free(struct fakeip *f);

/* The address of a canonical name, made if need be.  False if the table is full. */
bool fakeip_of(struct fakeip *f, const char *name, uint8_t family, struct ip_addr *out);
/* The name behind an address; NULL if it is none of ours. */
const char *fakeip_name(const struct fakeip *f, const struct ip_addr *addr);

#endif
