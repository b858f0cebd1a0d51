#include "ui/dash/netlog_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LATE_MAX 65536u  /* how far back a row that comes late is moved */
#define FLOWS 4096u      /* buckets of open connections */
#define FLOWS_MAX 65536u /* beyond, the ends of connections are rows of their own */

struct row {
    int64_t time_ms, seq;
    int64_t up, down;
    uint32_t group, request, count;
    int32_t ms; /* -1: not known */
};

/* Distinct texts in one piece of memory, each ended by NUL, and the same in lower case for searching. */
struct pool {
    char *text, *lower;
    size_t len, cap;
    uint32_t *at; /* where each begins */
    uint32_t n, room;
    uint32_t *table;
    uint32_t slots;
};

struct group {
    uint32_t box, host, rule, kind, proto, verdict; /* in `words` */
    uint32_t kin; /* those that are shown as one: a host's connections, and the requests on them */
    uint16_t port;
    bool request;
};

struct flow {
    struct flow *next;
    uint32_t box;
    int64_t number;
    uint64_t row;
};

struct netlog {
    struct row *rows;
    size_t n, cap, max;
    uint64_t first;
    uint64_t version, moved; /* moved: counts rows put before the end, and rows forgotten */
    struct pool words, requests, groups; /* groups: what of a group is searched, and its identity */
    struct pool kins;
    struct group *group;
    uint32_t group_room;
    struct flow *flows[FLOWS];
    size_t nflows;
};

struct term {
    char text[128];
    size_t len;
    char field; /* 0: any */
    bool not;
};

struct view_group {
    uint32_t group, request; /* request: the only one, if there are no others */
    int64_t first_ms, last_ms, seq, up, down, connections, requests;
    bool others;
};

struct netlog_view {
    struct netlog *log;
    char filter[256], box[80];
    bool all_boxes, grouped;
    struct term terms[NETLOG_TERMS_MAX];
    unsigned nterms;
    struct term done[NETLOG_TERMS_MAX]; /* those that the masks are of */
    unsigned ndone;
    uint32_t want, reject; /* masks of the terms */
    uint32_t *group_mask, *request_mask;
    uint32_t ngroups, nrequests; /* so many have masks */
    uint32_t group_room, request_room;
    uint64_t *lines; /* row numbers */
    size_t n, cap;
    uint64_t scanned, moved, version;
    bool stale; /* the filter changed */
    struct view_group *sums;
    size_t nsums;
    char requests[32]; /* of the line that was asked for last: how many */
    /* where it stands */
    enum netlog_mode mode;
    uint64_t anchor; /* row number, or group */
    size_t paused_at;
};

/* ---- pools ---- */

static uint32_t hash_of(const char *s, size_t len)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)s[i]) * 16777619u;
    return h ^ h >> 15;
}

static bool grow(void **p, size_t each, size_t need)
{
    void *more = realloc(*p, each * need);
    if (more)
        *p = more;
    return more != NULL;
}

static bool pool_rehash(struct pool *p)
{
    uint32_t slots = p->slots ? p->slots * 2 : 1024;
    uint32_t *table = calloc(slots, sizeof *table);
    if (!table)
        return false;
    for (uint32_t i = 0; i < p->n; i++) {
        const char *s = p->text + p->at[i];
        uint32_t k = hash_of(s, strlen(s)) & (slots - 1);
        while (table[k])
            k = (k + 1) & (slots - 1);
        table[k] = i + 1;
    }
    free(p->table);
    p->table = table;
    p->slots = slots;
    return true;
}

