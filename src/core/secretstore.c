#include "core/secretstore.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/secretkeyring.h"

#define KEY_LEN crypto_secretstream_xchacha20poly1305_KEYBYTES
#define WRAP_KEY_LEN crypto_secretbox_KEYBYTES
#define SECRETS_MAX 256u
#define PLAIN_MAX (4u * 1024u * 1024u)
#define KEYRING_SECONDS (12u * 3600u)
#define VERSION 2 /* 1: without an authority */
#define CLOCK_SLACK 60 /* seconds: clocks are corrected a little all the time */

/* Field names of a record; their order is that of `texts` and `numbers`. */
static const char *const text_names[] = {"service", "scope", "form", "value", "sentinel", "refresh", "command"};
static const char *const number_names[] = {"created", "updated", "expires", "command_ttl"};
#define TEXTS (sizeof text_names / sizeof *text_names)
#define NUMBERS (sizeof number_names / sizeof *number_names)

struct record {
    struct secret view;
    char *memory; /* guarded: all texts of it */
};

struct secretstore {
    unsigned char *key; /* guarded: the data key */
    struct record *v;
    size_t n;
    struct authority authority; /* its key is NULL if there is none */
    enum secret_lock lock;
    json_t *wrap, *bridge;
    int lock_fd;
    unsigned char *old_key; /* guarded: the data key before a new lock, until that is settled */
    json_t *old_wrap;       /* what a new lock replaced, until it is saved */
    bool new_file;          /* the key is in the file beside the key file */
};

/* ---- records ---- */

static const char **text_at(struct secret *s, size_t i)
{
    const char **all[TEXTS] = {&s->service, &s->scope, &s->form, &s->value, &s->sentinel, &s->refresh, &s->command};
    return all[i];
}

static int64_t *number_at(struct secret *s, size_t i)
{
    int64_t *all[NUMBERS] = {&s->created, &s->updated, &s->expires, &s->command_ttl};
    return all[i];
}

static bool record_copy(struct record *r, const struct secret *from)
{
    struct secret copy = *from;
    size_t need = 0;
    for (size_t i = 0; i < TEXTS; i++) {
        if (!*text_at(&copy, i))
            *text_at(&copy, i) = "";
        need += strlen(*text_at(&copy, i)) + 1;
    }
    char *at = r->memory = sodium_malloc(need);
    if (!at)
        return false;
    r->view = copy;
    for (size_t i = 0; i < TEXTS; i++) {
        size_t n = strlen(*text_at(&copy, i)) + 1;
        memcpy(at, *text_at(&copy, i), n);
        *text_at(&r->view, i) = at;
        at += n;
    }
    return true;
}

static int64_t number_of(const unsigned char *text, size_t n)
{
    char copy[24] = "";
    memcpy(copy, text, n < sizeof copy ? n : 0);
    return strtoll(copy, NULL, 10);
}

static void forget_authority(struct authority *a)
{
    sodium_free((unsigned char *)a->key);
    free((char *)a->certificate);
    *a = (struct authority){0};
}

/* Takes over nothing of what it cannot hold. */
static bool hold_authority(struct authority *a, const unsigned char *key, const char *certificate, size_t n, int64_t expires)
{
    unsigned char *k = sodium_malloc(AUTHORITY_KEY_LEN);
    char *text = strndup(certificate, n);
    if (!k || !text) {
        sodium_free(k);
        free(text);
        return false;
    }
    memcpy(k, key, AUTHORITY_KEY_LEN);
    forget_authority(a);
    *a = (struct authority){.key = k, .certificate = text, .expires = expires};
    return true;
}

