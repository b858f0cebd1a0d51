#include "core/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Names newer than Debian 12's headers (Landlock ABI 3 to 6, linux/landlock.h). */
#define FS_REFER (1ull << 13)
#define FS_TRUNCATE (1ull << 14)
#define FS_IOCTL_DEV (1ull << 15)
#define NET_ALL 3ull
#define SCOPE_ALL 3ull

struct ruleset_attr {
    uint64_t fs, net, scoped;
};

int confine_landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    return abi < 0 ? 0 : (int)abi;
}

bool confine_has_seccomp(void)
{
    return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0;
}

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_WRITE                                                                                  \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | \
     LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |   \
     LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM | FS_REFER | FS_TRUNCATE)
/* What a rule on a file (not a folder) may name. */
#define FS_FILE_ONLY                                                                                \
    (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_EXECUTE | \
     FS_TRUNCATE | FS_IOCTL_DEV)

int confine_files(const struct confine *c, struct err *e)
{
    int abi = confine_landlock_abi();
    if (abi == 0)
        return 0;
    struct ruleset_attr attr = {.fs = (1ull << 13) - 1};
    size_t size = sizeof attr.fs;
    if (abi >= 2)
        attr.fs |= FS_REFER;
    if (abi >= 3)
        attr.fs |= FS_TRUNCATE;
    if (abi >= 4) {
        size = sizeof attr.fs + sizeof attr.net;
        attr.net = c->groups & CONFINE_SOCKETS ? 0 : NET_ALL;
    }
    if (abi >= 5)
        attr.fs |= FS_IOCTL_DEV;
    if (abi >= 6) {
        size = sizeof attr;
        attr.scoped = c->groups & (CONFINE_SOCKETS | CONFINE_PROCESSES) ? 0 : SCOPE_ALL;
    }
    int set = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (set < 0)
        return err_errno(e, errno, "cannot confine: landlock_create_ruleset");
    for (size_t i = 0; i < c->npaths; i++) {
        const struct confine_path *p = &c->paths[i];
        int fd = p->path ? open(p->path, O_PATH | O_CLOEXEC) : p->fd;
        if (fd < 0)
            continue;
        struct stat st;
        uint64_t want = (p->access & CONFINE_READ ? FS_READ : 0) |
                        (p->access & CONFINE_WRITE ? FS_WRITE : 0) |
                        (p->access & CONFINE_EXEC ? LANDLOCK_ACCESS_FS_EXECUTE : 0) | FS_IOCTL_DEV;
        want &= attr.fs;
        if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
            want &= FS_FILE_ONLY;
        struct landlock_path_beneath_attr rule = {.allowed_access = want, .parent_fd = fd};
        long r = syscall(SYS_landlock_add_rule, set, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
        int why = errno;
        if (p->path)
            close(fd);
        if (r < 0) {
            close(set);
            return err_errno(e, why, "cannot confine: landlock rule for %s", p->path ? p->path : "a folder");
        }
    }
    long r = syscall(SYS_landlock_restrict_self, set, 0);
    int why = errno;
    close(set);
    return r < 0 ? err_errno(e, why, "cannot confine: landlock_restrict_self") : 0;
}

static const char *const calls_io[] = {
    /* descriptors */
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
    "pwritev2", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "lseek", "fstat", "newfstatat",
    "ioctl", "pipe2", "splice", "vmsplice", "tee", "shutdown",
    /* sockets that it has */
    "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg", "getsockopt", "setsockopt",
    "getpeername", "getsockname", "accept4",
    /* events and time */
    "poll", "ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
    "epoll_pwait2", "eventfd2", "timerfd_create", "timerfd_settime", "timerfd_gettime",
    "signalfd4", "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time",
    "restart_syscall",
    /* memory, threads' plumbing */
    "mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "mlock", "munlock", "futex",
    "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "membarrier", "getrandom",
    /* itself */
    "getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getppid", "getrusage", "sysinfo", "uname",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sigaltstack",
    "exit", "exit_group", "prctl", "arch_prctl", "getcpu",
};
static const char *const calls_files[] = {
    "open", "openat", "openat2", "creat", "stat", "lstat", "statx", "fstatfs", "statfs", "access", "faccessat",
    "faccessat2", "readlink", "readlinkat", "getdents64", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat",
    "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "chmod",
    "fchmod", "fchmodat", "chown", "fchown", "fchownat", "lchown", "utimensat", "futimesat", "truncate",
    "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "syncfs", "msync", "flock",
    "copy_file_range", "sendfile", "fadvise64", "readahead", "getxattr", "lgetxattr", "fgetxattr",
    "setxattr", "lsetxattr", "fsetxattr", "listxattr", "llistxattr", "flistxattr", "removexattr",
    "lremovexattr", "fremovexattr", "inotify_init1", "inotify_add_watch", "inotify_rm_watch", "umask",
    "getcwd", "chdir", "fchdir", "memfd_create",
};
static const char *const calls_sockets[] = {
    "socket", "socketpair", "connect", "bind", "listen", "accept",
};
static const char *const calls_threads[] = {
    "clone", "clone3", "set_tid_address", "sched_setaffinity", "sched_setscheduler", "sched_getparam",
    "sched_getscheduler", "setpriority", "getpriority",
};
static const char *const calls_processes[] = {
    "fork", "vfork", "execve", "wait4", "waitid", "kill", "pidfd_open", "pidfd_send_signal", "setsid",
    "setpgid", "getpgid", "getpgrp", "setrlimit", "getrlimit", "unshare",
};
/* Only an attacker makes these: the process ends, and the supervisor says so in its log. */
static const char *const calls_deadly[] = {
    "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "mount", "umount2", "pivot_root",
    "chroot", "setns", "unshare", "bpf", "perf_event_open", "keyctl", "add_key", "request_key", "kexec_load",
    "kexec_file_load", "init_module", "finit_module", "delete_module", "open_by_handle_at",
    "userfaultfd", "io_uring_setup", "reboot", "swapon", "iopl", "ioperm", "modify_ldt", "quotactl",
};

static int add_all(scmp_filter_ctx f, uint32_t action, const char *const *names, size_t n,
                   const char *const *but, size_t nbut)
{
    for (size_t i = 0; i < n; i++) {
        bool skip = false;
        for (size_t k = 0; k < nbut; k++)
            skip |= strcmp(names[i], but[k]) == 0;
        int nr = seccomp_syscall_resolve_name(names[i]);
        if (skip || nr == __NR_SCMP_ERROR || nr < 0)
            continue;
        int r = seccomp_rule_add(f, action, nr, 0);
        if (r < 0)
            return r;
    }
    return 0;
}

#define COUNT(a) (sizeof(a) / sizeof *(a))

static int seccomp(unsigned groups, struct err *e)
{
    if (!confine_has_seccomp())
        return 0;
#if defined(__SANITIZE_ADDRESS__)
    /* The sanitizers' run-time makes calls of its own (personality, ptrace for leaks): under them the
     * filter only forbids what an attacker would want. */
    uint32_t otherwise = SCMP_ACT_ALLOW;
#else
    uint32_t otherwise = SCMP_ACT_ERRNO(ENOSYS);
#endif
    scmp_filter_ctx f = seccomp_init(otherwise);
    if (!f)
        return err_set(e, STATUS_FAILED, "cannot confine: out of memory for seccomp");
    int r = 0;
    const struct {
        unsigned group;
        const char *const *names;
        size_t n;
    } table[] = {
        {CONFINE_IO, calls_io, COUNT(calls_io)},
        {CONFINE_FILES, calls_files, COUNT(calls_files)},
        {CONFINE_SOCKETS, calls_sockets, COUNT(calls_sockets)},
        {CONFINE_THREADS, calls_threads, COUNT(calls_threads)},
        {CONFINE_PROCESSES, calls_processes, COUNT(calls_processes)},
    };
    if (otherwise != SCMP_ACT_ALLOW)
        for (size_t i = 0; r == 0 && i < COUNT(table); i++)
            if (groups & table[i].group)
                r = add_all(f, SCMP_ACT_ALLOW, table[i].names, table[i].n, NULL, 0);
    /* Signals and limits are for itself: the user's other processes take both from it (abort() raises a signal). */
    if (r == 0 && otherwise != SCMP_ACT_ALLOW)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    if (r == 0 && otherwise != SCMP_ACT_ALLOW)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A0(SCMP_CMP_EQ, 0));
    bool may_exec = groups & CONFINE_PROCESSES;
    if (r == 0)
        r = add_all(f, SCMP_ACT_KILL_PROCESS, calls_deadly, COUNT(calls_deadly),
                    may_exec ? calls_processes : NULL, may_exec ? COUNT(calls_processes) : 0);
    if (r == 0)
        r = seccomp_load(f);
    seccomp_release(f);
    return r < 0 ? err_errno(e, -r, "cannot confine: seccomp") : 0;
}

