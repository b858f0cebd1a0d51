/* run, create, start, stop, restart, rm, ls, inspect, logs. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/jsonfile.h"
#include "core/kit.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/secretstore.h"
#include "core/sanitize.h"
#include "core/service.h"
#include "core/state.h"
#include "ui/cli/agent.h"
#include "ui/cli/backend.h"
#include "ui/cli/branch.h"
#include "ui/cli/ports.h"
#include "ui/cli/policy.h"
#include "ui/cli/sandbox.h"
#include "ui/session.h"

#define VARIABLES_MAX (256 << 10) /* they go to the guest in one message, with its first files */

/* What is given so lies in the sandbox, for all that runs there, and in its record: a key need not. */
static void warn_of_keys(const json_t *env)
{
    json_t *names = json_object_size(env) ? service_list() : NULL, *name, *form, *var;
    const char *key;
    size_t i, k;
    json_array_foreach(names, i, name) {
        json_t *service = service_load(json_string_value(name), NULL);
        json_object_foreach(json_object_get(service, "forms"), key, form)
            json_array_foreach(json_object_get(form, "env"), k, var)
                if (json_string_length(json_object_get(env, json_string_value(var))) >= SERVICE_VALUE_MIN)
                    out_notice("the value of %s enters the sandbox as it is; sbx secret set -g %s --from-env %s keeps it on this host",
                               json_string_value(var), json_string_value(name), json_string_value(var));
        json_decref(service);
    }
    json_decref(names);
}

/* What a line holds may be a key, or a part of one: the complaint does not repeat it. */
static int read_variable_file(const char *file, json_t *env, struct err *e)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int rc = 0;
    FILE *f = fopen(file, "re");
    if (!f)
        return err_set(e, STATUS_USAGE, "the file %s cannot be read: %s", file, strerror(errno));
    errno = 0;
    for (int number = 1; rc == 0 && (n = getline(&line, &cap, f)) > 0; number++) {
        struct err why = {0};
        char *p = line + (number == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0 ? 3 : 0);
        if (strlen(line) < (size_t)n) {
            rc = err_set(e, STATUS_USAGE, "line %d of %s holds binary data, not a variable", number, file);
            break;
        }
        p += strspn(p, " \t");
        p[strcspn(p, "\r\n")] = '\0';
        p += strncmp(p, "export ", 7) == 0 ? 7 : 0;
        if (*p && *p != '#' && cli_variable(env, p, &why) < 0)
            rc = err_set(e, STATUS_USAGE, "line %d of %s is no variable: write NAME=VALUE, in UTF-8, or a NAME that is set on this host", number, file);
    }
    if (rc == 0 && ferror(f))
        rc = err_set(e, STATUS_USAGE, "the file %s cannot be read: %s", file, strerror(errno));
    fclose(f);
    free(line);
    return rc;
}

static int read_variables(const struct args *a, json_t *env, struct err *e)
{
    const char *file = args_value(a, "env-file"), *v;
    int rc = file ? read_variable_file(file, env, e) : 0;
    for (int i = 0; rc == 0 && (v = args_nth(a, "env", i)); i++)
        rc = cli_variable(env, v, e);
    if (rc == 0 && json_dumpb(env, NULL, 0, JSON_COMPACT) > VARIABLES_MAX)
        rc = err_set(e, STATUS_USAGE, "the variables are too long for a sandbox, which takes %d KiB of them; put long texts into a file of the workspace",
                     VARIABLES_MAX >> 10);
    if (rc == 0)
        warn_of_keys(env);
    return rc;
}

