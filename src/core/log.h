/* Log lines of our processes: "2026-01-31T12:00:00.123Z net[123]: text" on standard error, which the
 * supervisor keeps in the sandbox's sbx.log.  Text of the guest is made printable here, always. */
#ifndef SBX_CORE_LOG_H
#define SBX_CORE_LOG_H

#include <stdint.h>

/* The name in front of every line; kept by reference. */
void log_init(const char *role);

/* One line; what is not printable in the result is escaped (core/sanitize.h). */
void log_line(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* For what a guest can cause at will: at most `burst` lines in ten seconds for each call site's state; what
 * was held back is counted in the next line. */
struct log_rate {
    int64_t since_ms;
    unsigned used, held;
};
void log_rated(struct log_rate *r, unsigned burst, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
