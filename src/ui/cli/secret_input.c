/* Where values of secrets come from. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "core/ca.h"
#include "core/record.h"
#include "core/sentinel.h"
#include "core/service.h"
#include "ui/cli/secret.h"
#include "ui/client.h"

int secret_ask(const char *prompt, char *out, size_t cap, struct err *e)
{
    struct termios was, quiet;
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (fd < 0 || tcgetattr(fd, &was) < 0) {
        if (fd >= 0)
            close(fd);
        return err_set(e, STATUS_USAGE, "there is no terminal to ask on; give the value on standard input with --password-stdin");
    }
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGTSTP); /* not while the echo is off; ^C ends us, and the terminal is put right by its shell */
    sigprocmask(SIG_BLOCK, &block, &old);
    quiet = was;
    quiet.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
    quiet.c_lflag |= ICANON;
    quiet.c_cc[VEOL] = 3; /* it ends the line: nobody presses Enter after it */
    dprintf(fd, "%s: ", prompt);
    tcsetattr(fd, TCSAFLUSH, &quiet);
    size_t n = 0;
    bool whole = false, interrupted = false;
    for (char c; n < cap - 1 && read(fd, &c, 1) == 1;) {
        if (c == '\n' || c == '\r') {
            whole = true;
            break;
        }
        interrupted |= c == 3;
        if (interrupted)
            break;
        out[n++] = c;
    }
    out[n] = '\0';
    tcsetattr(fd, TCSAFLUSH, &was);
    sigprocmask(SIG_SETMASK, &old, NULL);
    dprintf(fd, "\n");
    close(fd);
    if (interrupted)
        return err_set(e, STATUS_FAILED, "nothing was changed");
    return whole && n ? 0 : err_set(e, STATUS_USAGE, n ? "the value is too long" : "no value was given; nothing was changed");
}

int secret_read_fd(int fd, const char *what, char *out, size_t cap, struct err *e)
{
    size_t n = 0;
    for (;;) {
        ssize_t k = read(fd, out + n, cap - n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return err_errno(e, errno, "%s cannot be read", what);
        if (k == 0)
            break;
        n += (size_t)k;
        if (n == cap)
            return err_set(e, STATUS_USAGE, "%s holds more than %zu bytes: that is no credential", what, cap - 1);
    }
    while (n && (out[n - 1] == '\n' || out[n - 1] == '\r'))
        n--;
    if (memchr(out, 0, n))
        return err_set(e, STATUS_USAGE, "%s holds binary data, not a credential", what);
    out[n] = '\0';
    return n ? 0 : err_set(e, STATUS_USAGE, "%s is empty; nothing was changed", what);
}

/* What --from-file names: a file of the user's own, whole and not too large (threat 76). */
int secret_read_file(const char *path, char *out, size_t cap, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ELOOP)
        return err_set(e, STATUS_USAGE, "%s is a symbolic link; name the file itself", path);
    if (fd < 0)
        return err_set(e, STATUS_USAGE, "%s cannot be read: %s", path, strerror(errno));
    int rc = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? secret_read_fd(fd, path, out, cap, e)
                                                        : err_set(e, STATUS_USAGE, "%s is not a regular file", path);
    close(fd);
    return rc;
}

bool secret_passphrase(char *out, size_t cap, void *arg)
{
    const char *file = getenv("SBX_PASSPHRASE_FILE");
    (void)arg;
    if (file) {
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        bool good = fd >= 0 && secret_read_fd(fd, "the passphrase file", out, cap, NULL) == 0;
        if (fd >= 0)
            close(fd);
        return good;
    }
    return isatty(2) && secret_ask("Passphrase of the secret store", out, cap, NULL) == 0;
}

