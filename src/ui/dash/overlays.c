/* Help, messages, the welcome. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/kit.h"
#include "ui/cli/backend.h"
#include "ui/dash/app_int.h"
#include "ui/dash/paint.h"
#include "ui/dash/task.h"
#include "ui/dash/text.h"
#include "ui/dash/model.h"

/* ---- help: what is in force, from the table that is in force ---- */

static void section(FILE *f, const struct app *a, const char *context, const char *heading)
{
    const struct binding *b;
    if (!keymap_at(a->keys, context, 0))
        return;
    fprintf(f, "\001%s\n", heading);
    for (unsigned i = 0; (b = keymap_at(a->keys, context, i)); i++) {
        const struct binding *o;
        char key[24];
        bool told = false;
        unsigned len = 0;
        /* A row of actions that differ by their number only (term.1 ... term.9) is one line. */
        while ((o = keymap_at(a->keys, context, i + len)) && strncmp(o->action, "term.", 5) == 0 && o->action[5] == (char)('1' + len) && !o->action[6])
            len++;
        if (len > 1) {
            char first[24];
            input_key_name(b->key, b->mods, first, sizeof first);
            o = keymap_at(a->keys, context, i + len - 1);
            input_key_name(o->key, o->mods, key, sizeof key);
            fprintf(f, "\002%s ... %s\tsession by number or place\n", first, key);
            i += len - 1;
            continue;
        }
        for (unsigned j = 0; j < i && (o = keymap_at(a->keys, context, j)); j++)
            told |= strcmp(o->action, b->action) == 0;
        if (told)
            continue;
        /* All keys of the action in one line. */
        fputc('\002', f);
        for (unsigned j = i, n = 0; (o = keymap_at(a->keys, context, j)) && n < 3; j++)
            if (strcmp(o->action, b->action) == 0) {
                input_key_name(o->key, o->mods, key, sizeof key);
                fprintf(f, "%s%s", n++ ? " " : "", key);
            }
        fprintf(f, "\t%s\n", b->note);
    }
    if (strcmp(context, "prefix") == 0) {
        char key[24];
        input_key_name(a->prefix_key, a->prefix_mods, key, sizeof key);
        fprintf(f, "\002%s\tthe key itself\n", key);
    }
    fputc('\n', f);
}

void app_show_help(struct app *a)
{
    char *text = NULL, prefix[24], heading[120];
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    struct pane *p = app_focused(a);
    const char *own = !p ? "" : p->class->context ? p->class->context(p) : p->class->name;
    if (!f)
        return;
    input_key_name(a->prefix_key, a->prefix_mods, prefix, sizeof prefix);
    snprintf(heading, sizeof heading, "In a terminal, after %s", prefix);
    static const struct {
        const char *context, *heading;
    } all[] = {{"sandboxes", "Sandboxes"}, {"log", "Network log"}, {"prefix", NULL}, {"copy", "Scrolling and copying in a terminal"},
               {"list", "In every list"}, {"global", "Everywhere (terminals: after the prefix)"}, {"form", "In every form"},
               {"rule", "In the form for a rule from the log"}, {"rules", "Rules"}, {"secrets", "Secrets"}, {"settings", "Settings"},
               {"ask", "When a sandbox asks"}, {"details", "The details of a row of the log"}, {"confirm", "When something can be lost"},
               {"welcome", "Welcome"}, {"overlay", "In a text like this one"}};
    /* What holds here goes first, the most special before all. */
    const char *here[] = {own, p && p->class->list ? "list" : "", !p || !p->class->modal ? "global" : ""};
    bool told[sizeof all / sizeof *all] = {false};
    for (size_t h = 0; h < 4; h++)
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (!told[i] && (h == 3 || strcmp(all[i].context, here[h]) == 0)) {
                section(f, a, all[i].context, all[i].heading ? all[i].heading : heading);
                told[i] = true;
            }
    fprintf(f, "\001Your own keys: ~/.config/sbx/keys\n");
    fclose(f);
    app_push(a, text_new("Keys", text, false));
    free(text);
}