static int limit(int what, rlim_t max, const char *name, struct err *e)
{
    struct rlimit now;
    if (getrlimit(what, &now) == 0 && now.rlim_max < max)
        max = now.rlim_max;
    struct rlimit r = {max, max};
    return setrlimit(what, &r) < 0 ? err_errno(e, errno, "cannot set %s", name) : 0;
}

/* Best effort: a host may forbid user namespaces; Landlock and seccomp stand without this one. */
static void leave_network(void)
{
    int ns = CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
    if (unshare(ns) < 0)
        (void)unshare(ns | CLONE_NEWUSER);
}

/* Where root runs it: who opens nothing needs no right of root's; who serves files needs those to what others own, and
 * above all not the one by which a write leaves a file's set-user-id bit. */
static int drop_capabilities(bool files, struct err *e)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct has[_LINUX_CAPABILITY_U32S_3];
    const uint32_t keep = files ? 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FOWNER : 0;
    if (syscall(SYS_capget, &head, has) < 0)
        return err_errno(e, errno, "cannot give up capabilities");
    for (size_t i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        has[i].inheritable = 0;
        has[i].effective &= i ? 0 : keep;
        has[i].permitted &= i ? 0 : keep;
    }
    return syscall(SYS_capset, &head, has) < 0 ? err_errno(e, errno, "cannot give up capabilities") : 0;
}

int confine_self(const struct confine *c, struct err *e)
{
    if (c->own_network)
        leave_network();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_errno(e, errno, "cannot set no_new_privs");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return err_errno(e, errno, "cannot forbid dumps");
    if (limit(RLIMIT_CORE, 0, "RLIMIT_CORE", e) < 0)
        return -1;
#if !defined(__SANITIZE_ADDRESS__) /* which maps terabytes */
    if (c->memory_max && limit(RLIMIT_AS, c->memory_max, "RLIMIT_AS", e) < 0)
        return -1;
#endif
    if (c->files_max && limit(RLIMIT_NOFILE, c->files_max, "RLIMIT_NOFILE", e) < 0)
        return -1;
    if (confine_files(c, e) < 0)
        return -1;
    if (!(c->groups & (CONFINE_SOCKETS | CONFINE_PROCESSES)) && drop_capabilities(c->groups & CONFINE_FILES, e) < 0)
        return -1;
    return seccomp(c->groups, e);
}
