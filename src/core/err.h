/* One error idiom for all of sbx.
 *
 * A function that can fail takes a `struct err *` as its last argument and
 * returns 0 or a useful value on success, -1 (or NULL) on failure.  On failure,
 * and only then, it fills the error with one sentence for the user and the exit
 * status that a command ending on it should have.  The caller adds context at
 * most once, with err_wrap().  A NULL error is allowed everywhere. */
#ifndef SBX_CORE_ERR_H
#define SBX_CORE_ERR_H

enum status {
    STATUS_OK = 0,
    STATUS_FAILED = 1,    /* it was tried and failed */
    STATUS_USAGE = 2,     /* bad input; nothing was changed */
    STATUS_NOT_FOUND = 3, /* a name that does not exist */
    STATUS_DENIED = 4,    /* refused by policy */
    STATUS_TIMEOUT = 5,
};

struct err {
    int status; /* one of enum status; 0 while no error was set */
    char text[768];
};

/* Sets the error; the text is cut, never overrun.  Always returns -1. */
int err_set(struct err *e, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with ": <strerror(errnum)>" appended; status STATUS_FAILED.  Always returns -1. */
int err_errno(struct err *e, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<text>: " before an error that is already set.  Always returns -1. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
