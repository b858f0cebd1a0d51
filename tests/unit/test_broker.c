/* The broker as a process: driven from net's end of the socket, with a resolver and outside servers of our own.
 *
 * getaddrinfo and connect are interposed: names resolve to what a test says, and connections to global addresses
 * are redirected to a listener here (or counted as attempts), so that nothing depends on a network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/decisions.h"
#include "core/link.h"
#include "core/paths.h"
#include "core/policy.h"
#include "net/ask.h"
#include "net/broker.h"
#include "net/broker_tls.h"
#include "net/journal.h"

#define SOON_MS 60000 /* machines stall: who waits for something to happen waits long */

/* Seen by the test and by the broker that it forks. */
struct shared {
    uint16_t listener;      /* where connections to global addresses end up */
    int connects, loopback; /* what the broker tried */
    int resolved;
};
static struct shared *sh;

/* ---- the world ---- */

static const struct {
    const char *name;
    const char *addrs[3];
} world[] = {
    {"public.example.com", {"93.184.216.34"}},
    {"v6.example.com", {"2606:4700::1", "93.184.216.34"}},
    {"mixed.example.com", {"8.8.8.8", "10.0.0.1"}},
    {"private.example.com", {"10.0.0.1"}},
    {"loop.example.com", {"127.0.0.1"}},
    {"mapped.example.com", {"::ffff:127.0.0.1"}},
    {"nat64.example.com", {"64:ff9b::a9fe:a9fe"}},
    {"metadata.example.com", {"169.254.169.254"}},
    {"cgnat.example.com", {"100.64.0.1"}},
    {"doc.example.com", {"203.0.113.9"}},
    {"dead.example.com", {"9.9.9.9"}},
    {"other.example.com", {"93.184.216.35"}},
};

static struct addrinfo *answer_of(const char *text, const char *port)
{
    struct addrinfo *i = calloc(1, sizeof *i + sizeof(struct sockaddr_in6));
    i->ai_addr = (struct sockaddr *)(i + 1);
    struct sockaddr_in *four = (struct sockaddr_in *)i->ai_addr;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)i->ai_addr;
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)atoi(port));
        i->ai_addrlen = sizeof *four;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &six->sin6_addr), 1);
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)atoi(port));
        i->ai_addrlen = sizeof *six;
    }
    return i;
}

int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
    (void)hints;
    int turn = __atomic_fetch_add(&sh->resolved, 1, __ATOMIC_RELAXED);
    if (strcmp(name, "flip.example.com") == 0) { /* threat 1: another answer each time */
        *out = answer_of(turn % 2 ? "127.0.0.1" : "93.184.216.34", port);
        return 0;
    }
    if (strcmp(name, "slow.example.com") == 0) {
        sleep(600); /* the broker ends before */
        return EAI_NONAME;
    }
    for (size_t i = 0; i < sizeof world / sizeof *world; i++) {
        if (strcmp(world[i].name, name) != 0)
            continue;
        struct addrinfo **tail = out;
        *out = NULL;
        for (int k = 0; k < 3 && world[i].addrs[k]; k++) {
            *tail = answer_of(world[i].addrs[k], port);
            tail = &(*tail)->ai_next;
        }
        return 0;
    }
    return EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list);
        list = next;
    }
}

/* Outside is here: what goes to a global address arrives at our listener, and getpeername tells what was dialled. */
static struct {
    int fd;
    struct sockaddr_storage peer;
    socklen_t len;
} dialled[4096];

int connect(int fd, const struct sockaddr *to, socklen_t len)
{
    if (to->sa_family != AF_INET && to->sa_family != AF_INET6)
        return (int)syscall(SYS_connect, fd, to, len);
    __atomic_fetch_add(&sh->connects, 1, __ATOMIC_RELAXED);
    const struct sockaddr_in *four = (const struct sockaddr_in *)to;
    bool here = to->sa_family == AF_INET && (ntohl(four->sin_addr.s_addr) >> 24) == 127;
    if (here)
        __atomic_fetch_add(&sh->loopback, 1, __ATOMIC_RELAXED);
    if (here || (to->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)to)->sin6_addr)))
        return (int)syscall(SYS_connect, fd, to, len);
    if (to->sa_family == AF_INET6 || ntohl(four->sin_addr.s_addr) == 0x09090909) {
        errno = ENETUNREACH;
        return -1;
    }
    struct sockaddr_in us = {.sin_family = AF_INET, .sin_port = htons(sh->listener), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 4096) {
        dialled[fd].fd = fd;
        dialled[fd].len = len;
        memcpy(&dialled[fd].peer, to, len);
    }
    return (int)syscall(SYS_connect, fd, &us, sizeof us);
}

int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
    if (fd > 0 && fd < 4096 && dialled[fd].fd == fd) {
        memcpy(addr, &dialled[fd].peer, dialled[fd].len);
        *len = dialled[fd].len;
        return 0;
    }
    return (int)syscall(SYS_getpeername, fd, addr, len);
}

/* ---- the fixture ---- */

static char home[] = "/tmp/sbx-broker-XXXXXX";
static pid_t pid;
static int net = -1, sup = -1, listener = -1;
static uint32_t next_id;

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void put_policy(const char *text)
{
    char *path = policy_path(NULL, NULL);
    put(path, text);
    free(path);
}

static void put_config(const char *text)
{
    char *path = path_in(PATH_CONFIG, NULL, "config.json");
    put(path, text);
    free(path);
}

static int listen_here(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 4096) < 0)
        return -1;
    syscall(SYS_getsockname, fd, &a, &len);
    *port = ntohs(a.sin_port);
    return fd;
}

static void start_broker(void)
{
    int a[2], b[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, b), 0);
    pid = fork();
    if (pid == 0) {
        char *argv[] = {(char *)"broker", (char *)"box", NULL};
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int high_a = fcntl(a[1], F_DUPFD, 100), high_b = fcntl(b[1], F_DUPFD, 100);
        int err = open("/dev/null", O_WRONLY);
        if (!getenv("SBX_TEST_VERBOSE"))
            dup2(err, 2);
        dup2(high_a, 3);
        dup2(high_b, 4);
        close_range(5, ~0u, 0);
        _exit(broker_main(2, argv));
    }
    close(a[1]);
    close(b[1]);
    sup = a[0];
    net = b[0];
    next_id = 1;
    /* "hello" says that it is confined and ready. */
    char hello[256];
    ssize_t n = recv(sup, hello, sizeof hello - 1, 0);
    assert_true(n > 8);
    /* Then net is told of the sentinels, of which there are none. */
    struct answer first;
    assert_true(recv(net, &first, sizeof first, 0) == sizeof first && first.kind == ANSWER_SENTINEL);
}

