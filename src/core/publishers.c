#include "core/publishers.h"

#include <jansson.h>
#include <libpsl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/jsonfile.h"
#include "core/paths.h"

static char sentence[400];

static const json_t *domains(void)
{
    static json_t *file; /* read once; it belongs to the program */
    if (!file) {
        char *path = path_asset("policies/publishers.json", NULL);
        file = path ? jsonfile_read(path, NULL) : NULL;
        free(path);
    }
    return json_object_get(file, "domains");
}

static bool below(const char *name, const char *domain)
{
    size_t n = strlen(name), d = strlen(domain);
    return n >= d && strcmp(name + n - d, domain) == 0 && (n == d || name[n - d - 1] == '.');
}

static const char *publishes(const char *what)
{
    snprintf(sentence, sizeof sentence, "anybody can publish there (%.120s), so an agent that may reach it can carry data out", what);
    return sentence;
}

const char *publishers_warning(const struct rule *r)
{
    const json_t *list = domains();
    size_t i;
    json_t *item;
    if (r->deny)
        return NULL;
    if (r->kind == RULE_RANGE)
        return rule_is_exact(r) ? NULL
                                : "so wide a range opens global addresses only; name private ones by a range of their own";
    if (!list)
        return "the list of domains where anybody can publish cannot be read, so look twice whether this is one";
    json_array_foreach(list, i, item) {
        const char *domain = json_string_value(json_object_get(item, "domain"));
        const char *why = json_string_value(json_object_get(item, "comment"));
        if (domain && (below(r->host, domain) || (r->kind == RULE_DEPTH && below(domain, r->host))))
            return publishes(why ? why : "by its nature");
    }
    /* Buckets have names of their own in every region: BUCKET.s3.REGION.amazonaws.com. */
    if (below(r->host, "amazonaws.com") &&
        (r->kind != RULE_HOST || strncmp(r->host, "s3", 2) == 0 || strstr(r->host, ".s3.") || strstr(r->host, ".s3-")))
        return publishes("buckets of whoever has an account");
    /* A wildcard over what the public suffix list knows as a registry of strangers' names. */
    const psl_ctx_t *psl = psl_builtin();
    if (psl && r->kind != RULE_HOST && strchr(r->host, '.') &&
        psl_is_public_suffix2(psl, r->host, PSL_TYPE_PRIVATE | PSL_TYPE_NO_STAR_RULE))
        return publishes("names of whoever has an account");
    return NULL;
}