/* The text's number; it is added if it is new.  UINT32_MAX: no memory. */
static uint32_t pool_put(struct pool *p, const char *s, bool *fresh)
{
    size_t len = strlen(s);
    if (p->n * 2 >= p->slots && !pool_rehash(p))
        return UINT32_MAX;
    uint32_t k = hash_of(s, len) & (p->slots - 1);
    for (; p->table[k]; k = (k + 1) & (p->slots - 1))
        if (strcmp(p->text + p->at[p->table[k] - 1], s) == 0)
            return p->table[k] - 1;
    if (p->len + len + 1 > p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 16384;
        while (cap < p->len + len + 1)
            cap *= 2;
        if (cap > UINT32_MAX || !grow((void **)&p->text, 1, cap) || !grow((void **)&p->lower, 1, cap))
            return UINT32_MAX;
        p->cap = cap;
    }
    if (p->n == p->room) {
        uint32_t room = p->room ? p->room * 2 : 1024;
        if (!grow((void **)&p->at, sizeof *p->at, room))
            return UINT32_MAX;
        p->room = room;
    }
    p->at[p->n] = (uint32_t)p->len;
    for (size_t i = 0; i <= len; i++) {
        p->text[p->len + i] = s[i];
        p->lower[p->len + i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] + 32) : s[i];
    }
    p->len += len + 1;
    p->table[k] = ++p->n;
    if (fresh)
        *fresh = true;
    return p->n - 1;
}

static void pool_clear(struct pool *p)
{
    free(p->text);
    free(p->lower);
    free(p->at);
    free(p->table);
    memset(p, 0, sizeof *p);
}

static const char *word(const struct netlog *n, uint32_t i)
{
    return n->words.text + n->words.at[i];
}

static const char *request_text(const struct netlog *n, uint32_t i)
{
    return n->requests.text + n->requests.at[i];
}

/* ---- rows ---- */

struct netlog *netlog_new(size_t max)
{
    struct netlog *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->max = max && max < NETLOG_ROWS_MAX ? max : NETLOG_ROWS_MAX;
    if (pool_put(&n->requests, "", NULL) == UINT32_MAX) {
        netlog_free(n);
        return NULL;
    }
    return n;
}

static void forget_flows(struct netlog *n)
{
    for (size_t i = 0; i < FLOWS; i++)
        while (n->flows[i]) {
            struct flow *f = n->flows[i];
            n->flows[i] = f->next;
            free(f);
        }
    n->nflows = 0;
}

void netlog_free(struct netlog *n)
{
    if (!n)
        return;
    forget_flows(n);
    pool_clear(&n->words);
    pool_clear(&n->requests);
    pool_clear(&n->groups);
    pool_clear(&n->kins);
    free(n->group);
    free(n->rows);
    free(n);
}

static struct flow **flow_slot(struct netlog *n, uint32_t box, int64_t number)
{
    struct flow **p = &n->flows[((uint64_t)number * 0x9e3779b97f4a7c15u >> 40 ^ box) & (FLOWS - 1)];
    while (*p && ((*p)->number != number || (*p)->box != box))
        p = &(*p)->next;
    return p;
}

static void flow_begin(struct netlog *n, uint32_t box, int64_t number, uint64_t row)
{
    struct flow **p = flow_slot(n, box, number);
    if (!*p && n->nflows < FLOWS_MAX && (*p = calloc(1, sizeof **p)))
        n->nflows++;
    if (*p) {
        (*p)->box = box;
        (*p)->number = number;
        (*p)->row = row;
    }
}

/* The row of its begin; the connection is over then. */
static struct row *flow_end(struct netlog *n, uint32_t box, int64_t number)
{
    struct flow **p = flow_slot(n, box, number), *f = *p;
    if (!f)
        return NULL;
    struct row *r = f->row >= n->first ? &n->rows[f->row - n->first] : NULL;
    *p = f->next;
    free(f);
    n->nflows--;
    return r;
}

