#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/guest.h"
#include "guest/start.h"
#include "guest/text.h"

#define SESSIONS_MAX 200u
/* What a session printed before it ended may still be in a pipe that a grandchild holds open: it is read
 * until it is empty, and then this much longer. */
#define LINGER_MS 200

/* Input that a program does not read stays here, bounded by the link's window. */
struct pending {
    uint8_t *bytes;
    size_t pos, len, cap;
};

struct session {
    struct session *next;
    uint16_t chan;
    char group[12]; /* its control group's name; "": none */
    pid_t pid;
    bool tty, connecting, exited, closing;
    bool lingered;        /* exited LINGER_MS ago */
    bool killed;          /* by the host: whoever is left ends with it */
    bool tried6;          /* the connection goes to ::1 by now */
    int status;
    json_t *reply_to;     /* `connect` waits for its answer */
    struct watch in;      /* the program's stdin; for a terminal or a connection all is `in` */
    struct watch out[2];  /* stdout, stderr */
    bool out_done[2];
    int left[2];          /* lingered, pipes: bytes of its own that are still to be read */
    bool in_eof;          /* no more input will come */
    struct pending input;
};

static struct session *sessions;
static unsigned count;

static struct session *find(uint16_t chan)
{
    struct session *s = sessions;
    while (s && s->chan != chan)
        s = s->next;
    return s;
}

unsigned session_count(void)
{
    return count;
}

static void group_write(const struct session *s, const char *file, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, START_GROUPS "/%s/%s", s->group, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t ignored = write(fd, text, strlen(text));
    (void)ignored;
    close(fd);
}

static void close_watch(struct watch *w)
{
    int fd = w->fd;
    if (fd < 0)
        return;
    loop_unwatch(w);
    close(fd);
}

static void destroy(struct session *s)
{
    close_watch(&s->in);
    close_watch(&s->out[0]);
    close_watch(&s->out[1]);
    if (s->killed)
        group_write(s, "cgroup.kill", "1");
    if (s->pid > 0)
        start_group_gone(s->group); /* stays while the session left processes behind; they live on */
    struct session **p = &sessions;
    while (*p != s)
        p = &(*p)->next;
    *p = s->next;
    count--;
    json_decref(s->reply_to);
    free(s->input.bytes);
    free(s);
}

static void out_ready(struct watch *w, uint32_t events);

/* The session is over for us when it has exited, everything that it printed is on its way, and the link
 * took it. */
static void maybe_finish(struct session *s)
{
    struct link *l = control_link();
    if (!s->exited || !s->out_done[0] || !s->out_done[1])
        return;
    if (!s->closing) {
        bool signal = WIFSIGNALED(s->status);
        control_say("exit", "chan", (int64_t)s->chan, signal ? "signal" : "status",
                    (int64_t)(signal ? WTERMSIG(s->status) : WEXITSTATUS(s->status)), NULL);
        s->closing = true;
        close_watch(&s->in);
    }
    /* Our side of the channel stays until its last bytes are out; the host then says `close`. */
    (void)l;
}

static void finish_out(struct session *s, int i)
{
    if (s->out_done[i])
        return;
    s->out_done[i] = true;
    if (s->out[i].fd == s->in.fd && s->out[i].fd >= 0)
        s->in.fd = -1;
    close_watch(&s->out[i]);
    link_send_eof(control_link(), s->chan, (unsigned)i);
    maybe_finish(s);
}

/* A process that outlives the session may hold its pipes open, and go on writing. What was in them by now is
 * the session's and is delivered whenever the host takes it; what comes later belongs to nobody. */
static void linger_over(void *arg)
{
    uint16_t chan = (uint16_t)(uintptr_t)arg;
    struct session *s = find(chan);
    if (!s || !s->exited || s->lingered)
        return;
    s->lingered = true;
    for (int i = 0; i < 2; i++)
        if (s->out[i].fd >= 0 && !s->tty && ioctl(s->out[i].fd, FIONREAD, &s->left[i]) < 0)
            s->left[i] = 0;
    for (int i = 0; i < 2; i++)
        if (!s->out_done[i] && s->out[i].fd >= 0 && s->out[i].events)
            out_ready(&s->out[i], EPOLLIN);
}

