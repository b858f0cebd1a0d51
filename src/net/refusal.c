#include "net/refusal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } table[] = {{400, "Bad Request"}, {403, "Forbidden"}, {405, "Method Not Allowed"}, {408, "Request Timeout"},
                 {413, "Content Too Large"}, {414, "URI Too Long"}, {417, "Expectation Failed"},
                 {421, "Misdirected Request"}, {431, "Request Header Fields Too Large"}, {501, "Not Implemented"},
                 {502, "Bad Gateway"}, {503, "Service Unavailable"}, {505, "HTTP Version Not Supported"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].status == status)
            return table[i].reason;
    return "Error";
}

static void fill(struct refusal *r, bool json, int status, const char *kind, const char *text)
{
    r->status = status;
    r->reason = reason_of(status);
    r->type = json ? "application/json" : "text/plain; charset=utf-8";
    if (json) {
        json_t *o = json_pack("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type", kind, "message", text);
        char *s = o ? json_dumps(o, JSON_COMPACT) : NULL;
        snprintf(r->body, sizeof r->body, "%s\n", s ? s : "{}");
        free(s);
        json_decref(o);
    } else {
        snprintf(r->body, sizeof r->body, "sbx: %s\n", text);
    }
    r->len = strlen(r->body);
}

void refusal_denied(struct refusal *r, bool json, const char *what, const char *rule, const char *hint)
{
    char text[3008];
    snprintf(text, sizeof text, "%.1200s was denied by %.255s.%s%.400s", what[0] ? what : "this connection",
             rule[0] ? rule : "the policy", !hint[0] ? "" : json ? " To allow it, on the host: " : "\nTo allow it, on the host: ",
             hint);
    fill(r, json, 403, "sbx_denied", text);
}

void refusal_failed(struct refusal *r, bool json, int status, const char *why)
{
    char text[512];
    bool upstream = status >= 500 && status != 501 && status != 505;
    snprintf(text, sizeof text, "%s%.400s.", upstream ? "" : "this request is not passed on: ", why);
    fill(r, json, status, "sbx_refused", text);
}

void refusal_signed_in(struct refusal *r, const char *sentinel)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:i}", "token_type", "Bearer", "access_token", sentinel, "refresh_token",
                          "kept-on-the-host-by-sbx", "expires_in", 28800);
    /* Some clients want to read who it is, and a token that is a JSON Web Token says so as well. */
    if (strncmp(sentinel, "eyJ", 3) == 0 && strlen(sentinel) < REFUSAL_MAX / 3)
        json_object_set_new(o, "id_token", json_string(sentinel));
    char *s = o ? json_dumps(o, JSON_COMPACT) : NULL;
    r->status = s && strlen(s) < sizeof r->body ? 200 : 503;
    r->reason = r->status == 200 ? "OK" : reason_of(503);
    r->type = "application/json";
    snprintf(r->body, sizeof r->body, "%s", r->status == 200 ? s : "{}");
    r->len = strlen(r->body);
    free(s);
    json_decref(o);
}

const char *refusal_mark(const struct refusal *r)
{
    return r->status == 200 ? "signed-in" : "denied";
}

size_t refusal_http1(const struct refusal *r, bool keep_alive, bool without_body, char *out, size_t cap)
{
    int n = snprintf(out, cap,
                     "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nX-Sbx: %s\r\nCache-Control: no-store\r\n"
                     "%s\r\n%s", r->status, r->reason, r->type, r->len, refusal_mark(r), keep_alive ? "" : "Connection: close\r\n",
                     without_body ? "" : r->body);
    return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}
