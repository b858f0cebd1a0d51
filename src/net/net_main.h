#ifndef SBX_NET_NET_MAIN_H
#define SBX_NET_NET_MAIN_H

/* The process `sbx net NAME` (docs/protocols.md).  Returns its exit status. */
int net_main(int argc, char **argv);

#endif
