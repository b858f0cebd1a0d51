/* sbx secret import: what the agents of this host have already. */
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/service.h"
#include "ui/cli/secret.h"

#define FILE_MAX (256u * 1024u)

/* The text of a file in the home folder, guarded; NULL: there is none. */
static char *home_text(const char *path)
{
    char full[4096];
    const char *home = getenv("HOME");
    if (!home || strncmp(path, "~/", 2) != 0)
        return NULL;
    snprintf(full, sizeof full, "%s/%s", home, path + 2);
    char *text = sodium_malloc(FILE_MAX);
    if (text && secret_read_file(full, text, FILE_MAX, NULL) == 0)
        return text;
    sodium_free(text);
    return NULL;
}

/* What stands under "a.b.c". */
static const json_t *json_under(const json_t *at, const char *key)
{
    char part[100];
    for (const char *p = key; at && *p; p += strcspn(p, "."), p += *p == '.') {
        snprintf(part, sizeof part, "%.*s", (int)strcspn(p, "."), p);
        at = json_object_get(at, part);
    }
    return at;
}

static bool text_under(const json_t *o, const char *key, char *out, size_t cap)
{
    const json_t *at = key ? json_under(o, key) : NULL;
    if (!json_is_string(at) || !json_string_length(at) || json_string_length(at) >= cap)
        return false;
    strcpy(out, json_string_value(at));
    return true;
}

/* A word of a file, without the quotes around it. */
static bool word(const char *p, const char *end, char *out, size_t cap)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    const char *stops = p < end && (*p == '"' || *p == '\'') ? (*p == '"' ? "\"" : "'") : " \t\r\n,;";
    if (stops[1] == '\0')
        p++;
    size_t n = strcspn(p, stops);
    n = n < (size_t)(end - p) ? n : (size_t)(end - p);
    if (n == 0 || n >= cap)
        return false;
    memcpy(out, p, n);
    out[n] = '\0';
    return true;
}

/* What follows a mark at a line's begin: "oauth_token:", "GEMINI_API_KEY=".  below: only under the heading that begins so at
 * a line's very begin, as YAML has it. */
static bool text_after(const char *text, const char *below, const char *mark, char *out, size_t cap)
{
    bool under = !below;
    for (const char *line = text, *next; *line; line = next) {
        const char *end = strchrnul(line, '\n'), *p = line + strspn(line, " \t");
        next = *end ? end + 1 : end;
        if (below && strncmp(line, below, strlen(below)) == 0)
            under = true;
        else if (below && p == line && *line != '\n' && (*below != '[' || *line == '['))
            under = false; /* another heading, of YAML or TOML */
        if (strncmp(p, "export ", 7) == 0)
            p += 7 + strspn(p + 7, " ");
        if (under && strncmp(p, mark, strlen(mark)) == 0 && word(p + strlen(mark), end, out, cap))
            return true;
    }
    return false;
}

/* The first word of letters, digits, '_' and '-' that begins so, wherever it stands. */
static bool text_beginning(const char *text, const char *begin, char *out, size_t cap)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    for (const char *p = text; (p = strstr(p, begin)); p++) {
        size_t n = strspn(p, letters);
        if ((p > text && strchr(letters, p[-1])) || n < strlen(begin) + 8 || n >= cap)
            continue;
        memcpy(out, p, n);
        out[n] = '\0';
        return true;
    }
    return false;
}

/* When a token ends, by its own word where it is a JWT (RFC 7519, "exp"); else 0.  Without that nobody would renew it. */
static int64_t jwt_expiry(const char *token)
{
    unsigned char body[4096];
    size_t n = 0;
    const char *dot = strchr(token, '.'), *end = dot ? strchr(dot + 1, '.') : NULL;
    if (!end || sodium_base642bin(body, sizeof body, dot + 1, (size_t)(end - dot - 1), NULL, &n, NULL,
                                  sodium_base64_VARIANT_URLSAFE_NO_PADDING) < 0)
        return 0;
    json_t *o = json_loadb((char *)body, n, 0, NULL);
    json_int_t at = json_integer_value(json_object_get(o, "exp"));
    json_decref(o);
    return at > 0 ? at : 0;
}

static int take_found(const struct args *a, const char *service, const char *form, const char *where, const char *value,
                      const char *refresh, int64_t expires, int *taken, struct err *e)
{
    char question[300];
    bool all = args_has(a, "yes");
    snprintf(question, sizeof question, "Take the %s credential from %s for all sandboxes?", service, where);
    if (!all && (!isatty(0) || !isatty(2))) {
        printf("%s: found in %s\n", service, where);
        return 0;
    }
    if (!all && !ask_yes(question))
        return 0;
    struct secret_value v = {.service = service, .scope = "", .form = form, .value = value, .refresh = refresh, .expires = expires};
    if (secret_store(&v, e) < 0)
        return -1;
    printf("%s: taken from %s\n", service, where);
    if (refresh && refresh[0] && expires)
        out_notice("sbx renews the sign-in of %s from now on; the agent on this host may then have to sign in anew", service);
    (*taken)++;
    return 0;
}

