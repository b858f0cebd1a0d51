/* sbx secret ... */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/decisions.h"
#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/record.h"
#include "core/sanitize.h"
#include "core/service.h"
#include "ui/cli/sandbox.h"
#include "ui/cli/secret.h"

static const char *scope_text(const char *scope)
{
    return scope[0] ? scope : "(all)";
}

/* -g SERVICE, or SANDBOX SERVICE. */
static int read_scope(const struct args *a, const char **scope, const char **service, struct err *e)
{
    bool global = args_has(a, "global");
    if (a->nwords != (global ? 1 : 2))
        return err_set(e, STATUS_USAGE, global ? "give one service, like: sbx secret %s -g openai"
                                               : "for which sandbox? Give its name and the service, or -g for all: sbx secret %s -g openai",
                       a->command->name);
    *scope = global ? "" : a->words[0];
    *service = a->words[a->nwords - 1];
    if (!global) {
        struct record r;
        struct err why = {0};
        if (record_check_name(*scope, e) < 0)
            return -1;
        record_init(&r);
        int rc = record_load(&r, *scope, &why);
        record_finish(&r);
        if (rc < 0 && why.status == STATUS_NOT_FOUND)
            return err_set(e, STATUS_NOT_FOUND, "there is no sandbox named %s; for all sandboxes add -g", *scope);
    }
    return 0;
}

#define TTL_MIN 10LL
#define TTL_MAX (366LL * 86400)

/* "3600", "15m", "1h". */
static int read_ttl(const char *text, int64_t *out, struct err *e)
{
    char *end;
    long long n = strtoll(text, &end, 10), unit = *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 1;
    if (end == text || n <= 0 || (*end && (!strchr("smhd", *end) || end[1])))
        return err_set(e, STATUS_USAGE, "\"%s\" is no time; write 90s, 15m or 1h", text);
    if (n > TTL_MAX / unit)
        return err_set(e, STATUS_USAGE, "\"%s\" is longer than a year; a --ttl is for how long a value is good, like 1h", text);
    if (n * unit < TTL_MIN)
        return err_set(e, STATUS_USAGE, "\"%s\" is too short; the command is run again every %llds at most", text, TTL_MIN);
    *out = n * unit;
    return 0;
}

