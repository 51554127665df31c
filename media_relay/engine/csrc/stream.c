#include "stream.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static struct packet *packet_new(const uint8_t *payload, size_t size, int64_t sequence, int64_t timestamp, bool marker)
{
    struct packet *packet = malloc(sizeof *packet + size);
    if (packet == NULL)
        return NULL;
    packet->holders = 1;
    packet->marker = marker;
    packet->size = (uint16_t)size;
    packet->sequence = sequence;
    packet->timestamp = timestamp;
    memcpy(packet->payload, payload, size);
    return packet;
}

void packet_release(struct packet *packet)
{
    if (packet != NULL && --packet->holders == 0)
        free(packet);
}

static void take_coding(struct stream *stream, const struct coding *coding)
{
    stream->coding = *coding;
    stream->wide = strcasecmp(coding->codec, "AMR-WB") == 0;
    stream->repacked_layout = NOT_AMR;
}

struct stream *stream_new(const struct coding *coding, double cache_seconds, int64_t cache_bytes)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return NULL;
    pthread_mutex_init(&stream->lock, NULL);
    take_coding(stream, coding);
    stream->has_keyframes = strcasecmp(coding->codec, "H264") == 0;
    stream->cache = (struct cache){.max_seconds = cache_seconds, .max_bytes = cache_bytes};
    stream->oldest = -1;
    stream->kept_ticks = llrint((cache_seconds > HISTORY_SECONDS ? cache_seconds : HISTORY_SECONDS) * coding->clock_rate);
    timeline_begin(&stream->line, coding->clock_rate);
    return stream;
}

void stream_free(struct stream *stream)
{
    if (stream == NULL)
        return;
    for (int i = 0; i < HISTORY; i++)
        packet_release(stream->history[i]);
    sets_clear(&stream->sets);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}

void stream_source_changed(struct stream *stream, const struct coding *coding, struct parameter_sets *sets)
{
    take_coding(stream, coding);
    sets_clear(&stream->sets);
    stream->sets = *sets;
    *sets = (struct parameter_sets){0};
    timeline_replaced(&stream->line);
}

/* Reception */

static void begin(struct reception *reception)
{
    reception->known = reception->restarting = reception->measured = false;
    reception->packets = 0;
    reception->begun++;
}

static void received(struct reception *reception, const struct rtp *packet, int clock_rate, double now)
{
    int64_t step = reception->known ? difference16(packet->sequence, reception->highest) : 0;
    if (step < -MAX_MISORDER || step >= MAX_DROPOUT) {
        if (!reception->restarting || packet->sequence != reception->restart_at) {
            reception->restarting = true;
            reception->restart_at = (uint16_t)(packet->sequence + 1);
            return;
        }
        begin(reception);
    }
    if (!reception->known) {
        reception->known = true;
        reception->restarting = false;
        reception->base = reception->highest = packet->sequence;
        reception->packets = 0;
    } else if (step > 0) {
        reception->highest += step;
    }
    reception->packets++;
    if (reception->measured) {
        double apart = (double)difference32(packet->timestamp, reception->last_timestamp);
        double deviation = fabs((now - reception->last_now) * clock_rate - apart);
        reception->jitter += (deviation - reception->jitter) / 16;
    }
    reception->measured = true;
    reception->last_now = now;
    reception->last_timestamp = packet->timestamp;
}

/* Keyframes */

static bool cache_add(struct cache *cache, int64_t sequence, int64_t timestamp, bool starts, size_t size, double now)
{
    if (starts && cache->has_start && cache->has_timestamp && timestamp == cache->timestamp) {
        if (sequence < cache->start)
            cache->start = sequence;
    } else if (starts && (!cache->has_start || sequence > cache->start)) {
        cache->has_start = cache->has_timestamp = true;
        cache->start = sequence;
        cache->timestamp = timestamp;
        cache->bytes = (int64_t)size;
        cache->started_at = now;
        return true;
    }
    cache->bytes += (int64_t)size;
    return false;
}

bool stream_startable(const struct stream *stream, double now)
{
    const struct cache *cache = &stream->cache;
    return cache->has_start && cache->bytes <= cache->max_bytes && now - cache->started_at <= cache->max_seconds &&
           cache->start >= stream->forgotten && cache->start > stream->line.highest - HISTORY / 2;
}

/* The line */

static size_t place_in_history(int64_t sequence) { return (size_t)(sequence % HISTORY); }

static void remember(struct stream *stream, struct packet *packet)
{
    struct packet **at = &stream->history[place_in_history(packet->sequence)];
    packet_release(*at);
    packet->holders++;
    *at = packet;
}

/* Lets go of what nobody can use any more, from this number on. */
static void forget(struct stream *stream, int64_t oldest)
{
    const struct timeline *line = &stream->line;
    for (; oldest < line->highest; oldest++) {
        const struct packet *packet = stream_packet(stream, oldest);
        if (packet == NULL)
            continue;
        if (packet->timestamp >= line->timestamp - stream->kept_ticks)
            break;
        packet_release(stream->history[place_in_history(oldest)]);
        stream->history[place_in_history(oldest)] = NULL;
        stream->forgotten = oldest + 1;
    }
    stream->oldest = oldest;
}

