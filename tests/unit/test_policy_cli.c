/* sbx policy, as a user types it: the lines of the guide, and what is answered to mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "core/decisions.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/record.h"
#include "ui/cli/backend.h"
#include "ui/cli/cli.h"

struct backend backend; /* of main: nothing here needs a machine */

static char home[] = "/tmp/sbx-policycli-XXXXXX";
static char out[1 << 16], err[1 << 16];

static int set_up(void **state)
{
    char dir[64];
    struct record r;
    (void)state;
    strcpy(home + strlen(home) - 6, "XXXXXX");
    if (!mkdtemp(home))
        return -1;
    snprintf(dir, sizeof dir, "%s/config", home);
    setenv("XDG_CONFIG_HOME", dir, 1);
    snprintf(dir, sizeof dir, "%s/data", home);
    setenv("XDG_DATA_HOME", dir, 1);
    snprintf(dir, sizeof dir, "%s/run", home);
    setenv("XDG_RUNTIME_DIR", dir, 1);
    record_init(&r);
    snprintf(r.name, sizeof r.name, "box");
    r.agent = strdup("shell");
    r.image = strdup("none");
    r.cpus = 1;
    r.memory_mib = 512;
    r.disk_mib = 1024;
    int rc = record_create(&r, NULL);
    record_finish(&r);
    return rc;
}

static int tear_down(void **state)
{
    (void)state;
    return path_remove_tree(home, NULL);
}

static void slurp(const char *name, char *to, size_t cap)
{
    FILE *f = fopen(name, "r");
    assert_non_null(f);
    to[fread(to, 1, cap - 1, f)] = '\0';
    fclose(f);
    unlink(name);
}

