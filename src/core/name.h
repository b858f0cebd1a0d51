/* Host names in their one canonical form: lower case, no trailing dot, labels of 1 to 63 letters, digits,
 * '-' and '_' that neither begin nor end with '-', at most 253 bytes (RFC 1035, RFC 5890; '_' as names in
 * use have it).  What is decided, dialled, logged and compared is this form and no other. */
#ifndef SBX_CORE_NAME_H
#define SBX_CORE_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_MAX_LEN 253

/* in[0..len) to out (NUL-terminated, NAME_MAX_LEN + 1 bytes of room).  One trailing dot is accepted.  False
 * for what is no name: other bytes, empty or long labels, and everything that inet_aton or inet_pton would
 * read as an address ("127.1", "0x7f000001", "2130706433", "::1"), whose last label is a number (RFC 1123). */
bool name_canonical(const char *in, size_t len, char out[NAME_MAX_LEN + 1]);

/* True if `text` is in canonical form already. */
bool name_is_canonical(const char *text, size_t len);

#endif
