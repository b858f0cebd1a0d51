#include "ui/cli/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/decisions.h"
#include "core/obeyed.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/sanitize.h"
#include "core/state.h"
#include "ui/cli/backend.h"
#include "ui/cli/branch.h"
#include "ui/cli/secret.h"
#include "ui/client.h"

#define CHANGED_SHOWN 20
#define STOP_STEP_MS 20
#define STOP_ASK_MS 5000
#define STOP_LOOK_MS 1000 /* no look takes longer, and none that asks than the other */
#define STOP_ASKING_LOOK_MS 10000
#define STOP_UNHEARD_S 15 /* who does not even hear of it in this time, and what the guest is given, hangs */

int sandbox_start(const char *name, struct err *e)
{
    int rc = sandbox_up(name, e);
    return rc == 1 ? branch_finish(name, e) : rc;
}

/* Commands hold the same lock, and are not to be killed. */
static bool is_supervisor(pid_t pid, const char *name)
{
    char path[64], text[64 + RECORD_NAME_MAX];
    snprintf(path, sizeof path, "/proc/%ld/cmdline", (long)pid);
    FILE *f = pid > 0 ? fopen(path, "re") : NULL;
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    static const char start[] = "sbx\0supervise";
    return n > sizeof start && memcmp(text, start, sizeof start) == 0 && strcmp(text + sizeof start, name) == 0;
}

int sandbox_stop(const char *name, int timeout_s, struct err *e)
{
    struct sandbox_status st;
    struct client c;
    if (sandbox_state(name, &st, e) < 0)
        return -1;
    if (st.life == LIFE_STOPPED || st.life == LIFE_FAILED || st.pid == 0)
        return 0;
    /* The lock tells when it is over.  Who is just starting may not listen yet. */
    bool told = false;
    int limit_s = timeout_s + STOP_UNHEARD_S;
    int64_t waited_ms = 0, last = clock_ms(), now;
    while (waited_ms < limit_s * INT64_C(1000)) {
        struct err why = {0};
        if (!told && client_open(&c, name, &why) == 0) {
            json_t *r = client_request(&c, "stop", json_pack("{s:i}", "timeout_s", timeout_s), STOP_ASK_MS, &why);
            told = r != NULL;
            json_decref(r);
            client_close(&c);
        }
        if (sandbox_state(name, &st, NULL) < 0 || st.life == LIFE_STOPPED || st.life == LIFE_FAILED)
            return 0;
        if (told || st.life == LIFE_STOPPING)
            limit_s = timeout_s + STOP_MOST_S;
        usleep(STOP_STEP_MS * 1000);
        /* A host that stood still for a minute gave the supervisor none of it. */
        now = clock_ms();
        const int64_t most = told ? STOP_LOOK_MS : STOP_ASKING_LOOK_MS;
        waited_ms += now - last < most ? now - last : most;
        last = now;
    }
    /* It hangs.  What it started ends with it. */
    if (is_supervisor(st.pid, name) && kill(st.pid, SIGKILL) == 0)
        for (int i = 0; i < 250; i++) {
            if (sandbox_state(name, &st, NULL) < 0 || st.pid == 0)
                return 0;
            usleep(STOP_STEP_MS * 1000);
        }
    return err_set(e, STATUS_TIMEOUT, "%s did not stop within %d seconds", name, limit_s);
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
    char *dir = path_sandbox(name, NULL, e), *gone = NULL, *sock = path_socket(name, NULL);
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
    /* A supervisor that was killed left its sockets. */
    char *frozen = rc == 0 ? path_in(PATH_RUNTIME, NULL, "%s.tmpl", name) : NULL;
    if (sock && rc == 0)
        unlink(sock);
    if (frozen)
        unlink(frozen);
    free(sock);
    free(frozen);
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

/* What is wrong with the rules, or with the log, of one that does not run; NULL: nothing.  Where it runs its broker tells. */
static json_t *network_trouble(const char *name)
{
    struct err why = {0};
    char text[sizeof why.text + 40] = "";
    const char *scopes[] = {name, NULL};
    char *log = path_sandbox(name, "log.db", NULL);
    if (log && decisions_look(log, state_logged(name), &why) < 0)
        snprintf(text, sizeof text, "network log: %s", why.text);
    free(log);
    for (int i = 0; i < 2; i++) {
        json_t *rules = policy_export(scopes[i], &why);
        if (!rules)
            snprintf(text, sizeof text, "everything is denied to it: %s", why.text);
        json_decref(rules);
    }
    return text[0] ? json_string(text) : NULL;
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
    /* Values of variables may be keys: their names are enough. */
    json_t *names = json_array(), *v;
    const char *key;
    json_object_foreach(json_object_get(o, "env"), key, v)
        json_array_append_new(names, json_string(key));
    json_object_set_new(o, "env", names);
    sandbox_state(name, &st, NULL);
    json_object_set_new(o, "state", json_string(life_name(st.life)));
    json_object_set_new(o, "reason", json_string(st.reason));
    bool open = st.life == LIFE_RUNNING && client_open(&c, name, &why) == 0;
    if (open) {
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
    if (why.status == STATUS_TIMEOUT)
        json_object_set_new(o, "reason", json_string("it does not answer"));
    if (!st.pid)
        json_object_set_new(o, "network_trouble", network_trouble(name));
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

/* Is `path` `dir`, or in it? */
static bool within(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* A sandbox that reads or writes what sbx keeps for itself (rules, secrets, the disks of others) is none. */
static int check_own(const char *real, struct err *e)
{
    char own[PATH_MAX], home[PATH_MAX];
    static const enum path_root roots[] = {PATH_CONFIG, PATH_DATA, PATH_CACHE, PATH_RUNTIME};
    const char *h = getenv("HOME");
    if (h && realpath(h, home) && within(home, real))
        return err_set(e, STATUS_USAGE, "%s cannot be shared: your whole home folder %s, and the keys in it, would be; choose a project folder", real, home);
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        char *path = path_in(roots[i], NULL, "%s", "");
        bool bad = path && realpath(path, own) && (within(real, own) || within(own, real));
        free(path);
        if (bad)
            return err_set(e, STATUS_USAGE, "%s cannot be shared: sbx keeps its own state in %s, and with it the rules and secrets; choose another folder", real, own);
    }
    return 0;
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
        return err_set(e, STATUS_USAGE, path[0] ? "the folder %s does not exist" : "a folder's name must not be empty%s", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, STATUS_USAGE, "%s is not a folder", path);
    static const char *const refused[] = {"/", "/proc", "/sys", "/dev", "/run", "/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/boot", "/home", "/root", "/var", "/tmp"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (strcmp(real, refused[i]) == 0)
            return err_set(e, STATUS_USAGE, "%s as a whole cannot be shared with a sandbox; choose a folder in it", real);
    if (check_own(real, e) < 0)
        return -1;
    for (unsigned i = 0; i < r->nfolders; i++)
        if (strcmp(r->folders[i].path, real) == 0)
            return err_set(e, STATUS_USAGE, "the folder %s was given twice", real);
    return record_add_folder(r, real, ro, e);
}
