/* What secrets cost: a credential written into a request, answers searched for it, and requests for sentinels.  Goal: more than 1 GB/s where there
 * is nothing to find.  The baseline of the same run is what one would write without a scrubber, glibc's memmem once for each
 * spelling (which misses what goes over the end of a block); memcpy is the floor. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/inject.h"
#include "net/mint.h"

#define BLOCK (32u * 1024u) /* as the proxies read */
#define TOTAL (512u * 1024u * 1024u)
#define GOAL_MB 1000.0

static const char value[] = "sk-ant-api03-Qx7R2bCzz90aabbaabbQx7R2bCzz90aabbaabbQx7R2bC-zz90aabbAA";

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double stream(struct scrub_set *set, const uint8_t *in, uint8_t *out)
{
    double start = now();
    struct scrub *s = scrub_new(set);
    for (size_t done = 0; done < TOTAL; done += BLOCK)
        scrub_feed(s, in + done % (16 * BLOCK), BLOCK, out);
    scrub_free(s);
    return (double)TOTAL / 1e6 / (now() - start);
}

/* What goes out, searched for so many sentinels. */
static double watched(const uint8_t *in, unsigned sentinels)
{
    struct scrub_set *set = scrub_set_new();
    for (unsigned i = 0; i < sentinels; i++) {
        char one[sizeof value];
        for (size_t k = 0; k < sizeof value - 1; k++)
            one[k] = value[k] == '-' ? '-' : (char)('a' + randombytes_uniform(26));
        one[sizeof value - 1] = '\0';
        memcpy(one, "sk-ant-api03-", 13);
        scrub_set_add(set, one, one);
    }
    scrub_set_ready(set);
    struct scrub_watch *w = scrub_watch_new(set);
    uint64_t found = 0;
    double start = now();
    for (size_t done = 0; done < TOTAL; done += BLOCK)
        found |= scrub_watch(w, in + done % (16 * BLOCK), BLOCK);
    double mb = (double)TOTAL / 1e6 / (now() - start);
    if (found)
        printf("the text holds a sentinel\n");
    scrub_watch_free(w);
    scrub_set_unref(set);
    return mb;
}

static double copied(const uint8_t *in, uint8_t *out)
{
    double start = now();
    for (size_t done = 0; done < TOTAL; done += BLOCK) {
        memcpy(out, in + done % (16 * BLOCK), BLOCK);
        __asm__ volatile("" ::"r"(out) : "memory");
    }
    return (double)TOTAL / 1e6 / (now() - start);
}

/* The spellings that the scrubber looks for, by themselves. */
#define SPELLINGS_MAX 16
static char spelled[SPELLINGS_MAX][600];
static size_t nspelled;

static void spell(const char *lead, bool upper)
{
    char *at = spelled[nspelled++];
    for (const char *c = value; *c; c++)
        at += upper ? sprintf(at, "%s%02X", lead, (unsigned char)*c) : sprintf(at, "%s%02x", lead, (unsigned char)*c);
}

static void spell_all(void)
{
    static const int alphabets[] = {sodium_base64_VARIANT_ORIGINAL_NO_PADDING, sodium_base64_VARIANT_URLSAFE_NO_PADDING};
    char shifted[sizeof value + 2] = "  ";
    strcpy(spelled[nspelled++], value);
    for (int i = 0; i < 2; i++)
        for (size_t offset = 0; offset < 3; offset++) {
            memcpy(shifted + offset, value, sizeof value);
            char *to = spelled[nspelled++];
            sodium_bin2base64(to, sizeof spelled[0], (unsigned char *)shifted, strlen(value) + offset, alphabets[i]);
            memmove(to, to + 2 * offset, strlen(to + 2 * offset) + 1); /* without what depends on the neighbours */
        }
    for (int upper = 0; upper < 2; upper++) {
        spell("%", upper);
        spell("\\u00", upper);
    }
}

static double searched(const uint8_t *in, uint8_t *out)
{
    const size_t total = TOTAL / 16;
    size_t found = 0;
    double start = now();
    for (size_t done = 0; done < total; done += BLOCK) {
        memcpy(out, in + done % (16 * BLOCK), BLOCK);
        for (size_t i = 0; i < nspelled; i++)
            found += memmem(out, BLOCK, spelled[i], strlen(spelled[i])) != NULL;
    }
    if (found)
        printf("the text holds the secret\n");
    return (double)total / 1e6 / (now() - start);
}

