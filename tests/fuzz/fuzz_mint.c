// needs: src/net/mint.c src/net/scrub.c src/core/sentinel.c src/core/service.c src/core/jsonfile.c src/core/shipped.c src/core/paths.c src/core/record.c src/core/err.c
/* Answers that give out tokens: what passes holds none of them, in no spelling that JSON knows, and has its old length. */
#include <jansson.h>
#include <sodium.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/mint.h"

static void check(const json_t *v, const struct ask_mint *m, unsigned depth)
{
    const char *key;
    json_t *child;
    size_t i;
    if (depth > 40)
        return;
    json_object_foreach((json_t *)v, key, child)
        check(child, m, depth + 1);
    json_array_foreach((json_t *)v, i, child)
        check(child, m, depth + 1);
    if (json_is_string(v) && (strstr(json_string_value(v), m->access) || (m->refresh[0] && strstr(json_string_value(v), m->refresh))))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ask_mint m;
    uint8_t *body = malloc(size + 1);
    if (sodium_init() < 0 || !body)
        abort();
    memcpy(body, data, size);
    body[size] = 0x5a;
    enum mint_result r = mint_read(body, size, &m);
    if (body[size] != 0x5a || (r == MINT_PLAIN && memcmp(body, data, size) != 0))
        abort();
    if (r == MINT_TAKEN && m.access[0]) {
        if (strlen(m.access) != strlen(m.sentinel) || strcmp(m.access, m.sentinel) == 0 || memmem(body, size, m.access, strlen(m.access)))
            abort();
        json_t *o = json_loadb((const char *)body, size, JSON_ALLOW_NUL, NULL);
        if (!o)
            abort();
        check(o, &m, 0);
        json_decref(o);
    }
    free(body);
    return 0;
}
