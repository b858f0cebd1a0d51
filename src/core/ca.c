#include "core/ca.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/log.h"
#include "core/paths.h"

#define SECURE_HEAP 16384
#define KEY_FILE_MAX 4096
#define SCALAR_LEN AUTHORITY_KEY_LEN /* of P-256 */

struct ca {
    unsigned char *scalar; /* guarded; NULL once the key was made of it */
    char *certificate;
    EVP_PKEY *key;
    X509 *cert;
};

static char *part(const char *file, struct err *e)
{
    return path_in(PATH_DATA, e, "ca/%s", file);
}

static char *cert_path(struct err *e)
{
    return part("cert.pem", e);
}

static int lost(const char *what, struct err *e)
{
    char *dir = path_in(PATH_DATA, NULL, "ca");
    err_set(e, STATUS_FAILED, "%s; remove the folder %s and start the sandbox again: a new one is made", what, dir ? dir : "ca of sbx's data");
    free(dir);
    return -1;
}

char *ca_certificate(struct err *e)
{
    char *path = cert_path(e), *text = path ? calloc(1, AUTHORITY_CERT_MAX + 1) : NULL;
    struct stat st;
    int fd = text ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    bool good = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= AUTHORITY_CERT_MAX &&
                read(fd, text, AUTHORITY_CERT_MAX) == (ssize_t)st.st_size;
    if (fd < 0 && text && errno == ENOENT) {
        good = true;
    } else if (!good) {
        if (path)
            lost("the certificate of the sandboxes' authority cannot be read", e);
        free(text);
        text = NULL;
    }
    if (fd >= 0)
        close(fd);
    free(path);
    return text;
}

static bool extend(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool good = ext && X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
    return good;
}

static bool number_it(X509 *x)
{
    unsigned char bytes[16];
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return false;
    bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive, and of full length (RFC 5280 4.1.2.2) */
    BIGNUM *n = BN_bin2bn(bytes, sizeof bytes, NULL);
    bool good = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
    BN_free(n);
    return good;
}

static bool name_it(X509_NAME *n, const char *cn)
{
    return X509_NAME_add_entry_by_txt(n, "O", MBSTRING_UTF8, (const unsigned char *)"sbx", -1, -1, 0) &&
           X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0);
}

static X509 *own_cert(EVP_PKEY *key)
{
    X509 *x = X509_new();
    unsigned char id[4];
    char cn[64];
    if (!x || RAND_bytes(id, sizeof id) != 1)
        goto fail;
    snprintf(cn, sizeof cn, "sbx sandboxes of this user %02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
    if (!X509_set_version(x, 2) || !number_it(x) || !X509_gmtime_adj(X509_getm_notBefore(x), -86400) ||
        !X509_time_adj_ex(X509_getm_notAfter(x), CA_YEARS * 365, 0, NULL) || !X509_set_pubkey(x, key) ||
        !name_it(X509_get_subject_name(x), cn) || !X509_set_issuer_name(x, X509_get_subject_name(x)) ||
        !extend(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
        !extend(x, x, NID_key_usage, "critical,keyCertSign,cRLSign") || !extend(x, x, NID_subject_key_identifier, "hash") ||
        !X509_sign(x, key, EVP_sha256()))
        goto fail;
    return x;
fail:
    X509_free(x);
    return NULL;
}

void ca_lock_memory(void)
{
    if (!CRYPTO_secure_malloc_initialized())
        CRYPTO_secure_malloc_init(SECURE_HEAP, 32);
}

/* OpenSSL's readers of PEM and DER leave copies in the heap: what they do is done here, in guarded memory, for the one kind
 * of key that we make (PKCS #8, RFC 5208, of an EC key, RFC 5915: version 1, then 32 bytes).  Guarded; NULL: it is none. */
static unsigned char *read_scalar(const char *path)
{
    static const char begin[] = "-----BEGIN PRIVATE KEY-----\n", end[] = "-----END";
    static const unsigned char mark[] = {0x02, 0x01, 0x01, 0x04, SCALAR_LEN};
    char *text = sodium_malloc(KEY_FILE_MAX + 1);
    unsigned char *der = sodium_malloc(KEY_FILE_MAX), *scalar = sodium_malloc(SCALAR_LEN), *at = NULL;
    size_t n = 0;
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    ssize_t len = fd >= 0 && text && der && scalar ? read(fd, text, KEY_FILE_MAX) : -1;
    if (fd >= 0)
        close(fd);
    if (len > 0) {
        text[len] = '\0';
        const char *from = strstr(text, begin), *to = from ? strstr(from, end) : NULL;
        from += from ? sizeof begin - 1 : 0;
        if (to && sodium_base642bin(der, KEY_FILE_MAX, from, (size_t)(to - from), "\n", &n, NULL, sodium_base64_VARIANT_ORIGINAL) == 0)
            at = memmem(der, n, mark, sizeof mark);
    }
    bool good = at && at + sizeof mark + SCALAR_LEN <= der + n;
    if (good)
        memcpy(scalar, at + sizeof mark, SCALAR_LEN);
    sodium_free(text);
    sodium_free(der);
    if (good)
        return scalar;
    sodium_free(scalar);
    return NULL;
}

static EVP_PKEY *make_key(const unsigned char *scalar, const unsigned char *point, size_t len)
{
    BIGNUM *n = BN_secure_new();
    OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL), *check = NULL;
    EVP_PKEY *key = NULL;
    if (n && b && ctx && BN_bin2bn(scalar, SCALAR_LEN, n) && OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) &&
        OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, len) && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_PRIV_KEY, n) &&
        (params = OSSL_PARAM_BLD_to_param(b)) && EVP_PKEY_fromdata_init(ctx) == 1 && EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params) == 1)
        check = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    if (key && (!check || EVP_PKEY_pairwise_check(check) != 1)) { /* the point is another key's */
        EVP_PKEY_free(key);
        key = NULL;
    }
    EVP_PKEY_CTX_free(check);
    OSSL_PARAM_free(params);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_BLD_free(b);
    BN_clear_free(n);
    return key;
}

