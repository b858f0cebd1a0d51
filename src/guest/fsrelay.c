#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "guest/fsahead.h"
#include "guest/fsknown.h"
#include "guest/guest.h"

/* The largest write is 1 MiB of data behind its headers; replies to reads are bounded likewise. */
#define MESSAGE_MAX (1024u * 1024u + 64u * 1024u)

static int fuse_fd = -1, port_fd = -1;

static bool write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

/* Without a relay every access would hang for good: this way each fails at once. */
static void give_up(void)
{
    printf("sbx-guest: the workspace relay ended\n");
    umount2(GUEST_FS, MNT_FORCE);
}

/* What the kernel asks for first, when it is mounted, waits for the start: before there is nobody to answer.  Until that is
 * answered it asks nothing else. */
static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static bool started;
static uint8_t first[256];
static size_t first_len;

static bool kept_for_start(const uint8_t *msg, size_t n)
{
    pthread_mutex_lock(&start_lock);
    bool keep = !started && !first_len && n <= sizeof first;
    if (keep) {
        memcpy(first, msg, n);
        first_len = n;
    }
    pthread_mutex_unlock(&start_lock);
    return keep;
}

/* What is known here is changed by both directions. */
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;

/* Each message to the host costs the machine an exit and an interrupt: those that nobody waits for share the next one's,
 * or go when none came for so long. */
#define LATER_MS 1
#define LATER_MAX 8192u

static struct {
    uint8_t bytes[LATER_MAX];
    size_t len;
} later;

static bool send_later(void)
{
    bool ok = write_all(port_fd, later.bytes, later.len);
    later.len = 0;
    return ok;
}

static bool send(const uint8_t *msg, size_t n, bool waits)
{
    if (later.len + n > LATER_MAX) {
        if (later.len && !send_later())
            return false;
        if (n > LATER_MAX || waits)
            return write_all(port_fd, msg, n);
    }
    if (later.len == 0 && waits)
        return write_all(port_fd, msg, n);
    memcpy(later.bytes + later.len, msg, n);
    later.len += n;
    return !waits || send_later();
}

static void answer_kernel(const uint8_t *answer)
{
    uint32_t len;
    memcpy(&len, answer, sizeof len);
    ssize_t ignored = write(fuse_fd, answer, len); /* ENOENT: it was interrupted meanwhile */
    (void)ignored;
}

static bool pass_on(uint8_t *msg, size_t n)
{
    uint8_t answer[FSKNOWN_ANSWER_MAX];
    pthread_mutex_lock(&known_lock);
    unsigned way = fsknown_asked(msg, n, answer);
    if (way == FSKNOWN_ANSWER) /* before a notification that makes it wrong */
        answer_kernel(answer);
    pthread_mutex_unlock(&known_lock);
    if (way == FSKNOWN_ANSWER)
        return true;
    if (way & FSKNOWN_LATER) {
        bool ok = send(msg, n, false);
        if (way & FSKNOWN_ANSWER)
            answer_kernel(answer);
        return ok;
    }
    if (!send(msg, n, true))
        return false;
    fsahead_saw(msg, n);
    return true;
}

/* Memory that this thread needs is never made free by writing to the workspace, which waits for this thread. */
static void be_of_file_system(void)
{
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

/* Kernel to host: each read of /dev/fuse is one message. */
static void *requests(void *arg)
{
    uint8_t *buf = arg;
    const struct sched_param none = {0};
    /* Who asks is about to wait, and is let do so: this thread takes its processor only then.  Each turn from one program
     * to another empties what an emulator has of translated addresses, which costs more than all that is done here. */
    sched_setscheduler(0, SCHED_BATCH, &none);
    be_of_file_system();
    for (;;) {
        struct pollfd p = {.fd = fuse_fd, .events = POLLIN};
        if (later.len && poll(&p, 1, LATER_MS) == 0 && !send_later()) {
            give_up();
            break;
        }
        ssize_t n = read(fuse_fd, buf, MESSAGE_MAX);
        if (n < 0) {
            if (errno == EINTR || errno == ENOENT || errno == EAGAIN)
                continue;
            break; /* ENODEV: unmounted */
        }
        if (!kept_for_start(buf, (size_t)n) && !pass_on(buf, (size_t)n)) {
            give_up();
            break;
        }
    }
    free(buf);
    return NULL;
}

/* Notifications (unique 0) may wait for a lock that an operation holds until its reply arrives: they have a thread of
 * their own, so that no reply stands behind one. */
#define NOTES_MAX 65536u

struct note {
    struct note *next;
    uint32_t len;
    uint8_t bytes[];
};

static struct note *notes, **notes_tail = &notes;
static unsigned nnotes;
static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t notes_some = PTHREAD_COND_INITIALIZER;

static void *notifier(void *arg)
{
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&notes_lock);
        while (!notes)
            pthread_cond_wait(&notes_some, &notes_lock);
        struct note *n = notes;
        notes = n->next;
        if (!notes)
            notes_tail = &notes;
        nnotes--;
        pthread_mutex_unlock(&notes_lock);
        ssize_t ignored = write(fuse_fd, n->bytes, n->len);
        (void)ignored;
        free(n);
    }
    return NULL;
}

