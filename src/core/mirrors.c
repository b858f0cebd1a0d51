#include "core/mirrors.h"

#include <ctype.h>
#include <dirent.h>
#include <ftw.h>
#include <limits.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/log.h"
#include "core/paths.h"

#define BUNDLE "/etc/ssl/certs/ca-certificates.crt"
#define SUITES_MAX 16

/* ---- APT ---- */

struct sources {
    char *uri[3]; /* main, updates, security */
    char codename[64];
};

static void host_codename(char out[64])
{
    FILE *f = fopen("/etc/os-release", "re");
    char line[256];
    snprintf(out, 64, "bookworm");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VERSION_CODENAME=%63[a-z]", out) == 1)
            break;
    if (f)
        fclose(f);
}

/* Third-party archives have suites of other names, and nothing that a Debian tree is made of. */
static void note(struct sources *s, const char *uri, const char *suite)
{
    size_t n = strlen(s->codename);
    int i;
    if (strncmp(suite, s->codename, n) == 0 && (suite[n] == '\0' || suite[n] == '-' || suite[n] == '/'))
        i = strstr(suite, "security") ? 2 : strstr(suite, "updates") ? 1 : suite[n] == '\0' ? 0 : -1;
    else if (strcmp(suite, "stable") == 0 || strcmp(suite, "testing") == 0)
        i = 0;
    else
        return;
    if (i < 0 || s->uri[i] || (strncmp(uri, "http://", 7) != 0 && strncmp(uri, "https://", 8) != 0))
        return;
    s->uri[i] = strdup(uri);
}

static void read_list(struct sources *s, FILE *f)
{
    char line[1024];
    while (fgets(line, sizeof line, f)) {
        char *p = line, *save = NULL;
        line[strcspn(line, "#\n")] = '\0';
        while (isspace((unsigned char)*p))
            p++;
        if (strncmp(p, "deb ", 4) != 0 && strncmp(p, "deb\t", 4) != 0)
            continue;
        p += 4;
        char *open = strchr(p, '['), *close = open ? strchr(open, ']') : NULL;
        if (close)
            p = close + 1;
        char *uri = strtok_r(p, " \t", &save), *suite = strtok_r(NULL, " \t", &save);
        if (uri && suite)
            note(s, uri, suite);
    }
}

/* deb822: paragraphs of "Key: value" (sources.list(5)). */
static void read_sources(struct sources *s, FILE *f)
{
    char line[1024], types[64] = "", uris[512] = "", suites[512] = "";
    bool enabled = true, more = true;
    while (more) {
        more = fgets(line, sizeof line, f) != NULL;
        if (more && line[0] == '#')
            continue;
        if (more && line[strspn(line, " \t\r\n")] != '\0') {
            sscanf(line, "Types: %63[^\n]", types);
            sscanf(line, "URIs: %511[^\n]", uris);
            sscanf(line, "Suites: %511[^\n]", suites);
            if (strncasecmp(line, "Enabled:", 8) == 0 && strstr(line, "no"))
                enabled = false;
            continue;
        }
        char *save = NULL;
        uris[strcspn(uris, " \t")] = '\0'; /* the first of several mirrors */
        if (enabled && strstr(types, "deb") && uris[0])
            for (char *suite = strtok_r(suites, " \t", &save); suite; suite = strtok_r(NULL, " \t", &save))
                note(s, uris, suite);
        types[0] = uris[0] = suites[0] = '\0';
        enabled = true;
    }
}

static void read_all(struct sources *s)
{
    memset(s, 0, sizeof *s);
    host_codename(s->codename);
    FILE *f = fopen("/etc/apt/sources.list", "re");
    if (f) {
        read_list(s, f);
        fclose(f);
    }
    struct dirent **list;
    int n = scandir("/etc/apt/sources.list.d", &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char path[512];
        size_t len = strlen(list[i]->d_name);
        snprintf(path, sizeof path, "/etc/apt/sources.list.d/%s", list[i]->d_name);
        bool one_line = len > 5 && strcmp(list[i]->d_name + len - 5, ".list") == 0;
        bool deb822 = len > 8 && strcmp(list[i]->d_name + len - 8, ".sources") == 0;
        f = one_line || deb822 ? fopen(path, "re") : NULL;
        if (f) {
            if (one_line)
                read_list(s, f);
            else
                read_sources(s, f);
            fclose(f);
        }
        free(list[i]);
    }
    if (n >= 0)
        free(list);
}

