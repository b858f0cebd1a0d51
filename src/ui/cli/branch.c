#include "ui/cli/branch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/beneath.h"
#include "core/git.h"
#include "core/paths.h"
#include "ui/cli/agent.h"
#include "ui/cli/sandbox.h"

static void rule(json_t *rules, const char *kind, const char *form, const char *name)
{
    char path[PATH_MAX];
    size_t n = strcspn(form, "%");
    snprintf(path, sizeof path, "%.*s%s%s", (int)n, form, form[n] ? name : "", form[n] ? form + n + 1 : "");
    json_array_append_new(rules, json_pack("{s:s, s:s}", "kind", kind, "path", path));
}

/* Of .git the guest may write what its own branch needs, and nothing else: no hook and no configuration, no other branch or
 * worktree, today's or tomorrow's, and no pack, which is where the history lies. */
static void git_rules(json_t *rules, const char *branch, const char *id)
{
    static const char *const of_branch[] = {"refs/heads/%", "refs/heads/%.lock", "logs/refs/heads/%"};
    static const char *const except[] = {"objects", "refs/stash", "refs/stash.lock", "logs/refs/stash"};
    static const char *const readonly[] = {"objects/pack", "objects/info", "worktrees/%/gitdir", "worktrees/%/commondir", "worktrees/%/config.worktree",
                                           "worktrees/%/locked", "worktrees/%/hooks", "worktrees/%/modules", "worktrees/%/info"};
    rule(rules, "guard", "*", NULL);
    for (size_t i = 0; i < sizeof of_branch / sizeof *of_branch; i++)
        rule(rules, "except", of_branch[i], branch);
    for (size_t i = 0; i < sizeof except / sizeof *except; i++)
        rule(rules, "except", except[i], NULL);
    rule(rules, "except", "worktrees/%", id);
    for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++)
        rule(rules, "readonly", readonly[i], id);
}