static void put_u32(unsigned char *p, size_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static size_t get_u32(const unsigned char *p)
{
    return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

static unsigned char *put_field(unsigned char *p, const char *name, const void *value, size_t n)
{
    put_u32(p, strlen(name));
    memcpy(p + 4, name, strlen(name));
    p += 4 + strlen(name);
    put_u32(p, n);
    memcpy(p + 4, value, n);
    return p + 4 + n;
}

/* A list of records, and the authority's own; a record is a number of fields; a field a name and a text, each with its length
 * before it. */
static unsigned char *encode(const struct secretstore *s, size_t *len)
{
    size_t need = 4 + 4 + 3 * (8 + 12 + 24) + AUTHORITY_KEY_LEN + AUTHORITY_CERT_MAX;
    char number[24];
    for (size_t i = 0; i < s->n; i++) {
        need += 4 + NUMBERS * (8 + 12 + 24);
        for (size_t k = 0; k < TEXTS; k++)
            need += 8 + strlen(text_names[k]) + strlen(*text_at(&s->v[i].view, k));
    }
    unsigned char *out = sodium_malloc(need), *p = out;
    if (!out)
        return NULL;
    put_u32(p, s->n);
    p += 4;
    for (size_t i = 0; i < s->n; i++) {
        put_u32(p, TEXTS + NUMBERS);
        p += 4;
        for (size_t k = 0; k < TEXTS + NUMBERS; k++) {
            const char *name = k < TEXTS ? text_names[k] : number_names[k - TEXTS], *text = number;
            if (k < TEXTS)
                text = *text_at(&s->v[i].view, k);
            else
                snprintf(number, sizeof number, "%lld", (long long)*number_at(&s->v[i].view, k - TEXTS));
            p = put_field(p, name, text, strlen(text));
        }
    }
    const struct authority *a = secretstore_authority(s);
    put_u32(p, a ? 3 : 0);
    p += 4;
    if (a) {
        snprintf(number, sizeof number, "%lld", (long long)a->expires);
        p = put_field(p, "key", a->key, AUTHORITY_KEY_LEN);
        p = put_field(p, "certificate", a->certificate, strlen(a->certificate));
        p = put_field(p, "expires", number, strlen(number));
    }
    *len = (size_t)(p - out);
    return out;
}

static bool take(const unsigned char **p, size_t *left, const unsigned char **out, size_t *n)
{
    if (*left < 4)
        return false;
    *n = get_u32(*p);
    if (*n > *left - 4)
        return false;
    *out = *p + 4;
    *p += 4 + *n;
    *left -= 4 + *n;
    return true;
}

static bool decode_field(struct secret *s, char *texts[TEXTS], const unsigned char *name, size_t nn, const unsigned char *text, size_t tn)
{
    if (memchr(text, 0, tn))
        return false;
    for (size_t k = 0; k < TEXTS; k++)
        if (strlen(text_names[k]) == nn && memcmp(text_names[k], name, nn) == 0) {
            if (texts[k] || !(texts[k] = sodium_malloc(tn + 1)))
                return false;
            memcpy(texts[k], text, tn);
            texts[k][tn] = '\0';
            *text_at(s, k) = texts[k];
        }
    for (size_t k = 0; k < NUMBERS; k++)
        if (strlen(number_names[k]) == nn && memcmp(number_names[k], name, nn) == 0) {
            if (tn >= 24)
                return false;
            *number_at(s, k) = number_of(text, tn);
        }
    return true; /* a field that a later sbx added is none of ours */
}

static bool is_named(const char *field, const unsigned char *name, size_t n)
{
    return strlen(field) == n && memcmp(field, name, n) == 0;
}

/* All of it, or none. */
static bool decode_authority(struct secretstore *s, const unsigned char *p, size_t left)
{
    if (left < 4)
        return false;
    size_t fields = get_u32(p), ncert = 0;
    const unsigned char *key = NULL, *certificate = NULL;
    int64_t expires = 0;
    p += 4;
    left -= 4;
    if (fields == 0)
        return left == 0;
    for (size_t i = 0; i < fields; i++) {
        const unsigned char *name, *value;
        size_t nn, n;
        if (!take(&p, &left, &name, &nn) || !take(&p, &left, &value, &n))
            return false;
        if (is_named("key", name, nn) && n == AUTHORITY_KEY_LEN)
            key = value;
        else if (is_named("certificate", name, nn) && n > 0 && n <= AUTHORITY_CERT_MAX && !memchr(value, 0, n)) {
            certificate = value;
            ncert = n;
        } else if (is_named("expires", name, nn))
            expires = number_of(value, n);
    }
    return left == 0 && key && certificate && expires > 0 && hold_authority(&s->authority, key, (const char *)certificate, ncert, expires);
}

static bool decode(struct secretstore *s, const unsigned char *p, size_t left)
{
    if (left < 4)
        return false;
    size_t n = get_u32(p);
    p += 4;
    left -= 4;
    if (n > SECRETS_MAX)
        return false;
    s->v = calloc(n + 1, sizeof *s->v);
    if (!s->v)
        return false;
    for (size_t i = 0; i < n; i++) {
        struct secret view = {0};
        char *texts[TEXTS] = {0};
        if (left < 4)
            return false;
        size_t fields = get_u32(p);
        bool good = true;
        p += 4;
        left -= 4;
        for (size_t k = 0; good && k < fields; k++) {
            const unsigned char *name, *text;
            size_t nn, tn;
            good = take(&p, &left, &name, &nn) && take(&p, &left, &text, &tn) && decode_field(&view, texts, name, nn, text, tn);
        }
        good = good && record_copy(&s->v[s->n], &view);
        for (size_t k = 0; k < TEXTS; k++)
            sodium_free(texts[k]);
        if (!good)
            return false;
        s->n++;
        const struct secret *r = &s->v[s->n - 1].view;
        if (!r->service[0] || !r->sentinel[0])
            return false;
    }
    return left == 0 /* of version 1 */ || decode_authority(s, p, left);
}

/* ---- the data key ---- */

static char *store_path(const char *file, struct err *e)
{
    char *dir = path_in(PATH_DATA, e, "secrets"), *path = NULL;
    if (dir && path_mkdirs(dir, 0700, e) == 0)
        path = path_in(PATH_DATA, e, "secrets/%s", file);
    free(dir);
    return path;
}

static json_t *to_base64(const void *p, size_t n)
{
    size_t cap = sodium_base64_encoded_len(n, sodium_base64_VARIANT_ORIGINAL);
    char *text = malloc(cap);
    if (text)
        sodium_bin2base64(text, cap, p, n, sodium_base64_VARIANT_ORIGINAL);
    json_t *v = json_string(text ? text : "");
    free(text);
    return v;
}

static bool from_base64(const json_t *o, const char *key, void *out, size_t cap, size_t *n)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text && sodium_base642bin(out, cap, text, strlen(text), NULL, n, NULL, sodium_base64_VARIANT_ORIGINAL) == 0;
}

/* Exactly WRAP_KEY_LEN bytes of a regular file that nobody else can read. */
static int read_key_file(const char *path, unsigned char *key, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_errno(e, errno, "the key of the secret store, %s, cannot be read", path);
    int rc = -1;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        err_set(e, STATUS_FAILED, "the key of the secret store, %s, is not a regular file", path);
    else if (st.st_mode & 077)
        err_set(e, STATUS_FAILED, "the key of the secret store can be read by others: chmod 600 %s", path);
    else if (read(fd, key, WRAP_KEY_LEN) != (ssize_t)WRAP_KEY_LEN)
        err_set(e, STATUS_FAILED, "the key of the secret store, %s, is damaged: it has not %u bytes", path, (unsigned)WRAP_KEY_LEN);
    else
        rc = 0;
    close(fd);
    return rc;
}

static int systemd_key(unsigned char *key, struct err *e)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    char path[512];
    if (!dir || (size_t)snprintf(path, sizeof path, "%s/sbx-key", dir) >= sizeof path)
        return err_set(e, STATUS_FAILED, "the secret store is locked with a credential of systemd (sbx-key), and this process has none");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    unsigned char *raw = fd >= 0 ? sodium_malloc(4096) : NULL;
    ssize_t n = raw ? read(fd, raw, 4096) : -1;
    if (n > 0)
        crypto_generichash(key, WRAP_KEY_LEN, raw, (size_t)n, NULL, 0);
    sodium_free(raw);
    if (fd >= 0)
        close(fd);
    return n > 0 ? 0 : err_set(e, STATUS_FAILED, "the credential of systemd \"sbx-key\" cannot be read");
}

