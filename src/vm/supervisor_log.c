#include "vm/supervisor_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct bounded_log {
    char *path;
    int fd;
    size_t size, limit;
    char line[256], last[256];
    size_t line_len;
};

static int open_file(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
}

struct bounded_log *bounded_log_open(const char *path, size_t limit)
{
    struct bounded_log *l = calloc(1, sizeof *l);
    struct stat st;
    if (!l)
        return NULL;
    l->path = strdup(path);
    l->fd = l->path ? open_file(path) : -1;
    l->limit = limit;
    if (l->fd < 0) {
        bounded_log_close(l);
        return NULL;
    }
    l->size = fstat(l->fd, &st) == 0 ? (size_t)st.st_size : 0;
    return l;
}

static void rotate(struct bounded_log *l)
{
    char *old;
    if (asprintf(&old, "%s.1", l->path) < 0)
        return;
    if (rename(l->path, old) == 0) {
        close(l->fd);
        l->fd = open_file(l->path);
        l->size = 0;
    }
    free(old);
}

static void keep_line(struct bounded_log *l, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\n') {
            if (l->line_len < sizeof l->line - 1)
                l->line[l->line_len++] = p[i];
            continue;
        }
        if (l->line_len) {
            memcpy(l->last, l->line, l->line_len);
            l->last[l->line_len] = '\0';
        }
        l->line_len = 0;
    }
}

void bounded_log_write(struct bounded_log *l, const void *bytes, size_t n)
{
    if (!l)
        return;
    keep_line(l, bytes, n);
    if (l->size + n > l->limit)
        rotate(l);
    if (l->fd < 0)
        return;
    /* A full disk loses log lines; that must not end the sandbox. */
    ssize_t w = write(l->fd, bytes, n);
    if (w > 0)
        l->size += (size_t)w;
}

const char *bounded_log_last_line(const struct bounded_log *l)
{
    return l ? l->last : "";
}

void bounded_log_close(struct bounded_log *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        close(l->fd);
    free(l->path);
    free(l);
}
