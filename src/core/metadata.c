#include "core/metadata.h"

#include <stddef.h>
#include <string.h>

bool metadata_is_addr(uint8_t family, const uint8_t *addr)
{
    static const uint8_t v4[][4] = {{169, 254, 169, 254}, {100, 100, 100, 200}, {168, 63, 129, 16}, {192, 0, 0, 192},
                                    {169, 254, 170, 2},   {169, 254, 170, 23}}; /* the last two: credentials of tasks */
    static const uint8_t v6[][4] = {{0xfd, 0, 0x0e, 0xc2}, {0xfd, 0x20, 0x00, 0xce}, {0xfd, 0x00, 0x00, 0xc1}}; /* each a /32 */
    for (size_t i = 0; family == 4 && i < sizeof v4 / sizeof *v4; i++)
        if (memcmp(v4[i], addr, 4) == 0)
            return true;
    for (size_t i = 0; family == 6 && i < sizeof v6 / sizeof *v6; i++)
        if (memcmp(v6[i], addr, 4) == 0)
            return true;
    return false;
}

bool metadata_is_name(const char *name)
{
    static const char *const names[] = {"metadata.google.internal", "metadata.goog", "metadata", "instance-data",
                                        "instance-data.ec2.internal", "metadata.azure.internal",
                                        "metadata.tencentyun.com", "metadata.platformequinix.com"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}