/* One request as an agent sends it; with a credential written into it, or only taken apart and freed as without one. */
static bool request(const struct answer_secret *a, bool write)
{
    struct credentials *one = NULL;
    struct headers h;
    char *target = strdup("/v1/messages?beta=true");
    const char *why = "";
    headers_init(&h);
    headers_add_text(&h, "host", "api.anthropic.com");
    headers_add_text(&h, "content-type", "application/json");
    headers_add_text(&h, "x-api-key", a->sentinel);
    headers_add_text(&h, "Authorization", "Bearer another");
    headers_add_text(&h, "anthropic-version", "2023-06-01");
    headers_add_text(&h, "user-agent", "bench");
    bool good = !write || (credentials_add(&one, a) && credentials_scrub(one) &&
                           inject_write(one, true, "POST", "api.anthropic.com", &target, &h, NULL, &why));
    headers_finish(&h);
    free(target);
    credentials_free(one);
    return good;
}

int main(void)
{
    static const char text[] = "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" the answer is sk-\"}}\n\n";
    uint8_t *in = malloc(16 * BLOCK), *out = malloc(2 * BLOCK + 65536);
    int missed = 0;
    if (!in || !out || sodium_init() < 0)
        return 1;
    static struct answer_secret a;
    a.kind = ANSWER_SECRET;
    strcpy(a.header, "x-api-key");
    strcpy(a.strip, "authorization,cookie");
    strcpy(a.value, value);
    strcpy(a.written, value);
    memcpy(a.sentinel, "sk-ant-api03-Lm4K8pDqq13ccddccddLm4K8pDqq13ccddccddLm4K8pD-qq13ccddBB", sizeof value);
    struct credentials *c = NULL;
    credentials_add(&c, &a);
    struct scrub_set *set = credentials_scrub(c);

    spell_all();
    for (int noise = 0; noise < 2; noise++) {
        for (size_t i = 0; i < 16 * BLOCK; i++)
            in[i] = (uint8_t)text[i % (sizeof text - 1)];
        if (noise)
            randombytes_buf(in, 16 * BLOCK);
        double scrubbed = stream(set, in, out), memmems = searched(in, out), copy = copied(in, out);
        printf("scrubbed, %s %8.0f MB/s   (memmem for each spelling %.0f MB/s: %.1f times that; memcpy %.0f MB/s)\n",
               noise ? "noise: " : "events:", scrubbed, memmems, scrubbed / memmems, copy);
        missed += scrubbed < GOAL_MB;
        printf("searched, %s %8.0f MB/s for one sentinel, %.0f for 10, %.0f for 60\n", noise ? "noise: " : "events:", watched(in, 1), watched(in, 10), watched(in, 60));
    }

    enum { REQUESTS = 20000 };
    double start, each[2];
    for (int write = 0; write < 2; write++) {
        start = now();
        for (int i = 0; i < REQUESTS; i++)
            if (!request(&a, write))
                return 1;
        each[write] = (now() - start) / REQUESTS * 1e6;
    }
    printf("written:  %.1f us per request, needles of its answer included   (the same request without a secret %.1f us)\n", each[1], each[0]);

    start = now();
    for (int i = 0; i < REQUESTS; i++) {
        static struct ask_mint m;
        char body[] = "{\"token_type\":\"Bearer\",\"access_token\":\"sk-ant-oat01-AAAABBBBCCCCDDDDAAAABBBBCCCCDDDD\",\"refresh_token\":\"sk-ant-ort01-"
                      "FFFFGGGGHHHHFFFFGGGGHHHH\",\"expires_in\":28800}";
        if (mint_read((uint8_t *)body, strlen(body), &m) != MINT_TAKEN)
            return 1;
    }
    printf("sign-in:  %.1f us for an answer with two tokens\n", (now() - start) / REQUESTS * 1e6);
    credentials_free(c);
    free(in);
    free(out);
    if (missed)
        printf("goal of %.0f MB/s missed\n", GOAL_MB);
    return 0;
}
