/* Is this a FUSE request that libfuse can be given?  libfuse trusts the kernel that it talks to; ours is
 * hostile.  Every opcode that we serve has its fixed part and its names checked against the message's length. */
#ifndef SBX_VM_FS_CHECK_H
#define SBX_VM_FS_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FS_MESSAGE_MAX (1024u * 1024u + 4096u)

/* msg[0..len) is one message by its own length field. */
bool fs_check(const uint8_t *msg, size_t len);

#endif
