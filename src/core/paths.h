/* Where things lie: the XDG folders, the runtime sockets, what was installed with sbx.
 * Paths are absolute and malloc'ed; the caller frees them.  NULL means failure with err set. */
#ifndef SBX_CORE_PATHS_H
#define SBX_CORE_PATHS_H

#include <sys/types.h>

#include "core/err.h"

enum path_root {
    PATH_CONFIG,  /* $XDG_CONFIG_HOME/sbx: config.json, policy.json, agents/ */
    PATH_DATA,    /* $XDG_DATA_HOME/sbx: images, templates, sandboxes/NAME, secrets */
    PATH_CACHE,   /* $XDG_CACHE_HOME/sbx: what can be made again */
    PATH_RUNTIME, /* $XDG_RUNTIME_DIR/sbx, else /run/user/UID/sbx, else /tmp/sbx-UID (checked) */
};

/* root/<formatted sub path>.  The root itself is made (0700) if missing; an XDG variable that is
 * not an absolute path is ignored, as the XDG base directory specification says. */
char *path_in(enum path_root root, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* $XDG_DATA_HOME/sbx/sandboxes/NAME[/file]; file may be NULL. */
char *path_sandbox(const char *name, const char *file, struct err *e);

/* The client socket of a sandbox: where its supervisor put it, which may be another runtime folder than ours (cron's, sudo's,
 * that of a login which is over). */
char *path_socket(const char *name, struct err *e);
/* For the supervisor: where its socket belongs by its own environment; and that it is there now. */
char *path_socket_here(const char *name, struct err *e);
int path_socket_moved(const char *name, const char *path, struct err *e);

/* A file of assets/: beside the build tree when run from it, else in PREFIX/share/sbx. */
char *path_asset(const char *rel, struct err *e);

/* The programs of sbx that belong to the one that runs: the command itself, one of a sandbox's processes ("supervise",
 * "broker", "net", "fs", "screen": a program each, so that none maps the libraries of the others) or the whole command line
 * ("command"), the guest's init. */
char *path_command(struct err *e);
char *path_role(const char *role, struct err *e);
char *path_guest_binary(struct err *e);

/* mkdir -p with `mode` for what is made. 0 or -1. */
int path_mkdirs(const char *dir, mode_t mode, struct err *e);

/* Removes a tree without following links or crossing into another file system; a missing one is fine. */
int path_remove_tree(const char *dir, struct err *e);

#endif
