/* A command of sbx run as a child, with progress: what takes time never holds up the dashboard, and what the dashboard
 * does can be done by command as well, since it is done so. */
#ifndef SBX_UI_DASH_TASK_H
#define SBX_UI_DASH_TASK_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

struct app;
struct task;

struct task_end {
    int status;        /* exit status, 128 + signal */
    const char *out;   /* standard output, printable lines; cut at 1 MiB */
    size_t out_len;
    const char *error; /* the last line of standard error that was no progress, without "sbx: "; "" if none */
};

struct task_ops {
    void (*progress)(double fraction /* <0: unknown */, const char *text, void *arg);
    void (*done)(const struct task_end *end, void *arg);
};

/* Starts `sbx ARGV...` (argv[0] is the first word after sbx; NULL-terminated).  input (may be NULL) goes to its
 * standard input and is wiped after.  The child goes on if the dashboard ends. */
struct task *task_run(struct app *a, const char *const *argv, const char *input, size_t input_len,
                      const struct task_ops *ops, void *arg, struct err *e);
/* done is not called any more; the child goes on. */
void task_forget(struct task *t);
/* Ends the child (SIGTERM); done tells. */
void task_cancel(struct task *t);

/* A box to which something is done shows it on its card.  what: "start", shown until there is progress.  False: something is
 * done to it already, as why says. */
bool task_box_free(struct app *a, const char *box, char *why, size_t cap);
void task_box_begin(struct app *a, const char *box, struct task *t, const char *what);
void task_box_progress(struct app *a, const char *box, double fraction, const char *text);
void task_box_end(struct app *a, const char *box);

/* Does something to a box and says how it went: the row shows a spinner and the progress.  what: "start", shown as
 * "starting". then (may be NULL) is called after success with the box's name. */
void task_box(struct app *a, const char *box, const char *what, const char *const *argv,
              void (*then)(struct app *a, const char *box, const char *out));

#endif
