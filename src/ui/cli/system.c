/* image, template, config, doctor, login, version. */
#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/ca.h"
#include "core/config.h"
#include "core/confine.h"
#include "core/decisions.h"
#include "core/mirrors.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/proxyurl.h"
#include "core/record.h"
#include "core/rule.h"
#include "core/spawn.h"
#include "core/state.h"
#include "ui/cli/backend.h"
#include "ui/cli/policy.h"
#include "ui/cli/sandbox.h"
#include "ui/cli/secret.h"
#include "ui/dash/theme.h"

static void image_progress(double fraction, const char *text, void *arg)
{
    (void)arg;
    progress_show(fraction, text);
}

int cmd_image_build(const struct args *a, struct err *e)
{
    if (args_has(a, "if-missing") && backend.image_exists())
        return 0;
    int rc = backend.image_build(image_progress, NULL, e);
    progress_done();
    return rc;
}

int cmd_image_ls(const struct args *a, struct err *e)
{
    static const char *const headers[] = {"IMAGE", "KERNEL", "MADE", "SIZE"};
    json_t *list = backend.image_list(e), *o;
    size_t i;
    if (!list)
        return -1;
    if (args_has(a, "json")) {
        out_json(list);
    } else {
        struct table *t = table_new(4, headers);
        json_array_foreach(list, i, o) {
            const char *cells[] = {json_string_value(json_object_get(o, "id")), json_string_value(json_object_get(o, "kernel")),
                                   human_ago(json_integer_value(json_object_get(o, "created"))),
                                   human_bytes(json_integer_value(json_object_get(o, "bytes")))};
            table_row(t, cells);
        }
        table_print(t, "No base image yet. It is made when it is first needed; to make it now: sbx image build");
    }
    json_decref(list);
    return 0;
}

int cmd_image_pack(const struct args *a, struct err *e)
{
    return backend.image_pack(a->nwords ? a->words[0] : NULL, e);
}

int cmd_image_seed(const struct args *a, struct err *e)
{
    (void)a;
    return backend.seed_make(e);
}

int cmd_image_rm(const struct args *a, struct err *e)
{
    for (int i = 0; i < a->nwords; i++)
        if (backend.image_remove(a->words[i], e) < 0)
            return -1;
    return 0;
}

/* A disk that others start from holds no secret of this host (threat 75). */
static int check_disk(const char *name, struct err *e)
{
    char service[64] = "";
    char *disk = path_sandbox(name, "disk", e);
    if (disk && access(disk, F_OK) != 0) {
        free(disk); /* it was never started, and is told so */
        return 0;
    }
    struct secretstore *store = disk ? secretstore_open(secret_passphrase, NULL, e) : NULL;
    int rc = store ? backend.disk_holds(disk, store, service, sizeof service, e) : -1;
    if (rc > 0)
        rc = err_set(e, STATUS_FAILED, "the secret %s stands on the disk of %s, in a file or in one that was deleted: give it a new value "
                     "(sbx secret rotate), and remove what holds it. With --force it is saved as it is", service, name);
    else if (disk && !store && e && e->text[0]) {
        struct err why = *e;
        err_set(e, why.status, "%.300s, so the disk cannot be looked through for secrets. With --force it is saved unseen", why.text);
    }
    secretstore_free(store);
    free(disk);
    return rc;
}

int cmd_template_save(const struct args *a, struct err *e)
{
    const char *name = a->words[0], *to = a->words[1];
    struct sandbox_status st;
    struct record r;
    if (record_load(&r, name, e) < 0)
        return -1;
    int rc = backend.template_check_name(to, e);
    bool was_running = sandbox_running(name);
    if (rc == 0 && sandbox_state(name, &st, e) == 0) {
        if (was_running)
            out_notice("%s is stopped for the copy, and started again after it", name);
        rc = was_running ? sandbox_stop(name, 20, e) : 0;
        int lock = rc == 0 ? state_lock(name, e) : -1;
        if (rc == 0)
            rc = lock < 0 ? -1 : 0;
        if (rc == 0 && !args_has(a, "force"))
            rc = check_disk(name, e);
        if (rc == 0) {
            json_t *note = json_pack("{s:s, s:s}", "agent", r.agent, "sandbox", name);
            rc = backend.template_save(name, to, note, e);
            json_decref(note);
        }
        if (lock >= 0)
            close(lock);
        struct err why = {0};
        if (was_running && sandbox_start(name, &why) < 0 && rc == 0) {
            if (e)
                *e = why;
            rc = -1;
        }
    }
    record_finish(&r);
    return rc;
}

