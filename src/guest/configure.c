#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/hex.h"
#include "core/netplan.h"
#include "guest/guest.h"
#include "guest/start.h"
#include "guest/text.h"

#define DISK "/dev/vdb"
/* What names this machine lies in memory, behind links from /etc: a clone says who it is without writing to its disk. */
#define NAMES "/run/sbx/names"
/* Below base and disk lies an empty tree in memory, for the places where folders are mounted: made on the disk they would
 * cost a clone a third of its start, and leave folders behind. */
#define PLACES "/run/sbx/places"

/* Under emulation a clone pays for each way through the kernel that it goes first.  So what names it is ready before it is
 * frozen: of their final sizes, the files lie in our memory as well, where a name is a matter of copying. */
#define HOST_NAME_MAX_LEN 64
#define HOSTS_BEFORE "127.0.0.1 localhost\n127.0.1.1 "
#define HOSTS_AFTER "\n::1 localhost ip6-localhost ip6-loopback\n"
static struct name {
    const char *name;
    size_t len; /* 0: of no known size */
    int fd;
    char *at; /* NULL: is written */
} names[] = {{"hosts", sizeof HOSTS_BEFORE HOSTS_AFTER - 1 + HOST_NAME_MAX_LEN, -1, NULL}, {"machine-id", 33, -1, NULL}};
static int random_fd = -1;

/* What may wait until whoever started the machine to run something has come. */
#define LATER_MS 300

static bool prepared, configured;
static struct user agent;
static json_t *base_env;
static char first_folder[PATH_MAX];

const json_t *configure_env(void)
{
    return base_env;
}

const char *configure_cwd(void)
{
    return first_folder;
}

int configure_clock(const json_t *clock)
{
    struct timespec t = {.tv_sec = json_integer_value(json_array_get(clock, 0)),
                         .tv_nsec = json_integer_value(json_array_get(clock, 1))};
    return t.tv_sec > 0 ? clock_settime(CLOCK_REALTIME, &t) : 0;
}

/* A clone starts with its template's pool: the host's bytes make it another one, then it is reseeded.  (The device for
 * entropy has the same source, and takes 20 ms to answer under emulation.) */
static void seed_entropy(const char *hex)
{
    struct {
        int entropy_count, buf_size;
        unsigned char buf[32];
    } pool = {0, 0, {0}};
    size_t n = 0;
    while (hex && n < 32 && hex_digit(hex[2 * n]) >= 0 && hex_digit(hex[2 * n + 1]) >= 0) {
        pool.buf[n] = (unsigned char)(hex_digit(hex[2 * n]) << 4 | hex_digit(hex[2 * n + 1]));
        n++;
    }
    pool.buf_size = (int)n;
    pool.entropy_count = (int)n * 8;
    if (random_fd < 0 || ioctl(random_fd, RNDADDENTROPY, &pool) < 0 || ioctl(random_fd, RNDRESEEDCRNG) < 0)
        printf("sbx-guest: entropy: %s\n", strerror(errno));
    explicit_bzero(&pool, sizeof pool);
}

static int mkdirs(const char *path)
{
    char buf[PATH_MAX];
    text_join(buf, sizeof buf, path, NULL);
    for (char *p = buf + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            if (mkdir(buf, 0755) < 0 && errno != EEXIST)
                return -1;
            *p = '/';
        }
    return mkdir(buf, 0755) < 0 && errno != EEXIST ? -1 : 0;
}

static int move_mount_to(const char *from, const char *root, struct err *e)
{
    char to[PATH_MAX];
    snprintf(to, sizeof to, "%s%s", root, from);
    return mount(from, to, NULL, MS_MOVE, NULL) < 0 ? err_errno(e, errno, "cannot move %s", from) : 0;
}

/* A folder of the root is joined with that of the places only if both were there when it was first looked at; those at the
 * top are. */
