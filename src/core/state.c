#include "core/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"

static const char *const names[] = {
    [LIFE_CREATING] = "creating", [LIFE_STARTING] = "starting", [LIFE_RUNNING] = "running",
    [LIFE_STOPPING] = "stopping", [LIFE_STOPPED] = "stopped",   [LIFE_FAILED] = "failed",
};

const char *life_name(enum life life)
{
    return names[life];
}

static enum life life_of(const char *name)
{
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return (enum life)i;
    return LIFE_STOPPED;
}

/* Open file description locks: asking for the holder takes nothing, so that `sbx ls` never stands in the way
 * of a start, and a lock is not lost when an unrelated descriptor of the same file is closed. */
static struct flock whole(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

int state_lock(const char *name, struct err *e)
{
    char *path = path_sandbox(name, "lock", e);
    if (!path)
        return -1;
    struct flock l = whole();
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        int missing = errno == ENOENT;
        err_errno(e, errno, "cannot open %s", path);
        if (missing)
            err_set(e, STATUS_NOT_FOUND, "there is no sandbox named %s; sbx ls lists them", name);
    } else if (fcntl(fd, F_OFD_SETLK, &l) < 0) {
        if (errno == EAGAIN || errno == EACCES)
            err_set(e, STATUS_USAGE, "%s is in use: it is running, or another command works on it", name);
        else
            err_errno(e, errno, "cannot lock %s", path);
        close(fd);
        fd = -1;
    } else {
        char pid[32];
        int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
        if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) < 0) {
            /* The lock counts, the number is a courtesy. */
        }
    }
    free(path);
    return fd;
}

/* The pid in the lock file if the lock is held, 0 if it is free, -1 if there is no lock file. */
static pid_t holder(const char *name)
{
    char *path = path_sandbox(name, "lock", NULL);
    int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
    free(path);
    if (fd < 0)
        return -1;
    struct flock l = whole();
    pid_t pid = 0;
    if (fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK) {
        char text[32] = "";
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        pid = n > 0 ? (pid_t)atol(text) : 1;
    }
    close(fd);
    return pid;
}

/* A full disk has no room for a new file, but for one block where a block is already: the truth is worth more than
 * the atomic way, as a reader takes what it cannot read for a failure, too. */
static int overwrite(const char *path, const json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    int fd = text ? open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW) : -1, rc = -1;
    if (fd >= 0) {
        size_t n = strlen(text);
        rc = pwrite(fd, text, n, 0) == (ssize_t)n && ftruncate(fd, (off_t)n) == 0 ? 0 : -1;
        close(fd);
    }
    free(text);
    return rc;
}

bool state_logged(const char *name)
{
    char *log = path_sandbox(name, "log.db", NULL), *last = path_sandbox(name, "last.json", NULL);
    bool logged = log && access(log, F_OK) == 0;
    json_t *o = logged || !last ? NULL : jsonfile_read(last, NULL);
    logged = logged || json_is_true(json_object_get(o, "logged"));
    json_decref(o);
    free(log);
    free(last);
    return logged;
}

int state_store(const char *name, enum life life, const char *reason, struct err *e)
{
    char *path = path_sandbox(name, "last.json", e);
    if (!path)
        return -1;
    json_t *o = json_pack("{s:i, s:s, s:s, s:I, s:b}", "version", 1, "state", names[life], "reason",
                          reason ? reason : "", "when", (json_int_t)time(NULL), "logged", (int)state_logged(name));
    struct err why = {0};
    int rc = o ? jsonfile_write(path, o, 0600, &why) : err_set(&why, STATUS_FAILED, "out of memory");
    if (rc < 0 && o && overwrite(path, o) == 0)
        rc = 0;
    if (rc < 0 && e)
        *e = why;
    json_decref(o);
    free(path);
    return rc;
}

int sandbox_state(const char *name, struct sandbox_status *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    out->life = LIFE_STOPPED;
    char *dir = path_sandbox(name, NULL, e);
    struct stat st;
    if (!dir)
        return -1;
    bool exists = stat(dir, &st) == 0 && S_ISDIR(st.st_mode);
    free(dir);
    if (!exists)
        return err_set(e, STATUS_NOT_FOUND, "there is no sandbox named %s; sbx ls lists them", name);
    char *path = path_sandbox(name, "last.json", e);
    if (!path)
        return -1;
    pid_t pid = holder(name);
    struct err why = {0};
    json_t *last = jsonfile_read(path, &why);
    free(path);
    const char *said = json_string_value(json_object_get(last, "state"));
    const char *reason = json_string_value(json_object_get(last, "reason"));
    if (said)
        out->life = life_of(said);
    out->when = json_integer_value(json_object_get(last, "when"));
    bool ended = out->life == LIFE_STOPPED || out->life == LIFE_FAILED;
    if (pid > 0) {
        out->pid = pid;
        if (ended)
            out->life = LIFE_STARTING;
    } else if (!ended) {
        out->life = LIFE_FAILED;
        reason = "the supervisor was killed";
    }
    if (!said && why.status != STATUS_NOT_FOUND && pid <= 0) {
        out->life = LIFE_FAILED;
        reason = why.text;
    }
    if (pid <= 0 && reason)
        snprintf(out->reason, sizeof out->reason, "%s", reason);
    json_decref(last);
    return 0;
}
