/* The workspace on this host's own kernel, beside the plain directory: what the server itself costs.  (In a sandbox
 * the port comes on top.)  Needs root and /dev/fuse. */
#include "fs_mount.h"

#include <sched.h>
#include <time.h>

static double run(const char *dir, const char *cmd)
{
    struct timespec a, b;
    char all[1024];
    snprintf(all, sizeof all, "cd %s && { %s; } >/dev/null", dir, cmd);
    clock_gettime(CLOCK_MONOTONIC, &a);
    int rc = system(all);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return rc ? -1 : (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A file that the host makes in a folder that the guest holds for empty: until the guest has it. */
static void host_changes(const char *shared, const char *served)
{
    enum { TIMES = 200 };
    static double took[TIMES];
    char dir[128], theirs[128], ours[128];
    for (int i = 0; i < TIMES; i++) {
        snprintf(dir, sizeof dir, "%s/told-%d", served, i);
        snprintf(ours, sizeof ours, "%s/told-%d/new", served, i);
        snprintf(theirs, sizeof theirs, "%s/told-%d/new", shared, i);
        if (mkdir(dir, 0755) < 0 || access(ours, F_OK) == 0)
            return;
        double start = now_ms();
        int fd = open(theirs, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        while (access(ours, F_OK) < 0)
            sched_yield();
        took[i] = now_ms() - start;
        close(fd);
    }
    qsort(took, TIMES, sizeof *took, by_size);
    printf("%-24s p50 %.2f ms, worst of %d %.2f ms (goal 100)\n", "the host's change seen", took[TIMES / 2], TIMES,
           took[TIMES - 1]);
}

int main(void)
{
    static const struct {
        const char *name, *cmd;
    } t[] = {
        {"create 1000 files", "mkdir c && cd c && seq 1000 | xargs touch"},
        {"untar 5000 files", "tar xf $TREE"},
        {"copy 5000 files", "cp -r files more"},
        {"find 10,000, first", "find . -type f -size +1"},
        {"find 10,000, again", "find . -type f -size +1"},
        {"read 5000 files", "cat files/*/*"},
        {"read 5000 files, again", "cat files/*/*"},
        {"git add of 11,000", "git init -q . && git add -A"},
        {"git status", "git status --short"},
        {"git status, again", "git status --short"},
        {"write 256 MiB, synced", "dd if=/dev/zero of=big bs=1M count=256 conv=fsync 2>/dev/null"},
        {"write 32 MiB by 4 KiB", "dd if=/dev/zero of=small bs=4k count=8192 2>/dev/null"},
        {"read 256 MiB, again", "dd if=big of=/dev/null bs=1M 2>/dev/null"},
        {"remove all", "rm -rf files more c big small .git"},
    };
    char dir[] = "/tmp/sbx-bench-fs.XXXXXX", plain[64], shared[64], served[80], tree[64];
    struct fs_mount m;
    if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || !mkdtemp(dir)) {
        printf("skipped: mounting needs root and /dev/fuse\n");
        return 0;
    }
    snprintf(plain, sizeof plain, "%s/plain", dir);
    snprintf(shared, sizeof shared, "%s/shared", dir);
    snprintf(tree, sizeof tree, "%s/tree.tar", dir);
    setenv("TREE", tree, 1);
    setenv("GIT_CONFIG_COUNT", "1", 1); /* root at work on files that appear to be of uid 1000 */
    setenv("GIT_CONFIG_KEY_0", "safe.directory", 1);
    setenv("GIT_CONFIG_VALUE_0", "*", 1);
    mkdir(plain, 0755);
    mkdir(shared, 0755);
    run(dir, "mkdir -p src/files && cd src && for d in $(seq 50); do mkdir files/$d; for i in $(seq 100); do "
             "printf '%1200d' $d$i > files/$d/$i; done; done; tar cf $TREE files");
    struct fs_mount_folder f = {shared, false, NULL};
    if (fs_mount(&m, &f, 1) < 0)
        return 1;
    snprintf(served, sizeof served, "%s/0", m.at);
    printf("%-24s %9s %9s %7s\n", "", "plain s", "served s", "ratio");
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        double a = run(plain, t[i].cmd), b = run(served, t[i].cmd);
        printf("%-24s %9.3f %9.3f %7.1f\n", t[i].name, a, b, b / a);
        fflush(stdout);
    }
    host_changes(shared, served);
    int rc = fs_unmount(&m);
    char clean[128];
    snprintf(clean, sizeof clean, "rm -rf %s", dir);
    return system(clean) != 0 || rc != 0;
}
