/* The form for a new sandbox, and starting what is not there yet. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/kit.h"
#include "core/paths.h"
#include "core/record.h"
#include "ui/cli/backend.h"
#include "ui/dash/app_int.h"
#include "ui/dash/form.h"
#include "ui/dash/model.h"
#include "ui/dash/task.h"

#define BEGINS "starting; what is missing is made first"

struct starting {
    struct app *app;
    void (*then)(struct app *a, const char *box, const char *out);
};

static void progress(double fraction, const char *text, void *arg)
{
    struct starting *s = arg;
    app_progress(s->app, fraction, text);
}

static void told(struct app *a, const struct task_end *end, bool good, void (*then)(struct app *a, const char *box, const char *out))
{
    char name[RECORD_NAME_MAX + 1];
    app_progress(a, -1, NULL);
    model_refresh(app_model(a));
    snprintf(name, sizeof name, "%.*s", (int)(end->out ? strcspn(end->out, "\n") : 0), end->out ? end->out : "");
    if (!good)
        return;
    app_say(a, SAY_GOOD, "%s runs", name);
    if (then)
        then(a, name, end->out);
}

static void done(const struct task_end *end, void *arg)
{
    struct starting *s = arg;
    told(s->app, end, end->status == 0, s->then);
    if (end->status != 0)
        app_say(s->app, SAY_ERROR, "%s", end->error[0] ? end->error : "it could not be started");
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
    app_progress(a, -1, BEGINS);
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

static bool check_folder(const char *value, char *why, size_t cap)
{
    char path[PATH_MAX];
    struct stat st;
    form_expand(value, path, sizeof path);
    size_t n = strlen(path);
    if (n > 3 && strcmp(path + n - 3, ":ro") == 0)
        path[n - 3] = '\0';
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return true;
    snprintf(why, cap, "there is no such folder");
    return false;
}

#define MORE_MAX 8

static bool check_more(const char *value, char *why, size_t cap)
{
    char path[PATH_MAX];
    unsigned n = 0;
    while (form_next_path(&value, path, sizeof path)) {
        if (++n > MORE_MAX) {
            snprintf(why, cap, "at most %d further folders", MORE_MAX);
            return false;
        }
        if (!check_folder(path, why, cap)) {
            snprintf(why, cap, "there is no folder %.150s", path);
            return false;
        }
    }
    return true;
}

static bool check_number(const char *value, char *why, size_t cap)
{
    long n = strspn(value, "0123456789") == strlen(value) ? strtol(value, NULL, 10) : 0;
    if (n >= 1 && n <= 64)
        return true;
    snprintf(why, cap, "a number from 1 to 64");
    return false;
}

/* What `--memory` takes. */
static bool check_size(const char *value, char *why, size_t cap)
{
    size_t digits = strspn(value, "0123456789.");
    char *end;
    double n = strtod(value, &end);
    bool good = digits && end == value + digits;
    if (good && (*end == 'G' || *end == 'g'))
        n *= 1024;
    end += good && *end && strchr("GgMm", *end) ? 1 : 0;
    if (good && (!*end || strcmp(end, "iB") == 0 || strcmp(end, "B") == 0 || strcmp(end, "b") == 0) && n >= 256 && n <= 8388608)
        return true;
    snprintf(why, cap, "a size of at least 256 MiB, like 2048, 512M or 4G");
    return false;
}

static bool check_branch(const char *value, char *why, size_t cap)
{
    size_t n = strlen(value);
    if (strpbrk(value, " ~^:?*[\\") || strstr(value, "..") || strstr(value, "@{") || value[0] == '-' || value[0] == '/' || value[n - 1] == '/' ||
        value[n - 1] == '.') {
        snprintf(why, cap, "git takes no such name for a branch");
        return false;
    }
    return true;
}

static void opened(struct app *a, const char *box, const char *out)
{
    (void)out;
    app_select_box(a, box);
    app_open_session(a, model_find(app_model(a), box), 0);
}

enum { F_AGENT, F_FOLDER, F_MORE, F_NAME, F_WORKS, F_BRANCH, F_CPUS, F_MEMORY, F_POSTURE, F_TEMPLATE, FIELDS };

#define WORKS_BRANCH "on a branch, in a worktree"
#define WORKS_CLONE "on a clone of its own inside"
#define NO_TEMPLATE "the agent's own disk"

