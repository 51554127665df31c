/* Sequence numbers and timestamps from the source to each viewer (RFC 3550 section 5.1, RFC 7667 section 3.7);
   media_relay/numbering.py explains both steps. */
#ifndef DIALCAST_NUMBERING_H
#define DIALCAST_NUMBERING_H

#include <stdbool.h>
#include <stdint.h>

#include "limits.h"
#include "rtp.h"

/* What to add to numbers from `start` on; the oldest is forgotten when there are too many. */
struct shifts {
    struct {
        int64_t start, by;
    } at[MAX_SHIFTS];
    int first, count;
};

/* The group's line for one medium, whoever the source is. */
struct timeline {
    int clock_rate;
    bool known; /* ssrc is that of the source */
    uint32_t ssrc;
    int64_t highest; /* sequence number given out, in the group's numbering; -1 before the first */
    int64_t timestamp;
    int64_t step; /* how far the packet placed last was beyond the highest before it, by its source's numbers */
    double arrived_at;
    int64_t timestamp_offset;
    int64_t raw_highest, raw_timestamp;
    struct shifts shifts;
    bool retired;
    uint32_t retired_ssrc;
    double retired_until;
};

/* One viewer's numbers. */
struct numbers {
    bool started;
    int64_t first, floor, highest, timestamp_offset;
    struct shifts shifts;
};

void timeline_begin(struct timeline *line, int clock_rate);
/* The packet's place on the line; false when it is too late to have one. */
bool timeline_place(struct timeline *line, const struct rtp *packet, double now, int64_t *sequence, int64_t *timestamp);
/* Makes room for packets of our own before the newest one, which stood at `sequence`. */
void timeline_insert_before(struct timeline *line, int64_t sequence, int count);
/* Another leg is the source now: any SSRC is new. */
void timeline_replaced(struct timeline *line);

/* What follows starts at this group number, right after the last one sent. */
void numbers_resume(struct numbers *numbers, int64_t sequence);
/* The viewer's (endless) number of this packet; false when it comes too late to have one. */
bool numbers_assign(struct numbers *numbers, int64_t sequence, int64_t *number);
/* Leaves the packet out on purpose: what comes after closes the gap. */
void numbers_skip(struct numbers *numbers, int64_t sequence);
/* The group number behind a viewer's 16-bit number; false beyond the last `HISTORY`. */
bool numbers_group_sequence(const struct numbers *numbers, uint16_t number, int64_t *sequence);

#endif
