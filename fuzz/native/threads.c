/* The engine on its own thread, and everybody who may call it at once: `threads SECONDS`. Broadcasters send through sockets,
   two control threads change, ask and inject, one reads what is told, viewers' sockets are emptied. For a sanitizer to
   watch; ends with status 1 when nothing flowed. */
#include "world.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define VIEWERS 35 /* of each control thread: a burst takes two slices */
#define PAYLOAD 300

static struct engine *engine;
static atomic_bool over;
static atomic_long told, seen, calls;
static uint64_t group, source;

static double monotonic(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec * 1e-9;
}

static void *broadcast(void *unused)
{
    uint8_t payload[PAYLOAD] = {0x41}, packet[PAYLOAD + RTP_HEADER];
    uint16_t sequence = 0;
    for (uint32_t frame = 0; !over; frame++) {
        for (int i = 0; i < 6; i++) {
            payload[0] = frame % 30 == 0 ? 0x65 : 0x41;
            sequence += frame % 50 == 49 && i == 2 ? 2 : 1; /* a loss now and then */
            size_t size = write_rtp(packet, 97, i == 5, sequence, frame * 3000, 7, payload, 100 + frame % 3 * 50);
            sendto(net.peer[0], packet, size, 0, &net.media_at[0].any, sizeof net.media_at[0].four);
        }
        sendto(net.peer[1], "\x80\xc9 a stranger", 12, 0, &net.media_at[1].any, sizeof net.media_at[1].four);
        usleep(8000);
    }
    return unused;
}

/* Calls are made on the engine's thread, by `engine_run`, as the Python module makes them. */

struct viewer {
    uint64_t leg;
    unsigned turn;
    bool good;
};

static void add_viewer(struct engine *on, void *argument)
{
    struct viewer *viewer = argument;
    viewer->leg = engine_add_leg(on, group);
}

static void set_viewer(struct engine *on, void *argument)
{
    struct viewer *viewer = argument;
    struct outlet_spec outlet = {
        .medium = 1,
        .outlet = {.fd = net.media[viewer->turn & 1],
                   .to = net.peer_at[viewer->turn % 8 ? 2 : PEERS],
                   .payload_type = 99,
                   .ssrc = (uint32_t)viewer->leg,
                   .flow = viewer->turn % 5 ? OPEN : PAUSED},
    };
    if (viewer->turn % 3 == 0 && security_missing(AEAD_AES_128_GCM) == NULL) {
        outlet.keys.profile = AEAD_AES_128_GCM;
        outlet.outlet.secured = true;
    }
    viewer->good = engine_set_leg(on, viewer->leg, NULL, 0, &outlet, 1, monotonic());
}

static void ask_for_more(struct engine *on, void *argument)
{
    struct viewer *viewer = argument;
    uint16_t lost[20];
    for (unsigned i = 0; i < 20; i++)
        lost[i] = (uint16_t)(viewer->turn + i);
    engine_resend(on, viewer->leg, 1, lost, 20, monotonic());
}

static void ask(struct engine *on, void *argument)
{
    struct viewer *viewer = argument;
    struct totals totals;
    struct leg_state leg;
    engine_totals(on, &totals);
    engine_leg(on, viewer->leg, &leg);
}

/* Not on the engine's thread, but on the caller's, while packets go out. */
static void look(struct engine *on, void *argument)
{
    struct viewer *viewer = argument;
    struct leg_state leg;
    struct outlet_state outlet;
    struct source_state from;
    engine_source(on, group, 1, &from);
    viewer->good = engine_leg(on, viewer->leg, &leg) && engine_outlet(on, viewer->leg, 1, &outlet);
}

static void inject(struct engine *on, void *argument)
{
    (void)argument;
    uint8_t packet[RTP_HEADER + 2] = {0x80, 97};
    const uint8_t *at = packet;
    size_t size = sizeof packet;
    engine_inject(on, group, 1, 0, &at, &size, 1, monotonic());
}

static void look_away(struct engine *on, void *argument)
{
    (void)argument;
    engine_unwatch(on, net.media[1]);
    engine_watch(on, net.media[1]);
}

