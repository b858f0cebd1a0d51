#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/config.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/sanitize.h"
#include "core/obeyed.h"
#include "core/spawn.h"
#include "vm/supervisor_int.h"

/* A screen process that dies again and again has met something that kills it each time. */
#define SCREEN_RESTARTS 20
/* Seconds between attempts to renew a secret. */
#define RENEW_WAIT_MIN 5u
#define RENEW_WAIT_MAX 600u
/* Where the folders' descriptors begin in `sbx fs`. */
#define FS_FOLDER_FD 6

const char *const role_names[ROLES] = {"broker", "net", "fs", "screen"};

static void on_screen_open(struct supervisor *s)
{
    sessions_set_screen(s->sessions, linkev_link(s->helpers[ROLE_SCREEN].link), s->helpers[ROLE_SCREEN].ctl);
}

static void on_served(void *arg, const json_t *reply, const char *error)
{
    (void)reply;
    struct helper *h = arg;
    if (error) {
        supervisor_fail(h->owner, "the workspace cannot be served: %s", error);
        return;
    }
    h->owner->folders_served = true;
    boot_helper_ready(h->owner);
}

static void add_rule(json_t *rules, const char *kind, const char *path)
{
    json_array_append_new(rules, json_pack("{s:s, s:s}", "kind", kind, "path", path));
}

/* What git reads of a repository's administration and obeys: `commondir` is where it looks for the configuration. */
static void protect_git(json_t *rules, const char *git)
{
    static const char *const obeyed[] = {
        ".git/hooks", ".git/config", ".git/config.worktree", ".git/commondir", ".git/modules/**/config",
        ".git/modules/**/config.worktree", ".git/modules/**/commondir", ".git/modules/**/hooks"};
    struct stat st;
    if (lstat(git, &st) < 0)
        return;
    if (!S_ISDIR(st.st_mode))
        add_rule(rules, "readonly", ".git");
    for (size_t k = 0; S_ISDIR(st.st_mode) && k < sizeof obeyed / sizeof *obeyed; k++)
        add_rule(rules, "readonly", obeyed[k]);
}

/* Does the worktree of that administration lie beneath the folder? */
static bool lies_within(int dir, const char *id, const char *folder)
{
    char file[NAME_MAX + 16], path[PATH_MAX];
    snprintf(file, sizeof file, "%s/gitdir", id);
    int fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, path, sizeof path - 1);
    size_t len = strlen(folder);
    if (fd >= 0)
        close(fd);
    path[n > 0 ? n : 0] = '\0';
    return strncmp(path, folder, len) == 0 && path[len] == '/' && !strstr(path, "/..");
}

#define WORKTREES_MAX 8 /* by name; FS_RULES_MAX bounds a folder's rules */

/* The user's other worktrees, out of the guest's reach, are administered within it.  One that the guest made of its own
 * stays its own to remove. */
static void protect_worktrees(json_t *rules, const char *git, const char *folder)
{
    static const char *const obeyed[] = {"commondir", "config.worktree", "gitdir"};
    char path[PATH_MAX + 16], ids[WORKTREES_MAX][NAME_MAX + 1];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/worktrees", git);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    for (const struct dirent *i; d && n <= WORKTREES_MAX && (i = readdir(d));) {
        if (i->d_name[0] == '.' || lies_within(fd, i->d_name, folder))
            continue;
        json_t *text = json_string(i->d_name); /* none of what is no UTF-8 */
        bool fits = text && n < WORKTREES_MAX;
        json_decref(text);
        if (fits)
            strcpy(ids[n++], i->d_name);
        else {
            strcpy(ids[0], "*");
            n = 1;
            break;
        }
    }
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof obeyed / sizeof *obeyed; k++) {
            snprintf(path, sizeof path, ".git/worktrees/%s/%s", ids[i], obeyed[k]);
            add_rule(rules, "readonly", path);
        }
}

/* What the user's settings, or the folder's being a repository, say of its files; `own`: its record's rules, or NULL. */
static json_t *folder_rules(const json_t *config, const char *folder, const json_t *own)
{
    json_t *rules = json_is_array(own) ? json_deep_copy(own) : json_array(), *v;
    char git[PATH_MAX];
    size_t i;
    json_array_foreach(config_value(config, "workspace.hide"), i, v)
        add_rule(rules, "hide", json_string_value(v));
    json_array_foreach(config_value(config, "workspace.readonly"), i, v)
        add_rule(rules, "readonly", json_string_value(v));
    if (!own && json_is_true(config_value(config, "workspace.protect_git")) &&
        (size_t)snprintf(git, sizeof git, "%s/.git", folder) < sizeof git) {
        protect_git(rules, git);
        protect_worktrees(rules, git, folder);
    }
    return rules;
}

