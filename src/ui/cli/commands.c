/* The table of commands, and what is made of it: dispatch, help, completion, the man page. */
#include <locale.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/config.h"
#include "core/kit.h"
#include "ui/cli/ports.h"
#include "ui/cli/sandbox.h"
#include "ui/cli/secret.h"

#define END {0, NULL, NULL, NULL}
#define JSON_OPT {0, "json", NULL, "machine-readable"}

static const struct option none[] = {END};
static const struct option json_only[] = {JSON_OPT, END};
#define CREATE_OPTIONS \
    {0, "name", "NAME", "the sandbox's name (else from agent and folder)"}, \
    {'e', "env", "NAME[=VALUE]", "a variable for its sessions; without a value, this host's"}, \
    {0, "env-file", "FILE", "variables from a file, NAME=VALUE a line"}, \
    {0, "cpus", "N", "virtual processors"}, \
    {'m', "memory", "SIZE", "memory, like 4G"}, \
    {0, "disk", "SIZE", "the largest size of its disk, like 20G"}, \
    {0, "limit", "WHAT=N", "of all it takes of this host: cpu (per cent of one), memory and io (MiB, MiB/s), pids"}, \
    {'t', "template", "NAME", "start from a saved template"}, \
    {'p', "publish", "HOST:SANDBOX", "a port of the sandbox on this host's loopback"}, \
    {0, "branch", "NAME", "work on a branch of its own, in a worktree under .sbx/"}, \
    {0, "clone", NULL, "work on a clone of its own inside; the repository is read-only"}, \
    {0, "posture", "POSTURE", "open, balanced or locked-down for this sandbox alone"}
static const struct option run_options[] = {CREATE_OPTIONS, {'d', "detach", NULL, "start it and leave; sbx attach joins"}, END};
static const struct option create_options[] = {CREATE_OPTIONS, END};
static const struct option all_options[] = {{'a', "all", NULL, "every sandbox"}, END};
static const struct option stop_options[] = {{'a', "all", NULL, "every sandbox"}, {0, "timeout", "SECONDS", "how long it may take to end in order (10)"}, END};
static const struct option ls_options[] = {JSON_OPT, {'q', "quiet", NULL, "names alone"}, END};
static const struct option rm_options[] = {{'f', "force", NULL, "do not ask; stop it first if it runs"}, {'a', "all", NULL, "every sandbox"}, END};
static const struct option attach_options[] = {{0, "read-only", NULL, "watch; keys but the prefix are not sent"}, END};
static const struct option logs_options[] = {{'f', "follow", NULL, "go on as it grows"}, {0, "sbx", NULL, "what sbx's own processes say, instead of the machine's console"}, END};
static const struct option ports_options[] = {JSON_OPT, {'p', "publish", "HOST:SANDBOX", "one more; SANDBOX alone takes a free port of this host"},
    {0, "unpublish", "HOST:SANDBOX", "take one back"}, END};
static const struct option prune_options[] = {{0, "dry-run", NULL, "only say what would go"}, {0, "filter", "until=TIME", "only what was not used for so long (until=168h)"},
    {'f', "force", NULL, "do not ask"}, JSON_OPT, END};
static const struct option add_options[] = {{'g', "global", NULL, "for all sandboxes"}, {0, "for", "TIME", "for a time (30s, 15m, 1h, 7d); then it is as before"}, {0, "once", NULL, "the next connection of a running sandbox alone"}, {0, "off", NULL, "let it rest until policy enable"}, {0, "comment", "TEXT", "why"}, END};
static const struct option ask_options[] = {
    JSON_OPT, {'g', "global", NULL, "on, off: for all sandboxes; allow, deny: by a rule for all sandboxes"}, {'k', "keep", NULL, "allow, deny: by a rule for this sandbox"},
    {'f', "follow", NULL, "ls: as they come; while it runs, unknown hosts are held"}, END};
static const struct option scope_options[] = {{'g', "global", NULL, "for all sandboxes"}, END};
static const struct option edit_options[] = {
    {'g', "global", NULL, "a rule for all sandboxes"}, {0, "rule", "RULE", "what it speaks of"}, {0, "action", "allow|deny", "what it does"},
    {0, "for", "TIME", "from now on for a time (30s, 15m, 1h, 7d)"}, {0, "for-good", NULL, "without an end"}, {0, "off", NULL, "let it rest"},
    {0, "on", NULL, "let it hold"}, {0, "comment", "TEXT", "why"}, {0, "to", "SANDBOX", "make it one for this sandbox"},
    {0, "to-all", NULL, "make it one for all sandboxes"}, END};
