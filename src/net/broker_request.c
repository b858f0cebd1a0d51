/* Requests of intercepted connections, and what net needs to pass them on: secrets, certificates, minted tokens. */
#include "net/broker_int.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <sodium.h>

#include "core/sanitize.h"
#include "core/shellword.h"

#define MINT_PIPE_MAX 60000u /* of the 64 KiB that a pipe holds */

/* Method and path are the guest's words: they stand in the command only as what it reads as one rule, and a shell as one
 * word.  Where no rule can name the path, or the method, it is about less. */
static int allow_request(const struct broker *b, const struct flow *f, const struct ask_request *ask, char *out, size_t cap)
{
    char text[RULE_TEXT_MAX], item[RULE_TEXT_MAX + 64], word[RULE_TEXT_MAX + 128];
    struct rule r;
    for (int with_path = 1; with_path >= 0; with_path--) {
        memset(&r, 0, sizeof r);
        snprintf(text, sizeof text, "%s %s%.*s", ask->method, f->host, with_path ? (int)ask->path_len : 0, ask->path);
        rule_list_item(item, sizeof item, text);
        if (rule_parse(&r, text, NULL) == 0 && shell_word(word, sizeof word, item))
            return snprintf(out, cap, "sbx policy allow network %s %s", b->sandbox, word);
    }
    return snprintf(out, cap, "sbx policy allow network %s %s", b->sandbox, f->host);
}

/* The same for one request: the narrowest rule that would let it pass. */
static void request_hint(const struct broker *b, const struct flow *f, const struct ask_request *ask,
                         const struct decision *d, char *out, size_t cap)
{
    char which[RULE_TEXT_MAX + 2];
    int n;
    if (policy_error(b->policy))
        n = snprintf(out, cap, "sbx policy ls");
    else if (d->rule && d->rule->deny)
        n = broker_take_back(b, d->rule, which, sizeof which, out, cap);
    else
        n = allow_request(b, f, ask, out, cap);
    if (n <= 0 || (size_t)n >= cap)
        out[0] = '\0';
}

static struct answer_secret going_out; /* locked in memory */

void broker_lock_requests(void)
{
    sodium_mlock(&going_out, sizeof going_out);
}

/* The credentials of one request, each before the answer; what they are of, for the log. */
static void send_secrets(struct broker *b, const struct flow *f, const struct ask_request *ask, char *reason, size_t cap, bool send)
{
    struct answer_secret *a = &going_out;
    const char *service;
    for (unsigned i = 0; ask->tls && broker_secrets_for(b->secrets, f->host, f->port, ask->path, ask->bearer, i, a, &service); i++) {
        size_t n = strlen(reason);
        a->id = ask->id;
        a->request = ask->request;
        if (send)
            broker_send(b, a, sizeof *a, -1);
        else if (a->value[0])
            snprintf(reason + n, cap - n, "%s%.40s", n ? ", " : "with the credential of ", service);
        explicit_bzero(a, sizeof *a);
    }
}

/* A request that is under way, after the rules have changed: a download, events, a WebSocket.  What they now deny ends. */
static void review_request(struct broker *b, struct flow *f, const struct ask_request *ask, const char *path)
{
    struct decision d, host;
    policy_decide_request(b->policy, f->host, f->port, ask->method, ask->path, time(NULL), &d);
    broker_decide(b, f, &host);
    bool granted = f->granted && !(d.rule && d.rule->deny) && !policy_error(b->policy);
    if ((!d.allow && !granted) || (host.http && (ask->ambiguous || ask->override)))
        broker_cut(b, f, d.text, ask->method, path);
}

static bool is_method(const char *s)
{
    size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~");
    return n && !s[n];
}

/* It may be a conversation that quotes the guest's variables, and says so with each of its requests. */
static void content_reason(const struct broker *b, const struct ask_request *ask, char *reason, size_t cap)
{
    char variables[64];
    const char *service = broker_secrets_tagged(b->secrets, ask->content, variables, sizeof variables);
    snprintf(reason, cap, "its content carries the sentinel of %.32s%s%s%s, which %s: take it out of what is sent, or begin a conversation without it",
             service ? service : "a secret that went", variables[0] ? " (" : "", variables, variables[0] ? ")" : "",
             ask->tls ? "does not belong to this host" : "must not go unencrypted");
}

