/* viewers FIRST_PORT GROUPS VIEWERS READ FRAMES [-t TRACE TIMES] [-k KEYS]: so many viewers in each group at 127.0.0.1, two
   ports each (video, audio).

   READ of them, spread evenly, the first and the last among them, are read and judged packet by packet: one SSRC each, numbers
   without a gap, timestamps that advance as the source's do, payloads as they were sent. The others discard what comes in the
   kernel (a BPF filter that takes RTCP only) and are counted by its drops. KEYS has a line PLACE PROFILE HEX for each stream that
   is encrypted (compile with -DSRTP -lsrtp2). Prints "ready", counts until its input ends, then prints what it found as JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#ifdef SRTP
#include <srtp2/srtp.h>
#endif

#include "packet.h"

#define AT_ONCE 64
#define LATENCIES 400000
#define RTCP_FIRST 192 /* its packet types on the same port (RFC 5761 section 4) */
#define RTCP_LAST 223
#define START 1000000000u /* nanoseconds from a viewer's first packet in which it tells no latency */
#define FURTHEST 30000 /* a step in numbers beyond it is no gap but another stream */

struct view {
    int fd, place, group;
    bool judged, begun;
    uint32_t ssrc, timestamp, counter, sent_timestamp;
    uint16_t sequence;
    uint64_t begun_at, packets, lost, strange, broken;
#ifdef SRTP
    srtp_t session;
#endif
};

static struct view *views;
static int places;
static struct trace trace;
static const uint64_t *times;
static size_t times_room;
static uint32_t ticks; /* of a frame */
static const char *keys;
static uint32_t *latency[2]; /* of the first and of the last viewer's video, in microseconds */
static size_t latencies[2];

#ifdef SRTP
static void read_keys(void)
{
    FILE *file = fopen(keys, "r");
    int place;
    char profile[64], hex[128];
    srtp_init();
    while (file != NULL && fscanf(file, "%d %63s %127s", &place, profile, hex) == 3) {
        uint8_t key[64];
        for (size_t i = 0; i < strlen(hex) / 2; i++)
            sscanf(hex + 2 * i, "%2hhx", &key[i]);
        srtp_policy_t policy = {.ssrc = {ssrc_any_inbound, 0}, .key = key, .window_size = 1024};
        if (strcmp(profile, "AEAD_AES_128_GCM") == 0) {
            srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtp);
            srtp_crypto_policy_set_aes_gcm_128_16_auth(&policy.rtcp);
        } else {
            srtp_crypto_policy_set_rtp_default(&policy.rtp);
            srtp_crypto_policy_set_rtcp_default(&policy.rtcp);
        }
        if (place < places && srtp_create(&views[place].session, &policy) != srtp_err_status_ok)
            fprintf(stderr, "viewers: a key of %s is not taken\n", profile);
    }
    keys = NULL;
}
#endif

/* In place; false when the packet is not authentic. */
static bool decrypted(struct view *view, uint8_t *packet, size_t *size)
{
#ifdef SRTP
    int length = (int)*size;
    if (keys != NULL)
        read_keys();
    if (view->session == NULL)
        return true;
    bool good = srtp_unprotect(view->session, packet, &length) == srtp_err_status_ok;
    *size = (size_t)length;
    return good;
#else
    (void)view, (void)packet, (void)size;
    return true;
#endif
}

/* Which packet of the trace it is: the one after the last, or at first the earliest with its hash. False for none. */
static bool found_in_trace(const struct view *view, uint16_t step, const uint8_t *payload, size_t length, uint32_t *counter)
{
    uint32_t hash = check_of(payload, length);
    *counter = view->begun ? view->counter + step : 0;
    while (!view->begun && *counter < trace.count && trace.packets[*counter].hash != hash)
        ++*counter;
    const struct recorded *known = &trace.packets[*counter % trace.count];
    return known->hash == hash && known->size == length;
}