static const struct option policy_ls_options[] = {JSON_OPT, {'a', "all", NULL, "the preset's rules as well"}, END};
static const struct option save_options[] = {{'f', "force", NULL, "do not look for secrets on the disk"}, END};
static const struct option force_options[] = {{'f', "force", NULL, "do not ask"}, END};
static const struct option log_options[] = {
    JSON_OPT, {0, "raw", NULL, "each row, not grouped"}, {'f', "follow", NULL, "rows as they come"}, {0, "since", "TIME", "the last 15m, 1h, 7d"},
    {0, "host", "TEXT", "hosts that contain it"}, {0, "verdict", "VERDICT", "allow, deny or fail"}, {'n', "limit", "N", "the newest N"},
    {0, "verify", NULL, "is the chain of rows unbroken?"}, END};
static const struct option check_options[] = {JSON_OPT, {0, "sandbox", "NAME", "by the rules of this sandbox"}, {0, "method", "METHOD", "of a request (GET)"}, {0, "path", "PATH", "of a request (/)"}, END};
static const struct option build_options[] = {{0, "if-missing", NULL, "only if there is none"}, END};
static const struct option login_options[] = {JSON_OPT, {0, "posture", "POSTURE", "open, balanced or locked-down"}, END};

static const struct command policy_commands[] = {
    {"allow", "policy allow network (-g | SANDBOX) RULE[,RULE...]", "let sandboxes reach hosts",
     "A rule is a host (example.com), *.example.com (one label below it, not itself), **.example.com (any depth), an address or a range (10.1.2.0/24), "
     "each with an optional :PORT or :LOW-HIGH. For HTTP it may name methods and a path: 'GET|HEAD api.example.com/repos' (a comma in it is written \\,). localhost:1234 is that port of "
     "this computer, inside the sandbox host.docker.internal:1234. What speaks TLS or HTTP is held to the name that was asked for, on every port; a rule "
     "for one host and port (db.example.com:5432) leaves open what is spoken there, but for the name in TLS. A deny wins over any allow.",
     add_options, 2, -1, false, 0, cmd_policy_allow, NULL, false},
    {"deny", "policy deny network (-g | SANDBOX) RULE[,RULE...]", "forbid hosts; a deny wins over any allow", NULL, add_options, 2, -1, false, 0, cmd_policy_deny, NULL, false},
    {"ls", "policy ls [SANDBOX]", "rules in force", NULL, policy_ls_options, 0, 1, false, 0, cmd_policy_ls, NULL, false},
    {"rm", "policy rm (-g | SANDBOX) RULE-OR-ID...", "take rules back", NULL, scope_options, 1, -1, false, 0, cmd_policy_rm, NULL, false},
    {"edit", "policy edit (-g | SANDBOX) RULE-OR-ID", "change a rule; what is not named stays as it is",
     "All of it changes at once, or nothing. A rule that had the new target already gives way, as to sbx policy allow.",
     edit_options, 1, 3, false, 0, cmd_policy_edit, NULL, false},
    {"disable", "policy disable (-g | SANDBOX) RULE-OR-ID...", "keep rules, but let them say nothing", NULL, scope_options, 1, -1, false, 0, cmd_policy_disable, NULL, false},
    {"enable", "policy enable (-g | SANDBOX) RULE-OR-ID...", "let disabled rules hold again", NULL, scope_options, 1, -1, false, 0, cmd_policy_enable, NULL, false},
    {"ask", "policy ask on|off|ls|allow|deny [-g | SANDBOX] [QUESTION]", "hold connections to unknown hosts, and ask",
     "With it on, a connection that no rule speaks of waits (setting net.ask_seconds) while the dashboard, or sbx policy ask ls --follow, shows the "
     "question. allow and deny answer it: for once, with --keep by a rule for the sandbox, with -g for all. Without an answer it is denied.",
     ask_options, 1, 3, false, 0, cmd_policy_ask, NULL, false},
    {"log", "policy log [SANDBOX...]", "what was tried, and what became of it", NULL, log_options, 0, -1, false, 0, cmd_policy_log, NULL, false},
    {"check", "policy check HOST[:PORT]", "what would happen, and by which rule", NULL, check_options, 1, 1, false, 0, cmd_policy_check, NULL, false},
    {"set-default", "policy set-default open|balanced|locked-down [SANDBOX]", "choose the posture", NULL, none, 1, 2, false, 0, cmd_policy_default, NULL, false},
    {"reset", "policy reset [SANDBOX]", "back to the default", NULL, force_options, 0, 1, false, 0, cmd_policy_reset, NULL, false},
    {"export", "policy export [SANDBOX]", "the rules as JSON", NULL, none, 0, 1, false, 0, cmd_policy_export, NULL, false},
    {"import", "policy import FILE|- [SANDBOX]", "rules from JSON, instead of those that are there", NULL, none, 1, 2, false, 0, cmd_policy_import, NULL, false},
    {0}};
