#include "net/look.h"

#define FAILS_MAX 10u

static void learn(struct look *l, bool in_time)
{
    l->on = false;
    if (in_time)
        l->fails /= 2;
    else if (l->fails < FAILS_MAX)
        l->fails++;
    l->skip = (1u << l->fails) - 1;
}

void look_begin(struct look *l, uint32_t who, bool alone, int64_t now_us)
{
    alone &= who == l->who || now_us - l->since_us >= LOOK_ALONE_US;
    l->who = who;
    l->since_us = now_us;
    l->on = alone && l->skip == 0;
    if (alone && l->skip)
        l->skip--;
}

bool look_on(struct look *l, int64_t now_us)
{
    if (l->on && now_us - l->since_us >= LOOK_US)
        learn(l, false);
    return l->on;
}

void look_found(struct look *l, int64_t now_us)
{
    if (l->on)
        learn(l, now_us - l->since_us < LOOK_US);
}

void look_away(struct look *l)
{
    l->on = false;
}