/* One request of an intercepted connection.  Written down before it is answered, as everything is. */
void broker_judge(struct broker *b, const struct ask_request *ask)
{
    struct flow *f = broker_find(b, ask->id);
    struct answer a = {.id = ask->id, .kind = ANSWER_REQUEST, .verdict = VERDICT_DENY, .request = ask->request};
    struct decision d = {0};
    char path[ASK_PATH_MAX + 1], reason[256] = "";
    bool alert = false;
    if (!f || f->fd < 0 || !f->is_name || f->cut || ask->path_len > ASK_PATH_MAX || ask->path[ask->path_len] != '\0' ||
        ask->method[ASK_METHOD_MAX] != '\0' || strlen(ask->path) != ask->path_len || !is_method(ask->method)) {
        log_rated(&b->bad_ask, 5, "a malformed request of net");
        broker_send_answer(b, &a, -1);
        return;
    }
    sanitize_line(path, sizeof path, ask->path, ask->path_len);
    if (ask->again) {
        review_request(b, f, ask, path);
        return;
    }
    policy_decide_request(b->policy, f->host, f->port, ask->method, ask->path, time(NULL), &d);
    struct decision host;
    broker_decide(b, f, &host);
    if (f->granted && !d.allow && !(d.rule && d.rule->deny) && !policy_error(b->policy)) {
        d.allow = true; /* the connection was let through, and with it what it was for */
        snprintf(d.text, sizeof d.text, "%s", f->rule);
    }
    if (d.allow && host.http && (ask->ambiguous || ask->override)) {
        /* A rule that speaks of methods or paths allows nothing that servers read in more than one way. */
        d.allow = false;
        snprintf(reason, sizeof reason, "%s", ask->ambiguous ? "servers may read its path in more than one way"
                                                             : "it asks the server to take another method, path or host for it");
    }
    const char *misplaced = broker_secrets_misplaced(b->secrets, ask->sentinels, f->host, f->port, ask->tls);
    if (misplaced) {
        d.allow = false;
        alert = true;
        snprintf(reason, sizeof reason, "it carries the sentinel of %.60s%s", misplaced,
                 ask->tls ? ", which does not belong to this host" : ", and is not encrypted");
    }
    if (ask->content) {
        d.allow = false;
        alert = true;
        content_reason(b, ask, reason, sizeof reason);
    }
    const char *signs = NULL;
    unsigned index = 0;
    enum broker_sign_in sign_in = d.allow && ask->tls ? broker_secrets_sign_in(b->secrets, f->host, f->port, ask->ambiguous ? NULL : ask->path, &signs,
                                                                               &index) : SIGN_IN_NONE;
    if (sign_in == SIGN_IN_OTHER) {
        d.allow = false;
        snprintf(reason, sizeof reason, ask->ambiguous ? "its path cannot be told, and %.60s gives out tokens at this host"
                                                       : "a credential of %.60s is set on the host, and is used as it is", signs);
    }
    const char *lends = d.allow && ask->tls ? broker_secrets_lends(b->secrets, f->host, f->port, ask->path, ask->ambiguous) : NULL;
    if (lends && !broker_secrets_lends_by(b->secrets, lends, f->host, f->port, ask->method)) {
        d.allow = false;
        snprintf(reason, sizeof reason, "a token of %.60s is not asked for by %.31s, which may bear another account's credential", lends, ask->method);
    }
    if (d.allow && sign_in == SIGN_IN_TAKE)
        snprintf(reason, sizeof reason, "a sign-in to %.60s: its tokens stay on the host", signs);
    else if (d.allow && sign_in == SIGN_IN_HELD)
        snprintf(reason, sizeof reason, "answered by sbx: the host is signed in to %.60s", signs);
    else if (d.allow)
        send_secrets(b, f, ask, reason, sizeof reason, false);
    struct decision_row row = {.kind = alert ? "alert" : "request", .flow = f->number, .proto = ask->version == 2 ? "http2" : "http",
                               .host = f->host, .port = f->port, .addr = f->dialled, .method = ask->method,
                               .path = path, .verdict = d.allow ? "allow" : "deny", .rule = d.text, .reason = reason,
                               .count = 1};
    journal_note(b->journal, &row);
    struct judged *g = &b->judged[b->njudged++];
    g->ask = *ask;
    g->answer = a;
    g->sign_in = sign_in;
    g->allow = d.allow;
    g->index = index;
    g->signs = signs;
    if (!d.allow) {
        snprintf(g->answer.rule, sizeof g->answer.rule, "%s%.*s", reason[0] ? "sbx, because " : "", (int)sizeof g->answer.rule - 14, reason[0] ? reason : d.text);
        if (!reason[0])
            request_hint(b, f, ask, &d, g->answer.hint, sizeof g->answer.hint);
    }
}

