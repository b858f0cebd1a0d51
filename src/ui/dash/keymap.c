#include "ui/dash/keymap.h"

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

int keymap_parse(struct keymap *k, const char *text, const char *file, struct err *e)
{
    char context[16] = "global";
    int rc = 0, line_no = 0;
    for (const char *p = text; *p;) {
        char line[256];
        size_t n = strcspn(p, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), p);
        p += n + (p[n] == '\n');
        line_no++;
        char *at = line, *key = word(&at);
        if (!*key || (key[0] == '#' && key[1] == '\0')) /* a comment; the key itself is written "\#" */
            continue;
        if (strcmp(key, "\\#") == 0)
            key++;
        size_t len = strlen(key);
        if (key[0] == '[' && len > 2 && key[len - 1] == ']') {
            snprintf(context, sizeof context, "%.*s", (int)(len - 2 < sizeof context ? len - 2 : sizeof context - 1), key + 1);
            continue;
        }
        struct binding b = {0};
        char *action = word(&at);
        at += strspn(at, " \t");
        if (!*action || !input_parse_key(key, &b.key, &b.mods)) {
            if (rc == 0)
                rc = err_set(e, STATUS_USAGE, "%s, line %d: \"%s\" is no key; write KEY ACTION NOTE, like: ctrl-s form.submit Save", file, line_no, key);
            continue;
        }
        snprintf(b.context, sizeof b.context, "%s", context);
        snprintf(b.action, sizeof b.action, "%s", action);
        b.hint = at[0] == '!';
        snprintf(b.note, sizeof b.note, "%s", at + b.hint);
        if (!b.note[0])
            inherit_note(k, &b);
        put(k, &b);
    }
    return rc;
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