static void make_places(void)
{
    DIR *d = opendir("/base");
    struct dirent *ent;
    mkdir("/places", 0755);
    if (mount("tmpfs", "/places", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0)
        printf("sbx-guest: /places: %s\n", strerror(errno));
    while (d && (ent = readdir(d)))
        if (ent->d_type == DT_DIR && ent->d_name[0] != '.') {
            char path[300];
            snprintf(path, sizeof path, "/places/%s", ent->d_name);
            mkdir(path, 0755);
        }
    if (d)
        closedir(d);
}

/* So that the kernel knows the folders at the top, and what lies in them: who asks first has them looked up in three file
 * systems. */
static void look_at_top(void)
{
    DIR *top = opendir(PLACES);
    struct dirent *ent;
    while (top && (ent = readdir(top))) {
        char path[300];
        snprintf(path, sizeof path, "/%s", ent->d_name);
        DIR *d = ent->d_name[0] != '.' ? opendir(path) : NULL;
        while (d && readdir(d))
            ;
        if (d)
            closedir(d);
    }
    if (top)
        closedir(top);
}

/* base (read-only) + the sandbox's disk = the new root; then PID 1 moves into it. */
static int enter_root(struct err *e)
{
    int fd = open(DISK, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "cannot open the disk");
    /* A clone remembers the blank disk of its template. */
    ioctl(fd, BLKFLSBUF);
    close(fd);
    if (mount(DISK, "/disk", "ext4", MS_NOATIME, "discard,no_prefetch_block_bitmaps") < 0)
        return err_errno(e, errno, "cannot mount the disk");
    mkdir("/disk/upper", 0755);
    mkdir("/disk/work", 0755);
    make_places();
    /* nofollow: no folder of this root was ever redirected (the kernel makes none by itself), so none need be asked. */
    if (mount("overlay", "/newroot", "overlay", 0,
              "redirect_dir=nofollow,lowerdir=/base:/places,upperdir=/disk/upper,workdir=/disk/work") < 0)
        return err_errno(e, errno, "cannot mount the root");
    if (move_mount_to("/proc", "/newroot", e) < 0 || move_mount_to("/sys", "/newroot", e) < 0 ||
        move_mount_to("/dev", "/newroot", e) < 0)
        return -1;
    if (mount("tmpfs", "/newroot/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0)
        return err_errno(e, errno, "cannot mount /run");
    mkdir("/newroot/run/lock", 0755);
    chmod("/newroot/run/lock", 01777); /* past the umask */
    mkdir("/newroot/run/sbx", 0755);
    mkdir("/newroot/run/sbx/fs", 0755);
    mkdir("/newroot/run/sbx/disk", 0700);
    mkdir("/newroot" NAMES, 0755);
    mkdir("/newroot" PLACES, 0700);
    if (mount("/disk", "/newroot/run/sbx/disk", NULL, MS_MOVE, NULL) < 0 ||
        mount("/places", "/newroot" PLACES, NULL, MS_MOVE, NULL) < 0)
        return err_errno(e, errno, "cannot move the disk");
    if (chdir("/newroot") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0)
        return err_errno(e, errno, "cannot enter the root");
    return 0;
}

int configure_docker(void)
{
    static bool mounted;
    if (mounted)
        return 0;
    if ((mkdir("/run/sbx/disk/docker", 0711) < 0 && errno != EEXIST) || mkdirs("/var/lib/docker") < 0 ||
        mount("/run/sbx/disk/docker", "/var/lib/docker", NULL, MS_BIND, NULL) < 0)
        return -1;
    mounted = true;
    return 0;
}

static unsigned char *unbase64(const char *text, size_t *len)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = strlen(text);
    unsigned char *out = malloc(n + 1);
    unsigned acc = 0, bits = 0;
    *len = 0;
    for (size_t i = 0; out && i < n && text[i] != '='; i++) {
        const char *p = strchr(set, text[i]);
        if (!p)
            continue;
        acc = acc << 6 | (unsigned)(p - set);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[(*len)++] = (unsigned char)(acc >> bits);
        }
    }
    return out;
}

static int write_one(const char *path, const void *data, size_t len, mode_t mode, uid_t uid, gid_t gid)
{
    char tmp[PATH_MAX];
    snprintf(tmp, sizeof tmp, "%s.sbx-new", path);
    unlink(tmp);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -1;
    int rc = 0;
    for (size_t done = 0; done < len && rc == 0;) {
        ssize_t n = write(fd, (const char *)data + done, len - done);
        if (n < 0)
            rc = -1;
        else
            done += (size_t)n;
    }
    if (rc == 0 && (fchown(fd, uid, gid) < 0 || fchmod(fd, mode) < 0))
        rc = -1;
    close(fd);
    return rc == 0 ? rename(tmp, path) : rc;
}

/* Folders that a seed file needs are made as its owner's, as that user would have made them. */
static void make_parents(const char *path, uid_t uid, gid_t gid)
{
    char buf[PATH_MAX];
    snprintf(buf, sizeof buf, "%s", path);
    for (char *p = buf + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            if (mkdir(buf, 0755) == 0 && chown(buf, uid, gid) < 0)
                printf("sbx-guest: chown %s: %s\n", buf, strerror(errno));
            *p = '/';
        }
}

/* Adds to a file of the base what it does not hold yet: the machine starts often, its disk stays. */
static int append_once(const char *path, const char *text, size_t len)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644), rc = -1;
    char *old = fd >= 0 && fstat(fd, &st) == 0 && st.st_size < 64 * 1024 * 1024 ? malloc((size_t)st.st_size + 1) : NULL;
    if (old) {
        ssize_t n = pread(fd, old, (size_t)st.st_size, 0);
        rc = n >= 0 && (memmem(old, (size_t)n, text, len) || write(fd, text, len) == (ssize_t)len) ? 0 : -1;
    }
    free(old);
    if (fd >= 0)
        close(fd);
    return rc;
}

