#include "ui/cli/table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/sanitize.h"

struct table {
    const char *const *heads;
    unsigned columns;
    size_t width[TABLE_COLUMNS_MAX];
    char **cells;
    size_t ncells, cap;
};

/* Code points: the few wide ones in a comment may shift a line, nothing else. */
static size_t width_of(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

struct table *table_new(const char *const *heads)
{
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->heads = heads;
    for (; heads[t->columns] && t->columns < TABLE_COLUMNS_MAX; t->columns++)
        t->width[t->columns] = width_of(heads[t->columns]);
    return t;
}

void table_free(struct table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->ncells; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t);
}

void table_add(struct table *t, const char *const *cells)
{
    if (t->ncells + t->columns > t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 16 * t->columns;
        char **more = realloc(t->cells, cap * sizeof *more);
        if (!more)
            return;
        t->cells = more;
        t->cap = cap;
    }
    for (unsigned i = 0; i < t->columns; i++) {
        const char *text = cells[i] ? cells[i] : "";
        size_t n = strlen(text);
        char *clean = malloc(8 * n + 1);
        if (clean) {
            sanitize_line(clean, 8 * n + 1, text, n);
            if (width_of(clean) > t->width[i])
                t->width[i] = width_of(clean);
        }
        t->cells[t->ncells++] = clean;
    }
}

bool table_colour(FILE *out)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(out)) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

static void print_row(const struct table *t, const char *const *cells, FILE *out)
{
    for (unsigned i = 0; i < t->columns; i++) {
        const char *s = cells[i] ? cells[i] : "";
        fputs(s, out);
        if (i + 1 < t->columns)
            for (size_t n = width_of(s); n < t->width[i] + 2; n++)
                putc(' ', out);
    }
}

void table_print(const struct table *t, FILE *out)
{
    bool bold = table_colour(out);
    if (t->ncells == 0)
        return;
    fputs(bold ? "\033[1m" : "", out);
    print_row(t, t->heads, out);
    fputs(bold ? "\033[0m\n" : "\n", out);
    for (size_t i = 0; i < t->ncells; i += t->columns) {
        print_row(t, (const char *const *)t->cells + i, out);
        putc('\n', out);
    }
}
