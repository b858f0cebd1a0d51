#include "core/service.h"

#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/record.h"
#include "core/shipped.h"

static const struct field {
    const char *key;
    json_type type;
    bool required;
} service_fields[] = {{"version", JSON_INTEGER, true}, {"name", JSON_STRING, true},  {"title", JSON_STRING, true},
                      {"forms", JSON_OBJECT, true},    {"test", JSON_OBJECT, false}, {"oauth", JSON_OBJECT, false},
                      {"note", JSON_STRING, false},    {"mints", JSON_ARRAY, false}},
  mint_fields[] = {{"host", JSON_STRING, true}, {"path", JSON_STRING, false}, {"methods", JSON_STRING, false}, {"use", JSON_ARRAY, true}},
  form_fields[] = {{"env", JSON_ARRAY, true},        {"from_env", JSON_ARRAY, false}, {"from_files", JSON_ARRAY, false},
                   {"write", JSON_ARRAY, true},      {"title", JSON_STRING, false},   {"prefix", JSON_STRING, false}},
  write_fields[] = {{"host", JSON_STRING, true},      {"kind", JSON_STRING, false},  {"mode", JSON_STRING, false},
                    {"header", JSON_STRING, false},   {"format", JSON_STRING, false}, {"strip", JSON_STRING, false},
                    {"strip_query", JSON_STRING, false}, {"suffixes", JSON_STRING, false}},
  test_fields[] = {{"url", JSON_STRING, false},    {"headers", JSON_OBJECT, false},  {"sigv4", JSON_STRING, false},
                   {"content", JSON_STRING, false}, {"denies", JSON_INTEGER, false}, {"none", JSON_STRING, false}};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static int check_fields(const json_t *o, const struct field *f, size_t n, const char *name, const char *where, struct err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(o))
        return err_set(e, STATUS_FAILED, "service %s: %s is not an object", name, where);
    json_object_foreach((json_t *)o, key, v) {
        size_t i = 0;
        while (i < n && strcmp(f[i].key, key) != 0)
            i++;
        if (i == n)
            return err_set(e, STATUS_FAILED, "service %s: unknown key \"%s\" in %s", name, key, where);
        if (json_typeof(v) != f[i].type)
            return err_set(e, STATUS_FAILED, "service %s: \"%s\" in %s is of the wrong type", name, key, where);
    }
    for (size_t i = 0; i < n; i++)
        if (f[i].required && !json_object_get(o, f[i].key))
            return err_set(e, STATUS_FAILED, "service %s: \"%s\" is missing in %s", name, f[i].key, where);
    return 0;
}

static const char *text(const json_t *o, const char *key, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : otherwise;
}

/* Names of header fields and query parameters, comma-separated. */
static bool is_names(const char *s, size_t max)
{
    size_t n = strlen(s);
    if (n > max)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!islower((unsigned char)s[i]) && !isdigit((unsigned char)s[i]) && !strchr("-_,./", s[i]))
            return false;
    return true;
}

static bool is_host_pattern(const char *p)
{
    size_t n = strcspn(p, ":");
    if (n == 0 || n > 253 || p[0] == '.' || p[n - 1] == '.')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!islower((unsigned char)p[i]) && !isdigit((unsigned char)p[i]) && !strchr("-_.*", p[i]))
            return false;
    /* The last two labels are literal: a credential is not for a whole top-level domain. */
    int dots = 0;
    for (size_t i = n; i-- > 0 && dots < 2;) {
        if (p[i] == '*')
            return false;
        dots += p[i] == '.';
    }
    if (p[n] == ':') {
        char *end;
        long port = strtol(p + n + 1, &end, 10);
        return isdigit((unsigned char)p[n + 1]) && *end == '\0' && port >= 1 && port <= 65535;
    }
    return true;
}

