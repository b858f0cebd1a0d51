/* A terminal without a window for a program that asks its terminal what is on the screen: answer ROWS COLS PROGRAM...
 * Keys come from standard input, to its end; with ANSWER_RECORD what the program prints goes to that file as well.
 * What the program prints goes the way of a session: through vm/screen.c, which answers, and from there to the
 * dashboard's terminal.  One answer is given here alone, for tests: what DEC terminals answer to a question for the characters of a rectangle (DECRQCRA). */
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ui/dash/term_emu.h"
#include "vm/screen.h"

static struct term_emu *shown;
static int program;

static void on_out(const char *bytes, size_t len, void *arg)
{
    (void)arg;
    term_emu_feed(shown, bytes, len);
}

static void on_reply(const char *bytes, size_t len, void *arg)
{
    (void)arg;
    while (len) {
        ssize_t n = write(program, bytes, len);
        if (n <= 0)
            return;
        bytes += n;
        len -= (size_t)n;
    }
}

static void on_event(enum vt_event ev, const char *text, void *arg)
{
    (void)ev;
    (void)text;
    (void)arg;
}

/* CSI id ; page ; top ; left ; bottom ; right * y */
static void checksum(const char *params)
{
    static struct term_cell cells[TERM_COLS_MAX];
    int id, page, top, left, bottom, right;
    unsigned sum = 0;
    char text[64];
    if (sscanf(params, "%d;%d;%d;%d;%d;%d", &id, &page, &top, &left, &bottom, &right) != 6)
        return;
    for (int row = top; row <= bottom && row <= term_emu_rows(shown); row++) {
        int n = term_emu_line(shown, term_emu_top(shown) + (uint64_t)row - 1, cells, term_emu_cols(shown));
        for (int col = left; col <= right && col <= n; col++)
            sum += cells[col - 1].ch[0] ? cells[col - 1].ch[0] : (uint32_t)' ';
    }
    int n = snprintf(text, sizeof text, "\033P%d!~%04X\033\\", id, (0x10000u - sum) & 0xffffu);
    on_reply(text, (size_t)n, NULL);
}

int main(int argc, char **argv)
{
    static const struct screen_ops ops = {on_out, on_reply, on_event};
    char params[64];
    size_t nparams = 0, state = 0;
    if (argc < 4)
        return 2;
    struct winsize size = {.ws_row = (unsigned short)atoi(argv[1]), .ws_col = (unsigned short)atoi(argv[2])};
    struct screen *s = screen_new(size.ws_row, size.ws_col, 100, &ops, NULL);
    shown = term_emu_new(size.ws_row, size.ws_col, 100, NULL, NULL);
    pid_t pid = s && shown ? forkpty(&program, NULL, NULL, &size) : -1;
    if (pid < 0)
        return 1;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* vttest goes on without a terminal, and takes a processor for that */
        execvp(argv[3], argv + 3);
        _exit(127);
    }
    char buf[4096];
    ssize_t n;
    FILE *record = getenv("ANSWER_RECORD") ? fopen(getenv("ANSWER_RECORD"), "we") : NULL;
    struct pollfd fds[2] = {{.fd = program, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
    for (;;) {
        ssize_t from = 0;
        if (poll(fds, 2, -1) < 0)
            break;
        if (fds[1].revents && !fds[0].revents) {
            n = read(STDIN_FILENO, buf, sizeof buf);
            if (n <= 0)
                fds[1].fd = -1;
            else
                on_reply(buf, (size_t)n, NULL);
            continue;
        }
        n = read(program, buf, sizeof buf);
        if (n <= 0 && errno != EINTR)
            break;
        if (n < 0)
            continue;
        if (record) {
            fwrite(buf, 1, (size_t)n, record);
            fflush(record);
        }
        for (ssize_t i = 0; i < n; i++) {
            char c = buf[i];
            if (c == '\033')
                state = 1;
            else if (state == 1)
                state = c == '[' ? 2 : 0, nparams = 0;
            else if (state == 2 && ((c >= '0' && c <= '9') || c == ';') && nparams + 1 < sizeof params)
                params[nparams++] = c;
            else if (state == 2)
                state = c == '*' ? 3 : 0;
            else if (state == 3) {
                state = 0;
                if (c == 'y') {
                    params[nparams] = '\0';
                    screen_feed(s, buf + from, (size_t)(i + 1 - from));
                    from = i + 1;
                    checksum(params);
                }
            }
        }
        screen_feed(s, buf + from, (size_t)(n - from));
    }
    int status = 1;
    waitpid(pid, &status, 0);
    screen_free(s);
    term_emu_free(shown);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
