/* core/secretstore and core/sentinel: what lies on the disk, what a damaged file does, what the guest holds instead. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>
#include <sodium.h>

#include "core/secretstore.h"
#include "core/sentinel.h"
#include "core/service.h"

static char dir[64], file[128], key[128];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/sbx-store-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/sbx/secrets/store.json", dir);
    snprintf(key, sizeof key, "%s/sbx/secrets/key", dir);
    setenv("XDG_DATA_HOME", dir, 1);
    unsetenv("CREDENTIALS_DIRECTORY");
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static void put(const char *service, const char *scope, const char *value, const char *sentinel)
{
    struct err e = {0};
    struct secretstore *s = secretstore_begin(NULL, NULL, &e);
    const struct secret r = {.service = service, .scope = scope, .form = "key", .value = value, .sentinel = sentinel, .refresh = "refresh-0123",
                             .created = 1, .updated = 2, .expires = 3, .command_ttl = 4};
    assert_non_null(s);
    assert_int_equal(secretstore_put(s, &r, &e), 0);
    assert_int_equal(secretstore_save(s, &e), 0);
    secretstore_free(s);
}

static size_t slurp(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, cap - 1, f);
    out[n] = '\0';
    fclose(f);
    return n;
}

static void spill(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void comes_back_as_it_was(void **state)
{
    struct err e = {0};
    char raw[8192];
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    put("openai", "mine", "sk-mine-0123456789", "sk-mine-9876543210");
    put("github", "", "ghp_0123456789", "ghp_9876543210");
    struct secretstore *s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    assert_int_equal(secretstore_count(s), 3);
    const struct secret *r = secretstore_find(s, "openai", "mine");
    assert_string_equal(r->value, "sk-mine-0123456789");
    assert_string_equal(r->refresh, "refresh-0123");
    assert_int_equal(r->created * 1000 + r->updated * 100 + r->expires * 10 + r->command_ttl, 1234);
    assert_string_equal(secretstore_find(s, "openai", "other")->value, "sk-global-0123456789");
    assert_string_equal(secretstore_find(s, "openai", "")->value, "sk-global-0123456789");
    assert_null(secretstore_find(s, "anthropic", "mine"));
    secretstore_free(s);
    slurp(file, raw, sizeof raw);
    assert_null(strstr(raw, "sk-"));
    assert_null(strstr(raw, "openai"));
    struct stat st;
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(key, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void opening_fails(const char *says)
{
    struct err e = {0};
    assert_null(secretstore_open(NULL, NULL, &e));
    if (!strstr(e.text, says))
        fail_msg("\"%s\" does not say \"%s\"", e.text, says);
}

/* Every byte of the file, changed: it opens as it was (white space), or not at all; never as something else. */
static void a_changed_byte_is_noticed(void **state)
{
    static char good[16384], bad[16384];
    struct err e = {0};
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    size_t n = slurp(file, good, sizeof good);
    for (size_t i = 0; i < n; i++) {
        memcpy(bad, good, n + 1);
        bad[i] = bad[i] == 'A' ? 'B' : 'A';
        spill(file, bad);
        e = (struct err){0};
        struct secretstore *s = secretstore_open(NULL, NULL, &e);
        if (s) {
            assert_int_equal(secretstore_count(s), 1);
            assert_string_equal(secretstore_at(s, 0)->value, "sk-global-0123456789");
        } else
            assert_true(e.text[0]);
        secretstore_free(s);
    }
    for (size_t i = 0; i < n; i += 7) {
        memcpy(bad, good, i);
        bad[i] = '\0';
        spill(file, bad);
        e = (struct err){0};
        struct secretstore *s = secretstore_open(NULL, NULL, &e);
        assert_true(!s && e.text[0]);
    }
}

static void each_trouble_has_its_sentence(void **state)
{
    static char good[16384], bad[16384];
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    slurp(file, good, sizeof good);
    json_t *o = json_loads(good, 0, NULL);
    json_object_set_new(o, "version", json_integer(3));
    char *text = json_dumps(o, 0);
    spill(file, text);
    free(text);
    json_decref(o);
    opening_fails("newer");
    spill(file, "{\"version\":1}");
    opening_fails("damaged");
    snprintf(bad, sizeof bad, "%.60s", good);
    spill(file, bad);
    opening_fails("damaged");
    spill(file, good);
    assert_int_equal(chmod(key, 0644), 0);
    opening_fails("chmod 600");
    assert_int_equal(chmod(key, 0600), 0);
    spill(key, "short");
    opening_fails("damaged");
    spill(key, "01234567890123456789012345678901");
    opening_fails("another store's");
    assert_int_equal(unlink(key), 0);
    opening_fails("cannot be read");
    assert_int_equal(symlink("/dev/zero", key), 0);
    opening_fails("cannot be read");
}

