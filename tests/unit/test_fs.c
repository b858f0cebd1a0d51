/* The workspace, mounted on this host as a guest mounts it: what a build expects, what the host changes, and what the
 * guest may not.  Needs root and /dev/fuse; without them it says so and passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs_mount.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <time.h>

static char host[64], ro[64]; /* the folders */
static struct fs_mount m;
static char g[128]; /* the first folder as the guest has it */

static const char *in(const char *dir, const char *name)
{
    static char buf[8][4096];
    static unsigned i;
    snprintf(buf[i % 8], sizeof buf[0], "%s/%s", dir, name);
    return buf[i++ % 8];
}
#define G(name) in(g, name)
#define H(name) in(host, name)

static void put(const char *path, const char *text, int flags)
{
    int fd = open(path, O_WRONLY | O_CREAT | flags, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(close(fd), 0);
}

static const char *get(const char *path)
{
    static char buf[65536];
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return NULL;
    buf[n] = 0;
    return buf;
}

/* What is held is held for 300 seconds: long before those are over, the host must have told.  How soon it does is the
 * bench's (bench_fs). */
#define SOON_MS 60000
#define SOON(condition)                                                                                                \
    do {                                                                                                               \
        int tries = 0;                                                                                                 \
        while (!(condition) && tries++ < SOON_MS / 2)                                                                  \
            usleep(2000);                                                                                              \
        if (!(condition))                                                                                              \
            fail_msg("not seen in time: %s", #condition);                                                              \
    } while (0)

#define FAILS(call, why)                                                                                               \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        assert_int_equal((call), -1);                                                                                  \
        assert_int_equal(errno, why);                                                                                  \
    } while (0)

static bool same(const char *path, const char *text)
{
    const char *is = get(path);
    return is && strcmp(is, text) == 0;
}

static void files(void **state)
{
    struct stat a, b;
    (void)state;
    put(G("f"), "hello", O_EXCL);
    assert_string_equal(get(H("f")), "hello");
    FAILS(open(G("f"), O_CREAT | O_EXCL | O_WRONLY, 0600), EEXIST);
    put(G("f"), " world", O_APPEND);
    assert_string_equal(get(H("f")), "hello world");
    put(G("f"), "x", O_TRUNC);
    assert_string_equal(get(H("f")), "x");
    assert_int_equal(truncate(G("f"), 100), 0);
    assert_int_equal(stat(G("f"), &a), 0);
    assert_int_equal(stat(H("f"), &b), 0);
    assert_int_equal(a.st_size, 100);
    assert_int_equal(b.st_size, 100);
    assert_int_equal(a.st_ino, b.st_ino); /* git compares it */
    assert_int_equal(a.st_uid, 1000);
    assert_int_equal(a.st_gid, 1000);
    assert_int_equal(chmod(G("f"), 04755), 0); /* set-user-id goes nowhere */
    assert_int_equal(stat(H("f"), &b), 0);
    assert_int_equal(b.st_mode & 07777, 0755);
    assert_int_equal(chown(G("f"), 1000, 1000), 0);
    assert_int_equal(chown(G("f"), 0, 0), 0); /* tar and cp -a as root */
    assert_int_equal(stat(G("f"), &a), 0);
    assert_int_equal(a.st_uid, 1000);
    struct timespec t[2] = {{1000000000, 123456789}, {1100000000, 987654321}};
    assert_int_equal(utimensat(AT_FDCWD, G("f"), t, 0), 0);
    assert_int_equal(stat(H("f"), &b), 0);
    assert_int_equal(b.st_mtim.tv_sec, 1100000000);
    assert_int_equal(b.st_mtim.tv_nsec, 987654321);
    char name[256];
    memset(name, 'n', 255);
    name[255] = 0;
    put(G(name), "long", O_EXCL);
    assert_int_equal(access(H(name), F_OK), 0);
    put(G("\x01\xff\n*"), "odd", O_EXCL);
    assert_int_equal(access(H("\x01\xff\n*"), F_OK), 0);
    assert_int_equal(unlink(G(name)), 0);
    FAILS(access(H(name), F_OK), ENOENT);
    FAILS(mknod(G("dev"), S_IFCHR | 0666, 0x103), EPERM);
    assert_int_equal(mkfifo(G("fifo"), 0600), 0);
    struct statvfs v;
    assert_int_equal(statvfs(G("f"), &v), 0);
    assert_true(v.f_blocks > 0);
}

static void names(void **state)
{
    struct stat a, b;
    char buf[64];
    (void)state;
    assert_int_equal(mkdir(G("d"), 0755), 0);
    put(G("d/one"), "1", 0);
    put(G("d/two"), "2", 0);
    FAILS(rmdir(G("d")), ENOTEMPTY);
    int open_two = open(G("d/two"), O_RDONLY);
    assert_int_equal(rename(G("d/one"), G("d/two")), 0); /* over an open file */
    assert_int_equal(read(open_two, buf, sizeof buf), 1);
    assert_int_equal(buf[0], '2');
    assert_int_equal(fstat(open_two, &a), 0);
    close(open_two);
    assert_string_equal(get(H("d/two")), "1");
    put(G("d/one"), "new", O_EXCL);
    FAILS(renameat2(AT_FDCWD, G("d/one"), AT_FDCWD, G("d/two"), RENAME_NOREPLACE), EEXIST);
    assert_int_equal(renameat2(AT_FDCWD, G("d/one"), AT_FDCWD, G("d/two"), RENAME_EXCHANGE), 0);
    assert_string_equal(get(G("d/one")), "1");
    assert_string_equal(get(G("d/two")), "new");
    assert_int_equal(link(G("d/one"), G("hard")), 0);
    assert_int_equal(stat(G("hard"), &a), 0);
    assert_int_equal(stat(G("d/one"), &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
    assert_int_equal(a.st_nlink, 2);
    assert_int_equal(unlink(G("d/one")), 0);
    assert_string_equal(get(G("hard")), "1"); /* by its other name */
    assert_int_equal(symlink("../outside", G("link")), 0);
    assert_int_equal(readlink(H("link"), buf, sizeof buf), 10);
    assert_int_equal(rename(G("d"), G("e")), 0);
    assert_string_equal(get(G("e/two")), "new");
    FAILS(access(G("d/two"), F_OK), ENOENT);
    int gone = open(G("e/two"), O_RDWR);
    assert_int_equal(unlink(G("e/two")), 0);
    assert_int_equal(write(gone, "still", 5), 5);
    assert_int_equal(fsync(gone), 0);
    assert_int_equal(fstat(gone, &a), 0);
    assert_int_equal(a.st_nlink, 0);
    assert_int_equal(a.st_size, 5);
    close(gone);
    assert_int_equal(rmdir(G("e")), 0);
    char deep[4096];
    snprintf(deep, sizeof deep, "%s", g);
    for (int i = 0; i < 200; i++) {
        strcat(deep, "/dir");
        assert_int_equal(mkdir(deep, 0755), 0);
    }
}

static void memory_and_locks(void **state)
{
    (void)state;
    int fd = open(G("map"), O_RDWR | O_CREAT, 0644);
    assert_int_equal(ftruncate(fd, 8192), 0);
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(p != MAP_FAILED);
    memcpy(p + 5000, "mapped", 6);
    assert_int_equal(msync(p, 8192, MS_SYNC), 0);
    char buf[6];
    int h = open(H("map"), O_RDONLY);
    assert_int_equal(pread(h, buf, 6, 5000), 6);
    assert_memory_equal(buf, "mapped", 6);
    close(h);
    munmap(p, 8192);
    int other = open(G("map"), O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    FAILS(flock(other, LOCK_EX | LOCK_NB), EWOULDBLOCK);
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &l), 0);
    FAILS(fcntl(other, F_OFD_SETLK, &l), EAGAIN);
    close(other);
    assert_int_equal(fallocate(fd, 0, 0, 100000), 0);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 65536), 0);
    assert_int_equal(lseek(fd, 0, SEEK_HOLE), 0);
    close(fd);
    int tmp = open(g, O_TMPFILE | O_RDWR, 0600); /* or the error that programs know what to do with */
    if (tmp < 0)
        assert_int_equal(errno, EOPNOTSUPP);
    else
        close(tmp);
}

