#include "ui/cli/quick.h"

#include <locale.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "ui/cli/backend.h"
#include "ui/cli/sandbox.h"

static const struct option none[] = {{0, NULL, NULL, NULL}};
/* Only how their words are read: who needs help, or errs, is answered by the whole program. */
static const struct command quick_exec = {.name = "exec", .options = exec_options, .min_words = 1, .max_words = 1, .stop_at_word = true, .stop_after = 1},
                            quick_start = {.name = "start", .options = none, .min_words = 1, .max_words = -1};

/* The first start of a sandbox on a branch or a clone has to fetch its files; an unknown one has to be complained about. */
static bool plain(const char *name)
{
    struct record r;
    if (record_load(&r, name, NULL) < 0)
        return false;
    json_t *branch = json_object_get(r.extra, "branch"), *clone = json_object_get(r.extra, "clone");
    bool first = json_is_true(json_object_get(branch ? branch : clone, "checkout"));
    record_finish(&r);
    return !first;
}

static bool all_plain(const struct args *a)
{
    for (int i = 0; i < a->nwords; i++)
        if (!plain(a->words[i]))
            return false;
    return true;
}

static int start_all(const struct args *a)
{
    int failed = 0;
    for (int i = 0; i < a->nwords; i++) {
        struct err why = {0};
        if (sandbox_up(a->words[i], &why) < 0)
            failed = out_status(-1, &why);
    }
    return failed;
}

int quick_main(int argc, char **argv)
{
    struct err e = {0};
    struct args a = {0};
    const struct command *c = argc < 3 ? NULL : strcmp(argv[1], "exec") == 0 ? &quick_exec : strcmp(argv[1], "start") == 0 ? &quick_start : NULL;
    int status = -1;
    if (!c)
        return -1;
    setlocale(LC_CTYPE, "");
    if (args_parse(&a, c, argc - 2, argv + 2, &e) == 0 && all_plain(&a) && (c != &quick_start || backend.image_exists())) {
        signal(SIGPIPE, SIG_IGN);
        status = c == &quick_start ? start_all(&a) : exec_run(&a, sandbox_up, &e);
        status = out_status(status, &e);
    }
    args_finish(&a);
    return status;
}
