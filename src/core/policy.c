#include "core/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "core/jsonfile.h"
#include "core/mirrorhosts.h"
#include "core/paths.h"
#include "core/shellword.h"

#define POLICY_VERSION 1
#define PORTS_MAX 16

/* The rules and an index over them: by host for the three kinds of names, by masked address for each prefix length in use;
 * a decision costs a few look-ups, however many rules there are. */

struct policy {
    enum posture posture;
    bool posture_from_sandbox;
    bool ask, ask_from_sandbox;
    bool open;            /* what no rule speaks of is allowed; only a preset says so */
    uint16_t ports[PORTS_MAX], closed[PORTS_MAX]; /* of a preset: where its rules hold that name no port; what it never opens */
    unsigned nports, nclosed;
    size_t listed;        /* rules up to here are from files; behind them stand the host's own mirrors */
    struct rule *rules;
    size_t n, cap;
    char error[512];
    uint32_t *bucket;
    uint32_t *chain;
    size_t buckets;
    uint8_t lengths4[33], lengths6[129]; /* which prefix lengths are in use */
};

enum posture posture_parse(const char *t)
{
    if (strcmp(t, "open") == 0 || strcmp(t, "allow-all") == 0)
        return POSTURE_OPEN;
    if (strcmp(t, "balanced") == 0)
        return POSTURE_BALANCED;
    if (strcmp(t, "locked-down") == 0 || strcmp(t, "deny-all") == 0)
        return POSTURE_LOCKED;
    return POSTURE_UNSET;
}

const char *posture_name(enum posture p)
{
    static const char *const names[] = {"unset", "open", "balanced", "locked-down"};
    return names[p];
}

char *policy_path(const char *sandbox, struct err *e)
{
    return sandbox ? path_sandbox(sandbox, "policy.json", e) : path_in(PATH_CONFIG, e, "policy.json");
}

/* ---- reading ---- */

static struct rule *new_rule(struct policy *p)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 64;
        struct rule *more = realloc(p->rules, cap * sizeof *more);
        if (!more)
            return NULL;
        p->rules = more;
        p->cap = cap;
    }
    memset(&p->rules[p->n], 0, sizeof *p->rules);
    return &p->rules[p->n];
}

static const char *const rule_keys[] = {"id", "action", "target", "expires", "comment", "created", "disabled", NULL};
static const char *const file_keys[] = {"version", "posture", "ask", "rules", "description", NULL};
static const char *const preset_keys[] = {"version", "default", "ports", "closed", "rules", "description", NULL};

static bool is_one_of(const char *key, const char *const *list)
{
    while (*list && strcmp(*list, key) != 0)
        list++;
    return *list != NULL;
}