/* Runs "sbx policy ..." with words parted by blanks; returns its status, and what it wrote in out and err. */
static int sbx(const char *line)
{
    char copy[512], o[80], e[80], *argv[32], *save = NULL;
    int argc = 0;
    snprintf(copy, sizeof copy, "sbx policy %s", line);
    for (char *w = strtok_r(copy, " ", &save); w && argc < 31; w = strtok_r(NULL, " ", &save))
        argv[argc++] = w;
    argv[argc] = NULL;
    snprintf(o, sizeof o, "%s/out", home);
    snprintf(e, sizeof e, "%s/err", home);
    fflush(NULL);
    int keep1 = dup(1), keep2 = dup(2);
    int f1 = open(o, O_RDWR | O_CREAT | O_TRUNC, 0600), f2 = open(e, O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(f1, 1);
    dup2(f2, 2);
    int status = cli_main(argc, argv);
    fflush(NULL);
    dup2(keep1, 1);
    dup2(keep2, 2);
    close(keep1);
    close(keep2);
    close(f1);
    close(f2);
    slurp(o, out, sizeof out);
    slurp(e, err, sizeof err);
    return status;
}

static void has(const char *where, const char *what)
{
    if (!strstr(where, what))
        fail_msg("\"%s\" is not in: %s", what, where);
}

/* As an editor leaves the file of a sandbox, or of all: NULL. */
static void written_by_hand(const char *sandbox, const char *text)
{
    char *path = policy_path(sandbox, NULL);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    free(path);
}

static void lines_of_the_guide(void **state)
{
    (void)state;
    assert_int_equal(sbx("ls"), 0);
    has(out, "not chosen yet");
    assert_int_equal(sbx("allow network -g api.anthropic.com"), 0);
    assert_int_equal(sbx("allow network -g api.openai.com,*.npmjs.org,*.pypi.org,files.pythonhosted.org,github.com"), 0);
    has(err, "*.npmjs.org does not cover npmjs.org itself");
    assert_int_equal(sbx("allow network -g localhost:1234"), 0);
    assert_int_equal(sbx("deny network -g ads.example.com"), 0);
    assert_int_equal(sbx("allow network -g 10.1.2.3:22"), 0);
    assert_int_equal(sbx("set-default balanced"), 0);
    assert_int_equal(sbx("set-default allow-all"), 0);
    assert_int_equal(sbx("set-default deny-all"), 0);
    assert_int_equal(sbx("check api.example.com"), STATUS_DENIED);
    has(out, "api.example.com:443: denied, by posture locked-down");
    has(out, "sbx policy allow network -g api.example.com:443");
    assert_int_equal(sbx("check github.com"), 0);
    has(out, "allowed, by allow github.com (global)");
    /* Where requests are judged some methods never go on, whatever a rule says. */
    assert_int_equal(sbx("allow network -g judged.example.com/api"), 0);
    assert_int_equal(sbx("check judged.example.com --method POST --path /api/x"), 0);
    assert_int_equal(sbx("check judged.example.com --method TRACE --path /api/x"), STATUS_DENIED);
    has(out, "none of that method goes on");
    assert_int_equal(sbx("ls"), 0);
    has(out, "*.npmjs.org");
    has(out, "posture: locked-down\n");
    assert_int_equal(sbx("log"), 0);
    assert_null(strstr(out, "example.com"));
    assert_int_equal(sbx("reset"), 0);
    assert_int_equal(sbx("ls"), 0);
    assert_null(strstr(out, "ads.example.com"));
}

static void mistakes_change_nothing(void **state)
{
    static const char *const bad[] = {
        "allow", "allow network", "allow network -g", "allow network a.com", "allow network box", "allow network -g *.com",
        "allow network -g good.com,bad..com", "allow network -g a.com --for soon", "allow network -g a.com --for",
        "allow network -g a.com --frob", "allow network nobox a.com", "allow network ../x a.com", "allow disk -g a.com",
        "allow network -g GET|a.com", "allow network -g 8.8.8.8/x", "set-default", "set-default opne", "set-default open nobox",
        "check", "check *.example.com", "check a.com b.com", "check a.com:99999", "check a.com:80-90", "log --since yesterdayish", "log --limit x",
        "log --verdict maybe", "log nobox", "ls nobox", "reset nobox", "import", "frobnicate", "rm -g", "export a b",
    };
    char before[1 << 12];
    (void)state;
    assert_int_equal(sbx("allow network -g kept.example.com"), 0);
    assert_int_equal(sbx("export"), 0);
    snprintf(before, sizeof before, "%.*s", (int)sizeof before - 1, out);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int status = sbx(bad[i]);
        if ((status != STATUS_USAGE && status != STATUS_NOT_FOUND) || strncmp(err, "sbx: ", 5) != 0 || strchr(err, '\n') != err + strlen(err) - 1)
            fail_msg("%s: status %d, %s", bad[i], status, err);
    }
    assert_int_equal(sbx("export"), 0);
    assert_string_equal(out, before);
}

static void one_sandbox(void **state)
{
    (void)state;
    assert_int_equal(sbx("allow network box own.example.com --for 1h --comment trial"), 0);
    assert_int_equal(sbx("check own.example.com"), STATUS_DENIED);
    assert_int_equal(sbx("check own.example.com --sandbox box"), 0);
    assert_int_equal(sbx("set-default open box"), 0);
    assert_int_equal(sbx("check any.example.com --sandbox box"), 0);
    assert_int_equal(sbx("ls --json"), 0);
    json_t *o = json_loads(out, 0, NULL), *r = json_array_get(json_object_get(o, "rules"), 0);
    assert_string_equal(json_string_value(json_object_get(r, "scope")), "box");
    assert_string_equal(json_string_value(json_object_get(r, "comment")), "trial");
    assert_true(json_is_integer(json_object_get(r, "expires")));
    json_decref(o);
    assert_int_equal(sbx("rm box own.example.com"), 0);
    assert_int_equal(sbx("rm box own.example.com"), STATUS_NOT_FOUND);
}

