#include "vm/fs_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define STREAMS_MAX 64u

static struct dir_stream streams[STREAMS_MAX];

void stream_close(struct dir_stream *s)
{
    closedir(s->dir);
    node_unpin(s->node);
    s->node = NULL;
}

void streams_finish(void)
{
    for (struct dir_stream *s = streams; s < streams + STREAMS_MAX; s++)
        if (s->node)
            stream_close(s);
}

/* A stream of its own for n, in the place of the one that was longest unused.  NULL with errno. */
static struct dir_stream *stream_open(struct node *n)
{
    struct dir_stream *s = streams;
    for (struct dir_stream *t = streams; t < streams + STREAMS_MAX && s->node; t++)
        if (!t->node || t->used < s->used)
            s = t;
    if (s->node)
        stream_close(s);
    int at = node_fd(n);
    int fd = at < 0 ? (errno = -at, -1) : openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        errno = why;
        return NULL;
    }
    node_pin(n);
    *s = (struct dir_stream){.node = n, .dir = d};
    return s;
}

struct dir_stream *stream_at(struct node *n, off_t off)
{
    static uint64_t clock;
    struct dir_stream *s = streams;
    while (s < streams + STREAMS_MAX && (off == 0 || s->node != n || s->at != off))
        s++;
    if (s == streams + STREAMS_MAX) {
        s = stream_open(n);
        if (s && off) {
            seekdir(s->dir, off);
            s->at = off;
        }
    }
    if (s)
        s->used = ++clock;
    return s;
}
