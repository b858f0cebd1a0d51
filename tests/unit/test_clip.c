/* What a guest may bring into the user's clipboard. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ui/clip.h"

static void text_becomes_one_sequence(void **state)
{
    (void)state;
    size_t n = 0;
    char *s = clip_sequence("ZXZpbA==", &n);
    assert_string_equal(s, "\033]52;c;ZXZpbA==\a");
    assert_int_equal(n, 4);
    free(s);
}

static void what_is_no_text_becomes_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "?", "ZX?A", "ZXZp\a\033[21t", "ZXZp;x", "====", "Z=XZ", "ZXZp\n"};
    size_t n;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_null(clip_sequence(bad[i], &n));
    assert_null(clip_sequence(NULL, &n));
    char *much = malloc(CLIP_MAX + 2);
    memset(much, 'A', CLIP_MAX + 1);
    much[CLIP_MAX + 1] = '\0';
    assert_null(clip_sequence(much, &n));
    free(much);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(text_becomes_one_sequence), cmocka_unit_test(what_is_no_text_becomes_none)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
