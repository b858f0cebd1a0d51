/* A short text that is typed at its end: filters. */
#ifndef SBX_UI_DASH_EDIT_H
#define SBX_UI_DASH_EDIT_H

#include <stdbool.h>
#include <stddef.h>

#include "ui/dash/input.h"

/* Takes a key or a paste; false: it changes no text. */
bool edit_tail(char *text, size_t cap, const struct input *in);

#endif
