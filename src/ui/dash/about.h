/* All that is known of a sandbox, for people. */
#ifndef SBX_UI_DASH_ABOUT_H
#define SBX_UI_DASH_ABOUT_H

#include <jansson.h>
#include <stdio.h>

/* What `sbx inspect` printed, as text for text_new. */
void about_write(FILE *f, const json_t *inspected);

#endif