static uint32_t find_group(struct netlog *n, const struct group *g)
{
    char text[1200];
    bool fresh = false;
    /* The blanks keep a word from matching across two fields; the numbers behind make it unique. */
    snprintf(text, sizeof text, "%.80s %.260s:%u %.8s %.12s %.8s %.600s \x01%x,%x,%x", word(n, g->box), word(n, g->host),
             g->port, word(n, g->proto), word(n, g->kind), word(n, g->verdict), word(n, g->rule), g->box, g->host, g->rule);
    uint32_t i = pool_put(&n->groups, text, &fresh);
    if (fresh) {
        if (i >= n->group_room) {
            uint32_t room = n->group_room ? n->group_room * 2 : 256;
            if (!grow((void **)&n->group, sizeof *n->group, room))
                return UINT32_MAX; /* the pool has it without a group: see netlog_add */
            n->group_room = room;
        }
        n->group[i] = *g;
        const char *proto = word(n, g->proto);
        n->group[i].request = strcmp(word(n, g->kind), "request") == 0;
        bool stream = strcmp(proto, "tcp") == 0 || strncmp(proto, "http", 4) == 0;
        snprintf(text, sizeof text, "%x,%x,%x,%x,%x,%x", g->box, g->host, g->port, g->verdict, g->rule, stream ? 0 : g->proto + 1);
        n->group[i].kin = pool_put(&n->kins, text, NULL);
        if (n->group[i].kin == UINT32_MAX)
            return UINT32_MAX;
    }
    return i;
}

static bool intern(struct netlog *n, const char *s, uint32_t *out)
{
    *out = pool_put(&n->words, s ? s : "", NULL);
    return *out != UINT32_MAX;
}

static void append(struct netlog *n, const struct row *r)
{
    if (n->n == n->cap) {
        size_t cap = n->cap ? n->cap * 2 : 1024;
        if (!grow((void **)&n->rows, sizeof *n->rows, cap))
            return;
        n->cap = cap;
    }
    n->rows[n->n++] = *r;
}

/* Forgets the oldest eighth, and the texts that only those rows had. */
static void shrink(struct netlog *n)
{
    struct netlog *fresh = netlog_new(n->max);
    size_t from = n->max / 8 + 1;
    if (!fresh)
        return;
    for (size_t i = from; i < n->n; i++) {
        struct row r = n->rows[i];
        struct group g = n->group[r.group];
        if (!intern(fresh, word(n, g.box), &g.box) || !intern(fresh, word(n, g.host), &g.host) ||
            !intern(fresh, word(n, g.rule), &g.rule) || !intern(fresh, word(n, g.kind), &g.kind) ||
            !intern(fresh, word(n, g.proto), &g.proto) || !intern(fresh, word(n, g.verdict), &g.verdict) ||
            (r.group = find_group(fresh, &g)) == UINT32_MAX ||
            (r.request = pool_put(&fresh->requests, request_text(n, r.request), NULL)) == UINT32_MAX) {
            netlog_free(fresh);
            return;
        }
        append(fresh, &r);
    }
    for (size_t i = 0; i < FLOWS; i++)
        for (struct flow *f = n->flows[i]; f; f = f->next) {
            uint32_t box;
            if (f->row >= n->first + from && intern(fresh, word(n, f->box), &box))
                flow_begin(fresh, box, f->number, f->row);
        }
    fresh->first = n->first + from;
    fresh->version = n->version;
    fresh->moved = n->moved + 1;
    struct netlog old = *n;
    *n = *fresh;
    *fresh = old;
    netlog_free(fresh);
}

/* Rows of several sandboxes come in order of each alone. */
static void settle(struct netlog *n)
{
    size_t at = n->n - 1, low = n->n > LATE_MAX ? n->n - LATE_MAX : 0;
    struct row r = n->rows[at];
    while (at > low && n->rows[at - 1].time_ms > r.time_ms)
        at--;
    if (at == n->n - 1)
        return;
    memmove(&n->rows[at + 1], &n->rows[at], (n->n - 1 - at) * sizeof r);
    n->rows[at] = r;
    for (size_t i = 0; i < FLOWS; i++)
        for (struct flow *f = n->flows[i]; f; f = f->next)
            if (f->row - n->first >= at)
                f->row = f->row == n->first + n->n - 1 ? n->first + at : f->row + 1;
    n->moved++;
}

