/* The supervisor's parts.
 *
 * Theory of operation.  One process for each running sandbox, one event loop.  supervisor.c holds the life
 * cycle, as a table of states and events, and what each step does; supervisor_boot.c brings a machine up (cold,
 * frozen and cloned, with the fall back from KVM to emulation); supervisor_helpers.c starts net, broker, fs and screen and
 * knows when they are ready or dead; supervisor_log.c keeps the logs within bounds; supervisor_stats.c counts;
 * client.c serves `sbx`.  Nothing blocks but the few milliseconds of starting programs.
 *
 * Everything ends with this process: each child has PDEATHSIG, so `kill -9` of the supervisor leaves nothing. */
#ifndef SBX_VM_SUPERVISOR_INT_H
#define SBX_VM_SUPERVISOR_INT_H

#include <event2/event.h>

#include "core/linkev.h"
#include "core/record.h"
#include "core/state.h"
#include "vm/accel.h"
#include "vm/client.h"
#include "vm/ctl.h"
#include "vm/limits.h"
#include "vm/qemu.h"
#include "vm/qmp.h"
#include "vm/session.h"
#include "vm/supervisor_log.h"
#include "vm/template.h"

enum role { ROLE_BROKER, ROLE_NET, ROLE_FS, ROLE_SCREEN, ROLES };

struct helper {
    struct supervisor *owner;
    enum role role;
    pid_t pid;
    struct linkev *link;
    struct ctl *ctl;
    bool ready;
    unsigned restarts;
};

enum boot {
    BOOT_COLD,   /* its own memory, booted for this sandbox */
    BOOT_FREEZE, /* booted to be frozen, then cloned */
    BOOT_CLONE,
};

enum happening {
    HAPPENED_UP,      /* configured: sessions can start */
    HAPPENED_STOP,    /* somebody wants it to stop */
    HAPPENED_END,     /* the machine is off */
    HAPPENED_FAILURE, /* supervisor->reason says what */
};

struct supervisor {
    const char *name;
    struct record record;
    struct event_base *base;
    int lock, starter;
    enum life life;
    const char *phase;
    char reason[768], notice[1024];
    struct timespec began;
    int64_t started; /* seconds since the epoch */

    struct accel accel;
    struct qemu qemu;
    enum boot boot;
    struct qemu_ends vm;
    struct qmp *qmp;
    struct linkev *ctl;
    struct ctl *guest_ctl;
    struct bounded_log *console_log, *log;
    struct event *console_ev, *settled, *patience, *clock_timer, *stop_timer, *screen_timer, *sigchld, *sigterm, *sigint, *log_ev;
    bool vm_reaped, qmp_closed, answered, rested, configuring, configured, panicked, tried_tcg, tried_again;
    const char *kvm_failed; /* how a machine under KVM ended, until emulation has shown that it was KVM */
    int vm_status;
    char shutdown[48]; /* QEMU's word for why the guest went off */
    int log_pipe[2], net_pair[2], fs_pair[2];

    struct frozen frozen;
    struct event *copied; /* the frozen machine is whole */
    struct frozen_server *frozen_server;
    char key[TEMPLATE_KEY_LEN + 1];
    char seed[65]; /* hash of the files that this start writes, "" if none */
    int freeze_ram, freeze_state;
    bool freezing;
    bool fresh;  /* its disk does not exist before a clone brings it along */
    char *layer; /* the disk of a machine that is being frozen for fresh sandboxes; malloc'ed */
    pid_t keeper; /* writes the frozen machine to the cache */

    struct helper helpers[ROLES];
    bool folders_served;
    char policy_trouble[512], log_trouble[512], log_lost[512]; /* as the broker tells */
    int64_t blocked;
    int64_t renew_at; /* when a secret wants a new value, seconds since 1970; 0: none does */
    int64_t renew_next; /* not before: it failed */
    unsigned renew_wait;
    bool renew_look;    /* the clock was set back: `sbx secret renew` sees what that means */
    pid_t renewer;
    pid_t taker;      /* reads the tokens of a sign-in out of mint_pipe, which goes from the broker past us */
    bool take_again;
    int mint_pipe[2];
    char *state_dir;   /* what lies on the disk that it must not fill */
    int64_t keep_free; /* bytes */
    bool paused;
    struct limits_group *group; /* NULL: no limits, or none that this host enforces */
    unsigned stop_step;
    int64_t clock_offset; /* realtime - boottime at the last resync, ms */

    struct sessions *sessions;
    struct clients *clients;
    struct ports *ports;
};

/* supervisor.c */
void supervisor_happened(struct supervisor *s, enum happening what);
/* Sets the reason and ends the machine as failed. */
void supervisor_fail(struct supervisor *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void supervisor_phase(struct supervisor *s, const char *phase, const char *text);
void supervisor_notice(struct supervisor *s, const char *text);
/* The same, that the machine is emulated, and why: of the host, not of this sandbox. */
void supervisor_notice_emulation(struct supervisor *s);
json_t *supervisor_status(struct supervisor *s);
void supervisor_stop(struct supervisor *s, int timeout_s);

/* supervisor_boot.c */
int boot_prepare(struct supervisor *s, struct err *e); /* opens image, disks; decides how to boot */
int boot_start(struct supervisor *s, struct err *e);
void boot_helper_ready(struct supervisor *s); /* configuring may have waited for it */
void boot_vm_reaped(struct supervisor *s, int status);
void boot_end(struct supervisor *s); /* kills QEMU and frees what belongs to it */
void boot_close(struct supervisor *s);

/* supervisor_helpers.c */
int helpers_start(struct supervisor *s, struct err *e);
bool helpers_ready(const struct supervisor *s);
void helpers_taken(struct supervisor *s); /* `sbx secret take` ended */
/* Renews secrets if it is time; to be called each second, so that a host that slept is not late. */
void helpers_renew(struct supervisor *s);
bool helper_reaped(struct supervisor *s, pid_t pid, int status); /* true if it was one of them */
void helpers_end(struct supervisor *s);
extern const char *const role_names[ROLES];

/* supervisor_stats.c */
struct usage {
    int64_t cpu_us, mem_kib;
};
/* Sums over our processes and QEMU; memory as proportional share. */
void usage_read(const struct supervisor *s, struct usage *out);

#endif