static bool is_id(const char *id)
{
    size_t n = strspn(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    return n && !id[n] && n < sizeof ((struct rule *)0)->id;
}

static int read_rule(struct rule *r, const json_t *o, struct err *e)
{
    const char *key;
    json_t *v;
    if (!json_is_object(o))
        return err_set(e, STATUS_FAILED, "a rule is not an object");
    json_object_foreach((json_t *)o, key, v)
        if (!is_one_of(key, rule_keys))
            return err_set(e, STATUS_FAILED, "a rule has the unknown key \"%s\"", key);
        else if (!json_is_string(v) && strcmp(key, "expires") != 0 && strcmp(key, "created") != 0 &&
                 strcmp(key, "disabled") != 0)
            return err_set(e, STATUS_FAILED, "\"%s\" of a rule is not a text", key);
    const char *action = json_string_value(json_object_get(o, "action"));
    const char *target = json_string_value(json_object_get(o, "target"));
    const char *id = json_string_value(json_object_get(o, "id"));
    const char *comment = json_string_value(json_object_get(o, "comment"));
    json_t *expires = json_object_get(o, "expires");
    if (!target)
        return err_set(e, STATUS_FAILED, "a rule has no target");
    if (!action || (strcmp(action, "allow") != 0 && strcmp(action, "deny") != 0))
        return err_set(e, STATUS_FAILED, "the action of rule \"%s\" is neither allow nor deny", target);
    if (expires && (!json_is_integer(expires) || json_integer_value(expires) <= 0))
        return err_set(e, STATUS_FAILED, "the expiry of rule \"%s\" is not a number", target);
    json_t *disabled = json_object_get(o, "disabled");
    if (disabled && !json_is_boolean(disabled))
        return err_set(e, STATUS_FAILED, "\"disabled\" of rule \"%s\" is neither true nor false", target);
    if (rule_parse(r, target, e) < 0)
        return -1;
    r->disabled = json_is_true(disabled);
    r->deny = action[0] == 'd';
    r->expires = json_integer_value(expires);
    r->created = json_integer_value(json_object_get(o, "created"));
    /* One that does not fit would not be found again by what is shown of it. */
    snprintf(r->id, sizeof r->id, "%s", id && is_id(id) ? id : "");
    snprintf(r->comment, sizeof r->comment, "%s", comment ? comment : "");
    if (comment && strlen(comment) >= sizeof r->comment) { /* cut, but not within a letter: it would be no text any more */
        size_t n = sizeof r->comment - 1;
        while (n && ((unsigned char)comment[n] & 0xc0) == 0x80)
            n--;
        r->comment[n] = '\0';
    }
    return 0;
}

static int read_ports(const json_t *list, uint16_t ports[PORTS_MAX], unsigned *n)
{
    size_t i;
    json_t *v;
    *n = 0;
    if (list && (!json_is_array(list) || json_array_size(list) > PORTS_MAX))
        return -1;
    json_array_foreach(list, i, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > 65535)
            return -1;
        ports[(*n)++] = (uint16_t)json_integer_value(v);
    }
    return 0;
}

static int read_object(struct policy *p, const json_t *o, enum rule_origin origin, struct err *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
        if (!is_one_of(key, origin == RULE_PRESET ? preset_keys : file_keys))
            return err_set(e, STATUS_FAILED, "unknown key \"%s\"", key);
    json_t *version = json_object_get(o, "version");
    if (!json_is_integer(version) || json_integer_value(version) != POLICY_VERSION)
        return err_set(e, STATUS_FAILED, "its version is not %d", POLICY_VERSION);
    json_t *posture = json_object_get(o, "posture");
    if (posture && origin != RULE_PRESET) {
        enum posture x = json_is_string(posture) ? posture_parse(json_string_value(posture)) : POSTURE_UNSET;
        if (x == POSTURE_UNSET)
            return err_set(e, STATUS_FAILED, "its posture is unknown");
        /* The sandbox's own goes before the global one, which is read second. */
        if (origin == RULE_SANDBOX || !p->posture_from_sandbox)
            p->posture = x;
        p->posture_from_sandbox |= origin == RULE_SANDBOX;
    }
    json_t *ask = json_object_get(o, "ask");
    if (ask && origin != RULE_PRESET) {
        if (!json_is_boolean(ask))
            return err_set(e, STATUS_FAILED, "\"ask\" is neither true nor false");
        if (origin == RULE_SANDBOX || !p->ask_from_sandbox)
            p->ask = json_is_true(ask);
        p->ask_from_sandbox |= origin == RULE_SANDBOX;
    }
    json_t *otherwise = json_object_get(o, "default");
    if (otherwise) {
        const char *word = json_string_value(otherwise);
        if (!word || (strcmp(word, "allow") != 0 && strcmp(word, "deny") != 0))
            return err_set(e, STATUS_FAILED, "its default is neither allow nor deny");
        p->open = word[0] == 'a';
    }
    if (origin == RULE_PRESET && (read_ports(json_object_get(o, "ports"), p->ports, &p->nports) < 0 ||
                                  read_ports(json_object_get(o, "closed"), p->closed, &p->nclosed) < 0))
        return err_set(e, STATUS_FAILED, "its ports are not a list of at most %d numbers", PORTS_MAX);
    json_t *rules = json_object_get(o, "rules");
    if (rules && !json_is_array(rules))
        return err_set(e, STATUS_FAILED, "its rules are not a list");
    size_t i;
    json_array_foreach(rules, i, v) {
        struct rule *r = new_rule(p);
        if (!r)
            return err_set(e, STATUS_FAILED, "out of memory");
        if (read_rule(r, v, e) < 0)
            return -1;
        r->origin = origin;
        p->n++;
    }
    return 0;
}

