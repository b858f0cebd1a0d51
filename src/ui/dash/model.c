#include "ui/dash/model.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/paths.h"
#include "core/sanitize.h"
#include "ui/dash/app.h"
#include "ui/dash/attention.h"
#include "ui/dash/conn.h"
#include "ui/dash/task.h"

/* How often the figures of a running sandbox are asked for. */
#define STATUS_EVERY_MS 2000
#define TOLD_EVERY_MS 10000

struct model {
    struct app *app;
    struct box **boxes;
    unsigned n;
    int notify;
    struct event *notify_ev, *soon;
    int64_t asked_ms;
    bool announced; /* what is found at the start is not news */
};

static const struct conn_ops conn_ops;

/* ---- the branch ---- */

/* What .git/HEAD of the workspace says.  The guest can write there: no link is followed, nothing but a plain file is
 * read, and what it says is shown printable only. */
static void read_branch(struct box *b)
{
    char text[256] = "";
    if (b->own_branch)
        return;
    b->branch[0] = '\0';
    int dir = b->folder ? open(b->folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    int git = dir >= 0 ? openat(dir, ".git", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    /* A folder within a repository. */
    for (int up = 0; dir >= 0 && git < 0 && errno == ENOENT && up < 32; up++) {
        int above = openat(dir, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        close(dir);
        dir = above;
        git = dir >= 0 ? openat(dir, ".git", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    }
    int fd = git >= 0 ? openat(git, "HEAD", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    struct stat st;
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        ssize_t n = read(fd, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        static const char ref[] = "ref: refs/heads/";
        if (strncmp(text, ref, sizeof ref - 1) == 0)
            sanitize_line(b->branch, sizeof b->branch, text + sizeof ref - 1, strlen(text) - sizeof ref + 1);
        else if (strlen(text) == 40)
            snprintf(b->branch, sizeof b->branch, "%.8s", text);
    }
    if (fd >= 0)
        close(fd);
    if (git >= 0)
        close(git);
    if (dir >= 0)
        close(dir);
}

/* ---- boxes ---- */

static void box_free(struct box *b)
{
    if (!b)
        return;
    conn_free(b->conn);
    json_decref(b->status);
    free(b->folder);
    free(b);
}

static void hang_up(struct box *b)
{
    conn_free(b->conn);
    b->conn = NULL;
    json_decref(b->status);
    b->status = NULL;
    b->cpu = -1;
    b->mem_kib = b->uptime_ms = 0;
    b->cpu_at_ms = 0;
    b->ports[0] = '\0';
    b->asked_text = b->paused = false;
    b->trouble[0] = '\0';
    if (b->wants == WANTS_INPUT)
        b->wants = WANTS_NOTHING;
}

static void ports_text(struct box *b, const json_t *list)
{
    size_t i, used = 0;
    json_t *p;
    b->ports[0] = '\0';
    json_array_foreach(list, i, p) {
        json_t *host = json_object_get(p, "host");
        if (used < sizeof b->ports - 16)
            used += (size_t)snprintf(b->ports + used, sizeof b->ports - used, "%s%lld", used ? ", " : "", (long long)json_integer_value(host));
    }
}

static void want(struct box *b, struct app *a, enum wants wants, const char *why, bool news)
{
    if (b->wants == wants && strcmp(b->why, why) == 0)
        return;
    bool more = wants > b->wants;
    b->wants = wants;
    b->by_prompt = false;
    snprintf(b->why, sizeof b->why, "%s", why);
    /* A guest that rings all the time is marked, and heard every ten seconds. */
    if (more && news && wants == WANTS_INPUT && (!b->told_ms || app_now_ms() - b->told_ms > TOLD_EVERY_MS)) {
        b->told_ms = app_now_ms();
        char text[200];
        snprintf(text, sizeof text, "%s: %s", b->name, why);
        if (app_attends(a, b->name)) /* it is on the screen already, and under the user's hands */
            return;
        app_say(a, SAY_WARN, "%s", text);
        app_notify(a, "sbx", text);
    }
}

struct text_asked {
    struct model *m;
    char name[RECORD_NAME_MAX + 1];
    bool rang;
};

/* The screen of a session that fell quiet: does it end with a prompt of the agent's? */
static void on_text(bool ok, const json_t *reply, const char *error, void *arg)
{
    struct text_asked *t = arg;
    struct box *b = model_find(t->m, t->name);
    (void)error;
    if (b && t->rang) {
        char why[96];
        const char *text = ok ? json_string_value(json_object_get(reply, "text")) : NULL;
        if (!text || (!attention_prompt(b->agent, text, why, sizeof why) && !attention_last_line(text, why, sizeof why)))
            snprintf(why, sizeof why, "%s", "it rang the bell");
        b->asked_text = false;
        want(b, t->m->app, WANTS_INPUT, why, t->m->announced);
        app_boxes_changed(t->m->app);
    } else if (ok && b) {
        char why[96];
        if (attention_prompt(b->agent, json_string_value(json_object_get(reply, "text")), why, sizeof why)) {
            want(b, t->m->app, WANTS_INPUT, why, t->m->announced);
            b->by_prompt = true;
            app_boxes_changed(t->m->app);
        } else if (b->by_prompt) { /* it was answered */
            want(b, t->m->app, WANTS_NOTHING, "", false);
            app_boxes_changed(t->m->app);
        }
    }
    free(t);
}

static void ask_text(struct model *m, struct box *b, json_int_t session, bool rang)
{
    struct text_asked *t = calloc(1, sizeof *t);
    if (!t)
        return;
    t->m = m;
    t->rang = rang;
    memcpy(t->name, b->name, sizeof t->name);
    conn_request(b->conn, "text", json_pack("{s:I, s:i}", "session", session, "scrollback", 0), on_text, t);
}

static void judge(struct model *m, struct box *b)
{
    struct attention at;
    attention_judge(b->agent, json_object_get(b->status, "sessions"), &at);
    int64_t last_output = app_now_ms() - at.quiet_ms;
    if (at.rang) {
        /* What it asks stands on its screen; the bell itself says only that. */
        if (b->wants != WANTS_INPUT && !b->asked_text && b->conn) {
            b->asked_text = true;
            ask_text(m, b, at.session, true);
        }
    } else if (at.waits) {
        want(b, m->app, WANTS_INPUT, at.why, m->announced);
    } else if (at.look_at_screen) {
        /* Once for each time that it fell quiet; what was found stands until there is output again, and a bell that was
         * answered no longer. */
        if (b->wants == WANTS_INPUT && !b->by_prompt) {
            want(b, m->app, WANTS_NOTHING, "", false);
            b->quiet_asked = 0; /* perhaps a question stands there as well */
        }
        if (last_output > b->quiet_asked + 1500) {
            b->quiet_asked = last_output;
            ask_text(m, b, at.session, false);
        }
    } else if (at.ended) {
        want(b, m->app, b->seen ? WANTS_NOTHING : WANTS_LOOK, at.why, m->announced);
    } else {
        b->seen = false;
        want(b, m->app, WANTS_NOTHING, "", false);
    }
}

static void take_status(struct model *m, struct box *b, const json_t *msg)
{
    int64_t now = app_now_ms(), cpu = json_integer_value(json_object_get(msg, "cpu_us"));
    json_decref(b->status);
    b->status = json_deep_copy(msg);
    if (b->cpu_at_ms && now - b->cpu_at_ms >= 900) {
        b->cpu = (double)(cpu - b->cpu_us) / 10.0 / (double)(now - b->cpu_at_ms);
        if (b->cpu < 0)
            b->cpu = 0;
        memmove(b->cpu_hist, b->cpu_hist + 1, sizeof b->cpu_hist - sizeof *b->cpu_hist);
        b->cpu_hist[31] = (int)b->cpu;
    }
    if (!b->cpu_at_ms || now - b->cpu_at_ms >= 900) {
        b->cpu_at_ms = now;
        b->cpu_us = cpu;
    }
    b->mem_kib = json_integer_value(json_object_get(msg, "mem_kib"));
    b->uptime_ms = json_integer_value(json_object_get(msg, "uptime_ms"));
    b->uptime_at_ms = now;
    b->blocked = json_integer_value(json_object_get(msg, "blocked"));
    const char *accel = json_string_value(json_object_get(msg, "accel"));
    b->emulated = accel && strcmp(accel, "tcg") == 0;
    b->paused = json_is_true(json_object_get(msg, "paused"));
    const char *reason = json_string_value(json_object_get(msg, "reason"));
    char trouble[sizeof b->trouble];
    sanitize_line(trouble, sizeof trouble, reason ? reason : "", reason ? strlen(reason) : 0);
    if (strcmp(trouble, b->trouble) != 0) {
        memcpy(b->trouble, trouble, sizeof trouble);
        if (trouble[0])
            app_say(m->app, SAY_WARN, "%s: %s", b->name, trouble);
    }
    ports_text(b, json_object_get(msg, "ports"));
    judge(m, b);
    app_boxes_changed(m->app);
}

struct model_ref {
    struct model *m;
    char name[RECORD_NAME_MAX + 1];
};

static void on_status(bool ok, const json_t *reply, const char *error, void *arg)
{
    struct model_ref *r = arg;
    struct box *b = model_find(r->m, r->name);
    (void)error;
    if (ok && b && b->conn)
        take_status(r->m, b, reply);
    free(r);
}

static void ask_status(struct model *m, struct box *b, const char *op)
{
    struct model_ref *r = calloc(1, sizeof *r);
    if (!r)
        return;
    r->m = m;
    memcpy(r->name, b->name, sizeof r->name);
    conn_request(b->conn, op, NULL, on_status, r);
}

static struct box *box_of(struct model *m, const struct conn *c)
{
    for (unsigned i = 0; i < m->n; i++)
        if (m->boxes[i]->conn == c)
            return m->boxes[i];
    return NULL;
}

static void on_note(struct conn *c, const char *op, const json_t *msg, void *arg)
{
    struct model *m = arg;
    struct box *b = box_of(m, c);
    if (b && strcmp(op, "status") == 0)
        take_status(m, b, msg);
}

static void soon(struct model *m, int ms)
{
    struct timeval tv = {0, ms * 1000};
    if (!event_pending(m->soon, EV_TIMEOUT, NULL))
        event_add(m->soon, &tv);
}

static void on_closed(struct conn *c, void *arg)
{
    struct model *m = arg;
    struct box *b = box_of(m, c);
    if (b) {
        hang_up(b);
        app_boxes_changed(m->app);
        soon(m, 20);
    }
}

static const struct conn_ops conn_ops = {.note = on_note, .closed = on_closed};

static void connect_box(struct model *m, struct box *b)
{
    if (b->conn)
        return;
    b->conn = conn_open(app_base(m->app), b->name, &conn_ops, m, NULL);
    if (b->conn)
        ask_status(m, b, "watch");
}

static void read_state(struct model *m, struct box *b)
{
    struct sandbox_status st;
    if (sandbox_state(b->name, &st, NULL) < 0)
        return;
    enum life before = b->life;
    b->life = st.life;
    b->since = st.when;
    sanitize_line(b->reason, sizeof b->reason, st.reason, strlen(st.reason));
    if (b->life == LIFE_RUNNING)
        connect_box(m, b);
    else if (b->conn && b->life != LIFE_STOPPING)
        hang_up(b);
    if (b->life == LIFE_FAILED && before != LIFE_FAILED && m->announced && !b->task) /* a task tells its own end */
        app_say(m->app, SAY_ERROR, "%s failed: %s", b->name, b->reason[0] ? b->reason : "nobody knows why");
    if (b->life == LIFE_FAILED && (before != LIFE_FAILED || b->wants == WANTS_NOTHING) && !b->seen)
        want(b, m->app, WANTS_LOOK, b->reason[0] ? b->reason : "it failed", false);
    else if (b->life != LIFE_FAILED && b->life != before) {
        b->seen = false;
        if (b->life != LIFE_RUNNING)
            b->wants = WANTS_NOTHING;
    }
}

static struct box *box_new(struct model *m, const char *name)
{
    struct record r;
    if (record_load(&r, name, NULL) < 0)
        return NULL;
    struct box *b = calloc(1, sizeof *b), **grown = b ? realloc(m->boxes, (m->n + 1) * sizeof *grown) : NULL;
    if (!grown) {
        free(b);
        record_finish(&r);
        return NULL;
    }
    m->boxes = grown;
    snprintf(b->name, sizeof b->name, "%s", name);
    snprintf(b->agent, sizeof b->agent, "%s", r.agent ? r.agent : "");
    b->folder = r.nfolders ? strdup(r.folders[0].path) : NULL;
    const json_t *branch = json_object_get(r.extra, "branch"), *clone = json_object_get(r.extra, "clone");
    const char *own = json_string_value(json_object_get(branch, "name")), *repo = json_string_value(json_object_get(branch ? branch : clone, "repository"));
    b->own_branch = branch || clone;
    if (branch && own)
        sanitize_line(b->branch, sizeof b->branch, own, strlen(own));
    else if (clone)
        snprintf(b->branch, sizeof b->branch, "its own clone");
    if (b->own_branch && repo) {
        free(b->folder);
        b->folder = strdup(repo);
    }
    b->installs = json_is_string(json_object_get(r.extra, "installs"));
    b->nfolders = r.nfolders;
    b->cpus = r.cpus;
    b->memory_mib = r.memory_mib;
    b->created = r.created;
    b->cpu = b->fraction = -1;
    b->life = LIFE_STOPPED;
    for (size_t i = 0; i < 32; i++)
        b->cpu_hist[i] = -1;
    record_finish(&r);
    unsigned at = m->n;
    while (at > 0 && strcmp(m->boxes[at - 1]->name, name) > 0) {
        m->boxes[at] = m->boxes[at - 1];
        at--;
    }
    m->boxes[at] = b;
    m->n++;
    return b;
}

static void watch_folder(struct model *m, const char *name)
{
    char *path = name ? path_sandbox(name, NULL, NULL) : path_in(PATH_DATA, NULL, "sandboxes");
    if (path && !name)
        path_mkdirs(path, 0700, NULL);
    if (path && m->notify >= 0)
        inotify_add_watch(m->notify, path, IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_ONLYDIR);
    free(path);
}

void model_refresh(struct model *m)
{
    char **names;
    int n = record_list(&names, NULL);
    for (unsigned i = 0; i < m->n; i++)
        m->boxes[i]->stale = true;
    for (int i = 0; i < n; i++) {
        struct box *b = model_find(m, names[i]);
        if (!b && (b = box_new(m, names[i])))
            watch_folder(m, names[i]);
        if (!b)
            continue;
        b->stale = false;
        read_state(m, b);
        read_branch(b);
    }
    if (n >= 0)
        record_list_free(names, n);
    unsigned kept = 0;
    for (unsigned i = 0; i < m->n; i++) {
        if (m->boxes[i]->stale && n >= 0)
            box_free(m->boxes[i]);
        else
            m->boxes[kept++] = m->boxes[i];
    }
    m->n = kept;
    app_boxes_changed(m->app);
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    model_refresh(arg);
}

static void on_notify(evutil_socket_t fd, short what, void *arg)
{
    struct model *m = arg;
    char buf[8192] __attribute__((aligned(8)));
    bool worth = false;
    ssize_t n;
    (void)what;
    while ((n = read(fd, buf, sizeof buf)) > 0)
        for (char *p = buf; p < buf + n;) {
            const struct inotify_event *ev = (const struct inotify_event *)(void *)p;
            p += sizeof *ev + ev->len;
            /* The log's own files come and go beside the database. */
            worth = worth || ev->len == 0 || strncmp(ev->name, "log.db", 6) != 0;
        }
    if (worth)
        soon(m, 30);
}

struct model *model_new(struct app *a, struct err *e)
{
    struct model *m = calloc(1, sizeof *m);
    if (!m) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    m->app = a;
    m->notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    m->soon = evtimer_new(app_base(a), on_soon, m);
    if (m->notify >= 0) {
        m->notify_ev = event_new(app_base(a), m->notify, EV_READ | EV_PERSIST, on_notify, m);
        event_add(m->notify_ev, NULL);
    }
    watch_folder(m, NULL);
    return m;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->n; i++)
        box_free(m->boxes[i]);
    free(m->boxes);
    if (m->notify_ev)
        event_free(m->notify_ev);
    if (m->soon)
        event_free(m->soon);
    if (m->notify >= 0)
        close(m->notify);
    free(m);
}

unsigned model_count(const struct model *m)
{
    return m->n;
}

struct box *model_at(const struct model *m, unsigned i)
{
    return i < m->n ? m->boxes[i] : NULL;
}

struct box *model_find(const struct model *m, const char *name)
{
    for (unsigned i = 0; name && i < m->n; i++)
        if (strcmp(m->boxes[i]->name, name) == 0)
            return m->boxes[i];
    return NULL;
}

bool model_running(const struct box *b)
{
    return b && b->life == LIFE_RUNNING && b->conn;
}

void model_seen(struct model *m, struct box *b)
{
    if (b->wants != WANTS_LOOK)
        return;
    b->seen = true;
    b->wants = WANTS_NOTHING;
    app_boxes_changed(m->app);
}

void model_tick(struct model *m)
{
    int64_t now = app_now_ms();
    bool refresh = false;
    for (unsigned i = 0; i < m->n; i++) {
        struct box *b = m->boxes[i];
        bool moving = b->life == LIFE_STARTING || b->life == LIFE_STOPPING || b->life == LIFE_CREATING;
        if (moving || (b->life == LIFE_RUNNING && !b->conn))
            refresh = true;
        if (b->conn && now - m->asked_ms >= STATUS_EVERY_MS)
            ask_status(m, b, "status");
    }
    if (now - m->asked_ms >= STATUS_EVERY_MS) {
        m->asked_ms = now;
        m->announced = true;
    }
    if (refresh)
        model_refresh(m);
}

void model_sum(const struct model *m, struct model_sums *s)
{
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < m->n; i++) {
        const struct box *b = m->boxes[i];
        s->running += b->life == LIFE_RUNNING;
        s->waiting += b->wants == WANTS_INPUT;
        s->failed += b->life == LIFE_FAILED;
        s->busy += b->task != NULL || (b->installs && b->life == LIFE_RUNNING) || b->life == LIFE_STARTING || b->life == LIFE_STOPPING || b->life == LIFE_CREATING;
        s->blocked += b->blocked;
    }
}

const char *box_state_word(const struct box *b)
{
    if (b->wants == WANTS_INPUT)
        return "waiting";
    if (b->life == LIFE_RUNNING && b->paused)
        return "paused";
    if (b->life == LIFE_RUNNING && b->installs)
        return "installing";
    return life_name(b->life);
}