static const struct option secret_options[] = {
    {'g', "global", NULL, "for all sandboxes"}, {0, "password-stdin", NULL, "the value comes on standard input"},
    {0, "from-env", "NAME", "the value of a variable"}, {0, "from-file", "FILE", "what a file holds"},
    {0, "command", "COMMAND", "what a command prints; it is run again when that is too old"}, {0, "ttl", "TIME", "for how long that is good (1h)"},
    {'t', "token", "VALUE", "the value itself (it stays in the shell's history)"}, {0, "form", "FORM", "key, oauth, ...: else by the look of the value"},
    {0, "oauth", NULL, "sign in with a browser"}, {0, "device", NULL, "sign in with a code, without a browser here"},
    {0, "host", "HOST", "makes a service of your own: where it is written; may be repeated"}, {0, "header", "NAME", "its header (authorization)"},
    {0, "format", "TEXT", "what the header says, {} for the value (Bearer {})"}, {0, "env", "NAME", "the variable that holds the sentinel in the guest"},
    {0, "placeholder", NULL, "write it only where the sentinel stands"}, END};
static const struct option yes_options[] = {{'y', "yes", NULL, "take all without asking"}, END};
static const struct option lock_options[] = {{0, "passphrase", NULL, "a passphrase opens the store"}, {0, "keyfile", NULL, "a key file of mode 0600 does"},
    {0, "systemd", NULL, "systemd's credential sbx-key does"}, {0, "keyring", NULL, "a key in your keyring (Secret Service) does"}, {0, "password-stdin", NULL, "the passphrase comes on standard input"}, END};
static const struct command secret_commands[] = {
    {"set", "secret set (-g | SANDBOX) SERVICE", "keep a credential on the host for a service", "The value is asked for without echo, or comes from one of the options. "
     "The guest holds a sentinel; the value is written into requests on their way out, to the service's hosts alone.", secret_options, 1, 2, false, 0, cmd_secret_set, NULL, false},
    {"ls", "secret ls", "secrets, never their values", NULL, json_only, 0, 0, false, 0, cmd_secret_ls, NULL, false},
    {"rm", "secret rm (-g | SANDBOX) SERVICE", "forget a secret", NULL, scope_options, 1, 2, false, 0, cmd_secret_rm, NULL, false},
    {"rotate", "secret rotate (-g | SANDBOX) SERVICE", "a new value; running agents go on", NULL, secret_options, 1, 2, false, 0, cmd_secret_rotate, NULL, false},
    {"test", "secret test [-g | SANDBOX] SERVICE", "ask the provider whether it accepts the credential", NULL, scope_options, 1, 2, false, 0, cmd_secret_test, NULL, false},
    {"import", "secret import", "take over credentials of known agents found on this host", NULL, yes_options, 0, 0, false, 0, cmd_secret_import, NULL, false},
    {"services", "secret services", "services that are known", NULL, json_only, 0, 0, false, 0, cmd_secret_services, NULL, false},
    {"lock", "secret lock [--keyring|--passphrase|--keyfile|--systemd]", "how the store is locked",
     "A new store takes your keyring where one answers, else a credential of systemd, else a key file beside it. Without an option:\n"
     "what locks it, and what that is worth. Sandboxes that run go on.", lock_options, 0, 0, false, 0, cmd_secret_lock, NULL, false},
    {"unlock", "secret unlock", "open a store with a passphrase or a keyring for the next 12 hours", NULL, none, 0, 0, false, 0, cmd_secret_unlock, NULL, false},
    {"take", "secret take SANDBOX", "keep what a sign-in in a sandbox yielded", NULL, none, 1, 1, false, 0, cmd_secret_take, NULL, true},
    {"renew", "secret renew", "renew what expires", NULL, none, 0, 0, false, 0, cmd_secret_renew, NULL, true},
    {0}};
