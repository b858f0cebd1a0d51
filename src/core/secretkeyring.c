#include "core/secretkeyring.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <systemd/sd-bus.h>

#define SERVICE "org.freedesktop.secrets"
#define ROOT "/org/freedesktop/secrets"
#define IFACE "org.freedesktop.Secret."
#define CALL_USEC (5u * 1000000u)
#define PROMPT_SECONDS 120

struct ring {
    sd_bus *bus;
    char *session;
};

static void ring_close(struct ring *r)
{
    free(r->session);
    sd_bus_flush_close_unref(r->bus);
}

/* A session bus that nobody named is not started. */
static bool has_bus(void)
{
    const char *run = getenv("XDG_RUNTIME_DIR");
    char path[512];
    if (getenv("DBUS_SESSION_BUS_ADDRESS"))
        return true;
    return run && (size_t)snprintf(path, sizeof path, "%s/bus", run) < sizeof path && access(path, F_OK) == 0;
}

static int failed(struct err *e, const sd_bus_error *why, const char *what)
{
    return err_set(e, STATUS_FAILED, "the user's keyring %s: %.200s", what, why && why->message ? why->message : "it does not answer");
}

/* With a "plain" session: the bus is the user's own socket, and who can read it can ask for the key as well. */
static int ring_open(struct ring *r, struct err *e)
{
    sd_bus_error why = SD_BUS_ERROR_NULL;
    sd_bus_message *m = NULL;
    const char *session;
    int rc = -1;
    *r = (struct ring){0};
    if (!has_bus() || sd_bus_open_user(&r->bus) < 0)
        return err_set(e, STATUS_FAILED, "the user's keyring cannot be reached: there is no session bus");
    sd_bus_set_method_call_timeout(r->bus, CALL_USEC);
    if (sd_bus_call_method(r->bus, SERVICE, ROOT, IFACE "Service", "OpenSession", &why, &m, "sv", "plain", "s", "") < 0)
        failed(e, &why, "cannot be reached");
    else if (sd_bus_message_skip(m, "v") < 0 || sd_bus_message_read(m, "o", &session) < 0 || !(r->session = strdup(session)))
        failed(e, NULL, "answers what cannot be read");
    else
        rc = 0;
    sd_bus_message_unref(m);
    sd_bus_error_free(&why);
    if (rc < 0)
        ring_close(r);
    return rc;
}

bool secretkeyring_available(void)
{
    struct ring r;
    if (ring_open(&r, NULL) < 0)
        return false;
    ring_close(&r);
    return true;
}

static int on_completed(sd_bus_message *m, void *arg, sd_bus_error *why)
{
    int dismissed = 1;
    (void)why;
    *(int *)arg = sd_bus_message_read(m, "b", &dismissed) < 0 || dismissed ? -1 : 1;
    return 0;
}

/* The keyring asks its user; "/" needs no asking. */
static int wait_prompt(struct ring *r, const char *prompt, struct err *e)
{
    int done = 0;
    sd_bus_slot *slot = NULL;
    time_t end = time(NULL) + PROMPT_SECONDS;
    if (strcmp(prompt, "/") == 0)
        return 0;
    if (sd_bus_match_signal(r->bus, &slot, SERVICE, prompt, IFACE "Prompt", "Completed", on_completed, &done) >= 0 &&
        sd_bus_call_method(r->bus, SERVICE, prompt, IFACE "Prompt", "Prompt", NULL, NULL, "s", "") >= 0)
        while (!done && time(NULL) < end)
            if (sd_bus_process(r->bus, NULL) == 0 && sd_bus_wait(r->bus, 1000000) < 0)
                break;
    sd_bus_slot_unref(slot);
    return done > 0 ? 0 : err_set(e, STATUS_FAILED, "the user's keyring stays locked");
}

/* The first of two lists of paths (unlocked, locked); *locked says which it came from. */
static char *find(struct ring *r, const char *id, bool *locked, struct err *e)
{
    sd_bus_error why = SD_BUS_ERROR_NULL;
    sd_bus_message *m = NULL;
    char *path = NULL;
    if (sd_bus_call_method(r->bus, SERVICE, ROOT, IFACE "Service", "SearchItems", &why, &m, "a{ss}", 2, "application", "sbx", "store", id) < 0) {
        failed(e, &why, "cannot be searched");
        sd_bus_error_free(&why);
        return NULL;
    }
    for (int list = 0; list < 2 && !path; list++) {
        const char *at;
        sd_bus_message_enter_container(m, 'a', "o");
        while (sd_bus_message_read(m, "o", &at) > 0)
            if (!path) {
                path = strdup(at);
                *locked = list == 1;
            }
        sd_bus_message_exit_container(m);
    }
    sd_bus_message_unref(m);
    if (!path)
        err_set(e, STATUS_FAILED, "the user's keyring does not have the key of the secret store (\"sbx secret store\"): was it removed there?");
    return path;
}

