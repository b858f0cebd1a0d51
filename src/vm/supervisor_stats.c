#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vm/supervisor_int.h"

static int64_t cpu_of(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    /* The name may hold anything; what follows the last bracket does not. */
    char *p = strrchr(text, ')');
    unsigned long long user = 0, system = 0;
    if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
        return 0;
    return (int64_t)((user + system) * (1000000ull / (unsigned)sysconf(_SC_CLK_TCK)));
}

/* The proportional share where the kernel shows it, else what is resident and not shared. */
static int64_t memory_of(pid_t pid)
{
    char path[64], line[256];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%ld/smaps_rollup", (long)pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Pss: %ld kB", &kib) == 1)
            break;
    if (f)
        fclose(f);
    if (kib >= 0)
        return kib;
    unsigned long resident = 0, shared = 0;
    snprintf(path, sizeof path, "/proc/%ld/statm", (long)pid);
    f = fopen(path, "re");
    if (f && fscanf(f, "%*u %lu %lu", &resident, &shared) != 2)
        resident = shared = 0;
    if (f)
        fclose(f);
    return (int64_t)(resident - shared) * (sysconf(_SC_PAGESIZE) / 1024);
}

void usage_read(const struct supervisor *s, struct usage *out)
{
    pid_t pids[ROLES + 2];
    size_t n = 0;
    *out = (struct usage){0, 0};
    pids[n++] = getpid();
    if (s->vm.pid > 0)
        pids[n++] = s->vm.pid;
    for (int r = 0; r < ROLES; r++)
        if (s->helpers[r].pid > 0)
            pids[n++] = s->helpers[r].pid;
    for (size_t i = 0; i < n; i++) {
        out->cpu_us += cpu_of(pids[i]);
        out->mem_kib += memory_of(pids[i]);
    }
}
