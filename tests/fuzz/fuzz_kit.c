// needs: src/core/service.c src/core/jsonfile.c src/core/shipped.c src/core/paths.c src/core/record.c src/core/kit.c src/core/err.c
/* Kit and service files of any content: refused with a sentence, or usable. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/kit.h"
#include "core/service.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct service_write w;
    char out[SERVICE_VALUE_MAX];
    json_t *o = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (!o)
        return 0;
    const char *name = json_string_value(json_object_get(o, "name"));
    if (service_check(o, name ? name : "x", &e) == 0) {
        if (service_writes(o, NULL, "api.example.com", 443, "/info/refs", &w))
            service_render(&w, "value-0123456789", out, sizeof out);
    } else if (!e.text[0])
        abort();
    memset(&e, 0, sizeof e);
    if (kit_check(o, name ? name : "x", &e) == 0) {
        json_t *env = json_object(), *files = json_array();
        kit_seed(o, "/w", env, files);
        json_decref(env);
        json_decref(files);
    } else if (!e.text[0])
        abort();
    json_decref(o);
    return 0;
}