static bool tell(char *out, size_t cap, void *arg)
{
    snprintf(out, cap, "%s", (const char *)arg);
    return true;
}

/* A fresh salt, so that the kernel's keyring does not know the key (the box no longer opens with the passphrase, either). */
static void passphrase(void **state)
{
    static char good[16384];
    struct err e = {0};
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    struct secretstore *s = secretstore_begin(NULL, NULL, &e);
    assert_int_equal(secretstore_relock(s, SECRET_LOCK_PASSPHRASE, "correct horse", &e), 0);
    assert_int_equal(secretstore_save(s, &e), 0);
    assert_int_equal(secretstore_lock_kind(s), SECRET_LOCK_PASSPHRASE);
    secretstore_free(s);
    s = secretstore_open(tell, (void *)(uintptr_t)"correct horse", &e);
    assert_non_null(s);
    assert_string_equal(secretstore_at(s, 0)->value, "sk-global-0123456789");
    secretstore_free(s);
    slurp(file, good, sizeof good);
    json_t *o = json_loads(good, 0, NULL);
    json_object_set_new(json_object_get(o, "wrap"), "salt", json_string("AAAAAAAAAAAAAAAAAAAAAA=="));
    char *text = json_dumps(o, 0);
    spill(file, text);
    free(text);
    e = (struct err){0};
    assert_null(secretstore_open(tell, (void *)(uintptr_t)"correct horse", &e));
    assert_non_null(strstr(e.text, "passphrase"));
    e = (struct err){0};
    assert_null(secretstore_open(NULL, NULL, &e));
    assert_non_null(strstr(e.text, "sbx secret unlock"));
    /* Parameters that would eat the host are not tried. */
    json_object_set_new(json_object_get(o, "wrap"), "mem", json_integer(INT64_C(1) << 40));
    text = json_dumps(o, 0);
    spill(file, text);
    free(text);
    json_decref(o);
    e = (struct err){0};
    assert_null(secretstore_open(tell, (void *)(uintptr_t)"correct horse", &e));
    assert_non_null(strstr(e.text, "out of range"));
}

static void relock(enum secret_lock kind, const char *passphrase, bool settle)
{
    struct err e = {0};
    struct secretstore *s = secretstore_begin(tell, (void *)(uintptr_t)"correct horse", &e);
    assert_non_null(s);
    assert_int_equal(secretstore_relock(s, kind, passphrase, &e), 0);
    assert_int_equal(secretstore_save(s, &e), 0);
    if (settle) {
        secretstore_settle(s);
        assert_int_equal(secretstore_save(s, &e), 0);
    }
    secretstore_free(s);
}

/* Of a store: "wrap" or "data" of one in the place of another's. */
static void mix(const char *wrap_of, const char *data_of)
{
    json_t *w = json_loads(wrap_of, 0, NULL), *d = json_loads(data_of, 0, NULL);
    json_object_set(d, "wrap", json_object_get(w, "wrap"));
    char *text = json_dumps(d, 0);
    spill(file, text);
    free(text);
    json_decref(w);
    json_decref(d);
}

/* Who had a copy of the store and what opened it then opens nothing that was set after the lock was changed. */
static void another_lock_is_another_data_key(void **state)
{
    static char old[16384], new[16384], old_key[64], new_key[64];
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    slurp(file, old, sizeof old);
    slurp(key, old_key, sizeof old_key);
    relock(SECRET_LOCK_KEYFILE, NULL, true);
    slurp(file, new, sizeof new);
    slurp(key, new_key, sizeof new_key);
    assert_memory_not_equal(old_key, new_key, 32);
    assert_null(strstr(new, "bridge"));
    FILE *f = fopen(key, "w");
    fwrite(old_key, 1, 32, f);
    fclose(f);
    opening_fails("another store's");
    mix(old, new);
    opening_fails("damaged");
    f = fopen(key, "w");
    fwrite(new_key, 1, 32, f);
    fclose(f);
    spill(file, new);
    relock(SECRET_LOCK_PASSPHRASE, "correct horse", true);
    assert_int_equal(access(key, F_OK), -1); /* it would open old copies */
    slurp(file, old, sizeof old);
    relock(SECRET_LOCK_PASSPHRASE, "another horse", true);
    slurp(file, new, sizeof new);
    mix(old, new);
    struct err e = {0};
    assert_null(secretstore_open(tell, (void *)(uintptr_t)"correct horse", &e));
    spill(file, new);
    struct secretstore *s = secretstore_open(tell, (void *)(uintptr_t)"another horse", &e);
    assert_non_null(s);
    assert_string_equal(secretstore_at(s, 0)->value, "sk-global-0123456789");
    secretstore_free(s);
}

