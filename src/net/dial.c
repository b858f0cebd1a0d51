#include "net/dial.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/wipe.h"

#define THREADS 8
#define STAGGER_MS 250
#define ANSWERS_MAX 32 /* of a resolver; what is beyond is neither vetted nor dialled */

struct target {
    struct sockaddr_storage addr;
    socklen_t len;
};

/* One connection to the proxy, until it said yes. */
struct tunnel {
    unsigned got;      /* bytes of its answer */
    unsigned ends;     /* of the empty line that ends it, how much was seen */
    char status[13];   /* "HTTP/1.1 200" */
};

struct dial {
    struct dial *next; /* in the queue for, or from, the threads */
    struct dialer *dialer;
    const struct dial_ops *ops;
    void *arg;
    char name[256];
    uint16_t port;
    bool cancelled, resolving;
    int error;
    struct target addrs[ANSWERS_MAX];
    unsigned naddrs, started, failed;
    bool proxied, by_name;
    char proxy[256];
    uint16_t proxy_port;
    struct target proxies[ANSWERS_MAX];
    unsigned nproxies;
    char ask[DIAL_ADDRS_MAX][300]; /* "host:port" that the i-th attempt asks the proxy for */
    struct tunnel tunnels[DIAL_ADDRS_MAX];
    int fds[DIAL_ADDRS_MAX];
    struct event *evs[DIAL_ADDRS_MAX];
    struct event *stagger, *timeout;
};

struct dialer {
    struct event_base *base;
    struct event *wake;
    int wakefd;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct dial *todo, **todo_tail, *resolved;
    unsigned threads, idle, pending;
    bool stopping;
    bool has_proxy;
    struct dial_proxy proxy;
};

static void take(struct target *to, unsigned *n, const void *addr, socklen_t len)
{
    if (*n == ANSWERS_MAX || len > sizeof to->addr)
        return;
    memcpy(&to[*n].addr, addr, len);
    to[(*n)++].len = len;
}

/* What needs no resolver: a literal, or this host's loopback. */
static bool at_once(const char *name, uint16_t port, struct target *to, unsigned *n)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    bool local = strcmp(name, "localhost") == 0;
    if (inet_pton(AF_INET, local ? "127.0.0.1" : name, &four.sin_addr) == 1)
        take(to, n, &four, sizeof four);
    if (inet_pton(AF_INET6, local ? "::1" : name, &six.sin6_addr) == 1)
        take(to, n, &six, sizeof six);
    return *n > 0;
}

static bool resolve_at_once(struct dial *d)
{
    bool whole = at_once(d->name, d->port, d->addrs, &d->naddrs);
    return (!d->proxied || at_once(d->proxy, d->proxy_port, d->proxies, &d->nproxies)) && whole;
}

static int look_up(const char *name, uint16_t number, struct target *to, unsigned *n)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG}, *list = NULL;
    char port[8];
    snprintf(port, sizeof port, "%u", number);
    int rc = getaddrinfo(name, port, &hints, &list);
    for (struct addrinfo *i = list; i; i = i->ai_next)
        take(to, n, i->ai_addr, i->ai_addrlen);
    if (list)
        freeaddrinfo(list);
    if (rc != 0)
        return rc == EAI_AGAIN ? EHOSTUNREACH : ENOENT;
    return *n ? 0 : ENOENT;
}

static void resolve(struct dial *d)
{
    if (d->naddrs == 0)
        d->error = look_up(d->name, d->port, d->addrs, &d->naddrs);
    if (d->proxied && d->nproxies == 0)
        look_up(d->proxy, d->proxy_port, d->proxies, &d->nproxies);
}

static void *worker(void *arg)
{
    struct dialer *dialer = arg;
    pthread_mutex_lock(&dialer->lock);
    while (!dialer->stopping) {
        struct dial *d = dialer->todo;
        if (!d) {
            dialer->idle++;
            pthread_cond_wait(&dialer->work, &dialer->lock);
            dialer->idle--;
            continue;
        }
        dialer->todo = d->next;
        if (!dialer->todo)
            dialer->todo_tail = &dialer->todo;
        pthread_mutex_unlock(&dialer->lock);
        resolve(d);
        pthread_mutex_lock(&dialer->lock);
        d->next = dialer->resolved;
        dialer->resolved = d;
        uint64_t one = 1;
        ssize_t ignored = write(dialer->wakefd, &one, sizeof one);
        (void)ignored;
    }
    pthread_mutex_unlock(&dialer->lock);
    return NULL;
}

