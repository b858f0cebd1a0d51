/* Services: what sbx knows of who takes which credential, as data (assets/services, or the user's own files in
 * $XDG_CONFIG_HOME/sbx/services, which win).
 *
 * A service has one or more forms (an API key, the tokens of a sign-in, ...).  A form says which variables hold the
 * sentinel in the guest, where a value is looked for on the host, and, in "write", how the credential stands in a
 * request to which host.  No credential is ever written for a host that no entry of "write" names. */
#ifndef SBX_CORE_SERVICE_H
#define SBX_CORE_SERVICE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/err.h"

#define SERVICE_HEADER_MAX 63
#define SERVICE_STRIP_MAX 255
#define SERVICE_FORMAT_MAX 127
#define SERVICE_VALUE_MAX 8192u /* of a secret, in bytes */
#define SERVICE_VALUE_MIN 8u

enum service_kind {
    SERVICE_HEADER, /* header: format, with "{}" for the value */
    SERVICE_BASIC,  /* header: "Basic " and the Base64 of format, with "{}" for the value (RFC 7617) */
    SERVICE_SIGV4,  /* AWS Signature Version 4: the value is "ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN]" */
};

/* How a credential stands in requests to one host. */
struct service_write {
    enum service_kind kind;
    bool placeholder;                       /* only where the sentinel stands; else always, over what the guest sent */
    char header[SERVICE_HEADER_MAX + 1];    /* lower case */
    char format[SERVICE_FORMAT_MAX + 1];
    char strip[SERVICE_STRIP_MAX + 1];      /* further fields that bear credentials there: "x-api-key,cookie" */
    char strip_query[SERVICE_HEADER_MAX + 1]; /* parameters of the query that do: "key,access_token" */
    char suffixes[SERVICE_STRIP_MAX + 1];   /* only for paths that end so: "/info/refs,/git-upload-pack"; empty: all */
};

/* "test" says what `sbx secret test` asks its provider: "url", whose host may be "{VARIABLE}", which names one of the user's
 * own; "content", posted in a form, with "{}" for the value, for those who take it so, and then to that host and no other;
 * "denies", a status beside 401 and 403 that means no.  Or, as "none", why nothing can be asked. */
/* The checked object; the user's file wins over ours.  NULL: STATUS_NOT_FOUND for none of that name, with a sentence. */
json_t *service_load(const char *name, struct err *e);
/* Names of all services, sorted. */
json_t *service_list(void);
/* Checks an object as service_load does. */
int service_check(const json_t *service, const char *name, struct err *e);
/* Makes (or replaces) a service of the user's own. */
int service_save(const json_t *service, struct err *e);

const char *service_title(const json_t *service);
/* The form of that name, or NULL; without a name its usual one, the first. */
const json_t *service_form(const json_t *service, const char *form);
const char *service_first_form(const json_t *service);
/* Whether that form's credential belongs to a canonical host name and port, and how it stands there in a request for
 * that path (without the query; NULL: in any). */
bool service_writes(const json_t *service, const char *form, const char *host, uint16_t port, const char *path,
                    struct service_write *out);
/* Whether requests for that path of that host yield tokens of the service's sign-in. */
bool service_gives_tokens(const json_t *service, const char *host, uint16_t port, const char *path);
/* Whether its sign-in happens at that host. */
bool service_signs_in_at(const json_t *service, const char *host, uint16_t port);
/* Whether the answer to a request for that path gives out a token that lasts a while: a registry's, an exchange's
 * ("mints").  ambiguous: the path is not normalised, and what may be such a one counts. */
bool service_lends(const json_t *service, const char *host, uint16_t port, const char *path, bool ambiguous);
/* Whether it may be asked so: where others take a credential in the content, which nobody looks at ("methods"). */
bool service_lends_by(const json_t *service, const char *host, uint16_t port, const char *method);
/* Whether that host may give out such tokens. */
bool service_lends_at(const json_t *service, const char *host, uint16_t port);
/* Whether such a token belongs to that host, and how it stands there. */
bool service_spends(const json_t *service, const char *host, uint16_t port, struct service_write *out);
/* The form that its sign-in yields. */
const char *service_sign_in_form(const json_t *service);
/* Whether a pattern of a "host" matches: labels are equal, or "*" (any one label), or a first "**" (any number);
 * within a label one "*" may stand for a part ("*-aiplatform").  ":port" behind it; without one, 443. */
bool service_host_matches(const char *pattern, const char *host, uint16_t port);

/* The value of a secret can stand in a header: SERVICE_VALUE_MIN to SERVICE_VALUE_MAX bytes of visible ASCII, without
 * spaces (threat 70). */
int service_check_value(const char *value, struct err *e);

/* What is written into the header, or -1 if it does not fit.  Not for SERVICE_SIGV4. */
int service_render(const struct service_write *w, const char *value, char *out, size_t cap);

#endif
