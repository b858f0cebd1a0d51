/* What the file server and the guest's relay say to each other on the fs port beside FUSE's own messages. */
#ifndef SBX_CORE_FSPORT_H
#define SBX_CORE_FSPORT_H

#include <stdint.h>
#include <linux/fuse.h>

/* To the relay, as a notification (struct fuse_out_header, unique 0, this as its error) before the reply to a request
 * that changed something: what the guest's kernel will ask for next. */
#define FSPORT_KNOW 0x5b78
#define FSPORT_KNOW_ATTR 1u   /* attr is the node's, as GETATTR would answer; else nothing is known of it any more */
#define FSPORT_KNOW_OTHERS 2u /* nor of the attributes of any other node: a name of one may have gone */
#define FSPORT_KNOW_EMPTY 4u  /* `made` is a directory, empty, and what the host puts there will be told */
/* `gone` is a file that lost its last name, and that nobody has open: nothing is to be seen of it any more, and when it
 * was changed, which the kernel writes down all the same, need not be told. */
#define FSPORT_KNOW_GONE 8u

struct fsport_know {
    uint64_t node, made, gone;
    uint32_t flags, unused;
    struct fuse_attr_out attr;
};

/* To the server: 1 in this byte of struct fuse_in_header (it is padding): the kernel has its answer already. */
#define FSPORT_QUIET_AT 38u

#endif
