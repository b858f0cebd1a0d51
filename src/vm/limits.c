#include "vm/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/spawn.h"

#define PERIOD_US 100000u /* of the processor's quota: the kernel's own default */
#define SCOPE_WAIT_MS 3000
#define RETRIES 3

struct limits_group {
    char dir[PATH_MAX];  /* the group */
    char back[PATH_MAX]; /* cgroup.procs of where we came from; "": systemd removes the group */
    pid_t pid;
};

static const struct {
    const char *name, *setting;
    size_t at;
} fields[] = {
    {"cpu", "limit.cpu", offsetof(struct limits, cpu)},
    {"memory", "limit.memory", offsetof(struct limits, memory)},
    {"pids", "limit.pids", offsetof(struct limits, pids)},
    {"io", "limit.io", offsetof(struct limits, io)},
};
#define FIELDS (sizeof fields / sizeof *fields)

static unsigned value(const struct limits *l, size_t i)
{
    return *(const unsigned *)(const void *)((const char *)l + fields[i].at);
}

int limits_load(const json_t *own, struct limits *out, struct err *e)
{
    json_t *config = config_load(e);
    if (!config)
        return -1;
    for (size_t i = 0; i < FIELDS; i++) {
        const json_t *v = json_object_get(own, fields[i].name);
        if (!json_is_integer(v))
            v = config_value(config, fields[i].setting);
        *(unsigned *)(void *)((char *)out + fields[i].at) = (unsigned)json_integer_value(v);
    }
    json_decref(config);
    return 0;
}

bool limits_any(const struct limits *l)
{
    return l->cpu || l->memory || l->pids || l->io;
}

/* ---- files of a group ---- */

static int put(const char *dir, const char *file, const char *text)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    int why = errno;
    close(fd);
    errno = why;
    return n < 0 ? -1 : 0;
}

static bool get(const char *dir, const char *file, char *out, size_t cap)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(out, 1, cap - 1, f) : 0;
    if (f)
        fclose(f);
    out[n] = '\0';
    return f != NULL;
}

static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ' ' || p[-1] == '\n') && (p[n] == '\0' || p[n] == ' ' || p[n] == '\n'))
            return true;
    return false;
}

static void join(char *text, size_t cap, const char *word)
{
    size_t n = strlen(text);
    snprintf(text + n, cap - n, "%s%s", n ? ", " : "", word);
}

/* Gives the groups beneath dir the controllers that l needs. */
static int enable(const char *dir, const struct limits *l)
{
    char have[512], word[16];
    for (size_t i = 0; i < FIELDS; i++) {
        if (!value(l, i) || (get(dir, "cgroup.subtree_control", have, sizeof have) && has_word(have, fields[i].name)))
            continue;
        snprintf(word, sizeof word, "+%s", fields[i].name);
        if (put(dir, "cgroup.subtree_control", word) < 0)
            return -1;
    }
    return 0;
}

static int write_limits(const char *dir, const struct limits *l, const char *device)
{
    char text[128];
    int rc = 0;
    if (l->cpu) {
        snprintf(text, sizeof text, "%llu %u", (unsigned long long)l->cpu * PERIOD_US / 100, PERIOD_US);
        rc |= put(dir, "cpu.max", text);
    }
    if (l->memory) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)l->memory << 20);
        rc |= put(dir, "memory.max", text);
    }
    if (l->pids) {
        snprintf(text, sizeof text, "%u", l->pids);
        rc |= put(dir, "pids.max", text);
    }
    if (l->io && device[0]) {
        unsigned long long bps = (unsigned long long)l->io << 20;
        snprintf(text, sizeof text, "%s rbps=%llu wbps=%llu", device, bps, bps);
        (void)put(dir, "io.max", text); /* some file systems have no disk of their own: told as missing */
    }
    return rc;
}

