#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ui/cli/cli.h"

static const struct option *find_long(const struct command *c, const char *name, size_t len)
{
    for (const struct option *o = c->options; o && o->name; o++)
        if (strlen(o->name) == len && strncmp(o->name, name, len) == 0)
            return o;
    return NULL;
}

static const struct option *find_letter(const struct command *c, char letter)
{
    for (const struct option *o = c->options; o && o->name; o++)
        if (o->letter == letter)
            return o;
    return NULL;
}

int args_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    int row[40], prev;
    if (n > 30 || m > 30)
        return 9;
    for (size_t j = 0; j <= m; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        prev = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int up = row[j], best = prev + (a[i - 1] != b[j - 1]);
            best = up + 1 < best ? up + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            prev = up;
            row[j] = best;
        }
    }
    return row[m];
}

/* "policy ls", of the command ls of policy. */
static void full_name(const struct command *c, char *out, size_t cap)
{
    size_t n = strlen(c->name), first = c->synopsis ? strcspn(c->synopsis, " ") : 0;
    if (!c->synopsis || (first == n && strncmp(c->synopsis, c->name, n) == 0))
        snprintf(out, cap, "%s", c->name);
    else
        snprintf(out, cap, "%.*s %s", (int)first, c->synopsis, c->name);
}

/* Bytes of a character in UTF-8. */
static int letter_length(const char *p)
{
    int n = 1;
    while ((p[n] & 0xc0) == 0x80 && n < 4)
        n++;
    return n;
}

static const char *nearest(const struct command *c, const char *name, size_t len)
{
    char given[32];
    const char *best = NULL;
    int least = 3;
    if (len >= sizeof given)
        return NULL;
    memcpy(given, name, len);
    given[len] = '\0';
    for (const struct option *o = c->options; o && o->name; o++) {
        int d = strncmp(o->name, given, len) == 0 && len > 1 ? 0 : args_distance(given, o->name);
        if (d < least && d < (int)strlen(o->name)) {
            least = d;
            best = o->name;
        }
    }
    return best;
}

static void give(struct args *a, const struct option *o, const char *value)
{
    a->given[a->ngiven] = o;
    a->values[a->ngiven++] = value;
}

static int parse_long(struct args *a, const struct command *c, int argc, char **argv, int *i, struct err *e)
{
    const char *text = argv[*i] + 2, *eq = strchr(text, '=');
    size_t len = eq ? (size_t)(eq - text) : strlen(text);
    const struct option *o = find_long(c, text, len);
    if (!o) {
        char full[40];
        const char *near = nearest(c, text, len);
        full_name(c, full, sizeof full);
        if (near)
            return err_set(e, STATUS_USAGE, "%s has no option --%.*s; did you mean --%s?", full, (int)len, text, near);
        return err_set(e, STATUS_USAGE, "%s has no option --%.*s; sbx help %s shows them", full, (int)len, text, full);
    }
    if (!o->value && eq)
        return err_set(e, STATUS_USAGE, "--%s takes no value", o->name);
    if (o->value && !eq && *i + 1 >= argc)
        return err_set(e, STATUS_USAGE, "--%s needs a value: %s", o->name, o->value);
    give(a, o, o->value ? (eq ? eq + 1 : argv[++*i]) : NULL);
    return 0;
}

static int parse_letters(struct args *a, const struct command *c, int argc, char **argv, int *i, struct err *e)
{
    for (const char *p = argv[*i] + 1; *p; p++) {
        const struct option *o = find_letter(c, *p);
        if (!o) {
            char full[40];
            full_name(c, full, sizeof full);
            return err_set(e, STATUS_USAGE, "%s has no option -%.*s; sbx help %s shows them", full, letter_length(p), p, full);
        }
        if (!o->value) {
            give(a, o, NULL);
            continue;
        }
        if (p[1])
            give(a, o, p[1] == '=' ? p + 2 : p + 1);
        else if (*i + 1 < argc)
            give(a, o, argv[++*i]);
        else
            return err_set(e, STATUS_USAGE, "-%c needs a value: %s", *p, o->value);
        break;
    }
    return 0;
}

int args_parse(struct args *a, const struct command *c, int argc, char **argv, struct err *e)
{
    memset(a, 0, sizeof *a);
    a->command = c;
    size_t letters = 1;
    for (int i = 0; i < argc; i++)
        letters += strlen(argv[i]) + 1;
    a->given = calloc(letters, sizeof *a->given);
    a->values = calloc(letters, sizeof *a->values);
    a->words = calloc((size_t)argc + 1, sizeof *a->words);
    a->rest = calloc((size_t)argc + 1, sizeof *a->rest);
    if (!a->given || !a->values || !a->words || !a->rest)
        return err_set(e, STATUS_FAILED, "out of memory");
    for (int i = 0; i < argc; i++) {
        bool ours = !(c->stop_at_word && a->nwords >= c->stop_after);
        if (ours && strcmp(argv[i], "--") == 0) {
            a->has_rest = true;
            while (++i < argc)
                a->rest[a->nrest++] = argv[i];
            break;
        }
        if (ours && strncmp(argv[i], "--", 2) == 0) {
            if (parse_long(a, c, argc, argv, &i, e) < 0)
                return -1;
        } else if (ours && argv[i][0] == '-' && argv[i][1]) {
            if (parse_letters(a, c, argc, argv, &i, e) < 0)
                return -1;
        } else if (ours) {
            a->words[a->nwords++] = argv[i];
        } else if (a->nrest == 0 && !a->has_rest && strcmp(argv[i], "--") == 0) {
            a->has_rest = true; /* "exec NAME -- CMD": the mark is not a part of the command */
        } else {
            a->rest[a->nrest++] = argv[i];
        }
    }
    if (a->nwords < c->min_words)
        return err_set(e, STATUS_USAGE, "something is missing; usage: sbx %s", c->synopsis);
    if (c->max_words >= 0 && a->nwords > c->max_words)
        return err_set(e, STATUS_USAGE, "\"%.60s\" is too much; usage: sbx %s", a->words[c->max_words], c->synopsis);
    return 0;
}

void args_finish(struct args *a)
{
    free(a->given);
    free(a->values);
    free(a->words);
    free(a->rest);
}

const char *args_nth(const struct args *a, const char *name, int n)
{
    for (int i = 0; i < a->ngiven; i++)
        if (strcmp(a->given[i]->name, name) == 0 && n-- == 0)
            return a->values[i] ? a->values[i] : "";
    return NULL;
}

bool args_has(const struct args *a, const char *name)
{
    return args_nth(a, name, 0) != NULL;
}

const char *args_value(const struct args *a, const char *name)
{
    const char *v = NULL;
    for (int i = 0; i < a->ngiven; i++)
        if (strcmp(a->given[i]->name, name) == 0)
            v = a->values[i];
    return v;
}

int args_number(const struct args *a, const char *name, long min, long max, long fallback, long *out, struct err *e)
{
    const char *v = args_value(a, name);
    char *end;
    if (!v) {
        *out = fallback;
        return 0;
    }
    errno = 0;
    *out = strtol(v, &end, 10);
    if (end == v || *end || errno || *out < min || *out > max)
        return err_set(e, STATUS_USAGE, "--%s is a number from %ld to %ld, not \"%s\"", name, min, max, v);
    return 0;
}
