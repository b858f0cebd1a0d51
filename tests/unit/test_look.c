/* Looking for an answer instead of sleeping: as long as it pays, and never for long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "net/look.h"

static void goes_on_where_answers_come_at_once(void **state)
{
    struct look l = {0};
    (void)state;
    assert_false(look_on(&l, 0)); /* nothing was asked */
    for (int64_t now = 10000; now < 100000; now += 100) {
        look_begin(&l, 1, true, now);
        assert_true(look_on(&l, now + 1));
        look_found(&l, now + 20);
        assert_false(look_on(&l, now + 21));
    }
}

static void ends_by_itself(void **state)
{
    struct look l = {0};
    (void)state;
    look_begin(&l, 1, true, 1000);
    assert_true(look_on(&l, 1000 + LOOK_US - 1));
    assert_false(look_on(&l, 1000 + LOOK_US));
    assert_false(look_on(&l, 1000 + LOOK_US + 1));
}

/* Of many answers that are late, whether or not somebody looked again in between, few are looked for. */
static void hardly_looks_where_nothing_comes_in_time(void **state)
{
    (void)state;
    for (int asleep = 0; asleep < 2; asleep++) {
        struct look l = {0};
        unsigned looked = 0;
        for (int64_t n = 0, now = 0; n < 100000; n++, now += 10000) {
            look_begin(&l, 1, true, now);
            looked += look_on(&l, now);
            if (!asleep)
                assert_false(look_on(&l, now + LOOK_US));
            look_found(&l, now + 5000); /* the processor was somebody else's meanwhile */
        }
        assert_in_range(looked, 2, 200);
    }
}

static void looks_again_once_it_pays(void **state)
{
    struct look l = {0};
    int64_t now = 0;
    (void)state;
    for (int n = 0; n < 100000; n++, now += 10000) {
        look_begin(&l, 1, true, now);
        look_found(&l, now + 5000);
    }
    unsigned looked = 0;
    for (int n = 0; n < 4 * LOOK_SKIP_MAX; n++, now += 10000) {
        look_begin(&l, 1, true, now);
        looked += look_on(&l, now);
        look_found(&l, now + 10);
    }
    assert_true(looked > LOOK_SKIP_MAX);
    look_begin(&l, 1, true, now);
    assert_true(look_on(&l, now));
}

/* What ended without an answer says nothing about answers. */
static void what_ended_is_no_failure(void **state)
{
    struct look l = {0};
    (void)state;
    for (int64_t now = 10000; now < 100000; now += 1000) {
        look_begin(&l, 1, true, now);
        assert_true(look_on(&l, now));
        look_away(&l);
        assert_false(look_on(&l, now + 1));
        look_found(&l, now + 900);
    }
}

static void nobody_looks_where_several_are_at_work(void **state)
{
    struct look l = {0};
    (void)state;
    for (int64_t n = 0; n < 1000; n++) {
        look_begin(&l, 1 + n % 2, true, n * (LOOK_ALONE_US - 1));
        assert_false(look_on(&l, n * (LOOK_ALONE_US - 1)));
    }
    look_begin(&l, 2, false, 10000000); /* two of one connection, as of HTTP/2 */
    assert_false(look_on(&l, 10000000));
    look_begin(&l, 3, true, 10000000 + LOOK_ALONE_US); /* the others rest */
    assert_true(look_on(&l, 10000000 + LOOK_ALONE_US));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_on_where_answers_come_at_once), cmocka_unit_test(ends_by_itself),
        cmocka_unit_test(hardly_looks_where_nothing_comes_in_time), cmocka_unit_test(looks_again_once_it_pays),
        cmocka_unit_test(what_ended_is_no_failure),
        cmocka_unit_test(nobody_looks_where_several_are_at_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
