#include "core/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"

int state_write(const char *sandbox, const char *state, const char *reason, struct err *e)
{
    char *path = path_sandbox(sandbox, "last.json", e);
    json_t *text = json_string(reason ? reason : "");
    json_t *o = json_pack("{s:s, s:o, s:I}", "state", state, "reason", text ? text : json_string("(unprintable)"), "when",
                          (json_int_t)time(NULL));
    int rc = path && o ? jsonfile_write(path, o, 0600, e) : -1;
    json_decref(o);
    free(path);
    return rc;
}

int state_lock(const char *sandbox, struct err *e)
{
    char *path = path_sandbox(sandbox, "lock", e);
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (path && fd < 0)
        err_errno(e, errno, "cannot open %s", path);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        err_set(e, STATUS_FAILED, "sandbox %s is running already", sandbox);
        close(fd);
        fd = -1;
    }
    free(path);
    return fd;
}

bool state_is_locked(const char *sandbox)
{
    char *path = path_sandbox(sandbox, "lock", NULL);
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    free(path);
    return locked;
}

void state_read(const char *sandbox, struct state *s)
{
    memset(s, 0, sizeof *s);
    s->alive = state_is_locked(sandbox);
    char *path = path_sandbox(sandbox, "last.json", NULL);
    json_t *o = path ? jsonfile_read(path, NULL) : NULL;
    const char *state = json_string_value(json_object_get(o, "state"));
    const char *reason = json_string_value(json_object_get(o, "reason"));
    if (!o) {
        snprintf(s->name, sizeof s->name, s->alive ? "starting" : "stopped");
    } else if (!s->alive && state && strcmp(state, "stopped") != 0 && strcmp(state, "failed") != 0) {
        snprintf(s->name, sizeof s->name, "failed");
        snprintf(s->reason, sizeof s->reason, "its supervisor was killed while it was %s", state);
    } else {
        snprintf(s->name, sizeof s->name, "%s", state ? state : "stopped");
        snprintf(s->reason, sizeof s->reason, "%s", reason ? reason : "");
    }
    json_decref(o);
    free(path);
}