static int set_up(void **state)
{
    char dir[64];
    (void)state;
    strcpy(home + strlen(home) - 6, "XXXXXX");
    if (!mkdtemp(home))
        return -1;
    snprintf(dir, sizeof dir, "%s/config", home);
    setenv("XDG_CONFIG_HOME", dir, 1);
    snprintf(dir, sizeof dir, "%s/data", home);
    setenv("XDG_DATA_HOME", dir, 1);
    char *sandbox = path_sandbox("box", NULL, NULL);
    path_mkdirs(sandbox, 0700, NULL);
    free(sandbox);
    memset(sh, 0, sizeof *sh);
    listener = listen_here(&sh->listener);
    return listener < 0 ? -1 : 0;
}

static void stop_broker(void)
{
    int status;
    close(sup);
    close(net);
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    pid = 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (pid)
        stop_broker();
    close(listener);
    return path_remove_tree(home, NULL);
}

static struct ask target(const char *host, uint16_t port)
{
    struct ask a = {.id = next_id++, .kind = ASK_CONNECT, .proto = PROTO_TCP, .target.port = port};
    if (inet_pton(AF_INET, host, a.target.addr) == 1) {
        a.target.kind = TARGET_IP4;
    } else if (inet_pton(AF_INET6, host, a.target.addr) == 1) {
        a.target.kind = TARGET_IP6;
    } else {
        a.target.kind = TARGET_NAME;
        a.target.name_len = (uint8_t)strlen(host);
        snprintf(a.target.name, sizeof a.target.name, "%s", host);
    }
    return a;
}

static void tell(const struct ask *a)
{
    assert_int_equal(send(net, a, sizeof *a, MSG_NOSIGNAL), sizeof *a);
}

static struct answer hear(int *fd)
{
    struct answer a;
    union {
        struct cmsghdr h;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {&a, sizeof a};
    ssize_t got;
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct pollfd p = {net, POLLIN, 0};
    *fd = -1;
    do { /* what is told unasked (sentinels) is longer */
        m.msg_controllen = sizeof control;
        if (poll(&p, 1, SOON_MS) != 1)
            fail_msg("no answer");
        got = recvmsg(net, &m, MSG_CMSG_CLOEXEC | MSG_TRUNC);
    } while (got == sizeof(struct answer_sentinel));
    assert_int_equal(got, sizeof a);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    if (h)
        memcpy(fd, CMSG_DATA(h), sizeof *fd);
    assert_int_equal(a.verdict == VERDICT_ALLOW && a.kind == ANSWER_CONNECT, *fd >= 0);
    return a;
}

/* Asks, and ends at once what was allowed. */
static struct answer ask(const char *host, uint16_t port)
{
    int fd;
    struct ask a = target(host, port);
    tell(&a);
    struct answer r = hear(&fd);
    assert_int_equal(r.id, a.id);
    if (fd >= 0) {
        a.kind = ASK_DONE;
        a.bytes_up = 11;
        a.bytes_down = 22;
        tell(&a);
        close(fd);
    }
    return r;
}

static void expect(const char *host, uint16_t port, enum verdict want)
{
    struct answer a = ask(host, port);
    if (a.verdict != want)
        fail_msg("%s:%u: verdict %u, not %u (%s)", host, port, a.verdict, want, a.rule);
}

struct found {
    int64_t rows, count, open, close;
    char host[64], rule[300], reason[300], kind[16];
};

static bool look(const struct decision_row *r, void *arg)
{
    struct found *f = arg;
    f->rows++;
    f->count += r->count;
    f->open += strcmp(r->kind, "open") == 0;
    f->close += strcmp(r->kind, "close") == 0;
    snprintf(f->kind, sizeof f->kind, "%s", r->kind);
    snprintf(f->host, sizeof f->host, "%s", r->host);
    snprintf(f->rule, sizeof f->rule, "%s", r->rule);
    snprintf(f->reason, sizeof f->reason, "%s", r->reason);
    return true;
}

/* What the log holds, and that it holds together. */
static struct found logged(const char *host, const char *verdict)
{
    struct found f = {0};
    struct err e = {0};
    int64_t rows;
    char *path = path_sandbox("box", "log.db", NULL);
    struct decisions *d = decisions_read(path, &e);
    free(path);
    if (!d)
        fail_msg("%s", e.text);
    struct decisions_filter q = {.host = host, .verdict = verdict};
    assert_int_equal(decisions_each(d, &q, look, &f, &e), 0);
    if (decisions_verify(d, &rows, &e) < 0 && !strstr(e.text, "while the sandbox ran")) /* that a test took it away is told */
        fail_msg("%s", e.text);
    decisions_close(d);
    return f;
}

/* ---- what must hold ---- */

static void allowed_and_denied(void **state)
{
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"rules\": ["
               "{\"id\": \"1\", \"action\": \"allow\", \"target\": \"public.example.com\"},"
               "{\"id\": \"2\", \"action\": \"allow\", \"target\": \"v6.example.com:443\"},"
               "{\"id\": \"3\", \"action\": \"allow\", \"target\": \"dead.example.com\"},"
               "{\"id\": \"4\", \"action\": \"allow\", \"target\": \"nowhere.example.com\"},"
               "{\"id\": \"aa\", \"action\": \"deny\", \"target\": \"ads.example.com\"}]}");
    start_broker();
    expect("public.example.com", 443, VERDICT_ALLOW);
    expect("v6.example.com", 443, VERDICT_ALLOW); /* the second address, when the first fails */
    expect("v6.example.com", 444, VERDICT_DENY);
    expect("nowhere.example.com", 443, VERDICT_NO_NAME);
    struct answer a = ask("dead.example.com", 443);
    assert_int_equal(a.verdict, VERDICT_UNREACHABLE);
    assert_int_equal(a.error, ENETUNREACH);
    int before = sh->resolved;
    a = ask("other.example.com", 443);
    assert_int_equal(a.verdict, VERDICT_DENY);
    assert_string_equal(a.rule, "posture locked-down");
    assert_string_equal(a.hint, "sbx policy allow network box other.example.com");
    a = ask("other.example.com", 22);
    assert_string_equal(a.hint, "sbx policy allow network box other.example.com:22");
    a = ask("ads.example.com", 443);
    assert_string_equal(a.hint, "sbx policy rm -g aa");
    expect("8.8.8.8", 443, VERDICT_DENY);
    assert_int_equal(sh->resolved, before); /* a denied name is not even looked up */
    stop_broker();
    struct found f = logged("public.example.com", "allow");
    assert_int_equal(f.rows, 2);
    assert_int_equal(f.open, 1);
    assert_int_equal(f.close, 1);
    assert_int_equal(logged("other.example.com", "deny").count, 2);
    assert_int_equal(logged("dead.example.com", "fail").rows, 1);
}

