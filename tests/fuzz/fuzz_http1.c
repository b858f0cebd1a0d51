// needs: src/net/http1.c src/net/headers.c src/core/name.c src/core/wipe.c src/core/err.c src/core/rule.c src/net/plainhello.c
/* A head of any bytes, as a request and as a response: it is refused, or what is written anew reads as the same message,
 * and every split reads the same.  What is a request is known as HTTP by its first bytes, and none of them says otherwise. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/http1.h"
#include "net/plainhello.h"

static bool read_in(const uint8_t *p, size_t n, size_t piece, bool response, struct http1_head *h, size_t *took)
{
    struct http1_reader r;
    struct http1_error e = {0};
    enum http1_result got = HTTP1_MORE;
    size_t at = 0;
    http1_reader_init(&r);
    http1_head_init(h);
    while (got == HTTP1_MORE && at < n) {
        size_t used, k = n - at < piece ? n - at : piece;
        got = http1_read(&r, p + at, k, &used, &e);
        at += used;
        if (got == HTTP1_MORE && used < k)
            abort();
    }
    *took = at;
    bool good = got == HTTP1_DONE && (response ? http1_parse_response(h, &r, "GET", &e) : http1_parse_request(h, &r, &e));
    if (!good)
        http1_reader_finish(&r);
    return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int response = 0; response < 2; response++) {
        struct http1_head h, other, again;
        size_t took, took2, len;
        bool good = read_in(data, size, size ? size : 1, response, &h, &took);
        if (read_in(data, size, 3, response, &other, &took2) != good || (good && took != took2))
            abort();
        http1_head_finish(&other);
        for (size_t n = 0; !response && good && n <= took && n < 600; n++)
            if (plainhello_read(data, n, false) == PLAINHELLO_OTHER || (n == took && plainhello_read(data, n, false) != PLAINHELLO_HTTP))
                abort();
        if (good) {
            char *text = response ? http1_write_response(&h, true, &len) : http1_write_request(&h, 443, true, &len);
            if (text) {
                if (strlen(text) != len || !read_in((uint8_t *)text, len, len, response, &again, &took) || took != len)
                    abort();
                if (again.fields.n < h.fields.n || (!response && (strcmp(again.method, h.method) != 0 || strcmp(again.target, h.target) != 0 ||
                                                                  strcmp(again.host, h.host) != 0 || again.framing != h.framing || again.length != h.length)))
                    abort();
                http1_head_finish(&again);
                free(text);
            }
        }
        http1_head_finish(&h);
    }
    return 0;
}
