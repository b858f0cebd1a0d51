#include "ui/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/paths.h"
#include "core/unixsock.h"

#define CONNECT_MS 3000

static void on_ctrl(struct link *l, json_t *msg, void *arg)
{
    struct client *c = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    (void)l;
    if (op && strcmp(op, "reply") == 0 && json_integer_value(json_object_get(msg, "id")) == c->reply_id && c->reply_id) {
        json_decref(c->reply);
        c->reply = json_incref(msg);
        return;
    }
    if (c->note)
        c->note(c, msg, c->arg);
}

static void on_data(struct link *l, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    struct client *c = arg;
    if (c->data)
        c->data(c, chan, stream, buf, len, c->arg);
    else
        link_consumed(l, chan, stream, len);
}

static void on_eof(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    struct client *c = arg;
    (void)l;
    if (c->eof)
        c->eof(c, chan, stream, c->arg);
}

static void on_writable(struct link *l, uint16_t chan, unsigned stream, void *arg)
{
    struct client *c = arg;
    (void)l;
    if (c->writable)
        c->writable(c, chan, stream, c->arg);
}

static const struct link_ops ops = {.ctrl = on_ctrl, .data = on_data, .eof = on_eof, .writable = on_writable};

int client_open(struct client *c, const char *sandbox, struct err *e)
{
    memset(c, 0, sizeof *c);
    c->fd = -1;
    char *path = path_socket(sandbox, e);
    if (!path)
        return -1;
    c->fd = unixsock_connect(path, CONNECT_MS, e);
    free(path);
    if (c->fd < 0) {
        if (e && e->status == STATUS_TIMEOUT)
            err_set(e, STATUS_TIMEOUT, "sandbox %s does not answer; to end it: sbx stop %s", sandbox, sandbox);
        if (e && e->status == STATUS_NOT_FOUND)
            err_set(e, STATUS_NOT_FOUND, "sandbox %s is not running; start it with: sbx start %s", sandbox, sandbox);
        return -1;
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->link = link_new(&ops, c);
    c->out = malloc(LINK_OUTPUT_MIN);
    if (!c->link || !c->out) {
        client_close(c);
        return err_set(e, STATUS_FAILED, "out of memory");
    }
    link_large(c->link, true, true);
    return 0;
}

void client_close(struct client *c)
{
    link_free(c->link);
    free(c->out);
    json_decref(c->reply);
    if (c->fd >= 0)
        close(c->fd);
    memset(c, 0, sizeof *c);
    c->fd = -1;
}

json_int_t client_send(struct client *c, const char *op, json_t *args)
{
    json_t *o = args ? args : json_object();
    json_object_set_new(o, "op", json_string(op));
    json_object_set_new(o, "id", json_integer(++c->next_id));
    return link_send_ctrl(c->link, o) < 0 ? -1 : c->next_id;
}

short client_events(const struct client *c)
{
    return (short)(POLLIN | (c->out_pos < c->out_len || link_has_output(c->link) ? POLLOUT : 0));
}

static bool flush(struct client *c)
{
    for (;;) {
        if (c->out_pos == c->out_len) {
            c->out_pos = 0;
            c->out_len = link_output(c->link, c->out, LINK_OUTPUT_MIN);
            if (c->out_len == 0)
                return true;
        }
        ssize_t n = send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        c->out_pos += (size_t)n;
    }
}

bool client_ready(struct client *c, short revents)
{
    static uint8_t in[256 * 1024];
    if (revents & (POLLIN | POLLHUP | POLLERR)) {
        ssize_t n = read(c->fd, in, sizeof in);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            c->closed = true;
            if (n < 0)
                snprintf(c->why, sizeof c->why, "%s", strerror(errno));
        }
        struct err e = {0};
        if (n > 0 && link_feed(c->link, in, (size_t)n, &e) < 0) {
            c->closed = true;
            snprintf(c->why, sizeof c->why, "%s", e.text);
        }
    }
    if (!c->closed && !flush(c))
        c->closed = true;
    return !c->closed;
}

json_t *client_request(struct client *c, const char *op, json_t *args, int timeout_ms, struct err *e)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    long long end = (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000 + timeout_ms;
    json_decref(c->reply);
    c->reply = NULL;
    c->reply_id = client_send(c, op, args);
    if (c->reply_id < 0) {
        err_set(e, STATUS_USAGE, "the command with its arguments and variables is longer than a sandbox takes (%u MiB)", LINK_CTRL_MAX >> 20);
        return NULL;
    }
    while (!c->reply && !c->closed) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        long long left = end - ((long long)t.tv_sec * 1000 + t.tv_nsec / 1000000);
        struct pollfd p = {.fd = c->fd, .events = client_events(c)};
        if (left <= 0) {
            err_set(e, STATUS_TIMEOUT, "the sandbox did not answer in %d seconds", timeout_ms / 1000);
            return NULL;
        }
        if (poll(&p, 1, (int)left) > 0)
            client_ready(c, p.revents);
    }
    c->reply_id = 0;
    json_t *r = c->reply;
    c->reply = NULL;
    if (!r) {
        err_set(e, STATUS_FAILED, "the sandbox ended%s%s", c->why[0] ? ": " : "", c->why);
        return NULL;
    }
    if (!json_is_true(json_object_get(r, "ok"))) {
        const char *text = json_string_value(json_object_get(r, "error"));
        json_int_t status = json_integer_value(json_object_get(r, "status"));
        err_set(e, status > 0 && status < 256 ? (int)status : STATUS_FAILED, "%s", text ? text : "the sandbox refused");
        json_decref(r);
        return NULL;
    }
    return r;
}
