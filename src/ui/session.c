#include "ui/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "core/config.h"
#include "core/vtfilter.h"
#include "ui/backdrop.h"
#include "ui/client.h"
#include "ui/clip.h"

/* Leaves every mode that a program may have set: said at each way out, also from a signal handler. */
static const char restore_modes[] =
    "\033[?1000l\033[?1002l\033[?1003l\033[?1006l\033[?1004l\033[?2004l\033[?1l\033>\033[r\033[m\033[0\"q\033[0 q\033[?7h\033[?25h"
    "\033[?1049l";

static struct termios saved;
static volatile sig_atomic_t raw;

static void restore_terminal(void)
{
    if (!raw)
        return;
    raw = 0;
    ssize_t ignored = write(STDOUT_FILENO, restore_modes, sizeof restore_modes - 1);
    (void)ignored;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
}

static void on_fatal(int sig)
{
    restore_terminal();
    signal(sig, SIG_DFL);
    raise(sig);
}

static int enter_raw(struct err *e)
{
    struct termios t;
    if (tcgetattr(STDIN_FILENO, &saved) < 0)
        return err_errno(e, errno, "cannot read the terminal's settings");
    t = saved;
    cfmakeraw(&t);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &t) < 0)
        return err_errno(e, errno, "cannot set the terminal's settings");
    raw = 1;
    atexit(restore_terminal);
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof fatal / sizeof *fatal; i++)
        signal(fatal[i], on_fatal);
    /* A screen of its own: what was on the user's comes back afterwards. */
    ssize_t ignored = write(STDOUT_FILENO, "\033[?1049h\033[H\033[2J", 15);
    (void)ignored;
    return 0;
}

struct run {
    const struct session_request *r;
    struct client c;
    uint16_t chan;
    bool over, detached, in_eof, in_blocked, command;
    int status;
    json_int_t session;
    unsigned char prefix;
    struct vtfilter *plain[2]; /* where guest text meets our terminal outside of a screen */
    int plain_fd;
    unsigned char in[65536];
    size_t in_len;
    int write_failed; /* errno, and of which output */
    int failed_fd;
};

static bool put_all(int fd, const void *buf, size_t len)
{
    const char *p = buf;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd f = {.fd = fd, .events = POLLOUT};
            poll(&f, 1, -1);
            continue;
        }
        if (n < 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static void put_or_fail(struct run *s, int fd, const void *buf, size_t len)
{
    if (!s->write_failed && !put_all(fd, buf, len)) {
        s->write_failed = errno;
        s->failed_fd = fd;
    }
}

static void on_plain(const char *bytes, size_t len, void *arg)
{
    struct run *s = arg;
    put_or_fail(s, s->plain_fd, bytes, len);
}

static const struct vt_ops plain_ops = {.out = on_plain};

static void on_data(struct client *c, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    struct run *s = arg;
    if (chan == s->chan && stream < 2) {
        int fd = stream == 1 ? STDERR_FILENO : STDOUT_FILENO;
        if (s->plain[stream]) {
            s->plain_fd = fd;
            vtfilter_feed(s->plain[stream], buf, len);
        } else {
            put_or_fail(s, fd, buf, len);
        }
    }
    link_consumed(c->link, chan, stream, len);
}

static void on_note(struct client *c, const json_t *msg, void *arg)
{
    struct run *s = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    (void)c;
    if (!op || json_integer_value(json_object_get(msg, "chan")) != s->chan)
        return;
    if (strcmp(op, "exit") == 0) {
        json_t *sig = json_object_get(msg, "signal");
        s->over = true;
        s->status = sig ? 128 + (int)json_integer_value(sig) : (int)json_integer_value(json_object_get(msg, "status"));
    }
    if (strcmp(op, "clipboard") == 0 && raw && s->r->input && !s->r->read_only && clip_allowed(s->r->sandbox)) {
        size_t n;
        char *out = clip_sequence(json_string_value(json_object_get(msg, "base64")), &n);
        if (out)
            put_all(STDOUT_FILENO, out, strlen(out));
        free(out);
    }
}

/* Sends what was read and the window allows. */
static void push(struct run *s)
{
    if (s->in_len) {
        size_t n = link_send_data(s->c.link, s->chan, 0, s->in, s->in_len);
        memmove(s->in, s->in + n, s->in_len - n);
        s->in_len -= n;
    }
    s->in_blocked = s->in_len != 0;
    if (!s->in_len && s->in_eof)
        link_send_eof(s->c.link, s->chan, 0);
}

static void on_writable(struct client *c, uint16_t chan, unsigned stream, void *arg)
{
    (void)c;
    (void)chan;
    (void)stream;
    push(arg);
}

/* The prefix, then d: detach; the prefix twice sends it.  Everything else is the program's. */
static size_t keys(struct run *s, unsigned char *buf, size_t len)
{
    size_t kept = 0;
    for (size_t i = 0; i < len && !s->detached; i++) {
        if (s->command) {
            s->command = false;
            if (buf[i] == 'd' || buf[i] == 'D' || buf[i] == 4) {
                s->detached = true;
                break;
            }
            buf[kept++] = buf[i]; /* the prefix itself, or a key that means nothing here */
        } else if (buf[i] == s->prefix) {
            s->command = true;
        } else {
            buf[kept++] = buf[i];
        }
    }
    return kept;
}

static void read_input(struct run *s)
{
    ssize_t n = read(STDIN_FILENO, s->in + s->in_len, sizeof s->in - s->in_len);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        s->in_eof = true;
        if (s->r->tty)
            s->detached = true; /* our terminal hung up: the session lives on */
        else
            push(s);
        return;
    }
    size_t len = (size_t)n;
    if (raw)
        len = keys(s, s->in + s->in_len, len);
    s->in_len += len;
    if (s->r->read_only)
        s->in_len = 0;
    push(s);
}