/* A service of the user's own: --host, --header, --format, --env.  It is kept when its first value is good. */
static json_t *define(const struct args *a, const char *name, struct err *e)
{
    const char *header = args_value(a, "header"), *format = args_value(a, "format"), *host, *env;
    json_t *write = json_array(), *names = json_array();
    bool text = true;
    char lower[SERVICE_HEADER_MAX + 2]; /* one too long stays that, and is refused */
    snprintf(lower, sizeof lower, "%s", header ? header : "authorization");
    for (char *c = lower; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    if (!format)
        format = header && strcmp(lower, "authorization") != 0 ? "{}" : "Bearer {}";
    for (int i = 0; (host = args_nth(a, "host", i)); i++) {
        char h[260];
        snprintf(h, sizeof h, "%.259s", host);
        for (char *c = h; *c; c++)
            *c = (char)tolower((unsigned char)*c);
        text &= json_array_append_new(write, json_pack("{s:s, s:s, s:s, s:s}", "host", h, "header", lower, "format", format, "mode",
                                                       args_has(a, "placeholder") ? "placeholder" : "service")) == 0;
    }
    for (int i = 0; (env = args_nth(a, "env", i)); i++)
        text &= json_array_append_new(names, json_string(env)) == 0;
    if (json_array_size(names) == 0) {
        char var[80];
        snprintf(var, sizeof var, "%.60s_API_KEY", name);
        for (char *c = var; *c; c++)
            *c = isalnum((unsigned char)*c) ? (char)toupper((unsigned char)*c) : '_';
        json_array_append_new(names, json_string(var));
    }
    json_t *o = json_pack("{s:i, s:s, s:s, s:{s:{s:o, s:o}}}", "version", 1, "name", name, "title", name, "forms", "key", "env", names,
                          "write", write);
    if (o && text && record_check_name(name, NULL) == 0 && service_check(o, name, e) == 0)
        return o;
    json_decref(o);
    if (record_check_name(name, NULL) < 0)
        err_set(e, STATUS_USAGE, "\"%.60s\" cannot be the name of a service; write letters, digits, '-', '_' and '.', at most %d", name, RECORD_NAME_MAX);
    else if (!o || !text)
        err_set(e, STATUS_USAGE, "what describes the service is not text (UTF-8); write its --host, --header, --format and --env in ASCII");
    else if (e)
        e->status = STATUS_USAGE; /* not a file that is wrong, but what was typed */
    return NULL;
}

/* Options that say nothing where they stand are mistakes, and what they were meant for would not happen. */
static int check_options(const struct args *a, struct err *e)
{
    static const char *const of_own[] = {"header", "format", "env", "placeholder"},
                      *const of_value[] = {"password-stdin", "from-env", "from-file", "command", "token", "ttl", "form", "host"};
    const bool sign_in = args_has(a, "oauth") || args_has(a, "device");
    for (size_t i = 0; !args_has(a, "host") && i < sizeof of_own / sizeof *of_own; i++)
        if (args_has(a, of_own[i]))
            return err_set(e, STATUS_USAGE, "--%s describes a service of your own; say with --host where its credential belongs", of_own[i]);
    for (size_t i = 0; sign_in && i < sizeof of_value / sizeof *of_value; i++)
        if (args_has(a, of_value[i]))
            return err_set(e, STATUS_USAGE, "a sign-in brings its own value: leave out --%s, or --%s", of_value[i], args_has(a, "oauth") ? "oauth" : "device");
    if (args_has(a, "ttl") && !args_has(a, "command"))
        return err_set(e, STATUS_USAGE, "--ttl says how long what a --command prints is good; give the command");
    return 0;
}

static int keep_own(const json_t *service, const char *name, struct err *e)
{
    char rel[100];
    snprintf(rel, sizeof rel, "services/%.80s.json", name);
    char *shipped = path_asset(rel, NULL), *own = path_in(PATH_CONFIG, NULL, "services/%s.json", name);
    bool instead = shipped && own && access(shipped, F_OK) == 0 && access(own, F_OK) < 0;
    int rc = service_save(service, e);
    if (rc == 0 && instead)
        out_notice("this takes the place of the %s that sbx knows, its hosts and its other forms; to have that back, remove %s", name, own);
    free(shipped);
    free(own);
    return rc;
}

/* A value on the command line stays in the shell's history, but at least not in the list of processes: it is taken before
 * anything is waited for.  Guarded; NULL: there is none. */
static char *take_argument(const struct args *a)
{
    const char *t = args_value(a, "token");
    size_t n = t ? strlen(t) : 0;
    char *out = t ? sodium_malloc(n + 1) : NULL;
    if (out)
        memcpy(out, t, n + 1);
    if (t)
        memset((char *)(uintptr_t)t, 'x', n);
    return out;
}

static int read_value(const struct args *a, const char *t, const char *title, char *out, struct err *e)
{
    const char *env = args_value(a, "from-env"), *file = args_value(a, "from-file"),
               *command = args_value(a, "command");
    int given = (t != NULL) + (env != NULL) + (file != NULL) + (command != NULL) + args_has(a, "password-stdin");
    if (given > 1)
        return err_set(e, STATUS_USAGE, "the value comes from one place: -t, --password-stdin, --from-env, --from-file or --command");
    if (t) {
        size_t n = strlen(t);
        if (n >= SECRET_INPUT_MAX)
            return err_set(e, STATUS_USAGE, "the value is too long");
        memcpy(out, t, n + 1);
        out_notice("a value on the command line stays in the shell's history; --password-stdin leaves no trace");
        return n ? 0 : err_set(e, STATUS_USAGE, "the value of -t is empty; nothing was changed");
    }
    if (args_has(a, "password-stdin"))
        return secret_read_fd(0, "standard input", out, SECRET_INPUT_MAX, e);
    if (env) {
        const char *v = getenv(env);
        if (!v || !v[0])
            return err_set(e, STATUS_USAGE, "the variable %s is not set here", env);
        snprintf(out, SECRET_INPUT_MAX, "%s", v);
        explicit_bzero((char *)(uintptr_t)v, strlen(v)); /* in our environment, which others of this user see */
        return 0;
    }
    if (file)
        return secret_read_file(file, out, SECRET_INPUT_MAX, e);
    if (command)
        return secret_run(command, SECRET_COMMAND_SECONDS, out, SECRET_INPUT_MAX, e);
    char prompt[120];
    snprintf(prompt, sizeof prompt, "%.80s (not shown)", title);
    if (!isatty(0))
        return err_set(e, STATUS_USAGE, "there is no terminal to ask on; give the value with --password-stdin, --from-env, --from-file or --command");
    return secret_ask(prompt, out, SECRET_INPUT_MAX, e);
}

/* The form whose keys begin as this value does, else the first. */
static const char *guess_form(const json_t *service, const char *value)
{
    const char *key, *best = NULL;
    size_t longest = 0;
    json_t *form;
    json_object_foreach(json_object_get(service, "forms"), key, form) {
        const char *prefix = json_string_value(json_object_get(form, "prefix"));
        if (prefix && strlen(prefix) > longest && strncmp(value, prefix, strlen(prefix)) == 0) {
            best = key;
            longest = strlen(prefix);
        }
    }
    return best ? best : service_first_form(service);
}

static void say_hosts(const json_t *service, const char *form, char *out, size_t cap)
{
    size_t i, used = 0;
    json_t *w;
    out[0] = '\0';
    json_array_foreach(json_object_get(service_form(service, form), "write"), i, w) {
        const char *host = json_string_value(json_object_get(w, "host"));
        bool there = false;
        for (const char *at = out; used && (at = strstr(at, host)); at++)
            there |= (at == out || at[-1] == ' ') && (at[strlen(host)] == ',' || at[strlen(host)] == '\0');
        if (there)
            continue;
        int n = snprintf(out + used, cap - used, "%s%s", used ? ", " : "", host);
        if (n < 0 || (size_t)n >= cap - used)
            break;
        used += (size_t)n;
    }
}

static int set_with(const struct args *a, const char *argument, bool must_exist, struct err *e)
{
    const char *scope, *name, *ttl = args_value(a, "ttl"), *form = args_value(a, "form");
    int64_t seconds = 3600;
    if (read_scope(a, &scope, &name, e) < 0 || check_options(a, e) < 0 || (ttl && read_ttl(ttl, &seconds, e) < 0))
        return -1;
    const bool own = args_value(a, "host") != NULL;
    json_t *service = own ? define(a, name, e) : service_load(name, e);
    if (!service)
        return -1;
    if (form && !service_form(service, form)) {
        json_decref(service);
        return err_set(e, STATUS_USAGE, "the service %s has no form \"%s\"", name, form);
    }
    if (must_exist) {
        struct secretstore *s = secretstore_open(secret_passphrase, NULL, e);
        const struct secret *old = s ? secretstore_find(s, name, scope) : NULL;
        bool there = old && strcmp(old->scope, scope) == 0;
        secretstore_free(s);
        if (!there) {
            json_decref(service);
            return s ? err_set(e, STATUS_NOT_FOUND, "there is no secret %s for %s to rotate; sbx secret set makes one", name,
                               scope[0] ? scope : "all sandboxes") : -1;
        }
    }
    int rc = -1;
    char hosts[400];
    if (args_has(a, "oauth") || args_has(a, "device")) {
        rc = oauth_sign_in(service, scope, args_has(a, "device"), e);
    } else {
        char *value = sodium_malloc(SECRET_INPUT_MAX);
        if (!value)
            err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
        else if (read_value(a, argument, service_title(service), value, e) == 0 && service_check_value(value, e) == 0 &&
                 (!own || keep_own(service, name, e) == 0)) {
            size_t n = strlen(value);
            if (strchr("\"'", value[0]) && value[n - 1] == value[0])
                out_notice("the value stands in quotation marks, and they are taken as a part of it");
            const char *command = args_value(a, "command");
            struct secret_value v = {.service = name, .scope = scope, .form = form ? form : guess_form(service, value), .value = value,
                                     .command = command, .ttl = command ? seconds : 0, .expires = command ? time(NULL) + seconds : 0};
            form = v.form;
            rc = secret_store(&v, e);
        }
        sodium_free(value);
    }
    if (rc == 0) {
        say_hosts(service, form, hosts, sizeof hosts);
        fprintf(stderr, "%s is set for %s; it is written into requests to %s, and nowhere else.\n", name,
                scope[0] ? scope : "all sandboxes", hosts[0] ? hosts : "no host");
        struct secretstore *s = secretstore_open(secret_passphrase, NULL, NULL);
        if (s && secretstore_lock_kind(s) == SECRET_LOCK_KEYFILE && secretstore_count(s) == 1)
            fprintf(stderr, "The store is locked by %s. `sbx secret lock --passphrase` chooses another lock.\n",
                    secretstore_lock_text(SECRET_LOCK_KEYFILE));
        secretstore_free(s);
    }
    json_decref(service);
    return rc;
}

static int set(const struct args *a, bool must_exist, struct err *e)
{
    char *argument = take_argument(a);
    int rc = set_with(a, argument, must_exist, e);
    sodium_free(argument);
    return rc;
}

int cmd_secret_set(const struct args *a, struct err *e)
{
    return set(a, false, e);
}

int cmd_secret_rotate(const struct args *a, struct err *e)
{
    return set(a, true, e);
}

/* ---- when a secret was last written into a request: the decision logs know ---- */

#define USE_ROWS 20000 /* the newest of each log that are looked at */

static bool note_use(const struct decision_row *row, void *arg)
{
    static const char mark[] = "with the credential of ";
    json_t *used = arg;
    if (strcmp(row->kind, "request") != 0 || strncmp(row->reason, mark, sizeof mark - 1) != 0)
        return true;
    char copy[200], *save = NULL;
    snprintf(copy, sizeof copy, "%s", row->reason + sizeof mark - 1);
    for (char *p = strtok_r(copy, ", ", &save); p; p = strtok_r(NULL, ", ", &save))
        if (json_integer_value(json_object_get(used, p)) < row->time_ms / 1000)
            json_object_set_new(used, p, json_integer(row->time_ms / 1000));
    return true;
}

/* {sandbox: {service: seconds}} */
static json_t *last_uses(void)
{
    const struct decisions_filter filter = {.verdict = "allow", .limit = USE_ROWS};
    json_t *all = json_object();
    char **names;
    int n = record_list(&names, NULL);
    for (int i = 0; i < n; i++) {
        json_t *used = json_object();
        char *path = path_sandbox(names[i], "log.db", NULL);
        struct decisions *d = path ? decisions_read(path, NULL) : NULL;
        if (d)
            decisions_each(d, &filter, note_use, used, NULL);
        decisions_close(d);
        free(path);
        json_object_set_new(all, names[i], used);
    }
    if (n >= 0)
        record_list_free(names, n);
    return all;
}

/* A sandbox that has a secret of its own did not use the global one; close enough for an age. */
static int64_t last_use(const json_t *uses, const struct secret *r)
{
    int64_t last = 0;
    const char *name;
    json_t *used;
    json_object_foreach((json_t *)uses, name, used) {
        int64_t at = json_integer_value(json_object_get(used, r->service));
        if ((!r->scope[0] || strcmp(r->scope, name) == 0) && at > last)
            last = at;
    }
    return last;
}

int cmd_secret_ls(const struct args *a, struct err *e)
{
    static const char *const headers[] = {"SERVICE", "FOR", "FORM", "HOSTS", "AGE", "LAST USE", "EXPIRES"};
    struct secretstore *s = secretstore_open(secret_passphrase, NULL, e);
    if (!s)
        return -1;
    bool json = args_has(a, "json");
    json_t *all = json_array();
    struct table *t = json ? NULL : table_new(7, headers);
    json_t *uses = last_uses();
    for (size_t i = 0; i < secretstore_count(s); i++) {
        const struct secret *r = secretstore_at(s, i);
        int64_t used = last_use(uses, r);
        char hosts[400] = "(no such service any more)", expires[64] = "-";
        json_t *service = service_load(r->service, NULL);
        if (service)
            say_hosts(service, r->form, hosts, sizeof hosts);
        json_decref(service);
        if (json) {
            json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:b}", "service", r->service, "sandbox", r->scope, "form",
                                                 r->form, "hosts", hosts, "created", (json_int_t)r->created, "updated",
                                                 (json_int_t)r->updated, "last_use", (json_int_t)used, "expires", (json_int_t)r->expires, "renewable",
                                                 r->refresh[0] || r->command[0], "command", r->command[0] != 0));
            continue;
        }
        if (r->expires && r->expires < time(NULL))
            snprintf(expires, sizeof expires, "expired");
        else if (r->expires)
            snprintf(expires, sizeof expires, "in %lld min%s", (long long)(r->expires - time(NULL)) / 60, r->refresh[0] || r->command[0] ? ", renewed" : "");
        const char *cells[] = {r->service, scope_text(r->scope), r->form, hosts, human_ago(r->updated), used ? human_ago(used) : "-", expires};
        table_row(t, cells);
    }
    if (json)
        out_json(all);
    table_print(t, "No secrets yet. Set one with: sbx secret set -g anthropic");
    json_decref(all);
    json_decref(uses);
    secretstore_free(s);
    return 0;
}