void app_show_messages(struct app *a)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return;
    unsigned n = a->nsaid < SAID_MAX ? a->nsaid : SAID_MAX;
    if (n == 0)
        fprintf(f, "Nothing was said yet.\n");
    for (unsigned i = a->nsaid - n; i < a->nsaid; i++) {
        const struct said *s = &a->said[i % SAID_MAX];
        char when[16];
        strftime(when, sizeof when, "%H:%M:%S", localtime(&s->when));
        fprintf(f, "%s%s  %s\n", s->kind == SAY_ERROR ? "\004" : s->kind == SAY_WARN ? "\003" : "", when, s->text);
    }
    fclose(f);
    a->unread_error = false;
    a->unread = 0;
    a->said_ms = 0;
    app_push(a, text_new("Messages", text, true));
    free(text);
}

/* ---- welcome: the first agent in three keys ---- */

#define WELCOME_TEXT "An agent sees one folder and reaches the hosts that you allow. Keys stay here. Who shall work in this one?"
#define WELCOME_FIRST "The first start builds the system that all of them share and installs the agent: some minutes, once."

#define WELCOME_MAX 32

struct welcome {
    struct pane pane;
    json_t *kits;
    unsigned at;
    int list_y;
    bool image; /* the base image is there */
    bool ready[WELCOME_MAX]; /* nothing needs to be installed for it */
    char here[200];
};

static void welcome_free(struct pane *p)
{
    struct welcome *w = (struct welcome *)p;
    json_decref(w->kits);
    free(w);
}

static void welcome_draw(struct pane *p, WINDOW *win, bool focus)
{
    struct welcome *w = (struct welcome *)p;
    int y = 1;
    size_t i;
    json_t *k;
    (void)focus;
    paint_centre(win, y++, p->cols, ST_ACCENT, app_glyph("▣  sbx", "sbx"));
    paint_centre(win, y, p->cols, ST_DIM, "coding agents at full speed, each in a machine of its own");
    y += 2;
    y += paint_wrap(win, y, 4, p->cols - 8, 4, ST_TEXT, WELCOME_TEXT);
    paint_text(win, y, 4, p->cols - 8, ST_STRONG, w->here);
    y += 2;
    json_array_foreach(w->kits, i, k) {
        json_t *kit = kit_load(json_string_value(k), NULL);
        const char *title = json_string_value(json_object_get(kit, "title"));
        bool on = i == w->at;
        if (i == 0)
            w->list_y = y;
        paint_f(win, y, 2, p->cols - 4, on ? ST_SELECTED : ST_TEXT, "%s %zu  %-10s %s", on ? app_glyph("▸", ">") : " ", i + 1,
                json_string_value(k), title ? title : "");
        if (i < WELCOME_MAX && !w->ready[i] && p->cols >= 60)
            paint_right(win, y, p->cols - 3, 24, ST_DIM, "is installed first");
        if (on)
            paint_row(win, y, 2, p->cols - 4, ST_SELECTED);
        y++;
        json_decref(kit);
    }
    y++;
    if (!w->image)
        paint_wrap(win, y, 4, p->cols - 8, 3, ST_DIM, WELCOME_FIRST);
}

static void started(struct app *a, const char *box, const char *out)
{
    (void)out;
    app_select_box(a, box);
    app_open_session(a, model_find(app_model(a), box), 0);
}

static void run_here(struct app *a, const char *agent)
{
    const char *argv[] = {"run", "--detach", agent, ".", NULL};
    app_start_agent(a, argv, started);
}

static void choose(struct welcome *w, long at)
{
    long n = (long)json_array_size(w->kits);
    w->at = n ? (unsigned)((at + n) % n) : 0;
    pane_dirty(&w->pane);
}

