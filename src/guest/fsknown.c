/* Theory of operation.  Under emulation a question to the host costs what some thousands of lines of a program cost, and
 * of the seven that the kernel has for each file of an archive three need none.  So the server says beforehand what is
 * asked next (core/fsport.h): after each change in a directory, the directory's attributes; after each write, the file's.
 * And a directory that was made here is empty: a name that nobody here put there is not in it, until the host tells of a
 * change.
 *
 * What is known here is what the kernel would keep itself, were there a way to tell it, and it goes in the same order: the
 * host's notifications pass through fsknown_told before the kernel has them, and any of them makes everything unknown.
 * What the server says of a node comes before the reply to the request that changed it.
 *
 * Nobody waits for the end of an open file (RELEASE), nor for nodes that are forgotten: they go with the next message.
 * When a file was changed that is gone, and that nobody has open, is to be seen by nobody.  No other request may be
 * answered before the server had it: it tells the host's changes from the guest's own by that nobody was told yet of what
 * it is just doing (vm/fs_watch.h). */
#include "guest/fsknown.h"

#include <string.h>
#include <time.h>

#include "core/fsport.h"

#define ATTRS 256u
#define DIRS 1024u
#define LOST 64u /* the kernel asks at once */
#define NAMES 32768u /* beyond three quarters all are forgotten */
#define HOLDS_S 10   /* what the server said beforehand is for now */
#define ABSENT_S 1   /* that a name is absent is asked again soon: it costs little here */

static struct {
    uint64_t node;
    int64_t said_s;
    struct fuse_attr_out attr;
} attrs[ATTRS];
static uint64_t made[DIRS], taken[NAMES], lost[LOST];
static unsigned ntaken;

static unsigned slot(uint64_t node, unsigned of)
{
    return (unsigned)((node * 0x9e3779b97f4a7c15ull) >> 40) % of;
}

static int64_t now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return t.tv_sec;
}

static void forget_attrs(void)
{
    for (unsigned i = 0; i < ATTRS; i++)
        attrs[i].node = 0;
}

static void forget_names(void)
{
    memset(made, 0, sizeof made);
    if (ntaken)
        memset(taken, 0, sizeof taken);
    ntaken = 0;
}

static struct fuse_attr_out *attr_of(uint64_t node)
{
    unsigned i = slot(node, ATTRS);
    return attrs[i].node == node && now_s() - attrs[i].said_s < HOLDS_S ? &attrs[i].attr : NULL;
}

/* ---- names in directories that were made here ---- */

static bool is_made(uint64_t dir)
{
    return made[slot(dir, DIRS)] == dir;
}

/* Where the number of a name stands, or would.  Where two have the same one, the host is asked in vain. */
static uint64_t *place(uint64_t dir, const char *name, size_t len, uint64_t *number)
{
    uint64_t h = dir ^ 0xcbf29ce484222325ull;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)name[i]) * 0x100000001b3ull;
    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15ull;
    *number = h + (h == 0);
    unsigned i = (unsigned)(h >> 40) % NAMES;
    while (taken[i] && taken[i] != *number)
        i = (i + 1) % NAMES;
    return &taken[i];
}

static void add_name(uint64_t dir, const char *name, size_t len)
{
    uint64_t number;
    if (!is_made(dir))
        return;
    uint64_t *at = place(dir, name, len, &number);
    if (*at)
        return;
    if (ntaken >= NAMES / 4 * 3) {
        forget_names();
        return;
    }
    *at = number;
    ntaken++;
}

static bool is_absent(uint64_t dir, const char *name, size_t len)
{
    uint64_t number;
    return is_made(dir) && !*place(dir, name, len, &number);
}

/* ---- messages ---- */

static unsigned answer_with(uint8_t *answer, uint64_t unique, const void *body, size_t len)
{
    struct fuse_out_header o = {.len = (uint32_t)(sizeof o + len), .unique = unique};
    memcpy(answer, &o, sizeof o);
    if (len)
        memcpy(answer + sizeof o, body, len);
    return FSKNOWN_ANSWER;
}

static unsigned look_up(const struct fuse_in_header *h, const char *name, size_t len, uint8_t *answer)
{
    const struct fuse_entry_out none = {.entry_valid = ABSENT_S};
    if (!is_absent(h->nodeid, name, len))
        return FSKNOWN_SEND;
    return answer_with(answer, h->unique, &none, sizeof none);
}

/* The kernel keeps times of its own (write-back), and writes them down with each name that a file loses, the last one as
 * well.  It takes nothing from the answer. */