int cmd_secret_rm(const struct args *a, struct err *e)
{
    const char *scope, *name;
    if (read_scope(a, &scope, &name, e) < 0)
        return -1;
    struct secretstore *s = secretstore_begin(secret_passphrase, NULL, e);
    if (!s)
        return -1;
    int rc = secretstore_remove(s, name, scope) ? secretstore_save(s, e)
                                                : err_set(e, STATUS_NOT_FOUND, "there is no secret %s for %s; sbx secret ls lists them", name,
                                                          scope[0] ? scope : "all sandboxes");
    secretstore_free(s);
    if (rc == 0)
        secret_tell(scope);
    return rc;
}

static int renew(const char *service, const char *scope, secretstore_ask_fn *ask, struct err *e);

/* The credential as it stands in a request: a header, or "ID:KEY" that signs it and, of a session, a header with its token. */
static bool render(const struct service_write *w, const struct secret *r, const char *sigv4, char *written, char *line, size_t cap, struct secret_http *req)
{
    if (w->kind != SERVICE_SIGV4) {
        if (service_render(w, r->value, written, cap) < 0)
            return false;
        snprintf(line, cap, "%s: %s", w->header, written);
        req->headers[0] = line;
        return true;
    }
    size_t id = strcspn(r->value, ":"), key = r->value[id] ? strcspn(r->value + id + 1, ":") : 0;
    if (!sigv4 || key == 0)
        return false;
    snprintf(written, cap, "%.*s", (int)(id + 1 + key), r->value);
    req->sigv4 = sigv4;
    req->login = written;
    if (r->value[id + 1 + key]) {
        snprintf(line, cap, "x-amz-security-token: %s", r->value + id + 2 + key);
        req->headers[0] = line;
    }
    return true;
}