void netlog_add(struct netlog *n, const char *box, const struct decision_row *d)
{
    char text[2200] = "";
    struct group g = {.port = (uint16_t)d->port};
    if (!intern(n, box, &g.box))
        return;
    bool end = strcmp(d->kind, "close") == 0;
    if (d->flow && (end || strcmp(d->kind, "fail") == 0)) {
        struct row *r = flow_end(n, g.box, d->flow);
        if (r && end) {
            r->up = d->bytes_up;
            r->down = d->bytes_down;
            r->ms = (int32_t)(d->duration_ms < INT32_MAX ? d->duration_ms : INT32_MAX);
            n->version++;
            return;
        }
    }
    if (n->n >= n->max) {
        shrink(n);
        if (!intern(n, box, &g.box) || n->n >= NETLOG_ROWS_MAX * 2u)
            return;
    }
    if (d->method && d->method[0])
        snprintf(text, sizeof text, "%.31s %.2100s", d->method, d->path ? d->path : "");
    else
        snprintf(text, sizeof text, "%.2100s", d->path ? d->path : "");
    struct row r = {.time_ms = d->time_ms, .seq = d->seq, .up = d->bytes_up, .down = d->bytes_down, .ms = end ? (int32_t)d->duration_ms : -1,
                    .count = (uint32_t)(d->count < 1 ? 1 : d->count > UINT32_MAX ? UINT32_MAX : d->count)};
    r.request = pool_put(&n->requests, text, NULL);
    if (r.request == UINT32_MAX || !intern(n, d->host, &g.host) || !intern(n, d->rule, &g.rule) || !intern(n, d->kind, &g.kind) ||
        !intern(n, d->proto, &g.proto) || !intern(n, d->verdict, &g.verdict))
        return;
    r.group = find_group(n, &g);
    if (r.group == UINT32_MAX || r.group >= n->group_room)
        return;
    size_t before = n->n;
    append(n, &r);
    if (n->n == before)
        return;
    if (d->flow && strcmp(d->kind, "open") == 0)
        flow_begin(n, g.box, d->flow, n->first + n->n - 1);
    n->version++;
    settle(n);
}

uint64_t netlog_first(const struct netlog *n)
{
    return n->first;
}

uint64_t netlog_end(const struct netlog *n)
{
    return n->first + n->n;
}

uint64_t netlog_version(const struct netlog *n)
{
    return n->version;
}

static void from_group(const struct netlog *n, uint32_t group, struct netlog_row *out)
{
    const struct group *g = &n->group[group];
    out->box = word(n, g->box);
    out->host = word(n, g->host);
    out->kind = word(n, g->kind);
    out->proto = word(n, g->proto);
    out->verdict = word(n, g->verdict);
    out->rule = word(n, g->rule);
    out->port = g->port;
}

bool netlog_get(const struct netlog *n, uint64_t number, struct netlog_row *out)
{
    if (number < n->first || number >= n->first + n->n)
        return false;
    const struct row *r = &n->rows[number - n->first];
    *out = (struct netlog_row){.time_ms = r->time_ms, .first_ms = r->time_ms, .seq = r->seq, .bytes_up = r->up, .bytes_down = r->down,
                               .count = r->count, .duration_ms = r->ms, .request = request_text(n, r->request)};
    from_group(n, r->group, out);
    out->open = r->ms < 0 && strcmp(out->kind, "open") == 0;
    return true;
}

/* ---- filters ---- */

static void lower_into(char *out, size_t cap, const char *s, size_t len)
{
    size_t i = 0;
    for (; i < len && i + 1 < cap; i++)
        out[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] + 32) : s[i];
    out[i] = '\0';
}

