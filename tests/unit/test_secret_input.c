/* ui/cli/secret_input: what a command prints, and one that does not end. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "ui/cli/secret.h"

static char out[256], pids[] = "/tmp/sbx-secret-input-XXXXXX";

static void prints(const char *command, const char *what)
{
    struct err e = {0};
    if (secret_run(command, 60, out, sizeof out, &e) < 0)
        fail_msg("%s: %s", command, e.text);
    assert_string_equal(out, what);
}

static void fails(const char *command, const char *says)
{
    struct err e = {0};
    assert_int_equal(secret_run(command, 60, out, sizeof out, &e), -1);
    if (!strstr(e.text, says))
        fail_msg("%s: \"%s\" does not say \"%s\"", command, e.text, says);
}

static void what_it_prints_is_the_value(void **state)
{
    (void)state;
    prints("echo key-0123456789", "key-0123456789");
    prints("printf 'key-0123456789\\r\\n\\n'", "key-0123456789");
    prints("printf key-; sleep 0.2; printf 0123456789", "key-0123456789");
    fails("true", "nothing");
    fails("echo key-0123456789; exit 3", "status 3");
    fails("kill -TERM $$", "status 143");
    fails("printf 'a\\0b'", "binary");
    fails("head -c 300 /dev/zero | tr '\\0' a", "more than 255 bytes");
    fails("no-such-program-of-sbx 2>/dev/null", "status 127");
}

/* How many processes have written their numbers into the file; whether those have ended. */
static int started(bool *ended)
{
    FILE *f = fopen(pids, "r");
    int pid, seen = 0;
    *ended = true;
    while (f && fscanf(f, "%d", &pid) == 1) {
        *ended &= kill(pid, 0) < 0 && errno == ESRCH;
        seen++;
    }
    if (f)
        fclose(f);
    return seen;
}

/* It says nothing, it says a part, it says all and does not end: after its time it is ended, with what it started. */
static void it_has_a_limited_time(void **state)
{
    static const char *const slow[] = {"sleep 600", "printf key-0123; sleep 600", "echo key-0123456789; exec >&-; sleep 600"};
    (void)state;
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        char command[400], within[40];
        bool ended;
        snprintf(command, sizeof command, "sleep 601 & echo $! > %s; echo $$ >> %s; %s", pids, pids, slow[i]);
        assert_int_equal(truncate(pids, 0), 0);
        for (unsigned limit = 1; limit < 100; limit *= 4) { /* a machine that stalls may not have begun it in a second */
            struct err e = {0};
            assert_int_equal(secret_run(command, limit, out, sizeof out, &e), -1);
            assert_int_equal(e.status, STATUS_TIMEOUT);
            snprintf(within, sizeof within, "within %u seconds", limit);
            assert_non_null(strstr(e.text, within));
            if (started(&ended) == 2)
                break;
        }
        assert_int_equal(started(&ended), 2);
        for (int k = 0; !ended && k < 3000; k++) { /* whose parent reaps them in its time */
            usleep(20000);
            started(&ended);
        }
        assert_true(ended);
    }
}

static int setup(void **state)
{
    (void)state;
    int fd = mkstemp(pids), null = open("/dev/null", O_RDWR);
    close(fd);
    return fd < 0 || dup2(null, 0) < 0; /* without a terminal */
}

static int teardown(void **state)
{
    (void)state;
    return unlink(pids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_it_prints_is_the_value), cmocka_unit_test(it_has_a_limited_time)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