/* Reads no more than the host will take, so what is not read stays in the pipe and the program waits. */
static void out_ready(struct watch *w, uint32_t events)
{
    static uint8_t buf[LINK_PAYLOAD_MAX];
    struct session *s = w->arg;
    int i = w == &s->out[1];
    struct link *l = control_link();
    (void)events;
    for (int turn = 0; turn < 4; turn++) {
        size_t credit = link_credit(l, s->chan, (unsigned)i);
        if (credit == 0) {
            /* `writable` is promised only to a stream that was cut short. */
            uint8_t nothing = 0;
            link_send_data(l, s->chan, (unsigned)i, &nothing, 1);
            loop_watch(w, w->fd, 0);
            return;
        }
        size_t want = credit < sizeof buf ? credit : sizeof buf;
        if (s->lingered && !s->tty && want > (size_t)s->left[i])
            want = (size_t)s->left[i];
        ssize_t n = want ? read(w->fd, buf, want) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && !s->lingered)
            return;
        if (n <= 0) { /* a terminal whose last writer is gone says EIO */
            finish_out(s, i);
            return;
        }
        link_send_data(l, s->chan, (unsigned)i, buf, (size_t)n);
        if (s->lingered)
            s->left[i] -= (int)n;
        else if ((size_t)n < sizeof buf / 4)
            return;
    }
}

void session_writable(uint16_t chan, unsigned stream)
{
    struct session *s = find(chan);
    if (s && stream < 2 && s->out[stream].fd >= 0 && !s->out_done[stream]) {
        uint32_t ev = EPOLLIN;
        if (s->out[stream].fd == s->in.fd)
            return;
        loop_watch(&s->out[stream], s->out[stream].fd, ev);
    }
}

static void in_flush(struct session *s)
{
    while (s->input.pos < s->input.len) {
        ssize_t n = s->in.fd < 0 ? -1 : write(s->in.fd, s->input.bytes + s->input.pos, s->input.len - s->input.pos);
        if (n < 0 && s->in.fd >= 0 && errno == EINTR)
            continue;
        if (n < 0 && s->in.fd >= 0 && errno == EAGAIN) {
            loop_watch(&s->in, s->in.fd, EPOLLOUT);
            return;
        }
        if (n < 0) { /* nobody reads any more: the rest is dropped, as a pipe would */
            n = (ssize_t)(s->input.len - s->input.pos);
            close_watch(&s->in);
        }
        s->input.pos += (size_t)n;
        link_consumed(control_link(), s->chan, 0, (size_t)n);
    }
    s->input.pos = s->input.len = 0;
    if (s->in.fd < 0)
        return;
    if (s->in_eof && !s->tty) {
        if (s->connecting)
            return;
        if (s->pid == 0)
            shutdown(s->in.fd, SHUT_WR);
        close_watch(&s->in);
    } else {
        loop_watch(&s->in, s->in.fd, 0);
    }
}

static void in_ready(struct watch *w, uint32_t events)
{
    struct session *s = w->arg;
    if ((events & (EPOLLERR | EPOLLHUP)) && s->input.pos == s->input.len) {
        close_watch(w);
        return;
    }
    in_flush(s);
}

void session_data(uint16_t chan, unsigned stream, const uint8_t *buf, size_t len)
{
    struct session *s = find(chan);
    if (!s || stream != 0) {
        link_consumed(control_link(), chan, stream, len);
        return;
    }
    struct pending *p = &s->input;
    if (p->len + len > p->cap) {
        memmove(p->bytes, p->bytes + p->pos, p->len - p->pos);
        p->len -= p->pos;
        p->pos = 0;
    }
    if (p->len + len > p->cap) {
        size_t cap = p->len + len < 4096 ? 4096 : p->len + len;
        uint8_t *more = realloc(p->bytes, cap);
        if (!more) {
            link_consumed(control_link(), chan, stream, len);
            return;
        }
        p->bytes = more;
        p->cap = cap;
    }
    memcpy(p->bytes + p->len, buf, len);
    p->len += len;
    if (!s->connecting)
        in_flush(s);
}

void session_eof(uint16_t chan, unsigned stream)
{
    struct session *s = find(chan);
    if (!s || stream != 0)
        return;
    s->in_eof = true;
    if (s->tty) {
        uint8_t eot = 4; /* what a terminal has for the end of input */
        session_data(chan, 0, &eot, 1);
    } else if (s->input.pos == s->input.len) {
        in_flush(s);
    }
}

