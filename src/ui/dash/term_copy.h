/* Which part of a session's text is looked at, as one state machine: FOLLOW shows the screen as it changes; PAUSED
 * stays at a line whatever comes; COPY is PAUSED with a cursor, a selection and a search.  Pure. */
#ifndef SBX_UI_DASH_TERM_COPY_H
#define SBX_UI_DASH_TERM_COPY_H

#include "ui/dash/term_emu.h"

enum term_show { TERM_FOLLOW, TERM_PAUSED, TERM_COPY };
enum term_select { SELECT_NONE, SELECT_CELLS, SELECT_LINES, SELECT_BLOCK };

struct term_copy {
    enum term_show look;
    uint64_t top;             /* the line in the pane's first row; FOLLOW: see term_copy_top */
    struct term_place cursor; /* COPY */
    enum term_select select;
    struct term_place anchor, point; /* of the selection, both included */
    char search[128];
    int match_cells; /* the match under the cursor covers that many columns, 0: none */
    int rows, cols;  /* of the pane */
};

/* The line in the first row now.  A pane that is lower than the screen shows the part with the cursor. */
uint64_t term_copy_top(struct term_copy *c, const struct term_emu *emu);
/* By lines, down if positive; reaching the end follows again unless in COPY. */
void term_copy_scroll(struct term_copy *c, const struct term_emu *emu, long lines);
void term_copy_enter(struct term_copy *c, const struct term_emu *emu);
/* Back to FOLLOW; the selection is gone. */
void term_copy_leave(struct term_copy *c);
/* An action of the keymap's context "copy", without its "copy.": up, down, left, right, pgup, pgdn, bol, eol, top,
 * bottom, select, select-lines, select-block, word, back-word, next, previous.  False: another. */
bool term_copy_action(struct term_copy *c, const struct term_emu *emu, const char *action);
/* Looks for c->search; false: it is nowhere. */
bool term_copy_find(struct term_copy *c, const struct term_emu *emu, bool back);
/* Is this cell selected? */
bool term_copy_selected(const struct term_copy *c, uint64_t line, int col);
/* The selected text, malloc'ed; NULL: none. */
char *term_copy_text(const struct term_copy *c, const struct term_emu *emu, size_t *len);
/* A selection of the word or the line at a place (clicks 2 and 3). */
void term_copy_word(struct term_copy *c, const struct term_emu *emu, struct term_place at);
void term_copy_line(struct term_copy *c, struct term_place at);

#endif
