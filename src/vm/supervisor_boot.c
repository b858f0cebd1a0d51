#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/jsonfile.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/spawn.h"
#include "vm/disk.h"
#include "vm/supervisor_image.h"
#include "vm/ports.h"
#include "vm/supervisor_int.h"

/* More for a host that is itself emulated (tests/kvm.py). */
#ifndef PATIENCE
#define PATIENCE 1
#endif
/* How long a machine may be silent before it says hello. */
#define HELLO_KVM_MS (30000 * PATIENCE)
#define HELLO_TCG_MS (90000 * PATIENCE)
#define CLONE_MS (15000 * PATIENCE)
#define CONFIGURE_MS (60000 * PATIENCE)
/* What a machine has put off while it started it does before it is frozen: else each of its clones does it. */
#define SETTLE_MS 700
/* And once more after it rested: what ended only then is to be forgotten. */
#define RESTED_MS 100
#define CONSOLE_CHUNK 16384

static void patience(struct supervisor *s, int ms)
{
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    if (ms && s->patience)
        evtimer_add(s->patience, &tv);
    else if (s->patience)
        evtimer_del(s->patience);
}

/* ---- ends of the machine ---- */

static bool read_console(struct supervisor *s)
{
    char buf[CONSOLE_CHUNK];
    ssize_t n = read(s->vm.console, buf, sizeof buf);
    if (n > 0)
        bounded_log_write(s->console_log, buf, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        event_del(s->console_ev);
    return n > 0;
}

static void on_console(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    read_console(arg);
}

static void try_another_way(struct supervisor *s);

/* A machine that never served: a clone falls back to a whole boot, KVM to emulation, and any boot is tried twice. */
static bool may_start_again(const struct supervisor *s)
{
    return s->life == LIFE_STARTING && !s->configured && !s->freezing &&
           (s->boot == BOOT_CLONE || (s->qemu.kvm && !s->tried_tcg) || !s->tried_again);
}

static void frozen_saved(struct supervisor *s)
{
    /* The state is whole; how the machine ends does not matter, only that it lets go of the memory. */
    s->freezing = true;
    kill(s->vm.pid, SIGKILL);
}

static void on_migrated(struct supervisor *s, json_t *data)
{
    const char *status = json_string_value(json_object_get(data, "status"));
    if (s->boot != BOOT_FREEZE || !status)
        return;
    if (strcmp(status, "completed") == 0)
        frozen_saved(s);
    else if (strcmp(status, "failed") == 0)
        supervisor_fail(s, "the machine could not be frozen; sbx config set vm.clone false avoids that");
}

static void on_block_error(struct supervisor *s, json_t *data)
{
    if (json_is_true(json_object_get(data, "nospace"))) {
        supervisor_fail(s, "the disk of this host is full: make room, then start it again");
        return;
    }
    const char *reason = json_string_value(json_object_get(data, "reason"));
    const char *action = json_string_value(json_object_get(data, "action"));
    if (action && strcmp(action, "stop") == 0)
        supervisor_fail(s, "its disk cannot be written: %s", reason ? reason : "input/output error");
    else
        supervisor_notice(s, "a read from its disk failed");
}

static void on_event(struct qmp *q, const char *name, json_t *data, void *arg)
{
    (void)q;
    struct supervisor *s = arg;
    if (strcmp(name, "SHUTDOWN") == 0) {
        const char *reason = json_string_value(json_object_get(data, "reason"));
        snprintf(s->shutdown, sizeof s->shutdown, "%s", reason ? reason : "");
        log_line("the machine goes off: %s", s->shutdown);
    } else if (strcmp(name, "GUEST_PANICKED") == 0) {
        s->panicked = true;
        if (!may_start_again(s))
            supervisor_fail(s, "the machine's kernel panicked; sbx logs %s has its last words", s->name);
    } else if (strcmp(name, "BLOCK_IO_ERROR") == 0) {
        on_block_error(s, data);
    } else if (strcmp(name, "MIGRATION") == 0) {
        on_migrated(s, data);
    }
}

/* What the machine's end means is known when QEMU was reaped and its last events were read. */
static void check_gone(struct supervisor *s)
{
    if (!s->vm_reaped || !s->qmp_closed)
        return;
    if (s->freezing) {
        struct err e = {0};
        boot_end(s);
        s->freezing = false;
        int rc = frozen_take(&s->frozen, s->key, s->freeze_ram, s->freeze_state, &e);
        s->freeze_ram = s->freeze_state = -1;
        if (rc == 0 && s->layer)
            rc = disk_layer_keep(s->layer, s->key, &e);
        if (rc == 0) {
            free(s->layer);
            s->layer = NULL;
            s->boot = BOOT_CLONE;
            s->keeper = frozen_keep(&s->frozen);
        } else {
            log_line("freezing failed: %s", e.text);
            s->boot = BOOT_COLD;
        }
        if (boot_start(s, &e) < 0)
            supervisor_fail(s, "%s", e.text);
        return;
    }
    if (may_start_again(s)) {
        log_line("QEMU ended while it started: %s", bounded_log_last_line(s->log));
        try_another_way(s);
        return;
    }
    supervisor_happened(s, HAPPENED_END);
}

static void on_qmp_closed(struct qmp *q, void *arg)
{
    (void)q;
    struct supervisor *s = arg;
    s->qmp_closed = true;
    check_gone(s);
}

static const struct qmp_ops qmp_ops = {.event = on_event, .closed = on_qmp_closed};

void boot_vm_reaped(struct supervisor *s, int status)
{
    s->vm.pid = 0;
    s->vm_reaped = true;
    s->vm_status = status;
    if (!s->qmp)
        s->qmp_closed = true;
    check_gone(s);
}

/* ---- freezing ---- */

static json_t *capabilities(void)
{
    return json_pack("{s:[{s:s, s:b}, {s:s, s:b}]}", "capabilities", "capability", "x-ignore-shared", "state", 1,
                     "capability", "events", "state", 1);
}

static void freeze(struct supervisor *s)
{
    struct err e = {0};
    s->freeze_state = frozen_new_state(&e);
    if (s->freeze_state < 0 || qmp_command(s->qmp, "stop", NULL, -1, NULL, NULL) < 0 ||
        qmp_command(s->qmp, "migrate-set-capabilities", capabilities(), -1, NULL, NULL) < 0 ||
        qmp_command(s->qmp, "getfd", json_pack("{s:s}", "fdname", "state"), s->freeze_state, NULL, NULL) < 0 ||
        qmp_command(s->qmp, "migrate", json_pack("{s:s}", "uri", "fd:state"), -1, NULL, NULL) < 0)
        supervisor_fail(s, "the machine could not be frozen: %s", e.status ? e.text : "QEMU does not listen");
}

static void settle(struct supervisor *s, int ms)
{
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    if (evtimer_add(s->settled, &tv) < 0)
        supervisor_fail(s, "out of memory");
}

static void on_rested(void *arg, const json_t *reply, const char *error)
{
    struct supervisor *s = arg;
    (void)reply;
    (void)error;
    if (s->life == LIFE_STARTING && s->boot == BOOT_FREEZE)
        settle(s, RESTED_MS);
}

static void on_settled(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct supervisor *s = arg;
    if (s->life != LIFE_STARTING || s->boot != BOOT_FREEZE)
        return;
    if (s->rested)
        freeze(s);
    else if (ctl_send(s->guest_ctl, linkev_link(s->ctl), json_pack("{s:s}", "op", "rest"), CONFIGURE_MS, on_rested, s) < 0)
        supervisor_fail(s, "the machine takes no orders");
    s->rested = true;
}

static void freeze_when_settled(struct supervisor *s)
{
    s->rested = false;
    settle(s, SETTLE_MS);
}

/* ---- configuring ---- */

static json_t *clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return json_pack("[I, I]", (json_int_t)t.tv_sec, (json_int_t)t.tv_nsec);
}