static void broken(struct policy *p, const char *path, const struct err *e)
{
    if (!p->error[0])
        snprintf(p->error, sizeof p->error, strstr(e->text, path) ? "%s%s" : "%s: %s",
                 strstr(e->text, path) ? "" : path, e->text);
}

static void read_file(struct policy *p, char *path, enum rule_origin origin)
{
    struct err e = {0};
    if (!path) {
        snprintf(p->error, sizeof p->error, "the policy's place cannot be found");
        return;
    }
    json_t *o = jsonfile_read(path, &e);
    if (!o && (e.status != STATUS_NOT_FOUND || origin == RULE_PRESET))
        broken(p, path, &e);
    if (o && read_object(p, o, origin, &e) < 0)
        broken(p, path, &e);
    json_decref(o);
    free(path);
}

static uint32_t hash_bytes(const void *data, size_t len, uint32_t seed)
{
    const uint8_t *p = data;
    uint32_t h = 2166136261u ^ seed;
    for (size_t i = 0; i < len; i++)
        h = (h ^ p[i]) * 16777619u;
    return h ^ h >> 15;
}

static uint32_t key_of(const struct rule *r)
{
    if (r->kind == RULE_RANGE)
        return hash_bytes(r->addr, 16, 1000u + r->prefix + r->family * 256u);
    return hash_bytes(r->host, strlen(r->host), r->kind);
}

/* "Deny it for an hour", said of what is allowed for good, or the other way round: then it is as before. */
static void put_in_front(struct policy *p, size_t i)
{
    const struct rule *r = &p->rules[i];
    for (uint32_t k = p->bucket[key_of(r) & (p->buckets - 1)]; k; k = p->chain[k - 1]) {
        struct rule *other = &p->rules[k - 1];
        if (!other->expires && other->origin == r->origin && rule_same_target(other, r))
            other->front = (uint32_t)i + 1;
    }
}

static bool build_index(struct policy *p)
{
    p->buckets = 64;
    while (p->buckets < p->n * 2)
        p->buckets *= 2;
    p->bucket = calloc(p->buckets, sizeof *p->bucket);
    p->chain = calloc(p->n + 1, sizeof *p->chain);
    if (!p->bucket || !p->chain)
        return false;
    for (size_t i = p->n; i-- > 0;) {
        struct rule *r = &p->rules[i];
        uint32_t b = key_of(r) & (p->buckets - 1);
        p->chain[i] = p->bucket[b];
        p->bucket[b] = (uint32_t)i + 1;
        if (r->kind == RULE_RANGE)
            (r->family == 4 ? p->lengths4 : p->lengths6)[r->prefix] = 1;
    }
    for (size_t i = 0; i < p->n; i++)
        if (p->rules[i].expires)
            put_in_front(p, i);
    return true;
}

/* The host's own package mirrors are package registries like the preset's. */
static void add_mirrors(struct policy *p)
{
    const char *const *hosts;
    size_t n = mirrorhosts(&hosts);
    for (size_t i = 0; i < n; i++) {
        struct rule *r = new_rule(p);
        if (!r || rule_parse(r, hosts[i], NULL) < 0 || rule_is_conditional(r))
            continue;
        r->origin = RULE_PRESET;
        snprintf(r->comment, sizeof r->comment, "package mirror that this host is configured to use");
        p->n++;
    }
}

static void finish_load(struct policy *p)
{
    static const char *const presets[] = {
        [POSTURE_UNSET] = "policies/balanced.json", /* what was never chosen is the middle one; sbx says so */
        [POSTURE_OPEN] = "policies/open.json",
        [POSTURE_BALANCED] = "policies/balanced.json",
        [POSTURE_LOCKED] = "policies/locked-down.json",
    };
    read_file(p, path_asset(presets[p->posture], NULL), RULE_PRESET);
    p->listed = p->n;
    if (p->posture == POSTURE_UNSET || p->posture == POSTURE_BALANCED)
        add_mirrors(p);
    if (!build_index(p))
        snprintf(p->error, sizeof p->error, "out of memory");
}

