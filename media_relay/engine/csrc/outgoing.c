#include "outgoing.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lane.h"

/* The same keys again keep their index and list of what was sent. */
static bool set_keys(struct outgoing *out, const struct keys *keys)
{
    if (!out->outlet.secured || out->protection == NULL || !protection_is(out->protection, keys, out->outlet.ssrc)) {
        protection_free(out->protection);
        out->protection = out->outlet.secured ? protection_new(keys, out->outlet.ssrc) : NULL;
    }
    return !out->outlet.secured || out->protection != NULL;
}

bool outgoing_begin(struct outgoing *out, const struct outlet *outlet, const struct keys *keys, struct stream *stream,
                    int64_t first, int64_t offset)
{
    *out = (struct outgoing){
        .outlet = *outlet,
        .stream = stream,
        .state = STOPPED,
        .gso = true,
        .lane = -1,
        .resends = RESEND_BURST,
        .numbers = {.first = first, .timestamp_offset = offset},
    };
    return set_keys(out, keys);
}

static void forget_squeezed(struct outgoing *out)
{
    free(out->squeezed);
    out->squeezed = NULL;
    out->squeezed_count = 0;
}

static int fd_of(const struct outgoing *out) { return out->lane >= 0 ? out->lane : out->outlet.fd; }

static void leave_lane(struct outgoing *out, struct batch *batch)
{
    if (out->lane < 0)
        return;
    close(out->lane);
    out->lane = -1;
    batch->lanes--;
}

void outgoing_end(struct outgoing *out, struct batch *batch)
{
    forget_squeezed(out);
    leave_lane(out, batch);
    protection_free(out->protection);
    out->protection = NULL;
}

bool outgoing_takes_lane(struct outgoing *out, struct batch *batch)
{
    if (out->lane >= 0 || batch->lanes == MAX_LANES || (out->lane = lane_open(out->outlet.fd)) < 0)
        return false;
    batch->lanes++;
    out->lane_full = true; /* counts its time from the next burst */
    return true;
}

/* Back to the shared socket once its own was neither full for long nor holds anything. */
static void review_lane(struct outgoing *out, double now, struct batch *batch)
{
    if (out->lane_full) {
        out->lane_full = false;
        out->lane_until = now + LANE_SECONDS;
    } else if (now >= out->lane_until && lane_empty(out->lane)) {
        leave_lane(out, batch);
    }
}

static void rewind_to(struct outgoing *out, int64_t sequence)
{
    numbers_resume(&out->numbers, sequence);
    out->cursor = sequence;
    forget_squeezed(out);
}

static int newest_first(const void *a, const void *b)
{
    int64_t left = ((const struct squeezed *)a)->from, right = ((const struct squeezed *)b)->from;
    return left < right ? 1 : left > right ? -1 : 0;
}

/* Timestamps for replayed frames: at most 1 ms apart, in the same order, the newest unchanged. */
static void squeeze(struct outgoing *out)
{
    const struct stream *stream = out->stream;
    int64_t highest = stream->line.highest, from = stream->cache.start;
    if (from < highest - HISTORY + 1)
        from = highest - HISTORY + 1;
    struct squeezed *found = malloc(sizeof *found * (size_t)(highest - from + 1));
    if (found == NULL)
        return; /* the replay has its own timestamps then, and is behind */
    int count = 0;
    for (int64_t sequence = from; sequence <= highest; sequence++) {
        const struct packet *packet = stream_packet(stream, sequence);
        if (packet != NULL && (count == 0 || found[count - 1].from != packet->timestamp))
            found[count++].from = packet->timestamp;
    }
    qsort(found, (size_t)count, sizeof *found, newest_first);
    int64_t gap = stream->coding.clock_rate / 1000 > 1 ? stream->coding.clock_rate / 1000 : 1;
    int kept = 0;
    for (int i = 0; i < count; i++) {
        if (kept > 0 && found[kept - 1].from == found[i].from)
            continue;
        int64_t closer = kept > 0 ? found[kept - 1].to - gap : found[i].from;
        found[kept] = (struct squeezed){found[i].from, found[i].from > closer ? found[i].from : closer};
        kept++;
    }
    struct squeezed *fitting = kept > 0 ? realloc(found, sizeof *found * (size_t)kept) : NULL;
    out->squeezed = fitting != NULL ? fitting : found;
    out->squeezed_count = kept;
}

