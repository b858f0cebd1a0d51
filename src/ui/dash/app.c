#include "ui/dash/app.h"

#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/paths.h"
#include "core/sanitize.h"
#include "core/spawn.h"
#include "ui/backdrop.h"
#include "ui/clip.h"
#include "ui/dash/app_int.h"
#include "ui/dash/model.h"
#include "ui/dash/screen.h"
#include "ui/dash/theme.h"

#define STALE_MS 400

int64_t app_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *app_glyph(const char *utf8, const char *plain)
{
    return screen_utf8() ? utf8 : plain;
}

struct event_base *app_base(struct app *a)
{
    return a->base;
}

struct model *app_model(struct app *a)
{
    return a->model;
}

const struct keymap *app_keys(struct app *a)
{
    return a->keys;
}

struct slot *app_slot(struct app *a, const struct pane *p)
{
    for (int i = 0; i < AREAS; i++)
        if (a->slot[i].pane == p)
            return &a->slot[i];
    for (unsigned i = 0; i < a->noverlays; i++)
        if (a->overlay[i].pane == p)
            return &a->overlay[i];
    return NULL;
}

struct pane *app_focused(struct app *a)
{
    if (a->noverlays)
        return a->overlay[a->noverlays - 1].pane;
    return a->slot[a->focus].pane;
}

static void toggle_mouse(struct app *a)
{
    a->mouse = !a->mouse;
    screen_mouse(a->mouse);
    app_say(a, SAY_INFO, a->mouse ? "the mouse is the dashboard's" : "the mouse is your terminal's: select as you like; M takes it again");
}

/* ---- panes and focus ---- */

void app_add_pane(struct app *a, enum area area, struct pane *p)
{
    if (!p)
        return;
    p->app = a;
    a->slot[area].pane = p;
}

struct pane *app_pane(struct app *a, enum area area)
{
    return a->slot[area].pane;
}

static void tell_focus(struct app *a, struct pane *p, bool on)
{
    if (p && p->class->focus)
        p->class->focus(p, on);
    if (p)
        pane_dirty(p);
    /* What was said before gives way to the keys that hold now; what this very change says stays. */
    if (on && a->said_ms && app_now_ms() - a->said_ms > STALE_MS)
        a->said_ms = 0;
    app_bars_dirty(a);
}

void app_push(struct app *a, struct pane *p)
{
    if (!p)
        return;
    if (a->noverlays == OVERLAYS_MAX) {
        p->class->free(p);
        return;
    }
    tell_focus(a, app_focused(a), false);
    p->app = a;
    a->overlay[a->noverlays++] = (struct slot){.pane = p};
    tell_focus(a, p, true);
    app_layout(a);
}

static bool take_off(struct app *a, struct pane *p)
{
    unsigned i = 0;
    while (i < a->noverlays && a->overlay[i].pane != p)
        i++;
    if (i == a->noverlays)
        return false;
    app_drop_windows(&a->overlay[i]);
    memmove(&a->overlay[i], &a->overlay[i + 1], (a->noverlays - i - 1) * sizeof a->overlay[0]);
    a->noverlays--;
    p->visible = false;
    if (a->drag == p)
        a->drag = NULL;
    return true;
}

void app_take(struct app *a, struct pane *p)
{
    if (!take_off(a, p))
        return;
    tell_focus(a, app_focused(a), true);
    app_layout(a);
}

void app_pop(struct app *a, struct pane *p)
{
    if (!take_off(a, p))
        return;
    /* It may be running: it is freed when the loop comes round. */
    if (a->ndead < OVERLAYS_MAX * 2)
        a->dead[a->ndead++] = p;
    tell_focus(a, app_focused(a), true);
    app_layout(a);
    event_active(a->bury_ev, EV_TIMEOUT, 0);
}

unsigned app_overlays(const struct app *a)
{
    return a->noverlays;
}

int64_t app_typed_ms(const struct app *a)
{
    return a->typed_ms;
}

static void on_bury(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    (void)fd;
    (void)what;
    while (a->ndead) {
        struct pane *p = a->dead[--a->ndead];
        p->class->free(p);
    }
}

bool app_has_focus(struct app *a, const struct pane *p)
{
    return app_focused(a) == p;
}

struct box *app_box(struct app *a)
{
    return model_find(a->model, a->box);
}