/* What was asked for: if it was made, and failed later, its card says so, and the form has nothing to put right. */
struct wanted {
    char agent[64], folder[PATH_MAX];
    time_t when;
};

static bool not_made(struct app *a, void *arg)
{
    const struct wanted *w = arg;
    for (unsigned i = 0; i < model_count(app_model(a)); i++) {
        const struct box *b = model_at(app_model(a), i);
        if (b->created >= w->when && strcmp(b->agent, w->agent) == 0 && b->folder && strcmp(b->folder, w->folder) == 0)
            return false;
    }
    return true;
}

static void run_ended(struct app *a, const struct task_end *end, bool good, void *arg)
{
    (void)arg;
    told(a, end, good, opened);
}

static enum form_next submit(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    static char folder[PATH_MAX], more[MORE_MAX][PATH_MAX];
    struct wanted *w = arg;
    const char *argv[40];
    size_t n = 0, extra = 0;
    argv[n++] = "run";
    argv[n++] = "--detach";
    if (v[F_NAME][0]) {
        argv[n++] = "--name";
        argv[n++] = v[F_NAME];
    }
    bool branch = strcmp(v[F_WORKS], WORKS_BRANCH) == 0;
    if (branch && !v[F_BRANCH][0]) {
        snprintf(why, cap, "which branch?");
        return FORM_STAYS;
    }
    if (branch) {
        argv[n++] = "--branch";
        argv[n++] = v[F_BRANCH];
    } else if (strcmp(v[F_WORKS], WORKS_CLONE) == 0) {
        argv[n++] = "--clone";
    }
    if (strcmp(v[F_TEMPLATE], NO_TEMPLATE) != 0) {
        argv[n++] = "--template";
        argv[n++] = v[F_TEMPLATE];
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
    form_expand(v[F_FOLDER], folder, sizeof folder);
    argv[n++] = folder;
    if (!v[F_FOLDER][0]) {
        snprintf(why, cap, "which folder shall it work in?");
        return FORM_STAYS;
    }
    const char *rest = v[F_MORE];
    char path[PATH_MAX];
    while (extra < MORE_MAX && form_next_path(&rest, path, sizeof path)) {
        form_expand(path, more[extra], sizeof more[0]);
        argv[n++] = more[extra++];
    }
    argv[n] = NULL;
    w->when = time(NULL);
    snprintf(w->agent, sizeof w->agent, "%s", v[F_AGENT]);
    if (!realpath(folder, w->folder))
        snprintf(w->folder, sizeof w->folder, "%s", folder);
    enum form_next next = form_run(form, &(struct form_run){.argv = argv, .lasts = true, .progress = app_progress, .ended = run_ended, .worth = not_made}, why, cap);
    if (next == FORM_WORKS)
        app_progress(form->app, -1, BEGINS);
    return next;
}

/* The sandbox as it will be, and what it is good to know before. */
static void preview(const char *const *v, char *out, size_t cap, void *arg)
{
    (void)arg;
    if (v[F_BRANCH][0] && strcmp(v[F_WORKS], WORKS_BRANCH) != 0)
        snprintf(out, cap, "The branch counts only with \"" WORKS_BRANCH "\".");
    else if (strcmp(v[F_WORKS], WORKS_CLONE) == 0)
        snprintf(out, cap, "The folder is read-only there; you fetch its commits, and they go with the sandbox.");
    else if (strcmp(v[F_WORKS], WORKS_BRANCH) == 0)
        snprintf(out, cap, "It works in .sbx/%s-worktrees of the repository; your own files stay as they are.", v[F_NAME][0] ? v[F_NAME] : "NAME");
    else if (strcmp(v[F_POSTURE], "open") == 0)
        snprintf(out, cap, "Open: it reaches every host; for throw-away tests.");
    else if (strcmp(v[F_POSTURE], "locked-down") == 0)
        snprintf(out, cap, "Locked down: it reaches nothing until you allow it, its model included.");
}

/* Templates that somebody saved, as choices. */
static void saved_templates(char *out, size_t cap)
{
    struct err e = {0};
    json_t *list = backend.template_list(&e), *o;
    size_t i;
    snprintf(out, cap, NO_TEMPLATE);
    json_array_foreach(list, i, o) {
        const char *name = json_string_value(json_object_get(o, "name"));
        size_t n = strlen(out);
        if (name && strncmp(name, "agent-", 6) != 0 && n + strlen(name) + 2 < cap)
            snprintf(out + n, cap - n, "|%s", name);
    }
    json_decref(list);
}

void app_show_create(struct app *a)
{
    struct pane *back = form_kept("sandbox.create", "");
    if (back) {
        app_push(a, back);
        return;
    }
    static char agents[400], cpus[16], memory[24], here[PATH_MAX], templates[1200];
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
    saved_templates(templates, sizeof templates);
    struct wanted *w = calloc(1, sizeof *w);
    if (!w)
        return;
    const struct form_spec spec[FIELDS] = {
        [F_AGENT] = {.label = "Agent", .kind = FORM_CHOICE, .choices = agents, .hint = "left and right choose"},
        [F_FOLDER] = {.label = "Folder", .kind = FORM_PATH, .initial = here, .hint = "the workspace: live in both directions; Tab completes", .check = check_folder, .folders = true},
        [F_MORE] = {.label = "More folders", .kind = FORM_PATHS, .hint = "PATH or PATH:ro, blanks between; \\ before one in a path", .check = check_more, .folders = true},
        [F_NAME] = {.label = "Name", .kind = FORM_TEXT, .hint = "empty: from agent and folder", .check = app_check_new_name},
        [F_WORKS] = {.label = "It works", .kind = FORM_CHOICE, .choices = "in the folder itself|" WORKS_BRANCH "|" WORKS_CLONE},
        [F_BRANCH] = {.label = "Branch", .kind = FORM_TEXT, .hint = "made if there is none of that name", .check = check_branch},
        [F_CPUS] = {.label = "Processors", .kind = FORM_TEXT, .initial = cpus, .check = check_number},
        [F_MEMORY] = {.label = "Memory", .kind = FORM_TEXT, .initial = memory, .hint = "MiB, or like 4G", .check = check_size},
        [F_POSTURE] = {.label = "Network", .kind = FORM_CHOICE, .choices = "as everywhere|balanced|locked-down|open"},
        [F_TEMPLATE] = {.label = "Starts from", .kind = FORM_CHOICE, .choices = templates},
    };
    struct pane *form = form_new("New sandbox", spec, FIELDS, "Start", submit, w, free);
    form_preview(form, preview);
    form_keep(form, "sandbox.create", "");
    app_push(a, form);
}

/* ---- a copy of a sandbox: its disk becomes a template, from which the new one starts, on the same folders ---- */

struct copying {
    struct app *app; /* of the second command */
    char from[RECORD_NAME_MAX + 1], to[RECORD_NAME_MAX + 1], template[RECORD_NAME_MAX + 8];
};

/* `sbx create` like the one that is copied; the words live in *r and in the buffers. */
struct like {
    struct record r;
    const char *argv[16 + RECORD_FOLDERS_MAX];
    char folders[RECORD_FOLDERS_MAX][PATH_MAX], cpus[16], memory[24];
};

static bool like_it(struct like *l, const struct copying *c, struct err *e)
{
    size_t n = 0;
    if (record_load(&l->r, c->from, e) < 0)
        return false;
    snprintf(l->cpus, sizeof l->cpus, "%u", l->r.cpus);
    snprintf(l->memory, sizeof l->memory, "%u", l->r.memory_mib);
    /* One that never ran has no disk yet: then what it would start from. */
    const char *template = c->template[0] ? c->template : l->r.template && strncmp(l->r.template, "agent-", 6) != 0 ? l->r.template : NULL;
    l->argv[n++] = "create";
    if (template) {
        l->argv[n++] = "--template";
        l->argv[n++] = template;
    }
    for (const char *const *w = (const char *const[]){"--name", c->to, "--cpus", l->cpus, "--memory", l->memory, l->r.agent, NULL}; *w; w++)
        l->argv[n++] = *w;
    for (unsigned i = 0; i < l->r.nfolders; i++) {
        snprintf(l->folders[i], sizeof l->folders[i], "%s%s", l->r.folders[i].path, l->r.folders[i].read_only ? ":ro" : "");
        l->argv[n++] = l->folders[i];
    }
    l->argv[n] = NULL;
    return true;
}

static void copied(struct app *a, const struct task_end *end, bool good, void *arg)
{
    const struct copying *c = arg;
    (void)end;
    app_progress(a, -1, NULL);
    if (!good)
        return;
    model_refresh(app_model(a));
    app_select_box(a, c->to);
    app_say(a, SAY_GOOD, "%s is a copy of %s", c->to, c->from);
}

static void made(const struct task_end *end, void *arg)
{
    struct copying *c = arg;
    copied(c->app, end, end->status == 0, c);
    if (end->status != 0)
        app_say(c->app, SAY_ERROR, "copy %s: %s", c->from, end->error[0] ? end->error : "it failed");
    free(c);
}

static void make_progress(double fraction, const char *text, void *arg)
{
    app_progress(((struct copying *)arg)->app, fraction, text);
}

/* The template is there: now the sandbox. */
static void disk_saved(struct app *a, const struct task_end *end, bool good, void *arg)
{
    static const struct task_ops make_ops = {.progress = make_progress, .done = made};
    struct copying *c = good ? malloc(sizeof *c) : NULL; /* the form's goes with it */
    struct like *l = c ? calloc(1, sizeof *l) : NULL;
    struct err e = {0};
    (void)end;
    app_progress(a, -1, NULL);
    if (l) {
        memcpy(c, arg, sizeof *c);
        c->app = a;
    }
    bool loaded = l && like_it(l, c, &e);
    if (loaded && task_run(a, l->argv, NULL, 0, &make_ops, c, &e)) {
        app_progress(a, 0.9, "the new sandbox is made");
        c = NULL;
    } else if (l) {
        app_say(a, SAY_ERROR, "%s", e.text);
    }
    if (loaded)
        record_finish(&l->r);
    free(l);
    free(c);
}

static enum form_next submit_copy(struct pane *form, const char *const *v, char *why, size_t cap, void *arg)
{
    struct copying *c = arg;
    struct err e = {0};
    if (!v[1][0]) {
        snprintf(why, cap, "which name shall it get?");
        return FORM_STAYS;
    }
    snprintf(c->to, sizeof c->to, "%.*s", RECORD_NAME_MAX, v[1]);
    c->template[0] = '\0';
    char *disk = path_sandbox(c->from, "disk", NULL);
    bool ran = disk && access(disk, F_OK) == 0;
    free(disk);
    if (!ran) {
        struct like *l = calloc(1, sizeof *l);
        enum form_next next = FORM_STAYS;
        if (l && like_it(l, c, &e)) {
            next = form_run(form, &(struct form_run){.argv = l->argv, .lasts = true, .progress = app_progress, .ended = copied}, why, cap);
            record_finish(&l->r);
        } else {
            snprintf(why, cap, "%s", l ? e.text : "out of memory");
        }
        free(l);
        return next;
    }
    snprintf(c->template, sizeof c->template, "%.40s:disk", c->to);
    const char *argv[] = {"template", "save", c->from, c->template, NULL};
    enum form_next next = form_run(form, &(struct form_run){.argv = argv, .lasts = true, .progress = app_progress, .ended = disk_saved}, why, cap);
    if (next == FORM_WORKS)
        app_progress(form->app, -1, "its disk is copied; no secret of this host may stand on it");
    return next;
}

void app_show_copy(struct app *a, struct box *b)
{
    char name[RECORD_NAME_MAX + 8], why[100];
    if (b->life == LIFE_RUNNING) {
        app_say(a, SAY_WARN, "%s runs; stop it to copy it", b->name);
        return;
    }
    struct pane *back = form_kept("sandbox.duplicate", b->name);
    if (back) {
        app_push(a, back);
        return;
    }
    snprintf(name, sizeof name, "%.40s-copy", b->name);
    for (unsigned i = 2; i < 100 && !app_check_new_name(name, why, sizeof why); i++)
        snprintf(name, sizeof name, "%.38s-copy%u", b->name, i);
    const struct form_spec spec[] = {
        {.label = "Its disk with packages, images and files becomes a template; a new sandbox starts from it, with the same agent and "
                  "folders. Sessions and the network log stay behind, secrets and rules of its own, too.", .kind = FORM_NOTE},
        {.label = "Name", .kind = FORM_TEXT, .initial = name, .check = app_check_new_name}};
    struct copying *c = calloc(1, sizeof *c);
    if (!c)
        return;
    snprintf(c->from, sizeof c->from, "%s", b->name);
    struct pane *form = form_new("Copy a sandbox", spec, 2, "Copy", submit_copy, c, free);
    form_keep(form, "sandbox.duplicate", b->name);
    app_push(a, form);
}
