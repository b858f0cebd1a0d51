/* What several commands do with sandboxes. */
#ifndef SBX_UI_CLI_SANDBOX_H
#define SBX_UI_CLI_SANDBOX_H

#include <signal.h>

#include "core/record.h"
#include "ui/cli/cli.h"

/* A signal came in a while that has something to clear up behind it. */
extern volatile sig_atomic_t sandbox_interrupted;

/* Signals that would end us end the step at hand instead (sandbox_interrupted), while what it made is still to be taken away;
 * off again: the one that came does what it would have done.  old: what was there, kept in between. */
void sandbox_hold_signals(bool on, struct sigaction old[3]);

/* Starts it and waits until it runs, with progress; fine if it runs already. */
int sandbox_start(const char *name, struct err *e);
/* The same without what a first start has to do once it runs: 1 if that is to be looked for, 0 if it ran already. */
int sandbox_up(const char *name, struct err *e);
/* Asks it to stop and waits; fine if it does not run. */
int sandbox_stop(const char *name, int timeout_s, struct err *e);
/* Tells, once, which files that programs of this host obey were changed in its workspace. */
void sandbox_tell_changed(const char *name);
bool sandbox_running(const char *name);
/* Stopped or not: its folder goes, never a workspace.  force: a running one is stopped first. */
int sandbox_remove(const char *name, bool force, struct err *e);
/* Its status as `ls` and `inspect` show it: the record, and what the supervisor says.  New reference. */
json_t *sandbox_describe(const char *name, bool full, struct err *e);

/* Builds the base image if there is none, with progress. */
int sandbox_need_image(struct err *e);
/* A variable as the user gives it: "NAME=VALUE", or "NAME" with this host's value. */
int cli_variable(json_t *env, const char *text, struct err *e);
/* Folders as the user gives them: "PATH[:ro]". */
int sandbox_folder(struct record *r, const char *text, struct err *e);

/* What `sbx config set` would say to a value; 0: it is good. */
int config_cli_check(const char *name, const char *text, struct err *e);

int cmd_session_ls(const struct args *a, struct err *e);
int cmd_session_text(const struct args *a, struct err *e);
int cmd_session_end(const struct args *a, struct err *e);
int cmd_run(const struct args *a, struct err *e);
int cmd_create(const struct args *a, struct err *e);
int cmd_start(const struct args *a, struct err *e);
int cmd_stop(const struct args *a, struct err *e);
int cmd_restart(const struct args *a, struct err *e);
int cmd_ls(const struct args *a, struct err *e);
int cmd_rm(const struct args *a, struct err *e);
int cmd_rename(const struct args *a, struct err *e);
int cmd_prune(const struct args *a, struct err *e);
int cmd_exec(const struct args *a, struct err *e);
/* exec, with what starts the sandbox (0, 1 or -1); and how its words are read. */
int exec_run(const struct args *a, int (*start)(const char *name, struct err *e), struct err *e);
extern const struct option exec_options[];
int cmd_attach(const struct args *a, struct err *e);
int cmd_cp(const struct args *a, struct err *e);
int cmd_logs(const struct args *a, struct err *e);
int cmd_inspect(const struct args *a, struct err *e);
int cmd_policy_allow(const struct args *a, struct err *e);
int cmd_policy_deny(const struct args *a, struct err *e);
int cmd_policy_ls(const struct args *a, struct err *e);
int cmd_policy_rm(const struct args *a, struct err *e);
int cmd_policy_enable(const struct args *a, struct err *e);
int cmd_policy_disable(const struct args *a, struct err *e);
int cmd_policy_edit(const struct args *a, struct err *e);
int cmd_policy_ask(const struct args *a, struct err *e);
int cmd_policy_reset(const struct args *a, struct err *e);
int cmd_policy_default(const struct args *a, struct err *e);
int cmd_policy_log(const struct args *a, struct err *e);
int cmd_policy_check(const struct args *a, struct err *e);
int cmd_policy_export(const struct args *a, struct err *e);
int cmd_policy_import(const struct args *a, struct err *e);
int cmd_image_build(const struct args *a, struct err *e);
int cmd_image_ls(const struct args *a, struct err *e);
int cmd_image_rm(const struct args *a, struct err *e);
int cmd_image_pack(const struct args *a, struct err *e);
int cmd_image_seed(const struct args *a, struct err *e);
int cmd_template_save(const struct args *a, struct err *e);
int cmd_template_ls(const struct args *a, struct err *e);
int cmd_template_rm(const struct args *a, struct err *e);
int cmd_config_get(const struct args *a, struct err *e);
int cmd_config_set(const struct args *a, struct err *e);
int cmd_config_unset(const struct args *a, struct err *e);
int cmd_config_ls(const struct args *a, struct err *e);
int cmd_doctor(const struct args *a, struct err *e);
int cmd_login(const struct args *a, struct err *e);
int cmd_version(const struct args *a, struct err *e);
int cmd_help(const struct args *a, struct err *e);
int cmd_completion(const struct args *a, struct err *e);
int cmd_man(const struct args *a, struct err *e);

#endif
