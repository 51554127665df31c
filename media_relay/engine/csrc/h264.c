#include "h264.h"

#include <stdlib.h>
#include <string.h>

#include "rtp.h"

enum { STAP_A = 24, FU_A = 28, TYPE = 0x1F, FU_START = 0x80 };

/* Calls for each unit of a STAP-A; false when one is empty or cut off, and nothing of it counts then. */
static bool next_unit(const uint8_t *payload, size_t size, size_t *at, const uint8_t **unit, size_t *length)
{
    if (*at + 2 > size)
        return false;
    *length = get16(payload + *at);
    if (*length == 0 || *at + 2 + *length > size)
        return false;
    *unit = payload + *at + 2;
    *at += 2 + *length;
    return true;
}

uint32_t h264_types(const uint8_t *payload, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t kind = payload[0] & TYPE;
    if (kind == FU_A)
        return size > 2 && payload[1] & FU_START ? 1u << (payload[1] & TYPE) : 0;
    if (kind == STAP_A) {
        uint32_t types = 0;
        for (size_t at = 1; at < size;) {
            const uint8_t *unit;
            size_t length;
            if (!next_unit(payload, size, &at, &unit, &length))
                return 0;
            types |= 1u << (unit[0] & TYPE);
        }
        return types;
    }
    return 0 < kind && kind < STAP_A ? 1u << kind : 0;
}

void sets_clear(struct parameter_sets *sets)
{
    free(sets->data);
    *sets = (struct parameter_sets){0};
}

bool sets_add(struct parameter_sets *sets, const uint8_t *unit, size_t size)
{
    size_t used = 0;
    for (int i = 0; i < sets->count; i++)
        used += sets->size[i];
    if (sets->count == MAX_PARAMETER_SETS || used + size > MAX_PARAMETER_BYTES)
        return false;
    uint8_t *data = realloc(sets->data, used + size + 1);
    if (data == NULL)
        return false;
    memcpy(data + used, unit, size);
    sets->data = data;
    sets->size[sets->count++] = (uint16_t)size;
    return true;
}

static bool is_set(const uint8_t *unit) { return (unit[0] & TYPE) == NAL_SPS || (unit[0] & TYPE) == NAL_PPS; }

void h264_learn(const uint8_t *payload, size_t size, struct parameter_sets *sets)
{
    struct parameter_sets found = {0};
    bool fits = true;
    uint8_t kind = payload[0] & TYPE;
    if (kind == STAP_A) {
        for (size_t at = 1; at < size && fits;) {
            const uint8_t *unit;
            size_t length;
            if (!next_unit(payload, size, &at, &unit, &length))
                break;
            fits = !is_set(unit) || sets_add(&found, unit, length);
        }
    } else if (kind != FU_A && is_set(payload)) {
        fits = sets_add(&found, payload, size);
    }
    if (fits && found.count > 0) {
        sets_clear(sets);
        *sets = found;
    } else {
        sets_clear(&found);
    }
}
