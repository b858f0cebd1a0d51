/* The command line and the dashboard, whole: sbx-command, which sbx becomes for all but the plainest cases (quick.c).  What
 * runs for a sandbox are programs of their own (role.c). */
#include <locale.h>
#include <sodium.h>
#include <unistd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "net/diskscan.h"
#include "ui/cli/backend.h"
#include "ui/cli/cli.h"
#include "vm/accel.h"
#include "vm/disk.h"
#include "vm/seed.h"
#include "vm/image.h"
#include "vm/limits.h"
#include "ui/dash/dash.h"

static bool image_exists(void)
{
    struct image i;
    bool found = image_find(&i, NULL, NULL) == 0;
    image_finish(&i);
    return found;
}

static bool kvm_works(char *text, size_t cap)
{
    struct accel_probe p;
    accel_probe_again(&p);
    snprintf(text, cap, "%s%s%s", p.reason, p.remedy[0] ? "; " : "", p.remedy);
    return p.reason[0] == '\0';
}

struct backend backend = {
    .image_build = image_build, .image_pack = image_pack, .seed_make = seed_make, .image_list = image_list, .image_remove = image_remove, .image_exists = image_exists,
    .template_load = template_load, .template_list = template_list, .template_remove = template_remove, .template_sweep = template_sweep,
    .template_save = template_save, .template_freeze = template_freeze, .template_check_name = template_check_name, .disk_holds = diskscan,
    .kvm_works = kvm_works,
    .limits_available = limits_available,
};

int main(int argc, char **argv)
{
    prctl(PR_SET_NAME, "sbx"); /* in lists of processes it is what was typed */
    if (argc > 1 && strcmp(argv[1], "accel") == 0)
        return accel_main(argc - 1, argv + 1);
    if (argc == 1 && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
        setlocale(LC_ALL, "");
        return sodium_init() < 0 ? STATUS_FAILED : dash_main();
    }
    return cli_main(argc, argv);
}
