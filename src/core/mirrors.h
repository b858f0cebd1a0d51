/* What a company's host knows and a machine behind the same mirror needs too: package mirrors and authorities. */
#ifndef SBX_CORE_MIRRORS_H
#define SBX_CORE_MIRRORS_H

#include <jansson.h>

#include "core/err.h"

/* Lines of a sources.list for `suite` from the host's APT configuration (its Debian archives, their security and
 * updates); the public archive's if the host has none.  malloc'ed. */
char *mirrors_apt_sources(const char *suite, struct err *e);
/* apt.conf lines for proxies and authorities of the host's APT; may be "". malloc'ed. */
char *mirrors_apt_options(void);

/* Files for a guest: [{path, mode, owner, content, append?}]: authorities that the host trusts beyond its
 * distribution's, and the APT configuration.  New reference. */
json_t *mirrors_files(const char *suite, struct err *e);
/* Variables for a guest: the trust store's place, npm's and pip's index without credentials.  New reference. */
json_t *mirrors_env(void);

#endif
