/* The emulator behind a terminal pane: the filter and libvterm (design.md I8), with packed scrollback.  Pure: bytes in,
 * cells out; it knows neither the link nor ncurses.
 *
 * Lines have numbers that grow for ever: the oldest line that is kept is term_emu_first, the top row of the screen is
 * term_emu_top, so a place in the text stays the same place while output goes on. */
#ifndef SBX_UI_DASH_TERM_EMU_H
#define SBX_UI_DASH_TERM_EMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/termline.h"
#include "core/vtfilter.h"

#define TERM_SCROLLBACK_BYTES (64u * 1024u * 1024u)

struct term_emu;

/* Told in order with the output; see core/vtfilter.h. */
typedef void term_event_fn(enum vt_event ev, int number, bool set, const char *text, void *arg);

/* NULL: no memory.  fn may be NULL. */
struct term_emu *term_emu_new(int rows, int cols, unsigned scrollback, term_event_fn *fn, void *arg);
void term_emu_free(struct term_emu *t);
void term_emu_feed(struct term_emu *t, const void *buf, size_t len);
/* Clamped to what it can be (2 x 2 at least). */
void term_emu_resize(struct term_emu *t, int rows, int cols);

int term_emu_rows(const struct term_emu *t);
int term_emu_cols(const struct term_emu *t);
uint64_t term_emu_first(const struct term_emu *t);
uint64_t term_emu_top(const struct term_emu *t);
/* One past the last row of the screen. */
uint64_t term_emu_end(const struct term_emu *t);
/* The cells of a line; what the line does not have is blank.  Returns how many it has, -1: no such line. */
int term_emu_line(const struct term_emu *t, uint64_t line, struct term_cell *out, int cap);

/* The cursor's place on the screen; false: it is hidden. */
bool term_emu_cursor(const struct term_emu *t, int *row, int *col);
int term_emu_shape(const struct term_emu *t);
/* A DEC private mode that programs set: 1, 5, 1000, 1002, 1003, 1004, 1006, 1049, 2004, 2026, ... */
bool term_emu_mode(const struct term_emu *t, int number);
bool term_emu_keypad(const struct term_emu *t);
const char *term_emu_title(const struct term_emu *t);

/* Text between two places, the end included, as UTF-8: lines ended by '\n', but not where a line runs on into the next
 * one; blanks at ends of lines are cut.  `block`: a rectangle.  malloc'ed. */
struct term_place {
    uint64_t line;
    int col;
};
char *term_emu_text(const struct term_emu *t, struct term_place from, struct term_place to, bool block, size_t *len);

/* The next match of `what` from a place on (that place excluded), forwards or back, round the end.  Capitals count only
 * if there are some in `what`.  *cells: how many columns it covers; those beyond the line's end are the next one's, where
 * a line runs on. */
bool term_emu_search(const struct term_emu *t, const char *what, struct term_place from, bool back, struct term_place *at,
                     int *cells);

#endif
