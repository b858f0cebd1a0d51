/* The user's terminal: entering, leaving and suspending it, and leaving it clean however the dashboard ends. */
#ifndef SBX_UI_DASH_SCREEN_H
#define SBX_UI_DASH_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#include "core/err.h"

/* Starts ncurses on the terminal (standard output), raw, with mouse, paste and focus reports.  From here on
 * standard error goes to a file in memory, which screen_leave prints: a stray message must not tear the screen. */
int screen_enter(bool mouse, struct err *e);
void screen_leave(void);
/* For a program in the foreground, or SIGTSTP: the terminal as it was, and back again. */
void screen_suspend(void);
void screen_resume(void);
/* Reads the terminal's size and tells ncurses; true if it changed. */
bool screen_fit(void);
void screen_mouse(bool on);
/* The mouse is told of without a button, too. */
void screen_motion(bool on);
/* Raw bytes to the terminal, between frames: bell, notification, clipboard, cursor shape, keypad. */
void screen_write(const void *buf, size_t len);
/* Can the terminal's locale show more than ASCII? */
bool screen_utf8(void);
/* Asks the user's terminal for its background, and waits a moment: 1 light, 0 dark, -1 it does not say so soon.  What
 * came meanwhile, the answer and keys, is in buf. */
int screen_backdrop(char *buf, size_t cap, size_t *len);
/* Asks the user's terminal for its background, and waits a moment: 1 light, 0 dark, -1 it does not say so soon.  What came
 * meanwhile, the answer and keys, is left in buf. */
int screen_backdrop(char *buf, size_t cap, size_t *len);

#endif
