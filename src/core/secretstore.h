/* The store of secrets, and of the key of the sandboxes' certificate authority: one file,
 * $XDG_DATA_HOME/sbx/secrets/store.json, encrypted with one random data key
 * (libsodium's secretstream), which is wrapped by one of: a key in the user's keyring (the Secret Service of the session
 * bus), a passphrase (Argon2id), a key that systemd hands over ($CREDENTIALS_DIRECTORY/sbx-key), or a key file of mode
 * 0600 beside it.  A new store takes the keyring where one answers, else systemd's key, else the file; one that a sandbox's
 * start made, for the authority, leaves the keyring to the first secret (secretstore_first).
 *
 * What is decrypted lies in guarded memory (sodium_malloc) and is wiped.  The file is replaced whole, under a lock. */
#ifndef SBX_CORE_SECRETSTORE_H
#define SBX_CORE_SECRETSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

enum secret_lock { SECRET_LOCK_KEYFILE, SECRET_LOCK_PASSPHRASE, SECRET_LOCK_SYSTEMD, SECRET_LOCK_KEYRING };

/* One secret.  The texts point into guarded memory that the store owns; none is NULL. */
struct secret {
    const char *service;
    const char *scope;    /* sandbox; "" for all */
    const char *form;     /* of the service */
    const char *value;
    const char *sentinel; /* made when it was first set; stays when the value is renewed, so that the guest's stays good */
    const char *refresh;  /* token that gets a new value, or "" */
    const char *command;  /* that prints the value, or ""; then value is what it printed last */
    int64_t created, updated, expires; /* seconds since 1970; expires 0: not known */
    int64_t command_ttl;  /* seconds that what it printed is good for */
};

/* The certificate authority of the sandboxes (core/ca.h).  It is no secret of a service: no command lists, changes or removes
 * it, and nothing writes it into requests. */
#define AUTHORITY_KEY_LEN 32
#define AUTHORITY_CERT_MAX 4096
struct authority {
    const unsigned char *key; /* of AUTHORITY_KEY_LEN, in guarded memory */
    const char *certificate;  /* as it stands in ca/cert.pem */
    int64_t expires;
};

struct secretstore;

/* Asks for the passphrase (with one of these, the keyring may ask, too): fills out (guarded memory, NUL-terminated); false: there is none to be had. */
typedef bool secretstore_ask_fn(char *out, size_t cap, void *arg);

/* Opens it for reading; a store that does not exist is empty.  ask may be NULL.  Errors: a wrong or missing passphrase, a
 * missing key, a damaged file and one of a newer sbx each have their own sentence. */
struct secretstore *secretstore_open(secretstore_ask_fn *ask, void *arg, struct err *e);
void secretstore_free(struct secretstore *s);
/* What the file holds once it is decrypted, as a store that cannot be saved: for tests. */
struct secretstore *secretstore_decode(const void *plain, size_t n, struct err *e);

/* From now on no keyring and no passphrase is in reach: what this process opened so far is used. */
void secretstore_seal(void);

size_t secretstore_count(const struct secretstore *s);
const struct secret *secretstore_at(const struct secretstore *s, size_t i);
/* The one that holds for a sandbox: its own, else the global one; sandbox "" asks for the global one alone. */
const struct secret *secretstore_find(const struct secretstore *s, const char *service, const char *sandbox);

/* NULL: none was put in yet.  It lives until another is put in. */
const struct authority *secretstore_authority(const struct secretstore *s);

/* When it is to get a new value, some time before it expires: a quarter of its life, at most a minute.  0: it does not
 * expire, or there is no way to a new one. */
int64_t secret_renew_at(const struct secret *s);
/* Whether it is time, for one who is about to use it: that is as much before as that time is before its end.  And at once
 * if its value is of a time to come: the clock was set back, and none of its times can be told. */
bool secret_is_due(const struct secret *s, int64_t now);

/* Changes: between lock and save nobody else changes the store.  secretstore_begin opens it under the lock. */
struct secretstore *secretstore_begin(secretstore_ask_fn *ask, void *arg, struct err *e);
/* Adds, or replaces the one of the same service and scope.  Texts are copied; NULL counts as "". */
int secretstore_put(struct secretstore *s, const struct secret *secret, struct err *e);
bool secretstore_remove(struct secretstore *s, const char *service, const char *scope);
int secretstore_put_authority(struct secretstore *s, const struct authority *a, struct err *e); /* copied */
int secretstore_save(struct secretstore *s, struct err *e);
/* Before a secret of the user's goes into a store that was made without him: it takes the keyring, where one answers.  Whether
 * it did; then, as after secretstore_relock: save, tell, settle, save. */
bool secretstore_first(struct secretstore *s);

/* Whether there is a file of it. */
bool secretstore_exists(const struct secretstore *s);
/* How the data key is protected, and a sentence on what that is worth. */
enum secret_lock secretstore_lock_kind(const struct secretstore *s);
const char *secretstore_lock_text(enum secret_lock kind);
/* Another lock, and another data key, so that an old copy of the store with its passphrase or key opens nothing that comes
 * after; passphrase for SECRET_LOCK_PASSPHRASE.  Then save: brokers that run find the new data key under the old one, and
 * read it when they are told; then settle and save once more, which takes that away. */
int secretstore_relock(struct secretstore *s, enum secret_lock kind, const char *passphrase, struct err *e);
void secretstore_settle(struct secretstore *s);

#endif