static json_t *folders(const struct supervisor *s)
{
    json_t *a = json_array();
    json_t *local = json_object_get(s->record.extra, "local");
    for (unsigned i = 0; i < s->record.nfolders; i++) {
        json_t *f = json_pack("{s:i, s:s, s:b}", "index", (int)i, "path", s->record.folders[i].path, "ro",
                              (int)s->record.folders[i].read_only);
        if (f && i == 0 && json_is_array(local))
            json_object_set(f, "local", local);
        json_array_append_new(a, f);
    }
    return a;
}

static void hash_files(const json_t *files, char hex[65])
{
    unsigned char digest[crypto_generichash_BYTES];
    char *text = json_dumps(files, JSON_COMPACT | JSON_SORT_KEYS);
    /* Of a hundred kB and more, before QEMU starts and again for its orders: BLAKE2b takes a fourth of SHA-256's time. */
    crypto_generichash(digest, sizeof digest, (unsigned char *)(text ? text : ""), text ? strlen(text) : 0, NULL, 0);
    sodium_bin2hex(hex, 65, digest, sizeof digest);
    free(text);
}

/* The files that a start brings: the host's (mirrors, authorities; the variables that go with them into env), then the
 * kit's.  common: those that another sandbox of this kit has as well, on whatever folder it works; else the others. */