static void dial_free(struct dial *d)
{
    for (unsigned i = 0; i < d->started; i++) {
        if (d->evs[i])
            event_free(d->evs[i]);
        if (d->fds[i] >= 0)
            close(d->fds[i]);
    }
    if (d->stagger)
        event_free(d->stagger);
    if (d->timeout)
        event_free(d->timeout);
    d->dialer->pending--;
    free(d);
}

static void finish(struct dial *d, int fd, int error)
{
    const struct dial_ops *ops = d->ops;
    void *arg = d->arg;
    dial_free(d);
    ops->done(arg, fd, error);
}

static void start_next(struct dial *d);

static void attempt_failed(struct dial *d, int error)
{
    d->failed++;
    d->error = error;
    if (d->started < d->naddrs)
        start_next(d);
    else if (d->failed == d->naddrs)
        finish(d, -1, d->error);
}

/* The i-th attempt is over; its descriptor is the caller's. */
static int give_up(struct dial *d, unsigned i)
{
    int fd = d->fds[i];
    if (d->evs[i])
        event_free(d->evs[i]);
    d->evs[i] = NULL;
    d->fds[i] = -1;
    return fd;
}

static unsigned attempt_of(const struct dial *d, int fd)
{
    unsigned i = 0;
    while (d->fds[i] != fd)
        i++;
    return i;
}

static void connected(struct dial *d, int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    finish(d, fd, 0);
}

static int reply_error(const char status[13])
{
    if (memcmp(status, "HTTP/1.", 7) != 0 || status[8] != ' ')
        return EPROTO;
    if (status[9] == '2')
        return 0;
    if (memcmp(status + 9, "407", 3) == 0)
        return EKEYREJECTED;
    if (status[9] == '4')
        return EPERM;
    return memcmp(status + 9, "504", 3) == 0 ? ETIMEDOUT : status[9] == '5' ? EHOSTUNREACH : EPROTO;
}

/* Byte by byte, for what follows the head belongs to the connection. */
static void on_reply(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    unsigned i = attempt_of(d, (int)fd);
    struct tunnel *t = &d->tunnels[i];
    (void)what;
    for (;;) {
        char c;
        ssize_t n = recv((int)fd, &c, 1, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        int why = n < 0 ? errno : EPROTO;
        if (n == 1 && ++t->got <= DIAL_REPLY_MAX) {
            if (t->got <= 12)
                t->status[t->got - 1] = c;
            t->ends = c == (t->ends & 1 ? '\n' : '\r') ? t->ends + 1 : c == '\r';
            if (t->ends < 4)
                continue;
            why = t->got < 12 ? EPROTO : reply_error(t->status);
            if (why == EPROTO && memcmp(t->status + 8, " 1", 2) == 0) {
                *t = (struct tunnel){.got = 0}; /* a word in between */
                continue;
            }
        }
        int got = give_up(d, i);
        if (why == 0) {
            connected(d, got);
        } else {
            close(got);
            attempt_failed(d, why);
        }
        return;
    }
}

/* The request fits an empty socket's buffer. */
static bool ask_proxy(struct dial *d, unsigned i)
{
    char *text = NULL;
    const char *login = d->dialer->has_proxy ? d->dialer->proxy.authorization : NULL;
    int n = asprintf(&text, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s%s%s\r\n", d->ask[i], d->ask[i],
                     login ? "Proxy-Authorization: " : "", login ? login : "", login ? "\r\n" : "");
    if (n < 0)
        return false;
    ssize_t w = send(d->fds[i], text, (size_t)n, MSG_NOSIGNAL);
    wipe_free(text);
    if (w != n)
        return false;
    evtimer_del(d->stagger); /* it may take its time to connect: the others wait until it failed */
    event_free(d->evs[i]);
    d->evs[i] = event_new(d->dialer->base, d->fds[i], EV_READ | EV_PERSIST, on_reply, d);
    return d->evs[i] && event_add(d->evs[i], NULL) == 0;
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    int error = 0;
    socklen_t len = sizeof error;
    unsigned i = attempt_of(d, (int)fd);
    (void)what;
    getsockopt((int)fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (!error && d->proxied && ask_proxy(d, i))
        return;
    give_up(d, i);
    if (!error && !d->proxied) {
        connected(d, (int)fd);
        return;
    }
    close((int)fd);
    attempt_failed(d, error ? error : EPROTO);
}

static void start_next(struct dial *d)
{
    unsigned i = d->started++;
    const struct target *t = &d->addrs[i];
    d->evs[i] = NULL;
    int fd = d->fds[i] = socket(t->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || (connect(fd, (const struct sockaddr *)&t->addr, t->len) < 0 && errno != EINPROGRESS)) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        d->fds[i] = -1;
        attempt_failed(d, why);
        return;
    }
    d->evs[i] = event_new(d->dialer->base, fd, EV_WRITE, on_connected, d);
    event_add(d->evs[i], NULL);
    if (d->started < d->naddrs) {
        struct timeval tv = {0, STAGGER_MS * 1000};
        evtimer_add(d->stagger, &tv);
    }
}

static void on_stagger(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    (void)fd;
    (void)what;
    if (d->started < d->naddrs)
        start_next(d);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
    struct dial *d = arg;
    (void)fd;
    (void)what;
    if (!d->resolving) {
        finish(d, -1, ETIMEDOUT);
        return;
    }
    /* A thread still has it: it counts as pending until the resolver gives up as well. */
    d->cancelled = true;
    d->ops->done(d->arg, -1, ETIMEDOUT);
}

static void arm_timeout(struct dial *d)
{
    struct timeval tv = {DIAL_TIMEOUT_MS / 1000, DIAL_TIMEOUT_MS % 1000 * 1000};
    evtimer_add(d->timeout, &tv);
}

static const uint8_t *raw(const struct target *t, uint8_t *family)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (t->addr.ss_family == AF_INET) {
        *family = 4;
        return (const uint8_t *)&((const struct sockaddr_in *)&t->addr)->sin_addr;
    }
    const uint8_t *a = (const uint8_t *)&((const struct sockaddr_in6 *)&t->addr)->sin6_addr;
    *family = 6;
    if (memcmp(a, mapped, 12) == 0) {
        *family = 4;
        return a + 12;
    }
    return a;
}

