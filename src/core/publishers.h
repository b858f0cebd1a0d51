/* Domains below which anybody can publish, as data (assets/policies/publishers.json): who allows one should know. */
#ifndef SBX_CORE_PUBLISHERS_H
#define SBX_CORE_PUBLISHERS_H

#include "core/rule.h"

/* One sentence about a rule that allows more than it seems to, or NULL.  It lives until the next call. */
const char *publishers_warning(const struct rule *r);

#endif
