#include "vm/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/log.h"
#include "core/obeyed.h"
#include "core/paths.h"
#include "core/sanitize.h"
#include "core/service.h"
#include "core/spawn.h"
#include "vm/ports.h"
#include "vm/supervisor_int.h"

#define STARTER_FD 3
#define CLOCK_EVERY_S 60
#define CLOCK_JUMP_MS 500
#define CLOCK_BACK_S 60 /* further back than clocks are corrected all the time */

static int64_t since_ms(const struct timespec *t)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)(now.tv_sec - t->tv_sec) * 1000 + (now.tv_nsec - t->tv_nsec) / 1000000;
}

/* ---- telling ---- */

/* The starter may have left: what it does not hear is lost. */
static void tell_starter(struct supervisor *s, json_t *msg)
{
    char *text = s->starter >= 0 && msg ? json_dumps(msg, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    if (text) {
        size_t n = strlen(text);
        text[n] = '\n';
        ssize_t w = write(s->starter, text, n + 1);
        if (w < 0 && errno != EAGAIN) {
            close(s->starter);
            s->starter = -1;
        }
    }
    free(text);
    json_decref(msg);
}

void supervisor_phase(struct supervisor *s, const char *phase, const char *text)
{
    s->phase = phase;
    log_line("%s (%lld ms)", phase, (long long)since_ms(&s->began));
    tell_starter(s, json_pack("{s:s, s:s, s:s}", "op", "progress", "phase", phase, "text", text ? text : phase));
    clients_changed(s->clients);
}

static void notice(struct supervisor *s, const char *kind, const char *text)
{
    sanitize_line(s->notice, sizeof s->notice, text, strlen(text));
    log_line("notice: %s", s->notice);
    tell_starter(s, json_pack("{s:s, s:s, s:s}", "op", "notice", "kind", kind, "text", s->notice));
    clients_changed(s->clients);
}

void supervisor_notice(struct supervisor *s, const char *text)
{
    notice(s, "sandbox", text);
}

void supervisor_notice_emulation(struct supervisor *s)
{
    notice(s, "emulation", s->accel.notice);
}

json_t *supervisor_status(struct supervisor *s)
{
    struct usage u;
    usage_read(s, &u);
    const char *reason = s->reason[0] || s->life != LIFE_RUNNING ? s->reason : s->policy_trouble[0] ? s->policy_trouble : s->log_trouble;
    json_t *publish = s->record.publish ? json_incref(s->record.publish) : json_array();
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:o, s:I, s:o, s:i}", "name", s->name,
                     "state", life_name(s->life), "phase", s->phase ? s->phase : "", "reason", reason, "paused", s->paused,
                     "accel", s->qemu.kvm ? "kvm" : "tcg", "notice", s->notice, "pid", (int)getpid(), "started",
                     (json_int_t)s->started, "uptime_ms", (json_int_t)since_ms(&s->began), "cpu_us",
                     (json_int_t)u.cpu_us, "mem_kib", (json_int_t)u.mem_kib, "sessions",
                     sessions_json(s->sessions), "blocked", (json_int_t)s->blocked, "ports", publish, "asks",
                     (int)clients_questions(s->clients));
}

/* ---- the life cycle ---- */

static void enter(struct supervisor *s, enum life life)
{
    struct err e = {0};
    s->life = life;
    if (state_store(s->name, life, s->reason, &e) < 0)
        log_line("%s", e.text);
    clients_changed(s->clients);
}

static int64_t clock_offset_ms(void)
{
    struct timespec real, boot;
    clock_gettime(CLOCK_REALTIME, &real);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    return (int64_t)(real.tv_sec - boot.tv_sec) * 1000 + (real.tv_nsec - boot.tv_nsec) / 1000000;
}

static void send_clock(struct supervisor *s)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (s->ctl)
        ctl_send(s->guest_ctl, linkev_link(s->ctl),
                 json_pack("{s:s, s:[I, I]}", "op", "clock", "clock", (json_int_t)t.tv_sec, (json_int_t)t.tv_nsec),
                 0, NULL, NULL);
}

static void go_on(struct supervisor *s)
{
    s->paused = false;
    s->reason[0] = s->notice[0] = '\0';
    qmp_command(s->qmp, "cont", NULL, -1, NULL, NULL);
    send_clock(s);
}

