#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/guest.h"

bool boot_set(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool taken = write(fd, value, strlen(value)) >= 0;
    int why = errno;
    close(fd);
    errno = why;
    return taken;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The files are named in the order in which they depend on each other ("07-virtio_blk.ko"). */
int boot_load_modules(const char *dir)
{
    struct dirent **list;
    int n = scandir(dir, &list, NULL, by_name), failed = 0;
    for (int i = 0; i < n; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, list[i]->d_name);
        size_t len = strlen(path);
        free(list[i]);
        if (len < 3 || strcmp(path + len - 3, ".ko") != 0)
            continue;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)) {
            printf("sbx-guest: cannot load %s: %s\n", path, strerror(errno));
            failed++;
        }
        if (fd >= 0)
            close(fd);
    }
    if (n >= 0)
        free(list);
    return failed;
}

char *boot_port(const char *name)
{
    static char path[300];
    DIR *d = opendir("/sys/class/virtio-ports");
    struct dirent *ent;
    bool found = false;
    while (d && !found && (ent = readdir(d))) {
        char file[300], text[64] = "";
        snprintf(file, sizeof file, "/sys/class/virtio-ports/%s/name", ent->d_name);
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        if (n > 0)
            text[strcspn(text, "\n")] = '\0';
        if (strcmp(text, name) == 0) {
            snprintf(path, sizeof path, "/dev/%s", ent->d_name);
            found = true;
        }
    }
    if (d)
        closedir(d);
    return found ? path : NULL;
}

static bool booted_once(void)
{
    char line[1024];
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, line, sizeof line - 1) : -1;
    if (fd >= 0)
        close(fd);
    line[n > 0 ? n : 0] = '\0';
    return strstr(line, " sbx.once") != NULL;
}

static int warm_child(void *arg)
{
    int null = open("/dev/null", O_RDWR);
    (void)arg;
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    if (chroot("/base") == 0 && chdir("/") == 0)
        execle("/bin/bash", "bash", "-c", "/bin/true; /usr/bin/env true; :", NULL,
               (char *[]){(char *)"PATH=/usr/bin:/bin", (char *)"LANG=C.UTF-8", NULL});
    _exit(127);
}

/* Runs a shell of the base image once, so that what every session needs first (shell, C library,
 * locale) lies in the page cache of the frozen machine. */
static void warm(void)
{
    pid_t pid = child_start(warm_child, NULL);
    if (pid > 0)
        waitpid(pid, NULL, 0);
}

void boot_early(void)
{
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
    boot_load_modules("/modules");
    /* The console is a virtio device: it is there only now. */
    int con = open("/dev/console", O_RDWR | O_NOCTTY);
    if (con >= 0) {
        dup2(con, 0);
        dup2(con, 1);
        dup2(con, 2);
        if (con > 2)
            close(con);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir("/dev/pts", 0755);
    mkdir("/dev/shm", 01777);
    mkdir("/dev/mqueue", 01777);
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    /* favordynmods: each session is moved into a group of its own, which otherwise waits out an RCU grace period
     * (10 ms of the 50 that an exec takes under emulation). */
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "nsdelegate,favordynmods");
    boot_set("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids +io +cpuset");
    mkdir("/sys/fs/cgroup/init", 0755);
    boot_set("/sys/fs/cgroup/init/cgroup.procs", "0");
    boot_set("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids +io +cpuset");
    mkdir("/sys/fs/cgroup/sessions", 0755);
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"},
                                           {"pts/ptmx", "/dev/ptmx"}};
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        unlink(links[i][1]);
        if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
            printf("sbx-guest: %s: %s\n", links[i][1], strerror(errno));
    }
    static const char *const settings[][2] = {
        {"/proc/sys/fs/inotify/max_user_watches", "1048576"},
        {"/proc/sys/fs/inotify/max_user_instances", "1024"},
        {"/proc/sys/fs/file-max", "1048576"},
        {"/proc/sys/vm/max_map_count", "1048576"},
        {"/proc/sys/net/ipv4/ping_group_range", "0 2147483647"},
        {"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
        {"/proc/sys/net/ipv4/ip_forward", "1"},
        /* What was used within the last second stays in memory: a machine that ran out kills the eater at once,
         * instead of reading its own programs from the disk again and again for minutes. */
        {"/sys/kernel/mm/lru_gen/enabled", "7"},
        {"/sys/kernel/mm/lru_gen/min_ttl_ms", "1000"},
        /* Nobody needs huge pages soon enough for a thread that wakes twice a second to make room for them. */
        {"/proc/sys/vm/compaction_proactiveness", "0"},
        {"/proc/sys/vm/stat_interval", "60"},
        /* The host knows better when its disk is busy. */
        {"/sys/block/vda/queue/wbt_lat_usec", "0"},
        {"/sys/block/vdb/queue/wbt_lat_usec", "0"},
        {"/proc/sys/kernel/panic", "-1"},
        {"/proc/sys/kernel/printk", "4 4 1 7"},
        {"/proc/sys/kernel/ctrl-alt-del", "0"},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        boot_set(settings[i][0], settings[i][1]);
    boot_set("/proc/self/oom_score_adj", "-1000");
    if (netup() < 0)
        printf("sbx-guest: network: %s\n", strerror(errno));
    mkdir("/base", 0755);
    mkdir("/disk", 0755);
    mkdir("/newroot", 0755);
    if (mount("/dev/vda", "/base", "erofs", MS_RDONLY, NULL) < 0)
        printf("sbx-guest: cannot mount the base image: %s\n", strerror(errno));
    else if (!booted_once())
        warm();
}