static void rules_can_rest(void **state)
{
    (void)state;
    assert_int_equal(sbx("set-default locked-down"), 0);
    assert_int_equal(sbx("allow network -g a.example.com,b.example.com"), 0);
    assert_int_equal(sbx("disable -g a.example.com"), 0);
    assert_int_equal(sbx("check a.example.com"), STATUS_DENIED);
    assert_int_equal(sbx("check b.example.com"), 0);
    assert_int_equal(sbx("ls"), 0);
    has(out, "allow (off)");
    assert_int_equal(sbx("ls --json"), 0);
    has(out, "\"disabled\": true");
    assert_int_equal(sbx("enable -g a.example.com"), 0);
    assert_int_equal(sbx("check a.example.com"), 0);
    assert_int_equal(sbx("disable -g nothing.example.com"), STATUS_NOT_FOUND);
    assert_int_equal(sbx("allow network -g --off c.example.com"), 0);
    has(out, "at rest");
    assert_int_equal(sbx("check c.example.com"), STATUS_DENIED);
    assert_int_equal(sbx("allow network box --off --once c.example.com"), STATUS_USAGE);
    assert_int_equal(sbx("enable -g c.example.com"), 0);
    assert_int_equal(sbx("check c.example.com"), 0);
    /* A denial that rests denies nothing. */
    assert_int_equal(sbx("deny network -g b.example.com"), 0);
    assert_int_equal(sbx("check b.example.com"), STATUS_DENIED);
    has(out, "sbx policy rm -g");
    assert_int_equal(sbx("disable -g b.example.com"), 0);
    assert_int_equal(sbx("check b.example.com"), STATUS_DENIED); /* a rule for a host has one action: the allow went with it */
}

/* How often a file was put in the place of another one since. */
static int written(int watch)
{
    char buf[8192] __attribute__((aligned(8)));
    ssize_t n = read(watch, buf, sizeof buf);
    int count = 0;
    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *ev = (const struct inotify_event *)(buf + at);
        count += strcmp(ev->name, "policy.json") == 0;
        at += (ssize_t)(sizeof *ev + ev->len);
    }
    return count;
}

static json_t *rule_at(size_t i)
{
    static json_t *o;
    json_decref(o);
    o = json_loads(out, 0, NULL);
    return json_array_get(json_object_get(o, "rules"), i);
}

static const char *told(size_t i, const char *key)
{
    const char *text = json_string_value(json_object_get(rule_at(i), key));
    return text ? text : "";
}

