#include "core/kit.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/shipped.h"

static const struct {
    const char *key;
    json_type type;
    bool required;
} fields[] = {
    {"version", JSON_INTEGER, true}, {"name", JSON_STRING, true},   {"title", JSON_STRING, true}, {"install", JSON_ARRAY, true},
    {"check", JSON_STRING, false},   {"command", JSON_ARRAY, true}, {"login", JSON_TRUE, false},  {"build_hosts", JSON_ARRAY, true},
    {"hosts", JSON_ARRAY, true},     {"secrets", JSON_ARRAY, true}, {"env", JSON_OBJECT, true},   {"files", JSON_ARRAY, true},
    {"local", JSON_ARRAY, false},   {"prepare", JSON_STRING, false}, {"attention", JSON_OBJECT, false},
};

static bool strings(const json_t *list)
{
    size_t i;
    json_t *v;
    json_array_foreach((json_t *)list, i, v)
        if (!json_is_string(v) || json_string_length(v) == 0)
            return false;
    return true;
}

static int check_files(const json_t *files, const char *name, struct err *e)
{
    size_t i;
    json_t *f;
    json_array_foreach((json_t *)files, i, f) {
        const char *path = json_string_value(json_object_get(f, "path"));
        const char *mode = json_string_value(json_object_get(f, "mode"));
        if (!path || path[0] != '/' || strstr(path, "/../") || !json_is_string(json_object_get(f, "content")))
            return err_set(e, STATUS_FAILED, "kit %s: file %zu needs an absolute \"path\" and a \"content\"", name, i + 1);
        if (mode && (strlen(mode) != 4 || strspn(mode, "01234567") != 4))
            return err_set(e, STATUS_FAILED, "kit %s: the mode of %s is four octal digits", name, path);
    }
    return 0;
}

int kit_check(const json_t *kit, const char *name, struct err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(kit))
        return err_set(e, STATUS_FAILED, "kit %s is not a JSON object", name);
    json_object_foreach((json_t *)kit, key, v) {
        size_t i = 0;
        while (i < sizeof fields / sizeof *fields && strcmp(fields[i].key, key) != 0)
            i++;
        if (i == sizeof fields / sizeof *fields)
            return err_set(e, STATUS_FAILED, "kit %s: unknown key \"%s\"", name, key);
        bool ok = fields[i].type == JSON_TRUE ? json_is_boolean(v) : json_typeof(v) == fields[i].type;
        if (!ok)
            return err_set(e, STATUS_FAILED, "kit %s: \"%s\" is of the wrong type", name, key);
    }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].required && !json_object_get(kit, fields[i].key))
            return err_set(e, STATUS_FAILED, "kit %s: \"%s\" is missing", name, fields[i].key);
    if (json_integer_value(json_object_get(kit, "version")) != 1)
        return err_set(e, STATUS_FAILED, "kit %s: its version is not 1; a newer sbx made it", name);
    if (json_array_size(json_object_get(kit, "command")) == 0)
        return err_set(e, STATUS_FAILED, "kit %s: its command is empty", name);
    static const char *const lists[] = {"install", "command", "build_hosts", "hosts", "local"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (!strings(json_object_get(kit, lists[i])))
            return err_set(e, STATUS_FAILED, "kit %s: \"%s\" is a list of texts", name, lists[i]);
    json_object_foreach(json_object_get(kit, "env"), key, v)
        if (!json_is_string(v))
            return err_set(e, STATUS_FAILED, "kit %s: variable %s is not a text", name, key);
    return check_files(json_object_get(kit, "files"), name, e);
}

static const struct shipped kits = {"kits", "agents"};

json_t *kit_list(void)
{
    return shipped_names(&kits);
}

static void unknown(const char *name, struct err *e)
{
    char all[300] = "";
    size_t i, used = 0;
    json_t *list = kit_list(), *v;
    json_array_foreach(list, i, v)
        if (used < sizeof all - 60)
            used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", i ? ", " : "", json_string_value(v));
    json_decref(list);
    err_set(e, STATUS_USAGE, "there is no agent \"%s\"; there are: %s", name, all);
}

json_t *kit_load(const char *name, struct err *e)
{
    struct err why = {0};
    json_t *kit = shipped_load(&kits, name, &why);
    if (!kit) {
        if (why.status == STATUS_NOT_FOUND)
            unknown(name, e);
        else if (e)
            *e = why;
        return NULL;
    }
    if (kit_check(kit, name, e) < 0) {
        json_decref(kit);
        return NULL;
    }
    return kit;
}

static char *substitute(const char *text, const char *workspace)
{
    static const char mark[] = "${WORKSPACE}";
    size_t len = 0;
    char *out = NULL;
    FILE *mem = open_memstream(&out, &len);
    if (!mem)
        return NULL;
    for (const char *p; (p = strstr(text, mark)); text = p + sizeof mark - 1) {
        fwrite(text, 1, (size_t)(p - text), mem);
        /* The places where it stands are JSON and TOML strings: both escape alike. */
        for (const char *w = workspace; *w; w++) {
            if (*w == '"' || *w == '\\')
                fputc('\\', mem);
            fputc(*w, mem);
        }
    }
    fputs(text, mem);
    fclose(mem);
    return out;
}

void kit_seed(const json_t *kit, const char *workspace, json_t *env, json_t *files)
{
    size_t i;
    json_t *f;
    json_object_update(env, json_object_get(kit, "env"));
    json_array_foreach(json_object_get(kit, "files"), i, f) {
        json_t *copy = json_deep_copy(f);
        char *text = substitute(json_string_value(json_object_get(f, "content")), workspace ? workspace : "/home/agent");
        if (text)
            json_object_set_new(copy, "content", json_string(text));
        free(text);
        json_array_append_new(files, copy);
    }
}

void kit_recipe_hash(const json_t *kit, char out[17])
{
    unsigned char hash[16];
    char *text = json_dumps(json_object_get(kit, "install"), JSON_COMPACT);
    crypto_generichash(hash, sizeof hash, (unsigned char *)(text ? text : ""), text ? strlen(text) : 0, NULL, 0);
    free(text);
    sodium_bin2hex(out, 17, hash, 8);
}
