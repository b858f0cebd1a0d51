/* The form's own parts: form.c (fields, drawing, typing), form_work.c (the command that runs for it). */
#ifndef SBX_UI_DASH_FORM_INT_H
#define SBX_UI_DASH_FORM_INT_H

#include "ui/dash/app_int.h"
#include "ui/dash/edit.h"
#include "ui/dash/form.h"

#define FORM_KEY_MAX 100

struct form_work;

struct field {
    struct form_spec spec;
    char value[FORM_VALUE_MAX];
    size_t at, from; /* of the cursor, and of what is seen first, in bytes */
    char why[200];
    int y; /* where it was drawn */
};

/* What continues a path. */
struct offer {
    char name[256];
    bool folder;
};

struct form {
    struct pane pane;
    char title[80], button[40], why[400], says[400];
    struct field f[FORM_FIELDS_MAX];
    unsigned n, at; /* at == n: Cancel; n + 1: the button */
    bool typed;     /* into the field, since it has the focus */
    struct edit_cut cut;
    struct offer *offers; /* for the field with the focus */
    unsigned noffers, offered; /* offered: the first that is shown */
    size_t common;             /* what all of them begin with stands there already, so many bytes */
    int offers_y, offers_x, offers_room; /* where they were drawn */
    enum form_next (*submit)(struct pane *form, const char *const *values, char *why, size_t cap, void *arg);
    void (*preview)(const char *const *values, char *out, size_t cap, void *arg);
    void *arg;
    void (*drop)(void *arg);
    bool closed;
    int why_rows;           /* the most that what was wrong took: the form grows, and does not shrink */
    struct form_work *work; /* the command that runs for it; NULL: none */
    char key[FORM_KEY_MAX]; /* form_keep */
};

/* form.c */
void form_close(struct form *f);
/* It stays, and says why; with the focus on the field that this speaks of, if there is one. */
void form_fails(struct form *f, const char *why);

/* form_work.c */
/* The field whose value a sentence names; -1: none. */
int form_fault(const struct form *f, const char *sentence);
/* What it says while a command runs; false: nothing yet. */
bool form_work_says(const struct form *f, char *out, size_t cap);
/* The form is gone: what comes of its command is said elsewhere. */
void form_work_left(struct form_work *w);

#endif