/* The user's keyring of the kernel keeps what a passphrase opened, so that a sandbox that starts need not ask again. */
static long keyring_call(int op, unsigned long a, unsigned long b, unsigned long c)
{
    return syscall(SYS_keyctl, op, a, b, c, 0);
}

static bool keyring_get(const char *name, unsigned char *key)
{
    long id = syscall(SYS_request_key, "user", name, NULL, 0);
    return id > 0 && keyring_call(11 /* KEYCTL_READ */, (unsigned long)id, (unsigned long)key, KEY_LEN) == (long)KEY_LEN;
}

static void keyring_put(const char *name, const unsigned char *key)
{
    long id = syscall(SYS_add_key, "user", name, key, (size_t)KEY_LEN, -4L /* KEY_SPEC_USER_KEYRING */);
    if (id > 0) {
        keyring_call(15 /* KEYCTL_SET_TIMEOUT */, (unsigned long)id, KEYRING_SECONDS, 0);
        keyring_call(5 /* KEYCTL_SETPERM */, (unsigned long)id, 0x3f0b0000UL, 0); /* possessor all; user view, read, search */
    }
}

/* By what the data key is known there: the store's own salt, so that another store's key is never taken. */
static void keyring_name(const json_t *wrap, char out[80])
{
    const char *salt = json_string_value(json_object_get(wrap, "salt"));
    if (!salt)
        salt = json_string_value(json_object_get(wrap, "id"));
    snprintf(out, 80, "sbx:%.64s", salt ? salt : "");
}

/* Another data key holds now: what knows the old one has no use of it. */
static void keyring_drop(const char *name)
{
    long id = syscall(SYS_request_key, "user", name, NULL, 0);
    if (id > 0)
        keyring_call(9 /* KEYCTL_UNLINK */, (unsigned long)id, (unsigned long)-4L /* KEY_SPEC_USER_KEYRING */, 0);
}

