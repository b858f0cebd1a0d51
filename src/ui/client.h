/* A connection to a sandbox's supervisor (docs/protocols.md, "client"), for programs that wait for one thing at a time. */
#ifndef SBX_UI_CLIENT_H
#define SBX_UI_CLIENT_H

#include <poll.h>
#include <stdbool.h>

#include "core/link.h"

struct client {
    int fd;
    struct link *link;
    unsigned char *out;
    size_t out_pos, out_len;
    json_int_t next_id;
    json_t *reply;       /* of the request that is waited for */
    json_int_t reply_id;
    bool closed;
    char why[768];
    /* What comes besides replies; may be set after client_open. */
    void (*note)(struct client *c, const json_t *msg, void *arg);
    void (*data)(struct client *c, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg);
    void (*eof)(struct client *c, uint16_t chan, unsigned stream, void *arg);
    void (*writable)(struct client *c, uint16_t chan, unsigned stream, void *arg);
    void *arg;
};

/* STATUS_NOT_FOUND: nobody listens, the sandbox does not run. */
int client_open(struct client *c, const char *sandbox, struct err *e);
void client_close(struct client *c);

/* Sends without waiting; returns the id, or -1: too long. */
json_int_t client_send(struct client *c, const char *op, json_t *args);
/* Sends and waits for the reply: a new reference, or NULL with the peer's words (and status) in e. */
json_t *client_request(struct client *c, const char *op, json_t *args, int timeout_ms, struct err *e);

/* One turn for a poll loop: what to wait for, and what to do when it came. False: the connection is over. */
short client_events(const struct client *c);
bool client_ready(struct client *c, short revents);

#endif