/* A guest that fills this host's disk stops before it is full: the machine is paused, and goes on when there is room. */
static void watch_room(struct supervisor *s)
{
    struct statvfs v;
    if (s->life != LIFE_RUNNING || !s->state_dir || statvfs(s->state_dir, &v) < 0)
        return;
    if (s->paused) /* somebody may have changed his mind meanwhile */
        s->keep_free = (int64_t)config_int("limit.keep_free", NULL) << 20;
    int64_t room = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    if (!s->paused && room < s->keep_free) {
        s->paused = true;
        qmp_command(s->qmp, "stop", NULL, -1, NULL, NULL);
        snprintf(s->reason, sizeof s->reason,
                 "paused, for the disk of this host has less than %lld MiB left; it goes on when there is room", (long long)(s->keep_free >> 20));
        supervisor_notice(s, s->reason);
        enter(s, LIFE_RUNNING);
    } else if (s->paused && room >= s->keep_free + s->keep_free / 8) {
        go_on(s);
        log_line("there is room again: the machine goes on");
        enter(s, LIFE_RUNNING);
    }
}

/* The user's shell may have given us keys in its variables: who speaks with the guest keeps none.  (Our helpers never had them.) */
static void forget_keys(void)
{
    json_t *names = service_list(), *name, *form, *var;
    const char *key;
    size_t i, k;
    json_array_foreach(names, i, name) {
        json_t *service = service_load(json_string_value(name), NULL);
        json_object_foreach(json_object_get(service, "forms"), key, form) {
            const json_t *const lists[] = {json_object_get(form, "env"), json_object_get(form, "from_env")};
            for (int l = 0; l < 2; l++)
                json_array_foreach(lists[l], k, var) {
                    char *value = json_is_string(var) ? getenv(json_string_value(var)) : NULL;
                    if (value)
                        explicit_bzero(value, strlen(value));
                    if (value)
                        unsetenv(json_string_value(var));
                }
        }
        json_decref(service);
    }
    json_decref(names);
}

/* Each second a look whether the host slept or its clock was set; each minute in any case. */
static void on_clock(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct supervisor *s = arg;
    static unsigned ticks;
    static bool forgot;
    static struct timespec last_mono, last_boot;
    struct timespec mono, boot;
    watch_room(s);
    helpers_renew(s);
    clients_tend(s->clients);
    if (!forgot) /* not in the way of who waits for the start */
        forget_keys();
    forgot = true;
    clock_gettime(CLOCK_MONOTONIC, &mono);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    int64_t slept = last_boot.tv_sec ? (int64_t)(boot.tv_sec - last_boot.tv_sec) - (mono.tv_sec - last_mono.tv_sec) : 0;
    int64_t offset = clock_offset_ms(), jump = offset - s->clock_offset;
    last_mono = mono;
    last_boot = boot;
    if (slept > 1 || jump > CLOCK_JUMP_MS || jump < -CLOCK_JUMP_MS || ++ticks >= CLOCK_EVERY_S) {
        ticks = 0;
        s->renew_look |= jump < -1000 * CLOCK_BACK_S;
        s->clock_offset = offset;
        send_clock(s);
    }
}

static void on_up(struct supervisor *s)
{
    struct timeval second = {1, 0};
    sessions_set_guest(s->sessions, linkev_link(s->ctl), s->guest_ctl);
    ports_set_guest(s->ports, linkev_link(s->ctl), s->guest_ctl);
    if (json_object_get(s->record.extra, "clone"))
        sessions_set_cwd(s->sessions, "/home/agent/workspace");
    struct err e = {0};
    s->state_dir = path_sandbox(s->name, NULL, NULL);
    s->keep_free = (int64_t)config_int("limit.keep_free", NULL) << 20;
    if (s->record.publish && ports_apply(s->ports, s->record.publish, &e) < 0)
        supervisor_notice(s, e.text);
    s->clock_offset = clock_offset_ms();
    s->clock_timer = event_new(s->base, -1, EV_PERSIST, on_clock, s);
    if (s->clock_timer)
        event_add(s->clock_timer, &second);
    enter(s, LIFE_RUNNING);
    supervisor_phase(s, "running", NULL);
    tell_starter(s, json_pack("{s:s}", "op", "running"));
    if (s->starter >= 0)
        close(s->starter);
    s->starter = -1;
}

static void leave(struct supervisor *s)
{
    event_base_loopbreak(s->base);
}