static void tell_box(struct app *a)
{
    struct box *b = app_box(a);
    for (int i = 0; i < AREAS; i++)
        if (a->slot[i].pane && a->slot[i].pane->class->box)
            a->slot[i].pane->class->box(a->slot[i].pane, b);
}

bool app_keeps_focus(struct app *a, const struct pane *p)
{
    return a->slot[a->focus].pane == p;
}

void app_focus(struct app *a, enum area area)
{
    if (a->focus == area || !a->slot[area].pane)
        return;
    tell_focus(a, a->slot[a->focus].pane, false);
    a->focus = area;
    a->prefixed = false;
    tell_focus(a, a->slot[area].pane, true);
    if (!a->box[0]) /* what is gone needs no longer be held */
        tell_box(a);
    if (a->zoomed || a->narrow)
        app_layout(a);
}

void app_zoom(struct app *a, bool on)
{
    if (a->zoomed == on)
        return;
    a->zoomed = on;
    app_layout(a);
}

bool app_zoomed(struct app *a)
{
    return a->zoomed;
}

/* Forwards goes past the terminal, which would swallow the next Tab: from the sandboxes to the network and back.  Enter,
 * the mouse and going backwards lead into it. */
static void focus_by(struct app *a, int step)
{
    int next = (int)a->focus;
    do
        next = (next + step + AREAS) % AREAS;
    while (next != (int)a->focus && (!a->slot[next].pane || (step > 0 && next == AREA_TERMINAL)));
    app_focus(a, (enum area)next);
}

void app_select_box(struct app *a, const char *name)
{
    if (strcmp(a->box, name ? name : "") == 0)
        return;
    snprintf(a->box, sizeof a->box, "%s", name ? name : "");
    tell_box(a);
    app_bars_dirty(a);
}

void app_boxes_changed(struct app *a)
{
    if (!a->model)
        return;
    if (a->box[0] && !app_box(a))
        a->box[0] = '\0';
    /* Who comes first in its order is the sandbox pane's to say, when it is drawn next. */
    tell_box(a);
    for (unsigned i = 0; i < a->noverlays; i++)
        if (a->overlay[i].pane->class->box)
            a->overlay[i].pane->class->box(a->overlay[i].pane, app_box(a));
    app_bars_dirty(a);
}

void app_open_session(struct app *a, struct box *b, int session)
{
    struct pane *p = a->slot[AREA_TERMINAL].pane;
    if (!b)
        return;
    if (p && p->class->open && p->class->open(p, b, session)) {
        app_focus(a, AREA_TERMINAL);
        return;
    }
    /* In the whole terminal, then. */
    struct err e = {0};
    char number[16], *self = path_command(&e);
    snprintf(number, sizeof number, "%d", session);
    char *argv[] = {self, (char *)"attach", b->name, session ? number : NULL, NULL};
    if (!self || app_foreground(a, argv, false, &e) < 0)
        app_say(a, SAY_ERROR, "%s", e.text);
    free(self);
}

/* ---- messages ---- */

void app_say(struct app *a, enum say kind, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct said *s = &a->said[a->nsaid++ % SAID_MAX];
    s->kind = kind;
    s->when = time(NULL);
    sanitize_line(s->text, sizeof s->text, text, strlen(text));
    a->said_ms = app_now_ms();
    a->unread_error = kind == SAY_ERROR;
    a->unread += kind == SAY_ERROR || kind == SAY_WARN;
    app_bars_dirty(a);
}

bool app_attends(struct app *a, const char *box)
{
    struct pane *p = a->slot[AREA_TERMINAL].pane;
    return !a->away && !a->noverlays && a->focus == AREA_TERMINAL && p && p->visible && strcmp(a->box, box) == 0;
}

void app_notify(struct app *a, const char *title, const char *text)
{
    char safe[256], out[600];
    const char *how = a->notify;
    if (strcmp(how, "off") == 0)
        return;
    if (strcmp(how, "bell") == 0) {
        screen_write("\a", 1);
        return;
    }
    sanitize_line(safe, sizeof safe, text, strlen(text));
    for (char *c = safe; *c; c++)
        if (*c == ';')
            *c = ',';
    bool nine = strcmp(how, "osc9") == 0, tmux = getenv("TMUX") && *getenv("TMUX");
    /* tmux hands on what it does not know if it is wrapped, and if it may (allow-passthrough); the bell in any case. */
    int n = snprintf(out, sizeof out, "%s\033]%s%s%s%s\a%s\a", tmux ? "\033Ptmux;\033" : "", nine ? "9;" : "777;notify;", nine ? "" : title,
                     nine ? "" : ";", safe, tmux ? "\033\\" : "");
    screen_write(out, (size_t)n);
}

