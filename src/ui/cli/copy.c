/* cp: a tar stream through a session in the machine.  What comes out of it is hostile: it is unpacked beneath the
 * destination alone, no absolute names, no "..", no links to follow, no devices (threats.md, 91). */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/beneath.h"
#include "core/config.h"
#include "core/confine.h"
#include "core/spawn.h"
#include "core/state.h"
#include "ui/cli/sandbox.h"
#include "ui/client.h"

#define LOOK_EVERY (16 << 20) /* bytes between two looks at the room that is left */

struct stream {
    struct client c;
    int status;
    bool exited, eof;
    unsigned char *buf; /* received, not yet taken */
    size_t pos, len, cap;
    char errors[400];
};

static void on_note(struct client *c, const json_t *msg, void *arg)
{
    struct stream *s = arg;
    const char *op = json_string_value(json_object_get(msg, "op"));
    (void)c;
    if (op && strcmp(op, "exit") == 0) {
        s->exited = true;
        s->status = json_object_get(msg, "signal") ? 128 : (int)json_integer_value(json_object_get(msg, "status"));
    }
}

static void on_data(struct client *c, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    struct stream *s = arg;
    if (stream == 1) {
        size_t n = strlen(s->errors), room = sizeof s->errors - 1 - n;
        memcpy(s->errors + n, buf, len < room ? len : room);
        s->errors[n + (len < room ? len : room)] = '\0';
        link_consumed(c->link, chan, stream, len);
        return;
    }
    if (s->pos == s->len)
        s->pos = s->len = 0;
    if (s->len + len > s->cap) {
        size_t cap = s->len + len; /* bounded by the window of the stream */
        unsigned char *more = realloc(s->buf, cap);
        if (!more)
            return;
        s->buf = more;
        s->cap = cap;
    }
    memcpy(s->buf + s->len, buf, len);
    s->len += len;
}

static void on_eof(struct client *c, uint16_t chan, unsigned stream, void *arg)
{
    (void)c;
    (void)chan;
    if (stream == 0)
        ((struct stream *)arg)->eof = true;
}

static int open_stream(struct stream *s, const char *sandbox, json_t *argv, struct err *e)
{
    memset(s, 0, sizeof *s);
    if (client_open(&s->c, sandbox, e) < 0)
        return -1;
    s->c.note = on_note;
    s->c.data = on_data;
    s->c.eof = on_eof;
    s->c.arg = s;
    link_open(s->c.link, 1, 0);
    json_t *r = client_request(&s->c, "exec", json_pack("{s:i, s:O, s:s}", "chan", 1, "argv", argv, "user", "agent"), 30000, e);
    json_decref(r);
    return r ? 0 : -1;
}

static bool turn(struct stream *s, int timeout_ms)
{
    struct pollfd p = {.fd = s->c.fd, .events = client_events(&s->c)};
    if (poll(&p, 1, timeout_ms) > 0)
        client_ready(&s->c, p.revents);
    return !s->c.closed;
}

static int close_stream(struct stream *s, const char *what, struct err *e)
{
    while (!s->exited && turn(s, 60000))
        ;
    s->errors[strcspn(s->errors, "\n")] = '\0';
    int rc = s->exited && s->status == 0 ? 0 : err_set(e, STATUS_FAILED, "%s: %s", what, s->errors[0] ? s->errors : "the sandbox ended");
    client_close(&s->c);
    free(s->buf);
    return rc;
}

/* ---- out of the machine ---- */

static la_ssize_t take(struct archive *a, void *arg, const void **out)
{
    struct stream *s = arg;
    static unsigned char chunk[65536];
    while (s->pos == s->len && !s->eof && !sandbox_interrupted && turn(s, 500)) /* a signal may come just before it waits */
        ;
    if (sandbox_interrupted) {
        archive_set_error(a, EINTR, "it was interrupted");
        return -1;
    }
    size_t n = s->len - s->pos < sizeof chunk ? s->len - s->pos : sizeof chunk;
    if (n) /* of none there is no place */
        memcpy(chunk, s->buf + s->pos, n);
    s->pos += n;
    if (n)
        link_consumed(s->c.link, 1, 0, n);
    *out = chunk;
    return (la_ssize_t)n;
}

