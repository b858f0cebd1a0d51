#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <linux/reboot.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/guest.h"
#include "guest/text.h"

#define OUT_CAP (LINK_OUTPUT_MIN * 2)

static struct link *ctl;
static struct watch port = {.fd = -1};
static int port_fd = -1;
static uint8_t out[OUT_CAP];
static size_t out_pos, out_len;

struct link *control_link(void)
{
    return ctl;
}

void control_note(json_t *msg)
{
    link_send_ctrl(ctl, msg);
}

void control_log(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    printf("sbx-guest: %s\n", text);
    json_t *s = json_string(text);
    control_note(json_pack("{s:s, s:o}", "op", "log", "text", s ? s : json_string("(not UTF-8)")));
}

void control_flush(void)
{
    for (;;) {
        if (out_pos == out_len) {
            out_pos = 0;
            out_len = link_output(ctl, out, sizeof out);
            if (out_len == 0) {
                loop_watch(&port, port_fd, EPOLLIN);
                return;
            }
        }
        ssize_t n = write(port_fd, out + out_pos, out_len - out_pos);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            loop_watch(&port, port_fd, EPOLLIN | EPOLLOUT);
            return;
        }
        out_pos += (size_t)n;
    }
}

void control_say(const char *op, const char *key, ...)
{
    char text[256], *at = text;
    char *end = text + sizeof text - 1;
    va_list ap;
    at = text_add(text_add(text_add(at, end, "{\"op\":\""), end, op), end, "\"");
    va_start(ap, key);
    for (; key; key = va_arg(ap, const char *)) {
        at = text_add(text_add(text_add(at, end, ",\""), end, key), end, "\":");
        at = strcmp(key, "ok") == 0 ? text_add(at, end, va_arg(ap, int64_t) ? "true" : "false")
                                   : text_number(at, end, va_arg(ap, int64_t));
    }
    va_end(ap);
    at = text_add(at, end, "}");
    *at = '\0';
    link_send_text(ctl, text);
}

static void reply(const json_t *msg, int rc, const struct err *e, json_t *more)
{
    json_t *r = more ? more : json_object();
    json_object_set_new(r, "op", json_string("reply"));
    json_object_set(r, "id", json_object_get(msg, "id"));
    json_object_set_new(r, "ok", json_boolean(rc == 0));
    if (rc != 0) {
        json_t *text = json_string(e->text);
        json_object_set_new(r, "error", text ? text : json_string("failed"));
        json_object_set_new(r, "status", json_integer(e->status));
    }
    control_note(r);
}

static json_t *stats(void)
{
    struct sysinfo si;
    struct statvfs vfs = {0};
    unsigned long long busy = 0;
    FILE *f = fopen("/proc/stat", "re");
    if (f) {
        unsigned long long v[8] = {0};
        if (fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4],
                   &v[5], &v[6], &v[7]) == 8)
            busy = (v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) * (1000000ull / (unsigned)sysconf(_SC_CLK_TCK));
        fclose(f);
    }
    unsigned long long available = 0;
    char line[128];
    f = fopen("/proc/meminfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu", &available) == 1)
            break;
    if (f)
        fclose(f);
    sysinfo(&si);
    statvfs("/run/sbx/disk", &vfs);
    return json_pack("{s:I, s:f, s:I, s:I, s:I, s:I, s:I, s:i, s:i}", "uptime_ms",
                     (json_int_t)si.uptime * 1000, "load", (double)si.loads[0] / 65536.0, "cpu_us",
                     (json_int_t)busy, "mem_total_kib",
                     (json_int_t)((unsigned long long)si.totalram * si.mem_unit / 1024),
                     "mem_available_kib", (json_int_t)available, "disk_total_kib",
                     (json_int_t)(vfs.f_blocks * vfs.f_frsize / 1024), "disk_free_kib",
                     (json_int_t)(vfs.f_bavail * vfs.f_frsize / 1024), "sessions", (int)session_count(),
                     "processes", (int)si.procs);
}

/* Every process is below PID 1, so without a child of ours there is none. */
static bool processes_left(void)
{
    siginfo_t si;
    return waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0;
}

static void power_off(void *arg)
{
    (void)arg;
    kill(-1, SIGKILL);
    /* Their files are closed when they are gone, and not before can the disk be left clean. One that hangs in the
     * kernel is not waited for. */
    for (int i = 0; i < 50 && processes_left(); i++) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        usleep(10000);
    }
    configure_shutdown();
    reboot(LINUX_REBOOT_CMD_POWER_OFF);
}

/* A moment for those that listen; when nobody is left it is over at once. */
static void power_off_when_idle(void *arg)
{
    intptr_t tries = (intptr_t)arg;
    if (!processes_left() || tries == 0)
        power_off(NULL);
    else
        loop_after(50, power_off_when_idle, (void *)(tries - 1));
}

