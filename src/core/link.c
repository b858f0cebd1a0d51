#include "core/link.h"

#include <stdlib.h>
#include <string.h>

enum { FRAME_CTRL = 1, FRAME_DATA = 2, FRAME_EOF = 3, FRAME_CREDIT = 4 };

#define BUCKETS 64u
/* Credit is returned in lumps of this size, so that it costs one small frame in many. */
#define CREDIT_LUMP (LINK_WINDOW / 4u)

struct frame {
    struct frame *next;
    uint32_t len; /* header included */
    uint32_t sent;
    uint8_t bytes[];
};

struct queue {
    struct frame *head, **tail;
};

struct stream {
    uint32_t send_credit; /* what we may still send */
    uint32_t recv_credit; /* what the peer may still send */
    uint32_t to_grant;    /* consumed, not yet granted again */
    uint32_t queued;      /* frames of this stream in the channel's queues */
    bool starved;         /* a send was cut short: tell when credit comes */
    bool eof_sent, eof_seen;
};

struct chan {
    struct chan *bucket_next;
    uint16_t id;
    unsigned urgent; /* mask of streams */
    bool ringed[2];  /* waits for its turn: [0] bulk, [1] urgent */
    struct queue q[2];
    struct stream s[LINK_STREAMS];
    struct chan *turn_next[2], *turn_prev[2];
    struct chan *grant_next;
    bool granting;
};

struct link {
    const struct link_ops *ops;
    void *arg;
    struct chan *bucket[BUCKETS];
    unsigned open;
    uint16_t last_id;
    struct queue ctrl;
    size_t ctrl_bytes;
    bool ctrl_overrun, sends_large, takes_large;
    struct chan *turn[2]; /* whose turn it is, in a circular list */
    struct chan *grants;  /* channels with credit to send */
    bool feeding, dead;
    uint8_t *part; /* an incomplete frame */
    size_t part_len, part_cap;
};

static void queue_init(struct queue *q)
{
    q->head = NULL;
    q->tail = &q->head;
}

static void queue_put(struct queue *q, struct frame *f)
{
    f->next = NULL;
    *q->tail = f;
    q->tail = &f->next;
}

static struct frame *queue_take(struct queue *q)
{
    struct frame *f = q->head;
    q->head = f->next;
    if (!q->head)
        q->tail = &q->head;
    return f;
}

static void queue_clear(struct queue *q)
{
    while (q->head)
        free(queue_take(q));
}

static void put_header(uint8_t *p, uint32_t len, unsigned type, unsigned stream, uint16_t chan)
{
    p[0] = (uint8_t)len;
    p[1] = (uint8_t)(len >> 8);
    p[2] = (uint8_t)(len >> 16);
    p[3] = (uint8_t)(len >> 24);
    p[4] = (uint8_t)type;
    p[5] = (uint8_t)stream;
    p[6] = (uint8_t)chan;
    p[7] = (uint8_t)(chan >> 8);
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static struct chan *find(const struct link *l, uint16_t id)
{
    struct chan *c = l->bucket[id % BUCKETS];
    while (c && c->id != id)
        c = c->bucket_next;
    return c;
}

struct link *link_new(const struct link_ops *ops, void *arg)
{
    struct link *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->ops = ops;
    l->arg = arg;
    queue_init(&l->ctrl);
    return l;
}

static void turn_add(struct link *l, struct chan *c, int prio)
{
    if (c->ringed[prio])
        return;
    c->ringed[prio] = true;
    struct chan *t = l->turn[prio];
    if (!t) {
        c->turn_next[prio] = c->turn_prev[prio] = c;
        l->turn[prio] = c;
    } else { /* behind everyone who waits already */
        c->turn_next[prio] = t;
        c->turn_prev[prio] = t->turn_prev[prio];
        t->turn_prev[prio]->turn_next[prio] = c;
        t->turn_prev[prio] = c;
    }
}

static void turn_remove(struct link *l, struct chan *c, int prio)
{
    if (!c->ringed[prio])
        return;
    c->ringed[prio] = false;
    if (c->turn_next[prio] == c) {
        l->turn[prio] = NULL;
    } else {
        c->turn_prev[prio]->turn_next[prio] = c->turn_next[prio];
        c->turn_next[prio]->turn_prev[prio] = c->turn_prev[prio];
        if (l->turn[prio] == c)
            l->turn[prio] = c->turn_next[prio];
    }
}

static void grants_remove(struct link *l, struct chan *c)
{
    if (!c->granting)
        return;
    c->granting = false;
    struct chan **p = &l->grants;
    while (*p != c)
        p = &(*p)->grant_next;
    *p = c->grant_next;
}

static void chan_free(struct link *l, struct chan *c)
{
    for (int prio = 0; prio < 2; prio++) {
        turn_remove(l, c, prio);
        queue_clear(&c->q[prio]);
    }
    grants_remove(l, c);
    struct chan **p = &l->bucket[c->id % BUCKETS];
    while (*p != c)
        p = &(*p)->bucket_next;
    *p = c->bucket_next;
    l->open--;
    free(c);
}

static void destroy(struct link *l)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        while (l->bucket[i])
            chan_free(l, l->bucket[i]);
    queue_clear(&l->ctrl);
    free(l->part);
    free(l);
}