int cmd_template_ls(const struct args *a, struct err *e)
{
    static const char *const headers[] = {"TEMPLATE", "SIZE", "USED BY"};
    json_t *list = backend.template_list(e), *o;
    size_t i, k;
    if (!list)
        return -1;
    if (args_has(a, "json")) {
        out_json(list);
    } else {
        struct table *t = table_new(3, headers);
        json_array_foreach(list, i, o) {
            char users[256] = "";
            json_t *u;
            json_array_foreach(json_object_get(o, "used_by"), k, u)
                if (strlen(users) < 200)
                    snprintf(users + strlen(users), sizeof users - strlen(users), "%s%s", k ? ", " : "", json_string_value(u));
            const char *cells[] = {json_string_value(json_object_get(o, "name")),
                                   human_bytes(json_integer_value(json_object_get(o, "size_kib")) * 1024), users[0] ? users : "-"};
            table_row(t, cells);
        }
        table_print(t, "No templates yet. Keep the disk of a sandbox as one with: sbx template save SANDBOX NAME");
    }
    json_decref(list);
    return 0;
}

int cmd_template_rm(const struct args *a, struct err *e)
{
    for (int i = 0; i < a->nwords; i++)
        if (backend.template_remove(a->words[i], e) < 0)
            return -1;
    return 0;
}

/* ---- settings ---- */

static void print_value(const json_t *v)
{
    char *text = json_is_string(v) ? NULL : json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);
    puts(text ? text : json_string_value(v));
    free(text);
}

int cmd_config_get(const struct args *a, struct err *e)
{
    if (!config_find(a->words[0]))
        return err_set(e, STATUS_USAGE, "there is no setting \"%s\"; sbx config ls lists them", a->words[0]);
    json_t *all = config_load(e);
    if (!all)
        return -1;
    print_value(config_value(all, a->words[0]));
    json_decref(all);
    return 0;
}

/* "10.0.0.5:443", "[::1]:8443", "name:443". */
static bool is_place(const char *text)
{
    const char *colon = strrchr(text, ':');
    size_t n = colon ? strspn(colon + 1, "0123456789") : 0;
    long port = n && n <= 5 && !colon[1 + n] ? strtol(colon + 1, NULL, 10) : 0;
    size_t host = colon ? (size_t)(colon - text) : 0;
    bool bracketed = host > 2 && text[0] == '[' && text[host - 1] == ']';
    return port >= 1 && port <= 65535 && host > 0 && (bracketed || !memchr(text, ':', host));
}

static bool one_of(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = words; *p; p += strspn(p, " ")) {
        size_t k = strcspn(p, " ");
        if (k == n && strncmp(p, word, n) == 0)
            return true;
        p += k;
    }
    return false;
}

