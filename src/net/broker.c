/* `sbx broker NAME`: the one process of a sandbox that may reach the network.  It parses nothing of the guest's
 * but the fixed requests of net/ask.h; it decides, resolves, vets, dials, writes the log, and hands the connected
 * descriptor to `sbx net`. */
#include "net/broker.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/confine.h"
#include "core/linkev.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/policy.h"
#include "net/addrclass.h"
#include "net/ask.h"
#include "net/dial.h"
#include "net/journal.h"

enum { FD_SUPERVISOR = 3, FD_NET = 4 };

#define FLOWS_MAX 640 /* what net may have open and pending, and a little */
#define ASKS_PER_WAKE 64
#define NOTE_MS 500
#define EXPIRY_MS 1000
#define OUTSIDE_MAX 32

struct flow {
    struct flow *next;
    struct broker *broker;
    uint32_t id;
    struct dial *dial; /* while it is being dialled */
    bool open;
    bool is_name;
    char host[264];    /* as the log shows it */
    uint8_t family, addr[16];
    uint16_t port;
    bool exact, mapped;
    char rule[RULE_TEXT_MAX + 32], dialled[48];
    const char *refused; /* why the address was refused, of the last one vetted */
};

struct broker {
    const char *sandbox;
    struct event_base *base;
    struct linkev *supervisor;
    struct dialer *dialer;
    struct journal *journal;
    struct policy *policy;
    json_t *map;
    struct rule outside[OUTSIDE_MAX];
    unsigned noutside;
    struct flow *flows;
    unsigned nflows;
    int watch_fd;
    struct event *net_ev, *watch_ev, *note_ev, *reload_ev, *expiry_ev;
    int64_t allowed, denied, failed, refused, bytes_up, bytes_down, noted;
    int64_t flow_base; /* makes flow numbers unique over restarts */
    struct log_rate bad_ask;
};

/* ---- settings and policy ---- */

static void load_settings(struct broker *b)
{
    struct err e = {0};
    json_t *config = config_load(&e), *item;
    size_t i;
    if (!config) {
        log_line("settings are unusable, none is in force: %s", e.text);
        return;
    }
    json_decref(b->map);
    b->map = json_incref(config_value(config, "net.map"));
    b->noutside = 0;
    json_array_foreach(config_value(config, "net.outside"), i, item) {
        struct rule r = {0};
        if (rule_parse(&r, json_string_value(item), &e) < 0 || r.kind != RULE_RANGE || b->noutside == OUTSIDE_MAX)
            log_line("net.outside: \"%s\" is not a usable range", json_string_value(item));
        else
            b->outside[b->noutside++] = r;
    }
    json_decref(config);
}

static void note_policy(struct broker *b)
{
    const char *error = policy_error(b->policy);
    json_t *m = json_pack("{s:s, s:b}", "op", "policy", "ok", !error);
    if (error) {
        json_t *text = json_string(error);
        json_object_set_new(m, "error", text ? text : json_string("unreadable"));
        struct decision_row row = {.kind = "policy", .proto = "other", .host = "", .verdict = "deny", .rule = "policy",
                                   .reason = "the policy cannot be read: everything is denied", .count = 1};
        journal_write(b->journal, &row);
        log_line("the policy cannot be read, everything is denied: %s", error);
    }
    link_send_ctrl(linkev_link(b->supervisor), m);
}

static void decide(struct broker *b, const struct flow *f, struct decision *d)
{
    int64_t now = time(NULL);
    if (f->is_name)
        policy_decide_name(b->policy, f->host, f->port, now, d);
    else
        policy_decide_addr(b->policy, f->family, f->addr, f->port, now, d);
}

