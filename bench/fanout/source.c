/* source SECONDS FRAMES PACKETS BYTES SOUNDS [TRACE TIMES]: broadcasters at 127.0.0.1, one for each line of the input:
   VIDEO_PORT AUDIO_PORT LOCAL_VIDEO LOCAL_AUDIO VIDEO_SSRC AUDIO_SSRC.

   So many frames a second of so many packets, each frame as one burst with a marker at its end and a keyframe every second, or
   the frames of a trace; SOUNDS packets of audio a second. The broadcasters' frames are spread evenly over the time of a frame.
   Prints how many packets of each it sent in the first second, and then in all. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "packet.h"

#define VIDEO_TYPE 96
#define AUDIO_TYPE 0
#define AUDIO_BYTES 160
#define BURST 64
#define SECOND 1000000000u
#define WARM_UP 20000000u /* nanoseconds until the first frame, so that all sockets are there */

struct stream {
    int fd;
    uint8_t type;
    uint16_t sequence, group;
    uint32_t ssrc, timestamp, counter;
};

struct broadcaster {
    struct stream video, audio;
};

static uint8_t packets[BURST][LARGEST];
static struct iovec vectors[BURST];
static struct mmsghdr headers[BURST];
static int queued;

static struct stream opened(int local, int remote, uint8_t type, uint32_t ssrc, uint16_t group)
{
    struct stream stream = {.fd = socket(AF_INET, SOCK_DGRAM, 0), .type = type, .ssrc = ssrc, .sequence = 65000, .group = group};
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = htons((uint16_t)local)}, to = from;
    from.sin_addr.s_addr = to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)remote);
    if (stream.fd < 0 || bind(stream.fd, (struct sockaddr *)&from, sizeof from) < 0 ||
        connect(stream.fd, (struct sockaddr *)&to, sizeof to) < 0) {
        perror("source");
        exit(2);
    }
    return stream;
}

static void flush(int fd)
{
    for (int sent = 0, some; sent < queued; sent += some)
        if ((some = sendmmsg(fd, headers + sent, (unsigned)(queued - sent), 0)) < 0)
            some = 1; /* an ICMP error of a relay that is not there yet: lost */
    queued = 0;
}

static uint8_t *next_payload(struct stream *stream, size_t size, bool marker)
{
    if (queued == BURST)
        flush(stream->fd);
    uint8_t *packet = packets[queued];
    packet[0] = 0x80;
    packet[1] = (uint8_t)(marker << 7 | stream->type);
    write_be(packet + 2, stream->sequence++, 2);
    write_be(packet + 4, stream->timestamp, 4);
    write_be(packet + 8, stream->ssrc, 4);
    vectors[queued] = (struct iovec){packet, HEADER + size};
    headers[queued].msg_hdr = (struct msghdr){.msg_iov = &vectors[queued], .msg_iovlen = 1};
    queued++;
    stream->counter++;
    return packet + HEADER;
}

static void stamped(struct stream *stream, uint8_t first, size_t size, bool marker)
{
    uint32_t counter = stream->counter, noise = counter * 2654435761u + 1;
    uint8_t *payload = next_payload(stream, size, marker);
    payload[0] = first;
    write_be(payload + AT_TIME, wall_ns(), 8);
    write_be(payload + AT_COUNTER, counter, 4);
    write_be(payload + AT_TIMESTAMP, stream->timestamp, 4);
    write_be(payload + AT_GROUP, stream->group, 2);
    for (size_t at = STAMP; at < size - CHECK; at++) {
        noise ^= noise << 13, noise ^= noise >> 17, noise ^= noise << 5;
        payload[at] = (uint8_t)noise;
    }
    write_be(payload + size - CHECK, check_of(payload, size - CHECK), CHECK);
}

