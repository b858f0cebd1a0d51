#include <stdio.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "guest/guest.h"

static void reap(pid_t pid, int status)
{
    if (session_reaped(pid, status))
        control_flush();
    else
        docker_reaped(pid, status);
}

int main(void)
{
    if (getpid() != 1) {
        fprintf(stderr, "sbx-guest: this is the init of a sandbox and runs nowhere else\n");
        return 2;
    }
    boot_early();
    if (loop_init() < 0 || control_start() < 0) {
        printf("sbx-guest: cannot start\n");
        sync();
        reboot(RB_POWER_OFF);
    }
    loop_run(reap);
}
