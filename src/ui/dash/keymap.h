/* Key bindings as data: assets/keys/default.keys, then $XDG_CONFIG_HOME/sbx/keys over it.
 *
 * A line is `KEY ACTION NOTE...` below a `[context]` line; the same key in the user's file replaces ours, the action
 * "none" takes it away.  From this table come dispatch, the `?` help and the hints of the status line (those actions
 * whose note begins with '!', in the order of the file).
 * Contexts: "global" (everywhere but in text fields and terminals), a pane's own name ("sandboxes", "terminal", "log"),
 * "prefix" (after the prefix key while a terminal has the focus), "list" (all lists), "form". */
#ifndef SBX_UI_DASH_KEYMAP_H
#define SBX_UI_DASH_KEYMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

struct binding {
    char context[16];
    uint32_t key;
    unsigned mods;
    char action[32]; /* "sandbox.start" */
    char note[64];   /* for the help and the hints */
    bool hint;
};

struct keymap;

/* Never NULL but for no memory; a bad line of the user's file is an error (said in err) and is passed over. */
struct keymap *keymap_load(struct err *e);
void keymap_free(struct keymap *k);
/* From text, for tests; later lines win.  -1 with the first bad line. */
int keymap_parse(struct keymap *k, const char *text, const char *file, struct err *e);
struct keymap *keymap_new(void);

/* The action bound to a key in a context, or NULL. */
const char *keymap_action(const struct keymap *k, const char *context, uint32_t key, unsigned mods);
/* The i-th binding of a context in the file's order, or NULL. */
const struct binding *keymap_at(const struct keymap *k, const char *context, unsigned i);
/* How the first key of an action is called, for texts that mention keys ("" if none). */
void keymap_key_of(const struct keymap *k, const char *context, const char *action, char *out, unsigned cap);

#endif
