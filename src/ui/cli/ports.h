/* Published ports on the command line. */
#ifndef SBX_UI_CLI_PORTS_H
#define SBX_UI_CLI_PORTS_H

#include "ui/cli/cli.h"

/* Adds "[ADDRESS:]HOST:SANDBOX" or "SANDBOX" to a record's list.  running: whether its supervisor picks a free port. */
int ports_add(json_t *list, const char *text, bool running, struct err *e);
int cmd_ports(const struct args *a, struct err *e);

#endif
