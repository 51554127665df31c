/* Harness: a whole engine, stepped, and an input that is read as what happens to it: groups and legs come and go, packets
   arrive through sockets and from Python, in the clear or encrypted, viewers ask for some again, time passes or jumps. */
#include "world.h"

#include <math.h>

#define GROUPS 4
#define LEGS 8
#define COMMANDS 300
#define PACKETS 6000 /* of one input, so that each stays quick */

struct world {
    struct engine *engine;
    struct input input;
    double now;
    uint64_t group[GROUPS], leg[LEGS];
    uint16_t sequence[2];
    uint32_t timestamp[2];
    int packets;
    struct protection *protection; /* of what broadcasters encrypt, made when it is first wanted */
};

/* Everybody's keys, as what is checked here is not who knows them. */
static struct keys keys_of(unsigned profile)
{
    struct keys keys = {.profile = profile % 3 == 1 ? AEAD_AES_128_GCM : AES_CM_128_HMAC_SHA1_80};
    if (profile % 3 == 0 || security_missing(keys.profile) != NULL)
        return (struct keys){.profile = IN_THE_CLEAR};
    memset(keys.key_and_salt, 1 + (int)profile / 3, security_key_bytes(keys.profile));
    return keys;
}

static union address somewhere(unsigned which)
{
    union address six = {.six = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = 9}};
    return which % 8 == 7 ? six : net.peer_at[which % (PEERS + 1)];
}

static void make_inlet(struct input *input, struct inlet_spec *spec)
{
    static const struct coding codings[] = {
        {"H264", 90000, 97, NOT_AMR},        {"AMR", 8000, 98, OCTET_ALIGNED}, {"AMR", 8000, 98, BANDWIDTH_EFFICIENT},
        {"AMR-WB", 16000, 99, OCTET_ALIGNED}, {"PCMU", 8000, 0, NOT_AMR},       {"telephone-event", 1, 101, NOT_AMR},
    };
    unsigned kind = byte(input), place = byte(input);
    *spec = (struct inlet_spec){
        .fd = net.media[place & 1],
        .peer = somewhere(place >> 1),
        .medium = kind % 12 < 6,
        .encoding = place >> 7,
        .forward = (place & 0x40) == 0,
        .coding = codings[kind % 6],
    };
    unsigned more = byte(input);
    spec->keys = keys_of(more >> 4 & 3);
    for (unsigned sets = more % 12; sets > 8; sets--) {
        const uint8_t *unit;
        size_t size = bytes(input, byte(input), &unit);
        if (!sets_add(&spec->sets, unit, size))
            sets_clear(&spec->sets);
    }
}

static void make_outlet(struct input *input, struct outlet_spec *spec)
{
    unsigned kind = byte(input), place = byte(input), numbers = byte(input);
    *spec = (struct outlet_spec){
        .medium = kind & 1,
        .encoding = place >> 7,
        .outlet = {
            .secured = keys_of(numbers >> 2 & 3).profile != IN_THE_CLEAR,
            .fd = net.media[place & 1],
            .to = somewhere(place >> 1),
            .payload_type = (uint8_t)(96 + (kind >> 5)),
            .ssrc = 0xD1A1CA57,
            .flow = (enum flow)((kind >> 1) % 3),
            .layout = (enum layout)((kind >> 3) % 3),
        },
        .keys = keys_of(numbers >> 2 & 3),
        .first = numbers & 1 ? 0xFFF0 + (numbers >> 4) : numbers,
        .offset = numbers & 2 ? 0x7FFFFFF0 : numbers,
    };
}

static void set_leg(struct world *world)
{
    struct input *input = &world->input;
    unsigned which = byte(input), counts = byte(input);
    struct inlet_spec inlets[4] = {0};
    struct outlet_spec outlets[4] = {0};
    int inlet_count = counts & 3, outlet_count = counts >> 2 & 3;
    for (int i = 0; i < inlet_count; i++)
        make_inlet(input, &inlets[i]);
    for (int i = 0; i < outlet_count; i++)
        make_outlet(input, &outlets[i]);
    engine_set_leg(world->engine, world->leg[which % LEGS], inlets, inlet_count, outlets, outlet_count, world->now);
    for (int i = 0; i < inlet_count; i++)
        sets_clear(&inlets[i].sets);
}

