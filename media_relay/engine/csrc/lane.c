#include "lane.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sender.h"

#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

static void copy_option(int from, int to, int level, int option, int divisor)
{
    int value = 0;
    socklen_t length = sizeof value;
    if (getsockopt(from, level, option, &value, &length) < 0)
        return;
    value /= divisor;
    setsockopt(to, level, option, &value, sizeof value);
}

int lane_open(int shared)
{
    static struct sock_filter to_the_first[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {1, to_the_first};
    union address here;
    socklen_t length = sizeof here;
    int on = 1;
    if (getsockname(shared, &here.any, &length) < 0)
        return -1;
    int lane = socket(here.any.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (lane < 0)
        return -1;
    bool six = here.any.sa_family == AF_INET6;
    copy_option(shared, lane, SOL_SOCKET, SO_SNDBUF, 2); /* the kernel tells twice what it was asked for: socket(7) */
    copy_option(shared, lane, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_TCLASS : IP_TOS, 1);
    if (six)
        copy_option(shared, lane, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    /* Nobody else can join the port by it: both have to ask for it before they bind, and only lanes do. */
    bool open = setsockopt(shared, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 &&
                setsockopt(lane, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0 && bind(lane, &here.any, length) == 0 &&
                setsockopt(lane, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) == 0;
    if (open)
        return lane;
    close(lane);
    return -1;
}

bool lane_empty(int lane)
{
    int waiting = 0;
    return ioctl(lane, TIOCOUTQ, &waiting) == 0 && waiting == 0;
}
