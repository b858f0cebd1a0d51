// needs: src/net/clienthello.c src/core/name.c
/* A greeting of any bytes: what is said of a beginning is never taken back, but for "more". */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/clienthello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct clienthello whole, part;
    memset(&whole, 0, sizeof whole);
    enum clienthello_result all = clienthello_read(&whole, data, size);
    if (all == CLIENTHELLO_DONE && whole.has_name && !name_is_canonical(whole.name, strlen(whole.name)))
        abort();
    for (size_t n = 0; n < size && n < 600; n++) {
        memset(&part, 0, sizeof part);
        enum clienthello_result r = clienthello_read(&part, data, n);
        if (r == CLIENTHELLO_DONE && (all != CLIENTHELLO_DONE || strcmp(part.name, whole.name) != 0))
            abort();
        if ((r == CLIENTHELLO_BAD || r == CLIENTHELLO_NOT_TLS) && all == CLIENTHELLO_DONE)
            abort();
    }
    return 0;
}
