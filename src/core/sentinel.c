#include "core/sentinel.h"

#include <ctype.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#define RANDOM_MIN 12u /* characters that are random, or the beginning is not kept */
#define BEGIN_MAX 16u
#define SIGNATURE_MIN 32u

static size_t beginning(const char *value, const char *prefix)
{
    size_t n = strlen(value), keep = 0;
    if (strncmp(value, "eyJ", 3) == 0) {
        const char *one = strchr(value, '.'), *two = one ? strchr(one + 1, '.') : NULL;
        if (two && !strchr(two + 1, '.') && strlen(two + 1) >= RANDOM_MIN)
            return (size_t)(two + 1 - value);
    }
    const char *colon = strrchr(value, ':');
    if (colon && strchr(value, ';') && strchr(value, '=') && strlen(colon + 1) >= SIGNATURE_MIN)
        return (size_t)(colon + 1 - value);
    if (prefix && strncmp(value, prefix, strlen(prefix)) == 0)
        keep = strlen(prefix);
    for (size_t i = keep; i < n && i < BEGIN_MAX; i++)
        if (value[i] == '-' || value[i] == '_')
            keep = i + 1;
    return n >= keep + RANDOM_MIN ? keep : 0;
}

char *sentinel_make(const char *value, const char *prefix)
{
    char *s = strdup(value);
    size_t n = strlen(value), keep = beginning(value, prefix);
    bool differs = false;
    for (int tries = 0; s && !differs && tries < 100; tries++) {
        for (size_t i = keep; i < n; i++) {
            unsigned char c = (unsigned char)value[i];
            if (isdigit(c))
                s[i] = (char)('0' + randombytes_uniform(10));
            else if (islower(c))
                s[i] = (char)('a' + randombytes_uniform(26));
            else if (isupper(c))
                s[i] = (char)('A' + randombytes_uniform(26));
        }
        differs = strcmp(s, value) != 0;
    }
    /* Nothing but punctuation: it cannot keep its look. */
    if (s && !differs)
        for (size_t i = 0; i < n; i++)
            s[i] = (char)('a' + randombytes_uniform(26));
    return s;
}

uint64_t sentinel_tag(const char *text, size_t n)
{
    uint8_t hash[crypto_generichash_BYTES_MIN];
    uint64_t tag;
    crypto_generichash(hash, sizeof hash, (const uint8_t *)text, n, NULL, 0);
    memcpy(&tag, hash, sizeof tag);
    return tag;
}
