#ifndef SBX_NET_BROKER_H
#define SBX_NET_BROKER_H

/* The process `sbx broker NAME` (docs/protocols.md).  Returns its exit status. */
int broker_main(int argc, char **argv);

#endif
