/* Published ports: listeners on the host's loopback, each of whose connections is a channel to a port inside of the
 * machine (ctl `connect`).  The machine never reaches out through them.
 *
 * Back-pressure goes both ways: what one end does not take is not read from the other, so a connection holds at most one
 * window in each direction. */
#ifndef SBX_VM_PORTS_H
#define SBX_VM_PORTS_H

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>

#include "core/link.h"

#define PORTS_MAX 64u
#define PORTS_CONNECTIONS_MAX 64u /* of the sandbox; beyond, new ones wait in the kernel's queue */

struct ports;
struct ctl;

struct ports *ports_new(struct event_base *base);
void ports_free(struct ports *p);
/* NULL: the machine is gone, connections are cut; the listeners stay until ports_free or ports_apply. */
void ports_set_guest(struct ports *p, struct link *guest, struct ctl *requests);

/* Makes the listeners what the list says: [{"address": "127.0.0.1", "host": 8080, "guest": 3000}]; host 0 picks a free one
 * and is filled in.  -1 with the first that could not be opened, and why; the others stand. */
int ports_apply(struct ports *p, json_t *list, struct err *e);
/* True if the channel was one of ours. */
bool ports_data(struct ports *p, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len);
bool ports_eof(struct ports *p, uint16_t chan, unsigned stream);
bool ports_writable(struct ports *p, uint16_t chan, unsigned stream);

#endif
