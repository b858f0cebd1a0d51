/* What our reader of HTTP/1 makes of the bytes on stdin, message by message: "METHOD TARGET BODY-BYTES", then "end",
 * "more" (it waits) or "bad".  For the differential test. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "net/http1.h"
#include "net/httpbody.h"

int main(void)
{
    static uint8_t in[1 << 20];
    size_t n = 0, at = 0;
    ssize_t got;
    while ((got = read(0, in + n, sizeof in - n)) > 0)
        n += (size_t)got;
    while (at < n) {
        struct http1_reader r;
        struct http1_head h;
        struct http1_error e = {0};
        struct httpbody b;
        size_t used = 0, body = 0;
        http1_reader_init(&r);
        http1_head_init(&h);
        enum http1_result what = http1_read(&r, in + at, n - at, &used, &e);
        if (what == HTTP1_DONE)
            at += used;
        if (what == HTTP1_MORE || what == HTTP1_BAD || !http1_parse_request(&h, &r, &e)) {
            puts(what == HTTP1_MORE ? "more" : "bad");
            return 0;
        }
        httpbody_init(&b, h.framing, h.length);
        while (!b.done && at < n) {
            const uint8_t *content;
            size_t len;
            if (!httpbody_take(&b, in + at, n - at, &used, &content, &len)) {
                puts("bad");
                return 0;
            }
            at += used;
            body += len;
            if (!used)
                break;
        }
        if (!b.done) {
            puts("more");
            return 0;
        }
        printf("%s %s %zu\n", h.method, h.target, body);
        fflush(stdout);
        http1_head_finish(&h);
        http1_reader_finish(&r);
    }
    puts("end");
    return 0;
}
