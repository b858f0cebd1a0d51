/* Network rules: what a user writes, and its one canonical form.  Pure.
 *
 *   example.com            that host, any port
 *   *.example.com          one label below it, not example.com itself
 *   **.example.com         any depth below it
 *   192.0.2.7, 2001:db8::7 an address;   10.0.0.0/8, 2001:db8::/32   a range
 *   localhost:1234         that port of this host's loopback (in the guest: host.docker.internal:1234)
 * each but the last with an optional :PORT or :LOW-HIGH; IPv6 with a port in brackets.  127.0.0.1:1234 and [::1]:1234
 * mean localhost:1234.  For HTTP a rule may also speak of methods and of a path and what lies below it:
 *   GET|HEAD api.example.com/repos
 * Such a rule is `conditional`: it says something about requests, not about connections. */
#ifndef SBX_CORE_RULE_H
#define SBX_CORE_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"
#include "core/name.h"

enum rule_kind { RULE_HOST, RULE_LABEL /* *. */, RULE_DEPTH /* **. */, RULE_RANGE };
enum rule_origin { RULE_SANDBOX, RULE_GLOBAL, RULE_PRESET };

#define RULE_PATH_MAX 191

struct rule {
    char id[9];  /* hex, unique in its file */
    bool deny;
    bool disabled; /* stands in its file and says nothing */
    bool over, lasting; /* it ran out, or it did not, whatever the clock says (core/expiry.h) */
    uint32_t front;     /* of a policy's rule that never runs out: 1 + the place of the one that does and has its target in
                           the same file.  While that one lives it alone counts.  0: none */
    enum rule_kind kind;
    enum rule_origin origin;
    char host[NAME_MAX_LEN + 1]; /* canonical, without the wildcard */
    uint8_t family;              /* RULE_RANGE: 4 or 6 */
    uint8_t prefix;              /* bits */
    uint8_t addr[16];            /* masked */
    uint16_t port_low, port_high; /* 1 and 65535 when none was given */
    uint16_t methods;             /* bits of rule_method(); 0: all */
    char path[RULE_PATH_MAX + 1]; /* "": all */
    int64_t expires, created;    /* seconds since the epoch; 0: never, and unknown */
    char comment[128];
};

/* Longest text rule_format writes. */
#define RULE_TEXT_MAX 560

/* Reads the target of a rule into a zeroed r (deny, id, expiry and comment are the caller's).  -1 with
 * STATUS_USAGE and one sentence that says what is wrong. */
int rule_parse(struct rule *r, const char *text, struct err *e);

/* Commands take lists of rules with commas between them; the comma of a path is written \, there (no rule holds a
 * backslash).  The next rule of a list, cut in place, without blanks before it; NULL: that was all. */
char *rule_list_next(char **rest);
/* A rule's text as it stands in such a list; empty if it does not fit. */
void rule_list_item(char *out, size_t cap, const char *text);

/* The canonical text, which parses to the same rule. */
void rule_format(char out[RULE_TEXT_MAX], const struct rule *r);

/* Do both speak of the same hosts, ports and requests? */
bool rule_same_target(const struct rule *a, const struct rule *b);

bool rule_has_port(const struct rule *r);
/* Does it speak of methods or paths? */
bool rule_is_conditional(const struct rule *r);
/* Does it name one host and port, one address, or a range of one kind of addresses (no wider than 10.0.0.0/8 or
 * fc00::/7)?  Only such a rule opens what is not global; 0.0.0.0/0 opens the global addresses alone. */
bool rule_is_exact(const struct rule *r);

/* Does the rule speak of this name (canonical), or of this address? Ports are compared as well. */
bool rule_matches_name(const struct rule *r, const char *name, uint16_t port);
bool rule_matches_addr(const struct rule *r, uint8_t family, const uint8_t *addr, uint16_t port);
/* The bit of an HTTP method that rules can name, or 0. */
uint16_t rule_method(const char *name);
/* Does it speak of this request?  path: normalised, from its slash, without the query. */
bool rule_matches_request(const struct rule *r, const char *method, const char *path);

/* "host.docker.internal" and "host.sbx.internal" are "localhost"; else name itself. */
const char *rule_alias(const char *name);

/* Reads an IPv4 or IPv6 address in its one strict spelling; IPv4-mapped IPv6 becomes IPv4.  0 if it is none. */
uint8_t rule_parse_addr(const char *text, uint8_t addr[16]);

#endif
