/* source VIDEO_PORT AUDIO_PORT LOCAL_VIDEO LOCAL_AUDIO SECONDS [PACKETS_A_FRAME BYTES]: a broadcaster at 127.0.0.1.

   30 frames a second, each as one burst with a marker at its end, a keyframe every second; 50 packets of audio a second.
   Prints how many packets of each it sent. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "packet.h"

#define FRAMES 30
#define VIDEO_TYPE 96
#define AUDIO_TYPE 0

struct stream {
    int fd;
    struct sockaddr_in to;
    uint8_t type;
    uint32_t ssrc, timestamp, counter;
    uint16_t sequence;
};

static struct stream opened(int local, int remote, uint8_t type)
{
    struct stream stream = {.fd = socket(AF_INET, SOCK_DGRAM, 0), .type = type, .ssrc = 0x1001u + type, .sequence = 65000};
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons((uint16_t)local)};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    stream.to = from;
    stream.to.sin_port = htons((uint16_t)remote);
    if (stream.fd < 0 || bind(stream.fd, (struct sockaddr *)&from, sizeof from) < 0) {
        perror("source");
        exit(2);
    }
    return stream;
}

static void send_packet(struct stream *stream, uint8_t first, size_t size, int marker)
{
    uint8_t packet[LARGEST], *payload = packet + HEADER;
    packet[0] = 0x80;
    packet[1] = (uint8_t)(marker << 7 | stream->type);
    write_be(packet + 2, stream->sequence++, 2);
    write_be(packet + 4, stream->timestamp, 4);
    write_be(packet + 8, stream->ssrc, 4);
    payload[0] = first;
    write_be(payload + 1, wall_ns(), 8);
    write_be(payload + 9, stream->counter, 4);
    uint32_t noise = stream->counter++ * 2654435761u + 1;
    for (size_t at = STAMP; at < size - CHECK; at++) {
        noise ^= noise << 13, noise ^= noise >> 17, noise ^= noise << 5;
        payload[at] = (uint8_t)noise;
    }
    write_be(payload + size - CHECK, check_of(payload, size - CHECK), CHECK);
    sendto(stream->fd, packet, HEADER + size, 0, (struct sockaddr *)&stream->to, sizeof stream->to);
}

int main(int count, char **given)
{
    if (count < 6) {
        fprintf(stderr, "source VIDEO_PORT AUDIO_PORT LOCAL_VIDEO LOCAL_AUDIO SECONDS [PACKETS_A_FRAME BYTES]\n");
        return 2;
    }
    struct stream video = opened(atoi(given[3]), atoi(given[1]), VIDEO_TYPE), audio = opened(atoi(given[4]), atoi(given[2]), AUDIO_TYPE);
    double seconds = atof(given[5]);
    int packets = count > 6 ? atoi(given[6]) : 10;
    size_t bytes = count > 7 ? (size_t)atoi(given[7]) : 1200;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    /* Steps of 1/150 s: every fifth has a frame, every third a packet of audio. */
    for (long step = 0; step < (long)(150 * seconds); step++) {
        if (step % 5 == 0) {
            uint8_t first = step / 5 % FRAMES == 0 ? 0x65 : 0x61;
            for (int i = 0; i < packets; i++)
                send_packet(&video, first, bytes, i == packets - 1);
            video.timestamp += 90000 / FRAMES;
        }
        if (step % 3 == 0) {
            send_packet(&audio, 0x55, 160, 0);
            audio.timestamp += 160;
        }
        next.tv_nsec += 1000000000 / 150;
        if (next.tv_nsec >= 1000000000) {
            next.tv_nsec -= 1000000000;
            next.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    printf("{\"video\": %u, \"audio\": %u}\n", video.counter, audio.counter);
    return 0;
}
