#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/netplan.h"
#include "guest/guest.h"

struct request {
    struct nlmsghdr h;
    union {
        struct ifinfomsg link;
        struct ifaddrmsg addr;
        struct rtmsg route;
        struct ndmsg neigh;
    };
    char attrs[256];
};

static void init(struct request *r, int type, int flags, size_t body)
{
    memset(r, 0, sizeof *r);
    r->h.nlmsg_type = (uint16_t)type;
    r->h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    r->h.nlmsg_len = (uint32_t)NLMSG_LENGTH(body);
}

static void attr(struct request *r, int type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));
    a->rta_type = (uint16_t)type;
    a->rta_len = (uint16_t)RTA_LENGTH(len);
    memcpy(RTA_DATA(a), data, len);
    r->h.nlmsg_len = (uint32_t)(NLMSG_ALIGN(r->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

static int talk(int fd, struct request *r)
{
    char buf[1024];
    if (send(fd, r, r->h.nlmsg_len, 0) < 0)
        return -1;
    ssize_t n = recv(fd, buf, sizeof buf, 0);
    struct nlmsghdr *h = (struct nlmsghdr *)buf;
    if (n < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) || h->nlmsg_type != NLMSG_ERROR)
        return -1;
    int error = ((struct nlmsgerr *)NLMSG_DATA(h))->error;
    if (error && error != -EEXIST) {
        errno = -error;
        return -1;
    }
    return 0;
}

static int link_up(int fd, int index, unsigned mtu)
{
    struct request r;
    init(&r, RTM_NEWLINK, 0, sizeof r.link);
    r.link.ifi_index = index;
    r.link.ifi_flags = r.link.ifi_change = IFF_UP;
    if (mtu)
        attr(&r, IFLA_MTU, &mtu, sizeof mtu);
    return talk(fd, &r);
}

static int add_address(int fd, int index, int family, const char *text, int prefix)
{
    struct request r;
    unsigned char a[16];
    size_t len = family == AF_INET ? 4 : 16;
    inet_pton(family, text, a);
    init(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof r.addr);
    r.addr.ifa_family = (uint8_t)family;
    r.addr.ifa_prefixlen = (uint8_t)prefix;
    r.addr.ifa_index = (unsigned)index;
    r.addr.ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0;
    attr(&r, IFA_LOCAL, a, len);
    attr(&r, IFA_ADDRESS, a, len);
    return talk(fd, &r);
}

static int add_route(int fd, int index, int family, const char *gateway)
{
    struct request r;
    unsigned char a[16];
    inet_pton(family, gateway, a);
    init(&r, RTM_NEWROUTE, NLM_F_CREATE, sizeof r.route);
    r.route.rtm_family = (uint8_t)family;
    r.route.rtm_table = RT_TABLE_MAIN;
    r.route.rtm_protocol = RTPROT_STATIC;
    r.route.rtm_scope = RT_SCOPE_UNIVERSE;
    r.route.rtm_type = RTN_UNICAST;
    attr(&r, RTA_GATEWAY, a, family == AF_INET ? 4 : 16);
    attr(&r, RTA_OIF, &index, sizeof index);
    return talk(fd, &r);
}

/* The gateway's hardware address never changes: no ARP, no neighbour discovery before the first packet. */
static int add_neighbour(int fd, int index, int family, const char *text)
{
    struct request r;
    unsigned char a[16], mac[6];
    inet_pton(family, text, a);
    sscanf(NETPLAN_GATEWAY_MAC, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3],
           &mac[4], &mac[5]);
    init(&r, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof r.neigh);
    r.neigh.ndm_family = (uint8_t)family;
    r.neigh.ndm_ifindex = index;
    r.neigh.ndm_state = NUD_PERMANENT;
    attr(&r, NDA_DST, a, family == AF_INET ? 4 : 16);
    attr(&r, NDA_LLADDR, mac, sizeof mac);
    return talk(fd, &r);
}

int netup(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return -1;
    boot_set("/proc/sys/net/ipv6/conf/default/accept_ra", "0");
    boot_set("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
    boot_set("/proc/sys/net/ipv6/conf/eth0/accept_ra", "0");
    boot_set("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0");
    boot_set("/proc/sys/net/ipv6/conf/eth0/router_solicitations", "0");
    /* The groups that it listens to are told twice, within a second each by itself: in a clone, if that comes in between. */
    boot_set("/proc/sys/net/ipv6/conf/eth0/mldv2_unsolicited_report_interval", "1");
    /* Wide windows: the cable never loses, and the host's buffers bound what is in flight. */
    boot_set("/proc/sys/net/ipv4/tcp_rmem", "4096 1048576 6291456");
    boot_set("/proc/sys/net/ipv4/tcp_wmem", "4096 1048576 4194304");
    int lo = (int)if_nametoindex("lo"), eth = (int)if_nametoindex("eth0");
    int rc = link_up(fd, lo, 0);
    if (eth == 0) {
        errno = ENODEV;
        rc = -1;
    } else if (link_up(fd, eth, NETPLAN_MTU) < 0 ||
               add_address(fd, eth, AF_INET, NETPLAN_GUEST4, NETPLAN_PREFIX4) < 0 ||
               add_address(fd, eth, AF_INET6, NETPLAN_GUEST6, NETPLAN_PREFIX6) < 0 ||
               add_neighbour(fd, eth, AF_INET, NETPLAN_GATEWAY4) < 0 ||
               add_neighbour(fd, eth, AF_INET6, NETPLAN_GATEWAY6) < 0 ||
               add_route(fd, eth, AF_INET, NETPLAN_GATEWAY4) < 0 ||
               add_route(fd, eth, AF_INET6, NETPLAN_GATEWAY6) < 0) {
        rc = -1;
    }
    close(fd);
    return rc;
}
