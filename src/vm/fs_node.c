#include "vm/fs_node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BUCKETS (1u << 18)

static struct fs_folder folders[FS_FOLDERS_MAX];
static struct node *tops[FS_FOLDERS_MAX];
static unsigned nfolders;

static struct node **table; /* by index */
static uint32_t *generations, *free_list;
static uint32_t table_cap, table_used, free_count, count;
static struct node **bucket;
static struct node *lru_head, *lru_tail; /* nodes with a descriptor that may be closed; head: oldest */
static unsigned fds, fds_max;

static void (*freed)(struct node *n);

void node_set_freed(void (*fn)(struct node *n))
{
    freed = fn;
}

static uint32_t hash(dev_t dev, ino_t ino, int64_t born)
{
    uint64_t h = (uint64_t)ino * 0x9e3779b97f4a7c15ull ^ (uint64_t)dev ^ (uint64_t)born * 0xff51afd7ed558ccdull;
    return (uint32_t)(h >> 40) & (BUCKETS - 1);
}

static void lru_remove(struct node *n)
{
    if (!n->in_lru)
        return;
    n->in_lru = false;
    if (n->lru_prev)
        n->lru_prev->lru_next = n->lru_next;
    else
        lru_head = n->lru_next;
    if (n->lru_next)
        n->lru_next->lru_prev = n->lru_prev;
    else
        lru_tail = n->lru_prev;
    n->lru_prev = n->lru_next = NULL;
}

static void lru_append(struct node *n)
{
    n->in_lru = true;
    n->lru_prev = lru_tail;
    n->lru_next = NULL;
    if (lru_tail)
        lru_tail->lru_next = n;
    else
        lru_head = n;
    lru_tail = n;
}

static void drop_fd(struct node *n)
{
    if (n->fd < 0 || !n->parent)
        return;
    lru_remove(n);
    close(n->fd);
    n->fd = -1;
    fds--;
}

/* May its descriptor be closed and opened again later? Not if no name leads to it. */
static bool can_close(const struct node *n)
{
    return n->parent && !n->unlinked && n->pins == 0;
}

static void lru_touch(struct node *n)
{
    lru_remove(n);
    if (n->fd >= 0 && can_close(n))
        lru_append(n);
}

static void unhash(struct node *n)
{
    if (!n->hashed)
        return;
    struct node **p = &bucket[hash(n->dev, n->ino, n->born_ns)];
    while (*p != n)
        p = &(*p)->hash_next;
    *p = n->hash_next;
    n->hashed = false;
}

