/* The `:` line: commands of the dashboard and of sbx, with completion and a history. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wordexp.h>

#include "core/config.h"
#include "core/kit.h"
#include "core/paths.h"
#include "ui/cli/branch.h"
#include "ui/cli/cli.h"
#include "ui/dash/app_int.h"
#include "ui/dash/form.h"
#include "ui/dash/model.h"
#include "ui/dash/paint.h"
#include "ui/dash/task.h"
#include "ui/dash/text.h"
#include "ui/dash/theme.h"

static const struct {
    const char *word, *action, *note;
} words[] = {
    {"help", "app.help", "every key"},      {"quit", "app.quit", "leave the dashboard"}, {"q", "app.quit", "leave"},
    {"rules", "app.rules", "network rules"}, {"secrets", "app.secrets", "secrets"},       {"settings", "app.settings", "settings"},
    {"messages", "app.messages", "messages"}, {"theme", "app.theme", "next theme"},       {"zoom", "app.zoom", "one pane alone"},
    {"new", "sandbox.create", "a new sandbox"},
};
#define WORDS (sizeof words / sizeof *words)

static const struct command *find(const struct command *list, const char *name, size_t len)
{
    for (; list && list->name; list++)
        if (strlen(list->name) == len && memcmp(list->name, name, len) == 0)
            return list;
    return NULL;
}

static bool find_word(const char *word)
{
    for (size_t i = 0; i < WORDS; i++)
        if (strcmp(words[i].word, word) == 0)
            return true;
    return false;
}

void app_line_open(struct app *a)
{
    a->line.on = true;
    a->line.text[0] = a->line.hint[0] = '\0';
    a->line.listing = false;
    a->line.back = 0;
    a->line.at = 0;
    app_redraw(a, false);
}

static void close_line(struct app *a)
{
    a->line.on = false;
    a->line.cut.text[0] = '\0'; /* it may have been a value */
    app_redraw(a, false);
}

/* What would be the help of what stands there. */
static void hint(struct app *a)
{
    const char *t = a->line.text;
    size_t n = strcspn(t, " ");
    a->line.hint[0] = '\0';
    a->line.listing = false;
    const struct command *c = find(cli_commands, t, n), *s = NULL;
    if (c && t[n] == ' ' && c->sub)
        s = find(c->sub, t + n + 1, strcspn(t + n + 1, " "));
    if (s)
        c = s;
    if (c)
        snprintf(a->line.hint, sizeof a->line.hint, "  %s", c->synopsis);
    for (size_t i = 0; i < WORDS && !c; i++)
        if (strlen(words[i].word) == n && memcmp(words[i].word, t, n) == 0)
            snprintf(a->line.hint, sizeof a->line.hint, "  %s", words[i].note);
}

static struct edit typed_line(struct app *a)
{
    return (struct edit){.text = a->line.text, .cap = sizeof a->line.text, .at = a->line.at, .cut = &a->line.cut, .parts = " "};
}

static void insert(struct app *a, const char *p, size_t n)
{
    struct edit e = typed_line(a);
    edit_insert(&e, p, n);
    a->line.at = e.at;
}

struct match {
    const char *begin;
    size_t len, used;
    char common[256], all[400]; /* all: what fits, for the line */
    unsigned n;
};

static void offer(struct match *m, const char *word)
{
    if (strncmp(word, m->begin, m->len) != 0)
        return;
    if (m->used + strlen(word) + 3 < sizeof m->all)
        m->used += (size_t)snprintf(m->all + m->used, sizeof m->all - m->used, "  %s", word);
    if (m->n++ == 0) {
        snprintf(m->common, sizeof m->common, "%s", word);
        return;
    }
    size_t i = 0;
    while (m->common[i] && m->common[i] == word[i])
        i++;
    m->common[i] = '\0';
}

static void offer_kits(struct match *m)
{
    json_t *kits = kit_list(), *k;
    size_t i;
    json_array_foreach(kits, i, k)
        offer(m, json_string_value(k));
    json_decref(kits);
}

static bool is_one_of(const char *t, size_t n, const char *const *list)
{
    for (; *list; list++)
        if (strlen(*list) == n && memcmp(*list, t, n) == 0)
            return true;
    return false;
}

