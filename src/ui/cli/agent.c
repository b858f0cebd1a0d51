#include "ui/cli/agent.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/kit.h"
#include "core/mirrorhosts.h"
#include "core/mirrors.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/state.h"
#include "ui/cli/backend.h"
#include "ui/cli/sandbox.h"
#include "ui/session.h"

static int build_policy(const char *sandbox, const json_t *kit, struct err *e)
{
    struct rule rules[32];
    size_t n = 0, i;
    json_t *h;
    json_array_foreach(json_object_get(kit, "build_hosts"), i, h) {
        if (n == 31)
            break;
        memset(&rules[n], 0, sizeof rules[n]);
        if (rule_parse(&rules[n], json_string_value(h), e) < 0)
            return -1;
        snprintf(rules[n++].comment, sizeof rules[0].comment, "where this agent is installed from");
    }
    /* npm's registry of this host, if it is another one. */
    static char registry[1][272];
    json_t *env = mirrors_env();
    const char *url = json_string_value(json_object_get(env, "npm_config_registry"));
    if (url && mirrorhosts_scan(url, registry, 0, 1) == 1) {
        memset(&rules[n], 0, sizeof rules[n]);
        if (rule_parse(&rules[n], registry[0], NULL) == 0)
            n++;
    }
    json_decref(env);
    if (policy_set_posture(sandbox, POSTURE_LOCKED, e) < 0)
        return -1;
    return n ? policy_add(sandbox, rules, n, e) : 0;
}

/* How far a step is cannot be known beforehand: what is told is what is true, how long it takes and what it wrote. */
struct step_progress {
    const char *title; /* NULL: nothing is told */
    char *disk;
    int out, log; /* where standard error leads: ours, and the step's */
    struct timespec began;
    long told;
};

static void step_tick(void *arg)
{
    struct step_progress *p = arg;
    struct timespec now;
    struct stat st;
    char text[200], span[32], wrote[48] = "";
    clock_gettime(CLOCK_MONOTONIC, &now);
    long s = (long)(now.tv_sec - p->began.tv_sec);
    if (!p->title || s == p->told)
        return;
    p->told = s;
    if (s < 60)
        snprintf(span, sizeof span, "%lds", s);
    else
        snprintf(span, sizeof span, "%ldm%02lds", s / 60, s % 60);
    if (p->disk && stat(p->disk, &st) == 0 && st.st_blocks >= 2048)
        snprintf(wrote, sizeof wrote, ", %lld MiB written", (long long)st.st_blocks / 2048);
    snprintf(text, sizeof text, "%.100s: %s%s", p->title, span, wrote);
    dup2(p->out, 2);
    progress_show(-1, text);
    fflush(stderr);
    if (p->log >= 0)
        dup2(p->log, 2);
}

/* Of all that a recipe printed: the first errors say what happened, the longest of them most of it; without any, the end. */
static void what_went_wrong(FILE *log, char *out, size_t cap)
{
    char line[400];
    unsigned errors = 0;
    out[0] = '\0';
    if (!log)
        return;
    rewind(log);
    while (fgets(line, sizeof line, log)) {
        line[strcspn(line, "\r\n")] = '\0';
        bool error = (strstr(line, "rror") || strstr(line, "ERR")) && !strstr(line, "_logs/") && !strstr(line, "complete log");
        if (error ? errors == 0 || (errors < 6 && strlen(line) > strlen(out)) : errors == 0 && line[strspn(line, " ")])
            snprintf(out, cap, "%s", line);
        errors += error;
    }
}

static int run_step(const char *sandbox, const char *step, const char *title, int *interrupted, struct err *e)
{
    struct step_progress progress = {.title = title, .disk = path_sandbox(sandbox, "disk", NULL), .log = -1, .told = -1};
    clock_gettime(CLOCK_MONOTONIC, &progress.began);
    json_t *argv = json_pack("[s, s, s]", "bash", "-lc", step);
    struct session_request req = {.sandbox = sandbox, .argv = argv, .cwd = "/home/agent", .user = "agent",
                                  .tick = title && progress_wanted() ? step_tick : NULL, .tick_arg = &progress, .interrupted = interrupted};
    int status = 0, rc;
    FILE *log = tmpfile();
    /* What the recipe prints is of interest only if it fails. */
    fflush(stdout);
    fflush(stderr);
    int out = dup(1), err2 = dup(2);
    progress.out = err2;
    if (log) {
        progress.log = fileno(log);
        dup2(fileno(log), 1);
        dup2(fileno(log), 2);
    }
    rc = session_run(&req, &status, NULL, e);
    dup2(out, 1);
    dup2(err2, 2);
    close(out);
    close(err2);
    json_decref(argv);
    free(progress.disk);
    if (rc == 0 && status != 0) {
        char why[400];
        what_went_wrong(log, why, sizeof why);
        rc = err_set(e, STATUS_FAILED, "%s%s(status %d of: %s)", why, why[0] ? " " : "", status, step);
    }
    if (log)
        fclose(log);
    return rc;
}

