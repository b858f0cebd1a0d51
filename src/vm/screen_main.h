#ifndef SBX_VM_SCREEN_MAIN_H
#define SBX_VM_SCREEN_MAIN_H

/* The process `sbx screen NAME` (docs/protocols.md).  Returns its exit status. */
int screen_main(int argc, char **argv);

#endif