/* A folder that lies within another is reached through that one as well: what holds of it there, holds here. */
static void add_rules_of_inner(json_t *folders, const struct record *r)
{
    size_t own[RECORD_FOLDERS_MAX];
    for (unsigned i = 0; i < r->nfolders; i++)
        own[i] = json_array_size(json_object_get(json_array_get(folders, i), "rules"));
    for (unsigned i = 0; i < r->nfolders; i++)
        for (unsigned k = 0; k < r->nfolders; k++) {
            const struct record_folder *outer = &r->folders[i], *inner = &r->folders[k];
            size_t len = strlen(outer->path), n;
            char path[2 * PATH_MAX];
            if (i == k || strncmp(inner->path, outer->path, len) != 0 || inner->path[len] != '/')
                continue;
            const char *within = inner->path + len + 1;
            json_t *to = json_object_get(json_array_get(folders, i), "rules"),
                   *from = json_object_get(json_array_get(folders, k), "rules");
            if (inner->read_only && !outer->read_only)
                add_rule(to, "readonly", within);
            for (n = 0; n < own[k]; n++) {
                const json_t *v = json_array_get(from, n);
                snprintf(path, sizeof path, "%s/%s", within, json_string_value(json_object_get(v, "path")));
                add_rule(to, json_string_value(json_object_get(v, "kind")), path);
            }
        }
}

static void serve_folders(struct helper *h)
{
    struct supervisor *s = h->owner;
    struct err e = {0};
    json_t *config = config_load(&e);
    if (!config) {
        supervisor_fail(s, "the workspace cannot be served: %s", e.text);
        return;
    }
    json_t *folders = json_array();
    json_t *rules = json_object_get(s->record.extra, "rules"); /* a list for each folder */
    for (unsigned i = 0; i < s->record.nfolders; i++) {
        json_t *f = json_pack("{s:i, s:i, s:b}", "index", (int)i, "fd", (int)(FS_FOLDER_FD + i), "ro",
                              (int)s->record.folders[i].read_only);
        json_object_set_new(f, "rules", folder_rules(config, s->record.folders[i].path, json_array_get(rules, i)));
        json_array_append_new(folders, f);
    }
    add_rules_of_inner(folders, &s->record);
    json_int_t keep = json_integer_value(config_value(config, "limit.keep_free"));
    json_decref(config);
    /* The guest's account `agent`, as the base image has it. */
    json_t *msg = json_pack("{s:s, s:o, s:i, s:i, s:I}", "op", "start", "folders", folders, "uid", 1000, "gid", 1000,
                            "keep_free", keep << 20);
    ctl_send(h->ctl, linkev_link(h->link), msg, 10000, on_served, h);
}

static void on_hello(struct helper *h)
{
    h->ready = true;
    if (h->role == ROLE_FS && h->owner->record.nfolders)
        serve_folders(h);
    boot_helper_ready(h->owner);
}

/* Tokens of sign-ins and what a command prints grow old: another process of ours, with the store's lock and the network,
 * renews them, for the broker has neither. */
