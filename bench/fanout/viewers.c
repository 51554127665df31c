/* viewers FIRST_PORT COUNT READ: so many viewers at 127.0.0.1, two ports each (video, audio).

   The first READ of them, and the last, are read and judged packet by packet: one SSRC each, numbers without a gap, timestamps
   that advance with the source's, payloads as they were sent. The others discard what comes in the kernel (a BPF filter that
   takes nothing). Prints "ready", counts until its input ends, then prints what it found as JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "packet.h"

#define AT_ONCE 64
#define LATENCIES 200000

struct view {
    int fd, place;
    bool judged, begun;
    uint32_t ssrc, timestamp, counter;
    uint16_t sequence;
    uint64_t packets, lost, strange, broken;
};

static uint32_t *latency[2]; /* of the first and of the last viewer's video, in microseconds */
static size_t latencies[2];

static void judge(struct view *view, const uint8_t *packet, size_t size, uint64_t at, int which)
{
    view->packets++;
    if (size < HEADER + STAMP + CHECK || packet[0] != 0x80) {
        view->broken++;
        return;
    }
    const uint8_t *payload = packet + HEADER;
    size_t length = size - HEADER;
    if (read_be(payload + length - CHECK, CHECK) != check_of(payload, length - CHECK)) {
        view->broken++;
        return;
    }
    uint16_t sequence = (uint16_t)read_be(packet + 2, 2);
    uint32_t timestamp = (uint32_t)read_be(packet + 4, 4), ssrc = (uint32_t)read_be(packet + 8, 4);
    uint32_t counter = (uint32_t)read_be(payload + 9, 4);
    if (view->begun) {
        uint16_t step = (uint16_t)(sequence - view->sequence);
        if (ssrc != view->ssrc || counter - view->counter != step || step == 0 || step > 30000)
            view->strange++; /* another stream, a number that does not go with its packet, or one out of order */
        else
            view->lost += step - 1u;
        if (timestamp - view->timestamp > 90000u * 2)
            view->strange++;
    }
    view->begun = true;
    view->ssrc = ssrc;
    view->sequence = sequence;
    view->timestamp = timestamp;
    view->counter = counter;
    if (which >= 0 && latencies[which] < LATENCIES)
        latency[which][latencies[which]++] = (uint32_t)((at - read_be(payload + 1, 8)) / 1000);
}

static int opened(int port, bool read_it)
{
    static struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {1, nothing};
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), on = 1, room = 4 << 20;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (!read_it)
        setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) < 0) {
        perror("viewers");
        exit(2);
    }
    return fd;
}

static uint64_t stamp_of(struct msghdr *header)
{
    for (struct cmsghdr *each = CMSG_FIRSTHDR(header); each != NULL; each = CMSG_NXTHDR(header, each))
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec at;
            memcpy(&at, CMSG_DATA(each), sizeof at);
            return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
        }
    return wall_ns();
}

static void take(struct view *view, int viewers)
{
    static uint8_t buffer[AT_ONCE][LARGEST + 64], control[AT_ONCE][64];
    struct mmsghdr headers[AT_ONCE];
    struct iovec vectors[AT_ONCE];
    int which = view->place == 0 ? 0 : view->place == 2 * (viewers - 1) ? 1 : -1;
    for (int got = AT_ONCE; got == AT_ONCE;) {
        for (int i = 0; i < AT_ONCE; i++) {
            vectors[i] = (struct iovec){buffer[i], sizeof buffer[i]};
            headers[i].msg_hdr = (struct msghdr){
                .msg_iov = &vectors[i], .msg_iovlen = 1, .msg_control = control[i], .msg_controllen = sizeof control[i]};
        }
        got = recvmmsg(view->fd, headers, AT_ONCE, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++)
            judge(view, buffer[i], headers[i].msg_len, stamp_of(&headers[i].msg_hdr), which);
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return left < right ? -1 : left > right;
}

static double share(int which, double part)
{
    size_t count = latencies[which];
    return count ? latency[which][(size_t)(part * (double)(count - 1))] / 1000.0 : -1;
}

int main(int count, char **given)
{
    if (count < 4) {
        fprintf(stderr, "viewers FIRST_PORT COUNT READ\n");
        return 2;
    }
    int first = atoi(given[1]), viewers = atoi(given[2]), read_them = atoi(given[3]), poller = epoll_create1(0);
    struct rlimit files = {8192, 8192};
    setrlimit(RLIMIT_NOFILE, &files);
    struct view *views = calloc((size_t)viewers * 2, sizeof *views);
    for (int i = 0; i < 2; i++)
        latency[i] = malloc(LATENCIES * sizeof **latency);
    for (int i = 0; i < 2 * viewers; i++) {
        views[i].place = i;
        views[i].judged = i / 2 < read_them || i / 2 == viewers - 1;
        views[i].fd = opened(first + i, views[i].judged);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &views[i]};
        epoll_ctl(poller, EPOLL_CTL_ADD, views[i].fd, &event);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    printf("ready\n");
    fflush(stdout);
    for (bool over = false; !over;) {
        struct epoll_event ready[64];
        int found = epoll_wait(poller, ready, 64, -1);
        for (int i = 0; i < found; i++) {
            if (ready[i].data.ptr == NULL)
                over = true;
            else
                take(ready[i].data.ptr, viewers);
        }
    }
    uint64_t packets[2] = {0}, fewest[2] = {UINT64_MAX, UINT64_MAX}, lost = 0, strange = 0, broken = 0;
    int judged = 0, names = 0;
    for (int i = 0; i < 2 * viewers; i++) {
        struct view *view = &views[i];
        if (!view->judged)
            continue;
        take(view, viewers);
        judged++;
        packets[i % 2] += view->packets;
        if (view->packets < fewest[i % 2])
            fewest[i % 2] = view->packets;
        lost += view->lost;
        strange += view->strange;
        broken += view->broken;
        bool new = view->begun;
        for (int other = 0; other < i && new; other++)
            new = !views[other].begun || views[other].ssrc != view->ssrc;
        names += new;
    }
    for (int i = 0; i < 2; i++)
        qsort(latency[i], latencies[i], sizeof **latency, by_size);
    printf("{\"judged\": %d, \"names\": %d, \"video\": %llu, \"audio\": %llu, \"fewest_video\": %llu, \"fewest_audio\": %llu, "
           "\"lost\": %llu, \"strange\": %llu, \"broken\": %llu, "
           "\"first_p50\": %.3f, \"last_p50\": %.3f, \"last_p99\": %.3f}\n",
           judged, names, (unsigned long long)packets[0], (unsigned long long)packets[1], (unsigned long long)fewest[0],
           (unsigned long long)fewest[1], (unsigned long long)lost, (unsigned long long)strange, (unsigned long long)broken,
           share(0, .5), share(1, .5), share(1, .99));
    return 0;
}
