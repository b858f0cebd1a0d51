#include "vm/minder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/paths.h"

#define PROCESSES_MAX 8192
#define STEP_MS 50
#define PATIENCE_MS 10000

struct process {
    pid_t pid, parent;
    bool ours;
};

static size_t all_processes(struct process *list)
{
    DIR *d = opendir("/proc");
    struct dirent *ent;
    size_t n = 0;
    while (d && n < PROCESSES_MAX && (ent = readdir(d))) {
        char path[300], text[512];
        if (!isdigit((unsigned char)ent->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", ent->d_name);
        FILE *f = fopen(path, "re");
        size_t len = f ? fread(text, 1, sizeof text - 1, f) : 0;
        if (f)
            fclose(f);
        text[len] = '\0';
        const char *end = strrchr(text, ')'); /* the name before may hold anything */
        long parent;
        if (end && sscanf(end + 1, " %*c %ld", &parent) == 1)
            list[n++] = (struct process){(pid_t)atol(ent->d_name), (pid_t)parent, false};
    }
    if (d)
        closedir(d);
    return n;
}

/* Sends all descendants a signal; how many there are. */
static size_t signal_descendants(int sig)
{
    static struct process list[PROCESSES_MAX];
    size_t n = all_processes(list), found = 0, before;
    do {
        before = found;
        for (size_t i = 0; i < n; i++) {
            bool child = list[i].parent == getpid();
            for (size_t k = 0; k < n && !child && !list[i].ours; k++)
                child = list[k].ours && list[k].pid == list[i].parent;
            if (child && !list[i].ours) {
                list[i].ours = true;
                found++;
            }
        }
    } while (found != before);
    for (size_t i = 0; i < n; i++)
        if (list[i].ours)
            kill(list[i].pid, sig);
    return found;
}

static void reap(pid_t main, int *status)
{
    int s;
    pid_t pid;
    while ((pid = waitpid(-1, &s, WNOHANG)) > 0)
        if (pid == main)
            *status = WIFSIGNALED(s) ? 128 + WTERMSIG(s) : WEXITSTATUS(s);
}

static void end_descendants(pid_t main, int *status)
{
    struct timespec step = {0, STEP_MS * 1000000L};
    for (int waited = 0; waited < 3 * PATIENCE_MS; waited += STEP_MS) {
        reap(main, status);
        if (signal_descendants(waited == 0 ? SIGINT : waited >= PATIENCE_MS ? SIGKILL : 0) == 0)
            return;
        nanosleep(&step, NULL);
    }
}

/* What a user namespace made belongs to others outside of it. */
void minder_remove(const char *folder)
{
    if (path_remove_tree(folder, NULL) == 0 || geteuid() == 0)
        return;
    char *argv[] = {(char *)"mmdebstrap", (char *)"--unshare-helper", (char *)"rm", (char *)"-rf", (char *)folder, NULL};
    struct spawn s = {.path = "mmdebstrap", .argv = argv};
    pid_t pid = spawn_run(&s, NULL);
    if (pid > 0)
        spawn_wait(pid);
    path_remove_tree(folder, NULL);
}

static volatile sig_atomic_t told_to_end;

static void on_signal(int sig)
{
    told_to_end = sig;
}

static _Noreturn void mind(const struct spawn *s, const char *const folders[2], int lifeline, int report)
{
    struct err e = {0};
    int status = -1;
    setsid(); /* the terminal's Ctrl-C is not meant for us */
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    pid_t main = spawn_run(s, &e);
    (void)!write(report, &e, sizeof e);
    close(report);
    /* Its output is the program's alone: who reads it sees the end of it. */
    for (size_t i = 0; i < s->nfds; i++)
        close(s->fds[i].from);
    bool orphan = false;
    while (main > 0 && status < 0 && !orphan) {
        struct pollfd p = {.fd = lifeline, .events = POLLIN};
        orphan = poll(&p, 1, STEP_MS) > 0 || told_to_end;
        reap(main, &status);
    }
    end_descendants(main, &status);
    for (size_t i = 0; i < 2; i++)
        if (folders[i] && (i == 1 || orphan || status != 0))
            minder_remove(folders[i]);
    _exit(main < 0 || orphan ? 127 : status < 0 ? 127 : status);
}

int minder_start(struct minder *m, const struct spawn *s, const char *const folders[2], struct err *e)
{
    int life[2] = {-1, -1}, report[2] = {-1, -1}, rc = -1;
    m->pid = m->lifeline = -1;
    if (pipe2(life, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0) {
        err_errno(e, errno, "cannot start %s", s->path);
        goto out;
    }
    m->pid = fork();
    if (m->pid < 0) {
        err_errno(e, errno, "cannot start %s", s->path);
        goto out;
    }
    if (m->pid == 0) {
        close(life[1]);
        close(report[0]);
        mind(s, folders, life[0], report[1]);
    }
    close(report[1]);
    report[1] = -1;
    struct err why = {0};
    ssize_t n;
    while ((n = read(report[0], &why, sizeof why)) < 0 && errno == EINTR)
        ;
    if (n == (ssize_t)sizeof why && why.status == 0) {
        m->lifeline = life[1];
        life[1] = -1;
        rc = 0;
    } else {
        if (e)
            *e = why;
        spawn_wait(m->pid);
        m->pid = -1;
    }
out:
    for (int i = 0; i < 2; i++) {
        if (life[i] >= 0)
            close(life[i]);
        if (report[i] >= 0)
            close(report[i]);
    }
    return rc;
}

int minder_wait(struct minder *m)
{
    int status = m->pid > 0 ? spawn_wait(m->pid) : 127;
    if (m->lifeline >= 0)
        close(m->lifeline);
    m->pid = m->lifeline = -1;
    return status;
}
