#include "core/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/proxyurl.h"

static const struct config_key keys[] = {
    {"vm.accel", CONFIG_CHOICE, "\"auto\"", "auto|kvm|tcg", "hardware virtualisation, emulation, or what works"},
    {"vm.allow_emulation", CONFIG_BOOL, "true", NULL, "may a sandbox run under emulation, which is no security boundary"},
    {"vm.clone", CONFIG_BOOL, "true", NULL, "start by cloning a machine that was booted once"},
    {"vm.cpus", CONFIG_INT, "2", "1..64", "virtual processors of a new sandbox"},
    {"vm.memory", CONFIG_INT, "2048", "256..1048576", "memory of a new sandbox, MiB"},
    {"vm.disk", CONFIG_INT, "20480", "1024..8388608", "largest size of a new sandbox's disk, MiB (it is sparse)"},
    {"limit.cpu", CONFIG_INT, "0", "0..6400", "processor time of a whole sandbox, per cent of one processor; 0: no limit"},
    {"limit.memory", CONFIG_INT, "0", "0..1048576", "memory of a whole sandbox with its helpers, MiB; 0: no limit"},
    {"limit.pids", CONFIG_INT, "0", "0..100000", "processes and threads of a whole sandbox on this host; 0: no limit"},
    {"limit.io", CONFIG_INT, "0", "0..1048576", "what a whole sandbox reads, and writes, of the disk, MiB a second; 0: no limit"},
    {"limit.keep_free", CONFIG_INT, "512", "0..1048576", "room on this host's disks that no sandbox can fill, MiB: it is paused before"},
    {"workspace.protect_git", CONFIG_BOOL, "true", NULL, "are .git/config and .git/hooks of a shared repository read-only for sandboxes"},
    {"workspace.hide", CONFIG_LIST, "[]", NULL, "what sandboxes do not see of shared folders, like **/.env"},
    {"workspace.readonly", CONFIG_LIST, "[]", NULL, "what sandboxes cannot change of shared folders, like Makefile"},
    {"net.map", CONFIG_MAP, "{}", NULL, "HOST[:PORT]=ADDRESS:PORT: dial this host elsewhere; rules still speak of the host"},
    {"net.outside", CONFIG_LIST, "[]", NULL, "address ranges that count as outside although they are not global"},
    {"net.proxy", CONFIG_STRING, "\"\"", NULL, "http://HOST:PORT of the proxy that this network leaves through; its login: sbx secret set -g proxy"},
    {"net.proxy_except", CONFIG_LIST, "[]", NULL, "hosts and address ranges that are dialled directly, like **.corp.example and 10.0.0.0/8"},
    {"net.proxy_names", CONFIG_BOOL, "false", NULL, "does the proxy get names, not the addresses that were checked; what does not resolve here is then its own to judge"},
    {"net.ca", CONFIG_LIST, "[]", NULL, "files of further certificate authorities that upstream servers may use"},
    {"net.ask_seconds", CONFIG_INT, "60", "5..120", "how long a connection waits for an answer in ask mode"},
    {"net.log_rows", CONFIG_INT, "500000", "1000..100000000", "rows kept of each sandbox's network log; the oldest go first"},
    {"net.log_days", CONFIG_INT, "90", "0..3650", "days that rows of the network log are kept; 0: as long as there is room"},
    {"attach.prefix", CONFIG_STRING, "\"ctrl-]\"", NULL, "the key that precedes commands of an attached terminal"},
    {"attach.clipboard", CONFIG_LIST, "[]", NULL, "sandboxes whose programs may copy to your clipboard (OSC 52); * for all; none can read it"},
    {"attach.scrollback", CONFIG_INT, "10000", "0..1000000", "lines of scrollback kept for each session"},
    {"ui.theme", CONFIG_STRING, "\"auto\"", NULL, "of the dashboard: auto, dark, light, contrast, monochrome, or one of your own"},
    {"ui.mouse", CONFIG_BOOL, "true", NULL, "does the dashboard take the mouse"},
    {"ui.notify", CONFIG_CHOICE, "\"bell\"", "off|bell|osc9|osc777", "how the dashboard tells your terminal that an agent waits"},
    {NULL, 0, NULL, NULL, NULL},
};

