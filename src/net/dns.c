#include "net/dns.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* Labels to text; no compression pointer has a place in a question that stands alone.  Returns the bytes
 * read, 0 if malformed. */
static size_t read_name(const uint8_t *p, size_t len, char *text, size_t *text_len)
{
    size_t i = 0, used = 0;
    for (;;) {
        if (i >= len)
            return 0;
        unsigned n = p[i++];
        if (n == 0)
            break;
        if (n > 63 || i + n > len || used + n + 1 > 255)
            return 0;
        if (used)
            text[used++] = '.';
        memcpy(text + used, p + i, n);
        /* A dot inside of a label must not become a border of labels. */
        for (unsigned k = 0; k < n; k++)
            if (p[i + k] == '.' || p[i + k] == '\0')
                text[used + k] = ' ';
        used += n;
        i += n;
    }
    *text_len = used;
    return i;
}

/* "2.0.18.198.in-addr.arpa" or 32 nibbles under ip6.arpa. */
static bool read_reverse(const char *name, struct ip_addr *a)
{
    unsigned b[4];
    int n = 0;
    memset(a, 0, sizeof *a);
    if (sscanf(name, "%3u.%3u.%3u.%3u.in-addr.arpa%n", &b[3], &b[2], &b[1], &b[0], &n) == 4 && n &&
        name[n] == '\0') {
        a->family = 4;
        for (int i = 0; i < 4; i++) {
            if (b[i] > 255)
                return false;
            a->a[i] = (uint8_t)b[i];
        }
        return true;
    }
    if (strlen(name) == 72 && strcmp(name + 64, "ip6.arpa") == 0) {
        a->family = 6;
        for (int i = 0; i < 32; i++) {
            char c = name[i * 2];
            int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
            if (v < 0 || name[i * 2 + 1] != '.')
                return false;
            a->a[15 - i / 2] |= (uint8_t)(i & 1 ? v << 4 : v);
        }
        return true;
    }
    return false;
}

int dns_read(struct dns_query *q, const uint8_t *buf, size_t len)
{
    memset(q, 0, sizeof *q);
    if (len < 12 || (buf[2] & 0x80))
        return -1;
    q->id = get16(buf);
    q->recursion = buf[2] & 1;
    if ((buf[2] >> 3 & 15) != 0)
        return DNS_NOTIMP;
    /* One question; no answers; one additional record at most, which can only be EDNS. */
    if (len > DNS_QUERY_MAX || get16(buf + 4) != 1 || get16(buf + 6) != 0 || get16(buf + 8) != 0 ||
        get16(buf + 10) > 1)
        return DNS_FORMERR;
    char text[256];
    size_t text_len = 0, n = read_name(buf + 12, len - 12, text, &text_len);
    if (n == 0 || 12 + n + 4 > len)
        return DNS_FORMERR;
    q->question_len = n + 4;
    memcpy(q->question, buf + 12, n + 4);
    q->type = get16(buf + 12 + n);
    q->class = get16(buf + 12 + n + 2);
    if (q->class != 1)
        return DNS_NOTIMP;
    q->valid = name_canonical(text, text_len, q->name);
    if (!q->valid)
        q->name[0] = '\0';
    q->is_reverse = q->valid && q->type == DNS_PTR && read_reverse(q->name, &q->addr);
    return DNS_NOERROR;
}

size_t dns_write(uint8_t *out, const struct dns_query *q, int rcode, const struct ip_addr *addr, const char *name)
{
    uint8_t data[256];
    size_t data_len = 0;
    unsigned type = q->type;
    if (addr) {
        data_len = addr->family == 4 ? 4 : 16;
        memcpy(data, addr->a, data_len);
    } else if (name) {
        const char *p = name;
        while (*p) {
            size_t n = strcspn(p, ".");
            data[data_len++] = (uint8_t)n;
            memcpy(data + data_len, p, n);
            data_len += n;
            p += n + (p[n] == '.');
        }
        data[data_len++] = 0;
    }
    put16(out, q->id);
    out[2] = (uint8_t)(0x84 | (q->recursion ? 1 : 0)); /* response, authoritative */
    out[3] = (uint8_t)(0x80 | rcode);
    put16(out + 4, q->question_len ? 1 : 0);
    put16(out + 6, data_len ? 1 : 0);
    put16(out + 8, 0);
    put16(out + 10, 0);
    size_t n = 12;
    memcpy(out + n, q->question, q->question_len);
    n += q->question_len;
    if (data_len) {
        put16(out + n, 0xc00c);
        put16(out + n + 2, type);
        put16(out + n + 4, 1);
        put16(out + n + 6, 0);
        put16(out + n + 8, DNS_TTL);
        put16(out + n + 10, (unsigned)data_len);
        memcpy(out + n + 12, data, data_len);
        n += 12 + data_len;
    }
    return n;
}