char *mirrors_apt_sources(const char *suite, struct err *e)
{
    struct sources s;
    char *out = NULL;
    read_all(&s);
    const char *main_uri = s.uri[0] ? s.uri[0] : "http://deb.debian.org/debian";
    const char *updates = s.uri[1] ? s.uri[1] : main_uri;
    const char *security = s.uri[2] ? s.uri[2] : "http://security.debian.org/debian-security";
    if (asprintf(&out, "deb %s %s main\ndeb %s %s-updates main\ndeb %s %s-security main\n", main_uri, suite, updates, suite,
                 security, suite) < 0) {
        out = NULL;
        err_set(e, STATUS_FAILED, "out of memory");
    }
    for (int i = 0; i < 3; i++)
        free(s.uri[i]);
    return out;
}

char *mirrors_apt_options(void)
{
    char *out = NULL, line[1024];
    size_t len = 0;
    FILE *mem = open_memstream(&out, &len);
    FILE *f = mem ? popen("apt-config dump 2>/dev/null", "re") : NULL;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "Acquire::http::", 15) == 0 || strncmp(line, "Acquire::https::", 16) == 0)
            if (strstr(line, "Proxy") || strstr(line, "CaInfo") || strstr(line, "CAInfo"))
                fputs(line, mem);
    if (f)
        pclose(f);
    if (mem)
        fclose(mem);
    return out ? out : strdup("");
}

/* ---- authorities ---- */

struct prints {
    unsigned char (*v)[32];
    size_t n, cap;
};

static bool known(const struct prints *p, const unsigned char print[32])
{
    for (size_t i = 0; i < p->n; i++)
        if (memcmp(p->v[i], print, 32) == 0)
            return true;
    return false;
}

static void remember(struct prints *p, const unsigned char print[32])
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 256;
        void *more = realloc(p->v, cap * sizeof *p->v);
        if (!more)
            return;
        p->v = more;
        p->cap = cap;
    }
    memcpy(p->v[p->n++], print, 32);
}

typedef void cert_fn(X509 *x, const unsigned char print[32], void *arg);

static void each_cert(const char *path, cert_fn *fn, void *arg)
{
    FILE *f = fopen(path, "re");
    X509 *x;
    while (f && (x = PEM_read_X509(f, NULL, NULL, NULL))) {
        unsigned char print[EVP_MAX_MD_SIZE];
        unsigned len = 0;
        if (X509_digest(x, EVP_sha256(), print, &len) && len == 32)
            fn(x, print, arg);
        X509_free(x);
    }
    if (f)
        fclose(f);
}

static struct prints packaged;

static void remember_cert(X509 *x, const unsigned char print[32], void *arg)
{
    (void)x;
    remember(arg, print);
}

static int packaged_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    size_t n = strlen(path);
    (void)st;
    (void)ftw;
    if (type == FTW_F && n > 4 && strcmp(path + n - 4, ".crt") == 0)
        each_cert(path, remember_cert, &packaged);
    return 0;
}

#define AUTHORITIES_MAX 400u /* a machine takes 3 MiB of files (core/link.h), and each of these three times */

struct extra {
    json_t *files;
    struct prints seen;
    char *all;
    size_t len;
    FILE *mem;
    unsigned count;
    bool told;
};

static void add_file(json_t *files, const char *path, const char *content, bool append)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "path", path, "mode", "0644", "owner", "root", "content", content);
    if (o && append)
        json_object_set_new(o, "append", json_true());
    if (o)
        json_array_append_new(files, o);
}

static void extra_cert(X509 *x, const unsigned char print[32], void *arg)
{
    struct extra *e = arg;
    char path[PATH_MAX], *pem = NULL;
    if (known(&packaged, print) || known(&e->seen, print))
        return;
    if (e->count == AUTHORITIES_MAX) {
        if (!e->told)
            log_line("of this host's own certificate authorities machines get the first %u", AUTHORITIES_MAX);
        e->told = true;
        return;
    }
    remember(&e->seen, print);
    BIO *b = BIO_new(BIO_s_mem());
    long len = b && PEM_write_bio_X509(b, x) ? BIO_get_mem_data(b, &pem) : 0;
    char *text = len > 0 ? strndup(pem, (size_t)len) : NULL;
    BIO_free(b);
    if (!text)
        return;
    fputs(text, e->mem);
    snprintf(path, sizeof path, "/usr/local/share/ca-certificates/sbx-host-%u.crt", ++e->count);
    add_file(e->files, path, text, false);
    /* The name under which OpenSSL looks an authority up in a folder, numbered among those of one name. */
    int len_hash = snprintf(path, sizeof path, "/etc/ssl/certs/%08lx.", X509_subject_name_hash(x));
    unsigned same = 0;
    size_t i;
    json_t *f;
    json_array_foreach(e->files, i, f)
        same += strncmp(json_string_value(json_object_get(f, "path")), path, (size_t)len_hash) == 0;
    snprintf(path + len_hash, sizeof path - (size_t)len_hash, "%u", same);
    add_file(e->files, path, text, false);
    free(text);
}

