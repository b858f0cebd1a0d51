/* The guest's network card without a guest: passes frames between a tap device, which it makes in the network namespace
 * that it is started in, and a cable of `sbx net` (4 bytes of length, big-endian, before each frame).
 *   cable_pump NAME FD
 *   cable_pump NAME FD tap    FD is another tap device: a cable from card to card, which a benchmark compares with */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define FRAME_MAX (128 * 1024)

static int write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w <= 0)
            return -1;
        p += w;
        n -= (size_t)w;
    }
    return 0;
}

static void to_cable(int tap, int cable)
{
    static uint8_t buf[4 + FRAME_MAX];
    for (;;) {
        ssize_t n = read(tap, buf + 4, FRAME_MAX);
        if (n < 0)
            return;
        buf[0] = (uint8_t)(n >> 24);
        buf[1] = (uint8_t)(n >> 16);
        buf[2] = (uint8_t)(n >> 8);
        buf[3] = (uint8_t)n;
        if (write_all(cable, buf, 4 + (size_t)n) < 0)
            return;
    }
}

/* Waits as QEMU does: a read that sleeps would be woken as well by each frame that net takes at the other end. */
static void to_tap(int tap, int cable)
{
    static uint8_t buf[8 * FRAME_MAX];
    struct pollfd wait = {.fd = cable, .events = POLLIN};
    size_t len = 0;
    for (;;) {
        if (poll(&wait, 1, -1) < 0)
            return;
        ssize_t n = read(cable, buf + len, sizeof buf - len);
        if (n <= 0)
            return;
        len += (size_t)n;
        size_t at = 0;
        while (len - at >= 4) {
            size_t frame = (size_t)buf[at] << 24 | (size_t)buf[at + 1] << 16 | (size_t)buf[at + 2] << 8 | buf[at + 3];
            if (frame > FRAME_MAX)
                return;
            if (len - at < 4 + frame)
                break;
            if (write(tap, buf + at + 4, frame) < 0) {
                /* the card is down for a moment: lost, as on any cable */
            }
            at += 4 + frame;
        }
        memmove(buf, buf + at, len - at);
        len -= at;
    }
}

static void card_to_card(int from, int to)
{
    static uint8_t buf[FRAME_MAX];
    ssize_t n;
    while ((n = read(from, buf, sizeof buf)) > 0)
        if (write(to, buf, (size_t)n) < 0) {
            /* down for a moment, as above */
        }
}

int main(int argc, char **argv)
{
    bool card = argc == 4 && strcmp(argv[3], "tap") == 0;
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC), cable = argc >= 3 ? atoi(argv[2]) : -1;
    if ((argc != 3 && !card) || tap < 0)
        return 1;
    snprintf(ifr.ifr_name, sizeof ifr.ifr_name, "%s", argv[1]);
    if (ioctl(tap, TUNSETIFF, &ifr) < 0)
        return 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (card)
            card_to_card(tap, cable);
        else
            to_cable(tap, cable);
        _exit(0);
    }
    if (card)
        card_to_card(cable, tap);
    else
        to_tap(tap, cable);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return 0;
}
