/* Connections: what the rules say of them, whether somebody is asked, whether an address may be dialled, and their rows. */
#include "net/broker_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/addrclass.h"
#include "core/metadata.h"
#include "core/sanitize.h"

#define EXPIRY_MAX_S 5 /* the clock may be set, or the machine have slept */

void broker_decide(struct broker *b, const struct flow *f, struct decision *d)
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
void broker_cut(struct broker *b, struct flow *f, const char *rule, const char *method, const char *path)
{
    struct answer a = {.id = f->id, .kind = ANSWER_CUT, .verdict = VERDICT_DENY};
    struct decision_row row = {.kind = "cut", .flow = f->number, .proto = "tcp", .host = f->host, .port = f->port,
                               .addr = f->dialled, .method = method, .path = path, .verdict = "deny", .rule = rule,
                               .reason = "denied by a change of the rules", .count = 1};
    f->cut = true;
    shutdown(f->fd, SHUT_RDWR);
    journal_write(b->journal, &row);
    b->denied++;
    broker_send_answer(b, &a, -1);
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
void broker_recheck(struct broker *b)
{
    for (struct flow *f = b->flows, *next; f; f = next) {
        struct decision d;
        next = f->next;
        broker_decide(b, f, &d);
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
                broker_cut(b, f, allowed ? f->rule : d.text, "", "");
            } else if (!f->cut && d.http) { /* each of its requests as well, which net knows */
                struct answer a = {.id = f->id, .kind = ANSWER_REVIEW};
                broker_send_answer(b, &a, -1);
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

void broker_arm_expiry(struct broker *b)
{
    struct err e = {0};
    int64_t wall = time(NULL), boot = expiry_boot_now(), next = expiry_next(b->expiry, b->policy, wall, boot);
    if (expiry_save(b->expiry, &e) < 0) /* it holds as long as this runs */
        log_rated(&b->bad_expiry, 5, "which rules have run out cannot be remembered: %s", e.text);
    if (!next) {
        evtimer_del(b->expiry_ev);
        return;
    }
    struct timeval tv = {next > EXPIRY_MAX_S ? EXPIRY_MAX_S : next, 20000};
    evtimer_add(b->expiry_ev, &tv);
}

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

int broker_take_back(const struct broker *b, const struct rule *r, char *which, size_t room, char *out, size_t cap)
{
    policy_handle(which, room, r);
    return r->origin == RULE_PRESET || !which[0] ? 0 : snprintf(out, cap, "sbx policy rm %s %s", r->origin == RULE_GLOBAL ? "-g" : b->sandbox, which);
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
    else if (d->http || (!f->is_name && metadata_is_addr(f->family, f->addr)))
        n = 0;
    else if (d->rule && d->rule->deny)
        n = broker_take_back(b, d->rule, which, sizeof which, out, cap);
    else if (any_port)
        n = snprintf(out, cap, "sbx policy allow network %s %s", b->sandbox, host);
    else
        n = snprintf(out, cap, "sbx policy allow network %s %s%s%s:%u", b->sandbox, brackets ? "[" : "", host,
                     brackets ? "]" : "", f->port);
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
    broker_count_denied(b, denied ? &b->denied : &b->failed, 1);
    broker_send_answer(b, &a, -1);
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
        broker_send_answer(b, &a, fd);
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

struct flow *broker_find(struct broker *b, uint32_t id)
{
    struct flow *f = b->flows;
    while (f && f->id != id)
        f = f->next;
    return f;
}

void broker_connect(struct broker *b, const struct ask *ask)
{
    struct decision d;
    struct flow *f = b->nflows < FLOWS_MAX && !broker_find(b, ask->id) ? calloc(1, sizeof *f) : NULL;
    if (!f) {
        log_rated(&b->bad_ask, 5, "connection %u: too many, or its number is in use", ask->id);
        struct answer a = {.id = ask->id, .kind = ANSWER_CONNECT, .verdict = VERDICT_UNREACHABLE, .error = EAGAIN};
        broker_send_answer(b, &a, -1);
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
    broker_decide(b, f, &d);
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
    bool metadata = f->is_name ? addr_is_metadata_name(f->host) : metadata_is_addr(f->family, f->addr);
    if (!d.allow && !d.rule && !policy_error(b->policy) && !metadata) {
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
    broker_decide(b, f, &d);
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

const struct asks_ops broker_asks_ops = {on_question, on_released};

void broker_name(struct broker *b, const struct ask *ask)
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
        broker_count_denied(b, &b->denied, 1);
        a.verdict = VERDICT_DENY;
    }
    broker_send_answer(b, &a, -1);
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

void broker_done(struct broker *b, const struct ask *ask)
{
    struct flow *f = broker_find(b, ask->id);
    if (f && f->fd >= 0)
        close_flow(b, f, ask, "");
}

void broker_cancelled(struct broker *b, const struct ask *ask)
{
    struct flow *f = broker_find(b, ask->id);
    if (f && f->held) {
        struct decision_row row = {.kind = "deny", .proto = "tcp", .host = f->host, .port = f->port, .verdict = "deny",
                                   .rule = f->rule, .reason = "given up while somebody was asked", .count = 1};
        journal_refusal(b->journal, &row);
        broker_count_denied(b, &b->denied, 1);
    }
    if (f && f->fd < 0)
        close_flow(b, f, ask, "given up before it was connected");
}

/* What waits for an answer gets none. */
void broker_end(struct broker *b)
{
    for (struct flow *f = b->flows; f; f = f->next) {
        struct decision_row row = {.kind = "deny", .proto = "tcp", .host = f->host, .port = f->port, .verdict = "deny",
                                   .rule = f->rule, .reason = "the sandbox ended while somebody was asked", .count = 1};
        if (f->held)
            journal_refusal(b->journal, &row);
    }
}

/* net found another name in the SNI or the Host than was asked for, and ends the connection, or that one request of it. */
void broker_mismatch(struct broker *b, const struct ask *ask)
{
    struct flow *f = broker_find(b, ask->id);
    char seen[300], reason[700], hint[192] = "";
    const struct decision host = {.allow = true}; /* the host is allowed; what lacks is a rule for host and port */
    if (!f || f->fd < 0)
        return;
    sanitize_line(seen, sizeof seen, ask->seen, strnlen(ask->seen, sizeof ask->seen));
    if (ask->flags & MISMATCH_RAW)
        hint_for(b, f, &host, hint, sizeof hint);
    snprintf(reason, sizeof reason, ask->flags & MISMATCH_TEXT ? "%s%s%s" : "it speaks to \"%s\"%s%s", seen,
             hint[0] ? "; to let it through as it is: " : "", hint);
    bool failed = ask->flags & MISMATCH_FAIL;
    struct decision_row row = {.kind = "mismatch", .flow = f->number, .proto = "tcp", .host = f->host, .port = f->port,
                               .addr = f->dialled, .verdict = failed ? "fail" : "deny", .rule = f->rule, .reason = reason, .count = 1};
    if (failed)
        b->failed++;
    else
        broker_count_denied(b, &b->denied, 1);
    if (ask->flags & MISMATCH_ONE) {
        journal_refusal(b->journal, &row);
        return;
    }
    f->cut = true;
    shutdown(f->fd, SHUT_RDWR);
    journal_write(b->journal, &row);
}

void broker_refused(struct broker *b, const struct ask *ask)
{
    struct flow f = {0};
    if (!read_target(&ask->target, &f))
        return;
    struct decision_row row = {.kind = "refused", .proto = proto_name(ask->proto), .host = f.host, .port = f.port,
                               .verdict = "deny", .rule = "no UDP, no ICMP", .reason = "only TCP leaves, by name",
                               .count = ask->count ? ask->count : 1};
    journal_refusal(b->journal, &row);
    broker_count_denied(b, &b->refused, row.count);
}