/* "top/rest" of the stream becomes "base/rest": the copy has the name that the user gave. */
static bool rename_entry(struct archive_entry *entry, const char *base)
{
    const char *path = archive_entry_pathname(entry);
    char out[PATH_MAX];
    if (!path)
        return false;
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    const char *slash = strchr(path, '/');
    int n = snprintf(out, sizeof out, "%s%s", base, slash ? slash : "");
    if (n < 0 || (size_t)n >= sizeof out || strstr(out, "/../") || strstr(out, "/..") == out + strlen(out) - 3)
        return false;
    archive_entry_set_pathname(entry, out);
    return true;
}

/* What parses a stream of the guest's reaches the destination alone, and starts nothing (design.md, I3).  For good: this
 * process only unpacks and says how it went. */
static int confine_to(const char *dir, struct err *e)
{
    const struct confine_path paths[] = {{.path = dir, .access = CONFINE_READ | CONFINE_WRITE}};
    const struct confine c = {.groups = CONFINE_IO | CONFINE_FILES, .paths = paths, .npaths = 1};
    return confine_self(&c, e);
}

static bool has_room(int64_t keep)
{
    struct statvfs v;
    return statvfs(".", &v) < 0 ||
           ((int64_t)v.f_bavail * (int64_t)v.f_frsize > keep + LOOK_EVERY && (!keep || v.f_favail >= v.f_files / 64));
}

static int no_room(const char *name, int64_t keep, struct err *e)
{
    return err_set(e, STATUS_FAILED, "cannot write %s: the disk of this host would have less than %lld MiB left, or too few files (limit.keep_free)",
                   name, (long long)(keep >> 20));
}

/* "/a/b/" -> dir "/a", base "b". */
static void split(const char *path, char dir[PATH_MAX], char base[PATH_MAX])
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/')
        copy[--n] = '\0';
    char *slash = strrchr(copy, '/');
    snprintf(base, PATH_MAX, "%s", slash ? slash + 1 : copy);
    if (slash)
        *slash = '\0';
    snprintf(dir, PATH_MAX, "%s", slash ? (copy[0] ? copy : "/") : ".");
}

/* A file has its name when it is whole: what was there stays until then, and stays where the copy fails.  Until then it lies
 * beside it, as part: in dir, beneath top.  -1 where that is none of ours any more. */
static int name_part(int top, const char *dir, const char *part, const char *name)
{
    int at = open_beneath(top, dir, O_PATH | O_DIRECTORY, 0);
    int rc = at < 0 ? -1 : renameat(at, part, at, name);
    if (at >= 0)
        close(at);
    return rc;
}

static void drop_part(int top, const char *dir, const char *part)
{
    int at = open_beneath(top, dir, O_PATH | O_DIRECTORY, 0);
    if (at >= 0) {
        unlinkat(at, part, 0);
        close(at);
    }
}

