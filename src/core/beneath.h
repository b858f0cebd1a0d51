/* Opening what lies beneath a folder that a sandbox can write to: it may put a link in the place of anything, at any time. */
#ifndef SBX_CORE_BENEATH_H
#define SBX_CORE_BENEATH_H

#include <sys/types.h>

/* As openat2(2): rel from the directory top, through no symbolic link, and never out of it.  O_CLOEXEC, O_NOCTTY and
 * O_NONBLOCK are added (a pipe in the place of a file holds nobody; to O_PATH only the first); mode is for O_CREAT, else 0.  -1 with errno. */
int open_beneath(int top, const char *rel, int flags, mode_t mode);

#endif
