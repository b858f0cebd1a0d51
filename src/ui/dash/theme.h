/* Themes: named styles -> ncurses attributes.
 *
 * A theme is a file of lines `style = FOREGROUND BACKGROUND ATTRIBUTE...` (assets/themes/NAME.theme, or the user's in
 * $XDG_CONFIG_HOME/sbx/themes).  A colour is #rrggbb, a number of the 256, or "-": what "text" has, and there the
 * terminal's own; attributes are bold, dim, italic, underline, reverse.  It is brought down to what the terminal can
 * show: true colour, 256, 16, 8, none.  Meaning is never in colour alone: states have a glyph and a word as well. */
#ifndef SBX_UI_DASH_THEME_H
#define SBX_UI_DASH_THEME_H

#include <ncurses.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

enum style {
    ST_TEXT,      /* ordinary */
    ST_DIM,       /* what matters less */
    ST_STRONG,    /* names, headings */
    ST_ACCENT,    /* the product's colour */
    ST_TITLE,     /* the bar on top */
    ST_STATUS,    /* the line at the bottom */
    ST_KEY,       /* a key's name in hints and help */
    ST_FRAME,     /* a pane's frame */
    ST_FRAME_ON,  /* that of the pane with the focus */
    ST_HEADING,   /* a pane's title in its frame */
    ST_SELECTED,  /* the row under the cursor */
    ST_SELECTED_OFF, /* the same in a pane without the focus */
    ST_MARKED,    /* rows marked for an action on many */
    ST_RUNNING,
    ST_WAITING,   /* needs the user */
    ST_BUSY,      /* starting, stopping, creating */
    ST_STOPPED,
    ST_FAILED,
    ST_ALLOW,     /* verdicts */
    ST_DENY,
    ST_WARN,
    ST_GOOD,
    ST_BADGE,     /* "emulated" */
    ST_FIELD,     /* an input */
    ST_FIELD_ON,
    ST_BUTTON,
    ST_BUTTON_ON,
    ST_BAR,       /* the filled part of a bar */
    ST_BAR_EMPTY,
    ST_MATCH,     /* what a search found */
    ST_COUNT,
};

struct look {
    attr_t attrs;
    int pair;
};

/* Loads a theme by name ("auto" chooses) for the terminal that ncurses drives; NO_COLOR and terminals without colours
 * get the monochrome one.  A style that the file does not name is ST_TEXT.  -1: the dark one is in force, err says why. */
int theme_load(const char *name, struct err *e);
/* The names of all themes, separated by blanks. */
void theme_names(char *out, size_t cap);
const char *theme_current(void);
/* What the user's terminal says of its own background, for "auto"; before theme_load. */
void theme_terminal(bool is_light);
/* Is the ground that text stands on a light one? */
bool theme_light(void);
/* The colours of ordinary text, which programs in a session get for theirs; -1: the terminal's own. */
void theme_default(int *fg, int *bg);

struct look theme_look(enum style s);
/* Sets the style of what is written to win next; like wattron with a pair beyond 255. */
void theme_set(WINDOW *win, enum style s);

/* A colour number of this terminal for 0xrrggbb; -1 is the terminal's own. */
int theme_rgb(uint32_t rgb);
/* A pair for two colour numbers (alloc_pair; 0 where the terminal has no colours). */
int theme_pair(int fg, int bg);

/* The pure part, for tests: the nearest of the 256, of the 16 and of the 8 colours. */
int theme_to_256(uint32_t rgb);
int theme_to_16(uint32_t rgb);
int theme_to_8(uint32_t rgb);
#endif
