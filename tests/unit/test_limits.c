/* Limits of a whole sandbox, in a tree of plain files that stands for cgroup v2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/paths.h"
#include "vm/limits.h"

static char root[64];

static void file(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s/%s", root, path);
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const char *content(const char *path)
{
    static char text[256];
    char full[512];
    snprintf(full, sizeof full, "%s/%s", root, path);
    FILE *f = fopen(full, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    return text;
}

static void folder(const char *path, const char *controllers)
{
    static const char *const files[] = {"cgroup.procs", "cgroup.subtree_control", "cpu.max", "memory.max", "pids.max", "io.max", "cgroup.kill"};
    char full[512];
    snprintf(full, sizeof full, "%s/%s", root, path);
    assert_int_equal(mkdir(full, 0755), 0);
    snprintf(full, sizeof full, "%s/cgroup.controllers", path);
    file(full, controllers);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(full, sizeof full, "%s/%s", path, files[i]);
        file(full, "");
    }
}

static int up(void **state)
{
    (void)state;
    strcpy(root, "/tmp/sbx-limits-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int down(void **state)
{
    (void)state;
    return path_remove_tree(root, NULL);
}

static void a_group_gets_its_limits_before_the_process(void **state)
{
    (void)state;
    const struct limits l = {.cpu = 150, .memory = 4096, .pids = 500, .io = 50};
    char missing[64];
    folder("user", "cpu io memory pids");
    folder("user/app", "memory pids"); /* where we are: too little */
    folder("user/sbx", "cpu io memory pids");
    folder("user/sbx/one", "cpu io memory pids"); /* the kernel makes such files by itself */
    struct limits_group *g = limits_make(root, "/user/app", "one", &l, "8:0", 4321, NULL);
    assert_non_null(g);
    assert_string_equal(content("user/sbx/one/cpu.max"), "150000 100000");
    assert_string_equal(content("user/sbx/one/memory.max"), "4294967296");
    assert_string_equal(content("user/sbx/one/pids.max"), "500");
    assert_string_equal(content("user/sbx/one/io.max"), "8:0 rbps=52428800 wbps=52428800");
    assert_string_equal(content("user/sbx/one/cgroup.procs"), "4321");
    char dir[128];
    snprintf(dir, sizeof dir, "%s/user/sbx/one", root);
    limits_verify(dir, &l, missing, sizeof missing);
    assert_string_equal(missing, "");
    file("user/sbx/one/pids.max", "max\n");
    file("user/sbx/one/io.max", "");
    limits_verify(dir, &l, missing, sizeof missing);
    assert_string_equal(missing, "pids, io");
    file("user/sbx/one/memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n");
    assert_int_equal(limits_oom_kills(g), 1);
    limits_leave(g);
    /* It went back to where it came from. */
    assert_string_equal(content("user/app/cgroup.procs"), "4321");
}

static void without_delegation_it_says_what_is_lacking(void **state)
{
    (void)state;
    const struct limits l = {.memory = 4096, .io = 50};
    struct err e = {0};
    folder("session", "cpu memory");
    assert_null(limits_make(root, "/session", "one", &l, "8:0", 4321, &e));
    assert_non_null(strstr(e.text, "io"));
    assert_null(strstr(e.text, "memory"));
    /* Nothing was changed. */
    assert_string_equal(content("session/cgroup.subtree_control"), "");
    assert_int_equal(access("sbx", F_OK), -1);
}

static void only_what_is_limited_is_asked_for(void **state)
{
    (void)state;
    const struct limits l = {.pids = 64};
    folder("a", "pids");
    folder("a/sbx", "pids");
    folder("a/sbx/n", "pids");
    struct limits_group *g = limits_make(root, "/a", "n", &l, "", 7, NULL);
    assert_non_null(g);
    assert_string_equal(content("a/cgroup.subtree_control"), "+pids");
    assert_string_equal(content("a/sbx/n/memory.max"), "");
    limits_leave(g);
}

static void systemd_is_asked_for_a_scope(void **state)
{
    (void)state;
    static const char *const want[] = {
        "busctl", "--user", "--timeout=2", "--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", "sbx-x-9.scope", "fail", "6",
        "Description", "s", "A sandbox of sbx", "CollectMode", "s", "inactive-or-failed", "PIDs", "au", "1", "9",
        "CPUQuotaPerSecUSec", "t", "1500000", "IOReadBandwidthMax", "a(st)", "1", "/state", "1048576",
        "IOWriteBandwidthMax", "a(st)", "1", "/state", "1048576", "0"};
    const struct limits l = {.cpu = 150, .io = 1};
    char **argv = limits_scope_argv(true, "sbx-x-9.scope", &l, "/state", 9);
    size_t n = 0;
    for (; argv[n]; n++) {
        assert_true(n < sizeof want / sizeof *want);
        assert_string_equal(argv[n], want[n]);
        free(argv[n]);
    }
    assert_int_equal(n, sizeof want / sizeof *want);
    free(argv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_group_gets_its_limits_before_the_process, up, down),
        cmocka_unit_test_setup_teardown(without_delegation_it_says_what_is_lacking, up, down),
        cmocka_unit_test_setup_teardown(only_what_is_limited_is_asked_for, up, down),
        cmocka_unit_test(systemd_is_asked_for_a_scope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