void link_large(struct link *l, bool sends, bool takes)
{
    l->sends_large = sends;
    l->takes_large = takes;
}

void link_free(struct link *l)
{
    if (!l)
        return;
    if (l->feeding)
        l->dead = true; /* link_feed is on the stack and destroys it */
    else
        destroy(l);
}

bool link_has_output(const struct link *l)
{
    return l->ctrl.head || l->grants || l->turn[0] || l->turn[1];
}

static void kick(struct link *l, bool had)
{
    if (!had && !l->dead && l->ops->kick)
        l->ops->kick(l, l->arg);
}

int link_send_ctrl(struct link *l, json_t *msg)
{
    char *text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
    int rc = link_send_text(l, text);
    json_decref(msg);
    free(text);
    return rc;
}

int link_send_text(struct link *l, const char *text)
{
    bool had = link_has_output(l);
    size_t n = text ? strlen(text) : 0;
    struct frame *f = NULL;
    if (n > (l->sends_large ? LINK_CTRL_MAX : LINK_PAYLOAD_MAX))
        return -1;
    if (text && l->ctrl_bytes + n <= LINK_CTRL_QUEUE_MAX)
        f = malloc(sizeof *f + LINK_HEADER + n);
    if (!f) {
        l->ctrl_overrun = true;
        return -1;
    }
    put_header(f->bytes, (uint32_t)n, FRAME_CTRL, 0, 0);
    memcpy(f->bytes + LINK_HEADER, text, n);
    f->len = (uint32_t)(LINK_HEADER + n);
    f->sent = 0;
    l->ctrl_bytes += f->len;
    queue_put(&l->ctrl, f);
    kick(l, had);
    return 0;
}

int link_open(struct link *l, uint16_t id, unsigned urgent)
{
    if (id == 0 || l->open >= LINK_CHANNELS_MAX || find(l, id))
        return -1;
    struct chan *c = calloc(1, sizeof *c);
    if (!c)
        return -1;
    c->id = id;
    c->urgent = urgent;
    queue_init(&c->q[0]);
    queue_init(&c->q[1]);
    for (unsigned i = 0; i < LINK_STREAMS; i++)
        c->s[i].send_credit = c->s[i].recv_credit = LINK_WINDOW;
    c->bucket_next = l->bucket[id % BUCKETS];
    l->bucket[id % BUCKETS] = c;
    l->open++;
    return 0;
}

void link_close(struct link *l, uint16_t id)
{
    struct chan *c = find(l, id);
    if (c)
        chan_free(l, c);
}

bool link_is_open(const struct link *l, uint16_t id)
{
    return find(l, id) != NULL;
}

uint16_t link_pick(struct link *l)
{
    if (l->open >= LINK_CHANNELS_MAX)
        return 0;
    do {
        if (++l->last_id == 0)
            l->last_id = 1;
    } while (find(l, l->last_id));
    return l->last_id;
}

static bool enqueue(struct link *l, struct chan *c, unsigned type, unsigned stream,
                    const uint8_t *buf, size_t len)
{
    struct frame *f = malloc(sizeof *f + LINK_HEADER + len);
    if (!f)
        return false;
    put_header(f->bytes, (uint32_t)len, type, stream, c->id);
    if (len)
        memcpy(f->bytes + LINK_HEADER, buf, len);
    f->len = (uint32_t)(LINK_HEADER + len);
    int prio = (c->urgent >> stream) & 1u;
    queue_put(&c->q[prio], f);
    c->s[stream].queued++;
    turn_add(l, c, prio);
    return true;
}

size_t link_send_data(struct link *l, uint16_t id, unsigned stream, const void *buf, size_t len)
{
    struct chan *c = find(l, id);
    if (!c || stream >= LINK_STREAMS || c->s[stream].eof_sent)
        return 0;
    bool had = link_has_output(l);
    struct stream *s = &c->s[stream];
    size_t sent = 0;
    while (sent < len && s->send_credit) {
        size_t n = len - sent;
        if (n > s->send_credit)
            n = s->send_credit;
        if (n > LINK_PAYLOAD_MAX)
            n = LINK_PAYLOAD_MAX;
        if (!enqueue(l, c, FRAME_DATA, stream, (const uint8_t *)buf + sent, n))
            break;
        s->send_credit -= (uint32_t)n;
        sent += n;
    }
    s->starved = sent < len;
    if (sent)
        kick(l, had);
    return sent;
}