/* Two files change: after each step of that the store opens, and the next change of it clears up. */
static void an_interrupted_change_of_the_key_loses_nothing(void **state)
{
    static char old_key[64], fresh[160];
    struct err e = {0};
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    snprintf(fresh, sizeof fresh, "%s.new", key);
    slurp(key, old_key, sizeof old_key);
    spill(fresh, "01234567890123456789012345678901"); /* before the store was written */
    struct secretstore *s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    secretstore_free(s);
    relock(SECRET_LOCK_KEYFILE, NULL, true);
    assert_int_equal(access(fresh, F_OK), -1);
    assert_int_equal(rename(key, fresh), 0); /* after it */
    FILE *f = fopen(key, "w");
    fwrite(old_key, 1, 32, f);
    fclose(f);
    assert_int_equal(chmod(key, 0600), 0);
    assert_int_equal(chmod(fresh, 0600), 0);
    s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    assert_string_equal(secretstore_at(s, 0)->value, "sk-global-0123456789");
    secretstore_free(s);
    put("github", "", "ghp_0123456789", "ghp_9876543210");
    assert_int_equal(access(fresh, F_OK), -1);
    s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    assert_int_equal(secretstore_count(s), 2);
    secretstore_free(s);
}

/* A unit of systemd that has the key opens it, and nothing else does. */
static void a_credential_of_systemd(void **state)
{
    char credential[128];
    struct err e = {0};
    (void)state;
    setenv("CREDENTIALS_DIRECTORY", dir, 1);
    snprintf(credential, sizeof credential, "%s/sbx-key", dir);
    spill(credential, "what the unit was given");
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    struct secretstore *s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    assert_int_equal(secretstore_lock_kind(s), SECRET_LOCK_SYSTEMD);
    secretstore_free(s);
    assert_int_equal(access(key, F_OK), -1);
    spill(credential, "what another unit was given");
    opening_fails("another store's");
    assert_int_equal(unlink(credential), 0);
    opening_fails("cannot be read");
    unsetenv("CREDENTIALS_DIRECTORY");
    opening_fails("credential of systemd");
}

/* What an sbx before this one wrote, which did not mark its data keys. */
static void an_older_store(void **state)
{
    static char good[16384];
    struct err e = {0};
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    slurp(file, good, sizeof good);
    json_t *o = json_loads(good, 0, NULL);
    assert_int_equal(json_object_del(json_object_get(o, "wrap"), "of"), 0);
    char *text = json_dumps(o, 0);
    spill(file, text);
    free(text);
    json_decref(o);
    struct secretstore *s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    assert_string_equal(secretstore_at(s, 0)->value, "sk-global-0123456789");
    secretstore_free(s);
    relock(SECRET_LOCK_KEYFILE, NULL, true);
    slurp(file, good, sizeof good);
    assert_non_null(strstr(good, "\"of\""));
}

