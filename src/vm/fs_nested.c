#include "vm/fs_nested.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "core/sanitize.h"

#define TOLD_MAX 100
#define AGAIN_S 10 /* the user may have looked at it meanwhile */

static nested_tell_fn *tell_fn;
static struct {
    unsigned folder;
    char *path;
    int64_t at_s;
} told[TOLD_MAX];
static unsigned ntold;

void nested_init(nested_tell_fn *tell)
{
    tell_fn = tell;
}

static void say(unsigned folder, const char *path)
{
    static char line[4 * PATH_MAX + 1];
    sanitize_line(line, sizeof line, path, strlen(path));
    tell_fn(folder, line);
}

static void tell(unsigned folder, const char *path)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    unsigned i = 0;
    while (i < ntold && (told[i].folder != folder || strcmp(told[i].path, path) != 0))
        i++;
    if (i < ntold && now.tv_sec - told[i].at_s < AGAIN_S)
        return;
    if (i == TOLD_MAX) { /* so many are no honest ones: the last place is for all others */
        i = TOLD_MAX - 1;
        if (now.tv_sec - told[i].at_s < AGAIN_S && told[i].path[0] == '*')
            return;
        path = "**/.git";
    }
    char *copy = strdup(path);
    if (copy) {
        if (i < ntold)
            free(told[i].path);
        else
            ntold++;
        told[i].folder = folder;
        told[i].path = copy;
        told[i].at_s = now.tv_sec;
    }
    say(folder, path);
}

/* Where it lies, without the top: at the end of buf.  Of what lies deeper than a path can be long the end alone. */
static const char *path_to(const struct node *dir, const char *name, char buf[PATH_MAX])
{
    char *p = buf + PATH_MAX - 1;
    *p = '\0';
    for (const struct node *n = dir; name; name = n->parent ? n->name : NULL, n = n->parent ? n->parent : n) {
        size_t len = strlen(name);
        if ((size_t)(p - buf) < len + 1)
            break;
        if (*p)
            *--p = '/';
        p -= len;
        memcpy(p, name, len);
    }
    return p;
}

/* In whatever case: some file systems take .GIT for it. */
static bool is_repository(const struct node *n)
{
    return n->parent && n->parent->parent && strcasecmp(n->name, ".git") == 0;
}

void nested_changed(const struct node *dir, const char *name)
{
    char buf[PATH_MAX];
    if (!tell_fn)
        return;
    if (dir->parent && strcasecmp(name, ".git") == 0) {
        tell(dir->folder, path_to(dir, name, buf));
        return;
    }
    const struct node *git = dir;
    if (dir->parent && strcasecmp(dir->name, "hooks") == 0)
        git = dir->parent;
    else if (strcasecmp(name, "config") != 0 && strcasecmp(name, "config.worktree") != 0 && strcasecmp(name, "commondir") != 0 && strcasecmp(name, "hooks") != 0)
        return;
    if (is_repository(git))
        tell(dir->folder, path_to(git->parent, git->name, buf));
}

void nested_moved(const struct node *from, const char *name, const struct node *to, const char *newname)
{
    char old[PATH_MAX], new[PATH_MAX], moved[PATH_MAX];
    const char *was = path_to(from, name, old), *is = path_to(to, newname, new);
    size_t len = strlen(was);
    unsigned n = ntold;
    for (unsigned i = 0; tell_fn && i < n; i++)
        if (told[i].folder == from->folder && strncmp(told[i].path, was, len) == 0 && told[i].path[len] == '/' &&
            strlen(is) + strlen(told[i].path + len) < sizeof moved) {
            strcpy(stpcpy(moved, is), told[i].path + len);
            tell(to->folder, moved);
        }
}
