/* Looks at what a guest says first on a connection without TLS: is it HTTP?  Then it names a host, which has to be the one
 * that was asked for, on whatever port: front-ends serve many hosts in plain text on 8080 and its like. Pure. */
#ifndef SBX_NET_PLAINHELLO_H
#define SBX_NET_PLAINHELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum plainhello { PLAINHELLO_MORE, PLAINHELLO_HTTP, PLAINHELLO_OTHER };

/* Looks at all bytes that came so far, from the first.  HTTP is what a lenient server could take for a request, well formed
 * or not: a first line, blanks and empty ones before it left out, that begins with a word and speaks of "HTTP/" (of any
 * version, PRI as well); or one so long that it cannot be told any more.  end: no more will come, so it is never MORE. */
enum plainhello plainhello_read(const uint8_t *p, size_t n, bool end);

#endif