/* Of version 1, which had no authority's key: a copy of one that was written so. */
static void a_store_of_the_first_version(void **state)
{
    static const char was[] =
        "{\"version\": 1, \"wrap\": {\"nonce\": \"2RoqqoUWvJNMinsYQY8++4DgYTTipkpt\", "
        "\"box\": \"HH0mSq61YF9+fTBrwpaYj8XTNFH8Ev7K0hNs4Tq3RwDuHzCz5ltAOn+F8JzPqcr6\", \"kind\": \"keyfile\", "
        "\"of\": \"36eae38fe0a7c1f4d8580c20f99b5f4b\"}, \"data\": \"C+ZJJlzq0a6NkXc7QZoOyPPS+G9tAvh5XURf2pLJT/x/qKmj1mCplVrq8WSXSUK1hLZhusSrlfsrjf8Mrx5S1McDz"
        "uvdzzHRaevZBSSzguovGwis06ruBQds0CANm8kh6QmjYXwQxyfzShV1Xt5w0JClQ5TSAncJ3rIKbrJ7eJPiYXJVCCj/DzH25H1EeQUNwL088itXYi9vmcOWr34wAENv7Rif+hRwsjUFUUhkiOfxIM8"
        "0/kLtaRpfiDfAJ2vg+D6nzjHwogNmZtaUi2+8oqDkUlqQ5ulfyD56NuyYYeMMmMFaTtlsmJxogK9Iz92oD5dt8ysVEP03oTL/eTxSRWBviBRgVJS3w44Q+9CV/AebJNMF3XWHr5xQvJ7gvXhRbKRF"
        "pmI/ugYSfzI=\"}";
    static const char was_key[] = "3877409ecdacb72ef33fa15dc8a8da6b4af0887eeb87418f920da4366425a7a4";
    static char now[16384];
    unsigned char raw[32];
    struct err e = {0};
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210"); /* makes the folder, and a key of 0600 */
    spill(file, was);
    assert_int_equal(sodium_hex2bin(raw, sizeof raw, was_key, strlen(was_key), NULL, NULL, NULL), 0);
    FILE *f = fopen(key, "w");
    assert_int_equal(fwrite(raw, 1, sizeof raw, f), sizeof raw);
    fclose(f);
    struct secretstore *s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    assert_int_equal(secretstore_count(s), 1);
    assert_string_equal(secretstore_at(s, 0)->value, "sk-of-version-one-0123456789");
    assert_null(secretstore_authority(s));
    secretstore_free(s);
    /* What says that it is of another version than it is does not open. */
    json_t *o = json_loads(was, 0, NULL);
    json_object_set_new(o, "version", json_integer(2));
    char *text = json_dumps(o, 0);
    spill(file, text);
    opening_fails("damaged");
    free(text);
    json_decref(o);
    spill(file, was);
    put("github", "", "ghp_0123456789", "ghp_9876543210");
    slurp(file, now, sizeof now);
    assert_non_null(strstr(now, "\"version\": 2"));
    s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    assert_string_equal(secretstore_find(s, "openai", "")->value, "sk-of-version-one-0123456789");
    secretstore_free(s);
}

/* It goes with the secrets through every change, and is none of them. */
static void an_authority_is_no_secret(void **state)
{
    static char raw[16384];
    unsigned char number[AUTHORITY_KEY_LEN];
    char text[64];
    struct err e = {0};
    (void)state;
    for (size_t i = 0; i < sizeof number; i++)
        number[i] = (unsigned char)(i * 7); /* with a NUL in it */
    struct secretstore *s = secretstore_begin(NULL, NULL, &e);
    assert_non_null(s);
    assert_null(secretstore_authority(s));
    struct authority a = {.key = number, .certificate = "-----BEGIN CERTIFICATE-----\n", .expires = 2000000000};
    assert_int_equal(secretstore_put_authority(s, &a, &e), 0);
    assert_int_equal(secretstore_save(s, &e), 0);
    secretstore_free(s);
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    relock(SECRET_LOCK_KEYFILE, NULL, true);
    s = secretstore_begin(NULL, NULL, &e);
    assert_non_null(s);
    assert_int_equal(secretstore_count(s), 1);
    assert_true(secretstore_remove(s, "openai", ""));
    assert_false(secretstore_remove(s, "", ""));
    assert_int_equal(secretstore_save(s, &e), 0);
    secretstore_free(s);
    s = secretstore_open(NULL, NULL, &e);
    assert_non_null(s);
    assert_int_equal(secretstore_count(s), 0);
    assert_non_null(secretstore_authority(s));
    assert_memory_equal(secretstore_authority(s)->key, number, sizeof number);
    assert_string_equal(secretstore_authority(s)->certificate, a.certificate);
    assert_int_equal(secretstore_authority(s)->expires, a.expires);
    a.certificate = "";
    assert_int_equal(secretstore_put_authority(s, &a, &e), -1);
    secretstore_free(s);
    size_t n = slurp(file, raw, sizeof raw);
    sodium_bin2base64(text, sizeof text, number, 30, sodium_base64_VARIANT_ORIGINAL);
    assert_null(memmem(raw, n, text, 40));
    assert_null(strstr(raw, "BEGIN"));
}

