#include "core/ca.h"
#include "core/log.h"
#include "core/mirrors.h"
#include "vm/image.h"
#include "vm/seed.h"

int seed_make(struct err *e)
{
    struct err why = {0};
    int rc = ca_ensure(true, NULL, NULL, &why);
    if (rc < 0) /* the broker finds the same, and says it where it is seen */
        log_line("%s", why.text);
    if (rc > 0)
        log_line("there is another certificate authority; sandboxes that run go on with the one that they know until they are started again");
    json_t *files = mirrors_files(IMAGE_SUITE, e), *env = mirrors_env();
    if (!files) {
        json_decref(env);
        return -1;
    }
    return seed_keep(files, env ? env : json_object(), e);
}
