/* Frames: any split of the bytes gives the same, windows hold, hostile frames end the link. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/link.h"

struct end {
    struct link *l;
    uint8_t got[4][1 << 20];
    size_t ngot[4];
    unsigned ctrls, eofs, writables;
    char last_op[32];
    bool consume;
    bool free_in_ctrl;
};

static void on_ctrl(struct link *l, json_t *msg, void *arg)
{
    struct end *e = arg;
    e->ctrls++;
    snprintf(e->last_op, sizeof e->last_op, "%s", json_string_value(json_object_get(msg, "op")));
    if (e->free_in_ctrl) {
        link_free(l);
        e->l = NULL;
    }
}

static void on_data(struct link *l, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    struct end *e = arg;
    assert_true(e->ngot[stream] + len <= sizeof e->got[0]);
    memcpy(e->got[stream] + e->ngot[stream], buf, len);
    e->ngot[stream] += len;
    if (e->consume)
        link_consumed(l, chan, stream, len);
}

static void on_eof(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    (void)l;
    (void)chan;
    (void)stream;
    ((struct end *)arg)->eofs++;
}

static void on_writable(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    (void)l;
    (void)chan;
    (void)stream;
    ((struct end *)arg)->writables++;
}

static const struct link_ops ops = {
    .ctrl = on_ctrl, .data = on_data, .eof = on_eof, .writable = on_writable};

static struct end *end_new(bool consume)
{
    struct end *e = calloc(1, sizeof *e);
    e->consume = consume;
    e->l = link_new(&ops, e);
    assert_non_null(e->l);
    return e;
}

static void end_free(struct end *e)
{
    link_free(e->l);
    free(e);
}

/* Moves everything from a to b in pieces of `piece` bytes. */
static int move(struct end *a, struct end *b, size_t piece, struct err *err)
{
    static uint8_t buf[LINK_OUTPUT_MIN * 2];
    size_t n;
    while ((n = link_output(a->l, buf, sizeof buf)) > 0)
        for (size_t i = 0; i < n; i += piece)
            if (link_feed(b->l, buf + i, n - i < piece ? n - i : piece, err) < 0)
                return -1;
    return 0;
}

static void threat_90_any_split_gives_the_same(void **state)
{
    (void)state;
    const size_t pieces[] = {1, 2, 3, 7, 8, 9, 13, 4096, 65535, 65536, 1 << 20};
    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
        struct end *a = end_new(true), *b = end_new(true);
        link_open(a->l, 5, 0);
        link_open(b->l, 5, 0);
        uint8_t *data = malloc(200000);
        for (size_t i = 0; i < 200000; i++)
            data[i] = (uint8_t)(i * 31 + i / 251);
        assert_int_equal(link_send_ctrl(a->l, json_pack("{s:s}", "op", "first")), 0);
        assert_int_equal(link_send_data(a->l, 5, 0, data, 200000), 200000);
        assert_int_equal(link_send_data(a->l, 5, 1, data, 10), 10);
        link_send_eof(a->l, 5, 1);
        assert_int_equal(move(a, b, pieces[p], NULL), 0);
        assert_int_equal(b->ctrls, 1);
        assert_string_equal(b->last_op, "first");
        assert_int_equal(b->ngot[0], 200000);
        assert_memory_equal(b->got[0], data, 200000);
        assert_int_equal(b->ngot[1], 10);
        assert_int_equal(b->eofs, 1);
        free(data);
        end_free(a);
        end_free(b);
    }
}

static void a_stream_nobody_reads_stalls_alone(void **state)
{
    (void)state;
    struct end *a = end_new(false), *b = end_new(false);
    static uint8_t data[LINK_WINDOW * 2];
    for (uint16_t c = 1; c <= 2; c++) {
        link_open(a->l, c, 0);
        link_open(b->l, c, 0);
    }
    assert_int_equal(link_send_data(a->l, 1, 0, data, sizeof data), LINK_WINDOW);
    assert_int_equal(link_send_data(a->l, 1, 0, data, 1), 0);
    assert_int_equal(link_send_data(a->l, 2, 0, data, 100), 100);
    assert_int_equal(move(a, b, 4096, NULL), 0);
    assert_int_equal(b->ngot[0], LINK_WINDOW + 100);
    assert_int_equal(a->writables, 0);
    link_consumed(b->l, 1, 0, LINK_WINDOW);
    assert_int_equal(move(b, a, 1, NULL), 0);
    assert_int_equal(a->writables, 1);
    assert_int_equal(link_credit(a->l, 1, 0), LINK_WINDOW);
    /* A second count for the same bytes grants nothing. */
    link_consumed(b->l, 1, 0, LINK_WINDOW);
    assert_int_equal(move(b, a, 1, NULL), 0);
    assert_int_equal(link_credit(a->l, 1, 0), LINK_WINDOW);
    end_free(a);
    end_free(b);
}