/* What would be of no use is told to who sets it: who reads it can only say so in a log. */
static int check_meaning(const char *name, const json_t *v, struct err *e)
{
    const bool outside = strcmp(name, "net.outside") == 0, except = strcmp(name, "net.proxy_except") == 0;
    const char *from, *word = json_string_value(v);
    if (strcmp(name, "attach.prefix") == 0 && (strncmp(word, "ctrl-", 5) != 0 || !word[5] || word[6] || !strchr("abcdefghklnopqrstuvwxyz@\\]^_", word[5])))
        return err_set(e, STATUS_USAGE, "%s: \"%.100s\" is no key for it; write ctrl- and a letter (but i, j or m), or one of @\\]^_, like ctrl-a", name, word);
    if (strcmp(name, "ui.theme") == 0 && strcmp(word, "auto") != 0) {
        char all[400];
        theme_names(all, sizeof all);
        if (!one_of(all, word))
            return err_set(e, STATUS_USAGE, "%s: there is no theme \"%.100s\"; there are: auto %s", name, word, all);
    }
    size_t i;
    json_t *item;
    json_array_foreach(v, i, item) {
        const char *text = json_string_value(item);
        struct rule r = {0};
        if (outside && (rule_parse(&r, text, NULL) < 0 || r.kind != RULE_RANGE))
            return err_set(e, STATUS_USAGE, "%s: \"%.100s\" is no address range; write one like 10.1.0.0/16", name, text);
        if (except && rule_parse(&r, text, e) < 0)
            return err_wrap(e, "%s", name);
        if (strcmp(name, "net.ca") == 0 && (text[0] != '/' || access(text, R_OK) < 0))
            return err_set(e, STATUS_USAGE, "%s: %.200s cannot be read; give the whole path of a file with certificates (PEM)", name, text);
    }
    if (strcmp(name, "net.map") == 0)
        json_object_foreach((json_t *)v, from, item)
            if (!is_place(json_string_value(item)))
                return err_set(e, STATUS_USAGE, "%s: \"%.100s\" is no place to dial; write HOST[:PORT]=ADDRESS:PORT, like api.example.com:443=127.0.0.1:8443",
                               name, json_string_value(item));
    return 0;
}

int config_cli_check(const char *name, const char *text, struct err *e)
{
    json_t *v = config_parse(name, text, e);
    int rc = v ? check_meaning(name, v, e) : -1;
    json_decref(v);
    return rc;
}

int cmd_config_set(const struct args *a, struct err *e)
{
    return config_cli_check(a->words[0], a->words[1], e) < 0 ? -1 : config_set(a->words[0], a->words[1], e);
}

int cmd_config_unset(const struct args *a, struct err *e)
{
    return config_set(a->words[0], NULL, e);
}

int cmd_config_ls(const struct args *a, struct err *e)
{
    static const char *const headers[] = {"SETTING", "VALUE", "MEANING"};
    json_t *all = config_load(e);
    if (!all)
        return -1;
    if (args_has(a, "json")) {
        out_json(all);
    } else {
        struct table *t = table_new(3, headers);
        for (const struct config_key *k = config_keys(); k->name; k++) {
            char *text = json_dumps(config_value(all, k->name), JSON_COMPACT | JSON_ENCODE_ANY);
            const char *cells[] = {k->name, text, k->help};
            table_row(t, cells);
            free(text);
        }
        table_print(t, "No settings.");
    }
    json_decref(all);
    return 0;
}

/* ---- doctor ---- */

struct doctor {
    json_t *list;
    bool json;
    int failed;
};

enum finding { FINE, WARN, BROKEN };

static void found(struct doctor *d, enum finding f, const char *what, const char *why, const char *remedy)
{
    static const char *const words[] = {"ok", "warning", "broken"};
    static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
    bool colour = out_colour(1);
    if (f == BROKEN)
        d->failed++;
    if (d->json) {
        json_array_append_new(d->list, json_pack("{s:s, s:s, s:s, s:s}", "check", what, "result", words[f], "detail", why, "remedy", remedy));
        return;
    }
    printf("%s%-8s%s %s%s%s\n", colour ? colours[f] : "", words[f], colour ? "\033[m" : "", what, why[0] ? ": " : "", why);
    if (f != FINE && remedy[0])
        printf("         %s\n", remedy);
}

static bool have_program(const char *name)
{
    const char *path = getenv("PATH");
    char *copy = strdup(path ? path : "/usr/bin:/bin:/usr/sbin:/sbin"), *save = NULL, full[512];
    bool ok = false;
    for (char *d = copy ? strtok_r(copy, ":", &save) : NULL; d && !ok; d = strtok_r(NULL, ":", &save)) {
        snprintf(full, sizeof full, "%s/%s", d, name);
        ok = access(full, X_OK) == 0;
    }
    snprintf(full, sizeof full, "/usr/sbin/%s", name);
    free(copy);
    return ok || access(full, X_OK) == 0;
}

