/* DNS as far as sbx net speaks it: a strict reader of queries and a writer of answers.  Pure.
 * Sources: RFC 1035, RFC 6891 (EDNS), RFC 9460 (HTTPS, SVCB). */
#ifndef SBX_NET_DNS_H
#define SBX_NET_DNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/name.h"
#include "net/packet.h"

enum { DNS_A = 1, DNS_PTR = 12, DNS_AAAA = 28, DNS_SVCB = 64, DNS_HTTPS = 65 };
enum { DNS_NOERROR = 0, DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_NOTIMP = 4, DNS_REFUSED = 5 };

#define DNS_QUERY_MAX 512u  /* what we read of a query: one question and an EDNS record fit well */
#define DNS_ANSWER_MAX 600u
#define DNS_TTL 1u

struct dns_query {
    uint16_t id;
    bool recursion;             /* RD, echoed */
    uint16_t type, class;
    char name[NAME_MAX_LEN + 1]; /* canonical; "" if it is not a host name (then valid is false) */
    bool valid;
    uint8_t question[262];       /* as asked, to be echoed (also its case: resolvers check it) */
    size_t question_len;
    bool is_reverse;             /* PTR of an address: addr */
    struct ip_addr addr;
};

/* DNS_NOERROR and a filled query; DNS_FORMERR or DNS_NOTIMP with id (and question, if it could be read) to
 * answer so; -1: not even a header, or a response: say nothing. */
int dns_read(struct dns_query *q, const uint8_t *buf, size_t len);

/* Writes an answer; addr (or name, for PTR) may be NULL: then there is no record (NODATA, or an error). */
size_t dns_write(uint8_t *out, const struct dns_query *q, int rcode, const struct ip_addr *addr, const char *name);

#endif