static void a_rule_is_edited_at_once(void **state)
{
    char dir[80], line[200], id[16];
    int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    (void)state;
    assert_int_equal(sbx("set-default locked-down"), 0);
    assert_int_equal(sbx("allow network -g a.example.com,b.example.com,c.example.com --comment why"), 0);
    assert_int_equal(sbx("ls --json"), 0);
    snprintf(id, sizeof id, "%s", told(1, "id"));
    snprintf(dir, sizeof dir, "%s/config/sbx", home);
    assert_true(inotify_add_watch(watch, dir, IN_MOVED_TO) >= 0);
    assert_int_equal(sbx("edit -g b.example.com --rule d.example.com:8443 --action deny"), 0);
    has(out, "denied d.example.com:8443 (all sandboxes)");
    assert_int_equal(written(watch), 1); /* whoever reads meanwhile sees the old one or the new one */
    assert_int_equal(sbx("ls --json"), 0);
    assert_string_equal(told(1, "rule"), "d.example.com:8443"); /* in its place, and what was not named is as it was */
    assert_string_equal(told(1, "action"), "deny");
    assert_string_equal(told(1, "comment"), "why");
    assert_string_equal(told(1, "id"), id);
    snprintf(line, sizeof line, "edit -g %s --off --comment= --for 1h", id);
    assert_int_equal(sbx(line), 0);
    assert_int_equal(sbx("ls --json"), 0);
    assert_true(json_is_true(json_object_get(rule_at(1), "disabled")));
    assert_string_equal(told(1, "comment"), "");
    json_int_t expires = json_integer_value(json_object_get(rule_at(1), "expires"));
    assert_true(expires > 0);
    assert_int_equal(sbx("edit -g d.example.com:8443 --on"), 0); /* prolongs nothing */
    assert_int_equal(sbx("ls --json"), 0);
    assert_int_equal(json_integer_value(json_object_get(rule_at(1), "expires")), expires);
    assert_null(json_object_get(rule_at(1), "disabled"));
    assert_int_equal(sbx("edit -g d.example.com:8443 --for-good"), 0);
    assert_int_equal(sbx("ls --json"), 0);
    assert_null(json_object_get(rule_at(1), "expires"));
    /* What has that target already gives way. */
    assert_int_equal(sbx("edit -g d.example.com:8443 --rule C.example.com. --action allow"), 0);
    assert_int_equal(sbx("ls --json"), 0);
    assert_string_equal(told(1, "rule"), "c.example.com");
    assert_null(rule_at(2));
    /* To a sandbox, and back. */
    written(watch);
    assert_int_equal(sbx("edit -g c.example.com --to box --action deny"), 0);
    assert_int_equal(written(watch), 1);
    assert_int_equal(sbx("ls --json box"), 0);
    assert_string_equal(told(0, "scope"), "box");
    assert_string_equal(told(0, "rule"), "c.example.com");
    assert_null(rule_at(2));
    assert_int_equal(sbx("edit box c.example.com --to-all"), 0);
    assert_int_equal(sbx("ls --json box"), 0);
    assert_string_equal(told(1, "rule"), "c.example.com");
    assert_string_equal(told(1, "scope"), "all");
    /* What cannot be done changes nothing. */
    char before[sizeof out];
    memcpy(before, out, sizeof out);
    written(watch);
    assert_int_equal(sbx("edit -g gone.example.com --off"), STATUS_NOT_FOUND);
    assert_string_equal(err, "sbx: there is no rule \"gone.example.com\" for all sandboxes\n");
    assert_int_equal(sbx("edit box c.example.com --off"), STATUS_NOT_FOUND);
    assert_int_equal(sbx("edit -g c.example.com"), STATUS_USAGE);
    assert_int_equal(sbx("edit -g c.example.com --rule *"), STATUS_USAGE);
    assert_int_equal(sbx("edit -g c.example.com --rule 169.254.169.254 --action allow"), STATUS_USAGE);
    assert_int_equal(sbx("edit -g c.example.com --to nobody"), STATUS_NOT_FOUND);
    assert_int_equal(sbx("edit -g c.example.com --on --off"), STATUS_USAGE);
    assert_int_equal(sbx("edit -g c.example.com a.example.com --off"), STATUS_USAGE);
    assert_int_equal(written(watch), 0);
    assert_int_equal(sbx("deny network -g 169.254.169.254"), 0);
    assert_int_equal(sbx("edit -g 169.254.169.254 --action allow"), STATUS_USAGE);
    assert_int_equal(sbx("rm -g 169.254.169.254"), 0);
    assert_int_equal(sbx("ls --json box"), 0);
    assert_string_equal(out, before);
    /* Two of one target: which of them must be said.  One that has run out does not come back by a word. */
    written_by_hand(NULL, "{\"version\": 1, \"rules\": [{\"id\": \"aa\", \"action\": \"deny\", \"target\": \"x.example.com\", \"expires\": 1},"
                          "{\"action\": \"allow\", \"target\": \"x.example.com\"}]}");
    assert_int_equal(sbx("edit -g x.example.com --off --for-good"), STATUS_USAGE);
    has(err, "2 rules say");
    assert_int_equal(sbx("edit -g aa --comment x"), STATUS_FAILED);
    has(err, "it a new end with --for");
    assert_int_equal(sbx("edit -g aa --comment x --for 1h"), 0);
    close(watch);
}

static void requests_are_checked(void **state)
{
    (void)state;
    assert_int_equal(sbx("set-default locked-down"), 0);
    assert_int_equal(sbx("allow network -g api.example.com/v1"), 0);
    assert_int_equal(sbx("deny network -g other.example.com/v1/secret"), 0);
    assert_int_equal(sbx("check api.example.com"), 0);
    has(out, "depends on the request");
    assert_int_equal(sbx("check api.example.com --path /v1/x"), 0);
    has(out, "allowed, by allow api.example.com/v1 (global)");
    assert_int_equal(sbx("check api.example.com --method POST --path /v2"), STATUS_DENIED);
    has(out, "sbx policy allow network -g 'POST api.example.com:443/v2'");
    assert_int_equal(sbx("check api.example.com --path v2"), STATUS_USAGE);
    assert_int_equal(sbx("check 8.8.8.8 --path /v2"), STATUS_USAGE);
}