static void reap_copier(struct app *a)
{
    int status;
    if (a->copier <= 0 || waitpid(a->copier, &status, WNOHANG) == 0)
        return;
    a->copier = 0;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        app_say(a, SAY_WARN, "tmux did not take what was copied");
}

/* tmux takes nothing for the clipboard from the programs in it, unless it is set to; its own command it takes. */
static bool copy_by_tmux(struct app *a, const char *text, size_t len)
{
    const char *tmux = getenv("TMUX");
    char *argv[] = {(char *)"tmux", (char *)"load-buffer", (char *)"-w", (char *)"-", NULL};
    extern char **environ;
    reap_copier(a);
    if (!tmux || !*tmux || a->copier > 0)
        return false;
    int in = memfd_create("copy", MFD_CLOEXEC), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (in >= 0 && null >= 0 && write(in, text, len) == (ssize_t)len && lseek(in, 0, SEEK_SET) == 0) {
        const struct spawn_fd fds[] = {{in, 0}, {null, 1}, {null, 2}};
        const struct spawn s = {.path = argv[0], .argv = argv, .env = environ, .fds = fds, .nfds = 3, .new_session = true};
        a->copier = spawn_run(&s, NULL);
    }
    if (in >= 0)
        close(in);
    if (null >= 0)
        close(null);
    return a->copier > 0;
}

void app_copy(struct app *a, const char *text, size_t len)
{
    size_t need = sodium_base64_encoded_len(len, sodium_base64_VARIANT_ORIGINAL);
    char *out = len <= 256u * 1024u ? malloc(need + 16) : NULL;
    if (out) {
        free(a->copied);
        a->copied = strndup(text, len);
    }
    if (!out) {
        app_say(a, SAY_ERROR, "that is too much for the clipboard (%zu bytes); save it to a file instead", len);
        return;
    }
    memcpy(out, "\033]52;c;", 7);
    sodium_bin2base64(out + 7, need, (const unsigned char *)text, len, sodium_base64_VARIANT_ORIGINAL);
    size_t n = strlen(out);
    out[n++] = '\a';
    if (!copy_by_tmux(a, text, len))
        screen_write(out, n);
    free(out);
    app_say(a, SAY_GOOD, "copied %zu byte%s", len, len == 1 ? "" : "s");
}

const char *app_copied(struct app *a)
{
    return a->copied;
}

void app_copy_from(struct app *a, const char *sandbox, const char *base64, bool *said)
{
    size_t len = 0;
    char *out = clip_sequence(base64, &len);
    if (!out)
        return;
    if (clip_allowed(sandbox)) {
        screen_write(out, strlen(out));
        app_say(a, SAY_INFO, "%s copied %zu byte%s to your clipboard", sandbox, len, len == 1 ? "" : "s");
    } else if (!*said) {
        *said = true;
        app_say(a, SAY_INFO, "%s wanted to copy %zu byte%s to your clipboard (sbx config set attach.clipboard %s allows it)", sandbox, len,
                len == 1 ? "" : "s", sandbox);
    }
    free(out);
}

/* ---- actions ---- */

void app_quit(struct app *a)
{
    event_base_loopbreak(a->base);
}

/* Programs in sessions are told what they stand on, and those that we start. */
static void use_theme(struct app *a, const char *name)
{
    struct err e = {0};
    if (theme_load(name, &e) < 0)
        app_say(a, SAY_ERROR, "%s", e.text);
    if (strcmp(theme_current(), "monochrome") != 0)
        setenv("COLORFGBG", theme_light() ? "0;15" : "15;0", 1);
}

void app_terminal_says(struct app *a, const char *bytes, size_t len)
{
    int light = backdrop_answer(bytes, len);
    if (light < 0)
        return;
    theme_terminal(light);
    if (strcmp(a->theme, "auto") == 0 && light != theme_light()) {
        use_theme(a, a->theme);
        app_redraw(a, true);
    }
}

