/* What secrets cost: a credential written into a request, and answers searched for it.  Goal: more than 1 GB/s where there
 * is nothing to find.  The peers in the same run are memcpy, and memmem for each spelling. */
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

    for (size_t i = 0; i < 16 * BLOCK; i++)
        in[i] = (uint8_t)text[i % (sizeof text - 1)];
    double events = stream(set, in, out);
    randombytes_buf(in, 16 * BLOCK);
    double noise = stream(set, in, out);
    double start = now();
    for (size_t done = 0; done < TOTAL; done += BLOCK) {
        memcpy(out, in + done % (16 * BLOCK), BLOCK);
        __asm__ volatile("" ::"r"(out) : "memory");
    }
    double copy = (double)TOTAL / 1e6 / (now() - start);
    printf("scrubbed: events %8.0f MB/s   noise %8.0f MB/s   (memcpy %.0f MB/s)\n", events, noise, copy);
    missed += events < GOAL_MB || noise < GOAL_MB;

    enum { REQUESTS = 20000 };
    start = now();
    for (int i = 0; i < REQUESTS; i++) {
        struct credentials *one = NULL;
        struct headers h;
        char *target = strdup("/v1/messages?beta=true");
        const char *why = "";
        headers_init(&h);
        headers_add_text(&h, "host", "api.anthropic.com");
        headers_add_text(&h, "content-type", "application/json");
        headers_add_text(&h, "x-api-key", a.sentinel);
        headers_add_text(&h, "Authorization", "Bearer another");
        headers_add_text(&h, "anthropic-version", "2023-06-01");
        headers_add_text(&h, "user-agent", "bench");
        if (!credentials_add(&one, &a) || !credentials_scrub(one) || !inject_write(one, true, "POST", "api.anthropic.com", &target, &h, NULL, &why))
            return 1;
        headers_finish(&h);
        free(target);
        credentials_free(one);
    }
    printf("written:  %.1f us per request, needles of its answer included\n", (now() - start) / REQUESTS * 1e6);

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