/* MiB from "4096", "4G", "512M". */
static int size_option(const struct args *a, const char *name, long fallback, long min, unsigned *out, struct err *e)
{
    const char *v = args_value(a, name);
    char *end;
    if (!v) {
        *out = (unsigned)fallback;
        return 0;
    }
    size_t digits = strspn(v, "0123456789."); /* no "nan", no "0x10" */
    double n = strtod(v, &end);
    if (end != v + digits)
        end = (char *)(uintptr_t)v;
    if (*end == 'g' || *end == 'G') {
        n *= 1024;
        end++;
    } else if (*end == 'm' || *end == 'M') {
        end++;
    }
    if (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0 || strcmp(end, "b") == 0)
        end += strlen(end);
    if (end == v || *end || n < (double)min || n > 8388608)
        return err_set(e, STATUS_USAGE, "--%s is a size of at least %ld MiB, like 4096, 4G or 512M, not \"%s\"", name, min, v);
    *out = (unsigned)n;
    return 0;
}

/* --limit cpu=150,memory=4096 … into the record; what is not given follows the settings limit.*. */
static int limits(const struct args *a, struct record *r, struct err *e)
{
    json_t *out = json_object();
    const char *given;
    for (int i = 0; (given = args_nth(a, "limit", i)); i++)
        for (const char *p = given; *p;) {
            size_t n = strcspn(p, ","), word = strcspn(p, "=");
            char setting[32], *end = NULL;
            long v = -1, min = 0, max = 0;
            snprintf(setting, sizeof setting, "limit.%.*s", word < 16 ? (int)word : 0, p);
            const struct config_key *k = word < n ? config_find(setting) : NULL;
            if (k && sscanf(k->choices, "%ld..%ld", &min, &max) == 2)
                v = strtol(p + word + 1, &end, 10);
            if (!k || end == p + word + 1 || end != p + n || v < min || v > max) {
                json_decref(out);
                return err_set(e, STATUS_USAGE, "--limit takes cpu, memory, pids or io with a whole number, like cpu=150,memory=4096, not \"%.80s\"", given);
            }
            json_object_set_new(out, setting + strlen("limit."), json_integer(v));
            p += n + (p[n] == ',');
        }
    json_int_t memory = json_integer_value(json_object_get(out, "memory"));
    if (memory && memory < r->memory_mib) {
        json_decref(out);
        return err_set(e, STATUS_USAGE, "--limit memory=%lld is less than the machine's own memory of %u MiB; give --memory as well", (long long)memory, r->memory_mib);
    }
    if (json_object_size(out))
        json_object_set(r->extra, "limits", out);
    json_decref(out);
    return 0;
}

static bool exists(const char *name)
{
    struct record r;
    struct err e = {0};
    int rc = record_load(&r, name, &e);
    if (rc == 0)
        record_finish(&r);
    return rc == 0 || e.status != STATUS_NOT_FOUND;
}

/* The sandbox of this agent on this folder, if there is one: run again is to attach again. */
static bool find_same(const char *agent, const struct record *want, const struct args *a, char out[RECORD_NAME_MAX + 1])
{
    const char *branch = args_value(a, "branch"), *has, *on;
    char **names;
    int n = record_list(&names, NULL);
    bool found = false;
    for (int i = 0; i < n && !found; i++) {
        struct record r;
        if (record_load(&r, names[i], NULL) < 0)
            continue;
        /* A branch's workspace is its worktree: what was asked for is the repository and the branch. */
        has = json_string_value(json_object_get(json_object_get(r.extra, "branch"), "name"));
        on = json_string_value(json_object_get(json_object_get(r.extra, "branch"), "repository"));
        found = strcmp(r.agent, agent) == 0 && r.nfolders > 0 && want->nfolders > 0 && !branch == !has &&
                (!branch || strcmp(branch, has) == 0) && args_has(a, "clone") == (json_object_get(r.extra, "clone") != NULL) &&
                strcmp(on ? on : r.folders[0].path, want->folders[0].path) == 0;
        if (found)
            strcpy(out, names[i]);
        record_finish(&r);
    }
    if (n >= 0)
        record_list_free(names, n);
    return found;
}