static void parse_filter(struct netlog_view *v)
{
    static const struct {
        const char *name;
        char field;
    } fields[] = {{"host:", 'h'}, {"box:", 'b'}, {"sandbox:", 'b'}, {"rule:", 'r'}, {"path:", 'p'}, {"port:", 'o'}, {"verdict:", 'v'}};
    v->nterms = 0;
    v->want = v->reject = 0;
    for (const char *p = v->filter; *p && v->nterms < NETLOG_TERMS_MAX;) {
        p += strspn(p, " ");
        size_t len = strcspn(p, " ");
        struct term t = {0};
        const char *s = p;
        p += len;
        if (len && *s == '-') {
            t.not = true;
            s++;
            len--;
        }
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
            size_t n = strlen(fields[i].name);
            if (len >= n && strncmp(s, fields[i].name, n) == 0) {
                t.field = fields[i].field;
                s += n;
                len -= n;
                break;
            }
        }
        lower_into(t.text, sizeof t.text, s, len);
        t.len = strlen(t.text);
        if (!t.len)
            continue; /* not typed to its end yet */
        *(t.not ? &v->reject : &v->want) |= 1u << v->nterms;
        v->terms[v->nterms++] = t;
    }
}

static bool holds(const struct pool *p, uint32_t i, const char *text)
{
    return strstr(p->lower + p->at[i], text) != NULL;
}

static bool masks_room(struct netlog_view *v)
{
    const struct netlog *n = v->log;
    if (n->groups.n > v->group_room) {
        uint32_t room = n->groups.n * 2;
        if (!grow((void **)&v->group_mask, sizeof(uint32_t), room))
            return false;
        v->group_room = room;
    }
    if (n->requests.n > v->request_room) {
        uint32_t room = n->requests.n * 2;
        if (!grow((void **)&v->request_mask, sizeof(uint32_t), room))
            return false;
        v->request_room = room;
    }
    return true;
}

#define OUT_OF_BOX 0x80000000u

/* What a letter more asks of the texts that have their bits: nothing, fewer of those that have it, or all anew. */
enum change { SAME, NARROWER, FRESH };

static enum change change_of(const struct netlog_view *v, unsigned i)
{
    const struct term *now = &v->terms[i], *old = &v->done[i];
    if (i >= v->ndone || now->field != old->field)
        return FRESH;
    if (now->len == old->len && memcmp(now->text, old->text, now->len) == 0)
        return SAME;
    return now->field != 'o' && now->len > old->len && memcmp(now->text, old->text, old->len) == 0 ? NARROWER : FRESH;
}

/* What of a group is searched is before its \x01. */
static bool group_holds(const struct pool *p, uint32_t i, const char *text)
{
    const char *s = p->lower + p->at[i], *at = strstr(s, text);
    return at && at < strchr(s, '\x01');
}

static bool port_holds(uint16_t port, const char *text)
{
    char number[8];
    snprintf(number, sizeof number, "%u", port);
    return strstr(number, text) != NULL;
}

static bool group_matches(const struct netlog *n, uint32_t i, const struct term *t)
{
    const struct group *g = &n->group[i];
    switch (t->field) {
    case 'h':
        return holds(&n->words, g->host, t->text);
    case 'b':
        return holds(&n->words, g->box, t->text);
    case 'r':
        return holds(&n->words, g->rule, t->text);
    case 'v':
        return strncmp(word(n, g->verdict), t->text, t->len) == 0;
    case 'o':
        return g->port == strtoul(t->text, NULL, 10);
    case 'p':
        return false;
    default:
        return group_holds(&n->groups, i, t->text);
    }
}

/* Many groups share few words, and a term without a colon lies within one of them: each word is looked at once.
 * False: no memory, or a term that the words alone do not decide. */
static bool mark_by_words(struct netlog_view *v, const struct term *t, uint32_t bit, uint32_t to)
{
    const struct netlog *n = v->log;
    uint8_t *hit = t->field == 0 && !strchr(t->text, ':') ? malloc(n->words.n + 65536u) : NULL;
    if (!hit)
        return false;
    uint8_t *ports = hit + n->words.n; /* 0: not looked at, 1: no, 2: yes */
    bool digits = t->text[strspn(t->text, "0123456789")] == '\0';
    for (uint32_t i = 0; i < n->words.n; i++)
        hit[i] = holds(&n->words, i, t->text);
    memset(ports, digits ? 0 : 1, 65536u);
    for (uint32_t i = 0; i < to; i++) {
        const struct group *g = &n->group[i];
        bool is = hit[g->host] | hit[g->rule] | hit[g->box] | hit[g->kind] | hit[g->proto] | hit[g->verdict];
        if (!is && ports[g->port] == 0)
            ports[g->port] = port_holds(g->port, t->text) ? 2 : 1;
        if (is || ports[g->port] == 2)
            v->group_mask[i] |= bit;
        else
            v->group_mask[i] &= ~bit;
    }
    free(hit);
    return true;
}