/* A socket that is watched again while a burst from it is going out. */
static void look_twice(struct engine *on, void *argument)
{
    (void)argument;
    struct feed *feed = feed_of(group_of(on, group), 1, 0);
    const struct timeline *line = &feed->stream->line;
    uint8_t packet[RTP_HEADER + 2];
    const uint8_t *at = packet;
    size_t size = write_rtp(packet, 97, true, (uint16_t)(line->raw_highest + 1), (uint32_t)line->raw_timestamp, line->ssrc,
                            (const uint8_t *)"\x41\x01", 2);
    feeds_finish(on);
    feed_inject(on, feed, net.media[0], &at, &size, 1, monotonic());
    MUST(engine_watch(on, net.media[0]));
    feeds_finish(on);
    MUST(on->watched[net.media[0]].busy == 0);
}

static void look_over(struct engine *on, void *argument)
{
    (void)argument;
    feeds_finish(on);
    for (int i = 0; i < 2; i++)
        MUST(on->watched[net.media[i]].watched && on->watched[net.media[i]].busy == 0);
}

static void remove_viewer(struct engine *on, void *argument)
{
    engine_remove_leg(on, ((struct viewer *)argument)->leg);
}

static void short_lived_group(struct engine *on, void *argument)
{
    (void)argument;
    uint64_t other = engine_add_group(on, 2, 1 << 18, 1e9);
    engine_add_leg(on, other);
    engine_remove_group(on, other);
}

static void *control(void *number)
{
    struct viewer viewers[VIEWERS] = {{.leg = 0}};
    static void (*const works[])(struct engine *, void *) = {
        set_viewer, ask_for_more, ask, inject, look_away, short_lived_group, look_twice, ask_for_more,
    };
    for (unsigned turn = *(unsigned *)number; !over; turn++) {
        struct viewer *viewer = &viewers[turn % VIEWERS];
        viewer->turn = turn;
        if (viewer->leg == 0)
            engine_run(engine, add_viewer, viewer);
        engine_run(engine, turn % 97 < VIEWERS ? set_viewer : works[turn / VIEWERS % 8], viewer);
        engine_look(engine, look, viewer);
        if (turn % 211 == 0) {
            engine_run(engine, remove_viewer, viewer);
            viewer->leg = 0;
        }
        calls++;
        usleep(200);
    }
    return number;
}

static void *listen_to_events(void *unused)
{
    struct pollfd ready = {.fd = engine_fileno(engine), .events = POLLIN};
    while (!over) {
        poll(&ready, 1, 20);
        for (struct event event; events_take(engine_events(engine), &event); told++)
            free(event.data);
    }
    return unused;
}

static void *view(void *unused)
{
    uint8_t data[2048];
    struct pollfd ready = {.fd = net.peer[2], .events = POLLIN};
    while (!over) {
        poll(&ready, 1, 20);
        while (recv(net.peer[2], data, sizeof data, MSG_DONTWAIT) > 0)
            seen++;
    }
    return unused;
}

static void begin(struct engine *on, void *argument)
{
    (void)argument;
    group = engine_add_group(on, 2.0, 512000, 1e9);
    source = engine_add_leg(on, group);
    struct inlet_spec inlet = {
        .fd = net.media[0],
        .peer = net.peer_at[0],
        .medium = 1,
        .forward = true,
        .coding = {.codec = "H264", .clock_rate = 90000, .payload_type = 97},
    };
    MUST(engine_watch(on, net.media[0]) && engine_watch(on, net.media[1]));
    MUST(engine_set_leg(on, source, &inlet, 1, NULL, 0, monotonic()));
}

int main(int count, char **values)
{
    open_net();
    engine = engine_new(true);
    MUST(engine != NULL);
    engine_run(engine, begin, NULL);
    pthread_t threads[5];
    unsigned first = 0, second = 1000;
    pthread_create(&threads[0], NULL, broadcast, NULL);
    pthread_create(&threads[1], NULL, control, &first);
    pthread_create(&threads[2], NULL, control, &second);
    pthread_create(&threads[3], NULL, listen_to_events, NULL);
    pthread_create(&threads[4], NULL, view, NULL);
    sleep(count > 1 ? (unsigned)atoi(values[1]) : 10);
    over = true;
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    engine_run(engine, look_over, NULL);
    engine_free(engine);
    printf("%ld calls, %ld packets at viewers, %ld events\n", calls, seen, told);
    return calls == 0 || seen == 0 || told == 0;
}
