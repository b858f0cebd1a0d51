/* Help, messages, the welcome. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/kit.h"
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
            fprintf(f, "\002%s ... %s\tsession by its number, or its place\n", first, key);
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
    fputc('\n', f);
}

void app_show_help(struct app *a)
{
    char *text = NULL, prefix[24], heading[120];
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    struct pane *p = app_focused(a);
    const char *own = p ? p->class->name : "";
    if (!f)
        return;
    input_key_name(a->prefix_key, a->prefix_mods, prefix, sizeof prefix);
    snprintf(heading, sizeof heading, "In a terminal, after %s (%s twice sends it)", prefix, prefix);
    static const struct {
        const char *context, *heading;
    } all[] = {{"sandboxes", "Sandboxes"}, {"log", "Network log"}, {"prefix", NULL}, {"copy", "Scrolling and copying in a terminal"},
               {"list", "In every list"}, {"form", "In every form"}, {"rule", "In the form for a rule from the log"}, {"rules", "Rules"}, {"secrets", "Secrets"}, {"settings", "Settings"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].context, own) == 0)
            section(f, a, all[i].context, all[i].heading ? all[i].heading : heading);
    section(f, a, "global", "Everywhere (in a terminal after the prefix)");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].context, own) != 0)
            section(f, a, all[i].context, all[i].heading ? all[i].heading : heading);
    fprintf(f, "Keys are data: put lines like these into ~/.config/sbx/keys.\n");
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

struct welcome {
    struct pane pane;
    json_t *kits;
    unsigned at;
    int list_y;
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
    paint_centre(win, y++, p->cols, ST_DIM, "coding agents at full speed, each in a machine of its own");
    y++;
    y += paint_wrap(win, y, 3, p->cols - 6, 3, ST_TEXT, "An agent sees one folder and reaches the hosts that you allow. Keys stay here. "
                                                        "Which one shall work in this folder?");
    y++;
    json_array_foreach(w->kits, i, k) {
        json_t *kit = kit_load(json_string_value(k), NULL);
        const char *title = json_string_value(json_object_get(kit, "title"));
        bool on = i == w->at;
        if (i == 0)
            w->list_y = y;
        paint_f(win, y, 5, p->cols - 10, on ? ST_SELECTED : ST_TEXT, " %s %zu  %-10s %s", on ? app_glyph("▸", ">") : " ", i + 1,
                json_string_value(k), title ? title : "");
        if (on)
            paint_row(win, y, 5, p->cols - 10, ST_SELECTED);
        y++;
        json_decref(kit);
    }
    y++;
    paint_centre(win, y, p->cols, ST_DIM, app_glyph("↑↓ choose · Enter start here · c more choices · Esc later", "arrows choose, Enter starts here, c more choices, Esc later"));
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
    struct box *before = app_box(a);
    (void)before;
    app_say(a, SAY_INFO, "starting %s in this folder; the first time its program is installed, which takes a minute or two", agent);
    app_start_agent(a, argv, started);
}

static bool welcome_key(struct pane *p, const struct input *in)
{
    struct welcome *w = (struct welcome *)p;
    size_t n = json_array_size(w->kits);
    struct app *a = p->app;
    if (in->type != INPUT_KEY)
        return true;
    if (in->key == K_DOWN || in->key == 'j' || in->key == K_TAB)
        w->at = (unsigned)((w->at + 1) % n);
    else if (in->key == K_UP || in->key == 'k')
        w->at = (unsigned)((w->at + n - 1) % n);
    else if (in->key >= '1' && in->key < '1' + n)
        w->at = in->key - '1';
    else if (in->key == K_ENTER) {
        char agent[64];
        snprintf(agent, sizeof agent, "%.63s", json_string_value(json_array_get(w->kits, w->at)));
        app_pop(a, p);
        run_here(a, agent);
        return true;
    } else if (in->key == 'c') {
        app_pop(a, p);
        app_show_create(a);
        return true;
    } else if (in->key == K_ESC || in->key == 'q') {
        app_pop(a, p);
        return true;
    }
    pane_dirty(p);
    return true;
}

/* A click chooses; on what is chosen it starts. */
static bool welcome_mouse(struct pane *p, const struct input *in)
{
    struct welcome *w = (struct welcome *)p;
    int i = in->y - w->list_y;
    if (in->mouse == MOUSE_WHEEL)
        return welcome_key(p, &(struct input){.type = INPUT_KEY, .key = in->button < 0 ? K_UP : K_DOWN});
    if (in->mouse != MOUSE_PRESS || in->button != 1 || i < 0 || i >= (int)json_array_size(w->kits))
        return true;
    if ((unsigned)i == w->at)
        return welcome_key(p, &(struct input){.type = INPUT_KEY, .key = K_ENTER});
    w->at = (unsigned)i;
    pane_dirty(p);
    return true;
}

static void welcome_want(struct pane *p, int max_rows, int max_cols, int *rows, int *cols)
{
    struct welcome *w = (struct welcome *)p;
    (void)max_rows;
    *rows = (int)json_array_size(w->kits) + 9;
    *cols = max_cols < 66 ? max_cols : 66;
}

static void welcome_title(struct pane *p, char *left, size_t lc, char *right, size_t rc)
{
    (void)p;
    (void)right;
    (void)rc;
    snprintf(left, lc, "Welcome");
}

static const struct pane_class welcome_class = {.name = "welcome", .modal = true, .draw = welcome_draw, .key = welcome_key, .mouse = welcome_mouse,
                                                .title = welcome_title, .want = welcome_want, .free = welcome_free};

void app_show_welcome(struct app *a)
{
    struct welcome *w = calloc(1, sizeof *w);
    if (!w)
        return;
    w->pane.class = &welcome_class;
    w->kits = kit_list();
    size_t i;
    json_t *k;
    json_array_foreach(w->kits, i, k)
        if (strcmp(json_string_value(k), "claude") == 0)
            w->at = (unsigned)i;
    app_push(a, &w->pane);
}
