#include "ui/dash/task.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/paths.h"
#include "core/sanitize.h"
#include "core/spawn.h"
#include "ui/dash/app.h"
#include "ui/dash/model.h"

#define OUT_MAX (1024u * 1024u)

struct task {
    struct task *next;
    pid_t pid;
    struct event *out_ev, *err_ev, *in_ev;
    int out, err, in;
    char *input;
    size_t input_len, input_at;
    char *text; /* standard output */
    size_t text_len, text_cap;
    char line[1024]; /* of standard error */
    size_t line_len;
    char error[512];
    const struct task_ops *ops;
    void *arg;
    bool exited;
    int status, signal;
};

static struct task *tasks;
static struct event *child_ev;

static void close_event(struct event **ev, int *fd)
{
    if (*ev)
        event_free(*ev);
    *ev = NULL;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void wipe_input(struct task *t)
{
    if (t->input)
        sodium_memzero(t->input, t->input_len);
    free(t->input);
    t->input = NULL;
}

static void finish(struct task *t)
{
    for (struct task **p = &tasks; *p; p = &(*p)->next)
        if (*p == t) {
            *p = t->next;
            break;
        }
    struct task_end end = {.status = t->status, .out = t->text ? t->text : "", .out_len = t->text_len, .error = t->error};
    close_event(&t->in_ev, &t->in);
    if (t->ops && t->ops->done)
        t->ops->done(&end, t->arg);
    wipe_input(t);
    free(t->text);
    free(t);
}

static void take_line(struct task *t)
{
    char *line = t->line;
    line[t->line_len] = '\0';
    t->line_len = 0;
    if (line[0] == 0x1e) { /* progress: RS, fraction, blank, text (ui/cli/output.c) */
        char *end;
        double fraction = strtod(line + 1, &end);
        char shown[256];
        end += *end == ' ';
        sanitize_line(shown, sizeof shown, end, strlen(end));
        if (t->ops && t->ops->progress)
            t->ops->progress(fraction, shown, t->arg);
        return;
    }
    const char *p = strncmp(line, "sbx: ", 5) == 0 ? line + 5 : line;
    if (*p)
        sanitize_line(t->error, sizeof t->error, p, strlen(p));
}

static void on_err(evutil_socket_t fd, short what, void *arg)
{
    struct task *t = arg;
    char buf[4096];
    ssize_t n = read(fd, buf, sizeof buf);
    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] == '\n' || buf[i] == '\r')
            take_line(t);
        else if (t->line_len < sizeof t->line - 1)
            t->line[t->line_len++] = buf[i];
    }
    if (n <= 0) {
        if (t->line_len)
            take_line(t);
        close_event(&t->err_ev, &t->err);
    }
}

static void on_out(evutil_socket_t fd, short what, void *arg)
{
    struct task *t = arg;
    char buf[16384];
    ssize_t n = read(fd, buf, sizeof buf);
    (void)what;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        close_event(&t->out_ev, &t->out);
        return;
    }
    if (t->text_len + (size_t)n + 1 > t->text_cap && t->text_cap < OUT_MAX) {
        size_t cap = t->text_cap ? t->text_cap * 2 : 32768;
        char *grown = realloc(t->text, cap);
        if (!grown)
            return;
        t->text = grown;
        t->text_cap = cap;
    }
    size_t room = t->text_cap ? t->text_cap - t->text_len - 1 : 0, take = (size_t)n < room ? (size_t)n : room;
    memcpy(t->text + t->text_len, buf, take);
    t->text_len += take;
    t->text[t->text_len] = '\0';
}

static void on_in(evutil_socket_t fd, short what, void *arg)
{
    struct task *t = arg;
    (void)what;
    ssize_t n = write(fd, t->input + t->input_at, t->input_len - t->input_at);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        t->input_at += (size_t)n;
    if (n < 0 || t->input_at == t->input_len) {
        close_event(&t->in_ev, &t->in);
        wipe_input(t);
    }
}

static bool waits(int fd)
{
    int n;
    return fd >= 0 && ioctl(fd, FIONREAD, &n) == 0 && n > 0;
}

/* A grandchild may keep the outputs of one that was killed (an image's build, which cleans up behind it): it is not waited
 * for, and what had been written is there. */
static void end_outputs(struct task *t)
{
    while (waits(t->out))
        on_out(t->out, 0, t);
    while (waits(t->err))
        on_err(t->err, 0, t);
    if (t->line_len)
        take_line(t);
    close_event(&t->out_ev, &t->out);
    close_event(&t->err_ev, &t->err);
    if (t->signal) /* what it said last is not why */
        snprintf(t->error, sizeof t->error, "it was ended by a signal (%s)", strsignal(t->signal));
    finish(t);
}

static void on_child(evutil_socket_t sig, short what, void *arg)
{
    (void)sig;
    (void)what;
    (void)arg;
    for (struct task *t = tasks, *next; t; t = next) {
        int status;
        next = t->next;
        if (t->exited || waitpid(t->pid, &status, WNOHANG) != t->pid)
            continue;
        t->exited = true;
        t->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        t->status = t->signal ? 128 + t->signal : WEXITSTATUS(status);
        end_outputs(t);
    }
}

static int pipe_pair(int p[2])
{
    if (pipe2(p, O_CLOEXEC) < 0)
        return -1;
    return 0;
}