static struct session *blank(void)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->in = (struct watch){.fd = -1, .ready = in_ready, .arg = s};
    for (int i = 0; i < 2; i++)
        s->out[i] = (struct watch){.fd = -1, .ready = out_ready, .arg = s};
    return s;
}

/* ---- the one that waits ---- */

#define WAITING_GROUP "first"

/* A session that was begun before its command is known: of the agent's, without a terminal, with its group and its pipes.
 * The first that is asked for takes its place, or ends it. */
static struct {
    struct session *session;
    struct user user;
    pid_t ended; /* its process, killed and not reaped yet */
} waiting;

static void end_waiting(void)
{
    struct session *s = waiting.session;
    if (!s)
        return;
    waiting.session = NULL;
    if (s->pid > 0 && kill(s->pid, SIGKILL) == 0)
        waiting.ended = s->pid;
    close_watch(&s->in);
    close_watch(&s->out[0]);
    close_watch(&s->out[1]);
    free(s);
}

static void waiting_ready(struct watch *w, uint32_t events)
{
    (void)w;
    (void)events;
    end_waiting(); /* it says nothing while it waits: it is gone */
}

static struct session *take_waiting(const struct user *u, bool tty)
{
    struct session *s = waiting.session;
    if (!s || tty || memcmp(u, &waiting.user, sizeof *u) != 0) {
        end_waiting();
        return NULL;
    }
    waiting.session = NULL;
    s->out[0].ready = s->out[1].ready = out_ready;
    return s;
}

/* spare: what take_waiting gave; ours from now on. */
static struct session *session_new(struct session *spare, uint16_t chan, bool tty, struct err *e)
{
    struct session *s = count >= SESSIONS_MAX ? NULL : spare ? spare : blank();
    if (!s || link_open(control_link(), chan, tty ? 1u << 0 : 0) < 0) {
        if (count >= SESSIONS_MAX)
            err_set(e, STATUS_FAILED, "this machine has %u sessions already", SESSIONS_MAX);
        else
            err_set(e, STATUS_FAILED, "channel %u cannot be opened", chan);
        waiting.session = spare;
        end_waiting();
        if (s != spare)
            free(s);
        return NULL;
    }
    s->chan = chan;
    s->tty = tty;
    s->next = sessions;
    sessions = s;
    count++;
    return s;
}

static char **string_list(const json_t *list, size_t *n)
{
    *n = json_array_size(list);
    char **v = calloc(*n + 1, sizeof *v);
    for (size_t i = 0; v && i < *n; i++) {
        v[i] = (char *)json_string_value(json_array_get(list, i));
        if (!v[i])
            v[i] = (char *)"";
    }
    return v;
}

struct environment {
    char **v;
    size_t n, cap;
};

/* A later value of a name replaces the earlier one. */
static void env_set(struct environment *env, const char *key, const char *value)
{
    size_t len = strlen(key), size = len + (value ? strlen(value) : 0) + 2;
    char *s = value && len && !strchr(key, '=') ? malloc(size) : NULL;
    if (!s)
        return;
    text_join(s, size, key, "=", value, NULL);
    for (size_t i = 0; i < env->n; i++)
        if (strncmp(env->v[i], key, len) == 0 && env->v[i][len] == '=') {
            free(env->v[i]);
            env->v[i] = s;
            return;
        }
    if (env->n + 1 >= env->cap) {
        env->cap = env->cap ? env->cap * 2 : 32;
        char **more = realloc(env->v, env->cap * sizeof *more);
        if (!more) {
            free(s);
            return;
        }
        env->v = more;
    }
    env->v[env->n++] = s;
    env->v[env->n] = NULL;
}

static void env_merge(struct environment *env, const json_t *o)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
        env_set(env, key, json_string_value(v));
}

