#include "numbering.h"

#include <math.h>
#include <stdlib.h>

static int slot(const struct shifts *shifts, int index) { return (shifts->first + index) % MAX_SHIFTS; }

static void append(struct shifts *shifts, int64_t start, int64_t by)
{
    if (shifts->count == MAX_SHIFTS) {
        shifts->first = slot(shifts, 1);
        shifts->count--;
    }
    int at = slot(shifts, shifts->count++);
    shifts->at[at].start = start;
    shifts->at[at].by = by;
}

static void only(struct shifts *shifts, int64_t start, int64_t by)
{
    shifts->first = shifts->count = 0;
    append(shifts, start, by);
}

static int64_t last(const struct shifts *shifts) { return shifts->at[slot(shifts, shifts->count - 1)].by; }

static int64_t shift_of(const struct shifts *shifts, int64_t number)
{
    for (int i = shifts->count - 1; i >= 0; i--)
        if (number >= shifts->at[slot(shifts, i)].start)
            return shifts->at[slot(shifts, i)].by;
    return shifts->at[shifts->first].by;
}

void timeline_begin(struct timeline *line, int clock_rate)
{
    *line = (struct timeline){.clock_rate = clock_rate, .highest = -1};
}

static void restart(struct timeline *line, const struct rtp *packet, double now)
{
    if (line->known && line->ssrc != packet->ssrc) {
        line->retired = true;
        line->retired_ssrc = line->ssrc;
        line->retired_until = now + RETIRED_SSRC_SECONDS;
    }
    int64_t elapsed = 0;
    if (line->highest >= 0) {
        elapsed = llrint((now - line->arrived_at) * line->clock_rate);
        if (elapsed < 1)
            elapsed = 1;
    }
    line->known = true;
    line->ssrc = packet->ssrc;
    line->raw_highest = packet->sequence;
    line->raw_timestamp = packet->timestamp;
    only(&line->shifts, (int64_t)packet->sequence - HISTORY, line->highest + 1 - packet->sequence);
    line->timestamp_offset = line->timestamp + elapsed - packet->timestamp;
}

bool timeline_place(struct timeline *line, const struct rtp *packet, double now, int64_t *sequence, int64_t *timestamp)
{
    if (!line->known || packet->ssrc != line->ssrc) {
        if (line->retired && line->retired_ssrc == packet->ssrc && now < line->retired_until)
            return false;
        restart(line, packet, now);
    }
    int64_t step = difference16(packet->sequence, line->raw_highest);
    if (llabs(step) > MAX_DROPOUT) {
        restart(line, packet, now);
        step = 0;
    }
    line->step = step;
    if (step <= -HISTORY)
        return false;
    int64_t raw = line->raw_highest + step;
    *sequence = raw + shift_of(&line->shifts, raw);
    if (*sequence < 0)
        return false;
    int64_t raw_timestamp = line->raw_timestamp + difference32(packet->timestamp, line->raw_timestamp);
    *timestamp = raw_timestamp + line->timestamp_offset;
    if (step >= 0) {
        line->raw_highest = raw;
        line->raw_timestamp = raw_timestamp;
        line->highest = *sequence;
        line->timestamp = *timestamp;
        line->arrived_at = now;
    }
    return true;
}

void timeline_insert_before(struct timeline *line, int64_t sequence, int count)
{
    append(&line->shifts, line->raw_highest, last(&line->shifts) + count);
    line->highest = sequence + count;
}

void timeline_replaced(struct timeline *line) { line->known = line->retired = false; }

static int64_t number_of(const struct numbers *numbers, int64_t sequence)
{
    return sequence + shift_of(&numbers->shifts, sequence);
}

void numbers_resume(struct numbers *numbers, int64_t sequence)
{
    int64_t before = numbers->started ? number_of(numbers, numbers->highest) : numbers->first - 1;
    numbers->started = true;
    numbers->floor = sequence;
    numbers->highest = sequence - 1;
    only(&numbers->shifts, sequence - 1, before + 1 - sequence);
}

bool numbers_assign(struct numbers *numbers, int64_t sequence, int64_t *number)
{
    if (!numbers->started)
        numbers_resume(numbers, sequence);
    if (sequence < numbers->floor || sequence <= numbers->highest - HISTORY)
        return false;
    if (sequence > numbers->highest) {
        numbers->highest = sequence;
        *number = sequence + last(&numbers->shifts);
        return true;
    }
    if (sequence < numbers->shifts.at[numbers->shifts.first].start)
        return false;
    *number = number_of(numbers, sequence);
    return true;
}

void numbers_skip(struct numbers *numbers, int64_t sequence)
{
    int64_t unused;
    if (!numbers->started || sequence > numbers->highest) {
        numbers_assign(numbers, sequence, &unused);
        append(&numbers->shifts, sequence + 1, last(&numbers->shifts) - 1);
    }
}

bool numbers_group_sequence(const struct numbers *numbers, uint16_t number, int64_t *sequence)
{
    if (!numbers->started)
        return false;
    int64_t newest = number_of(numbers, numbers->highest);
    int64_t endless = newest + difference16(number, newest);
    if (endless > newest)
        return false;
    const struct shifts *shifts = &numbers->shifts;
    for (int i = shifts->count - 1; i >= 0; i--) {
        int at = slot(shifts, i);
        *sequence = endless - shifts->at[at].by;
        if (*sequence >= shifts->at[at].start)
            return *sequence >= numbers->floor && *sequence > numbers->highest - HISTORY;
    }
    return false;
}
