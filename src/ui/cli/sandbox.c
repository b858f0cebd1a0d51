#include "ui/cli/branch.h"
#include "ui/cli/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/kit.h"
#include "core/sanitize.h"
#include "core/obeyed.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/spawn.h"
#include "core/state.h"
#include "ui/cli/backend.h"
#include "ui/cli/secret.h"
#include "ui/client.h"
#include "ui/session.h"

bool sandbox_running(const char *name)
{
    struct sandbox_status st;
    return sandbox_state(name, &st, NULL) == 0 && st.life == LIFE_RUNNING;
}

/* One line of the supervisor's account. 1: it runs, -1: it failed, 0: go on. */
#define CHANGED_SHOWN 20

static int take_line(const char *line, struct err *e)
{
    json_t *o = json_loads(line, 0, NULL);
    const char *op = json_string_value(json_object_get(o, "op"));
    const char *text = json_string_value(json_object_get(o, "text"));
    int rc = 0;
    if (op && strcmp(op, "progress") == 0 && text && isatty(2)) {
        json_t *f = json_object_get(o, "fraction");
        char shown[160];
        snprintf(shown, sizeof shown, "%s ...", text);
        progress_show(json_is_number(f) ? json_number_value(f) : -1, shown);
    } else if (op && strcmp(op, "notice") == 0 && text) {
        out_notice("%s", text);
    } else if (op && strcmp(op, "running") == 0) {
        rc = 1;
    } else if (op && strcmp(op, "failed") == 0) {
        const char *error = json_string_value(json_object_get(o, "error"));
        int status = (int)json_integer_value(json_object_get(o, "status"));
        err_set(e, status ? status : STATUS_FAILED, "%s", error ? error : "the sandbox did not start");
        rc = -1;
    }
    json_decref(o);
    return rc;
}

