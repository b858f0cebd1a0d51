/* The terminal pane: the sessions of the selected sandbox as tabs, one or two of them on the screen. */
#ifndef SBX_UI_DASH_TERM_PANE_H
#define SBX_UI_DASH_TERM_PANE_H

struct app;
struct pane;

/* For app_add_pane(…, AREA_TERMINAL, …).  NULL: no memory. */
struct pane *term_pane_new(struct app *a);

#endif
