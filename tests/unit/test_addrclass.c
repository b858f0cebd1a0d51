/* Which addresses are outside, in every form that carries one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "core/addrclass.h"

static enum addr_class class_of(const char *text)
{
    uint8_t a[16];
    if (inet_pton(AF_INET, text, a) == 1)
        return addr_classify(4, a);
    if (inet_pton(AF_INET6, text, a) != 1)
        fail_msg("%s is no address", text);
    return addr_classify(6, a);
}

static void all_are(enum addr_class want, const char *const *list)
{
    for (; *list; list++)
        if (class_of(*list) != want)
            fail_msg("%s is %s, not %s", *list, addr_class_name(class_of(*list)), addr_class_name(want));
}

static void global_ones(void **state)
{
    static const char *const list[] = {"8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.0", "11.0.0.0",
                                       "172.15.255.255", "172.32.0.0", "192.167.1.1", "192.169.0.0", "198.17.1.1",
                                       "198.20.0.0", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450::1",
                                       "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2400::1", NULL};
    (void)state;
    all_are(ADDR_GLOBAL, list);
}

static void threat_05_embedded_ipv4(void **state)
{
    static const char *const loopback[] = {"::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "2002:7f00:1::",
                                           "64:ff9b:1::7f00:1", "fe80::5efe:7f00:1", "2606::5efe:7f00:1", NULL};
    static const char *const metadata[] = {"::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1",
                                           "::169.254.169.254", "64:ff9b:1::a9fe:a9fe", NULL};
    static const char *const private[] = {"::ffff:10.0.0.1", "::ffff:192.168.1.1", "2002:c0a8:101::", "64:ff9b::a00:1", NULL};
    static const char *const reserved[] = {"2001:0:7f00:1::", "2001:10::1", "100::1", "::", "4000::1", "1::1", "2001:db8::1",
                                           "3fff::1", "5f00::1", NULL};
    (void)state;
    all_are(ADDR_LOOPBACK, loopback);
    all_are(ADDR_METADATA, metadata);
    all_are(ADDR_PRIVATE, private);
    all_are(ADDR_RESERVED, reserved);
}

static void threat_15_metadata(void **state)
{
    static const char *const list[] = {"169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "169.254.170.2",
                                       "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
                                       "fd00:c1::a9fe:a9fe", NULL};
    (void)state;
    all_are(ADDR_METADATA, list);
    assert_true(addr_is_metadata_name("metadata.google.internal"));
    assert_false(addr_is_metadata_name("metadata.example.com"));
}

static void threat_16_what_is_not_outside(void **state)
{
    static const char *const loopback[] = {"127.0.0.1", "127.255.255.254", NULL};
    static const char *const private[] = {"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1",
                                          "100.64.0.1", "100.127.255.255", "fc00::1", "fdff::1", "fec0::1", NULL};
    static const char *const link[] = {"169.254.0.1", "169.254.169.253", "fe80::1", "febf::1", NULL};
    static const char *const multicast[] = {"224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", NULL};
    static const char *const reserved[] = {"0.0.0.0", "0.1.2.3", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255",
                                           "198.51.100.1", "203.0.113.0", "203.0.113.255", "240.0.0.1", "255.255.255.255",
                                           "192.88.99.1", NULL};
    (void)state;
    all_are(ADDR_LOOPBACK, loopback);
    all_are(ADDR_PRIVATE, private);
    all_are(ADDR_LINK_LOCAL, link);
    all_are(ADDR_MULTICAST, multicast);
    all_are(ADDR_RESERVED, reserved);
}

static void threat_17_every_address_of_this_host(void **state)
{
    struct ifaddrs *list;
    uint8_t other[16] = {8, 8, 8, 8};
    unsigned n = 0;
    (void)state;
    addr_watch_own();
    assert_int_equal(getifaddrs(&list), 0);
    for (struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
            continue;
        bool four = i->ifa_addr->sa_family == AF_INET;
        assert_true(addr_is_own(four ? 4 : 6, four ? (uint8_t *)&((struct sockaddr_in *)i->ifa_addr)->sin_addr
                                                   : (uint8_t *)&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr));
        n++;
    }
    freeifaddrs(list);
    assert_true(n > 0);
    assert_false(addr_is_own(4, other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(global_ones),
        cmocka_unit_test(threat_05_embedded_ipv4),
        cmocka_unit_test(threat_15_metadata),
        cmocka_unit_test(threat_16_what_is_not_outside),
        cmocka_unit_test(threat_17_every_address_of_this_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
