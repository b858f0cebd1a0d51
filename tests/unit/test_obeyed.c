/* Which files of a workspace count as changed for the programs of the host (threat 93). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/obeyed.h"
#include "core/paths.h"

static char top[64];

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", top, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void folder(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", top, name);
    assert_int_equal(mkdir(path, 0755), 0);
}

static int up(void **state)
{
    (void)state;
    strcpy(top, "/tmp/sbx-obeyed-XXXXXX");
    return sodium_init() >= 0 && mkdtemp(top) ? 0 : -1;
}

static int down(void **state)
{
    (void)state;
    return path_remove_tree(top, NULL);
}

/* "name name": what changed since `before`, which is freed. */
static const char *since(json_t *before)
{
    static char text[2000];
    json_t *after = obeyed_scan(top), *list = obeyed_diff(before, after, ""), *v;
    size_t i;
    text[0] = '\0';
    json_array_foreach(list, i, v)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? " " : "", json_string_value(v));
    json_decref(before);
    json_decref(after);
    json_decref(list);
    return text;
}

static void threat_93_what_the_host_runs_is_told_and_the_days_work_is_not(void **state)
{
    (void)state;
    put("Makefile", "all:\n");
    put("package.json", "{\"scripts\": {\"test\": \"true\"}, \"dependencies\": {}}");
    folder(".git");
    folder(".git/hooks");
    json_t *before = obeyed_scan(top);
    put("main.c", "int main;");
    put("package.json", "{\"dependencies\": {\"a\": \"1\"}, \"scripts\": {\"test\": \"true\"}}");
    put(".git/hooks/pre-commit.sample", "x");
    assert_string_equal(since(json_incref(before)), "");
    put("package.json", "{\"scripts\": {\"test\": \"evil\"}}");
    put("Makefile", "all:; evil\n");
    put(".envrc", "evil");
    put(".git/hooks/pre-commit", "evil");
    folder(".vscode");
    put(".vscode/tasks.json", "{}");
    assert_string_equal(since(before), ".envrc .git/hooks/pre-commit .vscode/tasks.json Makefile package.json");
}

static void threat_93_tricks(void **state)
{
    (void)state;
    char path[128];
    put("configure", "true");
    json_t *before = obeyed_scan(top);
    /* The mode is part of it, a link is told and not followed, a pipe does not hold anybody up. */
    snprintf(path, sizeof path, "%s/.mcp.json", top);
    assert_int_equal(symlink("/etc/hostname", path), 0);
    snprintf(path, sizeof path, "%s/.vscode", top);
    assert_int_equal(symlink("/etc", path), 0);
    snprintf(path, sizeof path, "%s/Makefile", top);
    assert_int_equal(mkfifo(path, 0644), 0);
    put("package.json", "{\"scripts\": [[[[");
    assert_string_equal(since(before), ".mcp.json Makefile package.json");
    /* A link that is turned elsewhere is another. */
    before = obeyed_scan(top);
    snprintf(path, sizeof path, "%s/.mcp.json", top);
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_string_equal(since(before), ".mcp.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(threat_93_what_the_host_runs_is_told_and_the_days_work_is_not, up, down),
        cmocka_unit_test_setup_teardown(threat_93_tricks, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
