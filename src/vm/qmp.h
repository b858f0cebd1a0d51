/* QEMU's control protocol on a socket pair: calls that wait for their answer, and events.
 * Source: QEMU docs/interop/qmp-spec. */
#ifndef SBX_VM_QMP_H
#define SBX_VM_QMP_H

#include <event2/event.h>
#include <jansson.h>

#include "core/err.h"

struct qmp;

typedef void qmp_event_fn(const char *event, const json_t *data, void *arg);
typedef void qmp_closed_fn(void *arg);

/* Takes fd.  Events that come during a call are delivered during it. */
struct qmp *qmp_new(int fd, qmp_event_fn *event, qmp_closed_fn *closed, void *arg);
void qmp_free(struct qmp *q);

/* Reads the greeting and leaves negotiation mode. */
int qmp_start(struct qmp *q, int timeout_ms, struct err *e);

/* Executes a command; args is stolen and may be NULL; fd is passed along unless it is -1.  The answer's "return" (a
 * new reference) goes to *ret unless that is NULL.  -1: QEMU's own words in e, or a timeout, or it is gone. */
int qmp_call(struct qmp *q, const char *command, json_t *args, int fd, json_t **ret, int timeout_ms, struct err *e);

/* From now on events come from the loop. */
int qmp_watch(struct qmp *q, struct event_base *base);

#endif