static void write_files(const json_t *files)
{
    size_t i;
    json_t *f;
    json_array_foreach((json_t *)files, i, f) {
        const char *path = json_string_value(json_object_get(f, "path"));
        const char *mode = json_string_value(json_object_get(f, "mode"));
        const char *owner = json_string_value(json_object_get(f, "owner"));
        const char *content = json_string_value(json_object_get(f, "content"));
        const char *b64 = json_string_value(json_object_get(f, "base64"));
        if (!path || path[0] != '/' || (!content && !b64))
            continue;
        bool own = owner && strcmp(owner, "agent") == 0;
        uid_t uid = own ? agent.uid : 0;
        gid_t gid = own ? agent.gid : 0;
        struct stat st;
        if (json_is_true(json_object_get(f, "keep")) && lstat(path, &st) == 0)
            continue; /* what the user or the agent made of it stays */
        make_parents(path, uid, gid);
        size_t len = content ? json_string_length(json_object_get(f, "content")) : 0;
        if (json_is_true(json_object_get(f, "append")) && content) {
            if (append_once(path, content, len) < 0)
                control_log("cannot add to %s: %s", path, strerror(errno));
            continue;
        }
        unsigned char *raw = b64 ? unbase64(b64, &len) : NULL;
        if (write_one(path, raw ? (void *)raw : content, len, mode ? (mode_t)strtoul(mode, NULL, 8) : 0644,
                      uid, gid) < 0)
            control_log("cannot write %s: %s", path, strerror(errno));
        free(raw);
    }
}

/* A machine that starts again finds its own: reading is cheaper than a write to the disk. */
static bool holds(const char *path, const char *text)
{
    char old[1024];
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, old, sizeof old) : -1;
    if (fd >= 0)
        close(fd);
    return n >= 0 && (size_t)n == strlen(text) && memcmp(old, text, (size_t)n) == 0;
}

static void write_text(const char *path, const char *text)
{
    if (holds(path, text))
        return;
    if (write_one(path, text, strlen(text), 0644, 0, 0) < 0)
        printf("sbx-guest: %s: %s\n", path, strerror(errno));
}

/* The name is the machine's even where an image or a user had a file of that name. */
static void link_name(const char *name, const char *to)
{
    char at[64], old[64];
    snprintf(at, sizeof at, "/etc/%s", name);
    ssize_t n = readlink(at, old, sizeof old);
    if (n == (ssize_t)strlen(to) && memcmp(old, to, (size_t)n) == 0)
        return;
    unlink(at);
    if (symlink(to, at) < 0)
        printf("sbx-guest: %s: %s\n", at, strerror(errno));
}

static void open_names(bool ahead)
{
    link_name("hostname", "/proc/sys/kernel/hostname");
    for (struct name *n = names; n < names + sizeof names / sizeof *names; n++) {
        char path[64];
        snprintf(path, sizeof path, NAMES "/%s", n->name);
        link_name(n->name, path);
        n->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (!ahead || n->fd < 0 || ftruncate(n->fd, (off_t)n->len) < 0)
            continue;
        void *at = mmap(NULL, n->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, n->fd, 0);
        if (at != MAP_FAILED)
            n->at = memset(at, '\n', n->len);
    }
}

static void write_name(size_t i, const char *text)
{
    struct name *n = &names[i];
    size_t len = strlen(text);
    if (n->at && len == n->len) {
        memcpy(n->at, text, len);
        return;
    }
    if (n->fd < 0 || ftruncate(n->fd, 0) < 0 || pwrite(n->fd, text, len, 0) != (ssize_t)len)
        printf("sbx-guest: %s: %s\n", n->name, strerror(errno));
}

