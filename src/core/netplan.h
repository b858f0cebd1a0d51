/* The addresses on the cable: the same in every sandbox, known to host and guest (libc only). */
#ifndef SBX_CORE_NETPLAN_H
#define SBX_CORE_NETPLAN_H

#define NETPLAN_GUEST4 "10.113.0.2"
#define NETPLAN_GATEWAY4 "10.113.0.1" /* and name server */
#define NETPLAN_PREFIX4 24
#define NETPLAN_GUEST6 "fd53:6278::2"
#define NETPLAN_GATEWAY6 "fd53:6278::1"
#define NETPLAN_PREFIX6 64
#define NETPLAN_GUEST_MAC "02:53:42:58:00:02"
#define NETPLAN_GATEWAY_MAC "02:53:42:58:00:01"
/* One address per name, never reused while the machine runs (RFC 2544's range; a ULA /64). */
#define NETPLAN_FAKE4 "198.18.0.0"
#define NETPLAN_FAKE4_PREFIX 15
#define NETPLAN_FAKE6 "fd53:6278:0:1::"
#define NETPLAN_FAKE6_PREFIX 64
#define NETPLAN_MTU 65520

#endif
