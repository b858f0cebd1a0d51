#include "vm/fs_rules.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct rule {
    enum fs_rule_kind kind;
    char *text;                                /* components, each NUL-terminated */
    const char *part[FS_RULE_COMPONENTS_MAX];
    unsigned parts;
};

struct fs_rules {
    struct rule rule[FS_RULES_MAX];
    unsigned n;
    bool ignore_case;
};

struct fs_rules *fs_rules_new(void)
{
    return calloc(1, sizeof(struct fs_rules));
}

void fs_rules_free(struct fs_rules *r)
{
    for (unsigned i = 0; r && i < r->n; i++)
        free(r->rule[i].text);
    free(r);
}

bool fs_rules_empty(const struct fs_rules *r)
{
    return !r || r->n == 0;
}

void fs_rules_ignore_case(struct fs_rules *r)
{
    r->ignore_case = true;
}

int fs_rules_add(struct fs_rules *r, enum fs_rule_kind kind, const char *pattern, struct err *e)
{
    if (r->n == FS_RULES_MAX)
        return err_set(e, STATUS_USAGE, "more than %u rules on paths for one folder", FS_RULES_MAX);
    struct rule *rule = &r->rule[r->n];
    *rule = (struct rule){.kind = kind, .text = strdup(pattern)};
    if (!rule->text)
        return err_set(e, STATUS_FAILED, "out of memory");
    for (char *p = rule->text, *next; p; p = next) {
        next = strchr(p, '/');
        if (next)
            *next++ = '\0';
        if (next && !*next) /* "node_modules/" is what people write for a directory */
            next = NULL;
        if (!*p || strcmp(p, ".") == 0 || strcmp(p, "..") == 0 || strlen(p) > NAME_MAX ||
            rule->parts == FS_RULE_COMPONENTS_MAX) {
            free(rule->text);
            return err_set(e, STATUS_USAGE,
                           "\"%s\" is no pattern for a path: write it from the folder's top, without \".\" and \"..\", "
                           "in at most %u parts",
                           pattern, FS_RULE_COMPONENTS_MAX);
        }
        rule->part[rule->parts++] = p;
    }
    r->n++;
    return 0;
}

static bool any(const char *part)
{
    return strcmp(part, "**") == 0;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

static bool glob(const char *p, const char *s, bool ignore_case)
{
    const char *star = NULL, *mark = NULL;
    while (*s) {
        if (*p == '*') {
            star = ++p;
            mark = s;
        } else if (*p == *s || (ignore_case && lower(*p) == lower(*s))) {
            p++;
            s++;
        } else if (star) {
            p = star;
            s = ++mark;
        } else {
            return false;
        }
    }
    while (*p == '*')
        p++;
    return !*p;
}

/* GIT~1 of .git, CONFIG~1.WOR of config.worktree; where there are many, two letters of it and a sum (GI7D29~1).  Of eight and
 * three characters at most: go.mod.~1~ is none. */
static bool short_name(const char *part, const char *name)
{
    size_t base = strcspn(name, "."), tilde = strcspn(name, "~");
    while (*part == '.')
        part++;
    if (base > 8 || tilde == 0 || tilde >= base || !*part || lower(*part) != lower(name[0]))
        return false;
    for (size_t i = tilde + 1; i < base || i == tilde + 1; i++)
        if (name[i] < '0' || name[i] > '9')
            return false;
    return !name[base] || (strlen(name + base + 1) <= 3 && !strpbrk(name + base + 1, ".~"));
}

/* What may be written after all has to be spelled out: a short name could be another's. */
static bool names(const struct fs_rules *r, const struct rule *rule, unsigned k, const char *name)
{
    return glob(rule->part[k], name, r->ignore_case) ||
           (r->ignore_case && rule->kind != FS_RULE_EXCEPT && short_name(rule->part[k], name));
}

/* Bit i: the first i parts are matched.  A `**` may be passed over. */
static uint32_t close_over(const struct rule *rule, uint32_t set)
{
    for (unsigned i = 0; i < rule->parts; i++)
        if ((set & 1u << i) && any(rule->part[i]))
            set |= 1u << (i + 1);
    return set;
}

void fs_rules_top(const struct fs_rules *r, struct fs_rules_at *at)
{
    for (unsigned i = 0; i < r->n; i++)
        at->set[i] = close_over(&r->rule[i], 1);
}

void fs_rules_step(const struct fs_rules *r, struct fs_rules_at *at, const char *name)
{
    for (unsigned i = 0; i < r->n; i++) {
        const struct rule *rule = &r->rule[i];
        uint32_t end = 1u << rule->parts, to = at->set[i] & end; /* beneath what matched all matches */
        for (unsigned k = 0; k < rule->parts; k++)
            if (at->set[i] & 1u << k) {
                if (any(rule->part[k]))
                    to |= 1u << k;
                else if (names(r, rule, k, name))
                    to |= 1u << (k + 1);
            }
        at->set[i] = close_over(rule, to);
    }
}

static bool matched(const struct fs_rules *r, const struct fs_rules_at *at, enum fs_rule_kind kind)
{
    for (unsigned i = 0; i < r->n; i++)
        if (r->rule[i].kind == kind && (at->set[i] & 1u << r->rule[i].parts))
            return true;
    return false;
}

bool fs_rules_hidden(const struct fs_rules *r, const struct fs_rules_at *at)
{
    return matched(r, at, FS_RULE_HIDE);
}

bool fs_rules_readonly(const struct fs_rules *r, const struct fs_rules_at *at)
{
    return matched(r, at, FS_RULE_READONLY) || (matched(r, at, FS_RULE_GUARD) && !matched(r, at, FS_RULE_EXCEPT));
}

bool fs_rules_opens(const struct fs_rules *r, const struct fs_rules_at *at)
{
    if (matched(r, at, FS_RULE_READONLY))
        return false;
    for (unsigned i = 0; i < r->n; i++)
        if (r->rule[i].kind == FS_RULE_EXCEPT && at->set[i])
            return true;
    return false;
}

bool fs_rules_leads(const struct fs_rules *r, const struct fs_rules_at *at)
{
    for (unsigned i = 0; i < r->n; i++) {
        const struct rule *rule = &r->rule[i];
        for (unsigned k = 1; k < rule->parts; k++)
            if ((at->set[i] & 1u << k) && !any(rule->part[k - 1]))
                return true;
    }
    return false;
}

bool fs_rules_keep(const struct fs_rules *r, const struct fs_rules_at *from, const struct fs_rules_at *to)
{
    for (unsigned i = 0; i < r->n; i++) {
        uint32_t end = 1u << r->rule[i].parts;
        bool same = to->set[i] == from->set[i];
        if (r->rule[i].kind == FS_RULE_EXCEPT ? !same : !(to->set[i] & end) && (from->set[i] & ~to->set[i]))
            return false;
    }
    return true;
}
