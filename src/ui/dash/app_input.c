/* Where a key or the mouse goes: to an action by its binding, to a pane, or to a session. */
#include "ui/dash/app_int.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>
#include <unistd.h>

#define ESC_MS 25

/* To the pane first, then to the app. */
static bool act(struct app *a, struct pane *p, const char *action)
{
    return (p && p->class->action && p->class->action(p, action)) || app_action(a, action);
}

bool app_act_anywhere(struct app *a, const char *action)
{
    if (act(a, app_focused(a), action))
        return true;
    for (int i = 0; i < AREAS; i++) {
        struct pane *p = a->slot[i].pane;
        if (p && p != app_focused(a) && p->class->action && p->class->action(p, action))
            return true;
    }
    return false;
}

static bool bound(struct app *a, struct pane *p, const char *context, const struct input *in)
{
    const char *action = keymap_action(a->keys, context, in->key, in->mods);
    return action && act(a, p, action);
}

static void key_to_pane(struct app *a, struct pane *p, const struct input *in, bool overlay)
{
    if (bound(a, p, p->class->name, in))
        return;
    if (p->class->list && bound(a, p, "list", in))
        return;
    if (p->class->modal || overlay) {
        if (p->class->key && p->class->key(p, in))
            return;
        bound(a, p, "overlay", in);
        return;
    }
    if (bound(a, p, "global", in))
        return;
    /* A terminal pane without a session: what it says of keys (Enter starts the agent) holds, they are the sandbox's. */
    struct pane *boxes = a->slot[AREA_BOXES].pane;
    if (p == a->slot[AREA_TERMINAL].pane && boxes && (bound(a, boxes, "sandboxes", in) || bound(a, boxes, "list", in)))
        return;
    if (p->class->key)
        p->class->key(p, in);
}

static void key_to_terminal(struct app *a, struct pane *p, const struct input *in)
{
    bool prefix = in->key == a->prefix_key && in->mods == a->prefix_mods;
    if (a->prefixed) {
        a->prefixed = false;
        app_bars_dirty(a);
        if (!prefix) {
            const char *action = keymap_action(a->keys, "prefix", in->key, in->mods);
            if (!action)
                action = keymap_action(a->keys, "global", in->key, in->mods);
            if (!action || !act(a, p, action))
                app_say(a, SAY_WARN, "no command of the dashboard is on that key; the prefix and ? shows them");
            return;
        }
    } else if (prefix) {
        a->prefixed = true;
        app_bars_dirty(a);
        return;
    }
    /* Which keys hold may be others now, as after scrolling. */
    const char *before = p->class->context ? p->class->context(p) : "";
    if (p->class->key)
        p->class->key(p, in);
    if (p->class->context && strcmp(before, p->class->context(p)) != 0)
        app_bars_dirty(a);
}

void app_on_input(const struct input *event, void *arg);

static bool grabs(struct pane *p)
{
    return p->class->grabs && p->class->grabs(p);
}

static bool types(struct pane *p)
{
    const char *words[2];
    return p->class->typed && p->class->typed(p, words);
}

/* A click on what the bars show does what the key would. */
static bool on_bars(struct app *a, const struct input *in)
{
    if (in->mouse != MOUSE_PRESS || a->drag || a->too_small || a->line.on || (in->y != 0 && in->y != LINES - 1))
        return false;
    for (unsigned i = 0; i < a->nhot; i++) {
        const struct hot h = a->hot[i];
        if (h.y != in->y || in->x < h.x || in->x >= h.end || (in->y == 0 && a->noverlays))
            continue;
        char byte = h.key < 128 ? (char)h.key : '\033';
        a->prefixed = false;
        if (h.action)
            act(a, app_focused(a), h.action);
        else
            app_on_input(&(struct input){.type = INPUT_KEY, .key = h.key, .raw = &byte, .raw_len = 1}, a);
        app_bars_dirty(a);
        return true;
    }
    return true;
}

/* The borders between the panes can be taken and moved: that between the list and the rest, that above the log. */
static bool on_border(struct app *a, const struct input *in)
{
    const struct slot *boxes = &a->slot[AREA_BOXES], *term = &a->slot[AREA_TERMINAL], *log = &a->slot[AREA_LOG];
    if (a->border && in->mouse == MOUSE_DRAG) {
        if (a->border == BORDER_LEFT)
            app_resize_panes(a, in->x - (boxes->pane->cols + 1), 0);
        else
            app_resize_panes(a, 0, log->y - 1 - in->y);
        return true;
    }
    if (a->border && (in->mouse == MOUSE_RELEASE || in->mouse == MOUSE_MOVE)) {
        a->border = BORDER_NONE;
        return true;
    }
    if (in->mouse != MOUSE_PRESS || in->button != 1 || a->noverlays || a->zoomed || a->narrow || a->too_small || a->drag || !boxes->pane ||
        !term->pane || !log->pane)
        return false;
    int border = boxes->pane->cols + 1;
    if ((in->x == border || in->x == border + 1) && in->y >= boxes->y)
        a->border = BORDER_LEFT;
    else if (in->x > border + 1 && in->y == log->y - 1)
        a->border = BORDER_LOG;
    return a->border != BORDER_NONE;
}

