#include "net/sigv4.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCOPE_MAX 128

/* Text that grows up to a bound; an overflow is remembered. */
struct text {
    char *p;
    size_t len, cap;
    bool bad;
};

static void put(struct text *t, const char *s, size_t n)
{
    if (t->bad)
        return;
    if (t->len + n + 1 > t->cap) {
        size_t cap = (t->len + n + 1) * 2;
        char *more = realloc(t->p, cap);
        if (!more) {
            t->bad = true;
            return;
        }
        t->p = more;
        t->cap = cap;
    }
    memcpy(t->p + t->len, s, n);
    t->len += n;
    t->p[t->len] = '\0';
}

static void puts_text(struct text *t, const char *s)
{
    put(t, s, strlen(s));
}

static void hex(const unsigned char *in, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    out[2 * n] = '\0';
}

static void sha256_hex(const char *s, size_t n, char out[65])
{
    unsigned char md[32];
    unsigned len = 32;
    EVP_Digest(s, n, md, &len, EVP_sha256(), NULL);
    hex(md, 32, out);
}

static void hmac(const void *key, size_t key_len, const char *s, unsigned char out[32])
{
    unsigned len = 32;
    HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)s, strlen(s), out, &len);
}

/* "name=value" out of the guest's Authorization, up to a comma. */
static bool part(const char *auth, const char *name, char *out, size_t cap)
{
    const char *p = strstr(auth, name);
    if (!p)
        return false;
    p += strlen(name);
    size_t n = strcspn(p, ", ");
    if (n == 0 || n >= cap)
        return false;
    memcpy(out, p, n);
    out[n] = '\0';
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted parameters, each as it stands: the guest encoded them, or its own signature would not hold either. */
static void canonical_query(struct text *t, const char *query)
{
    char *copy = strdup(query), *save = NULL, **v = NULL;
    size_t n = 0;
    if (!copy) {
        t->bad = true;
        return;
    }
    v = calloc(strlen(query) / 2 + 2, sizeof *v);
    for (char *p = v ? strtok_r(copy, "&", &save) : NULL; p; p = strtok_r(NULL, "&", &save))
        v[n++] = p;
    t->bad |= !v;
    if (n)
        qsort(v, n, sizeof *v, by_text);
    for (size_t i = 0; i < n; i++) {
        if (i)
            puts_text(t, "&");
        puts_text(t, v[i]);
        if (!strchr(v[i], '='))
            puts_text(t, "=");
    }
    free(v);
    free(copy);
}

/* Trimmed, inner runs of spaces as one; several of a name are joined by commas. */
static void canonical_header(struct text *t, const char *name, const struct headers *h, const char *host)
{
    bool first = true;
    puts_text(t, name);
    puts_text(t, ":");
    if (strcmp(name, "host") == 0)
        puts_text(t, host);
    for (size_t i = 0; i < h->n && strcmp(name, "host") != 0; i++) {
        if (!header_is(&h->v[i], name))
            continue;
        if (!first)
            puts_text(t, ",");
        first = false;
        bool space = false, any = false;
        for (const char *p = h->v[i].value; *p; p++) {
            if (*p == ' ' || *p == '\t') {
                space = any;
                continue;
            }
            if (space)
                put(t, " ", 1);
            space = false;
            any = true;
            put(t, p, 1);
        }
    }
    puts_text(t, "\n");
}

static bool is_safe(const char *s)
{
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("-_.;/", *s))
            return false;
    return true;
}

void sigv4_hash(const void *content, size_t n, char out[SIGV4_HASH_LEN])
{
    sha256_hex(content, n, out);
}

