#include "vm/qemu_jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/confine.h"
#include "vm/qemu.h"

#define NOBODY 65534u

void qemu_jail_prepare(struct qemu_jail *j, bool kvm, bool kernel)
{
    memset(j, 0, sizeof *j);
    j->parent = getpid();
    j->kvm = kvm;
    j->kernel = kernel;
    j->uid = geteuid();
    j->gid = getegid();
    j->drop = j->uid == 0;
    if (j->drop) {
        j->uid = NOBODY;
        j->gid = NOBODY;
    }
    /* All that QEMU needs it has by descriptor, but for /dev/kvm, which it opens: nobody may by its group. */
    struct stat st;
    if (j->drop && kvm && stat("/dev/kvm", &st) == 0 && (st.st_mode & 06) != 06) {
        j->drop = (st.st_mode & 060) == 060 && st.st_gid != 0;
        j->uid = j->drop ? NOBODY : 0;
        j->gid = j->drop ? st.st_gid : 0;
    }
    /* Nobody inside; outside it stays who we are, or nobody if we are root. */
    snprintf(j->uid_map, sizeof j->uid_map, "%u %u 1", NOBODY, (unsigned)j->uid);
    snprintf(j->gid_map, sizeof j->gid_map, "%u %u 1", NOBODY, (unsigned)j->gid);
}

static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    close(fd);
    return n < 0 ? -1 : 0;
}

static void limit(int what, rlim_t max)
{
    struct rlimit r = {max, max};
    setrlimit(what, &r);
}

/* A host may forbid user namespaces: Landlock and QEMU's own filter stand without them. */
static void own_namespaces(const struct qemu_jail *j)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) < 0)
        return;
    put("/proc/self/setgroups", "deny");
    put("/proc/self/uid_map", j->uid_map);
    put("/proc/self/gid_map", j->gid_map);
}

int qemu_jail_enter(void *arg)
{
    struct qemu_jail *j = arg;
    limit(RLIMIT_CORE, 0);
    /* Emulation asks for huge pages for the code that it makes: no faster here, and 5 MiB more for each machine. */
    if (!j->kvm)
        prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    limit(RLIMIT_NOFILE, 512);
    limit(RLIMIT_MEMLOCK, 64u << 20);
    if (j->drop && (setgroups(0, NULL) < 0 || setresgid(j->gid, j->gid, j->gid) < 0 || setresuid(j->uid, j->uid, j->uid) < 0))
        return errno;
    /* /proc/self belongs to root until exec if the process is not dumpable, and the maps lie there. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    own_namespaces(j);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* The change of credentials took this away (prctl(2)). */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != j->parent)
        return ESRCH;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return errno;
    const struct confine_path readable[] = {
        {"/usr", -1, CONFINE_READ | CONFINE_EXEC},
        {"/lib", -1, CONFINE_READ | CONFINE_EXEC},
        {"/lib64", -1, CONFINE_READ | CONFINE_EXEC},
        {"/etc/ld.so.cache", -1, CONFINE_READ},
        {"/proc", -1, CONFINE_READ},
        {"/sys/devices/system/cpu", -1, CONFINE_READ},
        {"/dev/kvm", -1, CONFINE_READ | CONFINE_WRITE},
        {"/dev/urandom", -1, CONFINE_READ},
        {"/dev/null", -1, CONFINE_READ | CONFINE_WRITE},
        {NULL, QEMU_FD_INITRD, CONFINE_READ},
        {NULL, QEMU_FD_KERNEL, CONFINE_READ}, /* last: memory needs no rule, and takes none */
    };
    const struct confine c = {.groups = CONFINE_FILES, .paths = readable, .npaths = sizeof readable / sizeof *readable - !j->kernel};
    return confine_files(&c, NULL) < 0 ? EPERM : 0;
}
