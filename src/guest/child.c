#include <sched.h>
#include <signal.h>

#include "guest/guest.h"

pid_t child_start(int (*fn)(void *arg), void *arg)
{
    static _Alignas(16) char stack[64 * 1024];
    return clone(fn, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, arg);
}