/* `.sbx/` shall not turn up in the user's commits. */
static void ignore(const char *repo)
{
    const char *argv[] = {"check-ignore", "-q", ".sbx/x", NULL};
    if (git_run(repo, argv, NULL, 0, NULL) == 0)
        return;
    bool add = isatty(0) && isatty(2) && ask_yes("Add .sbx/ to .gitignore?");
    const char *file = add ? ".gitignore" : ".git/info/exclude";
    int top = open(repo, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = open_beneath(top, file, O_WRONLY | O_APPEND | O_CREAT, 0666);
    bool added = fd >= 0 && dprintf(fd, "%s", add ? ".sbx/\n" : "\n# worktrees of sandboxes\n.sbx/\n") > 0;
    if (fd >= 0)
        close(fd);
    if (top >= 0)
        close(top);
    if (!added)
        out_notice("%s/.sbx is not ignored by git: %s cannot be written, or is a link", repo, file);
    else if (!add)
        out_notice("%s/.sbx is ignored by this clone's .git/info/exclude; to ignore it for everybody: echo .sbx/ >> .gitignore", repo);
}

/* Where .git of a worktree says that its administration lies: the last component is its name. */
static int worktree_id(const char *tree, char *out, size_t cap, struct err *e)
{
    const char *argv[] = {"rev-parse", "--absolute-git-dir", NULL};
    char dir[PATH_MAX];
    if (git_run(tree, argv, dir, sizeof dir, e) < 0)
        return -1;
    const char *slash = strrchr(dir, '/');
    slash = slash ? slash + 1 : dir;
    if (strlen(slash) >= cap)
        return err_set(e, STATUS_FAILED, "the worktree's name is too long");
    strcpy(out, slash);
    return 0;
}

static int main_repository(const struct record *r, char *repo, size_t cap, struct err *e)
{
    char git[PATH_MAX];
    struct stat st;
    if (r->nfolders == 0)
        return err_set(e, STATUS_USAGE, "a branch needs a repository: give the folder of one");
    if (git_top(r->folders[0].path, repo, cap, e) < 0)
        return -1;
    snprintf(git, sizeof git, "%s/.git", repo);
    if (lstat(git, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(e, STATUS_USAGE, "%s is itself a worktree or a submodule; use the folder of the main repository", repo);
    return 0;
}

int branch_prepare(struct record *r, const char *branch, struct err *e)
{
    char repo[PATH_MAX], tree[PATH_MAX], git[PATH_MAX], parent[PATH_MAX], ref[300], id[256];
    if (git_check_branch(branch, e) < 0 || main_repository(r, repo, sizeof repo, e) < 0)
        return -1;
    if ((size_t)snprintf(tree, sizeof tree, "%s/.sbx/%s-worktrees/%s", repo, r->name, branch) >= sizeof tree ||
        (size_t)snprintf(git, sizeof git, "%s/.git", repo) >= sizeof git)
        return err_set(e, STATUS_USAGE, "the path of the worktree is too long");
    snprintf(parent, sizeof parent, "%s", tree);
    *strrchr(parent, '/') = '\0';
    snprintf(ref, sizeof ref, "refs/heads/%s", branch);
    const char *head[] = {"rev-parse", "--verify", "-q", "HEAD", NULL}, *known[] = {"show-ref", "--verify", "-q", ref, NULL};
    if (git_run(repo, head, NULL, 0, NULL) < 0)
        return err_set(e, STATUS_USAGE, "the repository %s has no commit yet; make a first one", repo);
    bool exists = git_run(repo, known, NULL, 0, NULL) == 0;
    ignore(repo);
    /* Without its files: writing them runs filters, which is for the guest. */
    const char *fresh[] = {"worktree", "add", "--no-checkout", "-q", "-b", branch, tree, NULL},
               *again[] = {"worktree", "add", "--no-checkout", "-q", tree, branch, NULL};
    if (access(tree, F_OK) == 0) {
        out_notice("the worktree %s is there already; the sandbox goes on in it", tree);
    } else if (path_mkdirs(parent, 0755, e) < 0 || git_run(repo, exists ? again : fresh, NULL, 0, e) < 0)
        return -1;
    if (worktree_id(tree, id, sizeof id, e) < 0)
        return -1;
    json_t *of_git = json_array(), *of_tree = json_array();
    /* No repository within: the host's git asks what looks like a submodule for its changes, and obeys its configuration. */
    rule(of_tree, "readonly", "**/.git", NULL);
    git_rules(of_git, branch, id);
    /* The worktree is the workspace, and .git comes second; what else was given follows. */
    struct record_folder more[RECORD_FOLDERS_MAX];
    unsigned n = r->nfolders;
    memcpy(more, r->folders, sizeof more);
    r->nfolders = 0;
    int rc = record_add_folder(r, tree, false, e) < 0 || record_add_folder(r, git, false, e) < 0 ? -1 : 0;
    for (unsigned i = 0; i < n; i++) {
        if (i > 0 && rc == 0)
            rc = record_add_folder(r, more[i].path, more[i].read_only, e);
        free(more[i].path);
    }
    json_object_set_new(r->extra, "rules", json_pack("[o, o]", of_tree, of_git));
    json_object_set_new(r->extra, "branch", json_pack("{s:s, s:s, s:s, s:b}", "name", branch, "repository", repo, "worktree", tree, "checkout", 1));
    if (rc == 0)
        fprintf(stderr, "Branch %s in %s\n", branch, tree);
    return rc;
}

int clone_prepare(struct record *r, struct err *e)
{
    char repo[PATH_MAX];
    if (main_repository(r, repo, sizeof repo, e) < 0)
        return -1;
    free(r->folders[0].path);
    r->folders[0].path = strdup(repo);
    r->folders[0].read_only = true;
    json_object_set_new(r->extra, "clone", json_pack("{s:s, s:b}", "repository", repo, "checkout", 1));
    return r->folders[0].path ? 0 : err_set(e, STATUS_FAILED, "out of memory");
}

static void quote(const char *text, char *out, size_t cap)
{
    size_t n = 0;
    out[n++] = '\'';
    for (; *text && n + 6 < cap; text++)
        if (*text == '\'') {
            memcpy(out + n, "'\\''", 4);
            n += 4;
        } else
            out[n++] = *text;
    out[n++] = '\'';
    out[n] = '\0';
}

/* The host fetches from the clone through sbx itself: a remote whose upload-pack runs in the sandbox. */
static void add_remote(const char *name, const char *repo)
{
    char remote[80], key[160], self_cmd[2 * PATH_MAX], url[64], program[PATH_MAX + 200];
    char *self = path_command(NULL);
    quote(self ? self : "sbx", program, sizeof program); /* a shell reads it */
    snprintf(remote, sizeof remote, "sbx-%s", name);
    snprintf(url, sizeof url, "/home/agent/workspace");
    snprintf(self_cmd, sizeof self_cmd, "%s exec -i %s git-upload-pack", program, name);
    const char *add[] = {"remote", "add", remote, url, NULL};
    snprintf(key, sizeof key, "remote.%s.uploadpack", remote);
    const char *set[] = {"config", key, self_cmd, NULL};
    if (git_run(repo, add, NULL, 0, NULL) == 0 && git_run(repo, set, NULL, 0, NULL) == 0)
        fprintf(stderr, "The agent works on a clone of its own. Fetch from it with: git fetch %s\n", remote);
    free(self);
}

int branch_finish(const char *name, struct err *e)
{
    struct record r;
    char step[3 * PATH_MAX], path[PATH_MAX * 2];
    if (record_load(&r, name, e) < 0)
        return -1;
    json_t *branch = json_object_get(r.extra, "branch"), *clone = json_object_get(r.extra, "clone"), *what = branch ? branch : clone;
    int rc = 0;
    if (json_is_true(json_object_get(what, "checkout"))) {
        quote(json_string_value(json_object_get(branch ? branch : clone, branch ? "worktree" : "repository")), path, sizeof path);
        if (branch)
            snprintf(step, sizeof step, "cd %s && git reset -q --hard", path);
        else
            snprintf(step, sizeof step, "git config --global --add safe.directory '*' && git clone -q --no-hardlinks %s /home/agent/workspace", path);
        rc = agent_step(name, step, branch ? "checking out its files" : "cloning the repository", e);
        if (rc == 0) {
            json_object_set_new(what, "checkout", json_false());
            rc = record_save(&r, e);
        }
        if (rc == 0 && clone)
            add_remote(name, json_string_value(json_object_get(clone, "repository")));
    }
    record_finish(&r);
    return rc;
}

bool branch_is_clone(const char *name)
{
    struct record r;
    if (record_load(&r, name, NULL) < 0)
        return false;
    bool is = json_object_get(r.extra, "clone") != NULL;
    record_finish(&r);
    return is;
}

void branch_farewell(const struct record *r)
{
    const json_t *branch = json_object_get(r->extra, "branch"), *clone = json_object_get(r->extra, "clone");
    const char *tree = json_string_value(json_object_get(branch, "worktree")), *repo = json_string_value(json_object_get(branch ? branch : clone, "repository"));
    char remote[80];
    if (branch && tree && repo && access(tree, F_OK) == 0)
        fprintf(stderr, "The branch %s and its worktree stay: %s\nTo remove the worktree: git -C %s worktree remove %s\n",
                json_string_value(json_object_get(branch, "name")), tree, repo, tree);
    if (clone && repo) {
        snprintf(remote, sizeof remote, "sbx-%s", r->name);
        const char *rm[] = {"remote", "remove", remote, NULL};
        git_run(repo, rm, NULL, 0, NULL);
    }
}
