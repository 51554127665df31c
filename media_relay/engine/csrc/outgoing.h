/* One outgoing stream: a leg's medium, from waiting for a keyframe over catching up to live, and its packets' headers.
   media_relay/engine/outgoing.py is the specification. */
#ifndef DIALCAST_OUTGOING_H
#define DIALCAST_OUTGOING_H

#include "counter.h"
#include "protection.h"
#include "sender.h"
#include "stream.h"

enum flow { OPEN, TRICKLE, PAUSED };
enum outgoing_state { LIVE, WAITING, CATCHING, STOPPED };

/* Where to, and under which names. */
struct outlet {
    int fd;
    union address to;
    uint8_t payload_type;
    uint32_t ssrc;
    enum flow flow;
    enum layout layout;
    bool secured; /* never sent in the clear, whatever fails */
};

/* What unproven hosts got this second. */
struct trickle {
    int64_t second;
    int used;
    struct {
        uint8_t host[16];
        int sent;
    } host[TRICKLE_HOSTS];
};

struct feed;

struct squeezed {
    int64_t from, to;
};

struct counters {
    counter packets, octets, no_room, resent;
};

/* Their sum. */
struct tally {
    int64_t packets, octets, no_room, resent;
};

struct outgoing {
    struct outlet outlet;
    struct protection *protection; /* if secured; NULL when there was no memory for it */
    struct stream *stream; /* NULL before there is a source */
    enum outgoing_state state;
    struct numbers numbers;
    struct counters sent;
    int64_t cursor;
    struct squeezed *squeezed; /* by `from` */
    int squeezed_count;
    bool dropping, gso, failed;
    bool repeating; /* what goes out was on its way before: a cached picture, or an answer to a NACK */
    int lane; /* a socket of its own, -1 while it shares */
    bool lane_full;
    double lane_until;
    int64_t dropped_timestamp, failed_sequence;
    double replay_at, resends, resent_at;
    struct feed *feed;
    struct outgoing *next_catching;
    bool in_catching;
};

/* False when there is no memory to protect it with. */
bool outgoing_begin(struct outgoing *out, const struct outlet *outlet, const struct keys *keys, struct stream *stream,
                    int64_t first, int64_t offset);
void outgoing_end(struct outgoing *out, struct batch *batch);
/* (Re)starts after opening, hold or a new source's first packet: from the cached picture where there is one. */
void outgoing_start(struct outgoing *out, double now);
bool outgoing_change(struct outgoing *out, const struct outlet *outlet, const struct keys *keys, double now, struct batch *batch);
/* Puts new packets of the line into the batch, sending it whenever it is full. */
void outgoing_deliver(struct outgoing *out, struct packet *const *packets, int count, bool has_keyframe, int64_t keyframe_at,
                      double now, struct batch *batch, struct trickle *trickle);
/* The next burst of the cached picture, sent; live when nothing is left. */
void outgoing_catch_up(struct outgoing *out, double now, struct batch *batch, struct trickle *trickle);
/* Sends again what this leg's own 16-bit numbers name; how many went out. */
int outgoing_resend(struct outgoing *out, const uint16_t *lost, int count, double now, struct batch *batch, struct trickle *trickle);

/* From the batch. `outgoing_full`: all but the first `gone` packets of the message found the socket full. */
void outgoing_sent(const struct message *message);
void outgoing_full(const struct message *message, int gone);
void outgoing_takes_no_runs(struct outgoing *out);
/* The shared socket was full: true when it has, from now on, one of its own. */
bool outgoing_takes_lane(struct outgoing *out, struct batch *batch);

#endif
