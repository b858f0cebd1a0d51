#ifndef SBX_VM_FS_H
#define SBX_VM_FS_H

/* The process `sbx fs NAME` (docs/protocols.md).  Returns its exit status. */
int fs_main(int argc, char **argv);

#endif
