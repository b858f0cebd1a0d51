/* Where clouds offer the metadata of a machine, credentials among them: no rule opens it.  Pure. */
#ifndef SBX_CORE_METADATA_H
#define SBX_CORE_METADATA_H

#include <stdbool.h>
#include <stdint.h>

/* family: 4 or 6 */
bool metadata_is_addr(uint8_t family, const uint8_t *addr);
/* name: canonical */
bool metadata_is_name(const char *name);

#endif
