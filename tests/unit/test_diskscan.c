/* net/diskscan: a secret of the host on a disk that others shall start from (threat 75). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "core/paths.h"
#include "net/diskscan.h"

#define VALUE "sk-proj-Zq8+real/KEY_0123456789abcdefXYZ"
#define USER "hubuser:dckr_pat_realREAL0123456789abcdef"

static char dir[] = "/tmp/sbx-diskscan-XXXXXX", path[100];

static void put(struct secretstore *s, const char *service, const char *value)
{
    const struct secret one = {.service = service, .scope = "", .form = "key", .value = value, .sentinel = value, .refresh = "", .command = ""};
    assert_int_equal(secretstore_put(s, &one, NULL), 0);
}

static void write_at(off_t at, const char *text)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 64 << 20), 0);
    assert_int_equal(pwrite(fd, text, strlen(text), at), (ssize_t)strlen(text));
    close(fd);
}

static int scan(const struct secretstore *s, char *service)
{
    struct err e = {0};
    service[0] = '\0';
    int rc = diskscan(path, s, service, 64, &e);
    assert_true(rc >= 0);
    return rc;
}

static void threat_75_a_secret_on_a_disk_is_found_wherever_it_stands(void **state)
{
    static const off_t places[] = {0, 1, 4096, (4 << 20) - 7, (4 << 20) - 1, 4 << 20, (24 << 20) + 3, (64 << 20) - 200};
    struct err e = {0};
    char service[64], text[512], base64[256];
    (void)state;
    struct secretstore *s = secretstore_begin(NULL, NULL, &e);
    assert_non_null(s);
    write_at(0, VALUE);
    assert_int_equal(scan(s, service), 0); /* there is no secret yet */
    put(s, "groq", "gsk_somethingELSE0123456789");
    put(s, "openai", VALUE);
    put(s, "docker", USER);
    put(s, "short", "password");
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        write_at(places[i], VALUE);
        assert_int_equal(scan(s, service), 1);
        assert_string_equal(service, "openai");
    }
    /* Across the pieces that it is read in. */
    char *full = malloc(9 << 20);
    for (size_t at = (4 << 20) - sizeof VALUE - 1; at <= 4 << 20; at++) {
        memset(full, 's', 9 << 20);
        memcpy(full + at, VALUE, sizeof VALUE - 1);
        if (at % 8 == 0 || at == 4 << 20) {
            full[(9 << 20) - 1] = '\0';
            write_at(0, full);
            assert_int_equal(scan(s, service), 1);
        }
    }
    free(full);
    for (unsigned k = 0; k < 3; k++) {
        snprintf(text, sizeof text, "%.*sOPENAI=" VALUE, (int)k, "xy");
        sodium_bin2base64(base64, sizeof base64, (const unsigned char *)text, strlen(text), sodium_base64_VARIANT_ORIGINAL);
        write_at(12345, base64);
        assert_int_equal(scan(s, service), 1);
    }
    write_at(777, "dckr_pat_realREAL0123456789abcdef"); /* without its user */
    assert_int_equal(scan(s, service), 1);
    assert_string_equal(service, "docker");
    write_at(777, "sk-proj-Zq8+real/KEY_0123456789abcdefXY and password, hubuser");
    assert_int_equal(scan(s, service), 0);
    secretstore_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threat_75_a_secret_on_a_disk_is_found_wherever_it_stands)};
    if (sodium_init() < 0 || !mkdtemp(dir))
        return 1;
    setenv("XDG_DATA_HOME", dir, 1);
    unsetenv("DBUS_SESSION_BUS_ADDRESS");
    snprintf(path, sizeof path, "%s/disk", dir);
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    path_remove_tree(dir, NULL);
    return rc;
}