void app_theme(struct app *a, const char *name)
{
    snprintf(a->theme, sizeof a->theme, "%.31s", name);
    use_theme(a, a->theme);
    if (strcmp(theme_current(), "monochrome") == 0 && strcmp(a->theme, "monochrome") != 0)
        app_say(a, SAY_INFO, "there are no colours to choose from: the terminal has none, or NO_COLOR is set");
    else if (strcmp(theme_current(), a->theme) == 0)
        app_say(a, SAY_INFO, "theme: %s (kept by: sbx config set ui.theme %s)", theme_current(), theme_current());
    app_redraw(a, true);
}

static void next_theme(struct app *a)
{
    char names[300], *save = NULL, first[32] = "", next[32] = "";
    bool found = false;
    theme_names(names, sizeof names);
    for (char *n = strtok_r(names, " ", &save); n; n = strtok_r(NULL, " ", &save)) {
        if (!first[0])
            snprintf(first, sizeof first, "%.31s", n);
        if (found && !next[0])
            snprintf(next, sizeof next, "%.31s", n);
        found |= strcmp(n, theme_current()) == 0;
    }
    app_theme(a, next[0] ? next : first);
}

/* The terminal is ours again, in whatever state others left it. */
static void resume(struct app *a)
{
    screen_resume();
    screen_fit();
    a->outer = (struct outer){0};
    app_redraw(a, true);
}

static void suspend(struct app *a)
{
    screen_suspend();
    raise(SIGSTOP);
    resume(a);
}

static void leave_terminal(struct app *a)
{
    if (a->zoomed)
        app_zoom(a, false);
    app_focus(a, AREA_BOXES);
}

/* To the next sandbox whose agent waits, round and round. */
static void next_waiting(struct app *a)
{
    unsigned n = model_count(a->model), at = 0;
    for (unsigned i = 0; i < n; i++)
        if (strcmp(model_at(a->model, i)->name, a->box) == 0)
            at = i + 1;
    for (unsigned i = 0; i < n; i++) {
        const struct box *b = model_at(a->model, (at + i) % n);
        if (b->wants == WANTS_INPUT) {
            app_select_box(a, b->name);
            if (a->slot[AREA_BOXES].pane->class->action)
                a->slot[AREA_BOXES].pane->class->action(a->slot[AREA_BOXES].pane, "sandbox.show");
            return;
        }
    }
    app_say(a, SAY_INFO, "nobody waits for you");
}

bool app_action(struct app *a, const char *action)
{
    static const struct {
        const char *name;
        void (*fn)(struct app *a);
    } table[] = {
        {"app.quit", app_quit},         {"app.help", app_show_help},       {"app.messages", app_show_messages},
        {"app.command", app_line_open}, {"app.theme", next_theme},         {"app.suspend", suspend},         {"app.mouse", toggle_mouse},
        {"app.waiting", next_waiting},  {"app.leave", leave_terminal},  {"app.rules", app_show_rules},     {"app.secrets", app_show_secrets},
        {"app.settings", app_show_settings}, {"sandbox.create", app_show_create},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].name, action) == 0) {
            table[i].fn(a);
            return true;
        }
    if (strcmp(action, "app.focus-next") == 0)
        focus_by(a, 1);
    else if (strcmp(action, "app.focus-prev") == 0)
        focus_by(a, -1);
    else if (strcmp(action, "app.zoom") == 0)
        app_zoom(a, !a->zoomed);
    else if (strcmp(action, "app.redraw") == 0)
        app_redraw(a, true);
    else if (strcmp(action, "app.wider") == 0 || strcmp(action, "app.narrower") == 0)
        app_resize_panes(a, action[4] == 'w' ? 2 : -2, 0);
    else if (strcmp(action, "app.higher") == 0 || strcmp(action, "app.lower") == 0)
        app_resize_panes(a, 0, action[4] == 'h' ? 1 : -1);
    else if (strcmp(action, "overlay.close") == 0 && a->noverlays)
        app_pop(a, a->overlay[a->noverlays - 1].pane);
    else
        return false;
    return true;
}

static const int signal_numbers[SIGNALS] = {SIGWINCH, SIGTSTP, SIGCONT, SIGHUP, SIGTERM, SIGINT, SIGQUIT};

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct app *a = arg;
    (void)what;
    if (sig == SIGWINCH) {
        if (screen_fit())
            app_redraw(a, true);
    } else if (sig == SIGTSTP) {
        suspend(a);
    } else if (sig == SIGCONT) {
        resume(a);
    } else {
        a->status_code = 128 + (int)sig;
        app_quit(a);
    }
}

