/* exec and attach. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/state.h"
#include "ui/cli/sandbox.h"
#include "ui/session.h"

int cli_variable(json_t *env, const char *text, struct err *e)
{
    const char *eq = strchr(text, '=');
    char key[256];
    size_t n = eq ? (size_t)(eq - text) : strlen(text);
    const char *value = eq ? eq + 1 : getenv(text);
    if (n == 0 || n >= sizeof key || strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") < n)
        return err_set(e, STATUS_USAGE, "\"%.*s\" is no variable's name; write NAME=VALUE, or NAME for this host's value", (int)(n < 60 ? n : 60), text);
    if (!value)
        return err_set(e, STATUS_USAGE, "the variable %s is not set on this host", text);
    memcpy(key, text, n);
    key[n] = '\0';
    json_t *v = json_string(value);
    if (!v)
        return err_set(e, STATUS_USAGE, "the value of %s is not text (UTF-8)", key);
    json_object_set_new(env, key, v);
    return 0;
}

static json_t *variables(const struct args *a, struct err *e)
{
    json_t *env = json_object();
    const char *v;
    for (int i = 0; (v = args_nth(a, "env", i)); i++)
        if (cli_variable(env, v, e) < 0) {
            json_decref(env);
            return NULL;
        }
    return env;
}

const struct option exec_options[] = {
    {'i', "interactive", NULL, "standard input is the command's, also from a terminal"}, {'t', "tty", NULL, "a terminal for the command"},
    {'e', "env", "NAME[=VALUE]", "a variable"}, {'w', "workdir", "PATH", "the folder it starts in"},
    {'u', "user", "USER", "agent (the default), root, or another account"}, {'d', "detach", NULL, "start it and leave; prints the session"}, {0, NULL, NULL, NULL}};

int exec_run(const struct args *a, int (*start)(const char *name, struct err *e), struct err *e)
{
    const char *name = a->words[0];
    struct sandbox_status st;
    int status = 0, rc = -1;
    if (a->nrest == 0)
        return err_set(e, STATUS_USAGE, "which command? sbx exec %s COMMAND [ARGUMENT...]", name);
    if (sandbox_state(name, &st, e) < 0)
        return -1;
    json_t *env = variables(a, e), *argv = json_array();
    for (int i = 0; i < a->nrest; i++)
        if (json_array_append_new(argv, json_string(a->rest[i])) < 0) {
            err_set(e, STATUS_USAGE, "argument %d is not text (UTF-8)", i + 1);
            goto out;
        }
    if (!env)
        goto out;
    struct session_request req = {.sandbox = name, .argv = argv, .env = env, .cwd = args_value(a, "workdir"),
                                  .user = args_value(a, "user"), .tty = args_has(a, "tty"), .detach = args_has(a, "detach")};
    /* Input is wanted with -i, and always where it is not a terminal: pipes work without a thought. */
    req.input = args_has(a, "interactive") || (req.tty && !req.detach) || (!isatty(0) && !req.detach);
    if (req.tty && !req.detach && !isatty(0)) {
        err_set(e, STATUS_USAGE, "-t needs a terminal on standard input; leave it out in a script");
        goto out;
    }
    json_int_t session = 0;
    rc = start(name, e) < 0 ? -1 : session_run(&req, &status, &session, e);
    if (rc == 0 && req.detach)
        printf("%lld\n", (long long)session);
out:
    json_decref(env);
    json_decref(argv);
    return rc < 0 ? -1 : status;
}

int cmd_attach(const struct args *a, struct err *e)
{
    struct session_request req = {.sandbox = a->words[0], .tty = true, .input = true, .read_only = args_has(a, "read-only")};
    struct sandbox_status st;
    int status = 0;
    if (a->nwords > 1) {
        char *end;
        req.session = strtol(a->words[1], &end, 10);
        if (*end || req.session <= 0)
            return err_set(e, STATUS_USAGE, "a session is a number; sbx inspect %s lists them", a->words[0]);
    }
    if (sandbox_state(a->words[0], &st, e) < 0)
        return -1;
    if (!isatty(0) || !isatty(1))
        return err_set(e, STATUS_USAGE, "attach needs a terminal; for scripts there is: sbx exec");
    return session_run(&req, &status, NULL, e) < 0 ? -1 : status;
}