static int derive(const char *passphrase, const unsigned char *salt, json_int_t ops, json_int_t mem, unsigned char *key, struct err *e)
{
    if (ops < 1 || ops > 16 || mem < 8192 || mem > (json_int_t)1 << 31)
        return err_set(e, STATUS_FAILED, "the secret store is damaged: its Argon2id parameters are out of range");
    if (crypto_pwhash(key, WRAP_KEY_LEN, passphrase, strlen(passphrase), salt, (unsigned long long)ops, (size_t)mem,
                      crypto_pwhash_ALG_ARGON2ID13) != 0)
        return err_set(e, STATUS_FAILED, "there is not enough memory to check the passphrase");
    return 0;
}

static const char *const lock_names[] = {"keyfile", "passphrase", "systemd", "keyring"};

/* The wrapping key for an existing wrap. */
static int wrapping_key(const json_t *wrap, secretstore_ask_fn *ask, void *arg, unsigned char *key, struct err *e)
{
    const char *kind = json_string_value(json_object_get(wrap, "kind"));
    if (kind && strcmp(kind, "systemd") == 0)
        return systemd_key(key, e);
    if (kind && strcmp(kind, "keyring") == 0) {
        const char *id = json_string_value(json_object_get(wrap, "id"));
        return id ? secretkeyring_get(id, ask != NULL, key, WRAP_KEY_LEN, e) : err_set(e, STATUS_FAILED, "the secret store is damaged: its key has no id");
    }
    if (!kind || strcmp(kind, "passphrase") != 0)
        return err_set(e, STATUS_FAILED, "the secret store is locked in a way that this sbx does not know: a newer one made it");
    unsigned char salt[crypto_pwhash_SALTBYTES];
    size_t n = 0;
    if (!from_base64(wrap, "salt", salt, sizeof salt, &n) || n != sizeof salt)
        return err_set(e, STATUS_FAILED, "the secret store is damaged: its salt cannot be read");
    char *passphrase = sodium_malloc(1024);
    int rc = -1;
    if (!passphrase || !ask || !ask(passphrase, 1024, arg))
        err_set(e, STATUS_FAILED, "the secret store is locked with a passphrase; `sbx secret unlock` asks for it");
    else
        rc = derive(passphrase, salt, json_integer_value(json_object_get(wrap, "ops")), json_integer_value(json_object_get(wrap, "mem")),
                    key, e);
    sodium_free(passphrase);
    return rc;
}

/* What was opened once in this process stays open in it: a broker that reads the store again after a change is confined
 * by then, and asking a keyring would be its end.  The data key outlives a new lock. */
static bool sealed;
static struct {
    char name[80];
    unsigned char *key; /* guarded */
} opened;

static void remember(const char *name, const unsigned char *key)
{
    if (!opened.key && !(opened.key = sodium_malloc(KEY_LEN)))
        return;
    memcpy(opened.key, key, KEY_LEN);
    snprintf(opened.name, sizeof opened.name, "%s", name);
}

static bool recall(const char *name, unsigned char *key)
{
    if (!opened.key || strcmp(opened.name, name) != 0)
        return false;
    memcpy(key, opened.key, KEY_LEN);
    return true;
}

/* A box with a data key in it: under the wrapping key, or under the data key of before. */
struct box {
    unsigned char nonce[crypto_secretbox_NONCEBYTES], text[KEY_LEN + crypto_secretbox_MACBYTES];
};

static bool read_box(const json_t *o, struct box *b)
{
    size_t n = 0, m = 0;
    return from_base64(o, "nonce", b->nonce, sizeof b->nonce, &n) && n == sizeof b->nonce && from_base64(o, "box", b->text, sizeof b->text, &m) &&
           m == sizeof b->text;
}

static bool open_box(const struct box *b, const unsigned char *key, unsigned char *data_key)
{
    return crypto_secretbox_open_easy(data_key, b->text, sizeof b->text, b->nonce, key) == 0;
}

static json_t *make_box(const unsigned char *data_key, const unsigned char *key)
{
    struct box b;
    randombytes_buf(b.nonce, sizeof b.nonce);
    crypto_secretbox_easy(b.text, data_key, KEY_LEN, b.nonce, key);
    return json_pack("{s:o, s:o}", "nonce", to_base64(b.nonce, sizeof b.nonce), "box", to_base64(b.text, sizeof b.text));
}

/* Tells data keys apart without showing them. */
static void key_mark(const unsigned char *data_key, char out[33])
{
    unsigned char hash[16];
    crypto_generichash(hash, sizeof hash, data_key, KEY_LEN, (const unsigned char *)"sbx data key mark", 17);
    sodium_bin2hex(out, 33, hash, sizeof hash);
}

