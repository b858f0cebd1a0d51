/* Rules on paths: what is matched, and that nothing leads around them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vm/fs_rules.h"

static struct fs_rules_at place(const struct fs_rules *r, const char *path)
{
    struct fs_rules_at at;
    char copy[256], *save;
    snprintf(copy, sizeof copy, "%s", path);
    fs_rules_top(r, &at);
    for (char *p = strtok_r(copy, "/", &save); p; p = strtok_r(NULL, "/", &save))
        fs_rules_step(r, &at, p);
    return at;
}

static bool hidden(const char *pattern, const char *path)
{
    struct fs_rules *r = fs_rules_new();
    assert_int_equal(fs_rules_add(r, FS_RULE_HIDE, pattern, NULL), 0);
    struct fs_rules_at at = place(r, path);
    bool is = fs_rules_hidden(r, &at);
    assert_false(fs_rules_readonly(r, &at));
    fs_rules_free(r);
    return is;
}

static void patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *path;
        bool match;
    } t[] = {
        {".env", ".env", true},
        {".env", ".env/below", true},
        {".env", "sub/.env", false},
        {".env", ".envx", false},
        {"**/.env", ".env", true},
        {"**/.env", "a/b/c/.env", true},
        {"**/.env", "a/b/.env/c", true},
        {"**/.env", "a/env", false},
        {"*.pem", "key.pem", true},
        {"*.pem", ".pem", true},
        {"*.pem", "a/key.pem", false},
        {"a/*/c", "a/b/c", true},
        {"a/*/c", "a/c", false},
        {"a/**/c", "a/c", true},
        {"a/**/c", "a/x/y/c", true},
        {"a/**/c", "b/c", false},
        {"a/**", "a", true},
        {"a/**", "a/b", true},
        {"**", "anything", true},
        {"node_modules/", "node_modules/x", true},
        {"a*b*c", "aXbYc", true},
        {"a*b*c", "aXcYb", false},
        {"**/a/**/b", "x/a/y/a/b", true},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (hidden(t[i].pattern, t[i].path) != t[i].match)
            fail_msg("%s on %s", t[i].pattern, t[i].path);
}

static void refused(void **state)
{
    (void)state;
    struct fs_rules *r = fs_rules_new();
    const char *bad[] = {"", "/etc", "..", "a/../b", "a//b", "./a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        assert_int_equal(fs_rules_add(r, FS_RULE_HIDE, bad[i], &e), -1);
        assert_int_equal(e.status, STATUS_USAGE);
    }
    assert_true(fs_rules_empty(r));
    char deep[512] = "a";
    for (int i = 0; i < 31; i++)
        strcat(deep, "/a");
    assert_int_equal(fs_rules_add(r, FS_RULE_HIDE, deep, NULL), -1);
    for (unsigned i = 0; i < FS_RULES_MAX; i++)
        assert_int_equal(fs_rules_add(r, FS_RULE_HIDE, "x", NULL), 0);
    assert_int_equal(fs_rules_add(r, FS_RULE_HIDE, "x", NULL), -1);
    fs_rules_free(r);
}

static void ways_around(void **state)
{
    (void)state;
    struct fs_rules *r = fs_rules_new();
    fs_rules_add(r, FS_RULE_READONLY, ".git/hooks", NULL);
    fs_rules_add(r, FS_RULE_HIDE, "**/.env", NULL);
    struct fs_rules_at git = place(r, ".git"), other = place(r, "other"), deep = place(r, "a/b");
    assert_true(fs_rules_leads(r, &git));
    assert_false(fs_rules_leads(r, &other));
    assert_false(fs_rules_leads(r, &deep)); /* `**` leads everywhere: no reason to forbid files there */
    assert_false(fs_rules_keep(r, &git, &other));
    assert_false(fs_rules_keep(r, &git, &other) && fs_rules_keep(r, &other, &git));
    assert_true(fs_rules_keep(r, &other, &deep) && fs_rules_keep(r, &deep, &other));
    fs_rules_free(r);
}

