#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/mirrors.h"
#include "core/paths.h"
#include "core/spawn.h"
#include "vm/image.h"
#include "vm/minder.h"

#define WORK "/var/tmp/sbx-image-XXXXXX"

static char *join(const char *dir, const char *file)
{
    char *s;
    return asprintf(&s, "%s/%s", dir, file) < 0 ? NULL : s;
}

struct build {
    image_progress_fn *progress;
    void *arg;
    char line[512];
    size_t len;
};

static void take_progress(struct build *b, const char *buf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (buf[i] != '\n') {
            if (b->len < sizeof b->line - 1)
                b->line[b->len++] = buf[i];
            continue;
        }
        b->line[b->len] = '\0';
        b->len = 0;
        double fraction;
        int at = 0;
        if (sscanf(b->line, "progress %lf %n", &fraction, &at) == 1 && at && b->progress)
            b->progress(fraction, b->line + at, b->arg);
    }
}

static int write_text(const char *dir, const char *name, const char *text, struct err *e)
{
    char *path = join(dir, name);
    int rc = path ? file_replace(path, text, strlen(text), 0644, e) : -1;
    free(path);
    return rc;
}

/* Runs assets/image/build; its complaints end up in e. */
static int run_recipe(const char *dir, struct build *b, struct err *e)
{
    char *script = path_asset("image/build", e), *sources = mirrors_apt_sources(IMAGE_SUITE, e), *options = mirrors_apt_options();
    char *sources_file = join(dir, "sources.list"), *options_file = join(dir, "apt.conf");
    int rc = -1, status[2] = {-1, -1}, errors[2] = {-1, -1};
    char complaint[600] = "", work[] = WORK;
    size_t used = 0;
    if (!script || !sources || !options || !sources_file || !options_file || write_text(dir, "sources.list", sources, e) < 0 ||
        write_text(dir, "apt.conf", options, e) < 0)
        goto out;
    if (pipe2(status, O_CLOEXEC) < 0 || pipe2(errors, O_CLOEXEC) < 0) {
        err_errno(e, errno, "cannot build the image");
        goto out;
    }
    /* The tree is made in a folder that is also an ordinary user's namespace's. */
    if (!mkdtemp(work) || chmod(work, 0755) < 0) {
        err_errno(e, errno, "cannot build the image");
        goto out;
    }
    if (write_text(dir, "work", work, e) < 0) /* for the next build, should none of us live to remove it */
        goto out;
    char *argv[] = {script, (char *)dir, (char *)IMAGE_SUITE, sources_file, options_file, work, NULL};
    const char *const folders[2] = {dir, work};
    struct minder m;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct spawn_fd fds[] = {{null, 0}, {errors[1], 1}, {errors[1], 2}, {status[1], 3}};
    struct spawn s = {.path = script, .argv = argv, .fds = fds, .nfds = 4, .die_with_parent = true};
    int started = minder_start(&m, &s, folders, e);
    close(null);
    close(status[1]);
    close(errors[1]);
    status[1] = errors[1] = -1;
    if (started < 0)
        goto out;
    struct pollfd p[2] = {{.fd = status[0], .events = POLLIN}, {.fd = errors[0], .events = POLLIN}};
    while (p[0].fd >= 0 || p[1].fd >= 0) {
        char buf[4096];
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            break;
        for (int i = 0; i < 2; i++) {
            if (!(p[i].revents & (POLLIN | POLLHUP)))
                continue;
            ssize_t n = read(p[i].fd, buf, sizeof buf);
            if (n <= 0) {
                p[i].fd = -1;
            } else if (i == 0) {
                take_progress(b, buf, (size_t)n);
            } else { /* the last words are what matters */
                size_t keep = (size_t)n < sizeof complaint - 1 ? (size_t)n : sizeof complaint - 1;
                if (used + keep > sizeof complaint - 1) {
                    size_t drop = used + keep - (sizeof complaint - 1);
                    memmove(complaint, complaint + drop, used - drop);
                    used -= drop;
                }
                memcpy(complaint + used, buf + (size_t)n - keep, keep);
                used += keep;
                complaint[used] = '\0';
            }
        }
    }
    int code = minder_wait(&m);
    if (code == 0) {
        rc = 0;
    } else {
        for (char *c = complaint; *c; c++)
            if (*c == '\n')
                *c = ' ';
        err_set(e, STATUS_FAILED, "the base image could not be built: %s%s", used ? complaint : "mmdebstrap failed",
                geteuid() ? " (an ordinary user needs subordinate ids: sudo usermod --add-subuids 100000-165535 "
                            "--add-subgids 100000-165535 $USER)"
                          : "");
    }
out:
    for (int i = 0; i < 2; i++) {
        if (status[i] >= 0)
            close(status[i]);
        if (errors[i] >= 0)
            close(errors[i]);
    }
    free(script);
    free(sources);
    free(options);
    free(sources_file);
    free(options_file);
    return rc;
}