static void recorded(struct stream *stream, const struct trace *trace, uint64_t *times, size_t room)
{
    uint32_t frame = frame_of(trace, stream->counter);
    for (bool marker = false; !marker;) {
        uint32_t counter = stream->counter;
        const struct recorded *each = &trace->packets[counter % trace->count];
        marker = frame_of(trace, counter + 1) != frame;
        if (stream->group == 0 && counter < room)
            times[counter] = wall_ns();
        memcpy(next_payload(stream, each->size, marker), each->payload, each->size);
    }
}

static uint64_t steady_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static void wait_for(uint64_t due)
{
    struct timespec at = {(time_t)(due / SECOND), (long)(due % SECOND)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* When the number-th burst of `rate` a second is due, counted over all `groups` in turn. */
static uint64_t due_at(uint64_t start, uint64_t number, uint64_t rate, uint64_t groups)
{
    return start + (uint64_t)((double)number * SECOND / (double)(rate * groups));
}

static void tell(const struct broadcaster *all, uint64_t groups, double late_ms)
{
    uint64_t video = 0, audio = 0;
    for (uint64_t i = 0; i < groups; i++) {
        video += all[i].video.counter;
        audio += all[i].audio.counter;
    }
    printf("{\"video\": %llu, \"audio\": %llu, \"late_ms\": %.3f}\n", (unsigned long long)video, (unsigned long long)audio, late_ms);
    fflush(stdout);
}

int main(int count, char **given)
{
    if (count < 6) {
        fprintf(stderr, "source SECONDS FRAMES PACKETS BYTES SOUNDS [TRACE TIMES] < broadcasters\n");
        return 2;
    }
    double seconds = atof(given[1]);
    uint64_t frames = (uint64_t)atol(given[2]), audio_rate = (uint64_t)atol(given[5]), groups = 0;
    int a_frame = atoi(given[3]);
    size_t bytes = (size_t)atol(given[4]), room = 0;
    struct trace trace = {0};
    uint64_t *times = NULL;
    if (count > 7) {
        trace = trace_of(given[6]);
        times = (uint64_t *)mapped(given[7], 1, &room);
        room /= sizeof *times;
    }
    struct broadcaster *all = NULL;
    int video, audio, local_video, local_audio;
    unsigned video_ssrc, audio_ssrc;
    while (scanf("%d %d %d %d %u %u", &video, &audio, &local_video, &local_audio, &video_ssrc, &audio_ssrc) == 6) {
        all = realloc(all, (groups + 1) * sizeof *all);
        all[groups].video = opened(local_video, video, VIDEO_TYPE, video_ssrc, (uint16_t)groups);
        all[groups].audio = opened(local_audio, audio, AUDIO_TYPE, audio_ssrc, (uint16_t)groups);
        groups++;
    }
    uint64_t start = steady_ns() + WARM_UP, pictures = (uint64_t)(seconds * (double)frames), sounds = (uint64_t)(seconds * (double)audio_rate);
    bool begun = false;
    for (uint64_t picture = 0, sound = 0; picture < pictures * groups || sound < sounds * groups;) {
        uint64_t at = due_at(start, picture, frames, groups), heard = due_at(start, sound, audio_rate, groups);
        if (!begun && at >= start + SECOND) {
            begun = true;
            tell(all, groups, 0);
        }
        if (sound == sounds * groups || (picture < pictures * groups && at <= heard)) {
            struct stream *stream = &all[picture % groups].video;
            wait_for(at);
            if (trace.count > 0)
                recorded(stream, &trace, times, room);
            else
                for (int i = 0; i < a_frame; i++)
                    stamped(stream, picture / groups % frames == 0 ? 0x65 : 0x61, bytes, i == a_frame - 1);
            flush(stream->fd);
            stream->timestamp += VIDEO_RATE / (uint32_t)frames;
            picture++;
        } else {
            struct stream *stream = &all[sound % groups].audio;
            wait_for(heard);
            stamped(stream, 0x55, AUDIO_BYTES, false);
            flush(stream->fd);
            stream->timestamp += AUDIO_BYTES;
            sound++;
        }
    }
    tell(all, groups, ((double)steady_ns() - (double)start) / 1e6 - seconds * 1000);
    return 0;
}
