/* `sbx broker NAME`: the one process of a sandbox that may reach the network.  It parses nothing of the guest's
 * but the fixed requests of net/ask.h; it decides, resolves, vets, dials, writes the log, and hands the connected
 * descriptor to `sbx net`. */
#include "net/broker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "core/addrclass.h"
#include "core/config.h"
#include "core/confine.h"
#include "core/jsonfile.h"
#include "core/paths.h"
#include "core/proxyurl.h"
#include "core/secretstore.h"
#include "core/state.h"
#include "net/broker_int.h"

enum { FD_SUPERVISOR = 3, FD_NET = 4, FD_MINT = 5 };
#define NOTE_MS 500
#define SEND_TIMEOUT_S 60 /* net reads its answers, unless its host stalls; one that never does has been broken into */

/* ---- to net ---- */

/* Answers without a descriptor that became ready together: net wakes once for them. */
void broker_send_ready(struct broker *b)
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

void broker_send(struct broker *b, const void *packet, size_t len, int fd)
{
    broker_send_ready(b); /* none overtakes another */
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

void broker_send_answer(struct broker *b, const struct answer *a, int fd)
{
    broker_send(b, a, sizeof *a, fd);
}

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

static void settle_expiry(struct broker *b)
{
    expiry_settle(b->expiry, b->policy, time(NULL), expiry_boot_now());
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
    settle_expiry(b);
    load_settings(b);
    if (was_broken || policy_error(fresh))
        note_policy(b);
    broker_recheck(b);
    broker_arm_expiry(b);
}

/* What the guest holds instead of secrets, so that net knows it when it sees it. */
void broker_tell_sentinels(struct broker *b)
{
    struct answer_sentinel a;
    unsigned i = 0;
    do {
        broker_secrets_sentinel(b->secrets, i, &a);
        a.more = ++i < broker_secrets_sentinels(b->secrets);
        broker_send(b, &a, sizeof a, -1);
    } while (a.more);
    explicit_bzero(&a, sizeof a);
}

void broker_tell_secrets(struct broker *b, const char *error)
{
    link_send_ctrl(linkev_link(b->supervisor), json_pack("{s:s, s:b, s:s, s:o, s:I}", "op", "secrets", "ok", error[0] == '\0', "error", error,
                                                             "env", broker_secrets_env(b->secrets), "renew",
                                                             (json_int_t)broker_secrets_renew(b->secrets)));
    broker_tell_sentinels(b);
}

static void load_secrets(struct broker *b)
{
    struct err e = {0};
    bool bad = broker_secrets_load(b->secrets, &e) < 0, blind = !bad && broker_tls_trouble(b->tls)[0];
    if (blind)
        bad = err_set(&e, STATUS_FAILED, "%s", broker_tls_trouble(b->tls)) < 0;
    if (bad) {
        struct answer_sentinel any;
        if (!blind && broker_secrets_sentinel(b->secrets, 0, &any))
            err_wrap(&e, "what is held of the secrets stays in force");
        struct decision_row row = {.kind = "policy", .proto = "other", .host = "", .verdict = "deny", .rule = "secrets",
                                   .reason = e.text, .count = 1};
        journal_write(b->journal, &row);
        log_line(blind ? "nothing can be intercepted: %s" : "secrets are not to be had: %s", e.text);
    }
    load_settings(b); /* the proxy's login may be another */
    broker_tell_secrets(b, bad ? e.text[0] ? e.text : "the secrets cannot be read" : "");
}

static void on_secrets(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    (void)fd;
    (void)what;
    broker_tls_load(b->tls, NULL);
    load_secrets(b);
    broker_recheck(b);
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
    settle_expiry(b);
    broker_recheck(b);
    broker_arm_expiry(b);
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

void broker_count_denied(struct broker *b, int64_t *counter, int64_t by)
{
    struct timeval tv = {0, NOTE_MS * 1000};
    *counter += by;
    if (!evtimer_pending(b->note_ev, NULL))
        evtimer_add(b->note_ev, &tv);
}

static void on_trust_ask(struct broker *b, const struct ask *ask)
{
    struct answer a = {.id = ask->id, .kind = ANSWER_TRUST, .verdict = VERDICT_ALLOW};
    int fd = broker_tls_trust(b->tls);
    broker_send_answer(b, &a, fd);
    if (fd >= 0)
        close(fd);
}

static union {
    struct ask ask;
    struct ask_request request;
    struct ask_leaf leaf;
    struct ask_mint mint; /* with tokens: the place is locked in memory */
} got;

static void take_asks(struct broker *b, int fd)
{
    for (int i = 0; i < ASKS_PER_WAKE; i++) {
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
            broker_answer_requests(b); /* what is written for another kind stands for itself */
        switch (kind) {
        case ASK_MINT:
            broker_mint(b, &got.mint);
            explicit_bzero(&got, sizeof got);
            break;
        case ASK_CONNECT:
            broker_connect(b, &got.ask);
            break;
        case ASK_NAME:
            broker_name(b, &got.ask);
            break;
        case ASK_DONE:
            broker_done(b, &got.ask);
            break;
        case ASK_REFUSED:
            broker_refused(b, &got.ask);
            break;
        case ASK_CANCEL:
            broker_cancelled(b, &got.ask);
            break;
        case ASK_MISMATCH:
            broker_mismatch(b, &got.ask);
            break;
        case ASK_REQUEST:
            broker_judge(b, &got.request);
            if (!got.request.more)
                return; /* most likely the last: what is there nevertheless wakes us again */
            break;
        case ASK_LEAF:
            broker_leaf(b, &got.leaf);
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
    broker_answer_requests(arg);
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
    char *real = path && lstat(path, &st) == 0 && S_ISLNK(st.st_mode) ? realpath(path, NULL) : NULL;
    char *slash = real ? strrchr(real, '/') : NULL;
    if (slash && slash != real && b->nled < LED_MAX && strlen(real) < sizeof b->led[0].file) {
        size_t n = (size_t)(slash - real), i = b->nled++;
        strcpy(b->led[i].file, real);
        memcpy(b->led[i].dir, real, n);
        b->led[i].name = b->led[i].file + n + 1;
        b->led[i].reach = path_holds_home(b->led[i].dir) ? b->led[i].file : b->led[i].dir;
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
    char *secrets = NULL, *services = NULL;
    int rc = -1;
    if (!assets)
        goto out;
    b->base = event_base_new();
    b->journal = b->base ? journal_new(b->base, log, state_logged(b->sandbox), e) : NULL;
    if (!b->journal)
        goto out;
    b->dialer = dialer_new(b->base);
    b->supervisor = linkev_new(b->base, FD_SUPERVISOR, &link_ops, b);
    b->policy = policy_load(b->sandbox);
    b->expiry = expiry_open(b->sandbox);
    b->asks = asks_new(b->base, &broker_asks_ops, b);
    b->secrets = broker_secrets_new(b->sandbox);
    secrets = path_in(PATH_DATA, e, "secrets");
    services = path_asset("services", e);
    if (!b->secrets || !b->asks || !secrets || !services || path_mkdirs(secrets, 0700, e) < 0)
        goto out;
    b->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (!b->dialer || !b->supervisor || !b->policy || !b->expiry || b->watch_fd < 0) {
        err_set(e, STATUS_FAILED, "cannot start the broker: out of resources");
        goto out;
    }
    settle_expiry(b);
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
    broker_arm_expiry(b);
    addr_watch_own();
    struct timeval limit = {SEND_TIMEOUT_S, 0};
    setsockopt(FD_NET, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    /* The resolver reads its own configuration and modules whenever it likes; dialling needs sockets. */
    const struct confine_path fixed[] = {
        {.path = own, .access = CONFINE_READ | CONFINE_WRITE}, {.path = config, .access = CONFINE_READ},
        {.path = assets, .access = CONFINE_READ},              {.path = secrets, .access = CONFINE_READ},
        {.path = services, .access = CONFINE_READ},            {.path = "/etc", .access = CONFINE_READ},
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
    /* The store that broker_tls_new opened, by a passphrase or the user's keyring, stays open in this process; from now on neither
     * is in reach. */
    secretstore_seal();
    sodium_mlock(&got, sizeof got);
    broker_lock_requests();
    rc = confine_self(&c, e);
out:
    free(secrets);
    free(services);
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
    journal_on_trouble(b.journal, on_log_trouble, &b);
    if (policy_error(b.policy))
        note_policy(&b);
    load_secrets(&b);
    event_base_dispatch(b.base);
    broker_end(&b);
    journal_free(b.journal); /* the counts that wait become rows */
    linkev_flush(b.supervisor, 100);
    return STATUS_OK;
}
