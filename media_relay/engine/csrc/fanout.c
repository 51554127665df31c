/* Bursts on their way to all sinks of a feed, in slices, and viewers who catch up. */
#include "groups.h"

#include <stdlib.h>
#include <string.h>

static void tell(struct engine *engine, enum event_kind kind, const struct feed *feed, uint64_t leg)
{
    struct event event = {.kind = kind, .fd = -1, .group = feed->group->id, .leg = leg, .medium = feed->medium};
    events_put(&engine->events, &event);
}

static void tell_missing(struct engine *engine, struct feed *feed)
{
    struct stream *stream = feed->stream;
    if (feed->now < feed->missing_from)
        return;
    size_t size = sizeof *stream->missing * (size_t)stream->missing_count;
    struct event event = {.kind = MISSING, .fd = -1, .group = feed->group->id, .medium = feed->medium, .size = (uint16_t)size};
    stream->missing_count = 0;
    if (size == 0 || (event.data = malloc(size)) == NULL)
        return;
    memcpy(event.data, stream->missing, size);
    feed->missing_from = feed->now + TELL_INTERVAL;
    events_put(&engine->events, &event);
}

bool group_allows(struct group *group, size_t size, double now)
{
    double rate = group->bytes_per_second;
    double allowance = group->allowance + (now - group->allowed_at) * rate;
    group->allowance = allowance < rate ? allowance : rate;
    group->allowed_at = now;
    if (group->allowance < (double)size) {
        group->over_rate++;
        return false;
    }
    group->allowance -= (double)size;
    return true;
}

static void slice(struct engine *engine, struct feed *feed)
{
    int from = feed->done, until = from + SLICE < feed->sink_count ? from + SLICE : feed->sink_count;
    for (int i = from; i < until; i++)
        outgoing_deliver(feed->sinks[(feed->first + i) % feed->sink_count], feed->burst, feed->burst_count,
                         feed->has_keyframe, feed->keyframe_at, feed->now, &engine->batch, &engine->trickle);
    batch_send(&engine->batch);
    for (int i = from; i < until && feed->short_at < 0; i++)
        if (feed->sinks[(feed->first + i) % feed->sink_count]->failed)
            feed->short_at = (feed->first + i) % feed->sink_count;
    feed->done = until;
}

static void burst_over(struct engine *engine, struct feed *feed)
{
    if (feed->short_at >= 0)
        feed->first = feed->short_at;
    while (feed->burst_count > 0)
        packet_release(feed->burst[--feed->burst_count]);
    if (feed->fd >= 0)
        engine->watched[feed->fd].busy--;
    feed->pending = false;
}

static void take_out(struct engine *engine, struct feed *feed)
{
    struct feed *before = NULL;
    for (struct feed *each = engine->pending; each != feed; each = each->next_pending)
        before = each;
    if (before != NULL)
        before->next_pending = feed->next_pending;
    else
        engine->pending = feed->next_pending;
    if (engine->last_pending == feed)
        engine->last_pending = before;
}

void feed_finish(struct engine *engine, struct feed *feed)
{
    if (!feed->pending)
        return;
    take_out(engine, feed);
    while (feed->done < feed->sink_count)
        slice(engine, feed);
    burst_over(engine, feed);
}

void feeds_finish(struct engine *engine)
{
    while (engine->pending != NULL)
        feeds_advance(engine);
}

void feeds_advance(struct engine *engine)
{
    struct feed *before = NULL, *next;
    for (struct feed *feed = engine->pending; feed != NULL; feed = next) {
        next = feed->next_pending;
        slice(engine, feed);
        if (feed->done < feed->sink_count) {
            before = feed;
            continue;
        }
        if (before != NULL)
            before->next_pending = next;
        else
            engine->pending = next;
        if (engine->last_pending == feed)
            engine->last_pending = before;
        burst_over(engine, feed);
    }
}

static bool burst_room(struct feed *feed, int more)
{
    if (feed->burst_count + more <= feed->burst_room)
        return true;
    int room = 2 * feed->burst_room + more + 16;
    struct packet **burst = realloc(feed->burst, sizeof *burst * (size_t)room);
    if (burst == NULL)
        return false;
    feed->burst = burst;
    feed->burst_room = room;
    return true;
}

void feed_inject(struct engine *engine, struct feed *feed, int fd, const uint8_t *const *datagrams, const size_t *sizes,
                 int count, double now)
{
    if (feed->stream == NULL)
        return;
    feed_finish(engine, feed);
    feed->has_keyframe = false;
    feed->now = now;
    pthread_mutex_lock(&feed->stream->lock);
    for (int i = 0; i < count; i++) {
        struct placed placed;
        if (!burst_room(feed, MAX_PARAMETER_SETS + 1) || !stream_place(feed->stream, datagrams[i], sizes[i], now, &placed))
            continue;
        if (placed.keyframe) {
            feed->has_keyframe = true;
            feed->keyframe_at = placed.packets[0]->sequence;
        }
        for (int each = 0; each < placed.count; each++)
            feed->burst[feed->burst_count++] = placed.packets[each];
        for (int each = 0; each < placed.count - 1; each++) /* our own, but the source makes us send them */
            feed->group->allowance -= (double)(placed.packets[each]->size + RTP_HEADER);
    }
    pthread_mutex_unlock(&feed->stream->lock);
    if (feed->burst_count == 0)
        return;
    struct leg *source = feed->source;
    if (source != NULL && !(source->started & 1u << feed->medium)) {
        source->started |= 1u << feed->medium;
        tell(engine, SOURCE_STARTED, feed, source->id);
    }
    if (feed->has_keyframe && now >= feed->keyframe_from) {
        feed->keyframe_from = now + TELL_INTERVAL;
        tell(engine, KEYFRAME_SEEN, feed, 0);
    }
    tell_missing(engine, feed);
    feed->done = 0;
    feed->short_at = -1;
    feed->fd = fd;
    if (fd >= 0)
        engine->watched[fd].busy++;
    feed->pending = true;
    feed->next_pending = NULL;
    if (engine->last_pending != NULL)
        engine->last_pending->next_pending = feed;
    else
        engine->pending = feed;
    engine->last_pending = feed;
}

void note_started(struct engine *engine, struct outgoing *out)
{
    if (out->state == CATCHING && !out->in_catching) {
        out->in_catching = true;
        out->next_catching = NULL;
        if (engine->last_catching != NULL)
            engine->last_catching->next_catching = out;
        else
            engine->catching = out;
        engine->last_catching = out;
        engine->catching_count++;
    } else if (out->state == WAITING) {
        tell(engine, KEYFRAME_NEEDED, out->feed, 0);
    }
}

double catch_up(struct engine *engine, double now)
{
    if (engine->catching == NULL)
        return -1;
    if (now >= engine->catch_up_at) {
        for (int legs = engine->catching_count < CATCH_UP_LEGS ? engine->catching_count : CATCH_UP_LEGS; legs > 0; legs--) {
            struct outgoing *out = engine->catching;
            engine->catching = out->next_catching;
            if (engine->catching == NULL)
                engine->last_catching = NULL;
            engine->catching_count--;
            out->in_catching = false;
            feed_finish(engine, out->feed);
            outgoing_catch_up(out, now, &engine->batch, &engine->trickle);
            note_started(engine, out);
        }
        engine->catch_up_at = now + CATCH_UP_INTERVAL;
    }
    return engine->catching != NULL ? engine->catch_up_at : -1;
}
