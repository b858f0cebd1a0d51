/* A session of a sandbox joined to our own standard streams: `exec`, `attach`, and the end of `run`. */
#ifndef SBX_UI_SESSION_H
#define SBX_UI_SESSION_H

#include <jansson.h>
#include <stdbool.h>

#include "core/err.h"

struct session_request {
    const char *sandbox;
    json_t *argv;        /* borrowed; NULL: attach to `session` */
    json_int_t session;  /* to attach to; 0: the agent's, or the latest */
    json_t *env;         /* borrowed; may be NULL */
    const char *cwd, *user;
    bool tty;            /* a terminal for the program; ours is switched to raw mode if it is one */
    bool input;          /* our standard input is the program's */
    bool detach;         /* start it and leave */
    bool agent, login, read_only;
    void (*tick)(void *arg); /* about once a second meanwhile; may be NULL */
    void *tick_arg;
    int *interrupted; /* the last of INT, TERM and HUP that was passed on to the program; may be NULL */
};

/* Runs until the session ends, the user detaches or the sandbox goes away.  *status: the program's exit status, or
 * 128 + signal; 0 after a detach.  *session: its number. */
int session_run(const struct session_request *r, int *status, json_int_t *session, struct err *e);

/* Of a session as `status` lists it (docs/protocols.md): has it a terminal, and did it not end? */
bool session_is_live(const json_t *s);

#endif
