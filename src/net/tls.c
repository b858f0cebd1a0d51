#include "net/tls.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRUST_MAX (8u << 20)

#define READ_AHEAD (2u * 16500u) /* of a server, at once: two records */

struct leaf {
    char name[NAME_MAX_LEN + 1];
    X509 *cert;
    uint64_t used;
};

struct session {
    char name[NAME_MAX_LEN + 1];
    SSL_SESSION *session;
    uint64_t used;
};

struct tls {
    SSL_CTX *server, *client;
    EVP_PKEY *key;
    BIO_METHOD *method;
    uint8_t point[ASK_POINT_LEN];
    struct leaf leaves[TLS_LEAVES_MAX];
    struct session sessions[TLS_SESSIONS_MAX];
    uint64_t clock;
    bool trust;
};

/* ---- the transport as a BIO ---- */

static int bio_read(BIO *b, char *buf, int n)
{
    struct end *e = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    ssize_t got = e->ops->read(e->arg, buf, (size_t)n);
    if (got == END_AGAIN)
        BIO_set_retry_read(b);
    if (got == 0)
        e->eof = true;
    return got >= 0 ? (int)got : -1;
}

static int bio_write(BIO *b, const char *buf, int n)
{
    struct end *e = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    ssize_t put = e->ops->write(e->arg, buf, (size_t)n);
    if (put == END_AGAIN)
        BIO_set_retry_write(b);
    return put > 0 ? (int)put : -1;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    struct end *e = BIO_get_data(b);
    (void)num;
    (void)ptr;
    if (cmd == BIO_CTRL_EOF)
        return e && e->eof;
    return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_PUSH || cmd == BIO_CTRL_POP;
}

static int bio_create(BIO *b)
{
    BIO_set_init(b, 1);
    return 1;
}

/* ---- contexts ---- */

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                       unsigned in_len, void *arg)
{
    const char *want = SSL_get_app_data(ssl);
    (void)arg;
    size_t n = want ? strlen(want) : 0;
    for (unsigned i = 0; want && i < in_len; i += 1u + in[i])
        if (in[i] == n && i + 1 + n <= in_len && memcmp(in + i + 1, want, n) == 0) {
            *out = in + i + 1;
            *out_len = (unsigned char)n;
            return SSL_TLSEXT_ERR_OK;
        }
    return SSL_TLSEXT_ERR_NOACK;
}

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    struct session *s = &t->sessions[0];
    if (!name || !SSL_SESSION_is_resumable(session))
        return 0;
    for (size_t i = 0; i < TLS_SESSIONS_MAX; i++) {
        if (strcmp(t->sessions[i].name, name) == 0) {
            s = &t->sessions[i];
            break;
        }
        if (t->sessions[i].used < s->used)
            s = &t->sessions[i];
    }
    SSL_SESSION_free(s->session);
    snprintf(s->name, sizeof s->name, "%.*s", NAME_MAX_LEN, name);
    s->session = session;
    s->used = ++t->clock;
    return 1; /* ours now */
}

static bool make_key(struct tls *t)
{
    size_t len = 0;
    t->key = EVP_EC_gen("P-256");
    return t->key &&
           EVP_PKEY_get_octet_string_param(t->key, OSSL_PKEY_PARAM_PUB_KEY, t->point, sizeof t->point, &len) == 1 &&
           len == ASK_POINT_LEN && t->point[0] == 4;
}

static SSL_CTX *context(const SSL_METHOD *method)
{
    SSL_CTX *c = SSL_CTX_new(method);
    if (!c)
        return NULL;
    SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                               SSL_OP_CLEANSE_PLAINTEXT);
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return c;
}