static void name_host(const json_t *msg)
{
    const char *name = json_string_value(json_object_get(msg, "hostname"));
    const char *id = json_string_value(json_object_get(msg, "machine_id"));
    char text[512];
    if (name && sethostname(name, strlen(name)) == 0) {
        size_t at = sizeof HOSTS_BEFORE - 1;
        memcpy(text, HOSTS_BEFORE, at);
        memset(text + at, ' ', HOST_NAME_MAX_LEN);
        memcpy(text + at, name, strlen(name)); /* the kernel took no longer one */
        memcpy(text + at + HOST_NAME_MAX_LEN, HOSTS_AFTER, sizeof HOSTS_AFTER);
        write_name(0, text);
    }
    if (id) {
        text_join(text, sizeof text, id, "\n", NULL);
        write_name(1, text);
    }
}

static bool is_under(const char *path, const char *top)
{
    size_t n = strlen(top);
    return strncmp(path, top, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* A workspace may lie nearly anywhere on the host; what would hide the machine itself is refused. */
static bool may_mount_at(const char *path)
{
    static const char *const kept[] = {"/proc", "/sys", "/dev", "/run", "/usr", "/etc", "/bin", "/sbin",
                                       "/lib", "/lib64", "/boot", "/var", "/var/lib", "/var/lib/docker", "/home",
                                       "/home/agent"};
    size_t len = strlen(path);
    if (path[0] != '/' || len < 2 || len >= PATH_MAX)
        return false;
    for (const char *p = path; p; p = strchr(p + 1, '/')) { /* each name: not empty, not a dot or two */
        size_t n = strcspn(p + 1, "/");
        if (n == 0 || (p[1] == '.' && (n == 1 || (n == 2 && p[2] == '.'))))
            return false;
    }
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (strcmp(path, kept[i]) == 0 || (i < 4 && is_under(path, kept[i])))
            return false;
    return true;
}

/* On the disk only below what was looked at before (make_places). */
static int make_place(const char *path)
{
    char in_memory[PATH_MAX + sizeof PLACES];
    struct stat st;
    text_join(in_memory, sizeof in_memory, PLACES, path, NULL);
    if (mkdirs(in_memory) == 0 && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    return mkdirs(path);
}

/* A folder of the host's root lies below /root, which the base keeps to itself: whoever works in the folder has to get
 * there.  A directory of another folder is the host's, and stays as it is. */
static void let_pass(const char *path)
{
    char at[PATH_MAX];
    struct stat root, st;
    if (stat("/", &root) < 0)
        return;
    for (const char *p = path; (p = strchr(p + 1, '/'));) {
        memcpy(at, path, (size_t)(p - path));
        at[p - path] = '\0';
        if (stat(at, &st) == 0 && st.st_dev == root.st_dev && !(st.st_mode & S_IXOTH) &&
            chmod(at, (st.st_mode & 07777) | S_IXOTH) < 0)
            control_log("cannot let the agent pass %s: %s", at, strerror(errno));
    }
}

static int mount_folder(const json_t *f, struct err *e)
{
    const char *path = json_string_value(json_object_get(f, "path"));
    bool ro = json_is_true(json_object_get(f, "ro"));
    char from[64];
    if (!path || !may_mount_at(path))
        return err_set(e, STATUS_USAGE, "the folder %s cannot be mounted: it would hide a part of the machine",
                       path ? path : "(none)");
    char *end = text_add(from, from + sizeof from - 1, GUEST_FS "/");
    *text_number(end, from + sizeof from - 1, json_integer_value(json_object_get(f, "index"))) = '\0';
    if (make_place(path) < 0)
        return err_errno(e, errno, "cannot make %s in the machine", path);
    let_pass(path);
    if (mount(from, path, NULL, MS_BIND, NULL) < 0)
        return err_errno(e, errno, "cannot mount %s in the machine", path);
    /* Of the other flags it has those of the whole (fsrelay_mount).  Who may write is decided by the host. */
    if (ro)
        mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_NODEV | MS_NOSUID | MS_RDONLY, NULL);
    /* Folders declared local live on the machine's own disk, over the share. */
    size_t i;
    json_t *local;
    json_array_foreach(json_object_get(f, "local"), i, local) {
        const char *sub = json_string_value(local);
        char over[PATH_MAX], own[PATH_MAX];
        if (!sub || sub[0] == '/' || strstr(sub, ".."))
            continue;
        snprintf(over, sizeof over, "%s/%s", path, sub);
        snprintf(own, sizeof own, "/run/sbx/disk/local/%lld/%s",
                 (long long)json_integer_value(json_object_get(f, "index")), sub);
        if (mkdirs(own) < 0 || chown(own, agent.uid, agent.gid) < 0 || mkdirs(over) < 0 ||
            mount(own, over, NULL, MS_BIND, NULL) < 0)
            control_log("cannot keep %s on the machine's disk: %s", over, strerror(errno));
    }
    return 0;
}

static int mount_folders(const json_t *folders, struct err *e)
{
    size_t i;
    json_t *f;
    if (json_array_size(folders) == 0) {
        umount2(GUEST_FS, MNT_DETACH); /* nobody would answer there */
        return 0;
    }
    fsrelay_start();
    json_array_foreach((json_t *)folders, i, f)
        if (mount_folder(f, e) < 0)
            return -1;
    text_join(first_folder, sizeof first_folder, json_string_value(json_object_get(json_array_get(folders, 0), "path")), NULL);
    return 0;
}

int configure_resize(struct err *e)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/usr/sbin/resize2fs", "resize2fs", DISK, NULL);
        _exit(127);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
        return err_set(e, STATUS_FAILED, "cannot grow the file system of the disk");
    return 0;
}

int prepare(const json_t *msg, struct err *e)
{
    if (prepared)
        return err_set(e, STATUS_FAILED, "this machine is prepared already");
    prepared = true;
    if (enter_root(e) < 0)
        return -1;
    if (user_find("agent", &agent) < 0)
        return err_set(e, STATUS_FAILED, "the base image has no account named agent");
    open_names(msg != NULL);
    random_fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    write_text("/etc/resolv.conf", "nameserver " NETPLAN_GATEWAY4 "\noptions timeout:3 attempts:2\n");
    if (fsrelay_mount(e) < 0)
        return -1;
    write_files(json_object_get(msg, "files"));
    oom_watch();
    docker_listen();
    if (msg) { /* what goes on at once gains nothing by a rehearsal */
        fsrelay_limits();
        look_at_top();
        start_rehearse(&agent);
        session_await(&agent);
        start_spare(&agent);
    }
    return 0;
}

/* What ended is freed after grace periods, which are put off (rcutree.enable_rcu_lazy): by itself each clone would do it.  A
 * control group goes in three steps, each behind a grace period of its own. */
static void free_what_is_gone(void)
{
    for (int i = 0; i < 4; i++) {
        boot_set("/sys/module/rcutree/parameters/do_rcu_barrier", "1");
        usleep(20000);
    }
}

void rest(void)
{
    struct timespec end, now;
    sync();
    if (prepared && !configured)
        start_rehearse(&agent);
    free_what_is_gone();
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_nsec += 30 * 1000000;
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - end.tv_sec) * 1000000000ll + now.tv_nsec - end.tv_nsec < 0);
}

