#include "core/git.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/sanitize.h"
#include "core/spawn.h"

#define ARGS_MAX 48

static size_t slurp(int fd, char *out, size_t cap)
{
    size_t n = 0;
    char rest[4096];
    for (;;) {
        ssize_t k = n + 1 < cap ? read(fd, out + n, cap - 1 - n) : read(fd, rest, sizeof rest);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            break;
        if (n + 1 < cap)
            n += (size_t)k;
    }
    if (cap)
        out[n] = '\0';
    return n;
}

int git_run(const char *dir, const char *const *argv, char *out, size_t cap, struct err *e)
{
    static const char *const hard[] = {"git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "safe.bareRepository=explicit",
                                       "-c", "protocol.allow=never", "-c", "core.sshCommand=false", "-c", "core.editor=false", "-c", "core.pager=cat",
                                       "-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "submodule.recurse=false", "-c", "diff.external=", "-C"};
    const char *full[ARGS_MAX];
    char *env[8], home[600], path[1200], said[2048];
    size_t n = 0, ne = 0;
    int p[2], err[2];
    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++)
        full[n++] = hard[i];
    full[n++] = dir;
    for (size_t i = 0; argv[i] && n < ARGS_MAX - 1; i++)
        full[n++] = argv[i];
    full[n] = NULL;
    snprintf(home, sizeof home, "HOME=%.500s", getenv("HOME") ? getenv("HOME") : "/");
    snprintf(path, sizeof path, "PATH=%.1100s", getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
    env[ne++] = home;
    env[ne++] = path;
    env[ne++] = (char *)"LC_ALL=C.UTF-8";
    env[ne++] = (char *)"GIT_CONFIG_NOSYSTEM=1";
    env[ne++] = (char *)"GIT_TERMINAL_PROMPT=0";
    env[ne++] = (char *)"GIT_OPTIONAL_LOCKS=0";
    env[ne] = NULL;
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_errno(e, errno, "cannot run git");
    if (pipe2(err, O_CLOEXEC) < 0) {
        close(p[0]);
        close(p[1]);
        return err_errno(e, errno, "cannot run git");
    }
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const struct spawn_fd fds[] = {{null, 0}, {p[1], 1}, {err[1], 2}};
    const struct spawn s = {.path = "git", .argv = (char *const *)full, .env = env, .fds = fds, .nfds = 3, .die_with_parent = true};
    pid_t pid = spawn_run(&s, e);
    close(null);
    close(p[1]);
    close(err[1]);
    char none[1];
    if (pid > 0) {
        size_t len = slurp(p[0], out ? out : none, out ? cap : sizeof none);
        while (out && len && (out[len - 1] == '\n' || out[len - 1] == '\r'))
            out[--len] = '\0';
        slurp(err[0], said, sizeof said);
    }
    close(p[0]);
    close(err[0]);
    if (pid < 0)
        return e && e->status == STATUS_NOT_FOUND ? err_set(e, STATUS_FAILED, "git is not installed; apt-get install git") : -1;
    int status = spawn_wait(pid);
    if (status == 0)
        return 0;
    /* The last line says what is wrong; git's "fatal: " does not help anybody. */
    char line[400];
    size_t len = strlen(said);
    while (len && (said[len - 1] == '\n' || said[len - 1] == '\r'))
        said[--len] = '\0';
    char *last = strrchr(said, '\n');
    last = last ? last + 1 : said;
    if (strncmp(last, "fatal: ", 7) == 0)
        last += 7;
    sanitize_line(line, sizeof line, last, strlen(last));
    return err_set(e, STATUS_FAILED, "git: %s", line[0] ? line : "it failed");
}

int git_top(const char *dir, char *out, size_t cap, struct err *e)
{
    const char *argv[] = {"rev-parse", "--show-toplevel", NULL};
    struct err why = {0};
    if (git_run(dir, argv, out, cap, &why) == 0 && out[0] == '/')
        return 0;
    return err_set(e, STATUS_USAGE, "%s is not in a git repository (%s)", dir, why.text[0] ? why.text : "it has no work tree");
}

int git_check_branch(const char *name, struct err *e)
{
    const char *argv[] = {"check-ref-format", "--branch", name, NULL};
    char out[300];
    if (name[0] != '-' && strlen(name) < 200 && git_run("/", argv, out, sizeof out, NULL) == 0)
        return 0;
    return err_set(e, STATUS_USAGE, "\"%s\" cannot be the name of a branch", name);
}