struct tls *tls_new(void)
{
    OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sbx");
    t->server = context(TLS_server_method());
    t->client = context(TLS_client_method());
    if (!t->method || !t->server || !t->client || !make_key(t)) {
        tls_free(t);
        return NULL;
    }
    BIO_meth_set_read(t->method, bio_read);
    BIO_meth_set_write(t->method, bio_write);
    BIO_meth_set_ctrl(t->method, bio_ctrl);
    BIO_meth_set_create(t->method, bio_create);
    SSL_CTX_set_alpn_select_cb(t->server, select_alpn, NULL);
    /* A ticket would need a key that outlives the connection; the handshake is cheap. */
    SSL_CTX_set_session_cache_mode(t->server, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(t->server, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(t->server, 0);
    SSL_CTX_set_max_early_data(t->server, 0);
    SSL_CTX_set_verify(t->client, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(t->client, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(t->client, keep_session);
    SSL_CTX_set_app_data(t->client, t);
    SSL_CTX_set_read_ahead(t->client, 1);
    SSL_CTX_set_default_read_buffer_len(t->client, READ_AHEAD);
    return t;
}

void tls_free(struct tls *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < TLS_LEAVES_MAX; i++)
        X509_free(t->leaves[i].cert);
    for (size_t i = 0; i < TLS_SESSIONS_MAX; i++)
        SSL_SESSION_free(t->sessions[i].session);
    SSL_CTX_free(t->server);
    SSL_CTX_free(t->client);
    EVP_PKEY_free(t->key);
    BIO_meth_free(t->method);
    free(t);
}

const uint8_t *tls_point(const struct tls *t)
{
    return t->point;
}

void tls_trust(struct tls *t, int fd)
{
    X509_STORE *store = SSL_CTX_get_cert_store(t->client);
    char *text = malloc(TRUST_MAX);
    size_t len = 0;
    ssize_t n;
    while (text && len < TRUST_MAX && (n = read(fd, text + len, TRUST_MAX - len)) > 0)
        len += (size_t)n;
    close(fd);
    BIO *b = text ? BIO_new_mem_buf(text, (int)len) : NULL;
    X509 *x;
    while (b && (x = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
        X509_STORE_add_cert(store, x);
        X509_free(x);
    }
    ERR_clear_error();
    BIO_free(b);
    free(text);
    t->trust = true;
}

bool tls_has_trust(const struct tls *t)
{
    return t->trust;
}

static struct leaf *find_leaf(struct tls *t, const char *name)
{
    for (size_t i = 0; i < TLS_LEAVES_MAX; i++)
        if (t->leaves[i].cert && strcmp(t->leaves[i].name, name) == 0)
            return &t->leaves[i];
    return NULL;
}

bool tls_has_leaf(struct tls *t, const char *name)
{
    const struct leaf *l = find_leaf(t, name);
    return l && X509_cmp_current_time(X509_get0_notAfter(l->cert)) > 0;
}

bool tls_add_leaf(struct tls *t, const char *name, const uint8_t *der, size_t len)
{
    const uint8_t *p = der;
    X509 *x = d2i_X509(NULL, &p, (long)len);
    struct leaf *l = find_leaf(t, name);
    if (!x)
        return false;
    for (size_t i = 0; !l && i < TLS_LEAVES_MAX; i++)
        if (!t->leaves[i].cert)
            l = &t->leaves[i];
    for (size_t i = 0; !l || i < TLS_LEAVES_MAX; i++)
        if (!l || (l->cert && strcmp(l->name, name) != 0 && t->leaves[i].used < l->used))
            l = &t->leaves[i];
    X509_free(l->cert);
    snprintf(l->name, sizeof l->name, "%s", name);
    l->cert = x;
    l->used = ++t->clock;
    return true;
}

/* ---- ends ---- */

void end_init(struct end *e, const struct end_ops *ops, void *arg)
{
    *e = (struct end){.ops = ops, .arg = arg};
}

void end_finish(struct end *e)
{
    if (e->ssl)
        SSL_free(e->ssl);
    e->ssl = NULL;
}

static bool attach(struct end *e, struct tls *t, SSL_CTX *ctx)
{
    BIO *b = BIO_new(t->method);
    e->ssl = b ? SSL_new(ctx) : NULL;
    if (!e->ssl) {
        BIO_free(b);
        return false;
    }
    BIO_set_data(b, e);
    SSL_set_bio(e->ssl, b, b);
    return true;
}

bool end_serve(struct end *e, struct tls *t, const char *name, const char *alpn)
{
    struct leaf *l = find_leaf(t, name);
    if (!l || !attach(e, t, t->server))
        return false;
    l->used = ++t->clock;
    SSL_set_app_data(e->ssl, (char *)alpn);
    SSL_set_accept_state(e->ssl);
    return SSL_use_certificate(e->ssl, l->cert) == 1 && SSL_use_PrivateKey(e->ssl, t->key) == 1;
}

bool end_connect(struct end *e, struct tls *t, const char *name, const struct clienthello *hello)
{
    if (!attach(e, t, t->client))
        return false;
    SSL_set_connect_state(e->ssl);
    /* RFC 9525, section 2: a host is what the certificate names as one, never its subject's common name. */
    SSL_set_hostflags(e->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    for (size_t i = 0; i < TLS_SESSIONS_MAX; i++)
        if (t->sessions[i].session && strcmp(t->sessions[i].name, name) == 0) {
            t->sessions[i].used = ++t->clock;
            SSL_set_session(e->ssl, t->sessions[i].session);
        }
    return SSL_set1_host(e->ssl, name) == 1 && SSL_set_tlsext_host_name(e->ssl, name) == 1 &&
           (hello->alpn_len == 0 || SSL_set_alpn_protos(e->ssl, hello->alpn, (unsigned)hello->alpn_len) == 0);
}

int end_handshake(struct end *e)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(e->ssl);
    if (rc == 1)
        return 1;
    int why = SSL_get_error(e->ssl, rc);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return 0;
    e->failed = true;
    return -1;
}

const char *end_alpn(const struct end *e)
{
    const unsigned char *p;
    unsigned n;
    SSL_get0_alpn_selected(e->ssl, &p, &n);
    if (n == 2 && memcmp(p, "h2", 2) == 0)
        return "h2";
    return n == 8 && memcmp(p, "http/1.1", 8) == 0 ? "http/1.1" : NULL;
}

const char *end_why(const struct end *e)
{
    long verdict = e->ssl ? SSL_get_verify_result(e->ssl) : X509_V_OK;
    return verdict != X509_V_OK ? X509_verify_cert_error_string(verdict) : "the TLS handshake failed";
}

const char *end_alert(void)
{
    int reason = ERR_GET_REASON(ERR_peek_last_error()) - SSL_AD_REASON_OFFSET;
    return ERR_GET_LIB(ERR_peek_last_error()) == ERR_LIB_SSL && reason >= 0 && reason < 256 ? SSL_alert_desc_string_long(reason) : NULL;
}

static ssize_t failed(struct end *e, int rc, bool reading)
{
    int why = SSL_get_error(e->ssl, rc);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
        return END_AGAIN;
    if (reading && why == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (reading)
        e->failed = true;
    else
        e->deaf = true;
    return END_ERROR;
}

bool end_quiet(const struct end *e)
{
    if (e->failed || e->eof)
        return false;
    if (e->ssl && (SSL_has_pending(e->ssl) || SSL_in_init(e->ssl) || SSL_get_shutdown(e->ssl)))
        return false;
    return e->ops->empty(e->arg);
}

ssize_t end_read(struct end *e, void *buf, size_t n)
{
    size_t got;
    if (e->failed)
        return END_ERROR;
    if (!e->ssl)
        return e->ops->read(e->arg, buf, n);
    ERR_clear_error();
    int rc = SSL_read_ex(e->ssl, buf, n, &got);
    return rc == 1 ? (ssize_t)got : failed(e, rc, true);
}

ssize_t end_write(struct end *e, const void *buf, size_t n)
{
    size_t put;
    if (e->failed || e->deaf || e->shut)
        return END_ERROR;
    if (n == 0)
        return 0;
    if (!e->ssl)
        return e->ops->write(e->arg, buf, n);
    ERR_clear_error();
    int rc = SSL_write_ex(e->ssl, buf, n, &put);
    return rc == 1 ? (ssize_t)put : failed(e, rc, false);
}

void end_rest(struct end *e)
{
    if (e->ssl)
        SSL_free_buffers(e->ssl);
}

bool end_pending(const struct end *e)
{
    return e->ssl && SSL_pending(e->ssl) > 0;
}

void end_shutdown(struct end *e)
{
    if (e->shut)
        return;
    e->shut = true;
    if (e->ssl && !e->failed && !e->deaf) {
        ERR_clear_error();
        SSL_shutdown(e->ssl); /* the notice goes out if there is room; the end of the stream says it too */
    }
    e->ops->shutdown(e->arg);
}