static X509 *parse(const char *certificate)
{
    BIO *b = BIO_new_mem_buf(certificate, -1);
    X509 *x = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;
    BIO_free(b);
    return x;
}

/* NULL: it is not that certificate's. */
static EVP_PKEY *key_of(const unsigned char *scalar, X509 *cert)
{
    unsigned char point[CA_POINT_LEN];
    size_t len = 0;
    EVP_PKEY *public = cert ? X509_get0_pubkey(cert) : NULL;
    return public && EVP_PKEY_get_octet_string_param(public, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &len) == 1 ? make_key(scalar, point, len)
                                                                                                                      : NULL;
}

static int64_t end_of(const X509 *cert)
{
    struct tm t;
    return cert && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &t) == 1 ? (int64_t)timegm(&t) : 0;
}

/* ---- making one ---- */

static bool point_of(const unsigned char *scalar, unsigned char point[CA_POINT_LEN])
{
    EC_GROUP *g = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    EC_POINT *p = g ? EC_POINT_new(g) : NULL;
    BIGNUM *n = BN_secure_new();
    bool good = p && n && BN_bin2bn(scalar, SCALAR_LEN, n) && !BN_is_zero(n) && BN_cmp(n, EC_GROUP_get0_order(g)) < 0 &&
                EC_POINT_mul(g, p, n, NULL, NULL, NULL) == 1 &&
                EC_POINT_point2oct(g, p, POINT_CONVERSION_UNCOMPRESSED, point, CA_POINT_LEN, NULL) == CA_POINT_LEN;
    BN_clear_free(n);
    EC_POINT_free(p);
    EC_GROUP_free(g);
    return good;
}

static int publish(const char *certificate, struct err *e)
{
    char *dir = path_in(PATH_DATA, e, "ca"), *path = cert_path(e);
    int rc = dir && path && path_mkdirs(dir, 0700, e) == 0 ? file_replace(path, certificate, strlen(certificate), 0644, e) : -1;
    free(path);
    free(dir);
    return rc;
}

/* Into the store first: no certificate stands where guests look for it without its key being safe.  One whose key is lost goes
 * before, so that who is interrupted leaves none instead of it. */
static int make(struct secretstore *s, bool is_lost, struct err *e)
{
    unsigned char *scalar = sodium_malloc(SCALAR_LEN), point[CA_POINT_LEN];
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    BIO *b = BIO_new(BIO_s_mem());
    char *pem = NULL, *text = NULL, *path = cert_path(e);
    bool good = false;
    int rc = -1;
    for (int tries = 0; scalar && !good && tries < 4; tries++) { /* one that is not below the order comes once in 2^32 */
        randombytes_buf(scalar, SCALAR_LEN);
        good = point_of(scalar, point);
    }
    if (good && path && b && (key = make_key(scalar, point, sizeof point)) && (cert = own_cert(key)) && PEM_write_bio_X509(b, cert) == 1 &&
        BIO_write(b, "", 1) == 1 && BIO_get_mem_data(b, &pem) > 0)
        text = strdup(pem);
    const struct authority a = {.key = scalar, .certificate = text ? text : "", .expires = end_of(cert)};
    if (!text)
        err_set(e, STATUS_FAILED, "cannot make the certificate authority of the sandboxes");
    else if (is_lost && unlink(path) < 0)
        err_errno(e, errno, "cannot remove %s", path);
    else if (secretstore_put_authority(s, &a, e) == 0 && secretstore_save(s, e) == 0)
        rc = publish(text, e);
    free(path);
    free(text);
    BIO_free(b);
    X509_free(cert);
    EVP_PKEY_free(key);
    sodium_free(scalar);
    return rc;
}