static int64_t timestamp_of(const struct outgoing *out, int64_t timestamp)
{
    int low = 0, high = out->squeezed_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (out->squeezed[middle].from > timestamp)
            low = middle + 1;
        else
            high = middle;
    }
    return low < out->squeezed_count && out->squeezed[low].from == timestamp ? out->squeezed[low].to : timestamp;
}

void outgoing_start(struct outgoing *out, double now)
{
    const struct stream *stream = out->stream;
    if (out->outlet.flow == PAUSED || stream == NULL) {
        out->state = STOPPED;
    } else if (!stream->has_keyframes) {
        numbers_resume(&out->numbers, stream->line.highest + 1);
        out->state = LIVE;
    } else if (stream_startable(stream, now) && now >= out->replay_at) {
        if (out->outlet.flow == OPEN)
            out->replay_at = now + REPLAY_INTERVAL;
        rewind_to(out, stream->cache.start);
        squeeze(out);
        out->state = CATCHING;
    } else {
        out->state = WAITING;
    }
}

bool outgoing_change(struct outgoing *out, const struct outlet *outlet, const struct keys *keys, double now, struct batch *batch)
{
    bool opens = outlet->flow == OPEN && out->outlet.flow != OPEN;
    if (outlet->fd != out->outlet.fd)
        leave_lane(out, batch);
    out->outlet = *outlet;
    bool good = set_keys(out, keys);
    if (outlet->flow == PAUSED)
        out->state = STOPPED;
    else if (opens || out->state == STOPPED)
        outgoing_start(out, now);
    return good;
}

/* An allowance for each host, or many calls that name one victim would add up to a flood. */
static bool trickles(struct trickle *trickle, const union address *to, size_t size, double now)
{
    uint8_t host[16] = {0};
    if (to->any.sa_family == AF_INET)
        memcpy(host, &to->four.sin_addr, 4);
    else
        memcpy(host, &to->six.sin6_addr, 16);
    if ((int64_t)now != trickle->second) {
        trickle->second = (int64_t)now;
        trickle->used = 0;
    }
    if (size > TRICKLE_BYTES)
        return false;
    int at = 0;
    while (at < trickle->used && memcmp(trickle->host[at].host, host, sizeof host) != 0)
        at++;
    if (at == TRICKLE_HOSTS)
        return false;
    if (at == trickle->used) {
        memcpy(trickle->host[at].host, host, sizeof host);
        trickle->host[at].sent = 0;
        trickle->used++;
    }
    if (trickle->host[at].sent >= TRICKLE_PACKETS)
        return false;
    trickle->host[at].sent++;
    return true;
}

static void write_header(const struct outgoing *out, const struct packet *packet, int64_t number, uint8_t *rtp)
{
    int64_t timestamp = out->squeezed_count > 0 ? timestamp_of(out, packet->timestamp) : packet->timestamp;
    rtp[0] = 0x80;
    rtp[1] = (uint8_t)(packet->marker << 7 | out->outlet.payload_type);
    put16(rtp + 2, (uint16_t)number);
    put32(rtp + 4, (uint32_t)(timestamp + out->numbers.timestamp_offset));
    put32(rtp + 8, out->outlet.ssrc);
}

/* Written into the batch's own memory, as every viewer's octets are others. */
static bool put_protected(struct outgoing *out, const struct packet *packet, int64_t number, const uint8_t *payload,
                          size_t size, struct batch *batch)
{
    struct outlet *outlet = &out->outlet;
    if (out->protection == NULL)
        return false;
    int fd = fd_of(out);
    if (!batch_fits(batch, fd, RTP_HEADER + size + PROTECTION_BYTES))
        batch_send(batch);
    uint8_t *rtp = batch_scratch(batch);
    write_header(out, packet, number, rtp);
    memcpy(rtp + RTP_HEADER, payload, size);
    size_t protected = protection_apply(out->protection, number, rtp, RTP_HEADER + size);
    if (protected > 0)
        batch_add_scratch(batch, fd, out, &outlet->to, out->gso, protected, protected - size, packet->sequence, packet->timestamp);
    return protected > 0;
}