static int parse_write(const json_t *o, struct service_write *w, const char *name, struct err *e)
{
    const char *kind = text(o, "kind", "header"), *mode = text(o, "mode", "service");
    const char *header = text(o, "header", "authorization"), *strip = text(o, "strip", ""),
               *query = text(o, "strip_query", ""), *suffixes = text(o, "suffixes", "");
    memset(w, 0, sizeof *w);
    if (!is_host_pattern(text(o, "host", "")))
        return err_set(e, STATUS_FAILED, "service %s: \"%.100s\" is no host that a credential can belong to; write a name like api.example.com or "
                       "*.example.com, with :PORT if that is not 443", name, text(o, "host", ""));
    if (strcmp(kind, "header") == 0)
        w->kind = SERVICE_HEADER;
    else if (strcmp(kind, "basic") == 0)
        w->kind = SERVICE_BASIC;
    else if (strcmp(kind, "sigv4") == 0)
        w->kind = SERVICE_SIGV4;
    else
        return err_set(e, STATUS_FAILED, "service %s: \"kind\" is header, basic or sigv4", name);
    if (strcmp(mode, "service") != 0 && strcmp(mode, "placeholder") != 0)
        return err_set(e, STATUS_FAILED, "service %s: \"mode\" is service or placeholder", name);
    w->placeholder = mode[0] == 'p';
    const char *format = text(o, "format", w->kind == SERVICE_BASIC ? "{}" : "Bearer {}");
    const char *mark = strstr(format, "{}");
    if (!mark || strstr(mark + 2, "{}") || strlen(format) > SERVICE_FORMAT_MAX)
        return err_set(e, STATUS_FAILED, "service %s: a \"format\" holds \"{}\" once, for the value, in at most %d characters, like: Bearer {}", name, SERVICE_FORMAT_MAX);
    for (const char *c = format; *c; c++)
        if (*c < ' ' || *c > '~')
            return err_set(e, STATUS_FAILED, "service %s: a \"format\" is printable ASCII, like: Bearer {}", name);
    if (!header[0] || strpbrk(header, ",/") || !is_names(header, SERVICE_HEADER_MAX) || !is_names(strip, SERVICE_STRIP_MAX) ||
        !is_names(query, SERVICE_HEADER_MAX) || !is_names(suffixes, SERVICE_STRIP_MAX))
        return err_set(e, STATUS_FAILED, "service %s: \"header\" is the name of one header, like x-api-key; \"strip\", \"strip_query\" and "
                       "\"suffixes\" are lower-case names, separated by commas", name);
    static const char *const never[] = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"};
    for (size_t i = 0; i < COUNT(never); i++)
        if (strcmp(header, never[i]) == 0)
            return err_set(e, STATUS_FAILED, "service %s: a credential cannot stand in \"%s\"; write one like authorization or x-api-key", name, header);
    snprintf(w->header, sizeof w->header, "%s", header);
    snprintf(w->format, sizeof w->format, "%s", format);
    snprintf(w->strip, sizeof w->strip, "%s", strip);
    snprintf(w->strip_query, sizeof w->strip_query, "%s", query);
    snprintf(w->suffixes, sizeof w->suffixes, "%s", suffixes);
    return 0;
}

static bool is_variable(const json_t *v)
{
    const char *s = json_string_value(v);
    if (!s || !s[0] || isdigit((unsigned char)s[0]))
        return false;
    for (; *s; s++)
        if (!isalnum((unsigned char)*s) && *s != '_')
            return false;
    return true;
}

static int check_form(const json_t *form, const char *name, const char *form_name, struct err *e)
{
    char where[100];
    size_t i;
    json_t *v;
    snprintf(where, sizeof where, "form %.60s", form_name);
    if (check_fields(form, form_fields, COUNT(form_fields), name, where, e) < 0)
        return -1;
    static const char *const lists[] = {"env", "from_env"};
    for (size_t k = 0; k < COUNT(lists); k++)
        json_array_foreach(json_object_get(form, lists[k]), i, v)
            if (!is_variable(v))
                return err_set(e, STATUS_FAILED, "service %s: \"%s\" of %s lists names of variables, like EXAMPLE_API_KEY", name, lists[k], where);
    json_array_foreach(json_object_get(form, "from_files"), i, v) {
        /* as ui/cli/secret_import.c reads them */
        if (!json_is_string(json_object_get(v, "path")))
            return err_set(e, STATUS_FAILED, "service %s: \"from_files\" of %s needs a \"path\" in each", name, where);
    }
    json_array_foreach(json_object_get(form, "write"), i, v) {
        struct service_write w;
        if (check_fields(v, write_fields, COUNT(write_fields), name, where, e) < 0 || parse_write(v, &w, name, e) < 0)
            return -1;
    }
    return 0;
}