static void keystrokes_overtake_a_flood(void **state)
{
    (void)state;
    struct end *a = end_new(false);
    static uint8_t data[LINK_WINDOW], out[LINK_OUTPUT_MIN];
    link_open(a->l, 1, 0);
    link_open(a->l, 2, 1u << 0);
    link_send_data(a->l, 1, 0, data, sizeof data);
    link_send_data(a->l, 2, 0, "x", 1);
    size_t n = link_output(a->l, out, sizeof out);
    assert_true(n >= 9);
    assert_int_equal(out[6], 2);
    assert_int_equal(out[8], 'x');
    end_free(a);
}

static void floods_take_turns(void **state)
{
    (void)state;
    struct end *a = end_new(false);
    static uint8_t data[LINK_WINDOW], out[LINK_OUTPUT_MIN];
    link_open(a->l, 1, 0);
    link_open(a->l, 2, 0);
    link_send_data(a->l, 1, 0, data, sizeof data);
    link_send_data(a->l, 2, 0, data, sizeof data);
    uint8_t order[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(link_output(a->l, out, sizeof out), LINK_OUTPUT_MIN);
        order[i] = out[6];
    }
    const uint8_t want[] = {1, 2, 1, 2};
    assert_memory_equal(order, want, 4);
    end_free(a);
}

static void threat_90_hostile_frames_end_the_link(void **state)
{
    (void)state;
    const struct {
        const char *what;
        uint8_t bytes[40];
        size_t len;
    } bad[] = {
        {"oversized length", {1, 0, 1, 0, 2, 0, 1, 0}, 8},
        {"negative length", {0xff, 0xff, 0xff, 0xff, 2, 0, 1, 0}, 8},
        {"type 0", {0, 0, 0, 0, 0, 0, 1, 0}, 8},
        {"type 99", {0, 0, 0, 0, 99, 0, 1, 0}, 8},
        {"stream out of range", {0, 0, 0, 0, 3, 4, 1, 0}, 8},
        {"data on channel 0", {0, 0, 0, 0, 2, 0, 0, 0}, 8},
        {"control on channel 1", {2, 0, 0, 0, 1, 0, 1, 0, '{', '}'}, 10},
        {"not JSON", {2, 0, 0, 0, 1, 0, 0, 0, '{', 'x'}, 10},
        {"not an object", {2, 0, 0, 0, 1, 0, 0, 0, '[', ']'}, 10},
        {"empty control", {0, 0, 0, 0, 1, 0, 0, 0}, 8},
        {"duplicate key", {13, 0, 0, 0, 1, 0, 0, 0, '{', '"', 'a', '"', ':', '1', ',', '"', 'a', '"', ':', '2', '}'}, 21},
        {"end with a payload", {1, 0, 0, 0, 3, 0, 1, 0, 0}, 9},
        {"short credit", {3, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0}, 11},
        {"credit overflow", {4, 0, 0, 0, 4, 0, 1, 0, 1, 0, 0, 0}, 12},
        {"data after the end", {0, 0, 0, 0, 3, 0, 1, 0, 1, 0, 0, 0, 2, 0, 1, 0, 'x'}, 17},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct end *b = end_new(true);
        struct err err = {0};
        link_open(b->l, 1, 0);
        if (link_feed(b->l, bad[i].bytes, bad[i].len, &err) != -1)
            fail_msg("%s was accepted", bad[i].what);
        assert_true(err.text[0]);
        end_free(b);
    }
}

/* A command's arguments and a machine's files, to whom takes them; a guest has nobody parse as much. */
static void large_control_messages_only_to_who_takes_them(void **state)
{
    (void)state;
    const size_t pieces[] = {1, 4096, 65536, 1 << 20};
    char *text = malloc(LINK_CTRL_MAX + 1);
    memset(text, 'x', LINK_CTRL_MAX);
    text[1000000] = '\0';
    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
        struct end *a = end_new(true), *b = end_new(true);
        assert_int_equal(link_send_ctrl(a->l, json_pack("{s:s}", "op", text)), -1);
        link_large(a->l, true, false);
        link_large(b->l, false, true);
        link_open(a->l, 5, 1);
        link_open(b->l, 5, 1);
        assert_int_equal(link_send_ctrl(a->l, json_pack("{s:s}", "op", text)), 0);
        assert_int_equal(link_send_ctrl(a->l, json_pack("{s:s}", "op", "small")), 0);
        link_send_data(a->l, 5, 0, "data", 4);
        assert_int_equal(move(a, b, pieces[p], NULL), 0);
        assert_int_equal(b->ctrls, 2);
        assert_int_equal(b->ngot[0], 4);
        assert_int_equal(link_send_ctrl(b->l, json_pack("{s:s}", "op", text)), -1);
        assert_int_equal(link_send_ctrl(b->l, json_pack("{s:s}", "op", "still here")), 0);
        assert_int_equal(move(b, a, pieces[p], NULL), 0);
        assert_int_equal(a->ctrls, 1);
        /* A peer that sends one all the same is a broken one. */
        struct err err = {0};
        link_large(b->l, true, true);
        link_send_ctrl(b->l, json_pack("{s:s}", "op", text));
        assert_int_equal(move(b, a, pieces[p], &err), -1);
        assert_non_null(strstr(err.text, "frame of"));
        end_free(a);
        end_free(b);
    }
    text[1000000] = 'x';
    text[LINK_CTRL_MAX] = '\0';
    struct end *a = end_new(true);
    link_large(a->l, true, true);
    assert_int_equal(link_send_ctrl(a->l, json_pack("{s:s}", "op", text)), -1);
    end_free(a);
    free(text);
}

