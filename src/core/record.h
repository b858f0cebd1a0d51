/* What a sandbox is: the record in sandboxes/NAME/sandbox.json, written when it is created. */
#ifndef SBX_CORE_RECORD_H
#define SBX_CORE_RECORD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

#define RECORD_NAME_MAX 48
#define RECORD_FOLDERS_MAX 16

struct record_folder {
    char *path; /* absolute, canonical (realpath) when it was recorded; the same in the guest */
    bool read_only;
};

struct record {
    char name[RECORD_NAME_MAX + 1];
    char *agent;    /* kit: "claude", "shell", ... */
    char *template; /* frozen disk that it is a child of, or NULL for the blank one */
    char *image;    /* base image id */
    struct record_folder folders[RECORD_FOLDERS_MAX]; /* the first is the workspace; may be none */
    unsigned nfolders;
    unsigned cpus;
    unsigned memory_mib;
    unsigned disk_mib;
    json_t *env;     /* object: variables for every session */
    json_t *publish; /* array of {"host": 8080, "guest": 3000} */
    json_t *extra;   /* object: what later versions keep here; preserved when rewritten */
    int64_t created; /* seconds since the epoch */
};

/* Letters, digits, '-', '_' and '.', first a letter or digit, at most RECORD_NAME_MAX: it is a folder and a
 * socket name, and a host name in the guest.  -1 with one sentence (STATUS_USAGE) that says what is wrong. */
int record_check_name(const char *name, struct err *e);

/* "<agent>-<last folder>" reduced to what a name may hold; not made unique.  folder may be NULL. */
void record_derive_name(char out[RECORD_NAME_MAX + 1], const char *agent, const char *folder);

void record_init(struct record *r);   /* all empty */
void record_finish(struct record *r); /* frees what it holds */

/* STATUS_NOT_FOUND if there is no such sandbox. */
int record_load(struct record *r, const char *name, struct err *e);
/* Makes the folder if needed and replaces the file. */
int record_save(const struct record *r, struct err *e);
/* Creates a new one, failing with STATUS_USAGE if the name is taken (decided by mkdir, so two creators
 * cannot both win). */
int record_create(const struct record *r, struct err *e);

/* Names of all sandboxes, sorted; *names is malloc'ed, each element too.  Count, or -1. */
int record_list(char ***names, struct err *e);
void record_list_free(char **names, int n);

/* Copies of strings into a record; -1 with err on no memory. */
int record_add_folder(struct record *r, const char *path, bool read_only, struct err *e);

json_t *record_to_json(const struct record *r);

#endif
