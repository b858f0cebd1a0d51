#include "guest/start.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/text.h"

static void group_path(char *buf, size_t cap, const char *group, const char *file)
{
    text_join(buf, cap, START_GROUPS "/", group, file, NULL);
}

void start_group(const char *group)
{
    char path[128];
    group_path(path, sizeof path, group, "");
    mkdir(path, 0755);
}

void start_group_gone(const char *group)
{
    char path[128];
    group_path(path, sizeof path, group, "");
    rmdir(path);
}

static void say_zero(const char *path)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t ignored = write(fd, "0", 1);
    (void)ignored;
    close(fd);
}

/* In our memory (child_start): it allocates nothing, and changes ids by bare system calls, for the C library would change
 * those of our other threads as well.  0 or the errno. */
static int settle(const struct start *st)
{
    char procs[128];
    int why = 0;
    if (st->group) {
        group_path(procs, sizeof procs, st->group, "/cgroup.procs");
        say_zero(procs);
    }
    setsid();
    say_zero("/proc/self/oom_score_adj");
    for (int i = 0; i < 3; i++)
        if (dup2(st->fd[i], i) < 0)
            why = errno;
    if (st->tty && ioctl(0, TIOCSCTTY, 0) < 0)
        why = errno;
    signal(SIGPIPE, SIG_DFL); /* PID 1 ignores or handles no other */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Room for watchers and servers, without the million descriptors that old programs close one by one. */
    struct rlimit files = {65536, 1048576};
    setrlimit(RLIMIT_NOFILE, &files);
    umask(022);
    if (st->tty && fchown(0, st->u->uid, (gid_t)-1) < 0)
        why = errno;
    if (syscall(SYS_setgroups, (size_t)st->u->ngroups, st->u->groups) < 0 || syscall(SYS_setgid, st->u->gid) < 0 ||
        syscall(SYS_setuid, st->u->uid) < 0)
        why = errno;
    return why;
}

static _Noreturn void become(struct start *st, int why)
{
    if (!why && chdir(st->cwd) < 0) {
        st->failed.cwd = st->cwd_given;
        if (st->cwd_given || (chdir(st->u->home) < 0 && chdir("/") < 0))
            why = errno;
    }
    if (!why) {
        execvpe(st->program, st->argv, st->envp);
        why = errno;
    }
    st->failed.error = why;
    _exit(127);
}

static int child(void *arg)
{
    struct start *st = arg;
    become(st, settle(st));
}

pid_t start_child(struct start *st)
{
    char **old = environ;
    environ = st->envp; /* PATH of the new environment decides where a bare name is found */
    pid_t pid = child_start(child, st);
    environ = old;
    return pid;
}

/* ---- in two steps ---- */

static struct {
    const struct start *begun;
    struct start *start; /* what it becomes */
    atomic_int go, alive, settled; /* alive: the kernel clears it when the process has our memory no longer */
    int why;
} waiting;

/* Until *word is another value.  Of one process and its memory, but not private: so is the kernel's own waking. */
static void await(atomic_int *word, int value)
{
    while (atomic_load(word) == value)
        syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void change(atomic_int *word, int value)
{
    atomic_store(word, value);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* It shares even errno with us: so one of us runs at a time, but for the bare calls of waiting. */
static int wait_and_become(void *arg)
{
    (void)arg;
    waiting.why = settle(waiting.begun);
    change(&waiting.settled, 1);
    await(&waiting.go, 0);
    become(waiting.start, waiting.why);
}

pid_t start_waiting(const struct start *st)
{
    static _Alignas(16) char stack[64 * 1024];
    waiting.begun = st;
    atomic_store(&waiting.alive, 1);
    pid_t pid = clone(wait_and_become, stack + sizeof stack, CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, NULL, NULL, &waiting.alive);
    if (pid > 0)
        await(&waiting.settled, 0);
    return pid;
}

void start_go(struct start *st)
{
    char **old = environ;
    environ = st->envp;
    waiting.start = st;
    change(&waiting.go, 1);
    await(&waiting.alive, 1);
    environ = old;
}

/* ---- for nobody ---- */

static struct {
    struct start start;
    atomic_int go, settled;
} spare;

/* Of the C library nothing may be called that PID 1 uses at the same time, not even errno. */
static long bare(long number, const void *a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "+a"(number) : "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return number;
}

static int wait_and_run(void *arg)
{
    static char *const argv[] = {(char *)"true", NULL}, *const envp[] = {(char *)"LANG=C.UTF-8", NULL};
    const struct sched_param none = {0};
    (void)arg;
    settle(&spare.start);
    sched_setscheduler(0, SCHED_IDLE, &none); /* in nobody's way */
    change(&spare.settled, 1);
    while (atomic_load(&spare.go) == 0)
        bare(SYS_futex, &spare.go, FUTEX_WAIT, 0, 0);
    bare(SYS_execve, "/usr/bin/true", (long)argv, (long)envp, 0);
    return 127;
}

void start_spare(const struct user *u)
{
    static _Alignas(16) char stack[16 * 1024];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    spare.start = (struct start){.u = u, .fd = {null, null, null}};
    if (null >= 0 && clone(wait_and_run, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL) > 0)
        await(&spare.settled, 0);
    if (null >= 0)
        close(null);
}

void start_spare_go(void)
{
    if (atomic_load(&spare.settled))
        change(&spare.go, 1);
}

void start_path(const struct user *u, char buf[START_PATH_MAX])
{
    text_join(buf, START_PATH_MAX, u->home, "/.local/bin:", u->home,
              "/.npm-global/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL);
}

/* A program is looked for in all of them, and a name is found, or not, in what is read of a folder's names. */
static void read_folders(char *path)
{
    char *save = NULL;
    for (const char *dir = strtok_r(path, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
        DIR *d = opendir(dir);
        while (d && readdir(d))
            ;
        if (d)
            closedir(d);
    }
}

void start_rehearse(const struct user *u)
{
    int p[2], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    char group[128], path[START_PATH_MAX], variable[START_PATH_MAX + 8];
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)":", NULL}, *envp[] = {variable, (char *)"LANG=C.UTF-8", NULL};
    start_path(u, path);
    snprintf(variable, sizeof variable, "PATH=%s", path);
    read_folders(path);
    start_group("rehearsal");
    if (null >= 0 && pipe2(p, O_CLOEXEC) == 0) {
        struct start st = {.group = "rehearsal", .u = u, .argv = argv, .envp = envp, .cwd = u->home, .program = "sh", .fd = {null, p[1], null}};
        start_child(&st);
        close(p[1]);
        char c;
        while (read(p[0], &c, 1) > 0) /* until it is gone: PID 1 reaps it as any orphan */
            ;
        close(p[0]);
    }
    close(null);
    group_path(group, sizeof group, "rehearsal", "");
    for (int i = 0; i < 20 && rmdir(group) < 0 && errno == EBUSY; i++)
        usleep(5000);
}