static struct node *new_node(void)
{
    uint32_t index;
    if (count >= FS_NODES_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    if (free_count == 0 && table_used == table_cap) {
        uint32_t cap = table_cap ? table_cap * 2 : 1024;
        struct node **t = realloc(table, cap * sizeof *t);
        if (t)
            table = t;
        uint32_t *g = realloc(generations, cap * sizeof *g);
        if (g)
            generations = g;
        uint32_t *f = realloc(free_list, cap * sizeof *f);
        if (f)
            free_list = f;
        if (!t || !g || !f) {
            errno = ENOMEM;
            return NULL;
        }
        memset(generations + table_cap, 0, (cap - table_cap) * sizeof *g);
        table_cap = cap;
    }
    struct node *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    index = free_count ? free_list[--free_count] : table_used++;
    n->index = index;
    n->generation = ++generations[index];
    n->fd = n->wd = -1;
    table[index] = n;
    count++;
    return n;
}

/* Frees nodes that neither the guest nor a child refers to, up the tree. */
static void collect(struct node *n)
{
    while (n && n->parent && n->lookups == 0 && n->children == 0 && n->pins == 0) {
        struct node *parent = n->parent;
        if (freed)
            freed(n);
        drop_fd(n);
        unhash(n);
        table[n->index] = NULL;
        free_list[free_count++] = n->index;
        count--;
        free(n->name);
        free(n);
        parent->children--;
        n = parent;
    }
}

int nodes_init(const struct fs_folder *f, unsigned n, unsigned max)
{
    bucket = calloc(BUCKETS, sizeof *bucket);
    if (!bucket)
        return -1;
    fds_max = max;
    for (unsigned i = 0; i < n && i < FS_FOLDERS_MAX; i++) {
        struct stat st;
        folders[i] = f[i];
        struct node *top = new_node();
        if (!top || fstat(f[i].fd, &st) < 0)
            return -1;
        top->fd = f[i].fd;
        top->folder = (uint8_t)i;
        top->dev = st.st_dev;
        top->ino = st.st_ino;
        top->type = S_IFDIR;
        top->lookups = 1; /* never goes */
        tops[i] = top;
        nfolders++;
    }
    return 0;
}

struct node *node_get(fuse_ino_t ino)
{
    uint32_t index = (uint32_t)ino, generation = (uint32_t)(ino >> 32);
    if (index >= table_used || !table[index] || table[index]->generation != generation)
        return NULL;
    return table[index];
}

fuse_ino_t node_number(const struct node *n)
{
    return (fuse_ino_t)n->generation << 32 | n->index;
}

struct node *node_top(unsigned folder)
{
    return folder < nfolders ? tops[folder] : NULL;
}

const struct fs_folder *node_folder(const struct node *n)
{
    return &folders[n->folder];
}

static void to_stat(const struct statx *x, struct stat *st, int64_t *born)
{
    memset(st, 0, sizeof *st);
    st->st_dev = makedev(x->stx_dev_major, x->stx_dev_minor);
    st->st_ino = x->stx_ino;
    st->st_mode = x->stx_mode;
    st->st_nlink = x->stx_nlink;
    st->st_uid = x->stx_uid;
    st->st_gid = x->stx_gid;
    st->st_rdev = makedev(x->stx_rdev_major, x->stx_rdev_minor);
    st->st_size = (off_t)x->stx_size;
    st->st_blksize = (blksize_t)x->stx_blksize;
    st->st_blocks = (blkcnt_t)x->stx_blocks;
    st->st_atim = (struct timespec){x->stx_atime.tv_sec, x->stx_atime.tv_nsec};
    st->st_mtim = (struct timespec){x->stx_mtime.tv_sec, x->stx_mtime.tv_nsec};
    st->st_ctim = (struct timespec){x->stx_ctime.tv_sec, x->stx_ctime.tv_nsec};
    if (born)
        *born = x->stx_mask & STATX_BTIME ? x->stx_btime.tv_sec * 1000000000ll + x->stx_btime.tv_nsec : 0;
}

int node_stat(struct node *n, const char *name, struct stat *st, int64_t *born)
{
    struct statx x;
    int fd = node_fd(n);
    if (fd < 0)
        return -fd;
    if (statx(fd, name ? name : "", AT_SYMLINK_NOFOLLOW | (name ? 0 : AT_EMPTY_PATH) | AT_NO_AUTOMOUNT,
              STATX_BASIC_STATS | STATX_BTIME, &x) < 0)
        return errno;
    to_stat(&x, st, born);
    return 0;
}

static int reopen(struct node *n, unsigned depth)
{
    if (n->fd >= 0) {
        lru_touch(n);
        return n->fd;
    }
    if (n->unlinked || depth > FS_DEPTH_MAX)
        return -ESTALE;
    int at = reopen(n->parent, depth + 1);
    if (at < 0)
        return at;
    while (fds >= fds_max && lru_head) {
        /* The oldest may be the very parent: its turn comes when it is the oldest and not in use here. */
        struct node *old = lru_head;
        if (old->fd == at) {
            lru_touch(old);
            if (lru_head == old)
                break;
            continue;
        }
        drop_fd(old);
    }
    int fd = openat(at, n->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESTALE : -errno;
    struct statx x;
    struct stat st;
    int64_t born;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &x) < 0) {
        int why = errno;
        close(fd);
        return -why;
    }
    to_stat(&x, &st, &born);
    if (st.st_dev != n->dev || st.st_ino != n->ino || (st.st_mode & S_IFMT) != n->type || born != n->born_ns) {
        close(fd);
        return -ESTALE;
    }
    n->fd = fd;
    fds++;
    lru_touch(n);
    return fd;
}

int node_fd(struct node *n)
{
    return reopen(n, 0);
}

static bool is_same(const struct node *n, unsigned folder, const struct stat *st, int64_t born)
{
    return n->dev == st->st_dev && n->ino == st->st_ino && n->born_ns == born && n->folder == folder &&
           n->type == (st->st_mode & S_IFMT);
}

static struct node *current(unsigned folder, const struct stat *st, int64_t born)
{
    struct node *n = bucket[hash(st->st_dev, st->st_ino, born)];
    while (n && (n->retired || !is_same(n, folder, st, born)))
        n = n->hash_next;
    return n;
}