json_t *mirrors_files(const char *suite, struct err *e)
{
    struct extra x = {.files = json_array()};
    x.mem = open_memstream(&x.all, &x.len);
    char *apt = mirrors_apt_sources(suite, e), *options = mirrors_apt_options();
    if (!x.mem || !apt || !options) {
        json_decref(x.files);
        x.files = NULL;
        goto out;
    }
    /* Our own authority comes first: what is intercepted is answered under it. */
    char *own = path_in(PATH_DATA, e, "ca/cert.pem"); /* core/ca.h */
    if (own)
        each_cert(own, extra_cert, &x);
    free(own);
    if (packaged.n == 0)
        nftw("/usr/share/ca-certificates", packaged_file, 16, FTW_PHYS);
    if (packaged.n) { /* else the host's own cannot be told from the distribution's */
        each_cert(BUNDLE, extra_cert, &x);
        const char *named[] = {getenv("NODE_EXTRA_CA_CERTS"), getenv("SSL_CERT_FILE")};
        for (int i = 0; i < 2; i++)
            if (named[i])
                each_cert(named[i], extra_cert, &x);
    }
    fflush(x.mem);
    if (x.len)
        add_file(x.files, BUNDLE, x.all, true);
    add_file(x.files, "/etc/apt/sources.list", apt, false);
    if (options[0])
        add_file(x.files, "/etc/apt/apt.conf.d/90host", options, false);
out:
    if (x.mem)
        fclose(x.mem);
    free(x.all);
    free(x.seen.v);
    free(apt);
    free(options);
    return x.files;
}

/* A URL without "user:password@". */
static void strip_credentials(char *url)
{
    char *scheme = strstr(url, "://");
    char *host = scheme ? scheme + 3 : url;
    char *at = strchr(host, '@'), *slash = strchr(host, '/');
    if (at && (!slash || at < slash))
        memmove(host, at + 1, strlen(at + 1) + 1);
}

/* "key = value" of an ini-like file; tokens and passwords have other keys and stay where they are. */
static bool ini_value(const char *path, const char *key, char *out, size_t cap)
{
    FILE *f = fopen(path, "re");
    char line[1024];
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *p = line + strspn(line, " \t");
        size_t n = strlen(key);
        if (strncmp(p, key, n) != 0)
            continue;
        p += n + strspn(p + n, " \t");
        if (*p != '=')
            continue;
        p += 1 + strspn(p + 1, " \t\"");
        p[strcspn(p, "\"\r\n")] = '\0';
        snprintf(out, cap, "%s", p);
        found = out[0] != '\0';
    }
    if (f)
        fclose(f);
    return found;
}

static void from_files(json_t *env, const char *variable, const char *key, const char *const *files, const char *home_file)
{
    char value[512], path[PATH_MAX];
    const char *home = getenv("HOME"), *set = getenv(variable);
    bool found = false;
    if (set && set[0]) {
        snprintf(value, sizeof value, "%s", set);
        found = true;
    }
    if (!found && home) {
        snprintf(path, sizeof path, "%s/%s", home, home_file);
        found = ini_value(path, key, value, sizeof value);
    }
    for (; !found && *files; files++)
        found = ini_value(*files, key, value, sizeof value);
    if (found) {
        strip_credentials(value);
        json_object_set_new(env, variable, json_string(value));
    }
}

json_t *mirrors_env(void)
{
    static const char *const bundle[] = {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
                                         "GIT_SSL_CAINFO", "PIP_CERT", "npm_config_cafile", "BUNDLE_SSL_CA_CERT",
                                         "CODEX_CA_CERTIFICATE", "DENO_CERT", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE"};
    static const char *const npm[] = {"/etc/npmrc", "/usr/etc/npmrc", NULL}, *const pip[] = {"/etc/pip.conf", NULL};
    json_t *env = json_object();
    for (size_t i = 0; i < sizeof bundle / sizeof *bundle; i++)
        json_object_set_new(env, bundle[i], json_string(BUNDLE));
    from_files(env, "npm_config_registry", "registry", npm, ".npmrc");
    from_files(env, "PIP_INDEX_URL", "index-url", pip, ".config/pip/pip.conf");
    return env;
}
