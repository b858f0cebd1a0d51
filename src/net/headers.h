/* A list of HTTP fields, for HTTP/1 and HTTP/2 alike.  Names are compared without regard to case (RFC 9110 5.1).
 * The list owns copies of all that is added; memory is bounded by HEADERS_BYTES_MAX and HEADERS_MAX. */
#ifndef SBX_NET_HEADERS_H
#define SBX_NET_HEADERS_H

#include <stdbool.h>
#include <stddef.h>

#define HEADERS_MAX 128u
#define HEADERS_BYTES_MAX (64u * 1024u)

struct header {
    char *name, *value; /* NUL-terminated; neither holds a NUL of its own */
    size_t name_len, value_len;
};

struct headers {
    struct header v[HEADERS_MAX];
    size_t n, bytes;
};

void headers_init(struct headers *h);
void headers_finish(struct headers *h);

/* Copies.  False if the list is full, or there is no memory: the message must then be refused. */
bool headers_add(struct headers *h, const char *name, size_t name_len, const char *value, size_t value_len);
bool headers_add_text(struct headers *h, const char *name, const char *value);
/* Is there one that a server could take for that name ("_" for "-" included)? */
bool headers_could_have(const struct headers *h, const char *name);
/* Removes every field that a server could take for that name ("_" for "-" included); counts. */
size_t headers_remove(struct headers *h, const char *name);
/* Removes all, then adds one: no second copy survives (threat 73). */
bool headers_set(struct headers *h, const char *name, const char *value);
/* Replaces the value of one field. */
bool headers_replace(struct headers *h, size_t i, const char *value, size_t value_len);
void headers_remove_at(struct headers *h, size_t i);
/* Wipes every value: what is written is not kept. */
void headers_clear_secret(struct headers *h);
/* The first of that name, or NULL. */
const struct header *headers_get(const struct headers *h, const char *name);
size_t headers_count(const struct headers *h, const char *name);
/* Whether a field of that name has this token in its comma-separated list (RFC 9110 5.6.1), in any case. */
bool headers_has_token(const struct headers *h, const char *name, const char *token);

bool header_is(const struct header *h, const char *name);

#endif