struct policy *policy_load(const char *sandbox)
{
    struct policy *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    if (sandbox)
        read_file(p, policy_path(sandbox, NULL), RULE_SANDBOX);
    read_file(p, policy_path(NULL, NULL), RULE_GLOBAL);
    finish_load(p);
    return p;
}

struct policy *policy_from_json(const json_t *o)
{
    struct err e = {0};
    struct policy *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    if (!json_is_object(o))
        snprintf(p->error, sizeof p->error, "the policy is not an object");
    else if (read_object(p, o, RULE_SANDBOX, &e) < 0)
        snprintf(p->error, sizeof p->error, "%.500s", e.text);
    finish_load(p);
    return p;
}

void policy_free(struct policy *p)
{
    if (!p)
        return;
    free(p->rules);
    free(p->bucket);
    free(p->chain);
    free(p);
}

const char *policy_error(const struct policy *p)
{
    return p->error[0] ? p->error : NULL;
}

enum posture policy_posture(const struct policy *p)
{
    return p->posture;
}

bool policy_asks(const struct policy *p)
{
    return p->ask && !p->error[0];
}

const struct rule *policy_rules(const struct policy *p, size_t *n)
{
    *n = p->n;
    return p->rules;
}

/* ---- deciding ---- */

struct search {
    const struct policy *p;
    const char *name;
    uint8_t family;
    const uint8_t *addr;
    uint16_t port;
    int64_t now;
    const char *method, *path; /* of one request; NULL: a connection is judged */
    bool denied_everywhere;    /* only denials of all ports and requests are looked for */
    const struct rule *deny, *allow, *exact;
    const struct rule *deny_some, *allow_some, *exact_some; /* for a connection: conditional ones */
};

static void first(const struct rule **slot, const struct rule *r)
{
    if (!*slot)
        *slot = r;
}

static bool is_in(const uint16_t *ports, unsigned n, uint16_t port)
{
    for (unsigned i = 0; i < n; i++)
        if (ports[i] == port)
            return true;
    return false;
}

static bool lives(const struct rule *r, int64_t now)
{
    return !r->disabled && !r->over && (!r->expires || r->expires > now || r->lasting);
}

bool policy_waits(const struct policy *p, const struct rule *r, int64_t now)
{
    return r->front && lives(&p->rules[r->front - 1], now);
}

static void visit(struct search *s, uint32_t key)
{
    for (uint32_t i = s->p->bucket[key & (s->p->buckets - 1)]; i; i = s->p->chain[i - 1]) {
        const struct rule *r = &s->p->rules[i - 1];
        bool some = rule_is_conditional(r);
        if (!lives(r, s->now) || policy_waits(s->p, r, s->now))
            continue;
        if (s->denied_everywhere && (!r->deny || some || rule_has_port(r)))
            continue;
        if (s->name ? !rule_matches_name(r, s->name, s->port)
                    : !rule_matches_addr(r, s->family, s->addr, s->port))
            continue;
        if (r->origin == RULE_PRESET && i <= s->p->listed && s->p->nports && !rule_has_port(r) && !is_in(s->p->ports, s->p->nports, s->port))
            continue;
        if (some && s->method) {
            if (!rule_matches_request(r, s->method, s->path))
                continue;
            some = false;
        }
        if (r->deny) {
            first(some ? &s->deny_some : &s->deny, r);
            continue;
        }
        first(some ? &s->allow_some : &s->allow, r);
        if (r->origin != RULE_PRESET && rule_is_exact(r))
            first(some ? &s->exact_some : &s->exact, r);
    }
}

