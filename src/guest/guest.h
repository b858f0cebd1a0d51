/* sbx-guest: the one program of ours inside the machine, PID 1 from the initramfs on.
 *
 * Theory of operation.  boot_early() brings the machine to the point where it is the same for every
 * sandbox: modules, mounts, addresses, the base image.  Then the hello goes out on the ctl port, and here
 * a machine may be frozen and cloned (or a step later, after `prepare`).  `configure` makes it a particular sandbox; from then on sessions
 * come and go.  One epoll loop does everything but the relay of FUSE messages, which has two threads of
 * its own.  It trusts the host, and nothing in the guest: it never exits and never blocks. */
#ifndef SBX_GUEST_GUEST_H
#define SBX_GUEST_GUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/err.h"
#include "core/link.h"

#define GUEST_VERSION 1
#define GUEST_FS "/run/sbx/fs" /* where the workspace server's tree is mounted */

/* loop.c: descriptors and timers. */
struct watch {
    int fd; /* -1: none */
    uint32_t events; /* 0: the descriptor rests, not even an error or hang-up wakes us */
    void (*ready)(struct watch *w, uint32_t events);
    void *arg;
};
int loop_init(void);
void loop_watch(struct watch *w, int fd, uint32_t events); /* adds, changes the events, or lets rest */
void loop_unwatch(struct watch *w);
void loop_after(int ms, void (*fn)(void *arg), void *arg);
_Noreturn void loop_run(void (*reap)(pid_t pid, int status));

/* control.c: the ctl port. */
int control_start(void); /* opens the port and says hello */
struct link *control_link(void);
void control_note(json_t *msg);
/* {"op":OP, KEY:VALUE, …} with numbers, up to the key NULL.  An emulated machine translates what writes JSON in general, and
 * what prints numbers in every way, before it can run it: a clone's first answers are simple and do without. */
void control_say(const char *op, const char *key, ...);
void control_flush(void); /* what is queued for the host, now: else it goes when the loop comes round */
void control_log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* boot.c */
void boot_early(void);
char *boot_port(const char *name); /* device path of a virtio-serial port; static storage; NULL if none */
int boot_load_modules(const char *dir);
bool boot_set(const char *path, const char *value); /* into a file of the kernel's, in /proc or /sys; false with errno */

/* netup.c: the fixed addresses of core/netplan.h on eth0. 0 or -1. */
int netup(void);

/* configure.c: what makes the machine a sandbox.  prepare() does what all sandboxes with the same disk and files have
 * in common, and may come before a machine is frozen; configure() does the rest (and prepares, where that was not done). */
int prepare(const json_t *msg, struct err *e);
int configure(const json_t *msg, struct err *e);
/* The last that a machine does before it is frozen.  It stays awake for some ticks: what the kernel puts off until it is awake
 * anyway would else be the first that each clone does. */
void rest(void);
const json_t *configure_env(void);
const char *configure_cwd(void); /* the first folder, or "" */
int configure_clock(const json_t *clock);
int configure_resize(struct err *e);
/* Docker cannot stand on an overlay: its folder lies on the disk itself. Mounted with the first use, for it
 * costs a start some 10 ms under emulation. */
int configure_docker(void);
void configure_shutdown(void); /* sync, unmount as far as it goes */

/* fsrelay.c: mounts the workspace tree, and pumps messages between it and the fs port.  The mount alone asks nothing of
 * the host: its first request waits until the pump is started. */
int fsrelay_mount(struct err *e);
void fsrelay_start(void);
void fsrelay_limits(void); /* what the kernel grants a mounted workspace, as if it were a disk */

/* user.c: accounts of the new root, read without NSS. */
struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[32];
    int ngroups;
    char name[64], home[256], shell[256];
};
int user_find(const char *name_or_uid, struct user *u);

/* child.c: fn in a process of its own, which has our memory while we wait until it becomes a program or ends.  A fork
 * would copy the tables of our memory, and later each page that is written to, which is dear under emulation.  The PID, or
 * -1 with errno. */
pid_t child_start(int (*fn)(void *arg), void *arg);

/* session.c */
struct session;
int session_open(const json_t *msg, pid_t *pid, struct err *e);
int session_connect(const json_t *msg, struct err *e);
int session_resize(const json_t *msg, struct err *e);
int session_signal(const json_t *msg, struct err *e);
int session_kill(const json_t *msg, struct err *e);
void session_close(uint16_t chan);
void session_data(uint16_t chan, unsigned stream, const uint8_t *buf, size_t len);
void session_eof(uint16_t chan, unsigned stream);
void session_writable(uint16_t chan, unsigned stream);
bool session_reaped(pid_t pid, int status); /* true if it was one of ours */
unsigned session_count(void);
void session_signal_all(int sig);
void session_end_all(void); /* kills and forgets: the link that carried them is gone */

/* Begins the first session of the agent's before its command is known, so that a clone has less to do. */
void session_await(const struct user *u);

/* oom.c: tells the host whom the kernel killed when memory ran out. */
void oom_watch(void);

/* docker.c: the Engine, started by the first connection to its socket. */
void docker_listen(void);
bool docker_reaped(pid_t pid, int status);

#endif