static int check_mint(const json_t *mint, const char *name, struct err *e)
{
    struct service_write w;
    size_t i;
    json_t *v;
    if (check_fields(mint, mint_fields, COUNT(mint_fields), name, "mints", e) < 0)
        return -1;
    if (!is_host_pattern(text(mint, "host", "")) || text(mint, "path", "/")[0] != '/')
        return err_set(e, STATUS_FAILED, "service %s: \"mints\" names a host, and the beginning of a path", name);
    json_array_foreach(json_object_get(mint, "use"), i, v) {
        if (check_fields(v, write_fields, COUNT(write_fields), name, "mints", e) < 0 || parse_write(v, &w, name, e) < 0)
            return -1;
        if (w.kind != SERVICE_HEADER || w.placeholder || strcmp(w.header, "authorization") != 0)
            return err_set(e, STATUS_FAILED, "service %s: what is minted is used in \"authorization\", as it is", name);
    }
    return 0;
}

int service_check(const json_t *service, const char *name, struct err *e)
{
    size_t i;
    const char *key;
    json_t *v;
    if (check_fields(service, service_fields, COUNT(service_fields), name, "it", e) < 0)
        return -1;
    if (json_integer_value(json_object_get(service, "version")) != 1)
        return err_set(e, STATUS_FAILED, "service %s: its version is not 1; a newer sbx made it", name);
    if (strcmp(text(service, "name", ""), name) != 0)
        return err_set(e, STATUS_FAILED, "service %s: its file calls itself \"%.60s\"", name, text(service, "name", ""));
    const json_t *forms = json_object_get(service, "forms"), *test = json_object_get(service, "test");
    if (json_object_size(forms) == 0)
        return err_set(e, STATUS_FAILED, "service %s has no form", name);
    json_object_foreach((json_t *)forms, key, v)
        if (check_form(v, name, key, e) < 0)
            return -1;
    json_array_foreach(json_object_get(service, "mints"), i, v)
        if (check_mint(v, name, e) < 0)
            return -1;
    if (test && check_fields(test, test_fields, COUNT(test_fields), name, "test", e) < 0)
        return -1;
    if (test && !json_object_get(test, "url") == !json_object_get(test, "none"))
        return err_set(e, STATUS_FAILED, "service %s: its test has either a \"url\" or, as \"none\", the reason why there is no test", name);
    if (json_object_get(test, "content") && !strstr(text(test, "content", ""), "{}"))
        return err_set(e, STATUS_FAILED, "service %s: the \"content\" of its test has no {} for the value", name);
    if (json_object_get(test, "url") && strncmp(text(test, "url", ""), "https://", 8) != 0)
        return err_set(e, STATUS_FAILED, "service %s: the \"url\" of its test begins with https://", name);
    static const char *const urls[] = {"authorize", "token", "device"};
    const json_t *oauth = json_object_get(service, "oauth");
    for (i = 0; i < COUNT(urls); i++)
        if (json_object_get(oauth, urls[i]) && strncmp(text(oauth, urls[i], ""), "https://", 8) != 0)
            return err_set(e, STATUS_FAILED, "service %s: the address \"%s\" of its sign-in begins with https://", name, urls[i]);
    if (json_object_get(oauth, "token") && !json_object_get(forms, text(oauth, "form", "oauth")))
        return err_set(e, STATUS_FAILED, "service %s has no form \"%s\" for what its sign-in yields", name, text(oauth, "form", "oauth"));
    return 0;
}

static const struct shipped services = {"services", "services"};

json_t *service_list(void)
{
    return shipped_names(&services);
}

json_t *service_load(const char *name, struct err *e)
{
    struct err why = {0};
    if (record_check_name(name, NULL) < 0) {
        err_set(e, STATUS_USAGE, "\"%.60s\" cannot be the name of a service: letters, digits and '-'", name);
        return NULL;
    }
    json_t *service = shipped_load(&services, name, &why);
    if (!service) {
        if (why.status == STATUS_NOT_FOUND)
            err_set(e, STATUS_NOT_FOUND, "there is no service \"%s\"; `sbx secret services` lists them, and --host with --header "
                    "makes one", name);
        else if (e)
            *e = why;
        return NULL;
    }
    if (service_check(service, name, e) < 0) {
        json_decref(service);
        return NULL;
    }
    return service;
}