/* Masks for the groups and requests that have none yet, and for the terms that are not as they were. */
static void make_masks(struct netlog_view *v)
{
    const struct netlog *n = v->log;
    if (!masks_room(v))
        return;
    for (uint32_t i = v->ngroups; i < n->groups.n; i++)
        v->group_mask[i] = !v->all_boxes && strcmp(word(n, n->group[i].box), v->box) != 0 ? OUT_OF_BOX : 0;
    memset(v->request_mask + v->nrequests, 0, (n->requests.n - v->nrequests) * sizeof *v->request_mask);
    for (unsigned k = 0; k < v->nterms; k++) {
        const struct term *t = &v->terms[k];
        uint32_t bit = 1u << k, i = 0;
        enum change change = change_of(v, k);
        if (change == SAME || mark_by_words(v, t, bit, v->ngroups))
            i = v->ngroups;
        /* Of the new ones none has the bit yet. */
        for (; i < n->groups.n; i++) {
            if (change == NARROWER && i < v->ngroups && !(v->group_mask[i] & bit))
                continue;
            if (group_matches(n, i, t))
                v->group_mask[i] |= bit;
            else
                v->group_mask[i] &= ~bit;
        }
        i = change == SAME ? v->nrequests : 0;
        for (; i < n->requests.n; i++) {
            if (change == NARROWER && i < v->nrequests && !(v->request_mask[i] & bit))
                continue;
            if ((t->field == 0 || t->field == 'p') && holds(&n->requests, i, t->text))
                v->request_mask[i] |= bit;
            else
                v->request_mask[i] &= ~bit;
        }
    }
    v->ngroups = n->groups.n;
    v->nrequests = n->requests.n;
    memcpy(v->done, v->terms, sizeof v->done);
    v->ndone = v->nterms;
}

static bool passes(const struct netlog_view *v, const struct row *r)
{
    uint32_t m = v->group_mask[r->group] | v->request_mask[r->request];
    return (m & (v->want | v->reject | OUT_OF_BOX)) == v->want;
}

/* ---- views ---- */

struct netlog_view *netlog_view_new(struct netlog *n)
{
    struct netlog_view *v = calloc(1, sizeof *v);
    if (v) {
        v->log = n;
        v->all_boxes = true;
        v->stale = true;
    }
    return v;
}

void netlog_view_free(struct netlog_view *v)
{
    if (!v)
        return;
    free(v->group_mask);
    free(v->request_mask);
    free(v->lines);
    free(v->sums);
    free(v);
}

void netlog_view_filter(struct netlog_view *v, const char *text, const char *box)
{
    bool all = box == NULL;
    if (strcmp(v->filter, text) == 0 && v->all_boxes == all && (all || strcmp(v->box, box) == 0))
        return;
    if (v->all_boxes != all || (!all && strcmp(v->box, box) != 0))
        v->ngroups = 0; /* whose sandbox it is stands in their masks */
    snprintf(v->filter, sizeof v->filter, "%s", text);
    snprintf(v->box, sizeof v->box, "%s", box ? box : "");
    v->all_boxes = all;
    v->stale = true;
}

void netlog_view_group(struct netlog_view *v, bool on)
{
    if (v->grouped == on)
        return;
    v->grouped = on;
    v->mode = on ? NETLOG_PAUSED : NETLOG_FOLLOW;
    v->anchor = UINT64_MAX;
    v->stale = true;
}

bool netlog_view_grouped(const struct netlog_view *v)
{
    return v->grouped;
}

