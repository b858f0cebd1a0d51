/* Whether the user's terminal is light or dark, which programs in it need to know before they choose colours. */
#ifndef SBX_UI_BACKDROP_H
#define SBX_UI_BACKDROP_H

#include <stddef.h>

/* By $COLORFGBG: 1 light, 0 dark, -1 unknown.  The dashboard sets it to what its theme is. */
int backdrop_light(void);
/* What a program in a session is told: the value of $COLORFGBG, NULL if it is not known. */
const char *backdrop_colours(void);
/* What a terminal answers to OSC 11 ("]11;rgb:1010/1010/1010"), anywhere in the bytes: 1 light, 0 dark, -1 no answer. */
int backdrop_answer(const char *bytes, size_t len);

#endif
