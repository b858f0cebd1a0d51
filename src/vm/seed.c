#include "vm/seed.h"

#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/ca.h"
#include "core/jsonfile.h"
#include "core/paths.h"

/* Our own authority: what guests are told of it, and what means that it has to be looked after (core/ca.h): it grows old, its
 * key may be gone with the store, or is to be taken into it. */
static void add_authority(crypto_generichash_state *h)
{
    static const char *const files[] = {"ca/cert.pem", "ca/key.pem", "secrets/store.json"};
    struct {
        struct timespec made;
        ino_t ino;
        off_t size;
        bool there[3], old;
    } now;
    memset(&now, 0, sizeof now);
    for (int i = 0; i < 3; i++) {
        struct stat st;
        char *path = path_in(PATH_DATA, NULL, "%s", files[i]);
        now.there[i] = path && stat(path, &st) == 0;
        if (now.there[i] && i == 0) {
            now.made = st.st_mtim;
            now.ino = st.st_ino;
            now.size = st.st_size;
            now.old = st.st_mtime < time(NULL) - CA_YEARS * 365 * 86400L + CA_RENEW_S;
        }
        free(path);
    }
    crypto_generichash_update(h, (unsigned char *)&now, sizeof now);
}

/* What the answer is made from.  Reading all of the host's authorities takes 70 ms, so the answer is kept until one
 * of these changes; folders change when a file in them comes or goes, and authorities are put in place by renaming. */
static void seed_signature(char out[2 * crypto_generichash_BYTES + 1])
{
    static const char *const places[] = {
        "/etc/ssl/certs", "/etc/ssl/certs/ca-certificates.crt", "/usr/local/share/ca-certificates",
        "/usr/share/ca-certificates", "/etc/apt", "/etc/apt/sources.list", "/etc/apt/sources.list.d",
        "/etc/apt/apt.conf.d", "/etc/npmrc", "/etc/pip.conf",
    };
    static const char *const home_files[] = {".npmrc", ".pip/pip.conf", ".config/pip/pip.conf"};
    extern char **environ;
    unsigned char hash[crypto_generichash_BYTES];
    crypto_generichash_state h;
    crypto_generichash_init(&h, NULL, 0, sizeof hash);
    const char *home = getenv("HOME");
    for (size_t i = 0; i < sizeof places / sizeof *places + sizeof home_files / sizeof *home_files; i++) {
        char path[4096];
        struct stat st;
        size_t k = sizeof places / sizeof *places;
        if (i < k)
            snprintf(path, sizeof path, "%s", places[i]);
        else
            snprintf(path, sizeof path, "%s/%s", home ? home : "", home_files[i - k]);
        if (stat(path, &st) < 0)
            memset(&st, 0, sizeof st);
        crypto_generichash_update(&h, (unsigned char *)path, strlen(path) + 1);
        crypto_generichash_update(&h, (unsigned char *)&st.st_mtim, sizeof st.st_mtim);
        crypto_generichash_update(&h, (unsigned char *)&st.st_ino, sizeof st.st_ino);
        crypto_generichash_update(&h, (unsigned char *)&st.st_size, sizeof st.st_size);
    }
    add_authority(&h);
    /* SSL_CERT_FILE, PIP_INDEX_URL and their like, and the files that they name. */
    for (char **v = environ; *v; v++) {
        static const char *const prefixes[] = {"SSL_", "NODE_EXTRA", "CURL_CA", "REQUESTS_CA", "GIT_SSL", "PIP_",
                                               "NPM_",  "npm_",      "AWS_CA",  "CARGO_"};
        struct stat st;
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
            const char *value = strchr(*v, '=');
            if (!value || strncmp(*v, prefixes[i], strlen(prefixes[i])) != 0)
                continue;
            crypto_generichash_update(&h, (unsigned char *)*v, strlen(*v) + 1);
            if (value[1] == '/' && stat(value + 1, &st) == 0)
                crypto_generichash_update(&h, (unsigned char *)&st.st_mtim, sizeof st.st_mtim);
        }
    }
    crypto_generichash_final(&h, hash, sizeof hash);
    sodium_bin2hex(out, 2 * sizeof hash + 1, hash, sizeof hash);
}

json_t *seed_kept(void)
{
    char now[2 * crypto_generichash_BYTES + 1];
    seed_signature(now);
    char *path = path_in(PATH_CACHE, NULL, "seed.json");
    json_t *kept = path ? jsonfile_read(path, NULL) : NULL;
    const char *then = json_string_value(json_object_get(kept, "signature"));
    if (!then || strcmp(then, now) != 0) {
        json_decref(kept);
        kept = NULL;
    }
    free(path);
    return kept;
}

int seed_keep(json_t *files, json_t *env, struct err *e)
{
    char now[2 * crypto_generichash_BYTES + 1];
    seed_signature(now);
    char *path = path_in(PATH_CACHE, e, "seed.json");
    json_t *o = json_pack("{s:i, s:s, s:o, s:o}", "version", 1, "signature", now, "files", files, "env", env);
    int rc = path && o ? jsonfile_write(path, o, 0600, e) : -1;
    json_decref(o);
    free(path);
    return rc;
}
