/* The cable: QEMU's `-netdev stream` on a descriptor, each frame behind its length (u32, big-endian).
 * Loss-free and ordered; when QEMU does not read, emit says so and writable() follows. */
#ifndef SBX_NET_CABLE_H
#define SBX_NET_CABLE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct cable;

struct cable_ops {
    void (*frame)(const uint8_t *frame, size_t len, void *arg); /* valid during the call */
    void (*batch_end)(void *arg); /* all that could be read for now was delivered */
    void (*writable)(void *arg);  /* after a cable_send that returned false */
    void (*closed)(const char *why, void *arg);
};

/* Takes fd.  NULL: no memory. */
struct cable *cable_new(struct event_base *base, int fd, const struct cable_ops *ops, void *arg);
void cable_free(struct cable *c);

/* False if the frame was not sent at all. */
bool cable_send(struct cable *c, const struct iovec *iov, int n, size_t len);

#endif