/* Not the clock, which may be set meanwhile. */
static time_t passed(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

static int too_long(int seconds, struct err *e)
{
    return err_set(e, STATUS_TIMEOUT, "the command that gives the secret did not end within %d seconds", seconds);
}

static void give_up(pid_t pid, bool alone)
{
    if (alone)
        kill(-pid, SIGKILL);
    kill(pid, SIGKILL);
}

/* All that comes before the end of a time; -1 with a sentence. */
static int read_until(int fd, time_t end, int seconds, char *out, size_t cap, struct err *e)
{
    size_t n = 0;
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        time_t left = end - passed();
        if (left <= 0)
            return too_long(seconds, e);
        if (poll(&p, 1, left > 1 ? 1000 : (int)left * 1000) <= 0)
            continue;
        ssize_t k = read(fd, out + n, cap - n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            break;
        n += (size_t)k;
        if (n == cap)
            return err_set(e, STATUS_USAGE, "the command prints more than %zu bytes: that is no credential", cap - 1);
    }
    while (n && (out[n - 1] == '\n' || out[n - 1] == '\r'))
        n--;
    if (memchr(out, 0, n))
        return err_set(e, STATUS_USAGE, "the command prints binary data, not a credential");
    out[n] = '\0';
    return n ? 0 : err_set(e, STATUS_USAGE, "the command prints nothing; nothing was changed");
}

int secret_run(const char *command, int seconds, char *out, size_t cap, struct err *e)
{
    int p[2];
    /* With a terminal it may ask its user something there; without one it is ended with all that it started. */
    const bool alone = !isatty(0);
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_errno(e, errno, "cannot run the command");
    pid_t pid = fork();
    if (pid == 0) {
        if (alone)
            setpgid(0, 0);
        dup2(p[1], 1);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(p[1]);
    const time_t end = passed() + seconds;
    int rc = pid > 0 ? read_until(p[0], end, seconds, out, cap, e) : err_errno(e, errno, "cannot run the command");
    close(p[0]);
    if (pid > 0 && rc < 0)
        give_up(pid, alone);
    int status = 0;
    if (pid > 0)
        while (waitpid(pid, &status, rc == 0 ? WNOHANG : 0) != pid)
            if (rc == 0 && usleep(10000) == 0 && passed() >= end) {
                rc = too_long(seconds, e);
                give_up(pid, alone);
            }
    if (pid > 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0) && (rc == 0 || WIFEXITED(status) || WTERMSIG(status) != SIGKILL))
        return err_set(e, STATUS_FAILED, "the command that gives the secret failed (status %d)", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return rc;
}

void secret_tell(const char *scope)
{
    char **names;
    int n = record_list(&names, NULL);
    for (int i = 0; i < n; i++) {
        struct client c;
        struct err e = {0};
        if ((scope[0] && strcmp(scope, names[i]) != 0) || client_open(&c, names[i], &e) < 0)
            continue;
        json_t *reply = client_request(&c, "secrets", NULL, 5000, &e);
        /* Its broker sees the changed file all the same, a moment later. */
        if (!reply && e.status == STATUS_TIMEOUT)
            out_notice("%s does not answer; what it starts now may not have the change yet", names[i]);
        json_decref(reply);
        client_close(&c);
    }
    if (n >= 0)
        record_list_free(names, n);
}

static bool has_own(const struct secretstore *s, const char *name, const char **service)
{
    for (size_t i = 0; s && i < secretstore_count(s); i++)
        if (strcmp(secretstore_at(s, i)->scope, name) == 0) {
            *service = secretstore_at(s, i)->service;
            return true;
        }
    return false;
}

void secret_forget_sandbox(const char *name)
{
    const char *service = NULL;
    struct err e = {0};
    struct secretstore *s = secretstore_open(NULL, NULL, &e);
    bool any = has_own(s, name, &service);
    int rc = s ? 0 : -1;
    secretstore_free(s);
    if (any) {
        s = secretstore_begin(NULL, NULL, &e);
        rc = s ? 0 : -1;
        while (has_own(s, name, &service)) {
            char copy[64];
            snprintf(copy, sizeof copy, "%s", service);
            secretstore_remove(s, copy, name);
        }
        rc = rc == 0 ? secretstore_save(s, &e) : rc;
        secretstore_free(s);
    }
    if (rc < 0)
        out_notice("secrets of %s alone, if there are any, are still in the store: %s", name, e.text);
}

/* One that no other secret's value or sentinel holds, nor is held in (threat 71). */
static char *unique_sentinel(const struct secretstore *s, const char *value, const char *prefix)
{
    char *made = NULL;
    for (int tries = 0; tries < 100; tries++) {
        bool clash = false;
        free(made);
        if (!(made = sentinel_make(value, prefix)))
            return NULL;
        for (size_t i = 0; i < secretstore_count(s); i++) {
            const struct secret *r = secretstore_at(s, i);
            clash |= strstr(r->sentinel, made) || strstr(made, r->sentinel) || strstr(r->value, made) || strstr(made, r->value);
        }
        if (!clash)
            break;
    }
    return made;
}

void secret_tend_authority(bool tell)
{
    struct err why = {0};
    int rc = ca_ensure(true, NULL, NULL, &why);
    if (rc < 0 && tell)
        out_notice("%s", why.text);
    if (rc > 0)
        out_notice("sandboxes get another certificate authority at their next start; those that run go on with the one of before");
}

int secret_store(const struct secret_value *v, struct err *e)
{
    if (service_check_value(v->value, e) < 0)
        return -1;
    json_t *service = service_load(v->service, e);
    if (!service)
        return -1;
    const json_t *form = service_form(service, v->form);
    const char *prefix = json_string_value(json_object_get(form, "prefix"));
    struct secretstore *s = form ? secretstore_begin(secret_passphrase, NULL, e) : NULL;
    int rc = -1;
    if (!form)
        err_set(e, STATUS_USAGE, "the service %s has no form \"%s\"", v->service, v->form);
    if (s) {
        const struct secret *old = NULL;
        for (size_t i = 0; i < secretstore_count(s); i++) {
            const struct secret *r = secretstore_at(s, i);
            if (strcmp(r->service, v->service) == 0 && strcmp(r->scope, v->scope) == 0)
                old = r;
        }
        const char *form_name = v->form && v->form[0] ? v->form : service_first_form(service);
        /* Agents that run hold the old sentinel: it stays good. */
        bool keep = old && strcmp(old->form, form_name) == 0 && strcmp(old->sentinel, v->value) != 0;
        char *made = keep ? NULL : unique_sentinel(s, v->value, prefix);
        struct secret fresh = {.service = v->service, .scope = v->scope, .form = form_name, .value = v->value,
                               .sentinel = keep ? old->sentinel : made, .refresh = v->refresh, .command = v->command,
                               .created = old ? old->created : time(NULL), .updated = time(NULL), .expires = v->expires,
                               .command_ttl = v->ttl};
        if (!fresh.sentinel)
            err_set(e, STATUS_FAILED, "out of memory");
        else {
            bool other_lock = secretstore_first(s);
            rc = secretstore_put(s, &fresh, e) < 0 ? -1 : secretstore_save(s, e);
            if (rc == 0 && other_lock) {
                secret_tell("");
                secretstore_settle(s);
                rc = secretstore_save(s, e);
            }
        }
        free(made);
        secretstore_free(s);
    }
    json_decref(service);
    if (rc == 0)
        secret_tell(v->scope);
    if (rc == 0 && ca_check(NULL) < 0) /* the store before this one was put away */
        secret_tend_authority(false);
    return rc;
}
