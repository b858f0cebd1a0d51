/* The terminator of TCP, seen from the guest's kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "tcp_guest.h"

static struct tcp_guest g;
static struct tcp_conn *conn;
static struct {
    unsigned syns, fins, closed, resets, rooms;
    char got[70000];
    size_t ngot, take; /* take: how much the owner takes in all */
    bool hold;         /* it does not answer a SYN by itself */
    bool crowded;
} owner;

static void on_syn(struct tcp_conn *c, void *arg)
{
    (void)arg;
    conn = c;
    owner.syns++;
    if (!owner.hold)
        tcp_accept(c);
}

static size_t on_data(struct tcp_conn *c, const uint8_t *buf, size_t len, void *arg)
{
    (void)c;
    (void)arg;
    size_t room = owner.take - owner.ngot;
    if (len > room)
        len = room;
    memcpy(owner.got + owner.ngot, buf, len);
    owner.ngot += len;
    return len;
}

static void on_fin(struct tcp_conn *c, void *arg)
{
    (void)c;
    (void)arg;
    owner.fins++;
}

static void on_room(struct tcp_conn *c, void *arg)
{
    (void)c;
    (void)arg;
    owner.rooms++;
}

static void on_closed(struct tcp_conn *c, bool reset, void *arg)
{
    (void)c;
    (void)arg;
    owner.closed++;
    owner.resets += reset;
    conn = NULL;
}

static bool on_crowded(void *arg)
{
    (void)arg;
    return owner.crowded;
}

static int setup(void **state)
{
    static const struct tcp_ops ops = {on_syn, on_data, on_fin, on_room, on_closed, guest_emit, on_crowded};
    (void)state;
    memset(&g, 0, sizeof g);
    memset(&owner, 0, sizeof owner);
    owner.take = sizeof owner.got;
    g.port = 40000;
    g.to_port = 80;
    g.tcp = tcp_new(&ops, NULL, 1);
    tcp_set_emit_arg(g.tcp, &g);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tcp_free(g.tcp);
    return 0;
}

/* The guest's next number afterwards is 1001. */
static void open_one_more(unsigned count)
{
    guest_send(&g, G_SYN, 1000, 0, 65535, NULL, 0);
    assert_int_equal(g.flags, G_SYN | G_ACK);
    assert_int_equal(g.ack, 1001);
    guest_send(&g, G_ACK, 1001, g.seq + 1, 65535, NULL, 0);
    assert_int_equal(tcp_count(g.tcp), count);
}

static void open_one(void)
{
    open_one_more(1);
}

static void talks_and_ends(void **state)
{
    (void)state;
    for (int six = 0; six < 2; six++) {
        g.six = six;
        g.ngot = owner.ngot = 0;
        open_one();
        guest_send(&g, G_ACK | G_PSH, 1001, g.next, 65535, "hello", 5);
        assert_memory_equal(owner.got, "hello", 5);
        assert_int_equal(g.ack, 1006);
        assert_int_equal(tcp_write(conn, "answer", 6), 6);
        assert_memory_equal(g.got, "answer", 6);
        /* Half closed: the other direction goes on. */
        guest_send(&g, G_ACK | G_FIN, 1006, g.next, 65535, NULL, 0);
        assert_int_equal(owner.fins, 1 + six);
        assert_int_equal(g.ack, 1007);
        assert_int_equal(tcp_write(conn, "more", 4), 4);
        assert_memory_equal(g.got + 6, "more", 4);
        tcp_shutdown(conn);
        assert_true(g.flags & G_FIN);
        guest_send(&g, G_ACK, 1007, g.next + 1, 65535, NULL, 0);
        assert_int_equal(owner.closed, 1 + six);
        assert_int_equal(owner.resets, 0);
        assert_int_equal(tcp_count(g.tcp), 0);
    }
}

static void refused_at_once(void **state)
{
    (void)state;
    owner.hold = true;
    guest_send(&g, G_SYN, 1000, 0, 65535, NULL, 0);
    assert_int_equal(g.frames, 0); /* nothing before the verdict */
    guest_send(&g, G_SYN, 1000, 0, 65535, NULL, 0);
    assert_int_equal(owner.syns, 1);
    tcp_refuse(conn);
    assert_int_equal(g.flags, G_RST | G_ACK);
    assert_int_equal(g.ack, 1001);
    assert_int_equal(tcp_count(g.tcp), 0);
}

