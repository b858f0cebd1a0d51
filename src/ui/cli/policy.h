/* What the commands of `sbx policy` share. */
#ifndef SBX_UI_CLI_POLICY_H
#define SBX_UI_CLI_POLICY_H

#include "core/policy.h"
#include "ui/cli/cli.h"

/* "90s", "15m", "1h", "7d" to seconds. */
int policy_cli_duration(const char *text, long long *out, struct err *e);
/* That it exists; a record that is damaged keeps nobody from shutting its network. */
int policy_cli_need(const char *sandbox, struct err *e);
/* Whose policy: -g, or the first word if it is a sandbox.  *next: where the other words begin. */
int policy_cli_scope(const struct args *a, int first, const char **sandbox, int *next, struct err *e);

/* Asks for the posture, on a terminal alone; POSTURE_UNSET if there is none or nothing was chosen. */
enum posture policy_cli_choose(void);

#endif