/* No room for the whole of it: what there was stays, and nothing half stays behind. */
static void a_full_disk_loses_nothing(void **state)
{
    static char good[16384], now[16384];
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    slurp(file, good, sizeof good);
    pid_t pid = fork();
    if (pid == 0) {
        const struct rlimit little = {64, 64};
        const struct secret r = {.service = "github", .value = "ghp_0123456789", .sentinel = "ghp_9876543210"};
        struct err e = {0}, e2 = {0};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &little);
        struct secretstore *s = secretstore_begin(NULL, NULL, &e);
        int rc = s && secretstore_put(s, &r, &e) == 0 && secretstore_save(s, &e) < 0 && strstr(e.text, "cannot write") ? 0 : 1;
        rc |= secretstore_relock(s, SECRET_LOCK_KEYFILE, NULL, &e2) < 0 || secretstore_save(s, &e2) == 0; /* the key fits, the store does not */
        _exit(rc);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    slurp(file, now, sizeof now);
    assert_string_equal(now, good);
    put("groq", "", "gsk_0123456789", "gsk_9876543210");
    char left[300];
    snprintf(left, sizeof left, "ls %s/sbx/secrets | grep -vx -e key -e store.json -e store.json.lock", dir);
    assert_int_not_equal(system(left), 0);
}

/* A broker: confined, with the data key that it had at its start.  It says how many secrets it sees, or what hinders it. */
static pid_t broker(int in[2], int out[2])
{
    assert_int_equal(pipe(in) + pipe(out), 0);
    pid_t pid = fork();
    if (pid)
        return pid;
    char c;
    secretstore_free(secretstore_open(NULL, NULL, NULL));
    secretstore_seal();
    close(in[1]); /* whoever asks may be gone */
    while (read(in[0], &c, 1) == 1) {
        struct err e = {0};
        struct secretstore *s = secretstore_open(NULL, NULL, &e);
        c = s ? (char)('0' + secretstore_count(s)) : strstr(e.text, "start it again") ? '!' : '?';
        secretstore_free(s);
        if (write(out[1], &c, 1) != 1)
            break;
    }
    _exit(0);
}

static char asked(int in[2], int out[2])
{
    char c = 'a';
    assert_int_equal(write(in[1], &c, 1), 1);
    assert_int_equal(read(out[0], &c, 1), 1);
    return c;
}

static void who_runs_follows_a_new_lock(void **state)
{
    int in[2], out[2], late_in[2], late_out[2];
    (void)state;
    put("openai", "", "sk-global-0123456789", "sk-global-9876543210");
    pid_t one = broker(in, out), late = broker(late_in, late_out);
    assert_int_equal(asked(in, out), '1');
    assert_int_equal(asked(late_in, late_out), '1');
    relock(SECRET_LOCK_PASSPHRASE, "correct horse", false);
    assert_int_equal(asked(in, out), '1');
    struct err e = {0};
    struct secretstore *s = secretstore_begin(tell, (void *)(uintptr_t)"correct horse", &e); /* the next change takes the way away */
    assert_non_null(s);
    assert_int_equal(secretstore_save(s, &e), 0);
    secretstore_free(s);
    assert_int_equal(asked(in, out), '1');
    assert_int_equal(asked(late_in, late_out), '!'); /* it was not told in time */
    close(in[1]);
    close(late_in[1]);
    kill(one, SIGKILL);
    kill(late, SIGKILL);
    waitpid(one, NULL, 0);
    waitpid(late, NULL, 0);
}

/* ---- sentinels ---- */

static void threat_71_sentinels_are_unique_equal_in_length_and_never_nested(void **state)
{
    static const char *const values[] = {
        "sk-proj-Zq8+real/KEY_0123456789abcdefXYZ", "sk-ant-api03-Qx7R2bCzz90aabbaabb-AA", "ghp_realTOKEN0123456789abcdefABCDEF0123",
        "0123456789abcdef0123456789abcdef", "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY", "--------", "ABCDEFGH",
        "glpat-aaaaaaaaaaaaaaaaaaaa", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXdpdGgtMjAtYnl0ZXM"};
    enum { N = sizeof values / sizeof *values, EACH = 50 };
    static char *made[N * EACH];
    (void)state;
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < EACH; k++) {
            char *s = made[i * EACH + k] = sentinel_make(values[i], NULL);
            assert_non_null(s);
            assert_int_equal(strlen(s), strlen(values[i]));
            assert_string_not_equal(s, values[i]);
            assert_int_equal(service_check_value(s, NULL), 0);
        }
    for (size_t i = 0; i < N * EACH; i++)
        for (size_t k = 0; k < N * EACH; k++)
            if (i != k && strstr(made[i], made[k]))
                fail_msg("%s stands in %s", made[k], made[i]);
    for (size_t i = 0; i < N * EACH; i++)
        free(made[i]);
}

