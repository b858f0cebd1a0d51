/* The command line: one table of commands, from which parsing, usage, help, completion and the man page come. */
#ifndef SBX_UI_CLI_CLI_H
#define SBX_UI_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/err.h"

#define SBX_VERSION "0.1.0"

struct option {
    char letter; /* 0: none */
    const char *name;
    const char *value; /* what its value is called; NULL: a flag */
    const char *help;
};

struct args {
    const struct command *command;
    const struct option **given; /* in the order given, with repetitions */
    const char **values;
    int ngiven;
    const char **words; /* what is no option */
    int nwords;
    const char **rest; /* what follows "--" */
    int nrest;
    bool has_rest;
};

struct command {
    const char *name, *synopsis, *summary;
    const char *help; /* further text; may be NULL */
    const struct option *options; /* ended by a NULL name; may be NULL */
    int min_words, max_words;     /* -1: any number */
    bool stop_at_word; /* options end at the n-th word (exec NAME CMD ...): everything behind is the command's own */
    int stop_after;    /* so many words are ours */
    /* The exit status, or -1 with the error set. */
    int (*run)(const struct args *a, struct err *e);
    const struct command *sub; /* sub-commands, ended by a NULL name */
    bool hidden;
};

extern const struct command cli_commands[];

/* Reads argv (the command's own words) by its table.  STATUS_USAGE and one sentence when it does not fit. */
int args_parse(struct args *a, const struct command *c, int argc, char **argv, struct err *e);
void args_finish(struct args *a);
/* Edits to make one of the other, at most 9 counted (Levenshtein). */
int args_distance(const char *a, const char *b);
bool args_has(const struct args *a, const char *name);
/* The last value of an option, or NULL. */
const char *args_value(const struct args *a, const char *name);
/* The i-th value of a repeated option, or NULL. */
const char *args_nth(const struct args *a, const char *name, int i);
/* A number in a range; fallback if the option is not given. -1 with a sentence if it is none. */
int args_number(const struct args *a, const char *name, long min, long max, long fallback, long *out, struct err *e);

/* The whole command line.  Returns the exit status. */
int cli_main(int argc, char **argv);

/* ---- output ---- */

bool out_colour(int fd);              /* a terminal, no NO_COLOR, no TERM=dumb */
void out_json(const json_t *value);   /* to standard output, one line end */
void out_json_line(const json_t *value); /* the same as one line */
/* A table: rows of texts, columns padded to the widest, headers in capitals; made printable. */
struct table;
struct table *table_new(int columns, const char *const *headers);
void table_row(struct table *t, const char *const *cells);
/* And frees it.  One without a row is no table: then `none`, a sentence on what there is not and how to come by one, goes
 * to standard error. */
void table_print(struct table *t, const char *none);
void out_error(const char *text);
/* What a command came to: prints the error of a negative status, and is the exit status. */
int out_status(int status, const struct err *e);
void out_notice(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* One question on the terminal, "no" unless answered with y; false without a terminal. */
bool ask_yes(const char *question);
/* "3.4 MiB", "2 h ago" into a static ring of buffers. */
const char *human_bytes(long long n);
const char *human_ago(long long seconds_since_epoch);

/* Progress on standard error: a bar on a terminal, plain lines of phases otherwise. */
void progress_show(double fraction /* <0: unknown */, const char *text);
void progress_done(void);
/* Does somebody look at every step, on a terminal or in the dashboard? */
bool progress_wanted(void);

#endif
