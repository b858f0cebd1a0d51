#include "vm/fs_rules.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

/* The three letters behind the last dot, as a short name has them; where a pattern leaves them open, any. */
static bool short_extension(const char *part, const char *extension)
{
    const char *dot = strrchr(part, '.');
    if (strchr(dot ? dot : part, '*'))
        return strlen(extension) <= 3 && !strpbrk(extension, ".~");
    size_t n = dot ? strlen(dot + 1) : 0;
    return strlen(extension) == (n < 3 ? n : 3) && strncasecmp(dot ? dot + 1 : "", extension, n < 3 ? n : 3) == 0;
}

/* GIT~1 of .git, CONFIG~1.WOR of config.worktree; where there are many, two letters of it and a sum (GI7D29~1).  Of eight and
 * three characters at most: go.mod.~1~ is none.  What it begins with is the other's first letter or digit. */
static bool short_name(const char *part, const char *name)
{
    size_t base = strcspn(name, "."), tilde = strcspn(name, "~");
    const char *extension = name[base] ? name + base + 1 : "";
    while (*part == '.')
        part++;
    bool tells = (*part >= '0' && *part <= '9') || (lower(*part) >= 'a' && lower(*part) <= 'z');
    if (base > 8 || tilde == 0 || tilde >= base || !*part || (tells && lower(*part) != lower(name[0])))
        return false;
    for (size_t i = tilde + 1; i < base || i == tilde + 1; i++)
        if (name[i] < '0' || name[i] > '9')
            return false;
    return short_extension(part, extension);
}

/* What such a file system compares: without the dots and blanks at its end (FAT drops them), without characters that show
 * nothing, and with the two signs that are letters of ASCII in another case (ext4's casefold; git: is_hfs_dotgit).  A name
 * of nothing else stays what it is. */
static const char *plain_name(const char *name, char buf[NAME_MAX + 1])
{
    static const struct {
        const char *bytes, *is;
    } signs[] = {{"\u00ad", ""}, {"\u034f", ""}, {"\u061c", ""}, {"\u180e", ""}, {"\ufeff", ""}, {"\u212a", "k"}, {"\u017f", "s"}};
    size_t n = 0, len = strlen(name);
    for (size_t i = 0; i < len && n < NAME_MAX;) {
        const unsigned char *p = (const unsigned char *)name + i;
        size_t k = 0, count = sizeof signs / sizeof *signs;
        /* U+180B to 180F, 200B to 200F, 202A to 202E, 2060 to 206F, FE00 to FE0F: invisible ones of three bytes. */
        if ((p[0] == 0xe1 && p[1] == 0xa0 && p[2] >= 0x8b && p[2] <= 0x8f) ||
            (p[0] == 0xe2 && p[1] == 0x80 && ((p[2] >= 0x8b && p[2] <= 0x8f) || (p[2] >= 0xaa && p[2] <= 0xae))) ||
            (p[0] == 0xe2 && p[1] == 0x81 && p[2] >= 0xa0 && p[2] <= 0xaf) ||
            (p[0] == 0xef && p[1] == 0xb8 && p[2] >= 0x80 && p[2] <= 0x8f)) {
            i += 3;
            continue;
        }
        while (k < count && strncmp(name + i, signs[k].bytes, strlen(signs[k].bytes)) != 0)
            k++;
        if (k == count) {
            buf[n++] = name[i++];
        } else {
            if (signs[k].is[0])
                buf[n++] = signs[k].is[0];
            i += strlen(signs[k].bytes);
        }
    }
    while (n && (buf[n - 1] == '.' || buf[n - 1] == ' '))
        n--;
    buf[n] = '\0';
    return n ? buf : name;
}

/* What may be written after all has to be spelled out: another form of a name could be another's. */
static bool names(const struct fs_rules *r, const struct rule *rule, unsigned k, const char *name, const char *plain)
{
    const char *part = rule->part[k];
    if (!r->ignore_case || rule->kind == FS_RULE_EXCEPT)
        return glob(part, name, r->ignore_case);
    return glob(part, plain, true) || glob(part, name, true) || short_name(part, plain);
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
    char buf[NAME_MAX + 1];
    const char *plain = r->ignore_case ? plain_name(name, buf) : name;
    for (unsigned i = 0; i < r->n; i++) {
        const struct rule *rule = &r->rule[i];
        uint32_t end = 1u << rule->parts, to = at->set[i] & end; /* beneath what matched all matches */
        for (unsigned k = 0; k < rule->parts; k++)
            if (at->set[i] & 1u << k) {
                if (any(rule->part[k]))
                    to |= 1u << k;
                else if (names(r, rule, k, name, plain))
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
