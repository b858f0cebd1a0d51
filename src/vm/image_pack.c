#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/paths.h"
#include "vm/image.h"

static char *join(const char *dir, const char *file)
{
    char *s;
    return asprintf(&s, "%s/%s", dir, file) < 0 ? NULL : s;
}

static char *slurp(const char *path, size_t *len)
{
    FILE *f = fopen(path, "re");
    struct stat st;
    char *p = NULL;
    if (f && fstat(fileno(f), &st) == 0 && (p = malloc((size_t)st.st_size + 1))) {
        *len = fread(p, 1, (size_t)st.st_size, f);
        if (*len != (size_t)st.st_size) {
            free(p);
            p = NULL;
        }
    }
    if (f)
        fclose(f);
    return p;
}

/* The kernel does not insist on signatures, but checks each that is there, for 14 ms under emulation.  What is loaded
 * comes from the image whole.  The layout: scripts/sign-file.c of Linux, struct module_signature and a last line. */
static size_t without_signature(const char *module, size_t len)
{
    static const char mark[] = "~Module signature appended~\n";
    const size_t trailer = sizeof mark - 1 + 12;
    if (len < trailer || memcmp(module + len - (sizeof mark - 1), mark, sizeof mark - 1) != 0)
        return len;
    const unsigned char *n = (const unsigned char *)module + len - sizeof mark + 1 - 4;
    size_t signature = (size_t)n[0] << 24 | (size_t)n[1] << 16 | (size_t)n[2] << 8 | n[3];
    return signature <= len - trailer ? len - trailer - signature : len;
}

static int put_file(struct archive *a, const char *name, const char *from, mode_t mode, struct err *e)
{
    size_t len = 0;
    char *data = slurp(from, &len);
    if (!data)
        return err_errno(e, errno, "cannot read %s", from);
    len = without_signature(data, len);
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, mode);
    archive_entry_set_size(entry, (la_int64_t)len);
    int rc = archive_write_header(a, entry) == ARCHIVE_OK && archive_write_data(a, data, len) == (la_ssize_t)len
                 ? 0
                 : err_set(e, STATUS_FAILED, "cannot make the initramfs: %s", archive_error_string(a));
    archive_entry_free(entry);
    free(data);
    return rc;
}

static int put_special(struct archive *a, const char *name, unsigned type, unsigned major, unsigned minor, mode_t mode)
{
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, mode);
    archive_entry_set_size(entry, 0); /* the newc writer insists */
    if (type == AE_IFCHR) {
        archive_entry_set_rdevmajor(entry, major);
        archive_entry_set_rdevminor(entry, minor);
    }
    int rc = archive_write_header(a, entry);
    archive_entry_free(entry);
    return rc == ARCHIVE_OK ? 0 : -1;
}

static int not_dot(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static int write_initrd(const struct image *i, const char *guest, const char *path, struct err *e)
{
    struct dirent **list = NULL;
    struct archive *a = archive_write_new();
    int rc = -1, n = scandir(i->modules, &list, not_dot, alphasort);
    archive_write_set_format_cpio_newc(a);
    if (n < 0) {
        err_errno(e, errno, "cannot read %s", i->modules);
        goto out;
    }
    if (archive_write_open_filename(a, path) != ARCHIVE_OK) {
        err_set(e, STATUS_FAILED, "cannot write %s: %s", path, archive_error_string(a));
        goto out;
    }
    if (put_special(a, "dev", AE_IFDIR, 0, 0, 0755) < 0 || put_special(a, "dev/console", AE_IFCHR, 5, 1, 0600) < 0 ||
        put_special(a, "modules", AE_IFDIR, 0, 0, 0755) < 0 || put_file(a, "init", guest, 0755, e) < 0)
        goto out;
    for (int k = 0; k < n; k++) {
        char name[300], *from = join(i->modules, list[k]->d_name);
        snprintf(name, sizeof name, "modules/%s", list[k]->d_name);
        int r = from ? put_file(a, name, from, 0644, e) : -1;
        free(from);
        if (r < 0)
            goto out;
    }
    rc = archive_write_close(a) == ARCHIVE_OK ? 0 : err_set(e, STATUS_FAILED, "cannot write %s: %s", path, archive_error_string(a));
out:
    archive_write_free(a);
    for (int k = 0; k < n; k++)
        free(list[k]);
    free(list);
    return rc;
}

int image_pack(const char *id, struct err *e)
{
    struct image i = {0};
    char *guest = path_guest_binary(e), *dir = path_in(PATH_CACHE, e, "initrd"), *path = NULL, *tmp = NULL;
    int rc = -1;
    if (!guest || !dir || image_find(&i, id, e) < 0 || !(path = image_initrd_path(&i, e)))
        goto out;
    if (access(path, R_OK) == 0) {
        rc = 0;
        goto out;
    }
    if (path_mkdirs(dir, 0700, e) < 0 || asprintf(&tmp, "%s.%d", path, (int)getpid()) < 0)
        goto out;
    rc = write_initrd(&i, guest, tmp, e);
    if (rc == 0 && rename(tmp, path) < 0)
        rc = err_errno(e, errno, "cannot put the initramfs into place");
    if (rc < 0)
        unlink(tmp);
out:
    free(tmp);
    free(path);
    free(dir);
    free(guest);
    image_finish(&i);
    return rc;
}