/* One packet as broadcasters send them, or nearly: where it stands on the line, how it is marked, what is in it. */
static size_t make_packet(struct world *world, int medium, uint8_t *out)
{
    struct input *input = &world->input;
    unsigned kind = byte(input), step = byte(input);
    static const uint8_t types[] = {97, 98, 99, 0};
    static const uint8_t units[] = {0x65, 0x67, 0x68, 0x41, 0x78, 0x7C};
    uint8_t payload[512] = {units[step % 6], 0x85};
    const uint8_t *given;
    size_t size = bytes(input, kind & 3 ? kind & 31 : 255, &given);
    memcpy(payload + (kind & 4 ? 1 : 0), given, size);
    size += kind & 8 ? 200 : 2;
    if (step < 200)
        world->sequence[medium]++;
    else if (step < 240)
        world->sequence[medium] = (uint16_t)(world->sequence[medium] + step - 220);
    else
        world->sequence[medium] = (uint16_t)word(input);
    if (kind & 16)
        world->timestamp[medium] += step < 240 ? 3000 : (uint32_t)word(input) << 16;
    return write_rtp(out, types[kind >> 6], kind & 16, world->sequence[medium], world->timestamp[medium], step % 64 == 63,
                     payload, size);
}

static void inject(struct world *world, bool raw)
{
    struct input *input = &world->input;
    unsigned where = byte(input);
    int count = 1 + (int)(byte(input) % 24), medium = where & 1;
    static uint8_t room[24][600];
    const uint8_t *datagrams[24];
    size_t sizes[24];
    for (int i = 0; i < count; i++, world->packets++) {
        if (raw) {
            sizes[i] = bytes(input, byte(input), &datagrams[i]);
        } else {
            datagrams[i] = room[i];
            sizes[i] = make_packet(world, medium, room[i]);
        }
    }
    engine_inject(world->engine, world->group[(where >> 1) % GROUPS], medium, where >> 7, datagrams, sizes, count, world->now);
}

/* Many packets in a row, so that histories are full and go round. */
static void inject_run(struct world *world)
{
    unsigned where = byte(&world->input), flags = byte(&world->input);
    int count = 8 * (1 + (int)byte(&world->input)), medium = where & 1;
    uint8_t payload[256] = {0x41, flags & 1 ? 0x85 : 0}, packet[300];
    for (int i = 0; i < count && world->packets < PACKETS; i++, world->packets++) {
        size_t size = 20 + (flags & 2 ? (unsigned)i % 3 : 0) * 60;
        payload[0] = flags & 4 && i % 64 == 0 ? 0x65 : 0x41;
        if (i % 4 == 0)
            world->timestamp[medium] += 3000;
        size = write_rtp(packet, flags & 8 ? 98 : 97, i % 4 == 3, ++world->sequence[medium], world->timestamp[medium],
                         flags >> 7, payload, size);
        const uint8_t *at = packet;
        engine_inject(world->engine, world->group[(where >> 1) % GROUPS], medium, where >> 7, &at, &size, 1, world->now);
    }
}

/* Under one SSRC and, unless the input says another, the right key. */
static size_t protect(struct world *world, uint8_t *packet, size_t size)
{
    struct keys keys = keys_of(1 + byte(&world->input) % 3);
    if (keys.profile == IN_THE_CLEAR)
        return size;
    if (world->protection == NULL || !protection_is(world->protection, &keys, 1)) {
        protection_free(world->protection);
        world->protection = protection_new(&keys, 1);
        MUST(world->protection != NULL);
    }
    put32(packet + 8, 1);
    size_t protected = protection_apply(world->protection, world->packets, packet, size);
    MUST(protected == 0 || protected <= size + PROTECTION_BYTES);
    return protected;
}

static void send_to_socket(struct world *world)
{
    struct input *input = &world->input;
    unsigned where = byte(input);
    int from = (int)(where >> 2) % PEERS, to = where & 1;
    for (int count = 1 + (int)(byte(input) & 31); count > 0 && input->at < input->size; count--, world->packets++) {
        _Alignas(4) uint8_t packet[600 + PROTECTION_BYTES];
        const uint8_t *given = packet;
        size_t size = where & 2 ? bytes(input, byte(input), &given) : make_packet(world, where >> 7, packet);
        if ((where & 0x42) == 0x40)
            size = protect(world, packet, size);
        sendto(net.peer[from], given, size, MSG_DONTWAIT, &net.media_at[to].any, sizeof net.media_at[to].four);
    }
}

static void resend(struct world *world)
{
    uint16_t lost[80];
    unsigned which = byte(&world->input), count = byte(&world->input) % 80, first = word(&world->input);
    for (unsigned i = 0; i < count; i++)
        lost[i] = (uint16_t)(first + i * (1 + (which >> 6)));
    int medium = which >> 3 & 1;
    int sent = engine_resend(world->engine, world->leg[which % LEGS], medium, lost, (int)count, world->now);
    MUST(sent >= 0 && (unsigned)sent <= count);
}

static void pass_time(struct world *world)
{
    static const double steps[] = {0.0, 0.001, 0.005, 0.02, 0.2, 1.0, 3.0, 100.0, 1e6, -0.01, -1.0, -50.0};
    world->now += steps[byte(&world->input) % (sizeof steps / sizeof *steps)];
    double due = engine_step(world->engine, world->now);
    MUST(due < 0 || (due > world->now - 1e9 && isfinite(due)));
}