static void unique_name(struct record *r, const char *agent)
{
    char base[RECORD_NAME_MAX + 1];
    record_derive_name(base, agent, r->nfolders ? r->folders[0].path : NULL);
    snprintf(r->name, sizeof r->name, "%s", base);
    for (int i = 2; exists(r->name) && i < 1000; i++)
        snprintf(r->name, sizeof r->name, "%.*s-%u", RECORD_NAME_MAX - 4, base, (unsigned)i % 1000u);
}

static int fill(struct record *r, const struct args *a, const json_t *kit, struct err *e)
{
    long cpus;
    if (args_number(a, "cpus", 1, 64, (long)config_int("vm.cpus", NULL), &cpus, e) < 0 ||
        size_option(a, "memory", (long)config_int("vm.memory", NULL), 256, &r->memory_mib, e) < 0 ||
        size_option(a, "disk", (long)config_int("vm.disk", NULL), 1024, &r->disk_mib, e) < 0)
        return -1;
    r->cpus = (unsigned)cpus;
    r->env = json_object();
    r->extra = json_object();
    if (limits(a, r, e) < 0)
        return -1;
    json_t *files = json_array();
    kit_seed(kit, r->nfolders ? r->folders[0].path : NULL, r->env, files);
    json_object_set_new(r->extra, "files", files);
    r->created = time(NULL);
    const char *port;
    r->publish = json_array();
    for (int i = 0; (port = args_nth(a, "publish", i)); i++)
        if (ports_add(r->publish, port, false, e) < 0)
            return -1;
    return read_variables(a, r->env, e);
}

static void say_posture(void)
{
    struct policy *p = policy_load(NULL);
    if (p && policy_posture(p) == POSTURE_UNSET && !policy_error(p)) {
        /* First use: somebody at a terminal chooses; else it is chosen, said, and written down, once. */
        enum posture chosen = policy_cli_choose();
        if (policy_set_posture(NULL, chosen ? chosen : POSTURE_BALANCED, NULL) == 0)
            out_notice(chosen ? "network posture: %s. Another: sbx policy set-default open|balanced|locked-down"
                              : "network posture: %s (AI services, package registries and code hosts; all else is denied). "
                                "Another: sbx policy set-default open|balanced|locked-down",
                       posture_name(chosen ? chosen : POSTURE_BALANCED));
    }
    policy_free(p);
}

/* Takes a name and writes the record; what others create in the same moment has its own name, or is joined. */
static int claim(const struct args *a, const char *agent, struct record *r, bool join, char name[RECORD_NAME_MAX + 1], struct err *e)
{
    const char *wanted = args_value(a, "name"), *branch = args_value(a, "branch");
    char *path = path_in(PATH_DATA, e, "sandboxes");
    int lock = path ? jsonfile_lock(path, e) : -1, rc = -1;
    free(path);
    if (lock < 0)
        return -1;
    if (join && !wanted && find_same(agent, r, a, name)) {
        close(lock);
        return 0;
    }
    if (!wanted)
        unique_name(r, agent);
    if (exists(r->name)) {
        struct record other;
        bool same = join && record_load(&other, r->name, NULL) == 0;
        if (same) {
            same = strcmp(other.agent, agent) == 0;
            record_finish(&other);
        }
        if (same) {
            strcpy(name, r->name);
            rc = 0;
        } else {
            err_set(e, STATUS_USAGE, "there is already a sandbox named %s; choose another with --name", r->name);
        }
    } else if ((!branch || branch_prepare(r, branch, e) == 0) && (!args_has(a, "clone") || clone_prepare(r, e) == 0)) {
        rc = record_create(r, e);
        if (rc == 0)
            strcpy(name, r->name);
    }
    close(lock);
    return rc;
}

/* Creates the sandbox that the command line describes; its name goes to `name`.  join: one that somebody else made
 * meanwhile will do. */