static json_t *files(const struct supervisor *s, bool common, json_t *env)
{
    json_t *host = image_seed_files(env), *own = json_object_get(s->record.extra, "files"), *f;
    const char *ws = s->record.nfolders ? s->record.folders[0].path : NULL;
    json_t *out = common ? host : json_array();
    size_t i;
    json_array_foreach(own, i, f)
    {
        const char *content = json_string_value(json_object_get(f, "content"));
        bool is_common = !ws || (content && !strstr(content, ws));
        if (is_common == common)
            json_array_append(out, f);
    }
    if (!common)
        json_decref(host);
    return out;
}

/* Files lie on the sandbox's disk once they were written there; a start that has nothing new to write is faster by
 * tens of milliseconds.  s->seed names what the files are, seeded.json what the disk has. */
static json_t *files_to_write(struct supervisor *s, json_t *env)
{
    json_t *all = files(s, true, env), *special = files(s, false, env);
    bool cloned_with = s->boot == BOOT_CLONE && s->fresh;
    json_array_extend(all, special);
    hash_files(all, s->seed);
    char *path = path_sandbox(s->name, "seeded.json", NULL);
    json_t *had = path ? jsonfile_read(path, NULL) : NULL;
    const char *hash = json_string_value(json_object_get(had, "files"));
    if (hash && strcmp(hash, s->seed) == 0) {
        s->seed[0] = '\0';
        json_array_clear(all);
        cloned_with = false;
    }
    json_decref(had);
    free(path);
    json_decref(cloned_with ? all : special);
    return cloned_with ? special : all;
}

static void remember_seed(struct supervisor *s)
{
    char *path = s->seed[0] ? path_sandbox(s->name, "seeded.json", NULL) : NULL;
    json_t *o = path ? json_pack("{s:i, s:s}", "version", 1, "files", s->seed) : NULL;
    if (o)
        jsonfile_write(path, o, 0600, NULL);
    json_decref(o);
    free(path);
}

static json_t *configuration(struct supervisor *s)
{
    unsigned char seed[32], digest[crypto_hash_sha256_BYTES];
    char seed_hex[65], id_hex[65], host[RECORD_NAME_MAX + 1], text[128];
    randombytes_buf(seed, sizeof seed);
    sodium_bin2hex(seed_hex, sizeof seed_hex, seed, sizeof seed);
    sodium_memzero(seed, sizeof seed);
    /* The same at every start of this sandbox, and another's never. */
    int n = snprintf(text, sizeof text, "sbx machine-id %s %lld", s->name, (long long)s->record.created);
    crypto_hash_sha256(digest, (unsigned char *)text, (size_t)n);
    sodium_bin2hex(id_hex, sizeof id_hex, digest, 16);
    snprintf(host, sizeof host, "%s", s->name);
    for (char *p = host; *p; p++)
        if (*p == '_' || *p == '.')
            *p = '-';
    json_t *env = json_object(), *write = files_to_write(s, env);
    if (s->record.env)
        json_object_update(env, s->record.env);
    return json_pack("{s:s, s:o, s:s, s:s, s:s, s:i, s:i, s:o, s:o, s:o, s:b}", "op", "configure", "clock",
                     clock_now(), "seed", seed_hex, "hostname", host, "machine_id", id_hex, "uid", 1000, "gid",
                     1000, "env", env, "files", write, "folders", folders(s), "resize_disk", 0);
}

/* A machine came up: what is known of KVM is kept for the next ones. */
static void accelerator_proved(struct supervisor *s)
{
    if (s->kvm_failed)
        accel_report_stall(s->kvm_failed);
    else if (s->qemu.kvm && s->accel.once_more)
        accel_report_works();
    s->kvm_failed = NULL;
    s->accel.once_more = false;
}