/* True when the packet is in the batch; else it is left out for good. */
static bool put_packet(struct outgoing *out, const struct packet *packet, double now, struct batch *batch, struct trickle *trickle)
{
    struct outlet *outlet = &out->outlet;
    const uint8_t *payload = packet->payload;
    size_t size = packet->size;
    if (outlet->layout != NOT_AMR && !stream_repacked(out->stream, packet, outlet->layout, &payload, &size)) {
        numbers_skip(&out->numbers, packet->sequence);
        return false;
    }
    if (outlet->flow == TRICKLE && !trickles(trickle, &outlet->to, size, now)) {
        numbers_skip(&out->numbers, packet->sequence);
        return false;
    }
    int64_t number;
    if (!numbers_assign(&out->numbers, packet->sequence, &number))
        return false;
    if (outlet->secured)
        return put_protected(out, packet, number, payload, size, batch);
    bool copy = payload != packet->payload;
    int fd = fd_of(out);
    if (!batch_fits(batch, fd, copy ? size : 0))
        batch_send(batch);
    uint8_t *rtp = batch_add(batch, fd, out, &outlet->to, out->gso, payload, size, copy, packet->sequence, packet->timestamp);
    write_header(out, packet, number, rtp);
    return true;
}

void outgoing_deliver(struct outgoing *out, struct packet *const *packets, int count, bool has_keyframe, int64_t keyframe_at,
                      double now, struct batch *batch, struct trickle *trickle)
{
    out->failed = false;
    if (out->lane >= 0)
        review_lane(out, now, batch);
    if (has_keyframe && out->state == WAITING) {
        rewind_to(out, keyframe_at);
        out->state = LIVE;
    } else if (has_keyframe && out->state == CATCHING) {
        rewind_to(out, keyframe_at); /* a fresh keyframe makes what is left of the old picture worthless */
    }
    if (out->state != LIVE && out->state != CATCHING)
        return;
    for (int i = 0; i < count && !out->failed; i++) {
        const struct packet *packet = packets[i];
        if (out->state == CATCHING && packet->sequence >= out->cursor)
            continue;
        if (out->dropping && packet->timestamp == out->dropped_timestamp)
            counter_add(&out->sent.no_room, 1);
        else
            put_packet(out, packet, now, batch, trickle);
    }
}

void outgoing_catch_up(struct outgoing *out, double now, struct batch *batch, struct trickle *trickle)
{
    if (out->state != CATCHING || out->stream == NULL)
        return;
    int64_t highest = out->stream->line.highest;
    if (out->cursor <= highest - HISTORY) {
        out->state = WAITING;
        return;
    }
    out->failed = false;
    out->repeating = true;
    for (int put = 0; out->cursor <= highest && put < CATCH_UP_PACKETS; out->cursor++) {
        const struct packet *packet = stream_packet(out->stream, out->cursor);
        if (packet != NULL) {
            put_packet(out, packet, now, batch, trickle);
            put++;
        }
    }
    batch_send(batch);
    out->repeating = false;
    if (out->failed)
        out->cursor = out->failed_sequence;
    else if (out->cursor > highest)
        out->state = LIVE;
}

int outgoing_resend(struct outgoing *out, const uint16_t *lost, int count, double now, struct batch *batch, struct trickle *trickle)
{
    if (out->stream == NULL || out->state == STOPPED)
        return 0;
    out->resends += (now - out->resent_at) * RESEND_RATE;
    if (out->resends > RESEND_BURST)
        out->resends = RESEND_BURST;
    out->resent_at = now;
    int64_t before = counter_of(&out->sent.packets);
    out->repeating = true;
    for (int i = 0; i < count && out->resends >= 1; i++) {
        out->resends -= 1; /* also for what is not there: looking for it costs us, and asking costs them nothing */
        int64_t sequence;
        const struct packet *packet = NULL;
        if (numbers_group_sequence(&out->numbers, lost[i], &sequence))
            packet = stream_packet(out->stream, sequence);
        if (packet != NULL)
            put_packet(out, packet, now, batch, trickle);
    }
    batch_send(batch);
    out->repeating = false;
    int resent = (int)(counter_of(&out->sent.packets) - before);
    counter_add(&out->sent.resent, resent);
    return resent;
}

void outgoing_sent(const struct message *message)
{
    counter_add(&message->owner->sent.packets, message->packets);
    counter_add(&message->owner->sent.octets, message->octets);
}

void outgoing_full(const struct message *message, int gone)
{
    struct outgoing *out = message->owner;
    counter_add(&out->sent.packets, gone);
    counter_add(&out->sent.octets, (int64_t)gone * (message->segment - message->overhead));
    bool first = !out->failed;
    out->lane_full = out->failed = true;
    if (first)
        out->failed_sequence = message->sequence;
    if (out->repeating)
        return; /* it may be sent again: of the frame that goes by for the first time nothing is missing */
    counter_add(&out->sent.no_room, message->packets - gone);
    if (first) {
        out->dropping = true;
        out->dropped_timestamp = message->timestamp;
    }
}

void outgoing_takes_no_runs(struct outgoing *out) { out->gso = false; }