void helpers_renew(struct supervisor *s)
{
    struct err e = {0};
    int64_t now = time(NULL);
    if (!s->renew_at || s->renewer || (!s->renew_look && (now < s->renew_at || now < s->renew_next)))
        return;
    s->renew_look = false;
    char *self = path_command(&e);
    char *const argv[] = {self, (char *)"secret", (char *)"renew", NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct spawn_fd fds[] = {{null, 0}, {null, 1}, {s->log_pipe[1], 2}};
    const struct spawn spawn = {.path = self, .argv = argv, .fds = fds, .nfds = 3, .die_with_parent = true};
    /* Where it fails the provider is asked again, ever more seldom. */
    s->renew_next = now + s->renew_wait;
    s->renew_wait = s->renew_wait < RENEW_WAIT_MAX / 2 ? 2 * s->renew_wait : RENEW_WAIT_MAX;
    if (self && null >= 0 && (s->renewer = spawn_run(&spawn, &e)) < 0) {
        s->renewer = 0;
        log_line("secrets cannot be renewed: %s", e.text);
    }
    if (null >= 0)
        close(null);
    free(self);
}

/* What the broker put into the pipe goes into the store. */
static void take_minted(struct supervisor *s)
{
    struct err e = {0};
    char *self = path_command(&e);
    char *const argv[] = {self, (char *)"secret", (char *)"take", (char *)s->name, NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const struct spawn_fd fds[] = {{s->mint_pipe[0], 0}, {null, 1}, {s->log_pipe[1], 2}};
    const struct spawn spawn = {.path = self, .argv = argv, .fds = fds, .nfds = 3, .die_with_parent = true};
    s->take_again = s->taker > 0;
    if (!s->take_again && self && null >= 0 && (s->taker = spawn_run(&spawn, &e)) < 0) {
        s->taker = 0;
        log_line("the tokens of a sign-in cannot be kept: %s", e.text);
    }
    if (null >= 0)
        close(null);
    free(self);
}

void helpers_taken(struct supervisor *s)
{
    s->taker = 0;
    if (s->take_again)
        take_minted(s);
}

static void on_secrets(struct supervisor *s, const json_t *msg)
{
    const char *why = json_string_value(json_object_get(msg, "error")), *key;
    json_t *env = json_copy(json_object_get(msg, "env")), *v;
    void *next;
    /* What the user gave the sandbox wins. */
    json_object_foreach_safe(env, next, key, v)
        if (json_object_get(s->record.env, key))
            json_object_del(env, key);
    sessions_set_env(s->sessions, env);
    json_decref(env);
    if (!json_is_true(json_object_get(msg, "ok")))
        supervisor_notice(s, why && why[0] ? why : "the secrets cannot be read");
    s->renew_at = json_integer_value(json_object_get(msg, "renew"));
    if (s->renew_at > time(NULL)) {
        s->renew_next = 0;
        s->renew_wait = RENEW_WAIT_MIN;
    }
    helpers_renew(s); /* what expired while nothing ran, at once */
}

/* What the broker tells of the rules or the log; "" takes back what it told before. */
static void network_trouble(struct supervisor *s, char *place, size_t cap, const char *text)
{
    bool was = place[0];
    sanitize_line(place, cap, text, strlen(text));
    if (text[0]) {
        supervisor_notice(s, text);
    } else if (was) { /* over: what was to be said before holds again */
        snprintf(s->notice, sizeof s->notice, "%s", s->accel.notice);
        clients_changed(s->clients);
    }
}

static void on_ctrl(struct linkev *ev, json_t *msg, void *arg)
{
    (void)ev;
    struct helper *h = arg;
    struct supervisor *s = h->owner;
    if (ctl_take(h->ctl, msg))
        return;
    const char *op = json_string_value(json_object_get(msg, "op"));
    if (op && strcmp(op, "hello") == 0) {
        on_hello(h);
    } else if (h->role == ROLE_SCREEN) {
        sessions_screen_ctrl(s->sessions, msg);
    } else if (op && strcmp(op, "nested") == 0) {
        const char *path = json_string_value(json_object_get(msg, "path"));
        if (path)
            obeyed_add(&s->record, (unsigned)json_integer_value(json_object_get(msg, "folder")), path);
    } else if (op && strcmp(op, "blocked") == 0) {
        s->blocked = json_integer_value(json_object_get(msg, "count"));
        clients_changed(s->clients);
    } else if (op && strcmp(op, "policy") == 0) {
        const char *why = json_string_value(json_object_get(msg, "error"));
        network_trouble(s, s->policy_trouble, sizeof s->policy_trouble,
                        json_is_true(json_object_get(msg, "ok")) ? "" : why ? why : "the policy cannot be read: everything is denied");
    } else if (h->role == ROLE_BROKER && op && strcmp(op, "log") == 0) {
        const char *text = json_string_value(json_object_get(msg, "text"));
        char why[sizeof s->log_trouble];
        bool lost = json_is_true(json_object_get(msg, "lost"));
        snprintf(why, sizeof why, lost ? "network log: %.400s" : "everything is denied: %.400s", text ? text : "");
        /* That rows were lost is true until the sandbox stops. */
        if (lost)
            snprintf(s->log_lost, sizeof s->log_lost, "%s", why);
        network_trouble(s, s->log_trouble, sizeof s->log_trouble, text && text[0] ? why : s->log_lost);
    } else if (h->role == ROLE_BROKER && op && (strcmp(op, "ask") == 0 || strcmp(op, "asked") == 0)) {
        clients_question(s->clients, msg);
    } else if (h->role == ROLE_BROKER && op && strcmp(op, "secrets") == 0) {
        on_secrets(s, msg);
    } else if (h->role == ROLE_BROKER && op && strcmp(op, "minted") == 0) {
        take_minted(s);
    } else {
        log_line("%s says \"%s\"", role_names[h->role], op ? op : "");
    }
}

static void on_data(struct linkev *ev, uint16_t chan, unsigned stream, const uint8_t *buf, size_t len, void *arg)
{
    (void)ev;
    struct helper *h = arg;
    if (h->role == ROLE_SCREEN)
        sessions_screen_data(h->owner->sessions, chan, stream, buf, len);
}

static void on_eof(struct linkev *ev, uint16_t chan, unsigned stream, void *arg)
{
    (void)ev;
    struct helper *h = arg;
    if (h->role == ROLE_SCREEN)
        sessions_screen_eof(h->owner->sessions, chan, stream);
}

static void on_writable(struct linkev *ev, uint16_t chan, unsigned stream, void *arg)
{
    (void)ev;
    struct helper *h = arg;
    if (h->role == ROLE_SCREEN)
        sessions_screen_writable(h->owner->sessions, chan, stream);
}

static void on_closed(struct linkev *ev, const char *why, void *arg)
{
    (void)ev;
    struct helper *h = arg;
    if (why)
        log_line("the link to %s broke: %s", role_names[h->role], why);
    /* What that means is decided where its end is reaped; one that lives on without a link is of no use. */
    if (h->pid > 0)
        kill(h->pid, SIGKILL);
    if (h->role == ROLE_SCREEN)
        sessions_set_screen(h->owner->sessions, NULL, NULL);
}

static const struct linkev_ops link_ops = {
    .ctrl = on_ctrl, .data = on_data, .eof = on_eof, .writable = on_writable, .closed = on_closed};

/* link: the number of the helper's supervisor link in its descriptor table. */
static int start_one(struct supervisor *s, enum role role, const struct spawn_fd *own, size_t nown, int link_to,
                     struct err *e)
{
    struct helper *h = &s->helpers[role];
    struct spawn_fd fds[8 + RECORD_FOLDERS_MAX];
    size_t n = 0;
    int pair[2], null = open("/dev/null", O_RDWR | O_CLOEXEC), rc = -1;
    char *self = path_role(role_names[role], e);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        free(self);
        close(null);
        return err_errno(e, errno, "cannot make a socket pair");
    }
    for (size_t i = 0; i < nown; i++)
        fds[n++] = own[i];
    fds[n++] = (struct spawn_fd){pair[1], link_to};
    fds[n++] = (struct spawn_fd){null, 0};
    fds[n++] = (struct spawn_fd){null, 1};
    fds[n++] = (struct spawn_fd){s->log_pipe[1], 2};
    char *argv[] = {(char *)"sbx", (char *)role_names[role], (char *)s->name, NULL};
    struct spawn sp = {.path = self, .argv = argv, .fds = fds, .nfds = n, .bare = true, .die_with_parent = true, .new_session = true};
    h->owner = s;
    h->role = role;
    h->ready = false;
    h->pid = self ? spawn_run(&sp, e) : -1;
    close(pair[1]);
    close(null);
    free(self);
    if (h->pid > 0) {
        h->ctl = ctl_new(s->base);
        h->link = linkev_new(s->base, pair[0], &link_ops, h);
        rc = h->ctl && h->link ? 0 : err_set(e, STATUS_FAILED, "out of memory");
    }
    if (rc < 0 && !h->link)
        close(pair[0]);
    return rc;
}

static int start_fs(struct supervisor *s, struct err *e)
{
    struct spawn_fd fds[1 + RECORD_FOLDERS_MAX] = {{s->fs_pair[1], 3}};
    size_t n = 1;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < s->record.nfolders; i++) {
        const char *path = s->record.folders[i].path;
        int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            rc = err_errno(e, errno, "cannot open the folder %s", path);
        else
            fds[n++] = (struct spawn_fd){fd, FS_FOLDER_FD + (int)i};
    }
    if (rc == 0)
        rc = start_one(s, ROLE_FS, fds, n, 4, e);
    for (size_t i = 1; i < n; i++)
        close(fds[i].from);
    return rc;
}

