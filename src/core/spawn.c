#include "core/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* What describes the terminal, the multiplexer or the session that sbx happens to run in has no
 * meaning for a child of ours. */
static const char *const scrubbed[] = {
    "TMUX", "TMUX_PANE", "STY", "KITTY_", "WEZTERM_", "ALACRITTY_", "GHOSTTY_", "ITERM_", "VTE_VERSION",
    "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "TERM_SESSION_ID", "WINDOWID", "COLORTERM", "LD_PRELOAD",
    "LD_LIBRARY_PATH", "LD_AUDIT", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY",
    "ALL_PROXY",
};

static const char *const bare[] = {
    "HOME", "USER", "LOGNAME", "PATH", "LANG", "LANGUAGE", "LC_", "TZ", "TMPDIR", "XDG_", "SBX_", "DBUS_SESSION_BUS_ADDRESS", "CREDENTIALS_DIRECTORY",
    "RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES", "ASAN_OPTIONS", "UBSAN_OPTIONS", "GLIBC_TUNABLES",
};

static bool is_of(const char *var, const char *const *list, size_t many)
{
    for (size_t i = 0; i < many; i++) {
        size_t n = strlen(list[i]);
        if (strncmp(var, list[i], n) == 0 && (var[n] == '=' || list[i][n - 1] == '_'))
            return true;
    }
    return false;
}

static char **scrub(bool only_bare)
{
    size_t n = 0;
    while (environ[n])
        n++;
    char **env = calloc(n + 1, sizeof *env);
    if (!env)
        return NULL;
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (only_bare ? is_of(environ[i], bare, sizeof bare / sizeof *bare) : !is_of(environ[i], scrubbed, sizeof scrubbed / sizeof *scrubbed))
            env[k++] = environ[i];
    return env;
}

/* Moves the wanted descriptors to their numbers in two steps, so that none overwrites another that is
 * still to be moved. */
static int place_fds(const struct spawn *s, int *report)
{
    int high = 10;
    for (size_t i = 0; i < s->nfds; i++)
        if (s->fds[i].to >= high)
            high = s->fds[i].to + 1;
    int moved = fcntl(*report, F_DUPFD_CLOEXEC, high);
    if (moved < 0)
        return -1;
    *report = moved;
    int tmp[64];
    if (s->nfds > sizeof tmp / sizeof *tmp) {
        errno = EMFILE;
        return -1;
    }
    for (size_t i = 0; i < s->nfds; i++)
        if ((tmp[i] = fcntl(s->fds[i].from, F_DUPFD_CLOEXEC, high)) < 0)
            return -1;
    for (size_t i = 0; i < s->nfds; i++)
        if (dup2(tmp[i], s->fds[i].to) < 0)
            return -1;
    /* Everything else is marked rather than closed: the report pipe must live until exec. */
    unsigned keep[64];
    size_t n = 0;
    for (size_t i = 0; i < s->nfds; i++)
        keep[n++] = (unsigned)s->fds[i].to;
    if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (keep[i] > 2 && fcntl((int)keep[i], F_SETFD, 0) < 0)
            return -1;
    return 0;
}

static _Noreturn void child(const struct spawn *s, char *const *env, pid_t parent, int report)
{
    int why = 0;
    if (s->new_session)
        setsid();
    if (s->die_with_parent) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(127);
    }
    for (int sig = 1; sig < NSIG; sig++)
        signal(sig, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (s->cwd && chdir(s->cwd) < 0)
        why = errno;
    if (!why && place_fds(s, &report) < 0)
        why = errno;
    if (!why && s->prepare)
        why = s->prepare(s->arg);
    if (!why) {
        execvpe(s->path, s->argv, env);
        why = errno;
    }
    while (write(report, &why, sizeof why) < 0 && errno == EINTR)
        ;
    _exit(127);
}

pid_t spawn_run(const struct spawn *s, struct err *e)
{
    int pipefd[2];
    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return err_errno(e, errno, "cannot start %s", s->path);
    char **own = s->env ? NULL : scrub(s->bare);
    char *const *env = s->env ? s->env : own;
    pid_t parent = getpid();
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &old);
    pid_t pid = env ? fork() : -1;
    if (pid == 0)
        child(s, env, parent, pipefd[1]);
    int why = pid < 0 ? (errno ? errno : ENOMEM) : 0;
    sigprocmask(SIG_SETMASK, &old, NULL);
    close(pipefd[1]);
    free(own);
    if (pid > 0) {
        ssize_t n;
        while ((n = read(pipefd[0], &why, sizeof why)) < 0 && errno == EINTR)
            ;
        if (n != (ssize_t)sizeof why)
            why = 0;
        else
            spawn_wait(pid);
    }
    close(pipefd[0]);
    if (!why)
        return pid;
    err_errno(e, why, "cannot start %s", s->path);
    if (why == ENOENT && e)
        e->status = STATUS_NOT_FOUND;
    return -1;
}

int spawn_wait(pid_t pid)
{
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 127;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
