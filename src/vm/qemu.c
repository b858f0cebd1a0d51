#include "vm/qemu.h"

#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/netplan.h"
#include "core/spawn.h"
#include "vm/qemu_jail.h"

#define PROGRAM "qemu-system-x86_64"

struct words {
    char **v;
    size_t n, cap;
    bool failed;
};

static void add(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct words *w, const char *fmt, ...)
{
    if (w->n + 1 >= w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 64;
        char **v = realloc(w->v, cap * sizeof *v);
        if (!v) {
            w->failed = true;
            return;
        }
        w->v = v;
        w->cap = cap;
    }
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&w->v[w->n], fmt, ap) < 0)
        w->failed = true;
    else
        w->n++;
    va_end(ap);
    w->v[w->n] = NULL;
}

static void machine(struct words *w, const struct qemu *q)
{
    add(w, "-M");
    /* One interrupt controller serves the six devices: a second one brings places for sixteen more, which each start builds. */
    add(w, "microvm,x-option-roms=off,isa-serial=off,ioapic2=off,memory-backend=ram0%s",
        /* Without TSC deadlines the guest needs the old timers; under TCG the clock chip saves two
         * seconds of time-outs. */
        q->kvm && q->tsc_deadline ? ",pit=off,pic=off,rtc=off" : "");
    /* With a thread for each processor, emulation runs stale breakpoints of a kernel that patches its own code:
     * "Oops: int3" at one start in thirty on a busy host. So the processors take turns in one thread. */
    add(w, "-accel");
    add(w, q->kvm ? "kvm" : "tcg,thread=single");
    /* "Enhanced" string moves are the slow ones under emulation, which goes byte by byte: without them the guest copies
     * eight at a time.  A fifth level of page tables is one more to walk for an address space that nobody fills.
     * KVM offers Intel's register of capabilities on other processors as well; QEMU before 10.1 takes the offer, and dies
     * where the register cannot be set after all (nested virtualisation). */
    add(w, "-cpu");
    add(w, "%s", q->kvm && q->amd ? "host,arch-capabilities=off" : q->kvm ? "host" : "max,erms=off,la57=off");
    add(w, "-smp");
    add(w, "%u", q->cpus);
    add(w, "-m");
    add(w, "%u", q->memory_mib);
    add(w, "-global");
    add(w, "virtio-mmio.force-legacy=off");
    /* A frozen machine was stopped when it was saved; its clones shall run without being told. */
    add(w, "-global");
    add(w, "migration.store-global-state=off");
}

static void kernel(struct words *w, const struct qemu *q)
{
    add(w, "-kernel");
    add(w, "/proc/self/fd/%d", QEMU_FD_KERNEL);
    add(w, "-initrd");
    add(w, "/proc/self/fd/%d", QEMU_FD_INITRD);
    add(w, "-append");
    char emulated[200] = "";
    if (!q->kvm)
        /* The guest's counter is the host's.  Its watchdog compares it with ticks, which come late on a busy host, and
         * takes it away: clocks then go in steps of 4 ms, and an idle machine wakes 250 times a second.
         * Emulation translates a program once for each place where it lies: at a random one, each time that it starts.  At the
         * same, 60 times /bin/true take a third of the time, and gcc six tenths; what those places would hide is nobody's but the
         * machine's own, and an emulated one is no boundary anyway.
         * Nor is what a kernel does against its own mistakes (pages cleared before they are used, bounds of copies), and each
         * step of it is translated as well; so are the accounts of the kernel's memory by group, and grace periods that begin
         * with whatever is freed: those that nobody waits for may begin seconds later, out of the way of a start. */
        snprintf(emulated, sizeof emulated,
                 " tsc_early_khz=%u tsc=reliable norandmaps init_on_alloc=0 hardened_usercopy=off cgroup.memory=nokmem"
                 " rcu_nocbs=all rcutree.enable_rcu_lazy=1", q->tsc_khz);
    /* What the kernel would set up for nobody takes a seventh of an emulated boot: the jitter generator, which measures
     * itself and is for FIPS alone; names in the formats of trace events; certificates for signatures, measurement of
     * files and keys of a TPM, none of which a machine without firmware can hold against anybody; and the security modules
     * beside Landlock, which agents use for their own sandboxes, and Yama.
     * The watchdog of processors would report what the host is to blame for, and wakes an idle machine, a clone at once; and
     * nobody reads how long tasks were kept waiting, which is counted with each of their switches.
     * sbx.once: nothing will be cloned from it, so sbx-guest prepares nothing for that. */
    add(w, "console=hvc0 quiet reboot=t panic=-1 8250.nr_uarts=0 cryptomgr.notests nowatchdog psi=0 lsm=landlock,yama "
           "initcall_blacklist=jent_mod_init,trace_eval_init,init_trace_printk_function_export,load_system_certificate_list,"
           "init_ima,init_encrypted,vga_arb_device_init%s%s%s",
        q->kvm ? " no_timer_check rcupdate.rcu_expedited=1" : "", emulated, q->ram == QEMU_RAM_OWN ? " sbx.once" : "");
}

