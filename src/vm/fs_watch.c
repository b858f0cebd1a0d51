#include "vm/fs_watch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "core/log.h"

#define BUCKETS 8192u
#define OWN_MAX 8u
#define MASK                                                                                                           \
    (IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_EXCL_UNLINK)

static struct {
    int fd;
    watch_changed_fn *changed;
    /* By the kernel's number, which only ever grows.  One directory may be two nodes, if one shared folder lies
     * within another: then both have the number. */
    struct node *bucket[BUCKETS];
    unsigned count, max;
    bool full;
    struct {
        struct node *dir;
        char name[NAME_MAX + 1];
    } own[OWN_MAX];
    unsigned nown;
    struct node *own_node;
} w = {.fd = -1};

int watch_init(watch_changed_fn *changed)
{
    unsigned long allowed;
    FILE *f = fopen("/proc/sys/fs/inotify/max_user_watches", "re");
    memset(&w, 0, sizeof w);
    w.changed = changed;
    w.max = FS_WATCHES_MAX;
    if (f && fscanf(f, "%lu", &allowed) == 1 && allowed / FS_WATCHES_PART < w.max)
        w.max = (unsigned)(allowed / FS_WATCHES_PART);
    if (f)
        fclose(f);
    w.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    return w.fd;
}

void watch_finish(void)
{
    if (w.fd >= 0)
        close(w.fd);
    w.fd = -1;
}

unsigned watch_count(void)
{
    return w.count;
}

static struct node **chain(int wd)
{
    return &w.bucket[(unsigned)wd % BUCKETS];
}

bool watch_dir(struct node *dir)
{
    if (dir->wd >= 0)
        return true;
    if (w.full || w.fd < 0)
        return false;
    int fd = node_fd(dir);
    if (fd < 0)
        return false;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int wd = w.count < w.max ? inotify_add_watch(w.fd, path, MASK) : (errno = ENOSPC, -1);
    if (wd < 0) {
        if (errno == ENOSPC || errno == ENOMEM) {
            w.full = true;
            static struct log_rate rate;
            log_rated(&rate, 2, "%u folders are watched, and no more (fs.inotify.max_user_watches, of which a sandbox takes a fourth at most): "
                     "changes that the host makes in others are seen after a second", w.count);
        }
        return false;
    }
    dir->wd = wd;
    dir->wd_next = *chain(wd);
    *chain(wd) = dir;
    w.count++;
    return true;
}

static void unchain(struct node *n)
{
    struct node **p = chain(n->wd);
    while (*p != n)
        p = &(*p)->wd_next;
    *p = n->wd_next;
    n->wd_next = NULL;
    n->wd = -1;
    w.count--;
    w.full = false; /* there is room for another */
    for (unsigned i = 0; i < w.nown; i++)
        if (w.own[i].dir == n)
            w.own[i].dir = NULL;
}

static struct node *first(int wd)
{
    struct node *n = *chain(wd);
    while (n && n->wd != wd)
        n = n->wd_next;
    return n;
}

void watch_drop(struct node *n)
{
    int wd = n->wd;
    if (wd < 0)
        return;
    unchain(n);
    if (!first(wd))
        inotify_rm_watch(w.fd, wd);
}

void watch_own(struct node *dir, const char *name)
{
    if (dir->wd < 0 || w.nown == OWN_MAX)
        return;
    w.own[w.nown].dir = dir;
    snprintf(w.own[w.nown++].name, sizeof w.own[0].name, "%s", name ? name : "");
}

void watch_own_node(struct node *n)
{
    w.own_node = n;
    if (n->parent)
        watch_own(n->parent, n->name);
    if (n->type == S_IFDIR)
        watch_own(n, NULL);
}

/* A file that lost the name by which we hold it is told of under that name all the same when it is truncated or its
 * attributes change: IN_EXCL_UNLINK is for what is written to a descriptor.  Whoever has the name now did not change. */
static bool lost_name(const struct node *n, const char *name)
{
    static const char gone[] = " (deleted)"; /* proc_pid_fd(5) */
    char path[64], at[PATH_MAX];
    snprintf(path, sizeof path, "/proc/self/fd/%d", n->fd);
    ssize_t len = n->fd < 0 ? -1 : readlink(path, at, sizeof at - 1);
    if (len < (ssize_t)sizeof gone)
        return false;
    at[len] = '\0';
    char *end = at + len - (sizeof gone - 1);
    if (strcmp(end, gone) != 0)
        return false;
    *end = '\0';
    const char *slash = strrchr(at, '/');
    return slash && strcmp(slash + 1, name) == 0;
}

static bool is_own(struct node *dir, const char *name, bool content)
{
    for (unsigned i = 0; i < w.nown; i++)
        if (w.own[i].dir == dir && strcmp(w.own[i].name, name) == 0)
            return true;
    /* A file of several names is told of under the one by which it was opened. */
    return content && w.own_node && *name && (node_known_child(dir, name) == w.own_node || lost_name(w.own_node, name));
}

static void tell(const struct inotify_event *ev)
{
    if (ev->mask & IN_Q_OVERFLOW) {
        log_line("the host changes files faster than can be followed: everything is read afresh");
        w.changed(NULL, NULL, true);
        return;
    }
    struct node *next;
    for (struct node *n = *chain(ev->wd); n; n = next) {
        next = n->wd_next; /* telling frees no node: only the guest's requests do */
        if (n->wd != ev->wd)
            continue;
        const char *name = ev->len ? ev->name : "";
        bool content = ev->mask & (IN_MODIFY | IN_ATTRIB);
        if (ev->mask & IN_IGNORED)
            unchain(n);
        else if (!is_own(n, name, content))
            w.changed(n, ev->len ? name : NULL, content);
    }
}

void watch_drain(void)
{
    static char buf[64 * 1024] __attribute__((aligned(8)));
    ssize_t n;
    while (w.fd >= 0 && (n = read(w.fd, buf, sizeof buf)) > 0) {
        const struct inotify_event *ev;
        for (char *p = buf; p < buf + n; p += sizeof *ev + ev->len) {
            ev = (const struct inotify_event *)p;
            if (ev->wd >= 0 || (ev->mask & IN_Q_OVERFLOW))
                tell(ev);
        }
        if ((size_t)n < sizeof buf / 2)
            break;
    }
    w.nown = 0;
    w.own_node = NULL;
}
