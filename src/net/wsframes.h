/* Frames of a WebSocket on their way from the server (RFC 6455 section 5): what data messages say is scrubbed, also where a
 * secret goes over the border of two fragments; everything keeps its length and its order.  Pure. */
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

#endif
