/* The pure parts of the machine: QEMU's command line, its monitor's lines, requests with replies, sandbox states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/paths.h"
#include "core/state.h"
#include "vm/ctl.h"
#include "vm/disk.h"
#include "vm/qemu.h"
#include "vm/qmp.h"

static struct qemu plain(void)
{
    return (struct qemu){.name = "x", .tsc_khz = 2600123, .cpus = 2, .memory_mib = 512, .disk_mib = 1024,
                         .disks = {{.fd = 50, .qcow2 = true}, {.fd = 51}}, .ndisks = 2, .net = -1, .fs = -1};
}

static const char *after(char **argv, const char *option, unsigned nth)
{
    for (size_t i = 0; argv[i]; i++)
        if (strcmp(argv[i], option) == 0 && nth-- == 0)
            return argv[i + 1];
    return "";
}

static bool has(char **argv, const char *part)
{
    for (size_t i = 0; argv[i]; i++)
        if (strstr(argv[i], part))
            return true;
    return false;
}

static void emulation_is_told_the_counters_frequency(void **state)
{
    (void)state;
    struct qemu q = plain();
    char **a = qemu_argv(&q);
    assert_non_null(strstr(after(a, "-append", 0), "tsc_early_khz=2600123 tsc=reliable"));
    assert_non_null(strstr(after(a, "-accel", 0), "tcg,thread=single"));
    assert_null(strstr(after(a, "-M", 0), "rtc=off"));
    qemu_argv_free(a);
    q.kvm = q.tsc_deadline = true;
    a = qemu_argv(&q);
    assert_null(strstr(after(a, "-append", 0), "tsc"));
    assert_non_null(strstr(after(a, "-M", 0), "pit=off,pic=off,rtc=off"));
    assert_string_equal(after(a, "-cpu", 0), "host");
    qemu_argv_free(a);
    q.amd = true;
    a = qemu_argv(&q);
    assert_string_equal(after(a, "-cpu", 0), "host,arch-capabilities=off");
    qemu_argv_free(a);
}

static void kvm_without_tsc_deadlines_keeps_the_old_timers(void **state)
{
    (void)state;
    struct qemu q = plain();
    q.kvm = true;
    q.tsc_deadline = false;
    char **a = qemu_argv(&q);
    assert_non_null(strstr(after(a, "-accel", 0), "kvm"));
    static const char *const gone[] = {"pit=off", "pic=off", "rtc=off"};
    for (size_t i = 0; i < 3; i++)
        assert_null(strstr(after(a, "-M", 0), gone[i]));
    assert_string_equal(after(a, "-cpu", 0), "host");
    qemu_argv_free(a);
    /* Emulation has no such timer, whatever the probe of the host said. */
    q.kvm = false;
    q.tsc_deadline = true;
    a = qemu_argv(&q);
    assert_null(strstr(after(a, "-M", 0), "off,pic"));
    assert_string_equal(after(a, "-cpu", 0), "max,erms=off,la57=off");
    qemu_argv_free(a);
}

static void what_is_frozen_under_one_accelerator_does_not_fit_the_other(void **state)
{
    (void)state;
    struct qemu q = plain();
    char *tcg = qemu_kind(&q);
    q.kvm = true;
    char *kvm = qemu_kind(&q);
    q.tsc_deadline = true;
    char *deadline = qemu_kind(&q);
    assert_string_not_equal(tcg, kvm);
    assert_string_not_equal(kvm, deadline);
    free(tcg);
    free(kvm);
    free(deadline);
}

static void both_accelerators_are_confined_alike(void **state)
{
    (void)state;
    for (int kvm = 0; kvm < 2; kvm++) {
        struct qemu q = plain();
        q.kvm = kvm;
        char **a = qemu_argv(&q);
        assert_true(has(a, "-nodefaults") && has(a, "-no-user-config") && has(a, "-no-reboot"));
        assert_non_null(strstr(after(a, "-sandbox", 0), "spawn=deny"));
        assert_true(has(a, "x-option-roms=off") && has(a, "isa-serial=off") && has(a, "virtio-mmio.force-legacy=off"));
        assert_true(has(a, "panic=shutdown") && has(a, "werror=stop"));
        qemu_argv_free(a);
    }
}