static int unpack(struct stream *s, const char *base, int64_t keep, int *got, struct err *e)
{
    int64_t unseen = LOOK_EVERY;
    struct archive *in = archive_read_new(), *out = archive_write_disk_new();
    struct archive_entry *entry;
    char name[PATH_MAX], dir[PATH_MAX], last[PATH_MAX], part[32], beside[PATH_MAX + 32];
    int rc = 0, r, top = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    mode_t mask = umask(0);
    umask(mask);
    snprintf(part, sizeof part, ".sbx-cp.%d", (int)getpid());
    archive_read_support_format_tar(in);
    archive_write_disk_set_options(out, ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_SECURE_SYMLINKS |
                                            ARCHIVE_EXTRACT_SECURE_NODOTDOT | ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS |
                                            ARCHIVE_EXTRACT_UNLINK);
    if (archive_read_open(in, s, NULL, take, NULL) != ARCHIVE_OK)
        rc = err_set(e, STATUS_FAILED, "cannot copy: %s", s->errors[0] ? s->errors : archive_error_string(in));
    while (rc == 0 && (r = archive_read_next_header(in, &entry)) != ARCHIVE_EOF) {
        if (r < ARCHIVE_WARN) {
            rc = err_set(e, STATUS_FAILED, "cannot copy: %s", archive_error_string(in));
            break;
        }
        mode_t type = archive_entry_filetype(entry);
        if ((type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK) || !rename_entry(entry, base))
            continue; /* devices, sockets, names that lead elsewhere */
        if (archive_entry_hardlink(entry)) { /* names a place by the old name */
            archive_entry_set_hardlink(entry, NULL);
        }
        if (!has_room(keep)) { /* names without content use it up as well */
            rc = no_room(archive_entry_pathname(entry), keep, e);
            break;
        }
        /* As cp has it: what anybody on this host may write is not the machine's to say. */
        archive_entry_set_perm(entry, archive_entry_perm(entry) & 0777 & ~mask);
        snprintf(name, sizeof name, "%s", archive_entry_pathname(entry));
        bool file = type == AE_IFREG;
        if (file) {
            split(name, dir, last);
            snprintf(beside, sizeof beside, "%s/%s", dir, part);
            archive_entry_set_pathname(entry, beside);
        }
        if (archive_write_header(out, entry) < ARCHIVE_WARN) {
            rc = err_set(e, STATUS_FAILED, "cannot write %s: %s", name, archive_error_string(out));
            break;
        }
        const void *data;
        size_t size;
        la_int64_t at;
        while (rc == 0 && (r = archive_read_data_block(in, &data, &size, &at)) == ARCHIVE_OK) {
            unseen += (int64_t)size;
            if (unseen >= LOOK_EVERY && !has_room(keep)) {
                rc = no_room(name, keep, e);
                break;
            }
            if (unseen >= LOOK_EVERY)
                unseen = 0;
            if (archive_write_data_block(out, data, size, at) < ARCHIVE_WARN) {
                rc = err_set(e, STATUS_FAILED, "cannot write %s: %s", name, archive_error_string(out));
                break;
            }
        }
        if (rc == 0 && r < ARCHIVE_WARN && r != ARCHIVE_EOF)
            rc = err_set(e, STATUS_FAILED, "cannot copy: %s", archive_error_string(in));
        if (archive_write_finish_entry(out) < ARCHIVE_WARN && rc == 0)
            rc = err_set(e, STATUS_FAILED, "cannot write %s: %s", name, archive_error_string(out));
        if (file && rc == 0 && name_part(top, dir, part, last) < 0)
            rc = err_set(e, STATUS_FAILED, "cannot write %s: %s", name, strerror(errno));
        if (file && rc < 0)
            drop_part(top, dir, part);
        ++*got;
    }
    if (top >= 0)
        close(top);
    archive_read_free(in);
    archive_write_free(out);
    return rc;
}

static int copy_out(const char *sandbox, const char *from, const char *to, struct err *e)
{
    char dir[PATH_MAX], base[PATH_MAX], to_dir[PATH_MAX], to_base[PATH_MAX];
    struct stat st;
    struct stream s;
    split(from, dir, base);
    bool into = stat(to, &st) == 0 && S_ISDIR(st.st_mode);
    if (into) {
        snprintf(to_dir, sizeof to_dir, "%s", to);
        snprintf(to_base, sizeof to_base, "%s", base);
    } else {
        split(to, to_dir, to_base);
    }
    if (strcmp(to_base, "..") == 0 || strcmp(to_base, ".") == 0 || !to_base[0])
        return err_set(e, STATUS_USAGE, "the name of the copy is missing in \"%s\"", to);
    if (stat(to_dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, STATUS_USAGE, "the folder %s does not exist", to_dir);
    char place[2 * PATH_MAX];
    snprintf(place, sizeof place, "%s/%s", to_dir, to_base);
    if (lstat(place, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))
        return err_set(e, STATUS_USAGE, "%s is a device, a pipe or a socket, which a copy would replace; choose another name", place);
    if (sandbox_start(sandbox, e) < 0)
        return -1;
    json_t *argv = json_pack("[s, s, s, s, s, s, s, s, s]", "env", "LC_ALL=C", "tar", "--sparse", "--hard-dereference", "-C", dir, "-cf", "-");
    if (argv && json_array_append_new(argv, json_string(base)) < 0) {
        json_decref(argv);
        return err_set(e, STATUS_USAGE, "the path in the sandbox is not text (UTF-8)");
    }
    int rc = argv ? open_stream(&s, sandbox, argv, e) : -1;
    json_decref(argv);
    if (rc < 0)
        return -1;
    link_send_eof(s.c.link, 1, 0);
    if (chdir(to_dir) < 0)
        rc = err_errno(e, errno, "cannot enter %s", to_dir);
    int64_t keep = (int64_t)config_int("limit.keep_free", NULL) << 20;
    if (rc == 0)
        rc = confine_to(".", e);
    struct sigaction old[3];
    int got = 0;
    sandbox_hold_signals(true, old);
    if (rc == 0)
        rc = unpack(&s, to_base, keep, &got, e);
    sandbox_hold_signals(false, old);
    struct err why = {0};
    /* What we do not take any more the machine may go on to send for ever: it ends with us. */
    if (rc < 0 && !s.eof && !s.exited) {
        client_close(&s.c);
        free(s.buf);
        return rc;
    }
    /* What tar says is the reason, wherever it was noticed first. */
    if (close_stream(&s, "cannot copy", &why) < 0) {
        rc = -1;
        if (got == 0 && (strstr(why.text, "Cannot stat: No such") || strstr(why.text, "Cannot open: No such")))
            err_set(&why, STATUS_NOT_FOUND, "there is no %s in %s", from, sandbox);
        if (e)
            *e = why;
    } else if (rc == 0 && got == 0) {
        rc = err_set(e, STATUS_FAILED, "nothing was copied");
    }
    return rc;
}

/* ---- into the machine ---- */

/* Beneath top, through no link: a sandbox that can write to the folder could put one there meanwhile (threat 91).  And
 * it is the file that was found, no pipe in its place. */
static int open_found(int top, const char *rel, struct archive_entry *entry)
{
    struct stat st;
    int fd = open_beneath(top, rel, O_RDONLY, 0);
    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_ino != (ino_t)archive_entry_ino64(entry))) {
        close(fd);
        return -1;
    }
    return fd;
}

