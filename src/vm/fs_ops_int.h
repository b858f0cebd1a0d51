/* What the files of the FUSE operations share: fs_ops.c (names and attributes), fs_dir.c, fs_io.c. */
#ifndef SBX_VM_FS_OPS_INT_H
#define SBX_VM_FS_OPS_INT_H

#include "vm/fs_handle.h"
#include "vm/fs_node.h"
#include "vm/fs_watch.h"

/* How long the guest may keep what it was told.  Watched: the host says when it changes.  Not for an hour all the
 * same: a notice can overtake, in the guest, the answer to a look-up that it is about, and must not be wrong for long. */
#define FS_LONG_S 300.0
#define FS_SHORT_S 1.0

#define FS_KEEP_FILES_MAX 100000u /* of the files that the host's disk has room for, kept free where bytes are */

/* One component: what the guest's kernel would never send is what an attacker does. */
bool fs_name_ok(const char *name);

/* The attributes as the guest sees them: owners squashed, no set-user-id. */
void fs_squash(struct stat *st);

/* The node of that name in parent, watched, with a reference for the guest.  0 or an errno. */
int fs_entry(struct node *parent, const char *name, struct fuse_entry_param *e);
bool fs_root_entry(unsigned folder, struct fuse_entry_param *e);

/* 0, or the errno with which a change of the node itself, or of that name in it, is refused.  makes: what would stand
 * there afterwards (S_IF…), 0 if the name goes or stays as it is. */
int fs_may_change(struct node *n, const char *name, mode_t makes);
/* 0, or ENOSPC where `more` bytes in n's folder, or another name (0), would leave the host too little (fs_config.keep_free). */
int fs_room(const struct node *n, size_t more);
bool fs_hidden(struct node *parent, const char *name);

/* The node's data or attributes are about to be changed by the guest. */
void fs_own_change(struct node *n);

void fs_proc_path(char out[64], int fd);

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void op_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t out,
                        off_t off_out, struct fuse_file_info *fi_out, size_t len, int flags);

#endif