bool sigv4_sign(const char *method, const char *host, const char *target, struct headers *h, const char *secret,
                const char *payload, const char **why)
{
    const struct header *auth = headers_get(h, "authorization"), *date = headers_get(h, "x-amz-date"),
                        *named = headers_get(h, "x-amz-content-sha256");
    char credential[512], signed_list[1024], id[256], scope[SCOPE_MAX], hash[65], signature[65];
    *why = "its AWS signature cannot be read";
    if (!auth || strncmp(auth->value, "AWS4-HMAC-SHA256 ", 17) != 0) {
        *why = "it bears no AWS Signature Version 4 (signed URLs and other kinds are not signed anew)";
        return false;
    }
    if (!part(auth->value, "Credential=", credential, sizeof credential) ||
        !part(auth->value, "SignedHeaders=", signed_list, sizeof signed_list) || !is_safe(signed_list) || !date ||
        date->value_len != 16)
        return false;
    if (!payload && !named) {
        *why = "its AWS signature covers the content, whose hash is not in the header x-amz-content-sha256";
        return false;
    }
    if (named && strncmp(named->value, "STREAMING-", 10) == 0) {
        *why = "its content is signed in chunks (STREAMING-…), which cannot be signed anew; turn chunked signing off";
        return false;
    }
    /* id/date/region/service/aws4_request */
    const char *slash = strchr(credential, '/');
    if (!slash || strlen(slash + 1) >= sizeof scope || !is_safe(slash + 1) || strncmp(slash + 1, date->value, 8) != 0)
        return false;
    snprintf(scope, sizeof scope, "%s", slash + 1);
    char day[9], region[64], service[64];
    if (sscanf(scope, "%8[0-9]/%63[a-z0-9-]/%63[a-z0-9-]/aws4_request", day, region, service) != 3)
        return false;
    const char *key = strchr(secret, ':');
    if (!key || (size_t)(key - secret) >= sizeof id) {
        *why = "the secret for AWS has not the form ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]";
        return false;
    }
    snprintf(id, sizeof id, "%.*s", (int)(key - secret), secret);
    key++;
    size_t key_len = strcspn(key, ":");
    const char *token = key[key_len] == ':' ? key + key_len + 1 : NULL;

    if (token && !headers_set(h, "x-amz-security-token", token))
        return false;
    struct text t = {0};
    puts_text(&t, method);
    puts_text(&t, "\n");
    const char *query = strchr(target, '?');
    size_t path_len = query ? (size_t)(query - target) : strlen(target);
    /* Each segment is encoded once more, but for S3. */
    if (strcmp(service, "s3") == 0)
        put(&t, target, path_len);
    else
        for (size_t i = 0; i < path_len; i++) {
            unsigned char c = (unsigned char)target[i];
            char one[4];
            if (isalnum(c) || strchr("-._~/", c))
                put(&t, target + i, 1);
            else {
                snprintf(one, sizeof one, "%%%02X", c);
                puts_text(&t, one);
            }
        }
    puts_text(&t, "\n");
    canonical_query(&t, query ? query + 1 : "");
    puts_text(&t, "\n");
    /* What it signed, with the token where there is one; names are sorted in the guest's list already. */
    char list[1200] = "", *save = NULL, *copy = strdup(signed_list);
    bool has_token = !token;
    if (!copy) {
        free(t.p);
        return false;
    }
    for (char *name = strtok_r(copy, ";", &save); name; name = strtok_r(NULL, ";", &save)) {
        if (strcmp(name, "x-amz-security-token") == 0) {
            if (!token)
                continue; /* the guest's own token is gone */
            has_token = true;
        } else if (!has_token && strcmp(name, "x-amz-security-token") > 0) {
            canonical_header(&t, "x-amz-security-token", h, host);
            snprintf(list + strlen(list), sizeof list - strlen(list), "%sx-amz-security-token", list[0] ? ";" : "");
            has_token = true;
        }
        canonical_header(&t, name, h, host);
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", list[0] ? ";" : "", name);
    }
    if (!has_token) {
        canonical_header(&t, "x-amz-security-token", h, host);
        snprintf(list + strlen(list), sizeof list - strlen(list), "%sx-amz-security-token", list[0] ? ";" : "");
    }
    free(copy);
    puts_text(&t, "\n");
    puts_text(&t, list);
    puts_text(&t, "\n");
    puts_text(&t, named ? named->value : payload);
    bool good = !t.bad;
    if (good)
        sha256_hex(t.p, t.len, hash);
    if (t.p)
        explicit_bzero(t.p, t.cap);
    free(t.p);
    if (!good)
        return false;
    char to_sign[400], first[256];
    unsigned char k[32];
    snprintf(to_sign, sizeof to_sign, "AWS4-HMAC-SHA256\n%s\n%s\n%s", date->value, scope, hash);
    size_t n = (size_t)snprintf(first, sizeof first, "AWS4%.*s", (int)key_len, key);
    if (n >= sizeof first)
        return false;
    hmac(first, n, day, k);
    hmac(k, 32, region, k);
    hmac(k, 32, service, k);
    hmac(k, 32, "aws4_request", k);
    hmac(k, 32, to_sign, k);
    hex(k, 32, signature);
    explicit_bzero(first, sizeof first);
    explicit_bzero(k, sizeof k);
    char value[2048];
    if ((size_t)snprintf(value, sizeof value, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s", id, scope, list,
                         signature) >= sizeof value)
        return false;
    return headers_set(h, "authorization", value);
}