struct node *node_known_child(struct node *parent, const char *name)
{
    struct stat st;
    int64_t born;
    return node_stat(parent, name, &st, &born) == 0 ? current(parent->folder, &st, born) : NULL;
}

void node_each_known(struct node *parent, const char *name, void (*fn)(struct node *n, const struct stat *st, void *arg),
                     void *arg)
{
    struct stat st;
    int64_t born;
    if (node_stat(parent, name, &st, &born) != 0)
        return;
    for (struct node *n = bucket[hash(st.st_dev, st.st_ino, born)]; n; n = n->hash_next)
        if (is_same(n, parent->folder, &st, born))
            fn(n, &st, arg);
}

void node_retire(struct node *n)
{
    n->retired = n->type == S_IFREG;
}

struct node *node_lookup(struct node *parent, const char *name, struct stat *st)
{
    int64_t born;
    int why = node_stat(parent, name, st, &born);
    if (why) {
        errno = why;
        return NULL;
    }
    uint32_t h = hash(st->st_dev, st->st_ino, born);
    struct node *n = current(parent->folder, st, born);
    if (n) {
        /* Found under another name (a hard link, or the host renamed it): the newest is the one that holds. */
        if (n->parent != parent || strcmp(n->name, name) != 0)
            node_moved(n, parent, name);
        n->lookups++;
        return n;
    }
    n = new_node();
    char *copy = n ? strdup(name) : NULL;
    if (!copy) {
        if (n) {
            table[n->index] = NULL;
            free_list[free_count++] = n->index;
            count--;
            free(n);
        }
        errno = ENOMEM;
        return NULL;
    }
    n->name = copy;
    n->parent = parent;
    parent->children++;
    n->folder = parent->folder;
    n->dev = st->st_dev;
    n->ino = st->st_ino;
    n->born_ns = born;
    n->type = st->st_mode & S_IFMT;
    n->lookups = 1;
    for (struct node *old = bucket[h]; old; old = old->hash_next)
        if (is_same(old, parent->folder, st, born))
            old->twin = n->twin = true;
    n->hash_next = bucket[h];
    bucket[h] = n;
    n->hashed = true;
    return n;
}

void node_forget(struct node *n, uint64_t c)
{
    if (!n->parent)
        return;
    n->lookups = c > n->lookups ? 0 : n->lookups - c;
    collect(n);
}

void node_pin(struct node *n)
{
    n->pins++;
    lru_remove(n);
}

void node_unpin(struct node *n)
{
    n->pins--;
    lru_touch(n);
    collect(n);
}

static bool is_above(const struct node *n, const struct node *below)
{
    for (; below; below = below->parent)
        if (below == n)
            return true;
    return false;
}

void node_moved(struct node *n, struct node *parent, const char *name)
{
    if (!n->parent || is_above(n, parent))
        return;
    char *copy = strdup(name);
    if (!copy)
        return;
    struct node *old = n->parent;
    free(n->name);
    n->name = copy;
    n->unlinked = false;
    lru_touch(n);
    if (old != parent) {
        n->parent = parent;
        parent->children++;
        old->children--;
        collect(old);
    }
}

struct node *node_leaving(struct node *parent, const char *name)
{
    struct node *n = node_known_child(parent, name);
    if (n) {
        node_fd(n);
        node_pin(n);
    }
    return n;
}

void node_left(struct node *n, struct node *parent, const char *name, bool left, bool last)
{
    if (!n)
        return;
    if (left && (last || (n->parent == parent && strcmp(n->name, name) == 0)))
        n->unlinked = true;
    if (left && last) /* the host may give its number to another file at once, in the same tick of the clock */
        unhash(n);
    node_unpin(n);
}

unsigned nodes_count(void)
{
    return count;
}

void nodes_each(void (*fn)(struct node *n, void *arg), void *arg)
{
    for (uint32_t i = 0; i < table_used; i++)
        if (table[i])
            fn(table[i], arg);
}

void nodes_finish(void)
{
    for (uint32_t i = 0; i < table_used; i++) {
        struct node *n = table[i];
        if (!n)
            continue;
        if (freed)
            freed(n);
        if (n->fd >= 0 && n->parent)
            close(n->fd);
        free(n->name);
        free(n);
    }
    free(table);
    free(generations);
    free(free_list);
    free(bucket);
    table = NULL;
    bucket = NULL;
    generations = free_list = NULL;
    table_cap = table_used = free_count = count = nfolders = fds = 0;
    lru_head = lru_tail = NULL;
}