static void clear_unfinished(const char *images)
{
    DIR *d = opendir(images);
    struct dirent *ent;
    while (d && (ent = readdir(d)))
        if (strncmp(ent->d_name, ".making-", 8) == 0) {
            char *path = join(images, ent->d_name), *note = path ? join(path, "work") : NULL, work[64] = "";
            FILE *f = note ? fopen(note, "re") : NULL;
            if (f && fgets(work, sizeof work, f) && strncmp(work, WORK, sizeof WORK - 7) == 0 && !strchr(work + sizeof WORK - 7, '/'))
                minder_remove(work);
            if (f)
                fclose(f);
            free(note);
            if (path)
                path_remove_tree(path, NULL);
            free(path);
        }
    if (d)
        closedir(d);
}

static int write_manifest(const char *dir, struct err *e)
{
    char *version_file = join(dir, "version"), *path = join(dir, "manifest.json"), version[128] = "";
    FILE *f = version_file ? fopen(version_file, "re") : NULL;
    if (f) {
        if (!fgets(version, sizeof version, f))
            version[0] = '\0';
        fclose(f);
    }
    version[strcspn(version, "\n")] = '\0';
    json_t *o = json_pack("{s:i, s:s, s:s, s:I}", "version", 1, "suite", IMAGE_SUITE, "kernel", version, "created",
                          (json_int_t)time(NULL));
    int rc = path && o ? jsonfile_write(path, o, 0644, e) : -1;
    json_decref(o);
    free(version_file);
    free(path);
    return rc;
}

int image_build(image_progress_fn *progress, void *arg, struct err *e)
{
    struct build b = {.progress = progress, .arg = arg};
    char *images = path_in(PATH_DATA, e, "images"), *lock_path = images ? join(images, "build") : NULL;
    char *tmp = NULL, *final = NULL;
    int lock = -1, rc = -1;
    struct timespec before, after;
    if (!lock_path || path_mkdirs(images, 0755, e) < 0)
        goto out;
    clock_gettime(CLOCK_MONOTONIC, &before);
    lock = jsonfile_lock(lock_path, e);
    if (lock < 0)
        goto out;
    clock_gettime(CLOCK_MONOTONIC, &after);
    if (after.tv_sec - before.tv_sec >= 5) { /* somebody else built while we waited */
        struct image i;
        rc = image_find(&i, NULL, NULL);
        image_finish(&i);
        if (rc == 0)
            goto out;
        rc = -1;
    }
    clear_unfinished(images);
    char stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
    if (asprintf(&tmp, "%s/.making-%s", images, stamp) < 0 || asprintf(&final, "%s/" IMAGE_SUITE "-%s", images, stamp) < 0) {
        err_set(e, STATUS_FAILED, "out of memory");
        goto out;
    }
    if (path_mkdirs(tmp, 0755, e) < 0 || run_recipe(tmp, &b, e) < 0 || write_manifest(tmp, e) < 0)
        goto out;
    char *note = join(tmp, "work");
    if (note)
        unlink(note);
    free(note);
    if (rename(tmp, final) < 0) {
        err_errno(e, errno, "cannot put the image into place");
        goto out;
    }
    rc = 0;
out:
    if (rc < 0 && tmp)
        path_remove_tree(tmp, NULL);
    if (lock >= 0)
        close(lock);
    free(tmp);
    free(final);
    free(lock_path);
    free(images);
    return rc;
}