static int start_screen(struct supervisor *s, struct err *e)
{
    if (start_one(s, ROLE_SCREEN, NULL, 0, 3, e) < 0)
        return -1;
    on_screen_open(s);
    return 0;
}

int helpers_start(struct supervisor *s, struct err *e)
{
    int ask[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ask) < 0)
        return err_errno(e, errno, "cannot make a socket pair");
    if (pipe2(s->mint_pipe, O_CLOEXEC | O_NONBLOCK) < 0) {
        close(ask[0]);
        close(ask[1]);
        return err_errno(e, errno, "cannot make a pipe");
    }
    const struct spawn_fd net[] = {{s->net_pair[1], 3}, {ask[0], 4}}, broker[] = {{ask[1], 4}, {s->mint_pipe[1], 5}};
    int rc = start_one(s, ROLE_NET, net, 2, 5, e);
    if (rc == 0)
        rc = start_one(s, ROLE_BROKER, broker, 2, 3, e);
    if (rc == 0)
        rc = start_fs(s, e);
    if (rc == 0)
        rc = start_screen(s, e);
    close(ask[0]);
    close(ask[1]);
    close(s->mint_pipe[1]);
    if (rc < 0)
        helpers_end(s);
    return rc;
}

bool helpers_ready(const struct supervisor *s)
{
    /* A session can do without a screen; it is started again by itself if it fails. */
    for (int r = 0; r < ROLES; r++)
        if (r != ROLE_SCREEN && !s->helpers[r].ready)
            return false;
    return s->record.nfolders == 0 || s->folders_served;
}

