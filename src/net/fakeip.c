#include "net/fakeip.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "core/netplan.h"

#define SLOTS (FAKEIP_MAX * 2)

struct fakeip {
    uint32_t slot[SLOTS]; /* index + 1 of names, open addressing */
    char *names[FAKEIP_MAX];
    uint32_t count;
    uint8_t base4[4], base6[16];
};

struct fakeip *fakeip_new(void)
{
    struct fakeip *f = calloc(1, sizeof *f);
    if (f) {
        inet_pton(AF_INET, NETPLAN_FAKE4, f->base4);
        inet_pton(AF_INET6, NETPLAN_FAKE6, f->base6);
    }
    return f;
}

void fakeip_free(struct fakeip *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < f->count; i++)
        free(f->names[i]);
    free(f);
}

static uint32_t hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 16777619u;
    return h ^ h >> 16;
}

/* Index 0 is address .1, so that no name gets the network's own address. */
static void address(const struct fakeip *f, uint32_t index, uint8_t family, struct ip_addr *out)
{
    uint32_t n = index + 1;
    memset(out, 0, sizeof *out);
    out->family = family;
    if (family == 4) {
        memcpy(out->a, f->base4, 4);
        out->a[1] = (uint8_t)(out->a[1] + (n >> 16));
        out->a[2] = (uint8_t)(n >> 8);
        out->a[3] = (uint8_t)n;
    } else {
        memcpy(out->a, f->base6, 16);
        out->a[13] = (uint8_t)(n >> 16);
        out->a[14] = (uint8_t)(n >> 8);
        out->a[15] = (uint8_t)n;
    }
}

bool fakeip_of(struct fakeip *f, const char *name, uint8_t family, struct ip_addr *out)
{
    uint32_t i = hash(name) % SLOTS;
    while (f->slot[i] && strcmp(f->names[f->slot[i] - 1], name) != 0)
        i = (i + 1) % SLOTS;
    if (!f->slot[i]) {
        char *copy = f->count < FAKEIP_MAX ? strdup(name) : NULL;
        if (!copy)
            return false;
        f->names[f->count++] = copy;
        f->slot[i] = f->count;
    }
    address(f, f->slot[i] - 1, family, out);
    return true;
}

const char *fakeip_name(const struct fakeip *f, const struct ip_addr *addr)
{
    const uint8_t *a = addr->a;
    uint32_t n;
    if (addr->family == 4) {
        if (a[0] != f->base4[0] || (a[1] & 0xfe) != f->base4[1])
            return NULL;
        n = (uint32_t)(a[1] & 1) << 16 | (uint32_t)a[2] << 8 | a[3];
    } else {
        if (memcmp(a, f->base6, 13) != 0)
            return NULL;
        n = (uint32_t)a[13] << 16 | (uint32_t)a[14] << 8 | a[15];
    }
    return n >= 1 && n <= f->count ? f->names[n - 1] : NULL;
}
