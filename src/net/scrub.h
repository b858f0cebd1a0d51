/* Replaces secrets in a stream by their sentinels, whatever way the stream is cut into pieces.
 *
 * A needle is one spelling of a secret: raw; Base64 in its three alignments and two alphabets; percent-encoded (what must
 * be, or every byte, in either case of the digits); with JSON's escapes (of every character, or as common encoders write
 * them).  Its replacement is the same spelling of
 * the sentinel and of the same length, so that lengths that were announced stay true and nothing can be learnt from them.
 *
 * The output is the same for every way to split the input: at each position the longest needle wins, and what could still
 * become a needle is held back (never more than that, and not where sentinel and secret are the same).  Matching looks at blocks of two bytes and skips (Wu and Manber,
 * "A fast algorithm for multi-pattern searching", 1994), so that ordinary text passes at memory speed.
 *
 * Pure: no I/O.  The needles are secrets: everything is wiped when it is freed. */
#ifndef SBX_NET_SCRUB_H
#define SBX_NET_SCRUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCRUB_SECRETS_MAX 192u
/* Bytes of a held prefix, beyond those that the sentinel has as well: a shorter end of a stream says too little of a secret,
 * and would confirm guesses. */
#define SCRUB_TELLING 12u

struct scrub_set; /* needles; shared by streams */
struct scrub;     /* one stream */

struct scrub_set *scrub_set_new(void);
/* value and sentinel have the same length, at least 8; others are an error.  False: no memory, too many, or that. */
bool scrub_set_add(struct scrub_set *set, const char *value, const char *sentinel);
/* After the last one; before the first stream. */
bool scrub_set_ready(struct scrub_set *set);
struct scrub_set *scrub_set_ref(struct scrub_set *set);
void scrub_set_unref(struct scrub_set *set);
/* The same; scrub_watch gives `mark`, which is not 0, where it stands. */
bool scrub_set_add_marked(struct scrub_set *set, const char *value, const char *sentinel, uint64_t mark);
/* The most bytes that a stream may hold back. */
size_t scrub_set_hold(const struct scrub_set *set);

/* Keeps a reference to the set. */
struct scrub *scrub_new(struct scrub_set *set);
void scrub_free(struct scrub *s);
/* in[0..n) is fed; what can be passed on is written to out, which has room for n + scrub_set_hold() bytes.  Returns its
 * length. */
size_t scrub_feed(struct scrub *s, const uint8_t *in, size_t n, uint8_t *out);
/* The stream ends: what was held back, with a telling beginning of a secret replaced as well. */
size_t scrub_end(struct scrub *s, uint8_t *out);
/* Bytes held back now. */
size_t scrub_held(const struct scrub *s);
/* Replacements so far. */
unsigned scrub_count(const struct scrub *s);

/* A stream that is searched alone: it is passed on as it came, up to the piece that holds a needle's last byte. */
struct scrub_watch;
/* Keeps a reference to the set; bounded by its longest needle. */
struct scrub_watch *scrub_watch_new(struct scrub_set *set);
void scrub_watch_free(struct scrub_watch *w);
/* The mark of a needle whose last byte is among in[0..n), whatever pieces it came in; 0: there is none. */
uint64_t scrub_watch(struct scrub_watch *w, const uint8_t *in, size_t n);

/* A text of its own, in place; true if something was replaced. */
bool scrub_text(struct scrub_set *set, char *text, size_t len);
/* The mark of a needle that stands in a text; 0: there is none. */
uint64_t scrub_find(const struct scrub_set *set, const char *text, size_t len);

#endif
