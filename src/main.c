/* sbx: one program, several processes (docs/protocols.md).  The first word of the command line says which. */
#include <stdio.h>
#include <string.h>

#include "net/broker.h"
#include "net/net_main.h"
#include "ui/cli/policy.h"
#include "vm/accel.h"
#include "vm/fs.h"
#include "vm/screen_main.h"
#include "vm/supervisor.h"

static const struct {
    const char *role;
    int (*run)(int argc, char **argv);
} roles[] = {
    {"supervise", supervise_main}, {"broker", broker_main}, {"net", net_main}, {"fs", fs_main},
    {"screen", screen_main},       {"accel", accel_main}, {"policy", policy_command},
};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof roles / sizeof *roles; i++)
        if (strcmp(argv[1], roles[i].role) == 0)
            return roles[i].run(argc - 1, argv + 1);
    fprintf(stderr, "usage: sbx COMMAND\n");
    return 2;
}