static int create(const struct args *a, const char *agent, struct record *r, bool join, char name[RECORD_NAME_MAX + 1], struct err *e)
{
    const char *wanted = args_value(a, "name"), *template = args_value(a, "template");
    json_t *kit = kit_load(agent, e);
    char *own = NULL;
    const char *wanted_posture = args_value(a, "posture");
    enum posture posture = wanted_posture ? posture_parse(wanted_posture) : POSTURE_UNSET;
    int rc = -1;
    if (wanted_posture && posture == POSTURE_UNSET) {
        err_set(e, STATUS_USAGE, "\"%s\" is no posture; there are open, balanced and locked-down", wanted_posture);
        goto out;
    }
    if (!kit || fill(r, a, kit, e) < 0)
        goto out;
    if (wanted) {
        if (record_check_name(wanted, e) < 0)
            goto out;
        snprintf(r->name, sizeof r->name, "%s", wanted);
        if (exists(wanted)) {
            err_set(e, STATUS_USAGE, "there is already a sandbox named %s; choose another with --name", wanted);
            goto out;
        }
    }
    if (args_value(a, "branch") && args_has(a, "clone")) {
        err_set(e, STATUS_USAGE, "--branch and --clone exclude each other");
        goto out;
    }
    r->agent = strdup(agent);
    if (template) {
        json_t *t = backend.template_load(template, e);
        if (!t)
            goto out;
        json_decref(t);
        r->template = strdup(template);
    }
    say_posture();
    if (sandbox_need_image(e) < 0)
        goto out;
    if (!template && agent_need(kit, &own, e) < 0)
        goto out;
    if (own) {
        r->template = own;
        own = NULL;
    }
    rc = claim(a, agent, r, join, name, e);
    if (rc == 0 && posture && (rc = policy_set_posture(name, posture, e)) < 0)
        sandbox_remove(name, true, NULL);
out:
    free(own);
    json_decref(kit);
    return rc;
}

static int folders(struct record *r, const struct args *a, int first, bool default_here, struct err *e)
{
    for (int i = first; i < a->nwords; i++)
        if (sandbox_folder(r, a->words[i], e) < 0)
            return -1;
    return a->nwords == first && default_here ? sandbox_folder(r, ".", e) : 0;
}

static json_t *agent_command(const char *agent, const struct args *a, struct err *e)
{
    json_t *kit = kit_load(agent, e);
    json_t *argv = kit ? json_deep_copy(json_object_get(kit, "command")) : NULL;
    for (int i = 0; argv && i < a->nrest; i++)
        json_array_append_new(argv, json_string(a->rest[i]));
    json_decref(kit);
    return argv;
}

/* What the agent will need and does not have is said before it starts, with the command that mends it. */
static void say_secrets(const json_t *kit, const struct record *r, const json_t *env)
{
    const json_t *wanted = json_object_get(kit, "secrets");
    size_t i;
    json_t *w;
    struct secretstore *s = json_array_size(wanted) ? secretstore_open(NULL, NULL, NULL) : NULL;
    const char *first = NULL, *variable = NULL;
    bool found = json_array_size(wanted) == 0;
    json_array_foreach((json_t *)wanted, i, w) {
        const char *service = json_string_value(json_object_get(w, "service")), *var = json_string_value(json_object_get(w, "env"));
        if (!service || !var)
            continue;
        found |= (s && secretstore_find(s, service, r->name)) || json_object_get(r->env, var) || json_object_get(env, var);
        if (!first) {
            first = service;
            variable = var;
        }
    }
    secretstore_free(s);
    if (!found && first)
        out_notice("%s has no credential for %s yet; set it with: sbx secret set -g %s (it stays on this host; %s in the sandbox holds a "
                   "sentinel)", json_string_value(json_object_get(kit, "title")), first, first, variable);
}

/* Is a session of the agent there to attach to? */
static bool has_agent_session(const char *name)
{
    json_t *o = sandbox_describe(name, false, NULL), *s;
    size_t i;
    bool found = false;
    json_array_foreach(json_object_get(json_object_get(o, "machine"), "sessions"), i, s)
        found |= json_is_true(json_object_get(s, "agent")) && session_is_live(s);
    json_decref(o);
    return found;
}

