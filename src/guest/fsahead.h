/* Directories read ahead of look-ups, by the relay of FUSE messages (fsrelay.c). */
#ifndef SBX_GUEST_FSAHEAD_H
#define SBX_GUEST_FSAHEAD_H

#include <stddef.h>

/* Tells of a message that goes from the kernel to the host (struct fuse_in_header, linux/fuse.h).  One thread only. */
void fsahead_saw(const void *msg, size_t len);
/* A thread that reads directories; never returns.  Several: each request for a directory has its turn among the look-ups
 * that it is to save, and who looks things up may have many threads. */
#define FSAHEAD_THREADS 8
void *fsahead_run(void *arg);

#endif
