/* A session's cells in an ncurses window. */
#ifndef SBX_UI_DASH_TERM_DRAW_H
#define SBX_UI_DASH_TERM_DRAW_H

#include <ncurses.h>

#include "ui/dash/term_copy.h"

/* Draws what copy->rows and copy->cols have room for at y, x of the window. */
void term_draw(WINDOW *win, int y, int x, struct term_copy *copy, const struct term_emu *emu);
/* A colour of term_emu.h as a number of the terminal at hand, -1: its own. */
int term_draw_colour(uint32_t colour);

#endif
