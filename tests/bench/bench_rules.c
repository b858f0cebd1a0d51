/* How long a decision takes at 10, 1,000 and 10,000 rules (goal: under 2 us), by name and by address.  The peer in
 * the same run is a walk over the same rules, one by one. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/policy.h"

#define NOW 1000000
#define GOAL_NS 2000.0

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static struct policy *make(int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        char text[64];
        switch (i % 5) {
        case 0:
            snprintf(text, sizeof text, "host%d.example%d.com", i, i % 97);
            break;
        case 1:
            snprintf(text, sizeof text, "*.zone%d.example.org", i);
            break;
        case 2:
            snprintf(text, sizeof text, "**.deep%d.example.net:443", i);
            break;
        case 3:
            snprintf(text, sizeof text, "%d.%d.%d.0/%d", 11 + i % 80, i / 256 % 256, i % 256, 20 + i % 5);
            break;
        default:
            snprintf(text, sizeof text, "2001:db8:%x::/%d", i, 48 + i % 17);
        }
        json_array_append_new(list, json_pack("{s:s, s:s}", "action", i % 10 == 9 ? "deny" : "allow", "target", text));
    }
    json_t *o = json_pack("{s:i, s:s, s:o}", "version", 1, "posture", "locked-down", "rules", list);
    struct policy *p = policy_from_json(o);
    json_decref(o);
    if (policy_error(p)) {
        fprintf(stderr, "%s\n", policy_error(p));
        exit(1);
    }
    return p;
}

int main(void)
{
    static const int sizes[] = {10, 1000, 10000};
    int missed = 0;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct policy *p = make(sizes[k]);
        char names[256][96];
        struct decision d;
        unsigned allowed = 0;
        size_t n;
        for (int i = 0; i < 256; i++) {
            int r = i * 7919 % sizes[k];
            switch (i % 4) {
            case 0:
                snprintf(names[i], sizeof names[i], "host%d.example%d.com", r / 5 * 5, r / 5 * 5 % 97);
                break;
            case 1:
                snprintf(names[i], sizeof names[i], "a.zone%d.example.org", r / 5 * 5 + 1);
                break;
            case 2:
                snprintf(names[i], sizeof names[i], "a.b.c.d.e.deep%d.example.net", r / 5 * 5 + 2);
                break;
            default:
                snprintf(names[i], sizeof names[i], "no.rule.speaks.of.this.one%d.io", r);
            }
        }
        const int rounds = 400000;
        double start = now_ns();
        for (int i = 0; i < rounds; i++) {
            policy_decide_name(p, names[i & 255], 443, NOW, &d);
            allowed += d.allow;
        }
        double by_name = (now_ns() - start) / rounds;
        start = now_ns();
        for (int i = 0; i < rounds; i++) {
            uint8_t a[16] = {(uint8_t)(11 + i % 80), (uint8_t)(i >> 8), (uint8_t)i, 1};
            policy_decide_addr(p, 4, a, 443, NOW, &d);
            allowed += d.allow;
        }
        double by_addr = (now_ns() - start) / rounds;
        const struct rule *r = policy_rules(p, &n);
        const int walks = 200000 / sizes[k] + 1;
        start = now_ns();
        for (int i = 0; i < walks; i++)
            for (size_t x = 0; x < n; x++)
                allowed += rule_matches_name(&r[x], names[i & 255], 443);
        double walk = (now_ns() - start) / walks;
        printf("rules=%d name_ns=%.0f addr_ns=%.0f walk_ns=%.0f (%u)\n", sizes[k], by_name, by_addr, walk, allowed);
        missed += by_name > GOAL_NS || by_addr > GOAL_NS;
        policy_free(p);
    }
    printf("goal: under %.0f ns: %s\n", GOAL_NS, missed ? "missed" : "met");
    return missed != 0;
}
