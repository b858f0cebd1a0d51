#include "vm/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "core/jsonfile.h"
#include "core/paths.h"

#define PROBE_SECONDS 2
#define MEMORY 0x10000u
#define PORT 0x10

/* ---- a throw-away machine: some instructions in 64-bit mode that compute, store and say so on a port ---- */

static const uint8_t program[] = {
    0x48, 0xb8, 0xef, 0xbe, 0xad, 0xde, 0x78, 0x56, 0x34, 0x12, /* mov rax, 0x12345678deadbeef */
    0x48, 0xc1, 0xc8, 0x20,                                     /* ror rax, 32 */
    0x48, 0x89, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00,             /* mov [0x8000], rax */
    0xe6, PORT,                                                 /* out PORT, al */
    0xf4,                                                       /* hlt */
};

static void long_mode(uint8_t *mem, struct kvm_sregs *s)
{
    uint64_t *pml4 = (uint64_t *)(mem + 0x2000), *pdpt = (uint64_t *)(mem + 0x3000), *pd = (uint64_t *)(mem + 0x4000);
    pml4[0] = 0x3000 | 3;
    pdpt[0] = 0x4000 | 3;
    pd[0] = 0x80 | 3; /* 2 MiB, one to one */
    s->cr3 = 0x2000;
    s->cr4 = 0x20;          /* PAE */
    s->cr0 = 0x80050033;    /* PG, WP, NE, ET, MP, PE */
    s->efer = 0x500;        /* LMA, LME */
    struct kvm_segment code = {.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    s->cs = code;
    s->ds = s->es = s->fs = s->gs = s->ss = data;
}

/* In the child: 0 if the result is right. */
static int run_guest(int kvm)
{
    int vm = ioctl(kvm, KVM_CREATE_VM, 0UL);
    if (vm < 0 || ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL) < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0)
        return 1;
    uint8_t *mem = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY, .userspace_addr = (uintptr_t)mem};
    int vcpu = mem == MAP_FAILED ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
    int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vcpu < 0 || size <= 0 || ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return 2;
    struct kvm_run *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = 0x1000, .rsp = 0x9000, .rflags = 2};
    if (run == MAP_FAILED || ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
        return 3;
    memcpy(mem + 0x1000, program, sizeof program);
    long_mode(mem, &sregs);
    if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 || ioctl(vcpu, KVM_SET_REGS, &regs) < 0)
        return 4;
    for (int i = 0; i < 100; i++) {
        if (ioctl(vcpu, KVM_RUN, 0) < 0) {
            if (errno == EINTR)
                continue;
            return 5;
        }
        if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT) {
            uint64_t got;
            memcpy(&got, mem + 0x8000, sizeof got);
            return got == 0xdeadbeef12345678ull ? 0 : 6;
        }
        return 7;
    }
    return 5;
}

static bool has_tsc_deadline(void)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[8192];
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = strncmp(line, "flags", 5) == 0 && strstr(line, " tsc_deadline_timer ");
    if (f)
        fclose(f);
    return found;
}

void accel_probe_now(struct accel *a)
{
    memset(a, 0, sizeof *a);
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        if (errno == EACCES || errno == EPERM)
            snprintf(a->reason, sizeof a->reason,
                     "this user may not open /dev/kvm; run: sudo usermod -aG kvm $USER, then log in anew");
        else if (errno == ENOENT)
            snprintf(a->reason, sizeof a->reason,
                     "there is no /dev/kvm; switch on virtualisation in the firmware, then run: sudo modprobe kvm_intel (or kvm_amd)");
        else
            snprintf(a->reason, sizeof a->reason, "/dev/kvm cannot be opened: %s", strerror(errno));
        return;
    }
    int status = 0, waited = 0;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(PROBE_SECONDS); /* a vCPU that hangs is ended with its process */
        _exit(run_guest(kvm));
    }
    close(kvm);
    if (pid > 0)
        while ((waited = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
            ;
    if (pid < 0 || waited < 0)
        snprintf(a->reason, sizeof a->reason, "KVM could not be tried: %s", strerror(errno));
    else if (WIFSIGNALED(status))
        snprintf(a->reason, sizeof a->reason, "KVM opens, but a virtual processor hangs (nested virtualisation?)");
    else if (WEXITSTATUS(status) != 0)
        snprintf(a->reason, sizeof a->reason, "KVM opens, but does not run a guest (probe step %d)", WEXITSTATUS(status));
    else
        a->kvm = true;
    a->tsc_deadline = a->kvm && has_tsc_deadline();
}

/* ---- the answer is good for one boot of the host ---- */

static json_t *boot_id(void)
{
    char id[64] = "";
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f) {
        if (!fgets(id, sizeof id, f))
            id[0] = '\0';
        fclose(f);
    }
    id[strcspn(id, "\n")] = '\0';
    return json_string(id);
}

static void store(const struct accel *a)
{
    char *path = path_in(PATH_CACHE, NULL, "accel.json");
    json_t *o = json_pack("{s:o, s:b, s:b, s:s}", "boot_id", boot_id(), "kvm", a->kvm, "tsc_deadline", a->tsc_deadline,
                          "reason", a->reason);
    if (path && o)
        jsonfile_write(path, o, 0600, NULL);
    json_decref(o);
    free(path);
}

void accel_probe(struct accel *a)
{
    char *path = path_in(PATH_CACHE, NULL, "accel.json");
    json_t *o = path ? jsonfile_read(path, NULL) : NULL, *id = boot_id();
    memset(a, 0, sizeof *a);
    /* "Forbidden" and "absent" are mended without a boot: only what was tried is remembered. */
    if (o && json_equal(json_object_get(o, "boot_id"), id) && access("/dev/kvm", R_OK | W_OK) == 0) {
        const char *reason = json_string_value(json_object_get(o, "reason"));
        a->kvm = json_is_true(json_object_get(o, "kvm"));
        a->tsc_deadline = json_is_true(json_object_get(o, "tsc_deadline"));
        snprintf(a->reason, sizeof a->reason, "%s", reason ? reason : "");
    } else {
        accel_probe_now(a);
        if (access("/dev/kvm", R_OK | W_OK) == 0)
            store(a);
    }
    json_decref(id);
    json_decref(o);
    free(path);
}

void accel_mark_useless(const char *reason)
{
    struct accel a = {0};
    snprintf(a.reason, sizeof a.reason, "%s", reason);
    store(&a);
}

unsigned accel_tsc_khz(void)
{
    struct timespec t0, t1;
    unsigned best = 0;
    /* The shortest of some tries is the one that nothing interrupted. */
    for (int i = 0; i < 3; i++) {
        clock_gettime(CLOCK_MONOTONIC_RAW, &t0);
        uint64_t c0 = __rdtsc();
        struct timespec nap = {0, 4000000};
        nanosleep(&nap, NULL);
        clock_gettime(CLOCK_MONOTONIC_RAW, &t1);
        uint64_t c1 = __rdtsc();
        int64_t ns = (t1.tv_sec - t0.tv_sec) * 1000000000ll + t1.tv_nsec - t0.tv_nsec;
        unsigned khz = ns > 0 ? (unsigned)((c1 - c0) * 1000000ull / (uint64_t)ns) : 0;
        if (i == 0 || khz < best)
            best = khz;
    }
    /* Rounded, so that a machine template's command line stays the same from run to run. */
    return (best + 500) / 1000 * 1000;
}