/* What stands before the cursor, as far as only one thing can be meant; several are listed. */
static void complete(struct app *a)
{
    static const char *const kit_words[] = {"run", "create", NULL}, *const other_words[] = {"config", "help", "version", "doctor", NULL};
    char head[sizeof a->line.text];
    snprintf(head, sizeof head, "%.*s", (int)a->line.at, a->line.text);
    char *last = strrchr(head, ' ');
    struct match m = {.begin = last ? last + 1 : head, .len = strlen(last ? last + 1 : head)};
    size_t first = strcspn(head, " ");
    const struct command *c = last ? find(cli_commands, head, first) : NULL;
    if (!last) {
        for (size_t i = 0; i < WORDS; i++)
            offer(&m, words[i].word);
        for (const struct command *k = cli_commands; k->name; k++)
            if (!k->hidden && !find_word(k->name))
                offer(&m, k->name);
    } else if (c && c->sub && last == head + first) {
        for (const struct command *k = c->sub; k->name; k++)
            if (!k->hidden)
                offer(&m, k->name);
    } else if (c && m.begin[0] == '-') {
        char option[64];
        const struct command *k = c->sub ? find(c->sub, head + first + 1, strcspn(head + first + 1, " ")) : c;
        for (const struct option *o = k ? k->options : NULL; o && o->name; o++) {
            snprintf(option, sizeof option, "--%s", o->name);
            offer(&m, option);
        }
    } else if (strncmp(head, "theme ", 6) == 0) {
        char names[300], *save = NULL;
        theme_names(names, sizeof names);
        for (char *n = strtok_r(names, " ", &save); n; n = strtok_r(NULL, " ", &save))
            offer(&m, n);
    } else if (strncmp(head, "config ", 7) == 0) {
        for (const struct config_key *k = config_keys(); k->name; k++)
            offer(&m, k->name);
    } else {
        if (is_one_of(head, first, kit_words))
            offer_kits(&m);
        for (unsigned i = 0; i < model_count(a->model) && !is_one_of(head, first, other_words); i++)
            offer(&m, model_at(a->model, i)->name);
    }
    size_t n = strlen(m.common);
    a->line.hint[0] = '\0';
    if (m.n == 0)
        snprintf(a->line.hint, sizeof a->line.hint, "  nothing begins so");
    else if (m.n > 1)
        snprintf(a->line.hint, sizeof a->line.hint, "%s", m.all);
    a->line.listing = m.n > 1;
    if (m.n && n >= m.len)
        insert(a, m.common + m.len, n - m.len);
    if (m.n == 1)
        insert(a, " ", 1);
    if (m.n == 1)
        hint(a);
}

struct running {
    struct app *app;
    char what[120];
};

static void done(const struct task_end *end, void *arg)
{
    struct running *r = arg;
    app_progress(r->app, -1, NULL);
    if (end->status != 0)
        app_say(r->app, SAY_ERROR, "%s: %s", r->what, end->error[0] ? end->error : "it failed");
    else if (end->out && strchr(end->out, '\n') && strchr(end->out, '\n')[1])
        app_push(r->app, text_new(r->what, end->out, false));
    else if (end->out && strcspn(end->out, "\n"))
        app_say(r->app, SAY_GOOD, "%.*s", (int)strcspn(end->out, "\n"), end->out);
    else
        app_say(r->app, SAY_GOOD, "%s: done", r->what);
    model_refresh(app_model(r->app));
    free(r);
}

static void progress(double fraction, const char *text, void *arg)
{
    app_progress(((struct running *)arg)->app, fraction, text);
}

static const struct task_ops ops = {.progress = progress, .done = done};

static bool has_word(char *const *argv, const char *const *list)
{
    for (; *argv; argv++)
        for (const char *const *l = list; *l; l++)
            if (strcmp(*argv, *l) == 0 || (strncmp(*argv, *l, strlen(*l)) == 0 && (*argv)[strlen(*l)] == '='))
                return true;
    return false;
}