int sandbox_start(const char *name, struct err *e)
{
    struct record r;
    int pair[2], rc = 0;
    if (record_load(&r, name, e) < 0)
        return -1;
    record_finish(&r);
    if (sandbox_running(name))
        return 0;
    char *self = path_role("supervise", e);
    if (!self || pipe2(pair, O_CLOEXEC) < 0) {
        free(self);
        return err_errno(e, errno, "cannot start %s", name);
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct spawn_fd fds[] = {{null, 0}, {null, 1}, {null, 2}, {pair[1], 3}};
    char *argv[] = {(char *)"sbx", (char *)"supervise", (char *)name, NULL};
    struct spawn s = {.path = self, .argv = argv, .fds = fds, .nfds = 4, .new_session = true, .cwd = "/"};
    pid_t pid = spawn_run(&s, e);
    close(null);
    close(pair[1]);
    free(self);
    if (pid < 0) {
        close(pair[0]);
        return -1;
    }
    FILE *f = fdopen(pair[0], "r");
    char *line = NULL;
    size_t cap = 0;
    while (rc == 0 && f && getline(&line, &cap, f) > 0)
        rc = take_line(line, e);
    progress_done();
    if (rc == 0)
        err_set(e, STATUS_FAILED, "the supervisor of %s ended without a word; see: sbx logs --sbx %s", name, name);
    free(line);
    if (f)
        fclose(f);
    else
        close(pair[0]);
    /* Somebody else may have started it in the same moment. */
    if (rc < 0 && sandbox_running(name))
        rc = 1;
    return rc == 1 ? branch_finish(name, e) : -1;
}

int sandbox_stop(const char *name, int timeout_s, struct err *e)
{
    struct sandbox_status st;
    struct client c;
    if (sandbox_state(name, &st, e) < 0)
        return -1;
    if (st.life == LIFE_STOPPED || st.life == LIFE_FAILED || st.pid == 0)
        return 0;
    struct err why = {0};
    if (client_open(&c, name, &why) == 0) {
        json_t *r = client_request(&c, "stop", json_pack("{s:i}", "timeout_s", timeout_s), 5000, &why);
        json_decref(r);
        client_close(&c);
    }
    /* The lock tells when it is over. */
    for (int i = 0; i < (timeout_s + 15) * 50; i++) {
        if (sandbox_state(name, &st, NULL) == 0 && (st.life == LIFE_STOPPED || st.life == LIFE_FAILED))
            return 0;
        usleep(20000);
    }
    return err_set(e, STATUS_TIMEOUT, "%s did not stop within %d seconds", name, timeout_s + 15);
}

int sandbox_remove(const char *name, bool force, struct err *e)
{
    struct sandbox_status st;
    if (record_check_name(name, e) < 0 || sandbox_state(name, &st, e) < 0)
        return -1;
    struct record r;
    bool alive = st.life != LIFE_STOPPED && st.life != LIFE_FAILED, known = record_load(&r, name, NULL) == 0;
    if (known) {
        if (!alive || force)
            branch_farewell(&r);
        record_finish(&r);
    }
    if (alive && !force)
        return err_set(e, STATUS_FAILED, "%s is running; stop it first (sbx stop %s), or use --force", name, name);
    if (alive && sandbox_stop(name, 5, e) < 0)
        return -1;
    int lock = state_lock(name, e);
    if (lock < 0)
        return -1;
    char *dir = path_sandbox(name, NULL, e), *gone = NULL;
    int rc = -1;
    /* Renamed first: half a sandbox is never listed. */
    if (dir && asprintf(&gone, "%s.removed-%d", dir, (int)getpid()) > 0) {
        char *slash = strrchr(gone, '/');
        char *hidden = NULL;
        *slash = '\0';
        if (asprintf(&hidden, "%s/.%s", gone, slash + 1) > 0)
            rc = rename(dir, hidden) < 0 ? err_errno(e, errno, "cannot remove %s", dir) : path_remove_tree(hidden, e);
        free(hidden);
    }
    free(gone);
    free(dir);
    close(lock);
    if (rc == 0)
        secret_forget_sandbox(name);
    return rc;
}

void sandbox_tell_changed(const char *name)
{
    struct record r;
    json_t *list, *v;
    size_t i;
    if (record_load(&r, name, NULL) < 0)
        return;
    list = obeyed_changed(&r);
    if (json_array_size(list)) {
        out_notice("while %s could write there, files changed that programs of this host run or obey; look at them before you open the folder:", name);
        json_array_foreach(list, i, v) {
            char line[4200];
            const char *text = json_string_value(v);
            if (i == CHANGED_SHOWN) {
                fprintf(stderr, "  ... and %zu more: sbx inspect %s, before the next stop\n", json_array_size(list) - i, name);
                break;
            }
            sanitize_line(line, sizeof line, text, strlen(text));
            fprintf(stderr, "  %s\n", line);
        }
        if (json_array_size(list) <= CHANGED_SHOWN)
            obeyed_told(&r);
    }
    json_decref(list);
    record_finish(&r);
}

json_t *sandbox_describe(const char *name, bool full, struct err *e)
{
    struct record r;
    struct sandbox_status st;
    struct client c;
    struct err why = {0};
    if (record_load(&r, name, e) < 0)
        return NULL;
    json_t *o = record_to_json(&r);
    json_object_del(o, "version");
    json_object_del(o, "files");
    sandbox_state(name, &st, NULL);
    json_object_set_new(o, "state", json_string(life_name(st.life)));
    json_object_set_new(o, "reason", json_string(st.reason));
    if (st.life == LIFE_RUNNING && client_open(&c, name, &why) == 0) {
        json_t *s = client_request(&c, "status", NULL, 3000, &why);
        if (s) {
            json_object_del(s, "op");
            json_object_del(s, "id");
            json_object_del(s, "ok");
            json_object_set_new(o, "machine", s);
            /* It runs, but is not well: paused, for one. */
            const char *reason = json_string_value(json_object_get(s, "reason"));
            if (reason && reason[0])
                json_object_set(o, "reason", json_object_get(s, "reason"));
        }
        client_close(&c);
    }
    if (full)
        json_object_set_new(o, "changed_host_files", obeyed_changed(&r));
    record_finish(&r);
    return o;
}

static void image_progress(double fraction, const char *text, void *arg)
{
    char shown[200];
    (void)arg;
    snprintf(shown, sizeof shown, "base image: %s", text);
    progress_show(fraction, shown);
}

int sandbox_need_image(struct err *e)
{
    if (backend.image_exists())
        return 0;
    out_notice("the base image is built now, once: a Debian system with its own kernel, from this host's mirrors");
    int rc = backend.image_build(image_progress, NULL, e);
    progress_done();
    return rc;
}

int sandbox_folder(struct record *r, const char *text, struct err *e)
{
    char path[PATH_MAX], real[PATH_MAX];
    size_t n = strlen(text);
    bool ro = n > 3 && strcmp(text + n - 3, ":ro") == 0, rw = n > 3 && strcmp(text + n - 3, ":rw") == 0;
    if (n >= sizeof path)
        return err_set(e, STATUS_USAGE, "the path %.60s... is too long", text);
    memcpy(path, text, n + 1);
    if (ro || rw)
        path[n - 3] = '\0';
    struct stat st;
    if (!realpath(path, real) || stat(real, &st) < 0)
        return err_set(e, STATUS_USAGE, "the folder %s does not exist", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, STATUS_USAGE, "%s is not a folder", path);
    static const char *const refused[] = {"/", "/proc", "/sys", "/dev", "/run", "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/home", "/root", "/var", "/tmp"};
    const char *home = getenv("HOME");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(real, refused[i]) == 0)
            return err_set(e, STATUS_USAGE, "%s as a whole cannot be shared with a sandbox; choose a folder in it", real);
    if (home && strcmp(real, home) == 0)
        return err_set(e, STATUS_USAGE, "your whole home folder %s cannot be shared: it holds your keys; choose a project folder in it", real);
    for (unsigned i = 0; i < r->nfolders; i++)
        if (strcmp(r->folders[i].path, real) == 0)
            return err_set(e, STATUS_USAGE, "the folder %s was given twice", real);
    return record_add_folder(r, real, ro, e);
}

