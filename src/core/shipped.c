#include "core/shipped.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/record.h"

static void collect(json_t *names, const char *dir)
{
    DIR *d = dir ? opendir(dir) : NULL;
    struct dirent *ent;
    while (d && (ent = readdir(d))) {
        char *end = strrchr(ent->d_name, '.');
        if (!end || strcmp(end, ".json") != 0)
            continue;
        *end = '\0';
        if (record_check_name(ent->d_name, NULL) == 0)
            json_object_set_new(names, ent->d_name, json_string(ent->d_name));
    }
    if (d)
        closedir(d);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(json_string_value(*(json_t *const *)a), json_string_value(*(json_t *const *)b));
}

json_t *shipped_names(const struct shipped *of)
{
    json_t *names = json_object(), *out = json_array(), *v;
    char *ours = path_asset(of->ours, NULL), *theirs = path_in(PATH_CONFIG, NULL, "%s", of->theirs);
    const char *key;
    collect(names, ours);
    collect(names, theirs);
    free(ours);
    free(theirs);
    json_t **sorted = calloc(json_object_size(names) + 1, sizeof(json_t *));
    size_t n = 0;
    json_object_foreach(names, key, v)
        if (sorted)
            sorted[n++] = v;
    if (sorted)
        qsort(sorted, n, sizeof *sorted, by_text);
    for (size_t i = 0; i < n; i++)
        json_array_append(out, sorted[i]);
    free(sorted);
    json_decref(names);
    return out;
}

json_t *shipped_load(const struct shipped *of, const char *name, struct err *e)
{
    struct err why = {.status = STATUS_NOT_FOUND};
    char rel[128];
    json_t *o = NULL;
    if (record_check_name(name, NULL) == 0) {
        snprintf(rel, sizeof rel, "%s/%s.json", of->ours, name);
        char *paths[2] = {path_in(PATH_CONFIG, NULL, "%s/%s.json", of->theirs, name), path_asset(rel, NULL)};
        for (int i = 0; i < 2 && !o && why.status == STATUS_NOT_FOUND; i++)
            if (paths[i]) {
                memset(&why, 0, sizeof why);
                o = jsonfile_read(paths[i], &why);
            }
        free(paths[0]);
        free(paths[1]);
    }
    if (!o && e)
        *e = why;
    return o;
}
