/* The inodes that the guest knows, and how each is reached beneath its folder.
 *
 * Theory of operation.  A node is a place: the parent node and a name, with the identity (device, inode, type,
 * time of birth) that was found there.  Descriptors are opened when an operation needs one, O_PATH, one component at a
 * time with O_NOFOLLOW from the parent's, and the identity is compared: what was swapped meanwhile, for a symbolic
 * link above all, is ESTALE and never followed.  So no operation can leave the folder, a tree of any size needs few
 * descriptors (the least recently used are closed), and an inode number that the host reuses is another node.
 * Numbers given to the guest are index and generation, checked on the way back. */
#ifndef SBX_VM_FS_NODE_H
#define SBX_VM_FS_NODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>

#define FS_NODES_MAX 1000000u /* some 200 bytes each with a usual name, 470 with the longest: what a guest that never forgets can use */
#define FS_FOLDERS_MAX 16u
#define FS_DEPTH_MAX 4096u /* folders one in the other: what is found out of each by its parents recurses */

struct node {
    uint32_t index, generation;
    struct node *parent; /* NULL: a folder's top */
    char *name;
    uint64_t lookups;    /* what the guest will forget */
    uint32_t children;   /* nodes whose parent this is */
    uint32_t pins;       /* open handles; the descriptor stays */
    dev_t dev;
    ino_t ino;
    int64_t born_ns;
    mode_t type;
    uint8_t folder;
    bool unlinked;       /* no name leads here any more */
    bool hashed;
    bool in_lru;
    bool retired;        /* the next look-up makes another node for the same file */
    bool twin;           /* there was a retired node of the same file when it was made, or it is that one */
    int fd;              /* O_PATH, or -1 */
    int wd;              /* inotify watch of a directory, or -1 (vm/fs_watch.h) */
    struct node *hash_next, *lru_prev, *lru_next, *wd_next;
};

struct fs_rules;

struct fs_folder {
    int fd; /* O_PATH of the top */
    bool read_only;
    const struct fs_rules *rules; /* vm/fs_rules.h; NULL: none */
};

/* Folders' descriptors stay the caller's.  fds_max: descriptors that the nodes may hold together. */
int nodes_init(const struct fs_folder *folders, unsigned n, unsigned fds_max);

/* Nodes by the guest's number; NULL if it is made up or forgotten.  FUSE_ROOT_ID is not among them. */
struct node *node_get(fuse_ino_t ino);
fuse_ino_t node_number(const struct node *n);
struct node *node_top(unsigned folder);
const struct fs_folder *node_folder(const struct node *n);

/* The O_PATH descriptor, opened if need be; stays the table's, valid until the next node_fd.  -errno. */
int node_fd(struct node *n);

/* Finds or makes the child of that name; st gets its attributes.  Adds one lookup.  NULL with errno. */
struct node *node_lookup(struct node *parent, const char *name, struct stat *st);
/* The node of what stands under that name now, or NULL; no lookup added. */
struct node *node_known_child(struct node *parent, const char *name);
/* fn for each node of what stands under that name now, retired ones as well. */
void node_each_known(struct node *parent, const char *name, void (*fn)(struct node *n, const struct stat *st, void *arg),
                     void *arg);
/* A guest that caches writes trusts its own idea of a file's size and times for as long as it knows the inode.  So a
 * file that the host changed becomes another inode at the next look-up; who has it open keeps the old one. */
void node_retire(struct node *n);

void node_forget(struct node *n, uint64_t count);
void node_pin(struct node *n);
void node_unpin(struct node *n);
/* The guest renamed: names are kept right so that nodes stay reachable. */
void node_moved(struct node *n, struct node *parent, const char *name);
/* A name is about to go: its node, pinned, with the descriptor by which alone it can be reached afterwards; NULL if
 * the guest knows none.  node_left unpins it; left: the name did go; last: no other name is left. */
struct node *node_leaving(struct node *parent, const char *name);
void node_left(struct node *n, struct node *parent, const char *name, bool left, bool last);

/* statx beneath parent (or of the node itself, name NULL) into st, with the time of birth. 0 or errno. */
int node_stat(struct node *n, const char *name, struct stat *st, int64_t *born_ns);

/* Called for each node that is about to be freed. */
void node_set_freed(void (*fn)(struct node *n));

unsigned nodes_count(void);
void nodes_each(void (*fn)(struct node *n, void *arg), void *arg);
void nodes_finish(void);

#endif
