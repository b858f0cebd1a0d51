#include "core/record.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"

#define RECORD_VERSION 1

int record_check_name(const char *name, struct err *e)
{
    size_t n = strlen(name);
    if (n == 0)
        return err_set(e, STATUS_USAGE, "a sandbox name must not be empty");
    if (n > RECORD_NAME_MAX)
        return err_set(e, STATUS_USAGE, "sandbox name is %zu characters long; at most %d are allowed", n,
                       RECORD_NAME_MAX);
    if (!isalnum((unsigned char)name[0]))
        return err_set(e, STATUS_USAGE, "sandbox name \"%s\" must begin with a letter or a digit", name);
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i]))
            return err_set(e, STATUS_USAGE,
                           "sandbox name \"%s\" may hold only letters, digits, '-', '_' and '.'", name);
    return 0;
}

void record_derive_name(char out[RECORD_NAME_MAX + 1], const char *agent, const char *folder)
{
    const char *last = folder ? strrchr(folder, '/') : NULL;
    const char *parts[] = {agent, folder ? (last ? last + 1 : folder) : NULL};
    size_t used = 0;
    for (int p = 0; p < 2; p++) {
        if (!parts[p] || !parts[p][0])
            continue;
        if (used && used < RECORD_NAME_MAX)
            out[used++] = '-';
        /* Leave room for a number that makes it unique. */
        for (const char *s = parts[p]; *s && used < RECORD_NAME_MAX - 4; s++) {
            char c = isalnum((unsigned char)*s) || strchr("_.", *s) ? (char)tolower((unsigned char)*s) : '-';
            if (c == '-' && (used == 0 || out[used - 1] == '-'))
                continue;
            out[used++] = c;
        }
    }
    while (used && strchr("-_.", out[used - 1]))
        used--;
    out[used] = '\0';
    if (!isalnum((unsigned char)out[0]))
        strcpy(out, "sandbox");
}

void record_init(struct record *r)
{
    memset(r, 0, sizeof *r);
}

void record_finish(struct record *r)
{
    free(r->agent);
    free(r->template);
    free(r->image);
    for (unsigned i = 0; i < r->nfolders; i++)
        free(r->folders[i].path);
    json_decref(r->env);
    json_decref(r->publish);
    json_decref(r->extra);
    record_init(r);
}

int record_add_folder(struct record *r, const char *path, bool read_only, struct err *e)
{
    if (r->nfolders == RECORD_FOLDERS_MAX)
        return err_set(e, STATUS_USAGE, "at most %d folders can be given", RECORD_FOLDERS_MAX);
    char *copy = strdup(path);
    if (!copy)
        return err_set(e, STATUS_FAILED, "out of memory");
    r->folders[r->nfolders++] = (struct record_folder){copy, read_only};
    return 0;
}

static void set_string(json_t *o, const char *key, const char *value)
{
    if (value)
        json_object_set_new(o, key, json_string(value));
}

json_t *record_to_json(const struct record *r)
{
    json_t *o = r->extra ? json_deep_copy(r->extra) : json_object();
    json_object_set_new(o, "version", json_integer(RECORD_VERSION));
    set_string(o, "name", r->name);
    set_string(o, "agent", r->agent);
    set_string(o, "template", r->template);
    set_string(o, "image", r->image);
    json_t *folders = json_array();
    for (unsigned i = 0; i < r->nfolders; i++)
        json_array_append_new(folders, json_pack("{s:s, s:b}", "path", r->folders[i].path, "read_only",
                                                 r->folders[i].read_only));
    json_object_set_new(o, "folders", folders);
    json_object_set_new(o, "cpus", json_integer(r->cpus));
    json_object_set_new(o, "memory_mib", json_integer(r->memory_mib));
    json_object_set_new(o, "disk_mib", json_integer(r->disk_mib));
    json_object_set_new(o, "env", r->env ? json_deep_copy(r->env) : json_object());
    json_object_set_new(o, "publish", r->publish ? json_deep_copy(r->publish) : json_array());
    json_object_set_new(o, "created", json_integer(r->created));
    return o;
}

static int take_string(json_t *o, const char *key, char **out)
{
    json_t *v = json_object_get(o, key);
    if (!v)
        return 0;
    if (!json_is_string(v))
        return -1;
    *out = strdup(json_string_value(v));
    return *out ? json_object_del(o, key) : -1;
}

static int take_count(json_t *o, const char *key, unsigned *out)
{
    json_t *v = json_object_get(o, key);
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < 0 || n > INT_MAX)
        return -1;
    *out = (unsigned)n;
    return json_object_del(o, key);
}

static int take_container(json_t *o, const char *key, json_type type, json_t **out)
{
    json_t *v = json_object_get(o, key);
    if (!v)
        return 0;
    if (json_typeof(v) != type)
        return -1;
    *out = json_incref(v);
    return json_object_del(o, key);
}