static void conclude(const struct search *s, struct decision *d)
{
    static const char *const origins[] = {"sandbox", "global", "preset"};
    memset(d, 0, sizeof *d);
    if (s->p->error[0]) {
        snprintf(d->text, sizeof d->text, "the policy file, which cannot be read");
        return;
    }
    const struct rule *allow = s->exact ? s->exact : s->allow;
    const struct rule *some = s->exact_some ? s->exact_some : s->allow_some;
    d->rule = s->deny ? s->deny : allow;
    d->allow = !s->deny && (allow || (s->p->open && !is_in(s->p->closed, s->p->nclosed, s->port)));
    if (d->allow && s->deny_some) {
        d->rule = s->deny_some;
        d->http = true;
    } else if (!s->deny && !d->allow && some) {
        d->rule = some;
        d->allow = d->http = true;
    }
    d->exact = d->allow && (s->exact || s->exact_some);
    if (d->rule) {
        char text[RULE_TEXT_MAX];
        rule_format(text, d->rule);
        snprintf(d->text, sizeof d->text, "%s %s (%s)", d->rule->deny ? "deny" : "allow", text,
                 origins[d->rule->origin]);
    } else {
        snprintf(d->text, sizeof d->text, "posture %s",
                 posture_name(s->p->posture ? s->p->posture : POSTURE_BALANCED));
    }
}

static void find_name(struct search *s)
{
    const char *name = s->name;
    visit(s, hash_bytes(name, strlen(name), RULE_HOST));
    const char *dot = strchr(name, '.');
    if (dot)
        visit(s, hash_bytes(dot + 1, strlen(dot + 1), RULE_LABEL));
    for (; dot; dot = strchr(dot + 1, '.'))
        visit(s, hash_bytes(dot + 1, strlen(dot + 1), RULE_DEPTH));
}

static void decide_name(struct search *s, struct decision *d)
{
    if (!s->p->error[0])
        find_name(s);
    conclude(s, d);
    /* This host's own services open by their own rule alone, under every posture. */
    if (d->allow && !d->exact && strcmp(s->name, "localhost") == 0)
        d->allow = false;
}

void policy_decide_name(const struct policy *p, const char *name, uint16_t port, int64_t now, struct decision *d)
{
    struct search s = {.p = p, .name = rule_alias(name), .port = port, .now = now};
    decide_name(&s, d);
}

void policy_decide_request(const struct policy *p, const char *name, uint16_t port, const char *method,
                           const char *path, int64_t now, struct decision *d)
{
    struct search s = {.p = p, .name = rule_alias(name), .port = port, .now = now, .method = method, .path = path};
    decide_name(&s, d);
}

void policy_decide_addr(const struct policy *p, uint8_t family, const uint8_t *addr, uint16_t port, int64_t now,
                        struct decision *d)
{
    struct search s = {.p = p, .family = family, .addr = addr, .port = port, .now = now};
    const uint8_t *lengths = family == 4 ? p->lengths4 : p->lengths6;
    unsigned bits = family == 4 ? 32 : 128;
    for (unsigned len = 0; !p->error[0] && len <= bits; len++) {
        if (!lengths[len])
            continue;
        uint8_t masked[16] = {0};
        memcpy(masked, addr, bits / 8);
        for (unsigned i = len; i < bits; i++)
            if (i % 8 == 0 && i + 8 <= bits) {
                masked[i / 8] = 0;
                i += 7;
            } else {
                masked[i / 8] &= (uint8_t)~(0x80u >> i % 8);
            }
        visit(&s, hash_bytes(masked, 16, 1000u + len + family * 256u));
    }
    conclude(&s, d);
}

bool policy_denies_all(const struct policy *p, const char *name, int64_t now)
{
    struct search s = {.p = p, .name = rule_alias(name), .port = 1, .now = now, .denied_everywhere = true};
    if (p->error[0])
        return false; /* the name resolves, so that its connections can be refused with the reason */
    find_name(&s);
    return s.deny != NULL;
}

void policy_set_expiry(struct policy *p, size_t i, bool over, bool lasting)
{
    p->rules[i].over = over;
    p->rules[i].lasting = lasting;
}

void policy_handle(char *out, size_t cap, const struct rule *r)
{
    char text[RULE_TEXT_MAX], item[RULE_TEXT_MAX * 2];
    rule_format(text, r);
    rule_list_item(item, sizeof item, text);
    shell_word(out, cap, r->id[0] ? r->id : item);
}

/* ---- changing ---- */

static void new_id(char id[9])
{
    uint32_t n;
    if (getrandom(&n, sizeof n, 0) != sizeof n)
        n = (uint32_t)time(NULL);
    snprintf(id, 9, "%08x", n);
}