static void send_size(struct run *s)
{
    struct winsize ws;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_row && ws.ws_col)
        client_send(&s->c, "resize", json_pack("{s:i, s:i, s:i}", "chan", (int)s->chan, "rows", (int)ws.ws_row, "cols", (int)ws.ws_col));
}

static void send_signal(struct run *s, const char *name)
{
    client_send(&s->c, "signal", json_pack("{s:i, s:I, s:s}", "chan", (int)s->chan, "session", s->session, "signal", name));
}

/* "ctrl-]", "ctrl-a" or a single character. */
static unsigned char prefix_key(void)
{
    char *text = config_string("attach.prefix", NULL);
    unsigned char key = 0x1d;
    if (text && strncmp(text, "ctrl-", 5) == 0 && text[5] && !text[6])
        key = (unsigned char)text[5] & 0x1f;
    free(text);
    return key;
}

static json_t *request_args(struct run *s)
{
    const struct session_request *r = s->r;
    struct winsize ws = {.ws_row = 24, .ws_col = 80};
    ioctl(isatty(STDOUT_FILENO) ? STDOUT_FILENO : STDIN_FILENO, TIOCGWINSZ, &ws);
    json_t *o = json_pack("{s:i, s:i, s:i}", "chan", (int)s->chan, "rows", ws.ws_row ? ws.ws_row : 24, "cols", ws.ws_col ? ws.ws_col : 80);
    if (r->tty && backdrop_light() >= 0)
        json_object_set_new(o, "light", json_boolean(backdrop_light()));
    if (!r->argv) {
        if (r->session)
            json_object_set_new(o, "session", json_integer(r->session));
        json_object_set_new(o, "readonly", json_boolean(r->read_only));
        json_object_set_new(o, "scrollback", json_integer(1000));
        return o;
    }
    json_object_set(o, "argv", r->argv);
    json_object_set_new(o, "tty", json_boolean(r->tty));
    json_object_set_new(o, "detach", json_boolean(r->detach));
    json_object_set_new(o, "agent", json_boolean(r->agent));
    json_object_set_new(o, "login", json_boolean(r->login));
    json_object_set_new(o, "term", json_string("xterm-256color"));
    json_t *env = r->env ? json_copy(r->env) : json_object();
    if (r->tty && backdrop_colours() && !json_object_get(env, "COLORFGBG"))
        json_object_set_new(env, "COLORFGBG", json_string(backdrop_colours()));
    json_object_set_new(o, "env", env);
    if (r->cwd)
        json_object_set_new(o, "cwd", json_string(r->cwd));
    if (r->user)
        json_object_set_new(o, "user", json_string(r->user));
    return o;
}

