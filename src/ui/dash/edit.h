/* Texts that are typed: filters, fields of forms, the command line.  A pure engine, with the keys that shells know. */
#ifndef SBX_UI_DASH_EDIT_H
#define SBX_UI_DASH_EDIT_H

#include <stdbool.h>
#include <stddef.h>

#include "ui/dash/input.h"

/* A short text that is typed at its end. Takes a key or a paste; false: it changes no text. */
bool edit_tail(char *text, size_t cap, const struct input *in);

#define EDIT_CUT_MAX 4096u

/* What was cut last, for Ctrl-Y. */
struct edit_cut {
    char text[EDIT_CUT_MAX];
    bool goes_on; /* the next one belongs to it */
};

struct edit {
    char *text;
    size_t cap, at;       /* at: of the cursor, in bytes */
    struct edit_cut *cut; /* NULL: nothing is kept of what is cut */
    const char *parts;    /* what Ctrl-W stops at */
};

/* Takes a key; false: it is none of an edited text. */
bool edit_key(struct edit *e, const struct input *in);
/* Takes a piece of a paste: where lines end there comes a blank, or nothing if that is not wanted. */
void edit_paste(struct edit *e, const struct input *in, bool blank);
/* Whole characters, as many as there is room for; none that would not be seen. */
void edit_insert(struct edit *e, const char *text, size_t n);
void edit_remove(struct edit *e, size_t from, size_t to);

/* The character before and behind a place, with the marks that join it. */
size_t edit_before(const char *text, size_t at);
size_t edit_after(const char *text, size_t at);

#endif