/* Files are written by hand as well, in other spellings. */
static bool has_target(const json_t *item, const char *text)
{
    const char *target = json_string_value(json_object_get(item, "target"));
    struct rule r = {0};
    char own[RULE_TEXT_MAX];
    if (!target || !text[0] || rule_parse(&r, target, NULL) < 0)
        return false;
    rule_format(own, &r);
    return strcmp(own, text) == 0;
}

static json_t *to_json(const struct rule *r)
{
    char text[RULE_TEXT_MAX];
    rule_format(text, r);
    json_t *o = json_pack("{s:s, s:s, s:s}", "id", r->id, "action", r->deny ? "deny" : "allow", "target", text);
    if (r->expires)
        json_object_set_new(o, "expires", json_integer(r->expires));
    if (r->disabled)
        json_object_set_new(o, "disabled", json_true());
    if (r->comment[0])
        json_object_set_new(o, "comment", json_string(r->comment));
    return o;
}

/* Reads for a change: what is unusable is not overwritten, its rules would be lost. */
static json_t *read_for_change(const char *path, struct err *e)
{
    struct err why = {0};
    struct policy p = {0};
    json_t *o = jsonfile_read(path, &why);
    if (!o && why.status == STATUS_NOT_FOUND)
        return json_pack("{s:i, s:[]}", "version", POLICY_VERSION, "rules");
    if (o && read_object(&p, o, RULE_GLOBAL, &why) < 0) {
        json_decref(o);
        o = NULL;
    }
    free(p.rules);
    if (!o) {
        if (e)
            *e = why;
        err_wrap(e, "the policy file %s is unusable (mend it, or start afresh with: sbx policy reset)", path);
    } else if (!json_object_get(o, "rules")) {
        json_object_set_new(o, "rules", json_array());
    }
    return o;
}

typedef int change_fn(json_t *o, const void *arg, struct err *e);

static int change(const char *sandbox, change_fn *fn, const void *arg, struct err *e)
{
    char *path = policy_path(sandbox, e);
    int lock = path ? jsonfile_lock(path, e) : -1, rc = -1;
    json_t *o = lock >= 0 ? read_for_change(path, e) : NULL;
    if (o) {
        rc = fn(o, arg, e);
        if (rc >= 0 && jsonfile_update(path, o, 0600, e) < 0)
            rc = -1;
    }
    json_decref(o);
    if (lock >= 0)
        close(lock);
    free(path);
    return rc;
}

struct addition {
    const struct rule *rules;
    size_t n;
};

/* The same target again: the newer word counts.  keep: but that one, NULL: none is kept. */
static void drop_others(json_t *list, const struct rule *r, const json_t *keep)
{
    char text[RULE_TEXT_MAX];
    rule_format(text, r);
    for (size_t k = json_array_size(list); k-- > 0;) {
        const json_t *old = json_array_get(list, k);
        if (old != keep && has_target(old, text) && (!r->expires || json_object_get(old, "expires")))
            json_array_remove(list, k);
    }
}

static void append_rule(json_t *list, struct rule *r)
{
    drop_others(list, r, NULL);
    new_id(r->id);
    r->created = time(NULL);
    json_t *item = to_json(r);
    json_object_set_new(item, "created", json_integer(r->created));
    json_array_append_new(list, item);
}

static int add(json_t *o, const void *arg, struct err *e)
{
    const struct addition *a = arg;
    json_t *list = json_object_get(o, "rules");
    (void)e;
    for (size_t i = 0; i < a->n; i++) {
        struct rule r = a->rules[i];
        append_rule(list, &r);
    }
    return 0;
}

int policy_add(const char *sandbox, const struct rule *rules, size_t n, struct err *e)
{
    struct addition a = {rules, n};
    return change(sandbox, add, &a, e);
}

/* Is it the one that is meant by a rule's id, or by its text (canonical, "" where it is none)? */
static bool is_meant(const json_t *item, const char *what, const char *text)
{
    const char *id = json_string_value(json_object_get(item, "id"));
    return (id && strcmp(id, what) == 0) || has_target(item, text);
}

