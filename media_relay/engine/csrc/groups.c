/* Making, changing and removing groups and legs. */
#include "groups.h"

#include <stdlib.h>
#include <string.h>

static uint64_t peer_hash(int fd, const union address *peer)
{
    uint64_t hash = table_mix((uint64_t)fd << 16 | peer->any.sa_family);
    if (peer->any.sa_family == AF_INET)
        return table_mix(hash ^ ((uint64_t)peer->four.sin_addr.s_addr << 16 | peer->four.sin_port));
    uint64_t half[2];
    memcpy(half, &peer->six.sin6_addr, sizeof half);
    return table_mix(table_mix(hash ^ half[0]) ^ half[1] ^ peer->six.sin6_port);
}

bool same_peer(const union address *a, const union address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->four.sin_port == b->four.sin_port && a->four.sin_addr.s_addr == b->four.sin_addr.s_addr;
    return a->six.sin6_port == b->six.sin6_port && memcmp(&a->six.sin6_addr, &b->six.sin6_addr, 16) == 0;
}

static struct link *find(const struct table *table, uint64_t id)
{
    for (struct link *each = table_first(table, table_mix(id)); each != NULL; each = each->next)
        if (each->hash == table_mix(id)) /* a bijection */
            return each;
    return NULL;
}

struct group *group_of(const struct engine *engine, uint64_t id) { return (struct group *)find(&engine->groups, id); }
struct leg *leg_of(const struct engine *engine, uint64_t id) { return (struct leg *)find(&engine->legs, id); }

struct inlet *inlet_of(const struct engine *engine, int fd, const union address *peer)
{
    uint64_t hash = peer_hash(fd, peer);
    for (struct link *each = table_first(&engine->peers, hash); each != NULL; each = each->next) {
        struct inlet *inlet = (struct inlet *)each;
        if (inlet->fd == fd && same_peer(&inlet->peer, peer))
            return inlet;
    }
    return NULL;
}

struct feed *feed_of(const struct group *group, int medium, int encoding)
{
    for (struct feed *feed = group->feeds; feed != NULL; feed = feed->next)
        if (feed->medium == medium && feed->encoding == encoding)
            return feed;
    return NULL;
}

static struct feed *feed_made(struct group *group, int medium, int encoding)
{
    struct feed *feed = feed_of(group, medium, encoding);
    if (feed != NULL || (feed = calloc(1, sizeof *feed)) == NULL)
        return feed;
    feed->group = group;
    feed->medium = medium;
    feed->encoding = encoding;
    feed->fd = -1;
    feed->next = group->feeds;
    group->feeds = feed;
    return feed;
}

/* Groups */

uint64_t engine_add_group(struct engine *engine, double cache_seconds, int64_t cache_bytes, double bytes_per_second)
{
    struct group *group = calloc(1, sizeof *group);
    if (group == NULL)
        return 0;
    group->id = ++engine->serial;
    group->cache_seconds = cache_seconds;
    group->cache_bytes = cache_bytes;
    group->bytes_per_second = group->allowance = bytes_per_second;
    if (table_add(&engine->groups, &group->link, table_mix(group->id)))
        return group->id;
    free(group);
    return 0;
}

static void count(struct tally *into, const struct counters *more)
{
    into->packets += counter_of(&more->packets);
    into->octets += counter_of(&more->octets);
    into->no_room += counter_of(&more->no_room);
    into->resent += counter_of(&more->resent);
}

static void sent_by(const struct leg *leg, struct tally *sent)
{
    sent->packets += leg->past.packets;
    sent->octets += leg->past.octets;
    sent->no_room += leg->past.no_room;
    sent->resent += leg->past.resent;
    for (int i = 0; i < leg->outgoing_count; i++)
        count(sent, &leg->outgoing[i]->sent);
}

static void drop_outgoing(struct engine *engine, struct outgoing *out)
{
    struct feed *feed = out->feed;
    for (int i = 0; i < feed->sink_count; i++)
        if (feed->sinks[i] == out) {
            memmove(feed->sinks + i, feed->sinks + i + 1, sizeof *feed->sinks * (size_t)(feed->sink_count - i - 1));
            feed->sink_count--;
            break;
        }
    if (out->in_catching) {
        struct outgoing **at = &engine->catching, *before = NULL;
        for (; *at != out; at = &(*at)->next_catching)
            before = *at;
        *at = out->next_catching;
        if (engine->last_catching == out)
            engine->last_catching = before;
        engine->catching_count--;
    }
    outgoing_end(out, &engine->batch);
    free(out);
}