/* The first address that was vetted (the log has one) becomes what the proxy is asked for, and the proxy what is dialled. */
static bool aim_at_proxy(struct dial *d)
{
    char text[INET6_ADDRSTRLEN] = "";
    uint8_t family = 0, addr[16] = {0};
    if (!d->by_name) {
        const uint8_t *a = raw(&d->addrs[0], &family);
        memcpy(addr, a, family == 4 ? 4 : 16);
        inet_ntop(family == 4 ? AF_INET : AF_INET6, addr, text, sizeof text);
    }
    if (d->ops->tunnels)
        d->ops->tunnels(d->arg, family, addr);
    d->naddrs = d->nproxies < DIAL_ADDRS_MAX ? d->nproxies : DIAL_ADDRS_MAX;
    for (unsigned i = 0; i < d->naddrs; i++) {
        snprintf(d->ask[i], sizeof d->ask[i], family == 6 ? "[%s]:%u" : "%s:%u", d->by_name ? d->name : text, d->port);
        d->addrs[i] = d->proxies[i];
    }
    return d->naddrs > 0;
}

static bool goes_direct(const struct dial *d, unsigned kept)
{
    for (unsigned i = 0; i < kept; i++) {
        uint8_t family = 0;
        const uint8_t *a = raw(&d->addrs[i], &family);
        if ((family == 4 ? a[0] == 127 : IN6_IS_ADDR_LOOPBACK((const struct in6_addr *)a)) ||
            (d->ops->direct && d->ops->direct(d->arg, family, a, d->port)))
            return true;
    }
    return false;
}

