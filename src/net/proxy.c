#include "net/proxy.h"

#include <stdio.h>
#include <string.h>

#include "core/sanitize.h"
#include "core/urlpath.h"

void proxy_describe(const struct proxy_owner *o, const char *method, const char *target, char *out, size_t cap)
{
    char path[512], shown[600];
    urlpath_show(target, path, sizeof path);
    snprintf(shown, sizeof shown, "%.31s %s://%s%s", method, o->tls ? "https" : "http", o->name, path);
    sanitize_line(out, cap, shown, strlen(shown));
}

bool proxy_is_ours(const struct proxy_owner *o, const char *host, uint16_t port)
{
    uint16_t usual = o->tls ? 443 : 80;
    return strcmp(host, o->name) == 0 && (port ? port : usual) == o->port;
}

bool proxy_wants_json(const struct headers *h)
{
    const struct header *accept = headers_get(h, "accept"), *type = headers_get(h, "content-type");
    return (accept && strstr(accept->value, "application/json")) || (type && strstr(type->value, "application/json"));
}

static size_t spooled; /* one process serves one sandbox */

bool proxy_spool(size_t *held, size_t want)
{
    if (want > *held && (want > PROXY_SPOOL_EACH || spooled - *held + want > PROXY_SPOOL_ALL))
        return false;
    spooled = spooled - *held + want;
    *held = want;
    return true;
}

size_t proxy_spooled(void)
{
    return spooled;
}

static size_t heads;

bool proxy_heads(size_t *held, size_t want)
{
    if (want > *held && heads - *held + want > PROXY_HEADS_ALL)
        return false;
    heads = heads - *held + want;
    *held = want;
    return true;
}

size_t proxy_heads_held(void)
{
    return heads;
}
