/* Frames of a WebSocket (RFC 6455 section 5).  On their way from the server: what data messages say is scrubbed, also where a
 * secret goes over the border of two fragments; everything keeps its length and its order.  On their way from the guest:
 * what data messages say is searched as one stream, over the borders of fragments and messages, and each control frame by
 * itself; they are passed on as they are.  Pure. */
#ifndef SBX_NET_WSFRAMES_H
#define SBX_NET_WSFRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/scrub.h"

struct wsframes;

struct wsframes *wsframes_new(struct scrub_set *set);
void wsframes_free(struct wsframes *w);
/* Room that wsframes_feed needs behind n bytes of input. */
size_t wsframes_room(const struct wsframes *w);
/* False: masked, an extension's bit, or a form that the RFC forbids; the connection must end. */
bool wsframes_feed(struct wsframes *w, const uint8_t *in, size_t n, uint8_t *out, size_t *out_len);

/* For wsframes_search alone. */
struct wsframes *wsframes_new_from_guest(struct scrub_set *set);
/* *found: the mark of what was found, whose last byte is in this piece; 0: nothing was.  False as of wsframes_feed, but what
 * is not masked is what may not be. */
bool wsframes_search(struct wsframes *w, const uint8_t *in, size_t n, uint64_t *found);

#endif