/* What was tried with keys (T, M) stays until the setting itself is another. */
static void settings(struct app *a)
{
    struct err e = {0};
    json_t *config = config_load(&e);
    const char *theme = json_string_value(config_value(config, "ui.theme")), *notify = json_string_value(config_value(config, "ui.notify")),
               *prefix = json_string_value(config_value(config, "attach.prefix"));
    bool mouse = !json_is_false(config_value(config, "ui.mouse"));
    theme = theme ? theme : "auto";
    if (strncmp(theme, a->set.theme, sizeof a->set.theme - 1) != 0)
        snprintf(a->theme, sizeof a->theme, "%.31s", theme);
    snprintf(a->set.theme, sizeof a->set.theme, "%.31s", theme);
    if (!a->set.read || mouse != a->set.mouse)
        a->mouse = mouse;
    a->set.mouse = mouse;
    a->set.read = true;
    snprintf(a->notify, sizeof a->notify, "%.15s", notify ? notify : "bell");
    if (!prefix || !input_parse_key(prefix, &a->prefix_key, &a->prefix_mods)) {
        a->prefix_key = ']';
        a->prefix_mods = MOD_CTRL;
    }
    json_decref(config);
    if (e.text[0])
        app_say(a, SAY_ERROR, "%s", e.text);
}

/* Changed in the form, by a command, or by another dashboard: true if they may be others than before. */
static bool settings_touched(struct app *a)
{
    char *path = path_in(PATH_CONFIG, NULL, "config.json");
    struct stat st = {0};
    if (!path || stat(path, &st) < 0)
        memset(&st, 0, sizeof st);
    free(path);
    bool touched = st.st_ino != a->set.ino || st.st_mtim.tv_sec != a->set.when.tv_sec || st.st_mtim.tv_nsec != a->set.when.tv_nsec;
    a->set.ino = st.st_ino;
    a->set.when = st.st_mtim;
    return touched;
}

static void follow_settings(struct app *a)
{
    char theme[sizeof a->theme];
    bool mouse = a->mouse;
    if (!settings_touched(a))
        return;
    snprintf(theme, sizeof theme, "%s", a->theme);
    settings(a);
    if (mouse != a->mouse)
        screen_mouse(a->mouse);
    if (strcmp(theme, a->theme) != 0) {
        use_theme(a, a->theme);
        app_redraw(a, true);
    }
    app_bars_dirty(a);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    (void)fd;
    (void)what;
    follow_settings(a);
    model_tick(a->model);
    reap_copier(a);
    for (int i = 0; i < AREAS; i++)
        if (a->slot[i].pane && a->slot[i].pane->class->tick)
            a->slot[i].pane->class->tick(a->slot[i].pane);
    for (unsigned i = 0; i < a->noverlays; i++)
        if (a->overlay[i].pane->class->tick)
            a->overlay[i].pane->class->tick(a->overlay[i].pane);
    time_t minute = time(NULL) / 60;
    bool faded = a->said_ms && app_now_ms() - a->said_ms >= SAY_MS;
    if (faded)
        a->said_ms = 0;
    if (minute != a->minute || faded)
        app_bars_dirty(a);
    a->minute = minute;
}

/* So that what a command printed can be read before the dashboard covers it. */
static void wait_for_enter(int status)
{
    char c = 0;
    if (status)
        printf("\n[status %d; Enter goes back to the dashboard] ", status);
    else
        printf("\n[done; Enter goes back to the dashboard] ");
    fflush(stdout);
    struct pollfd p = {STDIN_FILENO, POLLIN, 0};
    while (c != '\n' && poll(&p, 1, -1) == 1 && read(STDIN_FILENO, &c, 1) == 1)
        ;
}