static void open_posture(const char *rules)
{
    char text[1024];
    snprintf(text, sizeof text, "{\"version\": 1, \"posture\": \"open\", \"rules\": [%s]}", rules);
    put_policy(text);
}

static void threat_01_rebinding(void **state)
{
    (void)state;
    open_posture("");
    start_broker();
    int allowed = 0, denied = 0;
    for (int i = 0; i < 10000; i++) {
        struct answer a = ask("flip.example.com", 443);
        allowed += a.verdict == VERDICT_ALLOW;
        denied += a.verdict == VERDICT_DENY;
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd >= 0)
            close(fd);
    }
    assert_int_equal(sh->loopback, 0);
    assert_int_equal(allowed, 5000);
    assert_int_equal(denied, 5000);
    assert_int_equal(sh->connects, allowed);
    assert_int_equal(sh->resolved, 10000); /* once for each */
}

static void threat_02_mixed_answers(void **state)
{
    (void)state;
    open_posture("");
    start_broker();
    expect("mixed.example.com", 443, VERDICT_DENY);
    assert_int_equal(sh->connects, 0);
    stop_broker();
    assert_string_equal(logged("mixed", NULL).reason, "address check: a private address");
}

static void threat_05_15_16_names_of_inner_addresses(void **state)
{
    static const char *const names[] = {"private.example.com", "loop.example.com", "mapped.example.com", "nat64.example.com",
                                        "metadata.example.com", "cgnat.example.com", "doc.example.com",
                                        "metadata.google.internal"};
    static const char *const literals[] = {"127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1",
                                           "fd00:ec2::254", "192.168.1.1", "0.0.0.0", "::", "fe80::1", "224.0.0.1"};
    (void)state;
    /* Wildcards and wide ranges do not open them either. */
    open_posture("{\"action\": \"allow\", \"target\": \"**.example.com\"}, {\"action\": \"allow\", \"target\": \"0.0.0.0/0\"},"
                 "{\"action\": \"allow\", \"target\": \"::/0\"}, {\"action\": \"allow\", \"target\": \"private.example.com\"}");
    start_broker();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        expect(names[i], 80, VERDICT_DENY);
    for (size_t i = 0; i < sizeof literals / sizeof *literals; i++)
        expect(literals[i], 80, VERDICT_DENY);
    struct answer a = ask("private.example.com", 80);
    assert_string_equal(a.hint, "sbx policy allow network box private.example.com:80");
    a = ask("metadata.example.com", 80);
    assert_string_equal(a.hint, "");
    assert_int_equal(sh->connects, 0);
}

static void threat_15_metadata_above_rules(void **state)
{
    (void)state;
    open_posture("{\"action\": \"allow\", \"target\": \"metadata.example.com:80\"},"
                 "{\"action\": \"allow\", \"target\": \"169.254.169.254\"}, {\"action\": \"allow\", \"target\": \"169.254.0.0/16\"}");
    put_config("{\"net.outside\": [\"169.254.0.0/16\"], \"net.map\": {\"public.example.com:80\": \"169.254.169.254:80\"}}");
    start_broker();
    expect("metadata.example.com", 80, VERDICT_DENY);
    expect("169.254.169.254", 80, VERDICT_DENY);
    expect("::ffff:169.254.169.254", 80, VERDICT_DENY);
    expect("public.example.com", 80, VERDICT_DENY);
    assert_int_equal(sh->connects, 0);
}

static void threat_17_host_services(void **state)
{
    uint16_t port;
    char rules[128];
    (void)state;
    int service = listen_here(&port);
    snprintf(rules, sizeof rules, "{\"action\": \"allow\", \"target\": \"localhost:%u\"}", port);
    open_posture(rules);
    start_broker();
    expect("host.docker.internal", port, VERDICT_ALLOW);
    expect("host.sbx.internal", port, VERDICT_ALLOW);
    expect("host.docker.internal", sh->listener, VERDICT_DENY);
    expect("localhost", sh->listener, VERDICT_DENY);
    expect("loop.example.com", port, VERDICT_DENY); /* another name for it is not that rule */
    expect("127.0.0.1", port, VERDICT_DENY);
    close(service);
    expect("host.docker.internal", port, VERDICT_UNREACHABLE);
}

static void threat_97_inner_names_need_a_rule(void **state)
{
    (void)state;
    open_posture("{\"action\": \"allow\", \"target\": \"private.example.com:443\"}");
    start_broker();
    expect("private.example.com", 443, VERDICT_ALLOW);
    expect("private.example.com", 80, VERDICT_DENY);
}

static void denied_addresses(void **state)
{
    (void)state;
    open_posture("{\"action\": \"deny\", \"target\": \"93.184.216.0/24\"}");
    start_broker();
    expect("public.example.com", 443, VERDICT_DENY);
    assert_int_equal(sh->connects, 0);
}

static void settings(void **state)
{
    char config[256];
    (void)state;
    open_posture("{\"action\": \"deny\", \"target\": \"other.example.com\"}");
    snprintf(config, sizeof config,
             "{\"net.outside\": [\"10.0.0.0/8\"], \"net.map\": {\"unknown.example.com:443\": \"127.0.0.1:%u\","
             " \"other.example.com:443\": \"127.0.0.1:%u\"}}", sh->listener, sh->listener);
    put_config(config);
    start_broker();
    expect("unknown.example.com", 443, VERDICT_ALLOW);
    expect("unknown.example.com", 80, VERDICT_NO_NAME);
    expect("other.example.com", 443, VERDICT_DENY); /* the decision is by the name */
    expect("private.example.com", 443, VERDICT_ALLOW);
    expect("cgnat.example.com", 443, VERDICT_DENY);
}

static char *until(const char *text);

static bool readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
}

/* Asks until a change of the rules is in force.  How soon it is, is no matter of a test: machines stall. */
static void becomes(const char *host, enum verdict want)
{
    for (int i = 0; i < SOON_MS / 20 && ask(host, 443).verdict != want; i++)
        usleep(20000);
    expect(host, 443, want);
}