static la_ssize_t give(struct archive *a, void *arg, const void *buf, size_t len)
{
    struct stream *s = arg;
    size_t done = 0;
    while (done < len) {
        if (s->c.closed || s->exited) {
            archive_set_error(a, EPIPE, "%s", s->errors[0] ? s->errors : "the sandbox ended");
            return -1;
        }
        size_t n = link_send_data(s->c.link, 1, 0, (const char *)buf + done, len - done);
        done += n;
        turn(s, n ? 0 : 1000);
    }
    return (la_ssize_t)len;
}

static int pack(struct stream *s, int top, const char *from, const char *base, struct err *e)
{
    struct archive *disk = archive_read_disk_new(), *out = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    int rc = 0, r, got = 0, left_out = 0;
    size_t prefix = strlen(from);
    char dir[PATH_MAX], last[PATH_MAX];
    split(from, dir, last);
    archive_write_set_format_pax_restricted(out);
    archive_write_set_bytes_per_block(out, 65536);
    archive_read_disk_set_symlink_physical(disk);
    if (archive_write_open(out, s, NULL, give, NULL) != ARCHIVE_OK || archive_read_disk_open(disk, from) != ARCHIVE_OK)
        rc = err_set(e, STATUS_FAILED, "cannot read %s: %s", from, archive_error_string(disk));
    while (rc == 0 && (r = archive_read_next_header2(disk, entry)) != ARCHIVE_EOF) {
        char name[PATH_MAX];
        if (r < ARCHIVE_WARN) {
            rc = err_set(e, STATUS_FAILED, "cannot read %s: %s", from, archive_error_string(disk));
            break;
        }
        archive_read_disk_descend(disk);
        const mode_t type = archive_entry_filetype(entry);
        if (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK) { /* as on the way out; the rest of a tree is wanted */
            out_notice("left out, as it is a device, a pipe or a socket: %s", archive_entry_pathname(entry));
            left_out++;
            archive_entry_clear(entry);
            continue;
        }
        got++;
        snprintf(name, sizeof name, "%s%s", base, archive_entry_pathname(entry) + prefix);
        archive_entry_set_pathname(entry, name);
        archive_entry_set_uid(entry, 1000);
        archive_entry_set_gid(entry, 1000);
        archive_entry_set_uname(entry, NULL);
        archive_entry_set_gname(entry, NULL);
        if (archive_write_header(out, entry) < ARCHIVE_WARN) {
            rc = err_set(e, STATUS_FAILED, "cannot copy: %s", archive_error_string(out));
            break;
        }
        if (archive_entry_filetype(entry) == AE_IFREG && archive_entry_size(entry) > 0) {
            const char *found = archive_entry_sourcepath(entry);
            snprintf(name, sizeof name, "%s%s", last, found && strlen(found) > prefix ? found + prefix : "");
            int fd = open_found(top, name, entry);
            char buf[65536];
            ssize_t n;
            if (fd < 0)
                rc = err_set(e, STATUS_FAILED, "cannot read %s", found ? found : from);
            while (fd >= 0 && (n = read(fd, buf, sizeof buf)) > 0)
                if (archive_write_data(out, buf, (size_t)n) < 0) {
                    rc = err_set(e, STATUS_FAILED, "cannot copy: %s", archive_error_string(out));
                    break;
                }
            if (fd >= 0)
                close(fd);
        }
        archive_entry_clear(entry);
    }
    if (rc == 0 && got == 0 && left_out)
        rc = err_set(e, STATUS_FAILED, "nothing was copied");
    if (archive_write_close(out) != ARCHIVE_OK && rc == 0)
        rc = err_set(e, STATUS_FAILED, "cannot copy: %s", archive_error_string(out));
    archive_entry_free(entry);
    archive_read_free(disk);
    archive_write_free(out);
    return rc;
}