static int by_weight(const void *a, const void *b)
{
    const struct view_group *x = a, *y = b;
    int64_t m = x->connections + x->requests, n = y->connections + y->requests;
    if (m != n)
        return m < n ? 1 : -1;
    return x->group < y->group ? -1 : x->group > y->group;
}

static void sum_up(struct netlog_view *v)
{
    const struct netlog *n = v->log;
    struct view_group *all = calloc(n->kins.n + 1, sizeof *all);
    if (!all)
        return;
    for (size_t i = 0; i < v->n; i++) {
        const struct row *r = &n->rows[v->lines[i] - n->first];
        if (n->group[r->group].kin >= n->kins.n)
            continue; /* no memory for it */
        struct view_group *g = &all[n->group[r->group].kin];
        if (!g->connections && !g->requests) {
            g->first_ms = r->time_ms;
            g->group = r->group;
        }
        g->last_ms = r->time_ms;
        g->seq = r->seq;
        if (n->group[r->group].request) {
            g->others |= g->requests && g->request != r->request;
            g->request = r->request;
            g->requests += r->count;
        } else {
            g->connections += r->count;
        }
        g->up += r->up;
        g->down += r->down;
    }
    /* What was denied goes first: it is what one looks for. */
    size_t kept = 0, denied = 0;
    struct view_group *sums = malloc((n->kins.n + 1) * sizeof *sums);
    for (int pass = 0; sums && pass < 2; pass++) {
        for (uint32_t i = 0; i < n->kins.n; i++)
            if ((all[i].connections || all[i].requests) && (strcmp(word(n, n->group[all[i].group].verdict), "allow") == 0) == (pass == 1))
                sums[kept++] = all[i];
        if (pass == 0)
            denied = kept;
    }
    if (sums) {
        qsort(sums, denied, sizeof *sums, by_weight);
        qsort(sums + denied, kept - denied, sizeof *sums, by_weight);
        free(v->sums);
        v->sums = sums;
        v->nsums = kept;
    }
    free(all);
}

bool netlog_view_sync(struct netlog_view *v)
{
    const struct netlog *n = v->log;
    if (!v->stale && v->version == n->version && v->moved == n->moved)
        return false;
    bool first = v->stale;
    if (v->stale)
        parse_filter(v);
    if (v->moved != n->moved)
        v->ngroups = v->nrequests = 0; /* numbers of groups may have changed */
    if (v->stale || v->moved != n->moved) {
        v->n = 0;
        v->scanned = n->first;
    }
    make_masks(v);
    v->stale = false;
    v->moved = n->moved;
    v->version = n->version;
    if (v->ngroups < n->groups.n || v->nrequests < n->requests.n)
        return true; /* no memory: what is shown stays */
    for (; v->scanned < n->first + n->n; v->scanned++) {
        if (!passes(v, &n->rows[v->scanned - n->first]))
            continue;
        if (v->n == v->cap) {
            size_t cap = v->cap ? v->cap * 2 : 4096;
            if (!grow((void **)&v->lines, sizeof *v->lines, cap))
                break;
            v->cap = cap;
        }
        v->lines[v->n++] = v->scanned;
    }
    if (v->grouped)
        sum_up(v);
    if (first && v->mode == NETLOG_PAUSED)
        v->paused_at = netlog_view_count(v);
    if (v->paused_at > netlog_view_count(v))
        v->paused_at = netlog_view_count(v);
    return true;
}

size_t netlog_view_count(const struct netlog_view *v)
{
    return v->grouped ? v->nsums : v->n;
}

bool netlog_view_get(struct netlog_view *v, size_t line, struct netlog_row *out)
{
    if (line >= netlog_view_count(v))
        return false;
    if (!v->grouped)
        return netlog_get(v->log, v->lines[line], out);
    const struct view_group *g = &v->sums[line];
    *out = (struct netlog_row){.time_ms = g->last_ms, .first_ms = g->first_ms, .seq = g->seq, .bytes_up = g->up, .bytes_down = g->down,
                               .count = g->connections ? g->connections : g->requests, .duration_ms = -1, .request = ""};
    if (g->requests && !g->others) {
        out->request = request_text(v->log, g->request);
    } else if (g->requests) {
        snprintf(v->requests, sizeof v->requests, "%lld requests", (long long)g->requests);
        out->request = v->requests;
    }
    from_group(v->log, g->group, out);
    return true;
}