static int entries(const char *path)
{
    int n = 0;
    DIR *d = opendir(path);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* When this returns, the guest was told of all that the host did there before: the news of a directory keep their order,
 * and what is held of this file goes only by news of its own. */
static void told(const char *name)
{
    struct stat st;
    put(G(name), "", 0);
    assert_int_equal(stat(G(name), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    assert_int_equal(chmod(H(name), 0600), 0);
    SOON(stat(G(name), &st) == 0 && (st.st_mode & 0777) == 0600);
}

static void host_changes(void **state)
{
    struct stat st;
    (void)state;
    assert_int_equal(mkdir(G("live"), 0755), 0);
    put(G("live/mine"), "m", 0); /* the guest is at work in the same directory all the while */
    FAILS(access(G("live/new"), F_OK), ENOENT);
    put(H("live/new"), "by the host", O_EXCL);
    SOON(same(G("live/new"), "by the host"));
    put(G("live/mine"), "m2", O_TRUNC);
    put(H("live/new"), "longer than it was before", O_TRUNC);
    SOON(same(G("live/new"), "longer than it was before"));
    put(H("live/new"), "short", O_TRUNC);
    SOON(same(G("live/new"), "short"));
    SOON(stat(G("live/new"), &st) == 0 && st.st_size == 5);
    struct timespec t[2] = {{5, 0}, {1234567890, 0}};
    assert_int_equal(utimensat(AT_FDCWD, H("live/new"), t, 0), 0);
    SOON(stat(G("live/new"), &st) == 0 && st.st_mtime == 1234567890);
    assert_int_equal(chmod(H("live/new"), 0700), 0);
    SOON(stat(G("live/new"), &st) == 0 && (st.st_mode & 0777) == 0700);
    put(H("live/tmp"), "replaced", 0);
    assert_int_equal(rename(H("live/tmp"), H("live/new")), 0); /* as editors save */
    SOON(same(G("live/new"), "replaced"));
    put(G("live/new"), " and by the guest", O_APPEND);
    assert_string_equal(get(H("live/new")), "replaced and by the guest");
    put(H("live/new"), "1", O_TRUNC); /* in place, what the guest has just written */
    SOON(same(G("live/new"), "1"));
    assert_int_equal(unlink(H("live/new")), 0);
    SOON(access(G("live/new"), F_OK) < 0 && errno == ENOENT);
    assert_int_equal(mkdir(H("live/sub"), 0755), 0);
    put(H("live/sub/a"), "a", 0);
    SOON(same(G("live/sub/a"), "a"));
    assert_int_equal(rename(H("live/sub"), H("live/bus")), 0);
    SOON(same(G("live/bus/a"), "a"));
    SOON(access(G("live/sub"), F_OK) < 0);
    put(H("live/bus/a"), "b", O_TRUNC);
    SOON(same(G("live/bus/a"), "b"));
    int n = entries(G("live"));
    put(H("live/listed"), "", 0);
    SOON(entries(G("live")) == n + 1);
}

/* `tail -f` in the guest of what the host appends; the guest's write through a file that was open before. */
static void open_files(void **state)
{
    char buf[64];
    struct stat st;
    (void)state;
    put(H("log"), "one\n", 0);
    int fd = open(G("log"), O_RDONLY);
    assert_int_equal(read(fd, buf, sizeof buf), 4);
    put(H("log"), "two\n", O_APPEND);
    SOON(fstat(fd, &st) == 0 && st.st_size == 8);
    assert_int_equal(read(fd, buf, sizeof buf), 4);
    assert_memory_equal(buf, "two\n", 4);
    close(fd);
    int w = open(G("log"), O_WRONLY | O_APPEND);
    put(H("log"), "three\n", O_APPEND);
    SOON(same(G("log"), "one\ntwo\nthree\n"));
    close(w);
}

/* A working directory and a mount upon a folder stay, whatever the host does to their names. */
static void stays_in_place(void **state)
{
    char cwd[4096];
    (void)state;
    assert_int_equal(mkdir(G("stay"), 0755), 0);
    assert_int_equal(mkdir(G("stay/deps"), 0755), 0);
    assert_int_equal(mount("none", G("stay/deps"), "tmpfs", 0, NULL), 0);
    put(G("stay/deps/x"), "local", 0);
    assert_int_equal(chdir(G("stay")), 0);
    assert_int_equal(chmod(H("stay"), 0700), 0);
    assert_int_equal(chmod(H("stay/deps"), 0700), 0);
    put(H("stay/deps/host"), "", 0);
    told("stay/told");
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_string_equal(get("deps/x"), "local");
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(umount2(G("stay/deps"), 0), 0);
}

static void read_only(void **state)
{
    (void)state;
    char f[128];
    snprintf(f, sizeof f, "%s/1", m.at);
    put(in(ro, "a"), "a", 0);
    SOON(same(in(f, "a"), "a"));
    FAILS(open(in(f, "a"), O_WRONLY), EROFS);
    FAILS(open(in(f, "b"), O_WRONLY | O_CREAT, 0600), EROFS);
    FAILS(truncate(in(f, "a"), 0), EROFS);
    FAILS(chmod(in(f, "a"), 0600), EROFS);
    FAILS(unlink(in(f, "a")), EROFS);
    FAILS(mkdir(in(f, "d"), 0700), EROFS);
    FAILS(symlink("x", in(f, "l")), EROFS);
    FAILS(rename(in(f, "a"), in(f, "b")), EROFS);
    FAILS(link(in(f, "a"), in(f, "b")), EROFS);
    FAILS(link(in(f, "a"), G("from-ro")), EXDEV);
    FAILS(rename(G("f"), in(f, "f")), EROFS);
    FAILS(mkdir(in(m.at, "2"), 0700), EPERM);
}

static void rules(void **state)
{
    (void)state;
    assert_int_equal(mkdir(H("repo"), 0755), 0);
    assert_int_equal(mkdir(H("repo/.git"), 0755), 0);
    assert_int_equal(mkdir(H("repo/.git/hooks"), 0755), 0);
    put(H("repo/.git/config"), "[core]", 0);
    put(H("repo/.env"), "SECRET", 0);
    FAILS(access(G("repo/.env"), F_OK), ENOENT);
    FAILS(open(G("repo/.env"), O_CREAT | O_WRONLY, 0600), EPERM);
    FAILS(rename(G("f"), G("repo/.env")), EPERM);
    FAILS(unlink(G("repo/.env")), ENOENT);
    DIR *d = opendir(G("repo"));
    for (struct dirent *e; (e = readdir(d));)
        assert_string_not_equal(e->d_name, ".env");
    closedir(d);
    assert_string_equal(get(G("repo/.git/config")), "[core]");
    FAILS(open(G("repo/.git/config"), O_WRONLY), EROFS);
    FAILS(open(G("repo/.git/hooks/post-checkout"), O_WRONLY | O_CREAT, 0755), EROFS);
    FAILS(unlink(G("repo/.git/config")), EROFS);
    FAILS(link(G("repo/.git/config"), G("repo/c")), EPERM);
    FAILS(rename(G("repo/.git/config"), G("repo/c")), EROFS);
    put(G("repo/.git/index"), "ok", O_EXCL);
    /* the ways around */
    FAILS(rename(G("repo/.git"), G("repo/git")), EPERM);
    FAILS(rename(G("repo"), G("other")), EPERM);
    assert_int_equal(mkdir(G("evil"), 0755), 0);
    assert_int_equal(mkdir(G("evil/hooks"), 0755), 0);
    FAILS(renameat2(AT_FDCWD, G("evil"), AT_FDCWD, G("repo/.git"), RENAME_EXCHANGE), EPERM);
    assert_int_equal(rename(H("repo/.git"), H("repo/gone")), 0);
    SOON(access(G("repo/.git"), F_OK) < 0);
    FAILS(rename(G("evil"), G("repo/.git")), EPERM);
    FAILS(symlink("../evil", G("repo/.git")), EPERM);
    FAILS(open(G("repo/.git"), O_CREAT | O_WRONLY, 0644), EPERM);
    assert_int_equal(mkdir(G("repo/.git"), 0755), 0);
    FAILS(mkdir(G("repo/.git/hooks"), 0755), EROFS);
}

/* Folders within folders: what a rule says of the deepest is not found out on all of the stack. */
static void a_deep_tree(void **state)
{
    (void)state;
    int at = open(g, O_PATH | O_DIRECTORY), depth = 0, bad = 0;
    while (!bad && depth < 6000) {
        bad = mkdirat(at, "d", 0755);
        int next = bad ? -1 : openat(at, "d", O_PATH | O_DIRECTORY);
        bad |= next < 0;
        close(at);
        at = next;
        depth += !bad;
    }
    assert_int_equal(errno, ENAMETOOLONG);
    assert_in_range(depth, 2000, 4200);
    close(at);
    put(G("beside"), "it", 0);
    assert_string_equal(get(H("beside")), "it");
}

/* Root's write would leave it; what the host then runs as another user is not the guest's. */
static void a_set_user_id_bit_goes_with_a_write(void **state)
{
    struct stat st;
    (void)state;
    put(H("suid"), "old", 0);
    assert_int_equal(chmod(H("suid"), 06755), 0);
    SOON(same(G("suid"), "old"));
    put(G("suid"), "new", 0);
    int fd = open(G("suid"), O_RDONLY);
    assert_int_equal(fsync(fd), 0);
    close(fd);
    assert_int_equal(stat(H("suid"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_string_equal(get(H("suid")), "new");
}

/* Of two names of a file one goes, and another file gets it: what is done to the first is no news of the second. */
static void a_name_that_another_got(void **state)
{
    char got[6] = "";
    (void)state;
    assert_int_equal(mkdir(G("names"), 0755), 0);
    int fd = open(G("names/a"), O_CREAT | O_RDWR, 0644);
    assert_int_equal(write(fd, "12345", 5), 5);
    close(fd);
    assert_int_equal(link(G("names/a"), G("names/b")), 0);
    assert_int_equal(unlink(G("names/a")), 0);
    int one = open(G("names/a"), O_CREAT | O_RDWR, 0644);
    assert_int_equal(write(one, "first", 5), 5);
    assert_int_equal(fsync(one), 0);
    assert_int_equal(truncate(G("names/b"), 3), 0);
    assert_int_equal(chmod(G("names/b"), 0600), 0);
    told("names/told");
    int two = open(G("names/a"), O_RDWR);
    assert_int_equal(pwrite(one, "other", 5, 0), 5); /* not on the host yet */
    assert_int_equal(pread(two, got, 5, 0), 5);
    assert_string_equal(got, "other");
    close(one);
    close(two);
}

/* The same random steps on the mount and on a plain directory end in the same. */
static void random_steps(void **state)
{
    (void)state;
    char plain[] = "/tmp/sbx-fs-plain.XXXXXX";
    assert_non_null(mkdtemp(plain));
    assert_int_equal(mkdir(G("rand"), 0755), 0);
    char mine[256];
    snprintf(mine, sizeof mine, "%s", G("rand"));
    const char *side[2] = {mine, plain};
    unsigned seed = 12345;
    static char data[2][200000];
    for (int step = 0; step < 3000; step++) {
        int what = rand_r(&seed) % 10, file = rand_r(&seed) % 6, file2 = rand_r(&seed) % 6;
        off_t off = rand_r(&seed) % 100000;
        size_t len = (size_t)(rand_r(&seed) % 50000);
        int result[2], why[2];
        for (int s = 0; s < 2; s++) {
            char a[256], b[256];
            snprintf(a, sizeof a, "%s/f%d", side[s], file);
            snprintf(b, sizeof b, "%s/f%d", side[s], file2);
            errno = 0;
            int fd = -1;
            switch (what) {
            case 0 ... 3:
                fd = open(a, O_RDWR | O_CREAT, 0644);
                memset(data[s], 'a' + step % 26, len);
                result[s] = (int)pwrite(fd, data[s], len, off);
                break;
            case 4:
                result[s] = truncate(a, off);
                break;
            case 5:
                result[s] = rename(a, b);
                break;
            case 6:
                result[s] = unlink(a);
                break;
            case 7:
                result[s] = link(a, b);
                break;
            case 8:
                fd = open(a, O_RDWR | O_APPEND);
                result[s] = fd < 0 ? -1 : (int)write(fd, "append", 6);
                break;
            default:
                memset(data[s], 0, sizeof data[s]);
                fd = open(a, O_RDONLY);
                result[s] = fd < 0 ? -1 : (int)read(fd, data[s], sizeof data[s]);
            }
            why[s] = result[s] < 0 ? errno : 0;
            if (fd >= 0)
                close(fd);
        }
        assert_int_equal(result[0], result[1]);
        assert_int_equal(why[0], why[1]);
        if (what == 9 && result[0] > 0)
            assert_memory_equal(data[0], data[1], result[0]);
    }
    char cmd[512];
    snprintf(cmd, sizeof cmd, "diff -r %s %s && diff -r %s %s && rm -rf %s", side[0], plain, H("rand"), plain, plain);
    assert_int_equal(system(cmd), 0);
}

/* While the guest reads below `swap`, the host swaps it for a link that leads outside. */
static void swapped_for_a_link(void **state)
{
    (void)state;
    assert_int_equal(mkdir(H("swap"), 0755), 0);
    put(H("swap/hostname"), "inside", 0);
    pid_t pid = fork();
    if (pid == 0) {
        for (;;) {
            rename(H("swap"), H("swap.real"));
            if (symlink("/nowhere/sbx-outside", H("swap")) < 0)
                _exit(1);
            unlink(H("swap"));
            rename(H("swap.real"), H("swap"));
        }
    }
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        const char *is = get(G("swap/hostname"));
        if (is)
            assert_string_equal(is, "inside");
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - start.tv_sec < 2);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    unlink(H("swap"));
    rename(H("swap.real"), H("swap"));
    SOON(same(G("swap/hostname"), "inside"));
}

static void a_tree_of_many(void **state)
{
    (void)state;
    char cmd[1024];
    snprintf(cmd, sizeof cmd,
             "cd %s && mkdir many && cd many && for d in 1 2 3 4 5 6 7 8 9 10; do mkdir $d; (cd $d && seq 1 300 | "
             "xargs touch); done; test $(find . -type f | wc -l) = 3000 && rm -r 5 && test $(find . -type f | wc -l) = "
             "2700 && test $(find %s/many -type f | wc -l) = 2700",
             g, host);
    assert_int_equal(system(cmd), 0);
    json_t *stats = fs_mount_ask(&m, json_pack("{s:s}", "op", "stats"));
    assert_true(json_integer_value(json_object_get(stats, "watches")) >= 9);
    assert_true(json_integer_value(json_object_get(stats, "nodes")) >= 2700);
}

#define FILES 200

static json_int_t requests(void)
{
    return json_integer_value(json_object_get(fs_mount_ask(&m, json_pack("{s:s}", "op", "stats")), "requests"));
}

/* Makes files in a new directory; how many messages that took. */
static json_int_t filled(const char *dir)
{
    struct stat st;
    char name[64];
    assert_int_equal(mkdir(G(dir), 0755), 0);
    json_int_t before = requests();
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%s/%d", dir, i);
        FAILS(stat(G(name), &st), ENOENT);
        put(G(name), "text", O_EXCL);
    }
    return requests() - before;
}

/* Removes what `filled` makes; how many messages the removal took. */
static json_int_t emptied(const char *dir)
{
    char name[64];
    filled(dir);
    json_int_t before = requests();
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "%s/%d", dir, i);
        assert_int_equal(unlink(G(name)), 0);
    }
    json_int_t asked = requests() - before;
    assert_int_equal(rmdir(H(dir)), 0);
    return asked;
}

/* Does a round take fewer messages than `limit`?  What else the machine does, dropping what its kernel holds for one, only
 * adds to them: a round of five is enough, the first in `dir` itself. */
static bool asks_little(json_int_t (*round)(const char *dir), const char *dir, json_int_t limit)
{
    json_int_t asked = limit;
    for (int i = 0; i < 5 && asked >= limit; i++) {
        char at[64];
        unsigned sent[FS_MOUNT_OPCODES];
        snprintf(at, sizeof at, i ? "%s.%d" : "%s", dir, i);
        sleep((unsigned)i);
        memcpy(sent, fs_mount_sent, sizeof sent);
        asked = round(at);
        if (asked < limit)
            break;
        fprintf(stderr, "%lld messages of at most %lld; with what came before, by opcode:", (long long)asked, (long long)limit);
        for (unsigned op = 0; op < FS_MOUNT_OPCODES; op++)
            if (fs_mount_sent[op] > sent[op])
                fprintf(stderr, " %u: %u", op, fs_mount_sent[op] - sent[op]);
        fputc('\n', stderr);
    }
    return asked < limit;
}

/* An archive unpacked: for a file in a directory of its own the host is asked to make it, to write it, for its times and
 * to close it; not whether the name is free, nor how the directory looks now.  What the host does there is seen all the
 * same. */
static void new_directories_ask_little(void **state)
{
    struct stat st, dir;
    (void)state;
    assert_true(asks_little(filled, "fresh", FILES * 9 / 2));
    put(H("fresh/theirs"), "by the host", O_EXCL);
    SOON(same(G("fresh/theirs"), "by the host"));
    assert_int_equal(rename(G("fresh/1"), G("fresh/moved")), 0);
    assert_int_equal(link(G("fresh/2"), G("fresh/linked")), 0);
    assert_int_equal(stat(G("fresh/2"), &st), 0);
    assert_int_equal(st.st_nlink, 2);
    assert_int_equal(unlink(G("fresh/linked")), 0);
    assert_int_equal(stat(G("fresh/2"), &st), 0);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(mkdir(G("fresh/sub"), 0755), 0);
    assert_int_equal(stat(G("fresh"), &dir), 0);
    assert_int_equal(dir.st_nlink, 3);
    put(G("fresh/2"), "more text", O_TRUNC);
    assert_int_equal(stat(G("fresh/2"), &st), 0);
    assert_int_equal(st.st_size, 9);
    put(H("fresh/sub/late"), "x", O_EXCL);
    SOON(access(G("fresh/sub/late"), F_OK) == 0);
}

/* Of a file that goes the host is told that it goes, and that it is forgotten; but whoever has it open, or by another name,
 * has all of it. */
static void removed_files_ask_little(void **state)
{
    const struct timespec changed[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 12345}};
    const struct timespec again[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 54321}};
    struct stat st;
    (void)state;
    assert_true(asks_little(emptied, "going", FILES * 5 / 2));

    int fd = open(G("open"), O_RDWR | O_CREAT | O_EXCL, 0640);
    assert_true(fd >= 0);
    assert_int_equal(unlink(G("open")), 0);
    assert_int_equal(write(fd, "text", 4), 4);
    assert_int_equal(futimens(fd, changed), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, 12345);
    assert_int_equal(st.st_size, 4);
    assert_int_equal(st.st_mode, S_IFREG | 0640);
    assert_int_equal(close(fd), 0);

    put(G("one"), "text", O_EXCL);
    assert_int_equal(link(G("one"), G("two")), 0);
    assert_int_equal(unlink(G("one")), 0);
    assert_int_equal(utimensat(AT_FDCWD, G("two"), changed, 0), 0);
    assert_int_equal(stat(H("two"), &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, 12345);
    put(G("three"), "text", O_EXCL);
    assert_int_equal(rename(G("two"), G("three")), 0);
    assert_int_equal(utimensat(AT_FDCWD, G("three"), again, 0), 0);
    assert_int_equal(stat(H("three"), &st), 0);
    assert_int_equal(st.st_mtim.tv_sec, 54321);
    assert_int_equal(unlink(G("three")), 0);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(host, sizeof host, "/tmp/sbx-fs-a.XXXXXX");
    snprintf(ro, sizeof ro, "/tmp/sbx-fs-b.XXXXXX");
    if (!mkdtemp(host) || !mkdtemp(ro))
        return -1;
    const struct fs_mount_folder f[] = {
        {host, false,
         "[{\"kind\":\"hide\",\"path\":\"**/.env\"},{\"kind\":\"readonly\",\"path\":\"repo/.git/hooks\"},"
         "{\"kind\":\"readonly\",\"path\":\"repo/.git/config\"}]"},
        {ro, true, NULL},
    };
    if (fs_mount(&m, f, 2) < 0)
        return -1;
    snprintf(g, sizeof g, "%s/0", m.at);
    return 0;
}

static int tear_down(void **state)
{
    char cmd[256];
    (void)state;
    int status = fs_unmount(&m);
    snprintf(cmd, sizeof cmd, "rm -rf %s %s", host, ro);
    return system(cmd) != 0 || status != 0 ? -1 : 0;
}

static bool written(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return good;
}

static void threat_94_a_guest_cannot_fill_the_disk(void **state)
{
    (void)state;
    struct fs_mount small = {0};
    char dir[] = "/tmp/sbx-small.XXXXXX", path[128];
    static char block[1 << 20];
    struct statvfs v;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(mount("tmpfs", dir, "tmpfs", 0, "size=128m,nr_inodes=1280"), 0);
    const struct fs_mount_folder f = {.path = dir};
    fs_mount_keep_free = 64 << 20;
    assert_int_equal(fs_mount(&small, &f, 1), 0);
    fs_mount_keep_free = 0;
    /* Written, or allocated at once. */
    snprintf(path, sizeof path, "%s/0/big", small.at);
    int fd = open(path, O_WRONLY | O_CREAT, 0644), bad = 0;
    assert_true(fd >= 0);
    for (int i = 0; i < 120 && !bad; i++)
        bad = write(fd, block, sizeof block) < 0 || fsync(fd) < 0;
    assert_true(bad);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(statvfs(dir, &v), 0);
    assert_true(v.f_bavail * v.f_frsize >= 47u << 20);
    assert_true(v.f_bavail * v.f_frsize < 81u << 20);
    assert_true(fallocate(fd, 0, 0, 100 << 20) < 0);
    close(fd);
    /* It makes room, and goes on. */
    assert_int_equal(unlink(path), 0);
    SOON(written(path, "x"));
    /* Names without content use up something as well. */
    for (fd = 0, bad = 0; fd < 1300 && !bad; fd++) {
        snprintf(path, sizeof path, "%s/0/%d", small.at, fd);
        bad = fd % 2 ? mkdir(path, 0755) : symlink("x", path);
    }
    assert_true(bad);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(statvfs(dir, &v), 0);
    assert_in_range(v.f_favail, 18, 20);
    assert_true(written(in(dir, "the host's"), "x"));
    fs_unmount(&small);
    umount2(dir, MNT_DETACH);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),          cmocka_unit_test(names),
        cmocka_unit_test(memory_and_locks), cmocka_unit_test(host_changes),
        cmocka_unit_test(open_files),     cmocka_unit_test(stays_in_place),
        cmocka_unit_test(read_only),      cmocka_unit_test(rules),
        cmocka_unit_test(a_deep_tree), cmocka_unit_test(a_set_user_id_bit_goes_with_a_write),
        cmocka_unit_test(a_name_that_another_got), cmocka_unit_test(random_steps),   cmocka_unit_test(swapped_for_a_link),
        cmocka_unit_test(a_tree_of_many), cmocka_unit_test(new_directories_ask_little),
        cmocka_unit_test(removed_files_ask_little),
        cmocka_unit_test(threat_94_a_guest_cannot_fill_the_disk),
    };
    if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        printf("skipped: mounting needs root and /dev/fuse\n");
        return 0;
    }
    return cmocka_run_group_tests_name("fs", tests, set_up, tear_down);
}