/* A new key file is put beside the old one, and in its place when the store that it opens is: whoever is interrupted, or
 * reads in between, finds the one or the other. */
static int open_with_file(struct secretstore *s, const struct box *b, unsigned char *key, struct err *e)
{
    struct err first = {0}, none = {0};
    for (int i = 0; i < 3; i++) {
        char *path = store_path(i == 1 ? "key.new" : "key", e);
        bool got = path && read_key_file(path, key, i ? &none : &first) == 0;
        free(path);
        if (got && open_box(b, key, s->key)) {
            s->new_file = i == 1;
            return 0;
        }
    }
    if (first.text[0])
        return err_set(e, STATUS_FAILED, "%s", first.text);
    return err_set(e, STATUS_FAILED, "the key does not open the secret store: it is another store's");
}

static int unwrap(struct secretstore *s, secretstore_ask_fn *ask, void *arg, struct err *e)
{
    struct box box;
    char name[80], mark[33];
    const char *kind = json_string_value(json_object_get(s->wrap, "kind")), *of = json_string_value(json_object_get(s->wrap, "of"));
    for (int i = 0; i < 4; i++)
        if (kind && strcmp(kind, lock_names[i]) == 0)
            s->lock = (enum secret_lock)i;
    if (!read_box(s->wrap, &box))
        return err_set(e, STATUS_FAILED, "the secret store is damaged: its key cannot be read");
    keyring_name(s->wrap, name);
    bool kept = s->lock == SECRET_LOCK_PASSPHRASE || s->lock == SECRET_LOCK_KEYRING;
    if (kept && sealed) {
        struct box bridge;
        if (opened.key) {
            memcpy(s->key, opened.key, KEY_LEN);
            key_mark(s->key, mark);
            if (!of || strcmp(of, mark) == 0)
                return 0;
            if (read_box(s->bridge, &bridge) && open_box(&bridge, opened.key, s->key)) {
                remember(name, s->key);
                return 0;
            }
        }
        return err_set(e, STATUS_FAILED, opened.key ? "the secret store got another lock since this sandbox was started; start it again"
                                                     : "the secret store is locked; open it with `sbx secret unlock`, and start this sandbox again");
    }
    if (kept && (recall(name, s->key) || keyring_get(name, s->key))) {
        remember(name, s->key);
        return 0;
    }
    unsigned char *key = sodium_malloc(WRAP_KEY_LEN);
    bool file = kind && s->lock == SECRET_LOCK_KEYFILE;
    int rc = !key ? -1 : file ? open_with_file(s, &box, key, e) : wrapping_key(s->wrap, ask, arg, key, e);
    if (rc == 0 && !file && !open_box(&box, key, s->key))
        rc = err_set(e, STATUS_FAILED, s->lock == SECRET_LOCK_PASSPHRASE ? "the passphrase of the secret store is wrong"
                                                                         : "the key does not open the secret store: it is another store's");
    sodium_free(key);
    if (rc == 0 && kept)
        keyring_put(name, s->key);
    if (rc == 0)
        remember(name, s->key);
    return rc;
}

/* With a data key of its own for each lock: what the old one opened is of no use for what is set from now on. */
int secretstore_relock(struct secretstore *s, enum secret_lock kind, const char *passphrase, struct err *e)
{
    unsigned char *key = sodium_malloc(WRAP_KEY_LEN), *fresh = sodium_malloc(KEY_LEN), salt[crypto_pwhash_SALTBYTES];
    char id[2 * sizeof salt + 1] = "", mark[33], name[80];
    const json_int_t ops = crypto_pwhash_OPSLIMIT_MODERATE, mem = crypto_pwhash_MEMLIMIT_MODERATE;
    json_t *wrap = NULL;
    int rc = -1;
    randombytes_buf(salt, sizeof salt);
    if (!key || !fresh) {
        err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
        goto out;
    }
    randombytes_buf(fresh, KEY_LEN);
    if (kind == SECRET_LOCK_PASSPHRASE) {
        if (!passphrase || strlen(passphrase) < 8)
            err_set(e, STATUS_USAGE, "a passphrase has at least 8 characters");
        else
            rc = derive(passphrase, salt, ops, mem, key, e);
    } else if (kind == SECRET_LOCK_SYSTEMD) {
        rc = systemd_key(key, e);
    } else if (kind == SECRET_LOCK_KEYRING) {
        randombytes_buf(key, WRAP_KEY_LEN);
        sodium_bin2hex(id, sizeof id, salt, sizeof salt);
        rc = secretkeyring_put(id, key, WRAP_KEY_LEN, e);
    } else {
        char *path = store_path("key.new", e);
        randombytes_buf(key, WRAP_KEY_LEN);
        rc = path ? file_replace(path, key, WRAP_KEY_LEN, 0600, e) : -1;
        free(path);
    }
    if (rc < 0)
        goto out;
    rc = -1;
    wrap = make_box(fresh, key);
    if (!wrap) {
        err_set(e, STATUS_FAILED, "out of memory");
        goto out;
    }
    key_mark(fresh, mark);
    json_object_set_new(wrap, "kind", json_string(lock_names[kind]));
    json_object_set_new(wrap, "of", json_string(mark));
    if (kind == SECRET_LOCK_PASSPHRASE) {
        json_object_set_new(wrap, "salt", to_base64(salt, sizeof salt));
        json_object_set_new(wrap, "ops", json_integer(ops));
        json_object_set_new(wrap, "mem", json_integer(mem));
    }
    if (kind == SECRET_LOCK_KEYRING)
        json_object_set_new(wrap, "id", json_string(id));
    keyring_name(wrap, name);
    if (kind == SECRET_LOCK_PASSPHRASE || kind == SECRET_LOCK_KEYRING)
        keyring_put(name, fresh);
    if (s->wrap && !s->old_key) { /* twice before it is saved: what is on the disk counts */
        s->old_key = s->key;
        s->old_wrap = json_incref(s->wrap);
        s->key = NULL;
    }
    sodium_free(s->key);
    s->key = fresh;
    fresh = NULL;
    json_decref(s->wrap);
    s->wrap = wrap;
    s->lock = kind;
    s->new_file = kind == SECRET_LOCK_KEYFILE;
    rc = 0;
out:
    sodium_free(key);
    sodium_free(fresh);
    return rc;
}

