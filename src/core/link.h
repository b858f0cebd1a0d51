/* Frames: the one framing of the ctl port, between our processes, and on the
 * client socket.  A pure engine: bytes in, callbacks and bytes out; it knows no
 * descriptor (core/linkev.h is its libevent glue on the host, src/guest has its own).
 * Shared by host and guest as one source.
 *
 * A frame is an 8-byte header, little-endian { u32 length; u8 type; u8 stream; u16 chan }
 * and `length` bytes of payload, at most LINK_PAYLOAD_MAX.
 *   FRAME_CTRL    chan 0, payload one JSON object; to whom takes large ones (link_large) of at most LINK_CTRL_MAX
 *   FRAME_DATA    bytes of stream `stream` of channel `chan`
 *   FRAME_EOF     no payload: the stream ends
 *   FRAME_CREDIT  u32: that many more bytes of the stream may be sent
 *
 * Each stream of a channel has a window in each direction: LINK_WINDOW bytes may be
 * sent before the receiver grants more, which it does as its consumer takes the
 * bytes (link_consumed).  So memory is bounded by channels x streams x window, and a
 * stream that nobody reads stalls alone.  Channels are served in turn, one frame
 * each; control frames and credits go first, urgent streams (keystrokes) next.
 *
 * Protocol errors (link_feed returns -1, the link must be dropped): unknown type or
 * stream, oversized length, bad JSON, data beyond the credit, credit overflow, a peer
 * that lets more than LINK_CTRL_QUEUE_MAX of control frames pile up.  Frames for a
 * channel that is not open are discarded: close and data may cross on the way. */
#ifndef SBX_CORE_LINK_H
#define SBX_CORE_LINK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/err.h"

#define LINK_HEADER 8u
#define LINK_PAYLOAD_MAX 65536u
#define LINK_WINDOW (256u * 1024u)
#define LINK_STREAMS 4u
#define LINK_CHANNELS_MAX 256u /* open at a time; ids are 1..65535 */
/* A command's arguments, as many as its kernel takes (execve(2)), and the files that a machine starts with. */
#define LINK_CTRL_MAX (3u * 1024u * 1024u)
#define LINK_CTRL_QUEUE_MAX (4u * 1024u * 1024u)
/* link_output wants at least this much room. */
#define LINK_OUTPUT_MIN (LINK_HEADER + LINK_PAYLOAD_MAX)

struct link;

/* Callbacks; any may be NULL.  Inside of them every link_* call on the same link is
 * allowed, link_free included. */
struct link_ops {
    /* msg is borrowed. */
    void (*ctrl)(struct link *l, json_t *msg, void *arg);
    /* The bytes count against the window until link_consumed() is called for them. */
    void (*data)(struct link *l, uint16_t chan, unsigned stream, const uint8_t *buf,
                 size_t len, void *arg);
    void (*eof)(struct link *l, uint16_t chan, unsigned stream, void *arg);
    /* Credit arrived for a stream on which link_send_data took less than was offered. */
    void (*writable)(struct link *l, uint16_t chan, unsigned stream, void *arg);
    /* There is output where there was none. */
    void (*kick)(struct link *l, void *arg);
};

/* Neither pointer is copied or freed; both must outlive the link.  NULL: no memory. */
struct link *link_new(const struct link_ops *ops, void *arg);
void link_free(struct link *l);

/* Control messages of more than LINK_PAYLOAD_MAX: may they be sent (the peer takes them), and are they taken?  From a guest
 * none is: what it can have us parse stays small.  At first neither. */
void link_large(struct link *l, bool sends, bool takes);

/* Takes bytes of the peer.  0, or -1 on a protocol error with the reason in e. */
int link_feed(struct link *l, const void *buf, size_t len, struct err *e);

/* Fills buf with frames, whole ones but for large control messages; cap must be LINK_OUTPUT_MIN or more.  Returns bytes, 0 if none. */
size_t link_output(struct link *l, void *buf, size_t cap);
bool link_has_output(const struct link *l);

/* Queues a control message; takes the reference (also on failure).  -1: it is too large, and nothing happened; or the queue
 * is full, or there is no memory: the link is then beyond use (its next link_feed fails too). */
int link_send_ctrl(struct link *l, json_t *msg);
/* The same for who wrote the object down himself; NULL: there was no memory for it. */
int link_send_text(struct link *l, const char *text);

/* Declares a channel on this side.  urgent: bit mask of streams whose data is sent before other
 * channels' data.  -1: id 0, in use, or too many. */
int link_open(struct link *l, uint16_t chan, unsigned urgent);
/* Forgets the channel and what is still queued for it. */
void link_close(struct link *l, uint16_t chan);
bool link_is_open(const struct link *l, uint16_t chan);
/* A free id, rotating so that ids are not soon reused; 0 if LINK_CHANNELS_MAX are open. */
uint16_t link_pick(struct link *l);

/* Takes as much of buf as the credit allows and returns how much that is; `writable` is called
 * when it is worth trying again. */
size_t link_send_data(struct link *l, uint16_t chan, unsigned stream, const void *buf, size_t len);
size_t link_credit(const struct link *l, uint16_t chan, unsigned stream);
/* Ends the stream after what was queued.  More data is then ignored. */
void link_send_eof(struct link *l, uint16_t chan, unsigned stream);
/* True while data or EOF of that stream still waits inside this link. */
bool link_queued(const struct link *l, uint16_t chan, unsigned stream);

/* The consumer took n bytes that `data` delivered: the peer may send as many again. */
void link_consumed(struct link *l, uint16_t chan, unsigned stream, size_t n);

#endif
