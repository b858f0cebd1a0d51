/* Does hardware virtualisation really work here?  /dev/kvm may be absent, forbidden, or open and useless. */
#ifndef SBX_VM_ACCEL_H
#define SBX_VM_ACCEL_H

#include <stdbool.h>

#include "core/err.h"

struct accel {
    bool kvm;
    bool tsc_deadline; /* under KVM: the machine can do without PIT, PIC and RTC */
    char reason[256];  /* why not, with the command that mends it */
};

/* The probe's answer, from the cache of this boot of the host if there is one.  Takes two seconds at the most. */
void accel_probe(struct accel *a);
/* The probe without the cache. */
void accel_probe_now(struct accel *a);
/* A machine gave no sign of life under KVM: remembered until the host boots again. */
void accel_mark_useless(const char *reason);

/* The host's TSC frequency in kHz, measured (machine.md 0.1: an emulated boot hangs without it). */
unsigned accel_tsc_khz(void);

#endif
