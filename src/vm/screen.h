/* One session's screen: libvterm behind the filter, with packed scrollback, able to draw itself anew.
 * Bounded: rows and columns are clamped, scrollback has a limit of lines and of bytes. */
#ifndef SBX_VM_SCREEN_H
#define SBX_VM_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/vtfilter.h"

#define SCREEN_ROWS_MAX 500
#define SCREEN_COLS_MAX 1000
#define SCREEN_SCROLLBACK_BYTES (32u * 1024u * 1024u)

struct screen;

struct screen_ops {
    void (*out)(const char *bytes, size_t len, void *arg);   /* the filtered stream for the user's terminal */
    void (*reply)(const char *bytes, size_t len, void *arg); /* answers for the program */
    void (*event)(enum vt_event ev, const char *text, void *arg); /* title, bell, notify, clipboard, cwd, prompt */
};

/* NULL: no memory. */
struct screen *screen_new(int rows, int cols, unsigned scrollback, const struct screen_ops *ops, void *arg);
void screen_free(struct screen *s);
void screen_feed(struct screen *s, const void *buf, size_t len);
void screen_resize(struct screen *s, int rows, int cols);
/* The colours that a program is told which asks for its terminal's: those of a dark one (at first) or of a light one. */
void screen_light(struct screen *s, bool light);

/* Bytes that draw the screen exactly as it stands on a terminal of the same size, preceded by the last `scrollback`
 * lines.  malloc'ed; NULL: no memory. */
char *screen_paint(struct screen *s, unsigned scrollback, size_t *len);
/* The same as plain text, lines ended by '\n', trailing blanks cut. */
char *screen_text(struct screen *s, unsigned scrollback, size_t *len);

void screen_size(const struct screen *s, int *rows, int *cols);
const char *screen_title(const struct screen *s);

#endif