int app_foreground(struct app *a, char *const *argv, bool read_it, struct err *e)
{
    screen_suspend();
    extern char **environ;
    const struct spawn_fd fds[] = {{0, 0}, {1, 1}, {2, 2}};
    const struct spawn s = {.path = argv[0], .argv = argv, .env = environ, .fds = fds, .nfds = 3};
    /* Ctrl-C there is meant for the child. */
    for (size_t i = 0; i < SIGNALS; i++)
        if (signal_numbers[i] == SIGINT || signal_numbers[i] == SIGQUIT || signal_numbers[i] == SIGTSTP || signal_numbers[i] == SIGCONT)
            event_del(a->signals[i]);
    signal(SIGINT, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    pid_t pid = spawn_run(&s, e);
    int status = pid < 0 ? -1 : spawn_wait(pid);
    if (status >= 0 && read_it)
        wait_for_enter(status);
    for (size_t i = 0; i < SIGNALS; i++)
        if (a->signals[i])
            event_add(a->signals[i], NULL);
    resume(a);
    return status;
}

/* ---- begin and end ---- */

struct app *app_new(struct err *e)
{
    struct app *a = calloc(1, sizeof *a);
    if (!a) {
        err_set(e, STATUS_FAILED, "out of memory");
        return NULL;
    }
    a->base = event_base_new();
    if (!a->base)
        goto fail;
    a->frame_ev = evtimer_new(a->base, app_on_frame, a);
    a->spin_ev = evtimer_new(a->base, app_on_spin, a);
    a->esc_ev = evtimer_new(a->base, app_on_esc, a);
    a->bury_ev = evtimer_new(a->base, on_bury, a);
    a->tick_ev = event_new(a->base, -1, EV_PERSIST, on_tick, a);
    a->tty_ev = event_new(a->base, STDIN_FILENO, EV_READ | EV_PERSIST, app_on_tty, a);
    a->input = input_new(app_on_input, a);
    a->model = model_new(a, e);
    struct err bad = {0};
    a->keys = keymap_load(&bad);
    if (!a->frame_ev || !a->esc_ev || !a->bury_ev || !a->tick_ev || !a->tty_ev || !a->input || !a->model || !a->keys)
        goto fail;
    settings_touched(a);
    settings(a);
    if (bad.text[0])
        app_say(a, SAY_ERROR, "%s", bad.text);
    return a;
fail:
    if (e && !e->text[0])
        err_set(e, STATUS_FAILED, "out of memory");
    app_free(a);
    return NULL;
}

void app_free(struct app *a)
{
    if (!a)
        return;
    while (a->noverlays) {
        struct pane *p = a->overlay[--a->noverlays].pane;
        p->class->free(p);
    }
    on_bury(-1, 0, a);
    for (int i = 0; i < AREAS; i++)
        if (a->slot[i].pane)
            a->slot[i].pane->class->free(a->slot[i].pane);
    model_free(a->model);
    keymap_free(a->keys);
    free(a->copied);
    input_free(a->input);
    struct event *events[] = {a->frame_ev, a->spin_ev, a->esc_ev, a->bury_ev, a->tick_ev, a->tty_ev};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i])
            event_free(events[i]);
    for (size_t i = 0; i < SIGNALS; i++)
        if (a->signals[i])
            event_free(a->signals[i]);
    if (a->base)
        event_base_free(a->base);
    free(a);
}

int app_run(struct app *a)
{
    struct err e = {0};
    if (screen_enter(a->mouse, &e) < 0) {
        fprintf(stderr, "sbx: %s\n", e.text);
        return STATUS_FAILED;
    }
    char typed[256];
    size_t ntyped = 0;
    int light = strcmp(a->theme, "auto") == 0 ? screen_backdrop(typed, sizeof typed, &ntyped) : -1;
    light = light < 0 ? backdrop_light() : light;
    if (light >= 0)
        theme_terminal(light);
    use_theme(a, a->theme);
    for (size_t i = 0; i < SIGNALS; i++) {
        a->signals[i] = evsignal_new(a->base, signal_numbers[i], on_signal, a);
        event_add(a->signals[i], NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    setenv("SBX_PROGRESS", "1", 1); /* what is started from here tells how far it is */
    model_refresh(a->model);
    if (a->slot[AREA_BOXES].pane)
        tell_focus(a, a->slot[AREA_BOXES].pane, true);
    app_layout(a);
    if (model_count(a->model) == 0)
        app_show_welcome(a);
    app_draw(a);
    input_feed(a->input, typed, ntyped);
    event_add(a->tty_ev, NULL);
    struct timeval second = {1, 0};
    event_add(a->tick_ev, &second);
    event_base_dispatch(a->base);
    screen_leave();
    if (a->progress.text[0] && a->status_code == 0)
        fprintf(stderr, "sbx: this goes on without the dashboard: %s\n", a->progress.text);
    return a->status_code;
}
