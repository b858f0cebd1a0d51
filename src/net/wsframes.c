#include "net/wsframes.h"

#include <stdlib.h>
#include <string.h>

#define HEAD_MAX 14u
#define MASK 4u /* bytes at the end of a head of the guest's */
#define CONTROL_MAX 125u
/* What may stand between bytes that are held back: heads of fragments, and control frames whole. */
#define BETWEEN_MAX 8u

struct between {
    uint64_t at; /* of the message's content: before this byte */
    size_t len;
    uint8_t bytes[HEAD_MAX + CONTROL_MAX];
};

struct wsframes {
    struct scrub_set *set;
    struct scrub *message; /* while a data message is under way */
    struct scrub_watch *watch; /* from the guest, in the place of it */
    bool open;             /* such a message is under way */
    size_t unmasked;       /* bytes of the frame */
    uint8_t head[HEAD_MAX];
    size_t head_len, head_need;
    bool fin, control, in_frame;
    uint64_t left;           /* of the frame's payload */
    uint64_t passed;         /* of the message's content, out of the scrubber */
    uint64_t fed;            /* into it */
    struct between between[BETWEEN_MAX];
    unsigned nbetween;
    struct between current;  /* control frame under way */
};

struct wsframes *wsframes_new(struct scrub_set *set)
{
    struct wsframes *w = calloc(1, sizeof *w);
    if (w)
        w->set = scrub_set_ref(set);
    return w;
}

struct wsframes *wsframes_new_from_guest(struct scrub_set *set)
{
    struct wsframes *w = wsframes_new(set);
    if (w && !(w->watch = scrub_watch_new(set))) {
        wsframes_free(w);
        w = NULL;
    }
    return w;
}

void wsframes_free(struct wsframes *w)
{
    if (!w)
        return;
    scrub_free(w->message);
    scrub_watch_free(w->watch);
    scrub_set_unref(w->set);
    free(w);
}

size_t wsframes_room(const struct wsframes *w)
{
    return scrub_set_hold(w->set) + (BETWEEN_MAX + 1) * sizeof(struct between);
}

struct sink {
    uint8_t *p;
    size_t n;
};

static void put(struct sink *o, const void *p, size_t n)
{
    memcpy(o->p + o->n, p, n);
    o->n += n;
}

/* Content that left the scrubber, with what belongs between. */
static void release(struct wsframes *w, const uint8_t *p, size_t n, struct sink *o)
{
    unsigned i = 0;
    while (i < w->nbetween && w->between[i].at <= w->passed + n) {
        size_t k = (size_t)(w->between[i].at - w->passed);
        put(o, p, k);
        p += k;
        n -= k;
        w->passed += k;
        put(o, w->between[i].bytes, w->between[i].len);
        i++;
    }
    memmove(w->between, w->between + i, (w->nbetween - i) * sizeof *w->between);
    w->nbetween -= i;
    put(o, p, n);
    w->passed += n;
}

/* Bytes that are no content: at once, or where they belong. */
static bool insert(struct wsframes *w, const struct between *b, struct sink *o)
{
    if (!w->message || w->passed == w->fed) {
        put(o, b->bytes, b->len);
        return true;
    }
    if (w->nbetween == BETWEEN_MAX)
        return false;
    w->between[w->nbetween] = *b;
    w->between[w->nbetween++].at = w->fed;
    return true;
}

/* 1: the head is whole; 0: more of it comes; -1: it may not be. */
static int read_head(struct wsframes *w, uint8_t byte)
{
    size_t mask = w->watch ? MASK : 0;
    w->head[w->head_len++] = byte;
    if (w->head_len == 2) {
        unsigned len = w->head[1] & 0x7f;
        w->head_need = (len == 127 ? 10 : len == 126 ? 4 : 2) + mask;
    }
    if (w->head_len < 2 || w->head_len < w->head_need)
        return 0;
    uint8_t opcode = w->head[0] & 0x0f;
    uint64_t len = w->head[1] & 0x7f;
    if (len == 126)
        len = (uint64_t)w->head[2] << 8 | w->head[3];
    else if (len == 127) {
        len = 0;
        for (int i = 0; i < 8; i++)
            len = len << 8 | w->head[2 + i];
    }
    /* RFC 6455 5.2: the shortest form, or two readers see two lengths. */
    if ((w->head_len == 4 + mask && len < 126) || (w->head_len == 10 + mask && len < 65536))
        return -1;
    w->fin = w->head[0] & 0x80;
    w->control = opcode & 0x08;
    if (w->head[0] & 0x70 || !(w->head[1] & 0x80) != !mask || len >> 63)
        return -1;
    if (w->control ? !w->fin || len > CONTROL_MAX || opcode > 10 : opcode > 2 || (opcode == 0) != w->open)
        return -1;
    w->open |= !w->control;
    w->left = len;
    w->in_frame = true;
    w->unmasked = 0;
    return 1;
}