/* An edited policy is in force at once, also for what is open; and net need not help. */
static void rules_change_live(void **state)
{
    int fd, kept;
    (void)state;
    open_posture("");
    start_broker();
    struct ask one = target("public.example.com", 443), two = target("other.example.com", 443);
    tell(&one);
    hear(&fd);
    tell(&two);
    hear(&kept);
    open_posture("{\"action\": \"deny\", \"target\": \"93.184.216.34\"}"); /* by its address */
    int none;
    struct answer a = hear(&none);
    assert_int_equal(a.kind, ANSWER_CUT);
    assert_int_equal(a.id, one.id);
    char c;
    assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), 0); /* shut by the broker */
    assert_true(recv(kept, &c, 1, MSG_DONTWAIT) < 0);
    expect("public.example.com", 443, VERDICT_DENY);
    open_posture("");
    becomes("public.example.com", VERDICT_ALLOW);
    /* A rule that runs out. */
    char text[256];
    struct timespec when;
    long long expires = (long long)time(NULL) + 2;
    snprintf(text, sizeof text, "{\"version\": 1, \"posture\": \"locked-down\", \"rules\": [{\"action\": \"allow\", \"target\":"
             " \"other.example.com\", \"expires\": %lld}]}", expires);
    put_policy(text);
    a = hear(&none);
    clock_gettime(CLOCK_REALTIME, &when);
    assert_int_equal(a.kind, ANSWER_CUT);
    assert_int_equal(a.id, two.id);
    assert_true(when.tv_sec >= expires);
    close(fd);
    close(kept);
}

static void threat_100_broken_policy_denies(void **state)
{
    (void)state;
    open_posture("");
    start_broker();
    expect("public.example.com", 443, VERDICT_ALLOW);
    put_policy("{\"version\": 1, \"posture\": \"open\", \"ruels\": []}");
    until("ruels");
    struct answer a = ask("public.example.com", 443);
    assert_int_equal(a.verdict, VERDICT_DENY);
    assert_string_equal(a.rule, "the policy file, which cannot be read");
    open_posture("");
    becomes("public.example.com", VERDICT_ALLOW);
    stop_broker();
    assert_int_equal(logged("", NULL).rows > 3, 1);
}

/* Rules that lie elsewhere, behind a link: a change of them is in force as well, and they can still be read. */
static void behind_a_link(const char *dir, const char *to)
{
    char file[80], *path = policy_path(NULL, NULL);
    struct err e = {0};
    struct stat st, now;
    snprintf(file, sizeof file, "%s/network.json", dir);
    assert_true(mkdir(dir, 0700) == 0 || errno == EEXIST);
    put(file, "{\"version\": 1, \"posture\": \"open\"}");
    assert_int_equal(chmod(file, 0640), 0);
    assert_int_equal(symlink(to, path), 0);
    start_broker();
    expect("public.example.com", 443, VERDICT_ALLOW);
    put(file, "{\"version\": 1, \"posture\": \"locked-down\"}");
    becomes("public.example.com", VERDICT_DENY);
    put(file, "{\"version\": 1, \"posture\": \"open\"}");
    becomes("public.example.com", VERDICT_ALLOW);
    /* A command writes what the link leads to, and leaves the link; what it writes can be read by who runs already. */
    assert_int_equal(policy_set_posture(NULL, POSTURE_LOCKED, &e), 0);
    becomes("public.example.com", VERDICT_DENY);
    struct rule rule = {0};
    assert_int_equal(rule_parse(&rule, "public.example.com", &e), 0);
    assert_int_equal(policy_add(NULL, &rule, 1, &e), 0);
    becomes("public.example.com", VERDICT_ALLOW);
    assert_int_equal(policy_reset(NULL, &e), 0); /* which is shorter */
    becomes("public.example.com", VERDICT_DENY);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(stat(file, &now), 0);
    assert_int_equal(st.st_ino, now.st_ino);
    assert_int_equal(st.st_mode & 0777, 0640);
    free(path);
}

static void rules_behind_a_link_change_live(void **state)
{
    char dir[64];
    (void)state;
    snprintf(dir, sizeof dir, "%s/dotfiles", home);
    behind_a_link(dir, "../../dotfiles/network.json");
}

/* In the home itself, of which the broker sees that file alone. */
static void rules_behind_a_link_in_the_home_change_live(void **state)
{
    char file[80], *before = strdup(getenv("HOME") ? getenv("HOME") : "/");
    (void)state;
    snprintf(file, sizeof file, "%s/network.json", home);
    setenv("HOME", home, 1);
    behind_a_link(home, file);
    setenv("HOME", before, 1);
    free(before);
}

static char request_hint[256];

static unsigned request(uint32_t id, const char *method, const char *path, bool ambiguous)
{
    struct ask_request r = {.id = id, .kind = ASK_REQUEST, .version = 1, .request = 7, .ambiguous = ambiguous};
    int none;
    strcpy(r.method, method);
    strcpy(r.path, path);
    r.path_len = (uint16_t)strlen(path);
    assert_int_equal(send(net, &r, sizeof r, 0), sizeof r);
    struct answer a = hear(&none);
    assert_int_equal(a.kind, ANSWER_REQUEST);
    assert_int_equal(a.request, 7);
    snprintf(request_hint, sizeof request_hint, "%.*s", (int)sizeof a.hint, a.hint);
    return a.verdict;
}

static void requests_are_judged_one_by_one(void **state)
{
    int fd;
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"rules\": ["
               "{\"action\": \"allow\", \"target\": \"GET public.example.com\"},"
               "{\"action\": \"allow\", \"target\": \"other.example.com\"},"
               "{\"action\": \"deny\", \"target\": \"other.example.com/admin\"}]}");
    start_broker();
    struct ask a = target("public.example.com", 443);
    tell(&a);
    struct answer r = hear(&fd);
    assert_int_equal(r.verdict, VERDICT_ALLOW);
    assert_true(r.flags & ANSWER_INTERCEPT);
    assert_int_equal(request(a.id, "GET", "/x", false), VERDICT_ALLOW);
    assert_int_equal(request(a.id, "POST", "/x", false), VERDICT_DENY);
    assert_string_equal(request_hint, "sbx policy allow network box 'POST public.example.com/x'");
    /* The command is for a person to copy: what the guest wrote adds no rule to it, and no command. */
    assert_int_equal(request(a.id, "POST", "/x,evil.test", false), VERDICT_DENY);
    assert_string_equal(request_hint, "sbx policy allow network box 'POST public.example.com/x\\,evil.test'");
    assert_int_equal(request(a.id, "POST", "/'$(id)", false), VERDICT_DENY);
    assert_string_equal(request_hint, "sbx policy allow network box 'POST public.example.com/'\\''$(id)'");
    assert_int_equal(request(a.id, "POST", "/a*b", false), VERDICT_DENY);
    assert_string_equal(request_hint, "sbx policy allow network box 'POST public.example.com'");
    assert_int_equal(request(a.id, "X'`id`", "/x", false), VERDICT_DENY);
    assert_string_equal(request_hint, "sbx policy allow network box public.example.com");
    assert_int_equal(request(a.id, "GET", "/a/../x", true), VERDICT_DENY);
    assert_int_equal(request(a.id + 1000, "GET", "/x", false), VERDICT_DENY); /* no such connection */
    close(fd);
    a = target("other.example.com", 443);
    tell(&a);
    hear(&fd);
    assert_int_equal(request(a.id, "GET", "/", false), VERDICT_ALLOW);
    assert_int_equal(request(a.id, "GET", "/admin/users", false), VERDICT_DENY);
    close(fd);
    stop_broker();
    struct found f = logged("other.example.com", "deny");
    assert_string_equal(f.kind, "request");
}

