#include "net/mint.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/sentinel.h"
#include "core/service.h"
#include "net/scrub.h"

#define DEPTH_MAX 16u
#define TOKEN_MIN 16u /* shorter strings of that name are kinds ("Bearer") or codes */

struct found {
    unsigned n;
    bool bad;
    char *sentinel[MINT_TOKENS_MAX];
    const char *value[MINT_TOKENS_MAX]; /* in the JSON */
};

/* "access_token", "refreshToken", "raw_key", "device_token", ... */
static bool names_a_token(const char *key)
{
    static const char *const ends[] = {"token", "key", "secret"};
    size_t n = strlen(key);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t k = strlen(ends[i]);
        if (n >= k && strcasecmp(key + n - k, ends[i]) == 0)
            return true;
    }
    return false;
}

static void look(const json_t *v, const char *name, unsigned depth, struct found *f)
{
    const char *key;
    json_t *child;
    size_t i;
    if (depth > DEPTH_MAX) {
        f->bad = true;
        return;
    }
    if (json_is_object(v)) {
        json_object_foreach((json_t *)v, key, child)
            look(child, key, depth + 1, f);
    } else if (json_is_array(v)) {
        json_array_foreach((json_t *)v, i, child)
            look(child, name, depth + 1, f);
    } else if (json_is_string(v) && name && names_a_token(name) && json_string_length(v) >= TOKEN_MIN) {
        const char *text = json_string_value(v);
        for (unsigned k = 0; k < f->n; k++)
            if (strcmp(f->value[k], text) == 0)
                return;
        if (f->n == MINT_TOKENS_MAX || strlen(text) != json_string_length(v) || service_check_value(text, NULL) < 0) {
            f->bad = true;
            return;
        }
        f->value[f->n] = text;
        f->sentinel[f->n] = sentinel_make(text, NULL);
        f->bad |= !f->sentinel[f->n];
        f->n++;
    }
}

static const char *sentinel_of(const struct found *f, const char *value)
{
    for (unsigned i = 0; value && i < f->n; i++)
        if (strcmp(f->value[i], value) == 0)
            return f->sentinel[i];
    return NULL;
}

/* Whether a decoded text still holds one: a spelling that the scrubber does not know ("\\u0061b") would be read by the guest. */
static bool still_holds(const json_t *v, const struct found *f, unsigned depth)
{
    const char *key;
    json_t *child;
    size_t i;
    bool any = depth > DEPTH_MAX;
    if (json_is_object(v)) {
        json_object_foreach((json_t *)v, key, child)
            any = any || still_holds(child, f, depth + 1);
    } else if (json_is_array(v)) {
        json_array_foreach((json_t *)v, i, child)
            any = any || still_holds(child, f, depth + 1);
    } else if (json_is_string(v)) {
        for (unsigned k = 0; k < f->n; k++)
            any = any || memmem(json_string_value(v), json_string_length(v), f->value[k], strlen(f->value[k]));
    }
    return any;
}

static bool replace(uint8_t *body, size_t n, const struct found *f)
{
    struct scrub_set *set = scrub_set_new();
    bool good = set != NULL;
    for (unsigned i = 0; good && i < f->n; i++)
        good = scrub_set_add(set, f->value[i], f->sentinel[i]);
    good = good && scrub_set_ready(set);
    if (good) {
        scrub_text(set, (char *)body, n);
        json_t *now = json_loadb((const char *)body, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        good = now && !still_holds(now, f, 0);
        json_decref(now);
    }
    scrub_set_unref(set);
    return good;
}

enum mint_result mint_read(uint8_t *body, size_t n, struct ask_mint *out)
{
    struct found f = {0};
    enum mint_result result = MINT_BAD;
    memset(out, 0, sizeof *out);
    json_t *o = json_loadb((const char *)body, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (!o)
        return MINT_BAD;
    look(o, NULL, 0, &f);
    if (!f.bad && f.n == 0)
        result = MINT_PLAIN;
    else if (!f.bad && replace(body, n, &f)) {
        const char *access = json_string_value(json_object_get(o, "access_token"));
        if (!sentinel_of(&f, access)) /* of a registry (RFC 6750 came later), or of Copilot */
            access = json_string_value(json_object_get(o, "token"));
        const char *refresh = json_string_value(json_object_get(o, "refresh_token")), *sentinel = sentinel_of(&f, access);
        json_int_t life = json_integer_value(json_object_get(o, "expires_in"));
        if (sentinel) {
            strcpy(out->access, access); /* service_check_value bounds them */
            strcpy(out->sentinel, sentinel);
            if (sentinel_of(&f, refresh))
                strcpy(out->refresh, refresh);
            out->expires_in = life > 0 && life < INT32_MAX ? (uint32_t)life : 0;
        }
        result = MINT_TAKEN;
    }
    for (unsigned i = 0; i < f.n; i++) {
        explicit_bzero((char *)(uintptr_t)f.value[i], strlen(f.value[i]));
        free(f.sentinel[i]);
    }
    json_decref(o);
    return result;
}
