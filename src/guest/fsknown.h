/* What the kernel need not ask the host for, by the relay of FUSE messages (fsrelay.c). */
#ifndef SBX_GUEST_FSKNOWN_H
#define SBX_GUEST_FSKNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FSKNOWN_ANSWER_MAX 256u

#define FSKNOWN_ANSWER 1u /* the answer is in the buffer: the kernel gets it at once */
#define FSKNOWN_SEND 2u   /* it goes to the host */
#define FSKNOWN_LATER 4u  /* with the next one that goes there, for nobody waits for it */

/* A message of the kernel, changed where its answer will not be wanted. */
unsigned fsknown_asked(uint8_t *msg, size_t len, uint8_t answer[FSKNOWN_ANSWER_MAX]);
/* A notification of the host, before the kernel has it.  True: it is not for the kernel. */
bool fsknown_told(const uint8_t *msg, size_t len);

#endif
