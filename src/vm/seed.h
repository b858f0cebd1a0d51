/* What of the host every machine gets: mirrors and authorities as files, and variables (core/mirrors.h).  Reading all
 * of them takes 70 ms and a cryptographic library, so the answer is kept in the cache until the host's own changes;
 * "sbx image seed" makes it. */
#ifndef SBX_VM_SEED_H
#define SBX_VM_SEED_H

#include <jansson.h>

#include "core/err.h"

/* A new object {files, env}, if what is kept still holds; else NULL. */
json_t *seed_kept(void);

/* Keeps them from now on; takes both references. */
int seed_keep(json_t *files, json_t *env, struct err *e);

/* seed_keep with what mirrors_files and mirrors_env say now, and with a certificate authority of our own that is good (core/ca.h). */
int seed_make(struct err *e);

#endif