/* Orderly first; each step has a bound. */
static void on_stop_step(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct supervisor *s = arg;
    struct timeval next = {STOP_QUIT_S, 0};
    if (s->stop_step++ == 0 && s->qmp && qmp_command(s->qmp, "quit", NULL, -1, NULL, NULL) == 0) {
        log_line("the machine did not power off in time");
        evtimer_add(s->stop_timer, &next);
    } else {
        log_line("QEMU did not end in time");
        leave(s);
    }
}

static void begin_stop(struct supervisor *s, int timeout_s)
{
    struct timeval limit = {timeout_s, 0};
    enter(s, LIFE_STOPPING);
    if (s->clock_timer)
        event_del(s->clock_timer);
    if (!s->configured || !s->ctl || s->vm.pid <= 0) {
        leave(s); /* there is nothing to lose yet */
        return;
    }
    if (s->paused)
        go_on(s); /* it has to run to write what it holds; what is kept free is enough for that */
    link_send_ctrl(linkev_link(s->ctl), json_pack("{s:s}", "op", "poweroff"));
    s->stop_timer = evtimer_new(s->base, on_stop_step, s);
    if (!s->stop_timer)
        leave(s);
    else if (timeout_s <= 0)
        on_stop_step(-1, 0, s);
    else
        evtimer_add(s->stop_timer, &limit);
}

static void end_of_start(struct supervisor *s)
{
    supervisor_fail(s, "QEMU ended before the machine was up%s%s", bounded_log_last_line(s->log)[0] ? ": " : "",
                    bounded_log_last_line(s->log));
}

static void end_of_run(struct supervisor *s)
{
    if (strcmp(s->shutdown, "guest-shutdown") == 0 || strcmp(s->shutdown, "guest-reset") == 0) {
        snprintf(s->reason, sizeof s->reason, "the machine was %s from inside",
                 strcmp(s->shutdown, "guest-reset") == 0 ? "restarted" : "powered off");
        enter(s, LIFE_STOPPING);
        leave(s);
        return;
    }
    if (limits_oom_kills(s->group)) {
        supervisor_fail(s, "it needed more memory than its limit allows; --limit memory=, or sbx config set limit.memory");
        return;
    }
    supervisor_fail(s, "QEMU ended unexpectedly (%s %d)", s->vm_status >= 128 ? "signal" : "status",
                    s->vm_status >= 128 ? s->vm_status - 128 : s->vm_status);
}

static void stop_default(struct supervisor *s)
{
    begin_stop(s, 10);
}

static void fail(struct supervisor *s)
{
    enter(s, LIFE_FAILED);
    leave(s);
}

/* What happens in which state; nothing where there is nothing to do. */
typedef void step(struct supervisor *s);
static step *const table[][4] = {
    /*                 UP      STOP          END           FAILURE */
    [LIFE_CREATING] = {NULL,   leave,        end_of_start, fail},
    [LIFE_STARTING] = {on_up,  stop_default, end_of_start, fail},
    [LIFE_RUNNING]  = {NULL,   stop_default, end_of_run,   fail},
    [LIFE_STOPPING] = {NULL,   NULL,         leave,        leave},
    [LIFE_STOPPED]  = {NULL,   NULL,         NULL,         NULL},
    [LIFE_FAILED]   = {NULL,   NULL,         NULL,         NULL},
};

void supervisor_happened(struct supervisor *s, enum happening what)
{
    step *do_it = table[s->life][what];
    if (do_it)
        do_it(s);
}

void supervisor_fail(struct supervisor *s, const char *fmt, ...)
{
    char text[sizeof s->reason];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (s->life == LIFE_FAILED || s->life == LIFE_STOPPED)
        return;
    /* The first cause is the one to tell; a failure while it stops is only worth a log line. */
    if (s->life != LIFE_STOPPING)
        sanitize_line(s->reason, sizeof s->reason, text, strlen(text));
    log_line("failure: %s", text);
    supervisor_happened(s, HAPPENED_FAILURE);
}

void supervisor_stop(struct supervisor *s, int timeout_s)
{
    if (s->life == LIFE_STARTING || s->life == LIFE_RUNNING)
        begin_stop(s, timeout_s);
}

/* ---- signals, logs ---- */

