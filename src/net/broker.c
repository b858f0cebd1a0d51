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
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "core/addrclass.h"
#include "core/config.h"
#include "core/confine.h"
#include "core/linkev.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/policy.h"
#include "core/proxyurl.h"
#include "core/sanitize.h"
#include "core/secretstore.h"
#include "net/ask.h"
#include "net/broker_ask.h"
#include "net/broker_secret.h"
#include "net/broker_tls.h"
#include "net/dial.h"
#include "net/journal.h"

enum { FD_SUPERVISOR = 3, FD_NET = 4, FD_MINT = 5 };
#define MINT_PIPE_MAX 60000u /* of the 64 KiB that a pipe holds */

#define FLOWS_MAX (512 + DIAL_PENDING_MAX) /* open and pending (threat 79) */
#define ASKS_PER_WAKE 64
#define NOTE_MS 500
#define EXPIRY_MAX_S 5  /* the clock may be set, or the machine have slept */
#define SEND_TIMEOUT_S 5 /* net always reads its answers; one that does not has been broken into */
#define OUTSIDE_MAX 32
#define LED_MAX 3
#define REFUSED_KEPT 64 /* names of refused connections that net may answer readably */

struct flow {
    struct flow *next;
    struct broker *broker;
    uint32_t id;
    int64_t number;    /* joins its rows in the log */
    struct dial *dial; /* while it is being dialled */
    int fd;            /* while it is open: a copy of what net got, so that a cut does not depend on net */
    bool logged;       /* it has an "open" row, so it must get a "close" or "fail" row */
    bool cut;
    bool is_name;
    char host[264];    /* as the log shows it */
    uint8_t family, addr[16];
    uint16_t port;
    bool exact, mapped;
    bool tunnelled;    /* through the proxy; peer is then what it was asked for, of family 0 for a name */
    bool intercept;    /* each of its requests is judged */
    uint16_t dial_port;
    uint8_t peer_family, peer[16]; /* once it is open */
    char rule[RULE_TEXT_MAX + 32], dialled[48];
    const char *refused; /* why the address was refused, of the last one vetted */
    bool shut;           /* ... and no rule for the host would open it */
    char mint[64];       /* the service whose tokens an answer on it gives out */
    char lends[64];      /* the service whose secret buys short-lived tokens on it */
    bool held;           /* somebody is asked */
    bool granted, granted_exact; /* let through by an answer, or once: only a rule that denies ends it */
};

/* A request of an intercepted connection between its decision and its answer. */
struct judged {
    struct ask_request ask;
    struct answer answer;
    bool allow;
    enum broker_sign_in sign_in;
    unsigned index;
    const char *signs;
};

struct broker {
    struct judged *judged; /* ASKS_PER_WAKE of them */
    unsigned njudged;
    const struct answer *ready[ASKS_PER_WAKE]; /* answers to these, that leave together */
    unsigned nready;
    const char *sandbox;
    struct event_base *base;
    struct linkev *supervisor;
    struct dialer *dialer;
    struct journal *journal;
    struct policy *policy;
    json_t *map;
    struct rule outside[OUTSIDE_MAX];
    unsigned noutside;
    struct rule direct[OUTSIDE_MAX]; /* not through the proxy */
    unsigned ndirect;
    char proxy_text[280];            /* its host and port, as the log names it; "": none */
    struct flow *flows;
    unsigned nflows, nopen;
    int watch_fd;
    struct event *net_ev, *watch_ev, *note_ev, *reload_ev, *expiry_ev;
    int64_t allowed, denied, failed, refused, bytes_up, bytes_down, noted;
    int64_t last_flow; /* begins with the time, so that numbers are unique over restarts */
    struct log_rate bad_ask;
    struct broker_tls *tls;
    struct broker_secrets *secrets;
    struct asks *asks;
    struct event *secrets_ev;
    /* Where settings and rules lie that are links, as to files that a user keeps together elsewhere. */
    struct {
        char dir[4096], file[4096];
        const char *name, *reach; /* what stays readable: the folder, for a file that is replaced; if that is not the home */
    } led[LED_MAX];
    unsigned nled;
    int mint_fd; /* to `sbx secret take`, or -1 */
    struct {
        uint32_t id;
        char name[256];
    } refusals[REFUSED_KEPT]; /* ring */
    unsigned last_refusal;
};

/* ---- settings and policy ---- */

static unsigned read_rules(const json_t *list, const char *setting, bool names, struct rule *out)
{
    struct err e = {0};
    json_t *item;
    size_t i;
    unsigned n = 0;
    json_array_foreach(list, i, item) {
        struct rule r = {0};
        if (rule_parse(&r, json_string_value(item), &e) < 0 || (r.kind != RULE_RANGE && !names) || n == OUTSIDE_MAX)
            log_line("%s: \"%s\" is not usable", setting, json_string_value(item));
        else
            out[n++] = r;
    }
    return n;
}

/* The proxy and its login: of the URL, else of the secret store. */
static void load_proxy(struct broker *b, const json_t *config)
{
    struct dial_proxy p = {.names = json_is_true(config_value(config, "net.proxy_names"))};
    struct proxy_url url;
    struct err e = {0};
    const char *text = json_string_value(config_value(config, "net.proxy"));
    b->ndirect = read_rules(config_value(config, "net.proxy_except"), "net.proxy_except", true, b->direct);
    if (!text || !text[0] || proxy_url_parse(text, &url, &e) < 0) {
        b->proxy_text[0] = '\0';
        dialer_set_proxy(b->dialer, NULL);
        return;
    }
    const char *login = url.login[0] ? url.login : broker_secrets_value(b->secrets, "proxy");
    snprintf(b->proxy_text, sizeof b->proxy_text, "%s:%u", url.host, url.port);
    snprintf(p.host, sizeof p.host, "%s", url.host);
    p.port = url.port;
    size_t n = login ? strlen(login) : 0, cap = sodium_base64_encoded_len(n, sodium_base64_VARIANT_ORIGINAL);
    if (n && (p.authorization = malloc(sizeof "Basic " + cap))) {
        strcpy(p.authorization, "Basic ");
        sodium_bin2base64(p.authorization + 6, cap, (const unsigned char *)login, n, sodium_base64_VARIANT_ORIGINAL);
    }
    sodium_memzero(&url, sizeof url);
    dialer_set_proxy(b->dialer, &p);
}

static void load_settings(struct broker *b)
{
    struct err e = {0};
    json_t *config = config_load(&e);
    if (!config) {
        log_line("settings are unusable, those in force stay: %s", e.text);
        return;
    }
    json_decref(b->map);
    b->map = json_incref(config_value(config, "net.map"));
    b->noutside = read_rules(config_value(config, "net.outside"), "net.outside", false, b->outside);
    load_proxy(b, config);
    asks_set_limit(b->asks, (int)json_integer_value(config_value(config, "net.ask_seconds")));
    journal_set_limits(b->journal, json_integer_value(config_value(config, "net.log_rows")),
                       (int)json_integer_value(config_value(config, "net.log_days")));
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
                                   .reason = error, .count = 1};
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
    if (f->granted && !d->allow && !(d->rule && d->rule->deny) && !policy_error(b->policy)) {
        d->allow = true;
        d->exact = f->granted_exact;
    }
}