static void on_configured(void *arg, const json_t *reply, const char *error)
{
    struct supervisor *s = arg;
    s->configuring = false;
    patience(s, 0);
    if (s->life != LIFE_STARTING)
        return;
    if (error) {
        supervisor_fail(s, "the machine could not be set up: %s", error);
        return;
    }
    s->configured = true;
    accelerator_proved(s); /* a clone says no hello */
    remember_seed(s);
    log_line("configured in %.0f ms", json_number_value(json_object_get(reply, "ms")));
    boot_helper_ready(s);
}

static void order(struct supervisor *s, json_t *msg, ctl_done done)
{
    if (ctl_send(s->guest_ctl, linkev_link(s->ctl), msg, CONFIGURE_MS, done, s) < 0)
        supervisor_fail(s, "its variables and files, with the certificate authorities of this host, are more than the %u MiB that a "
                           "machine takes", LINK_CTRL_MAX >> 20);
}

static void configure(struct supervisor *s)
{
    supervisor_phase(s, "configuring", NULL);
    s->configuring = true;
    order(s, configuration(s), on_configured);
}

static void on_prepared(void *arg, const json_t *reply, const char *error)
{
    struct supervisor *s = arg;
    (void)reply;
    if (s->life != LIFE_STARTING || s->boot != BOOT_FREEZE)
        return;
    if (error)
        supervisor_fail(s, "the machine could not be prepared: %s", error);
    else
        freeze_when_settled(s);
}

static void prepare(struct supervisor *s)
{
    json_t *env = json_object(), *msg = json_pack("{s:s, s:o}", "op", "prepare", "files", files(s, true, env));
    json_decref(env);
    order(s, msg, on_prepared);
}

/* Called whenever one of the conditions may have become true. */
void boot_helper_ready(struct supervisor *s)
{
    if (s->life != LIFE_STARTING)
        return;
    bool served = s->record.nfolders == 0 || s->folders_served;
    if (s->answered && served && !s->configuring && !s->configured && s->boot != BOOT_FREEZE)
        configure(s);
    if (s->configured && helpers_ready(s))
        supervisor_happened(s, HAPPENED_UP);
}

/* ---- the guest's link ---- */

static void on_guest_hello(struct supervisor *s, const json_t *msg)
{
    if (json_integer_value(json_object_get(msg, "version")) != 1) {
        supervisor_fail(s, "the machine speaks another version; sbx image build makes a fitting one");
        return;
    }
    if (s->answered) {
        if (s->configured)
            supervisor_fail(s, "the machine's init started over");
        return;
    }
    patience(s, 0);
    s->answered = true;
    accelerator_proved(s);
    log_line("hello after %lld ms of the guest's time",
             (long long)json_integer_value(json_object_get(msg, "boot_ms")));
    if (s->boot == BOOT_FREEZE && s->fresh)
        prepare(s);
    else if (s->boot == BOOT_FREEZE)
        freeze_when_settled(s);
    else
        boot_helper_ready(s);
}

static void on_guest_log(const json_t *msg)
{
    static struct log_rate rate;
    const char *text = json_string_value(json_object_get(msg, "text"));
    log_rated(&rate, 20, "guest: %.300s", text ? text : "");
}

static void on_guest_ctrl(struct linkev *ev, json_t *msg, void *arg)
{
    (void)ev;
    struct supervisor *s = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    if (!op)
        return;
    if (strcmp(op, "hello") == 0)
        on_guest_hello(s, msg);
    else if (strcmp(op, "log") == 0)
        on_guest_log(msg);
    else if (!ctl_take(s->guest_ctl, msg))
        sessions_guest_ctrl(s->sessions, msg);
}

static void on_guest_data(struct linkev *ev, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    (void)ev;
    struct supervisor *s = arg;
    if (!ports_data(s->ports, chan, stream, buf, len))
        sessions_guest_data(s->sessions, chan, stream, buf, len);
}

static void on_guest_eof(struct linkev *ev, uint16_t chan, unsigned stream, void *arg)
{
    (void)ev;
    struct supervisor *s = arg;
    if (!ports_eof(s->ports, chan, stream))
        sessions_guest_eof(s->sessions, chan, stream);
}

static void on_guest_writable(struct linkev *ev, uint16_t chan, unsigned stream, void *arg)
{
    (void)ev;
    struct supervisor *s = arg;
    if (!ports_writable(s->ports, chan, stream))
        sessions_guest_writable(s->sessions, chan, stream);
}

