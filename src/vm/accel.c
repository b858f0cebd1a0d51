#include "vm/accel.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "core/config.h"
#include "core/jsonfile.h"
#include "core/log.h"
#include "core/paths.h"
#include "vm/accel_kvm.h"

static const char *const verdicts[] = {
    [ACCEL_WORKS] = "works",     [ACCEL_MISSING] = "missing", [ACCEL_FORBIDDEN] = "forbidden",
    [ACCEL_USELESS] = "useless", [ACCEL_STALLS] = "stalls",
};

static void boot_id(char out[64])
{
    out[0] = '\0';
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f && !fgets(out, 64, f))
        out[0] = '\0';
    if (f)
        fclose(f);
    out[strcspn(out, "\n")] = '\0';
}

/* TCG gives the guest the host's counter as it is; the guest must be told how fast it counts, because its own
 * calibration fails at random without port 0x61 (machine.md, finding 1). */
static unsigned measure_tsc(void)
{
    struct timespec a, b, nap = {0, 40 * 1000 * 1000};
    clock_gettime(CLOCK_MONOTONIC, &a);
    uint64_t t0 = __rdtsc();
    nanosleep(&nap, NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    uint64_t t1 = __rdtsc();
    uint64_t ns = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000ull + (uint64_t)b.tv_nsec - (uint64_t)a.tv_nsec;
    return (unsigned)((t1 - t0) * 1000000ull / (ns ? ns : 1));
}

/* What was found earlier in this boot; NULL if nothing. */
static json_t *recall(const char *boot)
{
    char *path = path_in(PATH_CACHE, NULL, "accel.json");
    json_t *o = path ? jsonfile_read(path, NULL) : NULL;
    free(path);
    const char *then = json_string_value(json_object_get(o, "boot"));
    if (o && (!then || strcmp(then, boot) != 0)) {
        json_decref(o);
        o = NULL;
    }
    return o;
}

static void remember(const char *boot, const struct accel_probe *p)
{
    char *path = path_in(PATH_CACHE, NULL, "accel.json");
    json_t *o = json_pack("{s:i, s:s, s:s, s:s, s:b, s:i}", "version", 1, "boot", boot, "verdict",
                          verdicts[p->verdict], "reason", p->reason, "tsc_deadline", (int)p->tsc_deadline,
                          "tsc_khz", (int)p->tsc_khz);
    if (path && o)
        jsonfile_write(path, o, 0600, NULL);
    json_decref(o);
    free(path);
}

/* What a look at the device tells; it is cheap, and what the user mends must show at once: not cached. */
static bool look(struct accel_probe *p)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return true;
    }
    if (errno == EACCES || errno == EPERM) {
        p->verdict = ACCEL_FORBIDDEN;
        snprintf(p->reason, sizeof p->reason, "you may not use /dev/kvm");
        snprintf(p->remedy, sizeof p->remedy, "sudo usermod -aG kvm $USER, then log in again");
    } else {
        p->verdict = ACCEL_MISSING;
        snprintf(p->reason, sizeof p->reason, "this machine has no /dev/kvm");
        snprintf(p->remedy, sizeof p->remedy,
                 "turn on virtualisation in the firmware (or nested virtualisation in the host of this "
                 "machine), then sudo modprobe kvm_intel or kvm_amd");
    }
    return false;
}

void accel_probe(struct accel_probe *p)
{
    memset(p, 0, sizeof *p);
    char boot[64];
    boot_id(boot);
    json_t *was = recall(boot);
    p->tsc_khz = (unsigned)json_integer_value(json_object_get(was, "tsc_khz"));
    bool had_tsc = p->tsc_khz != 0;
    if (!had_tsc)
        p->tsc_khz = measure_tsc();
    if (!look(p)) {
        /* Only the frequency is worth keeping. */
        if (!had_tsc) {
            struct accel_probe keep = *p;
            keep.reason[0] = '\0';
            remember(boot, &keep);
        }
        json_decref(was);
        return;
    }
    const char *verdict = json_string_value(json_object_get(was, "verdict"));
    for (size_t i = 0; verdict && i < sizeof verdicts / sizeof *verdicts; i++)
        if (strcmp(verdict, verdicts[i]) == 0 && i != ACCEL_MISSING && i != ACCEL_FORBIDDEN) {
            const char *reason = json_string_value(json_object_get(was, "reason"));
            p->verdict = (enum accel_verdict)i;
            p->tsc_deadline = json_is_true(json_object_get(was, "tsc_deadline"));
            snprintf(p->reason, sizeof p->reason, "%s", reason ? reason : "");
            json_decref(was);
            return;
        }
    json_decref(was);
    p->verdict = accel_kvm_try(&p->tsc_deadline, p->reason, sizeof p->reason) ? ACCEL_WORKS : ACCEL_USELESS;
    remember(boot, p);
}

void accel_report_stall(const char *what)
{
    struct accel_probe p;
    char boot[64];
    boot_id(boot);
    accel_probe(&p);
    p.verdict = ACCEL_STALLS;
    snprintf(p.reason, sizeof p.reason, "/dev/kvm opens, but a machine under it %.120s", what);
    remember(boot, &p);
}

int accel_choose(struct accel *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    struct err bad = {0};
    char *want = config_string("vm.accel", &bad);
    if (bad.status || !want) {
        free(want);
        if (e)
            *e = bad;
        return -1;
    }
    struct accel_probe p;
    accel_probe(&p);
    out->tsc_khz = p.tsc_khz;
    out->tsc_deadline = p.tsc_deadline;
    bool only_kvm = strcmp(want, "kvm") == 0, only_tcg = strcmp(want, "tcg") == 0;
    free(want);
    out->kvm = p.verdict == ACCEL_WORKS && !only_tcg;
    if (out->kvm)
        return 0;
    const char *cause = only_tcg ? "the setting vm.accel asks for it" : p.reason;
    if (only_kvm || !config_bool("vm.allow_emulation", NULL))
        return err_set(e, STATUS_FAILED, "%s, and the settings do not allow emulation%s%s",
                       only_tcg ? "vm.accel asks for emulation" : p.reason, p.remedy[0] ? "; to mend it: " : "",
                       p.remedy);
    snprintf(out->notice, sizeof out->notice,
             "running under emulation, which is slow and no security boundary: %s%s%s", cause,
             p.remedy[0] && !only_tcg ? "; to mend it: " : "", only_tcg ? "" : p.remedy);
    return 0;
}

int accel_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct accel_probe p;
    accel_probe(&p);
    json_t *o = json_pack("{s:s, s:s, s:s, s:b, s:i}", "verdict", verdicts[p.verdict], "reason", p.reason,
                          "remedy", p.remedy, "tsc_deadline", (int)p.tsc_deadline, "tsc_khz", (int)p.tsc_khz);
    char *text = o ? json_dumps(o, JSON_PRESERVE_ORDER) : NULL;
    if (text)
        puts(text);
    free(text);
    json_decref(o);
    return text ? 0 : 1;
}