/* One -add-fd and the nodes on it. */
static void file_node(struct words *w, int fd, const char *node, bool read_only)
{
    add(w, "-add-fd");
    add(w, "fd=%d,set=%d", fd, fd);
    add(w, "-blockdev");
    /* Who may use a disk is decided by the sandbox's lock; the base image is shared by design. */
    add(w, "driver=file,node-name=%s-file,filename=/dev/fdset/%d,locking=off,%s", node, fd,
        read_only ? "read-only=on" : "discard=unmap");
}

static void disks(struct words *w, const struct qemu *q)
{
    file_node(w, QEMU_FD_BASE, "base", true);
    add(w, "-blockdev");
    add(w, "driver=raw,node-name=base,file=base-file,read-only=on");
    for (unsigned i = q->ndisks; i-- > 0;) {
        char node[16], backing[40] = "";
        snprintf(node, sizeof node, i ? "disk%u" : "disk", i);
        file_node(w, QEMU_FD_DISK + (int)i, node, i > 0);
        if (i + 1 < q->ndisks)
            snprintf(backing, sizeof backing, ",backing=disk%u", i + 1);
        add(w, "-blockdev");
        add(w, "driver=%s,node-name=%s,file=%s-file%s%s", q->disks[i].qcow2 ? "qcow2" : "raw", node, node,
            i ? ",read-only=on" : ",discard=unmap", backing);
    }
}

static void devices(struct words *w, const struct qemu *q)
{
    add(w, "-device");
    add(w, "virtio-blk-device,drive=base,id=base");
    /* A write that fails stops the machine: its file system stays as it was, and the supervisor says why. */
    add(w, "-device");
    add(w, "virtio-blk-device,drive=disk,id=disk,werror=stop,rerror=report");
    add(w, "-netdev");
    add(w, "stream,id=cable,addr.type=fd,addr.str=%d", QEMU_FD_NET);
    add(w, "-device");
    /* A clone would announce its address, which is always the same, before it does anything else. */
    add(w, "virtio-net-device,netdev=cable,guest_announce=off,host_mtu=%d,mac=" NETPLAN_GUEST_MAC, NETPLAN_MTU);
    add(w, "-device");
    add(w, "virtio-serial-device,id=ports,max_ports=4");
    static const struct {
        const char *id, *device;
        int fd;
    } ports[] = {
        {"console", "virtconsole,nr=0", QEMU_FD_CONSOLE},
        {"ctl", "virtserialport,nr=1,name=sbx.ctl", QEMU_FD_CTL},
        {"fs", "virtserialport,nr=2,name=sbx.fs", QEMU_FD_FS},
    };
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        add(w, "-chardev");
        add(w, "socket,id=%s,fd=%d", ports[i].id, ports[i].fd);
        add(w, "-device");
        add(w, "%s,bus=ports.0,chardev=%s", ports[i].device, ports[i].id);
    }
    add(w, "-device");
    add(w, "virtio-rng-device");
    /* QEMU gives pages of a file back by punching holes, which a sealed frozen memory refuses; so only a
     * machine with memory of its own reports what it has free. */
    add(w, "-device");
    add(w, "virtio-balloon-device,id=balloon,deflate-on-oom=on,free-page-reporting=%s",
        q->ram == QEMU_RAM_OWN ? "on" : "off");
    add(w, "-device");
    add(w, "pvpanic");
    add(w, "-action");
    add(w, "panic=shutdown");
}

