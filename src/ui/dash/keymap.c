#include "ui/dash/keymap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/paths.h"
#include "ui/dash/input.h"

#define BINDINGS_MAX 400

struct keymap {
    struct binding b[BINDINGS_MAX];
    unsigned n;
};

struct keymap *keymap_new(void)
{
    return calloc(1, sizeof(struct keymap));
}

void keymap_free(struct keymap *k)
{
    free(k);
}

static void put(struct keymap *k, const struct binding *b)
{
    for (unsigned i = 0; i < k->n; i++) {
        struct binding *o = &k->b[i];
        if (strcmp(o->context, b->context) == 0 && o->key == b->key && o->mods == b->mods) {
            if (strcmp(b->action, "none") == 0) {
                memmove(o, o + 1, (k->n - i - 1) * sizeof *o);
                k->n--;
            } else {
                *o = *b;
            }
            return;
        }
    }
    if (strcmp(b->action, "none") != 0 && k->n < BINDINGS_MAX)
        k->b[k->n++] = *b;
}

static char *word(char **p)
{
    char *s = *p + strspn(*p, " \t");
    size_t n = strcspn(s, " \t");
    *p = s + n;
    if (**p)
        *(*p)++ = '\0';
    return s;
}

/* A user's line that gives no note keeps the one that the action has already. */
static void inherit_note(const struct keymap *k, struct binding *b)
{
    for (unsigned i = 0; i < k->n; i++)
        if (strcmp(k->b[i].action, b->action) == 0) {
            snprintf(b->note, sizeof b->note, "%s", k->b[i].note);
            b->hint = k->b[i].hint;
            return;
        }
    snprintf(b->note, sizeof b->note, "%s", b->action);
}

/* The first mistake is told, and how many more there are. */
struct mistakes {
    struct err *e;
    const char *file;
    int line, n;
};

static void mistake(struct mistakes *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void mistake(struct mistakes *m, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    if (m->n++ || !m->e)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(m->e, STATUS_USAGE, "%s, line %d: %s", m->file, m->line, text);
}

static bool known(const struct keymap *k, unsigned n, const char *context, const char *action)
{
    for (unsigned i = 0; i < n; i++)
        if ((!context || strcmp(k->b[i].context, context) == 0) && (!action || strcmp(k->b[i].action, action) == 0))
            return true;
    return false;
}

int keymap_parse(struct keymap *k, const char *text, const char *file, struct err *e)
{
    char context[16] = "global";
    struct mistakes m = {.e = e, .file = file};
    struct keymap *ours = k->n ? calloc(1, sizeof *ours) : NULL, *bound = calloc(1, sizeof *bound); /* before; by this file */
    if (ours)
        *ours = *k;
    for (const char *p = text; *p;) {
        char line[256];
        size_t n = strcspn(p, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), p);
        p += n + (p[n] == '\n');
        m.line++;
        line[strcspn(line, "\r")] = '\0';
        char *at = line, *key = word(&at);
        if (!*key || (key[0] == '#' && key[1] == '\0')) /* a comment; the key itself is written "\#" */
            continue;
        if (strcmp(key, "\\#") == 0)
            key++;
        size_t len = strlen(key);
        if (key[0] == '[' && len > 1) {
            snprintf(context, sizeof context, "%.*s", (int)(len - 1 < sizeof context ? len - 1 : sizeof context - 1), key + 1);
            context[strcspn(context, "]")] = '\0';
            if (key[len - 1] != ']' || (ours && !known(ours, ours->n, context, NULL)))
                mistake(&m, "there is no context %s; assets/keys/default.keys has all of them", key);
            continue;
        }
        struct binding b = {0};
        char *action = word(&at);
        at += strspn(at, " \t");
        if (!input_parse_key(key, &b.key, &b.mods)) {
            mistake(&m, "\"%s\" is no key; write KEY ACTION NOTE, like: ctrl-s form.submit Save", key);
            continue;
        }
        if (!*action || (ours && strcmp(action, "none") != 0 && !known(ours, ours->n, NULL, action))) {
            if (*action)
                mistake(&m, "there is no action \"%s\"; assets/keys/default.keys has all of them", action);
            else
                mistake(&m, "what shall the key %s do? Write KEY ACTION NOTE, or the action none", key);
            continue;
        }
        snprintf(b.context, sizeof b.context, "%s", context);
        snprintf(b.action, sizeof b.action, "%s", action);
        if (bound && keymap_action(bound, context, b.key, b.mods))
            mistake(&m, "the key %s has an action in [%s] already; this one holds", key, context);
        else if (bound && bound->n < BINDINGS_MAX)
            bound->b[bound->n++] = b;
        b.hint = at[0] == '!';
        snprintf(b.note, sizeof b.note, "%s", at + b.hint);
        if (!b.note[0])
            inherit_note(k, &b);
        put(k, &b);
    }
    if (m.n > 1 && e)
        snprintf(e->text + strlen(e->text), sizeof e->text - strlen(e->text), " (and %d more of its lines)", m.n - 1);
    free(ours);
    free(bound);
    return m.n ? -1 : 0;
}

static char *slurp(const char *path)
{
    FILE *f = path ? fopen(path, "re") : NULL;
    char *text = calloc(1, 65536);
    size_t n = f && text ? fread(text, 1, 65535, f) : 0;
    if (f)
        fclose(f);
    if (n == 0) {
        free(text);
        text = NULL;
    }
    return text;
}

struct keymap *keymap_load(struct err *e)
{
    struct keymap *k = keymap_new();
    char *paths[2] = {path_asset("keys/default.keys", NULL), path_in(PATH_CONFIG, NULL, "keys")};
    for (int i = 0; k && i < 2; i++) {
        char *text = slurp(paths[i]);
        if (text)
            keymap_parse(k, text, paths[i], e);
        free(text);
        free(paths[i]);
    }
    return k;
}

const char *keymap_action(const struct keymap *k, const char *context, uint32_t key, unsigned mods)
{
    /* A capital letter carries its shift in itself. */
    if (key < 0x110000)
        mods &= ~(unsigned)MOD_SHIFT;
    for (unsigned i = 0; i < k->n; i++)
        if (k->b[i].key == key && k->b[i].mods == mods && strcmp(k->b[i].context, context) == 0)
            return k->b[i].action;
    return NULL;
}

const struct binding *keymap_at(const struct keymap *k, const char *context, unsigned i)
{
    for (unsigned j = 0; j < k->n; j++)
        if (strcmp(k->b[j].context, context) == 0 && i-- == 0)
            return &k->b[j];
    return NULL;
}

void keymap_key_of(const struct keymap *k, const char *context, const char *action, char *out, unsigned cap)
{
    out[0] = '\0';
    for (unsigned i = 0; i < k->n; i++)
        if (strcmp(k->b[i].context, context) == 0 && strcmp(k->b[i].action, action) == 0) {
            input_key_name(k->b[i].key, k->b[i].mods, out, cap);
            return;
        }
}