static void on_mouse(struct app *a, struct input *in)
{
    struct slot *hit = NULL;
    int area = -1;
    if (a->line.on && in->mouse == MOUSE_PRESS) {
        app_line_click(a, in);
        return;
    }
    if (on_bars(a, in) || on_border(a, in))
        return;
    if (a->drag) {
        hit = app_slot(a, a->drag);
        if (in->mouse == MOUSE_RELEASE)
            a->drag = NULL;
    }
    if (!hit && a->noverlays) {
        hit = &a->overlay[a->noverlays - 1];
    } else if (!hit) {
        for (int i = 0; i < AREAS; i++) {
            struct slot *s = &a->slot[i];
            if (s->pane && s->pane->visible && in->y >= s->y && in->y < s->y + s->pane->rows + 2 && in->x >= s->x && in->x < s->x + s->pane->cols + 2) {
                hit = s;
                area = i;
            }
        }
    }
    if (!hit || !hit->pane || !hit->pane->visible)
        return;
    if (in->mouse == MOUSE_PRESS) {
        a->drag = hit->pane;
        if (area >= 0)
            app_focus(a, (enum area)area);
    }
    in->y -= hit->y + 1;
    in->x -= hit->x + 1;
    if (in->mouse == MOUSE_PRESS && in->y == -1 && hit->pane->class->edge) {
        a->drag = NULL;
        if (in->button == 1)
            hit->pane->class->edge(hit->pane, in->x - 2);
        return;
    }
    bool inside = in->y >= 0 && in->x >= 0 && in->y < hit->pane->rows && in->x < hit->pane->cols;
    if (hit->pane->class->mouse && (inside || in->mouse == MOUSE_DRAG || in->mouse == MOUSE_RELEASE))
        hit->pane->class->mouse(hit->pane, in);
}

void app_on_input(const struct input *event, void *arg)
{
    struct app *a = arg;
    struct input in = *event;
    struct pane *p = app_focused(a);
    if (in.type == INPUT_REPLY) {
        app_terminal_says(a, in.raw, in.raw_len);
        return;
    }
    if (in.type == INPUT_FOCUS)
        a->away = !in.focus_in;
    if (in.type == INPUT_MOUSE) {
        on_mouse(a, &in);
        return;
    }
    if (in.type == INPUT_KEY && a->unread_error) {
        a->unread_error = false;
        a->said_ms = 0;
        app_bars_dirty(a);
    }
    if (a->line.on && in.type != INPUT_FOCUS) {
        app_line_input(a, &in);
        return;
    }
    if (!p || a->too_small) {
        if (in.type == INPUT_KEY && (in.key == 'q' || ((in.mods & MOD_CTRL) && in.key == 'c')))
            app_quit(a);
        return;
    }
    if (in.type != INPUT_KEY) {
        if (p->class->key)
            p->class->key(p, &in);
        return;
    }
    bool grabbed = grabs(p), typing = types(p);
    if (!grabbed)
        key_to_pane(a, p, &in, a->noverlays > 0);
    else if (!a->noverlays && a->focus == AREA_TERMINAL)
        key_to_terminal(a, p, &in);
    else if (p->class->key) /* a text that is being typed in a pane or an overlay */
        p->class->key(p, &in);
    if (grabbed != grabs(p) || typing != types(p)) /* other keys hold now */
        app_bars_dirty(a);
}

void app_on_tty(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    char buf[8192];
    (void)what;
    ssize_t n = read((int)fd, buf, sizeof buf);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        app_quit(a); /* the terminal is gone */
        return;
    }
    if (n < 0)
        return;
    a->typed_ms = app_now_ms();
    if (evtimer_pending(a->frame_ev, NULL))
        app_want_frame(a); /* the one that waits comes sooner */
    input_feed(a->input, buf, (size_t)n);
    if (input_pending(a->input)) {
        struct timeval tv = {0, ESC_MS * 1000};
        evtimer_add(a->esc_ev, &tv);
    }
}

void app_on_esc(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    input_flush(((struct app *)arg)->input);
}
