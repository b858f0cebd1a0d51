/* Directories that the guest is reading.  A READDIR names a directory and the cookie behind the last entry that it has;
 * where somebody reads on, the stream that stands there is mostly still open. */
#ifndef SBX_VM_FS_STREAM_H
#define SBX_VM_FS_STREAM_H

#include <dirent.h>

#include "vm/fs_node.h"

struct dir_stream {
    struct node *node; /* pinned; NULL: free */
    DIR *dir;
    off_t at;          /* the cookie at which it stands; kept by who reads */
    uint64_t used;
};

/* The stream that stands at that cookie of the directory n (0: its begin, read afresh).  Stays the table's, which closes
 * the one longest unused for another: valid until the next call.  NULL with errno. */
struct dir_stream *stream_at(struct node *n, off_t off);
void stream_close(struct dir_stream *s);
void streams_finish(void);

#endif
