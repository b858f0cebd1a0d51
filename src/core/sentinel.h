/* What the guest holds instead of a secret. */
#ifndef SBX_CORE_SENTINEL_H
#define SBX_CORE_SENTINEL_H

/* A new sentinel of the look of value: the same length, letters for letters and digits for digits, the same punctuation,
 * and the beginning by which clients know the kind of key (`prefix`, which may be NULL, and what looks like one); of a
 * JSON Web Token (RFC 7519) only the signature differs, since clients read the rest.  Never equal to value.  malloc'ed. */
char *sentinel_make(const char *value, const char *prefix);

#endif