/* ---- an agent's template: its recipe runs once in a sandbox of its own, under a policy that allows its registries
 * alone, and the disk is frozen ---- */

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
    const char *registry = getenv("npm_config_registry");
    char host[256];
    if (registry && sscanf(registry, "%*[a-z]://%255[^/:]", host) == 1) {
        memset(&rules[n], 0, sizeof rules[n]);
        if (rule_parse(&rules[n], host, NULL) == 0)
            n++;
    }
    if (policy_set_posture(sandbox, POSTURE_LOCKED, e) < 0)
        return -1;
    return n ? policy_add(sandbox, rules, n, e) : 0;
}

int sandbox_step(const char *sandbox, const char *step, struct err *e)
{
    json_t *argv = json_pack("[s, s, s]", "bash", "-lc", step);
    struct session_request req = {.sandbox = sandbox, .argv = argv, .cwd = "/home/agent", .user = "agent"};
    int status = 0, rc;
    FILE *log = tmpfile();
    /* What the recipe prints is of interest only if it fails. */
    fflush(stdout);
    fflush(stderr);
    int out = dup(1), err2 = dup(2);
    if (log) {
        dup2(fileno(log), 1);
        dup2(fileno(log), 2);
    }
    rc = session_run(&req, &status, NULL, e);
    dup2(out, 1);
    dup2(err2, 2);
    close(out);
    close(err2);
    json_decref(argv);
    if (rc == 0 && status != 0) {
        char line[400], last[400] = "";
        if (log) {
            rewind(log);
            while (fgets(line, sizeof line, log))
                if (line[strspn(line, " \r\n")] && (strstr(line, "rror") || !strstr(last, "rror")))
                    snprintf(last, sizeof last, "%s", line);
        }
        last[strcspn(last, "\r\n")] = '\0';
        rc = err_set(e, STATUS_FAILED, "\"%s\" failed with status %d: %s", step, status, last);
    }
    if (log)
        fclose(log);
    return rc;
}

int sandbox_need_agent(const json_t *kit, char **template, struct err *e)
{
    const char *agent = json_string_value(json_object_get(kit, "name"));
    const json_t *install = json_object_get(kit, "install");
    char hash[17], sandbox[RECORD_NAME_MAX + 1];
    size_t i;
    json_t *step;
    *template = NULL;
    if (json_array_size(install) == 0)
        return 0;
    kit_recipe_hash(kit, hash);
    if (asprintf(template, "agent-%s-%.8s", agent, hash) < 0)
        return err_set(e, STATUS_FAILED, "out of memory");
    json_t *have = backend.template_load(*template, NULL);
    if (have) {
        json_decref(have);
        return 0;
    }
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
    int rc = record_create(&r, e);
    record_finish(&r);
    if (rc == 0)
        rc = build_policy(sandbox, kit, e);
    if (rc == 0)
        rc = sandbox_start(sandbox, e);
    size_t steps = json_array_size(install) + (json_object_get(kit, "check") ? 1 : 0);
    json_array_foreach((json_t *)install, i, step) {
        char shown[200];
        if (rc < 0)
            break;
        snprintf(shown, sizeof shown, "%s: %s", agent, json_string_value(step));
        progress_show((double)i / (double)(steps ? steps : 1), shown);
        rc = sandbox_step(sandbox, json_string_value(step), e);
    }
    if (rc == 0 && json_object_get(kit, "check"))
        rc = sandbox_step(sandbox, json_string_value(json_object_get(kit, "check")), e);
    progress_done();
    struct err ignored = {0};
    if (rc == 0)
        rc = sandbox_stop(sandbox, 20, e);
    if (rc == 0) {
        int lock = state_lock(sandbox, e);
        rc = lock < 0 ? -1 : backend.template_freeze(sandbox, *template, kit, e);
        if (lock >= 0)
            close(lock);
    }
    sandbox_remove(sandbox, true, &ignored);
    if (rc < 0) {
        err_wrap(e, "%s could not be installed", agent);
        free(*template);
        *template = NULL;
    }
    return rc;
}
