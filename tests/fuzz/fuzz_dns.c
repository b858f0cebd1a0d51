// needs: src/net/dns.c src/core/name.c
/* A query of any bytes, and the answer to it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct dns_query q;
    uint8_t out[DNS_ANSWER_MAX];
    struct ip_addr addr;
    memset(&q, 0, sizeof q);
    memset(&addr, 0, sizeof addr);
    int rc = dns_read(&q, data, size);
    if (rc < 0)
        return 0;
    if (rc == DNS_NOERROR && q.valid && !name_is_canonical(q.name, strlen(q.name)))
        abort();
    if (dns_write(out, &q, rc, NULL, NULL) > sizeof out || dns_write(out, &q, DNS_NXDOMAIN, NULL, NULL) > sizeof out)
        abort();
    if (rc == DNS_NOERROR && q.valid && dns_write(out, &q, DNS_NOERROR, &addr, q.name) > sizeof out)
        abort();
    return 0;
}
