#include "core/obeyed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/beneath.h"
#include "core/jsonfile.h"
#include "core/paths.h"

#define FILE_MAX_BYTES (4u << 20) /* of a larger one size and time stand for what it holds */
#define ENTRIES_MAX 200           /* of one folder of the list */
#define TOLD_MAX 500

/* A name with a slash at its end: all that lies directly in that folder. */
static const char *const names[] = {
    /* editors */
    ".vscode/", ".idea/", ".idea/runConfigurations/", ".cursor/", ".zed/", ".devcontainer/", ".devcontainer.json", ".nvim.lua",
    ".nvimrc", ".exrc", ".vimrc", ".dir-locals.el", ".editorconfig", ".project", ".settings/", ".sublime-project",
    /* shells and tools that act on entering a folder */
    ".envrc", ".env", ".tool-versions", ".mise.toml", "mise.toml", ".nvmrc", ".node-version", ".python-version", ".ruby-version",
    ".bashrc", ".bash_profile", ".profile", ".zshrc", ".zprofile", ".direnvrc",
    /* agents on the host */
    ".mcp.json", "mcp.json", ".claude/", ".claude/commands/", ".claude/agents/", ".claude/hooks/", ".codex/", ".gemini/",
    ".github/copilot-instructions.md", "CLAUDE.md", "AGENTS.md", "GEMINI.md", ".cursorrules",
    /* git, and what runs at a commit */
    ".git/hooks/", ".git/config", ".git/config.worktree", ".gitmodules", ".gitattributes", ".gitconfig", ".husky/", ".githooks/",
    ".pre-commit-config.yaml", "lefthook.yml", ".lefthook.yml", ".github/workflows/", ".gitlab-ci.yml",
    /* builds and packages */
    "Makefile", "makefile", "GNUmakefile", "Justfile", "justfile", "Taskfile.yml", "package.json", ".npmrc", ".yarnrc", ".yarnrc.yml",
    ".pnpmfile.cjs", ".yarn/releases/", "setup.py", "conftest.py", "pyproject.toml", "tox.ini", "noxfile.py", "build.rs",
    ".cargo/config", ".cargo/config.toml", "CMakeLists.txt", "configure", "build.gradle", "build.gradle.kts",
    "settings.gradle", "gradlew", "gradle/wrapper/", "mvnw", ".mvn/", "Rakefile", "Gemfile", ".bazelrc", "WORKSPACE",
    "docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml", "Dockerfile", "Vagrantfile",
};

static void hash_hex(const void *bytes, size_t n, char out[33])
{
    unsigned char digest[16];
    crypto_generichash(digest, sizeof digest, bytes, n, NULL, 0);
    sodium_bin2hex(out, 33, digest, sizeof digest);
}