static void qemu_is_confined_and_opens_nothing_by_path(void **state)
{
    (void)state;
    struct qemu q = plain();
    char **a = qemu_argv(&q);
    assert_string_equal(after(a, "-sandbox", 0), "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    for (size_t i = 0; a[i]; i++) {
        const char *path = strchr(a[i], '/');
        if (path)
            assert_true(strncmp(path, "/proc/self/fd/", 14) == 0 || strncmp(path, "/dev/fdset/", 11) == 0);
    }
    assert_true(has(a, "driver=qcow2,node-name=disk,file=disk-file,discard=unmap,backing=disk1"));
    assert_true(has(a, "driver=raw,node-name=disk1,file=disk1-file,read-only=on"));
    assert_true(has(a, "filename=/dev/fdset/12,locking=off,read-only=on"));
    qemu_argv_free(a);
}

/* Clones must have what their original had, in the same order; only these may differ. */
static void clones_have_the_devices_of_their_original(void **state)
{
    (void)state;
    struct qemu q = plain(), c = plain();
    q.ram = QEMU_RAM_SHARED;
    c.ram = QEMU_RAM_CLONE;
    char **a = qemu_argv(&q), **b = qemu_argv(&c);
    size_t i = 0;
    for (; a[i]; i++)
        if (strcmp(a[i], b[i]) != 0) {
            assert_non_null(strstr(a[i], "share=on"));
            assert_non_null(strstr(b[i], "share=off"));
        }
    assert_string_equal(b[i], "-incoming");
    assert_string_equal(b[i + 1], "defer");
    assert_true(has(a, "free-page-reporting=off"));
    char *ka = qemu_kind(&q), *kc = qemu_kind(&c);
    assert_string_equal(ka, kc);
    c.memory_mib *= 2;
    char *other = qemu_kind(&c);
    assert_string_not_equal(ka, other);
    free(ka);
    free(kc);
    free(other);
    qemu_argv_free(a);
    qemu_argv_free(b);
}

struct seen {
    unsigned n;
    char last[64];
};

static void on_line(void *arg, json_t *msg)
{
    struct seen *s = arg;
    const char *event = json_string_value(json_object_get(msg, "event"));
    s->n++;
    snprintf(s->last, sizeof s->last, "%s", event ? event : "");
}

static void monitor_lines_survive_any_split(void **state)
{
    (void)state;
    static const char text[] = "{\"QMP\": {}}\r\n\r\n{\"event\": \"STOP\"}\r\n{\"event\": \"RESUME\"}\n";
    for (size_t cut = 0; cut < sizeof text; cut++) {
        struct qmp_lines l = {0};
        struct seen s = {0};
        assert_int_equal(qmp_lines_feed(&l, text, cut, on_line, &s), 0);
        assert_int_equal(qmp_lines_feed(&l, text + cut, sizeof text - 1 - cut, on_line, &s), 0);
        assert_int_equal(s.n, 3);
        assert_string_equal(s.last, "RESUME");
        qmp_lines_finish(&l);
    }
}

static void monitor_lines_are_bounded(void **state)
{
    (void)state;
    struct qmp_lines l = {0};
    struct seen s = {0};
    char chunk[65536];
    memset(chunk, ' ', sizeof chunk);
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < 64; i++)
        rc = qmp_lines_feed(&l, chunk, sizeof chunk, on_line, &s);
    assert_int_equal(rc, -1);
    qmp_lines_finish(&l);
    assert_int_equal(qmp_lines_feed(&l, "[1]\n", 4, on_line, &s), -1);
    assert_int_equal(qmp_lines_feed(&l, "{bad\n", 5, on_line, &s), -1);
    qmp_lines_finish(&l);
}

static void on_done(void *arg, const json_t *reply, const char *error)
{
    (void)reply;
    snprintf(arg, 64, "%s", error ? error : "ok");
}

