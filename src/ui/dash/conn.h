/* A link to one supervisor (docs/protocols.md, "client"), asynchronous: requests with a callback for the reply, notes,
 * and channels for sessions. */
#ifndef SBX_UI_DASH_CONN_H
#define SBX_UI_DASH_CONN_H

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/link.h"

struct conn;

/* A reply: ok with its object (borrowed), or not ok with the error's text.  Also called, not ok, when the link ends. */
typedef void conn_reply_fn(bool ok, const json_t *reply, const char *error, void *arg);

struct conn_ops {
    void (*note)(struct conn *c, const char *op, const json_t *msg, void *arg);
    /* The last callback; the owner frees the conn, here or later. */
    void (*closed)(struct conn *c, void *arg);
};

/* What a session's channel says; the bytes were consumed from the window only after conn_consumed. */
struct conn_chan_ops {
    void (*data)(struct conn *c, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg);
    void (*eof)(struct conn *c, uint16_t chan, unsigned stream, void *arg);
    void (*writable)(struct conn *c, uint16_t chan, unsigned stream, void *arg);
    /* Notes that bear this channel: exit, title, bell, notify, clipboard, resize, ... */
    void (*note)(struct conn *c, uint16_t chan, const char *op, const json_t *msg, void *arg);
    /* The link ended; the channel is gone with it. */
    void (*closed)(struct conn *c, uint16_t chan, void *arg);
};

/* STATUS_NOT_FOUND: nobody listens. */
struct conn *conn_open(struct event_base *base, const char *sandbox, const struct conn_ops *ops, void *arg, struct err *e);
void conn_free(struct conn *c);

/* args may be NULL, its reference is taken; fn may be NULL. */
void conn_request(struct conn *c, const char *op, json_t *args, conn_reply_fn *fn, void *arg);
/* Nobody waits for replies with this arg any more. */
void conn_forget(struct conn *c, void *arg);

/* A channel for `attach` or `exec` (stream 0 urgent); 0 if there is none free. */
uint16_t conn_chan_open(struct conn *c, const struct conn_chan_ops *ops, void *arg);
void conn_chan_close(struct conn *c, uint16_t chan);
/* Takes as much as the window allows; `writable` tells when more goes. */
size_t conn_chan_send(struct conn *c, uint16_t chan, const void *buf, size_t len);
void conn_consumed(struct conn *c, uint16_t chan, unsigned stream, size_t len);

#endif