/* From another process, as a full disk would: the next row fails, or none does any more. */
static void break_log(const char *how)
{
    char *path = path_sandbox("box", "log.db", NULL);
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    assert_int_equal(sqlite3_exec(db, how, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    free(path);
}

static void threat_99_what_cannot_be_logged_does_not_happen(void **state)
{
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"rules\": ["
               "{\"action\": \"allow\", \"target\": \"other.example.com\"},"
               "{\"action\": \"allow\", \"target\": \"GET public.example.com\"}]}");
    start_broker();
    int inside;
    struct ask a = target("public.example.com", 443);
    tell(&a);
    assert_true(hear(&inside).flags & ANSWER_INTERCEPT);
    assert_int_equal(request(a.id, "GET", "/one", false), VERDICT_ALLOW);
    int before = sh->connects;
    break_log("CREATE TRIGGER full BEFORE INSERT ON rows BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END");
    for (int i = 0; i < 3; i++)
        assert_int_not_equal(ask("other.example.com", 443).verdict, VERDICT_ALLOW);
    assert_int_equal(sh->connects, before);
    assert_int_equal(request(a.id, "GET", "/two", false), VERDICT_DENY);
    break_log("DROP TRIGGER full");
    assert_int_equal(request(a.id, "GET", "/three", false), VERDICT_ALLOW);
    expect("other.example.com", 443, VERDICT_ALLOW);
    assert_int_equal(sh->connects, before + 1);
    close(inside);
    stop_broker();
    assert_int_equal(logged("other.example.com", "allow").open, 1);
    assert_int_equal(logged("public.example.com", "allow").rows, 3); /* opened, and the two requests */
}

/* An answer says that its row is safe, whatever happens to the broker then. */
static void threat_99_a_broker_that_is_killed_loses_no_request(void **state)
{
    int inside, status;
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"rules\": [{\"action\": \"allow\", \"target\": \"GET public.example.com\"}]}");
    for (int round = 1; round <= 3; round++) {
        start_broker();
        struct ask a = target("public.example.com", 443);
        tell(&a);
        assert_int_equal(hear(&inside).verdict, VERDICT_ALLOW);
        for (int i = 0; i < round; i++)
            assert_int_equal(request(a.id, "GET", "/x", false), VERDICT_ALLOW);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        close(inside);
        close(sup);
        close(net);
    }
    start_broker();
    stop_broker();
    assert_int_equal(logged("public.example.com", "allow").rows, 3 + 1 + 2 + 3);
}

/* The log goes away under the broker: it says so, begins another, and allows nothing while it cannot. */
static void threat_99_a_log_that_is_removed_or_has_no_place(void **state)
{
    (void)state;
    open_posture("");
    start_broker();
    expect("public.example.com", 443, VERDICT_ALLOW);
    kill(pid, SIGSTOP); /* it would put away itself what is left of them */
    int stopped;
    assert_int_equal(waitpid(pid, &stopped, WUNTRACED), pid); /* a signal takes its time */
    assert_true(WIFSTOPPED(stopped));
    for (int i = 0; i < 3; i++) {
        static const char *const files[] = {"log.db", "log.db-wal", "log.db-shm"};
        char *path = path_sandbox("box", files[i], NULL);
        assert_true(unlink(path) == 0 || (i && errno == ENOENT)); /* the row may still lie ahead of the log alone */
        free(path);
    }
    kill(pid, SIGCONT);
    until("\"lost\":true"); /* at once, and without a decision */
    expect("other.example.com", 443, VERDICT_ALLOW);
    assert_int_equal(logged("other.example.com", "allow").open, 1);
    assert_int_equal(logged("", "fail").rows, 1);
    char *own = path_sandbox("box", NULL, NULL);
    int before = sh->connects;
    int removed = -1;
    for (int i = 0; removed < 0 && i < SOON_MS; i++) /* while the broker makes files in it */
        removed = path_remove_tree(own, NULL);
    assert_int_equal(removed, 0);
    free(own);
    until("\"ok\":false");
    expect("other.example.com", 443, VERDICT_DENY);
    assert_int_equal(sh->connects, before);
}

/* Refusals that cannot be written are counted, and written when they can be. */
static void threat_84_refusals_wait_for_a_log_that_fails(void **state)
{
    char name[40];
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\"}");
    start_broker();
    expect("n0.example.com", 443, VERDICT_DENY);
    break_log("CREATE TRIGGER full BEFORE INSERT ON rows BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END");
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "n%d.example.com", i % 100);
        expect(name, 443, VERDICT_DENY);
    }
    until("\"ok\":false"); /* a round of writing, which failed */
    break_log("DROP TRIGGER full");
    for (int i = 0; i < SOON_MS / 50 && logged(NULL, NULL).count < 201; i++)
        usleep(50000);
    assert_int_equal(logged(NULL, NULL).count, 201);
    until("\"text\":\"\"");
}

static size_t leaf(uint32_t id)
{
    struct ask_leaf l = {.id = id, .kind = ASK_LEAF};
    struct answer_leaf a;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    size_t len;
    assert_int_equal(EVP_PKEY_get_octet_string_param(key, "pub", l.point, sizeof l.point, &len), 1);
    EVP_PKEY_free(key);
    assert_int_equal(send(net, &l, sizeof l, 0), sizeof l);
    assert_int_equal(recv(net, &a, sizeof a, 0), sizeof a);
    assert_int_equal(a.kind, ANSWER_LEAF);
    return a.verdict == VERDICT_ALLOW ? a.len : 0;
}

