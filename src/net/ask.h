/* What `sbx net` and the broker say to each other.
 *
 * The channel is a SOCK_SEQPACKET socket pair: one struct ask (net to broker) or
 * one struct answer (broker to net) is one packet, of the fixed size of its kind, host byte order.
 * A packet of another size, an unknown kind or a field out of range is a protocol
 * error: the broker logs it, drops the packet and never guesses.  This is the whole
 * surface that a broken-into `sbx net` has towards the one process that holds keys,
 * so nothing here is parsed: names are checked byte by byte (core/name.h), the rest
 * are numbers.
 *
 * Life of a connection: net picks an id that is not in use and sends ASK_CONNECT;
 * the broker answers ANSWER_CONNECT once, with the connected descriptor attached
 * (SCM_RIGHTS) if the verdict is VERDICT_ALLOW.  While it lives the broker may send
 * ANSWER_CUT (a rule changed).  net sends ASK_DONE exactly once for each id that was
 * allowed; ASK_CANCEL gives up an ask that is not answered yet (the answer may still
 * come: net closes its descriptor and sends ASK_DONE with no bytes). */
#ifndef SBX_NET_ASK_H
#define SBX_NET_ASK_H

#include <stdint.h>

#define ASK_NAME_MAX 253 /* RFC 1035, without the trailing dot */

enum ask_kind {
    ASK_CONNECT = 1, /* target: may I, and if so, the descriptor */
    ASK_CANCEL,      /* id: the guest gave up */
    ASK_DONE,        /* id, bytes, duration: the connection ended */
    ASK_NAME,        /* target.name: could any rule ever allow this name? (a DNS query) */
    ASK_REFUSED,     /* proto, target, count: packets that net refused on its own (UDP, ICMP, ...);
                        net itself coalesces these to at most 20 packets a second */
    ASK_MISMATCH,    /* id, flags, seen: the SNI or Host that was sent is not the name asked for, or cannot be told */
    ASK_REQUEST,     /* struct ask_request: may this HTTP request go out on connection id */
    ASK_LEAF,        /* struct ask_leaf: a certificate for the name of connection id */
    ASK_TRUST,       /* the authorities that upstream servers are judged by, as a descriptor */
    ASK_ALERT,       /* id, seen: something that a reviewer must see happened on connection id */
    ASK_MINT,        /* struct ask_mint: tokens that a provider gave in the answer to a request of connection id */
};

enum ask_proto { PROTO_TCP = 1, PROTO_UDP, PROTO_ICMP, PROTO_DNS, PROTO_OTHER };

enum target_kind {
    TARGET_NAME = 1, /* name: canonical, lower case, no trailing dot, LDH and '_' only */
    TARGET_IP4 = 4,  /* addr[0..3], network order */
    TARGET_IP6 = 6,  /* addr[0..15] */
};

struct ask_target {
    uint8_t kind;      /* enum target_kind */
    uint8_t name_len;  /* bytes of name, at most ASK_NAME_MAX; name is also NUL-terminated */
    uint16_t port;     /* host order */
    uint8_t addr[16];
    char name[256];
};

struct ask {
    uint32_t id;
    uint8_t kind;  /* enum ask_kind */
    uint8_t proto; /* enum ask_proto */
    uint16_t flags; /* ASK_MISMATCH: MISMATCH_… */
    struct ask_target target;
    uint64_t bytes_up;    /* guest to outside */
    uint64_t bytes_down;  /* outside to guest */
    uint32_t duration_ms;
    uint32_t count;
    char seen[256]; /* ASK_MISMATCH: the other name, already made printable, or what was sent instead of one */
};

/* flags of ASK_MISMATCH */
#define MISMATCH_ONE 0x01u  /* it was one request of several, and it alone fails; else the connection is cut */
#define MISMATCH_TEXT 0x02u /* seen is no name but says what the guest did */
#define MISMATCH_FAIL 0x08u /* nobody was denied anything: something failed, for the reason that seen says */
#define MISMATCH_RAW 0x04u  /* a rule that names this very host and port would let it through as it is */

#define ASK_METHOD_MAX 31
#define ASK_PATH_MAX 2047
#define ASK_POINT_LEN 65

struct ask_request {
    uint32_t id;      /* of the connection */
    uint8_t kind;     /* ASK_REQUEST; at the same place as in struct ask */
    uint8_t version;  /* 1 or 2 */
    uint16_t path_len;
    uint32_t request; /* comes back in the answer */
    uint8_t ambiguous; /* the path cannot be told from others: no rule that speaks of paths may allow it */
    uint8_t override;  /* a field asks for another method or path */
    uint8_t tls;       /* the connection is encrypted on both sides */
    uint8_t again;     /* to ANSWER_REVIEW: it was allowed, and is still under way */
    uint64_t sentinels; /* which of the sentinels that ANSWER_SENTINEL told stand in its head, as bits by index */
    uint64_t bearer;    /* sentinel_tag() of what its Authorization bears; 0: it has none */
    uint64_t content;   /* it was allowed, and is held up: in what follows its head stands the sentinel with this
                           sentinel_tag(), which `elsewhere` named.  It is always denied; 0: it is asked for the first time */
    char method[ASK_METHOD_MAX + 1];
    char path[ASK_PATH_MAX + 1]; /* normalised (core/urlpath.h), without the query; printable ASCII */
    uint8_t more; /* another packet was sent together with it: a hint, so that the broker need not look in vain */
    uint8_t reserved[7];
};

