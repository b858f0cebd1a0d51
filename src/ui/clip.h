/* What a session wants to copy (OSC 52): to the user's clipboard only where the user allowed that sandbox to, and never
 * a question.  The text comes from the guest, through the screen process: it is checked here once more. */
#ifndef SBX_UI_CLIP_H
#define SBX_UI_CLIP_H

#include <stdbool.h>
#include <stddef.h>

#define CLIP_MAX (48u * 1024u) /* of base64 */

/* May this sandbox copy?  The setting attach.clipboard names it, or "*". */
bool clip_allowed(const char *sandbox);
/* The sequence for the user's terminal, malloc'ed, *bytes: how long the text is.  NULL: not base64, empty, or too long. */
char *clip_sequence(const char *base64, size_t *bytes);

#endif