static void on_child(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct supervisor *s = arg;
    struct {
        pid_t pid;
        int code;
    } gone[16];
    int n = 0, status;
    /* One that was killed before those that ended because of that: the first is the cause to tell. */
    while (n < 16 && (gone[n].pid = waitpid(-1, &status, WNOHANG)) > 0)
        gone[n++].code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    for (int i = 0; i < 2 * n; i++) {
        pid_t pid = gone[i % n].pid;
        int code = gone[i % n].code;
        if ((code >= 128) != (i < n))
            continue;
        if (pid == s->vm.pid)
            boot_vm_reaped(s, code);
        else if (pid == s->keeper)
            s->keeper = 0;
        else if (pid == s->renewer)
            s->renewer = 0;
        else if (pid == s->taker)
            helpers_taken(s);
        else
            helper_reaped(s, pid, code);
    }
}

static void on_term(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    supervisor_happened(arg, HAPPENED_STOP);
}

static void on_log(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct supervisor *s = arg;
    char buf[16384];
    for (int i = 0; i < 8; i++) {
        ssize_t n = read((int)fd, buf, sizeof buf);
        if (n <= 0)
            break;
        bounded_log_write(s->log, buf, (size_t)n);
    }
}

/* The pipe that all write their log lines to; ours must never wait for ourselves. */
static int open_logs(struct supervisor *s, struct err *e)
{
    char *log = path_sandbox(s->name, "sbx.log", e), *console = path_sandbox(s->name, "console.log", e);
    int rc = -1;
    if (!log || !console)
        goto out;
    s->log = bounded_log_open(log, LOG_MAX);
    s->console_log = bounded_log_open(console, LOG_MAX);
    if (!s->log || !s->console_log || pipe2(s->log_pipe, O_CLOEXEC) < 0) {
        err_errno(e, errno, "cannot open the log %s", log);
        goto out;
    }
    fcntl(s->log_pipe[0], F_SETFL, O_NONBLOCK);
    fcntl(s->log_pipe[0], F_SETPIPE_SZ, 256 * 1024);
    int own = open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (own >= 0) {
        dup2(own, 2);
        close(own);
    }
    rc = 0;
out:
    free(log);
    free(console);
    return rc;
}

static void changed(void *arg)
{
    struct supervisor *s = arg;
    clients_changed(s->clients);
}

static const struct sessions_ops sessions_ops = {.changed = changed};

static struct event *watch_signal(struct supervisor *s, int sig, event_callback_fn fn)
{
    struct event *ev = evsignal_new(s->base, sig, fn, s);
    if (ev)
        event_add(ev, NULL);
    return ev;
}

static int set_up(struct supervisor *s, struct err *e)
{
    if (open_logs(s, e) < 0)
        return -1;
    s->base = event_base_new();
    if (!s->base)
        return err_set(e, STATUS_FAILED, "out of memory");
    s->sigchld = watch_signal(s, SIGCHLD, on_child);
    s->sigterm = watch_signal(s, SIGTERM, on_term);
    s->sigint = watch_signal(s, SIGINT, on_term);
    s->log_ev = event_new(s->base, s->log_pipe[0], EV_READ | EV_PERSIST, on_log, s);
    s->sessions = sessions_new(s->base, (unsigned)config_int("attach.scrollback", NULL), &sessions_ops, s);
    if (!s->sigchld || !s->sigterm || !s->sigint || !s->log_ev || event_add(s->log_ev, NULL) < 0 || !s->sessions ||
        !(s->ports = ports_new(s->base)))
        return err_set(e, STATUS_FAILED, "out of memory");
    s->clients = clients_new(s, e);
    return s->clients ? 0 : -1;
}

/* Before anything is started, so that all of it is born in the group. */
static int enter_group(struct supervisor *s, struct err *e)
{
    struct limits l;
    struct err why = {0};
    char missing[64], text[256];
    if (limits_load(json_object_get(s->record.extra, "limits"), &l, e) < 0)
        return -1;
    if (!limits_any(&l))
        return 0;
    char *state = path_sandbox(s->name, NULL, e);
    if (!state)
        return -1;
    s->group = limits_enter(s->name, &l, state, missing, sizeof missing, &why);
    free(state);
    if (!s->group)
        snprintf(text, sizeof text, "its limits are not enforced: %.180s", why.text);
    else
        snprintf(text, sizeof text, "this host does not enforce its limit of %s", missing);
    if (!s->group || missing[0])
        supervisor_notice(s, text);
    return 0;
}