/* ---- the key file of an sbx of before ---- */

/* What the disk keeps of a file that was removed is no key. */
static void remove_key_file(const char *path)
{
    static const char nothing[KEY_FILE_MAX];
    struct stat st;
    char *store = path_in(PATH_DATA, NULL, "secrets");
    int dir = store ? open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool safe = dir >= 0 && fsync(dir) == 0; /* also where the power fails now */
    if (dir >= 0)
        close(dir);
    free(store);
    if (!safe)
        return;
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool own = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1;
    if (own && st.st_size <= KEY_FILE_MAX && pwrite(fd, nothing, (size_t)st.st_size, 0) == (ssize_t)st.st_size)
        fsync(fd);
    if (fd >= 0)
        close(fd);
    if (unlink(path) == 0 && !own)
        log_line("the key of the certificate authority is in the secret store now; %s was a link: what it led to should go as well", path);
}

static int take_in(struct secretstore *s, const char *path, const char *certificate, struct err *e)
{
    unsigned char *scalar = read_scalar(path);
    X509 *cert = scalar ? parse(certificate) : NULL;
    EVP_PKEY *key = cert ? key_of(scalar, cert) : NULL;
    const struct authority a = {.key = scalar, .certificate = certificate, .expires = end_of(cert)};
    int rc = -1;
    if (!key)
        err_set(e, STATUS_FAILED, "the key of the sandboxes' certificate authority, %s, is damaged, or is not its certificate's; remove its folder and start the "
                "sandbox again: a new one is made", path);
    else if (secretstore_put_authority(s, &a, e) == 0)
        rc = secretstore_save(s, e);
    EVP_PKEY_free(key);
    X509_free(cert);
    sodium_free(scalar);
    return rc;
}

/* ---- what there is ---- */

struct found {
    char *certificate; /* "": none */
    char *key_file;    /* where one of before would lie */
    bool has_key_file;
};

static bool look(struct found *f, struct err *e)
{
    struct stat st;
    f->certificate = ca_certificate(e);
    f->key_file = f->certificate ? part("key.pem", e) : NULL;
    f->has_key_file = f->key_file && lstat(f->key_file, &st) == 0;
    return f->key_file;
}

static void found_finish(struct found *f)
{
    free(f->certificate);
    free(f->key_file);
}

static int fits(const struct authority *a, const char *certificate, struct err *e)
{
    if (!a)
        return lost("the secret store does not hold the key of the certificate authority that sandboxes trust (was it replaced?)", e);
    if (strcmp(a->certificate, certificate) != 0)
        return lost("the secret store holds the key of another certificate authority than sandboxes trust (was one of them replaced?)", e);
    if (a->expires <= time(NULL))
        return lost("the certificate authority of the sandboxes has run out", e);
    return 0;
}

static bool settled(const struct found *f, const struct authority *a, bool anew)
{
    return f->certificate[0] && !f->has_key_file && fits(a, f->certificate, NULL) == 0 && (!anew || a->expires > time(NULL) + CA_RENEW_S);
}

/* Under the store's lock.  After each step another start finds its way from what there is: a key is taken in before its file
 * goes, and a certificate is told of when its key is safe. */
static int settle(struct secretstore *s, bool anew, struct err *e)
{
    const struct authority *a = secretstore_authority(s);
    struct found f = {0};
    int rc = look(&f, e) ? 0 : -1;
    if (rc == 0 && f.certificate[0] && !a && f.has_key_file) {
        rc = take_in(s, f.key_file, f.certificate, e);
        a = secretstore_authority(s);
    }
    if (rc == 0 && anew && a && f.certificate[0] && a->expires > time(NULL) + CA_RENEW_S) {
        if (strcmp(a->certificate, f.certificate) != 0)
            rc = publish(a->certificate, e) < 0 ? -1 : 1;
    } else if (rc == 0 && (anew || !f.certificate[0])) {
        rc = make(s, f.certificate[0] && fits(a, f.certificate, NULL) < 0, e) < 0 ? -1 : f.certificate[0] ? 1 : 0;
    } else if (rc == 0) {
        rc = fits(a, f.certificate, e);
    }
    if (rc >= 0 && f.has_key_file)
        remove_key_file(f.key_file);
    found_finish(&f);
    return rc;
}