int service_save(const json_t *service, struct err *e)
{
    const char *name = text(service, "name", "");
    if (record_check_name(name, e) < 0 || service_check(service, name, e) < 0)
        return -1;
    char *dir = path_in(PATH_CONFIG, e, "services"), *path = path_in(PATH_CONFIG, e, "services/%s.json", name);
    int rc = dir && path && path_mkdirs(dir, 0700, e) == 0 ? jsonfile_write(path, service, 0600, e) : -1;
    free(dir);
    free(path);
    return rc;
}

const char *service_title(const json_t *service)
{
    return text(service, "title", "");
}

const char *service_first_form(const json_t *service)
{
    return json_object_iter_key(json_object_iter(json_object_get(service, "forms")));
}

const json_t *service_form(const json_t *service, const char *form)
{
    if (!form || !form[0])
        form = service_first_form(service);
    return form ? json_object_get(json_object_get(service, "forms"), form) : NULL;
}

static bool label_matches(const char *p, size_t pn, const char *l, size_t ln)
{
    const char *star = memchr(p, '*', pn);
    if (!star)
        return pn == ln && memcmp(p, l, ln) == 0;
    size_t before = (size_t)(star - p), after = pn - before - 1;
    return ln > before + after && memcmp(p, l, before) == 0 && memcmp(star + 1, l + ln - after, after) == 0;
}

bool service_host_matches(const char *pattern, const char *host, uint16_t port)
{
    size_t pn = strcspn(pattern, ":"), hn = strlen(host);
    uint16_t want = pattern[pn] == ':' ? (uint16_t)strtol(pattern + pn + 1, NULL, 10) : 443;
    if (port != want)
        return false;
    /* From the right, label by label. */
    while (pn && hn) {
        const char *pl = memrchr(pattern, '.', pn), *hl = memrchr(host, '.', hn);
        size_t ps = pl ? (size_t)(pl - pattern) + 1 : 0, hs = hl ? (size_t)(hl - host) + 1 : 0;
        if (pn - ps == 2 && memcmp(pattern + ps, "**", 2) == 0)
            return ps == 0;
        if (!label_matches(pattern + ps, pn - ps, host + hs, hn - hs))
            return false;
        pn = ps ? ps - 1 : 0;
        hn = hs ? hs - 1 : 0;
    }
    return pn == 0 && hn == 0;
}

static bool path_fits(const char *suffixes, const char *path)
{
    size_t n = strlen(path);
    if (!suffixes[0])
        return true;
    for (const char *p = suffixes; *p;) {
        size_t len = strcspn(p, ",");
        if (len && n >= len && memcmp(path + n - len, p, len) == 0)
            return true;
        p += len + (p[len] == ',');
    }
    return false;
}

bool service_writes(const json_t *service, const char *form, const char *host, uint16_t port, const char *path,
                    struct service_write *out)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(service_form(service, form), "write"), i, v)
        if (service_host_matches(text(v, "host", ""), host, port) && (!path || path_fits(text(v, "suffixes", ""), path)))
            return parse_write(v, out, "", NULL) == 0;
    return false;
}

/* Of "https://host:port/path"; false if it is none. */
static bool token_endpoint(const json_t *service, char host[256], uint16_t *port, const char **path)
{
    const char *url = text(json_object_get(service, "oauth"), "token", "");
    if (strncmp(url, "https://", 8) != 0)
        return false;
    url += 8;
    size_t n = strcspn(url, ":/");
    if (n == 0 || n > 253)
        return false;
    memcpy(host, url, n);
    host[n] = '\0';
    *port = url[n] == ':' ? (uint16_t)strtol(url + n + 1, NULL, 10) : 443;
    *path = url + strcspn(url, "/");
    return **path == '/';
}

bool service_signs_in_at(const json_t *service, const char *host, uint16_t port)
{
    char at[256];
    uint16_t want;
    const char *path;
    return token_endpoint(service, at, &want, &path) && want == port && strcmp(at, host) == 0;
}

