#include "net/diskscan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/wipe.h"
#include "net/scrub.h"

#define PIECE (4u << 20)
#define PART_MIN 16u /* of "USER:PASSWORD" and "ID:KEY:TOKEN": shorter ones stand anywhere */

static bool add(struct scrub_set *set, const struct secret *s)
{
    if (strlen(s->value) < PART_MIN)
        return true;
    bool good = scrub_set_add(set, s->value, s->value) && (strlen(s->refresh) < PART_MIN || scrub_set_add(set, s->refresh, s->refresh));
    for (const char *colon = strchr(s->value, ':'); good && colon; colon = strchr(colon + 1, ':')) {
        char *part = strndup(colon + 1, strcspn(colon + 1, ":"));
        good = part && (strlen(part) < PART_MIN || scrub_set_add(set, part, part));
        wipe_free(part);
    }
    return good;
}

/* All of them, or the one alone. */
static struct scrub_set *needles(const struct secretstore *store, size_t from, size_t to)
{
    struct scrub_set *set = scrub_set_new();
    bool good = set != NULL;
    for (size_t i = from; good && i < to; i++)
        good = add(set, secretstore_at(store, i));
    if (good && scrub_set_ready(set))
        return set;
    scrub_set_unref(set);
    return NULL;
}

/* in and out: PIECE bytes, and what a stream may hold besides. */
static int search(int fd, struct scrub_set *set, uint8_t *in, uint8_t *out)
{
    off_t at = 0;
    while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
        off_t end = lseek(fd, at, SEEK_HOLE);
        struct scrub *s = scrub_new(set);
        ssize_t n = s ? 1 : -1;
        bool found = false;
        while (!found && n > 0 && at < end) {
            n = pread(fd, in, end - at < (off_t)PIECE ? (size_t)(end - at) : PIECE, at);
            if (n > 0) {
                scrub_feed(s, in, (size_t)n, out);
                found = scrub_count(s) > 0;
                at += n;
            }
        }
        /* At the end of a stream a mere beginning of a secret is replaced, too; here a whole one counts. */
        if (!found && s && scrub_held(s)) {
            memset(in, 0, PIECE);
            scrub_feed(s, in, PIECE, out);
            found = scrub_count(s) > 0;
        }
        scrub_free(s);
        if (found || n < 0)
            return found ? 1 : -1;
        if (n == 0)
            return 0; /* it was cut meanwhile */
    }
    return errno == ENXIO ? 0 : -1;
}

int diskscan(const char *path, const struct secretstore *store, char *service, size_t cap, struct err *e)
{
    size_t n = secretstore_count(store);
    struct scrub_set *set = NULL;
    uint8_t *in = NULL, *out = NULL;
    int rc = 0, fd = -1;
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any |= strlen(secretstore_at(store, i)->value) >= PART_MIN;
    if (!any)
        return 0;
    rc = -1;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        err_errno(e, errno, "cannot look through %s", path);
        goto out;
    }
    /* As many at once as a set takes. */
    for (size_t from = 0; from < n; from += SCRUB_SECRETS_MAX / 4) {
        size_t to = from + SCRUB_SECRETS_MAX / 4 < n ? from + SCRUB_SECRETS_MAX / 4 : n;
        set = needles(store, from, to);
        if (!set)
            continue; /* all too short */
        free(out);
        in = in ? in : malloc(PIECE);
        out = malloc(PIECE + 2 * scrub_set_hold(set));
        rc = in && out ? search(fd, set, in, out) : -1;
        scrub_set_unref(set);
        set = NULL;
        if (rc < 0) {
            err_errno(e, errno, "cannot look through %s", path);
            goto out;
        }
        for (size_t i = from; rc > 0 && i < to; i++) {
            struct scrub_set *one = needles(store, i, i + 1);
            if (one && search(fd, one, in, out) > 0) {
                snprintf(service, cap, "%s", secretstore_at(store, i)->service);
                scrub_set_unref(one);
                goto out;
            }
            scrub_set_unref(one);
        }
        if (rc > 0) {
            snprintf(service, cap, "%s", secretstore_at(store, from)->service);
            goto out;
        }
    }
    rc = 0;
out:
    if (in)
        explicit_bzero(in, PIECE);
    free(in);
    free(out);
    if (fd >= 0)
        close(fd);
    return rc;
}