/* Programs that want a terminal get this one: sessions, what asks for a value, what goes on until Ctrl-C. */
static bool wants_terminal(char *const *argv)
{
    static const char *const list[] = {"attach", "exec", "run", "login", NULL}, *const detached[] = {"-d", "--detach", NULL}, *const follow[] = {"-f", "--follow", NULL},
                            *const given[] = {"--password-stdin", "--from-env", "--from-file", "--command", "-t", "--token", NULL};
    if (is_one_of(argv[0], strlen(argv[0]), list))
        return !has_word(argv, detached);
    if (strcmp(argv[0], "secret") == 0 && argv[1])
        return (strcmp(argv[1], "set") == 0 || strcmp(argv[1], "lock") == 0 || strcmp(argv[1], "unlock") == 0) && !has_word(argv, given);
    return (strcmp(argv[0], "logs") == 0 || strcmp(argv[0], "policy") == 0) && has_word(argv, follow);
}

/* A command that asks on a terminal asks here as well, and says what would be lost; false: it needs no asking. */
static bool question(char *const *argv, char *out, size_t cap)
{
    static const char *const sure[] = {"-f", "--force", "--dry-run", NULL};
    size_t used = 0;
    if (has_word(argv, sure))
        return false;
    if (strcmp(argv[0], "policy") == 0 && argv[1] && strcmp(argv[1], "reset") == 0) {
        snprintf(out, cap, "Remove every rule%s%s and go back to the default posture?", argv[2] ? " of " : "", argv[2] ? argv[2] : "");
        return true;
    }
    if (strcmp(argv[0], "prune") == 0) {
        snprintf(out, cap, "Remove stopped sandboxes that are not used any more, with their packages, images and files, and what is left over? \"prune --dry-run\" lists them.");
        return true;
    }
    if (strcmp(argv[0], "rm") != 0 || !argv[1])
        return false;
    used += (size_t)snprintf(out, cap, "Remove");
    for (char *const *w = argv + 1; *w && used < cap; w++)
        used += (size_t)snprintf(out + used, cap - used, "%s %s", w == argv + 1 ? "" : ",", *w);
    if (used < cap)
        used += (size_t)snprintf(out + used, cap - used, "? The machine goes, with the packages, images and files that live in it alone. Folders of this host stay as they are.");
    for (char *const *w = argv + 1; *w && used < cap; w++)
        if (branch_is_clone(*w))
            used += (size_t)snprintf(out + used, cap - used, " %s works on a clone of its own: commits that you have not fetched (git fetch sbx-%s) are LOST.", *w, *w);
    return true;
}

static void run_line(struct app *a, void *arg)
{
    app_command(a, arg);
}

void app_command(struct app *a, const char *typed)
{
    wordexp_t w;
    struct err e = {0};
    char trimmed[600], *line = trimmed;
    snprintf(trimmed, sizeof trimmed, "%s", typed + strspn(typed, " "));
    for (size_t n = strlen(line); n && line[n - 1] == ' '; n--) /* completion leaves one */
        line[n - 1] = '\0';
    if (!*line)
        return;
    for (size_t i = 0; i < WORDS; i++)
        if (strcmp(words[i].word, line) == 0) {
            app_act_anywhere(a, words[i].action);
            return;
        }
    if (strchr(line, '.') && !strchr(line, ' ') && app_act_anywhere(a, line))
        return;
    if (strncmp(line, "theme ", 6) == 0) {
        app_theme(a, line + 6 + strspn(line + 6, " "));
        return;
    }
    if (strncmp(line, "sbx ", 4) == 0)
        line += 4;
    if (wordexp(line, &w, WRDE_NOCMD | WRDE_UNDEF) != 0 || w.we_wordc == 0) {
        app_say(a, SAY_ERROR, "this line cannot be read: %s", line);
        return;
    }
    char asked[900], again[640];
    const struct command *c = find(cli_commands, w.we_wordv[0], strlen(w.we_wordv[0]));
    if (!c) {
        app_say(a, SAY_ERROR, "there is no command \"%s\"; Tab completes, and :help shows the keys", w.we_wordv[0]);
    } else if (c->sub && w.we_wordc == 1) { /* what belongs to it */
        snprintf(again, sizeof again, "help %s", c->name);
        app_command(a, again);
    } else if (question(w.we_wordv, asked, sizeof asked)) {
        snprintf(again, sizeof again, "%s --force", line);
        app_push(a, confirm_new("Sure?", asked, strcmp(c->name, "policy") == 0 ? "Reset" : "Remove", run_line, strdup(again), free));
    } else if (wants_terminal(w.we_wordv)) {
        char *argv[64], *self = path_command(&e);
        size_t n = 0;
        argv[n++] = self;
        for (size_t i = 0; i < w.we_wordc && n < 63; i++)
            argv[n++] = w.we_wordv[i];
        argv[n] = NULL;
        static const char *const own_screen[] = {"-t", "-it", "-ti", "-i", "--tty", "--interactive", NULL};
        bool read_it = strcmp(argv[1], "exec") == 0 && !has_word(w.we_wordv, own_screen);
        int status = self ? app_foreground(a, argv, read_it, &e) : -1;
        if (status < 0)
            app_say(a, SAY_ERROR, "%s", e.text);
        else if (status > 0)
            app_say(a, SAY_WARN, "%s: status %d", line, status);
        free(self);
        model_refresh(app_model(a));
    } else {
        struct running *r = calloc(1, sizeof *r);
        if (r) {
            r->app = a;
            snprintf(r->what, sizeof r->what, "%.119s", line);
            if (!task_run(a, (const char *const *)w.we_wordv, NULL, 0, &ops, r, &e)) {
                app_say(a, SAY_ERROR, "%s", e.text);
                free(r);
            }
        }
    }
    wordfree(&w);
}

