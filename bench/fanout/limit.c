/* limit VIDEO_PORT AUDIO_PORT FIRST_VIEWER VIEWERS: what the kernel costs whoever sends.

   recvmmsg, then the same packets to every viewer by sendmmsg and UDP GSO. No numbers, no names, no keyframes: nothing but the
   system calls that every relay has to make. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Packets of one size, to everybody. */
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
        fprintf(stderr, "limit VIDEO_PORT AUDIO_PORT FIRST_VIEWER VIEWERS\n");
        return 2;
    }
    int viewers = atoi(given[4]);
    struct pollfd sockets[2] = {{opened(atoi(given[1])), POLLIN, 0}, {opened(atoi(given[2])), POLLIN, 0}};
    struct sockaddr_in *to[2];
    for (int medium = 0; medium < 2; medium++) {
        to[medium] = calloc((size_t)viewers, sizeof **to);
        for (int i = 0; i < viewers; i++) {
            to[medium][i].sin_family = AF_INET;
            to[medium][i].sin_port = htons((uint16_t)(atoi(given[3]) + 2 * i + medium));
            to[medium][i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        }
    }
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        poll(sockets, 2, -1);
        for (int medium = 0; medium < 2; medium++) {
            if (!(sockets[medium].revents & POLLIN))
                continue;
            for (int i = 0; i < AT_ONCE; i++) {
                arrived[i] = (struct iovec){buffer[i], sizeof buffer[i]};
                in[i].msg_hdr = (struct msghdr){.msg_iov = &arrived[i], .msg_iovlen = 1};
            }
            int got = recvmmsg(sockets[medium].fd, in, AT_ONCE, MSG_DONTWAIT, NULL);
            for (int i = 0; i < got;) {
                int length = 0;
                while (i < got && length < RUN && (length == 0 || in[i].msg_len == in[i - 1].msg_len)) {
                    run[length] = (struct iovec){buffer[i], in[i].msg_len};
                    length++, i++;
                }
                fan_out(sockets[medium].fd, to[medium], viewers, run, length);
            }
        }
    }
}
