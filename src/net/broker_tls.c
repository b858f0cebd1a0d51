#include "net/broker_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/name.h"

#define EXTRA_MAX (1u << 20) /* bytes of further authorities */

struct leaf {
    char name[NAME_MAX_LEN + 1];
    uint8_t point[CA_POINT_LEN];
    int64_t used, expires;
    size_t len;
    uint8_t der[CA_LEAF_MAX];
};

struct broker_tls {
    struct ca *ca;
    char *trusted; /* the certificate that this sandbox's guest was given */
    struct err trouble;
    struct leaf *leaves; /* allocated one by one */
    size_t n;
    int64_t tokens_ms, last_ms, uses;
    char *extra;
    size_t extra_len;
};

static void read_extra(struct broker_tls *t, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size + t->extra_len + 1 > EXTRA_MAX) {
        log_line("net.ca: %s cannot be used", path);
    } else {
        char *more = realloc(t->extra, t->extra_len + (size_t)st.st_size + 1);
        ssize_t n = -1;
        if (more) {
            t->extra = more;
            n = read(fd, t->extra + t->extra_len, (size_t)st.st_size);
        }
        if (n > 0) {
            t->extra_len += (size_t)n;
            t->extra[t->extra_len++] = '\n';
        }
    }
    if (fd >= 0)
        close(fd);
}

struct broker_tls *broker_tls_new(const json_t *extra, struct err *e)
{
    size_t i;
    json_t *item;
    struct err why = {0};
    ca_lock_memory();
    struct broker_tls *t = calloc(1, sizeof *t);
    if (!t) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    int made = ca_ensure(false, NULL, NULL, &why);
    t->trusted = ca_certificate(NULL);
    if (broker_tls_load(t, NULL) < 0 && made < 0)
        t->trouble = why; /* it says more */
    else if (made < 0)
        log_line("%s", why.text);
    t->tokens_ms = 2000;
    json_array_foreach((json_t *)extra, i, item)
        if (json_is_string(item))
            read_extra(t, json_string_value(item));
    return t;
}

void broker_tls_free(struct broker_tls *t)
{
    if (!t)
        return;
    ca_free(t->ca);
    free(t->trusted);
    free(t->leaves);
    free(t->extra);
    free(t);
}

int broker_tls_load(struct broker_tls *t, struct err *e)
{
    struct err why = {0};
    if (!t->ca && (t->ca = ca_load(t->trusted ? t->trusted : "", &why)))
        t->trouble = (struct err){0};
    else if (!t->ca)
        t->trouble = why;
    return t->ca ? 0 : err_set(e, t->trouble.status, "%s", t->trouble.text);
}

const char *broker_tls_trouble(const struct broker_tls *t)
{
    return t->trouble.text;
}

static struct leaf *find(struct broker_tls *t, const char *name, const uint8_t *point)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->leaves[i].name, name) == 0 && memcmp(t->leaves[i].point, point, CA_POINT_LEN) == 0)
            return &t->leaves[i];
    return NULL;
}

/* A bucket of two seconds' worth. */
static bool may_issue(struct broker_tls *t)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    t->tokens_ms += ms - t->last_ms;
    t->last_ms = ms;
    if (t->tokens_ms > 2000)
        t->tokens_ms = 2000;
    if (t->tokens_ms < 1000 / BROKER_LEAVES_RATE)
        return false;
    t->tokens_ms -= 1000 / BROKER_LEAVES_RATE;
    return true;
}

static struct leaf *room(struct broker_tls *t)
{
    if (t->n < BROKER_LEAVES_MAX) {
        /* Doubled: most sandboxes speak to a handful of hosts. */
        if ((t->n & (t->n - 1)) == 0) {
            struct leaf *more = realloc(t->leaves, (t->n ? t->n * 2 : 1) * sizeof *more);
            if (!more)
                return NULL;
            t->leaves = more;
        }
        return &t->leaves[t->n++];
    }
    struct leaf *oldest = &t->leaves[0];
    for (size_t i = 1; i < t->n; i++)
        if (t->leaves[i].used < oldest->used)
            oldest = &t->leaves[i];
    return oldest;
}

size_t broker_tls_leaf(struct broker_tls *t, const char *name, const uint8_t point[CA_POINT_LEN],
                       uint8_t out[CA_LEAF_MAX])
{
    struct leaf *l = find(t, name, point);
    int64_t now = time(NULL);
    if (!l || l->expires < now) {
        if (!t->ca || !may_issue(t))
            return 0;
        size_t len = ca_issue(t->ca, name, point, out);
        if (len == 0 || (!l && !(l = room(t))))
            return len;
        snprintf(l->name, sizeof l->name, "%s", name);
        memcpy(l->point, point, CA_POINT_LEN);
        memcpy(l->der, out, len);
        l->len = len;
        l->expires = now + (CA_LEAF_DAYS / 2) * 86400LL;
    }
    l->used = ++t->uses;
    memcpy(out, l->der, l->len);
    return l->len;
}

int broker_tls_trust(const struct broker_tls *t)
{
    static const char *const bundles[] = {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                                          "/etc/ssl/cert.pem"};
    int out = memfd_create("sbx-trust", MFD_CLOEXEC | MFD_ALLOW_SEALING), in = -1;
    char buf[65536];
    ssize_t n;
    if (out < 0)
        return -1;
    for (size_t i = 0; in < 0 && i < sizeof bundles / sizeof *bundles; i++)
        in = open(bundles[i], O_RDONLY | O_CLOEXEC);
    while (in >= 0 && (n = read(in, buf, sizeof buf)) > 0)
        if (write(out, buf, (size_t)n) != n)
            break;
    if (in >= 0)
        close(in);
    if (t->extra_len && write(out, t->extra, t->extra_len) != (ssize_t)t->extra_len)
        log_line("net.ca is not passed on: %s", strerror(errno));
    fcntl(out, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    lseek(out, 0, SEEK_SET);
    return out;
}