/* The sandbox that is meant: by its name, by agent and folder, or a new one. */
static int find_or_make(const struct args *a, const char *agent, const char *wanted, struct record *r, char name[RECORD_NAME_MAX + 1],
                        struct err *e)
{
    int rc = -1;
    if (wanted && exists(wanted)) { /* by name, from anywhere */
        if (record_load(r, wanted, e) < 0)
            return -1;
        if (agent && strcmp(agent, r->agent) != 0)
            err_set(e, STATUS_USAGE, "the sandbox %s runs %s, not %s", wanted, r->agent, agent);
        else
            rc = 0;
        strcpy(name, wanted);
    } else if (!agent) {
        return err_set(e, STATUS_NOT_FOUND, "there is no sandbox named %s; sbx ls lists them", wanted);
    } else {
        json_t *kit = kit_load(agent, e);
        if (kit && folders(r, a, 1, true, e) == 0)
            rc = !wanted && find_same(agent, r, a, name) ? 0 : create(a, agent, r, true, name, e);
        json_decref(kit);
    }
    record_finish(r);
    return rc;
}

static int check_arguments(const struct args *a, struct err *e)
{
    json_t *rest = json_array();
    int rc = 0;
    for (int i = 0; rc == 0 && i < a->nrest; i++)
        if (json_array_append_new(rest, json_string(a->rest[i])) < 0)
            rc = err_set(e, STATUS_USAGE, "argument %d is not text (UTF-8)", i + 1);
    json_decref(rest);
    return rc;
}

int cmd_run(const struct args *a, struct err *e)
{
    char name[RECORD_NAME_MAX + 1] = "";
    const char *wanted = args_value(a, "name"), *agent = a->nwords ? a->words[0] : NULL;
    struct record r;
    int status = 0;
    if (!agent && !wanted)
        return err_set(e, STATUS_USAGE, "which agent? sbx run AGENT [PATH...], for example: sbx run claude");
    for (int i = 0; i < a->nrest; i++) {
        json_t *text = json_string(a->rest[i]);
        if (!text)
            return err_set(e, STATUS_USAGE, "argument %d for the agent is not text (UTF-8)", i + 1);
        json_decref(text);
    }
    json_t *env = json_object(); /* read first: what is wrong with it starts no machine */
    if (read_variables(a, env, e) < 0 || check_arguments(a, e) < 0) {
        json_decref(env);
        return -1;
    }
    record_init(&r);
    if (find_or_make(a, agent, wanted, &r, name, e) < 0) {
        json_decref(env);
        return -1;
    }
    if (sandbox_start(name, e) < 0 || record_load(&r, name, e) < 0) {
        json_decref(env);
        return -1;
    }
    struct session_request req = {.sandbox = name, .agent = true, .env = env, .input = true};
    req.tty = isatty(0) && isatty(1);
    int rc = 0;
    bool detach = args_has(a, "detach"), there = (req.tty || detach) && a->nrest == 0 && has_agent_session(name);
    if (there && detach) {
        out_notice("the agent of %s runs already; sbx run --name %s attaches to it", name, name);
        printf("%s\n", name);
    } else if (there) {
        rc = session_run(&req, &status, NULL, e);
    } else {
        json_t *kit = kit_load(r.agent, NULL);
        const char *prepare = json_string_value(json_object_get(kit, "prepare"));
        say_secrets(kit, &r, env);
        struct err why = {0};
        if (prepare && agent_step(name, prepare, NULL, &why) < 0)
            out_notice("%s", why.text);
        json_decref(kit);
        req.argv = agent_command(r.agent, a, e);
        req.login = strcmp(r.agent, "shell") == 0 && a->nrest == 0;
        if (detach) {
            req.detach = req.tty = true;
            req.input = false;
        }
        rc = req.argv ? session_run(&req, &status, NULL, e) : -1;
        if (rc == 0 && req.detach)
            printf("%s\n", name);
        json_decref(req.argv);
        if (rc == 0 && !req.detach)
            sandbox_tell_changed(name);
    }
    json_decref(env);
    record_finish(&r);
    return rc < 0 ? -1 : status;
}

