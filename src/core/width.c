#include "core/width.h"

#include <stdbool.h>
#include <stddef.h>

struct range {
    uint32_t first, last;
};

#include "core/width_table.h"

static bool within(const struct range *table, size_t n, uint32_t code)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (code > table[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && code >= table[lo].first;
}

int width_of(uint32_t code)
{
    if (code < 0x300) /* nothing below joins or is wide */
        return 1;
    if (within(zero_width, sizeof zero_width / sizeof *zero_width, code))
        return 0;
    return within(double_width, sizeof double_width / sizeof *double_width, code) ? 2 : 1;
}