enum netlog_mode netlog_view_mode(const struct netlog_view *v)
{
    return v->mode;
}

/* The last line at or before a row; lines are in order. */
static size_t line_of(const struct netlog_view *v, uint64_t number)
{
    size_t low = 0, high = v->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (v->lines[mid] <= number)
            low = mid + 1;
        else
            high = mid;
    }
    return low ? low - 1 : 0;
}

size_t netlog_view_cursor(const struct netlog_view *v)
{
    size_t count = netlog_view_count(v);
    if (!count)
        return 0;
    if (v->grouped) {
        for (size_t i = 0; i < v->nsums; i++)
            if (v->sums[i].group == v->anchor)
                return i;
        return 0;
    }
    return v->mode == NETLOG_FOLLOW ? count - 1 : line_of(v, v->anchor);
}

void netlog_view_go(struct netlog_view *v, size_t line)
{
    size_t count = netlog_view_count(v);
    if (!count)
        return;
    if (line >= count)
        line = count - 1;
    if (v->mode == NETLOG_FOLLOW)
        v->paused_at = count;
    v->mode = NETLOG_PAUSED;
    v->anchor = v->grouped ? v->sums[line].group : v->lines[line];
}

void netlog_view_move(struct netlog_view *v, long by)
{
    size_t count = netlog_view_count(v), at = netlog_view_cursor(v);
    if (by > 0 && !v->grouped && at + (size_t)by >= count) {
        /* Beyond the end is where the new ones come. */
        if (at + 1 >= count || by > 1)
            netlog_view_follow(v);
        else
            netlog_view_go(v, count - 1);
        return;
    }
    if (by < 0 && (size_t)-by > at)
        at = 0;
    else
        at += (size_t)by;
    netlog_view_go(v, at);
}

void netlog_view_follow(struct netlog_view *v)
{
    if (!v->grouped)
        v->mode = NETLOG_FOLLOW;
}

void netlog_view_pause(struct netlog_view *v)
{
    netlog_view_go(v, netlog_view_cursor(v));
    if (!netlog_view_count(v)) {
        v->mode = NETLOG_PAUSED;
        v->anchor = netlog_end(v->log);
        v->paused_at = 0;
    }
}

size_t netlog_view_fresh(const struct netlog_view *v)
{
    size_t count = netlog_view_count(v);
    return v->mode == NETLOG_PAUSED && !v->grouped && count > v->paused_at ? count - v->paused_at : 0;
}

bool netlog_view_search(struct netlog_view *v, const char *text, bool back)
{
    char lower[128];
    size_t count = netlog_view_count(v), at = netlog_view_cursor(v);
    lower_into(lower, sizeof lower, text, strlen(text));
    for (size_t i = 1; i <= count; i++) {
        size_t line = back ? (at + count - i) % count : (at + i) % count;
        uint32_t group = v->grouped ? v->sums[line].group : v->log->rows[v->lines[line] - v->log->first].group;
        const char *found = strstr(v->log->groups.lower + v->log->groups.at[group], lower);
        bool hit = found && found < strchr(v->log->groups.lower + v->log->groups.at[group], '\x01');
        if (!hit && !v->grouped)
            hit = holds(&v->log->requests, v->log->rows[v->lines[line] - v->log->first].request, lower);
        if (hit) {
            netlog_view_go(v, line);
            return true;
        }
    }
    return false;
}

void netlog_view_jump(struct netlog_view *v, int64_t time_ms)
{
    size_t low = 0, high = v->n;
    if (v->grouped)
        return;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (v->log->rows[v->lines[mid] - v->log->first].time_ms < time_ms)
            low = mid + 1;
        else
            high = mid;
    }
    netlog_view_go(v, low);
}