static void who_gives_up_is_forgotten(void **state)
{
    (void)state;
    owner.hold = true;
    guest_send(&g, G_SYN, 1000, 0, 65535, NULL, 0);
    guest_send(&g, G_RST, 1001, 0, 0, NULL, 0);
    assert_int_equal(owner.closed, 1);
    assert_int_equal(tcp_count(g.tcp), 0);
}

static void what_comes_twice_or_too_early(void **state)
{
    (void)state;
    open_one();
    guest_send(&g, G_ACK, 1005, g.next, 65535, "late", 4);
    assert_int_equal(owner.ngot, 0);
    assert_int_equal(g.ack, 1001); /* says again what it waits for */
    guest_send(&g, G_ACK, 1001, g.next, 65535, "abcd", 4);
    guest_send(&g, G_ACK, 1001, g.next, 65535, "abcdef", 6); /* with two new ones */
    guest_send(&g, G_ACK, 1001, g.next, 65535, "XXXX", 4);
    assert_int_equal(owner.ngot, 6);
    assert_memory_equal(owner.got, "abcdef", 6);
    assert_int_equal(g.ack, 1007);
}

static void threat_87_resets_and_acks_that_were_guessed(void **state)
{
    (void)state;
    open_one();
    guest_send(&g, G_RST, 900, 0, 0, NULL, 0); /* outside of the window */
    guest_send(&g, G_RST, 1500, 0, 0, NULL, 0); /* inside, but not the next: challenged */
    assert_int_equal(owner.closed, 0);
    guest_send(&g, G_SYN, 5000, 0, 65535, NULL, 0);
    assert_int_equal(owner.closed, 0);
    guest_send(&g, G_ACK, 1001, g.next + 100000, 65535, NULL, 0); /* of what was never sent */
    assert_int_equal(owner.closed, 0);
    assert_int_equal(tcp_write(conn, "x", 1), 1);
    assert_int_equal(g.ngot, 1);
    guest_send(&g, G_RST, 1001, 0, 0, NULL, 0);
    assert_int_equal(owner.resets, 1);
}

static void threat_81_a_window_that_stays_shut(void **state)
{
    (void)state;
    static char block[65536];
    size_t all = 0, n;
    open_one();
    guest_send(&g, G_ACK, 1001, g.next, 0, NULL, 0);
    while ((n = tcp_write(conn, block, sizeof block)) > 0)
        all += n;
    assert_true(all >= TCP_RING_MIN && all <= TCP_RING_MAX);
    for (int i = 0; i < 2000 && conn; i++) { /* alive as long as its probes are answered */
        unsigned before = g.frames;
        tcp_tick(g.tcp, g.now += 100);
        if (g.frames != before)
            guest_send(&g, G_ACK, 1001, g.next, 0, NULL, 0);
    }
    assert_non_null(conn);
    guest_send(&g, G_ACK, 1001, g.next, 65535, NULL, 0);
    for (int i = 0; i < 200 && g.ngot < all; i++) {
        tcp_tick(g.tcp, g.now += 100);
        guest_send(&g, G_ACK, 1001, g.next, 65535, NULL, 0);
    }
    assert_int_equal(g.ngot, all);
}

static void an_owner_that_takes_nothing_stops_the_guest(void **state)
{
    (void)state;
    static char block[16384];
    uint32_t seq = 1001;
    owner.take = 0;
    open_one();
    for (int i = 0; i < 1000; i++) {
        guest_send(&g, G_ACK, seq, g.next, 65535, block, sizeof block);
        seq = g.ack;
    }
    assert_true(seq - 1001 <= TCP_RING_MAX);
    assert_int_equal(g.window, 0);
    owner.take = sizeof owner.got;
    for (int i = 0; i < 20; i++) {
        tcp_resume(conn);
        tcp_flush(g.tcp);
        owner.ngot = 0;
    }
    assert_true(g.window > 0);
    guest_send(&g, G_ACK, seq, g.next, 65535, "on", 2);
    assert_memory_equal(owner.got, "on", 2);
}

