#include "ui/dash/screen.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <ncurses.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#include "core/paths.h"
#include "ui/backdrop.h"

#define BACKDROP_MS 30 /* an answer that comes later is heard all the same */

/* Every mode that we or a program may have set, off: one static string, so that a signal handler can say it. */
static const char restore_modes[] =
    "\033[?1000l\033[?1002l\033[?1003l\033[?1006l\033[?1004l\033[?2004l\033[?2026l\033[<u\033[?1l\033>\033[r\033[m\033[0 q\033[?7h"
    "\033[?25h";
static const char restore_screen[] = "\033[?1049l\r";
static const char mouse_on[] = "\033[?1000h\033[?1002h\033[?1006h";
static const char mouse_off[] = "\033[?1006l\033[?1003l\033[?1002l\033[?1000l";
static const char modes_on[] = "\033[?2004h\033[?1004h";

static struct termios saved;
static volatile sig_atomic_t entered;
static SCREEN *screen;
static int old_stderr = -1, memory = -1;
static bool with_mouse, utf8, other_screen;

static void put(const char *buf, size_t len)
{
    while (len) {
        ssize_t n = write(STDOUT_FILENO, buf, len);
        if (n < 0 && errno != EINTR)
            return;
        if (n > 0) {
            buf += n;
            len -= (size_t)n;
        }
    }
}

/* Async-signal-safe. */
static void restore(void)
{
    if (!entered)
        return;
    entered = 0;
    put(restore_modes, sizeof restore_modes - 1);
    /* Where there was no other screen to begin with, going back from it would only move the cursor. */
    if (other_screen)
        put(restore_screen, sizeof restore_screen - 1);
    tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

static void on_fatal(int sig)
{
    restore();
    if (old_stderr >= 0) {
        static const char text[] = "sbx: the dashboard crashed; your sandboxes go on. Please report it.\n";
        ssize_t ignored = write(old_stderr, text, sizeof text - 1);
        (void)ignored;
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

static void raw_mode(void)
{
    struct termios t = saved;
    cfmakeraw(&t);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &t);
}

static void modes(void)
{
    put(modes_on, sizeof modes_on - 1);
    if (with_mouse)
        put(mouse_on, sizeof mouse_on - 1);
}

static bool says(const char *var, const char *const *words, bool prefix)
{
    const char *v = getenv(var);
    for (; v && *words; words++)
        if (prefix ? strncmp(v, *words, strlen(*words)) == 0 : strcmp(v, *words) == 0)
            return true;
    return false;
}

static const char *const multiplexers[] = {"tmux", "screen", NULL},
                  *const alike[] = {"xterm", "alacritty", "foot", "ghostty", "konsole", "vte", "st-", "iterm", NULL};

/* With direct colours where the terminal has them: by descriptions of our own, which the system may lack. */
static SCREEN *open_direct(void)
{
    static const char *const yes[] = {"truecolor", "24bit", NULL};
    bool mux = says("TERM", multiplexers, true);
    if (!says("COLORTERM", yes, false) || !(mux || says("TERM", alike, true)) || (getenv("NO_COLOR") && *getenv("NO_COLOR")))
        return NULL;
    char *dir = path_asset("terminfo", NULL), *before = getenv("TERMINFO") ? strdup(getenv("TERMINFO")) : NULL;
    SCREEN *s = NULL;
    if (dir && access(dir, R_OK) == 0 && setenv("TERMINFO", dir, 1) == 0)
        s = newterm(mux ? "sbx-tmux-direct" : "sbx-direct", stdout, stdin);
    if (before)
        setenv("TERMINFO", before, 1);
    else
        unsetenv("TERMINFO");
    free(before);
    free(dir);
    return s;
}

int screen_enter(bool mouse, struct err *e)
{
    if (tcgetattr(STDIN_FILENO, &saved) < 0)
        return err_errno(e, errno, "cannot read the terminal's settings");
    const char *codeset = nl_langinfo(CODESET);
    if (strcmp(codeset, "UTF-8") != 0 && !getenv("LC_ALL") && !getenv("LC_CTYPE") && !getenv("LANG") && setlocale(LC_CTYPE, "C.UTF-8"))
        codeset = nl_langinfo(CODESET); /* nothing was said at all: every terminal of today can */
    utf8 = strcmp(codeset, "UTF-8") == 0;
    screen = open_direct();
    if (!screen)
        screen = newterm(NULL, stdout, stdin);
    if (!screen && says("TERM", alike, true)) /* this host does not know them all, as over ssh; each does what xterm does */
        screen = newterm("xterm-256color", stdout, stdin);
    if (!screen)
        return err_set(e, STATUS_FAILED, "the terminal \"%s\" is not known here; set TERM, for example to xterm-256color", getenv("TERM") ? getenv("TERM") : "");
    if (!tigetstr("cup")) {
        delscreen(screen);
        screen = NULL;
        tcsetattr(STDIN_FILENO, TCSANOW, &saved);
        return err_set(e, STATUS_FAILED, "the terminal \"%s\" cannot place a cursor; every command works there, see: sbx help", getenv("TERM") ? getenv("TERM") : "");
    }
    const char *smcup = tigetstr("smcup");
    other_screen = smcup && smcup != (const char *)-1;
    entered = 1;
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGSYS, SIGTRAP, SIGXCPU, SIGXFSZ};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], on_fatal);
    atexit(restore);
    if (has_colors()) {
        start_color();
        use_default_colors();
    }
    noecho();
    nonl();
    leaveok(stdscr, FALSE);
    raw_mode();
    with_mouse = mouse;
    modes();
    memory = memfd_create("messages", MFD_CLOEXEC);
    if (memory >= 0) {
        old_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        dup2(memory, STDERR_FILENO);
    }
    return 0;
}

