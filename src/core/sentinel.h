/* What the guest holds instead of a secret. */
#ifndef SBX_CORE_SENTINEL_H
#define SBX_CORE_SENTINEL_H

#include <stddef.h>
#include <stdint.h>

/* A new sentinel of the look of value: the same length, letters for letters and digits for digits, the same punctuation,
 * and the beginning by which clients know the kind of key (`prefix`, which may be NULL, and what looks like one); of a
 * JSON Web Token (RFC 7519), and of "name=value;...:signature", only the signature differs, since clients read the rest.  Never equal to value.  malloc'ed. */
char *sentinel_make(const char *value, const char *prefix);

/* A short name of a text, by which one side asks the other for it: 8 bytes of BLAKE2b. */
uint64_t sentinel_tag(const char *text, size_t n);

#endif
