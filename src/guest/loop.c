#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest/guest.h"

struct timer {
    struct timer *next;
    int64_t at_ms;
    void (*fn)(void *arg);
    void *arg;
};

static int epfd = -1;
static struct timer *timers;
static struct watch child_watch;

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void loop_watch(struct watch *w, int fd, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = w};
    if (w->fd != fd)
        loop_unwatch(w);
    /* epoll tells of hang-ups also who asked for nothing: one that rests must leave the set, or a closed
     * pipe whose bytes nobody may take yet would keep us busy. */
    if (events && !w->events)
        epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev);
    else if (events && w->events != events)
        epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &ev);
    else if (!events && w->events)
        epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
    w->fd = fd;
    w->events = events;
}

void loop_unwatch(struct watch *w)
{
    if (w->fd >= 0 && w->events)
        epoll_ctl(epfd, EPOLL_CTL_DEL, w->fd, NULL);
    w->fd = -1;
    w->events = 0;
}

void loop_after(int ms, void (*fn)(void *arg), void *arg)
{
    struct timer *t = malloc(sizeof *t);
    if (!t)
        return;
    *t = (struct timer){.at_ms = now_ms() + ms, .fn = fn, .arg = arg};
    struct timer **p = &timers;
    while (*p && (*p)->at_ms <= t->at_ms)
        p = &(*p)->next;
    t->next = *p;
    *p = t;
}

int loop_init(void)
{
    epfd = epoll_create1(EPOLL_CLOEXEC);
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGCHLD);
    sigprocmask(SIG_BLOCK, &s, NULL);
    signal(SIGPIPE, SIG_IGN);
    int fd = signalfd(-1, &s, SFD_NONBLOCK | SFD_CLOEXEC);
    if (epfd < 0 || fd < 0)
        return -1;
    child_watch.fd = -1;
    loop_watch(&child_watch, fd, EPOLLIN);
    return 0;
}

void loop_run(void (*reap)(pid_t pid, int status))
{
    for (;;) {
        int wait = -1;
        if (timers) {
            int64_t left = timers->at_ms - now_ms();
            wait = left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
        }
        /* One event a turn: a handler may free the watch of another that is ready as well. */
        struct epoll_event ev;
        int n = epoll_wait(epfd, &ev, 1, wait);
        if (n == 1) {
            struct watch *w = ev.data.ptr;
            if (w == &child_watch) {
                struct signalfd_siginfo info[8];
                ssize_t ignored = read(w->fd, info, sizeof info);
                (void)ignored;
                /* Told of before it is forgotten, which takes the kernel as long again under emulation. */
                siginfo_t si = {0};
                while (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid > 0) {
                    reap(si.si_pid, si.si_code == CLD_EXITED ? W_EXITCODE(si.si_status, 0) : W_EXITCODE(0, si.si_status));
                    waitpid(si.si_pid, NULL, WNOHANG);
                    si.si_pid = 0;
                }
            } else {
                w->ready(w, ev.events);
            }
        }
        while (timers && timers->at_ms <= now_ms()) {
            struct timer *t = timers;
            timers = t->next;
            t->fn(t->arg);
            free(t);
        }
    }
}
