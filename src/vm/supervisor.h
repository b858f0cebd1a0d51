#ifndef SBX_VM_SUPERVISOR_H
#define SBX_VM_SUPERVISOR_H

/* The process `sbx supervise NAME` (docs/protocols.md, "Starting").  Returns its exit status. */
int supervise_main(int argc, char **argv);

#endif