static void requests_meet_their_replies(void **state)
{
    (void)state;
    struct event_base *base = event_base_new();
    struct ctl *c = ctl_new(base);
    static const struct link_ops none = {0};
    struct link *l = link_new(&none, NULL);
    char one[64] = "", two[64] = "", three[64] = "";
    assert_int_equal(ctl_send(c, l, json_pack("{s:s}", "op", "a"), 0, on_done, one), 0);
    assert_int_equal(ctl_send(c, l, json_pack("{s:s}", "op", "b"), 20, on_done, two), 0);
    assert_int_equal(ctl_send(c, l, json_pack("{s:s}", "op", "c"), 0, on_done, three), 0);
    json_t *r = json_pack("{s:s, s:i, s:b, s:s}", "op", "reply", "id", 1, "ok", 0, "error", "no");
    assert_true(ctl_take(c, r));
    assert_string_equal(one, "no");
    one[0] = '\0';
    assert_true(ctl_take(c, r)); /* a second reply to the same request has no effect */
    assert_string_equal(one, "");
    json_decref(r);
    event_base_dispatch(base);
    assert_string_equal(two, "no answer in time");
    ctl_free(c);
    assert_string_equal(three, "the other side is gone");
    link_free(l);
    event_base_free(base);
}

static char home[] = "/tmp/sbx-test-XXXXXX";

static void make_sandbox(const char *name)
{
    char *dir = path_sandbox(name, NULL, NULL);
    assert_int_equal(path_mkdirs(dir, 0700, NULL), 0);
    free(dir);
}

static void a_state_is_what_is_true(void **state)
{
    (void)state;
    struct sandbox_status st;
    struct err e = {0};
    assert_int_equal(sandbox_state("none", &st, &e), -1);
    assert_int_equal(e.status, STATUS_NOT_FOUND);
    make_sandbox("a");
    assert_int_equal(sandbox_state("a", &st, NULL), 0);
    assert_int_equal(st.life, LIFE_STOPPED);
    assert_int_equal(state_store("a", LIFE_FAILED, "its kernel panicked", NULL), 0);
    assert_int_equal(sandbox_state("a", &st, NULL), 0);
    assert_int_equal(st.life, LIFE_FAILED);
    assert_string_equal(st.reason, "its kernel panicked");

    /* A supervisor that holds the lock, and is killed. */
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (state_lock("a", NULL) < 0 || state_store("a", LIFE_RUNNING, "", NULL) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(sandbox_state("a", &st, NULL), 0);
    assert_int_equal(st.life, LIFE_RUNNING);
    assert_int_equal(st.pid, pid);
    e.status = 0;
    assert_int_equal(state_lock("a", &e), -1);
    assert_int_equal(e.status, STATUS_USAGE);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(sandbox_state("a", &st, NULL), 0);
    assert_int_equal(st.life, LIFE_FAILED);
    assert_string_equal(st.reason, "the supervisor was killed");
    int lock = state_lock("a", NULL);
    assert_true(lock >= 0);
    close(lock);
    close(ready[0]);
    close(ready[1]);
}

static void a_broken_state_file_is_a_failure_that_says_so(void **state)
{
    (void)state;
    struct sandbox_status st;
    make_sandbox("b");
    char *path = path_sandbox("b", "last.json", NULL);
    FILE *f = fopen(path, "w");
    fputs("{\"state\": ", f);
    fclose(f);
    free(path);
    assert_int_equal(sandbox_state("b", &st, NULL), 0);
    assert_int_equal(st.life, LIFE_FAILED);
    assert_non_null(strstr(st.reason, "last.json"));
}

static void template_names(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "my-template:v1", "A.b_c-9"},
                             *const bad[] = {"", "/", "../x", ".x", "a:b:c", "a:", "a b", "blank-1.raw", "a/b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(template_check_name(good[i], NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(template_check_name(bad[i], NULL), -1);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(home) && setenv("XDG_DATA_HOME", home, 1) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return path_remove_tree(home, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emulation_is_told_the_counters_frequency),
        cmocka_unit_test(kvm_without_tsc_deadlines_keeps_the_old_timers),
        cmocka_unit_test(what_is_frozen_under_one_accelerator_does_not_fit_the_other),
        cmocka_unit_test(both_accelerators_are_confined_alike),
        cmocka_unit_test(qemu_is_confined_and_opens_nothing_by_path),
        cmocka_unit_test(clones_have_the_devices_of_their_original),
        cmocka_unit_test(monitor_lines_survive_any_split),
        cmocka_unit_test(monitor_lines_are_bounded),
        cmocka_unit_test(requests_meet_their_replies),
        cmocka_unit_test(a_state_is_what_is_true),
        cmocka_unit_test(a_broken_state_file_is_a_failure_that_says_so),
        cmocka_unit_test(template_names),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
