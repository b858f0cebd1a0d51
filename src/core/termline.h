/* Cells of a terminal's screen, and lines of scrollback packed into little memory. */
#ifndef SBX_CORE_TERMLINE_H
#define SBX_CORE_TERMLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <vterm.h>

#define TERM_ROWS_MAX 500
#define TERM_COLS_MAX 1000
#define TERM_CHARS 6 /* one and those that join it */

enum {
    TERM_BOLD = 1,
    TERM_DIM = 2,
    TERM_ITALIC = 4,
    TERM_UNDERLINE = 8,
    TERM_DOUBLE = 16, /* with TERM_UNDERLINE */
    TERM_CURLY = 32,  /* with TERM_UNDERLINE */
    TERM_BLINK = 64,
    TERM_REVERSE = 128,
    TERM_CONCEAL = 256,
    TERM_STRIKE = 512,
    TERM_OVERLINE = 1024,
};

/* A colour: the terminal's own, one of the 256, or 0xrrggbb. */
enum { TERM_DEFAULT = 0, TERM_INDEXED = 0x1000000, TERM_RGB = 0x2000000 };

struct term_cell {
    uint32_t ch[TERM_CHARS]; /* ended by 0 if there are fewer; ch[0] 0: blank */
    uint32_t fg, bg;
    uint16_t attrs;
    uint8_t width; /* 1 or 2; 0: the right half of the cell before */
};

struct term_look {
    uint32_t fg, bg;
    uint16_t attrs;
};

/* What terminals show of libvterm's cells: see the source for where the two differ. */
void term_cell_convert(const VTermScreenCell *c, struct term_cell *out);
/* Over a whole row, after all its cells: halves of wide characters that lost the other one become blank. */
void term_cells_mend(struct term_cell *cells, int n);
/* How many columns libvterm gives a character. */
int term_libvterm_width(uint32_t code);
/* Sets libvterm's pen. */
struct term_look term_pen(VTerm *vt);
/* The escape sequences for a look, as libvterm behind the filter takes them; returns the length. */
#define TERM_LOOK_MAX 96
size_t term_look_sgr(struct term_look look, char out[TERM_LOOK_MAX]);

/* libvterm has one saved cursor (DECSC) for both screens, where a terminal has one for each: what a program saves on the
 * alternate screen must not be where the shell's cursor goes afterwards.  These read and write it. */
struct term_saved {
    int row, col; /* from 0 */
    struct term_look look;
};
struct term_saved term_saved_now(VTerm *vt); /* what a save would save */
/* top: the row from which origin mode counts; -1: the mode is off. */
void term_saved_set(VTerm *vt, struct term_saved s, int rows, int cols, int top);

/* A packed line: runs of one look, then the text in UTF-8; TERM_HALF stands for the right half of a wide character. */
enum { TERM_HALF = 1 };
struct term_run {
    uint16_t cells, attrs;
    uint32_t fg, bg;
};
struct term_line {
    uint16_t cells, runs;
    uint32_t len;
    struct term_run run[];
};

size_t term_line_size(const struct term_line *l);
/* malloc'ed; blanks at the end are left out.  NULL: no memory. */
struct term_line *term_line_pack(const struct term_cell *cells, int n);
/* At most cap cells; returns how many there are. */
int term_line_unpack(const struct term_line *l, struct term_cell *out, int cap);
size_t term_utf8(unsigned char *out, uint32_t c);

/* ---- floods ----
 *
 * Of a log that rushes by, only the last lines are ever seen on the screen; all others go to the scrollback, and need no
 * emulator to get there.  So what the filter puts out is held back here; when somebody wants to see the screen, or too
 * much is held, complete lines of nothing but text and looks that have scrolled out by the end are packed at once, and
 * libvterm sees the rest. */
#define TERM_HELD_MAX (256u * 1024u)

/* Nothing is to be seen in these cells. */
bool term_cells_blank(const struct term_cell *cells, int n);
/* How many lines at the beginning of p scroll by, so that `rows` more lines of the same kind follow: these are given to
 * `line`, and the bytes that they are, and the look in force behind them, are returned.  The cursor stands in the first
 * column of the last row, which is blank, and nothing but the look is out of the ordinary. */
size_t term_flood_lines(const char *p, size_t len, int rows, int cols, struct term_look *look,
                        void (*line)(struct term_line *l, void *arg), void *arg);

#endif
