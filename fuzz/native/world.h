/* What the harnesses share: an input read as small numbers, sockets on loopback, RTP packets to send. */
#ifndef DIALCAST_FUZZ_WORLD_H
#define DIALCAST_FUZZ_WORLD_H

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "groups.h"

#define PEERS 3

/* Two sockets of the relay's, and what is on the network: PEERS sockets, and behind them an address where nobody is. */
static struct {
    int media[2], peer[PEERS];
    union address media_at[2], peer_at[PEERS + 1];
} net;

/* What cannot go wrong in this program went wrong, or what must hold does not. */
#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static inline int open_socket(union address *at)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, room = 1 << 20;
    socklen_t length = sizeof at->four;
    *at = (union address){.four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    MUST(fd >= 0 && bind(fd, &at->any, length) == 0 && getsockname(fd, &at->any, &length) == 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof on); /* as the relay's own */
    return fd;
}

static inline void open_net(void)
{
    for (int i = 0; i < 2; i++)
        net.media[i] = open_socket(&net.media_at[i]);
    for (int i = 0; i < PEERS; i++)
        net.peer[i] = open_socket(&net.peer_at[i]);
    close(open_socket(&net.peer_at[PEERS]));
}

/* Nothing of one input may reach the next. */
static inline void drain(int fd)
{
    char data[1], control[512];
    struct iovec vector = {data, sizeof data};
    struct msghdr header = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    while (recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
        header.msg_controllen = sizeof control;
    while (recv(fd, data, sizeof data, MSG_DONTWAIT) >= 0 || errno == ECONNREFUSED)
        ;
}

static inline void drain_net(void)
{
    for (int i = 0; i < 2; i++)
        drain(net.media[i]);
    for (int i = 0; i < PEERS; i++)
        drain(net.peer[i]);
}

/* The input as numbers; zeros when it is over. */
struct input {
    const uint8_t *data;
    size_t size, at;
};

static inline unsigned byte(struct input *input) { return input->at < input->size ? input->data[input->at++] : 0; }
static inline unsigned word(struct input *input)
{
    unsigned high = byte(input);
    return high << 8 | byte(input);
}

static inline size_t bytes(struct input *input, size_t most, const uint8_t **found)
{
    size_t left = input->size - input->at, size = most < left ? most : left;
    *found = input->data + input->at;
    input->at += size;
    return size;
}

static inline size_t write_rtp(uint8_t *out, uint8_t payload_type, bool marker, uint16_t sequence, uint32_t timestamp,
                               uint32_t ssrc, const uint8_t *payload, size_t size)
{
    out[0] = 0x80;
    out[1] = (uint8_t)(marker << 7 | payload_type);
    put16(out + 2, sequence);
    put32(out + 4, timestamp);
    put32(out + 8, ssrc);
    memcpy(out + RTP_HEADER, payload, size);
    return RTP_HEADER + size;
}

#endif
