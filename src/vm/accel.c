#include "vm/accel.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <jansson.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "core/config.h"
#include "core/jsonfile.h"
#include "core/log.h"
#include "core/paths.h"
#include "vm/accel_kvm.h"

#define STALLED "/dev/kvm opens, but a machine under it %.120s"

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

/* The kernel module that this processor needs: NULL if it offers no virtualisation. */
static const char *module_needed(void)
{
    char line[8192];
    const char *module = NULL;
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && !module && fgets(line, sizeof line, f))
        if (strncmp(line, "flags", 5) == 0)
            module = strstr(line, " vmx") ? "kvm_intel" : strstr(line, " svm") ? "kvm_amd" : NULL;
    if (f)
        fclose(f);
    return module;
}

static bool in_group(gid_t gid, bool in_database)
{
    gid_t list[1024];
    int n = 1024;
    struct passwd *me = in_database ? getpwuid(geteuid()) : NULL;
    if (in_database && (!me || getgrouplist(me->pw_name, me->pw_gid, list, &n) < 0))
        return false;
    if (!in_database && (n = getgroups(n, list)) < 0)
        return false;
    for (int i = 0; i < n; i++)
        if (list[i] == gid)
            return true;
    return !in_database && getegid() == gid;
}

/* It is there, and we may not: which of the reasons is it? */
static void forbidden(struct accel_probe *p)
{
    struct stat st;
    struct group *g = stat("/dev/kvm", &st) == 0 ? getgrgid(st.st_gid) : NULL;
    char group[41];
    snprintf(group, sizeof group, "%s", g ? g->gr_name : "kvm"); /* the next look-up of names takes the place of this one */
    struct passwd *me = getpwuid(geteuid());
    p->verdict = ACCEL_FORBIDDEN;
    if (g && (st.st_mode & 060) != 060) {
        snprintf(p->reason, sizeof p->reason, "/dev/kvm may be used by its owner alone, not by a group");
        snprintf(p->remedy, sizeof p->remedy, "sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm");
    } else if (!g || st.st_gid == 65534 || in_group(st.st_gid, false)) { /* 65534: a user namespace does not know it */
        snprintf(p->reason, sizeof p->reason, "/dev/kvm exists, but this container or service may not open it");
        snprintf(p->remedy, sizeof p->remedy, "give it the device, for containers with --device /dev/kvm");
    } else if (in_group(st.st_gid, true)) {
        snprintf(p->reason, sizeof p->reason, "you are in the group %s, but this login is older than that", group);
        snprintf(p->remedy, sizeof p->remedy, "log out and in again");
    } else {
        snprintf(p->reason, sizeof p->reason, "you may not use /dev/kvm: you are not in the group %s", group);
        snprintf(p->remedy, sizeof p->remedy, "sudo usermod -aG %s %.40s, then log out and in again", group,
                 me ? me->pw_name : "$USER");
    }
}

/* What a look at the device tells; it is cheap, and what the user mends must show at once: not cached. */
static bool look(struct accel_probe *p)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return true;
    }
    const char *module = module_needed();
    if (errno == EACCES || errno == EPERM) {
        forbidden(p);
        return false;
    }
    p->verdict = ACCEL_MISSING;
    snprintf(p->reason, sizeof p->reason, errno == ENOENT ? "this machine has no /dev/kvm" : "/dev/kvm has no driver behind it");
    if (module)
        snprintf(p->remedy, sizeof p->remedy, "sudo modprobe %s (in a container: give it the device /dev/kvm)", module);
    else
        snprintf(p->remedy, sizeof p->remedy,
                 "turn on virtualisation in the firmware (VT-x, AMD-V), or nested virtualisation in the host of this machine");
    return false;
}

static void probe(struct accel_probe *p, bool again)
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
        if (strcmp(verdict, verdicts[i]) == 0 && (i == ACCEL_WORKS || i == ACCEL_STALLS || (i == ACCEL_USELESS && !again))) {
            const char *reason = json_string_value(json_object_get(was, "reason"));
            p->verdict = (enum accel_verdict)i;
            p->tsc_deadline = json_is_true(json_object_get(was, "tsc_deadline"));
            snprintf(p->reason, sizeof p->reason, "%s", reason ? reason : "");
            if (i == ACCEL_STALLS)
                snprintf(p->remedy, sizeof p->remedy, "sbx config set vm.accel kvm (the next start tries it again)");
            json_decref(was);
            return;
        }
    json_decref(was);
    bool lasting = true;
    p->verdict = accel_kvm_try(&p->tsc_deadline, &lasting, p->reason, sizeof p->reason) ? ACCEL_WORKS : ACCEL_USELESS;
    if (lasting)
        remember(boot, p);
    else if (!had_tsc)
        remember(boot, &(struct accel_probe){.verdict = ACCEL_MISSING, .tsc_khz = p->tsc_khz});
}

void accel_probe(struct accel_probe *p)
{
    probe(p, false);
}

void accel_probe_again(struct accel_probe *p)
{
    probe(p, true);
}

static void report(enum accel_verdict verdict, const char *what)
{
    struct accel_probe p;
    char boot[64];
    boot_id(boot);
    probe(&p, false);
    p.verdict = verdict;
    p.reason[0] = '\0';
    if (what)
        snprintf(p.reason, sizeof p.reason, STALLED, what);
    remember(boot, &p);
}

void accel_report_stall(const char *what)
{
    report(ACCEL_STALLS, what);
}

void accel_report_works(void)
{
    report(ACCEL_WORKS, NULL);
}

static bool is_amd(void)
{
    unsigned a, b = 0, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && (b == signature_AMD_ebx || b == 0x6f677948 /* "Hygo" */);
}

static int choose(struct accel *out, const char *stalled, struct err *e)
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
    bool only_kvm = strcmp(want, "kvm") == 0, only_tcg = strcmp(want, "tcg") == 0;
    free(want);
    struct accel_probe p;
    probe(&p, only_kvm && !stalled);
    out->tsc_khz = p.tsc_khz;
    out->tsc_deadline = p.tsc_deadline;
    out->amd = is_amd();
    if (stalled) {
        p.verdict = ACCEL_STALLS;
        p.remedy[0] = '\0';
        snprintf(p.reason, sizeof p.reason, STALLED, stalled);
    }
    /* Who asks for KVM and nothing else gets another try of it. */
    out->once_more = only_kvm && !stalled && p.verdict == ACCEL_STALLS;
    out->kvm = (p.verdict == ACCEL_WORKS && !only_tcg) || out->once_more;
    if (out->kvm)
        return 0;
    const char *cause = only_tcg ? "the setting vm.accel asks for it" : p.reason;
    if (only_kvm || !config_bool("vm.allow_emulation", NULL))
        return err_set(e, STATUS_FAILED, "%s, and the settings do not allow emulation%s%s",
                       only_tcg ? "vm.accel asks for emulation" : p.reason, p.remedy[0] && !only_tcg ? "; to mend it: " : "",
                       only_tcg ? "" : p.remedy);
    snprintf(out->notice, sizeof out->notice,
             "running under emulation, which is slow and no security boundary: %s%s%s", cause,
             p.remedy[0] && !only_tcg ? "; to mend it: " : "", only_tcg ? "" : p.remedy);
    return 0;
}

int accel_choose(struct accel *out, struct err *e)
{
    return choose(out, NULL, e);
}

int accel_choose_without(struct accel *out, const char *what, struct err *e)
{
    return choose(out, what, e);
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