static const struct command image_commands[] = {
    {"build", "image build", "make a base image from this host's mirrors", NULL, build_options, 0, 0, false, 0, cmd_image_build, NULL, false},
    {"ls", "image ls", "base images", NULL, json_only, 0, 0, false, 0, cmd_image_ls, NULL, false},
    {"pack", "image pack [IMAGE]", "make its initramfs", NULL, none, 0, 1, false, 0, cmd_image_pack, NULL, true},
    {"seed", "image seed", "take over mirrors and authorities of this host", NULL, none, 0, 0, false, 0, cmd_image_seed, NULL, true},
    {"rm", "image rm IMAGE...", "remove base images", NULL, none, 1, -1, false, 0, cmd_image_rm, NULL, false},
    {0}};
static const struct option session_ls_options[] = {JSON_OPT, END};
static const struct option session_text_options[] = {{0, "scrollback", "LINES", "so many lines of what scrolled away, too"}, END};
static const struct command session_commands[] = {
    {"ls", "session ls [SANDBOX...]", "sessions that run, and which wait for you", NULL, session_ls_options, 0, -1, false, 0, cmd_session_ls, NULL, false},
    {"text", "session text SANDBOX [SESSION]", "what its screen says; without SESSION the agent's", NULL, session_text_options, 1, 2, false, 0, cmd_session_text, NULL, false},
    {"end", "session end SANDBOX SESSION", "end a session with all that runs in it", NULL, none, 2, 2, false, 0, cmd_session_end, NULL, false},
    {0}};
static const struct command template_commands[] = {
    {"save", "template save SANDBOX NAME[:TAG]", "keep a sandbox's disk for others to start from", "No secret of this host may stand on it: it is looked through.", save_options, 2, 2, false, 0, cmd_template_save, NULL, false},
    {"ls", "template ls", "saved templates and installed agents", NULL, json_only, 0, 0, false, 0, cmd_template_ls, NULL, false},
    {"rm", "template rm NAME...", "remove templates", NULL, none, 1, -1, false, 0, cmd_template_rm, NULL, false},
    {0}};
static const struct command config_commands[] = {
    {"get", "config get SETTING", "a setting's value", NULL, none, 1, 1, false, 0, cmd_config_get, NULL, false},
    {"set", "config set SETTING VALUE", "change a setting", NULL, none, 2, 2, false, 0, cmd_config_set, NULL, false},
    {"unset", "config unset SETTING", "back to its default", NULL, none, 1, 1, false, 0, cmd_config_unset, NULL, false},
    {"ls", "config ls", "all settings", NULL, json_only, 0, 0, false, 0, cmd_config_ls, NULL, false},
    {0}};

