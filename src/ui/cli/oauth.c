/* Sign-ins with a provider: authorization code with PKCE (RFC 6749, RFC 7636) by a browser and a listener on the loopback
 * (RFC 8252), the device form (RFC 8628), and refreshing.  Endpoints are the service's data. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "core/sanitize.h"
#include "core/service.h"
#include "core/spawn.h"
#include "ui/cli/secret.h"

#define SIGN_IN_SECONDS 300
#define TEXT_MAX 4096

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* Random, unreserved characters. */
static void token(char *out, size_t bytes)
{
    unsigned char raw[64];
    randombytes_buf(raw, bytes);
    sodium_bin2base64(out, sodium_base64_encoded_len(bytes, sodium_base64_VARIANT_URLSAFE_NO_PADDING), raw, bytes,
                      sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

static void add_encoded(char *out, size_t cap, const char *key, const char *value)
{
    size_t n = strlen(out);
    n += (size_t)snprintf(out + n, cap - n, "%s%s=", n && out[n - 1] != '?' ? "&" : "", key);
    for (; *value && n + 4 < cap; value++) {
        unsigned char c = (unsigned char)*value;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-._~", c);
        n += (size_t)(plain ? snprintf(out + n, cap - n, "%c", c) : snprintf(out + n, cap - n, "%%%02X", c));
    }
}

/* A parameter of a query, decoded. */
static bool parameter(const char *query, const char *key, char *out, size_t cap)
{
    size_t k = strlen(key), n = 0;
    for (const char *p = query; p && *p; p = strchr(p, '&') ? strchr(p, '&') + 1 : NULL) {
        if (strncmp(p, key, k) != 0 || p[k] != '=')
            continue;
        for (p += k + 1; *p && *p != '&' && *p != ' ' && n < cap - 1; p++) {
            unsigned c;
            if (*p == '%' && sscanf(p + 1, "%2x", &c) == 1) {
                out[n++] = (char)c;
                p += 2;
            } else
                out[n++] = *p == '+' ? ' ' : *p;
        }
        out[n] = '\0';
        return true;
    }
    return false;
}

static int post(const json_t *oauth, const char *url, const char *const pairs[][2], json_t **reply, struct err *e)
{
    bool json = strcmp(text(oauth, "format"), "json") == 0;
    char *form = sodium_malloc(4 * SECRET_INPUT_MAX), *body = NULL, *dumped = NULL;
    size_t len = 0;
    if (!form)
        return err_set(e, STATUS_FAILED, "out of memory");
    form[0] = '\0';
    if (json) {
        json_t *o = json_object();
        for (size_t i = 0; pairs[i][0]; i++)
            json_object_set_new(o, pairs[i][0], json_string(pairs[i][1]));
        dumped = json_dumps(o, JSON_COMPACT);
        json_decref(o);
    } else
        for (size_t i = 0; pairs[i][0]; i++)
            add_encoded(form, 4 * SECRET_INPUT_MAX, pairs[i][0], pairs[i][1]);
    const struct secret_http r = {.url = url, .post = json ? dumped : form,
                                  .headers = {json ? "content-type: application/json" : "content-type: application/x-www-form-urlencoded",
                                              "accept: application/json"}};
    long status = secret_http(&r, &body, &len, e);
    if (dumped)
        explicit_bzero(dumped, strlen(dumped));
    free(dumped);
    sodium_free(form);
    if (status < 0)
        return -1;
    *reply = json_loadb(body, len, 0, NULL);
    explicit_bzero(body, len);
    free(body);
    if (!json_is_object(*reply)) {
        json_decref(*reply);
        *reply = NULL;
        return err_set(e, STATUS_FAILED, "the provider answered %ld and no JSON", status);
    }
    return (int)status;
}

/* The provider's error, made printable: it may say anything. */
static int refused(const json_t *reply, int status, struct err *e)
{
    char why[200];
    const char *s = text(reply, "error_description")[0] ? text(reply, "error_description") : text(reply, "error");
    sanitize_line(why, sizeof why, s, strlen(s));
    return err_set(e, STATUS_FAILED, "the provider refused the sign-in (%d)%s%s", status, why[0] ? ": " : "", why);
}

static int keep(const json_t *service, const char *form, const char *scope, const json_t *reply, int status, struct err *e)
{
    const char *access = text(reply, "access_token");
    if (!access[0])
        return refused(reply, status, e);
    json_int_t life = json_integer_value(json_object_get(reply, "expires_in"));
    const struct secret_value v = {.service = text(service, "name"), .scope = scope, .form = form, .value = access,
                                   .refresh = text(reply, "refresh_token"), .expires = life > 0 ? time(NULL) + life : 0};
    return secret_store(&v, e);
}

int oauth_refresh(const json_t *service, const char *refresh, char *value, char *again, size_t cap, int64_t *expires, struct err *e)
{
    const json_t *oauth = json_object_get(service, "oauth");
    const char *const pairs[][2] = {{"grant_type", "refresh_token"}, {"refresh_token", refresh}, {"client_id", text(oauth, "client_id")}, {NULL, NULL}};
    json_t *reply = NULL;
    if (!text(oauth, "token")[0])
        return err_set(e, STATUS_FAILED, "no sign-in is known for %s", text(service, "name"));
    int status = post(oauth, text(oauth, "token"), pairs, &reply, e), rc = -1;
    if (status < 0)
        return -1;
    const char *access = text(reply, "access_token"), *next = text(reply, "refresh_token");
    if (access[0] && strlen(access) < cap && strlen(next) < cap) {
        json_int_t life = json_integer_value(json_object_get(reply, "expires_in"));
        strcpy(value, access);
        strcpy(again, next);
        *expires = time(NULL) + (life > 0 ? life : 3600);
        rc = 0;
    } else
        refused(reply, status, e);
    json_decref(reply);
    return rc;
}

/* ---- device form ---- */

static int device(const json_t *service, const json_t *oauth, const char *form, const char *scope, struct err *e)
{
    const char *const ask[][2] = {{"client_id", text(oauth, "client_id")}, {"scope", text(oauth, "scope")}, {NULL, NULL}};
    json_t *reply = NULL;
    if (!text(oauth, "device")[0])
        return err_set(e, STATUS_USAGE, "%s knows no sign-in by a device code; --oauth signs in with a browser", service_title(service));
    int status = post(oauth, text(oauth, "device"), ask, &reply, e);
    if (status < 0)
        return -1;
    char code[TEXT_MAX], shown[100], uri[300];
    if (snprintf(code, sizeof code, "%s", text(reply, "device_code")) >= (int)sizeof code)
        code[0] = '\0';
    sanitize_line(shown, sizeof shown, text(reply, "user_code"), strlen(text(reply, "user_code")));
    sanitize_line(uri, sizeof uri, text(reply, "verification_uri"), strlen(text(reply, "verification_uri")));
    json_int_t wait = json_integer_value(json_object_get(reply, "interval")), life = json_integer_value(json_object_get(reply, "expires_in"));
    json_decref(reply);
    if (!code[0] || !shown[0])
        return err_set(e, STATUS_FAILED, "the provider gave no device code");
    fprintf(stderr, "Open %s in a browser, on any machine, and enter the code %s\n", uri, shown);
    time_t end = time(NULL) + (life > 0 && life < 1800 ? life : 900);
    wait = wait > 0 && wait < 60 ? wait : 5;
    struct err why = {0};
    while (time(NULL) < end) {
        sleep((unsigned)wait);
        const char *const poll_for[][2] = {{"grant_type", "urn:ietf:params:oauth:grant-type:device_code"}, {"device_code", code},
                                           {"client_id", text(oauth, "client_id")}, {NULL, NULL}};
        reply = NULL;
        status = post(oauth, text(oauth, "token"), poll_for, &reply, &why);
        if (status < 0) { /* a network that fails for a moment ends no sign-in; it is asked more seldom (RFC 8628, 3.5) */
            wait = wait < 30 ? 2 * wait : 60;
            continue;
        }
        why.text[0] = '\0';
        const char *error = text(reply, "error");
        if (text(reply, "access_token")[0] || (strcmp(error, "authorization_pending") != 0 && strcmp(error, "slow_down") != 0)) {
            int rc = keep(service, form, scope, reply, status, e);
            json_decref(reply);
            return rc;
        }
        wait += strcmp(error, "slow_down") == 0 ? 5 : 0;
        json_decref(reply);
    }
    return err_set(e, STATUS_TIMEOUT, why.text[0] ? "nothing was changed: %s" : "nobody entered the code in time; nothing was changed%s", why.text);
}

/* ---- browser ---- */

static int listen_loopback(unsigned port, unsigned *got, struct err *e)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 8) < 0 || getsockname(fd, (struct sockaddr *)&at, &len) < 0) {
        err_errno(e, errno, "cannot listen on 127.0.0.1:%u for the browser's answer", port);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *got = ntohs(at.sin_port);
    return fd;
}

