/* The trial run on a throw-away vCPU (see accel.h). */
#ifndef SBX_VM_ACCEL_KVM_H
#define SBX_VM_ACCEL_KVM_H

#include <stdbool.h>
#include <stddef.h>

/* True if /dev/kvm ran our few instructions in 64-bit mode in time; else why says what happened.  lasting: the
 * answer holds for this boot of the host. */
bool accel_kvm_try(bool *tsc_deadline, bool *lasting, char *why, size_t cap);

#endif