static void judge(struct view *view, uint8_t *packet, size_t size, uint64_t at, int which)
{
    if (size >= 2 && packet[1] >= RTCP_FIRST && packet[1] <= RTCP_LAST)
        return;
    view->packets++;
    if (!decrypted(view, packet, &size) || size < HEADER + STAMP + CHECK || packet[0] != 0x80) {
        view->broken++;
        return;
    }
    const uint8_t *payload = packet + HEADER;
    size_t length = size - HEADER;
    uint16_t sequence = (uint16_t)read_be(packet + 2, 2), step = (uint16_t)(sequence - view->sequence);
    uint32_t timestamp = (uint32_t)read_be(packet + 4, 4), ssrc = (uint32_t)read_be(packet + 8, 4);
    uint32_t counter, sent_timestamp;
    uint64_t sent_at = 0;
    if (trace.count > 0 && view->place % 2 == 0) {
        if (!found_in_trace(view, step, payload, length, &counter)) {
            view->broken++;
            return;
        }
        sent_timestamp = frame_of(&trace, counter) * ticks;
        sent_at = counter < times_room ? times[counter] : at;
    } else {
        if (read_be(payload + length - CHECK, CHECK) != check_of(payload, length - CHECK)) {
            view->broken++;
            return;
        }
        counter = (uint32_t)read_be(payload + AT_COUNTER, 4);
        sent_timestamp = (uint32_t)read_be(payload + AT_TIMESTAMP, 4);
        sent_at = read_be(payload + AT_TIME, 8);
        view->strange += read_be(payload + AT_GROUP, 2) != (uint16_t)view->group;
    }
    if (view->begun) {
        if (ssrc != view->ssrc || counter - view->counter != step || step == 0 || step > FURTHEST)
            view->strange++; /* another stream, a number that does not go with its packet, or one out of order */
        else
            view->lost += step - 1u;
        view->strange += timestamp - view->timestamp != sent_timestamp - view->sent_timestamp;
    }
    if (!view->begun)
        view->begun_at = at;
    view->begun = true;
    view->ssrc = ssrc;
    view->sequence = sequence;
    view->timestamp = timestamp;
    view->counter = counter;
    view->sent_timestamp = sent_timestamp;
    if (which >= 0 && latencies[which] < LATENCIES && at - view->begun_at >= START)
        latency[which][latencies[which]++] = at > sent_at ? (uint32_t)((at - sent_at) / 1000) : 0;
}

static int opened(int port, bool read_it)
{
    static struct sock_filter only_rtcp[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8 + 1), /* behind the UDP header */
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, RTCP_FIRST, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, RTCP_LAST, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {sizeof only_rtcp / sizeof *only_rtcp, only_rtcp};
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

static uint64_t dropped(int fd)
{
    uint32_t memory[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof memory;
    getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &length);
    return memory[SK_MEMINFO_DROPS];
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

static void take(struct view *view)
{
    static uint8_t buffer[AT_ONCE][LARGEST + 64], control[AT_ONCE][64];
    struct mmsghdr headers[AT_ONCE];
    struct iovec vectors[AT_ONCE];
    int which = view->place == 0 ? 0 : view->place == places - 2 ? 1 : -1;
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
    if (places == 2)
        which = 0; /* the only viewer is the last as well */
    size_t count = latencies[which];
    return count ? latency[which][(size_t)(part * (double)(count - 1))] / 1000.0 : -1;
}

/* Reads judged viewers until the input ends. */
static void watch(void)
{
    int poller = epoll_create1(0);
    for (int i = 0; i < places; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &views[i]};
        if (views[i].judged)
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
                take(ready[i].data.ptr);
        }
    }
}

static void report(void)
{
    uint64_t packets = 0, unread = 0, lost = 0, strange = 0, broken = 0;
    int judged = 0, names = 0;
    for (int i = 0; i < places; i++) {
        struct view *view = &views[i];
        if (!view->judged) {
            unread += dropped(view->fd);
            continue;
        }
        take(view);
        judged++;
        packets += view->packets;
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
    printf("{\"judged\": %d, \"names\": %d, \"packets\": %llu, \"unread\": %llu, \"lost\": %llu, \"strange\": %llu, "
           "\"broken\": %llu, \"first_p50\": %.3f, \"last_p50\": %.3f, \"last_p99\": %.3f}\n",
           judged, names, (unsigned long long)packets, (unsigned long long)unread, (unsigned long long)lost,
           (unsigned long long)strange, (unsigned long long)broken, share(0, .5), share(1, .5), share(1, .99));
}

int main(int count, char **given)
{
    if (count < 6) {
        fprintf(stderr, "viewers FIRST_PORT GROUPS VIEWERS READ FRAMES [-t TRACE TIMES] [-k KEYS]\n");
        return 2;
    }
    int first = atoi(given[1]), each = atoi(given[3]), viewers = atoi(given[2]) * each, read_them = atoi(given[4]);
    ticks = VIDEO_RATE / (uint32_t)atoi(given[5]);
    for (int at = 6; at < count; at++) {
        if (strcmp(given[at], "-t") == 0 && at + 2 < count) {
            trace = trace_of(given[at + 1]);
            times = (const uint64_t *)mapped(given[at + 2], 0, &times_room);
            times_room /= sizeof *times;
        } else if (strcmp(given[at], "-k") == 0 && at + 1 < count) {
            keys = given[at + 1];
        }
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    places = 2 * viewers;
    views = calloc((size_t)places, sizeof *views);
    for (int i = 0; i < 2; i++)
        latency[i] = malloc(LATENCIES * sizeof **latency);
    for (int i = 0; i < places; i++) {
        int viewer = i / 2;
        views[i].place = i;
        views[i].group = viewer / each;
        views[i].judged = (viewer * read_them + viewers - 1) / viewers != ((viewer + 1) * read_them + viewers - 1) / viewers ||
                          viewer == viewers - 1;
        views[i].fd = opened(first + i, views[i].judged);
    }
    watch();
    report();
    return 0;
}