/* Where a folder ignores case, so do the rules; what may be written has to be spelled out. */
static void names_of_any_case(void **state)
{
    (void)state;
    struct fs_rules *r = fs_rules_new();
    static const struct rule_of {
        enum fs_rule_kind kind;
        const char *pattern;
    } rules[] = {{FS_RULE_GUARD, ".git"}, {FS_RULE_EXCEPT, ".git/objects"}, {FS_RULE_EXCEPT, ".git/COMMIT_EDITMSG"}, {FS_RULE_READONLY, "**/*.pem"}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        assert_int_equal(fs_rules_add(r, rules[i].kind, rules[i].pattern, NULL), 0);
    static const struct {
        const char *path;
        bool exact, any;
    } t[] = {
        {".git/hooks/x", true, true},
        {".GIT/hooks/x", false, true},
        {".gIt/HOOKS/x", false, true},
        {"a/B.PEM", false, true},
        {"gitx/hooks/x", false, false},
        {"git/hooks/x", false, false},
        {".git/objects/x", false, false},
        {".GIT/OBJECTS/x", false, false},
        {".git/objects./x", true, true},
        /* short names */
        {"GIT~1/hooks/x", false, true},
        {"gi7d29~1/config", false, true},
        {"Git~12", false, true},
        {"Git~12.wor", false, false},
        {".git/CONFIG~1.WOR", true, true},
        {"KEY~1.PEM", false, true},
        {"KEYS~1.PEM", false, true},
        {"KEYS.PE~1", false, false},
        {"notes~1.pem", true, true},
        {"notes~1", false, false},
        {"g~1.html", false, false},
        {"g~.txt", false, false},
        {"get~1x", false, false},
        {"git~1.txt~", false, false},
        {"go.mod.~1~", false, false},
        /* what is not compared */
        {".git./hooks/x", false, true},
        {".git. ./hooks./x", false, true},
        {".g\u200cit/hooks/x", false, true},
        {".git/hoo\u212as/x", true, true},
        {".\ufe0fGIT/x", false, true},
        {"..", false, false},
    };
    for (int any = 0; any < 2; any++) {
        for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
            struct fs_rules_at at = place(r, t[i].path);
            if (fs_rules_readonly(r, &at) != (any ? t[i].any : t[i].exact))
                fail_msg("%s, %d", t[i].path, any);
        }
        fs_rules_ignore_case(r);
    }
    fs_rules_free(r);
}

/* A list of what may be written, as branch mode has it for .git. */
static void exceptions(void **state)
{
    (void)state;
    struct fs_rules *r = fs_rules_new();
    fs_rules_add(r, FS_RULE_GUARD, "*", NULL);
    fs_rules_add(r, FS_RULE_EXCEPT, "refs/heads/f/x", NULL);
    fs_rules_add(r, FS_RULE_EXCEPT, "worktrees/own", NULL);
    fs_rules_add(r, FS_RULE_READONLY, "worktrees/own/commondir", NULL);
    static const struct {
        const char *path;
        bool readonly, opens;
    } t[] = {
        {"hooks", true, false},           {"config", true, false},
        {"refs", true, true},             {"refs/heads", true, true},
        {"refs/heads/main", true, false}, {"refs/heads/f", true, true},
        {"refs/heads/f/x", false, true},  {"refs/heads/f/y", true, false},
        {"worktrees/other/HEAD", true, false}, {"worktrees/own/HEAD", false, true},
        {"worktrees/own/commondir", true, false}, {"worktrees/own/a/b", false, true},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct fs_rules_at at = place(r, t[i].path);
        if (fs_rules_readonly(r, &at) != t[i].readonly || fs_rules_opens(r, &at) != t[i].opens)
            fail_msg("%s", t[i].path);
    }
    /* Moving a directory neither takes an exception along nor brings anything under one. */
    struct fs_rules_at wt = place(r, "worktrees"), own = place(r, "worktrees/own"), in = place(r, "worktrees/own/a"), in2 = place(r, "worktrees/own/b/c"),
                       other = place(r, "worktrees/other"), heads = place(r, "refs/heads"), away = place(r, "away");
    const struct fs_rules_at *bad[][2] = {{&wt, &away}, {&own, &other}, {&other, &own}, {&other, &in}, {&in, &other}, {&heads, &away}, {&heads, &in}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(fs_rules_keep(r, bad[i][0], bad[i][1]) && fs_rules_keep(r, bad[i][1], bad[i][0]));
    assert_true(fs_rules_keep(r, &in, &in2) && fs_rules_keep(r, &in2, &in));
    fs_rules_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns),
        cmocka_unit_test(refused),
        cmocka_unit_test(ways_around),
        cmocka_unit_test(names_of_any_case),
        cmocka_unit_test(exceptions),
    };
    return cmocka_run_group_tests_name("fs_rules", tests, NULL, NULL);
}
