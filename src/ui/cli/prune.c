/* sbx rename, sbx prune. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/paths.h"
#include "core/secretstore.h"
#include "core/state.h"
#include "ui/cli/backend.h"
#include "ui/cli/branch.h"
#include "ui/cli/sandbox.h"
#include "ui/cli/secret.h"

/* Secrets of one sandbox follow its name. */
static int rename_secrets(const char *from, const char *to, struct err *e)
{
    struct secretstore *s = secretstore_open(NULL, NULL, NULL);
    bool any = false;
    for (size_t i = 0; s && i < secretstore_count(s); i++)
        any |= strcmp(secretstore_at(s, i)->scope, from) == 0;
    secretstore_free(s);
    if (!any)
        return 0;
    s = secretstore_begin(secret_passphrase, NULL, e);
    int rc = s ? 0 : -1;
    for (size_t i = 0, n = s ? secretstore_count(s) : 0; rc == 0 && i < n; i++) {
        struct secret r = *secretstore_at(s, 0);
        char *service = strdup(r.service);
        bool ours = strcmp(r.scope, from) == 0;
        if (ours)
            r.scope = to;
        rc = service ? secretstore_put(s, &r, e) : -1;
        if (ours && rc == 0)
            secretstore_remove(s, service, from);
        free(service);
    }
    if (rc == 0)
        rc = secretstore_save(s, e);
    secretstore_free(s);
    return rc;
}

int cmd_rename(const struct args *a, struct err *e)
{
    const char *from = a->words[0], *to = a->words[1];
    struct sandbox_status st;
    struct record r;
    if (strcmp(from, to) == 0)
        return err_set(e, STATUS_USAGE, "%s has that name already; give another one", from);
    if (record_check_name(from, e) < 0 || record_check_name(to, e) < 0 || sandbox_state(from, &st, e) < 0 || record_load(&r, from, e) < 0)
        return -1;
    char *old = path_sandbox(from, NULL, e), *fresh = path_sandbox(to, NULL, e);
    int rc = -1, lock = -1;
    if (st.life != LIFE_STOPPED && st.life != LIFE_FAILED)
        err_set(e, STATUS_FAILED, "%s is running; stop it to rename it (sbx stop %s)", from, from);
    else if (old && fresh && (lock = state_lock(from, e)) >= 0) {
        if (access(fresh, F_OK) == 0)
            err_set(e, STATUS_USAGE, "there is already a sandbox named %s", to);
        else if (rename_secrets(from, to, e) == 0) {
            if (rename(old, fresh) < 0)
                err_errno(e, errno, "cannot rename %s", from);
            else {
                snprintf(r.name, sizeof r.name, "%s", to);
                rc = record_save(&r, e);
            }
        }
    }
    if (lock >= 0)
        close(lock);
    free(old);
    free(fresh);
    record_finish(&r);
    return rc;
}

/* "until=168h". */
static int read_filter(const char *text, long long *seconds, struct err *e)
{
    char *end;
    long long n;
    if (strncmp(text, "until=", 6) != 0)
        return err_set(e, STATUS_USAGE, "\"%s\" is no filter; write --filter until=168h", text);
    n = strtoll(text + 6, &end, 10);
    long long unit = *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : *end == 'd' ? 86400 : 0;
    if (end == text + 6 || n < 0 || !unit || end[1])
        return err_set(e, STATUS_USAGE, "\"%s\" is no time; write until=30m, until=168h or until=7d", text + 6);
    if (n > 3660LL * 86400 / unit)
        return err_set(e, STATUS_USAGE, "\"%s\" is longer than ten years", text + 6);
    *seconds = n * unit;
    return 0;
}

/* Named for the process that makes or removes it. */
static bool left_over(const char *name)
{
    const char *mark = strstr(name, ".removed-"), *made = strstr(name, ".new-");
    long pid = mark ? atol(mark + 9) : made ? atol(made + 5) : 0;
    return pid > 0 && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* What a creation or a removal that was killed left behind. */
static void sweep(bool dry)
{
    char *dir = path_in(PATH_DATA, NULL, "sandboxes");
    DIR *d = dir ? opendir(dir) : NULL;
    struct dirent *ent;
    while (d && (ent = readdir(d)))
        if (ent->d_name[0] == '.' && left_over(ent->d_name) && !dry) {
            char path[4096];
            if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, ent->d_name) < sizeof path)
                path_remove_tree(path, NULL);
        }
    if (d)
        closedir(d);
    free(dir);
    if (!dry)
        backend.template_sweep();
}

int cmd_prune(const struct args *a, struct err *e)
{
    const char *filter = args_value(a, "filter");
    bool dry = args_has(a, "dry-run"), json = args_has(a, "json");
    long long age = 0;
    char **names, question[120];
    if (filter && read_filter(filter, &age, e) < 0)
        return -1;
    int n = record_list(&names, e), failed = 0;
    if (n < 0)
        return -1;
    const char **old = calloc((size_t)n + 1, sizeof *old);
    size_t count = 0;
    for (int i = 0; old && i < n; i++) {
        struct sandbox_status st;
        struct record r;
        if (sandbox_state(names[i], &st, NULL) < 0 || (st.life != LIFE_STOPPED && st.life != LIFE_FAILED))
            continue;
        int64_t when = st.when;
        if (!when && record_load(&r, names[i], NULL) == 0) {
            when = r.created;
            record_finish(&r);
        }
        if (time(NULL) - when < age)
            continue;
        /* What only lies in a sandbox's own clone is not removed by the dozen. */
        if (branch_is_clone(names[i]))
            out_notice("%s is kept: it works on a clone of its own; fetch its work (git fetch sbx-%s), then: sbx rm --force %s", names[i], names[i], names[i]);
        else
            old[count++] = names[i];
    }
    json_t *gone = json_array();
    int rc = 0;
    snprintf(question, sizeof question, "Remove %zu stopped sandbox%s? The workspaces' files stay.", count, count == 1 ? "" : "es");
    if (count && !dry && !args_has(a, "force") && (!isatty(0) || !isatty(2)))
        rc = err_set(e, STATUS_USAGE, "%zu sandbox%s would be removed; without a terminal to ask on, add --force (or --dry-run to see which)", count,
                     count == 1 ? "" : "es");
    else if (count && !dry && !args_has(a, "force") && !ask_yes(question))
        rc = err_set(e, STATUS_FAILED, "nothing was removed");
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct err why = {0};
        if (!dry && sandbox_remove(old[i], false, &why) < 0) {
            out_error(why.text);
            failed = STATUS_FAILED;
            continue;
        }
        json_array_append_new(gone, json_string(old[i]));
        if (!json)
            printf("%s%s\n", dry ? "would remove " : "", old[i]);
    }
    if (rc == 0)
        sweep(dry);
    if (rc == 0 && json)
        out_json(gone);
    else if (rc == 0 && count == 0)
        fprintf(stderr, "Nothing to remove.\n");
    json_decref(gone);
    free(old);
    record_list_free(names, n);
    return rc < 0 ? -1 : failed;
}