size_t link_credit(const struct link *l, uint16_t id, unsigned stream)
{
    struct chan *c = find(l, id);
    return c && stream < LINK_STREAMS && !c->s[stream].eof_sent ? c->s[stream].send_credit : 0;
}

void link_send_eof(struct link *l, uint16_t id, unsigned stream)
{
    struct chan *c = find(l, id);
    if (!c || stream >= LINK_STREAMS || c->s[stream].eof_sent)
        return;
    bool had = link_has_output(l);
    c->s[stream].eof_sent = true;
    enqueue(l, c, FRAME_EOF, stream, NULL, 0);
    kick(l, had);
}

bool link_queued(const struct link *l, uint16_t id, unsigned stream)
{
    struct chan *c = find(l, id);
    return c && stream < LINK_STREAMS && c->s[stream].queued;
}

void link_consumed(struct link *l, uint16_t id, unsigned stream, size_t n)
{
    struct chan *c = find(l, id);
    if (!c || stream >= LINK_STREAMS || c->s[stream].eof_seen)
        return;
    struct stream *s = &c->s[stream];
    /* Never more than what was received: a caller's double count must not widen the window. */
    uint32_t outstanding = LINK_WINDOW - s->recv_credit - s->to_grant;
    s->to_grant += n > outstanding ? outstanding : (uint32_t)n;
    if (s->to_grant >= CREDIT_LUMP && !c->granting) {
        bool had = link_has_output(l);
        c->granting = true;
        c->grant_next = l->grants;
        l->grants = c;
        kick(l, had);
    }
}

size_t link_output(struct link *l, void *buf, size_t cap)
{
    uint8_t *p = buf;
    size_t used = 0;

    for (struct frame *f; (f = l->ctrl.head) && (f->len <= cap - used || f->len > LINK_OUTPUT_MIN);) {
        uint32_t n = f->len - f->sent < cap - used ? f->len - f->sent : (uint32_t)(cap - used);
        memcpy(p + used, f->bytes + f->sent, n);
        used += n;
        f->sent += n;
        if (f->sent < f->len)
            break;
        queue_take(&l->ctrl);
        l->ctrl_bytes -= f->len;
        free(f);
    }
    while (!l->ctrl.head && l->grants && cap - used >= LINK_STREAMS * (LINK_HEADER + 4)) {
        struct chan *c = l->grants;
        l->grants = c->grant_next;
        c->granting = false;
        for (unsigned i = 0; i < LINK_STREAMS; i++) {
            struct stream *s = &c->s[i];
            if (s->to_grant < CREDIT_LUMP)
                continue;
            put_header(p + used, 4, FRAME_CREDIT, i, c->id);
            uint8_t *v = p + used + LINK_HEADER;
            v[0] = (uint8_t)s->to_grant;
            v[1] = (uint8_t)(s->to_grant >> 8);
            v[2] = (uint8_t)(s->to_grant >> 16);
            v[3] = (uint8_t)(s->to_grant >> 24);
            used += LINK_HEADER + 4;
            s->recv_credit += s->to_grant;
            s->to_grant = 0;
        }
    }
    for (int prio = 1; prio >= 0; prio--) {
        while (!l->ctrl.head && l->turn[prio] && l->turn[prio]->q[prio].head->len <= cap - used) {
            struct chan *c = l->turn[prio];
            struct frame *f = queue_take(&c->q[prio]);
            memcpy(p + used, f->bytes, f->len);
            used += f->len;
            c->s[f->bytes[5]].queued--;
            free(f);
            if (c->q[prio].head)
                l->turn[prio] = c->turn_next[prio];
            else
                turn_remove(l, c, prio);
        }
        if (l->turn[prio])
            break; /* no room for the next frame of this priority: do not overtake it */
    }
    return used;
}

static int take_ctrl(struct link *l, const uint8_t *p, size_t len, struct err *e)
{
    json_error_t je;
    json_t *msg = json_loadb((const char *)p, len, JSON_REJECT_DUPLICATES, &je);
    if (!msg)
        return err_set(e, STATUS_FAILED, "control frame is not JSON: %s", je.text);
    if (!json_is_object(msg)) {
        json_decref(msg);
        return err_set(e, STATUS_FAILED, "control frame is not a JSON object");
    }
    if (l->ops->ctrl)
        l->ops->ctrl(l, msg, l->arg);
    json_decref(msg);
    return 0;
}