struct packet *stream_packet(const struct stream *stream, int64_t sequence)
{
    if (sequence < 0)
        return NULL;
    struct packet *packet = stream->history[place_in_history(sequence)];
    return packet != NULL && packet->sequence == sequence ? packet : NULL;
}

/* Our own packets with SPS and PPS, put on the line before the IDR that came without them. */
static bool insert_sets(struct stream *stream, int64_t sequence, int64_t timestamp, struct placed *placed)
{
    const uint8_t *unit = stream->sets.data;
    for (int i = 0; i < stream->sets.count; i++) {
        struct packet *packet = packet_new(unit, stream->sets.size[i], sequence + i, timestamp, false);
        if (packet == NULL)
            return false;
        placed->packets[placed->count++] = packet;
        unit += stream->sets.size[i];
    }
    if (placed->count > 0)
        timeline_insert_before(&stream->line, sequence, placed->count);
    return true;
}

static void note_missing(struct stream *stream, uint16_t number)
{
    int64_t gap = stream->line.step - 1;
    if (gap < 0) {
        int at = 0;
        while (at < stream->missing_count && stream->missing[at] != number)
            at++;
        if (at < stream->missing_count)
            memmove(stream->missing + at, stream->missing + at + 1, sizeof *stream->missing * (size_t)(--stream->missing_count - at));
    } else if (gap <= MAX_MISSING - stream->missing_count) {
        for (int64_t back = gap; back > 0; back--)
            stream->missing[stream->missing_count++] = (uint16_t)(number - back);
    }
}

static bool nothing(struct placed *placed)
{
    while (placed->count > 0)
        packet_release(placed->packets[--placed->count]);
    return false;
}

bool stream_place(struct stream *stream, const uint8_t *data, size_t size, double now, struct placed *placed)
{
    struct rtp packet;
    int64_t sequence, timestamp;
    struct timeline *line = &stream->line;
    placed->count = 0;
    placed->keyframe = false;
    if (!rtp_parse(data, size, &packet) || packet.payload_type != stream->coding.payload_type || packet.start == packet.end)
        return false;
    bool known = line->known;
    uint32_t ssrc = line->ssrc;
    if (!timeline_place(line, &packet, now, &sequence, &timestamp))
        return false;
    if (!known || line->ssrc != ssrc) {
        stream->reception = (struct reception){.serial = stream->reception.serial + 1};
        stream->cache.has_start = stream->cache.has_timestamp = false;
        stream->missing_count = 0;
    }
    note_missing(stream, packet.sequence);
    received(&stream->reception, &packet, stream->coding.clock_rate, now);
    const struct packet *before = stream->history[place_in_history(sequence)];
    if (sequence < stream->forgotten || (before != NULL && before->sequence >= sequence))
        return false;
    const uint8_t *payload = data + packet.start;
    size_t length = packet.end - packet.start;
    if (stream->has_keyframes) {
        uint32_t types = h264_types(payload, length);
        bool starts = (types & (1u << NAL_IDR | 1u << NAL_SPS)) != 0;
        if (types & 1u << NAL_SPS) {
            h264_learn(payload, length, &stream->sets);
        } else if (starts && !(stream->cache.has_timestamp && timestamp == stream->cache.timestamp)) {
            if (sequence != line->highest)
                starts = stream->sets.count == 0; /* there is no room for them now: nobody can start here */
            else if (!insert_sets(stream, sequence, timestamp, placed))
                return nothing(placed);
            sequence += placed->count;
        }
        int64_t first = placed->count > 0 ? placed->packets[0]->sequence : sequence;
        placed->keyframe = cache_add(&stream->cache, first, timestamp, starts, length, now);
    }
    struct packet *own = packet_new(payload, length, sequence, timestamp, packet.marker);
    if (own == NULL)
        return nothing(placed);
    placed->packets[placed->count++] = own;
    for (int i = 0; i < placed->count; i++)
        remember(stream, placed->packets[i]);
    int64_t first = placed->packets[0]->sequence;
    forget(stream, stream->oldest < 0 || first < stream->oldest ? first : stream->oldest);
    return true;
}

bool stream_repacked(struct stream *stream, const struct packet *packet, enum layout wanted, const uint8_t **data, size_t *size)
{
    enum layout layout = stream->coding.layout;
    if (layout == wanted || layout == NOT_AMR) {
        *data = packet->payload;
        *size = packet->size;
        return true;
    }
    if (stream->repacked_layout != wanted || stream->repacked_sequence != packet->sequence) {
        stream->repacked_layout = wanted;
        stream->repacked_sequence = packet->sequence;
        stream->repacked_size =
            amr_convert(packet->payload, packet->size, layout == OCTET_ALIGNED, stream->wide, stream->repacked);
    }
    *data = stream->repacked;
    *size = (size_t)stream->repacked_size;
    return stream->repacked_size >= 0;
}
