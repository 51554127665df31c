/* The engine's tables: groups, their feeds, and legs. */
#ifndef DIALCAST_GROUPS_H
#define DIALCAST_GROUPS_H

#include "engine.h"
#include "unprotection.h"

struct feed;

struct inlet {
    struct link link; /* by socket and peer */
    int fd, medium, encoding;
    union address peer;
    bool forward, linked;
    struct unprotection *security; /* the leg's; NULL in the clear */
    struct leg *leg;
};

struct leg {
    struct link link;
    uint64_t id;
    struct group *group;
    struct leg *next;
    struct inlet *inlets;
    int inlet_count, outgoing_count;
    struct outgoing **outgoing;
    struct unprotection *security; /* outlives the inlets it is for: what was replayed stays known */
    _Atomic double heard_at; /* negative before its first packet */
    counter received, octets_received;
    struct tally past; /* of streams that a new negotiation took away */
    unsigned started;     /* media whose first packet was told, a bit each */
};

/* A medium and encoding of a group: whoever provides it, and everybody who gets it. */
struct feed {
    struct group *group;
    struct feed *next;
    int medium, encoding;
    struct stream *stream;
    struct leg *source;
    struct outgoing **sinks;
    int sink_count, sink_room;
    int first; /* which sink a burst starts with: the one that lost out when the socket was last full */
    /* The burst that is going out. */
    struct packet **burst;
    int burst_count, burst_room, done, short_at, fd;
    bool has_keyframe, pending;
    int64_t keyframe_at;
    double now;
    double missing_from, keyframe_from; /* when such an event is told again */
    struct feed *next_pending;
};

struct group {
    struct link link;
    uint64_t id;
    double cache_seconds, bytes_per_second, allowance, allowed_at;
    int64_t cache_bytes, over_rate;
    struct feed *feeds;
    struct leg *legs;
};

struct watched {
    bool watched;
    int busy; /* bursts from it that are going out: it is read again when they are */
    double errors_from; /* when ICMP errors are told again */
    bool told; /* Python got packets from it, or is about to */
    int held; /* how often at most Python is still to ask for events before it is read again */
};

struct call {
    void (*work)(struct engine *, void *);
    void *argument;
    bool done;
};

struct engine {
    int epoll;
    struct events events;
    struct table groups, legs, peers;
    struct watched *watched;
    int watched_room;
    uint64_t serial;
    struct feed *pending, *last_pending;
    struct outgoing *catching, *last_catching;
    int catching_count;
    double catch_up_at;
    struct trickle trickle;
    struct totals past; /* of legs and groups that are gone */
    struct batch batch;
    uint8_t *buffers;
    struct mmsghdr received[READ_BUDGET];
    struct iovec vectors[READ_BUDGET];
    union address from[READ_BUDGET];

    bool threaded, stopping;
    pthread_t thread;
    pthread_mutex_t callers, lock;
    pthread_cond_t done;
    _Atomic int held; /* sockets */
    struct call *call;
    int calls; /* an eventfd */
};

struct group *group_of(const struct engine *engine, uint64_t id);
struct leg *leg_of(const struct engine *engine, uint64_t id);
bool same_peer(const union address *a, const union address *b);
struct inlet *inlet_of(const struct engine *engine, int fd, const union address *peer);
struct feed *feed_of(const struct group *group, int medium, int encoding);
/* What a new source sent so far is with Python, or on its way there: nothing newer is read from the socket until Python has
   put it on the line. Only for an engine on its own thread: without one, nothing is read in between. */
void hold_socket(struct engine *engine, int fd);
/* Sends what is left of a burst, or of all. */
void feed_finish(struct engine *engine, struct feed *feed);
void feeds_finish(struct engine *engine);
/* A slice of each burst that is going out. */
void feeds_advance(struct engine *engine);
/* Puts datagrams of one source on the line and begins to send them. `fd` is where they came from, -1 for nowhere. */
void feed_inject(struct engine *engine, struct feed *feed, int fd, const uint8_t *const *datagrams, const size_t *sizes,
                 int count, double now);
/* After a start: it is to be caught up, or waits for a keyframe. */
void note_started(struct engine *engine, struct outgoing *out);
/* When to be called again, negative for never. */
double catch_up(struct engine *engine, double now);
bool group_allows(struct group *group, size_t size, double now);

#endif