static void forget_inlets(struct engine *engine, struct leg *leg)
{
    for (int i = 0; i < leg->inlet_count; i++)
        if (leg->inlets[i].linked)
            table_remove(&engine->peers, &leg->inlets[i].link);
    free(leg->inlets);
    leg->inlets = NULL;
    leg->inlet_count = 0;
}

static void free_leg(struct engine *engine, struct leg *leg)
{
    struct group *group = leg->group;
    engine->past.packets_in += counter_of(&leg->received);
    engine->past.octets_in += counter_of(&leg->octets_received);
    sent_by(leg, &engine->past.sent);
    forget_inlets(engine, leg);
    for (int i = 0; i < leg->outgoing_count; i++)
        drop_outgoing(engine, leg->outgoing[i]);
    unprotections_free(&leg->security);
    for (struct feed *feed = group->feeds; feed != NULL; feed = feed->next)
        if (feed->source == leg)
            feed->source = NULL;
    struct leg **at = &group->legs;
    while (*at != leg)
        at = &(*at)->next;
    *at = leg->next;
    table_remove(&engine->legs, &leg->link);
    free(leg->outgoing);
    free(leg);
}

void engine_remove_leg(struct engine *engine, uint64_t id)
{
    feeds_finish(engine);
    struct leg *leg = leg_of(engine, id);
    if (leg != NULL)
        free_leg(engine, leg);
}

void engine_remove_group(struct engine *engine, uint64_t id)
{
    feeds_finish(engine);
    struct group *group = group_of(engine, id);
    if (group == NULL)
        return;
    while (group->legs != NULL)
        free_leg(engine, group->legs);
    for (struct feed *feed = group->feeds, *next; feed != NULL; feed = next) {
        next = feed->next;
        stream_free(feed->stream);
        free(feed->sinks);
        free(feed->burst);
        free(feed);
    }
    engine->past.over_rate += group->over_rate;
    table_remove(&engine->groups, &group->link);
    free(group);
}

/* Legs */

uint64_t engine_add_leg(struct engine *engine, uint64_t id)
{
    struct group *group = group_of(engine, id);
    struct leg *leg = group != NULL ? calloc(1, sizeof *leg) : NULL;
    if (leg == NULL)
        return 0;
    leg->id = ++engine->serial;
    leg->group = group;
    leg->heard_at = -1;
    if (!table_add(&engine->legs, &leg->link, table_mix(leg->id))) {
        free(leg);
        return 0;
    }
    leg->next = group->legs;
    group->legs = leg;
    return leg->id;
}

static bool same_coding(const struct coding *a, const struct coding *b)
{
    return a->clock_rate == b->clock_rate && strcmp(a->codec, b->codec) == 0;
}

static bool set_source(struct engine *engine, struct leg *leg, struct inlet_spec *spec, double now)
{
    struct group *group = leg->group;
    struct feed *feed = feed_made(group, spec->medium, spec->encoding);
    if (feed == NULL)
        return false;
    bool same = feed->source == leg;
    feed->source = leg;
    if (feed->stream != NULL && same_coding(&feed->stream->coding, &spec->coding)) {
        if (!same)
            stream_source_changed(feed->stream, &spec->coding, &spec->sets);
        else
            feed->stream->coding = spec->coding;
        return true;
    }
    struct stream *stream = stream_new(&spec->coding, group->cache_seconds, group->cache_bytes);
    if (stream == NULL)
        return false;
    stream_source_changed(stream, &spec->coding, &spec->sets);
    stream_free(feed->stream);
    feed->stream = stream;
    for (int i = 0; i < feed->sink_count; i++) {
        feed->sinks[i]->stream = stream;
        outgoing_start(feed->sinks[i], now);
        note_started(engine, feed->sinks[i]);
    }
    return true;
}