/* The connection is to what was vetted when it was made; its requests are judged, and nobody asks for the name again. */
static void threat_03_requests_after_rebinding(void **state)
{
    int fd;
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"rules\": [{\"action\": \"allow\", \"target\": \"flip.example.com/ok\"}]}");
    start_broker();
    struct ask a = target("flip.example.com", 443);
    tell(&a);
    while (hear(&fd).verdict != VERDICT_ALLOW) { /* the answer of the moment may be the inner address */
        a.id = next_id++;
        tell(&a);
    }
    int resolved = sh->resolved, connects = sh->connects, loopback = sh->loopback;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(request(a.id, "GET", "/ok", false), VERDICT_ALLOW);
        assert_int_equal(request(a.id, "GET", "/other", false), VERDICT_DENY);
    }
    assert_int_equal(sh->resolved, resolved);
    assert_int_equal(sh->connects, connects);
    assert_int_equal(sh->loopback, loopback);
    assert_int_equal(loopback, 0);
    close(fd);
}

static int descriptors_of_the_broker(void)
{
    char cmd[64], out[32] = "";
    snprintf(cmd, sizeof cmd, "ls /proc/%d/fd | wc -l", pid);
    FILE *f = popen(cmd, "r");
    assert_non_null(fgets(out, sizeof out, f));
    pclose(f);
    return atoi(out);
}

/* Connections to ourselves, by whatever address of this host: refused before they are made, and nothing piles up. */
static void threat_18_loops_to_ourselves(void **state)
{
    (void)state;
    open_posture("");
    start_broker();
    expect("public.example.com", 443, VERDICT_ALLOW);
    int before = descriptors_of_the_broker();
    for (int i = 0; i < 100; i++) {
        expect("127.0.0.1", sh->listener, VERDICT_DENY);
        expect("::1", sh->listener, VERDICT_DENY);
        expect("loop.example.com", sh->listener, VERDICT_DENY);
        expect("host.docker.internal", sh->listener, VERDICT_DENY);
    }
    assert_true(descriptors_of_the_broker() <= before); /* the first connection may have been open still */
    assert_int_equal(sh->loopback, 0);
}

/* A query is answered out of our own head: whatever a guest puts into names, nothing of it goes anywhere. */
static void threat_58_queries_carry_nothing_out(void **state)
{
    char name[80];
    int fd;
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"rules\": [{\"action\": \"allow\", \"target\": \"**.example.com\"},"
               "{\"action\": \"deny\", \"target\": \"**.tunnel.example.com\"}]}");
    start_broker();
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "%08x%08x.%s", i * 2654435761u, i * 40503u, i % 2 ? "t.tunnel.example.com" : "public.example.com");
        struct ask a = target(name, 53);
        a.kind = ASK_NAME;
        a.proto = PROTO_DNS;
        tell(&a);
        assert_int_equal(hear(&fd).verdict, i % 2 ? VERDICT_DENY : VERDICT_ALLOW);
    }
    assert_int_equal(sh->resolved, 0);
    assert_int_equal(sh->connects, 0);
}

static void threat_55_certificates_only_for_what_was_asked(void **state)
{
    int fd;
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"rules\": [{\"action\": \"allow\", \"target\": \"GET public.example.com\"}]}");
    start_broker();
    assert_int_equal(leaf(4711), 0); /* a connection that nobody asked for */
    struct ask a = target("public.example.com", 443);
    tell(&a);
    hear(&fd);
    assert_true(leaf(a.id) > 300);
    close(fd);
    struct ask b = target("denied.example.com", 443);
    tell(&b);
    assert_true(hear(&fd).flags & ANSWER_INTERCEPT); /* so that its 403 can be read */
    assert_true(leaf(b.id) > 300);
    size_t issued = 0;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < 200; i++) /* each for another key */
        issued += leaf(a.id) > 0;
    clock_gettime(CLOCK_MONOTONIC, &to);
    assert_in_range(issued, 20, 2 * BROKER_LEAVES_RATE + BROKER_LEAVES_RATE * (to.tv_sec - from.tv_sec + 1));
}

static void names(void **state)
{
    static const struct {
        const char *name;
        enum verdict want;
    } cases[] = {{"public.example.com", VERDICT_ALLOW}, {"unlisted.example.com", VERDICT_ALLOW},
                 {"ads.example.com", VERDICT_DENY}, {"metadata.google.internal", VERDICT_DENY}};
    int none;
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"rules\": ["
               "{\"action\": \"deny\", \"target\": \"ads.example.com\"}]}");
    start_broker();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ask a = target(cases[i].name, 0);
        a.kind = ASK_NAME;
        tell(&a);
        struct answer r = hear(&none);
        assert_int_equal(r.kind, ANSWER_NAME);
        if (r.verdict != cases[i].want)
            fail_msg("%s", cases[i].name);
    }
    assert_int_equal(sh->resolved, 0); /* a query carries nothing out (threat 58) */
}

static void threat_06_07_08_only_canonical_names(void **state)
{
    static const char *const bad[] = {"API.example.com", "api.example.com.", "api..example.com", "-a.example.com", "a b.com",
                                      "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "a@b.com", "a%00.com", "[::1]",
                                      "\xc3\xa4.com", "a/b.com", "fe80::1%eth0", ""};
    (void)state;
    open_posture("");
    start_broker();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect(bad[i], 443, VERDICT_DENY);
    int none;
    for (int c = 0; c < 256; c++) {
        struct ask a = target("public.example.com", 443);
        a.target.name[3] = (char)c;
        bool word = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
        if (word)
            continue;
        tell(&a);
        assert_int_equal(hear(&none).verdict, VERDICT_DENY);
    }
    struct ask a = target("public.example.com", 443);
    a.target.name_len = 5; /* a length that is not the string's */
    tell(&a);
    assert_int_equal(hear(&none).verdict, VERDICT_DENY);
    assert_int_equal(sh->resolved, 0);
}

/* A broken-into net: nothing it sends ends the broker, and it goes on answering. */
static void hostile_net(void **state)
{
    int none;
    (void)state;
    open_posture("");
    start_broker();
    srand(1);
    for (int i = 0; i < 3000; i++) {
        union {
            struct ask a;
            uint8_t bytes[sizeof(struct ask) + 64];
        } u;
        for (size_t k = 0; k < sizeof u.bytes; k++)
            u.bytes[k] = (uint8_t)rand();
        size_t n = i % 3 ? sizeof u.a : (size_t)rand() % sizeof u.bytes;
        u.a.id = 1000000;
        if (i % 3)
            u.a.kind = (uint8_t)(1 + rand() % 8);
        if (i % 5 == 0)
            u.a.proto = PROTO_TCP;
        if (n)
            send(net, u.bytes, n, MSG_DONTWAIT);
        while (readable(net))
            hear(&none);
    }
    /* A descriptor that it did not ask for is dropped. */
    struct ask last = target("public.example.com", 443); /* answered after all that came before */
    tell(&last);
    int fd;
    while (hear(&fd).id != last.id)
        continue;
    assert_true(fd >= 0);
    close(fd);
    expect("public.example.com", 443, VERDICT_ALLOW);
    /* The same number twice: the second is refused, the first lives. */
    struct ask a = target("public.example.com", 443);
    tell(&a);
    hear(&fd);
    tell(&a);
    assert_int_equal(hear(&none).verdict, VERDICT_UNREACHABLE);
    close(fd);
}