void app_line_click(struct app *a, const struct input *in)
{
    int x = a->line.hint_x;
    if (in->y != LINES - 1) {
        close_line(a);
        return;
    }
    for (const char *p = a->line.hint; a->line.listing && *p;) {
        size_t blank = strspn(p, " "), n = strcspn(p + blank, " ");
        char word[256];
        snprintf(word, sizeof word, "%.*s", (int)n, p + blank);
        x += (int)blank;
        if (n && in->x >= x && in->x < x + paint_width(word)) {
            size_t from = a->line.at;
            while (from && a->line.text[from - 1] != ' ')
                from--;
            struct edit e = typed_line(a);
            edit_remove(&e, from, e.at);
            a->line.at = e.at;
            insert(a, word, strlen(word));
            insert(a, " ", 1);
            hint(a);
            app_redraw(a, false);
            return;
        }
        x += paint_width(word);
        p += blank + n;
    }
}

static void recall(struct app *a, int step)
{
    unsigned n = a->line.nhistory < 50 ? a->line.nhistory : 50;
    long back = (long)a->line.back + step;
    if (back < 0 || back > (long)n)
        return;
    a->line.back = (unsigned)back;
    if (back == 0)
        a->line.text[0] = '\0';
    else
        snprintf(a->line.text, sizeof a->line.text, "%s", a->line.history[(a->line.nhistory - (unsigned)back) % 50]);
    a->line.at = strlen(a->line.text);
}

void app_line_input(struct app *a, const struct input *in)
{
    char *t = a->line.text, line[512];
    bool ctrl = (in->mods & MOD_CTRL) != 0;
    struct edit e = typed_line(a);
    if (in->type == INPUT_PASTE) {
        edit_paste(&e, in, true);
    } else if (in->type != INPUT_KEY) {
        return;
    } else if (in->key == K_ENTER) {
        snprintf(line, sizeof line, "%s", t);
        const char *last = a->line.nhistory ? a->line.history[(a->line.nhistory - 1) % 50] : "";
        bool secret = strncmp(t, "secret ", 7) == 0 && strstr(t, " -t"); /* nor is a value brought back by Up */
        if (t[0] && strcmp(t, last) != 0 && !secret)
            snprintf(a->line.history[a->line.nhistory++ % 50], sizeof a->line.history[0], "%s", t);
        close_line(a);
        app_command(a, line);
        return;
    } else if (input_leaves(in) || (in->key == K_BACKSPACE && !t[0])) {
        close_line(a);
        return;
    } else if (in->key == K_TAB) {
        complete(a);
        app_redraw(a, false);
        return;
    } else if (in->key == K_UP || in->key == K_DOWN || (ctrl && (in->key == 'p' || in->key == 'n'))) {
        recall(a, in->key == K_UP || in->key == 'p' ? 1 : -1);
        e.at = a->line.at;
    } else {
        edit_key(&e, in);
    }
    a->line.at = e.at;
    hint(a);
    app_redraw(a, false);
}
