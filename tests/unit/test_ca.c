/* core/ca: the authority's key is in the secret store and nowhere else, whoever is killed, locked out or first.
 *
 * What changes the disk is interposed, so that a process can be killed after each such call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/ca.h"
#include "core/secretstore.h"

/* ---- the disk ---- */

static int calls, killed_at;

static void step(void)
{
    if (killed_at && ++calls == killed_at)
        kill(getpid(), SIGKILL);
}

#define STEPPED(type, name, params, args) \
    type name params; \
    type name params \
    { \
        type(*real) params; \
        void *found = dlsym(RTLD_NEXT, #name); \
        memcpy(&real, &found, sizeof real); \
        type r = real args; \
        if (r >= 0) \
            step(); \
        return r; \
    }
STEPPED(int, rename, (const char *a, const char *b), (a, b))
STEPPED(int, unlink, (const char *a), (a))
STEPPED(int, fsync, (int fd), (fd))
STEPPED(int, mkdir, (const char *a, mode_t m), (a, m))
STEPPED(int, mkostemp, (char *a, int f), (a, f))
STEPPED(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at))

static char dir[64], cert_file[128], key_file[128], store_file[128];
static char old_cert[AUTHORITY_CERT_MAX + 1];
static unsigned char old_key[AUTHORITY_KEY_LEN];

static int setup(void **state)
{
    (void)state;
    strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sbx-ca-XXXXXX" : "/tmp/sbx-ca-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(cert_file, sizeof cert_file, "%s/sbx/ca/cert.pem", dir);
    snprintf(key_file, sizeof key_file, "%s/sbx/ca/key.pem", dir);
    snprintf(store_file, sizeof store_file, "%s/sbx/secrets/store.json", dir);
    setenv("XDG_DATA_HOME", dir, 1);
    unsetenv("CREDENTIALS_DIRECTORY");
    setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent", 1);
    return 0;
}

static void remove_all(const char *what)
{
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s%s'", dir, what);
    assert_int_equal(system(command), 0);
}

static int teardown(void **state)
{
    (void)state;
    remove_all("");
    return 0;
}

static size_t slurp(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(out, 1, cap - 1, f) : 0;
    out[n] = '\0';
    if (f)
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

/* As an sbx of before made it: both files, and no store. */
static void as_before(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BIGNUM *n = NULL;
    char folder[128];
    remove_all("/sbx");
    snprintf(folder, sizeof folder, "%s/sbx", dir);
    assert_int_equal(mkdir(folder, 0700), 0);
    snprintf(folder, sizeof folder, "%s/sbx/ca", dir);
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_non_null(key);
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -86400);
    X509_time_adj_ex(X509_getm_notAfter(x), 3650, 0, NULL);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (const unsigned char *)"of before", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
    X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
    assert_true(X509_sign(x, key, EVP_sha256()));
    FILE *f = fopen(cert_file, "w");
    PEM_write_X509(f, x);
    fclose(f);
    f = fopen(key_file, "w");
    fchmod(fileno(f), 0600);
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    assert_int_equal(EVP_PKEY_get_bn_param(key, "priv", &n), 1);
    BN_bn2binpad(n, old_key, sizeof old_key);
    BN_clear_free(n);
    X509_free(x);
    EVP_PKEY_free(key);
    slurp(cert_file, old_cert, sizeof old_cert);
}

/* In a process of its own: what one opened once stays open in it. */
static int in_child(int (*f)(void), int at)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        calls = 0;
        killed_at = at;
        _exit(f());
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static struct err why;

static int keep(void) /* as a broker does it */
{
    return ca_ensure(false, NULL, NULL, &why) < 0 ? 50 : 0;
}

static int renew(void) /* as who tells guests of it */
{
    int rc = ca_ensure(true, NULL, NULL, &why);
    return rc < 0 ? 50 : rc;
}