#define SECRET_VALUE_MAX 8192u

/* What a sign-in from inside the sandbox, or an exchange of the secret for a short-lived token, yielded, after an ANSWER_REQUEST with ANSWER_MINT.  The guest has the sentinel by
 * then; the broker keeps the rest. */
struct ask_mint {
    uint32_t id;
    uint8_t kind; /* ASK_MINT */
    uint8_t reserved[3];
    uint32_t expires_in; /* seconds; 0: not known */
    char access[SECRET_VALUE_MAX + 1], sentinel[SECRET_VALUE_MAX + 1], refresh[SECRET_VALUE_MAX + 1];
};

struct ask_leaf {
    uint32_t id;
    uint8_t kind; /* ASK_LEAF */
    uint8_t reserved[3];
    uint8_t point[ASK_POINT_LEN]; /* net's public key: uncompressed P-256 */
    uint8_t padding[3];
};

enum answer_kind {
    ANSWER_CONNECT = 1, /* to ASK_CONNECT */
    ANSWER_NAME,        /* to ASK_NAME: VERDICT_ALLOW, or VERDICT_DENY (then NXDOMAIN) */
    ANSWER_CUT,         /* close connection id now: a rule denies it */
    ANSWER_REQUEST,     /* to ASK_REQUEST: VERDICT_ALLOW or VERDICT_DENY */
    ANSWER_LEAF,        /* to ASK_LEAF: struct answer_leaf */
    ANSWER_TRUST,       /* to ASK_TRUST: a descriptor to read certificates (PEM) from, or none */
    ANSWER_SECRET,      /* struct answer_secret, before the ANSWER_REQUEST that it belongs to: a credential to write */
    ANSWER_SENTINEL,    /* struct answer_sentinel, unasked, one for each: what the guest holds instead of secrets */
    ANSWER_REVIEW,      /* the rules have changed: ask again for each request of connection id that is under way.  Only what
                           they now deny is answered, by ANSWER_CUT */
};

enum verdict {
    VERDICT_ALLOW = 1,
    VERDICT_DENY,        /* by a rule, or by the posture */
    VERDICT_UNREACHABLE, /* allowed, but the dial failed: error says how (errno) */
    VERDICT_NO_NAME,     /* allowed, but the name does not resolve */
};

/* flags of ANSWER_CONNECT */
#define ANSWER_INTERCEPT 0x01u /* HTTP is to be judged request by request; with VERDICT_DENY: a denied request on port 443
                                  may be answered readably, under a certificate that ASK_LEAF gives */
#define ANSWER_MINT 0x04u      /* ANSWER_REQUEST: the answer gives out tokens; they go to ASK_MINT, not to the guest.  With
                                  credentials: it is gathered, scrubbed and resealed */
#define ANSWER_SIGNED_IN 0x08u /* ANSWER_REQUEST: answer in the provider's stead: signed in, with the sentinel of index `error` */
#define ANSWER_RAW 0x02u       /* a rule names this very host and port: what is no TLS may pass on 443 as well */

struct answer {
    uint32_t id;
    uint8_t kind;    /* enum answer_kind */
    uint8_t verdict; /* enum verdict */
    uint16_t flags;
    int32_t error;   /* errno of the dial, or 0 */
    char rule[256];  /* the rule or posture that decided, for the 403 page; printable ASCII */
    char hint[192];  /* the command that would allow it; printable ASCII, may be empty */
    uint32_t request; /* ANSWER_REQUEST: which */
    uint64_t elsewhere; /* ANSWER_REQUEST: sentinels that do not belong to its host, as bits by index: what follows its
                           head is searched for them */
};

#define SECRETS_PER_REQUEST 4u
#define SENTINELS_MAX 64u

/* For one request on a connection that the broker dialled to a host of that service, and for its answer alone: net wipes
 * it when the exchange is over. */
struct answer_secret {
    uint32_t id;
    uint8_t kind; /* ANSWER_SECRET */
    uint8_t placeholder; /* only where the sentinel stands */
    uint8_t sigv4;       /* value is "ID:KEY[:TOKEN]": sign anew */
    uint8_t reserved;
    uint32_t request;
    char service[64], header[64], strip[256], strip_query[64];
    char written[SECRET_VALUE_MAX * 4 / 3 + 256]; /* the header's value */
    char value[SECRET_VALUE_MAX + 1], sentinel[SECRET_VALUE_MAX + 1];
};

struct answer_sentinel {
    uint32_t id;  /* index; 0 begins a new list */
    uint8_t kind; /* ANSWER_SENTINEL */
    uint8_t none; /* the list is empty */
    uint8_t more; /* it goes on: until its last one is there the list before it counts */
    uint8_t reserved;
    char sentinel[SECRET_VALUE_MAX + 1];
};

struct answer_leaf {
    uint32_t id;
    uint8_t kind;    /* ANSWER_LEAF */
    uint8_t verdict; /* VERDICT_ALLOW, or VERDICT_DENY: none is given (unknown connection, too many) */
    uint16_t len;
    uint8_t der[1400];
};

#endif