/* Consumes the known keys; what remains is `extra`. */
static int from_json(struct record *r, json_t *o, const char *name, struct err *e)
{
    json_t *version = json_object_get(o, "version");
    if (json_integer_value(version) > RECORD_VERSION)
        return err_set(e, STATUS_FAILED,
                       "sandbox %s was made by a newer sbx (record version %lld); update sbx", name,
                       (long long)json_integer_value(version));
    json_object_del(o, "version");
    json_object_del(o, "name");
    strcpy(r->name, name);
    json_t *folders = json_incref(json_object_get(o, "folders"));
    json_object_del(o, "folders");
    size_t i;
    json_t *f;
    int r_folders = 0;
    json_array_foreach(folders, i, f) {
        const char *path = json_string_value(json_object_get(f, "path"));
        if (!path || path[0] != '/' ||
            record_add_folder(r, path, json_is_true(json_object_get(f, "read_only")), e) < 0)
            r_folders = -1;
    }
    json_decref(folders);
    r->created = json_integer_value(json_object_get(o, "created"));
    json_object_del(o, "created");
    if (r_folders < 0 || take_string(o, "agent", &r->agent) < 0 ||
        take_string(o, "template", &r->template) < 0 || take_string(o, "image", &r->image) < 0 ||
        take_count(o, "cpus", &r->cpus) < 0 || take_count(o, "memory_mib", &r->memory_mib) < 0 ||
        take_count(o, "disk_mib", &r->disk_mib) < 0 ||
        take_container(o, "env", JSON_OBJECT, &r->env) < 0 ||
        take_container(o, "publish", JSON_ARRAY, &r->publish) < 0 || !r->agent)
        return err_set(e, STATUS_FAILED,
                       "the record of sandbox %s is damaged (sandbox.json); remove it with: sbx rm --force %s",
                       name, name);
    r->extra = json_incref(o);
    return 0;
}

int record_load(struct record *r, const char *name, struct err *e)
{
    record_init(r);
    if (record_check_name(name, e) < 0)
        return -1;
    char *path = path_sandbox(name, "sandbox.json", e);
    if (!path)
        return -1;
    struct err why = {0};
    json_t *o = jsonfile_read(path, &why);
    free(path);
    if (!o) {
        char *dir = path_sandbox(name, NULL, NULL);
        bool there = dir && access(dir, F_OK) == 0;
        free(dir);
        if (why.status == STATUS_NOT_FOUND && !there)
            return err_set(e, STATUS_NOT_FOUND, "there is no sandbox named %s; sbx ls lists them", name);
        if (why.status == STATUS_NOT_FOUND)
            snprintf(why.text, sizeof why.text, "sandbox.json is missing");
        return err_set(e, STATUS_FAILED, "the record of sandbox %s is damaged (%.300s); remove it with: sbx rm --force %s", name,
                       why.text, name);
    }
    int rc = from_json(r, o, name, e);
    json_decref(o);
    if (rc < 0)
        record_finish(r);
    return rc;
}

int record_save(const struct record *r, struct err *e)
{
    char *dir = path_sandbox(r->name, NULL, e);
    char *path = dir ? path_sandbox(r->name, "sandbox.json", e) : NULL;
    json_t *o = path ? record_to_json(r) : NULL;
    int rc = o ? path_mkdirs(dir, 0700, e) : -1;
    if (rc == 0)
        rc = jsonfile_write(path, o, 0600, e);
    json_decref(o);
    free(path);
    free(dir);
    return rc;
}

/* Made beside and renamed: who lists sandboxes sees it whole or not at all. */
int record_create(const struct record *r, struct err *e)
{
    if (record_check_name(r->name, e) < 0)
        return -1;
    int rc = -1;
    char hidden[RECORD_NAME_MAX + 40];
    snprintf(hidden, sizeof hidden, ".%s.new-%ld", r->name, (long)getpid());
    char *parent = path_in(PATH_DATA, e, "sandboxes");
    char *dir = parent ? path_sandbox(r->name, NULL, e) : NULL, *tmp = dir ? path_sandbox(hidden, NULL, e) : NULL;
    char *file = tmp ? path_sandbox(hidden, "sandbox.json", e) : NULL;
    json_t *o = file ? record_to_json(r) : NULL;
    if (!o || path_mkdirs(parent, 0700, e) < 0)
        goto out;
    path_remove_tree(tmp, NULL);
    if (mkdir(tmp, 0700) < 0) {
        err_errno(e, errno, "cannot make folder %s", tmp);
        goto out;
    }
    rc = jsonfile_write(file, o, 0600, e);
    if (rc == 0 && rename(tmp, dir) < 0) { /* an empty folder is no sandbox, and is replaced */
        rc = errno == EEXIST || errno == ENOTEMPTY
                 ? err_set(e, STATUS_USAGE, "there is already a sandbox named %s; choose another with --name", r->name)
                 : err_errno(e, errno, "cannot make folder %s", dir);
    }
    if (rc < 0)
        path_remove_tree(tmp, NULL);
out:
    json_decref(o);
    free(file);
    free(tmp);
    free(dir);
    free(parent);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int record_list(char ***names, struct err *e)
{
    *names = NULL;
    char *dir = path_in(PATH_DATA, e, "sandboxes");
    if (!dir)
        return -1;
    DIR *d = opendir(dir);
    int n = 0, rc = 0;
    if (!d && errno != ENOENT)
        rc = err_errno(e, errno, "cannot read %s", dir);
    free(dir);
    struct dirent *ent;
    while (d && rc == 0 && (ent = readdir(d))) {
        if (record_check_name(ent->d_name, NULL) < 0)
            continue;
        char **more = realloc(*names, (size_t)(n + 1) * sizeof **names);
        char *copy = strdup(ent->d_name);
        if (more)
            *names = more;
        if (!more || !copy) {
            free(copy);
            rc = err_set(e, STATUS_FAILED, "out of memory");
        } else {
            more[n++] = copy;
        }
    }
    if (d)
        closedir(d);
    if (rc < 0) {
        record_list_free(*names, n);
        *names = NULL;
        return -1;
    }
    if (n)
        qsort(*names, (size_t)n, sizeof **names, by_name);
    return n;
}

void record_list_free(char **names, int n)
{
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
}