static void text_of(const char *what, char text[RULE_TEXT_MAX])
{
    struct rule r = {0};
    text[0] = '\0';
    if (rule_parse(&r, what, NULL) == 0)
        rule_format(text, &r);
}

struct aim {
    const char *what; /* a rule's id or text */
    enum { AIM_DROP, AIM_DISABLE, AIM_ENABLE } to;
};

static int at_rules(json_t *o, const void *arg, struct err *e)
{
    const struct aim *aim = arg;
    const char *what = aim->what;
    json_t *list = json_object_get(o, "rules");
    char text[RULE_TEXT_MAX];
    int count = 0;
    (void)e;
    text_of(what, text);
    for (size_t i = json_array_size(list); i-- > 0;) {
        json_t *item = json_array_get(list, i);
        if (is_meant(item, what, text)) {
            if (aim->to == AIM_DROP)
                json_array_remove(list, i);
            else if (aim->to == AIM_DISABLE)
                json_object_set_new(item, "disabled", json_true());
            else
                json_object_del(item, "disabled");
            count++;
        }
    }
    return count;
}

int policy_remove(const char *sandbox, const char *id_or_text, struct err *e)
{
    struct aim aim = {id_or_text, AIM_DROP};
    return change(sandbox, at_rules, &aim, e);
}

int policy_enable(const char *sandbox, const char *id_or_text, bool on, struct err *e)
{
    struct aim aim = {id_or_text, on ? AIM_ENABLE : AIM_DISABLE};
    return change(sandbox, at_rules, &aim, e);
}

/* The one rule that is meant, in *at; -1 where there is none, or more than one. */
static int find_one(const json_t *list, const char *what, const char *scope, size_t *at, struct err *e)
{
    char text[RULE_TEXT_MAX];
    int count = 0;
    text_of(what, text);
    for (size_t i = json_array_size(list); i-- > 0;)
        if (is_meant(json_array_get(list, i), what, text)) {
            *at = i;
            count++;
        }
    if (!count)
        return err_set(e, STATUS_NOT_FOUND, "there is no rule \"%.100s\" for %s", what, scope ? scope : "all sandboxes");
    return count == 1 ? 0 : err_set(e, STATUS_USAGE, "%d rules say \"%.100s\": give the id of one (sbx policy ls shows them)", count, what);
}

static int merge(struct rule *r, const struct rule_change *c, struct err *e)
{
    const struct rule was = *r;
    if (c->target) {
        *r = *c->target;
        memcpy(r->id, was.id, sizeof r->id);
        memcpy(r->comment, was.comment, sizeof r->comment);
    }
    r->deny = c->deny ? *c->deny : was.deny;
    r->disabled = c->disabled ? *c->disabled : was.disabled;
    r->expires = c->expires ? *c->expires : was.expires;
    /* What is remembered of how long it had still to run (core/expiry.h) goes by this, too. */
    r->created = c->expires || c->target ? time(NULL) : was.created;
    if (c->comment)
        snprintf(r->comment, sizeof r->comment, "%s", c->comment);
    return c->check ? c->check(r, e) : 0;
}

static void put_in_place(json_t *list, size_t at, struct rule *r)
{
    if (!r->id[0])
        new_id(r->id);
    json_t *item = to_json(r);
    if (r->created)
        json_object_set_new(item, "created", json_integer(r->created));
    json_array_set_new(list, at, item);
    drop_others(list, r, item);
}

