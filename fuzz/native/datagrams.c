/* Harness: datagrams of a broadcaster and of strangers, through a real socket. Each is classified by RFC 7983 section 7
   and RFC 5761 section 4 here once more, on its own, and compared with what became of it: counted as media of its leg, told
   to Python byte for byte, or dropped for its length. */
#include "world.h"

#include <sys/epoll.h>

#define AT_ONCE 24

enum fate { TOLD, COUNTED, DROPPED };

struct sent {
    const uint8_t *data;
    size_t size;
    int peer;
};

static enum fate fate_of(const struct sent *sent)
{
    bool version_2 = sent->size > 0 && sent->data[0] >= 128 && sent->data[0] <= 191;
    bool rtcp = sent->size > 1 && sent->data[1] >= 192 && sent->data[1] <= 223;
    if (sent->size > MAX_MEDIA_BYTES)
        return DROPPED;
    if (sent->peer == 0 && version_2 && !rtcp && sent->size >= 12)
        return COUNTED;
    return sent->size <= MAX_OTHER_BYTES ? TOLD : DROPPED;
}

static uint64_t broadcast(struct engine *engine)
{
    uint64_t group = engine_add_group(engine, 2.0, 512000, 1e9), source = engine_add_leg(engine, group);
    struct inlet_spec inlet = {
        .fd = net.media[0],
        .peer = net.peer_at[0],
        .medium = 1,
        .forward = true,
        .coding = {.codec = "H264", .clock_rate = 90000, .payload_type = 97},
    };
    struct outlet_spec outlet = {
        .medium = 1,
        .outlet = {.fd = net.media[0], .to = net.peer_at[2], .payload_type = 99, .ssrc = 0x01020304, .flow = OPEN},
    };
    MUST(engine_set_leg(engine, source, &inlet, 1, NULL, 0, 0.0));
    MUST(engine_set_leg(engine, engine_add_leg(engine, group), NULL, 0, &outlet, 1, 0.0));
    return source;
}

/* What the viewer gets is RTP of ours and nothing else. */
static void read_viewer(void)
{
    static uint8_t data[1 << 16];
    for (ssize_t size; (size = recv(net.peer[2], data, sizeof data, MSG_DONTWAIT)) >= 0;)
        MUST(size > RTP_HEADER && size <= MAX_MEDIA_BYTES && data[0] == 0x80 && (data[1] & 0x7F) == 99 &&
             get32(data + 8) == 0x01020304);
}

/* What was told, in the order it was sent; the number of the next that should be. */
static int take_told(struct engine *engine, const struct sent *sent, int count, int at)
{
    struct event event;
    while (events_take(engine_events(engine), &event)) {
        if (event.kind == DATAGRAM) {
            while (at < count && fate_of(&sent[at]) != TOLD)
                at++;
            MUST(at < count && event.fd == net.media[0] && event.size == sent[at].size);
            MUST(memcmp(event.data, sent[at].data, event.size) == 0);
            MUST(event.from.four.sin_port == net.peer_at[sent[at].peer].four.sin_port);
            at++;
        }
        free(event.data);
    }
    while (at < count && fate_of(&sent[at]) != TOLD)
        at++;
    return at;
}

/* Sends them; `counted` is how many the leg has received since. A busy kernel may take a while even on loopback. */
static void pass(struct engine *engine, uint64_t source, const struct sent *sent, int count, double now, int64_t *counted)
{
    for (int i = 0; i < count; i++) {
        ssize_t size = sendto(net.peer[sent[i].peer], sent[i].data, sent[i].size, 0, &net.media_at[0].any, sizeof net.media_at[0].four);
        MUST(size == (ssize_t)sent[i].size);
        *counted += fate_of(&sent[i]) == COUNTED;
    }
    struct leg_state state;
    int at = 0;
    for (int tries = 0; tries < 1000; tries++) {
        engine_step(engine, now);
        at = take_told(engine, sent, count, at);
        MUST(engine_leg(engine, source, &state));
        if (at == count && state.received >= *counted)
            break;
        usleep(1000);
    }
    MUST(at == count && state.received == *counted && (state.heard_at >= 0) == (*counted > 0));
    read_viewer();
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
    struct engine *engine = engine_new(false);
    MUST(engine != NULL && engine_watch(engine, net.media[0]));
    uint64_t source = broadcast(engine);
    struct input input = {data, size, 0};
    int64_t counted = 0;
    for (double now = 1.0; input.at < input.size; now += 0.02) {
        struct sent sent[AT_ONCE];
        int count = 0, wanted = 1 + (int)(byte(&input) % AT_ONCE);
        for (; count < wanted && input.at < input.size; count++) {
            sent[count].peer = (int)(byte(&input) & 1);
            sent[count].size = bytes(&input, word(&input) % (MAX_MEDIA_BYTES + 8), &sent[count].data);
        }
        pass(engine, source, sent, count, now, &counted);
    }
    engine_free(engine);
    drain_net();
    return 0;
}
