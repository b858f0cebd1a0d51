/* A log of 100 MB through what a session's output passes, and through tmux with the same size of screen: in `sbx screen`
 * (filter, libvterm, scrollback, and the stream for clients) and in the dashboard's pane (filter, libvterm, scrollback),
 * which run at the same time in processes of their own, so the slower one counts. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ui/dash/term_emu.h"
#include "vm/screen.h"

#define SIZE (100u * 1000u * 1000u)

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static size_t sent;

static void count(const char *bytes, size_t len, void *arg)
{
    (void)bytes;
    (void)arg;
    sent += len;
}

/* What builds and servers print: a time, a level (in colour or not), a module and some words. */
static char *make_log(bool colour)
{
    static const char *const levels[] = {"\033[32mINFO\033[0m ", "\033[33mWARN\033[0m ", "\033[31;1mERROR\033[0m", "\033[2mDEBUG\033[0m"};
    static const char *const plain[] = {"INFO ", "WARN ", "ERROR", "DEBUG"};
    static const char *const words[] = {"compiling", "src/server/handler.rs:", "request", "finished", "in", "cache", "miss", "for", "key",
                                        "connection", "from", "worker", "retry", "took", "ms", "\xe2\x9c\x93 ok"};
    char *p = malloc(SIZE + 512);
    size_t n = 0;
    unsigned seed = 1;
    for (unsigned line = 0; p && n < SIZE; line++) {
        unsigned level = (seed >> 16) % 4;
        n += (size_t)sprintf(p + n, "2026-11-23T%02u:%02u:%02u.%03uZ %s [worker-%u] ", line / 3600 % 24, line / 60 % 60, line % 60, line % 1000,
                             colour ? levels[level] : plain[level], line % 16);
        unsigned k = 3 + (seed >> 20) % 10;
        while (k--) {
            seed = seed * 1103515245u + 12345u;
            n += (size_t)sprintf(p + n, "%s ", words[(seed >> 16) % (colour ? 16 : 15)]);
        }
        n += (size_t)sprintf(p + n, "%u\r\n", seed);
        seed = seed * 1103515245u + 12345u;
    }
    return p;
}

static double through_screen(const char *log, int rows, int cols)
{
    static const struct screen_ops ops = {count, NULL, NULL};
    struct screen *s = screen_new(rows, cols, 10000, &ops, NULL);
    double t = now();
    for (size_t i = 0; s && i < SIZE; i += 16384)
        screen_feed(s, log + i, SIZE - i < 16384 ? SIZE - i : 16384);
    t = now() - t;
    screen_free(s);
    return SIZE / 1e6 / t;
}

static double through_pane(const char *log, int rows, int cols)
{
    struct term_emu *e = term_emu_new(rows, cols, 10000, NULL, NULL);
    double t = now();
    for (size_t i = 0; e && i < SIZE; i += 16384)
        term_emu_feed(e, log + i, SIZE - i < 16384 ? SIZE - i : 16384);
    t = now() - t;
    term_emu_free(e);
    return SIZE / 1e6 / t;
}

/* tmux prints the file in a detached session of that size: nothing is drawn on any terminal either. */
static double through_tmux(const char *file, int rows, int cols)
{
    char cmd[1024];
    snprintf(cmd, sizeof cmd,
             "tmux -L sbx-bench-%d -f /dev/null new-session -d -x %d -y %d 'sleep 0.3; "
             "date +%%s.%%N >%s.t0; cat %s; date +%%s.%%N >%s.t1; tmux wait-for -S done' \\; set -g history-limit 10000 && "
             "tmux -L sbx-bench-%d wait-for done && tmux -L sbx-bench-%d kill-server 2>/dev/null",
             (int)getpid(), cols, rows, file, file, file, (int)getpid(), (int)getpid());
    if (system(cmd) < 0)
        return 0;
    double t[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        snprintf(cmd, sizeof cmd, "%s.t%d", file, i);
        FILE *f = fopen(cmd, "re");
        if (!f || fscanf(f, "%lf", &t[i]) != 1)
            return 0;
        fclose(f);
        unlink(cmd);
    }
    return SIZE / 1e6 / (t[1] - t[0]);
}

int main(void)
{
    static const int sizes[][2] = {{24, 80}, {60, 200}};
    for (int colour = 0; colour < 2; colour++) {
        char *log = make_log(colour), file[] = "/tmp/sbx-bench-XXXXXX";
        int fd = log ? mkstemp(file) : -1;
        size_t done = 0;
        while (fd >= 0 && done < SIZE) {
            ssize_t n = write(fd, log + done, SIZE - done);
            if (n <= 0)
                return 1;
            done += (size_t)n;
        }
        close(fd);
        for (size_t i = 0; i < 2; i++) {
            int r = sizes[i][0], c = sizes[i][1];
            double a = through_screen(log, r, c), b = through_pane(log, r, c), t = through_tmux(file, r, c);
            double path = a < b ? a : b;
            printf("100 MB log%s, %3d x %2d: screen %.0f MB/s, pane %.0f MB/s, tmux %.0f MB/s: %.1f times tmux\n",
                   colour ? " in colour" : "", c, r, a, b, t, t > 0 ? path / t : 0);
            fflush(stdout);
        }
        unlink(file);
        free(log);
    }
    return 0;
}
