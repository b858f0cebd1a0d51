#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "guest/guest.h"

#define SOCKET "/run/docker.sock"

static struct watch watch = {.fd = -1};
static int listener = -1;
static pid_t engine;

static void note(const char *state)
{
    control_note(json_pack("{s:s, s:s}", "op", "docker", "state", state));
}

/* The connection that woke us waits in the listener's queue: the Engine, handed that listener as a
 * service manager would (LISTEN_FDS), accepts it. */
static void start(struct watch *w, uint32_t events)
{
    (void)events;
    loop_unwatch(w);
    if (configure_docker() < 0)
        control_log("cannot mount /var/lib/docker: %s", strerror(errno));
    engine = fork();
    if (engine == 0) {
        char pid[32];
        setsid();
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGPIPE, SIG_DFL);
        boot_set("/proc/self/oom_score_adj", "-500");
        mkdir("/sys/fs/cgroup/docker-engine", 0755);
        boot_set("/sys/fs/cgroup/docker-engine/cgroup.procs", "0");
        int log = open("/var/log/dockerd.log", O_WRONLY | O_CREAT | O_APPEND, 0640);
        int null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(log, 1);
        dup2(log, 2);
        int l = fcntl(listener, F_DUPFD, 10);
        dup2(l, 3);
        for (int fd = 4; fd < 1024; fd++)
            close(fd);
        snprintf(pid, sizeof pid, "LISTEN_PID=%d", (int)getpid());
        size_t n = 0;
        char *env[64];
        env[n++] = pid;
        env[n++] = (char *)"LISTEN_FDS=1";
        env[n++] = (char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        env[n++] = (char *)"HOME=/root";
        const char *key;
        json_t *v;
        json_object_foreach((json_t *)configure_env(), key, v) { /* the trust store's place, among others */
            char *s;
            if (n < 63 && asprintf(&s, "%s=%s", key, json_string_value(v)) > 0)
                env[n++] = s;
        }
        env[n] = NULL;
        execle("/usr/sbin/dockerd", "dockerd", "-H", "fd://", "--storage-driver", "overlay2",
               "--exec-opt", "native.cgroupdriver=cgroupfs", NULL, env);
        _exit(127);
    }
    if (engine < 0) {
        control_log("cannot start the Docker Engine: %s", strerror(errno));
        return;
    }
    note("starting");
}

void docker_listen(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    if (access("/usr/sbin/dockerd", X_OK) < 0)
        return;
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unlink(SOCKET);
    gid_t gid = 0;
    FILE *f = fopen("/etc/group", "re");
    struct group *g;
    while (f && (g = fgetgrent(f)))
        if (strcmp(g->gr_name, "docker") == 0)
            gid = g->gr_gid;
    if (f)
        fclose(f);
    if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || chown(SOCKET, 0, gid) < 0 ||
        chmod(SOCKET, 0660) < 0 || listen(listener, 64) < 0) {
        control_log("cannot listen for the Docker Engine: %s", strerror(errno));
        return;
    }
    watch.ready = start;
    loop_watch(&watch, listener, EPOLLIN);
}

static void listen_again(void *arg)
{
    (void)arg;
    loop_watch(&watch, listener, EPOLLIN);
}

bool docker_reaped(pid_t pid, int status)
{
    if (engine <= 0 || pid != engine)
        return false;
    engine = 0;
    note("stopped");
    if (status)
        control_log("the Docker Engine ended; see /var/log/dockerd.log");
    loop_after(1000, listen_again, NULL); /* not in a tight circle, if it dies at once */
    return true;
}