/* The answers are those that the broker would give. */
static void check_tells_what_would_happen(void **state)
{
    (void)state;
    assert_int_equal(sbx("set-default open"), 0);
    assert_int_equal(sbx("check 8.8.8.8"), 0);
    static const char *const inner[] = {"10.1.2.3", "192.168.0.1:8080", "[fd00::1]:443", "127.0.0.2", "100.64.0.1", "224.0.0.1", "[64:ff9b::a00:1]:443"};
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++) {
        char line[64];
        snprintf(line, sizeof line, "check %s", inner[i]);
        if (sbx(line) != STATUS_DENIED)
            fail_msg("%s: %s", inner[i], out);
        has(out, "the check of addresses");
        has(out, "sbx policy allow network -g");
    }
    assert_int_equal(sbx("allow network -g 0.0.0.0/0"), 0); /* opens what is global */
    assert_int_equal(sbx("check 10.1.2.3"), STATUS_DENIED);
    assert_int_equal(sbx("allow network -g 10.0.0.0/8:22"), 0);
    assert_int_equal(sbx("check 10.1.2.3:22"), 0);
    assert_int_equal(sbx("check 10.1.2.3:23"), STATUS_DENIED);
    /* Paths are compared as the gateway compares them. */
    assert_int_equal(sbx("deny network -g api.example.com/admin"), 0);
    assert_int_equal(sbx("check api.example.com --path /%61dmin/x"), STATUS_DENIED);
    assert_int_equal(sbx("check api.example.com --path /a%zz"), STATUS_DENIED);
    assert_int_equal(sbx("check api.example.com --path /a%ff"), STATUS_DENIED);
    has(out, "more than one way");
    assert_int_equal(sbx("check api.example.com --path /a:b%41"), 0);
    assert_int_equal(sbx("check other.example.com --path /a%zz"), 0); /* where no rule speaks of paths none is read */
    written_by_hand("box", "{\"version\": 1, \"rules\": [{\"action\": \"deny\", \"target\": \"no.example.com\"},"
                           "{\"action\": \"deny\", \"target\": \"GET 8.8.4.4/x\"}]}");
    assert_int_equal(sbx("check no.example.com --sandbox box"), STATUS_DENIED);
    has(out, "sbx policy rm box no.example.com"); /* it has no id */
    assert_int_equal(sbx("check 8.8.4.4 --sandbox box"), STATUS_DENIED);
    has(out, "it has to name the host");
}

/* A clock that is set back changes no order of one sandbox's rows. */
static void log_keeps_its_order(void **state)
{
    char *path = path_sandbox("box", "log.db", NULL);
    struct decisions *d = decisions_open(path, false, NULL);
    static const int hours[] = {5, 6, 2, 3};
    (void)state;
    for (int i = 0; i < 4; i++) {
        char host[24];
        snprintf(host, sizeof host, "row%d.example.com", i);
        struct decision_row r = {.time_ms = 1700000000000 + hours[i] * 3600000, .kind = "deny", .proto = "tcp", .host = host, .port = 443,
                                 .method = i == 2 ? "\xff\xfe" : "GET", .verdict = "deny", .count = 1};
        assert_int_equal(decisions_add(d, &r, NULL), 0);
    }
    decisions_close(d);
    free(path);
    assert_int_equal(sbx("log --raw"), 0);
    char *at = out;
    for (int i = 0; i < 4; i++) {
        char host[24];
        snprintf(host, sizeof host, "row%d.example.com", i);
        at = strstr(at, host);
        if (!at)
            fail_msg("%s stands elsewhere: %s", host, out);
    }
    assert_int_equal(sbx("log"), 0);
    at = out;
    for (int i = 3; i >= 0; i--) {
        char host[24];
        snprintf(host, sizeof host, "row%d.example.com", i);
        at = strstr(at, host);
        if (!at)
            fail_msg("%s stands elsewhere: %s", host, out);
    }
    /* A row with bytes that are no text is in the JSON as well. */
    assert_int_equal(sbx("log --raw --json"), 0);
    json_t *o = json_loads(out, 0, NULL);
    assert_int_equal(json_array_size(o), 4);
    assert_string_equal(json_string_value(json_object_get(json_array_get(o, 2), "method")), "\\xff\\xfe");
    json_decref(o);
}

