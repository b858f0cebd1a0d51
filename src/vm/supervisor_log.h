/* A log file within a bound: at the limit it becomes FILE.1 and a new one begins, so that the last limit bytes
 * are always there. */
#ifndef SBX_VM_SUPERVISOR_LOG_H
#define SBX_VM_SUPERVISOR_LOG_H

#include <stddef.h>

#define LOG_MAX (4u << 20)

struct bounded_log;

/* Appends to what is there. NULL: cannot be opened. */
struct bounded_log *bounded_log_open(const char *path, size_t limit);
void bounded_log_write(struct bounded_log *l, const void *bytes, size_t n);
/* The last line that was written (without a newline), for "it ended: ...". */
const char *bounded_log_last_line(const struct bounded_log *l);
void bounded_log_close(struct bounded_log *l);

#endif