static void take_events(struct world *world, int most)
{
    struct event event;
    for (; most > 0 && events_take(engine_events(world->engine), &event); most--) {
        bool has_data = event.kind == DATAGRAM || event.kind == MISSING;
        MUST(has_data == (event.data != NULL) && (event.kind != MISSING || event.size <= 2 * MAX_MISSING));
        volatile uint8_t last = has_data && event.size > 0 ? event.data[event.size - 1] : 0;
        (void)last;
        free(event.data);
    }
}

static void ask(struct world *world)
{
    struct source_state source;
    struct outlet_state outlet;
    struct leg_state leg;
    struct totals totals;
    unsigned which = byte(&world->input);
    engine_source(world->engine, world->group[which % GROUPS], which >> 7, &source);
    engine_outlet(world->engine, world->leg[which % LEGS], which >> 7, &outlet);
    if (engine_leg(world->engine, world->leg[which % LEGS], &leg))
        MUST(leg.received >= 0 && leg.packets >= 0 && leg.octets >= 0);
    engine_totals(world->engine, &totals);
    MUST(totals.packets_in >= 0 && totals.cache_bytes >= 0 && totals.sent.packets >= totals.sent.resent);
}

/* Whatever happened, the tables agree with each other. */
static void check_tables(struct engine *engine)
{
    MUST(engine->pending == NULL && engine->last_pending == NULL && engine->batch.packets == 0);
    int catching = 0, inlets = 0;
    for (struct outgoing *out = engine->catching; out != NULL; out = out->next_catching, catching++)
        MUST(out->in_catching && (out->next_catching != NULL || engine->last_catching == out));
    MUST(catching == engine->catching_count);
    for (int fd = 0; fd < engine->watched_room; fd++)
        MUST(engine->watched[fd].busy == 0);
    for (size_t i = 0; i < engine->legs.size; i++)
        for (struct link *each = engine->legs.buckets[i]; each != NULL; each = each->next) {
            const struct leg *leg = (struct leg *)each;
            for (int at = 0; at < leg->inlet_count; at++)
                inlets += leg->inlets[at].linked;
            for (int at = 0; at < leg->outgoing_count; at++)
                MUST(leg->outgoing[at]->feed->group == leg->group);
        }
    MUST((size_t)inlets == engine->peers.count);
}

static void command(struct world *world)
{
    struct engine *engine = world->engine;
    struct input *input = &world->input;
    unsigned what = byte(input), which;
    switch (what % 14) {
    case 0:
        which = byte(input);
        uint64_t *group = &world->group[which % GROUPS];
        if (*group == 0)
            *group = engine_add_group(engine, (which >> 4) / 4.0, 64 << (which >> 4), which & 8 ? 1e9 : 2000);
        break;
    case 1:
        which = byte(input);
        if (world->leg[which % LEGS] == 0)
            world->leg[which % LEGS] = engine_add_leg(engine, world->group[(which >> 3) % GROUPS]);
        break;
    case 2:
    case 3:
        set_leg(world);
        break;
    case 4:
        which = byte(input) % LEGS;
        engine_remove_leg(engine, world->leg[which]);
        world->leg[which] = 0;
        break;
    case 5:
        which = byte(input) % GROUPS;
        engine_remove_group(engine, world->group[which]);
        world->group[which] = 0; /* its legs' handles stay known, and must be without effect */
        break;
    case 6:
        inject(world, true);
        break;
    case 7:
        inject(world, false);
        break;
    case 8:
        inject_run(world);
        break;
    case 9:
        send_to_socket(world);
        break;
    case 10:
        resend(world);
        break;
    case 11:
        pass_time(world);
        break;
    case 12:
        take_events(world, (int)byte(input));
        ask(world);
        break;
    default:
        which = byte(input);
        if (which & 2)
            engine_unwatch(engine, net.media[which & 1]);
        else
            MUST(engine_watch(engine, net.media[which & 1]));
    }
}

int LLVMFuzzerInitialize(int *count, char ***values);
int LLVMFuzzerInitialize(int *count, char ***values)
{
    (void)count, (void)values;
    open_net();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct world world;
    world = (struct world){.engine = engine_new(false), .input = {data, size, 0}, .now = 100.0};
    MUST(world.engine != NULL && engine_watch(world.engine, net.media[0]) && engine_watch(world.engine, net.media[1]));
    for (int i = 0; i < COMMANDS && world.input.at < size && world.packets < PACKETS; i++)
        command(&world);
    engine_step(world.engine, world.now);
    check_tables(world.engine);
    take_events(&world, MAX_EVENTS);
    engine_free(world.engine);
    protection_free(world.protection);
    drain_net();
    return 0;
}