static void add(struct decisions *d, const char *kind, const char *verdict, const char *host, int64_t n, const char *reason)
{
    struct decision_row r = {.time_ms = 1700000000000, .kind = kind, .proto = "tcp", .host = host, .port = 443,
                             .verdict = verdict, .rule = "posture balanced", .reason = reason, .count = n};
    assert_int_equal(decisions_add(d, &r, NULL), 0);
}

static void comes(const char *file, const char *text)
{
    for (int i = 0; i < 6000; i++) { /* a minute: machines stall */
        FILE *f = fopen(file, "r");
        out[f ? fread(out, 1, sizeof out - 1, f) : 0] = '\0';
        if (f)
            fclose(f);
        if (strstr(out, text))
            return;
        usleep(10000);
    }
    fail_msg("\"%s\" did not come: %s", text, out);
}

/* Who follows a log sees what happens to it, and goes on. */
static void a_log_is_followed_over_its_loss(void **state)
{
    char file[80], wal[4096], *path = path_sandbox("box", "log.db", NULL);
    struct decisions *d = decisions_open(path, false, NULL);
    (void)state;
    snprintf(file, sizeof file, "%s/followed", home);
    snprintf(wal, sizeof wal, "%s-wal", path);
    add(d, "deny", "deny", "first.example.com", 1, "");
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {(char *)"sbx", (char *)"policy", (char *)"log", (char *)"box", (char *)"--follow", NULL};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!freopen(file, "w", stdout) || !freopen("/dev/null", "w", stderr))
            _exit(1);
        _exit(cli_main(5, argv));
    }
    comes(file, "first.example.com");
    assert_int_equal(unlink(path), 0);
    usleep(200000); /* it looks, and finds none */
    add(d, "deny", "deny", "second.example.com", 1, "");
    comes(file, "the log was removed while the sandbox ran");
    comes(file, "second.example.com");
    FILE *f = fopen(wal, "w");
    fclose(f);
    usleep(200000);
    add(d, "deny", "deny", "third.example.com", 1, "");
    comes(file, "the log was cut short while the sandbox ran");
    comes(file, "third.example.com");
    assert_null(strstr(strstr(out, "first.example.com") + 1, "first.example.com")); /* each once */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_int_equal(sbx("log --verify"), 1);
    has(out, "the log was cut short");
    decisions_close(d);
    free(path);
}

static void asking_is_a_setting(void **state)
{
    (void)state;
    assert_int_equal(sbx("ask on box"), 0);
    assert_int_equal(sbx("ls box"), 0);
    has(out, "asked about");
    assert_int_equal(sbx("ls"), 0);
    assert_null(strstr(out, "asked about"));
    assert_int_equal(sbx("check x.example.com --sandbox box"), STATUS_DENIED);
    assert_int_equal(sbx("ask off box"), 0);
    assert_int_equal(sbx("ls box"), 0);
    assert_null(strstr(out, "asked about"));
    assert_int_equal(sbx("ask ls"), 0);                         /* nothing runs: nothing is asked */
    assert_int_equal(sbx("ask allow box 1"), STATUS_NOT_FOUND); /* nor answered */
    assert_int_equal(sbx("ask frob"), STATUS_USAGE);
    assert_int_equal(sbx("allow network box a.example.com --once"), STATUS_NOT_FOUND);
    assert_int_equal(sbx("allow network -g a.example.com --once"), STATUS_USAGE);
    assert_int_equal(sbx("deny network box a.example.com --once"), STATUS_USAGE);
}

static void broken_file_is_named(void **state)
{
    (void)state;
    written_by_hand(NULL, "{\"version\": 1,");
    assert_int_equal(sbx("ls"), 1);
    has(err, "everything is denied");
    has(err, "policy.json");
    assert_int_equal(sbx("allow network -g a.com"), 1);
    has(err, "sbx policy reset");
    assert_int_equal(sbx("check github.com"), STATUS_DENIED);
    assert_int_equal(sbx("reset"), 0);
    assert_int_equal(sbx("ls"), 0);
}