/* A guest's kernel makes no segment larger than half of the window: a narrow one costs it four packets instead of one. */
static void a_window_widens_where_the_owner_keeps_up(void **state)
{
    (void)state;
    static char block[65480];
    uint32_t seq = 1001, edge = 0;
    open_one();
    for (int i = 0; i < 100; i++) {
        uint32_t len = i < 3 ? 16000 : sizeof block;
        guest_send(&g, G_ACK, seq, g.next, 65535, block, len);
        owner.ngot = 0;
        assert_int_equal(g.ack, seq + len);
        seq = g.ack;
        assert_true((int32_t)(g.ack + (g.window << 6) - edge) >= 0); /* what was offered is not taken back */
        edge = g.ack + (g.window << 6);
    }
    assert_true(g.window << 6 >= 2 * sizeof block && g.window << 6 <= TCP_WINDOW_MAX);

    /* All of it is really there, even if the owner stops at once. */
    owner.take = 0;
    while ((int32_t)(edge - seq) > 0) {
        uint32_t len = edge - seq < sizeof block ? edge - seq : sizeof block;
        memset(block, (int)('a' + seq % 7), sizeof block);
        guest_send(&g, G_ACK, seq, g.next, 65535, block, len);
        assert_int_equal(g.ack, seq + len);
        seq += len;
    }
    assert_int_equal(g.window, 0);
    guest_send(&g, G_ACK, seq, g.next, 65535, "x", 1);
    assert_int_equal(g.ack, seq);
    for (owner.take = sizeof owner.got; g.window == 0; owner.ngot = 0) {
        tcp_resume(conn);
        tcp_flush(g.tcp);
    }
    assert_int_equal(owner.got[0], block[0]);
}

/* Whatever the guest does: what the windows of all its connections offer together is bounded. */
static void threat_79_windows_have_one_budget(void **state)
{
    (void)state;
    static char block[16384];
    size_t offered = 0, widest = 0;
    for (unsigned i = 0; i < TCP_CONNS_MAX; i++) {
        uint32_t seq = 1001;
        g.port = (uint16_t)(1024 + i);
        open_one_more(i + 1);
        for (int k = 0; k < 100; k++, seq += sizeof block) {
            guest_send(&g, G_ACK, seq, g.next, 65535, block, sizeof block);
            owner.ngot = 0;
        }
        offered += g.window << 6;
        widest = g.window << 6 > widest ? g.window << 6 : widest;
    }
    assert_int_equal(widest, TCP_WINDOW_MAX);
    assert_true(offered <= TCP_WINDOWS_BUDGET + TCP_CONNS_MAX * TCP_RING_MIN);
    assert_int_equal(g.window << 6, TCP_RING_MIN); /* the last one came too late */

    /* The room of those that end is free again. */
    for (unsigned i = 0; i < TCP_CONNS_MAX; i++) {
        g.port = (uint16_t)(1024 + i);
        guest_send(&g, G_RST, 1001 + 100 * sizeof block, 0, 0, NULL, 0);
    }
    assert_int_equal(tcp_count(g.tcp), 0);
    uint32_t seq = 1001;
    open_one();
    for (int k = 0; k < 100; k++, seq += sizeof block) {
        guest_send(&g, G_ACK, seq, g.next, 65535, block, sizeof block);
        owner.ngot = 0;
    }
    assert_int_equal(g.window << 6, TCP_WINDOW_MAX);
}

static void threat_79_connections_are_bounded(void **state)
{
    (void)state;
    owner.hold = true;
    for (unsigned i = 0; i < 5000; i++) {
        g.port = (uint16_t)(1024 + i);
        guest_send(&g, G_SYN, 1000, 0, 65535, NULL, 0);
        assert_true(tcp_count(g.tcp) <= TCP_PENDING_MAX);
    }
    assert_int_equal(owner.syns, TCP_PENDING_MAX);
    teardown(NULL);
    setup(NULL);
    for (unsigned i = 0; i < 5000; i++) {
        g.port = (uint16_t)(1024 + i);
        guest_send(&g, G_SYN, 1000, 0, 65535, NULL, 0);
    }
    assert_int_equal(tcp_count(g.tcp), TCP_CONNS_MAX);
    assert_int_equal(g.flags, G_RST | G_ACK); /* the last one learns it */
    for (int i = 0; i < 3000 && tcp_count(g.tcp); i++) /* those that never answer do not stay */
        tcp_tick(g.tcp, g.now += 100);
    assert_int_equal(tcp_count(g.tcp), 0);
}

static void a_full_cable_loses_nothing(void **state)
{
    (void)state;
    open_one();
    g.full = true;
    assert_int_equal(tcp_write(conn, "kept", 4), 4);
    assert_int_equal(g.ngot, 0);
    g.full = false;
    tcp_pump(g.tcp);
    assert_int_equal(g.ngot, 4);
}