static bool setting_is(const char *path, const char *value)
{
    char text[32] = "";
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    return n > 0 && strcmp(text, value) == 0;
}

/* A child makes one, and uses what it should give it. */
static bool user_namespaces_work(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        char map[64];
        int n = snprintf(map, sizeof map, "0 %u 1", (unsigned)geteuid());
        int fd = unshare(CLONE_NEWUSER | CLONE_NEWUTS) == 0 ? open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC) : -1;
        _exit(fd >= 0 && write(fd, map, (size_t)n) == n && sethostname("trial", 5) == 0 ? 0 : 1);
    }
    return pid > 0 && spawn_wait(pid) == 0;
}

/* Image builds of an ordinary user need all of these, and each process of a sandbox is confined better with the first. */
static void doctor_namespaces(struct doctor *d)
{
    bool works = user_namespaces_work(), root = geteuid() == 0;
    const char *remedy = setting_is("/proc/sys/user/max_user_namespaces", "0")                       ? "sudo sysctl user.max_user_namespaces=15000"
                         : setting_is("/proc/sys/kernel/unprivileged_userns_clone", "0")             ? "sudo sysctl kernel.unprivileged_userns_clone=1"
                         : setting_is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") ? "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
                                                                                                     : "";
    found(d, works ? FINE : WARN, "user namespaces", works ? "work" : root ? "this host forbids them: machines are confined without them"
          : "this host forbids them: machines are confined without them, and base images can be built by root alone", remedy);
    if (root)
        return;
    struct passwd *me = getpwuid(geteuid());
    const char *user = me ? me->pw_name : "";
    char line[256], number[32], remedy_ids[160];
    bool ids[2] = {false, false};
    static const char *const files[] = {"/etc/subuid", "/etc/subgid"};
    snprintf(number, sizeof number, "%u", (unsigned)geteuid());
    for (size_t i = 0; i < 2; i++) {
        FILE *f = fopen(files[i], "re");
        while (f && fgets(line, sizeof line, f)) {
            size_t n = strcspn(line, ":");
            line[n] = '\0';
            ids[i] |= n > 0 && (strcmp(line, user) == 0 || strcmp(line, number) == 0);
        }
        if (f)
            fclose(f);
    }
    bool given = ids[0] && ids[1], helper = have_program("newuidmap");
    snprintf(remedy_ids, sizeof remedy_ids, given ? "sudo apt-get install uidmap" :
             "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %.60s", user[0] ? user : "$USER");
    found(d, given && helper ? FINE : WARN, "subordinate ids (to build images without root)",
          !given ? "this user has none in /etc/subuid and /etc/subgid" : helper ? "given" : "newuidmap, which gives them, is not installed", remedy_ids);
}

/* Rules and logs of single sandboxes: only what is wrong is told. */
static void doctor_sandboxes(struct doctor *d)
{
    char **names, what[120], text[700];
    int n = record_list(&names, NULL);
    for (int i = 0; i < n; i++) {
        struct policy *p = policy_load(names[i]);
        char *lost = path_sandbox(names[i], "log.db.lost", NULL), *wal = path_sandbox(names[i], "log.db.lost-wal", NULL);
        if (p && policy_error(p)) {
            snprintf(what, sizeof what, "network policy of %.80s", names[i]);
            snprintf(text, sizeof text, "everything is denied to it: %s", policy_error(p));
            found(d, BROKEN, what, text, "mend the file, or start afresh with sbx policy reset and its name");
        }
        if (lost && wal && (access(lost, F_OK) == 0 || access(wal, F_OK) == 0)) {
            snprintf(what, sizeof what, "network log of %.80s", names[i]);
            snprintf(text, sizeof text, "it was touched, and begun anew; what was left of it is kept in %.500s*", lost);
            found(d, WARN, what, text, "look at them and at the log's rows of the kind log, then remove them");
        }
        struct err why = {0};
        char *log = path_sandbox(names[i], "log.db", NULL);
        if (log && decisions_look(log, state_logged(names[i]), &why) < 0) {
            snprintf(what, sizeof what, "network log of %.80s", names[i]);
            found(d, WARN, what, why.text, "its next start says so in the log and goes on; what a backup holds of it can be laid beside it");
        }
        free(log);
        free(lost);
        free(wal);
        policy_free(p);
    }
    if (n >= 0)
        record_list_free(names, n);
}

