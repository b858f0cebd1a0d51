/* text.c: text put together without printf.  An emulated machine translates what it runs for the first time, and a clone's
 * first answers need nothing else of what prints in every way.  Both write from at, never at end or beyond it, put no zero
 * behind it, and return where it ends. */
#ifndef SBX_GUEST_TEXT_H
#define SBX_GUEST_TEXT_H

#include <stddef.h>
#include <stdint.h>

char *text_add(char *at, char *end, const char *text);
char *text_number(char *at, char *end, int64_t v);

/* The texts up to NULL in buf, cut to fit, with a zero behind them. */
void text_join(char *buf, size_t cap, const char *first, ...) __attribute__((sentinel));

#endif