/* Its key signs for its certificate, and stands on the disk in no form that can be read. */
static int is_whole(void)
{
    uint8_t point[CA_POINT_LEN], der[CA_LEAF_MAX];
    static char data[1 << 20];
    struct err e = {0};
    size_t n = 0;
    char *trusted = ca_certificate(&e);
    struct ca *c = trusted ? ca_load(trusted, &e) : NULL;
    if (!c) {
        fprintf(stderr, "%s\n", e.text);
        return 40;
    }
    EVP_PKEY *leaf_key = EVP_EC_gen("P-256");
    EVP_PKEY_get_octet_string_param(leaf_key, "pub", point, sizeof point, &n);
    size_t len = ca_issue(c, "a.example", point, der);
    const uint8_t *p = der;
    X509 *leaf = len ? d2i_X509(NULL, &p, (long)len) : NULL;
    BIO *b = BIO_new_mem_buf(trusted, -1);
    X509 *own = PEM_read_bio_X509(b, NULL, NULL, NULL);
    if (!leaf || !own || X509_verify(leaf, X509_get0_pubkey(own)) != 1)
        return 41;
    X509_free(own);
    BIO_free(b);
    X509_free(leaf);
    EVP_PKEY_free(leaf_key);
    ca_free(c);
    free(trusted);
    struct secretstore *s = secretstore_open(NULL, NULL, &e);
    const struct authority *a = s ? secretstore_authority(s) : NULL;
    if (!a || secretstore_count(s) || access(key_file, F_OK) == 0)
        return 42;
    char scalar_text[64];
    sodium_bin2base64(scalar_text, sizeof scalar_text, a->key, 30, sodium_base64_VARIANT_ORIGINAL);
    static const char *const folders[] = {"", "/ca", "/secrets"};
    for (size_t i = 0; i < 3; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/sbx%s", dir, folders[i]);
        DIR *d = opendir(path);
        for (struct dirent *x; d && (x = readdir(d));) {
            snprintf(path, sizeof path, "%s/sbx%s/%.200s", dir, folders[i], x->d_name);
            size_t got = x->d_type == DT_REG ? slurp(path, data, sizeof data) : 0;
            if (memmem(data, got, "PRIVATE", 7) || memmem(data, got, a->key, AUTHORITY_KEY_LEN) || memmem(data, got, scalar_text, 40))
                return 43;
        }
        closedir(d);
    }
    secretstore_free(s);
    return 0;
}

static bool certificate_is_old(void)
{
    char now[AUTHORITY_CERT_MAX + 1];
    slurp(cert_file, now, sizeof now);
    return strcmp(now, old_cert) == 0;
}

static int has_old_key(void)
{
    struct secretstore *s = secretstore_open(NULL, NULL, NULL);
    const struct authority *a = s ? secretstore_authority(s) : NULL;
    return a && memcmp(a->key, old_key, sizeof old_key) == 0 && strcmp(a->certificate, old_cert) == 0 ? 0 : 44;
}

/* ---- tests ---- */

