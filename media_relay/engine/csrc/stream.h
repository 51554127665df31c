/* One incoming medium of a group: its line of packets, the recent history, the keyframe it can start viewers with. */
#ifndef DIALCAST_STREAM_H
#define DIALCAST_STREAM_H

#include <pthread.h>

#include "amr.h"
#include "h264.h"
#include "numbering.h"

/* A packet on the group's line; padding, CSRCs and extensions are gone. Held by the history and by a burst. */
struct packet {
    int holders;
    bool marker;
    uint16_t size;
    int64_t sequence, timestamp;
    uint8_t payload[];
};

enum layout { NOT_AMR, BANDWIDTH_EFFICIENT, OCTET_ALIGNED };

/* How a source sends a medium. */
struct coding {
    char codec[16];
    int clock_rate;
    uint8_t payload_type;
    enum layout layout;
};

/* How well the source is received (RFC 3550 A.1, A.3, A.8). */
struct reception {
    uint32_t serial; /* counts sources */
    uint32_t begun;  /* counts restarts of this source */
    bool known;
    int64_t base, highest, packets;
    bool measured;
    double last_now, jitter;
    uint32_t last_timestamp;
    bool restarting;
    uint16_t restart_at;
};

struct cache {
    double max_seconds, started_at;
    int64_t max_bytes, bytes;
    bool has_start, has_timestamp;
    int64_t start, timestamp;
};

struct stream {
    pthread_mutex_t lock; /* of `line` and `reception`, which are read beside the engine's thread */
    struct coding coding;
    bool has_keyframes, wide;
    struct timeline line;
    struct reception reception;
    struct cache cache;
    struct parameter_sets sets;
    struct packet *history[HISTORY];
    int64_t oldest;    /* no packet before this number is there; negative at first */
    int64_t forgotten; /* numbers below are too old to be placed */
    int64_t kept_ticks;
    /* The source's own numbers of packets that did not come since the engine told of them, though later ones did. */
    uint16_t missing[MAX_MISSING];
    int missing_count;
    /* What was repacked last: many viewers want the same. */
    int64_t repacked_sequence;
    enum layout repacked_layout;
    int repacked_size;
    uint8_t repacked[AMR_BYTES];
};

/* What one datagram adds: our parameter sets before it, and itself. */
struct placed {
    int count;
    bool keyframe;
    struct packet *packets[MAX_PARAMETER_SETS + 1];
};

struct stream *stream_new(const struct coding *coding, double cache_seconds, int64_t cache_bytes);
void stream_free(struct stream *stream);
/* Another leg feeds this stream now; takes the sets over. */
void stream_source_changed(struct stream *stream, const struct coding *coding, struct parameter_sets *sets);
/* False (and nothing placed) when late, repeated, garbage, or out of memory; the caller lets go of what was placed. */
bool stream_place(struct stream *stream, const uint8_t *data, size_t size, double now, struct placed *placed);
/* A packet of the last `HISTORY` and `HISTORY_SECONDS`, NULL when it is missing or forgotten. */
struct packet *stream_packet(const struct stream *stream, int64_t sequence);
bool stream_startable(const struct stream *stream, double now);
/* The payload as a viewer wants it packed; false when it cannot be read. */
bool stream_repacked(struct stream *stream, const struct packet *packet, enum layout wanted, const uint8_t **data, size_t *size);

void packet_release(struct packet *packet);

#endif