int agent_step(const char *sandbox, const char *step, const char *title, struct err *e)
{
    return run_step(sandbox, step, title, NULL, e);
}

/* What an installation that was killed left behind; its lock is ours. */
static void sweep_installs(const char *template)
{
    char **names;
    int n = record_list(&names, NULL);
    for (int i = 0; i < n; i++) {
        struct record r;
        if (record_load(&r, names[i], NULL) < 0)
            continue;
        const char *of = json_string_value(json_object_get(r.extra, "installs"));
        if (of && strcmp(of, template) == 0)
            sandbox_remove(names[i], true, NULL);
        record_finish(&r);
    }
    if (n >= 0)
        record_list_free(names, n);
}

static int install_agent(const json_t *kit, const char *template, struct err *e)
{
    const char *agent = json_string_value(json_object_get(kit, "name"));
    const json_t *steps_ = json_object_get(kit, "install");
    char sandbox[RECORD_NAME_MAX + 1];
    size_t i;
    json_t *step;
    out_notice("%s is installed now, once, in a sandbox of its own", json_string_value(json_object_get(kit, "title")));
    snprintf(sandbox, sizeof sandbox, "install-%.20s-%d", agent, (int)getpid());
    struct record r;
    record_init(&r);
    snprintf(r.name, sizeof r.name, "%s", sandbox);
    r.agent = strdup(agent);
    r.cpus = 2;
    r.memory_mib = 2048;
    r.disk_mib = 20480;
    r.created = time(NULL);
    r.extra = json_pack("{s:s}", "installs", template);
    int rc = record_create(&r, e);
    record_finish(&r);
    if (rc == 0)
        rc = build_policy(sandbox, kit, e);
    if (rc == 0)
        rc = sandbox_start(sandbox, e);
    const char *title = json_string_value(json_object_get(kit, "title"));
    title = title ? title : agent;
    json_array_foreach((json_t *)steps_, i, step) {
        char shown[200];
        if (rc == 0 && sandbox_interrupted)
            rc = err_set(e, STATUS_FAILED, "it was interrupted");
        if (rc < 0)
            break;
        if (json_array_size(steps_) > 1)
            snprintf(shown, sizeof shown, "installing %s, step %zu of %zu", title, i + 1, json_array_size(steps_));
        else
            snprintf(shown, sizeof shown, "installing %s", title);
        if (!progress_wanted())
            progress_show(-1, shown);
        int interrupted = 0; /* while the step has our signals */
        rc = run_step(sandbox, json_string_value(step), shown, &interrupted, e);
        if (interrupted)
            sandbox_interrupted = interrupted;
    }
    if (rc == 0 && !sandbox_interrupted && json_object_get(kit, "check"))
        rc = agent_step(sandbox, json_string_value(json_object_get(kit, "check")), NULL, e);
    progress_done();
    struct err ignored = {0};
    if (rc == 0 && sandbox_interrupted)
        rc = err_set(e, STATUS_FAILED, "it was interrupted");
    if (rc == 0)
        rc = sandbox_stop(sandbox, 20, e);
    if (rc == 0) {
        int lock = state_lock(sandbox, e);
        rc = lock < 0 ? -1 : backend.template_freeze(sandbox, template, kit, e);
        if (lock >= 0)
            close(lock);
    }
    sandbox_remove(sandbox, true, &ignored);
    return rc;
}

int agent_need(const json_t *kit, char **template, struct err *e)
{
    const char *agent = json_string_value(json_object_get(kit, "name"));
    const json_t *install = json_object_get(kit, "install");
    char hash[17];
    *template = NULL;
    if (json_array_size(install) == 0)
        return 0;
    kit_recipe_hash(kit, hash);
    if (asprintf(template, "agent-%s-%.8s", agent, hash) < 0)
        return err_set(e, STATUS_FAILED, "out of memory");
    json_t *have = backend.template_load(*template, NULL);
    int rc = 0, lock = -1;
    if (!have) {
        /* One installs it, who comes meanwhile waits for that. */
        char *path = path_in(PATH_CACHE, e, "%s", *template);
        lock = path ? jsonfile_lock(path, e) : -1;
        free(path);
        rc = lock < 0 ? -1 : 0;
        have = rc == 0 ? backend.template_load(*template, NULL) : NULL;
    }
    if (rc == 0 && !have) {
        struct sigaction old[3];
        sweep_installs(*template);
        sandbox_hold_signals(true, old);
        rc = install_agent(kit, *template, e);
        sandbox_hold_signals(false, old);
    }
    if (lock >= 0)
        close(lock);
    json_decref(have);
    if (rc < 0) {
        err_wrap(e, "%s could not be installed", agent);
        free(*template);
        *template = NULL;
    }
    return rc;
}