static void on_guest_closed(struct linkev *ev, const char *why, void *arg)
{
    (void)ev;
    struct supervisor *s = arg;
    /* Without a reason QEMU is ending, which is told elsewhere. */
    if (why && s->life != LIFE_STOPPING)
        supervisor_fail(s, "the machine broke the protocol of its control port: %s", why);
}

static const struct linkev_ops guest_ops = {.ctrl = on_guest_ctrl,
                                            .data = on_guest_data,
                                            .eof = on_guest_eof,
                                            .writable = on_guest_writable,
                                            .closed = on_guest_closed};

/* ---- starting ---- */

/* No sign of life: a clone is followed by a cold boot, KVM by emulation, both only once. */
static void try_another_way(struct supervisor *s)
{
    struct err e = {0};
    if (s->boot == BOOT_CLONE) {
        /* What cannot be cloned is not offered again; the long way is still open. */
        log_line("the clone gives no sign of life");
        if (s->copied)
            event_free(s->copied);
        s->copied = NULL;
        frozen_discard(s->key);
        frozen_finish(&s->frozen);
        s->boot = BOOT_COLD;
    } else if (s->qemu.kvm && !s->tried_tcg) {
        /* QEMU may have ended for a reason of this sandbox's own: KVM is to blame if emulation gets further. */
        s->kvm_failed = s->vm_reaped ? "ends at once" : "gives no sign of life";
        s->tried_tcg = true;
        if (accel_choose_without(&s->accel, s->kvm_failed, &e) < 0) {
            supervisor_fail(s, "%s", e.text);
            return;
        }
        supervisor_notice_emulation(s);
        s->qemu.kvm = s->accel.kvm;
        s->qemu.tsc_khz = s->accel.tsc_khz;
        s->key[0] = '\0'; /* what is frozen under KVM does not fit any more */
        s->boot = BOOT_COLD;
    } else if (may_start_again(s)) {
        log_line("the machine %s; once more", s->panicked ? "panicked" : s->vm_reaped ? "ended" : "gives no sign of life");
        s->tried_again = true;
        s->boot = BOOT_COLD;
    } else {
        supervisor_fail(s, "the machine gives no sign of life; sbx logs %s may tell why", s->name);
        return;
    }
    boot_end(s);
    if (boot_start(s, &e) < 0)
        supervisor_fail(s, "%s", e.text);
}

static void on_impatient(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    try_another_way(arg);
}

int boot_prepare(struct supervisor *s, struct err *e)
{
    s->vm = (struct qemu_ends){.pid = 0, .qmp = -1, .ctl = -1, .fs = -1, .net = -1, .console = -1};
    s->freeze_ram = s->freeze_state = -1;
    frozen_init(&s->frozen);
    s->qemu = (struct qemu){.name = s->name,
                            .kvm = s->accel.kvm,
                            .tsc_deadline = s->accel.tsc_deadline,
                            .amd = s->accel.amd,
                            .tsc_khz = s->accel.tsc_khz,
                            .cpus = s->record.cpus,
                            .memory_mib = s->record.memory_mib,
                            .disk_mib = s->record.disk_mib,
                            .base = -1,
                            .kernel = -1,
                            .initrd = -1,
                            .ram_fd = -1,
                            .state_fd = -1,
                            .net = -1,
                            .fs = -1,
                            .log = s->log_pipe[1]};
    s->patience = evtimer_new(s->base, on_impatient, s);
    s->settled = evtimer_new(s->base, on_settled, s);
    s->guest_ctl = ctl_new(s->base);
    if (!s->patience || !s->settled || !s->guest_ctl)
        return err_set(e, STATUS_FAILED, "out of memory");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s->net_pair) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s->fs_pair) < 0)
        return err_errno(e, errno, "cannot make a socket pair");
    supervisor_phase(s, "image", NULL);
    if (image_open(&s->record, &s->qemu, e) < 0)
        return -1;
    image_settle_seed();
    supervisor_phase(s, "creating", NULL);
    s->fresh = !disk_exists(s->name) && config_bool("vm.clone", NULL);
    if (!s->fresh && disk_ensure(s->name, s->record.template, s->record.disk_mib, e) < 0)
        return -1;
    int n = s->fresh ? disk_open_parents(s->record.template, s->record.disk_mib, s->qemu.disks, e)
                     : disk_open(s->name, s->record.template, s->record.disk_mib, s->qemu.disks, e);
    if (n < 0)
        return -1;
    s->qemu.ndisks = (unsigned)n;
    return 0;
}

