/* QEMU's monitor protocol over one stream socket.  The supervisor holds the only end; the socket is worth
 * as much as the machine. */
#ifndef SBX_VM_QMP_H
#define SBX_VM_QMP_H

#include <event2/event.h>
#include <jansson.h>

struct qmp;

struct qmp_ops {
    void (*event)(struct qmp *q, const char *name, json_t *data, void *arg);
    /* The last callback: QEMU closed the socket or broke the protocol. */
    void (*closed)(struct qmp *q, void *arg);
};

/* result is borrowed, NULL if the command failed with `error`. */
typedef void (*qmp_done)(void *arg, json_t *result, const char *error);

/* Takes fd on success; negotiates by itself, commands may be sent at once. */
struct qmp *qmp_new(struct event_base *base, int fd, const struct qmp_ops *ops, void *arg);
void qmp_free(struct qmp *q); /* outstanding commands are forgotten */

/* Sends a command; args (may be NULL) is taken.  pass: a descriptor to send along, or -1.  done may be NULL.
 * -1 if the socket is gone or full. */
int qmp_command(struct qmp *q, const char *name, json_t *args, int pass, qmp_done done, void *arg);

/* The pure part, for tests: splits a stream into its JSON lines. */
#define QMP_LINE_MAX (1024u * 1024u)
struct qmp_lines {
    char *buf;
    size_t len, cap;
};
/* Calls `line` for each whole object; -1 on bad JSON or an overlong line. */
int qmp_lines_feed(struct qmp_lines *l, const char *bytes, size_t n, void (*line)(void *arg, json_t *msg),
                   void *arg);
void qmp_lines_finish(struct qmp_lines *l);

#endif