const struct command cli_commands[] = {
    {"run", "run AGENT [PATH[:ro]...] [-- ARGUMENT...]", "start an agent in this folder (or PATH), or attach to it again",
     "The first folder is the workspace; it appears in the sandbox at the same path, live in both directions. Without a "
     "terminal the agent runs with its ARGUMENTs as a plain command: its output and exit status are passed on.",
     run_options, 0, -1, false, 0, cmd_run, NULL, false},
    {"create", "create AGENT [PATH[:ro]...]", "make a sandbox without starting it; without PATH it sees no folder", NULL, create_options, 1, -1, false, 0, cmd_create, NULL, false},
    {"start", "start SANDBOX...", "start sandboxes", NULL, all_options, 0, -1, false, 0, cmd_start, NULL, false},
    {"stop", "stop SANDBOX...", "stop sandboxes, keeping everything", NULL, stop_options, 0, -1, false, 0, cmd_stop, NULL, false},
    {"restart", "restart SANDBOX...", "stop and start", NULL, stop_options, 0, -1, false, 0, cmd_restart, NULL, false},
    {"ls", "ls", "list sandboxes", NULL, ls_options, 0, 0, false, 0, cmd_ls, NULL, false},
    {"exec", "exec [OPTION...] SANDBOX COMMAND [ARGUMENT...]", "run a command in a sandbox", "Starts the sandbox if it does not run. The exit status is the command's.", exec_options, 1, 1, true, 1, cmd_exec, NULL, false},
    {"attach", "attach SANDBOX [SESSION]", "join a terminal session; the prefix (Ctrl-]) and d leaves it", NULL, attach_options, 1, 2, false, 0, cmd_attach, NULL, false},
    {"cp", "cp PATH SANDBOX:PATH | SANDBOX:PATH PATH", "copy files in or out", NULL, none, 2, 2, false, 0, cmd_cp, NULL, false},
    {"rm", "rm SANDBOX...", "remove sandboxes; never a file of the workspace", NULL, rm_options, 0, -1, false, 0, cmd_rm, NULL, false},
    {"ports", "ports SANDBOX", "ports of a sandbox that are published on this host", NULL, ports_options, 1, 1, false, 0, cmd_ports, NULL, false},
    {"rename", "rename SANDBOX NAME", "give a stopped sandbox another name", NULL, none, 2, 2, false, 0, cmd_rename, NULL, false},
    {"prune", "prune", "remove stopped sandboxes that are not used any more, and what is left over", NULL, prune_options, 0, 0, false, 0, cmd_prune, NULL, false},
    {"logs", "logs SANDBOX", "the machine's console", NULL, logs_options, 1, 1, false, 0, cmd_logs, NULL, false},
    {"inspect", "inspect SANDBOX", "everything that is known of a sandbox, as JSON", NULL, json_only, 1, 1, false, 0, cmd_inspect, NULL, false},
    {"policy", "policy COMMAND", "what sandboxes may reach", NULL, NULL, 0, 0, false, 0, NULL, policy_commands, false},
    {"secret", "secret COMMAND", "credentials that stay on the host", NULL, NULL, 0, 0, false, 0, NULL, secret_commands, false},
    {"image", "image COMMAND", "base images", NULL, NULL, 0, 0, false, 0, NULL, image_commands, false},
    {"session", "session COMMAND", "sessions of sandboxes: list, read, end them", NULL, NULL, 0, 0, false, 0, NULL, session_commands, false},
    {"template", "template COMMAND", "saved disks to start from", NULL, NULL, 0, 0, false, 0, NULL, template_commands, false},
    {"save", "save SANDBOX NAME[:TAG]", "the same as template save", NULL, save_options, 2, 2, false, 0, cmd_template_save, NULL, false},
    {"config", "config COMMAND", "settings", NULL, NULL, 0, 0, false, 0, NULL, config_commands, false},
    {"login", "login", "first set-up: no account is needed", NULL, login_options, 0, 0, false, 0, cmd_login, NULL, false},
    {"doctor", "doctor", "what is missing on this host, why, and the command that mends it", NULL, json_only, 0, 0, false, 0, cmd_doctor, NULL, false},
    {"version", "version", "the version", NULL, json_only, 0, 0, false, 0, cmd_version, NULL, false},
    {"help", "help [COMMAND]", "this, or the help of a command", NULL, none, 0, 2, false, 0, cmd_help, NULL, false},
    {"completion", "completion bash|zsh|fish", "completions for a shell, to standard output", NULL, none, 1, 1, false, 0, cmd_completion, NULL, false},
    {"man", "man", "the man page, to standard output", NULL, none, 0, 0, false, 0, cmd_man, NULL, true},
    {0}};

static const struct command *find(const struct command *list, const char *name)
{
    for (; list->name; list++)
        if (strcmp(list->name, name) == 0)
            return list;
    return NULL;
}

static int unknown(const struct command *list, const char *name, const char *parent, struct err *e)
{
    const struct command *best = NULL;
    int least = 3;
    for (const struct command *c = list; c->name; c++) {
        int d = args_distance(name, c->name);
        if (!c->hidden && d < least && d < (int)strlen(c->name)) {
            least = d;
            best = c;
        }
    }
    if (best)
        return err_set(e, STATUS_USAGE, "there is no command \"%s%s%s\"; did you mean %s?", parent, parent[0] ? " " : "", name, best->name);
    return err_set(e, STATUS_USAGE, "there is no command \"%s%s%s\"; sbx help lists them", parent, parent[0] ? " " : "", name);
}

/* ---- help ---- */

static void print_list(const struct command *list)
{
    for (; list->name; list++)
        if (!list->hidden)
            printf("  %-12s %s\n", list->name, list->summary);
}