/* Credentials, and the key that connections are looked into with. */
static void doctor_store(struct doctor *d)
{
    struct err why = {0};
    struct secretstore *s = secretstore_open(NULL, NULL, &why);
    if (!s)
        found(d, WARN, "secret store", why.text, "meanwhile no credential is written into requests, and connections that have to be looked into fail");
    else
        found(d, FINE, "secret store", secretstore_exists(s) ? secretstore_lock_text(secretstore_lock_kind(s)) : "nothing is in it yet", "");
    if (s && ca_check(&why) < 0)
        found(d, WARN, "certificate authority of the sandboxes", why.text, "meanwhile connections that have to be looked into fail");
    secretstore_free(s);
}

int cmd_doctor(const struct args *a, struct err *e)
{
    struct doctor d = {.list = json_array(), .json = args_has(a, "json")};
    char text[1100];
    struct err why = {0};
    static const char *const programs[][2] = {{"qemu-system-x86_64", "qemu-system-x86"}, {"qemu-img", "qemu-utils"},
                                              {"mkfs.ext4", "e2fsprogs"},                {"mkfs.erofs", "erofs-utils"},
                                              {"mmdebstrap", "mmdebstrap"}};
    (void)e;
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        char remedy[120];
        snprintf(remedy, sizeof remedy, "sudo apt-get install %s", programs[i][1]);
        bool ok = have_program(programs[i][0]);
        found(&d, ok ? FINE : BROKEN, programs[i][0], ok ? "installed" : "is not installed", remedy);
    }
    bool kvm = backend.kvm_works(text, sizeof text);
    found(&d, kvm ? FINE : WARN, "hardware virtualisation (KVM)",
          kvm ? "works" : text, kvm ? "" : "meanwhile machines are emulated: slow, and no security boundary by QEMU's own word");
    int abi = confine_landlock_abi();
    snprintf(text, sizeof text, abi ? "version %d" : "this kernel has none", abi);
    found(&d, abi >= 3 ? FINE : WARN, "Landlock", text, "a kernel of 6.2 or later confines the helpers better");
    found(&d, confine_has_seccomp() ? FINE : BROKEN, "seccomp", confine_has_seccomp() ? "works" : "this kernel has none", "");
    bool limited = backend.limits_available(text, sizeof text);
    found(&d, limited ? FINE : WARN, "limits of whole sandboxes (cgroup v2)", text,
          "sandboxes run without limit.cpu, limit.memory, limit.pids and limit.io; under systemd: sudo systemctl edit user@.service, "
          "with [Service] Delegate=cpu memory pids io");
    json_t *images = backend.image_list(&why);
    found(&d, json_array_size(images) ? FINE : WARN, "base image", json_array_size(images) ? "built" : "not built yet",
          "sbx image build (it is also built by itself when first needed)");
    json_decref(images);
    doctor_namespaces(&d);
    char *data = path_in(PATH_DATA, &why, "%s", "");
    struct statvfs vfs;
    if (data && statvfs(data, &vfs) == 0) {
        long long room = (long long)vfs.f_bavail * (long long)vfs.f_frsize;
        snprintf(text, sizeof text, "%s free in %s", human_bytes(room), data);
        found(&d, room > 5ll << 30 ? FINE : room > 1ll << 30 ? WARN : BROKEN, "disk space", text, "sbx prune, sbx image rm, or a larger disk");
    }
    free(data);
    json_t *config = config_load(&why);
    found(&d, config ? FINE : BROKEN, "settings", config ? "readable" : why.text, "mend the file, or take the setting away");
    if (config) {
        json_t *outside = config_value(config, "net.outside"), *map = config_value(config, "net.map");
        char *o = json_dumps(outside, JSON_COMPACT), *m = json_dumps(map, JSON_COMPACT);
        if (json_array_size(outside)) {
            snprintf(text, sizeof text, "%.500s count as outside although they are not global", o);
            found(&d, FINE, "net.outside", text, "");
        }
        if (json_object_size(map)) {
            snprintf(text, sizeof text, "%.500s", m);
            found(&d, FINE, "net.map dials elsewhere", text, "");
        }
        const char *proxy = json_string_value(config_value(config, "net.proxy"));
        struct proxy_url url;
        if (proxy && proxy[0] && proxy_url_parse(proxy, &url, NULL) == 0) {
            bool names = json_is_true(config_value(config, "net.proxy_names"));
            snprintf(text, sizeof text, "%s:%u is asked for %s", url.host, url.port,
                     names ? "names; what does not resolve here is judged there alone" : "the addresses that were checked");
            found(&d, names ? WARN : FINE, "net.proxy", text, "sbx config unset net.proxy_names, if the proxy takes addresses");
            explicit_bzero(&url, sizeof url);
        }
        free(o);
        free(m);
    }
    json_decref(config);
    doctor_store(&d);
    struct policy *p = policy_load(NULL);
    const char *error = p ? policy_error(p) : "out of memory";
    if (!error)
        doctor_sandboxes(&d);
    found(&d, error ? BROKEN : FINE, "network policy", error ? error : posture_name(policy_posture(p) ? policy_posture(p) : POSTURE_BALANCED),
          error ? "everything is denied until it can be read; sbx policy reset starts afresh" : "");
    policy_free(p);
    json_t *files = mirrors_files("trixie", &why), *f;
    size_t i, cas = 0;
    json_array_foreach(files, i, f)
        cas += strstr(json_string_value(json_object_get(f, "path")), "/usr/local/share/ca-certificates/") != NULL;
    snprintf(text, sizeof text, "%zu of this host's own are passed on to machines", cas);
    found(&d, FINE, "certificate authorities", text, "");
    json_decref(files);
    if (d.json)
        out_json(d.list);
    json_decref(d.list);
    return d.failed ? STATUS_FAILED : 0;
}

