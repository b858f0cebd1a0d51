/* config.json: the user's settings, a typed table with defaults.
 *
 * The file holds one object whose keys are the dotted names below.  A file that cannot be read or a value
 * that does not fit is an error that names the key and the mending command; nothing is guessed. */
#ifndef SBX_CORE_CONFIG_H
#define SBX_CORE_CONFIG_H

#include <jansson.h>
#include <stdbool.h>

#include "core/err.h"

enum config_type { CONFIG_BOOL, CONFIG_INT, CONFIG_CHOICE, CONFIG_STRING, CONFIG_LIST, CONFIG_MAP };

struct config_key {
    const char *name;
    enum config_type type;
    const char *fallback; /* the default, as JSON text */
    const char *choices;  /* CONFIG_CHOICE: "a|b|c"; CONFIG_INT: "min..max" */
    const char *help;
};

/* The table, ended by a NULL name. */
const struct config_key *config_keys(void);
const struct config_key *config_find(const char *name);

/* All settings, defaults filled in; a new object.  NULL on an unusable file. */
json_t *config_load(struct err *e);

/* One setting of a loaded object (a borrowed reference, never NULL for a name of the table). */
json_t *config_value(const json_t *config, const char *name);

/* Loads the file for one value each: for callers that need few.  On an unusable file they return the default and
 * fill err (if given), so that a caller may choose. */
bool config_bool(const char *name, struct err *e);
json_int_t config_int(const char *name, struct err *e);
char *config_string(const char *name, struct err *e); /* malloc'ed; "" if unset */

/* Sets from text as a user types it: true/false, numbers, plain strings, lists separated by commas, maps
 * "key=value,key=value", or JSON.  Checked, written atomically under the file's lock.  unset: text NULL. */
int config_set(const char *name, const char *text, struct err *e);

/* What that text says, checked as config_set does: a new reference, or NULL with a sentence. */
json_t *config_parse(const char *name, const char *text, struct err *e);

#endif