static void open_browser(const char *url)
{
    if (!getenv("DISPLAY") && !getenv("WAYLAND_DISPLAY") && !getenv("BROWSER"))
        return;
    const char *browser = getenv("BROWSER");
    char *const argv[] = {(char *)(uintptr_t)(browser ? browser : "xdg-open"), (char *)(uintptr_t)url, NULL};
    extern char **environ;
    const struct spawn s = {.path = argv[0], .argv = argv, .env = environ, .new_session = true};
    spawn_run(&s, NULL); /* the address stands on the screen as well */
}

static void respond(int fd, const char *status, const char *message)
{
    char out[1200];
    int n = snprintf(out, sizeof out,
                     "HTTP/1.1 %s\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\nCache-Control: no-store\r\n"
                     "Content-Security-Policy: default-src 'none'\r\nReferrer-Policy: no-referrer\r\n\r\n<!doctype html><title>sbx</title>"
                     "<p>%s</p>\n", status, message);
    if (n > 0 && send(fd, out, (size_t)n, MSG_NOSIGNAL) < 0)
        return;
}

/* One request of the browser; 1: code is there, 0: something else asked, -1: the provider said no. */
static int take_answer(int fd, const char *path, const char *state, char *code, size_t cap, struct err *e)
{
    char in[8192], got_state[200] = "", why[200] = "";
    struct timeval limit = {2, 0};
    time_t end = time(NULL) + 3;
    size_t n = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    while (n < sizeof in - 1 && time(NULL) <= end) { /* who drips keeps nobody waiting */
        ssize_t k = recv(fd, in + n, sizeof in - 1 - n, 0);
        if (k <= 0)
            break;
        n += (size_t)k;
        in[n] = '\0';
        if (strstr(in, "\r\n\r\n"))
            break;
    }
    in[n] = '\0';
    in[strcspn(in, "\r\n")] = '\0';
    size_t p = strlen(path);
    if (strncmp(in, "GET ", 4) != 0 || strncmp(in + 4, path, p) != 0 || in[4 + p] != '?') {
        respond(fd, "404 Not Found", "There is nothing here.");
        return 0;
    }
    const char *query = in + 4 + p + 1;
    if (!parameter(query, "state", got_state, sizeof got_state) || strlen(got_state) != strlen(state) ||
        sodium_memcmp(got_state, state, strlen(state)) != 0) {
        respond(fd, "400 Bad Request", "This answer belongs to another sign-in.");
        return 0;
    }
    if (!parameter(query, "code", code, cap)) {
        char raw[200] = "";
        parameter(query, "error", raw, sizeof raw);
        sanitize_line(why, sizeof why, raw, strlen(raw));
        respond(fd, "200 OK", "The sign-in was refused. You can close this window.");
        return err_set(e, STATUS_FAILED, "the provider refused the sign-in: %s", why);
    }
    respond(fd, "200 OK", "Signed in. You can close this window and go back to the terminal.");
    return 1;
}