/* ---- first set-up ---- */

int cmd_login(const struct args *a, struct err *e)
{
    const char *chosen = args_value(a, "posture");
    enum posture p = POSTURE_UNSET;
    printf("sbx needs no account: everything stays on this machine.\n");
    fflush(stdout);
    if (chosen && (p = posture_parse(chosen)) == POSTURE_UNSET)
        return err_set(e, STATUS_USAGE, "\"%s\" is no posture; there are open, balanced and locked-down", chosen);
    if (p == POSTURE_UNSET && isatty(0) && isatty(2) && (p = policy_cli_choose()) == POSTURE_UNSET)
        return err_set(e, STATUS_FAILED, "nothing was chosen");
    if (p == POSTURE_UNSET)
        p = POSTURE_BALANCED;
    if (policy_set_posture(NULL, p, e) < 0)
        return -1;
    printf("posture: %s (sbx policy set-default changes it)\n\n", posture_name(p));
    fflush(stdout);
    struct err why = {0};
    if (!args_has(a, "json") && cmd_secret_import(a, &why) < 0)
        out_error(why.text); /* the rest of the set-up does not depend on it */
    printf("\n");
    return cmd_doctor(a, e);
}

int cmd_version(const struct args *a, struct err *e)
{
    (void)e;
    if (args_has(a, "json")) {
        json_t *o = json_pack("{s:s}", "version", SBX_VERSION);
        out_json(o);
        json_decref(o);
    } else {
        printf("sbx %s\n", SBX_VERSION);
    }
    return 0;
}
