/* Frozen machines: a machine that was booted once, stopped where sbx-guest waits for its orders, and is cloned from
 * then on (design.md, "Starting is cloning"; machine.md, section 3).
 *
 * Theory of operation.  The memory is a memfd, sealed so that no clone can change it; the rest of the machine is
 * a state of some hundred kB.  Every supervisor that runs a clone holds both and hands them to its siblings on
 * request (the socket NAME.tmpl, same user only), so that all clones share their pages.  When no sibling has
 * them they come from a sparse file in the cache.  Nothing secret and nothing of a sandbox is in either.  A key names all that must
 * be equal for a clone to fit; what does not fit is never loaded. */
#ifndef SBX_VM_TEMPLATE_H
#define SBX_VM_TEMPLATE_H

#include <event2/event.h>
#include <stddef.h>

#include "core/err.h"
#include "vm/qemu.h"

#define TEMPLATE_KEY_LEN 64 /* hex digits */
#define TEMPLATE_STATE_MAX (16u << 20)

struct frozen {
    char key[TEMPLATE_KEY_LEN + 1];
    int ram; /* sealed memfd, once it is whole */
    struct frozen_copy *copy; /* fills it; NULL: it is whole */
    unsigned char *state;
    size_t state_len;
};

/* The key of machines like q: its kind, the QEMU program, and the files behind its descriptors.  prepared (may be NULL)
 * names what such a machine wrote to a fresh disk before it was frozen; the parents of q's disk then count as well. */
int template_key(const struct qemu *q, const char *prepared, char key[TEMPLATE_KEY_LEN + 1], struct err *e);

void frozen_init(struct frozen *f);
void frozen_finish(struct frozen *f);

/* A memfd of that size for a machine that is to be frozen, and one for its state. */
int frozen_new_ram(unsigned memory_mib, struct err *e);
int frozen_new_state(struct err *e);

/* Seals what a machine left (QEMU must have ended) and reads the state; takes both descriptors, always. */
int frozen_take(struct frozen *f, const char *key, int ram, int state, struct err *e);

/* From a sibling, else from the cache.  0, or 1 if there is none; -1 on failure.  From the cache it is not whole yet: a
 * thread copies it, so that QEMU can start meanwhile, which only looks at it when it is told to load the state. */
int frozen_find(struct frozen *f, const char *key, unsigned memory_mib, struct err *e);

/* Readable once it is whole; -1: it is. */
int frozen_copy_fd(const struct frozen *f);
/* Waits for that and seals it; not before may a machine run on it. */
int frozen_complete(struct frozen *f, struct err *e);

/* Writes it to the cache in a child process of its own, nice, and drops old ones there.  The child's pid, or -1. */
int frozen_keep(const struct frozen *f);
/* Removes what does not work from the cache. */
void frozen_discard(const char *key);

/* A descriptor from which one clone reads its state. */
int frozen_state_fd(const struct frozen *f, struct err *e);

/* Hands f to siblings, on the socket NAME.tmpl.  NULL (with a log line) if that is not possible: nothing depends on it. */
struct frozen_server;
struct frozen_server *frozen_serve(struct event_base *base, const char *name, const struct frozen *f);
void frozen_server_free(struct frozen_server *s);

#endif
