/* What an agent needs before its first sandbox: its template.  Its recipe runs once in a sandbox of its own, under a policy that
 * allows where it is installed from and nothing else, and the disk is frozen. */
#ifndef SBX_UI_CLI_AGENT_H
#define SBX_UI_CLI_AGENT_H

#include <jansson.h>

#include "core/err.h"

/* The template, made if it is missing, with progress; *name is malloc'ed, NULL if the agent needs none. */
int agent_need(const json_t *kit, char **name, struct err *e);
/* A shell command inside, as its user; what it prints is of interest only if it fails.  title: where not NULL, what is told
 * while it runs. */
int agent_step(const char *sandbox, const char *step, const char *title, struct err *e);

#endif