static void neighbours_are_answered_as_the_rfc_wants(void **state)
{
    (void)state;
    uint8_t f[PACKET_ETH + 40 + 32] = {0x33, 0x33, 0xff, 0, 0, 1, 2, 0x53, 0x42, 0x58, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255}, out[1600];
    struct packet p;
    inet_pton(AF_INET6, NETPLAN_GUEST6, f + PACKET_ETH + 8);
    inet_pton(AF_INET6, "ff02::1:ff00:1", f + PACKET_ETH + 24);
    f[PACKET_ETH + 40] = 135;
    inet_pton(AF_INET6, NETPLAN_GATEWAY6, f + PACKET_ETH + 48);
    packet_parse(&p, f, sizeof f);
    assert_int_equal(p.kind, PACKET_IP);
    size_t n = packet_icmp_reply(out, &p);
    assert_true(n > 0);
    assert_int_equal(out[PACKET_ETH + 7], 255);
    assert_int_equal(out[PACKET_ETH + 40], 136);
    f[PACKET_ETH + 63] = 9; /* somebody else */
    packet_parse(&p, f, sizeof f);
    assert_int_equal(packet_icmp_reply(out, &p), 0);
}

static void threat_61_frames_that_are_none(void **state)
{
    (void)state;
    uint8_t f[2000];
    struct packet p;
    size_t n = guest_frame(&g, f, G_SYN, 1, 0, 100, NULL, 0, "abc", 3);
    packet_parse(&p, f, n);
    assert_int_equal(p.kind, PACKET_IP);
    for (size_t cut = 0; cut < n; cut++) { /* cut short anywhere */
        packet_parse(&p, f, cut);
        assert_int_not_equal(p.kind, PACKET_IP);
    }
    f[PACKET_ETH + 6] = 0x20; /* more fragments */
    packet_parse(&p, f, n);
    assert_int_equal(p.kind, PACKET_BAD);
    f[PACKET_ETH + 6] = 0;
    f[PACKET_ETH + 15]++; /* another's source */
    packet_parse(&p, f, n);
    assert_int_equal(p.kind, PACKET_BAD);
    f[PACKET_ETH + 15]--;
    f[11]++; /* another's hardware address */
    packet_parse(&p, f, n);
    assert_int_equal(p.kind, PACKET_BAD);
}

static void acknowledgements_ride_on_quick_answers(void **state)
{
    uint32_t seq = 1001;
    (void)state;
    open_one();
    for (int i = 0; i < 2; i++, seq++) { /* until it is known how this one talks */
        unsigned before = g.frames;
        guest_send(&g, G_ACK | G_PSH, seq, g.next, 65535, "q", 1);
        assert_int_equal(g.frames, before + 1);
        assert_int_equal(tcp_write(conn, "a", 1), 1);
    }
    unsigned before = g.frames;
    guest_send(&g, G_ACK | G_PSH, seq++, g.next, 65535, "q", 1);
    assert_int_equal(g.frames, before);
    assert_true(tcp_owes(g.tcp));
    assert_int_equal(tcp_write(conn, "a", 1), 1);
    assert_int_equal(g.frames, before + 1);
    assert_int_equal(g.ack, seq);
    assert_false(tcp_owes(g.tcp));

    /* A second piece before the answer is told at once. */
    guest_send(&g, G_ACK | G_PSH, seq++, g.next, 65535, "q", 1);
    assert_int_equal(g.frames, before + 1);
    guest_send(&g, G_ACK | G_PSH, seq++, g.next, 65535, "q", 1);
    assert_int_equal(g.frames, before + 2);
    assert_int_equal(g.ack, seq);
    assert_int_equal(tcp_write(conn, "a", 1), 1);

    /* Whoever waits for it, as a sender of small pieces does, gets it soon; and from then on at once. */
    before = g.frames;
    guest_send(&g, G_ACK | G_PSH, seq++, g.next, 65535, "q", 1);
    tcp_settle(g.tcp);
    assert_int_equal(g.frames, before);
    tcp_settle(g.tcp);
    assert_int_equal(g.frames, before + 1);
    assert_int_equal(g.ack, seq);
    assert_false(tcp_owes(g.tcp));
    guest_send(&g, G_ACK | G_PSH, seq++, g.next, 65535, "q", 1);
    assert_int_equal(g.frames, before + 2);

    /* An answer that took its time teaches nothing. */
    for (int i = 0; i < 3; i++) {
        g.now += 50;
        tcp_tick(g.tcp, g.now);
        assert_int_equal(tcp_write(conn, "a", 1), 1);
        before = g.frames;
        guest_send(&g, G_ACK | G_PSH, seq++, g.next, 65535, "q", 1);
        assert_int_equal(g.frames, before + 1);
    }
    /* One that ends while it owes leaves nothing behind. */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(tcp_write(conn, "a", 1), 1);
        guest_send(&g, G_ACK | G_PSH, seq++, g.next, 65535, "q", 1);
    }
    assert_true(tcp_owes(g.tcp));
    guest_send(&g, G_RST | G_ACK, seq, g.next, 0, NULL, 0);
    assert_int_equal(owner.closed, 1);
    assert_false(tcp_owes(g.tcp));
}