int ca_ensure(bool anew, secretstore_ask_fn *ask, void *arg, struct err *e)
{
    struct found f = {0};
    struct secretstore *s = secretstore_open(ask, arg, e);
    int rc = s && look(&f, e) ? 0 : -1;
    bool done = rc == 0 && settled(&f, secretstore_authority(s), anew);
    secretstore_free(s);
    found_finish(&f);
    if (rc < 0 || done)
        return rc;
    ca_lock_memory();
    s = secretstore_begin(ask, arg, e);
    rc = s ? settle(s, anew, e) : -1;
    secretstore_free(s);
    return rc;
}

int ca_check(struct err *e)
{
    struct found f = {0};
    struct secretstore *s = secretstore_open(NULL, NULL, e);
    const struct authority *a = s ? secretstore_authority(s) : NULL;
    int rc = s && look(&f, e) ? 0 : -1;
    if (rc == 0 && f.certificate[0] && (a || !f.has_key_file))
        rc = fits(a, f.certificate, e);
    secretstore_free(s);
    found_finish(&f);
    return rc;
}

struct ca *ca_load(const char *trusted, struct err *e)
{
    struct secretstore *s = secretstore_open(NULL, NULL, e);
    if (s && !trusted[0]) {
        err_set(e, STATUS_FAILED, "this sandbox was started without a certificate authority; start it again");
        secretstore_free(s);
        return NULL;
    }
    struct ca *c = s && fits(secretstore_authority(s), trusted, e) == 0 ? calloc(1, sizeof *c) : NULL;
    if (c) {
        c->scalar = sodium_malloc(SCALAR_LEN);
        c->certificate = strdup(trusted);
    }
    if (c && c->scalar && c->certificate) {
        memcpy(c->scalar, secretstore_authority(s)->key, SCALAR_LEN);
    } else if (c) {
        err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
        ca_free(c);
        c = NULL;
    }
    secretstore_free(s);
    return c;
}

/* Only when it is needed: certificates cost a process that intercepts nothing 2 MiB of memory. */
static bool ready(struct ca *c)
{
    if (!c->key && c->scalar) {
        c->cert = parse(c->certificate);
        c->key = key_of(c->scalar, c->cert);
        if (!c->key)
            log_line("the certificate authority in the secret store is damaged: its key is not its certificate's");
        sodium_free(c->scalar);
        c->scalar = NULL;
    }
    return c->key;
}
void ca_free(struct ca *c)
{
    if (!c)
        return;
    sodium_free(c->scalar);
    free(c->certificate);
    EVP_PKEY_free(c->key);
    X509_free(c->cert);
    free(c);
}

static EVP_PKEY *public_key(const uint8_t point[CA_POINT_LEN])
{
    OSSL_PARAM params[3] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)"prime256v1", 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, (void *)point, CA_POINT_LEN),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (!ctx || EVP_PKEY_fromdata_init(ctx) != 1 || EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    EVP_PKEY_CTX_free(ctx);
    return key;
}

size_t ca_issue(struct ca *c, const char *name, const uint8_t point[CA_POINT_LEN], uint8_t out[CA_LEAF_MAX])
{
    if (!ready(c))
        return 0;
    X509 *x = X509_new();
    EVP_PKEY *key = public_key(point);
    char san[300];
    size_t len = 0;
    if (!x || !key)
        goto out;
    snprintf(san, sizeof san, "%sDNS:%s", strlen(name) > 64 ? "critical," : "", name);
    if (!X509_set_version(x, 2) || !number_it(x) || !X509_gmtime_adj(X509_getm_notBefore(x), -86400) ||
        !X509_time_adj_ex(X509_getm_notAfter(x), CA_LEAF_DAYS, 0, NULL) || !X509_set_pubkey(x, key) ||
        !X509_set_issuer_name(x, X509_get_subject_name(c->cert)) ||
        (strlen(name) <= 64 && !X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8,
                                                            (const unsigned char *)name, -1, -1, 0)) ||
        !extend(x, c->cert, NID_basic_constraints, "critical,CA:FALSE") ||
        !extend(x, c->cert, NID_key_usage, "critical,digitalSignature") ||
        !extend(x, c->cert, NID_ext_key_usage, "serverAuth") || !extend(x, c->cert, NID_subject_alt_name, san) ||
        !extend(x, c->cert, NID_subject_key_identifier, "hash") ||
        !extend(x, c->cert, NID_authority_key_identifier, "keyid:always") || !X509_sign(x, c->key, EVP_sha256()))
        goto out;
    int n = i2d_X509(x, NULL);
    if (n > 0 && n <= CA_LEAF_MAX) {
        uint8_t *p = out;
        len = (size_t)i2d_X509(x, &p);
    }
out:
    EVP_PKEY_free(key);
    X509_free(x);
    return len;
}