const struct config_key *config_keys(void)
{
    return keys;
}

const struct config_key *config_find(const char *name)
{
    for (const struct config_key *k = keys; k->name; k++)
        if (strcmp(k->name, name) == 0)
            return k;
    return NULL;
}

static bool is_choice(const char *choices, const char *v)
{
    size_t n = strlen(v);
    for (const char *p = choices; *p;) {
        size_t len = strcspn(p, "|");
        if (len == n && strncmp(p, v, n) == 0)
            return true;
        p += len + (p[len] == '|');
    }
    return false;
}

static bool all_strings(const json_t *v)
{
    size_t i;
    json_t *item;
    const char *key;
    if (json_is_object(v)) {
        json_object_foreach((json_t *)v, key, item)
            if (!json_is_string(item))
                return false;
    } else {
        json_array_foreach(v, i, item)
            if (!json_is_string(item))
                return false;
    }
    return true;
}

static int check(const struct config_key *k, const json_t *v, struct err *e)
{
    switch (k->type) {
    case CONFIG_BOOL:
        return json_is_boolean(v) ? 0 : err_set(e, STATUS_USAGE, "%s is true or false", k->name);
    case CONFIG_INT: {
        long long min = atoll(k->choices), max = atoll(strstr(k->choices, "..") + 2);
        if (json_is_integer(v) && json_integer_value(v) >= min && json_integer_value(v) <= max)
            return 0;
        return err_set(e, STATUS_USAGE, "%s is a whole number from %lld to %lld", k->name, min, max);
    }
    case CONFIG_CHOICE:
        if (json_is_string(v) && is_choice(k->choices, json_string_value(v)))
            return 0;
        return err_set(e, STATUS_USAGE, "%s is one of %s", k->name, k->choices);
    case CONFIG_STRING:
        if (strcmp(k->name, "net.proxy") == 0 && json_is_string(v) && json_string_value(v)[0]) {
            struct proxy_url url;
            int rc = proxy_url_parse(json_string_value(v), &url, e);
            explicit_bzero(&url, sizeof url);
            return rc;
        }
        return json_is_string(v) ? 0 : err_set(e, STATUS_USAGE, "%s is a text", k->name);
    case CONFIG_LIST:
        if (json_is_array(v) && all_strings(v))
            return 0;
        return err_set(e, STATUS_USAGE, "%s is a list of texts", k->name);
    case CONFIG_MAP:
        if (json_is_object(v) && all_strings(v))
            return 0;
        return err_set(e, STATUS_USAGE, "%s maps texts to texts: KEY=VALUE,KEY=VALUE", k->name);
    }
    return -1;
}

static json_t *fallback(const struct config_key *k)
{
    return json_loads(k->fallback, JSON_DECODE_ANY, NULL);
}

/* What the file holds, checked; an empty object if there is none. */
static json_t *load_file(const char *path, struct err *e)
{
    struct err why = {0};
    json_t *o = jsonfile_read(path, &why);
    if (!o && why.status == STATUS_NOT_FOUND)
        return json_object();
    if (!o) {
        if (e)
            *e = why;
        return NULL;
    }
    const char *name;
    json_t *v;
    json_object_foreach(o, name, v) {
        const struct config_key *k = config_find(name);
        int bad = 0;
        if (strcmp(name, "version") == 0)
            bad = json_integer_value(v) > 1 ? err_set(e, STATUS_FAILED, "it was written by a newer sbx (version %lld); update sbx",
                                                      (long long)json_integer_value(v)) : 0;
        else if (!k)
            bad = err_set(e, STATUS_FAILED, "unknown setting \"%s\"; sbx config ls lists them", name);
        else if (k && check(k, v, e) < 0)
            bad = -1;
        if (bad) {
            err_wrap(e, "%s", path);
            json_decref(o);
            return NULL;
        }
    }
    return o;
}

