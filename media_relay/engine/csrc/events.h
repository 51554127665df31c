/* What Python hears of: a bounded queue between the engine's thread and the control side, and a descriptor that is
   readable while something is in it that cannot wait. */
#ifndef DIALCAST_EVENTS_H
#define DIALCAST_EVENTS_H

#include <pthread.h>

#include "sender.h"

#define EVENT_SOCKETS 256

enum event_kind { DATAGRAM, SOURCE_STARTED, KEYFRAME_SEEN, KEYFRAME_NEEDED, UNREACHABLE, MISSING };

struct event {
    enum event_kind kind;
    int fd;
    uint64_t group, leg; /* handles */
    int medium;
    union address from;
    uint16_t size;
    uint8_t *data; /* a datagram, or the numbers that are missing, 16 bits each in our byte order; owned */
};

struct events {
    pthread_mutex_t lock;
    int wakes; /* an eventfd */
    bool woken;
    int first, count;
    uint16_t waiting[EVENT_SOCKETS]; /* datagrams, by the remainder of their socket's number */
    struct event at[MAX_EVENTS];
};

/* False when there is no descriptor for it. */
bool events_open(struct events *events);
void events_close(struct events *events);
/* Takes the data over. A keyframe wakes nobody: there is one every second or two, and hardly ever is one waited for. What a
   flood can be made of is lost where the queue is full, or where one socket's datagrams take their share of it: it must not
   hide what happens to legs, nor what others send. */
void events_put(struct events *events, const struct event *event);
/* Forgets what came over a socket: its number may be another's soon. */
void events_forget(struct events *events, int fd);
/* Takes the oldest out, its data with it; false when there is none. */
bool events_take(struct events *events, struct event *event);

#endif
