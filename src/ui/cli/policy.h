/* sbx policy: what sandboxes may reach, and what they tried. */
#ifndef SBX_UI_CLI_POLICY_H
#define SBX_UI_CLI_POLICY_H

/* argv[0] is "policy".  Returns the exit status. */
int policy_command(int argc, char **argv);

/* For a table of commands, completions and the manual: the sub-commands, ended by a NULL name. */
struct policy_verb {
    const char *name, *synopsis, *help;
};
const struct policy_verb *policy_verbs(void);

/* "90s", "15m", "1h", "7d", "2w" in seconds; 0 if it is none. */
long long policy_duration(const char *text);

#endif