/* Where the test of a service goes: "https://{VARIABLE}/..." is at the host that the user's variable names, itself or as an
 * address.  false: it names none. */
static bool test_url(const char *name, const char *text, char *out, size_t cap, struct err *e)
{
    size_t n = strncmp(text, "https://{", 9) == 0 ? strcspn(text + 9, "}") : 0;
    if (n == 0)
        return snprintf(out, cap, "%s", text) < (int)cap;
    char variable[64], host[256];
    snprintf(variable, sizeof variable, "%.*s", (int)n, text + 9);
    const char *said = getenv(variable), *at = said ? said : "";
    at += strncmp(at, "https://", 8) == 0 ? 8 : 0;
    snprintf(host, sizeof host, "%.*s", (int)strcspn(at, "/:?#"), at);
    for (char *c = host; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    if (!host[0] || host[strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789-.")]) {
        err_set(e, STATUS_FAILED, "which host of %s is yours? Say it, and try again: export %s=https://...", name, variable);
        return false;
    }
    return snprintf(out, cap, "https://%s%s", host, text + 9 + n + 1) < (int)cap;
}

/* A form's content with the value in it. */
static bool test_content(const char *text, const char *value, char *out, size_t cap)
{
    const char *gap = strstr(text, "{}");
    int n = gap ? snprintf(out, cap, "%.*s", (int)(gap - text), text) : -1;
    for (const char *c = value; n >= 0 && n < (int)cap && *c; c++)
        n += snprintf(out + n, cap - (size_t)n, isalnum((unsigned char)*c) || strchr("-._~", *c) ? "%c" : "%%%02X", (unsigned char)*c);
    if (n >= 0 && n < (int)cap)
        n += snprintf(out + n, cap - (size_t)n, "%s", gap + 2);
    return n >= 0 && n < (int)cap;
}

int cmd_secret_test(const struct args *a, struct err *e)
{
    const char *name = a->words[a->nwords - 1], *scope = "";
    if ((a->nwords == 2 || args_has(a, "global")) && read_scope(a, &scope, &name, e) < 0)
        return -1;
    json_t *service = service_load(name, e);
    struct secretstore *s = service ? secretstore_open(secret_passphrase, NULL, e) : NULL;
    const struct secret *r = s ? secretstore_find(s, name, scope) : NULL;
    struct err old = {0};
    if (r && secret_is_due(r, time(NULL))) { /* what is used now is not what ran out while nothing used it */
        if (renew(name, r->scope, secret_passphrase, &old) < 0)
            out_notice("what is tested is the value that was there before");
        secretstore_free(s);
        s = secretstore_open(secret_passphrase, NULL, e);
        r = s ? secretstore_find(s, name, scope) : NULL;
    }
    const json_t *test = json_object_get(service, "test");
    const char *url = json_string_value(json_object_get(test, "url")), *none = json_string_value(json_object_get(test, "none"));
    const char *content = json_string_value(json_object_get(test, "content"));
    struct service_write w;
    char host[260] = "", path[300] = "/", where[1024] = "", *written = sodium_malloc(SECRET_INPUT_MAX * 2), *line = sodium_malloc(SECRET_INPUT_MAX * 2 + 128), *body = NULL;
    int rc = -1;
    bool placed = !r || !url || test_url(name, url, where, sizeof where, e);
    url = url && placed ? where : url;
    struct secret_http req = {.url = url};
    if (url)
        snprintf(host, sizeof host, "%.*s", (int)strcspn(url + 8, "/:?"), url + 8);
    const char *slash = url ? strchr(url + 8, '/') : NULL;
    if (slash)
        snprintf(path, sizeof path, "%.*s", (int)strcspn(slash, "?"), slash);
    if (s && !r)
        err_set(e, STATUS_NOT_FOUND, "there is no secret %s; set it with: sbx secret set -g %s", name, name);
    else if (r && none)
        err_set(e, STATUS_FAILED, "a secret of %s cannot be tested: %s", name, none);
    else if (r && !url)
        err_set(e, STATUS_FAILED, "no request is known that tests a secret of %s without doing anything", name);
    else if (r && placed && written && line &&
             (content ? test_content(content, r->value, written, SECRET_INPUT_MAX * 2)
                      : service_writes(service, r->form, host, 443, path, &w) &&
                            render(&w, r, json_string_value(json_object_get(test, "sigv4")), written, line, SECRET_INPUT_MAX * 2, &req))) {
        req.post = content ? written : NULL;
        char extra[6][300];
        size_t n = req.headers[0] != NULL, k = 0, len = 0;
        const char *key;
        json_t *v;
        json_object_foreach(json_object_get(test, "headers"), key, v)
            if (k < 6) {
                snprintf(extra[k], sizeof extra[0], "%.100s: %.180s", key, json_string_value(v));
                req.headers[n++] = extra[k++];
            }
        long status = secret_http(&req, &body, &len, e);
        if (status >= 200 && status < 300) {
            printf("%s: the provider accepts it (%s answered %ld)\n", name, host, status);
            rc = 0;
        } else if (status == 401 || status == 403 || (status > 0 && status == json_integer_value(json_object_get(test, "denies"))))
            err_set(e, STATUS_DENIED, "%s: the provider does not accept it (%s answered %ld)", name, host, status);
        else if (status >= 0)
            err_set(e, STATUS_FAILED, "%s: %s answered %ld, which says nothing of the key", name, host, status);
    } else if (r && placed)
        err_set(e, STATUS_FAILED, "the form \"%s\" of %s is not written to %s, where the test goes", r->form, name, host);
    if (body)
        explicit_bzero(body, strlen(body));
    free(body);
    sodium_free(written);
    sodium_free(line);
    secretstore_free(s);
    json_decref(service);
    return rc;
}

int cmd_secret_services(const struct args *a, struct err *e)
{
    static const char *const headers[] = {"SERVICE", "TITLE", "FORMS", "VARIABLES", "HOSTS"};
    (void)e;
    bool json = args_has(a, "json");
    json_t *names = service_list(), *name, *all = json_array(), *v, *form;
    struct table *t = json ? NULL : table_new(5, headers);
    size_t i, k;
    json_array_foreach(names, i, name) {
        struct err why = {0};
        json_t *s = service_load(json_string_value(name), &why);
        if (!s) {
            out_error(why.text);
            continue;
        }
        if (json) {
            json_array_append_new(all, s);
            continue;
        }
        char forms[200] = "", vars[300] = "", hosts[400];
        const char *key;
        json_object_foreach(json_object_get(s, "forms"), key, form) {
            snprintf(forms + strlen(forms), sizeof forms - strlen(forms), "%s%s", forms[0] ? ", " : "", key);
            json_array_foreach(json_object_get(form, "env"), k, v)
                snprintf(vars + strlen(vars), sizeof vars - strlen(vars), "%s%s", vars[0] ? ", " : "", json_string_value(v));
        }
        say_hosts(s, NULL, hosts, sizeof hosts);
        const char *cells[] = {json_string_value(name), service_title(s), forms, vars, hosts};
        table_row(t, cells);
        json_decref(s);
    }
    if (json)
        out_json(all);
    table_print(t, "No services are known.");
    json_decref(all);
    json_decref(names);
    return 0;
}

/* ---- the store's own lock ---- */

int cmd_secret_lock(const struct args *a, struct err *e)
{
    int given = args_has(a, "passphrase") + args_has(a, "keyfile") + args_has(a, "systemd") + args_has(a, "keyring");
    struct secretstore *s = secretstore_begin(secret_passphrase, NULL, e);
    if (!s)
        return -1;
    int rc = 0;
    if (given > 1)
        rc = err_set(e, STATUS_USAGE, "the store has one lock: --keyring, --passphrase, --keyfile or --systemd");
    else if (given == 0)
        printf("locked by %s\n", secretstore_lock_text(secretstore_lock_kind(s)));
    else {
        enum secret_lock kind = args_has(a, "passphrase") ? SECRET_LOCK_PASSPHRASE : args_has(a, "systemd") ? SECRET_LOCK_SYSTEMD
                                : args_has(a, "keyring") ? SECRET_LOCK_KEYRING : SECRET_LOCK_KEYFILE;
        char *one = sodium_malloc(1024), *two = sodium_malloc(1024);
        if (!one || !two)
            rc = err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
        else if (kind == SECRET_LOCK_PASSPHRASE && args_has(a, "password-stdin"))
            rc = secret_read_fd(0, "standard input", one, 1024, e);
        else if (kind == SECRET_LOCK_PASSPHRASE) {
            rc = secret_ask("New passphrase", one, 1024, e);
            if (rc == 0)
                rc = secret_ask("Once more", two, 1024, e);
            if (rc == 0 && strcmp(one, two) != 0)
                rc = err_set(e, STATUS_USAGE, "they are not the same; nothing was changed");
        }
        if (rc == 0)
            rc = secretstore_relock(s, kind, one, e) < 0 ? -1 : secretstore_save(s, e);
        if (rc == 0) {
            secret_tell("");
            secretstore_settle(s);
            rc = secretstore_save(s, e);
        }
        if (rc == 0)
            printf("locked by %s\n", secretstore_lock_text(kind));
        sodium_free(one);
        sodium_free(two);
    }
    secretstore_free(s);
    if (rc == 0 && given)
        secret_tend_authority(false); /* a passphrase may be asked for again where the kernel keeps none */
    return rc;
}

int cmd_secret_unlock(const struct args *a, struct err *e)
{
    (void)a;
    struct secretstore *s = secretstore_open(secret_passphrase, NULL, e);
    if (!s)
        return -1;
    fprintf(stderr, "The store is open: %zu secret%s.\n", secretstore_count(s), secretstore_count(s) == 1 ? "" : "s");
    secretstore_free(s);
    secret_tend_authority(true);
    return 0;
}

/* ---- renewing ---- */

/* Puts the new value into the store, unless somebody set, removed or renewed that secret meanwhile. */
static int keep_renewed(const struct secret *old, const struct secret *fresh, secretstore_ask_fn *ask, struct err *e)
{
    struct secretstore *s = secretstore_begin(ask, NULL, e);
    const struct secret *now = s ? secretstore_find(s, old->service, old->scope) : NULL;
    bool same = now && strcmp(now->scope, old->scope) == 0 && strcmp(now->value, old->value) == 0 && strcmp(now->refresh, old->refresh) == 0 &&
                strcmp(now->command, old->command) == 0;
    int rc = !s ? -1 : !same ? 0 : secretstore_put(s, fresh, e) < 0 ? -1 : secretstore_save(s, e);
    secretstore_free(s);
    return rc;
}

static int renew_one(const struct secret *old, secretstore_ask_fn *ask, struct err *e)
{
    struct secret r = *old;
    char *value = sodium_malloc(SECRET_INPUT_MAX), *again = sodium_malloc(SECRET_INPUT_MAX);
    int rc = value && again ? 0 : err_set(e, STATUS_FAILED, "there is no memory that can be locked for secrets");
    if (rc == 0 && r.command[0]) {
        rc = secret_run(r.command, SECRET_COMMAND_SECONDS, value, SECRET_INPUT_MAX, e);
        r.expires = time(NULL) + r.command_ttl;
    } else if (rc == 0) {
        json_t *service = service_load(r.service, e);
        rc = service ? oauth_refresh(service, r.refresh, value, again, SECRET_INPUT_MAX, &r.expires, e) : -1;
        if (rc == 0 && again[0])
            r.refresh = again;
        json_decref(service);
    }
    if (rc == 0 && (rc = service_check_value(value, e)) == 0) {
        r.value = value;
        r.updated = time(NULL);
        rc = keep_renewed(old, &r, ask, e);
    }
    sodium_free(value);
    sodium_free(again);
    return rc < 0 ? err_wrap(e, "%s (%s) could not be renewed", old->service, scope_text(old->scope)) : 0;
}

/* Of one service, or of all (NULL).  A refresh token is good once, so one process at a time does this; the store itself is
 * not locked while a provider or a command is waited for. */
static int renew(const char *service, const char *scope, secretstore_ask_fn *ask, struct err *e)
{
    char *dir = path_in(PATH_DATA, e, "secrets"), *path = path_in(PATH_DATA, e, "secrets/renewal");
    int lock = dir && path && path_mkdirs(dir, 0700, e) == 0 ? jsonfile_lock(path, e) : -1, failed = 0;
    struct secretstore *s = lock >= 0 ? secretstore_open(ask, NULL, e) : NULL;
    for (size_t i = 0; s && i < secretstore_count(s); i++) {
        const struct secret *r = secretstore_at(s, i);
        struct err why = {0};
        if ((service && (strcmp(r->service, service) != 0 || strcmp(r->scope, scope) != 0)) || !secret_is_due(r, time(NULL)) || renew_one(r, ask, &why) == 0)
            continue;
        out_error(why.text);
        failed++;
    }
    int rc = s ? 0 : -1;
    secretstore_free(s);
    if (lock >= 0)
        close(lock);
    free(path);
    free(dir);
    return failed ? err_set(e, STATUS_FAILED, "%d of the secrets could not be renewed", failed) : rc;
}

/* Run by supervisors. */
int cmd_secret_renew(const struct args *a, struct err *e)
{
    (void)a;
    return renew(NULL, NULL, NULL, e);
}

/* Run by supervisors, with the pipe of the broker as standard input: lines of "SERVICE FORM VALUE SENTINEL REFRESH SECONDS". */
int cmd_secret_take(const struct args *a, struct err *e)
{
    const size_t cap = 65536;
    char *text = sodium_malloc(cap), *line = text;
    ssize_t n = text ? read(0, text, cap - 1) : -1;
    struct secretstore *s = n > 0 ? secretstore_begin(NULL, NULL, e) : NULL;
    int rc = s ? 0 : n > 0 ? -1 : err_set(e, STATUS_FAILED, "there is nothing to take: this is run by sbx itself");
    if (n >= 0)
        text[n] = '\0';
    for (char *next; rc == 0 && *line; line = next) {
        char *field[6], *at = line;
        size_t k = 0;
        next = strchrnul(line, '\n');
        if (*next)
            *next++ = '\0';
        while (k < 6 && (field[k] = strsep(&at, " ")))
            k++;
        if (k != 6 || at) {
            rc = err_set(e, STATUS_FAILED, "the broker's record of a sign-in is malformed");
            break;
        }
        /* Between the broker's look and now the user may have set one: that one counts. */
        if (secretstore_find(s, field[0], a->words[0]))
            continue;
        long long life = strtoll(field[5], NULL, 10);
        const struct secret r = {.service = field[0], .scope = a->words[0], .form = field[1], .value = field[2], .sentinel = field[3],
                                 .refresh = strcmp(field[4], "-") == 0 ? "" : field[4], .created = time(NULL), .updated = time(NULL),
                                 .expires = life > 0 ? time(NULL) + life : 0};
        rc = service_check_value(r.value, e) < 0 || service_check_value(r.sentinel, e) < 0 ? -1 : secretstore_put(s, &r, e);
    }
    rc = rc == 0 ? secretstore_save(s, e) : rc;
    secretstore_free(s);
    sodium_free(text);
    return rc;
}