static void on_ctrl(struct link *l, json_t *msg, void *arg)
{
    (void)l;
    (void)arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    struct err e = {0};
    int rc = 0;
    json_t *more = NULL, *id = json_object_get(msg, "id");
    struct timespec t0, t1;
    const char *key = NULL; /* the answer's only other value, if it is a number */
    int64_t value = 0;

    if (!op)
        return;
    if (strcmp(op, "configure") == 0) {
        clock_gettime(CLOCK_MONOTONIC, &t0);
        rc = configure(msg, &e);
        clock_gettime(CLOCK_MONOTONIC, &t1);
        key = "ms";
        value = (t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000;
    } else if (strcmp(op, "prepare") == 0) {
        rc = prepare(msg, &e);
        sync(); /* what is frozen now would be written by every clone */
    } else if (strcmp(op, "rest") == 0) {
        rest();
    } else if (strcmp(op, "open") == 0) {
        pid_t pid = 0;
        rc = session_open(msg, &pid, &e);
        key = "pid";
        value = pid;
    } else if (strcmp(op, "connect") == 0) {
        rc = session_connect(msg, &e);
        if (rc == 1)
            return; /* answered when it stands */
    } else if (strcmp(op, "resize") == 0) {
        rc = session_resize(msg, &e);
    } else if (strcmp(op, "signal") == 0) {
        rc = session_signal(msg, &e);
    } else if (strcmp(op, "kill") == 0) {
        rc = session_kill(msg, &e);
    } else if (strcmp(op, "close") == 0) {
        session_close((uint16_t)json_integer_value(json_object_get(msg, "chan")));
    } else if (strcmp(op, "clock") == 0) {
        rc = configure_clock(json_object_get(msg, "clock"));
        if (rc < 0)
            err_errno(&e, errno, "cannot set the clock");
    } else if (strcmp(op, "sync") == 0) {
        sync();
    } else if (strcmp(op, "stats") == 0) {
        more = stats();
    } else if (strcmp(op, "resize_disk") == 0) {
        rc = configure_resize(&e);
    } else if (strcmp(op, "poweroff") == 0) {
        session_signal_all(SIGHUP);
        kill(-1, SIGTERM); /* daemons and containers as well */
        loop_after(20, power_off_when_idle, (void *)(intptr_t)40);
    } else {
        rc = err_set(&e, STATUS_FAILED, "unknown request \"%s\"", op);
    }
    if (rc == 0 && !more && json_is_integer(id))
        control_say("reply", "id", (int64_t)json_integer_value(id), "ok", (int64_t)1, key, value, NULL);
    else if (id)
        reply(msg, rc, &e, more);
    else
        json_decref(more);
}

static void on_data(struct link *l, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    (void)l;
    (void)arg;
    session_data(chan, stream, buf, len);
}

static void on_eof(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    (void)l;
    (void)arg;
    session_eof(chan, stream);
}

static void on_writable(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    (void)l;
    (void)arg;
    session_writable(chan, stream);
}

static void on_kick(struct link *l, void *arg)
{
    (void)l;
    (void)arg;
    loop_watch(&port, port_fd, EPOLLIN | EPOLLOUT);
}

static const struct link_ops ops = {
    .ctrl = on_ctrl, .data = on_data, .eof = on_eof, .writable = on_writable, .kick = on_kick};

static int hello(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return link_send_ctrl(ctl, json_pack("{s:s, s:i, s:s, s:I}", "op", "hello", "version", GUEST_VERSION,
                                         "phase", "waiting", "boot_ms",
                                         (json_int_t)t.tv_sec * 1000 + t.tv_nsec / 1000000));
}

static struct link *new_link(void)
{
    struct link *l = link_new(&ops, NULL);
    if (l)
        link_large(l, false, true);
    return l;
}

/* The host broke the framing, or left: start afresh, sessions end. */
static void reset(const char *why)
{
    printf("sbx-guest: control link reset: %s\n", why);
    session_end_all(); /* nobody could ever speak to them again */
    link_free(ctl);
    ctl = new_link();
    out_pos = out_len = 0;
    if (!ctl || hello() < 0)
        reboot(LINUX_REBOOT_CMD_POWER_OFF);
}

static void on_port(struct watch *w, uint32_t events)
{
    static uint8_t in[128 * 1024];
    (void)w;
    if (events & (EPOLLIN | EPOLLHUP)) {
        for (int i = 0; i < 4; i++) {
            ssize_t n = read(port_fd, in, sizeof in);
            if (n <= 0) {
                /* 0: no one on the other side (just after a clone): the port comes back by itself. */
                if (n == 0 && (events & EPOLLHUP))
                    usleep(1000);
                break;
            }
            struct err e = {0};
            if (link_feed(ctl, in, (size_t)n, &e) < 0) {
                reset(e.text);
                break;
            }
        }
    }
    control_flush();
}

int control_start(void)
{
    char *path = boot_port("sbx.ctl");
    if (!path) {
        printf("sbx-guest: there is no port sbx.ctl\n");
        return -1;
    }
    port_fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    ctl = new_link();
    if (port_fd < 0 || !ctl) {
        printf("sbx-guest: cannot open %s: %s\n", path, strerror(errno));
        return -1;
    }
    port.ready = on_port;
    loop_watch(&port, port_fd, EPOLLIN);
    return hello();
}
