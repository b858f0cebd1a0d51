/* The path of a request as rules compare it: decoded once, without "." and "..", without what servers read
 * differently.  Pure. */
#ifndef SBX_NET_URLPATH_H
#define SBX_NET_URLPATH_H

#include <stdbool.h>
#include <stddef.h>

#define URLPATH_MAX 2047

/* target: "/path?query", or "*".  Writes the normalised path without the query (RFC 3986 6.2.2: unreserved characters
 * decoded, hexadecimal digits in upper case, dot segments removed).  False if it cannot be told what a server would
 * make of it, or it is too long: an empty segment, an encoded slash, backslash, dot segment, percent or NUL, a
 * backslash or ';', an escape that is none (threats.md 41).  Where a rule speaks of paths such a request is refused. */
bool urlpath_normalise(const char *target, char out[URLPATH_MAX + 1]);

/* The path for the log: without the query, cut to fit, never refused. */
void urlpath_show(const char *target, char *out, size_t cap);

#endif
