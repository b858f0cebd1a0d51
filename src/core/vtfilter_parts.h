/* What the parts of the filter share: vtfilter.c (the machine: bytes to characters and sequences), vtfilter_csi.c (what
 * a control sequence means) and vtfilter_string.c (what a string means).  For these three alone. */
#ifndef SBX_CORE_VTFILTER_PARTS_H
#define SBX_CORE_VTFILTER_PARTS_H

#include "core/vtfilter.h"

enum state { GROUND, ESC, ESC_INTER, CSI, CSI_IGNORE, STRING, STRING_ESC };
enum string_kind { OSC, DCS, OTHER };

#define OUT_CAP 4096u

enum charset { ASCII, LINES, BRITISH };

struct param {
    uint16_t value;
    bool given;
    bool sub; /* follows the one before after a colon */
};

struct vtfilter {
    enum vt_profile profile;
    const struct vt_ops *ops;
    void *arg;
    enum state state;
    char inter[4];
    unsigned ninter;
    char prefix; /* < = > ? of a CSI, or 0 */
    struct param params[VT_PARAMS_MAX];
    unsigned nparams;
    bool overflow;
    enum string_kind kind;
    char *string;
    size_t string_len, string_cap;
    bool string_dropped;
    unsigned char utf8[4]; /* a character that is not whole yet */
    unsigned utf8_len;
    char last[4]; /* the last character, for REP */
    unsigned last_len;
    bool repeatable; /* nothing came since */
    unsigned marks;                   /* joined to it so far */
    struct pen {
        unsigned font;       /* FONT_* */
        enum charset set[2]; /* G0 and G1 */
        bool shifted;        /* G1 is in use */
        bool protect;        /* DECSCA */
        bool origin;         /* DECOM; in a saved one alone */
    } pen, saved[2];         /* now, and at the last DECSC of the normal and of the alternate screen */
    bool alt, insert, newline;
    uint32_t modes;                   /* bits of mode_table */
    unsigned top, bottom;             /* the margins; 0: the whole screen */
    bool light;                       /* what colours a program is told */
    bool rang, coloured;              /* a BEL was the last that was passed on; an SGR other than reset was */
    char out[OUT_CAP];
    size_t out_len;
    long last_print;
};

#define VT_ATTRIBUTES "\033[?62;22c" /* DA 1: a VT220 with colours */

/* ---- vtfilter.c ---- */

/* Hands on what waits, so that an event or a question finds the screen as it is. */
void vt_flush(struct vtfilter *f);
/* Output that may move the cursor, output that leaves it where it is, and a character. */
void vt_put(struct vtfilter *f, const char *s, size_t n);
void vt_put_still(struct vtfilter *f, const char *s, size_t n);
void vt_print(struct vtfilter *f, const char *s, unsigned n);
/* An answer into the program's input; `s` is a constant or made of numbers, never of what the guest wrote. */
void vt_reply(struct vtfilter *f, const char *s);
void vt_event(struct vtfilter *f, enum vt_event ev, int number, bool set, const char *text);

/* ---- vtfilter_csi.c ---- */

/* A whole control sequence, its parameters in `f`. */
void vt_csi(struct vtfilter *f, char final);
/* DECSC and DECRC by the sequence `how`, "" for none. */
void vt_save_cursor(struct vtfilter *f, const char *how);
void vt_restore_cursor(struct vtfilter *f, const char *how);
/* RIS, and what it and (soft) DECSTR mean for what is followed here. */
void vt_reset(struct vtfilter *f);
void vt_reset_modes(struct vtfilter *f, bool soft);

/* ---- vtfilter_string.c ---- */

void vt_string_begin(struct vtfilter *f, enum string_kind kind);
void vt_string_put(struct vtfilter *f, unsigned char c);
/* Its terminator has come: what it asks for is done. */
void vt_string_end(struct vtfilter *f);
/* Something else came: it means nothing. */
void vt_string_void(struct vtfilter *f);

#endif