static int start(struct supervisor *s, struct err *e)
{
    enter(s, LIFE_STARTING);
    if (enter_group(s, e) < 0)
        return -1;
    if (accel_choose(&s->accel, e) < 0)
        return -1;
    if (s->accel.notice[0])
        supervisor_notice_emulation(s);
    if (boot_prepare(s, e) < 0)
        return -1;
    /* QEMU first: it takes longest, and the helpers come up while it does. */
    if (boot_start(s, e) < 0 || helpers_start(s, e) < 0)
        return -1;
    obeyed_begin(&s->record); /* while QEMU starts; the guest writes nothing before it is configured, from the loop */
    return 0;
}

static void clean_up(struct supervisor *s)
{
    boot_close(s);
    helpers_end(s);
    obeyed_end(&s->record);
    /* The frozen machine that it writes saves the next start a second and more. */
    if (s->keeper > 0)
        spawn_wait(s->keeper);
    if (s->log_ev)
        on_log(s->log_pipe[0], 0, s);
    /* The clients hear of their sessions' ends and of the last state before the lock is free. */
    clients_free(s->clients);
    sessions_free(s->sessions);
    struct event *events[] = {s->clock_timer, s->stop_timer, s->screen_timer, s->sigchld, s->sigterm, s->sigint, s->log_ev};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    limits_leave(s->group);
    free(s->state_dir);
    bounded_log_close(s->log);
    bounded_log_close(s->console_log);
    if (s->base)
        event_base_free(s->base);
    record_finish(&s->record);
}

int supervise_main(int argc, char **argv)
{
    struct supervisor *s = calloc(1, sizeof *s);
    struct err e = {0};
    struct rlimit no_core = {0, 0};
    if (!s || argc != 2) {
        fprintf(stderr, "usage: sbx supervise NAME\n");
        free(s);
        return STATUS_USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_CORE, &no_core);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    log_init("supervise");
    clock_gettime(CLOCK_MONOTONIC, &s->began);
    s->started = time(NULL);
    s->name = argv[1];
    s->starter = fcntl(STARTER_FD, F_GETFD) >= 0 ? STARTER_FD : -1;
    if (s->starter >= 0) {
        fcntl(s->starter, F_SETFD, FD_CLOEXEC);
        fcntl(s->starter, F_SETFL, fcntl(s->starter, F_GETFL) | O_NONBLOCK);
    }
    s->lock = -1;
    s->log_pipe[0] = s->log_pipe[1] = s->net_pair[0] = s->net_pair[1] = s->fs_pair[0] = s->fs_pair[1] = -1;
    s->qemu.base = s->qemu.kernel = s->qemu.initrd = s->freeze_ram = s->freeze_state = -1;
    s->vm = (struct qemu_ends){.pid = 0, .qmp = -1, .ctl = -1, .fs = -1, .net = -1, .console = -1};
    frozen_init(&s->frozen);
    record_init(&s->record);
    int rc = -1;
    bool ours = false;
    if (sodium_init() < 0)
        err_set(&e, STATUS_FAILED, "cannot initialise libsodium");
    else if (record_check_name(s->name, &e) == 0 && (s->lock = state_lock(s->name, &e)) >= 0) {
        ours = true;
        if (record_load(&s->record, s->name, &e) == 0 && set_up(s, &e) == 0) {
            rc = start(s, &e);
            if (rc == 0)
                event_base_dispatch(s->base);
        }
    }
    if (rc < 0)
        snprintf(s->reason, sizeof s->reason, "%s", e.text);
    bool failed = rc < 0 || s->life == LIFE_FAILED;
    if (s->sessions)
        clean_up(s);
    if (ours) {
        state_store(s->name, failed ? LIFE_FAILED : LIFE_STOPPED, s->reason, NULL);
        log_line("%s%s%s", failed ? "failed" : "stopped", s->reason[0] ? ": " : "", s->reason);
    }
    if (s->lock >= 0)
        close(s->lock);
    if (s->starter >= 0) /* who is told finds the state as it stays */
        tell_starter(s, json_pack("{s:s, s:s, s:i}", "op", "failed", "error",
                                  s->reason[0] ? s->reason : "it was stopped while it started", "status",
                                  e.status ? e.status : STATUS_FAILED));
    free(s);
    return failed ? STATUS_FAILED : STATUS_OK;
}
