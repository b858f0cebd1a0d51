/* What the user's terminal sends, taken apart: keys, mouse, paste, focus, replies.  A pure engine: bytes in, events out.
 *
 * ncurses only draws here; the bytes of the keyboard are read by ourselves, because a pane that shows a terminal must
 * pass them on exactly as they came.  So each event carries its bytes as well (`raw`), and replies of the user's
 * terminal to our own questions are recognised and never reach a session. */
#ifndef SBX_UI_DASH_INPUT_H
#define SBX_UI_DASH_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOD_SHIFT = 1, MOD_ALT = 2, MOD_CTRL = 4 };

/* Keys that are no character; below 0x110000 a key is its code point. */
enum {
    K_NONE = 0,
    K_ENTER = 0x110000,
    K_TAB,
    K_ESC,
    K_BACKSPACE,
    K_UP,
    K_DOWN,
    K_LEFT,
    K_RIGHT,
    K_HOME,
    K_END,
    K_PGUP,
    K_PGDN,
    K_INSERT,
    K_DELETE,
    K_F1, /* to K_F1 + 11 */
    K_F12 = K_F1 + 11,
    K_UNKNOWN, /* a well-formed sequence that has no name here */
};

enum input_type { INPUT_KEY, INPUT_MOUSE, INPUT_PASTE, INPUT_FOCUS, INPUT_REPLY };
enum mouse_kind { MOUSE_PRESS, MOUSE_RELEASE, MOUSE_DRAG, MOUSE_MOVE, MOUSE_WHEEL };

struct input {
    enum input_type type;
    uint32_t key;  /* INPUT_KEY */
    unsigned mods; /* INPUT_KEY, INPUT_MOUSE */
    enum mouse_kind mouse;
    int button;       /* 1 left, 2 middle, 3 right; for the wheel -1 up, 1 down, -2 left, 2 right */
    int y, x;         /* mouse: from 0; to a pane's mouse() they are its own, elsewhere the screen's */
    bool focus_in;    /* INPUT_FOCUS */
    bool paste_begin; /* INPUT_PASTE: the first piece; raw is then the text of this piece alone, not the brackets */
    bool paste_end;
    const char *raw; /* the bytes; valid during the call */
    size_t raw_len;
};

struct input_decoder;
typedef void input_fn(const struct input *in, void *arg);

struct input_decoder *input_new(input_fn *fn, void *arg);
void input_free(struct input_decoder *d);

/* Takes bytes and reports what is complete. */
void input_feed(struct input_decoder *d, const void *buf, size_t len);
/* Something is held back, because it may be the begin of a sequence: call input_flush after 25 ms without more. */
bool input_pending(const struct input_decoder *d);
void input_flush(struct input_decoder *d);

/* "c", "C", "ctrl-s", "alt-enter", "shift-tab", "pgup", "f5", "space", "?" <-> key and mods. */
bool input_parse_key(const char *name, uint32_t *key, unsigned *mods);
/* A name fit to show, like "Ctrl-S", "PgUp", "Enter", "c". */
void input_key_name(uint32_t key, unsigned mods, char *out, size_t cap);

/* Escape, or Ctrl-C or Ctrl-G as in a shell: what is being typed is left. */
bool input_leaves(const struct input *in);

#endif
