/* A table for people: aligned columns, and on a terminal a bold head (NO_COLOR honoured). */
#ifndef SBX_UI_CLI_TABLE_H
#define SBX_UI_CLI_TABLE_H

#include <stdbool.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 12

struct table;

/* heads: NULL-terminated, kept by reference. */
struct table *table_new(const char *const *heads);
void table_free(struct table *t);

/* One row: as many texts as there are heads; NULL is "".  Text is made printable (core/sanitize.h) and copied. */
void table_add(struct table *t, const char *const *cells);

/* The last column is not padded.  Nothing for a table without rows. */
void table_print(const struct table *t, FILE *out);

/* May `out` be coloured? */
bool table_colour(FILE *out);

#endif
