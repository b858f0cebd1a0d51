#include "vm/supervisor_image.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/log.h"
#include "core/mirrors.h"
#include "core/paths.h"
#include "vm/image.h"

static int open_part(const char *path, struct err *e)
{
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (path && fd < 0)
        err_errno(e, errno, "cannot open %s", path);
    return fd;
}

int image_open(const struct record *r, struct qemu *q, struct err *e)
{
    struct image i = {0};
    if (image_find(&i, r->image && r->image[0] ? r->image : NULL, e) < 0)
        return -1;
    char *initrd = image_initrd(&i, e);
    q->base = open_part(i.base, e);
    q->kernel = open_part(i.kernel, e);
    q->initrd = open_part(initrd, e);
    free(initrd);
    image_finish(&i);
    return q->base < 0 || q->kernel < 0 || q->initrd < 0 ? -1 : 0;
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

/* A new object {files, env}. */
static json_t *seed(void)
{
    char now[2 * crypto_generichash_BYTES + 1];
    seed_signature(now);
    char *path = path_in(PATH_CACHE, NULL, "seed.json");
    json_t *kept = path ? jsonfile_read(path, NULL) : NULL;
    const char *then = json_string_value(json_object_get(kept, "signature"));
    if (!then || strcmp(then, now) != 0) {
        struct err e = {0};
        json_decref(kept);
        json_t *files = mirrors_files(IMAGE_SUITE, &e), *env = mirrors_env();
        if (!files)
            log_line("the host's mirrors and authorities are not passed on: %s", e.text);
        kept = json_pack("{s:i, s:s, s:o, s:o}", "version", 1, "signature", now, "files",
                         files ? files : json_array(), "env", env ? env : json_object());
        if (kept && files && path)
            jsonfile_write(path, kept, 0600, NULL);
    }
    free(path);
    return kept;
}

/* Files of assets/guest that every machine gets. */
static void add_own(json_t *files)
{
    static const struct {
        const char *asset, *path, *mode;
    } own[] = {{"guest/runc", "/usr/local/sbin/runc", "0755"}};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        char *path = path_asset(own[i].asset, NULL), text[16384];
        FILE *f = path ? fopen(path, "re") : NULL;
        size_t n = f ? fread(text, 1, sizeof text, f) : 0;
        if (n)
            json_array_append_new(files, json_pack("{s:s, s:s, s:s, s:s%}", "path", own[i].path, "mode", own[i].mode, "owner", "root",
                                                   "content", text, n));
        if (f)
            fclose(f);
        free(path);
    }
}

json_t *image_seed_files(json_t *env)
{
    json_t *s = seed(), *files = json_copy(json_object_get(s, "files")), *vars = json_object_get(s, "env");
    if (json_is_array(files))
        add_own(files);
    if (vars)
        json_object_update(env, vars);
    json_decref(s);
    return json_is_array(files) ? files : json_array();
}
