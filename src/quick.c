/* sbx as it is typed: what `start` and `exec` need, and nothing else.  Anything else is for the whole program, which is
 * linked with the libraries of all commands and takes five times as long to begin. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/paths.h"
#include "ui/cli/backend.h"
#include "ui/cli/quick.h"
#include "vm/image.h"

static bool image_exists(void)
{
    struct image i;
    bool found = image_find(&i, NULL, NULL) == 0;
    image_finish(&i);
    return found;
}

struct backend backend = {.image_exists = image_exists};

/* Closed by who started us: the next file that is opened (a record, a socket) would take the place, and what is printed
 * would go into it. */
static void fill_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY); /* output that is wanted fails, and says so */
}

int main(int argc, char **argv)
{
    fill_standard();
    int status = quick_main(argc, argv);
    if (status >= 0)
        return status;
    struct err e = {0};
    char *whole = path_role("command", &e);
    if (whole)
        execv(whole, argv);
    fprintf(stderr, "sbx: cannot run %s: %s\n", whole ? whole : "the whole program", whole ? strerror(errno) : e.text);
    free(whole);
    return STATUS_FAILED;
}
