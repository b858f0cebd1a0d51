/* The address of a company's proxy, as the setting net.proxy has it: http://[USER[:PASSWORD]@]HOST[:PORT].  Pure. */
#ifndef SBX_CORE_PROXYURL_H
#define SBX_CORE_PROXYURL_H

#include <stdint.h>

#include "core/err.h"

struct proxy_url {
    char host[256]; /* a name, or an address without brackets */
    uint16_t port;  /* 3128 if none was given */
    char login[512]; /* USER:PASSWORD, percent-decoded; "" if none was given */
};

/* -1 with STATUS_USAGE and a sentence that does not repeat a password. */
int proxy_url_parse(const char *text, struct proxy_url *out, struct err *e);

#endif
