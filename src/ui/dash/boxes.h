/* The sandbox pane. */
#ifndef SBX_UI_DASH_BOXES_H
#define SBX_UI_DASH_BOXES_H

#include "ui/dash/pane.h"

struct boxes;
struct pane *boxes_new(void);
/* Whether there is room for the little graph of processor use. */
bool screen_spark(const struct boxes *p);

#endif
