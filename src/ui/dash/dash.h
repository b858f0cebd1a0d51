/* `sbx` without arguments: the dashboard. */
#ifndef SBX_UI_DASH_DASH_H
#define SBX_UI_DASH_DASH_H

/* Returns the exit status; STATUS_USAGE without a terminal. */
int dash_main(void);

#endif