static void sentinels_look_like_the_key(void **state)
{
    (void)state;
    char *s = sentinel_make("sk-ant-api03-Qx7R2bCzz90aabbaabb-AA", "sk-ant-");
    assert_int_equal(strncmp(s, "sk-ant-api03-", 13), 0);
    assert_int_equal(s[strlen(s) - 3], '-');
    free(s);
    s = sentinel_make("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXdpdGgtMjAtYnl0ZXM", NULL);
    assert_int_equal(strncmp(s, "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0In0.", 40), 0);
    free(s);
    s = sentinel_make("ghp_realTOKEN0123456789abcdefABCDEF0123", "ghp_");
    assert_int_equal(strncmp(s, "ghp_", 4), 0);
    free(s);
}

static void threat_70_only_visible_characters_are_values(void **state)
{
    static const char *const bad[] = {"", "short", "with a space", "line\r\nX-Evil: 1", "tab\tinside", "caf\xc3\xa9-012345", "del\x7f-012345"};
    struct err e;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        e = (struct err){0};
        assert_int_not_equal(service_check_value(bad[i], &e), 0);
        assert_true(e.text[0]);
        if (bad[i][0])
            assert_null(strstr(e.text, bad[i]));
    }
    assert_int_equal(service_check_value("good-value-0123", &e), 0);
}

/* A minute before the end, sooner where life is short; never without a way to a new value. */
static void when_to_renew(void **state)
{
    static const struct {
        const char *refresh, *command;
        int64_t updated, expires, renew;
    } cases[] = {{"", "", 0, 5000, 0}, {"r", "", 0, 0, 0}, {"r", "", 1000, 5000, 4940}, {"", "c", 1000, 1240, 1180}, {"", "c", 1000, 1010, 1008},
                 {"r", "", 5000, 1000, 1000}, {"r", "", 1000, 1001, 1001}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct secret s = {.refresh = cases[i].refresh, .command = cases[i].command, .updated = cases[i].updated, .expires = cases[i].expires};
        assert_int_equal(secret_renew_at(&s), cases[i].renew);
    }
}

static void due_is_what_will_be_used_now(void **state)
{
    struct secret s = {.refresh = "r", .command = "", .updated = 1000, .expires = 5000};
    (void)state;
    assert_false(secret_is_due(&s, 4879));
    assert_true(secret_is_due(&s, 4880)); /* two minutes before the end */
    assert_true(secret_is_due(&s, 90000)); /* the host slept */
    assert_false(secret_is_due(&s, 945));
    assert_true(secret_is_due(&s, 900)); /* the clock was set back */
    s.refresh = "";
    assert_false(secret_is_due(&s, 90000)); /* and nothing renews it */
    assert_false(secret_is_due(&s, 900));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(when_to_renew), cmocka_unit_test(due_is_what_will_be_used_now),
        cmocka_unit_test_setup_teardown(comes_back_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(a_changed_byte_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(each_trouble_has_its_sentence, setup, teardown),
        cmocka_unit_test_setup_teardown(passphrase, setup, teardown),
        cmocka_unit_test_setup_teardown(another_lock_is_another_data_key, setup, teardown),
        cmocka_unit_test_setup_teardown(an_interrupted_change_of_the_key_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_credential_of_systemd, setup, teardown),
        cmocka_unit_test_setup_teardown(an_older_store, setup, teardown),
        cmocka_unit_test_setup_teardown(a_store_of_the_first_version, setup, teardown),
        cmocka_unit_test_setup_teardown(an_authority_is_no_secret, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(who_runs_follows_a_new_lock, setup, teardown),
        cmocka_unit_test(threat_71_sentinels_are_unique_equal_in_length_and_never_nested),
        cmocka_unit_test(sentinels_look_like_the_key),
        cmocka_unit_test(threat_70_only_visible_characters_are_values),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
