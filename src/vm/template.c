#include "vm/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "core/paths.h"
#include "vm/disk.h"
#include "vm/template_share.h"

#define SEALS (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)
/* Sets of devices, sizes and images that are kept on disk; each takes some 100 MB. */
#define KEPT 8
#define CHUNK (256u * 1024u)

struct frozen_copy {
    pthread_t thread;
    int from, to, done; /* done: an eventfd */
    off_t size;
    int error;
};

void frozen_init(struct frozen *f)
{
    memset(f, 0, sizeof *f);
    f->ram = -1;
}

static int end_copy(struct frozen *f)
{
    struct frozen_copy *c = f->copy;
    if (!c)
        return 0;
    pthread_join(c->thread, NULL);
    int error = c->error;
    close(c->from);
    close(c->done);
    free(c);
    f->copy = NULL;
    return error;
}

void frozen_finish(struct frozen *f)
{
    end_copy(f);
    if (f->ram >= 0)
        close(f->ram);
    free(f->state);
    frozen_init(f);
}

static void hash_text(crypto_hash_sha256_state *h, const char *text)
{
    crypto_hash_sha256_update(h, (const unsigned char *)text, strlen(text) + 1);
}

static void hash_stat(crypto_hash_sha256_state *h, const struct stat *st)
{
    char text[160];
    snprintf(text, sizeof text, "%lu:%lu:%lld:%lld.%09ld", (unsigned long)st->st_dev, (unsigned long)st->st_ino,
             (long long)st->st_size, (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
    hash_text(h, text);
}

/* "-cpu max" and "-cpu host" are what this processor (and its microcode) makes of them. */
static void hash_cpu(crypto_hash_sha256_state *h)
{
    static const char *const lines[] = {"vendor_id", "model", "stepping", "microcode", "flags"};
    char line[8192];
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof line, f) && line[0] != '\n')
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
            if (strncmp(line, lines[i], strlen(lines[i])) == 0)
                hash_text(h, line);
    if (f)
        fclose(f);
}

int template_key(const struct qemu *q, const char *prepared, char key[TEMPLATE_KEY_LEN + 1], struct err *e)
{
    char *kind = qemu_kind(q), *program = qemu_program(e);
    const int fds[] = {q->kernel, q->initrd, q->base};
    unsigned char digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state h;
    struct stat st;
    int rc = -1;
    if (!kind || !program || stat(program, &st) < 0)
        goto out;
    crypto_hash_sha256_init(&h);
    hash_text(&h, "sbx frozen machine 2");
    hash_text(&h, kind);
    hash_stat(&h, &st);
    hash_cpu(&h);
    /* What KVM offers of that is the host kernel's doing. */
    struct utsname u;
    if (q->kvm && uname(&u) == 0) {
        hash_text(&h, u.release);
        hash_text(&h, u.version);
    }
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fstat(fds[i], &st) < 0)
            goto out;
        hash_stat(&h, &st);
    }
    for (unsigned i = 1; prepared && i < q->ndisks; i++) {
        if (fstat(q->disks[i].fd, &st) < 0)
            goto out;
        hash_stat(&h, &st);
    }
    if (prepared)
        hash_text(&h, prepared);
    /* Without that the disks' content may differ, their size may not. */
    char size[32];
    snprintf(size, sizeof size, "%u", q->disk_mib);
    hash_text(&h, size);
    crypto_hash_sha256_final(&h, digest);
    sodium_bin2hex(key, TEMPLATE_KEY_LEN + 1, digest, sizeof digest);
    rc = 0;
out:
    if (rc < 0)
        err_set(e, STATUS_FAILED, "cannot tell which frozen machine fits");
    free(kind);
    free(program);
    return rc;
}

int frozen_new_ram(unsigned memory_mib, struct err *e)
{
    int fd = memfd_create("sbx-machine", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)memory_mib << 20) < 0) {
        err_errno(e, errno, "cannot make memory for a machine");
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

int frozen_new_state(struct err *e)
{
    int fd = memfd_create("sbx-state", MFD_CLOEXEC);
    return fd < 0 ? err_errno(e, errno, "cannot make memory for a machine's state") : fd;
}

static int read_state(struct frozen *f, int fd, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > (off_t)TEMPLATE_STATE_MAX)
        return err_set(e, STATUS_FAILED, "the state of the frozen machine is unusable");
    f->state_len = (size_t)st.st_size;
    f->state = malloc(f->state_len);
    for (size_t at = 0; f->state && at < f->state_len;) {
        ssize_t n = pread(fd, f->state + at, f->state_len - at, (off_t)at);
        if (n <= 0)
            return err_set(e, STATUS_FAILED, "cannot read the state of the frozen machine");
        at += (size_t)n;
    }
    return f->state ? 0 : err_set(e, STATUS_FAILED, "out of memory");
}

