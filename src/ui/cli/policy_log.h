#ifndef SBX_UI_CLI_POLICY_LOG_H
#define SBX_UI_CLI_POLICY_LOG_H

#include "core/err.h"

/* sbx policy log; argv[0] is "log". */
int policy_log_command(int argc, char **argv, struct err *e);

#endif
