#include "core/mirrors.h"
#include "vm/image.h"
#include "vm/seed.h"

int seed_make(struct err *e)
{
    json_t *files = mirrors_files(IMAGE_SUITE, e), *env = mirrors_env();
    if (!files) {
        json_decref(env);
        return -1;
    }
    return seed_keep(files, env ? env : json_object(), e);
}