/* A sibling's is sealed already, and cannot be sealed again. */
static int seal(int ram, struct err *e)
{
    int seals = fcntl(ram, F_GET_SEALS);
    bool sealed = seals >= 0 && (seals & SEALS) == SEALS;
    return !sealed && fcntl(ram, F_ADD_SEALS, SEALS) < 0 ? err_errno(e, errno, "cannot seal the memory of a machine") : 0;
}

int frozen_take(struct frozen *f, const char *key, int ram, int state, struct err *e)
{
    frozen_init(f);
    snprintf(f->key, sizeof f->key, "%s", key);
    f->ram = ram;
    int rc = seal(ram, e) < 0 ? -1 : read_state(f, state, e);
    close(state);
    if (rc < 0)
        frozen_finish(f);
    return rc;
}

int frozen_state_fd(const struct frozen *f, struct err *e)
{
    int fd = frozen_new_state(e);
    if (fd >= 0 && (write(fd, f->state, f->state_len) != (ssize_t)f->state_len || lseek(fd, 0, SEEK_SET) != 0)) {
        err_errno(e, errno, "cannot write the state of a machine");
        close(fd);
        fd = -1;
    }
    return fd;
}

static char *cache_dir(const char *key, const char *file)
{
    return file ? path_in(PATH_CACHE, NULL, "machines/%s/%s", key, file)
                : path_in(PATH_CACHE, NULL, "machines/%s", key);
}

/* Copies the data of a sparse file, leaving holes and pages of zeros out. */
static int copy_sparse(int from, int to, off_t size)
{
    off_t at = 0;
    while (at < size) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO ? 0 : -1;
        off_t hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0)
            return -1;
        const size_t page = 4096;
        data -= data % (off_t)page;
        size_t len = (size_t)(hole - data);
        unsigned char *p = mmap(NULL, len, PROT_READ, MAP_SHARED | MAP_POPULATE, from, data);
        if (p == MAP_FAILED)
            return -1;
        int rc = 0;
        for (size_t i = 0, run; rc == 0 && i < len; i += run) {
            bool zero = true;
            run = 0;
            /* A run of pages that are all zero, or all not. */
            while (i + run < len && run < CHUNK) {
                size_t n = len - i - run < page ? len - i - run : page;
                bool z = p[i + run] == 0 && memcmp(p + i + run, p + i + run + 1, n - 1) == 0;
                if (run && z != zero)
                    break;
                zero = z;
                run += n;
            }
            if (!zero && pwrite(to, p + i, run, data + (off_t)i) != (ssize_t)run)
                rc = -1;
        }
        munmap(p, len);
        if (rc < 0)
            return -1;
        at = hole;
    }
    return 0;
}

static void *copy_ram(void *arg)
{
    struct frozen_copy *c = arg;
    if (copy_sparse(c->from, c->to, c->size) < 0)
        c->error = errno ? errno : EIO;
    eventfd_write(c->done, 1);
    return NULL;
}

/* Takes from on success. */
static int start_copy(struct frozen *f, int from, off_t size, struct err *e)
{
    struct frozen_copy *c = calloc(1, sizeof *c);
    int done = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c && done >= 0) {
        *c = (struct frozen_copy){.from = from, .to = f->ram, .done = done, .size = size};
        if (pthread_create(&c->thread, NULL, copy_ram, c) == 0) {
            f->copy = c;
            return 0;
        }
    }
    if (done >= 0)
        close(done);
    free(c);
    return err_set(e, STATUS_FAILED, "cannot copy the memory of a machine");
}

int frozen_copy_fd(const struct frozen *f)
{
    return f->copy ? f->copy->done : -1;
}

int frozen_complete(struct frozen *f, struct err *e)
{
    int error = end_copy(f);
    if (error)
        return err_errno(e, error, "cannot copy the memory of a machine");
    return seal(f->ram, e);
}