static void tell_messages(void)
{
    char buf[4096];
    ssize_t n;
    if (memory < 0)
        return;
    dup2(old_stderr, STDERR_FILENO);
    close(old_stderr);
    old_stderr = -1;
    lseek(memory, 0, SEEK_SET);
    while ((n = read(memory, buf, sizeof buf)) > 0)
        if (write(STDERR_FILENO, buf, (size_t)n) < 0)
            break;
    close(memory);
    memory = -1;
}

void screen_leave(void)
{
    if (!screen)
        return;
    if (entered)
        endwin();
    restore();
    delscreen(screen);
    screen = NULL;
    tell_messages();
}

void screen_suspend(void)
{
    if (!entered)
        return;
    put(mouse_off, sizeof mouse_off - 1);
    endwin();
    restore();
}

void screen_resume(void)
{
    entered = 1;
    reset_prog_mode();
    raw_mode();
    clearok(curscr, TRUE);
    refresh();
    raw_mode();
    modes();
}

bool screen_fit(void)
{
    struct winsize ws;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) < 0 || !ws.ws_row || !ws.ws_col)
        return false;
    if (ws.ws_row == LINES && ws.ws_col == COLS)
        return false;
    resizeterm(ws.ws_row, ws.ws_col);
    return true;
}

void screen_mouse(bool on)
{
    with_mouse = on;
    if (on)
        put(mouse_on, sizeof mouse_on - 1);
    else
        put(mouse_off, sizeof mouse_off - 1);
}

void screen_motion(bool on)
{
    fflush(stdout);
    if (!entered)
        return;
    /* Off, it takes the lesser modes with it. */
    put(on ? "\033[?1003h" : "\033[?1003l", 8);
    if (!on && with_mouse)
        put(mouse_on, sizeof mouse_on - 1);
}

void screen_write(const void *buf, size_t len)
{
    fflush(stdout);
    if (entered)
        put(buf, len);
}

int screen_backdrop(char *buf, size_t cap, size_t *len)
{
    static const char ask[] = "\033]11;?\033\\\033[c"; /* every terminal answers the second one: it ends the waiting */
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    int said = -1;
    *len = 0;
    if (!says("TERM", multiplexers, true) && !says("TERM", alike, true) && !says("TERM", (const char *const[]){"rxvt", "wezterm", "contour", NULL}, true))
        return -1;
    put(ask, sizeof ask - 1);
    while (said < 0 && *len < cap && poll(&p, 1, BACKDROP_MS) > 0) {
        ssize_t n = read(STDIN_FILENO, buf + *len, cap - *len);
        if (n <= 0)
            break;
        *len += (size_t)n;
        said = backdrop_answer(buf, *len);
        const char *attributes = memmem(buf, *len, "\033[?", 3);
        if (attributes && memchr(attributes, 'c', *len - (size_t)(attributes - buf)))
            break;
    }
    return said;
}

bool screen_utf8(void)
{
    return utf8;
}
