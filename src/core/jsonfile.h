/* JSON files that are replaced whole: readers see the old or the new one, never a part. */
#ifndef SBX_CORE_JSONFILE_H
#define SBX_CORE_JSONFILE_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "core/err.h"

#define JSONFILE_MAX (4u * 1024u * 1024u)

/* The object in a regular file of at most JSONFILE_MAX bytes; duplicate keys are an error.  NULL with
 * STATUS_NOT_FOUND if there is no such file, STATUS_FAILED (with line and column) if it is unusable. */
json_t *jsonfile_read(const char *path, struct err *e);

/* Writes beside, syncs and renames; mode for the new file.  value is borrowed. */
int jsonfile_write(const char *path, const json_t *value, mode_t mode, struct err *e);

/* The same for a file of the user's, which may be a link to one that is kept elsewhere: that one is written, and keeps its
 * mode.  In a folder that holds the home it is written in place: a broker, whose view ends at the file there, could not read
 * another one. */
int jsonfile_update(const char *path, const json_t *value, mode_t mode, struct err *e);
/* Is the user's home that folder, or in it? */
bool path_holds_home(const char *dir);

/* jsonfile_write for text. */
int file_replace(const char *path, const void *data, size_t len, mode_t mode, struct err *e);

/* Takes the exclusive lock of `path` (a file "<path>.lock" beside it), waiting for it: read, change and
 * write under one lock.  Returns a descriptor to close, or -1. */
int jsonfile_lock(const char *path, struct err *e);

#endif