static void print_help(const struct command *c)
{
    printf("usage: sbx %s\n\n%s.\n", c->synopsis, c->summary);
    if (c->help)
        printf("\n%s\n", c->help);
    if (c->sub) {
        printf("\nCommands:\n");
        for (const struct command *s = c->sub; s->name; s++)
            if (!s->hidden)
                printf("  %-60s %s\n", s->synopsis + strlen(c->name) + 1, s->summary);
    }
    bool any = false;
    for (const struct option *o = c->options; o && o->name; o++) {
        char left[64];
        if (!any)
            printf("\nOptions:\n");
        any = true;
        snprintf(left, sizeof left, "%c%c%s--%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
                 o->value ? " " : "", o->value ? o->value : "");
        printf("  %-28s %s\n", left, o->help);
    }
}

static const char exit_status[] =
    "0  done\n"
    "1  it was tried, and failed\n"
    "2  bad input; nothing was changed\n"
    "3  not found: a sandbox, a rule, a question or a file of that name\n"
    "4  denied by policy (policy check: the connection would be denied)\n"
    "5  it took too long\n"
    "exec and run end with the command's own status (128 and a signal's number: it was killed; 126, 127: it cannot be run).\n"
    "141: who reads the output has gone, as after | head.\n";

int cmd_help(const struct args *a, struct err *e)
{
    if (a->nwords == 0) {
        printf("sbx runs coding agents at full speed in microVMs of their own.\n\nusage: sbx            the dashboard\n       sbx COMMAND\n\n");
        print_list(cli_commands);
        printf("\nFirst steps:  sbx login    sbx run claude    sbx ls    sbx policy log\n"
               "More:         sbx help COMMAND    sbx help exit-status\n");
        return 0;
    }
    if (strcmp(a->words[0], "exit-status") == 0) {
        printf("%s", exit_status);
        return 0;
    }
    const struct command *c = find(cli_commands, a->words[0]);
    if (!c)
        return unknown(cli_commands, a->words[0], "", e);
    if (a->nwords > 1) {
        const struct command *s = c->sub ? find(c->sub, a->words[1]) : NULL;
        if (!s)
            return unknown(c->sub ? c->sub : cli_commands, a->words[1], c->name, e);
        c = s;
    }
    print_help(c);
    return 0;
}

static void complete_words(const struct command *list)
{
    for (; list->name; list++)
        if (!list->hidden)
            printf("%s ", list->name);
}

/* What stands where a command's words are expected: text for a shell's list, which may run sbx. */
static void complete_operands(const struct command *c, const char *parent)
{
    if (strcmp(c->name, "run") == 0 || strcmp(c->name, "create") == 0) {
        json_t *kits = kit_list(), *k;
        size_t i;
        json_array_foreach(kits, i, k)
            printf("%s ", json_string_value(k));
        json_decref(kits);
    } else if (strcmp(c->name, "help") == 0) {
        complete_words(cli_commands);
    } else if (strcmp(c->name, "completion") == 0) {
        printf("bash zsh fish");
    } else if (strcmp(parent, "config") == 0) {
        for (const struct config_key *k = config_keys(); k->name; k++)
            printf("%s ", k->name);
    } else if (strcmp(parent, "image") == 0) {
        printf("$(sbx image ls --json 2>/dev/null | sed -n 's/.*\"id\": \"\\(.*\\)\".*/\\1/p')");
    } else if (strcmp(parent, "template") == 0 && strcmp(c->name, "rm") == 0) {
        printf("$(sbx template ls --json 2>/dev/null | sed -n 's/^    \"name\": \"\\(.*\\)\".*/\\1/p')");
    } else if (strcmp(c->synopsis, c->name) != 0 && strstr(c->synopsis, "SANDBOX")) {
        printf("$(sbx ls -q 2>/dev/null)");
    }
}

/* One arm of a case: list="..." for the word at hand. */
static void complete_arm(const struct command *c, const char *parent, const char *cur)
{
    printf("case \"%s\" in -*) list=\"", cur);
    for (const struct option *o = c->options; o && o->name; o++)
        printf("--%s ", o->name);
    printf("\" ;; *) list=\"");
    complete_operands(c, parent);
    printf("\" ;; esac ;;\n");
}