static void on_signals(struct run *s, int sigfd)
{
    struct signalfd_siginfo si;
    while (read(sigfd, &si, sizeof si) == (ssize_t)sizeof si) {
        int sig = (int)si.ssi_signo;
        if (s->r->interrupted && (sig == SIGINT || sig == SIGTERM || sig == SIGHUP))
            *s->r->interrupted = sig;
        switch (sig) {
        case SIGWINCH:
            if (s->r->tty)
                send_size(s);
            break;
        case SIGINT:
            send_signal(s, "INT");
            break;
        case SIGTERM:
            send_signal(s, "TERM");
            break;
        case SIGQUIT:
            send_signal(s, "QUIT");
            break;
        case SIGHUP:
            if (s->r->tty)
                s->detached = true;
            else
                send_signal(s, "HUP");
            break;
        case SIGUSR1:
            send_signal(s, "USR1");
            break;
        case SIGUSR2:
            send_signal(s, "USR2");
            break;
        }
    }
}

static int loop(struct run *s, int sigfd, struct err *e)
{
    while (!s->over && !s->detached) {
        struct pollfd p[3] = {{.fd = s->c.fd, .events = client_events(&s->c)}, {.fd = sigfd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
        if (s->r->input && !s->in_eof && !s->in_blocked)
            p[2].fd = STDIN_FILENO;
        if (s->r->tick)
            s->r->tick(s->r->tick_arg);
        if (poll(p, 3, s->r->tick ? 1000 : -1) < 0 && errno != EINTR)
            return err_errno(e, errno, "cannot wait for the session");
        if (p[1].revents)
            on_signals(s, sigfd);
        if (p[2].revents)
            read_input(s);
        if (!client_ready(&s->c, p[0].revents) && !s->over)
            return err_set(e, STATUS_FAILED, "the sandbox ended%s%s", s->c.why[0] ? ": " : "", s->c.why);
        if (s->write_failed && !s->r->tty) {
            send_signal(s, "PIPE");
            client_ready(&s->c, POLLOUT);
            if (s->write_failed != EPIPE)
                return err_set(e, STATUS_FAILED, "cannot write to standard %s, so the command was ended: %s", s->failed_fd == STDERR_FILENO ? "error" : "output",
                               strerror(s->write_failed));
            s->status = 128 + SIGPIPE; /* whoever read our output is gone, as after | head */
            return 0;
        }
    }
    return 0;
}

int session_run(const struct session_request *r, int *status, json_int_t *session, struct err *e)
{
    struct run *s = calloc(1, sizeof *s);
    int rc = -1, sigfd = -1;
    sigset_t set, old;
    if (!s)
        return err_set(e, STATUS_FAILED, "out of memory");
    s->r = r;
    s->chan = 1;
    s->prefix = prefix_key();
    sigemptyset(&set);
    static const int caught[] = {SIGWINCH, SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        sigaddset(&set, caught[i]);
    if (client_open(&s->c, r->sandbox, e) < 0)
        goto out;
    s->c.note = on_note;
    s->c.data = on_data;
    s->c.writable = on_writable;
    s->c.arg = s;
    for (unsigned i = 0; !r->tty && i < 2; i++)
        if (isatty(i == 0 ? STDOUT_FILENO : STDERR_FILENO))
            s->plain[i] = vtfilter_new(VT_PLAIN, &plain_ops, s);
    link_open(s->c.link, s->chan, r->tty ? 1u : 0u);
    sigprocmask(SIG_BLOCK, &set, &old);
    sigfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    bool interactive = r->tty && !r->detach && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (interactive && enter_raw(e) < 0)
        goto unblock;
    json_t *reply = client_request(&s->c, r->argv ? "exec" : "attach", request_args(s), 60000, e);
    if (!reply)
        goto unblock;
    s->session = json_integer_value(json_object_get(reply, "session"));
    if (session)
        *session = s->session;
    json_decref(reply);
    if (r->detach) {
        rc = 0;
    } else {
        if (!r->input) {
            s->in_eof = true;
            if (!r->tty)
                link_send_eof(s->c.link, s->chan, 0);
        }
        rc = loop(s, sigfd, e);
    }
    for (int i = 0; i < 2; i++)
        if (s->plain[i])
            vtfilter_end(s->plain[i]);
unblock:
    restore_terminal();
    if (rc == 0 && s->detached && interactive)
        fprintf(stderr, "sbx: detached from %s; the session runs on (sbx attach %s)\n", r->sandbox, r->sandbox);
    if (sigfd >= 0)
        close(sigfd);
    sigprocmask(SIG_SETMASK, &old, NULL);
out:
    *status = s->status;
    vtfilter_free(s->plain[0]);
    vtfilter_free(s->plain[1]);
    client_close(&s->c);
    free(s);
    return rc;
}

bool session_is_live(const json_t *s)
{
    return json_is_true(json_object_get(s, "tty")) && !json_object_get(s, "status") && !json_object_get(s, "signal");
}
