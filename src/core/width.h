/* How many columns a character takes on a terminal; one table for the filter and the dashboard, because the C
 * library's depends on the locale and on its age. */
#ifndef SBX_CORE_WIDTH_H
#define SBX_CORE_WIDTH_H

#include <stdint.h>

/* 0: joins the character before it; 1; 2.  Controls are not asked about here. */
int width_of(uint32_t code);

#endif