void limits_verify(const char *dir, const struct limits *l, char *missing, size_t cap)
{
    static const char *const files[] = {"cpu.max", "memory.max", "pids.max", "io.max"};
    char text[256];
    missing[0] = '\0';
    for (size_t i = 0; i < FIELDS; i++) {
        if (!value(l, i))
            continue;
        bool set = get(dir, files[i], text, sizeof text) && text[0] && text[0] != '\n' && strncmp(text, "max", 3) != 0;
        if (!set)
            join(missing, cap, fields[i].name);
    }
}

/* ---- without systemd ---- */

/* Groups that a killed supervisor left are empty, and go; one that lives cannot be removed. */
static void sweep(const char *dir)
{
    DIR *d = opendir(dir);
    char path[PATH_MAX + 300];
    for (struct dirent *i = d ? readdir(d) : NULL; i; i = readdir(d)) {
        if (i->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, i->d_name);
        rmdir(path);
    }
    if (d)
        closedir(d);
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* The sandbox's lock is ours, so whoever is still in its group is left over. */
static void clear(const char *dir)
{
    for (int i = 0; i < 100 && rmdir(dir) < 0 && errno == EBUSY; i++) {
        if (i == 0)
            put(dir, "cgroup.kill", "1");
        pause_ms(10);
    }
}

static int fill(const char *top, const char *name, const struct limits *l, const char *device, pid_t pid, char *dir, size_t cap)
{
    char number[24];
    snprintf(number, sizeof number, "%ld", (long)pid);
    if (snprintf(dir, cap, "%s/%s", top, name) >= (int)cap) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (int i = 0; i < RETRIES; i++) {
        if (mkdir(dir, 0755) < 0 && errno != EEXIST)
            return -1;
        if (write_limits(dir, l, device) == 0 && put(dir, "cgroup.procs", number) == 0)
            return 0;
        if (errno != ENOENT) /* else another sandbox's sweep took it while it was empty */
            break;
    }
    int why = errno;
    rmdir(dir);
    errno = why;
    return -1;
}

struct limits_group *limits_make(const char *root, const char *own, const char *name, const struct limits *l,
                                 const char *device, pid_t pid, struct err *e)
{
    char dir[PATH_MAX], top[PATH_MAX + 8], have[512], lacking[64] = "";
    struct limits_group *g = calloc(1, sizeof *g);
    int why = EACCES;
    if (!g || snprintf(dir, sizeof dir, "%s%s", root, strcmp(own, "/") == 0 ? "" : own) >= (int)sizeof dir) {
        free(g);
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    g->pid = pid;
    snprintf(g->back, sizeof g->back, "%s", dir);
    for (;;) {
        if (access(dir, W_OK) == 0 && get(dir, "cgroup.controllers", have, sizeof have)) {
            lacking[0] = '\0';
            for (size_t i = 0; i < FIELDS; i++)
                if (value(l, i) && !has_word(have, fields[i].name))
                    join(lacking, sizeof lacking, fields[i].name);
            snprintf(top, sizeof top, "%s/sbx", dir);
            if (!lacking[0] && (mkdir(top, 0755) == 0 || errno == EEXIST)) {
                char mine[PATH_MAX + 64];
                sweep(top);
                snprintf(mine, sizeof mine, "%s/%s", top, name);
                clear(mine);
                if (enable(dir, l) == 0 && enable(top, l) == 0 && fill(top, name, l, device, pid, g->dir, sizeof g->dir) == 0)
                    return g;
                why = errno;
                rmdir(top);
            }
        }
        char *slash = strrchr(dir, '/');
        if (strlen(dir) <= strlen(root) || !slash)
            break;
        *slash = '\0';
    }
    free(g);
    if (lacking[0])
        err_set(e, STATUS_FAILED, "no control group that this user may change has the controllers for %s", lacking);
    else
        err_errno(e, why, "no control group can be made");
    return NULL;
}

/* Where cgroup v2 is mounted, and which group we are in. */
static bool locate(char root[PATH_MAX], char own[PATH_MAX])
{
    char *line = NULL;
    size_t cap = 0;
    root[0] = own[0] = '\0';
    FILE *f = fopen("/proc/self/mountinfo", "re");
    while (f && !root[0] && getline(&line, &cap, f) > 0) {
        char *dash = strstr(line, " - cgroup2 ");
        if (dash && sscanf(line, "%*s %*s %*s %*s %4095s", root) != 1)
            root[0] = '\0';
    }
    if (f)
        fclose(f);
    f = fopen("/proc/self/cgroup", "re");
    while (f && getline(&line, &cap, f) > 0)
        if (strncmp(line, "0::", 3) == 0)
            snprintf(own, PATH_MAX, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
    if (f)
        fclose(f);
    free(line);
    return root[0] && own[0];
}

/* The whole disk that holds a folder, as io.max wants it: a limit for a partition is refused. */
static void device_of(const char *folder, char out[32])
{
    struct stat st;
    char path[96], text[64];
    out[0] = '\0';
    if (stat(folder, &st) < 0 || major(st.st_dev) == 0)
        return;
    snprintf(out, 32, "%u:%u", major(st.st_dev), minor(st.st_dev));
    snprintf(path, sizeof path, "/sys/dev/block/%s", out);
    if (get(path, "partition", text, sizeof text) && get(path, "../dev", text, sizeof text))
        snprintf(out, 32, "%.*s", (int)strcspn(text, "\n"), text);
}

/* ---- with systemd ---- */

struct words {
    char *v[64];
    size_t n;
};

static void add(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct words *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (w->n < 63 && vasprintf(&w->v[w->n], fmt, ap) >= 0)
        w->v[++w->n] = NULL;
    va_end(ap);
}

char **limits_scope_argv(bool user, const char *unit, const struct limits *l, const char *state, pid_t pid)
{
    static const char *const head[] = {"--timeout=2", "--quiet", "call", "org.freedesktop.systemd1",
                                       "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
                                       "StartTransientUnit", "ssa(sv)a(sa(sv))"};
    struct words *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    add(w, "busctl");
    add(w, user ? "--user" : "--system");
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        add(w, "%s", head[i]);
    add(w, "%s", unit);
    add(w, "fail");
    add(w, "%u", 3 + (l->cpu != 0) + (l->memory != 0) + (l->pids != 0) + 2 * (l->io != 0));
    const char *text[] = {"Description", "s", "A sandbox of sbx", "CollectMode", "s", "inactive-or-failed", "PIDs", "au", "1"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        add(w, "%s", text[i]);
    add(w, "%ld", (long)pid);
    const struct {
        const char *name;
        unsigned long long value;
    } numbers[] = {{"CPUQuotaPerSecUSec", l->cpu * 10000ull},
                   {"MemoryMax", (unsigned long long)l->memory << 20},
                   {"TasksMax", l->pids}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (!numbers[i].value)
            continue;
        add(w, "%s", numbers[i].name);
        add(w, "t");
        add(w, "%llu", numbers[i].value);
    }
    static const char *const io[] = {"IOReadBandwidthMax", "IOWriteBandwidthMax"};
    for (size_t i = 0; l->io && i < 2; i++) {
        add(w, "%s", io[i]);
        add(w, "a(st)");
        add(w, "1");
        add(w, "%s", state);
        add(w, "%llu", (unsigned long long)l->io << 20);
    }
    add(w, "0");
    /* The vector alone is what callers want; it is freed with its words. */
    char **argv = calloc(w->n + 1, sizeof *argv);
    if (argv)
        memcpy(argv, w->v, w->n * sizeof *argv);
    free(w);
    return argv;
}

static bool systemd_runs(void)
{
    return access("/run/systemd/system", F_OK) == 0;
}

static struct limits_group *enter_scope(const char *root, const char *name, const struct limits *l, const char *state)
{
    char unit[128], now_root[PATH_MAX], own[PATH_MAX];
    struct limits_group *g = NULL;
    snprintf(unit, sizeof unit, "sbx-%.64s-%ld.scope", name, (long)getpid());
    char **argv = limits_scope_argv(geteuid() != 0, unit, l, state, getpid());
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct spawn_fd fds[] = {{null, 0}, {null, 1}, {2, 2}};
    const struct spawn s = {.path = "busctl", .argv = argv, .fds = fds, .nfds = 3, .die_with_parent = true};
    pid_t pid = argv && null >= 0 ? spawn_run(&s, NULL) : -1;
    /* The answer means that the job is queued: we are in when the kernel says so. */
    if (pid > 0 && spawn_wait(pid) == 0)
        for (int i = 0; !g && i < SCOPE_WAIT_MS / 10; i++) {
            size_t n = locate(now_root, own) ? strlen(own) : 0, m = strlen(unit);
            if (n > m && strcmp(own + n - m, unit) == 0 && (g = calloc(1, sizeof *g)))
                snprintf(g->dir, sizeof g->dir, "%.2000s%.2000s", root, own);
            else
                pause_ms(10);
        }
    for (size_t i = 0; argv && argv[i]; i++)
        free(argv[i]);
    free(argv);
    if (null >= 0)
        close(null);
    return g;
}

/* ---- both ---- */

struct limits_group *limits_enter(const char *name, const struct limits *l, const char *state, char *missing, size_t cap,
                                  struct err *e)
{
    char root[PATH_MAX], own[PATH_MAX], device[32];
    struct limits_group *g = NULL;
    missing[0] = '\0';
    if (!locate(root, own)) {
        err_set(e, STATUS_FAILED, "this host has no cgroup v2");
        return NULL;
    }
    if (systemd_runs())
        g = enter_scope(root, name, l, state);
    if (!g) {
        device_of(state, device);
        g = limits_make(root, own, name, l, device, getpid(), e);
    }
    if (g)
        limits_verify(g->dir, l, missing, cap);
    return g;
}

void limits_leave(struct limits_group *g)
{
    char number[24];
    if (!g)
        return;
    if (g->back[0]) {
        snprintf(number, sizeof number, "%ld", (long)g->pid);
        put(g->back, "cgroup.procs", number);
        for (int i = 0; i < 20 && rmdir(g->dir) < 0 && errno == EBUSY; i++)
            pause_ms(5);
        char *slash = strrchr(g->dir, '/');
        if (slash) {
            *slash = '\0';
            rmdir(g->dir); /* sbx, if it was the last */
        }
    }
    free(g);
}

unsigned limits_oom_kills(const struct limits_group *g)
{
    char text[512];
    unsigned n = 0;
    const char *at = g && get(g->dir, "memory.events", text, sizeof text) ? strstr(text, "oom_kill ") : NULL;
    return at && sscanf(at, "oom_kill %u", &n) == 1 ? n : 0;
}

bool limits_available(char *text, size_t cap)
{
    char root[PATH_MAX], own[PATH_MAX], dir[PATH_MAX + 128], have[512] = "";
    bool found = false;
    if (!locate(root, own)) {
        snprintf(text, cap, "this host has no cgroup v2");
        return false;
    }
    if (systemd_runs() && geteuid() != 0) {
        unsigned uid = (unsigned)geteuid();
        snprintf(dir, sizeof dir, "%s/user.slice/user-%u.slice/user@%u.service", root, uid, uid);
        found = get(dir, "cgroup.controllers", have, sizeof have);
    } else {
        /* The highest that we may change has the most. */
        snprintf(dir, sizeof dir, "%s", root);
        found = access(dir, W_OK) == 0 && get(dir, "cgroup.controllers", have, sizeof have);
        if (!found) {
            snprintf(dir, sizeof dir, "%.2000s%.2000s", root, own);
            found = access(dir, W_OK) == 0 && get(dir, "cgroup.controllers", have, sizeof have);
        }
    }
    text[0] = '\0';
    for (size_t i = 0; found && i < FIELDS; i++)
        if (has_word(have, fields[i].name))
            join(text, cap, fields[i].name);
    if (text[0])
        return true;
    snprintf(text, cap, found ? "the control groups that this user may change have no controllers for cpu, memory, pids or io"
                              : "no control group is delegated to this user");
    return false;
}
