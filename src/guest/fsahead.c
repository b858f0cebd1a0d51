/* Directories read ahead of look-ups.
 *
 * A program that looks at every file of a tree by name (git status, make, tsc) costs a message to the host for each
 * that the kernel does not know yet.  One READDIRPLUS brings some twenty of them at once.  So, where several names of one
 * directory were looked up one by one, it is read whole beside the program, and the kernel enters what it is told in its
 * own cache: the program's next look-ups ask nobody.  Nothing here is trusted or remembered: what the host changes is
 * told to the kernel as ever. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/fsahead.h"
#include "guest/guest.h"

#define DIRS 1024u    /* directories that are counted at a time; others' counts give way */
#define WAITING 64u   /* directories to be read; more are not remembered */
#define AGAIN 4096u   /* look-ups after which what was read is taken for forgotten */

/* The more names were asked for, the more of the others are wanted, too.  A chunk is what one message holds: some twenty
 * names. */
static const struct step {
    unsigned lookups, chunks;
} steps[] = {{2, 16}, {64, 1024}};

static struct {
    uint64_t dir;
    unsigned lookups;
} seen[DIRS];

static struct {
    uint64_t dir;
    unsigned chunks;
} waiting[WAITING];
static unsigned first, count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t some = PTHREAD_COND_INITIALIZER;

static void add(uint64_t dir, unsigned chunks)
{
    pthread_mutex_lock(&lock);
    if (count < WAITING) {
        unsigned i = (first + count++) % WAITING;
        waiting[i].dir = dir;
        waiting[i].chunks = chunks;
    }
    pthread_cond_signal(&some);
    pthread_mutex_unlock(&lock);
}

void fsahead_saw(const void *msg, size_t len)
{
    struct fuse_in_header h;
    if (len < sizeof h)
        return;
    memcpy(&h, msg, sizeof h);
    bool makes = h.opcode == FUSE_CREATE || h.opcode == FUSE_MKNOD || h.opcode == FUSE_MKDIR || h.opcode == FUSE_SYMLINK;
    if ((h.opcode != FUSE_LOOKUP && !makes) || h.nodeid == FUSE_ROOT_ID)
        return;
    unsigned i = (unsigned)((h.nodeid * 0x9e3779b97f4a7c15ull) >> 32) % DIRS;
    if (seen[i].dir != h.nodeid) {
        seen[i].dir = h.nodeid;
        seen[i].lookups = 0;
    }
    if (makes) { /* its name was looked up for that */
        seen[i].lookups -= seen[i].lookups > 0;
        return;
    }
    if (++seen[i].lookups == AGAIN)
        seen[i].lookups = 0;
    for (const struct step *s = steps; s < steps + sizeof steps / sizeof *steps; s++)
        if (seen[i].lookups == s->lookups)
            add(h.nodeid, s->chunks);
}

/* By its number, not by a path: another mount may lie over it (open_by_handle_at(2); the form is that of
 * fs/fuse/inode.c, FILEID_INO64_GEN; generations are 0, for our numbers hold their own). */
static int open_dir(int mount, uint64_t dir)
{
    union {
        struct file_handle h;
        char room[sizeof(struct file_handle) + 12];
    } u;
    const uint32_t id[3] = {(uint32_t)(dir >> 32), (uint32_t)dir, 0};
    u.h.handle_bytes = sizeof id;
    u.h.handle_type = 0x81;
    memcpy(u.h.f_handle, id, sizeof id);
    return open_by_handle_at(mount, &u.h, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* The names are of no use here: the kernel has entered them when it has them. */
static void read_dir(int fd, unsigned chunks)
{
    char buf[4096];
    for (unsigned i = 0; i < chunks && syscall(SYS_getdents64, fd, buf, sizeof buf) > 0; i++)
        continue;
}

void *fsahead_run(void *arg)
{
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (count == 0)
            pthread_cond_wait(&some, &lock);
        uint64_t dir = waiting[first].dir;
        unsigned chunks = waiting[first].chunks;
        first = (first + 1) % WAITING;
        count--;
        pthread_mutex_unlock(&lock);
        int mount = open(GUEST_FS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int fd = mount < 0 ? -1 : open_dir(mount, dir);
        if (fd >= 0)
            read_dir(fd, chunks);
        close(fd);
        close(mount);
    }
    return NULL;
}