static void threat_18_79_flood(void **state)
{
    (void)state;
    open_posture("");
    start_broker();
    /* Names that take long: beyond the bound they are refused at once, and others are still served. */
    for (int i = 0; i < 200; i++) {
        struct ask a = target("slow.example.com", 443);
        tell(&a);
    }
    int fd, refused = 0;
    while (refused < 136) {
        struct answer r = hear(&fd);
        assert_int_equal(r.verdict, VERDICT_UNREACHABLE);
        assert_int_equal(r.error, EAGAIN);
        refused++;
    }
    for (uint32_t id = 1; id <= 200; id++) {
        struct ask a = {.id = id, .kind = ASK_CANCEL};
        tell(&a);
    }
    assert_int_equal(kill(pid, 0), 0);
}

static void connections_are_bounded(void **state)
{
    int fds[700], open = 0, refused = 0;
    (void)state;
    open_posture("");
    start_broker();
    for (int i = 0; i < 700; i++) {
        struct ask a = target("public.example.com", 443);
        tell(&a);
        struct answer r = hear(&fds[i]);
        open += r.verdict == VERDICT_ALLOW;
        refused += r.verdict == VERDICT_UNREACHABLE;
    }
    assert_int_equal(open, 512 + 64);
    assert_int_equal(refused, 700 - open);
    for (uint32_t id = 1; id <= 700; id++) {
        struct ask a = {.id = id, .kind = ASK_DONE};
        tell(&a);
        if (fds[id - 1] >= 0)
            close(fds[id - 1]);
    }
    expect("public.example.com", 443, VERDICT_ALLOW);
}

static void threat_84_log_flood(void **state)
{
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\"}");
    start_broker();
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof name, "h%d.example.com", i < 10000 ? 0 : i);
        expect(name, 443, VERDICT_DENY);
    }
    stop_broker();
    clock_gettime(CLOCK_MONOTONIC, &to);
    struct found f = logged(NULL, NULL);
    if (f.count != 20000) /* every one is in a row, or in the count of the dropped */
        fail_msg("%lld of 20000 are accounted for", (long long)f.count);
    assert_in_range(f.rows, 1, (JOURNAL_RATE + 100) * (to.tv_sec - from.tv_sec + 2)); /* and some for repeats */
}

static void threat_99_a_decision_stands_before_the_connection(void **state)
{
    (void)state;
    open_posture("");
    start_broker();
    for (int i = 0; i < 50; i++) {
        int fd;
        struct ask a = target("public.example.com", 443);
        tell(&a);
        hear(&fd);
        assert_int_equal(logged("public.example.com", "allow").open, i + 1); /* while it is open */
        a.kind = ASK_DONE;
        tell(&a);
        close(fd);
    }
    stop_broker();
    struct found f = logged("public.example.com", "allow");
    assert_int_equal(f.open, sh->connects);
    assert_int_equal(f.close, f.open);
}

static void mismatch_and_refused_packets(void **state)
{
    int fd;
    (void)state;
    open_posture("");
    start_broker();
    struct ask a = target("public.example.com", 443);
    tell(&a);
    hear(&fd);
    a.kind = ASK_MISMATCH;
    strcpy(a.seen, "evil\x1b[31m.example");
    tell(&a);
    struct ask u = target("8.8.8.8", 443);
    u.kind = ASK_REFUSED;
    u.proto = PROTO_UDP;
    u.count = 7;
    tell(&u);
    expect("public.example.com", 443, VERDICT_ALLOW);
    char c;
    assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), 0);
    stop_broker();
    assert_string_equal(logged("public", "deny").reason, "it speaks to \"evil\\x1b[31m.example\"");
    assert_int_equal(logged("8.8.8.8", "deny").count, 7);
    close(fd);
}

/* ---- ask mode ---- */

static void to_broker(const char *json)
{
    size_t n = strlen(json);
    unsigned char frame[512] = {(unsigned char)n, (unsigned char)(n >> 8)};
    frame[4] = 1; /* FRAME_CTRL */
    memcpy(frame + 8, json, n);
    assert_int_equal(send(sup, frame, 8 + n, MSG_NOSIGNAL), 8 + n);
}

/* Reads what the broker says until it holds the text. */
static char *until(const char *text)
{
    static char all[16384];
    size_t len = 0;
    struct pollfd p = {sup, POLLIN, 0};
    while (!memmem(all, len, text, strlen(text))) {
        if (poll(&p, 1, SOON_MS) != 1 || len >= sizeof all - 1)
            fail_msg("the broker did not say %s", text);
        ssize_t n = recv(sup, all + len, sizeof all - 1 - len, 0);
        assert_true(n > 0);
        len += (size_t)n;
    }
    for (size_t i = 0; i < len; i++)
        if (!all[i])
            all[i] = ' ';
    all[len] = '\0';
    return all;
}

/* The number of the question that a note with this text is about. */
static long question(const char *text)
{
    char *said = until(text), *mark = strstr(said, text), *at = NULL;
    for (char *p = said; (p = strstr(p, "\"ask\":")) && p < mark + 200; p += 6)
        at = p;
    assert_non_null(at);
    return strtol(at + 6, NULL, 10);
}

/* Who can answer; the broker has heard it when this returns. */
static void askers(int n)
{
    char text[80];
    snprintf(text, sizeof text, "{\"op\":\"askers\",\"count\":%d}", n);
    to_broker(text);
    to_broker("{\"op\":\"stats\",\"id\":1}");
    until("bytes_down");
}

static void answer_question(long number, bool allow)
{
    char text[128];
    snprintf(text, sizeof text, "{\"op\":\"answer\",\"id\":9,\"ask\":%ld,\"allow\":%s}", number, allow ? "true" : "false");
    to_broker(text);
}

#define ASKING "{\"version\": 1, \"posture\": \"locked-down\", \"ask\": true, \"rules\": [" \
               "{\"id\": \"d\", \"action\": \"deny\", \"target\": \"ads.example.com\"}]}"

