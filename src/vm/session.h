/* Sessions: what runs in the machine for somebody, and who looks at it.
 *
 * Theory of operation.  A session is a channel of the guest's link.  One with a terminal passes through the
 * screen process, which keeps its screen and returns a filtered stream that goes to every viewer; one without
 * is joined to a single client.  Bytes are taken from one link only as another accepts them (or nobody wants
 * them), so each stream holds at most one window.  The exception are viewers of a terminal: the session never
 * waits for them.  What a slow one does not take is dropped, and it gets a fresh painting of the screen when it
 * reads again.
 *
 * A viewer is at any time: waiting for a painting, being painted (what is newer than the painting is kept
 * for after it, within a bound), live, or behind. */
#ifndef SBX_VM_SESSION_H
#define SBX_VM_SESSION_H

#include <event2/event.h>
#include <jansson.h>

#include "core/link.h"

#define SESSIONS_MAX 200u
#define SESSION_VIEWERS_MAX 64u
#define SESSION_ENDED_MAX 64u               /* ended ones whose status nobody asked for */
#define SESSION_LIVE_MAX (256u * 1024u)     /* queued for a viewer that is live */
#define SESSION_PAINT_MAX (8u * 1024u * 1024u)

struct sessions;
struct ctl;

struct sessions_ops {
    void (*changed)(void *arg);
};

/* scrollback: lines kept for each terminal. */
struct sessions *sessions_new(struct event_base *base, unsigned scrollback, const struct sessions_ops *ops,
                              void *arg);
void sessions_free(struct sessions *ss);

/* The links, and the tables for requests on them (whose owner gives them the replies); NULL when a link is
 * gone.  With a new screen process the screens start empty. */
void sessions_set_guest(struct sessions *ss, struct link *guest, struct ctl *requests);
void sessions_set_screen(struct sessions *ss, struct link *screen, struct ctl *requests);

/* Variables that every session gets, under those that its request brings (sentinels: they change while it runs). */
void sessions_set_env(struct sessions *ss, json_t *env);
/* The folder that sessions start in when they name none; NULL: the guest's choice, the first folder.  Not copied. */
void sessions_set_cwd(struct sessions *ss, const char *cwd);

/* What arrives on them. */
void sessions_guest_data(struct sessions *ss, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len);
void sessions_guest_eof(struct sessions *ss, uint16_t chan, unsigned stream);
void sessions_guest_writable(struct sessions *ss, uint16_t chan, unsigned stream);
bool sessions_guest_ctrl(struct sessions *ss, const json_t *msg); /* true if it was theirs */
void sessions_screen_data(struct sessions *ss, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len);
void sessions_screen_eof(struct sessions *ss, uint16_t chan, unsigned stream);
void sessions_screen_writable(struct sessions *ss, uint16_t chan, unsigned stream);
bool sessions_screen_ctrl(struct sessions *ss, const json_t *msg);

/* Requests of a client (docs/protocols.md); each answers on the client's link by itself. */
void sessions_exec(struct sessions *ss, struct link *client, const json_t *msg);
void sessions_attach(struct sessions *ss, struct link *client, const json_t *msg);
void sessions_signal(struct sessions *ss, struct link *client, const json_t *msg); /* signal and kill */
void sessions_text(struct sessions *ss, struct link *client, const json_t *msg);
void sessions_resize(struct sessions *ss, struct link *client, const json_t *msg);
/* Draws the whole history and the screen anew for one viewer that lost output: it did not read fast enough. */
void sessions_repaint(struct sessions *ss, struct link *client, const json_t *msg);
void sessions_detach(struct sessions *ss, struct link *client, uint16_t chan);
void sessions_client_data(struct sessions *ss, struct link *client, uint16_t chan, unsigned stream,
                          const uint8_t *buf, size_t len);
void sessions_client_eof(struct sessions *ss, struct link *client, uint16_t chan, unsigned stream);
void sessions_client_writable(struct sessions *ss, struct link *client, uint16_t chan, unsigned stream);
void sessions_client_gone(struct sessions *ss, struct link *client);

/* For status: a new array. */
json_t *sessions_json(const struct sessions *ss);
unsigned sessions_count(const struct sessions *ss);

#endif