static void memory(struct words *w, const struct qemu *q)
{
    add(w, "-object");
    if (q->ram == QEMU_RAM_OWN)
        add(w, "memory-backend-ram,id=ram0,size=%uM", q->memory_mib);
    else
        add(w, "memory-backend-file,id=ram0,size=%uM,mem-path=/proc/self/fd/%d,share=%s", q->memory_mib,
            QEMU_FD_RAM, q->ram == QEMU_RAM_SHARED ? "on" : "off");
}

char **qemu_argv(const struct qemu *q)
{
    struct words w = {0};
    static const char *const head[] = {
        PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    };
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        add(&w, "%s", head[i]);
    add(&w, "-name");
    add(&w, "sbx-%s", q->name);
    machine(&w, q);
    memory(&w, q);
    kernel(&w, q);
    disks(&w, q);
    devices(&w, q);
    add(&w, "-chardev");
    add(&w, "socket,id=qmp,fd=%d", QEMU_FD_QMP);
    add(&w, "-mon");
    add(&w, "chardev=qmp,mode=control");
    if (q->ram == QEMU_RAM_CLONE) {
        add(&w, "-incoming");
        add(&w, "defer");
    }
    if (!w.failed)
        return w.v;
    qemu_argv_free(w.v);
    return NULL;
}

void qemu_argv_free(char **argv)
{
    for (size_t i = 0; argv && argv[i]; i++)
        free(argv[i]);
    free(argv);
}

char *qemu_kind(const struct qemu *q)
{
    struct qemu plain = *q;
    plain.ram = QEMU_RAM_SHARED; /* the same for a machine and its clones */
    plain.tsc_khz = q->tsc_khz / 1000;
    struct words w = {0};
    machine(&w, &plain);
    memory(&w, &plain);
    kernel(&w, &plain);
    devices(&w, &plain);
    size_t len = 1;
    for (size_t i = 0; i < w.n; i++)
        len += strlen(w.v[i]) + 1;
    char *line = w.failed ? NULL : calloc(1, len);
    for (size_t i = 0, at = 0; line && i < w.n; i++)
        at += (size_t)snprintf(line + at, len - at, "%s\n", w.v[i]);
    qemu_argv_free(w.v);
    return line;
}

char *qemu_program(struct err *e)
{
    const char *path = getenv("PATH");
    char *copy = strdup(path && path[0] ? path : "/usr/local/bin:/usr/bin:/bin"), *save = NULL, *found = NULL;
    for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir && !found; dir = strtok_r(NULL, ":", &save)) {
        if (asprintf(&found, "%s/" PROGRAM, dir) < 0)
            found = NULL;
        else if (access(found, X_OK) != 0) {
            free(found);
            found = NULL;
        }
    }
    free(copy);
    if (!found)
        err_set(e, STATUS_NOT_FOUND, PROGRAM " is not installed; on Debian: sudo apt install qemu-system-x86");
    return found;
}

/* A clone has its kernel in its memory, but QEMU wants a file all the same, to prepare a boot that does not come; for the
 * real one of 50 MB that takes 15 ms.  This is the least that it takes: 16 bytes to load, and the Xen note of a PVH entry. */
static int stub_kernel(struct err *e)
{
    const uint64_t at = 0x1000000;
    struct stub {
        Elf64_Ehdr head;
        Elf64_Phdr load, notes;
        Elf64_Nhdr note;
        char owner[4];
        uint64_t entry;
        char text[16];
    };
    const struct stub k = {
        .head = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                 .e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT, .e_entry = at,
                 .e_phoff = offsetof(struct stub, load), .e_ehsize = sizeof(Elf64_Ehdr),
                 .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2},
        .load = {.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = offsetof(struct stub, text), .p_vaddr = at,
                 .p_paddr = at, .p_filesz = sizeof k.text, .p_memsz = sizeof k.text, .p_align = 4},
        .notes = {.p_type = PT_NOTE, .p_flags = PF_R, .p_offset = offsetof(struct stub, note),
                  .p_filesz = offsetof(struct stub, text) - offsetof(struct stub, note),
                  .p_memsz = offsetof(struct stub, text) - offsetof(struct stub, note), .p_align = 4},
        .note = {.n_namesz = sizeof k.owner, .n_descsz = sizeof k.entry, .n_type = 18 /* XEN_ELFNOTE_PHYS32_ENTRY */},
        .owner = "Xen",
        .entry = at,
    };
    int fd = memfd_create("sbx-no-kernel", MFD_CLOEXEC);
    if (fd >= 0 && write(fd, &k, sizeof k) == (ssize_t)sizeof k)
        return fd;
    err_errno(e, errno, "cannot make a kernel's place");
    if (fd >= 0)
        close(fd);
    return -1;
}