static void the_first_use_makes_it(void **state)
{
    struct stat st;
    (void)state;
    for (int anew = 0; anew < 2; anew++) {
        remove_all("/sbx");
        assert_int_equal(in_child(anew ? renew : keep, 0), 0);
        assert_int_equal(in_child(is_whole, 0), 0);
        slurp(cert_file, old_cert, sizeof old_cert);
        assert_int_equal(in_child(renew, 0), 0);
        assert_int_equal(in_child(keep, 0), 0);
        assert_true(certificate_is_old());
        assert_int_equal(stat(store_file, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(stat(cert_file, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0644);
    }
    /* In this process, where leaks are looked for. */
    remove_all("/sbx");
    assert_int_equal(renew() + is_whole(), 0);
    as_before();
    assert_int_equal(keep() + is_whole(), 0);
}

static void the_key_of_before_is_taken_in(void **state)
{
    struct stat was, is;
    (void)state;
    for (int anew = 0; anew < 2; anew++) {
        as_before();
        assert_int_equal(stat(cert_file, &was), 0);
        assert_int_equal(in_child(anew ? renew : keep, 0), 0);
        assert_int_equal(in_child(is_whole, 0), 0);
        assert_int_equal(in_child(has_old_key, 0), 0);
        /* What guests trust is the same file still: nothing has to be told anew. */
        assert_int_equal(stat(cert_file, &is), 0);
        assert_int_equal(is.st_ino, was.st_ino);
        assert_int_equal(is.st_mtim.tv_nsec, was.st_mtim.tv_nsec);
    }
}

static void nothing(void)
{
}

static void none_yet(void)
{
    remove_all("/sbx");
}

static void half_taken_in(void)
{
    char pem[2048];
    as_before();
    slurp(key_file, pem, sizeof pem);
    assert_int_equal(in_child(keep, 0), 0);
    spill(key_file, pem);
}

static int shorten(void)
{
    struct secretstore *s = secretstore_begin(NULL, NULL, NULL);
    struct authority a = *secretstore_authority(s);
    a.expires = time(NULL) + 5 * 86400;
    unsigned char key[AUTHORITY_KEY_LEN];
    memcpy(key, a.key, sizeof key);
    char *certificate = strdup(a.certificate);
    a.key = key;
    a.certificate = certificate;
    return secretstore_put_authority(s, &a, NULL) == 0 && secretstore_save(s, NULL) == 0 ? 0 : 1;
}

static void runs_out(void)
{
    as_before();
    assert_int_equal(in_child(keep, 0), 0);
    assert_int_equal(in_child(shorten, 0), 0);
}

static void store_is_gone(void)
{
    as_before();
    assert_int_equal(in_child(keep, 0), 0);
    remove_all("/sbx/secrets");
}

static void certificate_is_gone(void)
{
    as_before();
    assert_int_equal(in_child(keep, 0), 0);
    remove_all("/sbx/ca");
}

/* Killed after each change of the disk: the next start has an authority, and the one that guests trust if there was
 * a key of it. */
static void who_is_killed_loses_nothing(void **state)
{
    static const struct {
        void (*make)(void);
        bool anew, keeps;
    } cases[] = {{as_before, false, true}, {as_before, true, true}, {half_taken_in, false, true}, {none_yet, false, false},
                 {none_yet, true, false}, {runs_out, true, false}, {store_is_gone, true, false}, {certificate_is_gone, true, false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int at = 1, rc;
        for (rc = 128 + SIGKILL; rc == 128 + SIGKILL; at++) {
            cases[i].make();
            rc = in_child(cases[i].anew ? renew : keep, at);
            char pem[2048];
            bool in_file = slurp(key_file, pem, sizeof pem) && strstr(pem, "BEGIN PRIVATE KEY");
            if (cases[i].keeps && !in_file && in_child(has_old_key, 0) != 0)
                fail_msg("case %zu, killed at %d: the key is lost", i, at);
            rc = rc == 128 + SIGKILL || rc < 2 ? rc : -1;
            assert_int_not_equal(rc, -1);
            int next = in_child(cases[i].anew ? renew : keep, 0);
            if (next > 1 || (next == 1 && cases[i].keeps) || in_child(is_whole, 0) != 0)
                fail_msg("case %zu, killed at %d: the next start says %d, \"%s\"", i, at, next, why.text);
            if (cases[i].keeps && (!certificate_is_old() || in_child(has_old_key, 0) != 0))
                fail_msg("case %zu, killed at %d: another authority", i, at);
        }
        assert_true(at > 4);
    }
}

static void who_are_at_once_agree(void **state)
{
    static void (*const make[])(void) = {as_before, none_yet, half_taken_in, store_is_gone, certificate_is_gone, nothing};
    (void)state;
    for (size_t i = 0; i < sizeof make / sizeof *make; i++) {
        pid_t pids[8];
        make[i]();
        for (int k = 0; k < 8; k++)
            if ((pids[k] = fork()) == 0) {
                /* One of them that keeps what there is may find a store that was put away, and says so. */
                int rc = k % 2 && make[i] != store_is_gone ? keep() : renew();
                _exit(rc > 1);
            }
        for (int k = 0; k < 8; k++) {
            int status;
            assert_int_equal(waitpid(pids[k], &status, 0), pids[k]);
            assert_int_equal(status, 0);
        }
        assert_int_equal(in_child(is_whole, 0), 0);
        if (make[i] == as_before || make[i] == half_taken_in)
            assert_int_equal(in_child(has_old_key, 0), 0);
    }
}

static int on_a_full_disk(void)
{
    const struct rlimit little = {64, 64};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &little);
    struct err e = {0}, e2 = {0};
    return ca_ensure(true, NULL, NULL, &e) < 0 && strstr(e.text, "cannot write") && ca_ensure(false, NULL, NULL, &e2) < 0 ? 0 : 1;
}

static void a_full_disk_loses_nothing(void **state)
{
    (void)state;
    as_before();
    assert_int_equal(in_child(on_a_full_disk, 0), 0);
    assert_true(certificate_is_old());
    assert_int_equal(access(key_file, F_OK), 0);
    assert_int_equal(in_child(keep, 0), 0);
    assert_int_equal(in_child(has_old_key, 0), 0);
    assert_int_equal(in_child(is_whole, 0), 0);
}

static bool tell(char *out, size_t cap, void *arg)
{
    snprintf(out, cap, "%s", (const char *)arg);
    return true;
}

/* Where the kernel's keyring takes it, it knows the data key by the store's salt. */
static int lock_up(void)
{
    char text[16384], name[100];
    struct err e = {0};
    struct secretstore *s = secretstore_begin(NULL, NULL, &e);
    if (!s || secretstore_relock(s, SECRET_LOCK_PASSPHRASE, "correct horse", &e) < 0 || secretstore_save(s, &e) < 0)
        return 1;
    secretstore_free(s);
    slurp(store_file, text, sizeof text);
    json_t *o = json_loads(text, 0, NULL);
    snprintf(name, sizeof name, "sbx:%s", json_string_value(json_object_get(json_object_get(o, "wrap"), "salt")));
    long id = syscall(SYS_request_key, "user", name, NULL, 0);
    if (id > 0)
        syscall(SYS_keyctl, 9L /* KEYCTL_UNLINK */, id, -4L /* KEY_SPEC_USER_KEYRING */, 0, 0);
    json_decref(o);
    return 0;
}

static int is_locked_out(void)
{
    struct err e[4] = {{0}};
    bool failed = ca_ensure(false, NULL, NULL, &e[0]) < 0 && ca_ensure(true, NULL, NULL, &e[1]) < 0 && !ca_load(old_cert, &e[2]) &&
                  ca_ensure(true, tell, (void *)(uintptr_t)"wrong horse", &e[3]) < 0;
    for (int i = 0; i < 3; i++)
        failed = failed && strstr(e[i].text, "sbx secret unlock");
    return failed && strstr(e[3].text, "passphrase of the secret store is wrong") ? 0 : 1;
}

static int unlocks(void)
{
    return ca_ensure(false, tell, (void *)(uintptr_t)"correct horse", &why) == 0 && has_old_key() == 0 && is_whole() == 0 ? 0 : 1;
}

/* A store that is locked is left alone, and so is a key that waits for it; nobody is asked, and no other one is made. */
static void a_locked_store_waits(void **state)
{
    char before[16384], after[16384];
    (void)state;
    as_before();
    assert_int_equal(in_child(lock_up, 0), 0);
    slurp(store_file, before, sizeof before);
    assert_int_equal(in_child(is_locked_out, 0), 0);
    slurp(store_file, after, sizeof after);
    assert_string_equal(before, after);
    assert_true(certificate_is_old());
    assert_int_equal(access(key_file, F_OK), 0);
    assert_int_equal(in_child(unlocks, 0), 0);
    assert_int_equal(access(key_file, F_OK), -1);
    assert_int_equal(in_child(is_locked_out, 0) == 0 || in_child(keep, 0) == 0, 1); /* where the kernel keeps what was opened */
}

static void says(bool anew, const char *what)
{
    struct err e = {0};
    assert_int_equal(ca_ensure(anew, NULL, NULL, &e), -1);
    if (!strstr(e.text, what))
        fail_msg("\"%s\" does not say \"%s\"", e.text, what);
}

/* Another authority than the one that guests trust is never used in its place, and made only by who tells guests of it. */
static void each_trouble_has_its_sentence(void **state)
{
    struct err e = {0};
    char pem[2048];
    (void)state;
    store_is_gone();
    says(false, "does not hold the key of the certificate authority that sandboxes trust");
    assert_true(certificate_is_old());
    assert_null(ca_load(old_cert, &e));
    assert_non_null(strstr(e.text, "remove the folder"));
    assert_int_equal(in_child(renew, 0), 1);
    assert_false(certificate_is_old());
    assert_int_equal(in_child(is_whole, 0), 0);
    e = (struct err){0};
    assert_null(ca_load(old_cert, &e)); /* a broker that began before */
    assert_non_null(strstr(e.text, "another certificate authority"));
    assert_null(ca_load("", &e));
    assert_non_null(strstr(e.text, "start it again"));
    spill(cert_file, old_cert); /* of a backup */
    says(false, "another certificate authority");
    assert_int_equal(in_child(renew, 0), 1);
    assert_int_equal(in_child(is_whole, 0), 0);

    runs_out();
    assert_int_equal(in_child(keep, 0), 0);
    assert_true(certificate_is_old());
    assert_int_equal(in_child(renew, 0), 1);
    assert_false(certificate_is_old());

    as_before();
    slurp(key_file, pem, sizeof pem);
    pem[60] = pem[60] == 'A' ? 'B' : 'A';
    pem[100] = pem[100] == 'A' ? 'B' : 'A';
    spill(key_file, pem);
    says(false, "is damaged");
    says(true, "is damaged");
    assert_true(certificate_is_old());
    assert_int_equal(access(key_file, F_OK), 0);

    as_before();
    assert_int_equal(in_child(keep, 0), 0);
    spill(store_file, "{");
    says(false, "the secret store is damaged");
    says(true, "the secret store is damaged");
    assert_true(certificate_is_old());
    spill(store_file, "{\"version\":3}");
    says(true, "newer");
    assert_true(certificate_is_old());
    assert_int_equal(unlink(cert_file), 0);
    assert_int_equal(mkdir(cert_file, 0700), 0);
    assert_int_equal(unlink(store_file), 0);
    says(true, "cannot be read");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_use_makes_it, setup, teardown),
        cmocka_unit_test_setup_teardown(the_key_of_before_is_taken_in, setup, teardown),
        cmocka_unit_test_setup_teardown(who_is_killed_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(who_are_at_once_agree, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_locked_store_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(each_trouble_has_its_sentence, setup, teardown),
    };
    return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
