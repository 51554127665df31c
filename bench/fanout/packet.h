/* The packets of the benchmark: RTP whose payload says when it was sent, which it is, and whether it arrived whole. */
#ifndef BENCH_PACKET_H
#define BENCH_PACKET_H

#include <stdint.h>
#include <string.h>
#include <time.h>

#define HEADER 12
#define STAMP 13 /* NAL unit header, time, counter */
#define CHECK 4
#define LARGEST 1500

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

#endif