static void log_is_shown(void **state)
{
    (void)state;
    char *path = path_sandbox("box", "log.db", NULL);
    struct decisions *d = decisions_open(path, false, NULL);
    assert_non_null(d);
    add(d, "open", "allow", "good.example.com", 1, "");
    add(d, "close", "allow", "good.example.com", 0, "");
    add(d, "deny", "deny", "bad.example.com", 3, "");
    add(d, "deny", "deny", "bad.example.com", 4, "\x1b[2Jtricky\r\n\xe2\x80\xae");
    decisions_close(d);
    assert_int_equal(sbx("log"), 0);
    has(out, "SANDBOX");
    has(out, "bad.example.com");
    has(out, "  7  ");
    assert_null(strchr(out, '\x1b')); /* threat 88 */
    assert_null(strstr(out, "\xe2\x80\xae"));
    assert_int_equal(sbx("log --json --verdict deny"), 0);
    json_t *o = json_loads(out, 0, NULL);
    assert_int_equal(json_array_size(o), 1);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(o, 0), "count")), 7);
    json_decref(o);
    assert_int_equal(sbx("log box --raw --limit 2 --host bad."), 0);
    has(out, "  3  ");
    assert_null(strstr(out, "good"));
    assert_null(strchr(out, '\x1b'));
    assert_int_equal(sbx("log --since 1h"), 0);
    assert_null(strstr(out, "example.com"));
    assert_int_equal(sbx("log --verify"), 0);
    has(out, "box: 4 rows, unbroken");
    /* One byte of the file. */
    FILE *f = fopen(path, "r+");
    char buf[1 << 16];
    size_t n = fread(buf, 1, sizeof buf, f);
    char *at = memmem(buf, n, "good.example.com", 16);
    assert_non_null(at);
    fseek(f, at - buf, SEEK_SET);
    fputc('f', f);
    fclose(f);
    assert_int_equal(sbx("log --verify"), 1);
    has(out, "was changed");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(sbx("log --verify"), 1); /* nothing is no whole log */
    has(out, "box: BROKEN: the log was removed: its rows up to 4 are gone");
    free(path);
}

static void a_comma_of_a_path_parts_no_rules(void **state)
{
    (void)state;
    assert_int_equal(sbx("allow network box d.example.com/x\\,evil.example.net,other.example.com"), 0);
    assert_int_equal(sbx("ls box --json"), 0);
    assert_non_null(strstr(out, "\"d.example.com/x,evil.example.net\""));
    assert_non_null(strstr(out, "\"other.example.com\""));
    assert_null(strstr(out, "\"evil.example.net\""));
    assert_int_equal(sbx("check evil.example.net --sandbox box"), 4);
    assert_int_equal(sbx("disable box d.example.com/x\\,evil.example.net"), 0);
    assert_int_equal(sbx("rm box d.example.com/x\\,evil.example.net"), 0);
    /* And what check says to type is read as that one rule. */
    assert_int_equal(sbx("check d.example.com --sandbox box --method GET --path /y,evil.example.net/'it"), 4);
    assert_non_null(strstr(out, "sbx policy allow network box 'GET d.example.com:443/y\\,evil.example.net/'\\''it'"));
}