static void environment(struct environment *env, const struct user *u, const json_t *msg, bool tty)
{
    char path[START_PATH_MAX];
    start_path(u, path);
    env_set(env, "PATH", path);
    env_set(env, "HOME", u->home);
    env_set(env, "USER", u->name);
    env_set(env, "LOGNAME", u->name);
    env_set(env, "SHELL", u->shell);
    env_set(env, "LANG", "C.UTF-8");
    if (tty) {
        const char *term = json_string_value(json_object_get(msg, "term"));
        env_set(env, "TERM", term ? term : "xterm-256color");
        env_set(env, "COLORTERM", "truecolor");
    }
    env_merge(env, configure_env());
    env_merge(env, json_object_get(msg, "env"));
}

/* The descriptors of a session: the program's three in st, ours in the watches. */
static int plumb(struct session *s, struct start *st, const json_t *msg)
{
    if (s->tty) {
        int master, slave;
        struct winsize ws = {.ws_row = (unsigned short)json_integer_value(json_object_get(msg, "rows")),
                             .ws_col = (unsigned short)json_integer_value(json_object_get(msg, "cols"))};
        if (!ws.ws_row || !ws.ws_col)
            ws = (struct winsize){.ws_row = 24, .ws_col = 80};
        if (openpty(&master, &slave, NULL, NULL, &ws) < 0)
            return -1;
        fcntl(master, F_SETFD, FD_CLOEXEC);
        fcntl(slave, F_SETFD, FD_CLOEXEC);
        fcntl(master, F_SETFL, O_NONBLOCK);
        int writer = fcntl(master, F_DUPFD_CLOEXEC, 3);
        st->fd[0] = st->fd[1] = st->fd[2] = slave;
        loop_watch(&s->out[0], master, EPOLLIN);
        if (writer >= 0)
            loop_watch(&s->in, writer, 0);
        s->out_done[1] = true;
        return 0;
    }
    int p[3][2];
    for (int i = 0; i < 3; i++)
        if (pipe2(p[i], O_CLOEXEC) < 0)
            return -1;
    st->fd[0] = p[0][0];
    st->fd[1] = p[1][1];
    st->fd[2] = p[2][1];
    const int ours[3] = {p[0][1], p[1][0], p[2][0]};
    for (int i = 0; i < 3; i++)
        fcntl(ours[i], F_SETFL, O_NONBLOCK);
    /* A wide pipe lets a program write a window's worth before it has to wait for us. */
    fcntl(p[1][0], F_SETPIPE_SZ, (int)LINK_WINDOW);
    loop_watch(&s->in, ours[0], 0);
    loop_watch(&s->out[0], ours[1], EPOLLIN);
    loop_watch(&s->out[1], ours[2], EPOLLIN);
    return 0;
}

static void close_child_side(const struct start *st)
{
    for (int i = 0; i < 3; i++)
        if (st->fd[i] >= 0 && (i == 0 || st->fd[i] != st->fd[i - 1]))
            close(st->fd[i]);
}

void session_await(const struct user *u)
{
    struct session *s = blank();
    struct start st = {.u = u, .fd = {-1, -1, -1}};
    if (!s)
        return;
    snprintf(s->group, sizeof s->group, WAITING_GROUP);
    st.group = s->group;
    start_group(s->group);
    if (plumb(s, &st, NULL) == 0 && (s->pid = start_waiting(&st)) > 0) {
        s->out[0].ready = s->out[1].ready = waiting_ready;
        waiting.session = s;
        waiting.user = *u;
    }
    close_child_side(&st);
    if (!waiting.session) {
        close_watch(&s->in);
        close_watch(&s->out[0]);
        close_watch(&s->out[1]);
        start_group_gone(s->group);
        free(s);
    }
}

