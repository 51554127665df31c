#include "amr.h"

#include <string.h>

/* Speech bits by frame type, narrow band (TS 26.101) and wide band (TS 26.201); -1 is reserved. */
static const int16_t frame_bits[2][16] = {
    {95, 103, 118, 134, 148, 159, 204, 244, 39, 43, 38, 37, -1, -1, -1, 0},
    {132, 177, 253, 285, 317, 365, 397, 461, 477, 40, -1, -1, -1, -1, 0, 0},
};

struct bits {
    const uint8_t *data;
    size_t at, end; /* in bits */
};

static bool take(struct bits *bits, int count, unsigned *value)
{
    if (bits->at + (size_t)count > bits->end)
        return false;
    *value = 0;
    for (; count > 0; count--, bits->at++)
        *value = *value << 1 | (bits->data[bits->at >> 3] >> (7 - (bits->at & 7)) & 1u);
    return true;
}

static void put(uint8_t *out, size_t *at, unsigned value, int count)
{
    for (int bit = count - 1; bit >= 0; bit--, ++*at)
        out[*at >> 3] |= (uint8_t)((value >> bit & 1u) << (7 - (*at & 7)));
}

int amr_convert(const uint8_t *payload, size_t size, bool from_aligned, bool wide, uint8_t out[AMR_BYTES])
{
    struct bits in = {payload, 0, 8 * size};
    unsigned request, unused, more = 1, kinds[AMR_FRAMES], good[AMR_FRAMES];
    int frames = 0;
    if (!take(&in, 4, &request) || (from_aligned && !take(&in, 4, &unused)))
        return -1;
    while (more) {
        if (frames == AMR_FRAMES || !take(&in, 1, &more) || !take(&in, 4, &kinds[frames]) || !take(&in, 1, &good[frames]))
            return -1;
        if (from_aligned && !take(&in, 2, &unused))
            return -1;
        frames++;
    }
    memset(out, 0, AMR_BYTES);
    size_t at = 0;
    put(out, &at, request, 4);
    if (!from_aligned)
        put(out, &at, 0, 4);
    for (int i = 0; i < frames; i++) {
        put(out, &at, i < frames - 1, 1);
        put(out, &at, kinds[i], 4);
        put(out, &at, good[i], 1);
        if (!from_aligned)
            put(out, &at, 0, 2);
    }
    for (int i = 0; i < frames; i++) {
        int count = frame_bits[wide][kinds[i]];
        if (count < 0)
            return -1;
        for (int left = count; left > 0; left -= 16) {
            int part = left < 16 ? left : 16;
            unsigned value;
            if (!take(&in, part, &value))
                return -1;
            put(out, &at, value, part);
        }
        int padding = (8 - count % 8) % 8;
        if (from_aligned ? !take(&in, padding, &unused) : false)
            return -1;
        if (!from_aligned)
            at += (size_t)padding;
    }
    return (int)((at + 7) / 8);
}
