/* Drawing helpers: text in styles, cut to the room that there is and measured as terminals measure it. */
#ifndef SBX_UI_DASH_PAINT_H
#define SBX_UI_DASH_PAINT_H

#include <ncurses.h>
#include <stdbool.h>
#include <stddef.h>

#include "ui/dash/theme.h"

/* Columns of UTF-8 text. */
int paint_width(const char *text);
/* Text at y, x in a style, at most `room` columns, an ellipsis if it is cut; returns the columns used.  Control and
 * malformed bytes become '?': nothing but what the theme says reaches the terminal. */
int paint_text(WINDOW *w, int y, int x, int room, enum style s, const char *text);
int paint_f(WINDOW *w, int y, int x, int room, enum style s, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* The same with its end at column `end` (exclusive). Returns the first column. */
int paint_right(WINDOW *w, int y, int end, int room, enum style s, const char *text);
int paint_centre(WINDOW *w, int y, int cols, enum style s, const char *text);
/* A text that is typed, with what stands before its cursor (a byte) in sight. Returns the cursor's column, from x. */
int paint_typed(WINDOW *w, int y, int x, int room, enum style s, const char *text, size_t at);
/* How many bytes of a text go into a line of so many columns, cut at a word. */
size_t paint_line(const char *text, int cols);
/* Text wrapped at words, from y on, at most max rows; returns the rows used. */
int paint_wrap(WINDOW *w, int y, int x, int cols, int max, enum style s, const char *text);
/* Gives columns x .. x+n of a row a style, leaving the text (a selection). */
void paint_row(WINDOW *w, int y, int x, int n, enum style s);
/* The same, but keeps the text's own colour upon the style's background. */
void paint_under(WINDOW *w, int y, int x, int n, enum style own, enum style background);
/* A bar of n columns. */
void paint_bar(WINDOW *w, int y, int x, int n, double fraction);
/* A frame around the whole window with texts in its upper edge. */
void paint_frame(WINDOW *w, enum style frame, enum style heading, const char *left, const char *right);
/* A scroll bar on the right edge of a frame window: n rows of total are seen from first on. */
void paint_scroll(WINDOW *w, int top, int rows, long first, long n, long total, enum style s);
/* Which row is the first to be seen after a press at row y of the bar, from its top. */
long paint_scroll_to(int y, int rows, long n, long total);
/* The spinner's glyph for this moment. */
const char *paint_spinner(void);
/* "1.2 GiB", "850 KiB". */
void paint_kib(long long kib, char *out, size_t cap);
/* A path with the user's home as "~", and the end of what is too long for so many columns. */
void paint_path(const char *path, char *out, size_t cap, int room);
/* "3 h 12 m", "45 s", "6 d". */
void paint_span(long long seconds, char *out, size_t cap);

#endif