int qemu_start(const struct qemu *q, struct qemu_ends *out, struct err *e)
{
    int pair[5][2];
    int *ours[] = {&out->qmp, &out->ctl, &out->fs, &out->net, &out->console};
    static const int numbers[] = {QEMU_FD_QMP, QEMU_FD_CTL, QEMU_FD_FS, QEMU_FD_NET, QEMU_FD_CONSOLE};
    struct spawn_fd fds[16 + QEMU_DISKS_MAX];
    size_t nfds = 0, npairs = 0;
    int stub = -1;
    char *program = NULL, **argv = NULL;
    struct qemu_jail jail;
    int rc = -1;

    out->pid = -1;
    for (size_t i = 0; i < 5; i++)
        *ours[i] = -1;
    for (; npairs < 5; npairs++) {
        int given = numbers[npairs] == QEMU_FD_NET ? q->net : numbers[npairs] == QEMU_FD_FS ? q->fs : -1;
        pair[npairs][0] = pair[npairs][1] = -1;
        if (given >= 0) {
            fds[nfds++] = (struct spawn_fd){given, numbers[npairs]};
            continue;
        }
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair[npairs]) < 0) {
            err_errno(e, errno, "cannot make a socket pair");
            goto out;
        }
        fds[nfds++] = (struct spawn_fd){pair[npairs][1], numbers[npairs]};
    }
    program = qemu_program(e);
    argv = program ? qemu_argv(q) : NULL;
    if (!argv || (q->ram == QEMU_RAM_CLONE && (stub = stub_kernel(e)) < 0))
        goto out;
    if (q->log >= 0) {
        fds[nfds++] = (struct spawn_fd){q->log, 1};
        fds[nfds++] = (struct spawn_fd){q->log, 2};
    }
    fds[nfds++] = (struct spawn_fd){stub >= 0 ? stub : q->kernel, QEMU_FD_KERNEL};
    fds[nfds++] = (struct spawn_fd){q->initrd, QEMU_FD_INITRD};
    fds[nfds++] = (struct spawn_fd){q->base, QEMU_FD_BASE};
    if (q->ram != QEMU_RAM_OWN)
        fds[nfds++] = (struct spawn_fd){q->ram_fd, QEMU_FD_RAM};
    if (q->ram == QEMU_RAM_CLONE)
        fds[nfds++] = (struct spawn_fd){q->state_fd, QEMU_FD_STATE};
    for (unsigned i = 0; i < q->ndisks; i++)
        fds[nfds++] = (struct spawn_fd){q->disks[i].fd, QEMU_FD_DISK + (int)i};
    qemu_jail_prepare(&jail, q->kvm, stub < 0);
    struct spawn s = {
        .path = program,
        .argv = argv,
        .env = (char *[]){(char *)"PATH=/usr/bin:/bin", (char *)"LC_ALL=C", NULL},
        .cwd = "/",
        .fds = fds,
        .nfds = nfds,
        .die_with_parent = true,
        .new_session = true,
        .prepare = qemu_jail_enter,
        .arg = &jail,
    };
    out->pid = spawn_run(&s, e);
    rc = out->pid < 0 ? -1 : 0;
out:
    for (size_t i = 0; i < npairs; i++) {
        if (pair[i][1] < 0)
            continue;
        close(pair[i][1]);
        if (rc == 0)
            *ours[i] = pair[i][0];
        else
            close(pair[i][0]);
    }
    if (stub >= 0)
        close(stub);
    qemu_argv_free(argv);
    free(program);
    return rc;
}
