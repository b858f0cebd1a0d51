/* What the commands about secrets share. */
#ifndef SBX_UI_CLI_SECRET_H
#define SBX_UI_CLI_SECRET_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/secretstore.h"
#include "ui/cli/cli.h"

/* Guarded memory for a value: SECRET_INPUT_MAX bytes, wiped by sodium_free. */
#define SECRET_INPUT_MAX 16384u

/* A line without echo from the terminal into out; -1 if there is none. */
int secret_ask(const char *prompt, char *out, size_t cap, struct err *e);
/* For secretstore_open: the passphrase, from the terminal or the file that SBX_PASSPHRASE_FILE names. */
bool secret_passphrase(char *out, size_t cap, void *arg);
/* All of a descriptor, at most cap - 1 bytes, without the line end. */
int secret_read_fd(int fd, const char *what, char *out, size_t cap, struct err *e);
/* All of a file that is a regular one and no link. */
int secret_read_file(const char *path, char *out, size_t cap, struct err *e);
/* What a command prints, run by the user's shell; at the end of the time it is ended, and without a terminal all that it
 * started as well. */
#define SECRET_COMMAND_SECONDS 120
int secret_run(const char *command, int seconds, char *out, size_t cap, struct err *e);

/* Puts a value into the store: checked, with a sentinel (the one that is there stays, if it can). */
struct secret_value {
    const char *service, *scope, *form, *value, *refresh, *command;
    int64_t expires, ttl;
};
int secret_store(const struct secret_value *v, struct err *e);
/* Lets the sandboxes that run (scope: that one, or "" for all) take in a change of the store, and waits until they have. */
void secret_tell(const char *scope);
/* The secrets of a sandbox that is gone: the next one of that name must not inherit them.  Asks for nothing. */
void secret_forget_sandbox(const char *name);

/* libcurl for our own requests (threat 98): https alone, no .netrc, no proxy of the environment; net.map and net.ca count.
 * The answer's body goes to *out (malloc'ed, bounded, NUL-terminated).  The HTTP status, or -1. */
struct secret_http {
    const char *url, *post; /* post: NULL for GET */
    const char *headers[8]; /* "name: value", ended by NULL */
    const char *sigv4, *login; /* "aws:amz:REGION:SERVICE" and "ID:KEY", to sign it; or NULL */
};
long secret_http(const struct secret_http *r, char **out, size_t *len, struct err *e);

/* Makes the key of the sandboxes' authority if it is not in the store, or takes in the one of before; what a start that found the
 * store locked could not do. */
void secret_tend_authority(bool tell);

/* The sign-in of a service; puts the tokens into the store. */
int oauth_sign_in(const json_t *service, const char *scope, bool device, struct err *e);
/* A new access token by the refresh token of a secret; the store is changed by the caller. */
int oauth_refresh(const json_t *service, const char *refresh, char *value, char *new_refresh, size_t cap, int64_t *expires, struct err *e);

int cmd_secret_set(const struct args *a, struct err *e);
int cmd_secret_ls(const struct args *a, struct err *e);
int cmd_secret_rm(const struct args *a, struct err *e);
int cmd_secret_rotate(const struct args *a, struct err *e);
int cmd_secret_test(const struct args *a, struct err *e);
int cmd_secret_import(const struct args *a, struct err *e);
int cmd_secret_services(const struct args *a, struct err *e);
int cmd_secret_lock(const struct args *a, struct err *e);
int cmd_secret_unlock(const struct args *a, struct err *e);
int cmd_secret_take(const struct args *a, struct err *e);
int cmd_secret_renew(const struct args *a, struct err *e);

#endif
