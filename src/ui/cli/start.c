/* Starting a sandbox, and no more than that: the quick program (quick.c) is linked with this. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/spawn.h"
#include "core/state.h"
#include "ui/cli/sandbox.h"

volatile sig_atomic_t sandbox_interrupted;

static void on_interrupt(int sig)
{
    sandbox_interrupted = sig;
}

void sandbox_hold_signals(bool on, struct sigaction old[3])
{
    static const int sigs[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction ours = {.sa_handler = on_interrupt}; /* not restarting: waits end */
    for (size_t i = 0; i < 3; i++) {
        struct sigaction was;
        sigaction(sigs[i], NULL, &was);
        if (!on)
            sigaction(sigs[i], &old[i], NULL);
        else if ((old[i] = was, was.sa_handler != SIG_IGN))
            sigaction(sigs[i], &ours, NULL);
    }
    if (!on && sandbox_interrupted) {
        raise(sandbox_interrupted); /* its default ends us, now that nothing is left behind */
        sandbox_interrupted = 0;
    }
}

bool sandbox_running(const char *name)
{
    struct sandbox_status st;
    return sandbox_state(name, &st, NULL) == 0 && st.life == LIFE_RUNNING;
}

/* How long another command may have a sandbox that is wanted: a machine's first boot, under emulation, on a busy host. */
#define OTHER_S 180

/* What holds for every sandbox of this host is said once until it boots again, or the reason changes; the badge stays. */
static bool told_before(const char *text)
{
    char boot[64] = "", had[2048] = "", now[2048];
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    size_t n = f ? fread(boot, 1, sizeof boot - 1, f) : 0;
    boot[n] = '\0';
    if (f)
        fclose(f);
    int len = snprintf(now, sizeof now, "%s%s\n", boot, text);
    char *path = path_in(PATH_RUNTIME, NULL, "emulation.told");
    f = path ? fopen(path, "re") : NULL;
    n = f ? fread(had, 1, sizeof had - 1, f) : 0;
    had[n] = '\0';
    if (f)
        fclose(f);
    bool same = n > 0 && strcmp(had, now) == 0;
    if (path && !same && len > 0 && (size_t)len < sizeof now)
        file_replace(path, now, (size_t)len, 0600, NULL);
    free(path);
    return same;
}

/* One line of the supervisor's account. 1: it runs, -1: it failed, 0: go on. */
static int take_line(const char *line, struct err *e)
{
    json_t *o = json_loads(line, 0, NULL);
    const char *op = json_string_value(json_object_get(o, "op"));
    const char *text = json_string_value(json_object_get(o, "text"));
    int rc = 0;
    if (op && strcmp(op, "progress") == 0 && text && progress_wanted()) {
        json_t *f = json_object_get(o, "fraction");
        char shown[160];
        /* The phases of the protocol, for people. */
        static const char *const phases[][2] = {{"template", "the first boot of a machine like this"}, {"cloning", "the machine starts"},
                                                {"booting", "the machine boots"}, {"configuring", "the sandbox is set up"}};
        const char *phase = text;
        for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
            phase = strcmp(text, phases[i][0]) == 0 ? phases[i][1] : phase;
        snprintf(shown, sizeof shown, "%s ...", phase);
        progress_show(json_is_number(f) ? json_number_value(f) : -1, shown);
    } else if (op && strcmp(op, "notice") == 0 && text) {
        const char *kind = json_string_value(json_object_get(o, "kind"));
        if (!kind || strcmp(kind, "emulation") != 0 || !told_before(text))
            out_notice("%s", text);
    } else if (op && strcmp(op, "running") == 0) {
        rc = 1;
    } else if (op && strcmp(op, "failed") == 0) {
        const char *error = json_string_value(json_object_get(o, "error"));
        int status = (int)json_integer_value(json_object_get(o, "status"));
        err_set(e, status ? status : STATUS_FAILED, "%s", error ? error : "the sandbox did not start");
        rc = -1;
    }
    json_decref(o);
    return rc;
}

/* Starts a supervisor and listens to it. 1: it runs; -1: it does not. */
static int start_once(const char *name, struct err *e)
{
    int pair[2], rc = 0;
    char *self = path_role("supervise", e);
    if (!self || pipe2(pair, O_CLOEXEC) < 0) {
        free(self);
        return err_errno(e, errno, "cannot start %s", name);
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct spawn_fd fds[] = {{null, 0}, {null, 1}, {null, 2}, {pair[1], 3}};
    char *argv[] = {(char *)"sbx", (char *)"supervise", (char *)name, NULL};
    struct spawn s = {.path = self, .argv = argv, .fds = fds, .nfds = 4, .new_session = true, .cwd = "/"};
    pid_t pid = spawn_run(&s, e);
    close(null);
    close(pair[1]);
    free(self);
    if (pid < 0) {
        close(pair[0]);
        return -1;
    }
    FILE *f = fdopen(pair[0], "r");
    char *line = NULL;
    size_t cap = 0;
    while (rc == 0 && f && getline(&line, &cap, f) > 0)
        rc = take_line(line, e);
    progress_done();
    if (rc == 0)
        err_set(e, STATUS_FAILED, sandbox_interrupted ? "starting %s was interrupted" :
                "the supervisor of %s ended without a word; see: sbx logs --sbx %s", name, name);
    free(line);
    if (f)
        fclose(f);
    else
        close(pair[0]);
    return rc == 1 ? 1 : -1;
}

/* Somebody else has the sandbox: waits until it runs (1) or is nobody's (0). -1: too long, or it is gone. */
static int await_other(const char *name, struct err *e)
{
    for (int i = 0; i < OTHER_S * 20 && !sandbox_interrupted; i++) {
        struct sandbox_status st;
        if (sandbox_state(name, &st, e) < 0)
            return -1;
        if (st.pid == 0 || st.life == LIFE_RUNNING) {
            progress_done();
            return st.life == LIFE_RUNNING;
        }
        if (i == 20 && progress_wanted()) {
            char shown[160];
            snprintf(shown, sizeof shown, "%s is %s; waiting ...", name, st.life == LIFE_STOPPING ? "stopping" : "in use by another command");
            progress_show(-1, shown);
        }
        usleep(50000);
    }
    progress_done();
    return err_set(e, STATUS_TIMEOUT, "%s is in use by another command for more than %d seconds", name, OTHER_S);
}

int sandbox_up(const char *name, struct err *e)
{
    struct record r;
    if (record_load(&r, name, e) < 0)
        return -1;
    record_finish(&r);
    if (sandbox_running(name))
        return 0;
    for (int tries = 0;; tries++) {
        struct err why = {0};
        int rc = await_other(name, &why);
        if (rc == 0)
            rc = start_once(name, &why);
        if (rc == 1)
            return 1;
        /* Somebody else may have taken it in the same moment. */
        struct sandbox_status st;
        bool taken = why.status == STATUS_USAGE && strstr(why.text, "is in use") && sandbox_state(name, &st, NULL) == 0;
        if (!taken || tries == 5 || sandbox_interrupted) {
            if (e)
                *e = why;
            return -1;
        }
    }
}
