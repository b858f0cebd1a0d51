/* Our own requests to providers: checks of keys, sign-ins. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"
#include "core/proxyurl.h"
#include "core/secretstore.h"
#include "ui/cli/secret.h"

#define ANSWER_MAX (256u * 1024u)

struct body {
    char *p;
    size_t len;
};

static size_t on_body(char *p, size_t size, size_t n, void *arg)
{
    struct body *b = arg;
    n *= size;
    if (b->len + n > ANSWER_MAX)
        return 0;
    char *more = realloc(b->p, b->len + n + 1);
    if (!more)
        return 0;
    b->p = more;
    memcpy(b->p + b->len, p, n);
    b->len += n;
    b->p[b->len] = '\0';
    return n;
}

/* net.map, as curl's CONNECT-TO: "name:port:address:port". */
static struct curl_slist *mapped(const json_t *config)
{
    struct curl_slist *list = NULL;
    const char *name;
    json_t *v;
    json_object_foreach(config_value(config, "net.map"), name, v) {
        char line[600];
        snprintf(line, sizeof line, "%s%s:%s", name, strchr(name, ':') ? "" : ":443", json_string_value(v));
        list = curl_slist_append(list, line);
    }
    return list;
}

/* The host's authorities and those of net.ca, as one text. */
static char *authorities(const json_t *config)
{
    size_t i, len = 0;
    json_t *v;
    char *all = NULL;
    FILE *out = json_array_size(config_value(config, "net.ca")) ? open_memstream(&all, &len) : NULL;
    if (!out)
        return NULL;
    for (int k = -1; k < (int)json_array_size(config_value(config, "net.ca")); k++) {
        FILE *f = fopen(k < 0 ? "/etc/ssl/certs/ca-certificates.crt" : json_string_value(json_array_get(config_value(config, "net.ca"), (size_t)k)), "re");
        char buf[8192];
        while (f && (i = fread(buf, 1, sizeof buf, f)))
            fwrite(buf, 1, i, out);
        if (f)
            fclose(f);
        fputc('\n', out);
    }
    (void)v;
    fclose(out);
    return all;
}

/* The setting net.proxy, never the environment; what it excepts is asked directly. */
static void proxy(CURL *c, const json_t *config)
{
    const char *text = json_string_value(config_value(config, "net.proxy"));
    struct proxy_url url;
    char except[1024] = "", where[300];
    size_t i, n = 0;
    json_t *v;
    curl_easy_setopt(c, CURLOPT_PROXY, "");
    if (!text || !text[0] || proxy_url_parse(text, &url, NULL) < 0)
        return;
    snprintf(where, sizeof where, strchr(url.host, ':') ? "http://[%s]:%u" : "http://%s:%u", url.host, url.port);
    curl_easy_setopt(c, CURLOPT_PROXY, where);
    struct secretstore *store = url.login[0] ? NULL : secretstore_open(NULL, NULL, NULL);
    const struct secret *s = store ? secretstore_find(store, "proxy", "") : NULL;
    if (url.login[0] || s)
        curl_easy_setopt(c, CURLOPT_PROXYUSERPWD, url.login[0] ? url.login : s->value);
    secretstore_free(store);
    explicit_bzero(&url, sizeof url);
    json_array_foreach(config_value(config, "net.proxy_except"), i, v) {
        const char *name = json_string_value(v);
        name += strspn(name, "*");
        if (n + strlen(name) + 2 < sizeof except)
            n += (size_t)snprintf(except + n, sizeof except - n, "%s%s", n ? "," : "", name);
    }
    curl_easy_setopt(c, CURLOPT_NOPROXY, except);
}

long secret_http(const struct secret_http *r, char **out, size_t *len, struct err *e)
{
    static bool ready;
    struct body body = {0};
    char why[CURL_ERROR_SIZE] = "";
    long status = -1;
    *out = NULL;
    if (!ready)
        curl_global_init(CURL_GLOBAL_DEFAULT);
    ready = true;
    json_t *config = config_load(e);
    CURL *c = config ? curl_easy_init() : NULL;
    if (!c) {
        json_decref(config);
        return config ? err_set(e, STATUS_FAILED, "out of memory") : -1;
    }
    struct curl_slist *headers = NULL, *map = mapped(config);
    char *ca = authorities(config);
    for (size_t i = 0; i < 8 && r->headers[i]; i++)
        headers = curl_slist_append(headers, r->headers[i]);
    curl_easy_setopt(c, CURLOPT_URL, r->url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https");
    proxy(c, config);
    curl_easy_setopt(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_TIMEOUT, 30L);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "sbx/" SBX_VERSION);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(c, CURLOPT_CONNECT_TO, map);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &body);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
    if (ca) {
        struct curl_blob blob = {ca, strlen(ca), CURL_BLOB_COPY};
        curl_easy_setopt(c, CURLOPT_CAINFO_BLOB, &blob);
    }
    if (r->sigv4) {
        curl_easy_setopt(c, CURLOPT_AWS_SIGV4, r->sigv4);
        curl_easy_setopt(c, CURLOPT_USERPWD, r->login);
    }
    if (r->post)
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, r->post);
    CURLcode rc = curl_easy_perform(c);
    if (rc == CURLE_OK) {
        curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
        *out = body.p ? body.p : calloc(1, 1);
        *len = body.len;
    } else {
        free(body.p);
        err_set(e, STATUS_FAILED, "the provider cannot be asked: %s", why[0] ? why : curl_easy_strerror(rc));
    }
    for (struct curl_slist *h = headers; h; h = h->next)
        explicit_bzero(h->data, strlen(h->data));
    curl_slist_free_all(headers);
    curl_slist_free_all(map);
    free(ca);
    curl_easy_cleanup(c);
    json_decref(config);
    return status;
}