static void run_spare(void *arg)
{
    (void)arg;
    start_spare_go();
}

static void set_limits(void *arg)
{
    (void)arg;
    fsrelay_limits();
}

int configure(const json_t *msg, struct err *e)
{
    if (configured)
        return err_set(e, STATUS_FAILED, "this machine is configured already");
    configured = true;
    configure_clock(json_object_get(msg, "clock"));
    if (!prepared) {
        if (prepare(NULL, e) < 0)
            return -1;
        loop_after(LATER_MS, set_limits, NULL); /* before it matters, but not before the first session */
    }
    /* Nothing runs in the machine before it has its own entropy and name. */
    seed_entropy(json_string_value(json_object_get(msg, "seed")));
    name_host(msg);
    base_env = json_incref(json_object_get(msg, "env"));
    if (json_is_true(json_object_get(msg, "resize_disk")))
        configure_resize(NULL);
    int rc = mount_folders(json_object_get(msg, "folders"), e);
    if (rc == 0)
        write_files(json_object_get(msg, "files"));
    /* Who has something to run comes at once, and nothing stands before it; who comes later finds most of its way translated. */
    loop_after(LATER_MS, run_spare, NULL);
    return rc;
}

void configure_shutdown(void)
{
    sync();
    /* Enough for a clean journal; processes that are still there lose nothing that was synced. */
    umount2("/var/lib/docker", MNT_DETACH);
    mount(NULL, "/run/sbx/disk", NULL, MS_REMOUNT | MS_RDONLY, NULL);
    sync();
}
