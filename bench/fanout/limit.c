/* limit FIRST_PORT FIRST_VIEWER GROUPS VIEWERS: what the kernel costs whoever sends.

   recvmmsg, then the same packets to every viewer of the group by sendmmsg and UDP GSO. No numbers, no names, no keyframes:
   nothing but the system calls that every relay has to make. A group takes two ports (video, audio), and so does a viewer. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define AT_ONCE 64
#define SLICE 64
#define RUN 16
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

static uint8_t buffer[AT_ONCE][2048];
static struct mmsghdr in[AT_ONCE], out[SLICE];
static struct iovec arrived[AT_ONCE], run[AT_ONCE];

static int opened(int port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0), room = 2 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) < 0) {
        perror("limit");
        exit(2);
    }
    return fd;
}

/* Packets of one size, the last perhaps shorter, to everybody. */
static void fan_out(int fd, struct sockaddr_in *to, int viewers, struct iovec *packets, int count)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(uint16_t))];
    } control = {0};
    uint16_t size = (uint16_t)packets[0].iov_len;
    control.align.cmsg_level = IPPROTO_UDP;
    control.align.cmsg_type = UDP_SEGMENT;
    control.align.cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(&control.align), &size, sizeof size);
    for (int first = 0; first < viewers; first += SLICE) {
        int slice = viewers - first < SLICE ? viewers - first : SLICE;
        for (int i = 0; i < slice; i++)
            out[i].msg_hdr = (struct msghdr){
                .msg_name = &to[first + i],
                .msg_namelen = sizeof *to,
                .msg_iov = packets,
                .msg_iovlen = (size_t)count,
                .msg_control = count > 1 ? control.space : NULL,
                .msg_controllen = count > 1 ? sizeof control.space : 0,
            };
        for (int sent = 0, some; sent < slice; sent += some)
            if ((some = sendmmsg(fd, out + sent, (unsigned)(slice - sent), 0)) < 0)
                some = 1;
    }
}

int main(int count, char **given)
{
    if (count < 5) {
        fprintf(stderr, "limit FIRST_PORT FIRST_VIEWER GROUPS VIEWERS\n");
        return 2;
    }
    int first = atoi(given[1]), first_viewer = atoi(given[2]), groups = atoi(given[3]), viewers = atoi(given[4]);
    int poller = epoll_create1(0);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct inlet {
        int fd;
        struct sockaddr_in *to;
    } *inlets = calloc((size_t)groups * 2, sizeof *inlets);
    for (int i = 0; i < 2 * groups; i++) {
        inlets[i] = (struct inlet){opened(first + i), calloc((size_t)viewers, sizeof *inlets->to)};
        for (int viewer = 0; viewer < viewers; viewer++) {
            struct sockaddr_in *to = &inlets[i].to[viewer];
            to->sin_family = AF_INET;
            to->sin_port = htons((uint16_t)(first_viewer + 2 * (i / 2 * viewers + viewer) + i % 2));
            to->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        }
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &inlets[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, inlets[i].fd, &event);
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        struct epoll_event ready[64];
        int found = epoll_wait(poller, ready, 64, -1);
        for (int each = 0; each < found; each++) {
            const struct inlet *inlet = ready[each].data.ptr;
            for (int i = 0; i < AT_ONCE; i++) {
                arrived[i] = (struct iovec){buffer[i], sizeof buffer[i]};
                in[i].msg_hdr = (struct msghdr){.msg_iov = &arrived[i], .msg_iovlen = 1};
            }
            int got = recvmmsg(inlet->fd, in, AT_ONCE, MSG_DONTWAIT, NULL);
            for (int i = 0; i < got;) {
                int length = 0;
                run[0].iov_len = in[i].msg_len;
                for (bool open = true; open && i < got && length < RUN && in[i].msg_len <= run[0].iov_len; i++) {
                    run[length++] = (struct iovec){buffer[i], in[i].msg_len};
                    open = in[i].msg_len == run[0].iov_len; /* only the last of a message may be shorter (udp(7), UDP_SEGMENT) */
                }
                fan_out(inlet->fd, inlet->to, viewers, run, length);
            }
        }
    }
}