static void nonblock(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

struct task *task_run(struct app *a, const char *const *argv, const char *input, size_t input_len,
                      const struct task_ops *ops, void *arg, struct err *e)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    const char *full[64] = {"sbx"};
    size_t n = 1;
    pid_t pid = -1;
    for (; argv[n - 1] && n < 63; n++)
        full[n] = argv[n - 1];
    if (!child_ev) { /* before the first child, which may have ended by the time that we go on */
        child_ev = evsignal_new(app_base(a), SIGCHLD, on_child, NULL);
        event_add(child_ev, NULL);
    }
    char *self = path_command(e);
    struct task *t = calloc(1, sizeof *t);
    if (!self || !t || pipe_pair(out) < 0 || pipe_pair(err) < 0 || (input ? pipe_pair(in) : ((in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0 ? -1 : 0)) < 0) {
        err_errno(e, errno, "cannot start sbx %s", argv[0]);
        goto out;
    }
    const struct spawn_fd fds[] = {{in[0], 0}, {out[1], 1}, {err[1], 2}};
    struct spawn s = {.path = self, .argv = (char *const *)full, .fds = fds, .nfds = 3, .new_session = true};
    pid = spawn_run(&s, e);
out:
    free(self);
    if (in[0] >= 0)
        close(in[0]);
    if (out[1] >= 0)
        close(out[1]);
    if (err[1] >= 0)
        close(err[1]);
    if (pid < 0) {
        if (in[1] >= 0)
            close(in[1]);
        if (out[0] >= 0)
            close(out[0]);
        if (err[0] >= 0)
            close(err[0]);
        free(t);
        return NULL;
    }
    t->pid = pid;
    t->out = out[0];
    t->err = err[0];
    t->in = in[1];
    t->ops = ops;
    t->arg = arg;
    nonblock(t->out);
    nonblock(t->err);
    t->out_ev = event_new(app_base(a), t->out, EV_READ | EV_PERSIST, on_out, t);
    t->err_ev = event_new(app_base(a), t->err, EV_READ | EV_PERSIST, on_err, t);
    event_add(t->out_ev, NULL);
    event_add(t->err_ev, NULL);
    if (input) {
        t->input = malloc(input_len + 1);
        if (t->input)
            memcpy(t->input, input, input_len);
        t->input_len = t->input ? input_len : 0;
        nonblock(t->in);
        t->in_ev = event_new(app_base(a), t->in, EV_WRITE | EV_PERSIST, on_in, t);
        event_add(t->in_ev, NULL);
    }
    t->next = tasks;
    tasks = t;
    return t;
}

void task_forget(struct task *t)
{
    if (t)
        t->ops = NULL;
}

void task_cancel(struct task *t)
{
    if (t && !t->exited)
        kill(t->pid, SIGTERM);
}

/* ---- what is done to a box ---- */

bool task_box_free(struct app *a, const char *box, char *why, size_t cap)
{
    const struct box *b = model_find(app_model(a), box);
    if (!b || !b->task)
        return true;
    snprintf(why, cap, "%s is busy: %s", box, b->doing[0] ? b->doing : "something is done to it already");
    return false;
}

void task_box_begin(struct app *a, const char *box, struct task *t, const char *what)
{
    struct box *b = model_find(app_model(a), box);
    if (!b)
        return;
    b->task = t;
    task_box_progress(a, box, -1, what);
}

void task_box_progress(struct app *a, const char *box, double fraction, const char *text)
{
    struct box *b = model_find(app_model(a), box);
    if (!b)
        return;
    b->fraction = fraction;
    snprintf(b->doing, sizeof b->doing, "%s", text);
    app_boxes_changed(a);
}

void task_box_end(struct app *a, const char *box)
{
    struct model *m = app_model(a);
    model_refresh(m); /* while it is known that somebody tells how it ended */
    struct box *b = model_find(m, box);
    if (!b)
        return;
    b->task = NULL;
    b->doing[0] = '\0';
    b->fraction = -1;
    app_boxes_changed(a);
}

struct box_task {
    struct app *app;
    char box[RECORD_NAME_MAX + 1];
    char what[24];
    void (*then)(struct app *a, const char *box, const char *out);
};

static void on_progress(double fraction, const char *text, void *arg)
{
    struct box_task *bt = arg;
    task_box_progress(bt->app, bt->box, fraction, text);
}

static void on_done(const struct task_end *end, void *arg)
{
    struct box_task *bt = arg;
    task_box_end(bt->app, bt->box);
    if (end->status != 0)
        app_say(bt->app, SAY_ERROR, "%s %s: %s", bt->what, bt->box, end->error[0] ? end->error : "it failed");
    else if (bt->then)
        bt->then(bt->app, bt->box, end->out);
    free(bt);
}

static const struct task_ops box_ops = {.progress = on_progress, .done = on_done};

void task_box(struct app *a, const char *box, const char *what, const char *const *argv,
              void (*then)(struct app *a, const char *box, const char *out))
{
    struct err e = {0};
    char why[300];
    if (!task_box_free(a, box, why, sizeof why)) {
        app_say(a, SAY_WARN, "%s", why);
        return;
    }
    struct box_task *bt = calloc(1, sizeof *bt);
    if (!bt)
        return;
    bt->app = a;
    bt->then = then;
    snprintf(bt->box, sizeof bt->box, "%s", box);
    snprintf(bt->what, sizeof bt->what, "%s", what);
    struct task *t = task_run(a, argv, NULL, 0, &box_ops, bt, &e);
    if (!t) {
        app_say(a, SAY_ERROR, "%s", e.text);
        free(bt);
        return;
    }
    task_box_begin(a, box, t, what);
}