static unsigned set_attr(const struct fuse_in_header *h, const char *body, size_t len, uint8_t *answer)
{
    const struct fuse_attr_out none = {0};
    struct fuse_setattr_in to;
    uint64_t *at = &lost[slot(h->nodeid, LOST)];
    if (*at != h->nodeid || len < sizeof to)
        return FSKNOWN_SEND;
    memcpy(&to, body, sizeof to);
    if (to.valid & ~(uint32_t)(FATTR_MTIME | FATTR_CTIME))
        return FSKNOWN_SEND;
    *at = 0;
    return answer_with(answer, h->unique, &none, sizeof none);
}

/* The name that a message brings into a directory, `fixed` bytes into its body, behind `before` other names. */
static void makes(uint64_t dir, const char *body, size_t len, size_t fixed, unsigned before)
{
    const char *end = body + len, *p = body + (fixed < len ? fixed : len), *nul;
    while ((nul = memchr(p, 0, (size_t)(end - p)))) {
        if (before-- == 0) {
            add_name(dir, p, (size_t)(nul - p));
            return;
        }
        p = nul + 1;
    }
}

unsigned fsknown_asked(uint8_t *msg, size_t len, uint8_t answer[FSKNOWN_ANSWER_MAX])
{
    struct fuse_in_header h;
    struct fuse_rename_in to;
    const char *body = (const char *)msg + sizeof h;
    if (len < sizeof h)
        return FSKNOWN_SEND;
    memcpy(&h, msg, sizeof h);
    len -= sizeof h;
    switch (h.opcode) {
    case FUSE_LOOKUP:
        return len ? look_up(&h, body, len - 1, answer) : FSKNOWN_SEND;
    case FUSE_GETATTR: {
        const struct fuse_attr_out *a = attr_of(h.nodeid);
        return a ? answer_with(answer, h.unique, a, sizeof *a) : FSKNOWN_SEND;
    }
    case FUSE_SETATTR:
        return set_attr(&h, body, len, answer);
    case FUSE_RELEASE:
        msg[FSPORT_QUIET_AT] = 1;
        return answer_with(answer, h.unique, NULL, 0) | FSKNOWN_SEND | FSKNOWN_LATER;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
        return FSKNOWN_SEND | FSKNOWN_LATER;
    case FUSE_CREATE:
        makes(h.nodeid, body, len, sizeof(struct fuse_create_in), 0);
        break;
    case FUSE_MKNOD:
        makes(h.nodeid, body, len, sizeof(struct fuse_mknod_in), 0);
        break;
    case FUSE_MKDIR:
        makes(h.nodeid, body, len, sizeof(struct fuse_mkdir_in), 0);
        break;
    case FUSE_SYMLINK:
        makes(h.nodeid, body, len, 0, 0);
        break;
    case FUSE_LINK:
        makes(h.nodeid, body, len, sizeof(struct fuse_link_in), 0);
        break;
    case FUSE_RENAME:
    case FUSE_RENAME2:
        if (len < sizeof to)
            break;
        memcpy(&to, body, sizeof to);
        makes(to.newdir, body, len, h.opcode == FUSE_RENAME ? sizeof to : sizeof(struct fuse_rename2_in), 1);
        break;
    }
    return FSKNOWN_SEND;
}

bool fsknown_told(const uint8_t *msg, size_t len)
{
    struct fuse_out_header o;
    struct fsport_know k;
    if (len < sizeof o)
        return false;
    memcpy(&o, msg, sizeof o);
    if (o.error != FSPORT_KNOW) { /* the host changed something */
        forget_attrs();
        forget_names();
        return false;
    }
    if (len < sizeof o + sizeof k)
        return true;
    memcpy(&k, msg + sizeof o, sizeof k);
    if (k.flags & FSPORT_KNOW_OTHERS)
        forget_attrs();
    unsigned i = slot(k.node, ATTRS);
    if (k.flags & FSPORT_KNOW_ATTR) {
        attrs[i].node = k.node;
        attrs[i].said_s = now_s();
        attrs[i].attr = k.attr;
    } else if (attrs[i].node == k.node) {
        attrs[i].node = 0;
    }
    if (k.flags & FSPORT_KNOW_EMPTY)
        made[slot(k.made, DIRS)] = k.made;
    if (k.flags & FSPORT_KNOW_GONE)
        lost[slot(k.gone, LOST)] = k.gone;
    return true;
}
