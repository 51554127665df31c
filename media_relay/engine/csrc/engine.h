/* Groups, legs and sockets, and the loop that moves their packets: on a thread of its own, or step by step.

   Everything here runs on that thread: others hand their work in by `engine_run`. So no table has a lock, and none is
   held while packets are sent. */
#ifndef DIALCAST_ENGINE_H
#define DIALCAST_ENGINE_H

#include "events.h"
#include "outgoing.h"
#include "table.h"

struct engine;

struct inlet_spec {
    int fd;
    union address peer;
    int medium, encoding;
    bool forward;
    struct coding coding;
    struct keys keys;
    struct parameter_sets sets; /* taken over where they are used; the caller clears what is left */
};

struct outlet_spec {
    int medium, encoding;
    struct outlet outlet;
    struct keys keys;
    int64_t first, offset; /* of its numbers, if it is new */
};

struct source_state {
    uint32_t ssrc;
    int clock_rate;
    double arrived_at;
    int64_t timestamp, offset;
    struct reception reception;
};

struct outlet_state {
    uint32_t ssrc;
    int64_t packets, octets, offset;
};

struct leg_state {
    double heard_at; /* negative before its first packet */
    int64_t received, octets_received, packets, octets;
};

struct totals {
    int64_t packets_in, octets_in, over_rate, cache_bytes, unauthentic;
    struct tally sent;
};

/* NULL when there is no memory or no descriptor for it. */
struct engine *engine_new(bool threaded);
void engine_free(struct engine *engine);
/* Readable when there is something to do: events of a threaded engine, sockets of another. */
int engine_fileno(const struct engine *engine);
struct events *engine_events(struct engine *engine);
bool engine_threaded(const struct engine *engine);
/* Runs `work` on the engine's thread and waits for it. */
void engine_run(struct engine *engine, void (*work)(struct engine *, void *), void *argument);

enum asked { GOT_SOME, GOT_THE_REST, GOT_NOTHING };
/* Python asked for events, and got these: what it got before is done with. */
void engine_asked(struct engine *engine, enum asked asked);
/* Runs `work` at once, on the caller's thread, while tables stay as they are: for what reads them, counters, and what has a
   lock. */
void engine_look(struct engine *engine, void (*work)(struct engine *, void *), void *argument);

bool engine_watch(struct engine *engine, int fd);
void engine_unwatch(struct engine *engine, int fd);
/* Handles, 0 when there is no memory. */
uint64_t engine_add_group(struct engine *engine, double cache_seconds, int64_t cache_bytes, double bytes_per_second);
uint64_t engine_add_leg(struct engine *engine, uint64_t group);
bool engine_set_leg(struct engine *engine, uint64_t leg, struct inlet_spec *inlets, int inlet_count,
                    const struct outlet_spec *outlets, int outlet_count, double now);
void engine_remove_group(struct engine *engine, uint64_t group);
void engine_remove_leg(struct engine *engine, uint64_t leg);
void engine_inject(struct engine *engine, uint64_t group, int medium, int encoding, const uint8_t *const *datagrams,
                   const size_t *sizes, int count, double now);
int engine_resend(struct engine *engine, uint64_t leg, int medium, const uint16_t *lost, int count, double now);
/* Moves everything there is to move; when to be called again at the latest, negative for never. */
double engine_step(struct engine *engine, double now);
bool engine_source(struct engine *engine, uint64_t group, int medium, struct source_state *state);
bool engine_outlet(struct engine *engine, uint64_t leg, int medium, struct outlet_state *state);
bool engine_leg(struct engine *engine, uint64_t leg, struct leg_state *state);
void engine_totals(struct engine *engine, struct totals *totals);

#endif