/* bash and zsh read the same: COUNT is the number of the word at hand, the command being 0. */
static void complete_case(const char *count, const char *cur, const char *first, const char *second)
{
    printf("  if [ %s -eq 1 ]; then list=\"", count);
    complete_words(cli_commands);
    printf("\"\n  else case \"%s\" in\n", first);
    for (const struct command *c = cli_commands; c->name; c++) {
        if (c->hidden)
            continue;
        printf("    %s) ", c->name);
        if (!c->sub) {
            complete_arm(c, "", cur);
            continue;
        }
        printf("if [ %s -eq 2 ]; then list=\"", count);
        complete_words(c->sub);
        printf("\"; else case \"%s\" in\n", second);
        for (const struct command *s = c->sub; s->name; s++) {
            if (s->hidden)
                continue;
            printf("      %s) ", s->name);
            complete_arm(s, c->name, cur);
        }
        printf("      esac; fi ;;\n");
    }
    puts("  esac; fi");
}

/* For fish, in single quotes. */
static void fish_text(const char *text)
{
    putchar('\'');
    for (; *text; text++)
        printf("%s%c", *text == '\'' || *text == '\\' ? "\\" : "", *text);
    putchar('\'');
}

static void fish_line(const char *when, const char *command, const char *what, const char *word, const char *text)
{
    printf("complete -c sbx -n '%s%s%s' %s %s -d ", when, command[0] ? " " : "", command, what, word);
    fish_text(text);
    putchar('\n');
}

static void fish_command(const struct command *c, const char *parent)
{
    for (const struct option *o = c->options; o && o->name; o++) {
        char when[128];
        snprintf(when, sizeof when, "__fish_seen_subcommand_from %s%s%s", parent[0] ? parent : c->name, parent[0] ? "; and __fish_seen_subcommand_from " : "",
                 parent[0] ? c->name : "");
        fish_line(when, "", "-l", o->name, o->help);
    }
    if (!parent[0] && (strcmp(c->name, "run") == 0 || strcmp(c->name, "create") == 0)) {
        printf("complete -c sbx -n '__fish_seen_subcommand_from %s' -a '", c->name);
        complete_operands(c, parent);
        puts("'");
    } else if (strstr(c->synopsis, "SANDBOX")) {
        printf("complete -c sbx -n '__fish_seen_subcommand_from %s' -a '(sbx ls -q 2>/dev/null)'\n", c->name);
    }
}

int cmd_completion(const struct args *a, struct err *e)
{
    const char *shell = a->words[0];
    if (strcmp(shell, "bash") == 0) {
        puts("_sbx() {\n  local cur=${COMP_WORDS[COMP_CWORD]} list=");
        complete_case("$COMP_CWORD", "$cur", "${COMP_WORDS[1]}", "${COMP_WORDS[2]}");
        puts("  COMPREPLY=($(compgen -W \"$list\" -- \"$cur\"))\n}\ncomplete -o default -F _sbx sbx");
        return 0;
    }
    if (strcmp(shell, "zsh") == 0) {
        puts("#compdef sbx\n_sbx() {\n  local count=$((CURRENT - 1)) list=");
        complete_case("$count", "$PREFIX", "${words[2]}", "${words[3]}");
        puts("  local -a all=(${=list})\n  (( $#all )) && compadd -a all && return 0\n  _files\n}\n"
             "if [ \"$funcstack[1]\" = _sbx ]; then _sbx \"$@\"; else compdef _sbx sbx; fi");
        return 0;
    }
    if (strcmp(shell, "fish") == 0) {
        for (const struct command *c = cli_commands; c->name; c++) {
            if (c->hidden)
                continue;
            fish_line("__fish_use_subcommand", "", "-a", c->name, c->summary);
            fish_command(c, "");
            for (const struct command *s = c->sub; s && s->name; s++)
                if (!s->hidden) {
                    fish_line("__fish_seen_subcommand_from", c->name, "-a", s->name, s->summary);
                    fish_command(s, c->name);
                }
        }
        return 0;
    }
    return err_set(e, STATUS_USAGE, "there are completions for bash, zsh and fish, not for \"%s\"", shell);
}