static void notify(const uint8_t *msg, uint32_t len)
{
    struct note *n = malloc(sizeof *n + len);
    if (!n)
        return;
    n->next = NULL;
    n->len = len;
    memcpy(n->bytes, msg, len);
    pthread_mutex_lock(&notes_lock);
    if (nnotes < NOTES_MAX) {
        *notes_tail = n;
        notes_tail = &n->next;
        nnotes++;
        n = NULL;
    }
    pthread_cond_signal(&notes_some);
    pthread_mutex_unlock(&notes_lock);
    free(n);
}

/* Host to kernel: one message is one write. The length stands first in its header. */
static void *replies(void *arg)
{
    uint8_t *buf = arg;
    size_t have = 0;
    be_of_file_system();
    for (;;) {
        ssize_t n = read(port_fd, buf + have, MESSAGE_MAX - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (n < 0)
                break;
            usleep(1000); /* the host's end is gone, as just after a clone: it comes back, or the machine ends */
            continue;
        }
        have += (size_t)n;
        size_t at = 0;
        while (have - at >= 4) {
            uint32_t len;
            memcpy(&len, buf + at, 4);
            if (len < 16 || len > MESSAGE_MAX) {
                printf("sbx-guest: a message of %u bytes on the fs port\n", (unsigned)len);
                free(buf);
                give_up();
                return NULL;
            }
            if (have - at < len)
                break;
            uint64_t unique;
            memcpy(&unique, buf + at + 8, 8);
            if (unique == 0) {
                pthread_mutex_lock(&known_lock);
                bool ours = fsknown_told(buf + at, len);
                pthread_mutex_unlock(&known_lock);
                if (!ours)
                    notify(buf + at, len);
            } else {
                /* ENOENT: the request was interrupted meanwhile; others concern that request alone. */
                ssize_t ignored = write(fuse_fd, buf + at, len);
                (void)ignored;
            }
            at += len;
        }
        memmove(buf, buf + at, have - at);
        have -= at;
    }
    free(buf);
    return NULL;
}

/* The kernel holds a file system of a program's to a hundredth of what may wait to be written, and slows down who writes until
 * its estimate fits: after many small files, which are slow, a large one began at a tenth of its speed.  This program is init,
 * and answers; so its file system counts as a disk.  And who reads on gets more at once than the 128 KiB of a disk: each
 * message costs an exit and turns of two threads. */
#define READ_AHEAD_KIB "512"

void fsrelay_limits(void)
{
    static const char *const settings[][2] = {{"max_ratio", "100"}, {"strict_limit", "0"}, {"read_ahead_kb", READ_AHEAD_KIB}};
    struct statx st;
    /* Whose device it is the kernel knows; the rest would be asked of the host, which is not there yet. */
    if (statx(AT_FDCWD, GUEST_FS, AT_STATX_DONT_SYNC, 0, &st) < 0) {
        printf("sbx-guest: " GUEST_FS ": %s\n", strerror(errno));
        return;
    }
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char path[128];
        snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/%s", st.stx_dev_major, st.stx_dev_minor, settings[i][0]);
        if (!boot_set(path, settings[i][1]))
            printf("sbx-guest: %s: %s\n", path, strerror(errno));
    }
}

int fsrelay_mount(struct err *e)
{
    void *(*const parts[])(void *buf) = {requests, replies, notifier};
    char options[128];
    pthread_t t;
    pthread_attr_t a;
    char *path = boot_port("sbx.fs");
    if (!path)
        return err_set(e, STATUS_FAILED, "there is no port sbx.fs");
    port_fd = open(path, O_RDWR | O_CLOEXEC);
    if (port_fd < 0)
        return err_errno(e, errno, "cannot open the port sbx.fs");
    fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse_fd < 0)
        return err_errno(e, errno, "cannot open /dev/fuse");
    snprintf(options, sizeof options,
             "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576", fuse_fd);
    if (mount("workspace", GUEST_FS, "fuse.sbx", MS_NOSUID | MS_NODEV | MS_NOATIME, options) < 0)
        return err_errno(e, errno, "cannot mount the workspace");
    pthread_attr_init(&a);
    pthread_attr_setstacksize(&a, 65536);
    for (unsigned i = 0; i < FSAHEAD_THREADS; i++)
        if (pthread_create(&t, &a, fsahead_run, NULL))
            return err_set(e, STATUS_FAILED, "cannot start the workspace relay");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        void *buf = i < 2 ? malloc(MESSAGE_MAX) : NULL;
        if ((i < 2 && !buf) || pthread_create(&t, &a, parts[i], buf))
            return err_set(e, STATUS_FAILED, "cannot start the workspace relay");
    }
    return 0;
}

void fsrelay_start(void)
{
    pthread_mutex_lock(&start_lock);
    started = true;
    pthread_mutex_unlock(&start_lock);
    if (first_len && !pass_on(first, first_len))
        give_up();
}