static bool begin(struct wsframes *w, struct sink *o)
{
    struct between head = {.len = w->head_len};
    memcpy(head.bytes, w->head, w->head_len);
    if (w->control) {
        w->current = head;
        return true;
    }
    if (!w->message) {
        w->passed = w->fed = 0;
        w->message = scrub_new(w->set);
        if (!w->message)
            return false;
    }
    return insert(w, &head, o);
}

static bool end_frame(struct wsframes *w, struct sink *o)
{
    w->in_frame = false;
    w->head_len = w->head_need = 0;
    w->open &= w->control || !w->fin;
    if (w->control) {
        size_t head = w->current.len - (size_t)(w->current.bytes[1] & 0x7f);
        scrub_text(w->set, (char *)w->current.bytes + head, w->current.len - head);
        return insert(w, &w->current, o);
    }
    if (w->fin) {
        size_t held = scrub_held(w->message);
        uint8_t *rest = malloc(held + 1);
        if (!rest)
            return false;
        scrub_end(w->message, rest);
        release(w, rest, held, o);
        explicit_bzero(rest, held);
        free(rest);
        scrub_free(w->message);
        w->message = NULL;
    }
    return true;
}

bool wsframes_feed(struct wsframes *w, const uint8_t *in, size_t n, uint8_t *out, size_t *out_len)
{
    struct sink o = {out, 0};
    bool good = true;
    uint8_t *room = NULL;
    while (good && (n || (w->in_frame && w->left == 0))) {
        if (!w->in_frame) {
            int got = read_head(w, *in++);
            n--;
            good = got == 0 || (got > 0 && begin(w, &o));
        } else {
            size_t k = w->left < n ? (size_t)w->left : n;
            if (w->control) {
                memcpy(w->current.bytes + w->current.len, in, k);
                w->current.len += k;
            } else if (k) {
                if (!room && !(room = malloc(n + scrub_set_hold(w->set))))
                    return false;
                size_t got = scrub_feed(w->message, in, k, room);
                w->fed += k;
                release(w, room, got, &o);
            }
            in += k;
            n -= k;
            w->left -= k;
            if (w->left == 0)
                good = end_frame(w, &o);
        }
    }
    free(room);
    *out_len = o.n;
    return good;
}

bool wsframes_search(struct wsframes *w, const uint8_t *in, size_t n, uint64_t *found)
{
    *found = 0;
    while (!*found && (n || (w->in_frame && w->left == 0))) {
        if (!w->in_frame) {
            if (read_head(w, *in++) < 0)
                return false;
            n--;
            w->current.len = 0;
            continue;
        }
        uint8_t plain[4096], *at = w->control ? w->current.bytes + w->current.len : plain;
        const uint8_t *mask = w->head + w->head_len - MASK;
        size_t k = w->left < n ? (size_t)w->left : n;
        k = k < sizeof plain ? k : sizeof plain;
        for (size_t i = 0; i < k; i++)
            at[i] = in[i] ^ mask[w->unmasked++ % MASK];
        if (w->control)
            w->current.len += k;
        else
            *found = scrub_watch(w->watch, plain, k);
        in += k;
        n -= k;
        w->left -= k;
        if (w->left)
            continue;
        if (w->control)
            *found = scrub_find(w->set, (char *)w->current.bytes, w->current.len);
        w->open &= w->control || !w->fin;
        w->in_frame = false;
        w->head_len = w->head_need = 0;
    }
    return true;
}
