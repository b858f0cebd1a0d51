#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "guest/guest.h"

static struct watch watch = {.fd = -1};

/* A record is "priority,sequence,time,flags;text". The facility in the priority is 0 for the kernel alone: what a
 * program writes into the log carries another. */
static void record(const char *line)
{
    const char *text = strchr(line, ';'), *at = text ? strstr(text, "Killed process ") : NULL;
    int pid;
    char name[64];
    if (!at || strtoul(line, NULL, 10) >= 8 || sscanf(at, "Killed process %d (%63[^)])", &pid, name) != 2)
        return;
    control_log("out of memory: the kernel killed %s (process %d)", name, pid);
    json_t *victim = json_string(name); /* NULL if it is no UTF-8 */
    control_note(json_pack("{s:s, s:o}", "op", "oom", "victim", victim ? victim : json_string("?")));
}

static void ready(struct watch *w, uint32_t events)
{
    char line[1024];
    (void)events;
    for (int i = 0; i < 32; i++) { /* the log may be written to without an end */
        ssize_t n = read(w->fd, line, sizeof line - 1);
        if (n <= 0)
            return; /* EAGAIN: no more; EPIPE: records were overwritten, the next read goes on */
        line[n] = '\0';
        record(line);
    }
}

void oom_watch(void)
{
    int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    lseek(fd, 0, SEEK_END);
    watch.ready = ready;
    loop_watch(&watch, fd, EPOLLIN);
}