static void man_command(const struct command *c)
{
    printf(".It Nm %s\n%s.\n", c->synopsis, c->summary);
    if (c->help)
        printf("%s\n", c->help);
    if (c->options && c->options->name) {
        puts(".Bl -tag -width Ds -compact");
        for (const struct option *o = c->options; o->name; o++) {
            printf(".It ");
            if (o->letter)
                printf("Fl %c , ", o->letter);
            printf("Fl -%s%s%s\n%s.\n", o->name, o->value ? " Ar " : "", o->value ? o->value : "", o->help);
        }
        puts(".El");
    }
    for (const struct command *s = c->sub; s && s->name; s++)
        if (!s->hidden)
            man_command(s);
}

int cmd_man(const struct args *a, struct err *e)
{
    (void)a;
    (void)e;
    puts(".Dd $Mdocdate$\n.Dt SBX 1\n.Os\n.Sh NAME\n.Nm sbx\n.Nd microVM sandboxes for coding agents\n.Sh SYNOPSIS\n.Nm\n.Nm\n.Ar command\n"
         ".Sh DESCRIPTION\n.Nm\nruns coding agents without approval prompts inside microVMs of their own, which see only the folders that\n"
         "they were given and reach only the hosts that a rule allows.\n.Pp\nWithout a command, on a terminal, it opens the dashboard: sandboxes, their\n"
         "terminals, and the log of what they tried to reach.\nThere\n.Ql \\&?\nlists every key.\nKeys are changed in\n.Pa ~/.config/sbx/keys ,\nthemes added in\n"
         ".Pa ~/.config/sbx/themes .\n.Sh COMMANDS\n.Bl -tag -width Ds");
    for (const struct command *c = cli_commands; c->name; c++)
        if (!c->hidden)
            man_command(c);
    puts(".El\n.Sh EXIT STATUS\n0 done, 1 failed, 2 bad input, 3 not found, 4 denied by policy (also what policy check says), 5 timed out; of exec and run the command's own.\n"
         ".Sh FILES\n.Bl -tag -width Ds -compact\n.It Pa ~/.config/sbx\nsettings, the policy, own agent kits.\n.It Pa ~/.local/share/sbx\n"
         "images, templates, sandboxes.\n.It Pa ~/.cache/sbx\nwhat can be made again.\n.El");
    return 0;
}

/* A value may be in our arguments, our environment or what we read: none of it is left behind by a crash. */
static void cli_no_core(void)
{
    const struct rlimit none_of_it = {0, 0};
    setrlimit(RLIMIT_CORE, &none_of_it);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* "-e -h": no question for help. */
static bool takes_value(const struct command *c, const char *word)
{
    for (const struct option *o = c->options; o && o->name; o++)
        if (o->value && word[0] == '-' && (word[1] == '-' ? strcmp(word + 2, o->name) == 0 : word[1] && word[strlen(word) - 1] == o->letter))
            return true;
    return false;
}

int cli_main(int argc, char **argv)
{
    struct err e = {0};
    struct args a;
    const struct command *c;
    int at = 1;
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    if (sodium_init() < 0)
        return STATUS_FAILED;
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        memset(&a, 0, sizeof a);
        cmd_help(&a, &e);
        return out_status(argc < 2 ? STATUS_USAGE : 0, &e);
    }
    if (strcmp(argv[1], "--version") == 0)
        argv[1] = (char *)"version";
    c = find(cli_commands, argv[at]);
    if (!c) {
        unknown(cli_commands, argv[at], "", &e);
        out_error(e.text);
        return STATUS_USAGE;
    }
    at++;
    if (c->sub) {
        if (at >= argc || strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0) {
            print_help(c);
            return out_status(at >= argc ? STATUS_USAGE : 0, &e);
        }
        const struct command *s = find(c->sub, argv[at]);
        if (!s) {
            unknown(c->sub, argv[at], c->name, &e);
            out_error(e.text);
            return STATUS_USAGE;
        }
        c = s;
        at++;
    }
    for (int i = at; i < argc && strcmp(argv[i], "--") != 0 && !(c->stop_at_word && argv[i][0] != '-'); i++)
        if (strcmp(argv[i], "--help") == 0 || (strcmp(argv[i], "-h") == 0 && !takes_value(c, at < i ? argv[i - 1] : ""))) {
            print_help(c);
            return out_status(0, &e);
        }
    if (strncmp(c->synopsis, "secret ", 7) == 0)
        cli_no_core();
    int status = args_parse(&a, c, argc - at, argv + at, &e);
    if (status == 0)
        status = c->run(&a, &e);
    args_finish(&a);
    return out_status(status, &e);
}
