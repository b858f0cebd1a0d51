/* Does an agent wait for its user?  The rule is data in the agent's kit:
 *   "attention": {"bell": true, "title": "EXTENDED REGEX", "prompt": ["EXTENDED REGEX", ...], "quiet_ms": 2500}
 * bell: a bell or a notification (OSC 9, 99, 777) that nobody answered; title: of the terminal; prompt: is sought in the
 * last lines of the screen once it has been quiet so long.  All of it may be missing. */
#ifndef SBX_UI_DASH_ATTENTION_H
#define SBX_UI_DASH_ATTENTION_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct attention {
    bool waits, ended, look_at_screen;
    bool rang; /* waits, by a bell alone: the screen may say more */
    json_int_t session;
    int64_t quiet_ms;
    char why[96];
};

/* From the sessions of a `status` (docs/protocols.md). */
void attention_judge(const char *agent, const json_t *sessions, struct attention *out);
/* The last line of a screen that holds anything; false if there is none. */
bool attention_last_line(const char *text, char *why, size_t cap);
/* From a screen's text; why says what it asks. */
bool attention_prompt(const char *agent, const char *text, char *why, size_t cap);

#endif
