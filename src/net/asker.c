#include "net/asker.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/clock.h"
#include "net/look.h"

/* So many may be on their way when more are to be made only when there is room again; and what comes nevertheless: what one
 * connection said at once (OUT_FRAMES_MAX and STREAMS_KEPT of h2proxy.c), an end and a mismatch of each connection, names. */
#define CROWD 1024u
#define QUEUE_MAX 8192u

/* The largest that is sent; most are struct ask, which differs little. */
union request {
    struct ask ask;
    struct ask_request request;
    struct ask_leaf leaf;
};

struct queued {
    size_t len;
    union request r;
};

struct asker {
    int fd;
    struct event *read_ev, *write_ev;
    struct asker_ops ops;
    void *arg;
    struct queued *queue; /* ring; allocated when first needed */
    unsigned start, count;
    bool crowded; /* somebody waits for room */
    unsigned expected; /* requests of the last moment without an answer */
    int64_t asked_ms;
    struct look look; /* for the answer to the only request that is asked */
};

static void failed(struct asker *a)
{
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS)
        a->ops.closed("the broker is gone", a->arg);
}

#define MOMENT_MS 100

/* Some get no answer, as those of a connection that ended: they are forgotten. */
static void expect(struct asker *a, const union request *r)
{
    if (r->ask.kind != ASK_REQUEST || r->request.again)
        return;
    int64_t now = clock_ms();
    if (now - a->asked_ms > MOMENT_MS)
        a->expected = 0;
    a->asked_ms = now;
    a->expected++;
    look_begin(&a->look, r->request.id, a->expected == 1, clock_us());
}

#define AT_ONCE 16u

/* What came together goes together: the broker judges and logs it in one go. */
static void flush(struct asker *a)
{
    while (a->count) {
        struct mmsghdr m[AT_ONCE];
        struct iovec iov[AT_ONCE];
        unsigned n = a->count < AT_ONCE ? a->count : AT_ONCE;
        for (unsigned i = 0; i < n; i++) {
            struct queued *q = &a->queue[(a->start + i) % QUEUE_MAX];
            iov[i] = (struct iovec){&q->r, q->len};
            m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
            if (q->r.ask.kind == ASK_REQUEST)
                q->r.request.more = i + 1 < n;
        }
        int sent = sendmmsg(a->fd, m, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            failed(a);
            break;
        }
        for (int i = 0; i < sent; i++)
            expect(a, &a->queue[(a->start + (unsigned)i) % QUEUE_MAX].r);
        a->count -= (unsigned)sent;
        a->start = a->count ? (a->start + (unsigned)sent) % QUEUE_MAX : 0; /* the front alone is ever touched, mostly */
    }
}

static void on_write(evutil_socket_t fd, short what, void *arg)
{
    struct asker *a = arg;
    (void)fd;
    (void)what;
    flush(a);
    if (a->count)
        event_add(a->write_ev, NULL);
    if (a->crowded && a->count < CROWD / 2) {
        a->crowded = false;
        a->ops.room(a->arg);
    }
}

bool asker_crowded(struct asker *a)
{
    bool crowded = a->count >= CROWD;
    a->crowded |= crowded;
    return crowded;
}

/* It leaves when what woke us is dealt with. */
static void queue(struct asker *a, const void *ask, size_t len)
{
    if (!a->queue)
        a->queue = calloc(QUEUE_MAX, sizeof *a->queue);
    if (!a->queue || a->count == QUEUE_MAX) {
        a->ops.closed("the broker does not read", a->arg);
        return;
    }
    if (a->count == 0)
        event_active(a->write_ev, EV_WRITE, 0);
    struct queued *q = &a->queue[(a->start + a->count++) % QUEUE_MAX];
    q->len = len;
    memcpy(&q->r, ask, len);
}

void asker_send(struct asker *a, const struct ask *ask)
{
    queue(a, ask, sizeof *ask);
}

void asker_send_request(struct asker *a, const struct ask_request *ask)
{
    queue(a, ask, sizeof *ask);
}

void asker_send_leaf(struct asker *a, const struct ask_leaf *ask)
{
    queue(a, ask, sizeof *ask);
}

bool asker_send_mint(struct asker *a, const struct ask_mint *ask)
{
    ssize_t n;
    flush(a);
    if (a->count)
        return false;
    do {
        n = send(a->fd, ask, sizeof *ask, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        failed(a);
    return n == (ssize_t)sizeof *ask;
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
    struct asker *a = arg;
    (void)what;
    for (int i = 0; i < 32; i++) {
        static union {
            struct answer answer;
            struct answer_leaf leaf;
            struct answer_secret secret;
            struct answer_sentinel sentinel;
        } got_one; /* large, and this is one thread */
        union {
            struct cmsghdr h;
            char room[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = {&got_one, sizeof got_one};
        struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t n = recvmsg((int)fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (n == (ssize_t)sizeof got_one.leaf && got_one.leaf.kind == ANSWER_LEAF && got_one.leaf.len <= sizeof got_one.leaf.der) {
            a->ops.leaf(&got_one.leaf, a->arg);
            continue;
        }
        if (n == (ssize_t)sizeof got_one.secret && got_one.secret.kind == ANSWER_SECRET) {
            a->ops.secret(&got_one.secret, a->arg);
            explicit_bzero(&got_one, sizeof got_one);
            continue;
        }
        if (n == (ssize_t)sizeof got_one.sentinel && got_one.sentinel.kind == ANSWER_SENTINEL) {
            a->ops.sentinel(&got_one.sentinel, a->arg);
            continue;
        }
        struct answer *answer = &got_one.answer;
        if (n != (ssize_t)sizeof *answer || answer->kind == ANSWER_LEAF || answer->kind == ANSWER_SECRET ||
            answer->kind == ANSWER_SENTINEL) {
            a->ops.closed(n == 0 ? NULL : "a broken answer of the broker", a->arg);
            return;
        }
        int got = -1;
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
            memcpy(&got, CMSG_DATA(h), sizeof got);
        answer->rule[sizeof answer->rule - 1] = answer->hint[sizeof answer->hint - 1] = '\0';
        bool request = answer->kind == ANSWER_REQUEST;
        if (request)
            look_found(&a->look, clock_us());
        if (request && a->expected)
            a->expected--;
        a->ops.answer(answer, got, a->arg);
        if (request && a->expected == 0)
            return; /* most likely the last: what is there nevertheless wakes us again */
    }
}

struct asker *asker_new(struct event_base *base, int fd, const struct asker_ops *ops, void *arg)
{
    struct asker *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    *a = (struct asker){.fd = fd, .ops = *ops, .arg = arg};
    evutil_make_socket_nonblocking(fd);
    a->read_ev = event_new(base, fd, EV_READ | EV_PERSIST, on_read, a);
    a->write_ev = event_new(base, fd, EV_WRITE, on_write, a);
    if (!a->read_ev || !a->write_ev || event_add(a->read_ev, NULL) < 0) {
        asker_free(a);
        return NULL;
    }
    return a;
}

bool asker_looks(struct asker *a)
{
    return a->look.on && look_on(&a->look, clock_us());
}

void asker_free(struct asker *a)
{
    if (!a)
        return;
    if (a->write_ev)
        flush(a); /* what ended last is logged as well */
    if (a->read_ev)
        event_free(a->read_ev);
    if (a->write_ev)
        event_free(a->write_ev);
    free(a->queue);
    close(a->fd);
    free(a);
}
