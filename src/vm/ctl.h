/* Requests with replies on a link (docs/protocols.md): an id, a time limit, one callback. */
#ifndef SBX_VM_CTL_H
#define SBX_VM_CTL_H

#include <event2/event.h>

#include "core/link.h"

#define CTL_PENDING_MAX 512u

struct ctl;

/* reply is the whole message, borrowed; NULL when none came (time, link gone), then error says so.  error is
 * NULL exactly if the reply says ok. */
typedef void (*ctl_done)(void *arg, const json_t *reply, const char *error);

struct ctl *ctl_new(struct event_base *base);
/* Every outstanding request is answered with an error first. */
void ctl_free(struct ctl *c);

/* Adds the id and sends; msg is taken.  timeout_ms 0: none.  done may be NULL: then nothing is awaited and no id
 * is sent.  -1 (done is not called) if the link or the table is full. */
int ctl_send(struct ctl *c, struct link *l, json_t *msg, int timeout_ms, ctl_done done, void *arg);

/* Gives a message that arrived; true if it was a reply. */
bool ctl_take(struct ctl *c, const json_t *msg);

/* Forgets requests whose callback has this argument: their owner goes away. */
void ctl_forget(struct ctl *c, void *arg);

/* The reply to a request with that id (0: none was asked for).  more: further members, taken, may be NULL.
 * why NULL: ok. */
void ctl_reply(struct link *l, json_int_t id, const struct err *why, json_t *more);

#endif