int cmd_create(const struct args *a, struct err *e)
{
    char name[RECORD_NAME_MAX + 1] = "";
    struct record r;
    record_init(&r);
    int rc = folders(&r, a, 1, false, e);
    if (rc == 0)
        rc = create(a, a->words[0], &r, false, name, e);
    record_finish(&r);
    if (rc == 0)
        printf("%s\n", name);
    return rc;
}

/* ---- one command for several sandboxes ---- */

static int each(const struct args *a, int (*fn)(const char *name, void *arg, struct err *e), void *arg, struct err *e)
{
    char **names = NULL;
    int n = 0, failed = 0;
    if (args_has(a, "all")) {
        n = record_list(&names, e);
        if (n < 0)
            return -1;
    } else if (a->nwords == 0) {
        return err_set(e, STATUS_USAGE, "which sandbox? Give a name, or --all");
    }
    for (int i = 0; i < (names ? n : a->nwords); i++) {
        struct err why = {0};
        if (fn(names ? names[i] : a->words[i], arg, &why) < 0) {
            out_error(why.text);
            failed = why.status ? why.status : STATUS_FAILED;
        }
    }
    if (names)
        record_list_free(names, n);
    return failed;
}

static int start_one(const char *name, void *arg, struct err *e)
{
    (void)arg;
    return sandbox_need_image(e) < 0 ? -1 : sandbox_start(name, e);
}

int cmd_start(const struct args *a, struct err *e)
{
    return each(a, start_one, NULL, e);
}

int cmd_exec(const struct args *a, struct err *e)
{
    return exec_run(a, sandbox_start, e);
}

static int stop_one(const char *name, void *arg, struct err *e)
{
    if (record_check_name(name, e) < 0 || sandbox_stop(name, (int)*(long *)arg, e) < 0)
        return -1;
    sandbox_tell_changed(name);
    return 0;
}

int cmd_stop(const struct args *a, struct err *e)
{
    long timeout;
    return args_number(a, "timeout", 1, 3600, 10, &timeout, e) < 0 ? -1 : each(a, stop_one, &timeout, e);
}

static int restart_one(const char *name, void *arg, struct err *e)
{
    return stop_one(name, arg, e) < 0 ? -1 : start_one(name, NULL, e);
}

int cmd_restart(const struct args *a, struct err *e)
{
    long timeout;
    return args_number(a, "timeout", 1, 3600, 10, &timeout, e) < 0 ? -1 : each(a, restart_one, &timeout, e);
}

static int rm_one(const char *name, void *arg, struct err *e)
{
    bool force = *(bool *)arg;
    char question[300];
    struct sandbox_status st;
    if (record_check_name(name, e) < 0 || sandbox_state(name, &st, e) < 0)
        return -1;
    if (!force && isatty(0) && isatty(2)) {
        snprintf(question, sizeof question,
                 branch_is_clone(name) ? "Remove sandbox %s and the clone that it works on? What was not fetched is lost (git fetch sbx-%s)."
                                       : "Remove sandbox %s, its packages and its images? The workspace's files stay.", name, name);
        if (!ask_yes(question))
            return err_set(e, STATUS_FAILED, "%s was not removed", name);
        force = true;
    } else if (!force && branch_is_clone(name)) {
        return err_set(e, STATUS_FAILED, "%s works on a clone of its own, which goes with it; fetch its work (git fetch sbx-%s), then use --force", name, name);
    }
    if (sandbox_running(name) && force && sandbox_stop(name, 5, e) < 0)
        return -1;
    sandbox_tell_changed(name); /* it is the last that knows */
    return sandbox_remove(name, force, e);
}

int cmd_rm(const struct args *a, struct err *e)
{
    bool force = args_has(a, "force");
    return each(a, rm_one, &force, e);
}

