/* Hardware virtualisation: is there any, and does it work?
 *
 * /dev/kvm may be missing, forbidden, or open and useless, so it is tried: a child of ours runs a few
 * instructions in 64-bit mode on a throw-away vCPU, with a time limit.  What was found is kept for this boot
 * of the host, so is what a real machine showed later (accel_report_stall). */
#ifndef SBX_VM_ACCEL_H
#define SBX_VM_ACCEL_H

#include <stdbool.h>

#include "core/err.h"

enum accel_verdict {
    ACCEL_WORKS,
    ACCEL_MISSING,   /* no /dev/kvm */
    ACCEL_FORBIDDEN, /* it exists and this user may not open it */
    ACCEL_USELESS,   /* it opens, and does not run code */
    ACCEL_STALLS,    /* it runs code, and a machine under it showed no sign of life */
};

struct accel_probe {
    enum accel_verdict verdict;
    bool tsc_deadline; /* the local APIC's timer knows TSC deadlines: no PIT and PIC are needed */
    unsigned tsc_khz;  /* of the host's time-stamp counter, measured once in this boot */
    char reason[256];  /* one sentence for the user, "" if it works */
    char remedy[256];  /* the command that mends it, "" if there is none */
};

/* Looks, or recalls what was found in this boot of the host.  May take up to seven seconds the first time. */
void accel_probe(struct accel_probe *out);

/* The same, but where the trial failed earlier it is made again: something may have been mended since. */
void accel_probe_again(struct accel_probe *out);

/* A machine did not come up under KVM (what: "gives no sign of life", ...) and did under emulation, so it was not the
 * machine: emulation is used until the host boots again, or the setting vm.accel asks for KVM. */
void accel_report_stall(const char *what);

/* A machine came up under KVM although an earlier one had stalled. */
void accel_report_works(void);

struct accel {
    bool kvm;
    bool once_more; /* an earlier machine stalled under it */
    bool amd;       /* the processor is AMD's or Hygon's */
    bool tsc_deadline;
    unsigned tsc_khz;
    char notice[1024]; /* why it is emulation, for the user; "" under KVM */
};

/* Applies the settings vm.accel and vm.allow_emulation.  -1 if what they ask for is not to be had. */
int accel_choose(struct accel *out, struct err *e);

/* The same after a machine did not come up under KVM; nothing is remembered of that. */
int accel_choose_without(struct accel *out, const char *what, struct err *e);

/* `sbx accel`: the probe as one JSON object on standard output (for doctor). */
int accel_main(int argc, char **argv);

#endif