static void vet_and_connect(struct dial *d)
{
    char text[INET6_ADDRSTRLEN] = "";
    unsigned kept = 0;
    bool refused = false;
    if (d->error && !d->by_name) {
        finish(d, -1, d->error);
        return;
    }
    for (unsigned i = 0; i < d->naddrs; i++) {
        uint8_t family = 0;
        const uint8_t *a = raw(&d->addrs[i], &family);
        bool scoped = d->addrs[i].addr.ss_family == AF_INET6 &&
                      ((struct sockaddr_in6 *)&d->addrs[i].addr)->sin6_scope_id != 0;
        if (scoped)
            continue; /* bound to one interface: nothing outside */
        if (!d->ops->vet(d->arg, family, a, d->port)) {
            refused = true;
            break;
        }
        if (kept == DIAL_ADDRS_MAX)
            continue;
        if (kept == 0)
            inet_ntop(family == 4 ? AF_INET : AF_INET6, a, text, sizeof text);
        d->addrs[kept++] = d->addrs[i];
    }
    d->naddrs = kept;
    if (refused || (kept == 0 && !d->by_name)) {
        finish(d, -1, EACCES);
        return;
    }
    d->error = 0;
    if (d->proxied && goes_direct(d, kept))
        d->proxied = d->by_name = false;
    if (d->proxied && !aim_at_proxy(d)) {
        finish(d, -1, ENXIO);
        return;
    }
    if (d->proxied && d->by_name)
        text[0] = '\0';
    if (!d->ops->connecting(d->arg, text)) {
        finish(d, -1, EIO);
        return;
    }
    d->stagger = evtimer_new(d->dialer->base, on_stagger, d);
    if (!d->stagger) {
        finish(d, -1, ENOMEM);
        return;
    }
    arm_timeout(d);
    start_next(d);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct dialer *dialer = arg;
    uint64_t n;
    (void)what;
    ssize_t ignored = read((int)fd, &n, sizeof n);
    (void)ignored;
    pthread_mutex_lock(&dialer->lock);
    struct dial *list = dialer->resolved;
    dialer->resolved = NULL;
    pthread_mutex_unlock(&dialer->lock);
    while (list) {
        struct dial *d = list;
        list = d->next;
        d->resolving = false;
        if (d->cancelled)
            dial_free(d);
        else
            vet_and_connect(d);
    }
}

struct dialer *dialer_new(struct event_base *base)
{
    struct dialer *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->base = base;
    d->todo_tail = &d->todo;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->work, NULL);
    d->wakefd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    d->wake = d->wakefd >= 0 ? event_new(base, d->wakefd, EV_READ | EV_PERSIST, on_wake, d) : NULL;
    if (!d->wake || event_add(d->wake, NULL) < 0) {
        free(d);
        return NULL;
    }
    return d;
}

void dialer_free(struct dialer *d)
{
    if (!d)
        return;
    /* The threads may sit in getaddrinfo for long: the process ends, and they with it. */
    pthread_mutex_lock(&d->lock);
    d->stopping = true;
    pthread_cond_broadcast(&d->work);
    pthread_mutex_unlock(&d->lock);
    event_free(d->wake);
}

void dialer_set_proxy(struct dialer *d, const struct dial_proxy *proxy)
{
    wipe_free(d->proxy.authorization);
    d->proxy = proxy ? *proxy : (struct dial_proxy){.port = 0};
    d->has_proxy = proxy != NULL;
}

struct dial *dial_start(struct dialer *dialer, const char *name, uint16_t port, bool proxied, const struct dial_ops *ops,
                        void *arg)
{
    if (dialer->pending >= DIAL_PENDING_MAX)
        return NULL;
    struct dial *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->dialer = dialer;
    d->ops = ops;
    d->arg = arg;
    d->port = port;
    d->resolving = true;
    snprintf(d->name, sizeof d->name, "%s", name);
    if (proxied && dialer->has_proxy && strcmp(name, "localhost") != 0) {
        uint8_t ignored[16];
        d->proxied = true;
        d->by_name = dialer->proxy.names && inet_pton(AF_INET, name, ignored) != 1 && inet_pton(AF_INET6, name, ignored) != 1;
        snprintf(d->proxy, sizeof d->proxy, "%s", dialer->proxy.host);
        d->proxy_port = dialer->proxy.port;
    }
    d->timeout = evtimer_new(dialer->base, on_timeout, d);
    if (!d->timeout) {
        free(d);
        return NULL;
    }
    dialer->pending++;
    arm_timeout(d);
    pthread_mutex_lock(&dialer->lock);
    if (resolve_at_once(d)) {
        uint64_t one = 1;
        d->next = dialer->resolved;
        dialer->resolved = d;
        ssize_t ignored = write(dialer->wakefd, &one, sizeof one);
        (void)ignored;
        pthread_mutex_unlock(&dialer->lock);
        return d;
    }
    *dialer->todo_tail = d;
    dialer->todo_tail = &d->next;
    if (dialer->idle == 0 && dialer->threads < THREADS) {
        pthread_t t;
        pthread_attr_t a;
        pthread_attr_init(&a);
        pthread_attr_setstacksize(&a, 256 * 1024);
        pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
        if (pthread_create(&t, &a, worker, dialer) == 0)
            dialer->threads++;
        pthread_attr_destroy(&a);
    }
    pthread_cond_signal(&dialer->work);
    pthread_mutex_unlock(&dialer->lock);
    return d;
}

void dial_cancel(struct dial *d)
{
    if (!d)
        return;
    if (d->resolving) {
        d->cancelled = true;
        evtimer_del(d->timeout);
    } else {
        dial_free(d);
    }
}