static int unlock(struct ring *r, const char *path, struct err *e)
{
    sd_bus_error why = SD_BUS_ERROR_NULL;
    sd_bus_message *m = NULL;
    const char *prompt;
    int rc;
    if (sd_bus_call_method(r->bus, SERVICE, ROOT, IFACE "Service", "Unlock", &why, &m, "ao", 1, path) < 0)
        rc = failed(e, &why, "cannot be unlocked");
    else if (sd_bus_message_skip(m, "ao") < 0 || sd_bus_message_read(m, "o", &prompt) < 0)
        rc = failed(e, NULL, "answers what cannot be read");
    else
        rc = wait_prompt(r, prompt, e);
    sd_bus_message_unref(m);
    sd_bus_error_free(&why);
    return rc;
}

int secretkeyring_get(const char *id, bool prompt, unsigned char *key, size_t len, struct err *e)
{
    struct ring r;
    sd_bus_error why = SD_BUS_ERROR_NULL;
    sd_bus_message *m = NULL;
    const void *value;
    size_t n = 0;
    bool locked = false;
    int rc = -1;
    if (ring_open(&r, e) < 0)
        return -1;
    char *path = find(&r, id, &locked, e);
    if (!path)
        ;
    else if (locked && !prompt)
        err_set(e, STATUS_FAILED, "the user's keyring is locked; `sbx secret unlock` asks it to open");
    else if (locked && unlock(&r, path, e) < 0)
        ;
    else if (sd_bus_call_method(r.bus, SERVICE, path, IFACE "Item", "GetSecret", &why, &m, "o", r.session) < 0)
        failed(e, &why, "does not give the key");
    else {
        sd_bus_message_sensitive(m);
        if (sd_bus_message_enter_container(m, 'r', "oayays") > 0 && sd_bus_message_skip(m, "oay") >= 0 &&
            sd_bus_message_read_array(m, 'y', &value, &n) >= 0 && n == len) {
            memcpy(key, value, len);
            rc = 0;
        } else
            err_set(e, STATUS_FAILED, "the user's keyring has something else than the key of the secret store (\"sbx secret store\")");
    }
    sd_bus_message_unref(m);
    sd_bus_error_free(&why);
    free(path);
    ring_close(&r);
    return rc;
}

int secretkeyring_put(const char *id, const unsigned char *key, size_t len, struct err *e)
{
    struct ring r;
    sd_bus_error why = SD_BUS_ERROR_NULL;
    sd_bus_message *m = NULL, *reply = NULL;
    const char *item, *prompt;
    int rc = -1;
    if (ring_open(&r, e) < 0)
        return -1;
    if (unlock(&r, ROOT "/aliases/default", e) < 0) {
        ring_close(&r);
        return -1;
    }
    bool built = sd_bus_message_new_method_call(r.bus, &m, SERVICE, ROOT "/aliases/default", IFACE "Collection", "CreateItem") >= 0;
    if (built)
        sd_bus_message_sensitive(m);
    built = built && sd_bus_message_append(m, "a{sv}", 2, IFACE "Item.Label", "s", "sbx secret store", IFACE "Item.Attributes", "a{ss}", 2,
                                           "application", "sbx", "store", id) >= 0 &&
            sd_bus_message_open_container(m, 'r', "oayays") >= 0 && sd_bus_message_append(m, "o", r.session) >= 0 &&
            sd_bus_message_append_array(m, 'y', NULL, 0) >= 0 && sd_bus_message_append_array(m, 'y', key, len) >= 0 &&
            sd_bus_message_append(m, "s", "application/octet-stream") >= 0 && sd_bus_message_close_container(m) >= 0 &&
            sd_bus_message_append(m, "b", 1) >= 0;
    if (!built)
        err_set(e, STATUS_FAILED, "out of memory");
    else if (sd_bus_call(r.bus, m, CALL_USEC, &why, &reply) < 0)
        failed(e, &why, "does not take the key");
    else if (sd_bus_message_read(reply, "oo", &item, &prompt) < 0)
        failed(e, NULL, "answers what cannot be read");
    else
        rc = wait_prompt(&r, prompt, e);
    sd_bus_message_unref(m);
    sd_bus_message_unref(reply);
    sd_bus_error_free(&why);
    ring_close(&r);
    if (rc < 0)
        return -1;
    /* What cannot be read again must not lock a store. */
    unsigned char *back = sodium_malloc(len);
    rc = back && secretkeyring_get(id, false, back, len, e) == 0 && sodium_memcmp(back, key, len) == 0 ? 0 : -1;
    if (rc < 0 && e && !e->text[0])
        err_set(e, STATUS_FAILED, "the user's keyring does not give back the key that it took");
    sodium_free(back);
    return rc;
}

void secretkeyring_forget(const char *id)
{
    struct ring r;
    sd_bus_message *m = NULL;
    bool locked;
    if (ring_open(&r, NULL) < 0)
        return;
    char *path = find(&r, id, &locked, NULL);
    if (path)
        sd_bus_call_method(r.bus, SERVICE, path, IFACE "Item", "Delete", NULL, &m, "");
    sd_bus_message_unref(m);
    free(path);
    ring_close(&r);
}
