/* What kind of address this is: only global ones are "outside".  Sources: the IANA special-purpose address
 * registries (RFC 6890), RFC 6598, RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo). */
#ifndef SBX_CORE_ADDRCLASS_H
#define SBX_CORE_ADDRCLASS_H

#include <stdbool.h>
#include <stdint.h>

enum addr_class {
    ADDR_GLOBAL,
    ADDR_METADATA, /* a cloud's instance metadata: never, whatever a rule says */
    ADDR_LOOPBACK,
    ADDR_OWN, /* this host's */
    ADDR_PRIVATE,
    ADDR_LINK_LOCAL,
    ADDR_MULTICAST,
    ADDR_RESERVED, /* documentation, benchmarking, future use, unspecified */
};

/* addr is 4 or 16 bytes, network order.  Addresses that embed an IPv4 one are judged by that one as well. */
enum addr_class addr_classify(uint8_t family, const uint8_t *addr);
const char *addr_class_name(enum addr_class c);

/* Is it one of this host's own addresses, now?  They are read again when the kernel says that they changed.  For
 * one thread; call addr_watch_own() before the process confines itself, or they are read each time. */
void addr_watch_own(void);
bool addr_is_own(uint8_t family, const uint8_t *addr);

/* A name by which a cloud offers its instance metadata (canonical form). */
bool addr_is_metadata_name(const char *name);

#endif