static void ask_for(const struct flow *f, struct ask_for *out)
{
    memset(out, 0, sizeof *out);
    out->is_name = f->is_name;
    out->family = f->family;
    out->port = f->port;
    memcpy(out->addr, f->addr, sizeof out->addr);
    memcpy(out->host, f->host, sizeof out->host);
    out->where = "";
    if (f->is_name && strcmp(rule_alias(f->host), "localhost") == 0) {
        out->where = "a service of this computer";
    } else if (!f->is_name) {
        enum addr_class c = addr_is_own(f->family, f->addr) ? ADDR_OWN : addr_classify(f->family, f->addr);
        out->where = c == ADDR_GLOBAL ? "" : addr_class_name(c);
    }
}

/* Answers without a descriptor that became ready together: net wakes once for them. */
static void send_ready(struct broker *b)
{
    struct mmsghdr m[ASKS_PER_WAKE];
    struct iovec iov[ASKS_PER_WAKE];
    unsigned n = b->nready, done = 0;
    for (unsigned i = 0; i < n; i++) {
        iov[i] = (struct iovec){(void *)b->ready[i], sizeof *b->ready[i]};
        m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
    }
    b->nready = 0;
    while (done < n) { /* net always reads its answers: a full socket lasts a moment */
        int sent = sendmmsg(FD_NET, m + done, n - done, MSG_NOSIGNAL);
        if (sent > 0)
            done += (unsigned)sent;
        else if (errno != EINTR) {
            event_base_loopbreak(b->base);
            return;
        }
    }
}

