/* What an H.264 payload begins or holds whole (RFC 6184 sections 5.2, 5.7, 5.8). */
#ifndef DIALCAST_H264_H
#define DIALCAST_H264_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

#define NAL_IDR 5
#define NAL_SPS 7
#define NAL_PPS 8

/* SPS and PPS in order; none when there are more, or larger ones, than any encoder makes. */
struct parameter_sets {
    int count;
    uint16_t size[MAX_PARAMETER_SETS];
    uint8_t *data; /* one after the other, owned */
};

/* Bit n is set for a unit of type n; 0 for a later fragment, or for nonsense. */
uint32_t h264_types(const uint8_t *payload, size_t size);

/* Replaces `sets` by those in the payload, unless there are none or too many. */
void h264_learn(const uint8_t *payload, size_t size, struct parameter_sets *sets);

/* Adds one; false when there is no room for it, or no memory. */
bool sets_add(struct parameter_sets *sets, const uint8_t *unit, size_t size);
void sets_clear(struct parameter_sets *sets);

#endif