static bool set_inlets(struct engine *engine, struct leg *leg, struct inlet_spec *specs, int count, double now)
{
    forget_inlets(engine, leg);
    leg->inlets = calloc((size_t)count + 1, sizeof *leg->inlets);
    if (leg->inlets == NULL)
        return false;
    for (; leg->inlet_count < count; leg->inlet_count++) {
        struct inlet_spec *spec = &specs[leg->inlet_count];
        struct inlet *inlet = &leg->inlets[leg->inlet_count];
        *inlet = (struct inlet){
            .fd = spec->fd,
            .medium = spec->medium,
            .encoding = spec->encoding,
            .peer = spec->peer,
            .forward = spec->forward,
            .leg = leg,
        };
        if (spec->keys.profile != IN_THE_CLEAR) {
            inlet->security = unprotection_of(&leg->security, spec->medium, spec->encoding, &spec->keys);
            if (inlet->security == NULL)
                return false;
        }
        struct inlet *known = inlet_of(engine, spec->fd, &spec->peer);
        if (known != NULL) { /* whoever names an address last has it */
            table_remove(&engine->peers, &known->link);
            known->linked = false;
        }
        if (!table_add(&engine->peers, &inlet->link, peer_hash(spec->fd, &spec->peer)))
            return false;
        inlet->linked = true;
        if (spec->forward && !set_source(engine, leg, spec, now))
            return false;
    }
    return true;
}

static bool is_source(const struct leg *leg, const struct inlet_spec *spec)
{
    for (int i = 0; i < leg->inlet_count; i++)
        if (leg->inlets[i].forward && leg->inlets[i].fd == spec->fd && same_peer(&leg->inlets[i].peer, &spec->peer))
            return true;
    return false;
}

static struct outgoing *known_outgoing(const struct leg *leg, int medium, int encoding)
{
    for (int i = 0; i < leg->outgoing_count; i++)
        if (leg->outgoing[i]->feed->medium == medium && leg->outgoing[i]->feed->encoding == encoding)
            return leg->outgoing[i];
    return NULL;
}

static struct outgoing *new_outgoing(struct leg *leg, const struct outlet_spec *spec)
{
    struct feed *feed = feed_made(leg->group, spec->medium, spec->encoding);
    if (feed == NULL)
        return NULL;
    if (feed->sink_count == feed->sink_room) {
        int room = feed->sink_room ? 2 * feed->sink_room : 4;
        struct outgoing **sinks = realloc(feed->sinks, sizeof *sinks * (size_t)room);
        if (sinks == NULL)
            return NULL;
        feed->sinks = sinks;
        feed->sink_room = room;
    }
    struct outgoing **streams = realloc(leg->outgoing, sizeof *streams * (size_t)(leg->outgoing_count + 1));
    if (streams == NULL)
        return NULL;
    leg->outgoing = streams;
    struct outgoing *out = malloc(sizeof *out);
    if (out == NULL)
        return NULL;
    if (!outgoing_begin(out, &spec->outlet, &spec->keys, feed->stream, spec->first, spec->offset)) {
        free(out);
        return NULL;
    }
    out->feed = feed;
    feed->sinks[feed->sink_count++] = out;
    leg->outgoing[leg->outgoing_count++] = out;
    return out;
}

bool engine_set_leg(struct engine *engine, uint64_t id, struct inlet_spec *inlets, int inlet_count,
                    const struct outlet_spec *outlets, int outlet_count, double now)
{
    feeds_finish(engine);
    struct leg *leg = leg_of(engine, id);
    if (leg == NULL)
        return false;
    for (int i = 0; i < inlet_count; i++)
        if (inlets[i].forward && !is_source(leg, &inlets[i]))
            hold_socket(engine, inlets[i].fd);
    if (!set_inlets(engine, leg, inlets, inlet_count, now))
        return false;
    for (int i = 0; i < leg->outgoing_count;) {
        struct outgoing *out = leg->outgoing[i];
        bool kept = false;
        for (int each = 0; each < outlet_count; each++)
            kept |= outlets[each].medium == out->feed->medium && outlets[each].encoding == out->feed->encoding;
        if (kept) {
            i++;
            continue;
        }
        count(&leg->past, &out->sent);
        drop_outgoing(engine, out);
        leg->outgoing[i] = leg->outgoing[--leg->outgoing_count];
    }
    for (int i = 0; i < outlet_count; i++) {
        struct outgoing *out = known_outgoing(leg, outlets[i].medium, outlets[i].encoding);
        if (out != NULL) {
            if (!outgoing_change(out, &outlets[i].outlet, &outlets[i].keys, now, &engine->batch))
                return false;
        } else {
            out = new_outgoing(leg, &outlets[i]);
            if (out == NULL)
                return false;
            outgoing_start(out, now);
        }
        note_started(engine, out);
    }
    return true;
}

