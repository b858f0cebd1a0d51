/* The network log of the dashboard: a million rows, and a filter typed letter by letter. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ui/dash/netlog_index.h"

#define ROWS 1000000u

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double type(struct netlog_view *v, const char *word, double *worst)
{
    char part[64] = "";
    double sum = 0;
    size_t n = strlen(word);
    for (size_t i = 0; i < n; i++) {
        part[i] = word[i];
        part[i + 1] = '\0';
        double began = now_ms();
        netlog_view_filter(v, part, NULL);
        netlog_view_sync(v);
        double took = now_ms() - began;
        sum += took;
        if (took > *worst)
            *worst = took;
    }
    printf("  \"%s\": %.1f ms a letter, %zu rows\n", word, sum / (double)n, netlog_view_count(v));
    return sum;
}

static void run(unsigned hosts, bool paths)
{
    struct netlog *n = netlog_new(0);
    struct netlog_view *v = netlog_view_new(n);
    char host[64], path[96];
    srandom(7);
    double began = now_ms();
    for (unsigned i = 0; i < ROWS; i++) {
        unsigned h = (unsigned)random() % hosts;
        bool deny = h % 5 == 0;
        snprintf(host, sizeof host, "api%u.%s.example.%s", h, h % 3 ? "cdn" : "registry", h % 2 ? "com" : "org");
        snprintf(path, sizeof path, paths ? "/v1/objects/%u/blob" : "/v1/things", i);
        struct decision_row r = {.seq = i + 1, .time_ms = 1700000000000 + i, .kind = deny ? "deny" : "request", .proto = "http2", .host = host,
                                 .port = 443, .addr = "", .method = deny ? "" : "GET", .path = deny ? "" : path, .verdict = deny ? "deny" : "allow",
                                 .rule = deny ? "posture balanced" : "allow **.example.com (global)", .reason = "", .count = 1};
        netlog_add(n, i % 3 ? "alpha" : "beta", &r);
    }
    printf("%u rows, %u hosts%s: added in %.0f ms\n", ROWS, hosts, paths ? ", every path another" : "", now_ms() - began);
    double worst = 0;
    netlog_view_sync(v);
    type(v, "registry", &worst);
    type(v, "verdict:deny cdn", &worst);
    type(v, "host:api12 -org", &worst);
    type(v, "objects/77", &worst);
    began = now_ms();
    netlog_view_filter(v, "", "beta");
    netlog_view_sync(v);
    printf("  one sandbox: %.1f ms\n", now_ms() - began);
    netlog_view_filter(v, "", NULL);
    began = now_ms();
    netlog_view_group(v, true);
    netlog_view_sync(v);
    printf("  grouped: %.1f ms, %zu groups\n", now_ms() - began, netlog_view_count(v));
    printf("  worst letter: %.1f ms (goal: 50)\n", worst);
    netlog_view_free(v);
    netlog_free(n);
}

int main(void)
{
    run(300, false);
    run(5000, true);
    run(200000, true);
    return 0;
}
