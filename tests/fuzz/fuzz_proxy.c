// needs: src/net/h1proxy.c src/net/h2proxy.c src/net/proxy.c src/net/headers.c src/net/http1.c src/net/httpbody.c src/net/inject.c src/net/mint.c src/net/refusal.c src/net/scrub.c src/net/sigv4.c src/net/wsframes.c src/net/tls.c src/core/name.c src/core/wipe.c src/core/err.c src/core/rule.c src/core/sanitize.c src/core/sentinel.c src/core/urlpath.c src/core/service.c src/core/jsonfile.c src/core/paths.c src/core/record.c src/core/shipped.c 
/* An intercepted connection of which both ends, and the times at which they speak, stop, end and break, are any: no end
 * of it is read or written when it is over, it comes to rest, and nothing of a request goes to the server unless it was
 * allowed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/h1proxy.h"
#include "net/h2proxy.h"

#define STEPS_MAX 200

enum op { GUEST_SAYS, SERVER_SAYS, GUEST_ENDS, SERVER_ENDS, SERVER_BREAKS, GUEST_TAKES, SERVER_TAKES, VERDICT, OPS };

struct side {
    const uint8_t *in;
    size_t left, takes, took;
    bool eof, broken;
};

static struct side guest_side, server_side;
static uint32_t asked[64];
static unsigned nasked, allowed;
static bool two;
static struct h1proxy *h1;
static struct h2proxy *h2;

static ssize_t side_read(void *arg, void *buf, size_t n)
{
    struct side *s = arg;
    if (s->left == 0)
        return s->broken ? END_ERROR : s->eof ? 0 : END_AGAIN;
    n = n < s->left ? n : s->left;
    memcpy(buf, s->in, n);
    s->in += n;
    s->left -= n;
    return (ssize_t)n;
}

static ssize_t side_write(void *arg, const void *buf, size_t n)
{
    struct side *s = arg;
    (void)buf;
    if (s->broken)
        return END_ERROR;
    n = n < s->takes ? n : s->takes;
    if (n == 0)
        return END_AGAIN;
    s->takes -= n;
    s->took += n;
    if (s == &server_side && !two && !allowed)
        abort();
    return (ssize_t)n;
}

static void side_shutdown(void *arg)
{
    (void)arg;
}

static bool side_empty(void *arg)
{
    const struct side *s = arg;
    return s->left == 0 && !s->eof && !s->broken;
}

static const struct end_ops ops = {side_read, side_write, side_shutdown, side_empty};

static void on_request(void *arg, const struct proxy_request *r)
{
    (void)arg;
    if (!r->again && nasked < sizeof asked / sizeof *asked)
        asked[nasked++] = r->id;
}

static void on_mismatch(void *arg, const char *seen, bool one)
{
    (void)arg;
    (void)seen;
    (void)one;
}

static void on_failed(void *arg, int status, const char *why)
{
    (void)arg;
    (void)status;
    (void)why;
}

static bool on_minted(void *arg, uint8_t *body, size_t n)
{
    (void)arg;
    (void)body;
    return n % 3 != 0;
}

/* Until nothing moves any more. */
static enum proxy_state go(void)
{
    enum proxy_state s;
    size_t before;
    int n = 0;
    do {
        if (++n > STEPS_MAX)
            abort();
        before = guest_side.left + server_side.left + guest_side.took + server_side.took;
        s = two ? h2proxy_step(h2) : h1proxy_step(h1);
    } while (s == PROXY_GOING && before != guest_side.left + server_side.left + guest_side.took + server_side.took);
    return s;
}

static void verdict(uint8_t how)
{
    struct proxy_verdict v = {.allow = (how & 3) != 0, .rule = "a rule", .hint = "a command", .mint = (how & 12) == 12};
    if ((how & 48) == 48)
        v.signed_in = "a sentinel";
    if (nasked == 0) {
        if (two)
            h2proxy_review(h2);
        else
            h1proxy_review(h1);
        return;
    }
    uint32_t id = asked[--nasked];
    allowed += v.allow;
    if (two)
        h2proxy_answer(h2, id, &v);
    else
        h1proxy_answer(h1, id, &v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct end guest, up;
    struct proxy_owner owner = {.name = "a.test", .port = 80, .request = on_request, .mismatch = on_mismatch, .failed = on_failed, .minted = on_minted};
    if (size < 2)
        return 0;
    two = data[0] & 1;
    guest_side = (struct side){.takes = data[0] & 2 ? SIZE_MAX / 4 : 0};
    server_side = (struct side){.takes = data[0] & 4 ? SIZE_MAX / 4 : 0};
    nasked = allowed = 0;
    end_init(&guest, &ops, &guest_side);
    end_init(&up, &ops, &server_side);
    h1 = two ? NULL : h1proxy_new(&guest, &up, &owner);
    h2 = two ? h2proxy_new(&guest, &up, &owner) : NULL;
    enum proxy_state s = PROXY_GOING;
    for (size_t at = 1; at + 1 < size && s == PROXY_GOING;) {
        uint8_t op = data[at++] % OPS, n = data[at++];
        size_t more = (size_t)n < size - at ? n : size - at;
        switch (op) {
        case GUEST_SAYS:
        case SERVER_SAYS: {
            struct side *side = op == GUEST_SAYS ? &guest_side : &server_side;
            if (side->eof || side->broken || side->left)
                break; /* it is not read at present */
            side->in = data + at;
            side->left = more;
            at += more;
            break;
        }
        case GUEST_ENDS:
            guest_side.eof = true;
            break;
        case SERVER_ENDS:
            server_side.eof = true;
            break;
        case SERVER_BREAKS:
            server_side.broken = true;
            break;
        case GUEST_TAKES:
            guest_side.takes = n == 255 ? SIZE_MAX / 4 : n;
            break;
        case SERVER_TAKES:
            server_side.takes = n == 255 ? SIZE_MAX / 4 : n;
            break;
        default:
            verdict(n);
        }
        s = go();
    }
    h1proxy_free(h1);
    h2proxy_free(h2);
    end_finish(&guest);
    end_finish(&up);
    return 0;
}
