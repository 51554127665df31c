/* Harness: what a packet says of itself. RTP headers, H.264 payloads and the parameter sets learned from them, AMR from
   one packing into the other and back. */
#include "world.h"

#include "amr.h"
#include "h264.h"

static void read_packet(const uint8_t *data, size_t size)
{
    struct rtp packet;
    if (rtp_parse(data, size, &packet))
        MUST(packet.start >= RTP_HEADER && packet.start <= packet.end && packet.end <= size && data[0] >> 6 == 2);
    if (rtp_is(data, size))
        MUST(size >= RTP_HEADER && data[0] >= 128 && data[0] < 192);
}

/* Payloads one after the other, each behind its length. What was learned last stays within what any encoder makes. */
static void read_h264(const uint8_t *data, size_t size)
{
    struct input input = {data, size, 0};
    struct parameter_sets sets = {0};
    while (input.at < input.size) {
        const uint8_t *unit;
        size_t length = bytes(&input, word(&input) % 2100, &unit);
        uint8_t *payload = malloc(length + !length); /* exactly as long, so that a byte read behind it is noticed */
        MUST(payload != NULL);
        memcpy(payload, unit, length);
        if (h264_types(payload, length) & 1u << NAL_SPS)
            h264_learn(payload, length, &sets);
        free(payload);
        size_t total = 0;
        for (int i = 0; i < sets.count; i++)
            total += sets.size[i];
        MUST(sets.count <= MAX_PARAMETER_SETS && total <= MAX_PARAMETER_BYTES && (sets.count == 0 || sets.data != NULL));
    }
    sets_clear(&sets);
}

static void read_amr(const uint8_t *data, size_t size, bool aligned, bool wide)
{
    static uint8_t other[AMR_BYTES], back[AMR_BYTES], again[AMR_BYTES];
    int length = amr_convert(data, size, aligned, wide, other);
    if (length < 0)
        return;
    MUST(length > 0 && length <= AMR_BYTES);
    int returned = amr_convert(other, (size_t)length, !aligned, wide, back);
    MUST(returned > 0 && (size_t)returned <= size);
    MUST(amr_convert(back, (size_t)returned, aligned, wide, again) == length && memcmp(again, other, (size_t)length) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    unsigned kind = data[0] % 6;
    data++, size--;
    if (kind == 0)
        read_packet(data, size);
    else if (kind == 1)
        read_h264(data, size);
    else
        read_amr(data, size, kind & 1, kind >= 4);
    return 0;
}