bool service_gives_tokens(const json_t *service, const char *host, uint16_t port, const char *path)
{
    char at[256];
    uint16_t want;
    const char *mine;
    if (!token_endpoint(service, at, &want, &mine) || want != port || strcmp(at, host) != 0)
        return false;
    /* Servers are generous with case and a last slash. */
    size_t n = strlen(path), m = strlen(mine);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n == m && strncasecmp(path, mine, n) == 0;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Whether a path that cannot be told may stand for one that begins so: each of its names is in there, escapes decoded as
 * often as a server might. */
static bool may_begin(const char *path, const char *prefix)
{
    char plain[2048];
    size_t n = strnlen(path, sizeof plain - 1);
    memcpy(plain, path, n);
    plain[n] = '\0';
    for (int round = 0; round < 3; round++) {
        size_t len = 0;
        for (size_t i = 0; i < n; i++) {
            bool escape = plain[i] == '%' && i + 2 < n && digit(plain[i + 1]) >= 0 && digit(plain[i + 2]) > 0;
            plain[len++] = escape ? (char)(digit(plain[i + 1]) << 4 | digit(plain[i + 2])) : plain[i];
            i += escape ? 2 : 0;
        }
        plain[n = len] = '\0';
    }
    for (const char *p = prefix; *p;) {
        char name[128];
        size_t k = strcspn(p, "/");
        snprintf(name, sizeof name, "%.*s", (int)k, p);
        if (k && !strcasestr(plain, name))
            return false;
        p += k + (p[k] == '/');
    }
    return true;
}

bool service_lends(const json_t *service, const char *host, uint16_t port, const char *path, bool ambiguous)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(service, "mints"), i, v) {
        const char *prefix = text(v, "path", "/");
        if (service_host_matches(text(v, "host", ""), host, port) &&
            (ambiguous ? may_begin(path, prefix) : strncasecmp(path, prefix, strlen(prefix)) == 0))
            return true;
    }
    return false;
}

bool service_lends_by(const json_t *service, const char *host, uint16_t port, const char *method)
{
    size_t i, n = strlen(method);
    json_t *v;
    json_array_foreach(json_object_get(service, "mints"), i, v) {
        const char *p = text(v, "methods", "");
        bool named = !p[0];
        for (; *p && !named; p += strcspn(p, ","), p += *p == ',')
            named = strcspn(p, ",") == n && strncmp(p, method, n) == 0;
        if (!named && service_host_matches(text(v, "host", ""), host, port))
            return false;
    }
    return true;
}

bool service_lends_at(const json_t *service, const char *host, uint16_t port)
{
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(service, "mints"), i, v)
        if (service_host_matches(text(v, "host", ""), host, port))
            return true;
    return false;
}

bool service_spends(const json_t *service, const char *host, uint16_t port, struct service_write *out)
{
    size_t i, k;
    json_t *v, *use;
    json_array_foreach(json_object_get(service, "mints"), i, v)
        json_array_foreach(json_object_get(v, "use"), k, use)
            if (service_host_matches(text(use, "host", ""), host, port))
                return parse_write(use, out, "", NULL) == 0;
    return false;
}

const char *service_sign_in_form(const json_t *service)
{
    return text(json_object_get(service, "oauth"), "form", "oauth");
}

int service_check_value(const char *value, struct err *e)
{
    size_t n = strlen(value);
    if (n < SERVICE_VALUE_MIN)
        return err_set(e, STATUS_USAGE, "the value has %zu characters; a credential has at least %u", n, SERVICE_VALUE_MIN);
    if (n > SERVICE_VALUE_MAX)
        return err_set(e, STATUS_USAGE, "the value has %zu bytes; at most %u fit into a request", n, SERVICE_VALUE_MAX);
    for (size_t i = 0; i < n; i++)
        if (value[i] <= ' ' || value[i] > '~')
            return err_set(e, STATUS_USAGE, "the value holds a space, a line break or something else that cannot stand in a "
                           "request's header (character %zu)", i + 1);
    return 0;
}

int service_render(const struct service_write *w, const char *value, char *out, size_t cap)
{
    const char *mark = strstr(w->format, "{}");
    int n = mark ? snprintf(out, cap, "%.*s%s%s", (int)(mark - w->format), w->format, value, mark + 2) : -1;
    if (n < 0 || (size_t)n >= cap)
        return -1;
    if (w->kind != SERVICE_BASIC)
        return w->kind == SERVICE_HEADER ? 0 : -1;
    size_t need = sodium_base64_encoded_len((size_t)n, sodium_base64_VARIANT_ORIGINAL);
    char *copy = need + 6 <= cap ? strdup(out) : NULL;
    if (!copy)
        return -1;
    memcpy(out, "Basic ", 6);
    sodium_bin2base64(out + 6, cap - 6, (const unsigned char *)copy, (size_t)n, sodium_base64_VARIANT_ORIGINAL);
    explicit_bzero(copy, (size_t)n);
    free(copy);
    return 0;
}