static int copy_in(const char *sandbox, const char *from, const char *to, struct err *e)
{
    char dir[PATH_MAX], base[PATH_MAX], clean[PATH_MAX];
    struct stat st;
    struct stream s;
    if (lstat(from, &st) < 0)
        return err_set(e, STATUS_USAGE, "%s does not exist", from);
    if (sandbox_start(sandbox, e) < 0)
        return -1;
    snprintf(clean, sizeof clean, "%s", from);
    for (size_t n = strlen(clean); n > 1 && clean[n - 1] == '/';)
        clean[--n] = '\0';
    split(clean, dir, base);
    /* Into a folder that exists (or is written with a slash) under its own name, else under the name given, which it gets
     * when it is whole. */
    static const char script[] = "t=$1; b=$2; case $t in */) mkdir -p -- \"$t\";; esac; "
                                 "if [ -d \"$t\" ]; then cd -- \"$t\" && exec tar -xf - ; "
                                 "else d=$(dirname -- \"$t\"); n=$(basename -- \"$t\"); mkdir -p -- \"$d\" && w=$(mktemp -d -- \"$d/.sbx-cp.XXXXXX\") || exit; "
                                 "trap 'rm -rf -- \"$w\"' EXIT; trap 'exit 1' HUP INT TERM; s=$w/$b; [ \"$b\" != . ] || s=$w; "
                                 "tar -C \"$w\" -xf - --no-same-owner && mv -fT -- \"$s\" \"$d/$n\"; fi";
    json_t *argv = json_pack("[s, s, s, s]", "sh", "-c", script, "sh");
    if (argv && (json_array_append_new(argv, json_string(to)) < 0 || json_array_append_new(argv, json_string(base)) < 0)) {
        json_decref(argv);
        return err_set(e, STATUS_USAGE, "a name in the sandbox has to be text (UTF-8)");
    }
    int rc = argv ? open_stream(&s, sandbox, argv, e) : -1;
    json_decref(argv);
    if (rc < 0)
        return -1;
    int top = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    rc = top < 0 ? err_errno(e, errno, "cannot open %s", dir) : pack(&s, top, clean, base, e);
    if (top >= 0)
        close(top);
    link_send_eof(s.c.link, 1, 0);
    struct err why = {0};
    if (close_stream(&s, "cannot copy", &why) < 0) {
        if (e)
            *e = why;
        rc = -1;
    }
    return rc;
}

/* "NAME:PATH" unless it begins like a path of the host. */
static const char *in_sandbox(const char *text, char name[RECORD_NAME_MAX + 1])
{
    const char *colon = strchr(text, ':');
    if (!colon || text[0] == '/' || text[0] == '.' || (size_t)(colon - text) > RECORD_NAME_MAX)
        return NULL;
    memcpy(name, text, (size_t)(colon - text));
    name[colon - text] = '\0';
    return record_check_name(name, NULL) == 0 && colon[1] ? colon + 1 : NULL;
}

int cmd_cp(const struct args *a, struct err *e)
{
    char from_name[RECORD_NAME_MAX + 1], to_name[RECORD_NAME_MAX + 1];
    const char *from = in_sandbox(a->words[0], from_name), *to = in_sandbox(a->words[1], to_name);
    const char *name = from ? from_name : to_name;
    struct sandbox_status st;
    if (!from == !to)
        return err_set(e, STATUS_USAGE, "exactly one of both is in a sandbox: sbx cp PATH NAME:PATH, or sbx cp NAME:PATH PATH");
    if (sandbox_state(name, &st, e) < 0)
        return -1;
    return from ? copy_out(name, from, a->words[1], e) : copy_in(name, a->words[0], to, e);
}