static void drop(struct helper *h)
{
    linkev_free(h->link);
    h->link = NULL;
    ctl_free(h->ctl);
    h->ctl = NULL;
}

static void on_screen_due(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct supervisor *s = arg;
    struct err e = {0};
    if (s->life == LIFE_STOPPING)
        return;
    if (start_screen(s, &e) == 0)
        log_line("sbx screen was started again; screens begin empty");
    else
        log_line("%s", e.text);
}

/* At once the first time, then ever slower. */
static void restart_screen_later(struct supervisor *s)
{
    unsigned tries = s->helpers[ROLE_SCREEN].restarts++;
    struct timeval tv = {tries * tries / 10, tries * tries % 10 * 100000};
    if (tries >= SCREEN_RESTARTS)
        supervisor_notice(s, "the screen process fails again and again; terminals stay blank until a restart");
    else if (s->screen_timer || (s->screen_timer = evtimer_new(s->base, on_screen_due, s)))
        evtimer_add(s->screen_timer, &tv);
}

bool helper_reaped(struct supervisor *s, pid_t pid, int status)
{
    for (int r = 0; r < ROLES; r++) {
        struct helper *h = &s->helpers[r];
        if (h->pid != pid)
            continue;
        h->pid = 0;
        char how[64];
        if (status >= 128)
            snprintf(how, sizeof how, "signal %d", status - 128);
        else
            snprintf(how, sizeof how, "status %d", status);
        log_line("sbx %s ended: %s", role_names[r], how);
        if (r == ROLE_SCREEN) {
            sessions_set_screen(s->sessions, NULL, NULL);
            drop(h);
            restart_screen_later(s);
        } else {
            /* The cable cannot be plugged in again, and a machine without its workspace loses data. */
            supervisor_fail(s, "its %s process ended unexpectedly (%s); see sbx.log",
                            r == ROLE_FS ? "workspace" : r == ROLE_NET ? "network" : "broker", how);
        }
        return true;
    }
    return false;
}

static void await_end(struct helper *h)
{
    const struct timespec moment = {0, 2000000};
    for (int waited = 0; h->pid > 0 && waited < STOP_WRITE_S * 1000; waited += 2) {
        if (waitpid(h->pid, NULL, WNOHANG) != 0)
            h->pid = 0;
        else
            nanosleep(&moment, NULL);
    }
}

/* They write down what waits: net hears the end of its link and tells the broker what it counted and what was still open, the
 * broker hears the end of net and brings all of it into the log.  Killed at once, both would lose it. */
static void end_network(struct helper *net, struct helper *broker)
{
    if (net->ctl)
        drop(net);
    await_end(net);
    if (net->pid > 0)
        kill(net->pid, SIGKILL); /* reaped with the rest */
    await_end(broker);
}

void helpers_end(struct supervisor *s)
{
    if (s->mint_pipe[0] > 0)
        close(s->mint_pipe[0]);
    s->mint_pipe[0] = -1;
    sessions_set_screen(s->sessions, NULL, NULL);
    end_network(&s->helpers[ROLE_NET], &s->helpers[ROLE_BROKER]);
    for (int r = 0; r < ROLES; r++) {
        struct helper *h = &s->helpers[r];
        if (h->pid > 0) {
            kill(h->pid, SIGKILL);
            spawn_wait(h->pid);
        }
        h->pid = 0;
        if (h->ctl)
            drop(h);
    }
}
