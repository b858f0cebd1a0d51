/* The form for a new sandbox, and starting what is not there yet. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config.h"
#include "core/kit.h"
#include "core/record.h"
#include "ui/dash/app_int.h"
#include "ui/dash/form.h"
#include "ui/dash/model.h"
#include "ui/dash/task.h"

struct starting {
    struct app *app;
    void (*then)(struct app *a, const char *box, const char *out);
};

static void progress(double fraction, const char *text, void *arg)
{
    struct starting *s = arg;
    app_progress(s->app, fraction, text);
}

static void done(const struct task_end *end, void *arg)
{
    struct starting *s = arg;
    char name[RECORD_NAME_MAX + 1];
    app_progress(s->app, -1, NULL);
    model_refresh(app_model(s->app));
    snprintf(name, sizeof name, "%.*s", (int)(end->out ? strcspn(end->out, "\n") : 0), end->out ? end->out : "");
    if (end->status != 0)
        app_say(s->app, SAY_ERROR, "%s", end->error[0] ? end->error : "it could not be started");
    else {
        app_say(s->app, SAY_GOOD, "%s runs", name);
        if (s->then)
            s->then(s->app, name, end->out);
    }
    free(s);
}

static const struct task_ops ops = {.progress = progress, .done = done};

void app_start_agent(struct app *a, const char *const *argv, void (*then)(struct app *a, const char *box, const char *out))
{
    struct starting *s = calloc(1, sizeof *s);
    struct err e = {0};
    if (!s)
        return;
    s->app = a;
    s->then = then;
    if (!task_run(a, argv, NULL, 0, &ops, s, &e)) {
        app_say(a, SAY_ERROR, "%s", e.text);
        free(s);
        return;
    }
    app_progress(a, -1, "starting; what is missing is made first");
}

bool app_check_new_name(const char *value, char *why, size_t cap)
{
    struct err e = {0};
    struct record r;
    if (record_check_name(value, &e) < 0) {
        snprintf(why, cap, "%s", e.text);
        return false;
    }
    record_init(&r);
    int rc = record_load(&r, value, &e);
    record_finish(&r);
    if (rc == 0 || e.status != STATUS_NOT_FOUND) {
        snprintf(why, cap, "there is already a sandbox of that name");
        return false;
    }
    return true;
}

static void expand(const char *path, char *out, size_t cap)
{
    const char *home = getenv("HOME");
    if (path[0] == '~' && (path[1] == '/' || !path[1]) && home)
        snprintf(out, cap, "%s%s", home, path + 1);
    else
        snprintf(out, cap, "%s", path);
}

static bool check_folder(const char *value, char *why, size_t cap)
{
    char path[PATH_MAX];
    struct stat st;
    expand(value, path, sizeof path);
    size_t n = strlen(path);
    if (n > 3 && strcmp(path + n - 3, ":ro") == 0)
        path[n - 3] = '\0';
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    snprintf(why, cap, "there is no such folder");
    return false;
}

static bool check_number(const char *value, char *why, size_t cap)
{
    char *end;
    long n = strtol(value, &end, 10);
    if (*end == '\0' && n >= 1 && n <= 64)
        return true;
    snprintf(why, cap, "a number from 1 to 64");
    return false;
}

static bool check_size(const char *value, char *why, size_t cap)
{
    char *end;
    double n = strtod(value, &end);
    if (end != value && n > 0 && (*end == '\0' || ((*end == 'G' || *end == 'M' || *end == 'g' || *end == 'm') && !end[1])))
        return true;
    snprintf(why, cap, "a size, like 4G or 2048 (MiB)");
    return false;
}

static void opened(struct app *a, const char *box, const char *out)
{
    (void)out;
    app_select_box(a, box);
    app_open_session(a, model_find(app_model(a), box), 0);
}

enum { F_AGENT, F_FOLDER, F_MORE, F_NAME, F_BRANCH, F_CPUS, F_MEMORY, F_POSTURE, FIELDS };

static bool submit(struct app *a, const char *const *v, char *why, size_t cap, void *arg)
{
    static char folder[PATH_MAX], more[8][PATH_MAX];
    const char *argv[40];
    size_t n = 0, extra = 0;
    (void)arg;
    argv[n++] = "run";
    argv[n++] = "--detach";
    if (v[F_NAME][0]) {
        argv[n++] = "--name";
        argv[n++] = v[F_NAME];
    }
    if (v[F_BRANCH][0]) {
        argv[n++] = "--branch";
        argv[n++] = v[F_BRANCH];
    }
    argv[n++] = "--cpus";
    argv[n++] = v[F_CPUS];
    argv[n++] = "--memory";
    argv[n++] = v[F_MEMORY];
    if (strcmp(v[F_POSTURE], "as everywhere") != 0) {
        argv[n++] = "--posture";
        argv[n++] = v[F_POSTURE];
    }
    argv[n++] = v[F_AGENT];
    expand(v[F_FOLDER], folder, sizeof folder);
    argv[n++] = folder;
    if (!v[F_FOLDER][0]) {
        snprintf(why, cap, "which folder shall it work in?");
        return false;
    }
    char *copy = strdup(v[F_MORE]), *save = NULL;
    for (char *p = copy ? strtok_r(copy, " ", &save) : NULL; p && extra < 8; p = strtok_r(NULL, " ", &save)) {
        expand(p, more[extra], sizeof more[0]);
        argv[n++] = more[extra++];
    }
    free(copy);
    argv[n] = NULL;
    app_start_agent(a, argv, opened);
    return true;
}

void app_show_create(struct app *a)
{
    static char agents[400], cpus[16], memory[24], here[PATH_MAX];
    json_t *kits = kit_list(), *k;
    size_t i;
    agents[0] = '\0';
    /* The one that was used last comes first. */
    struct box *b = app_box(a);
    const char *first = b ? b->agent : "claude";
    snprintf(agents, sizeof agents, "%s", first);
    json_array_foreach(kits, i, k)
        if (strcmp(json_string_value(k), first) != 0)
            snprintf(agents + strlen(agents), sizeof agents - strlen(agents), "|%s", json_string_value(k));
    json_decref(kits);
    if (!getcwd(here, sizeof here))
        here[0] = '\0';
    snprintf(cpus, sizeof cpus, "%lld", (long long)config_int("vm.cpus", NULL));
    snprintf(memory, sizeof memory, "%lld", (long long)config_int("vm.memory", NULL));
    const struct form_spec spec[FIELDS] = {
        [F_AGENT] = {.label = "Agent", .kind = FORM_CHOICE, .choices = agents, .hint = "left and right choose"},
        [F_FOLDER] = {.label = "Folder", .kind = FORM_PATH, .initial = here, .hint = "the workspace: live in both directions; Tab completes", .check = check_folder},
        [F_MORE] = {.label = "More folders", .kind = FORM_TEXT, .hint = "separated by blanks; PATH:ro is read-only"},
        [F_NAME] = {.label = "Name", .kind = FORM_TEXT, .hint = "empty: from agent and folder", .check = app_check_new_name},
        [F_BRANCH] = {.label = "Branch", .kind = FORM_TEXT, .hint = "empty: the folder itself; else a worktree of its own"},
        [F_CPUS] = {.label = "Processors", .kind = FORM_TEXT, .initial = cpus, .check = check_number},
        [F_MEMORY] = {.label = "Memory", .kind = FORM_TEXT, .initial = memory, .hint = "MiB, or like 4G", .check = check_size},
        [F_POSTURE] = {.label = "Network", .kind = FORM_CHOICE, .choices = "as everywhere|balanced|locked-down|open"},
    };
    app_push(a, form_new("New sandbox", spec, FIELDS, "Start", submit, NULL, NULL));
}
