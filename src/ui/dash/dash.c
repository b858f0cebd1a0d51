#include "ui/dash/dash.h"

#include <stdio.h>
#include <unistd.h>

#include "ui/dash/app.h"
#include "ui/dash/boxes.h"
#include "ui/dash/netlog_pane.h"
#include "ui/dash/term_pane.h"

int dash_main(void)
{
    struct err e = {0};
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return STATUS_USAGE;
    struct app *a = app_new(&e);
    if (!a) {
        fprintf(stderr, "sbx: %s\n", e.text);
        return STATUS_FAILED;
    }
    app_add_pane(a, AREA_BOXES, boxes_new());
    app_add_pane(a, AREA_TERMINAL, term_pane_new(a));
    app_add_pane(a, AREA_LOG, netlog_pane_new(a));
    int status = app_run(a);
    app_free(a);
    return status;
}