static bool welcome_key(struct pane *p, const struct input *in)
{
    struct welcome *w = (struct welcome *)p;
    if (in->type == INPUT_KEY && in->key >= '1' && in->key <= '9' && in->key < '1' + json_array_size(w->kits))
        choose(w, (long)in->key - '1');
    return true;
}

static bool welcome_action(struct pane *p, const char *what)
{
    struct welcome *w = (struct welcome *)p;
    struct app *a = p->app;
    if (strcmp(what, "list.up") == 0)
        choose(w, (long)w->at - 1);
    else if (strcmp(what, "list.down") == 0)
        choose(w, (long)w->at + 1);
    else if (strcmp(what, "list.top") == 0)
        choose(w, 0);
    else if (strcmp(what, "list.bottom") == 0)
        choose(w, -1);
    else if (strcmp(what, "welcome.start") == 0 && json_array_size(w->kits)) {
        char agent[64];
        snprintf(agent, sizeof agent, "%.63s", json_string_value(json_array_get(w->kits, w->at)));
        app_pop(a, p);
        run_here(a, agent);
    } else if (strcmp(what, "sandbox.create") == 0) {
        app_pop(a, p);
        app_show_create(a);
    } else
        return false;
    return true;
}

/* A click chooses; on what is chosen it starts. */
static bool welcome_mouse(struct pane *p, const struct input *in)
{
    struct welcome *w = (struct welcome *)p;
    int i = in->y - w->list_y;
    if (in->mouse == MOUSE_WHEEL)
        return welcome_action(p, in->button < 0 ? "list.up" : "list.down");
    if (in->mouse != MOUSE_PRESS || in->button != 1 || i < 0 || i >= (int)json_array_size(w->kits))
        return true;
    if ((unsigned)i == w->at)
        return welcome_action(p, "welcome.start");
    choose(w, i);
    return true;
}

static void welcome_want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    struct welcome *w = (struct welcome *)p;
    (void)max_rows;
    *cols = max_cols < 66 ? max_cols : 66;
    *rows = (int)json_array_size(w->kits) + 7 + paint_wrap(NULL, 0, 0, *cols - 8, 4, ST_TEXT, WELCOME_TEXT) +
            (w->image ? 0 : 1 + paint_wrap(NULL, 0, 0, *cols - 8, 3, ST_DIM, WELCOME_FIRST));
}

static void welcome_title(struct pane *p, char *left, size_t lc, char *right, size_t rc)
{
    (void)p;
    (void)right;
    (void)rc;
    snprintf(left, lc, "Welcome");
}

static const struct pane_class welcome_class = {.name = "welcome", .list = true, .modal = true, .draw = welcome_draw, .key = welcome_key, .action = welcome_action, .mouse = welcome_mouse,
                                                .title = welcome_title, .want = welcome_want, .free = welcome_free};

static bool is_ready(const char *agent)
{
    char hash[17], template[RECORD_NAME_MAX + 32];
    json_t *kit = kit_load(agent, NULL);
    bool ready = json_array_size(json_object_get(kit, "install")) == 0;
    if (kit && !ready) {
        kit_recipe_hash(kit, hash);
        snprintf(template, sizeof template, "agent-%s-%.8s", agent, hash);
        json_t *have = backend.template_load(template, NULL);
        ready = have != NULL;
        json_decref(have);
    }
    json_decref(kit);
    return ready;
}

void app_show_welcome(struct app *a)
{
    struct welcome *w = calloc(1, sizeof *w);
    if (!w)
        return;
    w->pane.class = &welcome_class;
    w->kits = kit_list();
    size_t i;
    json_t *k;
    json_array_foreach(w->kits, i, k) {
        if (strcmp(json_string_value(k), "claude") == 0)
            w->at = (unsigned)i;
        if (i < WELCOME_MAX)
            w->ready[i] = is_ready(json_string_value(k));
    }
    char *here = getcwd(NULL, 0);
    paint_path(here ? here : ".", w->here, sizeof w->here, 58);
    w->image = backend.image_exists();
    free(here);
    app_push(a, &w->pane);
}
