/* Loaded before libc: the network of one UDP port takes no UDP GSO, as some devices and tunnels do not. `sendmmsg` fails
   for a run of packets to that port as the kernel would fail it, and counts; all others are the kernel's. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#define UDP_SEGMENT 103

int refused_port, refused_error; /* set by the test */
int runs_refused, runs_sent;

static bool is_run(struct msghdr *header)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each != NULL; each = CMSG_NXTHDR(header, each))
        if (each->cmsg_level == IPPROTO_UDP && each->cmsg_type == UDP_SEGMENT)
            return true;
    return false;
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    int (*kernel)(int, struct mmsghdr *, unsigned, int);
    *(void **)&kernel = dlsym(RTLD_NEXT, "sendmmsg");
    unsigned good = 0, runs = 0;
    bool refused = false;
    for (; good < count && !refused; good += !refused) {
        struct msghdr *header = &messages[good].msg_hdr;
        if (!is_run(header))
            continue;
        refused = ntohs(((struct sockaddr_in *)header->msg_name)->sin_port) == refused_port;
        runs += !refused;
    }
    if (good == 0) { /* what was sent before it counts as sent, the rest is tried again: sendmmsg(2) */
        runs_refused++;
        errno = refused_error;
        return -1;
    }
    runs_sent += (int)runs;
    return kernel(fd, messages, good, flags);
}
