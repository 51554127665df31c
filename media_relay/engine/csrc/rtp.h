/* RTP headers (RFC 3550 section 5.1), classification of datagrams (RFC 7983 section 7), numbers that wrap (A.1). */
#ifndef DIALCAST_RTP_H
#define DIALCAST_RTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RTP_HEADER 12

struct rtp {
    uint8_t payload_type;
    bool marker;
    uint16_t sequence;
    uint32_t timestamp;
    uint32_t ssrc;
    size_t start, end; /* of the payload */
};

/* False when the datagram is no whole RTP packet. */
bool rtp_parse(const uint8_t *data, size_t size, struct rtp *found);

/* True when the first octets say RTP and a whole fixed header is there. */
bool rtp_is(const uint8_t *data, size_t size);

static inline uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static inline uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }
static inline void put16(uint8_t *at, uint16_t value) { at[0] = (uint8_t)(value >> 8), at[1] = (uint8_t)value; }
static inline void put32(uint8_t *at, uint32_t value) { put16(at, (uint16_t)(value >> 16)), put16(at + 2, (uint16_t)value); }

/* a - b over the shorter way round the circle. */
static inline int64_t difference16(int64_t a, int64_t b) { return (int16_t)(uint16_t)((uint64_t)a - (uint64_t)b); }
static inline int64_t difference32(int64_t a, int64_t b) { return (int32_t)(uint32_t)((uint64_t)a - (uint64_t)b); }

#endif
