/* Forms: fields that validate while one types; Escape leaves without change, Ctrl-S submits from anywhere. */
#ifndef SBX_UI_DASH_FORM_H
#define SBX_UI_DASH_FORM_H

#include "ui/dash/app.h"

#define FORM_FIELDS_MAX 16u
#define FORM_VALUE_MAX 4096u

enum form_kind {
    FORM_TEXT,
    FORM_SECRET, /* never shown; wiped */
    FORM_PATH,   /* Tab completes; what is there is listed below */
    FORM_PATHS,  /* several, parted by blanks; one in a path stands behind a backslash */
    FORM_CHOICE, /* choices: "one|two|three" */
    FORM_CHECK,  /* "yes" or "" */
    FORM_NOTE,   /* text alone: the label */
};

struct form_spec {
    const char *label;
    enum form_kind kind;
    const char *initial, *choices, *hint;
    /* What is wrong with the value, for the line below it; true: it is good.  May be NULL. */
    bool (*check)(const char *value, char *why, size_t cap);
    bool folders; /* of paths: nothing else is offered */
};

/* The next path of FORM_PATHS, without its backslashes; false: that was all. */
bool form_next_path(const char **rest, char *out, size_t cap);
/* A path with the home folder in place of ~. */
void form_expand(const char *path, char *out, size_t cap);

/* submit: true closes the form; false with a sentence in why keeps it.  drop frees arg at the end.  The specs are copied but
 * for their texts, which must live as long as the form, except `initial`. */
struct pane *form_new(const char *title, const struct form_spec *spec, unsigned n, const char *button,
                      bool (*submit)(struct app *a, const char *const *values, char *why, size_t cap, void *arg), void *arg,
                      void (*drop)(void *arg));
/* A line below the fields, made anew from the values with each change: what would happen. */
void form_preview(struct pane *p, void (*preview)(const char *const *values, char *out, size_t cap, void *arg));

/* What its button says, as a key's note: "save", "run". */
void form_verb(const struct pane *p, char *out, size_t cap);

#endif
