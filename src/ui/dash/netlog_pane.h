/* The network log pane: what sandboxes tried to reach, live; and what can be done with a row of it. */
#ifndef SBX_UI_DASH_NETLOG_PANE_H
#define SBX_UI_DASH_NETLOG_PANE_H

#include "ui/dash/netlog_index.h"
#include "ui/dash/pane.h"

struct app;

/* For app_add_pane(…, AREA_LOG, …). NULL: no memory. */
struct pane *netlog_pane_new(struct app *a);

/* ---- for the pane's overlays ---- */

/* The form that makes a rule of a row (netlog_form.c); NULL: none can, and it was said. */
struct pane *netlog_form_new(struct app *a, const struct netlog_row *row, bool deny);
/* All that is known of a row (netlog_details.c). */
struct pane *netlog_details_new(struct app *a, const struct netlog_row *row);

/* What the pane does not keep in memory. One row by its key: no matter of time. */
struct netlog_more {
    char addr[64], reason[700];
};
void netlog_look_up(const struct netlog_row *row, struct netlog_more *out);

/* The targets of rules that a row can be turned into: texts for `sbx policy allow network` (lists, so with \\, for the comma of a path).  Pure. */
#define NETLOG_TARGETS_MAX 6
struct netlog_target {
    char text[600];
    char what[40]; /* "this host", "this host and port", ... */
};
/* Why no rule could change what the row tells; NULL: one can. */
const char *netlog_no_rule(const struct netlog_row *row);
unsigned netlog_targets(const struct netlog_row *row, struct netlog_target out[NETLOG_TARGETS_MAX]);

#endif