int policy_edit(const char *sandbox, const char *what, const struct rule_change *c, struct rule *out, struct err *e)
{
    const char *to = c->to ? *c->to : sandbox;
    bool moves = (to == NULL) != (sandbox == NULL) || (to && strcmp(to, sandbox) != 0);
    char *path = policy_path(sandbox, e), *there = moves && path ? policy_path(to, e) : NULL;
    /* Two locks are always taken in the same order. */
    bool swap = there && strcmp(there, path) < 0;
    int lock = path && (!moves || there) ? jsonfile_lock(swap ? there : path, e) : -1, other = -1, rc = -1;
    if (lock >= 0 && moves)
        other = jsonfile_lock(swap ? path : there, e);
    json_t *o = lock >= 0 && (other >= 0 || !moves) ? read_for_change(path, e) : NULL, *list = json_object_get(o, "rules");
    json_t *dest = o && moves ? read_for_change(there, e) : NULL, *before = dest ? json_deep_copy(dest) : NULL;
    size_t at = 0;
    memset(out, 0, sizeof *out);
    if (!o || (moves && !before) || find_one(list, what, sandbox, &at, e) < 0 || read_rule(out, json_array_get(list, at), e) < 0 ||
        merge(out, c, e) < 0)
        goto end;
    if (!moves) {
        put_in_place(list, at, out);
        rc = jsonfile_update(path, o, 0600, e);
    } else { /* that both stand for a moment, or where a power failure comes in between, loses nothing */
        append_rule(json_object_get(dest, "rules"), out);
        json_array_remove(list, at);
        rc = jsonfile_update(there, dest, 0600, e);
        if (rc == 0 && (rc = jsonfile_update(path, o, 0600, e)) < 0)
            jsonfile_update(there, before, 0600, NULL);
    }
end:
    json_decref(before);
    json_decref(dest);
    json_decref(o);
    if (other >= 0)
        close(other);
    if (lock >= 0)
        close(lock);
    free(there);
    free(path);
    return rc;
}

int policy_reset(const char *sandbox, struct err *e)
{
    char *path = policy_path(sandbox, e);
    int lock = path ? jsonfile_lock(path, e) : -1, rc = -1;
    json_t *o = json_pack("{s:i, s:[]}", "version", POLICY_VERSION, "rules");
    if (lock >= 0)
        rc = jsonfile_update(path, o, 0600, e);
    json_decref(o);
    if (lock >= 0)
        close(lock);
    free(path);
    return rc;
}

static int set_posture(json_t *o, const void *arg, struct err *e)
{
    (void)e;
    return json_object_set_new(o, "posture", json_string(posture_name(*(const enum posture *)arg)));
}

int policy_set_posture(const char *sandbox, enum posture p, struct err *e)
{
    return change(sandbox, set_posture, &p, e);
}

static int set_ask(json_t *o, const void *arg, struct err *e)
{
    (void)e;
    return json_object_set_new(o, "ask", json_boolean(*(const bool *)arg));
}

int policy_set_ask(const char *sandbox, bool on, struct err *e)
{
    return change(sandbox, set_ask, &on, e);
}

enum posture policy_file_posture(const char *sandbox)
{
    json_t *o = policy_export(sandbox, NULL);
    const char *word = json_string_value(json_object_get(o, "posture"));
    enum posture p = word ? posture_parse(word) : POSTURE_UNSET;
    json_decref(o);
    return p;
}

json_t *policy_export(const char *sandbox, struct err *e)
{
    char *path = policy_path(sandbox, e);
    json_t *o = path ? read_for_change(path, e) : NULL;
    free(path);
    return o;
}

/* Each rule of a file from elsewhere gets an id that finds it, and no other one. */
static int number_rules(json_t *rules)
{
    json_t *taken = json_object(), *item;
    size_t i;
    json_array_foreach(rules, i, item) {
        const char *id = json_string_value(json_object_get(item, "id"));
        char fresh[9];
        if (!id || !is_id(id) || json_object_get(taken, id)) {
            new_id(fresh);
            json_object_set_new(item, "id", json_string(fresh));
            id = json_string_value(json_object_get(item, "id"));
        }
        json_object_set_new(taken, id, json_true());
    }
    json_decref(taken);
    return 0;
}

static int replace(json_t *o, const void *arg, struct err *e)
{
    struct policy p = {0};
    int rc = read_object(&p, arg, RULE_GLOBAL, e);
    free(p.rules);
    if (rc < 0) {
        if (e)
            e->status = STATUS_USAGE; /* what was given is wrong, not what is there */
        return -1;
    }
    json_object_clear(o);
    if (json_object_update(o, (json_t *)arg) < 0)
        return err_set(e, STATUS_FAILED, "out of memory");
    return number_rules(json_object_get(o, "rules"));
}

int policy_import(const char *sandbox, const json_t *o, struct err *e)
{
    return change(sandbox, replace, o, e);
}
