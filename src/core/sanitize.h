/* Text that a guest or a server chose, made safe to show in a terminal or to store in a log. */
#ifndef SBX_CORE_SANITIZE_H
#define SBX_CORE_SANITIZE_H

#include <stddef.h>

/* Writes in[0..len) to out as one line of well-formed UTF-8: C0, DEL and C1 controls, bidirectional
 * controls, line separators, other format characters and malformed bytes become \xHH or \u{HHHH}; a
 * backslash stays one.  Always NUL-terminated, cut at a character if out is too small (4 * len + 1 is
 * always enough for bytes, 8 * len + 1 for all).  Returns the length written. */
size_t sanitize_line(char *out, size_t cap, const char *in, size_t len);

/* One code point of well-formed UTF-8 (RFC 3629) at p: returns its length, 0 if malformed or cut. */
size_t sanitize_utf8(const unsigned char *p, size_t len, unsigned *code);

#endif
