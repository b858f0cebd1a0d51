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
#include "core/paths.h"

#define YEARS 10
#define RENEW_S (30 * 86400L)
#define SECURE_HEAP 16384
#define KEY_FILE_MAX 4096
#define SCALAR_LEN 32 /* of P-256 */

struct ca {
    EVP_PKEY *key;
    X509 *cert;
};

static char *part(const char *file, struct err *e)
{
    return path_in(PATH_DATA, e, "ca/%s", file);
}

char *ca_cert_path(struct err *e)
{
    return part("cert.pem", e);
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
        !X509_time_adj_ex(X509_getm_notAfter(x), YEARS * 365, 0, NULL) || !X509_set_pubkey(x, key) ||
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

static bool write_pem(const char *dir, const char *file, mode_t mode, EVP_PKEY *key, X509 *cert)
{
    char *path = NULL;
    int fd = -1;
    FILE *f = NULL;
    bool good = false;
    if (asprintf(&path, "%s/%s", dir, file) < 0)
        return false;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (f)
        good = (key ? PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) : PEM_write_X509(f, cert)) &&
               fflush(f) == 0 && fsync(fd) == 0;
    if (f)
        good = fclose(f) == 0 && good;
    else if (fd >= 0)
        close(fd);
    free(path);
    return good;
}

/* Both files are put in place at once and never written again, so a young certificate's date says enough: a broker
 * that intercepts nothing need not read certificates, which costs 2 MiB of memory. */
static bool is_young(const char *cert, const char *key)
{
    struct stat c, k;
    return cert && key && stat(cert, &c) == 0 && stat(key, &k) == 0 && c.st_size > 0 && k.st_size > 0 &&
           c.st_mtime > time(NULL) - (YEARS - 1) * 365 * 86400L;
}

static bool still_good(void)
{
    char *path = ca_cert_path(NULL), *key = part("key.pem", NULL);
    if (is_young(path, key)) {
        free(key);
        free(path);
        return true;
    }
    FILE *f = path ? fopen(path, "re") : NULL;
    X509 *x = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL;
    time_t soon = time(NULL) + RENEW_S;
    bool good = x && key && access(key, R_OK) == 0 && X509_cmp_time(X509_get0_notAfter(x), &soon) > 0;
    X509_free(x);
    if (f)
        fclose(f);
    free(key);
    free(path);
    return good;
}

int ca_ensure(struct err *e)
{
    if (still_good())
        return 0;
    char *dir = path_in(PATH_DATA, e, "ca"), *tmp = path_in(PATH_DATA, e, "ca.new"), *data = path_in(PATH_DATA, e, "%s", "");
    EVP_PKEY *key = NULL;
    X509 *cert = NULL;
    int lock = -1, rc = -1;
    if (!dir || !tmp || !data || path_mkdirs(data, 0700, e) < 0 || (lock = jsonfile_lock(dir, e)) < 0)
        goto out;
    if (still_good()) { /* another was faster */
        rc = 0;
        goto out;
    }
    path_remove_tree(tmp, NULL);
    key = EVP_EC_gen("P-256");
    cert = key ? own_cert(key) : NULL;
    if (!cert || path_mkdirs(tmp, 0700, e) < 0 || !write_pem(tmp, "key.pem", 0600, key, NULL) ||
        !write_pem(tmp, "cert.pem", 0644, NULL, cert)) {
        err_set(e, STATUS_FAILED, "cannot make the certificate authority of the sandboxes in %s", tmp);
        goto out;
    }
    path_remove_tree(dir, NULL); /* one that has run out */
    if (rename(tmp, dir) < 0) {
        err_errno(e, errno, "cannot make %s", dir);
        goto out;
    }
    rc = 0;
out:
    if (lock >= 0)
        close(lock);
    EVP_PKEY_free(key);
    X509_free(cert);
    free(data);
    free(tmp);
    free(dir);
    return rc;
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
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
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

static EVP_PKEY *read_key(const char *path, X509 *cert)
{
    unsigned char *scalar = read_scalar(path), point[CA_POINT_LEN];
    BIGNUM *n = BN_secure_new();
    OSSL_PARAM_BLD *b = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL), *check = NULL;
    EVP_PKEY *key = NULL;
    size_t len = 0;
    if (scalar && n && b && ctx && EVP_PKEY_get_octet_string_param(X509_get0_pubkey(cert), OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &len) == 1 &&
        BN_bin2bn(scalar, SCALAR_LEN, n) && OSSL_PARAM_BLD_push_utf8_string(b, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) &&
        OSSL_PARAM_BLD_push_octet_string(b, OSSL_PKEY_PARAM_PUB_KEY, point, len) && OSSL_PARAM_BLD_push_BN(b, OSSL_PKEY_PARAM_PRIV_KEY, n) &&
        (params = OSSL_PARAM_BLD_to_param(b)) && EVP_PKEY_fromdata_init(ctx) == 1 && EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_KEYPAIR, params) == 1)
        check = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    if (key && (!check || EVP_PKEY_pairwise_check(check) != 1)) { /* the certificate is another key's */
        EVP_PKEY_free(key);
        key = NULL;
    }
    EVP_PKEY_CTX_free(check);
    OSSL_PARAM_free(params);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_BLD_free(b);
    BN_clear_free(n);
    sodium_free(scalar);
    return key;
}

struct ca *ca_load(struct err *e)
{
    struct ca *c = calloc(1, sizeof *c);
    char *key = part("key.pem", e), *cert = ca_cert_path(e);
    FILE *cf = cert ? fopen(cert, "re") : NULL;
    if (c && cf) {
        c->cert = PEM_read_X509(cf, NULL, NULL, NULL);
        c->key = c->cert ? read_key(key, c->cert) : NULL;
    }
    if (!c || !c->key || !c->cert || X509_check_private_key(c->cert, c->key) != 1) {
        err_set(e, STATUS_FAILED, "the certificate authority of the sandboxes is unusable; remove %s and start again",
                key ? key : "its folder");
        ca_free(c);
        c = NULL;
    }
    if (cf)
        fclose(cf);
    free(cert);
    free(key);
    return c;
}

void ca_free(struct ca *c)
{
    if (!c)
        return;
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

size_t ca_issue(const struct ca *c, const char *name, const uint8_t point[CA_POINT_LEN], uint8_t out[CA_LEAF_MAX])
{
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
