// needs: src/core/secretstore.c src/core/secretkeyring.c src/core/jsonfile.c src/core/paths.c src/core/err.c
/* The store's file of any content, and any content of the encrypted part: refused with a sentence, or read. */
#include <fcntl.h>
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/secretstore.h"

static char path[128];

static void prepare(void)
{
    static char dir[] = "/dev/shm/sbx-fuzz-store-XXXXXX";
    struct err e = {0};
    if (!mkdtemp(dir) || sodium_init() < 0)
        abort();
    setenv("XDG_DATA_HOME", dir, 1);
    unsetenv("CREDENTIALS_DIRECTORY");
    struct secretstore *s = secretstore_begin(NULL, NULL, &e); /* makes the key file */
    if (!s || secretstore_save(s, &e) < 0)
        abort();
    secretstore_free(s);
    snprintf(path, sizeof path, "%s/sbx/secrets/store.json", dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err e = {0};
    struct secretstore *s;
    if (!path[0])
        prepare();
    if (size && data[0] == '{') {
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, data, size) != (ssize_t)size)
            abort();
        close(fd);
        s = secretstore_open(NULL, NULL, &e);
    } else
        s = secretstore_decode(data, size, &e);
    if (!s && !e.text[0])
        abort();
    for (size_t i = 0; s && i < secretstore_count(s); i++) {
        const struct secret *r = secretstore_at(s, i);
        if (!r->service[0] || !r->sentinel[0] || !secretstore_find(s, r->service, r->scope))
            abort();
    }
    const struct authority *a = s ? secretstore_authority(s) : NULL;
    if (a && (!a->certificate[0] || strlen(a->certificate) > AUTHORITY_CERT_MAX || a->expires <= 0))
        abort();
    secretstore_free(s);
    return 0;
}