/* Of package.json what is run alone; anything that is no such file counts whole. */
static char *scripts_of(const char *text, size_t n)
{
    json_t *o = json_loadb(text, n, 0, NULL);
    char *out = NULL;
    if (json_is_object(o)) {
        json_t *part = json_object_get(o, "scripts");
        out = part ? json_dumps(part, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : strdup("");
    }
    json_decref(o);
    return out;
}

static void look(int dir, const char *name, const char *rel, json_t *out)
{
    struct stat st;
    char hash[33], line[4200];
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(st.st_mode))
        return;
    int n = snprintf(line, sizeof line, "%o %lld %lld.%09ld", (unsigned)st.st_mode & (S_IFMT | 0111), (long long)st.st_size,
                     (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    hash_hex(line, (size_t)n, hash);
    if (S_ISLNK(st.st_mode)) {
        ssize_t len = readlinkat(dir, name, line, sizeof line);
        hash_hex(line, len > 0 ? (size_t)len : 0, hash);
    } else if (S_ISREG(st.st_mode) && st.st_size <= (off_t)FILE_MAX_BYTES) {
        int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        char *text = fd >= 0 ? malloc((size_t)st.st_size + 1) : NULL;
        ssize_t got = text ? pread(fd, text, (size_t)st.st_size, 0) : -1;
        if (got >= 0) {
            char *part = strcmp(rel, "package.json") == 0 ? scripts_of(text, (size_t)got) : NULL;
            hash_hex(part ? part : text, part ? strlen(part) : (size_t)got, hash);
            free(part);
        }
        free(text);
        if (fd >= 0)
            close(fd);
    }
    json_t *v = json_string(rel); /* a name that is no UTF-8 cannot be kept, and is no name of the list */
    if (v)
        json_object_set_new(out, rel, json_string(hash));
    json_decref(v);
}

static void look_in(int top, const char *folder, json_t *out)
{
    int fd = open_beneath(top, folder, O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    unsigned left = ENTRIES_MAX;
    for (struct dirent *i = d ? readdir(d) : NULL; i && left; i = readdir(d)) {
        char rel[600];
        size_t n = strlen(i->d_name);
        /* git's own examples are not run. */
        if (i->d_name[0] == '\0' || strcmp(i->d_name, ".") == 0 || strcmp(i->d_name, "..") == 0 ||
            (n > 7 && strcmp(folder, ".git/hooks/") == 0 && strcmp(i->d_name + n - 7, ".sample") == 0))
            continue;
        snprintf(rel, sizeof rel, "%s%s", folder, i->d_name);
        look(dirfd(d), i->d_name, rel, out);
        left--;
    }
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
}

json_t *obeyed_scan(const char *folder)
{
    json_t *out = json_object();
    int top = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; out && top >= 0 && i < sizeof names / sizeof *names; i++) {
        const char *name = names[i], *slash = strrchr(name, '/');
        if (slash && slash[1] == '\0') {
            look_in(top, name, out);
            continue;
        }
        char dir[64] = "";
        if (slash)
            snprintf(dir, sizeof dir, "%.*s", (int)(slash - name), name);
        int at = slash ? open_beneath(top, dir, O_RDONLY | O_DIRECTORY, 0) : top;
        if (at >= 0)
            look(at, slash ? slash + 1 : name, name, out);
        if (at >= 0 && at != top)
            close(at);
    }
    if (top >= 0)
        close(top);
    return out;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

json_t *obeyed_diff(const json_t *before, const json_t *after, const char *prefix)
{
    size_t n = 0, cap = json_object_size(before) + json_object_size(after);
    const char **found = calloc(cap + 1, sizeof *found);
    const char *name;
    json_t *v, *out = json_array();
    if (found) {
        /* What went away can be obeyed no more. */
        json_object_foreach((json_t *)after, name, v)
            if (!json_equal(v, json_object_get(before, name)))
                found[n++] = name;
        qsort(found, n, sizeof *found, by_text);
    }
    for (size_t i = 0; i < n; i++)
        json_array_append_new(out, json_sprintf("%s%s", prefix, found[i]));
    free(found);
    return out;
}

/* ---- what a sandbox's file says ---- */

static json_t *scan_all(const struct record *r)
{
    json_t *out = json_object();
    for (unsigned i = 0; i < r->nfolders; i++)
        if (!r->folders[i].read_only)
            json_object_set_new(out, r->folders[i].path, obeyed_scan(r->folders[i].path));
    return out;
}

static void add_changes(json_t *list, const json_t *before, const json_t *after)
{
    const char *folder;
    json_t *scan, *v, *had;
    json_object_foreach((json_t *)after, folder, scan) {
        char prefix[4200];
        size_t i, k;
        snprintf(prefix, sizeof prefix, "%s/", folder);
        const json_t *old = json_object_get(before, folder);
        json_t *some = old ? obeyed_diff(old, scan, prefix) : NULL;
        json_array_foreach(some, i, v) {
            bool known = false;
            json_array_foreach(list, k, had)
                known |= json_equal(had, v);
            if (!known && json_array_size(list) < TOLD_MAX)
                json_array_append(list, v);
        }
        json_decref(some);
    }
}

enum step { BEGIN, END, TOLD };

/* Returns what is changed and not told as of now. */
static json_t *update(const struct record *r, enum step step, bool write)
{
    char *path = path_sandbox(r->name, "obeyed.json", NULL);
    int lock = path && write ? jsonfile_lock(path, NULL) : -1;
    json_t *had = path ? jsonfile_read(path, NULL) : NULL, *now = scan_all(r);
    json_t *list = json_deep_copy(json_object_get(had, "changed"));
    if (!json_is_array(list)) {
        json_decref(list);
        list = json_array();
    }
    /* While it does not run, what changes is the user's own doing; one that was killed did not say that it ended. */
    if (json_is_true(json_object_get(had, "open")))
        add_changes(list, json_object_get(had, "before"), now);
    if (write && path && lock >= 0) {
        bool open = step == BEGIN || (step == TOLD && json_is_true(json_object_get(had, "open")));
        json_t *keep = step == TOLD ? json_array() : json_incref(list);
        json_t *o = json_pack("{s:i, s:b, s:O, s:o}", "version", 1, "open", (int)open, "before", now, "changed", keep);
        if (o)
            jsonfile_write(path, o, 0600, NULL);
        json_decref(o);
    }
    if (lock >= 0)
        close(lock);
    json_decref(had);
    json_decref(now);
    free(path);
    return list;
}

void obeyed_begin(const struct record *r)
{
    if (r->nfolders)
        json_decref(update(r, BEGIN, true));
}

void obeyed_end(const struct record *r)
{
    if (r->nfolders)
        json_decref(update(r, END, true));
}

void obeyed_add(const struct record *r, unsigned folder, const char *path)
{
    char *file = folder < r->nfolders ? path_sandbox(r->name, "obeyed.json", NULL) : NULL;
    int lock = file ? jsonfile_lock(file, NULL) : -1;
    json_t *o = lock >= 0 ? jsonfile_read(file, NULL) : NULL, *list = json_object_get(o, "changed");
    json_t *whole = o ? json_sprintf("%s/%s", r->folders[folder].path, path) : NULL, *had;
    bool known = !whole || !json_is_array(list) || json_array_size(list) >= TOLD_MAX;
    size_t i;
    json_array_foreach(list, i, had)
        known |= json_equal(had, whole);
    if (!known && json_array_append(list, whole) == 0)
        jsonfile_write(file, o, 0600, NULL);
    if (lock >= 0)
        close(lock);
    json_decref(whole);
    json_decref(o);
    free(file);
}

json_t *obeyed_changed(const struct record *r)
{
    return r->nfolders ? update(r, TOLD, false) : json_array();
}

void obeyed_told(const struct record *r)
{
    if (r->nfolders)
        json_decref(update(r, TOLD, true));
}
