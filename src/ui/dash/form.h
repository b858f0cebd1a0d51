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

/* What becomes of a form that was submitted. */
enum form_next {
    FORM_STAYS, /* with a sentence in why */
    FORM_CLOSES,
    FORM_WORKS, /* until its command ends: form_run */
};

/* drop frees arg at the end.  The specs are copied but for their texts, which must live as long as the form, except
 * `initial`. */
struct pane *form_new(const char *title, const struct form_spec *spec, unsigned n, const char *button,
                      enum form_next (*submit)(struct pane *form, const char *const *values, char *why, size_t cap, void *arg), void *arg,
                      void (*drop)(void *arg));

struct task_end;

/* A command of sbx for a form.  If it fails the form stays, with all that was typed, and says why; else it closes. */
struct form_run {
    const char *const *argv;
    const char *input;       /* to its standard input, NULL: none */
    const char *box, *doing; /* the sandbox whose card shows it, and what as long as there is no progress; NULL: none */
    bool asks;               /* it changes nothing: who leaves the form wants no answer */
    bool lasts;              /* it may take long: the form closes once it is under way, and comes back if it fails (form_keep) */
    bool (*good)(const struct task_end *end); /* NULL: with status 0 */
    void (*progress)(struct app *a, double fraction, const char *text);
    /* It ended, whatever became of the form; that a form stays is no failure of somebody else's: what is wrong is said. */
    void (*ended)(struct app *a, const struct task_end *end, bool good, void *arg);
    bool (*worth)(struct app *a, void *arg); /* after it failed: is there still something to be put right?  NULL: yes */
};

/* For submit: its result. */
enum form_next form_run(struct pane *form, const struct form_run *run, char *why, size_t cap);
/* A form that comes back belongs to an action of the pane of sandboxes, and to one of them ("": to none). */
void form_keep(struct pane *form, const char *action, const char *of);
/* The one that was kept, to be pushed; NULL: none. */
struct pane *form_kept(const char *action, const char *of);
/* A line below the fields, made anew from the values with each change: what would happen. */
void form_preview(struct pane *p, void (*preview)(const char *const *values, char *out, size_t cap, void *arg));

/* What its button says, as a key's note: "save", "run". */
void form_verb(const struct pane *p, char *out, size_t cap);

#endif