static void send_answer(struct broker *b, const struct answer *a, int fd)
{
    struct iovec iov = {(void *)a, sizeof *a};
    union {
        struct cmsghdr h;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        memset(&control, 0, sizeof control);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &fd, sizeof fd);
    }
    ssize_t n;
    do { /* net always reads its answers: a full socket lasts a moment */
        n = sendmsg(FD_NET, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        event_base_loopbreak(b->base);
}

static void flow_free(struct flow *f)
{
    struct flow **p = &f->broker->flows;
    while (*p != f)
        p = &(*p)->next;
    *p = f->next;
    f->broker->nflows--;
    dial_cancel(f->dial);
    free(f);
}

/* A rule that changed, or ran out, holds for what is open as well. */
static void recheck(struct broker *b)
{
    for (struct flow *f = b->flows, *next; f; f = next) {
        struct decision d;
        next = f->next;
        if (!f->open)
            continue;
        decide(b, f, &d);
        if (d.allow)
            continue;
        struct answer a = {.id = f->id, .kind = ANSWER_CUT, .verdict = VERDICT_DENY};
        struct decision_row row = {.kind = "cut", .flow = b->flow_base + f->id, .proto = "tcp", .host = f->host,
                                   .port = f->port, .addr = f->dialled, .verdict = "deny", .rule = d.text,
                                   .reason = "denied by a change of the rules", .count = 1};
        journal_write(b->journal, &row);
        b->denied++;
        send_answer(b, &a, -1);
    }
}

static void on_reload(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    (void)fd;
    (void)what;
    struct policy *fresh = policy_load(b->sandbox);
    if (!fresh)
        return;
    bool was_broken = policy_error(b->policy) != NULL;
    policy_free(b->policy);
    b->policy = fresh;
    load_settings(b);
    if (was_broken || policy_error(fresh))
        note_policy(b);
    recheck(b);
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    char buf[4096] __attribute__((aligned(8)));
    bool ours = false;
    ssize_t n;
    (void)what;
    while ((n = read((int)fd, buf, sizeof buf)) > 0)
        for (char *p = buf; p < buf + n;) {
            struct inotify_event *ev = (struct inotify_event *)p;
            if ((ev->mask & IN_Q_OVERFLOW) ||
                (ev->len && (strcmp(ev->name, "policy.json") == 0 || strcmp(ev->name, "config.json") == 0)))
                ours = true;
            p += sizeof *ev + ev->len;
        }
    /* A moment, so that one edit is read once; well within the second that is promised. */
    struct timeval tv = {0, 50000};
    if (ours)
        evtimer_add(b->reload_ev, &tv);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    (void)fd;
    (void)what;
    size_t n;
    const struct rule *r = policy_rules(b->policy, &n);
    bool any = false;
    for (size_t i = 0; i < n && !any; i++)
        any = r[i].expires != 0;
    if (any && b->flows)
        recheck(b);
}

/* ---- notes to the supervisor ---- */

static void on_note(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    (void)fd;
    (void)what;
    b->noted = b->denied + b->refused;
    link_send_ctrl(linkev_link(b->supervisor), json_pack("{s:s, s:I}", "op", "blocked", "count", (json_int_t)b->noted));
}

static void count_denied(struct broker *b, int64_t *counter, int64_t by)
{
    struct timeval tv = {0, NOTE_MS * 1000};
    *counter += by;
    if (!evtimer_pending(b->note_ev, NULL))
        evtimer_add(b->note_ev, &tv);
}

/* ---- requests ---- */

static const char *proto_name(unsigned proto)
{
    static const char *const names[] = {"other", "tcp", "udp", "icmp", "dns", "other"};
    return names[proto <= PROTO_OTHER ? proto : 0];
}

/* A target as the log shows it; false if net sent what it must not. */
static bool read_target(const struct ask_target *t, struct flow *f)
{
    f->port = t->port;
    f->is_name = t->kind == TARGET_NAME;
    if (t->kind == TARGET_NAME) {
        if (t->name_len > ASK_NAME_MAX || t->name[t->name_len] != '\0' || !name_is_canonical(t->name, t->name_len))
            return false;
        snprintf(f->host, sizeof f->host, "%s", t->name);
        return true;
    }
    if (t->kind != TARGET_IP4 && t->kind != TARGET_IP6)
        return false;
    char text[INET6_ADDRSTRLEN];
    uint8_t unmapped[16];
    inet_ntop(t->kind == TARGET_IP4 ? AF_INET : AF_INET6, t->addr, text, sizeof text);
    f->family = rule_parse_addr(text, unmapped); /* an IPv4-mapped one becomes IPv4 */
    memcpy(f->addr, unmapped, sizeof f->addr);
    inet_ntop(f->family == 4 ? AF_INET : AF_INET6, f->addr, f->host, sizeof f->host);
    return f->family != 0;
}

static void refuse(struct broker *b, const struct flow *f, unsigned verdict, const char *rule, const char *reason,
                   int error)
{
    struct answer a = {.id = f->id, .kind = ANSWER_CONNECT, .verdict = (uint8_t)verdict, .error = error};
    bool denied = verdict == VERDICT_DENY;
    struct decision_row row = {.kind = denied ? "deny" : "fail", .proto = "tcp", .host = f->host, .port = f->port,
                               .addr = f->dialled, .verdict = denied ? "deny" : "fail", .rule = rule, .reason = reason,
                               .count = 1};
    snprintf(a.rule, sizeof a.rule, "%.*s", (int)sizeof a.rule - 1, rule);
    if (denied) {
        bool bare = f->port == 443 || f->port == 80;
        char host[272];
        snprintf(host, sizeof host, f->is_name || f->family == 4 ? "%.250s" : "[%.250s]",
                 f->is_name ? rule_alias(f->host) : f->host);
        int n = bare && f->is_name ? snprintf(a.hint, sizeof a.hint, "sbx policy allow network %s %s", b->sandbox, host)
                                   : snprintf(a.hint, sizeof a.hint, "sbx policy allow network %s %s:%u", b->sandbox, host, f->port);
        if (n < 0 || (size_t)n >= sizeof a.hint)
            a.hint[0] = '\0'; /* half a command is worse than none */
    }
    journal_refusal(b->journal, &row);
    count_denied(b, denied ? &b->denied : &b->failed, 1);
    send_answer(b, &a, -1);
}

static bool is_outside(const struct broker *b, uint8_t family, const uint8_t *addr, uint16_t port)
{
    for (unsigned i = 0; i < b->noutside; i++)
        if (rule_matches_addr(&b->outside[i], family, addr, port))
            return true;
    return false;
}

/* design.md section 6, step 3: only a rule that names this very host and port, or the address, opens what is not
 * global; metadata addresses stay shut. */
static bool vet(void *arg, uint8_t family, const uint8_t *addr, uint16_t port)
{
    struct flow *f = arg;
    struct broker *b = f->broker;
    struct decision d;
    if (f->mapped)
        return true; /* the user's own setting names this address */
    enum addr_class c = addr_classify(family, addr);
    if (c == ADDR_METADATA) {
        f->refused = addr_class_name(c);
        return false;
    }
    policy_decide_addr(b->policy, family, addr, port, time(NULL), &d);
    if (d.rule && d.rule->deny) {
        f->refused = "its address is denied by a rule";
        return false;
    }
    if (d.exact || f->exact || is_outside(b, family, addr, port))
        return true;
    if (c == ADDR_GLOBAL && addr_is_own(family, addr))
        c = ADDR_OWN;
    if (c == ADDR_GLOBAL)
        return true;
    f->refused = addr_class_name(c);
    return false;
}

static bool connecting(void *arg, const char *addr)
{
    struct flow *f = arg;
    struct broker *b = f->broker;
    snprintf(f->dialled, sizeof f->dialled, "%s", addr);
    struct decision_row row = {.kind = "open", .flow = b->flow_base + f->id, .proto = "tcp", .host = f->host,
                               .port = f->port, .addr = f->dialled, .verdict = "allow", .rule = f->rule,
                               .reason = f->mapped ? "dialled where net.map says" : "", .count = 1};
    /* Not written, not done: the log would not tell the truth. */
    return journal_write(b->journal, &row) == 0;
}

static void dialled(void *arg, int fd, int error)
{
    struct flow *f = arg;
    struct broker *b = f->broker;
    f->dial = NULL;
    if (fd >= 0) {
        struct answer a = {.id = f->id, .kind = ANSWER_CONNECT, .verdict = VERDICT_ALLOW};
        f->open = true;
        b->allowed++;
        send_answer(b, &a, fd);
        close(fd);
        return;
    }
    if (error == ENOENT) {
        refuse(b, f, VERDICT_NO_NAME, f->rule, "the name does not resolve on the host", error);
    } else if (error == EACCES) {
        char reason[96];
        snprintf(reason, sizeof reason, "address check: %s", f->refused ? f->refused : "refused");
        refuse(b, f, VERDICT_DENY, f->rule, reason, error);
    } else {
        char reason[96];
        snprintf(reason, sizeof reason, "cannot connect: %s", strerror(error));
        refuse(b, f, VERDICT_UNREACHABLE, f->rule, reason, error);
    }
    flow_free(f);
}

static const struct dial_ops dial_ops = {vet, connecting, dialled};

/* Where net.map sends this name and port, if it does; text becomes the host to dial. */
static bool mapped(const struct broker *b, const struct flow *f, char *host, size_t cap, uint16_t *port)
{
    char key[300];
    snprintf(key, sizeof key, "%s:%u", f->host, f->port);
    const char *v = json_string_value(json_object_get(b->map, key));
    if (!v)
        v = json_string_value(json_object_get(b->map, f->host));
    const char *colon = v ? strrchr(v, ':') : NULL;
    if (!colon)
        return false;
    const char *from = v;
    size_t n = (size_t)(colon - v);
    if (n >= 2 && v[0] == '[' && v[n - 1] == ']') {
        from++;
        n -= 2;
    }
    long p = strtol(colon + 1, NULL, 10);
    if (p < 1 || p > 65535 || n == 0 || n >= cap)
        return false;
    memcpy(host, from, n);
    host[n] = '\0';
    *port = (uint16_t)p;
    return true;
}

static struct flow *find(struct broker *b, uint32_t id)
{
    struct flow *f = b->flows;
    while (f && f->id != id)
        f = f->next;
    return f;
}

static void on_connect_ask(struct broker *b, const struct ask *ask)
{
    struct decision d;
    struct flow *f = b->nflows < FLOWS_MAX && !find(b, ask->id) ? calloc(1, sizeof *f) : NULL;
    if (!f) {
        log_rated(&b->bad_ask, 5, "connection %u: too many, or its number is in use", ask->id);
        struct answer a = {.id = ask->id, .kind = ANSWER_CONNECT, .verdict = VERDICT_UNREACHABLE, .error = EAGAIN};
        send_answer(b, &a, -1);
        return;
    }
    f->broker = b;
    f->id = ask->id;
    f->next = b->flows;
    b->flows = f;
    b->nflows++;
    if (!read_target(&ask->target, f) || f->port == 0) {
        log_rated(&b->bad_ask, 5, "a malformed request of net");
        snprintf(f->host, sizeof f->host, "(malformed)");
        refuse(b, f, VERDICT_DENY, "malformed request", "", EINVAL);
        flow_free(f);
        return;
    }
    decide(b, f, &d);
    snprintf(f->rule, sizeof f->rule, "%s", d.text);
    f->exact = d.exact;
    if (!d.allow) {
        refuse(b, f, VERDICT_DENY, f->rule, "", EACCES);
        flow_free(f);
        return;
    }
    char host[256];
    uint16_t port = f->port;
    snprintf(host, sizeof host, "%.255s", f->is_name ? rule_alias(f->host) : f->host);
    f->mapped = mapped(b, f, host, sizeof host, &port);
    f->dial = dial_start(b->dialer, host, port, &dial_ops, f);
    if (!f->dial) {
        refuse(b, f, VERDICT_UNREACHABLE, f->rule, "too many connections are being made", EAGAIN);
        flow_free(f);
    }
}

static void on_name_ask(struct broker *b, const struct ask *ask)
{
    struct flow f = {0};
    struct answer a = {.id = ask->id, .kind = ANSWER_NAME, .verdict = VERDICT_ALLOW};
    if (!read_target(&ask->target, &f) || !f.is_name) {
        a.verdict = VERDICT_DENY;
    } else if (policy_denies_all(b->policy, f.host, time(NULL))) {
        struct decision d;
        policy_decide_name(b->policy, f.host, 443, time(NULL), &d);
        struct decision_row row = {.kind = "deny", .proto = "dns", .host = f.host, .port = 53, .verdict = "deny",
                                   .rule = d.text, .reason = "", .count = 1};
        journal_refusal(b->journal, &row);
        count_denied(b, &b->denied, 1);
        a.verdict = VERDICT_DENY;
    }
    send_answer(b, &a, -1);
}

static void on_done(struct broker *b, const struct ask *ask)
{
    struct flow *f = find(b, ask->id);
    if (!f || !f->open)
        return;
    struct decision_row row = {.kind = "close", .flow = b->flow_base + f->id, .proto = "tcp", .host = f->host,
                               .port = f->port, .addr = f->dialled, .verdict = "allow", .rule = f->rule,
                               .bytes_up = (int64_t)(ask->bytes_up & INT64_MAX),
                               .bytes_down = (int64_t)(ask->bytes_down & INT64_MAX), .duration_ms = ask->duration_ms,
                               .count = 0};
    b->bytes_up += row.bytes_up;
    b->bytes_down += row.bytes_down;
    journal_write(b->journal, &row);
    flow_free(f);
}

static void on_refused(struct broker *b, const struct ask *ask)
{
    struct flow f = {0};
    if (!read_target(&ask->target, &f))
        return;
    struct decision_row row = {.kind = "refused", .proto = proto_name(ask->proto), .host = f.host, .port = f.port,
                               .verdict = "deny", .rule = "no UDP, no ICMP", .reason = "only TCP leaves, by name",
                               .count = ask->count ? ask->count : 1};
    journal_refusal(b->journal, &row);
    count_denied(b, &b->refused, row.count);
}

static void on_ask(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    (void)what;
    for (int i = 0; i < ASKS_PER_WAKE; i++) {
        struct ask ask;
        ssize_t n = recv((int)fd, &ask, sizeof ask, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            event_base_loopbreak(b->base);
            return;
        }
        if (n != (ssize_t)sizeof ask) {
            log_rated(&b->bad_ask, 5, "a request of %zd bytes from net", n);
            continue;
        }
        struct flow *f;
        switch (ask.kind) {
        case ASK_CONNECT:
            on_connect_ask(b, &ask);
            break;
        case ASK_NAME:
            on_name_ask(b, &ask);
            break;
        case ASK_DONE:
            on_done(b, &ask);
            break;
        case ASK_REFUSED:
            on_refused(b, &ask);
            break;
        case ASK_CANCEL:
            f = find(b, ask.id);
            if (f && !f->open)
                flow_free(f);
            break;
        default:
            log_rated(&b->bad_ask, 5, "an unknown request (%u) from net", ask.kind);
        }
    }
}

static void on_ctrl(struct linkev *c, json_t *msg, void *arg)
{
    struct broker *b = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    if (!op || strcmp(op, "stats") != 0)
        return;
    link_send_ctrl(linkev_link(c),
                   json_pack("{s:s, s:O, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "op", "reply", "id",
                             json_object_get(msg, "id"), "ok", 1, "allowed", (json_int_t)b->allowed, "denied",
                             (json_int_t)b->denied, "failed", (json_int_t)b->failed, "refused", (json_int_t)b->refused,
                             "bytes_up", (json_int_t)b->bytes_up, "bytes_down", (json_int_t)b->bytes_down, "open",
                             (int)b->nflows));
}

static void on_supervisor_closed(struct linkev *c, const char *why, void *arg)
{
    (void)c;
    (void)why;
    event_base_loopbreak(((struct broker *)arg)->base);
}

static int start(struct broker *b, struct err *e)
{
    static const struct linkev_ops link_ops = {.ctrl = on_ctrl, .closed = on_supervisor_closed};
    char *log = path_sandbox(b->sandbox, "log.db", e);
    char *own = log ? path_sandbox(b->sandbox, NULL, e) : NULL;
    char *config = own ? path_in(PATH_CONFIG, e, "%s", "") : NULL;
    char *assets = config ? path_asset("policies", e) : NULL;
    int rc = -1;
    if (!assets)
        goto out;
    b->base = event_base_new();
    b->journal = b->base ? journal_new(b->base, log, e) : NULL;
    if (!b->journal)
        goto out;
    b->dialer = dialer_new(b->base);
    b->supervisor = linkev_new(b->base, FD_SUPERVISOR, &link_ops, b);
    b->policy = policy_load(b->sandbox);
    b->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (!b->dialer || !b->supervisor || !b->policy || b->watch_fd < 0) {
        err_set(e, STATUS_FAILED, "cannot start the broker: out of resources");
        goto out;
    }
    load_settings(b);
    inotify_add_watch(b->watch_fd, config, IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE);
    inotify_add_watch(b->watch_fd, own, IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE);
    evutil_make_socket_nonblocking(b->watch_fd);
    b->net_ev = event_new(b->base, FD_NET, EV_READ | EV_PERSIST, on_ask, b);
    b->watch_ev = event_new(b->base, b->watch_fd, EV_READ | EV_PERSIST, on_watch, b);
    b->note_ev = evtimer_new(b->base, on_note, b);
    b->reload_ev = evtimer_new(b->base, on_reload, b);
    b->expiry_ev = event_new(b->base, -1, EV_PERSIST, on_expiry, b);
    struct timeval tv = {EXPIRY_MS / 1000, 0};
    event_add(b->net_ev, NULL);
    event_add(b->watch_ev, NULL);
    event_add(b->expiry_ev, &tv);
    /* The resolver reads its own configuration and modules whenever it likes; dialling needs sockets. */
    const struct confine_path paths[] = {
        {.path = own, .access = CONFINE_READ | CONFINE_WRITE}, {.path = config, .access = CONFINE_READ},
        {.path = assets, .access = CONFINE_READ},              {.path = "/etc", .access = CONFINE_READ},
        {.path = "/usr", .access = CONFINE_READ | CONFINE_EXEC}, {.path = "/lib", .access = CONFINE_READ | CONFINE_EXEC},
        {.path = "/lib64", .access = CONFINE_READ | CONFINE_EXEC}, {.path = "/run", .access = CONFINE_READ | CONFINE_WRITE},
        {.path = "/var/lib/sss", .access = CONFINE_READ},      {.path = "/dev/null", .access = CONFINE_READ | CONFINE_WRITE},
        {.path = "/dev/urandom", .access = CONFINE_READ},
    };
    const struct confine c = {.groups = CONFINE_IO | CONFINE_FILES | CONFINE_SOCKETS | CONFINE_THREADS, .paths = paths,
                              .npaths = sizeof paths / sizeof *paths, .files_max = FLOWS_MAX + 256};
    rc = confine_self(&c, e);
out:
    free(assets);
    free(config);
    free(own);
    free(log);
    return rc;
}

int broker_main(int argc, char **argv)
{
    struct broker b = {.watch_fd = -1};
    struct err e = {0};
    log_init("broker");
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2)
        return STATUS_USAGE;
    b.sandbox = argv[1];
    b.flow_base = (int64_t)time(NULL) << 32;
    if (start(&b, &e) < 0) {
        log_line("%s", e.text);
        return STATUS_FAILED;
    }
    link_send_ctrl(linkev_link(b.supervisor), json_pack("{s:s, s:s, s:i}", "op", "hello", "role", "broker", "version", 1));
    if (policy_error(b.policy))
        note_policy(&b);
    event_base_dispatch(b.base);
    journal_free(b.journal); /* the counts that wait become rows */
    linkev_flush(b.supervisor, 100);
    return STATUS_OK;
}