/* What was judged is in the log: now it is answered. */
static void answer_request(struct broker *b, struct judged *g, bool written)
{
    struct flow *f = broker_find(b, g->ask.id);
    struct answer *a = &g->answer;
    if (!f || f->fd < 0)
        return; /* it ended meanwhile */
    if (!g->allow || !written) {
        broker_count_denied(b, &b->denied, 1);
        if (!written) {
            snprintf(a->rule, sizeof a->rule, "a decision log that cannot be written");
            a->hint[0] = '\0';
        }
        b->ready[b->nready++] = a;
        return;
    }
    if (g->sign_in == SIGN_IN_TAKE) {
        a->flags |= ANSWER_MINT;
        snprintf(f->mint, sizeof f->mint, "%.63s", g->signs);
    } else if (g->sign_in == SIGN_IN_HELD) {
        a->flags |= ANSWER_SIGNED_IN;
        a->error = (int32_t)g->index;
    } else {
        const char *lends = g->ask.tls ? broker_secrets_lends(b->secrets, f->host, f->port, g->ask.path, g->ask.ambiguous) : NULL;
        char reason[200] = "";
        if (lends) {
            a->flags |= ANSWER_MINT;
            snprintf(f->lends, sizeof f->lends, "%.63s", lends);
        }
        send_secrets(b, f, &g->ask, reason, sizeof reason, true);
    }
    unsigned now = broker_secrets_changes(b->secrets);
    if (f->searched_at != now || f->searched_tls != (g->ask.tls != 0)) {
        f->elsewhere = broker_secrets_elsewhere(b->secrets, f->host, f->port, g->ask.tls);
        f->searched_at = now;
        f->searched_tls = g->ask.tls != 0;
    }
    a->elsewhere = f->elsewhere;
    a->verdict = VERDICT_ALLOW;
    b->ready[b->nready++] = a;
}

/* All that came with one wake is written with one stroke, and answered. */
void broker_answer_requests(struct broker *b)
{
    if (b->njudged == 0)
        return;
    bool written = journal_keep(b->journal) == 0;
    for (unsigned i = 0; i < b->njudged; i++)
        answer_request(b, &b->judged[i], written);
    broker_send_ready(b);
    b->njudged = 0;
    journal_kept(b->journal);
}

/* Tokens that an answer to the sandbox gave out.  They go into a pipe that only `sbx secret take` reads, which the
 * supervisor starts: the broker does not write the store, and the supervisor does not see them. */
void broker_mint(struct broker *b, struct ask_mint *m)
{
    struct flow *f = broker_find(b, m->id);
    int waiting = 0;
    if (f && f->lends[0] && !f->mint[0]) {
        if (!broker_secrets_lend(b->secrets, f->lends, m))
            log_rated(&b->bad_ask, 5, "a token from net that cannot be one");
        broker_tell_sentinels(b); /* and of those that ran out */
        return;
    }
    char *line = f && f->mint[0] ? broker_secrets_take(b->secrets, f->mint, m) : NULL;
    if (!line) {
        log_rated(&b->bad_ask, 5, "tokens from net that nobody asked for");
        return;
    }
    size_t n = strlen(line);
    struct decision_row row = {.kind = "policy", .flow = f->number, .proto = "other", .host = f->host, .port = f->port, .verdict = "allow",
                               .rule = "secrets", .reason = "the sandbox signed in: the tokens are kept on the host", .count = 1};
    journal_write(b->journal, &row);
    if (b->mint_fd < 0 || ioctl(b->mint_fd, FIONREAD, &waiting) < 0 || (size_t)waiting + n > MINT_PIPE_MAX ||
        write(b->mint_fd, line, n) != (ssize_t)n)
        log_line("the tokens of a sign-in to %s cannot be kept: they are good until this sandbox stops", f->mint);
    else
        link_send_ctrl(linkev_link(b->supervisor), json_pack("{s:s}", "op", "minted"));
    f->mint[0] = '\0';
    sodium_free(line);
    broker_tell_secrets(b, "");
}

void broker_leaf(struct broker *b, const struct ask_leaf *ask)
{
    struct answer_leaf a = {.id = ask->id, .kind = ANSWER_LEAF, .verdict = VERDICT_DENY};
    struct flow *f = broker_find(b, ask->id);
    const char *name = f && f->fd >= 0 && f->is_name ? f->host : NULL;
    for (unsigned i = 0; !name && i < REFUSED_KEPT; i++)
        if (b->refusals[i].id == ask->id && b->refusals[i].name[0])
            name = b->refusals[i].name;
    if (name)
        a.len = (uint16_t)broker_tls_leaf(b->tls, name, ask->point, a.der);
    const char *trouble = broker_tls_trouble(b->tls);
    if (a.len) {
        a.verdict = VERDICT_ALLOW;
    } else if (f && name && trouble[0]) { /* net ends the connection */
        char reason[900];
        snprintf(reason, sizeof reason, "its TLS cannot be looked into: %s", trouble);
        struct decision_row row = {.kind = "mismatch", .flow = f->number, .proto = "tcp", .host = f->host, .port = f->port, .addr = f->dialled,
                                   .verdict = "fail", .rule = f->rule, .reason = reason, .count = 1};
        b->failed++;
        journal_refusal(b->journal, &row);
    }
    broker_send(b, &a, sizeof a, -1);
}