static void data_beyond_the_credit_ends_the_link(void **state)
{
    (void)state;
    struct end *b = end_new(false);
    static uint8_t frame[LINK_OUTPUT_MIN] = {0, 0, 1, 0, 2, 0, 1, 0};
    link_open(b->l, 1, 0);
    for (size_t sent = 0; sent < LINK_WINDOW; sent += LINK_PAYLOAD_MAX)
        assert_int_equal(link_feed(b->l, frame, sizeof frame, NULL), 0);
    struct err err = {0};
    const uint8_t one[] = {1, 0, 0, 0, 2, 0, 1, 0, 'x'};
    assert_int_equal(link_feed(b->l, one, sizeof one, &err), -1);
    assert_non_null(strstr(err.text, "beyond its credit"));
    end_free(b);
}

static void frames_for_closed_channels_are_dropped(void **state)
{
    (void)state;
    struct end *a = end_new(true), *b = end_new(true);
    link_open(a->l, 3, 0);
    link_send_data(a->l, 3, 0, "late", 4);
    link_send_eof(a->l, 3, 0);
    assert_int_equal(move(a, b, 5, NULL), 0);
    assert_int_equal(b->ngot[0], 0);
    assert_int_equal(b->eofs, 0);
    end_free(a);
    end_free(b);
}

static void a_peer_that_reads_nothing_is_dropped_in_time(void **state)
{
    (void)state;
    struct end *a = end_new(true);
    char text[1000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    int sent = 0;
    while (link_send_ctrl(a->l, json_pack("{s:s}", "op", text)) == 0)
        sent++;
    assert_in_range(sent, 4000, 4300);
    const uint8_t ctrl[] = {2, 0, 0, 0, 1, 0, 0, 0, '{', '}'};
    assert_int_equal(link_feed(a->l, ctrl, sizeof ctrl, NULL), -1);
    end_free(a);
}

static void a_callback_may_free_the_link(void **state)
{
    (void)state;
    struct end *b = end_new(true);
    b->free_in_ctrl = true;
    const uint8_t two[] = {2, 0, 0, 0, 1, 0, 0, 0, '{', '}', 2, 0, 0, 0, 1, 0, 0, 0, '{', '}'};
    assert_int_equal(link_feed(b->l, two, sizeof two, NULL), 0);
    assert_int_equal(b->ctrls, 1);
    free(b);
}

static void channels_are_bounded_and_ids_rotate(void **state)
{
    (void)state;
    struct end *a = end_new(true);
    uint16_t first = link_pick(a->l);
    assert_int_equal(link_open(a->l, first, 0), 0);
    assert_int_equal(link_open(a->l, first, 0), -1);
    link_close(a->l, first);
    assert_int_not_equal(link_pick(a->l), first);
    for (unsigned i = 0; i < LINK_CHANNELS_MAX; i++)
        assert_int_equal(link_open(a->l, link_pick(a->l), 0), 0);
    assert_int_equal(link_pick(a->l), 0);
    assert_int_equal(link_open(a->l, 60000, 0), -1);
    end_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threat_90_any_split_gives_the_same),
        cmocka_unit_test(a_stream_nobody_reads_stalls_alone),
        cmocka_unit_test(keystrokes_overtake_a_flood),
        cmocka_unit_test(floods_take_turns),
        cmocka_unit_test(threat_90_hostile_frames_end_the_link),
        cmocka_unit_test(large_control_messages_only_to_who_takes_them),
        cmocka_unit_test(data_beyond_the_credit_ends_the_link),
        cmocka_unit_test(frames_for_closed_channels_are_dropped),
        cmocka_unit_test(a_peer_that_reads_nothing_is_dropped_in_time),
        cmocka_unit_test(a_callback_may_free_the_link),
        cmocka_unit_test(channels_are_bounded_and_ids_rotate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
