/* Terminal output of the guest, made harmless (design.md I8, terminal.md C).
 *
 * A table-driven parser after the DEC model, as Paul Williams drew it.  It forwards only complete sequences, written
 * anew from what was understood: at most 15 parameters of at most 5 digits, well-formed UTF-8, no C1, no string
 * sequence, no character set but Unicode (line drawing is translated).  It acts itself on titles, notifications, clipboard, hyperlinks and queries, and answers these from
 * constants.  What it does not know is dropped.  Pure; any split of the input gives the same output. */
#ifndef SBX_CORE_VTFILTER_H
#define SBX_CORE_VTFILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vt_profile {
    VT_LIBVTERM, /* for libvterm 0.1.4 and later: what it has no attribute for is carried in its font number */
    VT_TERMINAL, /* for the user's terminal */
    VT_PLAIN,    /* for text that goes to a terminal outside of any screen: colours stay, nothing else */
};

enum vt_event {
    VT_TITLE,     /* text */
    VT_BELL,
    VT_NOTIFY,    /* text: OSC 9, 99, 777 */
    VT_CLIPBOARD, /* text: base64 that the guest wants to copy (OSC 52) */
    VT_CWD,       /* text: OSC 7 */
    VT_PROMPT,    /* text: OSC 133 mark */
    VT_MODE,      /* number: DEC private mode, set: whether it was set */
    VT_CURSOR_SHAPE, /* number: DECSCUSR */
    VT_ANSI_MODE, /* number: 4 (insert) or 20 (newline), set */
    VT_RESET,     /* number 0: RIS; 1: DECSTR */
    VT_KEYPAD,    /* set: application keypad */
    VT_MARGINS,   /* number: top << 16 | bottom, 1-based; 0: the whole screen */
    VT_SAVE_CURSOR,
    VT_CLEAR_HISTORY,
    VT_TABS,      /* tab stops are set or cleared */
};

struct vt_ops {
    void (*out)(const char *bytes, size_t len, void *arg);
    void (*reply)(const char *bytes, size_t len, void *arg); /* for the program's input; NULL: no answers */
    void (*event)(enum vt_event ev, int number, bool set, const char *text, void *arg); /* NULL allowed */
    void (*cursor)(int *row, int *col, void *arg); /* 1-based, for DSR 6; NULL: 1,1 */
    void (*size)(int *rows, int *cols, void *arg); /* for margins and 14t, 16t, 18t; NULL: unknown */
};

/* Events come in order with the output: what was printed before has gone to `out`. */

#define VT_PARAMS_MAX 64u
#define VT_STRING_MAX (64u * 1024u)
#define VT_CLIPBOARD_MAX (1024u * 1024u)
#define VT_REPEAT_MAX 4096u

struct vtfilter;

struct vtfilter *vtfilter_new(enum vt_profile profile, const struct vt_ops *ops, void *arg);
void vtfilter_free(struct vtfilter *f);
void vtfilter_feed(struct vtfilter *f, const void *buf, size_t len);
/* The screen has another size: the margins are gone, as whoever resizes libvterm takes them off. */
void vtfilter_resized(struct vtfilter *f);
/* The end of the output: an incomplete sequence is dropped, an incomplete character becomes U+FFFD. */
void vtfilter_end(struct vtfilter *f);
/* Which of two constants answers the question for the terminal's colours: dark (the default) or light. */
void vtfilter_light(struct vtfilter *f, bool light);

/* libvterm's table of widths is of 2007, and newer emoji are one column there.  For VT_LIBVTERM they are carried by
 * characters that it knows as wide and that Unicode does not use; this gives back what a cell's character stands for. */
uint32_t vtfilter_char(uint32_t code);

/* Within `out`: where in its bytes the last character begins behind which nothing moves the cursor any more; that is
 * where a pending line wrap comes from. */
enum { VT_PRINT_NONE = -1 /* the last thing was a movement */, VT_PRINT_SAME = -2 /* as before this piece */ };
long vtfilter_last_print(const struct vtfilter *f);

#endif
