/* sbx ports, --publish: what of a sandbox is reached from this host. */
#include "ui/cli/ports.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ui/cli/sandbox.h"
#include "ui/client.h"

struct spec {
    char address[48];
    int host, guest;
};

static bool number(const char *text, size_t n, int *out)
{
    char copy[8];
    if (n == 0 || n > 5 || strspn(text, "0123456789") < n)
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    *out = atoi(copy);
    return *out <= 65535;
}

/* [ADDRESS:]HOST:GUEST, or GUEST alone for a free port of this host. */
static int parse(const char *text, struct spec *s, struct err *e)
{
    const char *last = strrchr(text, ':'), *first = last;
    unsigned char any[16];
    *s = (struct spec){.address = "127.0.0.1"};
    if (!last) {
        if (number(text, strlen(text), &s->guest) && s->guest)
            return 0;
        goto bad;
    }
    while (first > text && first[-1] != ':')
        first--;
    if (!number(first, (size_t)(last - first), &s->host) || !number(last + 1, strlen(last + 1), &s->guest) || !s->guest)
        goto bad;
    if (first > text) {
        size_t n = (size_t)(first - 1 - text);
        const char *from = text;
        if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
            from++;
            n -= 2;
        }
        if (n == 0 || n >= sizeof s->address)
            goto bad;
        memcpy(s->address, from, n);
        s->address[n] = '\0';
        if (strcmp(s->address, "localhost") == 0)
            strcpy(s->address, "127.0.0.1");
        if (inet_pton(AF_INET, s->address, any) != 1 && inet_pton(AF_INET6, s->address, any) != 1)
            goto bad;
    }
    return 0;
bad:
    return err_set(e, STATUS_USAGE, "\"%s\" is no port to publish; write HOST:SANDBOX like 8080:3000, 3000 for a free port of this host, or "
                   "ADDRESS:HOST:SANDBOX", text);
}

static int free_port(const char *address)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), port = 0;
    if (inet_pton(AF_INET, address, &at.sin_addr) == 1 && fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
        getsockname(fd, (struct sockaddr *)&at, &len) == 0)
        port = ntohs(at.sin_port);
    if (fd >= 0)
        close(fd);
    return port;
}

static bool same(const json_t *o, const struct spec *s)
{
    const char *address = json_string_value(json_object_get(o, "address"));
    return json_integer_value(json_object_get(o, "guest")) == s->guest && (!s->host || json_integer_value(json_object_get(o, "host")) == s->host) &&
           strcmp(address ? address : "127.0.0.1", s->address) == 0;
}

int ports_add(json_t *list, const char *text, bool running, struct err *e)
{
    struct spec s;
    size_t i;
    json_t *o;
    if (parse(text, &s, e) < 0)
        return -1;
    json_array_foreach(list, i, o)
        if (s.host && json_integer_value(json_object_get(o, "host")) == s.host)
            return err_set(e, STATUS_USAGE, "port %d of this host is published already; --unpublish takes it back", s.host);
    if (!s.host && !running && !(s.host = free_port(s.address)))
        return err_set(e, STATUS_FAILED, "no free port could be found on %s", s.address);
    json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "address", s.address, "host", s.host, "guest", s.guest));
    return 0;
}

static int take_away(json_t *list, const char *text, struct err *e)
{
    struct spec s;
    size_t i;
    json_t *o;
    if (parse(text, &s, e) < 0)
        return -1;
    json_array_foreach(list, i, o)
        if (same(o, &s)) {
            json_array_remove(list, i);
            return 0;
        }
    return err_set(e, STATUS_NOT_FOUND, "%s is not published", text);
}

static void show(const char *name, const json_t *list, bool json)
{
    static const char *const headers[] = {"HOST", "SANDBOX"};
    size_t i;
    json_t *o;
    if (json) {
        out_json(list);
        return;
    }
    if (json_array_size(list) == 0) {
        fprintf(stderr, "%s publishes no port. For example: sbx ports %s --publish 8080:3000\n", name, name);
        return;
    }
    struct table *t = table_new(2, headers);
    json_array_foreach((json_t *)list, i, o) {
        char host[80], guest[16];
        const char *address = json_string_value(json_object_get(o, "address"));
        bool six = address && strchr(address, ':');
        snprintf(host, sizeof host, "%s%s%s:%lld", six ? "[" : "", address ? address : "127.0.0.1", six ? "]" : "",
                 (long long)json_integer_value(json_object_get(o, "host")));
        snprintf(guest, sizeof guest, "%lld", (long long)json_integer_value(json_object_get(o, "guest")));
        const char *cells[] = {host, guest};
        table_row(t, cells);
    }
    table_print(t, "");
}

/* A running sandbox takes them at once, or none of them. */
static json_t *tell(const char *name, json_t *list, struct err *e)
{
    struct client c;
    if (client_open(&c, name, e) < 0)
        return NULL;
    json_t *reply = client_request(&c, "ports", json_pack("{s:O}", "publish", list), 10000, e);
    json_t *made = reply ? json_incref(json_object_get(reply, "publish")) : NULL;
    json_decref(reply);
    client_close(&c);
    return made;
}

int cmd_ports(const struct args *a, struct err *e)
{
    const char *name = a->words[0], *text;
    struct record r;
    if (record_load(&r, name, e) < 0)
        return -1;
    json_t *list = r.publish ? json_deep_copy(r.publish) : json_array();
    bool running = sandbox_running(name), changed = false;
    int rc = 0;
    for (int i = 0; rc == 0 && (text = args_nth(a, "unpublish", i)); i++, changed = true)
        rc = take_away(list, text, e);
    for (int i = 0; rc == 0 && (text = args_nth(a, "publish", i)); i++, changed = true)
        rc = ports_add(list, text, running, e);
    if (rc == 0 && changed && running) {
        json_t *made = tell(name, list, e);
        json_decref(list);
        list = made;
        rc = made ? 0 : -1;
    }
    if (rc == 0 && changed) {
        json_decref(r.publish);
        r.publish = json_incref(list);
        rc = record_save(&r, e);
    }
    if (rc == 0)
        show(name, list, args_has(a, "json"));
    json_decref(list);
    record_finish(&r);
    return rc;
}