/* Decides how: a frozen machine that fits, one that is to be frozen first, or a boot of its own. */
static int choose(struct supervisor *s)
{
    struct err e = {0};
    if (s->boot != BOOT_COLD || !config_bool("vm.clone", NULL) || s->frozen.ram >= 0 || s->key[0])
        return 0;
    char common[65] = "";
    if (s->fresh) {
        json_t *env = json_object(), *f = files(s, true, env);
        hash_files(f, common);
        json_decref(f);
        json_decref(env);
    }
    if (template_key(&s->qemu, s->fresh ? common : NULL, s->key, &e) < 0) {
        log_line("%s", e.text);
        return 0;
    }
    int rc = s->fresh && !disk_layer_exists(s->key) ? 1 : frozen_find(&s->frozen, s->key, s->record.memory_mib, &e);
    if (rc < 0)
        log_line("%s", e.text);
    s->boot = rc == 0 ? BOOT_CLONE : BOOT_FREEZE;
    return 0;
}

/* The disks of a machine that is to be frozen: a layer over the parents, or none worth the name. */
static int freeze_disks(struct supervisor *s, struct qemu_disk disks[QEMU_DISKS_MAX], struct err *e)
{
    if (!s->fresh)
        return disk_open_blank(s->record.disk_mib, disks, e);
    if (disk_layer_new(s->record.template, s->record.disk_mib, &disks[0], &s->layer, e) < 0)
        return -1;
    for (unsigned i = 1; i < s->qemu.ndisks; i++)
        disks[i] = s->qemu.disks[i];
    return (int)s->qemu.ndisks;
}

/* A fresh sandbox's disk comes with the clone; where there is none it is made as ever. */
static int own_disk(struct supervisor *s, struct err *e)
{
    if (s->qemu.disks[0].fd >= 0)
        return 0;
    if (s->boot == BOOT_CLONE ? disk_from_layer(s->name, s->key, e) < 0
                              : disk_ensure(s->name, s->record.template, s->record.disk_mib, e) < 0)
        return -1;
    return disk_open_own(s->name, &s->qemu.disks[0], e);
}

static void await_clone(struct supervisor *s)
{
    char uri[32];
    snprintf(uri, sizeof uri, "fd:%d", QEMU_FD_STATE);
    /* A machine that arrives announces its card to switches; on this cable nobody learns from it. */
    if (qmp_command(s->qmp, "migrate-set-capabilities", capabilities(), -1, NULL, NULL) < 0 ||
        qmp_command(s->qmp, "migrate-set-parameters", json_pack("{s:i}", "announce-rounds", 0), -1, NULL, NULL) < 0 ||
        qmp_command(s->qmp, "migrate-incoming", json_pack("{s:s}", "uri", uri), -1, NULL, NULL) < 0)
        log_line("QEMU does not listen");
    /* The hello was read when the machine was frozen: it waits for its orders. */
    s->answered = true;
}

static void clone_now(struct supervisor *s)
{
    await_clone(s);
    if (!s->frozen_server)
        s->frozen_server = frozen_serve(s->base, s->name, &s->frozen);
    boot_helper_ready(s);
}

static void on_copied(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct supervisor *s = arg;
    struct err e = {0};
    if (frozen_complete(&s->frozen, &e) == 0) {
        clone_now(s);
    } else {
        log_line("%s", e.text);
        try_another_way(s);
    }
}

/* What comes from the cache is copied while QEMU starts. */
static int clone_when_whole(struct supervisor *s, struct err *e)
{
    int fd = frozen_copy_fd(&s->frozen);
    if (fd < 0) {
        clone_now(s);
        return 0;
    }
    s->copied = event_new(s->base, fd, EV_READ, on_copied, s);
    return s->copied && event_add(s->copied, NULL) == 0 ? 0 : err_set(e, STATUS_FAILED, "out of memory");
}