/* ---- looking ---- */

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

int cmd_ls(const struct args *a, struct err *e)
{
    static const char *const headers[] = {"NAME", "AGENT", "STATUS", "PORTS", "WORKSPACE"};
    char **names;
    int n = record_list(&names, e);
    if (n < 0)
        return -1;
    bool json = args_has(a, "json"), quiet = args_has(a, "quiet");
    if (json && quiet)
        return err_set(e, STATUS_USAGE, "choose one of --json and --quiet");
    json_t *all = json_array();
    struct table *t = json || quiet ? NULL : table_new(5, headers);
    for (int i = 0; i < n; i++) {
        struct err why = {0};
        if (quiet) {
            puts(names[i]);
            continue;
        }
        json_t *o = sandbox_describe(names[i], false, &why);
        if (!o) /* named all the same: it can be removed */
            o = json_pack("{s:s, s:s, s:s}", "name", names[i], "state", "damaged", "reason", why.text);
        if (json) {
            json_array_append_new(all, o);
            continue;
        }
        char status[400], workspace[PATH_MAX + 32] = "-", ports[128] = "";
        json_t *m = json_object_get(o, "machine"), *folders_ = json_object_get(o, "folders"), *port;
        const char *reason = text_of(o, "reason"), *state = text_of(o, "state"), *trouble = text_of(o, "network_trouble");
        if (strcmp(state, "stopped") == 0) /* how is no news */
            reason = trouble;
        snprintf(status, sizeof status, "%s%s%s%.300s", state, strcmp(text_of(m, "accel"), "tcg") == 0 ? " (emulated)" : "", reason[0] ? ": " : "", reason);
        size_t nf = json_array_size(folders_), k;
        if (nf > 1 && json_object_get(o, "branch")) /* its second folder is the repository's .git, which nobody gave */
            nf--;
        if (nf)
            snprintf(workspace, sizeof workspace, nf > 1 ? "%s (+%zu)" : "%s", text_of(json_array_get(folders_, 0), "path"), nf - 1);
        json_array_foreach(json_object_get(o, "publish"), k, port)
            snprintf(ports + strlen(ports), sizeof ports - strlen(ports), "%s%lld->%lld", k ? "," : "",
                     (long long)json_integer_value(json_object_get(port, "host")),
                     (long long)json_integer_value(json_object_get(port, "guest")));
        const char *cells[] = {names[i], text_of(o, "agent"), status, ports[0] ? ports : "-", workspace};
        table_row(t, cells);
        json_decref(o);
    }
    if (json)
        out_json(all);
    table_print(t, "No sandboxes yet. Start one in this folder with: sbx run claude");
    json_decref(all);
    record_list_free(names, n);
    return 0;
}

int cmd_inspect(const struct args *a, struct err *e)
{
    json_t *o = sandbox_describe(a->words[0], true, e);
    if (!o)
        return -1;
    out_json(o);
    json_decref(o);
    return 0;
}

int cmd_logs(const struct args *a, struct err *e)
{
    struct record r;
    if (record_load(&r, a->words[0], e) < 0)
        return -1;
    record_finish(&r);
    char *path = path_sandbox(a->words[0], args_has(a, "sbx") ? "sbx.log" : "console.log", e);
    FILE *f = path ? fopen(path, "re") : NULL;
    if (!f) {
        free(path);
        return err_set(e, STATUS_NOT_FOUND, "%s has no log yet; it was never started", a->words[0]);
    }
    char line[4096], safe[32768];
    for (;;) {
        while (fgets(line, sizeof line, f)) {
            size_t n = strcspn(line, "\r\n");
            sanitize_line(safe, sizeof safe, line, n); /* the guest wrote this */
            puts(safe);
        }
        if (!args_has(a, "follow") || fflush(stdout) != 0)
            break;
        clearerr(f);
        usleep(200000);
    }
    fclose(f);
    free(path);
    return 0;
}
