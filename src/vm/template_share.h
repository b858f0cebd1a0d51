/* Frozen machines handed from supervisor to supervisor (see template.h). */
#ifndef SBX_VM_TEMPLATE_SHARE_H
#define SBX_VM_TEMPLATE_SHARE_H

/* Asks every running sibling for the frozen machine of that key; 0 with two descriptors, or -1. */
int template_share_ask(const char *key, int *ram, int *state);

#endif