void secretstore_settle(struct secretstore *s)
{
    sodium_free(s->old_key);
    s->old_key = NULL;
}

/* The store is on the disk: now the key file takes its place, and what the old lock left goes. */
static void put_away(struct secretstore *s)
{
    const char *kind = json_string_value(json_object_get(s->old_wrap, "kind")), *id = json_string_value(json_object_get(s->old_wrap, "id"));
    char *key = store_path("key", NULL), *fresh = store_path("key.new", NULL), name[80];
    if (key && fresh && s->new_file && s->lock == SECRET_LOCK_KEYFILE && rename(fresh, key) == 0)
        s->new_file = false;
    else if (fresh && s->lock == SECRET_LOCK_KEYFILE && !s->new_file)
        unlink(fresh); /* of a change that was not carried out */
    if (key && fresh && s->old_wrap && s->lock != SECRET_LOCK_KEYFILE) {
        unlink(key);
        unlink(fresh);
    }
    if (s->old_wrap) {
        keyring_name(s->old_wrap, name);
        if (name[sizeof "sbx:" - 1])
            keyring_drop(name);
        if (kind && id && strcmp(kind, lock_names[SECRET_LOCK_KEYRING]) == 0)
            secretkeyring_forget(id);
    }
    json_decref(s->old_wrap);
    s->old_wrap = NULL;
    free(key);
    free(fresh);
}

void secretstore_seal(void)
{
    sealed = true;
}

/* ---- the file ---- */

/* What is encrypted goes with the version of its form, so that none can be taken for another. */
static size_t bound_to(json_int_t version, char out[32])
{
    return (size_t)snprintf(out, 32, "sbx secrets %lld", (long long)version);
}

static int read_data(struct secretstore *s, const json_t *file, struct err *e)
{
    char bound[32];
    size_t nbound = bound_to(json_integer_value(json_object_get(file, "version")), bound);
    const char *text = json_string_value(json_object_get(file, "data"));
    size_t cap = text ? strlen(text) : 0, n = 0, overhead = crypto_secretstream_xchacha20poly1305_HEADERBYTES +
                                                          crypto_secretstream_xchacha20poly1305_ABYTES;
    unsigned char *data = cap ? malloc(cap) : NULL, *plain = NULL, tag = 0;
    unsigned long long len = 0;
    crypto_secretstream_xchacha20poly1305_state state;
    int rc = -1;
    if (data && from_base64(file, "data", data, cap, &n) && n >= overhead && n < PLAIN_MAX &&
        (plain = sodium_malloc(n - overhead + 1)) &&
        crypto_secretstream_xchacha20poly1305_init_pull(&state, data, s->key) == 0 &&
        crypto_secretstream_xchacha20poly1305_pull(&state, plain, &len, &tag, data + crypto_secretstream_xchacha20poly1305_HEADERBYTES,
                                                   n - crypto_secretstream_xchacha20poly1305_HEADERBYTES,
                                                   (const unsigned char *)bound, nbound) == 0 &&
        tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL && decode(s, plain, (size_t)len))
        rc = 0;
    else
        err_set(e, STATUS_FAILED, "the secret store is damaged, or was changed by something else; restore %s from a backup, or move it "
                "away and set the secrets anew", "secrets/store.json in sbx's data folder");
    sodium_memzero(&state, sizeof state);
    sodium_free(plain);
    free(data);
    return rc;
}

