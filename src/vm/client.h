/* The client socket: any `sbx` of the same user (docs/protocols.md, "client"). */
#ifndef SBX_VM_CLIENT_H
#define SBX_VM_CLIENT_H

#include <event2/event.h>
#include <jansson.h>

#include "core/err.h"
#include "core/link.h"

#define CLIENTS_MAX 256u

struct clients;
struct supervisor;

/* Listens on $XDG_RUNTIME_DIR/sbx/NAME.sock, and says in the sandbox's folder that it is there. */
struct clients *clients_new(struct supervisor *s, struct err *e);
/* Says the last words (up to a second) and closes; the socket is removed. */
void clients_free(struct clients *c);

/* Looks whether the socket is still there: with the last login of a user its runtime folder goes.  It is put where it belongs
 * now. */
void clients_tend(struct clients *c);

/* The status changed: those who watch are told, at most ten times a second. */
void clients_changed(struct clients *c);

/* The broker asks something (op "ask"), or does not any more ("asked"): those who answer questions are told. */
void clients_question(struct clients *c, json_t *msg);
/* How many are open. */
unsigned clients_questions(const struct clients *c);

#endif