json_t *config_load(struct err *e)
{
    char *path = path_in(PATH_CONFIG, e, "config.json");
    json_t *o = path ? load_file(path, e) : NULL;
    free(path);
    if (o)
        for (const struct config_key *k = keys; k->name; k++)
            if (!json_object_get(o, k->name))
                json_object_set_new(o, k->name, fallback(k));
    return o;
}

json_t *config_value(const json_t *config, const char *name)
{
    return json_object_get(config, name);
}

/* A new reference; the default if the file is unusable. */
static json_t *one(const char *name, struct err *e)
{
    json_t *all = config_load(e);
    json_t *v = all ? json_incref(config_value(all, name)) : fallback(config_find(name));
    json_decref(all);
    return v;
}

bool config_bool(const char *name, struct err *e)
{
    json_t *v = one(name, e);
    bool b = json_is_true(v);
    json_decref(v);
    return b;
}

json_int_t config_int(const char *name, struct err *e)
{
    json_t *v = one(name, e);
    json_int_t n = json_integer_value(v);
    json_decref(v);
    return n;
}

char *config_string(const char *name, struct err *e)
{
    json_t *v = one(name, e);
    char *s = strdup(json_is_string(v) ? json_string_value(v) : "");
    json_decref(v);
    return s;
}

static json_t *split(const char *text, bool map)
{
    json_t *out = map ? json_object() : json_array();
    char *copy = strdup(text), *save = NULL;
    for (char *item = copy ? strtok_r(copy, ",", &save) : NULL; item; item = strtok_r(NULL, ",", &save)) {
        if (!map) {
            json_array_append_new(out, json_string(item));
            continue;
        }
        char *eq = strchr(item, '=');
        if (!eq || eq == item) {
            json_decref(out);
            out = NULL;
            break;
        }
        *eq = '\0';
        json_object_set_new(out, item, json_string(eq + 1));
    }
    free(copy);
    return out;
}

static json_t *parse(const struct config_key *k, const char *text)
{
    json_t *v = NULL;
    if (k->type == CONFIG_BOOL || k->type == CONFIG_INT || text[0] == '[' || text[0] == '{')
        v = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    else if (k->type == CONFIG_LIST || k->type == CONFIG_MAP)
        v = split(text, k->type == CONFIG_MAP);
    else
        v = json_string(text);
    return v ? v : json_null();
}

json_t *config_parse(const char *name, const char *text, struct err *e)
{
    const struct config_key *k = config_find(name);
    json_t *v = k ? parse(k, text) : NULL;
    if (!k)
        err_set(e, STATUS_USAGE, "there is no setting \"%s\"; sbx config ls lists them", name);
    if (v && check(k, v, e) < 0) {
        json_decref(v);
        v = NULL;
    }
    return v;
}

int config_set(const char *name, const char *text, struct err *e)
{
    const struct config_key *k = config_find(name);
    if (!k)
        return err_set(e, STATUS_USAGE, "there is no setting \"%s\"; sbx config ls lists them", name);
    char *path = path_in(PATH_CONFIG, e, "config.json");
    int lock = path ? jsonfile_lock(path, e) : -1;
    json_t *o = lock >= 0 ? load_file(path, e) : NULL;
    int rc = -1;
    if (o) {
        json_t *v = text ? parse(k, text) : NULL;
        if (!v)
            json_object_del(o, name);
        else if (check(k, v, e) == 0)
            json_object_set(o, name, v);
        else
            goto out_value;
        json_object_set_new(o, "version", json_integer(1));
        rc = jsonfile_update(path, o, 0600, e);
    out_value:
        json_decref(v);
    }
    json_decref(o);
    if (lock >= 0)
        close(lock);
    free(path);
    return rc;
}