static int read_file(struct secretstore *s, secretstore_ask_fn *ask, void *arg, struct err *e)
{
    struct err why = {0};
    char *path = store_path("store.json", e);
    if (!path)
        return -1;
    json_t *file = jsonfile_read(path, &why);
    free(path);
    if (!file && why.status == STATUS_NOT_FOUND) {
        randombytes_buf(s->key, KEY_LEN);
        return 0;
    }
    int rc = -1;
    if (!file)
        err_set(e, STATUS_FAILED, "the secret store is damaged: %s", why.text);
    else if (json_integer_value(json_object_get(file, "version")) > VERSION)
        err_set(e, STATUS_FAILED, "the secret store is of version %lld: a newer sbx made it, and this one does not read it",
                (long long)json_integer_value(json_object_get(file, "version")));
    else if (json_integer_value(json_object_get(file, "version")) < 1 || !json_is_object(json_object_get(file, "wrap")))
        err_set(e, STATUS_FAILED, "the secret store is damaged: it has no version or no key");
    else {
        s->wrap = json_incref(json_object_get(file, "wrap"));
        s->bridge = json_incref(json_object_get(file, "bridge"));
        rc = unwrap(s, ask, arg, e) < 0 ? -1 : read_data(s, file, e);
    }
    json_decref(file);
    return rc;
}

struct secretstore *secretstore_open(secretstore_ask_fn *ask, void *arg, struct err *e)
{
    struct secretstore *s = sodium_init() >= 0 ? calloc(1, sizeof *s) : NULL;
    if (s)
        s->lock_fd = -1;
    if (!s || !(s->key = sodium_malloc(KEY_LEN)))
        err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
    else if (read_file(s, ask, arg, e) == 0)
        return s;
    secretstore_free(s);
    return NULL;
}

struct secretstore *secretstore_decode(const void *plain, size_t n, struct err *e)
{
    struct secretstore *s = calloc(1, sizeof *s);
    if (s)
        s->lock_fd = -1;
    if (s && decode(s, plain, n))
        return s;
    err_set(e, STATUS_FAILED, "the secret store is damaged");
    secretstore_free(s);
    return NULL;
}

struct secretstore *secretstore_begin(secretstore_ask_fn *ask, void *arg, struct err *e)
{
    char *path = store_path("store.json", e);
    int fd = path ? jsonfile_lock(path, e) : -1;
    free(path);
    if (fd < 0)
        return NULL;
    struct secretstore *s = secretstore_open(ask, arg, e);
    if (s)
        s->lock_fd = fd;
    else
        close(fd);
    return s;
}

void secretstore_free(struct secretstore *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        sodium_free(s->v[i].memory);
    free(s->v);
    forget_authority(&s->authority);
    sodium_free(s->key);
    sodium_free(s->old_key);
    json_decref(s->wrap);
    json_decref(s->bridge);
    json_decref(s->old_wrap);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    free(s);
}

int secretstore_save(struct secretstore *s, struct err *e)
{
    crypto_secretstream_xchacha20poly1305_state state;
    enum secret_lock best = getenv("CREDENTIALS_DIRECTORY") ? SECRET_LOCK_SYSTEMD : SECRET_LOCK_KEYFILE;
    /* Made for the authority alone: nobody asked for it, so it opens as well where there is no keyring (cron, ssh). */
    bool unasked = !s->wrap && s->n == 0 && s->authority.key;
    char bound[32];
    size_t nbound = bound_to(VERSION, bound);
    if (!s->wrap && !(!unasked && secretkeyring_available() && secretstore_relock(s, SECRET_LOCK_KEYRING, NULL, NULL) == 0) &&
        secretstore_relock(s, best, NULL, NULL) < 0 &&
        secretstore_relock(s, SECRET_LOCK_KEYFILE, NULL, e) < 0)
        return -1;
    if (unasked && s->lock == SECRET_LOCK_KEYFILE)
        json_object_set_new(s->wrap, "unasked", json_true());
    size_t len = 0;
    unsigned char *plain = encode(s, &len);
    unsigned char *data = plain ? malloc(len + 128) : NULL;
    if (!data) {
        sodium_free(plain);
        return err_set(e, STATUS_FAILED, "out of memory");
    }
    unsigned long long out = 0;
    crypto_secretstream_xchacha20poly1305_init_push(&state, data, s->key);
    crypto_secretstream_xchacha20poly1305_push(&state, data + crypto_secretstream_xchacha20poly1305_HEADERBYTES, &out, plain, len,
                                               (const unsigned char *)bound, nbound, crypto_secretstream_xchacha20poly1305_TAG_FINAL);
    sodium_memzero(&state, sizeof state);
    sodium_free(plain);
    json_t *file = json_pack("{s:i, s:O, s:o}", "version", VERSION, "wrap", s->wrap, "data",
                             to_base64(data, crypto_secretstream_xchacha20poly1305_HEADERBYTES + (size_t)out));
    free(data);
    /* A broker that runs has but the data key of before: it finds the new one, until all were told. */
    if (file && s->old_key)
        json_object_set_new(file, "bridge", make_box(s->key, s->old_key));
    char *path = file ? store_path("store.json", e) : NULL;
    int rc = path ? jsonfile_write(path, file, 0600, e) : -1;
    free(path);
    json_decref(file);
    if (rc == 0)
        put_away(s);
    return rc;
}