static void asked_and_answered(void **state)
{
    int fd;
    (void)state;
    put_policy(ASKING);
    start_broker();
    /* Without anybody to be asked the answer is no, and at once. */
    assert_string_equal(ask("public.example.com", 443).hint, "sbx policy allow network box public.example.com");
    askers(1);
    struct ask a = target("public.example.com", 443), b = target("public.example.com", 443);
    tell(&a);
    tell(&b);
    long number = question("\"count\":2");
    /* What a rule denies is not asked about, and what is asked holds up nothing else. */
    expect("ads.example.com", 443, VERDICT_DENY);
    answer_question(number, true);
    for (int i = 0; i < 2; i++) { /* one answer for all that wait */
        struct answer r = hear(&fd);
        assert_int_equal(r.verdict, VERDICT_ALLOW);
        close(fd);
        a.kind = ASK_DONE;
        a.id = r.id;
        tell(&a);
    }
    until("\"ok\":true");
    /* It was for once. */
    a = target("public.example.com", 443);
    tell(&a);
    answer_question(question("left_ms"), false);
    assert_int_equal(hear(&fd).verdict, VERDICT_DENY);
    /* Who said no is not asked the same again at once. */
    expect("public.example.com", 443, VERDICT_DENY);
    /* An answer to what was not asked. */
    to_broker("{\"op\":\"answer\",\"id\":5,\"ask\":777,\"allow\":true}");
    until("not open any more");
    stop_broker();
    struct found f = logged("public.example.com", "allow");
    assert_int_equal(f.open, 2);
    assert_string_equal(f.rule, "allowed when asked");
    assert_string_equal(logged("public.example.com", "deny").reason, "denied when asked a moment ago");
}

static void asked_and_ruled(void **state)
{
    int fd;
    (void)state;
    put_policy(ASKING);
    start_broker();
    askers(1);
    struct ask a = target("public.example.com", 443), b = target("other.example.com", 443), c = target("v6.example.com", 443);
    tell(&a);
    tell(&b);
    tell(&c);
    until("v6.example.com");
    /* Rules answer as well. */
    put_policy("{\"version\": 1, \"posture\": \"locked-down\", \"ask\": true, \"rules\": ["
               "{\"id\": \"d\", \"action\": \"deny\", \"target\": \"other.example.com\"},"
               "{\"id\": \"a\", \"action\": \"allow\", \"target\": \"public.example.com\"}]}");
    for (int i = 0; i < 2; i++) {
        struct answer r = hear(&fd);
        assert_int_equal(r.verdict, r.id == a.id ? VERDICT_ALLOW : VERDICT_DENY);
        if (fd >= 0)
            close(fd);
    }
    /* The guest gives up; the one who was asked goes away: nothing hangs. */
    c.kind = ASK_CANCEL;
    tell(&c);
    a = target("dead.example.com", 443);
    tell(&a);
    until("dead.example.com");
    askers(0);
    assert_int_equal(hear(&fd).verdict, VERDICT_DENY);
    assert_string_equal(logged("dead.example.com", "deny").reason, "nobody answered when asked");
}

static void unanswered_is_denied(void **state)
{
    int fd;
    (void)state;
    put_config("{\"net.ask_seconds\": 5}");
    put_policy(ASKING);
    start_broker();
    askers(2);
    struct ask a = target("public.example.com", 443);
    tell(&a);
    assert_int_equal(hear(&fd).verdict, VERDICT_DENY);
    until("unanswered");
    assert_int_equal(sh->resolved, 0);
}

static void questions_are_bounded(void **state)
{
    int fd, denied = 0;
    char name[40];
    (void)state;
    put_policy(ASKING);
    start_broker();
    askers(1);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "n%d.example.com", i);
        struct ask a = target(name, 443);
        tell(&a);
    }
    while (denied < 84) {
        assert_int_equal(hear(&fd).verdict, VERDICT_DENY);
        denied++;
    }
    /* Metadata is no question, and an inner address does not open by the name that somebody allowed. */
    expect("metadata.google.internal", 80, VERDICT_DENY);
    askers(0);
    for (int i = 0; i < 16; i++)
        assert_int_equal(hear(&fd).verdict, VERDICT_DENY);
    askers(1);
    struct ask a = target("private.example.com", 80);
    tell(&a);
    while (!strstr(until("\"op\""), "private.example.com"))
        continue;
    answer_question(17, true);
    assert_int_equal(hear(&fd).verdict, VERDICT_DENY);
    assert_int_equal(sh->connects, 0);
}

static void once(void **state)
{
    (void)state;
    put_policy("{\"version\": 1, \"posture\": \"locked-down\"}");
    start_broker();
    expect("public.example.com", 443, VERDICT_DENY);
    to_broker("{\"op\":\"grant\",\"id\":3,\"rule\":\"public.example.com\"}");
    until("\"ok\":true");
    expect("other.example.com", 443, VERDICT_DENY);
    expect("public.example.com", 443, VERDICT_ALLOW);
    expect("public.example.com", 443, VERDICT_DENY);
    to_broker("{\"op\":\"grant\",\"id\":4,\"rule\":\"*.com\"}");
    until("public suffix");
    assert_string_equal(logged("public.example.com", "allow").rule, "allowed once");
}

int main(void)
{
    sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGPIPE, SIG_IGN);
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(allowed_and_denied), T(threat_01_rebinding), T(threat_02_mixed_answers),
        T(threat_05_15_16_names_of_inner_addresses), T(threat_15_metadata_above_rules), T(threat_17_host_services),
        T(threat_97_inner_names_need_a_rule), T(denied_addresses), T(settings), T(rules_change_live),
        T(threat_100_broken_policy_denies), T(rules_behind_a_link_change_live), T(rules_behind_a_link_in_the_home_change_live), T(requests_are_judged_one_by_one),
        T(threat_55_certificates_only_for_what_was_asked),
        T(threat_03_requests_after_rebinding), T(threat_58_queries_carry_nothing_out), T(threat_18_loops_to_ourselves), T(names),
        T(threat_06_07_08_only_canonical_names), T(hostile_net), T(threat_18_79_flood), T(connections_are_bounded),
        T(threat_84_log_flood), T(threat_99_a_decision_stands_before_the_connection),
        T(threat_99_what_cannot_be_logged_does_not_happen), T(threat_99_a_broker_that_is_killed_loses_no_request), T(threat_99_a_log_that_is_removed_or_has_no_place),
        T(threat_84_refusals_wait_for_a_log_that_fails), T(mismatch_and_refused_packets),
        T(asked_and_answered), T(asked_and_ruled), T(unanswered_is_denied), T(questions_are_bounded), T(once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