void engine_inject(struct engine *engine, uint64_t id, int medium, int encoding, const uint8_t *const *datagrams,
                   const size_t *sizes, int count, double now)
{
    feeds_finish(engine);
    struct group *group = group_of(engine, id);
    struct feed *feed = group != NULL ? feed_of(group, medium, encoding) : NULL;
    if (feed == NULL)
        return;
    feed_inject(engine, feed, -1, datagrams, sizes, count, now);
    feed_finish(engine, feed);
}

int engine_resend(struct engine *engine, uint64_t id, int medium, const uint16_t *lost, int count, double now)
{
    feeds_finish(engine);
    struct leg *leg = leg_of(engine, id);
    struct outgoing *out = leg != NULL ? known_outgoing(leg, medium, 0) : NULL;
    return out != NULL ? outgoing_resend(out, lost, count, now, &engine->batch, &engine->trickle) : 0;
}

/* What is asked about them */

bool engine_source(struct engine *engine, uint64_t id, int medium, struct source_state *state)
{
    struct group *group = group_of(engine, id);
    struct feed *feed = group != NULL ? feed_of(group, medium, 0) : NULL;
    if (feed == NULL || feed->stream == NULL)
        return false;
    pthread_mutex_lock(&feed->stream->lock);
    const struct timeline *line = &feed->stream->line;
    bool known = line->known;
    *state = (struct source_state){
        .ssrc = line->ssrc,
        .clock_rate = feed->stream->coding.clock_rate,
        .arrived_at = line->arrived_at,
        .timestamp = line->timestamp,
        .offset = line->timestamp_offset,
        .reception = feed->stream->reception,
    };
    pthread_mutex_unlock(&feed->stream->lock);
    return known;
}

bool engine_outlet(struct engine *engine, uint64_t id, int medium, struct outlet_state *state)
{
    struct leg *leg = leg_of(engine, id);
    struct outgoing *out = leg != NULL ? known_outgoing(leg, medium, 0) : NULL;
    if (out == NULL)
        return false;
    int64_t packets = counter_of(&out->sent.packets), octets = counter_of(&out->sent.octets);
    *state = (struct outlet_state){out->outlet.ssrc, packets, octets, out->numbers.timestamp_offset};
    return true;
}

bool engine_leg(struct engine *engine, uint64_t id, struct leg_state *state)
{
    struct leg *leg = leg_of(engine, id);
    if (leg == NULL)
        return false;
    struct tally sent = {0};
    sent_by(leg, &sent);
    *state = (struct leg_state){
        .heard_at = atomic_load_explicit(&leg->heard_at, memory_order_relaxed),
        .received = counter_of(&leg->received),
        .octets_received = counter_of(&leg->octets_received),
        .packets = sent.packets,
        .octets = sent.octets,
    };
    return true;
}

void engine_totals(struct engine *engine, struct totals *totals)
{
    *totals = engine->past;
    for (size_t i = 0; i < engine->groups.size; i++)
        for (struct link *each = engine->groups.buckets[i]; each != NULL; each = each->next) {
            const struct group *group = (struct group *)each;
            totals->over_rate += group->over_rate;
            for (const struct feed *feed = group->feeds; feed != NULL; feed = feed->next)
                if (feed->stream != NULL && feed->stream->cache.has_start)
                    totals->cache_bytes += feed->stream->cache.bytes;
            for (const struct leg *leg = group->legs; leg != NULL; leg = leg->next) {
                totals->packets_in += counter_of(&leg->received);
                totals->octets_in += counter_of(&leg->octets_received);
                sent_by(leg, &totals->sent);
            }
        }
}
