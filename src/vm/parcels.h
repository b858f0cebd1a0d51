/* Files for a machine, in parcels that each fit into one message of its control port (core/link.h). */
#ifndef SBX_VM_PARCELS_H
#define SBX_VM_PARCELS_H

#include <jansson.h>

/* The files of an order (docs/protocols.md, "configure") as an array of such arrays, new; `files` is not changed.  A file
 * that is too large alone is there in pieces, one behind the other, each but the last with "more": true.  NULL: no memory. */
json_t *parcels_of(const json_t *files);

#endif