static void send_packet(struct broker *b, const void *packet, size_t len, int fd)
{
    send_ready(b); /* none overtakes another */
    struct iovec iov = {(void *)packet, len};
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

static void send_answer(struct broker *b, const struct answer *a, int fd)
{
    send_packet(b, a, sizeof *a, fd);
}

static void flow_free(struct flow *f)
{
    struct flow **p = &f->broker->flows;
    while (*p != f)
        p = &(*p)->next;
    *p = f->next;
    f->broker->nflows--;
    f->broker->nopen -= f->fd >= 0;
    if (f->held)
        asks_forget(f->broker->asks, f);
    dial_cancel(f->dial);
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}

static void refuse(struct broker *b, struct flow *f, unsigned verdict, const char *rule, const char *reason,
                   const char *hint, int error);
static bool vet(void *arg, uint8_t family, const uint8_t *addr, uint16_t port);
static void hint_for(const struct broker *b, const struct flow *f, const struct decision *d, char *out, size_t cap);

static void dial(struct broker *b, struct flow *f);

static const char needs_http[] = "the rule speaks of methods or paths, which only intercepted HTTP can be held to";

/* Shuts the connection here: net, which may have been broken into, is only told. */
static void cut(struct broker *b, struct flow *f, const char *rule, const char *method, const char *path)
{
    struct answer a = {.id = f->id, .kind = ANSWER_CUT, .verdict = VERDICT_DENY};
    struct decision_row row = {.kind = "cut", .flow = f->number, .proto = "tcp", .host = f->host, .port = f->port,
                               .addr = f->dialled, .method = method, .path = path, .verdict = "deny", .rule = rule,
                               .reason = "denied by a change of the rules", .count = 1};
    f->cut = true;
    shutdown(f->fd, SHUT_RDWR);
    journal_write(b->journal, &row);
    b->denied++;
    send_answer(b, &a, -1);
}

static bool still_unknown(const struct ask_for *a, void *arg)
{
    struct broker *b = arg;
    struct decision d;
    if (a->is_name)
        policy_decide_name(b->policy, a->host, a->port, time(NULL), &d);
    else
        policy_decide_addr(b->policy, a->family, a->addr, a->port, time(NULL), &d);
    return !d.allow && !d.rule && policy_asks(b->policy);
}

/* A rule that changed, or ran out, holds for what is open and for what is being dialled as well. */
static void recheck(struct broker *b)
{
    for (struct flow *f = b->flows, *next; f; f = next) {
        struct decision d;
        next = f->next;
        decide(b, f, &d);
        if (f->held) {
            /* A rule answers as well; and without one the question stands. */
            if (!d.allow && !(d.rule && d.rule->deny) && policy_asks(b->policy))
                continue;
            asks_forget(b->asks, f);
            f->held = false;
            if (d.allow && (!d.http || f->is_name)) {
                snprintf(f->rule, sizeof f->rule, "%s", d.text);
                f->intercept = d.http || (f->is_name && broker_secrets_wants(b->secrets, f->host, f->port));
                f->exact = d.exact;
                dial(b, f);
                continue;
            }
        }
        f->exact = d.exact;
        /* What was relayed cannot be judged by its requests any more. */
        bool http = d.http || (f->is_name && broker_secrets_wants(b->secrets, f->host, f->port));
        bool allowed = d.allow && (!http || f->intercept || f->dial);
        if (f->fd >= 0) {
            if (!f->cut && (!allowed || (f->peer_family && !vet(f, f->peer_family, f->peer, f->dial_port)))) {
                cut(b, f, allowed ? f->rule : d.text, "", "");
            } else if (!f->cut && d.http) { /* each of its requests as well, which net knows */
                struct answer a = {.id = f->id, .kind = ANSWER_REVIEW};
                send_answer(b, &a, -1);
            }
        } else if (!allowed || (f->dial && d.http && !f->intercept)) {
            char hint[192];
            hint_for(b, f, &d, hint, sizeof hint);
            refuse(b, f, VERDICT_DENY, d.text, d.http ? needs_http : "denied by a change of the rules", hint, EACCES);
            flow_free(f);
        }
    }
    asks_review(b->asks, still_unknown, b);
}

static void arm_expiry(struct broker *b)
{
    int64_t now = time(NULL), next = policy_next_expiry(b->policy, now);
    if (!next) {
        evtimer_del(b->expiry_ev);
        return;
    }
    struct timeval tv = {next - now > EXPIRY_MAX_S ? EXPIRY_MAX_S : next - now, 20000};
    evtimer_add(b->expiry_ev, &tv);
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
    arm_expiry(b);
}

/* What the guest holds instead of secrets, so that net knows it when it sees it. */
static void tell_sentinels(struct broker *b)
{
    struct answer_sentinel a;
    unsigned i = 0;
    do {
        broker_secrets_sentinel(b->secrets, i, &a);
        send_packet(b, &a, sizeof a, -1);
    } while (!a.none && ++i < SENTINELS_MAX && broker_secrets_sentinel(b->secrets, i, &a));
    explicit_bzero(&a, sizeof a);
}

static void tell_secrets(struct broker *b, const char *error)
{
    link_send_ctrl(linkev_link(b->supervisor), json_pack("{s:s, s:b, s:s, s:o, s:I}", "op", "secrets", "ok", error[0] == '\0', "error", error,
                                                             "env", broker_secrets_env(b->secrets), "renew",
                                                             (json_int_t)broker_secrets_renew(b->secrets)));
    tell_sentinels(b);
}

static void load_secrets(struct broker *b)
{
    struct err e = {0};
    bool bad = broker_secrets_load(b->secrets, &e) < 0;
    if (bad) {
        struct answer_sentinel any;
        if (broker_secrets_sentinel(b->secrets, 0, &any))
            err_wrap(&e, "what is held of the secrets stays in force");
        struct decision_row row = {.kind = "policy", .proto = "other", .host = "", .verdict = "deny", .rule = "secrets",
                                   .reason = e.text, .count = 1};
        journal_write(b->journal, &row);
        log_line("secrets are not to be had: %s", e.text);
    }
    load_settings(b); /* the proxy's login may be another */
    tell_secrets(b, bad ? e.text[0] ? e.text : "the secrets cannot be read" : "");
}

static void on_secrets(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    (void)fd;
    (void)what;
    load_secrets(b);
    recheck(b);
}

static void on_log_trouble(const char *text, bool lost, void *arg)
{
    struct broker *b = arg;
    link_send_ctrl(linkev_link(b->supervisor), json_pack("{s:s, s:b, s:b, s:s}", "op", "log", "ok", !text || lost, "lost", lost, "text", text ? text : ""));
}

static bool is_ours(const struct broker *b, const char *name)
{
    bool ours = strcmp(name, "policy.json") == 0 || strcmp(name, "config.json") == 0;
    for (unsigned i = 0; i < b->nled; i++)
        ours = ours || strcmp(name, b->led[i].name) == 0;
    return ours;
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    char buf[4096] __attribute__((aligned(8)));
    bool ours = false, secrets = false, log = false;
    ssize_t n;
    (void)what;
    while ((n = read((int)fd, buf, sizeof buf)) > 0)
        for (char *p = buf; p < buf + n;) {
            struct inotify_event *ev = (struct inotify_event *)p;
            if ((ev->mask & IN_Q_OVERFLOW) ||
                (ev->len && is_ours(b, ev->name)))
                ours = true;
            if ((ev->mask & IN_Q_OVERFLOW) || (ev->len && strcmp(ev->name, "store.json") == 0))
                secrets = true;
            if ((ev->mask & IN_Q_OVERFLOW) || (ev->len && strncmp(ev->name, "log.db", 6) == 0))
                log = true;
            p += sizeof *ev + ev->len;
        }
    /* A moment, so that one edit is read once; well within the second that is promised. */
    struct timeval tv = {0, 50000};
    if (ours)
        evtimer_add(b->reload_ev, &tv);
    if (secrets)
        evtimer_add(b->secrets_ev, &tv);
    if (log)
        journal_check(b->journal);
}

static void on_expiry(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    (void)fd;
    (void)what;
    recheck(b);
    arm_expiry(b);
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

static int take_back(const struct broker *b, const struct rule *r, char *which, size_t room, char *out, size_t cap)
{
    policy_handle(which, room, r);
    return r->origin == RULE_PRESET ? 0 : snprintf(out, cap, "sbx policy rm %s %s", r->origin == RULE_GLOBAL ? "-g" : b->sandbox, which);
}

/* The command that would allow it; empty if none would, or if it does not fit: half a command is worse than none. */
static void hint_for(const struct broker *b, const struct flow *f, const struct decision *d, char *out, size_t cap)
{
    const char *host = f->is_name ? rule_alias(f->host) : f->host;
    bool any_port = f->is_name && !d->allow && (f->port == 443 || f->port == 80) && strcmp(host, "localhost") != 0;
    bool brackets = !f->is_name && f->family == 6;
    char which[RULE_TEXT_MAX + 2];
    int n;
    if (policy_error(b->policy))
        n = snprintf(out, cap, "sbx policy ls");
    else if (d->http)
        n = 0;
    else if (d->rule && d->rule->deny)
        n = take_back(b, d->rule, which, sizeof which, out, cap);
    else if (any_port)
        n = snprintf(out, cap, "sbx policy allow network %s %s", b->sandbox, host);
    else
        n = snprintf(out, cap, "sbx policy allow network %s %s%s%s:%u", b->sandbox, brackets ? "[" : "", host,
                     brackets ? "]" : "", f->port);
    if (n <= 0 || (size_t)n >= cap)
        out[0] = '\0';
}

/* The same for one request: the narrowest rule that would let it pass. */
static void request_hint(const struct broker *b, const struct flow *f, const struct ask_request *ask,
                         const struct decision *d, char *out, size_t cap)
{
    char which[RULE_TEXT_MAX + 2];
    int n;
    if (policy_error(b->policy))
        n = snprintf(out, cap, "sbx policy ls");
    else if (d->rule && d->rule->deny)
        n = take_back(b, d->rule, which, sizeof which, out, cap);
    else
        n = snprintf(out, cap, "sbx policy allow network %s '%s %s%s'", b->sandbox, ask->method, f->host,
                     strcspn(ask->path, "'\\") == ask->path_len ? ask->path : "");
    if (n <= 0 || (size_t)n >= cap)
        out[0] = '\0';
}

static void refuse(struct broker *b, struct flow *f, unsigned verdict, const char *rule, const char *reason,
                   const char *hint, int error)
{
    struct answer a = {.id = f->id, .kind = ANSWER_CONNECT, .verdict = (uint8_t)verdict, .error = error};
    bool denied = verdict == VERDICT_DENY;
    struct decision_row row = {.kind = denied ? "deny" : "fail", .flow = f->number, .proto = "tcp", .host = f->host,
                               .port = f->port, .addr = f->dialled, .verdict = denied ? "deny" : "fail", .rule = rule,
                               .reason = reason, .count = 1};
    snprintf(a.rule, sizeof a.rule, "%.*s", (int)sizeof a.rule - 1, rule);
    snprintf(a.hint, sizeof a.hint, "%.*s", (int)sizeof a.hint - 1, hint);
    if (denied && f->is_name && f->port == 443) {
        unsigned i = b->last_refusal++ % REFUSED_KEPT;
        b->refusals[i].id = f->id;
        snprintf(b->refusals[i].name, sizeof b->refusals[i].name, "%.255s", f->host);
        a.flags = ANSWER_INTERCEPT;
    }
    if (f->logged) {
        f->logged = false;
        journal_write(b->journal, &row);
    } else {
        row.flow = 0;
        journal_refusal(b->journal, &row);
    }
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
    enum addr_class c = addr_classify(family, addr);
    f->shut = c == ADDR_METADATA;
    if (f->shut) {
        f->refused = addr_class_name(c);
        return false;
    }
    if (f->mapped)
        return true; /* the user's own setting names this address */
    policy_decide_addr(b->policy, family, addr, port, time(NULL), &d);
    if (d.rule && d.rule->deny) {
        f->shut = true;
        f->refused = "its address is denied by a rule";
        return false;
    }
    if (d.exact || f->exact)
        return true;
    if (addr_is_own(family, addr) && c != ADDR_LOOPBACK)
        c = ADDR_OWN;
    else if (c == ADDR_GLOBAL || is_outside(b, family, addr, port))
        return true;
    f->refused = addr_class_name(c);
    return false;
}

static bool direct(void *arg, uint8_t family, const uint8_t *addr, uint16_t port)
{
    const struct flow *f = arg;
    const struct broker *b = f->broker;
    for (unsigned i = 0; i < b->ndirect; i++)
        if (rule_matches_addr(&b->direct[i], family, addr, port))
            return true;
    return addr_is_own(family, addr);
}

static void tunnels(void *arg, uint8_t family, const uint8_t *addr)
{
    struct flow *f = arg;
    f->tunnelled = true;
    f->peer_family = family;
    memcpy(f->peer, addr, sizeof f->peer);
}

static bool connecting(void *arg, const char *addr)
{
    struct flow *f = arg;
    struct broker *b = f->broker;
    char how[400] = "";
    snprintf(f->dialled, sizeof f->dialled, "%s", addr);
    if (f->tunnelled)
        snprintf(how, sizeof how, "through the proxy %s%s", b->proxy_text, f->peer_family ? "" : ", which got the name");
    else if (f->mapped)
        snprintf(how, sizeof how, "dialled where net.map says");
    struct decision_row row = {.kind = "open", .flow = f->number, .proto = "tcp", .host = f->host,
                               .port = f->port, .addr = f->dialled, .verdict = "allow", .rule = f->rule,
                               .reason = how, .count = 1};
    /* Not written, not done: the log would not tell the truth. */
    f->logged = journal_write(b->journal, &row) == 0;
    return f->logged;
}

/* What we are connected to is what was vetted, or it is nothing (threat 1). */
static bool check_peer(struct flow *f, int fd)
{
    static const uint8_t v4_mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer;
    if (f->tunnelled) /* the peer is the proxy, and what it was asked for stands */
        return !f->peer_family || vet(f, f->peer_family, f->peer, f->dial_port);
    if (getpeername(fd, (struct sockaddr *)&peer, &len) < 0)
        return false;
    const uint8_t *a = (const uint8_t *)&((const struct sockaddr_in6 *)&peer)->sin6_addr;
    f->peer_family = 6;
    if (peer.ss_family == AF_INET) {
        a = (const uint8_t *)&((const struct sockaddr_in *)&peer)->sin_addr;
        f->peer_family = 4;
    } else if (memcmp(a, v4_mapped, 12) == 0) {
        a += 12;
        f->peer_family = 4;
    }
    memcpy(f->peer, a, f->peer_family == 4 ? 4 : 16);
    inet_ntop(f->peer_family == 4 ? AF_INET : AF_INET6, f->peer, f->dialled, sizeof f->dialled);
    return vet(f, f->peer_family, f->peer, f->dial_port);
}

static void dialled(void *arg, int fd, int error)
{
    struct flow *f = arg;
    struct broker *b = f->broker;
    f->dial = NULL;
    if (fd >= 0 && !check_peer(f, fd)) {
        close(fd);
        fd = -1;
        error = EACCES;
    }
    if (fd >= 0) {
        struct answer a = {.id = f->id, .kind = ANSWER_CONNECT, .verdict = VERDICT_ALLOW};
        a.flags = (uint16_t)((f->intercept ? ANSWER_INTERCEPT : 0) | (f->exact ? ANSWER_RAW : 0));
        f->fd = fd;
        b->nopen++;
        b->allowed++;
        send_answer(b, &a, fd);
        return;
    }
    if (error == ENOENT) {
        refuse(b, f, VERDICT_NO_NAME, f->rule, "the name does not resolve on the host", "", error);
    } else if (error == EIO && !f->logged) {
        /* The decision could not be written down, so it was not carried out. */
        refuse(b, f, VERDICT_DENY, f->rule, "the decision log cannot be written", "", error);
    } else if (error == EACCES) {
        char reason[96], hint[192] = "";
        const struct decision d = {.allow = true}; /* the host is allowed; what lacks is a rule for host and port */
        snprintf(reason, sizeof reason, "address check: %s", f->refused ? f->refused : "refused");
        if (!f->shut)
            hint_for(b, f, &d, hint, sizeof hint);
        refuse(b, f, VERDICT_DENY, f->rule, reason, hint, error);
    } else {
        char reason[400];
        const char *why = error == EKEYREJECTED ? "wants another login (sbx secret set -g proxy)"
                        : error == EPERM        ? "denies it"
                        : error == ENXIO        ? "has a name that does not resolve"
                                                : strerror(error);
        if (f->tunnelled)
            snprintf(reason, sizeof reason, "the proxy %s: %s", b->proxy_text, why);
        else
            snprintf(reason, sizeof reason, "cannot connect: %s", strerror(error));
        refuse(b, f, VERDICT_UNREACHABLE, f->rule, reason, "", error);
    }
    flow_free(f);
}

static const struct dial_ops dial_ops = {
    .vet = vet, .connecting = connecting, .direct = direct, .tunnels = tunnels, .done = dialled};

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
    f->fd = -1;
    f->number = ++b->last_flow;
    f->next = b->flows;
    b->flows = f;
    b->nflows++;
    char hint[192] = "";
    const char *reason = "";
    if (ask->proto != PROTO_TCP || !read_target(&ask->target, f) || f->port == 0) {
        log_rated(&b->bad_ask, 5, "a malformed request of net");
        snprintf(f->host, sizeof f->host, "(malformed)");
        refuse(b, f, VERDICT_DENY, "malformed request", "", "", EINVAL);
        flow_free(f);
        return;
    }
    decide(b, f, &d);
    snprintf(f->rule, sizeof f->rule, "%s", d.text);
    f->exact = d.exact;
    if (f->is_name && addr_is_metadata_name(f->host)) {
        d.allow = false;
        reason = "a cloud's instance metadata is never reachable";
    } else if (!d.allow || (d.http && !f->is_name)) {
        reason = d.http ? needs_http : "";
        hint_for(b, f, &d, hint, sizeof hint);
        d.allow = false;
    }
    f->intercept = d.http || (f->is_name && broker_secrets_wants(b->secrets, f->host, f->port));
    if (!d.allow && !d.rule && !policy_error(b->policy) && !(f->is_name && addr_is_metadata_name(f->host))) {
        struct ask_for what;
        ask_for(f, &what);
        if (asks_take_grant(b->asks, &what, &f->granted_exact)) {
            d.allow = f->granted = true;
            f->exact = f->granted_exact;
            snprintf(f->rule, sizeof f->rule, "allowed once");
        } else if (policy_asks(b->policy) && (f->held = asks_hold(b->asks, f, &what, &reason))) {
            return; /* on_released goes on */
        }
    }
    if (!d.allow) {
        refuse(b, f, VERDICT_DENY, f->rule, reason, hint, EACCES);
        flow_free(f);
        return;
    }
    dial(b, f);
}

/* It was decided: now it is tried. */
static void dial(struct broker *b, struct flow *f)
{
    char host[256];
    f->dial_port = f->port;
    snprintf(host, sizeof host, "%.255s", f->is_name ? rule_alias(f->host) : f->host);
    f->mapped = mapped(b, f, host, sizeof host, &f->dial_port);
    bool proxied = !f->mapped;
    for (unsigned i = 0; i < b->ndirect && f->is_name; i++)
        proxied = proxied && !rule_matches_name(&b->direct[i], f->host, f->port);
    f->dial = dial_start(b->dialer, host, f->dial_port, proxied, &dial_ops, f);
    if (!f->dial) {
        refuse(b, f, VERDICT_UNREACHABLE, f->rule, "too many connections are being made", "", EAGAIN);
        flow_free(f);
    }
}

/* The answer to a question, or none in time. */
static void on_released(void *flow, enum ask_end how, void *arg)
{
    struct flow *f = flow;
    struct broker *b = arg;
    struct decision d;
    char hint[192] = "";
    f->held = false;
    /* What names this very host's port, or an address, was seen as that by who answered. */
    f->granted = how == ASK_ALLOWED;
    f->granted_exact = !f->is_name || strcmp(rule_alias(f->host), "localhost") == 0;
    decide(b, f, &d);
    if (how == ASK_ALLOWED && d.allow && (!d.http || f->is_name)) {
        if (d.rule)
            snprintf(f->rule, sizeof f->rule, "%s", d.text);
        else
            snprintf(f->rule, sizeof f->rule, "allowed when asked");
        f->exact = d.exact;
        dial(b, f);
        return;
    }
    hint_for(b, f, &d, hint, sizeof hint);
    refuse(b, f, VERDICT_DENY, f->rule, how == ASK_DENIED ? "denied when asked" : "nobody answered when asked", hint, EACCES);
    flow_free(f);
}

static void on_question(json_t *msg, void *arg)
{
    link_send_ctrl(linkev_link(((struct broker *)arg)->supervisor), msg);
}

static const struct asks_ops asks_ops = {on_question, on_released};

static void on_name_ask(struct broker *b, const struct ask *ask)
{
    struct flow f = {0};
    struct answer a = {.id = ask->id, .kind = ANSWER_NAME, .verdict = VERDICT_ALLOW};
    if (!read_target(&ask->target, &f) || !f.is_name) {
        a.verdict = VERDICT_DENY;
    } else if (addr_is_metadata_name(f.host) || policy_denies_all(b->policy, f.host, time(NULL))) {
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

/* The connection, or the attempt at it, is over: its row. */
static void close_flow(struct broker *b, struct flow *f, const struct ask *ask, const char *reason)
{
    struct decision_row row = {.kind = "close", .flow = f->number, .proto = "tcp", .host = f->host, .port = f->port,
                               .addr = f->dialled, .verdict = "allow", .rule = f->rule, .reason = reason,
                               .bytes_up = (int64_t)(ask->bytes_up & INT64_MAX),
                               .bytes_down = (int64_t)(ask->bytes_down & INT64_MAX), .duration_ms = ask->duration_ms,
                               .count = 0};
    b->bytes_up += row.bytes_up;
    b->bytes_down += row.bytes_down;
    if (f->logged)
        journal_write(b->journal, &row);
    flow_free(f);
}

static void on_done(struct broker *b, const struct ask *ask)
{
    struct flow *f = find(b, ask->id);
    if (f && f->fd >= 0)
        close_flow(b, f, ask, "");
}

static void on_cancel(struct broker *b, const struct ask *ask)
{
    struct flow *f = find(b, ask->id);
    if (f && f->held) {
        struct decision_row row = {.kind = "deny", .proto = "tcp", .host = f->host, .port = f->port, .verdict = "deny",
                                   .rule = f->rule, .reason = "given up while somebody was asked", .count = 1};
        journal_refusal(b->journal, &row);
        count_denied(b, &b->denied, 1);
    }
    if (f && f->fd < 0)
        close_flow(b, f, ask, "given up before it was connected");
}

/* net found another name in the SNI or the Host than was asked for, and ends the connection, or that one request of it. */
static void on_mismatch(struct broker *b, const struct ask *ask)
{
    struct flow *f = find(b, ask->id);
    char seen[300], reason[700], hint[192] = "";
    const struct decision host = {.allow = true}; /* the host is allowed; what lacks is a rule for host and port */
    if (!f || f->fd < 0)
        return;
    sanitize_line(seen, sizeof seen, ask->seen, strnlen(ask->seen, sizeof ask->seen));
    if (ask->flags & MISMATCH_RAW)
        hint_for(b, f, &host, hint, sizeof hint);
    snprintf(reason, sizeof reason, ask->flags & MISMATCH_TEXT ? "%s%s%s" : "it speaks to \"%s\"%s%s", seen,
             hint[0] ? "; to let it through as it is: " : "", hint);
    struct decision_row row = {.kind = "mismatch", .flow = f->number, .proto = "tcp", .host = f->host, .port = f->port,
                               .addr = f->dialled, .verdict = "deny", .rule = f->rule, .reason = reason, .count = 1};
    count_denied(b, &b->denied, 1);
    if (ask->flags & MISMATCH_ONE) {
        journal_refusal(b->journal, &row);
        return;
    }
    f->cut = true;
    shutdown(f->fd, SHUT_RDWR);
    journal_write(b->journal, &row);
}

/* The credentials of one request, each before the answer; what they are of, for the log. */
static void send_secrets(struct broker *b, const struct flow *f, const struct ask_request *ask, char *reason, size_t cap, bool send)
{
    static struct answer_secret a;
    const char *service;
    for (unsigned i = 0; ask->tls && broker_secrets_for(b->secrets, f->host, f->port, ask->path, ask->bearer, i, &a, &service); i++) {
        size_t n = strlen(reason);
        a.id = ask->id;
        a.request = ask->request;
        if (send)
            send_packet(b, &a, sizeof a, -1);
        else if (a.value[0])
            snprintf(reason + n, cap - n, "%s%.40s", n ? ", " : "with the credential of ", service);
        explicit_bzero(&a, sizeof a);
    }
}

/* A request that is under way, after the rules have changed: a download, events, a WebSocket.  What they now deny ends. */
static void review_request(struct broker *b, struct flow *f, const struct ask_request *ask, const char *path)
{
    struct decision d, host;
    policy_decide_request(b->policy, f->host, f->port, ask->method, ask->path, time(NULL), &d);
    decide(b, f, &host);
    bool granted = f->granted && !(d.rule && d.rule->deny) && !policy_error(b->policy);
    if ((!d.allow && !granted) || (host.http && (ask->ambiguous || ask->override)))
        cut(b, f, d.text, ask->method, path);
}

static bool is_method(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~");
    return n && !s[n];
}

/* One request of an intercepted connection.  Written down before it is answered, as everything is. */
static void judge_request(struct broker *b, const struct ask_request *ask)
{
    struct flow *f = find(b, ask->id);
    struct answer a = {.id = ask->id, .kind = ANSWER_REQUEST, .verdict = VERDICT_DENY, .request = ask->request};
    struct decision d = {0};
    char path[ASK_PATH_MAX + 1], reason[200] = "";
    bool alert = false;
    if (!f || f->fd < 0 || !f->is_name || f->cut || ask->path_len > ASK_PATH_MAX || ask->path[ask->path_len] != '\0' ||
        ask->method[ASK_METHOD_MAX] != '\0' || strlen(ask->path) != ask->path_len || !is_method(ask->method)) {
        log_rated(&b->bad_ask, 5, "a malformed request of net");
        send_answer(b, &a, -1);
        return;
    }
    sanitize_line(path, sizeof path, ask->path, ask->path_len);
    if (ask->again) {
        review_request(b, f, ask, path);
        return;
    }
    policy_decide_request(b->policy, f->host, f->port, ask->method, ask->path, time(NULL), &d);
    struct decision host;
    decide(b, f, &host);
    if (f->granted && !d.allow && !(d.rule && d.rule->deny) && !policy_error(b->policy)) {
        d.allow = true; /* the connection was let through, and with it what it was for */
        snprintf(d.text, sizeof d.text, "%s", f->rule);
    }
    if (d.allow && host.http && (ask->ambiguous || ask->override)) {
        /* A rule that speaks of methods or paths allows nothing that servers read in more than one way. */
        d.allow = false;
        snprintf(reason, sizeof reason, "%s", ask->ambiguous ? "servers may read its path in more than one way"
                                                             : "it asks the server to take another method or path for it");
    }
    const char *misplaced = broker_secrets_misplaced(b->secrets, ask->sentinels, f->host, f->port, ask->tls);
    if (misplaced) {
        d.allow = false;
        alert = true;
        snprintf(reason, sizeof reason, "it carries the sentinel of %.60s%s", misplaced,
                 ask->tls ? ", which does not belong to this host" : ", and is not encrypted");
    }
    const char *signs = NULL;
    unsigned index = 0;
    enum broker_sign_in sign_in = d.allow && ask->tls ? broker_secrets_sign_in(b->secrets, f->host, f->port, ask->ambiguous ? NULL : ask->path, &signs,
                                                                               &index) : SIGN_IN_NONE;
    if (sign_in == SIGN_IN_OTHER) {
        d.allow = false;
        snprintf(reason, sizeof reason, ask->ambiguous ? "its path cannot be told, and %.60s gives out tokens at this host"
                                                       : "a credential of %.60s is set on the host, and is used as it is", signs);
    }
    if (d.allow && sign_in == SIGN_IN_TAKE)
        snprintf(reason, sizeof reason, "a sign-in to %.60s: its tokens stay on the host", signs);
    else if (d.allow && sign_in == SIGN_IN_HELD)
        snprintf(reason, sizeof reason, "answered by sbx: the host is signed in to %.60s", signs);
    else if (d.allow)
        send_secrets(b, f, ask, reason, sizeof reason, false);
    struct decision_row row = {.kind = alert ? "alert" : "request", .flow = f->number, .proto = ask->version == 2 ? "http2" : "http",
                               .host = f->host, .port = f->port, .addr = f->dialled, .method = ask->method,
                               .path = path, .verdict = d.allow ? "allow" : "deny", .rule = d.text, .reason = reason,
                               .count = 1};
    if (b->njudged == 0)
        journal_begin(b->journal);
    journal_write(b->journal, &row);
    struct judged *g = &b->judged[b->njudged++];
    g->ask = *ask;
    g->answer = a;
    g->sign_in = sign_in;
    g->allow = d.allow;
    g->index = index;
    g->signs = signs;
    if (!d.allow) {
        snprintf(g->answer.rule, sizeof g->answer.rule, "%.*s", (int)sizeof g->answer.rule - 1, reason[0] ? reason : d.text);
        if (!reason[0])
            request_hint(b, f, ask, &d, g->answer.hint, sizeof g->answer.hint);
    }
}

/* What was judged is in the log: now it is answered. */
static void answer_request(struct broker *b, struct judged *g, bool written)
{
    struct flow *f = find(b, g->ask.id);
    struct answer *a = &g->answer;
    if (!f || f->fd < 0)
        return; /* it ended meanwhile */
    if (!g->allow || !written) {
        count_denied(b, &b->denied, 1);
        if (!written) {
            snprintf(a->rule, sizeof a->rule, "a decision log that cannot be written");
            a->hint[0] = '\0';
        }
        b->ready[b->nready++] = a;
        return;
    }
    if (g->sign_in == SIGN_IN_TAKE) {
        a->flags |= ANSWER_MINT;
        snprintf(f->mint, sizeof f->mint, "%.63s", g->signs);
    } else if (g->sign_in == SIGN_IN_HELD) {
        a->flags |= ANSWER_SIGNED_IN;
        a->error = (int32_t)g->index;
    } else {
        const char *lends = g->ask.tls ? broker_secrets_lends(b->secrets, f->host, f->port, g->ask.path, g->ask.ambiguous) : NULL;
        char reason[200] = "";
        if (lends) {
            a->flags |= ANSWER_MINT;
            snprintf(f->lends, sizeof f->lends, "%.63s", lends);
        }
        send_secrets(b, f, &g->ask, reason, sizeof reason, true);
    }
    a->verdict = VERDICT_ALLOW;
    b->ready[b->nready++] = a;
}

/* All that came with one wake is written with one stroke: that costs as much as one row. */
static void answer_requests(struct broker *b)
{
    if (b->njudged == 0)
        return;
    bool written = journal_commit(b->journal) == 0;
    for (unsigned i = 0; i < b->njudged; i++)
        answer_request(b, &b->judged[i], written);
    send_ready(b);
    b->njudged = 0;
}

/* Tokens that an answer to the sandbox gave out.  They go into a pipe that only `sbx secret take` reads, which the
 * supervisor starts: the broker does not write the store, and the supervisor does not see them. */
static void on_mint(struct broker *b, struct ask_mint *m)
{
    struct flow *f = find(b, m->id);
    int waiting = 0;
    if (f && f->lends[0] && !f->mint[0]) {
        if (broker_secrets_lend(b->secrets, f->lends, m))
            tell_sentinels(b);
        else
            log_rated(&b->bad_ask, 5, "a token from net that cannot be one");
        return;
    }
    char *line = f && f->mint[0] ? broker_secrets_take(b->secrets, f->mint, m) : NULL;
    if (!line) {
        log_rated(&b->bad_ask, 5, "tokens from net that nobody asked for");
        return;
    }
    size_t n = strlen(line);
    struct decision_row row = {.kind = "policy", .flow = f->number, .proto = "other", .host = f->host, .port = f->port, .verdict = "allow",
                               .rule = "secrets", .reason = "the sandbox signed in: the tokens are kept on the host", .count = 1};
    journal_write(b->journal, &row);
    if (b->mint_fd < 0 || ioctl(b->mint_fd, FIONREAD, &waiting) < 0 || (size_t)waiting + n > MINT_PIPE_MAX ||
        write(b->mint_fd, line, n) != (ssize_t)n)
        log_line("the tokens of a sign-in to %s cannot be kept: they are good until this sandbox stops", f->mint);
    else
        link_send_ctrl(linkev_link(b->supervisor), json_pack("{s:s}", "op", "minted"));
    f->mint[0] = '\0';
    sodium_free(line);
    tell_secrets(b, "");
}

static void on_leaf_ask(struct broker *b, const struct ask_leaf *ask)
{
    struct answer_leaf a = {.id = ask->id, .kind = ANSWER_LEAF, .verdict = VERDICT_DENY};
    struct flow *f = find(b, ask->id);
    const char *name = f && f->fd >= 0 && f->is_name ? f->host : NULL;
    for (unsigned i = 0; !name && i < REFUSED_KEPT; i++)
        if (b->refusals[i].id == ask->id && b->refusals[i].name[0])
            name = b->refusals[i].name;
    if (name)
        a.len = (uint16_t)broker_tls_leaf(b->tls, name, ask->point, a.der);
    if (a.len)
        a.verdict = VERDICT_ALLOW;
    send_packet(b, &a, sizeof a, -1);
}

static void on_trust_ask(struct broker *b, const struct ask *ask)
{
    struct answer a = {.id = ask->id, .kind = ANSWER_TRUST, .verdict = VERDICT_ALLOW};
    int fd = broker_tls_trust(b->tls);
    send_answer(b, &a, fd);
    if (fd >= 0)
        close(fd);
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

static void take_asks(struct broker *b, int fd)
{
    for (int i = 0; i < ASKS_PER_WAKE; i++) {
        union {
            struct ask ask;
            struct ask_request request;
            struct ask_leaf leaf;
            struct ask_mint mint;
        } got;
        ssize_t n = recv(fd, &got, sizeof got, MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            event_base_loopbreak(b->base);
            return;
        }
        unsigned kind = n > 4 ? got.ask.kind : 0;
        size_t want = kind == ASK_REQUEST ? sizeof got.request : kind == ASK_LEAF ? sizeof got.leaf : kind == ASK_MINT ? sizeof got.mint : sizeof got.ask;
        if ((size_t)n != want) {
            log_rated(&b->bad_ask, 5, "a request of %zd bytes from net", n);
            continue;
        }
        if (kind != ASK_REQUEST)
            answer_requests(b); /* what is written for another kind stands for itself */
        switch (kind) {
        case ASK_MINT:
            on_mint(b, &got.mint);
            explicit_bzero(&got, sizeof got);
            break;
        case ASK_CONNECT:
            on_connect_ask(b, &got.ask);
            break;
        case ASK_NAME:
            on_name_ask(b, &got.ask);
            break;
        case ASK_DONE:
            on_done(b, &got.ask);
            break;
        case ASK_REFUSED:
            on_refused(b, &got.ask);
            break;
        case ASK_CANCEL:
            on_cancel(b, &got.ask);
            break;
        case ASK_MISMATCH:
            on_mismatch(b, &got.ask);
            break;
        case ASK_REQUEST:
            judge_request(b, &got.request);
            break;
        case ASK_LEAF:
            on_leaf_ask(b, &got.leaf);
            break;
        case ASK_TRUST:
            on_trust_ask(b, &got.ask);
            break;
        default:
            log_rated(&b->bad_ask, 5, "an unknown request (%u) from net", kind);
        }
    }
}

static void on_ask(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    take_asks(arg, (int)fd);
    answer_requests(arg);
}

static void on_ctrl(struct linkev *c, json_t *msg, void *arg)
{
    struct broker *b = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    json_t *more = NULL;
    struct err e = {0};
    int rc = 0;
    if (!op)
        return;
    if (strcmp(op, "askers") == 0) {
        asks_set_watchers(b->asks, (unsigned)json_integer_value(json_object_get(msg, "count")));
        return;
    }
    if (strcmp(op, "answer") == 0) {
        rc = asks_answer(b->asks, json_integer_value(json_object_get(msg, "ask")), json_is_true(json_object_get(msg, "allow")), &e);
    } else if (strcmp(op, "grant") == 0) {
        const char *rule = json_string_value(json_object_get(msg, "rule"));
        rc = asks_grant(b->asks, rule ? rule : "", &e);
    } else if (strcmp(op, "secrets") == 0) { /* who changed the store waits: the next session shall have it */
        evtimer_del(b->secrets_ev);
        on_secrets(-1, 0, b);
    }
    if (strcmp(op, "answer") == 0 || strcmp(op, "grant") == 0 || strcmp(op, "secrets") == 0) {
        more = json_pack("{s:s, s:O, s:b}", "op", "reply", "id", json_object_get(msg, "id"), "ok", rc == 0);
        if (rc < 0) {
            json_object_set_new(more, "error", json_string(e.text));
            json_object_set_new(more, "status", json_integer(e.status));
        }
        link_send_ctrl(linkev_link(c), more);
        return;
    }
    if (strcmp(op, "stats") != 0)
        return;
    link_send_ctrl(linkev_link(c),
                   json_pack("{s:s, s:O, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "op", "reply", "id",
                             json_object_get(msg, "id"), "ok", 1, "allowed", (json_int_t)b->allowed, "denied",
                             (json_int_t)b->denied, "failed", (json_int_t)b->failed, "refused", (json_int_t)b->refused,
                             "bytes_up", (json_int_t)b->bytes_up, "bytes_down", (json_int_t)b->bytes_down, "open",
                             (int)b->nopen));
}

static void on_supervisor_closed(struct linkev *c, const char *why, void *arg)
{
    (void)c;
    (void)why;
    event_base_loopbreak(((struct broker *)arg)->base);
}

#define WATCHED (IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE | IN_DELETE)

/* takes path */
static void follow_link(struct broker *b, char *path)
{
    struct stat st;
    const char *home = getenv("HOME");
    char *real = path && lstat(path, &st) == 0 && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL;
    char *slash = real ? strrchr(real, '/') : NULL;
    if (slash && slash != real && b->nled < LED_MAX && strlen(real) < sizeof b->led[0].file) {
        size_t n = (size_t)(slash - real), i = b->nled++;
        strcpy(b->led[i].file, real);
        memcpy(b->led[i].dir, real, n);
        b->led[i].name = b->led[i].file + n + 1;
        bool wide = !home || (strncmp(home, b->led[i].dir, n) == 0 && (home[n] == '\0' || home[n] == '/'));
        b->led[i].reach = wide ? b->led[i].file : b->led[i].dir;
        inotify_add_watch(b->watch_fd, b->led[i].dir, WATCHED);
    }
    free(real);
    free(path);
}

static int start(struct broker *b, struct err *e)
{
    static const struct linkev_ops link_ops = {.ctrl = on_ctrl, .closed = on_supervisor_closed};
    char *log = path_sandbox(b->sandbox, "log.db", e);
    char *own = log ? path_sandbox(b->sandbox, NULL, e) : NULL;
    char *config = own ? path_in(PATH_CONFIG, e, "%s", "") : NULL;
    char *assets = config ? path_asset("policies", e) : NULL;
    char *ca = assets ? path_in(PATH_DATA, e, "ca") : NULL, *secrets = NULL, *services = NULL;
    int rc = -1;
    if (!ca)
        goto out;
    b->base = event_base_new();
    b->journal = b->base ? journal_new(b->base, log, e) : NULL;
    if (!b->journal)
        goto out;
    b->dialer = dialer_new(b->base);
    b->supervisor = linkev_new(b->base, FD_SUPERVISOR, &link_ops, b);
    b->policy = policy_load(b->sandbox);
    journal_on_trouble(b->journal, on_log_trouble, b);
    b->asks = asks_new(b->base, &asks_ops, b);
    b->secrets = broker_secrets_new(b->sandbox);
    secrets = path_in(PATH_DATA, e, "secrets");
    services = path_asset("services", e);
    if (!b->secrets || !b->asks || !secrets || !services || path_mkdirs(secrets, 0700, e) < 0)
        goto out;
    b->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (!b->dialer || !b->supervisor || !b->policy || b->watch_fd < 0) {
        err_set(e, STATUS_FAILED, "cannot start the broker: out of resources");
        goto out;
    }
    load_settings(b);
    json_t *settings = config_load(NULL);
    b->tls = broker_tls_new(config_value(settings, "net.ca"), e);
    json_decref(settings);
    if (!b->tls)
        goto out;
    inotify_add_watch(b->watch_fd, config, WATCHED);
    follow_link(b, policy_path(NULL, NULL));
    follow_link(b, policy_path(b->sandbox, NULL));
    follow_link(b, path_in(PATH_CONFIG, NULL, "config.json"));
    inotify_add_watch(b->watch_fd, secrets, IN_MOVED_TO | IN_DELETE);
    inotify_add_watch(b->watch_fd, own, WATCHED);
    evutil_make_socket_nonblocking(b->watch_fd);
    b->judged = calloc(ASKS_PER_WAKE, sizeof *b->judged);
    b->net_ev = event_new(b->base, FD_NET, EV_READ | EV_PERSIST, on_ask, b);
    b->watch_ev = event_new(b->base, b->watch_fd, EV_READ | EV_PERSIST, on_watch, b);
    b->note_ev = evtimer_new(b->base, on_note, b);
    b->reload_ev = evtimer_new(b->base, on_reload, b);
    b->expiry_ev = evtimer_new(b->base, on_expiry, b);
    b->secrets_ev = evtimer_new(b->base, on_secrets, b);
    if (!b->judged || !b->secrets_ev || !b->net_ev || !b->watch_ev || !b->note_ev || !b->reload_ev || !b->expiry_ev) {
        err_set(e, STATUS_FAILED, "cannot start the broker: out of memory");
        goto out;
    }
    event_add(b->net_ev, NULL);
    event_add(b->watch_ev, NULL);
    arm_expiry(b);
    addr_watch_own();
    struct timeval limit = {SEND_TIMEOUT_S, 0};
    setsockopt(FD_NET, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    /* The resolver reads its own configuration and modules whenever it likes; dialling needs sockets. */
    const struct confine_path fixed[] = {
        {.path = own, .access = CONFINE_READ | CONFINE_WRITE}, {.path = config, .access = CONFINE_READ},
        {.path = assets, .access = CONFINE_READ},              {.path = ca, .access = CONFINE_READ},
        {.path = secrets, .access = CONFINE_READ},             {.path = services, .access = CONFINE_READ},
        {.path = "/etc", .access = CONFINE_READ},
        {.path = "/usr", .access = CONFINE_READ | CONFINE_EXEC}, {.path = "/lib", .access = CONFINE_READ | CONFINE_EXEC},
        {.path = "/lib64", .access = CONFINE_READ | CONFINE_EXEC}, {.path = "/run", .access = CONFINE_READ},
        {.path = "/var/lib/sss", .access = CONFINE_READ},      {.path = "/dev/null", .access = CONFINE_READ | CONFINE_WRITE},
        {.path = "/dev/urandom", .access = CONFINE_READ},      {.path = "/mnt/wsl", .access = CONFINE_READ},
    };
    struct confine_path paths[sizeof fixed / sizeof *fixed + LED_MAX];
    memcpy(paths, fixed, sizeof fixed);
    for (unsigned i = 0; i < b->nled; i++)
        paths[sizeof fixed / sizeof *fixed + i] = (struct confine_path){.path = b->led[i].reach, .access = CONFINE_READ};
    const struct confine c = {.groups = CONFINE_IO | CONFINE_FILES | CONFINE_SOCKETS | CONFINE_THREADS, .paths = paths,
                              .npaths = sizeof fixed / sizeof *fixed + b->nled, .files_max = FLOWS_MAX + DIAL_PENDING_MAX * DIAL_ADDRS_MAX + 64};
    /* A store that a passphrase or the user's keyring opened stays open in this process; afterwards neither is in reach. */
    secretstore_free(secretstore_open(NULL, NULL, NULL));
    secretstore_seal();
    rc = confine_self(&c, e);
out:
    free(secrets);
    free(services);
    free(ca);
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
    struct stat st;
    /* Before anything else can have that number. */
    b.mint_fd = fstat(FD_MINT, &st) == 0 && S_ISFIFO(st.st_mode) ? FD_MINT : -1;
    log_init("broker");
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2)
        return STATUS_USAGE;
    b.sandbox = argv[1];
    b.last_flow = (int64_t)time(NULL) << 24;
    /* The host's resolver may take half a minute for a dead server; nobody waits that long for a SYN-ACK. */
    setenv("RES_OPTIONS", "timeout:3 attempts:2", 0);
    if (start(&b, &e) < 0) {
        log_line("%s", e.text);
        return STATUS_FAILED;
    }
    link_send_ctrl(linkev_link(b.supervisor), json_pack("{s:s, s:s, s:i}", "op", "hello", "role", "broker", "version", 1));
    if (policy_error(b.policy))
        note_policy(&b);
    load_secrets(&b);
    event_base_dispatch(b.base);
    journal_free(b.journal); /* the counts that wait become rows */
    linkev_flush(b.supervisor, 100);
    return STATUS_OK;
}