static int from_cache(struct frozen *f, const char *key, unsigned memory_mib, struct err *e)
{
    char *ram_path = cache_dir(key, "ram"), *state_path = cache_dir(key, "state"), *dir = cache_dir(key, NULL);
    int ram = ram_path ? open(ram_path, O_RDONLY | O_CLOEXEC) : -1;
    int state = state_path ? open(state_path, O_RDONLY | O_CLOEXEC) : -1, rc = 1;
    struct stat st;
    if (ram >= 0 && state >= 0 && fstat(ram, &st) == 0 && st.st_size == (off_t)memory_mib << 20) {
        snprintf(f->key, sizeof f->key, "%s", key);
        f->ram = frozen_new_ram(memory_mib, e);
        rc = f->ram < 0 || read_state(f, state, e) < 0 || start_copy(f, ram, st.st_size, e) < 0 ? -1 : 0;
        if (rc < 0)
            frozen_finish(f);
        else
            ram = -1;
        if (dir)
            utimensat(AT_FDCWD, dir, NULL, 0); /* it was used: kept longest */
    }
    if (ram >= 0)
        close(ram);
    if (state >= 0)
        close(state);
    free(dir);
    free(ram_path);
    free(state_path);
    return rc;
}

int frozen_find(struct frozen *f, const char *key, unsigned memory_mib, struct err *e)
{
    int ram, state;
    frozen_init(f);
    if (template_share_ask(key, &ram, &state) == 0) {
        struct stat st;
        int seals = fcntl(ram, F_GET_SEALS);
        /* A sibling is one of us, but what it gives is checked all the same. */
        if (seals >= 0 && (seals & SEALS) == SEALS && fstat(ram, &st) == 0 &&
            st.st_size == (off_t)memory_mib << 20)
            return frozen_take(f, key, ram, state, e);
        close(ram);
        close(state);
    }
    return from_cache(f, key, memory_mib, e);
}

void frozen_discard(const char *key)
{
    char *dir = cache_dir(key, NULL);
    if (dir)
        path_remove_tree(dir, NULL);
    free(dir);
}

static void drop_old(void)
{
    char *dir = path_in(PATH_CACHE, NULL, "machines");
    for (;;) {
        DIR *d = dir ? opendir(dir) : NULL;
        struct dirent *ent;
        char oldest[300] = "";
        time_t when = 0;
        unsigned n = 0;
        while (d && (ent = readdir(d))) {
            struct stat st;
            if (ent->d_name[0] == '.' || fstatat(dirfd(d), ent->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                continue;
            /* A builder that was killed left its half behind. */
            bool half = strchr(ent->d_name, '.') && st.st_mtime < time(NULL) - 600;
            n++;
            if (!oldest[0] || half || st.st_mtime < when) {
                snprintf(oldest, sizeof oldest, "%s", ent->d_name);
                when = half ? 0 : st.st_mtime;
            }
        }
        if (d)
            closedir(d);
        if (n <= KEPT)
            break;
        frozen_discard(oldest);
    }
    free(dir);
    disk_layers_clean();
}

static int write_out(const struct frozen *f)
{
    char *dir = cache_dir(f->key, NULL), *tmp = NULL, *ram = NULL, *state = NULL;
    int rc = -1, fd = -1;
    struct stat st;
    if (!dir || asprintf(&tmp, "%s.%ld", dir, (long)getpid()) < 0 || path_mkdirs(tmp, 0700, NULL) < 0)
        goto out;
    if (asprintf(&ram, "%s/ram", tmp) < 0 || asprintf(&state, "%s/state", tmp) < 0 || fstat(f->ram, &st) < 0)
        goto out;
    fd = open(ram, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, st.st_size) < 0 || copy_sparse(f->ram, fd, st.st_size) < 0)
        goto out;
    close(fd);
    fd = open(state, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, f->state, f->state_len) != (ssize_t)f->state_len)
        goto out;
    frozen_discard(f->key);
    rc = rename(tmp, dir);
out:
    if (fd >= 0)
        close(fd);
    if (rc < 0 && tmp)
        path_remove_tree(tmp, NULL);
    drop_old();
    free(ram);
    free(state);
    free(tmp);
    free(dir);
    return rc;
}

int frozen_keep(const struct frozen *f)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct frozen own = *f;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setpriority(PRIO_PROCESS, 0, 15);
        /* Not the supervisor's lock and sockets: they end with it. */
        if (own.ram != 3 && (own.ram = dup2(own.ram, 3)) < 0)
            _exit(1);
        close_range(4, ~0u, 0);
        _exit(write_out(&own) == 0 ? 0 : 1);
    }
    return pid;
}