int session_open(const json_t *msg, pid_t *pid, struct err *e)
{
    uint16_t chan = (uint16_t)json_integer_value(json_object_get(msg, "chan"));
    bool tty = json_is_true(json_object_get(msg, "tty"));
    const char *who = json_string_value(json_object_get(msg, "user"));
    const char *cwd = json_string_value(json_object_get(msg, "cwd"));
    struct user u;
    if (user_find(who ? who : "agent", &u) < 0)
        return err_set(e, STATUS_USAGE, "the machine has no account named %s", who);
    size_t argc;
    char **argv = string_list(json_object_get(msg, "argv"), &argc);
    if (!argv || argc == 0) {
        free(argv);
        return err_set(e, STATUS_USAGE, "no command was given");
    }
    struct session *spare = take_waiting(&u, tty), *s = session_new(spare, chan, tty, e);
    if (!s) {
        free(argv);
        return -1;
    }
    struct environment env = {0};
    environment(&env, &u, msg, tty);
    struct start st = {.group = s->group, .tty = tty, .u = &u, .argv = argv, .envp = env.v, .program = argv[0], .fd = {-1, -1, -1}};
    st.cwd_given = cwd && cwd[0];
    st.cwd = st.cwd_given ? cwd : configure_cwd()[0] ? configure_cwd() : u.home;
    char login[280];
    if (json_is_true(json_object_get(msg, "login"))) {
        const char *base = strrchr(argv[0], '/');
        snprintf(login, sizeof login, "-%s", base ? base + 1 : argv[0]);
        argv[0] = login;
    }
    int rc = -1, why = 0;
    if (spare) {
        start_go(&st);
        why = st.failed.error;
    } else {
        snprintf(s->group, sizeof s->group, "%u", chan);
        start_group(s->group);
        if (plumb(s, &st, msg) < 0)
            why = errno;
        else if ((s->pid = start_child(&st)) < 0)
            why = errno;
        else
            why = st.failed.error;
        close_child_side(&st);
    }
    if (why) {
        if (st.failed.cwd)
            err_errno(e, why, "cannot enter %s", st.cwd);
        else
            err_errno(e, why, "cannot run %s", st.program);
        if (e)
            e->status = why == ENOENT && !st.failed.cwd ? 127 : 126;
        link_close(control_link(), chan);
        destroy(s);
    } else {
        *pid = s->pid;
        rc = 0;
    }
    for (size_t i = 0; i < env.n; i++)
        free(env.v[i]);
    free(env.v);
    free(argv);
    return rc;
}

static int connect_loopback(int family, uint16_t port)
{
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    bool six = family == AF_INET6;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, six ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4, six ? sizeof a6 : sizeof a4) == 0 ||
        errno == EINPROGRESS)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* Published ports: a connection inside of the machine is a channel. */
static void connected(struct watch *w, uint32_t events)
{
    struct session *s = w->arg;
    int error = 0;
    socklen_t len = sizeof error;
    (void)events;
    getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    json_t *id = json_object_get(s->reply_to, "id");
    if (error == ECONNREFUSED && !s->tried6) {
        /* "localhost" is ::1 alone to many a development server. */
        close_watch(w);
        s->tried6 = true;
        int fd = connect_loopback(AF_INET6, (uint16_t)json_integer_value(json_object_get(s->reply_to, "port")));
        if (fd >= 0) {
            loop_watch(w, fd, EPOLLOUT);
            return;
        }
    }
    if (error) {
        control_note(json_pack("{s:s, s:O, s:b, s:s, s:i}", "op", "reply", "id", id, "ok", 0, "error",
                               strerror(error), "status", STATUS_FAILED));
        link_close(control_link(), s->chan);
        destroy(s);
        return;
    }
    control_note(json_pack("{s:s, s:O, s:b}", "op", "reply", "id", id, "ok", 1));
    s->connecting = false;
    s->in.ready = in_ready;
    int reader = fcntl(w->fd, F_DUPFD_CLOEXEC, 3);
    s->out_done[1] = true;
    loop_watch(&s->in, s->in.fd, 0);
    loop_watch(&s->out[0], reader, EPOLLIN);
    in_flush(s);
}

int session_connect(const json_t *msg, struct err *e)
{
    uint16_t chan = (uint16_t)json_integer_value(json_object_get(msg, "chan"));
    json_int_t port = json_integer_value(json_object_get(msg, "port"));
    if (port < 1 || port > 65535)
        return err_set(e, STATUS_USAGE, "port %lld is out of range", (long long)port);
    struct session *s = session_new(NULL, chan, false, e);
    if (!s)
        return -1;
    int fd = connect_loopback(AF_INET, (uint16_t)port);
    if (fd < 0) {
        err_errno(e, errno, "port %lld in the machine", (long long)port);
        link_close(control_link(), chan);
        destroy(s);
        return -1;
    }
    s->exited = true; /* there is no process: the end of its output is the end */
    s->connecting = true;
    s->reply_to = json_deep_copy(msg);
    s->in.ready = connected;
    loop_watch(&s->in, fd, EPOLLOUT);
    return 1;
}