/* Each form in which rows come to a terminal: nothing of what a guest wrote acts on it. */
static void threat_88_rows_on_a_terminal(void **state)
{
    static const char *const forms[] = {"", "--raw", "--json", "--follow", "--follow --json", "--raw --json", "--verify"};
    static const char hostile[] = "/x\x1b]0;t\x07\xc2\x9b" "31m\xe2\x80\xae\xff\r\n\x7f\xe2\x80\x8b";
    char *path = path_sandbox("box", "log.db", NULL);
    struct decisions *d = decisions_open(path, false, NULL);
    (void)state;
    struct decision_row r = {.time_ms = 1700000000000, .kind = "log", .proto = hostile, .host = hostile, .port = 443, .addr = hostile, .method = hostile,
                             .path = hostile, .verdict = "deny", .rule = hostile, .reason = hostile, .count = 1};
    assert_int_equal(decisions_add(d, &r, NULL), 0);
    decisions_close(d);
    free(path);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        int master;
        char line[80], *argv[8] = {(char *)"sbx", (char *)"policy", (char *)"log"}, *save = NULL;
        int argc = 3;
        size_t n = 0;
        snprintf(line, sizeof line, "%s", forms[i]);
        for (char *w = strtok_r(line, " ", &save); w; w = strtok_r(NULL, " ", &save))
            argv[argc++] = w;
        fflush(NULL);
        pid_t pid = forkpty(&master, NULL, NULL, NULL);
        if (pid == 0) {
            struct termios t;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            tcgetattr(1, &t);
            cfmakeraw(&t);
            tcsetattr(1, TCSANOW, &t);
            setenv("NO_COLOR", "1", 1);
            _exit(cli_main(argc, argv));
        }
        /* One that follows goes on: what is there comes at once. */
        struct pollfd p = {.fd = master, .events = POLLIN};
        out[0] = '\0';
        while (n < sizeof out - 1 && poll(&p, 1, strstr(forms[i], "--follow") && strstr(out, "31m") ? 500 : 60000) > 0) {
            ssize_t got = read(master, out + n, sizeof out - 1 - n);
            if (got <= 0)
                break;
            n += (size_t)got;
            out[n] = '\0';
        }
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(master);
        has(out, "31m");
        static const char *const never[] = {"\x1b", "\x07", "\xc2\x9b", "\xe2\x80\xae", "\xff", "\r", "\x7f", "\xe2\x80\x8b"};
        for (size_t k = 0; k < sizeof never / sizeof *never; k++)
            if (strstr(out, never[k]))
                fail_msg("log %s: byte %02x ... is not escaped", forms[i], (unsigned char)never[k][0]);
    }
}

/* Why a rule is there is kept, or refused, and never lost on the way. */
static void comments_are_kept(void **state)
{
    char line[400], *path = policy_path("box", NULL);
    (void)state;
    assert_int_equal(sbx("allow network box a.example.com --comment \xc3\xbc\xff"), STATUS_USAGE);
    strcpy(line, "allow network box a.example.com --comment ");
    for (int i = 0; i < 64; i++)
        strcat(line, "\xc3\xbc");
    assert_int_equal(sbx(line), STATUS_USAGE);
    has(err, "at most 127 bytes");
    line[strlen(line) - 2] = '\0';
    assert_int_equal(sbx(line), 0);
    assert_int_equal(sbx("ls box --json"), 0);
    has(out, "\xc3\xbc\xc3\xbc");
    /* A file may hold longer ones: they are shown cut between two letters. */
    FILE *f = fopen(path, "w");
    fputs("{\"version\": 1, \"rules\": [{\"action\": \"allow\", \"target\": \"b.example.com\", \"comment\": \"", f);
    for (int i = 0; i < 100; i++)
        fputs("\xe2\x82\xac", f);
    fputs("\"}]}", f);
    fclose(f);
    free(path);
    assert_int_equal(sbx("ls box --json"), 0);
    has(out, "b.example.com");
    has(out, "\xe2\x82\xac");
    assert_int_equal(sbx("export box"), 0); /* and kept as they are */
    assert_non_null(strstr(out, "\xe2\x82\xac"));
    assert_int_equal(sbx("allow network box 127.0.0.0/8"), 0);
    has(err, "localhost:PORT");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {T(lines_of_the_guide), T(mistakes_change_nothing), T(one_sandbox), T(rules_can_rest), T(a_rule_is_edited_at_once),
                                       T(requests_are_checked), T(a_comma_of_a_path_parts_no_rules), T(check_tells_what_would_happen), T(log_keeps_its_order), T(a_log_is_followed_over_its_loss), T(asking_is_a_setting),
                                       T(broken_file_is_named), T(comments_are_kept), T(threat_88_rows_on_a_terminal), T(log_is_shown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
