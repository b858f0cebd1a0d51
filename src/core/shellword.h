/* Commands that are shown, to be copied into a shell. */
#ifndef SBX_CORE_SHELLWORD_H
#define SBX_CORE_SHELLWORD_H

#include <stdbool.h>
#include <stddef.h>

#define SHELL_WORD_MAX(n) (4 * (n) + 3)

/* The text as one word of a shell's command line: as it is, or in quotes that nothing in it ends.  What a guest chose
 * stands in such commands (a path, a method).  False, and out is empty, if it does not fit. */
bool shell_word(char *out, size_t cap, const char *text);

#endif
