#include "core/addrclass.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/metadata.h"

struct range {
    uint8_t addr[16];
    uint8_t bits;
    enum addr_class class;
};

static const struct range v4[] = {
    {{0}, 8, ADDR_RESERVED},                   {{10}, 8, ADDR_PRIVATE},
    {{100, 64}, 10, ADDR_PRIVATE},             {{127}, 8, ADDR_LOOPBACK},
    {{169, 254}, 16, ADDR_LINK_LOCAL},         {{172, 16}, 12, ADDR_PRIVATE},
    {{192, 0, 0}, 24, ADDR_RESERVED},          {{192, 0, 2}, 24, ADDR_RESERVED},
    {{192, 31, 196}, 24, ADDR_RESERVED},       {{192, 52, 193}, 24, ADDR_RESERVED},
    {{192, 88, 99}, 24, ADDR_RESERVED},        {{192, 168}, 16, ADDR_PRIVATE},
    {{192, 175, 48}, 24, ADDR_RESERVED},       {{198, 18}, 15, ADDR_RESERVED},
    {{198, 51, 100}, 24, ADDR_RESERVED},       {{203, 0, 113}, 24, ADDR_RESERVED},
    {{224}, 4, ADDR_MULTICAST},                {{240}, 4, ADDR_RESERVED},
};

static const struct range v6[] = {
    {{[15] = 1}, 128, ADDR_LOOPBACK},
    {{0}, 128, ADDR_RESERVED},
    {{0x01}, 64, ADDR_RESERVED},
    {{0x20, 0x01, 0x0d, 0xb8}, 32, ADDR_RESERVED},
    {{0x20, 0x01, 0x00, 0x00}, 23, ADDR_RESERVED}, /* protocol assignments, Teredo among them */
    {{0x3f, 0xff}, 20, ADDR_RESERVED},
    {{0x5f, 0x00}, 16, ADDR_RESERVED},
    {{0xfc}, 7, ADDR_PRIVATE},
    {{0xfe, 0x80}, 10, ADDR_LINK_LOCAL},
    {{0xfe, 0xc0}, 10, ADDR_PRIVATE},
    {{0xff}, 8, ADDR_MULTICAST},
};

static bool in_range(const struct range *r, const uint8_t *a)
{
    unsigned whole = r->bits / 8, rest = r->bits % 8;
    if (memcmp(r->addr, a, whole) != 0)
        return false;
    return rest == 0 || ((r->addr[whole] ^ a[whole]) & (uint8_t)(0xff00u >> rest)) == 0;
}

static enum addr_class classify4(const uint8_t *a)
{
    if (metadata_is_addr(4, a))
        return ADDR_METADATA;
    for (size_t i = 0; i < sizeof v4 / sizeof *v4; i++)
        if (in_range(&v4[i], a))
            return v4[i].class;
    return ADDR_GLOBAL;
}

/* The IPv4 address within: mapped, compatible, NAT64 (both prefixes), 6to4, ISATAP. */
static const uint8_t *embedded(const uint8_t *a)
{
    static const uint8_t zero[12], mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b}, local_nat64[6] = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01};
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0 || memcmp(a, local_nat64, 6) == 0)
        return a + 12;
    if (memcmp(a, zero, 12) == 0 && (a[12] || a[13] || a[14]))
        return a + 12;
    if (a[0] == 0x20 && a[1] == 0x02)
        return a + 2;
    if ((a[8] & 0xfd) == 0 && a[9] == 0 && a[10] == 0x5e && a[11] == 0xfe)
        return a + 12;
    return NULL;
}

enum addr_class addr_classify(uint8_t family, const uint8_t *a)
{
    if (family == 4)
        return classify4(a);
    const uint8_t *inner = embedded(a);
    if (inner) {
        enum addr_class c = classify4(inner);
        if (c != ADDR_GLOBAL)
            return c;
        /* Mapped, and what an IPv6-only network reaches through 64:ff9b::/96, is where the IPv4 address is. */
        if (a[0] == 0 && inner == a + 12 && (a[1] == 0 || memcmp(a + 4, (const uint8_t[8]){0}, 8) == 0))
            return a[1] == 0 && a[10] != 0xff ? ADDR_RESERVED : ADDR_GLOBAL;
    }
    if (metadata_is_addr(6, a))
        return ADDR_METADATA;
    for (size_t i = 0; i < sizeof v6 / sizeof *v6; i++)
        if (in_range(&v6[i], a))
            return v6[i].class;
    return (a[0] & 0xe0) == 0x20 ? ADDR_GLOBAL : ADDR_RESERVED; /* 2000::/3 is all that is given out */
}

const char *addr_class_name(enum addr_class c)
{
    static const char *const names[] = {"global", "a metadata address", "loopback", "this host's own address",
                                        "a private address", "link-local", "multicast", "a reserved address"};
    return names[c];
}

bool addr_is_metadata_name(const char *name)
{
    return metadata_is_name(name);
}

static struct {
    int watch; /* netlink: says when addresses change */
    bool known;
    size_t n;
    struct {
        uint8_t family, addr[16];
    } list[256];
} own = {.watch = -1};

void addr_watch_own(void)
{
    struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR};
    own.watch = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (own.watch >= 0 && bind(own.watch, (struct sockaddr *)&to, sizeof to) < 0) {
        close(own.watch);
        own.watch = -1;
    }
}

static bool changed(void)
{
    char buf[4096];
    bool any = false;
    ssize_t n;
    if (own.watch < 0)
        return true;
    /* Also when the socket overflowed (ENOBUFS): something was missed. */
    while ((n = recv(own.watch, buf, sizeof buf, MSG_DONTWAIT)) > 0 || (n < 0 && errno == ENOBUFS))
        any = true;
    return any;
}

/* False if they cannot be read, or are more than we can hold. */
static bool read_own(void)
{
    struct ifaddrs *list, *i;
    own.n = 0;
    if (getifaddrs(&list) < 0)
        return false;
    for (i = list; i; i = i->ifa_next) {
        int family = i->ifa_addr ? i->ifa_addr->sa_family : 0;
        if (family != AF_INET && family != AF_INET6)
            continue;
        if (own.n == sizeof own.list / sizeof *own.list)
            break;
        own.list[own.n].family = family == AF_INET ? 4 : 6;
        if (family == AF_INET)
            memcpy(own.list[own.n].addr, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, 4);
        else
            memcpy(own.list[own.n].addr, &((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr, 16);
        own.n++;
    }
    freeifaddrs(list);
    return i == NULL;
}

bool addr_is_own(uint8_t family, const uint8_t *addr)
{
    if (changed() || !own.known)
        own.known = read_own();
    if (!own.known)
        return true; /* unknown is not outside */
    for (size_t i = 0; i < own.n; i++)
        if (own.list[i].family == family && memcmp(own.list[i].addr, addr, family == 4 ? 4 : 16) == 0)
            return true;
    return false;
}