bool secretstore_first(struct secretstore *s)
{
    bool unasked = s->wrap && json_is_true(json_object_get(s->wrap, "unasked"));
    if (unasked)
        json_object_del(s->wrap, "unasked");
    return unasked && secretkeyring_available() && secretstore_relock(s, SECRET_LOCK_KEYRING, NULL, NULL) == 0;
}

/* ---- access ---- */

const struct authority *secretstore_authority(const struct secretstore *s)
{
    return s->authority.key ? &s->authority : NULL;
}

int secretstore_put_authority(struct secretstore *s, const struct authority *a, struct err *e)
{
    size_t n = strlen(a->certificate);
    if (n == 0 || n > AUTHORITY_CERT_MAX || a->expires <= 0)
        return err_set(e, STATUS_FAILED, "that is no certificate of an authority");
    if (!hold_authority(&s->authority, a->key, a->certificate, n, a->expires))
        return err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
    return 0;
}

size_t secretstore_count(const struct secretstore *s)
{
    return s->n;
}

const struct secret *secretstore_at(const struct secretstore *s, size_t i)
{
    return &s->v[i].view;
}

static const struct secret *exact(const struct secretstore *s, const char *service, const char *scope)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->v[i].view.service, service) == 0 && strcmp(s->v[i].view.scope, scope) == 0)
            return &s->v[i].view;
    return NULL;
}

const struct secret *secretstore_find(const struct secretstore *s, const char *service, const char *sandbox)
{
    const struct secret *own = sandbox && sandbox[0] ? exact(s, service, sandbox) : NULL;
    return own ? own : exact(s, service, "");
}

int64_t secret_renew_at(const struct secret *s)
{
    if (!s->expires || !(s->refresh[0] || s->command[0]))
        return 0;
    int64_t life = s->expires - s->updated;
    return s->expires - (life < 0 ? 0 : life < 240 ? life / 4 : 60);
}

bool secret_is_due(const struct secret *s, int64_t now)
{
    int64_t at = secret_renew_at(s);
    return at && (at - (s->expires - at) <= now || s->updated > now + CLOCK_SLACK);
}

int secretstore_put(struct secretstore *s, const struct secret *secret, struct err *e)
{
    struct record fresh = {0};
    if (s->n >= SECRETS_MAX)
        return err_set(e, STATUS_FAILED, "the secret store is full (%u secrets)", SECRETS_MAX);
    struct record *more = realloc(s->v, (s->n + 2) * sizeof *more);
    if (more)
        s->v = more;
    if (!more || !record_copy(&fresh, secret))
        return err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
    secretstore_remove(s, fresh.view.service, fresh.view.scope);
    s->v[s->n++] = fresh;
    return 0;
}

bool secretstore_remove(struct secretstore *s, const char *service, const char *scope)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->v[i].view.service, service) == 0 && strcmp(s->v[i].view.scope, scope) == 0) {
            sodium_free(s->v[i].memory);
            memmove(&s->v[i], &s->v[i + 1], (s->n - i - 1) * sizeof *s->v);
            s->n--;
            return true;
        }
    return false;
}

bool secretstore_exists(const struct secretstore *s)
{
    return s->wrap;
}

enum secret_lock secretstore_lock_kind(const struct secretstore *s)
{
    return s->lock;
}

const char *secretstore_lock_text(enum secret_lock kind)
{
    static const char *const texts[] = {
        "a key file of mode 0600 beside the store: it protects a copied store or a backup, not against programs that run as you or as root",
        "a passphrase (Argon2id): nobody opens the store without it; once given, the kernel's keyring keeps the key for 12 hours",
        "a credential of systemd: the key is given to the units that may have it",
        "a key in your keyring (Secret Service): a copied store or a backup is of no use without it; programs that run as you can ask for it "
        "while the keyring is open",
    };
    return texts[kind];
}