/* One whole frame. */
static int take(struct link *l, const uint8_t *h, const uint8_t *p, uint32_t len, struct err *e)
{
    unsigned type = h[4], stream = h[5];
    uint16_t id = (uint16_t)(h[6] | h[7] << 8);

    if (type == FRAME_CTRL) {
        if (id != 0 || stream != 0)
            return err_set(e, STATUS_FAILED, "control frame on channel %u", id);
        return take_ctrl(l, p, len, e);
    }
    if (type != FRAME_DATA && type != FRAME_EOF && type != FRAME_CREDIT)
        return err_set(e, STATUS_FAILED, "frame of unknown type %u", type);
    if (id == 0 || stream >= LINK_STREAMS)
        return err_set(e, STATUS_FAILED, "frame for channel %u stream %u", id, stream);
    if ((type == FRAME_EOF && len != 0) || (type == FRAME_CREDIT && len != 4))
        return err_set(e, STATUS_FAILED, "frame of type %u with %u bytes", type, (unsigned)len);
    struct chan *c = find(l, id);
    if (!c)
        return 0;
    struct stream *s = &c->s[stream];
    if (type == FRAME_CREDIT) {
        uint32_t n = get_u32(p);
        if (n > LINK_WINDOW - s->send_credit)
            return err_set(e, STATUS_FAILED, "credit of %u bytes overflows the window", (unsigned)n);
        s->send_credit += n;
        if (s->starved && n) {
            s->starved = false;
            if (l->ops->writable)
                l->ops->writable(l, id, stream, l->arg);
        }
        return 0;
    }
    if (s->eof_seen)
        return err_set(e, STATUS_FAILED, "frame after the end of stream %u of channel %u", stream, id);
    if (type == FRAME_EOF) {
        s->eof_seen = true;
        if (l->ops->eof)
            l->ops->eof(l, id, stream, l->arg);
        return 0;
    }
    if (len > s->recv_credit)
        return err_set(e, STATUS_FAILED, "%u bytes on channel %u, beyond its credit of %u",
                       (unsigned)len, id, (unsigned)s->recv_credit);
    s->recv_credit -= len;
    if (l->ops->data)
        l->ops->data(l, id, stream, p, len, l->arg);
    return 0;
}

static bool part_reserve(struct link *l, size_t cap)
{
    if (cap <= l->part_cap)
        return true;
    uint8_t *p = realloc(l->part, cap);
    if (!p)
        return false;
    l->part = p;
    l->part_cap = cap;
    return true;
}

static int feed(struct link *l, const uint8_t *p, size_t n, struct err *e)
{
    while (!l->dead) {
        if (l->ctrl_overrun)
            return err_set(e, STATUS_FAILED, "the peer does not read its control frames");
        /* The common case: a whole frame lies in the caller's buffer. */
        const uint8_t *h = p;
        size_t have = n;
        if (l->part_len) {
            size_t want = l->part_len < LINK_HEADER ? LINK_HEADER
                                                    : LINK_HEADER + get_u32(l->part);
            size_t add = want - l->part_len;
            if (add > n)
                add = n;
            if (!part_reserve(l, want))
                return err_set(e, STATUS_FAILED, "out of memory");
            memcpy(l->part + l->part_len, p, add);
            l->part_len += add;
            p += add;
            n -= add;
            h = l->part;
            have = l->part_len;
        }
        if (have < LINK_HEADER) {
            if (h == p && n) {
                if (!part_reserve(l, LINK_HEADER))
                    return err_set(e, STATUS_FAILED, "out of memory");
                memcpy(l->part, p, n);
                l->part_len = n;
            }
            return 0;
        }
        uint32_t len = get_u32(h);
        if (len > (l->takes_large && h[4] == FRAME_CTRL ? LINK_CTRL_MAX : LINK_PAYLOAD_MAX))
            return err_set(e, STATUS_FAILED, "frame of %u bytes", (unsigned)len);
        if (have < LINK_HEADER + len) {
            if (h == p) {
                if (!part_reserve(l, LINK_HEADER + len))
                    return err_set(e, STATUS_FAILED, "out of memory");
                memcpy(l->part, p, n);
                l->part_len = n;
                return 0;
            }
            if (n == 0)
                return 0;
            continue; /* the header is complete now: ask for the rest */
        }
        if (h == p) {
            p += LINK_HEADER + len;
            n -= LINK_HEADER + len;
        } else {
            l->part_len = 0; /* the buffer itself stays valid while the frame is handled */
        }
        if (take(l, h, h + LINK_HEADER, len, e) < 0)
            return -1;
        if (len > LINK_PAYLOAD_MAX && l->part_len == 0) { /* one was large: the next ones are not */
            free(l->part);
            l->part = NULL;
            l->part_cap = 0;
        }
        if (n == 0)
            return 0;
    }
    return 0;
}

int link_feed(struct link *l, const void *buf, size_t len, struct err *e)
{
    l->feeding = true;
    int r = feed(l, buf, len, e);
    l->feeding = false;
    if (l->dead)
        destroy(l);
    return r;
}
