#include "vm/accel_kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MS 2000
#define PATIENT_MS 5000 /* once more, before it is known for the rest of the boot that it hangs: hosts stall, too */
#define MEMORY (2u << 20)
#define AT_PML4 0x1000u
#define AT_PDPT 0x2000u
#define AT_PD 0x3000u
#define AT_CODE 0x4000u
#define AT_RESULT 0x8000u
#define MAGIC 0x5342582d4b564d21ull

/* mov rax, MAGIC; mov ecx, 1000000; loop: dec ecx; jnz loop; mov [0x8000], rax; out 0x10, al */
static const uint8_t code[] = {
    0x48, 0xb8, 0x21, 0x4d, 0x56, 0x4b, 0x2d, 0x58, 0x42, 0x53, 0xb9, 0x40, 0x42, 0x0f, 0x00, 0xff, 0xc9, 0x75, 0xfc,
    0x48, 0xa3, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xe6, 0x10,
};

struct answer {
    bool works, tsc_deadline, passing;
    char why[128];
};

static bool fail(struct answer *a, const char *what)
{
    /* Another hypervisor holds the processor, or there is no memory just now: that may be over at the next start. */
    a->passing = errno == EBUSY || errno == ENOMEM || errno == EMFILE || errno == ENFILE || errno == EAGAIN || errno == EINTR;
    snprintf(a->why, sizeof a->why, "/dev/kvm opens, but %s (%s)", what, strerror(errno));
    return false;
}

static void long_mode(struct kvm_sregs *s)
{
    struct kvm_segment seg = {
        .base = 0, .limit = ~0u, .selector = 8, .type = 11, .present = 1, .dpl = 0, .s = 1, .l = 1, .g = 1};
    s->cs = seg;
    seg.type = 3;
    seg.selector = 16;
    s->ds = s->es = s->fs = s->gs = s->ss = seg;
    s->cr3 = AT_PML4;
    s->cr4 = 1u << 5;                                 /* PAE */
    s->cr0 = 1u | 1u << 1 | 1u << 4 | 1u << 5 | 1u << 31; /* PE, MP, ET, NE, PG */
    s->efer = 1u << 8 | 1u << 10;                     /* LME, LMA */
}

static bool run(struct answer *a)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        return fail(a, "not twice");
    errno = 0;
    if (ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
        return fail(a, "it speaks another version");
    a->tsc_deadline = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0)
        return fail(a, "makes no machine");
    ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
    if (ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0)
        return fail(a, "has no interrupt controller");
    uint8_t *mem = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return fail(a, "there is no memory for a trial");
    memcpy(mem + AT_CODE, code, sizeof code);
    uint64_t entry;
    entry = AT_PDPT | 3u;
    memcpy(mem + AT_PML4, &entry, sizeof entry);
    entry = AT_PD | 3u;
    memcpy(mem + AT_PDPT, &entry, sizeof entry);
    entry = 0x83u; /* one large page from 0 */
    memcpy(mem + AT_PD, &entry, sizeof entry);
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY, .userspace_addr = (uintptr_t)mem};
    if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return fail(a, "takes no memory");
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vcpu < 0 || size < (int)sizeof(struct kvm_run))
        return fail(a, "makes no processor");
    struct kvm_run *state = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    struct kvm_sregs sregs;
    if (state == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
        return fail(a, "shows no registers");
    long_mode(&sregs);
    struct kvm_regs regs = {.rip = AT_CODE, .rflags = 2, .rsp = MEMORY - 16};
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        return fail(a, "does not enter 64-bit mode");
    if (ioctl(vcpu, KVM_RUN, 0) < 0)
        return fail(a, "does not run");
    uint64_t result;
    memcpy(&result, mem + AT_RESULT, sizeof result);
    if (state->exit_reason != KVM_EXIT_IO || result != MAGIC) {
        snprintf(a->why, sizeof a->why, "/dev/kvm opens, but does not run code (exit reason %u)", state->exit_reason);
        return false;
    }
    return true;
}

/* A child that hangs in the kernel dies when that lets it: it is not waited for, and becomes init's in the end. */
static void end_trial(pid_t pid)
{
    struct timespec nap = {0, 10 * 1000 * 1000};
    kill(pid, SIGKILL);
    for (int i = 0; i < 50; i++) {
        pid_t got = waitpid(pid, NULL, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR))
            return;
        nanosleep(&nap, NULL);
    }
}

/* 1: it ended, 0: not in time, -1 with errno: it cannot be made. */
static int trial(int limit_ms, struct answer *a)
{
    int p[2], ended = 0;
    pid_t pid = -1;
    memset(a, 0, sizeof *a);
    snprintf(a->why, sizeof a->why, "/dev/kvm opens, but a trial in it does not end");
    if (pipe2(p, O_CLOEXEC) < 0)
        return -1;
    if ((pid = fork()) < 0) {
        int error = errno;
        close(p[0]);
        close(p[1]);
        errno = error;
        return -1;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Not the caller's locks and sockets, which end with it. */
        if (dup2(p[1], 3) < 0)
            _exit(1);
        close_range(4, ~0u, 0);
        struct answer mine = {0};
        mine.works = run(&mine);
        if (write(3, &mine, sizeof mine) < 0)
            _exit(1);
        _exit(0);
    }
    close(p[1]);
    struct pollfd w = {.fd = p[0], .events = POLLIN};
    int ready;
    while ((ready = poll(&w, 1, limit_ms)) < 0 && errno == EINTR)
        continue;
    if (ready > 0) {
        struct answer got;
        ended = 1;
        if (read(p[0], &got, sizeof got) == (ssize_t)sizeof got)
            *a = got;
    }
    close(p[0]);
    end_trial(pid);
    a->why[sizeof a->why - 1] = '\0';
    return ended;
}

bool accel_kvm_try(bool *tsc_deadline, bool *lasting, char *why, size_t cap)
{
    struct answer a;
    *tsc_deadline = *lasting = false;
    int ended = trial(LIMIT_MS, &a);
    if (ended == 0)
        ended = trial(PATIENT_MS, &a);
    if (ended < 0) {
        snprintf(why, cap, "/dev/kvm cannot be tried: %s", strerror(errno));
        return false;
    }
    *tsc_deadline = a.tsc_deadline;
    *lasting = !a.passing;
    snprintf(why, cap, "%s", a.works ? "" : a.why);
    return a.works;
}
