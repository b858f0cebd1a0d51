/* Agent kits: what sbx knows of an agent, as data (assets/kits, or the user's own in $XDG_CONFIG_HOME/sbx/agents). */
#ifndef SBX_CORE_KIT_H
#define SBX_CORE_KIT_H

#include <jansson.h>

#include "core/err.h"

/* The checked object of a kit; the user's file wins over ours.  STATUS_NOT_FOUND with the names that there are. */
json_t *kit_load(const char *name, struct err *e);

/* Names of all kits, sorted. */
json_t *kit_list(void);

/* Checks an object as kit_load does. */
int kit_check(const json_t *kit, const char *name, struct err *e);

/* The kit's variables into env, and its files (with ${WORKSPACE} replaced) into files. */
void kit_seed(const json_t *kit, const char *workspace, json_t *env, json_t *files);

/* A text that changes when what is installed would: for the template's name. */
void kit_recipe_hash(const json_t *kit, char out[17]);

#endif
