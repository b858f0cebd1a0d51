#include "vm/qemu_jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

#ifdef __x86_64__
/* QEMU's own filter is a list of what programs with privileges need.  This one is of what an attacker would: where root does
 * not run it QEMU is the user outside, whose session, agents and other sandboxes listen on sockets that a network of its own
 * does not hide, whose keys lie in the kernel's keyring, and whose processes take its signals.  All sockets that QEMU has it was
 * given.  Written down here, as a library would have to allocate after fork; that of QEMU comes on top. */
static int refuse_calls(void)
{
    static const uint16_t refused[] = {
        SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen,
        SYS_pidfd_open, SYS_pidfd_getfd, SYS_pidfd_send_signal, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_tkill,
        SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_process_madvise,
        SYS_add_key, SYS_request_key, SYS_keyctl,
        SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_fsopen, SYS_open_tree, SYS_move_mount,
        SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_execveat, SYS_open_by_handle_at, SYS_kexec_load,
        SYS_init_module, SYS_finit_module, SYS_delete_module,
    };
    enum { COUNT = sizeof refused / sizeof *refused };
    const uint32_t self = (uint32_t)getpid(), no = SECCOMP_RET_ERRNO | EPERM;
    struct sock_filter code[2 * COUNT + 20];
    unsigned short n = 0;
#define STEP(op, value) code[n++] = (struct sock_filter)BPF_STMT(op, value)
#define TEST(op, value, yes, not) code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | (op) | BPF_K, value, yes, not)
    STEP(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    TEST(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0);
    STEP(BPF_RET, no);
    STEP(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    TEST(BPF_JGE, 0x40000000, 0, 1); /* x32: the same calls under other numbers */
    STEP(BPF_RET, no);
    for (size_t i = 0; i < COUNT; i++) {
        TEST(BPF_JEQ, refused[i], 0, 1);
        STEP(BPF_RET, no);
    }
    /* Itself it may signal: threads are woken that way. */
    TEST(BPF_JEQ, SYS_kill, 2, 0);
    TEST(BPF_JEQ, SYS_tgkill, 1, 0);
    STEP(BPF_RET, SECCOMP_RET_ALLOW);
    STEP(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
    TEST(BPF_JEQ, self, 1, 0);
    STEP(BPF_RET, no);
    STEP(BPF_RET, SECCOMP_RET_ALLOW);
#undef STEP
#undef TEST
    const struct sock_fprog p = {.len = n, .filter = code};
    /* A kernel without filters has none for QEMU's own either: it then does not start. */
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) < 0 && errno != EINVAL ? errno : 0;
}
#else
static int refuse_calls(void)
{
    return 0;
}
#endif

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
    return confine_files(&c, NULL) < 0 ? EPERM : refuse_calls();
}