static struct session *of(const json_t *msg, struct err *e)
{
    struct session *s = find((uint16_t)json_integer_value(json_object_get(msg, "chan")));
    if (!s)
        err_set(e, STATUS_NOT_FOUND, "the session is over");
    return s;
}

int session_resize(const json_t *msg, struct err *e)
{
    struct session *s = of(msg, e);
    struct winsize ws = {.ws_row = (unsigned short)json_integer_value(json_object_get(msg, "rows")),
                         .ws_col = (unsigned short)json_integer_value(json_object_get(msg, "cols"))};
    if (!s)
        return -1;
    if (s->tty && s->out[0].fd >= 0 && ws.ws_row && ws.ws_col && ioctl(s->out[0].fd, TIOCSWINSZ, &ws) < 0)
        return err_errno(e, errno, "cannot resize");
    return 0;
}

static int signal_number(const char *name)
{
    static const struct {
        const char *name;
        int number;
    } table[] = {{"HUP", SIGHUP},   {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"KILL", SIGKILL},
                 {"TERM", SIGTERM}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"STOP", SIGSTOP},
                 {"CONT", SIGCONT}, {"TSTP", SIGTSTP}, {"WINCH", SIGWINCH}, {"ALRM", SIGALRM},
                 {"PIPE", SIGPIPE}, {"ABRT", SIGABRT}};
    if (name && strncmp(name, "SIG", 3) == 0)
        name += 3;
    for (size_t i = 0; name && i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i].name) == 0)
            return table[i].number;
    return 0;
}

int session_signal(const json_t *msg, struct err *e)
{
    struct session *s = of(msg, e);
    const char *name = json_string_value(json_object_get(msg, "signal"));
    int sig = signal_number(name);
    if (!s)
        return -1;
    if (!sig)
        return err_set(e, STATUS_USAGE, "unknown signal %s", name ? name : "");
    pid_t group = s->pid;
    if (s->tty && s->out[0].fd >= 0) {
        pid_t fg = tcgetpgrp(s->out[0].fd);
        if (fg > 0)
            group = fg;
    }
    return group > 0 && kill(-group, sig) < 0 && errno != ESRCH ? err_errno(e, errno, "cannot signal") : 0;
}

static void kill_hard(void *arg)
{
    struct session *s = find((uint16_t)(uintptr_t)arg);
    if (s && s->pid > 0)
        group_write(s, "cgroup.kill", "1");
}

int session_kill(const json_t *msg, struct err *e)
{
    struct session *s = of(msg, e);
    if (!s)
        return -1;
    s->killed = true;
    if (s->pid > 0 && !s->exited)
        kill(-s->pid, SIGHUP);
    loop_after(2000, kill_hard, (void *)(uintptr_t)s->chan);
    return 0;
}

/* The host is done with the channel: a session that still runs is hung up. */
void session_close(uint16_t chan)
{
    struct session *s = find(chan);
    link_close(control_link(), chan);
    if (!s)
        return;
    if (s->pid > 0 && !s->exited) {
        kill(-s->pid, SIGHUP);
        s->killed = true;
    }
    destroy(s);
}

bool session_reaped(pid_t pid, int status)
{
    struct session *s = sessions;
    while (s && s->pid != pid)
        s = s->next;
    if (!s) {
        if (waiting.session && waiting.session->pid == pid) {
            waiting.session->pid = 0;
            end_waiting();
            waiting.ended = pid;
        }
        if (pid == waiting.ended) {
            start_group_gone(WAITING_GROUP);
            waiting.ended = 0;
        }
        return false;
    }
    s->exited = true;
    s->status = status;
    loop_after(LINGER_MS, linger_over, (void *)(uintptr_t)s->chan);
    maybe_finish(s);
    return true;
}

void session_signal_all(int sig)
{
    for (struct session *s = sessions; s; s = s->next) {
        if (s->pid <= 0)
            continue;
        if (sig == SIGKILL)
            group_write(s, "cgroup.kill", "1");
        else if (!s->exited)
            kill(-s->pid, sig);
    }
}

void session_end_all(void)
{
    while (sessions) {
        sessions->killed = sessions->pid > 0;
        destroy(sessions);
    }
}