int boot_start(struct supervisor *s, struct err *e)
{
    struct qemu_disk temporary[QEMU_DISKS_MAX];
    int ntemporary = 0;
    if (choose(s) < 0 || (s->boot != BOOT_FREEZE && own_disk(s, e) < 0))
        return -1;
    struct qemu q = s->qemu;
    s->answered = s->configuring = s->configured = s->panicked = s->vm_reaped = s->qmp_closed = false;
    s->shutdown[0] = '\0';
    supervisor_phase(s, s->boot == BOOT_CLONE ? "cloning" : s->boot == BOOT_FREEZE ? "template" : "booting", NULL);
    if (s->boot == BOOT_FREEZE) {
        if ((s->freeze_ram = frozen_new_ram(q.memory_mib, e)) < 0 ||
            (ntemporary = freeze_disks(s, temporary, e)) < 0)
            return -1;
        q.ram = QEMU_RAM_SHARED;
        q.ram_fd = s->freeze_ram;
        memcpy(q.disks, temporary, sizeof temporary);
        q.ndisks = (unsigned)ntemporary;
    } else {
        q.net = s->net_pair[0];
        q.fs = s->fs_pair[0];
        q.ram = QEMU_RAM_OWN;
    }
    if (s->boot == BOOT_CLONE) {
        q.ram = QEMU_RAM_CLONE;
        q.ram_fd = s->frozen.ram;
        if ((q.state_fd = frozen_state_fd(&s->frozen, e)) < 0)
            return -1;
    }
    int rc = qemu_start(&q, &s->vm, e);
    disk_close(temporary, ntemporary > 0 ? 1 : 0); /* the parents are the sandbox's */
    if (q.state_fd >= 0)
        close(q.state_fd);
    if (rc < 0)
        return -1;
    s->console_ev = event_new(s->base, s->vm.console, EV_READ | EV_PERSIST, on_console, s);
    evutil_make_socket_nonblocking(s->vm.console);
    s->qmp = qmp_new(s->base, s->vm.qmp, &qmp_ops, s);
    s->ctl = linkev_new(s->base, s->vm.ctl, &guest_ops, s);
    if (!s->console_ev || event_add(s->console_ev, NULL) < 0 || !s->qmp || !s->ctl)
        return err_set(e, STATUS_FAILED, "out of memory");
    link_large(linkev_link(s->ctl), true, false);
    s->vm.qmp = s->vm.ctl = -1; /* theirs now */
    if (s->boot == BOOT_CLONE) {
        patience(s, CLONE_MS);
        if (clone_when_whole(s, e) < 0)
            return -1;
    } else {
        patience(s, q.kvm ? HELLO_KVM_MS : HELLO_TCG_MS);
    }
    return 0;
}

void boot_end(struct supervisor *s)
{
    patience(s, 0);
    if (s->settled)
        evtimer_del(s->settled);
    if (s->copied)
        event_free(s->copied);
    s->copied = NULL;
    sessions_set_guest(s->sessions, NULL, s->guest_ctl);
    ports_set_guest(s->ports, NULL, NULL);
    ctl_forget(s->guest_ctl, s);
    if (s->vm.pid > 0) {
        kill(s->vm.pid, SIGKILL);
        spawn_wait(s->vm.pid);
    }
    s->vm.pid = 0;
    qmp_free(s->qmp);
    s->qmp = NULL;
    linkev_free(s->ctl);
    s->ctl = NULL;
    if (s->console_ev) {
        while (read_console(s)) /* its last words: QEMU is gone, so they end */
            ;
        event_free(s->console_ev);
        s->console_ev = NULL;
    }
    int *fds[] = {&s->vm.console, &s->vm.fs, &s->vm.net, &s->vm.qmp, &s->vm.ctl};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

void boot_close(struct supervisor *s)
{
    int *fds[] = {&s->qemu.base,   &s->qemu.kernel, &s->qemu.initrd, &s->net_pair[0],  &s->net_pair[1],
                  &s->fs_pair[0], &s->fs_pair[1],  &s->freeze_ram,  &s->freeze_state};
    boot_end(s);
    frozen_server_free(s->frozen_server);
    frozen_finish(&s->frozen);
    disk_close(s->qemu.disks, (int)s->qemu.ndisks);
    if (s->layer)
        unlink(s->layer);
    free(s->layer);
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (*fds[i] >= 0)
            close(*fds[i]);
    ctl_free(s->guest_ctl);
    sessions_set_guest(s->sessions, NULL, NULL);
    if (s->patience)
        event_free(s->patience);
    if (s->settled)
        event_free(s->settled);
}
