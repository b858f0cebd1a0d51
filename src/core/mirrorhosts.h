/* The hosts of the package mirrors that this machine is configured to use: for a user behind a company's mirror
 * they are what deb.debian.org or registry.npmjs.org is for others, so Balanced allows them. */
#ifndef SBX_CORE_MIRRORHOSTS_H
#define SBX_CORE_MIRRORHOSTS_H

#include <stddef.h>

#define MIRRORHOSTS_MAX 16

/* "HOST" or "HOST:PORT", as the configuration has them; read once per process (later the broker is confined). */
size_t mirrorhosts(const char *const **hosts);

/* Adds the hosts of all URLs in a text to a list; user names and passwords in them are skipped.  Pure. */
size_t mirrorhosts_scan(const char *text, char hosts[][272], size_t n, size_t max);

#endif
