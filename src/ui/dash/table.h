/* An overlay with a list of rows that a command of sbx gives as JSON: rules, secrets, settings. */
#ifndef SBX_UI_DASH_TABLE_H
#define SBX_UI_DASH_TABLE_H

#include <jansson.h>

#include "ui/dash/app.h"

struct table_pane;
struct task_end;

#define TABLE_COLUMNS 6
#define TABLE_CELL 300

struct table_row {
    char cell[TABLE_COLUMNS][TABLE_CELL];
    enum style style; /* of its first cell */
    json_t *data;     /* borrowed from the list */
};

struct table_class {
    const char *context; /* of the keymap */
    const char *title, *empty;
    const char *heads[TABLE_COLUMNS];
    int widths[TABLE_COLUMNS]; /* 0 ends; negative: takes what is left, at least so much */
    const char *const *argv;   /* of the command that lists */
    /* Makes rows of what it printed, in order; false: leave this one out. */
    json_t *(*list)(const json_t *printed); /* borrowed array or object; NULL: printed itself */
    bool (*row)(struct table_pane *t, const char *key, json_t *item, struct table_row *out);
    bool (*action)(struct table_pane *t, const char *what);
    /* A line above the list; may be NULL. */
    void (*head)(struct table_pane *t, const json_t *printed, char *out, size_t cap);
};

struct pane *table_pane_new(struct app *a, const struct table_class *class);
struct app *table_app(struct table_pane *t);
/* The row under the cursor, or NULL. */
const struct table_row *table_current(struct table_pane *t);
/* What the command that lists has printed; NULL: nothing yet. */
const json_t *table_printed(const struct table_pane *t);
/* Lists anew. */
void table_reload(struct table_pane *t);
/* Runs a command, says how it went, and lists anew. */
void table_run(struct table_pane *t, const char *const *argv, const char *good);
/* The same after a command that ran for a form (form_run); good NULL: what the command said.  t may be closed by now. */
void table_ran(struct table_pane *t, struct app *a, const struct task_end *end, bool worked, const char *good);
/* A switch that a row() may look at. */
bool table_flag(const struct table_pane *t);
void table_toggle(struct table_pane *t);

#endif
