/* Shared by session.c (the table, the requests) and session_flow.c (the bytes). */
#ifndef SBX_VM_SESSION_INT_H
#define SBX_VM_SESSION_INT_H

#include <event2/buffer.h>
#include <time.h>

#include "vm/ctl.h"
#include "vm/session.h"

enum viewer_state { VIEWER_WAITING, VIEWER_PAINTING, VIEWER_LIVE };

struct viewer {
    struct viewer *next;
    struct link *link;
    uint16_t chan;
    enum viewer_state state;
    bool read_only, behind;
    bool clear;              /* the next painting replaces the history that it has */
    bool again;              /* it is painted once more when it has this painting */
    unsigned lines;          /* of history in the painting that it waits for */
    bool stdin_eof;
    bool eof_sent[2];
    unsigned rows, cols;
    unsigned token;          /* of the painting it waits for */
    uint64_t paint_at;       /* position on the session's stream that the painting shows */
    struct evbuffer *out;    /* accepted for it, not yet sent: terminal sessions */
    struct evbuffer *newer;  /* came after the painting's position, while that was coming */
    struct evbuffer *in;     /* its input, not yet taken by the guest */
};

/* Paintings come one after the other, in the order of their notes, also those that nobody waits for any more. */
struct painting {
    struct painting *next;
    unsigned token;
    size_t left; /* bytes that are still to come */
};

struct session {
    struct session *next;
    struct sessions *owner;
    uint16_t chan; /* on the guest's and the screen's link, and its number for users */
    bool tty, agent, running, detached;
    bool exited, over;
    bool eof_in[2];     /* the guest ended stdout, stderr */
    bool screen_eof_sent, screen_eof;
    bool stdin_closed;
    bool light; /* the user's terminal, as the latest client had it */
    int status, signal;
    unsigned rows, cols;
    uint64_t screen_pos; /* bytes of the filtered stream so far */
    struct evbuffer *pending[2]; /* from the guest, not yet taken by screen or client */
    struct evbuffer *replies;    /* the terminal's answers to the program, bounded */
    struct painting *paintings;
    struct viewer *viewers;
    unsigned nviewers;
    struct viewer *sizer; /* the viewer whose size it has, if it is still there */
    struct event *resize_timer, *drain_timer;
    struct link *opener; /* who waits for the reply to `exec` */
    json_int_t opener_id;
    json_t *command, *about; /* argv; what inspect shows: user, cwd, env's names */
    char *title, *notice; /* what it said with the bell: a notification's text */
    bool bell;
    int64_t heard_ms; /* when it printed something last */
    time_t started;
};

struct sessions {
    struct event_base *base;
    const struct sessions_ops *ops;
    void *arg;
    struct link *guest, *screen;
    struct ctl *guest_ctl, *screen_ctl;
    struct session *list; /* the latest first */
    unsigned count, scrollback, next_token;
    struct text_request *texts;
    json_t *env;
    const char *cwd;
};

struct session *session_find(const struct sessions *ss, uint16_t chan);
struct viewer *viewer_find(const struct sessions *ss, const struct link *l, uint16_t chan, struct session **s);
void session_changed(struct sessions *ss);
int64_t session_now_ms(void);
/* Somebody works in it: it no longer calls. */
void session_attended(struct session *s);
void session_check_over(struct session *s);
void session_apply_resize(struct session *s);
struct viewer *viewer_add(struct session *s, struct link *l, uint16_t chan);
void viewer_remove(struct session *s, struct viewer *v);

/* session_flow.c */
void flow_output(struct session *s, unsigned stream); /* guest -> screen or client */
void flow_input(struct session *s);                   /* viewers and terminal -> guest */
void flow_viewer(struct session *s, struct viewer *v); /* queue -> client */
void flow_paint(struct session *s, struct viewer *v, unsigned scrollback);
void flow_live(struct session *s, const uint8_t *buf, size_t len);
/* The screen announces a painting; and no more of them come. */
void flow_painting(struct session *s, unsigned token, size_t bytes, uint64_t at);
void flow_no_paintings(struct session *s);

#endif