struct found {
    char *value, *refresh; /* guarded, SECRET_INPUT_MAX */
    int64_t expires;
};

/* As the service describes it: {"path", "key" and, of a sign-in, "refresh" and "expires_ms": in JSON}, {"path", "after",
 * "below"}, {"path", "begins"}, or {"path"}: the whole file is the value. */
static bool look_into(const json_t *where, struct found *f)
{
    const char *path = json_string_value(json_object_get(where, "path")), *key = json_string_value(json_object_get(where, "key")),
               *after = json_string_value(json_object_get(where, "after")), *begins = json_string_value(json_object_get(where, "begins"));
    char *text = path ? home_text(path) : NULL;
    bool good = false;
    f->refresh[0] = '\0';
    f->expires = 0;
    if (text && key) {
        const char *again = json_string_value(json_object_get(where, "refresh")), *ms = json_string_value(json_object_get(where, "expires_ms"));
        json_t *file = json_loads(text, 0, NULL);
        good = text_under(file, key, f->value, SECRET_INPUT_MAX);
        if (!text_under(file, again, f->refresh, SECRET_INPUT_MAX))
            f->refresh[0] = '\0';
        if (good)
            f->expires = ms ? json_integer_value(json_under(file, ms)) / 1000 : jwt_expiry(f->value);
        json_decref(file);
    } else if (text && after) {
        good = text_after(text, json_string_value(json_object_get(where, "below")), after, f->value, SECRET_INPUT_MAX);
    } else if (text && begins) {
        good = text_beginning(text, begins, f->value, SECRET_INPUT_MAX);
    } else if (text) {
        good = word(text, text + strlen(text), f->value, SECRET_INPUT_MAX);
    }
    sodium_free(text);
    return good && f->value[0] != '$' && service_check_value(f->value, NULL) == 0; /* "${NPM_TOKEN}" stands for another place */
}

/* "ID:KEY[:TOKEN]" of the variables that hold the parts. */
static bool look_at_parts(const json_t *form, char *out, size_t cap, char *where, size_t room)
{
    const char *kind = json_string_value(json_object_get(json_array_get(json_object_get(form, "write"), 0), "kind"));
    size_t i, n = 0;
    json_t *v;
    out[0] = '\0';
    if (!kind || strcmp(kind, "sigv4") != 0)
        return false;
    json_array_foreach(json_object_get(form, "env"), i, v) {
        const char *part = getenv(json_string_value(v));
        if (!part || !part[0])
            break;
        if (strchr(part, ':') || n + strlen(part) + 2 > cap)
            return false;
        n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ":" : "", part);
        snprintf(where, room, i ? "%.100s and what belongs to it" : "the variable %.100s", json_string_value(json_array_get(json_object_get(form, "env"), 0)));
    }
    return i >= 2 && service_check_value(out, NULL) == 0;
}

/* One form of a service; true: something was found. */
static bool look_for(const struct args *a, const char *service, const char *name, const json_t *form, struct found *f, int *taken, int *rc, struct err *e)
{
    size_t k;
    json_t *v;
    char where[400];
    json_array_foreach(json_object_get(form, "from_env"), k, v) {
        const char *var = json_string_value(v), *text = getenv(var);
        if (!text || service_check_value(text, NULL) < 0)
            continue;
        snprintf(where, sizeof where, "the variable %s", var);
        *rc = take_found(a, service, name, where, text, NULL, 0, taken, e);
        return true;
    }
    if (look_at_parts(form, f->value, SECRET_INPUT_MAX, where, sizeof where)) {
        *rc = take_found(a, service, name, where, f->value, NULL, 0, taken, e);
        return true;
    }
    json_array_foreach(json_object_get(form, "from_files"), k, v)
        if (look_into(v, f)) {
            *rc = take_found(a, service, name, json_string_value(json_object_get(v, "path")), f->value, f->refresh, f->expires, taken, e);
            return true;
        }
    return false;
}

int cmd_secret_import(const struct args *a, struct err *e)
{
    json_t *names = service_list(), *name, *form;
    struct found f = {sodium_malloc(SECRET_INPUT_MAX), sodium_malloc(SECRET_INPUT_MAX), 0};
    int found = 0, taken = 0, rc = f.value && f.refresh ? 0 : err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
    size_t i;
    json_array_foreach(names, i, name) {
        const char *service = json_string_value(name), *key;
        json_t *s = rc == 0 ? service_load(service, NULL) : NULL;
        bool done = false;
        json_object_foreach(json_object_get(s, "forms"), key, form)
            if (!done && rc == 0 && (done = look_for(a, service, key, form, &f, &taken, &rc, e)))
                found++;
        json_decref(s);
    }
    json_decref(names);
    sodium_free(f.value);
    sodium_free(f.refresh);
    if (rc == 0 && !found)
        fprintf(stderr, "No credentials of known services in the environment or in the agents' files.\n");
    else if (rc == 0 && !taken && !args_has(a, "yes") && !isatty(0))
        fprintf(stderr, "Nothing was taken; `sbx secret import --yes` takes all of them.\n");
    return rc;
}
