#include "rtp.h"

bool rtp_is(const uint8_t *data, size_t size)
{
    return size >= RTP_HEADER && data[0] >> 6 == 2 && !(data[1] >= 192 && data[1] < 224);
}

bool rtp_parse(const uint8_t *data, size_t size, struct rtp *found)
{
    if (size < RTP_HEADER || data[0] >> 6 != 2)
        return false;
    size_t start = RTP_HEADER + 4 * (size_t)(data[0] & 0x0F), end = size;
    if (data[0] & 0x10) {
        if (start + 4 > size)
            return false;
        start += 4 + 4 * (size_t)get16(data + start + 2);
    }
    if (data[0] & 0x20) {
        uint8_t padding = data[size - 1];
        if (padding == 0 || padding > end)
            return false;
        end -= padding;
    }
    if (start > end)
        return false;
    *found = (struct rtp){
        .payload_type = data[1] & 0x7F,
        .marker = data[1] >= 0x80,
        .sequence = get16(data + 2),
        .timestamp = get32(data + 4),
        .ssrc = get32(data + 8),
        .start = start,
        .end = end,
    };
    return true;
}
