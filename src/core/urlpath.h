/* The path of a request as rules compare it: decoded once, without what servers read
 * differently.  Pure. */
#ifndef SBX_CORE_URLPATH_H
#define SBX_CORE_URLPATH_H

#include <stdbool.h>
#include <stddef.h>

#define URLPATH_MAX 2047

/* target: "/path?query", or "*".  Writes the normalised path without the query: what a rule can hold as plain text is
 * decoded, all else an escape with digits in upper case.  False if it cannot be told what a server would make of it, or
 * it is too long: an empty segment, one of dots and spaces, a backslash or ';' in any form, an escaped slash, dot, percent or
 * control byte, escapes that are no UTF-8, letters that fold into one of these, an escape that is none (threats.md 41).
 * Where a rule speaks of paths such a request is refused.  Case counts, and so does a dot at the end of a word: a server
 * that does not distinguish them needs rules on its whole host. */
bool urlpath_normalise(const char *target, char out[URLPATH_MAX + 1]);

/* The path for the log: without the query, cut to fit, never refused. */
void urlpath_show(const char *target, char *out, size_t cap);

#endif
