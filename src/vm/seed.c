#include "vm/seed.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"

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
