/* A link (core/link.h) on a stream socket, driven by libevent. */
#ifndef SBX_CORE_LINKEV_H
#define SBX_CORE_LINKEV_H

#include <event2/event.h>

#include "core/link.h"

struct linkev;

struct linkev_ops {
    void (*ctrl)(struct linkev *c, json_t *msg, void *arg);
    void (*data)(struct linkev *c, uint16_t chan, unsigned stream, const uint8_t *buf,
                 size_t len, void *arg);
    void (*eof)(struct linkev *c, uint16_t chan, unsigned stream, void *arg);
    void (*writable)(struct linkev *c, uint16_t chan, unsigned stream, void *arg);
    /* The last callback: the peer closed (why is NULL) or broke the protocol or the socket
     * failed (why says how).  The owner calls linkev_free, here or later. */
    void (*closed)(struct linkev *c, const char *why, void *arg);
};

/* Takes fd (non-blocking is set here) on success.  ops and arg must outlive it.  NULL: no memory. */
struct linkev *linkev_new(struct event_base *base, int fd, const struct linkev_ops *ops, void *arg);
/* Closes the descriptor; what was not written is lost.  NULL is allowed. */
void linkev_free(struct linkev *c);

/* For all link_* calls: sending, credit, channels.  Output is flushed by the event loop. */
struct link *linkev_link(struct linkev *c);
int linkev_fd(const struct linkev *c);

/* Writes what is queued for up to timeout_ms, blocking: for the last words of a process. */
void linkev_flush(struct linkev *c, int timeout_ms);

#endif
