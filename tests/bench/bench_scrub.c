/* How fast answers are searched for secrets, as a ratio to copying the same bytes; and what one request's injection costs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/inject.h"
#include "net/scrub.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

#define PIECE 16384u
#define TOTAL (512u << 20)

static double run(struct scrub *s, const uint8_t *in, uint8_t *out)
{
    double t = now();
    for (size_t done = 0; done < TOTAL; done += PIECE) {
        const uint8_t *p = in + done % (8u << 20);
        if (s)
            scrub_feed(s, p, PIECE, out);
        else
            memcpy(out, p, PIECE);
        __asm__ volatile("" ::"r"(out) : "memory");
    }
    return (double)TOTAL / (now() - t) / 1e6;
}

int main(void)
{
    uint8_t *in = malloc(8u << 20), *out = malloc(PIECE + 4096);
    static const char text[] = "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"text\":\" and the sk- of it\"}}\n\n";
    for (size_t i = 0; i < 8u << 20; i++)
        in[i] = (uint8_t)text[i % (sizeof text - 1)];
    double copy = run(NULL, in, out);
    struct answer_secret *a = calloc(1, sizeof *a);
    strcpy(a->service, "openai");
    strcpy(a->header, "authorization");
    strcpy(a->strip, "x-api-key,cookie");
    strcpy(a->value, "sk-proj-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ");
    strcpy(a->sentinel, "sk-proj-9876543210zyxwvutsrqponmlkjihgfedcbaJIHGFEDCBA");
    snprintf(a->written, sizeof a->written, "Bearer %.100s", a->value);
    struct credentials *c = NULL;
    credentials_add(&c, a);
    struct scrub *s = scrub_new(credentials_scrub(c));
    double events = run(s, in, out);
    for (size_t i = 0; i < 8u << 20; i++)
        in[i] = (uint8_t)(rand() >> 7);
    double random = run(s, in, out);
    printf("copying                 %8.0f MB/s\nscrubbing event streams %8.0f MB/s  %.2f of copying\nscrubbing random bytes  %8.0f MB/s  %.2f of copying\n",
           copy, events, events / copy, random, random / copy);
    scrub_free(s);
    credentials_free(c);
    const int times = 20000;
    double t = now();
    for (int i = 0; i < times; i++) {
        const char *why;
        struct headers h;
        char *target = strdup("/v1/responses?x=y");
        c = NULL;
        headers_init(&h);
        headers_add_text(&h, "authorization", "Bearer sentinel");
        headers_add_text(&h, "content-type", "application/json");
        headers_add_text(&h, "user-agent", "codex");
        credentials_add(&c, a);
        credentials_scrub(c);
        inject_write(c, true, "POST", "api.openai.com", &target, &h, NULL, &why);
        credentials_free(c);
        headers_finish(&h);
        free(target);
    }
    printf("injection of one request %7.1f us\n", (now() - t) / times * 1e6);
    free(a);
    free(in);
    free(out);
    return 0;
}
