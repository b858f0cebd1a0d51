/* What comes with sbx as data and what users add to it or put in its place: agents' kits and services, a file NAME.json each,
 * ours in a folder of the assets, theirs in one of the configuration. */
#ifndef SBX_CORE_SHIPPED_H
#define SBX_CORE_SHIPPED_H

#include <jansson.h>

#include "core/err.h"

struct shipped {
    const char *ours, *theirs; /* the folders' names */
};

/* All names, each once and sorted: an array of strings, for the caller.  What cannot be the name of a record (core/record.h)
 * is passed over. */
json_t *shipped_names(const struct shipped *of);

/* The user's file of that name, else ours; the caller frees it.  NULL with STATUS_NOT_FOUND if there is none, also where the
 * name can be none; one of the user's that is unusable is an error, not passed over. */
json_t *shipped_load(const struct shipped *of, const char *name, struct err *e);

#endif