static void pieces_written_together_leave_together(void **state)
{
    (void)state;
    static char block[70000];
    open_one();
    unsigned before = g.frames;
    tcp_gather(conn);
    for (int i = 0; i < 3; i++)
        assert_int_equal(tcp_write(conn, "abc", 3), 3);
    tcp_shutdown(conn);
    assert_int_equal(g.frames, before);
    tcp_release(conn);
    assert_int_equal(g.ngot, 9);
    assert_int_equal(g.frames, before + 2); /* and the end of it */
    assert_true(g.flags & G_FIN);
    guest_send(&g, G_ACK | G_FIN, 1001, g.next + 1, 65535, NULL, 0);
    assert_int_equal(tcp_count(g.tcp), 0);

    g.port++;
    g.ngot = 0;
    open_one();
    before = g.frames;
    tcp_gather(conn);
    assert_int_equal(tcp_write(conn, block, sizeof block), sizeof block);
    assert_int_equal(g.frames, before + 1); /* a full one does not wait */
    assert_int_equal(g.ngot, 65480);
    guest_send(&g, G_ACK, 1001, g.next, 65535, NULL, 0);
    assert_int_equal(g.ngot, 65480);
    tcp_release(conn);
    assert_int_equal(g.ngot, sizeof block);
}

/* As when more is to be judged than can be: its SYN gets no answer, and is sent again. */
static void threat_79_a_connection_that_cannot_be_judged_yet(void **state)
{
    (void)state;
    owner.crowded = true;
    for (int i = 0; i < 3; i++)
        guest_send(&g, G_SYN, 1000, 0, 65535, NULL, 0);
    assert_int_equal(owner.syns, 0);
    assert_int_equal(g.frames, 0);
    assert_int_equal(tcp_count(g.tcp), 0);
    owner.crowded = false;
    open_one();
}

/* Who said all may be sent something for as long as that takes; it is when nothing more comes that the guest had its time. */
static void a_guest_that_goes_on_when_the_server_has_ended(void **state)
{
    uint32_t at = 1001;
    (void)state;
    open_one();
    tcp_shutdown(conn);
    assert_true(g.flags & G_FIN);
    for (int i = 0; i < 20; i++) {
        guest_send(&g, G_ACK | G_PSH, at, g.next + 1, 65535, "more", 4);
        at += 4;
        g.now += 10000;
        tcp_tick(g.tcp, g.now);
        assert_int_equal(owner.closed, 0);
    }
    assert_int_equal(owner.ngot, 80);
    g.now += 61000;
    tcp_tick(g.tcp, g.now);
    assert_int_equal(owner.resets, 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(talks_and_ends), T(refused_at_once), T(who_gives_up_is_forgotten), T(what_comes_twice_or_too_early),
        T(threat_87_resets_and_acks_that_were_guessed), T(threat_81_a_window_that_stays_shut), T(an_owner_that_takes_nothing_stops_the_guest),
        T(a_window_widens_where_the_owner_keeps_up), T(threat_79_windows_have_one_budget),
        T(threat_79_connections_are_bounded), T(threat_79_a_connection_that_cannot_be_judged_yet), T(a_full_cable_loses_nothing), T(acknowledgements_ride_on_quick_answers), T(neighbours_are_answered_as_the_rfc_wants), T(threat_61_frames_that_are_none),
        T(pieces_written_together_leave_together), T(a_guest_that_goes_on_when_the_server_has_ended),
    };
    return cmocka_run_group_tests_name("tcp", tests, NULL, NULL);
}
