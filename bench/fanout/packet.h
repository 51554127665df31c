/* The packets of the benchmark. Either the payload says when it was sent, in which group, which packet it is and whether it
   arrived whole; or it is recorded video (a trace), known by its hash, and the times of sending stand in a shared file. */
#ifndef BENCH_PACKET_H
#define BENCH_PACKET_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEADER 12
#define STAMP 19 /* NAL unit header, time, counter, timestamp, group */
#define AT_TIME 1
#define AT_COUNTER 9
#define AT_TIMESTAMP 13
#define AT_GROUP 17
#define CHECK 4
#define LARGEST 1500
#define VIDEO_RATE 90000

static inline uint64_t read_be(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | *at++;
    return value;
}

static inline void write_be(uint8_t *at, uint64_t value, int bytes)
{
    for (; bytes > 0; value >>= 8)
        at[--bytes] = (uint8_t)value;
}

static inline uint64_t wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* FNV-1a over words: quick, and no relay's own. */
static inline uint32_t check_of(const uint8_t *data, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        hash = (hash ^ word) * 0x100000001b3u;
    }
    while (size-- > 0)
        hash = (hash ^ *data++) * 0x100000001b3u;
    return (uint32_t)(hash ^ hash >> 32);
}

/* A trace is a row of records, little-endian: frame number (4 octets), size (2), payload. It is played again and again. */
struct trace {
    uint32_t count, frames;
    struct recorded {
        uint32_t frame, hash;
        uint16_t size;
        const uint8_t *payload;
    } * packets;
};

static inline uint8_t *mapped(const char *path, int writable, size_t *size)
{
    int fd = open(path, writable ? O_RDWR : O_RDONLY);
    struct stat about;
    void *found = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &about) == 0)
        found = mmap(NULL, (size_t)about.st_size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (found == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    *size = (size_t)about.st_size;
    close(fd);
    return found;
}

static inline struct trace trace_of(const char *path)
{
    size_t size;
    const uint8_t *data = mapped(path, 0, &size);
    struct trace trace = {.packets = calloc(size / 6 + 1, sizeof *trace.packets)};
    for (size_t at = 0; at + 6 <= size; trace.count++) {
        struct recorded *each = &trace.packets[trace.count];
        memcpy(&each->frame, data + at, 4);
        memcpy(&each->size, data + at + 4, 2);
        each->payload = data + at + 6;
        each->hash = check_of(each->payload, each->size);
        trace.frames = each->frame + 1;
        at += 6 + each->size;
    }
    return trace;
}

/* The frame a packet belongs to, counted from the first time the trace is played. */
static inline uint32_t frame_of(const struct trace *trace, uint32_t counter)
{
    return counter / trace->count * trace->frames + trace->packets[counter % trace->count].frame;
}

#endif