static int browser(const json_t *service, const json_t *oauth, const char *form, const char *scope, struct err *e)
{
    char verifier[80], challenge[80], state[60], url[TEXT_MAX], redirect[300] = "", path[200], code[2048] = "";
    unsigned char hash[32];
    unsigned port = 0;
    const char *pattern = text(oauth, "redirect"), *key;
    json_t *v;
    int fd = listen_loopback((unsigned)json_integer_value(json_object_get(oauth, "port")), &port, e);
    if (fd < 0)
        return -1;
    token(verifier, 48);
    token(state, 32);
    crypto_hash_sha256(hash, (unsigned char *)verifier, strlen(verifier));
    sodium_bin2base64(challenge, sizeof challenge, hash, 32, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    const char *mark = strstr(pattern, "{port}");
    if (mark)
        snprintf(redirect, sizeof redirect, "%.*s%u%s", (int)(mark - pattern), pattern, port, mark + 6);
    else
        snprintf(redirect, sizeof redirect, "%s", pattern);
    const char *slash = strchr(redirect + strcspn(redirect, "/") + 2, '/');
    snprintf(path, sizeof path, "%s", slash ? slash : "/");
    snprintf(url, sizeof url, "%s?", text(oauth, "authorize"));
    json_object_foreach(json_object_get(oauth, "extra"), key, v)
        add_encoded(url, sizeof url, key, json_string_value(v));
    add_encoded(url, sizeof url, "response_type", "code");
    add_encoded(url, sizeof url, "client_id", text(oauth, "client_id"));
    add_encoded(url, sizeof url, "redirect_uri", redirect);
    add_encoded(url, sizeof url, "scope", text(oauth, "scope"));
    add_encoded(url, sizeof url, "state", state);
    add_encoded(url, sizeof url, "code_challenge", challenge);
    add_encoded(url, sizeof url, "code_challenge_method", "S256");
    fprintf(stderr, "Sign in with your browser on this machine:\n\n%s\n\n", url);
    open_browser(url);
    time_t end = time(NULL) + SIGN_IN_SECONDS;
    int got = 0;
    while (got == 0 && time(NULL) < end) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 1000) <= 0)
            continue;
        int c = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (c < 0)
            continue;
        got = take_answer(c, path, state, code, sizeof code, e);
        close(c);
    }
    close(fd); /* one answer, and nobody listens any more (threat 77) */
    if (got <= 0)
        return got < 0 ? -1 : err_set(e, STATUS_TIMEOUT, "nobody signed in within %d minutes; nothing was changed", SIGN_IN_SECONDS / 60);
    const char *const pairs[][2] = {{"grant_type", "authorization_code"}, {"code", code}, {"redirect_uri", redirect},
                                    {"client_id", text(oauth, "client_id")}, {"code_verifier", verifier}, {"state", state}, {NULL, NULL}};
    json_t *reply = NULL;
    int status = post(oauth, text(oauth, "token"), pairs, &reply, e);
    if (status < 0)
        return -1;
    int rc = keep(service, form, scope, reply, status, e);
    json_decref(reply);
    return rc;
}

int oauth_sign_in(const json_t *service, const char *scope, bool by_device, struct err *e)
{
    const json_t *oauth = json_object_get(service, "oauth");
    const char *form = text(oauth, "form")[0] ? text(oauth, "form") : "oauth";
    if (!oauth)
        return err_set(e, STATUS_USAGE, "no sign-in is known for %s; set its key instead", service_title(service));
    if (by_device || !text(oauth, "authorize")[0])
        return device(service, oauth, form, scope, e);
    return browser(service, oauth, form, scope, e);
}
